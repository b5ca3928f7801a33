"""Set-up shared by all tests: four virtual CPU devices, strict broadcasting."""

import os
import pathlib

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from absl import flags
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# grain reads absl flags, which pytest never parses.
flags.FLAGS.mark_as_parsed()

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
  """Folder of the real photos; skips where they are missing."""
  folder = pathlib.Path(os.environ.get("ATTR_JAX_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
  if not folder.is_dir():
    pytest.skip("real photos are not here (set ATTR_JAX_REAL_DATA)")
  return folder
