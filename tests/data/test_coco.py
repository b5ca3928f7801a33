"""COCO as whole photos with 80 labels: what is present, both editions, what is refused."""

import json
import tracemalloc

import numpy as np
import pytest

from attr_jax.data import images
from attr_jax.data import ops
from attr_jax.data import pipeline
from attr_jax.data import published
from attr_jax.data import registry
from attr_jax.data.builders import coco
from attr_jax.data.builders import coco_files
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

# Supercategory -> "id name" of COCO's 80 kinds of objects.
CATEGORIES = {
    "person": "1 person",
    "vehicle": "2 bicycle, 3 car, 4 motorcycle, 5 airplane, 6 bus, 7 train, 8 truck, 9 boat",
    "outdoor": "10 traffic light, 11 fire hydrant, 13 stop sign, 14 parking meter, 15 bench",
    "animal": "16 bird, 17 cat, 18 dog, 19 horse, 20 sheep, 21 cow, 22 elephant, 23 bear, 24 zebra, 25 giraffe",
    "accessory": "27 backpack, 28 umbrella, 31 handbag, 32 tie, 33 suitcase",
    "sports": "34 frisbee, 35 skis, 36 snowboard, 37 sports ball, 38 kite, 39 baseball bat, 40 baseball glove, 41 skateboard, "
              "42 surfboard, 43 tennis racket",
    "kitchen": "44 bottle, 46 wine glass, 47 cup, 48 fork, 49 knife, 50 spoon, 51 bowl",
    "food": "52 banana, 53 apple, 54 sandwich, 55 orange, 56 broccoli, 57 carrot, 58 hot dog, 59 pizza, 60 donut, 61 cake",
    "furniture": "62 chair, 63 couch, 64 potted plant, 65 bed, 67 dining table, 70 toilet",
    "electronic": "72 tv, 73 laptop, 74 mouse, 75 remote, 76 keyboard, 77 cell phone",
    "appliance": "78 microwave, 79 oven, 80 toaster, 81 sink, 82 refrigerator",
    "indoor": "84 book, 85 clock, 86 vase, 87 scissors, 88 teddy bear, 89 hair drier, 90 toothbrush",
}
# Photos in file order, (id, height, width): of 9 there are crowds alone, of 25 nothing.
PHOTOS = {"train": ((30, 120, 160), (9, 160, 100), (25, 90, 130), (4, 40, 30)), "val": ((42, 120, 160), (7, 100, 100))}
# (photo, category, iscrowd)
ANNOTATIONS = {"train": ((4, 90, 0), (30, 1, 0), (9, 13, 1), (30, 1, 0), (30, 11, 0), (30, 1, 1), (4, 27, 0)),
               "val": ((42, 1, 1), (7, 62, 0), (42, 89, 0))}
PUBLISHED = {"2014": (82_783, 40_504), "2017": (118_287, 5_000)}


class CocoSource:
  """A COCO folder; change `train` or `val` (contents of the instances files) before `prepare` to break it."""

  def __init__(self, folder, picture, year):
    self.folder, self.year, self.picture = folder, year, picture
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, photos in PHOTOS.items():
      setattr(self, split, {
          "info": {"year": int(year)},
          "images": [{"id": photo, "file_name": self.file(split, photo), "height": height, "width": width, "license": 4}
                     for photo, height, width in photos],
          "annotations": [self.annotation(number, *annotation) for number, annotation in enumerate(ANNOTATIONS[split])],
          "categories": [{"supercategory": group, "id": int(entry.split(" ", 1)[0]), "name": entry.split(" ", 1)[1]}
                         for group, entries in CATEGORIES.items() for entry in entries.split(", ")]})
      for photo in photos:
        self.draw(split, *photo)

  def file(self, split, photo):
    return f"COCO_{split}2014_{photo:012d}.jpg" if self.year == "2014" else f"{photo:012d}.jpg"

  def annotation(self, number, photo, category, crowd):
    outline = {"counts": [10, 50, 19140], "size": [120, 160]} if crowd else [[1.0, 1.0, 9.5, 1.0, 9.5, 9.0]]
    return {"id": number, "image_id": photo, "category_id": category, "iscrowd": crowd, "area": 34.0, "bbox": [1.0, 1.0, 8.5, 8.0],
            "segmentation": outline}

  def draw(self, split, photo, height, width):
    path = self.folder / f"{split}{self.year}" / self.file(split, photo)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(images.encode_jpeg(self.picture(photo, height, width), quality=95))

  def write(self):
    for split in PHOTOS:
      (self.folder / "annotations" / f"instances_{split}{self.year}.json").write_text(json.dumps(getattr(self, split)))

  def prepare(self, tmp_path, **options):
    self.write()
    return prepare("coco", source=self.folder, data_dir=tmp_path / "data",
                   **{"progress": False, "allow_deviations": True, "size": 64, **options})


