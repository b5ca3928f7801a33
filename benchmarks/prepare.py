"""How fast `prepare` is on one core and on all, how much memory it takes, and what a prepared data set saves in training.

  python benchmarks/prepare.py --out=docs/results/prepare-cpu.json

Draws scenes with people (worlds/people, 360 to 640 px wide) and prepares them at 256 px, as whole runs of `prepare` in processes
of their own that may use one core or all; they take turns. The memory is the most that such a process has held, and what of it
it held before it began (Python and its modules), for the scenes and for a set with each of them four times.

Then a sample is made ready in both ways, from the bytes of the original file and from the prepared record, up to the 256x256
pixels that a crop is taken from: persons cut from their scene, and whole photos of 1024x768 (several scenes side by side), which
a JPEG decoder can also shrink while it decodes. The faster way to read the originals counts.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time

import cv2
import numpy as np
import simplejpeg
import timing

from attr_jax.data import images
from attr_jax.data import prepare as prepare_lib
from attr_jax.data import registry
from attr_jax.data import worlds
from attr_jax.data.builders import records

SPEED_UP_BAR, DECODE_BAR = 1.7, 2.5
PHOTO = (768, 1024)  # height, width


def peak_megabytes():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prepare_on(cores, source, data_dir, results):
  """Work of one process: puts (seconds, MB before it began, most MB) into `results`."""
  os.sched_setaffinity(0, cores)
  cv2.setNumThreads(0)
  before, start = peak_megabytes(), time.perf_counter()
  prepare_lib.prepare("wider_attribute", source=source, data_dir=data_dir, size=256, progress=False, allow_deviations=True)
  results.put((time.perf_counter() - start, before, peak_megabytes()))


def repeat_source(source, target, times):
  """A set with every scene of `source` several times, under other names."""
  for file in ("wider_attribute_trainval.json", "wider_attribute_test.json"):
    content, entries = json.loads((source / file).read_text()), []
    for image, number in itertools.product(content["images"], range(times)):
      path = pathlib.PurePosixPath(image["file_name"])
      name = str(path.with_name(f"{number}-{path.name}"))
      (target / "Image" / name).parent.mkdir(parents=True, exist_ok=True)
      os.link(source / "Image" / path, target / "Image" / name)
      entries.append({**image, "file_name": name})
    (target / file).write_text(json.dumps({**content, "images": entries}))
  os.symlink(source / "Mask", target / "Mask")


def run_prepare(cores, source, data_dir):
  context = multiprocessing.get_context("spawn")
  results = context.SimpleQueue()
  process = context.Process(target=prepare_on, args=(cores, source, data_dir, results))
  process.start()
  process.join()
  if process.exitcode:
    raise SystemExit(process.exitcode)
  return results.get()


def measure_prepare(args, source, folder):
  """Images a second on one core and on all, and the memory of each run."""
  available = sorted(os.sched_getaffinity(0))
  systems = {"one core": available[:1], "all cores": available}
  runs = {name: [] for name in systems}
  for turn in range(args.repeats):
    for name, cores in systems.items():
      runs[name].append(run_prepare(cores, source, folder / f"{name}-{turn}"))
  return {name: {"seconds": [seconds for seconds, _, _ in found], "megabytes_before": found[0][1],
                 "megabytes_most": max(most for _, _, most in found)} for name, found in runs.items()}


def ready(image):
  return cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)


def person_from_scene(data, box):
  image = images.decode_jpeg(data)
  left, top, right, bottom = records.clip_box(records.pixel_box(box), *image.shape[:2])
  return ready(image[top:bottom, left:right])


def person_cases(source, dataset):
  """Ways to read a person -> one function without arguments per sample."""
  content = json.loads((source / "wider_attribute_trainval.json").read_text())
  scenes = [image for image in content["images"] if image["file_name"].startswith("train/")]
  files = {image["file_name"]: (source / "Image" / image["file_name"]).read_bytes() for image in scenes}
  targets = [(files[image["file_name"]], target["bbox"]) for image in scenes for target in image["targets"]]
  samples = [sample["image"] for sample in dataset.source("train")]
  assert len(targets) == len(samples)  # in one order, nothing dropped
  return {"original": [lambda t=target: person_from_scene(*t) for target in targets],
          "prepared": [lambda s=sample: ready(images.decode_jpeg(s)) for sample in samples]}


def photo_cases(source, count):
  """The same of whole photos, each as many scenes side by side as fill it."""
  paths = itertools.cycle(sorted((source / "Image" / "train").rglob("*.jpg")))
  photos = []
  for _ in range(count):
    tiles = [images.decode_jpeg(next(paths).read_bytes())[:360, :360] for _ in range(9)]
    rows = [np.concatenate(tiles[start:start + 3], axis=1) for start in (0, 3, 6)]
    photos.append(np.concatenate(rows)[:PHOTO[0], :PHOTO[1]])
  originals = [images.encode_jpeg(photo) for photo in photos]
  small = records.shrunk_size(*PHOTO, (256, 256))
  prepared = [images.encode_jpeg(cv2.resize(photo, small[::-1], interpolation=cv2.INTER_AREA)) for photo in photos]
  return {
      "original": [lambda o=original: ready(images.decode_jpeg(o)) for original in originals],
      "original, shrunk in the decoder": [
          lambda o=original: ready(simplejpeg.decode_jpeg(o, min_height=256, min_width=256)) for original in originals],
      "prepared": [lambda p=data: ready(images.decode_jpeg(p)) for data in prepared],
  }


def measure_decoding(cases, repeats):
  """Seconds per image of each way, in turns over the same samples, in one thread."""
  runs = {name: (lambda calls=calls: [call() for call in calls]) for name, calls in cases.items()}
  wall, _ = timing.take_turns(runs, repeats)
  counts = {name: len(calls) for name, calls in cases.items()}
  seconds = {name: [value / counts[name] for value in values] for name, values in wall.items()}
  best = min((name for name in seconds if name != "prepared"), key=lambda name: statistics.median(seconds[name]))
  return {"images": counts["prepared"], "seconds_per_image": seconds, "against": best, "ratio": timing.median_ratio(seconds, best, "prepared")}


def measure(args):
  """All figures, ready for JSON."""
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    source = folder / "source"
    worlds.synthesize("people", source, count=args.count, seed=0, progress=False)
    found = measure_prepare(args, source, folder)
    repeat_source(source, folder / "large", 4)
    large = run_prepare(sorted(os.sched_getaffinity(0)), folder / "large", folder / "large-prepared")
    prepared = registry.open_dataset("wider_attribute", folder / "all cores-0")
    total = sum(prepared.info.splits.values())
    decoding = {"persons in scenes": measure_decoding(person_cases(source, prepared), args.repeats),
                "photos of 1024x768": measure_decoding(photo_cases(source, 60), args.repeats)}
  return {
      "command": " ".join(["python", *sys.argv]), "arguments": vars(args) | {"out": None}, **timing.machine(), "samples": total, "prepare": found,
      "megabytes_most_four_times": large[2], "megabytes_before_four_times": large[1],
      "speed_up": statistics.median(one / several for one, several in zip(*(run["seconds"] for run in found.values()))),
      "images_per_second": {name: total / statistics.median(run["seconds"]) for name, run in found.items()},
      "decoding": decoding, "bars": {"speed_up": SPEED_UP_BAR, "decoding": DECODE_BAR},
  }


def verdict(value, bar):
  return f"{value:.2f} times, bar {bar}: {'met' if value >= bar else 'missed'}"


def table(result):
  """The result in lines of at most 80 columns."""
  lines = [f"{'prepare':<12}{'images/s':>10}{'seconds':>10}{'most MB':>10}{'MB before':>11}"]
  for name, run in result["prepare"].items():
    lines.append(f"{name:<12}{result['images_per_second'][name]:>10.0f}{statistics.median(run['seconds']):>10.2f}"
                 f"{run['megabytes_most']:>10.0f}{run['megabytes_before']:>11.0f}")
  lines += [f"{'four times':<32}{result['megabytes_most_four_times']:>10.0f}{result['megabytes_before_four_times']:>11.0f}",
            f"{result['samples']} people; all {result['cores']} cores against one: {verdict(result['speed_up'], SPEED_UP_BAR)}", ""]
  for title, found in result["decoding"].items():
    lines.append(title)
    for name, seconds in found["seconds_per_image"].items():
      lines.append(f"  {name:<34}{1e3 * statistics.median(seconds):>8.3f} ms")
    lines.append(f"  prepared is faster {verdict(found['ratio'], DECODE_BAR)} (against: {found['against']})")
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--count", type=int, default=3000, help="people to draw")
  parser.add_argument("--repeats", type=int, default=5, help="turns that count")
  timing.report(parser, measure, table)


if __name__ == "__main__":
  main()
