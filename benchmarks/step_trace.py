"""Where the time of a training step goes: convolutions, batch norm, the rest, waiting for input, gaps.

  python benchmarks/step_trace.py --out=docs/results/step-trace-cpu.json

Trains a few steps on drawn people, with the real input pipeline, under jax's profiler. Operations of the compiled step are
told apart by what XLA fused into them and by the layer that they come from. Shares are of the time of the threads (or the
stream) that ran them; input is the time that the loop waited for its batch, gaps are the wall time in which nothing ran.
"""

import argparse
import collections
import functools
import pathlib
import sys
import tempfile
import time

import jax
import numpy as np

import timing

from attr_jax import cli
from attr_jax import evaluate
from attr_jax import hlo
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
from attr_jax.data import pipeline
from attr_jax.data import worlds

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
KINDS = {"convolution": ("convolution", "dot", "custom-call"), "pooling": ("reduce-window", "select-and-scatter"),
         "communication": ("all-reduce", "all-gather", "reduce-scatter")}


def contents(text):
  """Instruction of a compiled program -> (operations in it, the layer it comes from)."""
  bodies, found = collections.defaultdict(set), hlo.instructions(text)
  for one in found:
    bodies[one.body].add(one.operation)
  return {one.name: (bodies[one.calls] if one.calls else {one.operation}, one.layer) for one in found}


def kind(operations, layer):
  for name, members in KINDS.items():
    if operations & set(members):
      return name
  if hlo.of_norm(layer):
    return "batch norm, ReLU"
  return "element by element" if "Model" in layer else "other"


def events(folder):
  """(name of the instruction, start, end) in ns of all that the profiler saw on devices."""
  path = next(pathlib.Path(folder).rglob("*.xplane.pb"))
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        yield dict(event.stats).get("hlo_op", event.name), event.start_ns, event.start_ns + event.duration_ns


def covered(spans):
  """Length of the union of (start, end)."""
  total, last = 0, -np.inf
  for start, end in sorted(spans):
    total += max(0, end - max(start, last))
    last = max(last, end)
  return total


def measure(args):
  """Shares of a run of `args.steps` steps, ready for JSON."""
  config = cli.load_config(f"{REPOSITORY}/configs/baseline.py", [])
  config.model.depth, config.batch_size, config.compute_dtype = str(args.depth), args.batch, args.dtype
  config.input.size, config.input.resize = (args.size, args.size), (args.size * 8 // 7, args.size * 8 // 7)
  config.input.crop_sizes = tuple(args.size * 8 // 7 * size // 256 for size in config.input.crop_sizes)
  mesh = sharding.make_mesh()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    worlds.ensure("people", folder / "data", count=max(200, 4 * args.batch), seed=0, size=config.input.resize, progress=False)
    config.data.dir = str(folder / "data")
    data = evaluate.open_data(config)
    source, spec = data.source("train"), evaluate.input_spec(config, data.info)
    model = models.build(config.model, len(data.info.label_names), config.compute_dtype)
    schedule = optim.make_schedule(config, 1000, 1000)
    tx = optim.make_optimizer(config, schedule)
    state = state_lib.create_state(model, tx, (*config.input.size, 3), {}, mesh, seed=0)
    step = steps.compile_train_step(
        steps.make_train_step(model, train.make_objective(config, data.info), tx, schedule, config, mesh), mesh)
    rows, key, waited = sharding.over_batch(mesh), jax.random.key(0), 0.0
    batches = pipeline.train_iterator(pipeline.train_dataset(source, spec, batch_size=args.batch, seed=0), num_threads=config.input.threads)
    put = functools.partial(sharding.put_batch, sharding=rows)
    first = put(next(batches))
    text = step.lower(state, first, key).compile().as_text()
    for _ in range(2):
      state, _ = step(state, put(next(batches)), key)
    jax.block_until_ready(state)
    with jax.profiler.trace(str(folder / "trace")):
      begin = time.perf_counter()
      for _ in range(args.steps):
        start = time.perf_counter()
        batch = put(next(batches))
        waited += time.perf_counter() - start
        state, _ = step(state, batch, key)
      jax.block_until_ready(state)
      wall = time.perf_counter() - begin
    batches.close()
    known, busy, spans = contents(text), collections.Counter(), []
    for name, start, end in events(folder / "trace"):
      if name in known:
        busy[kind(*known[name])] += (end - start) / 1e9
        spans.append((start, end))
  return {
      "command": " ".join(["python", *sys.argv]), "arguments": vars(args) | {"out": None}, **timing.machine(),
      "wall_seconds": wall, "input_seconds": waited, "gap_seconds": wall - covered(spans) / 1e9, "operation_seconds": dict(busy),
  }


def table(result):
  total, wall = sum(result["operation_seconds"].values()), result["wall_seconds"]
  args = result["arguments"]
  lines = [f"ResNet-{args['depth']}, batch {args['batch']}, {args['size']} px, {args['dtype']}: {1e3 * wall / args['steps']:.0f} ms a step",
           f"{'operations':<24}{'seconds':>10}{'share':>9}"]
  lines += [f"  {name:<22}{seconds:>10.3f}{100 * seconds / total:>8.1f}%"
            for name, seconds in sorted(result["operation_seconds"].items(), key=lambda item: -item[1])]
  lines += [f"{'of ' + format(wall, '.2f') + ' s wall time':<24}{'':>10}{'':>9}",
            f"  {'waiting for input':<22}{result['input_seconds']:>10.3f}{100 * result['input_seconds'] / wall:>8.1f}%",
            f"  {'gaps':<22}{result['gap_seconds']:>10.3f}{100 * result['gap_seconds'] / wall:>8.1f}%"]
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--depth", default="50", help="of the ResNet: 18, 34, 50, 101 or tiny")
  parser.add_argument("--size", type=int, default=224, help="side of the images in px")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument("--steps", type=int, default=4, help="that are traced")
  timing.report(parser, measure, table)


if __name__ == "__main__":
  main()