@pytest.fixture(params=["2014", "2017"])
def any_source(request, tmp_path, picture):
  return CocoSource(tmp_path / "coco", picture, request.param)


@pytest.fixture
def source(tmp_path, picture):
  return CocoSource(tmp_path / "coco", picture, "2014")


def slow_labels(content):
  """Per photo one question per category, straight from the file."""
  return np.array([[any(a["image_id"] == photo["id"] and a["category_id"] == category["id"] for a in content["annotations"])
                    for category in sorted(content["categories"], key=lambda category: category["id"])] for photo in content["images"]])


def report_of(folder):
  return json.loads((folder / "report.json").read_text())


def opened(tmp_path):
  return registry.open_dataset("coco", tmp_path / "data")


# What comes out.


def test_whole_photos_in_file_order(any_source, tmp_path):
  folder = any_source.prepare(tmp_path)
  assert folder == tmp_path / "data" / "coco" / "64x64" / "1.0.0"
  dataset = opened(tmp_path)
  assert dataset.info.splits == {"train": 4, "val": 2}
  samples = [sample for split in PHOTOS for sample in dataset.source(split)]
  expected = [(split, *photo) for split, photos in PHOTOS.items() for photo in photos]
  shapes = [(64, 85), (102, 64), (64, 92), (40, 30), (64, 85), (64, 64)]  # shrunk to cover 64x64, never enlarged
  for number, (sample, (split, photo, height, width), shape) in enumerate(zip(samples, expected, shapes, strict=True)):
    assert set(sample) == {"image", "label", "known", "id"} and sample["id"] == number
    assert (sample["label"].dtype, sample["known"].dtype) == (np.uint8, np.bool_)
    image = images.decode_jpeg(sample["image"])
    assert image.shape[:2] == shape
    whole = any_source.picture(photo, height, width)
    small = ops.resize({"image": whole}, shape)["image"]
    assert np.abs(image.astype(float) - small).mean() < 6
  report = report_of(folder)
  assert (report["skipped"], report["clipped_boxes"], report["dropped_boxes"], report["shrunk"], report["copied"]) == ([], 0, 0, 5, 1)


def test_labels_by_hand(any_source, tmp_path):
  any_source.prepare(tmp_path)
  dataset = opened(tmp_path)
  names = dataset.info.label_names
  label, known, ids = dataset.labels("train+val")
  present = [{names[column] for column in np.flatnonzero(row)} for row in label]
  assert present == [{"person", "fire hydrant"}, {"stop sign"}, set(), {"backpack", "toothbrush"}, {"person", "hair drier"}, {"chair"}]
  assert known.shape == (6, 80) and known.all() and ids.tolist() == list(range(6))
  np.testing.assert_allclose(dataset.info.positive_ratio, label[:4].mean(axis=0))
  assert set(dataset.info.known_ratio) == {1.0}


@pytest.mark.parametrize("seed", range(3))
def test_labels_equal_a_slow_reading(source, tmp_path, seed):
  rng = np.random.default_rng(seed)
  for split, photos in PHOTOS.items():
    content = getattr(source, split)
    ids = [category["id"] for category in content["categories"]]
    content["annotations"] = [source.annotation(number, photos[rng.integers(len(photos))][0], int(rng.choice(ids)), int(rng.integers(2)))
                              for number in range(60)]
    rng.shuffle(content["categories"])
  source.prepare(tmp_path)
  for split in PHOTOS:
    np.testing.assert_array_equal(opened(tmp_path).labels(split)[0], slow_labels(getattr(source, split)))


def test_names_by_ascending_id_in_coco_s_groups(source, tmp_path):
  source.train["categories"].reverse()
  source.prepare(tmp_path)
  info = opened(tmp_path).info
  assert info.label_names == tuple(entry.split(" ", 1)[1] for entries in CATEGORIES.values() for entry in entries.split(", "))
  assert info.label_groups == {
      group: tuple(entry.split(" ", 1)[1] for entry in entries.split(", ")) for group, entries in CATEGORIES.items()}
  assert (info.resize, info.image_size, info.has_person_mask) == ((288, 288), (288, 288), False)


def test_counts_are_told(any_source, tmp_path):
  report = report_of(any_source.prepare(tmp_path))
  year, (train, val) = any_source.year, PUBLISHED[any_source.year]
  assert report["deviations"] == [f"train: 4 photos, published {train}", f"val: 2 photos, published {val}"]
  assert report["remarks"] == [f"train: 4 photos of train{year}, 1 of them without any annotation (kept)",
                               f"val: 2 photos of val{year}, 0 of them without any annotation (kept)"]


