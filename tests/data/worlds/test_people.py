"""Synthetic street scenes: layout, labels, masks, determinism."""

import dataclasses
import hashlib
import json
import math
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from attr_jax.data.worlds import people, people_figure, people_look, people_scene, people_sheet
from attr_jax.data.worlds.people_look import LONG_SLEEVES, SCENES
from attr_jax.errors import InputError

COUNT = 600
# Positive shares of the real data set, as the order of attributes.
SHARES = (0.567, 0.224, 0.050, 0.226, 0.219, 0.465, 0.070, 0.154, 0.082, 0.362, 0.101, 0.033, 0.268, 0.054)
INDEX = {name: i for i, name in enumerate(people.ATTRIBUTES)}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("world") / "people"
  counts = people.synthesize(folder, count=COUNT, seed=3, workers=1, progress=False)
  assert counts == {"images": len(_images(folder)), "boxes": COUNT, "train": 300, "val": 60, "test": 240}
  return folder


def _images(folder: pathlib.Path) -> list:
  files = ("wider_attribute_trainval.json", "wider_attribute_test.json")
  return [image for file in files for image in json.loads((folder / file).read_text())["images"]]


def _targets(folder: pathlib.Path) -> list:
  return [target for image in _images(folder) for target in image["targets"]]


def _digest(folder: pathlib.Path) -> str:
  digest = hashlib.sha256()
  for file in sorted(path for path in folder.rglob("*") if path.is_file()):
    digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
  return digest.hexdigest()


def test_layout_is_that_of_wider_attribute(world):
  assert {path.name for path in world.iterdir()} == {"Image", "Mask", "wider_attribute_trainval.json", "wider_attribute_test.json"}
  for file, splits in (("trainval", {"train", "val"}), ("test", {"test"})):
    content = json.loads((world / f"wider_attribute_{file}.json").read_text())
    assert set(content) == {"attribute_id_map", "scene_id_map", "images"}
    assert tuple(content["attribute_id_map"][str(i)] for i in range(14)) == people.ATTRIBUTES
    assert {image["file_name"].split("/")[0] for image in content["images"]} == splits
    for image in content["images"]:
      _, scene, _ = image["file_name"].split("/")
      assert scene == f"{image['scene_id']}--{content['scene_id_map'][str(image['scene_id'])]}"
      assert (world / "Image" / image["file_name"]).is_file()
  files = [path.relative_to(world / "Image").as_posix() for path in (world / "Image").rglob("*.jpg")]
  assert sorted(files) == sorted(image["file_name"] for image in _images(world))


def test_count_is_exact_and_boxes_differ(world):
  targets = _targets(world)
  assert len(targets) == COUNT
  several = [image for image in _images(world) if len(image["targets"]) > 1]
  different = [image for image in several if len({tuple(target["attribute"]) for target in image["targets"]}) > 1]
  assert len(several) > 0.6 * len(_images(world)) and len(different) > 0.95 * len(several)


def test_labels_have_the_imbalance_of_wider_attribute(world):
  labels = np.array([target["attribute"] for target in _targets(world)])
  assert labels.shape == (COUNT, 14) and set(np.unique(labels)) == {-1, 0, 1}
  positive, unspecified = (labels == 1).mean(0), (labels == 0).mean(0)
  for name, got, expected in zip(people.ATTRIBUTES, positive, SHARES):
    # Photos of one event share what is worn, hence more spread than for independent boxes.
    assert abs(got - expected) < 0.03 + 4 * math.sqrt(expected * (1 - expected) / COUNT), name
  for name in ("sunglass", "faceMask", "shorts", "longPants", "skirt"):
    assert 0.10 < unspecified[INDEX[name]] < 0.45, name
  for name in ("Male", "Hat", "Tshirt", "longSleeve", "formal", "stripe"):
    assert 0.0 < unspecified[INDEX[name]] < 0.15, name


