"""Where things go in a synthetic work of art, and what is behind them: skies, hills, ground, niches.

All positions and lengths are in pixels of the picture, y down, unless a function says otherwise; what is drawn goes onto the
sheet over what is there. `tags` are those of the picture (`artwork_labels`).
"""

import math
from collections.abc import Callable

import numpy as np

from attr_jax.data.worlds import artwork_things as things
from attr_jax.data.worlds import common
from attr_jax.data.worlds.artwork_sheet import STEP, Pen, Sheet, blend

Tags = frozenset[str]
Thing = tuple[Callable, float, float]  # what draws it with (rng, pen), its height, and its width in heights


# ---- Placing. ----


def flip(rng) -> int:
  """1 or -1, equally likely: for `Pen`."""
  return 1 if rng.random() < 0.5 else -1


def fitting(length: float, step: float, most: int = 8) -> int:
  """How many things of width `step` fit into a `length`, at least one and at most `most`."""
  return int(min(max(round(length / step), 1), most))


def stand(rng, sheet: Sheet, wanted: list[Thing], top: float, bottom: float):
  """Puts the things `wanted` on the ground between `top`, of their highest heads, and `bottom`, of their feet.

  In one to three rows, whichever lets them be largest; the upper rows are farther away and drawn first. Some come again where
  there is room.
  """
  room, depth = 0.96 * sheet.width, bottom - top
  wanted = [wanted[i] for i in rng.permutation(len(wanted))]
  span, tallest = sum(height * width for _, height, width in wanted), max(height for _, height, _ in wanted)
  sizes = {rows: min(room * rows / span, depth / (tallest + 0.62 * (rows - 1)), 1.1 * sheet.unit) for rows in (1, 2, 3)}
  rows = max(sizes, key=sizes.get)
  size = sizes[rows] * rng.uniform(0.86, 1.0)
  placed = list(wanted)
  while len(placed) < 16:
    more = wanted[int(rng.integers(len(wanted)))]
    span += more[1] * more[2]
    if span * size > room * rows:
      break
    placed.append(more)
  count = math.ceil(len(placed) / rows)
  for row in range(rows):
    line = placed[row * count:(row + 1) * count]
    free = room - size * sum(height * width for _, height, width in line)
    gaps = rng.dirichlet(np.full(len(line) + 1, 4.0)) * free
    x, foot = 0.02 * sheet.width, bottom - 0.62 * size * (rows - 1 - row)
    for gap, (draw, height, width) in zip(gaps, line):
      x += gap + size * height * width / 2
      draw(rng, Pen(sheet, x, foot - size * height * (0.5 + rng.uniform(0, 0.06)), size * height, flip(rng)))
      x += size * height * width / 2


def scatter(rng, sheet: Sheet, empty: np.ndarray, draw: Callable, count: int, box: tuple[float, float, float, float],
            low: float, high: float, turn: float = 0.0):
  """Puts things of `low` to `high` units in a box (left, top, right, bottom in pixels), where there is room for them.

  Room is where the sheet is still as in `empty`, its copy uint8 [2 H, 2 W, 3]. They are drawn in
  front of the others, so that they can be seen in any case. `count` of them, each by `draw`, turned by about `turn` radians.
  """
  left, top, right, bottom = box
  used = np.abs(sheet.rgb[::4, ::4, 1].astype(np.int16) - empty[::4, ::4, 1]) > 6
  cell = 4 / STEP  # pixels of the picture
  for _ in range(count):
    size = min(sheet.unit * rng.uniform(low, high), 0.95 * (right - left), 0.95 * (bottom - top))
    spots = rng.uniform((left, top), (right - size, bottom - size), (10, 2))
    windows = [np.s_[int(y / cell):int((y + size) / cell) + 1, int(x / cell):int((x + size) / cell) + 1] for x, y in spots]
    best = int(np.argmin([used[window].mean() for window in windows]))
    used[windows[best]] = True
    draw(rng, Pen(sheet, *(spots[best] + size / 2), size, flip(rng), rng.normal(0, turn)))


def nothing(rng, pen: Pen):
  """A figure that is not there, for `holding`."""


def holding(figure: Callable, *held: tuple[Callable, float, float, float, float]) -> Callable:
  """A function of (rng, pen): a figure and what it holds, (what draws it, x, y, size, turn in radians) in its frame."""
  def draw(rng, pen):
    figure(rng, pen)
    for thing, x, y, size, turn in held:
      thing(rng, pen.part(x, y, size, turn))
  return draw


# ---- Grounds. ----


def gradient(sheet: Sheet, top: float, bottom: float, first, second, bands: int = 6):
  """From the colour `first` at `top` to `second` at `bottom`, downwards in `bands`, over the whole width."""
  for i in range(bands):
    y0, y1 = (top + (bottom - top) * j / bands for j in (i, i + 1))
    sheet.box(0, y0, sheet.width, y1 + 1, blend(first, second, i / max(bands - 1, 1)))


