"""A trained model as one pure function from pixels to probabilities: what exports hold.

Needs neither checkpoints nor data, so that it also runs where those libraries are missing (`attr_jax.onnx_conversion`).
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from flax import traverse_util
import jax
import ml_collections
import numpy as np

from attr_jax import models
from attr_jax import steps
from attr_jax.nn import folding

Weights = Mapping[str, Any]
Program = Callable[[Weights, jax.Array], jax.Array]


def in_float32(config: ml_collections.ConfigDict, num_labels: int) -> tuple[Any, ml_collections.ConfigDict]:
  """(model, config) of a run, computing in float32 whatever it was trained in."""
  config = ml_collections.ConfigDict(config.to_dict())
  config.compute_dtype = "float32"
  return models.build(config.model, num_labels, config.compute_dtype), config


def make(model: Any, config: ml_collections.ConfigDict, params: Any, batch_stats: Any) -> tuple[dict[str, np.ndarray], Program]:
  """The weights, batch norm folded into them (`nn.folding`), and what is computed with them.

  Matrix products are asked for in full float32: left alone, GPUs round their factors to TF32 and TPUs to bfloat16.

  Args:
    model: of `in_float32`.
    config: likewise.
    params: float32 parameters.
    batch_stats: float32 BN statistics.

  Returns:
    weights: {"params/backbone/stem/conv/kernel": float32 array, ...}, only those that are used.
    program: `(weights, image) -> probability`, uint8 [N, *config.input.full_size, 3] to float32 [N, L]; pure.

  Raises:
    InputError: the model needs more than images.
  """
  step = steps.make_predict_step(model, config)
  plan = folding.find(step, params, batch_stats, {"image": jax.ShapeDtypeStruct((2, *config.input.full_size, 3), np.uint8)})
  params, batch_stats = jax.jit(functools.partial(folding.fold, plan))(params, batch_stats)
  folded_step = folding.without_norms(plan, step)
  weights = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats}, sep="/")
  for pair in plan.pairs:  # of a folded batch norm only the bias is left
    norm = "/".join(pair.norm)
    for name in (f"params/{norm}/scale", f"batch_stats/{norm}/mean", f"batch_stats/{norm}/var"):
      del weights[name]

  def program(weights: Weights, image: jax.Array) -> jax.Array:
    variables = {"batch_stats": {}} | traverse_util.unflatten_dict(dict(weights), sep="/")
    with jax.default_matmul_precision("float32"):
      rows = folded_step(variables["params"], variables["batch_stats"], {"image": image})
      return jax.nn.sigmoid(rows["logit"])

  return {name: np.asarray(value) for name, value in weights.items()}, program
