"""Synthetic faces: layouts, labels, masks, landmarks, determinism, and whether attributes can be seen."""

import dataclasses
import functools
import hashlib
import math
import pathlib

import cv2
import numpy as np
import pytest

from attr_jax.data import pipeline
from attr_jax.data import regions
from attr_jax.data import registry
from attr_jax.data import worlds
from attr_jax.data.worlds import face_draw, face_look, face_sheet, faces
from attr_jax.data.worlds.face_look import ATTRIBUTES, FACIAL_HAIR, HAIR_COLOURS
from attr_jax.errors import InputError

COUNT, PARSING = 60, 20
# Positive percentages of CelebA, in the order of its attributes.
SHARES = (
  11.11, 26.70, 51.25, 20.46, 2.24, 15.16, 24.08, 23.45, 23.93, 14.80, 5.09, 20.52, 14.22, 5.76, 4.67, 6.51, 6.28, 4.19, 38.69, 45.50, 41.68, 48.34, 4.15,
  11.51, 83.49, 28.41, 4.29, 27.74, 7.98, 6.57, 5.65, 48.21, 20.84, 31.96, 18.89, 4.85, 47.24, 12.30, 7.27, 77.36)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("world") / "faces"
  counts = faces.synthesize(folder, count=COUNT, seed=3, workers=1, progress=False)
  assert counts == {"images": COUNT, "train": 48, "val": 6, "test": 6, "parsing": PARSING}
  return folder


def _digest(folder: pathlib.Path) -> str:
  digest = hashlib.sha256()
  for file in sorted(path for path in folder.rglob("*") if path.is_file()):
    digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
  return digest.hexdigest()


def _table(path: pathlib.Path) -> tuple[list, dict]:
  """Header and rows of a list that starts with its count."""
  lines = path.read_text().splitlines()
  rows = {line.split()[0]: [int(value) for value in line.split()[1:]] for line in lines[2:]}
  assert int(lines[0]) == len(lines) - 2 == len(rows)
  return lines[1].split(), rows


def _stems(folder: pathlib.Path, name: str) -> list:
  rows = [line.split(",") for line in (folder / faces.PARSING_FOLDER / name).read_text().splitlines()]
  assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
  return [stem.strip() for _, stem in rows]


def _read_masks(folder: pathlib.Path, stem: str) -> np.ndarray:
  path = folder / faces.PARSING_FOLDER / "labels" / stem
  return np.stack([cv2.imread(str(path / f"{stem}_lbl{index:02d}.png"), cv2.IMREAD_UNCHANGED) for index in range(11)])


@functools.lru_cache(None)
def _looks(count: int) -> tuple:
  rng = np.random.default_rng(8)
  return tuple(face_look.sample_look(rng) for _ in range(count))


