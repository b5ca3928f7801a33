"""Draws the head of a person: hair, face, glasses, masks, hats.

Head coordinates: 1 is half the width and half the height of the head, (0, 0)
its middle, y down. Functions draw on `layer` what `look` says, over what is there.
"""

import math

import numpy as np

from attr_jax.data.worlds.common import oval, shade
from attr_jax.data.worlds.people_look import LONG_HAIR, Look
from attr_jax.data.worlds.people_sheet import EYES, FACE, HAIR, HAT, MOUTH, NECK, Layer, fill, line

HEAD_CENTER, HEAD_X, HEAD_Y = 0.079, 0.063, 0.086  # in figure heights


def draw_neck(layer: Layer, look: Look):
  """Neck and scarf; after the torso."""
  half = 0.030 if look.male else 0.024
  fill(layer, [(-half, 0.13), (half, 0.13), (half + 0.006, 0.185), (0, 0.195), (-half - 0.006, 0.185)], shade(look.skin, 0.88), NECK, 0)
  if look.extra == "scarf":
    fill(layer, oval((0, 0.178), 0.058, 0.030), look.accent, NECK)
    fill(layer, [(0.012, 0.18), (0.045, 0.18), (0.05, 0.30), (0.02, 0.30)], look.accent, NECK)


def _place(look: Look, outline) -> np.ndarray:
  """Head coordinates [N, 2] to figure coordinates, with the head's tilt about the chin."""
  outline = np.asarray(outline, np.float64) * (HEAD_X * (1.03 if look.male else 0.97), HEAD_Y)
  c, s = math.cos(look.tilt), math.sin(look.tilt)
  return (outline - (0, HEAD_Y)) @ np.array([[c, s], [-s, c]]) + (0, HEAD_Y + HEAD_CENTER)


def _hair_length(look: Look) -> float:
  return {"bob": 0.85, "wavy": 2.5, "long": 3.0, "ponytail": 2.8}[look.hair]


def _mane(look: Look, width: float) -> np.ndarray:
  low = _hair_length(look)
  side = [(width, -0.3), (width * 1.12, 0.5), (width * 1.10, low * 0.75), (width * 0.85, low)]
  top = [(-0.75, -1.0), (0.0, -1.15), (0.75, -1.0)]
  if look.hair == "wavy":
    side[2:2] = [(width * 1.32, low * 0.5)]
  return _place(look, top + side + [(-x, y) for x, y in side[::-1]])


def draw_hair_behind(layer: Layer, look: Look):
  """Hair that falls behind the shoulders of a person seen from the front; before the body."""
  if look.hair == "ponytail":
    s = np.sign(look.yaw) or 1.0
    tail = [(-s * 0.7, -0.7), (-s * 1.6, -0.5), (-s * 2.1, 0.8), (-s * 1.6, _hair_length(look)), (-s * 1.05, 0.9), (-s * 0.7, 0.2)]
    fill(layer, _place(look, tail), look.hair_colour, HAIR)
  elif look.hair in (*LONG_HAIR, "bob"):
    fill(layer, _mane(look, 1.25 if look.hair != "bob" else 1.12), look.hair_colour, HAIR)


def draw_head(rng: np.random.Generator, layer: Layer, look: Look):
  """Head with face or back of the hair, and what is worn on it; after the neck."""
  skin, hair = look.skin, look.hair_colour
  if look.hair == "afro":
    fill(layer, _place(look, oval((0, -0.35), 1.55, 1.15)), hair, HAIR)
  if look.hair == "bun" and not look.hat:
    fill(layer, _place(look, oval((0.1 - 0.3 * look.yaw, -1.2), 0.42, 0.32, 12)), hair, HAIR)
  for s in (-1, 1):  # ears
    fill(layer, _place(look, oval((s * 0.98 - 0.15 * look.yaw, 0.1), 0.15, 0.2, 8)), shade(skin, 0.92), FACE)
  if look.male:
    head = [(-0.95, -0.2), (-0.95, 0.35), (-0.70, 0.80), (-0.35, 1.0), (0.35, 1.0), (0.70, 0.80), (0.95, 0.35), (0.95, -0.2),
            (0.7, -0.8), (0, -1), (-0.7, -0.8)]
  else:
    head = oval((0, 0), 0.95, 1.0)
  fill(layer, _place(look, head), skin, FACE)
  if look.back:
    _hair_from_back(layer, look)
  else:
    _face(rng, layer, look)
    _hair_in_front(rng, layer, look)
    _eyewear(layer, look)
  if look.extra == "headband" and not look.hat:
    fill(layer, _place(look, [(-1.02, -0.52), (0, -0.62), (1.02, -0.52), (1.0, -0.32), (0, -0.42), (-1.0, -0.32)]), look.accent, HAIR, 0.7)
  if look.hat:
    _hat(layer, look)


