"""Animals, plants, buildings and objects of the synthetic works of art.

Each function draws one thing in the frame of its pen (`artwork_sheet.Pen`): x to the right and y down, from -0.5 to 0.5. `rng`
decides colours and small differences of shape; animals look to the right.
"""

import math

import numpy as np

from attr_jax.data.worlds import common
from attr_jax.data.worlds.artwork_sheet import Pen

_GREEN, _WOOD, _STEEL, _STONE = (88, 128, 62), (112, 80, 52), (176, 182, 190), (206, 198, 184)


def _coat(rng) -> tuple:
  """Of a horse."""
  return common.hsv(0.07, rng.uniform(0.05, 0.6), rng.uniform(0.25, 0.9))


# ---- Animals. ----


def horse(rng, pen: Pen):
  """Standing, from the side."""
  coat = _coat(rng)
  dark = common.shade(coat, 0.55)
  pen.line([(-0.36, -0.1), (-0.47, 0.05), (-0.46, 0.28)], dark, 0.07)
  for x, bend in ((-0.27, -0.04), (-0.17, 0.05), (0.13, 0.0), (0.23, 0.07)):
    pen.line([(x, 0.05), (x + bend, 0.27), (x + 0.5 * bend, 0.48)], common.shade(coat, 0.82), 0.075)
  pen.oval(-0.04, -0.02, 0.34, 0.17, coat)
  pen.fill([(0.1, -0.06), (0.27, -0.42), (0.38, -0.47), (0.4, -0.36), (0.3, 0.02), (0.2, 0.1)], coat)
  pen.fill([(0.28, -0.46), (0.4, -0.49), (0.56, -0.3), (0.52, -0.23), (0.42, -0.27), (0.32, -0.33)], coat)
  pen.line([(0.12, -0.15), (0.2, -0.35), (0.31, -0.5)], dark, 0.06)
  pen.oval(0.4, -0.39, 0.018, 0.018, (30, 25, 25), 0)


def rider(rng, pen: Pen):
  """A man on a horse."""
  horse(rng, pen.part(0, 0.16, 0.68))
  colour = pen.paints.accents[int(rng.integers(3))]
  pen.line([(-0.02, 0.06), (0.07, 0.2), (0.04, 0.33)], common.shade(colour, 0.6), 0.065)
  pen.fill([(-0.1, -0.2), (0.08, -0.2), (0.07, 0.09), (-0.09, 0.09)], colour)
  pen.line([(0.0, -0.15), (0.1, -0.04), (0.2, -0.05)], common.shade(colour, 0.75), 0.055)
  pen.oval(-0.005, -0.3, 0.075, 0.085, common.hsv(0.06, 0.5, rng.uniform(0.15, 0.45)))
  pen.oval(0.01, -0.28, 0.062, 0.072, pen.paints.skin)


def lion(rng, pen: Pen):
  """Standing, from the side, its face to the front, with a mane."""
  coat = common.hsv(0.095, rng.uniform(0.55, 0.7), rng.uniform(0.72, 0.85))
  mane = common.shade(coat, 0.58)
  pen.line([(-0.36, 0.05), (-0.47, -0.1), (-0.4, -0.28)], coat, 0.04)
  pen.oval(-0.39, -0.3, 0.055, 0.06, mane)
  for x in (-0.27, -0.16, 0.1, 0.2):
    pen.fill([(x - 0.045, 0.1), (x + 0.045, 0.1), (x + 0.045, 0.46), (x + 0.075, 0.5), (x - 0.045, 0.5)], common.shade(coat, 0.9))
  pen.oval(-0.05, 0.06, 0.33, 0.15, coat)
  angle = np.arange(26) * (2 * math.pi / 26)
  radius = np.where(np.arange(26) % 2, 0.22, 0.27)
  pen.fill(np.stack([0.25 + radius * np.cos(angle), -0.12 + radius * np.sin(angle)], 1), mane)
  pen.oval(0.27, -0.11, 0.135, 0.14, coat)
  for x in (0.22, 0.32):
    pen.oval(x, -0.14, 0.02, 0.022, (35, 25, 20), 0)
  pen.fill([(0.24, -0.08), (0.3, -0.08), (0.27, -0.04)], (70, 40, 30), 0)
  pen.line([(0.22, 0.0), (0.27, -0.02), (0.32, 0.0)], (70, 40, 30), 0.02)


