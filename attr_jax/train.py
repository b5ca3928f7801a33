"""`train_and_evaluate(config, workdir)`: the loop, and what a run writes around it."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import datetime
import functools
import inspect
import itertools
import math
import pathlib
import signal
import sys
import time
from typing import Any

from flax import traverse_util
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from attr_jax import checkpoint as checkpoint_lib
from attr_jax import config as config_lib
from attr_jax import device_cache
from attr_jax import evaluate
from attr_jax import models
from attr_jax import optim
from attr_jax import pictures
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import weights
from attr_jax import writers
from attr_jax.data import info as info_lib
from attr_jax.data import loader
from attr_jax.data import pipeline
from attr_jax.errors import InputError


class NonFiniteError(Exception):
  """The loss or the gradient is NaN or Inf; the last good checkpoint is kept."""


class Preempted(Exception):
  """The run was told to stop (SIGTERM); its state is saved."""


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path, *, quiet: bool = False) -> dict[str, Any]:
  """Trains, validates, saves, and at the end tests; resumes what `workdir` holds.

  Args:
    config: what `attr_jax.config.default_config` describes.
    workdir: the run's folder, made where it is missing.
    quiet: print nothing.

  Returns:
    The report of the best checkpoint on the test split (`evaluation/*.json`),
    or {} without a test split.

  Raises:
    InputError: config, data or folder cannot be used.
    NonFiniteError: NaN or Inf in loss or gradient.
    Preempted: SIGTERM came; the state is saved.
    checkpoint.SaveError: a checkpoint could not be written.
  """
  config_lib.check(config)
  workdir = pathlib.Path(workdir)
  if (workdir / "DONE").exists():
    say(quiet, f"{workdir} is finished already; its figures are in {workdir / 'evaluation'}")
    return run_folder.read_report(workdir, f"{config.data.test_split}-{config.evaluate.views}")
  preemption = Preemption()  # from here on SIGTERM waits for the end of a step

  mesh = sharding.make_mesh(fsdp=config.fsdp)
  _check_batches(config, mesh)
  data = open_data(config, quiet)
  data_ready = time.perf_counter()
  plan = make_plan(config, data)
  run_folder.write_start(config, data.info, workdir)

  model = models.build(config.model, len(data.info.label_names), config.compute_dtype)
  check_model(config, model, make_objective(config, data.info))
  tx, one_step = make_update(config, model, data, mesh)
  checkpoints = checkpoint_lib.Checkpoints(workdir / "checkpoints")
  memory = models.initial_memory(config.model.name, len(data.train), len(data.info.label_names))
  shape = (*config.input.size, 3)
  state = checkpoints.restore_newest(state_lib.abstract_state(model, tx, shape, memory, mesh))
  resumed = state is not None
  if not resumed:
    state = starting_state(config, state_lib.make_init(model, tx, shape, memory, mesh), tx, mesh)
  start = int(state.step)

  layout = state_lib.layout(state, mesh)
  train_step = steps.compile_train_step(one_step, mesh, layout)
  several_steps = steps.compile_train_step(steps.make_several_steps(one_step), mesh, layout)  # compiled where it is used
  predict = steps.compile_predict_step(steps.make_predict_step(model, config), mesh)
  if jax.process_index() == 0:
    run_folder.write_parameters(workdir, state.params, state.batch_stats)
  say(quiet, run_folder.run_header(config, model, state, mesh, data.info, plan.total, start if resumed else None,
                                   evaluate.one(data.train, evaluate.input_spec(config), config.input.size)))

  spec = evaluate.input_spec(config, data.info)
  cached = device_cache.train_iterator(data.train, spec, config, mesh, start, second=data.second, quiet=quiet)
  batches = cached or pipeline.train_iterator(
      pipeline.train_dataset(
          data.train, spec, batch_size=config.batch_size, seed=config.seed,
          process_index=jax.process_index(), process_count=jax.process_count(), second=data.second,
      ),
      start, config.input.threads,
  )
  progress = writers.Progress(plan.total, start, quiet or jax.process_index() > 0)
  writer = make_writer(config, workdir, start if resumed else 0)
  log = LateScalars([StepLog(writer, progress, config, len(data.train), plan.total).note])
  rows, rng = sharding.over_batch(mesh), jax.random.key(config.seed)
  # The cache's batches are there already.
  on_device = cached or loader.read_ahead(sharding.put_batch(without_extras(batch), rows) for batch in batches)

  def after(step: int, count: int, state: state_lib.TrainState, scalars: dict[str, jax.Array]) -> state_lib.TrainState:
    if step - count == start:
      writer.write_scalars(start + 1, {"seconds_to_first_step": time.perf_counter() - data_ready})
    log.add(step, scalars, count)  # reads the scalars of the steps before
    progress.step(count)
    stop, selected = preemption.reached(step), None
    if not stop and plan.evaluates(step):
      log.finish()
      selected, state = validate(config, state, predict, data, mesh, writer, progress, step)
    if stop or selected is not None or plan.saves(step):
      log.finish()  # a state after a NaN must not be saved
      writer.flush()
      checkpoints.save(step, state, selected)
    if stop:
      checkpoints.wait()
      raise preempted(step)
    return state

  try:
    run_steps(plan, start, state, on_device, rng, train_step, several_steps, after)
    checkpoints.wait()
    compiled = train_step._cache_size() + several_steps._cache_size()
    writer.write_scalars(plan.total, {"compiled_train_steps": compiled})
  finally:
    close(on_device, batches, progress, writer, checkpoints, preemption)
  return finish(config, data.info, workdir, plan.total, quiet)


@dataclasses.dataclass(frozen=True)
class Data:
  """What a run reads.

  Attributes:
    info: of the data set.
    train, second: records of the training split, and of that of `config.data.second` or None.
    val, val_second: the same of the validation split; None without one.
  """

  info: info_lib.DatasetInfo
  train: Any
  second: Any
  val: Any
  val_second: Any


def open_data(config: ml_collections.ConfigDict, quiet: bool) -> Data:
  """Opens the prepared data of a run, after drawing the synthetic world that the config may name; InputError where they are not there."""
  _prepare_world(config, quiet)
  dataset = evaluate.open_data(config)
  train_split, val_split = config.data.train_split, config.data.val_split
  return Data(
      dataset.info,
      evaluate.open_source(config, dataset, train_split),
      evaluate.open_second(config, train_split),
      evaluate.open_source(config, dataset, val_split) if val_split else None,
      evaluate.open_second(config, val_split) if val_split else None,
  )


def make_update(config: ml_collections.ConfigDict, model: Any, data: Data,
                mesh: jax.sharding.Mesh | None) -> tuple[optax.GradientTransformation, steps.TrainStep]:
  """The optimiser of a run and its step (`steps.make_train_step`); numbers of the config may be traced (`attr_jax.packed`).

  Args:
    config: the run's.
    model: Linen module.
    data: for the number of training samples and the weights of labels.
    mesh: of the devices; None: one device.

  Raises:
    InputError: as `make_objective` and `steps.make_train_step`.
  """
  num_train = len(data.train)
  schedule = optim.make_schedule(config, config_lib.total_steps(config, num_train), num_train)
  trainable = models.trainable_groups(config.model.name, config.loss)
  tx = optim.make_optimizer(config, schedule, trainable)
  step = steps.make_train_step(
      model, make_objective(config, data.info), tx, schedule, config, mesh,
      remember=getattr(models.MODELS[config.model.name], "remember", None), num_train=num_train, trainable=trainable)
  return tx, step


@dataclasses.dataclass(frozen=True)
class Plan:
  """When a run does what, in steps.

  Attributes:
    total: steps of the run.
    evaluate_every: None without a validation split.
    save_every: beside the saving after each validation.
    dispatch: steps that may be one program.
  """

  total: int
  evaluate_every: int | None
  save_every: int
  dispatch: int

  def evaluates(self, step: int) -> bool:
    """Whether there is a validation after `step`."""
    return self.evaluate_every is not None and _due(step, self.evaluate_every, self.total)

  def saves(self, step: int) -> bool:
    """Whether a checkpoint is due after `step`, apart from those of validations."""
    return _due(step, self.save_every, self.total)


def make_plan(config: ml_collections.ConfigDict, data: Data) -> Plan:
  """What the config says in epochs, in steps."""
  to_steps = lambda epochs: config_lib.epochs_to_steps(epochs, len(data.train), config.batch_size)
  return Plan(
      config_lib.total_steps(config, len(data.train)),
      to_steps(config.evaluate.every_epochs) if data.val else None,
      config.checkpoint.every_steps or to_steps(config.checkpoint.every_epochs),
      config.steps_per_dispatch,
  )


def run_steps(plan: Plan, start: int, state: Any, batches: Iterator[Any], rng: Any, train_step: Callable[..., Any],
              several_steps: Callable[..., Any], after: Callable[[int, int, Any, Any], Any]) -> Any:
  """The loop. Its order is fixed: step, `after(step, count, state, scalars) -> state`, then the next batch.

  Args:
    plan: when to stop, and after which steps there is work.
    start: updates done before.
    state: to begin with; it is donated.
    batches: on the devices.
    rng: the run's random key.
    train_step: (state, batch, rng) -> (state, scalars).
    several_steps: the same for a tuple of batches, scalars with a first axis of steps.
    after: called with the step reached, how many steps it took, and what they gave.

  Returns:
    The last state.
  """
  has_work = lambda step: plan.evaluates(step) or plan.saves(step)
  step = start
  while step < plan.total:
    count = _steps_at_once(step, plan.dispatch, plan.total, has_work)
    if count == 1:
      state, scalars = train_step(state, next(batches), rng)
    else:
      state, scalars = several_steps(state, tuple(itertools.islice(batches, count)), rng)
    step += count
    state = after(step, count, state, scalars)
  return state


def preempted(step: int) -> Preempted:
  """The error that says after which step a run was stopped."""
  return Preempted(f"stopped by SIGTERM after step {step}; the state is saved, the same command goes on from there")


def make_objective(config: ml_collections.ConfigDict, info: info_lib.DatasetInfo) -> Any:
  """The model file's `objective` with the config's and the data set's weights bound.

  Returns:
    A function (logits, out, batch, memory) -> (loss, parts). Its `positive_ratio` float32 [L] counts unspecified labels as
    negatives where the loss does.

  Raises:
    InputError: a key of `config.loss` that the model does not take.
  """
  objective = models.MODELS[config.model.name].objective
  accepted = inspect.signature(objective).parameters
  wrong = [key for key in config.loss if key not in accepted]
  if wrong:
    raise InputError(f"config.loss.{wrong[0]} is unknown to model {config.model.name!r}; it takes: "
                     f"{', '.join(k for k in accepted if k not in ('logits', 'out', 'batch', 'memory', 'positive_ratio'))}")
  ratio = np.array(info.positive_ratio, np.float32)
  if config.loss.get("unspecified") == "negative":
    ratio = ratio * np.array(info.known_ratio, np.float32)  # unspecified ones count as negatives
  return functools.partial(objective, positive_ratio=ratio, **config.loss)


def check_model(config: ml_collections.ConfigDict, model: Any, objective: Any) -> None:
  """Traces model and objective by shapes alone, so that a wrong option is named before anything is compiled.

  Raises:
    InputError: `config.model` or `config.loss` holds what they do not take.
  """
  def trace() -> jax.Array:
    image = jnp.zeros((2, *config.input.size, 3))
    keys = {"keys": jax.random.split(jax.random.key(0), 2)} if steps.takes(model, "keys") else {}
    (logits, out), _ = model.init_with_output(jax.random.key(0), image, train=True, **keys)
    label = jnp.zeros((2, model.num_labels), jnp.uint8)
    batch = {"label": label, "known": label == 0, "id": jnp.arange(2)}
    if config.input.masks:
      batch |= dict.fromkeys(("person_mask", "region_mask"), jnp.zeros(image.shape[:3], jnp.uint8))
    return objective(logits, out, batch, {})[0]

  try:
    jax.eval_shape(trace)
  except ValueError as error:
    raise InputError(f"config.model or config.loss: {error}") from error


class Preemption:
  """Turns SIGTERM into a question that the loop asks after each step."""

  def __init__(self):
    # With several processes jax's own notifier agrees on one step for all of them.
    self._several = jax.process_count() > 1
    self._asked = False
    self._calls = 0
    self._old = None
    if not self._several:
      try:
        self._old = signal.signal(signal.SIGTERM, self._note)
      except ValueError:  # not in the main thread: somebody else handles signals
        pass

  def _note(self, signum: int, frame: Any) -> None:
    del signum, frame
    self._asked = True

  def reached(self, step: int) -> bool:
    """Whether to stop after `step`; every process gets the same answer."""
    if self._several:
      # The step agreed on is the next number, so there must be none left out: steps may come several at once.
      self._calls += 1
      return multihost_utils.reached_preemption_sync_point(self._calls)
    return self._asked

  def close(self) -> None:
    """Lets SIGTERM do what it did before."""
    if self._old is not None:
      signal.signal(signal.SIGTERM, self._old)


class LateScalars:
  """Reads scalars one step late, so that the device never waits for the log.

  Args:
    notes: for each trial of the program what takes (step, values); a run is one trial.
  """

  def __init__(self, notes: Sequence[Callable[[int, dict[str, float]], None]]):
    self._notes = notes
    self._pending = None

  def add(self, step: int, scalars: dict[str, jax.Array], count: int = 1) -> None:
    """Takes name -> scalars of the `count` steps that end with `step`: [], with several steps [count], and with trials [count, trials]."""
    previous, self._pending = self._pending, (step, scalars, count)
    if previous:
      self._read(*previous)

  def finish(self) -> None:
    """Reads what is pending."""
    previous, self._pending = self._pending, None
    if previous:
      self._read(*previous)

  def _read(self, step: int, scalars: dict[str, jax.Array], count: int) -> None:
    found = {key: np.reshape(value, (count, -1)).tolist() for key, value in jax.device_get(scalars).items()}
    for place in range(count):
      for trial, note in enumerate(self._notes):
        note(step - count + 1 + place, {key: values[place][trial] for key, values in found.items()})


class StepLog:
  """Means of a run's scalars over the steps since the last line; refuses what is not finite."""

  def __init__(self, writer: Any, progress: writers.Progress, config: ml_collections.ConfigDict, num_train: int, total: int):
    """`num_train` is the number of training samples, `total` that of steps; a line is written every `config.log_every_steps`."""
    self._writer, self._progress, self._config = writer, progress, config
    self._epoch = lambda step: step * config.batch_size / num_train
    self._total = total
    self._window: list[dict[str, float]] = []
    self._clock = time.perf_counter()

  def note(self, step: int, values: dict[str, float]) -> None:
    """Takes name -> value of one step, and writes a line where it is time.

    Raises:
      NonFiniteError: one of the values is NaN or Inf.
    """
    wrong = [f"{key}={value}" for key, value in values.items() if not math.isfinite(value)]
    if wrong:
      everything = ", ".join(f"{key}={value:g}" for key, value in values.items())
      raise NonFiniteError(
          f"step {step} is not finite ({', '.join(wrong)}); all of it: {everything}; "
          "the last checkpoint is kept: lower config.optimizer.learning_rate or set clip_norm, and resume"
      )
    self._window.append(values)
    if step % self._config.log_every_steps == 0 or step == self._total:
      self._write(step)

  def _write(self, step: int) -> None:
    now = time.perf_counter()
    rate = len(self._window) * self._config.batch_size / (now - self._clock)
    mean = {key: float(np.mean([v[key] for v in self._window])) for key in self._window[0]}
    mean["learning_rate"] = self._window[-1]["learning_rate"]
    self._writer.write_scalars(step, {"epoch": self._epoch(step), **mean, "images_per_second": rate})
    self._progress.show(mean["loss"], rate)
    self._window, self._clock = [], now


