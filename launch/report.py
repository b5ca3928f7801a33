"""Tables, curves and pictures from finished runs, beside what the papers print.

  python launch/report.py runs/grid docs/results/grids/dahar.jsonl [--table=dahar:table3] [--out=report]
  python launch/report.py --update docs/results.md README.md
  python launch/report.py --check docs/results.md README.md

The first form takes run folders, folders of them and files of records, and writes OUT/report.html and, for each table, OUT/<table>.md and
OUT/<table>.csv. The others make or check what stands in a page between `<!-- table: docs/results/grids/NAME.jsonl -->` and
`<!-- end of table -->`; for NAMEs of other tables see `_TABLES`. Exit status: 0 done, 1 --check found stale tables, 2 a wrong call or a damaged run, which one line names.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
import csv
import dataclasses
import functools
import io
import os
import pathlib
import re
import sys

from attr_jax import writers
from attr_jax.errors import InputError
import export_table
import page_parts
import report_page
import report_tables
import results
import run_tables
import systems

CSV_FIELDS = ("table", "row", "variant", "view", "metric", "convention", "seed", "paper", "ours", "run", "step", "steps", "selected_on",
              "average_precision", "data", "model", "commit", "started")
_START, _WRITTEN, _END = re.compile(r"<!-- table: (\S+) -->"), re.compile(r"<!-- (systems|exports|runs: \S+) -->"), "<!-- end of table -->"
_TABLES = {"systems": systems.table, "exports": export_table.table,
           **{f"runs: {name}": functools.partial(run_tables.table, name) for name in run_tables.TABLES}}


def collect(paths: Sequence[pathlib.Path]) -> tuple[list[results.Record], list[pathlib.Path]]:
  """All finished runs of the paths, each once, and the folders of unfinished ones.

  Raises:
    InputError: a path that is not there or holds neither runs nor records; a damaged run; two runs of one cell.
  """
  found, unfinished = {}, []
  for path in paths:
    records, open_runs = _read(path)
    unfinished += open_runs
    for record in records:
      # Runs outside of tables are told apart by their folders alone.
      key = (*record.key, "" if record.table else record.run)
      old = found.get(key, record)
      if not _same_run(old, record):
        raise InputError(f"{report_tables.label(record)} has two runs, {old.run} and {record.run}: give one of them")
      # The same run as a record and as a folder: what an experiment has measured stands in the record alone.
      found[key] = dataclasses.replace(record, measures=record.measures or old.measures)
  return _with_own_names(list(found.values())), unfinished


def markdown(table: report_tables.Table) -> str:
  """The tables of figures, then notes and where the figures come from."""
  parts = [f"> {sentence}" for sentence in map(_escaped, report_tables.caveats(table))]
  for sheet in report_tables.sheets(table):
    parts.append((f"**{_escaped(sheet.caption)}**\n\n" if sheet.caption else "") + _sheet_markdown(sheet))
  parts.append(report_tables.LEGEND)
  lines = [f"- {_code(row)}: {_escaped(note)}" for row, note in report_tables.notes(table).items()]
  common, each = report_tables.provenance(table)
  if common:
    lines.append(f"- Runs of all rows: {_facts_markdown(common)}.")
  lines += [f"- Runs of {_code(row)}: {_facts_markdown(facts)}." for row, facts in each.items()]
  return "\n\n".join([*parts, "\n".join(lines)]).strip() + "\n"


def csv_text(table: report_tables.Table) -> str:
  """Long form: a line for each row, seed, view and metric, figures in percent; one without seed for a row without runs."""
  text = io.StringIO()
  writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
  writer.writeheader()
  for row in table.rows or table.runs:
    convention = report_tables.convention(table, row)
    for view, metrics in report_tables.paper_metrics(table).items():
      for metric in metrics:
        paper = table.rows[row].paper.get(view, {}).get(metric) if table.rows else None
        line = {"table": table.name, "view": view, "metric": metric, "convention": convention, "paper": paper}
        values = report_tables.figures_of(table, row, view, metric)
        for record, value in zip(table.runs.get(row, ()) if values else (), values):
          own = {key: getattr(record, key) for key in CSV_FIELDS if key not in line and key != "ours"}
          writer.writerow(line | own | {"ours": None if value is None else f"{100 * value:.4f}"})
        if not values and paper is not None:
          writer.writerow(line | {"row": row})
  return text.getvalue()


def write(tables: Sequence[report_tables.Table], out: pathlib.Path) -> None:
  """Fills the folder `out`."""
  out.mkdir(parents=True, exist_ok=True)
  for table in tables:
    writers.write_whole(out / f"{table.file}.md", f"# {table.title}\n\n{markdown(table)}")
    writers.write_whole(out / f"{table.file}.csv", csv_text(table))
  writers.write_whole(out / "report.html", report_page.page(tables))


def summary(tables: Sequence[report_tables.Table], unfinished: Sequence[pathlib.Path], out: pathlib.Path) -> str:
  """Lines of at most 80 columns."""
  lines = [f"{table.title:<30}{table.count()}" for table in tables]
  for table in tables:
    unlike = [row for row, runs in table.runs.items() if report_tables.unlike(runs)]
    lines += [f"{_tail(f'{table.title}/{row}', 40)}: runs differ, not averaged" for row in unlike]
  lines += [f"not finished: {_tail(str(folder), 66)}" for folder in unfinished]
  return "\n".join([*lines, f"written: {_tail(str(out / 'report.html'), 71)}"])


def generated(text: str, page: str) -> str:
  """The text of a page with its tables made anew from the records of the repository.

  Raises:
    InputError: a table without an end, or of a file that is not there.
  """
  def tables(file: str) -> str:
    path = results.REPOSITORY / file
    if not path.is_file():
      raise InputError(f"{page}: {file} does not exist")
    found = report_tables.group(_with_own_names(results.read(path)))
    return "\n\n" + "\n".join(markdown(table) for table in found) + "\n"

  def other(name: str) -> str:
    if name not in _TABLES:
      raise InputError(f"{page}: no table is called {name!r}; there are: {', '.join(_TABLES)}")
    return f"\n{_TABLES[name]()}\n"

  text = page_parts.rewritten(text, page, _WRITTEN, _END, other)
  return page_parts.rewritten(text, page, _START, _END, tables)


def update(pages: Iterable[pathlib.Path], check: bool) -> list[pathlib.Path]:
  """The pages whose tables are not what the records say; unless `check`, they are rewritten."""
  stale = []
  for page in pages:
    if not page.is_file():
      raise InputError(f"{page} does not exist")
    old = page.read_text()
    new = generated(old, str(page))
    if new != old:
      stale.append(page)
      if not check:
        writers.write_whole(page, new)
  return stale


def _read(path: pathlib.Path) -> tuple[list[results.Record], list[pathlib.Path]]:
  """The records of a file; or those of a folder's records.jsonl and finished runs, at any depth; and the unfinished runs."""
  if path.is_file():
    if path.suffix != ".jsonl":
      raise InputError(f"{path} is neither a folder nor a .jsonl file of records")
    if not (records := results.read(path)):
      raise InputError(f"{path} holds no record")
    return records, []
  if not path.is_dir():
    raise InputError(f"{path} does not exist")
  runs, unfinished, files = [], [], []
  for folder, below, names in os.walk(path):
    below.sort()
    folder = pathlib.Path(folder)
    if "config.json" in names or results.CELL in names:
      below.clear()
      if (record := _read_run(folder)) is None:
        unfinished.append(folder)
      else:
        runs.append(record)
    elif "records.jsonl" in names:
      files.append(folder / "records.jsonl")
  if not runs and not unfinished and not files:
    raise InputError(f"{path} holds neither a run nor records.jsonl")
  return [*(record for file in files for record in results.read(file)), *runs], unfinished


