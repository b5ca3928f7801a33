import collections

import cv2
import numpy as np
import pytest

from attr_jax.data import ops

import helpers

SRN_SIZES = (256, 224, 192, 168, 128)


def test_default_sizes_are_those_of_srn():
  assert ops.default_crop_sizes(256) == SRN_SIZES
  assert ops.default_crop_sizes(64) == (64, 56, 48, 42, 32)


def test_number_of_pairs():
  assert len(ops.crop_shapes((256, 256), SRN_SIZES)) == 25
  assert len(ops.crop_shapes((256, 256), SRN_SIZES, max_distort=1)) == 13
  assert ops.crop_shapes((256, 128), SRN_SIZES, keep_ratio=True) == ((256, 128), (224, 112), (192, 96), (168, 84), (128, 64))


@pytest.mark.parametrize("side", SRN_SIZES)
def test_five_offsets_are_corners_and_centre(side):
  gap = 256 - side
  assert ops.five_offsets((256, 256), (side, side)) == [(0, 0), (0, gap), (gap, 0), (gap, gap), (gap // 2, gap // 2)]


def test_offsets_follow_the_crop_layer_where_the_gap_is_odd():
  assert ops.five_offsets((71, 70), (64, 64))[3] == (4, 4)
  assert ops.five_offsets((71, 70), (64, 64))[4] == (2, 2)


def coordinates(height, width):
  """An image whose red and green channels hold row and column."""
  rows, columns = np.mgrid[:height, :width]
  return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def test_all_positions_and_shapes_occur_equally_often():
  sample = {"image": coordinates(256, 256)}
  rng = np.random.default_rng(0)
  shapes = ops.crop_shapes((256, 256), SRN_SIZES)
  seen = collections.Counter()
  for _ in range(3000):
    cut = helpers.five_position_crop(sample, [shape := shapes[rng.integers(25)]], shape, rng)["image"]
    assert cut.shape[:2] == shape
    seen[tuple(cut[0, 0, :2].tolist()) if shape == (128, 128) else shape] += 1
  corners = {(0, 0), (0, 128), (128, 0), (128, 128), (64, 64)}
  assert corners <= set(seen)
  assert {key for key in seen if key[0] > 128} <= set(shapes)
  assert min(count for key, count in seen.items() if key in set(shapes) - {(128, 128)}) > 70


def test_random_square_stays_inside_and_covers_its_range():
  sample = {"image": coordinates(256, 256)}
  rng = np.random.default_rng(0)
  sides = set()
  for _ in range(2000):
    cut = helpers.random_square_crop(sample, (128, 224), (224, 224), rng)["image"]
    assert cut.shape == (224, 224, 3)
    sides.add(round((int(cut[-1, 0, 0]) - int(cut[0, 0, 0]) + 1) / 4))
  assert min(sides) == 32 and max(sides) == 56


def random_sample(rng):
  image = rng.integers(0, 256, (256, 256, 3)).astype(np.uint8)
  return {
      "image": image,
      "person_mask": image[..., 1].copy(),
      "region_mask": rng.integers(0, 11, (256, 256)).astype(np.uint8),
      "landmarks": rng.uniform(20, 230, (5, 2)).astype(np.float32),
      "label": np.ones(3, np.uint8),
  }


def test_masks_follow_their_image_exactly():
  rng = np.random.default_rng(1)
  sample = random_sample(rng)
  shapes = ops.crop_shapes((256, 256), SRN_SIZES)
  for draw in range(200):
    view = ops.random_flip(helpers.five_position_crop(sample, shapes, (224, 224), np.random.default_rng(draw)), np.random.default_rng(draw))
    assert view["image"].shape == (224, 224, 3)
    np.testing.assert_array_equal(view["person_mask"], view["image"][..., 1])
    assert set(np.unique(view["region_mask"])) <= set(range(11))


def test_landmarks_follow_their_image():
  rows, columns = np.mgrid[:256, :256].astype(np.float32)
  point = np.array([100.0, 60.0], np.float32)  # x, y
  blob = 255 * np.exp(-((columns - point[0])**2 + (rows - point[1])**2) / 200)
  sample = {"image": np.repeat(blob[..., None], 3, axis=2).astype(np.uint8), "landmarks": np.tile(point, (5, 1))}
  sample["landmarks"][1] += 1  # tells left from right
  for draw in range(40):
    rng = np.random.default_rng(draw)
    view = helpers.five_position_crop(sample, ops.crop_shapes((256, 256), (256, 224, 192)), (224, 200), rng)
    flipped = ops.flip(view)
    for result, order in ((view, 0), (flipped, 1)):
      weight = np.where(result["image"][..., 0] > 100, result["image"][..., 0].astype(float), 0)
      if weight[0].any() or weight[-1].any() or weight[:, 0].any() or weight[:, -1].any():
        continue  # the blob touches the border: its centre of mass is not its centre
      grid_rows, grid_columns = np.mgrid[:224, :200]
      centre = [(weight * grid_columns).sum() / weight.sum(), (weight * grid_rows).sum() / weight.sum()]
      np.testing.assert_allclose(result["landmarks"][order], centre, atol=0.3)


def test_flip_is_an_involution_and_swaps_left_and_right():
  sample = random_sample(np.random.default_rng(2))
  once, twice = ops.flip(sample), ops.flip(ops.flip(sample))
  np.testing.assert_array_equal(once["image"], sample["image"][:, ::-1])
  np.testing.assert_allclose(once["landmarks"][0, 0], 255 - sample["landmarks"][1, 0])
  np.testing.assert_allclose(once["landmarks"][4, 1], sample["landmarks"][3, 1])
  for key, value in sample.items():
    np.testing.assert_allclose(twice[key], value, atol=1e-4)


def test_five_crop():
  constant = {"image": np.full((256, 256, 3), 77, np.uint8), "person_mask": np.full((256, 256), 9, np.uint8), "id": 5}
  views = ops.five_crop(constant, (224, 224))
  assert views["image"].shape == (5, 224, 224, 3) and (views["image"] == 77).all()
  assert views["person_mask"].shape == (5, 224, 224) and views["id"] == 5
  corners = ops.five_crop({"image": coordinates(256, 256)}, (224, 224))["image"][:, 0, 0, :2]
  assert corners.tolist() == [[0, 0], [0, 32], [32, 0], [32, 32], [16, 16]]


def test_resize_ignores_the_aspect_and_keeps_what_fits():
  sample = random_sample(np.random.default_rng(3))
  small = ops.resize(sample, (64, 32))
  assert small["image"].shape == (64, 32, 3) and small["region_mask"].shape == (64, 32)
  assert ops.resize(sample, (256, 256)) is sample


@pytest.mark.parametrize("size", [(64, 32), (48, 48)])
def test_masks_of_another_size_are_resized_to_the_image(size):
  rng = np.random.default_rng(4)
  sample = random_sample(rng) | {"image": rng.integers(0, 256, (64, 32, 3)).astype(np.uint8), "id": 5}
  result = ops.resize(sample, size)
  for key, interpolation in (("image", cv2.INTER_LINEAR), ("person_mask", cv2.INTER_LINEAR), ("region_mask", cv2.INTER_NEAREST_EXACT)):
    np.testing.assert_array_equal(result[key], cv2.resize(sample[key], size[::-1], interpolation=interpolation))
  if size == (64, 32):  # the image had it already
    assert result["image"] is sample["image"]
    np.testing.assert_allclose(result["landmarks"], sample["landmarks"], atol=1e-4)
  assert result["id"] == 5 and sample["person_mask"].shape == (256, 256)
