"""Every model of the project on 1, 2 and 4 processes: the same batches bit for bit, the same losses.

Sums over processes round differently, and that is all the difference there may be. So the models train in float64, where rounding is too
small to be seen, and take their first steps as they are used, in float32: there some of these networks enlarge it from step to step
(a unit at the kink of a ReLU goes one way or the other), and which of them do so, and when, differs from run to run.
"""

import json
import pathlib

import numpy as np
import pytest

from helpers import REPOSITORY
from processes import finish
from processes import free_address
from processes import launch

STEPS, COUNTS = 20, (1, 2, 4)
FIRST_STEPS = 2  # in float32
pytestmark = [pytest.mark.multiprocess, pytest.mark.timeout(3600)]
PEOPLE = {"data.world": "people", "data.world_count": 120, "data.size": "88x52"}
# 60 people are for training: DIAA stores predictions from the first epoch on and weighs with them from the fifth on.
SEVERAL_EPOCHS = {"batch_size": 20}
MODELS = {
    "baseline": ("baseline.py:tiny", PEOPLE),
    "quickstart": ("quickstart.py:tiny", PEOPLE),  # Adam, averaged parameters
    "srn": ("srn.py:tiny", PEOPLE),
    "diaa": ("diaa.py:tiny", PEOPLE | SEVERAL_EPOCHS),
    "diaa-code": ("diaa.py:variant=code,tiny", PEOPLE | SEVERAL_EPOCHS),
    "dahar-A": ("dahar.py:tiny", PEOPLE),
    "dahar-B": ("dahar.py:design=B,tiny", PEOPLE),
    "vac": ("vac.py:tiny", PEOPLE),
    "person_segmenter": ("person_segmenter.py:tiny", PEOPLE),
    "face-parser": ("face.py:system=parser,tiny", {}),
    "face-ssp": ("face.py:system=ssp,tiny", {}),
    "face-ssg": ("face.py:system=ssg,tiny", {}),
    "face-joint": ("face.py:system=joint,tiny", {}),
    "attncnn_rnn": ("attncnn_rnn.py:tiny", {}),
    "attncnn_rnn-hog": ("attncnn_rnn.py:system=attncnn_rnn_hog,tiny", {}),
}


def train_all(dtype, steps, count, world_dir, folder):
  """{name: what each process of `train_models.py` wrote}; one group of processes trains all models in turn."""
  common = {"data.dir": str(world_dir), "batch_norm.scope": "global", "total_steps": STEPS, "compute_dtype": dtype}
  chosen = {name: (f"{REPOSITORY}/configs/{config}", common | overrides) for name, (config, overrides) in MODELS.items()}
  job = {"coordinator": free_address() if count > 1 else "", "count": count, "out": str(folder), "steps": steps, "runs": chosen}
  (folder / "job.json").write_text(json.dumps(job))
  script = pathlib.Path(__file__).with_name("train_models.py")
  # Most time goes into compiling.
  options = {"xla_flags": "--xla_backend_optimization_level=0", "JAX_ENABLE_X64": str(int(dtype == "float64"))}
  processes = [launch([script, folder / "job.json", i], folder / f"{i}.log", **options) for i in range(count)]
  try:
    for process in processes:
      finish(process, timeout=2400)
  finally:
    for process in processes:
      process.kill()
  return {name: [json.loads((folder / f"{name}-{i}.json").read_text()) for i in range(count)] for name in MODELS}


@pytest.fixture(scope="module")
def in_float64(world_dir, tmp_path_factory):
  return {count: train_all("float64", STEPS, count, world_dir, tmp_path_factory.mktemp(f"float64-of{count}")) for count in COUNTS}


@pytest.fixture(scope="module")
def in_float32(world_dir, tmp_path_factory):
  return {count: train_all("float32", FIRST_STEPS, count, world_dir, tmp_path_factory.mktemp(f"float32-of{count}")) for count in COUNTS}


def scalars_of(process, name):
  return np.array([scalars[name] for scalars in process["scalars"]])


def assert_same_batches(processes, alone):
  assert [sum(parts, []) for parts in zip(*(process["rows"] for process in processes), strict=True)] == alone["rows"]


@pytest.mark.parametrize("name", MODELS)
def test_batches_losses_and_gradients_in_float64(in_float64, name):
  alone, = in_float64[1][name]
  assert len(alone["rows"]) == len(alone["scalars"]) == STEPS and np.isfinite(scalars_of(alone, "loss")).all()
  for count in COUNTS[1:]:
    assert_same_batches(in_float64[count][name], alone)
    for process in in_float64[count][name]:
      for scalar in ("loss", "grad_norm"):
        np.testing.assert_allclose(scalars_of(process, scalar), scalars_of(alone, scalar), rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_first_steps_in_float32(in_float32, name):
  alone, = in_float32[1][name]
  assert len(alone["scalars"]) == FIRST_STEPS
  for count in COUNTS[1:]:
    assert_same_batches(in_float32[count][name], alone)
    for process in in_float32[count][name]:
      np.testing.assert_allclose(scalars_of(process, "loss"), scalars_of(alone, "loss"), rtol=1e-5)


def test_the_history_of_diaa_takes_part(in_float64):
  weights = scalars_of(in_float64[1]["diaa"][0], "attention_weight")
  assert weights[0] == 1.0 and weights[-1] > 1.0
