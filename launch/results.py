"""What finished runs have to say, one record each: the source of every table that is generated.

A record is one line of a JSON-lines file: small enough to be kept in a repository when the run's folder is gone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import importlib.util
import json
import pathlib
from types import ModuleType
from typing import Any

import numpy as np

from attr_jax import config as config_lib
from attr_jax import evaluate
from attr_jax import run_folder
from attr_jax import writers
from attr_jax.errors import InputError

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
CELL = "cell.json"  # in a run's folder: which cell of which table it is
_CURVE_POINTS = 40
_DIGITS = 6
_PER_ATTRIBUTE = ("AP", "AP_interpolated", "positives", "negatives", "flip_error", "scale_error", "heatmap_inside", "attention_inside")


class UnfinishedRun(InputError):
  """The run has not ended, or is not measured in all views of its row."""


@dataclasses.dataclass(frozen=True)
class Record:
  """One run.

  Attributes:
    table: "dahar:table3", file of `configs` and table in it; "" of a run that is no row of a table.
    row: of that table, or the name of the run's folder.
    variant: what else tells runs of one row apart; "" for most.
    seed: `config.seed`.
    command: that made the run.
    run: its folder.
    commit: of the program.
    started: date and time, ISO 8601.
    devices: "1 x cpu".
    model: name and depth.
    data: data set or synthetic world.
    split: that was tested, with `samples` images.
    samples: see there.
    step: of the tested checkpoint, of `steps` in all.
    steps: see there.
    selected_on: what chose the checkpoint: "mAP on val", or "nothing (the last one)".
    average_precision: how it is computed.
    views: view -> {"native": metric -> figure, CONVENTION: metric -> figure}, fractions; the convention is the row's, where it
      is another one, and has the metrics that its paper prints.
    per_attribute: attribute -> AP and what else `_PER_ATTRIBUTE` names, first view, native.
    curves: "step" and "loss", "val_step" and "val": the metric of `selected_on`; thinned.
    measures: further figures of an experiment by name.
  """

  table: str
  row: str
  variant: str
  seed: int
  command: str
  run: str
  commit: str
  started: str
  devices: str
  model: str
  data: str
  split: str
  samples: int
  step: int
  steps: int
  selected_on: str
  average_precision: str
  views: Mapping[str, Mapping[str, Mapping[str, float | None]]]
  per_attribute: Mapping[str, Mapping[str, float | None]]
  curves: Mapping[str, Sequence[float | None]]
  measures: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

  @property
  def key(self) -> tuple[str, str, str, int]:
    """One record of each stands in a file."""
    return self.table, self.row, self.variant, self.seed


def load_tables(file: str) -> ModuleType:
  """`configs/<file>.py` as a module; its `TABLES`: table -> row -> `attr_jax.config.Row`.

  Raises:
    InputError: no such file, or one without tables.
  """
  path = REPOSITORY / "configs" / f"{file}.py"
  if not path.is_file():
    raise InputError(f"{path.relative_to(REPOSITORY)} does not exist")
  spec = importlib.util.spec_from_file_location(f"configs_{file}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "TABLES"):
    raise InputError(f"configs/{file}.py has no tables")
  return module


def rows_of(table: str) -> dict[str, config_lib.Row]:
  """The rows of "dahar:table3", in the paper's order.

  Raises:
    InputError: no such file or table.
  """
  file, _, name = table.partition(":")
  tables = load_tables(file).TABLES
  if name not in tables:
    raise InputError(f"configs/{file}.py has no table {name!r}; there are: {', '.join(tables)}")
  return tables[name]


def views_of(row: config_lib.Row | None, config: Any) -> tuple[str, ...]:
  """The views that a row is measured in: those that its paper prints, else the one it is validated on."""
  return tuple(row.paper) if row and row.paper else (config.evaluate.views,)


def is_finished(workdir: pathlib.Path, views: Sequence[str]) -> bool:
  """Whether a run has ended and is measured in these views."""
  if not (workdir / "DONE").is_file():
    return False
  config, _ = run_folder.read_start(workdir)
  return all(run_folder.read_report(workdir, f"{config.data.test_split}-{view}") for view in views)


def read_run(workdir: pathlib.Path, measures: Callable[[pathlib.Path], Mapping[str, float]] | None = None) -> Record:
  """The record of a finished run.

  Args:
    workdir: its folder. A cell of a grid has `cell.json` in it.
    measures: further figures of the folder.

  Raises:
    InputError: not a run folder; UnfinishedRun.
  """
  config, info = run_folder.read_start(workdir)
  cell = json.loads((workdir / CELL).read_text()) if (workdir / CELL).is_file() else {}
  table, name = cell.get("table", ""), cell.get("row", workdir.name)
  row = rows_of(table).get(name) if table else None
  views = views_of(row, config)
  if not is_finished(workdir, views):
    raise UnfinishedRun(f"{workdir}: the run is not finished")
  split, convention = config.data.test_split, row.convention if row else "native"
  reports = {view: run_folder.read_report(workdir, f"{split}-{view}") for view in views}
  first = next(iter(reports.values()))
  environment = json.loads((workdir / "environment.json").read_text())
  printed = {view: tuple(row.paper[view]) for view in reports} if row and row.paper else {}
  lines = writers.read_jsonl(workdir / "metrics.jsonl")
  return Record(
      table=table,
      row=name,
      variant=cell.get("variant", ""),
      seed=config.seed,
      command=cell.get("command", " ".join(environment["command"])),
      run=str(workdir),
      commit=environment["commit"] or "",
      started=environment["started"],
      devices=f"{len(environment['devices'])} x {environment['devices'][0].partition(':')[0]}",
      model=run_folder.model_name(config),
      data=run_folder.data_name(config),
      split=split,
      samples=first["num_samples"],
      step=first["step"],
      steps=max((line["step"] for line in lines), default=first["step"]),
      selected_on=f"{config.evaluate.select} on {config.data.val_split}" if config.data.val_split else "nothing (the last one)",
      average_precision=first["average_precision"],
      views={view: _figures(workdir, f"{split}-{view}", report, info.label_names, convention, printed.get(view, ()))
             for view, report in reports.items()},
      per_attribute={attribute: {key: _rounded(figures[key]) for key in _PER_ATTRIBUTE if key in figures}
                     for attribute, figures in first["per_attribute"].items()},
      curves=_curves(lines, config.evaluate.select),
      measures={key: _rounded(value) for key, value in (measures(workdir) if measures else {}).items()},
  )


def read(path: pathlib.Path) -> list[Record]:
  """The records of a JSON-lines file; [] where there is none.

  Raises:
    InputError: a line that is no record.
  """
  records = []
  for number, line in enumerate(path.read_text().splitlines() if path.is_file() else (), 1):
    try:
      records.append(Record(**json.loads(line)))
    except (ValueError, TypeError) as error:
      raise InputError(f"{path}, line {number}: not the record of a run ({error})") from error
  return records


def write(path: pathlib.Path, records: Iterable[Record]) -> None:
  """Writes the file whole, by table, row and seed as they come first."""
  path.parent.mkdir(parents=True, exist_ok=True)
  writers.write_whole(path, "".join(json.dumps(dataclasses.asdict(record)) + "\n" for record in records))


def merge(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
  """All of both; a new record takes the place of the old one of the same cell."""
  return list(({record.key: record for record in old} | {record.key: record for record in new}).values())


def _figures(workdir: pathlib.Path, name: str, report: Mapping[str, Any], label_names: Sequence[str], convention: str,
             printed: Sequence[str]) -> dict[str, dict[str, float | None]]:
  """The run's own figures and, where the paper has another convention, those that it prints under that one."""
  figures = {"native": {key: _rounded(value) for key, value in report["metrics"].items()}}
  if convention != "native":
    with np.load(workdir / "predictions" / f"{name}.npz") as predictions:
      other = evaluate.measure(dict(predictions), label_names, convention)["metrics"]
    figures[convention] = {key: _rounded(other[key]) for key in printed}
  return figures


def _curves(lines: Sequence[Mapping[str, Any]], select: str) -> dict[str, list[float | None]]:
  curves = {}
  for key, (step, value) in {"loss": ("step", "loss"), f"val/{select}": ("val_step", "val")}.items():
    points = [(line["step"], line[key]) for line in lines if key in line]
    kept = [points[i] for i in np.unique(np.linspace(0, len(points) - 1, min(_CURVE_POINTS, len(points))).astype(int))]
    curves |= {step: [point[0] for point in kept], value: [_rounded(point[1]) for point in kept]}
  return curves


def _rounded(value: float | None) -> float | None:
  return None if value is None or not np.isfinite(value) else round(float(value), _DIGITS)
