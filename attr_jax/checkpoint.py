"""Saving and restoring the training state. The only file that imports orbax."""

from collections.abc import Mapping, Sequence
import logging
import pathlib
import shutil
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np
from orbax.checkpoint import v1 as ocp

from attr_jax.errors import InputError

_policies = ocp.training.preservation_policies


class SaveError(Exception):
  """A checkpoint could not be written; the earlier ones are untouched."""


class Checkpoints:
  """The checkpoints of one run: the newest (or several, `newest`) and the best one are kept.

  Saving is asynchronous: `save` returns as soon as the state is copied, and an
  error of the writing shows at the next `save` or `wait`.
  """

  def __init__(self, folder: pathlib.Path, newest: int = 1):
    """Opens the folder of a run's checkpoints; `newest` is how many of the last ones are kept."""
    self.folder = pathlib.Path(folder).absolute()
    self._newest = newest
    self._pending = None
    self._checkpointer = self._open()

  def _open(self) -> ocp.training.Checkpointer:
    return ocp.training.Checkpointer(
        self.folder,
        preservation_policy=_policies.AnyPreservationPolicy([
            _policies.LatestN(self._newest),
            _policies.BestN(
                get_metric_fn=lambda metrics: metrics["selected"], n=1, keep_checkpoints_without_metrics=False
            ),
        ]),
        cleanup_tmp_directories=True,  # left by a killed run
    )

  def save(self, step: int, state: Any, selected: float | None) -> None:
    """Starts writing the `state` after `step` updates; `selected` is the validation value that ranks it (higher is better), if any.

    Raises:
      SaveError: this save cannot begin, or the last one failed.
    """
    self.wait()
    metrics = None if selected is None else {"selected": float(selected)}
    try:
      self._pending = self._checkpointer.save_async(step, state, metrics=metrics, force=True)
    except Exception as error:
      raise self._save_error(step, error) from error
    self._pending_step = step

  def wait(self) -> None:
    """Returns when nothing is being written.

    Raises:
      SaveError: the last save failed.
    """
    pending, self._pending = self._pending, None
    if pending is None:
      return
    try:
      pending.result()
    except Exception as error:
      raise self._save_error(self._pending_step, error) from error

  def steps(self) -> list[int]:
    """Steps of the whole checkpoints, oldest first."""
    return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

  def best_step(self) -> int | None:
    """The step with the highest `selected`; the newest one where none has it; None without checkpoints."""
    ranked = [c for c in self._checkpointer.checkpoints if c.metrics]
    if ranked:
      return max(ranked, key=lambda c: c.metrics["selected"]).step
    return max(self.steps(), default=None)

  def restore_newest(self, abstract_state: Any) -> Any:
    """The newest checkpoint that can be read, laid out as `abstract_state` says, or None where there is none.

    One that is damaged is named, renamed and passed over for the one before it.

    Raises:
      InputError: there are checkpoints and none fits.
    """
    errors = {}
    for step in reversed(self.steps()):
      try:
        state = self.restore(step, abstract_state)
      except InputError as error:
        errors[step] = str(error)
        continue
      if errors:
        self._set_aside(errors)
      return state
    if errors:
      raise InputError(f"no checkpoint in {self.folder} can be restored: {next(iter(errors.values()))}")
    return None

  def remove(self, steps: Sequence[int]) -> None:
    """Deletes the checkpoints of these steps, which must be there; of a run on one host.

    Raises:
      SaveError: the last save failed.
    """
    if not steps:
      return
    self.close()
    for step in steps:
      shutil.rmtree(self.folder / str(step))
    self._checkpointer = self._open()

  def _set_aside(self, errors: Mapping[int, str]) -> None:
    """Renames damaged checkpoints: one of a later step would count as the newest, and the run will come to that step again."""
    self._checkpointer.close()
    if jax.process_index() == 0:
      for step, error in errors.items():
        aside = self.folder / f"damaged-{step}"
        shutil.rmtree(aside, ignore_errors=True)  # of an earlier time
        (self.folder / str(step)).rename(aside)
        logging.warning("%s; it is now %s, and the one before it is used", error, aside)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("damaged checkpoints")
    self._checkpointer = self._open()

  def restore(self, step: int, abstract_state: Any) -> Any:
    """The state of one step, laid out as `abstract_state` says (any number of devices and processes).

    Each process reads what its devices hold. One that cannot takes all others with it, so that they go on alike.

    Args:
      step: one of `steps`.
      abstract_state: tree of `jax.ShapeDtypeStruct` with shardings, see `state.abstract_state`.

    Raises:
      InputError: no such checkpoint, or one that is damaged or does not fit.
    """
    if step not in self.steps():
      raise InputError(f"{self.folder} holds no checkpoint of step {step}; there are: {self.steps()}")
    state, cause = None, None
    try:
      with _alone():
        state = self._checkpointer.load(step, abstract_state)
    except Exception as error:  # orbax raises many kinds; the reader needs one line
      cause = error
    if _anywhere(cause is not None):
      reason = _first_line(cause) if cause else "another process cannot read it"
      raise InputError(f"checkpoint {self.folder / str(step)} cannot be restored ({reason})") from cause
    return state

  def close(self) -> None:
    """Waits for the writing and lets go of the folder; SaveError if the last save failed."""
    try:
      self.wait()
    finally:
      self._checkpointer.close()

  def _save_error(self, step: int, error: Exception) -> SaveError:
    cause = error
    while cause.__cause__ is not None:
      cause = cause.__cause__
    # TensorStore names each file in full, often twice, before it says why; in a deep folder the reason would be cut off.
    reason = " ".join(str(cause).replace(f"{self.folder}/", "").split())[:300] or type(cause).__name__
    # The list in memory is lost with the failed save; a folder that is named by its step is whole.
    kept = sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdigit())
    resume = f"the run can go on from step {kept[-1]}" if kept else "there is no earlier one"
    return SaveError(f"checkpoint of step {step} could not be written to {self.folder}: {reason}; {resume}")


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__


def _alone() -> ocp.Context:
  """Within it a process reads without waiting for the others: one that fails would keep them waiting."""
  context = ocp.Context()
  context.multiprocessing.primary_host = jax.process_index()
  context.multiprocessing.active_processes = {jax.process_index()}
  return context


def _anywhere(failed: bool) -> bool:
  """Whether any process says so, on every process."""
  return failed if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(failed)).any())
