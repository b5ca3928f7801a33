"""Normalisation and colour jitter against slow per-pixel code."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.nn import preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(batch=5, height=6, width=4, seed=0):
  image = np.random.default_rng(seed).random((batch, height, width, 3)).astype(np.float32)
  image[0, 0, 0] = 0.0  # black, white and grey have no hue
  image[0, 0, 1] = 1.0
  image[0, 0, 2] = 0.4
  return image


def slow_jitter(image, key, *, brightness, contrast, saturation, hue):
  """One image, float64, colorsys for the hue."""
  draw = np.asarray(jax.random.uniform(key, (4,)), np.float64)
  image = image.astype(np.float64)
  grey = lambda x: (x @ np.array([0.2989, 0.587, 0.114]))[..., None]
  factor = lambda a, u: max(0, 1 - a) + u * (1 + a - max(0, 1 - a))
  image = np.clip(image * factor(brightness, draw[0]), 0, 1)
  c = factor(contrast, draw[1])
  image = np.clip(c * image + (1 - c) * grey(image).mean(), 0, 1)
  s = factor(saturation, draw[2])
  image = np.clip(s * image + (1 - s) * grey(image), 0, 1)
  for row in image:
    for pixel in row:
      h, s, v = colorsys.rgb_to_hsv(*pixel)
      pixel[:] = colorsys.hsv_to_rgb((h + hue * (2 * draw[3] - 1)) % 1, s, v)
  return image


@pytest.mark.parametrize("strengths", [
    dict(brightness=0.4, contrast=0.0, saturation=0.0, hue=0.0),
    dict(brightness=0.0, contrast=0.7, saturation=0.0, hue=0.0),
    dict(brightness=0.0, contrast=0.0, saturation=1.5, hue=0.0),
    dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.5),
    dict(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
])
def test_jitter_equals_slow_code(strengths):
  image, keys = images(), preprocess.sample_keys(jax.random.key(3), 5)
  fast = jax.jit(lambda x, k: preprocess.color_jitter(x, k, **strengths))(image, keys)
  slow = np.stack([slow_jitter(x, k, **strengths) for x, k in zip(image, keys)])
  assert fast.dtype == jnp.float32
  np.testing.assert_allclose(fast, slow, atol=2e-5)


def test_jitter_of_a_sample_does_not_depend_on_the_batch():
  strengths = dict(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.2)
  image, keys = images(8), preprocess.sample_keys(jax.random.key(0), 8)
  whole = preprocess.color_jitter(image, keys, **strengths)
  order = np.array([5, 2, 7])
  part = preprocess.color_jitter(image[order], keys[order], **strengths)
  np.testing.assert_array_equal(whole[order], part)


def test_keys_do_not_depend_on_the_batch_size():
  few, many = (preprocess.sample_keys(jax.random.key(1), n) for n in (3, 8))
  np.testing.assert_array_equal(jax.random.key_data(few), jax.random.key_data(many)[:3])
  assert len(np.unique(jax.random.key_data(many), axis=0)) == 8


def test_jitter_is_equal_on_one_and_on_four_devices():
  strengths = dict(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.2)
  image, rng = images(8), jax.random.key(0)
  jitter = lambda x, rng: preprocess.color_jitter(x, preprocess.sample_keys(rng, 8), **strengths)
  mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  split = jax.device_put(image, jax.NamedSharding(mesh, jax.P("data")))
  np.testing.assert_allclose(jax.jit(jitter)(image, rng), jax.jit(jitter)(split, rng), atol=1e-6)


def test_strength_zero_changes_nothing():
  image = images()
  keys = preprocess.sample_keys(jax.random.key(0), 5)
  np.testing.assert_array_equal(preprocess.color_jitter(image, keys), image)


def test_one_strength_does_not_move_another():
  image, keys = images(), preprocess.sample_keys(jax.random.key(0), 5)
  together = preprocess.color_jitter(image, keys, brightness=0.4, saturation=0.4)
  bright = preprocess.color_jitter(image, keys, brightness=0.4)
  np.testing.assert_allclose(together, preprocess.color_jitter(bright, keys, saturation=0.4), atol=1e-6)


@pytest.mark.parametrize("strengths", [{"brightness": -0.1}, {"hue": 0.6}, {"hue": -0.1}])
def test_wrong_strengths_are_refused(strengths):
  with pytest.raises(ValueError, match=next(iter(strengths))):
    preprocess.color_jitter(images(), preprocess.sample_keys(jax.random.key(0), 5), **strengths)


@pytest.mark.parametrize("shape", [(4, 5, 3), (2, 4, 5, 3), (2, 5, 4, 4, 3)])
def test_normalize(shape):
  image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  expected = (image / 255 - np.array(MEAN)) / np.array(STD)
  np.testing.assert_allclose(preprocess.normalize(jnp.asarray(image), MEAN, STD), expected, atol=1e-5)
  scaled = preprocess.normalize(jnp.asarray(image / 255, jnp.float32), MEAN, STD)
  np.testing.assert_allclose(scaled, expected, atol=1e-5)
  assert preprocess.normalize(jnp.asarray(image), MEAN, STD, jnp.bfloat16).dtype == jnp.bfloat16
