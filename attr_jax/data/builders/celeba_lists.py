"""The lists of CelebA and of what is made of it: text files with a row of numbers per photo."""

import dataclasses
import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data import images
from attr_jax.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class PhotoList:
  """One list: a row of numbers per photo.

  Attributes:
    path: Of its file.
    columns: Names of the columns, or () where the file has none.
    rows: Name of a photo -> number of its row, in file order.
    lines: Number of a row -> number of its line in the file, from 1.
    values: float64 [N, C].
  """

  path: archives.File
  columns: tuple[str, ...]
  rows: dict[str, int]
  lines: list[int]
  values: np.ndarray

  def where(self, row: int) -> str:
    """File and line of a row, for error messages."""
    return f"{self.path} line {self.lines[row]}"


def find(source: archives.File, name: str, needed: bool = True) -> archives.File | None:
  """The file of a list; None where it is not there.

  Args:
    source: Folder of the download.
    name: Such as "Anno/list_attr_celeba"; it may also lie in the source folder itself, and be a .txt or .csv.
    needed: Whether it must be there.

  Raises:
    InputError: It is needed and missing.
  """
  names = [f"{place}{suffix}" for suffix in (".txt", ".csv") for place in (name, name.split("/")[1])]
  path = next((source / name for name in names if (source / name).is_file()), None)
  if path is None and needed:
    raise InputError(f"{source}: a list is missing; expected {', '.join(names[:-1])} or {names[-1]}")
  return path


def read(path: archives.File, expected: str, allowed: tuple[int, ...] | None = None, columns: int | None = None) -> PhotoList:
  """Reads one list.

  Args:
    path: CSV where its suffix says so, else separated by blanks.
    expected: What a value should be, for error messages.
    allowed: All values that there may be; None = any finite number.
    columns: Number of values per row; None = as many as the header has names, which must then be there.

  Raises:
    InputError: An unreadable file, or a line that is not as it should be.
  """
  lines, separator = read_lines(path), "," if path.suffix == ".csv" else None
  count, header = _pop_count(lines), _pop_header(path, lines, separator)
  if columns is None and not header:
    raise InputError(f"{path}: no line of attribute names before the rows")
  columns = columns or len(header)
  if header and len(header) != columns:
    raise InputError(f"{path}: expected {columns} names of columns, got {len(header)}: {' '.join(header)}")
  if count not in (None, len(lines)):
    raise InputError(f"{path} line 1: says {count:.0f} rows, there are {len(lines)}; take the whole list, or remove the line of a cut copy")
  rows, numbers, values = {}, [], np.zeros((len(lines), columns))
  for row, (number, line) in enumerate(lines):
    name, *words = line.split(separator)
    if len(words) != columns:
      raise InputError(f"{path} line {number}: expected {columns} values after {name}, got {len(words)}")
    if name in rows:
      raise InputError(f"{path} line {number}: {name} has a row before, line {numbers[rows[name]]}")
    rows[name] = row
    numbers.append(number)
    try:
      values[row] = words
    except ValueError as error:
      raise InputError(f"{path} line {number}: expected {expected}; {error}") from None
  result = PhotoList(path, header, rows, numbers, values)
  wrong = np.argwhere(~(np.isfinite(values) if allowed is None else np.isin(values, allowed)))
  if len(wrong):
    row, column = wrong[0]
    title = header[column] if header else f"value {column + 1}"
    raise InputError(f"{result.where(row)} {title}: expected {expected}, got {values[row, column]:g}")
  return result


def read_lines(path: archives.File) -> list[tuple[int, str]]:
  """All lines that are not empty, as (number from 1, text).

  Raises:
    InputError: No text, or a damaged entry of an archive.
  """
  try:
    text = path.read_text("utf-8-sig")
  except (ValueError, images.ImageError) as error:
    raise InputError(f"{path}: no text ({error})") from None
  return [(number, line) for number, line in enumerate(map(str.strip, text.splitlines()), 1) if line]


def _pop_count(lines: list[tuple[int, str]]) -> float | None:
  """Removes a first line that is a lone number."""
  return float(lines.pop(0)[1]) if lines and lines[0][1].isdecimal() else None  # an int of thousands of digits is an error


def _pop_header(path: archives.File, lines: list[tuple[int, str]], separator: str | None) -> tuple[str, ...]:
  """Removes a first line that names the columns; () where it is the row of a photo already."""
  if not lines:
    return ()
  number, line = lines[0]
  names = [name.strip() for name in line.split(separator)]
  if pathlib.PurePosixPath(names[0]).suffix.lower() in _SUFFIXES:
    return ()
  del lines[0]
  names = names[1:] if names[0] == "image_id" else names
  if len(set(names)) < len(names) or "" in names:
    raise InputError(f"{path} line {number}: a column without a name, or two of one name")
  return tuple(names)


def check_contains(one: PhotoList, other: PhotoList) -> None:
  """Checks that `one` has a row for each photo of the `other` list.

  Raises:
    InputError: A photo is missing; names its line in the other list.
  """
  for name, row in other.rows.items():
    if name not in one.rows:
      raise InputError(f"{other.where(row)}: {name} has no row in {one.path}")
