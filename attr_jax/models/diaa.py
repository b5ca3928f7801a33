"""DIAA: multi-scale attention heads, weighted focal loss, loss weights from the prediction history.

Sarafianos, Xu, Kakadiaris, "Deep Imbalanced Attribute Classification Using Visual Attention
Aggregation", ECCV 2018. The `Model` is a ResNet-101 with a primary classifier and one attention
head per scale; the score is the mean of their logits. `objective` is Eq. 7: the weighted focal loss
of the primary classifier plus the cross-entropies of the heads, each weighted per sample and label
by how much the sample's predictions varied over earlier epochs (Eq. 5 and 6, after Chang et al.,
"Active Bias", NIPS 2017). `init_memory` and `remember` keep that history.

Where paper and released program (github.com/cvcode18/imbalanced_learning) differ:

  heads            paper: after C4 and C5; program: after block 20 of 23 of C4, after C4, after C5
  attention        paper: 1x1 256, 1x1 256; program: 1x1 512, 3x3 512
  map classifier   paper: 256, 512, 512; program: 256, 512, 1024 channels
  focal gamma      paper: 0.5; program: 2
  class weights    paper: exp(-a), a the share of positives; program: exp(1 - q) for positives and exp(q)
                   for negatives, q = min(1, positives / negatives); its author on PETA: negatives / positives
  losses           the program never executes either novel loss: both sit in a branch that its flags rule
                   out, and plain cross-entropy is trained. Here the formulas are implemented.
  history          the program keeps rows by position, so it cannot shuffle, and counts rows that are still
                   empty as zeros. Here rows belong to sample ids, and only filled ones count.

The first three are `Model(variant=...)`, the next two arguments of `objective`. Biases in front of
batch norm, which have no effect, are left out in both variants.

The ablation of the paper takes the parts away one by one: `Model(scales=...)` leaves out heads,
`objective(variance_weights=False)` the history, `class_weight="none", gamma=0` the weighted focal loss.
"""

from collections.abc import Callable, Mapping
import functools
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax import losses
from attr_jax.nn.attention import spatial_softmax
from attr_jax.nn.norm import BatchNorm
from attr_jax.nn.resnet import ResNet

Memory = dict[str, jax.Array]

# Where a head can stand; "stage3_early" is stage 3 (C4) without its last three blocks.
SCALES = ("stage3_early", "stage3", "stage4")
# variant -> scales, channels of the attention trunk, its second kernel, channels of the map classifier.
VARIANTS = {
    "paper": (SCALES[1:], 256, 1, (256, 512, 512)),
    "code": (SCALES, 512, 3, (256, 512, 1024)),
}

CLASS_WEIGHTS = {
    "exp_neg_prior": losses.exp_prior_weights,
    "deepmar_ratio": losses.deepmar_ratio_weights,
    "neg_over_pos": losses.neg_over_pos_weights,
    "none": lambda ratio: (None, None),
}

# Stage of training -> top-level parameter groups that it changes; of the heads as many as there are scales.
_HEADS = ("head0", "head1", "head2")
TRAINABLE = {
    "backbone": ("backbone", "classifier"),
    "heads": _HEADS,
    "joint": ("backbone", "classifier", *_HEADS),
}

# Epochs count from 0, as in the released program: predictions are kept from epoch 2 and weigh from epoch 5 on.
STORE_FROM_EPOCH = 2
WEIGHT_FROM_EPOCH = 5
_EMPTY = -1  # the epoch of an entry of the history that holds nothing yet

