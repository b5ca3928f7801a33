"""COCO for multi-label recognition: whole photos of everyday scenes, 80 kinds of objects present or absent.

Layout of the original download (2014, or the same with 2017 and photos named 000000000009.jpg):

  train2014/COCO_train2014_000000000009.jpg ...   val2014/...
  annotations/instances_train2014.json   annotations/instances_val2014.json

SRN (Zhu 2017) and VAC (Guo 2019) train on train2014 and test on val2014; what
was held back as test has no public labels. A kind is present where any
annotation of the photo has it, crowds (`iscrowd` 1) included, as in VAC.
"""

import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data import published
from attr_jax.data.builders import coco_files
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_YEARS = ("2014", "2017")
_SPLITS = ("train", "val")
_LABELS = 80


class Builder(records.RecordsBuilder, skip_registration=True):
  """Whole photos in the order of the annotation files, those without any annotation too; every entry is known."""

  name = "coco"
  # VAC's larger view; its smaller one and other inputs of 256 are shrunk from it.
  SIZE = (288, 288)
  RESIZE = (288, 288)
  IMAGE_SIZE = (288, 288)
  DESCRIPTION = "Photos of everyday scenes with 80 kinds of objects, present or absent."
  LICENCE = coco_files.LICENCE
  CITATION = coco_files.CITATION
  GROUPS = {  # COCO's supercategories
      "person": ("person",),
      "vehicle": ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
      "outdoor": ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
      "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
      "accessory": ("backpack", "umbrella", "handbag", "tie", "suitcase"),
      "sports": ("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
                 "tennis racket"),
      "kitchen": ("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
      "food": ("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
      "furniture": ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
      "electronic": ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
      "appliance": ("microwave", "oven", "toaster", "sink", "refrigerator"),
      "indoor": ("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
  }

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the annotation files of the one edition that is there.

    Raises:
      InputError: No or two editions, a file is missing or not as it should be; names file and entry.
    """
    year = _edition(source)
    known = np.ones(_LABELS, np.bool_)
    categories, splits, labels, deviations, remarks = None, {}, {}, [], []
    for split in _SPLITS:
      name = f"{split}{year}"
      folder = archives.folder(source / name)
      path = source / "annotations" / f"instances_{name}.json"
      found = _categories(path)
      if categories is not None and found != categories:
        raise InputError(f"{path} categories: other ids or names than in instances_{_SPLITS[0]}{year}.json; take both from one download")
      categories = found
      files = coco_files.photo_files(path)
      labels[split] = _labels(path, files, tuple(categories))
      # The size is left open: without boxes nothing depends on it, and a copy that was shrunk before serves as well.
      photos = [records.Photo(f"{name}/{file}", folder / file, (records.Target(label, known),))
                for (file, _), label in zip(files.values(), labels[split], strict=True)]
      if photos:
        splits[split] = photos
      deviations += coco_files.deviations(split, name, len(photos))
      remarks.append(f"{split}: {len(photos)} photos of {name}, {np.sum(~labels[split].any(axis=1))} of them without any annotation (kept)")
    names, expected = tuple(categories.values()), tuple(name for group in Builder.GROUPS.values() for name in group)
    deviations = deviations or published.name_deviations(names, expected)
    if year == "2014":  # the one whose shares are known
      deviations = deviations or published.share_deviations(names, labels["train"], published.COCO_SHARES, digits=4, of="train")
    return records.Annotations(names, splits, tuple(deviations), tuple(remarks))


def _edition(source: pathlib.Path) -> str:
  """The year whose photos are there. Annotation files do not count: those of both years unpack to one folder."""
  folders = {year: [name for name in (f"{split}{year}" for split in _SPLITS) if (source / name).is_dir() or archives.find(source / name)]
             for year in _YEARS}
  found = [year for year in _YEARS if folders[year]]
  if not found:
    raise InputError(f"{source}: no photos; --source must be the folder that holds annotations/ and either train2014/ and val2014/ "
                     "or train2017/ and val2017/")
  if len(found) > 1:
    names = ", ".join(f"{name}/" for year in found for name in folders[year])
    raise InputError(f"{source}: photos of two editions ({names}), which split the same photos differently; move those of one away, "
                     "or make a folder with links to annotations/ and the photos of the other")
  return found[0]


def _categories(path: pathlib.Path) -> dict[int, str]:
  """Id -> name by ascending id."""
  names = {}
  for entry, where in coco_files.entries(path, "categories"):
    category, name = coco_files.value(entry, "id", "an integer", where), coco_files.value(entry, "name", "a text", where)
    if category in names or name in names.values():
      raise InputError(f"{where}: id {category} or name {name!r} comes twice")
    names[category] = name
  if len(names) != _LABELS:
    raise InputError(f"{path} categories: expected the {_LABELS} of COCO's objects, got {len(names)}; take the original instances file")
  return dict(sorted(names.items()))


def _labels(path: pathlib.Path, files: coco_files.Images, categories: tuple[int, ...]) -> np.ndarray:
  """Which categories each photo has.

  Args:
    path: Of the file.
    files: Photos by id; their order is that of the rows.
    categories: Ids in the order of the columns.

  Returns:
    uint8 [len(files), len(categories)].

  Raises:
    InputError: An entry is not as it should be.
  """
  rows, columns = ({key: place for place, key in enumerate(keys)} for keys in (files, categories))
  labels = np.zeros((len(rows), len(columns)), np.uint8)
  for annotation, where in coco_files.entries(path, "annotations"):
    photo, category = (coco_files.value(annotation, key, "an integer", where) for key in ("image_id", "category_id"))
    coco_files.check_photo(photo, files, where)
    if category not in columns:
      raise InputError(f"{where}: category_id {category} is not the id of any of the categories")
    labels[rows[photo], columns[category]] = 1
  return labels
