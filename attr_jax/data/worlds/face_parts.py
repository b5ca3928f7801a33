"""Draws the face: skin and its shading, ears, eyes, brows, nose, mouth, make-up and the marks of age.

Functions draw on `sheet`, its picture and its parsing (`face_sheet`), what `look` says, over what is there; coordinates in the
code are those of the face.
"""

import cv2
import numpy as np

from attr_jax.data.worlds.common import oval, shade
from attr_jax.data.worlds.face_look import Look
from attr_jax.data.worlds.face_sheet import (
  INNER_MOUTH, LEFT_BROW, LEFT_EYE, LOWER_LIP, NOSE, RIGHT_BROW, RIGHT_EYE, SKIN, STEP, UPPER_LIP, Sheet, mirrored, sixteenths, smooth)

_T = np.linspace(-1, 1, 21)  # along the mouth
_ROUND = 1 - _T**2


def outline(look: Look) -> np.ndarray:
  """The head without ears and hair, face coordinates [N, 2]."""
  male, vary = look["Male"], look.variation[0]
  width, jaw, chin, low = (2.02, 1.72, 0.95, 3.35) if male else (1.93, 1.45, 0.66, 3.2)
  if look["Oval_Face"]:
    width, jaw, chin, low = width - 0.14, jaw - (0.26 if male else 0.06), 0.78, low + 0.32
  else:
    w, j, c, y = {"square": (0.06, 0.22, 0.32, -0.12), "round": (0.10, 0.20, 0.18, -0.32), "heart": (0.12, -0.06, -0.16, 0.06)}[look.face_shape]
    width, jaw, chin, low = width + w, jaw + j, chin + c, low + y
  if look["Chubby"]:
    width, jaw, chin, low = 2.3, 2.18, 1.3, low - 0.05
  cheek = width + (0.06 if look["High_Cheekbones"] else 0.0)
  jaw += 0.05 * vary
  return smooth(mirrored([
    (0, -2.75), (1.1, -2.5), (1.78, -1.6), (width, -0.3), (cheek, 0.6), ((cheek + jaw) / 2 + 0.06, 1.4), (jaw, 2.1), (chin, low - 0.32), (0, low)]))


def chin(look: Look) -> float:
  """y of the lowest point of the face, in face coordinates."""
  return float(outline(look)[:, 1].max())


def draw_head(sheet: Sheet, look: Look):
  """Ears, skin and its shading; before the parts of the face."""
  skin, dark = look.skin, shade(look.skin, 0.62)
  for s in (-1, 1):
    ear = smooth(np.array([(1.95, -0.5), (2.3, -0.6), (2.42, -0.1), (2.25, 0.6), (2.05, 0.8), (1.9, 0.4)]) * (s, 1) - (0.35 * sheet.view.yaw, 0))
    sheet.fill(sheet.place(ear), shade(skin, 0.9))
    sheet.line(sheet.place(ear[6:24]), shade(skin, 0.7), 0.05)
  if look["Double_Chin"]:
    _double_chin(sheet, look)
  face = sheet.place(outline(look))
  sheet.fill(face, skin, SKIN)
  # The rim turns away from the light: a dark outline, softly blurred inwards.
  for s in (-1, 1):
    rim = np.array([(s * 2.5, -2.5), (s * 2.5, 3.6), (s * 0.5, 3.9), (s * 1.75, 1.9), (s * 1.85, -0.8), (s * 1.5, -2.6)])
    sheet.soft(sheet.place(rim), dark, 0.55, 0.28, SKIN)
  sheet.soft(sheet.place(oval((0, -1.2), 1.0, 0.45)), shade(skin, 1.2), 0.5, 0.35, SKIN)
  sheet.soft(sheet.place(oval((0, 3.05), 0.4, 0.2, 12)), shade(skin, 1.15), 0.5, 0.2, SKIN)
  _cheeks(sheet, look)
  if look["Double_Chin"]:
    low = chin(look)
    fold = [(-0.95, low - 0.42), (-0.5, low - 0.10), (0, low - 0.02), (0.5, low - 0.10), (0.95, low - 0.42)]
    sheet.line(sheet.place(smooth(fold, False)), shade(skin, 0.55), 0.08)
  if not look["Young"]:
    _wrinkles(sheet, look)


