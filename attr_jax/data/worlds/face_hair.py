"""Draws hair: on the head, in the brow's way, on chins and cheeks; and the hats on top of it.

Functions draw on `sheet`, its picture and its parsing (`face_sheet`), what `look` says, over what is there; coordinates in the
code are those of the face.
"""

import math

import numpy as np

from attr_jax.data.worlds.common import oval, shade
from attr_jax.data.worlds.face_look import Look
from attr_jax.data.worlds.face_parts import mouth_shape, outline
from attr_jax.data.worlds.face_sheet import BACKGROUND, HAIR, SKIN, Sheet, mirrored, smooth

_VOLUME = {"buzz": 0.16, "short": 0.42, "bun": 0.22, "bob": 0.48, "long": 0.48}
_WAVE = 3.6  # radians per face unit


def draw_hair_behind(sheet: Sheet, look: Look):
  """What falls behind the neck; before body and head."""
  colour = shade(look.hair_colour, 0.72)
  if look.hair in ("long", "bob"):
    low = _low(look)
    right = [(0, -2.8), (1.9, -2.0), (2.55, 0.0), (2.6, low * 0.6), (2.4, low), (0, low)]
    sheet.fill(sheet.place(smooth(mirrored(right))), colour, HAIR)
  if look.hair == "bun" and not look["Wearing_Hat"]:
    knot = sheet.place(oval((0.25 * look.part, -3.5), 0.85, 0.62))
    sheet.fill(knot, look.hair_colour, HAIR)
    sheet.line(knot, shade(look.hair_colour, 0.6), 0.06, closed=True)


def draw_hair(rng: np.random.Generator, sheet: Sheet, look: Look):
  """Hair over the head; after the parts of the face."""
  if look.hair == "bald" or (look["Wearing_Hat"] and look.hair not in ("long", "bob")):
    return
  colour = look.hair_colour
  outer, inner = _crown(look)
  sheet.fill(sheet.place(np.concatenate([outer, inner[::-1]])), colour, HAIR)
  lines = _crown_strands(rng, look, outer, inner)
  if look.hair in ("long", "bob"):
    for s in (-1, 1):
      lock, strands = _side_lock(rng, look, s)
      sheet.fill(sheet.place(lock), colour, HAIR)
      lines += strands
  if look["Bangs"]:
    fringe, strands = _fringe(rng, look)
    # A shadow on the brow sets the fringe off.
    sheet.soft(sheet.place(fringe + (0, 0.12)), shade(look.skin, 0.5), 0.6, 0.06, SKIN)
    sheet.fill(sheet.place(fringe), colour, HAIR)
    lines += strands
  light = tuple(min(c * 1.25 + 14, c + 0.24 * (255 - c)) for c in colour)
  placed = sheet.place_each(lines)
  width = 0.05 if look["Wavy_Hair"] else 0.03
  sheet.lines(placed[::2], shade(colour, 0.55), width, inside=HAIR)
  sheet.lines(placed[1::2], light, width, inside=HAIR)


def _low(look: Look) -> float:
  """y where hair that hangs ends."""
  return (5.3 if look.hair == "long" else 2.9) + 0.3 * look.variation[5]


