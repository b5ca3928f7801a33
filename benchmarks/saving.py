"""What saving a checkpoint adds to the time of training.

  python benchmarks/saving.py --out=docs/results/saving-cpu.json
  python benchmarks/saving.py --depth=101 --size=224 --batch=256 --dtype=bfloat16

One compiled training step (the baseline model, 14 labels, SGD with momentum) runs on data that lie on the device. Turns of
`--steps` steps alternate: in one of them a checkpoint is saved after the first step, as the loop does it (`checkpoint.Checkpoints`:
the state is copied, threads write it while the steps go on), in the other nothing is. Scalars are read one step late. A
turn ends when its last step is done and what it saved is on the disk, so that no work of one turn falls into another. What a save
adds is the median over pairs of turns of how much longer the one with saving takes; the cost is that over `--every` plain
steps, and the bar is 3 %. "blocked" is how long `save` itself keeps the loop waiting. On a CPU the threads that write take processor
time from the steps; on an accelerator they do not.
"""

import argparse
import functools
import itertools
import operator
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

from attr_jax import checkpoint
from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
import timing

BAR = 0.03
LABELS = 14


class Trainer:
  """A state, its compiled step and its checkpoints."""

  def __init__(self, args, folder):
    config = config_lib.default_config()
    config.model.depth, config.compute_dtype = args.depth, args.dtype
    config.batch_size, config.input.size = args.batch, (args.size, args.size)
    mesh = sharding.make_mesh()
    sharding.check_batch("--batch", args.batch, mesh)
    model = models.build(config.model, LABELS, config.compute_dtype)
    objective = functools.partial(models.MODELS["baseline"].objective, positive_ratio=np.full(LABELS, 0.5, np.float32), loss="bce")
    schedule = optim.make_schedule(config, 1000, 1000)
    tx = optim.make_optimizer(config, schedule)
    self.state = state_lib.create_state(model, tx, (*config.input.size, 3), {}, mesh, seed=0)
    self.step = steps.compile_train_step(steps.make_train_step(model, objective, tx, schedule, config, mesh), mesh)
    self.key = jax.random.key(0)
    rng = np.random.default_rng(0)
    self.batch = sharding.put_batch({
        "image": rng.integers(0, 256, (args.batch, args.size, args.size, 3), np.uint8),
        "label": rng.integers(0, 2, (args.batch, LABELS)).astype(np.uint8), "known": np.ones((args.batch, LABELS), bool),
        "id": np.arange(args.batch)}, sharding.over_batch(mesh))
    self.checkpoints, self.numbers = checkpoint.Checkpoints(folder), itertools.count(1)

  def turn(self, count, save):
    """Seconds of wall time and of processor time that `count` steps take, and those that `save` kept the loop waiting."""
    start, processor, scalars, blocked = time.perf_counter(), time.process_time(), None, 0.0
    for number in range(count):
      before = scalars
      self.state, scalars = self.step(self.state, self.batch, self.key)
      jax.device_get(before)
      if save and number == 0:
        jax.block_until_ready(self.state)
        called = time.perf_counter()
        self.checkpoints.save(next(self.numbers), self.state, None)
        blocked = time.perf_counter() - called
    jax.block_until_ready((self.state, scalars))
    self.checkpoints.wait()
    return time.perf_counter() - start, time.process_time() - processor, blocked


def measure(args):
  """All figures, ready for JSON."""
  with tempfile.TemporaryDirectory(dir=args.folder) as folder:
    trainer = Trainer(args, pathlib.Path(folder))
    seconds, processor, blocked = {"saving": [], "plain": []}, {"saving": [], "plain": []}, []
    trainer.turn(2, save=True)  # compiles and warms up
    for turn in range(args.turns):
      for name in (list(seconds), list(reversed(seconds)))[turn % 2]:  # neither is always first
        took, worked, waited = trainer.turn(args.steps, name == "saving")
        seconds[name].append(took)
        processor[name].append(worked)
        blocked += [waited] if name == "saving" else []
    trainer.checkpoints.close()
    state_bytes = sum(x.nbytes for x in jax.tree.leaves(trainer.state))
    saved_bytes = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())
  added = {name: statistics.median(map(operator.sub, times["saving"], times["plain"])) for name, times in (("wall", seconds), ("processor", processor))}
  between = args.every / args.steps
  return {
      "command": " ".join(["python", *sys.argv]),
      "arguments": vars(args) | {"out": None, "folder": None},
      **timing.machine(),
      "seconds": seconds,
      "processor_seconds": processor,
      "blocked_seconds": blocked,
      "state_bytes": state_bytes,
      "saved_bytes": saved_bytes,
      "added_seconds": added["wall"],
      "added_processor_seconds": added["processor"],
      "cost": added["wall"] / (between * statistics.median(seconds["plain"])),
      "processor_cost": added["processor"] / (between * statistics.median(processor["plain"])),
      "bar": BAR,
  }


def table(result):
  """At most 80 columns."""
  args = result["arguments"]
  lines = [
      f"ResNet-{args['depth']}, {args['size']} px, batch {args['batch']}, {args['dtype']}, {result['device']}",
      f"state {result['state_bytes'] / 2**20:.0f} MiB ({result['saved_bytes'] / 2**20:.0f} MiB on disk), "
      f"{args['turns']} pairs of turns of {args['steps']} steps",
      "",
      f"{'turns':<12}{'ms per step':>14}{'fastest':>12}{'slowest':>12}",
  ]
  for name, seconds in result["seconds"].items():
    each = [1000 * value / args["steps"] for value in seconds]
    lines.append(f"{name:<12}{statistics.median(each):>14.1f}{min(each):>12.1f}{max(each):>12.1f}")
  lines += ["", f"one save adds {1000 * result['added_seconds']:.0f} ms ({1000 * result['added_processor_seconds']:.0f} ms of processor time); "
            f"the loop waits for {1000 * statistics.median(result['blocked_seconds']):.0f} ms",
            f"every {args['every']} steps that is {100 * result['cost']:.2f} % (bar {100 * BAR:.0f} %): {'met' if result['cost'] < BAR else 'OVER'}",
            f"of processor time {100 * result['processor_cost']:.2f} %; load {result['load_average']:.1f} on {result['cores']} cores"]
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--depth", default="18", help="of the ResNet: 18, 34, 50, 101 or tiny")
  parser.add_argument("--size", type=int, default=64, help="side of the images in px")
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument("--steps", type=int, default=12, help="of a turn")
  parser.add_argument("--every", type=int, default=100, help="steps from one save to the next, for the cost")
  parser.add_argument("--turns", type=int, default=5, help="pairs of turns")
  parser.add_argument("--folder", help="where checkpoints are written for the time of the measurement (default: that of temporary files)")
  timing.report(parser, measure, table)


if __name__ == "__main__":
  main()
