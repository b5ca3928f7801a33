"""Predict a split, measure it, and write what a run's folder holds of it."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import math
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from attr_jax import checkpoint as checkpoint_lib
from attr_jax import explain
from attr_jax import metrics
from attr_jax import models
from attr_jax import optim
from attr_jax import pictures
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax.data import images as images_lib
from attr_jax.data import info as info_lib
from attr_jax.data import loader
from attr_jax.data import pipeline
from attr_jax.data import regions
from attr_jax.data import registry
from attr_jax.errors import InputError


# What of a sample goes to the device when a split is predicted.
INPUTS = (*steps.INPUTS, "person_mask", "region_mask")


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained run, ready to predict.

  Attributes:
    config: as trained.
    info: label names and figures of the data set it was trained on.
    params: float32 parameters (averaged ones where the run averages).
    batch_stats: float32 BN statistics.
    step: the update count of the checkpoint.
    checkpoint: "best", "last" or the step as text.
    model: the Linen module.
  """

  config: ml_collections.ConfigDict
  info: info_lib.DatasetInfo
  params: Any
  batch_stats: Any
  step: int
  checkpoint: str
  model: Any


def load_run(workdir: pathlib.Path, mesh: jax.sharding.Mesh, checkpoint: str = "best") -> Run:
  """Restores a run's best, last or numbered checkpoint onto the devices of `mesh`.

  Args:
    workdir: the run's folder.
    mesh: where parameters and statistics go.
    checkpoint: "best", "last" or a step as text.

  Raises:
    InputError: not a run folder, no such checkpoint, or it does not fit.
  """
  config, info = run_folder.read_start(workdir)
  model = models.build(config.model, len(info.label_names), config.compute_dtype)
  tx = optim.make_optimizer(config, lambda step: 0.0, models.trainable_groups(config.model.name, config.loss))
  num_train = sum(info.splits[name] for name in config.data.train_split.split("+"))
  memory = models.initial_memory(config.model.name, num_train, len(info.label_names))
  abstract = state_lib.abstract_state(model, tx, (*config.input.size, 3), memory, mesh)
  folder = workdir / "checkpoints"
  if not folder.is_dir():
    raise InputError(f"{workdir} holds no checkpoints; has the run been trained?")
  checkpoints = checkpoint_lib.Checkpoints(folder)
  try:
    step = _checkpoint_step(checkpoints, checkpoint)
    state = checkpoints.restore(step, abstract)
  finally:
    checkpoints.close()
  params = optim.evaluation_params(state.params, state.opt_state)
  return Run(config, info, params, state.batch_stats, step, checkpoint, model)


def predict_split(
    predict: Callable[..., jax.Array],
    params: Any,
    batch_stats: Any,
    source: Any,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    *,
    views: str,
    max_samples: int = 0,
    progress: bool = False,
    second: Any = None,
) -> dict[str, np.ndarray]:
  """Logits of every sample of a split, on every host, in the order of the records; how well masks fit where both have any.

  Args:
    predict: a compiled predict step.
    params: parameters on the mesh.
    batch_stats: BN statistics on the mesh.
    source: records of the split.
    config: the run's config (`input`, `evaluate`).
    mesh: where to compute.
    views: "full", "five_crop", "ten_crop" (these five and their mirrors) or "six_view".
    max_samples: stop after about that many; 0 for all.
    progress: show a bar.
    second: records of a second data set (`config.data.second`), whose regions are measured.

  Returns:
    {"id" int64 [N], "logit" float32 [N, L], "label" uint8 [N, L], "known" bool [N, L]} and, where the data have
    masks and the model predicts them, or weighs regions, the further rows of `steps.make_predict_step`.

  Raises:
    InputError: `config.evaluate.batch_size` does not divide over the devices, or unknown views.
  """
  sharding.check_batch("config.evaluate.batch_size", config.evaluate.batch_size, mesh)
  dataset = pipeline.eval_dataset(
      source, input_spec(config), views=views, batch_size=config.evaluate.batch_size,
      process_index=jax.process_index(), process_count=jax.process_count(),
  )
  count = min(len(dataset), math.ceil(max_samples / config.evaluate.batch_size)) if max_samples else len(dataset)
  rows_sharding = sharding.over_batch(mesh)
  answers, rows = [], []
  with contextlib.ExitStack() as stack:
    batches = stack.enter_context(contextlib.closing(
        pipeline.eval_iterator(dataset, config.input.threads, max_batches=count)))
    ready = stack.enter_context(contextlib.closing(loader.read_ahead(
        (_on_device(batch, rows_sharding, mirror=views == "ten_crop") for batch in batches))))
    for inputs, row in tqdm.tqdm(ready, total=count, unit="batch", ncols=80, disable=not progress, leave=False):
      answers.append(predict(params, batch_stats, inputs))
      rows.append(row)
      if len(answers) > 2:  # a bounded queue: read what was asked for two batches ago
        answers[-3] = jax.device_get(answers[-3])
  table = _in_record_order(rows)
  answers = jax.device_get(answers)
  table |= {key: np.concatenate([answer[key] for answer in answers]) for key in answers[0]}
  valid = table.pop("valid")
  table = {key: value[valid] for key, value in table.items()}
  if second is not None:
    other = predict_split(predict, params, batch_stats, second, config, mesh, views=views, max_samples=max_samples, progress=progress)
    table["region_confusion"] = other["region_confusion"]
  return table


