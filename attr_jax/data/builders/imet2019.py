"""iMet Collection 2019: pictures of works of art, labels of two groups, "culture::..." and "tag::...".

Layout of the original download (Kaggle, imet-2019-fgvc6):

  labels.csv            attribute_id,attribute_name: 0,culture::abruzzi
  train.csv             id,attribute_ids: 1000483014d91860,147 616 813
  train/<id>.png        shorter side 300 pixels, aspect 0.04 to 17.7

Ids are hexadecimal digits, to be read as text. The labels of the challenge's own
test pictures are not public, so train.csv is split, by the rule of Tang, Chen and
Zhao (CS231n 2019).
"""

import csv
import math
import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_PUBLISHED = {"images": 109_237, "images dropped": 37, "labels": 1_103, "culture labels": 398, "tag labels": 705}
_LEAST = 3  # images that a label needs
_SEED = 231
_TEST_SHARE = 0.1
_VAL_SHARE = 0.1 / (0.8 + 0.1)  # of what is not test


class Builder(records.RecordsBuilder, skip_registration=True):
  """Whole pictures in the order of train.csv within each split; entries are always specified."""

  name = "imet2019"
  # The size of the originals, since crops of 224 are cut from it; the other side keeps the aspect.
  SIZE = (300, 300)
  RESIZE = (224, 224)
  IMAGE_SIZE = (224, 224)
  DESCRIPTION = "Pictures of works of art in a museum, with labels of culture and of what can be seen."
  LICENCE = "rules of the Kaggle competition imet-2019-fgvc6; many of the pictures are CC0"
  CITATION = "Zhang, Kaeser-Chen, Vesom, Choi, Kessler, Belongie. The iMet Collection 2019 Challenge Dataset. arXiv:1906.00901, 2019."

  @property
  def GROUPS(self) -> dict[str, tuple[str, ...]]:
    """What stands before "::" in a name; names without it are left to group "other"."""
    groups = {}
    for name in self.annotations.label_names:
      group, mark, _ = name.partition("::")
      if mark:
        groups.setdefault(group, []).append(name)
    return {group: tuple(names) for group, names in groups.items()}

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads both lists and splits the images.

    Raises:
      InputError: A file is missing or not as it should be, or too few images are left; names file and line.
    """
    folder = archives.folder(source / "train")
    if not folder.is_dir():
      raise InputError(f"{source}: no image folder; expected train/ or train.zip beside labels.csv and train.csv")
    names = _read_names(source / "labels.csv")
    path = source / "train.csv"
    files, label = _read_labels(path, len(names))
    dead, dropped = rare(label)
    kept = np.flatnonzero(~dropped)
    if len(kept) < 3:
      raise InputError(f"{path}: {len(kept)} images are left of {len(files)} without those that carry a label seen fewer than "
                       f"{_LEAST} times; three splits need 3")
    known = np.ones(len(names), np.bool_)
    splits = {split: [records.Photo(files[row], folder / files[row], (records.Target(label[row], known),)) for row in kept[rows]]
              for split, rows in split_rows(len(kept)).items()}
    counts = {"images": len(files), "images dropped": int(dropped.sum()), "labels": len(names),
              **{f"{group} labels": sum(name.startswith(f"{group}::") for name in names) for group in ("culture", "tag")}}
    deviations = [f"{what}: {count}, published {_PUBLISHED[what]}" for what, count in counts.items() if count != _PUBLISHED[what]]
    remark = f"{dropped.sum()} images dropped, since they carry one of {dead.sum()} labels with fewer than {_LEAST} images"
    return records.Annotations(names, splits, tuple(deviations), (remark,))


def rare(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Finds labels with fewer than three images, and the images that carry one of them (the rule of Tang et al. 2019).

  Args:
    label: uint8 [N, L], 1 = present.

  Returns:
    (bool [L], labels without enough images; bool [N], images with at least one such label).
  """
  labels = label.sum(axis=0, dtype=np.int64) < _LEAST
  return labels, label[:, labels].any(axis=1)


