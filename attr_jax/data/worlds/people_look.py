"""Who is in a synthetic street scene: what people look like and wear, and where.

Attributes depend on each other and on the scene as in life; colours do not give
them away.
"""

import dataclasses
import math

import numpy as np

from attr_jax.data.worlds.common import chance, cloth, contrast, hsv, pick, shade

LONG_HAIR = ("long", "ponytail", "wavy")
LONG_SLEEVES = ("sweater", "shirt", "jacket", "suit", "robe")
_HAIR_OF_MEN = {"bald": 0.08, "buzz": 0.2, "short": 0.54, "bob": 0.05, "afro": 0.05, "long": 0.055, "ponytail": 0.025}
_HAIR_OF_WOMEN = {"short": 0.18, "bob": 0.18, "bun": 0.13, "afro": 0.04, "long": 0.25, "wavy": 0.11, "ponytail": 0.11}
# Shares of each kind of top that carry a print, and stripes or plaid.
_PRINTED = {"tshirt": 0.50, "tank": 0.33, "polo": 0.27, "sweater": 0.38, "jacket": 0.25, "shirt": 0.08, "robe": 0.06, "suit": 0.01}
_STRIPED = {"tshirt": 0.045, "tank": 0.045, "polo": 0.08, "sweater": 0.055, "jacket": 0.02, "shirt": 0.16, "robe": 0.05, "suit": 0.01}


@dataclasses.dataclass(frozen=True)
class Look:
  """What one person is and wears. Colours are RGB triples in 0..255."""

  male: bool
  back: bool  # seen from behind
  yaw: float  # -1..1, how far the head is turned aside
  tilt: float  # radians
  hair: str  # bald, buzz, short, bob, bun, afro, long, ponytail, wavy
  hat: str | None  # cap, brim, beanie, helmet, cone
  eyewear: str | None  # dark, clear
  face_mask: bool
  beard: bool
  top: str  # tshirt, tank, polo, sweater, shirt, jacket, suit, robe
  bottom: str  # pants, jeans, shorts, skirt, robe
  pattern: str | None  # stripes, plaid (the attribute), dots, camouflage (not)
  logo: str | None  # chest, small, back
  extra: str | None  # bag, scarf, lanyard, headband: things that resemble attributes
  held: str | None  # sign, bag, cup
  skin: tuple
  hair_colour: tuple
  hat_colour: tuple
  top_colour: tuple
  second_colour: tuple
  bottom_colour: tuple
  shoe_colour: tuple
  accent: tuple  # prints, ties, buttons, signs
  mask_colour: tuple
  lens_colour: tuple
  skirt_length: float  # 0.6 above the knee .. 1.3 below, in thigh lengths
  dress: bool  # the skirt is of one piece with the top
  detail: bool  # visor badge, open jacket, tie of a woman: a small variation


@dataclasses.dataclass(frozen=True)
class SceneKind:
  """A type of event. `odds` shifts the log-odds of what people wear there."""

  name: str
  backdrop: str  # street, shops, park, pitch, hall, ward
  share: float
  sunny: float  # chance of bright sun
  odds: dict


