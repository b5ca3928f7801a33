"""Attention over space, the layers of the branches, and resampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.nn import attention
from attr_jax.nn import masks

LABELS = 5


def test_spatial_softmax_sums_to_one_per_sample_and_label():
  z = jax.random.normal(jax.random.key(0), (3, 4, 6, LABELS)) * 20
  a = attention.spatial_softmax(z)
  np.testing.assert_allclose(a.sum(axis=(1, 2)), np.ones((3, LABELS)), rtol=1e-5)
  # Against a slow loop, for one sample and label alone.
  e = np.exp(np.asarray(z[1, :, :, 2], np.float64) - float(z[1, :, :, 2].max()))
  np.testing.assert_allclose(a[1, :, :, 2], e / e.sum(), rtol=1e-4, atol=1e-12)


def test_spatial_softmax_of_bfloat16_is_computed_in_float32():
  # In bf16 a sum of 196 small terms would be off by percents.
  z = jax.random.normal(jax.random.key(0), (2, 14, 14, LABELS)).astype(jnp.bfloat16)
  a = attention.spatial_softmax(z)
  assert a.dtype == jnp.float32
  np.testing.assert_array_equal(a, attention.spatial_softmax(z.astype(jnp.float32)))
  np.testing.assert_allclose(a.sum(axis=(1, 2)), np.ones((2, LABELS)), rtol=1e-5)


def test_spatial_softmax_is_finite_for_huge_logits():
  z = jnp.zeros((1, 3, 2, 2)).at[0, 1, 1, 0].set(1e30).at[0, 0, 0, 1].set(-1e30)
  value, gradient = jax.value_and_grad(lambda z: jnp.square(attention.spatial_softmax(z)).sum())(z)
  assert np.isfinite(value) and np.isfinite(gradient).all()
  assert attention.spatial_softmax(z)[0, 1, 1, 0] == 1


@pytest.fixture(scope="module")
def block():
  module = attention.SRNAttention(LABELS, channels=8)
  x = jax.random.normal(jax.random.key(0), (2, 6, 5, 16))
  return module, x, jax.jit(lambda: module.init(jax.random.key(1), x, train=False))()


def test_attention_block_outputs(block):
  module, x, variables = block
  out = module.apply(variables, x, train=False)
  assert {name: (value.shape, value.dtype) for name, value in out.items()} == {
      "attention": ((2, 6, 5, LABELS), jnp.float32),
      "confidence": ((2, 6, 5, LABELS), jnp.float32),
      "logits": ((2, LABELS), jnp.float32),
  }
  # The logit is the confidence classifier on features pooled by the label's own attention.
  kernel, bias = (np.asarray(variables["params"]["confidence"][name]) for name in ("kernel", "bias"))
  for j in range(LABELS):
    pooled = (np.asarray(out["attention"])[..., j:j + 1] * np.asarray(x)).sum(axis=(1, 2))
    np.testing.assert_allclose(out["logits"][:, j], pooled @ kernel[:, j] + bias[j], rtol=1e-4, atol=1e-6)


def test_attention_of_a_constant_map_is_uniform(block):
  module, _, variables = block
  zero = module.apply(variables, jnp.zeros((1, 6, 5, 16)), train=False)["attention"]
  np.testing.assert_allclose(zero, np.full((1, 6, 5, LABELS), 1 / 30), rtol=1e-6)
  # The 3x3 layer sees zeros beyond the border: other constants are uniform inside, and everywhere by its centre alone.
  ones = jnp.ones((1, 6, 5, 16))
  inner = np.asarray(module.apply(variables, ones, train=False)["attention"])[:, 1:-1, 1:-1]
  np.testing.assert_allclose(inner, np.broadcast_to(inner[:, :1, :1], inner.shape), rtol=1e-6)
  kernel = variables["params"]["layer2"]["conv"]["kernel"]
  centre = jnp.zeros_like(kernel).at[1, 1].set(kernel[1, 1])
  params = dict(variables["params"])
  params["layer2"] = dict(params["layer2"], conv={"kernel": centre})
  whole = module.apply(dict(variables, params=params), ones, train=False)
  np.testing.assert_allclose(whole["attention"], np.full((1, 6, 5, LABELS), 1 / 30), rtol=1e-5)
  np.testing.assert_allclose(whole["logits"], whole["confidence"].mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_attention_block_in_bfloat16_gives_float32(block):
  _, x, variables = block
  module = attention.SRNAttention(LABELS, channels=8, dtype=jnp.bfloat16)
  out = module.apply(variables, x.astype(jnp.bfloat16), train=False)
  assert {value.dtype for value in out.values()} == {jnp.dtype("float32")}
  np.testing.assert_allclose(out["attention"].sum(axis=(1, 2)), np.ones((2, LABELS)), rtol=1e-5)


def test_new_layers_start_from_a_narrow_gaussian():
  module = attention.SRNAttention(64, channels=64, num_blocks=1, confidence_layers=2)
  x = jnp.zeros((1, 3, 3, 128))
  params = jax.jit(lambda: module.init(jax.random.key(0), x, train=False))()["params"]
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    if path[-1].key == "kernel":
      np.testing.assert_allclose(value.std(), 0.01, rtol=0.1, err_msg=str(path))
    else:
      np.testing.assert_array_equal(value, np.full(value.shape, path[-1].key == "scale"))


def test_one_by_one_convolution_is_a_convolution():
  x = jax.random.normal(jax.random.key(0), (2, 4, 3, 8))
  module = attention.conv(6, 1, dtype=jnp.float32, name=None)
  variables = module.init(jax.random.key(1), x)
  expected = jax.lax.conv_general_dilated(
      x, variables["params"]["kernel"][None, None], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape, size", [((8, 12), (4, 3)), ((7, 10), (3, 4)), ((5, 5), (5, 5)), ((3, 4), (1, 1))])
def test_area_average_equals_a_slow_loop(shape, size):
  x = np.random.default_rng(0).random((2, *shape, 3))
  expected = np.zeros((2, *size, 3))
  fine = np.repeat(np.repeat(x, size[0], axis=1), size[1], axis=2)  # each cell cut in size[0] x size[1]
  for i in range(size[0]):
    for j in range(size[1]):
      rows, columns = slice(i * shape[0], (i + 1) * shape[0]), slice(j * shape[1], (j + 1) * shape[1])
      expected[:, i, j] = fine[:, rows, columns].mean(axis=(1, 2))
  np.testing.assert_allclose(masks.area_average(jnp.asarray(x, jnp.float32), size), expected, rtol=1e-5)
  np.testing.assert_allclose(masks.area_average(jnp.asarray(x[..., 0], jnp.float32), size), expected[..., 0], rtol=1e-5)


def test_area_average_does_not_enlarge():
  with pytest.raises(ValueError, match="cannot average 3 cells to 4"):
    masks.area_average(jnp.zeros((1, 3, 8)), (4, 4))


def test_resample():
  x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
  np.testing.assert_allclose(
      masks.resample(x, (2, 3)), x.reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4)), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(masks.resample(x, (4, 6)), x, rtol=1e-6)
  for size in ((8, 12), (5, 17), (4, 7)):
    np.testing.assert_allclose(masks.resample(x, size), jax.image.resize(x, (2, *size, 3), "bilinear"), rtol=1e-5, atol=1e-6)
  # Bilinear, half-pixel centres: 0, 1 -> 0, 1/4, 3/4, 1; odd targets too.
  ramp = jnp.asarray([0.0, 1.0]).reshape(1, 1, 2, 1)
  np.testing.assert_allclose(masks.resample(ramp, (1, 4)).ravel(), [0, 0.25, 0.75, 1], atol=1e-6)
  assert masks.resample(x.astype(jnp.bfloat16), (7, 11)).dtype == jnp.bfloat16
