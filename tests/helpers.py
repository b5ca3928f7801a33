"""What several test files need."""

import pathlib

from attr_jax import cli

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def load(name, world_dir, **overrides):
  """A method's tiny config on the world of the tests, which is prepared at the quickstart's size."""
  config = cli.load_config(f"{REPOSITORY}/configs/{name}", [f"--config.data.dir={world_dir}"])
  config.update_from_flattened_dict({"data.size": "88x52", "data.test_split": "", "total_steps": 3} | overrides)
  return config
