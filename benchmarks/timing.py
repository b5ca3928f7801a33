"""What the benchmarks of training steps share: a compiled step on random data, and programs that take turns."""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import time

import jax
import numpy as np

from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps


def compiled_step(config, model, objective, batches, trainable=None, *, mesh=None, variables=None, scan=0):
  """A step of `config` on given data.

  Args:
    config: the run's config.
    model: of `models.build`.
    objective: with its weights bound.
    batches: one batch, or a list of them that take turns.
    trainable: top-level parameter groups that change; None: all.
    mesh: of the devices; None: all of them.
    variables: (params, batch_stats) to start from; None: fresh ones.
    scan: that many updates, each with the next batch, in one loop on the device. 0: one update, without a loop.

  Returns:
    `run(count=1)`, which calls the program so often, waits, and hands back the last state (gone at the next call) and
    scalars; the seconds of compilation; the compiled program.
  """
  batches = batches if isinstance(batches, list) else [batches]
  mesh = mesh or sharding.make_mesh()
  sharding.check_batch("--batch", len(batches[0]["image"]), mesh)
  schedule = optim.make_schedule(config, 1000, 1000)
  tx = optim.make_optimizer(config, schedule, trainable)
  if variables is None:
    state = state_lib.create_state(model, tx, (*config.input.size, 3), {}, mesh, seed=0)
  else:
    params, batch_stats = jax.device_put(variables, sharding.replicated(mesh), may_alias=False)
    opt_state = jax.jit(tx.init, out_shardings=sharding.replicated(mesh))(params)
    state = state_lib.TrainState(jax.device_put(np.int32(0), sharding.replicated(mesh)), params, batch_stats, opt_state, {})
  step = steps.make_train_step(model, objective, tx, schedule, config, mesh, trainable=trainable)
  key = jax.random.key(0)
  batches = [sharding.put_batch(batch, sharding.over_batch(mesh)) for batch in batches]
  if scan:
    step, batches = steps.make_several_steps(step), [tuple(itertools.islice(itertools.cycle(batches), scan))]
  start = time.perf_counter()
  program = steps.compile_train_step(step, mesh).lower(state, batches[0], key).compile()
  seconds = time.perf_counter() - start
  turns = itertools.cycle(batches)

  def run(count=1):
    nonlocal state
    for _ in range(count):
      state, scalars = program(state, next(turns), key)
    return jax.block_until_ready((state, scalars))

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
  report(parser, measure, table)


def report(parser, measure, table):
  """Reads the command line, with `--out` added; prints `table(measure(args))` and writes what was measured."""
  args = parse(parser)
  tell(measure(args), table, args.out)


def parse(parser):
  """The command line, with `--out` added."""
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
  return parser.parse_args()


def tell(result, table, out):
  """Prints `table(result)` and writes the result into the file `out`, unless that is None."""
  print(table(result))
  if out:
    out.write_text(json.dumps(result, indent=2) + "\n")


def bytes_of(program):
  """What a compiled program holds at once by XLA's count: arguments, results that do not take their place, temporaries."""
  memory = program.memory_analysis()
  return memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes


def counts_of(program):
  """(floating-point operations, bytes in and out of its kernels) of a compiled program, by XLA's own count."""
  costs = program.cost_analysis()
  return costs["flops"], costs["bytes accessed"]


def machine():
  """What a result was measured on."""
  return {
      "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
      "backend": jax.default_backend(),
      "jax": jax.__version__,
      "cores": os.cpu_count(),
      "load_average": os.getloadavg()[0],
  }
