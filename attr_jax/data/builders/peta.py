"""PETA: pedestrians of ten smaller sets, 105 attributes coded 0 / 1, of which 35 are usually evaluated.

Layout of the copy that attribute recognition works with:

  images/00001.png ... images/19000.png
  PETA.mat    MAT v5, one struct peta:
    data                  a row per image: its number, its person, its set, its person in that set, then the labels
    attribute             cell of 105 label names
    selected_attribute    35 columns of `data`, from 1
    partion_attribute     (sic) cell of five structs of train, val, test: rows of `data`, from 1

The archive of the ten sets itself has neither these numbers nor a split.
"""

from collections.abc import Mapping
import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data import published
from attr_jax.data.builders import mat_files
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_VARIABLE = "peta"
_FIELDS = ("data", "attribute", "selected_attribute", "partion_attribute")
_FIRST_LABEL = 4  # column of `data`
_PERSON = 1
_MOST = 99_999  # five digits
_PUBLISHED = {"train images": 9_500, "val images": 1_900, "test images": 7_600}
_GROUPS = {
    "person": ("personal",),
    "head": ("hair", "accessory"),
    "upper body": ("upperBody",),
    "lower body": ("lowerBody",),
    "shoes": ("footwear",),
    "carried": ("carrying",),
}


class Builder(records.RecordsBuilder, skip_registration=True):
  """The 35 selected attributes of whole crops, in the order of the partition's lists; entries are always specified."""

  name = "peta"
  PARTITIONS = 5
  # Squares, after DIAA (Sarafianos et al. 2018); nearly all crops are smaller.
  SIZE = (256, 256)
  RESIZE = (256, 256)
  IMAGE_SIZE = (224, 224)
  DESCRIPTION = "Pedestrians of ten smaller sets with 35 attributes."
  LICENCE = "research only; each of the ten sets keeps its own terms"
  CITATION = "Deng, Luo, Loy, Tang. Pedestrian Attribute Recognition At Far Distance. ACM Multimedia 2014."

  @property
  def GROUPS(self) -> dict[str, tuple[str, ...]]:
    """By the first word of a name."""
    return records.groups_by_start(_GROUPS, self.annotations.label_names)

  @staticmethod
  def read(source: pathlib.Path, partition: int = 1) -> records.Annotations:
    """Reads the annotation file; `partition` counts from 1.

    Raises:
      InputError: A file or folder is missing or not as it should be; names field and row.
    """
    return _read(source, partition, selected=True)


class AllBuilder(Builder, skip_registration=True):
  """All 105 attributes: also colours and those that are rare."""

  name = "peta_all"
  DESCRIPTION = "Pedestrians of ten smaller sets with 105 attributes."

  @staticmethod
  def read(source: pathlib.Path, partition: int = 1) -> records.Annotations:
    """Reads the annotation file; `partition` counts from 1.

    Raises:
      InputError: A file or folder is missing or not as it should be; names field and row.
    """
    return _read(source, partition, selected=False)


def _read(source: pathlib.Path, partition: int, selected: bool) -> records.Annotations:
  """Reads one partition, with the selected attributes or all of them; raises InputError."""
  path, folder = source / "PETA.mat", archives.folder(source / "images")
  if not path.is_file():
    raise InputError(f"{path}: missing; --source must be the folder that holds PETA.mat and images/")
  if not folder.is_dir():
    raise InputError(f"{source}: no image folder; expected images/ beside PETA.mat")
  where = f"{path} {_VARIABLE}"
  content = mat_files.struct(mat_files.load(path, [_VARIABLE])[_VARIABLE], _FIELDS, where)
  attributes = mat_files.texts(content["attribute"], f"{where}.attribute")
  chosen = _selected(content, where, len(attributes)) if selected else np.arange(len(attributes))
  names = tuple(attributes[index].strip() for index in chosen)
  records.check_label_names(names, f"{where}.attribute")
  data = content["data"]
  label = mat_files.labels(data, f"{where}.data", len(data), _FIRST_LABEL + len(attributes), chosen=_FIRST_LABEL + chosen)
  known = np.ones(len(names), np.bool_)
  # Numbers, so that no name can leave the folder; they are those of the rows in the only copy described.
  numbers = 1 + mat_files.disjoint_rows({"column 0": data[:, 0]}, f"{where}.data", _MOST)["column 0"]
  files = [f"{number:05d}.png" for number in numbers]
  rows = mat_files.partition(content["partion_attribute"], partition, records.SPLITS, f"{where}.partion_attribute", len(files))
  splits = {split: [records.Photo(files[row], folder / files[row], (records.Target(label[row], known),)) for row in found]
            for split, found in rows.items()}
  expected = _PUBLISHED | {"labels": 35 if selected else 105}
  counts = {f"{split} images": len(photos) for split, photos in splits.items()} | {"labels": len(names)}
  deviations = [f"{what}: {count}, published {expected[what]}" for what, count in counts.items() if count != expected[what]]
  if selected:  # nothing is published of the shares of the others
    deviations = deviations or published.label_deviations(
        names, label, published.PETA_ATTRIBUTES, published.PETA_SHARES, digits=4, of="all images")
  remarks = (f"{len(files)} images, in no split {len(files) - sum(map(len, splits.values()))}", _people(data[:, _PERSON], rows))
  return records.Annotations(names, splits, tuple(deviations), remarks)


def _selected(content: dict[str, np.ndarray], where: str, count: int) -> np.ndarray:
  """Which of the `count` labels, from 0, are the usual ones; the file counts columns of `data` from 1."""
  return mat_files.disjoint_rows(
      {"selected_attribute": content["selected_attribute"]}, where, count, first=_FIRST_LABEL + 1, of="attribute")["selected_attribute"]


def _people(person: np.ndarray, rows: Mapping[str, np.ndarray]) -> str:
  """How many people there are: the partitions are random over images, so that many are in several parts."""
  found = {split: set(person[of_split].tolist()) for split, of_split in rows.items()}
  counts = ", ".join(f"{len(people)} {split}" for split, people in found.items())
  return f"people: {counts}; of those in test also in train: {len(found['test'] & found['train'])}"
