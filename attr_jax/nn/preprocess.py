"""What happens to a batch of images on the device, inside the compiled step.

Everything is float32 until the last cast. Random strengths come from one key per
sample, so the result for a sample depends neither on its neighbours nor on how
the batch is split over devices.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

# ITU-R 601-2 luma, as in PIL and torchvision.
_LUMA = (0.2989, 0.587, 0.114)


def normalize(image: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: Any = jnp.float32) -> jax.Array:
  """(image - mean) / std per channel.

  Args:
    image: [..., H, W, 3], uint8 in [0, 255] or float in [0, 1].
    mean: three numbers on the [0, 1] scale.
    std: likewise, positive.
    dtype: of the result; the arithmetic is float32.

  Returns:
    `dtype`, as image.
  """
  scale = 255.0 if image.dtype == jnp.uint8 else 1.0
  shape = (1,) * (image.ndim - 1) + (3,)
  # One multiplication and one addition per value.
  factor = 1 / (scale * jnp.asarray(std, jnp.float32))
  shift = -jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
  return (image.astype(jnp.float32) * factor.reshape(shape) + shift.reshape(shape)).astype(dtype)


def sample_keys(rng: jax.Array, batch_size: int) -> jax.Array:
  """One key per place in the global batch: keys [batch_size], key i = fold_in(rng, i)."""
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, jnp.arange(batch_size))


def color_jitter(
    image: jax.Array,
    keys: jax.Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> jax.Array:
  """Random brightness, contrast, saturation and hue, each sample by its own strengths.

  The operations are torchvision's; their order is fixed (brightness, contrast,
  saturation, hue) where torchvision shuffles it. Brightness multiplies; contrast
  blends with the image's mean grey; saturation blends with the grey image; each
  factor is uniform in [max(0, 1 - a), 1 + a] and each result is clipped to [0, 1].
  Hue turns the colour circle by uniform [-hue, hue] turns. A strength of 0 leaves
  its operation out of the program.

  Args:
    image: float [B, H, W, 3] in [0, 1].
    keys: [B] random keys (`sample_keys`).
    brightness: a of the brightness factor, not negative.
    contrast: likewise.
    saturation: likewise.
    hue: in turns of the circle, in [0, 0.5].

  Returns:
    float32 [B, H, W, 3] in [0, 1].

  Raises:
    ValueError: a strength out of range.
  """
  strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
  for name, strength in strengths.items():
    if strength < 0:
      raise ValueError(f"{name} must not be negative, got {strength}")
  if not 0 <= hue <= 0.5:
    raise ValueError(f"hue must lie in [0, 0.5], got {hue}")
  image = image.astype(jnp.float32)
  # All four are always drawn: switching one off leaves the others as they were.
  draw = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(keys)
  factors = {
      name: _per_sample(jnp.float32(max(0.0, 1 - a)) + draw[:, i] * (min(1.0, a) + a))
      for i, (name, a) in enumerate(strengths.items())
  }
  if brightness:
    image = jnp.clip(image * factors["brightness"], 0, 1)
  if contrast:
    image = _blend(image, _grey(image).mean(axis=(1, 2), keepdims=True), factors["contrast"])
  if saturation:
    image = _blend(image, _grey(image), factors["saturation"])
  if hue:
    image = _turn_hue(image, _per_sample(hue * (2 * draw[:, 3] - 1))[..., 0])
  return image


def _per_sample(values: jax.Array) -> jax.Array:
  """[B] -> [B, 1, 1, 1]."""
  return values[:, None, None, None]


def _grey(image: jax.Array) -> jax.Array:
  """[B, H, W, 3] -> [B, H, W, 1]."""
  red, green, blue = jnp.split(image, 3, axis=-1)
  return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _blend(image: jax.Array, other: jax.Array, factor: jax.Array) -> jax.Array:
  return jnp.clip(other + factor * (image - other), 0, 1)


def _turn_hue(image: jax.Array, turn: jax.Array) -> jax.Array:
  """RGB [B, H, W, 3] with its HSV hue moved by turn [B, 1, 1] (1 = the full circle)."""
  red, green, blue = image[..., 0], image[..., 1], image[..., 2]
  value = image.max(axis=-1)
  chroma = value - image.min(axis=-1)
  divisor = jnp.where(chroma > 0, chroma, 1.0)
  sextant = jnp.where(
      value == red,
      (green - blue) / divisor,
      jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
  )
  sextant = sextant + 6 * turn
  # HSV to RGB without branches: every channel is a trapezoid over the hue.
  channels = []
  for offset in (5, 3, 1):
    k = jnp.mod(offset + sextant, 6)
    channels.append(value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))
  return jnp.stack(channels, axis=-1)