def sky(sheet: Sheet, tags: Tags, horizon: float) -> np.ndarray:
  """Draws a sky down to `horizon`, dark where `tags` say night; returns a copy of the sheet, uint8 [2 H, 2 W, 3], for `hang`."""
  paints = sheet.paints
  if "night" in tags:
    gradient(sheet, 0, horizon, blend((22, 26, 62), paints.dark, 0.25), blend((58, 62, 118), paints.dark, 0.25))
  else:
    gradient(sheet, 0, horizon, blend(paints.wall, paints.accents[1], 0.35), blend(paints.wall, paints.accents[3], 0.7))
  return sheet.rgb.copy()


def hang(rng, sheet: Sheet, empty: np.ndarray, tags: Tags, horizon: float):
  """What `tags` say is in the sky above `horizon`, drawn last, where nothing is in front of it; `empty` is what `sky` returned."""
  box = (0.03 * sheet.width, 0.02 * sheet.height, 0.97 * sheet.width, horizon)
  for name, draw in (("sun", things.sun), ("moon", things.moon)):
    if name in tags:
      scatter(rng, sheet, empty, draw, 1, box, 0.24, 0.34)
  if "stars" in tags:
    scatter(rng, sheet, empty, things.star, fitting(7 * sheet.width, sheet.unit, 24), box, 0.06, 0.11, 0.3)
  if "birds" in tags:
    scatter(rng, sheet, empty, things.bird, int(rng.integers(1, 3)) + fitting(sheet.width, 1.5 * sheet.unit), box, 0.17, 0.26, 0.15)


def ridge(rng, sheet: Sheet, y: float, swing: float, colour, steps: float):
  """Everything below a rolling line about `y` that goes up and down by `swing`, once in `steps` units of the sheet."""
  x = np.linspace(0, sheet.width, 40)
  phase = rng.uniform(0, 2 * math.pi, 2)
  line = y + swing * (np.sin(x / (steps * sheet.unit) * 2 * math.pi + phase[0]) + 0.5 * np.sin(x / (steps * sheet.unit) * 5.1 + phase[1]))
  line = np.stack([x, line], 1)
  sheet.fill([*line, (sheet.width, sheet.height), (0, sheet.height)], colour)
  sheet.line(line, common.shade(colour, 0.7), 0.01 * sheet.unit)


def mountains(rng, sheet: Sheet, horizon: float):
  """Peaks with snow behind the horizon."""
  x = rng.uniform(-0.2, 0.1) * sheet.unit
  while x < sheet.width:
    half, top = rng.uniform(0.28, 0.48) * sheet.unit, horizon - rng.uniform(0.55, 0.95) * min(horizon, 0.6 * sheet.unit)
    rock = common.shade(blend(sheet.paints.ground, sheet.paints.dark, 0.25), rng.uniform(0.85, 1.1))
    peak = x + half * rng.uniform(0.85, 1.1)
    sheet.fill([(x, horizon + 1), (peak, top), (x + 2 * half, horizon + 1)], rock)
    sheet.fill([(peak, top), (x + 2 * half, horizon + 1), (peak + 0.1 * half, horizon + 1)], common.shade(rock, 0.72))
    snow = [(peak + (edge - peak) * 0.32, top + (horizon - top) * 0.32) for edge in (x, x + 2 * half)]
    middle, edge = (snow[0][0] + snow[1][0]) / 2, snow[0][1]
    sheet.fill([(peak, top), snow[1], (middle + 0.04 * half, edge - 0.1 * half), (middle - 0.05 * half, edge + 0.05 * half), snow[0]],
               (244, 244, 246))
    x += half * rng.uniform(1.0, 1.7)


def plain(sheet: Sheet, horizon: float):
  """Bare ground below `horizon`."""
  paints = sheet.paints
  gradient(sheet, horizon, sheet.height, blend(paints.ground, paints.wall, 0.35), paints.ground, 4)
  sheet.line([(0, horizon), (sheet.width, horizon)], common.shade(paints.ground, 0.6), 0.012 * sheet.unit)


def niche(sheet: Sheet, left: float, right: float, top: float, bottom: float, colour):
  """A panel between these four sides with a round arch at its top."""
  radius = (right - left) / 2
  angle = np.linspace(math.pi, 2 * math.pi, 15)
  arch = np.stack([(left + right) / 2 + radius * np.cos(angle), top + radius + radius * np.sin(angle)], 1)
  shape = [(left, bottom), *arch, (right, bottom)]
  sheet.fill(shape, colour)
  sheet.line(shape, sheet.paints.dark, 0.022 * sheet.unit, closed=True)
  foot = np.array([(left + right) / 2, bottom])
  sheet.line((np.array(shape) - foot) * (0.93, 0.97) + foot, common.shade(colour, 0.75), 0.012 * sheet.unit)
