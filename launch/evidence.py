"""Does each mechanism do what its paper says? Small runs on drawn worlds, where what is to be learned is known.

  python launch/evidence.py --claim=vac                 # trains what is missing; the same command goes on where it was cut
  python launch/evidence.py --update=docs/evidence.md   # the tables of that page from docs/results/evidence/*.jsonl; trains nothing
  python launch/evidence.py --draw=docs/pictures/evidence.png   # all comparisons in one picture

Arms that are compared have the same budget and the same tuning: three learning rates with seed 0, and further ones outwards as long as the
best is at an end; the one with the highest validation figure is taken, with more seeds: three in all, five where a comparison is not
decided. A comparison is the difference of two means with its 95 % interval (Welch); the paper's statement holds where the whole interval
is on its side.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import math
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
from scipy import stats

from attr_jax import evaluate
from attr_jax import run_folder
from attr_jax import writers
from attr_jax.errors import InputError
from claims import CLAIMS, VERDICTS, Claim, Comparison
import evidence_picture
import grid
import page_parts
import report_tables
import results

RECORDS = pathlib.Path("docs/results/evidence")
RATES, MOST_RATE = (0.5, 1.0, 2.0), 8.0  # times the config's own; no more than so many times, and no less than a part as small
FIRST_SEEDS, MOST_SEEDS = 3, 5
_START = re.compile("<!-- evidence: ([^ ]+) -->")
_VARIANT = "rate x "  # and the factor, in the records


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line; trains, or writes or checks the page."""
  parser = argparse.ArgumentParser(description="Runs the arms of the papers' claims, and writes their tables.")
  trained = [name for name, claim in CLAIMS.items() if not claim.grid]
  parser.add_argument("--claim", action="append", choices=trained, help="train its arms; may be given several times")
  parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
  parser.add_argument("--out", type=pathlib.Path, default="runs/evidence", help="folder of the runs (default: runs/evidence)")
  parser.add_argument("--update", type=pathlib.Path, metavar="PAGE", help="write the tables of a page anew")
  parser.add_argument("--check", type=pathlib.Path, metavar="PAGE", help="whether the tables of a page are those of the records")
  parser.add_argument("--draw", type=pathlib.Path, metavar="PNG", help="draw all comparisons")
  args = parser.parse_args(argv)
  if not (args.claim or args.update or args.check or args.draw):
    parser.error("one of --claim, --update, --check, --draw is needed")
  try:
    for name in args.claim or ():
      if status := run(name, args.out, args.jobs):
        sys.exit(status)
    if args.update:
      writers.write_whole(args.update, updated(args.update.read_text(), str(args.update)))
    if args.check and updated(args.check.read_text(), str(args.check)) != args.check.read_text():
      sys.exit(f"evidence: the tables of {args.check} are not those of {RECORDS}; run with --update={args.check}")
    if args.draw:
      evidence_picture.draw({claim.title: lines_of(name) for name, claim in CLAIMS.items()}, args.draw)
  except InputError as error:
    print(f"evidence: {error}", file=sys.stderr)
    sys.exit(2)


def records_of(name: str) -> list[results.Record]:
  """What has been run of a claim."""
  return results.read(pathlib.Path(CLAIMS[name].grid or RECORDS / f"{name}.jsonl"))


def run(name: str, out: pathlib.Path, jobs: int = 1) -> int:
  """Trains what a claim still needs, round after round; 0, or the status of `grid.run`."""
  claim, records = CLAIMS[name], RECORDS / f"{name}.jsonl"
  print(claim.title, flush=True)
  while cells := missing(name, results.read(records), out):
    for command, made in claim.before:
      if not any(pathlib.Path().glob(made)):
        print(f"attr-jax {command}", flush=True)
        subprocess.run([sys.executable, "-m", "attr_jax", *shlex.split(command)], check=True)
    if status := grid.run(cells, records, jobs=jobs, measures=claim.stored):
      return status
    add_means(claim, records)
  print(table(name, results.read(records)))
  return 0


