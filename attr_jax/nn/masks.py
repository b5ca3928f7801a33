"""Maps and masks brought from one size to another."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def area_average(x: Array, size: tuple[int, int]) -> Array:
  """The mean of x over the area that each target cell covers, exact for any ratio of the sizes.

  Args:
    x: float [B, H, W] or [B, H, W, C].
    size: (h, w), not larger than (H, W). If they divide them this is mean pooling.

  Returns:
    [B, h, w] or [B, h, w, C], of the type of x.
  """
  rows, columns = (jnp.asarray(_overlap(n, m), x.dtype) for n, m in zip(x.shape[1:3], size))
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
  """A feature map at another size: `area_average` to a smaller one, bilinear (half-pixel centres) to a larger one.

  Args:
    x: float [B, H, W, C].
    size: (h, w).

  Returns:
    [B, h, w, C], of the type of x.
  """
  if x.shape[1] >= size[0] and x.shape[2] >= size[1]:
    return area_average(x, size)
  return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear")
