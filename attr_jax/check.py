"""What lies in a prepared folder: counts, sizes, shares of labels, damage, and a sheet of samples."""

from collections.abc import Mapping, Sequence
from concurrent import futures
import dataclasses
import json
import pathlib
import sys
import textwrap

import numpy as np
import tqdm

from attr_jax import overlays
from attr_jax import pictures
from attr_jax.data import images
from attr_jax.data import info as info_lib
from attr_jax.data import prepare
from attr_jax.data import registry
from attr_jax.errors import InputError

SHEET_FILE = "contact-sheet.png"
_WIDTH = 80  # of the text
_HEAD = 12  # of the words before each paragraph
_STEP = 64  # records that a thread reads at a time
_COLUMNS, _IMAGE, _NOTES, _LINE = 4, 180, 200, 18  # of the sheet: images side by side, then pixels
_FAINT = "#777777"
_MASKS = ("person_mask", "region_mask")
# Report key -> words; those that are 0 are not told.
_COUNTS = {"shrunk": "shrunk", "copied": "kept byte by byte", "padded": "padded", "clipped_boxes": "with a clipped box",
           "landmarks_outside": "with landmarks outside the image"}


@dataclasses.dataclass(frozen=True)
class Check:
  """What `examine` has found.

  Attributes:
    dataset: What was examined.
    report: Content of its report.json.
    labels: Split -> (label uint8 [N, L], known bool [N, L]).
    sizes: int [M, 2], (height, width) of the M images that could be read.
    readable: Split -> bool [N]: records without fault.
    faults: One line per record that is damaged or contradicts the rest.
    size_bytes: Of the record files, in bytes.
  """

  dataset: registry.Dataset
  report: Mapping[str, object]
  labels: Mapping[str, tuple[np.ndarray, np.ndarray]]
  sizes: np.ndarray
  readable: Mapping[str, np.ndarray]
  faults: Sequence[str]
  size_bytes: int


def find(folder: str | pathlib.Path) -> registry.Dataset:
  """Opens the prepared data set in a folder, or the only one up to three folders below it.

  Returns:
    The data set, its records unread.

  Raises:
    InputError: None or several are there, or a file is missing or not as it should be.
  """
  folder = pathlib.Path(folder)
  found = sorted({path.parent for depth in range(4) for path in folder.glob("*/" * depth + "features.json")
                  if not any(part.startswith(".") for part in path.relative_to(folder).parts)})
  if not found:
    raise InputError(f"{folder}: no prepared data set here or up to three folders below")
  if len(found) > 1:
    raise InputError(f"{folder}: {len(found)} prepared data sets; choose one: {', '.join(str(path.relative_to(folder)) for path in found)}")
  lacking = [file for file in prepare.FILES if not (found[0] / file).is_file()]
  if lacking:
    raise InputError(f"{found[0]}: lacks {', '.join(lacking)}; prepare the data set again with --overwrite")
  where = found[0] / "info.json"
  return registry.Dataset(found[0], info_lib.DatasetInfo.from_json(where.read_text(), where=str(where)))


def examine(dataset: registry.Dataset, *, workers: int | None = None, progress: bool = True) -> Check:
  """Reads and decodes every record.

  Args:
    dataset: A prepared data set.
    workers: Threads; None = all cores this process may use.
    progress: Show a bar on stderr.

  Returns:
    What was found; a record that is damaged is a fault of it and no error.

  Raises:
    InputError: report.json is not valid; a record file is missing or cannot be opened, or their number of records is not that
      of the labels.
  """
  path, report = dataset.path, dataset.path / "report.json"
  try:
    content = json.loads(report.read_text())
  except ValueError as error:
    raise InputError(f"{report}: not valid JSON ({error}); prepare the data set again with --overwrite") from None
  labels, readable, sizes, faults = {}, {}, [], []
  total = sum(dataset.info.splits.values())
  with (futures.ThreadPoolExecutor(workers or prepare.usable_cores()) as executor,
        tqdm.tqdm(total=total, desc="check", unit="img", ncols=_WIDTH, disable=not progress, file=sys.stderr) as bar):
    for split in dataset.info.splits:
      source, (label, known, ids) = _open(dataset, split), dataset.labels(split)
      if len(source) != len(label):
        raise InputError(f"{path}: {len(source)} records and {len(label)} labels of split {split!r}; prepare again with --overwrite")
      look = lambda start: [_look(source, index, (label[index], known[index], ids[index]), dataset.info)
                            for index in range(start, min(start + _STEP, len(label)))]
      results = []
      for part in executor.map(look, range(0, len(label), _STEP)):
        results += part
        bar.update(len(part))
      sizes += [size for size, _ in results if size]
      faults += [f"{split} record {index}: {reason}" for index, (_, reason) in enumerate(results) if reason]
      labels[split], readable[split] = (label, known), np.array([not reason for _, reason in results])
  size_bytes = sum(file.stat().st_size for file in path.glob("*.array_record-*"))
  return Check(dataset, content, labels, np.array(sizes, int).reshape(-1, 2), readable, faults, size_bytes)


