"""Images in, attribute names and scores out."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from attr_jax import evaluate
from attr_jax import metrics
from attr_jax import sharding
from attr_jax import steps
from attr_jax.data import images as images_lib
from attr_jax.data import ops
from attr_jax.nn import folding


@dataclasses.dataclass(frozen=True)
class Recognizer:
  """A trained model as a function of images.

  Attributes:
    label_names: L names, in the order of the scores.
    threshold: score above which an attribute is called present.
  """

  label_names: tuple[str, ...]
  threshold: float
  _run: evaluate.Run
  _predict: Any
  _mesh: jax.sharding.Mesh
  _batch_size: int

  def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of images of any sizes.

    Args:
      images: uint8 RGB arrays [H, W, 3], each one person (face, picture) as in training.

    Returns:
      float64 probabilities [N, L].
    """
    if not len(images):
      return np.zeros((0, len(self.label_names)))
    height, width = self._run.config.input.full_size
    resized = np.stack([ops.resize({"image": image}, (height, width))["image"] for image in images])
    return np.concatenate([self._scores(chunk) for chunk in _chunks(resized, self._batch_size)])

  def _scores(self, images: np.ndarray) -> np.ndarray:
    """One padded batch, so that every call has the shape that is compiled."""
    padded = np.zeros((self._batch_size, *images.shape[1:]), np.uint8)
    padded[: len(images)] = images
    batch = sharding.put_batch({"image": padded}, sharding.over_batch(self._mesh))
    rows = self._predict(self._run.params, self._run.batch_stats, batch)
    return metrics.probabilities(np.asarray(rows["logit"])[: len(images)])


def load_recognizer(path: str | pathlib.Path, *, checkpoint: str = "best", batch_size: int = 8) -> Recognizer:
  """The recogniser of a run's folder, on whatever devices there are, with batch norm folded into the convolutions (`nn.folding`).

  Args:
    path: the run's folder (`--workdir` of the training).
    checkpoint: "best", "last" or a step.
    batch_size: images computed at a time, rounded up to the device count.

  Raises:
    InputError: not a run's folder, or nothing to restore.
  """
  mesh = sharding.make_mesh()
  run = evaluate.load_run(pathlib.Path(path), mesh, checkpoint)
  rounded = -(-batch_size // mesh.size) * mesh.size
  step = steps.make_predict_step(run.model, run.config)
  example = {"image": jax.ShapeDtypeStruct((rounded, *run.config.input.full_size, 3), np.uint8)}
  plan = folding.find(step, run.params, run.batch_stats, example)
  params, batch_stats = jax.jit(functools.partial(folding.fold, plan))(run.params, run.batch_stats)
  run = dataclasses.replace(run, params=params, batch_stats=batch_stats)
  predict = steps.compile_predict_step(folding.without_norms(plan, step), mesh)
  return Recognizer(tuple(run.info.label_names), 0.5, run, predict, mesh, rounded)


def predict_files(recognizer: Recognizer, files: Sequence[pathlib.Path]) -> tuple[list[dict[str, Any]], list[str]]:
  """Scores of image files; the bad ones are named and the rest is answered.

  Returns:
    ([{"file": str, "scores": {name: probability}, "present": [names]}], ["file: reason", ...])
  """
  answers, bad = [], []
  for chunk in _chunks(list(files), 64):
    good, decoded = [], []
    for file in chunk:
      try:
        decoded.append(images_lib.decode_image(file.read_bytes(), where=str(file)))
        good.append(file)
      except (OSError, images_lib.ImageError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        bad.append(f"{file}: {reason}")
    for file, scores in zip(good, recognizer(decoded)):
      named = dict(zip(recognizer.label_names, scores.round(6).tolist()))
      present = [name for name, score in named.items() if score > recognizer.threshold]
      answers.append({"file": str(file), "scores": named, "present": present})
  return answers, bad


def _chunks(items: Any, size: int) -> Iterator[Any]:
  for start in range(0, len(items), size):
    yield items[start : start + size]
