"""Predicted masks beside a prepared data set: written whole or not at all, read in place of its own."""

from concurrent import futures
import json
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from attr_jax.data import annotations
from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import registry
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError


def mask_of(number):
  """A mask of its own size for each sample; both tell the number."""
  return np.random.default_rng(number).integers(0, 256, (5 + number % 4, 7 + number % 3)).astype(np.uint8)


def masks_of(dataset, splits=("train", "val", "test")):
  """Split -> generator of `mask_of(id)`."""
  return {split: (mask_of(int(number)) for number in dataset.labels(split)[2]) for split in splits}


def counts_of(dataset, splits=("train", "val", "test")):
  return {split: dataset.info.splits[split] for split in splits}


@pytest.fixture
def dataset(wider_source, tmp_path):
  """18 + 9 + 9 people with masks of their own."""
  prepare("wider_attribute", source=wider_source(masks=True).folder, data_dir=tmp_path / "data", size=64, progress=False)
  return registry.open_dataset("wider_attribute", tmp_path / "data")


def folders(dataset):
  return sorted(path.name for path in (dataset.path / "annotations").glob("*"))


def test_round_trip_in_record_order(dataset):
  folder = annotations.write(dataset.path, "segmenter", masks_of(dataset), counts=counts_of(dataset), info={"run": "runs/a", "step": 70})
  assert folder == dataset.path / "annotations" / "segmenter"
  assert sorted(path.name for path in folder.iterdir()) == [
      "info.json", "person_mask-test.array_record", "person_mask-train.array_record", "person_mask-val.array_record"]
  assert json.loads((folder / "info.json").read_text()) == {"run": "runs/a", "step": 70, "counts": {"train": 18, "val": 9, "test": 9}}
  assert folders(dataset) == ["segmenter"]
  for split in ("train", "val", "test", "train+val", "test+train"):
    own, annotated = dataset.source(split), dataset.source(split, "segmenter")
    assert len(annotated) == len(own)
    for index in range(len(own)):
      one, two = own[index], annotated[index]
      assert one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one if key != "person_mask")
      np.testing.assert_array_equal(images.decode_mask(two["person_mask"]), mask_of(int(two["id"])))
  assert annotated[-1]["id"] == 17 and annotated[-1]["person_mask"] == annotated[26]["person_mask"]
  with pytest.raises(IndexError):
    annotated[27]


def test_data_without_masks_gain_them(pa100k_source, tmp_path):
  prepare("pa100k", source=pa100k_source().folder, data_dir=tmp_path / "data", size=64, progress=False, allow_deviations=True)
  dataset = registry.open_dataset("pa100k", tmp_path / "data")
  annotations.write(dataset.path, "a", masks_of(dataset), counts=counts_of(dataset), info={})
  assert "person_mask" not in dataset.source("val")[2]
  np.testing.assert_array_equal(images.decode_mask(dataset.source("val", "a")[2]["person_mask"]), mask_of(8))


def test_sources_pickle_and_are_safe_to_share(dataset):
  annotations.write(dataset.path, "a", masks_of(dataset), counts=counts_of(dataset), info={})
  source = dataset.source("train+val+test", "a")
  with futures.ThreadPoolExecutor(8) as executor:
    for index, sample in zip(list(range(36)) * 10, executor.map(source.__getitem__, list(range(36)) * 10)):
      assert sample["id"] == index
      np.testing.assert_array_equal(images.decode_mask(sample["person_mask"]), mask_of(index))
  assert pickle.loads(pickle.dumps(source))[30]["person_mask"] == source[30]["person_mask"]


def test_annotations_live_side_by_side_and_go_with_their_records(dataset, tmp_path):
  for name, value in (("a", 10), ("b-2.x", 20)):
    masks = {split: [np.full((3, 3), value, np.uint8)] * count for split, count in dataset.info.splits.items()}
    annotations.write(dataset.path, name, masks, counts=dataset.info.splits, info={})
  assert [images.decode_mask(dataset.source("val", name)[0]["person_mask"])[0, 0] for name in ("a", "b-2.x")] == [10, 20]
  with pytest.raises(InputError, match="annotations/a: exists already; --overwrite replaces it"):
    annotations.write(dataset.path, "a", masks_of(dataset), counts=counts_of(dataset), info={})
  annotations.write(dataset.path, "a", masks_of(dataset), counts=counts_of(dataset), info={}, overwrite=True)
  np.testing.assert_array_equal(images.decode_mask(dataset.source("val", "a")[0]["person_mask"]), mask_of(18))
  assert folders(dataset) == ["a", "b-2.x"]
  assert len(tfds.builder_from_directory(dataset.path).as_data_source("train")) == 18  # theirs is not disturbed
  prepare("wider_attribute", source=tmp_path / "wider", data_dir=tmp_path / "data", size=64, progress=False, overwrite=True)
  with pytest.raises(InputError, match="no such annotation"):
    dataset.source("val", "a")


