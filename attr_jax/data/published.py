"""What the authors of data sets have published of their labels, and where a source differs from it."""

from collections.abc import Sequence
import dataclasses

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
# Positives of its 202,599 photos, counted in the list, as those below are in the files of their data sets.
CELEBA_SHARES = (
    0.1111, 0.2670, 0.5125, 0.2046, 0.0224, 0.1516, 0.2408, 0.2345, 0.2393, 0.1480, 0.0509, 0.2052, 0.1422, 0.0576, 0.0467, 0.0651,
    0.0628, 0.0419, 0.3869, 0.4550, 0.4168, 0.4834, 0.0415, 0.1151, 0.8349, 0.2841, 0.0429, 0.2774, 0.0798, 0.0657, 0.0565, 0.4821,
    0.2084, 0.3196, 0.1889, 0.0485, 0.4724, 0.1230, 0.0727, 0.7736)

# The 35 attributes of PETA that are usually evaluated, in the order of the copy with numbered images, and their positives in its 19,000.
PETA_ATTRIBUTES = (
    "personalLess30", "personalLess45", "personalLess60", "personalLarger60", "carryingBackpack", "carryingOther", "lowerBodyCasual",
    "upperBodyCasual", "lowerBodyFormal", "upperBodyFormal", "accessoryHat", "upperBodyJacket", "lowerBodyJeans",
    "footwearLeatherShoes", "upperBodyLogo", "hairLong", "personalMale", "carryingMessengerBag", "accessoryMuffler",
    "accessoryNothing", "carryingNothing", "upperBodyPlaid", "carryingPlasticBags", "footwearSandals", "footwearShoes",
    "lowerBodyShorts", "upperBodyShortSleeve", "lowerBodyShortSkirt", "footwearSneaker", "upperBodyThinStripes",
    "accessorySunglasses", "lowerBodyTrousers", "upperBodyTshirt", "upperBodyOther", "upperBodyVNeck")
PETA_SHARES = (
    0.4970, 0.3288, 0.1023, 0.0617, 0.1966, 0.1994, 0.8608, 0.8530, 0.1375, 0.1339, 0.1016, 0.0692, 0.3061, 0.2962, 0.0402, 0.2375,
    0.5485, 0.2957, 0.0839, 0.7494, 0.2759, 0.0266, 0.0765, 0.0204, 0.3633, 0.0347, 0.1418, 0.0455, 0.2161, 0.0172, 0.0291, 0.5151,
    0.0842, 0.4556, 0.0118)

# Positives of the 41,585 images of RAP (version 1); the value 2 is none. Copies spell the names in several ways.
RAP_SHARES = (
    0.3054, 0.0100, 0.4300, 0.5600, 0.1449, 0.7425, 0.0977, 0.9463, 0.0483, 0.0038, 0.1893, 0.9448, 0.0167, 0.0730, 0.0105, 0.2212,
    0.1234, 0.0578, 0.2289, 0.1728, 0.3152, 0.0221, 0.0303, 0.0178, 0.5603, 0.0651, 0.0280, 0.0366, 0.2683, 0.1333, 0.3025, 0.2709,
    0.1241, 0.0124, 0.1573, 0.0181, 0.0642, 0.0281, 0.0422, 0.0276, 0.0126, 0.0245, 0.2946, 0.0341, 0.0328, 0.0918, 0.0246, 0.0104,
    0.0176, 0.0234, 0.1289)

# Photos of COCO's train2014 with each of the 80 kinds of objects, by ascending id; those without any annotation count.
COCO_SHARES = (
    0.5457, 0.0276, 0.1040, 0.0295, 0.0271, 0.0337, 0.0298, 0.0522, 0.0253, 0.0349, 0.0146, 0.0147, 0.0058, 0.0464, 0.0271, 0.0340,
    0.0367, 0.0250, 0.0133, 0.0168, 0.0183, 0.0081, 0.0160, 0.0217, 0.0474, 0.0332, 0.0587, 0.0322, 0.0197, 0.0183, 0.0267, 0.0141,
    0.0361, 0.0196, 0.0218, 0.0228, 0.0303, 0.0283, 0.0286, 0.0721, 0.0214, 0.0787, 0.0306, 0.0374, 0.0301, 0.0607, 0.0195, 0.0141,
    0.0199, 0.0147, 0.0162, 0.0143, 0.0099, 0.0266, 0.0128, 0.0251, 0.1081, 0.0383, 0.0373, 0.0307, 0.1012, 0.0280, 0.0385, 0.0299,
    0.0156, 0.0263, 0.0178, 0.0401, 0.0132, 0.0242, 0.0018, 0.0398, 0.0202, 0.0451, 0.0382, 0.0306, 0.0081, 0.0182, 0.0015, 0.0085)


@dataclasses.dataclass(frozen=True)
class Facts:
  """What shapes a training step on a data set, before it is prepared.

  Attributes:
    labels: L.
    train: samples of the training split; of WIDER-Attribute boxes of train and val, whose sum is published; of COCO people photos.
    region_mask: whether its samples have one.
    landmarks: likewise.
  """

  labels: int
  train: int
  region_mask: bool = False
  landmarks: bool = False


FACTS = {
    "celeba": Facts(40, 162_770, landmarks=True),
    "celeba_aligned": Facts(40, 162_770, landmarks=True),
    "celebamask_hq": Facts(40, 24_183, region_mask=True),
    "coco": Facts(80, 82_783),
    "coco_person": Facts(0, 118_287),
    "helen": Facts(0, 2_000, region_mask=True),
    "imet2019": Facts(1_103, 87_360),
    "lfwa": Facts(40, 6_263),
    "pa100k": Facts(26, 80_000),
    "peta": Facts(35, 9_500),
    "peta_all": Facts(105, 9_500),
    "rap": Facts(51, 33_268),
    "rap2": Facts(54, 50_957),
    "wider_attribute": Facts(14, 28_345),
}


def name_deviations(names: Sequence[str], published: Sequence[str]) -> list[str]:
  """One line for each of `names` [L] that is not the published one at that place, or one for another number of labels."""
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


def label_deviations(names: Sequence[str], label: np.ndarray, expected: Sequence[str], shares: Sequence[float], *, digits: int,
                     of: str) -> list[str]:
  """Names that are not the published ones; without any, shares that are not: they mean nothing under other names.

  Args:
    names: [L].
    label: [N, L], 1 = positive.
    expected: [L], the published names.
    shares: [L], the published shares of positives in 0..1.
    digits: As in `share_deviations`.
    of: Likewise.
  """
  return name_deviations(names, expected) or share_deviations(names, label, shares, digits=digits, of=of)
