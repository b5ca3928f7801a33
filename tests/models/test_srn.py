"""SRN and its objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.errors import InputError
from attr_jax.models import srn

LABELS = 5


def count_parameters(*shape, without=(), **options):
  model = srn.Model(**options)
  image = jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32)
  params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)["params"]
  assert set(params) == set(srn.TRAINABLE["joint"])
  return sum(x.size for name in params if name not in without for x in jax.tree.leaves(params[name]))


def test_parameter_count():
  assert count_parameters(224, 224, num_labels=14) == 46_141_560
  assert count_parameters(224, 224, num_labels=14, without=["regularizer"]) == 45_436_010
  # Two bottlenecks, and 1024-512-14 with BN in place of 1024-14 for the confidence.
  more = 2_234_368 + (1024 * 512 + 2 * 512 + 512 * 14 + 14) - (1024 * 14 + 14)
  assert count_parameters(224, 224, num_labels=14, variant="released") == 46_141_560 + more == 48_894_072


def test_every_parameter_group_trains_in_one_of_the_first_stages():
  stages = [srn.TRAINABLE[name] for name in ("cls", "att", "sr")]
  assert sorted(sum(stages, ())) == sorted(srn.TRAINABLE["joint"])


def random_variables(model, x):
  """Variables of the right shapes, without the time that compiling `init` takes."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))

  def fill(path, leaf):
    if path[-1].key == "kernel":
      return rng.normal(0, 0.05, leaf.shape).astype(np.float32)
    return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="module")
def tiny():
  model = srn.Model(LABELS, depth="tiny", channels=16, alpha=0.7, scale_attention=True)
  x = np.random.default_rng(1).normal(size=(4, 32, 48, 3)).astype(np.float32)
  variables = random_variables(model, x)
  logits, out = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
  rng = np.random.default_rng(0)
  batch = {"label": rng.integers(0, 2, (4, LABELS)), "known": rng.random((4, LABELS)) < 0.6}
  return model, variables, x, logits, out, batch


def test_outputs(tiny):
  _, _, _, logits, out, _ = tiny
  assert {"stem", "stage1", "stage2", "stage3", "stage4"} <= set(out)
  for name in ("attention", "confidence", "weighted_attention"):
    assert (out[name].shape, out[name].dtype) == ((4, 4, 6, LABELS), jnp.float32), name
  for value in (logits, out["logits_cls"], out["logits_att"], out["logits_sr"]):
    assert (value.shape, value.dtype) == ((4, LABELS), jnp.float32)
  assert out["features"].shape == (4, 128) and out["heatmap"].shape == (4, 2, 3, LABELS)
  np.testing.assert_allclose(out["attention"].sum(axis=(1, 2)), np.ones((4, LABELS)), rtol=1e-5)
  np.testing.assert_allclose(out["heatmap"].mean(axis=(1, 2)), out["logits_cls"], atol=1e-5)  # the bias is zero
  np.testing.assert_allclose(logits, 0.7 * out["logits_cls"] + 0.3 * out["logits_sr"], rtol=1e-5)
  np.testing.assert_allclose(
      out["weighted_attention"], out["attention"] / (1 + np.exp(-np.asarray(out["confidence"]))), rtol=1e-5)


def test_scale_attention(tiny):
  _, variables, _, _, out, _ = tiny
  regularizer = srn.SpatialRegularizer(LABELS, 16)
  branch = {kind: variables[kind]["regularizer"] for kind in variables}
  y_sr = jax.jit(lambda u: regularizer.apply(branch, u, False))
  np.testing.assert_allclose(y_sr(24 * out["weighted_attention"]), out["logits_sr"], rtol=1e-4, atol=1e-6)
  assert not np.allclose(y_sr(out["weighted_attention"]), out["logits_sr"], rtol=0.1)
  # As published:
  assert (srn.Model.alpha, srn.Model.scale_attention) == (0.5, False)


def test_map_convolution_equals_the_grouped_convolution():
  x = jax.random.normal(jax.random.key(0), (3, 4, 6, 8))
  module = srn.MapConv()
  variables = module.init(jax.random.key(1), x)
  kernel = variables["params"]["kernel"]
  assert kernel.shape == (4, 6, 8, 4)
  expected = jax.lax.conv_general_dilated(
      x, kernel.reshape(4, 6, 1, 32), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=8)
  np.testing.assert_allclose(module.apply(variables, x), expected[:, 0, 0], rtol=1e-4, atol=1e-6)


def test_another_image_size_is_refused(tiny):
  model, variables, _, _, _, _ = tiny
  with pytest.raises(InputError, match="4x6 cells and got 5x6"):
    jax.eval_shape(lambda: model.apply(variables, jnp.zeros((1, 40, 48, 3)), train=False))


def test_bfloat16_gives_float32_outputs(tiny):
  model, variables, x, _, _, _ = tiny
  logits, out = jax.eval_shape(
      lambda v, x: model.clone(dtype=jnp.bfloat16).apply(v, x, train=False), variables, x)
  assert logits.dtype == jnp.float32 and out["stage4"].dtype == jnp.bfloat16
  for name in ("attention", "confidence", "logits_cls", "logits_att", "logits_sr", "features", "heatmap"):
    assert out[name].dtype == jnp.float32, name