def missing(name: str, records: Sequence[results.Record], out: pathlib.Path) -> list[grid.Cell]:
  """The runs of the next round: first learning rates with one seed, then more seeds, then those of undecided comparisons."""
  claim = CLAIMS[name]
  there = {(record.row, record.variant, record.seed) for record in records}
  new = lambda cells: [cell for cell in cells if (cell[0], _variant(cell[1]), cell[2]) not in there]
  wanted = new((arm, rate, 0) for arm in claim.arms if not claim.arms[arm].tuned_as for rate in _rates(claim, records, arm))
  if not wanted:
    rates = {arm: chosen_rate(claim, records, arm) for arm in claim.arms}
    wanted = new((arm, rates[arm], seed) for seed in range(FIRST_SEEDS) for arm in claim.arms)
  if not wanted:
    judged = [(one, judge(claim, records, one)) for one in claim.comparisons]
    more = {arm for one, found in judged if found and found.verdict == VERDICTS[2] for arm in _arms(claim, one)}
    wanted = new((arm, rates[arm], seed) for seed in range(FIRST_SEEDS, MOST_SEEDS) for arm in claim.arms if arm in more)
  return [_cell(claim, name, *cell, out) for cell in wanted]


def _rates(claim: Claim, records: Sequence[results.Record], arm: str) -> list[float]:
  """The learning rates to try: RATES, and the next one where the best of those tried is at an end."""
  tried = sorted(_tried(claim, records, arm))
  if not set(RATES) <= set(tried):
    return list(RATES)
  best = chosen_rate(claim, records, arm)
  if best == tried[-1] and best < MOST_RATE:
    return [*tried, 2 * best]
  if best == tried[0] and best > 1 / MOST_RATE:
    return [best / 2, *tried]
  return tried


def _tried(claim: Claim, records: Sequence[results.Record], arm: str) -> dict[float, float]:
  """Rate -> the highest validation figure of seed 0, of the arm or of the one that it is tuned as."""
  arm = claim.arms[arm].tuned_as or arm
  return {float(record.variant.removeprefix(_VARIANT)): max(filter(None, record.curves["val"]), default=-math.inf)
          for record in records if record.row == arm and record.seed == 0}


def _cell(claim: Claim, name: str, arm: str, rate: float, seed: int, out: pathlib.Path) -> grid.Cell:
  chosen = claim.arms[arm]
  overrides = (*claim.overrides, *chosen.overrides)
  folder = out / name / re.sub(r"[^A-Za-z0-9]+", "-", arm).strip("-") / f"rate{rate:g}-seed{seed}"
  cell = grid.Cell("", arm, seed, _variant(rate), chosen.config, overrides, folder)
  config = cell.load()
  overrides = (*overrides, f"--config.optimizer.learning_rate={rate * config.optimizer.learning_rate:g}")
  return dataclasses.replace(cell, overrides=overrides, views=(config.evaluate.views,))


def _variant(rate: float) -> str:
  return f"{_VARIANT}{rate:g}"


def chosen_rate(claim: Claim, records: Sequence[results.Record], arm: str) -> float:
  """The rate with the highest validation figure of seed 0; the config's own before any was tried."""
  tried = _tried(claim, records, arm)
  return max(tried, key=tried.get, default=1.0)


def add_means(claim: Claim, records: pathlib.Path) -> None:
  """Records of the averaged probabilities of two arms, where the folders of both are there."""
  known = results.read(records)
  for name, arms in claim.means.items():
    new = []
    for seed in range(MOST_SEEDS):
      both = [_of(claim, known, arm, seed) for arm in arms]
      folders = [pathlib.Path(record.run) for record in both if record]
      if len(folders) == 2 and all((folder / "DONE").is_file() for folder in folders):
        new.append(dataclasses.replace(both[0], row=name, variant="", command=" and ".join(record.command for record in both),
                                       **_mean_figures(folders)))
    results.write(records, results.merge(known, new))
    known = results.read(records)


def _mean_figures(folders: Sequence[pathlib.Path]) -> dict[str, object]:
  """`views` and `per_attribute` of the mean of two runs, as `attr-jax evaluate` with both would have them."""
  config, info = run_folder.read_start(folders[0])
  view = config.evaluate.views
  tables = [dict(np.load(folder / "predictions" / f"{config.data.test_split}-{view}.npz")) for folder in folders]
  report = evaluate.measure(evaluate.average_predictions(tables, f"split {config.data.test_split!r}"), info.label_names)
  return {"views": {view: {"native": report["metrics"]}},
          "per_attribute": {name: {key: row[key] for key in ("AP", "positives", "negatives")} for name, row in report["per_attribute"].items()}}


