"""People of the synthetic works of art: whole figures, busts, crowns.

Each function draws one in the frame of its pen (`artwork_sheet.Pen`): x to the right and y down, from -0.5 to 0.5; the
colours of clothes are those of the pen's paints.
"""

import numpy as np

from attr_jax.data.worlds import common
from attr_jax.data.worlds.artwork_sheet import Pen

HAND = (0.215, 0.02)  # of a figure, where it holds something


def _garment(rng, pen: Pen) -> tuple:
  return pen.paints.accents[int(rng.integers(3))]


def _hair(rng) -> tuple:
  return common.hsv(rng.uniform(0.03, 0.09), rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.5))


def _arms(pen: Pen, colour):
  for side in (-1, 1):
    pen.line([(side * 0.11, -0.22), (side * 0.19, -0.08), (side * HAND[0], HAND[1])], common.shade(colour, 0.75), 0.07)
    pen.oval(side * HAND[0], HAND[1], 0.032, 0.032, pen.paints.skin)


def _head(pen: Pen, radius: float = 0.085, y: float = -0.36):
  pen.oval(0, y, radius, radius * 1.15, pen.paints.skin)
  for side in (-1, 1):
    pen.oval(side * 0.38 * radius, y - 0.05 * radius, 0.14 * radius, 0.16 * radius, (40, 30, 30), 0)


def man(rng, pen: Pen):
  """Legs below a short tunic, short hair, often a beard."""
  colour, hair = _garment(rng, pen), _hair(rng)
  legs = common.shade(pen.paints.accents[int(rng.integers(3))], 0.6)
  for side in (-1, 1):
    pen.fill([(side * 0.02, 0.12), (side * 0.12, 0.12), (side * 0.11, 0.47), (side * 0.16, 0.5), (side * 0.03, 0.5)], legs)
  pen.fill([(-0.14, -0.26), (0.14, -0.26), (0.12, 0.0), (0.19, 0.2), (-0.19, 0.2), (-0.12, 0.0)], colour)
  pen.line([(-0.12, 0.01), (0.12, 0.01)], pen.paints.dark, 0.03)
  _arms(pen, colour)
  pen.oval(0, -0.385, 0.098, 0.095, hair)
  _head(pen)
  if rng.random() < 0.6:
    pen.fill([(-0.075, -0.34), (-0.03, -0.315), (0.03, -0.315), (0.075, -0.34), (0.05, -0.25), (0, -0.225), (-0.05, -0.25)], hair, 0)


def woman(rng, pen: Pen):
  """A wide skirt, a narrow waist, long hair."""
  colour, hair = _garment(rng, pen), _hair(rng)
  pen.fill([(-0.07, -0.46), (0.07, -0.46), (0.13, -0.38), (0.135, -0.14), (-0.135, -0.14), (-0.13, -0.38)], hair)
  pen.fill([(-0.11, -0.25), (0.11, -0.25), (0.065, -0.03), (0.16, 0.2), (0.28, 0.5), (-0.28, 0.5), (-0.16, 0.2), (-0.065, -0.03)], colour)
  pen.line([(-0.24, 0.42), (0.24, 0.42)], pen.paints.accents[3], 0.025)
  pen.line([(-0.06, -0.03), (0.06, -0.03)], pen.paints.accents[3], 0.025)
  _arms(pen, colour)
  _head(pen, 0.078)


def child(rng, pen: Pen):
  """Half as high, with a large head and a smock."""
  small = pen.part(0, 0.22, 0.56)
  colour = pen.paints.accents[3]
  for side in (-1, 1):
    small.line([(side * 0.08, 0.3), (side * 0.09, 0.49)], pen.paints.skin, 0.09)
  small.fill([(-0.14, -0.1), (0.14, -0.1), (0.24, 0.34), (-0.24, 0.34)], colour)
  for side in (-1, 1):
    small.line([(side * 0.13, -0.05), (side * 0.32, 0.1)], common.shade(colour, 0.8), 0.09)
  small.oval(0, -0.3, 0.2, 0.19, _hair(rng))
  _head(small, 0.17, -0.25)


