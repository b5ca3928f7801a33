"""Losses against float64 numpy and torch, at the ends of float32, and by property."""

import functools

import jax
from jax import numpy as jnp
import numpy as np
import pytest

from attr_jax import losses

EXTREME = np.array([-1e4, -1e2, -30.0, -1.0, 0.0, 1.0, 30.0, 1e2, 1e4], np.float32)
RATIO = np.array([0.5669, 0.2244, 0.0502, 0.4647, 0.0])

WEIGHTS = {
    "exp_ratio": losses.exp_ratio_weights,
    "inverse_ratio": losses.inverse_ratio_weights,
    "mixed": losses.mixed_weights,
    "exp_prior": losses.exp_prior_weights,
    "deepmar_ratio": losses.deepmar_ratio_weights,
    "neg_over_pos": losses.neg_over_pos_weights,
    "capped_positive": losses.capped_positive_weights,
}


def batch(seed=0, b=6, l=5, scale=3.0):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(b, l)).astype(np.float32) * np.float32(scale)
  return logits, (rng.random((b, l)) < 0.4).astype(np.uint8)


def numpy_focal(logits, label, gamma, positive=1.0, negative=1.0):
  """With probabilities, in float64; good for moderate logits."""
  s = 1 / (1 + np.exp(-logits.astype(np.float64)))
  return np.where(label == 1, -positive * (1 - s) ** gamma * np.log(s),
                  -negative * s ** gamma * np.log(1 - s))


def close(a, b, rtol=2e-6, atol=1e-7):
  assert a.dtype == jnp.float32
  np.testing.assert_allclose(np.asarray(a), b, rtol=rtol, atol=atol)


# Values.


@pytest.mark.parametrize("name", [None, *WEIGHTS])
@pytest.mark.parametrize("gamma", [None, 0.0, 0.5, 2.0])
def test_values_are_those_of_float64_numpy(gamma, name):
  logits, label = batch()
  positive, negative = (1.0, 1.0) if name is None else WEIGHTS[name](RATIO)
  weights = dict(positive_weight=positive, negative_weight=negative)
  if gamma is None:
    result = losses.binary_cross_entropy(logits, label, **weights)
  else:
    result = losses.weighted_focal_loss(logits, label, gamma=gamma, **weights)
  assert result.shape == logits.shape
  expected = numpy_focal(logits, label, gamma or 0.0, np.asarray(positive), np.asarray(negative))
  close(result, expected, rtol=1e-5)


def test_values_and_gradients_are_those_of_torch():
  torch = pytest.importorskip("torch")
  logits, label = batch(1)
  weight = np.linspace(0.5, 3, 5).astype(np.float32)
  z = torch.tensor(logits, requires_grad=True)
  expected = torch.nn.functional.binary_cross_entropy_with_logits(
      z, torch.tensor(label, dtype=torch.float32), pos_weight=torch.tensor(weight), reduction="none")
  expected.sum(dim=1).mean().backward()

  def total(x):
    return losses.reduce_loss(losses.binary_cross_entropy(x, label, positive_weight=weight))

  close(losses.binary_cross_entropy(logits, label, positive_weight=weight),
        expected.detach().numpy(), atol=1e-6)
  close(jax.grad(total)(jnp.asarray(logits)), z.grad.numpy(), rtol=1e-5)

  classes = torch.tensor([[0, 2], [1, 255]])
  maps = torch.tensor(np.random.default_rng(0).normal(size=(2, 2, 3)), dtype=torch.float32)
  expected = torch.nn.functional.cross_entropy(
      maps.permute(0, 2, 1), classes, reduction="none", ignore_index=255)
  close(losses.softmax_cross_entropy(maps.numpy(), classes.numpy()), expected.numpy())


