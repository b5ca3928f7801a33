"""What all synthetic worlds share: folders that appear whole, processes, chances, colours, shapes.

In all files of this folder `rng` is a `np.random.Generator` and a function of it depends on nothing else, colours are RGB
triples in 0..255, and outlines are float [N, 2] (x, y) with y down. What people, faces and pictures look like, and every share
of them, is our choice where no source is named.
"""

import colorsys
import concurrent.futures
import contextlib
import functools
import math
import multiprocessing
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from attr_jax.errors import InputError


def check_call(out: pathlib.Path, *, count: int, seed: int, workers: int | None):
  """Refuses what no world can draw.

  Raises:
    InputError: `count` or `workers` below 1, a `seed` below 0, or `out` is no empty folder.
  """
  if count <= 0:
    raise InputError(f"count must be at least 1, got {count}")
  if seed < 0:
    raise InputError(f"seed must not be negative, got {seed}")
  if workers is not None and workers <= 0:
    raise InputError(f"workers must be at least 1, got {workers}")
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise InputError(f"{out} exists and is not an empty folder; choose another --out or remove it")


def default_workers(count: int, least: int) -> int:
  """One process per core, but none for less than `least` units of the `count`."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  return max(1, min(cores, count // least))


@contextlib.contextmanager
def whole_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder to write into, which becomes `out` (missing or empty so far) at the end; after an error nothing is left of it."""
  out.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
  try:
    yield temporary
    temporary.chmod(0o755)  # mkdtemp makes private folders
    if out.exists():
      out.rmdir()
    temporary.rename(out)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise


def draw_all(draw: Callable, root: pathlib.Path, jobs: list, workers: int) -> Iterator:
  """Yields `draw(root, *job)` of each job, in order; `draw` is a function of a module, since other processes import it.

  Close it (contextlib.closing) before the folder is removed, so that no process still writes into it. An Exception of `draw`
  reaches the caller. `workers` is the number of processes; 1 draws in this one.
  """
  if workers == 1:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pictures are too small to share
    try:
      for job in jobs:
        yield draw(root, *job)
    finally:
      cv2.setNumThreads(threads)
    return
  # Spawned, not forked: a parent that runs jax has threads.
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
    try:
      yield from pool.map(draw, [root] * len(jobs), *zip(*jobs), chunksize=8)
    except BaseException:
      pool.shutdown(wait=True, cancel_futures=True)
      raise


def chance(rng, share: float, shift: float = 0.0) -> bool:
  """A coin that is True with a probability of `share`, between 0 and 1, its log-odds moved by `shift`."""
  odds = share / (1 - share) * math.exp(shift)
  return bool(rng.random() < odds / (1 + odds))


def pick(rng, weights: dict) -> str:
  """A key, in proportion to its weight."""
  rest = rng.random() * sum(weights.values())
  for key, weight in weights.items():
    rest -= weight
    if rest < 0:
      break
  return key


def hsv(h: float, s: float, v: float) -> tuple:
  """RGB in 0..255 of a hue `h` in turns with saturation `s` and value `v`, both clipped to 0..1."""
  return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(h % 1.0, min(max(s, 0), 1), min(max(v, 0), 1)))


def cloth(rng, dark: float = 0.0) -> tuple:
  """Any colour of cloth; a third of them greys, whites and blacks, more by the share `dark`, and darker."""
  if rng.random() < 0.35 + dark:
    return hsv(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.12, 0.35) if rng.random() < 0.45 + dark else rng.uniform(0.4, 0.95))
  return hsv(rng.random(), rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.95 - 0.4 * dark))


def contrast(rng, colour: tuple) -> tuple:
  """A colour of cloth that can be told from `colour`."""
  while True:
    other = cloth(rng)
    if math.dist(colour, other) > 88:
      return other


def shade(colour, factor: float) -> tuple:
  """A colour made darker or brighter by a factor; floats up to 255."""
  r, g, b = colour
  return min(255.0, r * factor), min(255.0, g * factor), min(255.0, b * factor)


@functools.lru_cache(None)
def circle(count: int) -> np.ndarray:
  """`count` points [count, 2] of the circle of radius 1 around (0, 0), from (1, 0) on; shared, not to be written to."""
  angle = np.arange(count) * (2 * np.pi / count)
  return np.stack([np.cos(angle), np.sin(angle)], 1)


def oval(center, rx: float, ry: float, count: int = 20) -> np.ndarray:
  """`count` points [count, 2] of an upright ellipse with half axes `rx` and `ry`."""
  return circle(count) * (rx, ry) + center
