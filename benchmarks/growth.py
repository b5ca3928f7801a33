"""How time and memory grow as the work grows: nothing may grow faster than linearly.

  python benchmarks/growth.py --out=docs/results/growth-cpu.json          a few minutes on two cores
  python benchmarks/growth.py --lines=metrics/rows,epochs --full          up to the quoted sizes everywhere

Each line doubles one quantity several times and leaves all else at a small size: the real functions of attr_jax, on random
data. The sizes of a line take turns, and the fastest turn of each counts, since others on the machine only ever add time. The
slope is that of log(time) over log(quantity), by least squares over the upper half of the sizes (three points or more): small sizes
are ruled by what every call costs. 1 is linear, 0 means that the quantity does not matter; the bar is 1.15: sorting scores, as
average precision must, goes by n log n, which is a slope of 1.09 at 100,000 rows, and the rest is for caches that no longer hold
everything. A slope with fewer than 2 ms in its longest time is not judged.

Memory is, by the line: of compiled steps what XLA plans (arguments, results and work space), without noise; of numpy code the peak
that tracemalloc sees, in a turn of its own; of `prepare` the most that its process held beyond its start; of a checkpoint the
bytes on disk. `epochs` trains for several epochs in a process of its own and looks at the memory of the process after
each: the slope in MB an epoch over their second half is to be within twice its standard error of 0, or below 0.5 MB.
"""

import argparse
import contextlib
import functools
import gc
import math
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
import tracemalloc

import cv2
import jax
import numpy as np
import psutil
from absl import flags

from attr_jax import checkpoint as checkpoint_lib
from attr_jax import config as config_lib
from attr_jax import evaluate
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import worlds
from attr_jax.models import diaa
import prepare as prepare_benchmark
import timing

BAR, JUDGED_FROM = 1.15, 0.002
FLAT_MEGABYTES = 0.5
SIDE, LABELS, BATCH = 32, 14, 16


def doubled(first, last, times=2):
  """first, first * times, ... and last."""
  sizes = [first]
  while sizes[-1] * times < last:
    sizes.append(sizes[-1] * times)
  return [*sizes, last]


def fastest(runs, turns):
  """Seconds of the fastest of `turns` rounds over {size: run}, after one to warm up."""
  wall, _ = timing.take_turns(runs, turns)
  return {size: min(seconds) for size, seconds in wall.items()}, wall


def traced_peak(run):
  """MB that Python and numpy held at most during a call, beyond what they held before."""
  gc.collect()
  tracemalloc.start()
  run()
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  return peak / 2**20


def planned_megabytes(program):
  return timing.bytes_of(program) / 2**20


def batch_of(count, side, labels):
  rng = np.random.default_rng(0)
  return {
      "image": rng.integers(0, 256, (count, side, side, 3), np.uint8),
      "label": rng.integers(0, 2, (count, labels)).astype(np.uint8),
      "known": np.ones((count, labels), bool),
      "id": np.arange(count),
  }


def tiny_config(side=SIDE, **overrides):
  config = config_lib.default_config()
  config.model.depth = "tiny"
  config.input.size = config.input.full_size = config.input.resize = (side, side)
  config.input.crop, config.input.crop_sizes = "none", None
  config.schedule.name = "constant"
  config.update_from_flattened_dict(overrides)
  return config


def training_step(count=BATCH, side=SIDE, labels=LABELS):
  """`timing.compiled_step` of the baseline."""
  config = tiny_config(side, batch_size=count)
  objective = functools.partial(models.MODELS["baseline"].objective, positive_ratio=np.full(labels, 0.3, np.float32))
  return timing.compiled_step(config, models.build(config.model, labels), objective, batch_of(count, side, labels))


def step_line(sizes, make, turns, quantity=lambda size: size):
  """A line of training steps: `make(size)` is a `training_step`, `quantity` what of it counts."""
  made = {quantity(size): make(size) for size in sizes}
  seconds, wall = fastest({size: run for size, (run, _, _) in made.items()}, turns)
  return {"seconds": seconds, "turns": wall, "megabytes": {size: planned_megabytes(program) for size, (_, _, program) in made.items()}}


def step_over_batch(args):
  return step_line(doubled(16, 256 if args.full else 128), lambda count: training_step(count=count), args.turns)


def step_over_pixels(args):
  return step_line(doubled(32, 256), lambda side: training_step(count=4, side=side), args.turns, lambda side: side * side)


def step_over_labels(args):
  return step_line(doubled(14, 1103, 4), lambda labels: training_step(labels=labels), args.turns)


