"""Greedy and beam search against a slow search that keeps lists of paths, one image at a time."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.nn import decoding

LABELS, STEPS, HIDDEN = 7, 4, 5


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def decoder():
  """A small recurrent decoder; `of(image)` is its numpy twin for one path: labels so far -> logits of the next step."""
  rng = np.random.default_rng(0)
  mix, embed, read = rng.normal(0, 0.9, (HIDDEN, HIDDEN)), rng.normal(0, 1.5, (LABELS, HIDDEN)), rng.normal(0, 1.2, (HIDDEN, LABELS))
  start = rng.normal(0, 1, (6, HIDDEN))

  def step(state, label):
    entered = jnp.where(label[..., None] >= 0, jnp.asarray(embed, jnp.float32)[jnp.maximum(label, 0)], 0.0)
    hidden = jnp.tanh(state["hidden"] @ jnp.asarray(mix, jnp.float32) + entered)
    return {"hidden": hidden, "time": state["time"] + 1}, {"logits": hidden @ jnp.asarray(read, jnp.float32), "hidden": hidden}

  def of(image):
    def logits(path):
      hidden = start[image]
      for label in (None, *path):
        hidden = np.tanh(hidden @ mix + (0 if label is None else embed[label]))
      return hidden @ read
    return logits

  state = {"hidden": jnp.asarray(start, jnp.float32)[:, None], "time": jnp.zeros((len(start), 1), jnp.int32)}
  return step, state, of, len(start)


def slow_beams(logits, steps, width):
  """[(log-probability, labels, log-probability of each)], best first."""
  paths = [(0.0, (), ())]
  for _ in range(steps):
    grown = []
    for total, labels, each in paths:
      probability = sigmoid(logits(labels))
      grown += [(total + math.log(p), (*labels, k), (*each, math.log(p))) for k, p in enumerate(probability) if k not in labels]
    paths = sorted(grown, key=lambda path: -path[0])[:width]
  return paths


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_beam_search_is_the_slow_search(decoder, width):
  step, state, of, count = decoder
  labels, log_probability = jax.jit(lambda: decoding.beam_search(step, state, STEPS, width))()
  assert labels.shape == log_probability.shape == (count, width, STEPS) and labels.dtype == jnp.int32
  for image in range(count):
    expected = slow_beams(of(image), STEPS, width)
    np.testing.assert_array_equal(labels[image], [path for _, path, _ in expected])
    np.testing.assert_allclose(log_probability[image], [each for _, _, each in expected], rtol=1e-4, atol=1e-5)


def test_a_wide_beam_finds_the_best_path_of_all(decoder):
  step, state, of, count = decoder
  every = list(itertools.permutations(range(LABELS), 3))
  labels, _ = decoding.beam_search(step, state, 3, 42)  # all 7 * 6 paths of two labels survive
  for image in range(count):
    score = lambda path, logits=of(image): sum(math.log(sigmoid(logits(path[:t]))[path[t]]) for t in range(3))
    assert tuple(labels[image, 0].tolist()) == max(every, key=score)


def test_greedy_is_a_beam_of_one_and_wider_beams_find_better_paths(decoder):
  step, state, _, count = decoder
  labels, outputs = decoding.greedy(step, state, STEPS)
  narrow, log_narrow = decoding.beam_search(step, state, STEPS, 1)
  np.testing.assert_array_equal(labels, narrow[:, 0])
  _, log_wide = decoding.beam_search(step, state, STEPS, 20)
  gain = (log_wide[:, 0].sum(-1) - log_narrow[:, 0].sum(-1))
  assert (gain >= -1e-5).all() and (gain > 0.01).any()
  assert outputs["logits"].shape == (STEPS, count, LABELS) and outputs["hidden"].shape == (STEPS, count, HIDDEN)


def test_no_label_comes_twice_and_all_come_in_the_end(decoder):
  step, state, _, count = decoder
  for labels in (decoding.greedy(step, state, LABELS)[0], *decoding.beam_search(step, state, LABELS, 3)[0].swapaxes(0, 1)):
    np.testing.assert_array_equal(np.sort(labels, axis=-1), np.tile(np.arange(LABELS), (count, 1)))


def test_replay_says_what_the_search_saw(decoder):
  step, state, _, _ = decoder
  beams, log_probability = decoding.beam_search(step, state, STEPS, 4)
  for beam in range(4):
    logits = decoding.replay(step, state, beams[:, beam])["logits"].swapaxes(0, 1)
    at_label = np.take_along_axis(np.asarray(jax.nn.log_sigmoid(logits)), np.asarray(beams[:, beam, :, None]), axis=-1)[..., 0]
    np.testing.assert_allclose(at_label, log_probability[:, beam], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [0, LABELS + 1])
def test_more_steps_than_labels_are_refused(decoder, steps):
  step, state, _, _ = decoder
  with pytest.raises(ValueError, match="no label is chosen twice"):
    decoding.beam_search(step, state, steps, 2)
  with pytest.raises(ValueError, match="no label is chosen twice"):
    decoding.greedy(step, state, steps)


# Where a path ends.


def slow_set(labels, probability, prior, factor, stop):
  """The rule of Tang et al. for one path, product by product."""
  chosen = set()
  for t in range(1, len(labels) + 1):
    p = math.prod(probability[:t]) ** (1 / t)
    theta = math.prod(factor * prior[k] for k in labels[:t]) ** (1 / t) if t > 1 else 0.0
    if p >= theta:
      chosen.add(int(labels[t - 1]))
    elif stop == "first_failure":
      break
  return chosen


@pytest.mark.parametrize("stop", decoding.STOPS)
@pytest.mark.parametrize("factor", [0.5, 2.5, 6.0])
def test_sets_are_those_of_the_slow_rule(stop, factor):
  rng = np.random.default_rng(3)
  images, views, labels_count = 40, 3, 9
  prior = rng.uniform(0.01, 0.5, labels_count)
  labels = np.stack([[rng.permutation(labels_count)[:6] for _ in range(views)] for _ in range(images)])
  probability = rng.uniform(0.05, 1.0, labels.shape)
  threshold = decoding.path_threshold(jnp.asarray(labels), prior, factor)
  keep = decoding.kept(decoding.path_probability(probability), threshold, stop)
  found = np.asarray(decoding.label_set(jnp.asarray(labels), keep, labels_count))
  sizes = set()
  for image in range(images):
    expected = set().union(*(slow_set(labels[image, v], probability[image, v], prior, factor, stop) for v in range(views)))
    assert set(np.flatnonzero(found[image])) == expected
    sizes.add(len(expected))
  assert len(sizes) > 1  # not all or nothing


def test_the_two_stops_differ_where_a_path_recovers():
  probability, threshold = jnp.array([0.9, 0.2, 0.9]), jnp.array([0.0, 0.5, 0.5])
  assert decoding.kept(probability, threshold, "first_failure").tolist() == [True, False, False]
  assert decoding.kept(probability, threshold, "mask").tolist() == [True, False, True]
  with pytest.raises(ValueError, match="unknown stop"):
    decoding.kept(probability, threshold, "never")


def test_every_image_has_a_label_and_probabilities_do_not_grow():
  labels = jnp.array([[2, 0, 1]])
  probability = decoding.path_probability(jnp.array([[1e-4, 1e-5, 0.0]]))
  assert (probability >= 0).all() and probability[0, 2] == 0 and probability[0, 0] == pytest.approx(1e-4)
  threshold = decoding.path_threshold(labels, jnp.full(3, 0.4), 2.5)
  np.testing.assert_allclose(threshold, [[0.0, 1.0, 1.0]], rtol=1e-6)
  for limit in (threshold, 0.99):
    keep = decoding.kept(probability, limit)
    assert decoding.label_set(labels[:, None], keep[:, None], 3).tolist() == [[False, False, True]]
