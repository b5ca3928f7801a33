"""What `prepare` keeps, skips, refuses and leaves behind."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds

from attr_jax import cli
from attr_jax import evaluate
from attr_jax import run_folder
from attr_jax.data import images
from attr_jax.data import info as info_lib
from attr_jax.data import published
from attr_jax.data import registry
from attr_jax.data.builders import pa100k
from attr_jax.data.builders import records
from attr_jax.data.builders import wider_attribute
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

from helpers import REPOSITORY


def run(name, source, tmp_path, **options):
  return prepare(name, source=source.folder, data_dir=tmp_path / "data",
                 **{"progress": False, "size": 64, "allow_deviations": True, **options})


def report_of(folder):
  return json.loads((folder / "report.json").read_text())


def assert_nothing_prepared(tmp_path):
  assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


# What comes out.


def test_wider_samples_follow_the_contract_in_source_order(wider_source, tmp_path):
  source = wider_source()
  folder = run("wider_attribute", source, tmp_path)
  assert folder == tmp_path / "data" / "wider_attribute" / "64x64" / "1.0.0"
  dataset = registry.open_dataset("wider_attribute", tmp_path / "data")
  assert dataset.info.splits == {"train": 18, "val": 9, "test": 9}
  expected = [(image, target) for content, split in ((source.trainval, "train"), (source.trainval, "val"), (source.test, "test"))
              for image in content["images"] if image["file_name"].startswith(split) for target in image["targets"]]
  samples = [sample for split in ("train", "val", "test") for sample in dataset.source(split)]
  assert len(samples) == len(expected)
  for number, (sample, (image, target)) in enumerate(zip(samples, expected)):
    raw = np.array(target["attribute"])
    np.testing.assert_array_equal(sample["label"], raw == 1)
    np.testing.assert_array_equal(sample["known"], raw != 0)
    assert (sample["label"].dtype, sample["known"].dtype, sample["id"].dtype) == (np.uint8, np.bool_, np.int64)
    assert sample["id"] == number
    assert "person_mask" not in sample
    photo = images.decode_jpeg((source.folder / "Image" / image["file_name"]).read_bytes())
    left, top, right, bottom = records.pixel_box(target["bbox"])
    crop = photo[top:bottom, left:right]
    decoded = images.decode_jpeg(sample["image"])
    assert decoded.shape[:2] == records.shrunk_size(*crop.shape[:2], (64, 64))
    resized = cv2.resize(crop, decoded.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.astype(float) - resized).mean() < 4


def test_shorter_side_meets_the_size_and_nothing_is_enlarged():
  assert records.shrunk_size(400, 100, (64, 64)) == (256, 64)
  assert records.shrunk_size(100, 401, (64, 64)) == (64, 257)
  assert records.shrunk_size(60, 300, (64, 64)) == (60, 300)
  assert records.shrunk_size(500, 200, (256, 128)) == (320, 128)
  assert records.shrunk_size(500, 300, (256, 128)) == (256, 154)


def test_facts_of_the_training_split(wider_source, tmp_path):
  run("wider_attribute", wider_source(), tmp_path)
  dataset = registry.open_dataset("wider_attribute", tmp_path / "data", size="64x64")
  info = dataset.info
  label, known, ids = dataset.labels("train")
  assert info.label_names[:2] == ("Male", "longHair")
  np.testing.assert_allclose(info.positive_ratio, (label * known).sum(0) / known.sum(0))
  np.testing.assert_allclose(info.known_ratio, known.mean(0))
  assert ids.tolist() == list(range(18))
  pixels = [images.decode_jpeg(sample["image"]) / 255 for sample in dataset.source("train")]
  np.testing.assert_allclose(info.mean, np.mean([image.mean((0, 1)) for image in pixels], 0), atol=0.01)
  square = np.mean([(image**2).mean((0, 1)) for image in pixels], 0)
  np.testing.assert_allclose(info.std, np.sqrt(square - np.square(info.mean)), atol=0.01)
  assert sorted(name for names in info.label_groups.values() for name in names) == sorted(info.label_names)
  assert "other" not in info.label_groups
  assert info_lib.DatasetInfo.from_json(info.to_json()) == info


def test_older_facts_can_be_read(wider_source, tmp_path):
  """Prepared before there were regions and landmarks."""
  path = run("wider_attribute", wider_source(), tmp_path) / "info.json"
  content = json.loads(path.read_text())
  del content["has_region_mask"], content["has_landmarks"]
  path.write_text(json.dumps(content))
  info = registry.open_dataset("wider_attribute", tmp_path / "data").info
  assert (info.has_region_mask, info.has_landmarks) == (False, False)
  for keys in (content.keys() - {"mean"}, content.keys() | {"odd"}):
    path.write_text(json.dumps({key: content.get(key) for key in keys}))
    with pytest.raises(InputError, match="info.json: expected an object with the keys"):
      registry.open_dataset("wider_attribute", tmp_path / "data")


def test_labels_agree_with_records_and_splits_can_be_added(wider_source, tmp_path):
  run("wider_attribute", wider_source(), tmp_path)
  dataset = registry.open_dataset("wider_attribute", tmp_path / "data")
  label, known, ids = dataset.labels("train+test")
  source = dataset.source("train+test")
  assert len(source) == len(ids) == 27
  for index in (0, 17, 18, -1):
    np.testing.assert_array_equal(source[index]["label"], label[index])
    np.testing.assert_array_equal(source[index]["known"], known[index])
    assert source[index]["id"] == ids[index]
  with pytest.raises(IndexError):
    source[27]
  assert pickle.loads(pickle.dumps(source))[3]["image"] == source[3]["image"]


def test_masks_have_the_geometry_of_their_image(wider_source, tmp_path):
  source = wider_source(masks=True)
  target = source.trainval["images"][0]["targets"][0]
  target["bbox"] = [-10, -5, 90, 160]  # leaves the photo on three sides, covers 80 x 120 of it
  source.add_mask(target, "Mask/big.png")
  source.save()
  folder = run("wider_attribute", source, tmp_path)
  dataset = registry.open_dataset("wider_attribute", tmp_path / "data")
  assert dataset.info.has_person_mask
  for sample in dataset.source("train"):
    assert images.decode_mask(sample["person_mask"]).shape == images.decode_jpeg(sample["image"]).shape[:2]
  big = images.decode_mask(dataset.source("train")[0]["person_mask"])
  assert big.shape == (96, 64)
  # The mask starts at a quarter of 160 rows, 35 of the 120 visible ones, and a third of 90 columns, 20 of 80.
  assert abs(int((big[:, -1] > 127).argmax()) - 35 * 0.8) <= 1
  assert abs(int((big[-1] > 127).argmax()) - 20 * 0.8) <= 1
  assert report_of(folder)["clipped_boxes"] == 1


def test_a_margin_is_cut_around_each_box_as_far_as_the_photo_goes(wider_source, tmp_path):
  source = wider_source(masks=True)
  folder = run("wider_attribute", source, tmp_path, size=256, margin=0.1)
  assert folder.parent.name == "256x256-margin0.1" and report_of(folder)["margin"] == 0.1
  assert report_of(folder)["clipped_boxes"] == 0  # the boxes themselves are inside
  dataset = registry.open_dataset("wider_attribute", tmp_path / "data", margin=0.1)
  photos = [image for image in source.trainval["images"] if image["file_name"].startswith("train")]
  targets = [(image, target) for image in photos for target in image["targets"]]
  areas = [(6, 3, 54, 111), (57, 0, 94, 77), (94, 10, 160, 120)]  # 10 % of 40 x 90, of 30.2 x 64.7 and of 60 x 100
  for sample, (image, target), (left, top, right, bottom) in zip(dataset.source("train"), targets, areas * len(photos), strict=True):
    photo = images.decode_jpeg((source.folder / "Image" / image["file_name"]).read_bytes())
    crop = images.decode_jpeg(sample["image"])
    assert crop.shape[:2] == (bottom - top, right - left)
    assert np.abs(crop.astype(float) - photo[top:bottom, left:right]).mean() < 4
    whole = np.zeros(photo.shape[:2], np.uint8)
    x, y, x_end, y_end = records.pixel_box(target["bbox"])
    whole[y:y_end, x:x_end] = cv2.imread(str(source.folder / target["mask"]), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(images.decode_mask(sample["person_mask"]), whole[top:bottom, left:right])


def test_forms_with_and_without_margin_lie_side_by_side(wider_source, tmp_path):
  source = wider_source()
  run("wider_attribute", source, tmp_path, margin=0.25)
  with pytest.raises(InputError, match=r"64x64/1.0.0: not prepared; run: attr-jax prepare wider_attribute .*--size=64x64$"):
    registry.open_dataset("wider_attribute", tmp_path / "data", 64)
  with pytest.raises(InputError, match=r"-margin0.1/1.0.0: not prepared; .* --margin=0.1$"):
    registry.open_dataset("wider_attribute", tmp_path / "data", margin=0.1)
  run("wider_attribute", source, tmp_path)
  plain, wide = (registry.open_dataset("wider_attribute", tmp_path / "data", margin=margin) for margin in (0.0, 0.25))
  assert (plain.path.parts[-2], wide.path.parts[-2]) == ("64x64", "64x64-margin0.25")
  assert images.decode_jpeg(plain.source("val")[0]["image"]).shape == (90, 40, 3)
  assert images.decode_jpeg(wide.source("val")[0]["image"]).shape == (120, 60, 3)  # of 135 rows the photo has 120


def test_a_run_reads_the_margin_it_names(wider_source, tmp_path, capsys):
  source = wider_source()
  with pytest.raises(SystemExit) as status:
    cli.main(["prepare", "wider_attribute", f"--source={source.folder}", f"--data-dir={tmp_path / 'data'}", "--size=64", "--margin=0.25"])
  assert status.value.code == 0 and "64x64-margin0.25" in capsys.readouterr().out
  config = cli.load_config(str(REPOSITORY / "configs" / "baseline.py"), [f"--config.data.dir={tmp_path / 'data'}", "--config.data.margin=0.25"])
  assert evaluate.open_data(config).path.parts[-2] == "64x64-margin0.25"
  assert run_folder.data_name(config) == "wider_attribute (margin 0.25)"


def toy_sample(tmp_path, monkeypatch, target, **options):
  """The one sample, prepared, of a data set with one photo, x.png."""
  class Toy(records.RecordsBuilder, skip_registration=True):
    name, LICENCE, CITATION, DESCRIPTION, GROUPS = "toy", "", "", "", {}
    SIZE = RESIZE = IMAGE_SIZE = (64, 48)

    @staticmethod
    def read(source):
      return records.Annotations(("Hat",), {"train": [records.Photo("x", source / "x.png", (target,))]})

  monkeypatch.setitem(registry.DATASETS, "toy", Toy)
  prepare("toy", source=tmp_path, data_dir=tmp_path / "data", progress=False, **options)
  dataset = registry.open_dataset("toy", tmp_path / "data", margin=options.get("margin", 0.0))
  assert dataset.info.has_person_mask and dataset.info.has_region_mask and dataset.info.has_landmarks
  return dataset.source("train")[0]


@pytest.mark.parametrize("pad, shape, shift", [(True, (64, 48), (12, 0)), (False, (64, 76), (0, 0))])
def test_all_that_comes_with_a_box_is_cut_shrunk_and_padded_alike(tmp_path, monkeypatch, pad, shape, shift):
  """No data set has all of it at once yet."""
  rows, columns = np.mgrid[:240, :300]
  classes = (rows // 24 % 2 * 3 + columns // 24 % 2).astype(np.uint8)
  (tmp_path / "x.png").write_bytes(images.encode_png(np.repeat((classes * 60)[..., None], 3, axis=2)))
  left, top, width, height = box = (24, 48, 192, 162)
  points = np.array([[60, 60], [180, 60], [120, 120], [72, 192], [180, 180]], np.float32)
  inside = classes[top:top + height, left:left + width]
  target = records.Target(np.ones(1, np.uint8), np.ones(1, bool), box, mask=lambda: inside * 60, region_mask=lambda: classes,
                          landmarks=points, pad=pad)
  sample = toy_sample(tmp_path, monkeypatch, target)
  image = images.decode_jpeg(sample["image"])[..., 0].astype(int)
  person, region = images.decode_mask(sample["person_mask"]), images.decode_mask(sample["region_mask"])
  assert image.shape == person.shape == region.shape == shape
  known = region != 255
  assert known.sum() == (40 * 48 if pad else known.size) and (person[~known] == 0).all() and (image[~known] < 60).all()
  assert (np.abs(image - person)[known] < 25).mean() > 0.9  # JPEG and the edges
  assert (person[known] == region[known] * 60).mean() > 0.75 and np.abs(person[known] - region[known] * 60.0).mean() < 12
  scale = (48 / 192, 40 / 162) if pad else (76 / 192, 64 / 162)
  expected = (points - (left, top) + 0.5) * scale - 0.5 + (shift[1], shift[0])
  np.testing.assert_allclose(sample["landmarks"], expected, atol=1e-4)


def test_a_margin_moves_landmarks_and_shows_more_regions(tmp_path, monkeypatch):
  classes = np.repeat(np.arange(60, dtype=np.uint8)[:, None] // 10, 40, axis=1)
  (tmp_path / "x.png").write_bytes(images.encode_png(np.repeat((classes * 40)[..., None], 3, axis=2)))
  points = np.array([[12, 20], [20, 20], [16, 25], [13, 30], [19, 31]], np.float32)
  target = records.Target(np.ones(1, np.uint8), np.ones(1, bool), (10, 10, 20, 30), mask=lambda: np.full((30, 20), 255, np.uint8),
                          region_mask=lambda: classes, landmarks=points)
  sample = toy_sample(tmp_path, monkeypatch, target, margin=0.2)
  np.testing.assert_array_equal(images.decode_mask(sample["region_mask"]), classes[4:46, 6:34])
  np.testing.assert_array_equal(sample["landmarks"], points - (6, 4))
  mask = images.decode_mask(sample["person_mask"])
  assert mask.shape == (42, 28) and (mask[6:36, 4:24] == 255).all() and mask.sum() == 255 * 600


def test_tensorflow_datasets_can_read_it(wider_source, tmp_path):
  folder = run("wider_attribute", wider_source(masks=True), tmp_path)
  builder = tfds.builder_from_directory(folder)
  skip = {"image": tfds.decode.SkipDecoding(), "person_mask": tfds.decode.SkipDecoding()}
  theirs = builder.as_data_source("val", decoders=skip)
  ours = registry.open_dataset("wider_attribute", tmp_path / "data").source("val")
  assert len(theirs) == len(ours) == builder.info.splits["val"].num_examples
  for index in range(len(ours)):
    assert theirs[index]["image"] == ours[index]["image"]
    for key in ("label", "known", "id"):
      np.testing.assert_array_equal(theirs[index][key], ours[index][key])


def test_twice_gives_the_same_records(wider_source, tmp_path):
  source = wider_source(masks=True)
  first = run("wider_attribute", source, tmp_path, workers=1)
  second = prepare("wider_attribute", source=source.folder, data_dir=tmp_path / "again", size=64, workers=4, progress=False)
  for split in ("train", "val", "test"):
    one, two = (registry.open_dataset("wider_attribute", folder.parents[2]).source(split) for folder in (first, second))
    assert len(one) == len(two)
    assert all(pickle.dumps(a) == pickle.dumps(b) for a, b in zip(one, two))


def test_many_records_take_several_shards(wider_source, tmp_path, monkeypatch):
  monkeypatch.setattr(records, "_SHARD_RECORDS", 7)
  folder = run("wider_attribute", wider_source(), tmp_path)
  expected = [f"wider_attribute-train.array_record-{index:05d}-of-00003" for index in range(3)]
  assert sorted(path.name for path in folder.glob("*-train.*")) == expected
  dataset = registry.open_dataset("wider_attribute", tmp_path / "data")
  assert [int(sample["id"]) for sample in dataset.source("train+val")] == list(range(27))
  assert len(tfds.builder_from_directory(folder).as_data_source("train")) == 18
  next(folder.glob("*-train.array_record-00001-*")).unlink()
  with pytest.raises(InputError, match="missing"):
    dataset.source("train")


def test_two_sizes_live_side_by_side(pa100k_source, tmp_path):
  source = pa100k_source()
  run("pa100k", source, tmp_path, size=32)
  run("pa100k", source, tmp_path, size=(64, 32))
  with pytest.raises(InputError, match="32x32, 64x32; choose"):
    registry.open_dataset("pa100k", tmp_path / "data")
  assert registry.open_dataset("pa100k", tmp_path / "data", "64x32").path.parts[-2] == "64x32"
  with pytest.raises(InputError, match="attr-jax prepare pa100k .* --size=48x48"):
    registry.open_dataset("pa100k", tmp_path / "data", 48)


def test_prepared_already(pa100k_source, tmp_path, capsys):
  source = pa100k_source()
  folder = run("pa100k", source, tmp_path)
  before = (folder / "report.json").stat().st_mtime_ns
  capsys.readouterr()
  assert run("pa100k", source, tmp_path, progress=True) == folder
  assert "prepared already" in capsys.readouterr().err
  assert (folder / "report.json").stat().st_mtime_ns == before
  run("pa100k", source, tmp_path, overwrite=True)
  assert (folder / "report.json").stat().st_mtime_ns != before
  assert [path.name for path in (tmp_path / "data").iterdir()] == ["pa100k"]
  (folder / "labels.npz").unlink()
  with pytest.raises(InputError, match="lacks labels.npz; use --overwrite"):
    run("pa100k", source, tmp_path)


def test_pa100k_keeps_the_bytes_of_small_images(pa100k_source, tmp_path):
  source = pa100k_source()
  odd = source.folder / "data" / "000002.jpg"
  grey = simplejpeg.encode_jpeg(np.full((40, 20, 1), 90, np.uint8), colorspace="GRAY")
  odd.write_bytes(grey)
  folder = run("pa100k", source, tmp_path, size=(64, 32))
  dataset = registry.open_dataset("pa100k", tmp_path / "data")
  samples = list(dataset.source("train"))
  assert samples[3]["image"] == (source.folder / "data" / "000004.jpg").read_bytes()
  assert images.decode_jpeg(samples[0]["image"]).shape == (72, 32, 3)
  assert images.decode_jpeg(samples[1]["image"]).shape == (40, 20, 3)
  assert simplejpeg.decode_jpeg_header(samples[1]["image"])[2] == "YCbCr"
  report = report_of(folder)
  assert (report["copied"], report["shrunk"], report["converted"]) == (8, 9, {"grey": 1})
  assert dataset.info.label_groups["other"] == ("odd one",)
  assert all(sample["known"].all() for sample in samples)


def test_only_own_lines_are_printed(pa100k_source, tmp_path, capfd):
  run("pa100k", pa100k_source(), tmp_path, progress=False)
  assert capfd.readouterr() == ("", "")


# What goes wrong.


def spoil(source, tmp_path):
  """Writes ten kinds of odd files; returns the names that must be skipped."""
  good = images.encode_jpeg(np.full((50, 40, 3), 99, np.uint8))
  ink = simplejpeg.encode_jpeg(np.full((50, 40, 4), 200, np.uint8), colorspace="CMYK", colorsubsampling="444")
  _, deep = cv2.imencode(".png", np.full((50, 40, 3), 30000, np.uint16))
  turned = good[:2] + b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0" + good[2:]
  frame = good.index(b"\xff\xc0")
  files = {
      "000001.jpg": b"",
      "000002.jpg": good[:len(good) // 2],
      "000003.jpg": b"<html>not found</html>",
      "000004.jpg": bytes(range(256)),
      "000005.jpg": good[:frame + 5] + b"\xff\xff\xff\xff" + good[frame + 9:],
      "000006.jpg": good[:frame + 5] + b"\0\0\0\0" + good[frame + 9:],
      "000007.jpg": images.encode_png(np.full((50, 40, 3), 99, np.uint8)),
      "000008.jpg": ink,
      "000009.jpg": deep.tobytes(),
      "000010.jpg": turned,
      "000011.jpg": simplejpeg.encode_jpeg(np.full((50, 40, 1), 99, np.uint8), colorspace="GRAY"),
  }
  for name, data in files.items():
    (source.folder / "data" / name).write_bytes(data)
  return [f"{number:06d}.jpg" for number in range(1, 7)]


def test_odd_files_are_converted_or_skipped_and_listed(pa100k_source, tmp_path):
  source = pa100k_source(count=12)
  skipped = spoil(source, tmp_path)
  folder = run("pa100k", source, tmp_path, max_bad=0.2)
  report = report_of(folder)
  assert [item["file"] for item in report["skipped"]] == skipped
  assert all(item["reason"] for item in report["skipped"])
  assert report["converted"] == {"png": 2, "cmyk": 1, "16-bit": 1, "rotated by EXIF": 1, "grey": 1}
  dataset = registry.open_dataset("pa100k", tmp_path / "data")
  assert dataset.info.splits == {"train": 6, "val": 12, "test": 12}
  train = list(dataset.source("train"))
  assert [int(sample["id"]) for sample in train] == list(range(6))
  np.testing.assert_array_equal(train[0]["label"], source.content["train_label"][6])  # labels stay with their images
  assert int(dataset.source("val")[0]["id"]) == 6
  assert images.decode_jpeg(train[3]["image"]).shape == (40, 50, 3)  # turned
  assert all(images.read_header(sample["image"]).oddities == () for sample in train)


def test_too_many_bad_files_stop_with_the_list(pa100k_source, tmp_path):
  source = pa100k_source(count=12)
  spoil(source, tmp_path)
  listed = r"000001.jpg \(empty file\); 000002.jpg \(truncated"
  with pytest.raises(InputError, match=f"6 or more of 36 photos .* --max-bad allows 0.1 .*{listed}") as caught:
    run("pa100k", source, tmp_path, max_bad=0.1)
  assert "\n" not in str(caught.value)
  assert_nothing_prepared(tmp_path)


def test_boxes_outside_or_empty_are_clipped_dropped_and_counted(wider_source, tmp_path):
  source = wider_source()
  targets = source.trainval["images"][0]["targets"]
  targets[0]["bbox"] = [-20, 100, 60, 80]  # partly outside
  targets[1]["bbox"] = [500, 10, 30, 30]  # wholly outside
  targets[2]["bbox"] = [5.5, 5, 0, 30]  # empty
  source.save()
  folder = run("wider_attribute", source, tmp_path)
  report = report_of(folder)
  assert (report["clipped_boxes"], report["dropped_boxes"]) == (1, 2)
  assert report["dropped"][0] == "train/0--Parade/0.jpg target 1: box [500, 10, 30, 30] covers no pixel"
  dataset = registry.open_dataset("wider_attribute", tmp_path / "data")
  assert dataset.info.splits["train"] == 16
  assert images.decode_jpeg(dataset.source("train")[0]["image"]).shape == (20, 40, 3)
  assert dataset.labels("train+val+test")[2].tolist() == list(range(34))


def set_in(content, path, value):
  for key in path[:-1]:
    content = content[key]
  if value is KeyError:
    del content[path[-1]]
  else:
    content[path[-1]] = value


@pytest.mark.parametrize("path, value, message", [
    (("images", 1, "targets", 2, "attribute"), [1] * 13, r"images\[1\].*targets\[2\] attribute: expected 14 numbers, got 13"),
    (("images", 0, "targets", 0, "attribute", 3), 2, r"targets\[0\] attribute\[3\]: expected 1, -1 or 0 \(unspecified\), got 2"),
    (("images", 0, "targets", 0, "attribute", 3), "1", "got '1'"),
    (("images", 0, "targets", 0, "attribute"), KeyError, "expected 14 numbers, got None"),
    (("images", 0, "targets", 1, "bbox"), [1, 2, 3], r"targets\[1\] bbox: expected four finite numbers"),
    (("images", 0, "targets", 1, "bbox", 0), float("nan"), "four finite numbers"),
    (("images", 2, "file_name"), "../secret.jpg", r"images\[2\] file_name: '../secret.jpg' is not a path inside"),
    (("images", 2, "file_name"), "/etc/passwd", "not a path inside"),
    (("images", 2, "file_name"), "train\\..\\x.jpg", "not a path inside"),
    (("images", 2, "file_name"), "", "not a path inside"),
    (("images", 2, "file_name"), "test/0--Parade/3.jpg", "must start with train/ or val/"),
    (("images", 2, "file_name"), "train/gone.jpg", r"1 of 12 files .* missing, first Image/train/gone.jpg"),
    (("images", 2, "targets"), KeyError, r"images\[2\]: expected an object"),
    (("images",), KeyError, "key 'images' is missing"),
    (("attribute_id_map", "7"), KeyError, "without gaps"),
    (("attribute_id_map", "7"), "other", "attribute_id_map differs"),
    (("images", 0, "targets", 0, "mask"), "../m.png", "mask: '../m.png' is not a path inside"),
    (("images", 0, "targets", 0, "mask"), "m.png", "expected all or none"),
])
def test_wider_faults(wider_source, tmp_path, path, value, message):
  source = wider_source()
  set_in(source.trainval, path, value)
  source.save()
  with pytest.raises(InputError, match=message) as caught:
    run("wider_attribute", source, tmp_path)
  assert "\n" not in str(caught.value)
  assert "wider" in str(caught.value)
  assert_nothing_prepared(tmp_path)


def test_wider_files_missing_or_broken(wider_source, tmp_path):
  source = wider_source()
  (source.folder / "wider_attribute_test.json").write_text("{")
  with pytest.raises(InputError, match="wider_attribute_test.json: not valid JSON"):
    run("wider_attribute", source, tmp_path)
  (source.folder / "wider_attribute_test.json").unlink()
  with pytest.raises(InputError, match="wider_attribute_test.json: missing"):
    run("wider_attribute", source, tmp_path)


def test_a_mask_of_another_size_is_bad(wider_source, tmp_path):
  source = wider_source(masks=True)
  (source.folder / "Mask" / "train-0-1.png").write_bytes(images.encode_png(np.zeros((3, 3), np.uint8)))
  with pytest.raises(InputError, match="mask train-0-1.png is 3x3, its box covers 31x66 pixels"):
    run("wider_attribute", source, tmp_path)


PA100K_FAULTS = [
    ("train_label", np.zeros((6, 4), np.uint8), r"train_label: expected 6 rows \(image names\) x 3 columns \(attributes\), got shape \(6, 4\)"),
    ("val_label", np.zeros((5, 3), np.uint8), r"val_label: expected 6 rows .* got shape \(5, 3\)"),
    ("test_label", np.full((6, 3), 2, np.uint8), "test_label row 0 column 0: expected 0 or 1, got 2"),
    ("test_label", np.full((6, 3), np.nan), "expected 0 or 1, got nan"),
    ("train_images_name", np.zeros((6, 1)), "train_images_name: expected an Nx1 cell array of texts"),
    ("val_images_name", ["a.jpg", "b.jpg", "../c.jpg", "d.jpg", "e.jpg", "f.jpg"], "val_images_name row 2: '../c.jpg' is not a path inside"),
    ("val_images_name", ["a.jpg"] * 6, "6 of 18 files .* missing, first data/a.jpg"),
    ("attributes", None, "variables attributes are missing"),
]


@pytest.mark.parametrize("key, value, message", PA100K_FAULTS)
def test_pa100k_faults(pa100k_source, tmp_path, key, value, message):
  source = pa100k_source()
  if value is None:
    del source.content[key]
  else:
    source.content[key] = source.cells(value) if isinstance(value, list) else value
  source.save()
  with pytest.raises(InputError, match=message) as caught:
    run("pa100k", source, tmp_path)
  assert "\n" not in str(caught.value)
  assert str(source.folder) in str(caught.value)
  assert_nothing_prepared(tmp_path)


def test_pa100k_files_missing_or_broken(pa100k_source, tmp_path):
  source = pa100k_source()
  (source.folder / "annotation" / "annotation.mat").write_bytes(b"not a mat file")
  with pytest.raises(InputError, match="annotation.mat: not a readable MAT file"):
    run("pa100k", source, tmp_path)
  (source.folder / "annotation" / "annotation.mat").unlink()
  with pytest.raises(InputError, match="annotation.mat: missing"):
    run("pa100k", source, tmp_path)
  (source.folder / "data").rename(source.folder / "release_data")
  source.save()
  run("pa100k", source, tmp_path)


COUNTS = [f"{split}: 6 images, published {count}" for split, count in (("train", 80000), ("val", 10000), ("test", 10000))]


def test_other_counts_are_refused_or_told(pa100k_source, tmp_path, capsys):
  source = pa100k_source()
  with pytest.raises(InputError, match=f"not as published in 3 places: {'; '.join(COUNTS)}; .* --allow-deviations$") as caught:
    run("pa100k", source, tmp_path, allow_deviations=False)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert_nothing_prepared(tmp_path)
  assert report_of(run("pa100k", source, tmp_path))["deviations"] == COUNTS
  argv = ["prepare", "pa100k", f"--source={source.folder}", f"--data-dir={tmp_path / 'other'}", "--size=64"]
  with pytest.raises(SystemExit, match="2"):
    cli.main(argv)
  assert "6 images" in capsys.readouterr().err and not list((tmp_path / "other").glob("pa100k"))
  with pytest.raises(SystemExit, match="0"):
    cli.main([*argv, "--allow-deviations"])
  assert [line for line in capsys.readouterr().err.splitlines() if "warning" in line] == [f"warning: {line}" for line in COUNTS]


def test_only_the_first_deviations_stand_in_the_error(pa100k_source, tmp_path, monkeypatch):
  source = pa100k_source()
  monkeypatch.setattr(pa100k, "_IMAGES", dict.fromkeys(("train", "val", "test"), 6))
  source.content["attributes"] = source.cells([f"name {index}" for index in range(26)])
  for split in ("train", "val", "test"):
    source.content[f"{split}_label"] = np.zeros((6, 26), np.uint8)
  source.save()
  with pytest.raises(InputError, match=r"26 places: label 0: 'name 0', published 'Female'; .*label 4: .*'Front'; and 21 more; ") as caught:
    run("pa100k", source, tmp_path, allow_deviations=False)
  assert "label 5" not in str(caught.value)


def test_names_and_shares_are_compared_where_the_counts_are_as_published(pa100k_source, tmp_path, monkeypatch):
  source = pa100k_source()
  monkeypatch.setattr(pa100k, "_IMAGES", dict.fromkeys(("train", "val", "test"), 6))
  deviations = lambda: pa100k.Builder.read(source.folder).deviations
  assert deviations() == ("labels: 3, published 26",)
  monkeypatch.setattr(published, "PA100K_ATTRIBUTES", ("Female", "Cap", "odd one"))
  assert deviations() == ("label 1: 'Hat', published 'Cap'",)
  monkeypatch.setattr(published, "PA100K_ATTRIBUTES", ("Female", "Hat", "odd one"))
  shares = np.concatenate([source.content["train_label"], source.content["val_label"]]).mean(axis=0)
  monkeypatch.setattr(published, "PA100K_SHARES", tuple(round(share, 6) for share in shares))
  assert deviations() == ()
  row = source.content["val_label"][2]
  row[1] = 1 - row[1]
  source.save()
  assert [line.split(":")[0] for line in deviations()] == ["positive share of Hat in train+val"]


def test_wider_names_and_shares(wider_source, monkeypatch):
  source = wider_source()
  deviations = lambda: wider_attribute.Builder.read(source.folder).deviations
  assert deviations() == ()  # with other counts nothing is compared
  monkeypatch.setattr(wider_attribute, "_BOXES", {"train+val": 27, "test": 9})
  raw = np.array([target["attribute"] for image in source.trainval["images"] for target in image["targets"]])
  shares = (raw == 1).mean(axis=0)
  monkeypatch.setattr(published, "WIDER_SHARES", tuple(shares + 0.9e-4))
  assert deviations() == ()
  monkeypatch.setattr(published, "WIDER_SHARES", (shares[0] + 1.1e-4, *shares[1:]))
  assert deviations() == (f"positive share of Male in train+val: {shares[0]:.4f}, published {shares[0] + 1.1e-4:.4f}",)
  for content in (source.trainval, source.test):
    content["attribute_id_map"]["1"] = "hair"
  source.save()
  assert deviations() == ("label 1: 'hair', published 'longHair'",)


def test_uncertain_counts_are_only_remarked_on(wider_source, tmp_path, capsys):
  folder = run("wider_attribute", wider_source(), tmp_path, progress=True, allow_deviations=False)
  assert "warning" not in capsys.readouterr().err
  assert report_of(folder)["remarks"] == ["train+val: 27 boxes, published 28345", "test: 9 boxes, published 29179"]


@pytest.mark.parametrize("options, message", [
    ({"size": 0}, "at least 8"), ({"size": "big"}, "expected pixels"), ({"size": "8x4"}, "at least 8"), ({"max_bad": 2}, "max_bad"),
    ({"workers": 0}, "workers"), ({"margin": -0.1}, r"margin: expected a share of the box in 0\.\.1, got -0\.1"),
    ({"margin": float("nan")}, "margin: expected a share"), ({"margin": 0.1}, "margin: no sample of .*pa100k has a box; whole images")])
def test_wrong_calls(pa100k_source, tmp_path, options, message):
  with pytest.raises(InputError, match=message):
    run("pa100k", pa100k_source(), tmp_path, **options)


def test_names_and_splits_that_do_not_exist(pa100k_source, tmp_path):
  with pytest.raises(InputError, match=f"unknown data set 'pa100'; there are {', '.join(sorted(registry.DATASETS))}"):
    prepare("pa100", source=tmp_path, data_dir=tmp_path)
  with pytest.raises(InputError, match="no such folder"):
    prepare("pa100k", source=tmp_path / "nowhere", data_dir=tmp_path / "data")
  with pytest.raises(InputError, match="not prepared; run: attr-jax prepare pa100k --source=DIR"):
    registry.open_dataset("pa100k", tmp_path / "data")
  run("pa100k", pa100k_source(), tmp_path)
  dataset = registry.open_dataset("pa100k", tmp_path / "data")
  for split in ("dev", "train+train", "", "train+"):
    with pytest.raises(InputError, match="pa100k has train, val, test and sums"):
      dataset.source(split)


_SLOW_PREPARE = """
import sys, time
from attr_jax.data import images, prepare
whole = images.decode_image
def slow(data, **options):
  time.sleep(0.5)
  print("working", flush=True)
  return whole(data, **options)