# Nothing half-written is taken for whole.


def broken(masks, after):
  yield from (next(masks) for _ in range(after))
  raise RuntimeError("the accelerator is gone")


@pytest.mark.parametrize("change, error, message", [
    (lambda masks: masks["val"].__next__(), ValueError, "person_mask-val.array_record: 8 masks for 9 records"),
    (lambda masks: masks.update(val=[mask_of(0)] * 10), ValueError, "person_mask-val.array_record: more than 9 masks"),
    (lambda masks: masks.update(val=[mask_of(0).astype(np.float32)] * 9), ValueError, r"mask 0 is float32 \[5, 7\], expected uint8"),
    (lambda masks: masks.update(val=[np.zeros((3, 3, 1), np.uint8)] * 9), ValueError, r"mask 0 is uint8 \[3, 3, 1\]"),
    (lambda masks: masks.update(val=[np.zeros((0, 3), np.uint8)] * 9), ValueError, r"mask 0 is uint8 \[0, 3\]"),
    (lambda masks: masks.pop("val"), ValueError, "masks of train, test, counts of train, val, test"),
    (lambda masks: masks.update(test=broken(masks["test"], 5)), RuntimeError, "the accelerator is gone"),
])
def test_a_writer_that_fails_leaves_nothing(dataset, change, error, message):
  masks = masks_of(dataset)
  change(masks)
  with pytest.raises(error, match=message):
    annotations.write(dataset.path, "a", masks, counts=counts_of(dataset), info={})
  assert not (dataset.path / "annotations").exists() or folders(dataset) == []


def test_a_failure_keeps_what_was_there(dataset):
  annotations.write(dataset.path, "a", masks_of(dataset), counts=counts_of(dataset), info={"step": 1})
  masks = masks_of(dataset)
  with pytest.raises(RuntimeError):
    annotations.write(dataset.path, "a", masks | {"val": broken(masks["val"], 3)}, counts=counts_of(dataset), info={}, overwrite=True)
  assert len(dataset.source("train+val", "a")) == 27
  assert json.loads((dataset.path / "annotations" / "a" / "info.json").read_text())["step"] == 1


_KILLED = """
import os, pathlib, signal, sys
import numpy as np
from attr_jax.data import annotations
def masks():
  yield np.zeros((4, 4), np.uint8)
  os.kill(os.getpid(), signal.SIGKILL)
annotations.write(pathlib.Path(sys.argv[1]), "a", {"train": masks()}, counts={"train": 18}, info={})
"""


def test_a_killed_writer_leaves_nothing_that_is_taken_for_whole(dataset):
  process = subprocess.run([sys.executable, "-c", _KILLED, str(dataset.path)])
  assert process.returncode == -9
  assert folders(dataset) == [".incomplete-a"]
  with pytest.raises(InputError, match=r"annotations/a: no such annotation \(there: none\)"):
    dataset.source("train", "a")
  with pytest.raises(InputError, match="annotation: expected a name of letters"):
    dataset.source("train", ".incomplete-a")
  annotations.write(dataset.path, "a", masks_of(dataset), counts=counts_of(dataset), info={})
  assert folders(dataset) == ["a"]


def test_two_writers_of_one_name(dataset):
  def masks():
    with pytest.raises(InputError, match="another process is writing annotation a"):
      annotations.write(dataset.path, "a", masks_of(dataset), counts=counts_of(dataset), info={})
    yield from masks_of(dataset)["train"]
  annotations.write(dataset.path, "a", masks_of(dataset) | {"train": masks()}, counts=counts_of(dataset), info={})
  assert len(dataset.source("train+val+test", "a")) == 36


# What cannot be read.


