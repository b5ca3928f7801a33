"""Real processes: two hosts, kill -9, SIGTERM, a full disk."""

import os
import random
import re
import signal
import subprocess
import time

import numpy as np
import pytest

from attr_jax import writers
from helpers import REPOSITORY
from processes import CONSTANT
from processes import assert_identical
from processes import cluster
from processes import finish
from processes import losses
from processes import start
from processes import state_of
from processes import wait_for_steps


@pytest.mark.multiprocess
def test_hosts_and_devices_give_the_same_run(world_dir, tmp_path):
  """1, 2 and 4 devices, and 2 processes of 2: the same losses to 1e-5, the same predictions."""
  options = ("--config.total_steps=6", "--config.input.brightness=0.3", "--config.batch_norm.scope=global")
  for devices in (1, 2, 4):
    finish(start(tmp_path / str(devices), world_dir, *options, devices=devices))
  for process in cluster(tmp_path / "cluster", world_dir, *options):
    finish(process)
  one = losses(tmp_path / "1")
  assert len(one) == 6
  tables = {name: np.load(tmp_path / name / "predictions" / "test-full.npz") for name in ("1", "2", "4", "cluster")}
  for name in ("2", "4", "cluster"):
    np.testing.assert_allclose(losses(tmp_path / name), one, rtol=1e-5)
    np.testing.assert_array_equal(tables[name]["id"], tables["1"]["id"])
    np.testing.assert_array_equal(tables[name]["label"], tables["1"]["label"])
    np.testing.assert_allclose(tables[name]["logit"], tables["1"]["logit"], atol=1e-3)


@pytest.mark.multiprocess
def test_preempted_cluster_goes_on_with_other_devices(world_dir, tmp_path):
  options = (*CONSTANT, "--config.total_steps=400", "--config.checkpoint.every_steps=1000")
  workdir = tmp_path / "run"
  processes = cluster(workdir, world_dir, *options)
  wait_for_steps(workdir, 5, processes)
  for process in processes:
    process.send_signal(signal.SIGTERM)
  for process in processes:
    finish(process, status=143)
  stopped = len(losses(workdir))
  assert 5 <= stopped < 400
  shorter = [option.replace("400", str(stopped + 3)) for option in options]
  finish(start(workdir, world_dir, *shorter, devices=4))
  finish(start(tmp_path / "whole", world_dir, *shorter, devices=4))
  np.testing.assert_allclose(losses(workdir), losses(tmp_path / "whole"), rtol=1e-5)


@pytest.mark.slow
def test_kill_at_ten_random_moments(world_dir, tmp_path):
  """Every second time while a checkpoint is being written; then bit-identical to the run that was left alone."""
  options = ("--config.total_steps=400", "--config.checkpoint.every_steps=4", "--config.evaluate.every_epochs=10",
             "--config.optimizer.ema_decay=0.9", "--config.input.brightness=0.3")
  finish(start(tmp_path / "whole", world_dir, *options))
  workdir, moments = tmp_path / "cut", random.Random(0)
  cut_while_saving = 0
  for attempt in range(10):
    process = start(workdir, world_dir, *options)
    before = len(losses(workdir)) if (workdir / "metrics.jsonl").exists() else 0
    wait_for_steps(workdir, max(1, before - 4), [process])
    if attempt % 2:
      cut_while_saving += wait_for_saving(workdir / "checkpoints", process)
    else:
      time.sleep(moments.uniform(0, 1.0))
    assert process.poll() is None, "the run ended before it could be killed ten times; make it longer"
    process.kill()
    process.wait()
  assert cut_while_saving >= 3
  finish(start(workdir, world_dir, *options))
  assert_identical(state_of(tmp_path / "whole"), state_of(workdir))
  assert_identical(state_of(tmp_path / "whole", "best"), state_of(workdir, "best"))
  assert losses(tmp_path / "whole") == losses(workdir)


def wait_for_saving(folder, process, timeout=20):
  """True as soon as an unfinished checkpoint is in the folder."""
  deadline = time.time() + timeout
  while time.time() < deadline and process.poll() is None:
    if any("tmp" in path.name for path in folder.iterdir()):
      return True
  return False


@pytest.mark.slow
def test_first_step_of_the_quickstart_comes_within_30_seconds(world_dir, tmp_path):
  """At its full size, with nothing compiled before; only the number of people is that of the tests."""
  workdir = tmp_path / "run"
  process = start(workdir, world_dir, "--config.data.world_count=120", "--config.total_steps=2",
                  config=f"{REPOSITORY}/configs/quickstart.py", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cold"))
  finish(process)
  lines = writers.read_jsonl(workdir / "metrics.jsonl")
  assert [line["seconds_to_first_step"] for line in lines if "seconds_to_first_step" in line][0] < 30


@pytest.mark.slow
def test_sigterm_saves_and_exits_143(world_dir, tmp_path):
  options = ("--config.total_steps=300", "--config.checkpoint.every_steps=1000", "--config.evaluate.every_epochs=1000")
  process = start(tmp_path / "run", world_dir, *options)
  wait_for_steps(tmp_path / "run", 3, [process])
  process.send_signal(signal.SIGTERM)
  finish(process, status=143)
  message = process.log.read_text().splitlines()[-1]
  step = int(re.search(r"stopped by SIGTERM after step (\d+)", message)[1])
  assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()] == [str(step)]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_while_saving(world_dir, tmp_path):
  """The error is shown, the checkpoint before stays usable, and with space again the run goes on."""
  disk = tmp_path / "disk"
  disk.mkdir()
  if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], capture_output=True).returncode:
    pytest.skip("mounting is not allowed here")
  try:
    workdir = disk / "run"
    options = ("--config.total_steps=120", "--config.checkpoint.every_steps=5", "--config.evaluate.every_epochs=1000")
    process = start(workdir, world_dir, *options, log=tmp_path / "full.log")  # not on the disk that gets full
    wait_for_steps(workdir, 12, [process])
    filler = disk / "filler"
    with filler.open("wb") as file:
      try:
        while True:
          file.write(b"x" * 65536)
          file.flush()
      except OSError:
        pass
    assert process.wait(120) == 1
    saved = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    assert saved and max(saved) < 120
    filler.unlink()
    log = (tmp_path / "full.log").read_text()
    message = log.splitlines()[-1]
    assert "No space left" in message and f"the run can go on from step {max(saved)}" in message, log[-2000:]
    assert "Traceback" not in log
    finish(start(workdir, world_dir, *options))
    finish(start(tmp_path / "whole", world_dir, *options))
    assert_identical(state_of(tmp_path / "whole"), state_of(workdir))
  finally:
    subprocess.run(["umount", disk], check=True)
