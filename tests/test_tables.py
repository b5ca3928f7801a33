"""The tables of the papers: every row loads, is what it says at every size, and trains."""

from collections.abc import Mapping
import importlib.util
import itertools
import math
import pathlib
import re
import types

import jax
import ml_collections
import numpy as np
import pytest

from attr_jax import checkpoint
from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import evaluate
from attr_jax import metrics
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
from attr_jax import writers
from attr_jax.data import pipeline
from attr_jax.data import regions
from attr_jax.errors import InputError

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
NUM_LABELS = {"wider_attribute": 14, "coco": 80, "pa100k": 26, "peta": 35, "rap": 51, "celeba": 40, "celeba_aligned": 40, "lfwa": 40,
              "helen": 0, "imet2019": 1103}
SIZES = ("", "small", "world,small", "tiny")
# What a smaller size changes; everything else that a row sets stays.
SHRUNK = {"model.depth", "input.resize", "input.size", "input.full_size", "optimizer.learning_rate", "schedule.name", "total_epochs",
          "batch_size", "total_steps", "optimizer.name", "evaluate.every_epochs", "checkpoint.every_epochs"}
# At full size, by what the papers print or by the sum of their layers.
PARAMETERS = {
    "attncnn_rnn.py:val/baseline": 25_768_079,
    "attncnn_rnn.py:val/hog": 37_203_983,
    "attncnn_rnn.py:val/attncnn_rnn": 40_820_447,
    "attncnn_rnn.py:val/attncnn_rnn_hog": 52_256_351,
    "dahar.py:table1/dahar": 52_373_550,
    "dahar.py:table2/dahar_o": 52_506_269,
    "dahar.py:table2/dahar_w": 52_506_269,
    "dahar.py:table2/dahar_m": 52_506_269,
    "dahar.py:table3/baseline": 45_436_010,
    "dahar.py:table3/fusion": 49_377_898,
    "dahar.py:table3/self_mask": 45_868_333,
    "dahar.py:table3/masked_attention": 47_999_339,
    "dahar.py:table3/all": 52_373_550,
    "dahar.py:table3/ignore_unspecified": 52_373_550,
    "dahar.py:table3/train_val": 52_373_550,
    "diaa.py:wider/resnet101": 42_528_846,
    "diaa.py:wider/diaa": 108_012_706,
    "diaa.py:wider_ablation/backbone": 42_528_846,
    "diaa.py:wider_ablation/weighted_focal": 42_528_846,
    "diaa.py:wider_ablation/one_scale": 94_400_120,
    "diaa.py:wider_ablation/variance_weights": 94_400_120,
    "diaa.py:wider_ablation/two_scales": 108_012_706,
    "diaa.py:peta/resnet101": 42_571_875,
    "diaa.py:peta/diaa": 108_163_381,
    "srn.py:wider/resnet101": 42_528_846,
    "srn.py:wider/srn": 46_141_560,
    "srn.py:wider/resnet101_train": 42_528_846,
    "srn.py:wider/srn_train": 46_141_560,
}