def validate(config: ml_collections.ConfigDict, state: state_lib.TrainState, predict: Any, data: Data, mesh: jax.sharding.Mesh,
              writer: Any, progress: writers.Progress, step: int) -> tuple[float | None, state_lib.TrainState]:
  """Measures the validation split and writes its figures.

  Args:
    config: of the run.
    state: whose parameters (or their average) are measured.
    predict: of `steps.make_predict_step`, compiled.
    data: its `val` and `val_second`.
    mesh: of the devices.
    writer: takes the figures.
    progress: takes a line.
    step: of the state.

  Returns:
    The value that ranks the checkpoint (None where it is not finite), and the state after the plateau rule has seen it.

  Raises:
    InputError: `config.evaluate.select` is no metric.
  """
  params = sharding.gather_split(optim.evaluation_params(state.params, state.opt_state), mesh)
  table = evaluate.predict_split(
      predict, params, state.batch_stats, data.val, config, mesh,
      views=config.evaluate.views, max_samples=config.evaluate.max_samples,
      second=data.val_second,
  )
  chosen = evaluate.choose(config, data.info, table, table)
  overall = evaluate.measure(table, data.info.label_names, chosen=chosen)["metrics"]
  if config.evaluate.select not in overall:
    raise InputError(f"config.evaluate.select={config.evaluate.select!r} is no metric; there are: {', '.join(overall)}")
  selected = overall[config.evaluate.select]
  writer.write_scalars(step, {"epoch": step * config.batch_size / len(data.train),
                              **{f"val/{key}": value for key, value in overall.items()}})
  shown = "  ".join(f"{key} {100 * overall[key]:5.1f}" for key in _shown(config) if key in overall)
  progress.write(f"step {step:>6}  val {shown}")
  if not math.isfinite(selected):
    return None, state
  schedule = config.schedule
  opt_state = optim.observe_validation(
      state.opt_state, selected, factor=schedule.factor, patience=schedule.patience, max_drops=schedule.max_drops
  )
  return selected, state.replace(opt_state=opt_state)


