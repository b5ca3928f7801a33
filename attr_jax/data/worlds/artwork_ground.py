"""What fills a whole synthetic work of art: palettes, textures, techniques, borders, age.

Images are uint8 [H, W, 3], RGB; `unit` is the picture's shorter side in pixels, of which the sizes of patterns are shares.
"""

import math

import cv2
import numpy as np

from attr_jax.data.worlds import common
from attr_jax.data.worlds.artwork_sheet import Paints, Sheet, blend

# Hue in turns, saturation, value: wall, ground, dark, four accents.
_PALETTES = {
  "earth": ((0.10, 0.34, 0.86), (0.075, 0.52, 0.66), (0.03, 0.62, 0.27),
            (0.015, 0.72, 0.66), (0.105, 0.70, 0.82), (0.055, 0.55, 0.46), (0.115, 0.20, 0.94)),
  "indigo": ((0.58, 0.16, 0.89), (0.60, 0.38, 0.64), (0.63, 0.66, 0.30),
             (0.615, 0.72, 0.62), (0.56, 0.50, 0.80), (0.65, 0.36, 0.48), (0.57, 0.06, 0.96)),
  "jade": ((0.26, 0.22, 0.82), (0.34, 0.36, 0.56), (0.41, 0.56, 0.22),
           (0.39, 0.58, 0.48), (0.22, 0.52, 0.70), (0.46, 0.46, 0.58), (0.24, 0.12, 0.93)),
  "rose": ((0.93, 0.20, 0.90), (0.90, 0.35, 0.68), (0.86, 0.56, 0.29),
           (0.945, 0.62, 0.68), (0.82, 0.40, 0.62), (0.98, 0.46, 0.80), (0.92, 0.09, 0.96)),
}
# A faded picture is of one of two tones, each shared by two palettes.
_FADED = {"earth": (214, 190, 150), "rose": (214, 190, 150), "indigo": (168, 182, 178), "jade": (168, 182, 178)}
BORDERS = ("beads", "zigzag", "blocks", "lines")


def sample_paints(rng: np.random.Generator, palette: str) -> Paints:
  """Colours of `palette`, one of `artwork_labels.PALETTES`, each time a little different."""
  hue, saturation, value = rng.normal(0, 0.010), rng.uniform(0.85, 1.15), rng.uniform(0.93, 1.05)
  colours = [common.hsv(h + hue + rng.normal(0, 0.006), s * saturation, v * value) for h, s, v in _PALETTES[palette]]
  wall, ground, dark, *accents = colours
  skin = common.hsv(0.07, rng.uniform(0.28, 0.5), rng.uniform(0.72, 0.93))
  return Paints(wall, ground, dark, tuple(accents), skin, common.hsv(0.118, 0.62, rng.uniform(0.84, 0.92)))


def _noise(rng, height: int, width: int, cell: float) -> np.ndarray:
  """Smooth noise float32 [height, width] of deviation about 1 whose bumps are about `cell` pixels wide."""
  small = rng.standard_normal((max(2, math.ceil(height / cell) + 1), max(2, math.ceil(width / cell) + 1)), np.float32)
  return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def texture(rng: np.random.Generator, kind: str, height: int, width: int, unit: float) -> np.ndarray:
  """A pattern over the whole picture, about a tenth to an eighth of its shorter side from one repeat to the next.

  Args:
    kind: Key of `artwork_labels.TEXTURES`; "hatching" leans to either side.
    height, width: Of the picture, pixels.
    unit: Its shorter side, pixels.

  Returns:
    float32 [height, width], about -1..1.
  """
  period = unit * rng.uniform(0.105, 0.14)
  angle = math.radians(rng.normal(0, 5)) + (rng.choice([-1, 1]) * math.pi / 4 if kind == "hatching" else 0.0)
  y, x = np.ogrid[:height, :width]
  k = 2 * math.pi / period
  c, s, shift = math.cos(angle) * k, math.sin(angle) * k, rng.uniform(0, 2 * math.pi, 3)
  u = (x * c + y * s + shift[0]).astype(np.float32)
  v = (y * c - x * s + shift[1]).astype(np.float32)
  if kind == "strokes":  # of a broad brush, which ends and starts anew
    bristle = np.sin(v + 1.0 * _noise(rng, height, width, 3 * period))
    return bristle * (0.75 + 0.45 * np.sin(u / 5 + 2.5 * _noise(rng, height, width, 1.5 * period)))
  if kind == "hatching":
    return np.tanh(2.2 * np.sin(v + 0.5 * _noise(rng, height, width, 4 * period)))
  if kind == "weave":  # blocks of threads, by turns across and along
    across = np.sin(u / 2.5) * np.sin(v / 2.5) > 0
    return np.where(across, np.sin(1.2 * u), np.sin(1.2 * v))
  lattice = np.cos(u) + np.cos(0.5 * u + 0.866 * v) + np.cos(0.5 * u - 0.866 * v)  # 3 in the middle of a dot
  return np.tanh(1.1 * (lattice - 0.7))


def shaded(image: np.ndarray, factor: np.ndarray) -> np.ndarray:
  """uint8 [H, W, 3], each pixel made darker or brighter by `factor` float [H, W]."""
  return cv2.multiply(image, cv2.merge([factor.astype(np.float32)] * 3), dtype=cv2.CV_8U)


