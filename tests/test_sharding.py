"""Parameters and optimiser state split over devices: the same losses, less memory, checkpoints that fit any layout."""

import dataclasses

import jax
import numpy as np
import pytest

from attr_jax import checkpoint as checkpoint_lib
from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
from attr_jax import writers
from attr_jax.errors import InputError

LABELS, SIZE, BATCH = 5, (16, 16), 16


def make(fsdp, **overrides):
  """(mesh, abstract state, fresh state, step) of the tiny baseline on all four devices."""
  config = config_lib.default_config()
  config.model.depth, config.input.size, config.fsdp = "tiny", SIZE, fsdp
  config.optimizer.learning_rate, config.schedule.name = 0.05, "constant"
  config.update_from_flattened_dict(overrides)
  mesh = sharding.make_mesh(fsdp=config.fsdp)
  model = models.build(config.model, LABELS)
  schedule = optim.make_schedule(config, 10, 100)
  tx = optim.make_optimizer(config, schedule)
  objective = lambda *given: models.MODELS["baseline"].objective(*given, positive_ratio=np.full(LABELS, 0.3, np.float32))
  abstract = state_lib.abstract_state(model, tx, (*SIZE, 3), {}, mesh)
  state = state_lib.create_state(model, tx, (*SIZE, 3), {}, mesh, seed=0)
  step = steps.make_train_step(model, objective, tx, schedule, config, mesh)
  return mesh, abstract, state, steps.compile_train_step(step, mesh, state_lib.layout(state, mesh))


def batch_of(seed):
  rng = np.random.default_rng(seed)
  return {"image": rng.integers(0, 256, (BATCH, *SIZE, 3), np.uint8), "label": rng.integers(0, 2, (BATCH, LABELS)).astype(np.uint8),
          "known": np.ones((BATCH, LABELS), bool), "id": np.arange(BATCH)}


def run(fsdp, count=4, **overrides):
  mesh, _, state, step = make(fsdp, **overrides)
  losses = []
  for i in range(count):
    state, scalars = step(state, sharding.put_batch(batch_of(i), sharding.over_batch(mesh)), jax.random.key(0))
    losses.append((float(scalars["loss"]), float(scalars["grad_norm"])))
  assert step._cache_size() == 1
  return np.array(losses), state


def kept_bytes(state):
  """On the fullest device, of parameters and optimiser state."""
  bytes_on = dict.fromkeys(jax.devices(), 0)
  for array in jax.tree.leaves((state.params, state.opt_state)):
    for shard in array.addressable_shards:
      bytes_on[shard.device] += shard.data.nbytes
  return max(bytes_on.values())


ADAM = {"optimizer.name": "adam", "optimizer.learning_rate": 0.001, "optimizer.ema_decay": 0.9, "optimizer.clip_norm": 1.0}


@pytest.mark.parametrize("overrides", [
    {"batch_norm.scope": "local"},
    pytest.param({"batch_norm.scope": "global", **ADAM}, marks=pytest.mark.slow),
    pytest.param({"batch_norm.scope": "group", "batch_norm.group_size": 2, "accumulate_steps": 2}, marks=pytest.mark.slow),
], ids=["local", "global", "group"])
def test_losses_are_the_same_and_less_is_kept(overrides):
  whole, state = run(1, **overrides)
  most = kept_bytes(state)
  for fsdp in (2, 4):
    parts, split = run(fsdp, **overrides)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, split.params)
    # All but the smallest arrays are split, before and after steps.
    assert kept_bytes(split) < 1.1 * most / fsdp
    assert jax.tree.map(lambda x: x.sharding, split) == state_lib.layout(split, sharding.make_mesh(fsdp=fsdp))


def test_a_fresh_state_has_the_same_values():
  jax.tree.map(np.testing.assert_array_equal, make(1)[2], make(4)[2])


def test_the_longest_axis_that_divides_is_split():
  mesh = sharding.make_mesh(fsdp=4)
  axes = lambda *shape: sharding.split(shape, mesh).spec
  assert axes(3, 3, 64, 128) == jax.P(None, None, None, "fsdp") and axes(2048, 14) == jax.P("fsdp")
  assert axes(9, 8, 1001) == jax.P(None, "fsdp")
  assert axes(1024) == axes(1001, 1001) == axes() == jax.P()  # small, nothing divides, a number
  assert sharding.split((2048, 14), sharding.make_mesh()).spec == jax.P()


@pytest.mark.slow
def test_checkpoints_fit_any_layout(tmp_path):
  states = {}
  for fsdp in (1, 2, 4):
    _, states[fsdp] = run(fsdp, count=2)
    checkpoints = checkpoint_lib.Checkpoints(tmp_path / str(fsdp))
    checkpoints.save(2, states[fsdp], None)
    checkpoints.close()
  for saved, wanted in ((1, 4), (4, 1), (2, 4), (4, 2)):
    _, abstract, _, step = make(wanted)
    checkpoints = checkpoint_lib.Checkpoints(tmp_path / str(saved))
    restored = checkpoints.restore_newest(abstract)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, restored, states[saved])
    assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, abstract)


@dataclasses.dataclass(frozen=True)
class Chip:
  """What a mesh looks at of a device of another host."""

  id: int
  process_index: int


@pytest.mark.parametrize("fsdp", [1, 2])
def test_rows_of_a_process_lie_together(fsdp):
  """Whatever the order of the devices: each process fills the rows of a batch that are its own by number."""
  chips = [Chip(number, process) for number, process in enumerate((0, 1, 0, 1, 2, 3, 2, 3))]
  mesh = sharding.make_mesh(chips, fsdp)
  assert [chip.process_index for chip in mesh.devices.flat] == [0, 0, 1, 1, 2, 2, 3, 3]
  assert mesh.devices.shape == ((8,) if fsdp == 1 else (4, 2))


def test_what_does_not_divide_is_refused():
  with pytest.raises(InputError, match="config.fsdp=3 does not divide 4 devices"):
    sharding.make_mesh(fsdp=3)
  with pytest.raises(InputError, match="config.batch_size=6 does not divide over 4 devices; use a multiple of 4"):
    sharding.check_batch("config.batch_size", 6, sharding.make_mesh(fsdp=2))
  config = config_lib.default_config()
  config.fsdp = 0
  with pytest.raises(InputError, match="config.fsdp=0 must be at least 1"):
    config_lib.check(config)


@pytest.mark.slow
def test_the_loop_runs_split_from_weights_and_from_the_cache(config, tmp_path):
  """A run, one that starts from it, and one that keeps its images on the devices, each with and without "fsdp"."""
  config.total_steps, config.data.test_split, config.batch_norm.scope = 3, "", "global"
  for fsdp in (1, 2):
    config.fsdp, config.weights, config.data.cache = fsdp, "", ""
    train.train_and_evaluate(config, tmp_path / f"first{fsdp}", quiet=True)
    config.weights, config.data.cache = str(tmp_path / "first1"), "device"
    train.train_and_evaluate(config, tmp_path / f"second{fsdp}", quiet=True)
  for name in ("first", "second"):
    lines = [writers.read_jsonl(tmp_path / f"{name}{fsdp}" / "metrics.jsonl") for fsdp in (1, 2)]
    for key in ("loss", "val/mAP"):
      one, two = ([line[key] for line in found if key in line] for found in lines)
      assert one
      np.testing.assert_allclose(two, one, rtol=1e-5)
