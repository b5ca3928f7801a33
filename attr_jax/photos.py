"""Photos that somebody names: files, folders, patterns, lists of names and tables of boxes; found one by one, read in threads.

Nothing here grows with the number of photos: names are found while earlier photos are answered, and a few are decoded ahead.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import concurrent.futures
import contextlib
import csv
import dataclasses
import glob
import io
import itertools
import math
import os
import pathlib
import sys
from typing import Any

import cv2
import numpy as np

from attr_jax.data import images as images_lib
from attr_jax.data.builders import records
from attr_jax.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # what is taken from a folder; a file that is named may have any
BOX = ("x", "y", "width", "height")  # as in the table of `data.builders.own_photos`
_FILE = ("file", "image")  # own_photos calls it "image", so that its labels.csv serves as well
_GROUP = 16  # boxes of one file that are cut from it at a time

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Photo:
  """An image file, or a box in one.

  Attributes:
    file: as it was named.
    box: (x, y, width, height) in pixels of the upright image; None for all of it.
    where: what an error names: the file, or the line of a table and the file.
    fault: why it cannot be used; "" as long as nothing is known against it.
  """

  file: pathlib.Path
  box: Box | None = None
  where: str = ""
  fault: str = ""

  def __str__(self) -> str:
    return self.where or str(self.file)


def find(names: Iterable[str]) -> Iterator[Photo]:
  """The photos that names stand for, in their order.

  A folder stands for the images in it and in all folders below, by extension and sorted; what begins with a dot is passed by. A
  pattern (*, ?, [ab], ** for any folders) stands for what it matches, sorted, unless a file has just that name.
  """
  for name in names:
    if os.path.isdir(name):
      yield from _or_fault(_in_folder(name), name, f"no image in this folder (looked for {' '.join(EXTENSIONS)})")
    elif glob.has_magic(name) and not os.path.lexists(name):
      yield from _or_fault(_matching(name), name, "no file has such a name")
    else:
      yield Photo(pathlib.Path(name))


def _or_fault(photos: Iterator[Photo], name: str, fault: str) -> Iterator[Photo]:
  first = next(photos, None)
  yield from [Photo(pathlib.Path(name), fault=fault)] if first is None else itertools.chain([first], photos)


def _in_folder(folder: str) -> Iterator[Photo]:
  """In the order of sorted paths; links to folders are not followed, so that no circle goes on for ever."""
  try:
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
  except OSError as error:
    yield Photo(pathlib.Path(folder), fault=error.strerror)
    return
  for entry in entries:
    if entry.name.startswith("."):
      continue
    if entry.is_dir(follow_symlinks=False):
      yield from _in_folder(entry.path)
    elif entry.name.lower().endswith(EXTENSIONS):
      yield Photo(pathlib.Path(entry.path))


def _matching(pattern: str) -> Iterator[Photo]:
  for name in sorted(glob.iglob(pattern, recursive=True)):
    if not os.path.isdir(name):
      yield Photo(pathlib.Path(name))
    elif "**" not in pattern:  # with ** the files in it match as well
      yield from _in_folder(name)


def listed(file: str) -> Iterator[str]:
  """The lines of a file, "-" for the standard input, each a name for `find`; empty ones are passed by.

  Raises:
    InputError: no such file.
  """
  try:
    lines = contextlib.nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb")
  except OSError as error:
    raise InputError(f"--list={file}: {error.strerror}") from None
  with lines as opened:
    for line in opened:
      if name := os.fsdecode(line.rstrip(b"\r\n")):
        yield name


def boxed(table: pathlib.Path) -> Iterator[Photo]:
  """The rows of a table of boxes; a bad row has a fault that names its line.

  Args:
    table: CSV with the columns `file` (or `image`), x, y, width, height, in pixels, in any order; others are passed by. Files are
      relative to the table's folder.

  Raises:
    InputError: no such table, no such columns, or no CSV.
  """
  try:
    text = open(table, encoding="utf-8-sig", errors="surrogateescape", newline="")
  except OSError as error:
    raise InputError(f"--boxes={table}: {error.strerror}") from None
  with text:
    head = text.readline()
    separator = "," if "," in head else ";"  # spreadsheets may write semicolons
    header = [name.strip() for name in next(csv.reader(io.StringIO(head), delimiter=separator), [])]
    file = next((name for name in _FILE if name in header), None)
    if file is None or not set(BOX) <= set(header):
      raise InputError(f"{table} line 1: expected the columns file,{','.join(BOX)}, got {head.strip()[:80] or 'nothing'}")
    rows = csv.reader(text, delimiter=separator, skipinitialspace=True, strict=True)
    while True:
      try:
        row = next(rows, None)
      except csv.Error as error:
        raise InputError(f"{table} line {rows.line_num + 1}: not CSV ({error})") from None
      if row is None:
        return
      if any(cell.strip() for cell in row):
        yield _of_row(row, header, file, table, f"{table} line {rows.line_num + 1}")


def _of_row(row: list[str], header: list[str], file: str, table: pathlib.Path, where: str) -> Photo:
  if len(row) != len(header):
    return Photo(table, where=where, fault=f"expected {len(header)} values, as the header has, got {len(row)}")
  cells = {name: cell.strip() for name, cell in zip(header, row)}
  if not cells[file]:
    return Photo(table, where=where, fault="no file is named")
  path = table.parent / cells[file].replace("\\", "/")
  box = tuple(_number(cells[name]) for name in BOX)
  for name, value in zip(BOX, box):
    if not abs(value) < records.MAX_COORDINATE:
      return Photo(path, where=where, fault=f"{name}: expected a number of pixels such as 12 or 12.5, got {cells[name]!r}")
  if min(box[2:]) <= 0:
    return Photo(path, where=where, fault=f"a box needs a width and a height above 0, got {box[2]:g} and {box[3]:g}")
  return Photo(path, box, f"{where}: {path}")


def _number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    return math.nan


def cut(image: np.ndarray, box: Box, margin: float = 0.0) -> np.ndarray:
  """The part of an image that `prepare` cuts for such a box: all pixels that it touches, clipped to the image.

  Args:
    image: uint8 [H, W, 3].
    box: (x, y, width, height).
    margin: share of the box's sides that is cut around it too.

  Raises:
    ImageError: no pixel of the box lies in the image.
  """
  rows, columns = image.shape[:2]
  left, top, right, bottom = records.clip_box(records.pixel_box(box), rows, columns)
  if right <= left or bottom <= top:
    raise images_lib.ImageError(f"the box lies outside of the image, which is {columns}x{rows}")
  left, top, right, bottom = records.clip_box(records.pixel_box(records.widen(box, margin)), rows, columns)
  return image[top:bottom, left:right]


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """The smallest copy of the same aspect that covers `size` (H, W), averaged over areas, as `prepare` stores it; never larger than the image."""
  small = records.shrunk_size(*image.shape[:2], size)
  return image if small == image.shape[:2] else cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)


def read(photos: Iterable[Photo], view: Callable[[np.ndarray], Any], *, margin: float = 0.0, ahead: int = 64,
         threads: int | None = None) -> Iterator[tuple[Photo, Any]]:
  """Photos in their order, decoded in threads, each with what `view` makes of it.

  Args:
    photos: of `find` and `boxed`; boxes that follow each other in one file are cut from one decoded image.
    view: of an image uint8 [H, W, 3] RGB; called in the threads.
    margin: see `cut`.
    ahead: photos that are read, at most (and the rest of a file's boxes), while the caller works.
    threads: default: one per core.

  Yields:
    (photo, what `view` gave), or (the photo with its fault, None).
  """
  waiting, count = collections.deque(), 0
  with concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count()) as pool:
    try:
      for group in _by_file(photos):
        waiting.append((len(group), pool.submit(_read_group, group, view, margin)))
        count += len(group)
        while count > ahead:
          taken, future = waiting.popleft()
          count -= taken
          yield from future.result()
      while waiting:
        yield from waiting.popleft()[1].result()
    finally:
      for _, future in waiting:
        future.cancel()


def _by_file(photos: Iterable[Photo]) -> Iterator[list[Photo]]:
  group: list[Photo] = []
  for photo in photos:
    if group and (len(group) == _GROUP or photo.box is None or group[-1].box is None or photo.file != group[-1].file):
      yield group
      group = []
    group.append(photo)
  if group:
    yield group


def _read_group(group: list[Photo], view: Callable[[np.ndarray], Any], margin: float) -> list[tuple[Photo, Any]]:
  """Photos of one file, which is decoded once."""
  if group[0].fault:
    return [(photo, None) for photo in group]
  try:
    image = images_lib.decode_image(group[0].file.read_bytes(), where="")
  except (OSError, ValueError, images_lib.ImageError) as error:  # ValueError: a zero byte in the name
    reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix(": ")
    return [(dataclasses.replace(photo, fault=reason or type(error).__name__), None) for photo in group]
  return [_viewed(photo, image, view, margin) for photo in group]


def _viewed(photo: Photo, image: np.ndarray, view: Callable[[np.ndarray], Any], margin: float) -> tuple[Photo, Any]:
  try:
    return photo, view(image if photo.box is None else cut(image, photo.box, margin))
  except images_lib.ImageError as error:
    return dataclasses.replace(photo, fault=str(error)), None
