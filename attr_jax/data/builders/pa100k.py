"""PA-100K: pedestrian crops of surveillance cameras, 26 attributes coded 0 / 1.

Layout of the original download: `data/000001.jpg` ... (also seen as
`release_data/`) and `annotation/annotation.mat`. Row i of
`<split>_label` belongs to row i of `<split>_images_name`. Entries are always specified.
"""

import pathlib

import numpy as np

from attr_jax.data import archives
from attr_jax.data import published
from attr_jax.data.builders import mat_files
from attr_jax.data.builders import records
from attr_jax.errors import InputError

_IMAGES = {"train": 80_000, "val": 10_000, "test": 10_000}
_FOLDERS = ("data", "release_data")


class Builder(records.RecordsBuilder, skip_registration=True):
  """Pedestrian images as they are; only those larger than the prepared size are shrunk."""

  name = "pa100k"
  # Pedestrians are about twice as high as wide, hence h = 2w (the RAP protocol of Da-HAR).
  SIZE = (256, 128)
  RESIZE = (256, 128)
  IMAGE_SIZE = (224, 112)
  DESCRIPTION = "Pedestrians in outdoor surveillance video with 26 attributes."
  LICENCE = "CC BY 4.0"
  CITATION = ("Liu, Zhao, Tian, Sheng, Shao, Yi, Yan, Wang. HydraPlus-Net: Attentive Deep Features for Pedestrian Analysis. "
              "ICCV 2017.")
  GROUPS = {
      "person": ("Female", "AgeOver60", "Age18-60", "AgeLess18"),
      "view": ("Front", "Side", "Back"),
      "head": ("Hat", "Glasses"),
      "carried": ("HandBag", "ShoulderBag", "Backpack", "HoldObjectsInFront"),
      "upper body": ("ShortSleeve", "LongSleeve", "UpperStride", "UpperLogo", "UpperPlaid", "UpperSplice", "LongCoat"),
      "lower body": ("LowerStripe", "LowerPattern", "Trousers", "Shorts", "Skirt&Dress", "boots"),
  }

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the annotation file.

    Raises:
      InputError: A file or folder is missing or not as it should be; names variable and row.
    """
    path = source / "annotation" / "annotation.mat"
    if not path.is_file():
      raise InputError(f"{path}: missing; --source must be the folder that holds annotation/ and data/")
    folder = next((found for name in _FOLDERS if (found := archives.folder(source / name)).is_dir()), None)
    if folder is None:
      raise InputError(f"{source}: no image folder; expected {' or '.join(f'{name}/' for name in _FOLDERS)}, or a .zip or .tar of it")
    content = mat_files.load(path, ["attributes", *(f"{split}_{kind}" for split in _IMAGES for kind in ("images_name", "label"))])
    names = mat_files.texts(content["attributes"], f"{path} attributes")
    splits, labels, deviations = {}, {}, []
    for split, count in _IMAGES.items():
      files = mat_files.texts(content[f"{split}_images_name"], f"{path} {split}_images_name")
      labels[split] = mat_files.labels(content[f"{split}_label"], f"{path} {split}_label", len(files), len(names))
      known = np.ones(len(names), bool)
      photos = []
      for row, (file, values) in enumerate(zip(files, labels[split])):
        relative = records.check_relative(file, f"{path} {split}_images_name row {row}")
        photos.append(records.Photo(str(relative), folder / relative, (records.Target(values, known),)))
      if photos:
        splits[split] = photos
      if len(photos) != count:
        deviations.append(f"{split}: {len(photos)} images, published {count}")
    # A part of the images has other shares anyway.
    deviations = deviations or published.label_deviations(
        names, np.concatenate([labels["train"], labels["val"]]), published.PA100K_ATTRIBUTES, published.PA100K_SHARES, digits=6,
        of="train+val")
    return records.Annotations(names, splits, tuple(deviations))
