"""Synthetic works of art: layout, labels and what goes together, determinism, and whether cultures and tags can be seen."""

import dataclasses
import functools
import hashlib
import inspect
import pathlib

import cv2
import numpy as np
import pytest

from attr_jax.data import images
from attr_jax.data import registry
from attr_jax.data import worlds
from attr_jax.data.builders import imet2019
from attr_jax.data.worlds import artwork_draw, artwork_ground, artwork_labels, artwork_layout, artwork_people, artwork_scenes, artwork_sheet
from attr_jax.data.worlds import artwork_things, artworks
from attr_jax.data.worlds.artwork_labels import CULTURES, LABELS, PALETTES, TEXTURES, Kind
from attr_jax.errors import InputError

COUNT = 40
TECHNIQUES = {"etching", "embroidery", "mosaic"}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("world") / "artworks"
  counts = artworks.synthesize(folder, count=COUNT, seed=3, workers=1, progress=False)
  assert counts["images"] == COUNT
  return folder


def _rows(path: pathlib.Path) -> list[list[str]]:
  return [line.split(",") for line in path.read_text().splitlines()]


def _digest(folder: pathlib.Path) -> str:
  digest = hashlib.sha256()
  for file in sorted(path for path in folder.rglob("*") if path.is_file()):
    digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
  return digest.hexdigest()


@functools.lru_cache(None)
def _drawn(count: int, seed: int) -> np.ndarray:
  """Labels bool [count, L]."""
  label = np.zeros((count, len(LABELS)), bool)
  for row, kind in zip(label, artwork_labels.draw_kinds(count, seed)):
    for name in (f"culture::{kind.culture}", *(f"tag::{tag}" for tag in kind.tags)):
      row[LABELS.index(name)] = True
  return label


def _number(name: str) -> int:
  (number,) = (number for number, label in enumerate(LABELS) if label.split("::")[1] == name)
  return number


# ---- Files. ----


