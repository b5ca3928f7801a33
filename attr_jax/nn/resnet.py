"""ResNet trunks in the torchvision "v1.5" layout (stride in the 3x3), NHWC.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. Shapes,
padding, batch-norm rule and initialisation follow torchvision, so that its
weights load without any change of value (`attr_jax.weights`). Only the
arithmetic differs: 1x1 convolutions are matrix products over the channel axis,
which XLA fuses and tunes better than a convolution call.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax.nn import convolution
from attr_jax.nn.norm import BatchNorm

Array = jax.Array

# torch's kaiming_normal_(mode="fan_out", nonlinearity="relu").
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
  """Square 2-D convolution without bias, torch padding, kernel [h, w, I, O] float32.

  1x1 kernels without padding are matrix products (strided ones slice first). Size, stride and padding are in cells.
  """

  features: int
  kernel_size: int
  stride: int = 1
  padding: int = 0
  dtype: Any = jnp.float32
  kernel_init: nn.initializers.Initializer = kernel_init

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """x [B, H, W, I] -> [B, H', W', features] of `dtype`; H' = (H + 2 padding - kernel_size) // stride + 1."""
    size, stride, padding = self.kernel_size, self.stride, self.padding
    kernel = self.param("kernel", self.kernel_init, (size, size, x.shape[-1], self.features), jnp.float32)
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if size == 1 and padding == 0:
      return convolution.dot(x[:, ::stride, ::stride], kernel[0, 0])
    return convolution.conv(x, kernel, stride, padding)


def max_pool(x: Array) -> Array:
  """3x3 max pool, stride 2, one border pixel, as in torchvision: [B,H,W,C] -> [B,(H+1)//2,(W+1)//2,C].

  The border is padded by hand with -inf and pooled with VALID: explicit padding on
  `nn.max_pool` is lost in ONNX export.
  """
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
  return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

  features: int
  stride: int
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  last_scale_init: nn.initializers.Initializer

  expansion = 1

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """x [B, h, w, C] -> [B, ceil(h / stride), ceil(w / stride), features]."""
    norm = functools.partial(self.norm, use_running_average=not train)
    y = self.conv(self.features, 3, self.stride, 1, name="conv1")(x)
    y = norm(relu=True, name="bn1")(y)
    y = self.conv(self.features, 3, 1, 1, name="conv2")(y)
    y = norm(scale_init=self.last_scale_init, name="bn2")(y)
    return nn.relu(y + _shortcut(self.conv, norm, x, y, self.stride))


class BottleneckBlock(nn.Module):
  """1x1 reduce, 3x3 (with the stride: v1.5), 1x1 expand by 4, and a shortcut."""

  features: int
  stride: int
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  last_scale_init: nn.initializers.Initializer

  expansion = 4

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """x [B, h, w, C] -> [B, ceil(h / stride), ceil(w / stride), 4 features]."""
    norm = functools.partial(self.norm, use_running_average=not train)
    y = self.conv(self.features, 1, name="conv1")(x)
    y = norm(relu=True, name="bn1")(y)
    y = self.conv(self.features, 3, self.stride, 1, name="conv2")(y)
    y = norm(relu=True, name="bn2")(y)
    y = self.conv(self.features * self.expansion, 1, name="conv3")(y)
    y = norm(scale_init=self.last_scale_init, name="bn3")(y)
    return nn.relu(y + _shortcut(self.conv, norm, x, y, self.stride))


def _shortcut(conv, norm, x, y, stride):
  """x itself where it fits y, else its 1x1 projection; called inside a block's compact method."""
  if stride == 1 and x.shape[-1] == y.shape[-1]:
    return x
  return norm(name="shortcut_bn")(conv(y.shape[-1], 1, stride, name="shortcut_conv")(x))


# depth -> (block, blocks per stage, stem)
DEPTHS = {
    18: (BasicBlock, (2, 2, 2, 2), "imagenet"),
    34: (BasicBlock, (3, 4, 6, 3), "imagenet"),
    50: (BottleneckBlock, (3, 4, 6, 3), "imagenet"),
    101: (BottleneckBlock, (3, 4, 23, 3), "imagenet"),
    # No block at half size: it took 37% of the training time on CPU, and equal time gave a better result without.
    "tiny": (BasicBlock, (0, 1, 1, 1), "small"),
}