def test_by_hand():
  zero = jnp.zeros((1, 2))
  np.testing.assert_allclose(
      losses.binary_cross_entropy(zero, jnp.array([[1, 0]]), positive_weight=3.0),
      [[3 * np.log(2), np.log(2)]], rtol=1e-6)
  # (1 - 1/2)^(1/2) log 2.
  np.testing.assert_allclose(
      losses.weighted_focal_loss(zero, jnp.array([[1, 0]])), np.log(2) / np.sqrt(2), rtol=1e-6)
  np.testing.assert_allclose(
      losses.softmax_cross_entropy(jnp.zeros((3, 7)), jnp.array([0, 3, 6])), np.log(7), rtol=1e-6)


def test_binary_cross_entropy_takes_soft_labels():
  logits, _ = batch(2)
  soft = np.random.default_rng(0).random(logits.shape)
  both = [losses.binary_cross_entropy(logits, np.full(logits.shape, y)) for y in (0, 1)]
  close(losses.binary_cross_entropy(logits, soft), (1 - soft) * both[0] + soft * both[1], rtol=1e-5)


def test_weights_may_be_per_cell():
  logits, label = batch(3)
  weight = np.random.default_rng(0).random(logits.shape).astype(np.float32)
  result = losses.binary_cross_entropy(logits, label, positive_weight=weight, negative_weight=weight)
  close(result, weight * np.asarray(losses.binary_cross_entropy(logits, label)))


# The ends of float32.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["bce", "focal 0.5", "focal 2", "softmax"])
def test_finite_value_and_gradient_for_huge_logits(name, dtype):
  logits = jnp.asarray(np.tile(EXTREME[:, None], (1, 2)), dtype)
  label = jnp.tile(jnp.array([[0, 1]]), (len(EXTREME), 1))
  weights = dict(positive_weight=50.0, negative_weight=50.0)
  loss = {
      "bce": lambda z: losses.binary_cross_entropy(z, label, **weights),
      "focal 0.5": lambda z: losses.weighted_focal_loss(z, label, **weights),
      "focal 2": lambda z: losses.weighted_focal_loss(z, label, gamma=2.0, **weights),
      "softmax": lambda z: losses.softmax_cross_entropy(
          z * jnp.array([[1, -1]], z.dtype), label[:, 1]),
  }[name]
  value, gradient = loss(logits), jax.grad(lambda z: loss(z).sum())(logits)
  assert value.dtype == jnp.float32 and gradient.dtype == logits.dtype
  assert np.isfinite(np.asarray(value)).all() and (np.asarray(value) >= 0).all()
  assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_right_and_wrong_at_the_ends():
  logits, label = jnp.array([[1e4, -1e4]]), jnp.array([[1, 1]])
  for loss in (losses.binary_cross_entropy, losses.weighted_focal_loss):
    np.testing.assert_array_equal(loss(logits, label), [[0, 1e4]])
    gradient = jax.grad(lambda z: loss(z, label).sum())(logits)
    np.testing.assert_array_equal(gradient, [[0, -1]])


def test_focal_gradient_is_that_of_the_difference_quotient():
  logits, label = batch(4)
  gradient = jax.grad(lambda z: losses.weighted_focal_loss(z, label).sum())(jnp.asarray(logits))
  step = 1e-5
  z = logits.astype(np.float64)
  expected = (numpy_focal(z + step, label, 0.5) - numpy_focal(z - step, label, 0.5)) / (2 * step)
  np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_bfloat16_logits_are_cast_up():
  logits, label = batch(5)
  low = jnp.asarray(logits, jnp.bfloat16)
  for loss in (losses.binary_cross_entropy, losses.weighted_focal_loss):
    np.testing.assert_array_equal(loss(low, label), loss(low.astype(jnp.float32), label))


# Weights.


