"""The answers of `attr-jax predict`: a table for people, JSON and CSV for machines, pictures of what the model looks at."""

from collections.abc import Iterator, Sequence
import csv
import io
import itertools
import json
import os
import pathlib
import sys

import numpy as np
import tqdm

from attr_jax import explain
from attr_jax import photos as photos_lib
from attr_jax import pictures as pictures_lib
from attr_jax import predict
from attr_jax.errors import InputError

_IN_TABLE, _ON_PICTURE, _MOST_ON_PICTURE = 40, 6, 13
_WIDTH = 80
_LONGEST = 150  # letters of a picture's name; file systems end at 255 bytes


def write(workdir: pathlib.Path, names: Sequence[str], *, list_file: str | None = None, boxes: pathlib.Path | None = None,
          checkpoint: str = "best", thresholds: str = "calibrated", batch_size: int = 8, form: str = "table",
          pictures: pathlib.Path | None = None, top: int | None = None) -> int:
  """Answers photos on the standard output, as they come; names those that cannot be used on stderr.

  Args:
    workdir: the run's folder.
    names: files, folders and patterns, see `photos.find`.
    list_file: a file with one such name per line, or "-".
    boxes: see `photos.boxed`; `names`, those of the list and the boxes are answered in this order.
    checkpoint: see `predict.load_recognizer`, like the next two.
    thresholds: "calibrated" or "fixed".
    batch_size: photos computed at a time.
    form: "table", "json" or "csv".
    pictures: folder of the pictures; None: there are none.
    top: attributes in the table and on a picture; None: 40 and 6.

  Returns:
    The exit status: 2 where a photo cannot be used, else 0.

  Raises:
    InputError: no photo at all, or what `load_recognizer` raises.
  """
  recognizer = predict.load_recognizer(workdir, checkpoint=checkpoint, batch_size=batch_size, thresholds=thresholds)
  if hasattr(sys.stdout, "reconfigure"):
    sys.stdout.reconfigure(errors="surrogateescape")  # file names that are not UTF-8 are printed as they are
  photos = lambda: _photos(names, list_file, boxes)
  # Found twice rather than kept: what the bar needs is a number. A pipe can be read once.
  again = all(file is None or os.path.isfile(file) for file in (list_file, boxes))
  total = sum(1 for _ in photos()) if sys.stderr.isatty() and again else None
  quiet = not sys.stderr.isatty() or (total is not None and total <= 2 * recognizer.batch_size)
  print(_head(recognizer, form, boxes is not None), end="", flush=True)
  used: set[str] = set()
  count = faults = 0
  with tqdm.tqdm(predict.predict_files(recognizer, photos(), explain=pictures is not None), total=total, unit="photo", ncols=_WIDTH,
                 disable=quiet, leave=False) as bar:
    for answer in bar:
      count += 1
      if answer.recognition is None:
        faults += 1
        tqdm.tqdm.write(_printable(f"attr-jax: {answer.photo}: {answer.photo.fault}"), file=sys.stderr)
        continue
      picture = None
      if pictures is not None:
        picture = pictures / picture_name(answer.photo, used)
        draw(recognizer, answer, picture, top or _ON_PICTURE)
      tqdm.tqdm.write(_FORMS[form](recognizer, answer, picture, top, boxes is not None), file=sys.stdout, end="")
      sys.stdout.flush()  # into a pipe, too, answers come at once
  if not count:
    raise InputError("predict: no photo is named: the list is empty")
  return 2 if faults else 0


def _photos(names: Sequence[str], list_file: str | None, boxes: pathlib.Path | None) -> Iterator[photos_lib.Photo]:
  listed = photos_lib.listed(list_file) if list_file is not None else ()
  return itertools.chain(photos_lib.find(itertools.chain(names, listed)), photos_lib.boxed(boxes) if boxes is not None else ())


def _printable(text: str) -> str:
  return text.encode("utf-8", "backslashreplace").decode()


def _head(recognizer: predict.Recognizer, form: str, boxes: bool) -> str:
  """What stands above the answers."""
  if form == "json":
    return ""
  if form == "csv":
    return _csv_line(["file", *["box"] * boxes, *recognizer.label_names, "present"])
  if not recognizer.label_names:
    return "the run names no attributes\n"
  columns = f"    {'attribute':<46}   score" + ("" if recognizer.chooses_sets else "   threshold")
  return f"x: present, by {recognizer.rule}\n{columns}\n"


