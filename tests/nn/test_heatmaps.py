"""The equivariance error against slow loops, and what it must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.nn import heatmaps

LABELS = 4


def make_maps(seed=0, count=3, size=(5, 4)):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(count, *size, LABELS)).astype(np.float32)


def slow_error(a, b):
  """Two lists of maps [h, w, L] in one frame and of one size, in float64, cell by cell."""
  errors = []
  for label in range(LABELS):
    apart = spread = 0.0
    for x, y in zip(a, b):
      x, y = x[..., label].astype(np.float64), y[..., label].astype(np.float64)
      for i in range(x.shape[0]):
        for j in range(x.shape[1]):
          apart += (x[i, j] - y[i, j]) ** 2
          spread += (x[i, j] - x.mean()) ** 2 + (y[i, j] - y.mean()) ** 2
    errors.append(apart / spread)
  return errors


def error(sums):
  numerator, denominator = sums
  assert numerator.shape == denominator.shape == (LABELS,)
  assert numerator.dtype == denominator.dtype == jnp.float32
  return numerator / denominator


def test_flip_error_equals_a_slow_loop():
  a, b = make_maps(0), make_maps(1)
  np.testing.assert_allclose(error(heatmaps.flip_error_sums(a, b)), slow_error(a, b[:, :, ::-1]), rtol=1e-5)


@pytest.mark.parametrize("large, small", [((7, 7), (6, 6)), ((7, 4), (6, 3)), ((4, 4), (4, 4)), ((6, 5), (3, 5))])
def test_scale_error_equals_a_slow_loop_on_the_common_grid(large, small):
  a, b = make_maps(0, size=large), make_maps(1, size=small)
  common = np.lcm(large, small)
  enlarge = lambda x: x.repeat(common[0] // x.shape[1], axis=1).repeat(common[1] // x.shape[2], axis=2)
  np.testing.assert_allclose(error(heatmaps.scale_error_sums(a, b)), slow_error(enlarge(a), enlarge(b)), rtol=1e-5)


def test_0_is_equivariant_and_1_unrelated():
  a = make_maps(0, count=50, size=(6, 6))
  np.testing.assert_array_equal(error(heatmaps.flip_error_sums(a, a[:, :, ::-1])), np.zeros(LABELS))
  np.testing.assert_array_equal(
      error(heatmaps.scale_error_sums(a.repeat(2, axis=1).repeat(2, axis=2), a)), np.zeros(LABELS))
  # Independent maps; their denominator has the mean of each map taken out, a share of 1 / 36.
  for sums in (heatmaps.flip_error_sums(a, make_maps(1, count=50, size=(6, 6))),
               heatmaps.scale_error_sums(a, make_maps(1, count=50, size=(5, 5)))):
    np.testing.assert_allclose(error(sums), np.full(LABELS, 36 / 35), rtol=0.1)


@pytest.mark.parametrize("sums", [heatmaps.flip_error_sums, heatmaps.scale_error_sums])
def test_shrinking_or_raising_all_maps_changes_nothing(sums):
  a = make_maps(0)
  b = a[:, :, ::-1] + make_maps(1) / 3
  plain = error(sums(a, b))
  np.testing.assert_allclose(error(sums(a / 100, b / 100)), plain, rtol=1e-5)
  np.testing.assert_allclose(error(sums(a + 3, b + 3)), plain, rtol=1e-4)


@pytest.mark.parametrize("sums", [heatmaps.flip_error_sums, heatmaps.scale_error_sums])
def test_sums_add_up_over_batches_and_leave_padding_out(sums):
  a, b = make_maps(0, count=6), make_maps(1, count=6)
  whole = sums(a, b)
  a, valid = a.copy(), jnp.array([True, True, False])  # jax may still be reading the old one
  a[5] = np.nan
  parts = [sums(a[:4], b[:4]), jax.jit(sums)(np.concatenate([a[4:5], make_maps(0, count=6)[5:], a[5:]]),
                                             np.concatenate([b[4:], b[5:]]), valid)]
  for i in range(2):
    np.testing.assert_allclose(parts[0][i] + parts[1][i], whole[i], rtol=1e-5)


def test_what_lies_on_the_person_equals_a_slow_loop():
  rng = np.random.default_rng(0)
  maps, shown = make_maps(0, count=5, size=(4, 3)), rng.random((5, LABELS)) < 0.6
  maps[2, :, :, 0] = -1.0  # nothing speaks for this label
  shown[2, 0] = shown[3, 0] = True
  mask = (255 * (rng.random((5, 8, 6)) < 0.4)).astype(np.uint8)
  share, count = np.zeros(LABELS), np.zeros(LABELS)
  for n in range(5):
    for label in range(LABELS):
      inside = whole = 0.0
      for i in range(8):
        for j in range(6):
          value = max(0.0, maps[n, i // 2, j // 2, label])
          whole += value
          inside += value * (mask[n, i, j] > 0)
      if shown[n, label] and whole > 0:
        share[label], count[label] = share[label] + inside / whole, count[label] + 1
  found = heatmaps.inside_sums(jnp.asarray(maps), jnp.asarray(mask), jnp.asarray(shown))
  np.testing.assert_allclose(found[0], share, rtol=1e-5)
  np.testing.assert_array_equal(found[1], count)
  assert count[0] < shown[:, 0].sum()
