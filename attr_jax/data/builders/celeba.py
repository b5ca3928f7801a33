"""CelebA: photos of celebrities with 40 attributes coded +1 / -1 and five landmarks, in two sets of images.

Layout of the original download; lists and image folders are also found in the
source folder itself:

  Img/img_celeba/000001.jpg ...         original photos of any size
  Img/img_align_celeba/000001.jpg ...   the same cut to 178 x 218 pixels (width x height), eyes in one place
  Anno/list_attr_celeba.txt             count, attribute names, then a row per photo
  Anno/list_landmarks_celeba.txt        count, ten names, then x and y of five points per original photo
  Anno/list_landmarks_align_celeba.txt  the same for the cut ones
  Eval/list_eval_partition.txt          0 = train, 1 = val, 2 = test
  Anno/identity_CelebA.txt              (optional) who it is

Copies in use have other line ends, more blanks, no count, or are CSV files with
a header and the name of the list (the Kaggle edition, where the image folder
lies in another one of its name).
"""

import collections
import dataclasses
import pathlib

import numpy as np

from attr_jax.data.builders import records
from attr_jax.errors import InputError

_PUBLISHED = {"train": 162_770, "val": 19_867, "test": 19_962}
_ALIGNED_SIZE = (218, 178)
_SUFFIXES = (".jpg", ".jpeg", ".png")

