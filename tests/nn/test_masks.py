"""Masks against slow loops and OpenCV."""

import cv2
import jax.numpy as jnp
import numpy as np

from attr_jax import metrics
from attr_jax.nn import masks


def test_overlap_counts_pixels_of_the_fine_mask():
  rng = np.random.default_rng(0)
  probability = rng.random((3, 7, 5)).astype(np.float32)
  true = (255 * (rng.random((3, 28, 25)) > 0.4)).astype(np.uint8)
  true[2] = 0
  intersection, union = masks.mask_overlap(jnp.asarray(probability), jnp.asarray(true))
  for i in range(3):
    predicted = cv2.resize(probability[i], (25, 28), interpolation=cv2.INTER_LINEAR) >= 0.5
    both = either = 0
    for y in range(28):
      for x in range(25):
        both += bool(predicted[y, x]) and true[i, y, x] >= 128
        either += bool(predicted[y, x]) or true[i, y, x] >= 128
    assert (int(intersection[i]), int(union[i])) == (both, either)
  figures = metrics.overlap_metrics(intersection, union)
  pooled, _ = metrics.intersection_over_union(
      np.stack([cv2.resize(p, (25, 28), interpolation=cv2.INTER_LINEAR) >= 0.5 for p in probability]), true >= 128)
  assert figures["mask_IoU"] == pooled[0]
  np.testing.assert_allclose(figures["mask_IoU_per_image"], np.mean(np.asarray(intersection) / np.asarray(union)))


def test_images_where_both_masks_are_empty_are_left_out():
  assert metrics.overlap_metrics([3, 0], [4, 0]) == {"mask_IoU": 0.75, "mask_IoU_per_image": 0.75}
  assert np.isnan(metrics.overlap_metrics([0], [0])["mask_IoU"])


def test_region_confusion_counts_known_pixels():
  rng = np.random.default_rng(1)
  probability = rng.random((2, 9, 8, 4)).astype(np.float32)
  true = rng.integers(0, 4, (2, 9, 8)).astype(np.uint8)
  true[:, :2] = 255  # unknown
  found = np.asarray(masks.region_confusion(jnp.asarray(probability), jnp.asarray(true)))
  expected = np.zeros((2, 4, 4), int)
  for n, y, x in np.ndindex(true.shape):
    if true[n, y, x] < 4:
      expected[n, true[n, y, x], probability[n, y, x].argmax()] += 1
  np.testing.assert_array_equal(found, expected)
  assert found.sum() == 2 * 7 * 8


def test_region_metrics_are_the_pooled_intersection_over_union():
  rng = np.random.default_rng(2)
  predicted, true = rng.integers(0, 3, (2, 6, 5, 5))
  confusion = np.stack([[[((t == i) & (p == j)).sum() for j in range(4)] for i in range(4)] for p, t in zip(predicted, true)])
  figures = metrics.region_metrics(confusion, ("a", "b", "c", "never"))
  iou, mean = metrics.intersection_over_union(predicted, true, num_classes=4)
  np.testing.assert_allclose([figures[f"region_IoU/{name}"] for name in ("a", "b", "c", "never")], iou)
  assert np.isnan(figures["region_IoU/never"]) and figures["region_mIoU"] == mean
