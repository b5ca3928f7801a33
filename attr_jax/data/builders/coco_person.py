"""People of COCO 2017 with the mask of the person in the box, to train a person segmenter.

Layout of the original download:

  train2017/*.jpg  val2017/*.jpg
  annotations/instances_{train,val}2017.json
  annotations/panoptic_{train,val}2017.json  annotations/panoptic_{train,val}2017/*.png   (optional)

Where a split has its panoptic file, people and masks are taken from there: its
masks do not overlap, and a pixel whose colour is R + 256 G + 256^2 B = the
segment's id is in. Otherwise they come from the polygons of the instances file.
Da-HAR (Wu 2020) trains its segmenter on such crops with only the target person kept.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import pathlib
import reprlib
import threading

import cv2
import numpy as np

from attr_jax.data import archives
from attr_jax.data import images
from attr_jax.data.builders import coco_files
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_SPLITS = {"train": "train2017", "val": "val2017"}  # folder of its photos
_PERSON = 1
_SMALL = 32 * 32  # COCO's own limit of a "small" object, in pixels of its mask
_NO_LABEL, _NO_KNOWN = np.zeros(0, np.uint8), np.zeros(0, np.bool_)
_PANOPTIC_NEEDED = "such people need panoptic files: put panoptic_*2017.json and its folder of PNGs into annotations/"
_FINE = 5  # grid of the polygons, per pixel and direction; odd, so that a pixel's centre is a grid point


class Builder(records.RecordsBuilder, skip_registration=True):
  """Crops of people, one per annotated person, photos in the order of the annotation files; no labels."""

  name = "coco_person"
  SIZE = (224, 224)
  RESIZE = (256, 256)
  IMAGE_SIZE = (224, 224)
  DESCRIPTION = "People in photos of everyday scenes with the mask of the person; no attributes."
  LICENCE = coco_files.LICENCE
  CITATION = coco_files.CITATION
  GROUPS = {}

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads one annotation file per split.

    Raises:
      InputError: A file is missing or not as it should be; names file and entry.
    """
    splits, deviations, remarks = {}, [], []
    for split, folder in _SPLITS.items():
      path = source / "annotations" / f"panoptic_{folder}.json"
      panoptic = path.is_file()
      if not panoptic:
        path = source / "annotations" / f"instances_{folder}.json"
      files = coco_files.photo_files(path)
      photos, crowds, small = _photos(files, _segments(path) if panoptic else _instances(path), source / folder)
      if photos:
        splits[split] = photos
      deviations += coco_files.deviations(split, folder, len(files))
      people = sum(len(photo.targets) for photo in photos)
      remarks.append(f"{split}: {people} people in {len(photos)} photos, masks of {path.name}; "
                     f"left out: crowds (iscrowd = 1) {crowds}, people of less than {_SMALL} pixels {small}")
    return records.Annotations((), splits, tuple(deviations), tuple(remarks))


# What may be a person: (id of the photo, its entry, where that stands, panoptic PNG or None).
_Entry = tuple[int, object, str, archives.File | None]


def _segments(path: pathlib.Path) -> Iterator[_Entry]:
  """Segments of a panoptic file, one PNG per photo in the folder of the same name, unpacked or not."""
  folder = archives.folder(path.with_suffix(""))
  for annotation, where in coco_files.entries(path, "annotations"):
    photo = coco_files.value(annotation, "image_id", "an integer", where)
    picture = folder / records.check_relative(annotation.get("file_name"), f"{where} file_name")
    for number, segment in enumerate(coco_files.value(annotation, "segments_info", "a list", where)):
      yield photo, segment, f"{where} segments_info[{number}]", picture


def _instances(path: pathlib.Path) -> Iterator[_Entry]:
  for annotation, where in coco_files.entries(path, "annotations"):
    yield coco_files.value(annotation, "image_id", "an integer", where), annotation, where, None


def _photos(images_by_id: coco_files.Images, entries: Iterator[_Entry], path: pathlib.Path) -> tuple[list[records.Photo], int, int]:
  """Returns (photos with at least one person, number of crowds, number of small people); `path` is their folder, unpacked or not."""
  folder = archives.folder(path)
  targets, pictures, open_picture, crowds, small = {}, {}, _PictureReader(), 0, 0
  for photo, entry, where, picture in entries:
    coco_files.check_photo(photo, images_by_id, where)
    if coco_files.value(entry, "category_id", "an integer", where) != _PERSON:
      continue
    if coco_files.value(entry, "iscrowd", "0 or 1", where):
      crowds += 1
    elif coco_files.value(entry, "area", "a finite number", where) < _SMALL:
      small += 1
    else:
      box = tuple(coco_files.value(entry, "bbox", "four finite numbers [x, y, width, height]", where))
      size = images_by_id[photo][1]
      inside = records.clip_box(records.pixel_box(box), *size)
      if picture is None:
        mask = functools.partial(_draw_polygons, _polygons(entry, where), inside)
      else:
        segment = coco_files.value(entry, "id", "an integer of 24 bits", where)
        mask = functools.partial(_cut_segment, open_picture, picture, size, segment, inside)
        pictures[photo] = (picture,)
      targets.setdefault(photo, []).append(records.Target(_NO_LABEL, _NO_KNOWN, box, mask))
  photos = [
      records.Photo(f"{path.name}/{file}", folder / file, tuple(targets[photo]), size, pictures.get(photo, ()))
      for photo, (file, size) in images_by_id.items() if photo in targets]
  return photos, crowds, small


