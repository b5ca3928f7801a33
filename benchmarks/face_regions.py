"""Whether a trained SSP looks where its attributes are: hair on hair, mouths on the mouth (Kalayeh et al. 2017, Figure 7).

  python benchmarks/face_regions.py --workdir=runs/ssp

Reads what `attr-jax evaluate` has written, shows the strongest region of every attribute whose place is known, and ends with
status 1 where an attribute that the run has learned (AP at least a quarter of the way from its share to 1) is looked for elsewhere.
"""

import argparse
import json
import pathlib
import sys

PLACES = {
    "hair": ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Straight_Hair", "Wavy_Hair"),
    "mouth": ("Big_Lips", "Mouth_Slightly_Open", "Smiling", "Wearing_Lipstick"),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True, type=pathlib.Path)
  parser.add_argument("--split", default="test")
  args = parser.parse_args()
  report = json.loads((args.workdir / "evaluation" / f"{args.split}-full.json").read_text())
  wrong = 0
  print(f"{'attribute':<22}{'AP':>6}{'chance':>8}  {'expected':<9}{'strongest':<12}{'weight':>6}  {'next':<12}{'weight':>6}")
  for place, names in PLACES.items():
    for name in names:
      row = report["per_attribute"][name]
      weights = {key.partition("/")[2]: value for key, value in row.items() if key.startswith("region_weight/")}
      if not weights:
        sys.exit(f"{args.workdir}: the run has no region weights; is it an SSP run?")
      share = row["positives"] / (row["positives"] + row["negatives"])
      first, second = sorted(weights, key=weights.get, reverse=True)[:2]
      learned = (row["AP"] or 0) >= share + (1 - share) / 4
      wrong += learned and first != place
      verdict = "" if first == place else "WRONG" if learned else "(not learned)"
      print(f"{name:<22}{100 * (row['AP'] or 0):>6.1f}{100 * share:>8.1f}  {place:<9}{first:<12}{100 * weights[first]:>6.1f}"
            f"  {second:<12}{100 * weights[second]:>6.1f}  {verdict}")
  print(f"{wrong} learned attributes are looked for elsewhere")
  sys.exit(bool(wrong))


if __name__ == "__main__":
  main()
