"""Masks predicted by a run, written beside a prepared data set: persons, or the regions of a face."""

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
from attr_jax import sharding
from attr_jax import steps
from attr_jax.data import annotations
from attr_jax.data import pipeline
from attr_jax.data import registry
from attr_jax.errors import InputError

# Output of a model -> what training reads it as.
MAPS = {"mask": "person_mask", "regions": "regions", "regions_fine": "regions"}


def annotate(workdir: pathlib.Path, dataset: str, data_dir: str | pathlib.Path, *, size: str | None = None,
             partition: int | None = None, margin: float = 0.0, maps: str | None = None, name: str | None = None, checkpoint: str = "best",
             overwrite: bool = False, progress: bool = True) -> tuple[pathlib.Path, dict[str, dict[str, float]]]:
  """Predicts the mask of every sample of every split and stores it with the records.

  Training reads them where `config.data.annotation` names them: `mask` as `person_mask`, in place of the data set's
  own, `regions` and `regions_fine` as the `regions` that a face model otherwise asks its frozen parser for. They keep
  the size that the model predicts (56x56 for a segmenter at 224x224), as probability x 255.

  Args:
    workdir: the run of a model with such an output: a person segmenter, Da-HAR, or a face parser.
    dataset: a key of `DATASETS`.
    data_dir: where its prepared form lies.
    size: prepared size in pixels, such as "256x128" (height first), where there are several.
    partition: number from 1, for a data set that comes with several splits; None: the first.
    margin: what `prepare` left around each box, as a share of its sides.
    maps: which output, a key of `MAPS`; None takes the first one that the model has.
    name: of the annotation; None: "person_mask" for `mask`, else the name of the output.
    checkpoint: "best", "last" or a step.
    overwrite: replace an annotation of that name.
    progress: show a bar.

  Returns:
    (folder of the annotation, split -> metrics against the data set's own masks where it has any).

  Raises:
    InputError: no such run or data, a model without such masks, or the annotation exists.
  """
  mesh = sharding.make_mesh()
  run = evaluate.load_run(workdir, mesh, checkpoint)
  prepared = registry.open_dataset(dataset, data_dir, size, partition, margin)
  spec = dataclasses.replace(evaluate.input_spec(run.config), masks=True)
  counts = prepared.info.splits
  maps = _choose(run, prepared.source(next(iter(counts))), spec, maps)
  name = name or ("person_mask" if maps == "mask" else maps)
  predict = steps.compile_predict_step(_make_map_step(run, maps), mesh)
  measured: dict[str, list[dict[str, np.ndarray]]] = {split: [] for split in counts}

  with tqdm.tqdm(total=sum(counts.values()), desc=f"{dataset} masks", unit="img", ncols=80, disable=not progress) as bar:
    def predicted(split: str) -> Iterator[np.ndarray]:
      batches = pipeline.eval_dataset(prepared.source(split), spec, batch_size=run.config.evaluate.batch_size)
      with contextlib.closing(pipeline.eval_iterator(batches, run.config.input.threads)) as iterator:
        for batch in iterator:
          inputs = {key: batch[key] for key in evaluate.INPUTS if key in batch}
          masks, rows = jax.device_get(
              predict(run.params, run.batch_stats, sharding.put_batch(inputs, sharding.over_batch(mesh))))
          measured[split].append({key: row[batch["valid"]] for key, row in rows.items()})
          yield from masks[batch["valid"]]
          bar.update(int(batch["valid"].sum()))

    info = {"run": str(workdir), "model": run.config.model.name, "step": run.step, "input": list(spec.full_size or spec.resize)}
    folder = annotations.write(prepared.path, name, {split: predicted(split) for split in counts}, counts=counts, info=info,
                               key=MAPS[maps], overwrite=overwrite)
  figures = {split: evaluate.measure({key: np.concatenate([row[key] for row in rows]) for key in rows[0]}, ())["metrics"]
             for split, rows in measured.items() if rows}
  return folder, {split: figure for split, figure in figures.items() if figure}


def _choose(run: evaluate.Run, source: registry.RecordSource, spec: pipeline.InputSpec, maps: str | None) -> str:
  """The output to write."""
  there = [key for key in MAPS if key in evaluate.outputs(run, evaluate.one(source, spec))]
  if not there:
    raise InputError(f"the model {run.config.model.name!r} predicts no masks; annotate with a person_segmenter, a dahar or a face parser run")
  if maps and maps not in there:
    raise InputError(f"--maps={maps}: the model {run.config.model.name!r} has {', '.join(there)}")
  return maps or there[0]


def _make_map_step(run: evaluate.Run, maps: str) -> Callable[..., Any]:
  """(params, batch_stats, batch) -> (maps uint8 [B, h, w] or [B, h, w, R], rows of `steps.make_predict_step`)."""
  explain = steps.make_explain_step(run.model, run.config)
  predict = steps.make_predict_step(run.model, run.config)

  def map_step(params: Any, batch_stats: Any, batch: steps.Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    # Two calls of one network: the compiler leaves one of them.
    predicted = explain(params, batch_stats, batch)[maps]
    return jnp.round(255 * predicted).astype(jnp.uint8), predict(params, batch_stats, batch)

  return map_step
