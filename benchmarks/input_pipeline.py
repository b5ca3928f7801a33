"""How many training images a second the input pipeline makes, against PyTorch's DataLoader and plain grain on the same cores.

  pip install torch
  python benchmarks/input_pipeline.py --out=docs/results/input-pipeline-cpu.json

JPEGs are drawn that compress like photos, persons of 256x256 and photos of 1024x768, and lie in the page cache. "train" resizes to
256x256, cuts one of five places in one of 25 sizes, resizes to 224x224 and mirrors every second image; "ten views" are five crops
of 224x224 and their mirror images. The systems:

  usual DataLoader    PIL, the same random choices, ToTensor and Normalize (written with torch), a process per core
  DataLoader, our fn  our decoding and augmentation in its processes, uint8
  plain grain         the same functions in MapDataset...random_map.batch, a thread per core, two batches per thread ahead
  ours, host          attr_jax.data.pipeline with a thread per core
  ours, device        the same, and the batches on the device, two ahead

They take turns; each turn first uses up what was made ahead, then counts batches for some seconds. Images per core-second are those
per second of processor time, of the process and of its children. Ratios are medians over turns. Pixels of ours are compared with
plain grain's. At the end ours runs for a while and its memory is watched. All of them read 20,000 files, links to the drawn
ones: grain's shuffle of a few hundred would cost more than the decoding.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time

# Threads of torch that spin while they wait would take the cores away from the others.
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}

import cv2
import grain
import jax
import numpy as np
import timing

from attr_jax import sharding
from attr_jax.data import images
from attr_jax.data import loader
from attr_jax.data import ops
from attr_jax.data import pipeline

SIZES = {"256x256": (256, 256), "1024x768": (768, 1024)}
SYSTEMS = {
    "usual": "usual DataLoader", "torch": "DataLoader, our fn", "grain": "plain grain", "host": "ours, host", "device": "ours, device"}
BARS = {("train 256x256", "usual"): 4.5, ("train 256x256", "grain"): 1.35, ("train 1024x768", "usual"): 4.0}
SAMPLES = 20_000
SPEC = pipeline.InputSpec(scaled_decode=True)
SEED = 1


def photo(height, width, rng):
  """uint8 [height, width, 3] with edges and detail of every scale: about 15 KB as a JPEG of 256x256, 150 KB of 1024x768."""
  image = np.full((height, width, 3), 128, np.float32)
  for octave in range(1, 8):
    cells = [max(2, side * 2**octave // 256 + 1) for side in (height, width)]
    noise = rng.normal(0, 44 / 2**(octave / 2), (*cells, 3)).astype(np.float32)
    image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
  image = np.clip(image, 0, 255).astype(np.uint8)
  for _ in range(12):
    place = int(rng.integers(width)), int(rng.integers(height))
    cv2.circle(image, place, int(rng.integers(4, height // 5)), rng.integers(0, 256, 3).tolist(), int(rng.choice([-1, 2])), cv2.LINE_AA)
  return image


class Files:
  """Raw samples from files; pickles as a list of paths."""

  def __init__(self, paths):
    self.paths = [str(path) for path in paths]

  def __len__(self):
    return SAMPLES

  def __getitem__(self, number):
    with open(self.paths[number % len(self.paths)], "rb", buffering=0) as file:
      data = file.read()
    return {"image": data, "label": np.zeros(14, np.uint8), "known": np.ones(14, np.bool_), "id": np.int64(number)}


def five_boxes(outer, inner):
  return [(left, top, left + inner[1], top + inner[0]) for top, left in ops.five_offsets(outer, inner)]


class UsualDataset:
  """What most people write."""

  def __init__(self, files, ten):
    self.files, self.ten = files, ten

  def __len__(self):
    return len(self.files)

  def __getitem__(self, number):
    import torch
    from PIL import Image

    image = Image.open(io.BytesIO(self.files[number]["image"])).convert("RGB").resize(SPEC.resize[::-1], Image.Resampling.BILINEAR)
    if self.ten:
      crops = [image.crop(box) for box in five_boxes(SPEC.resize, SPEC.size)]
      views = [*crops, *(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for crop in crops)]
      return torch.stack([self.to_tensor(view) for view in views])
    shapes = ops.crop_shapes(SPEC.resize, SPEC.heights)
    shape = shapes[int(torch.randint(len(shapes), ()))]
    image = image.crop(five_boxes(SPEC.resize, shape)[int(torch.randint(5, ()))]).resize(SPEC.size[::-1], Image.Resampling.BILINEAR)
    return self.to_tensor(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else image)

  @staticmethod
  def to_tensor(image):
    import torch

    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    return tensor.sub_(torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)).div_(torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))


class OurFunctionDataset(UsualDataset):
  """DataLoader's processes around our functions."""

  def __getitem__(self, number):
    import torch

    raw = self.files[number]
    sample = ten_views(raw) if self.ten else whole_augment(raw, np.random.default_rng((int(torch.randint(2**31, ())), number)))
    return torch.from_numpy(sample["image"])