def test_released_variant_runs():
  model = srn.Model(LABELS, depth="tiny", channels=8, variant="released")
  x = jnp.zeros((1, 32, 32, 3))
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
  attention = variables["params"]["attention"]
  assert set(attention["blocks"]) == {"block0", "block1"}
  assert attention["confidence1"]["conv"]["kernel"].shape == (64, 8)
  with pytest.raises(InputError, match="known: paper, released"):
    jax.eval_shape(lambda: srn.Model(LABELS, variant="code").init(jax.random.key(0), x, train=False))


def value_of(tiny, **options):
  _, _, _, logits, out, batch = tiny
  return srn.objective(logits, out, batch, {}, positive_ratio=np.full(LABELS, 0.3), **options)


def slow_bce(logits, batch):
  p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
  label = batch["label"] * batch["known"]
  return -(label * np.log(p) + (1 - label) * np.log(1 - p)).sum(axis=1).mean()


def test_objective_of_each_stage(tiny):
  _, _, _, logits, out, batch = tiny
  expected = {name: slow_bce(out[f"logits_{name}"], batch) for name in ("cls", "att", "sr")}
  expected["aggregated"] = slow_bce(logits, batch)
  for stage in ("cls", "att", "sr"):
    np.testing.assert_allclose(value_of(tiny, stage=stage)[0], expected[stage], rtol=1e-5)
  value, parts = value_of(tiny)
  np.testing.assert_allclose(value, expected["cls"] + expected["att"] + expected["sr"], rtol=1e-5)
  assert parts.keys() == expected.keys()
  for name, part in parts.items():
    assert part.shape == ()
    np.testing.assert_allclose(part, expected[name], rtol=1e-5)
  np.testing.assert_allclose(
      value_of(tiny, joint_loss="aggregated")[0], expected["aggregated"] + expected["att"], rtol=1e-5)


@pytest.mark.parametrize(
    "wrong, known", [({"stage": "two"}, "cls, att, sr, joint"), ({"joint_loss": "sum"}, "branches, aggregated")])
def test_unknown_names_are_refused(tiny, wrong, known):
  with pytest.raises(InputError, match=f"known: {known}"):
    value_of(tiny, **wrong)


@pytest.mark.slow
def test_a_stage_reaches_its_own_branch_only(tiny):
  model, variables, x, _, _, batch = tiny
  # y_att and y_sr come from C4 and the attention: that these stand still in their stages is the optimiser's part.
  reached = {
      ("cls", "branches"): {"backbone", "classifier"},
      ("att", "branches"): {"backbone", "attention"},
      ("sr", "branches"): {"backbone", "attention", "regularizer"},
      ("joint", "branches"): {"backbone", "classifier", "attention", "regularizer"},
      ("joint", "aggregated"): {"backbone", "classifier", "attention", "regularizer"},
  }

  def values(params):
    (logits, out), _ = model.apply(dict(variables, params=params), x, train=True, mutable=["batch_stats"])
    return jnp.stack([
        srn.objective(
            logits, out, batch, {}, positive_ratio=np.full(LABELS, 0.3), stage=stage, joint_loss=joint_loss)[0]
        for stage, joint_loss in reached
    ])

  grads = jax.jit(jax.jacrev(values))(variables["params"])
  for i, ((stage, _), expected) in enumerate(reached.items()):
    groups = {name for name in grads if any(np.any(g[i]) for g in jax.tree.leaves(grads[name]))}
    assert groups == expected and set(srn.TRAINABLE[stage]) <= groups
    own_stage4 = any(np.any(g[i]) for g in jax.tree.leaves(grads["backbone"]["stage4"]))
    assert own_stage4 == (stage in ("cls", "joint"))


def test_an_unspecified_label_gives_exactly_no_gradient(tiny):
  _, _, _, logits, out, batch = tiny
  branches = {name: out[name] for name in ("logits_cls", "logits_att", "logits_sr")}

  def loss(logits, branches):
    return srn.objective(
        logits, branches, batch, {}, positive_ratio=np.full(LABELS, 0.3), unspecified="ignore")[0]

  for gradient in jax.grad(loss, argnums=1)(logits, branches).values():
    assert (np.asarray(gradient)[~batch["known"]] == 0).all() and (np.asarray(gradient)[batch["known"]] != 0).all()


def test_finite_for_huge_logits(tiny):
  _, _, _, logits, out, batch = tiny
  sign = jnp.where(jnp.arange(LABELS) % 2, 1e4, -1e4)
  huge = {name: jnp.broadcast_to(sign, (4, LABELS)) for name in ("logits_cls", "logits_att", "logits_sr")}
  loss = lambda out: srn.objective(huge["logits_cls"], out, batch, {}, positive_ratio=np.full(LABELS, 0.3))[0]
  value, grads = jax.value_and_grad(loss)(huge)
  assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads.values())
