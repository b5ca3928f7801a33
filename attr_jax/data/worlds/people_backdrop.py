"""Backdrops and clutter of the synthetic street scenes.

Much of it resembles attributes on purpose: striped awnings, prints on signs,
hats on poles, patterned cloth on a line. A recogniser has to look at the person.
Functions draw on a canvas (`people_scene.Canvas`), over what is there; all positions and sizes are in photo pixels, y down.
"""

import colorsys

import cv2
import numpy as np


def _colour(rng, low: float = 0.2, high: float = 0.9, most: float = 0.8) -> tuple:
  return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, most), rng.uniform(low, high)))


def paint(rng: np.random.Generator, canvas, kind: str, horizon: float, sunny: bool):
  """Fills the canvas with ground, walls and far things of a `kind` of backdrop (`people_look.SceneKind`); `horizon` is its y."""
  height, width = canvas.rgb.shape[:2]
  y = int(horizon)
  outside = kind in ("street", "shops", "park", "pitch")
  sky = (rng.uniform(120, 190), rng.uniform(170, 215), 240) if sunny else (rng.uniform(150, 205),) * 3
  wall = _colour(rng, 0.45, 0.9, 0.3)
  _gradient(canvas.rgb[:y], sky if outside else wall, 1.0, 1.12)
  ground = {"park": (95, 135, 70), "pitch": (70, 140, 75), "hall": (140, 115, 90), "ward": (190, 195, 195)}.get(kind, (130, 128, 125))
  ground = np.clip(np.array(ground) * rng.uniform(0.75, 1.2) + rng.normal(0, 8, 3), 0, 255)
  _gradient(canvas.rgb[y:], ground, 0.85, 1.1)
  far = {"street": _houses, "shops": _shops, "park": _trees, "pitch": _stands, "hall": _hall, "ward": _hall}[kind]
  far(rng, canvas, horizon)
  if kind in ("street", "shops") and rng.random() < 0.5:  # a crossing
    for i in range(6):
      x = width * (i / 6 + 0.03)
      canvas.polygon([(x, height * 0.86), (x + width * 0.07, height * 0.86), (x + width * 0.06, height), (x - width * 0.03, height)], (205, 205, 200))
  for _ in range(rng.integers(1, 4)):
    _distraction(rng, canvas, rng.uniform(0, width), horizon + rng.uniform(0.02, 0.25) * height, height * rng.uniform(0.15, 0.35))


def _gradient(view: np.ndarray, colour, top: float, bottom: float):
  if len(view):
    ramp = np.linspace(top, bottom, len(view))[:, None, None]
    column = np.clip(ramp * np.asarray(colour, np.float64), 0, 255).astype(np.uint8)
    # The quickest way to repeat a column of three channels.
    view[:] = cv2.resize(column, (view.shape[1], len(view)), interpolation=cv2.INTER_NEAREST)


def _houses(rng, canvas, horizon):
  height, width = canvas.rgb.shape[:2]
  x = -20.0
  while x < width:
    w, top = rng.uniform(0.15, 0.32) * width, rng.uniform(-0.1, 0.5) * horizon
    wall = _colour(rng, 0.35, 0.85, 0.45)
    canvas.box(x, top, x + w, horizon + 0.06 * height, wall)
    glass = tuple(c * 0.55 for c in wall)
    step = w / rng.integers(3, 6)
    for wx in np.arange(x + step * 0.25, x + w - step * 0.5, step):
      for wy in np.arange(top + step * 0.3, horizon - step * 0.5, step * 1.3):
        canvas.box(wx, wy, wx + step * 0.5, wy + step * 0.8, glass)
    x += w


def _shops(rng, canvas, horizon):
  height, width = canvas.rgb.shape[:2]
  base = horizon + 0.10 * height
  x = rng.uniform(-60, 0)
  while x < width:
    w = rng.uniform(0.22, 0.4) * width
    canvas.box(x, 0, x + w, base, _colour(rng, 0.4, 0.9, 0.4))
    canvas.box(x + w * 0.08, base - 0.26 * height, x + w * 0.92, base - 0.02 * height, _colour(rng, 0.2, 0.5, 0.3))
    _cloth_on_show(rng, canvas, x + w * 0.3, base - 0.22 * height, 0.15 * height)
    awning = base - 0.28 * height
    first, second = _colour(rng), _colour(rng, 0.7, 1.0, 0.2)
    for i in range(8):
      a, b = x + w * i / 8, x + w * (i + 1) / 8
      canvas.polygon([(a + 4, awning - 0.07 * height), (b + 4, awning - 0.07 * height), (b, awning), (a, awning)], first if i % 2 else second)
    canvas.text(_word(rng), x + w * 0.15, awning - 0.10 * height, 0.05 * height, _colour(rng))
    x += w


