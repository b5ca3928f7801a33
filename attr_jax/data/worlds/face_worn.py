"""Draws what surrounds a face: backdrop, neck, clothes, jewels, glasses, and what sometimes stands in front.

Functions draw on `sheet`, its picture and its parsing (`face_sheet`), what `look` says, over what is there; coordinates in the
code are those of the face.
"""

import cv2
import numpy as np

from attr_jax.data.worlds.common import circle, cloth, hsv, oval, shade
from attr_jax.data.worlds.face_look import Look
from attr_jax.data.worlds.face_sheet import BACKGROUND, HEIGHT, STEP, WIDTH, Sheet, mirrored, smooth


def backdrop(rng: np.random.Generator) -> np.ndarray:
  """What is behind a person, uint8 [2 H, 2 W, 3]: out of focus, hence drawn small and enlarged."""
  height, width = HEIGHT // 4, WIDTH // 4
  first, second = (np.array(hsv(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.15, 0.95)), np.float32) for _ in range(2))
  ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
  small = np.repeat(first * (1 - ramp) + second * ramp, width, 1).astype(np.uint8)
  kind = rng.integers(5)
  if kind == 1:  # lights
    for x, y, r in zip(rng.uniform(0, width, 14), rng.uniform(0, height, 14), rng.uniform(1, 5, 14)):
      cv2.circle(small, (int(x), int(y)), int(r), hsv(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.5, 1.0)), -1)
  elif kind == 2:  # leaves
    for x, y, r in zip(rng.uniform(0, width, 45), rng.uniform(0, height, 45), rng.uniform(2, 6, 45)):
      cv2.circle(small, (int(x), int(y)), int(r), hsv(rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.7)), -1)
  elif kind == 3:  # a wall with signs
    for x, y in zip(rng.uniform(-5, width, 7), rng.uniform(0, height, 7)):
      cv2.rectangle(small, (int(x), int(y)), (int(x + rng.uniform(4, 14)), int(y + rng.uniform(3, 8))), cloth(rng), -1)
  elif kind == 4:  # shelves, curtains
    for x in np.arange(rng.uniform(-4, 0), width, rng.uniform(5, 10)):
      cv2.rectangle(small, (int(x), 0), (int(x + rng.uniform(1, 4)), height), cloth(rng), -1)
  small = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.6, 1.4))
  return cv2.resize(small, (WIDTH * STEP, HEIGHT * STEP), interpolation=cv2.INTER_CUBIC)


def draw_body(sheet: Sheet, look: Look):
  """Neck and clothes, with tie or necklace; before the head."""
  skin, top = look.skin, look.top_colour
  half = 1.28 if look["Male"] else 0.95
  if look["Chubby"]:
    half += 0.3
  at = sheet.place_flat
  shoulders = mirrored([(0, 4.0), (half * 0.95, 4.0), (2.5, 4.65), (4.2, 5.25), (5.0, 6.4), (5.4, 12), (5.4, 40), (0, 40)])
  sheet.fill(at(shoulders), skin if look.top == "scoop" else top, BACKGROUND)
  neck = mirrored([(0, 1.5), (half, 1.5), (half, 3.6), (half * 1.12, 4.25), (half * 0.8, 4.75), (0, 5.0)])
  sheet.fill(at(neck), shade(skin, 0.92), BACKGROUND)
  sheet.soft(at([(-half * 0.8, 3.0), (half * 0.8, 3.0), (half * 0.75, 3.7), (0, 4.0), (-half * 0.75, 3.7)]), shade(skin, 0.5), 0.75, 0.12)
  if look.top == "scoop":
    dress = [(1.75, 4.2), (4.6, 5.0), (6.0, 12), (6.0, 40), (-6.0, 40), (-6.0, 12), (-4.6, 5.0), (-1.75, 4.2), (-1.6, 5.2), (-0.8, 5.85), (0, 6.0),
             (0.8, 5.85), (1.6, 5.2)]
    sheet.fill(at(dress), top)
    for s in (-1, 1):
      sheet.line(at([(s * 0.35, 4.95), (s * 1.5, 4.75)]), shade(skin, 0.75), 0.06)  # collar bones
  elif look.top == "round":
    sheet.line(at(smooth([(-half * 1.05, 4.05), (-half * 0.8, 4.65), (0, 5.0), (half * 0.8, 4.65), (half * 1.05, 4.05)], False)), shade(top, 0.7), 0.18)
  else:
    _collar(sheet, look, half)
  if look["Wearing_Necktie"]:
    _tie(sheet, look)
  if look["Wearing_Necklace"]:
    _necklace(sheet, look, half)


