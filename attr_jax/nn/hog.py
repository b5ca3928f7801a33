"""Histograms of oriented gradients (HOG): a description of the shapes in an image that needs no training.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005, in the variant of scikit-image's
`skimage.feature.hog` (0.26): hard bins of unsigned orientation, no Gaussian window, no interpolation between bins or
cells, the colour channel of the largest gradient at each pixel, blocks normalised by L2-Hys.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

EPSILON = 1e-5  # keeps blocks without gradients at zero
CLIP = 0.2  # of values in a block of norm 1
MAX_ORIENTATIONS = 64  # up to which float32 puts every gradient of bytes into its bin


def hog_size(
    height: int,
    width: int,
    *,
    orientations: int = 8,
    cell_size: tuple[int, int] = (16, 16),
    block_size: tuple[int, int] = (3, 3),
) -> int:
  """D, the number of values that `hog` gives for an image of height x width px; 10,368 for the default at 224 x 224.

  Raises:
    ValueError: for options out of range, or an image without room for one block.
  """
  grid = _block_grid(_cell_grid((height, width), orientations, cell_size), cell_size, block_size)
  return math.prod(grid) * math.prod(block_size) * orientations


def hog(
    images: Array,
    *,
    orientations: int = 8,
    cell_size: tuple[int, int] = (16, 16),
    block_size: tuple[int, int] = (3, 3),
) -> Array:
  """The HOG descriptor of each image: its cells' histograms, normalised within every block of neighbouring cells.

  A block starts at every cell that has room for it, so blocks overlap. A block is divided by its L2 norm, its values
  are cut at 0.2, and it is divided by its L2 norm again (L2-Hys).

  Equal to scikit-image's `hog(image, orientations, cell_size, block_size, channel_axis=-1)` to 1e-5, but for the
  pixels that `cell_histograms` names.

  Args:
    images: uint8 or float [B, H, W, C], as `cell_histograms` takes them.
    orientations: bins of a histogram.
    cell_size: (rows, columns) of a cell in px.
    block_size: (rows, columns) of a block in cells.

  Returns:
    float32 [B, D] in [0, 1], D of `hog_size`, in the order block row, block column, cell row, cell column, bin. Blocks
    without any gradient are zero.

  Raises:
    ValueError: as `cell_histograms` and `hog_size`.
  """
  images = _checked(images)
  size = hog_size(*images.shape[1:3], orientations=orientations, cell_size=cell_size, block_size=block_size)
  cells = cell_histograms(images, orientations=orientations, cell_size=cell_size)
  blocks = _normalize(jnp.minimum(_normalize(_blocks(cells, block_size)), CLIP))
  return blocks.reshape(images.shape[0], size)


def cell_histograms(images: Array, *, orientations: int = 8, cell_size: tuple[int, int] = (16, 16)) -> Array:
  """How much gradient of each orientation there is in each cell, before any normalisation.

  Gradients are f(x + 1) - f(x - 1), zero across the border of the image. A pixel adds the magnitude of its gradient to
  the bin of its orientation: bin i begins at 180 / orientations * i degrees and ends before the next one. At 0 the
  image changes along its columns (a vertical edge), at 90 along its rows, at 45 towards the lower right.

  The channels and bins of uint8 images are those of exact arithmetic. So are scikit-image's, but where two channels have
  the same magnitude and the C library's hypot errs in the last bit: two of 10 million pixels of white noise. Of float
  images, with differences rounded to float32, a pixel can take another channel if two have magnitudes within 1e-7 of
  each other, and go to the neighbouring bin within 1e-7 rad of a border other than 0, 45, 90 or 135 degrees. In colour
  photos of 8 bits scaled to [0, 1] equal magnitudes are common, and a dozen pixels of 224 x 224 differ: hand over the
  bytes.

  Args:
    images: uint8 or float [B, H, W, C] with C = 1 or 3, on any scale on which float32 holds the squares of differences.
    orientations: number of bins, 1 to 64.
    cell_size: (rows, columns) of a cell in px. Pixels beyond the last whole cell belong to none.

  Returns:
    float32 [B, H // rows, W // columns, orientations]: sum of magnitudes / number of pixels in the cell.

  Raises:
    ValueError: for images of another shape or type, options out of range, or an image without room for one cell.
  """
  images = _checked(images)
  grid = _cell_grid(images.shape[1:3], orientations, cell_size)
  rows, columns = cell_size
  planes = [_mirror(images[..., channel], axis=1) for channel in range(images.shape[-1])]

  def cell_row(i):
    """The i-th row of cells in all images: [B, orientations, cell columns]."""
    # What this makes for a pixel is many times the size of its bytes; for one row of cells it stays in a CPU's cache.
    # Columns are mirrored here, not before: loops that read a strip right through the slice would not be vectorised.
    strips = [_mirror(jax.lax.dynamic_slice_in_dim(x, i * rows, rows + 2, axis=1), axis=2) for x in planes]
    sums = _sum_rows(*_largest_gradient(strips), orientations)
    return sums[..., :grid[1] * columns].reshape(*sums.shape[:2], grid[1], columns).sum(axis=-1)

  cells = jax.lax.map(cell_row, jnp.arange(grid[0]))  # [cell rows, B, orientations, cell columns]
  return cells.transpose(1, 0, 3, 2) / (rows * columns)


def _checked(images: Array) -> Array:
  """Images as an array, bytes or float32."""
  images = jnp.asarray(images)
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(f"images must be [B, H, W, 1 or 3], got {images.shape}")
  if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f"images must be uint8 or float, got {images.dtype}")
  return images if images.dtype == jnp.uint8 else images.astype(jnp.float32)


def _cell_grid(size: tuple[int, int], orientations: int, cell_size: tuple[int, int]) -> tuple[int, int]:
  """(rows, columns) of whole cells in an image."""
  if not 0 < orientations <= MAX_ORIENTATIONS:
    raise ValueError(f"orientations must be 1 to {MAX_ORIENTATIONS}, got {orientations}")
  if min(cell_size) < 1:
    raise ValueError(f"cell_size must be positive, got {cell_size}")
  grid = (size[0] // cell_size[0], size[1] // cell_size[1])
  if min(grid) < 1:
    raise ValueError(f"{size[0]} x {size[1]} px have no room for a cell of {cell_size[0]} x {cell_size[1]} px")
  return grid


def _block_grid(cells: tuple[int, int], cell_size: tuple[int, int], block_size: tuple[int, int]) -> tuple[int, int]:
  """(rows, columns) of blocks."""
  if min(block_size) < 1:
    raise ValueError(f"block_size must be positive, got {block_size}")
  grid = (cells[0] - block_size[0] + 1, cells[1] - block_size[1] + 1)
  if min(grid) < 1:
    least = " x ".join(str(cell * block) for cell, block in zip(cell_size, block_size))
    raise ValueError(f"the image is too small for a block: it must have {least} px")
  return grid


def _mirror(x: Array, axis: int) -> Array:
  """[B, H, W] with one line more at both ends of the axis, such that the difference across the border is zero."""
  return jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)], mode="reflect")


def _largest_gradient(planes: list[Array]) -> tuple[Array, Array]:
  """The gradient of the channel where it is largest, of the first such channel.

  Args:
    planes: C of uint8 or float32 [B, h + 2, w + 2], the outer lines serve for differences alone.

  Returns:
    float32 [B, h, w] each: the magnitude, and the cotangent of the angle between the gradient and the rows, which
    falls from infinity at 0 to minus infinity before 180 degrees.
  """
  best = None
  for x in planes:
    # 16 bits hold any difference of two bytes, and more of them go through a vector unit at once than of 32.
    x = x.astype(jnp.int16) if x.dtype == jnp.uint8 else x
    d_row = (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]).astype(jnp.float32)
    d_col = (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]).astype(jnp.float32)
    new = (d_row * d_row + d_col * d_col, d_row, d_col)  # the square is exact for bytes
    best = new if best is None else tuple(jnp.where(new[0] > best[0], b, a) for a, b in zip(best, new))
  square, d_row, d_col = best
  level = d_row == 0  # plus infinity for either sign of d_col, and of a zero
  return jnp.sqrt(square), jnp.where(level, 1.0, d_col) / jnp.where(level, 0.0, d_row)


def _sum_rows(magnitude: Array, cotangent: Array, orientations: int) -> Array:
  """Magnitudes of each bin, summed over rows: [B, h, w] twice -> [B, orientations, w].

  Written out, with a selection last, because XLA then makes one loop of it that a CPU vectorises along the columns.
  """
  borders = _border_cotangents(orientations)[:, None]
  sums = jnp.zeros((magnitude.shape[0], orientations, magnitude.shape[2]), jnp.float32)
  for i in range(magnitude.shape[1]):
    inside = (cotangent[:, None, i] <= borders[None, :-1]) & (cotangent[:, None, i] > borders[None, 1:])
    sums = jnp.where(inside, sums + magnitude[:, None, i], sums)
  return sums


def _border_cotangents(orientations: int) -> np.ndarray:
  """float32 [orientations + 1]: of the angles where bins begin and end, from infinity to minus infinity.

  Comparing cotangents takes one division for each pixel instead of an arc tangent. A division is rounded once, and not
  at all on the diagonals; no other border is so close to a ratio of two differences of bytes that the rounding matters.
  """
  angles = [math.pi * i / orientations for i in range(1, orientations)]
  inner = [round(1 / math.tan(angle), 12) for angle in angles]  # exactly 1, 0 and -1 at 45, 90 and 135 degrees
  return np.array([math.inf, *inner, -math.inf], np.float32)


def _blocks(cells: Array, block_size: tuple[int, int]) -> Array:
  """[B, h, w, orientations] -> [B, block rows, block columns, cell rows, cell columns, orientations]."""
  rows, columns = cells.shape[1] - block_size[0] + 1, cells.shape[2] - block_size[1] + 1
  shifted = lambda i, j: cells[:, i:i + rows, j:j + columns]
  block_row = lambda i: jnp.stack([shifted(i, j) for j in range(block_size[1])], axis=3)
  return jnp.stack([block_row(i) for i in range(block_size[0])], axis=3)


def _normalize(blocks: Array) -> Array:
  """Each block over its L2 norm."""
  return blocks / jnp.sqrt(jnp.square(blocks).sum(axis=(-3, -2, -1), keepdims=True) + EPSILON**2)
