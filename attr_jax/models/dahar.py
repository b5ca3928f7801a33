"""Da-HAR: self-mask blocks, multi-level fusion, masked attention.

Wu, Huang, Guo, Wang, "Distraction-Aware Feature Learning for Human Attribute
Recognition via Coarse-to-Fine Attention Mechanism", AAAI 2020.

Main branch: ResNet whose stages are re-weighted by self-masks, then a classifier. Side
branch: features of several stages, fused; a mask of the person, trained by the masks of
a segmentation network; SRN's attention. The score is the mean of both branches' logits.

No code was released, and the paper gives neither widths nor positions, activations, the
weight of the mask loss or where its two losses stand. It does give 45.4 M parameters for
its baseline and 52.4 M for the whole (ResNet-101, 14 labels). The baseline is SRN without
its spatial regulariser: 45,436,010, exactly this model without its three blocks. For the
rest two designs fit both the text and the count:
- "A" (default), 52,373,550: masks of one channel after C2, C3, C4; fusion of C3, C4, C5 by a
  1x1 convolution and two bottlenecks.
- "B", 52,410,987: self-masks with a value per element after C2 to C5; fusion of C2 to C5 without a merging
  convolution, one bottleneck per level. The person's mask has one channel too.
Both keep the attention block of the baseline, so that an ablation isolates each block.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax import losses
from attr_jax.config import is_off
from attr_jax.errors import InputError
from attr_jax.nn.attention import Bottlenecks
from attr_jax.nn.attention import ConvNormRelu
from attr_jax.nn.attention import SRNAttention
from attr_jax.nn.attention import classify
from attr_jax.nn.attention import conv
from attr_jax.nn.attention import kernel_init
from attr_jax.nn.masks import mask_cross_entropy
from attr_jax.nn.masks import resample
from attr_jax.nn.norm import BatchNorm
from attr_jax.nn.resnet import ResNet

STAGES = ("stage1", "stage2", "stage3", "stage4")  # C2 to C5
# design -> stages that get a self-mask, stages that are fused
DESIGNS = {
    "A": (("stage1", "stage2", "stage3"), ("stage2", "stage3", "stage4")),
    "B": (STAGES, STAGES),
}
MASK_APPLY = ("residual", "mul", "identity_init")


class MaskStack(nn.Module):
  """Three 1x1 convolutions C - C/4 - C/4 - out with BN and ReLU between: the logits of a mask.

  Attributes:
    per_element: out is C, with BN and without bias (design B); otherwise 1, with bias.
    zero_init: start with logits of 0, a mask of 0.5.
    dtype: of the computation before the logits.
    bn_axis_name: see `ResNet`.
  """

  per_element: bool = False
  zero_init: bool = False
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """x [B, h, w, C] -> float32 [B, h, w, 1 or C]."""
    common = {"dtype": self.dtype, "bn_axis_name": self.bn_axis_name}
    channels = x.shape[-1]
    y = ConvNormRelu(channels // 4, **common, name="layer1")(x, train)
    y = ConvNormRelu(channels // 4, **common, name="layer2")(y, train)
    if not self.per_element:
      init = nn.initializers.zeros if self.zero_init else kernel_init
      return nn.Dense(1, kernel_init=init, name="mask")(y.astype(jnp.float32))
    y = conv(channels, 1, dtype=self.dtype, name="mask")(y)
    scale_init = nn.initializers.zeros if self.zero_init else nn.initializers.ones
    norm = BatchNorm(not train, dtype=self.dtype, axis_name=self.bn_axis_name, scale_init=scale_init, name="mask_bn")
    return norm(y).astype(jnp.float32)


def apply_mask(x: jax.Array, mask: jax.Array, form: str) -> jax.Array:
  """x [B, h, w, C] re-weighted by a mask [B, h, w, 1 or C] in [0, 1].

  "residual" is x (1 + M): a trunk that comes pretrained is only rescaled at the start. "mul" is x M.
  "identity_init" is 2 x M, which leaves x as it is while M = 0.5. The paper says of a self-mask only that it re-weights
  its input (our choice: "residual"), of the person's mask that it multiplies the features.
  """
  mask = mask.astype(x.dtype)
  return x * {"residual": 1 + mask, "mul": mask, "identity_init": 2 * mask}[form]


class Fusion(nn.Module):
  """Features of several stages in one map: 1x1 reduction, common size, residual blocks against aliasing.

  Attributes:
    channels: of each level; the result has 4 times as many.
    design: "A" merges all levels by a 1x1 convolution before two bottlenecks, "B" has a bottleneck per level.
    dtype: of the computation.
    bn_axis_name: see `ResNet`.
  """

  channels: int = 256
  design: str = "A"
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, levels: Sequence[jax.Array], size: tuple[int, int], train: bool) -> jax.Array:
    """Levels [B, h_i, w_i, C_i] and size (h, w) -> [B, h, w, 4 channels] of `dtype`."""
    common = {"dtype": self.dtype, "bn_axis_name": self.bn_axis_name}
    reduced = []
    for i, x in enumerate(levels):
      x = resample(ConvNormRelu(self.channels, **common, name=f"reduce{i}")(x, train), size)
      if self.design == "B":
        x = Bottlenecks(1, **common, name=f"blocks{i}")(x, train)
      reduced.append(x)
    x = jnp.concatenate(reduced, axis=-1)
    if self.design == "B":
      return x
    x = ConvNormRelu(4 * self.channels, **common, name="merge")(x, train)
    return Bottlenecks(2, **common, name="blocks")(x, train)


class MaskBlock(nn.Module):
  """The mask block of the side branch: two bottlenecks, then a `MaskStack` of one channel."""

  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """x [B, h, w, C] -> logits of the mask, float32 [B, h, w, 1]."""
    common = {"dtype": self.dtype, "bn_axis_name": self.bn_axis_name}
    x = Bottlenecks(2, **common, name="blocks")(x, train)
    return MaskStack(**common, name="stack")(x, train)


class Model(nn.Module):
  """Trunk `backbone`, linear `classifier`, and a side branch on C4 or on fused stages.

  Without `self_mask`, `fusion` and `masked_attention` it is the paper's baseline; Table 3 turns them on one by one.

  Attributes:
    num_labels: L.
    depth: 18, 34, 50, 101 or "tiny", see `ResNet`.
    width: of the trunk; None takes the one of the depth.
    dtype: of the computation; parameters, statistics, masks, attention and logits are float32.
    self_mask: self-masks between the stages, not supervised.
    fusion: the side branch sees fused stages, not C4 alone.
    masked_attention: the side branch predicts the person's mask and its features are multiplied by it.
    design: "A" or "B", see the head of this file.
    mask_apply: how a self-mask acts, see `apply_mask`; "identity_init" also starts its last layer at zero, so
      that a pretrained trunk starts unchanged.
    fusion_channels: per fused level; the fused map has 4 times as many.
    attention_channels: of f_att.
    zero_init_last: start every residual block of the trunk as the identity.
    bn_axis_name: mesh axis of the batch statistics inside shard_map, see `ResNet`.
  """

  num_labels: int
  depth: int | str = 101
  width: int | None = None
  dtype: Any = jnp.float32
  self_mask: bool = True
  fusion: bool = True
  masked_attention: bool = True
  design: str = "A"
  mask_apply: str = "residual"
  fusion_channels: int = 256
  attention_channels: int = 512
  zero_init_last: bool = False
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scores of the labels.

    Args:
      inputs: float [B, H, W, 3], normalised, of any size.
      train: take and update batch statistics.

    Returns:
      logits float32 [B, L], the mean of both branches, and `stem`, `stage1` to `stage4` of `dtype`, each after its
      self-mask, with, all float32, `features` [B, C], `heatmap` [B, h5, w5, L] (see `nn.attention.classify`),
      `self_mask1` to `self_mask4` [B, h_i, w_i, 1 or C_i] where there are any, `mask_logits` and `mask` [B, h, w]
      with `masked_attention`, `attention` and `confidence` [B, h, w, L], `logits_main` and `logits_side` [B, L].
      (h, w) is the size of C4.

    Raises:
      InputError: an unknown design or mask_apply.
    """
    for option, value, known in (("design", self.design, DESIGNS), ("mask_apply", self.mask_apply, MASK_APPLY)):
      if value not in known:
        raise InputError(f"Da-HAR {option} {value!r} is unknown; known: {', '.join(known)}")
    self_masked, fused = DESIGNS[self.design]
    common = {"dtype": self.dtype, "bn_axis_name": self.bn_axis_name}
    trunk = ResNet(self.depth, self.width, zero_init_last=self.zero_init_last, **common, name="backbone")

    out = {"stem": trunk.stem(inputs, train)}
    x = out["stem"]
    for i, stage in enumerate(STAGES, start=1):
      x = getattr(trunk, stage)(x, train)
      if self.self_mask and stage in self_masked:
        name = f"self_mask{i}"
        zero_init = self.mask_apply == "identity_init"
        out[name] = nn.sigmoid(MaskStack(self.design == "B", zero_init, **common, name=name)(x, train))
        x = apply_mask(x, out[name], self.mask_apply)
      out[stage] = x
    main = classify(x, self.num_labels)

    side = out["stage3"]
    if self.fusion:
      fusion = Fusion(self.fusion_channels, self.design, **common, name="fusion")
      side = fusion([out[stage] for stage in fused], side.shape[1:3], train)
    if self.masked_attention:
      mask_logits = MaskBlock(**common, name="mask_block")(side, train)
      mask = nn.sigmoid(mask_logits)
      # A plain product: this mask is the probability of the person.
      side = apply_mask(side, mask, "mul")
      out |= {"mask_logits": mask_logits[..., 0], "mask": mask[..., 0]}
    attention = SRNAttention(self.num_labels, self.attention_channels, **common, name="attention")(side, train)
    out |= {
        "features": main["features"],
        "heatmap": main["heatmap"],
        "attention": attention["attention"],
        "confidence": attention["confidence"],
        "logits_main": main["logits"],
        "logits_side": attention["logits"],
    }
    return (out["logits_main"] + out["logits_side"]) / 2, out


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
    mask_weight: float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross-entropy of both branches and of the person's mask.

  Args:
    logits: not used: each branch has its own loss (not stated in the paper; SRN's author found it more stable).
    out: `logits_main`, `logits_side` [B, L] and, with `masked_attention`, `mask_logits` [B, h, w].
    batch: as in `losses.classification_loss`, like the next four arguments; `person_mask` uint8 [B, H, W].
    memory: not used.
    positive_ratio: [L].
    loss: "bce" (Eq. 1, "o." in the tables), "inverse_ratio" (Eq. 2, "w.") or "mixed" ("m.", not defined in the
      paper, here the mean of both).
    unspecified: "ignore" for the last rows of Table 3.
    reduction: the paper sums over labels.
    mask_weight: of the mask's loss (1: our choice). 0 needs no `person_mask`; neither does a model without `masked_attention`.

  Returns:
    The loss, a float32 scalar, and {"classification": main + side, "main", "side", "mask" (not weighted)}.

  Raises:
    InputError: a mask's loss without `person_mask`.
    ValueError: as `losses.classification_loss`.
  """
  del logits, memory
  main, side = (
      losses.classification_loss(
          out[name], batch, positive_ratio=positive_ratio, loss=loss, unspecified=unspecified, reduction=reduction
      )
      for name in ("logits_main", "logits_side")
  )
  mask = jnp.zeros((), jnp.float32)
  if not is_off(mask_weight) and "mask_logits" in out:
    if "person_mask" not in batch:
      raise InputError("Da-HAR's mask loss needs person masks and the data has none; train with loss.mask_weight=0")
    mask = mask_cross_entropy(out["mask_logits"], batch["person_mask"])
  parts = {"classification": main + side, "main": main, "side": side, "mask": mask}
  return main + side + mask_weight * mask, parts
