"""People of COCO: which are kept, their masks, what is refused."""

import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import registry
from attr_jax.data.builders import coco_person
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

HEIGHT, WIDTH = 120, 160
DOG = 18


class CocoSource:
  """A COCO 2017 folder without people; add some and `save`."""

  def __init__(self, folder, picture, photos):
    """`photos` are (split, id) in file order; only those in `self.drawn` get a JPEG."""
    self.folder, self.picture = folder, picture
    (folder / "annotations").mkdir(parents=True)
    self.instances = {split: {"images": [], "annotations": [], "categories": []} for split in ("train", "val")}
    self.panoptic = {}
    for split, photo in photos:
      name = f"{photo:012d}.jpg"
      self.instances[split]["images"].append({"id": photo, "file_name": name, "height": HEIGHT, "width": WIDTH, "license": 4})
      self.draw(split, photo)

  def draw(self, split, photo, height=HEIGHT, width=WIDTH):
    path = self.folder / f"{split}2017" / f"{photo:012d}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(images.encode_jpeg(self.picture(photo, height, width), quality=95))

  def add(self, split, photo, polygons, box, category=1, **others):
    self.instances[split]["annotations"].append({
        "id": len(self.instances[split]["annotations"]), "image_id": photo, "category_id": category, "iscrowd": 0,
        "area": sum(shoelace(polygon) for polygon in polygons), "bbox": box, "segmentation": polygons, **others})

  def use_panoptic(self, split, segments):
    """`segments`: photo -> list of (id, category, iscrowd, bbox, pixels bool [H, W])."""
    folder = self.folder / "annotations" / f"panoptic_{split}2017"
    folder.mkdir()
    entries = []
    for photo, people in segments.items():
      png, infos = np.zeros((HEIGHT, WIDTH, 3), np.uint8), []
      for segment, category, crowd, box, pixels in people:
        png[pixels] = segment % 256, segment // 256 % 256, segment // 65536
        infos.append({"id": segment, "category_id": category, "iscrowd": crowd, "bbox": box, "area": int(pixels.sum())})
      (folder / f"{photo:012d}.png").write_bytes(images.encode_png(png))
      entries.append({"image_id": photo, "file_name": f"{photo:012d}.png", "segments_info": infos})
    self.panoptic[split] = {"images": self.instances[split]["images"], "annotations": entries, "categories": []}

  def save(self):
    for kind, contents in (("instances", self.instances), ("panoptic", self.panoptic)):
      for split, content in contents.items():
        (self.folder / "annotations" / f"{kind}_{split}2017.json").write_text(json.dumps(content))

  def prepare(self, tmp_path, **options):
    """Large enough that nothing is shrunk."""
    self.save()
    return prepare("coco_person", source=self.folder, data_dir=tmp_path / "data",
                   **{"progress": False, "allow_deviations": True, "size": 256, **options})


def shoelace(polygon):
  x, y = np.array(polygon, float).reshape(-1, 2).T
  return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def even_odd(polygon, height=HEIGHT, width=WIDTH):
  """Whether the centre of each pixel is inside, by counting the edges to its right; and its distance to the outline."""
  points = np.array(polygon, float).reshape(-1, 2)
  y, x = np.mgrid[:height, :width] + 0.5
  inside, distance = np.zeros((height, width), bool), np.full((height, width), np.inf)
  for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0)):
    crosses = (ay > y) != (by > y)
    with np.errstate(divide="ignore", invalid="ignore"):
      inside ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax)**2 + (by - ay)**2), 0, 1)
    distance = np.minimum(distance, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))
  return inside, distance


def rectangle(left, top, right, bottom):
  return [left, top, right, top, right, bottom, left, bottom]


def pixels(left, top, right, bottom):
  mask = np.zeros((HEIGHT, WIDTH), bool)
  mask[top:bottom, left:right] = True
  return mask


def samples_of(tmp_path, split):
  source = registry.open_dataset("coco_person", tmp_path / "data").source(split)
  return [{**raw, "image": images.decode_jpeg(raw["image"]), "person_mask": images.decode_mask(raw["person_mask"])} for raw in source]