def _shown(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """The metrics of the line that a validation prints."""
  usual = ("mAP", "mA", "F1", "mask_IoU", "region_mIoU")
  return usual if config.evaluate.select in usual else (config.evaluate.select, *usual)


def starting_state(config: ml_collections.ConfigDict, init: Callable[[int], state_lib.TrainState], tx: Any,
                   mesh: jax.sharding.Mesh) -> state_lib.TrainState:
  """Where a run begins: fresh, or with what `config.weights` names.

  Args:
    config: the run's.
    init: of `state.make_init`.
    tx: the optimiser.
    mesh: of the devices.

  Raises:
    InputError: weights that cannot be read or have nothing in common with the model.
  """
  state = init(config.seed)
  pretrained = getattr(models.MODELS[config.model.name], "pretrained", None)
  part = pretrained(config.model, config.loss) if pretrained and not config.weights else ""
  if part and jax.process_index() == 0:
    print(f"warning: {part!r} is not trained here and config.weights is empty: it stays as it is drawn, at random", file=sys.stderr)
  if pathlib.Path(config.weights or "-").is_dir():
    return _start_from_run(config, state, tx, mesh)
  if config.weights:
    params, batch_stats, report = weights.load_trunk(
        pathlib.Path(config.weights), sharding.to_host(sharding.gather_split(state.params, mesh)), sharding.to_host(state.batch_stats)
    )
    say(jax.process_index() > 0, weights.summary(report))
    state = state_lib.with_variables(state, tx, params, batch_stats)
  return state


def _start_from_run(config: ml_collections.ConfigDict, state: state_lib.TrainState, tx: Any,
                    mesh: jax.sharding.Mesh) -> state_lib.TrainState:
  """Everything of an earlier run's best checkpoint that the model has too: the stage before this one."""
  run = evaluate.load_run(pathlib.Path(config.weights), mesh)
  old = traverse_util.flatten_dict({"params": run.params, "batch_stats": run.batch_stats})
  new = traverse_util.flatten_dict({"params": state.params, "batch_stats": state.batch_stats})
  shared = {path for path in old.keys() & new.keys() if old[path].shape == new[path].shape}
  if not shared:
    raise InputError(f"config.weights={config.weights}: that run has no parameter in common with this model")
  say(False, f"weights    {len(shared)} of {len(new)} arrays from {config.weights}, the others start fresh")
  both = traverse_util.unflatten_dict({path: old[path] if path in shared else value for path, value in new.items()})
  return state_lib.with_variables(state, tx, both["params"], both["batch_stats"])


def close(*resources: Any) -> None:
  """Closes all of them, then raises the first Exception of these; one of closing must not hide the one that stopped the run."""
  stopped, errors = sys.exception(), []
  for resource in resources:
    # It waits for all processes. They stop together for the first two reasons; for another one may be gone.
    together = stopped is None or isinstance(stopped, (Preempted, NonFiniteError))
    if isinstance(resource, checkpoint_lib.Checkpoints) and jax.process_count() > 1 and not together:
      continue
    try:
      resource.close()
    except Exception as error:
      errors.append(error)
  if errors and not stopped:
    raise errors[0]


def _steps_at_once(step: int, most: int, total: int, has_work: Callable[[int], bool]) -> int:
  """How many steps follow `step` as one program: `most`, or one where there is work after a step before that."""
  last = step + most
  return most if last <= total and not any(map(has_work, range(step + 1, last))) else 1


def _due(step: int, every: int, total: int) -> bool:
  """True every so many steps and at the end, but not twice in a row shortly before it."""
  return step == total or (step % every == 0 and total - step >= every / 2)


def _check_batches(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> None:
  sharding.check_batch("config.batch_size", config.batch_size, mesh, config.accumulate_steps)
  sharding.check_batch("config.evaluate.batch_size", config.evaluate.batch_size, mesh)


def _prepare_world(config: ml_collections.ConfigDict, quiet: bool) -> None:
  """Draws and prepares the synthetic world that the config names, once."""
  data = config.data
  if not data.world:
    return
  folder = evaluate.data_folder(config)
  if jax.process_index() == 0:
    from attr_jax.data import worlds  # drawing is needed once in a data folder's life

    worlds.ensure(data.world, folder, count=data.world_count, seed=data.world_seed, size=data.size,
                  margin=data.margin, progress=not quiet)
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("synthetic world")


def make_writer(config: ml_collections.ConfigDict, workdir: pathlib.Path, resume_step: int) -> writers.MultiWriter:
  """Writes to metrics.jsonl, from after `resume_step` on, and to TensorBoard where it is asked for; nothing but in the first process."""
  if jax.process_index() > 0:
    return writers.MultiWriter([])
  every = [writers.JsonlWriter(workdir / "metrics.jsonl", resume_step)]
  if config.tensorboard:
    every.append(writers.TensorBoardWriter(workdir / "tensorboard"))
  return writers.MultiWriter(every)


def without_extras(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """What the step needs; `valid` is for evaluation."""
  return {key: value for key, value in batch.items() if key != "valid"}


def finish(config: ml_collections.ConfigDict, info: info_lib.DatasetInfo, workdir: pathlib.Path, total: int, quiet: bool) -> dict[str, Any]:
  """Tests the best and the last checkpoint (of step `total`), draws the pictures, writes thresholds, the card and DONE.

  Returns:
    The report of the best checkpoint, {} without a test split.
  """
  first = jax.process_index() == 0
  report: dict[str, Any] = {}
  if first:
    (workdir / "pictures").mkdir(exist_ok=True)
    pictures.training_curves(writers.read_jsonl(workdir / "metrics.jsonl"), workdir / "pictures" / "training.png")
  if config.data.test_split:
    options = {"split": config.data.test_split, "views": config.evaluate.views, "progress": first and not quiet}
    report = evaluate.evaluate_runs([workdir], checkpoint="best", **options)
    last = report if report["step"] == total else evaluate.evaluate_runs([workdir], checkpoint="last", write=False, **options)
  mesh = sharding.make_mesh()
  found = evaluate.calibrate(evaluate.load_run(workdir, mesh), mesh, progress=first and not quiet)
  if first:
    if found:
      run_folder.write_thresholds(workdir, found)
    (workdir / "model_card.md").write_text(run_folder.model_card(config, info, report))
    (workdir / "DONE").write_text(datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds") + "\n")
  if report:
    say(quiet, run_folder.metrics_table(report))
    key = config.evaluate.select
    say(quiet, f"best checkpoint (step {report['step']}) on {config.data.test_split}: "
                f"{key} {100 * report['metrics'][key]:.1f}, last (step {last['step']}): {100 * last['metrics'][key]:.1f}")
  say(quiet, f"pictures in {workdir / 'pictures'}, figures in {workdir / 'evaluation'}")
  return report


def say(quiet: bool, text: str) -> None:
  """Prints a line, in the first process and unless `quiet`."""
  if not quiet and jax.process_index() == 0:
    print(text, flush=True)
