"""Every model of the project on 1, 2 and 4 processes: the same batches bit for bit, the same losses."""

import json
import pathlib

import numpy as np
import pytest

from helpers import REPOSITORY
from processes import finish
from processes import free_address
from processes import launch

STEPS, COUNTS = 20, (1, 2, 4)
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


@pytest.fixture(scope="module")
def runs(world_dir, tmp_path_factory):
  """{count: {name: what each process of `train_models.py` wrote}}; one group of processes trains all models in turn."""
  common = {"data.dir": str(world_dir), "batch_norm.scope": "global", "total_steps": STEPS}
  chosen = {name: (f"{REPOSITORY}/configs/{config}", common | overrides) for name, (config, overrides) in MODELS.items()}
  found = {}
  for count in COUNTS:
    folder = tmp_path_factory.mktemp(f"of{count}")
    job = {"coordinator": free_address() if count > 1 else "", "count": count, "out": str(folder), "steps": STEPS, "runs": chosen}
    (folder / "job.json").write_text(json.dumps(job))
    script = pathlib.Path(__file__).with_name("train_models.py")
    # Most time goes into compiling.
    quick = "--xla_backend_optimization_level=0"
    processes = [launch([script, folder / "job.json", i], folder / f"{i}.log", xla_flags=quick) for i in range(count)]
    try:
      for process in processes:
        finish(process, timeout=1200)
    finally:
      for process in processes:
        process.kill()
    found[count] = {name: [json.loads((folder / f"{name}-{i}.json").read_text()) for i in range(count)] for name in MODELS}
  return found


def losses_of(process):
  return np.array([scalars["loss"] for scalars in process["scalars"]])


@pytest.mark.parametrize("name", MODELS)
def test_batches_and_first_losses(runs, name):
  alone, = runs[1][name]
  assert len(alone["rows"]) == STEPS and np.isfinite(losses_of(alone)).all()
  for count in COUNTS[1:]:
    processes = runs[count][name]
    assert [sum(parts, []) for parts in zip(*(process["rows"] for process in processes), strict=True)] == alone["rows"]
    for process in processes:
      np.testing.assert_allclose(losses_of(process)[:2], losses_of(alone)[:2], rtol=1e-5)


# Sums over processes round differently. These networks, at this size, enlarge that until it is seen: in the loss of some step it is
# up to 4e-2 (DIAA), 2e-2 (design B of Da-HAR), 1e-3 (SRN, four processes only), 3e-4 (face parser), 2e-5 (VAC, four processes only).
ENLARGED = ("srn", "diaa", "diaa-code", "dahar-B", "vac", "face-parser", "face-joint")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.xfail(name in ENLARGED, reason="rounding is enlarged from step to step")) for name in MODELS])
def test_losses_of_all_steps(runs, name):
  alone, = runs[1][name]
  for count in COUNTS[1:]:
    for process in runs[count][name]:
      np.testing.assert_allclose(losses_of(process), losses_of(alone), rtol=1e-5)


def test_the_history_of_diaa_takes_part(runs):
  weights = [scalars["attention_weight"] for scalars in runs[1]["diaa"][0]["scalars"]]
  assert weights[0] == 1.0 and weights[-1] > 1.0