def tables_of(path):
  """TABLES of a config file, {} where there are none."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return getattr(module, "TABLES", {})


TABLES = {path.stem: tables_of(path) for path in sorted(CONFIGS.glob("*.py"))}
ROWS = {f"{file}.py:{table}/{name}": row
        for file, tables in TABLES.items() for table, rows in tables.items() for name, row in rows.items()}
RUNNABLE = [path for path, row in ROWS.items() if row.config is not None]
QUOTED = [path for path, row in ROWS.items() if row.config is None]


def load(path, options="", overrides=()):
  if options:
    path += ("," if ":" in path else ":") + options
  return cli.load_config(f"{CONFIGS}/{path}", list(overrides))


def flatten(overrides):
  """Overrides with whole sections spelt out."""
  flat = {}
  for key, value in overrides.items():
    flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, Mapping) else {key: value}
  return flat


def get(config, key):
  for name in key.split("."):
    config = config[name]
  return config


def trace(config):
  """The model, after it has been traced with its losses, by shapes alone, as before training."""
  num_labels = NUM_LABELS[config.data.name]
  info = types.SimpleNamespace(positive_ratio=(0.25,) * num_labels, known_ratio=(0.9,) * num_labels)
  model = models.build(config.model, num_labels, config.compute_dtype)
  train.check_model(config, model, train.make_objective(config, info))
  return model


def abstract_state(config, model):
  """The state of a run on 500 images, by shapes alone."""
  tx = optim.make_optimizer(config, optim.make_schedule(config, 1000, 500), models.trainable_groups(config.model.name, config.loss))
  memory = models.initial_memory(config.model.name, 500, model.num_labels)
  return state_lib.abstract_state(model, tx, (*config.input.size, 3), memory, sharding.make_mesh())


# What the rows say.


def test_there_are_tables():
  known = {"dahar": {"table1", "table2", "table3"}, "diaa": {"wider", "wider_ablation", "peta"}, "srn": {"wider", "peta"}}
  for file, names in known.items():
    assert names <= set(TABLES[file])
  assert len(TABLES["dahar"]["table3"]) == 7 and set(PARAMETERS) <= set(RUNNABLE)


def test_figures_are_percent_under_names_that_evaluation_gives():
  rng = np.random.default_rng(0)
  label, score, known = rng.integers(0, 2, (40, 6)), rng.random((40, 6)), rng.random((40, 6)) < 0.8
  given = {name: set(metrics.evaluate_all(label, score, known=known, convention=name)) for name in metrics.CONVENTIONS}
  more = {"micro_ROC-AUC", *metrics.region_metrics(np.zeros((7, 7)), regions.FACE_REGION_NAMES)}
  for path, row in ROWS.items():
    assert row.paper and set(row.paper) <= set(pipeline.VIEWS), path
    for figures in row.paper.values():
      assert set(figures) <= given[row.convention] | more, path
      assert figures or row.note == "not printed", path
      assert all(0 < figure < 100 for figure in figures.values()), path
    assert all(0 < figure < 100 for figure in row.per_attribute.values()), path
    assert row.config is not None or row.note, path


def test_printed_means_follow_from_what_they_are_means_of():
  """A check for slips: means of AP that were rounded to whole percent, F1 of the averaged Prec and Rec."""
  for path, row in ROWS.items():
    figures = row.paper.get("full", {})
    if row.per_attribute:
      assert tuple(row.per_attribute) == config_lib.WIDER_ATTRIBUTES
      assert abs(np.mean(list(row.per_attribute.values())) - figures["mAP"]) < 0.3, path
    if {"Prec", "Rec"} <= set(figures) and row.convention == "native" and "do not give this F1" not in row.note:
      harmonic = 2 / (1 / figures["Prec"] + 1 / figures["Rec"])
      assert abs(harmonic - figures["F1"]) < 0.05, path


def test_tables_of_several_papers_quote_the_same_figures():
  figures = lambda row: (row.paper, row.per_attribute, row.convention)
  wider, table1 = TABLES["diaa"]["wider"], dict(TABLES["dahar"]["table1"])
  del table1["dahar"]
  assert {name: figures(row) for name, row in table1.items()} == {name: figures(row) for name, row in wider.items()}
  for ours, theirs in (("resnet101_train", "resnet101"), ("srn_train", "srn")):
    assert figures(TABLES["srn"]["wider"][ours]) == figures(wider[theirs])
  for name in ("srn", "srn_weighted"):
    assert figures(TABLES["srn"]["peta"][name]) == figures(TABLES["diaa"]["peta"][name])


def test_rows_that_notes_point_to_can_be_run():
  found = [path for row in ROWS.values() for path in re.findall(r"configs/(\w+\.py:\w+/\w+)", row.note)]
  assert len(found) >= 5 and set(found) <= set(RUNNABLE)


# What they are as configs.


@pytest.mark.parametrize("path", RUNNABLE)
def test_row_loads_and_stays_what_it_is_at_every_size(path):
  for options in SIZES:
    config = load(path, options)
    config_lib.check(config)
    evaluate.input_spec(config)
    lost = SHRUNK if options else set()
    if config.data.world:
      lost = lost | {"data.name"}
    for key, value in flatten(ROWS[path].config).items():
      assert key in lost or get(config, key) == value, (options, key)


@pytest.mark.parametrize("file, table", [(file, table) for file, tables in TABLES.items() for table in tables])
@pytest.mark.parametrize("options", SIZES)
def test_rows_of_a_table_differ(file, table, options):
  rows = {path: load(path, options).to_dict() for path in RUNNABLE if path.startswith(f"{file}.py:{table}/")}
  without_depth = lambda path: {key: value for key, value in ROWS[path].config.items() if key != "model.depth"}
  for a, b in itertools.combinations(rows, 2):
    # Smaller sizes have one trunk: rows that differ by its depth alone are the same there.
    same = options and without_depth(a) == without_depth(b)
    assert (rows[a] != rows[b]) != bool(same), (a, b)


@pytest.mark.parametrize("path", QUOTED)
def test_quoted_row_is_refused(path):
  with pytest.raises(InputError, match=f"{path.partition(':')[2]} cannot be run: it is quoted from "):
    load(path, "tiny")


@pytest.mark.parametrize("path, words", [
    ("dahar.py:table9/all", "there are: table1, table2, table3"), ("dahar.py:small,table3/al", "table3 has: baseline, fusion"),
    ("srn.py:wider/srn,wider/srn_train", "a run is one row"), ("baseline.py:table3/all", "unknown"),
])
def test_unknown_rows_are_refused(path, words):
  with pytest.raises(InputError, match=words):
    load(path)


def test_options_apply_to_a_row():
  config = load("diaa.py:wider_ablation/one_scale", "stage=heads,dataset=pa100k,small")
  assert (config.data.name, config.loss.stage, config.model.scales) == ("pa100k", "heads", ("stage3",))
  assert (config.input.resize, config.input.size, config.input.full_size) == ((64, 32), (56, 28), (56, 28))
  config = load("dahar.py:table2/dahar_w", "dataset=wider_attribute,loss=mixed")
  assert (config.loss.loss, config.input.size, config.evaluate.select) == ("inverse_ratio", (224, 224), "mAP")


def test_dahar_learns_masks_where_there_are_any():
  state = lambda config: (config.input.masks, config.loss.mask_weight, config.data.annotation)
  assert state(load("dahar.py:dataset=rap")) == (False, 0.0, "")
  assert state(load("dahar.py:table2/dahar_m")) == (False, 0.0, "")
  assert state(load("dahar.py:masks")) == state(load("dahar.py:table3/all,world,small")) == (True, 1.0, "")
  assert state(load("dahar.py:table2/dahar_m,annotation=persons")) == (True, 1.0, "persons")
  assert state(load("dahar.py:table3/fusion,masks")) == (False, 0.0, "")  # has no mask to train


# That they run.


_COUNTS: dict[str, int] = {}


@pytest.mark.parametrize("path", [pytest.param(path, marks=[] if path in PARAMETERS else pytest.mark.slow) for path in RUNNABLE])
def test_full_size_row_is_traced(path):
  config = load(path)
  # Many rows differ by their data or recipe alone: each network is traced once.
  network = config_lib.to_json(ml_collections.ConfigDict(
      {"model": config.model, "loss": config.loss, "input": config.input, "labels": NUM_LABELS[config.data.name]}))
  if network not in _COUNTS:
    state = abstract_state(config, trace(config))
    _COUNTS[network] = sum(x.size for x in jax.tree.leaves(state.params))
  assert _COUNTS[network] == PARAMETERS.get(path, _COUNTS[network])


@pytest.mark.parametrize("options", ["", "small"])
@pytest.mark.parametrize("name", ["rap", "peta"])
@pytest.mark.parametrize("file", ["srn", "diaa", "dahar", "baseline"])
def test_data_sets_fit_every_model(file, name, options):
  config = load(f"{file}.py:dataset={name}", options)
  config_lib.check(config)
  evaluate.input_spec(config)
  assert config.data.name == name and config.evaluate.select == "mA"
  assert math.isclose(config.input.size[0] / config.input.size[1], 2 if name == "rap" else 1)
  assert (config.input.full_size == config.input.size) == (file in ("srn", "diaa") or options == "small")
  trace(config)


@pytest.fixture
def cheap_runs(monkeypatch):
  """One device, no validation, no checkpoints, quick compilation: the others have tests of their own."""
  make_mesh = sharding.make_mesh
  monkeypatch.setattr(sharding, "make_mesh", lambda fsdp: make_mesh(jax.devices()[:1]))
  monkeypatch.setattr(train, "validate", lambda config, state, *_: (None, state))
  monkeypatch.setattr(checkpoint.Checkpoints, "save", lambda self, *_: None)
  quick = {"xla_backend_optimization_level": 0}
  monkeypatch.setattr(steps, "compile_train_step", lambda step, mesh, layout: jax.jit(step, compiler_options=quick))


# Smaller sizes have one trunk: of rows that differ by its depth alone one is enough.
TRAINED = list({(path.split(":")[0], repr(sorted((key, value) for key, value in flatten(ROWS[path].config).items() if key != "model.depth"))): path
                for path in RUNNABLE}.values())


@pytest.mark.slow
@pytest.mark.parametrize("path", TRAINED)
def test_row_trains(path, world_dir, tmp_path, cheap_runs):
  """Two steps on the drawn people, faces or artworks."""
  config = load(path, "tiny", [f"--config.data.dir={world_dir}"])
  if config.data.world == "people":
    config.data.size = "88x52"  # as it is prepared already
  config.data.test_split = ""
  train.train_and_evaluate(config, tmp_path, quiet=True)
  losses = [line["loss"] for line in writers.read_jsonl(tmp_path / "metrics.jsonl") if "loss" in line]
  assert len(losses) == 2 and np.isfinite(losses).all()