# The released program's "Xavier, Gaussian, fan-in, magnitude 2".
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class AttentionHead(nn.Module):
  """Where to look for each label, how sure to be there, and a classifier on the product (Eq. 1 and 2).

  Attributes:
    num_labels: L.
    attention_width: channels of the attention trunk.
    attention_kernel: size of its second convolution.
    map_widths: channels of the three layers of the map classifier; the last one sees the whole map.
    scale_attention: multiply the weighted map by its number of cells before it is classified.
    dtype: of the computation; attention, confidence, their product and the logits are float32.
    norm: batch norm.
  """

  num_labels: int
  attention_width: int
  attention_kernel: int
  map_widths: tuple[int, int, int]
  scale_attention: bool
  dtype: Any
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [B, h, w, C] -> logits [B, L], attention and confidence [B, h, w, L]; all float32."""
    dense = functools.partial(nn.Dense, kernel_init=he_normal)
    hidden = functools.partial(dense, use_bias=False, dtype=self.dtype)
    norm = functools.partial(self.norm, use_running_average=not train)

    y = norm(relu=True, name="attention_bn0")(hidden(self.attention_width, name="attention_conv0")(x))
    if self.attention_kernel == 1:
      y = hidden(self.attention_width, name="attention_conv1")(y)
    else:
      y = nn.Conv(self.attention_width, (self.attention_kernel,) * 2, padding="SAME", use_bias=False,
                  dtype=self.dtype, kernel_init=he_normal, name="attention_conv1")(y)
    y = norm(relu=True, name="attention_bn1")(y)
    attention = spatial_softmax(dense(self.num_labels, name="attention_conv2")(y))
    confidence = nn.sigmoid(dense(self.num_labels, name="confidence")(x))
    weighted = attention * confidence
    if self.scale_attention:
      weighted *= math.prod(x.shape[1:3])

    first, second, last = self.map_widths
    # In float32: the maps of different images differ little, and batch norm enlarges what rounding would leave of that.
    y = dense(first, use_bias=False, dtype=jnp.float32, name="map_conv0")(weighted)
    y = norm(relu=True, name="map_bn0")(y)
    y = norm(relu=True, name="map_bn1")(hidden(second, name="map_conv1")(y))
    # A convolution whose kernel is the map has one output cell: a matrix product.
    y = hidden(last, name="map_conv2")(y.reshape(y.shape[0], -1))
    y = norm(relu=True, name="map_bn2")(y)
    return dense(self.num_labels, name="classifier")(y.astype(jnp.float32)), attention, confidence


class Model(nn.Module):
  """Trunk `backbone`, primary `classifier`, one attention head per scale: `head0`, `head1` (and `head2` in variant "code").

  At depth 101 and 224x224 with 14 labels 108,012,706 parameters (35 labels: 108,163,381) in variant
  "paper" and 283,457,740 (283,699,870) in "code", which has 283,466,188 (283,708,318) in the released
  program: 2,816 biases in front of batch norm per head.

  The heads classify the whole map at once, so the model works at the image size it was initialised
  with, and batch norm behind that layer sees one value per image: train with 24 images or more per
  device, or with global statistics.

  Attributes:
    num_labels: L.
    depth: 18, 34, 50, 101 or "tiny", see `ResNet`.
    width: of the trunk, see `ResNet`; None takes the one of the depth. The heads' channels are those of
      the paper times width / 64.
    dtype: of the computation; parameters, statistics, attention and logits are float32.
    variant: "paper" or "code", the widths and heads of the publication or of the released program.
    scales: where the heads stand, of SCALES, in order from `head0` on; () leaves the primary classifier alone. None takes
      those of the variant.
    scale_attention: multiply the attended maps by their number of cells. A map that sums to one over 196
      cells is so small that batch norm's epsilon outweighs its variance at the start.
    zero_init_last: start every residual block as the identity.
    bn_axis_name: mesh axis of the batch statistics inside shard_map, see `ResNet`.
  """

  num_labels: int
  depth: int | str = 101
  width: int | None = None
  dtype: Any = jnp.float32
  variant: str = "paper"
  scales: tuple[str, ...] | None = None
  scale_attention: bool = False
  zero_init_last: bool = False
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, inputs: jax.Array, *, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scores of the labels.

    Args:
      inputs: float [B, H, W, 3], normalised.
      train: take and update batch statistics.

    Returns:
      logits float32 [B, L], the mean of primary and heads' logits, and a dict of the stages of `ResNet` and,
      all float32,
        `logits_primary` [B, L], `logits_attention` [B, heads, L],
        `attention_i` [B, h, w, L] of head i, one over the cells in sum,
        `confidence_i` [B, h, w, L] in (0, 1), and `features` [B, C], the pooled stage 4.
      With a head there also `stage3_early`, stage 3 without its last three blocks (block 20 of 23 at depth 101), but
      at least one.

    Raises:
      ValueError: an unknown variant or scale.
    """
    if self.variant not in VARIANTS:
      raise ValueError(f"unknown variant {self.variant!r}; known: {', '.join(VARIANTS)}")
    scales, attention_width, kernel, map_widths = VARIANTS[self.variant]
    scales = scales if self.scales is None else self.scales
    if not set(scales) <= set(SCALES):
      raise ValueError(f"unknown scales {', '.join(set(scales) - set(SCALES))}; known: {', '.join(SCALES)}")
    trunk = ResNet(
        depth=self.depth,
        width=self.width,
        dtype=self.dtype,
        zero_init_last=self.zero_init_last,
        bn_axis_name=self.bn_axis_name,
        name="backbone",
    )
    out = {"stem": trunk.stem(inputs, train)}
    out["stage1"] = trunk.stage1(out["stem"], train)
    out["stage2"] = trunk.stage2(out["stage1"], train)
    blocks = trunk.stage3.blocks(out["stage2"], train)
    out["stage3"] = blocks[-1]
    out["stage4"] = trunk.stage4(out["stage3"], train)
    if "stage3_early" in scales:
      out["stage3_early"] = blocks[max(1, len(blocks) - 4)]

    out["features"] = out["stage4"].astype(jnp.float32).mean(axis=(1, 2))
    out["logits_primary"] = nn.Dense(self.num_labels, kernel_init=he_normal, name="classifier")(out["features"])

    factor = out["stem"].shape[-1] / 64
    # As the trunk's.
    norm = functools.partial(BatchNorm, dtype=self.dtype, axis_name=self.bn_axis_name)
    branches = [out["logits_primary"]]
    for i, scale in enumerate(scales):
      head = AttentionHead(
          num_labels=self.num_labels,
          attention_width=round(attention_width * factor),
          attention_kernel=kernel,
          map_widths=tuple(round(width * factor) for width in map_widths),
          scale_attention=self.scale_attention,
          dtype=self.dtype,
          norm=norm,
          name=f"head{i}",
      )
      branch, out[f"attention_{i}"], out[f"confidence_{i}"] = head(out[scale], train)
      branches.append(branch)
    logits = jnp.stack(branches, axis=1)
    out["logits_attention"] = logits[:, 1:]
    return logits.mean(axis=1), out


