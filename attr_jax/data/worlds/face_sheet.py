"""The sheet on which a face is drawn, twice as fine as the photo.

Face coordinates: (0, 0) is midway between the eyes, the eyes are at (-1, 0) and
(1, 0), y goes down; the chin is near y = 3.3. A head is about a cylinder, whose
points move sideways by their depth when it turns.
"""

import dataclasses
import functools
import itertools
import math

import cv2
import numpy as np

WIDTH, HEIGHT = 178, 218  # pixels of the photo
STEP = 2  # sheet pixels per photo pixel
# Classes of the parsing masks (Le 2012, Smith 2013); left and right as seen in the photo.
(BACKGROUND, SKIN, LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, NOSE, UPPER_LIP, INNER_MOUTH, LOWER_LIP, HAIR) = range(11)
NUM_CLASSES = 11
_EYE_DEPTH = 1.35


@dataclasses.dataclass(frozen=True)
class View:
  """Where the head is in the photo and how it is turned."""

  unit: float  # photo pixels per half distance of the eyes
  center: tuple  # x, y of the point between the eyes, photo pixels
  tilt: float  # radians in the picture plane, clockwise
  yaw: float  # radians, positive turns the nose to the right of the photo
  pitch: float  # radians, positive looks down


class Sheet:
  """The picture while it is drawn, back to front.

  Attributes:
    view: where the head is.
    rgb: uint8 [2 H, 2 W, 3].
    region: uint8 [2 H, 2 W], class of the parsing masks.
  """

  def __init__(self, view: View, rgb: np.ndarray):
    """A sheet on `rgb`, which is drawn on in place."""
    self.view, self.rgb = view, rgb
    self.region = np.full(rgb.shape[:2], BACKGROUND, np.uint8)
    c, s = math.cos(view.tilt), math.sin(view.tilt)
    self._flat = np.array([[c, s], [-s, c]]) * view.unit
    self._turned = np.array([[math.cos(view.yaw)], [1.0]]) * self._flat
    self._depth = np.array([math.sin(view.yaw), math.sin(view.pitch)]) @ self._flat

  def place(self, points, raised: float = 0.0) -> np.ndarray:
    """Face coordinates [N, 2] of points on the head, `raised` above its surface, to photo pixels [N, 2]."""
    points = np.asarray(points, np.float64)
    depth = 1.5 * np.sqrt(np.maximum(1 - (points[:, 0] / 2.4) ** 2, 0)) + (raised - _EYE_DEPTH)
    return points @ self._turned + depth[:, None] * self._depth + self.view.center

  def place_each(self, lines: list, raised: float = 0.0) -> list:
    """`place` for many lines [N_i, 2] at once, which is quicker."""
    return _divided(self.place(np.concatenate(lines), raised), lines)

  def place_flat(self, points) -> np.ndarray:
    """`place` for what does not turn with the head: points [N, 2] to photo pixels [N, 2]."""
    return np.asarray(points, np.float64) @ self._flat + self.view.center

  def fill(self, points, colour, region: int | None = None):
    """A closed shape of points [N, 2] in photo pixels; `region` None leaves the parsing as it is, `colour` None the picture."""
    p = sixteenths(points)
    if colour is not None:
      cv2.fillPoly(self.rgb, [p], colour, cv2.LINE_AA, 4)
    if region is not None:
      cv2.fillPoly(self.region, [p], region, cv2.LINE_8, 4)

  def line(self, points, colour, width: float, closed: bool = False):
    """A line of `width` face units through points [N, 2] in photo pixels; `closed` joins its ends."""
    self.lines([points], colour, width, closed)

  def lines(self, lines: list, colour, width: float, closed: bool = False, inside: int | None = None):
    """Many lines as in `line`, each photo pixels [N, 2]; only on the region `inside` if given."""
    target = self.rgb if inside is None else self.rgb.copy()
    placed = _divided(sixteenths(np.concatenate(lines)), lines)
    cv2.polylines(target, placed, closed, colour, max(1, round(width * self.view.unit * STEP)), cv2.LINE_AA, 4)
    if inside is not None:
      cv2.copyTo(target, cv2.compare(self.region, inside, cv2.CMP_EQ), self.rgb)

  def soft(self, points, colour, strength: float, blur: float, inside: int | None = None):
    """A shape float [N, 2] in photo pixels with soft edges (`blur` in face units) of `strength` 0..1; only on the region `inside`."""
    sigma = blur * self.view.unit
    low = np.maximum(np.floor(points.min(0) - 2 * sigma).astype(int), 0)
    high = np.minimum(np.ceil(points.max(0) + 2 * sigma).astype(int) + 1, (WIDTH, HEIGHT))
    if (high - low < 2).any():
      return
    # As fine as the photo, not as the sheet, for speed.
    mask = np.zeros((high - low)[::-1], np.uint8)
    cv2.fillPoly(mask, [np.rint((points - low - 0.5) * 16).astype(np.int32)], round(255 * strength), cv2.LINE_AA, 4)
    # Two means over a square come close to a Gaussian and are quicker.
    side = 2 * round((math.sqrt(6 * sigma**2 + 1) - 1) / 2) + 1
    mask = cv2.blur(cv2.blur(mask, (side, side)), (side, side))
    window = np.s_[low[1] * STEP:high[1] * STEP, low[0] * STEP:high[0] * STEP]
    mask = cv2.resize(mask, None, fx=STEP, fy=STEP, interpolation=cv2.INTER_LINEAR)
    if inside is not None:
      mask[self.region[window] != inside] = 0
    blend(self.rgb[window], colour, mask)