def bird(rng, pen: Pen):
  """In flight, seen from the side."""
  colour = pen.paints.accents[int(rng.integers(3))]
  pen.fill([(-0.5, 0.1), (-0.3, -0.02), (-0.28, 0.1), (-0.48, 0.24)], common.shade(colour, 0.75))
  body = common.oval((0, 0.05), 0.3, 0.14)
  pen.fill(body, colour)
  pen.oval(0.29, -0.06, 0.12, 0.11, colour)
  pen.fill([(0.39, -0.09), (0.54, -0.03), (0.39, 0.01)], (224, 160, 50))
  pen.fill([(0.12, 0.0), (-0.1, -0.46), (-0.3, -0.48), (-0.24, -0.2), (-0.2, 0.04)], common.shade(colour, 1.25))
  for x in (-0.02, -0.1):
    pen.line([(x, -0.03), (x - 0.14, -0.4)], common.shade(colour, 0.65), 0.025)
  pen.oval(0.31, -0.09, 0.025, 0.025, (25, 20, 20), 0)


def fish(rng, pen: Pen):
  """From the side, orange or silver, with stripes."""
  colour = common.hsv(*((0.05, 0.65, 0.85) if rng.random() < 0.4 else (0.55, 0.12, 0.82)))
  colour = pen.paints.mixed(colour, 0.25)
  pen.fill([(-0.28, 0.0), (-0.52, -0.22), (-0.45, 0.0), (-0.52, 0.22)], common.shade(colour, 0.78))
  pen.fill([(-0.08, -0.14), (0.1, -0.3), (0.16, -0.13)], common.shade(colour, 0.78))
  t = np.linspace(-1, 1, 10)
  upper = np.stack([0.42 * t + 0.06, -0.19 * (1 - t**2) ** 0.8], 1)
  pen.fill(np.concatenate([upper, upper[::-1] * (1, -1)]), colour)
  for x in (-0.14, 0.0, 0.13):
    pen.line([(x, -0.11), (x + 0.05, 0.0), (x, 0.11)], common.shade(colour, 0.6), 0.024)
  pen.line([(0.26, -0.11), (0.23, 0.0), (0.26, 0.11)], common.shade(colour, 0.55), 0.026)
  pen.oval(0.34, -0.035, 0.032, 0.032, (250, 248, 240), 0.3)


def snake(rng, pen: Pen):
  """Green with yellow spots, in bends, its head raised."""
  colour = common.hsv(rng.uniform(0.2, 0.3), 0.6, rng.uniform(0.45, 0.6))
  t = np.linspace(0, 1, 30)
  points = np.stack([-0.44 + 0.8 * t, 0.3 - 0.5 * t**2 + 0.17 * np.sin(t * 4.2 * math.pi) * (1 - 0.5 * t)], 1)
  pen.line(points, common.shade(colour, 0.45), 0.115)
  pen.line(points, colour, 0.085)
  for point in points[3:-2:4]:
    pen.oval(*point, 0.022, 0.022, (232, 200, 92), 0)
  head = points[-1]
  pen.fill(np.array([(-0.07, -0.05), (0.06, -0.075), (0.15, 0.0), (0.06, 0.06), (-0.07, 0.05)]) + head, colour, 0.4)
  pen.line([head + (0.14, 0.0), head + (0.22, -0.02), head + (0.25, -0.06)], (190, 50, 40), 0.02)
  pen.oval(head[0] + 0.05, head[1] - 0.025, 0.018, 0.018, (250, 240, 200), 0)


def butterfly(rng, pen: Pen):
  """From above, its four wings spread."""
  colour = pen.paints.accents[int(rng.integers(2))]
  for side in (-1, 1):
    pen.fill(np.array([(0.03, -0.05), (0.2, -0.42), (0.45, -0.4), (0.46, -0.12), (0.2, 0.04)]) * (side, 1), colour, 0.4)
    pen.fill(np.array([(0.03, 0.0), (0.24, 0.05), (0.38, 0.22), (0.26, 0.42), (0.1, 0.32)]) * (side, 1), common.shade(colour, 1.3), 0.4)
    pen.oval(side * 0.31, -0.26, 0.07, 0.07, pen.paints.accents[3], 0.4)
    pen.oval(side * 0.22, 0.22, 0.05, 0.05, pen.paints.dark, 0)
    pen.line([(0, -0.2), (side * 0.08, -0.38), (side * 0.14, -0.46)], (40, 32, 30), 0.022)
  pen.oval(0, 0.03, 0.035, 0.28, (48, 38, 34), 0)


