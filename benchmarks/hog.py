"""How many images a second `attr_jax.nn.hog` describes, against scikit-image on the same cores.

  pip install scikit-image
  python benchmarks/hog.py --out=docs/results/hog-cpu.json

The descriptor is the usual one: 8 orientations, cells of 16 x 16 px, blocks of 3 x 3 cells. Ours takes whole batches of
bytes from numpy and gives numpy back. scikit-image takes one image at a time, in one process and in one process for each
core. They take turns in short rounds, so that whatever else the machine does hits all of them. The ratio is ours over the
better of the two, the median over rounds; the bar is 20. Of ours and the single process the processor time is measured
too, which a shared machine disturbs less.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time

import jax
import numpy as np
import timing

from attr_jax.nn import hog as hog_lib

BAR = 20
OPTIONS = {"orientations": 8, "cell_size": (16, 16), "block_size": (3, 3)}
SYSTEMS = {"ours": "ours, jit", "one": "scikit-image, 1 process", "all": "scikit-image, all cores"}


def noise(count, size, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def scikit_hog(image):
  from skimage import feature

  return feature.hog(image, *OPTIONS.values(), channel_axis=-1)


def describe_noise(count, size, seed):
  """Work of one process. It draws its images and keeps the descriptors, so that only the description is timed.

  Returns:
    (start, end) in seconds of a clock that all processes share.
  """
  images = noise(count, size, seed)
  start = time.monotonic()
  for image in images:
    scikit_hog(image)
  return start, time.monotonic()


def run_ours(args, batch, descriptors):
  """(wall, processor) seconds per image."""
  start, processor = time.perf_counter(), time.process_time()
  for _ in range(args.batches):
    np.asarray(descriptors(batch))
  count = args.batches * args.batch
  return (time.perf_counter() - start) / count, (time.process_time() - processor) / count


def run_one(args, batch):
  start, processor = time.perf_counter(), time.process_time()
  for image in batch[:args.images]:
    scikit_hog(image)
  return (time.perf_counter() - start) / args.images, (time.process_time() - processor) / args.images


def run_all(args, pool, cores):
  """From the first start to the last end; processor time of other processes is not measured."""
  spans = pool.starmap(describe_noise, [(args.images, args.size, i) for i in range(cores)], chunksize=1)
  start, end = min(span[0] for span in spans), max(span[1] for span in spans)
  return (end - start) / (args.images * cores), None


def measure(args):
  """The times of all systems and what they were measured on, ready for JSON."""
  import skimage

  cores = len(os.sched_getaffinity(0))
  batch = noise(args.batch, args.size)
  descriptors = jax.jit(lambda images: hog_lib.hog(images, **OPTIONS))
  found = np.asarray(descriptors(batch))  # compiles
  difference = max(float(abs(found[i] - scikit_hog(batch[i])).max()) for i in range(args.images))
  # Not forked: threads of XLA would be missing in the copy.
  with multiprocessing.get_context("spawn").Pool(cores) as pool:
    runs = {
        "ours": lambda: run_ours(args, batch, descriptors),
        "one": lambda: run_one(args, batch),
        "all": lambda: run_all(args, pool, cores),
    }
    rounds = [{name: run() for name, run in runs.items()} for _ in range(args.rounds + 1)][1:]  # the first is a warm-up
  wall, processor = ({name: [r[name][kind] for r in rounds] for name in runs} for kind in (0, 1))
  return {
      "command": " ".join(["python", *sys.argv]),
      "arguments": vars(args) | {"out": None},
      "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
      "versions": {
          "python": sys.version.split()[0],
          "jax": jax.__version__,
          "numpy": np.__version__,
          "scikit-image": skimage.__version__,
      },
      "cores": cores,
      "load_average": os.getloadavg()[0],
      "values": found.shape[1],
      "largest_difference": difference,
      "seconds_per_image": wall,
      "processor_seconds_per_image": {name: processor[name] for name in ("ours", "one")},
      "images_per_second": {name: 1 / statistics.median(wall[name]) for name in runs},
      "ratio": statistics.median(min(one, several) / ours for ours, one, several in zip(*wall.values())),
      "processor_ratio": statistics.median(one / ours for ours, one in zip(processor["ours"], processor["one"])),
      "bar": BAR,
  }


def table(result):
  """The result in a few lines of at most 80 columns."""
  lines = [f"{'system':<26} {'images/s':>9} {'ms/image':>9} {'fastest':>8} {'processor ms':>13}"]
  for name, label in SYSTEMS.items():
    seconds, processor = result["seconds_per_image"][name], result["processor_seconds_per_image"].get(name)
    lines.append(f"{label:<26} {result['images_per_second'][name]:>9.1f} {1e3 * statistics.median(seconds):>9.3f} "
                 f"{1e3 * min(seconds):>8.3f} " + (f"{1e3 * statistics.median(processor):>13.3f}" if processor else f"{'':>13}"))
  verdict = "met" if result["ratio"] >= BAR else "missed"
  lines.append(f"{result['ratio']:.1f} times the better one, bar {BAR}: {verdict}; "
               f"{result['processor_ratio']:.1f} times in processor time")
  lines.append(f"{result['values']} values, largest difference {result['largest_difference']:.0e}; {result['device']}, "
               f"load {result['load_average']:.1f} on {result['cores']} cores")
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--size", type=int, default=224, help="side of the images in px")
  parser.add_argument("--batch", type=int, default=64, help="images that ours takes at once")
  parser.add_argument("--batches", type=int, default=4, help="of ours in each round")
  parser.add_argument("--images", type=int, default=16, help="of scikit-image in each round and process")
  parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
  timing.report(parser, measure, table)


if __name__ == "__main__":
  main()
