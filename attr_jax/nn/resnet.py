"""ResNet trunks in the torchvision "v1.5" layout (stride in the 3x3), NHWC.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. Names,
padding, batch-norm rule and initialisation follow torchvision, so that its
weights load without any change of value (`attr_jax.weights`). Differences are
in the arithmetic only: 1x1 convolutions are matrix products over the channel
axis, which XLA fuses and tunes better than a convolution call.
"""

import functools
from typing import Any, Sequence

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _taps(x: Array, size: int, stride: int, padding: int) -> list[Array]:
  """The size*size shifted views of x [B,H,W,C] that a convolution reads, row by row."""
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
  return [
    x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
    for i in range(size)
    for j in range(size)
  ]


def _conv_im2col(x, kernel, stride, padding):
  size, _, channels, features = kernel.shape
  taps = jnp.concatenate(_taps(x, size, stride, padding), axis=-1)
  return jnp.dot(taps, kernel.reshape(size * size * channels, features))


def _conv_sum(x, kernel, stride, padding):
  size, _, channels, features = kernel.shape
  k = kernel.reshape(size * size, channels, features)
  return sum(jnp.dot(t, k[i]) for i, t in enumerate(_taps(x, size, stride, padding)))


def _conv_lax(x, kernel, stride, padding):
  return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"))

@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_custom(x, kernel, stride, padding):
  return _conv_lax(x, kernel, stride, padding)

def _fwd(x, kernel, stride, padding):
  return _conv_lax(x, kernel, stride, padding), (x, kernel)

def _dx(x, kernel, g, stride, padding):
  size = kernel.shape[0]
  if stride > 1:
    b, h, w, c = g.shape
    # zero-insert, so that the input gradient is a plain forward convolution
    g = lax.pad(g, jnp.zeros((), g.dtype), ((0,0,0),(0,0,stride-1),(0,0,stride-1),(0,0,0)))
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  pads = [(size - 1 - padding, n - m + padding) for n, m in zip(x.shape[1:3], g.shape[1:3])]
  return lax.conv_general_dilated(g, flipped, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

def _bwd(stride, padding, res, g):
  x, kernel = res
  size, _, channels, features = kernel.shape
  taps = jnp.concatenate(_taps(x, size, stride, padding), axis=-1)
  dk = lax.dot_general(taps, g, (((0,1,2),(0,1,2)),((),()))).reshape(kernel.shape)
  return _dx(x, kernel, g, stride, padding), dk
_conv_custom.defvjp(_fwd, _bwd)

@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_custom2(x, kernel, stride, padding):
  return _conv_lax(x, kernel, stride, padding)
def _bwd2(stride, padding, res, g):
  x, kernel = res
  size, _, channels, features = kernel.shape
  dk = jnp.stack([lax.dot_general(t, g, (((0,1,2),(0,1,2)),((),()))) for t in _taps(x, size, stride, padding)]).reshape(kernel.shape)
  return _dx(x, kernel, g, stride, padding), dk
_conv_custom2.defvjp(_fwd, _bwd2)

@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_custom3(x, kernel, stride, padding):
  return _conv_im2col(x, kernel, stride, padding)
def _fwd3(x, kernel, stride, padding):
  return _conv_im2col(x, kernel, stride, padding), (x, kernel)
def _bwd3(stride, padding, res, g):
  x, kernel = res
  size, _, channels, features = kernel.shape
  taps = jnp.concatenate(_taps(x, size, stride, padding), axis=-1)
  dk = lax.dot_general(taps, g, (((0,1,2),(0,1,2)),((),()))).reshape(kernel.shape)
  if stride > 1:
    g = lax.pad(g, jnp.zeros((), g.dtype), ((0,0,0),(0,0,stride-1),(0,0,stride-1),(0,0,0)))
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  pads = [(size - 1 - padding, n - m + padding) for n, m in zip(x.shape[1:3], g.shape[1:3])]
  gp = jnp.pad(g, ((0,0), pads[0], pads[1], (0,0)))
  return _conv_im2col(gp, flipped, 1, 0), dk
_conv_custom3.defvjp(_fwd3, _bwd3)

CONV = dict(conv=_conv_lax, im2col=_conv_im2col, sum=_conv_sum, custom=_conv_custom, custom2=_conv_custom2, custom3=_conv_custom3)