# ---- Plants. ----


def tree(rng, pen: Pen):
  """A round crown on a trunk; three in ten are cypresses."""
  green = pen.paints.mixed(common.hsv(rng.uniform(0.22, 0.34), rng.uniform(0.4, 0.6), rng.uniform(0.38, 0.58)), 0.22)
  pen.fill([(-0.045, 0.0), (0.045, 0.0), (0.07, 0.5), (-0.07, 0.5)], _WOOD)
  if rng.random() < 0.3:  # a cypress
    pen.fill([(0, -0.5), (0.1, -0.25), (0.15, 0.05), (0.1, 0.25), (-0.1, 0.25), (-0.15, 0.05), (-0.1, -0.25)], green)
    return
  crown = [(-0.2, 0.0, 0.19), (0.2, 0.0, 0.19), (-0.12, -0.22, 0.19), (0.14, -0.22, 0.18), (0, -0.32, 0.17), (0, -0.08, 0.2)]
  for x, y, radius in crown:
    pen.oval(x, y, radius, radius, green)
  for x, y, radius in crown:
    pen.oval(x - 0.04, y - 0.05, radius * 0.62, radius * 0.6, common.shade(green, rng.uniform(1.05, 1.3)), 0)


def _petals(pen: Pen, x: float, y: float, radius: float, colour, count: int, turn: float):
  for i in range(count):
    angle = turn + 2 * math.pi * i / count
    pen.oval(x + 0.62 * radius * math.cos(angle), y + 0.62 * radius * math.sin(angle), 0.4 * radius, 0.4 * radius, colour)
  pen.oval(x, y, 0.34 * radius, 0.34 * radius, (236, 190, 70))


def flower(rng, pen: Pen):
  """One with stem and two leaves."""
  green = pen.paints.mixed(_GREEN, 0.2)
  pen.line([(0, -0.1), (0.03, 0.2), (0, 0.5)], green, 0.045)
  for side in (-1, 1):
    pen.fill([(0.01, 0.32), (side * 0.14, 0.14), (side * 0.28, 0.13), (side * 0.18, 0.28)], green)
  hue = float(rng.choice([0.0, 0.14, 0.8, 0.93, 0.62]))
  colour = common.hsv(hue + rng.normal(0, 0.015), rng.uniform(0.4, 0.75), rng.uniform(0.8, 0.97))
  _petals(pen, 0, -0.2, 0.3, colour, int(rng.integers(5, 8)), rng.uniform(0, 1))


def bouquet(rng, pen: Pen):
  """Flowers that stand in something at the frame's lower edge."""
  for turn in (-0.55, 0.0, 0.55, -0.25, 0.28):
    x, y = 0.5 * math.sin(turn), 0.5 - math.cos(turn) * rng.uniform(0.75, 1.0)
    flower(rng, pen.part(x * 0.75, (y + 0.5) / 2, 0.72, turn))


def fruit(rng, pen: Pen):
  """Apples, pears and grapes in a heap."""
  for x, y, kind in ((-0.24, 0.28, 0), (0.24, 0.28, 1), (0, 0.28, 2), (-0.1, -0.02, 1), (0.13, -0.0, 0)):
    hue = rng.uniform(0.0, 0.05) if kind == 0 else rng.uniform(0.1, 0.22) if kind == 1 else rng.uniform(0.02, 0.12)
    colour = common.hsv(hue, rng.uniform(0.65, 0.85), rng.uniform(0.7, 0.92))
    pen.oval(x, y, 0.19, 0.19, colour)
    pen.oval(x - 0.06, y - 0.07, 0.05, 0.045, common.shade(colour, 1.5), 0)
    pen.line([(x, y - 0.17), (x + 0.04, y - 0.27)], _WOOD, 0.03)
  pen.fill([(0.02, -0.2), (0.14, -0.34), (0.3, -0.32), (0.18, -0.2)], _GREEN)


# ---- Sky. ----


def sun(rng, pen: Pen):
  """A disc with twelve rays."""
  colour = common.hsv(rng.uniform(0.1, 0.14), 0.75, 0.97)
  for i in range(12):
    angle = 2 * math.pi * i / 12
    direction, side = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    pen.fill([0.27 * direction + 0.07 * side, 0.5 * direction, 0.27 * direction - 0.07 * side], colour, 0.7)
  pen.oval(0, 0, 0.27, 0.27, colour, 0.7)


