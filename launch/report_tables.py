"""Records of runs beside what a paper prints: cells, tables of cells, and where each row comes from. `launch/report.py` writes them.

Figures are in percent: ours are means over seeds with the standard deviation (n - 1), differences are ours - paper in points.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import math
import statistics
from typing import Any

from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import run_folder
from attr_jax.errors import InputError
import results

SIDE_BY_SIDE = 3  # metrics; of more, paper, ours and difference stand below each other
_MOST_ACROSS = 8  # metrics; of more, there are several tables
# Of a run that is no row of a table, where it has them.
METRICS = ("mAP", "mean_positive_share", "mA", "F1", "F1-C", "F1-O", "sample_F2", "mask_IoU", "region_mIoU")
LEGEND = "Figures in percent. Ours: mean ± standard deviation (n - 1) over n seeds; difference: ours - paper, in points."
_NONE = "-"  # nothing printed, nothing to compare
# Runs of a row that differ in one of these are not averaged.
_SETTING = ("data", "model", "split", "samples", "selected_on", "average_precision")


@dataclasses.dataclass(frozen=True)
class Cell:
  """What stands in a table: its text, its kind ("row", "paper", "ours", "difference", "absent") and where it comes from."""

  text: str
  kind: str = "ours"
  source: str = ""


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A table: (group, name) over each column, lines of cells; a line that begins a row starts with a cell of the kind "row"."""

  caption: str
  head: Sequence[tuple[str, str]]
  lines: Sequence[Sequence[Cell]]


@dataclasses.dataclass(frozen=True)
class Table:
  """All runs of a table of a paper (`name` "dahar:table3"), or those that are no row of one ("").

  Attributes:
    name: see there.
    rows: those of the paper in its order, each followed by its variants that were run ("all, VARIANT"); or {}.
    runs: row -> records by seed; only rows that have runs.
  """

  name: str
  rows: Mapping[str, config_lib.Row]
  runs: Mapping[str, Sequence[results.Record]]

  @property
  def title(self) -> str:
    return self.name or "runs outside of tables"

  @property
  def file(self) -> str:
    """Stem of its files."""
    return self.name.replace(":", "-") or "runs"

  def count(self) -> str:
    """ "2 of 7 rows, 6 runs". """
    total = sum(map(len, self.runs.values()))
    runs = f"{total} run" + "s" * (total != 1)
    if not self.name:
      return runs
    runnable = sum(row.config is not None for row in results.rows_of(self.name).values())
    return f"{len({record.row for records in self.runs.values() for record in records})} of {runnable} rows, {runs}"


def group(records: Iterable[results.Record], only: str | None = None) -> list[Table]:
  """The tables that the records belong to, as they come first; runs outside of tables stand last.

  Args:
    records: at most one of a cell.
    only: just this table, also when no run is of it.

  Raises:
    InputError: a record of a table or row that is not there, or of a quoted row; two records of a cell.
  """
  tables = {only: {}} if only is not None else {}
  for record in records:
    if only is None or record.table == only:
      cells = tables.setdefault(record.table, {})
      if record.key in cells:
        raise InputError(f"{label(record)} has two runs, {cells[record.key].run} and {record.run}: give one of them")
      cells[record.key] = record
  return [_table(name, list(cells.values())) for name, cells in sorted(tables.items(), key=lambda item: not item[0])]


def _table(name: str, records: Sequence[results.Record]) -> Table:
  rows = results.rows_of(name) if name else {}
  for record in records:
    if name and (record.row not in rows or rows[record.row].config is None):
      raise InputError(f"{record.run}: {name} has no row {record.row!r} that can be run")
  runs = {}
  for record in sorted(records, key=lambda record: record.seed):
    runs.setdefault(row_name(record), []).append(record)
  first = {row_name(record): record.row for record in records}  # in the order of the records
  if not name:
    return Table(name, {}, {row: runs[row] for row in first})
  shown = {of: entry for row, entry in rows.items() for of in (row, *(of for of in first if first[of] == row))}
  return Table(name, shown, {row: runs[row] for row in shown if row in runs})


def row_name(record: results.Record) -> str:
  """The row and, behind it, its variant."""
  return ", ".join(filter(None, [record.row, record.variant]))


def label(record: results.Record) -> str:
  return f"{record.table}/{row_name(record)}".removeprefix("/") + f" seed {record.seed}"


