"""Start-up: which cluster is recognised, and what jax is asked to do then. Launchers: what they start, and how they end."""

import importlib.util
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import jax
from jax._src import clusters
import pytest
import yaml

from attr_jax import cli
from attr_jax import sharding
from attr_jax.errors import InputError
from helpers import REPOSITORY

LAUNCH = REPOSITORY / "launch"
CLUSTER_VARIABLES = re.compile("SLURM_|OMPI_|TPU_|MEGASCALE_|KUBERNETES_|JOB_COMPLETION_INDEX|JAX_COORDINATOR|JAX_LOCAL_DEVICE_IDS")
SLURM_TASK = {"SLURM_JOB_ID": "4099", "SLURM_STEP_NODELIST": "node[003-004],gpu7", "SLURM_NTASKS": "3", "SLURM_STEP_NUM_TASKS": "3",
              "SLURM_PROCID": "2", "SLURM_LOCALID": "1"}
# As `salloc -n 3` gives them to its shell where the site has use_interactive_step.
SLURM_SHELL = SLURM_TASK | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911", "OMPI_COMM_WORLD_SIZE": "4",
            "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
GKE = {"TPU_WORKER_HOSTNAMES": "10.0.0.7,10.0.0.8", "TPU_WORKER_ID": "1", "TPU_SKIP_MDS_QUERY": "true"}
METADATA = {"agent-worker-number": "1", "worker-network-endpoints": "a:b:10.0.0.7,c:d:10.0.0.8,e:f:10.0.0.9", "tpu-env": "ZONE: 'z'"}
FLAGS = {"coordinator": "10.0.0.1:1234", "num_processes": 2, "process_id": 1}


@pytest.fixture
def environment(monkeypatch):
  """Sets variables after all those of clusters were removed."""
  for name in filter(CLUSTER_VARIABLES.match, list(os.environ)):
    monkeypatch.delenv(name)

  def set_all(variables):
    for name, value in variables.items():
      monkeypatch.setenv(name, value)
    # What jax finds out when it is imported, and what it asks the machine's metadata.
    monkeypatch.setattr(clusters.cloud_tpu_cluster, "running_in_cloud_tpu_vm", "TPU_WORKER_ID" in variables or "TPU_VM" in variables)
    monkeypatch.setattr(clusters.cloud_tpu_cluster, "get_metadata", lambda key: (METADATA[key], 200))

  return set_all


@pytest.fixture
def calls(monkeypatch):
  """The arguments of each call of `jax.distributed.initialize`, with what jax makes of them."""
  found = []

  def initialize(coordinator_address=None, num_processes=None, process_id=None, *, cluster_detection_method=None, initialization_timeout):
    place = (coordinator_address, num_processes, process_id)
    if cluster_detection_method != "deactivate":
      place = clusters.ClusterEnv.auto_detect_unset_distributed_params(*place, None, cluster_detection_method, 1)[:3]
    found.append((place, initialization_timeout))

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  return found


@pytest.mark.parametrize("variables, place, line", [
    (SLURM_TASK, ("node003:61443", 3, 2), "3 processes through SLURM, this is 2"),  # 61440 + 4099 % 4096
    (OPEN_MPI, ("10.96.0.1:62624", 4, 3), "4 processes through Open MPI, this is 3"),
    (OPEN_MPI | SLURM_TASK, ("10.96.0.1:62624", 4, 3), "4 processes through Open MPI, this is 3"),
    (GKE, ("10.0.0.7:8482", 2, 1), "2 processes through GKE, this is 1"),
    (GKE | {"MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.5", "MEGASCALE_NUM_SLICES": "3", "MEGASCALE_SLICE_ID": "2"},
     ("10.0.0.5:8482", 6, 5), "6 processes through GKE, this is 5"),
    ({"TPU_VM": "1"}, ("10.0.0.7:8482", 3, 1), "3 processes through Cloud TPU, this is 1"),
])
def test_clusters_are_recognised(environment, calls, variables, place, line):
  environment(variables)
  assert sharding.initialize_distributed() == line
  assert calls == [(place, 600)]


