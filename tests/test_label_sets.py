"""Label sets in evaluation: searched thresholds, the decoder's rule, and a whole run of six views."""

import json
import types

import jax
import ml_collections
import numpy as np
import pytest

from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import evaluate
from attr_jax import metrics
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import steps
from attr_jax import train
from attr_jax.errors import InputError
from attr_jax.models import attncnn_rnn
from helpers import REPOSITORY

LABELS = 6
INFO = types.SimpleNamespace(positive_ratio=(0.5, 0.3, 0.2, 0.1, 0.05, 0.0), label_names=tuple("abcdef"))


def config_with(threshold, decide=None, name="attncnn_rnn"):
  return ml_collections.ConfigDict({
      "model": {"name": name}, "evaluate": {"threshold": threshold}, "data": {"val_split": "val"},
      "decide": decide or {"rule": "class", "factor": 2.5, "stop": "first_failure"}})


def table(seed, paths=False):
  rng = np.random.default_rng(seed)
  label = (rng.random((30, LABELS)) < INFO.positive_ratio).astype(np.uint8)
  result = {"label": label, "known": np.ones_like(label, bool), "logit": (rng.normal(size=label.shape) + 2 * label - 2).astype(np.float32)}
  if paths:
    result["step_labels"] = np.stack([[rng.permutation(LABELS)[:4] for _ in range(2)] for _ in range(30)]).astype(np.int32)
    result["step_probability"] = rng.random((30, 2, 4)).astype(np.float32)
  return result


@pytest.mark.parametrize("search", ["global", "prior", "per_class"])
def test_thresholds_come_from_validation_alone(search):
  test, val = table(0), table(1)
  chosen = evaluate.choose(config_with(search), INFO, test, val)
  flipped = {**test, "label": 1 - test["label"]}
  np.testing.assert_array_equal(chosen.decision, evaluate.choose(config_with(search), INFO, flipped, val).decision)
  expected = metrics.search_thresholds(val["label"], metrics.probabilities(val["logit"]), kind=search, prior=INFO.positive_ratio)
  np.testing.assert_array_equal(chosen.decision, metrics.probabilities(test["logit"]) >= expected)
  np.testing.assert_allclose(np.broadcast_to(chosen.threshold, LABELS), expected)
  assert isinstance(chosen.threshold, float) == (search == "global")
  measured = evaluate.measure(test, INFO.label_names, chosen=chosen, label_groups={"vowels": ("a", "e"), "others": ("b", "c", "d", "f")})
  assert measured["metrics"]["sample_F2"] == metrics.set_metrics(test["label"], chosen.decision)["sample_F2"]
  assert measured["per_group"]["vowels"] == metrics.set_metrics(test["label"][:, [0, 4]], chosen.decision[:, [0, 4]])
  assert list(measured["per_group"]) == ["all labels", "vowels", "others"] and measured["threshold"] == chosen.threshold
  assert "label sets" in run_folder.metrics_table(measured)


def test_a_fixed_threshold_is_the_conventions():
  assert evaluate.choose(config_with("fixed"), INFO, table(0), None) is None
  old = config_with("fixed", name="baseline")
  del old.evaluate.threshold  # a run of before there was a choice
  assert evaluate.choose(old, INFO, table(0), None) is None
  measured = evaluate.measure(table(0), INFO.label_names)
  assert "per_group" not in measured and measured["threshold"] == 0.5 and "label sets" not in run_folder.metrics_table(measured)


def test_a_decoder_decides_by_its_paths():
  test, val = table(0, paths=True), table(1, paths=True)
  fixed = evaluate.choose(config_with("fixed"), INFO, test, None)
  np.testing.assert_array_equal(fixed.decision, attncnn_rnn.decide(None, test, INFO))
  assert fixed.threshold == 2.5
  for rule in attncnn_rnn.RULES:
    options = {"rule": rule, "factor": 2.5, "stop": "mask"}
    searched = evaluate.choose(config_with("global", options), INFO, test, val)
    f2 = {factor: metrics.set_metrics(val["label"], np.asarray(attncnn_rnn.decide(None, val, INFO, rule=rule, factor=factor, stop="mask")))["sample_F2"]
          for factor in attncnn_rnn.RULES[rule]}
    assert f2[searched.threshold] == max(f2.values())
    np.testing.assert_array_equal(searched.decision, attncnn_rnn.decide(None, test, INFO, rule=rule, factor=searched.threshold, stop="mask"))


def test_a_search_needs_validation():
  with pytest.raises(InputError, match="val_split"):
    evaluate.choose(config_with("global"), INFO, table(0), None)


def load(options, folder, *overrides):
  return cli.load_config(f"{REPOSITORY}/configs/attncnn_rnn.py:{options}", [f"--config.data.dir={folder}", *overrides])


@pytest.fixture(scope="module")
def artworks_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("artworks")
  train._prepare_world(load("tiny", folder), quiet=True)
  return folder


