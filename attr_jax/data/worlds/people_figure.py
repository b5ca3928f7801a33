"""Draws one person of the synthetic street scenes: skeleton, body, clothes.

Figure coordinates: y runs down from 0 (top of the skull) to 1 (soles) of a
standing person, x is 0 in the middle of the body.
"""

import dataclasses

import cv2
import numpy as np

from attr_jax.data.worlds import people_head as head
from attr_jax.data.worlds.common import circle, oval, shade
from attr_jax.data.worlds.people_look import LONG_SLEEVES, Look
from attr_jax.data.worlds.people_sheet import (
  BOTTOM, FOOT, FOREARM, HELD, LOGO, NECK, SHIN, THIGH, TOP, TORSO, UPPER_ARM,
  Layer, capsule, denim_grain, fill, limb, line, part_sizes, pattern_weight, points)


@dataclasses.dataclass(frozen=True)
class Pose:
  """Joints [2 sides, (x, y)] in figure coordinates and the body's half widths."""

  shoulder: np.ndarray
  elbow: np.ndarray
  wrist: np.ndarray
  hip: np.ndarray
  knee: np.ndarray
  ankle: np.ndarray
  chest: float
  waist: float
  hips: float
  girth: float  # thickness of the limbs, 1 = average


def sample_pose(rng: np.random.Generator, male: bool, sitting: bool) -> Pose:
  """Joints of a standing, walking or `sitting` person, sexes overlapping in build."""
  turn = rng.uniform(0.86, 1.0)  # the body turned aside looks narrower
  chest = turn * rng.normal(0.131 if male else 0.107, 0.009)
  waist = turn * rng.normal(0.101 if male else 0.077, 0.009)
  hips = turn * rng.normal(0.092 if male else 0.101, 0.009)
  girth = rng.normal(1.08 if male else 0.91, 0.07)
  side = np.array([-1.0, 1.0])
  shoulder = np.stack([side * (chest - 0.022), np.array([0.205, 0.205]) + rng.normal(0, 0.006, 2)], 1)
  upper, lower = [], []
  for _ in side:
    kind = rng.random()
    if kind < 0.50:  # hanging
      a, b = rng.uniform(0.02, 0.30), rng.uniform(-0.05, 0.25)
    elif kind < 0.66:  # hand on the hip
      a, b = rng.uniform(0.5, 0.8), rng.uniform(-0.9, -0.5)
    elif kind < 0.78:  # raised
      a, b = rng.uniform(1.4, 2.2), rng.uniform(2.3, 3.2)
    elif kind < 0.88:  # in front of the belly
      a, b = rng.uniform(0.05, 0.3), rng.uniform(-1.8, -1.0)
    else:  # stretched aside
      a, b = rng.uniform(0.3, 0.9), rng.uniform(0.3, 1.5)
    upper.append(a)
    lower.append(b)
  upper, lower = np.array(upper), np.array(lower)
  elbow = shoulder + 0.160 * np.stack([side * np.sin(upper), np.cos(upper)], 1)
  wrist = elbow + 0.140 * np.stack([side * np.sin(lower), np.cos(lower)], 1)
  hip = np.stack([side * hips * 0.52, np.full(2, 0.515)], 1)
  if sitting:
    knee = hip + np.stack([side * rng.uniform(0.01, 0.05), np.full(2, rng.uniform(0.07, 0.11))], 1)
    swing = rng.uniform(-0.2, 0.2, 2)
  else:
    stride = rng.uniform(0.0, 0.42) if rng.random() < 0.45 else rng.uniform(0.0, 0.12)
    thigh = np.array([-1, 1]) * stride * rng.uniform(0.6, 1.0) + rng.normal(0, 0.03, 2)
    knee = hip + 0.225 * np.stack([np.sin(thigh), np.cos(thigh)], 1)
    swing = thigh - rng.uniform(0.0, 0.5, 2) * stride * rng.choice([-1, 1])
  ankle = knee + 0.215 * np.stack([np.sin(swing), np.cos(swing)], 1)
  return Pose(shoulder, elbow, wrist, hip, knee, ankle, chest, waist, hips, girth)


def extent(pose: Pose, look: Look) -> tuple[float, float, float, float]:
  """Left, top, right, bottom that hold the whole figure, in figure coordinates."""
  joints = np.concatenate([pose.elbow, pose.wrist, pose.knee, pose.ankle])
  reach = 0.19 if look.held else 0.05
  left = min(-0.17, joints[:, 0].min() - reach)
  right = max(0.17, joints[:, 0].max() + reach)
  top = min(-0.13, joints[:, 1].min() - (0.30 if look.held == "sign" else 0.05))
  bottom = joints[:, 1].max() + (0.14 if look.held == "bag" else 0.05)
  return left, top, right, bottom