def report_of(folder):
  return json.loads((folder / "report.json").read_text())


STAR = [80.0, 10.25, 88.5, 40.0, 120.75, 42.0, 95.25, 60.5, 104.0, 92.0, 80.0, 73.25, 55.5, 92.0, 64.75, 60.5, 40.0, 42.5, 71.5, 40.0]
# Of the second person two overlapping parts; the third leaves the photo on the left and at the top.
PARTS = [rectangle(20, 30, 50, 80), rectangle(40, 60, 70, 110)]
OUTSIDE = rectangle(0, 0, 50, 70)


@pytest.fixture
def source(tmp_path, picture):
  """People as polygons: three of photo 9 (added between those of photo 4), one of 4 and one of 11."""
  source = CocoSource(tmp_path / "coco", picture, [("train", 9), ("train", 4), ("train", 5), ("val", 11)])
  (source.folder / "train2017" / "000000000005.jpg").unlink()  # nobody is in it, so it is not needed
  source.add("train", 4, [rectangle(10, 20, 60, 100)], [10, 20, 50, 80])
  source.add("train", 9, [STAR], [40, 10.25, 80.75, 81.75])
  source.add("train", 9, PARTS, [20, 30, 50, 80])
  source.add("train", 9, [OUTSIDE], [-10.5, -4, 60.5, 74])
  source.add("train", 9, [rectangle(5, 5, 36, 38)], [5, 5, 31, 33])  # 1023 pixels
  source.add("train", 9, [rectangle(5, 5, 60, 60)], [5, 5, 55, 55], category=DOG)
  source.add("train", 4, [], [0, 0, 160, 60], iscrowd=1, area=9000, segmentation={"counts": [10, 50, 19140], "size": [HEIGHT, WIDTH]})
  source.add("val", 11, [rectangle(30, 30, 62, 62)], [30, 30, 32, 32])  # 1024 pixels
  return source


@pytest.fixture
def panoptic_source(source):
  """The same photos with panoptic files; two people of photo 9 have crossing boxes."""
  one = pixels(20, 20, 70, 90)
  two = pixels(50, 40, 110, 110) & ~one
  source.use_panoptic("train", {
      9: [(7_045_770, 1, 0, [20, 20, 50, 70], one), (258, 1, 0, [50, 40, 60, 70], two), (3, 184, 0, [0, 0, 160, 120], ~one & ~two)],
      4: [(70_000, 1, 0, [-6, 100, 60, 60], pixels(0, 100, 54, 120)), (12, 1, 1, [100, 0, 60, 40], pixels(100, 0, 160, 40)),
          (5, 1, 0, [60, 60, 20, 20], pixels(60, 60, 80, 80)), (6, DOG, 0, [80, 60, 40, 40], pixels(80, 60, 120, 100))]})
  source.use_panoptic("val", {11: [(1 << 23, 1, 0, [0, 0, 160, 120], pixels(0, 0, 160, 120))]})
  return source


# What comes out.


def test_people_come_in_the_order_of_photos_with_their_own_crop(source, tmp_path):
  folder = source.prepare(tmp_path)
  assert folder == tmp_path / "data" / "coco_person" / "256x256" / "1.0.0"
  train = samples_of(tmp_path, "train")
  boxes = [(9, 40, 10, 121, 92), (9, 20, 30, 70, 110), (9, 0, 0, 50, 70), (4, 10, 20, 60, 100)]
  assert [int(sample["id"]) for sample in train] == [0, 1, 2, 3]
  for sample, (photo, left, top, right, bottom) in zip(train, boxes, strict=True):
    crop = images.decode_jpeg((source.folder / f"train2017/{photo:012d}.jpg").read_bytes())[top:bottom, left:right]
    assert sample["image"].shape == crop.shape and sample["person_mask"].shape == crop.shape[:2]
    assert np.abs(sample["image"].astype(float) - crop).mean() < 4
  report = report_of(folder)
  assert report["remarks"] == [
      "train: 4 people in 2 photos, masks of instances_train2017.json; left out: crowds (iscrowd = 1) 1, people of less than 1024 pixels 1",
      "val: 1 people in 1 photos, masks of instances_val2017.json; left out: crowds (iscrowd = 1) 0, people of less than 1024 pixels 0"]
  assert report["deviations"] == ["train: 3 photos, published 118287", "val: 1 photos, published 5000"]
  assert (report["clipped_boxes"], report["shrunk"], report["skipped"]) == (1, 0, [])