def objective(
    logits: jax.Array,
    out: Mapping[str, jax.Array],
    batch: Mapping[str, jax.Array],
    memory: Memory,
    *,
    positive_ratio: jax.Array,
    gamma: float = 0.5,
    class_weight: str = "exp_neg_prior",
    unspecified: str = "negative",
    reduction: str = "sum_labels_mean_samples",
    stage: str = "joint",
    variance_weights: bool = True,
    weight_from_epoch: int = WEIGHT_FROM_EPOCH,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Eq. 7: weighted focal loss of the primary logits plus variance-weighted cross-entropy of each head.

  Args:
    logits: [B, L]; not used, every branch has its own loss.
    out: `logits_primary` [B, L] and `logits_attention` [B, heads, L].
    batch: `label` [B, L] in {0, 1}, `known` bool [B, L], and with a memory also `id` int [B] and `epoch`, int32,
      scalar or [B]: the epoch, from 0, to which each sample of the batch belongs.
    memory: of `init_memory`; {} weighs all samples alike.
    positive_ratio: [L], the share of positives in the training split, in [0, 1].
    gamma: focusing exponent of the primary loss; 2 in the released program.
    class_weight: "exp_neg_prior" (the paper), "deepmar_ratio" (the released program), "neg_over_pos" (its author
      on PETA) or "none". Of the primary loss only.
    unspecified: labels that are not known count as "negative" or not at all ("ignore").
    reduction: as in `losses.reduce_loss`.
    stage: which losses count: "backbone" the primary one, "heads" those of the heads, "joint" all. `TRAINABLE`
      names the parameters that go with it.
    variance_weights: False weighs all samples alike, which leaves plain cross-entropy for the heads.
    weight_from_epoch: first epoch in which the history weighs.

  Returns:
    The loss, a float32 scalar, and its parts `primary`, `attention_0`, ... with `attention_weight`, the mean
    weight of the batch; those that the stage uses.

  Raises:
    ValueError: an unknown class_weight, unspecified, reduction or stage, a negative gamma, or the stage "heads" of a model
      without heads.
  """
  del logits
  if class_weight not in CLASS_WEIGHTS:
    raise ValueError(f"unknown class_weight {class_weight!r}; known: {', '.join(CLASS_WEIGHTS)}")
  if unspecified not in losses.UNSPECIFIED:
    raise ValueError(f"unknown unspecified {unspecified!r}; known: {', '.join(losses.UNSPECIFIED)}")
  if stage not in TRAINABLE:
    raise ValueError(f"unknown stage {stage!r}; known: {', '.join(TRAINABLE)}")
  known = jnp.asarray(batch["known"], bool)
  label = jnp.asarray(batch["label"], jnp.float32) * known
  reduce = functools.partial(
      losses.reduce_loss, where=known if unspecified == "ignore" else None, reduction=reduction)

  terms, weights = {}, {}
  if stage != "heads":
    positive, negative = CLASS_WEIGHTS[class_weight](positive_ratio)
    terms["primary"] = reduce(losses.weighted_focal_loss(
        out["logits_primary"], label, gamma=gamma, positive_weight=positive, negative_weight=negative))
  heads = out["logits_attention"].shape[1]
  if stage != "backbone" and heads:
    weight = jnp.ones(label.shape, jnp.float32)
    if memory and variance_weights:
      weight = attention_weights(memory, batch, weight_from_epoch)
    weights["attention_weight"] = weight.mean()
    for i in range(heads):
      terms[f"attention_{i}"] = reduce(
          weight * losses.binary_cross_entropy(out["logits_attention"][:, i], label))
  if not terms:
    raise ValueError("stage 'heads' has nothing to train: the model has no heads (scales is empty)")
  return sum(terms.values()), terms | weights


def attention_weights(memory: Memory, batch: Mapping[str, jax.Array],
                      weight_from_epoch: int = WEIGHT_FROM_EPOCH) -> jax.Array:
  """1 + the spread of each sample's predictions over the last epochs before its own (Eq. 5).

  A sample's current epoch does not enter, so its weights stay the same throughout that epoch. Where a batch holds
  the end of one epoch and the start of the next, what it remembers itself comes too late for its own samples.

  Args:
    memory: of `init_memory`.
    batch: `id` int [B] and `epoch` int32, scalar or [B].
    weight_from_epoch: before this epoch all weights are 1.

  Returns:
    float32 [B, L]; exactly 1 with fewer than two earlier predictions and for ids outside the memory. Constant
    with respect to gradients.
  """
  ids = jnp.asarray(batch["id"])
  epoch = jnp.broadcast_to(jnp.asarray(batch["epoch"], jnp.int32), ids.shape)
  probability = memory["probability"].at[:, ids].get(mode="fill", fill_value=0)
  stored = memory["epoch"].at[:, ids].get(mode="fill", fill_value=_EMPTY)
  window = memory["epoch"].shape[0] - 1
  earlier = (stored != _EMPTY) & (stored < epoch[None]) & (stored >= epoch[None] - window)
  return losses.attention_variance_weights(probability, earlier & (epoch >= weight_from_epoch)[None])


def init_memory(num_examples: int, num_labels: int, window: int = 5) -> Memory:
  """An empty history of predictions.

  A ring of window + 1 rows: the epoch that is being written must not push out the oldest of the `window` earlier
  ones before every sample has been weighted with it. A row of the ring can hold predictions of two epochs, of
  samples already and not yet seen in the present one, so each entry carries its epoch.

  Args:
    num_examples: N, samples of the training split, whose ids are 0 .. N - 1.
    num_labels: L.
    window: earlier epochs that count, at least 2 (5 in the paper).

  Returns:
    `probability` float32 [window + 1, N, L], zeros, and `epoch` int32 [window + 1, N], the epoch of each entry,
    -1 where there is none.

  Raises:
    ValueError: a window below 2.
  """
  if window < 2:
    raise ValueError(f"window must be at least 2, got {window}")
  return {
      "probability": jnp.zeros((window + 1, num_examples, num_labels), jnp.float32),
      "epoch": jnp.full((window + 1, num_examples), _EMPTY, jnp.int32),
  }


def remember(memory: Memory, logits: jax.Array, batch: Mapping[str, jax.Array], epoch: jax.Array,
             store_from_epoch: int = STORE_FROM_EPOCH) -> Memory:
  """The memory with this batch's predictions written over those of window + 1 epochs ago.

  Args:
    memory: of `init_memory`.
    logits: [B, L], the mean over the branches: one history serves all heads.
    batch: `id` int [B]; ids outside the memory are passed over.
    epoch: int32, scalar or [B]: `batch["epoch"]` of `objective`.
    store_from_epoch: before this epoch nothing is kept.

  Returns:
    The new memory. Pure, without gradient, and independent of the order of the samples.
  """
  rows, num_examples = memory["epoch"].shape
  ids = jnp.asarray(batch["id"])
  epoch = jnp.broadcast_to(jnp.asarray(epoch, jnp.int32), ids.shape)
  ids = jnp.where(epoch >= store_from_epoch, ids, num_examples)  # dropped there
  slot = epoch % rows
  probability = nn.sigmoid(jax.lax.stop_gradient(logits).astype(jnp.float32))
  return {
      "probability": memory["probability"].at[slot, ids].set(probability, mode="drop"),
      "epoch": memory["epoch"].at[slot, ids].set(epoch, mode="drop"),
  }
