"""RAP: pedestrians of indoor surveillance video, in two versions with 51 and 54 evaluated attributes coded 0 / 1 / 2 (unknown).

Layout of both original downloads:

  RAP_dataset/<name>.png ...
  RAP_annotation/RAP_annotation.mat    MAT v5, one struct RAP_annotation

Fields that are read, in version 1 and 2 (each spelling as in the file):

  imagesname       name                   cell of image files
  attribute_eng    attribute              cell of column names, 92 and 152
  label            data                   a row per image, a column per name; the last columns of version 2 are boxes
  (the first 51)   selected_attribute     columns that are evaluated, from 1
  partion          partition_attribute    cell of five structs of train_index, (val_index,) test_index: rows of images, from 1

The first version has no validation part.
"""

import dataclasses
import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data import published
from attr_jax.data.builders import mat_files
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_VARIABLE = "RAP_annotation"
_UNKNOWN = 2
_GROUPS = {
    "person": ("Fem", "Age", "Body", "Customer", "Clerk", "Employee"),
    "head": ("hs-",),
    "upper body": ("ub-",),
    "lower body": ("lb-",),
    "shoes": ("shoes-",),
    "carried": ("attach",),
    "action": ("action-",),
}


@dataclasses.dataclass(frozen=True)
class _Version:
  """What differs between the versions.

  Attributes:
    name: Of the data set.
    images, attributes, label, partitions: Names of fields.
    selected: Name of the field that lists the evaluated columns, or None where they are the first ones.
    lists: Split -> its field in a partition.
    published: What is counted -> how many there are in the whole download.
    shares: Of positives of each label in all images, or () where none are known.
  """

  name: str
  images: str
  attributes: str
  label: str
  partitions: str
  selected: str | None
  lists: dict[str, str]
  published: dict[str, int]
  shares: tuple[float, ...] = ()

  @property
  def fields(self) -> list[str]:
    return [field for field in (self.images, self.attributes, self.label, self.partitions, self.selected) if field]


_FIRST = _Version("rap", "imagesname", "attribute_eng", "label", "partion", None, {"train": "train_index", "test": "test_index"},
                  {"train images": 33_268, "test images": 8_317, "labels": 51}, published.RAP_SHARES)
_SECOND = _Version("rap2", "name", "attribute", "data", "partition_attribute", "selected_attribute",
                   {"train": "train_index", "val": "val_index", "test": "test_index"},
                   {"train images": 50_957, "val images": 16_986, "test images": 16_985, "labels": 54})


class Builder(records.RecordsBuilder, skip_registration=True):
  """Version 1: whole crops in the order of the partition's lists; the value 2 makes an entry unknown."""

  name = "rap"
  PARTITIONS = 5
  # Height = 2 x width, after Da-HAR (Wu et al. 2020).
  SIZE = (256, 128)
  RESIZE = (256, 128)
  IMAGE_SIZE = (224, 112)
  DESCRIPTION = "Pedestrians in indoor surveillance video with 51 attributes."
  LICENCE = "academic research only, under a signed agreement with CASIA; no redistribution"
  CITATION = "Li, Zhang, Chen, Ling, Huang. A Richly Annotated Dataset for Pedestrian Attribute Recognition. arXiv:1603.07054, 2016."

  @property
  def GROUPS(self) -> dict[str, tuple[str, ...]]:
    """By what stands before "-" in a name."""
    return records.groups_by_start(_GROUPS, self.annotations.label_names)

  @staticmethod
  def read(source: pathlib.Path, partition: int = 1) -> records.Annotations:
    """Reads the annotation file; `partition` counts from 1.

    Raises:
      InputError: A file or folder is missing or not as it should be; names field and row.
    """
    return _read(source, partition, _FIRST)


