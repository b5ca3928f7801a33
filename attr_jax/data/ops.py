"""Crops, flips and resizes of one sample: pure functions of numpy arrays.

A sample is a dict; `image` uint8 [H, W, 3] and, where present, `person_mask`
uint8 [H, W], `region_mask` uint8 [H, W] and `landmarks` float32 [5, 2] (x, y in
pixels, centre of the first pixel = 0; order left eye, right eye, nose, left and
right corner of the mouth) change together. All other keys pass through. Crops
and flips take image and masks of one size, as `resize` leaves them.

Some take `out`, arrays by key: a result of the same shape and dtype is left in
them, any other in a new array. This saves a copy into a batch, nothing else.
"""

from collections.abc import Mapping, Sequence
import functools
import itertools

import cv2
import numpy as np

# SRN's multi-scale list; of 256 pixels it gives 256, 224, 192, 168, 128.
CROP_RATIOS = (1.0, 0.875, 0.75, 0.66, 0.5)
MIRRORED_LANDMARKS = (1, 0, 2, 4, 3)
# What may be resampled smoothly; class indices must not be blended.
_INTERPOLATION = {"image": cv2.INTER_LINEAR, "person_mask": cv2.INTER_LINEAR, "region_mask": cv2.INTER_NEAREST_EXACT}

Sample = dict[str, object]
Arrays = Mapping[str, np.ndarray]
Box = tuple[int, int, int, int]


def resize(sample: Sample, size: tuple[int, int], out: Arrays | None = None) -> Sample:
  """Resizes to `size` (H, W) in pixels without keeping the aspect; bilinear, region classes nearest. `out` as at the head.

  Masks may come in another size than the image (predicted ones do): they show
  the same frame, so each is resized on its own and all sizes are equal afterwards.
  """
  height, width = size
  rows, columns = sample["image"].shape[:2]
  wrong = [key for key in _INTERPOLATION if key in sample and sample[key].shape[:2] != (height, width)]
  if not wrong:
    return sample
  result = dict(sample)
  for key in wrong:
    result[key] = cv2.resize(sample[key], (width, height), dst=_target(out, key), interpolation=_INTERPOLATION[key])
  if "landmarks" in sample:
    result["landmarks"] = resize_points(sample["landmarks"], (rows, columns), size)
  return result


def resize_points(points: np.ndarray, before: tuple[int, int], after: tuple[int, int]) -> np.ndarray:
  """Moves points float32 [N, 2] (x, y) with an image that is resized from `before` to `after`, both (H, W)."""
  scale = np.array([after[1] / before[1], after[0] / before[0]], np.float32)
  return (points + np.float32(0.5)) * scale - np.float32(0.5)


def nearest_table(longest: int, size: int) -> np.ndarray:
  """Which pixels `resize` takes for class indices along one axis; asked of OpenCV, whose versions break ties differently.

  Args:
    longest: Pixels of the longest stretch.
    size: Pixels that it is resized to.

  Returns:
    int32 [longest + 1, size]: row n holds the pixels, 0..n-1, that a stretch of n pixels is resized to `size` from; row 0 is 0.
  """
  table = np.zeros((longest + 1, size), np.int32)
  for length in range(1, longest + 1):
    pixels = np.arange(length, dtype=np.uint16).reshape(1, length)
    table[length] = cv2.resize(pixels, (size, 1), interpolation=_INTERPOLATION["region_mask"])
  return table


def crop(sample: Sample, box: Box) -> Sample:
  """Cuts a box (top, left, height, width) in pixels, which must lie inside the image. Arrays are views."""
  top, left, height, width = box
  result = dict(sample)
  for key in _INTERPOLATION:
    if key in sample:
      result[key] = sample[key][top:top + height, left:left + width]
  if "landmarks" in sample:
    result["landmarks"] = sample["landmarks"] - np.array([left, top], np.float32)
  return result


def flip(sample: Sample, out: Arrays | None = None) -> Sample:
  """Mirrors left and right; left and right landmarks change places. `out` may be the arrays of `sample`."""
  width = sample["image"].shape[1]
  result = dict(sample)
  for key in _INTERPOLATION:
    if key in sample:
      result[key] = cv2.flip(sample[key], 1, dst=_target(out, key))
  if "regions" in sample:
    result["regions"] = np.ascontiguousarray(sample["regions"][:, ::-1])
  if "landmarks" in sample:
    mirrored = sample["landmarks"][list(MIRRORED_LANDMARKS)]
    result["landmarks"] = np.stack([np.float32(width - 1) - mirrored[:, 0], mirrored[:, 1]], axis=1)
  return result


def _target(out: Arrays | None, key: str) -> np.ndarray | None:
  return out.get(key) if out else None


