"""How far a model's heatmaps are from moving with the image (equivariance), and how much of them lies on the person, for any model.

The equivariance error of a label, over a whole split, is

  sum (A - B)^2 / sum ((A - mean A)^2 + (B - mean B)^2)

A the map of an image and B that of its transformed copy, brought back to the frame of A; the sums are over
samples and cells, the means over the cells of a map. 0 is exact, unrelated maps of equal mean give 1. Shrinking the
maps, or adding one constant to them, changes nothing: a model that was trained for consistency (Guo et al., CVPR
2019) gains only by maps that agree better.

The functions give numerator and denominator [L] of a batch, each with the mean over cells instead of the sum, which cancels.
Add them up over batches of one image size and divide; 0 / 0 is a label whose maps are constant and equal.

What lies on the person is the share of a map's positive part that falls on the person's mask, averaged over the images that show the
label (the "energy-based pointing game" of Wang et al., CVPR workshops 2020, with the mask in place of a box).
"""

import jax
import jax.numpy as jnp

from attr_jax import losses
from attr_jax.nn.masks import area_average

Array = jax.Array


def flip_error_sums(heatmap: Array, heatmap_of_flipped: Array, valid: Array | None = None) -> tuple[Array, Array]:
  """Numerator and denominator of the error under a left-right flip.

  Args:
    heatmap: float [B, h, w, L].
    heatmap_of_flipped: [B, h, w, L], of the flipped images, as the model gives it (not flipped back).
    valid: bool [B], samples that count (False: padding of a batch); None for all.

  Returns:
    float32 [L] each.

  Raises:
    ValueError: maps of different shapes.
  """
  return _sums(losses.attention_consistency(heatmap, heatmap_of_flipped[:, :, ::-1]), heatmap, heatmap_of_flipped, valid)


def scale_error_sums(large: Array, small: Array, valid: Array | None = None) -> tuple[Array, Array]:
  """Numerator and denominator of the error under a change of the image's size.

  Args:
    large: float [B, h, w, L].
    small: [B, h', w', L], of the same images at another size. Both are compared as if enlarged to the
      least common multiple of their sizes, see `losses.scale_consistency`.
    valid: as in `flip_error_sums`.

  Returns:
    float32 [L] each.

  Raises:
    ValueError: maps of different B or L.
  """
  return _sums(losses.scale_consistency(large, small), large, small, valid)


def inside_sums(heatmap: Array, mask: Array, shown: Array) -> tuple[Array, Array]:
  """Sum over samples of the share of each map that lies on the person, and how many samples count.

  Args:
    heatmap: float [B, h, w, L].
    mask: uint8 [B, H, W], 255 on the person.
    shown: bool [B, L], labels that the sample is known to have; the others do not count, nor maps without a positive cell.

  Returns:
    float32 [L] each.
  """
  positive = jnp.maximum(jnp.asarray(heatmap, jnp.float32), 0)
  inside = area_average(jnp.asarray(mask, jnp.float32) / 255, heatmap.shape[1:3])
  whole = positive.sum(axis=(1, 2))
  counts = shown & (whole > 0)
  share = (positive * inside[..., None]).sum(axis=(1, 2)) / jnp.where(counts, whole, 1)
  return jnp.where(counts, share, 0).sum(axis=0), counts.sum(axis=0).astype(jnp.float32)


def _sums(apart: Array, a: Array, b: Array, valid: Array | None) -> tuple[Array, Array]:
  """Sums over samples of `apart` [B, L] and of the variances of a and b [B, h, w, L] over their cells."""
  spread = sum(jnp.asarray(x, jnp.float32).var(axis=(1, 2)) for x in (a, b))
  if valid is not None:
    # Padding may hold anything.
    apart, spread = (jnp.where(valid[:, None], x, 0.0) for x in (apart, spread))
  return apart.sum(axis=0), spread.sum(axis=0)
