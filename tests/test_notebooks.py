"""Notebooks: what is committed was run and shows pictures; each runs from start to end at tiny size."""

import pathlib

import pytest

from helpers import REPOSITORY

nbformat = pytest.importorskip("nbformat", reason="pip install 'attr_jax[notebooks]'")

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
  return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_all_are_there():
  assert [path.stem for path in NOTEBOOKS] == ["ablation_tables", "attention_maps", "export", "quickstart", "your_own_photos"]


@by_name
def test_committed_outputs_are_whole_and_have_pictures(path):
  cells = code_cells(path)
  assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # run once, in order
  outputs = [output for cell in cells for output in cell.outputs]
  assert not [output for output in outputs if output.output_type == "error"]
  assert [output for output in outputs if {"image/png", "image/jpeg"} & output.get("data", {}).keys()]
  assert path.stat().st_size < 3e6
  assert str(pathlib.Path.home()) not in path.read_text()


@by_name
def test_first_cell_installs_on_colab(path):
  first = code_cells(path)[0].source
  assert first == code_cells(NOTEBOOKS[0])[0].source
  assert "google.colab" in first and "pip" in first


@pytest.mark.docs
@by_name
def test_runs(path, tmp_path):
  nbclient = pytest.importorskip("nbclient", reason="pip install 'attr_jax[notebooks]'")
  for name in ("attr_jax", "configs", "launch"):
    (tmp_path / name).symlink_to(REPOSITORY / name)
  notebook = nbformat.read(path, 4)
  size, = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
  assert size.source.startswith("tiny = False")
  size.source = "tiny = True"
  nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
  outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
  assert [output for output in outputs if {"image/png", "image/jpeg"} & output.get("data", {}).keys()]
