"""One synthetic photo of a face: pose, drawing from back to front, light, blur, and the exact region of every pixel."""

import dataclasses
import functools
import math

import cv2
import numpy as np

from attr_jax.data.worlds import face_hair as hair
from attr_jax.data.worlds import face_parts as parts
from attr_jax.data.worlds import face_worn as worn
from attr_jax.data.worlds.face_look import Look
from attr_jax.data.worlds.face_sheet import HEIGHT, WIDTH, Sheet, View


@dataclasses.dataclass
class Drawing:
  """A face as photo, parsing and points."""

  image: np.ndarray  # uint8 [218, 178, 3] RGB
  region: np.ndarray  # uint8 [436, 356], classes of the parsing masks
  landmarks: np.ndarray  # float64 [5, 2], x and y in pixels: eyes, nose, corners of the mouth; left in the photo first


@dataclasses.dataclass(frozen=True)
class Framing:
  """How alike heads lie in their photos.

  Attributes:
    unit: median of `View.unit`, pixels.
    log_unit: standard deviation of its logarithm.
    x: standard deviation of the point between the eyes, pixels.
    y: likewise.
    tilt: standard deviation, radians.
    most_tilt: tilt is cut off there.
    farthest: x and y are cut off at so many standard deviations.
  """

  unit: float
  log_unit: float
  x: float
  y: float
  tilt: float
  most_tilt: float
  farthest: float


FRAMINGS = {
    "aligned": Framing(18.3, 0.04, 1.8, 2.2, 0.06, 0.16, math.inf),  # by the eyes, not perfectly, as CelebA's photos are
    "loose": Framing(15.0, 0.16, 17.0, 17.0, 0.15, 0.4, 2.0),  # the whole face is seen, anywhere
}


def sample_view(rng: np.random.Generator, framing: Framing = FRAMINGS["aligned"]) -> View:
  """Where a head is and how it is turned."""
  shift = lambda sd: np.clip(rng.normal(0, sd), -framing.farthest * sd, framing.farthest * sd)
  return View(
    unit=float(framing.unit * np.exp(rng.normal(0, framing.log_unit))),
    center=(float(WIDTH / 2 + shift(framing.x)), float(108 + shift(framing.y))),
    tilt=float(np.clip(rng.normal(0, framing.tilt), -framing.most_tilt, framing.most_tilt)),
    yaw=float(np.clip(rng.normal(0, 0.17), -0.4, 0.4)),
    pitch=float(np.clip(rng.normal(0, 0.06), -0.14, 0.14)))


def draw_face(rng: np.random.Generator, look: Look, framing: Framing = FRAMINGS["aligned"]) -> Drawing:
  """Draws a face; all that `look` leaves open (pose, light, backdrop) is drawn from `rng`."""
  view = sample_view(rng, framing)
  light = _sample_light(rng)
  obstacle = rng.random() < 0.06
  sheet = Sheet(view, worn.backdrop(rng))
  hair.draw_hair_behind(sheet, look)
  worn.draw_body(sheet, look)
  parts.draw_head(sheet, look)
  if look["5_o_Clock_Shadow"]:
    hair.draw_stubble(rng, sheet, look)
  parts.draw_eyes(sheet, look)
  parts.draw_brows(sheet, look)
  parts.draw_mouth(sheet, look)
  parts.draw_nose(sheet, look)
  hair.draw_beard(sheet, look)
  hair.draw_hair(rng, sheet, look)
  if look["Eyeglasses"]:
    worn.draw_glasses(sheet, look)
  if look["Wearing_Hat"]:
    hair.draw_hat(sheet, look)
  if look["Wearing_Earrings"]:
    worn.draw_earrings(sheet, look)
  if obstacle:
    worn.draw_obstacle(rng, sheet, look)
  image = cv2.resize(sheet.rgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
  return Drawing(_photograph(rng, image, light, look["Blurry"]), sheet.region, parts.landmarks(sheet, look))


def _sample_light(rng) -> np.ndarray:
  """Brightness of each pixel and channel, float32 [H, W, 3]: a colour cast, and light from one side."""
  warm = rng.normal(0, 0.045)
  gain = np.array([1 + warm, 1 + 0.2 * warm, 1 - warm]) * np.exp(rng.normal(0, 0.10))
  angle, slope = rng.uniform(0, 2 * np.pi), abs(rng.normal(0, 0.12))
  y, x = _grid()
  field = 1 + float(slope * np.cos(angle)) * x + float(slope * np.sin(angle)) * y
  return cv2.merge([field * float(channel) for channel in gain])


@functools.lru_cache(None)
def _grid() -> tuple[np.ndarray, np.ndarray]:
  """y and x of each pixel from -1 to 1, float32."""
  y, x = np.mgrid[-1:1:HEIGHT * 1j, -1:1:WIDTH * 1j]
  return y.astype(np.float32), x.astype(np.float32)


@functools.lru_cache(None)
def _grain() -> np.ndarray:
  """Noise of a camera, float32 [512, 512, 3], sd 1."""
  return np.random.default_rng(12).standard_normal((512, 512, 3), dtype=np.float32)


def _photograph(rng, image: np.ndarray, light: np.ndarray, blurry: bool) -> np.ndarray:
  """Light, focus and noise of the camera."""
  sharp, dull = rng.uniform(0.25, 0.6), rng.uniform(2.3, 3.3)
  image = cv2.GaussianBlur(image, (0, 0), dull if blurry else sharp)
  values = cv2.multiply(image, light, dtype=cv2.CV_32F)
  y, x = rng.integers(0, 512 - HEIGHT), rng.integers(0, 512 - WIDTH)
  return cv2.addWeighted(values, 1.0, _grain()[y:y + HEIGHT, x:x + WIDTH], rng.uniform(0.5, 3.0), 0.0, dtype=cv2.CV_8U)