def test_masks_of_polygons(source, tmp_path):
  source.prepare(tmp_path)
  star, parts, outside, whole = (sample["person_mask"] for sample in samples_of(tmp_path, "train"))
  inside, distance = even_odd(STAR)
  sure = (distance > 0.21)[10:92, 40:121]  # the grid takes up to a fifth of a pixel too much
  np.testing.assert_array_equal((star == 255)[sure], inside[10:92, 40:121][sure])
  assert sure.mean() > 0.95
  union = pixels(20, 30, 50, 80) | pixels(40, 60, 70, 110)  # where they overlap is no hole
  np.testing.assert_array_equal(parts, 255 * union[30:110, 20:70])
  assert outside.shape == (70, 50) and (outside == 255).all()
  assert (whole == 255).all()


@pytest.mark.parametrize("seed", range(5))
def test_polygons_cover_their_area(seed):
  rng = np.random.default_rng(seed)
  angle = np.sort(rng.uniform(0, 2 * np.pi, 40))
  radius = rng.uniform(30, 55, 40)
  polygon = np.round(np.stack([80 + radius * np.cos(angle), 60 + radius * np.sin(angle)], axis=1), 2)
  inside, distance = even_odd(polygon)
  mask = coco_person._draw_polygons([polygon.astype(np.float32)], (0, 0, WIDTH, HEIGHT))
  np.testing.assert_array_equal((mask == 255)[distance > 0.21], inside[distance > 0.21])
  assert set(np.unique(mask)) == {0, 255}
  assert abs((mask == 255).sum() / shoelace(polygon) - 1) < 0.02


@pytest.mark.parametrize("shift, expected", [(0.0, 10), (0.2, 10), (0.35, 10), (0.65, 11), (0.8, 11)])
def test_a_pixel_is_in_by_its_centre(shift, expected):
  polygon = np.array(rectangle(10 + shift, 10, 20 + shift, 20), np.float32).reshape(-1, 2)
  mask = coco_person._draw_polygons([polygon], (0, 0, 40, 40))
  columns = np.flatnonzero(mask.any(axis=0))
  assert columns.tolist() == list(range(expected, expected + 10)) and (mask == 255).sum() == 100


def test_masks_of_panoptic_pictures(panoptic_source, tmp_path):
  folder = panoptic_source.prepare(tmp_path)
  one, two, outside = samples_of(tmp_path, "train")
  assert one["person_mask"].shape == (70, 50) and (one["person_mask"] == 255).all()
  expected = np.full((70, 60), 255, np.uint8)
  expected[:50, :20] = 0  # there the first person stands
  np.testing.assert_array_equal(two["person_mask"], expected)
  np.testing.assert_array_equal(outside["person_mask"], np.full((20, 54), 255))
  assert outside["image"].shape == (20, 54, 3)
  (val,) = samples_of(tmp_path, "val")
  assert val["person_mask"].shape == (HEIGHT, WIDTH) and (val["person_mask"] == 255).all()
  assert report_of(folder)["remarks"][0] == (
      "train: 3 people in 2 photos, masks of panoptic_train2017.json; left out: crowds (iscrowd = 1) 1, people of less than 1024 pixels 1")


def test_splits_may_differ_in_kind_and_masks_shrink_with_their_image(source, tmp_path):
  source.use_panoptic("val", {11: [(5, 1, 0, [0, 0, 160, 120], pixels(0, 0, 80, 120))]})
  source.prepare(tmp_path, size=60)
  assert [sample["image"].shape[:2] for sample in samples_of(tmp_path, "train")] == [(61, 60), (80, 50), (70, 50), (80, 50)]
  (val,) = samples_of(tmp_path, "val")
  np.testing.assert_array_equal(val["person_mask"], np.tile(255 * (np.arange(80) < 40), (60, 1)))


