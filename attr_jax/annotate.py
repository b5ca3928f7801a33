"""Person masks predicted by a run, written beside a prepared data set."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from attr_jax import evaluate
from attr_jax import metrics
from attr_jax import sharding
from attr_jax import steps
from attr_jax.data import annotations
from attr_jax.data import pipeline
from attr_jax.data import registry
from attr_jax.errors import InputError
from attr_jax.nn import masks

NAME = "person_mask"


def annotate(workdir: pathlib.Path, dataset: str, data_dir: str | pathlib.Path, *, size: str | None = None,
             name: str = NAME, checkpoint: str = "best", overwrite: bool = False,
             progress: bool = True) -> tuple[pathlib.Path, dict[str, float]]:
  """Predicts the mask of every sample of every split and stores it with the records.

  Training reads the masks in place of the data set's own where `config.data.annotation` names them. They keep
  the size that the model predicts (56x56 for a segmenter at 224x224), as probability x 255.

  Args:
    workdir: the run of a model with `mask` in its outputs: a person segmenter, or Da-HAR.
    dataset: a key of `DATASETS`.
    data_dir: where its prepared form lies.
    size: prepared size, where there are several.
    name: of the annotation.
    checkpoint: "best", "last" or a step.
    overwrite: replace an annotation of that name.
    progress: show a bar.

  Returns:
    (folder of the annotation, split -> mask IoU against the data set's own masks where it has any).

  Raises:
    InputError: no such run or data, a model without masks, or the annotation exists.
  """
  mesh = sharding.make_mesh()
  run = evaluate.load_run(workdir, mesh, checkpoint)
  prepared = registry.open_dataset(dataset, data_dir, size)
  spec = dataclasses.replace(evaluate.input_spec(run.config), masks=True)
  predict = steps.compile_predict_step(_make_mask_step(run), mesh)
  counts = prepared.info.splits
  overlaps: dict[str, list[np.ndarray]] = {split: [] for split in counts}

  with tqdm.tqdm(total=sum(counts.values()), desc=f"{dataset} masks", unit="img", ncols=80, disable=not progress) as bar:
    def predicted(split: str) -> Iterator[np.ndarray]:
      batches = pipeline.eval_dataset(prepared.source(split), spec, batch_size=run.config.evaluate.batch_size)
      with contextlib.closing(pipeline.eval_iterator(batches, run.config.input.threads)) as iterator:
        for batch in iterator:
          inputs = {key: batch[key] for key in ("image", "person_mask") if key in batch}
          mask, overlap = jax.device_get(
              predict(run.params, run.batch_stats, sharding.put_batch(inputs, sharding.over_batch(mesh))))
          if overlap:
            overlaps[split].append(np.stack(overlap)[:, batch["valid"]])
          yield from mask[batch["valid"]]
          bar.update(int(batch["valid"].sum()))

    info = {"run": str(workdir), "model": run.config.model.name, "step": run.step, "input": list(spec.full_size)}
    folder = annotations.write(prepared.path, name, {split: predicted(split) for split in counts}, counts=counts,
                               info=info, overwrite=overwrite)
  figures = {split: metrics.overlap_metrics(*np.concatenate(pixels, axis=1))["mask_IoU"]
             for split, pixels in overlaps.items() if pixels}
  return folder, figures


def _make_mask_step(run: evaluate.Run) -> Callable[..., Any]:
  """(params, batch_stats, batch) -> (mask uint8 [B, h, w], its `mask_overlap` with `person_mask` where there is one)."""
  explain = steps.make_explain_step(run.model, run.config)
  if "mask" not in evaluate.outputs(run, run.config.input.full_size):
    raise InputError(f"the model {run.config.model.name!r} predicts no person masks; annotate with a person_segmenter or a dahar run")

  def mask_step(params: Any, batch_stats: Any, batch: steps.Batch) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mask = explain(params, batch_stats, batch["image"])["mask"]
    overlap = masks.mask_overlap(mask, batch["person_mask"]) if "person_mask" in batch else ()
    return jnp.round(255 * mask).astype(jnp.uint8), overlap

  return mask_step
