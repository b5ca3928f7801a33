"""The person segmenter: size, what it learns from, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attr_jax import models
from attr_jax.errors import InputError
from attr_jax.models import person_segmenter
from attr_jax.nn.masks import mask_overlap


def test_parameters_at_full_size():
  model = models.build({"name": "person_segmenter", "depth": "50"}, 0)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  # Trunk; lateral 1x1 of 256, 512, 1024, 2048 channels and 3x3 of P2, with biases; two 3x3 with BN; one logit.
  fpn = (256 + 512 + 1024 + 2048) * 256 + 4 * 256 + 9 * 256 * 256 + 256
  head = 9 * 256 * 128 + 9 * 128 * 128 + 2 * 2 * 128 + 129
  assert count(shapes["params"]) == 23_508_032 + fpn + head == 25_525_185


@pytest.mark.parametrize("size", [(224, 224), (256, 128), (57, 43)])
def test_mask_has_a_quarter_of_the_side(size):
  model = models.build({"name": "person_segmenter", "depth": "50"}, 0)
  (logits, out), _ = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, *size, 3)), train=False))
  assert out["mask"].shape == (2, -(-size[0] // 4), -(-size[1] // 4)) and logits.shape == (2, 0)


@pytest.mark.slow
def test_learns_a_bright_square():
  model = models.build({"name": "person_segmenter", "depth": "tiny", "channels": 16}, 0)
  rng = np.random.default_rng(0)
  image = rng.normal(0, 0.3, (8, 32, 32, 3)).astype(np.float32)
  mask = np.zeros((8, 32, 32), np.uint8)
  for i in range(8):
    y, x = rng.integers(0, 16, 2)
    image[i, y:y + 16, x:x + 16] += 2
    mask[i, y:y + 16, x:x + 16] = 255
  variables = model.init(jax.random.key(0), jnp.asarray(image), train=False)
  tx = optax.adam(0.01)

  @jax.jit
  def step(params, stats, opt_state):
    def loss(params):
      (logits, out), new = model.apply(
          {"params": params, "batch_stats": stats}, image, train=True, mutable=["batch_stats"])
      value, _ = person_segmenter.objective(logits, out, {"person_mask": mask}, {}, positive_ratio=None)
      return value, (out["mask"], new["batch_stats"])
    (value, (predicted, stats_)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state)
    return optax.apply_updates(params, updates), stats_, opt_state, value, predicted

  params, stats, opt_state = variables["params"], variables["batch_stats"], tx.init(variables["params"])
  for _ in range(200):
    params, stats, opt_state, value, predicted = step(params, stats, opt_state)
  intersection, union = mask_overlap(predicted, jnp.asarray(mask))
  assert (intersection / union).min() > 0.8


def test_data_without_masks_is_refused():
  with pytest.raises(InputError, match="person masks"):
    person_segmenter.objective(None, {"mask_logits": jnp.zeros((1, 2, 2))}, {}, {}, positive_ratio=None)
