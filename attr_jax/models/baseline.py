"""ResNet, global average pooling, one linear classifier: row 0 of every table.

The ResNet-101 baseline of Zhu et al. (CVPR 2017), Sarafianos et al. (ECCV 2018)
and Guo et al. (CVPR 2019); with 14 labels 42,528,846 parameters.
"""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax import losses
from attr_jax.nn.attention import classify
from attr_jax.nn.resnet import ResNet


class Model(nn.Module):
  """Trunk `backbone`, linear `classifier`.

  Attributes:
    num_labels: L.
    depth: 18, 34, 50, 101 or "tiny", see `ResNet`.
    width: of the trunk; None takes the one of the depth.
    dtype: of the computation; parameters, statistics and logits are float32.
    zero_init_last: start every residual block as the identity.
    bn_axis_name: mesh axis of the batch statistics inside shard_map, see `ResNet`.
  """

  num_labels: int
  depth: int | str = 50
  width: int | None = None
  dtype: Any = jnp.float32
  zero_init_last: bool = False
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scores of the labels.

    Args:
      inputs: float [B, H, W, 3], normalised.
      train: take and update batch statistics.

    Returns:
      logits float32 [B, L], and the stages of `ResNet` with `features` float32 [B, C] (pooled stage 4) and
      `heatmap` float32 [B, h, w, L], the class activation map: the classifier at each cell, without
      its bias (Zhou et al., CVPR 2016). Its mean over the cells plus the bias is the logits.
    """
    trunk = ResNet(
        depth=self.depth,
        width=self.width,
        dtype=self.dtype,
        zero_init_last=self.zero_init_last,
        bn_axis_name=self.bn_axis_name,
        name="backbone",
    )
    out = trunk(inputs, train)
    head = classify(out["stage4"], self.num_labels)
    logits = head.pop("logits")
    return logits, out | head


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
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross-entropy of the labels: logits [B, L]; out and memory are not used, the others as in `losses.classification_loss`.

  Returns:
    The loss, a float32 scalar, and {"classification": the same}.

  Raises:
    ValueError: as `losses.classification_loss`.
  """
  del out, memory
  value = losses.classification_loss(
      logits, batch, positive_ratio=positive_ratio, loss=loss, unspecified=unspecified, reduction=reduction
  )
  return value, {"classification": value}
