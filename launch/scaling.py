"""Step time and efficiency of 8 to 1,024 TPU chips, predicted from what `launch/aot.py` has written. Nothing here is measured.

  python launch/scaling.py docs/results/aot-dahar-*.json

The work of a chip is the same however many there are: that of each kind is taken from its first file. The communication is taken from the files of
several chips, one for each scope of batch norm. Formulas and assumptions stand in docs/scaling.md.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import math
import pathlib
import sys

from attr_jax import abstract
from attr_jax import hlo
from attr_jax.errors import InputError
import tpu_chips

# Slices as they can be asked for, by the number of axes; where one holds fewer chips, several are joined by the network of the hosts.
SIZES = (8, 64, 256, 1024)
SLICES = {2: {8: (2, 4), 64: (8, 8), 256: (16, 16), 1024: (16, 16)}, 3: {8: (2, 2, 2), 64: (4, 4, 4), 256: (4, 8, 8), 1024: (8, 8, 16)}}
SCOPES = ("local", "group", "global")
NETWORK_LATENCY = 60e-6  # seconds of a small all-reduce between slices: assumed
JITTER = 0.01  # standard deviation of the time that a chip takes, as a share of it: assumed
BACKWARD = 2 / 3  # of the work


@dataclasses.dataclass(frozen=True)
class Program:
  """What a file says: kind of chip, seconds of work and images of each chip, scope of batch norm, chips and collectives."""

  kind: str
  work: float
  images: int
  scope: str
  chips: int
  collectives: tuple[hlo.Collective, ...]


@dataclasses.dataclass(frozen=True)
class Step:
  """Seconds: bytes on their way, latency of all collectives, and the whole step; and the work's share of that."""

  sending: float
  latency: float
  step: float
  efficiency: float


def read(path: pathlib.Path) -> Program:
  """Raises InputError where the file is not of launch/aot.py, or of a program that does not fit."""
  try:
    result = json.loads(path.read_text())
    predicted = result["predicted"]
    return Program(abstract.parse_topology(result["topology"])[0], max(predicted["compute"], predicted["memory"]), result["images_per_chip"],
                   result["batch_norm"], result["chips"], tuple(hlo.Collective(**one) for one in result["collectives"]))
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f"{path}: not the JSON of a program that fits, by launch/aot.py ({error!r})") from error


def sending_seconds(chip: tpu_chips.Chip, chips: int, size: float) -> float:
  """Of an all-reduce of `size` bytes over all chips: within the slices, of each chip's part between them, and within them again."""
  shape = slice_of(chip, chips)
  inside = math.prod(shape)
  slices = chips // inside
  return 2 * (inside - 1) / inside * size / tpu_chips.rate(chip, shape) + 2 * (slices - 1) / slices * size / inside / chip.network


def small_seconds(chip: tpu_chips.Chip, chips: int) -> float:
  """Of an all-reduce of a few bytes over all chips."""
  shape = slice_of(chip, chips)
  return tpu_chips.latency(chip, shape) + (NETWORK_LATENCY if chips > math.prod(shape) else 0.0)


def slice_of(chip: tpu_chips.Chip, chips: int) -> tuple[int, ...]:
  return SLICES[3 if chip.ring == 4 else 2][chips]


def predict(chip: tpu_chips.Chip, chips: int, work: float, program: Program) -> Step:
  """One step of `chips` chips that do `work` seconds each and communicate as `program` does, in groups of its size or all together."""
  sending = latency = beside = 0.0
  for one in program.collectives:
    everywhere = one.group == program.chips
    wait = one.count * (small_seconds(chip, chips) if everywhere else tpu_chips.latency(chip, (one.group,)))
    size = sending_seconds(chip, chips, one.size) if everywhere else tpu_chips.collective_seconds(chip, (one.group,), one) - wait
    latency += wait
    sending += size
    beside += size + wait if one.asynchronous else 0.0
  slowest = work * (1 + JITTER * math.sqrt(2 * math.log(chips)))
  step = slowest + sending + latency - min(beside, BACKWARD * work)
  return Step(sending, latency, step, work / step)


def table(programs: Sequence[Program]) -> str:
  """Lines of at most 80 columns, times in ms: a row for each kind and number of chips; efficiency by scope, the other columns of the first scope."""
  work, scopes = {}, {}
  for one in programs:
    work.setdefault(one.kind, one)
    if one.chips > 1:
      scopes.setdefault(one.scope, one)
  names = [scope for scope in SCOPES if scope in scopes]
  lines = [f"{'':<5}{'chips':>6}{'images':>8}{'work':>8}{'sending':>8}{'latency':>8}" + "".join(f"{name:>8}" for name in names) + f"{'images/s':>12}"]
  for kind, first in work.items():
    for chips in SIZES:
      steps = [predict(tpu_chips.CHIPS[kind], chips, first.work, scopes[name]) for name in names]
      times = (first.work, steps[0].sending, steps[0].latency)
      lines.append(f"{kind:<5}{chips:>6,}{chips * first.images:>8,}" + "".join(f"{1e3 * seconds:>8.2f}" for seconds in times)
                   + "".join(f"{step.efficiency:>8.3f}" for step in steps) + f"{chips * first.images / steps[0].step:>12,.0f}")
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("results", nargs="+", type=pathlib.Path, help="JSON files of launch/aot.py, at least one of several chips")
  args = parser.parse_args()
  try:
    programs = [read(path) for path in args.results]
  except InputError as error:
    print(f"scaling: {error}", file=sys.stderr)
    sys.exit(2)
  if all(one.chips == 1 for one in programs):
    parser.error("all files are of one chip: none tells what is communicated")
  print(table(programs))


if __name__ == "__main__":
  main()
