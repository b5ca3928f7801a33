"""Trials that train together against the same trials on their own."""

import re

import jax
import numpy as np
import pytest

from attr_jax import checkpoint as checkpoint_lib
from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import device_cache
from attr_jax import evaluate
from attr_jax import hlo
from attr_jax import models
from attr_jax import packed
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
from attr_jax import writers
from attr_jax.data import pipeline
from attr_jax.errors import InputError

from helpers import REPOSITORY
from helpers import load


def changed(config, **overrides):
  config = config.copy_and_resolve_references()
  config_lib.override(config, overrides)
  return config


def losses(workdir):
  return [line["loss"] for line in writers.read_jsonl(workdir / "metrics.jsonl") if "loss" in line]


def params_of(workdir):
  return sharding.to_host(evaluate.load_run(workdir, sharding.make_mesh(), "last").params)


def assert_close(a, b):
  """Within 1e-4 of the size of each array."""
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * max(1e-3, np.abs(x).max())), a, b)


def assert_same_state(a, b):
  """All but the optimiser's part: where a gradient is zero but for rounding (a bias before a softmax), so are its moments."""
  for name in ("step", "params", "batch_stats", "memory"):
    assert_close(getattr(a, name), getattr(b, name))


def assert_identical(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


class Pack:
  """Trials ready to train: their states on the host, the packed step's arguments, and what is needed to train each on its own."""

  def __init__(self, configs, devices, weights_of_first=False):
    common = configs[0]
    self.configs, self.data = configs, train.open_data(common, quiet=True)
    self.model = models.build(common.model, len(self.data.info.label_names), common.compute_dtype)
    self.memory = models.initial_memory(common.model.name, len(self.data.train), len(self.data.info.label_names))
    self.trainable = models.trainable_groups(common.model.name, common.loss)
    tx, _ = train.make_update(common, self.model, self.data, None)
    init = state_lib.make_init(self.model, tx, (*common.input.size, 3), self.memory, sharding.make_mesh(jax.devices()[:1]))
    self.states = [sharding.to_host(init(common.seed if weights_of_first else config.seed)) for config in configs]
    self.mesh, self.order = packed.place(len(configs), jax.devices()[:devices])
    self.step = packed.make_packed_step(configs, self.model, self.data)

  def inputs(self):
    return packed.put(packed.stack(self.states, self.trainable), packed.numbers_of(self.configs), self.order, self.mesh)

  def batches(self):
    return packed._batches([self.configs[i] for i in self.order], self.data, self.mesh, 0, quiet=True)

  def alone(self, number, count):
    """(losses, final state) of a trial on its own on one device: numbers are constants, batches those of its seed."""
    config, state, found = self.configs[number], self.states[number], []
    _, update = train.make_update(config, self.model, self.data, None)
    update = jax.jit(update)
    dataset = pipeline.train_dataset(self.data.train, evaluate.input_spec(config, self.data.info), batch_size=config.batch_size,
                                     seed=config.seed, second=self.data.second)
    where = sharding.over_batch(sharding.make_mesh(jax.devices()[:1]))
    for step in range(count):
      state, scalars = update(state, sharding.put_batch(train.without_extras(dataset[step]), where), jax.random.key(config.seed))
      found.append(float(scalars["loss"]))
    return found, sharding.to_host(state)

  def together(self, count):
    """(losses [count, T], final state on the host)."""
    program, found = packed.compile_packed_step(self.step, self.mesh), []
    state, rng = self.inputs()
    batches, sources = self.batches()
    for _ in range(count):
      state, scalars = program(state, next(batches), rng)
      found.append(np.asarray(scalars["loss"])[:len(self.configs)])
    assert program._cache_size() == 1
    train.close(batches, *sources)
    return np.array(found), jax.device_get(state)


SGD = {"optimizer.name": "sgd", "optimizer.clip_norm": 0.0, "schedule.name": "step", "schedule.at_epochs": (0.1,),
       "schedule.warmup_epochs": 0.0}
FIRST = {"seed": 3, "optimizer.learning_rate": 1e-4}
CASES = {
    "baseline": ("quickstart.py:tiny", {}, {
        **FIRST, "optimizer.weight_decay": 3e-4, "optimizer.clip_norm": 2.0, "optimizer.ema_decay": 0.9}),  # adam
    "dahar": ("dahar.py:tiny", SGD, {**FIRST, "optimizer.momentum": 0.5, "schedule.factor": 0.5, "loss.mask_weight": 0.3}),
    "vac": ("vac.py:tiny", SGD, {**FIRST, "loss.flip_weight": 0.3}),
}
SLOW_CASES = {
    "diaa": ("diaa.py:tiny", SGD, {**FIRST, "loss.gamma": 2.0}),
    "srn": ("srn.py:tiny", SGD | {"optimizer.nesterov": True}, {**FIRST, "optimizer.momentum": 0.5}),
    "lars": ("quickstart.py:tiny", {"optimizer.name": "lars"}, {**FIRST, "optimizer.weight_decay": 3e-4, "optimizer.momentum": 0.5}),
    "lamb": ("quickstart.py:tiny", {"optimizer.name": "lamb", "accumulate_steps": 2}, {**FIRST, "optimizer.weight_decay": 3e-4}),
    "adagrad": ("quickstart.py:tiny", {"optimizer.name": "adagrad", "batch_norm.scope": "local"}, FIRST),
}


def make_pack(case, world_dir, devices, **options):
  name, common, other = (CASES | SLOW_CASES)[case]
  config = load(name, world_dir, **{"optimizer.learning_rate": 2e-4, "schedule.warmup_epochs": 0.0} | common)
  if case == "baseline":
    config.optimizer.clip_norm, config.optimizer.ema_decay = 1.0, 0.99
  return Pack([config, changed(config, **other)], devices, **options)


@pytest.mark.parametrize("case, devices", [
    ("baseline", 1), ("dahar", 1), ("vac", 2), *(pytest.param(case, 1, marks=pytest.mark.slow) for case in SLOW_CASES)])
def test_packed_steps_are_those_of_separate_runs(case, devices, world_dir):
  pack, count = make_pack(case, world_dir, devices), 3
  found, state = pack.together(count)
  for number in (0, 1) if case == "baseline" else (1,):
    expected, alone = pack.alone(number, count)
    np.testing.assert_allclose(found[:, number], expected, rtol=1e-4)
    assert_same_state(alone, packed.unstack(state, number))
  assert np.abs(found[:, 0] - found[:, 1]).min() > 1e-3  # the trials do differ


@pytest.mark.slow
@pytest.mark.parametrize("name, key", [("diaa.py:stage=heads,tiny", "loss.gamma"), ("srn.py:stage=att,tiny", "optimizer.weight_decay")])
def test_a_frozen_backbone_is_there_once(name, key, world_dir):
  config = load(name, world_dir, **{"optimizer.learning_rate": 2e-4, "schedule.warmup_epochs": 0.0})
  pack = Pack([config, changed(config, **FIRST, **{key: 2e-3})], 1, weights_of_first=True)
  own, shared = packed.stack(pack.states, pack.trainable)
  assert "backbone" in shared and "backbone" not in own.params
  assert not packed.stack(Pack(pack.configs, 1).states, pack.trainable)[1]  # of other seeds: not equal
  found, state = pack.together(3)
  for number in range(2):
    expected, alone = pack.alone(number, 3)
    np.testing.assert_allclose(found[:, number], expected, rtol=1e-4)
    assert_same_state(alone, packed.unstack(state, number))
    assert_identical(alone.params["backbone"], pack.states[0].params["backbone"])


def test_nothing_is_sent_between_devices(config):
  pack = Pack([changed(config, seed=seed) for seed in range(6)], 4)
  assert pack.mesh.size == 3 and pack.order == [0, 1, 2, 3, 4, 5]  # two on each of three devices
  state, rng = pack.inputs()
  batches, sources = pack.batches()
  compiled = packed.compile_packed_step(pack.step, pack.mesh).lower(state, next(batches), rng).compile()
  train.close(batches, *sources)
  operations = {one.operation for one in hlo.instructions(compiled.as_text())}
  assert "fusion" in operations and not [name for name in operations if name.startswith(hlo.COLLECTIVES)]


@pytest.mark.parametrize("count, devices, used, order", [
    (3, 1, 1, [0, 1, 2]), (1, 4, 1, [0]), (4, 4, 4, [0, 1, 2, 3]), (5, 4, 3, [0, 1, 2, 3, 4, 4]), (6, 4, 3, [0, 1, 2, 3, 4, 5])])
def test_places(count, devices, used, order):
  mesh, found = packed.place(count, jax.devices()[:devices])
  assert mesh.size == used and found == order


def test_batches_of_the_cache_are_those_of_each_seed(config):
  """On two devices with three trials, one of them twice, and two of the same seed."""
  config.data.cache = "device"
  pack = Pack([changed(config, seed=seed, **{"optimizer.learning_rate": rate}) for seed, rate in ((0, 1.0), (5, 1.0), (5, 2.0))], 2)
  assert pack.order == [0, 1, 2, 2]
  batches, sources = pack.batches()
  found = [jax.device_get(next(batches)) for _ in range(2)]
  train.close(batches, *sources)
  one = sharding.make_mesh(jax.devices()[:1])
  for place, seed in enumerate((0, 5, 5, 5)):
    alone = device_cache.train_iterator(pack.data.train, evaluate.input_spec(config), changed(config, seed=seed), one, quiet=True)
    for batch in found:
      assert_identical({key: value[place] for key, value in batch.items()}, jax.device_get(next(alone)))


def plain(config, **overrides):
  """Without validation and test, a checkpoint after every second of 6 steps; the rate changes after the second."""
  return changed(config, **{"data.val_split": "", "data.test_split": "", "total_steps": 6, "checkpoint.every_steps": 2,
                            "schedule.name": "step", "schedule.at_epochs": (0.27,), "schedule.warmup_epochs": 0.0,
                            "optimizer.learning_rate": 2e-4} | overrides)


@pytest.fixture(scope="module")
def whole(world_dir, tmp_path_factory):
  """(config, folder) of two trials trained without a cut."""
  folder, config = tmp_path_factory.mktemp("whole"), plain(load("quickstart.py:tiny", world_dir), log_every_steps=1)
  configs = [config, changed(config, **FIRST)]
  assert packed.train_pack(configs, [folder / "0", folder / "1"], quiet=True) == [{}, {}]
  return configs, folder


def test_resume_equals_an_uninterrupted_pack(whole, tmp_path, monkeypatch):
  configs, folder = whole
  workdirs = [tmp_path / "0", tmp_path / "1"]
  steps_of = lambda place: checkpoint_lib.Checkpoints(tmp_path / place / "checkpoints").steps()
  with monkeypatch.context() as patch:
    patch.setattr(train.Preemption, "reached", lambda self, step: step == 5)
    with pytest.raises(train.Preempted, match="step 5"):
      packed.train_pack(configs, workdirs, quiet=True)
  assert steps_of("0") == steps_of("1") == [4, 5]
  checkpoint_lib.Checkpoints(tmp_path / "1" / "checkpoints").remove([5])  # as if killed before it was written
  packed.train_pack(configs, workdirs, quiet=True)
  for place in "01":
    assert steps_of(place) == [6]
    assert losses(tmp_path / place) == losses(folder / place)
    assert_identical(params_of(tmp_path / place), params_of(folder / place))


def test_a_trial_that_diverges_leaves_the_others(whole, tmp_path):
  configs, folder = whole
  configs = [configs[0], changed(configs[1], **{"schedule.factor": 1e30})]
  workdirs = [tmp_path / "0", tmp_path / "1"]
  good, bad = packed.train_pack(configs, workdirs, quiet=True)
  assert good == {} and bad["failed"].startswith("step 4 is not finite")
  assert (tmp_path / "0" / "DONE").exists() and not (tmp_path / "0" / "FAILED").exists()
  assert not (tmp_path / "1" / "DONE").exists() and len((tmp_path / "1" / "FAILED").read_text().splitlines()) == 1
  assert losses(tmp_path / "0") == losses(folder / "0")
  assert_identical(params_of(tmp_path / "0"), params_of(folder / "0"))
  assert losses(tmp_path / "1")[:3] == losses(folder / "1")[:3] and len(losses(tmp_path / "1")) == 3
  assert checkpoint_lib.Checkpoints(tmp_path / "1" / "checkpoints").steps() == [2]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params_of(tmp_path / "1")))
  before = (tmp_path / "1" / "metrics.jsonl").read_text()
  assert packed.train_pack(configs, workdirs, quiet=True) == [good, bad]  # all have ended: nothing happens
  assert (tmp_path / "1" / "metrics.jsonl").read_text() == before


