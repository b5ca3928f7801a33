"""Synthetic works of art in the original layout of the iMet Collection 2019 (Zhang 2019).

    labels.csv         attribute_id,attribute_name: ids from 0; names "culture::..." first, then "tag::..."
    train.csv          id,attribute_ids: ids of pictures in ascending order, of labels apart by blanks
    train/<id>.png     RGB; the shorter side has one length, the aspect is mostly 0.5 to 2

Every picture has one culture and one to six tags. Cultures can be seen anywhere in
a picture, by palette and texture together; most tags are things in one place.
"""

import contextlib
import hashlib
import pathlib

import cv2
import numpy as np
import tqdm

from attr_jax.data.worlds import artwork_draw
from attr_jax.data.worlds import artwork_labels
from attr_jax.data.worlds import common
from attr_jax.errors import InputError

LABELS = artwork_labels.LABELS
possible_pairs = artwork_labels.possible_pairs
_MIN_PER_PROCESS = 150  # pictures; below, starting a process costs more than it saves
_SMALLEST = 32  # pixels; below, nothing can be told apart


def synthesize(out: pathlib.Path, *, count: int, seed: int = 0, short: int = 112, workers: int | None = None,
               progress: bool = True) -> dict:
  """Draws `count` pictures into the folder `out`.

  The bytes are a function of (count, seed, short) alone: the labels are drawn
  first, then each picture from (seed, its number), so the number of `workers`
  (processes; default: one per core where the work is worth it) changes nothing.
  `out` appears whole or not at all.

  Args:
    out: A folder that is missing or empty.
    count: Number of pictures. Labels that would come once or twice in a small set are left out of it.
    seed: At least 0.
    short: Shorter side of the pictures in pixels, at least 32.
    workers: Processes.
    progress: Show a bar.

  Returns:
    Counts: images, labels that occur.

  Raises:
    InputError: count, seed, short or workers out of range; `out` is not empty.
  """
  out = pathlib.Path(out)
  common.check_call(out, count=count, seed=seed, workers=workers)
  if short < _SMALLEST:
    raise InputError(f"short must be at least {_SMALLEST} pixels, got {short}")
  kinds = artwork_labels.draw_kinds(count, seed)
  jobs = [(seed, number, kind, short) for number, kind in enumerate(kinds)]
  workers = workers or common.default_workers(count, _MIN_PER_PROCESS)
  with common.whole_folder(out) as root:
    (root / "train").mkdir()
    with contextlib.closing(common.draw_all(_draw_job, root, jobs, workers)) as drawn:
      names = list(tqdm.tqdm(drawn, total=count, desc="artworks", unit="img", ncols=80, disable=not progress))
    (root / "labels.csv").write_text("".join(f"{line}\n" for line in (
        "attribute_id,attribute_name", *(f"{number},{label}" for number, label in enumerate(LABELS)))))
    rows = sorted((name, " ".join(map(str, kind.labels))) for name, kind in zip(names, kinds))
    (root / "train.csv").write_text("".join(f"{name},{labels}\n" for name, labels in [("id", "attribute_ids"), *rows]))
  return {"images": count, "labels": len({label for kind in kinds for label in kind.labels})}


def picture_id(seed: int, number: int) -> str:
  """Id of picture `number`, a function of both: sixteen hexadecimal digits, some of them with zeros in front."""
  return hashlib.sha256(f"{seed} {number}".encode()).hexdigest()[:16]


def _draw_job(root: pathlib.Path, seed: int, number: int, kind: artwork_labels.Kind, short: int) -> str:
  """Draws one picture and writes its file; returns its id."""
  rng = np.random.default_rng([seed, number])
  image = artwork_draw.draw_artwork(rng, artwork_draw.sample_look(rng, kind, short))
  _, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
  name = picture_id(seed, number)
  (root / "train" / f"{name}.png").write_bytes(png.tobytes())
  return name