def test_attribute_files_are_those_of_celeba(world):
  names = [f"{i:06d}.jpg" for i in range(1, COUNT + 1)]
  assert sorted(path.name for path in (world / "img_align_celeba").iterdir()) == names
  header, rows = _table(world / "list_attr_celeba.txt")
  assert tuple(header) == ATTRIBUTES and len(header) == 40 and header == sorted(header)
  assert list(rows) == names and all(len(row) == 40 and set(row) <= {-1, 1} for row in rows.values())
  raw = (world / "list_attr_celeba.txt").read_bytes()
  assert raw.count(b"\r\n") == raw.count(b"\n") == COUNT + 2
  header, rows = _table(world / "list_landmarks_align_celeba.txt")
  assert header == [f"{name}_{axis}" for name in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"]
  assert list(rows) == names and all(len(row) == 10 for row in rows.values())
  parts = [line.split() for line in (world / "list_eval_partition.txt").read_text().splitlines()]
  assert [name for name, _ in parts] == names and [int(part) for _, part in parts] == [0] * 48 + [1] * 6 + [2] * 6
  for name in names:
    assert cv2.imread(str(world / "img_align_celeba" / name)).shape == (218, 178, 3)


def test_parsing_files_are_those_of_smith(world):
  root = world / faces.PARSING_FOLDER
  assert {path.name for path in root.iterdir()} == {"images", "labels", "exemplars.txt", "testing.txt", "tuning.txt"}
  lists = [_stems(world, name) for name in ("exemplars.txt", "tuning.txt", "testing.txt")]
  stems = [stem for part in lists for stem in part]
  assert [len(part) for part in lists] == [16, 2, 2] and len(set(stems)) == PARSING
  assert sorted(path.stem for path in (root / "images").iterdir()) == sorted(path.name for path in (root / "labels").iterdir()) == sorted(stems)
  attribute_photos = {path.read_bytes() for path in (world / "img_align_celeba").iterdir()}
  for stem in stems:
    image = root / "images" / f"{stem}.jpg"
    assert image.read_bytes() not in attribute_photos  # other faces
    assert len(list((root / "labels" / stem).iterdir())) == 11
    masks = _read_masks(world, stem)
    assert masks.dtype == np.uint8 and masks.shape[1:] == cv2.imread(str(image)).shape[:2]


def test_masks_are_soft_and_sum_to_255(world):
  for stem in _stems(world, "exemplars.txt"):
    masks = _read_masks(world, stem).astype(int)
    assert abs(masks.sum(0) - 255).max() <= 5  # eleven roundings
    assert (masks.max(0) > 250).mean() > 0.7 and ((masks > 30) & (masks < 225)).any((1, 2))[face_sheet.SKIN]
    sizes = (masks > 127).sum((1, 2))
    assert sizes[0] > 8000 and sizes[1] > 2500 and sizes[face_sheet.NOSE] > 150
    brows_and_lips = [face_sheet.LEFT_BROW, face_sheet.RIGHT_BROW, face_sheet.UPPER_LIP, face_sheet.LOWER_LIP]
    assert np.count_nonzero(sizes[brows_and_lips] > 10) >= 3  # a fringe may hide a brow


def test_regions_lie_where_a_face_has_them():
  for number, look in enumerate(_looks(40)):
    drawing = face_draw.draw_face(np.random.default_rng(number), look)
    center = {index: np.argwhere(drawing.region == index).mean(0)[::-1] for index in np.unique(drawing.region)}
    brow, nose, lip = (center[i] for i in (face_sheet.RIGHT_BROW, face_sheet.NOSE, face_sheet.LOWER_LIP))
    assert brow[1] < nose[1] < lip[1]
    if face_sheet.LEFT_EYE in center:  # left in the photo
      assert center[face_sheet.LEFT_EYE][0] < nose[0] < center[face_sheet.RIGHT_EYE][0]
    if face_sheet.LEFT_BROW in center:
      assert center[face_sheet.LEFT_BROW][0] < brow[0]


def test_landmarks_lie_in_their_masks():
  hidden = 0
  for number, look in enumerate(_looks(60)):
    drawing = face_draw.draw_face(np.random.default_rng(number), look)
    masks = face_sheet.soft_masks(drawing.region)
    points = np.rint(drawing.landmarks).astype(int)
    near = [masks[:, y - 1:y + 2, x - 1:x + 2].max((1, 2)) for x, y in points]
    if look["Eyeglasses"] and look.glasses == "dark":
      hidden += 1
      assert near[0][face_sheet.LEFT_EYE] == near[1][face_sheet.RIGHT_EYE] == 0
    else:
      assert near[0][face_sheet.LEFT_EYE] > 127 and near[1][face_sheet.RIGHT_EYE] > 127
    assert masks[face_sheet.NOSE, points[2, 1], points[2, 0]] > 127
    for corner in near[3:]:
      assert max(corner[face_sheet.UPPER_LIP], corner[face_sheet.LOWER_LIP]) > 25
    assert points[0, 0] < points[1, 0] and points[3, 0] < points[4, 0]
  assert hidden < 10


def test_same_seed_same_bytes_at_any_number_of_workers(tmp_path):
  for name, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
    faces.synthesize(tmp_path / name, count=12, seed=seed, workers=workers, progress=False)
  assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")


@pytest.mark.parametrize("count", [1, 11])
def test_small_counts_are_exact(tmp_path, count):
  counts = faces.synthesize(tmp_path / "few", count=count, progress=False)
  _, rows = _table(tmp_path / "few" / "list_attr_celeba.txt")
  assert len(rows) == counts["images"] == counts["train"] + counts["val"] + counts["test"] == count


def test_a_quarter_more_photos_have_masks():
  assert [faces.parsing_count(count) for count in (1, 80, 100, 1000)] == [20, 20, 25, 250]


def test_wrong_calls_are_refused(tmp_path):
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "file").touch()
  for arguments in ({"count": 0}, {"count": 5, "seed": -1}, {"count": 5, "workers": 0}):
    with pytest.raises(InputError):
      faces.synthesize(tmp_path / "new", progress=False, **arguments)
  with pytest.raises(InputError, match="not an empty folder"):
    faces.synthesize(tmp_path / "full", count=5, progress=False)
  with pytest.raises(InputError, match="people, .*faces"):
    worlds.ensure("face", tmp_path / "new", count=5, seed=0, size=None, progress=False)
  assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
  draw, calls = face_draw.draw_face, []

  def fail_at_third(*args):
    calls.append(1)
    if len(calls) == 3:
      raise RuntimeError("disk full")
    return draw(*args)

  monkeypatch.setattr(face_draw, "draw_face", fail_at_third)
  with pytest.raises(RuntimeError, match="disk full"):
    faces.synthesize(tmp_path / "out", count=10, workers=1, progress=False)
  assert not list(tmp_path.iterdir())