def paper_metrics(table: Table) -> dict[str, list[str]]:
  """View -> the metrics that any row of the paper's table prints; of runs outside of tables those of METRICS that they have."""
  views = {}
  for row in table.rows.values():
    for view, figures in row.paper.items():
      metrics = views.setdefault(view, [])
      metrics += [metric for metric in figures if metric not in metrics]
  if not table.name:
    for record in _all(table):
      for view, figures in record.views.items():
        metrics = {*views.get(view, ()), *figures["native"]}
        views[view] = [metric for metric in METRICS if metric in metrics]
  return views


def convention(table: Table, row: str) -> str:
  return table.rows[row].convention if table.rows else "native"


def figures_of(table: Table, row: str, view: str, metric: str) -> list[float | None]:
  """A figure of each run of a row, fractions; None where it is missing. [] without runs, or where neither they nor the paper have it."""
  of_runs = [record.views.get(view, {}).get(convention(table, row), {}) for record in table.runs.get(row, ())]
  printed = table.rows[row].paper.get(view, {}) if table.rows else {}
  if metric not in printed and not any(metric in figures for figures in of_runs):
    return []
  return [finite(figures.get(metric)) for figures in of_runs]


def finite(value: float | None) -> float | None:
  return None if value is None or not math.isfinite(value) else value


def percent(values: Sequence[float | None]) -> str:
  """ "71.3 ± 0.4"; "71.3" of one value; "missing" where no value is known."""
  known = [100 * value for value in values if value is not None]
  if not known:
    return "missing"
  return f"{statistics.mean(known):.1f}" + (f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else "")


def counted(values: Sequence[float | None], seeds: Sequence[int]) -> str:
  """ "(n=3)"; what is missing is named."""
  missing = [seed for seed, value in zip(seeds, values, strict=True) if value is None]
  if not missing or len(missing) == len(seeds):
    return f"(n={len(seeds)})"
  return f"(n={len(seeds) - len(missing)} of {len(seeds)}, missing: seed {_listed(missing)})"


def difference(values: Sequence[float | None], paper: float | None) -> str:
  """ "-14.0"; "-" where there is nothing to compare, or where the mean would leave out a run."""
  if paper is None or not values or None in values:
    return _NONE
  text = f"{100 * statistics.mean(values) - paper:+.1f}"
  return "0.0" if float(text) == 0 else text


def unlike(runs: Sequence[results.Record]) -> list[str]:
  """In what the runs of a row differ that should not be averaged."""
  return [key for key in _SETTING if len({getattr(record, key) for record in runs}) > 1]


