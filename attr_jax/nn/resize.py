"""Cuts, resizes and mirrors images on the device, each by a box of its own, with the pixels that OpenCV would give.

A pixel of the result lies between two rows and two columns of the image. The sum over these is taken in one of two
ways with the same result: as two matrix products (rows, then columns), which suits the matrix units of a TPU, or by
reading the four pixels, which is about a hundredth of the arithmetic and one pass over the bytes (our choice elsewhere).
"""

import jax
import jax.numpy as jnp
import numpy as np


def linear_positions(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
  """Where OpenCV's INTER_LINEAR samples when it resizes a stretch of `length` pixels to `size`, along one axis.

  Args:
    start: int32 [B], first pixel of the stretch.
    length: int32 [B], its pixels.
    size: n, pixels of the result.

  Returns:
    float32 [B, n], in pixels of the image. Beyond the stretch its border pixel is repeated: what lies there is never seen.
  """
  length = length.astype(jnp.float32)[:, None]
  places = (jnp.arange(size, dtype=jnp.float32) + 0.5)[None]
  inside = jnp.clip(places * (length / size) - 0.5, 0, length - 1)
  return start.astype(jnp.float32)[:, None] + inside


def nearest_positions(start: jax.Array, length: jax.Array, table: np.ndarray) -> jax.Array:
  """As `linear_positions`, the nearest pixels, float32 [B, n]: `table` int32 [longest + 1, n], see `data.ops.nearest_table`."""
  return (start[:, None] + jnp.asarray(table)[length]).astype(jnp.float32)


def cut(image: jax.Array, box: jax.Array, mirrored: jax.Array, size: tuple[int, int], *,
        nearest: tuple[np.ndarray, np.ndarray] | None = None, products: bool = False) -> jax.Array:
  """The box of each image, resized and where asked mirrored left to right.

  Args:
    image: uint8 [B, H, W, C].
    box: int32 [B, 4], top, left, height and width in pixels, inside the image.
    mirrored: bool [B].
    size: (h, w) of the result.
    nearest: tables of rows and columns for the nearest pixel (INTER_NEAREST_EXACT), for class indices; None: bilinear
      (INTER_LINEAR, which does not smooth when it shrinks).
    products: as matrix products.

  Returns:
    uint8 [B, h, w, C]. OpenCV's own arithmetic has 11 bits for its weights: bilinear pixels differ by at most 1 grey level.
  """
  positions = nearest_positions if nearest else linear_positions
  rows, columns = (positions(box[:, axis], box[:, axis + 2], scale) for axis, scale in enumerate(nearest or size))
  columns = jnp.where(mirrored[:, None], columns[:, ::-1], columns)
  result = (_by_products if products else _by_reading)(image, rows, columns)
  return jnp.floor(result + 0.5).astype(jnp.uint8)  # halves go up, as in OpenCV


def _by_products(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """Positions [B, h] and [B, w] -> float32 [B, h, w, C]."""
  def weights(positions: jax.Array, length: int) -> jax.Array:
    """[B, n, length]: two weights in each row, next to the position."""
    return jnp.maximum(0, 1 - jnp.abs(positions[:, :, None] - jnp.arange(length, dtype=jnp.float32)[None, None]))

  # HIGH: three bfloat16 products on a TPU. A single one would leave 8 bits of the weights.
  high = jax.lax.Precision.HIGH
  lines = jnp.einsum("bhH,bHWc->bhWc", weights(rows, image.shape[1]), image.astype(jnp.float32), precision=high)
  return jnp.einsum("bwW,bhWc->bhwc", weights(columns, image.shape[2]), lines, precision=high)


def _by_reading(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """Positions [B, h] and [B, w] -> float32 [B, h, w, C]."""
  top, left = jnp.floor(rows).astype(jnp.int32), jnp.floor(columns).astype(jnp.int32)
  bottom, right = jnp.minimum(top + 1, image.shape[1] - 1), jnp.minimum(left + 1, image.shape[2] - 1)
  down, aside = (rows - top)[:, :, None, None], (columns - left)[:, None, :, None]
  sample = jnp.arange(len(image))[:, None, None]
  read = lambda row, column: image[sample, row[:, :, None], column[:, None, :]].astype(jnp.float32)
  upper = read(top, left) * (1 - aside) + read(top, right) * aside
  lower = read(bottom, left) * (1 - aside) + read(bottom, right) * aside
  return upper * (1 - down) + lower * down


def move_points(points: jax.Array, box: jax.Array, mirrored: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Points of an image in the view that `cut` makes of it; the order of mirrored ones is the caller's.

  Args:
    points: float32 [B, P, 2], x and y in pixels; the centre of the first pixel is 0.
    box: as for `cut`.
    mirrored: bool [B].
    size: (h, w) of the view.

  Returns:
    float32 [B, P, 2].
  """
  box = box.astype(jnp.float32)
  scale = jnp.array([size[1], size[0]], jnp.float32)[None] / box[:, 3:1:-1]
  moved = (points - box[:, None, 1::-1] + 0.5) * scale[:, None] - 0.5
  other = jnp.stack([size[1] - 1 - moved[..., 0], moved[..., 1]], axis=-1)
  return jnp.where(mirrored[:, None, None], other, moved)
