"""Several trials that differ in numbers alone, trained together as one compiled program.

The numbers that differ (rates, weights, decays) are traced scalars: the step of `train.make_update` is built inside the traced
function from a config that holds them, and `jax.vmap` runs it over a first axis of trials in state, batch and key. That axis is
split over the devices by `shard_map`, so each device has trials of its own and nothing is sent between them. A trial is what
`train_and_evaluate` is on one device: batch norm sees the whole batch, whatever `config.batch_norm` says.

Validation, saving and the test at the end go trial by trial, on all devices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import logging
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from attr_jax import abstract
from attr_jax import checkpoint as checkpoint_lib
from attr_jax import config as config_lib
from attr_jax import device_cache
from attr_jax import evaluate
from attr_jax import models
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
from attr_jax import writers
from attr_jax.data import loader
from attr_jax.data import pipeline
from attr_jax.errors import InputError

# What may differ beside `seed` and the numbers of `loss`.
NUMBERS = ("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.momentum", "optimizer.clip_norm", "optimizer.ema_decay",
           "schedule.factor")

# GFLOP of a step of all trials on a device, by XLA's count, up to which `choose` packs. On a CPU (all its cores) as measured: what is
# larger loses, since a convolution with a kernel for each trial is slow there. On accelerators an estimate, about the work of the
# time that it takes to start a step's kernels; no accelerator was there to measure it. See docs/packed.md.
MOST_GFLOP = {"cpu": 2.0}
_MOST_GFLOP_ELSEWHERE = 100.0
# Of a device's free memory packed trials may need this much by `choose`'s bound.
_SHARE = 0.5

# Trials with a first axis, and the parameters that all of them share ({} for most), see `_shared`.
PackState = tuple[state_lib.TrainState, dict[str, Any]]


def can_pack(configs: Sequence[ml_collections.ConfigDict]) -> str:
  """Why these trials cannot be one program, or "".

  They may differ in `seed`, in NUMBERS and in the numbers of `loss`, as long as none is zero in one trial and not in another: zero
  is off, another program. Refused as well: parameters split over devices (`fsdp`), since each device has trials of its own, and
  the plateau schedule, which the host moves after each validation. `train_pack` also refuses several processes.
  """
  if configs[0].fsdp > 1:
    return f"config.fsdp={configs[0].fsdp}: parameters of a trial stay on one device"
  if configs[0].schedule.name == "plateau":
    return "config.schedule.name='plateau' changes the rate on the host, for each trial on its own"
  for key, values in _differing(configs).items():
    shown = f"config.{key} differs ({', '.join(repr(value) for value in dict.fromkeys(values))})"
    if key == "seed":
      continue
    if not (key in NUMBERS or key.startswith("loss.")) or not all(map(_is_number, values)):
      return f"{shown}: only seed, rates, decays and weights of losses may"
    if len(set(map(config_lib.is_off, values))) > 1:
      return f"{shown}: zero is off, which is another program"
  return ""


def _differing(configs: Sequence[ml_collections.ConfigDict]) -> dict[str, list[Any]]:
  """Dotted key -> the values of all trials, where they are not equal; None for a key that a config lacks."""
  flat = [config_lib.flatten(config) for config in configs]
  keys = dict.fromkeys(key for one in flat for key in one)
  columns = {key: [one.get(key) for one in flat] for key in keys}
  return {key: values for key, values in columns.items() if any(value != values[0] for value in values)}


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def choose(configs: Sequence[ml_collections.ConfigDict]) -> list[list[int]]:
  """What `--pack=auto` trains together.

  Trials that `can_pack` takes, as many as keep the step of a device small (MOST_GFLOP) and fit into memory: a trial is taken to need
  its state twice and all that the operations of its step read and write, which is more than it ever holds. With several processes
  nothing is packed. Nothing is read or compiled, but this process starts its devices.

  Args:
    configs: of the trials.

  Returns:
    Numbers of configs that train together, and those that train on their own as lists of one; each once.

  Raises:
    InputError: as `abstract.train_step`: a data set of which nothing is published.
  """
  alike: list[list[int]] = []
  for number, config in enumerate(configs):
    group = next((group for group in alike if not can_pack([configs[group[0]], config])), None)
    if group is None:
      alike.append([number])
    else:
      group.append(number)
  chosen = []
  for group in alike:
    most = _most_trials(configs[group[0]]) if len(group) > 1 and jax.process_count() == 1 else 1
    parts = -(-len(group) // most)
    chosen += [part.tolist() for part in np.array_split(group, parts)]
  return chosen


def _most_trials(config: ml_collections.ConfigDict) -> int:
  """How many trials may train together by their work and their memory; 1: each on its own."""
  mesh = sharding.make_mesh(jax.devices()[:1])
  step, (state, batch, key) = abstract.train_step(config, mesh)
  costs = step.lower(state, batch, key).cost_analysis()
  need = 2 * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) + costs["bytes accessed"]
  everywhere, backend = sharding.make_mesh(), jax.default_backend()
  devices = 1 if backend == "cpu" else everywhere.size  # those of a CPU share its cores
  by_work = devices * int(1e9 * MOST_GFLOP.get(backend, _MOST_GFLOP_ELSEWHERE) / costs["flops"])
  by_memory = everywhere.size * int(1e9 * _SHARE * device_cache.free_gigabytes(everywhere) / need)
  return max(1, min(by_work, by_memory))


def train_pack(configs: Sequence[ml_collections.ConfigDict], workdirs: Sequence[pathlib.Path], *,
               quiet: bool = False) -> list[dict[str, Any]]:
  """Trains trials together; each folder then holds what `train_and_evaluate` leaves there.

  The same call goes on after a cut, all trials from the newest step of which every one has a checkpoint. Finished trials are left
  alone. One whose loss or gradient is not finite is named in a file FAILED in its folder and left out from then on, also by the
  same call later; its last checkpoint stays. The others do not notice.

  Args:
    configs: of the trials; `can_pack` says which go together.
    workdirs: their folders, made where they are missing.
    quiet: print nothing.

  Returns:
    The report of each trial as of `train_and_evaluate`, or {"failed": why}.

  Raises:
    InputError: trials that cannot be packed, several processes, or what `train_and_evaluate` refuses.
    train.Preempted: SIGTERM came; the states are saved.
    checkpoint.SaveError: a checkpoint could not be written.
  """
  for config in configs:
    config_lib.check(config)
  workdirs = [pathlib.Path(workdir) for workdir in workdirs]
  if not configs or len(configs) != len(workdirs) or len(set(workdirs)) < len(workdirs):
    raise InputError(f"{len(configs)} trials need as many folders of their own, got {len(set(workdirs))}")
  if reason := can_pack(configs):
    raise InputError(f"these trials cannot train together: {reason}")
  if jax.process_count() > 1:
    raise InputError(f"trials train together on one host, this run has {jax.process_count()} processes; train them one by one")
  trials = [_Trial(config, workdir) for config, workdir in zip(configs, workdirs) if not _has_ended(workdir)]
  if trials:
    _train(trials, quiet)
  return [_report(config, workdir) for config, workdir in zip(configs, workdirs)]


@dataclasses.dataclass
class _Trial:
  """One trial: its config and folder, its open checkpoints and metrics while it trains, and whether it still does."""

  config: ml_collections.ConfigDict
  workdir: pathlib.Path
  checkpoints: checkpoint_lib.Checkpoints | None = None
  writer: writers.MultiWriter | None = None
  failed: bool = False


def _has_ended(workdir: pathlib.Path) -> bool:
  return (workdir / "DONE").exists() or (workdir / "FAILED").exists()


def _report(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
  if (workdir / "FAILED").exists():
    return {"failed": (workdir / "FAILED").read_text().strip()}
  return run_folder.read_report(workdir, f"{config.data.test_split}-{config.evaluate.views}")


def _train(trials: Sequence[_Trial], quiet: bool) -> None:
  """Trains, validates, saves and tests trials that have not ended."""
  preemption = train.Preemption()  # from here on SIGTERM waits for the end of a step
  config, everywhere = trials[0].config, sharding.make_mesh()
  sharding.check_batch("config.evaluate.batch_size", config.evaluate.batch_size, everywhere)
  data = train.open_data(config, quiet)
  data_ready = time.perf_counter()
  plan = train.make_plan(config, data)
  for trial in trials:
    run_folder.write_start(trial.config, data.info, trial.workdir)

  model = models.build(config.model, len(data.info.label_names), config.compute_dtype)
  train.check_model(config, model, train.make_objective(config, data.info))
  tx, _ = train.make_update(config, model, data, None)
  for trial in trials:
    # The two newest: while some trials have written a step and others have not, the one before is there in all of them.
    trial.checkpoints = checkpoint_lib.Checkpoints(trial.workdir / "checkpoints", newest=2)
  start, states = _start(trials, model, tx, data, everywhere)
  for trial, state in zip(trials, states):
    run_folder.write_parameters(trial.workdir, state.params, state.batch_stats)
  mesh, order = place(len(trials), everywhere.devices.flat)
  train.say(quiet, run_folder.run_header(config, model, states[0], everywhere, data.info, plan.total, start or None,
                                         evaluate.one(data.train, evaluate.input_spec(config), config.input.size)))
  train.say(quiet, _header(trials, mesh))

  configs = [trial.config for trial in trials]
  step = make_packed_step(configs, model, data)
  train_step, several_steps = (compile_packed_step(step, mesh, several=several) for several in (False, True))
  predict = steps.compile_predict_step(steps.make_predict_step(model, config), everywhere)
  state, rng = put(stack(states, models.trainable_groups(config.model.name, config.loss)), numbers_of(configs), order, mesh)
  del states
  batches, sources = _batches([configs[i] for i in order], data, mesh, start, quiet)
  progress = writers.Progress(plan.total, start, quiet)
  for trial in trials:
    trial.writer = train.make_writer(trial.config, trial.workdir, start)
  logs = [train.StepLog(trial.writer, progress, trial.config, len(data.train), plan.total) for trial in trials]
  log = train.LateScalars([_stop_at_failure(trial, log.note, progress) for trial, log in zip(trials, logs)])

  def after(step: int, count: int, state: PackState, scalars: dict[str, jax.Array]) -> PackState:
    if step - count == start:
      for trial in trials:
        trial.writer.write_scalars(start + 1, {"seconds_to_first_step": time.perf_counter() - data_ready})
    log.add(step, scalars, count)
    progress.step(count)
    stop = preemption.reached(step)
    evaluates = not stop and plan.evaluates(step)
    if stop or evaluates or plan.saves(step):
      log.finish()  # a state after a NaN must not be saved
      _save(trials, step, state, evaluates, predict, data, everywhere, progress)
    if stop:
      _wait(trials)
      raise train.preempted(step)
    if all(trial.failed for trial in trials):
      raise _AllFailed
    return state

  resources = [*(trial.writer for trial in trials), *(trial.checkpoints for trial in trials)]
  try:
    with contextlib.suppress(_AllFailed):
      train.run_steps(plan, start, state, batches, rng, train_step, several_steps, after)
      _wait(trials)
      compiled = train_step._cache_size() + several_steps._cache_size()
      for trial in trials:
        if not trial.failed:
          trial.writer.write_scalars(plan.total, {"compiled_train_steps": compiled})
    for trial in trials:
      _keep_newest_and_best(trial.checkpoints)
  finally:
    train.close(batches, *sources, progress, *resources, preemption)
  for trial in trials:
    if not trial.failed:
      train.finish(trial.config, data.info, trial.workdir, plan.total, quiet)


class _AllFailed(Exception):
  """No trial is left."""


def _stop_at_failure(trial: _Trial, note: Callable[[int, dict[str, float]], None],
                     progress: writers.Progress) -> Callable[[int, dict[str, float]], None]:
  """`note`, until a value is not finite: then the trial's file FAILED is written and nothing more is noted."""
  def noted(step: int, values: dict[str, float]) -> None:
    if trial.failed:
      return
    try:
      note(step, values)
    except train.NonFiniteError as error:
      trial.failed = True
      writers.write_whole(trial.workdir / "FAILED", f"{error}\n")
      progress.write(f"{trial.workdir}: {error}; the other trials go on")

  return noted


