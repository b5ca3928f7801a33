"""Optimisers against the torch rule written out in numpy; schedules, plateau, averaging."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attr_jax import config as config_lib
from attr_jax import optim


def run(config, grads, params):
  """Parameters after each gradient."""
  tx = optim.make_optimizer(config, optim.make_schedule(config, len(grads), num_train=config.batch_size))
  state, seen = tx.init(params), []
  for grad in grads:
    updates, state = tx.update(grad, state, params)
    params = optax.apply_updates(params, updates)
    seen.append(params)
  return seen, state


def constant_config(**optimizer):
  config = config_lib.default_config()
  config.schedule.name = "constant"
  config.optimizer.update(optimizer)
  return config


def random_grads(count=6, seed=0):
  rng = np.random.default_rng(seed)
  return [{"w": {"kernel": jnp.asarray(rng.normal(size=3), jnp.float32)}} for _ in range(count)]


PARAMS = {"w": {"kernel": jnp.asarray([1.0, -2.0, 3.0])}}


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_the_torch_rule(nesterov):
  config = constant_config(learning_rate=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
  seen, _ = run(config, random_grads(), PARAMS)
  p, buffer = np.array([1.0, -2.0, 3.0]), np.zeros(3)
  for grad, ours in zip(random_grads(), seen):
    g = np.asarray(grad["w"]["kernel"], np.float64) + 0.01 * p
    buffer = 0.9 * buffer + g
    p = p - 0.1 * (g + 0.9 * buffer if nesterov else buffer)
    np.testing.assert_allclose(ours["w"]["kernel"], p, rtol=1e-5)


def test_adam_and_adagrad_against_their_definitions():
  seen, _ = run(constant_config(name="adagrad", learning_rate=1e-3, weight_decay=0.0), random_grads(), PARAMS)
  p, total = np.array([1.0, -2.0, 3.0]), np.zeros(3)
  for grad, ours in zip(random_grads(), seen):
    g = np.asarray(grad["w"]["kernel"], np.float64)
    total += g * g
    p = p - 1e-3 * g / np.sqrt(total + 1e-10)
    np.testing.assert_allclose(ours["w"]["kernel"], p, rtol=1e-5)
  seen, _ = run(constant_config(name="adam", learning_rate=1e-3, weight_decay=0.0), random_grads(), PARAMS)
  p, m, v = np.array([1.0, -2.0, 3.0]), np.zeros(3), np.zeros(3)
  for t, (grad, ours) in enumerate(zip(random_grads(), seen), 1):
    g = np.asarray(grad["w"]["kernel"], np.float64)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    p = p - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(ours["w"]["kernel"], p, rtol=1e-5)


def test_weight_decay_on_kernels_only():
  config = constant_config(learning_rate=0.1, weight_decay=0.5, weight_decay_on="kernels")
  params = {"bn": {"scale": jnp.ones(2), "bias": jnp.ones(2)}, "fc": {"kernel": jnp.ones(2)}}
  zero = jax.tree.map(jnp.zeros_like, params)
  seen, _ = run(config, [zero], params)
  np.testing.assert_allclose(seen[0]["bn"]["scale"], 1.0)
  np.testing.assert_allclose(seen[0]["fc"]["kernel"], 0.95)


def test_clipping():
  config = constant_config(learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip_norm=1.0)
  grad = {"w": {"kernel": jnp.asarray([3.0, 0.0, 4.0])}}
  seen, _ = run(config, [grad], PARAMS)
  np.testing.assert_allclose(PARAMS["w"]["kernel"] - seen[0]["w"]["kernel"], [0.6, 0.0, 0.8], rtol=1e-5)


def test_schedules():
  config = config_lib.default_config()
  config.batch_size, config.optimizer.learning_rate = 10, 1.0
  config.schedule.at_epochs = (2.0, 3.0)
  rate = optim.make_schedule(config, total_steps=40, num_train=100)  # 10 steps an epoch
  assert [round(float(rate(s)), 6) for s in (0, 19, 20, 29, 30, 39)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
  config.schedule.warmup_epochs = 1.0
  rate = optim.make_schedule(config, total_steps=40, num_train=100)
  assert [round(float(rate(s)), 6) for s in (0, 5, 10, 19, 20, 30)] == [0, 0.5, 1, 1, 0.1, 0.01]
  config.schedule.name = "cosine"
  rate = optim.make_schedule(config, total_steps=40, num_train=100)
  np.testing.assert_allclose([float(rate(s)) for s in (10, 25, 40)], [1.0, 0.5, 0.0], atol=1e-6)


def test_plateau_waits_then_drops_at_most_twice():
  config = constant_config(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
  config.schedule.name = "plateau"
  _, state = run(config, random_grads(1), PARAMS)
  rule = {"factor": 0.1, "patience": 2, "max_drops": 2}
  scales = []
  for value in [0.5, 0.6, 0.6, 0.6, 0.6, 0.55, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9]:
    state = optim.observe_validation(state, value, **rule)
    scales.append(round(float(optim.plateau_scale(state)), 6))
  assert scales == [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01]
  tx = optim.make_optimizer(config, optim.make_schedule(config, 1, 1))
  grad = random_grads(1)[0]
  updates, _ = tx.update(grad, state, PARAMS)
  np.testing.assert_allclose(updates["w"]["kernel"], -0.01 * grad["w"]["kernel"], rtol=1e-5)


def test_average_of_parameters():
  config = constant_config(learning_rate=0.1, ema_decay=0.75)
  seen, state = run(config, random_grads(), PARAMS)
  average = np.asarray(PARAMS["w"]["kernel"], np.float64)
  for params in seen:
    average = 0.75 * average + 0.25 * np.asarray(params["w"]["kernel"])
  np.testing.assert_allclose(optim.evaluation_params(seen[-1], state)["w"]["kernel"], average, rtol=1e-5)
  assert optim.evaluation_params(seen[-1], run(constant_config(), random_grads(), PARAMS)[1]) is seen[-1]


LAYERS = {"fc": {"kernel": jnp.asarray([1.0, -2.0, 3.0]), "bias": jnp.asarray([0.5, 0.25])}}


def layer_grads(count=5, seed=1):
  rng = np.random.default_rng(seed)
  return [{"fc": {"kernel": jnp.asarray(rng.normal(size=3), jnp.float32), "bias": jnp.asarray(rng.normal(size=2), jnp.float32)}}
          for _ in range(count)]


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_against_its_definition(nesterov):
  config = constant_config(name="lars", learning_rate=2.0, momentum=0.9, weight_decay=0.1, weight_decay_on="kernels", nesterov=nesterov)
  seen, _ = run(config, layer_grads(), LAYERS)
  for name, decay in (("kernel", 0.1), ("bias", 0.0)):
    p = np.asarray(LAYERS["fc"][name], np.float64)
    buffer = np.zeros_like(p)
    for grad, ours in zip(layer_grads(), seen):
      g = np.asarray(grad["fc"][name], np.float64) + decay * p
      trust = 0.001 * np.linalg.norm(p) / np.linalg.norm(g) if name == "kernel" else 1.0
      step = 2.0 * trust * g
      buffer = 0.9 * buffer + step
      p = p - (step + 0.9 * buffer if nesterov else buffer)
      np.testing.assert_allclose(ours["fc"][name], p, rtol=1e-5)


def test_lamb_against_its_definition():
  config = constant_config(name="lamb", learning_rate=0.01, weight_decay=0.1, weight_decay_on="kernels")
  seen, _ = run(config, layer_grads(), LAYERS)
  for name, decay in (("kernel", 0.1), ("bias", 0.0)):
    p = np.asarray(LAYERS["fc"][name], np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, (grad, ours) in enumerate(zip(layer_grads(), seen), 1):
      g = np.asarray(grad["fc"][name], np.float64)
      m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
      r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + decay * p
      p = p - 0.01 * np.linalg.norm(p) / np.linalg.norm(r) * r
      np.testing.assert_allclose(ours["fc"][name], p, rtol=1e-5)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_large_batch_optimisers_decay_and_freeze(name):
  """Decay moves what has no gradient to speak of, of kernels alone; frozen groups stay."""
  config = constant_config(name=name, learning_rate=0.1, weight_decay=0.5, weight_decay_on="kernels")
  params = {"a": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "b": {"kernel": jnp.ones(2)}}
  tx = optim.make_optimizer(config, lambda step: 0.1, trainable=("a",))
  updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  assert (updates["a"]["kernel"] < 0).all() and (updates["a"]["bias"] == 0).all() and (updates["b"]["kernel"] == 0).all()
