"""The files of a run's folder, for others who read them while they are written."""

import pathlib

import pytest

from attr_jax import evaluate
from attr_jax import run_folder


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