def _collar(sheet: Sheet, look: Look, half: float):
  """Of a shirt, on its own or below the lapels of a suit."""
  at, top = sheet.place_flat, look.top_colour
  shirt = (236, 238, 242) if look.top == "suit" else top
  closed = look["Wearing_Necktie"]
  if look.top == "suit":
    sheet.fill(at([(-half, 4.1), (half, 4.1), (1.2, 5.0), (0.3, 9), (-0.3, 9), (-1.2, 5.0)]), shirt)
  gap = 0.05 if closed else 0.5
  if closed:
    sheet.fill(at([(-half, 4.1), (half, 4.1), (0.6, 5.2), (-0.6, 5.2)]), shirt)
  else:
    sheet.fill(at([(-half * 0.9, 4.1), (half * 0.9, 4.1), (0, 5.9)]), shade(look.skin, 0.88))
  for s in (-1, 1):
    flap = at([(s * half * 1.08, 3.85), (s * half * 0.8, 4.2), (s * gap, 4.65), (s * (gap + 0.55), 5.35), (s * half * 1.3, 4.5)])
    sheet.fill(flap, shade(shirt, 1.08))
    sheet.line(flap, shade(shirt, 0.62), 0.05, closed=True)
    if look.top == "suit":
      lapel = at([(s * half * 1.15, 4.1), (s * 2.3, 4.7), (s * 2.1, 5.3), (s * 2.4, 5.5), (s * 0.5, 9), (s * 0.2, 9)])
      sheet.fill(lapel, shade(top, 1.25))
      sheet.line(lapel, shade(top, 0.5), 0.06, closed=True)


def _tie(sheet: Sheet, look: Look):
  at, colour = sheet.place_flat, look.second_colour
  blade = at([(-0.26, 4.85), (0.26, 4.85), (0.5, 6.2), (0.6, 9), (-0.6, 9), (-0.5, 6.2)])
  sheet.fill(blade, colour)
  for y in np.arange(5.2, 7.5, 0.45):
    sheet.line(at([(-0.45, y + 0.25), (0.45, y - 0.15)]), shade(colour, 1.5) if sum(colour) < 300 else shade(colour, 0.6), 0.1)
  sheet.line(blade, shade(colour, 0.45), 0.05, closed=True)
  knot = at([(-0.42, 4.3), (0.42, 4.3), (0.26, 4.92), (-0.26, 4.92)])
  sheet.fill(knot, shade(colour, 0.85))
  sheet.line(knot, shade(colour, 0.4), 0.05, closed=True)


def _necklace(sheet: Sheet, look: Look, half: float):
  x = np.linspace(-1, 1, 19)
  beads = np.stack([x * (half + 0.2), 4.15 + 1.05 * (1 - x**2)], 1)
  for bead in beads:
    _jewel(sheet, sheet.place_flat(oval(bead, 0.12, 0.12, 10)), look.metal)
  _jewel(sheet, sheet.place_flat(oval((0, 5.42), 0.2, 0.24, 12)), look.second_colour)


def _jewel(sheet: Sheet, shape, colour):
  sheet.line(shape, shade(colour, 0.35), 0.07, closed=True)
  sheet.fill(shape, colour)
  sheet.fill((shape - shape.mean(0)) * 0.4 + shape.mean(0) - 0.3, (255, 255, 250))