def test_weights_by_hand():
  ratio = np.array([0.5, 0.1, 0.9, 0.0])
  pos, neg = losses.exp_ratio_weights(ratio)
  np.testing.assert_allclose(pos, np.exp([0.5, 0.9, 0.1, 1.0]), rtol=1e-6)
  np.testing.assert_allclose(neg, np.exp([0.5, 0.1, 0.9, 0.0]), rtol=1e-6)
  pos, neg = losses.inverse_ratio_weights(ratio)
  np.testing.assert_allclose(pos, [1, 5, 1 / 1.8, 50], rtol=1e-5)
  np.testing.assert_allclose(neg, [1, 1 / 1.8, 5, 1 / 1.98], rtol=1e-5)
  pos, neg = losses.exp_prior_weights(ratio)
  np.testing.assert_allclose(pos, np.exp([-0.5, -0.1, -0.9, 0]), rtol=1e-6)
  np.testing.assert_array_equal(pos, neg)
  # WIDER's Male is a majority: positives 1, negatives e; Sunglasses 2.58 and 1.06.
  pos, neg = losses.deepmar_ratio_weights([0.5669, 0.0514])
  np.testing.assert_allclose(pos, [1.0, 2.575], rtol=1e-3)
  np.testing.assert_allclose(neg, [2.718, 1.056], rtol=1e-3)
  # 100 positives and 900 negatives weigh 9.
  np.testing.assert_allclose(losses.neg_over_pos_weights([0.1, 0.6, 1.0])[0], [9, 1, 1], rtol=1e-5)
  pos, neg = losses.capped_positive_weights([0.2, 0.001, 0.0])
  np.testing.assert_allclose(pos, [4, 10, 1], rtol=1e-5)
  np.testing.assert_array_equal(neg, 1)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_pairs_of_finite_float32(name):
  ratio = np.array([0.0, 1e-6, 0.3, 1 - 1e-6, 1.0])
  inside = jax.jit(lambda: WEIGHTS[name](ratio))()  # a constant of a compiled step
  for weight, compiled in zip(WEIGHTS[name](ratio), inside):
    assert weight.shape == (5,) and weight.dtype == jnp.float32
    assert np.isfinite(weight).all() and (np.asarray(weight) > -1e-6).all()
    np.testing.assert_allclose(weight, compiled, rtol=1e-6)
  np.testing.assert_array_equal(jax.jit(WEIGHTS[name])(jnp.asarray(ratio))[0], inside[0])


def test_balanced_labels_make_inverse_and_mixed_weights_plain():
  logits, label = batch(6)
  plain = losses.binary_cross_entropy(logits, label)
  for make in (losses.inverse_ratio_weights, losses.mixed_weights):
    pos, neg = make(np.full(5, 0.5))
    np.testing.assert_array_equal(
        losses.binary_cross_entropy(logits, label, positive_weight=pos, negative_weight=neg), plain)


def test_mixed_loss_is_the_mean_of_both():
  logits, label = batch(7)
  both = [losses.binary_cross_entropy(logits, label, positive_weight=p, negative_weight=n)
          for p, n in ((None, None), losses.inverse_ratio_weights(RATIO))]
  pos, neg = losses.mixed_weights(RATIO)
  close(losses.binary_cross_entropy(logits, label, positive_weight=pos, negative_weight=neg),
        (np.asarray(both[0]) + np.asarray(both[1])) / 2)


# DIAA's history.


def slow_variance_weight(probabilities):
  n = len(probabilities)
  if n < 2:
    return 1.0
  mean = sum(probabilities) / n
  v = sum((p - mean) ** 2 for p in probabilities) / n
  return 1 + (v + v * v / (n - 1)) ** 0.5


