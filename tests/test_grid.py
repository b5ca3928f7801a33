"""Grids of runs: what is expanded, skipped, resumed, recorded; what one failure does to the others."""

import fcntl
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers import REPOSITORY

from attr_jax import cli
from attr_jax import evaluate
from attr_jax import run_folder
from attr_jax import train
from attr_jax.errors import InputError

sys.path.insert(0, str(REPOSITORY / "launch"))
import grid  # noqa: E402
import results  # noqa: E402


def expand(tmp_path, **options):
  return grid.expand("dahar:table3", **{"seeds": 2, "out": tmp_path, "world": "people", "rows": ("baseline", "all")} | options)


def test_rows_times_seeds(tmp_path):
  cells = expand(tmp_path, overrides=["--config.total_epochs=3"])
  assert [(cell.row, cell.seed) for cell in cells] == [("baseline", 0), ("all", 0), ("baseline", 1), ("all", 1)]
  assert cells[3].command == (f"attr-jax train --config=configs/dahar.py:table3/all,world,small --config.total_epochs=3 --config.seed=1 "
                              f"--workdir={tmp_path}/all/seed1")
  assert {cell.views for cell in cells} == {("five_crop", "full")}  # what the paper prints
  config = cells[3].load()
  assert (config.seed, config.total_epochs, config.data.world, config.model.depth) == (1, 3.0, "people", "tiny")
  args, rest = cli._parse(shlex.split(cells[3].command)[1:])
  assert args.command == "train" and len(rest) == 2


def test_without_rows_all_that_can_be_run():
  runnable = [name for name, row in results.rows_of("dahar:table2").items() if row.config is not None]
  cells = grid.expand("dahar:table2", seeds=1, out=pathlib.Path("runs"))
  assert [cell.row for cell in cells] == runnable == ["dahar_o", "dahar_w", "dahar_m"]
  assert cells[0].config == "configs/dahar.py:table2/dahar_o"


def test_a_variation_of_a_world(tmp_path):
  cell = expand(tmp_path, world="people_crowded")[0]
  assert cell.load().data.world == "people_crowded"


@pytest.mark.parametrize("options, message", [
    ({"rows": ("rcnn",)}, "row 'rcnn' of dahar:table3 is unknown"),
    ({"seeds": 0}, "not a positive number"),
    ({"world": "faces"}, "--world=faces: .* trains on people"),
    ({"overrides": ["--config.total_epoch=3"]}, "total_epoch"),
    ({"options": ("desing=A",)}, "desing"),
])
def test_one_line_for_bad_input(tmp_path, options, message):
  with pytest.raises(InputError, match=message):
    expand(tmp_path, **options)


def test_quoted_rows_are_not_run(tmp_path):
  with pytest.raises(InputError, match="'rcnn' of dahar:table1 is quoted"):
    grid.expand("dahar:table1", seeds=1, out=tmp_path, rows=("rcnn",))


def test_a_folder_tells_its_cell(tmp_path):
  cell = expand(tmp_path, overrides=["--config.total_epochs=3"])[0]
  grid.prepare(cell)
  grid.prepare(cell)
  assert grid.read_cell(cell.workdir) == cell
  with pytest.raises(InputError, match="was run by another command"):
    grid.prepare(expand(tmp_path, overrides=["--config.total_epochs=4"])[0])
  with pytest.raises(InputError, match="not a run of a grid"):
    grid.read_cell(tmp_path)


def record_of(cell, **figures):
  return results.Record(
      **{"table": cell.table, "row": cell.row, "variant": cell.variant, "seed": cell.seed, "command": cell.command, "run": str(cell.workdir)} | {
          "commit": "0" * 40, "started": "2026-01-01T00:00:00+00:00", "devices": "1 x cpu:0", "model": "dahar", "data": "synthetic people",
          "split": "test", "samples": 4, "step": 1, "steps": 1, "selected_on": "mAP on val", "average_precision": "native", "views": {},
          "per_attribute": {}, "curves": {"val": []}} | figures)


@pytest.fixture
def pretended(monkeypatch):
  """Processes that only write DONE, or fail; `commands` holds those that were started."""
  commands = []

  def of(cells):
    for cell in cells:
      commands.append(cell.name)
      line = f"import pathlib; pathlib.Path({str(cell.workdir / 'DONE')!r}).touch()"
      yield [cell], [sys.executable, "-c", "print('no such label'); raise SystemExit(3)" if cell.row == "all" and cell.seed == 0 else line]

  monkeypatch.setattr(grid, "_commands", of)
  monkeypatch.setattr(grid, "_LOOK_SECONDS", 0.05)
  monkeypatch.setattr(results, "is_finished", lambda workdir, views: (workdir / "DONE").exists())
  monkeypatch.setattr(results, "read_run", lambda workdir, measures: record_of(grid.read_cell(workdir)))
  return commands


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_failure_stops_nothing_else(tmp_path, pretended, capsys, jobs):
  cells, records = expand(tmp_path), tmp_path / "records.jsonl"
  assert grid.run(cells, records, jobs=jobs) == 1
  assert sorted((record.row, record.seed) for record in results.read(records)) == [("all", 1), ("baseline", 0), ("baseline", 1)]
  out, err = capsys.readouterr()
  assert "failed: all seed 0: status 3: no such label" in err and "3 of 4 runs finished, 1 failed" in out
  assert max(len(line) for line in err.replace("\r", "\n").splitlines()) <= 80
  # Again: only the one that failed.
  pretended.clear()
  assert grid.run(cells, records, quiet=True) == 1
  assert pretended == ["all seed 0"]


