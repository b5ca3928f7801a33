"""CelebA: photos of celebrities with 40 attributes coded +1 / -1 and five landmarks, in two sets of images.

Layout of the original download; lists and image folders are also found in the
source folder itself:

  Img/img_celeba/000001.jpg ...         original photos of any size
  Img/img_align_celeba/000001.jpg ...   the same cut to 178 x 218 pixels (width x height), eyes in one place
  Anno/list_attr_celeba.txt             count, attribute names, then a row per photo
  Anno/list_landmarks_celeba.txt        count, ten names, then x and y of five points per original photo
  Anno/list_landmarks_align_celeba.txt  the same for the cut ones
  Eval/list_eval_partition.txt          0 = train, 1 = val, 2 = test
  Anno/identity_CelebA.txt              (optional) who it is

Copies in use have other line ends, more blanks, no count, or are CSV files with
a header and the name of the list (the Kaggle edition, where the image folder
lies in another one of its name).
"""

import collections
import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data import published
from attr_jax.data.builders import celeba_lists
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_PUBLISHED = {"train": 162_770, "val": 19_867, "test": 19_962}
_ALIGNED_SIZE = (218, 178)

# Also those of LFWA, which has the same attributes.
GROUPS = {
    "person": ("Male", "Young", "Attractive", "Chubby", "Double_Chin", "Oval_Face", "Pale_Skin", "Rosy_Cheeks", "High_Cheekbones"),
    "photo": ("Blurry",),
    "hair": ("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Receding_Hairline", "Straight_Hair", "Wavy_Hair"),
    "eyes": ("Arched_Eyebrows", "Bushy_Eyebrows", "Bags_Under_Eyes", "Narrow_Eyes"),
    "nose": ("Big_Nose", "Pointy_Nose"),
    "mouth": ("Big_Lips", "Mouth_Slightly_Open", "Smiling"),
    "beard": ("5_o_Clock_Shadow", "Goatee", "Mustache", "No_Beard", "Sideburns"),
    "worn": ("Eyeglasses", "Heavy_Makeup", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie"),
}


class Builder(records.RecordsBuilder, skip_registration=True):
  """The original photos, whole, in the order of the partition list; entries are always specified."""

  name = "celeba"
  # The size of the cut photos, so that the same networks take both sets (Kalayeh 2017).
  SIZE = _ALIGNED_SIZE
  RESIZE = _ALIGNED_SIZE
  IMAGE_SIZE = _ALIGNED_SIZE
  DESCRIPTION = "Original photos of celebrities with 40 attributes and five landmarks."
  LICENCE = "non-commercial research only; no further copying or publishing of any part"
  CITATION = "Liu, Luo, Wang, Tang. Deep Learning Face Attributes in the Wild. ICCV 2015."
  GROUPS = GROUPS

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the lists.

    Raises:
      InputError: A list is missing, not as it should be, or contradicts another one; names file and line.
    """
    return _read(source, "img_celeba", "list_landmarks_celeba", None)


class AlignedBuilder(Builder, skip_registration=True):
  """The photos that CelebA's authors cut to 178 x 218 pixels; one of another size does not fit its landmarks and is unusable."""

  name = "celeba_aligned"
  DESCRIPTION = "Photos of celebrities, cut around the face, with 40 attributes and five landmarks."

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the lists.

    Raises:
      InputError: A list is missing, not as it should be, or contradicts another one; names file and line.
    """
    return _read(source, "img_align_celeba", "list_landmarks_align_celeba", _ALIGNED_SIZE)


def _read(source: pathlib.Path, images: str, landmarks: str, size: tuple[int, int] | None) -> records.Annotations:
  """Reads the lists of one set of images.

  Args:
    source: Folder of the download.
    images: Name of the folder of images.
    landmarks: Name of the list of landmarks, without suffix.
    size: (H, W) of all images, or None.

  Raises:
    InputError: A list is missing, not as it should be, or contradicts another one.
  """
  folder = _image_folder(source, images)
  partition = celeba_lists.read(celeba_lists.find(source, "Eval/list_eval_partition"), "0, 1 or 2", (0, 1, 2), columns=1)
  attributes = celeba_lists.read(celeba_lists.find(source, "Anno/list_attr_celeba"), "1 or -1", (1, -1))
  points = celeba_lists.read(celeba_lists.find(source, f"Anno/{landmarks}"), "a coordinate in pixels", columns=10)
  celeba_lists.check_contains(attributes, partition)
  celeba_lists.check_contains(partition, attributes)
  celeba_lists.check_contains(points, partition)
  label, known = (attributes.values == 1).astype(np.uint8), np.ones(len(attributes.columns), np.bool_)
  point = points.values.astype(np.float32).reshape(-1, 5, 2)
  splits = {split: [] for split in records.SPLITS}
  for name, row in partition.rows.items():
    path = folder / records.check_relative(name, partition.where(row))
    target = records.Target(label[attributes.rows[name]], known, landmarks=point[points.rows[name]])
    splits[records.SPLITS[int(partition.values[row, 0])]].append(records.Photo(name, path, (target,), size))
  deviations = [f"{split}: {len(photos)} images, published {_PUBLISHED[split]}"
                for split, photos in splits.items() if len(photos) != _PUBLISHED[split]]
  deviations = deviations or published.label_deviations(
      attributes.columns, label, published.CELEBA_ATTRIBUTES, published.CELEBA_SHARES, digits=4, of="all photos")
  splits = {split: photos for split, photos in splits.items() if photos}
  return records.Annotations(attributes.columns, splits, tuple(deviations), _identity_remarks(source, splits))


def _identity_remarks(source: pathlib.Path, splits: dict[str, list[records.Photo]]) -> tuple[str, ...]:
  """How many people there are, where the source says who they are."""
  path = celeba_lists.find(source, "Anno/identity_CelebA", needed=False)
  if path is None:
    return ()
  identities = celeba_lists.read(path, "the number of a person", columns=1)
  people = {split: {identities.values[identities.rows[photo.name], 0] for photo in photos if photo.name in identities.rows}
            for split, photos in splits.items()}
  found_in = collections.Counter(person for found in people.values() for person in found)
  counts = ", ".join(f"{len(found)} {split}" for split, found in people.items())
  return (f"people: {counts}; in more than one split: {sum(count > 1 for count in found_in.values())}",)


def _image_folder(source: pathlib.Path, name: str) -> archives.File:
  """The folder of images; the Kaggle edition has it inside another one of that name."""
  for folder in map(archives.folder, (source / "Img" / name, source / name)):
    if folder.is_dir():
      return folder / name if (folder / name).is_dir() else folder
  raise InputError(f"{source}: no image folder; expected Img/{name}/ or {name}/, or its .zip or .tar")
