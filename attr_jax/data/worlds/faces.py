"""Synthetic faces in the original layouts of CelebA (Liu 2015) and of the face parsing labels of Helen (Le 2012, Smith 2013).

    img_align_celeba/000001.jpg ...    photos, 178 x 218 pixels (width x height)
    list_attr_celeba.txt               count, names, then a row of 1 and -1 per photo
    list_eval_partition.txt            0 = train, 1 = val, 2 = test
    list_landmarks_align_celeba.txt    count, names, then x and y of five points, pixels
    SmithCVPR2013_dataset_resized/
      images/<stem>.jpg                photos of other faces
      labels/<stem>/<stem>_lblNN.png   eleven soft masks each, 0..255
      exemplars.txt tuning.txt testing.txt     rows "number , stem": train, val, test

Left is always left in the photo, for landmarks, brows and eyes alike. Masks show
what can be seen: ears, neck, clothes, hats, dark lenses, and what stands in front
are background; beards are skin; eyes and brows behind clear glasses are
themselves.
"""

import contextlib
import pathlib

import cv2
import numpy as np
import simplejpeg
import tqdm

from attr_jax.data.worlds import common
from attr_jax.data.worlds import face_draw
from attr_jax.data.worlds.face_look import ATTRIBUTES, sample_look
from attr_jax.data.worlds.face_sheet import soft_masks

SPLITS = ("train", "val", "test")  # in the order of CelebA's 0, 1, 2
PARSING_FOLDER = "SmithCVPR2013_dataset_resized"
PARSING_LISTS = ("exemplars.txt", "tuning.txt", "testing.txt")  # train, val, test
LANDMARKS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
_MIN_PARSING = 20
_MIN_PER_PROCESS = 150  # photos; below, starting a process costs more than it saves


def split_counts(count: int) -> dict[str, int]:
  """Photos per split, in order of their numbers: a tenth for validation, a tenth for test, the rest for training."""
  part = count // 10
  return {"train": count - 2 * part, "val": part, "test": part}


def parsing_count(count: int) -> int:
  """Photos with masks that come with `count` photos with attributes: a quarter more, at least 20."""
  return max(_MIN_PARSING, count // 4)


def synthesize(out: pathlib.Path, *, count: int, seed: int = 0, framing: str = "aligned", workers: int | None = None,
               progress: bool = True) -> dict:
  """Draws `count` photos with attributes, and `parsing_count(count)` of other faces with masks, into the folder `out`.

  The bytes are a function of (count, seed, framing) alone: each photo is drawn from
  (seed, which set, its number), so the number of `workers` (processes;
  default: one per core where the work is worth it) changes nothing.
  `out` appears whole or not at all.

  Args:
    out: A folder that is missing or empty.
    count: At least 1.
    seed: At least 0.
    framing: A key of `face_draw.FRAMINGS`.
    workers: Processes.
    progress: Show a bar.

  Returns:
    Counts: images, images per split, parsing images.

  Raises:
    InputError: count, seed or workers out of range; `out` is not empty.
  """
  out = pathlib.Path(out)
  common.check_call(out, count=count, seed=seed, workers=workers)
  splits, parsing = split_counts(count), parsing_count(count)
  jobs = [(framing, seed, with_masks, number) for with_masks, most in ((False, count), (True, parsing)) for number in range(1, most + 1)]
  workers = workers or common.default_workers(len(jobs), _MIN_PER_PROCESS)
  with common.whole_folder(out) as root:
    (root / "img_align_celeba").mkdir()
    for folder in ("images", "labels"):
      (root / PARSING_FOLDER / folder).mkdir(parents=True)
    with contextlib.closing(common.draw_all(_draw_job, root, jobs, workers)) as drawn:
      entries = list(tqdm.tqdm(drawn, total=len(jobs), desc="faces", unit="face", ncols=80, disable=not progress))
    _write_attributes(root / "list_attr_celeba.txt", entries[:count])
    _write_landmarks(root / "list_landmarks_align_celeba.txt", entries[:count])
    partition = np.repeat(range(3), [splits[split] for split in SPLITS])
    (root / "list_eval_partition.txt").write_text("".join(f"{_name(i)} {part}\n" for i, part in enumerate(partition, 1)))
    _write_parsing_lists(root / PARSING_FOLDER, parsing)
  return {"images": count, **splits, "parsing": parsing}


def _name(number: int) -> str:
  return f"{number:06d}.jpg"


def _stem(number: int) -> str:
  """Of a photo with masks; Helen's stems look like 100032540_1."""
  return f"{100000000 + number}_1"


def _draw_job(root: pathlib.Path, framing: str, seed: int, parsing: bool, number: int) -> tuple[list, list]:
  """Draws one photo and writes its files; returns its 40 attributes (bool) and 10 coordinates (int)."""
  rng = np.random.default_rng([seed, int(parsing), number])
  look = sample_look(rng)
  drawing = face_draw.draw_face(rng, look, face_draw.FRAMINGS[framing])
  jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(drawing.image), quality=int(rng.integers(72, 96)), colorsubsampling="420")
  if parsing:
    stem = _stem(number)
    (root / PARSING_FOLDER / "images" / f"{stem}.jpg").write_bytes(jpeg)
    folder = root / PARSING_FOLDER / "labels" / stem
    folder.mkdir()
    for index, mask in enumerate(soft_masks(drawing.region)):
      _, png = cv2.imencode(".png", mask)
      (folder / f"{stem}_lbl{index:02d}.png").write_bytes(png.tobytes())
  else:
    (root / "img_align_celeba" / _name(number)).write_bytes(jpeg)
  return list(look.attributes.values()), np.rint(drawing.landmarks).astype(int).ravel().tolist()


def _write_attributes(path: pathlib.Path, entries: list):
  """As the original file: two blanks before a 1, one before a -1, lines that end with CR and LF."""
  rows = [f"{_name(i)} {' '.join(f'{1 if value else -1:2d}' for value in values)}" for i, (values, _) in enumerate(entries, 1)]
  path.write_bytes("".join(f"{line}\r\n" for line in (len(rows), " ".join(ATTRIBUTES) + " ", *rows)).encode())


def _write_landmarks(path: pathlib.Path, entries: list):
  names = " ".join(f"{name}_{axis}" for name in LANDMARKS for axis in "xy")
  rows = [f"{_name(i)} {' '.join(f'{value:4d}' for value in points)}" for i, (_, points) in enumerate(entries, 1)]
  path.write_text("".join(f"{line}\n" for line in (len(rows), names, *rows)))


def _write_parsing_lists(folder: pathlib.Path, count: int):
  first = 1
  for name, size in zip(PARSING_LISTS, split_counts(count).values()):
    (folder / name).write_text("".join(f"{row} , {_stem(first + row - 1)}\n" for row in range(1, size + 1)))
    first += size
