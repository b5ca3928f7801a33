"""Small sources in the true layouts, written on the spot."""

import json

import cv2
import numpy as np
import pytest
import scipy.io

from attr_jax.data import images

WIDER_NAMES = ("Male", "longHair", "sunglass", "Hat", "Tshirt", "longSleeve", "formal", "shorts", "jeans", "longPants", "skirt",
               "faceMask", "logo", "stripe")


def smooth_image(seed: int, height: int, width: int) -> np.ndarray:
  """A smooth random RGB picture, so that JPEG changes it little."""
  coarse = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), np.uint8)
  return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


class WiderSource:
  """A WIDER-Attribute folder; change `trainval` or `test` and `save` again to break it."""

  def __init__(self, folder, masks=False):
    self.folder = folder
    id_map = {str(index): name for index, name in enumerate(WIDER_NAMES)}
    self.trainval = {"attribute_id_map": dict(id_map), "scene_id_map": {"0": "Parade"}, "images": []}
    self.test = {"attribute_id_map": dict(id_map), "scene_id_map": {"0": "Parade"}, "images": []}
    rng = np.random.default_rng(7)
    for number in range(12):
      split = ("train", "train", "val", "test")[number % 4]
      name = f"{split}/0--Parade/{number}.jpg"
      path = folder / "Image" / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(images.encode_jpeg(smooth_image(number, 120, 160), quality=95))
      boxes = [[10, 12, 40, 90], [60.4, 5.5, 30.2, 64.7], [100, 20, 60, 100]]
      targets = [{"attribute": rng.integers(-1, 2, 14).tolist(), "bbox": box} for box in boxes]
      if masks:
        for index, target in enumerate(targets):
          self.add_mask(target, f"Mask/{split}-{number}-{index}.png")
      content = self.test if split == "test" else self.trainval
      content["images"].append({"file_name": name, "scene_id": 0, "targets": targets})
    self.save()

  def add_mask(self, target, name):
    x, y, width, height = target["bbox"]
    rows, columns = int(np.ceil(y + height)) - int(np.floor(y)), int(np.ceil(x + width)) - int(np.floor(x))
    mask = np.zeros((rows, columns), np.uint8)
    mask[rows // 4:, columns // 3:] = 255
    (self.folder / name).parent.mkdir(exist_ok=True)
    (self.folder / name).write_bytes(images.encode_png(mask))
    target["mask"] = name

  def save(self):
    for file, content in (("wider_attribute_trainval.json", self.trainval), ("wider_attribute_test.json", self.test)):
      (self.folder / file).write_text(json.dumps(content))


class Pa100kSource:
  """A PA-100K folder of `count` images per split and 3 attributes; change `content` and `save` again to break it."""

  def __init__(self, folder, count=6):
    self.folder = folder
    (folder / "data").mkdir()
    (folder / "annotation").mkdir()
    rng = np.random.default_rng(3)
    self.content = {"attributes": self.cells(["Female", "Hat", "odd one"])}
    number = 0
    for split in ("train", "val", "test"):
      names = []
      for _ in range(count):
        number += 1
        names.append(f"{number:06d}.jpg")
        size = (90, 40) if number % 2 else (40, 20)
        (folder / "data" / names[-1]).write_bytes(images.encode_jpeg(smooth_image(number, *size)))
      self.content[f"{split}_images_name"] = self.cells(names)
      self.content[f"{split}_label"] = rng.integers(0, 2, (count, 3)).astype(np.uint8)
    self.save()

  @staticmethod
  def cells(texts):
    array = np.empty((len(texts), 1), object)
    array[:, 0] = texts
    return array

  def save(self):
    scipy.io.savemat(self.folder / "annotation" / "annotation.mat", self.content)


@pytest.fixture
def wider_source(tmp_path):
  """Returns a function (masks=False) -> WiderSource."""
  def make(masks=False):
    folder = tmp_path / "wider"
    folder.mkdir()
    return WiderSource(folder, masks)
  return make


@pytest.fixture
def pa100k_source(tmp_path):
  """Returns a function (count=6) -> Pa100kSource."""
  def make(count=6):
    folder = tmp_path / "pa100k"
    folder.mkdir()
    return Pa100kSource(folder, count)
  return make


@pytest.fixture
def picture():
  """The function (seed, height, width) -> smooth uint8 RGB image."""
  return smooth_image
