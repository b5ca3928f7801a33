"""The baseline model and its objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax import models
from attr_jax.errors import InputError
from attr_jax.models import baseline

LABELS = 5


def count_parameters(**options):
  model = models.MODELS["baseline"].Model(**options)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
  return sum(x.size for x in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize("labels, depth, count", [(14, 101, 42_528_846), (51, 101, 42_604_659), (14, 50, 23_536_718)])
def test_parameter_count(labels, depth, count):
  assert count_parameters(num_labels=labels, depth=depth) == count


@pytest.fixture(scope="module")
def tiny():
  model = baseline.Model(LABELS, depth="tiny")
  x = jax.random.normal(jax.random.key(0), (4, 32, 48, 3))
  variables = jax.jit(lambda: model.init(jax.random.key(1), x, train=False))()
  # A bias that can be seen.
  variables["params"]["classifier"]["bias"] = jnp.arange(LABELS, dtype=jnp.float32)
  logits, out = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)
  return variables, x, logits, out


def test_outputs(tiny):
  _, _, logits, out = tiny
  assert (logits.shape, logits.dtype) == ((4, LABELS), jnp.float32)
  assert out["features"].shape == (4, 128)
  assert out["heatmap"].shape == (4, 2, 3, LABELS)
  assert {"stem", "stage1", "stage2", "stage3", "stage4"} <= set(out)


def test_mean_heatmap_plus_bias_is_the_logits(tiny):
  variables, _, logits, out = tiny
  bias = variables["params"]["classifier"]["bias"]
  np.testing.assert_allclose(out["heatmap"].mean(axis=(1, 2)) + bias.reshape(1, -1), logits, atol=1e-5)


def test_bfloat16_gives_float32_logits(tiny):
  variables, x, _, _ = tiny
  model = baseline.Model(LABELS, depth="tiny", dtype=jnp.bfloat16)
  logits, out = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, x)
  assert (logits.dtype, out["features"].dtype, out["heatmap"].dtype) == (jnp.float32,) * 3
  assert out["stage4"].dtype == jnp.bfloat16


def make_batch():
  rng = np.random.default_rng(0)
  batch = {
      "label": rng.integers(0, 2, (6, LABELS)).astype(np.uint8),
      "known": rng.random((6, LABELS)) < 0.6,
  }
  return rng.normal(size=(6, LABELS)).astype(np.float32), batch, rng.uniform(0.05, 0.9, LABELS).astype(np.float32)


@pytest.mark.parametrize("loss", ["bce", "inverse_ratio", "exp_ratio", "mixed"])
@pytest.mark.parametrize("unspecified", ["negative", "ignore"])
@pytest.mark.parametrize("reduction", ["sum_labels_mean_samples", "mean"])
def test_objective_equals_slow_code(loss, unspecified, reduction):
  logits, batch, ratio = make_batch()
  value, parts = baseline.objective(
      jnp.asarray(logits), {}, batch, {}, positive_ratio=ratio, loss=loss, unspecified=unspecified, reduction=reduction)
  total = 0.0
  for i in range(6):
    for j in range(LABELS):
      known, label, r = bool(batch["known"][i, j]), int(batch["label"][i, j]), float(ratio[j])
      if unspecified == "ignore" and not known:
        continue
      positive = label == 1 and known
      weights = {
          "bce": (1, 1),
          "inverse_ratio": (1 / (2 * r), 1 / (2 * (1 - r))),
          "exp_ratio": (np.exp(1 - r), np.exp(r)),
          "mixed": (0.5 + 0.25 / r, 0.5 + 0.25 / (1 - r)),
      }[loss]
      p = 1 / (1 + np.exp(-float(logits[i, j])))
      total += -weights[0] * np.log(p) if positive else -weights[1] * np.log(1 - p)
  expected = total / 6 if reduction == "sum_labels_mean_samples" else total / (6 * LABELS)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  assert set(parts) == {"classification"} and parts["classification"].shape == ()


@pytest.mark.parametrize("wrong", [{"loss": "bse"}, {"unspecified": "drop"}, {"reduction": "sum"}])
def test_unknown_names_are_refused_with_the_known_ones(wrong):
  logits, batch, ratio = make_batch()
  with pytest.raises(ValueError, match=r"known: (bce, |negative, |sum_labels_mean_samples, )"):
    baseline.objective(jnp.asarray(logits), {}, batch, {}, positive_ratio=ratio, **wrong)


def test_build():
  model = models.build({"name": "baseline", "depth": "50", "width": 8}, 3, "bfloat16")
  assert (model.depth, model.width, model.num_labels, model.dtype) == (50, 8, 3, jnp.bfloat16)
  assert models.build({"name": "baseline", "depth": "tiny"}, 3).depth == "tiny"
  with pytest.raises(InputError, match="known: attncnn_rnn, baseline"):
    models.build({"name": "base"}, 3)
  with pytest.raises(InputError, match="it takes:.*depth"):
    models.build({"name": "baseline", "deepness": 50}, 3)
