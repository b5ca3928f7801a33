"""What the compiler for TPUs makes of a training step; needs libtpu, no TPU. Minutes: `pytest -m aot tests/test_tpu_bytes.py`."""

import json
import os
import subprocess
import sys

import pytest

from helpers import REPOSITORY


@pytest.mark.aot
def test_a_step_of_resnet50_moves_few_bytes_and_is_donated(tmp_path):
  pytest.importorskip("libtpu")
  out = tmp_path / "bytes.json"
  # A process of its own: here are four virtual CPU devices and stricter rules.
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
  subprocess.run([sys.executable, REPOSITORY / "benchmarks" / "tpu_bytes.py", f"--out={out}"], env=environment, check=True)
  found = json.loads(out.read_text())
  assert found["ratio"] <= 1.1  # of floor B, docs/performance.md
  assert found["donated_megabytes"] > 0.98 * found["state_megabytes"]
  # Each of 53 batch norms takes its sums in one pass forward and one backward; no activation changes its layout.
  assert found["norm_passes"] == {"forward": 53, "backward": 53} and found["moved_activations"] == []
  assert 23 < found["gflop_per_image"] < 25
