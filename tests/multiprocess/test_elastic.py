"""A run goes on with other devices and other numbers of processes, as if nothing had changed."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from attr_jax import writers
from processes import CONSTANT
from processes import cluster
from processes import finish
from processes import free_address
from processes import launch
from processes import losses
from processes import saved_steps
from processes import start

OPTIONS = (*CONSTANT, "--config.batch_norm.scope=global", "--config.input.brightness=0.3", "--config.optimizer.ema_decay=0.9",
           "--config.checkpoint.every_steps=4")


def until(step):
  return f"--config.total_steps={step}"


@pytest.fixture(scope="module")
def whole(world_dir, tmp_path_factory):
  """Losses of a run of 12 steps on one device that nothing interrupts."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  finish(start(workdir, world_dir, *OPTIONS, until(12)))
  return losses(workdir)


@pytest.mark.multiprocess
def test_saved_on_four_devices_goes_on_with_1_2_or_8(world_dir, tmp_path, whole):
  """Once with parameters in parts. What is best stays so, wherever the run goes on."""
  first = tmp_path / "4"
  finish(start(first, world_dir, *OPTIONS, "--config.evaluate.every_epochs=0.5", until(6), devices=4))
  for devices, extra in ((1, ()), (2, ("--config.fsdp=2",)), (8, ())):
    workdir = tmp_path / f"4-{devices}"
    shutil.copytree(first, workdir)
    (workdir / "DONE").unlink()
    finish(start(workdir, world_dir, *OPTIONS, *extra, until(12), devices=devices))
    np.testing.assert_allclose(losses(workdir), whole, rtol=1e-5)
    found = {line["step"]: line["val/mAP"] for line in writers.read_jsonl(workdir / "metrics.jsonl") if "val/mAP" in line}
    assert list(found) == [4, 6, 12] and saved_steps(workdir) == sorted({max(found, key=found.get), 12})


@pytest.mark.multiprocess
def test_one_two_and_one_process(world_dir, tmp_path, whole):
  workdir = tmp_path / "run"
  finish(start(workdir, world_dir, *OPTIONS, until(4), devices=2))
  (workdir / "DONE").unlink()
  for process in cluster(workdir, world_dir, *OPTIONS, "--config.fsdp=2", until(8), devices=1):
    finish(process)
  (workdir / "DONE").unlink()
  finish(start(workdir, world_dir, *OPTIONS, until(12)))
  np.testing.assert_allclose(losses(workdir), whole, rtol=1e-5)


@pytest.mark.multiprocess
def test_each_process_reads_its_part(tmp_path):
  """Bytes that two processes read of an array of 64 MiB, 57 MiB packed: all where it is whole everywhere, half where it is split."""
  script = pathlib.Path(__file__).with_name("restore_parts.py")
  for job in ("save", "restore"):
    address = free_address()
    for process in [launch([script, job, tmp_path, address, i], tmp_path / f"{job}-{i}.log") for i in range(2)]:
      finish(process)
  read = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2)]
  for of_process in read:
    assert of_process["whole"] > 0.8 * of_process["bytes"]
    assert of_process["split"] < 0.55 * of_process["whole"]
