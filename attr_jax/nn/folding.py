"""Batch norm of a trained network, folded into the convolutions before it.

In evaluation batch norm is y = s (x - m) + b with s = scale / sqrt(variance + epsilon) for each channel. Where x is the
output of a convolution or Dense layer, kernel * s in its place leaves only x + b - s m (Ioffe and Szegedy, "Batch
Normalization", ICML 2015, Sec. 3.1; Jacob et al., CVPR 2018, Sec. 3.2). Which layers belong together is read off a
traced call: a batch norm is folded when what it gets is what a layer gave, whatever the two are called. Our choice.

  plan = folding.find(predict_step, params, batch_stats, batch)
  params, batch_stats = folding.fold(plan, params, batch_stats)
  predict_step = folding.without_norms(plan, predict_step)

No model needs to know of it. It holds for a convolution whose output goes into its batch norm and nowhere else, as in all of
ours; `tests/nn/test_folding.py` compares everything that the models give.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp

from attr_jax.nn import resnet
from attr_jax.nn.norm import BatchNorm

# Layers whose output is linear in all their parameters, which end in the axis of channels.
LAYERS = (nn.Conv, nn.Dense, resnet.Conv)

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Pair:
  """A batch norm that can be folded.

  Attributes:
    layer: path of the convolution or Dense layer in the parameters.
    norm: path of the batch norm.
    epsilon: of the batch norm.
    dtype: in which the layer computes; None: that of its parameters.
  """

  layer: Path
  norm: Path
  epsilon: float
  dtype: Any


@dataclasses.dataclass(frozen=True)
class Plan:
  """What can be folded, and the paths of the batch norms that stay as they are: those after no layer, or shared ones."""

  pairs: tuple[Pair, ...]
  left: tuple[Path, ...]


def find(function: Callable[..., Any], *args: Any) -> Plan:
  """The batch norms of a network, by an abstract call: nothing is computed.

  Args:
    function: applies one model, in evaluation, such as `steps.make_predict_step` makes it.
    *args: its arguments, arrays or `jax.ShapeDtypeStruct`.

  Returns:
    What can be folded, for `fold` and `without_norms`.
  """
  calls: dict[Path, int] = {}
  sources: dict[int, tuple[nn.Module, Any]] = {}  # of each layer's output; the output is kept, so that its id stays its own
  found: dict[Path, Pair | None] = {}

  def watch(call, call_args, call_kwargs, context):
    result, module = call(*call_args, **call_kwargs), context.module
    if context.method_name != "__call__" or not isinstance(module, (*LAYERS, BatchNorm)):
      return result
    calls[module.path] = calls.get(module.path, 0) + 1
    if isinstance(module, LAYERS):
      sources[id(result)] = (module, result)
      return result
    layer = sources.get(id(call_args[0]), (None,))[0]
    foldable = layer is not None and module.use_running_average
    found[module.path] = Pair(layer.path, module.path, module.epsilon, layer.dtype) if foldable else None
    return result

  with nn.intercept_methods(watch):
    # As a new function, so that no earlier trace of the same one is taken instead.
    jax.eval_shape(lambda *given: function(*given), *args)
  pairs = tuple(pair for pair in found.values() if pair and calls[pair.layer] == calls[pair.norm] == 1)
  folded = {pair.norm for pair in pairs}
  return Plan(pairs, tuple(path for path in found if path not in folded))


def fold(plan: Plan, params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Parameters and statistics with every pair of the plan folded, in trees of the same structure.

  The layer has s times its parameters, in the type that it computes in; the batch norm has bias b - s m, scale 1, mean 0
  and variance 1 - epsilon, so that the model as it is gives the same with them. Pure; may be jitted.

  Args:
    plan: of `find`.
    params: float32, each layer's kernel [..., O] and bias [O], each batch norm's scale and bias [O].
    batch_stats: float32, each batch norm's mean and var [O].
  """
  params, stats = traverse_util.flatten_dict(params), traverse_util.flatten_dict(batch_stats)
  for pair in plan.pairs:
    norm = lambda name: (*pair.norm, name)
    scale = params[norm("scale")] / jnp.sqrt(stats[norm("var")] + pair.epsilon)
    for key in [key for key in params if key[:-1] == pair.layer]:
      value = params[key] * scale.reshape((1,) * (params[key].ndim - 1) + (-1,))
      params[key] = value.astype(pair.dtype or value.dtype)
    params[norm("bias")] = params[norm("bias")] - scale * stats[norm("mean")]
    params[norm("scale")] = jnp.ones_like(scale)
    stats[norm("mean")] = jnp.zeros_like(scale)
    stats[norm("var")] = jnp.full_like(scale, 1 - pair.epsilon)
  return traverse_util.unflatten_dict(params), traverse_util.unflatten_dict(stats)


def without_norms(plan: Plan, function: Callable[..., Any]) -> Callable[..., Any]:
  """`function`, in whose folded batch norms only the addition of the bias (and the ReLU) is left; for the parameters that `fold` gives."""
  folded = {pair.norm for pair in plan.pairs}

  def skip(call, args, kwargs, context):
    module = context.module
    if not isinstance(module, BatchNorm) or context.method_name != "__call__" or module.path not in folded:
      return call(*args, **kwargs)
    x = args[0]
    bias = module.get_variable("params", "bias").astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    y = (x + bias).astype(module.dtype)
    return nn.relu(y) if module.relu else y

  def folded_function(*args: Any) -> Any:
    with nn.intercept_methods(skip):
      return function(*args)

  return folded_function