def _crown(look: Look) -> tuple[np.ndarray, np.ndarray]:
  """Outer and inner edge of the hair above the face, both [37, 2] from the left temple over the top to the right one."""
  v = _VOLUME[look.hair]
  width = float(outline(look)[:, 0].max())
  angle = np.linspace(-100, 100, 37) * math.pi / 180
  outer = np.stack([(width + 0.12 + 0.7 * v) * np.sin(angle), -0.55 - (2.25 + v) * np.cos(angle)], 1)
  if look["Wavy_Hair"]:
    bump = 1 + 0.05 * np.sin(np.arange(37) * 1.25 + 3 * look.part)
    outer = (outer - (0, -0.6)) * bump[:, None] + (0, -0.6)
  p = 0.8 * look.part
  if look["Receding_Hairline"]:  # an M: bare temples beside a forelock
    line = [(-width - 0.02, 0.1), (-1.88, -1.2), (-1.55, -2.35), (-0.85, -2.58), (-0.25, -2.08), (0.25, -2.08), (0.85, -2.58), (1.55, -2.35), (1.88, -1.2),
            (width + 0.02, 0.1)]
  elif look.hair in ("buzz", "short"):
    line = [(-width - 0.02, 0.35), (-1.72, -0.7), (-1.45, -1.5), (-0.7, -1.72), (0, -1.76), (0.7, -1.72), (1.45, -1.5), (1.72, -0.7), (width + 0.02, 0.35)]
  else:  # swept to both sides of the parting
    line = [(-width, 0.5), (-1.82, -0.5), (-1.45, -1.3), ((p - 1.45) / 2, -1.78), (p, -2.1), ((p + 1.45) / 2, -1.78), (1.45, -1.3), (1.82, -0.5), (width, 0.5)]
  inner = smooth(line, False)
  return outer, inner[np.linspace(0, len(inner) - 1, 37).round().astype(int)]


def _crown_strands(rng, look: Look, outer, inner) -> list:
  if look.hair == "buzz":  # too short for strands: stubs
    across, along = rng.uniform(0, 1, (170, 1)), rng.integers(0, 37, 170)
    start = outer[along] * across + inner[along] * (1 - across)
    return list(np.stack([start, start + rng.normal(0, 0.07, start.shape)], 1))
  lines = []
  middle = round(18 + 8 * look.part)
  for across in np.linspace(0.03, 0.97, 20):
    line = outer * across + inner * (1 - across)
    if look["Wavy_Hair"]:
      line = line * (1 + 0.035 * np.sin(np.arange(37) * 0.9 + 2 * across + 5 * look.part))[:, None]
    elif look.hair != "bun":
      line = line + (0, 0.02 * rng.normal())
    lines.append((line[:middle], line[middle:]))
  # Neighbours on the same side lie next to each other, so that light and dark strands alternate.
  return [line[side] for side in (0, 1) for line in (lines if look.hair != "bun" else lines[::4])]


def _side_lock(rng, look: Look, side: int) -> tuple[np.ndarray, list]:
  """Outline and strands of the hair that falls beside the face on one side."""
  width, low = float(outline(look)[:, 0].max()), _low(look)
  y = np.linspace(-1.5, low, 28)
  inside = np.interp(y, (-1.5, -0.4, 0.8, 2.4, 3.4, 5.5), (1.35, width - 0.22, width - 0.08, width - 0.02, 1.75, 1.5))
  outside = np.interp(y, (-1.5, -0.4, 1.5, 3.5, 5.5), (width + 0.3, width + 0.58, width + 0.72, width + 0.9, width + 0.8))
  swing = np.zeros_like(y)
  if look["Wavy_Hair"]:
    swing = np.sin(_WAVE * y + 3 * look.part + side) * np.clip((y + 1.2) / 2, 0, 1)
    inside, outside = inside + 0.10 * swing, outside + 0.28 * swing + 0.12
  lock = np.concatenate([np.stack([outside, y], 1), np.stack([inside, y], 1)[::-1]]) * (side, 1)
  strands = []
  for across in np.linspace(0.05, 0.95, 16):
    x = inside * (1 - across) + outside * across + (0.10 * swing if look["Wavy_Hair"] else rng.normal(0, 0.02))
    strands.append(np.stack([side * x, y], 1))
  return lock, strands


