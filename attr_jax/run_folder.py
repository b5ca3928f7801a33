"""What stands in a run's folder: config, environment, figures, model card.

  config.json  dataset.json  environment.json  parameters.txt  metrics.jsonl  checkpoints/<step>/  tensorboard/
  evaluation/<split>-<views>.json  predictions/<split>-<views>.npz  thresholds.json  pictures/*.png  model_card.md  DONE
"""

from collections.abc import Mapping, Sequence
import datetime
from importlib import metadata
import json
import math
import pathlib
import platform
import subprocess
import sys
from typing import Any

from clu import parameter_overview
import jax
import ml_collections
import numpy as np

import attr_jax
from attr_jax import config as config_lib
from attr_jax import steps
from attr_jax import writers
from attr_jax.data import info as info_lib
from attr_jax.errors import InputError

_FEW = 16  # images; from fewer the statistics of batch norm are a coarse guess


def write_start(config: ml_collections.ConfigDict, info: info_lib.DatasetInfo, workdir: pathlib.Path) -> None:
  """Writes config.json, dataset.json and environment.json into `workdir`, made where it is missing, by the first process.

  Raises:
    InputError: the folder holds a run with another config.
  """
  old = workdir / "config.json"
  if old.exists():
    changed = config_lib.differences(config_lib.from_json(old.read_text()), config)
    if changed:
      raise InputError(f"{workdir} holds a run with another config ({'; '.join(changed[:5])}); use another --workdir")
  if jax.process_index() > 0:
    return
  workdir.mkdir(parents=True, exist_ok=True)
  writers.write_whole(old, config_lib.to_json(config) + "\n")
  writers.write_whole(workdir / "dataset.json", info.to_json() + "\n")
  writers.write_whole(workdir / "environment.json", json.dumps(_environment(), indent=2) + "\n")


def read_start(workdir: pathlib.Path) -> tuple[ml_collections.ConfigDict, info_lib.DatasetInfo]:
  """The config and the data set's description that a run wrote at its start.

  Raises:
    InputError: not a run folder, or a description that cannot be read.
  """
  for name in ("config.json", "dataset.json"):
    if not (workdir / name).is_file():
      raise InputError(f"{workdir} is not a run folder: {name} is missing")
  try:
    config = config_lib.from_json((workdir / "config.json").read_text())
  except ValueError as error:
    raise InputError(f"{workdir / 'config.json'} is damaged: {error}") from None
  return config, info_lib.DatasetInfo.from_json((workdir / "dataset.json").read_text())


def write_parameters(workdir: pathlib.Path, params: Any, batch_stats: Any) -> None:
  """Writes parameters.txt into `workdir`: name, shape and size of every array of the trees `params` and `batch_stats`."""
  variables = {"params": params, "batch_stats": batch_stats}
  overview = parameter_overview.get_parameter_overview(variables, include_stats=False)
  (workdir / "parameters.txt").write_text(overview + "\n")


def run_header(config: ml_collections.ConfigDict, model: Any, state: Any, mesh: jax.sharding.Mesh,
               info: info_lib.DatasetInfo, total: int, resumed_at: int | None, example: Mapping[str, Any]) -> str:
  """What is trained, on what, and how: the lines above the progress bar.

  Args:
    config: the run's.
    model: Linen module.
    state: its arrays or their shapes.
    mesh: of the devices.
    info: of the data set.
    total: steps of the run.
    resumed_at: the step it goes on from; None: a fresh run.
    example: a batch of one sample, `image` [1, H, W, 3] and what else the model takes.
  """
  count = sum(x.size for x in jax.tree.leaves(state.params))
  flops = steps.flops_per_image(model, state, example)
  micro = config.batch_size // config.accumulate_steps
  scope = config.batch_norm.scope
  bn_batch = micro * {"local": 1, "group": config.batch_norm.group_size, "global": mesh.size}[scope] // mesh.size
  splits = ", ".join(f"{name} {n}" for name, n in info.splits.items())
  lines = [
      f"model      {model_name(config)}: {count:,} parameters, {flops / 1e9:.3g} GFLOP/image forward",
      f"data       {data_name(config)} ({splits}), {len(info.label_names)} labels",
      f"input      {config.input.size[0]}x{config.input.size[1]} from {config.input.resize[0]}x{config.input.resize[1]}, crop {config.input.crop}",
      f"loss       {_loss_name(config)}",
      f"batch      {config.batch_size} global, {config.accumulate_steps} micro-batches; BN over {bn_batch} images ({scope})",
      f"optimizer  {config.optimizer.name}, rate {config.optimizer.learning_rate:g}, {config.schedule.name} schedule, {total} steps",
      f"devices    {mesh.size} x {jax.devices()[0].device_kind} on {jax.process_count()} hosts, {config.compute_dtype}",
  ]
  if scope != "global" and bn_batch < _FEW and mesh.size > 1:
    lines.append(f"warning    {bn_batch} images are few for batch norm: see config.batch_norm")
  if resumed_at is not None:
    lines.append(f"resuming   from step {resumed_at}")
  return "\n".join(lines)


