"""The files of a run's folder, for others who read them while they are written."""

import pathlib
import types

import pytest

from attr_jax import evaluate
from attr_jax import explain
from attr_jax import run_folder
from attr_jax import writers
from attr_jax.errors import InputError


def test_a_start_that_is_cut_leaves_whole_files(config, tmp_path, monkeypatch):
  """Another process may read the config at any moment, and a run may be killed at any."""
  info = evaluate.open_data(config).info
  run_folder.write_start(config, info, tmp_path)
  before = run_folder.read_start(tmp_path)
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {"config.json", "dataset.json", "environment.json"}

  def cut(self, target):
    raise OSError("killed here")

  monkeypatch.setattr(pathlib.Path, "replace", cut)
  with pytest.raises(OSError, match="killed here"):
    run_folder.write_start(config, info, tmp_path)
  assert run_folder.read_start(tmp_path) == before


def test_a_damaged_config_is_named(config, tmp_path):
  run_folder.write_start(config, evaluate.open_data(config).info, tmp_path)
  text = (tmp_path / "config.json").read_text()
  (tmp_path / "config.json").write_text(text[: len(text) // 2])
  with pytest.raises(InputError, match="config.json is damaged"):
    run_folder.read_start(tmp_path)


def test_one_line_that_is_cut_costs_no_other(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n{"ste')
  assert writers.read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 3}]


def test_the_small_copies_are_those_of_the_method(config):
  run = types.SimpleNamespace(config=config)
  config.input.full_size = (224, 112)
  assert explain.small_size(run) == (192, 96)
  with config.unlocked():
    config.model.small_size = (160, 80)
  assert explain.small_size(run) == (160, 80)
