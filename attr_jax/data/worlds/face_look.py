"""Whose face a synthetic photo shows: CelebA's forty attributes, drawn together, and what they leave open.

Sex and age come first; shares of the others are given those two (and of each
other where one rules another out). Over all faces they add up to about the
shares of the real data set (Liu 2015).
"""

import dataclasses
import math

import numpy as np

from attr_jax.data.published import CELEBA_ATTRIBUTES as ATTRIBUTES
from attr_jax.data.worlds.common import chance, cloth, contrast, hsv, pick

HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
FACIAL_HAIR = ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")

# What grows on the faces of men, in percent.
_BEARDS = {
  (): 60.0, ("5_o_Clock_Shadow",): 14.0, ("5_o_Clock_Shadow", "Goatee"): 4.0, ("5_o_Clock_Shadow", "Mustache"): 1.5,
  ("5_o_Clock_Shadow", "Sideburns"): 5.5, ("5_o_Clock_Shadow", "Goatee", "Mustache"): 1.3, ("Goatee",): 2.8, ("Goatee", "Mustache"): 2.4,
  ("Goatee", "Sideburns"): 0.8, ("Goatee", "Mustache", "Sideburns"): 3.6, ("Mustache",): 1.2, ("Sideburns",): 2.9}
# Hair colours of (women, men) that are young, and of those that are not. "" is none of the four: red or dyed.
_COLOURS = (
  ({"Black_Hair": 0.22, "Blond_Hair": 0.24, "Brown_Hair": 0.26, "": 0.28}, {"Black_Hair": 0.37, "Blond_Hair": 0.04, "Brown_Hair": 0.21, "": 0.38}),
  ({"Black_Hair": 0.15, "Blond_Hair": 0.25, "Brown_Hair": 0.22, "Gray_Hair": 0.08, "": 0.30},
   {"Black_Hair": 0.25, "Blond_Hair": 0.03, "Brown_Hair": 0.17, "Gray_Hair": 0.28, "": 0.27}))


@dataclasses.dataclass(frozen=True)
class Look:
  """One face and what it wears. Colours are RGB triples in 0..255."""

  attributes: dict  # name -> bool, in the order of ATTRIBUTES
  hair: str  # bald, buzz, short, bun, bob, long
  part: float  # -1..1, where the hair is parted
  hat: str  # cap, brim, beanie: which one, if any
  glasses: str  # square, round, dark: which ones, if any
  top: str  # suit, shirt, round, scoop
  face_shape: str  # of a face that is not oval: square, round, heart
  earring: str  # drop, hoop
  skin: tuple
  hair_colour: tuple
  brow_colour: tuple  # of brows and beards
  lip_colour: tuple  # of lipstick, if any
  shadow_colour: tuple  # of eye make-up, if any
  iris: tuple
  top_colour: tuple
  second_colour: tuple  # ties, lapels, buttons
  hat_colour: tuple
  frame_colour: tuple
  metal: tuple  # earrings, necklaces
  variation: tuple  # six numbers -1..1 that shape parts of this face: jaw, eyes, nose, mouth, brows, hair

  def __getitem__(self, name: str) -> bool:
    """Whether the face has the attribute."""
    return self.attributes[name]


def sample_look(rng: np.random.Generator) -> Look:
  """Draws a face; see the head of this file for how attributes depend on each other."""
  has = dict.fromkeys(ATTRIBUTES, False)
  male = has["Male"] = chance(rng, 0.417)
  young = has["Young"] = chance(rng, 0.65 if male else 0.865)
  hair, hat = _hair(rng, has)
  glasses = pick(rng, {"square": 0.45, "round": 0.3, "dark": 0.25})
  has["Eyeglasses"] = chance(rng, 0.115 if male else 0.02, -0.1 if young else 0.3)
  _features(rng, has, eyes_hidden=has["Eyeglasses"] and glasses == "dark")
  top = _adornments(rng, has, hair)
  has["Pale_Skin"] = chance(rng, 0.03 if male else 0.052)
  has["Blurry"] = chance(rng, 0.051)
  has["Attractive"] = _is_attractive(rng, has)
  hair_colour = _hair_colour(rng, has)
  top_colour = _suit_colour(rng) if top == "suit" else cloth(rng)
  return Look(
    attributes=has, hair=hair, part=float(rng.uniform(-1, 1)), hat=hat, glasses=glasses, top=top,
    face_shape=pick(rng, {"square": 0.5, "round": 0.3, "heart": 0.2} if male else {"square": 0.25, "round": 0.4, "heart": 0.35}),
    earring=pick(rng, {"drop": 0.6, "hoop": 0.4}),
    skin=_skin(rng, has["Pale_Skin"]),
    hair_colour=hair_colour,
    lip_colour=hsv(rng.uniform(0.93, 1.01), rng.uniform(0.72, 0.9), rng.uniform(0.62, 0.88)),
    shadow_colour=hsv(rng.choice([0.62, 0.78, 0.92, 0.45, 0.06]), rng.uniform(0.35, 0.65), rng.uniform(0.25, 0.55)),
    iris=hsv(*((0.07, 0.6, 0.3) if rng.random() < 0.6 else (rng.uniform(0.3, 0.6), 0.45, 0.55))),
    top_colour=top_colour, second_colour=contrast(rng, top_colour), hat_colour=contrast(rng, hair_colour),
    frame_colour=hsv(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.03, 0.22)),
    metal=(225, 180, 70) if rng.random() < 0.5 else (232, 234, 240),
    variation=tuple(rng.uniform(-1, 1, 6).tolist()),
    # Not that of the hair: attributes of its colour must be seen in the hair, and nowhere else.
    brow_colour=hsv(rng.uniform(0.02, 0.10), rng.uniform(0.2, 0.6), rng.uniform(0.10, 0.40)))


