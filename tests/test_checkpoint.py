"""Best and last are kept; damaged checkpoints are passed over; other layouts are refused."""

import shutil

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


def truncate(folder):
  for path in sorted(folder.rglob("*")):
    if path.is_file() and "ocdbt" in str(path):
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without(pattern):
  """Removes the first file or folder of that name."""
  def damage(folder):
    path = sorted(folder.rglob(pattern))[0]
    shutil.rmtree(path) if path.is_dir() else path.unlink()

  return damage


def empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


@pytest.mark.parametrize("damage", [
    truncate, without("manifest.ocdbt"), without("d"), without("_METADATA"), without("state"), without("_CHECKPOINT_METADATA"),
    without("commit_success.txt"), empty])
def test_damaged_checkpoint_is_passed_over(tmp_path, damage, caplog):
  """The one before it is used, and the run can save at the damaged step again."""
  folder = tmp_path / "c"
  fill(folder, [(1, 0.9), (3, 0.5)]).close()
  damage(folder / "3")
  checkpoints = checkpoint_lib.Checkpoints(folder)
  restored = int(checkpoints.restore_newest(abstract(make_state(0)))["step"])
  if restored == 3:  # what is missing was not needed
    return
  assert restored == 1 and checkpoints.steps() == [1]
  with pytest.raises(InputError, match="holds no checkpoint of step 3"):
    checkpoints.restore(3, abstract(make_state(0)))
  for step in (2, 3):
    checkpoints.save(step, make_state(step), 0.1)
    checkpoints.wait()
    assert checkpoints.steps() == [1, step]
  checkpoints.close()


def test_a_damaged_checkpoint_is_named_and_kept_aside(tmp_path, caplog):
  folder = tmp_path / "c"
  fill(folder, [(1, 0.9), (2, 0.5)]).close()
  truncate(folder / "2")
  checkpoints = checkpoint_lib.Checkpoints(folder)
  with pytest.raises(InputError, match="cannot be restored"):
    checkpoints.restore(2, abstract(make_state(0)))
  checkpoints.restore_newest(abstract(make_state(0)))
  checkpoints.close()
  assert f"checkpoint {folder / '2'} cannot be restored" in caplog.text and str(folder / "damaged-2") in caplog.text
  assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["1", "damaged-2"]
  again = checkpoint_lib.Checkpoints(folder)
  assert again.steps() == [1] and int(again.restore_newest(abstract(make_state(0)))["step"]) == 1
  again.close()


def test_nothing_is_set_aside_where_no_checkpoint_can_be_read(tmp_path):
  folder = tmp_path / "c"
  fill(folder, [(1, 0.9), (2, 0.5)]).close()
  for step in ("1", "2"):
    truncate(folder / step)
  checkpoints = checkpoint_lib.Checkpoints(folder)
  with pytest.raises(InputError, match=f"no checkpoint in {folder} can be restored: checkpoint {folder / '2'} cannot be restored"):
    checkpoints.restore_newest(abstract(make_state(0)))
  checkpoints.close()
  assert (folder / "1").is_dir() and (folder / "2").is_dir()


@pytest.mark.parametrize("shape, dtype", [((5,), jnp.float32), ((2,), jnp.float32), ((2, 2), jnp.float32)])
def test_other_shapes_are_refused(tmp_path, shape, dtype):
  """Neither cut nor filled up."""
  checkpoints = fill(tmp_path / "c", [(1, 0.9)])
  wanted = abstract(make_state(0))
  wanted["w"] = jax.ShapeDtypeStruct(shape, dtype, sharding=wanted["w"].sharding)
  with pytest.raises(InputError, match="no checkpoint in .* can be restored"):
    checkpoints.restore_newest(wanted)
  checkpoints.close()


def test_other_layout_is_one_clear_error(tmp_path):
  checkpoints = fill(tmp_path / "c", [(1, 0.9)])
  other = {"w": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=abstract(make_state(0))["w"].sharding)}
  with pytest.raises(InputError, match="no checkpoint in .* can be restored"):
    checkpoints.restore_newest(other | {"v": other["w"]})
  checkpoints.close()


def test_the_reason_of_a_failed_save_is_shown_from_a_deep_folder(tmp_path, monkeypatch):
  """TensorStore's words for a full disk: the file's whole name twice, then the reason, then places in its source."""
  folder = tmp_path / ("deep" * 40)
  manager = fill(folder, [(5, None)])
  file = folder / "10.orbax-checkpoint-tmp/state.orbax-checkpoint-tmp/_sharding"

  def full_disk(*args, **kwargs):
    raise ValueError(f'RESOURCE_EXHAUSTED: Error writing local file "{file}": Failed writing: "{file}": '
                     f"[OS error 28: ENOSPC No space left on device] [source locations='{'tensorstore/internal ' * 20}']")

  monkeypatch.setattr(manager._checkpointer, "save_async", full_disk)
  with pytest.raises(checkpoint_lib.SaveError) as failed:
    manager.save(10, make_state(2.0), None)
  assert "No space left on device" in str(failed.value)
  assert str(failed.value).endswith("the run can go on from step 5")
  assert len(str(failed.value)) < len(str(folder)) + 450
  manager.close()
