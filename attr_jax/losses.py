"""Losses: pure, element-wise, unreduced, float32; and how they are reduced.

A loss of attributes is an array [B, L] (batch, labels); `reduce_loss` makes the
scalar. Logits of any float type are cast to float32 first. Values and gradients
are finite for logits of +-1e4, because nothing here takes the logarithm of a
probability. Shapes that do not match raise ValueError when the function is traced.

Class weights are pairs (positive_weight, negative_weight), float32 [L] each, made
from the share of positives [L] of each label in the training split, a fraction in
[0, 1] (ValueError otherwise, unless it is a jax array). For example

  positive, negative = exp_ratio_weights(info.positive_ratio)
  loss = binary_cross_entropy(
      logits, label, positive_weight=positive, negative_weight=negative)
"""

import functools
import math

import jax
from jax import numpy as jnp
import numpy as np

REDUCTIONS = ("sum_labels_mean_samples", "mean")


def _pair(logits, label) -> tuple[jax.Array, jax.Array]:
  logits, label = jnp.asarray(logits, jnp.float32), jnp.asarray(label, jnp.float32)
  if logits.shape != label.shape:
    raise ValueError(f"logits have shape {logits.shape}, label has {label.shape}")
  return logits, label


def _weight(weight, shape: tuple[int, ...]) -> jax.Array:
  """A weight that broadcasts against the loss: scalar, [L] or the loss' shape."""
  weight = jnp.asarray(1.0 if weight is None else weight, jnp.float32)
  if weight.shape not in ((), shape[-1:], shape):
    raise ValueError(f"weight has shape {weight.shape}, the loss has {shape}")
  return weight.reshape((1,) * (len(shape) - weight.ndim) + weight.shape)


def binary_cross_entropy(
    logits, label, *, positive_weight=None, negative_weight=None) -> jax.Array:
  """-(w+ y log s + w- (1 - y) log(1 - s)) with s = sigmoid(logits).

  Args:
    logits: [..., L].
    label: as logits, in [0, 1]; soft labels (mask targets) are fine.
    positive_weight: w+, a scalar, [L] or as logits; 1 if None.
    negative_weight: w-, likewise.

  Returns:
    float32, as logits. Eq. 1 (w = 1) and Eq. 2 (`inverse_ratio_weights`) of
    Wu et al. 2020, and the loss of Guo et al. 2019 (`exp_ratio_weights`), before the sums.

  Raises:
    ValueError: label or a weight does not have one of these shapes.
  """
  logits, label = _pair(logits, label)
  positive = _weight(positive_weight, logits.shape) * label * jax.nn.softplus(-logits)
  negative = _weight(negative_weight, logits.shape) * (1 - label) * jax.nn.softplus(logits)
  return positive + negative


def weighted_focal_loss(
    logits, label, *, gamma: float = 0.5, positive_weight=None,
    negative_weight=None) -> jax.Array:
  """-(w+ (1 - s)^g y log s + w- s^g (1 - y) log(1 - s)), s = sigmoid(logits).

  The primary loss of Sarafianos et al. 2018, with w+ = w- = exp(-a)
  (`exp_prior_weights`) and g = 0.5. The powers are exp(-g softplus(+-z)): with g < 1
  the gradient of (1 - s)^g itself is nan at s = 1. g = 0 gives `binary_cross_entropy`.

  Args:
    logits: [..., L].
    label: as logits, in [0, 1].
    gamma: g, not negative.
    positive_weight: as in `binary_cross_entropy`.
    negative_weight: likewise.

  Returns:
    float32, as logits.

  Raises:
    ValueError: a negative gamma (not seen where it is traced), or shapes as in `binary_cross_entropy`.
  """
  if isinstance(gamma, (int, float)) and gamma < 0:  # a traced one cannot be looked at
    raise ValueError(f"gamma must not be negative, got {gamma}")
  logits, label = _pair(logits, label)
  miss, false_alarm = jax.nn.softplus(-logits), jax.nn.softplus(logits)  # -log s, -log(1 - s)
  positive = _weight(positive_weight, logits.shape) * label
  negative = _weight(negative_weight, logits.shape) * (1 - label)
  return (positive * jnp.exp(-gamma * false_alarm) * miss
          + negative * jnp.exp(-gamma * miss) * false_alarm)


