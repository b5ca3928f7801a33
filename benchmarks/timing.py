"""What the benchmarks of training steps share: a compiled step on random data, and programs that take turns."""

import os
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


def machine():
  """What a result was measured on."""
  return {
      "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
      "backend": jax.default_backend(),
      "jax": jax.__version__,
      "cores": os.cpu_count(),
      "load_average": os.getloadavg()[0],
  }
