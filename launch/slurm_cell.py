"""One run of a grid as a job of SLURM, through submitit (`launch/grid.py --slurm`)."""

import os
import pathlib
import signal
import subprocess
import sys

import submitit


class Cell:
  """Finishes the run of a folder. When the job's time is nearly over the state is saved and the job submitted again."""

  def __call__(self, workdir: str) -> None:
    command = [sys.executable, str(pathlib.Path(__file__).with_name("grid.py")), f"--cell={workdir}"]
    # SLURM sends submitit's signal to all processes of the job.
    self._process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
    if status := self._wait():
      raise RuntimeError(f"{workdir}: status {status}")

  def checkpoint(self, workdir: str) -> submitit.helpers.DelayedSubmission:
    os.kill(self._process.pid, signal.SIGTERM)
    self._wait()
    return submitit.helpers.DelayedSubmission(Cell(), workdir)

  def _wait(self) -> int:
    # `checkpoint` is called by a signal's handler in the middle of `__call__`; the wait of `subprocess` would wait for its own lock there.
    return os.waitstatus_to_exitcode(os.waitpid(self._process.pid, 0)[1])