@pytest.mark.parametrize("jobs, own, share", [
    (1, {}, "{}"), (2, {}, "{'XLA_CLIENT_MEM_FRACTION': '0.45'}"), (3, {}, "{'XLA_CLIENT_MEM_FRACTION': '0.30'}"),
    (3, {"XLA_CLIENT_MEM_FRACTION": "0.2"}, "{'XLA_CLIENT_MEM_FRACTION': '0.2'}"),
    (3, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2"}, "{'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.2'}"),
])
def test_processes_share_the_memory_of_a_gpu(tmp_path, pretended, monkeypatch, jobs, own, share):
  """Without that the second process of a GPU has no memory left; what the user has set is left alone."""
  for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
    monkeypatch.delenv(name, raising=False)
  for name, value in own.items():
    monkeypatch.setenv(name, value)
  line = "import os, pathlib, sys; print({k: v for k, v in os.environ.items() if 'MEM_FRACTION' in k}); pathlib.Path(sys.argv[1]).touch()"
  monkeypatch.setattr(grid, "_commands", lambda cells: iter([(cells, [sys.executable, "-c", line, str(cells[0].workdir / "DONE")])]))
  cells = expand(tmp_path)
  assert grid.run(cells, quiet=True, jobs=jobs) == 0
  assert {grid.last_line(grid.log_of(cell)) for cell in cells} == {share}


def test_recorded_runs_need_no_folder(tmp_path, pretended):
  cells, records = expand(tmp_path, rows=("baseline",)), tmp_path / "records.jsonl"
  results.write(records, [record_of(cell) for cell in cells])
  assert grid.run(cells, records, quiet=True) == 0
  assert not pretended and not cells[0].workdir.exists()
  with pytest.raises(InputError, match="holds baseline seed 0 of another command"):
    grid.run(expand(tmp_path, rows=("baseline",), overrides=["--config.total_epochs=3"]), records, quiet=True)


def test_a_run_that_goes_on_by_itself_is_left_alone(tmp_path, pretended, capsys):
  """A grid that was killed may have left its process behind."""
  cell = expand(tmp_path, rows=("baseline",))[0]
  grid.prepare(cell)
  with open(grid.log_of(cell), "a") as log:
    fcntl.flock(log, fcntl.LOCK_EX)
    assert grid.run([cell], tmp_path / "records.jsonl", quiet=True) == 1
  assert "another process is at work here" in capsys.readouterr().err and not (cell.workdir / "DONE").exists()


def test_print_shows_the_commands(tmp_path, capsys):
  grid.main(["--table=dahar:table3", "--world=people", "--rows=all", f"--out={tmp_path}", "--print", "--config.total_epochs=2"])
  command = capsys.readouterr().out.strip()
  assert command == expand(tmp_path, rows=("all",), overrides=["--config.total_epochs=2"])[0].command and not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments, message", [
    (["--table=dahar:table3", "--config.seed"], "unknown argument --config.seed"),
    (["--table=dahar:table9"], "has no table 'table9'"),
    (["--table=nobody:table1"], "configs/nobody.py does not exist"),
    (["--table=baseline:table1"], "configs/baseline.py has no tables"),
    (["--cell=nowhere"], "nowhere has no cell.json"),
])
def test_wrong_calls(arguments, message, capsys):
  with pytest.raises(SystemExit) as stopped:
    grid.main(arguments)
  assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_record_of_a_run(world_dir, tmp_path):
  """What a record holds is what the run's own files say, and it comes back from the file as it was."""
  overrides = [f"--config.data.dir={world_dir}", "--config.data.size=88x52", "--config.model.depth=tiny"]
  cell = grid.expand("dahar:table3", seeds=1, out=tmp_path, world="people", size="tiny", rows=("baseline",), overrides=overrides)[0]
  grid.prepare(cell)
  train.train_and_evaluate(cell.load(), cell.workdir, quiet=True)
  with pytest.raises(InputError, match="not finished"):  # the paper prints five crops too
    results.read_run(cell.workdir)
  five = evaluate.evaluate_runs([cell.workdir], split="test", views="five_crop", progress=False)
  record = results.read_run(cell.workdir, lambda workdir: {"twice": 2.0})
  assert (record.key, record.command, record.step, record.samples) == (("dahar:table3", "baseline", "", 0), cell.command, 2, 48)
  assert record.selected_on == "mAP on val" and record.data == "synthetic people" and record.measures == {"twice": 2.0}
  full = run_folder.read_report(cell.workdir, "test-full")
  for view, report in (("five_crop", five), ("full", full)):
    assert record.views[view]["native"]["mAP"] == pytest.approx(report["metrics"]["mAP"], abs=1e-6)
  # The table's convention interpolates: what `attr-jax evaluate --convention=srn` says.
  other = evaluate.evaluate_runs([cell.workdir], split="test", views="full", convention="srn", progress=False, write=False)
  mean = other["metrics"]["mAP"]  # NaN there where a label has no positives, null in the record
  assert record.views["full"]["srn"] == {"mAP": None if np.isnan(mean) else pytest.approx(mean, abs=1e-6)}
  assert record.curves["step"] == [1, 2] and len(record.curves["val"]) == len(record.curves["val_step"]) >= 1
  results.write(tmp_path / "r.jsonl", [record])
  assert results.read(tmp_path / "r.jsonl") == [record]
  assert results.merge([record], [record_of(cell)]) == [record_of(cell)]


