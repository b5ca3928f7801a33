"""One synthetic street scene: who is in it, what stands around, what can be seen.

Everything is a function of the generator that is passed in. `draw_scene` gives
the photo, an exact map of persons and parts, and the annotation of each person
that can be recognised: labels come from counted visible pixels, never from a coin.
"""

import dataclasses
import functools
import math

import cv2
import numpy as np

from attr_jax.data.published import WIDER_ATTRIBUTES as ATTRIBUTES
from attr_jax.data.worlds import people_backdrop as backdrop
from attr_jax.data.worlds import people_figure as figure
from attr_jax.data.worlds.common import pick
from attr_jax.data.worlds.people_look import LONG_HAIR, LONG_SLEEVES, Look, SceneKind, sample_look
from attr_jax.data.worlds.people_sheet import (
  EYES, FACE, FOREARM, HAIR, HAT, HELD, LOGO, MOUTH, NECK, NUM_PARTS, SHIN, THIGH, TORSO, UPPER_ARM, Layer)

MIN_HEIGHT, MIN_WIDTH = 44, 14  # pixels of a box that is annotated
MIN_VISIBLE = 0.28  # of the person's pixels


@dataclasses.dataclass
class Target:
  """One annotated person."""

  attribute: list  # 14 values of 1, -1, 0
  bbox: list  # x, y, width, height in pixels
  mask: np.ndarray  # uint8 {0, 255}, of the integer box around `bbox`
  back: bool  # drawn from behind


@dataclasses.dataclass
class Scene:
  """One photo and its annotation."""

  image: np.ndarray  # uint8 [H, W, 3] RGB
  targets: list  # of Target, nearest person first


def labels(look: Look, visible: np.ndarray, full: np.ndarray) -> list:
  """The 14 labels of a person, in the order of ATTRIBUTES: 1, -1, or 0 where it cannot be told.

  Args:
    look: What the person is and wears.
    visible: int [NUM_PARTS], pixels of each part that the photo shows.
    full: int [NUM_PARTS], those that it would show with nothing in front and no border.
  """
  visible, full = visible.tolist(), full.tolist()

  def seen(parts, share, least=0):
    shown, whole = sum(visible[part] for part in parts), sum(full[part] for part in parts)
    return whole > 0 and shown >= share * whole and shown >= least

  head = seen((HAIR, FACE, EYES, MOUTH, HAT), 0.5, 50)
  torso = seen((TORSO, LOGO), 0.45, 150)
  arms = seen((FOREARM,), 0.35, 20) and seen((UPPER_ARM, FOREARM), 0.35)
  eyes = not look.back and seen((EYES,), 0.6, 12)
  mouth = not look.back and seen((MOUTH,), 0.6, 12)
  lower = seen((THIGH, SHIN), 0.45, 120) and seen((SHIN,), 0.25)
  thighs = seen((THIGH,), 0.5, 100)
  chest = seen((TORSO, LOGO), 0.55, 300)
  readable = seen((LOGO,), 0.6, 12) if look.logo else chest
  value = (
    (look.male, head and seen((TORSO, UPPER_ARM, THIGH), 0.2)),
    (look.hair in LONG_HAIR, head and seen((HAIR, NECK), 0.3)),
    (look.eyewear == "dark", eyes),
    (look.hat is not None, head and (look.hat is None or seen((HAT,), 0.4, 12))),
    (look.top == "tshirt", torso and seen((UPPER_ARM,), 0.3)),
    (look.top in LONG_SLEEVES, arms),
    (look.top == "suit", torso),
    (look.bottom == "shorts", lower),
    (look.bottom == "jeans", lower or thighs),
    (look.bottom in ("pants", "jeans"), lower),
    (look.bottom == "skirt", lower),
    (look.face_mask, mouth),
    (look.logo is not None, readable),
    (look.pattern in ("stripes", "plaid"), chest),
  )
  return [(1 if positive else -1) if known else 0 for positive, known in value]


@functools.lru_cache(None)
def _noise() -> np.ndarray:
  """Noise [1024, 1024, 3] uint8 around 128 with sd 32: drawing it anew for each photo would cost more than the people."""
  noise = np.random.default_rng(7).standard_normal((1024, 1024, 3), dtype=np.float32)
  return np.clip(128 + 32 * noise, 0, 255).astype(np.uint8)


