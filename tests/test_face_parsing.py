"""Face parsing from end to end on drawn faces: parser, its maps inside and beside the data, two data sets at once."""

import jax
import numpy as np
import pytest

from helpers import REPOSITORY

from attr_jax import annotate
from attr_jax import cli
from attr_jax import evaluate
from attr_jax import explain
from attr_jax import sharding
from attr_jax import train
from attr_jax import writers
from attr_jax.data import annotations
from attr_jax.data.regions import FACE_REGION_NAMES


def load(options, folder, **overrides):
  config = cli.load_config(f"{REPOSITORY}/configs/face.py:{options},tiny", [f"--config.data.dir={folder}"])
  config.update_from_flattened_dict({"total_steps": 3, "evaluate.max_samples": 0, "input.flip": False} | overrides)
  return config


def losses(workdir, key="loss"):
  return [line[key] for line in writers.read_jsonl(workdir / "metrics.jsonl") if key in line]


def pictures(workdir):
  return {path.name for path in (workdir / "pictures").iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def parser(folder, tmp_path_factory):
  """A parser's run and its report; draws and prepares 120 faces and the photos with regions."""
  workdir = tmp_path_factory.mktemp("runs") / "parser"
  return workdir, train.train_and_evaluate(load("system=parser", folder), workdir, quiet=True)


@pytest.mark.slow
def test_parser_reports_each_region_and_draws_it(parser):
  workdir, report = parser
  assert set(report["metrics"]) == {"region_mIoU", *(f"region_IoU/{name}" for name in FACE_REGION_NAMES)} and not report["per_attribute"]
  assert "test-full-regions.png" in pictures(workdir)
  assert "eyebrows" in (workdir / "model_card.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("system, maps, tolerance", [("ssp", "regions", 0.002), ("ssg", "regions_fine", 0.02)])
def test_maps_beside_the_data_do_what_the_frozen_parser_does(parser, folder, tmp_path, system, maps, tolerance):
  """The same losses, up to the rounding of the maps to 8 bits."""
  workdir, _ = parser
  inside = load(f"celeba_aligned/{system}", folder, weights=str(workdir))
  before = sharding.to_host(evaluate.load_run(workdir, sharding.make_mesh()).params["parser"])
  train.train_and_evaluate(inside, tmp_path / "inside", quiet=True)
  run = evaluate.load_run(tmp_path / "inside", sharding.make_mesh(), "last")
  jax.tree.map(np.testing.assert_array_equal, before, sharding.to_host(run.params["parser"]))

  path, figures = annotate.annotate(workdir, "celeba_aligned", evaluate.data_folder(inside), maps=maps, name=f"{maps}_{system}", progress=False)
  assert figures == {}  # these faces have no true regions
  outside = load(f"celeba_aligned/{system},annotation={path.name}", folder)
  source = evaluate.open_source(outside, evaluate.open_data(outside), "train")
  stored = annotations.decode_regions(source[0]["regions"], len(FACE_REGION_NAMES))
  image = evaluate.one(source, evaluate.input_spec(outside))["image"]
  expected = explain.make_explain(evaluate.load_run(workdir, sharding.make_mesh()))({"image": image})[maps][0]
  assert stored.shape == expected.shape and np.abs(stored / 255 - expected).max() < 1 / 255
  # Parameters are drawn by their names, so that the networks start alike whether a parser stands beside them or not.
  train.train_and_evaluate(outside, tmp_path / "outside", quiet=True)
  np.testing.assert_allclose(losses(tmp_path / "outside")[0], losses(tmp_path / "inside")[0], rtol=tolerance)
  for name in ("inside", "outside"):
    shown = pictures(tmp_path / name)
    assert "test-full-channels.png" in shown
    assert ({"test-full-region-weights.png", "test-full-attention.png"} <= shown) == (system == "ssp")
  if system == "ssp":
    report = evaluate.evaluate_runs([tmp_path / "outside"], split="val", views="full", progress=False)
    weights = [[row[f"region_weight/{name}"] for name in FACE_REGION_NAMES] for row in report["per_attribute"].values()]
    np.testing.assert_allclose(np.sum(weights, axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_joint_training_learns_from_two_data_sets_in_one_compiled_step(parser, folder, tmp_path):
  config = load("parsing/joint", folder)
  report = train.train_and_evaluate(config, tmp_path / "joint", quiet=True)
  assert losses(tmp_path / "joint", "compiled_train_steps") == [1]
  total = np.add(losses(tmp_path / "joint", "classification"), losses(tmp_path / "joint", "parsing"))
  np.testing.assert_allclose(losses(tmp_path / "joint"), total, rtol=1e-5)
  # Attributes of one test split, regions of the other.
  assert {"mAP", "classification_error", "region_mIoU", "region_IoU/hair"} <= set(report["metrics"])
  assert report["num_samples"] == evaluate.open_data(config).info.splits["test"]


@pytest.mark.slow
def test_two_runs_are_averaged(parser, folder, tmp_path):
  """The mean of their probabilities, of two with regions and of one that knows nothing of them, as for the picture of channels."""
  workdir, _ = parser
  data = evaluate.data_folder(load("celeba_aligned/ssp", folder))
  annotate.annotate(workdir, "celeba_aligned", data, maps="regions", name="beside", progress=False)
  train.train_and_evaluate(load("celeba_aligned/ssp,annotation=beside", folder), tmp_path / "ssp", quiet=True)  # reads maps from the disk
  train.train_and_evaluate(load("celeba_aligned/ssg", folder, weights=str(workdir)), tmp_path / "ssg", quiet=True)
  train.train_and_evaluate(load("celeba_aligned/avg_pooling", folder), tmp_path / "basic", quiet=True)

  def probability(run, name):
    with np.load(tmp_path / run / "predictions" / f"{name}.npz") as table:
      return 1 / (1 + np.exp(-table["logit"].astype(np.float64)))

  for other in ("ssg", "basic"):
    evaluate.evaluate_runs([tmp_path / "ssp", tmp_path / other], split="test", views="full", progress=False)
    expected = (probability("ssp", "test-full") + probability(other, "test-full")) / 2
    np.testing.assert_allclose(probability("ssp", "test-full-mean_of_2"), expected, atol=1e-6)
  assert (tmp_path / "ssp" / "pictures" / "test-full-mean_of_2-channels.png").stat().st_size > 0
