"""Exports every system in every format and says how far each file is from its model.

  python launch/export_check.py --out=docs/results/export-check.json [--systems='NAME;NAME'] [--formats=stablehlo,onnx] [--environment=DIR]

Systems are the tiny configs with weights as they start, their zeros (biases, statistics) moved so that each has a say; images are random
ones and cuts of scikit-learn's two photos. Nothing is trained and no data are needed: what is asked is whether the file computes what
the model computes. Entries of systems that are not run stay in the file as they were.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from absl import flags
import jax
import numpy as np

from attr_jax import cli
from attr_jax import evaluate
from attr_jax import export
from attr_jax import models
from attr_jax.data import info as info_lib
from attr_jax.errors import InputError

LABELS = 14
FACES = ("basic", "ssp", "ssg", "spp", "naive", "joint", "bbox")
DECODERS = ("baseline", "hog", "attncnn_rnn", "attncnn_rnn_hog", "chen18")
# Name -> (config, what is changed in it).
SYSTEMS = {
    "baseline, tiny trunk": ("baseline.py:tiny", {}),
    "baseline, ResNet-18 at 64 px": ("baseline.py:tiny", {"model.depth": "18", "input.full_size": (64, 64)}),
    "baseline, ResNet-50 at 224 px": ("baseline.py:depth=50", {}),
    "SRN": ("srn.py:tiny", {}),
    "SRN, released": ("srn.py:variant=released,tiny", {}),
    "DIAA": ("diaa.py:tiny", {}),
    "DIAA, code": ("diaa.py:variant=code,tiny", {}),
    "Da-HAR, design A": ("dahar.py:tiny", {}),
    "Da-HAR, design B": ("dahar.py:design=B,tiny", {}),
    "VAC": ("vac.py:tiny", {}),
    **{f"face, {system}": (f"face.py:system={system},tiny", {}) for system in FACES},
    **{f"Tang 2019, {system}": (f"attncnn_rnn.py:system={system},tiny", {}) for system in DECODERS},
}


def make_run(path, changes):
  """A run as `evaluate.load_run` gives it, of weights that nothing has trained."""
  config = cli.load_config(f"{REPOSITORY}/configs/{path}", [])
  config.update_from_flattened_dict(changes)
  config.data.dir = "/nowhere"
  names = tuple(f"label {i}" for i in range(LABELS))
  info = info_lib.DatasetInfo(config.data.name, "0", names, {"all": names}, (0.3,) * LABELS, (1.0,) * LABELS, {"train": 1}, (64, 64), (64, 64),
                              config.input.mean, config.input.std, "none: there are no data", "", False)
  model = models.build(config.model, LABELS, config.compute_dtype)
  image = np.zeros((1, *config.input.full_size, 3), np.float32)
  variables = jax.jit(lambda key: model.init(key, image, train=False))(jax.random.key(0))
  rng = np.random.default_rng(0)
  move = lambda x: np.asarray(x) + rng.uniform(0, 0.05, x.shape).astype(np.float32) * (np.ndim(x) == 1)
  variables = jax.tree.map(move, variables)
  return evaluate.Run(config, info, variables["params"], variables.get("batch_stats", {}), 0, "last", model)


def check(run, kind, folder, **options):
  """What the file of a format has come to: differences, or why there is none."""
  start = time.monotonic()
  try:
    done = export.FORMATS[kind](run, export.metadata(run, {}), folder / "model", **options)
  except (InputError, export.ExportError) as error:
    return {"refused": str(error)}
  spread = float(export.reference(run).probability["real"].std())
  return {**{f"{key}_difference": value for key, value in done.differences.items()}, "probability_std_real": round(spread, 4),
          "bytes": (folder / "model").stat().st_size, "seconds": round(time.monotonic() - start, 1)}


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out", required=True, type=pathlib.Path)
  parser.add_argument("--systems", help="separated by ';', of: " + "; ".join(SYSTEMS))
  parser.add_argument("--formats", default="safetensors,stablehlo,onnx")
  parser.add_argument("--environment", type=pathlib.Path)
  args = parser.parse_args()
  flags.FLAGS.mark_as_parsed()
  names = args.systems.split(";") if args.systems else list(SYSTEMS)
  if unknown := set(names) - set(SYSTEMS):
    parser.error(f"unknown: {', '.join(sorted(unknown))}")
  table = json.loads(args.out.read_text()) if args.out.exists() else {"systems": {}}
  table |= {"command": "python launch/export_check.py --out=docs/results/export-check.json", "jax": jax.__version__,
            "platform": jax.default_backend(), "onnx": list(export.ONNX_REQUIREMENTS), "tolerance": export.TOLERANCE}
  for name in names:
    run = make_run(*SYSTEMS[name])
    for kind in args.formats.split(","):
      with tempfile.TemporaryDirectory() as folder:
        found = check(run, kind, pathlib.Path(folder), **({"environment": args.environment} if kind == "onnx" else {}))
      table["systems"].setdefault(name, {})[kind] = found
      table["systems"] = {name: table["systems"][name] for name in SYSTEMS if name in table["systems"]}
      print(f"{name:<32} {kind:<12} {found}", flush=True)
      args.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
  main()
