import dataclasses

import cv2
import numpy as np
import pytest

from attr_jax.data import annotations
from attr_jax.data import images
from attr_jax.data import ops
from attr_jax.data import pipeline
from attr_jax.errors import InputError

SPEC = pipeline.InputSpec(resize=(32, 32), size=(28, 28))


class Memory:
  """`count` raw samples with a mask each; the JPEGs differ in size."""

  def __init__(self, count):
    rng = np.random.default_rng(5)
    self.samples = []
    self.threads = set()
    for number in range(count):
      coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
      image = cv2.resize(coarse, (30 + number % 3, 50), interpolation=cv2.INTER_CUBIC)
      self.samples.append({
          "image": images.encode_jpeg(image),
          "label": rng.integers(0, 2, 5).astype(np.uint8),
          "known": rng.integers(0, 2, 5).astype(bool),
          "id": np.int64(100 + number),
          "person_mask": images.encode_png(image[..., 0].copy()),
      })

  def __len__(self):
    return len(self.samples)

  def __getitem__(self, index):
    self.threads.add(cv2.getNumThreads())
    return self.samples[index]


def assert_same(one, two):
  assert set(one) == set(two)
  for key in one:
    np.testing.assert_array_equal(one[key], two[key])


def join(parts):
  return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize("crop", ["five_position", "random_square", "none"])  # six_view: test_six_views.py
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_side_by_side_give_the_global_batch(hosts, crop):
  source = Memory(22)  # three batches of 8 reach into the second epoch
  spec = pipeline.InputSpec(resize=(32, 32), size=(28, 28), crop=crop)
  whole = pipeline.train_dataset(source, spec, batch_size=8, seed=3)
  parts = [pipeline.train_dataset(source, spec, batch_size=8, seed=3, process_index=host, process_count=hosts) for host in range(hosts)]
  for step in range(9):
    assert_same(whole[step], join([part[step] for part in parts]))


def test_batches_hold_what_the_contract_says():
  batch = pipeline.train_dataset(Memory(10), SPEC, batch_size=4, seed=0)[0]
  shapes = {key: (value.shape, value.dtype) for key, value in batch.items()}
  assert shapes == {
      "image": ((4, 28, 28, 3), np.uint8), "person_mask": ((4, 28, 28), np.uint8), "label": ((4, 5), np.uint8), "known": ((4, 5), np.bool_),
      "id": ((4,), np.int64)}


