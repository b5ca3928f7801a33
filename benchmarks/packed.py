"""Trials that train together as one program (`attr_jax/packed.py`) against the same trials one after the other.

  python benchmarks/packed.py --out=packed.json

For each case and number of trials: seconds of a step of one trial, both ways, on random images that are on the device. The two
take turns in one process; the ratio is the median over turns. Trials differ in seed and learning rate. A separate run compiles a
program of its own (its rate is a constant of it), so the time that a grid saves or loses is also given for whole trials: after
how many steps packed ones have lost what they saved in compiling.

A frozen backbone is the same in all trials, as from `config.weights`; its convolutions then take the images of all trials at once.
"""

import argparse
import dataclasses
import functools
import pathlib
import statistics
import time
import types

import jax
import numpy as np

from attr_jax import cli
from attr_jax import models
from attr_jax import packed
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
import timing

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
LABELS, EXAMPLES = 14, 1000


@dataclasses.dataclass(frozen=True)
class Case:
  """What is trained: a config file with its options, the trunk, the side of the images in px and the batch."""

  config: str
  depth: str
  size: int
  batch: int
  dtype: str = "float32"

  @property
  def name(self):
    return f"{self.config.partition('.')[0]} {self.depth}, {self.size} px, {self.batch} images"


HEADS = "diaa.py:stage=heads"
CASES = {
    "cpu": (
        Case("baseline.py", "tiny", 16, 8), Case("baseline.py", "tiny", 32, 8), Case("baseline.py", "tiny", 32, 32),
        Case("baseline.py", "tiny", 64, 32), Case(HEADS, "tiny", 32, 8), Case(HEADS, "tiny", 64, 32), Case("baseline.py", "18", 112, 8),
    ),
    "gpu": (
        Case("baseline.py", "tiny", 32, 8), Case("baseline.py", "tiny", 64, 32), Case("baseline.py", "18", 64, 32),
        Case(HEADS, "50", 224, 32, "bfloat16"), Case("baseline.py", "50", 224, 64, "bfloat16"),
    ),
}


def make_configs(case, trials):
  config = cli.load_config(f"{CONFIGS}/{case.config}", [])
  config.model.depth, config.batch_size, config.compute_dtype = case.depth, case.batch, case.dtype
  config.input.size, config.total_steps = (case.size, case.size), 1000
  configs = [config.copy_and_resolve_references() for _ in range(trials)]
  for i, one in enumerate(configs):
    one.seed, one.optimizer.learning_rate = i, config.optimizer.learning_rate * (1 + i / trials)
  return configs


def make_batch(case, seed):
  rng = np.random.default_rng(seed)
  return {
      "image": rng.integers(0, 256, (case.batch, case.size, case.size, 3), np.uint8),
      "label": rng.integers(0, 2, (case.batch, LABELS)).astype(np.uint8),
      "known": np.ones((case.batch, LABELS), bool),
      "id": np.arange(case.batch, dtype=np.int32),
  }


def starting_states(configs, model, tx, trainable):
  """A state of each seed, with the frozen groups of the first."""
  memory = models.initial_memory(configs[0].model.name, EXAMPLES, LABELS)
  init = state_lib.make_init(model, tx, (*configs[0].input.size, 3), memory, sharding.make_mesh(jax.devices()[:1]))
  states = [sharding.to_host(init(config.seed)) for config in configs]
  if trainable is None:
    return states
  frozen = {name: group for name, group in states[0].params.items() if name not in trainable}
  return [state.replace(params=state.params | frozen) for state in states]


def compiled(function, *arguments):
  start = time.perf_counter()
  program = function.lower(*arguments).compile()
  return program, time.perf_counter() - start


