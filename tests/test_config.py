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
    ("optimizer.name", "sdg"), ("batch_norm_scope", "device"), ("evaluate.views", "ten"),
    ("batch_size", 0), ("optimizer.learning_rate", -1.0), ("accumulate_steps", 5),
])
def test_check_refuses(key, value):
  config = config_lib.default_config()
  config_lib.check(config)
  config.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=key.split(".")[-1]):
    config_lib.check(config)
