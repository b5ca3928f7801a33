"""A trained run as one file that others can read: safetensors, StableHLO, ONNX.

Every file holds the same metadata. Every one is read back and compared with the model before it gets its name; one that
differs is not kept.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

from flax import traverse_util
import jax
import numpy as np

import attr_jax
from attr_jax import evaluate
from attr_jax import load_stablehlo
from attr_jax import metrics
from attr_jax import program as program_lib
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import steps
from attr_jax import weights
from attr_jax import writers
from attr_jax.data import images as images_lib
from attr_jax.data import ops
from attr_jax.errors import InputError

TOLERANCE = 1e-4  # of probabilities, float32
PLATFORMS = ("cpu", "cuda", "tpu")
# What converts to ONNX cannot share our environment: jax2onnx wants an older orbax-checkpoint. All of it as tested.
ONNX_REQUIREMENTS = (
    "jax2onnx==0.17.1", "onnx==1.23.2", "onnxruntime==1.31.1", "jax==0.10.2", "flax==0.12.8", "optax==0.2.8", "ml_collections==1.1.0",
    "safetensors==0.8.0", "opencv-python-headless==5.0.0.93",
)
_IMAGES = 8  # random ones, and as many real ones
# Model -> entries of CITATION.bib.
_PAPERS = {
    "attncnn_rnn": ("tang2019attncnnrnn", "chen2018orderfree"), "baseline": ("he2016resnet",), "dahar": ("wu2020dahar",),
    "diaa": ("sarafianos2018diaa",), "face": ("kalayeh2017facial",), "person_segmenter": ("wu2020dahar", "lin2017fpn"),
    "srn": ("zhu2017srn",), "vac": ("guo2019vac",),
}


class ExportError(Exception):
  """What was written does not do what the model does, or could not be written; nothing is kept. One clear line."""


@dataclasses.dataclass(frozen=True)
class Exported:
  """What came of an export.

  Attributes:
    text: what was written, in words.
    differences: the largest difference between the probabilities of the file and of the model on "random" and "real" images; {} for a
      model that images alone say nothing of.
    real: where the real images are from.
  """

  text: str
  differences: dict[str, float]
  real: str = ""


@dataclasses.dataclass(frozen=True)
class Reference:
  """What the model says of images, in float32.

  Attributes:
    images: {"random", "real"}, uint8 [N, H, W, 3].
    probability: likewise, float64 [N, L].
    real: where the real images are from.
  """

  images: dict[str, np.ndarray]
  probability: dict[str, np.ndarray]
  real: str


def export_run(workdir: pathlib.Path, to: str, out: pathlib.Path, checkpoint: str = "best", **options: Any) -> Exported:
  """`attr-jax export`.

  Args:
    workdir: the run's folder.
    to: a key of FORMATS.
    out: the file.
    checkpoint: "best", "last" or a step.
    **options: of the format's function.

  Raises:
    InputError: not a run, no such checkpoint, no such folder, or as the format's function.
    ExportError: likewise.
  """
  if not out.parent.is_dir():
    raise InputError(f"{out}: its folder does not exist; create it first")
  if out.is_dir():
    raise InputError(f"{out} is a folder; name a file")
  # On one device: nothing of how many there are may get into the file.
  run = evaluate.load_run(workdir, _one_device(), checkpoint)
  return FORMATS[to](run, metadata(run, run_folder.read_thresholds(workdir, run.step, run.info.label_names)), out, **options)


def to_safetensors(run: evaluate.Run, told: Mapping[str, Any], out: pathlib.Path, names: str = "ours") -> Exported:
  """Writes parameters and BN statistics as they are, float32.

  Args:
    run: on one device.
    told: `metadata` of it.
    out: the file.
    names: "ours" (`params/backbone/...`, `batch_stats/...`: all of the model) or "torchvision" (`layer1.0.conv1.weight`: the ResNet
      trunk, and `fc` where it is all that the model has beside it).

  Raises:
    InputError: no plain ResNet in the model.
    ExportError: what is read back differs.
  """
  params, batch_stats = sharding.to_host((run.params, run.batch_stats))
  told = {**told, "names": names}
  with writers.whole(out) as partial:
    if names == "torchvision":
      state_dict, depth, width = _torchvision(params, batch_stats, told["model"])
      told |= {"depth": depth, "width": width, "fc": "fc.weight" in state_dict}
      weights.save_state_dict(partial, state_dict, _as_text(told))
      saved_params, saved_stats = _from_torchvision(partial, state_dict, params, batch_stats)
      count = len(state_dict)
    else:
      weights.save_safetensors(partial, params, batch_stats, _as_text(told))
      saved_params, saved_stats, _ = weights.load_safetensors(partial)
      count = len(jax.tree.leaves((params, batch_stats)))
    _check_equal((params, batch_stats), (saved_params, saved_stats))
    differences, real = {}, ""
    with contextlib.suppress(InputError):  # of a model that needs more than images the tensors alone are compared
      expected = reference(run)
      differences, real = compare(expected, _predictor(run, saved_params, saved_stats)), expected.real
  return Exported(f"{count} tensors in {out}, equal bit by bit when read back", differences, real)


def to_stablehlo(run: evaluate.Run, told: Mapping[str, Any], out: pathlib.Path) -> Exported:
  """Writes an `.npz` of `program` (serialised `jax.export`, any batch, for PLATFORMS), `metadata` (JSON) and the weights.

  The weights are arguments of the program, not constants in it: they stay readable by name, lie on the device once whatever
  batches are compiled, and compilers do not try to fold them. `attr_jax/load_stablehlo.py` reads the file.

  Args:
    run: on one device.
    told: `metadata` of it.
    out: the file, whatever its ending.

  Raises:
    InputError: a model that needs more than images or names no attributes, no flatbuffers.
    ExportError: the file's probabilities differ from the model's.
  """
  _import_flatbuffers()
  expected = reference(run)
  model, config = program_lib.in_float32(run.config, len(run.info.label_names))
  arrays, program = program_lib.make(model, config, *sharding.to_host((run.params, run.batch_stats)))
  batch, = jax.export.symbolic_shape("batch")
  image = jax.ShapeDtypeStruct((batch, *config.input.full_size, 3), np.uint8)
  # The arrays are numpy's, so that the program knows nothing of the devices of this machine.
  exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(arrays, image)
  if exported.nr_devices != 1:
    raise ExportError(f"{told['model']}: the program is of {exported.nr_devices} devices")
  told = {**told, "platforms": PLATFORMS, "jax": jax.__version__,
          "calling_convention_version": exported.calling_convention_version}
  with writers.whole(out) as partial:
    with partial.open("wb") as file:
      np.savez(file, program=np.frombuffer(exported.serialize(), np.uint8), metadata=np.array(json.dumps(told)), **arrays)
    predict, _ = load_stablehlo.load(partial)
    differences = compare(expected, predict)
  return Exported(f"program for {', '.join(PLATFORMS)} and {len(arrays)} arrays in {out}", differences, expected.real)


def to_onnx(run: evaluate.Run, told: Mapping[str, Any], out: pathlib.Path, batch: int = 0, environment: pathlib.Path | None = None) -> Exported:
  """Writes an ONNX model, made in an environment of its own (`onnx_environment`) and checked there under onnxruntime.

  Args:
    run: on one device.
    told: `metadata` of it.
    out: the file.
    batch: images that the model takes at a time; 0: any number.
    environment: folder of the environment, made where it is missing.

  Raises:
    InputError: as `to_stablehlo`.
    ExportError: the environment cannot be made, the model cannot be converted, or the probabilities differ.
  """
  expected = reference(run)
  python = onnx_environment(environment)
  with tempfile.TemporaryDirectory() as folder, writers.whole(out) as partial:
    folder = pathlib.Path(folder)
    weights.save_safetensors(folder / "model.safetensors", *sharding.to_host((run.params, run.batch_stats)), _as_text(told))
    np.savez(folder / "check.npz", **{f"{kind}_image": x for kind, x in expected.images.items()},
             **{f"{kind}_probability": x for kind, x in expected.probability.items()})
    # The package alone: what else lies beside it in an installation is of our environment.
    (folder / "code").mkdir()
    (folder / "code" / "attr_jax").symlink_to(pathlib.Path(attr_jax.__file__).resolve().parent, target_is_directory=True)
    # Started elsewhere, so that no module of the folder we are in gets in between: paths must be absolute.
    command = [python.absolute(), "-m", "attr_jax.onnx_conversion", folder / "model.safetensors", folder / "check.npz", partial.absolute(), str(batch)]
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "XLA_FLAGS")}
    environ |= {"PYTHONPATH": str(folder / "code"), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder)
    if result.returncode:
      raise ExportError(f"no ONNX model: {_last_line(result.stderr)}")
    differences = _within_tolerance(json.loads(result.stdout.splitlines()[-1]))
  return Exported(f"ONNX model of {'any number of' if not batch else batch} images in {out}, run by onnxruntime", differences, expected.real)


FORMATS = {"safetensors": to_safetensors, "stablehlo": to_stablehlo, "onnx": to_onnx}


def onnx_environment(folder: pathlib.Path | None = None) -> pathlib.Path:
  """The Python of an environment with ONNX_REQUIREMENTS; it is made (pip, 1 GB, a minute or two) where it is missing.

  Raises:
    InputError: a folder that holds something else.
    ExportError: it cannot be made.
  """
  if folder is None:
    name = hashlib.sha256(" ".join((*ONNX_REQUIREMENTS, sys.version)).encode()).hexdigest()[:8]
    folder = pathlib.Path.home() / ".cache" / "attr_jax" / f"onnx-{name}"
  python = folder / "bin" / "python"
  complete = folder / "attr_jax_requirements.txt"
  if complete.is_file() and complete.read_text().split() == list(ONNX_REQUIREMENTS):
    return python
  if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
    raise InputError(f"{folder} is no Python environment; give an empty or a new folder")
  print(f"attr-jax: making the environment for ONNX in {folder}", file=sys.stderr, flush=True)
  folder.parent.mkdir(parents=True, exist_ok=True)
  for command in ([sys.executable, "-m", "venv", folder], [python, "-m", "pip", "install", "--quiet", *ONNX_REQUIREMENTS]):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
      raise ExportError(f"the environment for ONNX in {folder} cannot be made: {_last_line(result.stderr or result.stdout)}")
  complete.write_text("\n".join(ONNX_REQUIREMENTS) + "\n")  # last: one that was cut short is made again
  return python


def metadata(run: evaluate.Run, found: Mapping[str, Any]) -> dict[str, Any]:
  """What one must know to use the file, the same in every format; values as JSON has them. `found`: of `run_folder.read_thresholds`."""
  config, info = run.config, run.info
  thresholds = {key: found[key] for key in ("rule", "split", "views", "threshold", "factor") if key in found} or {
      "rule": "0.5 for every attribute: the run has no thresholds for this checkpoint", "threshold": dict.fromkeys(info.label_names, 0.5)}
  licence = "drawn by attr_jax, free to use" if config.data.world else info.licence
  return {
      "label_names": list(info.label_names),
      "label_groups": {group: list(names) for group, names in info.label_groups.items()},
      "thresholds": {**thresholds, "present": "score >= threshold"},
      "preprocessing": {
          "size": list(config.input.full_size), "dtype": "uint8", "range": [0, 255], "order": "RGB, [N, height, width, channel]",
          # As `predict.Recognizer.view` does.
          "resize": "a photo larger than the data were prepared at is first averaged down, aspect kept, until it just covers that size "
                    "(OpenCV's INTER_AREA); then stretched to size, bilinear without antialiasing (INTER_LINEAR)",
          "mean": list(config.input.mean), "std": list(config.input.std),
          "normalisation": "(image / 255 - mean) / std; in StableHLO and ONNX files the program does it"},
      "output": "float32 [N, labels], probabilities in the order of label_names",
      "compute_dtype": "float32",
      "trained_compute_dtype": config.compute_dtype,
      "model": run_folder.model_name(config),
      "config": config.to_dict(),
      "step": run.step,
      "checkpoint": run.checkpoint,
      "data": run_folder.data_name(config),
      "data_licence": licence,
      "data_citation": info.citation,
      "weights_licence": f"learnt from {run_folder.data_name(config)} ({licence})"
                         + (f", starting from {config.weights}, whose terms hold as well" if config.weights else "")
                         + "; attr_jax adds no terms of its own to weights",
      "attr_jax": attr_jax.__version__,
      "citation": _citation(config.model.name),
  }


def reference(run: evaluate.Run) -> Reference:
  """What the model says, its batch norm not folded, of random images and of real ones.

  The real ones are of the run's validation or test split where its prepared data are there, else cuts of scikit-learn's two photos.

  Raises:
    InputError: the model names no attributes, or needs more than images.
  """
  if not run.info.label_names:
    raise InputError(f"model {run.config.model.name!r} names no attributes: it has no probabilities to export")
  size = tuple(run.config.input.full_size)
  real, where = _real_images(run, size)
  images = {"random": np.random.default_rng(0).integers(0, 256, (_IMAGES, *size, 3), np.uint8), "real": real}
  predict = _predictor(run, run.params, run.batch_stats)
  return Reference(images, {kind: predict(x) for kind, x in images.items()}, where)


def compare(expected: Reference, predict: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
  """The largest difference between the probabilities of a file and of the model: on random images, on real ones, and one by one.

  Args:
    expected: of the model.
    predict: the file's, uint8 [N, H, W, 3] -> [N, L], for any N.

  Raises:
    ExportError: one is above TOLERANCE.
  """
  differences = {kind: _largest(predict(images), expected.probability[kind]) for kind, images in expected.images.items()}
  alone = _largest(predict(expected.images["real"][:1]), expected.probability["real"][:1])
  differences["real"] = float(np.maximum(differences["real"], alone))
  return _within_tolerance(differences)


def _largest(a: np.ndarray, b: np.ndarray) -> float:
  if np.shape(a) != b.shape:
    raise ExportError(f"the export gives {list(np.shape(a))} probabilities, the model {list(b.shape)}; nothing is kept")
  return float(np.abs(np.asarray(a, np.float64) - b).max())


def _within_tolerance(differences: dict[str, float]) -> dict[str, float]:
  for kind, value in differences.items():
    if not value <= TOLERANCE:  # also NaN
      raise ExportError(f"the export differs from the model by {value:.2g} on {kind} images, more than {TOLERANCE:g}; nothing is kept")
  return differences


def _predictor(run: evaluate.Run, params: Any, batch_stats: Any) -> Callable[[np.ndarray], np.ndarray]:
  """The evaluation's own step in float32: uint8 [N, H, W, 3] -> float64 probabilities [N, L]."""
  model, config = program_lib.in_float32(run.config, len(run.info.label_names))
  step = steps.make_predict_step(model, config)
  compiled = steps.compile_predict_step(lambda *args: step(*args)["logit"], _one_device())

  def predict(images: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision("float32"):
      return metrics.probabilities(np.asarray(compiled(params, batch_stats, {"image": images})))

  return predict


def _real_images(run: evaluate.Run, size: tuple[int, int]) -> tuple[np.ndarray, str]:
  """uint8 [N, *size, 3], and where they are from."""
  data = run.config.data
  for split in (data.val_split, data.test_split):
    with contextlib.suppress(InputError):
      source = evaluate.open_source(run.config, evaluate.open_data(run.config), split)
      places = np.linspace(0, len(source) - 1, min(_IMAGES, len(source))).astype(int)
      images = [images_lib.decode_image(source[int(place)]["image"]) for place in places]
      return np.stack([ops.resize({"image": image}, size)["image"] for image in images]), f"{len(images)} of split {split!r}"
  from sklearn import datasets  # a second to import

  cuts = [cut for photo in datasets.load_sample_images().images for half in np.array_split(photo, 2) for cut in np.array_split(half, 2, axis=1)]
  return np.stack([ops.resize({"image": np.ascontiguousarray(cut)}, size)["image"] for cut in cuts]), "cuts of two photos of scikit-learn"


def _one_device() -> jax.sharding.Mesh:
  return sharding.make_mesh(jax.local_devices()[:1])


def _torchvision(params: Any, batch_stats: Any, name: str) -> tuple[dict[str, np.ndarray], int, int]:
  """(state dict, depth, width) of the trunk, with `fc` where it is all that stands on the pooled trunk."""
  try:
    state_dict = weights.export_resnet(params, batch_stats)
    depth = weights.infer_depth(state_dict)
  except InputError as error:
    raise InputError(f"{name}: nothing to export in torchvision's names: {error}") from error
  channels = max(value.shape[0] for key, value in state_dict.items() if re.fullmatch(r"layer4\.\d+\.bn\d\.weight", key))
  if set(params) != {"backbone", "classifier"} or state_dict["fc.weight"].shape[1] != channels:
    state_dict = {key: value for key, value in state_dict.items() if not key.startswith("fc.")}
  return state_dict, depth, state_dict["conv1.weight"].shape[0]


def _from_torchvision(path: pathlib.Path, state_dict: Mapping[str, np.ndarray], params: Any, batch_stats: Any) -> tuple[Any, Any]:
  """The model with the file's tensors in place of its own; of those that must be in the file, none of its own is left."""
  saved = weights.load_state_dict(path)
  _check_equal(dict(state_dict), saved)
  empty = jax.tree.map(lambda x: np.full_like(x, np.nan), (params, batch_stats))
  *trees, report = weights.import_resnet(saved, *empty)
  if report.left_over or report.mismatched:
    raise ExportError(f"tensors that the model has no place for when they are read back: {', '.join(report.left_over)}; nothing is kept")
  taken = [traverse_util.flatten_dict(tree) for tree in trees]
  kept = [traverse_util.flatten_dict(tree) for tree in (params, batch_stats)]
  # What the file does not hold, such as attention, is the run's.
  mixed = [{path: kept_tree[path] if np.isnan(value).all() else value for path, value in tree.items()} for tree, kept_tree in zip(taken, kept)]
  return tuple(traverse_util.unflatten_dict(tree) for tree in mixed)


def _check_equal(ours: Any, saved: Any) -> None:
  try:
    jax.tree.map(np.testing.assert_array_equal, ours, saved)
  except (AssertionError, ValueError) as error:
    raise ExportError("the tensors that are read back differ from the model's; nothing is kept") from error


def _as_text(values: Mapping[str, Any]) -> dict[str, str]:
  """For headers that hold strings alone: text as it is, all else as JSON."""
  return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


def _citation(model: str) -> str:
  """The paper's entries of CITATION.bib, which lies beside the package in a checkout; their keys where it is not there."""
  path = pathlib.Path(attr_jax.__file__).resolve().parent.parent / "CITATION.bib"
  keys = _PAPERS.get(model, ())
  if not path.is_file():
    return ", ".join(keys)
  entries = re.finditer(r"^@\w+\{(\w+),.*?^\}", path.read_text(), re.M | re.S)
  return "\n\n".join(entry[0] for entry in entries if entry[1] in keys)


def _import_flatbuffers() -> None:
  try:
    import flatbuffers
  except ImportError as error:
    raise InputError("export --to=stablehlo needs flatbuffers: pip install 'attr_jax[export]'") from error
  del flatbuffers


def _last_line(text: str) -> str:
  """What an error says in the end, as one line."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return lines[-1][:500] if lines else "no reason given"