def _hair(rng, has: dict) -> tuple[str, str]:
  """Cut, and the hat that may hide it; sets the attributes of both."""
  male, young = has["Male"], has["Young"]
  if male and chance(rng, 0.055, -1.0 if young else 0.8):
    has["Bald"] = True
    return "bald", "cap"
  has["Wearing_Hat"] = chance(rng, 0.08 if male else 0.028)
  texture = pick(rng, {"Straight_Hair": 0.22, "Wavy_Hair": 0.17, "": 0.61} if male else {"Straight_Hair": 0.22, "Wavy_Hair": 0.45, "": 0.33})
  if texture:
    hair = pick(rng, {"short": 0.82, "long": 0.18} if male else {"long": 0.75, "bob": 0.25})
  else:
    hair = pick(rng, {"buzz": 1.0} if male else {"bun": 0.75, "buzz": 0.25})
  hat = pick(rng, {"cap": 0.45, "brim": 0.25, "beanie": 0.3} if male else {"cap": 0.2, "brim": 0.45, "beanie": 0.35})
  if has["Wearing_Hat"] and hair not in ("long", "bob"):
    return hair, hat  # nothing of the hair can be seen
  if texture:
    has[texture] = True
  colour = pick(rng, _COLOURS[not young][male])
  if colour:
    has[colour] = True
  if not has["Wearing_Hat"]:
    has["Bangs"] = chance(rng, 0.09 if male else 0.215)
    has["Receding_Hairline"] = not has["Bangs"] and chance(rng, 0.14 if male else 0.055, -0.25 if young else 0.8)
  return hair, hat


def _features(rng, has: dict, eyes_hidden: bool):
  """The face itself. Where dark glasses hide the eyes, nothing is said of them."""
  male, young = has["Male"], has["Young"]
  has["Chubby"] = chance(rng, 0.10 if male else 0.03, -0.4 if young else 0.7)
  has["Double_Chin"] = chance(rng, 0.45 if has["Chubby"] else 0.015 if young else 0.045)
  has["Oval_Face"] = not has["Chubby"] and chance(rng, 0.24 if male else 0.34)
  has["Big_Nose"] = chance(rng, 0.42 if male else 0.10, -0.1 if young else 0.3)
  has["Pointy_Nose"] = not has["Big_Nose"] and chance(rng, 0.27 if male else 0.41)
  has["Big_Lips"] = chance(rng, 0.17 if male else 0.29)
  has["Smiling"] = chance(rng, 0.40 if male else 0.54)
  has["Mouth_Slightly_Open"] = chance(rng, 0.75 if has["Smiling"] else 0.235)
  has["High_Cheekbones"] = chance(rng, 0.80 if has["Smiling"] else 0.14)
  brows = pick(rng, {"Arched_Eyebrows": 0.06, "Bushy_Eyebrows": 0.24, "": 0.70} if male else
               {"Arched_Eyebrows": 0.415, "Bushy_Eyebrows": 0.075, "": 0.51})
  if brows:
    has[brows] = True
  bags = chance(rng, 0.28 if male else 0.135, -0.2 if young else 0.65)
  narrow = chance(rng, 0.12)
  has["Bags_Under_Eyes"], has["Narrow_Eyes"] = bags and not eyes_hidden, narrow and not eyes_hidden
  kinds = list(_BEARDS)
  grown = kinds[int(rng.choice(len(kinds), p=np.array(list(_BEARDS.values())) / 100))]
  for name in grown if male else ():
    has[name] = True
  has["No_Beard"] = not any(has[name] for name in FACIAL_HAIR)