def _eyes(folder: pathlib.Path) -> np.ndarray:
  """Point between the eyes, pixels, and the logarithm of their distance: float [N, 3]."""
  points = np.loadtxt(folder / "list_landmarks_align_celeba.txt", skiprows=2, usecols=range(1, 5))
  return np.column_stack([points[:, ::2].mean(1), points[:, 1::2].mean(1), np.log(points[:, 2] - points[:, 0])])


def test_loose_faces_are_the_same_people_anywhere(tmp_path):
  """The same seed has the same labels in both worlds; only the place, the size and the tilt of the head differ."""
  for world in ("faces", "faces_loose"):
    assert worlds.synthesize(world, tmp_path / world, count=60, seed=4, progress=False)["images"] == 60
  aligned, loose = (tmp_path / world for world in ("faces", "faces_loose"))
  assert (aligned / "list_attr_celeba.txt").read_bytes() == (loose / "list_attr_celeba.txt").read_bytes()
  assert np.all(_eyes(loose).std(0) > (5, 5, 3) * _eyes(aligned).std(0))
  points = np.loadtxt(loose / "list_landmarks_align_celeba.txt", skiprows=2, usecols=range(1, 11))
  assert points.min() > 5 and points[:, ::2].max() < face_sheet.WIDTH - 5 and points[:, 1::2].max() < face_sheet.HEIGHT - 5


def test_masks_follow_a_loose_face():
  framing = face_draw.FRAMINGS["loose"]
  for number, look in enumerate(_looks(30)):
    drawing = face_draw.draw_face(np.random.default_rng(number), look, framing)
    x, y = np.rint(drawing.landmarks[2]).astype(int)
    assert face_sheet.soft_masks(drawing.region)[face_sheet.NOSE, y, x] > 127


def test_the_world_is_drawn_and_prepared_once(tmp_path):
  """What `config.data.world = "faces"` does."""
  options = {"count": 20, "seed": 3, "size": None, "progress": False}
  worlds.ensure("faces", tmp_path, **options)
  times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
  worlds.ensure("faces", tmp_path, **options)
  assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
  attributes, parts = (registry.open_dataset(name, tmp_path) for name in ("celeba_aligned", "helen"))
  assert attributes.info.splits == parts.info.splits == {"train": 16, "val": 2, "test": 2}
  assert attributes.info.label_names == ATTRIBUTES and "other" not in attributes.info.label_groups
  _, rows = _table(tmp_path / "source" / "list_attr_celeba.txt")
  _, points = _table(tmp_path / "source" / "list_landmarks_align_celeba.txt")
  for sample, values, point in zip(attributes.source("train+val+test"), rows.values(), points.values(), strict=True):
    assert sample["label"].tolist() == [int(value == 1) for value in values]
    assert sample["landmarks"].ravel().tolist() == point
  classes = [pipeline.decode_sample(sample)["region_mask"] for sample in parts.source("train+val+test")]
  assert all(mask.shape == (218, 178) and mask.max() < len(regions.FaceRegion) for mask in classes)
  for region in regions.FaceRegion:
    assert np.mean([(mask == region).any() for mask in classes]) > 0.6, region
  with pytest.raises(InputError, match="not prepared"):
    registry.open_dataset("celeba", tmp_path)  # of original photos, which are not drawn


