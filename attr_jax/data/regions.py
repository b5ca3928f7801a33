"""The classes of `region_mask`: the parts of a face.

Source: Kalayeh, Gong, Shah, CVPR 2017, who merge the labels of Smith et al. (CVPR 2013) to seven.
"""

import enum


class FaceRegion(enum.IntEnum):
  """Class index of a pixel; also the order of channels and of table rows. No class has a side, so a mirrored mask keeps its classes."""

  BACKGROUND = 0
  HAIR = 1
  FACE_SKIN = 2
  EYES = 3
  EYEBROWS = 4
  MOUTH = 5
  NOSE = 6


FACE_REGION_NAMES = tuple(region.name.lower().replace("_", " ") for region in FaceRegion)


def names_of(count: int) -> list[str]:
  """The parts of a face, or numbers where the regions are others (boxes)."""
  return list(FACE_REGION_NAMES) if count == len(FACE_REGION_NAMES) else [f"box {i}" for i in range(count)]


# In a region mask: padding, of which nothing is known. Never counted, never trained on.
UNKNOWN = 255
