"""Convolutions and their gradients against XLA's own ones in float32 and a loop in float64."""

import functools

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.nn import convolution


def draw(*shapes, dtype=np.float32):
  rng = np.random.default_rng(3)
  return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def plain(x, kernel, stride, padding):
  return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def slow_kernel_gradient(x, dy, size, stride, padding):
  x = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  result = np.zeros((size, size, x.shape[-1], dy.shape[-1]))
  for row in range(dy.shape[1]):
    for column in range(dy.shape[2]):
      window = x[:, row * stride:row * stride + size, column * stride:column * stride + size]
      result += np.einsum("bijc,bo->ijco", window, dy[:, row, column].astype(np.float64))
  return result


# Below 128 channels the kernel's gradient is XLA's own.
@pytest.mark.parametrize("channels", [(8, 16), (128, 136)])
@pytest.mark.parametrize("size, stride, padding, shape", [
    (3, 1, 1, (2, 7, 5)), (3, 2, 1, (2, 8, 9)), (3, 2, 1, (1, 7, 7)), (5, 2, 0, (2, 9, 9)), (3, 1, 0, (2, 5, 6)), (7, 2, 3, (1, 12, 9))])
def test_a_convolution_and_its_gradients(channels, size, stride, padding, shape):
  x, kernel = draw((*shape, channels[0]), (size, size, *channels))
  ours, pullback = jax.vjp(jax.jit(functools.partial(convolution.conv, stride=stride, padding=padding)), x, kernel)
  theirs, expected = jax.vjp(lambda x, kernel: plain(x, kernel, stride, padding), x, kernel)
  np.testing.assert_array_equal(ours, theirs)
  dy, = draw(ours.shape)
  (dx, dk), (dx_expected, _) = pullback(dy), expected(dy)
  np.testing.assert_allclose(dx, dx_expected, rtol=1e-5, atol=1e-4)
  np.testing.assert_allclose(dk, slow_kernel_gradient(x, dy, size, stride, padding), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (7, 6)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_product_over_channels_and_its_gradients(shape, dtype):
  x, kernel = (jnp.asarray(value, dtype) for value in draw(shape, (6, 8)))
  dy, = draw((*shape[:-1], 8))
  ours, pullback = jax.vjp(jax.jit(convolution.dot), x, kernel)
  assert ours.dtype == dtype
  dx, dk = pullback(jnp.asarray(dy, dtype))
  assert (dx.dtype, dk.dtype) == (dtype, dtype)
  tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == jnp.float32 else {"rtol": 2e-2, "atol": 5e-2}
  wide = lambda value: np.asarray(value, np.float64)
  dy = wide(jnp.asarray(dy, dtype))
  np.testing.assert_allclose(wide(ours), wide(x) @ wide(kernel), **tolerance)
  np.testing.assert_allclose(wide(dx), dy @ wide(kernel).T, **tolerance)
  rows = lambda value: value.reshape(-1, value.shape[-1])
  np.testing.assert_allclose(wide(dk), rows(wide(x)).T @ rows(dy), **tolerance)


def test_a_dense_layer_takes_it():
  x, = draw((2, 3, 3, 6))
  layers = [nn.Dense(4, dot_general=given) for given in (convolution.dot_general, lax.dot_general)]
  variables = layers[0].init(jax.random.key(0), x)
  losses = [lambda v, layer=layer: (layer.apply(v, x)**2).sum() for layer in layers]
  (one, gradient), (other, expected) = (jax.value_and_grad(loss)(variables) for loss in losses)
  np.testing.assert_allclose(one, other, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), gradient, expected)
  with pytest.raises(ValueError, match=r"expected x \[..., I\] and a kernel \[I, O\]"):
    convolution.dot_general(x, variables["params"]["kernel"], (((0,), (0,)), ((), ())))


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_summed_over_devices(stride):
  """A kernel that is whole on every device, and images that are split."""
  x, kernel, small = draw((4, 6, 6, 128), (3, 3, 128, 128), (128, 8))

  def loss(kernels, x):
    return (convolution.dot(convolution.conv(x, kernels[0], stride, 1), kernels[1])**2).sum()

  mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  split = jax.shard_map(lambda kernels, x: jax.grad(lambda k: lax.psum(loss(k, x), "data"))(kernels), mesh=mesh,
                        in_specs=(jax.P(), jax.P("data")), out_specs=jax.P())
  for ours, expected in zip(jax.jit(split)((kernel, small), x), jax.grad(loss)((kernel, small), x)):
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_cotangents_are_not_written_in_another_order_on_a_cpu():
  """What made training of ResNets slow there: a transposed copy of each cotangent before the product that gives the kernel's gradient."""
  x, kernel, weight = draw((2, 8, 8, 32), (32, 64), (2, 8, 8, 64))
  loss = lambda dot, x, kernel: (nn.relu(dot(nn.relu(x), kernel) * weight)**2).sum()
  text = {dot: jax.jit(jax.grad(functools.partial(loss, dot), (0, 1))).lower(x, kernel).compile().as_text()
          for dot in (convolution.dot, jnp.dot)}
  assert " transpose(" in text[jnp.dot] and " transpose(" not in text[convolution.dot]