@pytest.mark.parametrize("variables", [
    {},
    {"SLURM_JOB_ID": "4099"},  # a shell on a node of a job
    {"SLURM_JOB_ID": "4099", "SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # the script of a job, without srun
    SLURM_TASK | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    SLURM_SHELL,
    OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    GKE | {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
])
def test_who_is_alone_joins_nothing(environment, calls, variables):
  environment(variables)
  assert sharding.initialize_distributed() == "" and not calls


def test_a_given_address_is_not_mixed_with_a_cluster(environment, calls):
  environment(SLURM_TASK)
  assert sharding.initialize_distributed(**FLAGS) == "2 processes through coordinator 10.0.0.1:1234, this is 1"
  assert calls == [(("10.0.0.1:1234", 2, 1), 600)]


@pytest.mark.parametrize("variables", [{}, SLURM_TASK])
def test_open_mpi_5_is_refused(environment, calls, variables):
  """Each process would train alone; under SLURM several would be the same process."""
  environment(variables | {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"})
  with pytest.raises(InputError, match="Open MPI started 4 processes.*--coordinator"):
    sharding.initialize_distributed()
  assert not calls


@pytest.mark.parametrize("command", ["train --config=configs/quickstart.py:tiny", "evaluate"])
@pytest.mark.parametrize("flags, words", [
    (["--coordinator=a:1"], "--num-processes and --process-id missing"),
    (["--num-processes=2", "--process-id=0"], "--coordinator missing"),
    (["--coordinator=a:1", "--process-id=0"], "--num-processes missing"),
    (["--coordinator=a:1", "--num-processes=2", "--process-id=2"], "--process-id=2 is not one of the 2"),
    (["--coordinator=a:1", "--num-processes=2", "--process-id=-1"], "--process-id=-1 is not one of the 2"),
    (["--coordinator=a:1", "--num-processes=0", "--process-id=0"], "not one of the 0"),
    (["--coordinator=a", "--num-processes=2", "--process-id=0"], "--coordinator=a is not HOST:PORT"),
    (["--coordinator=a:65536", "--num-processes=2", "--process-id=0"], "--coordinator=a:65536 is not HOST:PORT"),
    (["--coordinator=:1", "--num-processes=2", "--process-id=0"], "is not HOST:PORT"),
])
def test_wrong_flags_are_one_line(capsys, monkeypatch, environment, calls, command, flags, words):
  environment({})
  monkeypatch.chdir(REPOSITORY)
  with pytest.raises(SystemExit) as ended:
    cli.main([*command.split(), "--workdir=nowhere", *flags])
  error = capsys.readouterr().err
  assert ended.value.code == 2 and words in error and len(error.strip().splitlines()) == 1, error
  assert not calls


def test_processes_that_cannot_join_are_one_line_and_status_1(capsys, monkeypatch, environment):
  environment(SLURM_TASK)

  def initialize(**arguments):
    raise jax.errors.JaxRuntimeError("UNKNOWN: Failed to start RPC server.\nmore")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  monkeypatch.chdir(REPOSITORY)
  with pytest.raises(SystemExit) as ended:
    cli.main(["train", "--config=configs/quickstart.py:tiny", "--workdir=nowhere"])
  error = capsys.readouterr().err
  assert ended.value.code == 1 and len(error.strip().splitlines()) == 1, error
  assert "process 2 of 3" in error and "SLURM" in error and "Failed to start RPC server. more" in error


def test_a_port_that_is_taken_is_one_line(capsys, monkeypatch, environment, calls):
  environment({})
  monkeypatch.chdir(REPOSITORY)
  with socket.create_server(("", 0)) as taken:
    with pytest.raises(SystemExit) as ended:
      cli.main(["train", "--config=configs/quickstart.py:tiny", "--workdir=nowhere", "--num-processes=2", "--process-id=0",
                f"--coordinator=localhost:{taken.getsockname()[1]}"])
  error = capsys.readouterr().err
  assert ended.value.code == 1 and "cannot listen" in error and len(error.strip().splitlines()) == 1, error
  assert not calls


def test_a_process_alone_starts():
  """With jax itself, in the shell of a job."""
  code = ("import jax; from attr_jax import sharding; how = sharding.initialize_distributed();"
          "print([how, jax.distributed.is_initialized(), jax.process_count()])")
  variables = {name: value for name, value in os.environ.items() if not CLUSTER_VARIABLES.match(name)}
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, env=variables | SLURM_SHELL)
  assert result.stdout.strip() == "['', False, 1]", result.stderr


@pytest.fixture(scope="module")
def local_cluster():
  spec = importlib.util.spec_from_file_location("local_cluster", LAUNCH / "local_cluster.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize("scripts, status", [
    (["exit 0", "exit 0"], 0),
    (["sleep 0.5; exit 2", "exit 3"], 3),  # the first in time
    (["sleep 60", "exit 3", "sleep 60"], 3),  # the others are ended
    (["exit 0", "kill -9 $$"], 137),
    (["trap '' TERM; sleep 60", "exit 1"], 1),  # by SIGKILL where SIGTERM does not help
])
def test_the_first_that_fails_decides(local_cluster, monkeypatch, scripts, status):
  monkeypatch.setattr(local_cluster, "_KILL_SECONDS", 0.5)
  children = [subprocess.Popen(["bash", "-c", f"exec 2>/dev/null; {script}"], start_new_session=True) for script in scripts]
  start = time.monotonic()
  assert local_cluster.wait(children, lambda process: "", grace=0.2 if "60" in str(scripts) else 5) == status
  assert time.monotonic() - start < 4 and all(child.returncode is not None for child in children)


STAND_IN = """
import os, pathlib, signal, sys, time
process = sys.argv[-1].partition("=")[2]
print("output of", process, flush=True)
pathlib.Path(f"argv-{process}").write_text(" ".join(sys.argv[1:] + [os.environ["JAX_PLATFORMS"], os.environ["JAX_NUM_CPU_DEVICES"]]))
def stop(signum, frame):
  pathlib.Path(f"signal-{process}").write_text(str(int(signum)))
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
pathlib.Path(f"ready-{process}").touch()
while True:
  time.sleep(0.05)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_local_cluster_starts_processes_and_passes_signals_on(tmp_path, signum):
  """A module of the same name stands in for attr-jax."""
  (tmp_path / "attr_jax").mkdir()
  (tmp_path / "attr_jax" / "__main__.py").write_text(STAND_IN)
  command = [sys.executable, LAUNCH / "local_cluster.py", "--processes=3", "--devices-per-process=2", "--", "train", "--workdir=x"]
  process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
  deadline = time.time() + 20
  while len(list(tmp_path.glob("ready-*"))) < 3 and time.time() < deadline:
    time.sleep(0.05)
  process.send_signal(signum)
  out, error = process.communicate(timeout=20)
  assert process.returncode == 143 and out == "output of 0\n", error
  first = error.splitlines()[0]
  address = re.search(r"127\.0\.0\.1:\d+", first)[0]
  folder = pathlib.Path(re.search(r"in (\S+)/process-\*\.log", first)[1])
  for i in range(3):
    assert (tmp_path / f"argv-{i}").read_text() == (
        f"train --workdir=x --coordinator={address} --num-processes=3 --process-id={i} cpu 2")
    assert (tmp_path / f"signal-{i}").read_text() == str(int(signum))
  assert [(folder / f"process-{i}.log").read_text() for i in (1, 2)] == ["output of 1\n", "output of 2\n"]


@pytest.mark.parametrize("arguments, words", [
    (["--processes=0", "--", "train"], "--processes=0 is not a positive number"),
    (["--processes=2", "--devices-per-process=0", "--", "train"], "--devices-per-process=0"),
    (["--processes=2"], "not nothing"),
    (["--processes=2", "--", "predict"], "not predict"),
])
def test_local_cluster_refuses(local_cluster, capsys, arguments, words):
  with pytest.raises(SystemExit) as ended:
    local_cluster.main(arguments)
  assert ended.value.code == 2 and words in capsys.readouterr().err


def stand_ins(folder, **scripts):
  """Programs of these names on a PATH of their own, before the real one; each writes its arguments into `calls`."""
  bin_folder = folder / "bin"
  bin_folder.mkdir()
  for name, script in scripts.items():
    path = bin_folder / name
    path.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "{name} $*" >> {folder}/calls\n{script}\n')
    path.chmod(0o755)
  return {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("script", [LAUNCH / "slurm" / "run.sbatch", LAUNCH / "slurm" / "grid.sbatch", LAUNCH / "tpu_vm" / "tpu.sh"],
                         ids=lambda path: path.name)
def test_shell_scripts_parse(script):
  subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("status, state, requeued", [
    (0, "RUNNING", False), (1, "RUNNING", False), (2, "RUNNING", False), (143, "RUNNING", True),
    (143, "COMPLETING", False), (143, "", False),  # cancelled, or requeued by SLURM itself
])
def test_slurm_job_is_requeued_only_after_a_preemption(tmp_path, status, state, requeued):
  environment = stand_ins(tmp_path, srun=f"exit {status}", squeue=f"echo {state}", scontrol="")
  result = subprocess.run(["bash", LAUNCH / "slurm" / "run.sbatch", "train", "--workdir=a b"], env=environment | {"SLURM_JOB_ID": "7"})
  calls = (tmp_path / "calls").read_text().splitlines()
  assert result.returncode == status
  assert re.fullmatch(r"srun .*python -m attr_jax train --workdir=a b", calls[0])
  assert ("scontrol requeue 7" in calls) == requeued


def test_slurm_script_outlives_a_sigterm(tmp_path):
  """SLURM signals the script too, which must wait for the processes that are saving."""
  environment = stand_ins(tmp_path, srun=f"touch {tmp_path}/ready; sleep 1; exit 143", squeue="echo RUNNING", scontrol="")
  script = subprocess.Popen(["bash", LAUNCH / "slurm" / "run.sbatch", "train"], env=environment | {"SLURM_JOB_ID": "7"})
  while not (tmp_path / "ready").exists():
    time.sleep(0.02)
  script.send_signal(signal.SIGTERM)
  assert script.wait(10) == 143
  assert (tmp_path / "calls").read_text().splitlines()[-1] == "scontrol requeue 7"


def test_slurm_array_runs_its_line(tmp_path):
  environment = stand_ins(tmp_path, srun="", squeue="", scontrol="")
  lines = tmp_path / "runs.txt"
  lines.write_text("attr-jax train --workdir=one\nattr-jax train --config=\"a b\" --workdir=two\n")
  run = lambda index: subprocess.run(["bash", LAUNCH / "slurm" / "grid.sbatch", lines], env=environment | {"SLURM_ARRAY_TASK_ID": index},
                                     cwd=REPOSITORY, capture_output=True, text=True)
  assert run("2").returncode == 0
  assert (tmp_path / "calls").read_text().endswith("python -m attr_jax train --config=a b --workdir=two\n")
  wrong = run("3")
  assert wrong.returncode == 2 and "no line 3" in wrong.stderr


def test_sbatch_files_ask_for_requeue_and_a_signal():
  for name in ("run", "grid"):
    options = re.findall(r"^#SBATCH (.*)$", (LAUNCH / "slurm" / f"{name}.sbatch").read_text(), re.MULTILINE)
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(options)


def manifest():
  return list(yaml.safe_load_all((LAUNCH / "gke" / "jobset.yaml").read_text()))


def test_jobset_has_what_jobset_requires():
  """After the types of jobset.x-k8s.io/v1alpha2 and the checks of its webhook."""
  jobset, claim = manifest()
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  assert jobset["metadata"]["annotations"] == {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
  spec = jobset["spec"]
  assert spec.keys() <= {"replicatedJobs", "network", "successPolicy", "failurePolicy", "suspend", "coordinator", "ttlSecondsAfterFinished"}
  assert spec["failurePolicy"].keys() <= {"maxRestarts", "rules", "restartStrategy"} and spec["failurePolicy"]["maxRestarts"] > 0
  for rule in spec["failurePolicy"]["rules"]:
    assert {"name", "action"} <= rule.keys() <= {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"}
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert rule["action"] in ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
    assert set(rule["onJobFailureReasons"]) <= {"BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded",
                                               "PodFailurePolicy"}
  [replicated] = spec["replicatedJobs"]
  assert replicated.keys() <= {"name", "replicas", "template", "groupName", "dependsOn"}
  job = replicated["template"]["spec"]
  pod_name = f"{jobset['metadata']['name']}-{replicated['name']}-{replicated['replicas'] - 1}-{job['completions'] - 1}-abcde"
  assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", pod_name) and len(pod_name) <= 63
  assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
  # All hosts of the slice, once each.
  pod = job["template"]["spec"]
  rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
  [container] = pod["containers"]
  chips = container["resources"]["limits"]["google.com/tpu"]
  assert job["parallelism"] == job["completions"] == rows * columns // chips
  assert container["resources"]["requests"] == container["resources"]["limits"]
  # A pod failure policy is allowed with this restart policy only, and names a container of the pod.
  assert pod["restartPolicy"] == "Never"
  [rule] = job["podFailurePolicy"]["rules"]
  assert rule["action"] == "FailJob" and rule["onPodConditions"] == []
  assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2]}
  # The share is mounted, claimed, and writable by many.
  [volume], [mount] = pod["volumes"], container["volumeMounts"]
  assert volume["name"] == mount["name"] and volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
  assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
  for argument in container["command"]:
    if argument.startswith(("--workdir", "--config.data.dir")):
      assert argument.partition("=")[2].startswith(mount["mountPath"])


def written_commands():
  """The attr-jax commands of the launchers' pages and of the manifest."""
  found = [shlex.join(manifest()[0]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["command"][1:])]
  for page in LAUNCH.rglob("README.md"):
    text = page.read_text().replace("\\\n", " ")
    found += re.findall(r"(?:attr-jax|run\.sbatch|tpu\.sh run|tpu\.sh resume|--) ((?:train|evaluate) --config=configs[^'`;#\n]*)", text)
  return sorted({" ".join(command.split()) for command in found})


@pytest.mark.parametrize("command", written_commands())
def test_written_commands_parse(command):
  args, rest = cli._parse(shlex.split(command))
  cli.load_config(str(REPOSITORY / args.config), rest)


def test_pages_name_what_is_there():
  assert len(written_commands()) >= 4
  for page in LAUNCH.rglob("README.md"):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
      assert (page.parent / target).exists(), target
    for name in re.findall(r"\b((?:launch|tests|docs)/[\w/]+\.(?:py|sh|yaml|sbatch|md))", text):
      assert (REPOSITORY / name).exists(), name


# A gcloud that answers with the state in a file, keeps what it is asked to copy, and runs remote commands in a folder.
GCLOUD = """
case "$*" in
  *"queued-resources describe"*) [ -e state ] && cat state ;;
  *"queued-resources create"*) echo ACTIVE > state ;;
  *"queued-resources delete"*) rm state ;;
  *"tpu-vm ssh"*)
    for argument; do case $argument in --command=*) command=${argument#--command=} ;; esac; done
    [[ $command == *apt-get* ]] || (cd worker && bash -c "$command") ;;
esac
"""


@pytest.fixture
def tpu(tmp_path):
  """Runs tpu.sh with a stand-in for gcloud: (result, the calls that it made)."""
  environment = stand_ins(tmp_path, gcloud=GCLOUD, sleep="echo ACTIVE > state")
  environment |= {"TPU_NAME": "slice", "TPU_ZONE": "here-a", "TPU_TYPE": "v5litepod-16", "TPU_VERSION": "v2-alpha-tpuv5-lite",
                  "TPU_SHARE": "10.0.0.2:/share", "GIT_DIR": str(REPOSITORY / ".git")}
  binary = tmp_path / "worker" / "attr_jax" / ".venv" / "bin" / "attr-jax"
  binary.parent.mkdir(parents=True)

  def call(*arguments, attr_jax="exit 0", **changes):
    binary.write_text(f'#!/usr/bin/env bash\nprintf "%s|" "$@"\n{attr_jax}\n')
    binary.chmod(0o755)
    (tmp_path / "calls").write_text("")
    variables = {name: value for name, value in (environment | changes).items() if value}
    result = subprocess.run([LAUNCH / "tpu_vm" / "tpu.sh", *arguments], env=variables, cwd=tmp_path, capture_output=True, text=True)
    return result, (tmp_path / "calls").read_text().splitlines()

  return call


def wait_for(path, seconds=5):
  deadline = time.time() + seconds
  while not (path.exists() and path.read_text()) and time.time() < deadline:
    time.sleep(0.02)
  return path.read_text()


def wait_until_gone(pid, seconds=5):
  deadline = time.time() + seconds
  while pathlib.Path(f"/proc/{pid}").exists() and time.time() < deadline:
    time.sleep(0.02)


def test_tpu_is_created_and_deleted(tpu, tmp_path):
  result, calls = tpu("create", TPU_SPOT="1")
  assert result.returncode == 0, result.stderr
  assert calls[0] == ("gcloud compute tpus queued-resources create slice --node-id=slice --accelerator-type=v5litepod-16 "
                      "--runtime-version=v2-alpha-tpuv5-lite --spot --zone=here-a")
  result, calls = tpu("create")
  assert "--spot" not in calls[0]
  result, calls = tpu("delete")
  assert result.returncode == 0
  assert calls[-1] == "gcloud compute tpus queued-resources delete slice --force --quiet --zone=here-a"
  assert len(tpu("delete")[1]) == 1  # asks only: there is nothing to delete


@pytest.mark.parametrize("state, status, words", [
    ("WAITING_FOR_RESOURCES", 0, "waiting"), ("FAILED", 2, "FAILED"), ("SUSPENDED", 2, "SUSPENDED"),
])
def test_tpu_waits_for_its_slice(tpu, tmp_path, state, status, words):
  gcloud = tmp_path / "bin" / "gcloud"
  gcloud.write_text(gcloud.read_text().replace("create\"*) echo ACTIVE", f"create\"*) echo {state}"))
  result, calls = tpu("create")
  assert result.returncode == status and words in result.stdout + result.stderr
  assert ("sleep 60" in calls) == (status == 0)


def test_tpu_installs_on_all_workers(tpu):
  result, calls = tpu("install")
  assert result.returncode == 0, result.stderr
  assert re.match(r"gcloud compute tpus tpu-vm scp \S+/attr_jax.tar.gz slice:attr_jax.tar.gz --worker=all --zone=here-a", calls[0])
  assert calls[1].startswith("gcloud compute tpus tpu-vm ssh slice --worker=all --command=")
  script = "\n".join(calls[1:])
  assert "mount -t nfs 10.0.0.2:/share /mnt/share" in script and "-e '.[tpu]'" in script


def test_tpu_runs_once_on_all_workers_and_resumes(tpu, tmp_path):
  """The remote commands run in a folder, with a stand-in for attr-jax."""
  (tmp_path / "state").write_text("ACTIVE\n")
  worker = tmp_path / "worker"
  result, calls = tpu("run", "train", "--config=a b", "--workdir=/mnt/share/x", attr_jax="/bin/sleep 60")
  assert result.returncode == 0, result.stderr
  assert any(call.startswith("gcloud compute tpus tpu-vm ssh slice --worker=all --command=") for call in calls)
  assert wait_for(worker / "attr-jax.log") == "train|--config=a b|--workdir=/mnt/share/x|"
  assert tpu("run", "train")[0].returncode == 2  # one is under way
  result, _ = tpu("resume", "train")
  assert result.returncode == 0 and "running, nothing to do" in result.stdout
  assert "running" in tpu("status")[0].stdout
  pid = int((worker / "pid").read_text())
  os.killpg(pid, signal.SIGKILL)  # taken away without a word
  wait_until_gone(pid)
  for status, again in ((143, True), (1, True), (0, True), (0, False)):
    result, _ = tpu("resume", "train", attr_jax=f"exit {status}")
    assert result.returncode == 0 and ("nothing to do" not in result.stdout) == again
    assert wait_for(worker / "status") == f"{status}\n"
  assert "ended with status 0" in tpu("status")[0].stdout
  (worker / "status").write_text("2\n")
  result, _ = tpu("resume", "train")
  assert result.returncode == 2 and "wrong call" in result.stderr


def test_tpu_that_was_taken_away_is_made_anew(tpu, tmp_path):
  (tmp_path / "state").write_text("SUSPENDED\n")
  result, calls = tpu("resume", "train", "--workdir=x")
  assert result.returncode == 0, result.stderr
  order = [re.search(r"queued-resources delete|queued-resources create|tpu-vm scp|apt-get|setsid", call) for call in calls]
  assert [found[0] for found in order if found] == ["queued-resources delete", "queued-resources create", "tpu-vm scp", "apt-get", "setsid"]
  assert wait_for(tmp_path / "worker" / "status") == "0\n"


def test_tpu_fetches(tpu):
  result, calls = tpu("fetch", "/mnt/share/runs/x", "runs/")
  assert result.returncode == 0
  assert calls == ["gcloud compute tpus tpu-vm scp slice:/mnt/share/runs/x runs/ --recurse --worker=0 --zone=here-a"]


@pytest.mark.parametrize("arguments, changes, words", [
    ([], {}, "takes one of create"),
    (["start"], {}, "takes one of create"),
    (["run"], {}, "take an attr-jax command"),
    (["fetch", "a"], {}, "takes two folders"),
    (["create"], {"TPU_NAME": ""}, "TPU_NAME is not set"),
    (["create"], {"TPU_TYPE": ""}, "TPU_TYPE is not set"),
    (["install"], {"TPU_SHARE": ""}, "TPU_SHARE is not set"),
])
def test_tpu_refuses_in_one_line(tpu, arguments, changes, words):
  result, _ = tpu(*arguments, **changes)
  assert result.returncode == 2 and words in result.stderr and len(result.stderr.strip().splitlines()) == 1, result.stderr