def test_files_are_those_of_imet(world):
  assert {path.name for path in world.iterdir()} == {"labels.csv", "train.csv", "train"}
  header, *names = _rows(world / "labels.csv")
  assert header == ["attribute_id", "attribute_name"]
  assert [int(number) for number, _ in names] == list(range(60)) and tuple(name for _, name in names) == LABELS == artworks.LABELS
  header, *rows = _rows(world / "train.csv")
  assert header == ["id", "attribute_ids"]
  ids = [name for name, _ in rows]
  assert len(set(ids)) == COUNT and ids == sorted(ids) and sorted(path.stem for path in (world / "train").glob("*.png")) == ids
  for name, found in rows:
    assert len(name) == 16 and set(name) <= set("0123456789abcdef")
    numbers = [int(number) for number in found.split(" ")]
    assert numbers == sorted(set(numbers)) and 2 <= len(numbers) <= 7 and numbers[0] < 16 <= numbers[1]
    image = cv2.imread(str(world / "train" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint8 and image.ndim == 3 and min(image.shape[:2]) == 112
    assert image.std() > 15


def test_labels_come_in_two_sorted_groups():
  cultures, tags = LABELS[:16], LABELS[16:]
  assert all(name.startswith("culture::") for name in cultures) and all(name.startswith("tag::") for name in tags)
  assert list(cultures) == sorted(cultures) and list(tags) == sorted(tags) and len(set(LABELS)) == 60


def test_some_ids_have_zeros_in_front():
  ids = [artworks.picture_id(1, number) for number in range(400)]
  assert len(set(ids)) == 400 and 5 < sum(name.startswith("0") for name in ids) < 60
  assert not {artworks.picture_id(2, number) for number in range(400)} & set(ids)


def test_same_seed_same_bytes_at_any_number_of_workers(tmp_path):
  for name, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
    artworks.synthesize(tmp_path / name, count=12, seed=seed, workers=workers, progress=False)
  assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")


def test_the_shorter_side_is_a_choice(tmp_path):
  artworks.synthesize(tmp_path / "out", count=4, seed=1, short=48, workers=1, progress=False)
  assert {min(cv2.imread(str(path)).shape[:2]) for path in (tmp_path / "out" / "train").iterdir()} == {48}


def test_wrong_calls_are_refused(tmp_path):
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "file").touch()
  for arguments in ({"count": 0}, {"count": 5, "seed": -1}, {"count": 5, "workers": 0}, {"count": 5, "short": 31}):
    with pytest.raises(InputError):
      artworks.synthesize(tmp_path / "new", progress=False, **arguments)
  with pytest.raises(InputError, match="not an empty folder"):
    artworks.synthesize(tmp_path / "full", count=5, progress=False)
  assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_an_error_leaves_nothing_behind(tmp_path, monkeypatch):
  draw, calls = artwork_draw.draw_artwork, []

  def fail_at_third(*args):
    calls.append(1)
    if len(calls) == 3:
      raise RuntimeError("disk full")
    return draw(*args)

  monkeypatch.setattr(artwork_draw, "draw_artwork", fail_at_third)
  with pytest.raises(RuntimeError, match="disk full"):
    artworks.synthesize(tmp_path / "out", count=10, workers=1, progress=False)
  assert not list(tmp_path.iterdir())


def test_worlds_know_artworks(tmp_path):
  assert worlds.synthesize("artworks", tmp_path / "out", count=2, seed=0, progress=False)["images"] == 2


def test_the_world_is_drawn_and_prepared_once(tmp_path, capfd):
  """What `config.data.world = "artworks"` does."""
  options = {"count": COUNT, "seed": 3, "size": 112, "progress": True}
  worlds.ensure("artworks", tmp_path, **options)
  assert "warning" not in capfd.readouterr().err and "published" in next(tmp_path.glob("imet2019/*/*/report.json")).read_text()
  times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
  worlds.ensure("artworks", tmp_path, **options)
  assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
  dataset = registry.open_dataset("imet2019", tmp_path)
  assert dataset.info.splits == {"train": 32, "val": 4, "test": 4}  # nothing is dropped, however small the set is
  assert dataset.info.label_names == LABELS and dataset.info.label_groups == {"culture": LABELS[:16], "tag": LABELS[16:]}
  rows = _rows(tmp_path / "source" / "train.csv")[1:]
  numbers = [number for split in imet2019.split_rows(COUNT).values() for number in split]
  for number, sample in zip(numbers, dataset.source("train+val+test"), strict=True):
    name, found = rows[number]
    assert np.flatnonzero(sample["label"]).tolist() == [int(value) for value in found.split()]
    drawn = cv2.imread(str(tmp_path / "source" / "train" / f"{name}.png"))[..., ::-1]
    stored = images.decode_jpeg(sample["image"])
    assert stored.shape == drawn.shape and np.abs(stored.astype(float) - drawn).mean() < 8


# ---- Labels. ----


def test_shares_have_a_long_tail():
  shares = _drawn(4000, 1).mean(0)
  assert 0.3 < shares.max() < 0.4 and LABELS[int(shares.argmax())] == "tag::men"
  assert 0.15 < shares[:16].max() < 0.3
  assert shares.min() < 0.006 and np.median(shares) < 0.06
  assert ((shares[:16] < 0.02).sum(), (shares[16:] < 0.02).sum()) >= (4, 6)
  # Those of the table, which gives the exact ones.
  _, share, label = artwork_labels.kinds()
  expected = share @ label
  assert share.sum() == pytest.approx(1) and (np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)).all()


@pytest.mark.parametrize("seed", range(5))
def test_in_4000_pictures_every_label_can_be_learnt(seed):
  label = _drawn(4000, seed)
  assert not imet2019.rare(label.astype(np.uint8))[1].any()
  assert label[imet2019.split_rows(4000)["train"]].sum(0).min() >= 3


def test_every_picture_has_one_culture_and_up_to_six_tags():
  label = _drawn(4000, 1)
  assert (label[:, :16].sum(1) == 1).all()
  tags = np.bincount(label[:, 16:].sum(1), minlength=7) / len(label)
  assert len(tags) == 7 and tags[0] == 0 and (tags[1:] > 0.01).all() and 2.5 < tags @ np.arange(7) < 3.5


@pytest.mark.parametrize("count", [1, 2, 3, 10, 40, 120, 600])
def test_small_sets_have_no_label_once_or_twice(count):
  seen = _drawn(count, 5).sum(0)
  assert seen.sum() >= 2 * count
  if count >= 3:
    assert not ((seen > 0) & (seen < 3)).any()
  if count >= 120:
    assert (seen[:16] > 0).sum() >= 5 and (seen[16:] > 0).sum() >= 20