def moon(rng, pen: Pen):
  """A crescent, always the same."""
  angle = np.linspace(0.6, 2 * math.pi - 0.6, 20)
  outer = np.stack([0.42 * np.cos(angle), 0.42 * np.sin(angle)], 1)
  inner_angle = np.linspace(2 * math.pi - 0.85, 0.85, 20)
  inner = np.stack([0.17 + 0.34 * np.cos(inner_angle), 0.34 * np.sin(inner_angle)], 1)
  pen.fill(np.concatenate([outer, inner]), (244, 236, 204), 0.75)


def star(rng, pen: Pen):
  """With five points."""
  angle = np.arange(10) * (math.pi / 5) - math.pi / 2 + rng.normal(0, 0.15)
  radius = np.where(np.arange(10) % 2, 0.2, 0.5)
  pen.fill(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), (252, 240, 190), 0.7)


# ---- Buildings. ----


def house(rng, pen: Pen):
  """From the front: a wall with a door and two windows, roof and chimney; always the same but for its colours."""
  wall, roof = pen.paints.accents[3], pen.paints.accents[0]
  pen.fill([(-0.34, -0.05), (0.34, -0.05), (0.34, 0.5), (-0.34, 0.5)], wall)
  pen.fill([(-0.44, -0.02), (-0.26, -0.4), (0.26, -0.4), (0.44, -0.02)], roof)
  pen.fill([(0.14, -0.48), (0.24, -0.48), (0.24, -0.3), (0.14, -0.3)], common.shade(roof, 0.75))
  pen.fill([(-0.07, 0.2), (0.09, 0.2), (0.09, 0.5), (-0.07, 0.5)], common.shade(roof, 0.6))
  for x in (-0.24, 0.2):
    pen.fill([(x - 0.06, 0.08), (x + 0.06, 0.08), (x + 0.06, 0.22), (x - 0.06, 0.22)], pen.paints.dark)


def temple(rng, pen: Pen):
  """Columns on steps, with a gable."""
  stone = pen.paints.mixed(_STONE, 0.15)
  pen.fill([(-0.5, 0.44), (0.5, 0.44), (0.54, 0.5), (-0.54, 0.5)], stone)
  pen.fill([(-0.42, -0.1), (0.42, -0.1), (0.42, 0.44), (-0.42, 0.44)], common.shade(stone, 0.5))
  for x in np.linspace(-0.4, 0.4, 5):
    pen.fill([(x - 0.05, -0.1), (x + 0.05, -0.1), (x + 0.055, 0.44), (x - 0.055, 0.44)], stone)
  pen.fill([(-0.5, -0.2), (0.5, -0.2), (0.5, -0.1), (-0.5, -0.1)], stone)
  pen.fill([(-0.52, -0.2), (0, -0.48), (0.52, -0.2)], stone)
  pen.fill([(-0.26, -0.23), (0, -0.37), (0.26, -0.23)], pen.paints.accents[0])


def castle(rng, pen: Pen):
  """Two towers and a wall with battlements."""
  stone = common.shade(pen.paints.mixed(_STONE, 0.25), 0.82)
  pen.fill([(-0.4, 0.0), (0.4, 0.0), (0.4, 0.5), (-0.4, 0.5)], stone)
  for x, top in ((-0.36, -0.3), (0.36, -0.3), (0, -0.16)):
    width = 0.14
    teeth = [(x + width * a, top - (0.09 if i % 4 in (1, 2) else 0)) for i, a in enumerate(np.repeat(np.linspace(-1, 1, 6), 2)[1:-1])]
    pen.fill([*teeth, (x + width, 0.5), (x - width, 0.5)], common.shade(stone, 1.1))
    pen.fill([(x - 0.035, top + 0.14), (x + 0.035, top + 0.14), (x + 0.035, top + 0.28), (x - 0.035, top + 0.28)], pen.paints.dark, 0)
  pen.fill([(-0.09, 0.5), (-0.09, 0.3), (0, 0.22), (0.09, 0.3), (0.09, 0.5)], pen.paints.dark)


# ---- Objects. ----


