"""COCO's annotation files: reading and checking what every data set made of COCO needs.

They have up to 450 MB of text, which as Python objects is 3 GB, so entries are read one by one.
"""

from collections.abc import Callable, Iterator
import pathlib
import reprlib

import ijson

from attr_jax.data.builders import records
from attr_jax.errors import InputError

LICENCE = "annotations CC BY 4.0; each photo under its own Flickr licence (field license of its entry)"
CITATION = ("Lin, Maire, Belongie, Hays, Perona, Ramanan, Dollar, Zitnick. Microsoft COCO: Common Objects in Context. "
            "ECCV 2014.")

# Folder of photos -> their published number.
_PHOTOS = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}

# Id of a photo -> (file in its folder, (height, width)).
Images = dict[int, tuple[pathlib.PurePosixPath, tuple[int, int]]]


def entries(path: pathlib.Path, key: str) -> Iterator[tuple[object, str]]:
  """Reads one list of an annotation file whose name ends in a split and a year, as `instances_train2014.json`.

  Args:
    path: Of the file.
    key: Of the list, such as "images".

  Yields:
    (entry, file and place of it for error messages).

  Raises:
    InputError: Missing, no JSON, or without such a list.
  """
  if not path.is_file():
    year = path.stem[-4:]
    raise InputError(f"{path}: missing; --source must be the folder that holds annotations/, train{year}/ and val{year}/")
  row = -1
  try:
    with path.open("rb") as file:
      for row, entry in enumerate(ijson.items(file, f"{key}.item", use_float=True)):
        yield entry, f"{path} {key}[{row}]"
    if row < 0:  # an empty list, or none
      with path.open("rb") as file:
        value({key: next(ijson.items(file, key), None)}, key, "a list", str(path))
  except ijson.JSONError as error:
    raise InputError(f"{path}: not valid JSON ({' '.join(str(error).split())})") from None


def photo_files(path: pathlib.Path) -> Images:
  """All photos of an annotation file in its order.

  Raises:
    InputError: An entry is not as it should be, or an id comes twice.
  """
  photos = {}
  for entry, where in entries(path, "images"):
    photo = value(entry, "id", "an integer", where)
    if photo in photos:
      raise InputError(f"{where} id: {photo} is the id of an earlier photo")
    size = value(entry, "height", "a positive integer", where), value(entry, "width", "a positive integer", where)
    photos[photo] = records.check_relative(entry.get("file_name"), f"{where} file_name"), size
  return photos


def check_photo(photo: int, photos: Images, where: str) -> None:
  """Checks that an annotation belongs to one of `photos`.

  Raises:
    InputError: The file does not list the photo; `where` names the annotation.
  """
  if photo not in photos:
    raise InputError(f"{where}: image_id {photo} is not the id of any of the images")


def deviations(split: str, folder: str, count: int) -> list[str]:
  """One line where `count`, the number of photos of a folder such as "train2014", is not the published one; `split` begins it."""
  published = _PHOTOS[folder]
  return [] if count == published else [f"{split}: {count} photos, published {published}"]


def _is_integer(candidate: object) -> bool:
  return isinstance(candidate, int) and not isinstance(candidate, bool)


def is_number(candidate: object) -> bool:
  """Whether a value of a JSON file is a finite number, and not so large that sums of two are none."""
  return isinstance(candidate, (int, float)) and not isinstance(candidate, bool) and abs(candidate) < records.MAX_COORDINATE


_KINDS: dict[str, Callable[[object], bool]] = {
    "a list": lambda candidate: isinstance(candidate, list),
    "a text": lambda candidate: isinstance(candidate, str) and candidate.strip() != "",
    "an integer": _is_integer,
    "a positive integer": lambda candidate: _is_integer(candidate) and candidate > 0,
    "an integer of 24 bits": lambda candidate: _is_integer(candidate) and 0 <= candidate < 1 << 24,
    "0 or 1": lambda candidate: _is_integer(candidate) and candidate in (0, 1),
    "a finite number": is_number,
    "four finite numbers [x, y, width, height]": lambda candidate: (
        isinstance(candidate, list) and len(candidate) == 4 and all(map(is_number, candidate))),
}


def value(entry: object, key: str, kind: str, where: str):
  """Returns entry[key], checked.

  Args:
    entry: Value of a JSON file that should be an object.
    key: Of that object.
    kind: Key of `_KINDS`.
    where: File and place of the entry, for the error message.

  Raises:
    InputError: No object, or its value is not of that kind.
  """
  if not isinstance(entry, dict):
    raise InputError(f"{where}: expected an object with {key!r}, got {reprlib.repr(entry)}")
  if not _KINDS[kind](entry.get(key)):
    raise InputError(f"{where} {key}: expected {kind}, got {reprlib.repr(entry.get(key))}")
  return entry[key]
