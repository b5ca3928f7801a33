"""A trained run as one file that others can read."""

import json
import pathlib

import jax
import numpy as np

from attr_jax import evaluate
from attr_jax import sharding
from attr_jax import weights


def to_safetensors(workdir: pathlib.Path, out: pathlib.Path, checkpoint: str = "best") -> int:
  """Writes parameters and BN statistics, with all that is needed to use them.

  Names are ours (`params/backbone/...`, `batch_stats/...`). The file's metadata
  holds label names, preprocessing, config, step and the licence of the data.

  Returns:
    The number of tensors written.
  """
  mesh = sharding.make_mesh()
  run = evaluate.load_run(workdir, mesh, checkpoint)
  preprocessing = {key: run.config.input[key] for key in ("full_size", "mean", "std")}
  metadata = {
      "label_names": json.dumps(run.info.label_names),
      "threshold": "0.5",
      "preprocessing": json.dumps(preprocessing),
      "config": (workdir / "config.json").read_text(),
      "step": str(run.step),
      "licence": run.info.licence,
  }
  params, batch_stats = sharding.to_host(run.params), sharding.to_host(run.batch_stats)
  weights.save_safetensors(out, params, batch_stats, metadata)
  saved_params, saved_stats, _ = weights.load_safetensors(out)
  # An export that differs from the model must not pass silently.
  jax.tree.map(np.testing.assert_array_equal, (params, batch_stats), (saved_params, saved_stats))
  return len(jax.tree.leaves((params, batch_stats)))
