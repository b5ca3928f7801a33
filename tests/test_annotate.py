"""From a segmenter's run to Da-HAR trained on its masks; what evaluation says and draws of masks."""

import json
import shutil

import jax
import numpy as np
import pytest

from helpers import load

from attr_jax import annotate
from attr_jax import cli
from attr_jax import evaluate
from attr_jax import explain
from attr_jax import train
from attr_jax import writers
from attr_jax.data import images
from attr_jax.errors import InputError


@pytest.fixture(scope="module")
def own_world(world_dir, tmp_path_factory):
  """A copy of the tiny world that annotations may be written into."""
  folder = tmp_path_factory.mktemp("annotated")
  shutil.copytree(world_dir, folder, dirs_exist_ok=True)
  return folder


@pytest.fixture(scope="module")
def segmenter(own_world, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "segmenter"
  config = load("person_segmenter.py:tiny", own_world, **{"data.test_split": "test", "evaluate.max_samples": 0})
  report = train.train_and_evaluate(config, workdir, quiet=True)
  return workdir, report


def data_dir_of(own_world):
  return evaluate.data_folder(load("person_segmenter.py:tiny", own_world))


@pytest.mark.slow
def test_segmenter_reports_mask_iou_and_no_labels(segmenter):
  workdir, report = segmenter
  stored = json.loads((workdir / "evaluation" / "test-full.json").read_text())
  assert set(stored["metrics"]) == {"mask_IoU", "mask_IoU_per_image"} and stored["per_attribute"] == {}
  assert 0 <= report["metrics"]["mask_IoU"] <= 1
  five = evaluate.evaluate_runs([workdir], split="val", views="five_crop", write=False, progress=False)
  assert set(five["metrics"]) == set(stored["metrics"]) and 0 <= five["metrics"]["mask_IoU"] <= 1
  assert "mask IoU" in (workdir / "model_card.md").read_text()
  assert {path.name for path in (workdir / "pictures").iterdir()} == {
      "training.png", "test-full-masks.png", "test-full-features.png"}


@pytest.mark.slow
def test_annotated_masks_are_those_that_the_run_predicts(segmenter, own_world, capsys):
  workdir, report = segmenter
  folder = data_dir_of(own_world)
  command = ["annotate", f"--workdir={workdir}", "--dataset=wider_attribute", f"--data-dir={folder}", "--name=ours"]
  with pytest.raises(SystemExit) as ended:
    cli.main(command)
  assert ended.value.code == 0
  # 120 people in records of their own: the masks of the data set are the truth that the new ones are measured by.
  assert f"test: mask_IoU {100 * report['metrics']['mask_IoU']:.1f}" in capsys.readouterr().out
  config = load("person_segmenter.py:tiny", own_world, **{"data.annotation": "ours"})
  data = evaluate.open_data(config)
  run = evaluate.load_run(workdir, jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]))
  for split, index in (("train", 0), ("test", 7)):
    raw = evaluate.open_source(config, data, split)[index]
    mask = images.decode_mask(raw["person_mask"])
    view = explain.pipeline.evaluation_view(data.source(split)[index], spec=evaluate.input_spec(config), views="full")
    expected = explain.make_explain(run)({"image": view["image"][None]})["mask"][0]
    assert mask.shape == expected.shape
    assert np.abs(mask / 255 - expected).max() < 1 / 255
  with pytest.raises(SystemExit) as ended:
    cli.main(command)
  assert ended.value.code == 2 and "--overwrite" in capsys.readouterr().err


@pytest.mark.slow
def test_dahar_trains_on_annotated_masks(segmenter, own_world, tmp_path):
  workdir, _ = segmenter
  annotate.annotate(workdir, "wider_attribute", data_dir_of(own_world), name="person_mask", progress=False)
  losses = {}
  for name in ("", "person_mask"):
    config = load("dahar.py:tiny", own_world, **{"data.annotation": name, "data.val_split": "", "log_every_steps": 1})
    train.train_and_evaluate(config, tmp_path / f"run{name}", quiet=True)
    losses[name] = [line["mask"] for line in writers.read_jsonl(tmp_path / f"run{name}" / "metrics.jsonl") if "mask" in line]
  assert len(losses[""]) == 3 and losses[""] != losses["person_mask"]


@pytest.mark.slow
def test_a_model_without_masks_cannot_annotate(config, own_world, tmp_path):
  config.data.test_split = config.data.val_split = ""
  train.train_and_evaluate(config, tmp_path / "baseline", quiet=True)
  with pytest.raises(InputError, match="predicts no masks"):
    annotate.annotate(tmp_path / "baseline", "wider_attribute", data_dir_of(own_world), progress=False)


def test_missing_annotation_is_named(own_world):
  config = load("dahar.py:tiny", own_world, **{"data.annotation": "nothing"})
  with pytest.raises(InputError, match="no such annotation"):
    evaluate.open_source(config, evaluate.open_data(config), "train")
