"""HOG against scikit-image, against slow loops, and what it must not depend on."""

import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax import sharding
from attr_jax.nn import hog as hog_lib

OPTIONS = [
    {},
    {"orientations": 9, "cell_size": (8, 8), "block_size": (2, 2)},
    {"orientations": 7, "cell_size": (5, 12), "block_size": (1, 3)},
]


# Most tests share a shape of images, and so a compiled program.
SIZE = (53, 75)
fast = jax.jit(hog_lib.hog, static_argnames=("orientations", "cell_size", "block_size"))
fast_cells = jax.jit(hog_lib.cell_histograms, static_argnames=("orientations", "cell_size"))


def noise(batch=6, size=SIZE, channels=3, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (batch, *size, channels), np.uint8)


def slow_cells(image, orientations=8, cell_size=(16, 16)):
  """One image in float64, pixel by pixel."""
  image = image.astype(np.float64)
  height, width, channels = image.shape
  grid = (height // cell_size[0], width // cell_size[1])
  cells = np.zeros((*grid, orientations))
  for y in range(grid[0] * cell_size[0]):
    for x in range(grid[1] * cell_size[1]):
      best = (-1, 0, 0)
      for c in range(channels):
        d_row = image[y + 1, x, c] - image[y - 1, x, c] if 0 < y < height - 1 else 0
        d_col = image[y, x + 1, c] - image[y, x - 1, c] if 0 < x < width - 1 else 0
        if d_row**2 + d_col**2 > best[0]:
          best = (d_row**2 + d_col**2, d_row, d_col)
      angle = math.degrees(math.atan2(best[1], best[2])) % 180
      cells[y // cell_size[0], x // cell_size[1], int(angle / (180 / orientations))] += math.sqrt(best[0])
  return cells / math.prod(cell_size)


def slow_hog(image, orientations=8, cell_size=(16, 16), block_size=(3, 3)):
  cells = slow_cells(image, orientations, cell_size)
  values = []
  for i in range(cells.shape[0] - block_size[0] + 1):
    for j in range(cells.shape[1] - block_size[1] + 1):
      block = cells[i:i + block_size[0], j:j + block_size[1]]
      block = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), 0.2)
      values += list((block / np.sqrt((block**2).sum() + 1e-10)).ravel())
  return np.array(values)


@pytest.fixture(scope="module")
def scikit():
  """scikit-image's hog of one image, with our defaults."""
  feature = pytest.importorskip("skimage.feature")

  def hog(image, orientations=8, cell_size=(16, 16), block_size=(3, 3)):
    if image.shape[-1] == 1:
      return feature.hog(image[..., 0], orientations, cell_size, block_size)
    return feature.hog(image, orientations, cell_size, block_size, channel_axis=-1)

  return hog