def ship(rng, pen: Pen):
  """From the side, with two masts under sail; always the same but for its colours."""
  sail = pen.paints.accents[3]
  for x, low in ((-0.14, 0.24), (0.16, 0.24)):
    pen.line([(x, -0.5), (x, low)], _WOOD, 0.03)
  pen.fill([(-0.42, -0.3), (-0.04, -0.34), (0.0, 0.12), (-0.44, 0.14), (-0.36, -0.08)], sail)
  pen.fill([(0.06, -0.42), (0.36, -0.38), (0.4, 0.1), (0.06, 0.12), (0.13, -0.15)], sail)
  for y in (-0.12, 0.02):
    pen.line([(-0.37, y), (-0.05, y - 0.02)], pen.paints.accents[0], 0.03)
  pen.fill([(0.16, -0.5), (0.34, -0.46), (0.16, -0.42)], pen.paints.accents[0])
  pen.fill([(-0.5, 0.16), (-0.38, 0.22), (0.36, 0.22), (0.52, 0.12), (0.4, 0.42), (-0.36, 0.42)], _WOOD)
  pen.line([(-0.42, 0.28), (0.44, 0.27)], pen.paints.accents[1], 0.03)


def cross(rng, pen: Pen):
  """Of gold, with a stone."""
  gold = pen.paints.gold
  pen.fill([(-0.06, -0.5), (0.06, -0.5), (0.06, -0.22), (0.27, -0.22), (0.27, -0.1), (0.06, -0.1), (0.06, 0.5), (-0.06, 0.5), (-0.06, -0.1),
            (-0.27, -0.1), (-0.27, -0.22), (-0.06, -0.22)], gold, 0.42)
  pen.oval(0, -0.16, 0.05, 0.05, pen.paints.accents[0])


def sword(rng, pen: Pen):
  """Upright, its point up."""
  pen.fill([(-0.04, 0.22), (-0.04, -0.38), (0, -0.5), (0.04, -0.38), (0.04, 0.22)], _STEEL, 0.45)
  pen.line([(0, -0.36), (0, 0.2)], (120, 126, 134), 0.012)
  pen.fill([(-0.17, 0.2), (0.17, 0.2), (0.17, 0.27), (-0.17, 0.27)], pen.paints.gold, 0.4)
  pen.line([(0, 0.26), (0, 0.42)], _WOOD, 0.06)
  pen.oval(0, 0.45, 0.05, 0.05, pen.paints.gold, 0.4)


def shield(rng, pen: Pen):
  """From the front, quartered in two colours."""
  first, second = pen.paints.accents[0], pen.paints.accents[3]
  pen.fill([(-0.4, -0.45), (0.4, -0.45), (0.4, 0.05), (0.25, 0.32), (0, 0.5), (-0.25, 0.32), (-0.4, 0.05)], second, 0.4)
  pen.fill([(0, -0.43), (0.38, -0.43), (0.38, 0.0), (0, 0.0)], first, 0)
  pen.fill([(0, 0.0), (0, 0.47), (-0.24, 0.31), (-0.37, 0.05), (-0.38, 0.0)], first, 0)
  pen.oval(0, 0.0, 0.1, 0.1, pen.paints.gold, 0.45)


def vase(rng, pen: Pen):
  """With a foot, two handles and bands."""
  colour = pen.paints.accents[int(rng.integers(2))]
  for side in (-1, 1):
    pen.line([(side * 0.11, -0.38), (side * 0.33, -0.33), (side * 0.29, -0.08)], common.shade(colour, 0.6), 0.05)
  right = np.array([(0.16, -0.5), (0.1, -0.43), (0.09, -0.3), (0.24, -0.14), (0.31, 0.04), (0.25, 0.24), (0.1, 0.4), (0.16, 0.5)])
  pen.fill(np.concatenate([right, right[::-1] * (-1, 1)]), colour)
  for y, half in ((-0.2, 0.17), (0.3, 0.18)):
    pen.line([(-half, y), (half, y)], pen.paints.accents[3], 0.035)
  pen.line([(-0.15, -0.485), (0.15, -0.485)], common.shade(colour, 0.6), 0.04)


def cup(rng, pen: Pen):
  """A golden goblet."""
  gold = pen.paints.gold
  pen.fill([(-0.3, -0.42), (0.3, -0.42), (0.24, -0.08), (0.06, 0.08), (0.05, 0.36), (0.22, 0.46), (0.22, 0.5), (-0.22, 0.5), (-0.22, 0.46),
            (-0.05, 0.36), (-0.06, 0.08), (-0.24, -0.08)], gold, 0.42)
  pen.oval(0, -0.42, 0.3, 0.07, common.shade(gold, 0.45))
  pen.oval(0, 0.14, 0.085, 0.06, gold, 0.42)
  pen.line([(-0.25, -0.2), (0.25, -0.2)], pen.paints.accents[0], 0.05)


