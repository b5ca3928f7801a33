"""Folded batch norm: everything that a model gives stays, and the norms are gone from the program."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import steps
from attr_jax.nn import folding
from attr_jax.nn.norm import BatchNorm

SYSTEMS = {
    "baseline": ({"name": "baseline", "depth": "tiny"}, []),
    "dahar": ({"name": "dahar", "depth": "tiny", "width": 8, "design": "B", "fusion_channels": 16, "attention_channels": 16}, []),
    "srn": ({"name": "srn", "depth": "tiny", "width": 8, "channels": 16}, [("regularizer", "map_bn")]),
    "ssg": ({"name": "face", "system": "ssg", "width": 4}, [("encoder", "conv32", "bn")]),  # its gate is in between
}


def random_variables(model, size):
  """Parameters and statistics as of a trained network: no mean is 0, no variance 1. From numpy, which compiles nothing."""
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False))
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name == "kernel":
      return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)
    low, high = {"mean": (-0.5, 0.5), "bias": (-0.5, 0.5)}.get(name, (0.5, 2.0))
    return rng.uniform(low, high, leaf.shape).astype(np.float32)

  drawn = jax.tree_util.tree_map_with_path(draw, shapes)
  return drawn["params"], drawn["batch_stats"]


def make(options, dtype="float32", size=32):
  config = config_lib.default_config()
  config.compute_dtype = dtype
  model = models.build(options, 3, dtype)
  batch = {"image": np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8)}
  return steps.make_explain_step(model, config), *random_variables(model, size), batch


def count(function, *args):
  """How often the program takes a root, as each batch norm does once (and nothing else in these models)."""
  return str(jax.make_jaxpr(function)(*args)).count("rsqrt")


@pytest.mark.parametrize("system", SYSTEMS)
def test_all_outputs_stay_and_the_norms_are_gone(system):
  options, left = SYSTEMS[system]
  explain, params, batch_stats, batch = make(options)
  plan = folding.find(explain, params, batch_stats, batch)
  norms = count(explain, params, batch_stats, batch)
  assert list(plan.left) == left and len(plan.pairs) + len(left) == norms > len(left)
  folded_params, folded_stats = folding.fold(plan, params, batch_stats)
  assert jax.tree.structure(folded_params) == jax.tree.structure(params)
  assert jax.tree.structure(folded_stats) == jax.tree.structure(batch_stats)
  without = folding.without_norms(plan, explain)
  assert count(without, folded_params, folded_stats, batch) == len(left)
  expected = jax.jit(explain)(params, batch_stats, batch)
  assert float(np.abs(expected["logits"]).max()) > 0.1
  for function in (explain, without):  # the trees hold for the model as it is, too
    found = jax.jit(function)(folded_params, folded_stats, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
      # Maps after a softmax of large values show more of the rounding than logits do.
      tolerance = (2e-5 if name == "logits" else 5e-4) * float(np.abs(value).max(initial=1e-6))
      np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


def test_bfloat16_is_as_close_to_float32_as_before():
  exact_step, params, batch_stats, batch = make(SYSTEMS["baseline"][0])
  exact = jax.jit(exact_step)(params, batch_stats, batch)["logits"]
  rough_step = make(SYSTEMS["baseline"][0], "bfloat16")[0]
  plan = folding.find(rough_step, params, batch_stats, batch)
  folded = folding.fold(plan, params, batch_stats)
  kernels = {folded[0]["backbone"]["stem"]["conv"]["kernel"].dtype, folded[0]["classifier"]["kernel"].dtype}
  assert kernels == {jnp.dtype("bfloat16"), jnp.dtype("float32")}
  error = lambda logits: float(np.abs(logits - exact).mean())
  plain = error(jax.jit(rough_step)(params, batch_stats, batch)["logits"])
  assert error(jax.jit(folding.without_norms(plan, rough_step))(*folded, batch)["logits"]) < 2 * plain + 1e-3


class Odd(nn.Module):
  """Norms that cannot be folded, beside one that can (`last`)."""

  @nn.compact
  def __call__(self, x):
    norm = lambda name, running=True, **options: BatchNorm(use_running_average=running, name=name, **options)
    twice, shared = nn.Conv(4, (3, 3), name="twice"), norm("shared")
    x = norm("first")(x)
    x = norm("after_shared")(twice(x)) + twice(jnp.abs(x))
    x = norm("of_the_batch", running=False)(nn.Dense(4, name="dense0")(x))
    x = shared(nn.Dense(4, name="dense1")(x)) + shared(nn.Dense(4, name="dense2")(x))
    x = norm("after_relu")(nn.relu(nn.Dense(4, name="dense3")(x)))
    return norm("last", epsilon=0.1)(nn.Conv(5, (3, 3), name="conv")(x))


def test_what_cannot_be_folded_stays():
  model, rng = Odd(), np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 6, 6, 4))))
  drawn = jax.tree.map(lambda leaf: rng.uniform(0.3, 1.3, leaf.shape).astype(np.float32), shapes)
  apply = lambda params, stats, x: model.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])[0]
  x = rng.normal(size=(2, 6, 6, 4)).astype(np.float32)
  plan = folding.find(apply, drawn["params"], drawn["batch_stats"], x)
  assert [pair.norm for pair in plan.pairs] == [("last",)]
  assert [path[0] for path in plan.left] == ["first", "after_shared", "of_the_batch", "shared", "after_relu"]
  folded = folding.fold(plan, drawn["params"], drawn["batch_stats"])
  expected = apply(drawn["params"], drawn["batch_stats"], x)  # a bias before the norm, an epsilon of its own
  np.testing.assert_allclose(jax.jit(folding.without_norms(plan, apply))(*folded, x), expected, rtol=1e-4, atol=1e-4)