def _fringe(rng, look: Look) -> tuple[np.ndarray, list]:
  """Hair on the forehead, down to the brows."""
  x = np.linspace(-1.78, 1.78, 23)
  low = -0.92 + 0.10 * np.abs(x) ** 2 * 0.5
  if look["Wavy_Hair"]:
    low = low - 0.24 * np.abs(np.sin(x * 2.4 + look.part))
  else:
    low = low - 0.16 * (np.arange(23) % 2)
  fringe = np.concatenate([np.stack([x, low], 1), [(1.75, -1.9), (0.9, -2.4), (0, -2.55), (-0.9, -2.4), (-1.75, -1.9)]])
  y = np.linspace(-2.7, -0.7, 12)
  strands = []
  for end in np.linspace(-1.7, 1.7, 26):
    line = np.interp(y, (-2.7, -0.7), (0.55 * end + 0.4 * look.part, end))
    if look["Wavy_Hair"]:
      line = line + 0.12 * np.sin(5 * y + 3 * look.part)
    strands.append(np.stack([line + rng.normal(0, 0.02), y], 1))
  return fringe, strands


def draw_stubble(rng: np.random.Generator, sheet: Sheet, look: Look):
  """A shadow with dots where a beard would grow; before nose and mouth."""
  face = outline(look)
  jaw = face[face[:, 1] > 1.35]
  area = np.concatenate([jaw, [(-1.2, 1.6), (-0.55, 1.45), (0.55, 1.45), (1.2, 1.6)]])
  dark = tuple(0.38 * a + b for a, b in zip(look.skin, (6, 12, 18)))
  placed = sheet.place(area)
  sheet.soft(placed, dark, 0.62, 0.10, SKIN)
  u, v = rng.uniform(-1, 1, 420), rng.uniform(1.5, 3.5, 420)
  start = np.stack([u * np.interp(v, (1.5, 3.5), (2.0, 0.9)), v], 1)
  start = start[(np.abs(start[:, 0]) > 1.15) | (start[:, 1] > 1.6)]
  dots = sheet.place_each(list(np.stack([start, start + (0.02, 0.05)], 1)))
  sheet.lines(dots, shade(dark, 0.45), 0.02, inside=SKIN)


def draw_beard(sheet: Sheet, look: Look):
  """Goatee, mustache, sideburns; all three meet in a full beard. Skin in the masks, as in those of Smith 2013."""
  colour = look.brow_colour
  top, _, _, bottom = mouth_shape(look)
  face = outline(look)
  low, width = float(face[:, 1].max()), float(face[:, 0].max())
  hairs = []
  if look["Sideburns"]:
    for s in (-1, 1):
      burn = np.array([(width - 0.02, -0.7), (width + 0.02, 0.7), (width - 0.1, 1.62), (width - 0.62, 1.75), (width - 0.42, 0.6), (width - 0.34, -0.7)])
      sheet.fill(sheet.place(burn * (s, 1)), colour)
      hairs += [[(s * (width - x), y), (s * (width - x - 0.03), y + 0.35)] for y in np.arange(-0.4, 1.4, 0.3) for x in (0.08, 0.2, 0.3)]
  if look["Goatee"]:
    y = bottom[10, 1] + 0.10
    half = 0.66
    tuft = smooth([(-0.28, y + 0.02), (0.28, y + 0.02), (half, y + 0.32), (half * 0.95, low - 0.02), (0.28, low + 0.30), (-0.28, low + 0.30),
                   (-half * 0.95, low - 0.02), (-half, y + 0.32)])
    sheet.fill(sheet.place(tuft, 0.1), colour)
    hairs += [[(x, y + 0.25), (x * 0.8, low + 0.18)] for x in np.arange(-0.5, 0.51, 0.125)]
    if look["Mustache"]:  # round the mouth
      for s in (-1, 1):
        link = smooth([(s * abs(top[0, 0]), top[0, 1] - 0.1), (s * (abs(top[0, 0]) + 0.05), 2.6), (s * half, low - 0.2)], False)
        sheet.line(sheet.place(link, 0.1), colour, 0.22)
  if look["Mustache"]:
    above = top - (0, 0.05)
    thick = 0.36 * (1 - np.linspace(-1, 1, 21) ** 2) ** 0.6 + 0.03
    upper = np.stack([above[:, 0] * 1.08, np.maximum(above[:, 1] - thick, 1.38)], 1)
    sheet.fill(sheet.place(np.concatenate([above * (1.08, 1), upper[::-1]]), 0.15), colour)
    hairs += [[tuple(upper[i] + (0, 0.05)), tuple(above[i])] for i in range(3, 19, 2)]
  if look["Goatee"] and look["Mustache"] and look["Sideburns"]:
    for s in (-1, 1):
      edge = face[(face[:, 0] * s > 0.4) & (face[:, 1] > 1.3)]
      edge = edge[np.argsort(edge[:, 1])]
      sheet.fill(sheet.place(np.concatenate([edge * (1.02, 1.0) + (0, 0.08), (edge * (0.66, 1) - (0, 0.28))[::-1]])), colour)
      hairs += [[tuple(p * (0.95, 1)), tuple(p * (0.8, 1) + (0, 0.1))] for p in edge[::2]]
  if hairs:
    hairs = sheet.place_each(hairs, 0.1)
    sheet.lines(hairs[::2], shade(colour, 0.55), 0.03)
    sheet.lines(hairs[1::2], shade(colour, 1.6), 0.03)


