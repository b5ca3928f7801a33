"""CelebAMask-HQ: 30,000 faces of CelebA at 1024 x 1024 with a mask per part of the face, 19 classes with the background, and 40 attributes.

Layout of the original download, also taken where the source is the folder itself:

  CelebAMask-HQ/
    CelebA-HQ-img/<k>.jpg                           k = 0 to 29999, 1024 x 1024 pixels
    CelebAMask-HQ-mask-anno/<k // 2000>/<k, five digits>_<part>.png
                                                    512 x 512 pixels, not 0 = of that part; no file where the part is not seen
    CelebAMask-HQ-attribute-anno.txt                count, attribute names, then a row of +1 / -1 per photo
    CelebA-HQ-to-CelebA-mapping.txt                 "idx orig_idx orig_file": which photo of CelebA it was made of
    list_eval_partition.txt                         not in the download: CelebA's, which says the split of that photo

Parts overlap. They are painted in the authors' order, later ones over earlier
ones, and only then merged, so that a hat over hair is background.
"""

import functools
import pathlib
import re

import numpy as np

from attr_jax.data import archives
from attr_jax.data import images
from attr_jax.data import regions
from attr_jax.data.builders import celeba
from attr_jax.data.builders import celeba_lists
from attr_jax.data.builders import records
from attr_jax.errors import InputError

# Part -> region, in the order of painting. Ears, hats, what is worn, neck and clothes are no class of Helen, so background as there.
MERGED = {
    "skin": regions.FaceRegion.FACE_SKIN,
    "nose": regions.FaceRegion.NOSE,
    "eye_g": regions.FaceRegion.BACKGROUND,  # glasses; the eyes come later, so those that were annotated behind them are seen
    "l_eye": regions.FaceRegion.EYES,
    "r_eye": regions.FaceRegion.EYES,
    "l_brow": regions.FaceRegion.EYEBROWS,
    "r_brow": regions.FaceRegion.EYEBROWS,
    "l_ear": regions.FaceRegion.BACKGROUND,
    "r_ear": regions.FaceRegion.BACKGROUND,
    "mouth": regions.FaceRegion.MOUTH,
    "u_lip": regions.FaceRegion.MOUTH,
    "l_lip": regions.FaceRegion.MOUTH,
    "hair": regions.FaceRegion.HAIR,
    "hat": regions.FaceRegion.BACKGROUND,
    "ear_r": regions.FaceRegion.BACKGROUND,  # earrings
    "neck_l": regions.FaceRegion.BACKGROUND,  # necklaces
    "neck": regions.FaceRegion.BACKGROUND,
    "cloth": regions.FaceRegion.BACKGROUND,
}
_FOLDER, _PHOTOS, _MASKS = "CelebAMask-HQ", "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
_ATTRIBUTES, _MAPPING, _PARTITION = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition"
_COLUMNS = ("idx", "orig_idx", "orig_file")
_PUBLISHED = {"train": 24_183, "val": 2_993, "test": 2_824}
_PHOTO_SIZE, _MASK_SIZE = (1024, 1024), (512, 512)
_PER_FOLDER = 2000
_MASK_NAME = re.compile(r"(\d{5})_(\w+)\.png")