def _header(trials: Sequence[_Trial], mesh: jax.sharding.Mesh) -> str:
  """How the trials differ, and where they are."""
  lines = [f"pack       {len(trials)} trials on {mesh.size} devices, BN over the whole batch of each"]
  differing = _differing([trial.config for trial in trials])
  return "\n".join([*lines, *(f"           {key}: {', '.join(map(str, values))}" for key, values in differing.items())])


def _start(trials: Sequence[_Trial], model: Any, tx: Any, data: train.Data,
           mesh: jax.sharding.Mesh) -> tuple[int, list[state_lib.TrainState]]:
  """(step, a state on the host for each trial): the newest step that all have, else where a run begins."""
  config, shape = trials[0].config, (*trials[0].config.input.size, 3)
  memory = models.initial_memory(config.model.name, len(data.train), len(data.info.label_names))
  there = [set(trial.checkpoints.steps()) for trial in trials]
  abstract = state_lib.abstract_state(model, tx, shape, memory, mesh)
  error = None
  for step in sorted(set.intersection(*there), reverse=True):
    try:
      states = [sharding.to_host(trial.checkpoints.restore(step, abstract)) for trial in trials]
    except InputError as found:
      logging.warning("%s; the trials go on from the step before it", found)
      error = error or found
      continue
    for trial, steps_there in zip(trials, there):
      trial.checkpoints.remove([later for later in steps_there if later > step])
    return step, states
  if error:
    raise InputError(f"no step can be restored in all trials: {error}")
  if len(set.union(*there)) > 1:  # one alone: cut while the first checkpoints were written
    found = ", ".join(f"{trial.workdir}: {sorted(steps_there)}" for trial, steps_there in zip(trials, there))
    raise InputError(f"the trials have checkpoints, but of no step that all of them have ({found}); train them one by one")
  init = state_lib.make_init(model, tx, shape, memory, mesh)
  for trial, steps_there in zip(trials, there):
    trial.checkpoints.remove(sorted(steps_there))
  return 0, [sharding.to_host(train.starting_state(trial.config, init, tx, mesh)) for trial in trials]


