"""One's own photos: a folder of them, and a table of what can be seen on each.

  labels.csv      image,<attribute>,<attribute>,...[,split][,x,y,width,height]
  anywhere/a.jpg  photos of any kind that `attr_jax.data.images` decodes, in any folders below

One row per photo, or, with the four columns of a box, one per person in it.
Values are 1 (present), 0 (absent) or empty (unknown). The order of columns is
free; spreadsheets may write semicolons, a mark of byte order, backslashes in
paths and empty rows at the end.
"""

import csv
import hashlib
import io
import math
import pathlib

import numpy as np

from attr_jax.data.builders import records
from attr_jax.errors import InputError

_FILE, _IMAGE, _SPLIT, _BOX = "labels.csv", "image", "split", ("x", "y", "width", "height")
_VALUES = {"1": (1, True), "0": (0, True), "": (0, False)}  # label, known
# With so many more photos a split of a tenth gets one with a probability of 99 %: 1 - 0.9^44.
_ENOUGH = 44


class Builder(records.RecordsBuilder, skip_registration=True):
  """Whole photos, or crops where there are boxes, in the order in which the table first names each photo."""

  name = "own_photos"
  SIZE = (256, 256)
  RESIZE = (256, 256)
  IMAGE_SIZE = (224, 224)
  DESCRIPTION = "One's own photos with attributes of one's own; entries can be unknown."
  LICENCE = "that of your photos"
  CITATION = ""
  GROUPS = {}

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the table.

    Raises:
      InputError: It is missing or not as it should be, or a split is empty; names line and column.
    """
    path = source / _FILE
    (number, header), *rows = _read_table(path)
    names = _attributes(header, f"{path} line {number}")
    targets, lines, splits_of = {}, {}, {}
    for number, row in rows:
      where, cells = f"{path} line {number}", dict(zip(header, row))
      image = _image(cells[_IMAGE], where)
      target = _target(cells, names, where)
      if (image, target.box) in lines:
        raise InputError(f"{where}: {image} has a row {'with this box ' if target.box else ''}before, line {lines[image, target.box]}")
      split = _given_split(cells[_SPLIT], where) if _SPLIT in cells else drawn_split(image)
      before, line = splits_of.setdefault(image, (split, number))
      if before != split:
        raise InputError(f"{where} {_SPLIT}: {image} is in {before} by line {line}; all people of a photo belong to one split")
      lines[image, target.box] = number
      targets.setdefault(image, []).append(target)
    splits = {split: [] for split in records.SPLITS}
    for image, found in targets.items():
      splits[splits_of[image][0]].append(records.Photo(image, source / image, tuple(found)))
    _check_splits(splits, _SPLIT in header, path)
    return records.Annotations(names, {split: photos for split, photos in splits.items() if photos})


def drawn_split(image: str) -> str:
  """The split of a photo where the table does not say: eight tenths train, one val, one test (our choice).

  It depends on the path alone, so that photos that are added later move no other.

  Args:
    image: Path relative to the source folder, with "/".
  """
  place = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big") % 10
  return {0: "val", 1: "test"}.get(place, "train")


def _check_splits(splits: dict[str, list], given: bool, path: pathlib.Path) -> None:
  """Raises InputError where training would be without photos, or a drawn split is empty."""
  empty = [split for split, photos in splits.items() if not photos]
  if given and "train" in empty:
    raise InputError(f"{path}: column {_SPLIT} has no row of train, so there is nothing to train on")
  if not given and empty:
    count = sum(map(len, splits.values()))
    raise InputError(f"{path}: {count} photos are too few to split them 8:1:1 by their paths, none came to {' and '.join(empty)}; "
                     f"add photos ({_ENOUGH} more are nearly always enough) or a column {_SPLIT} of train, val and test")


def _read_table(path: pathlib.Path) -> list[tuple[int, list[str]]]:
  """The header and the rows, as (number of the line from 1, cells); empty rows are passed by."""
  if not path.is_file():
    raise InputError(f"{path}: missing; --source must be the folder that holds {_FILE} and the photos")
  try:
    text = path.read_bytes().decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = error.object.count(b"\n", 0, error.start) + 1
    raise InputError(f"{path} line {line}: not UTF-8; save the table as 'CSV UTF-8'") from None
  first = next((line for line in text.splitlines() if line.strip()), "")
  reader = csv.reader(io.StringIO(text, newline=None), delimiter="," if "," in first else ";", skipinitialspace=True, strict=True)
  try:
    rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
  except csv.Error as error:
    raise InputError(f"{path} line {reader.line_num}: not CSV ({error})") from None
  rows = [(number, row) for number, row in rows if any(row)]
  if len(rows) < 2:
    found = "no rows below the header" if rows else "empty"
    raise InputError(f"{path}: {found}; expected a header {_IMAGE},<attribute>,... and a row per photo")
  columns = len(rows[0][1])
  for number, row in rows:
    if len(row) != columns:
      raise InputError(f"{path} line {number}: expected {columns} values, as the header has, got {len(row)}")
  return rows


def _attributes(header: list[str], where: str) -> tuple[str, ...]:
  """The columns that are attributes, once the others are as they should be."""
  if _IMAGE not in header:
    raise InputError(f"{where}: no column {_IMAGE}; expected {_IMAGE},<attribute>,..., got {','.join(header)}")
  for place, name in enumerate(header):
    if not name:
      raise InputError(f"{where}: column {place + 1} has no name")
    if name in header[:place]:
      raise InputError(f"{where}: columns {header.index(name) + 1} and {place + 1} are both named {name}")
  lacking = [name for name in _BOX if name not in header]
  if 0 < len(lacking) < len(_BOX):
    raise InputError(f"{where}: no column {lacking[0]}; a box needs {', '.join(_BOX)}, all four or none")
  names = tuple(name for name in header if name not in (_IMAGE, _SPLIT, *_BOX))
  if not names:
    raise InputError(f"{where}: no attribute columns; expected {_IMAGE},<attribute>,..., got {','.join(header)}")
  return names


def _image(text: str, where: str) -> str:
  """The path of a photo as it lies below the source folder."""
  if pathlib.PureWindowsPath(text).is_absolute():
    raise InputError(f"{where} {_IMAGE}: {text!r} is not a path inside the data folder; expected a relative one")
  return str(records.check_relative(text.replace("\\", "/"), f"{where} {_IMAGE}"))


def _given_split(text: str, where: str) -> str:
  if text not in records.SPLITS:
    raise InputError(f"{where} {_SPLIT}: expected {', '.join(records.SPLITS[:-1])} or {records.SPLITS[-1]}, got {text!r}")
  return text


def _target(cells: dict[str, str], names: tuple[str, ...], where: str) -> records.Target:
  for name in names:
    if cells[name] not in _VALUES:
      raise InputError(f"{where} {name}: expected 1, 0 or nothing (unknown), got {cells[name]!r}")
  label, known = zip(*(_VALUES[cells[name]] for name in names))
  box = tuple(_number(cells[name], f"{where} {name}") for name in _BOX) if _BOX[0] in cells else None
  if box and min(box[2:]) <= 0:
    raise InputError(f"{where}: a box needs a width and a height above 0, got {box[2]:g} and {box[3]:g}")
  return records.Target(np.array(label, np.uint8), np.array(known, np.bool_), box)


def _number(text: str, where: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not abs(value) < records.MAX_COORDINATE:
    raise InputError(f"{where}: expected a number of pixels such as 12 or 12.5, got {text!r}")
  return value
