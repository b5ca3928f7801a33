"""What VAC's training step costs: four views (ACfs) against the baseline's one, at the same batch, trunk and input.

  python benchmarks/vac_step.py --depth=50 --size=224 --batch=16 --out=vac_step.json

Both programs are compiled first and then take turns, so that whatever else the machine does hits both. The ratio is the
median over turns. Twice the large image and twice the small one (6/7 of its side) are 3.5 times the pixels; the bar is 4.4
times the time. On a CPU the processor time of the steps is measured too, which a shared machine disturbs less.
"""

import functools
import statistics

import numpy as np

from attr_jax import config as config_lib
from attr_jax import models
import timing

BAR = 4.4
SYSTEMS = {"baseline": {}, "vac": {"transforms": "fs"}}


def make_run(name, options, args):
  """`timing.compiled_step` of one system on random data."""
  config = config_lib.default_config()
  config.model.name, config.model.depth = name, args.depth
  config.model.update(options)
  config.batch_size, config.input.size = args.batch, (args.size, args.size)
  config.compute_dtype = args.dtype
  model = models.build(config.model, args.labels, config.compute_dtype)
  ratio = np.full(args.labels, 0.3, np.float32)
  objective = functools.partial(models.MODELS[name].objective, positive_ratio=ratio, loss="exp_ratio")
  rng = np.random.default_rng(0)
  batch = {
      "image": rng.integers(0, 256, (args.batch, args.size, args.size, 3), np.uint8),
      "label": rng.integers(0, 2, (args.batch, args.labels)).astype(np.uint8),
      "known": np.ones((args.batch, args.labels), bool),
      "id": np.arange(args.batch),
  }
  return timing.compiled_step(config, model, objective, batch)


def measure(args):
  """The times of all systems and what they were measured on, ready for JSON."""
  made = {name: make_run(name, options, args) for name, options in SYSTEMS.items()}
  return timing.compare(made, "vac", "baseline", args) | {"bar": BAR}


def table(result):
  """The result in a few lines of text."""
  batch = result["arguments"]["batch"]
  lines = [f"{'system':<10} {'views':>5} {'ms median':>10} {'ms fastest':>10} {'samples/s':>10} {'compile s':>10}"]
  for name, views in (("baseline", 1), ("vac", 4)):
    seconds = result["step_seconds"][name]
    median = statistics.median(seconds)
    lines.append(f"{name:<10} {views:>5} {1e3 * median:>10.1f} {1e3 * min(seconds):>10.1f} {batch / median:>10.1f} "
                 f"{result['compile_seconds'][name]:>10.1f}")
  verdict = "met" if result["ratio"] <= BAR else "missed"
  processor = f" (processor time {result['processor_ratio']:.2f})" if result["processor_ratio"] else ""
  lines.append(f"VAC / baseline: {result['ratio']:.2f}{processor}; bar {BAR}: {verdict}. {result['device']}, "
               f"load {result['load_average']:.1f} on {result['cores']} cores")
  return "\n".join(lines)


if __name__ == "__main__":
  timing.main(__doc__, measure, table, batch=16, labels=14, repeats=10)