def call(out, world_dir, *more):
  return [sys.executable, str(REPOSITORY / "launch" / "grid.py"), "--table=vac:ablation", "--rows=r50,r50_f", "--world=people", "--size=tiny",
          f"--out={out}", f"--config.data.dir={world_dir}", "--config.data.size=88x52", "--config.total_steps=60",
          "--config.checkpoint.every_steps=5", "--config.evaluate.every_epochs=1000", *more]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_grid_that_is_cut_gives_the_same_tables(world_dir, tmp_path, number):
  """Stopped in the middle of its second run, with the run itself killed too or told to save; then the same command again."""
  environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""}
  subprocess.run(call(tmp_path / "whole", world_dir), env=environment, check=True, capture_output=True)
  process = subprocess.Popen(call(tmp_path / "cut", world_dir), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
  second = tmp_path / "cut" / "r50_f" / "seed0"
  deadline = time.time() + 600
  while grid.steps_done(second)[0] < 12:
    assert time.time() < deadline and process.poll() is None
    time.sleep(0.05)
  process.send_signal(number)
  error = process.communicate(timeout=120)[1]
  assert process.returncode == (-9 if number == signal.SIGKILL else 143)
  if number == signal.SIGKILL:
    subprocess.run(["pkill", "-9", "-f", f"workdir={second}"], check=True)  # the process that it left behind
  else:
    assert "grid: stopped; 1 of 2 runs are finished" in error and "saved" in grid.log_of(grid.read_cell(second)).read_text()
  assert len(results.read(tmp_path / "cut" / "records.jsonl")) == 1
  again = subprocess.run(call(tmp_path / "cut", world_dir), env=environment, check=True, capture_output=True, text=True)
  assert "2 of 2 runs finished, 0 failed" in again.stdout
  assert "resuming" in grid.log_of(grid.read_cell(second)).read_text()
  whole, cut = ({record.key: record for record in results.read(tmp_path / name / "records.jsonl")} for name in ("whole", "cut"))
  assert whole.keys() == cut.keys() and len(whole) == 2
  for key, record in whole.items():
    assert cut[key].views == record.views and cut[key].per_attribute == record.per_attribute and cut[key].step == record.step
    assert [value for value in record.views["full"]["native"].values() if value]  # not all of them missing


@pytest.mark.slow
def test_packed_runs_are_those_of_a_grid_without(world_dir, tmp_path):
  """Two seeds as one program, as `--pack=auto` trains them, and one after the other."""
  environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""}
  for name, how in (("packed", ("--pack=auto",)), ("alone", ())):
    done = subprocess.run([*call(tmp_path / name, world_dir), "--config.total_steps=3", "--rows=r50_f", "--seeds=2",
                           "--config.log_every_steps=1", "--config.optimizer.learning_rate=1e-4", *how],
                          env=environment, check=True, capture_output=True, text=True)
    assert "2 of 2 runs finished, 0 failed" in done.stdout
  packed, alone = ({record.key: record for record in results.read(tmp_path / name / "records.jsonl")} for name in ("packed", "alone"))
  assert packed.keys() == alone.keys() and "pack " in (tmp_path / "packed" / "r50_f" / "seed0.log").read_text()
  for key, record in alone.items():
    np.testing.assert_allclose(packed[key].curves["loss"], record.curves["loss"], rtol=1e-4)
    assert packed[key].views["full"]["native"]["mAP"] == pytest.approx(record.views["full"]["native"]["mAP"], abs=2e-3)


@pytest.mark.slow
def test_a_row_that_crashes_stops_nothing_else(world_dir, tmp_path):
  """A real one: it cannot write its metrics."""
  environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""}
  broken = tmp_path / "cells" / "r50" / "seed0"
  (broken / "metrics.jsonl").mkdir(parents=True)
  done = subprocess.run([*call(tmp_path / "cells", world_dir), "--config.total_steps=2"], env=environment, capture_output=True, text=True)
  assert done.returncode == 1 and "1 of 2 runs finished, 1 failed" in done.stdout
  assert "failed: r50 seed 0: status 1: attr-jax: " in done.stderr
  assert [record.row for record in results.read(tmp_path / "cells" / "records.jsonl")] == ["r50_f"]
