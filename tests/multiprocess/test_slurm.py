"""launch/slurm on a real SLURM: one node on loopback, whose daemons live in a temporary folder and end with the test."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from helpers import REPOSITORY
from processes import losses

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "salloc", "scontrol", "squeue", "scancel", "sinfo")
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
MISSING = [name for name in PROGRAMS if not shutil.which(name, path=SEARCHED)]

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"SLURM is not here ({', '.join(MISSING)}): see docs/testing.md"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as root only"),
]

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# A requeued job waits for as long as its credential is good: 120 seconds, unless this says otherwise.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
LaunchParameters=use_interactive_step
ReturnToService=2
KillWait=30
MessageTimeout=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""


class Slurm:
  """The commands of a running SLURM."""

  def __init__(self, folder, environment):
    self.folder, self.environment = folder, environment

  def __call__(self, *command, **options):
    result = subprocess.run([str(part) for part in command], env=self.environment, capture_output=True, text=True, cwd=REPOSITORY,
                            timeout=120, **options)
    assert result.returncode == 0, (command, result.stdout, result.stderr, self.logs())
    return result.stdout.strip()

  def submit(self, log, *arguments):
    """The number of a job that runs launch/slurm/run.sbatch as two tasks."""
    return self("sbatch", "--parsable", "--ntasks=2", f"--output={log}", "launch/slurm/run.sbatch", *arguments)

  def field(self, job, name):
    return re.search(rf"\b{name}=(\S+)", self("scontrol", "show", "job", "--oneliner", job))[1]

  def wait(self, job, states, seconds=600):
    deadline = time.time() + seconds
    while (state := self.field(job, "JobState")) not in states:
      assert time.time() < deadline, (state, self.logs())
      time.sleep(0.2)
    return state

  def logs(self):
    return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in sorted(self.folder.glob("*.log")))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
  folder = tmp_path_factory.mktemp("slurm")
  for name in ("state", "spool"):
    (folder / name).mkdir()
  (folder / "munge.key").write_bytes(os.urandom(128))
  (folder / "munge.key").chmod(0o400)
  configuration = folder / "slurm.conf"
  configuration.write_text(CONFIGURATION.format(host=socket.gethostname().partition(".")[0], folder=folder, ports=free_ports(2)))
  environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")} | {
      "SLURM_CONF": str(configuration), "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{SEARCHED}",
      "PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": "",
  }
  files = {name: folder / f"munge.{name}" for name in ("socket", "pid", "seed", "key")}
  commands = [
      ["munged", "--foreground", "--force", f"--log-file={folder}/munged.log", f"--socket={files['socket']}",
       *(f"--{name}-file={files[name]}" for name in ("key", "pid", "seed"))],
      ["slurmctld", "-D"],
      ["slurmd", "-D"],
  ]
  daemons = []
  try:
    for command in commands:
      with (folder / f"{command[0]}.out.log").open("w") as log:
        # They also end when this process is killed; a job that runs then goes on to its end.
        daemons.append(subprocess.Popen(["setpriv", "--pdeathsig=TERM", *command], env=environment, stdout=log, stderr=subprocess.STDOUT))
      if command[0] == "munged":
        wait_until(files["socket"].exists, daemons)
    running = Slurm(folder, environment)
    wait_until(lambda: "idle" in subprocess.run(["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True,
                                                text=True).stdout, daemons, running.logs)
    yield running
    subprocess.run(["scancel", "--full", "--signal=KILL", "--user=root"], env=environment, capture_output=True, timeout=30)
    time.sleep(1)
  finally:
    for daemon in reversed(daemons):
      daemon.terminate()
      try:
        daemon.wait(20)
      except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    # A job that still runs belongs to a slurmstepd that has left its parent.
    for pid in filter(str.isdigit, os.listdir("/proc")):
      if mentions(pid, f"SLURM_CONF={configuration}"):
        os.kill(int(pid), signal.SIGKILL)


def mentions(pid, text):
  try:
    return int(pid) != os.getpid() and text.encode() in pathlib.Path(f"/proc/{pid}/environ").read_bytes()
  except OSError:
    return False


def free_ports(count):
  probes = [socket.socket() for _ in range(count)]
  for probe in probes:
    probe.bind(("127.0.0.1", 0))
  ports = [probe.getsockname()[1] for probe in probes]
  for probe in probes:
    probe.close()
  return ports


def wait_until(true, daemons, logs=lambda: "", seconds=60):
  deadline = time.time() + seconds
  while not true():
    assert time.time() < deadline and all(daemon.poll() is None for daemon in daemons), logs()
    time.sleep(0.1)


def wait_for_steps(slurm, job, workdir, count, seconds=240):
  deadline = time.time() + seconds
  while len(losses(workdir)) < count:
    state = slurm.field(job, "JobState")
    assert time.time() < deadline and state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), (state, slurm.logs())
    time.sleep(0.05)


def train(world_dir, workdir, steps):
  return ("train", f"--config={REPOSITORY}/configs/quickstart.py:tiny", f"--config.data.dir={world_dir}", f"--workdir={workdir}",
          f"--config.total_steps={steps}", "--config.checkpoint.every_steps=100000", "--config.evaluate.every_epochs=100000",
          "--config.schedule.name=constant", "--config.batch_norm.scope=global", "--config.input.brightness=0.3")


def test_preempted_job_resumes_and_finishes(slurm, world_dir, tmp_path):
  """Stopped by the signal before the end of its time, then by a requeue from outside: the losses of an undisturbed run, to the bit."""
  log, workdir, whole = tmp_path / "job.log", tmp_path / "run", tmp_path / "whole"
  job = slurm.submit(log, *train(world_dir, workdir, 200))
  # What --signal sends: SIGTERM to the tasks; the script then asks for the requeue.
  wait_for_steps(slurm, job, workdir, 5)
  slurm("scancel", "--signal=TERM", job)
  wait_until(lambda: slurm.field(job, "Restarts") == "1", [], slurm.logs)
  first = len(losses(workdir))
  wait_for_steps(slurm, job, workdir, first + 5)
  # A preemption: SLURM itself stops the job and puts it back.
  slurm("scontrol", "requeue", job)
  wait_until(lambda: slurm.field(job, "Restarts") == "2", [], slurm.logs)
  assert slurm.wait(job, ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")) == "COMPLETED", log.read_text()[-3000:]
  text = log.read_text()
  stops = [int(step) for step in re.findall(r"stopped by SIGTERM after step (\d+); the state is saved", text)]
  assert len(stops) == 4 and stops[0] == stops[1] and stops[2] == stops[3] and 5 <= stops[0] < stops[2] < 200, stops
  assert re.findall(r"resuming +from step (\d+)", text) == [str(stops[0]), str(stops[2])]
  for process in (0, 1):
    assert len(re.findall(f"^attr-jax: 2 processes through SLURM, this is {process}$", text, re.MULTILINE)) == 3
  assert "Traceback" not in text
  other = slurm.submit(tmp_path / "whole.log", *train(world_dir, whole, 200))
  assert slurm.wait(other, ("COMPLETED", "FAILED")) == "COMPLETED", (tmp_path / "whole.log").read_text()[-3000:]
  assert losses(workdir) == losses(whole) and len(losses(whole)) == 200


def test_cancelled_job_stays_away(slurm, world_dir, tmp_path):
  log, workdir = tmp_path / "job.log", tmp_path / "run"
  job = slurm.submit(log, *train(world_dir, workdir, 3000))
  wait_for_steps(slurm, job, workdir, 5)
  slurm("scancel", job)
  slurm.wait(job, ("CANCELLED",))
  wait_until(lambda: "COMPLETING" not in slurm("squeue", "--noheader", "--format=%T"), [], slurm.logs)
  assert (slurm.field(job, "JobState"), slurm.field(job, "Restarts")) == ("CANCELLED", "0")
  assert "stopped by SIGTERM after step" in log.read_text()


PROBE = """
import os
from attr_jax import sharding
print(sharding.initialize_distributed() or "alone", os.environ["SLURM_NTASKS"], os.environ.get("SLURM_STEP_NUM_TASKS"))
"""


def test_who_is_alone_in_a_job(slurm):
  """The shell of an allocation, its interactive step, and a task by itself join nothing; two tasks find each other."""
  python = (sys.executable, "-c", PROBE)
  assert slurm("salloc", "--quiet", "--ntasks=2", *python) == "alone 2 None"
  # What salloc starts its shell with under use_interactive_step: the job's number of tasks in a step of one.
  assert slurm("salloc", "--quiet", "--ntasks=2", "srun", "--interactive", "--preserve-env", "--ntasks=1", *python) == "alone 2 1"
  assert slurm("srun", "--ntasks=1", *python) == "alone 1 1"
  assert sorted(slurm("srun", "--ntasks=2", *python).splitlines()) == [
      f"2 processes through SLURM, this is {process} 2 2" for process in (0, 1)]


def test_array_runs_the_lines_of_a_file(slurm, world_dir, tmp_path):
  lines = tmp_path / "runs.txt"
  lines.write_text("".join("attr-jax " + " ".join(train(world_dir, tmp_path / name, 3)) + "\n" for name in ("a", "b")))
  job = slurm("sbatch", "--parsable", "--array=1-2", f"--output={tmp_path}/%a.log", "launch/slurm/grid.sbatch", lines)
  for index in (1, 2):
    assert slurm.wait(f"{job}_{index}", ("COMPLETED", "FAILED")) == "COMPLETED", (tmp_path / f"{index}.log").read_text()[-3000:]
  assert (tmp_path / "a" / "DONE").exists() and (tmp_path / "b" / "DONE").exists()


def test_grid_is_submitted_preempted_and_finishes(slurm, world_dir, tmp_path):
  """Rows as an array through submitit; one is told that its time is over, saves, is submitted again, and the grid finds both finished."""
  pytest.importorskip("submitit")
  grid = [sys.executable, "launch/grid.py", "--table=vac:ablation", "--rows=r50,r50_f", "--world=people", "--size=tiny", f"--out={tmp_path}",
          f"--config.data.dir={world_dir}", "--config.data.size=88x52", "--config.total_steps=150", "--config.evaluate.every_epochs=100000",
          "--config.checkpoint.every_steps=100000"]
  answer = slurm(*grid, "--slurm=time=20")
  job = re.search(r"2 of 2 runs submitted as job (\d+)", answer)[1]
  first = tmp_path / "r50" / "seed0"
  wait_for_steps(slurm, f"{job}_0", first, 5)
  slurm("scancel", "--signal=USR2", f"{job}_0")
  log = tmp_path / "r50" / "seed0.log"
  wait_until(lambda: "resuming" in log.read_text(), [], slurm.logs, seconds=300)
  assert "stopped by SIGTERM after step" in log.read_text()
  for element in (0, 1):
    assert slurm.wait(f"{job}_{element}", ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")) == "COMPLETED", log.read_text()[-3000:]
  assert "2 of 2 runs finished, 0 failed" in slurm(*grid)
  assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 2 and len(losses(first)) == 150
  assert slurm(*grid, "--slurm") == "all 2 runs are finished"