class Builder(records.RecordsBuilder, skip_registration=True):
  """Whole photos in the order of the mapping, padded to the aspect of the prepared size, with attributes and a `region_mask`."""

  name = "celebamask_hq"
  # That of CelebA's cut photos and of Helen, so that the same networks take it; square sizes are not padded.
  SIZE = (218, 178)
  RESIZE = (218, 178)
  IMAGE_SIZE = (218, 178)
  DESCRIPTION = "Photos of celebrities, aligned and enlarged, with the parts of the face and 40 attributes."
  LICENCE = "non-commercial research only; no further copying or publishing of any part"
  CITATION = "Lee, Liu, Wu, Luo. MaskGAN: Towards Diverse and Interactive Facial Image Manipulation. CVPR 2020."
  GROUPS = celeba.GROUPS

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the lists and which masks there are.

    Raises:
      InputError: A file is missing, not as it should be, or contradicts another one; names file and line.
    """
    root = archives.folder(source / _FOLDER)
    root = root if root.is_dir() else source
    for name in (_PHOTOS, _MASKS, _ATTRIBUTES, _MAPPING):
      if not (root / name).exists():
        raise InputError(f"{root / name}: missing; --source must be the folder that holds it, or {_FOLDER}/")
    attributes = celeba_lists.read(root / _ATTRIBUTES, "1 or -1", (1, -1))
    mapping = _read_mapping(root / _MAPPING)
    for name, row in attributes.rows.items():
      if name not in mapping:
        raise InputError(f"{attributes.where(row)}: {name} has no row in {root / _MAPPING}")
    split_of = _read_partition(source, root)
    parts, foreign = _find_parts(root / _MASKS)
    label, known = (attributes.values == 1).astype(np.uint8), np.ones(len(attributes.columns), np.bool_)
    splits = {split: [] for split in records.SPLITS}
    for name, (index, original, where) in mapping.items():
      if name not in attributes.rows:
        raise InputError(f"{where}: {name} has no row in {attributes.path}")
      if original not in split_of:
        raise InputError(f"{where}: {original} has no row in CelebA's {_PARTITION}")
      masks = root / _MASKS / str(index // _PER_FOLDER)
      if index not in parts:
        raise InputError(f"{where}: {name} has no mask {index:05d}_<part>.png in {masks}")
      region_mask = functools.partial(_read_regions, masks, index, parts[index])
      target = records.Target(label[attributes.rows[name]], known, region_mask=region_mask, pad=True)
      splits[split_of[original]].append(records.Photo(f"{_PHOTOS}/{name}", root / _PHOTOS / name, (target,), _PHOTO_SIZE))
    deviations = [f"{split}: {len(photos)} photos, published {_PUBLISHED[split]}"
                  for split, photos in splits.items() if len(photos) != _PUBLISHED[split]]
    splits = {split: photos for split, photos in splits.items() if photos}
    remarks = (f"files in {_MASKS} that were left out: {len(foreign)}, first {', '.join(foreign[:5])}",) if foreign else ()
    return records.Annotations(attributes.columns, splits, tuple(deviations), remarks)


def _read_mapping(path: archives.File) -> dict[str, tuple[int, str, str]]:
  """Photo "<k>.jpg" -> (k, its photo of CelebA, where that stands), in file order."""
  lines = celeba_lists.read_lines(path)
  if not lines or tuple(lines[0][1].split()) != _COLUMNS:
    raise InputError(f"{path} line {lines[0][0] if lines else 1}: expected {' '.join(_COLUMNS)}, got {lines[0][1] if lines else 'nothing'}")
  mapping = {}
  for number, line in lines[1:]:
    where, words = f"{path} line {number}", line.split()
    if len(words) != len(_COLUMNS) or not words[0].isdecimal() or not words[1].isdecimal():
      raise InputError(f"{where}: expected two numbers and the name of a photo, got {line!r}")
    index, name = int(words[0]), f"{int(words[0])}.jpg"
    if name in mapping:
      raise InputError(f"{where}: idx {index} has a row before, {mapping[name][2]}")
    mapping[name] = index, words[2], where
  return mapping


def _read_partition(source: pathlib.Path, root: archives.File) -> dict[str, str]:
  """Photo of CelebA -> its split there."""
  path = celeba_lists.find(root, f"Eval/{_PARTITION}", needed=False) or celeba_lists.find(source, f"Eval/{_PARTITION}", needed=False)
  if path is None:
    raise InputError(f"{root / _PARTITION}.txt: missing; it says the splits and comes with CelebA, not with this download: copy it here")
  partition = celeba_lists.read(path, "0, 1 or 2", (0, 1, 2), columns=1)
  return {name: records.SPLITS[int(partition.values[row, 0])] for name, row in partition.rows.items()}


def _find_parts(folder: archives.File) -> tuple[dict[int, tuple[str, ...]], list[str]]:
  """Lists the folders once; to ask for 18 files of each photo takes far longer.

  Returns:
    (k -> parts that there are, in the order of painting; files that are no mask of a known part in its place).
  """
  found, foreign = {}, []
  for place in sorted(folder.iterdir(), key=str):
    for file in sorted(path.name for path in place.iterdir()) if place.is_dir() else ():
      match = _MASK_NAME.fullmatch(file)
      if match and match[2] in MERGED and str(int(match[1]) // _PER_FOLDER) == place.name:
        found.setdefault(int(match[1]), set()).add(match[2])
      else:
        foreign.append(f"{place.name}/{file}")
  return {index: tuple(part for part in MERGED if part in parts) for index, parts in found.items()}, foreign


def _read_regions(folder: archives.File, index: int, parts: tuple[str, ...]) -> np.ndarray:
  """Region of every pixel of photo k = `index`, uint8 [1024, 1024].

  Raises:
    ImageError: A damaged file, or one of another size.
    OSError: Unreadable.
  """
  masks = {}
  for part in parts:
    path = folder / f"{index:05d}_{part}.png"
    masks[part] = records.read_mask(path)
    if masks[part].shape != _MASK_SIZE:
      height, width = masks[part].shape
      raise images.ImageError(f"{path.name} is {width}x{height} pixels, not {_MASK_SIZE[1]}x{_MASK_SIZE[0]}")
  return paint(masks).repeat(2, axis=0).repeat(2, axis=1)


def paint(masks: dict[str, np.ndarray]) -> np.ndarray:
  """Makes one mask of those of the parts, later parts of `MERGED` over earlier ones.

  Args:
    masks: Part, a key of `MERGED` -> uint8 [H, W], not 0 = of that part; at least one, all of one size.

  Returns:
    uint8 [H, W] of `regions.FaceRegion`; background where there is no part.
  """
  merged = np.full(next(iter(masks.values())).shape, regions.FaceRegion.BACKGROUND, np.uint8)
  for part, region in MERGED.items():
    if part in masks:
      merged[masks[part] != 0] = region
  return merged