def test_labels_agree_with_each_other(world):
  labels = np.array([target["attribute"] for target in _targets(world)])
  value = lambda name: labels[:, INDEX[name]]
  assert not ((value("Tshirt") == 1) & (value("longSleeve") == 1)).any()
  assert not ((value("jeans") == 1) & (value("longPants") == -1)).any()
  assert not ((value("formal") == 1) & (value("longSleeve") == -1)).any()
  lower = np.stack([value(name) for name in ("shorts", "longPants", "skirt")])
  assert ((lower == 1).sum(0) <= 1).all()
  assert (value("longHair")[value("Male") == 1] == 1).mean() < 0.2 < (value("longHair")[value("Male") == -1] == 1).mean()


def test_masks_cover_the_box_and_never_overlap(world):
  for image in _images(world)[:80]:
    height, width = cv2.imread(str(world / "Image" / image["file_name"])).shape[:2]
    owner = np.zeros((height, width), np.uint8)
    for target in image["targets"]:
      x, y, w, h = target["bbox"]
      left, top, right, bottom = math.floor(x), math.floor(y), math.ceil(x + w), math.ceil(y + h)
      assert 0 <= left < right <= width and 0 <= top < bottom <= height
      mask = cv2.imread(str(world / target["mask"]), cv2.IMREAD_UNCHANGED)
      assert mask.shape == (bottom - top, right - left) and mask.dtype == np.uint8
      assert set(np.unique(mask)) <= {0, 255} and mask.mean() > 0.05 * 255
      owner[top:bottom, left:right] += mask > 0
    assert owner.max() == 1


def test_same_seed_same_bytes_at_any_number_of_workers(tmp_path):
  for name, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
    people.synthesize(tmp_path / name, count=40, seed=seed, workers=workers, progress=False)
  assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_small_counts_are_exact(tmp_path, count):
  counts = people.synthesize(tmp_path / "few", count=count, progress=False)
  assert len(_targets(tmp_path / "few")) == counts["boxes"] == count


def test_wrong_calls_are_refused(tmp_path):
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "file").touch()
  for arguments in ({"count": 0}, {"count": -3}, {"count": 5, "seed": -1}, {"count": 5, "workers": 0}):
    with pytest.raises(InputError):
      people.synthesize(tmp_path / "new", progress=False, **arguments)
  with pytest.raises(InputError, match="not an empty folder"):
    people.synthesize(tmp_path / "full", count=5, progress=False)
  assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
  draw, calls = people_scene.draw_scene, []

  def fail_at_third(*args, **kwargs):
    calls.append(1)
    if len(calls) == 3:
      raise RuntimeError("disk full")
    return draw(*args, **kwargs)

  monkeypatch.setattr(people_scene, "draw_scene", fail_at_third)
  with pytest.raises(RuntimeError, match="disk full"):
    people.synthesize(tmp_path / "out", count=40, workers=1, progress=False)
  assert not list(tmp_path.iterdir())


def test_of_two_processes_that_need_a_world_one_draws_it(tmp_path):
  call = (f"from attr_jax.data import worlds; worlds.ensure('people', {str(tmp_path / 'world')!r}, count=40, seed=0, size='32x32')")
  both = [subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.PIPE, text=True) for _ in range(2)]
  said = [process.communicate()[1] for process in both]
  assert [process.returncode for process in both] == [0, 0], said
  assert sum("box/s" in text for text in said) == 1
  assert (tmp_path / "world" / "wider_attribute").is_dir()


def test_an_empty_folder_is_filled(tmp_path):
  (tmp_path / "out").mkdir()
  people.synthesize(tmp_path / "out", count=2, progress=False)
  assert len(_targets(tmp_path / "out")) == 2


def _looks(number: int) -> list:
  rng = np.random.default_rng(5)
  return [people_look.sample_look(rng, SCENES[i % len(SCENES)], bool(i % 2)) for i in range(number)]


