"""A torch ResNet to compare with, and weights for it that need no file.

`make_state_dict` draws every tensor from a generator seeded by its name, so a golden
file holds logits alone. torch is imported only where a torch model is asked for.
"""

import zlib

import numpy as np

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def draw(key: str, shape: tuple[int, ...], last_norms: frozenset[str] = frozenset()) -> np.ndarray:
  """The tensor `key`: scaled so that activations neither vanish nor explode over a hundred layers."""
  rng = np.random.default_rng(zlib.crc32(key.encode()))
  layer, leaf = key.rsplit(".", 1)
  if leaf == "num_batches_tracked":
    return np.array(7, np.int64)
  if len(shape) == 4:
    value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
  elif len(shape) == 2:
    value = rng.standard_normal(shape) / np.sqrt(shape[1])
  elif leaf in ("running_mean", "bias"):
    value = 0.1 * rng.standard_normal(shape)
  else:
    # running_var, and scales; the last scale of a residual branch is small.
    value = rng.uniform(0.7, 1.3, shape) * (0.3 if leaf == "weight" and layer in last_norms else 1.0)
  return value.astype(np.float32)


def make_state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  """Weights for these torchvision names and shapes."""
  last = "bn3" if "layer1.0.bn3.weight" in shapes else "bn2"
  last_norms = frozenset(key.rsplit(".", 1)[0] for key in shapes if f".{last}." in key)
  return {key: draw(key, shape, last_norms) for key, shape in shapes.items()}


def make_image(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
  """float32 [B, H, W, 3], as normalised images are."""
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def build(depth: int, num_labels: int):
  """The torchvision architecture, v1.5, in plain torch."""
  import torch
  from torch import nn

  def conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

  class Block(nn.Module):

    def __init__(self, inputs, width, stride, bottleneck):
      super().__init__()
      outputs = width * 4 if bottleneck else width
      # (outputs, kernel size, stride) of every convolution of the branch.
      rows = [(width, 1, 1), (width, 3, stride), (outputs, 1, 1)] if bottleneck else [(width, 3, stride), (width, 3, 1)]
      channels = inputs
      self.count = len(rows)
      for i, (features, size, step) in enumerate(rows, 1):
        setattr(self, f"conv{i}", conv(channels, features, size, step))
        setattr(self, f"bn{i}", nn.BatchNorm2d(features))
        channels = features
      self.downsample = None
      if stride != 1 or inputs != outputs:
        self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
      y = x
      for i in range(1, self.count + 1):
        y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
        y = torch.relu(y) if i < self.count else y
      return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

  class Net(nn.Module):

    def __init__(self):
      super().__init__()
      bottleneck = depth >= 50
      self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
      channels = 64
      for i, count in enumerate(BLOCKS[depth]):
        width, blocks = 64 << i, []
        for j in range(count):
          blocks.append(Block(channels, width, 2 if i and j == 0 else 1, bottleneck))
          channels = width * 4 if bottleneck else width
        setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
      self.fc = nn.Linear(channels, num_labels)

    def forward(self, x):
      x = torch.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
      for i in range(1, 5):
        x = getattr(self, f"layer{i}")(x)
      return self.fc(x.mean((2, 3)))

  return Net()


def build_with_weights(depth: int, num_labels: int):
  """`build` with `make_state_dict`."""
  import torch

  net = build(depth, num_labels)
  shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
  net.load_state_dict({key: torch.from_numpy(value) for key, value in make_state_dict(shapes).items()})
  return net


def run(net, image: np.ndarray, train: bool = False) -> np.ndarray:
  """Logits for image [B, H, W, 3]."""
  import torch

  net.train(train)
  with torch.no_grad():
    return net(torch.from_numpy(image.transpose(0, 3, 1, 2).copy())).numpy()
