"""Set-up shared by all tests: four virtual CPU devices, strict broadcasting."""

import os
import pathlib

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many tests compile the same programs, in several processes.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).resolve().parent.parent / ".jax_cache"))

from absl import flags
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
# grain reads absl flags, which pytest never parses.
flags.FLAGS.mark_as_parsed()

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def pytest_configure(config):
  """Without the slow tests most time goes into compiling: what is run for milliseconds need not be optimised for seconds."""
  if config.getoption("markexpr", "").startswith(("not slow", "docs")):
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
  """Folder of the real photos; skips where they are missing."""
  folder = pathlib.Path(os.environ.get("ATTR_JAX_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
  if not folder.is_dir():
    pytest.skip("real photos are not here (set ATTR_JAX_REAL_DATA)")
  return folder


@pytest.fixture(scope="session")
def world_dir(tmp_path_factory) -> pathlib.Path:
  """A data folder in which the tiny synthetic world is drawn and prepared once."""
  from attr_jax import evaluate
  from attr_jax.data import worlds
  import helpers  # after jax is set up

  folder = tmp_path_factory.mktemp("data")
  config = helpers.tiny_config(folder)
  data = config.data
  worlds.ensure(data.world, evaluate.data_folder(config), count=data.world_count, seed=data.world_seed,
                size=data.size, progress=False)
  return folder


@pytest.fixture
def config(world_dir):
  """The quickstart config at tiny size, on the prepared tiny world."""
  import helpers

  return helpers.tiny_config(world_dir)