def _face(rng, layer: Layer, look: Look):
  skin, hair = look.skin, look.hair_colour
  dx = 0.30 * look.yaw
  eyes = [(-0.72, -0.20), (0.72, -0.20), (0.72, 0.18), (-0.72, 0.18)]
  mouth = [(-0.68, 0.30), (0, 0.15), (0.68, 0.30), (0.55, 0.78), (0.2, 0.95), (-0.2, 0.95), (-0.55, 0.78)]
  shift = np.array([dx, 0])
  fill(layer, _place(look, np.array(eyes) + shift), skin, EYES, 0)
  beard = look.beard and not look.face_mask
  fill(layer, _place(look, np.array(mouth) + shift * 0.6), shade(hair, 0.95) if beard else skin, MOUTH, 0)
  for s in (-1, 1):
    x = s * 0.40 + dx
    brow = 0.07 if look.male else 0.045
    line(layer, _place(look, [(x - 0.2, -0.24), (x + 0.2, -0.26)]), shade(hair, 0.7), brow * HEAD_Y * 1.4)
    fill(layer, _place(look, oval((x, 0.0), 0.17, 0.10, 10)), (240, 240, 238), EYES, 0)
    fill(layer, _place(look, oval((x + 0.06 * look.yaw, 0.0), 0.09, 0.11, 8)), (45, 32, 28), EYES, 0)
  line(layer, _place(look, [(dx * 1.2, 0.05), (dx * 1.2 + 0.10, 0.33), (dx * 1.2 - 0.05, 0.36)]), shade(skin, 0.72), 0.005)
  red = rng.uniform(0.5, 1.0) if not look.male and rng.random() < 0.6 else 0.0
  lips = tuple(c * 0.6 * (1 - red) + lipstick * red for c, lipstick in zip(skin, (190, 50, 60)))
  lips_y = rng.uniform(0.54, 0.60)
  line(layer, _place(look, [(dx - 0.28, lips_y), (dx, lips_y + rng.uniform(0.0, 0.10)), (dx + 0.28, lips_y)]), lips, 0.007 + 0.004 * red)


def _hair_in_front(rng, layer: Layer, look: Look):
  hair = look.hair_colour
  if look.hair == "bald":
    return
  hairline = {"buzz": -0.62, "short": -0.50, "afro": -0.45}.get(look.hair, -0.42) + rng.uniform(-0.06, 0.06)
  part = rng.uniform(-0.5, 0.5)
  side = -0.05 if look.hair in ("buzz", "short", "bun") else 0.30
  out = 1.0 if look.hair == "buzz" else 1.08
  cap = [(-out, side), (-out, -0.35), (-0.80, -0.85), (-0.35, -1.08), (0.35, -1.08), (0.80, -0.85), (out, -0.35), (out, side),
         (0.84, -0.25), (0.62, hairline), (part, hairline - 0.14), (-0.62, hairline), (-0.84, -0.25)]
  fill(layer, _place(look, cap), hair, HAIR, 0.8)
  if look.hair in ("long", "wavy"):  # locks that fall over the shoulders
    low = _hair_length(look)
    for s in (-1, 1):
      if rng.random() < 0.75:
        lock = [(s * 1.05, -0.4), (s * 1.32, 0.6), (s * 1.42, low * 0.7), (s * 1.1, low * 0.95), (s * 0.66, low * 0.6), (s * 0.84, 0.4)]
        fill(layer, _place(look, lock), hair, HAIR)


def _hair_from_back(layer: Layer, look: Look):
  hair = look.hair_colour
  if look.hair == "bald":
    return
  low = 0.45 if look.hair == "buzz" else 0.72
  fill(layer, _place(look, [(-0.9, low), (-1.08, -0.1), (-0.8, -0.8), (0, -1.1), (0.8, -0.8), (1.08, -0.1), (0.9, low), (0, low + 0.12)]), hair, HAIR)
  if look.hair == "ponytail":
    fill(layer, _place(look, [(-0.25, -0.3), (0.25, -0.3), (0.4, 1.2), (0.1, _hair_length(look)), (-0.3, 1.2)]), shade(hair, 0.85), HAIR)
  elif look.hair in ("long", "wavy", "bob"):
    fill(layer, _mane(look, 1.2 if look.hair != "bob" else 1.08), hair, HAIR)