def _save(trials: Sequence[_Trial], step: int, state: PackState, evaluates: bool, predict: Any, data: train.Data,
          mesh: jax.sharding.Mesh, progress: writers.Progress) -> None:
  """Validates where it is time, and starts writing a checkpoint, for each trial that has not failed."""
  _wait(trials)  # see the two newest checkpoints in `_train`
  on_host = jax.device_get(state)
  for number, trial in enumerate(trials):
    if trial.failed:
      continue
    one = jax.device_put(unstack(on_host, number), sharding.replicated(mesh), may_alias=False)
    selected = train.validate(trial.config, one, predict, data, mesh, trial.writer, progress, step)[0] if evaluates else None
    trial.writer.flush()
    trial.checkpoints.save(step, one, selected)


def _keep_newest_and_best(checkpoints: checkpoint_lib.Checkpoints) -> None:
  """What a run on its own keeps."""
  checkpoints.wait()
  kept = {*checkpoints.steps()[-1:], checkpoints.best_step()}
  checkpoints.remove([step for step in checkpoints.steps() if step not in kept])


def _wait(trials: Sequence[_Trial]) -> None:
  for trial in trials:
    trial.checkpoints.wait()


def place(count: int, devices: Sequence[jax.Device]) -> tuple[jax.sharding.Mesh, list[int]]:
  """(mesh, which trial is at each place): as many trials on each device, on as few devices as take no longer.

  Where the number of trials (`count`) does not divide, the last one is computed more than once and the copies are not looked at.
  """
  devices = list(devices)
  each = -(-count // len(devices))
  used = -(-count // each)
  return sharding.make_mesh(devices[:used]), [min(number, count - 1) for number in range(each * used)]


def numbers_of(configs: Sequence[ml_collections.ConfigDict]) -> tuple[list[int], dict[str, np.ndarray]]:
  """(seed of each trial, dotted key -> float32 [T] for the other numbers that differ)."""
  differing = {key: np.array(values, np.float32) for key, values in _differing(configs).items() if key != "seed"}
  return [config.seed for config in configs], differing


def stack(states: Sequence[state_lib.TrainState], trainable: Sequence[str] | None = None) -> PackState:
  """States on the host as one with a first axis of trials, and what the trials share.

  Groups of parameters that no trial changes (`trainable`, see `models.trainable_groups`) and that are equal in all trials, as a
  frozen backbone from `config.weights` is, are there once: a convolution with one kernel takes the images of all trials as one
  batch, one with a kernel for each trial is slower.

  Args:
    states: T states, numpy arrays of any shape [...].
    trainable: top-level parameter groups that change; None: all.

  Returns:
    (state of arrays [T, ...], top-level group -> its arrays [...], which the state then lacks).
  """
  frozen = [] if trainable is None else [name for name in states[0].params if name not in trainable]
  equal = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
  shared = {name: states[0].params[name] for name in frozen if all(equal(states[0].params[name], s.params[name]) for s in states[1:])}
  own = [state.replace(params={name: group for name, group in state.params.items() if name not in shared}) for state in states]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *own), shared


def unstack(state: PackState, number: int) -> state_lib.TrainState:
  """Trial `number`, from 0, of a state on the host, as `train_and_evaluate` has it."""
  own, shared = state
  one = jax.tree.map(lambda leaf: leaf[number], own)
  return one.replace(params=one.params | shared)


def put(state: PackState, numbers: tuple[Sequence[int], dict[str, np.ndarray]], order: Sequence[int],
        mesh: jax.sharding.Mesh) -> tuple[PackState, tuple[jax.Array, dict[str, jax.Array]]]:
  """State and (keys, numbers) on the devices of `place`, what a packed step takes beside batches.

  Args:
    state: of `stack`, T trials.
    numbers: of `numbers_of`.
    order: of `place`: which trial is at each of P places.
    mesh: of `place`.

  Returns:
    (state with first axis P, (random keys [P], dotted key -> float32 [P])).
  """
  over, whole = sharding.over_batch(mesh), sharding.replicated(mesh)
  (own, shared), (seeds, values) = state, numbers
  own, values = jax.tree.map(lambda leaf: leaf[np.array(order)], (own, values))
  keys = jnp.stack([jax.random.key(seeds[number]) for number in order])
  # The state is donated, so its memory must be its own.
  put_state = jax.device_put(own, over, may_alias=False), jax.device_put(shared, whole, may_alias=False)
  return put_state, (jax.device_put(keys, over), jax.device_put(values, over))


def make_packed_step(configs: Sequence[ml_collections.ConfigDict], model: Any, data: train.Data) -> steps.TrainStep:
  """Builds `step(state, batch, (keys, numbers)) -> (state, scalars)` for trials that `can_pack` takes.

  Args:
    configs: of the trials, for what they have in common and what differs; the numbers themselves are arguments of the step.
    model: Linen module.
    data: for the objective's weights and the schedule's lengths.

  Returns:
    The pure step of `steps.make_train_step`, with a first axis of trials in all but what is shared.
  """
  common = configs[0]

  def step(state: PackState, batch: steps.Batch, rng: tuple[jax.Array, Mapping[str, jax.Array]]) -> tuple[PackState, dict[str, jax.Array]]:
    own, shared = state

    def one(trial: state_lib.TrainState, batch: steps.Batch, key: jax.Array, numbers: Mapping[str, jax.Array]) -> Any:
      _, update = train.make_update(_with_numbers(common, numbers), model, data, None)
      new, scalars = update(trial.replace(params=trial.params | shared), batch, key)
      return new.replace(params={name: new.params[name] for name in trial.params}), scalars

    own, scalars = jax.vmap(one)(own, batch, *rng)
    return (own, shared), scalars

  return step


def _with_numbers(config: ml_collections.ConfigDict, numbers: Mapping[str, jax.Array]) -> ml_collections.ConfigDict:
  """The config with traced numbers in it."""
  config = config.copy_and_resolve_references()
  with config.ignore_type():
    config_lib.override(config, numbers)
  return config


def compile_packed_step(step: steps.TrainStep, mesh: jax.sharding.Mesh, *, several: bool = False) -> steps.TrainStep:
  """The step under jit, or with `several` that of `steps.make_several_steps`: trials split over the mesh, state donated."""
  step = steps.make_several_steps(step) if several else step
  over, whole = sharding.over_batch(mesh).spec, jax.P()
  scalars = jax.P(None, *over) if several else over  # behind the axis of steps
  takes, gives = ((over, whole), over, over), ((over, whole), scalars)
  # Devices share constants alone, so there is nothing for jax to check.
  split = jax.shard_map(step, mesh=mesh, in_specs=takes, out_specs=gives, check_vma=False)
  placed = lambda specs: jax.tree.map(lambda spec: jax.NamedSharding(mesh, spec), specs, is_leaf=lambda x: isinstance(x, jax.P))
  return jax.jit(split, donate_argnums=0, in_shardings=placed(takes), out_shardings=placed(gives))


def _batches(configs: Sequence[ml_collections.ConfigDict], data: train.Data, mesh: jax.sharding.Mesh, start: int,
             quiet: bool) -> tuple[Iterator[steps.Batch], list[Any]]:
  """(batches of all places on the devices, [places, B, ...], what must be closed after them).

  Each trial gets the batches of its own seed; trials of one seed have the same, which are read once.
  """
  config, count = configs[0], len(configs)
  spec, over = evaluate.input_spec(config, data.info), sharding.over_batch(mesh)
  by_seed = {one.seed: one for one in configs}
  samples = device_cache.fill(data.train, spec, config, mesh, second=data.second, quiet=quiet)
  if samples is not None:
    drawn = {seed: device_cache.draw_views(len(data.train), spec, one, start) for seed, one in by_seed.items()}
    joined = ({key: value.reshape(-1, *value.shape[2:]) for key, value in batch.items()} for batch in _stacked(drawn, configs))
    apart = jax.jit(lambda batch: jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch), out_shardings=over)
    cut = device_cache.cut_batches(samples, device_cache.compile_view(spec, mesh), mesh, joined)
    return (apart(batch) for batch in cut), list(drawn.values())
  threads = -(-config.input.threads // len(by_seed))
  read = {
      seed: pipeline.train_iterator(
          pipeline.train_dataset(data.train, spec, batch_size=config.batch_size, seed=seed, second=data.second), start, threads)
      for seed in by_seed
  }
  stacked = _stacked(read, configs)
  return loader.read_ahead(sharding.put_batch(train.without_extras(batch), over) for batch in stacked), list(read.values())


def _stacked(by_seed: Mapping[int, Iterator[Mapping[str, np.ndarray]]],
             configs: Sequence[ml_collections.ConfigDict]) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches [places, B, ...]."""
  while True:
    batches = {seed: next(batches) for seed, batches in by_seed.items()}
    yield {key: np.stack([batches[config.seed][key] for config in configs]) for key in next(iter(batches.values()))}