def _polygons(entry: dict, where: str) -> list[np.ndarray]:
  """Outlines of one person, float32 [K, 2] (x, y) each."""
  value = entry.get("segmentation")
  if value == []:
    raise InputError(f"{where} segmentation: empty; {_PANOPTIC_NEEDED}")
  if isinstance(value, dict):
    raise InputError(f"{where} segmentation: run lengths where one person (iscrowd = 0) has polygons; {_PANOPTIC_NEEDED}")
  if not isinstance(value, list) or not all(_is_polygon(polygon) for polygon in value):
    raise InputError(f"{where} segmentation: expected polygons, lists of at least three pairs x, y, got {reprlib.repr(value)}")
  return [np.array(polygon, np.float32).reshape(-1, 2) for polygon in value]


def _draw_polygons(polygons: Sequence[np.ndarray], box: records.Box) -> np.ndarray:
  """The union of polygons inside a box.

  COCO's coordinates are corners of pixels: the first pixel spans 0..1. A pixel
  is in where its centre is inside a polygon. `fillPoly` alone would also take
  every pixel that an outline touches, half a pixel too much on each side, so it
  draws on a grid five times as fine (1/256 of its step for the corners) of which
  the centres are kept: at most a step, a fifth of a pixel, is then too much.

  Args:
    polygons: float [K, 2] (x, y) in pixels of the photo.
    box: (left, top, right, bottom), not empty.

  Returns:
    uint8 [bottom - top, right - left], 255 inside.

  Raises:
    ImageError: Not one pixel is in.
  """
  left, top, right, bottom = box
  fine = np.zeros(((bottom - top) * _FINE, (right - left) * _FINE), np.uint8)
  for polygon in polygons:  # one by one: together, where two overlap would be a hole
    corners = (polygon.astype(np.float64) - (left, top)) * _FINE - 0.5  # OpenCV's first pixel has its centre at 0
    cv2.fillPoly(fine, [np.round(corners * 256).astype(np.int32)], 255, shift=8)
  mask = fine[_FINE // 2::_FINE, _FINE // 2::_FINE]
  if not mask.any():
    raise images.ImageError(f"the polygons of the person in pixels {list(box)} cover none of them")
  return mask


class _PictureReader:
  """Decodes panoptic PNGs; every thread keeps its last one, since all people of a photo are cut in a row."""

  def __init__(self):
    self._last = threading.local()

  def __call__(self, path: archives.File) -> np.ndarray:
    """Returns uint8 [H, W, 3], RGB; raises ImageError and OSError."""
    if getattr(self._last, "path", None) != path:
      self._last.picture = images.decode_image(path.read_bytes(), where=path.name)
      self._last.path = path
    return self._last.picture


def _cut_segment(open_picture: Callable[[archives.File], np.ndarray], path: archives.File, size: tuple[int, int], segment: int,
                 box: records.Box) -> np.ndarray:
  """The pixels of one segment inside a box.

  Args:
    open_picture: Path -> uint8 [H, W, 3].
    path: The panoptic PNG.
    size: (H, W) that it must have.
    segment: Id.
    box: (left, top, right, bottom), not empty.

  Returns:
    uint8 [bottom - top, right - left], 255 inside.

  Raises:
    ImageError: Damaged, of another size, or not one pixel is in.
    OSError: Unreadable.
  """
  picture = open_picture(path)
  if picture.shape[:2] != size:
    raise images.ImageError(f"{path.name} is {picture.shape[1]}x{picture.shape[0]}, its photo {size[1]}x{size[0]}")
  left, top, right, bottom = box
  colour = segment & 255, segment >> 8 & 255, segment >> 16
  mask = (picture[top:bottom, left:right] == colour).all(axis=2)
  if not mask.any():
    raise images.ImageError(f"{path.name} has no pixel of segment {segment} in {list(box)}")
  return mask.astype(np.uint8) * 255


def _is_polygon(value: object) -> bool:
  return isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0 and all(map(coco_files.is_number, value))