def _on_device(batch: Mapping[str, np.ndarray], rows: jax.sharding.NamedSharding, *,
               mirror: bool) -> tuple[dict[str, jax.Array], dict[str, np.ndarray]]:
  """What is predicted from, on the devices, and what is needed here."""
  inputs = {key: batch[key] for key in INPUTS if key in batch}
  if mirror:
    inputs["mirror"] = batch["valid"]
  return sharding.put_batch(inputs, rows), {key: batch[key] for key in ("id", "label", "known", "valid")}


@dataclasses.dataclass(frozen=True)
class Chosen:
  """Which labels a run says are there, where that is not the question of a score above 0.5.

  Attributes:
    decision: bool [N, L].
    rule: how they were chosen, for the report.
    threshold: what the rule compares with: one number, or one per label.
  """

  decision: np.ndarray
  rule: str
  threshold: float | list[float]


def choose(config: ml_collections.ConfigDict, info: info_lib.DatasetInfo, predictions: Mapping[str, np.ndarray],
           val: Mapping[str, np.ndarray] | None) -> Chosen | None:
  """The label sets of a split, as `config.evaluate.threshold` and the model's `decide` say.

  Args:
    config: the run's.
    info: of the data set that it was trained on.
    predictions: `predict_split`'s table of the split.
    val: the same of the validation split, on which thresholds are searched: those with the highest F2 averaged over
      images. Not needed for the "fixed" threshold.

  Returns:
    None where a score above the convention's threshold decides.

  Raises:
    InputError: a threshold is to be searched and there is no validation split; an unknown rule in `config.decide`.
  """
  search = _threshold_search(config)
  if search != "fixed" and val is None:
    raise InputError(f"config.evaluate.threshold={search!r} is searched on validation images: set config.data.val_split")
  decide = getattr(models.MODELS[config.model.name], "decide", None)
  options = dict(config.get("decide", {}))
  decision = decide(None, predictions, info, **options) if decide else None
  if decision is not None:
    if search != "fixed":
      options["factor"] = _best_factor(config.model.name, info, val, options)
      decision = decide(None, predictions, info, **options)
    return Chosen(np.asarray(decision), f"decoder, {options['rule']}, {options['stop']}, {search}", options["factor"])
  if search == "fixed" or not info.label_names:
    return None
  score = metrics.probabilities(val["logit"])
  threshold = metrics.search_thresholds(val["label"], score, val["known"], kind=search, prior=np.array(info.positive_ratio))
  decision = metrics.probabilities(predictions["logit"]) >= threshold
  same = bool((threshold == threshold[0]).all())
  return Chosen(decision, f"{search} threshold of the highest F2 on validation images",
                float(threshold[0]) if same else threshold.tolist())