def draw_hat(sheet: Sheet, look: Look):
  """Over hair and forehead; background in the masks."""
  colour, dark, light = look.hat_colour, shade(look.hat_colour, 0.6), tuple(c * 1.15 + 12 for c in look.hat_colour)
  sheet.soft(sheet.place([(-1.9, -1.3), (1.9, -1.3), (1.8, -0.75), (0, -0.6), (-1.8, -0.75)]), shade(look.skin, 0.45), 0.7, 0.1, SKIN)
  dome = smooth(mirrored([(0, -3.75), (1.5, -3.35), (2.35, -2.2), (2.42, -1.2), (0, -1.15)]))
  sheet.fill(sheet.place(dome), colour, BACKGROUND)
  sheet.line(sheet.place(dome), dark, 0.07, closed=True)
  if look.hat == "cap":
    for x in (-0.9, 0, 0.9):
      sheet.line(sheet.place(smooth([(0.15 * x, -3.7), (x * 1.25, -2.7), (x * 1.4, -1.3)], False)), dark, 0.05)
    sheet.fill(sheet.place(oval((0, -2.2), 0.55, 0.42)), light)
    visor = smooth([(-2.0, -1.5), (0, -1.75), (2.0, -1.5), (2.3, -1.05), (1.3, -0.82), (0, -0.72), (-1.3, -0.82), (-2.3, -1.05)])
    sheet.fill(sheet.place(visor, 0.5), dark, BACKGROUND)
    sheet.line(sheet.place(visor, 0.5), shade(dark, 0.5), 0.05, closed=True)
  elif look.hat == "brim":
    brim = sheet.place(oval((0, -1.3), 3.7, 0.55, 28))
    sheet.fill(brim, colour, BACKGROUND)
    sheet.line(brim, dark, 0.06, closed=True)
    band = smooth(mirrored([(0, -2.0), (2.38, -2.2), (2.42, -1.6), (0, -1.4)]))
    sheet.fill(sheet.place(band), dark)
  else:
    knit = [[(x * 0.5, -3.5), (x, -2.6), (x * 1.1, -1.6)] for x in np.arange(-2.0, 2.1, 0.4)]
    sheet.lines(sheet.place_each(knit), dark, 0.05)
    fold = sheet.place(smooth([(-2.5, -1.9), (0, -2.0), (2.5, -1.9), (2.5, -1.0), (0, -1.05), (-2.5, -1.0)]))
    sheet.fill(fold, light, BACKGROUND)
    sheet.line(fold, dark, 0.06, closed=True)
    sheet.lines(sheet.place_each([[(x, -1.9), (x, -1.08)] for x in np.arange(-2.2, 2.3, 0.4)]), dark, 0.05)
