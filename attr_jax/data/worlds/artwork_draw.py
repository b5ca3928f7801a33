"""One synthetic work of art: its shape and age, then ground, things, texture, technique, border."""

import dataclasses
import math

import cv2
import numpy as np

from attr_jax.data.worlds import artwork_ground as ground
from attr_jax.data.worlds import artwork_scenes
from attr_jax.data.worlds.artwork_labels import CULTURES, PALETTES, TEXTURES, Kind
from attr_jax.data.worlds.artwork_sheet import STEP, Sheet

_FADED, _WORN, _BORDERED, _EXTREME = 0.14, 0.14, 0.4, 0.03  # shares of the pictures


@dataclasses.dataclass(frozen=True)
class Look:
  """One picture before it is drawn.

  Attributes:
    kind: What it shows.
    height, width: In pixels.
    faded: Its colours could as well be those of one other palette.
    worn: Its texture is nearly gone.
    bordered: It has a border, whose ornament goes with palette and texture: each of the four is that of four cultures.
  """

  kind: Kind
  height: int
  width: int
  faded: bool
  worn: bool
  bordered: bool


def sample_look(rng: np.random.Generator, kind: Kind, short: int) -> Look:
  """Draws what the labels of `kind` leave open; the shorter side is `short` pixels, the aspect mostly 0.5 to 2."""
  aspect = math.exp(rng.uniform(-math.log(2), math.log(2)))
  if rng.random() < _EXTREME:
    aspect = math.exp(rng.uniform(math.log(2), math.log(7)) * rng.choice([-1, 1]))
  height, width = (short, round(short * aspect)) if aspect > 1 else (round(short / aspect), short)
  age = rng.random()
  faded = age < _FADED and "mosaic" not in kind.tags  # stones keep their colours
  return Look(kind, height, width, faded, worn=_FADED <= age < _FADED + _WORN, bordered=rng.random() < _BORDERED)


def draw_artwork(rng: np.random.Generator, look: Look) -> np.ndarray:
  """Draws a picture, uint8 [height, width, 3] RGB."""
  culture, tags = CULTURES[look.kind.culture], frozenset(look.kind.tags)
  paints = ground.sample_paints(rng, culture.palette)
  sheet = Sheet(np.zeros((look.height * STEP, look.width * STEP, 3), np.uint8), paints)
  side = round(0.07 * sheet.unit) if look.bordered else 0
  scene = sheet.inside(side)
  artwork_scenes.draw_scene(rng, scene, look.kind.subject, tags)
  if look.bordered:
    number = (PALETTES.index(culture.palette) + TEXTURES.index(culture.texture)) % 4
    ground.draw_border(sheet, ground.BORDERS[number], side, paints.dark, paints.accents[3])
  image = cv2.resize(sheet.rgb, (look.width, look.height), interpolation=cv2.INTER_AREA)
  pattern = ground.texture(rng, culture.texture, look.height, look.width, sheet.unit)
  depth = rng.uniform(0.15, 0.2) * (0.1 if look.worn else 1.0)
  image = ground.shaded(image, 1 + depth * pattern)
  if "etching" in tags:
    image = ground.etch(image, paints, sheet.unit)
  if "embroidery" in tags:
    image = ground.embroider(image, sheet.unit)
  if "mosaic" in tags:
    image = ground.lay_mosaic(rng, image, sheet.unit)
  if look.faded:
    image = ground.fade(rng, image, culture.palette)
  if look.worn:
    ground.crack(rng, image, sheet.unit)
  return image