def _eyewear(layer: Layer, look: Look):
  dx = 0.30 * look.yaw
  if look.face_mask:
    colour = look.mask_colour
    cover = [(-0.93, 0.22), (dx, 0.08), (0.93, 0.22), (0.78, 0.75), (0.3, 1.04), (-0.3, 1.04), (-0.78, 0.75)]
    fill(layer, _place(look, cover), colour, MOUTH, 0.7)
    line(layer, _place(look, [(-0.8, 0.5), (dx, 0.55), (0.8, 0.5)]), shade(colour, 0.85), 0.004)
  if look.eyewear == "dark":
    tint = look.lens_colour
    for s in (-1, 1):
      lens = np.array([(-0.36, -0.20), (0.40, -0.20), (0.38, 0.16), (0.12, 0.27), (-0.22, 0.24), (-0.34, 0.06)]) * (s, 1) + (s * 0.43 + dx, 0.0)
      fill(layer, _place(look, lens), tint, EYES, 0.4)
    line(layer, _place(look, [(-1.0, -0.1), (1.0, -0.1)]), shade(tint, 0.7), 0.006)
    line(layer, _place(look, [(-0.52 + dx, -0.08), (-0.40 + dx, 0.06)]), (210, 215, 220), 0.004)
  elif look.eyewear == "clear":
    for s in (-1, 1):
      line(layer, np.concatenate([_place(look, oval((s * 0.42 + dx, 0.0), 0.30, 0.20, 12))] * 2)[:13], (50, 45, 45), 0.004)
    line(layer, _place(look, [(-0.12 + dx, -0.03), (0.12 + dx, -0.03)]), (50, 45, 45), 0.004)


def _hat(layer: Layer, look: Look):
  colour, dark = look.hat_colour, shade(look.hat_colour, 0.7)
  low = -0.38
  dome = [(-1.1, low), (-1.08, -0.75), (-0.75, -1.2), (0, -1.36), (0.75, -1.2), (1.08, -0.75), (1.1, low)]
  if look.hat == "cap":
    fill(layer, _place(look, dome), colour, HAT)
    if look.back:
      line(layer, _place(look, [(-0.5, low), (0, low - 0.22), (0.5, low)]), dark, 0.008)
    else:
      fill(layer, _place(look, oval((0.55 * look.yaw, low + 0.06), 1.15, 0.20)), dark, HAT)
      if look.detail:
        fill(layer, _place(look, oval((0.3 * look.yaw, -0.85), 0.28, 0.22, 10)), look.accent, HAT)
  elif look.hat == "brim":
    crown = [(-0.95, low - 0.1), (-0.85, -1.1), (-0.5, -1.45), (0, -1.38), (0.5, -1.45), (0.85, -1.1), (0.95, low - 0.1)]
    fill(layer, _place(look, oval((0, low - 0.04), 1.85, 0.24)), dark, HAT)
    fill(layer, _place(look, crown), colour, HAT)
    line(layer, _place(look, [(-0.93, low - 0.22), (0.93, low - 0.22)]), look.accent, 0.014)
  elif look.hat == "beanie":
    fill(layer, _place(look, dome), colour, HAT)
    fill(layer, _place(look, [(-1.14, low - 0.28), (1.14, low - 0.28), (1.14, low + 0.04), (-1.14, low + 0.04)]), dark, HAT)
    if look.detail:
      fill(layer, _place(look, oval((0, -1.42), 0.26, 0.2, 10)), look.accent, HAT)
  elif look.hat == "helmet":
    fill(layer, _place(look, np.array(dome) * (1.12, 1.05)), colour, HAT)
    line(layer, _place(look, [(-1.25, low), (1.25, low)]), dark, 0.014)
    if not look.back:
      for s in (-1, 1):
        line(layer, _place(look, [(s * 0.98, low), (s * 0.6, 0.85)]), dark, 0.006)
  else:
    fill(layer, _place(look, [(-0.8, low - 0.25), (0.8, low - 0.25), (0.05, -2.4)]), colour, HAT)
    fill(layer, _place(look, oval((0.05, -2.35), 0.18, 0.14, 8)), look.accent, HAT)
