"""Rows of a paper's table x seeds as runs: what is finished is skipped, what was cut goes on, what fails stops nothing else.

  python launch/grid.py --table=dahar:table3 --world=people --seeds=3
  python launch/report.py runs/grids/dahar-table3-people

The rows stand in `TABLES` of the config file. With --world the runs train on drawn data, at the config's `small` size; without, on the
data set of the table, at full size (--size changes either). What stands behind --config. goes to every run. Each run has a folder
<out>/<row>/seed<n>, its output in a .log beside it, and a line in <out>/records.jsonl once it is measured (launch/results.py).

One after the other on this machine, --jobs=N at a time; --pack=auto trains those together that differ in numbers only, where that is
faster; --slurm submits an array of jobs; --print only prints the commands.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import fcntl
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

import tqdm

from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import run_folder
from attr_jax import writers
from attr_jax.errors import InputError
import results

_LOOK_SECONDS = 1.0  # between two looks at running processes
_PACK = (sys.executable, str(pathlib.Path(__file__).with_name("pack.py")))
_MOST_TIMEOUTS = 100  # how often a SLURM job is submitted again when its time is over


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run of a grid.

  Attributes:
    table: "dahar:table3".
    row: in that table.
    seed: of the run.
    variant: what else tells runs of one row apart; "" for most.
    config: "configs/dahar.py:table3/all,world,small".
    overrides: "--config.key=value", the seed's not among them.
    workdir: of the run.
    views: in which it is measured; its config's own is the first.
  """

  table: str
  row: str
  seed: int
  variant: str
  config: str
  overrides: tuple[str, ...]
  workdir: pathlib.Path
  views: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    return " ".join(filter(None, [self.row, self.variant, f"seed {self.seed}"]))

  @property
  def command(self) -> str:
    """What one would type in the repository's root."""
    return shlex.join(["attr-jax", "train", f"--config={self.config}", *self._set, f"--workdir={self.workdir}"])

  @property
  def arguments(self) -> list[str]:
    """The same for attr-jax, from any folder."""
    return ["train", f"--config={results.REPOSITORY / self.config}", *self._set, f"--workdir={self.workdir}"]

  @property
  def _set(self) -> list[str]:
    return [*self.overrides, f"--config.seed={self.seed}"]

  def load(self) -> Any:
    """Its config, checked."""
    config = cli.load_config(str(results.REPOSITORY / self.config), self._set)
    config_lib.check(config)
    return config


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, runs the grid, exits with 1 where a run failed."""
  parser = argparse.ArgumentParser(description="Runs the rows of a table with several seeds.", epilog="--config.KEY=VALUE goes to every run.")
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--table", help="FILE:TABLE of configs, such as dahar:table3")
  what.add_argument("--cell", type=pathlib.Path, help="finish the one run of this folder, which a grid has prepared, and record nothing")
  parser.add_argument("--rows", type=_names, help="only these, with commas (default: all that can be run)")
  parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 (default: 1)")
  parser.add_argument("--world", help="train on drawn people (people_alone, people_crowded), faces (faces_loose) or artworks")
  parser.add_argument("--size", choices=("small", "full", "tiny"), help="of network and images (default: small with --world, else full)")
  parser.add_argument("--options", type=_names, default=(), help="further options of the config file, with commas")
  parser.add_argument("--out", type=pathlib.Path, help="folder of the grid (default: runs/grids/FILE-TABLE[-WORLD])")
  how = parser.add_mutually_exclusive_group()
  how.add_argument("--jobs", type=int, default=1, help="runs at a time on this machine, sharing its devices (default: 1)")
  how.add_argument("--pack", choices=("none", "auto"), default="none", help="train runs together that differ in numbers only")
  how.add_argument("--slurm", metavar="KEY=VALUE,...", nargs="?", const="",
                   help="submit an array; options as of sbatch: time=480,gpus_per_node=1,array_parallelism=4")
  how.add_argument("--print", action="store_true", help="print the commands, run nothing")
  args, overrides = parser.parse_known_args(argv)
  wrong = [arg for arg in overrides if not arg.startswith("--config.") or "=" not in arg]
  if wrong:
    parser.error(f"unknown argument {wrong[0]} (overrides are written --config.KEY=VALUE)")
  try:
    if args.cell:
      sys.exit(run([read_cell(args.cell)], quiet=True))
    out = args.out or default_folder(args.table, args.world)
    cells = expand(args.table, seeds=args.seeds, out=out, rows=args.rows, world=args.world, size=args.size, options=args.options,
                   overrides=overrides)
    if args.print:
      print("\n".join(cell.command for cell in cells))
    elif args.slurm is not None:
      submit(cells, out, _options(args.slurm))
    else:
      sys.exit(run(cells, out / "records.jsonl", jobs=args.jobs, pack=args.pack == "auto"))
  except InputError as error:
    print(f"grid: {error}", file=sys.stderr)
    sys.exit(2)


def default_folder(table: str, world: str | None) -> pathlib.Path:
  return pathlib.Path("runs/grids") / "-".join(filter(None, [table.replace(":", "-"), world]))


def expand(table: str, *, seeds: int, out: pathlib.Path, rows: Sequence[str] | None = None, world: str | None = None,
           size: str | None = None, options: Sequence[str] = (), overrides: Sequence[str] = ()) -> list[Cell]:
  """The runs of a table, rows before seeds, so that a grid that is cut has whole rounds.

  Args:
    table: "dahar:table3".
    seeds: how many, from 0.
    out: folder of the grid.
    rows: names of rows; None: all that can be run.
    world: "people", "faces", ...; None: the table's own data.
    size: "small", "full" or "tiny"; None: "small" in a world, else "full".
    options: of the config file.
    overrides: "--config.key=value".

  Raises:
    InputError: no such table, row or world, or a config that does not load.
  """
  if seeds < 1:
    raise InputError(f"--seeds={seeds} is not a positive number")
  known = results.rows_of(table)
  runnable = [name for name, row in known.items() if row.config is not None]
  for name in rows or ():
    if name not in runnable:
      why = "is quoted, not run here" if name in known else "is unknown"
      raise InputError(f"row {name!r} of {table} {why}; there are: {', '.join(runnable)}")
  file, _, short = table.partition(":")
  size = size or ("small" if world else "full")
  if world and world != world.partition("_")[0]:
    overrides = [*overrides, f"--config.data.world={world}"]  # a variation of the one that the config draws
  tail = [*options, *(["world"] if world and size != "tiny" else []), *([size] if size != "full" else [])]
  cells = []
  for seed in range(seeds):
    for name in rows or runnable:
      cells.append(Cell(
          table, name, seed, "", f"configs/{file}.py:{','.join([f'{short}/{name}', *tail])}", tuple(overrides), out / name / f"seed{seed}"))
  checked = {name: _check(next(cell for cell in cells if cell.row == name), world) for name in rows or runnable}
  return [dataclasses.replace(cell, views=results.views_of(known[cell.row], checked[cell.row])) for cell in cells]


def _check(cell: Cell, world: str | None) -> Any:
  """The config of a cell; it must train on the world that is asked for."""
  config = cell.load()
  if world and config.data.world != world:
    raise InputError(f"--world={world}: {cell.config} trains on {config.data.world or 'no world'}")
  return config


def run(cells: Sequence[Cell], records: pathlib.Path | None = None, *, jobs: int = 1, pack: bool = False, quiet: bool = False,
        measures: Callable[[pathlib.Path], Mapping[str, float]] | None = None) -> int:
  """Runs what is not finished yet, on this machine.

  Args:
    cells: of `expand`.
    records: JSON-lines file; a cell that stands there is finished, whether or not its folder is there. None: nothing is recorded.
    jobs: processes at a time, which share a GPU's memory evenly.
    pack: train runs together where that is faster (`attr_jax.packed`).
    quiet: no bar.
    measures: further figures of a finished run's folder, for its record.

  Returns:
    0, 1 where a run failed, or 128 + the signal that stopped the grid: the same call goes on from there.

  Raises:
    InputError: a cell was run by another command before.
  """
  missing = _unrecorded(cells, records)
  for cell in missing:
    prepare(cell)
  groups = _groups(missing) if pack and missing else [[cell] for cell in missing]
  environment = os.environ | _share_of_memory(jobs)
  grid, running = _Grid(len(cells), len(cells) - len(missing), quiet), []
  with grid, _Stop() as stop:
    while (groups or running) and not stop.asked:
      while groups and len(running) < jobs:
        running.append(_Running(groups.pop(0), environment))
      for one in [one for one in running if one.has_ended()]:
        running.remove(one)
        for cell in one.cells:
          grid.ended(cell, one.failure_of(cell) or _record(cell, records, measures))
      grid.show(running)
      if running:
        time.sleep(_LOOK_SECONDS)
    for one in running:
      one.stop()
  for name, why in grid.failed.items():
    print(f"failed: {name}: {why}", file=sys.stderr)
  if stop.asked and grid.done + len(grid.failed) < len(cells):
    print(f"grid: stopped; {grid.done} of {len(cells)} runs are finished, the same command goes on", file=sys.stderr)
    return 128 + stop.asked
  if not quiet:
    print(f"{grid.done} of {len(cells)} runs finished, {len(grid.failed)} failed" + (f"; records in {records}" if records else ""))
  return 1 if grid.failed else 0


def _share_of_memory(jobs: int) -> dict[str, str]:
  """What lets several processes use one GPU: JAX takes three quarters of its memory when it starts, which leaves nothing for a second one."""
  names = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")  # now and formerly; JAX refuses both at once
  return {} if jobs == 1 or any(name in os.environ for name in names) else {names[0]: f"{0.9 / jobs:.2f}"}


def _record(cell: Cell, records: pathlib.Path | None, measures: Callable[[pathlib.Path], Mapping[str, float]] | None) -> str:
  """Writes the record of a finished cell; why it cannot be done, or ""."""
  if records is None:
    return ""
  try:
    results.write(records, results.merge(results.read(records), [results.read_run(cell.workdir, measures)]))
  except (InputError, OSError) as error:
    return str(error)
  return ""


class _Stop:
  """Notes SIGINT and SIGTERM instead of ending at once; `asked` is the signal, or 0."""

  def __enter__(self):
    self.asked = 0
    self._old = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
    return self

  def _note(self, number: int, frame: object) -> None:
    del frame
    self.asked = number

  def __exit__(self, *error: object) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)


class _Grid:
  """The bar over all runs, and what became of them."""

  def __init__(self, total: int, done: int, quiet: bool):
    self.done, self.failed = done, {}
    self._shown = None
    self._bar = tqdm.tqdm(total=total, initial=done, ncols=80, disable=quiet,
                          bar_format="{percentage:3.0f}% {bar} {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]")

  def __enter__(self):
    return self

  def __exit__(self, *error: object) -> None:
    self._bar.close()

  def ended(self, cell: Cell, failure: str) -> None:
    if failure:
      self.failed[cell.name] = failure
    else:
      self.done += 1

  def show(self, running: Sequence["_Running"]) -> None:
    """Draws the bar anew where it has changed: in a file each drawing is a line."""
    names = ", ".join(one.cells[0].name + (f" +{len(one.cells) - 1}" if len(one.cells) > 1 else "") for one in running)
    ended = self.done + len(self.failed)
    shown = round(ended + sum(one.share() for one in running), 1), names[:24] + (f"; {len(self.failed)} failed" if self.failed else "")
    if shown != self._shown:
      self._shown = shown
      self._bar.n = shown[0]
      self._bar.set_postfix_str(shown[1])


class _Running:
  """The processes of one cell, or of several that train together, one after the other: train, then measure in further views."""

  def __init__(self, cells: Sequence[Cell], environment: Mapping[str, str]):
    self.cells = list(cells)
    self._environment = environment
    self._log = log_of(self.cells[0])
    self._failed: dict[Cell, str] = {}
    self._commands = _commands(cells)
    self._process: subprocess.Popen | None = None
    self._of: Sequence[Cell] = ()
    self._start_next()

  def _start_next(self) -> None:
    self._of, command = next(self._commands, ((), None))
    self._process = None
    if not command:
      return
    with open(self._log, "a") as output:
      try:
        # The process inherits the lock: a grid that was killed may have left it behind, still training.
        fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        self._failed |= dict.fromkeys(self.cells, f"another process is at work here, see {self._log}")
        return
      # In a session of its own, so that Ctrl-C reaches the grid alone, which then lets it save.
      self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=self._environment, start_new_session=True)

  def has_ended(self) -> bool:
    if self._process and self._process.poll() is not None:
      if self._process.returncode:
        self._failed |= dict.fromkeys(self._of, f"status {self._process.returncode}: {last_line(self._log)}")
      # What trained together ends with its own folders alone; one that could not be measured must not keep the others from it.
      self._start_next()
    return self._process is None

  def failure_of(self, cell: Cell) -> str:
    """One line, or ""."""
    if cell in self._failed:
      return self._failed[cell]
    if (failed := cell.workdir / "FAILED").is_file():  # of runs that train together the others go on (`attr_jax.packed`)
      return failed.read_text().strip()
    return "" if results.is_finished(cell.workdir, cell.views) else f"not finished, see {self._log}"

  def share(self) -> float:
    """How much is done, in runs; a little is left for measuring."""
    return sum(0.95 * done / total for done, total in map(steps_done, (cell.workdir for cell in self.cells)) if total)

  def stop(self) -> None:
    """Lets the process save its state and waits for it."""
    if self._process:
      self._process.terminate()
      self._process.wait()


def _commands(cells: Sequence[Cell]) -> Iterator[tuple[Sequence[Cell], list[str]]]:
  """What finishes the cells, and of which cells: to train what is not trained, to measure what is not measured."""
  attr_jax = [sys.executable, "-m", "attr_jax"]
  untrained = [cell for cell in cells if not (cell.workdir / "DONE").is_file()]
  if len(untrained) == 1:
    yield untrained, [*attr_jax, *untrained[0].arguments]
  elif untrained:
    yield untrained, [*_PACK, *(str(cell.workdir) for cell in untrained)]
  for cell in cells:
    if not (cell.workdir / "DONE").is_file():
      continue
    config, _ = run_folder.read_start(cell.workdir)
    for view in cell.views:
      if not run_folder.read_report(cell.workdir, f"{config.data.test_split}-{view}"):
        yield [cell], [*attr_jax, "evaluate", f"--workdir={cell.workdir}", f"--split={config.data.test_split}", f"--views={view}"]


def prepare(cell: Cell) -> None:
  """Writes which cell a folder is, before anything is trained there.

  Raises:
    InputError: the folder is that of another cell.
  """
  path = cell.workdir / results.CELL
  if path.is_file() and (old := read_cell(cell.workdir).command) != cell.command:
    raise InputError(f"{cell.workdir} was run by another command ({old}); use another --out")
  cell.workdir.mkdir(parents=True, exist_ok=True)
  writers.write_whole(path, json.dumps(dataclasses.asdict(cell) | {"workdir": str(cell.workdir), "command": cell.command}, indent=2) + "\n")


def read_cell(workdir: pathlib.Path) -> Cell:
  """What `prepare` has written.

  Raises:
    InputError: the folder was not prepared by a grid.
  """
  if not (workdir / results.CELL).is_file():
    raise InputError(f"{workdir} has no {results.CELL}: it is not a run of a grid")
  values = json.loads((workdir / results.CELL).read_text())
  del values["command"]  # follows from the others
  return Cell(**values | {"workdir": pathlib.Path(values["workdir"]), "overrides": tuple(values["overrides"]), "views": tuple(values["views"])})


def log_of(cell: Cell) -> pathlib.Path:
  return cell.workdir.with_suffix(".log")


def last_line(log: pathlib.Path) -> str:
  """The last line of a log that says something."""
  lines = [line.rpartition("\r")[2].strip() for line in log.read_text(errors="replace").splitlines()]
  return next((line for line in reversed(lines) if line), "no output")[:200]


def steps_done(workdir: pathlib.Path) -> tuple[int, int]:
  """(steps done, steps in all) of a run; (0, 0) where it has not begun."""
  try:
    config, info = run_folder.read_start(workdir)
    lines = writers.read_jsonl(workdir / "metrics.jsonl")
  except (InputError, OSError, ValueError):
    return 0, 0
  total = config_lib.total_steps(config, sum(info.splits[name] for name in config.data.train_split.split("+")))
  return max((line["step"] for line in lines), default=0), total


def _unrecorded(cells: Sequence[Cell], records: pathlib.Path | None) -> list[Cell]:
  """The cells that have no record; InputError where one has that of another command."""
  known = {record.key: record for record in results.read(records)} if records else {}
  missing = []
  for cell in cells:
    record = known.get((cell.table, cell.row, cell.variant, cell.seed))
    if record is None:
      missing.append(cell)
    elif record.command != cell.command:
      raise InputError(f"{records} holds {cell.name} of another command ({record.command}); use another --out")
  return missing


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
  """What trains together, as `attr_jax.packed.choose` says: in a process of its own, for it starts devices, which the runs then need.

  Raises:
    InputError: as there.
  """
  answer = subprocess.run([*_PACK, "--choose", *(str(cell.workdir) for cell in cells)], capture_output=True, text=True)
  if answer.returncode:
    raise InputError(answer.stderr.strip().rpartition("\n")[2].removeprefix("pack: "))
  return [[cells[i] for i in group] for group in json.loads(answer.stdout)]


def submit(cells: Sequence[Cell], out: pathlib.Path, options: Mapping[str, Any]) -> None:
  """One array of SLURM jobs, an element per cell that is not finished; the records follow from `launch/report.py` or the grid, run again.

  Raises:
    InputError: submitit is not installed, or SLURM refuses.
  """
  try:
    import cloudpickle
    import submitit
  except ImportError:
    raise InputError("--slurm needs submitit: pip install 'attr_jax[slurm]'") from None
  import slurm_cell

  missing = [cell for cell in _unrecorded(cells, out / "records.jsonl") if not results.is_finished(cell.workdir, cell.views)]
  if not missing:
    print(f"all {len(cells)} runs are finished")
    return
  for cell in missing:
    prepare(cell)
  cloudpickle.register_pickle_by_value(slurm_cell)  # jobs do not have this folder on their path
  executor = submitit.SlurmExecutor(folder=out / "slurm", max_num_timeout=_MOST_TIMEOUTS)
  try:
    executor.update_parameters(**({"job_name": "attr-jax-grid", "time": 480} | dict(options)))
  except ValueError as error:
    raise InputError(f"--slurm: {' '.join(str(error).split())}") from error
  jobs = executor.map_array(slurm_cell.Cell(), [str(cell.workdir) for cell in missing])
  print(f"{len(jobs)} of {len(cells)} runs submitted as job {jobs[0].job_id.partition('_')[0]}, logs in {out / 'slurm'}.\n"
        "When they are done, the same command without --slurm writes the records.")


def _names(text: str) -> tuple[str, ...]:
  return tuple(filter(None, text.split(",")))


def _options(text: str) -> dict[str, Any]:
  """"time=480,partition=gpu" -> {"time": 480, "partition": "gpu"}."""
  pairs = [part.partition("=") for part in _names(text)]
  return {key: int(value) if value.isdigit() else value for key, _, value in pairs}


if __name__ == "__main__":
  main()