def test_what_a_part_hides_is_unspecified():
  full = np.full(people_sheet.NUM_PARTS, 1000)
  for look in _looks(40):
    shown = people_scene.labels(look, full, full)
    assert not {shown[i] for name, i in INDEX.items() if name not in ("sunglass", "faceMask")} & {0}
    assert shown[INDEX["longSleeve"]] == (1 if look.top in LONG_SLEEVES else -1)
    # Nobody can tell glasses or a face mask from behind.
    for name, worn in (("sunglass", look.eyewear == "dark"), ("faceMask", look.face_mask)):
      assert shown[INDEX[name]] == (0 if look.back else 1 if worn else -1)
    no_legs = full.copy()
    no_legs[[people_sheet.THIGH, people_sheet.SHIN]] = 0
    hidden = people_scene.labels(look, no_legs, full)
    assert all(hidden[INDEX[name]] == 0 for name in ("shorts", "jeans", "longPants", "skirt"))
    assert hidden[INDEX["Hat"]] == shown[INDEX["Hat"]]
    assert set(people_scene.labels(look, full * 0, full)) == {0}


def test_targets_seen_from_behind_have_no_face():
  rng = np.random.default_rng(11)
  targets = [target for i in range(30) for target in people_scene.draw_scene(rng, SCENES[i % len(SCENES)], 4).targets]
  behind = [target for target in targets if target.back]
  assert len(behind) > 5
  assert all(target.attribute[INDEX["sunglass"]] == target.attribute[INDEX["faceMask"]] == 0 for target in behind)


@pytest.mark.parametrize("part, with_it, without", [
  ("HAT", {"hat": "brim"}, {"hat": None}),
  ("LOGO", {"logo": "chest"}, {"logo": None}),
])
def test_attributes_are_in_the_pixels(part, with_it, without):
  """A hat or a print changes the pixels where its part lies."""
  pixels = []
  for change in (with_it, without):
    look = dataclasses.replace(_looks(1)[0], back=False, top="tshirt", pattern=None, held=None, extra=None, bottom="pants", **change)
    pose = people_figure.sample_pose(np.random.default_rng(0), look.male, False)
    layer = people_figure.Layer(np.zeros((300, 300, 3), np.uint8), np.zeros((300, 300), np.uint8), 240.0, 1, np.array([-0.6, -0.2]))
    people_figure.draw_figure(np.random.default_rng(1), look, pose, layer)
    pixels.append(layer)
  where = pixels[0].part() == getattr(people_sheet, part)
  assert where.sum() > 100 and not (pixels[1].part() == getattr(people_sheet, part)).any()
  changed = (pixels[0].rgb != pixels[1].rgb).any(-1)
  assert changed[where].mean() > 0.5


def _mean_overlap(folder: pathlib.Path) -> float:
  """Of each box, the share that the most overlapping other box covers; mean over boxes."""
  shares = []
  for image in _images(folder):
    boxes = [target["bbox"] for target in image["targets"]]
    for i, (x, y, w, h) in enumerate(boxes):
      covered = [max(0, min(x + w, a + c) - max(x, a)) * max(0, min(y + h, b + d) - max(y, b)) / (w * h)
                 for j, (a, b, c, d) in enumerate(boxes) if j != i]
      shares.append(max(covered, default=0.0))
  return float(np.mean(shares))


def test_crowds(world, tmp_path):
  """Nobody beside the target, people as usual, or four to six who stand close; all with as many boxes as asked for."""
  for crowd in ("alone", "crowded"):
    counts = people.synthesize(tmp_path / crowd, count=60, seed=3, crowd=crowd, workers=1, progress=False)
    assert counts["boxes"] == len(_targets(tmp_path / crowd)) == 60
  assert {len(image["targets"]) for image in _images(tmp_path / "alone")} == {1}
  sizes = [len(image["targets"]) for image in _images(tmp_path / "crowded")]
  assert sum(size >= 4 for size in sizes) >= len(sizes) - 3  # the last scene of a split has the rest
  assert _mean_overlap(tmp_path / "alone") == 0 < _mean_overlap(world) < 0.8 * _mean_overlap(tmp_path / "crowded")