class Stem(nn.Module):
  """What comes before stage 1. "imagenet": 7x7 stride 2, max pool (1/4 size); "small": 3x3 stride 2 (1/2 size)."""

  features: int
  kind: str
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """Images [B, H, W, 3] -> [B, h, w, features], the sides a quarter ("imagenet") or half ("small"), rounded up.

    Raises:
      ValueError: an unknown kind.
    """
    sizes = {"imagenet": 7, "small": 3}
    if self.kind not in sizes:
      raise ValueError(f"stem_kind={self.kind!r} is not one of {list(sizes)}")
    size = sizes[self.kind]
    x = self.conv(self.features, size, 2, size // 2, name="conv")(x)
    x = self.norm(use_running_average=not train, relu=True, name="bn")(x)
    return max_pool(x) if self.kind == "imagenet" else x


class Stage(nn.Module):
  """A row of blocks; the first one carries the stride. Without blocks it hands x on."""

  block: Callable[..., nn.Module]
  features: int
  num_blocks: int
  stride: int

  def __call__(self, x: Array, train: bool) -> Array:
    """x [B, h, w, C] -> [B, ceil(h / stride), ceil(w / stride), C'], what stands after the last block."""
    return self.blocks(x, train)[-1]

  @nn.compact
  def blocks(self, x: Array, train: bool) -> list[Array]:
    """x [B, h, w, C] and what stands after each block: entry n is the output of the first n blocks."""
    maps = [x]
    for i in range(self.num_blocks):
      maps.append(self.block(self.features, self.stride if i == 0 else 1, name=f"block{i}")(maps[-1], train))
    return maps


class ResNet(nn.Module):
  """ResNet without its classifier.

  `trunk(x, train=...)` gives every stage. A model that acts between stages calls the
  parts itself: `x = trunk.stem(x, train)`, `x = trunk.stage1(x, train)`, ... `stage4`.

  Attributes:
    depth: 18, 34, 50, 101, or "tiny" (a small stem and three basic blocks, for 48 to 96 px; stage 1 is the stem).
    width: channels of the stem and of stage 1 before expansion; doubled per stage. None: 64, or 16 for "tiny".
    dtype: of the computation and of the results. Parameters and batch statistics are float32.
    stem_kind: "imagenet" or "small"; None takes the one of the depth.
    zero_init_last: start every residual block as the identity (last batch-norm scale 0).
    bn_momentum: share of the old running statistics kept per step (torch's 0.1 is 0.9 here).
    bn_epsilon: added to the variance.
    bn_axis_name: mesh axis over which batch statistics are averaged inside shard_map or
      pmap. None: per device there; under jit None means the whole (global) batch.

  Raises:
    ValueError: at the first call, an unknown depth or stem.
  """

  depth: int | str = 50
  width: int | None = None
  dtype: Any = jnp.float32
  stem_kind: str | None = None
  zero_init_last: bool = False
  bn_momentum: float = 0.9
  bn_epsilon: float = 1e-5
  bn_axis_name: str | None = None

  def setup(self):
    """Makes the parts, `stem` and `stage1` to `stage4`; ValueError for an unknown depth."""
    if self.depth not in DEPTHS:
      raise ValueError(f"depth={self.depth!r} is not one of {list(DEPTHS)}")
    block, num_blocks, stem = DEPTHS[self.depth]
    tiny = self.depth == "tiny"
    width = self.width or (16 if tiny else 64)
    conv = functools.partial(Conv, dtype=self.dtype)
    norm = functools.partial(
        BatchNorm, momentum=self.bn_momentum, epsilon=self.bn_epsilon, dtype=self.dtype, axis_name=self.bn_axis_name
    )
    last_scale_init = nn.initializers.zeros if self.zero_init_last else nn.initializers.ones
    block = functools.partial(block, conv=conv, norm=norm, last_scale_init=last_scale_init)
    self.stem = Stem(width, self.stem_kind or stem, conv, norm)
    self.stage1 = Stage(block, width, num_blocks[0], stride=1)
    self.stage2 = Stage(block, width * 2, num_blocks[1], stride=2)
    self.stage3 = Stage(block, width * 4, num_blocks[2], stride=2)
    self.stage4 = Stage(block, width * 8, num_blocks[3], stride=2)

  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    """Normalised images to the feature maps of all stages.

    Args:
      x: float [B, H, W, 3].
      train: True takes batch statistics and updates the running ones ("batch_stats" must be mutable).

    Returns:
      {"stem", "stage1" (C2), "stage2" (C3), "stage3" (C4), "stage4" (C5)}, each [B, h, w, C] of `dtype`,
      after its last ReLU (and, for the stem, after the max pool).
    """
    out = {"stem": self.stem(x, train)}
    out["stage1"] = self.stage1(out["stem"], train)
    out["stage2"] = self.stage2(out["stage1"], train)
    out["stage3"] = self.stage3(out["stage2"], train)
    out["stage4"] = self.stage4(out["stage3"], train)
    return out
