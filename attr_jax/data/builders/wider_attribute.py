"""WIDER-Attribute: person boxes in web photos, 14 attributes coded +1 / -1 / 0.

Layout of the original download:

  Image/{train,val,test}/<scene>/*.jpg
  wider_attribute_trainval.json  wider_attribute_test.json

The first folder of `file_name` is the split. A target may hold a further key
"mask": path (relative to the source folder) of an 8-bit grey PNG of the pixels
that its box touches, 255 = the person. The synthetic scenes of `attr_jax.data.worlds` have it.
"""

import json
import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data import published
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_FILES = {"wider_attribute_trainval.json": ("train", "val"), "wider_attribute_test.json": ("test",)}
# Published for the whole set; other counts are only remarked on, since copies in use differ by a few boxes.
_BOXES = {"train+val": 28_345, "test": 29_179}


class Builder(records.RecordsBuilder, skip_registration=True):
  """Crops of persons, one per box, in the order of the annotation files."""

  name = "wider_attribute"
  SIZE = (256, 256)
  RESIZE = (256, 256)
  IMAGE_SIZE = (224, 224)
  DESCRIPTION = "Persons in photos of 30 scenes with 14 attributes; entries can be unspecified."
  LICENCE = "no explicit licence; research use; the photos belong to their owners"
  CITATION = "Li, Huang, Loy, Tang. Human Attribute Recognition by Deep Hierarchical Contexts. ECCV 2016."
  GROUPS = {
      "person": ("Male",),
      "head": ("longHair", "sunglass", "Hat", "faceMask"),
      "upper body": ("Tshirt", "longSleeve", "formal", "logo", "stripe"),
      "lower body": ("shorts", "jeans", "longPants", "skirt"),
  }

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads both annotation files.

    Raises:
      InputError: A file is missing or not as it should be; names file, image and target.
    """
    folder = _image_folder(source)
    names, splits, masks = None, {split: [] for split in records.SPLITS}, set()
    for file, allowed in _FILES.items():
      content = _load(source, file)
      found = _label_names(content["attribute_id_map"], file)
      if names is not None and found != names:
        raise InputError(f"{file}: attribute_id_map differs from the one of wider_attribute_trainval.json")
      names = found
      for row, image in enumerate(content["images"]):
        split, photo = _photo(source, folder, image, f"{file} images[{row}]", len(names), allowed)
        splits[split].append(photo)
        masks.update(target.mask is not None for target in photo.targets)
    if len(masks) > 1:
      raise InputError(f"{source}: some targets have a mask and some have none; expected all or none")
    boxes = {split: sum(len(photo.targets) for photo in photos) for split, photos in splits.items()}
    counts = {"train+val": boxes["train"] + boxes["val"], "test": boxes["test"]}
    remarks = tuple(f"{split}: {counts[split]} boxes, published {number}" for split, number in _BOXES.items() if counts[split] != number)
    deviations = () if remarks else _label_deviations(names, [*splits["train"], *splits["val"]])
    return records.Annotations(names, {split: photos for split, photos in splits.items() if boxes[split]}, tuple(deviations), remarks)


def _label_deviations(names: tuple[str, ...], photos: list[records.Photo]) -> list[str]:
  """Where names and shares of train+val are not the published ones."""
  label = np.array([target.label for photo in photos for target in photo.targets])
  return published.label_deviations(names, label, published.WIDER_ATTRIBUTES, published.WIDER_SHARES, digits=4, of="train+val")


def _image_folder(source: pathlib.Path) -> archives.File:
  """Image/, or the archive that it comes in, which has another name."""
  download = source / "wider_attribute_image"
  if (source / "Image").is_dir() or not (download.is_dir() or archives.find(download)):
    return archives.folder(source / "Image")
  folder = archives.folder(download)
  return folder / "Image" if (folder / "Image").is_dir() else folder


def _load(source: pathlib.Path, file: str) -> dict:
  """Reads one annotation file, from the source folder or the folder its archive unpacks to."""
  candidates = [source / file, source / "wider_attribute_annotation" / file]
  path = next((path for path in candidates if path.is_file()), None)
  if path is None:
    raise InputError(f"{source / file}: missing; --source must be the folder that holds it and Image/")
  try:
    content = json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise InputError(f"{path}: not valid JSON ({error})") from None
  for key, kind in {"attribute_id_map": dict, "images": list}.items():
    if not isinstance(content, dict) or not isinstance(content.get(key), kind):
      raise InputError(f"{path}: key {key!r} is missing or no {'object' if kind is dict else 'list'}")
  return content


def _label_names(id_map: dict, file: str) -> tuple[str, ...]:
  expected = [str(index) for index in range(len(id_map))]
  if not id_map or sorted(id_map) != sorted(expected) or not all(isinstance(name, str) for name in id_map.values()):
    ids = ", ".join(sorted(id_map)) or "(none)"
    raise InputError(f'{file}: attribute_id_map must name the attributes "0", "1", ... without gaps, got the ids {ids}')
  return tuple(id_map[index] for index in expected)


def _photo(source: pathlib.Path, folder: archives.File, image: object, where: str, columns: int,
           allowed: tuple[str, ...]) -> tuple[str, records.Photo]:
  """Checks one entry of `images`; returns (split, photo)."""
  if not isinstance(image, dict) or not isinstance(image.get("targets"), list) or "file_name" not in image:
    raise InputError(f'{where}: expected an object with "file_name" and a list "targets"')
  path = records.check_relative(image["file_name"], f"{where} file_name")
  if path.parts[0] not in allowed:
    raise InputError(f"{where} file_name: {image['file_name']!r} must start with {' or '.join(f'{split}/' for split in allowed)}")
  where = f"{where} ({path})"
  targets = tuple(_target(source, target, f"{where} targets[{number}]", columns) for number, target in enumerate(image["targets"]))
  return path.parts[0], records.Photo(str(path), folder / path, targets)


def _target(source: pathlib.Path, target: object, where: str, columns: int) -> records.Target:
  values, box = (target.get("attribute"), target.get("bbox")) if isinstance(target, dict) else (None, None)
  if not isinstance(values, list) or len(values) != columns:
    raise InputError(f"{where} attribute: expected {columns} numbers, got {len(values) if isinstance(values, list) else values!r}")
  for index, value in enumerate(values):
    if isinstance(value, bool) or value not in (-1, 0, 1):
      raise InputError(f"{where} attribute[{index}]: expected 1, -1 or 0 (unspecified), got {value!r}")
  if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
    raise InputError(f"{where} bbox: expected four finite numbers [x, y, width, height], got {box!r}")
  mask = target.get("mask")
  if mask is not None:
    mask = source / records.check_relative(mask, f"{where} mask")
  raw = np.asarray(values, np.int8)
  return records.Target((raw == 1).astype(np.uint8), raw != 0, tuple(box), mask)


def _is_number(value: object) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < records.MAX_COORDINATE
