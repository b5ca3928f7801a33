"""Whether a trained SSP looks where its attributes are: hair on hair, mouths on the mouth (Kalayeh et al. 2017, Figure 7).

  python benchmarks/face_regions.py --workdir=runs/ssp --out=face-regions.json

Reads what `attr-jax evaluate` has written and shows, for every attribute of hair and of the mouth, its two strongest regions.
Ends with status 1 unless the mean weights of the hair attributes are highest on hair, and those of the mouth attributes on
the mouth. Attributes that are looked for elsewhere are marked and counted.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

PLACES = {
    "hair": ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Straight_Hair", "Wavy_Hair"),
    "mouth": ("Big_Lips", "Goatee", "Mouth_Slightly_Open", "Mustache", "Smiling", "Wearing_Lipstick"),
}


def weights_of(row):
  """{region: weight} of an attribute; {} in a run without regions."""
  return {key.partition("/")[2]: value for key, value in row.items() if key.startswith("region_weight/")}


def two_strongest(weights):
  return "".join(f"{region:<12}{100 * weights[region]:>6.1f}  " for region in sorted(weights, key=weights.get, reverse=True)[:2])


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", required=True, type=pathlib.Path)
  parser.add_argument("--split", default="test")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
  args = parser.parse_args()
  path = args.workdir / "evaluation" / f"{args.split}-full.json"
  if not path.is_file():
    sys.exit(f"{path}: missing; run: attr-jax evaluate --workdir={args.workdir} --split={args.split}")
  report = json.loads(path.read_text())
  result, right, elsewhere = {}, True, 0
  print(f"{'attribute':<22}{'AP':>6}{'chance':>8}  {'strongest':<12}{'weight':>6}  {'next':<12}{'weight':>6}")
  for place, names in PLACES.items():
    rows = {name: weights_of(report["per_attribute"][name]) for name in names}
    if not all(rows.values()):
      sys.exit(f"{args.workdir}: the run has no region weights; is it an SSP run?")
    for name, weights in rows.items():
      row = report["per_attribute"][name]
      share = row["positives"] / (row["positives"] + row["negatives"])
      away = max(weights, key=weights.get) != place
      elsewhere += away
      print(f"{name:<22}{100 * (row['AP'] or 0):>6.1f}{100 * share:>8.1f}  {two_strongest(weights)}{'elsewhere' if away else ''}")
    mean = {region: float(np.mean([weights[region] for weights in rows.values()])) for region in rows[names[0]]}
    result[place] = {"mean": mean, "attributes": rows}
    right &= max(mean, key=mean.get) == place
    print(f"{f'mean of {place} attributes':<36}  {two_strongest(mean)}{'' if max(mean, key=mean.get) == place else 'WRONG'}")
  print(f"{elsewhere} of {sum(map(len, PLACES.values()))} attributes by themselves are looked for elsewhere")
  if args.out:
    args.out.write_text(json.dumps(result | {"run": str(args.workdir), "step": report["step"]}, indent=2) + "\n")
  sys.exit(not right)


if __name__ == "__main__":
  main()
