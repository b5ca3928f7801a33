"""Images in; scores, decisions and the maps of what the model looks at out."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import itertools
import os
import pathlib
import re
import sys
from typing import Any

import cv2
import jax
import ml_collections
import numpy as np

from attr_jax import evaluate
from attr_jax import explain as explain_lib
from attr_jax import metrics
from attr_jax import models
from attr_jax import photos as photos_lib
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import steps
from attr_jax.data import info as info_lib
from attr_jax.data import ops
from attr_jax.data import registry
from attr_jax.errors import InputError
from attr_jax.nn import folding

THRESHOLDS = ("calibrated", "fixed")
_FIXED = "a score of 0.5 and more"
# Some 8 MB an image of 224 px, which nobody asked to be brought from the device.
_TRUNK = re.compile(r"stem|stage\d")
_SHOWN = 512  # pixels, the longer side of what an answer keeps of its photo for a picture


@dataclasses.dataclass(frozen=True)
class Recognition:
  """What is found in N images.

  Attributes:
    scores: float64 [N, L], probabilities.
    present: bool [N, L].
    maps: where the model looks for each label, float32 [N, h, w, L] by name ("heatmap", "attention", ...); {} unless explained.
    out: all else that the model names but the stages of its trunk, by name, [N, ...] each: `mask`, `region_probability`,
      `region_weights`, ...; of a decoder also `step_kept` bool [N, T], whether a step's label belongs to the set. {} unless explained.
  """

  scores: np.ndarray
  present: np.ndarray
  maps: dict[str, np.ndarray]
  out: dict[str, np.ndarray]

  def row(self, n: int) -> "Recognition":
    """The same of image n alone, N = 1."""
    one = lambda table: {key: value[n:n + 1] for key, value in table.items()}
    return Recognition(self.scores[n:n + 1], self.present[n:n + 1], one(self.maps), one(self.out))


@dataclasses.dataclass(frozen=True)
class Recognizer:
  """A trained model as a function of images.

  Attributes:
    label_names: L names, in the order of the scores.
    thresholds: float64 [L]: a score from its threshold on says that the label is present; not asked by models that choose a label set.
    rule: in a line for people, how it is decided what is present.
    config: the run's.
    batch_size: images computed at a time.
    chooses_sets: whether the model's own rule (`decide`) chooses the labels in place of thresholds.
  """

  label_names: tuple[str, ...]
  thresholds: np.ndarray
  rule: str
  config: ml_collections.ConfigDict
  batch_size: int
  chooses_sets: bool
  _info: info_lib.DatasetInfo
  _decide: Mapping[str, Any]  # arguments of the model's rule
  _predict: Callable[[np.ndarray], dict[str, jax.Array]]
  _explain: Callable[[np.ndarray], dict[str, jax.Array]]

  def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
    """Scores, float64 [N, L], of images as `recognize` takes them."""
    return self.recognize(images).scores

  def recognize(self, images: Sequence[np.ndarray], explain: bool = False) -> Recognition:
    """Scores and decisions; the maps too, all of a batch by one forward pass.

    Args:
      images: uint8 RGB arrays [H, W, 3] of any sizes, each one person (face, picture) as in training.
      explain: with maps and what else the model names, see `Recognition`.

    Raises:
      ValueError: an image of another shape or type (names its place).
    """
    rows = list(self._rows(images, self._explain if explain else self._predict))
    if not rows:
      return Recognition(*(np.zeros((0, len(self.label_names)), dtype) for dtype in (np.float64, bool)), {}, {})
    table = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    scores = metrics.probabilities(table["logits"])
    present = scores >= self.thresholds
    if self.chooses_sets:
      present = np.asarray(self._method().decide(None, table, self._info, **self._decide))
    if not explain:
      return Recognition(scores, present, {}, {})
    if self.chooses_sets:
      table["step_kept"] = np.asarray(self._method().steps_kept(table, self._info, **self._decide))
    maps = {key: table[key] for key in explain_lib.label_maps(table)}
    return Recognition(scores, present, maps, {key: value for key, value in table.items() if key not in maps and key != "logits"})

  def view(self, image: np.ndarray) -> np.ndarray:
    """An image as the network gets it, uint8 [h, w, 3]: shrunk as `prepare` does, then resized as in the evaluation of whole images.

    One that has that size stays as it is: views may be handed to `recognize`.
    """
    if image.shape[:2] == tuple(self.config.input.full_size):
      return image
    image = photos_lib.shrink(image, _prepared_size(self.config))
    return ops.resize({"image": image}, self.config.input.full_size)["image"]

  def _method(self) -> Any:
    return models.MODELS[self.config.model.name]

  def _rows(self, images: Sequence[np.ndarray], step: Callable[[np.ndarray], dict[str, jax.Array]]) -> Iterator[dict[str, np.ndarray]]:
    """Padded batches, so that every call has the shape that is compiled; the next ones are under way while one is read."""
    asked: collections.deque = collections.deque()
    for start in range(0, len(images), self.batch_size):
      chunk = images[start:start + self.batch_size]
      padded = np.zeros((self.batch_size, *self.config.input.full_size, 3), np.uint8)
      for n, image in enumerate(chunk):
        _check_image(image, start + n)
        padded[n] = self.view(image)
      asked.append((len(chunk), step(padded)))
      if len(asked) > 2:
        yield _to_host(*asked.popleft())
    while asked:
      yield _to_host(*asked.popleft())


def _to_host(count: int, rows: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
  return {key: explain_lib.to_host(value)[:count] for key, value in rows.items()}


def _check_image(image: np.ndarray, n: int) -> None:
  if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
    got = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ValueError(f"image {n}: expected uint8 [H, W, 3], got {got}")


def _prepared_size(config: ml_collections.ConfigDict) -> tuple[int, int]:
  """(H, W) that the images of the run's data set cover."""
  if config.data.get("size"):
    return info_lib.as_size(config.data.size)
  builder = registry.DATASETS.get(config.data.name)
  return builder.SIZE if builder else tuple(config.input.resize)


