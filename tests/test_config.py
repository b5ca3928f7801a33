"""Config helpers: typed options, durations, checks, and the record of a run."""

import pytest

from attr_jax import config as config_lib
from attr_jax.errors import InputError


def test_parse_arg_types():
  options = config_lib.parse_arg("depth=101,fast", depth=50, fast=False, name="a")
  assert (options.depth, options.fast, options.name) == (101, True, "a")
  assert config_lib.parse_arg(None, depth=50).depth == 50


@pytest.mark.parametrize("arg, words", [("dept=3", "unknown"), ("depth=x", "not a int"), ("depth", "needs a value")])
def test_parse_arg_refuses(arg, words):
  with pytest.raises(InputError, match=words):
    config_lib.parse_arg(arg, depth=50)


TABLES = {"table1": {
    "ours": config_lib.Row({"full": {"mAP": 87.3}}, {"batch_size": 4}),
    "theirs": config_lib.Row({"full": {"mAP": 80.0}}, None, "R-CNN (ICCV 2015)"),
}}


@pytest.mark.parametrize("arg", ["table1/ours,name=a/b,tiny", "tiny,table1/ours,name=a/b", "name=a/b,tiny=true,table1/ours"])
def test_parse_row_finds_the_row_anywhere(arg):
  options, row = config_lib.parse_row(arg, TABLES, name="", tiny=False)
  assert (options.name, options.tiny) == ("a/b", True) and row is TABLES["table1"]["ours"]


def test_parse_row_without_row():
  assert config_lib.parse_row(None, TABLES, tiny=False)[1] is None
  assert config_lib.parse_row("tiny", {}, tiny=False)[0].tiny


@pytest.mark.parametrize("arg, words", [
    ("table1/theirs", "table1/theirs cannot be run: it is quoted from R-CNN"),
    ("table2/ours", "table 'table2' is unknown; there are: table1"),
    ("table1/mine", "row 'mine' is unknown; table1 has: ours, theirs"),
    ("table1/", "row '' is unknown"),
    ("table1/ours,table1/ours", "a run is one row"),
    ("table1", "option 'table1' is unknown"),
])
def test_parse_row_refuses(arg, words):
  with pytest.raises(InputError, match=words):
    config_lib.parse_row(arg, TABLES, tiny=False)


def test_override_sets_keys_and_replaces_sections():
  config = config_lib.default_config()
  config.model.variant = "paper"
  config_lib.override(config, {"batch_size": 4, "input.size": (56, 28), "schedule.at_epochs": (1.0,), **config_lib.plain_resnet()})
  assert (config.batch_size, config.input.size, config.schedule.at_epochs) == (4, (56, 28), (1.0,))
  assert config.model.to_dict() == {"name": "baseline", "depth": "101"}
  assert config.loss.to_dict() == config_lib.default_config().loss.to_dict()


@pytest.mark.parametrize("key", ["batchsize", "input.sizes", "model.fusion"])
def test_override_refuses_keys_that_are_not_there(key):
  with pytest.raises(InputError, match=f"config.{key} cannot be set"):
    config_lib.override(config_lib.default_config(), {key: 1})


def test_a_data_set_leaves_nothing_of_another():
  """Back from pedestrians, all but PETA's recipe is as before."""
  config = config_lib.default_config()
  before = config.to_dict()
  for name in ("rap", "rap2", "pa100k", "wider_attribute"):
    config_lib.override(config, config_lib.dataset(name, fixed_size=True))
  assert config.to_dict() == before


def test_only_the_first_rap_has_no_validation_part():
  config = config_lib.default_config()
  splits = {"rap": ("train", ""), "rap2": ("train+val", "val"), "pa100k": ("train+val", "val"), "peta": ("train", "val")}
  for name, expected in splits.items():
    config.data.train_split = "train+val"
    config_lib.override(config, config_lib.dataset(name, fixed_size=False))
    assert (config.data.train_split, config.data.val_split) == expected


def test_attribute_names_are_those_of_the_drawn_world():
  from attr_jax.data.worlds import people

  assert config_lib.WIDER_ATTRIBUTES == tuple(people.ATTRIBUTES)


def test_total_steps_takes_the_first_set():
  config = config_lib.default_config()
  config.batch_size, config.total_epochs = 10, 2.0
  assert config_lib.total_steps(config, 105) == 21
  config.total_examples = 95
  assert config_lib.total_steps(config, 105) == 10
  config.total_steps = 7
  assert config_lib.total_steps(config, 105) == 7


def test_json_round_trip_keeps_tuples_and_none():
  config = config_lib.default_config()
  again = config_lib.from_json(config_lib.to_json(config))
  assert again.to_dict() == config.to_dict()
  assert isinstance(again.input.crop_sizes, tuple) and again.total_steps is None


def test_differences_name_what_matters():
  old, new = config_lib.default_config(), config_lib.default_config()
  new.total_epochs, new.evaluate.batch_size = 99.0, 7
  assert config_lib.differences(old, new) == []
  new.optimizer.learning_rate = 0.5
  assert config_lib.differences(old, new) == ["optimizer.learning_rate: 0.001 -> 0.5"]


@pytest.mark.parametrize("key, value", [
    ("optimizer.name", "sdg"), ("batch_norm.scope", "device"), ("evaluate.views", "ten"),
    ("batch_size", 0), ("optimizer.learning_rate", -1.0), ("accumulate_steps", 5),
])
def test_check_refuses(key, value):
  config = config_lib.default_config()
  config_lib.check(config)
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=key.split(".")[-1]):
    config_lib.check(config)


def test_two_data_sets_take_no_micro_batches():
  config = config_lib.default_config()
  config.data.second, config.accumulate_steps = "helen", 2
  with pytest.raises(InputError, match="a micro-batch would hold one data set alone"):
    config_lib.check(config)
