"""The trunks: parameter trees, shapes, convolution forms, batch-norm scope.

Golden parameter trees are in tests/golden; UPDATE_GOLDEN=1 writes them anew.
"""

import functools
import os
import pathlib

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.nn import resnet

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"


@functools.cache
def shapes_of(depth):
  model = resnet.ResNet(depth)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def overview(variables):
  """One line per array: name, shape, dtype; then the number of parameters."""
  flat = traverse_util.flatten_dict(variables, sep="/")
  lines = [f"{name} {'x'.join(map(str, x.shape))} {x.dtype}" for name, x in sorted(flat.items())]
  count = sum(x.size for x in jax.tree.leaves(variables["params"]))
  return "\n".join([*lines, f"parameters {count}"]) + "\n"


@pytest.mark.parametrize("depth, count", [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160)])
def test_parameter_count(depth, count):
  assert sum(x.size for x in jax.tree.leaves(shapes_of(depth)["params"])) == count


@pytest.mark.parametrize("depth", [18, 50, 101, "tiny"])
def test_parameter_tree_is_the_golden_one(depth):
  path = GOLDEN / f"resnet_{depth}.txt"
  if os.environ.get("UPDATE_GOLDEN"):
    path.write_text(overview(shapes_of(depth)))
  assert overview(shapes_of(depth)) == path.read_text()


@pytest.mark.parametrize("depth, size, expected", [
    (50, 224, {"stem": (56, 64), "stage1": (56, 256), "stage2": (28, 512), "stage3": (14, 1024), "stage4": (7, 2048)}),
    (18, 97, {"stem": (25, 64), "stage1": (25, 64), "stage2": (13, 128), "stage3": (7, 256), "stage4": (4, 512)}),
    ("tiny", 64, {"stem": (32, 16), "stage1": (32, 16), "stage2": (16, 32), "stage3": (8, 64), "stage4": (4, 128)}),
])
def test_stage_shapes(depth, size, expected):
  model = resnet.ResNet(depth)
  image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  out, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=True), image)
  assert {k: v.shape for k, v in out.items()} == {k: (2, n, n, c) for k, (n, c) in expected.items()}


@pytest.mark.parametrize("size, stride, padding, side", [(3, 2, 1, 8), (1, 1, 0, 6), (1, 2, 0, 7), (1, 2, 0, 8)])
def test_conv_equals_lax_and_its_gradients(size, stride, padding, side):
  x = jax.random.normal(jax.random.key(0), (2, side, side, 5))
  conv = resnet.Conv(4, size, stride, padding)
  variables = conv.init(jax.random.key(1), x)
  plain = lambda v, x: jax.lax.conv_general_dilated(
      x, v["params"]["kernel"], (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))

  @jax.jit
  def value_and_gradients(variables, x):
    loss = lambda f: lambda v, x: jnp.sum(jnp.sin(f(v, x)))
    return [(f(variables, x), jax.grad(loss(f), argnums=(0, 1))(variables, x)) for f in (conv.apply, plain)]

  ours, theirs = value_and_gradients(variables, x)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, theirs)


def test_max_pool_of_negative_values_and_odd_sizes():
  x = -1 - np.random.default_rng(0).random((2, 7, 10, 3)).astype(np.float32)
  pooled = np.asarray(resnet.max_pool(jnp.asarray(x)))
  assert pooled.shape == (2, 4, 5, 3)
  for i in range(4):
    for j in range(5):
      window = x[:, max(0, 2 * i - 1) : 2 * i + 2, max(0, 2 * j - 1) : 2 * j + 2]
      np.testing.assert_array_equal(pooled[:, i, j], window.max(axis=(1, 2)))


@pytest.mark.slow
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_state():
  models = [resnet.ResNet("tiny", width=4, dtype=dtype) for dtype in (jnp.bfloat16, jnp.float32)]

  @jax.jit
  def run(x):
    variables = models[0].init(jax.random.key(0), x, train=True)
    half, full = (model.apply(variables, x, train=True, mutable=["batch_stats"]) for model in models)
    return variables, half, full[0]["stage4"]

  variables, (out, updated), full = run(jax.random.normal(jax.random.key(0), (4, 32, 32, 3)))
  assert {v.dtype for v in out.values()} == {jnp.dtype(jnp.bfloat16)}
  assert {v.dtype for v in jax.tree.leaves((variables, updated))} == {jnp.dtype(jnp.float32)}
  assert jnp.abs(full - out["stage4"]).max() < 0.1 * jnp.abs(full).max()


def test_running_statistics_follow_the_torch_rule():
  """One step: 0.9 old + 0.1 new (flax keeps the biased variance)."""
  model = resnet.ResNet("tiny")
  x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
  stem = lambda trunk, x: trunk.stem(x, True)
  variables = model.init(jax.random.key(0), x, method=stem)
  _, updated = model.apply(variables, x, mutable=["batch_stats"], method=stem)
  conv = resnet.Conv(16, 3, 2, 1).apply({"params": variables["params"]["stem"]["conv"]}, x)
  stats = updated["batch_stats"]["stem"]["bn"]
  np.testing.assert_allclose(stats["mean"], 0.1 * conv.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * conv.var((0, 1, 2)), rtol=1e-4)


def test_batch_norm_axis_in_shard_map_equals_the_global_batch():
  x = jax.random.normal(jax.random.key(0), (8, 16, 16, 3)) * jnp.arange(1.0, 9).reshape(8, 1, 1, 1)
  mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  start = lambda trunk, x: trunk.stage2(trunk.stem(x, True), True)  # both kinds of user of the norm
  variables = jax.jit(lambda: resnet.ResNet("tiny").init(jax.random.key(0), x, method=start))()

  def stage2(axis):
    model = resnet.ResNet("tiny", bn_axis_name=axis)
    return lambda x: model.apply(variables, x, mutable=["batch_stats"], method=start)[0]

  split = lambda axis: jax.jit(jax.shard_map(stage2(axis), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data")))(x)
  whole = jax.jit(stage2(None))(x)
  np.testing.assert_allclose(split("data"), whole, atol=1e-4)
  assert jnp.abs(split(None) - whole).max() > 0.1


def test_zero_init_makes_blocks_the_identity():
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  both = lambda trunk, x: (stem := trunk.stem(x, False), trunk.stage1(stem, False))
  (stem, stage1), _ = resnet.ResNet(18, width=2, zero_init_last=True).init_with_output(jax.random.key(0), x, method=both)
  np.testing.assert_array_equal(stage1, stem)


def test_parts_can_be_called_one_by_one():
  model = resnet.ResNet("tiny", width=2)
  x = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape).astype(np.float32), shapes)

  def by_hand(trunk, x):
    for part in (trunk.stem, trunk.stage1, trunk.stage2, trunk.stage3, trunk.stage4):
      x = part(x, False)
    return x

  forms = lambda v, x: (model.apply(v, x, train=False)["stage4"], model.apply(v, x, method=by_hand))
  whole, parts = jax.jit(forms)(variables, x)
  np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("options", [{"depth": 77}, {"depth": "tiny", "stem_kind": "deep"}])
def test_unknown_options_are_refused(options):
  with pytest.raises(ValueError, match="is not one of"):
    jax.eval_shape(lambda: resnet.ResNet(**options).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