def test_folders_hold_what_separate_runs_leave(config, tmp_path):
  """The separate run has four devices; with statistics of the whole batch it is the run on one."""
  config = changed(config, total_steps=4, **{"checkpoint.every_steps": 2, "batch_norm.scope": "global", "optimizer.learning_rate": 2e-4})
  reports = packed.train_pack([changed(config, seed=1), config], [tmp_path / "1", tmp_path / "0"], quiet=True)
  expected = train.train_and_evaluate(config, tmp_path / "alone", quiet=True)
  files = lambda name: sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*")
                              if len(path.relative_to(tmp_path / name).parts) < 3)
  assert files("0") == files("1") == files("alone")
  assert (tmp_path / "0" / "config.json").read_text() == (tmp_path / "alone" / "config.json").read_text()
  np.testing.assert_allclose(losses(tmp_path / "0"), losses(tmp_path / "alone"), rtol=1e-4)
  assert_close(params_of(tmp_path / "alone"), params_of(tmp_path / "0"))
  assert reports[1]["metrics"]["mAP"] == pytest.approx(expected["metrics"]["mAP"], rel=1e-4)
  assert reports[1].keys() == expected.keys() and reports[0]["metrics"]["mAP"] != reports[1]["metrics"]["mAP"]
  lines = [writers.read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("0", "alone")]
  assert [(line["step"], sorted(line)) for line in lines[0]] == [(line["step"], sorted(line)) for line in lines[1]]
  assert [line["compiled_train_steps"] for line in lines[0] if "compiled_train_steps" in line] == [1]