def draw_figure(rng: np.random.Generator, look: Look, pose: Pose, layer: Layer) -> np.ndarray:
  """Draws the person of `look` in `pose` on `layer`. Returns the size of each part, int64 [NUM_PARTS].

  Sizes are in photo pixels and from before the own hair, arms and what they hold
  cover anything: the measure against which visibility is counted.
  """
  order = [0, 1] if rng.random() < 0.5 else [1, 0]
  if not look.back:
    head.draw_hair_behind(layer, look)
  arm_behind = bool(rng.random() < 0.4)
  if arm_behind:
    _arm(layer, look, pose, order[0])
  _legs(layer, look, pose, order)
  _torso(rng, layer, look, pose)
  sizes = part_sizes(layer.part())
  head.draw_neck(layer, look)
  head.draw_head(rng, layer, look)
  sizes = np.maximum(sizes, part_sizes(layer.part()))
  for side in order[1:] if arm_behind else order:
    _arm(layer, look, pose, side)
  _paint_materials(rng, layer, look)
  if look.held:
    _held(rng, layer, look, pose)
  # Outlines reach one pixel beyond the figure; without alpha they would glow.
  layer.rgb[:] = cv2.copyTo(layer.rgb, layer.code)
  return np.maximum(sizes, part_sizes(layer.part()))


def _arm(layer: Layer, look: Look, pose: Pose, side: int):
  s, e, w = pose.shoulder[side], pose.elbow[side], pose.wrist[side]
  g = pose.girth
  cloth = look.top_colour
  hand = (oval(w + (w - e) * 0.12, 0.020, 0.022, 10), FOREARM)
  if look.top in LONG_SLEEVES:
    loose = 1.45 if look.top == "robe" else 1.15
    limb(layer, [hand], look.skin)
    if look.top == "suit":  # the cuff
      line(layer, [w, w + (w - e) * 0.04], (235, 235, 235), 0.040 * g)
    limb(layer, [(capsule(s, e, 0.032 * g, 0.029 * g), UPPER_ARM | TOP), (capsule(e, w, 0.028 * g, 0.020 * g * loose), FOREARM | TOP)], cloth)
    return
  limb(layer, [(capsule(s, e, 0.027 * g, 0.022 * g), UPPER_ARM), (capsule(e, w, 0.022 * g, 0.015 * g), FOREARM), hand], look.skin)
  if look.top != "tank":
    limb(layer, [(capsule(s, s + (e - s) * 0.62, 0.032 * g, 0.031 * g), UPPER_ARM | TOP)], cloth)


