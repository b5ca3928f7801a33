"""Spatial Regularization Network.

Zhu, Li, Ouyang, Yu, Wang, "Learning Spatial Regularization with Image-level
Supervisions for Multi-label Image Classification", CVPR 2017.

ResNet with a classifier (y_cls); an attention branch on C4 whose maps A and
confidences S give y_att; and the spatial regulariser f_sr, which sees
U = A * sigmoid(S) (Eq. 8) and gives y_sr. The score is alpha y_cls + (1 - alpha) y_sr,
on logits; y_att only trains. f_sr has a kernel as large as the map, so the input
size at evaluation is that of training. With ResNet-101, 14 labels and 224 px:
46,141,560 parameters; 45,436,010 without f_sr.

Paper and released model differ, as the author says in the issues of his repository:
- The released attention branch has two more residual bottlenecks before f_att, and two 1x1
  convolutions for the confidence (issue 15): `variant="released"`. Their widths are not published
  in readable form. Here: bottlenecks C - C/4 - C/4 - C on the way to f_att alone, confidence
  C - 512 - L with BN and ReLU between.
- The released last stage trains y_cls, y_att and y_sr by three losses, which he found more stable (issue 13); the
  paper trains the aggregated score: `joint_loss`.
- His trunk is a pre-activation ResNet-101 trained with stochastic depth (issue 14); ours is the usual one.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax import losses
from attr_jax.errors import InputError
from attr_jax.nn.attention import ConvNormRelu
from attr_jax.nn.attention import SRNAttention
from attr_jax.nn.attention import classify
from attr_jax.nn.attention import kernel_init
from attr_jax.nn.attention import linear
from attr_jax.nn.norm import BatchNorm
from attr_jax.nn.resnet import ResNet

# stage -> top-level parameters that train in it; the others are frozen.
TRAINABLE = {
    "cls": ("backbone", "classifier"),
    "att": ("attention",),
    "sr": ("regularizer",),
    "joint": ("backbone", "classifier", "attention", "regularizer"),
}
VARIANTS = ("paper", "released")
JOINT_LOSSES = ("branches", "aggregated")


class MapConv(nn.Module):
  """A valid convolution as large as its input, each channel alone, `multiplier` filters per channel, no bias.

  The grouped layer of f_sr: 512 groups of 4 filters. Its output is one cell, so it is a contraction.
  """

  multiplier: int = 4
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x [B, h, w, C] -> [B, C * multiplier] of `dtype`, the filters of a channel side by side.

    Raises:
      InputError: a map of another size than that of the kernel.
    """
    shape = (*x.shape[1:], self.multiplier)
    if self.has_variable("params", "kernel"):
      built = self.get_variable("params", "kernel").shape
      if built != shape:
        raise InputError(
            f"SRN's spatial regulariser was made for feature maps of {built[0]}x{built[1]} cells and got "
            f"{shape[0]}x{shape[1]}: use images of the size it was trained with"
        )
    kernel = self.param("kernel", kernel_init, shape, jnp.float32).astype(self.dtype)
    return jnp.einsum("bhwc,hwcm->bcm", x.astype(self.dtype), kernel).reshape(x.shape[0], -1)