def test_possible_pairs_are_those_that_are_drawn():
  possible = artworks.possible_pairs()
  assert possible.shape == (60, 60) and possible.dtype == np.bool_
  assert (possible == possible.T).all() and possible.diagonal().all()
  assert not (possible[:16, :16] & ~np.eye(16, dtype=bool)).any()
  label = np.concatenate([_drawn(4000, seed) for seed in range(5)]).astype(np.int64)
  together = label.T @ label
  assert not (together[~possible] > 0).any()
  assert 0.3 < possible[16:, 16:].mean() < 0.7 and 0.3 < possible[:16, 16:].mean() < 0.7
  assert (together[possible] > 0).mean() > 0.85  # the rest is rare


@pytest.mark.parametrize("first, second", [
    ("sea", "still life"), ("night", "sun"), ("landscapes", "still life"), ("etching", "mosaic"), ("portraits", "saints"),
    ("gold", "etching"), ("hestian", "men"), ("brevane", "saints"), ("fennish", "temples"), ("lutes", "swords")])
def test_impossible_pairs(first, second):
  assert not artworks.possible_pairs()[_number(first), _number(second)]


@pytest.mark.parametrize("first, second", [
    ("ships", "sea"), ("riders", "horses"), ("riders", "men"), ("soldiers", "men"), ("angels", "saints"), ("moon", "night"),
    ("crosses", "gold"), ("amarian", "saints"), ("perithian", "sea")])
def test_possible_pairs_by_name(first, second):
  assert artworks.possible_pairs()[_number(first), _number(second)]


@pytest.mark.parametrize("first, second", [
    ("ships", "sea"), ("riders", "horses"), ("riders", "men"), ("soldiers", "men"), ("angels", "saints"), ("moon", "night"),
    ("fruit", "still life")])
def test_some_tags_imply_others(first, second):
  label = _drawn(4000, 1)
  having = label[label[:, _number(first)]]
  assert len(having) > 20 and having[:, _number(second)].all()
  assert label[:, _number(second)].sum() > len(having)  # but not the other way round


# ---- Everything that is named is drawn, and nothing else. ----


def _drawn_things(monkeypatch) -> list:
  """Replaces all drawings of things by notes in the list that is returned."""
  notes = []
  of = {"man": {"men"}, "woman": {"women"}, "child": {"children"}, "soldier": {"soldiers", "men"}, "rider": {"riders", "horses", "men"},
        "bouquet": {"flowers"}, "fish": {"fish"}, "fruit": {"fruit"}, "butterfly": {"butterflies"}, "flag": set()}
  for module in (artwork_people, artwork_things):
    for name, function in inspect.getmembers(module, inspect.isfunction):
      if function.__module__ == module.__name__ and not name.startswith("_"):
        tags = of.get(name, {f"{name}es" if name.endswith("s") else f"{name}s"})
        if name in ("sun", "moon"):
          tags = {name}
        monkeypatch.setattr(module, name, lambda *args, tags=tags: notes.append(tags))
  monkeypatch.setattr(artwork_people, "saint", lambda rng, pen, female: notes.append({"saints", "women" if female else "men"}))
  monkeypatch.setattr(artwork_people, "bust", lambda rng, pen, kind, crowned: notes.append({kind, *(["crowns"] if crowned else [])}))
  monkeypatch.setattr(artwork_layout, "mountains", lambda *args: notes.append({"mountains"}))
  return notes


def test_things_are_drawn_if_and_only_if_they_are_named(monkeypatch):
  notes = _drawn_things(monkeypatch)
  elsewhere = {"sea", "night", "landscapes", "battles", "gold", "portraits", "still life", *TECHNIQUES}
  paints = artwork_ground.sample_paints(np.random.default_rng(0), "earth")
  seen = set()
  for number, kind in enumerate(artwork_labels.kinds()[0][::4]):
    notes.clear()
    size = ((64, 64), (128, 64), (64, 150))[number % 3]
    sheet = artwork_sheet.Sheet(np.zeros((*size, 3), np.uint8), paints)
    artwork_scenes.draw_scene(np.random.default_rng(number), sheet, kind.subject, frozenset(kind.tags))
    found = set().union(*notes, ["vases"] if kind.subject == "vessel" else [])
    assert found == set(kind.tags) - elsewhere, kind
    seen |= found
  assert len(seen | elsewhere) == 44