def _legs(layer: Layer, look: Look, pose: Pose, order):
  g = pose.girth
  cloth = look.bottom_colour
  for side in order:
    h, k, a = pose.hip[side], pose.knee[side], pose.ankle[side]
    toe = a + (np.sign(a[0] + 1e-6) * 0.018, 0.022)
    fill(layer, capsule(a + (0, 0.012), toe, 0.021, 0.018), look.shoe_colour, FOOT)
    if look.bottom in ("pants", "jeans"):
      wide = 1.1 if look.male else 1.0
      limb(layer, [(capsule(k, a, 0.034 * g, 0.026 * g * wide), SHIN | BOTTOM), (capsule(h, k, 0.050 * g, 0.036 * g), THIGH | BOTTOM)], cloth)
      if look.bottom == "jeans":  # stitched seam and turned-up hem
        seam = shade(cloth, 1.5)
        line(layer, [h + (0.03, 0), k + (0.018, 0), a + (0.012, 0)], seam, 0.004)
        line(layer, [a + (-0.024, 0), a + (0.024, 0)], seam, 0.007)
      elif look.pattern is None and not look.male:
        line(layer, [h, k, a], shade(cloth, 0.8), 0.003)
    else:
      limb(layer, [(capsule(k, a, 0.031 * g, 0.019 * g), SHIN), (capsule(h, k, 0.047 * g, 0.031 * g), THIGH)], look.skin)
      if look.bottom == "shorts":
        fill(layer, capsule(h, h + (k - h) * 0.62, 0.052 * g, 0.050 * g), cloth, THIGH | BOTTOM)
  x, y = pose.hips, pose.hip[0, 1]
  if look.bottom in ("skirt", "robe"):
    deepest = max(pose.ankle[:, 1]) if look.bottom == "robe" else pose.knee[:, 1].mean()
    length = 0.95 if look.bottom == "robe" else look.skirt_length
    hem = y + (deepest - y) * length
    joints = np.concatenate([pose.knee, pose.ankle]) if look.bottom == "robe" else pose.knee
    left = min(-x * 1.18, joints[:, 0].min() - 0.05) * 1.05
    right = max(x * 1.18, joints[:, 0].max() + 0.05) * 1.05
    one_piece = look.dress or look.bottom == "robe"
    colour = look.top_colour if one_piece else cloth
    code = THIGH | (TOP if one_piece else BOTTOM)
    outline = [(-x * 0.9, y - 0.09), (x * 0.9, y - 0.09), (x, y), (right, hem), (0, hem + 0.012), (left, hem), (-x, y)]
    fill(layer, outline, colour, code)
    if look.bottom == "robe":  # what lies over the shins counts as shin
      half = (y + hem) / 2
      fill(layer, [((left - x) / 2, half), ((right + x) / 2, half), (right, hem), (0, hem + 0.012), (left, hem)], colour, SHIN | TOP, 0)
    for fold in (-0.5, 0.1, 0.6):
      line(layer, [(x * fold * 0.8, y), (right * fold * 1.1, hem)], shade(colour, 0.82), 0.004)
  else:
    outline = [(-x, y - 0.08), (x, y - 0.08), (x * 1.02, y + 0.02), (0, y + 0.045), (-x * 1.02, y + 0.02)]
    fill(layer, outline, cloth, THIGH | BOTTOM, 0)
    line(layer, [(-x, y - 0.045), (x, y - 0.045)], look.accent, 0.012)


def _torso(rng, layer: Layer, look: Look, pose: Pose):
  c, w, x = pose.chest, pose.waist, pose.hips
  hem = {"suit": 0.585, "jacket": 0.55, "sweater": 0.545, "tshirt": 0.545, "robe": 0.53}.get(look.top, 0.52)
  hem += rng.uniform(-0.015, 0.015)
  tank = look.top == "tank"
  neck = 0.05 if tank else 0.038
  right = [(neck, 0.168), (c * 0.72, 0.184), (c, 0.225), (c * 0.93, 0.30), (w, 0.40), (x * 1.06, hem - 0.03), (x * 1.06, hem)]
  outline = [(-px, py) for px, py in right] + right[::-1]
  cloth = look.top_colour
  if tank:
    fill(layer, outline, look.skin, TORSO)
    right = [(0.036, 0.175), (0.062, 0.180), (c * 0.76, 0.27), (w, 0.40), (x * 1.06, hem)]
    body = [(-px, py) for px, py in right] + right[::-1]
    fill(layer, body, cloth, TORSO | TOP)
    fill(layer, [(-0.036, 0.17), (0.036, 0.17), (0.026, 0.225), (0, 0.24), (-0.026, 0.225)], look.skin, TORSO, 0.8)
  else:
    fill(layer, outline, cloth, TORSO | TOP)
  if not look.male and not look.back:
    for s in (-1, 1):
      arc = oval((s * c * 0.45, 0.285), c * 0.40, 0.030)[1:10]
      line(layer, arc, shade(cloth, 0.78), 0.004)
  for _ in range(3):  # folds
    fx, fy = rng.uniform(-w, w), rng.uniform(0.33, 0.47)
    line(layer, [(fx, fy), (fx * 0.6, fy + 0.035)], shade(cloth, 0.82), 0.004)
  _collar(layer, look, hem)
  if look.logo:
    _logo(rng, layer, look, c)
  if look.extra == "bag" or look.extra == "lanyard":
    _strap(rng, layer, look, pose)


