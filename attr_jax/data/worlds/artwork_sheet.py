"""The sheet on which a work of art is drawn, twice as fine as the picture, and the pen for one thing on it.

Things are drawn in a frame of their own: x to the right and y down, from -0.5
to 0.5, so that what stands has its feet at y = 0.5.
"""

import dataclasses
import math

import cv2
import numpy as np

from attr_jax.data.worlds import common

STEP = 2  # sheet pixels per pixel of the picture


@dataclasses.dataclass(frozen=True)
class Paints:
  """Colours of one picture, RGB in 0..255; all but `skin` and `gold` are of its palette."""

  wall: tuple
  ground: tuple
  dark: tuple
  accents: tuple  # four, of which the last is pale
  skin: tuple
  gold: tuple

  def mixed(self, colour, share: float = 0.3) -> tuple:
    """A colour of its own (leaves, water, fruit) with a share of the palette's ground."""
    return blend(colour, self.ground, share)


def blend(first, second, share: float) -> tuple:
  """The colour `first` with a `share`, 0..1, of `second`."""
  return tuple(a + (b - a) * share for a, b in zip(first, second))


class Sheet:
  """The picture while it is drawn, back to front.

  Attributes:
    rgb: uint8 [2 H, 2 W, 3].
    paints: Its colours.
    height, width: In pixels of the picture.
    unit: The shorter side, pixels of the picture.
  """

  def __init__(self, rgb: np.ndarray, paints: Paints):
    """A sheet on `rgb`, which is drawn on in place."""
    self.rgb, self.paints = rgb, paints
    self.height, self.width = rgb.shape[0] // STEP, rgb.shape[1] // STEP
    self.unit = min(self.height, self.width)

  def inside(self, side: int) -> "Sheet":
    """The part of this sheet without `side` pixels of the picture along each side."""
    side *= STEP
    return Sheet(self.rgb[side:self.rgb.shape[0] - side, side:self.rgb.shape[1] - side], self.paints)

  def fill(self, points, colour, edge: float = 0.0, width: float = 0.0):
    """A closed shape; points [N, 2] in pixels of the picture, whose corner is (0, 0).

    With `edge`, the brightness of its outline, there is one of `width` pixels.
    """
    placed = [_sixteenths(points)]
    cv2.fillPoly(self.rgb, placed, colour, cv2.LINE_AA, 4)
    if edge:
      cv2.polylines(self.rgb, placed, True, common.shade(colour, edge), max(1, round(width * STEP)), cv2.LINE_AA, 4)

  def line(self, points, colour, width: float, closed: bool = False):
    """A line of `width` pixels of the picture through points [N, 2], as in `fill`; `closed` joins its ends."""
    cv2.polylines(self.rgb, [_sixteenths(points)], closed, colour, max(1, round(width * STEP)), cv2.LINE_AA, 4)

  def box(self, left: float, top: float, right: float, bottom: float, colour):
    """An upright rectangle; sides in pixels of the picture."""
    self.fill([(left, top), (right, top), (right, bottom), (left, bottom)], colour)


def _sixteenths(points) -> np.ndarray:
  """Pixels of the picture to sixteenths of sheet pixels, where (0, 0) is a pixel's centre, as OpenCV has it."""
  return np.rint((np.asarray(points, np.float64) * STEP - 0.5) * 16).astype(np.int32)


class Pen:
  """Draws one thing: its frame lies at (x, y), `size` pixels high, mirrored where `flip` is -1, turned clockwise by `turn` radians."""

  def __init__(self, sheet: Sheet, x: float, y: float, size: float, flip: int = 1, turn: float = 0.0):
    """`x`, `y` (the middle of the frame) and `size` are in pixels of the picture."""
    self.sheet, self.x, self.y, self.size, self.flip = sheet, x, y, size, flip
    self.paints = sheet.paints
    c, s = size * math.cos(turn), size * math.sin(turn)
    self._matrix = np.array([[flip * c, flip * s], [-s, c]])
    self._offset = np.array([x, y])

  def at(self, points) -> np.ndarray:
    """Points [N, 2] of the frame in pixels of the picture."""
    return np.asarray(points, np.float64) @ self._matrix + self._offset

  def part(self, x: float, y: float, size: float, turn: float = 0.0, flip: int = 1) -> "Pen":
    """A pen for something of `size` frame heights whose frame lies at (x, y) of this one; `turn` in radians, `flip` -1 mirrors it."""
    (x, y), = self.at([(x, y)])
    return Pen(self.sheet, x, y, size * self.size, self.flip * flip, turn)

  def fill(self, points, colour, edge: float = 0.55):
    """A closed shape of points [N, 2] of the frame; `edge` is the brightness of its outline, a factor of `colour`, 0 for none."""
    self.sheet.fill(self.at(points), colour, edge, self.size * 0.018)

  def line(self, points, colour, width: float):
    """A line of `width` frame heights through points [N, 2] of the frame."""
    self.sheet.line(self.at(points), colour, width * self.size)

  def oval(self, x: float, y: float, rx: float, ry: float, colour, edge: float = 0.55):
    """A filled ellipse around (x, y) of the frame with half axes `rx` and `ry`; `edge` as in `fill`."""
    self.fill(common.oval((x, y), rx, ry), colour, edge)

  def ring(self, x: float, y: float, rx: float, ry: float, colour, width: float):
    """The line of an ellipse, `width` frame heights broad."""
    self.sheet.line(self.at(common.oval((x, y), rx, ry)), colour, width * self.size, closed=True)