def _adornments(rng, has: dict, hair: str) -> str:
  """Make-up, jewels and ties; returns the garment, one that leaves room for them."""
  male = has["Male"]
  has["Heavy_Makeup"] = not male and chance(rng, 0.665, 0.1 if has["Young"] else -0.6)
  has["Wearing_Lipstick"] = not male and chance(rng, 0.97 if has["Heavy_Makeup"] else 0.49)
  has["Rosy_Cheeks"] = chance(rng, 0.01 if male else 0.15 if has["Heavy_Makeup"] else 0.035)
  has["Wearing_Earrings"] = chance(rng, 0.03 if male else 0.27, 0.6 if hair in ("bun", "buzz") and not male else 0.0)
  has["Wearing_Necktie"] = chance(rng, 0.17 if male else 0.003, -0.3 if has["Young"] else 0.5)
  has["Wearing_Necklace"] = not has["Wearing_Necktie"] and chance(rng, 0.02 if male else 0.20)
  if has["Wearing_Necktie"]:
    return pick(rng, {"suit": 0.8, "shirt": 0.2})
  if has["Wearing_Necklace"]:
    return "scoop"
  return pick(rng, {"suit": 0.2, "shirt": 0.35, "round": 0.45} if male else {"suit": 0.06, "shirt": 0.12, "round": 0.27, "scoop": 0.55})


def _is_attractive(rng, has: dict) -> bool:
  """A stand-in for the taste of CelebA's annotators: youth, make-up and a few features, plus noise that no network can predict."""
  score = (2.2 * has["Young"] + 1.2 * has["Heavy_Makeup"] + 0.5 * has["Oval_Face"] + 0.5 * has["Arched_Eyebrows"] + 0.4 * has["Smiling"]
           - 1.2 * has["Male"] - 1.5 * has["Chubby"] - 0.9 * has["Big_Nose"] - 0.8 * has["Bags_Under_Eyes"] - 0.8 * has["Eyeglasses"]
           - 0.8 * has["Double_Chin"] - 0.8 * has["Bald"] - 0.7 * has["Receding_Hairline"] - 0.8 * has["Blurry"])
  return bool(rng.random() < 1 / (1 + math.exp(-1.7 * (score - 1.6))))


def _hair_colour(rng, has: dict) -> tuple:
  """The colour that the attributes name, else red or dyed."""
  kind = next((name for name in HAIR_COLOURS if has[name]), "")
  if kind == "Black_Hair":
    return hsv(rng.uniform(0.0, 0.7), rng.uniform(0.0, 0.25), rng.uniform(0.07, 0.13))
  if kind == "Brown_Hair":
    return hsv(rng.uniform(0.055, 0.08), rng.uniform(0.55, 0.7), rng.uniform(0.30, 0.44))
  if kind == "Blond_Hair":
    return hsv(rng.uniform(0.115, 0.135), rng.uniform(0.38, 0.6), rng.uniform(0.82, 0.95))
  if kind == "Gray_Hair":
    return hsv(rng.uniform(0.5, 0.7), rng.uniform(0.0, 0.05), rng.uniform(0.62, 0.8))
  if rng.random() < 0.7:
    return hsv(rng.uniform(0.02, 0.04), rng.uniform(0.75, 0.9), rng.uniform(0.55, 0.75))
  return hsv(rng.uniform(0.4, 0.95), rng.uniform(0.5, 0.8), rng.uniform(0.45, 0.8))


def _skin(rng, pale: bool) -> tuple:
  """From light to dark; pale skin is whiter than all others."""
  if pale:
    return hsv(rng.uniform(0.03, 0.06), rng.uniform(0.08, 0.13), rng.uniform(0.96, 0.99))
  tone = float(rng.choice([0.42, 0.55, 0.68, 0.80, 0.88], p=[0.08, 0.10, 0.17, 0.30, 0.35])) + rng.normal(0, 0.02)
  return hsv(0.062 + rng.normal(0, 0.006), 0.72 - 0.40 * tone + rng.normal(0, 0.02), tone + 0.04)


def _suit_colour(rng) -> tuple:
  return hsv(rng.uniform(0.55, 0.7), rng.uniform(0.0, 0.4), rng.uniform(0.08, 0.35))