def _collar(layer: Layer, look: Look, hem: float):
  """What is on the front (or back) of the garment besides a print."""
  cloth, dark = look.top_colour, shade(look.top_colour, 0.62)
  if look.back:
    if look.top == "suit":
      line(layer, [(-0.04, 0.172), (0.04, 0.172)], (240, 240, 240), 0.012)
      line(layer, [(0, 0.47), (0, hem)], dark, 0.006)
    elif look.top == "jacket":
      line(layer, [(-0.09, 0.25), (0.09, 0.25)], dark, 0.006)
    return
  if look.top in ("tshirt", "sweater"):
    depth = 0.205 if look.male else 0.222
    fill(layer, [(-0.036, 0.165), (0.036, 0.165), (0.022, depth - 0.01), (0, depth), (-0.022, depth - 0.01)], look.skin, NECK, 0.7)
    if look.top == "sweater":
      line(layer, [(-0.1, hem - 0.012), (0.1, hem - 0.012)], dark, 0.008)
  elif look.top in ("polo", "shirt"):
    fill(layer, [(-0.028, 0.165), (0.028, 0.165), (0, 0.215)], look.skin, NECK, 0.7)
    for s in (-1, 1):
      fill(layer, [(s * 0.044, 0.160), (s * 0.010, 0.208), (s * 0.050, 0.205)], shade(cloth, 1.1), TORSO | TOP, 0.6)
    low = 0.30 if look.top == "polo" else hem
    line(layer, [(0, 0.215), (0, low)], dark, 0.004)
    for y in np.arange(0.235, low, 0.045):
      fill(layer, oval((0.006, y), 0.005, 0.005, 6), look.accent, TORSO, 0)
    if look.top == "shirt":  # the pocket, no logo
      line(layer, [(0.035, 0.27), (0.075, 0.27), (0.075, 0.315), (0.035, 0.315), (0.035, 0.27)], dark, 0.004)
  elif look.top == "jacket":  # open or zipped, over a shirt of another colour
    if look.detail:
      fill(layer, [(-0.035, 0.165), (0.035, 0.165), (0.045, hem), (-0.03, hem)], look.second_colour, TORSO, 0.6)
    else:
      line(layer, [(0, 0.17), (0, hem)], look.accent, 0.007)
    for s in (-1, 1):
      line(layer, [(s * 0.05, 0.43), (s * 0.08, 0.47)], dark, 0.006)
  elif look.top == "suit":
    fill(layer, [(-0.040, 0.162), (0.040, 0.162), (0.0, 0.37)], (238, 238, 236), TORSO, 0.8)
    if look.male or look.detail:
      fill(layer, [(-0.011, 0.185), (0.011, 0.185), (0.014, 0.30), (0, 0.345), (-0.014, 0.30)], look.accent, TORSO, 0.6)
    for s in (-1, 1):
      fill(layer, [(s * 0.040, 0.162), (s * 0.075, 0.235), (s * 0.052, 0.255), (0, 0.37), (s * 0.022, 0.23)], shade(cloth, 1.25), TORSO | TOP, 0.5)
    line(layer, [(0, 0.37), (0.006, hem)], dark, 0.005)
    for y in (0.40, 0.45):
      fill(layer, oval((0.012, y), 0.006, 0.006, 6), shade(dark, 0.6), TORSO, 0)
  elif look.top == "robe":
    fill(layer, [(-0.03, 0.165), (0.03, 0.165), (0, 0.25)], look.second_colour, TORSO, 0.7)
    line(layer, [(-0.1, 0.42), (0.1, 0.42)], look.accent, 0.018)


def _logo(rng, layer: Layer, look: Look, chest: float):
  """A print on the chest or the back: disc, star, shield, block or letters."""
  small = look.logo == "small"
  size = rng.uniform(0.024, 0.032) if small else rng.uniform(0.042, 0.066)
  center = np.array([rng.choice([-1, 1]) * chest * 0.45, 0.265]) if small else np.array([rng.normal(0, 0.006), rng.uniform(0.285, 0.315)])
  colour = look.accent
  kind = rng.integers(5)
  if kind == 0:
    fill(layer, oval(center, size, size), colour, LOGO)
    fill(layer, oval(center, size * 0.5, size * 0.55, 10), look.second_colour, LOGO)
  elif kind == 1:
    radius = np.where(np.arange(10) % 2, 0.45, 1.15)[:, None]
    turned = circle(10)[:, ::-1] * (1, -1)
    fill(layer, turned * radius * size + center, colour, LOGO)
  elif kind == 2:
    fill(layer, np.array([(-1, -1), (1, -1), (0.9, 0.3), (0, 1.2), (-0.9, 0.3)]) * size + center, colour, LOGO)
    fill(layer, np.array([(-0.5, -0.6), (0.5, -0.6), (0, 0.5)]) * size + center, look.second_colour, LOGO)
  elif kind == 3:
    fill(layer, np.array([(-1.4, -0.55), (1.4, -0.55), (1.4, 0.55), (-1.4, 0.55)]) * size + center, colour, LOGO)
    for x in (-0.8, 0.0, 0.8):
      fill(layer, np.array([(x - 0.2, -0.3), (x + 0.2, -0.3), (x + 0.2, 0.3), (x - 0.2, 0.3)]) * size + center, look.second_colour, LOGO, 0)
  else:
    text = "".join(chr(65 + i) for i in rng.integers(0, 26, 2 if small else 3))
    # The plate in garment colour marks the print's area in the part map.
    plate = np.array([(-1.3, -0.7), (1.3, -0.7), (1.3, 0.7), (-1.3, 0.7)]) * size + center
    fill(layer, plate, look.top_colour, LOGO, 0)
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.0, 1)
    scale = 2.4 * size * layer.unit / w
    x, y = points(layer, center)[:2] // 16
    corner = (int(x - scale * w / 2), int(y + scale * h / 2))
    cv2.putText(layer.rgb, text, corner, cv2.FONT_HERSHEY_DUPLEX, scale, colour, max(1, round(size * layer.unit * 0.22)))


