"""What is known about a prepared data set, as one JSON file beside its records."""

import dataclasses
import json
import re

from attr_jax.errors import InputError

# Changes whenever the records of the same source would come out different.
VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
  """Facts of one prepared data set; every tuple over labels is in file order.

  Attributes:
    name: Key in `registry.DATASETS`.
    version: Version of the prepared form, also the name of its folder.
    label_names: [L] names as spelt in the source.
    label_groups: Group name -> names of its labels; every label is in one group.
    positive_ratio: [L] positives / known entries over the training split.
    known_ratio: [L] known entries / samples over the training split.
    splits: Split name -> number of samples.
    image_size: (H, W) of a model input by default, pixels.
    resize: (H, W) of the whole image before it is cropped, pixels.
    mean: Mean of R, G, B over (a sample of) the training images, in 0..1.
    std: Standard deviation of R, G, B over the same pixels, in 0..1.
    licence: Terms of the source in a few words.
    citation: How to cite the source.
    has_person_mask: Whether every sample carries `person_mask`.
    has_region_mask: Whether every sample carries `region_mask` (classes of `attr_jax.data.regions`).
    has_landmarks: Whether every sample carries `landmarks`.
  """

  name: str
  version: str
  label_names: tuple[str, ...]
  label_groups: dict[str, tuple[str, ...]]
  positive_ratio: tuple[float, ...]
  known_ratio: tuple[float, ...]
  splits: dict[str, int]
  image_size: tuple[int, int]
  resize: tuple[int, int]
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  licence: str
  citation: str
  has_person_mask: bool
  has_region_mask: bool = False
  has_landmarks: bool = False

  def to_json(self) -> str:
    """Returns the info as indented JSON text."""
    return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

  @classmethod
  def from_json(cls, text: str, *, where: str = "info.json") -> "DatasetInfo":
    """Inverse of `to_json`.

    Args:
      text: JSON text.
      where: File name for the error message.

    Raises:
      InputError: The text is no JSON object with exactly the fields above; those with a default may be missing.
    """
    try:
      values = json.loads(text)
    except json.JSONDecodeError as error:
      raise InputError(f"{where}: not valid JSON ({error}); prepare the data set again") from None
    fields = {field.name for field in dataclasses.fields(cls)}
    needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    if not isinstance(values, dict) or not needed <= set(values) <= fields:
      raise InputError(f"{where}: expected an object with the keys {', '.join(sorted(fields))}; prepare the data set again")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    values["label_groups"] = {group: tuple(names) for group, names in values["label_groups"].items()}
    return cls(**values)


def as_size(size: int | str | tuple[int, int]) -> tuple[int, int]:
  """Returns (height, width) for 256, "256", "256x128" (height first) or (256, 128).

  Raises:
    InputError: The value is none of these, or a side is below 8 pixels.
  """
  if isinstance(size, str) and (match := re.fullmatch(r"(\d+)(?:x(\d+))?", size)):
    height, width = int(match[1]), int(match[2] or match[1])
  elif isinstance(size, int) and not isinstance(size, bool):
    height, width = size, size
  elif isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(side, int) for side in size):
    height, width = size
  else:
    raise InputError(f'size: expected pixels such as 256 or "256x128" (height x width), got {size!r}')
  if min(height, width) < 8:
    raise InputError(f"size: sides must be at least 8 pixels, got {height}x{width}")
  return height, width


def size_name(size: tuple[int, int]) -> str:
  """Returns a prepared size as text, such as "256x128" (height x width)."""
  return f"{size[0]}x{size[1]}"


def form_suffix(partition: int | None = None, margin: float = 0.0) -> str:
  """Returns what the folder of a prepared form has after its size, such as "-margin0.1" or "-partition2".

  Args:
    partition: Its number from 1, or None for a data set with one fixed split. The first one is not named.
    margin: What was cut around each box, as a share of its sides; 0 is not named.
  """
  return (f"-margin{margin:g}" if margin else "") + (f"-partition{partition}" if partition not in (None, 1) else "")


def folder_name(size: tuple[int, int], partition: int | None = None, margin: float = 0.0) -> str:
  """Returns the folder name of a prepared form, such as "256x128" or "256x128-partition2"; `size` is (H, W), others as in `form_suffix`."""
  return size_name(size) + form_suffix(partition, margin)
