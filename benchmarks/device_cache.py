"""How near training comes to the rate of its step alone when the images lie on the device, and what the host's decoding costs.

  python benchmarks/device_cache.py --out=docs/results/device-cache-cpu.json
  python benchmarks/device_cache.py --depth=50 --size=224 --batch=256 --dtype=bfloat16 --count=20000 --steps=50 --threads=16

One compiled training step (the baseline model, 14 labels) is fed in three ways that take turns, forwards and backwards: with one
batch that stays on the device ("synthetic"), from the device cache, and by the host's pipeline from JPEGs in memory. All
three read the scalars of the step before, as the loop does. Every turn opens its feed anew, so that nobody decodes in the
turn of another, takes two steps to warm up, and then counts; what the host has read ahead by then is counted in its favour.
The ratio is the rate from the cache over that of the synthetic batch, the median over turns; the bar is 0.98. The cache's turns
begin with the second epoch: the first one is the filling, whose seconds are told apart. How long the program takes that cuts
a batch is measured by itself as well: its share of the step is what the cache costs where the host keeps up. On a CPU the
processor time is measured too, which a shared machine disturbs less.
"""

import argparse
import contextlib
import functools
import itertools
import statistics
import sys
import time

import cv2
import jax
import numpy as np

from attr_jax import config as config_lib
from attr_jax import device_cache
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax.data import images
from attr_jax.data import pipeline
import timing

BAR = 0.98
LABELS, DISTINCT, WARM_UP = 14, 64, 2
FEEDS = {"synthetic": "one batch on the device", "cache": "device cache", "host": "host pipeline"}


def make_config(args):
  config = config_lib.default_config()
  config.data.cache, config.model.depth, config.compute_dtype = "device", args.depth, args.dtype
  config.batch_size, config.input.threads = args.batch, args.threads
  side = args.size * 8 // 7
  config.input.resize, config.input.size = (side, side), (args.size, args.size)
  config.input.crop_sizes = tuple(int(side * ratio) for ratio in (1, 0.875, 0.75, 0.66, 0.5))
  return config


def make_source(count, side):
  """Raw samples; their JPEGs repeat after DISTINCT ones."""
  rng, encoded = np.random.default_rng(0), []
  for _ in range(DISTINCT):
    coarse = rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    encoded.append(images.encode_jpeg(cv2.add(image, rng.integers(0, 24, image.shape, np.uint8))))
  return [{"image": encoded[i % DISTINCT], "label": rng.integers(0, 2, LABELS).astype(np.uint8), "known": np.ones(LABELS, bool),
           "id": np.int64(i)} for i in range(count)]


class Trainer:
  """A state and its compiled step; reads the scalars one step late."""

  def __init__(self, config, mesh):
    model = models.build(config.model, LABELS, config.compute_dtype)
    ratio = np.full(LABELS, 0.5, np.float32)
    objective = functools.partial(models.MODELS[config.model.name].objective, positive_ratio=ratio, loss="bce")
    schedule = optim.make_schedule(config, 1000, 1000)
    tx = optim.make_optimizer(config, schedule)
    self.state = state_lib.create_state(model, tx, (*config.input.size, 3), {}, mesh, seed=0)
    self.step = steps.compile_train_step(steps.make_train_step(model, objective, tx, schedule, config, mesh), mesh)
    self.key = jax.random.key(0)

  def run(self, batches, count):
    """(wall, processor) seconds per step; waits for the last state."""
    start, processor, scalars = time.perf_counter(), time.process_time(), None
    for _ in range(count):
      before = scalars
      self.state, scalars = self.step(self.state, next(batches), self.key)
      jax.device_get(before)
    jax.block_until_ready((self.state, scalars))
    return (time.perf_counter() - start) / count, (time.process_time() - processor) / count