images.decode_image = slow
prepare.prepare("pa100k", source=sys.argv[1], data_dir=sys.argv[2], size=64, workers=1, progress=False, allow_deviations=True)
"""


def test_kill_leaves_nothing_that_looks_prepared(pa100k_source, tmp_path):
  source = pa100k_source()
  arguments = [sys.executable, "-c", _SLOW_PREPARE, str(source.folder), str(tmp_path / "data")]
  process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
  for _ in range(3):
    assert process.stdout.readline() == "working\n"
  with pytest.raises(InputError, match="another process is preparing pa100k"):
    run("pa100k", source, tmp_path)
  os.kill(process.pid, signal.SIGKILL)
  process.wait()
  process.stdout.close()
  assert list((tmp_path / "data").glob(".incomplete-*/*"))  # it was in the middle of it
  with pytest.raises(InputError, match="not prepared"):
    registry.open_dataset("pa100k", tmp_path / "data")
  run("pa100k", source, tmp_path)
  assert [path.name for path in (tmp_path / "data").iterdir()] == ["pa100k"]
  assert registry.open_dataset("pa100k", tmp_path / "data").info.splits == {"train": 6, "val": 6, "test": 6}


def test_an_error_of_the_disk_leaves_nothing(pa100k_source, tmp_path, monkeypatch):
  def full(*arguments, **options):
    raise OSError(28, "No space left on device")
  monkeypatch.setattr(np, "savez_compressed", full)
  with pytest.raises(OSError, match="No space left"):
    run("pa100k", pa100k_source(), tmp_path)
  assert_nothing_prepared(tmp_path)


# Real photos.


def test_real_pa100k_labels_are_as_published(real_data, tmp_path):
  """The whole annotation file; its photos are not needed to read it."""
  if not (real_data / "pa100k_labels").is_dir():
    pytest.skip("the annotation file of PA-100K is not here")
  (tmp_path / "annotation").symlink_to(real_data / "pa100k_labels" / "annotation")
  (tmp_path / "data").mkdir()
  annotations = pa100k.Builder.read(tmp_path)
  assert annotations.deviations == () and annotations.label_names == published.PA100K_ATTRIBUTES
  label = np.array([photo.targets[0].label for split in ("train", "val") for photo in annotations.splits[split]])
  assert tuple(np.round(label.mean(axis=0), 6)) == published.PA100K_SHARES
  label[1234, 7] = 1 - label[1234, 7]
  lines = published.share_deviations(annotations.label_names, label, published.PA100K_SHARES, digits=6, of="train+val")
  assert [line.split(":")[0] for line in lines] == ["positive share of Hat in train+val"]


def test_real_pa100k(real_data, tmp_path):
  started = time.monotonic()
  folder = prepare("pa100k", source=real_data / "pa100k", data_dir=tmp_path, size=64, progress=False, allow_deviations=True)
  assert time.monotonic() - started < 60
  dataset = registry.open_dataset("pa100k", tmp_path)
  assert dataset.info.splits == {"train": 1200, "val": 200, "test": 200}
  assert dataset.info.label_names[:4] == ("Female", "AgeOver60", "Age18-60", "AgeLess18")
  assert dataset.info.label_names[-2:] == ("Skirt&Dress", "boots")
  label, known, ids = dataset.labels("train+val+test")
  assert known.all() and ids.tolist() == list(range(1600))
  for columns in (slice(1, 4), slice(4, 7), slice(13, 15)):  # one age, one view, one sleeve each
    assert (label[:, columns].sum(1) == 1).all()
  assert 0.35 < dataset.info.positive_ratio[0] < 0.55  # Female
  assert 0.6 < dataset.info.positive_ratio[22] < 0.8  # Trousers
  assert all(0.2 < value < 0.7 for value in dataset.info.mean + dataset.info.std)
  assert report_of(folder)["skipped"] == []
  for index in range(0, 1200, 100):
    assert min(images.decode_jpeg(dataset.source("train")[index]["image"]).shape[:2]) <= 64
