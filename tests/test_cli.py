"""The command line: exit codes, one clear line for each wrong call, evaluate and export."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from attr_jax import cli
from attr_jax import train

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
QUICKSTART = f"{REPOSITORY}/configs/quickstart.py:tiny"


def call(capsys, *argv):
  """(status, stdout, stderr) of `attr-jax argv`."""
  with pytest.raises(SystemExit) as ended:
    cli.main([str(arg) for arg in argv])
  captured = capsys.readouterr()
  return ended.value.code, captured.out, captured.err


@pytest.fixture(scope="module")
def workdir(world_dir, tmp_path_factory):
  """A finished tiny run."""
  config = cli.load_config(QUICKSTART, [f"--config.data.dir={world_dir}"])
  folder = tmp_path_factory.mktemp("runs") / "tiny"
  train.train_and_evaluate(config, folder, quiet=True)
  return folder


@pytest.mark.parametrize("override, words", [
    ("--config.optimizer.learning_rat=0.1", "learning_rate"),  # the suggestion
    ("--config.optimizer.learning_rate=fast", "learning_rate"),
    ("--config.batch_size=1.5", "batch_size"),
    ("--config.optimizer.name=sdg", "allowed: sgd, adam, adagrad"),
    ("--config.model.depth=51", "depth"),
    ("--config.model.name=resnet", "baseline"),
    ("--config.loss.loss=bcee", "bce"),
])
def test_wrong_config_is_one_line(capsys, tmp_path, world_dir, override, words):
  status, _, err = call(capsys, "train", f"--config={QUICKSTART}", f"--config.data.dir={world_dir}", override,
                        f"--workdir={tmp_path / 'run'}", "--quiet")
  assert status == 2 and words in err and len(err.strip().splitlines()) == 1
  assert not (tmp_path / "run" / "checkpoints").exists() or not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize("argv, words", [
    (["train", "--config=nothing.py", "--workdir=x"], "does not exist"),
    (["train", f"--config={QUICKSTART},wrong", "--workdir=x"], "option 'wrong' is unknown"),
    (["evaluate", "--workdir=nowhere"], "not a run folder"),
    (["predict", "--workdir=nowhere", "a.jpg"], "not a run folder"),
    (["prepare", "nothing", "--source=."], "unknown data set"),
    (["prepare", "pa100k", "--source=nowhere"], "nowhere"),
    (["synthesize", "people", "--out=x", "--count=0"], "count"),
    (["import-weights", "nothing.pth", "--out=x"], "nothing.pth"),
])
def test_wrong_calls_are_one_line(capsys, argv, words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  status, _, err = call(capsys, *argv)
  assert status == 2 and words in err and len(err.strip().splitlines()) == 1, err


def test_unknown_argument_is_refused(capsys):
  status, _, err = call(capsys, "evaluate", "--workdir=x", "--config.seed=1")
  assert status == 2 and "unknown argument --config.seed=1" in err


def test_python_m_is_the_same():
  result = subprocess.run([sys.executable, "-m", "attr_jax", "--help"], capture_output=True, text=True, cwd=REPOSITORY)
  assert result.returncode == 0 and "COMMAND" in result.stdout


def test_evaluate_command(capsys, workdir):
  status, out, _ = call(capsys, "evaluate", f"--workdir={workdir}", "--split=val", "--views=five_crop")
  assert status == 0 and "mAP" in out and max(map(len, out.splitlines())) <= 80
  assert (workdir / "evaluation" / "val-five_crop.json").exists()
  status, _, err = call(capsys, "evaluate", f"--workdir={workdir}", "--split=tst")
  assert status == 2 and "train, val, test" in err


@pytest.mark.slow
def test_exported_weights_start_another_run(workdir, tmp_path, capsys, world_dir):
  call(capsys, "export", f"--workdir={workdir}", "--to=safetensors", f"--out={tmp_path / 'm.safetensors'}")
  status, out, _ = call(capsys, "train", f"--config={QUICKSTART}", f"--config.data.dir={world_dir}",
                        f"--config.weights={tmp_path / 'm.safetensors'}", f"--workdir={tmp_path / 'run'}")
  assert status == 0 and "finished" not in out


@pytest.mark.slow
def test_terminal_output_fits_80_columns(world_dir, tmp_path):
  result = subprocess.run(
      [sys.executable, "-m", "attr_jax", "train", f"--config={QUICKSTART}", f"--config.data.dir={world_dir}",
       "--workdir=run"], capture_output=True, text=True, cwd=tmp_path,
      env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
  assert result.returncode == 0, result.stderr
  wide = [line for line in result.stdout.splitlines() if len(line) > 80]
  assert not wide


def test_writes_that_end_after_a_failed_one_are_silent():
  """Other errors that nobody can catch are still shown."""
  code = """if True:
    from attr_jax import cli
    class Late:
      def __init__(self, text): self.text = text
      def __del__(self): raise RuntimeError(self.text)
    cli._check = lambda folder, out: [Late("Event loop is closed"), Late("something else")] and 0
    cli.main(["prepare", "--check", "."])
  """
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
  assert result.returncode == 0 and "something else" in result.stderr and "Event loop is closed" not in result.stderr
