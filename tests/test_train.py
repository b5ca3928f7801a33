"""The loop end to end at tiny size: what a run writes, resumes, refuses."""

import json
import os
import signal

import jax
import numpy as np
import pytest
import sklearn.metrics

from attr_jax import checkpoint as checkpoint_lib
from attr_jax import evaluate
from attr_jax import metrics
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import train
from attr_jax import writers
from attr_jax.errors import InputError


def final_params(workdir, checkpoint="last"):
  return sharding.to_host(evaluate.load_run(workdir, sharding.make_mesh(), checkpoint).params)


def assert_identical(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_highest_F1_on_validation(config, workdir):
  """`thresholds.json` against scikit-learn: no threshold has a higher F1 on the validation images of that attribute; 0.5 where they are few."""
  found = json.loads((workdir / "thresholds.json").read_text())
  report = evaluate.evaluate_runs([workdir], split="val", views="full", progress=False)
  assert (found["step"], found["split"], found["views"]) == (report["step"], "val", "full")
  names = list(found["threshold"])
  assert run_folder.read_thresholds(workdir, report["step"], names) == found and not run_folder.read_thresholds(workdir, 1000, names)
  table = np.load(workdir / "predictions" / "val-full.npz")
  score = metrics.probabilities(table["logit"])
  assert names == list(evaluate.open_data(config).info.label_names)
  for i, threshold in enumerate(found["threshold"].values()):
    known, label = table["known"][:, i], table["label"][:, i]
    if min(label[known].sum(), (1 - label[known]).sum()) < metrics.FEWEST:
      assert threshold == 0.5
    else:
      f1 = lambda t: sklearn.metrics.f1_score(label[known], score[known, i] >= t, zero_division=0)
      assert f1(threshold) == pytest.approx(max(f1(t) for t in score[known, i]))


def test_run_folder(config, tmp_path, monkeypatch):
  workdir = tmp_path / "run"
  config.total_steps, config.checkpoint.every_steps = 6, 2
  saved, save = [], checkpoint_lib.Checkpoints.save
  monkeypatch.setattr(checkpoint_lib.Checkpoints, "save", lambda self, step, *rest: (saved.append(step), save(self, step, *rest)))
  report = train.train_and_evaluate(config, workdir, quiet=True)
  assert saved == [2, 4, 6]
  for name in ("config.json", "dataset.json", "environment.json", "parameters.txt", "metrics.jsonl", "model_card.md", "DONE",
               "evaluation/test-full.json", "predictions/test-full.npz", "pictures/training.png",
               "pictures/test-full-attributes.png", "pictures/test-full-images.png"):
    assert (workdir / name).stat().st_size > 0, name
  lines = writers.read_jsonl(workdir / "metrics.jsonl")
  assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
  assert any("val/mAP" in line for line in lines)
  assert [line["compiled_train_steps"] for line in lines if "compiled_train_steps" in line] == [1]
  assert lines[0]["seconds_to_first_step"] > 0
  assert (workdir / "parameters.txt").read_text().splitlines()[-1].startswith("Total: 306,046")
  with np.load(workdir / "predictions" / "test-full.npz") as table:
    data = evaluate.open_data(config)
    label, known, ids = data.labels("test")
    np.testing.assert_array_equal(table["id"], ids)
    np.testing.assert_array_equal(table["label"], label)
    np.testing.assert_array_equal(table["known"], known)
    again = evaluate.measure(dict(table), data.info.label_names)
  written = json.loads((workdir / "evaluation" / "test-full.json").read_text())
  assert written["metrics"]["mAP"] == pytest.approx(again["metrics"]["mAP"])
  assert written["split"] == "test" and written["views"] == "full" and written["convention"] == "native"
  assert report["num_samples"] == len(label)
  assert_highest_F1_on_validation(config, workdir)
  assert len(checkpoint_lib.Checkpoints(workdir / "checkpoints").steps()) <= 2  # best and last


def test_resume_equals_an_uninterrupted_run(config, tmp_path, monkeypatch):
  config.total_steps, config.checkpoint.every_steps, config.data.test_split = 7, 2, ""
  train.train_and_evaluate(config, tmp_path / "whole", quiet=True)
  # SIGTERM after the third step: saved there, and the same call goes on.
  reached = train.Preemption.reached
  monkeypatch.setattr(train.Preemption, "reached", lambda self, step: step == 3 and not (tmp_path / "seen").exists())
  with pytest.raises(train.Preempted, match="step 3"):
    train.train_and_evaluate(config, tmp_path / "cut", quiet=True)
  (tmp_path / "seen").touch()
  monkeypatch.setattr(train.Preemption, "reached", reached)
  train.train_and_evaluate(config, tmp_path / "cut", quiet=True)
  assert_identical(final_params(tmp_path / "whole"), final_params(tmp_path / "cut"))
  losses = [[line["loss"] for line in writers.read_jsonl(tmp_path / name / "metrics.jsonl") if "loss" in line]
            for name in ("whole", "cut")]
  assert losses[0] == losses[1]


@pytest.mark.slow
def test_several_steps_per_dispatch_are_the_same_run(config, tmp_path):
  config.total_steps, config.checkpoint.every_steps, config.data.val_split, config.data.test_split = 8, 5, "", ""
  config.log_every_steps = 1
  lines = {}
  for count in (1, 3):
    config.steps_per_dispatch = count
    train.train_and_evaluate(config, tmp_path / str(count), quiet=True)
    lines[count] = writers.read_jsonl(tmp_path / str(count) / "metrics.jsonl")
    assert checkpoint_lib.Checkpoints(tmp_path / str(count) / "checkpoints").steps()[-1] == 8
  assert lines[1][-1]["compiled_train_steps"] == 1 and lines[3][-1]["compiled_train_steps"] == 2
  losses = {count: [line["loss"] for line in found if "loss" in line] for count, found in lines.items()}
  assert len(losses[1]) == 8
  np.testing.assert_allclose(losses[3], losses[1], rtol=1e-4)


@pytest.mark.parametrize("step, expected", [(0, 3), (2, 1), (3, 1), (4, 3), (5, 3), (7, 1), (8, 1)])
def test_steps_at_once_end_where_there_is_work(step, expected):
  """Work after steps 4 and 9, the last one."""
  assert train._steps_at_once(step, 3, 9, lambda step: step in (4, 9)) == expected


@pytest.mark.slow
def test_sigterm_saves_and_stops(config, tmp_path, monkeypatch):
  config.total_steps = 50
  kill_at = iter(range(1, 51))
  next_batch = sharding.put_batch

  def put_and_kill(batch, where):
    if next(kill_at) == 5:
      os.kill(os.getpid(), signal.SIGTERM)
    return next_batch(batch, where)

  monkeypatch.setattr(train.sharding, "put_batch", put_and_kill)
  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(train.Preempted, match="the same command goes on"):
    train.train_and_evaluate(config, tmp_path / "run", quiet=True)
  assert signal.getsignal(signal.SIGTERM) is before
  step, = checkpoint_lib.Checkpoints(tmp_path / "run" / "checkpoints").steps()
  assert 3 <= step < 10  # batches are put on the devices up to two steps ahead


@pytest.mark.slow
def test_nan_names_step_and_parts_and_keeps_the_checkpoint(config, tmp_path):
  config.total_steps, config.checkpoint.every_steps = 30, 1
  config.schedule.name, config.optimizer.clip_norm = "constant", 0.0
  config.optimizer.learning_rate = 1e12
  with pytest.raises(train.NonFiniteError, match=r"step \d+ is not finite .*loss"):
    train.train_and_evaluate(config, tmp_path / "run", quiet=True)
  run = evaluate.load_run(tmp_path / "run", sharding.make_mesh(), "last")
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(sharding.to_host(run.params)))
  assert not (tmp_path / "run" / "DONE").exists()


