"""The pure step: device counts, BN scopes, micro-batches, against slow references."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax.errors import InputError

from helpers import REPOSITORY

LABELS = 5


def make_config(**overrides):
  config = config_lib.default_config()
  config.model.depth = "tiny"
  config.batch_size = 16
  config.input.size = config.input.full_size = (16, 16)
  config.optimizer.learning_rate = 0.1
  config.schedule.name = "constant"
  config.update_from_flattened_dict(overrides)
  return config


def make_batch(seed, batch=16):
  rng = np.random.default_rng(seed)
  return {
      "image": rng.integers(0, 256, (batch, 16, 16, 3), np.uint8),
      "label": rng.integers(0, 2, (batch, LABELS)).astype(np.uint8),
      "known": rng.random((batch, LABELS)) < 0.8,
      "id": np.arange(batch, dtype=np.int64),
  }


def build(config, mesh):
  model = models.build(config.model, LABELS, config.compute_dtype)
  schedule = optim.make_schedule(config, 10, 100)
  tx = optim.make_optimizer(config, schedule)
  objective = functools.partial(models.MODELS["baseline"].objective, positive_ratio=np.full(LABELS, 0.3, np.float32), **config.loss)
  state = state_lib.create_state(model, tx, (16, 16, 3), {}, mesh, seed=0)
  step = steps.make_train_step(model, objective, tx, schedule, config, mesh)
  return model, objective, state, step


def test_groups_must_divide_the_devices():
  config = make_config(**{"batch_norm.scope": "group", "batch_norm.group_size": 3})
  with pytest.raises(InputError, match="config.batch_norm.group_size=3 does not divide 4 devices"):
    build(config, sharding.make_mesh())


def collectives(config):
  """Operations between devices in the compiled step of four devices, by kind."""
  mesh = sharding.make_mesh()
  _, _, state, step = build(config, mesh)
  batch = sharding.put_batch(make_batch(0), sharding.over_batch(mesh))
  text = steps.compile_train_step(step, mesh).lower(state, batch, jax.random.key(0)).compile().as_text()
  return collections.Counter(re.findall(r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text))


def test_a_step_with_local_statistics_does_not_communicate_in_its_layers():
  local, wide = (collectives(make_config(**{"batch_norm.scope": scope})) for scope in ("local", "global"))
  # Gradients, statistics and scalars at the end, whatever the depth; the tiny network has 10 batch norms.
  assert set(local) == {"all-reduce"} and local["all-reduce"] <= 3
  assert wide["all-reduce"] >= local["all-reduce"] + 10


@pytest.mark.parametrize("config", [
    "baseline", "srn:tiny", "diaa:tiny", "vac:tiny", "dahar:tiny", "person_segmenter:tiny", "face:system=ssp,tiny", "face:system=joint,tiny",
    "attncnn_rnn:system=attncnn_rnn_hog,tiny"])
def test_every_method_shares_statistics_in_groups(config):
  """Traced only: that running statistics are equal in a group is checked by their types."""
  labels = 12
  path, _, options = config.partition(":")
  config = cli.load_config(f"{REPOSITORY}/configs/{path}.py:{options}", [])
  config.batch_norm.update({"scope": "group", "group_size": 2})
  config.batch_size = 8
  mesh, method, size = sharding.make_mesh(), models.MODELS[config.model.name], tuple(config.input.size)
  model = models.build(config.model, labels, config.compute_dtype)
  objective = functools.partial(method.objective, positive_ratio=np.full(labels, 0.3, np.float32), **config.loss)
  schedule = optim.make_schedule(config, 10, 100)
  tx = optim.make_optimizer(config, schedule)
  state = state_lib.abstract_state(model, tx, (*size, 3), models.initial_memory(config.model.name, 8, labels), mesh)
  views = (6,) if config.input.crop == "six_view" else ()
  shapes = {"image": (8, *views, *size, 3), "label": (8, labels), "known": (8, labels), "person_mask": (8, *size), "region_mask": (8, *size),
            **({"view_label": (8, *views, labels)} if views else {})}
  batch = {key: jax.ShapeDtypeStruct(shape, np.bool_ if key == "known" else np.uint8) for key, shape in shapes.items()}
  batch["id"] = jax.ShapeDtypeStruct((8,), np.int32)
  step = steps.make_train_step(model, objective, tx, schedule, config, mesh, remember=getattr(method, "remember", None), num_train=8)
  new, scalars = jax.eval_shape(step, state, batch, jax.random.key(0))
  assert jax.tree.structure(new.batch_stats) == jax.tree.structure(state.batch_stats) and scalars["loss"].shape == ()


def run(config, devices, count=5):
  mesh = sharding.make_mesh(jax.devices()[:devices])
  _, _, state, step = build(config, mesh)
  step = steps.compile_train_step(step, mesh)
  losses = []
  for i in range(count):
    state, scalars = step(state, sharding.put_batch(make_batch(i), sharding.over_batch(mesh)), jax.random.key(0))
    losses.append(float(scalars["loss"]))
  assert step._cache_size() == 1
  return losses, state


@pytest.mark.parametrize("overrides", [
    {"input.brightness": 0.3, "input.hue": 0.1},
    pytest.param({"accumulate_steps": 2, "loss.unspecified": "ignore"}, marks=pytest.mark.slow),
])
def test_device_count_does_not_matter(overrides):
  config = make_config(**overrides, **{"batch_norm.scope": "global"})
  one, state_one = run(config, 1)
  for devices in (2, 4):
    several, state_several = run(config, devices)
    np.testing.assert_allclose(one, several, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), state_one.batch_stats, state_several.batch_stats)


def test_step_is_pure_and_runs_without_a_mesh():
  config = make_config()
  _, _, state, step = build(config, sharding.make_mesh(jax.devices()[:1]))
  step = jax.jit(step)  # no shardings, no donation
  before = jax.tree.map(np.array, state.params)
  batch = {k: jnp.asarray(v.astype(np.int32) if v.dtype == np.int64 else v) for k, v in make_batch(0).items()}
  first, scalars = step(state, batch, jax.random.key(0))
  second, again = step(state, batch, jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, before, state.params)
  jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
  assert int(first.step) == 1 and scalars.keys() == again.keys() >= {"loss", "grad_norm", "learning_rate"}


def reference_gradient(model, objective, state, batch, parts, config):
  """Mean over `parts` (row slices) of each part's own loss, gradient and BN update."""
  def loss_fn(params, rows):
    mean, std = np.array(config.input.mean, np.float32), np.array(config.input.std, np.float32)
    image = (jnp.asarray(batch["image"][rows], jnp.float32) / 255 - mean[None, None, None]) / std[None, None, None]
    (logits, out), updated = model.apply(
        {"params": params, "batch_stats": state.batch_stats}, image, train=True, mutable=["batch_stats"])
    loss, _ = objective(logits, out, {k: jnp.asarray(v[rows]) for k, v in batch.items() if k in ("label", "known")}, {})
    return loss, updated["batch_stats"]

  # Compiled once per part: op by op the same takes half a minute.
  every = [jax.jit(jax.value_and_grad(lambda p, rows=rows: loss_fn(p, rows), has_aux=True))(state.params) for rows in parts]
  mean_of = lambda trees: jax.tree.map(lambda *x: np.mean(np.stack(x), axis=0), *trees)
  return np.mean([e[0][0] for e in every]), mean_of([e[1] for e in every]), mean_of([e[0][1] for e in every])