def device_child(count, turns, results):
  jax.config.update("jax_num_cpu_devices", count)
  run, _, program = training_step(count=64)
  _, wall = fastest({count: run}, turns)
  results.put((wall[count], planned_megabytes(program)))  # the plan is that of one device


def step_over_devices(args):
  """One batch of 64 over more and more virtual devices, which share the cores: what the splitting itself costs."""
  found = {count: in_child(device_child, count, 3 * args.turns) for count in (1, 2, 4, 8)}
  return {"seconds": {count: min(wall) for count, (wall, _) in found.items()}, "turns": {count: wall for count, (wall, _) in found.items()},
          "megabytes": {count: megabytes * count for count, (_, megabytes) in found.items()}}


def step_over_history(args):
  """DIAA's training step, which reads and writes a history of every training image."""
  config = tiny_config(64, batch_size=BATCH, **{"model.name": "diaa"})
  mesh = sharding.make_mesh(jax.devices()[:1])
  model = models.build(config.model, LABELS)
  schedule = optim.make_schedule(config, 1000, 1000)
  tx = optim.make_optimizer(config, schedule)
  objective = functools.partial(diaa.objective, positive_ratio=np.full(LABELS, 0.3, np.float32))
  key, batch = jax.random.key(0), sharding.put_batch(batch_of(BATCH, 64, LABELS), sharding.over_batch(mesh))

  def make(count):
    state = state_lib.create_state(model, tx, (64, 64, 3), diaa.init_memory(count, LABELS), mesh, seed=0)
    step = steps.make_train_step(model, objective, tx, schedule, config, mesh, remember=diaa.remember, num_train=count)
    program = steps.compile_train_step(step, mesh).lower(state, batch, key).compile()

    def run():
      nonlocal state
      state, scalars = program(state, batch, key)
      jax.block_until_ready((state, scalars))

    return run, 0.0, program

  return step_line(doubled(1000, 100_000, 10 if not args.full else 4), make, args.turns)


def metrics_line(shapes, quantity, turns):
  """`evaluate.measure`, all overall figures and those of each attribute."""
  rng = np.random.default_rng(0)

  def make(rows, labels):
    logit = rng.normal(size=(rows, labels)).astype(np.float32)
    table = {"logit": logit, "label": (logit + rng.normal(size=logit.shape) > 1).astype(np.uint8), "known": rng.random(logit.shape) < 0.95}
    return lambda: evaluate.measure(table, [f"label {i}" for i in range(labels)])

  runs = {quantity(*shape): make(*shape) for shape in shapes}
  seconds, wall = fastest(runs, turns)
  return {"seconds": seconds, "turns": wall, "megabytes": {size: traced_peak(run) for size, run in runs.items()}}


def metrics_over_rows(args):
  return metrics_line([(rows, LABELS) for rows in doubled(1000, 100_000, 4)], lambda rows, labels: rows, args.turns)


def metrics_over_labels(args):
  rows = 20_000 if args.full else 1000
  return metrics_line([(rows, labels) for labels in doubled(14, 1103, 3)], lambda rows, labels: labels, min(args.turns, 2))


class Samples:
  """`count` samples in memory that share 64 images."""

  def __init__(self, count, side=SIDE):
    rng = np.random.default_rng(0)
    smooth = [cv2.resize(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC) for _ in range(64)]
    self._encoded, self._count = [images.encode_jpeg(image) for image in smooth], count
    self._label, self._known = rng.integers(0, 2, LABELS).astype(np.uint8), np.ones(LABELS, bool)

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    return {"image": self._encoded[index % 64], "label": self._label, "known": self._known, "id": np.int64(index)}


def first_batches(count):
  """From nothing to the third training batch."""
  source, spec = Samples(count), evaluate.input_spec(tiny_config())

  def run():
    dataset = pipeline.train_dataset(source, spec, batch_size=BATCH, seed=0)
    with contextlib.closing(pipeline.train_iterator(dataset, 0, 2)) as batches:
      for _ in range(3):
        next(batches)

  return run


def whole_split(count):
  """All evaluation batches."""
  source, spec = Samples(count), evaluate.input_spec(tiny_config())

  def run():
    dataset = pipeline.eval_dataset(source, spec, batch_size=64)
    with contextlib.closing(pipeline.eval_iterator(dataset, 2)) as batches:
      for _ in batches:
        pass

  return run


def pipeline_line(make, sizes, turns):
  runs = {size: make(size) for size in sizes}
  seconds, wall = fastest(runs, turns)
  return {"seconds": seconds, "turns": wall, "megabytes": {size: traced_peak(run) for size, run in runs.items()}}


def start_over_images(args):
  return pipeline_line(first_batches, doubled(1000, 100_000, 4), args.turns)