def candle(rng, pen: Pen):
  """Burning, on a golden dish."""
  pen.oval(0, 0.46, 0.22, 0.05, pen.paints.gold, 0.4)
  pen.fill([(-0.08, -0.12), (0.08, -0.12), (0.08, 0.45), (-0.08, 0.45)], (244, 238, 220), 0.7)
  pen.oval(0, -0.29, 0.19, 0.22, (252, 214, 120), 0)
  pen.fill([(0, -0.5), (0.1, -0.28), (0.06, -0.16), (-0.06, -0.16), (-0.1, -0.28)], (240, 130, 40), 0)
  pen.line([(0, -0.12), (0, -0.2)], (40, 30, 26), 0.025)


def book(rng, pen: Pen):
  """Open, with lines of writing."""
  pen.fill([(-0.5, -0.26), (0.5, -0.26), (0.5, 0.34), (-0.5, 0.34)], pen.paints.accents[0], 0.45)
  for side in (-1, 1):
    page = np.array([(0, -0.22), (0.24, -0.3), (0.45, -0.24), (0.45, 0.28), (0.24, 0.22), (0, 0.3)])
    pen.fill(page * (side, 1), (246, 240, 224), 0.6)
    for y in (-0.14, -0.04, 0.06, 0.16):
      pen.line([(side * 0.08, y), (side * 0.24, y - 0.04), (side * 0.38, y)], (96, 84, 76), 0.026)


def lute(rng, pen: Pen):
  """Its pear-shaped body below, the bent neck above."""
  wood = common.hsv(0.07, 0.62, rng.uniform(0.6, 0.75))
  pen.fill([(-0.03, -0.38), (0.03, -0.38), (0.04, 0.1), (-0.04, 0.1)], _WOOD)
  pen.fill([(-0.03, -0.38), (0.03, -0.38), (0.16, -0.5), (0.1, -0.53)], _WOOD)
  right = np.array([(0.03, -0.08), (0.16, 0.04), (0.24, 0.22), (0.2, 0.4), (0.08, 0.5)])
  pen.fill(np.concatenate([right, right[::-1] * (-1, 1)]), wood)
  pen.oval(0, 0.2, 0.07, 0.07, (52, 36, 28))
  pen.line([(-0.1, 0.4), (0.1, 0.4)], (60, 42, 32), 0.035)
  for x in (-0.015, 0.015):
    pen.line([(x, -0.36), (x, 0.4)], (240, 230, 205), 0.01)


def mask(rng, pen: Pen):
  """A face with holes for eyes and mouth, and a headdress of feathers."""
  colour = pen.paints.accents[int(rng.integers(2))]
  for i, angle in enumerate(np.linspace(-1.15, 1.15, 7)):
    tip = np.array([0.5 * math.sin(angle), 0.02 - 0.52 * math.cos(angle)])
    side = np.array([math.cos(angle), math.sin(angle)]) * 0.065
    pen.fill([(0.2 * math.sin(angle), -0.08), tip * 0.8 + (0, 0.0) + side, tip, tip * 0.8 - side], pen.paints.accents[(1, 3)[i % 2]])
  face = [(-0.28, -0.14), (-0.2, -0.27), (0.2, -0.27), (0.28, -0.14), (0.27, 0.14), (0.14, 0.4), (0, 0.48), (-0.14, 0.4), (-0.27, 0.14)]
  pen.fill(face, colour, 0.4)
  for side in (-1, 1):
    pen.oval(side * 0.115, -0.05, 0.075, 0.05, (28, 22, 22), 0)
    pen.line([(side * 0.05, -0.14), (side * 0.2, -0.16)], pen.paints.accents[3], 0.045)
    pen.line([(side * 0.13, 0.1), (side * 0.23, 0.12)], pen.paints.accents[3], 0.035)
    pen.line([(side * 0.12, 0.17), (side * 0.2, 0.2)], pen.paints.accents[3], 0.035)
  pen.fill([(0, -0.04), (0.055, 0.13), (-0.055, 0.13)], common.shade(colour, 0.7))
  pen.oval(0, 0.26, 0.1, 0.055, (28, 22, 22), 0)


def flag(pen: Pen, colour):
  """Of the given colour, on a lance; for battles."""
  pen.line([(0, -0.5), (0, 0.5)], _WOOD, 0.025)
  pen.fill([(0, -0.5), (0.4, -0.42), (0.28, -0.33), (0.4, -0.24), (0, -0.2)], colour)
