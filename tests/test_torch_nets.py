"""The PyTorch networks of the benchmarks compute what ours do: logits, loss, gradients, two updates."""

import functools
import importlib.util

import jax
import numpy as np
import pytest

from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax import state as state_lib
from attr_jax import steps
from helpers import REPOSITORY

torch = pytest.importorskip("torch")
LABELS, SIZE, BATCH = 5, 64, 4
QUICK_COMPILE = {"xla_backend_optimization_level": 0}


def script(name):
  spec = importlib.util.spec_from_file_location(name, REPOSITORY / "benchmarks" / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope="module")
def nets():
  module = script("torch_nets")
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield module
  torch.set_num_threads(threads)


def make_config(name, **model):
  config = config_lib.default_config()
  config.model.name = name
  config.model.update(depth="tiny", **model)
  config.batch_size, config.input.size = BATCH, (SIZE, SIZE)
  config.optimizer.learning_rate, config.optimizer.weight_decay = 0.002, 0.05  # a decay that is seen
  return config


def make_batch():
  rng = np.random.default_rng(3)
  return {
      "image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
      "label": rng.integers(0, 2, (BATCH, LABELS)).astype(np.uint8),
      "known": rng.random((BATCH, LABELS)) < 0.7,
      "person_mask": rng.integers(0, 256, (BATCH, SIZE, SIZE), np.uint8),
      "id": np.arange(BATCH),
  }


def draw_variables(model):
  """(params, batch_stats) of random numbers, biases and scales too: zeros and ones would hide a mix-up."""
  images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), np.float32)
  shapes = jax.eval_shape(lambda images: model.init(jax.random.key(0), images, train=False), images)
  rng = np.random.default_rng(1)

  def draw(path, x):
    spread = 1 / np.sqrt(x.size / x.shape[-1]) if path[-1].key == "kernel" else 0.2
    middle = 1 if path[-1].key in ("scale", "var") else 0
    return (middle + spread * rng.standard_normal(x.shape)).astype(np.float32)

  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  return variables["params"], jax.tree.map(np.abs, variables["batch_stats"])


CASES = {
    "baseline": ({}, "Baseline"),
    "dahar": ({"fusion_channels": 8, "attention_channels": 12}, "DaHAR"),
}


def make_both(nets, name):
  """config, our model and its variables, the torch network with the same."""
  options, rival = CASES[name]
  config = make_config(name, **options)
  model = models.build(config.model, LABELS)
  params, batch_stats = draw_variables(model)
  net = nets.copy_variables(getattr(nets, rival)(LABELS, "tiny", **options), params, batch_stats)
  return config, model, params, batch_stats, net.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name, decay_on", [
    ("baseline", "kernels"), pytest.param("dahar", "all", marks=pytest.mark.slow)])
def test_loss_gradients_and_two_updates_are_ours(nets, name, decay_on):
  config, model, params, batch_stats, net = make_both(nets, name)
  batch = make_batch()
  config.optimizer.weight_decay_on = decay_on
  objective = functools.partial(models.MODELS[name].objective, positive_ratio=np.full(LABELS, 0.3, np.float32), unspecified="ignore")
  schedule = optim.make_schedule(config, 1000, 1000)
  tx = optim.make_optimizer(config, schedule)
  state = state_lib.TrainState(np.int32(0), params, batch_stats, tx.init(params), {})
  step = jax.jit(steps.make_train_step(model, objective, tx, schedule, config), compiler_options=QUICK_COMPILE)
  optimizer = nets.make_optimizer(net.train(), config.optimizer, foreach=True)
  theirs = nets.put_batch(batch, "cpu")
  start = {key: value.detach().clone() for key, value in net.named_parameters()}
  for tolerance in (1e-5, 5e-3):  # after an update ReLUs near zero flip by rounding
    optimizer.zero_grad(set_to_none=True)
    loss = nets.LOSSES[type(net)](net(theirs["image"]), theirs)
    loss.backward()
    optimizer.step()
    state, scalars = step(state, batch, jax.random.key(0))
    assert loss.item() == pytest.approx(float(scalars["loss"]), rel=tolerance)
    norm = torch.stack([p.grad.square().sum() for p in net.parameters()]).sum().sqrt().item()
    assert norm == pytest.approx(float(scalars["grad_norm"]), rel=tolerance)
  for key, value in nets.torch_names(state.params, net).items():
    value, found = torch.from_numpy(value.copy()), net.get_parameter(key).detach()
    moved = (found - start[key]).norm()
    assert moved > 0, key
    # Each tensor by the way it went: its size would hide a wrong gradient.
    assert (value - found).norm() <= 1e-2 * moved + 1e-6 * value.norm(), key