def calibrate(run: Run, mesh: jax.sharding.Mesh, *, data_dir: str | None = None, progress: bool = False) -> dict[str, Any]:
  """What says that an attribute is there, chosen on the validation split of the run, "full" view: for `predict`, `serve` and exports.

  Each attribute has the threshold of its own highest F1 (`metrics.highest_F1_thresholds`; our choice), whatever rule the run's own evaluation
  follows. A decoder's label sets have a factor instead, see `config.decide`.

  Args:
    run: the trained run.
    mesh: where to compute.
    data_dir: where the prepared data lie, if not where the run found them.
    progress: show a bar.

  Returns:
    What `thresholds.json` holds: {"step", "split", "views", "rule", "threshold": {label: number}} and, of a decoder, "factor". {} for
    a run without labels or without a validation split, and for a model that names no attributes.

  Raises:
    InputError: the prepared data are not there.
  """
  config, info = run.config, run.info
  if not config.data.val_split or not info.label_names:
    return {}
  source = open_source(config, open_data(config, data_dir), config.data.val_split)
  if not outputs(run, one(source, input_spec(config)))["logits"].shape[1]:  # a segmenter or parser, on data that have labels
    return {}
  predict = steps.compile_predict_step(steps.make_predict_step(run.model, config), mesh)
  table = predict_split(predict, run.params, run.batch_stats, source, config, mesh, views="full", progress=progress)
  threshold = metrics.highest_F1_thresholds(table["label"], metrics.probabilities(table["logit"]), table["known"])
  found = {"step": run.step, "split": config.data.val_split, "views": "full",
           "rule": f"highest F1 on validation images; 0.5 with fewer than {metrics.FEWEST} examples",
           "threshold": dict(zip(info.label_names, threshold.tolist()))}
  decide = getattr(models.MODELS[config.model.name], "decide", None)
  if decide and decide(None, table, info, **config.decide) is not None:
    found["factor"] = _best_factor(config.model.name, info, table, dict(config.decide))
  return found