def soldier(rng, pen: Pen):
  """A man with helmet, mail and a spear."""
  man(rng, pen)
  steel = common.hsv(0.6, 0.07, rng.uniform(0.62, 0.78))
  pen.fill([(-0.13, -0.26), (0.13, -0.26), (0.115, -0.01), (-0.115, -0.01)], steel)
  for y in (-0.2, -0.13, -0.06):
    pen.line([(-0.12, y), (0.12, y)], common.shade(steel, 0.6), 0.012)
  pen.fill([(-0.1, -0.37), (-0.09, -0.45), (0, -0.5), (0.09, -0.45), (0.1, -0.37)], steel)
  pen.fill([(-0.02, -0.49), (0.0, -0.57), (0.12, -0.52), (0.1, -0.46)], pen.paints.accents[0])
  pen.line([(0.25, -0.62), (0.25, 0.5)], (92, 70, 48), 0.026)
  pen.fill([(0.25, -0.74), (0.295, -0.62), (0.25, -0.57), (0.205, -0.62)], steel)


def saint(rng, pen: Pen, female: bool):
  """A long robe with a stole, and a halo; `female` has a veil, the others a beard."""
  colour, hair, gold = _garment(rng, pen), _hair(rng), pen.paints.gold
  pen.oval(0, -0.36, 0.17, 0.17, gold, 0.5)
  pen.ring(0, -0.36, 0.145, 0.145, common.shade(gold, 0.62), 0.012)
  if female:
    pen.fill([(-0.09, -0.44), (0.09, -0.44), (0.14, -0.3), (0.15, -0.05), (-0.15, -0.05), (-0.14, -0.3)], pen.paints.accents[3])
  pen.fill([(-0.15, -0.25), (0.15, -0.25), (0.17, 0.1), (0.2, 0.5), (-0.2, 0.5), (-0.17, 0.1)], colour)
  pen.fill([(-0.035, -0.25), (0.035, -0.25), (0.05, 0.5), (-0.05, 0.5)], pen.paints.accents[3])
  for y in (0.05, 0.25):
    pen.fill([(-0.012, y - 0.05), (0.012, y - 0.05), (0.012, y + 0.05), (-0.012, y + 0.05)], pen.paints.dark, 0)
  _arms(pen, colour)
  if not female:
    pen.oval(0, -0.385, 0.095, 0.09, hair)
  _head(pen, 0.08)
  if not female:
    pen.fill([(-0.07, -0.34), (-0.03, -0.315), (0.03, -0.315), (0.07, -0.34), (0.05, -0.24), (0, -0.2), (-0.05, -0.24)], hair, 0)


def angel(rng, pen: Pen):
  """A small robe between two wings."""
  wing = pen.paints.accents[3]
  for side in (-1, 1):
    feathers = np.array([(0.06, -0.16), (0.2, -0.42), (0.38, -0.46), (0.5, -0.34), (0.46, -0.12), (0.36, 0.06), (0.22, 0.12), (0.1, 0.02)])
    pen.fill(feathers * (side, 1), wing)
    for end in ((0.44, -0.36), (0.42, -0.16), (0.33, 0.0)):
      pen.line([(side * 0.12, -0.12), (side * end[0], end[1])], common.shade(wing, 0.62), 0.02)
  pen.fill([(-0.1, -0.18), (0.1, -0.18), (0.2, 0.42), (0, 0.5), (-0.2, 0.42)], _garment(rng, pen))
  pen.oval(0, -0.3, 0.11, 0.11, _hair(rng))
  _head(pen, 0.09, -0.28)
  pen.ring(0, -0.44, 0.12, 0.035, pen.paints.gold, 0.028)