def make(case, trials):
  """{"separate", "packed"}: functions that make a step of all trials and wait; seconds of compilation; GFLOP of a step of one trial."""
  configs = make_configs(case, trials)
  model = models.build(configs[0].model, LABELS, case.dtype)
  data = train.Data(types.SimpleNamespace(positive_ratio=(0.3,) * LABELS, known_ratio=(1.0,) * LABELS), range(EXAMPLES), None, None, None)
  trainable = models.trainable_groups(configs[0].model.name, configs[0].loss)
  tx, step = train.make_update(configs[0], model, data, None)
  states = starting_states(configs, model, tx, trainable)
  batches = [make_batch(case, seed) for seed in range(trials)]
  one = sharding.make_mesh(jax.devices()[:1])
  whole = sharding.replicated(one)

  single = steps.compile_train_step(step, one)
  on_device = [jax.device_put(state, whole, may_alias=False) for state in states]
  rows = [sharding.put_batch(batch, sharding.over_batch(one)) for batch in batches]
  keys = [jax.random.key(config.seed) for config in configs]
  lowered = single.lower(on_device[0], rows[0], keys[0])
  gflop = lowered.cost_analysis()["flops"] / 1e9
  single, seconds = compiled(single, on_device[0], rows[0], keys[0])

  mesh, order = packed.place(trials, jax.devices())
  state, rng = packed.put(packed.stack(states, trainable), packed.numbers_of(configs), order, mesh)
  stacked = {key: np.stack([batches[number][key] for number in order]) for key in batches[0]}
  stacked = sharding.put_batch(stacked, sharding.over_batch(mesh))
  together = packed.compile_packed_step(packed.make_packed_step(configs, model, data), mesh)
  together, packed_seconds = compiled(together, state, stacked, rng)

  def separate():
    for number in range(trials):
      on_device[number], _ = single(on_device[number], rows[number], keys[number])
      jax.block_until_ready(on_device[number])  # a run of its own waits for nobody else's step

  def pack():
    nonlocal state
    state, _ = together(state, stacked, rng)
    jax.block_until_ready(state)

  return {"separate": separate, "packed": pack}, {"separate": seconds, "packed": packed_seconds}, gflop


def several(run, count):
  for _ in range(count):
    run()


def compare(case, trials, args):
  """One line of the result."""
  runs, compile_seconds, gflop = make(case, trials)
  several(runs["separate"], 1)
  start = time.perf_counter()
  runs["separate"]()
  # Turns of about `--seconds`, so that a step of milliseconds is not measured by a single one.
  count = max(1, round(args.seconds / (time.perf_counter() - start)))
  wall, _ = timing.take_turns({name: functools.partial(several, run, count) for name, run in runs.items()}, args.repeats)
  each = {name: [seconds / count / trials for seconds in turns] for name, turns in wall.items()}
  ratio = timing.median_ratio(wall, "separate", "packed")
  lost = statistics.median(each["packed"]) - statistics.median(each["separate"])
  saved = compile_seconds["separate"] - compile_seconds["packed"] / trials
  return {
      "case": case.name, **dataclasses.asdict(case), "trials": trials, "gflop_per_step": gflop, "steps_per_turn": count,
      "compile_seconds": compile_seconds, "trial_step_seconds": each, "speedup": ratio,
      "even_after_steps": saved / lost if lost > 0 < saved else None,
  }


def measure(args):
  """All cases, ready for JSON."""
  cases = CASES["gpu" if args.gpu else "cpu"]
  lines = []
  for case in cases:
    for trials in args.trials:
      lines.append(compare(case, trials, args))
      jax.clear_caches()
  return {"arguments": vars(args) | {"out": None}, **timing.machine(), "cases": lines}


def table(result):
  """The result as text."""
  lines = [f"{'case':<36}{'T':>2}{'GFLOP':>7}{'ms sep.':>9}{'packed':>8}{'speed':>7}{'compile s':>12}{'even at':>9}"]
  for line in result["cases"]:
    separate, together = (1e3 * statistics.median(line["trial_step_seconds"][name]) for name in ("separate", "packed"))
    seconds = line["compile_seconds"]
    even = "-" if line["even_after_steps"] is None else f"{line['even_after_steps']:.0f}"
    lines.append(f"{line['case'][:35]:<36}{line['trials']:>2}{line['gflop_per_step']:>7.2f}{separate:>9.1f}{together:>8.1f}"
                 f"{line['speedup']:>6.2f}x{seconds['separate']:>6.1f}{seconds['packed']:>6.1f}{even:>9}")
  if result["cases"]:
    lines.append("ms: of a step of one trial; compile s: of one separate program, of the packed one; even at: steps per trial")
  return "\n".join([*lines, f"{result['device']}, load {result['load_average']:.1f} on {result['cores']} cores"])


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--gpu", action="store_true", help="the cases of a GPU")
  parser.add_argument("--trials", type=lambda text: [int(part) for part in text.split(",")], default=[2, 4, 8], help="numbers of trials")
  parser.add_argument("--repeats", type=int, default=5, help="turns that count")
  parser.add_argument("--seconds", type=float, default=0.5, help="of a turn, about")
  timing.report(parser, measure, table)


if __name__ == "__main__":
  main()
