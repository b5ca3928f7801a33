"""Masks that a network has predicted, stored beside a prepared data set and read with it.

  <prepared folder>/annotations/<name>/<key>-<split>.array_record   one PNG per sample, in record order
  <prepared folder>/annotations/<name>/info.json                    who made it; number of masks per split

With the key "person_mask" a mask is uint8 [h, w], 255 times the probability of "the target person". With the key
"regions" it is uint8 [h, w, R], 255 times a value in 0..1 for each of R regions, stored as R maps below each other.
It covers the same frame as the stored image but may have any size.
"""

from collections.abc import Iterable, Mapping
import json
import pathlib
import re

from array_record.python import array_record_data_source
from array_record.python import array_record_module
import numpy as np

from attr_jax.data import images
from attr_jax.data.builders import records
from attr_jax.errors import InputError


KEYS = ("person_mask", "regions")


def write(folder: pathlib.Path, name: str, masks: Mapping[str, Iterable[np.ndarray]], *, counts: Mapping[str, int],
          info: Mapping[str, object], key: str = "person_mask", overwrite: bool = False) -> pathlib.Path:
  """Writes one annotation, all or nothing: it appears by one rename at the very end.

  Args:
    folder: Folder of the prepared data set (`registry.Dataset.path`).
    name: Name of the annotation: letters, digits, `_`, `-` and `.`.
    masks: Split -> masks in record order, uint8 [h, w], 255 = surely the person, or uint8 [h, w, R]. They are taken
      one by one, so a generator keeps the memory small.
    counts: Split -> number of its records; the same splits as `masks`.
    info: What to keep in info.json, such as the run and step they come from.
    key: As what training reads them, one of `KEYS`.
    overwrite: Replace an annotation of that name.

  Returns:
    The folder of the annotation.

  Raises:
    InputError: Unusable name, the annotation exists, or it is being written.
    ValueError: Masks of other splits than `counts`, that are not uint8 of the key's rank, or more or fewer of them than it says.
  """
  target = _folder(folder, name)
  if set(masks) != set(counts):
    raise ValueError(f"masks of {', '.join(masks)}, counts of {', '.join(counts)}")
  if target.exists() and not overwrite:
    raise InputError(f"{target}: exists already; --overwrite replaces it")
  text = json.dumps({**info, "counts": dict(counts)}, indent=2, ensure_ascii=False) + "\n"
  with records.temporary_folder(target.parent / f".incomplete-{name}", f"writing annotation {name}") as temporary:
    written = temporary / name
    written.mkdir()
    for split, count in counts.items():
      _write_split(written / _file(key, split), masks[split], count, rank=3 if key == "regions" else 2)
    (written / "info.json").write_text(text)
    if target.exists():
      target.rename(temporary / "replaced")
    written.rename(target)
  return target


def encode(mask: np.ndarray) -> bytes:
  """uint8 [h, w] or [h, w, R] as a grey PNG."""
  return images.encode_png(mask if mask.ndim == 2 else mask.transpose(2, 0, 1).reshape(-1, mask.shape[1]))


def decode_regions(data: bytes, count: int) -> np.ndarray:
  """The uint8 [h, w, R] that `encode` was given; `count` is R. ImageError where the bytes are no image."""
  stacked = images.decode_mask(data)
  return np.ascontiguousarray(stacked.reshape(count, -1, stacked.shape[1]).transpose(1, 2, 0))


def paths(folder: pathlib.Path, name: str, counts: Mapping[str, int], *, dataset: str) -> tuple[str, list[str]]:
  """Files of an annotation, one per split, checked against the number of records.

  Args:
    folder: Folder of the prepared data set.
    name: Name of the annotation.
    counts: Split -> number of its records, in the order wanted.
    dataset: Name of the data set, for the error message.

  Returns:
    (one of `KEYS`, a file for each split).

  Raises:
    InputError: No such annotation, no masks of a split, or another number of them.
  """
  target = _folder(folder, name)
  command = f"attr-jax annotate --workdir=RUN --dataset={dataset} --name={name}"
  if not (target / "info.json").is_file():
    there = ", ".join(sorted(path.parent.name for path in target.parent.glob("[!.]*/info.json"))) or "none"
    raise InputError(f"{target}: no such annotation (there: {there}); make it with: {command}")
  key = "regions" if list(target.glob("regions-*.array_record")) else "person_mask"
  files = []
  for split, count in counts.items():
    path = target / _file(key, split)
    if not path.is_file():
      raise InputError(f"{path}: missing, the annotation has no masks of split {split!r}; make it again with: {command} --overwrite")
    found = len(array_record_data_source.ArrayRecordDataSource([str(path)]))
    if found != count:
      raise InputError(f"{path}: {found} masks for the {count} records of split {split!r}; make it again with: {command} --overwrite")
    files.append(str(path))
  return key, files


def _folder(folder: pathlib.Path, name: str) -> pathlib.Path:
  # No leading dot: such folders are unfinished ones.
  if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
    raise InputError(f"annotation: expected a name of letters, digits, '_', '-' and '.', got {name!r}")
  return pathlib.Path(folder) / "annotations" / name


def _file(key: str, split: str) -> str:
  return f"{key}-{split}.array_record"


def _write_split(path: pathlib.Path, masks: Iterable[np.ndarray], count: int, rank: int) -> None:
  writer, written = array_record_module.ArrayRecordWriter(str(path), records.WRITER_OPTIONS), 0
  try:
    for mask in masks:
      if mask.dtype != np.uint8 or mask.ndim != rank or not mask.size:
        expected = "[h, w]" if rank == 2 else "[h, w, R]"
        raise ValueError(f"{path.name}: mask {written} is {mask.dtype} {list(mask.shape)}, expected uint8 {expected}")
      if written == count:
        raise ValueError(f"{path.name}: more than {count} masks, the number of records")
      writer.write(encode(mask))
      written += 1
  finally:
    writer.close()
  if written != count:
    raise ValueError(f"{path.name}: {written} masks for {count} records")