def _read_run(folder: pathlib.Path) -> results.Record | None:
  """None: the run is not finished.

  Raises:
    InputError: its files are damaged.
  """
  if not (folder / "DONE").is_file():
    return None
  try:
    return results.read_run(folder)
  except results.UnfinishedRun:
    return None
  except (InputError, OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f"{folder}: damaged run ({type(error).__name__}: {' '.join(str(error).split())})") from error


def _same_run(one: results.Record, other: results.Record) -> bool:
  return one.started == other.started or pathlib.Path(one.run).resolve() == pathlib.Path(other.run).resolve()


def _with_own_names(records: Sequence[results.Record]) -> list[results.Record]:
  """Runs outside of tables whose folders have one name and one seed get the whole path as their name."""
  keys = [record.key for record in records]
  return [dataclasses.replace(record, row=record.run) if not record.table and keys.count(record.key) > 1 else record for record in records]


def _sheet_markdown(sheet: report_tables.Sheet) -> str:
  grouped = [f"{group}: {name}" if group and name == "paper" else name for group, name in sheet.head]
  numeric = ["---" if i == 0 or not name and not group else "---:" for i, (group, name) in enumerate(sheet.head)]
  lines = [map(_escaped, grouped), numeric]
  lines += [[_code(cell.text) if cell.kind == "row" else _escaped(cell.text) for cell in line] for line in sheet.lines]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _facts_markdown(facts: Mapping[str, str]) -> str:
  return "; ".join(_code(text) if key in ("run", "command") else _escaped(text) for key, text in facts.items())


def _escaped(text: str) -> str:
  """Nothing in it is Markdown or ends a cell."""
  return re.sub(r"([\\|<>*`\[\]])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
  """As code; a bar would end the cell, and a backtick the code."""
  plain = " ".join(text.split()).replace("`", "'").replace("|", "/")
  return f"`{plain}`" if plain else ""


def _tail(text: str, most: int) -> str:
  return text if len(text) <= most else "…" + text[1 - most:]


def run(argv: Sequence[str]) -> int:
  """Does what the command line says; returns the exit status."""
  parser = argparse.ArgumentParser(prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("paths", nargs="+", type=pathlib.Path, metavar="PATH",
                      help="run folder, folder of runs, .jsonl of records; with --update or --check a page")
  parser.add_argument("--table", help="only this one, such as dahar:table3")
  parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("report"), help="folder to write (default: report)")
  pages = parser.add_mutually_exclusive_group()
  pages.add_argument("--update", action="store_true", help="make the tables of these pages anew")
  pages.add_argument("--check", action="store_true", help="name the pages whose tables are stale")
  args = parser.parse_args(argv)
  if args.update or args.check:
    for page in (stale := update(args.paths, args.check)):
      print(f"{page}: its tables are stale; python launch/report.py --update {page}" if args.check else f"{page}: tables made anew")
    return int(args.check and bool(stale))
  records, unfinished = collect(args.paths)
  tables = report_tables.group(records, args.table)
  if not tables:
    raise InputError(f"no finished run in {', '.join(map(str, args.paths))}")
  write(tables, args.out)
  print(summary(tables, unfinished, args.out))
  return 0


def main() -> None:
  try:
    status = run(sys.argv[1:])
  except InputError as error:
    print(f"report: {error}", file=sys.stderr)
    status = 2
  sys.exit(status)


if __name__ == "__main__":
  main()