@pytest.mark.slow
def test_several_steps_per_dispatch_are_the_same_trials(whole, tmp_path):
  configs, folder = whole
  configs = [changed(config, steps_per_dispatch=2) for config in configs]
  packed.train_pack(configs, [tmp_path / "0", tmp_path / "1"], quiet=True)
  for place in "01":
    np.testing.assert_allclose(losses(tmp_path / place), losses(folder / place), rtol=1e-4)
    assert_close(params_of(folder / place), params_of(tmp_path / place))


@pytest.mark.slow
def test_a_grid_from_the_weights_of_a_run(whole, world_dir, tmp_path):
  """Heads on the backbone of an earlier run, in more trials than devices."""
  _, folder = whole
  first = plain(load("srn.py:stage=sr,tiny", world_dir), **{"weights": str(folder / "0"), "batch_norm.scope": "global"})
  configs = [changed(first, seed=seed, **{"optimizer.learning_rate": 1e-4 * (1 + seed)}) for seed in range(5)]
  packed.train_pack(configs, [tmp_path / str(seed) for seed in range(5)], quiet=True)
  train.train_and_evaluate(configs[4], tmp_path / "alone", quiet=True)
  assert_close(params_of(tmp_path / "alone"), params_of(tmp_path / "4"))
  assert_identical(params_of(tmp_path / "4")["backbone"], params_of(tmp_path / "0")["backbone"])


