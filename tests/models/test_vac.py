"""VAC and its objective."""

import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax.errors import InputError
from attr_jax.models import baseline
from attr_jax.models import vac
from attr_jax.nn import preprocess
from attr_jax.nn.resnet import ResNet

LABELS = 5
RATIO = np.linspace(0.1, 0.7, LABELS).astype(np.float32)
TINY = {"num_labels": LABELS, "depth": "tiny", "width": 4}
# The quick level of XLA: most of the time of these tests is compilation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def sample_keys(count, seed=0):
  return preprocess.sample_keys(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def tiny():
  """A small network with all views: 64 px (4x4 cells), 48 px (3x3 cells); `train(variables)` runs it."""
  model = vac.Model(**TINY, transforms="fsrt", small_size=(48, 48))
  x = jax.random.normal(jax.random.key(0), (4, 64, 64, 3))
  variables = jax.device_get(quick_jit(lambda: model.init(jax.random.key(1), x, train=False))())
  train = quick_jit(lambda v: model.apply(v, x, train=True, keys=sample_keys(4), mutable=["batch_stats"]))
  return model, variables, x, train


# The network.


@pytest.mark.parametrize("labels, depth, count", [(14, 50, 23_508_032 + 2048 * 14 + 14), (14, 101, 42_528_846)])
def test_parameter_count_is_that_of_the_baseline(labels, depth, count):
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  for module in (vac, baseline):
    model = module.Model(labels, depth)
    shapes = jax.eval_shape(lambda x, model=model: model.init(jax.random.key(0), x, train=False), image)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == count


def test_evaluation_is_the_baseline(tiny):
  model, variables, x, _ = tiny
  logits, out = quick_jit(lambda v: model.apply(v, x, train=False))(variables)
  expected, expected_out = quick_jit(lambda v: baseline.Model(**TINY).apply(v, x, train=False))(variables)
  np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)
  assert out.keys() == expected_out.keys()
  for name in out:
    np.testing.assert_allclose(out[name], expected_out[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_mean_heatmap_plus_bias_is_the_logits_of_each_view(tiny):
  _, variables, _, train = tiny
  (logits, out), _ = train(variables)
  bias = variables["params"]["classifier"]["bias"]
  views = ["heatmap", "heatmap_flip", "heatmap_rotated", "heatmap_translated", "heatmap_small", "heatmap_small_flip"]
  assert {name for name in out if name.startswith("heatmap")} == set(views)
  means = jnp.stack([out[name].mean(axis=(1, 2)) for name in views])
  np.testing.assert_allclose(means + bias.reshape(1, 1, -1), out["logits_views"], atol=1e-5)
  np.testing.assert_array_equal(out["logits_views"][0], logits)
  np.testing.assert_allclose(out["features"], out["stage4"].mean(axis=(1, 2)), atol=1e-5)
  assert all(len(value) == 4 for name, value in out.items() if name != "logits_views")


@pytest.mark.parametrize("transforms, options, size, views, cells", [
    ("", {}, 224, 1, {"heatmap": 7}),
    ("f", {}, 224, 2, {"heatmap_flip": 7}),
    ("s", {}, 224, 2, {"heatmap_small": 6}),
    ("r", {}, 224, 2, {"heatmap_rotated": 7}),
    ("t", {}, 224, 2, {"heatmap_translated": 7}),
    (("f", "s"), {"small_size": (256, 256)}, 288, 4,
     {"heatmap": 9, "heatmap_flip": 9, "heatmap_small": 8, "heatmap_small_flip": 8}),
])
def test_sizes_of_the_paper(transforms, options, size, views, cells):
  model = vac.Model(14, depth=18, dtype=jnp.bfloat16, transforms=transforms, **options)
  logits, out = jax.eval_shape(
      lambda x: model.init_with_output(jax.random.key(0), x, train=True, keys=sample_keys(2))[0],
      jax.ShapeDtypeStruct((2, size, size, 3), jnp.bfloat16))
  assert logits.shape == (2, 14) and out["logits_views"].shape == (views, 2, 14)
  assert sum(name.startswith("heatmap") for name in out) == views
  for name, count in cells.items():
    assert out[name].shape == (2, count, count, 14), name
  assert {out[name].dtype for name in (*cells, "logits_views", "features")} | {logits.dtype} == {jnp.dtype("float32")}
  assert out["stage4"].dtype == jnp.bfloat16


def test_classifier_starts_as_torch_linear(tiny):
  _, variables, _, _ = tiny
  classifier = variables["params"]["classifier"]
  bound = 1 / math.sqrt(classifier["kernel"].shape[0])
  for name in ("kernel", "bias"):
    assert 0.6 * bound < np.abs(classifier[name]).max() <= bound, name
  np.testing.assert_allclose(np.std(classifier["kernel"]), bound / math.sqrt(3), rtol=0.15)


def test_statistics_are_those_of_two_passes_large_first(tiny):
  _, variables, x, train = tiny
  _, updated = train(variables)
  trunk = ResNet("tiny", 4)

  @quick_jit
  def by_hand(params, stats):
    turns, moves = vac.draw_quarter_turns(sample_keys(4)), vac.draw_directions(sample_keys(4))
    large = [x, x[:, :, ::-1], vac.rotate(x, turns), vac.translate(x, 16 * moves)]
    small = jax.image.resize(x, (4, 48, 48, 3), "bilinear")
    every = []
    for views in (large, [small, small[:, :, ::-1]]):
      _, new = trunk.apply({"params": params, "batch_stats": stats}, jnp.concatenate(views), True, mutable=["batch_stats"])
      stats = new["batch_stats"]
      every.append(stats)
    return every

  first, second = by_hand(variables["params"]["backbone"], variables["batch_stats"]["backbone"])
  actual = updated["batch_stats"]["backbone"]
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), actual, second)
  assert not np.allclose(actual["stem"]["bn"]["var"], first["stem"]["bn"]["var"], rtol=1e-2)