def _best_factor(name: str, info: info_lib.DatasetInfo, val: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> float:
  """The factor of `decide` with the highest F2 on validation images; the first one of several."""
  method = models.MODELS[name]
  f2 = {factor: metrics.set_metrics(val["label"], np.asarray(method.decide(None, val, info, **{**options, "factor": factor})),
                                    val["known"])["sample_F2"]
        for factor in method.RULES[options["rule"]]}
  return max(f2, key=f2.get)


def measure(predictions: Mapping[str, np.ndarray], label_names: Sequence[str], convention: str = "native", *,
            chosen: Chosen | None = None, label_groups: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
  """The metrics of `evaluation/*.json` from `predict_split`'s table, fractions in [0, 1].

  The figures per attribute are always native, at 0.5 or by what is chosen. Without labels (a segmenter, a parser) there are the
  figures of the masks alone: `mask_IoU` and `region_IoU/<region>` are pooled over all pixels of the split, `mask_IoU_per_image` is
  the mean over images. `region_weight/<region>` of an attribute is the mean over images.

  Args:
    predictions: "logit" [N, L], "label" [N, L], "known" [N, L] and the further rows, see `predict_split`.
    label_names: L names.
    convention: rules the overall figures, and their threshold unless labels are `chosen`.
    chosen: which labels are there; None: by the convention's threshold.
    label_groups: group -> its labels, for figures per group where labels are `chosen`.

  Returns:
    {"metrics", "per_attribute", "convention", "average_precision", "threshold"}, with `chosen` also "per_group" and "rule".

  Raises:
    ValueError: an unknown convention, or arrays as `metrics` forbids.
  """
  overall, per_attribute, per_group = {}, {}, {}
  decision = chosen.decision if chosen else None
  if label_names and predictions["logit"].shape[1]:
    label, known, score = predictions["label"], predictions["known"], metrics.probabilities(predictions["logit"])
    overall = metrics.evaluate_all(label, score, known=known, convention=convention, decision=decision)
    columns = metrics.per_attribute(label, score, known=known, decision=decision)
    if chosen:
      overall |= {"micro_ROC-AUC": metrics.micro_roc_auc(label, score, known)}
      for group, names in {"all labels": label_names, **(label_groups or {})}.items():
        where = np.isin(label_names, names)
        per_group[group] = metrics.set_metrics(label[:, where], decision[:, where], known[:, where])
    per_attribute = {
        name: {key: float(column[i]) for key, column in columns.items()} for i, name in enumerate(label_names)
    }
  if "mask_union" in predictions:
    overall |= metrics.overlap_metrics(predictions["mask_intersection"], predictions["mask_union"])
  if "region_confusion" in predictions:
    overall |= metrics.region_metrics(predictions["region_confusion"], regions.FACE_REGION_NAMES)
  if "region_weights" in predictions:
    weights = predictions["region_weights"].mean(axis=0)
    for i, name in enumerate(label_names):
      per_attribute[name] |= {f"region_weight/{region}": float(weight)
                              for region, weight in zip(regions.names_of(len(weights)), weights[:, i])}
  return {
      "metrics": overall,
      "per_attribute": per_attribute,
      **({"per_group": per_group} if per_group else {}),
      "convention": convention,
      "average_precision": "AP, native mAP: step, tie-safe; interpolated: monotone envelope; unspecified labels dropped",
      "threshold": chosen.threshold if chosen else metrics.CONVENTIONS[convention].threshold,
      **({"rule": chosen.rule} if chosen else {}),
  }


def evaluate_runs(workdirs: Sequence[pathlib.Path], *, split: str, views: str | None = None, checkpoint: str = "best",
                  convention: str = "native", data_dir: str | None = None, progress: bool = True,
                  write: bool = True) -> dict[str, Any]:
  """`attr-jax evaluate`: predicts a split, measures it, writes and draws.

  Args:
    workdirs: runs; the probabilities of several are averaged (as SSP+SSG are),
      and the result is written into the first one's folder.
    split: "test", "val", "train" or a sum of them.
    views: "full", "five_crop", "ten_crop" or "six_view"; None takes those that the first run was validated on.
    checkpoint: "best", "last" or a step.
    convention: whose rules the metrics follow.
    data_dir: where the prepared data lie, if not where the run found them.
    progress: show a bar.
    write: write the report, the predictions and the pictures.

  Returns:
    What `evaluation/*.json` holds.

  Raises:
    InputError: runs of different label sets, no such split or convention.
  """
  if convention not in metrics.CONVENTIONS:
    raise InputError(f"convention {convention!r} is unknown; there are: {', '.join(metrics.CONVENTIONS)}")
  views = views or run_folder.read_start(workdirs[0])[0].evaluate.views
  mesh = sharding.make_mesh()
  tables, val_tables, runs, inputs = [], [], {}, {}
  for workdir in workdirs:
    run = load_run(workdir, mesh, checkpoint)
    names = run.info.label_names
    if any(names != other.info.label_names for other in runs.values()):
      raise InputError(f"{workdir} was trained on other labels than {workdirs[0]}; they cannot be averaged")
    title = workdir.name if workdir.name not in runs else str(workdir)
    source = open_source(run.config, open_data(run.config, data_dir), split)
    runs[title], inputs[title] = run, (source, input_spec(run.config))
    predict = steps.compile_predict_step(steps.make_predict_step(run.model, run.config), mesh)
    tables.append(predict_split(
        predict, run.params, run.batch_stats, source, run.config, mesh, views=views, progress=progress,
        second=open_second(run.config, split, data_dir),
    ))
    if _threshold_search(run.config) != "fixed" and split == run.config.data.val_split:
      val_tables.append(tables[-1])
    elif _threshold_search(run.config) != "fixed" and run.config.data.val_split:
      val_source = open_source(run.config, open_data(run.config, data_dir), run.config.data.val_split)
      val_tables.append(predict_split(predict, run.params, run.batch_stats, val_source, run.config, mesh, views=views, progress=progress))
  predictions = average_predictions(tables, f"split {split!r}")
  val = average_predictions(val_tables, "val") if len(val_tables) == len(tables) else None
  chosen = choose(run.config, run.info, predictions, val)
  if chosen:
    predictions["decision"] = chosen.decision
  report = measure(predictions, names, convention, chosen=chosen, label_groups=run.info.label_groups)
  report |= {"split": split, "views": views, "step": run.step, "checkpoint": checkpoint,
             "runs": [str(workdir) for workdir in workdirs], "num_samples": len(predictions["id"])}
  if write and len(workdirs) == 1:
    of_maps = equivariance(run, source, mesh, progress=progress) | maps_inside(run, source, mesh, progress=progress)
    for kind, figures in of_maps.items():
      report["metrics"][kind] = float(np.nanmean(figures))
      for label_name, figure in zip(names, figures):
        report["per_attribute"][label_name][kind] = float(figure)
  if write and jax.process_index() == 0:
    name = "-".join([split, views] + [f"mean_of_{len(workdirs)}"] * (len(workdirs) > 1)
                    + [convention] * (convention != "native"))
    run_folder.write_report(workdirs[0], name, report, predictions)
    if report["per_attribute"]:
      draw_report(workdirs[0], name, report, predictions, source)
    if "region_weights" in predictions:
      weights = predictions["region_weights"].mean(axis=0)
      pictures.weight_table(weights.T, names, regions.names_of(len(weights)), workdirs[0] / "pictures" / f"{name}-region-weights.png",
                            title=f"Mean region weights, {split} split")
    explain.draw(runs, inputs, workdirs[0] / "pictures", name,
                 threshold=chosen.threshold if chosen else None)
  return report


def average_predictions(tables: Sequence[Mapping[str, np.ndarray]], what: str) -> dict[str, np.ndarray]:
  """One table of `predict_split`, or the mean probabilities of several (SSP + SSG of Kalayeh et al. 2017), as logits.

  Args:
    tables: of the same split, "logit" [N, L] and the further rows.
    what: names them in an error.

  Returns:
    A single table as it is; of several only "id", "label", "known" and "logit" [N, L], float64.

  Raises:
    InputError: they hold other samples.
  """
  predictions = dict(tables[0])
  if len(tables) == 1:
    return predictions
  # Partitions of one data set have the same ids and other images.
  if any(not np.array_equal(table[key], predictions[key]) for table in tables for key in ("id", "label", "known")):
    raise InputError(f"{what} holds other samples in some of the runs; they cannot be averaged")
  mean = np.mean([metrics.probabilities(table["logit"]) for table in tables], axis=0)
  averaged = {key: predictions[key] for key in ("id", "label", "known")}  # masks, regions and paths are not averaged
  return averaged | {"logit": np.log(mean) - np.log1p(-mean)}


def _threshold_search(config: ml_collections.ConfigDict) -> str:
  """Runs of before there was a choice took the convention's threshold."""
  return config.evaluate.get("threshold", "fixed")


def equivariance(run: Run, source: Any, mesh: jax.sharding.Mesh, *, progress: bool = False) -> dict[str, np.ndarray]:
  """How far each label's heatmap is from moving with its image, over a split (`nn.heatmaps`; the measure is our choice).

  Args:
    run: the trained run.
    source: records of the split.
    mesh: where to compute.
    progress: show a bar.

  Returns:
    {"flip_error", "scale_error"}, float64 [L] each: 0 where maps of mirrored images, or of smaller ones
    (`explain.small_size`), are the maps of the images; nan where maps are constant. {} for a model without heatmaps; no
    "scale_error" for one whose kernels are as large as its maps.
  """
  spec = dataclasses.replace(input_spec(run.config), masks=False)
  batch = one(source, spec)
  if "heatmap" not in outputs(run, batch):
    return {}
  small = explain.small_size(run)
  try:
    outputs(run, batch | {"image": np.zeros((1, *small, 3), np.uint8)})
  except InputError:
    small = None
  sums = _heatmap_sums(run, steps.make_equivariance_step(run.model, run.config, small), source, spec, mesh, progress=progress)
  return {f"{name}_error": error for name, error in sums.items()}


def maps_inside(run: Run, source: Any, mesh: jax.sharding.Mesh, *, progress: bool = False) -> dict[str, np.ndarray]:
  """How much of each label's heatmap and attention lies on the person, over a split (`nn.heatmaps`, after Wang et al. 2020).

  Args:
    run: the trained run.
    source: records of the split.
    mesh: where to compute.
    progress: show a bar.

  Returns:
    {"heatmap_inside", "attention_inside", "person_area"}, float64 [L] in [0, 1] each: the share of the map, and of the image, over
    the images that show the label; nan where there are none. {} for a model without such maps and for data without masks of persons.
  """
  spec = dataclasses.replace(input_spec(run.config), masks=True)
  if "person_mask" not in pipeline.evaluation_view(source[0], spec=spec, views="full"):
    return {}
  if not {"heatmap", "attention"} & outputs(run, one(source, spec)).keys():
    return {}
  sums = _heatmap_sums(run, steps.make_inside_step(run.model, run.config), source, spec, mesh, progress=progress)
  return {"person_area": sums.pop("area")} | {f"{name}_inside": share for name, share in sums.items()}


def _heatmap_sums(run: Run, step: Callable[..., Any], source: Any, spec: pipeline.InputSpec, mesh: jax.sharding.Mesh, *,
                  progress: bool) -> dict[str, np.ndarray]:
  """{name: numerator / denominator} of what a step sums up over a split, float64 [L]."""
  step = steps.compile_predict_step(step, mesh)
  dataset = pipeline.eval_dataset(source, spec, batch_size=run.config.evaluate.batch_size,
                                  process_index=jax.process_index(), process_count=jax.process_count())
  keys = (*INPUTS, "label", "known", "valid")
  total: dict[str, np.ndarray] = {}
  with contextlib.closing(pipeline.eval_iterator(dataset, run.config.input.threads)) as batches:
    for batch in tqdm.tqdm(batches, total=len(dataset), desc="heatmaps", unit="batch", ncols=80, disable=not progress, leave=False):
      inputs = sharding.put_batch({key: batch[key] for key in keys if key in batch}, sharding.over_batch(mesh))
      for name, sums in jax.device_get(step(run.params, run.batch_stats, inputs)).items():
        total[name] = total.get(name, 0) + np.stack(sums).astype(np.float64)
  with np.errstate(invalid="ignore"):  # 0 / 0: a label whose maps are constant, or that no image shows
    return {name: sums[0] / sums[1] for name, sums in total.items()}


def outputs(run: Run, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Shapes of what the model names for such a batch (`image` uint8 [B, H, W, 3] and what else it takes).

  Raises:
    InputError: the model does not take images of that size.
  """
  shapes = {key: jax.ShapeDtypeStruct(value.shape, value.dtype) for key, value in batch.items()}
  return jax.eval_shape(steps.make_explain_step(run.model, run.config), run.params, run.batch_stats, shapes)


def one(source: Any, spec: pipeline.InputSpec, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
  """What a model takes of the first sample of `source`, in the full view of `spec` or at `size` (H, W), as a batch [1, ...]."""
  spec = dataclasses.replace(spec, full_size=size) if size else spec
  sample = pipeline.evaluation_view(source[0], spec=spec, views="full")
  return {key: sample[key][None] for key in steps.INPUTS if key in sample}


def draw_report(workdir: pathlib.Path, name: str, report: Mapping[str, Any],
                predictions: Mapping[str, np.ndarray], source: Any, num_images: int = 24) -> None:
  """`pictures/<name>-*.png`: AP bars, ROC curves, confusion bars, a contact sheet of images all over the split.

  Args:
    workdir: the run's folder.
    name: how the files begin.
    report: of `evaluate_runs`, with figures per attribute.
    predictions: `predict_split`'s table.
    source: records of the split.
    num_images: on the contact sheet.
  """
  folder = workdir / "pictures"
  folder.mkdir(exist_ok=True)
  names = list(report["per_attribute"])
  label, known, score = predictions["label"], predictions["known"], metrics.probabilities(predictions["logit"])
  share = np.array([(label[:, i] & known[:, i]).sum() / max(1, known[:, i].sum()) for i in range(len(names))])
  ap = np.array([row["AP"] for row in report["per_attribute"].values()])
  pictures.attribute_bars(names, ap, share, folder / f"{name}-attributes.png",
                          title=f"Average precision, {report['split']} split, {report['views']} view")
  pictures.roc_curves(label, score, known, names, folder / f"{name}-roc.png")
  pictures.confusion_bars(label, score, known, names, folder / f"{name}-confusion.png")
  chosen = np.linspace(0, len(label) - 1, min(num_images, len(label))).astype(int)
  shown = [images_lib.decode_jpeg(source[i]["image"]) for i in chosen]
  pictures.contact_sheet(shown, label[chosen], known[chosen], score[chosen], names, folder / f"{name}-images.png")


def input_spec(config: ml_collections.ConfigDict, info: info_lib.DatasetInfo | None = None) -> pipeline.InputSpec:
  """The pipeline's part of the config; `info` for training on crops that keep the labels of one group.

  Raises:
    InputError: no such group, or sizes of crops that do not fit.
  """
  keys = ("resize", "size", "full_size", "crop", "crop_sizes", "max_distort", "keep_ratio", "flip", "scaled_decode", "masks")
  options = {key: config.input[key] for key in keys}
  if info is not None and config.input.crop == "six_view":
    group = config.input.crop_group
    if group not in info.label_groups:
      raise InputError(f"config.input.crop_group={group!r} is no group of {info.name}; there are: {', '.join(info.label_groups)}")
    options["crop_labels"] = config.input.crop_labels
    options["crop_group"] = tuple(name in info.label_groups[group] for name in info.label_names)
  return pipeline.InputSpec(**options)


def open_data(config: ml_collections.ConfigDict, data_dir: str | None = None) -> registry.Dataset:
  """The run's prepared data set, in `data_dir` or where the config says; InputError where it is not prepared."""
  return registry.open_dataset(config.data.name, data_dir or data_folder(config), config.data.size, config.data.get("partition"),
                               config.data.get("margin", 0.0))


def open_source(config: ml_collections.ConfigDict, dataset: registry.Dataset, split: str) -> registry.RecordSource:
  """The records of a split of `dataset` ("train+val" is both), with the masks that the run reads; InputError where one is missing."""
  return dataset.source(split, config.data.get("annotation", ""))


def open_second(config: ml_collections.ConfigDict, split: str, data_dir: str | None = None) -> registry.RecordSource | None:
  """The records of the same split of `config.data.second`, if the run learns from two, else None; `data_dir` as in `open_data`."""
  if not config.data.get("second"):
    return None
  return registry.open_dataset(config.data.second, data_dir or data_folder(config), config.data.size).source(split)


def data_folder(config: ml_collections.ConfigDict) -> pathlib.Path:
  """Where the prepared data lie; a synthetic world has a folder of its own."""
  data = config.data
  folder = pathlib.Path(data.dir)
  return folder / f"{data.world}-{data.world_count}-seed{data.world_seed}" if data.world else folder


def _checkpoint_step(checkpoints: checkpoint_lib.Checkpoints, name: str) -> int:
  steps_there = checkpoints.steps()
  if not steps_there:
    raise InputError(f"{checkpoints.folder} holds no whole checkpoint")
  if name == "best":
    return checkpoints.best_step()
  if name == "last":
    return steps_there[-1]
  if not name.isdigit():
    raise InputError(f"checkpoint {name!r} is neither best, last nor a step; there are: {steps_there}")
  return int(name)


def _in_record_order(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Batches of this host's rows -> all hosts' rows, in the order of the records."""
  stacked = {key: np.stack([row[key] for row in rows])[None] for key in rows[0]}  # [1, batches, rows, ...]
  gathered = sharding.gather_rows(stacked)  # [hosts, batches, rows, ...]
  # The number of rows is spelt out: without labels there is nothing to find it from.
  return {
      key: value.swapaxes(0, 1).reshape(math.prod(value.shape[:3]), *value.shape[3:]) for key, value in gathered.items()
  }