@pytest.mark.parametrize("name", CASES)
def test_logits_of_inference_are_ours(nets, name):
  config, model, params, batch_stats, net = make_both(nets, name)
  image = make_batch()["image"]
  step = jax.jit(steps.make_predict_step(model, config), compiler_options=QUICK_COMPILE)
  rows = step(params, batch_stats, {"image": image})
  with torch.inference_mode():
    logits = net.eval()(torch.from_numpy(image))["logits"]
  np.testing.assert_allclose(logits.numpy(), rows["logit"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", (18, 34, 50, 101))
def test_every_depth_has_our_tensors(nets, depth):
  model = models.build({"name": "dahar", "depth": depth}, 14)
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  shapes = jax.eval_shape(lambda images: model.init(jax.random.key(0), images, train=False), images)
  with torch.device("meta"):
    net = nets.DaHAR(14, depth)
  zeros = lambda tree: jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), tree)
  assert set(nets.torch_names(zeros(shapes["params"]), net)) == {key for key, _ in net.named_parameters()}
  assert set(nets.torch_names(zeros(shapes["batch_stats"]), net)) == {key for key, value in net.named_buffers() if "running" in key}
  if depth == 101:
    assert sum(p.numel() for p in net.parameters()) == 52_373_550  # our count, see attr_jax/models/dahar.py


def test_a_tensor_too_many_or_too_few_is_refused(nets):
  _, _, params, batch_stats, net = make_both(nets, "baseline")
  classifier = params["classifier"]
  with pytest.raises(ValueError, match="nothing for backbone"):
    nets.copy_variables(net, {"classifier": classifier}, batch_stats)
  with pytest.raises(ValueError, match="has no more"):
    nets.copy_variables(net, params | {"more": classifier}, batch_stats)
  with pytest.raises(ValueError, match="classifier.weight has shape"):
    nets.copy_variables(net, params | {"classifier": {**classifier, "kernel": classifier["kernel"].T}}, batch_stats)


def test_images_that_do_not_divide_are_refused(nets):
  with pytest.raises(ValueError, match="multiple of 32"):
    nets.resample(torch.zeros(1, 2, 25, 25), (14, 14))


def test_a_step_that_computes_something_else_is_refused(monkeypatch):
  monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
  train_step = script("train_step")
  rng = np.random.default_rng(0)
  reference = [np.float32(3)], {"a": rng.standard_normal((4, 5)), "b": rng.standard_normal(7)}
  same = train_step.differences(reference, reference)
  assert same == {"value": 0, "gradient": 0} and train_step.beyond(same, "float32") is None
  wrong = [np.float32(3.03)], {"a": reference[1]["a"] * 1.5, "b": reference[1]["b"]}
  difference = train_step.differences(wrong, reference)
  every = np.concatenate([reference[1][name].ravel() for name in "ab"])
  assert difference["value"] == pytest.approx(0.01, rel=1e-4)
  assert difference["gradient"] == pytest.approx(0.5 * np.linalg.norm(reference[1]["a"]) / np.linalg.norm(every))
  assert "allowed" in train_step.beyond(difference, "float32")
  assert train_step.beyond({"value": 1e-3, "gradient": 0.3}, "bfloat16") is None
  assert train_step.beyond({"value": 2e-2, "gradient": 0.0}, "bfloat16")


def test_a_flag_wins_only_beyond_chance():
  flags = script("xla_flags")
  row = lambda backend, wall, processor: {"machine": {"backend": backend}, "ratios": [wall, processor]}
  chance = row("cpu", [0.95, 1.0, 1.04], [0.99, 1.0, 1.01])
  assert flags.verdict(row("cpu", [1.1, 1.2, 1.0], [1.05, 1.1, 1.0]), chance) == "wins"
  assert flags.verdict(row("cpu", [1.1, 1.2, 1.0], [1.0, 1.0, 1.0]), chance) == ""  # others had left the cores
  assert flags.verdict(row("cpu", [0.9, 0.8, 1.0], [0.9, 0.9, 1.0]), chance) == "loses"
  assert flags.verdict(row("gpu", [1.1, 1.2, 1.0], [1.0, 1.0, 1.0]), chance) == "wins"