def _of(claim: Claim, records: Sequence[results.Record], arm: str, seed: int) -> results.Record | None:
  """The record of an arm at its chosen rate."""
  variant = "" if claim.grid or arm in claim.means else _variant(chosen_rate(claim, records, arm))
  return next((record for record in records if (record.row, record.variant, record.seed) == (arm, variant, seed)), None)


def figures(claim: Claim, records: Sequence[results.Record], arm: str, measure: str) -> list[float]:
  """A measure of an arm, seed by seed."""
  found = [_of(claim, records, arm, seed) for seed in range(MOST_SEEDS)]
  return [claim.measures[measure](record) for record in found if record]


@dataclasses.dataclass(frozen=True)
class Judged:
  """Difference of the means, arm - than, in points, with its 95 % interval."""

  difference: float
  low: float
  high: float
  verdict: str


def judge(claim: Claim, records: Sequence[results.Record], comparison: Comparison) -> Judged | None:
  """None where an arm has fewer than two runs."""
  a, b = (figures(claim, records, arm, comparison.measure) for arm in (comparison.arm, comparison.than))
  if min(len(a), len(b)) < 2:
    return None
  low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
  verdict = VERDICTS[2]
  if low > 0 or high < 0:
    verdict = VERDICTS[0 if (low > 0) == comparison.more else 1]
  return Judged(100 * (np.mean(a) - np.mean(b)), 100 * low, 100 * high, verdict)


def lines_of(name: str) -> list[evidence_picture.Line]:
  """A claim's comparisons that were run, turned so that more is what the paper says."""
  claim, records, lines = CLAIMS[name], records_of(name), []
  for one in claim.comparisons:
    if found := judge(claim, records, one):
      ends = (found.low, found.high) if one.more else (-found.high, -found.low)
      difference = found.difference if one.more else -found.difference
      lines.append(evidence_picture.Line(one.says, _compared(one), difference, *ends, found.verdict))
  return lines


def _compared(one: Comparison) -> str:
  return f"{one.measure}: {one.arm} - {one.than}"


def _arms(claim: Claim, comparison: Comparison) -> set[str]:
  """The arms to train for a comparison."""
  return {part for arm in (comparison.arm, comparison.than) for part in claim.means.get(arm, (arm,))}


def table(name: str, records: Sequence[results.Record]) -> str:
  """Both tables of a claim, as Markdown: the arms, and the comparisons with their verdicts."""
  claim = CLAIMS[name]
  arms = page_parts.table(("arm", "seeds", "rate", *claim.measures), [_arm_line(claim, records, arm) for arm in (*claim.arms, *claim.means)])
  if not claim.comparisons:
    return arms
  head = ("the paper says", "compared", "difference, points [95 % interval]", "verdict")
  return f"{arms}\n\n{page_parts.table(head, [_comparison_line(claim, records, one) for one in claim.comparisons])}"


def _arm_line(claim: Claim, records: Sequence[results.Record], arm: str) -> list[str]:
  values = [figures(claim, records, arm, measure) for measure in claim.measures]
  count = len(values[0])
  rate = f"x {chosen_rate(claim, records, arm):g}" if count and not claim.grid and arm in claim.arms else ""
  return [arm, str(count or "not run"), rate, *map(_cell_text, values)]


def _comparison_line(claim: Claim, records: Sequence[results.Record], one: Comparison) -> tuple[str, ...]:
  judged = judge(claim, records, one)
  if judged is None:
    return one.says, _compared(one), "not run", ""
  return one.says, _compared(one), f"{judged.difference:+.1f} [{judged.low:+.1f}, {judged.high:+.1f}]", judged.verdict


def _cell_text(values: Sequence[float]) -> str:
  known = [value for value in values if not math.isnan(value)]
  if not known:
    return "-"
  return report_tables.percent(known) + (f" ({len(known)} of {len(values)})" if len(known) < len(values) else "")


def updated(text: str, page: str) -> str:
  """The text of a page whose parts between `<!-- evidence: NAME -->` and `<!-- end of evidence -->` are written anew.

  Raises:
    InputError: a name that is no claim, or a part without an end.
  """
  def tables(name: str) -> str:
    if name not in CLAIMS:
      raise InputError(f"{page}: {name!r} is no claim; there are: {', '.join(CLAIMS)}")
    return "\n" + table(name, records_of(name)) + "\n"

  return page_parts.rewritten(text, page, _START, "<!-- end of evidence -->", tables)


if __name__ == "__main__":
  main()