@pytest.mark.slow
def test_finished_run_is_left_alone_and_another_config_is_refused_its_folder(config, tmp_path, capsys):
  first = train.train_and_evaluate(config, tmp_path / "run", quiet=True)
  stamp = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
  again = train.train_and_evaluate(config, tmp_path / "run")
  assert "finished already" in capsys.readouterr().out
  assert again["metrics"]["mAP"] == pytest.approx(first["metrics"]["mAP"])
  assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == stamp
  (tmp_path / "run" / "DONE").unlink()
  config.optimizer.learning_rate = 0.5
  with pytest.raises(InputError, match="another config .*learning_rate: .* -> 0.5"):
    train.train_and_evaluate(config, tmp_path / "run", quiet=True)


def test_unknown_loss_option_is_named(config, tmp_path):
  with config.unlocked():
    config.loss.gama = 2.0
  with pytest.raises(InputError, match="config.loss.gama is unknown"):
    train.train_and_evaluate(config, tmp_path / "run", quiet=True)


@pytest.mark.slow
def test_options_change_what_is_trained(config, tmp_path):
  """Every option below must leave its mark: a flag that is parsed and ignored is a defect."""
  def trained(name, **overrides):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(overrides)
    train.train_and_evaluate(changed, tmp_path / name, quiet=True)
    return np.concatenate([x.ravel() for x in jax.tree.leaves(final_params(tmp_path / name))])

  config.data.val_split = config.data.test_split = ""
  config.total_steps, config.optimizer.name, config.schedule.warmup_epochs = 3, "sgd", 0.0
  base = trained("base")
  np.testing.assert_array_equal(base, trained("same"))
  for key, value in {
      "seed": 1, "optimizer.momentum": 0.0, "optimizer.weight_decay": 0.1, "optimizer.clip_norm": 0.01,
      "optimizer.ema_decay": 0.5, "schedule.name": "constant", "schedule.warmup_epochs": 0.5,
      "accumulate_steps": 2, "batch_norm.scope": "global", "compute_dtype": "bfloat16",
      "loss.loss": "inverse_ratio", "loss.unspecified": "negative", "loss.reduction": "mean",
      "input.brightness": 0.0, "input.flip": False, "input.crop": "none", "input.keep_ratio": True,
      "input.mean": (0.0, 0.0, 0.0), "optimizer.name": "adam",
  }.items():
    assert np.abs(base - trained(key, **{key: value})).max() > 0, key