def whole_augment(raw, rng):
  """The training view in steps that each make new arrays."""
  sample = ops.resize(pipeline.decode_sample(raw, at_least=SPEC.resize), SPEC.resize)
  box = ops.five_position_box(SPEC.resize, ops.crop_shapes(SPEC.resize, SPEC.heights), rng)
  return ops.random_flip(ops.resize(ops.crop(sample, box), SPEC.size), rng)


def ten_views(raw, out=None):
  """`image` uint8 [10, H, W, 3], in `out["image"]` if given."""
  image = np.empty((10, *SPEC.size, 3), np.uint8) if out is None else out["image"]
  sample = pipeline.evaluation_view(raw, spec=SPEC, views="five_crop", out={"image": image[:5]})
  for crop, mirrored in zip(image[:5], image[5:]):
    cv2.flip(crop, 1, dst=mirrored)
  return {**sample, "image": image}


def ten_view_draw(number, files):
  return lambda out: ten_views(files[number], out)


def torch_batches(dataset, batch, cores):
  try:
    from torch.utils import data
  except ModuleNotFoundError:
    raise SystemExit("torch is missing; install it with: pip install torch") from None
  # Not forked: threads of XLA would be missing in the copy.
  batches = data.DataLoader(dataset, batch, shuffle=True, num_workers=cores, persistent_workers=True, drop_last=True,
                            multiprocessing_context="spawn")
  while True:
    yield from batches


def grain_batches(files, batch, cores, ten):
  samples = grain.MapDataset.source(files)
  samples = samples.repeat().map(ten_views) if ten else samples.seed(SEED).shuffle().repeat().random_map(whole_augment)
  return iter(samples.batch(batch).to_iter_dataset(grain.ReadOptions(num_threads=cores, prefetch_buffer_size=2 * cores)))


def our_batches(files, batch, cores, ten):
  if not ten:
    return pipeline.train_iterator(pipeline.train_dataset(files, SPEC, batch_size=batch, seed=SEED), 0, cores)
  samples = grain.MapDataset.range(len(files)).repeat().map(functools.partial(ten_view_draw, files=files))
  return loader.read(loader.Batches(samples, batch), num_threads=cores)


def on_device(batches):
  rows = sharding.over_batch(sharding.make_mesh(jax.devices()[:1]))
  return loader.read_ahead(sharding.put_batch({"image": batch["image"]}, rows) for batch in batches)


def processor_seconds():
  """Of this process and of all its children that live."""
  total = time.process_time()
  for child in multiprocessing.active_children():
    fields = pathlib.Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
    total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
  return total


def take(batches, count=0, seconds=0.0):
  """Takes at least so many batches and for so long; returns (batches, wall seconds, processor seconds)."""
  start, processor, taken = time.perf_counter(), processor_seconds(), 0
  while taken < count or time.perf_counter() - start < seconds:
    jax.block_until_ready(next(batches))
    taken += 1
  return taken, time.perf_counter() - start, processor_seconds() - processor