def _double_chin(sheet: Sheet, look: Look):
  """A second bulge below the chin; skin of the face in the masks."""
  skin, low = look.skin, chin(look)
  bulge = smooth([(-1.6, low - 1.0), (-1.25, low + 0.12), (-0.6, low + 0.52), (0, low + 0.60), (0.6, low + 0.52), (1.25, low + 0.12), (1.6, low - 1.0)], False)
  sheet.fill(sheet.place(bulge), shade(skin, 0.93), SKIN)
  sheet.line(sheet.place(bulge[4:-4]), shade(skin, 0.55), 0.08)
  sheet.soft(sheet.place(oval((0, low + 0.12), 0.9, 0.14, 12)), shade(skin, 0.55), 0.7, 0.1, SKIN)


def _cheeks(sheet: Sheet, look: Look):
  skin = look.skin
  for s in (-1, 1):
    if look["High_Cheekbones"]:
      sheet.soft(sheet.place(oval((s * 1.35, 0.85), 0.42, 0.22, 14)), shade(skin, 1.35), 0.75, 0.13, SKIN)
      hollow = [(s * 2.05, 0.95), (s * 1.9, 1.5), (s * 1.15, 2.05), (s * 1.0, 1.8), (s * 1.5, 1.35)]
      sheet.soft(sheet.place(hollow), shade(skin, 0.5), 0.65, 0.13, SKIN)
    if look["Chubby"]:
      sheet.soft(sheet.place(oval((s * 1.5, 1.35), 0.5, 0.5, 14)), shade(skin, 1.18), 0.6, 0.25, SKIN)
      sheet.line(sheet.place(smooth([(s * 0.75, 1.15), (s * 1.12, 1.6), (s * 1.22, 2.25)], False)), shade(skin, 0.72), 0.06)
    if look["Rosy_Cheeks"]:
      red = tuple(a * b for a, b in zip(skin, (1.0, 0.48, 0.50)))
      sheet.soft(sheet.place(oval((s * 1.35, 1.15), 0.5, 0.42, 14)), red, 0.9, 0.16, SKIN)
    elif look["Heavy_Makeup"]:
      blush = tuple(a * b for a, b in zip(skin, (1.0, 0.75, 0.74)))
      sheet.soft(sheet.place([(s * 1.9, 0.7), (s * 1.9, 1.0), (s * 1.2, 1.5), (s * 1.1, 1.2)]), blush, 0.6, 0.15, SKIN)
    if look["Smiling"]:
      sheet.line(sheet.place(smooth([(s * 0.68, 1.3), (s * 1.05, 1.65), (s * 1.2, 2.1)], False)), shade(skin, 0.72), 0.05)


def _wrinkles(sheet: Sheet, look: Look):
  """Lines of age: on the forehead, beside the eyes, from the nose to the mouth."""
  dark = shade(look.skin, 0.62)
  lines = [smooth([(-half, y + 0.05), (-0.5, y - 0.05), (0, y + 0.02), (0.5, y - 0.05), (half, y + 0.05)], False)
           for y, half in ((-1.62, 0.85), (-1.38, 1.0), (-1.14, 0.9))]
  sheet.lines(sheet.place_each(lines), dark, 0.055)
  for s in (-1, 1):
    feet = [[(s * 1.62, 0.05 + angle * 0.6), (s * 1.9, 0.05 + angle * 1.6)] for angle in (-0.22, 0.0, 0.22)]
    sheet.lines(sheet.place_each(feet), dark, 0.05)
    fold = smooth([(s * 0.6, 1.15), (s * 1.0, 1.6), (s * 1.15, 2.2)], False)
    sheet.line(sheet.place(fold), dark, 0.075)
    sheet.soft(sheet.place(fold + (s * 0.1, 0)), dark, 0.35, 0.1, SKIN)
    sheet.line(sheet.place([(s * 0.95, 2.4), (s * 0.98, 2.75)]), dark, 0.05)


