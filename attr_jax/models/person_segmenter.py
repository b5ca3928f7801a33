"""A segmenter of the person that a crop shows: where Da-HAR's mask targets come from.

Wu et al., "Distraction-Aware Feature Learning for Human Attribute Recognition via
Coarse-to-Fine Attention Mechanism", AAAI 2020: a segmentation network with an FPN,
trained on MS-COCO; the P2 features; person crops of 224x224 with only the target
person kept. The paper says no more. Here (our choice) P2 goes through two 3x3
convolutions to one logit per cell, so that the mask of a 224x224 crop has 56x56
cells, and cross-entropy per cell trains everything from ImageNet weights. The crop
itself says who is meant: the person that fills the box.

`attr-jax annotate` writes its masks beside a prepared data set. Any model of this
project with `mask` in its outputs can annotate.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax.errors import InputError
from attr_jax.nn.attention import ConvNormRelu
from attr_jax.nn.attention import linear
from attr_jax.nn.fpn import FPN
from attr_jax.nn.masks import mask_cross_entropy
from attr_jax.nn.resnet import ResNet


class Model(nn.Module):
  """Trunk `backbone`, pyramid `fpn`, head `layer1`, `layer2`, `mask`. With ResNet-50 25,525,185 parameters.

  Attributes:
    num_labels: not used: the model names no attributes.
    depth: 18, 34, 50, 101 or "tiny", see `ResNet`.
    width: of the trunk; None takes the one of the depth.
    dtype: of the computation; parameters, statistics and the mask are float32.
    channels: of the pyramid; the head has half as many.
    zero_init_last: start every residual block of the trunk as the identity.
    bn_axis_name: mesh axis of the batch statistics inside shard_map, see `ResNet`.
  """

  num_labels: int = 0
  depth: int | str = 50
  width: int | None = None
  dtype: Any = jnp.float32
  channels: int = 256
  zero_init_last: bool = False
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mask of the person.

    Args:
      inputs: float [B, H, W, 3], normalised, of any size.
      train: take and update batch statistics.

    Returns:
      logits float32 [B, 0] (there are no labels), and the stages of `ResNet` with `P2` [B, h, w, channels] and,
      float32, `mask_logits` and `mask` [B, h, w], at the size of C2 (a quarter of the input).
    """
    common = {"dtype": self.dtype, "bn_axis_name": self.bn_axis_name}
    out = ResNet(self.depth, self.width, zero_init_last=self.zero_init_last, **common, name="backbone")(inputs, train)
    out |= FPN(self.channels, ("P2",), dtype=self.dtype, name="fpn")(out)
    x = ConvNormRelu(self.channels // 2, 3, **common, name="layer1")(out["P2"], train)
    x = ConvNormRelu(self.channels // 2, 3, **common, name="layer2")(x, train)
    out["mask_logits"] = linear(1, "mask")(x.astype(jnp.float32))[..., 0]
    out["mask"] = nn.sigmoid(out["mask_logits"])
    return jnp.zeros((inputs.shape[0], 0), jnp.float32), out


def objective(
    logits: jax.Array,
    out: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    memory: Any,
    *,
    positive_ratio: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross-entropy of the mask's cells with the share of the person in each.

  Args:
    logits: not used.
    out: `mask_logits` float32 [B, h, w].
    batch: `person_mask` uint8 [B, H, W], 255 on the target person.
    memory: not used.
    positive_ratio: not used.

  Returns:
    The loss, a float32 scalar, and {"mask": the same}.

  Raises:
    InputError: the data has no masks.
  """
  del logits, memory, positive_ratio
  if "person_mask" not in batch:
    raise InputError("the person segmenter needs person masks and the data has none (or config.input.masks is off)")
  value = mask_cross_entropy(out["mask_logits"], batch["person_mask"])
  return value, {"mask": value}
