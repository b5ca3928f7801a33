"""SRN, DIAA and Da-HAR through the training loop: memory, frozen groups, stages that build on each other."""

import jax
import numpy as np
import pytest

from helpers import REPOSITORY
from helpers import load

from attr_jax import cli
from attr_jax import evaluate
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import train
from attr_jax import writers


def groups_of(workdir):
  run = evaluate.load_run(workdir, sharding.make_mesh(), "last")
  return {name: np.concatenate([np.ravel(x) for x in jax.tree.leaves(group)]) for name, group in run.params.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dahar.py:tiny", "dahar.py:design=B,tiny", "srn.py:tiny", "srn.py:variant=released,tiny",
                                  "diaa.py:variant=code,tiny"])
def test_trains_and_is_restored(name, world_dir, tmp_path):
  train.train_and_evaluate(load(name, world_dir), tmp_path / "run", quiet=True)
  lines = writers.read_jsonl(tmp_path / "run" / "metrics.jsonl")
  assert [line["compiled_train_steps"] for line in lines if "compiled_train_steps" in line] == [1]
  assert any("val/mAP" in line for line in lines)


def test_dahar_mask_flips_and_crops_with_its_image(world_dir):
  """The batch that Da-HAR trains on holds a mask of the input's size with both values in it."""
  from attr_jax.data import pipeline

  config = load("dahar.py:tiny", world_dir)
  source = evaluate.open_data(config).source("train")
  dataset = pipeline.train_dataset(source, evaluate.input_spec(config), batch_size=8, seed=0)
  batch = dataset[0]
  assert batch["person_mask"].shape == batch["image"].shape[:3]
  assert batch["person_mask"].min() == 0 and batch["person_mask"].max() == 255


@pytest.mark.slow
def test_diaa_history_survives_a_resume(world_dir, tmp_path, monkeypatch):
  """120 people are 60 for training: 8 epochs of steps, so that stored predictions weigh before and after the cut."""
  steps_per_epoch = 60 / 20
  config = load("diaa.py:tiny", world_dir, batch_size=20, total_steps=int(8 * steps_per_epoch), log_every_steps=1,
                **{"evaluate.every_epochs": 100.0, "checkpoint.every_steps": 1000})
  train.train_and_evaluate(config, tmp_path / "whole", quiet=True)
  monkeypatch.setattr(train.Preemption, "reached", lambda self, step: step == 20)
  with pytest.raises(train.Preempted):
    train.train_and_evaluate(config, tmp_path / "cut", quiet=True)
  monkeypatch.undo()
  train.train_and_evaluate(config, tmp_path / "cut", quiet=True)
  weights = [[line["attention_weight"] for line in writers.read_jsonl(tmp_path / name / "metrics.jsonl")
              if "attention_weight" in line] for name in ("whole", "cut")]
  assert weights[0] == weights[1]
  assert set(weights[0][:15]) == {1.0} and min(weights[0][15:]) > 1.0  # from epoch 5 on
  a, b = groups_of(tmp_path / "whole"), groups_of(tmp_path / "cut")
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.slow
def test_stages_train_their_groups_and_start_from_the_run_before(world_dir, tmp_path):
  train.train_and_evaluate(load("srn.py:stage=cls,tiny", world_dir), tmp_path / "one", quiet=True)
  second = load("srn.py:stage=att,tiny", world_dir, weights=str(tmp_path / "one"))
  train.train_and_evaluate(second, tmp_path / "two", quiet=True)
  before, after = groups_of(tmp_path / "one"), groups_of(tmp_path / "two")
  changed = {name for name in before if not np.array_equal(before[name], after[name])}
  assert changed == {"attention"}


@pytest.mark.slow
def test_a_run_of_another_method_gives_what_it_shares(config, world_dir, tmp_path):
  config.data.test_split = ""
  train.train_and_evaluate(config, tmp_path / "baseline", quiet=True)
  second = load("srn.py:stage=sr,tiny", world_dir, weights=str(tmp_path / "baseline"))
  train.train_and_evaluate(second, tmp_path / "srn", quiet=True)
  averaged, kept = groups_of(tmp_path / "baseline"), groups_of(tmp_path / "srn")
  np.testing.assert_array_equal(averaged["backbone"], kept["backbone"])


def test_frozen_groups_stand_still_under_weight_decay():
  import jax.numpy as jnp

  from attr_jax import config as config_lib

  tx = optim.make_optimizer(config_lib.default_config(), lambda step: 0.1, ("head",))
  params = {"head": {"kernel": jnp.ones(3)}, "backbone": {"kernel": jnp.ones(3)}}
  updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
  assert np.all(updates["head"]["kernel"] < 0) and np.all(updates["backbone"]["kernel"] == 0)


def test_full_size_states_hold_the_history():
  from attr_jax import config as config_lib

  model = models.build({"name": "diaa", "depth": "101"}, 14)
  tx = optim.make_optimizer(config_lib.default_config(), lambda step: 0.0)
  memory = models.initial_memory("diaa", 22_968, 14)
  state = state_lib.abstract_state(model, tx, (224, 224, 3), memory, sharding.make_mesh())
  assert sum(x.size for x in jax.tree.leaves(state.params)) == 108_012_706
  assert state.memory["probability"].shape == (6, 22_968, 14)


@pytest.mark.slow
@pytest.mark.parametrize("name, dataset, source, size", [
    ("srn", "pa100k", "pa100k", "64x32"), ("diaa", "pa100k", "pa100k", "64x32"), ("dahar", "pa100k", "pa100k", "64x32"),
    ("vac", "pa100k", "pa100k", "64x64"), ("vac", "coco", "coco_open", "72x72"),
])
def test_trains_and_evaluates_on_real_photos(name, dataset, source, size, real_data, tmp_path):
  from attr_jax.data import prepare

  prepare.prepare(dataset, source=real_data / source, data_dir=tmp_path / "data", size=size, progress=False,
                  allow_deviations=True)
  config = cli.load_config(f"{REPOSITORY}/configs/{name}.py:dataset={dataset},small", [
      f"--config.data.dir={tmp_path / 'data'}", "--config.total_steps=3", "--config.evaluate.max_samples=32"])
  report = train.train_and_evaluate(config, tmp_path / "run", quiet=True)
  assert report["num_samples"] == {"pa100k": 200, "coco": 27}[dataset]
  assert 0 < report["metrics"]["mAP"] < 1 and 0 <= report["metrics"]["top3_F1-O"] <= 1
  assert ("flip_error" in report["metrics"]) == (name != "diaa")  # DIAA has attention but no heatmap of its classifier