def blend(view: np.ndarray, colour, mask: np.ndarray):
  """Lays a colour over `view` uint8 [h, w, 3] in place, as thick as `mask` uint8 [h, w] says."""
  weight = cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB)
  paint = np.empty_like(view)
  paint[:] = [min(max(int(c), 0), 255) for c in colour]
  kept = cv2.multiply(view, 255 - weight, scale=1 / 255)
  view[:] = cv2.add(kept, cv2.multiply(paint, weight, scale=1 / 255))


def _divided(points: np.ndarray, lines: list) -> list:
  """Undoes np.concatenate(lines), quicker than np.split."""
  ends = list(itertools.accumulate(len(line) for line in lines))
  return [points[start:end] for start, end in zip([0, *ends], ends)]


def sixteenths(points) -> np.ndarray:
  """Photo pixels [N, 2], whose corner is (0, 0), to sixteenths of sheet pixels with (0, 0) a pixel's centre, as OpenCV has it."""
  return np.rint((np.asarray(points) * STEP - 0.5) * 16).astype(np.int32)


@functools.lru_cache(None)
def _spline(count: int, closed: bool, steps: int = 6) -> np.ndarray:
  """Matrix [M, count] from control points to points of a Catmull-Rom curve."""
  segments = count if closed else count - 1
  rows = np.zeros((segments * steps + (not closed), count))
  for row in range(len(rows)):
    segment, t = min(row // steps, segments - 1), row / steps - min(row // steps, segments - 1)
    weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -t**2 + t**3)
    for offset, weight in zip((-1, 0, 1, 2), weights):
      index = (segment + offset) % count if closed else min(max(segment + offset, 0), count - 1)
      rows[row, index] += weight / 2
  return rows


def smooth(points, closed: bool = True) -> np.ndarray:
  """A smooth curve [M, 2] through control points [N, 2] (Catmull-Rom), six for each stretch between two of these."""
  points = np.asarray(points, np.float64)
  return _spline(len(points), closed) @ points


def mirrored(right) -> np.ndarray:
  """A closed outline [M, 2] from its right half [N, 2], given from top to bottom; points with x = 0 are not doubled."""
  right = np.asarray(right, np.float64)
  left = right[::-1][right[::-1][:, 0] > 0] * (-1, 1)
  return np.concatenate([right, left])


def soft_masks(region: np.ndarray) -> np.ndarray:
  """Masks uint8 [11, H, W] of the photo from regions uint8 [2 H, 2 W] of a sheet; they sum to 255 up to rounding. Hair fades most."""
  size = (region.shape[1] // STEP, region.shape[0] // STEP)
  planes = [cv2.resize(cv2.compare(region, index, cv2.CMP_EQ).astype(np.float32), size, interpolation=cv2.INTER_AREA) for index in range(NUM_CLASSES)]
  sharp = np.stack([cv2.GaussianBlur(plane, (0, 0), 0.5) for plane in planes])
  wide = np.stack([cv2.GaussianBlur(plane, (0, 0), 1.3) for plane in planes])
  hair = wide[HAIR] / 255
  edge = 4 * hair * (1 - hair)  # 1 at the edge of the hair, 0 elsewhere
  return np.rint(sharp + edge * (wide - sharp)).astype(np.uint8)