def write_report(workdir: pathlib.Path, name: str, report: Mapping[str, Any],
                 predictions: Mapping[str, np.ndarray]) -> None:
  """Writes `evaluation/<name>.json`, NaN as null, and `predictions/<name>.npz`, arrays [N, ...], into `workdir`."""
  for folder in ("evaluation", "predictions"):
    (workdir / folder).mkdir(exist_ok=True)
  text = json.dumps(_without_nan(report), indent=2)
  writers.write_whole(workdir / "evaluation" / f"{name}.json", text + "\n")
  np.savez_compressed(workdir / "predictions" / f"{name}.npz", **predictions)


def read_report(workdir: pathlib.Path, name: str) -> dict[str, Any]:
  """The report of a finished evaluation, or {} where there is none."""
  path = workdir / "evaluation" / f"{name}.json"
  return json.loads(path.read_text()) if path.is_file() else {}


def write_thresholds(workdir: pathlib.Path, found: Mapping[str, Any]) -> None:
  """Writes `thresholds.json`, what `evaluate.calibrate` found."""
  writers.write_whole(workdir / "thresholds.json", json.dumps(found, indent=2) + "\n")


def read_thresholds(workdir: pathlib.Path, step: int, label_names: Sequence[str]) -> dict[str, Any]:
  """What `evaluate.calibrate` found for the checkpoint of that step; {} where `thresholds.json` is of another one or missing.

  Raises:
    InputError: the file is damaged, or of other labels than `label_names`.
  """
  path = workdir / "thresholds.json"
  try:
    found = json.loads(path.read_text()) if path.is_file() else {}
    step_found, labels = found.get("step"), set(found.get("threshold", {}))
  except (OSError, ValueError, AttributeError, TypeError) as error:
    raise InputError(f"{path} cannot be read ({error}); delete it, and `attr-jax predict` chooses thresholds again") from None
  if step_found != step:
    return {}
  if labels != set(label_names):
    raise InputError(f"{path} has other labels than the run; delete it, and `attr-jax predict` chooses thresholds again")
  return found


def metrics_table(report: Mapping[str, Any]) -> str:
  """The report of `evaluate.measure` as text of about 80 columns; figures in percent."""
  overall = report["metrics"]
  masks = _mask_lines(overall)
  if not report["per_attribute"]:
    return "\n".join(masks)
  head = ("mAP", "mA", "Acc", "Prec", "Rec", "F1", "F1-C", "F1-O")
  lines = ["  ".join(f"{key:>6}" for key in head),
           "  ".join(f"{_percent(overall.get(key)):>6}" for key in head), "",
           f"{'attribute':<26}{'AP':>7}{'chance':>9}{'positive':>10}{'unspecified':>13}"
           + " region, weight" * any(map(_strongest_region, report["per_attribute"].values()))]
  for name, row in report["per_attribute"].items():
    known = row["positives"] + row["negatives"]
    chance = row["positives"] / known if known else math.nan
    lines.append(f"{name[:25]:<26}{_percent(row['AP']):>7}{_percent(chance):>9}"
                 f"{int(row['positives']):>10}{int(row['unspecified']):>13}{_strongest_region(row):>15}".rstrip())
  if "mAP" in overall and "mean_positive_share" in overall:
    lines.append(f"{'mean':<26}{_percent(overall['mAP']):>7}{_percent(overall['mean_positive_share']):>9}")
  lines += _set_lines(report)
  if overall.get("labels_without_positives"):
    lines.append(f"{int(overall['labels_without_positives'])} labels without positives are left out of the means")
  lines += masks
  errors = [f"{kind} {overall[f'{kind}_error']:.3f}" for kind in ("flip", "scale") if f"{kind}_error" in overall]
  if errors:
    lines.append(f"equivariance error of the heatmaps (0: exact): {', '.join(errors)}")
  inside = [f"{_percent(overall[f'{kind}_inside'])} % of the {kind}" for kind in ("heatmap", "attention") if f"{kind}_inside" in overall]
  if inside:
    lines.append(f"on the person: {', '.join(inside)}, {_percent(overall['person_area'])} % of the image")
  return "\n".join(lines)


def _strongest_region(row: Mapping[str, float]) -> str:
  """Where an attribute is looked for, and with which of the weights that sum to 100; "" in a model without them."""
  weights = {key.partition("/")[2]: value for key, value in row.items() if key.startswith("region_weight/")}
  best = max(weights, key=weights.get, default="")
  return f" {best} {_percent(weights[best]).partition('.')[0]}" if best else ""