def draw_earrings(sheet: Sheet, look: Look):
  """At the lobes; over the hair, or they would mostly be hidden."""
  for s in (-1, 1):
    x = s * 2.3 - 0.35 * sheet.view.yaw
    if look.earring == "hoop":
      ring = sheet.place(oval((x, 1.35), 0.38, 0.5))
      sheet.line(ring, shade(look.metal, 0.35), 0.2, closed=True)
      sheet.line(ring, look.metal, 0.11, closed=True)
    else:
      for y, size in ((0.85, 0.13), (1.15, 0.12), (1.6, 0.27)):
        _jewel(sheet, sheet.place(oval((x, y), size, size * 1.2, 12)), look.metal)


def draw_glasses(sheet: Sheet, look: Look):
  """Eyes behind clear lenses stay eyes in the masks; dark lenses are background."""
  def at(points):
    return sheet.place(points, 0.2)

  width, height = {"square": (0.80, 0.56), "round": (0.70, 0.68), "dark": (0.86, 0.66)}[look.glasses]
  corner = 0.45 if look.glasses != "round" else 1.0  # exponent of a superellipse
  unit = circle(28)
  shape = np.sign(unit) * np.abs(unit) ** corner * (width, height)
  for s in (-1, 1):
    lens = at(shape + (s * 1.05, 0.08))
    if look.glasses == "dark":
      sheet.fill(lens, look.frame_colour, BACKGROUND)
      sheet.soft(at([(s * 1.05 - 0.5, -0.35), (s * 1.05 - 0.1, -0.35), (s * 1.05 - 0.45, 0.3), (s * 1.05 - 0.6, 0.1)]), (200, 205, 215), 0.45, 0.05)
    else:
      sheet.soft(at([(s * 1.05 - 0.6, -0.4), (s * 1.05 - 0.35, -0.4), (s * 1.05 - 0.6, 0.2)]), (255, 255, 255), 0.5, 0.04)
    sheet.line(lens, look.frame_colour, 0.17, closed=True)
    sheet.line(at([(s * (1.05 + width), -0.1), (s * 2.15, -0.2)]), look.frame_colour, 0.14)
  sheet.line(at(smooth([(-1.05 + width, -0.05), (0, -0.18), (1.05 - width, -0.05)], False)), look.frame_colour, 0.15)


def draw_obstacle(rng: np.random.Generator, sheet: Sheet, look: Look):
  """A microphone, a hand or a glass before the chin or the jaw; never before eyes, nose or lips. Background in the masks."""
  s = float(rng.choice([-1, 1]))
  at = sheet.place_flat
  kind = rng.integers(3)
  if kind == 0:
    head = np.array([s * rng.uniform(0.9, 1.4), rng.uniform(3.5, 3.9)])
    sheet.fill(at([head + (-0.22, 0), head + (0.22, 0), head + (0.3 + s, 7), head + (-0.3 + s, 7)]), (28, 28, 32), BACKGROUND)
    sheet.fill(at(oval(head, 0.5, 0.6)), (62, 64, 70), BACKGROUND)
    sheet.fill(at(oval(head - (0.12, 0.15), 0.22, 0.26)), (110, 112, 118))
  elif kind == 1:
    skin = shade(look.skin, 0.97)
    sheet.fill(at([(s * 2.0, 3.3), (s * 3.6, 3.2), (s * 4.4, 8), (s * 2.6, 8)]), skin, BACKGROUND)
    for i, top in enumerate((2.3, 2.0, 2.1, 2.45)):
      x = s * (1.85 + 0.42 * i)
      finger = at(smooth([(x - 0.2, 3.6), (x - 0.19, top), (x, top - 0.2), (x + 0.19, top), (x + 0.2, 3.6)]))
      sheet.fill(finger, skin, BACKGROUND)
      sheet.line(finger, shade(skin, 0.65), 0.05)
  else:
    x, y = s * rng.uniform(1.6, 2.2), rng.uniform(3.0, 3.5)
    colour = cloth(rng)
    sheet.fill(at([(x - 0.75, y), (x + 0.75, y), (x + 0.6, y + 3.5), (x - 0.6, y + 3.5)]), colour, BACKGROUND)
    sheet.fill(at(oval((x, y), 0.75, 0.18)), shade(colour, 0.5), BACKGROUND)