class Builder2(Builder, skip_registration=True):
  """Version 2: more images and attributes of other names, and a validation part."""

  name = "rap2"
  DESCRIPTION = "Pedestrians in indoor surveillance video with 54 attributes."
  CITATION = ("Li, Zhang, Chen, Huang. A Richly Annotated Pedestrian Dataset for Person Retrieval in Real Surveillance Scenarios. "
              "IEEE Transactions on Image Processing 28(4), 2019.")

  @staticmethod
  def read(source: pathlib.Path, partition: int = 1) -> records.Annotations:
    """Reads the annotation file; `partition` counts from 1.

    Raises:
      InputError: A file or folder is missing or not as it should be; names field and row.
    """
    return _read(source, partition, _SECOND)


def _read(source: pathlib.Path, partition: int, version: _Version) -> records.Annotations:
  """Reads one partition of one version; raises InputError."""
  path, folder = source / _VARIABLE / f"{_VARIABLE}.mat", archives.folder(source / "RAP_dataset")
  if not path.is_file():
    raise InputError(f"{path}: missing; --source must be the folder that holds RAP_annotation/ and RAP_dataset/")
  if not folder.is_dir():
    raise InputError(f"{source}: no image folder; expected RAP_dataset/ beside RAP_annotation/")
  content, where = _load(path, version), f"{path} {_VARIABLE}"
  files = records.relative_paths(mat_files.texts(content[version.images], f"{where}.{version.images}"), f"{where}.{version.images}")
  attributes = mat_files.texts(content[version.attributes], f"{where}.{version.attributes}")
  columns = _columns(content, version, len(attributes), where)
  names = tuple(attributes[column].strip() for column in columns)
  records.check_label_names(names, f"{where}.{version.attributes}")
  values = mat_files.labels(content[version.label], f"{where}.{version.label}", len(files), len(attributes),
                            chosen=columns, allowed=(0, 1, _UNKNOWN))
  label, known = (values == 1).astype(np.uint8), values != _UNKNOWN
  rows = mat_files.partition(
      content[version.partitions], partition, list(version.lists.values()), f"{where}.{version.partitions}", len(files))
  splits = {
      split: [records.Photo(str(files[row]), folder / files[row], (records.Target(label[row], known[row]),)) for row in rows[field]]
      for split, field in version.lists.items()}
  counts = {f"{split} images": len(photos) for split, photos in splits.items()} | {"labels": len(names)}
  deviations = [f"{what}: {count}, published {version.published[what]}"
                for what, count in counts.items() if count != version.published[what]]
  if version.shares:
    deviations = deviations or published.share_deviations(names, label, version.shares, digits=4, of="all images")
  unused = len(files) - sum(map(len, splits.values()))
  remarks = (f"{len(files)} images, in no split {unused}", f"unknown entries of all images: {_count_unknown(known, names)}")
  return records.Annotations(names, splits, tuple(deviations), remarks)


def _load(path: pathlib.Path, version: _Version) -> dict[str, np.ndarray]:
  """The fields of a version; both have files of the same name, so one is told from the other by its fields."""
  struct = mat_files.load(path, [_VARIABLE])[_VARIABLE]
  try:
    return mat_files.struct(struct, version.fields, f"{path} {_VARIABLE}")
  except InputError as error:
    for other in (_FIRST, _SECOND):
      if other is not version and set(other.fields) <= set(struct.dtype.names or ()):
        raise InputError(f"{path}: this is the data set {other.name}, not {version.name}") from None
    raise error


def _columns(content: dict[str, np.ndarray], version: _Version, count: int, where: str) -> np.ndarray:
  """Columns from 0 of the evaluated attributes, of `count` ones, in the order of the file's list."""
  if version.selected:
    return mat_files.disjoint_rows(
        {version.selected: content[version.selected]}, where, count, of="attribute")[version.selected]
  if count < version.published["labels"]:
    raise InputError(f"{where}.{version.attributes}: expected at least {version.published['labels']} names, got {count}")
  return np.arange(version.published["labels"])


def _count_unknown(known: np.ndarray, names: tuple[str, ...]) -> str:
  counts = (~known).sum(axis=0)
  return ", ".join(f"{name} {count}" for name, count in zip(names, counts) if count) or "none"
