"""What the benchmarks of training steps share: a compiled step on random data, and programs that take turns."""

import argparse
import json
import os
import pathlib
import statistics
import time

import jax

from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps


def compiled_step(config, model, objective, batch, trainable=None):
  """A step of `config` on one batch.

  Returns:
    `run()`, which does one update and waits; the seconds of compilation; the compiled program.
  """
  mesh = sharding.make_mesh()
  sharding.check_batch("--batch", len(batch["image"]), mesh)
  schedule = optim.make_schedule(config, 1000, 1000)
  tx = optim.make_optimizer(config, schedule, trainable)
  state = state_lib.create_state(model, tx, (*config.input.size, 3), {}, mesh, seed=0)
  batch, key = sharding.put_batch(batch, sharding.over_batch(mesh)), jax.random.key(0)
  step = steps.make_train_step(model, objective, tx, schedule, config, mesh, trainable=trainable)
  start = time.perf_counter()
  program = steps.compile_train_step(step, mesh).lower(state, batch, key).compile()
  seconds = time.perf_counter() - start

  def run():
    nonlocal state
    state, scalars = program(state, batch, key)
    jax.block_until_ready((state, scalars))

  return run, seconds, program


def take_turns(runs, repeats):
  """Seconds of wall time and of processor time of each program's turns, after a turn to warm up: two dicts of lists."""
  wall, processor = {name: [] for name in runs}, {name: [] for name in runs}
  for turn in range(repeats + 1):
    for name, run in runs.items():
      start, processor_start = time.perf_counter(), time.process_time()
      run()
      if turn:
        wall[name].append(time.perf_counter() - start)
        processor[name].append(time.process_time() - processor_start)
  return wall, processor


def median_ratio(seconds, name, base):
  """Of the turns: how many times as long `name` takes as `base`."""
  return statistics.median(a / b for a, b in zip(seconds[name], seconds[base]))


def compare(made, name, base, args):
  """Turns of `compiled_step`s, {system: what it returns}, and how many times as long `name` takes as `base`; ready for JSON."""
  wall, processor = take_turns({system: run for system, (run, _, _) in made.items()}, args.repeats)
  on_cpu = jax.default_backend() == "cpu"
  return {
      "arguments": vars(args) | {"out": None},
      **machine(),
      "compile_seconds": {system: seconds for system, (_, seconds, _) in made.items()},
      "step_seconds": wall,
      "processor_seconds": processor if on_cpu else None,
      "ratio": median_ratio(wall, name, base),
      "processor_ratio": median_ratio(processor, name, base) if on_cpu else None,
  }


def main(doc, measure, table, *, batch, labels, repeats):
  """The command line of a benchmark of steps: prints `table(measure(args))` and writes what was measured."""
  parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--depth", default="50", help="of the ResNet: 18, 34, 50, 101 or tiny")
  parser.add_argument("--size", type=int, default=224, help="side of the (large) views in px")
  parser.add_argument("--batch", type=int, default=batch, help="images, each with all its views")
  parser.add_argument("--labels", type=int, default=labels)
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument("--repeats", type=int, default=repeats, help="turns that count")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
  args = parser.parse_args()
  result = measure(args)
  print(table(result))
  if args.out:
    args.out.write_text(json.dumps(result, indent=2) + "\n")


def machine():
  """What a result was measured on."""
  return {
      "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
      "backend": jax.default_backend(),
      "jax": jax.__version__,
      "cores": os.cpu_count(),
      "load_average": os.getloadavg()[0],
  }
