"""What may go wrong while several processes train: each ends with one clear line in time, and the same command goes on."""

import json
import shutil
import signal
import time

import numpy as np
import pytest

from processes import CONSTANT
from processes import cluster
from processes import finish
from processes import free_address
from processes import losses
from processes import saved_steps
from processes import start
from processes import tail
from processes import wait_for_steps

LONG = (*CONSTANT, "--config.batch_norm.scope=global", "--config.checkpoint.every_steps=5", "--config.total_steps=100000")
# Seconds from the death of one process to the end of all others.
IN_TIME = 60


def ends(processes, timeout=IN_TIME):
  """Statuses of all that end in time."""
  deadline = time.time() + timeout
  for process in processes:
    assert process.wait(max(0.1, deadline - time.time())) is not None
  return [process.returncode for process in processes]


def started(workdir, world_dir, count=4, at_least=12, options=LONG):
  """A cluster that has saved already."""
  processes = cluster(workdir, world_dir, *options, count=count, devices=1)
  try:
    wait_for_steps(workdir, at_least, processes)
  except BaseException:
    end(processes)
    raise
  return processes


@pytest.fixture(scope="module")
def whole(world_dir, tmp_path_factory):
  """Losses of the first steps of a run that nothing stops."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  finish(start(workdir, world_dir, *LONG[:-1], "--config.total_steps=40", devices=4))
  return losses(workdir)


def goes_on(workdir, world_dir, whole, count=1):
  """The same command, but for a few steps beyond the newest checkpoint, on `count` processes; then as a run that nothing stopped."""
  newest = saved_steps(workdir)[-1]
  for process in cluster(workdir, world_dir, *LONG[:-1], f"--config.total_steps={newest + 3}", count=count, devices=4 // count):
    finish(process)
  resumed = losses(workdir)
  assert len(resumed) == newest + 3
  compared = min(len(resumed), len(whole))
  np.testing.assert_allclose(resumed[:compared], whole[:compared], rtol=1e-5)


def end(processes):
  """What a failed test leaves behind."""
  for process in processes:
    if process.poll() is None:
      process.kill()
      process.wait()


def ended_after(act, processes):
  """Statuses of all that end in time once `act` was called; none is left behind."""
  try:
    act()
    return ends(processes)
  finally:
    end(processes)


@pytest.mark.multiprocess
def test_one_of_four_is_killed(world_dir, tmp_path, whole):
  workdir = tmp_path / "run"
  processes = started(workdir, world_dir)
  statuses = ended_after(lambda: processes[2].kill(), processes)
  assert statuses == [1, 1, -signal.SIGKILL, 1]
  for process in processes[:2] + processes[3:]:
    joined, *lines = [line for line in process.log.read_text().splitlines() if line.startswith("attr-jax:")]
    assert "4 processes through coordinator" in joined
    assert len(lines) == 1 and "another process of this run is gone" in lines[0] and "Traceback" not in tail(process), tail(process)
  goes_on(workdir, world_dir, whole, count=4)


@pytest.mark.multiprocess
def test_the_coordinator_is_killed(world_dir, tmp_path, whole):
  """Process 0 is what the others report to; jax ends them itself when it is gone, sometimes before our line."""
  workdir = tmp_path / "run"
  processes = started(workdir, world_dir)
  statuses = ended_after(lambda: processes[0].kill(), processes)
  assert statuses[0] == -signal.SIGKILL and set(statuses[1:]) <= {1, -signal.SIGABRT}
  for process in processes[1:]:
    text = process.log.read_text()
    assert "another process of this run is gone" in text or "another task died" in text, text[-3000:]
    assert "Traceback" not in text
  goes_on(workdir, world_dir, whole)


@pytest.mark.multiprocess
@pytest.mark.parametrize("several", [1, 3])
def test_sigterm_to_all_of_four(world_dir, tmp_path, several, whole):
  """With several steps in one program too."""
  workdir = tmp_path / "run"
  processes = started(workdir, world_dir, options=(*LONG, f"--config.steps_per_dispatch={several}"))
  statuses = ended_after(lambda: [process.send_signal(signal.SIGTERM) for process in processes], processes)
  assert statuses == [143] * 4, tail(processes[0])
  steps = {process.log.read_text().splitlines()[-1] for process in processes}
  assert len(steps) == 1 and f"stopped by SIGTERM after step {saved_steps(workdir)[-1]};" in steps.pop()
  goes_on(workdir, world_dir, whole)


@pytest.mark.multiprocess
def test_one_process_without_its_data_stops_all(world_dir, tmp_path):
  """Its line says what is wrong, with status 2; the other one does not wait for it for ever."""
  workdir, address = tmp_path / "run", free_address()
  processes = [
      start(workdir, folder, *LONG, f"--coordinator={address}", "--num-processes=2", f"--process-id={i}", log=f"{workdir}-{i}.log")
      for i, folder in enumerate((world_dir, tmp_path / "empty"))
  ]
  try:
    statuses = ends(processes, timeout=120)
  finally:
    end(processes)
  assert statuses == [1, 2], tail(processes[0])
  assert "another process of this run is gone" in tail(processes[0])
  said = tail(processes[1]).strip().splitlines()[-1]
  assert said.startswith("attr-jax: ") and str(tmp_path / "empty") in said


@pytest.mark.multiprocess
def test_a_folder_of_an_older_version_or_of_another_model(world_dir, tmp_path):
  """Keys that do not change what is trained may be missing in its config; everything else is one line with status 2."""
  workdir = tmp_path / "run"
  options = (*CONSTANT, "--config.checkpoint.every_steps=2")
  finish(start(workdir, world_dir, *options, "--config.total_steps=2"))
  (workdir / "DONE").unlink()
  written = json.loads((workdir / "config.json").read_text())

  def refused(text, *extra, folder=workdir):
    log = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
    process = start(folder, world_dir, *options, "--config.total_steps=4", *extra, log=log)
    finish(process, 2)
    lines = process.log.read_text().strip().splitlines()
    ours = [line for line in lines if line.startswith("attr-jax:")]
    assert ours == lines[-1:] and text in ours[0] and "Traceback" not in tail(process), tail(process)

  refused("holds a run with another config (model.depth: tiny -> 18)", "--config.model.depth=18")
  old = {key: value for key, value in written.items() if key != "batch_norm"}
  (workdir / "config.json").write_text(json.dumps(old))
  refused("batch_norm.scope: None -> local")
  # Checkpoints of another model or another optimiser in a folder that says nothing of them.
  for name, text, extra in (("model", "cannot be restored", ("--config.model.depth=18",)),
                            ("optimizer", "cannot be restored", ("--config.optimizer.momentum=0.0",))):
    folder = tmp_path / name
    folder.mkdir()
    shutil.copytree(workdir / "checkpoints", folder / "checkpoints")
    refused(text, *extra, folder=folder)
  old = {key: value for key, value in written.items() if key not in ("fsdp", "steps_per_dispatch")}
  (workdir / "config.json").write_text(json.dumps(old))
  finish(start(workdir, world_dir, *options, "--config.total_steps=4"))
  assert saved_steps(workdir)[-1] == 4 and len(losses(workdir)) == 4