@functools.lru_cache(None)
def _clouds() -> np.ndarray:
  """Smooth noise [1024, 1024] float32, mean 0, sd 1: shading and ground texture."""
  coarse = np.random.default_rng(8).standard_normal((64, 64)).astype(np.float32)
  fine = np.random.default_rng(9).standard_normal((256, 256)).astype(np.float32)
  field = cv2.resize(coarse, (1024, 1024), interpolation=cv2.INTER_CUBIC) + 0.4 * cv2.resize(fine, (1024, 1024), interpolation=cv2.INTER_CUBIC)
  return field / field.std()


def _crop(rng, bank: np.ndarray, height: int, width: int) -> np.ndarray:
  y, x = rng.integers(0, bank.shape[0] - height + 1), rng.integers(0, bank.shape[1] - width + 1)
  return bank[y:y + height, x:x + width]


@dataclasses.dataclass
class Canvas:
  """The photo while it is drawn, back to front; positions and sizes are in photo pixels. A shape hides the people behind it."""

  rgb: np.ndarray  # uint8 [H, W, 3]
  code: np.ndarray  # uint16 [H, W]: (person + 1) * NUM_PARTS + part, 0 = no person

  def polygon(self, points, colour):
    """A closed shape of points [N, 2]."""
    p = np.rint(np.asarray(points, np.float64) * 16).astype(np.int32)
    cv2.fillPoly(self.rgb, [p], colour, cv2.LINE_AA, 4)
    cv2.fillPoly(self.code, [p], 0, cv2.LINE_8, 4)

  def box(self, x0, y0, x1, y1, colour):
    """An upright rectangle from its upper left to its lower right corner."""
    self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

  def oval(self, x, y, rx, ry, colour):
    """An upright ellipse around (x, y) with half axes `rx` and `ry`."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    self.polygon(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1), colour)

  def text(self, text, x, y, height, colour):
    """Letters about `height` high from (x, y), the lower left corner, on; they hide nobody."""
    cv2.putText(self.rgb, text, (int(x), int(y)), cv2.FONT_HERSHEY_DUPLEX, height / 22, colour, max(1, int(height / 9)), cv2.LINE_AA)


def _add_person(rng, canvas: Canvas, number: int, look: Look, pose: figure.Pose, x: float, feet: float, size: float, sun: float) -> np.ndarray:
  """Composites one person; returns the full size of each part in photo pixels [NUM_PARTS].

  `x`, `feet`: the middle and the soles in photo pixels, `size`: height standing.
  """
  left, top, right, bottom = figure.extent(pose, look)
  foot = pose.ankle[:, 1].max() + 0.03
  ox, oy = math.floor(x + left * size), math.floor(feet + (top - foot) * size)
  w, h = math.ceil((right - left) * size) + 2, math.ceil((bottom - top) * size) + 2
  step = 2 if size < 240 else 1
  shape = (h * step, w * step)
  layer = Layer(np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8), size * step, step, np.array([(ox - x) / size, (oy - feet) / size + foot]))
  full = figure.draw_figure(rng, look, pose, layer)
  x0, y0, x1, y1 = max(ox, 0), max(oy, 0), min(ox + w, canvas.rgb.shape[1]), min(oy + h, canvas.rgb.shape[0])
  if x0 >= x1 or y0 >= y1:
    return full
  w, h = x1 - x0, y1 - y0
  inner = (slice((y0 - oy) * step, (y1 - oy) * step), slice((x0 - ox) * step, (x1 - ox) * step))
  rgb = layer.rgb[inner]
  alpha = cv2.compare(layer.code[inner], 0, cv2.CMP_NE)
  if step == 2:
    rgb, alpha = (cv2.resize(a, (w, h), interpolation=cv2.INTER_AREA) for a in (rgb, alpha))
  else:
    rgb, alpha = (cv2.GaussianBlur(a, (3, 3), 0.6) for a in (rgb, alpha))
  # Folds and body shape: soft clouds, and light from one side; 128 is neutral.
  light = cv2.resize(_crop(rng, _clouds(), 128, 96) * np.float32(0.09 * 128), (w, h))
  light += np.linspace(128 * (1 - sun), 128 * (1 + sun), w, dtype=np.float32)
  light = cv2.merge([light.astype(np.uint8)] * 3)
  target = canvas.rgb[y0:y1, x0:x1]
  ground = cv2.multiply(target, cv2.merge([255 - alpha] * 3), scale=1 / 255)
  target[:] = cv2.add(ground, cv2.multiply(rgb, light, scale=1 / 128))
  part = layer.part()[y0 - oy:y1 - oy, x0 - ox:x1 - ox]
  # Of the person's number and part; what is held hides, but belongs to nobody.
  person = (np.arange(NUM_PARTS) + (number + 1) * NUM_PARTS).astype(np.uint16)
  person[HELD] = 0
  np.copyto(canvas.code[y0:y1, x0:x1], person[part], where=part > 0)
  return full


def _shadow(canvas: Canvas, x: float, y: float, size: float, lean: float):
  """Darkens the ground under a person."""
  rx, ry = size * 0.17, size * 0.03
  x0, x1 = max(int(x - rx * 2), 0), min(int(x + rx * 2), canvas.rgb.shape[1])
  y0, y1 = max(int(y - ry * 1.5), 0), min(int(y + ry * 1.5) + 1, canvas.rgb.shape[0])
  if x0 >= x1 or y0 >= y1:
    return
  gy, gx = np.mgrid[y0:y1, x0:x1].astype(np.float32)
  distance = ((gx - x - lean * rx) / (rx * 1.3)) ** 2 + ((gy - y) / ry) ** 2
  view = canvas.rgb[y0:y1, x0:x1]
  view[:] = view * (1 - 0.45 * np.clip(1.2 - distance, 0, 1))[..., None]


def _crowd(rng, count: int, width: int, height: int, spread: float) -> tuple[float, list]:
  """Places `count` people; returns the horizon (y) and (x, feet, size) of each, far to near."""
  camera = pick(rng, {"full": 0.52, "close": 0.33, "wide": 0.15})
  horizon = height * rng.uniform(0.28, 0.42)
  if camera == "full":
    sizes = height * rng.uniform(0.42, 0.80) * rng.uniform(0.72, 1.08, count)
  elif camera == "close":
    sizes = height * rng.uniform(0.85, 1.45) * rng.uniform(0.80, 1.08, count)
  else:
    sizes = height * rng.uniform(0.24, 0.38) * rng.uniform(0.75, 1.25, count)
  sizes = np.sort(np.maximum(sizes, 62.0))
  room = spread * {"full": 0.36, "close": 0.36, "wide": 0.62}[camera]  # between neighbours, in heights
  pitch = min(width / (count + 0.3), room * float(np.mean(sizes)))
  slots = (np.arange(count) - (count - 1) / 2) * pitch + width / 2
  slots += rng.uniform(-0.5, 0.5) * max(0.0, width - pitch * count) * 0.9
  xs = rng.permutation(slots) + rng.normal(0, 0.12 * pitch, count)
  reference = {"full": height * rng.uniform(0.88, 1.02), "close": height * rng.uniform(1.12, 1.5), "wide": height * rng.uniform(0.75, 0.97)}[camera]
  nearest = sizes[-1]
  feet = horizon + (reference - horizon) * (sizes / nearest) + rng.normal(0, 0.01 * height, count)
  return horizon, list(zip(xs, feet, sizes))


def draw_scene(rng: np.random.Generator, kind: SceneKind, wanted: int, spread: float = 1.0, bystanders: int = 3) -> Scene:
  """Draws one photo of a `kind` of scene with about `wanted` people who can be annotated, or more, or fewer.

  Fewer than `bystanders` come on top.
  `spread` widens the crowd (1 as usual); from 3 on nothing stands in front of anybody, so
  that a caller who needs `wanted` targets gets them.
  """
  width, height = [(480, 360), (560, 420), (640, 480), (640, 427), (512, 384), (560, 372)][rng.integers(6)]
  sunny = bool(rng.random() < kind.sunny)
  calm = spread >= 3.0
  count = wanted + (0 if calm else int(rng.integers(0, bystanders)))
  horizon, places = _crowd(rng, count, width, height, spread)
  if calm:
    size = min(0.8 * height, 1.6 * width / count)
    places = [((i + 0.5) * width / count, height * 0.95, size) for i in range(count)]
  canvas = Canvas(np.empty((height, width, 3), np.uint8), np.zeros((height, width), np.uint16))
  backdrop.paint(rng, canvas, kind.backdrop, horizon, sunny)
  canvas.code[:] = 0
  sun = rng.uniform(-0.28, 0.28)
  in_front = () if calm else rng.integers(0, count, int(pick(rng, {"0": 0.5, "1": 0.35, "2": 0.15})))
  looks, fulls = [], []
  for number, (x, feet, size) in enumerate(places):
    look = sample_look(rng, kind, sunny)
    sitting = bool(rng.random() < (0.14 if kind.backdrop in ("hall", "ward", "park") else 0.06))
    pose = figure.sample_pose(rng, look.male, sitting)
    if sitting:
      backdrop.seat(rng, canvas, x, feet, size)
    elif feet < height * 1.05:
      _shadow(canvas, x, feet, size, sun * 2)
    tall = size * rng.normal(1.03 if look.male else 0.97, 0.03)
    fulls.append(_add_person(rng, canvas, number, look, pose, x, feet, tall, sun))
    looks.append(look)
    if number in in_front:
      backdrop.obstacle(rng, canvas, x + rng.normal(0, 0.2) * size, feet + 0.02 * size, size)
  targets = [_annotate(rng, canvas.code, number, looks[number], fulls[number]) for number in reversed(range(count))]
  return Scene(_photograph(rng, canvas.rgb, sunny, float(np.mean([size for _, _, size in places]))), [t for t in targets if t])


def _annotate(rng, code: np.ndarray, number: int, look: Look, full: np.ndarray) -> Target | None:
  """Box, labels and mask of one person, or None where too little of it shows."""
  first = (number + 1) * NUM_PARTS
  mine = cv2.inRange(code, first, first + NUM_PARTS - 1)
  x, y, w, h = cv2.boundingRect(mine)
  if w == 0:
    return None
  inner = (slice(y, y + h), slice(x, x + w))
  visible = np.bincount(code[inner][mine[inner] > 0] - first, minlength=NUM_PARTS)
  body = full.copy()
  body[[0, HELD]] = 0
  if h < MIN_HEIGHT or w < MIN_WIDTH or visible.sum() < MIN_VISIBLE * body.sum():
    return None
  # An annotator is off by a percent or two, more often too wide than too tight.
  left, right = rng.normal(0.012, 0.018, 2) * w
  top, bottom = rng.normal(0.008, 0.010, 2) * h
  x0, x1 = max(x - left, 0.0), min(x + w + right, float(code.shape[1]))
  y0, y1 = max(y - top, 0.0), min(y + h + bottom, float(code.shape[0]))
  if rng.random() < 0.7:
    bbox = [round(x0), round(y0), round(x1) - round(x0), round(y1) - round(y0)]
  else:
    # Two hundredths less, so that rounding never leads out of the photo.
    bbox = [round(x0, 2), round(y0, 2), round(x1 - x0 - 0.02, 2), round(y1 - y0 - 0.02, 2)]
  left, top, right, bottom = integer_box(bbox)
  return Target(labels(look, visible, body), bbox, mine[top:bottom, left:right], look.back)


def integer_box(bbox) -> tuple[int, int, int, int]:
  """Left, top, right, bottom (exclusive) of the pixels that a box [x, y, w, h] in pixels touches: floor and ceil."""
  x, y, w, h = bbox
  return math.floor(x), math.floor(y), math.ceil(x + w), math.ceil(y + h)


def _photograph(rng, rgb: np.ndarray, sunny: bool, size: float) -> np.ndarray:
  """Light, blur and sensor noise. The larger the people (`size` pixels), the more blur they bear."""
  tolerance = min(1.0, max(0.0, (size - 80) / 150))
  height, width = rgb.shape[:2]
  if rng.random() < 0.12:  # the camera moved
    length = int(rng.integers(3, 4 + round(3 * tolerance)))
    rgb = cv2.blur(rgb, (length, 1) if rng.random() < 0.7 else (1, length))
  elif rng.random() < 0.65:
    rgb = cv2.GaussianBlur(rgb, (5, 5), rng.uniform(0.4, 0.7 + 0.6 * tolerance))
  gamma = rng.uniform(0.75, 1.1) if sunny else rng.uniform(0.85, 1.5)
  gain = rng.uniform(0.95, 1.15) if sunny else rng.uniform(0.65, 1.0)
  tint = 1 + rng.normal(0, 0.05, 3)
  lift = rng.uniform(0, 25)  # haze
  level = np.linspace(0, 1, 256) ** gamma * gain * (255 - lift) + lift
  rgb = cv2.transform(cv2.LUT(rgb, np.clip(level, 0, 255).astype(np.uint8)), np.diag(tint))
  amount = rng.uniform(0.05, 0.40)
  return cv2.addWeighted(rgb, 1.0, np.ascontiguousarray(_crop(rng, _noise(), height, width)), amount, -128 * amount)