def _trees(rng, canvas, horizon):
  height, width = canvas.rgb.shape[:2]
  for _ in range(rng.integers(4, 9)):
    x, size = rng.uniform(0, width), rng.uniform(0.15, 0.35) * height
    canvas.box(x - size * 0.06, horizon - size * 0.4, x + size * 0.06, horizon + size * 0.15, (85, 65, 45))
    for _ in range(4):
      green = np.array((60, 105, 50)) * rng.uniform(0.6, 1.3)
      canvas.oval(x + rng.normal(0, 0.25) * size, horizon - size * rng.uniform(0.4, 0.9), size * 0.35, size * 0.3, tuple(green))


def _stands(rng, canvas, horizon):
  height, width = canvas.rgb.shape[:2]
  canvas.box(0, horizon * 0.35, width, horizon, _colour(rng, 0.3, 0.6, 0.3))
  # The audience: dots of any colour, skin dots above them.
  for x, y in zip(rng.uniform(0, width, 90), rng.uniform(horizon * 0.4, horizon * 0.9, 90)):
    cv2.circle(canvas.rgb, (int(x), int(y)), 5, _colour(rng), -1)
    cv2.circle(canvas.rgb, (int(x), int(y) - 7), 3, (205, 165, 135), -1)
  x = 0.0
  while x < width:  # advertising boards
    w = rng.uniform(0.15, 0.3) * width
    canvas.box(x, horizon - 0.01 * height, x + w, horizon + 0.07 * height, _colour(rng))
    canvas.text(_word(rng), x + w * 0.1, horizon + 0.05 * height, 0.05 * height, _colour(rng, 0.8, 1.0, 0.2))
    x += w
  for y in (0.72, 0.9):
    canvas.box(0, height * y, width, height * y + 3, (225, 230, 225))


def _hall(rng, canvas, horizon):
  height, width = canvas.rgb.shape[:2]
  for _ in range(rng.integers(2, 5)):
    x, w = rng.uniform(0, width), rng.uniform(0.1, 0.25) * width
    kind = rng.integers(3)
    if kind == 0:  # a curtain with folds
      colour = _colour(rng, 0.3, 0.8)
      for i in range(8):
        canvas.box(x + w * i / 8, 0, x + w * (i + 1) / 8, horizon + 0.05 * height, tuple(c * (0.85 if i % 2 else 1.0) for c in colour))
    elif kind == 1:  # a picture
      canvas.box(x, 0.08 * height, x + w, 0.25 * height, (70, 55, 45))
      canvas.box(x + 5, 0.08 * height + 5, x + w - 5, 0.25 * height - 5, _colour(rng))
      canvas.oval(x + w / 2, 0.165 * height, w * 0.2, 0.05 * height, _colour(rng))
    else:  # a window
      canvas.box(x, 0.05 * height, x + w, horizon - 0.05 * height, (215, 228, 240))
      canvas.box(x + w * 0.47, 0.05 * height, x + w * 0.53, horizon - 0.05 * height, (150, 140, 130))
  canvas.box(0, horizon - 3, width, horizon + 4, (105, 95, 85))


def _word(rng) -> str:
  return "".join(chr(65 + int(i)) for i in rng.integers(0, 26, rng.integers(3, 6)))


def _cloth_on_show(rng, canvas, x, y, size):
  """A shirt without a person, often striped, checked or printed."""
  colour, second = _colour(rng), _colour(rng)
  right = np.array([(0.45, 0.0), (0.5, 0.35), (0.3, 0.35), (0.3, 1.0)])
  shirt = np.concatenate([right, right[::-1] * (-1, 1)])
  canvas.polygon(shirt * size + (x, y), colour)
  kind = rng.integers(3)
  if kind < 2:
    for i in range(5):
      canvas.box(x - size * 0.3, y + size * (0.1 + 0.18 * i), x + size * 0.3, y + size * (0.18 + 0.18 * i), second)
  if kind == 1:
    for i in range(3):
      canvas.box(x + size * (-0.22 + 0.18 * i), y + size * 0.05, x + size * (-0.15 + 0.18 * i), y + size, second)
  if kind == 2:
    canvas.oval(x, y + size * 0.45, size * 0.15, size * 0.15, second)