def measure_case(files, ten, args):
  """The rates of all systems, from turns of some seconds."""
  batch, cores = max(1, args.batch // 8) if ten else args.batch, len(os.sched_getaffinity(0))
  made_ahead = 2 * cores + 4  # more than any of them has
  with contextlib.ExitStack() as stack:
    ours = stack.enter_context(contextlib.closing(our_batches(files, batch, cores, ten)))
    device_host = stack.enter_context(contextlib.closing(our_batches(files, batch, cores, ten)))
    systems = {
        "usual": stack.enter_context(contextlib.closing(torch_batches(UsualDataset(files, ten), batch, cores))),
        "torch": stack.enter_context(contextlib.closing(torch_batches(OurFunctionDataset(files, ten), batch, cores))),
        "grain": grain_batches(files, batch, cores, ten),
        "host": ours,
        "device": stack.enter_context(contextlib.closing(on_device(device_host))),
    }
    start_up = {name: take(batches, 1)[1] for name, batches in systems.items()}
    turns = {name: [] for name in systems}
    for _ in range(args.turns):
      for name, batches in systems.items():
        take(batches, made_ahead)
        turns[name].append(take(batches, 1, args.seconds))
    systems["grain"].close()
  wall = {name: [taken * batch / seconds for taken, seconds, _ in found] for name, found in turns.items()}
  core = {name: [taken * batch / seconds for taken, _, seconds in found] for name, found in turns.items()}
  against = lambda rates: {f"{name}/{base}": statistics.median(a / b for a, b in zip(rates[name], rates[base]))
                           for name in ("host", "device") for base in ("usual", "torch", "grain")}
  return {"batch": batch, "turns": turns, "start_up_seconds": start_up, "images_per_second": wall, "images_per_core_second": core,
          "ratio": against(wall), "core_ratio": against(core)}


def check_pixels(files, ten, count=100):
  """Raises AssertionError where a sample of ours is not that of plain grain."""
  with contextlib.closing(our_batches(files, 10, 3, ten)) as ours, contextlib.closing(grain_batches(files, 10, 1, ten)) as plain:
    for _ in range(count // 10):
      one, two = next(ours), next(plain)
      for key in two:
        np.testing.assert_array_equal(one[key], two[key])


def resident_kilobytes():
  return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def watch_memory(files, args):
  """Resident memory of ours while batches are made, and the slope of a line through its second half."""
  points, taken, seconds = [], 0, 0.0
  host = our_batches(files, args.batch, len(os.sched_getaffinity(0)), ten=False)
  with contextlib.closing(host), contextlib.closing(on_device(host)) as batches:
    while seconds < args.memory_seconds:
      found = take(batches, 10)
      taken, seconds = taken + found[0], seconds + found[1]
      points.append((taken, resident_kilobytes()))
  late = np.array(points[len(points) // 2:], np.float64)
  slope = 1000 * float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) if len(late) > 1 else float("nan")
  return {"batches": taken, "seconds": seconds, "kilobytes_first": points[0][1], "kilobytes_last": points[-1][1],
          "kilobytes_per_1000_batches": slope, "megabytes_per_hour": slope * taken / seconds * 3600 / 1000 / 1024}


def measure(args):
  """All figures, ready for JSON."""
  import PIL
  import torch

  with tempfile.TemporaryDirectory() as folder:
    rng, sources, kilobytes = np.random.default_rng(0), {}, {}
    for name, size in SIZES.items():
      data = [images.encode_jpeg(photo(*size, rng)) for _ in range(args.files if name == "256x256" else max(1, args.files // 4))]
      paths = [pathlib.Path(folder, f"{name}-{number}.jpg") for number in range(len(data))]
      for path, content in zip(paths, data):
        path.write_bytes(content)
      sources[name], kilobytes[name] = Files(paths), sum(map(len, data)) / len(data) / 1024
    cases = {}
    for views in args.views:
      for name, files in sources.items():
        check_pixels(files, views == "ten")
        cases[f"{views} {name}"] = measure_case(files, views == "ten", args)
    memory = watch_memory(sources["256x256"], args)
  return {
      "command": " ".join(["python", *sys.argv]), "arguments": vars(args) | {"out": None}, **timing.machine(),
      "versions": {"torch": torch.__version__, "pillow": PIL.__version__, "opencv": cv2.__version__, "numpy": np.__version__},
      "cores": len(os.sched_getaffinity(0)), "kilobytes_per_file": kilobytes, "equal_samples": 100, "cases": cases, "memory": memory,
      "bars": {f"{case}: host/{base}": bar for (case, base), bar in BARS.items()},
  }


def table(result):
  """The result in lines of at most 80 columns."""
  lines = []
  for case, found in result["cases"].items():
    size = result["kilobytes_per_file"][case.split()[1]]
    lines.append(f"{case + f', {size:.0f} KB':<24}{'images/s':>10}{'per core-s':>12}{'host x':>9}{'per core':>10}{'start s':>9}")
    for name, label in SYSTEMS.items():
      wall, core = (statistics.median(found[kind][name]) for kind in ("images_per_second", "images_per_core_second"))
      ratios = (f"{found[kind][f'host/{name}']:.2f}" if f"host/{name}" in found[kind] else "" for kind in ("ratio", "core_ratio"))
      lines.append(f"  {label:<22}{wall:>10.0f}{core:>12.0f}" + "{:>9}{:>10}".format(*ratios) + f"{found['start_up_seconds'][name]:>9.1f}")
    for (bar_case, base), bar in BARS.items():
      if bar_case == case:
        lines.append(f"  bar against {SYSTEMS[base]}: {bar}: {'met' if found['ratio'][f'host/{base}'] >= bar else 'missed'}")
  memory = result["memory"]
  lines += [f"memory over {memory['batches']} batches: {memory['kilobytes_first'] / 1024:.0f} to {memory['kilobytes_last'] / 1024:.0f} MB, "
            f"{memory['kilobytes_per_1000_batches']:+.0f} KB per 1,000 batches,",
            f"which is {memory['megabytes_per_hour']:+.1f} MB an hour at this rate (extrapolated from {memory['seconds']:.0f} s)",
            f"{result['equal_samples']} samples of each kind equal plain grain's; {result['device']},",
            f"load {result['load_average']:.1f} on {result['cores']} cores"]
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--files", type=int, default=256, help="to draw at 256x256; a quarter of that at 1024x768")
  parser.add_argument("--batch", type=int, default=64, help="images; an eighth of that with ten views")
  parser.add_argument("--views", nargs="+", default=["train", "ten"], choices=("train", "ten"))
  parser.add_argument("--turns", type=int, default=5, help="turns that count")
  parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
  parser.add_argument("--memory-seconds", type=float, default=60.0, help="how long memory is watched")
  timing.report(parser, measure, table)


if __name__ == "__main__":
  main()