def _one_line(error: Exception) -> str:
  return " ".join(str(error).split())[:200] or type(error).__name__


def _open(dataset: registry.Dataset, split: str) -> registry.RecordSource:
  try:
    source = dataset.source(split)
    len(source)
    return source
  except InputError:
    raise
  except Exception as error:  # whatever the reader of ArrayRecord raises for a file that is none
    raise InputError(f"{dataset.path}: record files of split {split!r} cannot be opened ({_one_line(error)}); "
                     "prepare again with --overwrite") from None


def _look(source: registry.RecordSource, index: int, labels: tuple[np.ndarray, np.ndarray, np.int64],
          info: info_lib.DatasetInfo) -> tuple[tuple[int, int] | None, str | None]:
  """Decodes one record; returns ((height, width) of its image or None, what is wrong with it or None)."""
  try:
    sample = source[index]
    size = images.decode_image(sample["image"]).shape[:2]
  except Exception as error:  # a damaged record raises what its reader likes, and the next one may be whole
    return None, _one_line(error)
  for key, stored in zip(("label", "known", "id"), labels):
    if not np.array_equal(sample[key], stored):
      return size, f"{key} differs from labels.npz"
  for key, expected in {"person_mask": info.has_person_mask, "region_mask": info.has_region_mask,
                        "landmarks": info.has_landmarks}.items():
    if (key in sample) != expected:
      return size, f"{'lacks' if expected else 'has'} {key}, other than info.json says"
  for key in _MASKS:
    if key in sample and (reason := _wrong_mask(sample[key], size)):
      return size, f"{key}: {reason}"
  return size, None


def _wrong_mask(data: bytes, size: tuple[int, int]) -> str | None:
  try:
    images.read_header(data)
    shape = images.decode_mask(data).shape
  except images.ImageError as error:
    return _one_line(error)
  return None if shape == size else f"{shape[0]}x{shape[1]}, its image is {size[0]}x{size[1]}"


def describe(check: Check) -> str:
  """All that was found as text of at most 80 columns."""
  info, report = check.dataset.info, check.report
  skipped = report.get("skipped", [])
  lines = {
      "data set": f"{info.name}, prepared as {check.dataset.path.parent.name} (height x width), version {info.version}",
      "samples": ", ".join(f"{count:,} {split}" for split, count in info.splits.items()),
      "on disk": f"{check.size_bytes / 1e6:,.1f} MB in records",
      "images": _sizes(check.sizes),
      "besides": ", ".join(words for has, words in (
          (info.has_person_mask, "person masks"), (info.has_region_mask, "region masks"), (info.has_landmarks, "landmarks")) if has)
                 or "no masks, no landmarks",
      "skipped": f"{len(skipped)} photos" + _first([f"{item['file']} ({item['reason']})" for item in skipped]),
      "converted": _counted(report.get("converted", {})),
      "samples are": _counted({words: report.get(key, 0) for key, words in _COUNTS.items()}),
      "dropped": f"{report.get('dropped_boxes', 0)} boxes" + _first(report.get("dropped", [])),
      "deviations": f"{len(report.get('deviations', []))} from what is published" + _first(report.get("deviations", [])),
      "remarks": "; ".join(report.get("remarks", [])) or "none",
      "faults": f"{len(check.faults):,} of {sum(info.splits.values()):,} records" + _first(check.faults),
  }
  paragraphs = [textwrap.fill(text, _WIDTH, initial_indent=f"{head:<{_HEAD}}", subsequent_indent=" " * _HEAD)
                for head, text in lines.items()]
  return "\n".join([*paragraphs, "", *_table(info.label_names, check.labels)])


def _sizes(sizes: np.ndarray) -> str:
  if not len(sizes):
    return "none"
  sides = [f"{side} " + " / ".join(f"{value:g}" for value in values)
           for side, values in zip(("height", "width"), np.percentile(sizes, (0, 50, 100), axis=0).T)]
  return f"{', '.join(sides)} pixels (min / median / max)"


def _first(items: Sequence[str]) -> str:
  return f"; first: {items[0]}" if items else ""


def _counted(counts: Mapping[str, int]) -> str:
  return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count) or "none"