# The views.


def test_transforms_undo_themselves():
  x = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)
  turns, offset = jnp.arange(4), jnp.array([[1, 0], [-2, 0], [0, 3], [-1, 2]])
  np.testing.assert_array_equal(vac.flip(vac.flip(x)), x)
  turned = vac.rotate(x, turns)
  for i in range(4):
    np.testing.assert_array_equal(turned[i], np.rot90(x[i], i))
  np.testing.assert_array_equal(vac.rotate(turned, 4 - turns), x)
  seen = vac.covered(-offset, (6, 6))
  np.testing.assert_array_equal(vac.translate(vac.translate(x, offset), -offset), np.where(seen[..., None], x, 0))
  assert seen.sum(axis=(1, 2)).tolist() == [30, 24, 18, 20]


def test_translation_equals_a_slow_loop():
  x = np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype(np.float32)
  offset = np.array([[1, 0], [0, -2], [-3, 1]])
  expected = np.zeros_like(x)
  for b in range(3):
    for i in range(5):
      for j in range(4):
        row, column = i + offset[b, 0], j + offset[b, 1]
        if 0 <= row < 5 and 0 <= column < 4:
          expected[b, row, column] = x[b, i, j]
  np.testing.assert_array_equal(vac.translate(x, jnp.asarray(offset)), expected)
  np.testing.assert_array_equal(vac.covered(jnp.asarray(offset), (5, 4)), (expected != 0).all(axis=-1))


@pytest.mark.parametrize("depth, stride", [("tiny", 16), (18, 32), (50, 32)])
def test_a_cell_is_as_wide_as_the_stride(depth, stride):
  assert vac._stride(ResNet(depth)) == stride


def test_draws_belong_to_the_sample():
  keys = sample_keys(300)
  turns, moves = vac.draw_quarter_turns(keys), vac.draw_directions(keys)
  assert [int((turns == k).sum()) > 70 for k in range(5)] == [False, True, True, True, False]
  found, counts = np.unique(moves, axis=0, return_counts=True)
  assert sorted(map(tuple, found)) == [(-1, 0), (0, -1), (0, 1), (1, 0)] and counts.min() > 50
  # Rotation and translation do not follow each other.
  assert len(np.unique(np.concatenate([turns[:, None], moves], axis=1), axis=0)) == 12
  order = np.random.default_rng(0).permutation(300)
  np.testing.assert_array_equal(vac.draw_quarter_turns(keys[order]), turns[order])
  np.testing.assert_array_equal(vac.draw_directions(keys[order]), moves[order])