def draw_eyes(sheet: Sheet, look: Look):
  """Both eyes with lids, lashes, make-up and what is below them; classes LEFT_EYE and RIGHT_EYE."""
  skin, vary = look.skin, look.variation[1]
  made_up = look["Heavy_Makeup"]
  up, low = (0.12, 0.08) if look["Narrow_Eyes"] else (0.28 + 0.03 * vary, 0.19 if not look["Smiling"] else 0.15)
  half = 0.52 if not look["Male"] else 0.48
  for s, region in ((-1, LEFT_EYE), (1, RIGHT_EYE)):
    def at(points, s=s):
      return sheet.place(np.asarray(points, np.float64) * (s, 1) + (s, 0))
    if look["Bags_Under_Eyes"]:
      _bag(sheet, look, at)
    sheet.soft(at(oval((-0.05, -0.1), 0.6, 0.4, 14)), shade(skin, 0.7), 0.4, 0.14, SKIN)
    if made_up:
      lid = [(-0.5, -0.05), (-0.3, -0.38), (0.1, -0.52), (0.62, -0.42), (0.72, -0.18), (0.5, 0.0)]
      sheet.soft(at(smooth(lid)), look.shadow_colour, 0.85, 0.05, SKIN)
    upper = smooth([(-half, 0.06), (-half * 0.5, -up * 0.75), (0.05, -up), (half * 0.6, -up * 0.75), (half, -0.02)], False)
    lower = smooth([(half, -0.02), (half * 0.5, low * 0.85), (0, low), (-half * 0.6, low * 0.7), (-half, 0.06)], False)
    _eyeball(sheet, look, at(np.concatenate([upper, lower])), at(oval((-0.02, -0.03), 0.215, 0.235, 16)),
             at(oval((-0.02, -0.03), 0.10, 0.11, 12)), at(oval((0.05, -0.11), 0.05, 0.05, 8)), region)
    line = (18, 14, 16) if made_up else shade(skin, 0.3)
    sheet.line(at(upper), line, 0.12 if made_up and not look["Narrow_Eyes"] else 0.07)
    sheet.line(at(lower), line if made_up and not look["Narrow_Eyes"] else shade(skin, 0.6), 0.04)
    if not look["Narrow_Eyes"]:
      sheet.line(at(upper * (1.0, 1.25) + (0.02, -0.12)), shade(skin, 0.6), 0.04)
    if not look["Male"]:
      long = 0.30 if made_up else 0.16
      roots = ((half, -0.05), (half * 0.8, -up * 0.6), (half * 0.45, -up * 0.9))
      sheet.lines([at([(x, y), (x + long, y - long * 0.7)]) for x, y in roots], line, 0.055)


def _bag(sheet: Sheet, look: Look, at):
  """A dark ring below the eye and the swelling above it."""
  purple = tuple(a * b for a, b in zip(look.skin, (0.55, 0.46, 0.52)))
  bag = smooth([(-0.5, 0.22), (0, 0.34), (0.5, 0.2), (0.52, 0.42), (0.05, 0.66), (-0.5, 0.44)])
  sheet.soft(at(bag), purple, 0.8, 0.05, SKIN)
  sheet.line(at(smooth([(-0.55, 0.34), (-0.2, 0.60), (0.2, 0.62), (0.55, 0.36)], False)), purple, 0.06)


def _eyeball(sheet: Sheet, look: Look, almond, iris, pupil, glint, region: int):
  """Iris and pupil, cut off by the lids; all arguments are photo pixels."""
  low = np.maximum(np.floor(almond.min(0) * STEP).astype(int) - 2, 0)
  high = np.ceil(almond.max(0) * STEP).astype(int) + 3
  window = np.s_[low[1]:high[1], low[0]:high[0]]
  view = sheet.rgb[window]
  mask = np.zeros(view.shape[:2], np.uint8)
  eye = np.full_like(view, 238)
  offset = low * 16
  cv2.fillPoly(mask, [sixteenths(almond) - offset], 255, cv2.LINE_8, 4)
  for shape, colour in ((iris, look.iris), (pupil, (12, 10, 10)), (glint, (250, 250, 250))):
    cv2.fillPoly(eye, [sixteenths(shape) - offset], colour, cv2.LINE_AA, 4)
  cv2.copyTo(eye, mask, view)
  sheet.region[window][mask > 0] = region