def _set_lines(report: Mapping[str, Any]) -> list[str]:
  """How well label sets are found, over all labels and per group; [] where a plain threshold of the convention decides."""
  if "rule" not in report:
    return []
  keys = ("F2", "F1", "P", "R")
  lines = ["", f"{'label sets':<26}{'mean over images':>24}{'mean over labels':>24}", f"{'':<26}" + "".join(f"{key:>6}" for key in 2 * keys)]
  for group, values in report["per_group"].items():
    lines.append(f"{group[:25]:<26}" + "".join(f"{_percent(values[f'{kind}_{key}']):>6}" for kind in ("sample", "macro") for key in keys))
  threshold = report["threshold"]
  shown = f"{threshold:.3g}" if isinstance(threshold, float) else f"{min(threshold):.2f} to {max(threshold):.2f}"
  return [*lines, f"chosen by: {report['rule']}; {shown}"]


def _mask_lines(overall: Mapping[str, float]) -> list[str]:
  lines = []
  if "mask_IoU" in overall:
    lines.append(f"mask IoU {_percent(overall['mask_IoU'])} (mean over images {_percent(overall['mask_IoU_per_image'])})")
  if "region_mIoU" in overall:
    each = {key.partition("/")[2]: value for key, value in overall.items() if key.startswith("region_IoU/")}
    lines += [f"{'region':<26}{'IoU':>7}", *(f"{name[:25]:<26}{_percent(value):>7}" for name, value in each.items()),
              f"{'mean':<26}{_percent(overall['region_mIoU']):>7}"]
  return lines


def model_card(config: ml_collections.ConfigDict, info: info_lib.DatasetInfo, report: Mapping[str, Any]) -> str:
  """The text of `model_card.md`: what was trained on what, and how well it did; `report` is of the test, or {}."""
  lines = [
      f"# {model_name(config)} on {data_name(config)}",
      "",
      f"- labels ({len(info.label_names)}): {', '.join(info.label_names) or 'none'}",
      f"- input: RGB, {config.input.full_size[0]}x{config.input.full_size[1]}, "
      f"(x / 255 - {tuple(config.input.mean)}) / {tuple(config.input.std)}",
      f"- loss: {_loss_name(config)}",
      f"- starting weights: {config.weights or 'none, trained from scratch'}",
      f"- training data: {data_name(config)}, {config.data.train_split}; licence: "
      + ("drawn by attr_jax, free to use" if config.data.world else info.licence),
      f"- checkpoint chosen on: {config.data.val_split or 'nothing (the last one)'} by {config.evaluate.select}",
      "",
  ]
  if report:
    lines += [f"Test split `{report['split']}`, view `{report['views']}`, step {report['step']}, "
              f"convention `{report['convention']}`:", "", "```", metrics_table(report), "```", ""]
  return "\n".join(lines)


def model_name(config: ml_collections.ConfigDict) -> str:
  """The model and, of its options, those that say which one it is."""
  return ", ".join([config.model.name, *(f"{key} {config.model[key]}" for key in ("system", "depth") if key in config.model)])


def _loss_name(config: ml_collections.ConfigDict) -> str:
  """The named weighting (a method with a loss of its own has none), its stage and its conventions."""
  loss = config.loss
  name = loss.get("loss", config.model.name) + (f", stage {loss.stage}" if "stage" in loss else "")
  return name + (f", {loss.reduction}, unspecified: {loss.unspecified}" if "reduction" in loss else "")


def data_name(config: ml_collections.ConfigDict) -> str:
  """The data set, its partition and margin, and the second one; a synthetic world is not the data set whose layout it has."""
  name = f"synthetic {config.data.world}" if config.data.world else config.data.name
  name += f" (partition {config.data.partition})" if config.data.get("partition") else ""
  name += f" (margin {config.data.margin:g})" if config.data.get("margin") else ""
  return f"{name} and {config.data.second}" if config.data.get("second") else name


def _environment() -> dict[str, Any]:
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
  return {
      "attr_jax": attr_jax.__version__,
      "commit": _git_commit(),
      "python": platform.python_version(),
      "platform": platform.platform(),
      "packages": {name: metadata.version(name) for name in packages},
      "devices": [str(device) for device in jax.devices()],
      "processes": jax.process_count(),
      "command": sys.argv,
      "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  }


def _git_commit() -> str | None:
  command = ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "HEAD"]
  try:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None  # installed from a wheel


def _without_nan(value: Any) -> Any:
  """JSON has no NaN: undefined figures become null."""
  if isinstance(value, Mapping):
    return {k: _without_nan(v) for k, v in value.items()}
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _percent(value: float | None) -> str:
  return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"