@pytest.mark.parametrize("year", PUBLISHED)
def test_the_published_counts_are_no_deviation(year):
  for split, count in zip(PHOTOS, PUBLISHED[year]):
    assert coco_files.deviations(split, f"{split}{year}", count) == []


def test_names_and_shares_are_compared_where_the_counts_are_as_published(any_source, monkeypatch):
  any_source.write()
  year = any_source.year
  monkeypatch.setattr(coco_files, "_PHOTOS", {f"train{year}": 4, f"val{year}": 2})
  found = slow_labels(any_source.train).mean(axis=0)
  monkeypatch.setattr(published, "COCO_SHARES", (found[0], found[1] + 0.25, *found[2:]))
  read = lambda: coco.Builder.read(any_source.folder).deviations
  assert read() == ((f"positive share of bicycle in train: 0.0000, published 0.2500",) if year == "2014" else ())
  for content in (any_source.train, any_source.val):
    content["categories"][1]["name"] = "bike"
  any_source.write()
  assert read() == ("label 1: 'bike', published 'bicycle'",)


def test_a_photo_of_another_size_than_its_entry_serves(source, tmp_path):
  """No box depends on it: the copy may have been shrunk, or be turned by EXIF."""
  source.draw("train", 30, 80, 60)
  assert report_of(source.prepare(tmp_path))["skipped"] == []
  assert images.decode_jpeg(opened(tmp_path).source("train")[0]["image"]).shape == (80, 60, 3)


def test_annotation_files_of_both_editions_but_photos_of_one(source, tmp_path):
  for split in PHOTOS:
    (source.folder / "annotations" / f"instances_{split}2017.json").write_text("of no interest")
  assert "train2014" in report_of(source.prepare(tmp_path))["remarks"][0]


# What goes wrong.


def fails(source, tmp_path, message, **options):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path, **options)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def set_in(content, path, value):
  for key in path[:-1]:
    content = content[key]
  if value is KeyError:
    del content[path[-1]]
  else:
    content[path[-1]] = value


@pytest.mark.parametrize("path, value, message", [
    (("images",), KeyError, r"images: expected a list, got None"),
    (("images", 1, "id"), 30, r"images\[1\] id: 30 is the id of an earlier photo"),
    (("images", 1, "file_name"), "../secret.jpg", r"images\[1\] file_name: '../secret.jpg' is not a path inside"),
    (("annotations",), KeyError, r"annotations: expected a list, got None"),
    (("annotations", 1), 3, r"annotations\[1\]: expected an object with 'image_id', got 3"),
    (("annotations", 1, "image_id"), "30", r"annotations\[1\] image_id: expected an integer, got '30'"),
    (("annotations", 1, "image_id"), 77, r"annotations\[1\]: image_id 77 is not the id of any of the images"),
    (("annotations", 1, "category_id"), KeyError, r"annotations\[1\] category_id: expected an integer, got None"),
    (("annotations", 1, "category_id"), 12, r"annotations\[1\]: category_id 12 is not the id of any of the categories"),
    (("categories",), KeyError, r"categories: expected a list, got None"),
    (("categories",), [], r"categories: expected the 80 of COCO's objects, got 0; take the original instances file"),
    (("categories", 3), KeyError, r"categories: expected the 80 of COCO's objects, got 79"),
    (("categories", 3), "boat", r"categories\[3\]: expected an object with 'id', got 'boat'"),
    (("categories", 3, "id"), 1.5, r"categories\[3\] id: expected an integer, got 1.5"),
    (("categories", 3, "id"), 1, r"categories\[3\]: id 1 or name 'motorcycle' comes twice"),
    (("categories", 3, "name"), " ", r"categories\[3\] name: expected a text, got ' '"),
    (("categories", 3, "name"), "person", r"categories\[3\]: id 4 or name 'person' comes twice"),
])
def test_faults_of_the_instances_file(source, tmp_path, path, value, message):
  set_in(source.train, path, value)
  fails(source, tmp_path, f"annotations/instances_train2014.json {message}")


@pytest.mark.parametrize("key, value", [("id", 12), ("name", "horse cart")])
def test_categories_must_agree(source, tmp_path, key, value):
  source.val["annotations"] = []
  source.val["categories"][5][key] = value
  fails(source, tmp_path, "instances_val2014.json categories: other ids or names than in instances_train2014.json; take both")


def test_panoptic_categories_are_too_many(source, tmp_path):
  source.train["categories"] += [{"id": 92 + number, "name": f"stuff {number}", "supercategory": "stuff"} for number in range(53)]
  fails(source, tmp_path, "categories: expected the 80 of COCO's objects, got 133")


def test_both_editions(source, tmp_path, picture):
  other = CocoSource(source.folder, picture, "2017")
  message = r"photos of two editions \(train2014/, val2014/, train2017/, val2017/\), .* move those of one away"
  fails(source, tmp_path, message)
  fails(other, tmp_path, message)


