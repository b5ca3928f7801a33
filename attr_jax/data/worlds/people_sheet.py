"""The sheet on which a person is drawn: parts, materials, shapes, patterns of cloth.

Shapes are drawn without anti-aliasing on a sheet finer than the photo, which is
then averaged down: one pass gives smooth edges *and* an exact part map.

Functions draw on `layer`, over what is there; outlines are [N, 2] (x, y) in figure coordinates (`people_figure`).
"""

import dataclasses
import functools
import math

import cv2
import numpy as np

from attr_jax.data.worlds.common import shade

# Body parts, the lower five bits of `Layer.code`. HELD is a thing in or on the
# hand: it hides what is behind it but is not the person.
(HAIR, FACE, EYES, MOUTH, HAT, NECK, TORSO, LOGO, UPPER_ARM, FOREARM, THIGH, SHIN, FOOT, HELD) = range(1, 15)
NUM_PARTS = 32
# Materials, the upper three bits: which pixels take the pattern of a garment.
BARE, TOP, BOTTOM = 0, 32, 64

_ARC = np.linspace(-np.pi / 2, np.pi / 2, 6)
_HALF_CIRCLE = np.stack([np.cos(_ARC), np.sin(_ARC)], 1)


@dataclasses.dataclass
class Layer:
  """A transparent sheet: colour where `code` is not zero."""

  rgb: np.ndarray  # uint8 [h, w, 3]
  code: np.ndarray  # uint8 [h, w], part | material
  unit: float  # sheet pixels per figure height
  step: int  # sheet pixels per photo pixel
  origin: np.ndarray  # [2] figure coordinates of the sheet's corner

  def part(self) -> np.ndarray:
    """Part of each photo pixel, uint8 [h / step, w / step]: what its centre hits."""
    return self.code[self.step // 2::self.step, self.step // 2::self.step] & 31


def points(layer: Layer, outline) -> np.ndarray:
  """Figure coordinates [N, 2] to sixteenths of sheet pixels, as OpenCV takes them with shift 4."""
  return np.rint((np.asarray(outline, np.float64) - layer.origin) * (layer.unit * 16)).astype(np.int32)


def part_sizes(part: np.ndarray) -> np.ndarray:
  """Pixels of each part [NUM_PARTS] in a uint8 part map. (np.bincount would widen the map first.)"""
  return cv2.calcHist([part], [0], None, [NUM_PARTS], [0, NUM_PARTS]).ravel().astype(np.int64)


def fill(layer: Layer, outline, colour, code: int, edge: float = 0.72):
  """A closed shape of a colour and a `code`, part | material; `edge` is the brightness of its rim, a factor of `colour`, 0 for none."""
  p = points(layer, outline)
  cv2.fillPoly(layer.rgb, [p], colour, cv2.LINE_8, 4)
  cv2.fillPoly(layer.code, [p], code, cv2.LINE_8, 4)
  if edge:
    width = max(1, round(layer.unit * 0.0035))
    cv2.polylines(layer.rgb, [p], True, shade(colour, edge), width, cv2.LINE_8, 4)


def line(layer: Layer, outline, colour, width: float):
  """An open line along `outline` of `width` figure heights; it changes colours, not parts."""
  cv2.polylines(layer.rgb, [points(layer, outline)], False, colour, max(1, round(width * layer.unit)), cv2.LINE_8, 4)


def capsule(p, q, r0: float, r1: float) -> np.ndarray:
  """Outline [12, 2] of a tapered limb from `p` to `q` (x, y) with round ends of radius `r0` at `p` and `r1` at `q`."""
  dx, dy = q[0] - p[0], q[1] - p[1]
  length = max(math.hypot(dx, dy), 1e-6)
  c, s = dx / length, dy / length
  arc = _HALF_CIRCLE @ np.array([[c, s], [-s, c]])
  return np.concatenate([arc * r1 + q, p - arc * r0])


def limb(layer: Layer, capsules, colour):
  """Draws `capsules`, pairs (outline, code), in one colour; the rim is drawn first, so that no line crosses a joint."""
  width = max(2, round(layer.unit * 0.007))
  outlines = [(points(layer, outline), code) for outline, code in capsules]
  cv2.polylines(layer.rgb, [p for p, _ in outlines], True, shade(colour, 0.68), width, cv2.LINE_8, 4)
  for p, code in outlines:
    cv2.fillPoly(layer.rgb, [p], colour, cv2.LINE_8, 4)
    cv2.fillPoly(layer.code, [p], code, cv2.LINE_8, 4)


def pattern_weight(kind: str, u: np.ndarray, v: np.ndarray, *, period: float, duty: float, phase: float) -> np.ndarray:
  """How much of the second colour each point of cloth takes.

  Args:
    kind: "stripes", "plaid", "dots" or "camouflage".
    u: float [...], place across the stripes.
    v: float [...], place along them.
    period: From one repeat to the next, in the unit of u and v.
    duty: Share of a period that has the second colour.
    phase: Where the first repeat begins, in periods.

  Returns:
    Float [...] in 0..1.
  """
  a = (u / period + phase) % 1.0
  if kind == "stripes":
    return (a < duty).astype(np.float32)
  b = (v / period + phase) % 1.0
  if kind == "plaid":
    thin = (np.abs(a - 0.8) < 0.05) | (np.abs(b - 0.8) < 0.05)
    return 0.5 * (a < duty) + 0.5 * (b < duty) * ~thin + 0.5 * thin * (a >= duty)
  if kind == "dots":
    return ((a - 0.5) ** 2 + (b - 0.5) ** 2 < 0.07).astype(np.float32)
  wave = np.sin(a * 6.283 + 2.1 * np.sin(v / period * 2.3)) + np.sin(b * 6.283 + 1.7 * np.sin(u / period * 1.9))
  return (wave > 0.45).astype(np.float32)  # camouflage


@functools.lru_cache(None)
def denim_grain() -> np.ndarray:
  """A tile float32 [256, 256] of twill: diagonal threads and faded patches, mean about 1; shared, not to be written to."""
  rng = np.random.default_rng(20180908)
  y, x = np.mgrid[:256, :256]
  threads = 0.13 * np.sin((x + y) * (2 * np.pi / 8)) + 0.10 * rng.standard_normal((256, 256))
  fade = cv2.GaussianBlur(rng.standard_normal((256, 256)), (0, 0), 14)
  return (1.0 + threads + 0.20 * fade / fade.std()).astype(np.float32)