def _distraction(rng, canvas, x, ground, size):
  """Things behind the people that look like attributes."""
  kind = rng.integers(5)
  if kind == 0:  # a hat on a pole
    canvas.box(x - 3, ground - size, x + 3, ground, (90, 85, 80))
    colour = _colour(rng)
    canvas.oval(x, ground - size, size * 0.16, size * 0.035, colour)
    canvas.oval(x, ground - size * 1.04, size * 0.09, size * 0.07, colour)
  elif kind == 1:  # a sign with a print
    canvas.box(x - 3, ground - size, x + 3, ground, (120, 120, 120))
    canvas.box(x - size * 0.3, ground - size * 1.3, x + size * 0.3, ground - size * 0.8, _colour(rng))
    if rng.random() < 0.5:
      canvas.oval(x, ground - size * 1.05, size * 0.17, size * 0.17, _colour(rng))
    else:
      canvas.text(_word(rng), x - size * 0.26, ground - size, size * 0.2, _colour(rng))
  elif kind == 2:  # a striped flag
    canvas.box(x - 2, ground - size * 1.4, x + 2, ground, (150, 150, 150))
    first, second = _colour(rng), _colour(rng)
    for i in range(6):
      top = ground - size * (1.4 - 0.07 * i)
      end, low = x + size * 0.6, top + size * 0.07
      canvas.polygon([(x, top), (end, top + 4), (end, low + 4), (x, low)], first if i % 2 else second)
  elif kind == 3:
    _cloth_on_show(rng, canvas, x, ground - size, size * 0.6)
  else:  # a poster of a face with dark glasses
    canvas.box(x - size * 0.25, ground - size * 0.9, x + size * 0.25, ground - size * 0.2, _colour(rng, 0.6, 1.0))
    canvas.oval(x, ground - size * 0.58, size * 0.13, size * 0.18, (215, 175, 145))
    canvas.box(x - size * 0.11, ground - size * 0.64, x + size * 0.11, ground - size * 0.57, (25, 25, 30))


def seat(rng, canvas, x, feet, size):
  """A bench behind a sitting person at `x` whose soles are at `feet` and who would be `size` high standing."""
  wood = (125, 90, 60) if rng.random() < 0.6 else _colour(rng, 0.3, 0.7)
  half = size * rng.uniform(0.25, 0.5)
  y = feet - size * 0.27
  for i in range(3):
    canvas.box(x - half, y - size * (0.20 - 0.06 * i), x + half, y - size * (0.165 - 0.06 * i), wood)
  canvas.box(x - half, y, x + half, y + size * 0.035, tuple(c * 0.85 for c in wood))
  for s in (-1, 1):
    canvas.box(x + s * half * 0.85 - 3, y, x + s * half * 0.85 + 3, feet, (70, 65, 60))


def obstacle(rng, canvas, x, feet, size):
  """Something that stands at `x`, on the ground at `feet`, in front of a person of height `size`."""
  kind = rng.integers(6)
  colour = _colour(rng)
  if kind == 0:  # a lamp post or a traffic sign
    w = size * rng.uniform(0.015, 0.03)
    canvas.box(x - w, feet - size * 1.4, x + w, feet + 4, (85, 88, 92))
    if rng.random() < 0.5:
      canvas.oval(x, feet - size * rng.uniform(0.6, 1.2), size * 0.11, size * 0.11, colour)
  elif kind == 1:  # a car
    w, top = size * 0.95, feet - size * 0.30
    canvas.box(x - w * 0.55, top - size * 0.16, x + w * 0.45, top, tuple(c * 0.5 for c in colour))
    low = feet - size * 0.06
    hood = [(x - w, top + size * 0.06), (x - w * 0.6, top), (x + w * 0.7, top), (x + w, top + size * 0.08)]
    canvas.polygon([(x - w, low), *hood, (x + w, low)], colour)
    for s in (-0.6, 0.6):
      canvas.oval(x + s * w, feet - size * 0.06, size * 0.085, size * 0.085, (30, 30, 32))
  elif kind == 2:  # a fence
    for y in (0.42, 0.24):
      canvas.box(x - size, feet - size * y, x + size, feet - size * (y - 0.03), colour)
    for i in range(9):
      bar = x - size + size * i / 4
      canvas.box(bar - size * 0.01, feet - size * 0.44, bar + size * 0.01, feet, colour)
  elif kind == 3:  # a table
    canvas.box(x - size * 0.6, feet - size * 0.44, x + size * 0.6, feet - size * 0.39, colour)
    canvas.box(x - size * 0.55, feet - size * 0.39, x + size * 0.55, feet, tuple(c * 0.75 for c in colour))
  elif kind == 4:  # a board with a print
    canvas.box(x - size * 0.2, feet - size * 0.5, x + size * 0.2, feet, colour)
    canvas.text(_word(rng), x - size * 0.17, feet - size * 0.25, size * 0.11, _colour(rng))
  else:  # a bush
    for _ in range(7):
      green = np.array((65, 110, 55)) * rng.uniform(0.6, 1.3)
      canvas.oval(x + rng.normal(0, 0.2) * size, feet - size * rng.uniform(0.05, 0.25), size * 0.14, size * 0.12, tuple(green))