def load_recognizer(path: str | pathlib.Path, *, checkpoint: str = "best", batch_size: int = 8, thresholds: str = "calibrated") -> Recognizer:
  """The recogniser of a run's folder, on whatever devices there are.

  Args:
    path: the run's folder (`--workdir` of the training).
    checkpoint: "best", "last" or a step.
    batch_size: images computed at a time, rounded up to the device count.
    thresholds: "calibrated": those of `thresholds.json`, chosen on validation images; where it has none for this checkpoint they are
      chosen now, if the prepared data are there, else 0.5 with a warning on stderr. "fixed": 0.5.

  Raises:
    InputError: not a run's folder, nothing to restore, a model that takes more than the image.
  """
  if thresholds not in THRESHOLDS:
    raise InputError(f"thresholds={thresholds!r} is unknown; there are: {', '.join(THRESHOLDS)}")
  if batch_size < 1:
    raise InputError(f"batch_size={batch_size}: expected 1 or more")
  path, mesh = pathlib.Path(path), sharding.make_mesh()
  run = evaluate.load_run(path, mesh, checkpoint)
  names_labels = _check_inputs(run, path)["logits"].shape[1] > 0
  calibration = _calibration(run, path, mesh) if names_labels and thresholds == "calibrated" else {}
  return make_recognizer(run, mesh, batch_size=batch_size, calibration=calibration)