SCENES = (
  SceneKind("Parade", "street", 0.14, 0.6, {"hat": 0.9, "robe": 0.6, "plaid": 0.4, "sign": 1.0}),
  SceneKind("Demonstration", "street", 0.12, 0.4, {"mask": 1.2, "sign": 2.2, "jeans": 0.4, "hat": 0.2}),
  SceneKind("Traffic", "street", 0.12, 0.5, {"jeans": 0.3}),
  SceneKind("Shoppers", "shops", 0.11, 0.4, {"male": -0.7, "skirt": 0.5, "jeans": 0.2}),
  SceneKind("Meeting", "hall", 0.09, 0.0,
            {"formal": 2.0, "hat": -2.0, "shorts": -2.0, "tank": -1.5, "tshirt": -0.7, "logo": -0.6, "sunglass": -2.0}),
  SceneKind("Ceremony", "hall", 0.08, 0.1,
            {"formal": 1.9, "robe": 1.2, "skirt": 0.6, "shorts": -2.0, "tshirt": -0.8, "tank": -0.8, "sunglass": -1.0}),
  SceneKind("Sports", "pitch", 0.12, 0.6,
            {"male": 0.4, "shorts": 2.0, "tshirt": 0.9, "tank": 0.7, "logo": 0.9, "formal": -3.0, "robe": -3.0, "jeans": -1.5, "hat": -0.2}),
  SceneKind("Picnic", "park", 0.08, 0.8, {"male": -0.5, "shorts": 0.7, "skirt": 0.4, "plaid": 0.5, "formal": -2.0, "sunglass": 0.6}),
  SceneKind("Hospital", "ward", 0.05, 0.0, {"mask": 2.9, "robe": 1.2, "hat": 0.2, "shorts": -2.0, "formal": -1.0, "logo": -1.0, "sunglass": -2.0}),
  SceneKind("Students", "park", 0.09, 0.5, {"jeans": 0.4, "skirt": 0.4, "logo": 0.3, "hat": -0.5, "formal": -1.0}),
)


def _hair_colour(rng) -> tuple:
  kind = rng.random()
  if kind < 0.45:
    return hsv(0.06 + rng.normal(0, 0.02), rng.uniform(0.2, 0.6), rng.uniform(0.08, 0.25))
  if kind < 0.72:
    return hsv(0.07 + rng.normal(0, 0.01), rng.uniform(0.5, 0.75), rng.uniform(0.25, 0.5))
  if kind < 0.86:
    return hsv(0.12, rng.uniform(0.3, 0.6), rng.uniform(0.65, 0.9))
  if kind < 0.95:
    return hsv(0.0, rng.uniform(0.0, 0.08), rng.uniform(0.5, 0.85))
  return hsv(rng.random(), rng.uniform(0.5, 0.9), rng.uniform(0.4, 0.8))


def _garments(rng, scene: SceneKind, male: bool) -> tuple[str, str]:
  """Kinds of top and bottom: suits with trousers or skirts, shorts rather with bare arms."""
  def weigh(share, key, of_women=1.0):
    return share * math.exp(scene.odds.get(key, 0.0)) * (1.0 if male else of_women)

  top = pick(rng, {
    "tshirt": weigh(0.25, "tshirt", 0.85), "tank": weigh(0.14, "tank", 2.0), "polo": weigh(0.085, "tshirt"), "sweater": weigh(0.15, "sweater"),
    "shirt": weigh(0.112, "shirt"), "jacket": weigh(0.105, "jacket"), "suit": weigh(0.046, "formal", 0.75), "robe": weigh(0.045, "robe")})
  if top == "robe":
    return top, "robe"
  if top == "suit":
    return top, "skirt" if not male and rng.random() < 0.5 else "pants"
  warm = top in ("tshirt", "tank", "polo")
  return top, pick(rng, {
    "pants": weigh(0.42, "pants", 0.8), "jeans": weigh(0.09, "jeans"),
    "shorts": weigh(0.32 if warm else 0.10, "shorts", 0.8), "skirt": weigh(0.006, "skirt", 54.0)})


def _decoration(rng, scene: SceneKind, top: str, back: bool) -> tuple[str | None, str | None]:
  """Logo and pattern of a top."""
  logo = pattern = None
  if chance(rng, _PRINTED[top], scene.odds.get("logo", 0.0)):
    buttoned = top in ("jacket", "polo")
    logo = "back" if back else "small" if buttoned or rng.random() < 0.25 else "chest"
  if chance(rng, _STRIPED[top], scene.odds.get("plaid", 0.0)):
    pattern = pick(rng, {"stripes": 0.5, "plaid": 0.5})
  elif top != "suit" and rng.random() < 0.07:
    pattern = pick(rng, {"dots": 0.5, "camouflage": 0.5})
  return logo, pattern