def test_positive_shares_are_those_of_celeba():
  looks = _looks(4000)
  shares = np.array([list(look.attributes.values()) for look in looks]).mean(0)
  for name, got, expected in zip(ATTRIBUTES, shares, np.array(SHARES) / 100):
    assert abs(got - expected) < 0.013 + 3.5 * math.sqrt(expected * (1 - expected) / len(looks)), name


def test_labels_agree_with_each_other():
  for look in _looks(4000):
    assert tuple(look.attributes) == ATTRIBUTES
    assert look["No_Beard"] != any(look[name] for name in FACIAL_HAIR)
    assert look["Male"] or look["No_Beard"]
    assert sum(look[name] for name in HAIR_COLOURS) <= 1
    assert not (look["Straight_Hair"] and look["Wavy_Hair"]) and not (look["Arched_Eyebrows"] and look["Bushy_Eyebrows"])
    assert not (look["Chubby"] and look["Oval_Face"]) and not (look["Big_Nose"] and look["Pointy_Nose"])
    assert not (look["Wearing_Necktie"] and look["Wearing_Necklace"]) and not (look["Bangs"] and look["Receding_Hairline"])
    hair = [look[name] for name in (*HAIR_COLOURS, "Straight_Hair", "Wavy_Hair", "Bangs", "Receding_Hairline")]
    if look["Bald"]:
      assert not any(hair) and not look["Wearing_Hat"]
    if look["Wearing_Hat"]:
      assert not look["Bangs"] and not look["Receding_Hairline"] and (look.hair in ("long", "bob") or not any(hair))
    if look["Eyeglasses"] and look.glasses == "dark":
      assert not look["Narrow_Eyes"] and not look["Bags_Under_Eyes"]


@pytest.mark.parametrize("first, second, least", [
  ("Smiling", "High_Cheekbones", 0.5), ("Smiling", "Mouth_Slightly_Open", 0.4), ("Heavy_Makeup", "Wearing_Lipstick", 0.6),
  ("Attractive", "Young", 0.25), ("Attractive", "Heavy_Makeup", 0.25), ("Chubby", "Double_Chin", 0.3), ("Male", "Wearing_Necktie", 0.2)])
def test_attributes_go_together_as_in_celeba(first, second, least):
  values = np.array([(look[first], look[second]) for look in _looks(4000)], float)
  assert np.corrcoef(values.T)[0, 1] > least


# ---- Attributes can be seen: the same face with and without each, measured. ----


def _change(look, name: str, value: bool):
  """The same face with one attribute set, and what must go with it."""
  more = {}
  attributes = look.attributes | {name: value}
  if name == "Bald" and value:
    more["hair"] = "bald"
  if name == "Wearing_Necktie":
    more["top"] = "suit"
  if name == "Wearing_Necklace":
    more["top"] = "scoop"
  if name == "Pale_Skin":
    more["skin"] = face_look._skin(np.random.default_rng(3), value)
  if name == "Wavy_Hair":
    attributes["Straight_Hair"] = not value
    more["hair"] = "long"
  return dataclasses.replace(look, attributes=attributes, **more)


_PLAIN = ("Wearing_Hat", "Bald", "Blurry", "Eyeglasses", "Bangs", "Chubby", "Receding_Hairline", "Heavy_Makeup", "Double_Chin", "Rosy_Cheeks",
          "Bushy_Eyebrows", "Arched_Eyebrows", "Narrow_Eyes", "Big_Nose", "Pointy_Nose", "Bags_Under_Eyes", "Wearing_Earrings")


@functools.lru_cache(None)
def _plain_looks(male: bool) -> tuple:
  plain = [look for look in _looks(4000) if look["Male"] == male and look["No_Beard"] and look["Young"] and not any(look[name] for name in _PLAIN)]
  # Light skin, so that what is dark can be told from it.
  return tuple(look for look in plain if sum(look.skin) > 500 and sum(look.hair_colour) < 330)[:4]


def _grey(drawing) -> np.ndarray:
  return drawing.image.astype(np.float64).mean(-1)