def channel_is_certain(image):
  """False where scikit-image's choice of a pixel's channel hangs on the last bit of the C library's hypot."""
  rows, columns = np.zeros(image.shape), np.zeros(image.shape)
  rows[1:-1] = image[2:].astype(float) - image[:-2]
  columns[:, 1:-1] = image[:, 2:].astype(float) - image[:, :-2]
  return (np.hypot(rows, columns).argmax(axis=-1) == (rows**2 + columns**2).argmax(axis=-1)).all()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_slow_loops(options, channels):
  images = noise(channels=channels)
  expected = np.stack([slow_hog(image, **options) for image in images[:2]])
  assert expected.shape[1] == hog_lib.hog_size(*SIZE, **options)
  np.testing.assert_allclose(fast(images, **options)[:2], expected, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_scikit_image_on_noise(scikit, options, channels):
  images = noise(channels=channels, seed=1)
  images[3:] //= 16  # many gradients of the same size, and on the borders of bins
  assert all(map(channel_is_certain, images))
  expected = np.stack([scikit(image, **options) for image in images])
  np.testing.assert_allclose(fast(images, **options), expected, atol=1e-5)


def test_equals_scikit_image_at_224(scikit):
  data = pytest.importorskip("skimage.data")
  photos = [photo()[:224, 60:284] for photo in (data.astronaut, data.chelsea, data.coffee)]
  images = np.stack([*noise(1, (224, 224)), *photos])
  assert all(map(channel_is_certain, images))
  found = fast(images)
  assert found.shape == (4, 10_368) and found.dtype == np.float32
  np.testing.assert_allclose(found, np.stack([scikit(image) for image in images]), atol=1e-5)


def test_equals_scikit_image_on_a_grey_photo(scikit):
  data = pytest.importorskip("skimage.data")
  photo = data.camera()[None, :224, :224, None]
  np.testing.assert_allclose(fast(photo)[0], scikit(photo[0]), atol=1e-5)
  photo = (photo / 255).astype(np.float32)  # without a choice of channels there are no ties to break
  np.testing.assert_allclose(fast(photo)[0], scikit(photo[0]), atol=1e-5)


def test_equals_scikit_image_on_open_photos(scikit, real_data):
  paths = sorted((real_data / "coco_open" / "val2017").glob("*.jpg"))[:6]
  if not paths:
    pytest.skip("no photos")
  photos = np.stack([cv2.imread(str(path))[100:100 + SIZE[0], 100:100 + SIZE[1]] for path in paths])
  for options in OPTIONS:
    np.testing.assert_allclose(fast(photos, **options), np.stack([scikit(x, **options) for x in photos]), atol=1e-5)


def test_equals_scikit_image_on_floats(scikit):
  images = np.random.default_rng(3).normal(size=(6, *SIZE, 3)).astype(np.float32)
  expected = np.stack([scikit(image) for image in images])
  np.testing.assert_allclose(fast(images), expected, atol=1e-5)
  np.testing.assert_allclose(fast(images.astype(np.float64)), expected, atol=1e-5)
  # Whole numbers are exact in every type that holds them.
  small = noise() // 2
  np.testing.assert_array_equal(fast(small.astype(np.float32)), fast(small))
  np.testing.assert_array_equal(fast(jnp.asarray(small, jnp.bfloat16)), fast(small))


@pytest.mark.parametrize("orientations", [1, 7, 8, 9, 64])
def test_every_gradient_of_bytes_falls_into_its_bin(orientations):
  d = np.arange(-255, 256)
  d_row, d_col = (x.ravel() for x in np.meshgrid(d, d[:256] if orientations > 9 else d, indexing="ij"))
  images = np.zeros((d_row.size, 3, 3, 1), np.uint8)
  for (low, high), x in ((((0, 1), (2, 1)), d_row), (((1, 0), (1, 2)), d_col)):
    images[:, *low, 0], images[:, *high, 0] = np.maximum(-x, 0), np.maximum(x, 0)
  found = fast_cells(images, orientations=orientations, cell_size=(3, 3))[:, 0, 0]  # only the pixel in the middle has any
  # scikit-image's rule: degrees in float64, borders in float32.
  angle = np.arctan2(d_row, d_col) * (180 / np.pi) % 180
  borders = np.float32([180 / orientations * i for i in range(orientations)])
  expected = np.zeros(found.shape)
  expected[np.arange(d_row.size), (angle[:, None] >= borders).sum(axis=1) - 1] = np.hypot(d_row, d_col) / 9
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_first_of_equal_channels_is_taken():
  images = np.zeros((2, 3, 3, 3), np.uint8)
  images[0, 1, 2, 1] = images[0, 2, 1, 2] = 9  # to the right, then downwards
  images[1, 2, 1, 1] = images[1, 1, 2, 2] = 9  # the other way round
  cells = fast_cells(images, orientations=4, cell_size=(3, 3))[:, 0, 0]
  np.testing.assert_allclose(cells, [[1, 0, 0, 0], [0, 0, 1, 0]])


@pytest.mark.parametrize("value", [0, 255, 0.3])
def test_constant_images_are_zero(value):
  images = np.full((6, *SIZE, 3), value, np.uint8 if isinstance(value, int) else np.float32)
  found = fast(images)
  assert found.shape == (6, hog_lib.hog_size(*SIZE))
  np.testing.assert_array_equal(found, np.zeros_like(found))


def test_turning_an_image_moves_its_bins():
  images = noise(size=(48, 64))  # whole cells
  cells, turned = fast_cells(images), fast_cells(np.rot90(images, axes=(1, 2)))
  np.testing.assert_allclose(turned, np.roll(np.rot90(cells, axes=(1, 2)), 4, axis=-1), rtol=1e-6)
  # Mirrored at the diagonal an angle becomes 90 degrees less the angle. Bins are open at their ends, so no gradient may
  # lie on a border; on the border of the image all do.
  images = np.random.default_rng(4).random((2, 64, 64, 3)).astype(np.float32)
  cells, mirrored = fast_cells(images), fast_cells(images.swapaxes(1, 2))
  expected = np.roll(cells.swapaxes(1, 2)[..., ::-1], 4, axis=-1)
  np.testing.assert_allclose(mirrored[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], rtol=1e-5)


def test_light_and_contrast_do_not_matter():
  images = noise() // 2
  np.testing.assert_array_equal(fast(images + 100), fast(images))
  np.testing.assert_allclose(fast(images * 2), fast(images), atol=1e-6)
  np.testing.assert_allclose(fast(255 - images), fast(images), atol=1e-6)


def test_pixels_beyond_the_last_cell_matter_to_their_neighbours_alone():
  images = noise(size=(50, 50))
  cells = np.asarray(fast_cells(images))
  images[:, 49], images[:, :, 49] = 0, 0
  np.testing.assert_array_equal(fast_cells(images), cells)
  images[:, 48], images[:, :, 48] = 0, 0
  changed = fast_cells(images) != cells
  assert changed[:, 2].any() and changed[:, :, 2].any() and not changed[:, :2, :2].any()


def test_compiled_equals_eager_and_vmap_and_one_by_one():
  images = noise()
  found = fast(images)
  np.testing.assert_allclose(hog_lib.hog(images), found, atol=1e-6)
  np.testing.assert_allclose(np.concatenate([fast(image[None]) for image in images[:3]]), found[:3], atol=1e-6)
  mapped = jax.jit(jax.vmap(hog_lib.hog))(images.reshape(3, 2, *images.shape[1:]))
  np.testing.assert_allclose(mapped.reshape(6, -1), found, atol=1e-6)


def test_devices_take_their_own_images():
  mesh = sharding.make_mesh()
  images = noise(2 * mesh.size, (48, 48))
  over_batch = sharding.over_batch(mesh)
  compiled = jax.jit(hog_lib.hog, in_shardings=over_batch, out_shardings=over_batch).lower(images).compile()
  assert not any(f"{word}(" in compiled.as_text() for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
  np.testing.assert_allclose(compiled(jax.device_put(images, over_batch)), fast(images), atol=1e-6)


def test_lowers_for_accelerators():
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
  exported = jax.export.export(jax.jit(hog_lib.hog), platforms=("tpu", "cuda"))(images)
  assert exported.out_avals[0].shape == (2, hog_lib.hog_size(64, 64))


def test_sizes():
  assert hog_lib.hog_size(224, 224) == 10_368
  assert hog_lib.hog_size(128, 64, orientations=9, cell_size=(8, 8), block_size=(2, 2)) == 3780  # Dalal and Triggs
  assert hog_lib.hog_size(63, 79) == 1 * 2 * 72  # 3 x 4 cells
  # An image of one line has no differences across it.
  assert fast(noise(size=(1, 9)), cell_size=(1, 3), block_size=(1, 1)).shape == (6, 3 * 8)


@pytest.mark.parametrize("images, options, match", [
    (np.zeros((64, 64, 3), np.uint8), {}, "B, H, W"),
    (np.zeros((1, 64, 64, 4), np.uint8), {}, "B, H, W"),
    (np.zeros((1, 64, 64, 3), np.int32), {}, "int32"),
    (np.zeros((1, 64, 47, 3), np.uint8), {}, "48 x 48"),
    (np.zeros((1, 64, 15, 3), np.uint8), {"block_size": (1, 1)}, "64 x 15"),
    (np.zeros((1, 64, 64, 3), np.uint8), {"orientations": 0}, "orientations"),
    (np.zeros((1, 64, 64, 3), np.uint8), {"orientations": 65}, "orientations"),
    (np.zeros((1, 64, 64, 3), np.uint8), {"cell_size": (0, 8)}, "cell_size"),
    (np.zeros((1, 64, 64, 3), np.uint8), {"block_size": (3, 0)}, "block_size"),
])
def test_what_does_not_fit_is_refused(images, options, match):
  with pytest.raises(ValueError, match=match):
    hog_lib.hog(images, **options)