def test_annotations_that_are_missing_or_do_not_fit(dataset):
  command = "attr-jax annotate --workdir=RUN --dataset=wider_attribute --name=b"
  with pytest.raises(InputError, match=rf"annotations/b: no such annotation \(there: none\); make it with: {command}$"):
    dataset.source("train", "b")
  part = counts_of(dataset, ["train"])
  annotations.write(dataset.path, "part", masks_of(dataset, ["train"]), counts=part, info={})
  annotations.write(dataset.path, "few", {"val": [mask_of(0)] * 4}, counts={"val": 4}, info={})
  with pytest.raises(InputError, match=r"no such annotation \(there: few, part\)"):
    dataset.source("train", "b")
  assert len(dataset.source("train", "part")) == 18
  with pytest.raises(InputError, match="person_mask-val.array_record: missing, the annotation has no masks of split 'val'; make it again"):
    dataset.source("train+val", "part")
  with pytest.raises(InputError, match="person_mask-val.array_record: 4 masks for the 9 records of split 'val'; make it again with: attr"):
    dataset.source("val", "few")
  for name in ("../part", "a/b", "..", ".hidden", "a b", "a\n"):
    with pytest.raises(InputError, match="annotation: expected a name of letters"):
      dataset.source("train", name)
    with pytest.raises(InputError, match="annotation: expected a name of letters"):
      annotations.write(dataset.path, name, {}, counts={}, info={})


# Masks of another size follow their images.


def disc(height, width, row, column, radius):
  """A disc in an image whose sides are 1; `row`, `column` and `radius` in shares of the height or width."""
  y, x = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width) + 0.5) / width
  return 255 * (((y - row) / radius)**2 + ((x - column) / radius)**2 < 1).astype(np.uint8)


@pytest.fixture
def discs(pa100k_source, tmp_path):
  """Images that show a bright disc, all stored at 64x32, and masks of it in other sizes."""
  source = pa100k_source(count=6)
  rng = np.random.default_rng(1)
  masks = []
  for number in range(1, 19):
    place = *rng.uniform(0.3, 0.7, 2), 0.25
    height, width = (64, 32) if number % 2 else (96, 48)
    image = np.repeat(disc(height, width, *place)[..., None], 3, axis=2)
    (source.folder / "data" / f"{number:06d}.jpg").write_bytes(images.encode_jpeg(image, quality=95))
    shape = [(56, 56), (64, 32), (128, 96), (32, 64)][number % 4]
    masks.append(cv2.GaussianBlur(disc(*shape, *place), (3, 3), 0))
  prepare("pa100k", source=source.folder, data_dir=tmp_path / "data", size=(64, 32), progress=False, allow_deviations=True)
  dataset = registry.open_dataset("pa100k", tmp_path / "data")
  iterator = iter(masks)
  annotations.write(dataset.path, "discs", {split: [next(iterator) for _ in range(6)] for split in ("train", "val", "test")},
                    counts=dataset.info.splits, info={})
  return dataset


def assert_aligned(batch, size, at_least):
  """The mask has the size of the image and covers its bright pixels and no others."""
  assert batch["image"].shape[-3:-1] == size and batch["person_mask"].shape == batch["image"].shape[:-1]
  bright, mask = batch["image"][..., 1] > 127, batch["person_mask"] > 127
  assert mask.any()
  assert (bright & mask).sum() / (bright | mask).sum() > at_least


@pytest.mark.parametrize("crop, resize, size", [
    ("five_position", (64, 32), (56, 28)), ("five_position", (48, 48), (40, 40)), ("random_square", (64, 64), (56, 56)),
    ("none", (64, 32), (64, 32)), ("none", (64, 32), (40, 56))])
def test_training_batches(discs, crop, resize, size):
  spec = pipeline.InputSpec(resize=resize, size=size, crop=crop)
  batches = pipeline.train_dataset(discs.source("train+val+test", "discs"), spec, batch_size=18, seed=3)
  for step in range(10):
    assert_aligned(batches[step], size, 0.9)


@pytest.mark.parametrize("views, resize, expected", [
    ("full", (64, 32), (64, 32)), ("full", (48, 48), (48, 48)), ("five_crop", (64, 32), (56, 28)), ("five_crop", (72, 40), (56, 28))])
def test_evaluation_batches(discs, views, resize, expected):
  spec = pipeline.InputSpec(resize=resize, size=(56, 28))
  batch = pipeline.eval_dataset(discs.source("train+val+test", "discs"), spec, views=views, batch_size=18)[0]
  assert batch["id"].tolist() == list(range(18))
  assert_aligned(batch, expected, 0.9)


def test_masks_of_other_samples_would_be_noticed(discs):
  batch = pipeline.eval_dataset(discs.source("train", "discs"), pipeline.InputSpec(resize=(64, 32), size=(56, 28)), batch_size=6)[0]
  with pytest.raises(AssertionError):
    assert_aligned(batch | {"person_mask": np.roll(batch["person_mask"], 1, axis=0)}, (64, 32), 0.9)
