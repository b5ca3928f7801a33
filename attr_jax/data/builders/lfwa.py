"""LFWA: the photos of Labeled Faces in the Wild with CelebA's 40 attributes coded 0 / 1; no landmarks.

Layout of the original download:

  lfw/<Name>/<Name>_0001.jpg ...
  lfw_att_40.mat            AttrName, name and label: row i of `label` belongs to row i of `name`
  indices_train_test.mat    indices_img_train, indices_img_test: numbers of images, from 1

Both files are MAT v7.3; copies saved as v5 serve as well. Names have
backslashes, attributes blanks where CelebA's have underscores.
"""

import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data.builders import celeba
from attr_jax.data.builders import mat_files
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_SPLITS = ("train", "test")


class Builder(records.RecordsBuilder, skip_registration=True):
  """Whole photos, in the order of the lists of indices; entries are always specified."""

  name = "lfwa"
  # As CelebA, so that the same networks take it (Kalayeh 2017).
  SIZE = (218, 178)
  RESIZE = (218, 178)
  IMAGE_SIZE = (218, 178)
  DESCRIPTION = "Photos of people in the news with 40 attributes."
  LICENCE = "non-commercial research only; the photos belong to their owners"
  CITATION = ("Liu, Luo, Wang, Tang. Deep Learning Face Attributes in the Wild. ICCV 2015; photos: Huang, Ramesh, Berg, "
              "Learned-Miller. Labeled Faces in the Wild. University of Massachusetts Amherst 07-49, 2007.")
  GROUPS = celeba.GROUPS

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads both files.

    Raises:
      InputError: A file is missing or not as it should be; names file, variable and row.
    """
    path, indices = source / "lfw_att_40.mat", source / "indices_train_test.mat"
    for file in (path, indices):
      if not file.is_file():
        raise InputError(f"{file}: missing; --source must be the folder that holds {path.name}, {indices.name} and lfw/")
    content = mat_files.load(path, ("AttrName", "name", "label"))
    attributes = _attributes(mat_files.texts(content["AttrName"], f"{path} AttrName"), f"{path} AttrName")
    names = mat_files.texts(content["name"], f"{path} name")
    files = records.relative_paths((name.replace("\\", "/") for name in names), f"{path} name")
    label = mat_files.labels(content["label"], f"{path} label", len(files), len(attributes))
    known = np.ones(len(attributes), np.bool_)
    folder = archives.folder(source / "lfw")
    splits = {
        split: [records.Photo(str(files[row]), folder / files[row], (records.Target(label[row], known),)) for row in rows]
        for split, rows in _read_indices(indices, len(files)).items()}
    counts = ", ".join(f"{len(photos)} {split}" for split, photos in splits.items())
    unused = len(files) - sum(map(len, splits.values()))
    # Papers and copies disagree about the numbers, so none is held to be the published one.
    remark = f"{len(files)} images with attributes: {counts}, in neither list {unused}"
    return records.Annotations(attributes, splits, remarks=(remark,))


def _attributes(names: tuple[str, ...], where: str) -> tuple[str, ...]:
  """Names as CelebA spells them."""
  names = tuple("_".join(name.split()) for name in names)
  records.check_label_names(names, where)
  return names


def _read_indices(path: pathlib.Path, count: int) -> dict[str, np.ndarray]:
  """Split -> rows of its images, from 0.

  Raises:
    InputError: An entry is no number of one of the `count` images, or an image comes twice.
  """
  lists = [f"indices_img_{split}" for split in _SPLITS]
  rows = mat_files.disjoint_rows(mat_files.load(path, lists), str(path), count)
  return {split: rows[name] for split, name in zip(_SPLITS, lists)}
