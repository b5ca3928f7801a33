"""Best and last are kept; damaged checkpoints are passed over; other layouts are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax import checkpoint as checkpoint_lib
from attr_jax import sharding
from attr_jax.errors import InputError


def make_state(value):
  return {"w": jnp.full((4,), value, jnp.float32), "step": jnp.asarray(int(value), jnp.int32)}


def abstract(state, devices=1):
  where = sharding.replicated(sharding.make_mesh(jax.devices()[:devices]))
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state)


def fill(folder, values):
  checkpoints = checkpoint_lib.Checkpoints(folder)
  for step, selected in values:
    checkpoints.save(step, make_state(step), selected)
  checkpoints.wait()
  return checkpoints


def test_best_and_last_are_kept(tmp_path):
  checkpoints = fill(tmp_path / "c", [(1, 0.1), (2, 0.5), (3, 0.3), (4, None), (5, 0.2)])
  assert checkpoints.steps() == [2, 5] and checkpoints.best_step() == 2
  np.testing.assert_array_equal(checkpoints.restore(2, abstract(make_state(0)))["w"], np.full(4, 2.0))
  assert int(checkpoints.restore_newest(abstract(make_state(0), devices=4))["step"]) == 5
  checkpoints.close()


def test_without_validation_the_newest_is_the_best(tmp_path):
  checkpoints = fill(tmp_path / "c", [(1, None), (2, None)])
  assert checkpoints.steps() == [2] and checkpoints.best_step() == 2
  checkpoints.close()


def test_empty_folder(tmp_path):
  checkpoints = checkpoint_lib.Checkpoints(tmp_path / "c")
  assert checkpoints.restore_newest(abstract(make_state(0))) is None and checkpoints.best_step() is None
  checkpoints.close()


def test_damaged_checkpoint_is_passed_over(tmp_path):
  fill(tmp_path / "c", [(1, 0.9), (2, 0.5)]).close()
  for path in sorted((tmp_path / "c" / "2").rglob("*")):
    if path.is_file() and "ocdbt" in str(path):
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  checkpoints = checkpoint_lib.Checkpoints(tmp_path / "c")
  assert int(checkpoints.restore_newest(abstract(make_state(0)))["step"]) == 1
  with pytest.raises(InputError, match="cannot be restored"):
    checkpoints.restore(2, abstract(make_state(0)))
  checkpoints.close()


def test_other_layout_is_one_clear_error(tmp_path):
  checkpoints = fill(tmp_path / "c", [(1, 0.9)])
  other = {"w": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=abstract(make_state(0))["w"].sharding)}
  with pytest.raises(InputError, match="no checkpoint in .* can be restored"):
    checkpoints.restore_newest(other | {"v": other["w"]})
  checkpoints.close()