@pytest.mark.slow
def test_a_whole_run_of_six_views(artworks_dir, tmp_path):
  """The decoder with HOG: trains, validates and tests on six views; what it wrote is what its parts give."""
  config = load("system=attncnn_rnn_hog,encoder=trainable,tiny", artworks_dir)
  report = train.train_and_evaluate(config, tmp_path / "run", quiet=True)
  written = json.loads((tmp_path / "run" / "evaluation" / "test-six_view.json").read_text())
  assert written["views"] == "six_view" and written["threshold"] == 2.5 and "decoder" in written["rule"]
  assert written["metrics"]["sample_F2"] == pytest.approx(report["metrics"]["sample_F2"])
  run = evaluate.load_run(tmp_path / "run", sharding.make_mesh())
  with np.load(tmp_path / "run" / "predictions" / "test-six_view.npz") as stored:
    predictions = dict(stored)
  samples = len(predictions["id"])
  assert predictions["step_labels"].shape == predictions["step_probability"].shape == (samples, 6, 10)
  np.testing.assert_array_equal(predictions["decision"], attncnn_rnn.decide(None, predictions, run.info))
  assert predictions["decision"].any(axis=1).all()
  for view in range(6):
    assert all(len(set(path)) == 10 for path in predictions["step_labels"][:, view])
  # The mean of the views' logits, and not one of them.
  source = evaluate.open_source(config, evaluate.open_data(config), "test")
  predict = steps.make_predict_step(run.model, run.config)
  views = np.stack([evaluate.pipeline.evaluation_view(source[i], spec=evaluate.input_spec(config), views="six_view")["image"] for i in range(2)])
  each = [predict(run.params, run.batch_stats, {"image": views[:, view]})["logit"] for view in range(6)]
  np.testing.assert_allclose(predictions["logit"][:2], np.mean(each, axis=0), rtol=1e-3, atol=1e-4)
  assert np.ptp(np.stack(each), axis=0).max() > 1e-3
  with pytest.raises(SystemExit) as ended:
    cli.main(["evaluate", f"--workdir={tmp_path / 'run'}", "--split=val"])  # on the views of the run
  assert ended.value.code == 0
  assert (tmp_path / "run" / "evaluation" / "val-six_view.json").is_file()
  for name in ("steps", "hog", "roc"):
    assert (tmp_path / "run" / "pictures" / f"test-six_view-{name}.png").stat().st_size > 0


@pytest.mark.slow
def test_a_cut_run_goes_on_as_if_nothing_had_happened(artworks_dir, tmp_path, monkeypatch):
  """Dropout, jitter and crops are functions of seed, step and sample."""
  config = load("encoder=trainable,tiny", artworks_dir, "--config.data.test_split=", "--config.total_steps=4")
  train.train_and_evaluate(config, tmp_path / "whole", quiet=True)
  monkeypatch.setattr(train.Preemption, "reached", lambda self, step: step == 2)
  with pytest.raises(train.Preempted):
    train.train_and_evaluate(config, tmp_path / "cut", quiet=True)
  monkeypatch.undo()
  train.train_and_evaluate(config, tmp_path / "cut", quiet=True)
  params = [sharding.to_host(evaluate.load_run(tmp_path / name, sharding.make_mesh(), "last").params) for name in ("whole", "cut")]
  jax.tree.map(np.testing.assert_array_equal, *params)


@pytest.mark.slow
def test_a_frozen_encoder_stays(artworks_dir, tmp_path, capsys):
  config = load("system=baseline,tiny", artworks_dir, "--config.data.test_split=", "--config.data.val_split=", "--config.evaluate.threshold=fixed")
  train.train_and_evaluate(config, tmp_path, quiet=True)
  assert "warning: 'backbone' is not trained here and config.weights is empty" in capsys.readouterr().err
  run = evaluate.load_run(tmp_path, sharding.make_mesh(), "last")
  fresh = evaluate.models.build(config.model, len(run.info.label_names)).init(
      jax.random.key(config.seed), np.zeros((1, *config.input.size, 3), np.float32), train=False)
  for group, same in (("backbone", True), ("classifier", False)):
    equal = [np.allclose(a, b, atol=1e-7) for a, b in zip(jax.tree.leaves(run.params[group]), jax.tree.leaves(fresh["params"][group]))]
    assert all(equal) if same else not any(equal), group
  assert all(np.allclose(a, b) for a, b in zip(jax.tree.leaves(run.batch_stats), jax.tree.leaves(fresh["batch_stats"])))


def test_an_unknown_group_is_named(artworks_dir):
  config = load("tiny", artworks_dir, "--config.input.crop_group=style")
  info = evaluate.open_data(config).info
  with pytest.raises(InputError, match="crop_group='style' is no group of imet2019; there are: culture, tag"):
    evaluate.input_spec(config, info)
  config.input.crop_group = "culture"
  spec = evaluate.input_spec(config, info)
  assert [name for name, kept in zip(info.label_names, spec.crop_group) if kept] == [n for n in info.label_names if n.startswith("culture::")]


def test_options_of_the_config_are_checked():
  with pytest.raises(InputError, match="system='vgg' is unknown; known: baseline, hog, attncnn_rnn"):
    load("system=vgg", "data")
  with pytest.raises(InputError, match="encoder='half'"):
    load("encoder=half", "data")
  released = load("released", "data")
  assert (released.input.crop_labels, released.decide.stop, released.model.frozen_statistics) == ("none", "mask", False)
  assert config_lib.from_json(config_lib.to_json(released)).decide.stop == "mask"
