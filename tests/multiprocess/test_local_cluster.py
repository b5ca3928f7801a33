"""launch/local_cluster.py with attr-jax itself: two processes over gloo train what one trains."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from helpers import REPOSITORY
from processes import QUICKSTART
from processes import finish
from processes import free_address
from processes import losses
from processes import tail
from processes import wait_for_steps

OPTIONS = ("--config.input.brightness=0.3", "--config.batch_norm.scope=global", "--config.checkpoint.every_steps=1000",
           "--config.evaluate.every_epochs=1000", "--config.schedule.name=constant")


def start(workdir, world_dir, *extra, processes, command="train"):
  """The launcher, its output in `<workdir>.log`."""
  arguments = [f"--config={QUICKSTART}", f"--config.data.dir={world_dir}", *OPTIONS] if command == "train" else []
  log = pathlib.Path(f"{workdir}.log")
  with log.open("w") as output:
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "launch" / "local_cluster.py", f"--processes={processes}", "--", command, *arguments,
         f"--workdir={workdir}", *extra],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""}, stdout=output, stderr=subprocess.STDOUT)
  process.log = log
  return process


@pytest.mark.multiprocess
def test_two_processes_train_what_one_trains(world_dir, tmp_path):
  for processes in (1, 2):
    workdir = tmp_path / str(processes)
    finish(start(workdir, world_dir, "--config.total_steps=20", processes=processes))
  one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
  assert len(one) == 20
  np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)
  log = pathlib.Path(f"{tmp_path / '2'}.log").read_text()
  assert "2 processes x 1 devices" in log.splitlines()[0]
  assert re.search(r"^attr-jax: 2 processes through coordinator 127\.0\.0\.1:\d+, this is 0$", log, re.MULTILINE)
  assert re.search(r"^devices +2 x cpu on 2 hosts", log, re.MULTILINE)
  other = pathlib.Path(re.search(r"in (\S+)/process-\*\.log", log)[1]) / "process-1.log"
  assert "this is 1" in other.read_text()


@pytest.mark.multiprocess
def test_sigterm_saves_and_the_same_command_goes_on(world_dir, tmp_path):
  workdir = tmp_path / "run"
  process = start(workdir, world_dir, "--config.total_steps=400", processes=2)
  wait_for_steps(workdir, 5, [process])
  process.send_signal(signal.SIGTERM)
  finish(process, status=143)
  stopped = len(losses(workdir))
  assert 5 <= stopped < 400 and f"stopped by SIGTERM after step {stopped}" in tail(process)
  shorter = f"--config.total_steps={stopped + 3}"
  finish(start(workdir, world_dir, shorter, processes=2))
  finish(start(tmp_path / "whole", world_dir, shorter, processes=2))
  assert losses(workdir) == losses(tmp_path / "whole")
  evaluating = start(workdir, world_dir, "--split=test", processes=2, command="evaluate")
  finish(evaluating)
  assert len(re.findall(r"^ +mAP ", tail(evaluating), re.MULTILINE)) == 1  # the table comes from process 0 alone


@pytest.mark.multiprocess
def test_a_killed_process_ends_the_others(world_dir, tmp_path):
  workdir = tmp_path / "run"
  process = start(workdir, world_dir, "--config.total_steps=100000", processes=2)
  wait_for_steps(workdir, 5, [process])
  children = [int(pid) for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
  commands = {pid: pathlib.Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
  [second] = [pid for pid, command in commands.items() if "--process-id=1" in command]
  os.kill(second, signal.SIGKILL)
  assert process.wait(60) == 137, tail(process)
  assert "process 1 ended with status 137, see" in tail(process)
  assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in children)


@pytest.mark.multiprocess
@pytest.mark.parametrize("process", [0, 1])
def test_processes_that_do_not_meet_are_one_line(tmp_path, process):
  """With jax itself, which gets two seconds for it: the coordinator is not there, or nobody comes to it."""
  code = ("import functools, sys; from attr_jax import cli, sharding;"
          "sharding.initialize_distributed = functools.partial(sharding.initialize_distributed, seconds=2); cli.main(sys.argv[1:])")
  address = free_address()
  command = [sys.executable, "-c", code, "train", f"--config={QUICKSTART}", f"--workdir={tmp_path / 'run'}", f"--coordinator={address}",
             "--num-processes=2", f"--process-id={process}"]
  result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
  assert result.returncode == 1 and address in result.stderr and "after 2 s" in result.stderr, result.stderr
  assert len(result.stderr.strip().splitlines()) == 1, result.stderr