def split_over_images(args):
  return pipeline_line(whole_split, doubled(1000, 100_000 if args.full else 8000), min(args.turns, 2))


def prepare_over_images(args):
  """Whole runs of `prepare` on one drawn set, which is repeated."""
  with tempfile.TemporaryDirectory() as folder:
    folder, found = pathlib.Path(folder), {}
    source = folder / "source"
    worlds.synthesize("people", source, count=250, seed=0, progress=False)
    cores = sorted(os.sched_getaffinity(0))
    for times in doubled(4, 400, 5) if args.full else doubled(1, 16):
      prepare_benchmark.repeat_source(source, folder / f"source{times}", times)
      runs = [prepare_benchmark.run_prepare(cores, folder / f"source{times}", folder / f"{times}-{turn}") for turn in range(2)]
      found[250 * times] = runs
  return {"seconds": {size: min(seconds for seconds, _, _ in runs) for size, runs in found.items()},
          "turns": {size: [seconds for seconds, _, _ in runs] for size, runs in found.items()},
          "megabytes": {size: min(most - before for _, before, most in runs) for size, runs in found.items()}}


def checkpoint_over_parameters(args):
  """A checkpoint saved and waited for; the trunk becomes wider."""
  mesh, made, sizes = sharding.make_mesh(jax.devices()[:1]), {}, {}
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    for width in doubled(32, 256 if args.full else 128):
      config = tiny_config(**{"model.name": "baseline"})
      model = models.build({**config.model, "width": width}, LABELS)
      tx = optim.make_optimizer(config, lambda step: 0.1)
      state = state_lib.create_state(model, tx, (SIDE, SIDE, 3), {}, mesh, seed=0)
      path = pathlib.Path(folder) / str(width)
      checkpoints = checkpoint_lib.Checkpoints(path)
      stack.callback(checkpoints.close)
      count = round(sum(leaf.size for leaf in jax.tree.leaves(state.params)) / 1000)

      def run(state=state, checkpoints=checkpoints):
        checkpoints.save((checkpoints.steps() or [0])[-1] + 1, state, None)
        checkpoints.wait()

      made[count], sizes[count] = run, path
    seconds, wall = fastest(made, args.turns)
    # One checkpoint is kept.
    megabytes = {count: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2**20 for count, path in sizes.items()}
  return {"seconds": seconds, "turns": wall, "megabytes": megabytes}


