import gc
import subprocess
import sys
import threading
import time

import cv2
import grain
import jax
import numpy as np
import pytest

from attr_jax import sharding
from attr_jax.data import images
from attr_jax.data import loader
from attr_jax.data import ops
from attr_jax.data import pipeline

import helpers

SPEC = pipeline.InputSpec(resize=(64, 48), size=(56, 40))


class Photos:
  """Raw samples with masks, and a count of how often one was read."""

  def __init__(self, count, broken=()):
    rng = np.random.default_rng(3)
    self.samples, self.broken, self.reads = [], broken, 0
    for number in range(count):
      image = cv2.resize(rng.integers(0, 256, (6, 5, 3)).astype(np.uint8), (48 + number % 2, 64), interpolation=cv2.INTER_CUBIC)
      self.samples.append({
          "image": images.encode_jpeg(image),
          "label": rng.integers(0, 2, 4).astype(np.uint8),
          "known": rng.integers(0, 2, 4).astype(bool),
          "id": np.int64(number),
          "region_mask": images.encode_png(image[..., 0] // 40),
          "landmarks": rng.uniform(0, 40, (5, 2)).astype(np.float32),
      })

  def __len__(self):
    return len(self.samples)

  def __getitem__(self, index):
    self.reads += 1
    if index in self.broken:
      raise OSError(f"record {index}")
    return self.samples[index]


def assert_same(one, two):
  assert set(one) == set(two)
  for key in one:
    assert one[key].dtype == two[key].dtype
    np.testing.assert_array_equal(one[key], two[key])


def copied(batch):
  return {key: value.copy() for key, value in batch.items()}


def plainly_augmented(raw, rng, spec):
  """Whole steps on whole samples, each into new arrays."""
  sample = ops.resize(pipeline.decode_sample(raw), spec.resize)
  if spec.crop == "five_position":
    sample = helpers.five_position_crop(sample, ops.crop_shapes(spec.resize, spec.heights), spec.size, rng)
  elif spec.crop == "random_square":
    sample = helpers.random_square_crop(sample, (40, 48), spec.size, rng)
  else:
    sample = ops.resize(pipeline.decode_sample(raw), spec.size)
  return ops.random_flip(sample, rng)


def plain_batches(source, spec, batch_size, seed):
  """grain's own batches."""
  samples = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
  return samples.random_map(lambda raw, rng: plainly_augmented(raw, rng, spec)).batch(batch_size)


@pytest.mark.parametrize("crop", ["five_position", "random_square", "none"])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_are_those_of_plain_grain(crop, threads):
  source = Photos(11)
  spec = pipeline.InputSpec(resize=(64, 48), size=(56, 40), crop=crop, crop_sizes=(48, 40))
  expected = plain_batches(source, spec, 6, seed=5)
  batches = pipeline.train_iterator(pipeline.train_dataset(source, spec, batch_size=6, seed=5), 2, threads)
  for step in range(2, 9):
    assert_same(next(batches), expected[step])
  batches.close()


@pytest.mark.parametrize("threads", [0, 4])
@pytest.mark.parametrize("views", ["full", "five_crop"])
def test_padded_evaluation_is_read_as_it_is_drawn(views, threads):
  dataset = pipeline.eval_dataset(Photos(7), SPEC, views=views, batch_size=4, process_index=1, process_count=2)
  batches = list(pipeline.eval_iterator(dataset, threads))
  assert len(batches) == 2 and [batch["id"].tolist() for batch in batches] == [[2, 3], [6, -1]]
  for step, batch in enumerate(batches):
    assert_same(batch, dataset[step])
  assert len(list(pipeline.eval_iterator(dataset, threads, max_batches=1))) == 1


def big_batches(size=64, **options):
  """Batches whose images are in memory that is used again."""
  spec = pipeline.InputSpec(resize=(64, 64), size=(64, 64))
  dataset = pipeline.train_dataset(Photos(9, **options), spec, batch_size=size, seed=1)
  assert size * 64 * 64 * 3 >= loader._LEAST_REUSED_BYTES
  return dataset


def test_what_a_caller_keeps_stays_and_what_it_drops_is_used_again():
  dataset = big_batches(8)
  batches, addresses = loader.read(dataset, num_threads=2), []
  kept, view = next(batches), next(batches)["image"][3, :, ::-1]  # a view keeps the whole batch
  expected = copied(kept), view.copy()
  for step in range(2, 14):
    batch = next(batches)
    assert batch["image"].ctypes.data % 64 == 0 and batch["image"].flags.writeable
    addresses.append(batch["image"].ctypes.data)
    if step % 4 == 0:
      assert_same(batch, dataset[step])
  assert len(set(addresses)) <= 4  # two in the making, the caller's, and the one that it has just dropped
  assert not set(addresses) & {kept["image"].ctypes.data}
  assert_same(kept, expected[0])
  np.testing.assert_array_equal(view, expected[1])
  batches.close()


@pytest.mark.parametrize("devices", [1, 4])
def test_device_arrays_do_not_change_when_the_threads_go_on(devices):
  """On a CPU jax takes aligned memory as it is: were it used again too early, these arrays would show other images."""
  rows = sharding.over_batch(sharding.make_mesh(jax.devices()[:devices]))
  dataset = big_batches(8)
  batches = loader.read(dataset, num_threads=2)
  on_device = loader.read_ahead(sharding.put_batch(batch, rows) for batch in batches)
  held = [next(on_device) for _ in range(3)]
  total = [jax.jit(lambda x: x.astype(np.int32).sum())(next(on_device)["image"]) for _ in range(6)]  # gone before they are computed
  for step, batch in enumerate(held):
    expected = dataset[step]
    assert batch["image"].sharding == rows and batch["id"].dtype == np.int32
    assert_same(jax.device_get(batch), expected | {"id": expected["id"].astype(np.int32)})
  assert [int(x) for x in total] == [int(dataset[step]["image"].astype(np.int32).sum()) for step in range(3, 9)]
  on_device.close()
  batches.close()


def threads_now():
  return {thread for thread in threading.enumerate() if thread.is_alive()}


@pytest.mark.parametrize("threads", [0, 3])
def test_an_error_reaches_the_caller_in_its_turn(threads):
  before = threads_now()
  source = Photos(10, broken=(6, 7))
  dataset = pipeline.eval_dataset(source, SPEC, batch_size=2)
  batches = pipeline.eval_iterator(dataset, threads)
  assert [next(batches)["id"][0] for _ in range(3)] == [0, 2, 4]
  with pytest.raises(OSError, match="record 6"):  # the first one of the batch, whatever thread came first
    next(batches)
  assert next(batches, None) is None and threads_now() == before


def test_close_ends_the_threads_and_so_does_leaving():
  before = threads_now()
  dataset = big_batches(8)
  for consumed in (0, 1, 4):
    batches = loader.read(dataset, num_threads=3)
    on_device = loader.read_ahead(batches)
    for _ in range(consumed):
      next(on_device)
    on_device.close()
    assert threads_now() == before or consumed  # of `batches` alone
    batches.close()
    assert threads_now() == before and next(batches, None) is None
  batches = loader.read(dataset, num_threads=3)
  next(batches)
  assert len(threads_now()) == len(before) + 3
  del batches
  gc.collect()
  assert threads_now() == before


def test_an_iterator_left_open_does_not_disturb_the_end_of_the_program():
  program = """if True:
    import numpy as np
    from attr_jax.data import images, loader, pipeline
    photo = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    raw = {"image": images.encode_jpeg(photo), "label": np.zeros(2, np.uint8), "known": np.zeros(2, bool), "id": np.int64(0)}
    batches = pipeline.train_iterator(pipeline.train_dataset([raw], pipeline.InputSpec(), batch_size=16, seed=0), 0, 4)
    ahead = loader.read_ahead(batches)
    print(next(ahead)["image"].shape)
  """
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
  assert (done.returncode, done.stdout, done.stderr) == (0, "(16, 224, 224, 3)\n", "")


def test_a_start_far_away_costs_nothing():
  source = Photos(9)
  dataset = pipeline.train_dataset(source, SPEC, batch_size=4, seed=1)
  batches = pipeline.train_iterator(dataset, 10**9, num_threads=2)
  first = next(batches)
  batches.close()
  assert source.reads <= 4 + 2 * 4 + 2  # the batch, those ahead of it, and looks at what samples are like
  assert_same(first, dataset[10**9])


def test_threads_stay_so_many_batches_ahead():
  source = Photos(9)
  batches = loader.read(pipeline.train_dataset(source, SPEC, batch_size=4, seed=1), num_threads=3, ahead=2)
  next(batches)
  for step in range(1, 4):
    time.sleep(0.1)
    assert source.reads <= 4 * (step + 2) + 3
    next(batches)
  batches.close()


@pytest.mark.parametrize("change, message", [
    ({"label": np.zeros(3, np.uint8)}, r"sample \d: label is uint8 \[3\]; of the first one read it is uint8 \[4\]"),
    ({"label": np.zeros(1, np.uint8)}, r"label is uint8 \[1\]"),
    ({"known": np.zeros(4, np.uint8)}, r"known is uint8 \[4\]; .* bool \[4\]"),
    ({"more": np.zeros(4, np.uint8)}, r"sample \d has .*more"),
])
def test_samples_must_be_alike(change, message):
  source = Photos(4)
  source.samples[2] |= change
  with pytest.raises(ValueError, match=message):
    list(pipeline.eval_iterator(pipeline.eval_dataset(source, SPEC, batch_size=4), 0))


def test_reading_ahead_asks_for_no_more_than_it_should():
  asked = []

  def items():
    for number in range(6):
      asked.append(number)
      yield number
    raise KeyError("end")

  ahead = loader.read_ahead(items(), count=2)
  for number in range(4):
    assert next(ahead) == number
    time.sleep(0.05)
    assert asked == list(range(min(number + 3, 6)))
  assert list(zip(range(2), ahead)) == [(0, 4), (1, 5)]
  with pytest.raises(KeyError, match="end"):
    next(ahead)
  assert list(loader.read_ahead(iter("abc"))) == ["a", "b", "c"]


@pytest.mark.parametrize("width", [1, 7, 40, 224])
def test_results_are_left_in_given_arrays_where_they_fit(width):
  rng = np.random.default_rng(width)
  sample = {"image": rng.integers(0, 256, (90, 61, 3)).astype(np.uint8), "region_mask": rng.integers(0, 9, (90, 61)).astype(np.uint8)}
  out = {"image": np.zeros((3, 56, width, 3), np.uint8)[1], "region_mask": np.zeros((56, width), np.uint8)}
  resized = ops.resize(sample, (56, width), out)
  flipped = ops.flip(resized, out)  # in place
  plain = ops.resize(sample, (56, width))
  for key in sample:
    assert resized[key] is out[key] and flipped[key] is out[key]
    np.testing.assert_array_equal(out[key], plain[key][:, ::-1])
  other = {key: np.zeros((5, 5), np.uint8) for key in sample}
  for result in (ops.resize(sample, (56, width), other), ops.flip(plain, other)):
    assert all(result[key] is not other[key] and not other[key].any() for key in sample)
  views = {"image": np.zeros((5, 56, 40, 3), np.uint8), "region_mask": np.zeros((4, 56, 40), np.uint8)}
  five = ops.five_crop(sample, (56, 40), views)
  assert five["image"] is views["image"] and not views["region_mask"].any()
  for key, value in ops.five_crop(sample, (56, 40)).items():
    np.testing.assert_array_equal(five[key], value)
