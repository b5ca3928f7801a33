"""Synthetic data sets, drawn in the original layouts of the real ones.

The drawing code is imported only when something is drawn.
"""

import fcntl
import importlib
import pathlib

from attr_jax.errors import InputError

# World -> the data sets that read its layouts. The faces are already cut, so `celeba`, which reads original photos, has none.
WORLDS = {
    "people": ("wider_attribute",),
    "people_alone": ("wider_attribute",),
    "people_crowded": ("wider_attribute",),
    "faces": ("celeba_aligned", "helen"),
    "faces_loose": ("celeba_aligned", "helen"),
    "artworks": ("imet2019",),
}
# World -> what sets it apart from the one it is a variation of.
_OPTIONS = {"people_alone": {"crowd": "alone"}, "people_crowded": {"crowd": "crowded"}, "faces_loose": {"framing": "loose"}}


def synthesize(world: str, out: pathlib.Path, *, count: int, seed: int, progress: bool = True) -> dict:
  """Draws `count` units of a world (people: boxes, faces: photos, artworks: pictures) into the new folder `out`; same seed, same bytes.

  Args:
    world: A key of WORLDS.
    out: A folder that is missing or empty.
    count: At least 1.
    seed: At least 0.
    progress: Show a bar.

  Returns:
    Counts, as the world's own `synthesize` gives them.

  Raises:
    InputError: No such world, count or seed out of range, or `out` is not empty.
  """
  _check(world)
  module = importlib.import_module(f"attr_jax.data.worlds.{world.partition('_')[0]}")
  return module.synthesize(pathlib.Path(out), count=count, seed=seed, progress=progress, **_OPTIONS.get(world, {}))


def ensure(world: str, folder: pathlib.Path, *, count: int, seed: int, size: int | str | tuple[int, int] | None,
           margin: float = 0.0, progress: bool = True) -> None:
  """Draws a world inside `folder` and prepares all data sets that read it, unless they are there already.

  Of several processes that need the same world one draws, and the others wait for it.

  Args:
    world: A key of WORLDS.
    folder: `source` in it holds the drawings, the prepared data sets lie beside it.
    count: As for `synthesize`.
    seed: Likewise.
    size: Prepared size (H, W), "256x128" or one number, in pixels; None = default of each data set.
    margin: What to cut around each box, as a share of its sides.
    progress: Show bars.

  Raises:
    InputError: As `synthesize` and `prepare.prepare`.
  """
  _check(world)
  from attr_jax.data import prepare

  folder = pathlib.Path(folder)
  source = folder / "source"
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / ".lock").open("a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not source.exists():
      synthesize(world, source, count=count, seed=seed, progress=progress)
    for name in WORLDS[world]:
      # Nothing is published of what we draw.
      prepare.prepare(name, source=source, data_dir=folder, size=size, margin=margin, progress=progress, allow_deviations=True)


def _check(world: str):
  if world not in WORLDS:
    raise InputError(f"world {world!r} is unknown; there are: {', '.join(WORLDS)}")
