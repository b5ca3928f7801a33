"""The scripts of benchmarks/ that judge a run: they can say yes and no."""

import importlib.util
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from attr_jax.data.worlds import artwork_labels
from helpers import REPOSITORY

REGIONS = ("background", "hair", "mouth")


def script(name):
  spec = importlib.util.spec_from_file_location(name, REPOSITORY / "benchmarks" / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def write_faces(folder, hair, mouth):
  """A report in which all attributes of hair, and all of the mouth, have these weights."""
  rows = {}
  for place, weights in (("hair", hair), ("mouth", mouth)):
    for name in script("face_regions").PLACES[place]:
      rows[name] = {"AP": 0.5, "positives": 5, "negatives": 5, **{f"region_weight/{region}": w for region, w in zip(REGIONS, weights)}}
  (folder / "evaluation").mkdir(exist_ok=True)
  (folder / "evaluation" / "test-full.json").write_text(json.dumps({"per_attribute": rows, "step": 7}))


def judge(folder):
  command = [sys.executable, REPOSITORY / "benchmarks" / "face_regions.py", f"--workdir={folder}", f"--out={folder / 'out.json'}"]
  return subprocess.run(command, capture_output=True, text=True)


def test_face_regions_says_where_attributes_are_looked_for(tmp_path):
  missing = judge(tmp_path)
  assert missing.returncode == 1 and "attr-jax evaluate --workdir" in missing.stderr and "Traceback" not in missing.stderr
  write_faces(tmp_path, (0.3, 0.5, 0.2), (0.1, 0.3, 0.6))
  right = judge(tmp_path)
  assert right.returncode == 0 and "0 of 12 attributes" in right.stdout
  written = json.loads((tmp_path / "out.json").read_text())
  assert written["hair"]["mean"] == pytest.approx(dict(zip(REGIONS, (0.3, 0.5, 0.2)))) and written["step"] == 7
  write_faces(tmp_path, (0.3, 0.5, 0.2), (0.6, 0.3, 0.1))
  wrong = judge(tmp_path)
  assert wrong.returncode == 1 and "WRONG" in wrong.stdout and "6 of 12 attributes" in wrong.stdout


def test_artwork_sets_counts_what_cannot_be():
  sets = script("artwork_sets")
  possible = artwork_labels.possible_pairs()
  cultures = np.array([name.startswith("culture::") for name in artwork_labels.LABELS])
  rng = np.random.default_rng(0)
  decision = rng.random((60, len(possible))) < 0.04
  decision[0] = False
  label = rng.random(decision.shape) < 0.05
  row = sets.measure(decision, label, possible, cultures)
  pairs = [(n, bool(possible[a, b])) for n, image in enumerate(decision) for a, b in itertools.combinations(np.flatnonzero(image), 2)]
  bad = [n for n, fits in pairs if not fits]
  assert row["impossible_pairs"] == pytest.approx(len(bad) / len(pairs)) and 0 < row["impossible_pairs"] < 1
  assert row["images_with_impossible_pair"] == pytest.approx(len(set(bad)) / 60)
  assert row["one_culture"] == pytest.approx(np.mean([image[cultures].sum() == 1 for image in decision]))
  assert row["labels"] == pytest.approx(decision.sum() / 60)