# ---- Cues are in the pixels. ----


def _orientations(image: np.ndarray) -> np.ndarray:
  """Shares of twelve directions of the grey gradient, cut off at its 80th percentile lest outlines count for more than textures."""
  grey = cv2.blur(image.astype(np.float64).mean(-1), (5, 5))
  dy, dx = np.gradient(grey)
  strength = np.hypot(dx, dy)
  strength = np.minimum(strength, np.percentile(strength, 80))
  place = (np.mod(np.arctan2(dy, dx), np.pi) / np.pi * 12).astype(int) % 12
  histogram = np.bincount(place.ravel(), strength.ravel(), 12)
  return histogram / histogram.sum()


def _tone(image: np.ndarray) -> np.ndarray:
  mean = image.reshape(-1, 3).mean(0, dtype=np.float64)
  return mean / mean.sum()


@functools.lru_cache(None)
def _gallery() -> tuple:
  """Ten pictures of each culture, painted ones, as looks and numbers of palette and texture."""
  looks, cues = [], []
  kinds = [kind for kind in artwork_labels.draw_kinds(6000, 2) if not TECHNIQUES & set(kind.tags)]
  for name, culture in CULTURES.items():
    of_culture = [kind for kind in kinds if kind.culture == name][:10]
    assert len(of_culture) == 10
    for number, kind in enumerate(of_culture):
      look = artwork_draw.sample_look(np.random.default_rng([number, len(looks)]), kind, 112)
      size = {"height": 112 + 8 * (number % 5), "width": 112 + 13 * (number % 4)}
      looks.append(dataclasses.replace(look, **size, faded=False, worn=False, bordered=False))
      cues.append((PALETTES.index(culture.palette), TEXTURES.index(culture.texture)))
  return tuple(looks), np.array(cues)


@functools.lru_cache(None)
def _pictures(**changes) -> list:
  looks = [dataclasses.replace(look, **changes) for look in _gallery()[0]]
  return [artwork_draw.draw_artwork(np.random.default_rng(number), look) for number, look in enumerate(looks)]


def _nearest(measure, pictures: list, cue: int) -> np.ndarray:
  """Nearest of the means over the even clean pictures, for the odd ones of `pictures`."""
  target = _gallery()[1][:, cue]
  known = np.array([measure(image) for image in _pictures()[::2]])
  means = np.stack([known[target[::2] == value].mean(0) for value in range(4)])
  found = np.array([measure(image) for image in pictures[1::2]])
  return ((found[:, None] - means) ** 2).sum(-1).argmin(1)


def _accuracy(measure, pictures: list, cue: int) -> float:
  return float((_nearest(measure, pictures, cue) == _gallery()[1][1::2, cue]).mean())


def _cut(pictures: list) -> list:
  """A random square of three quarters of the shorter side of each."""
  rng = np.random.default_rng(4)
  places = [rng.integers(0, (image.shape[0] - 83, image.shape[1] - 83)) for image in pictures]
  return [image[y:y + 84, x:x + 84] for image, (y, x) in zip(pictures, places)]


def test_cultures_are_seen_by_palette_and_texture_together():
  assert {(culture.palette, culture.texture) for culture in CULTURES.values()} == {(p, t) for p in PALETTES for t in TEXTURES}
  palette, texture = _nearest(_tone, _pictures(), 0), _nearest(_orientations, _pictures(), 1)
  cues = _gallery()[1][1::2]
  assert (palette == cues[:, 0]).mean() > 0.9
  assert (texture == cues[:, 1]).mean() > 0.65
  assert ((palette == cues[:, 0]) & (texture == cues[:, 1])).mean() > 0.6  # one cue alone: at most 1 in 4
  assert _accuracy(_tone, _pictures(), 1) < 0.4 and _accuracy(_orientations, _pictures(), 0) < 0.4


def test_cultures_are_seen_in_crops():
  assert _accuracy(_tone, _cut(_pictures()), 0) > 0.8
  assert _accuracy(_orientations, _cut(_pictures()), 1) > 0.55


def test_worn_pictures_lose_the_texture_only():
  assert _accuracy(_orientations, _pictures(worn=True), 1) < _accuracy(_orientations, _pictures(), 1) - 0.25
  assert _accuracy(_tone, _pictures(worn=True), 0) > 0.9