def test_no_labels_at_all(source, tmp_path):
  folder = source.prepare(tmp_path)
  dataset = registry.open_dataset("coco_person", tmp_path / "data")
  info = dataset.info
  assert (info.label_names, info.label_groups, info.positive_ratio, info.known_ratio) == ((), {}, (), ())
  assert info.has_person_mask and info.splits == {"train": 4, "val": 1}
  label, known, ids = dataset.labels("train+val")
  assert (label.shape, label.dtype, known.shape, known.dtype, ids.tolist()) == ((5, 0), np.uint8, (5, 0), np.bool_, [0, 1, 2, 3, 4])
  raw = dataset.source("val")[0]
  assert (raw["label"].shape, raw["label"].dtype, raw["known"].shape, raw["known"].dtype) == ((0,), np.uint8, (0,), np.bool_)
  spec = pipeline.InputSpec(resize=(32, 32), size=(28, 28))
  for batch in (pipeline.train_dataset(dataset.source("train"), spec, batch_size=4, seed=0)[0],
                pipeline.eval_dataset(dataset.source("val"), spec, batch_size=4)[0]):
    assert batch["label"].shape == batch["known"].shape == (4, 0)
    assert batch["person_mask"].shape == batch["image"].shape[:3]
  theirs = tfds.builder_from_directory(folder).as_data_source("train")
  assert theirs[1]["label"].shape == (0,)
  np.testing.assert_array_equal(theirs[1]["person_mask"][..., 0], images.decode_mask(dataset.source("train")[1]["person_mask"]))


def test_a_panoptic_picture_is_decoded_once(panoptic_source, tmp_path, monkeypatch):
  decoded, whole = [], images.decode_image
  monkeypatch.setattr(images, "decode_image", lambda data, **options: decoded.append(options["where"]) or whole(data, **options))
  panoptic_source.prepare(tmp_path)
  assert sorted(decoded) == sorted([
      "train2017/000000000009.jpg", "000000000009.png", "train2017/000000000004.jpg", "000000000004.png", "val2017/000000000011.jpg",
      "000000000011.png"])


# What goes wrong.


def fails(source, tmp_path, message, **options):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path, **options)
  assert "\n" not in str(caught.value)
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
    (("annotations",), {}, r"annotations: expected a list, got \{\}"),
    (("images", 1), 5, r"images\[1\]: expected an object with 'id', got 5"),
    (("images", 1, "id"), "4", r"images\[1\] id: expected an integer, got '4'"),
    (("images", 1, "id"), 9, r"images\[1\] id: 9 is the id of an earlier photo"),
    (("images", 1, "width"), 0, r"images\[1\] width: expected a positive integer, got 0"),
    (("images", 1, "height"), KeyError, r"images\[1\] height: expected a positive integer, got None"),
    (("images", 1, "file_name"), "../secret.jpg", r"images\[1\] file_name: '../secret.jpg' is not a path inside"),
    (("images", 1, "file_name"), KeyError, r"images\[1\] file_name: None is not a path inside"),
    (("images", 1, "file_name"), "gone.jpg", r"1 of 3 files .* missing, first train2017/gone.jpg"),
    (("annotations", 1), [], r"annotations\[1\]: expected an object with 'image_id', got \[\]"),
    (("annotations", 1, "image_id"), True, r"annotations\[1\] image_id: expected an integer, got True"),
    (("annotations", 1, "image_id"), 77, r"annotations\[1\]: image_id 77 is not the id of any of the images"),
    (("annotations", 1, "category_id"), KeyError, r"annotations\[1\] category_id: expected an integer, got None"),
    (("annotations", 1, "iscrowd"), 2, r"annotations\[1\] iscrowd: expected 0 or 1, got 2"),
    (("annotations", 1, "area"), float("nan"), "not valid JSON .*NaN"),
    (("annotations", 1, "bbox"), [1, 2, 3], r"\[1\] bbox: expected four finite numbers \[x, y, width, height\], got \[1, 2, 3\]"),
    (("annotations", 1, "bbox", 2), float("inf"), "not valid JSON .*Infinity"),
    (("annotations", 1, "bbox", 2), 1e300, r"annotations\[1\] bbox: expected four finite numbers"),
    (("annotations", 1, "segmentation"), KeyError, r"annotations\[1\] segmentation: expected polygons, .* got None"),
    (("annotations", 1, "segmentation"), [[1, 2, 3, 4]], r"\[1\] segmentation: .* at least three pairs x, y, got \[\[1, 2, 3, 4\]\]"),
    (("annotations", 1, "segmentation"), [[1, 2, 3, 4, 5, 6, 7]], r"annotations\[1\] segmentation: expected polygons"),
    (("annotations", 1, "segmentation"), [[1, 2, 3, 4, 5, None]], r"annotations\[1\] segmentation: expected polygons"),
    (("annotations", 1, "segmentation"), {"counts": "abc", "size": [120, 160]}, r"\[1\] segmentation: run lengths .*_\*2017.json"),
    (("annotations", 1, "segmentation"), [], r"\[1\] segmentation: empty; such people need panoptic files: put panoptic_"),
])
def test_faults_of_the_instances_file(source, tmp_path, path, value, message):
  set_in(source.instances["train"], path, value)
  fails(source, tmp_path, f"{'' if 'missing' in message else 'annotations/instances_train2017.json'}.*{message}")