def split_rows(count: int) -> dict[str, np.ndarray]:
  """Splits `count` rows 8:1:1 as the authors of AttnCNN-RNN (Tang et al. 2019) did: 109,200 rows give 87,360, 10,920 and 10,920.

  Two draws, test first, then validation from the rest, each as
  `sklearn.model_selection.train_test_split(rows, test_size=share, random_state=231)`
  makes it (shares are rounded up). The published lists have the same rows, in
  the order of the file, as here.

  Args:
    count: Number of rows, at least 3.

  Returns:
    Split name -> int64 row numbers from 0, ascending; "train", "val", "test" in this order.
  """
  rest, test = _draw(np.arange(count), _TEST_SHARE)
  train, val = _draw(rest, _VAL_SHARE)
  return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}


def _draw(rows: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
  """(those left, those drawn); the order matters to the next draw."""
  order = np.random.RandomState(_SEED).permutation(len(rows))
  drawn = math.ceil(share * len(rows))
  return rows[order[drawn:]], rows[order[:drawn]]


def _read_names(path: pathlib.Path) -> tuple[str, ...]:
  """Names of labels.csv in the order of their ids, which must count the rows."""
  names = {}
  for line, number, name in _read_rows(path, ("attribute_id", "attribute_name")):
    if number != str(len(names)):
      raise InputError(f"{path} line {line}: expected attribute_id {len(names)}, got {number!r}; ids count the rows from 0")
    if not name or name in names:
      raise InputError(f"{path} line {line}: " + (f"{name!r} has an id before, {names[name]}" if name else "a label without a name"))
    names[name] = number
  if not names:
    raise InputError(f"{path}: no labels")
  return tuple(names)


def _read_labels(path: pathlib.Path, labels: int) -> tuple[list[str], np.ndarray]:
  """Reads train.csv.

  Returns:
    ([N] image files in the folder of images, label uint8 [N, L]).
  """
  lines, rows, columns = {}, [], {str(column): column for column in range(labels)}
  for line, name, numbers in _read_rows(path, ("id", "attribute_ids")):
    file = str(records.check_relative(f"{name}.png", f"{path} line {line}"))
    if not name or file in lines:
      raise InputError(f"{path} line {line}: " + (f"image {name} has a row before, line {lines[file]}" if name else "an empty id"))
    lines[file] = line
    row = np.zeros(labels, np.uint8)
    for number in numbers.split():
      if number not in columns:
        raise InputError(f"{path} line {line}: attribute id {number!r} is not in labels.csv, which has 0 to {labels - 1}")
      row[columns[number]] = 1
    if not row.any():
      raise InputError(f"{path} line {line}: image {name} has no attribute_ids")
    rows.append(row)
  if not rows:
    raise InputError(f"{path}: no rows, so there is nothing to train on")
  return list(lines), np.stack(rows)


def _read_rows(path: pathlib.Path, columns: tuple[str, str]) -> list[tuple[int, str, str]]:
  """Two columns of a CSV file, as (number of the line from 1, text, text); empty lines are passed by."""
  if not path.is_file():
    raise InputError(f"{path}: missing; --source must be the folder that holds labels.csv, train.csv and train/")
  try:
    with path.open(newline="", encoding="utf-8-sig") as file:
      reader = csv.reader(file, strict=True)
      rows = [(reader.line_num, row) for row in reader if row]
  except (ValueError, csv.Error) as error:
    raise InputError(f"{path}: not a CSV text ({error})") from None
  header = rows[0][1] if rows else []
  missing = [column for column in columns if column not in header]
  if missing:
    raise InputError(f"{path} line 1: no column {missing[0]}; expected {','.join(columns)}, got {','.join(header) or 'nothing'}")
  places = [header.index(column) for column in columns]
  for line, row in rows[1:]:
    if len(row) != len(header):
      raise InputError(f"{path} line {line}: expected {len(header)} values, got {len(row)}")
  return [(line, *(row[place].strip() for place in places)) for line, row in rows[1:]]