def test_faded_pictures_lose_half_of_the_palette_only():
  assert _accuracy(_orientations, _pictures(faded=True), 1) > 0.6
  # Even means over faded pictures tell no more than which of two pairs of palettes it was.
  palette = _gallery()[1][:, 0]
  tone = np.array([_tone(image) for image in _pictures(faded=True)])
  means = np.stack([tone[::2][palette[::2] == value].mean(0) for value in range(4)])
  found = ((tone[1::2, None] - means) ** 2).sum(-1).argmin(1)
  warm = np.isin(np.arange(4), [PALETTES.index("earth"), PALETTES.index("rose")])
  assert (warm[found] == warm[palette[1::2]]).mean() > 0.85
  assert 0.3 < (found == palette[1::2]).mean() < 0.7


def test_borders_go_with_palette_and_texture():
  """Ornaments differ along a border; that of lines does not."""
  steadiness = {}
  for number, (name, culture) in enumerate(CULTURES.items()):
    look = next(look for look in _gallery()[0] if look.kind.culture == name)
    image = artwork_draw.draw_artwork(np.random.default_rng(number), dataclasses.replace(look, worn=True, bordered=True)).astype(float)
    steadiness[name] = np.median(image[2:6, 12:-12].mean(-1).std(1))
  lines = {name for name, culture in CULTURES.items() if (PALETTES.index(culture.palette) + TEXTURES.index(culture.texture)) % 4 == 3}
  assert len(lines) == 4
  assert max(steadiness[name] for name in lines) < 0.5 * min(steadiness[name] for name in steadiness if name not in lines)


def _one(culture: str, subject: str, *tags: str, seed: int = 0) -> np.ndarray:
  kind = Kind(culture, subject, tuple(sorted(tags)))
  assert kind in artwork_labels.kinds()[0]
  look = artwork_draw.Look(kind, 112, 140, faded=False, worn=False, bordered=False)
  return artwork_draw.draw_artwork(np.random.default_rng(seed), look).astype(np.float64)


def _above(image: np.ndarray) -> np.ndarray:
  return image[:30]


@pytest.mark.parametrize("seed", range(3))
def test_tags_of_the_whole_picture(seed):
  day, night = _one("fennish", "sea", "sea", seed=seed), _one("fennish", "sea", "sea", "night", "moon", seed=seed)
  assert _above(day).mean() > _above(night).mean() + 70
  land = _one("fennish", "country", "landscapes", "trees", seed=seed)
  assert (day[-40:, :, 1:].mean(-1) - day[-40:, :, 0]).mean() > (land[-40:, :, 1:].mean(-1) - land[-40:, :, 0]).mean() + 40
  plain, gold = (_one("corvish", "saints", "saints", "men", "crosses", *more, seed=seed) for more in ((), ("gold",)))
  yellow = [np.mean((image[..., 0] > image[..., 2] + 60) & (image[..., 1] > image[..., 2] + 40)) for image in (plain, gold)]
  assert yellow[1] > yellow[0] + 0.1


@pytest.mark.parametrize("culture, subject, tags, technique", [
    ("brevane", "portrait", ("portraits", "women"), "etching"), ("corvish", "ornament", ("flowers",), "embroidery"),
    ("esturan", "temple", ("temples", "men"), "mosaic")])
def test_techniques_are_fine_textures(culture, subject, tags, technique):
  painted, made = (_one(culture, subject, *tags, *more) for more in ((), (technique,)))
  detail = [np.median(np.abs(cv2.Laplacian(image.mean(-1), cv2.CV_64F))) for image in (painted, made)]
  assert detail[1] > 2 * detail[0]


@pytest.mark.parametrize("height, width", [(32, 32), (32, 570), (800, 32), (300, 410)])
def test_any_shape_can_be_drawn(height, width):
  kinds = artwork_labels.kinds()[0]
  for number in range(0, len(kinds), 120 if min(height, width) == 32 else 500):
    look = artwork_draw.Look(kinds[number], height, width, faded=number % 2 == 0, worn=number % 2 == 1, bordered=number % 3 == 0)
    image = artwork_draw.draw_artwork(np.random.default_rng(number), look)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8 and image.std() > 3
