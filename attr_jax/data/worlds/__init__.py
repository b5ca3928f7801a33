"""Synthetic data sets, drawn in the original layouts of the real ones.

The drawing code is imported only when something is drawn.
"""

import pathlib

from attr_jax.errors import InputError

# world -> the data set whose original layout it has
WORLDS = {"people": "wider_attribute"}


def synthesize(world: str, out: pathlib.Path, *, count: int, seed: int, progress: bool = True) -> dict:
  """Draws `count` units of a world into the new folder `out`; same seed, same bytes."""
  if world not in WORLDS:
    raise InputError(f"world {world!r} is unknown; there are: {', '.join(WORLDS)}")
  from attr_jax.data.worlds import people

  return people.synthesize(pathlib.Path(out), count=count, seed=seed, progress=progress)


def ensure(world: str, folder: pathlib.Path, *, count: int, seed: int, size: int | None, progress: bool = True) -> None:
  """Draws and prepares a world inside `folder` unless it is there already."""
  from attr_jax.data import prepare

  folder = pathlib.Path(folder)
  source = folder / "source"
  if not source.exists():
    synthesize(world, source, count=count, seed=seed, progress=progress)
  prepare.prepare(WORLDS[world], source=source, data_dir=folder, size=size, progress=progress)