def sheets(table: Table) -> list[Sheet]:
  """The figures that the paper prints, then those of each attribute where it prints them, then further figures of the runs."""
  views = paper_metrics(table)
  if not table.name:
    found = [_plain(table, view, metrics) for view, metrics in views.items()]
  elif sum(map(len, views.values())) <= SIDE_BY_SIDE:
    pairs = [(view, metric) for view, metrics in views.items() for metric in metrics]
    found = [_side_by_side(table, "", [(f"{metric}, {spoken(view)}", view, metric) for view, metric in pairs])]
  else:
    found = []
    for view, metrics in views.items():
      if len(metrics) <= SIDE_BY_SIDE:
        found.append(_side_by_side(table, spoken(view), [(metric, view, metric) for metric in metrics]))
      else:
        count = -(-len(metrics) // _MOST_ACROSS)
        ends = [i * len(metrics) // count for i in range(count + 1)]
        found += [_stacked(table, view, metrics[start:end]) for start, end in zip(ends, ends[1:])]
  return [*found, *(_attributes(table, row) for row in table.runs if table.rows and table.rows[row].per_attribute), *_measures(table)]


def spoken(view: str) -> str:
  """ "five_crop" -> "five crops". """
  return {"full": "full view", "five_crop": "five crops", "ten_crop": "ten crops", "six_view": "six views"}.get(view, view)


def caveats(table: Table) -> list[str]:
  """What must be known before a difference is read; [] where the runs are what the paper's are."""
  instead, unequal = {}, []
  for row, runs in table.runs.items():
    if table.rows:
      config = _full_size(table.name, runs[0].row)
      for record in runs:
        for ours, theirs in ((record.data, run_folder.data_name(config)), (record.model, run_folder.model_name(config))):
          if ours != theirs:
            instead.setdefault(f"{ours} instead of {theirs}", []).append(row)
    if keys := unlike(runs):
      unequal.append(f"The runs of {row} differ in {_listed([key.replace('_', ' ') for key in keys])} and are not averaged.")
  sentences = []
  if instead:
    where = [what + ("" if {*rows} == {*table.runs} else f" (in {_listed(list(dict.fromkeys(rows)))})") for what, rows in instead.items()]
    sentences = [f"The differences from the paper are no replication: these runs have {'; '.join(where)}."]
  return sentences + unequal


def notes(table: Table) -> dict[str, str]:
  """Row -> what one must know to read its figures."""
  return {row: entry.note for row, entry in (results.rows_of(table.name) if table.name else {}).items() if entry.note}


def provenance(table: Table) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
  """What all rows have in common, and what each row has of its own: kind of fact -> text."""
  each = {row: _facts(table, row) for row in table.runs}
  if len(each) < 2:
    return {}, each
  first = next(iter(each.values()))
  common = {key: text for key, text in first.items() if key != "seeds" and all(facts[key] == text for facts in each.values())}
  return common, {row: {key: text for key, text in facts.items() if key not in common} for row, facts in each.items()}


def attribute_key(name: str) -> str:
  """The AP of an attribute that compares under a convention, see `attr_jax.config.Row`."""
  return "AP_interpolated" if name in ("srn", "diaa") else "AP"


@functools.cache
def _full_size(table: str, row: str) -> Any:
  """The config of a row as its paper has it."""
  file, _, name = table.partition(":")
  return cli.load_config(f"{results.REPOSITORY}/configs/{file}.py:{name}/{row}", [])


def _trains_on_choice(table: Table, row: str) -> bool:
  """Whether the row trains on the split that chooses its checkpoint, at any size."""
  if not table.rows:
    return False
  data = _full_size(table.name, table.runs[row][0].row).data
  return data.val_split in data.train_split.split("+")


def _all(table: Table) -> list[results.Record]:
  return [record for runs in table.runs.values() for record in runs]


def _listed(items: Sequence[object]) -> str:
  *rest, last = map(str, items)
  return f"{', '.join(rest)} and {last}" if rest else last


def _joined(values: Iterable[object]) -> str:
  """Each of them once, in order."""
  return ", ".join(dict.fromkeys(map(str, values)))


def _facts(table: Table, row: str) -> dict[str, str]:
  runs = table.runs[row]
  of = lambda key: _joined(getattr(record, key) for record in runs)
  one = len(runs) == 1
  shares = [finite(record.views[next(iter(record.views))]["native"].get("mean_positive_share")) for record in runs]
  return {
      "seeds": ("seed " if one else "seeds ") + of("seed"),
      "checkpoint": f"step {_joined(f'{record.step:,} of {record.steps:,}' for record in runs)}, chosen by {of('selected_on')}"
                    + ", which is trained on" * _trains_on_choice(table, row),
      "test": f"split {of('split')} of {of('data')}, {_joined(f'{record.samples:,}' for record in runs)} images"
              + (f", mean positive share {_joined(percent([chance]) for chance in shares)}" if any(map(bool, shares)) else ""),
      "model": f"model {of('model')}",
      "convention": f"convention {convention(table, row)}",
      "average precision": of("average_precision"),
      "program": f"commit {_joined(record.commit[:12] or 'unknown' for record in runs)}, {of('devices')}, "
                 f"{_joined(record.started[:10] for record in runs)}",
      "run": _joined(record.run for record in runs),
      "command": runs[0].command,
  }


def _source(table: Table, row: str, values: Sequence[float | None], what: str) -> str:
  """Where a cell comes from, a line for each run."""
  runs = table.runs[row]
  each = [f"seed {record.seed}: {percent([value])}, step {record.step:,} of {record.steps:,}, {record.run}"
          for record, value in zip(runs, values, strict=True)]
  return "\n".join([what, *each, f"checkpoint chosen by {_joined(record.selected_on for record in runs)}",
                    _joined(record.average_precision for record in runs)])


def _figure(table: Table, row: str, values: Sequence[float | None], paper: float | None, what: str, with_count: bool = True) -> list[Cell]:
  """The cells of ours and the difference."""
  if row in table.runs and not values:
    return [Cell(_NONE, "absent"), Cell(_NONE, "absent")]
  if not values:
    absent = "quoted" if table.rows[row].config is None else "not run"
    return [Cell(absent, "absent"), Cell(_NONE, "absent")]
  source = _source(table, row, values, what)
  if unlike(table.runs[row]):
    return [Cell("unlike runs", "absent", source), Cell(_NONE, "absent")]
  text, count = percent(values), counted(values, [record.seed for record in table.runs[row]])
  kind = "absent" if text == "missing" else "ours"
  return [Cell(f"{text} {count}" if with_count or None in values else text, kind, source), Cell(difference(values, paper), "difference")]


def _printed(table: Table, row: str, view: str, metric: str) -> tuple[float | None, Cell]:
  figure = table.rows[row].paper.get(view, {}).get(metric)
  if figure is None:
    return None, Cell(_NONE, "absent")
  return figure, Cell(f"{figure:.1f}" if round(figure, 1) == figure else f"{figure:g}", "paper")


def _what(table: Table, row: str, view: str, metric: str) -> str:
  return f"{metric}, {spoken(view)}, convention {convention(table, row)}"


def _side_by_side(table: Table, caption: str, columns: Sequence[tuple[str, str, str]]) -> Sheet:
  """paper | ours | difference for each (name, view, metric)."""
  lines = []
  for row in table.rows:
    line = [Cell(row, "row")]
    for _, view, metric in columns:
      figure, printed = _printed(table, row, view, metric)
      line += [printed, *_figure(table, row, figures_of(table, row, view, metric), figure, _what(table, row, view, metric))]
    lines.append(line)
  return Sheet(caption, [("", "row"), *((name, part) for name, _, _ in columns for part in ("paper", "ours", "difference"))], lines)


def _stacked(table: Table, view: str, metrics: Sequence[str]) -> Sheet:
  """A line each for paper, ours and difference; rows that are not run have the first alone, which says so."""
  lines = []
  for row, entry in table.rows.items():
    printed, below = [], []
    for metric in metrics:
      figure, cell = _printed(table, row, view, metric)
      printed.append(cell)
      below.append(_figure(table, row, figures_of(table, row, view, metric), figure, _what(table, row, view, metric), with_count=False))
    if row in table.runs:
      lines += [[Cell(row, "row"), Cell("paper", "paper"), *printed],
                [Cell("", "name"), Cell(f"ours (n={len(table.runs[row])})"), *(cells[0] for cells in below)],
                [Cell("", "name"), Cell("difference", "difference"), *(cells[1] for cells in below)]]
    elif any(cell.kind == "paper" for cell in printed):
      kind = "quoted" if entry.config is None else "not run"
      lines.append([Cell(row, "row"), Cell(f"paper; ours: {kind}", "absent"), *printed])
  return Sheet(spoken(view), [("", "row"), ("", "")] + [("", metric) for metric in metrics], lines)


def _plain(table: Table, view: str, metrics: Sequence[str]) -> Sheet:
  """Runs that no paper stands beside."""
  lines = [[Cell(row, "row"), *(_figure(table, row, figures_of(table, row, view, metric), None, _what(table, row, view, metric))[0]
                                for metric in metrics)] for row in table.runs]
  return Sheet(spoken(view), [("", "row"), *(("", metric) for metric in metrics)], lines)


def _attributes(table: Table, row: str) -> Sheet:
  """AP of each attribute that the paper prints, full view, with what chance gives."""
  runs, key = table.runs[row], attribute_key(convention(table, row))
  lines = []
  for attribute, figure in table.rows[row].per_attribute.items():
    full = [record.per_attribute.get(attribute, {}) if next(iter(record.views)) == "full" else {} for record in runs]
    ours = _figure(table, row, [finite(figures.get(key)) for figures in full], figure, f"{key} of {attribute}, full view")
    lines.append([Cell(attribute, "row"), Cell(percent(chances(full)[:1]), "paper"), Cell(f"{figure:g}", "paper"), *ours])
  head = [("", name) for name in ("attribute", "chance", "paper", "ours", "difference")]
  return Sheet(f"AP of each attribute, full view: {row}", head, lines)


def chances(figures: Sequence[Mapping[str, float | None]]) -> list[float | None]:
  """The share of positives among the labels that are known, of each run."""
  known = [(one.get("positives") or 0) + (one.get("negatives") or 0) for one in figures]
  return [one["positives"] / total if total else None for one, total in zip(figures, known)]


def _measures(table: Table) -> list[Sheet]:
  """What an experiment has measured besides, as it is: not in percent."""
  names = list(dict.fromkeys(name for record in _all(table) for name in record.measures))
  lines = []
  for row, runs in table.runs.items():
    line = [Cell(row, "row")]
    for name in names:
      values = [finite(record.measures.get(name)) for record in runs]
      known = [value for value in values if value is not None]
      if not any(name in record.measures for record in runs):
        line.append(Cell(_NONE, "absent"))
      elif unlike(runs):
        line.append(Cell("unlike runs", "absent"))
      else:
        text = f"{statistics.mean(known):.3g}" if known else "missing"
        spread = f" ± {statistics.stdev(known):.2g}" if len(known) > 1 else ""
        line.append(Cell(f"{text}{spread} {counted(values, [record.seed for record in runs])}", "ours" if known else "absent"))
    lines.append(line)
  return [Sheet("Further figures, not in percent", [("", "row"), *(("", name) for name in names)], lines)] if names else []
