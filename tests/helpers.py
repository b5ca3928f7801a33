"""What several test files need."""

import pathlib

import pytest

from attr_jax import cli
from attr_jax.data import ops

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def tiny_config(data_dir):
  """The quickstart's config at tiny size."""
  return cli.load_config(f"{REPOSITORY}/configs/quickstart.py:tiny", [f"--config.data.dir={data_dir}"])


def call(capsys, *argv):
  """(status, stdout, stderr) of `attr-jax argv`."""
  with pytest.raises(SystemExit) as ended:
    cli.main([*map(str, argv)])
  captured = capsys.readouterr()
  return ended.value.code, captured.out, captured.err


def load(name, world_dir, **overrides):
  """A method's tiny config on the world of the tests, which is prepared at the quickstart's size."""
  config = cli.load_config(f"{REPOSITORY}/configs/{name}", [f"--config.data.dir={world_dir}"])
  config.update_from_flattened_dict({"data.size": "88x52", "data.test_split": "", "total_steps": 3} | overrides)
  return config

def five_position_crop(sample, shapes, size, rng):
  """Cuts one of `shapes` at one of the five positions and resizes to `size`."""
  return ops.resize(ops.crop(sample, ops.five_position_box(sample["image"].shape[:2], shapes, rng)), size)


def random_square_crop(sample, sides, size, rng):
  """Cuts a square of a random side anywhere and resizes to `size`."""
  return ops.resize(ops.crop(sample, ops.random_square_box(sample["image"].shape[:2], sides, rng)), size)
