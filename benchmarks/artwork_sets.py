"""Whether label sets follow what goes together in the drawn artworks: the decoder's against those of independent thresholds.

  attr-jax evaluate --workdir=runs/baseline --split=val      (and so for every run)
  python benchmarks/artwork_sets.py --workdir=runs/baseline --workdir=runs/attncnn_rnn --out=sets.json

Reads the predictions of both splits. Every run is decided by one threshold for all labels and by one for each label, searched
on val for the highest F2; one with a decoder also by its paths: with the published factor, and with the factor of the highest
F2 on val, and by a plain threshold of the path probability. Two labels are an impossible pair where the drawing never puts
them together (two cultures, day and night, a culture and what its pictures do not show). Shown: F2, precision and recall
averaged over images, labels per image, the share of images with an impossible pair, of pairs that are impossible, and of
images with exactly one culture, in percent.
"""

import argparse
import itertools
import json
import pathlib

import numpy as np

from attr_jax import evaluate
from attr_jax import metrics
from attr_jax import run_folder
from attr_jax.data.worlds import artwork_labels
from attr_jax.errors import InputError

THRESHOLDS = {"one threshold": "global", "a threshold per label": "per_class"}
PATHS = {
    "decoder, factor 2.5": ("class", "fixed"),
    "decoder, factor of val": ("class", "global"),
    "decoder, plain threshold": ("uniform", "global"),
}


def read(workdir, split):
  path = workdir / "predictions" / f"{split}-six_view.npz"
  if not path.is_file():
    raise SystemExit(f"{path}: missing; run: attr-jax evaluate --workdir={workdir} --split={split}")
  with np.load(path) as stored:
    return {key: stored[key] for key in stored.files}


def decisions(config, info, test, val):
  """{rule: `evaluate.Chosen`} of one run."""
  chosen = {}
  scores = [{key: table[key] for key in ("logit", "label", "known")} for table in (test, val)]
  for name, search in THRESHOLDS.items():
    config.evaluate.threshold = search
    chosen[name] = evaluate.choose(config, info, *scores)
  for name, (rule, search) in PATHS.items() if "step_labels" in test else ():
    config.evaluate.threshold, config.decide.rule = search, rule
    chosen[name] = evaluate.choose(config, info, test, val)
  return chosen


def measure(decision, label, possible, cultures):
  """The figures of a table row, as fractions (labels per image: a number)."""
  rows, pairs, impossible = 0, 0, 0
  for image in decision:
    found = [bool(possible[a, b]) for a, b in itertools.combinations(np.flatnonzero(image), 2)]
    pairs, impossible, rows = pairs + len(found), impossible + found.count(False), rows + (not all(found))
  sets = metrics.set_metrics(label, decision)
  return {
      **{key: sets[f"sample_{key}"] for key in ("F2", "F1", "P", "R")},
      "labels": float(decision.sum(axis=1).mean()),
      "images_with_impossible_pair": rows / len(decision),
      "impossible_pairs": impossible / max(pairs, 1),
      "one_culture": float((decision[:, cultures].sum(axis=1) == 1).mean()),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", required=True, type=pathlib.Path, action="append")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
  args = parser.parse_args()
  result = {}
  print(f"{'run, rule':<38}{'F2':>5}{'P':>6}{'R':>6}{'labels':>7}{'bad im.':>8}{'pairs':>6}{'1 cult.':>8}")
  for workdir in args.workdir:
    config, info = run_folder.read_start(workdir)
    indices = [info.label_names.index(name) for name in artwork_labels.LABELS]
    possible = np.empty((len(indices),) * 2, bool)
    possible[np.ix_(indices, indices)] = artwork_labels.possible_pairs()
    cultures = np.array([name.startswith("culture::") for name in info.label_names])
    test, val = read(workdir, "test"), read(workdir, "val")
    everything = {"the truth": test["label"].astype(bool)} | {
        name: chosen.decision for name, chosen in decisions(config, info, test, val).items()}
    print(workdir.name)
    for name, decision in everything.items():
      row = result.setdefault(workdir.name, {})[name] = measure(decision, test["label"], possible, cultures)
      percent = lambda key: f"{100 * row[key]:.1f}"
      print(f"  {name:<36}{percent('F2'):>5}{percent('P'):>6}{percent('R'):>6}{row['labels']:>7.2f}"
            f"{percent('images_with_impossible_pair'):>8}{percent('impossible_pairs'):>6}{percent('one_culture'):>8}")
  if args.out:
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  try:
    main()
  except InputError as error:
    raise SystemExit(f"artwork_sets: {error}") from error
