"""What DIAA's prediction history costs: its two operations alone, over a whole training step of the same batch.

  python benchmarks/diaa_history.py --depth=50 --batch=8 --out=diaa_history.json

The history has the size of WIDER-Attribute's training split (22,968 x 14 labels, 6 rows). A step with and one without the
history differ by far less than two runs of one step do, so the share is taken of times measured apart, in turns. The bar is
2 %.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import time

import jax
import numpy as np

from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax.models import diaa

BAR = 0.02
NUM_TRAIN, NUM_LABELS = 22_968, 14


def make_runs(args):
  """{"step", "history"}: functions that do one of each and wait."""
  config = config_lib.default_config()
  config.model.name, config.model.depth = "diaa", args.depth
  config.batch_size, config.input.size = args.batch, (args.size, args.size)
  mesh = sharding.make_mesh(jax.devices()[:1])
  model = models.build(config.model, NUM_LABELS, config.compute_dtype)
  schedule = optim.make_schedule(config, 1000, NUM_TRAIN)
  tx = optim.make_optimizer(config, schedule)
  objective = functools.partial(diaa.objective, positive_ratio=np.full(NUM_LABELS, 0.3, np.float32))
  memory = diaa.init_memory(NUM_TRAIN, NUM_LABELS)
  state = state_lib.create_state(model, tx, (args.size, args.size, 3), memory, mesh, seed=0)
  rng = np.random.default_rng(0)
  batch = {
      "image": rng.integers(0, 256, (args.batch, args.size, args.size, 3), np.uint8),
      "label": rng.integers(0, 2, (args.batch, NUM_LABELS)).astype(np.uint8),
      "known": np.ones((args.batch, NUM_LABELS), bool),
      "id": rng.integers(0, NUM_TRAIN, args.batch),
  }
  step = steps.compile_train_step(steps.make_train_step(
      model, objective, tx, schedule, config, mesh, remember=diaa.remember, num_train=NUM_TRAIN), mesh)
  rows = {"id": batch["id"], "epoch": np.full(args.batch, 7, np.int32)}
  logits = np.zeros((args.batch, NUM_LABELS), np.float32)

  @functools.partial(jax.jit, donate_argnums=0)
  def history(memory):
    return diaa.remember(memory, logits, rows, rows["epoch"]), diaa.attention_weights(memory, rows)

  def run_step():
    nonlocal state
    state, scalars = step(state, batch, jax.random.key(0))
    jax.block_until_ready((state, scalars))

  def run_history():
    nonlocal memory
    memory, weights = history(memory)
    jax.block_until_ready((memory, weights))

  return {"step": run_step, "history": run_history}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--depth", default="101")
  parser.add_argument("--size", type=int, default=224)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--out", type=pathlib.Path)
  args = parser.parse_args()
  runs = make_runs(args)
  times = {name: [] for name in runs}
  for turn in range(args.repeats + 1):
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      if turn:  # the first compiles
        times[name].append(time.perf_counter() - start)
  seconds = {name: statistics.median(values) for name, values in times.items()}
  share = seconds["history"] / seconds["step"]
  print(f"DIAA, depth {args.depth}, {args.size}x{args.size}, batch {args.batch}, {jax.devices()[0].device_kind}")
  print(f"step {1e3 * seconds['step']:.1f} ms, history {1e3 * seconds['history']:.2f} ms: {100 * share:.3f} % of the step (bar {100 * BAR:.0f} %)")
  if args.out:
    args.out.write_text(json.dumps({
        "arguments": vars(args) | {"out": None}, "device": jax.devices()[0].device_kind, "jax": jax.__version__,
        "cores": os.cpu_count(), "load_average": os.getloadavg()[0], "seconds": times, "share": share}, indent=2) + "\n")


if __name__ == "__main__":
  main()