def _table(recognizer: predict.Recognizer, answer: predict.Answer, picture: pathlib.Path | None, top: int | None, boxes: bool) -> str:
  """Highest score first, in lines of at most 80 columns (but for the file's name)."""
  del boxes
  (score,), (present,) = answer.recognition.scores, answer.recognition.present
  order = np.argsort(-score, kind="stable")
  shown = [i for place, i in enumerate(order) if place < (top or _IN_TABLE) or (top is None and present[i])]
  lines = ["", f"{answer.photo.file}" + (f"  box {_box_text(answer.photo.box)}" if answer.photo.box else "")]
  for i in shown:
    threshold = "" if recognizer.chooses_sets else f"   {100 * recognizer.thresholds[i]:7.1f} %"
    lines.append(f"  {'x' if present[i] else ' '} {pictures_lib.shorten(recognizer.label_names[i], 46):<46} {100 * score[i]:5.1f} %{threshold}")
  if len(shown) < len(order):
    hidden = int(present.sum() - present[shown].sum())
    lines.append(f"    and {len(order) - len(shown)} with lower scores" + (f", {hidden} of them present" if hidden else ""))
  if picture:
    lines.append(f"    picture: {picture}")
  return "\n".join(lines) + "\n"


def _json(recognizer: predict.Recognizer, answer: predict.Answer, picture: pathlib.Path | None, top: int | None, boxes: bool) -> str:
  """An object that says all by itself; thresholds are null where the model chooses a label set by a rule of its own."""
  del top
  (score,), (present,), names = answer.recognition.scores, answer.recognition.present, recognizer.label_names
  found = {"file": str(answer.photo.file)}
  if boxes:
    found["box"] = answer.photo.box
  found |= {
      "scores": dict(zip(names, score.round(6).tolist())),
      "present": [name for name, there in zip(names, present) if there],
      "thresholds": None if recognizer.chooses_sets else dict(zip(names, recognizer.thresholds.tolist())),
  }
  if picture:
    found["picture"] = str(picture)
  return json.dumps(found) + "\n"


def _csv(recognizer: predict.Recognizer, answer: predict.Answer, picture: pathlib.Path | None, top: int | None, boxes: bool) -> str:
  """Names of the present ones with ; between them."""
  del picture, top
  (score,), (present,) = answer.recognition.scores, answer.recognition.present
  there = ";".join(name for name, one in zip(recognizer.label_names, present) if one)
  box = [_box_text(answer.photo.box) if answer.photo.box else ""] * boxes
  return _csv_line([str(answer.photo.file), *box, *(f"{value:.6f}" for value in score), there])


_FORMS = {"table": _table, "json": _json, "csv": _csv}


def _csv_line(cells: Sequence[str]) -> str:
  stream = io.StringIO()
  csv.writer(stream, lineterminator="\n").writerow(cells)
  return stream.getvalue()


def _box_text(box: photos_lib.Box) -> str:
  return " ".join(f"{value:.10g}" for value in box)


def picture_name(photo: photos_lib.Photo, used: set[str]) -> str:
  """A name of the file, and of the box, that no earlier picture has: "a.png", "a-12_30_50_80.png", "a-2.png"; `used` keeps it."""
  stem = photo.file.stem[:_LONGEST] + ("-" + _box_text(photo.box).replace(" ", "_") if photo.box else "")
  for number in itertools.count(1):
    name = f"{stem}-{number}.png" if number > 1 else f"{stem}.png"
    if name.lower() not in used:  # some file systems know no capitals
      used.add(name.lower())
      return name


def draw(recognizer: predict.Recognizer, answer: predict.Answer, path: pathlib.Path, most: int = _ON_PICTURE) -> None:
  """The picture of an answer that is explained, see `explain.draw_photo`."""
  one = lambda table: {key: value[0] for key, value in table.items()}
  found = answer.recognition
  explain.draw_photo(answer.shown, found.scores[0], found.present[0], one(found.maps), one(found.out), recognizer.label_names, path,
                     most=min(most, _MOST_ON_PICTURE), title=pictures_lib.shorten(_printable(answer.photo.file.name), 40))
