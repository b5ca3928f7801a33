"""What the authors of data sets have published of their labels, and where a source differs from it."""

from collections.abc import Sequence

import numpy as np

# The attributes of WIDER-Attribute in the order of its files and of all tables.
WIDER_ATTRIBUTES = ("Male", "longHair", "sunglass", "Hat", "Tshirt", "longSleeve", "formal", "shorts", "jeans", "longPants",
                    "skirt", "faceMask", "logo", "stripe")
# Positives of all boxes of train+val, as VAC gives them (Guo et al., CVPR 2019); unspecified entries count as boxes.
WIDER_SHARES = (0.5669, 0.2244, 0.0502, 0.2260, 0.2191, 0.4647, 0.0699, 0.1542, 0.0816, 0.3621, 0.1005, 0.0330, 0.2682, 0.0543)

# The attributes of PA-100K in the order of its file, spelt as there.
PA100K_ATTRIBUTES = (
    "Female", "AgeOver60", "Age18-60", "AgeLess18", "Front", "Side", "Back", "Hat", "Glasses", "HandBag", "ShoulderBag", "Backpack",
    "HoldObjectsInFront", "ShortSleeve", "LongSleeve", "UpperStride", "UpperLogo", "UpperPlaid", "UpperSplice", "LowerStripe",
    "LowerPattern", "LongCoat", "Trousers", "Shorts", "Skirt&Dress", "boots")
# Positives of the 90,000 images of train+val, as VAC gives them.
PA100K_SHARES = (
    0.460444, 0.013456, 0.924378, 0.062167, 0.352667, 0.294622, 0.352711, 0.043544, 0.179978, 0.185000, 0.192733, 0.160100, 0.009522,
    0.583400, 0.416600, 0.049478, 0.151044, 0.107756, 0.041911, 0.004722, 0.016889, 0.032411, 0.711711, 0.173444, 0.114844, 0.006000)

# The attributes of CelebA in the order of its list.
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose", "Black_Hair",
    "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup",
    "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose",
    "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young")


def name_deviations(names: Sequence[str], published: Sequence[str]) -> list[str]:
  """One line for each label whose name is not the published one at that place, or one for another number of labels."""
  if len(names) != len(published):
    return [f"labels: {len(names)}, published {len(published)}"]
  return [f"label {place}: {name!r}, published {expected!r}"
          for place, (name, expected) in enumerate(zip(names, published)) if name != expected]


def share_deviations(names: Sequence[str], label: np.ndarray, published: Sequence[float], *, digits: int, of: str) -> list[str]:
  """One line for each label whose share of positives is not the published one.

  Args:
    names: [L].
    label: [N, L], 1 = positive; anything else is not.
    published: [L] shares in 0..1.
    digits: Decimal places that were published; one unit of the last is tolerated, since some cut instead of rounding.
    of: What the N samples are, such as "train+val".
  """
  shares = (label == 1).mean(axis=0)
  return [f"positive share of {name} in {of}: {share:.{digits}f}, published {expected:.{digits}f}"
          for name, share, expected in zip(names, shares, published) if abs(share - expected) > 1.001 * 10.0**-digits]