@pytest.mark.parametrize("path, value, message", [
    (("annotations", 0, "image_id"), None, r"annotations\[0\] image_id: expected an integer, got None"),
    (("annotations", 0, "image_id"), 1, r"annotations\[0\] segments_info\[0\]: image_id 1 is not the id"),
    (("annotations", 0, "file_name"), "/etc/passwd", r"annotations\[0\] file_name: '/etc/passwd' is not a path inside"),
    (("annotations", 0, "file_name"), "x.png", r"1 of 6 files .* missing, first annotations/panoptic_train2017/x.png"),
    (("annotations", 0, "segments_info"), KeyError, r"annotations\[0\] segments_info: expected a list, got None"),
    (("annotations", 0, "segments_info", 1), 3, r"annotations\[0\] segments_info\[1\]: expected an object with 'category_id', got 3"),
    (("annotations", 0, "segments_info", 1, "id"), 1 << 24, r"segments_info\[1\] id: expected an integer of 24 bits, got 16777216"),
    (("annotations", 0, "segments_info", 1, "bbox"), "x", r"segments_info\[1\] bbox: expected four finite numbers"),
])
def test_faults_of_the_panoptic_file(panoptic_source, tmp_path, path, value, message):
  set_in(panoptic_source.panoptic["train"], path, value)
  fails(panoptic_source, tmp_path, f"{'' if 'missing' in message else 'annotations/panoptic_train2017.json'}.*{message}")


def test_files_missing_or_broken(panoptic_source, tmp_path):
  annotations = panoptic_source.folder / "annotations"
  shutil.rmtree(annotations / "panoptic_val2017")
  fails(panoptic_source, tmp_path, "1 of 6 files .* missing, first annotations/panoptic_val2017/000000000011.png")
  panoptic_source.save()
  (annotations / "panoptic_val2017.json").write_text("{")
  with pytest.raises(InputError, match="panoptic_val2017.json: not valid JSON"):
    prepare("coco_person", source=panoptic_source.folder, data_dir=tmp_path / "data", progress=False)
  (annotations / "panoptic_val2017.json").unlink()
  (annotations / "instances_val2017.json").unlink()
  with pytest.raises(InputError, match="annotations/instances_val2017.json: missing; --source must be the folder"):
    prepare("coco_person", source=panoptic_source.folder, data_dir=tmp_path / "data", progress=False)


def test_nobody_large_enough(source, tmp_path):
  for annotation in source.instances["train"]["annotations"]:
    annotation["area"] = 1023.9
  fails(source, tmp_path, "no training samples")


def spoil_size(source, png):
  source.draw("train", 9, WIDTH, HEIGHT)


def spoil_picture_size(source, png):
  png.write_bytes(images.encode_png(np.zeros((60, 80, 3), np.uint8)))