@pytest.mark.parametrize("kind", ["rows", "cells", "count", "counts"])
def test_attention_variance_weights(kind):
  rng = np.random.default_rng(0)
  history = rng.random((5, 4, 3)).astype(np.float32)
  filled = {
      "rows": np.array([True, False, True, True, False]),
      "cells": rng.random((5, 4)) < 0.5,
      "count": np.int32(3),
      "counts": np.array([0, 1, 2, 5]),
  }[kind]
  which = {
      "rows": np.tile(filled.reshape(-1, 1), (1, 4)) if kind == "rows" else None,
      "cells": filled,
      "count": np.tile(np.arange(5)[:, None] < 3, (1, 4)),
      "counts": np.arange(5)[:, None] < np.array([[0, 1, 2, 5]]),
  }[kind]
  expected = [[slow_variance_weight([float(history[h, b, c]) for h in range(5) if which[h, b]])
               for c in range(3)] for b in range(4)]
  history[~which] = np.nan  # unfilled rows may hold anything
  result = losses.attention_variance_weights(history, filled)
  close(result, np.array(expected))
  few = which.sum(axis=0) < 2
  np.testing.assert_array_equal(np.asarray(result)[few], 1.0)


def test_variance_weights_are_one_without_variance_and_pass_no_gradient():
  history = jnp.full((5, 2, 3), 0.3)
  np.testing.assert_allclose(losses.attention_variance_weights(history, 5), 1, atol=1e-6)
  gradient = jax.grad(lambda h: losses.attention_variance_weights(h, 5).sum())(history)
  np.testing.assert_array_equal(gradient, 0)
  # 0 and 1 in turn: v = 1/4, 1 + sqrt(1/4 + 1/16).
  flips = jnp.array([0.0, 1.0]).reshape(2, 1, 1)
  close(losses.attention_variance_weights(flips, 2), 1 + np.sqrt(0.25 + 0.0625))


# VAC's consistency.


def test_attention_consistency():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 3, 7, 7, 5)).astype(np.float32)
  result = losses.attention_consistency(a, b)
  assert result.shape == (3, 5)
  close(losses.reduce_loss(result, reduction="mean"), np.mean((a - b) ** 2), rtol=1e-5)
  close(losses.attention_consistency(a, b, form="norm"),
        np.sqrt(((a - b) ** 2).sum(axis=(1, 2))) / 49, rtol=1e-5)
  np.testing.assert_array_equal(losses.attention_consistency(a, a), 0)
  # Flip there and back.
  flipped = a[:, :, ::-1]
  np.testing.assert_array_equal(losses.attention_consistency(a, flipped[:, :, ::-1]), 0)
  # Only the cells that both see.
  where = np.zeros((3, 7, 7), bool)
  where[:, :, 1:] = True
  where[2] = False
  expected = ((a - b)[:, :, 1:] ** 2).mean(axis=(1, 2))
  expected[2] = 0
  close(losses.attention_consistency(a, b, where=where), expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["mse", "norm"])
def test_attention_consistency_gradients(form):
  rng = np.random.default_rng(0)
  a, b = jnp.asarray(rng.normal(size=(2, 2, 3, 3, 4)), jnp.float32)

  def total(a, b):
    return losses.attention_consistency(a, b, form=form).mean()

  left, right = jax.grad(total, argnums=(0, 1))(a, b)
  np.testing.assert_allclose(left, -right, rtol=1e-6)
  assert np.abs(left).max() > 0
  np.testing.assert_array_equal(jax.grad(total)(a, a), 0)
  huge = jax.grad(total)(jnp.full_like(a, 1e4), -jnp.full_like(a, 1e4))
  assert np.isfinite(huge).all()