def _box(drawing, x0, y0, x1, y1) -> tuple:
  """Pixels around a box given in face units from the point between the eyes."""
  left, right = drawing.landmarks[:2]
  unit, (x, y) = np.hypot(*(right - left)) / 2, (left + right) / 2
  return np.s_[max(0, round(y + unit * y0)):max(0, round(y + unit * y1)), max(0, round(x + unit * x0)):round(x + unit * x1)]


def _area(*regions):
  return lambda drawing: np.isin(drawing.region, regions).sum()


def _height(*regions):
  return lambda drawing: np.ptp(np.argwhere(np.isin(drawing.region, regions))[:, 0])


def _darkness(*boxes):
  return lambda drawing: 255 - np.mean([_grey(drawing)[_box(drawing, *box)].mean() for box in boxes])


def _redness(*boxes):
  def measure(drawing):
    image = drawing.image.astype(np.float64)
    return np.mean([(image[..., 0] - image[..., 1])[_box(drawing, *box)].mean() for box in boxes])
  return measure


def _cheekbone(drawing) -> float:
  """How much brighter the cheekbones are than the hollows below."""
  dark = _darkness((-1.75, 1.4, -1.3, 1.8), (1.3, 1.4, 1.75, 1.8))
  return dark(drawing) - _darkness((-1.55, 0.7, -1.15, 1.0), (1.15, 0.7, 1.55, 1.0))(drawing)


def _lip_redness(drawing) -> float:
  lips = np.isin(drawing.region[::2, ::2], (face_sheet.UPPER_LIP, face_sheet.LOWER_LIP))
  image = drawing.image.astype(np.float64)
  return (image[..., 0] - image[..., 1:].mean(-1))[lips].mean()


def _detail(*box):
  return lambda drawing: np.abs(cv2.Laplacian(_grey(drawing), cv2.CV_64F))[_box(drawing, *box)].mean()


def _skin_below(drawing) -> float:
  """How far the face reaches below the eyes, sheet pixels."""
  return np.argwhere(drawing.region == face_sheet.SKIN)[:, 0].max() - 2 * drawing.landmarks[:2, 1].mean()


def _face_width(drawing) -> float:
  skin = drawing.region == face_sheet.SKIN
  return skin[round(2 * drawing.landmarks[3:, 1].mean())].sum()


def _roughness(drawing) -> float:
  """Outline of the hair over the outline of its smooth version."""
  hair = (drawing.region == face_sheet.HAIR).astype(np.uint8)
  smooth = (cv2.GaussianBlur(hair * 255, (0, 0), 9) > 127).astype(np.uint8)
  length = [sum(cv2.arcLength(line, True) for line in cv2.findContours(m, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]) for m in (hair, smooth)]
  return length[0] / length[1]


def _corner_lift(drawing) -> float:
  """How far the corners of the mouth are above its lower end, sheet pixels."""
  return np.argwhere(drawing.region == face_sheet.LOWER_LIP)[:, 0].max() - 2 * drawing.landmarks[3:, 1].mean()


def _whiteness(drawing) -> float:
  skin = drawing.image[drawing.region[::2, ::2] == face_sheet.SKIN].astype(np.float64).mean(0)
  return skin.min() / skin.max()


_EYE_BAGS, _CHEEKS = ((-1.4, 0.25, -0.6, 0.6), (0.6, 0.25, 1.4, 0.6)), ((-1.6, 0.9, -1.1, 1.4), (1.1, 0.9, 1.6, 1.4))