def attention_variance_weights(history, filled) -> jax.Array:
  """1 + sqrt(v + v^2 / (|H| - 1)): weights of the attention loss, Eq. 5 of Sarafianos et al. 2018.

  v is the population variance of a sample's earlier probabilities for a label and
  |H| the number of them (after Chang et al. 2017, "Active Bias"). Multiply them
  with `binary_cross_entropy`. No gradient flows through.

  Args:
    history: [H, B, L] probabilities of up to H earlier epochs.
    filled: which rows count: bool [H] or [H, B], or the number of filled rows, the
      first ones, as an integer scalar or [B].

  Returns:
    float32 [B, L], exactly 1 where fewer than two rows are filled.

  Raises:
    ValueError: history or filled has another shape.
  """
  history = jax.lax.stop_gradient(jnp.asarray(history, jnp.float32))
  if history.ndim != 3:
    raise ValueError(f"history must be [H, B, L], got shape {history.shape}")
  rows, batch, _ = history.shape
  filled = jnp.asarray(filled)
  if filled.dtype == bool:
    shapes = ((rows,), (rows, batch))
  else:
    shapes = ((), (batch,))
  if filled.shape not in shapes:
    raise ValueError(
        f"filled ({filled.dtype}) has shape {filled.shape}, history {history.shape} needs "
        f"{shapes[0]} or {shapes[1]}")
  if filled.dtype != bool:
    filled = jnp.arange(rows)[:, None] < filled.reshape(1, -1)
  filled = filled.reshape(rows, -1, 1)
  # Unfilled rows may hold anything, nan included.
  history = jnp.where(filled, history, 0.0)
  count = filled.sum(axis=0).astype(jnp.float32)
  mean = history.sum(axis=0) / jnp.maximum(count, 1)
  deviation = jnp.where(filled, history - mean[None], 0.0)
  variance = jnp.square(deviation).sum(axis=0) / jnp.maximum(count, 1)
  spread = jnp.sqrt(variance + jnp.square(variance) / jnp.maximum(count - 1, 1))
  return 1 + jnp.where(count >= 2, spread, 0.0)


def attention_consistency(heatmap_a, heatmap_b, *, form: str = "mse", where=None) -> jax.Array:
  """How far two attention maps of one frame are apart (Guo et al. 2019).

  "mse" is the mean over cells of the squared difference, the released program.
  "norm" is the printed formula, the 2-norm of the difference over the map divided
  by the number of cells. Both sides get gradients. Average the result over samples
  and labels (`reduce_loss(..., reduction="mean")`).

  Args:
    heatmap_a: [B, H, W, L].
    heatmap_b: [B, H, W, L], brought to the frame of heatmap_a (flipped back, say).
    form: "mse" or "norm".
    where: [B, H, W] bool, cells that both views see; None for all.

  Returns:
    float32 [B, L]; 0 for a sample without any cell.

  Raises:
    ValueError: an unknown form, or shapes that do not match.
  """
  if form not in ("mse", "norm"):
    raise ValueError(f"unknown form {form!r}; known: mse, norm")
  a, b = jnp.asarray(heatmap_a, jnp.float32), jnp.asarray(heatmap_b, jnp.float32)
  if a.ndim != 4 or a.shape != b.shape:
    raise ValueError(f"heatmaps must be [B, H, W, L] alike, got {a.shape} and {b.shape}")
  where = jnp.ones(a.shape[:3], bool) if where is None else jnp.asarray(where, bool)
  if where.shape != a.shape[:3]:
    raise ValueError(f"where has shape {where.shape}, expected {a.shape[:3]}")
  squared = jnp.where(where[..., None], jnp.square(a - b), 0.0).sum(axis=(1, 2))
  cells = jnp.maximum(where.sum(axis=(1, 2)), 1).astype(jnp.float32)[:, None]
  if form == "mse":
    return squared / cells
  # The gradient of a 2-norm at 0 is taken to be 0.
  apart = squared > 0
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0) / cells


def scale_consistency(heatmap_a, heatmap_b, *, form: str = "mse") -> jax.Array:
  """`attention_consistency` of two maps of one frame that differ in size (Guo et al. 2019).

  What the released program gets by repeating the values of both maps (7x7 and 6x6, say) up to the
  least common multiple of their sizes (42x42). The borders of all cells together cut an axis into
  no more than H + h - 1 pieces, and within a rectangle of pieces nothing varies: its difference counts by its area.

  Args:
    heatmap_a: [B, H, W, L].
    heatmap_b: [B, h, w, L].
    form: as in `attention_consistency`; the cells of "norm" are those of the common multiple.

  Returns:
    float32 [B, L].

  Raises:
    ValueError: an unknown form, or maps of different B or L.
  """
  if form not in ("mse", "norm"):
    raise ValueError(f"unknown form {form!r}; known: mse, norm")
  a, b = jnp.asarray(heatmap_a, jnp.float32), jnp.asarray(heatmap_b, jnp.float32)
  if a.ndim != 4 or b.ndim != 4 or a.shape[::3] != b.shape[::3]:
    raise ValueError(f"heatmaps must be [B, H, W, L] and [B, h, w, L], got {a.shape} and {b.shape}")
  rows_a, rows_b, heights = _pieces(a.shape[1], b.shape[1])
  columns_a, columns_b, widths = _pieces(a.shape[2], b.shape[2])
  # Repeating as a product with zeros and ones: the gradient of an indexed read would be a scatter.
  repeat = functools.partial(jnp.einsum, "ph,qw,bhwl->bpql", precision="highest")
  squared = jnp.square(repeat(rows_a, columns_a, a) - repeat(rows_b, columns_b, b))
  squared = jnp.einsum("p,q,bpql->bl", heights, widths, squared, precision="highest")
  if form == "mse":
    return squared
  cells = math.lcm(a.shape[1], b.shape[1]) * math.lcm(a.shape[2], b.shape[2])
  # The gradient of a 2-norm at 0 is taken to be 0.
  apart = squared > 0
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0) / math.sqrt(cells)


