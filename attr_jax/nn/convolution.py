"""Convolutions whose gradients are fast on every backend.

XLA's own gradients of a convolution are good on GPUs and TPUs. On CPUs it first writes the cotangent of a 1x1
convolution in another order, value by value, and takes three times as long for the kernel's gradient of a 3x3 one as
for the forward pass. There the same sums are taken as plain matrix products. Values differ by rounding only.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

from attr_jax.nn import manual

Array = jax.Array

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def dot_general(x: Array, kernel: Array, dimension_numbers: lax.DotDimensionNumbers, precision: lax.PrecisionLike = None,
                **options) -> Array:
  """`lax.dot_general` of the last axis of x [..., I] with the first of a kernel [I, O], for `nn.Dense(dot_general=...)`.

  Raises:
    ValueError: any other contraction.
  """
  if dimension_numbers != (((x.ndim - 1,), (0,)), ((), ())) or kernel.ndim != 2:
    raise ValueError(f"expected x [..., I] and a kernel [I, O], got {dimension_numbers} of {x.shape} and {kernel.shape}")
  return _dot(x, manual.vary_like(kernel, x), precision, options.get("preferred_element_type"))


def dot(x: Array, kernel: Array) -> Array:
  """x [..., I] times a kernel [I, O] of the same dtype, [..., O] of that dtype: a 1x1 convolution."""
  return _dot(x, manual.vary_like(kernel, x), None, None)


def conv(x: Array, kernel: Array, stride: int = 1, padding: int = 0) -> Array:
  """Two-dimensional convolution, torch padding.

  Args:
    x: float [B, H, W, I].
    kernel: [h, w, I, O] of the same dtype.
    stride: of both axes, in cells.
    padding: rows or columns of zeros on each of the four sides.

  Returns:
    [B, (H + 2 padding - h) // stride + 1, likewise, O] of that dtype.
  """
  return _conv(x, manual.vary_like(kernel, x), stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dot(x: Array, kernel: Array, precision: lax.PrecisionLike, dtype) -> Array:
  return jnp.dot(x, kernel, precision=precision, preferred_element_type=dtype)


def _dot_forward(x, kernel, precision, dtype):
  return _dot(x, kernel, precision, dtype), (x, kernel)


def _dot_backward(precision, dtype, residuals, dy):
  del dtype
  x, kernel = residuals
  dx = lax.dot_general(dy, kernel, (((dy.ndim - 1,), (1,)), ((), ())), precision=precision).astype(x.dtype)

  def product(x: Array, dy: Array) -> Array:
    rows = tuple(range(x.ndim - 1))
    return lax.dot_general(x, dy, ((rows, rows), ((), ())), precision=precision)

  def flat_product(x: Array, dy: Array) -> Array:
    return product(x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1]))

  return dx, lax.platform_dependent(x, dy, cpu=flat_product, default=product).astype(kernel.dtype)


_dot.defvjp(_dot_forward, _dot_backward)


def _plain(x: Array, kernel: Array, stride: int, padding: int) -> Array:
  return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=_LAYOUT)


_conv = jax.custom_vjp(_plain, nondiff_argnums=(2, 3))


def _conv_forward(x, kernel, stride, padding):
  return _plain(x, kernel, stride, padding), (x, kernel)


def _conv_backward(stride, padding, residuals, dy):
  x, kernel = residuals
  dx, = jax.vjp(lambda x: _plain(x, kernel, stride, padding), x)[1](dy)

  def transposed(x: Array, dy: Array) -> Array:
    return jax.vjp(lambda kernel: _plain(x, kernel, stride, padding), kernel)[1](dy)[0]

  def by_taps(x: Array, dy: Array) -> Array:
    """One product of matrices for each place in the kernel."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = dy.shape[1:3]
    dy = dy.reshape(-1, dy.shape[-1])

    def tap(i: int, j: int) -> Array:
      seen = x[:, i:i + (rows - 1) * stride + 1:stride, j:j + (columns - 1) * stride + 1:stride]
      return lax.dot_general(seen.reshape(-1, x.shape[-1]), dy, (((0,), (0,)), ((), ())))

    height, width = kernel.shape[:2]
    return jnp.stack([tap(i, j) for i in range(height) for j in range(width)]).reshape(kernel.shape)

  # A few channels (the stem) or a large map make small products of long rows, which are slower.
  few = min(kernel.shape[2:]) < 128
  return dx, transposed(x, dy) if few else lax.platform_dependent(x, dy, cpu=by_taps, default=transposed)


_conv.defvjp(_conv_forward, _conv_backward)
