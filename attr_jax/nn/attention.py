"""Attention over space per label, class activation maps, and the layers that the new branches are built of.

Zhu et al., "Learning Spatial Regularization with Image-level Supervisions for
Multi-label Image Classification" (SRN), CVPR 2017, Sec. 3.2. Wu et al.,
"Distraction-Aware Feature Learning for Human Attribute Recognition via
Coarse-to-Fine Attention Mechanism" (Da-HAR), AAAI 2020, take the same block.

All layers here start from N(0, 0.01) with zero biases (Wu et al.; SRN does not
say), unlike those of the trunk. Attention, confidence and logits are float32 for
every compute dtype.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax.nn import convolution
from attr_jax.nn.norm import BatchNorm
from attr_jax.nn.resnet import BottleneckBlock
from attr_jax.nn.resnet import Conv

Array = jax.Array

kernel_init = nn.initializers.normal(0.01)


def spatial_softmax(z: Array) -> Array:
  """Softmax over the h * w cells, for each sample and label alone.

  Args:
    z: [B, h, w, L], any float type.

  Returns:
    float32 [B, h, w, L] that sums to 1 over (h, w).
  """
  # Over one axis: jax2onnx knows no softmax over several.
  cells = z.astype(jnp.float32).reshape(z.shape[0], -1, z.shape[-1])
  return jax.nn.softmax(cells, axis=1).reshape(z.shape)


def conv(features: int, kernel_size: int, stride: int = 1, padding: int = 0, **options: Any) -> nn.Module:
  """A convolution [B, H, W, I] -> [B, H', W', features] without bias, N(0, 0.01); 1x1 is a matrix product, kernel [I, O].

  The arguments, in cells, are those of `resnet.Conv`, so that residual blocks can be built of it. `options`: dtype, name.
  """
  if kernel_size == 1 and stride == 1:
    return nn.Dense(features, use_bias=False, kernel_init=kernel_init, dot_general=convolution.dot_general, **options)
  return Conv(features, kernel_size, stride, padding, kernel_init=kernel_init, **options)


def linear(features: int, name: str) -> nn.Module:
  """A 1x1 convolution or classifier [..., I] -> float32 [..., features] with bias, N(0, 0.01); cast its input to float32."""
  return nn.Dense(features, kernel_init=kernel_init, name=name)


class ConvNormRelu(nn.Module):
  """Convolution (size kept), batch norm, ReLU: [B, h, w, I] -> [B, h, w, features] of `dtype`."""

  features: int
  kernel_size: int = 1
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """x [B, h, w, I] -> [B, h, w, features] of `dtype`."""
    x = conv(self.features, self.kernel_size, padding=self.kernel_size // 2, dtype=self.dtype, name="conv")(x)
    return BatchNorm(not train, relu=True, dtype=self.dtype, axis_name=self.bn_axis_name, name="bn")(x)


class Bottlenecks(nn.Module):
  """A row of residual bottlenecks C - C/4 - C/4 - C that keep size and channels C: [B, h, w, C] -> the same."""

  count: int
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """x [B, h, w, C] -> the same shape, of `dtype`."""
    width = x.shape[-1] // BottleneckBlock.expansion

    def block_conv(*args, **options):
      return conv(*args, dtype=self.dtype, **options)

    def block_norm(**options):
      return BatchNorm(dtype=self.dtype, axis_name=self.bn_axis_name, **options)

    for i in range(self.count):
      x = BottleneckBlock(width, 1, block_conv, block_norm, nn.initializers.ones, name=f"block{i}")(x, train)
    return x


class SRNAttention(nn.Module):
  """Attention maps, confidence maps and the logits that they give (SRN, Sec. 3.2).

  f_att is 1x1 `channels`, BN, ReLU, 3x3 `channels`, BN, ReLU, 1x1 L; the confidence is one 1x1 convolution
  of the features to L, not squashed. The logit of a label is the sum over cells of attention times confidence:
  a linear classifier on features pooled by its own attention.

  Attributes:
    num_labels: L.
    channels: of f_att.
    num_blocks: residual bottlenecks before f_att (the released SRN has 2, the paper none).
    confidence_layers: 1, or 2 for 1x1 `channels`, BN, ReLU before the last (released SRN).
    dtype: of the convolutions before the last ones.
    bn_axis_name: see `ResNet`.
  """

  num_labels: int
  channels: int = 512
  num_blocks: int = 0
  confidence_layers: int = 1
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array, train: bool) -> dict[str, Array]:
    """Features to attention.

    Args:
      x: [B, h, w, C], in SRN C4.
      train: take and update batch statistics.

    Returns:
      float32: "attention" [B, h, w, L], sums to 1 over (h, w); "confidence" [B, h, w, L]; "logits" [B, L].
    """
    common = {"dtype": self.dtype, "bn_axis_name": self.bn_axis_name}
    y = Bottlenecks(self.num_blocks, **common, name="blocks")(x, train)
    y = ConvNormRelu(self.channels, **common, name="layer1")(y, train)
    y = ConvNormRelu(self.channels, 3, **common, name="layer2")(y, train)
    attention = spatial_softmax(linear(self.num_labels, "attention")(y.astype(jnp.float32)))
    for i in range(1, self.confidence_layers):
      x = ConvNormRelu(self.channels, **common, name=f"confidence{i}")(x, train)
    confidence = linear(self.num_labels, "confidence")(x.astype(jnp.float32))
    logits = (attention * confidence).sum(axis=(1, 2))
    return {"attention": attention, "confidence": confidence, "logits": logits}


def classify(cells: Array, num_labels: int) -> dict[str, Array]:
  """Global average pooling and the Dense "classifier"; called inside a model's compact method.

  Args:
    cells: [B, h, w, C], the last stage of the trunk.
    num_labels: L.

  Returns:
    float32: "logits" [B, L], "features" [B, C] (the mean of the cells) and "heatmap" [B, h, w, L], the class
    activation map: the classifier at each cell, without its bias (Zhou et al., CVPR 2016).
  """
  # In float32: a mean over bf16 values would be rounded once per addition.
  cells = cells.astype(jnp.float32)
  features = cells.mean(axis=(1, 2))
  classifier = linear(num_labels, "classifier")
  logits = classifier(features)
  heatmap = jnp.dot(cells, classifier.variables["params"]["kernel"])
  return {"logits": logits, "features": features, "heatmap": heatmap}
