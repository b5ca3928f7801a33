"""Helen with the face parsing labels of Smith et al.: photos with the parts of one face each, no attributes.

Layout of the original download, also taken where the source is the folder itself:

  SmithCVPR2013_dataset_resized/
    images/<stem>.jpg
    labels/<stem>/<stem>_lbl00.png ... _lbl10.png   how much of a pixel is of each of eleven parts, 0..255
    exemplars.txt  tuning.txt  testing.txt          rows "number , stem": train, val, test
"""

import functools
import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data import images
from attr_jax.data import regions
from attr_jax.data.builders import celeba_lists
from attr_jax.data.builders import records
from attr_jax.errors import InputError

# Region -> label files that it is merged of: 2 and 3 are the brows, 4 and 5 the eyes, 7 to 9 upper lip, inner mouth, lower lip.
MERGED = {
    regions.FaceRegion.BACKGROUND: (0,),
    regions.FaceRegion.HAIR: (10,),
    regions.FaceRegion.FACE_SKIN: (1,),
    regions.FaceRegion.EYES: (4, 5),
    regions.FaceRegion.EYEBROWS: (2, 3),
    regions.FaceRegion.MOUTH: (7, 8, 9),
    regions.FaceRegion.NOSE: (6,),
}
_LABELS = 11
_FOLDER = "SmithCVPR2013_dataset_resized"
# Split -> its list and the published number of photos.
_SPLITS = {"train": ("exemplars.txt", 2_000), "val": ("tuning.txt", 230), "test": ("testing.txt", 100)}
_NO_LABEL, _NO_KNOWN = np.zeros(0, np.uint8), np.zeros(0, np.bool_)


class Builder(records.RecordsBuilder, skip_registration=True):
  """Whole photos, padded to the aspect of the prepared size, with a `region_mask` of `regions.FaceRegion`; no labels."""

  name = "helen"
  # That of CelebA's cut photos, with which Kalayeh 2017 uses it.
  SIZE = (218, 178)
  RESIZE = (218, 178)
  IMAGE_SIZE = (218, 178)
  DESCRIPTION = "Photos of faces with the parts of the face; no attributes."
  LICENCE = "research only; the photos are from Flickr and belong to their photographers"
  CITATION = ("Smith, Zhang, Brandt, Lin, Yang. Exemplar-Based Face Parsing. CVPR 2013; photos: Le, Brandt, Lin, Bourdev, Huang. "
              "Interactive Facial Feature Localization. ECCV 2012.")
  GROUPS = {}

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the three lists.

    Raises:
      InputError: A list is missing or not as it should be; names file and line.
    """
    root = archives.folder(source / _FOLDER)
    root = root if root.is_dir() else source
    splits, deviations, seen = {}, [], {}
    for split, (file, published) in _SPLITS.items():
      stems = _read_stems(root / file, seen)
      if stems:
        splits[split] = [_photo(root, stem) for stem in stems]
      if len(stems) != published:
        deviations.append(f"{split}: {len(stems)} photos, published {published}")
    return records.Annotations((), splits, tuple(deviations))


def _read_stems(path: archives.File, seen: dict[str, str]) -> list[str]:
  """The photos of one list; adds to `seen`, photo -> where it stands."""
  if not path.is_file():
    raise InputError(f"{path}: missing; --source must be the folder that holds it, images/ and labels/, or {_FOLDER}/")
  stems = []
  for number, line in celeba_lists.read_lines(path):
    where = f"{path} line {number}"
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 2 or not fields[0].isdecimal():
      raise InputError(f"{where}: expected 'number , name of a photo', got {line!r}")
    stem = fields[1]
    if len(records.check_relative(stem, where).parts) > 1:
      raise InputError(f"{where}: expected the name of a photo without folder and suffix, got {stem!r}")
    if stem in seen:
      raise InputError(f"{where}: {stem} is also in {seen[stem]}")
    seen[stem] = where
    stems.append(stem)
  return stems


def _photo(root: archives.File, stem: str) -> records.Photo:
  maps = tuple(root / "labels" / stem / f"{stem}_lbl{index:02d}.png" for index in range(_LABELS))
  target = records.Target(_NO_LABEL, _NO_KNOWN, region_mask=functools.partial(_read_regions, maps), pad=True)
  return records.Photo(f"images/{stem}.jpg", root / "images" / f"{stem}.jpg", (target,), files=maps)


def _read_regions(paths: tuple[archives.File, ...]) -> np.ndarray:
  """Region of every pixel, uint8 [H, W].

  Raises:
    ImageError: A damaged file, or the sizes differ.
    OSError: Unreadable.
  """
  maps = [records.read_mask(path) for path in paths]
  for path, values in zip(paths, maps):
    if values.shape != maps[0].shape:
      sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (values.shape, maps[0].shape))
      raise images.ImageError(f"{path.name} and {paths[0].name} differ in size, {sizes}")
  return merge(np.stack(maps))


def merge(maps: np.ndarray) -> np.ndarray:
  """Makes one hard mask of the eleven soft ones.

  They need not sum to 255: a region has the largest of the values it is merged
  of, and a pixel the region of the largest value, the first of them where several are equal (our choice).

  Args:
    maps: uint8 [11, H, W].

  Returns:
    uint8 [H, W] of `regions.FaceRegion`.
  """
  merged = np.stack([maps[list(MERGED[region])].max(axis=0) for region in regions.FaceRegion])
  return merged.argmax(axis=0).astype(np.uint8)