def _table(names: Sequence[str], labels: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
  """Rows of the shares of positives and of known entries, in %."""
  if not names:
    return ["no attributes"]
  most = min(max(9, *map(len, names)), _WIDTH - 16 * len(labels))
  rows = [[f"{pictures.shorten(name, most):<{most}}"] for name in names]
  lacking = []
  for split, (label, known) in labels.items():
    positives, specified = ((label == 1) & known).sum(axis=0), known.sum(axis=0)
    for row, positive, count in zip(rows, positives, specified):
      share = f"{100 * positive / count:.2f}" if count else "-"
      row.append(f"{share:>8}{' ' if positive else '*'}{100 * count / len(label):>7.1f}")
    if not positives.all():
      lacking.append(f"{(positives == 0).sum():,} in {split}")
  return [
      " " * most + "".join(f"{split:>16}" for split in labels),
      f"{'attribute':<{most}}" + f"{'pos. %':>8} {'known %':>7}" * len(labels),
      *map("".join, rows),
      *([f"* labels without positives: {', '.join(lacking)}"] if lacking else []),
  ]


def draw_samples(check: Check, folder: str | pathlib.Path | None = None, count: int = 24) -> pathlib.Path:
  """Draws samples from all over the data set with their labels: `contact-sheet.png`.

  Regions have a tint; around the person of a mask it is dark.

  Args:
    check: Of the data set; records with faults are left out.
    folder: For the picture; None = the folder of the data set.
    count: Samples at most.

  Returns:
    The PNG file.

  Raises:
    InputError: No record can be read.
  """
  info = check.dataset.info
  good = [(split, int(index)) for split, readable in check.readable.items() for index in np.flatnonzero(readable)]
  if not good:
    raise InputError(f"{check.dataset.path}: no record can be read; prepare again with --overwrite")
  chosen = [good[place] for place in np.linspace(0, len(good) - 1, min(count, len(good))).astype(int)]
  sources = {split: check.dataset.source(split) for split in dict(chosen)}
  samples = [sources[split][index] for split, index in chosen]
  shown = [_fitted(_tinted(sample)) for sample in samples]
  rows = -(-len(chosen) // _COLUMNS)
  cell, gap, head = (max(image.shape[1] for image in shown) + _NOTES, _IMAGE + _LINE), 14, 62
  sheet, axes = overlays.page(_COLUMNS * (cell[0] + gap) + gap, rows * (cell[1] + gap) + gap + head,
                              f"{info.name}: {len(chosen)} of {sum(info.splits.values()):,} samples")
  if info.label_names:
    pictures.mark_legend(axes, gap, 40, [("", pictures.INK, "present"), ("?", _FAINT, "not specified")])
  for place, ((split, index), sample, image) in enumerate(zip(chosen, samples, shown)):
    x, y = gap + place % _COLUMNS * (cell[0] + gap), head + gap + place // _COLUMNS * (cell[1] + gap)
    axes.text(x, y, f"{split} {index}", color=pictures.GREY, fontsize=8.5, fontfamily=pictures.FONT, va="top")
    y += _LINE
    sheet[y:y + image.shape[0], x:x + image.shape[1]] = image
    for line, (text, color) in enumerate(_notes(info.label_names, sample, _IMAGE // _LINE)):
      axes.text(x + image.shape[1] + 8, y + line * _LINE, text, color=color, fontsize=9.5, fontfamily=pictures.FONT, va="top")
  path = pathlib.Path(folder or check.dataset.path) / SHEET_FILE
  overlays.save_page(sheet, axes, path)
  return path


def _fitted(image: np.ndarray) -> np.ndarray:
  """The image with its longer side as long as the sheet has room for."""
  scale = _IMAGE / max(image.shape[:2])
  return pictures.resized(image, (max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))))


def _tinted(sample: Mapping[str, object]) -> np.ndarray:
  """The image uint8 [H, W, 3] of a sample, with its regions in colour, or dark around its person."""
  image = images.decode_image(sample["image"])
  if "region_mask" in sample:
    return overlays.paint(image, images.decode_mask(sample["region_mask"]))
  if "person_mask" in sample:
    return np.where(images.decode_mask(sample["person_mask"])[..., None] > 127, image, image // 3)
  return image


def _notes(names: Sequence[str], sample: Mapping[str, np.ndarray], most: int) -> list[tuple[str, str]]:
  """(text, colour) of at most `most` lines: what is present, then what is not specified."""
  label, known = sample["label"] == 1, sample["known"]
  notes = [(pictures.shorten(names[i], 24), pictures.INK) for i in np.flatnonzero(label & known)]
  notes += [(f"? {pictures.shorten(names[i], 22)}", _FAINT) for i in np.flatnonzero(~known)]
  if len(notes) > most:
    notes = [*notes[:most - 1], (f"+{len(notes) - most + 1} more", _FAINT)]
  return notes