def _strap(rng, layer: Layer, look: Look, pose: Pose):
  colour = look.shoe_colour
  if look.extra == "lanyard" and not look.back:
    line(layer, [(-0.04, 0.18), (0, 0.36), (0.04, 0.18)], look.accent, 0.005)
    fill(layer, [(-0.018, 0.36), (0.018, 0.36), (0.018, 0.405), (-0.018, 0.405)], (235, 235, 230), TORSO)
  else:
    s = rng.choice([-1, 1])
    a, b = np.array([s * 0.06, 0.18]), np.array([-s * pose.hips, 0.47])
    across = np.array([0.009, 0.006])
    fill(layer, [a - across, a + across, b + across, b - across], colour, HELD)
    fill(layer, [b + (-0.05, 0), b + (0.05, 0), b + (0.055, 0.085), b + (-0.055, 0.085)], colour, HELD)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> list:
  return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _held(rng, layer: Layer, look: Look, pose: Pose):
  """Signs carry stripes and prints that are not on the clothes."""
  x, y = pose.wrist[int(pose.wrist[0, 1] > pose.wrist[1, 1])]  # the higher hand
  if look.held == "sign":
    fill(layer, _rectangle(x - 0.006, y - 0.12, x + 0.006, y + 0.06), (120, 90, 60), HELD)
    fill(layer, _rectangle(x - 0.13, y - 0.26, x + 0.13, y - 0.10), look.second_colour, HELD)
    if rng.random() < 0.5:
      for row in np.linspace(y - 0.24, y - 0.12, 5):
        line(layer, [(x - 0.11, row), (x + 0.11 - rng.uniform(0, 0.08), row)], look.accent, 0.010)
    else:
      fill(layer, oval((x, y - 0.18), 0.05, 0.05), look.accent, HELD)
  elif look.held == "bag":
    x, y = pose.wrist[int(pose.wrist[0, 1] < pose.wrist[1, 1])]
    fill(layer, [(x - 0.035, y), (x + 0.035, y), (x + 0.045, y + 0.11), (x - 0.045, y + 0.11)], look.second_colour, HELD)
    fill(layer, oval((x, y + 0.06), 0.018, 0.018, 10), look.accent, HELD)
  else:
    fill(layer, [(x - 0.014, y - 0.035), (x + 0.014, y - 0.035), (x + 0.011, y + 0.01), (x - 0.011, y + 0.01)], look.accent, HELD)


def _paint_materials(rng, layer: Layer, look: Look):
  """Patterned cloth and denim, on the pixels that carry the material."""
  if look.pattern:
    ys, xs = np.nonzero((layer.code & 96 == TOP) & (layer.code & 31 != LOGO))
    angle = rng.choice([0.0, np.pi / 2, 0.7]) + rng.normal(0, 0.06)
    c, s = np.cos(angle), np.sin(angle)
    period = rng.uniform(0.050, 0.11) * layer.unit
    weight = pattern_weight(look.pattern, c * xs + s * ys, c * ys - s * xs, period=period, duty=rng.uniform(0.35, 0.6), phase=rng.random())
    weight = (weight * rng.uniform(0.8, 1.0)).astype(np.float32)[:, None]
    base = layer.rgb[ys, xs].astype(np.float32)
    layer.rgb[ys, xs] = base + weight * (np.float32(look.second_colour) - base)
  if look.bottom == "jeans":
    ys, xs = np.nonzero(layer.code & 96 == BOTTOM)
    if len(ys):
      grain = denim_grain()[ys % 256, xs % 256]
      base = layer.rgb[ys, xs].astype(np.float32)
      layer.rgb[ys, xs] = np.clip(base * grain[:, None], 0, 255)
