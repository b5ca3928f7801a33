"""The rivals: our ResNets, baseline and Da-HAR (design A) in PyTorch, with our weights in them.

Laid out after `attr_jax/nn/resnet.py`, `models/baseline.py` and `models/dahar.py`, with their names, so that
`copy_variables` needs no table. What a careful PyTorch user would do is done: memory in the channels-last order, 1x1
convolutions instead of matrix products over a strided axis, float32 logits and masks outside of autocast, no counters in
batch norm, the whole step (bytes in, loss out) in one function that `torch.compile` can take.

Importing this file needs PyTorch (`pip install torch`).
"""

from collections import OrderedDict
from collections.abc import Mapping
import os

# Its threads otherwise go on spinning while the other side of a benchmark has its turn. A script that imports torch before
# this file has to set them itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import flax.traverse_util
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

# depth -> (bottlenecks?, blocks per stage)
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    "tiny": (False, (0, 1, 1, 1)),
}


def conv(channels, features, kernel_size, stride=1):
  return nn.Conv2d(channels, features, kernel_size, stride, kernel_size // 2, bias=False)


def norm(features):
  bn = nn.BatchNorm2d(features)  # momentum 0.1, epsilon 1e-5: ours
  bn.num_batches_tracked = None  # an update per layer and step that nothing reads
  return bn


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or 1x1 - 3x3 (with the stride) - 1x1 with 4 times the channels."""

  def __init__(self, channels, features, stride, bottleneck):
    super().__init__()
    out = features * 4 if bottleneck else features
    if bottleneck:
      sizes, widths, strides = (1, 3, 1), (channels, features, features, out), (1, stride, 1)
    else:
      sizes, widths, strides = (3, 3), (channels, features, out), (stride, 1)
    self.count = len(sizes)
    for i, size in enumerate(sizes):
      setattr(self, f"conv{i + 1}", conv(widths[i], widths[i + 1], size, strides[i]))
      setattr(self, f"bn{i + 1}", norm(widths[i + 1]))
    self.projects = stride != 1 or channels != out
    if self.projects:
      self.shortcut_conv, self.shortcut_bn = conv(channels, out, 1, stride), norm(out)

  def forward(self, x):
    y = x
    for i in range(1, self.count + 1):
      y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
      y = F.relu(y, inplace=True) if i < self.count else y
    x = self.shortcut_bn(self.shortcut_conv(x)) if self.projects else x
    return F.relu(y + x, inplace=True)


class Stem(nn.Module):
  """7x7 stride 2 and a max pool, or (tiny) 3x3 stride 2."""

  def __init__(self, features, tiny):
    super().__init__()
    self.conv, self.bn, self.pools = conv(3, features, 3 if tiny else 7, 2), norm(features), not tiny

  def forward(self, x):
    x = F.relu(self.bn(self.conv(x)), inplace=True)
    return F.max_pool2d(x, 3, 2, 1) if self.pools else x


class ResNet(nn.Module):
  """The trunk, v1.5; `channels` holds those of stages 1 to 4."""

  def __init__(self, depth=50, width=None):
    super().__init__()
    bottleneck, counts = DEPTHS[depth]
    tiny = depth == "tiny"
    width = width or (16 if tiny else 64)
    self.stem = Stem(width, tiny)
    self.channels, channels = [], width
    for i, count in enumerate(counts):
      features, blocks = width << i, OrderedDict()
      for n in range(count):
        blocks[f"block{n}"] = Block(channels, features, 2 if i and not n else 1, bottleneck)
        channels = features * 4 if bottleneck else features
      setattr(self, f"stage{i + 1}", nn.Sequential(blocks))
      self.channels.append(channels)


class Recognizer(nn.Module):
  """uint8 images [B, H, W, 3] to a dict of float32 logits; `normalize` is part of it, so that it can be compiled with it."""

  def __init__(self, mean, std):
    super().__init__()
    mean, std = (torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1) for values in (mean, std))
    self.register_buffer("factor", 1 / (255 * std), persistent=False)
    self.register_buffer("shift", -mean / std, persistent=False)

  def normalize(self, image):
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W], still channels last in memory."""
    return image.permute(0, 3, 1, 2).float() * self.factor + self.shift


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Baseline(Recognizer):
  """`models.baseline`: trunk, global average, linear classifier."""

  def __init__(self, num_labels, depth=50, width=None, mean=MEAN, std=STD):
    super().__init__(mean, std)
    self.backbone = ResNet(depth, width)
    self.classifier = nn.Linear(self.backbone.channels[-1], num_labels)

  def forward(self, image):
    """uint8 [B, H, W, 3] -> {"logits": float32 [B, L]}."""
    trunk = self.backbone
    x = trunk.stem(self.normalize(image))
    x = trunk.stage4(trunk.stage3(trunk.stage2(trunk.stage1(x))))
    return {"logits": classify(self.classifier, x)}


def classify(classifier, x):
  """[B, C, h, w] -> float32 [B, L]."""
  with torch.autocast(x.device.type, enabled=False):
    return classifier(x.float().mean((2, 3)))


class ConvNormRelu(nn.Module):

  def __init__(self, channels, features, kernel_size=1):
    super().__init__()
    self.conv, self.bn = conv(channels, features, kernel_size), norm(features)

  def forward(self, x):
    return F.relu(self.bn(self.conv(x)), inplace=True)


def bottlenecks(count, channels):
  return nn.Sequential(OrderedDict((f"block{i}", Block(channels, channels // 4, 1, True)) for i in range(count)))


def resample(x, size):
  """[B, C, H, W] at another size: means over whole cells to a smaller one, bilinear (half-pixel centres) to a larger one."""
  rows, columns = x.shape[2:]
  if (rows, columns) == size:
    return x
  if rows % size[0] == 0 and columns % size[1] == 0:
    return F.avg_pool2d(x, (rows // size[0], columns // size[1]))
  if rows < size[0] and columns < size[1]:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
  raise ValueError(f"{rows} x {columns} cells do not divide into {size[0]} x {size[1]}; take images with sides of a multiple of 32 px")


class MaskStack(nn.Module):
  """Three 1x1 convolutions C - C/4 - C/4 - 1: [B, C, h, w] -> float32 logits [B, 1, h, w]."""

  def __init__(self, channels):
    super().__init__()
    self.layer1, self.layer2 = ConvNormRelu(channels, channels // 4), ConvNormRelu(channels // 4, channels // 4)
    self.mask = nn.Conv2d(channels // 4, 1, 1)

  def forward(self, x):
    x = self.layer2(self.layer1(x))
    with torch.autocast(x.device.type, enabled=False):
      return self.mask(x.float())


class Fusion(nn.Module):
  """C3, C4, C5 reduced, brought to one size, merged by a 1x1 convolution, two bottlenecks."""

  def __init__(self, levels, channels):
    super().__init__()
    for i, level in enumerate(levels):
      setattr(self, f"reduce{i}", ConvNormRelu(level, channels))
    self.merge, self.blocks = ConvNormRelu(len(levels) * channels, 4 * channels), bottlenecks(2, 4 * channels)

  def forward(self, levels, size):
    reduced = [resample(getattr(self, f"reduce{i}")(x), size) for i, x in enumerate(levels)]
    return self.blocks(self.merge(torch.cat(reduced, 1)))


class MaskBlock(nn.Module):

  def __init__(self, channels):
    super().__init__()
    self.blocks, self.stack = bottlenecks(2, channels), MaskStack(channels)

  def forward(self, x):
    return self.stack(self.blocks(x))


class SRNAttention(nn.Module):
  """[B, C, h, w] -> float32 logits [B, L], confidence pooled by attention."""

  def __init__(self, channels, num_labels, features):
    super().__init__()
    self.layer1, self.layer2 = ConvNormRelu(channels, features), ConvNormRelu(features, features, 3)
    self.attention, self.confidence = nn.Conv2d(features, num_labels, 1), nn.Conv2d(channels, num_labels, 1)

  def forward(self, x):
    y = self.layer2(self.layer1(x))
    with torch.autocast(x.device.type, enabled=False):
      attention = self.attention(y.float()).flatten(2).softmax(-1)
      return (attention * self.confidence(x.float()).flatten(2)).sum(-1)


class DaHAR(Recognizer):
  """`models.dahar` in full: design A, residual self-masks, fusion, masked attention."""

  def __init__(self, num_labels, depth=101, width=None, fusion_channels=256, attention_channels=512, mean=MEAN, std=STD):
    super().__init__(mean, std)
    self.backbone = ResNet(depth, width)
    channels, side = self.backbone.channels, 4 * fusion_channels
    self.self_mask1, self.self_mask2, self.self_mask3 = map(MaskStack, channels[:3])
    self.classifier = nn.Linear(channels[-1], num_labels)
    self.fusion, self.mask_block = Fusion(channels[1:], fusion_channels), MaskBlock(side)
    self.attention = SRNAttention(side, num_labels, attention_channels)

  def forward(self, image):
    """uint8 [B, H, W, 3] -> {"logits", "logits_main", "logits_side"} float32 [B, L] and "mask_logits" float32 [B, 1, h, w]."""
    trunk = self.backbone
    x = trunk.stem(self.normalize(image))
    levels = []
    for i in range(1, 5):
      x = getattr(trunk, f"stage{i}")(x)
      if i < 4:
        x = x * (1 + torch.sigmoid(getattr(self, f"self_mask{i}")(x)).to(x.dtype))
      levels.append(x)
    main = classify(self.classifier, x)
    side = self.fusion(levels[1:], tuple(levels[2].shape[2:]))
    mask_logits = self.mask_block(side)
    side = side * torch.sigmoid(mask_logits).to(side.dtype)
    logits = self.attention(side)
    return {"logits": (main + logits) / 2, "logits_main": main, "logits_side": logits, "mask_logits": mask_logits}


def classification_loss(logits, batch):
  """Cross-entropy, summed over labels, averaged over samples; unspecified labels do not count."""
  values = F.binary_cross_entropy_with_logits(logits, batch["label"].float(), reduction="none")
  return (values * batch["known"]).sum(-1).mean()


def baseline_loss(out, batch):
  """The objective of configs/baseline.py: `batch` as ours, tensors."""
  return classification_loss(out["logits"], batch)


def dahar_loss(out, batch):
  """The objective of configs/dahar.py, with `person_mask` uint8 [B, H, W] and a weight of 1 for its loss."""
  mask = out["mask_logits"]
  share = resample(batch["person_mask"][:, None].float() / 255, tuple(mask.shape[2:]))
  main, side = (classification_loss(out[name], batch) for name in ("logits_main", "logits_side"))
  return main + side + F.binary_cross_entropy_with_logits(mask, share)


LOSSES = {Baseline: baseline_loss, DaHAR: dahar_loss}
# Flax leaf -> torch leaf.
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torch_names(variables: Mapping, net: nn.Module) -> dict[str, np.ndarray]:
  """Flax `params`, with `batch_stats` or alone, or gradients in the same tree, under the names and in the shapes of `net`.

  Raises:
    ValueError: a tensor that `net` does not have, or of another shape.
  """
  own, renamed = net.state_dict(), {}
  for path, value in flax.traverse_util.flatten_dict(dict(variables)).items():
    *path, leaf = path
    name, value = ".".join([*path, LEAVES[leaf]]), np.asarray(value)
    if name not in own:
      raise ValueError(f"the torch network has no {name}")
    shape = tuple(own[name].shape)
    if leaf == "kernel":  # [h, w, I, O] or [I, O] -> [O, I, h, w] or [O, I]
      value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T.reshape(value.T.shape + (1,) * (len(shape) - 2))
    if value.shape != shape:
      raise ValueError(f"{name} has shape {shape} in torch, {value.shape} here")
    renamed[name] = value
  return renamed


@torch.no_grad()
def copy_variables(net: nn.Module, params: Mapping, batch_stats: Mapping) -> nn.Module:
  """Our parameters and running statistics into `net`, which is handed back.

  Raises:
    ValueError: a tensor of one side that the other does not have.
  """
  own, found = net.state_dict(), torch_names(params, net) | torch_names(batch_stats, net)
  if missing := set(own) - set(found):
    raise ValueError(f"nothing for {', '.join(sorted(missing))}")
  for name, value in found.items():
    own[name].copy_(torch.from_numpy(np.array(value)))
  return net


def make_optimizer(net, options, **implementation):
  """`config.optimizer` in torch: momentum SGD, the weight decay on all parameters or on those of convolutions and classifiers alone.

  `implementation`: fused=True or foreach=True.
  """
  parameters = list(net.parameters())
  kernels = [p for p in parameters if p.ndim > 1] if options.weight_decay_on == "kernels" else parameters
  others = [p for p in parameters if p.ndim == 1] if options.weight_decay_on == "kernels" else []
  groups = [{"params": kernels, "weight_decay": options.weight_decay}]
  if others:
    groups.append({"params": others, "weight_decay": 0.0})
  return torch.optim.SGD(groups, options.learning_rate, options.momentum, nesterov=options.nesterov, **implementation)


def put_batch(batch, device):
  """numpy arrays -> tensors on `device`."""
  return {key: torch.from_numpy(np.asarray(value)).to(device) for key, value in batch.items()}