def _bottom_colour(rng, top: str, bottom: str, top_colour: tuple) -> tuple:
  """Blue does not mean jeans: one in six other garments is blue as well."""
  if top == "suit":
    return shade(top_colour, rng.uniform(0.85, 1.0))
  if bottom == "jeans":
    return hsv(rng.uniform(0.57, 0.64), rng.uniform(0.25, 0.65), rng.uniform(0.28, 0.75))
  if rng.random() < 0.16:
    return hsv(rng.uniform(0.56, 0.66), rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75))
  return cloth(rng, dark=0.2)


def sample_look(rng: np.random.Generator, scene: SceneKind, sunny: bool) -> Look:
  """Draws what a person of this `scene` looks like; attributes depend on each other as in life, hats and dark glasses on the sun."""
  odds = scene.odds
  male = chance(rng, 0.62, odds.get("male", 0.0))
  back = bool(rng.random() < 0.17)
  top, bottom = _garments(rng, scene, male)
  logo, pattern = _decoration(rng, scene, top, back)
  hair = pick(rng, _HAIR_OF_MEN if male else _HAIR_OF_WOMEN)
  hat = eyewear = None
  if chance(rng, 0.208, odds.get("hat", 0.0) + (0.35 if sunny else -0.1) + (0.15 if male else -0.2)):
    hat = pick(rng, {"cap": 0.42, "brim": 0.22, "beanie": 0.16, "helmet": 0.13, "cone": 0.07})
  if chance(rng, 0.050, odds.get("sunglass", 0.0) + (0.7 if sunny else -0.5) + (0.5 if hat else -0.1)):
    eyewear = "dark"
  elif rng.random() < 0.10:
    eyewear = "clear"
  tone = float(rng.choice([0.33, 0.45, 0.62, 0.78, 0.88, 0.95], p=[0.08, 0.12, 0.15, 0.2, 0.25, 0.2]))
  top_colour = cloth(rng, dark=0.35 if top == "suit" else 0.0)
  return Look(
    male=male,
    back=back,
    yaw=float(rng.uniform(-1, 1)),
    tilt=float(rng.normal(0, 0.10)),
    hair=hair,
    hat=hat,
    eyewear=eyewear,
    face_mask=chance(rng, 0.024, odds.get("mask", 0.0)),
    beard=male and bool(rng.random() < 0.38),
    top=top,
    bottom=bottom,
    pattern=pattern,
    logo=logo,
    extra=pick(rng, {"": 0.68, "bag": 0.12, "scarf": 0.07, "lanyard": 0.07, "headband": 0.06}) or None,
    held="sign" if chance(rng, 0.03, odds.get("sign", 0.0)) else pick(rng, {"": 0.82, "bag": 0.12, "cup": 0.06}) or None,
    skin=hsv(0.06 + rng.normal(0, 0.008), 0.62 - 0.35 * tone + rng.normal(0, 0.03), tone + rng.normal(0, 0.02)),
    hair_colour=_hair_colour(rng),
    hat_colour=cloth(rng),
    top_colour=top_colour,
    second_colour=contrast(rng, top_colour),
    bottom_colour=_bottom_colour(rng, top, bottom, top_colour),
    shoe_colour=cloth(rng, dark=0.3),
    accent=contrast(rng, top_colour),
    mask_colour=cloth(rng) if rng.random() < 0.3 else hsv(0.55, rng.uniform(0, 0.3), rng.uniform(0.75, 0.95)),
    lens_colour=hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.05, 0.22)),
    skirt_length=float(rng.uniform(0.65, 1.3)),
    dress=bottom == "skirt" and top in ("tank", "tshirt", "sweater") and bool(rng.random() < 0.45),
    detail=bool(rng.random() < 0.5))