class SpatialRegularizer(nn.Module):
  """f_sr: two 1x1 layers, one layer over the whole map, a classifier (Sec. 3.3).

  Attributes:
    num_labels: L.
    channels: of the 1x1 layers; the map-sized layer has 4 filters for each.
    dtype: of the computation before the classifier.
    bn_axis_name: see `ResNet`.
  """

  num_labels: int
  channels: int = 512
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Weighted attention maps [B, h, w, L] -> y_sr, float32 [B, L]."""
    common = {"dtype": self.dtype, "bn_axis_name": self.bn_axis_name}
    x = ConvNormRelu(self.channels, **common, name="layer1")(x, train)
    x = ConvNormRelu(self.channels, **common, name="layer2")(x, train)
    x = MapConv(dtype=self.dtype, name="map_conv")(x)
    x = BatchNorm(not train, relu=True, dtype=self.dtype, axis_name=self.bn_axis_name, name="map_bn")(x)
    return linear(self.num_labels, "logits")(x.astype(jnp.float32))


class Model(nn.Module):
  """Trunk `backbone`, linear `classifier`, branch `attention`, branch `regularizer`.

  Attributes:
    num_labels: L.
    depth: 18, 34, 50, 101 or "tiny", see `ResNet`.
    width: of the trunk; None takes the one of the depth.
    dtype: of the computation; parameters, statistics, attention and logits are float32.
    variant: "paper" or "released", see the head of this file.
    alpha: share of y_cls in the score.
    scale_attention: multiply f_sr's input by the number of cells. As published U is about 1 / (h w), so small that
      the epsilon of the first batch norm exceeds its variance at the start.
    channels: of f_att and f_sr.
    zero_init_last: start every residual block of the trunk as the identity.
    bn_axis_name: mesh axis of the batch statistics inside shard_map, see `ResNet`.
  """

  num_labels: int
  depth: int | str = 101
  width: int | None = None
  dtype: Any = jnp.float32
  variant: str = "paper"
  alpha: float = 0.5
  scale_attention: bool = False
  channels: int = 512
  zero_init_last: bool = False
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scores of the labels.

    Args:
      inputs: float [B, H, W, 3], normalised; H and W are fixed by the first call.
      train: take and update batch statistics.

    Returns:
      logits float32 [B, L], alpha y_cls + (1 - alpha) y_sr, and the stages of `ResNet` with, all float32,
      `features` [B, C], `heatmap` [B, h5, w5, L] (see `nn.attention.classify`), `attention`, `confidence` and
      `weighted_attention` (Eq. 8) [B, h, w, L] on C4, `logits_cls`, `logits_att`, `logits_sr` [B, L].

    Raises:
      InputError: an unknown variant, or images of another size than at the first call.
    """
    if self.variant not in VARIANTS:
      raise InputError(f"SRN variant {self.variant!r} is unknown; known: {', '.join(VARIANTS)}")
    released = self.variant == "released"
    common = {"dtype": self.dtype, "bn_axis_name": self.bn_axis_name}
    trunk = ResNet(self.depth, self.width, zero_init_last=self.zero_init_last, **common, name="backbone")
    out = trunk(inputs, train)
    main = classify(out["stage4"], self.num_labels)
    attention = SRNAttention(
        self.num_labels,
        self.channels,
        num_blocks=2 if released else 0,
        confidence_layers=2 if released else 1,
        **common,
        name="attention",
    )(out["stage3"], train)
    weighted = attention["attention"] * nn.sigmoid(attention["confidence"])
    scale = weighted.shape[1] * weighted.shape[2] if self.scale_attention else 1
    regularizer = SpatialRegularizer(self.num_labels, self.channels, **common, name="regularizer")
    out |= {
        "features": main["features"],
        "heatmap": main["heatmap"],
        "attention": attention["attention"],
        "confidence": attention["confidence"],
        "weighted_attention": weighted,
        "logits_cls": main["logits"],
        "logits_att": attention["logits"],
        "logits_sr": regularizer(scale * weighted, train),
    }
    return self.alpha * out["logits_cls"] + (1 - self.alpha) * out["logits_sr"], out


def objective(
    logits: jax.Array,
    out: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    memory: Any,
    *,
    positive_ratio: jax.Array,
    loss: str = "bce",
    unspecified: str = "negative",
    reduction: str = "sum_labels_mean_samples",
    stage: str = "joint",
    joint_loss: str = "branches",
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross-entropy of the branches that the stage trains.

  Args:
    logits: float32 [B, L], the aggregated scores.
    out: `logits_cls`, `logits_att`, `logits_sr` [B, L].
    batch: as in `losses.classification_loss`, like the next four arguments.
    memory: not used.
    positive_ratio: [L].
    loss: the class weighting; SRN has none ("bce").
    unspecified: SRN counts unspecified labels as "negative".
    reduction: SRN sums over labels and averages over samples.
    stage: a key of TRAINABLE. "cls", "att" and "sr" are the loss of that branch.
    joint_loss: in the stage "joint", "branches" for the sum over the three branches (released code), "aggregated"
      for the loss of the aggregated scores and that of the attention branch (paper, Eq. 10).

  Returns:
    The loss, a float32 scalar, and the single losses {"cls", "att", "sr", "aggregated"} in every stage.

  Raises:
    InputError: an unknown stage or joint_loss.
    ValueError: as `losses.classification_loss`.
  """
  del memory
  if stage not in TRAINABLE:
    raise InputError(f"SRN stage {stage!r} is unknown; known: {', '.join(TRAINABLE)}")
  if joint_loss not in JOINT_LOSSES:
    raise InputError(f"SRN joint_loss {joint_loss!r} is unknown; known: {', '.join(JOINT_LOSSES)}")
  branches = {
      "cls": out["logits_cls"], "att": out["logits_att"], "sr": out["logits_sr"], "aggregated": logits
  }
  parts = {
      name: losses.classification_loss(
          value, batch, positive_ratio=positive_ratio, loss=loss, unspecified=unspecified, reduction=reduction
      )
      for name, value in branches.items()
  }
  if stage != "joint":
    return parts[stage], parts
  if joint_loss == "branches":
    return parts["cls"] + parts["att"] + parts["sr"], parts
  return parts["aggregated"] + parts["att"], parts