def default_crop_sizes(height: int) -> tuple[int, ...]:
  """SRN's candidate heights for a resized image of `height` pixels, largest first."""
  return tuple(int(height * ratio) for ratio in CROP_RATIOS)


@functools.lru_cache
def crop_shapes(resized: tuple[int, int], heights: tuple[int, ...], *, max_distort: int | None = None,
                keep_ratio: bool = False) -> tuple[tuple[int, int], ...]:
  """All (height, width) of a multi-scale crop.

  Args:
    resized: (H, W) of the image that is cropped.
    heights: Candidate heights; candidate widths are these times W / H.
    max_distort: Keep only pairs whose places in the lists differ by at most
      this; 1 gives 13 of 25 pairs (the default of SRN's crop layer), None all
      (the wording of its paper).
    keep_ratio: Keep only pairs at the same place, so that the aspect stays W / H.

  Returns:
    In pixels. Source: Zhu et al., CVPR 2017 (SRN), and the released program's crop layer.
  """
  widths = [height * resized[1] // resized[0] for height in heights]
  limit = 0 if keep_ratio else len(widths) if max_distort is None else max_distort
  places = itertools.product(range(len(heights)), range(len(widths)))
  return tuple((heights[i], widths[j]) for i, j in places if abs(i - j) <= limit)


def five_offsets(outer: tuple[int, int], inner: tuple[int, int]) -> list[tuple[int, int]]:
  """(top, left) in pixels of crops of size `inner` at the four corners and the centre of an image of size `outer`, both (H, W).

  Order: upper left, upper right, lower left, lower right, centre. As in SRN's
  crop layer the far corner lies at 4 * floor((outer - inner) / 4), the centre
  at half of that.
  """
  down, right = ((out - inn) // 4 for out, inn in zip(outer, inner))
  return [(0, 0), (0, 4 * right), (4 * down, 0), (4 * down, 4 * right), (2 * down, 2 * right)]


def five_position_box(outer: tuple[int, int], shapes: Sequence[tuple[int, int]], rng: np.random.Generator) -> Box:
  """(top, left, height, width) of one of `shapes` at one of the five positions in an image of size `outer` (H, W), all equally likely.

  Source: Zhu et al., CVPR 2017 (SRN), section 4; shapes from `crop_shapes`.
  """
  shape = shapes[rng.integers(len(shapes))]
  return (*five_offsets(outer, shape)[rng.integers(5)], *shape)


def random_square_box(outer: tuple[int, int], sides: tuple[int, int], rng: np.random.Generator) -> Box:
  """(top, left, height, width) of a square of a side uniform in `sides` (both included) anywhere in an image of size `outer` (H, W).

  Source: the published code of Sarafianos et al., ECCV 2018 (DIAA): 128..224 of 256.
  """
  side = int(rng.integers(sides[0], sides[1] + 1))
  return int(rng.integers(outer[0] - side + 1)), int(rng.integers(outer[1] - side + 1)), side, side


def short_side_resize(sample: Sample, side: int) -> Sample:
  """Resizes, keeping the aspect, so that the shorter side has `side` pixels; an image of that size stays as it is."""
  rows, columns = sample["image"].shape[:2]
  scale = side / min(rows, columns)
  return resize(sample, (max(side, round(rows * scale)), max(side, round(columns * scale))))


def random_crop(sample: Sample, size: tuple[int, int], rng: np.random.Generator) -> Sample:
  """Cuts `size` (H, W) anywhere, without changing the scale; ValueError where it is larger than the image."""
  rows, columns = sample["image"].shape[:2]
  top, left = int(rng.integers(rows - size[0] + 1)), int(rng.integers(columns - size[1] + 1))
  return crop(sample, (top, left, *size))


def random_flip(sample: Sample, rng: np.random.Generator) -> Sample:
  """Mirrors with probability 0.5."""
  return flip(sample) if rng.integers(2) else sample


def five_crop(sample: Sample, size: tuple[int, int], out: Arrays | None = None) -> Sample:
  """Five crops of `size` (H, W), order of `five_offsets`; image and masks gain a first axis [5, ...].

  Landmarks become [5, 5, 2]. `out` as at the head.
  """
  crops = [crop(sample, (*offset, *size)) for offset in five_offsets(sample["image"].shape[:2], size)]
  views = [key for key in (*_INTERPOLATION, "landmarks") if key in sample]
  return {**sample, **{key: _stack([view[key] for view in crops], _target(out, key)) for key in views}}


def _stack(arrays: Sequence[np.ndarray], target: np.ndarray | None) -> np.ndarray:
  fits = target is not None and (target.shape, target.dtype) == ((len(arrays), *arrays[0].shape), arrays[0].dtype)
  return np.stack(arrays, out=target if fits else None)
