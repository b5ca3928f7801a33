"""MATLAB files: reading v5 and v7.3 alike, and checking what data sets keep in them."""

from collections.abc import Mapping, Sequence
import pathlib

import h5py
import numpy as np
import scipy.io

from attr_jax.errors import InputError


def load(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Reads variables of a MAT file, in MATLAB's orientation.

  Args:
    path: Of a file in the form of MATLAB v5 or v7.3 (which is HDF5).
    names: Variables that must be in it.

  Returns:
    Name -> array; cells are arrays of objects, the texts in them arrays of one `str`.

  Raises:
    InputError: `names` cannot be read from it.
  """
  try:
    found = _load_hdf5(path, names) if h5py.is_hdf5(path) else scipy.io.loadmat(path)
  except Exception as error:  # both libraries raise half a dozen types for foreign or damaged files
    raise InputError(f"{path}: not a readable MAT file ({' '.join(str(error).split())})") from None
  if missing := [name for name in names if name not in found]:
    there = ", ".join(name for name in found if not name.startswith("__")) or "none"
    raise InputError(f"{path}: variables {', '.join(missing)} are missing, found {there}")
  return {name: found[name] for name in names}


def _load_hdf5(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray | None]:
  """All variables of a v7.3 file by name; only those of `names` are read."""
  with h5py.File(path, "r") as file:
    return {name: _read_hdf5(file, file[name]) if name in names else None for name in file if not name.startswith("#")}


def _read_hdf5(file: h5py.File, stored: h5py.Dataset) -> np.ndarray:
  """One variable; cells are references to their contents."""
  if h5py.check_ref_dtype(stored.dtype) is None:
    return _array(stored)
  references = stored[()].T
  cells = np.empty(references.shape, object)
  for place, reference in np.ndenumerate(references):
    cells[place] = _array(file[reference])
  return cells


def _array(stored: h5py.Dataset) -> np.ndarray:
  """An array as loadmat gives it: HDF5 keeps MATLAB's transposed, texts as UTF-16 and, of what is empty, only the shape."""
  if stored.attrs.get("MATLAB_empty"):
    return np.zeros(stored[()].astype(int))
  if stored.attrs.get("MATLAB_class") == b"char":
    return np.array([stored[()].astype("<u2").tobytes().decode("utf-16-le")])
  return stored[()].T


def _unpack(cell: object) -> object:
  """What lies in a 1x1 cell, or in one inside another."""
  while isinstance(cell, np.ndarray) and cell.dtype == object and cell.size == 1:
    cell = cell.item()
  return cell


def _cells(values: np.ndarray, where: str, of: str) -> list[object]:
  """Contents of an Nx1 (or 1xN) cell array, which may itself lie in a 1x1 cell."""
  while values.dtype == object and values.size == 1 and isinstance(values.flat[0], np.ndarray) and values.flat[0].dtype == object:
    values = values.flat[0]
  if values.dtype != object or values.size != max(values.shape, default=0):
    raise InputError(f"{where}: expected an Nx1 cell array of {of}, got {values.dtype} {values.shape}")
  return [_unpack(cell) for cell in values.flat]


def struct(value: object, names: Sequence[str], where: str) -> dict[str, np.ndarray]:
  """Reads fields of a 1x1 struct, which may lie in 1x1 cells.

  Args:
    value: Of `load`, or of a field or cell.
    names: Fields that must be there.
    where: File and variable, for error messages.

  Returns:
    Field -> its value, at least two-dimensional.

  Raises:
    InputError: No such struct, or it lacks a field.
  """
  value = np.atleast_2d(_unpack(value))
  if value.dtype.names is None or value.size != 1:
    raise InputError(f"{where}: expected a 1x1 struct, got {value.dtype if value.dtype.names is None else 'struct'} {value.shape}")
  if missing := [name for name in names if name not in value.dtype.names]:
    raise InputError(f"{where}: fields {', '.join(missing)} are missing, found {', '.join(value.dtype.names)}")
  return {name: np.atleast_2d(value.flat[0][name]) for name in names}


def partition(values: np.ndarray, number: int, names: Sequence[str], where: str, count: int) -> dict[str, np.ndarray]:
  """Reads one of the ways to split images that a cell array holds, each a struct of lists of image numbers.

  Args:
    values: The cell array.
    number: Which of its cells, from 1.
    names: Fields of the struct.
    where: File and variable, for error messages.
    count: Number of images.

  Returns:
    Field -> int64 rows of its images, from 0, in the order of the list.

  Raises:
    InputError: No such cell or field, or the lists are not as they should be (`disjoint_rows`).
  """
  structs = _cells(values, where, "structs")
  if number > len(structs):
    raise InputError(f"{where}: expected at least {number} partitions, got {len(structs)}")
  where = f"{where} partition {number}"
  return disjoint_rows(struct(structs[number - 1], names, where), where, count)


def disjoint_rows(lists: Mapping[str, np.ndarray], where: str, count: int, *, first: int = 1, of: str = "image") -> dict[str, np.ndarray]:
  """Makes row numbers from 0 of MATLAB's numbers, each of which may come once.

  Args:
    lists: Name -> Nx1 or 1xN numbers of any type; unsigned ones are safe.
    where: File and variable that the names belong to, for error messages.
    count: Number of rows there are.
    first: Number of the first row.
    of: What is numbered, for error messages.

  Returns:
    Name -> int64 [N], 0 to count - 1.

  Raises:
    InputError: No list of whole numbers in first .. first + count - 1, or a number that comes twice.
  """
  rows, seen = {}, {}
  for name, values in lists.items():
    if values.dtype.kind not in "iuf" or not values.size or values.size != max(values.shape):
      raise InputError(f"{where} {name}: expected a list of numbers, got {values.dtype} {values.shape}")
    values = values.ravel()
    wrong = np.flatnonzero(~((values >= first) & (values < first + count) & (values == np.rint(values))))
    if len(wrong):
      raise InputError(f"{where} {name} row {wrong[0]}: expected the number of an {of}, {first} to {first + count - 1}, "
                       f"got {values[wrong[0]]:g}")
    rows[name] = values.astype(np.int64) - first
    for row, number in enumerate(rows[name].tolist()):
      if number in seen:
        raise InputError(f"{where} {name} row {row}: {of} {number + first} is also in {seen[number]}")
      seen[number] = f"{name} row {row}"
  return rows


def texts(values: np.ndarray, where: str) -> tuple[str, ...]:
  """Texts of an Nx1 (or 1xN) cell array; `where` is named in errors.

  Raises:
    InputError: Anything else.
  """
  result = []
  for row, cell in enumerate(_cells(values, where, "texts")):
    if not isinstance(cell, np.ndarray) or cell.dtype.kind != "U" or cell.size != 1:
      raise InputError(f"{where} row {row}: expected a text, got {np.asarray(cell).dtype} {np.shape(cell)}")
    result.append(str(cell.item()))
  return tuple(result)


def labels(values: np.ndarray, where: str, rows: int, columns: int, *, chosen: Sequence[int] | None = None,
           allowed: tuple[int, ...] = (0, 1)) -> np.ndarray:
  """Checks a label matrix of image names x attributes.

  Args:
    values: Of any number type.
    where: File and variable, for error messages.
    rows: Expected number of rows.
    columns: Expected number of columns.
    chosen: Columns from 0 that are labels; None = all. Others may hold anything.
    allowed: All values that there may be.

  Returns:
    uint8 [rows, number of chosen columns] of allowed values.

  Raises:
    InputError: No numbers, another shape, or an entry that is not allowed.
  """
  if values.dtype.kind not in "buif":
    raise InputError(f"{where}: expected numbers, got {values.dtype}")
  if values.shape != (rows, columns) and not (rows == 0 and values.size == 0):
    raise InputError(f"{where}: expected {rows} rows (image names) x {columns} columns (attributes), got shape {values.shape}")
  chosen = np.arange(columns) if chosen is None else np.asarray(chosen)
  values = values.reshape(rows, columns)[:, chosen]
  wrong = np.argwhere(~np.isin(values, allowed))
  if len(wrong):
    row, column = wrong[0]
    expected = f"{', '.join(map(str, allowed[:-1]))} or {allowed[-1]}"
    raise InputError(f"{where} row {row} column {chosen[column]}: expected {expected}, got {values[row, column]}")
  return values.astype(np.uint8)
