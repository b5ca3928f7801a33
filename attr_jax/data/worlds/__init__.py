"""Synthetic data sets, drawn in the original layouts of the real ones.

The drawing code is imported only when something is drawn.
"""

import importlib
import pathlib

from attr_jax.errors import InputError

# world -> the prepared data set that reads its layout; None where no reader is here yet
WORLDS = {"people": "wider_attribute", "faces": None}


def synthesize(world: str, out: pathlib.Path, *, count: int, seed: int, progress: bool = True) -> dict:
  """Draws `count` units of a world (people: boxes, faces: photos) into the new folder `out`; same seed, same bytes."""
  _check(world)
  module = importlib.import_module(f"attr_jax.data.worlds.{world}")
  return module.synthesize(pathlib.Path(out), count=count, seed=seed, progress=progress)


def ensure(world: str, folder: pathlib.Path, *, count: int, seed: int, size: int | None, progress: bool = True) -> None:
  """Draws and prepares a world inside `folder` unless it is there already.

  Raises:
    InputError: no such world, or none that can be prepared.
  """
  _check(world)
  if WORLDS[world] is None:
    raise InputError(f"world {world!r} can be drawn (attr-jax synthesize {world}) but no reader prepares it yet")
  from attr_jax.data import prepare

  folder = pathlib.Path(folder)
  source = folder / "source"
  if not source.exists():
    synthesize(world, source, count=count, seed=seed, progress=progress)
  prepare.prepare(WORLDS[world], source=source, data_dir=folder, size=size, progress=progress)


def _check(world: str):
  if world not in WORLDS:
    raise InputError(f"world {world!r} is unknown; there are: {', '.join(WORLDS)}")