def draw_brows(sheet: Sheet, look: Look):
  """Both brows; classes LEFT_BROW and RIGHT_BROW."""
  colour = look.brow_colour
  vary = 0.05 * look.variation[4]
  thick = 0.19 if look["Bushy_Eyebrows"] else 0.09 if not look["Male"] else 0.11
  x = np.linspace(0.42, 1.72, 12)
  if look["Arched_Eyebrows"]:
    y = -0.58 + vary - 0.48 * np.sin(np.pi * ((x - 0.42) / 1.3) ** 1.2)
  else:
    y = -0.66 + vary - 0.10 * np.sin((x - 0.42) / 1.3 * np.pi)
  taper = np.interp(x, (0.42, 0.6, 1.2, 1.72), (0.7, 1.0, 0.9, 0.25))
  brow = np.concatenate([np.stack([x, y - thick * taper], 1), np.stack([x, y + thick * taper], 1)[::-1]])
  for s, region in ((-1, LEFT_BROW), (1, RIGHT_BROW)):
    sheet.fill(sheet.place(brow * (s, 1)), colour, region)
    if look["Bushy_Eyebrows"]:  # hairs that stand out
      long = [[(s * x[i], y[i]), (s * (x[i] + 0.16), y[i] - 0.34 * taper[i])] for i in range(11)]
      short = [[(s * x[i], y[i] + 0.1), (s * (x[i] + 0.12), y[i] - 0.1)] for i in range(11)]
      sheet.lines(sheet.place_each(long), colour, 0.06)
      sheet.lines(sheet.place_each(short), shade(colour, 1.5), 0.03)


def draw_nose(sheet: Sheet, look: Look):
  """The nose by its shading alone; class NOSE."""
  skin, vary = look.skin, look.variation[2]
  dark, light = shade(skin, 0.55), shade(skin, 1.28)
  wing, low = (0.82, 1.5) if look["Big_Nose"] else (0.36, 1.42) if look["Pointy_Nose"] else (0.50 + 0.03 * vary, 1.32)
  bridge = 0.30 if look["Big_Nose"] else 0.15 if look["Pointy_Nose"] else 0.22

  def at(points, raised=0.35):
    return sheet.place(points, raised)

  whole = smooth(mirrored([(0, -0.15), (bridge, -0.1), (bridge * 1.1, 0.5), (wing * 0.95, low - 0.45), (wing, low - 0.15), (wing * 0.6, low), (0, low + 0.04)]))
  sheet.fill(at(whole), None, NOSE)
  s = 1 if sheet.view.yaw >= 0 else -1
  side = [(s * bridge, -0.2), (s * (bridge + 0.22), 0.1), (s * (wing + 0.14), low - 0.3), (s * wing * 0.9, low), (s * bridge * 0.9, 0.7)]
  sheet.soft(at(side), dark, 0.5, 0.10)
  sheet.soft(at([(-s * bridge, -0.1), (-s * bridge * 1.5, low - 0.5), (-s * bridge * 0.9, low - 0.4)]), dark, 0.3, 0.08)
  sheet.soft(at([(-0.07, -0.1), (0.07, -0.1), (0.09, low - 0.35), (-0.09, low - 0.35)]), light, 0.65, 0.06)
  under = smooth([(-wing * 0.95, low - 0.12), (-wing * 0.5, low + 0.02), (0, low + 0.09), (wing * 0.5, low + 0.02), (wing * 0.95, low - 0.12)], False)
  sheet.soft(at(np.concatenate([under, under[::-1] + (0, 0.16)])), dark, 0.5, 0.07)
  if look["Pointy_Nose"]:  # a sharp tip between thin wings
    sheet.line(at([(-wing, low - 0.2), (-0.1, low + 0.1), (0, low + 0.14), (0.1, low + 0.1), (wing, low - 0.2)]), dark, 0.065)
    sheet.soft(at([(0, low - 0.5), (0.12, low - 0.1), (0, low + 0.06), (-0.12, low - 0.1)]), shade(skin, 1.4), 0.9, 0.04)
  else:
    sheet.soft(at(oval((0, low - 0.26), 0.36 if look["Big_Nose"] else 0.2, 0.22, 14)), light, 0.6, 0.08)
    sheet.line(at(under[4:-4]), dark, 0.05)
  for s in (-1, 1):
    sheet.fill(at(oval((s * wing * 0.50, low - 0.04), wing * 0.24, 0.07, 10)), shade(skin, 0.3))
    if not look["Pointy_Nose"]:
      curl = smooth([(s * wing * 0.8, low - 0.52), (s * wing * 1.06, low - 0.25), (s * wing * 0.9, low)], False)
      sheet.line(at(curl), dark, 0.07 if look["Big_Nose"] else 0.05)


