"""Maps and masks brought from one size to another, and masks measured against true ones."""

import jax
import jax.numpy as jnp
import numpy as np

from attr_jax import losses

Array = jax.Array


def area_average(x: Array, size: tuple[int, int]) -> Array:
  """The mean of x over the area that each target cell covers, exact for any ratio of the sizes.

  Args:
    x: float [B, H, W] or [B, H, W, C].
    size: (h, w), not larger than (H, W). If they divide them this is mean pooling.

  Returns:
    [B, h, w] or [B, h, w, C], of the type of x.

  Raises:
    ValueError: a larger size.
  """
  return _weighted(x, *(_overlap(n, m) for n, m in zip(x.shape[1:3], size)))


def _weighted(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
  """x [B, H, W] or [B, H, W, C] by the weights rows [h, H] and columns [w, W]."""
  rows, columns = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
  y = jnp.einsum("ph,qw,bhw...->bpq...", rows, columns, x, precision="highest", preferred_element_type=jnp.float32)
  return y.astype(x.dtype)


def _overlap(n: int, m: int) -> np.ndarray:
  """[m, n]: the share of each of n source cells in each of m target cells; every row sums to 1."""
  if not 0 < m <= n:
    raise ValueError(f"cannot average {n} cells to {m}")
  edges = np.arange(m + 1) * n / m
  low = np.maximum(edges[:-1, None], np.arange(n))
  high = np.minimum(edges[1:, None], np.arange(n) + 1)
  return np.clip(high - low, 0, None) * m / n


def resample(x: Array, size: tuple[int, int]) -> Array:
  """A feature map at another size, each axis by itself: the mean over areas to fewer cells, bilinear (half-pixel centres) to more.

  In place of `jax.image.resize`, which jax2onnx converts for a fixed batch only.

  Args:
    x: float [B, H, W, C].
    size: (h, w).

  Returns:
    [B, h, w, C], of the type of x.
  """
  return _weighted(x, *(_overlap(n, m) if m <= n else _interpolation(n, m) for n, m in zip(x.shape[1:3], size)))


def _interpolation(n: int, m: int) -> np.ndarray:
  """[m, n]: the weight of each of n source cells in each of m > n target cells, bilinear; beyond the border the last cell goes on."""
  place = ((np.arange(m) + 0.5) * n / m - 0.5).clip(0, n - 1)
  return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(n)))


def mask_cross_entropy(mask_logits: Array, mask: Array) -> Array:
  """Cross-entropy of a predicted mask's cells, averaged over cells and samples (our choice; Wu et al. 2020 name no loss of masks).

  Args:
    mask_logits: float [B, h, w].
    mask: uint8 [B, H, W], 255 on the target; a cell's label is the share of the target in its area.

  Returns:
    float32 scalar.

  Raises:
    ValueError: the mask is smaller than the logits.
  """
  share = area_average(jnp.asarray(mask, jnp.float32) / 255, mask_logits.shape[1:])
  return losses.reduce_loss(losses.binary_cross_entropy(mask_logits, share), reduction="mean")


def mask_overlap(probability: Array, mask: Array) -> tuple[Array, Array]:
  """Pixels in the intersection and in the union of a predicted mask and the true one.

  The prediction is brought to the size of the true mask (bilinear) before both are cut at a half: a coarse mask is
  measured on fine ground (our choice).

  Args:
    probability: float [B, h, w] in [0, 1].
    mask: uint8 [B, H, W], 0 to 255.

  Returns:
    (intersection, union), int32 [B] each.
  """
  predicted = resample(probability[..., None], mask.shape[1:])[..., 0] >= 0.5
  true = mask >= 128
  count = lambda pixels: pixels.sum(axis=(1, 2), dtype=jnp.int32)
  return count(predicted & true), count(predicted | true)


def region_confusion(probability: Array, region: Array) -> Array:
  """How many pixels of each true region were taken for which.

  Args:
    probability: float [B, h, w, R], brought to the size of the true regions (bilinear) before the highest one is taken.
    region: uint8 [B, H, W], the true region of each pixel in 0..R-1; any other value is unknown and not counted.

  Returns:
    int32 [B, R, R]: true region, predicted region.
  """
  count = probability.shape[-1]
  predicted = resample(probability, region.shape[1:]).argmax(axis=-1)
  true, predicted = jax.nn.one_hot(region, count), jax.nn.one_hot(predicted, count)  # all zero where unknown
  # Exact: an image has fewer than 2^24 pixels.
  return jnp.einsum("bhwt,bhwp->btp", true, predicted, precision="highest").astype(jnp.int32)