def epochs_child(epochs, count, results):
  flags.FLAGS.mark_as_parsed()  # grain reads absl flags
  config = tiny_config(batch_size=BATCH)
  mesh = sharding.make_mesh(jax.devices()[:1])
  model = models.build(config.model, LABELS)
  schedule = optim.make_schedule(config, 1000, count)
  tx = optim.make_optimizer(config, schedule)
  objective = functools.partial(models.MODELS["baseline"].objective, positive_ratio=np.full(LABELS, 0.3, np.float32))
  state = state_lib.create_state(model, tx, (SIDE, SIDE, 3), {}, mesh, seed=0)
  step = steps.compile_train_step(steps.make_train_step(model, objective, tx, schedule, config, mesh), mesh)
  predict = steps.compile_predict_step(steps.make_predict_step(model, config), mesh)
  source, spec, rows, key = Samples(count), evaluate.input_spec(config), sharding.over_batch(mesh), jax.random.key(0)
  batches = pipeline.train_iterator(pipeline.train_dataset(source, spec, batch_size=BATCH, seed=0), 0, 2)
  held, seconds = [], []
  for _ in range(epochs):
    start = time.perf_counter()
    for _ in range(count // BATCH):
      state, scalars = step(state, sharding.put_batch(next(batches), rows), key)
    table = evaluate.predict_split(predict, state.params, state.batch_stats, Samples(count // 4), config, mesh, views="full")
    evaluate.measure(table, [f"label {i}" for i in range(LABELS)])
    jax.block_until_ready(scalars)
    gc.collect()
    held.append(psutil.Process().memory_info().rss / 2**20)
    seconds.append(time.perf_counter() - start)
  batches.close()
  results.put((held, seconds))


def memory_over_epochs(args):
  """Training and validation, epoch after epoch: memory of the process."""
  epochs = 60 if args.full else 24
  held, seconds = in_child(epochs_child, epochs, 1024)
  later = np.array(held[epochs // 2:])  # caches and the heaps of threads fill up in the epochs before
  x = np.arange(len(later)) - (len(later) - 1) / 2
  slope = float(x @ later / (x @ x))
  rest = later - later.mean() - slope * x
  error = float(math.sqrt(rest @ rest / (len(later) - 2) / (x @ x)))
  return {"epochs": epochs, "held_megabytes": held, "seconds": seconds, "megabytes_per_epoch": slope, "standard_error": error,
          "flat": slope <= max(FLAT_MEGABYTES, 2 * error)}


def in_child(function, *arguments):
  """What a function puts into its last argument, in a process of its own."""
  context = multiprocessing.get_context("spawn")
  results = context.SimpleQueue()
  process = context.Process(target=function, args=(*arguments, results))
  process.start()
  found = None
  while process.is_alive() and found is None:
    found = results.get() if not results.empty() else time.sleep(0.05)
  found = results.get() if found is None and not results.empty() else found
  process.join()
  if found is None:
    raise SystemExit(f"a child process ended with status {process.exitcode}")
  return found


LINES = {
    "metrics/rows": metrics_over_rows,
    "metrics/labels": metrics_over_labels,
    "prepare/images": prepare_over_images,
    "first batches/images": start_over_images,
    "evaluation batches/images": split_over_images,
    "step/batch": step_over_batch,
    "step/pixels": step_over_pixels,
    "step/labels": step_over_labels,
    "step/devices": step_over_devices,
    "step/history": step_over_history,
    "checkpoint/k parameters": checkpoint_over_parameters,
}


def slope(values):
  """Of log(value) over log(size), in the upper half of the sizes."""
  sizes = sorted(values)
  upper = sizes[-max(3, math.ceil(len(sizes) / 2)):]
  return float(np.polyfit(np.log(upper), np.log([max(values[size], 1e-9) for size in upper]), 1)[0])


def judged(line):
  """A line with its slopes and whether both are within the bar; None where the times are too short to say."""
  sizes = sorted(line["seconds"])
  time_slope, memory_slope = slope(line["seconds"]), slope(line["megabytes"])
  long_enough = max(line["seconds"].values()) >= JUDGED_FROM
  return line | {"time_slope": time_slope, "memory_slope": memory_slope, "from": sizes[0], "to": sizes[-1],
                 "met": (time_slope <= BAR if long_enough else None, memory_slope <= BAR)}


def measure(args):
  """All lines, ready for JSON."""
  flags.FLAGS.mark_as_parsed()
  found, seconds = {}, {}
  for name, line in LINES.items():
    if not args.lines or name in args.lines:
      start = time.perf_counter()
      found[name] = judged(line(args))
      seconds[name] = time.perf_counter() - start
      print(row(name, found[name]), file=sys.stderr, flush=True)
  epochs = memory_over_epochs(args) if not args.lines or "epochs" in args.lines else None
  return {"command": " ".join(["python", *sys.argv]), "arguments": vars(args) | {"out": None}, **timing.machine(), "lines": found,
          "epochs": epochs, "seconds_of_lines": seconds, "bar": BAR}


def row(name, line):
  first, last = (line["seconds"][line[end]] for end in ("from", "to"))
  verdict = " ".join("-" if met is None else "met" if met else "OVER" for met in line["met"])
  return (f"{name:<25}{line['from']:>7}{line['to']:>8}{1e3 * first:>8.1f}{1e3 * last:>9.1f}{line['time_slope']:>6.2f}"
          f"{line['memory_slope']:>6.2f}  {verdict}")


def table(result):
  """The result in lines of at most 80 columns."""
  lines = [f"{'what/quantity':<25}{'from':>7}{'to':>8}{'ms':>8}{'ms':>9}{'time':>6}{'mem':>6}  bar {result['bar']}"]
  lines += [row(name, line) for name, line in result["lines"].items()]
  if epochs := result["epochs"]:
    lines.append(f"memory over {epochs['epochs']} epochs: {epochs['megabytes_per_epoch']:+.2f} +- {epochs['standard_error']:.2f} MB an "
                 f"epoch of {epochs['held_megabytes'][-1]:.0f}: {'flat' if epochs['flat'] else 'GROWS'}")
  return "\n".join([*lines, f"{result['device']}, load {result['load_average']:.1f} on {result['cores']} cores"])


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  names = lambda text: tuple(filter(None, text.split(",")))
  parser.add_argument("--lines", type=names, default=(), help=f"of {', '.join([*LINES, 'epochs'])} (default: all)")
  parser.add_argument("--full", action="store_true", help="larger sizes; a quarter of an hour")
  parser.add_argument("--turns", type=int, default=3)
  args = timing.parse(parser)
  if wrong := set(args.lines) - {*LINES, "epochs"}:
    raise SystemExit(f"no line {', '.join(sorted(wrong))}; there are: {', '.join([*LINES, 'epochs'])}")
  timing.tell(measure(args), table, args.out)


if __name__ == "__main__":
  main()
