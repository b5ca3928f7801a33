"""Several real processes of attr-jax on this machine, joined over loopback: a cluster to try things on.

  python launch/local_cluster.py --processes=4 -- train --config=configs/quickstart.py --workdir=runs/four

What stands behind `--` goes to attr-jax (train or evaluate). The processes compute on CPUs and talk through gloo. Process 0 has the
terminal, the others write into files; the first line says where. SIGINT and SIGTERM go on to all of them. When one fails the others
have 30 seconds to end by themselves, then they are ended. The exit status is that of the first that failed.
"""

import argparse
from collections.abc import Callable, Sequence
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

_GRACE_SECONDS = 30.0  # between the first failure and SIGTERM to the others
_KILL_SECONDS = 10.0  # between that and SIGKILL
_COMMANDS = ("train", "evaluate")  # those that run on several processes


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, runs the processes, exits with their status."""
  parser = argparse.ArgumentParser(description="Runs attr-jax as several processes on this machine.",
                                   usage="%(prog)s --processes=N [--devices-per-process=1] -- train|evaluate ...")
  parser.add_argument("--processes", type=int, required=True)
  parser.add_argument("--devices-per-process", type=int, default=1, help="virtual CPU devices of each (default: 1)")
  parser.add_argument("command", nargs=argparse.REMAINDER, help="of attr-jax, behind --")
  args = parser.parse_args(argv)
  command = args.command[1:] if args.command[:1] == ["--"] else args.command
  for flag, value in (("--processes", args.processes), ("--devices-per-process", args.devices_per_process)):
    if value < 1:
      parser.error(f"{flag}={value} is not a positive number")
  if command[:1] not in [[name] for name in _COMMANDS]:
    parser.error(f"behind -- comes one of {', '.join(_COMMANDS)} with its arguments, not {' '.join(command[:1]) or 'nothing'}")
  sys.exit(run(command, args.processes, args.devices_per_process))


def run(command: Sequence[str], processes: int, devices: int) -> int:
  """Runs `attr-jax command` as `processes` processes of `devices` devices; the status of the first that failed, or 0."""
  address, folder = f"127.0.0.1:{_free_port()}", pathlib.Path(tempfile.mkdtemp(prefix="attr-jax-"))
  _say(f"{processes} processes x {devices} devices at {address}; output of all but process 0 in {folder}/process-*.log")
  children: list[subprocess.Popen] = []

  def forward(signum: int, frame: object) -> None:
    del frame
    for child in children:
      child.send_signal(signum)  # does nothing where it has ended

  old = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
  try:
    for process in range(processes):
      place = [f"--coordinator={address}", f"--num-processes={processes}", f"--process-id={process}"]
      children.append(_start([*command, *place], devices, folder / f"process-{process}.log" if process else None))
    return wait(children, lambda process: f", see {folder}/process-{process}.log" if process else "")
  finally:
    _end(children, 0)
    for signum, handler in old.items():
      signal.signal(signum, handler)


def wait(children: Sequence[subprocess.Popen], where: Callable[[int], str], grace: float = _GRACE_SECONDS) -> int:
  """Waits for all; once one has failed the others are ended after `grace` seconds.

  Returns:
    The status of the first that failed, 128 + the signal where a signal ended it, or 0.
  """
  failed, deadline = 0, None
  while None in (codes := [child.poll() for child in children]):
    if deadline is None and any(codes):
      process = next(i for i, code in enumerate(codes) if code)
      failed, deadline = _status(codes[process]), time.monotonic() + grace
      _say(f"process {process} ended with status {failed}{where(process)}; the others are ended in {grace:g} s")
    if deadline is not None and time.monotonic() > deadline:
      _end(children, _KILL_SECONDS)
    time.sleep(0.1)
  return failed or next((_status(code) for code in codes if code), 0)


def _start(command: Sequence[str], devices: int, log: pathlib.Path | None) -> subprocess.Popen:
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
  # A session of its own: a Ctrl-C in the terminal comes once, through `forward`.
  options = {"env": environment, "start_new_session": True}
  argv = [sys.executable, "-m", "attr_jax", *command]
  if log is None:
    return subprocess.Popen(argv, **options)
  with log.open("w") as output:
    return subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **options)


def _end(children: Sequence[subprocess.Popen], seconds: float) -> None:
  """SIGTERM to those that still run, and SIGKILL to those that still run after `seconds`."""
  for child in children:
    child.terminate()
  deadline = time.monotonic() + seconds
  for child in children:
    try:
      child.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      child.kill()
      child.wait()


def _status(code: int) -> int:
  return code if code > 0 else 128 - code


def _free_port() -> int:
  # Somebody else may take it before process 0 does, which then says so; jax cannot be handed an open socket.
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def _say(text: str) -> None:
  print(f"local_cluster: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
  main()