@pytest.mark.slow
def test_tensorboard_and_several_runs_averaged(config, tmp_path):
  config.tensorboard = True
  for seed in (0, 1):
    config.seed = seed
    train.train_and_evaluate(config, tmp_path / str(seed), quiet=True)
  assert list((tmp_path / "0" / "tensorboard").glob("events*"))
  report = evaluate.evaluate_runs([tmp_path / "0", tmp_path / "1"], split="test", views="full", progress=False)
  tables = [np.load(tmp_path / str(seed) / "predictions" / "test-full.npz") for seed in (0, 1)]
  mean = sum(metrics.probabilities(table["logit"]) for table in tables) / 2
  averaged = np.load(tmp_path / "0" / "predictions" / "test-full-mean_of_2.npz")
  np.testing.assert_allclose(metrics.probabilities(averaged["logit"]), mean, rtol=1e-9)
  assert len(report["runs"]) == 2


@pytest.mark.slow
def test_five_crop_evaluation_averages_logits(config, tmp_path):
  train.train_and_evaluate(config, tmp_path / "run", quiet=True)
  report = evaluate.evaluate_runs([tmp_path / "run"], split="val", views="five_crop", progress=False)
  assert report["views"] == "five_crop" and (tmp_path / "run" / "evaluation" / "val-five_crop.json").exists()