@pytest.mark.parametrize("overrides, reason", [
    ({"seed": 1, "optimizer.learning_rate": 0.5, "optimizer.weight_decay": 1.0, "optimizer.momentum": 0.1, "schedule.factor": 0.9}, ""),
    ({"loss.mask_weight": 0.5}, ""),
    ({"loss.mask_weight": 0.0}, r"config.loss.mask_weight differs \(1.0, 0.0\): zero is off"),
    ({"optimizer.ema_decay": 0.9}, r"config.optimizer.ema_decay differs \(0.0, 0.9\): zero is off"),
    ({"batch_size": 16}, r"config.batch_size differs \(8, 16\): only seed"),
    ({"optimizer.name": "adam"}, "config.optimizer.name differs"),
    ({"loss.loss": "mixed"}, "config.loss.loss differs"),
    ({"total_steps": 7}, "config.total_steps differs"),
    ({"data.partition": 1}, "config.data.partition differs"),
    ({"optimizer.learning_rate": float("nan")}, "config.optimizer.learning_rate differs"),
])
def test_reasons_not_to_pack(overrides, reason):
  config = cli.load_config(f"{REPOSITORY}/configs/dahar.py:tiny", [])
  found = packed.can_pack([config, config.copy_and_resolve_references(), changed(config, **overrides)])
  assert re.match(reason, found) if reason else found == "", found


@pytest.mark.parametrize("key, value", [("schedule.name", "plateau"), ("fsdp", 2)])
def test_what_is_never_packed(key, value):
  config = changed(cli.load_config(f"{REPOSITORY}/configs/dahar.py:tiny", []), **{key: value})
  assert str(value) in packed.can_pack([config, config])


def test_wrong_calls_are_named(config, tmp_path):
  with pytest.raises(InputError, match="2 trials need as many folders of their own, got 1"):
    packed.train_pack([config, config], [tmp_path / "a", tmp_path / "a"])
  with pytest.raises(InputError, match="cannot train together: config.batch_size differs"):
    packed.train_pack([config, changed(config, batch_size=16)], [tmp_path / "a", tmp_path / "b"])
  assert not list(tmp_path.iterdir())


def test_small_trials_are_packed_as_far_as_memory_goes(config, monkeypatch):
  rates = [changed(config, **{"optimizer.learning_rate": 1e-3 * (i + 1)}) for i in range(5)]
  large = [changed(config, **{"input.size": (224, 224)}), changed(config, seed=1, **{"input.size": (224, 224)})]
  configs = [rates[0], large[0], *rates[1:], large[1], changed(config, **{"optimizer.name": "sgd"})]
  assert packed.choose(configs) == [[0, 2, 3, 4, 5], [1], [6], [7]]
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(device_cache, "free_gigabytes", lambda mesh: 8.0)
  assert packed.choose(configs) == [[0, 2, 3, 4, 5], [1, 6], [7]]
  monkeypatch.setattr(device_cache, "free_gigabytes", lambda mesh: 0.4)  # on each of four; half of it is for one trial of 0.17
  assert packed.choose(rates) == [[0, 1, 2], [3, 4]]
  monkeypatch.setattr(packed, "_MOST_GFLOP_ELSEWHERE", 0.05)  # a step has 0.08
  assert packed.choose(rates) == [[0], [1], [2], [3], [4]]
