"""Label sets one label at a time, in no given order: greedy and beam search as one `lax.scan`, and where a path ends.

Chen et al., "Order-Free RNN with Visual Attention for Multi-Label Classification" (AAAI 2018), in the form of
Tang, Chen, Zhao (2019). A decoder is a function

  step(state, label) -> (state, outputs)

`state` is a tree of arrays [B, W, ...] (batch, beams), `label` int32 [B, W] the label chosen last, -1 at the start;
`outputs` a dict with at least `logits` [B, W, K]. A label that was chosen is no candidate any more.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from attr_jax.nn import manual

Array = jax.Array
Step = Callable[[Any, Array], tuple[Any, dict[str, Array]]]

STOPS = ("first_failure", "mask")


def greedy(step: Step, state: Any, num_steps: int) -> tuple[Array, dict[str, Array]]:
  """The best candidate at each step, and what the decoder said.

  Args:
    step: the decoder.
    state: at the start, with one beam.
    num_steps: T, at most K.

  Returns:
    labels int32 [B, T] without repetition, and the outputs of all steps [T, B, ...].

  Raises:
    ValueError: T is not in 1..K.
  """
  def one(carry: Any, _: None) -> tuple[Any, Any]:
    state, label, chosen = carry
    state, outputs = step(state, label)
    label = jnp.where(chosen, -jnp.inf, outputs["logits"]).argmax(axis=-1).astype(jnp.int32)
    return (state, label, chosen | _one_hot(label, chosen)), (label, outputs)

  chosen = _none_chosen(step, state, num_steps)
  start = manual.vary_like((state, jnp.full(chosen.shape[:2], -1, jnp.int32), chosen), state)
  _, (labels, outputs) = jax.lax.scan(one, start, length=num_steps)
  return labels[..., 0].T, jax.tree.map(lambda x: x[:, :, 0], outputs)


def replay(step: Step, state: Any, labels: Array) -> dict[str, Array]:
  """What the decoder says along given paths, from the same start: labels int32 [B, T] -> the outputs of all steps [T, B, ...]."""
  def one(carry: Any, label: Array) -> tuple[Any, dict[str, Array]]:
    state, last = carry
    state, outputs = step(state, last)
    return (state, label), outputs

  labels = labels.T[..., None]
  start = manual.vary_like((state, jnp.full_like(labels[0], -1)), (state, labels))
  _, outputs = jax.lax.scan(one, start, labels)
  return jax.tree.map(lambda x: x[:, :, 0], outputs)


def beam_search(step: Step, state: Any, num_steps: int, width: int) -> tuple[Array, Array]:
  """The paths of T labels with the largest products of probabilities.

  All paths have the same length, so their products compare as they are. The first step grows all beams from one.

  Args:
    step: the decoder.
    state: at the start, with one beam.
    num_steps: T, at most K.
    width: W, beams kept after each step.

  Returns:
    labels int32 [B, W, T], best path first, and the log-probability of each label at its step, float32 [B, W, T].
    Beams for which there were no candidates (W > K at the first step) end with log-probabilities of -inf.

  Raises:
    ValueError: T is not in 1..K.
  """
  chosen = _none_chosen(step, state, num_steps)
  batch, _, num_labels = chosen.shape
  spread = lambda x: jnp.repeat(x, width, axis=1)
  score = jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf), (batch, width))
  history = jnp.zeros((batch, width, num_steps))

  # Written so that jax2onnx 0.17.1 converts it for any batch: no jnp.full and no % over shapes with B, no gather that fills what lies outside.
  def one(carry: Any, t: Array) -> tuple[Any, None]:
    state, score, label, chosen, labels, log_probability = carry
    state, outputs = step(state, label)
    candidate = jnp.where(chosen, -jnp.inf, jax.nn.log_sigmoid(outputs["logits"].astype(jnp.float32)))
    score, place = jax.lax.top_k((score[..., None] + candidate).reshape(batch, width * num_labels), width)
    parent = jax.lax.div(place, jnp.int32(num_labels))
    label = place - parent * num_labels
    from_parent = lambda x: jnp.take_along_axis(x, parent.reshape(batch, width, *(1,) * (x.ndim - 2)), axis=1, mode="promise_in_bounds")
    state, chosen, labels, log_probability = jax.tree.map(from_parent, (state, chosen, labels, log_probability))
    at_label = jnp.take_along_axis(from_parent(candidate), label[..., None], axis=-1, mode="promise_in_bounds")[..., 0]
    labels = labels.at[:, :, t].set(label)
    log_probability = log_probability.at[:, :, t].set(at_label)
    return (state, score, label, chosen | _one_hot(label, chosen), labels, log_probability), None

  start = (jax.tree.map(spread, state), score, jnp.zeros((batch, width), jnp.int32) - 1, spread(chosen),
           history.astype(jnp.int32), history)
  start = manual.vary_like(start, state)
  (_, _, _, _, labels, log_probability), _ = jax.lax.scan(one, start, jnp.arange(num_steps))
  return labels, log_probability


def path_probability(label_probability: Array) -> Array:
  """P_t = (p_1 ... p_t)^(1/t): probabilities [..., T] of the labels of a path, each at its step -> float32 [..., T]."""
  return _geometric_means(jnp.asarray(label_probability, jnp.float32))


def path_threshold(labels: Array, prior: Array, factor: float) -> Array:
  """theta_t = (f r(l_1) ... f r(l_t))^(1/t), but theta_1 = 0, so that every image has a label (released program of Tang et al.).

  Args:
    labels: int [..., T].
    prior: float [K], r, the share of positives of each label in the training split, in [0, 1].
    factor: f, 2.5 in the released program.

  Returns:
    float32 [..., T].
  """
  theta = _geometric_means(factor * jnp.asarray(prior, jnp.float32)[labels])
  return theta.at[..., 0].set(0.0)


def kept(probability: Array, threshold: Array, stop: str = "first_failure") -> Array:
  """Which labels of a path belong to the set: bool [..., T].

  Args:
    probability: P_t [..., T].
    threshold: theta_t, likewise, or a number; the first label is kept in any case.
    stop: "first_failure", as Tang et al. write, or "mask", as their program does: each step by itself, so that a
      label may come back after a failure.

  Raises:
    ValueError: an unknown stop.
  """
  if stop not in STOPS:
    raise ValueError(f"unknown stop {stop!r}; known: {', '.join(STOPS)}")
  passed = (probability >= threshold).at[..., 0].set(True)
  return passed if stop == "mask" else jnp.cumprod(passed, axis=-1).astype(bool)


def label_set(labels: Array, keep: Array, num_labels: int) -> Array:
  """The union of paths (V of each image): labels int [B, V, T], keep bool [B, V, T] -> bool [B, K], K = num_labels."""
  batch = labels.shape[0]
  place = jnp.where(keep, labels, num_labels).reshape(batch, -1)  # what is not kept falls off the end
  return jnp.zeros((batch, num_labels), bool).at[jnp.arange(batch)[:, None], place].set(True, mode="drop")


def _none_chosen(step: Step, state: Any, num_steps: int) -> Array:
  """bool [B, 1, K], all False; and the check of T."""
  batch = jax.tree.leaves(state)[0].shape[0]
  label = jax.ShapeDtypeStruct((batch, 1), jnp.int32)
  num_labels = jax.eval_shape(step, state, label)[1]["logits"].shape[-1]
  if not 1 <= num_steps <= num_labels:
    raise ValueError(f"num_steps={num_steps} does not fit {num_labels} labels: no label is chosen twice")
  return jnp.zeros((batch, 1, num_labels), bool)


def _one_hot(label: Array, like: Array) -> Array:
  return jax.nn.one_hot(label, like.shape[-1]) > 0  # onnxruntime has none of bools


def _geometric_means(x: Array) -> Array:
  """Of the first 1, 2, ... T values [..., T]; a zero stays a zero."""
  count = jnp.arange(1, x.shape[-1] + 1).reshape((1,) * (x.ndim - 1) + (-1,))
  return jnp.exp(jnp.cumsum(jnp.log(x), axis=-1) / count)
