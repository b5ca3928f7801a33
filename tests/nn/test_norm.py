"""Batch norm and its gradient against flax's own and against a plain sum in float64."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.nn import norm

SHAPE = (6, 5, 4, 8)


def draw(seed=0, shape=SHAPE):
  rng = np.random.default_rng(seed)
  x = (rng.normal(size=shape) * rng.uniform(0.5, 3, shape[-1]) + rng.normal(size=shape[-1])).astype(np.float32)
  variables = {"params": {"scale": rng.uniform(-1, 2, shape[-1]).astype(np.float32), "bias": rng.normal(size=shape[-1]).astype(np.float32)},
               "batch_stats": {"mean": rng.normal(size=shape[-1]).astype(np.float32), "var": rng.uniform(1, 2, shape[-1]).astype(np.float32)}}
  return x, variables, rng.normal(size=shape).astype(np.float32)


def run(layer, relu, variables, x, weight):
  """(loss, updated statistics), gradients of parameters and of x."""
  def loss(params, x):
    y, updated = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])
    return ((nn.relu(y) if relu else y).astype(jnp.float32) * weight).sum(), updated["batch_stats"]

  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables["params"], x)


@pytest.mark.parametrize("shape", [SHAPE, (30, 8)])
@pytest.mark.parametrize("relu", [False, True])
def test_values_statistics_and_gradients_are_those_of_flax(relu, shape):
  x, variables, weight = draw(shape=shape)
  ours = run(norm.BatchNorm(False, relu=relu, momentum=0.8), False, variables, x, weight)
  theirs = run(nn.BatchNorm(False, momentum=0.8), relu, variables, x, weight)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), ours, theirs)


def test_the_gradient_is_that_of_a_slow_sum():
  """d x_j = sum over i of d y_i / d x_j, in float64, with statistics that depend on x."""
  x, variables, weight = draw(1, (7, 2))
  scale, bias = (variables["params"][key].astype(np.float64) for key in ("scale", "bias"))

  def loss(x):
    y = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * scale + bias
    return (np.maximum(y, 0) * weight).sum()

  expected = np.zeros(x.shape)
  for place in np.ndindex(x.shape):
    step = np.zeros(x.shape)
    step[place] = 1e-5
    expected[place] = (loss(x.astype(np.float64) + step) - loss(x.astype(np.float64) - step)) / 2e-5
  _, (_, found) = run(norm.BatchNorm(False, relu=True), False, variables, x, weight)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("relu", [False, True])
def test_evaluation_takes_the_stored_statistics(relu):
  x, variables, _ = draw()
  ours = norm.BatchNorm(True, relu=relu).apply(variables, x)
  theirs = nn.BatchNorm(True).apply(variables, x)
  np.testing.assert_allclose(ours, np.maximum(theirs, 0) if relu else theirs, rtol=1e-6, atol=1e-6)


def test_bfloat16_computes_statistics_in_float32():
  x, variables, weight = draw()
  x = jnp.asarray(x, jnp.bfloat16)
  (_, stats), (gradients, dx) = run(norm.BatchNorm(False, relu=True, dtype=jnp.bfloat16), False, variables, x, weight)
  (_, exact_stats), (exact, exact_dx) = run(norm.BatchNorm(False, relu=True), False, variables, x.astype(jnp.float32), weight)
  assert dx.dtype == jnp.bfloat16 and norm.BatchNorm(True, dtype=jnp.bfloat16).apply(variables, x).dtype == jnp.bfloat16
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), stats, exact_stats)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-2, atol=0.15), gradients, exact)
  np.testing.assert_allclose(dx.astype(np.float32), exact_dx, rtol=2e-2, atol=2e-2)


def test_statistics_shared_over_devices_are_those_of_the_whole_batch():
  x, variables, weight = draw(shape=(8, 3, 3, 8))
  mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  layer = norm.BatchNorm(False, relu=True, axis_name="data")

  def split(params, x, weight):
    def loss(params, x):
      y, updated = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])
      return jax.lax.psum((y * weight).sum(), "data"), updated["batch_stats"]

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

  rows, whole = jax.P("data"), jax.P()
  sharded = jax.jit(jax.shard_map(split, mesh=mesh, in_specs=(whole, rows, rows), out_specs=((whole, whole), (whole, rows))))
  expected = run(nn.BatchNorm(False, momentum=0.9), True, variables, x, weight)
  found = sharded(variables["params"], x, weight)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=5e-5, atol=5e-5), found, expected)