def crown(rng, pen: Pen):
  """Golden points; the frame's lower half is left free for a head."""
  gold = pen.paints.gold
  pen.fill([(-0.5, 0.05), (-0.5, -0.42), (-0.25, -0.12), (0, -0.5), (0.25, -0.12), (0.5, -0.42), (0.5, 0.05)], gold, 0.4)
  for x in (-0.5, 0, 0.5):
    pen.oval(x, -0.45, 0.07, 0.07, pen.paints.accents[0], 0.4)


def bust(rng, pen: Pen, kind: str, crowned: bool):
  """Head and shoulders, for portraits; `kind` is "men", "women" or "children", `crowned` puts a crown on it."""
  colour, hair, skin = _garment(rng, pen), _hair(rng), pen.paints.skin
  child_ = kind == "children"
  rx, ry, y = (0.165, 0.2, -0.13) if not child_ else (0.175, 0.185, -0.02)
  if kind == "women":
    pen.fill([(-0.16, -0.3), (-0.08, -0.38), (0.08, -0.38), (0.16, -0.3), (0.24, -0.1), (0.27, 0.24), (-0.27, 0.24), (-0.24, -0.1)], hair)
  wide = {"men": 0.46, "women": 0.36, "children": 0.28}[kind]
  shoulders = [(-0.1, 0.14), (0.1, 0.14), (wide * 0.8, 0.2), (wide, 0.32), (wide, 0.5), (-wide, 0.5), (-wide, 0.32), (-wide * 0.8, 0.2)]
  pen.fill([(-0.075, y), (0.075, y), (0.085, 0.2), (-0.085, 0.2)], common.shade(skin, 0.85))
  pen.fill(shoulders, colour)
  if kind == "women":
    pen.fill([(-0.17, 0.16), (0.17, 0.16), (0.1, 0.31), (0, 0.35), (-0.1, 0.31)], skin)
    for x in np.linspace(-0.11, 0.11, 6):
      pen.oval(x, 0.25 - 3.5 * x * x, 0.018, 0.018, pen.paints.accents[3], 0.5)
  else:
    pen.fill([(-0.12, 0.14), (0.12, 0.14), (0.02, 0.36), (-0.02, 0.36)], pen.paints.accents[3])
  if kind == "men":
    pen.oval(0, y - 0.055, rx * 1.12, ry * 0.98, hair)
  elif child_:
    pen.oval(0, y - 0.05, rx * 1.08, ry * 1.0, hair)
  pen.oval(0, y, rx, ry, skin)
  if kind == "women":
    parting = [(-0.165, -0.03), (-0.13, -0.19), (0, -0.235), (0.13, -0.19), (0.165, -0.03), (0.08, -0.14), (0, -0.165), (-0.08, -0.14)]
    pen.fill(np.array(parting) + (0, y), hair, 0)
  if kind == "men" and rng.random() < 0.65:
    beard = [(-0.16, 0.02), (-0.1, 0.09), (0.1, 0.09), (0.16, 0.02), (0.13, 0.2), (0, 0.29), (-0.13, 0.2)]
    pen.fill(np.array(beard) + (0, y), hair)
  for side in (-1, 1):
    pen.oval(side * 0.065, y - 0.02, 0.028, 0.017, (245, 243, 238), 0.4)
    pen.oval(side * 0.065, y - 0.02, 0.014, 0.016, (35, 28, 26), 0)
    pen.line([(side * 0.03, y - 0.06), (side * 0.1, y - 0.065)], common.shade(hair, 0.8), 0.016)
  pen.line([(0.005, y - 0.01), (0.02, y + 0.055), (-0.005, y + 0.06)], common.shade(skin, 0.65), 0.014)
  pen.line([(-0.045, y + 0.105), (0, y + 0.115), (0.045, y + 0.105)], (168, 68, 66), 0.022)
  if crowned:
    crown(rng, pen.part(0, y - 0.2, 0.28))
