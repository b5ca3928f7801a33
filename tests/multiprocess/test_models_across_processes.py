"""Every model of the project on 1, 2 and 4 processes: the same batches bit for bit, the same losses."""

import json
import pathlib

import numpy as np
import pytest

from helpers import REPOSITORY
from processes import finish
from processes import free_address
from processes import launch
from processes import losses

STEPS, COUNTS = 20, (1, 2, 4)
PEOPLE = {"data.world": "people", "data.world_count": 120, "data.size": "88x52"}
# 60 people are for training: DIAA stores predictions from the first epoch on and weighs with them from the fifth on.
SEVERAL_EPOCHS = {"batch_size": 20, "evaluate.batch_size": 20}
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
  """{count: folder} with what `train_models.py` wrote; one group of processes trains all models in turn."""
  common = {"data.dir": str(world_dir), "batch_norm.scope": "global", "total_steps": STEPS, "log_every_steps": 1,
            "data.val_split": "", "data.test_split": "", "checkpoint.every_steps": 1000}
  folders = {}
  for count in COUNTS:
    folder = folders[count] = tmp_path_factory.mktemp(f"of{count}")
    job = {"coordinator": free_address() if count > 1 else "", "count": count, "out": str(folder),
           "runs": {name: (f"{REPOSITORY}/configs/{config}", common | overrides) for name, (config, overrides) in MODELS.items()}}
    (folder / "job.json").write_text(json.dumps(job))
    script = pathlib.Path(__file__).with_name("train_models.py")
    # Most time goes into compiling.
    quick = "--xla_backend_optimization_level=0"
    processes = [launch([script, folder / "job.json", i], folder / f"{i}.log", xla_flags=quick) for i in range(count)]
    for process in processes:
      finish(process, timeout=1200)
  return folders


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", MODELS)
def test_processes_do_not_matter(runs, name):
  rows = {count: [json.loads((folder / f"{name}-{i}.json").read_text()) for i in range(count)] for count, folder in runs.items()}
  found = {count: np.array(losses(folder / name)) for count, folder in runs.items()}
  assert len(rows[1][0]) == STEPS == len(found[1]) and np.isfinite(found[1]).all()
  for count in COUNTS[1:]:
    together = [sum(parts, []) for parts in zip(*rows[count], strict=True)]
    assert together == rows[1][0]
    np.testing.assert_allclose(found[count], found[1], rtol=1e-5)


@pytest.mark.multiprocess
def test_the_history_of_diaa_takes_part(runs):
  weights = [json.loads(line).get("attention_weight") for line in (runs[1] / "diaa" / "metrics.jsonl").read_text().splitlines()]
  weights = [weight for weight in weights if weight is not None]
  assert weights[0] == 1.0 and weights[-1] > 1.0
