"""MATLAB files: reading v5 and v7.3 alike, and checking what data sets keep in them."""

from collections.abc import Sequence
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


def texts(cells: np.ndarray, where: str) -> tuple[str, ...]:
  """Texts of an Nx1 (or 1xN) cell array; raises InputError for anything else. `where` is named in errors."""
  if cells.dtype != object or cells.size != max(cells.shape, default=0):
    raise InputError(f"{where}: expected an Nx1 cell array of texts, got {cells.dtype} {cells.shape}")
  result = []
  for row, cell in enumerate(cells.ravel()):
    if not isinstance(cell, np.ndarray) or cell.dtype.kind != "U" or cell.size != 1:
      raise InputError(f"{where} row {row}: expected a text, got {np.asarray(cell).dtype} {np.shape(cell)}")
    result.append(str(cell.item()))
  return tuple(result)


def labels(values: np.ndarray, where: str, rows: int, columns: int) -> np.ndarray:
  """Checks a label matrix of image names x attributes.

  Args:
    values: Of any number type.
    where: File and variable, for error messages.
    rows: Expected number of rows.
    columns: Expected number of columns.

  Returns:
    uint8 [rows, columns] of 0 and 1.

  Raises:
    InputError: No numbers, another shape, or an entry that is neither 0 nor 1.
  """
  if values.dtype.kind not in "buif":
    raise InputError(f"{where}: expected numbers, got {values.dtype}")
  if values.shape != (rows, columns) and not (rows == 0 and values.size == 0):
    raise InputError(f"{where}: expected {rows} rows (image names) x {columns} columns (attributes), got shape {values.shape}")
  wrong = np.argwhere((values != 0) & (values != 1))
  if len(wrong):
    row, column = wrong[0]
    raise InputError(f"{where} row {row} column {column}: expected 0 or 1, got {values[row, column]}")
  return values.astype(np.uint8).reshape(rows, columns)
