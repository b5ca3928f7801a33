"""Training processes for tests: one, or several joined over loopback."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np

from attr_jax import evaluate
from attr_jax import sharding
from attr_jax import writers
from helpers import REPOSITORY

QUICKSTART = f"{REPOSITORY}/configs/quickstart.py:tiny"
# Plain steps that do not depend on how long the run is to be, and nothing between them. At this rate the losses fall, and 78 steps
# on other devices agreed to 1e-6; at ten times the rate the network doubles any rounding in each step.
CONSTANT = ("--config.schedule.name=constant", "--config.optimizer.name=sgd", "--config.optimizer.learning_rate=0.001",
            "--config.evaluate.every_epochs=1000", "--config.data.test_split=")


def launch(arguments, log, *, devices=1, xla_flags="", **environment):
  """`python ARGUMENTS` as a process of its own with so many virtual devices, its output in the file `log`, kept as `process.log`."""
  environment = os.environ | environment | {
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {xla_flags}", "PYTHONPATH": str(REPOSITORY),
  }
  with open(log, "a") as output:
    process = subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, stdout=output, stderr=subprocess.STDOUT)
  process.log = pathlib.Path(log)
  return process


def start(workdir, world_dir, *extra, devices=1, config=QUICKSTART, log=None, **environment):
  """A training process, its output in `log`, else in `<workdir>.log`."""
  arguments = ["-m", "attr_jax", "train", f"--config={config}", f"--config.data.dir={world_dir}", f"--workdir={workdir}", *extra]
  return launch(arguments, log or f"{workdir}.log", devices=devices, **environment)


def cluster(workdir, world_dir, *extra, count=2, devices=2, **options):
  """`count` training processes joined over loopback, the output of number i in `<workdir>-<i>.log`."""
  address = free_address()
  return [
      start(workdir, world_dir, *extra, f"--coordinator={address}", f"--num-processes={count}", f"--process-id={i}", devices=devices,
            log=f"{workdir}-{i}.log", **options)
      for i in range(count)
  ]


def free_address():
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{probe.getsockname()[1]}"


def finish(process, status=0, timeout=300):
  assert process.wait(timeout) == status, tail(process)


def tail(process):
  return process.log.read_text()[-3000:]


def losses(workdir):
  """Of all steps so far."""
  path = workdir / "metrics.jsonl"
  return [line["loss"] for line in writers.read_jsonl(path) if "loss" in line] if path.exists() else []


def saved_steps(workdir):
  return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def state_of(workdir, checkpoint="last"):
  run = evaluate.load_run(workdir, sharding.make_mesh(jax.devices()[:1]), checkpoint)
  return sharding.to_host((run.params, run.batch_stats))


def assert_identical(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def wait_for_steps(workdir, count, processes, timeout=240):
  """Returns when so many steps are in the log; fails where one of the processes ends before."""
  deadline = time.time() + timeout
  while time.time() < deadline:
    ended = [process for process in processes if process.poll() is not None]
    assert not ended, tail(ended[0])
    if len(losses(workdir)) >= count:
      return
    time.sleep(0.02)
  raise AssertionError("no progress: " + tail(processes[0]))