# Also those of LFWA, which has the same attributes.
GROUPS = {
    "person": ("Male", "Young", "Attractive", "Chubby", "Double_Chin", "Oval_Face", "Pale_Skin", "Rosy_Cheeks", "High_Cheekbones"),
    "photo": ("Blurry",),
    "hair": ("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Receding_Hairline", "Straight_Hair", "Wavy_Hair"),
    "eyes": ("Arched_Eyebrows", "Bushy_Eyebrows", "Bags_Under_Eyes", "Narrow_Eyes"),
    "nose": ("Big_Nose", "Pointy_Nose"),
    "mouth": ("Big_Lips", "Mouth_Slightly_Open", "Smiling"),
    "beard": ("5_o_Clock_Shadow", "Goatee", "Mustache", "No_Beard", "Sideburns"),
    "worn": ("Eyeglasses", "Heavy_Makeup", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie"),
}


class Builder(records.RecordsBuilder, skip_registration=True):
  """The original photos, whole, in the order of the partition list; entries are always specified."""

  name = "celeba"
  # The size of the cut photos, so that the same networks take both sets (Kalayeh 2017).
  SIZE = _ALIGNED_SIZE
  RESIZE = _ALIGNED_SIZE
  IMAGE_SIZE = _ALIGNED_SIZE
  DESCRIPTION = "Original photos of celebrities with 40 attributes and five landmarks."
  LICENCE = "non-commercial research only; no further copying or publishing of any part"
  CITATION = "Liu, Luo, Wang, Tang. Deep Learning Face Attributes in the Wild. ICCV 2015."
  GROUPS = GROUPS

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the lists, each error with its file and line."""
    return _read(source, "img_celeba", "list_landmarks_celeba", None)


class AlignedBuilder(Builder, skip_registration=True):
  """The photos that CelebA's authors cut to 178 x 218 pixels; one of another size does not fit its landmarks and is unusable."""

  name = "celeba_aligned"
  DESCRIPTION = "Photos of celebrities, cut around the face, with 40 attributes and five landmarks."

  @staticmethod
  def read(source: pathlib.Path) -> records.Annotations:
    """Reads the lists, each error with its file and line."""
    return _read(source, "img_align_celeba", "list_landmarks_align_celeba", _ALIGNED_SIZE)


@dataclasses.dataclass(frozen=True)
class _List:
  """One list: a row of numbers per photo.

  Attributes:
    path: Of its file.
    columns: Names of the columns, or () where the file has none.
    rows: Name of a photo -> number of its row, in file order.
    lines: Number of a row -> number of its line in the file, from 1.
    values: float64 [N, C].
  """

  path: pathlib.Path
  columns: tuple[str, ...]
  rows: dict[str, int]
  lines: list[int]
  values: np.ndarray

  def where(self, row: int) -> str:
    return f"{self.path} line {self.lines[row]}"


def _read(source: pathlib.Path, images: str, landmarks: str, size: tuple[int, int] | None) -> records.Annotations:
  """Reads the lists of one set of images.

  Args:
    source: Folder of the download.
    images: Name of the folder of images.
    landmarks: Name of the list of landmarks, without suffix.
    size: (H, W) of all images, or None.

  Raises:
    InputError: A list is missing, not as it should be, or contradicts another one.
  """
  folder = _image_folder(source, images)
  partition = _read_list(_find(source, "Eval/list_eval_partition"), "0, 1 or 2", (0, 1, 2), columns=1)
  attributes = _read_list(_find(source, "Anno/list_attr_celeba"), "1 or -1", (1, -1))
  points = _read_list(_find(source, f"Anno/{landmarks}"), "a coordinate in pixels", columns=10)
  _check_contains(attributes, partition)
  _check_contains(partition, attributes)
  _check_contains(points, partition)
  label, known = (attributes.values == 1).astype(np.uint8), np.ones(len(attributes.columns), np.bool_)
  point = points.values.astype(np.float32).reshape(-1, 5, 2)
  splits = {split: [] for split in records.SPLITS}
  for name, row in partition.rows.items():
    path = folder / records.check_relative(name, partition.where(row))
    target = records.Target(label[attributes.rows[name]], known, landmarks=point[points.rows[name]])
    splits[records.SPLITS[int(partition.values[row, 0])]].append(records.Photo(name, path, (target,), size))
  deviations = [f"{split}: {len(photos)} images, published {_PUBLISHED[split]}"
                for split, photos in splits.items() if len(photos) != _PUBLISHED[split]]
  splits = {split: photos for split, photos in splits.items() if photos}
  return records.Annotations(attributes.columns, splits, tuple(deviations), _identity_remarks(source, splits))


def _check_contains(one: _List, other: _List) -> None:
  """Raises InputError where a photo of the other list is not in this one."""
  for name, row in other.rows.items():
    if name not in one.rows:
      raise InputError(f"{other.where(row)}: {name} has no row in {one.path}")


def _identity_remarks(source: pathlib.Path, splits: dict[str, list[records.Photo]]) -> tuple[str, ...]:
  """How many people there are, where the source says who they are."""
  path = _find(source, "Anno/identity_CelebA", needed=False)
  if path is None:
    return ()
  identities = _read_list(path, "the number of a person", columns=1)
  people = {split: {identities.values[identities.rows[photo.name], 0] for photo in photos if photo.name in identities.rows}
            for split, photos in splits.items()}
  found_in = collections.Counter(person for found in people.values() for person in found)
  counts = ", ".join(f"{len(found)} {split}" for split, found in people.items())
  return (f"people: {counts}; in more than one split: {sum(count > 1 for count in found_in.values())}",)


def _image_folder(source: pathlib.Path, name: str) -> pathlib.Path:
  """The folder of images; the Kaggle edition has it inside another one of that name."""
  for folder in (source / "Img" / name, source / name):
    if folder.is_dir():
      return folder / name if (folder / name).is_dir() else folder
  raise InputError(f"{source}: no image folder; expected Img/{name}/ or {name}/")


def _find(source: pathlib.Path, name: str, needed: bool = True) -> pathlib.Path | None:
  """The file of a list such as "Anno/list_attr_celeba"; None where it is not there and not needed."""
  names = [f"{place}{suffix}" for suffix in (".txt", ".csv") for place in (name, name.split("/")[1])]
  path = next((source / name for name in names if (source / name).is_file()), None)
  if path is None and needed:
    raise InputError(f"{source}: a list is missing; expected {', '.join(names[:-1])} or {names[-1]}")
  return path


def _read_list(path: pathlib.Path, expected: str, allowed: tuple[int, ...] | None = None, columns: int | None = None) -> _List:
  """Reads one list.

  Args:
    path: CSV where its suffix says so, else separated by blanks.
    expected: What a value should be, for error messages.
    allowed: All values that there may be; None = any finite number.
    columns: Number of values per row; None = as many as the header has names, which must then be there.

  Raises:
    InputError: An unreadable file, or a line that is not as it should be.
  """
  lines, separator = _read_lines(path), "," if path.suffix == ".csv" else None
  count, header = _pop_count(lines), _pop_header(path, lines, separator)
  if columns is None and not header:
    raise InputError(f"{path}: no line of attribute names before the rows")
  columns = columns or len(header)
  if header and len(header) != columns:
    raise InputError(f"{path}: expected {columns} names of columns, got {len(header)}: {' '.join(header)}")
  if count not in (None, len(lines)):
    raise InputError(f"{path} line 1: says {count} rows, there are {len(lines)}; take the whole list, or remove that line of a cut copy")
  rows, numbers, values = {}, [], np.zeros((len(lines), columns))
  for row, (number, line) in enumerate(lines):
    name, *words = line.split(separator)
    if len(words) != columns:
      raise InputError(f"{path} line {number}: expected {columns} values after {name}, got {len(words)}")
    if name in rows:
      raise InputError(f"{path} line {number}: {name} has a row before, line {numbers[rows[name]]}")
    rows[name] = row
    numbers.append(number)
    try:
      values[row] = words
    except ValueError as error:
      raise InputError(f"{path} line {number}: expected {expected}; {error}") from None
  result = _List(path, header, rows, numbers, values)
  wrong = np.argwhere(~(np.isfinite(values) if allowed is None else np.isin(values, allowed)))
  if len(wrong):
    row, column = wrong[0]
    title = header[column] if header else f"value {column + 1}"
    raise InputError(f"{result.where(row)} {title}: expected {expected}, got {values[row, column]:g}")
  return result


def _read_lines(path: pathlib.Path) -> list[tuple[int, str]]:
  """All lines that are not empty, as (number from 1, text)."""
  try:
    text = path.read_text("utf-8-sig")
  except ValueError as error:
    raise InputError(f"{path}: no text ({error})") from None
  return [(number, line) for number, line in enumerate(map(str.strip, text.splitlines()), 1) if line]


def _pop_count(lines: list[tuple[int, str]]) -> int | None:
  """Removes a first line that is a lone number."""
  return int(lines.pop(0)[1]) if lines and lines[0][1].isdecimal() else None


def _pop_header(path: pathlib.Path, lines: list[tuple[int, str]], separator: str | None) -> tuple[str, ...]:
  """Removes a first line that names the columns; () where it is the row of a photo already."""
  if not lines:
    return ()
  number, line = lines[0]
  names = [name.strip() for name in line.split(separator)]
  if pathlib.PurePosixPath(names[0]).suffix.lower() in _SUFFIXES:
    return ()
  del lines[0]
  names = names[1:] if names[0] == "image_id" else names
  if len(set(names)) < len(names) or "" in names:
    raise InputError(f"{path} line {number}: a column without a name, or two of one name")
  return tuple(names)