def apply_sgd(config, state, grads):
  rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
  return jax.tree.map(lambda p, g: p - rate * (g + decay * p), state.params, grads)


@pytest.mark.parametrize("scope, images", [("local", 4), ("group", 8), pytest.param("global", 16, marks=pytest.mark.slow)])
def test_bn_scope_against_a_slow_reference(scope, images):
  """local: each of 4 devices normalises its own 4 images; the gradient is the mean, not the sum."""
  config = make_config(**{"batch_norm.scope": scope, "batch_norm.group_size": 2})
  mesh = sharding.make_mesh()
  model, objective, state, step = build(config, mesh)
  batch = make_batch(3)
  parts = [slice(first, first + images) for first in range(0, 16, images)]
  loss, grads, stats = reference_gradient(model, objective, state, batch, parts, config)
  expected = apply_sgd(config, state, grads)
  new, scalars = steps.compile_train_step(step, mesh)(
      state, sharding.put_batch(batch, sharding.over_batch(mesh)), jax.random.key(0))
  assert float(scalars["loss"]) == pytest.approx(float(loss), rel=1e-5)
  assert float(scalars["grad_norm"]) == pytest.approx(float(optax.global_norm(grads)), rel=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new.params, expected)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new.batch_stats, stats)


@pytest.mark.slow
def test_accumulation_is_the_mean_of_micro_batches():
  """Micro-batch j of k holds rows j, j + k, ... on any device count."""
  config = make_config(accumulate_steps=2, **{"batch_norm.scope": "global"})
  mesh = sharding.make_mesh(jax.devices()[:2])
  model, objective, state, step = build(config, mesh)
  batch = make_batch(4)
  loss, grads, _ = reference_gradient(model, objective, state, batch, [slice(0, 16, 2), slice(1, 16, 2)], config)
  expected = apply_sgd(config, state, grads)
  new, scalars = steps.compile_train_step(step, mesh)(
      state, sharding.put_batch(batch, sharding.over_batch(mesh)), jax.random.key(0))
  assert float(scalars["loss"]) == pytest.approx(float(loss), rel=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), new.params, expected)


