"""What the decoder of AttnCNN-RNN adds to the training step of its ResNet, and the memory that the step takes.

  python benchmarks/attncnn_step.py --out=attncnn_step.json

The step is the paper's: six views of each of 32 artworks, 1,103 labels, a frozen ResNet-50 at 224 px. The two programs, with
and without the decoder, are compiled first and then take turns. The ratio is the median over turns; the bar is 1.15, and
24 GB for the memory: arguments, results and temporaries by XLA's own count, and the peak of this process.
"""

import functools
import pathlib
import resource
import statistics

import numpy as np

from attr_jax import cli
from attr_jax import models
from attr_jax.models import attncnn_rnn
import timing

BAR, GIGABYTES = 1.15, 24
SYSTEMS = ("baseline", "attncnn_rnn")
CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "attncnn_rnn.py"


def make_run(system, args):
  """`timing.compiled_step` of a system on random views."""
  config = cli.load_config(f"{CONFIG}:system={system}", [])
  config.batch_size, config.input.size, config.model.depth = args.batch, (args.size, args.size), args.depth
  config.compute_dtype = args.dtype
  model = models.build(config.model, args.labels, config.compute_dtype)
  ratio = np.full(args.labels, 0.003, np.float32)
  objective = functools.partial(attncnn_rnn.objective, positive_ratio=ratio, **config.loss)
  rng = np.random.default_rng(0)
  label = (rng.random((args.batch, 6, args.labels)) < ratio).astype(np.uint8)
  batch = {
      "image": rng.integers(0, 256, (args.batch, 6, args.size, args.size, 3), np.uint8),
      "label": label[:, 0],
      "view_label": label,
      "known": np.ones((args.batch, args.labels), bool),
      "id": np.arange(args.batch),
  }
  return timing.compiled_step(config, model, objective, batch, models.trainable_groups("attncnn_rnn", config.loss))


def measure(args):
  """The times and the memory of both systems, ready for JSON."""
  made = {system: make_run(system, args) for system in SYSTEMS}
  return timing.compare(made, "attncnn_rnn", "baseline", args) | {
      "bar": BAR,
      "step_gigabytes": {system: timing.bytes_of(program) / 1e9 for system, (_, _, program) in made.items()},
      "peak_gigabytes_of_the_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
      "bar_gigabytes": GIGABYTES,
  }


def table(result):
  """The result in a few lines of text."""
  lines = [f"{'system':<14} {'s median':>9} {'s fastest':>9} {'images/s':>9} {'step GB':>8} {'compile s':>10}"]
  for system in SYSTEMS:
    seconds = result["step_seconds"][system]
    median = statistics.median(seconds)
    lines.append(f"{system:<14} {median:>9.2f} {min(seconds):>9.2f} {result['arguments']['batch'] / median:>9.2f} "
                 f"{result['step_gigabytes'][system]:>8.2f} {result['compile_seconds'][system]:>10.1f}")
  verdict = lambda met: "met" if met else "missed"
  processor = f" (processor time {result['processor_ratio']:.3f})" if result["processor_ratio"] else ""
  peak = result["peak_gigabytes_of_the_process"]
  lines.append(f"with / without decoder: {result['ratio']:.3f}{processor}; bar {BAR}: {verdict(result['ratio'] <= BAR)}")
  lines.append(f"peak of the process, both programs in it: {peak:.1f} GB; bar {GIGABYTES}: {verdict(peak <= GIGABYTES)}")
  lines.append(f"{result['device']}, load {result['load_average']:.1f} on {result['cores']} cores")
  return "\n".join(lines)


if __name__ == "__main__":
  timing.main(__doc__, measure, table, batch=32, labels=1103, repeats=3)