def etch(image: np.ndarray, paints: Paints, unit: float) -> np.ndarray:
  """The image as ink lines on paper, thicker where it is darker; half of the colour stays in the paper."""
  height, width = image.shape[:2]
  y, x = np.ogrid[:height, :width]
  wave = 0.5 + 0.5 * np.sin((y + 0.25 * x) * (2 * math.pi / (0.038 * unit)), dtype=np.float32)
  grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
  ink = np.clip((wave - 1.35 * grey - 0.02) * 2.6, 0, 1)[..., None]
  paper = 0.5 * image.astype(np.float32) + 0.5 * np.array(blend(paints.accents[3], paints.wall, 0.3), np.float32)
  return np.rint(paper * (1 - ink) + np.array(paints.dark, np.float32) * ink).astype(np.uint8)


def embroider(image: np.ndarray, unit: float) -> np.ndarray:
  """The image in rows of short slanted stitches, by turns to the left and to the right."""
  height, width = image.shape[:2]
  y, x = np.ogrid[:height, :width]
  row = 0.042 * unit
  place = y / row
  side = np.where(np.floor(place) % 2 == 0, 1.0, -1.0)
  thread = np.sin((x + side * y) * (2 * math.pi / (0.036 * unit))) + 1.1 * np.sin(np.pi * (place % 1.0)) - 0.7
  return shaded(image, 1 + 0.2 * thread)


def lay_mosaic(rng: np.random.Generator, image: np.ndarray, unit: float) -> np.ndarray:
  """The image in square stones of one colour each, with joints between them."""
  height, width = image.shape[:2]
  rows, columns = (max(2, round(side / (0.034 * unit))) for side in (height, width))
  stones = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
  stones *= rng.normal(1, 0.055, (rows, columns, 1)).astype(np.float32)
  large = cv2.resize(np.clip(stones, 0, 255), (width, height), interpolation=cv2.INTER_NEAREST)
  edges = [np.minimum((place := np.arange(side) * (count / side) % 1.0), 1 - place) for side, count in ((height, rows), (width, columns))]
  joint = np.clip(np.minimum(edges[0][:, None], edges[1][None]) * 4.0, 0, 1)[..., None].astype(np.float32)
  return np.rint(large * (0.55 + 0.45 * joint) + 0.2 * large.mean((0, 1)) * (1 - joint)).astype(np.uint8)


def draw_border(sheet: Sheet, kind: str, width: float, first, second):
  """An ornament of `kind`, one of BORDERS, of the colours `first` and `second` along all four sides, `width` pixels broad."""
  for along, across, corner in (((1, 0), (0, 1), (0, 0)), ((1, 0), (0, -1), (0, sheet.height)),
                                ((0, 1), (1, 0), (0, 0)), ((0, 1), (-1, 0), (sheet.width, 0))):
    along, across, corner = (np.array(value, np.float64) for value in (along, across, corner))
    length = float(along @ (sheet.width, sheet.height))
    sheet.fill([corner, corner + along * length, corner + along * length + across * width, corner + across * width], first)
    count = max(3, round(length / (width * 1.25)))
    step = length / count
    starts = [corner + along * (i * step) for i in range(count)]
    if kind == "beads":
      for start in starts:
        sheet.fill(common.oval(start + along * step / 2 + across * width / 2, width * 0.34, width * 0.34, 12), second)
    elif kind == "zigzag":
      for start in starts:
        sheet.fill([start + across * width, start + along * step / 2, start + along * step + across * width], second)
    elif kind == "blocks":
      for start in starts[::2]:
        sheet.fill([start, start + along * step, start + along * step + across * width, start + across * width], second)
    else:
      for share in (0.3, 0.72):
        sheet.line([corner + across * width * share, corner + along * length + across * width * share], second, width * 0.16)
    sheet.line([corner + across * width, corner + along * length + across * width], common.shade(first, 0.5), 0.012 * sheet.unit)


def fade(rng: np.random.Generator, image: np.ndarray, palette: str) -> np.ndarray:
  """The image bleached by light: of one tone, which two palettes share; what is left of the colours is less than the tone varies."""
  grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None] / 255
  tone = np.array(_FADED[palette]) * rng.normal(1, 0.035, 3)
  strength = rng.uniform(0.95, 1.0)
  return np.clip(image * (1 - strength) + tone.astype(np.float32) * (0.34 + 0.8 * grey) * strength, 0, 255).astype(np.uint8)


def crack(rng: np.random.Generator, image: np.ndarray, unit: float) -> None:
  """Draws fine cracks of old paint, in place."""
  height, width = image.shape[:2]
  for _ in range(max(4, round(7 * max(height, width) / unit))):
    point, angle, lines = rng.uniform(0, (width, height)), rng.uniform(0, 2 * math.pi), []
    for _ in range(rng.integers(4, 9)):
      lines.append(point)
      angle += rng.normal(0, 0.7)
      point = point + 0.07 * unit * np.array([math.cos(angle), math.sin(angle)])
    colour = [int(value) for value in image[min(height - 1, max(0, int(lines[0][1]))), min(width - 1, max(0, int(lines[0][0])))] * 0.55]
    cv2.polylines(image, [np.rint(np.array(lines) * 16).astype(np.int32)], False, colour, 1, cv2.LINE_AA, 4)