@pytest.mark.slow
def test_several_steps_as_one_program():
  config = make_config(**{"input.brightness": 0.3, "schedule.name": "cosine"})
  mesh = sharding.make_mesh(jax.devices()[:2])
  _, _, state, step = build(config, mesh)
  _, _, other, _ = build(config, mesh)
  batches = [sharding.put_batch(make_batch(i), sharding.over_batch(mesh)) for i in range(3)]
  single = steps.compile_train_step(step, mesh)
  losses = []
  for batch in batches:
    state, scalars = single(state, batch, jax.random.key(0))
    losses.append(float(scalars["loss"]))
  program = steps.compile_train_step(steps.make_several_steps(step), mesh)
  other, scalars = program(other, tuple(batches), jax.random.key(0))
  np.testing.assert_allclose(scalars["loss"], losses, rtol=1e-5)
  assert int(other.step) == 3
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, other.params)


def test_state_is_donated():
  config = make_config()
  mesh = sharding.make_mesh()
  _, _, state, step = build(config, mesh)
  compiled = steps.compile_train_step(step, mesh)
  new, _ = compiled(state, sharding.put_batch(make_batch(0), sharding.over_batch(mesh)), jax.random.key(0))
  assert all(x.is_deleted() for x in jax.tree.leaves(state.params))
  assert not any(x.is_deleted() for x in jax.tree.leaves(new.params))


def test_predict_step_averages_views_on_logits():
  config = make_config()
  mesh = sharding.make_mesh(jax.devices()[:1])
  model, _, state, _ = build(config, mesh)
  predict = jax.jit(steps.make_predict_step(model, config))
  views = np.random.default_rng(0).integers(0, 256, (3, 5, 16, 16, 3), np.uint8)
  logits = lambda image: predict(state.params, state.batch_stats, {"image": image})["logit"]
  np.testing.assert_allclose(logits(views), np.mean([logits(views[:, v]) for v in range(5)], axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_follows_float32():
  exact, state = run(make_config(**{"optimizer.learning_rate": 0.01}), 1, count=10)
  rough, state_bf16 = run(make_config(**{"compute_dtype": "bfloat16", "optimizer.learning_rate": 0.01}), 1, count=10)
  np.testing.assert_allclose(exact, rough, rtol=0.03)
  assert {x.dtype for x in jax.tree.leaves((state_bf16.params, state_bf16.batch_stats))} == {jnp.dtype("float32")}


def test_batch_that_does_not_divide_is_refused():
  with pytest.raises(InputError, match="use a multiple of 4"):
    sharding.check_batch("config.batch_size", 6, sharding.make_mesh())