def _pieces(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """An axis cut by the borders of n cells and of m cells, into P pieces.

  Returns:
    [P, n] and [P, m], 1 where the piece lies in the cell; [P], lengths that sum to 1.
  """
  whole = math.lcm(n, m)
  borders = np.union1d(np.arange(0, whole + 1, whole // n), np.arange(0, whole + 1, whole // m))
  start, length = borders[:-1], np.diff(borders) / whole
  cell = lambda count: np.eye(count, dtype=np.float32)[start // (whole // count)]
  return cell(n), cell(m), length.astype(np.float32)


def softmax_cross_entropy(logits, target) -> jax.Array:
  """-sum_k t_k log softmax(logits)_k, for class maps (the face parsing of Kalayeh et al. 2017).

  Args:
    logits: [..., K].
    target: integer classes [...], or a distribution [..., K]. An integer outside
      [0, K), such as 255, marks a pixel that does not count: its loss is 0 (our choice).

  Returns:
    float32 [...].

  Raises:
    ValueError: shapes that do not match.
  """
  logits, target = jnp.asarray(logits, jnp.float32), jnp.asarray(target)
  if jnp.issubdtype(target.dtype, jnp.integer):
    if target.shape != logits.shape[:-1]:
      raise ValueError(f"classes have shape {target.shape}, logits {logits.shape}")
    target = jax.nn.one_hot(target, logits.shape[-1], dtype=jnp.float32)
  elif target.shape != logits.shape:
    raise ValueError(f"target has shape {target.shape}, logits have {logits.shape}")
  return -(target.astype(jnp.float32) * jax.nn.log_softmax(logits)).sum(axis=-1)


def reduce_loss(
    loss, *, where=None, reduction: str = "sum_labels_mean_samples") -> jax.Array:
  """One number from an element-wise loss.

  "sum_labels_mean_samples", the convention of this project, of SRN, VAC and Da-HAR,
  sums over the last axis and averages over all others. "mean" averages over all
  (DIAA's programs; attention terms; pixels): its learning rates are L times larger.

  Args:
    loss: [B, ..., L].
    where: bool, the shape of loss or of its first axes; cells where it is False
      become 0 and pass no gradient. The divisor stays (no renormalisation by the
      number of cells kept, as in Wu et al. 2020).
    reduction: one of REDUCTIONS.

  Returns:
    float32 scalar.

  Raises:
    ValueError: an unknown reduction, a where of another shape, or a loss without a label axis where labels are summed.
  """
  if reduction not in REDUCTIONS:
    raise ValueError(f"unknown reduction {reduction!r}; known: {', '.join(REDUCTIONS)}")
  loss = jnp.asarray(loss, jnp.float32)
  if where is not None:
    where = jnp.asarray(where, bool)
    if where.shape != loss.shape[:where.ndim]:
      raise ValueError(f"where has shape {where.shape}, loss has {loss.shape}")
    where = where.reshape(where.shape + (1,) * (loss.ndim - where.ndim))
    loss = jnp.where(where, loss, 0.0)
  if reduction == "mean":
    return loss.mean()
  if loss.ndim < 2:
    raise ValueError(f"{reduction} needs a loss [B, ..., L], got shape {loss.shape}")
  return loss.sum(axis=-1).mean()


# Class weights.


def _ratio(ratio) -> jax.Array:
  """The share of positives [L], checked unless it is traced or on a device."""
  if not isinstance(ratio, jax.Array):
    wrong = [float(value) for value in ratio if not 0 <= float(value) <= 1]
    if wrong:
      raise ValueError(f"positive ratios must lie in [0, 1], got {wrong[0]}")
  return jnp.asarray(ratio, jnp.float32)


def exp_ratio_weights(ratio) -> tuple[jax.Array, jax.Array]:
  """(exp(1 - r), exp(r)), r the share of positives [L] (Li et al. 2015; Guo et al. 2019)."""
  ratio = _ratio(ratio)
  return jnp.exp(1 - ratio), jnp.exp(ratio)


def inverse_ratio_weights(ratio) -> tuple[jax.Array, jax.Array]:
  """(1 / (2 r), 1 / (2 (1 - r))), r [L] clipped to [0.01, 0.99] (Eq. 2 of Wu et al. 2020; the clip is our choice)."""
  ratio = jnp.clip(_ratio(ratio), 0.01, 0.99)
  return 0.5 / ratio, 0.5 / (1 - ratio)


def mixed_weights(ratio) -> tuple[jax.Array, jax.Array]:
  """The mean of no weights and `inverse_ratio_weights`, of the share of positives [L].

  One cross-entropy with these weights is (L_b + L_w) / 2, because the weights enter linearly: our reading of
  the mixed loss, which Wu et al. 2020 name and do not define.
  """
  positive, negative = inverse_ratio_weights(ratio)
  return (1 + positive) / 2, (1 + negative) / 2


def exp_prior_weights(ratio) -> tuple[jax.Array, jax.Array]:
  """(w, w) with w = exp(-a), a the share of positives [L] (Sarafianos et al. 2018)."""
  weight = jnp.exp(-_ratio(ratio))
  return weight, weight


def deepmar_ratio_weights(ratio) -> tuple[jax.Array, jax.Array]:
  """(exp(1 - q), exp(q)), q = min(1, positives / negatives) [L] (released code of Sarafianos et al. 2018)."""
  ratio = _ratio(ratio)
  odds = jnp.minimum(1.0, ratio / jnp.maximum(1 - ratio, 0.5))  # above one half q is 1 anyhow
  return jnp.exp(1 - odds), jnp.exp(odds)


def neg_over_pos_weights(ratio) -> tuple[jax.Array, jax.Array]:
  """(w, w) with w = max(1, negatives / positives) [L], the share of positives not below 0.01 (our choice).

  Sarafianos et al. 2018 on PETA, as the author says in issue 7 of the released program: 1 for a
  majority class, else the ratio of negatives to positives.
  """
  ratio = jnp.clip(_ratio(ratio), 0.01, 1.0)
  weight = jnp.maximum(1.0, (1 - ratio) / ratio)
  return weight, weight


def capped_positive_weights(ratio, cap: float = 10.0) -> tuple[jax.Array, jax.Array]:
  """(min(cap, negatives / positives), 1) [L], 1 for labels without positives (Tang et al. 2019, with a cap of 10)."""
  ratio = _ratio(ratio)
  some = ratio > 0
  odds = (1 - ratio) / jnp.where(some, ratio, 1.0)
  return jnp.where(some, jnp.minimum(odds, cap), 1.0), jnp.ones_like(ratio)


# The loss of an attribute model, by name.

# name -> class weights from the share of positives; None: all ones.
CLASSIFICATION_LOSSES = {
    "bce": None,
    "capped_positive": capped_positive_weights,
    "inverse_ratio": inverse_ratio_weights,
    "exp_ratio": exp_ratio_weights,
    "mixed": mixed_weights,
}
UNSPECIFIED = ("negative", "ignore")


def classification_loss(
    logits, batch, *, positive_ratio, loss: str = "bce", unspecified: str = "negative",
    reduction: str = "sum_labels_mean_samples") -> jax.Array:
  """Cross-entropy of a batch under a named weighting.

  Args:
    logits: [B, L].
    batch: `label` [B, L] in {0, 1} and `known` bool [B, L].
    positive_ratio: [L], the share of positives in the training split, in [0, 1].
    loss: "bce" (Eq. 1 of Wu et al. 2020), "inverse_ratio" (its Eq. 2), "mixed" (their mean), "exp_ratio" (Guo et al.
      2019) or "capped_positive" (Tang et al. 2019).
    unspecified: labels that are not known count as "negative" (SRN, DIAA) or not at all ("ignore", Wu et al. 2020).
    reduction: as in `reduce_loss`.

  Returns:
    float32 scalar.

  Raises:
    ValueError: an unknown loss, unspecified or reduction, or shapes that do not match.
  """
  if loss not in CLASSIFICATION_LOSSES:
    raise ValueError(f"unknown loss {loss!r}; known: {', '.join(CLASSIFICATION_LOSSES)}")
  if unspecified not in UNSPECIFIED:
    raise ValueError(f"unknown unspecified {unspecified!r}; known: {', '.join(UNSPECIFIED)}")
  weights = CLASSIFICATION_LOSSES[loss]
  positive, negative = (None, None) if weights is None else weights(positive_ratio)
  known = jnp.asarray(batch["known"], bool)
  label = jnp.asarray(batch["label"], jnp.float32) * known
  values = binary_cross_entropy(logits, label, positive_weight=positive, negative_weight=negative)
  return reduce_loss(values, where=known if unspecified == "ignore" else None, reduction=reduction)