def spoil_picture(source, png):
  png.write_bytes(png.read_bytes()[:-20])


def spoil_segment(source, png):
  source.panoptic["train"]["annotations"][0]["segments_info"][1]["id"] = 259


@pytest.mark.parametrize("spoil, reason", [
    (spoil_size, "120x160 pixels, its annotation says 160x120"),
    (spoil_picture_size, "000000000009.png is 80x60, its photo 160x120"),
    (spoil_picture, "000000000009.png: truncated PNG"),
    (spoil_segment, r"000000000009.png has no pixel of segment 259 in [50, 40, 110, 110]"),
])
def test_a_photo_that_does_not_fit_its_masks_is_skipped(panoptic_source, tmp_path, spoil, reason):
  spoil(panoptic_source, panoptic_source.folder / "annotations/panoptic_train2017/000000000009.png")
  folder = panoptic_source.prepare(tmp_path, max_bad=0.5)
  (skipped,) = report_of(folder)["skipped"]
  assert skipped["file"] == "train2017/000000000009.jpg" and skipped["samples"] == 2
  assert skipped["reason"].startswith(reason)
  assert len(samples_of(tmp_path, "train")) == 1


def test_polygons_outside_their_box(source, tmp_path):
  source.instances["train"]["annotations"][0]["segmentation"] = [rectangle(100, 20, 150, 100)]
  folder = source.prepare(tmp_path, max_bad=0.5)
  assert report_of(folder)["skipped"][0]["reason"] == "the polygons of the person in pixels [10, 20, 60, 100] cover none of them"


# Real photos.


def test_real_people(real_data, tmp_path):
  source = real_data / "coco_open"
  folder = prepare("coco_person", source=source, data_dir=tmp_path / "data", size=1000, progress=False, allow_deviations=True)
  report = report_of(folder)
  assert report["skipped"] == [] and report["shrunk"] == 0 and report["clipped_boxes"] == 0
  for split in ("train", "val"):
    content = json.loads((source / "annotations" / f"panoptic_{split}2017.json").read_text())
    by_photo = {annotation["image_id"]: annotation["segments_info"] for annotation in content["annotations"]}
    people = [segment for photo in content["images"] for segment in by_photo[photo["id"]]
              if segment["category_id"] == 1 and not segment["iscrowd"] and segment["area"] >= 1024]
    for sample, segment in zip(samples_of(tmp_path, split), people, strict=True):
      assert (sample["person_mask"] == 255).sum() == segment["area"]
      assert set(np.unique(sample["person_mask"])) <= {0, 255}
      assert sample["person_mask"].shape == sample["image"].shape[:2] == tuple(segment["bbox"][:1:-1])
  assert (report["samples"]["train"], report["samples"]["val"]) == (28, 58)


def test_real_people_at_the_usual_size(real_data, tmp_path):
  prepare("coco_person", source=real_data / "coco_open", data_dir=tmp_path / "data", progress=False, allow_deviations=True)
  dataset = registry.open_dataset("coco_person", tmp_path / "data")
  batch = pipeline.eval_dataset(dataset.source("train+val"), pipeline.InputSpec(), batch_size=86)[0]
  assert batch["image"].shape == (86, 256, 256, 3) and batch["person_mask"].shape == (86, 256, 256)
  stored = [sample["person_mask"].mean() / 255 for split in ("train", "val") for sample in samples_of(tmp_path, split)]
  np.testing.assert_allclose((batch["person_mask"] / 255).mean(axis=(1, 2)), stored, atol=0.01)
  assert 0.1 < min(stored) and max(stored) < 0.95


def test_real_instances_without_their_panoptic_files(real_data, tmp_path):
  folder = tmp_path / "coco"
  (folder / "annotations").mkdir(parents=True)
  for split in ("train", "val"):
    name = f"instances_{split}2017.json"
    (folder / "annotations" / name).write_bytes((real_data / "coco_open" / "annotations" / name).read_bytes())
  with pytest.raises(InputError, match=r"instances_train2017.json annotations\[\d+\] segmentation: empty; such people need panoptic files"):
    prepare("coco_person", source=folder, data_dir=tmp_path / "data", progress=False)