def test_small_copies():
  image = np.random.default_rng(0).normal(size=(2, 224, 112, 3)).astype(np.float32)
  assert vac.shrink(image, 6 / 7, "nearest").shape == (2, 192, 96, 3)
  half = vac.shrink(image, (112, 56), "bilinear")
  # With antialiasing: the triangle over four pixels, not the mean of two.
  taps = np.array([1, 3, 3, 1], np.float32) / 8
  rows = sum(t * image[:, 9 + i] for i, t in enumerate(taps))
  np.testing.assert_allclose(half[:, 5, 5], sum(t * rows[:, 9 + i] for i, t in enumerate(taps)), rtol=1e-4, atol=1e-5)
  assert vac.shrink(image.astype(jnp.bfloat16), (112, 56), "bilinear").dtype == jnp.bfloat16
  np.testing.assert_array_equal(vac.shrink(image, (224, 112), "nearest"), image)


class Pool(nn.Module):
  """In place of the trunk: mean pooling over 16 px, exactly equivariant. Its map is 1/16 of the image."""

  depth: int | str = 50
  width: int | None = None
  dtype: object = None
  zero_init_last: bool = False
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x, train):
    b, h, w, c = x.shape
    return {"stage4": x.reshape(b, h // 16, 16, w // 16, 16, c).mean(axis=(2, 4))}


def test_an_equivariant_network_is_consistent_to_the_bit(monkeypatch):
  monkeypatch.setattr(vac, "ResNet", Pool)
  # Whole numbers, so that sums in any order are exact, alike within 32 px, so that the half-sized copy is exact too.
  coarse = np.random.default_rng(0).integers(0, 16, (8, 4, 4, 3)).astype(np.float32)
  image = coarse.repeat(32, axis=1).repeat(32, axis=2)
  model = vac.Model(LABELS, transforms="fsrt", small_size=0.5, small_filter="nearest")
  kernel = np.random.default_rng(1).integers(-4, 5, (3, LABELS)).astype(np.float32)
  variables = {"params": {"classifier": {"kernel": kernel, "bias": np.zeros(LABELS, np.float32)}}}
  _, out = quick_jit(lambda v: model.apply(v, image, train=True, keys=sample_keys(8)))(variables)
  assert out["heatmap"].shape == (8, 8, 8, LABELS) and out["heatmap_small"].shape == (8, 4, 4, LABELS)
  consistency = quick_jit(vac.consistency, static_argnums=1)
  for form in ("mse", "norm"):
    assert consistency(out, form) == {"flip": 0, "scale": 0, "rotate": 0, "translate": 0}
  # Not because the maps were constant, or their transforms not undone.
  wrong = consistency(out | {"quarter_turns": out["quarter_turns"] % 3 + 1, "shift": -out["shift"],
                             "heatmap_flip": out["heatmap"]}, "mse")
  assert all(term > 1 for term in wrong.values())


def mirror_kernels(variables):
  """Kernels alike from left to right."""
  return jax.tree.map(lambda k: (k + k[:, ::-1]) / 2 if k.ndim == 4 else k, variables)


def test_a_mirrored_network_is_consistent_under_flips(tiny):
  """With kernels that are alike from left to right, where the lattice is too.

  Stride 2 with one border pixel reads the columns 0, 2, 4, ...; mirrored they are the same only in a row of odd length. It
  must be odd before each of the four strides: 16 k + 1 pixels. At 64 px symmetric kernels do not help.
  """
  _, variables, _, train = tiny
  model = vac.Model(**TINY, transforms="fs", small_size=(33, 33))
  x = np.random.default_rng(2).normal(size=(4, 49, 49, 3)).astype(np.float32)
  at_odd_size = quick_jit(lambda v: model.apply(v, x, train=True, mutable=["batch_stats"])[0][1])
  mirrored = mirror_kernels(variables)
  flip_term = lambda out: np.mean((out["heatmap"] - np.asarray(out["heatmap_flip"])[:, :, ::-1]) ** 2)
  assert flip_term(at_odd_size(mirrored)) < 1e-9
  assert flip_term(at_odd_size(variables)) > 1e-3
  assert flip_term(train(mirrored)[0][1]) > 1e-3


# The objective.


def make_out(seed=0, count=4, labels=LABELS, views=6):
  """What the network gives with all views, at random; and a batch."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  out = {"logits_views": 2 * normal(views, count, labels)}
  out |= {f"heatmap{name}": normal(count, 7, 7, labels) for name in ("", "_flip", "_rotated", "_translated")}
  out |= {f"heatmap_small{name}": normal(count, 6, 6, labels) for name in ("", "_flip")}
  out |= {"quarter_turns": np.array([1, 2, 3, 1]), "shift": np.array([[0, 1], [0, -1], [2, 0], [-1, 0]])}
  batch = {"label": rng.integers(0, 2, (count, labels)), "known": rng.random((count, labels)) < 0.7}
  return jax.tree.map(jnp.asarray, out), jax.tree.map(jnp.asarray, batch)


def run_objective(out, batch, ratio=RATIO, **options):
  run = functools.partial(vac.objective, memory={}, positive_ratio=ratio, **options)
  return jax.jit(run)(out["logits_views"][0], out, batch)


def slow_terms(out, norm):
  """In float64, sample by sample; scale on the enlarged maps."""
  out = {name: np.asarray(value, np.float64 if "heatmap" in name else None) for name, value in out.items()}

  def apart(a, b):
    squares = ((a - b) ** 2).reshape(-1, LABELS)
    return (squares.mean(axis=0) if norm == "mse" else np.sqrt(squares.sum(axis=0)) / len(squares)).mean()

  enlarged = lambda x, times: x.repeat(times, axis=0).repeat(times, axis=1)
  terms = {"flip": [], "scale": [], "rotate": [], "translate": []}
  for b in range(4):
    at = {name: value[b] for name, value in out.items() if "heatmap" in name}
    terms["flip"].append(apart(at["heatmap"], at["heatmap_flip"][:, ::-1])
                         + apart(at["heatmap_small"], at["heatmap_small_flip"][:, ::-1]))
    terms["scale"].append((apart(enlarged(at["heatmap"], 6), enlarged(at["heatmap_small"], 7))
                           + apart(enlarged(at["heatmap_flip"], 6), enlarged(at["heatmap_small_flip"], 7))) / 2)
    terms["rotate"].append(apart(np.rot90(at["heatmap"], out["quarter_turns"][b]), at["heatmap_rotated"]))
    dy, dx = out["shift"][b]
    both = [(i, j) for i in range(7) for j in range(7) if 0 <= i + dy < 7 and 0 <= j + dx < 7]
    pair = np.array([(at["heatmap"][i, j], at["heatmap_translated"][i + dy, j + dx]) for i, j in both])
    terms["translate"].append(apart(pair[:, 0], pair[:, 1]))
  return {name: np.mean(values) for name, values in terms.items()}


@pytest.mark.parametrize("norm", ["mse", "slide"])
@pytest.mark.parametrize("reduction", ["sum_labels_mean_samples", "mean"])
def test_objective_equals_slow_code(norm, reduction):
  out, batch = make_out()
  weights = {"flip": 0.6, "scale": 0.8, "rotate": 2.0, "translate": 0.5}
  options = {f"{name}_weight": weight for name, weight in weights.items()}
  value, parts = run_objective(out, batch, norm=norm, reduction=reduction, **options)
  ratio, label = RATIO.astype(np.float64), np.asarray(batch["label"] * batch["known"])
  total = 0.0
  for view in np.asarray(out["logits_views"], np.float64):
    p = 1 / (1 + np.exp(-view))
    total += -np.where(label == 1, np.exp(1 - ratio)[None] * np.log(p), np.exp(ratio)[None] * np.log(1 - p)).sum()
  expected = {"classification": total / (6 * 4 * (1 if reduction == "sum_labels_mean_samples" else LABELS))}
  expected |= slow_terms(out, norm)
  assert parts.keys() == expected.keys()
  for name in parts:
    np.testing.assert_allclose(parts[name], expected[name], rtol=1e-5, err_msg=name)
  weighted = expected["classification"] + sum(weights[name] * expected[name] for name in weights)
  np.testing.assert_allclose(value, weighted, rtol=1e-5)


def test_repeated_labels_double_the_classification_alone():
  out, batch = make_out()
  repeat = lambda x: jnp.concatenate([x, x], axis=-1)
  twice = {name: value if name in ("quarter_turns", "shift") else repeat(value) for name, value in out.items()}
  once = run_objective(out, batch)[1]
  parts = run_objective(twice, jax.tree.map(repeat, batch), ratio=np.tile(RATIO, 2))[1]
  np.testing.assert_allclose(parts.pop("classification"), 2 * once.pop("classification"), rtol=1e-6)
  for name in once:
    np.testing.assert_allclose(parts[name], once[name], rtol=1e-6, err_msg=name)


def test_weight_0_leaves_augmentation():
  out, batch = make_out()
  value, parts = run_objective(out, batch, flip_weight=0, scale_weight=0.0, rotate_weight=0.0, translate_weight=0.0)
  assert value == parts["classification"] and parts["flip"] > 0


def test_unspecified_labels_can_be_ignored():
  out, batch = make_out()
  gradient = jax.grad(lambda views: run_objective(out | {"logits_views": views}, batch, unspecified="ignore")[0])
  changed = np.asarray(gradient(out["logits_views"]))
  assert (changed[:, ~batch["known"]] == 0).all() and (changed[:, batch["known"]] != 0).all()


def test_without_views_it_is_the_loss_of_the_baseline():
  out, batch = make_out()
  logits = out["logits_views"][0]
  value, parts = vac.objective(logits, {"heatmap": out["heatmap"]}, batch, {}, positive_ratio=RATIO)
  assert parts.keys() == {"classification"}
  np.testing.assert_allclose(
      value, baseline.objective(logits, {}, batch, {}, positive_ratio=RATIO, loss="exp_ratio")[0], rtol=1e-6)


@pytest.mark.parametrize("norm", ["mse", "slide"])
def test_finite_for_huge_logits(norm):
  out, batch = make_out()
  drawn = {name: out.pop(name) for name in ("quarter_turns", "shift")}
  huge = {name: jnp.where(value > 0, 1e4, -1e4) for name, value in out.items()}
  value, grads = jax.value_and_grad(lambda out: run_objective(out | drawn, batch, norm=norm)[0])(huge)
  assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_consistency_trains_the_trunk_alone(tiny):
  _, variables, x, _ = tiny
  model = vac.Model(**TINY, small_size=(48, 48))

  @quick_jit
  @jax.grad
  def gradient(params):
    (_, out), _ = model.apply(dict(variables, params=params), x, train=True, mutable=["batch_stats"])
    return sum(vac.consistency(out).values())

  grads = gradient(variables["params"])
  assert not any(np.any(x) for x in jax.tree.leaves(grads["classifier"]))
  for layer in jax.tree.leaves(grads["backbone"]):  # every one
    assert np.any(layer) and np.isfinite(layer).all()


# The step.


def step_config(transforms, **overrides):
  config = config_lib.default_config()
  config.model.update({"name": "vac", "depth": "tiny", "width": 4, "transforms": transforms, "small_size": (48, 48)})
  config.batch_size, config.input.size = 8, (64, 64)
  config.update_from_flattened_dict(overrides)
  return config


def run_step(config, model, objective, device_counts, gradient=False):
  """The scalars of one step from one start, for each number of devices; without gradient it compiles in a quarter of the time."""
  schedule = optim.make_schedule(config, 10, 100)
  tx = optim.make_optimizer(config, schedule)
  variables = initial_variables(model.clone(transforms="") if isinstance(model, vac.Model) else model)
  params = variables["params"]
  state = state_lib.TrainState(jnp.zeros((), jnp.int32), params, variables["batch_stats"], tx.init(params), {})
  rng = np.random.default_rng(0)
  batch = {
      "image": rng.integers(0, 256, (8, 64, 64, 3), np.uint8),
      "label": rng.integers(0, 2, (8, LABELS)).astype(np.uint8),
      "known": rng.random((8, LABELS)) < 0.8,
      "id": np.arange(8),
  }
  every = []
  for devices in device_counts:
    mesh = sharding.make_mesh(jax.devices()[:devices])
    step = steps.make_train_step(model, objective, tx, schedule, config, mesh)
    keep, rows = sharding.replicated(mesh), sharding.over_batch(mesh)
    wanted = lambda *args: {name: x for name, x in step(*args)[1].items() if gradient or name != "grad_norm"}
    compiled = quick_jit(wanted, in_shardings=(keep, rows, keep), out_shardings=keep)
    scalars = compiled(jax.device_put(state, keep), sharding.put_batch(batch, rows), jax.random.key(3))
    every.append({name: float(value) for name, value in scalars.items()})
  return every


@functools.cache
def initial_variables(model):
  """On the host; of VAC for all choices of views alike."""
  return jax.device_get(quick_jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))())


def run_vac(config, device_counts, gradient=False):
  objective = functools.partial(vac.objective, positive_ratio=RATIO)
  return run_step(config, models.build(config.model, LABELS), objective, device_counts, gradient)


@pytest.mark.parametrize("transforms, terms", [
    ("", set()), ("f", {"flip"}), ("s", {"scale"}), ("r", {"rotate"}), ("t", {"translate"}), ("fs", {"flip", "scale"}),
])
def test_device_count_does_not_matter(transforms, terms):
  one, four = run_vac(step_config(transforms, **{"batch_norm.scope": "global"}), (1, 4))
  assert one.keys() == {"loss", "learning_rate", "classification"} | terms
  for name, value in one.items():
    assert np.isfinite(value) and value > 0, name
    assert four[name] == pytest.approx(value, rel=1e-5), name


def test_a_whole_step_with_local_statistics():
  scalars, = run_vac(step_config("rt"), (4,), gradient=True)
  assert all(np.isfinite(value) for value in scalars.values()) and scalars["grad_norm"] > 0
  terms = scalars["rotate"] + scalars["translate"]
  assert scalars["loss"] == pytest.approx(scalars["classification"] + terms, rel=1e-5)


class Draws(nn.Module):
  """Logits that are what a model draws from its keys."""

  @nn.compact
  def __call__(self, inputs, *, train, keys=None):
    scale = self.param("scale", nn.initializers.ones, (1, LABELS))
    self.variable("batch_stats", "unused", lambda: jnp.zeros(()))
    if not train:
      return scale * jnp.ones((inputs.shape[0], LABELS)), {}
    return scale * jax.vmap(lambda key: jax.random.uniform(key, (LABELS,)))(keys), {}


@pytest.mark.parametrize("devices, overrides", [
    (1, {}), (1, {"accumulate_steps": 4}), (2, {"accumulate_steps": 2}), (4, {}),
    (2, {"accumulate_steps": 2, "input.brightness": 0.3}),
])
def test_a_sample_draws_the_same_on_any_device_and_in_any_micro_batch(devices, overrides):
  def objective(logits, out, batch, memory):
    return (logits * (1 + batch["id"][:, None])).mean(), {}

  loss = run_step(step_config("", **overrides), Draws(), objective, (devices,))[0]["loss"]
  jitter = preprocess.sample_keys(jax.random.fold_in(jax.random.key(3), 0), 8)  # of the run's seed 3, step 0
  keys = jax.vmap(jax.random.fold_in, (0, None))(jitter, steps._MODEL_KEYS)
  draws = jax.vmap(lambda key: jax.random.uniform(key, (LABELS,)))(keys)
  assert loss == pytest.approx(float((draws * jnp.arange(1, 9)[:, None]).mean()), rel=1e-6)
  # Other numbers than the colour jitter's.
  jitter_draws = jax.vmap(lambda key: jax.random.uniform(key, (LABELS,)))(jitter)
  assert np.abs(draws - jitter_draws).min() > 1e-6


# Wrong calls.


@pytest.mark.parametrize("options, shape, message", [
    ({"transforms": "fx"}, (64, 64), "known: the letters f, s, r, t"),
    ({"small_filter": "cubic"}, (64, 64), "known: bilinear, nearest"),
    ({"transforms": "r"}, (64, 48), "square"),
    ({"transforms": "t", "shift_cells": 4}, (64, 64), "shift_cells=4 of 16 px"),
    ({"transforms": "t", "shift_cells": 0}, (64, 64), "shift_cells=0"),
    ({"small_size": (96, 96)}, (64, 64), "config.model.small_size"),
    ({"small_size": 0.001}, (64, 64), "config.model.small_size"),
])
def test_wrong_options_are_named(options, shape, message):
  model = vac.Model(**TINY, **options)
  with pytest.raises(InputError, match=message):
    jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((2, *shape, 3)), train=True, keys=sample_keys(2)))


def test_keys_are_needed_in_training_alone():
  model = vac.Model(**TINY, transforms="t")
  run = lambda train: jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((2, 64, 64, 3)), train=train))
  run(False)
  with pytest.raises(InputError, match="need `keys`"):
    run(True)


def test_unknown_norm_is_refused():
  out, batch = make_out()
  with pytest.raises(InputError, match="known: mse, slide"):
    run_objective(out, batch, norm="l1")


def test_build():
  model = models.build({"name": "vac", "depth": "101", "transforms": "f", "small_size": (256, 256)}, 80, "bfloat16")
  assert (model.depth, model.transforms, model.small_size, model.dtype) == (101, "f", (256, 256), jnp.bfloat16)
  with pytest.raises(InputError, match="it takes:.*shift_cells.*transforms"):
    models.build({"name": "vac", "views": "fs"}, 3)