def measure(args):
  """All figures, ready for JSON."""
  config, mesh = make_config(args), sharding.make_mesh()
  sharding.check_batch("--batch", args.batch, mesh)
  rows = sharding.over_batch(mesh)
  spec = pipeline.InputSpec(resize=config.input.resize, size=config.input.size, crop_sizes=config.input.crop_sizes, masks=False)
  source = make_source(args.count, config.input.resize[0])
  second_epoch = -(-args.count // args.batch)
  host_batches = pipeline.train_dataset(source, spec, batch_size=args.batch, seed=0)
  draws = pipeline.view_dataset(args.count, spec, batch_size=args.batch, seed=0)
  view = device_cache.compile_view(spec, mesh)
  start = time.perf_counter()
  samples = jax.block_until_ready(device_cache.upload(source, spec, mesh, threads=args.threads))
  fill_seconds = time.perf_counter() - start
  resident = sharding.put_batch(host_batches[0], rows)
  trainer = Trainer(config, mesh)

  @contextlib.contextmanager
  def synthetic():
    yield itertools.repeat(resident)

  @contextlib.contextmanager
  def cache():
    with contextlib.closing(pipeline.train_iterator(draws, second_epoch, num_threads=1)) as drawn:
      yield device_cache.cut_batches(samples, view, mesh, drawn)

  @contextlib.contextmanager
  def host():
    with contextlib.closing(pipeline.train_iterator(host_batches, second_epoch, args.threads)) as batches:
      yield (sharding.put_batch(batch, rows) for batch in batches)

  feeds = {"synthetic": synthetic, "cache": cache, "host": host}
  wall, processor = {name: [] for name in feeds}, {name: [] for name in feeds}
  for turn in range(args.repeats + 1):
    for name in (feeds if turn % 2 else reversed(feeds)):
      with feeds[name]() as batches:
        trainer.run(batches, WARM_UP)
        seconds = trainer.run(batches, args.steps)
      if turn:  # the first one compiles
        wall[name].append(seconds[0])
        processor[name].append(seconds[1])
  drawn = sharding.put_batch(draws[0], rows)["view"]
  alone, _ = timing.take_turns({"view": lambda: jax.block_until_ready(view(samples, drawn))}, args.steps)
  on_cpu = jax.default_backend() == "cpu"
  rate = lambda seconds, name: timing.median_ratio(seconds, "synthetic", name)
  return {
      "command": " ".join(["python", *sys.argv]), "arguments": vars(args) | {"out": None}, **timing.machine(),
      "cache_bytes": sum(value.nbytes for value in samples.values()), "jpeg_bytes": sum(len(raw["image"]) for raw in source),
      "fill_seconds": fill_seconds, "step_seconds": wall, "processor_seconds": processor if on_cpu else None,
      "view_seconds": alone["view"], "compiled_steps": trainer.step._cache_size(),
      "ratio": rate(wall, "cache"), "processor_ratio": rate(processor, "cache") if on_cpu else None,
      "host_ratio": rate(wall, "host"), "host_processor_ratio": rate(processor, "host") if on_cpu else None, "bar": BAR,
  }


def table(result):
  """The result in lines of at most 80 columns."""
  batch, processor = result["arguments"]["batch"], result["processor_seconds"]
  lines = [f"{'batches from':<25}{'ms/step':>10}{'fastest':>10}{'images/s':>10}" + (f"{'processor ms':>15}" if processor else "")]
  for name, label in FEEDS.items():
    seconds = result["step_seconds"][name]
    median = statistics.median(seconds)
    lines.append(f"{label:<25}{1e3 * median:>10.2f}{1e3 * min(seconds):>10.2f}{batch / median:>10.1f}"
                 + (f"{1e3 * statistics.median(processor[name]):>15.2f}" if processor else ""))
  view = statistics.median(result["view_seconds"])
  share = view / statistics.median(result["step_seconds"]["synthetic"])
  lines.append(f"cutting a batch by itself: {1e3 * view:.2f} ms, {100 * share:.2f} % of the step")
  gigabytes, encoded = result["cache_bytes"] / 1e9, result["jpeg_bytes"] / 1e9
  lines.append(f"filling: {result['arguments']['count']} images, {gigabytes:.3f} GB (JPEG {encoded:.3f}) in {result['fill_seconds']:.1f} s")
  in_processor_time = lambda ratio: f" (processor time {ratio:.3f})" if ratio else ""
  lines.append(f"cache / synthetic: {result['ratio']:.3f}{in_processor_time(result['processor_ratio'])}; "
               f"bar {result['bar']}: {'met' if result['ratio'] >= result['bar'] else 'missed'}")
  lines.append(f"host / synthetic: {result['host_ratio']:.3f}{in_processor_time(result['host_processor_ratio'])}")
  lines.append(f"{result['device']}, load {result['load_average']:.1f} on {result['cores']} cores")
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--depth", default="18", help="of the ResNet: 18, 34, 50, 101 or tiny")
  parser.add_argument("--size", type=int, default=112, help="side of the input in px; the stored images have 8/7 of it")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument("--count", type=int, default=2000, help="images in the data set")
  parser.add_argument("--threads", type=int, default=2, help="that decode")
  parser.add_argument("--steps", type=int, default=6, help="of a turn")
  parser.add_argument("--repeats", type=int, default=5, help="turns that count")
  timing.report(parser, measure, table)


if __name__ == "__main__":
  main()