@pytest.mark.parametrize("name, male, measure, factor, step", [
  # With the attribute the measure is at least `factor` times that without it, plus `step`.
  ("5_o_Clock_Shadow", True, _darkness((-0.8, 2.75, 0.8, 3.0)), 1.0, 20),
  ("Goatee", True, _darkness((-0.3, 2.75, 0.3, 3.1)), 1.0, 35),
  ("Mustache", True, _darkness((-0.4, 1.6, 0.4, 2.0)), 1.0, 15),
  ("Sideburns", True, _darkness((-1.9, 0.5, -1.6, 1.4), (1.6, 0.5, 1.9, 1.4)), 1.0, 25),
  ("Arched_Eyebrows", False, _height(face_sheet.LEFT_BROW), 1.4, 0),
  ("Bushy_Eyebrows", True, _area(face_sheet.LEFT_BROW, face_sheet.RIGHT_BROW), 1.5, 0),
  ("Bags_Under_Eyes", True, _darkness(*_EYE_BAGS), 1.0, 15),
  ("Bald", True, _area(face_sheet.SKIN), 1.15, 0),
  ("Bangs", False, _area(face_sheet.HAIR), 1.05, 400),
  ("Big_Lips", True, _area(face_sheet.UPPER_LIP, face_sheet.LOWER_LIP), 1.3, 0),
  ("Big_Nose", False, _area(face_sheet.NOSE), 1.3, 0),
  ("Chubby", True, _face_width, 1.1, 0),
  ("Double_Chin", False, _skin_below, 1.0, 12),
  ("Eyeglasses", True, _darkness((-2.0, -0.6, 2.0, 0.8)), 1.0, 10),
  ("Heavy_Makeup", False, _darkness((-1.6, -0.55, -0.6, 0.0), (0.6, -0.55, 1.6, 0.0)), 1.0, 12),
  ("High_Cheekbones", True, _cheekbone, 1.0, 12),
  ("Mouth_Slightly_Open", True, _area(face_sheet.INNER_MOUTH), 1.0, 300),
  ("Oval_Face", False, _skin_below, 1.0, 5),
  ("Pale_Skin", False, _whiteness, 1.2, 0),
  ("Receding_Hairline", True, _area(face_sheet.SKIN), 1.07, 0),
  ("Rosy_Cheeks", False, _redness(*_CHEEKS), 1.0, 20),
  ("Smiling", False, _corner_lift, 1.0, 5),
  ("Wavy_Hair", False, _roughness, 1.02, 0),
  ("Wearing_Earrings", False, _detail(-2.8, 0.6, 2.8, 2.0), 1.1, 0),
  ("Wearing_Lipstick", False, _lip_redness, 1.0, 8),
  ("Wearing_Necklace", False, _detail(-1.3, 4.3, 1.3, 5.6), 1.5, 0),
  ("Wearing_Necktie", True, _detail(-0.5, 4.5, 0.5, 5.8), 1.15, 0),
])
def test_attributes_are_in_the_pixels(name, male, measure, factor, step):
  looks = _plain_looks(male)
  assert len(looks) == 4
  for number, look in enumerate(looks):
    without, with_it = (measure(face_draw.draw_face(np.random.default_rng(number), _change(look, name, value))) for value in (False, True))
    assert with_it > factor * without + step, (number, without, with_it)


@pytest.mark.parametrize("name, male, measure, factor", [
  ("Blurry", False, _detail(-2.0, -1.0, 2.0, 3.0), 0.5),
  ("Narrow_Eyes", True, _area(face_sheet.LEFT_EYE, face_sheet.RIGHT_EYE), 0.6),
  ("Pointy_Nose", True, _area(face_sheet.NOSE), 0.95),
  ("Wearing_Hat", True, _area(face_sheet.HAIR), 0.3),
  ("Young", True, _detail(-1.0, -1.65, 1.0, -1.0), 0.8),
])
def test_attributes_take_from_the_pixels(name, male, measure, factor):
  for number, look in enumerate(_plain_looks(male)):
    without, with_it = (measure(face_draw.draw_face(np.random.default_rng(number), _change(look, name, value))) for value in (False, True))
    assert with_it < factor * without, (number, without, with_it)


def test_hair_has_the_colour_that_is_said():
  colours = {name: [] for name in HAIR_COLOURS}
  for number, look in enumerate(_looks(250)):
    named = [name for name in HAIR_COLOURS if look[name]]
    if not named or look["Blurry"] or look["Bald"]:
      continue
    drawing = face_draw.draw_face(np.random.default_rng(number), look)
    hair = drawing.region[::2, ::2] == face_sheet.HAIR
    assert hair.sum() > 300
    colours[named[0]].append(drawing.image[hair].mean(0, dtype=np.float64))
  bright = {name: np.mean([colour.mean() for colour in found]) for name, found in colours.items()}
  yellow = {name: np.mean([1 - colour[2] / colour[0] for colour in found]) for name, found in colours.items()}
  assert bright["Black_Hair"] + 25 < bright["Brown_Hair"] < bright["Blond_Hair"] - 60
  assert max(yellow["Gray_Hair"], yellow["Black_Hair"]) + 0.15 < min(yellow["Blond_Hair"], yellow["Brown_Hair"])
  assert bright["Gray_Hair"] > bright["Black_Hair"] + 80