def enlarged(x, size):
  """Every value of [B, h, w, L] repeated up to the size."""
  return x.repeat(size[0] // x.shape[1], axis=1).repeat(size[1] // x.shape[2], axis=2)


@pytest.mark.parametrize("large, small", [
    ((7, 7), (6, 6)), ((9, 9), (8, 8)), ((2, 2), (3, 3)), ((4, 4), (4, 4)), ((7, 4), (6, 3)), ((5, 1), (1, 6)),
])
def test_scale_consistency_equals_the_enlarged_maps(large, small):
  rng = np.random.default_rng(0)
  a, b = (rng.normal(size=(3, *size, 5)).astype(np.float32) for size in (large, small))
  size = np.lcm(large, small)
  squared = (enlarged(a, size).astype(np.float64) - enlarged(b, size)) ** 2
  close(losses.scale_consistency(a, b), squared.mean(axis=(1, 2)), rtol=1e-6)
  close(losses.scale_consistency(b, a), squared.mean(axis=(1, 2)), rtol=1e-6)
  close(losses.scale_consistency(a, b, form="norm"), np.sqrt(squared.sum(axis=(1, 2))) / size.prod(), rtol=1e-6)


@pytest.mark.parametrize("form", ["mse", "norm"])
def test_scale_consistency_gradients(form):
  rng = np.random.default_rng(0)
  a, b = (jnp.asarray(rng.normal(size=(2, n, n, 4)), jnp.float32) for n in (7, 6))
  direct = lambda a, b: losses.attention_consistency(
      *(jnp.repeat(jnp.repeat(x, 42 // x.shape[1], axis=1), 42 // x.shape[2], axis=2) for x in (a, b)), form=form)
  grads = [jax.grad(lambda a, b: f(a, b).sum(), argnums=(0, 1))(a, b)
           for f in (direct, functools.partial(losses.scale_consistency, form=form))]
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7), *grads)
  # Equal maps: a minimum, reached exactly.
  pair = (jnp.repeat(jnp.repeat(b, 2, axis=1), 2, axis=2), b)
  np.testing.assert_array_equal(losses.scale_consistency(*pair, form=form), 0)
  for gradient in jax.grad(lambda a, b: losses.scale_consistency(a, b, form=form).sum(), argnums=(0, 1))(*pair):
    np.testing.assert_array_equal(gradient, 0)


# Class maps.


def test_softmax_cross_entropy():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 4, 5, 7)).astype(np.float32)
  target = rng.integers(0, 7, (2, 4, 5))
  p = np.exp(logits.astype(np.float64))
  p /= p.sum(axis=-1, keepdims=True)
  expected = -np.log(np.take_along_axis(p, target[..., None], axis=-1))[..., 0]
  close(losses.softmax_cross_entropy(logits, target.astype(np.uint8)), expected, rtol=1e-5)
  close(losses.softmax_cross_entropy(logits, np.eye(7, dtype=np.float32)[target]), expected, rtol=1e-5)
  soft = np.full(logits.shape, 1 / 7, np.float32)
  close(losses.softmax_cross_entropy(logits, soft), -np.log(p).mean(axis=-1), rtol=1e-5)


def test_pixels_of_no_class_do_not_count():
  logits, target = jnp.ones((1, 2, 3)), jnp.array([[1, 255]], jnp.uint8)
  assert losses.softmax_cross_entropy(logits, target)[0, 1] == 0
  gradient = jax.grad(lambda z: losses.softmax_cross_entropy(z, target).sum())(logits)
  np.testing.assert_array_equal(gradient[0, 1], 0)
  assert (np.asarray(gradient[0, 0]) != 0).all()


# Reduction.


def test_reductions():
  loss = jnp.arange(12.0).reshape(4, 3)
  assert losses.reduce_loss(loss) == pytest.approx(66 / 4)
  assert losses.reduce_loss(loss, reduction="mean") == pytest.approx(66 / 12)
  steps = jnp.arange(24.0).reshape(2, 4, 3)  # mean over samples and steps
  assert losses.reduce_loss(steps) == pytest.approx(276 / 8)


def test_doubling_the_labels_doubles_the_sum_doubling_the_batch_changes_nothing():
  loss = losses.binary_cross_entropy(*batch(8))
  total = losses.reduce_loss(loss)
  np.testing.assert_allclose(losses.reduce_loss(jnp.concatenate([loss, loss], axis=1)), 2 * total, rtol=1e-6)
  np.testing.assert_allclose(losses.reduce_loss(jnp.concatenate([loss, loss], axis=0)), total, rtol=1e-6)
  mean = functools.partial(losses.reduce_loss, reduction="mean")
  np.testing.assert_allclose(mean(jnp.concatenate([loss, loss], axis=1)), mean(loss), rtol=1e-6)


@pytest.mark.parametrize("reduction", losses.REDUCTIONS)
def test_masked_cells_count_nothing_and_pass_no_gradient(reduction):
  logits, label = batch(9)
  where = np.random.default_rng(1).random(logits.shape) < 0.7

  def total(z, where):
    return losses.reduce_loss(losses.binary_cross_entropy(z, label), where=where, reduction=reduction)

  gradient = np.asarray(jax.grad(total)(jnp.asarray(logits), where))
  assert (gradient[~where] == 0).all() and (gradient[where] != 0).all()
  # No renormalisation: what stays weighs as before.
  np.testing.assert_array_equal(gradient[where], np.asarray(jax.grad(total)(jnp.asarray(logits), None))[where])
  rows = np.array([True, False, True, True, True, False])
  assert total(logits, rows) == total(logits, np.tile(rows[:, None], (1, 5)))
  assert total(logits, np.zeros(6, bool)) == 0


# Wrong calls.


@pytest.mark.parametrize("call", [
    lambda: losses.binary_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((3, 2))),
    lambda: losses.binary_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 3)), positive_weight=jnp.ones(2)),
    lambda: losses.weighted_focal_loss(jnp.zeros((2, 3)), jnp.zeros((2, 4))),
    lambda: losses.weighted_focal_loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), gamma=-1.0),
    lambda: losses.attention_variance_weights(jnp.zeros((2, 3)), 2),
    lambda: losses.attention_variance_weights(jnp.zeros((2, 3, 4)), jnp.ones(3, bool)),
    lambda: losses.attention_variance_weights(jnp.zeros((2, 3, 4)), jnp.ones(4, int)),
    lambda: losses.attention_consistency(jnp.zeros((2, 7, 7, 3)), jnp.zeros((2, 6, 6, 3))),
    lambda: losses.attention_consistency(jnp.zeros((7, 7, 3)), jnp.zeros((7, 7, 3))),
    lambda: losses.attention_consistency(*jnp.zeros((2, 1, 2, 2, 3)), form="l1"),
    lambda: losses.attention_consistency(*jnp.zeros((2, 1, 2, 2, 3)), where=jnp.ones((2, 2))),
    lambda: losses.scale_consistency(jnp.zeros((2, 7, 7, 3)), jnp.zeros((1, 6, 6, 3))),
    lambda: losses.scale_consistency(jnp.zeros((2, 7, 7, 3)), jnp.zeros((2, 6, 6))),
    lambda: losses.scale_consistency(*jnp.zeros((2, 1, 2, 2, 3)), form="l1"),
    lambda: losses.softmax_cross_entropy(jnp.zeros((2, 3)), jnp.zeros((2, 3), int)),
    lambda: losses.softmax_cross_entropy(jnp.zeros((2, 3)), jnp.zeros(2)),
    lambda: losses.reduce_loss(jnp.zeros((2, 3)), reduction="sum"),
    lambda: losses.reduce_loss(jnp.zeros((2, 3)), where=jnp.ones(3, bool)),
    lambda: losses.reduce_loss(jnp.zeros(3)),
    lambda: losses.exp_ratio_weights([0.2, 1.2]),
    lambda: losses.inverse_ratio_weights(np.array([0.2, np.nan])),
])
def test_wrong_calls(call):
  with pytest.raises(ValueError):
    call()


def test_all_of_it_compiles():
  logits, label = batch(10)

  @jax.jit
  def total(logits, label, where, history):
    pos, neg = losses.exp_ratio_weights(RATIO)
    weight = losses.attention_variance_weights(history, 3)
    loss = losses.weighted_focal_loss(logits, label, positive_weight=pos, negative_weight=neg)
    return losses.reduce_loss(loss + weight * losses.binary_cross_entropy(logits, label), where=where)

  history = np.random.default_rng(0).random((5, 6, 5))
  assert np.isfinite(total(logits, label, label == 1, history))