class Parts(Memory):
  """Samples of another data set: regions, and no labels."""

  def __init__(self, count):
    super().__init__(count)
    for sample in self.samples:
      sample["region_mask"] = images.encode_png(images.decode_mask(sample.pop("person_mask")) // 40)
      sample |= {"label": np.zeros(0, np.uint8), "known": np.zeros(0, bool), "id": sample["id"] + 900}


@pytest.mark.parametrize("hosts", [1, 2])
def test_two_data_sets_alternate_in_a_batch(hosts):
  options = dict(batch_size=4, seed=3, second=Parts(7))
  whole = pipeline.train_dataset(Memory(9), SPEC, **options)
  parts = [pipeline.train_dataset(Memory(9), SPEC, **options, process_index=host, process_count=hosts) for host in range(hosts)]
  seen = [[], []]
  for step in range(6):
    batch = whole[step]
    assert_same(batch, join([part[step] for part in parts]))
    assert set(batch) == {"image", "id", "label", "known", "region_mask"} and len(batch["id"]) == 8
    for turn, ids in enumerate(seen):
      ids.extend(batch["id"][turn::2])
    assert not batch["known"][1::2].any() and batch["known"][::2].any() and batch["label"].shape == (8, 5)
    assert (batch["region_mask"][::2] == 255).all() and (batch["region_mask"][1::2] < 7).all()
  # Each goes through its own epochs, in the order that it would have alone.
  np.testing.assert_array_equal(seen[0], np.concatenate([pipeline.train_dataset(Memory(9), SPEC, batch_size=4, seed=3)[i]["id"] for i in range(6)]))
  assert sorted(seen[1][:7]) == list(range(1000, 1007))


def test_regions_of_an_annotation_are_mirrored_with_their_image():
  source = Memory(3)
  maps = [np.random.default_rng(i).integers(0, 256, (3, 5, 7)).astype(np.uint8) for i in range(3)]
  for sample, regions in zip(source.samples, maps):
    sample["regions"] = annotations.encode(regions)
  spec = dataclasses.replace(SPEC, crop="none")
  plain = pipeline.eval_dataset(source, dataclasses.replace(spec, full_size=(28, 28)), batch_size=3)[0]
  np.testing.assert_array_equal(plain["regions"], maps)
  flips = 0
  for step in range(8):
    batch = pipeline.train_dataset(source, spec, batch_size=3, seed=1)[step]
    for image, number, regions in zip(batch["image"], batch["id"] - 100, batch["regions"]):
      mirrored = np.array_equal(image, plain["image"][number][:, ::-1])
      assert mirrored or np.array_equal(image, plain["image"][number])
      np.testing.assert_array_equal(regions, maps[number][:, ::-1] if mirrored else maps[number])
      flips += mirrored
  assert 0 < flips < 24
  with pytest.raises(InputError, match="crop='none'"):
    pipeline.train_dataset(source, SPEC, batch_size=3, seed=1)[0]
  with pytest.raises(InputError, match="five_crop"):
    pipeline.eval_dataset(source, spec, views="five_crop", batch_size=3)[0]


def test_masks_can_be_left_out():
  with_masks = pipeline.train_dataset(Memory(10), SPEC, batch_size=4, seed=0)[0]
  without = pipeline.train_dataset(Memory(10), dataclasses.replace(SPEC, masks=False), batch_size=4, seed=0)[0]
  assert_same(without, {key: value for key, value in with_masks.items() if key != "person_mask"})


def test_epochs_are_complete_and_differ():
  dataset = pipeline.train_dataset(Memory(10), SPEC, batch_size=4, seed=1)
  ids = np.concatenate([dataset[step]["id"] for step in range(10)]).reshape(4, 10)
  assert (np.sort(ids) == np.arange(100, 110)).all()
  assert len({tuple(epoch) for epoch in ids}) == 4
  assert pipeline.steps_per_epoch(10, 4) == 2.5


def test_a_batch_may_be_larger_than_the_data():
  batch = pipeline.train_dataset(Memory(3), SPEC, batch_size=8, seed=1)[5]
  assert batch["image"].shape[0] == 8


def test_seeds_change_order_and_augmentation():
  one, two = (pipeline.train_dataset(Memory(10), SPEC, batch_size=10, seed=seed)[0] for seed in (0, 1))
  assert one["id"].tolist() != two["id"].tolist()
  first, second = (pipeline.train_dataset(Memory(1), SPEC, batch_size=16, seed=seed)[0]["image"] for seed in (0, 1))
  assert (first != second).any()
  assert len({image.tobytes() for image in first}) > 8  # every visit of a sample draws anew


@pytest.mark.parametrize("threads", [0, 2, 5])
def test_any_start_and_any_number_of_threads_give_the_same_batches(threads):
  dataset = pipeline.train_dataset(Memory(10), SPEC, batch_size=4, seed=2)
  for start in (0, 3, 11):
    iterator = pipeline.train_iterator(dataset, start, threads)
    for step in range(start, start + 4):
      assert_same(next(iterator), dataset[step])
    iterator.close()


def test_opencv_stays_single_in_worker_threads():
  source = Memory(10)
  next(pipeline.train_iterator(pipeline.train_dataset(source, SPEC, batch_size=4, seed=2), 0, 2))
  assert source.threads == {1}


def test_training_masks_follow_their_images():
  source = Memory(10)
  for sample in source.samples:  # JPEG is lossy: take the mask from what comes out of it
    sample["person_mask"] = images.encode_png(images.decode_jpeg(sample["image"])[..., 2].copy())
  for step in range(5):
    batch = pipeline.train_dataset(source, SPEC, batch_size=8, seed=4)[step]
    np.testing.assert_array_equal(batch["person_mask"], batch["image"][..., 2])


def test_no_crop_and_no_flip_is_a_plain_resize():
  spec = pipeline.InputSpec(resize=[32, 32], size=[24, 20], crop="none", crop_sizes=(256, 128), flip=False)
  source = Memory(4)
  batch = pipeline.train_dataset(source, spec, batch_size=4, seed=0)[0]
  for image, number in zip(batch["image"], batch["id"] - 100):
    expected = cv2.resize(images.decode_jpeg(source.samples[number]["image"]), (20, 24), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("crop", ["five_position", "none"])
def test_decoding_at_a_smaller_scale_moves_nothing(crop):
  """A white disc in a large photo, its mask and a landmark in its centre: all at the same place either way."""
  mask = cv2.circle(np.zeros((300, 400), np.uint8), (280, 90), 40, 255, cv2.FILLED)
  raw = {"image": images.encode_jpeg(np.repeat(mask[..., None], 3, axis=2)), "person_mask": images.encode_png(mask), "id": np.int64(0),
         "landmarks": np.tile(np.float32([280, 90]), (5, 1)), "label": np.zeros(2, np.uint8), "known": np.ones(2, bool)}
  spec = pipeline.InputSpec(resize=(64, 64), size=(56, 56), crop=crop)
  for seed in range(6):
    small, whole = (pipeline.augment(raw, np.random.default_rng(seed), spec=dataclasses.replace(spec, scaled_decode=scaled))
                    for scaled in (True, False))
    np.testing.assert_array_equal(small["person_mask"], whole["person_mask"])
    np.testing.assert_allclose(small["landmarks"], whole["landmarks"], atol=0.01)
    assert np.abs(small["image"][..., 0].astype(float) - small["person_mask"]).mean() < 3
  views = [pipeline.evaluation_view(raw, spec=dataclasses.replace(spec, scaled_decode=scaled), views="full") for scaled in (True, False)]
  assert 0 < np.abs(views[0]["image"].astype(float) - views[1]["image"]).mean() < 3


@pytest.mark.parametrize("views", ["full", "five_crop"])
@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 8, 21])
def test_evaluation_covers_every_sample_once(count, hosts, views):
  source = Memory(count)
  parts = [
      pipeline.eval_dataset(source, SPEC, views=views, batch_size=8, process_index=host, process_count=hosts) for host in range(hosts)]
  assert {len(part) for part in parts} == {-(-count // 8)}
  batches = [join([part[step] for part in parts]) for step in range(len(parts[0]))]
  every = join(batches)
  assert every["valid"].sum() == count
  assert every["id"][every["valid"]].tolist() == list(range(100, 100 + count))  # side by side in source order
  assert (every["id"][~every["valid"]] == -1).all() and not every["known"][~every["valid"]].any()
  assert every["image"].shape[1:] == ((32, 32, 3) if views == "full" else (5, 28, 28, 3))
  assert every["person_mask"].shape == every["image"].shape[:-1]


def test_evaluation_views_are_those_of_ops():
  source = Memory(3)
  sample = pipeline.decode_sample(source[1])
  full = pipeline.eval_dataset(source, pipeline.InputSpec(resize=(32, 32), size=(28, 28), full_size=(28, 28)), batch_size=3)[0]
  np.testing.assert_array_equal(full["image"][1], ops.resize(sample, (28, 28))["image"])
  five = pipeline.eval_dataset(source, SPEC, views="five_crop", batch_size=3)[0]
  np.testing.assert_array_equal(five["image"][1], ops.five_crop(ops.resize(sample, (32, 32)), (28, 28))["image"])


def test_evaluation_iterator_reads_everything_in_order():
  dataset = pipeline.eval_dataset(Memory(21), SPEC, batch_size=4)
  batches = list(pipeline.eval_iterator(dataset))
  assert len(batches) == 6
  for step, batch in enumerate(batches):
    assert_same(batch, dataset[step])


def test_wrong_calls():
  source = Memory(4)
  with pytest.raises(InputError, match="batch_size: 9 does not divide by the number of processes, 2"):
    pipeline.train_dataset(source, SPEC, batch_size=9, seed=0, process_count=2)
  with pytest.raises(InputError, match="batch_size: 9"):
    pipeline.eval_dataset(source, SPEC, batch_size=9, process_count=2)
  with pytest.raises(InputError, match="process_index"):
    pipeline.train_dataset(source, SPEC, batch_size=8, seed=0, process_index=2, process_count=2)
  with pytest.raises(InputError, match="views: expected one of full, five_crop, ten_crop, six_view, got 'nine_crop'"):
    pipeline.eval_dataset(source, SPEC, views="nine_crop", batch_size=8)
  with pytest.raises(InputError, match="no samples"):
    pipeline.train_dataset([], SPEC, batch_size=8, seed=0)
  with pytest.raises(InputError, match="crop: expected one of"):
    pipeline.InputSpec(crop="ten_position")
  with pytest.raises(InputError, match="crop_sizes: expected sizes in 1..32"):
    pipeline.InputSpec(resize=(32, 32), crop_sizes=(64,))
  with pytest.raises(InputError, match="smallest and the largest"):
    pipeline.InputSpec(resize=(32, 32), crop="random_square", crop_sizes=(16, 24, 32))


def test_pedestrians_keep_their_ratio():
  spec = pipeline.InputSpec(resize=(64, 32), size=(56, 28), keep_ratio=True)
  batch = pipeline.train_dataset(Memory(4), spec, batch_size=4, seed=0)[0]
  assert batch["image"].shape == (4, 56, 28, 3)
  five = pipeline.eval_dataset(Memory(4), spec, views="five_crop", batch_size=4)[0]
  assert five["image"].shape == (4, 5, 56, 28, 3)
