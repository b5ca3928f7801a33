"""Where the numbers of a run go: console, metrics.jsonl, TensorBoard, progress bar.

The writers have the method names of clu's MetricWriter, so that a clu writer
can stand beside them where TensorFlow is installed.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import math
import os
import pathlib
import sys
from typing import Any

import psutil
import tqdm

from attr_jax.errors import InputError


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A name beside `path`, which becomes `path` when all has gone well and is gone when not: nobody reads half a file."""
  partial = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def write_whole(path: pathlib.Path, text: str) -> None:
  """Writes the whole file or none of it."""
  with whole(path) as partial:
    partial.write_text(text)


class JsonlWriter:
  """One JSON object per line: {"step": int, name: float, ...}; NaN and Inf become null."""

  def __init__(self, path: pathlib.Path, resume_step: int | None = None):
    """Appends to `path`; a resumed run first drops the lines after `resume_step` (None: a fresh run)."""
    if resume_step is not None and path.exists():
      kept = [line for line in read_jsonl(path) if line["step"] <= resume_step]
      write_whole(path, "".join(json.dumps(line) + "\n" for line in kept))
    self._file = path.open("a", encoding="utf-8")

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes one line."""
    finite = {k: float(v) if math.isfinite(v) else None for k, v in scalars.items()}
    self._file.write(json.dumps({"step": step, **finite}) + "\n")
    self._file.flush()

  def flush(self) -> None:
    """Has all lines on the disk when it returns."""
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


class TensorBoardWriter:
  """Scalars for TensorBoard, through tensorboardX."""

  def __init__(self, folder: pathlib.Path):
    """Writes into `folder`.

    Raises:
      InputError: tensorboardX is not installed.
    """
    try:
      import tensorboardX
    except ImportError:
      raise InputError("config.tensorboard needs tensorboardX: pip install 'attr_jax[tensorboard]'") from None
    self._writer = tensorboardX.SummaryWriter(str(folder))

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds a point to each curve."""
    for name, value in scalars.items():
      self._writer.add_scalar(name, float(value), step)

  def flush(self) -> None:
    """Writes what is waiting."""
    self._writer.flush()

  def close(self) -> None:
    """Writes what is waiting and closes the file."""
    self._writer.close()


class MultiWriter:
  """Sends everything to several writers."""

  def __init__(self, writers: list[Any]):
    """`writers` may be empty: then nothing is written."""
    self._writers = writers

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """To each of them."""
    for writer in self._writers:
      writer.write_scalars(step, scalars)

  def flush(self) -> None:
    """Each of them."""
    for writer in self._writers:
      writer.flush()

  def close(self) -> None:
    """Each of them."""
    for writer in self._writers:
      writer.close()


class Progress:
  """Progress bar of a run: images/s, time left, loss, memory.

  On a terminal a bar of at most 80 columns; elsewhere one line per `write`.
  """

  def __init__(self, total_steps: int, start_step: int, quiet: bool = False):
    """A bar of `total_steps`, of which `start_step` are done; with `quiet` nothing is printed."""
    self._bar = tqdm.tqdm(
        total=total_steps, initial=start_step, unit="step", file=sys.stdout, ncols=80, mininterval=0.5,
        disable=quiet or not sys.stdout.isatty(),
        bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]",
    )
    self._quiet = quiet

  def step(self, count: int = 1) -> None:
    """Moves the bar by `count` steps."""
    self._bar.update(count)

  def show(self, loss: float, images_per_second: float) -> None:
    """What stands behind the bar from its next move on."""
    self._bar.set_postfix_str(f"{images_per_second:.0f} img/s, loss {loss:.3f}, {memory_text()}", refresh=False)

  def write(self, line: str) -> None:
    """A line above the bar."""
    if not self._quiet:
      self._bar.write(line, file=sys.stdout)
      sys.stdout.flush()

  def close(self) -> None:
    """Leaves the bar as it is."""
    self._bar.close()


def memory_text() -> str:
  """Memory in use, such as "1.2 GiB": the peak of the accelerator where it tells, else that of this process now."""
  import jax

  stats = jax.local_devices()[0].memory_stats() or {}
  used = stats.get("peak_bytes_in_use") or psutil.Process().memory_info().rss
  return f"{used / 2**30:.1f} GiB"


def read_jsonl(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of a metrics file, {"step": int, name: float or None}; a line cut short by a crash is left out."""
  records = []
  for line in path.read_text(encoding="utf-8").splitlines():
    with contextlib.suppress(json.JSONDecodeError):
      records.append(json.loads(line))
  return records