def test_splits_of_two_editions_are_not_mixed(source, tmp_path):
  (source.folder / "val2014").rename(source.folder / "val2017")
  fails(source, tmp_path, r"photos of two editions \(train2014/, val2017/\)")


def test_annotations_are_not_held_in_memory(source):
  outline = [[float(number) for number in range(300)]]
  source.train["annotations"] = [{**entry, "segmentation": outline} for entry in source.train["annotations"] * 175]
  source.write()
  size = (source.folder / "annotations" / "instances_train2014.json").stat().st_size
  tracemalloc.start()
  coco.Builder.read(source.folder)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert size > 2e6 and peak < size / 4  # as Python objects it is several times its size


def test_folders_and_files_missing(any_source, tmp_path):
  year, folder = any_source.year, any_source.folder
  missing = folder / f"val{year}" / any_source.file("val", 42)
  missing.unlink()
  fails(any_source, tmp_path, f"1 of 6 files that the annotations name are missing, first val{year}/{missing.name}")
  (folder / "annotations" / f"instances_val{year}.json").unlink()
  with pytest.raises(InputError, match=f"instances_val{year}.json: missing; .* holds annotations/, train{year}/ and val{year}/"):
    prepare("coco", source=folder, data_dir=tmp_path / "data", progress=False)
  for split in PHOTOS:
    (folder / f"{split}{year}").rename(tmp_path / split)
  fails(any_source, tmp_path, "coco: no photos; --source must be the folder that holds annotations/ and either train2014/ and val2014/ or")


def test_other_counts_are_refused(source, tmp_path):
  fails(source, tmp_path, "train: 4 photos, published 82783", allow_deviations=False)


# Real photos.


def test_real_photos(real_data, tmp_path):
  source = real_data / "coco_open"
  folder = prepare("coco", source=source, data_dir=tmp_path / "data", progress=False, allow_deviations=True)
  assert folder.parent.name == "288x288"
  dataset = opened(tmp_path)
  assert dataset.info.splits == {"train": 26, "val": 27}
  report = report_of(folder)
  assert report["skipped"] == [] and report["deviations"] == ["train: 26 photos, published 118287", "val: 27 photos, published 5000"]
  for split in ("train", "val"):
    content = json.loads((source / "annotations" / f"instances_{split}2017.json").read_text())
    label, known, _ = dataset.labels(split)
    np.testing.assert_array_equal(label, slow_labels(content))
    assert known.all()
    bare = {photo["id"] for photo in content["images"]} - {annotation["image_id"] for annotation in content["annotations"]}
    assert [photo["id"] in bare for photo in content["images"]] == (~label.any(axis=1)).tolist()
    assert bare == ({508} if split == "train" else set())
    for photo, sample in zip(content["images"], dataset.source(split), strict=True):
      height, width = images.decode_jpeg(sample["image"]).shape[:2]
      assert min(height, width) == min(288, photo["height"], photo["width"])
      assert abs(height / width / (photo["height"] / photo["width"]) - 1) < 0.01
  supercategories = {}
  for category in sorted(content["categories"], key=lambda category: category["id"]):
    supercategories.setdefault(category["supercategory"], []).append(category["name"])
  assert dataset.info.label_groups == coco.Builder.GROUPS == {group: tuple(names) for group, names in supercategories.items()}


@pytest.mark.parametrize("side", [288, 256])
def test_real_batches(real_data, tmp_path, side):
  prepare("coco", source=real_data / "coco_open", data_dir=tmp_path / "data", progress=False, allow_deviations=True)
  dataset = opened(tmp_path)
  specs = pipeline.InputSpec(resize=(side, side), size=(side, side)), pipeline.InputSpec(size=(side, side), crop="none")
  for spec in specs:
    batch = pipeline.train_dataset(dataset.source("train"), spec, batch_size=8, seed=0)[0]
    assert batch["image"].shape == (8, side, side, 3) and batch["image"].dtype == np.uint8
    np.testing.assert_array_equal(batch["label"], dataset.labels("train")[0][batch["id"]])
  batch = pipeline.eval_dataset(dataset.source("val"), specs[0], batch_size=27)[0]
  assert batch["image"].shape == (27, side, side, 3) and batch["valid"].all()
  np.testing.assert_array_equal(batch["label"], dataset.labels("val")[0])
  squashed = [image.mean(axis=(0, 1)) for image in batch["image"]]
  stored = [images.decode_jpeg(sample["image"]).mean(axis=(0, 1)) for sample in dataset.source("val")]
  np.testing.assert_allclose(squashed, stored, atol=2)  # the whole photo, nothing cut off
