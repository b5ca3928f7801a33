"""The pyramid against sums written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.nn.fpn import FPN
from attr_jax.nn.fpn import STAGE_OF


def identity_fpn(levels, stages):
  """FPN whose lateral connections and 3x3 convolutions hand their input on."""
  model = FPN(channels=2, levels=levels)
  params = model.init(jax.random.key(0), stages)["params"]
  params = jax.tree.map(jnp.zeros_like, params)
  for name, group in params.items():
    kernel = np.zeros(group["kernel"].shape, np.float32)
    kernel[(1, 1) if kernel.ndim == 4 else ()][:2, :2] = np.eye(2)
    params[name] = {**group, "kernel": jnp.asarray(kernel)}
  return model.apply({"params": params}, stages)


@pytest.mark.parametrize("sizes", [((8, 8), (4, 4), (2, 2), (1, 1)), ((15, 11), (8, 6), (4, 3), (2, 2))])
def test_levels_are_sums_of_the_deeper_stages(sizes):
  rng = np.random.default_rng(0)
  stages = {stage: jnp.asarray(rng.normal(size=(1, *size, 2)), jnp.float32) for stage, size in zip(STAGE_OF.values(), sizes)}
  out = identity_fpn(tuple(STAGE_OF), stages)
  above = None
  for level in reversed(STAGE_OF):
    expected = np.array(stages[STAGE_OF[level]])
    if above is not None:
      height, width = expected.shape[1:3]
      for y in range(height):
        for x in range(width):
          # The nearest cell: the one that holds the centre of this one.
          expected[0, y, x] += above[0, int((y + 0.5) * above.shape[1] / height), int((x + 0.5) * above.shape[2] / width)]
    np.testing.assert_allclose(out[level], expected, rtol=1e-6, atol=1e-6)
    above = expected


def test_only_levels_asked_for_have_a_convolution():
  stages = {stage: jnp.zeros((1, 8 >> i, 8 >> i, 4)) for i, stage in enumerate(STAGE_OF.values())}
  variables = FPN(channels=3, levels=("P2",)).init(jax.random.key(0), stages)
  assert {name for name in variables["params"] if name.startswith("smooth")} == {"smooth_P2"}
  with pytest.raises(ValueError, match="P6"):
    FPN(levels=("P6",)).init(jax.random.key(0), stages)