def make_recognizer(run: evaluate.Run, mesh: jax.sharding.Mesh, *, batch_size: int = 8,
                    calibration: Mapping[str, Any] | None = None) -> Recognizer:
  """The recogniser of a run in memory, with batch norm folded into the convolutions (`nn.folding`).

  Args:
    run: as `evaluate.load_run` gives it.
    mesh: where to compute; the parameters are there.
    batch_size: see `load_recognizer`.
    calibration: what `evaluate.calibrate` found; None or {}: 0.5, or the run's own factor of a decoder.
  """
  rounded = -(-batch_size // mesh.size) * mesh.size
  predict_step = steps.make_predict_step(run.model, run.config)
  example = {"image": jax.ShapeDtypeStruct((rounded, *run.config.input.full_size, 3), np.uint8)}
  plan = folding.find(predict_step, run.params, run.batch_stats, example)
  variables = jax.jit(functools.partial(folding.fold, plan))(run.params, run.batch_stats)

  def answers(params: Any, batch_stats: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Under the names of the explain step."""
    rows = predict_step(params, batch_stats, batch)
    return {"logits": rows["logit"]} | {key: rows[key][:, 0] for key in ("step_labels", "step_probability") if key in rows}

  explain_step = steps.make_explain_step(run.model, run.config)

  def explained(*args: Any) -> dict[str, jax.Array]:
    return {key: value for key, value in explain_step(*args).items() if not _TRUNK.fullmatch(key)}

  def compiled(step: Callable[..., Any]) -> Callable[[np.ndarray], dict[str, jax.Array]]:
    program = steps.compile_predict_step(folding.without_norms(plan, step), mesh)
    return lambda image: program(*variables, sharding.put_batch({"image": image}, sharding.over_batch(mesh)))

  shapes, calibration = jax.eval_shape(answers, run.params, run.batch_stats, example), calibration or {}
  # A segmenter or parser names none, even if its data have labels.
  names = tuple(run.info.label_names) if shapes["logits"].shape[1] else ()
  chooses_sets = "step_labels" in shapes
  decide = dict(run.config.get("decide", {})) | {key: calibration[key] for key in ("factor",) if key in calibration}
  rule = calibration.get("rule", _FIXED)
  if chooses_sets:
    chosen = f"chosen on {calibration['split']} images" if "factor" in calibration else "as set for the run"
    rule = f"the decoder's own ({decide['rule']}, {decide['stop']}), factor {decide['factor']:g} {chosen}"
  threshold = calibration.get("threshold", {})
  return Recognizer(names, np.array([threshold.get(name, 0.5) for name in names], np.float64), rule if names else "no attributes", run.config,
                    rounded, chooses_sets, run.info, decide, compiled(answers), compiled(explained))


def _check_inputs(run: evaluate.Run, path: pathlib.Path) -> dict[str, Any]:
  """Shapes of what the model names for a photo; raises InputError where it needs what photos alone do not have."""
  try:
    return evaluate.outputs(run, {"image": np.zeros((1, *run.config.input.full_size, 3), np.uint8)})
  except InputError as error:
    raise InputError(f"{path}: {error}; photos alone do not have them: `attr-jax evaluate` reads them from prepared data") from None


def _calibration(run: evaluate.Run, path: pathlib.Path, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """What `thresholds.json` holds for the run's checkpoint, found now where it is missing; {} with a warning where it cannot be."""
  if found := run_folder.read_thresholds(path, run.step, run.info.label_names):
    return found
  try:
    _say(f"{path} has no thresholds for step {run.step}: choosing them on its validation images")
    found = evaluate.calibrate(run, mesh, progress=sys.stderr.isatty())
    reason = "" if found else "the run has no validation split"
  except (InputError, OSError) as error:
    reason = str(error)
  if reason:
    _say(f"warning: attributes are called present from a plain score of 0.5 on: {reason}")
  elif run.checkpoint == "best" and os.access(path, os.W_OK):
    run_folder.write_thresholds(path, found)
  return found


def _say(line: str) -> None:
  print(f"attr-jax: {line}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Answer:
  """What came of one photo.

  Attributes:
    photo: with its fault where there is no answer.
    recognition: of this image alone, N = 1; None for a photo that cannot be used.
    shown: where it is explained, the image for a picture: uint8 [h, w, 3], at most 512 pixels a side.
  """

  photo: photos_lib.Photo
  recognition: Recognition | None = None
  shown: np.ndarray | None = None


def predict_files(recognizer: Recognizer, photos: Iterable[photos_lib.Photo], *, explain: bool = False,
                  threads: int | None = None) -> Iterator[Answer]:
  """Answers of photos, in their order, as they come: bad ones are named by their fault, the rest is answered.

  A few batches are in memory at a time, however many photos there are.

  Args:
    recognizer: of `load_recognizer`.
    photos: of `photos.find` and `photos.boxed`; boxes are cut with the margin that the run's data were prepared with.
    explain: with maps, see `Recognition`.
    threads: that read; default: one per core.
  """
  size = recognizer.batch_size * (1 if explain else 4)
  view = lambda image: (recognizer.view(image), _shown(image) if explain else None)
  read = photos_lib.read(photos, view, margin=recognizer.config.data.get("margin", 0.0), ahead=2 * size, threads=threads)
  while chunk := list(itertools.islice(read, size)):
    found = recognizer.recognize([views[0] for _, views in chunk if views is not None], explain)
    rows = (found.row(n) for n in range(len(found.scores)))
    for photo, views in chunk:
      yield Answer(photo) if views is None else Answer(photo, next(rows), views[1])


def _shown(image: np.ndarray) -> np.ndarray:
  scale = min(1.0, _SHOWN / max(image.shape[:2]))
  size = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
  return image.copy() if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
