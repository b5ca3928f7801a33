"""Batch norm, alone or with the ReLU behind it, with a backward pass that reads its input twice.

Ioffe and Szegedy, "Batch Normalization", ICML 2015. Parameters, statistics and values are those of `flax.linen.BatchNorm`.
Only the gradient is written out: one pass takes both sums, one writes the result, the mask of the ReLU is computed again
instead of kept. Automatic differentiation keeps more tensors and passes over them more often.
"""

import functools
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from attr_jax.nn import manual

Array = jax.Array


class BatchNorm(nn.Module):
  """Normalises over all axes but the last.

  Attributes:
    use_running_average: take the stored statistics (evaluation) instead of those of the batch (training).
    relu: apply max(y, 0).
    momentum: share of the old statistics kept per step (torch's 0.1 is 0.9 here).
    epsilon: added to the variance.
    dtype: of the result; statistics and arithmetic are float32.
    axis_name: mesh axis inside shard_map over which statistics are shared; None: not at all.
    scale_init: of the scale.
  """

  use_running_average: bool
  relu: bool = False
  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = jnp.float32
  axis_name: str | None = None
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """x [..., C] -> the same shape, of `dtype`; training updates "batch_stats", which must be mutable then."""
    channels = x.shape[-1:]
    mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(channels, jnp.float32))
    var = self.variable("batch_stats", "var", lambda: jnp.ones(channels, jnp.float32))
    scale = self.param("scale", self.scale_init, channels, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
    if self.use_running_average:
      return _apply(x, mean.value, lax.rsqrt(var.value + self.epsilon) * scale, bias, self.relu, self.dtype)
    # While parameters are made there is no mesh.
    axis = None if self.is_initializing() else self.axis_name
    scale, bias = manual.vary_like((scale, bias), x)
    y, batch_mean, batch_var = _normalize(x, scale, bias, self.epsilon, self.relu, jnp.dtype(self.dtype), axis)
    if not self.is_initializing():
      mean.value = self.momentum * mean.value + (1 - self.momentum) * lax.stop_gradient(batch_mean)
      var.value = self.momentum * var.value + (1 - self.momentum) * lax.stop_gradient(batch_var)
    return y


def _row(values: Array, like: Array) -> Array:
  return values.reshape((1,) * (like.ndim - 1) + (-1,))


def _apply(x: Array, mean: Array, factor: Array, bias: Array, relu: bool, dtype: Any) -> Array:
  y = (x - _row(mean, x)) * _row(factor, x) + _row(bias, x)
  return (nn.relu(y) if relu else y).astype(dtype)


def _mean(values: tuple[Array, Array], axis: str | None) -> tuple[Array, Array]:
  return lax.pmean(values, axis) if axis else values


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _normalize(x: Array, scale: Array, bias: Array, epsilon: float, relu: bool, dtype: Any, axis: str | None) -> tuple[Array, Array, Array]:
  """Returns (y, mean [C], variance [C]) of a batch; the gradients of the last two are not computed."""
  return _forward(x, scale, bias, epsilon, relu, dtype, axis)[0]


def _forward(x, scale, bias, epsilon, relu, dtype, axis):
  wide, over = x.astype(jnp.float32), tuple(range(x.ndim - 1))
  mean, square = _mean((wide.mean(over), (wide * wide).mean(over)), axis)
  var = jnp.maximum(square - mean * mean, 0)
  inverse = lax.rsqrt(var + epsilon)
  y = _apply(wide, mean, inverse * scale, bias, relu, dtype)
  return (y, mean, var), (x, mean, inverse, scale, bias)


def _backward(epsilon, relu, dtype, axis, residuals, cotangents):
  del epsilon
  x, mean, inverse, scale, bias = residuals
  dy, over = cotangents[0].astype(jnp.float32), tuple(range(x.ndim - 1))
  wide, factor = x.astype(jnp.float32), inverse * scale
  if relu:
    dy = jnp.where(_apply(wide, mean, factor, bias, False, dtype) > 0, dy, 0)
  # x is not centred before the sum, which would cost a pass on CPUs: where rounding matters here it has spoilt the variance before.
  sum_dy, sum_x_dy = dy.sum(over), (dy * wide).sum(over)
  d_scale = inverse * (sum_x_dy - mean * sum_dy)
  # Of all images that share the statistics.
  count = x.size // x.shape[-1]
  mean_dy, mean_hat = _mean((sum_dy / count, d_scale / count), axis)
  dx = _row(factor, x) * (dy - _row(mean_dy, x) - (wide - _row(mean, x)) * _row(inverse * mean_hat, x))
  return dx.astype(x.dtype), d_scale, sum_dy


_normalize.defvjp(_forward, _backward)
