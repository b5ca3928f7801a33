"""Da-HAR and its objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.errors import InputError
from attr_jax.models import baseline
from attr_jax.models import dahar
from attr_jax.nn.masks import mask_cross_entropy

LABELS = 5
OFF = {"self_mask": False, "fusion": False, "masked_attention": False}


def init_shapes(height, width, **options):
  model = dahar.Model(**options)
  image = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
  return model, image, variables


def count_parameters(**options):
  _, _, variables = init_shapes(64, 64, **options)
  return sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("options, count", [
    ({}, 52_373_550),
    ({"num_labels": 51}, 52_506_269),
    ({"design": "B"}, 52_410_987),
    ({"design": "B", "num_labels": 51}, 52_543_706),
    (OFF, 45_436_010),
    (OFF | {"fusion": True}, 45_436_010 + 919_040 + 788_480 + 2_234_368),
    (OFF | {"self_mask": True}, 45_436_010 + 20_801 + 82_561 + 328_961),
    (OFF | {"masked_attention": True}, 45_436_010 + 2_234_368 + 328_961),
])
def test_parameter_count(options, count):
  assert count_parameters(**{"num_labels": 14} | options) == count


def test_ablation_counts_are_those_of_the_table():
  rows = [count_parameters(num_labels=14, **OFF | {flag: True}) for flag in ("fusion", "self_mask", "masked_attention")]
  assert [round(count / 1e6, 2) for count in rows] == [49.38, 45.87, 48.00]


@pytest.mark.parametrize("height, width, cells", [(224, 224, (14, 14)), (256, 256, (16, 16)), (224, 112, (14, 7))])
@pytest.mark.parametrize("design", ["A", "B"])
def test_image_sizes_of_the_paper(height, width, cells, design):
  # One set of parameters for all sizes.
  model, _, variables = init_shapes(64, 64, num_labels=14, design=design)
  image = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
  logits, out = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image)
  assert logits.shape == (2, 14)
  assert out["attention"].shape == (2, *cells, 14) and out["mask"].shape == (2, *cells)
  assert out["self_mask1"].shape == (2, height // 4, width // 4, 1 if design == "A" else 256)
  assert ("self_mask4" in out) == (design == "B")


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
  model = dahar.Model(LABELS, depth="tiny", fusion_channels=8, attention_channels=16)
  x = np.random.default_rng(1).normal(size=(4, 32, 48, 3)).astype(np.float32)
  variables = random_variables(model, x)
  logits, out = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
  rng = np.random.default_rng(0)
  batch = {
      "label": rng.integers(0, 2, (4, LABELS)),
      "known": rng.random((4, LABELS)) < 0.6,
      "person_mask": (255 * (rng.random((4, 32, 48)) < 0.4)).astype(np.uint8),
  }
  return model, variables, x, logits, out, batch


def test_outputs(tiny):
  _, _, _, logits, out, _ = tiny
  assert {"stem", "stage1", "stage2", "stage3", "stage4"} <= set(out)
  for name in ("attention", "confidence"):
    assert (out[name].shape, out[name].dtype) == ((4, 4, 6, LABELS), jnp.float32), name
  for name in ("mask", "mask_logits"):
    assert (out[name].shape, out[name].dtype) == ((4, 4, 6), jnp.float32), name
  assert [out[f"self_mask{i}"].shape for i in (1, 2, 3)] == [(4, 16, 24, 1), (4, 8, 12, 1), (4, 4, 6, 1)]
  assert all(((out[name] > 0) & (out[name] < 1)).all() for name in ("mask", "self_mask1", "self_mask2", "self_mask3"))
  for value in (logits, out["logits_main"], out["logits_side"]):
    assert (value.shape, value.dtype) == ((4, LABELS), jnp.float32)
  np.testing.assert_allclose(logits, (out["logits_main"] + out["logits_side"]) / 2, rtol=1e-6)
  np.testing.assert_allclose(out["attention"].sum(axis=(1, 2)), np.ones((4, LABELS)), rtol=1e-5)


def test_bfloat16_gives_float32_outputs(tiny):
  model, variables, x, _, _, _ = tiny
  for design in (model, model.clone(design="B")):
    v = variables if design is model else jax.eval_shape(lambda: design.init(jax.random.key(0), x, train=False))
    logits, out = jax.eval_shape(lambda v, x: design.clone(dtype=jnp.bfloat16).apply(v, x, train=False), v, x)
    assert logits.dtype == jnp.float32 and out["stage4"].dtype == jnp.bfloat16
    for name in ("attention", "confidence", "mask", "mask_logits", "self_mask1", "logits_main", "logits_side"):
      assert out[name].dtype == jnp.float32, name


def test_identity_init_leaves_the_trunk_unchanged(tiny):
  model, variables, x, _, masked, _ = tiny
  params = dict(variables["params"])
  for name in ("self_mask1", "self_mask2", "self_mask3"):
    params[name] = dict(params[name], mask=jax.tree.map(np.zeros_like, params[name]["mask"]))
  variables = dict(variables, params=params)
  model = model.clone(mask_apply="identity_init")
  trunk = {
      kind: {name: tree for name, tree in variables[kind].items() if name in ("backbone", "classifier")}
      for kind in variables
  }
  _, out = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
  expected, _ = jax.jit(lambda v, x: baseline.Model(LABELS, depth="tiny").apply(v, x, train=False))(trunk, x)
  np.testing.assert_array_equal(out["self_mask2"], np.full(out["self_mask2"].shape, 0.5))
  np.testing.assert_allclose(out["logits_main"], expected, rtol=1e-5, atol=1e-6)
  assert not np.allclose(masked["logits_main"], expected, rtol=1e-2)  # "residual" acts


@pytest.mark.parametrize("per_element", [False, True])
def test_zero_init_masks_start_at_one_half(per_element):
  stack = dahar.MaskStack(per_element, zero_init=True)
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 8))
  for train in (False, True):
    logits = jax.jit(lambda train=train: stack.init_with_output(jax.random.key(1), x, train)[0])()
    np.testing.assert_array_equal(logits, np.zeros((2, 3, 4, 8 if per_element else 1)))


def test_forms_of_a_self_mask():
  x = jnp.asarray([[2.0, -4.0]]).reshape(1, 1, 1, 2)
  mask = jnp.full((1, 1, 1, 1), 0.25)
  for form, expected in (("residual", [2.5, -5]), ("mul", [0.5, -1]), ("identity_init", [1, -2])):
    np.testing.assert_array_equal(dahar.apply_mask(x, mask, form).ravel(), expected)


@pytest.mark.parametrize("flag, blocks, outputs", [
    (None, set(), set()),
    ("self_mask", {"self_mask1", "self_mask2", "self_mask3"}, {"self_mask1", "self_mask2", "self_mask3"}),
    ("fusion", {"fusion"}, set()),
    ("masked_attention", {"mask_block"}, {"mask", "mask_logits"}),
])
def test_each_block_stands_alone(flag, blocks, outputs):
  options = OFF | ({flag: True} if flag else {})
  model, image, variables = init_shapes(40, 24, num_labels=LABELS, depth="tiny", **options)
  assert set(variables["params"]) == {"backbone", "classifier", "attention"} | blocks
  logits, out = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, image)
  assert logits.shape == (2, LABELS)
  assert {name for name in out if "mask" in name} == outputs


@pytest.mark.parametrize("options", [{"design": "C"}, {"mask_apply": "add"}])
def test_unknown_names_are_refused(options):
  with pytest.raises(InputError, match="known: (A, B|residual, mul, identity_init)"):
    init_shapes(32, 32, num_labels=LABELS, depth="tiny", **options)


def test_mask_cross_entropy_equals_a_slow_loop():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 4, 6))
  person = rng.integers(0, 256, (2, 32, 48)).astype(np.uint8)
  total = 0.0
  for b in range(2):
    for i in range(4):
      for j in range(6):
        target = float(np.mean(person[b, 8 * i:8 * i + 8, 8 * j:8 * j + 8] / 255.0))
        p = 1 / (1 + np.exp(-logits[b, i, j]))
        total -= target * np.log(p) + (1 - target) * np.log(1 - p)
  np.testing.assert_allclose(mask_cross_entropy(jnp.asarray(logits, jnp.float32), person), total / 48, rtol=1e-5)


def test_mask_loss_is_lower_when_the_mask_is_right():
  person = np.zeros((1, 32, 32), np.uint8)
  person[:, 8:24, 8:16] = 255
  inside = np.asarray(person[:, ::8, ::8] > 0)
  right, unsure, wrong = (mask_cross_entropy(jnp.where(inside, z, -z), person) for z in (5.0, 0.0, -5.0))
  assert right < 0.01 < unsure < wrong


def test_objective(tiny):
  _, _, _, logits, out, batch = tiny
  ratio = np.full(LABELS, 0.3)
  value, parts = dahar.objective(logits, out, batch, {}, positive_ratio=ratio, mask_weight=0.5)
  label = batch["label"] * batch["known"]
  expected = {}
  for name in ("main", "side"):
    p = 1 / (1 + np.exp(-np.asarray(out[f"logits_{name}"], np.float64)))
    expected[name] = -(label * np.log(p) + (1 - label) * np.log(1 - p)).sum(axis=1).mean()
  expected["classification"] = expected["main"] + expected["side"]
  expected["mask"] = float(mask_cross_entropy(out["mask_logits"], batch["person_mask"]))
  assert parts.keys() == expected.keys()
  for name, part in parts.items():
    assert part.shape == ()
    np.testing.assert_allclose(part, expected[name], rtol=1e-5)
  np.testing.assert_allclose(value, expected["classification"] + 0.5 * expected["mask"], rtol=1e-5)


def test_person_masks_are_needed_only_by_the_mask_loss(tiny):
  _, _, _, logits, out, batch = tiny
  batch = {name: batch[name] for name in ("label", "known")}
  ratio = np.full(LABELS, 0.3)
  with pytest.raises(InputError, match="mask_weight=0"):
    dahar.objective(logits, out, batch, {}, positive_ratio=ratio)
  value, parts = dahar.objective(logits, out, batch, {}, positive_ratio=ratio, mask_weight=0.0)
  assert parts["mask"] == 0 and value == parts["classification"]
  plain = {name: out[name] for name in ("logits_main", "logits_side")}
  assert dahar.objective(logits, plain, batch, {}, positive_ratio=ratio)[0] == value


@pytest.mark.slow
def test_classification_trains_every_block_and_the_mask_loss_its_own(tiny):
  model, variables, x, _, _, batch = tiny

  def values(params):
    (logits, out), _ = model.apply(dict(variables, params=params), x, train=True, mutable=["batch_stats"])
    _, parts = dahar.objective(logits, out, batch, {}, positive_ratio=np.full(LABELS, 0.3))
    return jnp.stack([parts["classification"], parts["mask"]])

  grads = jax.jit(jax.jacrev(values))(variables["params"])
  reached = [{name for name in grads if any(np.any(g[i]) for g in jax.tree.leaves(grads[name]))} for i in range(2)]
  assert reached[0] == set(variables["params"])
  # The mask is made of the fused stages: neither classifier nor attention.
  assert reached[1] == {"backbone", "fusion", "mask_block", "self_mask1", "self_mask2", "self_mask3"}


def test_an_unspecified_label_gives_exactly_no_gradient(tiny):
  _, _, _, logits, out, batch = tiny

  def loss(branches):
    return dahar.objective(
        logits, out | branches, batch, {}, positive_ratio=np.full(LABELS, 0.3), unspecified="ignore")[0]

  grads = jax.grad(loss)({name: out[name] for name in ("logits_main", "logits_side")})
  for gradient in grads.values():
    assert (np.asarray(gradient)[~batch["known"]] == 0).all() and (np.asarray(gradient)[batch["known"]] != 0).all()


def test_finite_for_huge_logits(tiny):
  _, _, _, logits, out, batch = tiny
  sign = jnp.where(jnp.arange(LABELS) % 2, 1e4, -1e4)
  huge = {name: jnp.broadcast_to(sign, (4, LABELS)) for name in ("logits_main", "logits_side")}
  huge["mask_logits"] = jnp.broadcast_to(jnp.where(jnp.arange(6) % 2, 1e4, -1e4), (4, 4, 6))
  loss = lambda out: dahar.objective(logits, out, batch, {}, positive_ratio=np.full(LABELS, 0.3))[0]
  value, grads = jax.value_and_grad(loss)(huge)
  assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads.values())