def mouth_shape(look: Look) -> tuple[np.ndarray, ...]:
  """Curves [21, 2] in face coordinates from corner to corner: top of the upper lip, both sides of the opening, bottom of the lower lip."""
  vary = look.variation[3]
  smiling, opened = look["Smiling"], look["Mouth_Slightly_Open"]
  half = (0.82 if look["Male"] else 0.74) + 0.04 * vary + (0.26 if smiling else 0.0)
  corner = 2.02 if smiling else 2.2
  sag = 0.30 if smiling else 0.03
  gap = (0.36 if smiling else 0.34) if opened else 0.0
  top, bottom = (0.33, 0.40) if look["Big_Lips"] else (0.13, 0.17) if look["Male"] else (0.15, 0.20)
  middle = corner + sag * _ROUND
  bow = 1 - 0.28 * np.exp(-((_T / 0.13) ** 2)) + 0.05 * np.exp(-(((np.abs(_T) - 0.22) / 0.12) ** 2))
  upper, lower = middle - 0.4 * gap * _ROUND**0.8, middle + 0.6 * gap * _ROUND**0.8
  curves = (upper - top * _ROUND**0.75 * bow, upper, lower, lower + bottom * _ROUND**0.7)
  return tuple(np.stack([half * _T, y], 1) for y in curves)


def draw_mouth(sheet: Sheet, look: Look):
  """Lips, and teeth or tongue where it is open; classes UPPER_LIP, INNER_MOUTH and LOWER_LIP."""
  skin = look.skin
  top, upper, lower, bottom = mouth_shape(look)

  def at(points):
    return sheet.place(points, 0.12)

  def between(a, b):
    return at(np.concatenate([a, b[::-1]]))

  lips = look.lip_colour if look["Wearing_Lipstick"] else tuple(a * b for a, b in zip(skin, (0.84, 0.66, 0.64)))
  sheet.soft(at(oval((0, bottom[10, 1] + 0.16), 0.45, 0.09, 12)), shade(skin, 0.55), 0.5, 0.08, SKIN)
  if look["Mouth_Slightly_Open"]:
    sheet.fill(between(upper, lower), (70, 20, 22), INNER_MOUTH)
    teeth = 0.72 if look["Smiling"] else 0.30
    edge = upper[2:-2] + (lower - upper)[2:-2] * teeth
    sheet.fill(between(upper[2:-2], edge), (244, 241, 232))
    if not look["Smiling"]:
      sheet.soft(at(oval((0, lower[10, 1] - 0.07), 0.3, 0.07, 10)), (190, 85, 85), 0.8, 0.03)
  sheet.fill(between(top, upper), shade(lips, 0.86), UPPER_LIP)
  sheet.fill(between(lower, bottom), lips, LOWER_LIP)
  shine = 0.75 if look["Wearing_Lipstick"] else 0.35
  sheet.soft(at(oval((0.1, (lower[10, 1] + bottom[10, 1]) / 2), 0.22, 0.045, 10)), (255, 235, 235), shine * 0.7, 0.035)
  if look["Mouth_Slightly_Open"]:
    sheet.line(at(upper), shade(lips, 0.45), 0.035)
  else:
    sheet.line(at(upper), shade(lips, 0.38), 0.075)
  for s in (-1, 1):
    x, y = s * upper[-1, 0], upper[-1, 1]
    sheet.soft(at(oval((x + s * 0.04, y), 0.07, 0.07, 8)), shade(skin, 0.45), 0.7, 0.04, SKIN)


def landmarks(sheet: Sheet, look: Look) -> np.ndarray:
  """Left eye, right eye, nose, left and right corner of the mouth, float64 [5, 2]: x, y in photo pixels, left in the photo."""
  _, upper, _, _ = mouth_shape(look)
  tip = 1.16 if look["Pointy_Nose"] or look["Big_Nose"] else 1.05
  return np.concatenate([sheet.place([(-1, 0), (1, 0)]), sheet.place([(0, tip)], 0.45), sheet.place(upper[[0, -1]] * (0.97, 1), 0.12)])
