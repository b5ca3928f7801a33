"""Mesh, shardings, distributed start-up, and the way back to the host."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import math
import os
import socket
import sys
import threading
from typing import Any

import jax
from jax._src import clusters  # the recognisers behind `jax.distributed.initialize`, which has no way to ask them alone
from jax.experimental import multihost_utils
import numpy as np

from attr_jax.errors import InputError

DATA_AXIS, FSDP_AXIS = "data", "fsdp"
# The same devices in rows: those of one row share BN statistics.
GROUPS_AXIS, GROUP_AXIS = GROUP_AXES = ("groups", "group")
# Values; to fetch a smaller array from other devices takes longer than it saves memory.
_LEAST_SPLIT = 4096
# How long processes wait for each other at the start: jax's own default.
START_SECONDS = 300
# `ClusterEnv.name` of jax -> what people call it; Kubernetes has no name there.
_CLUSTERS = {"slurm": "SLURM", "ompi": "Open MPI", "gcetpu": "Cloud TPU", "gketpu": "GKE", "": "Kubernetes"}


def initialize_distributed(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None, *,
                           seconds: int = START_SECONDS) -> str:
  """Joins the other processes of a run, if there are any; must come before any other jax call.

  With all three arguments the address is taken as it is given. With none of them jax is asked whether it recognises what
  started this process (Cloud TPU, GKE, Kubernetes, SLURM, Open MPI), and joins the others in its own way. A process that is
  alone, in a cluster or on a laptop, joins nothing.

  Args:
    coordinator: "host:port" of process 0.
    num_processes: how many processes there are.
    process_id: which one this is, from 0.
    seconds: how long the processes wait for each other, in seconds.

  Returns:
    How the run was started, such as "2 processes through SLURM, this is 0"; "" for a process that is alone.

  Raises:
    InputError: some of the three are missing or cannot be, or jax does not recognise this Open MPI.
    ConnectionError: the port is taken, or jax says why they cannot join. Where they just do not meet in time the process ends,
      with one line.
  """
  if (coordinator, num_processes, process_id) != (None, None, None):
    _check_address(coordinator, num_processes, process_id)
    arguments = {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id,
                 "cluster_detection_method": "deactivate"}  # what is given is not mixed with what is found
    through = f"coordinator {coordinator}"
  else:
    cluster = _find_cluster()
    if cluster is None or _is_alone(cluster):
      return ""
    num_processes, process_id, arguments = cluster.get_process_count(), cluster.get_process_id(), {}
    through = _CLUSTERS.get(cluster.name, cluster.name)
    coordinator = cluster.get_coordinator_address(timeout_secs=seconds, override_coordinator_port=os.environ.get("JAX_COORDINATOR_PORT"))
  if process_id == 0:
    _check_port(coordinator)
  with _deadline(seconds, f"process {process_id} of {num_processes} has not met the others after {seconds} s ({through}); do all of "
                          "them run, and can they reach process 0 and its port?"):
    try:
      jax.distributed.initialize(initialization_timeout=2 * seconds, **arguments)  # later than ours
    except jax.errors.JaxRuntimeError as error:
      # Not an InputError: another try may find the others, and schedulers tell the two by the exit status.
      reason = " ".join(str(error).split())[:300]
      raise ConnectionError(f"process {process_id} of {num_processes} cannot join the others ({through}): {reason}") from error
  return f"{num_processes} processes through {through}, this is {process_id}"


@contextlib.contextmanager
def _deadline(seconds: float, message: str) -> Iterator[None]:
  """Ends the process with one line and status 1: jax does not raise when its own time is over, it aborts with a dump of its stack."""
  def end() -> None:
    print(f"attr-jax: {message}", file=sys.stderr, flush=True)
    os._exit(1)

  timer = threading.Timer(seconds, end)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _check_address(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
  given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
  missing = [flag for flag, value in given.items() if value is None]
  if missing:
    raise InputError(f"{' and '.join(missing)} missing: a run of several processes takes all of {', '.join(given)}, or none where "
                     "a cluster is recognised")
  host, _, port = coordinator.rpartition(":")
  if not host or not port.isdigit() or not 0 < int(port) < 65536:
    raise InputError(f"--coordinator={coordinator} is not HOST:PORT, such as 10.0.0.1:1234")
  if not 0 <= process_id < num_processes:
    raise InputError(f"--process-id={process_id} is not one of the {num_processes} of --num-processes; they count from 0")


def _check_port(coordinator: str) -> None:
  """Raises ConnectionError where process 0 cannot listen; jax crashes then."""
  try:
    socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
  except OSError as error:
    raise ConnectionError(f"process 0 cannot listen at the port of {coordinator}: {os.strerror(error.errno)}; "
                          "take another one (JAX_COORDINATOR_PORT where a cluster chooses it)") from error


def _find_cluster() -> Any:
  """The class by which jax recognises what started this process, or None: the first that fits, as in its own `initialize`."""
  found = next((c for c in clusters.ClusterEnv._cluster_types if not c.opt_in_only_method and c.is_env_present()), None)
  size = os.environ.get("OMPI_COMM_WORLD_SIZE", "1")
  # Version 5 has other variables. Its processes would each train alone, in one folder; under SLURM they would all be process 0.
  if size != "1" and (found is None or found.name == "slurm"):
    raise InputError(f"Open MPI started {size} processes, but of its versions this jax recognises 4 and earlier; add to the command "
                     "--coordinator=HOST:PORT --num-processes=$OMPI_COMM_WORLD_SIZE --process-id=$OMPI_COMM_WORLD_RANK")
  return found


def _is_alone(cluster: Any) -> bool:
  # The shell of an interactive job is a step of one task, but has the job's number of tasks in SLURM_NTASKS.
  return cluster.get_process_count() == 1 or cluster.name == "slurm" and os.environ.get("SLURM_STEP_NUM_TASKS") == "1"


def make_mesh(devices: Sequence[jax.Device] | None = None, fsdp: int = 1) -> jax.sharding.Mesh:
  """The devices as one axis, "data", or as two, "data" x "fsdp", for parameters and optimiser state that are split (`split`).

  The devices of a process lie side by side.

  Args:
    devices: default: all devices of all processes.
    fsdp: length of the second axis, neighbouring devices; 1: there is none.

  Raises:
    InputError: the devices do not divide by `fsdp`.
  """
  devices = jax.devices() if devices is None else devices
  if fsdp < 1 or len(devices) % fsdp:
    raise InputError(f"config.fsdp={fsdp} does not divide {len(devices)} devices")
  # By process, so that its rows of a batch lie together, as `data.pipeline` deals them out and `evaluate` joins them.
  # `jax.make_mesh` goes by the places of TPU chips instead, and mixes the processes.
  ordered = np.array(sorted(devices, key=lambda device: device.process_index))
  shape, names = ((len(devices),), (DATA_AXIS,)) if fsdp == 1 else ((-1, fsdp), (DATA_AXIS, FSDP_AXIS))
  return jax.sharding.Mesh(ordered.reshape(shape), names, axis_types=(jax.sharding.AxisType.Auto,) * len(names))


def in_groups(mesh: jax.sharding.Mesh, size: int) -> jax.sharding.Mesh:
  """The devices of a mesh in its order, as groups of `size` neighbours: axes "groups" x "group".

  Raises:
    InputError: they do not divide into such groups.
  """
  if size < 1 or mesh.size % size:
    raise InputError(f"config.batch_norm.group_size={size} does not divide {mesh.size} devices")
  axis_types = (jax.sharding.AxisType.Auto,) * len(GROUP_AXES)
  return jax.sharding.Mesh(mesh.devices.reshape(-1, size), GROUP_AXES, axis_types=axis_types)


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The same array on every device."""
  return jax.NamedSharding(mesh, jax.P())


def over_batch(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The first axis split over all devices, in the order of the mesh."""
  return jax.NamedSharding(mesh, jax.P(mesh.axis_names))


def split(shape: Sequence[int], mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """How a parameter, or an array of its shape, is kept: its longest axis that "fsdp" divides is split over that.

  Arrays without such an axis and those of fewer than 4,096 values (our choice) are whole on every device, and so are all without "fsdp".
  """
  parts = mesh.shape.get(FSDP_AXIS, 1)
  divisible = [axis for axis, length in enumerate(shape) if length % parts == 0]
  if parts == 1 or not divisible or math.prod(shape) < _LEAST_SPLIT:
    return replicated(mesh)
  longest = max(divisible, key=lambda axis: shape[axis])
  return jax.NamedSharding(mesh, jax.P(*[None] * longest, FSDP_AXIS))


def has_fsdp(mesh: jax.sharding.Mesh | None) -> bool:
  """Whether parameters are split over some of the devices."""
  return mesh is not None and FSDP_AXIS in mesh.shape


def keep_split(tree: Any, mesh: jax.sharding.Mesh | None) -> Any:
  """Inside a program: arrays of parameters as `split` says, so that what follows works on parts. Without "fsdp" nothing happens."""
  if not has_fsdp(mesh):
    return tree
  return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, split(x.shape, mesh)), tree)


def gather_split(tree: Any, mesh: jax.sharding.Mesh | None) -> Any:
  """Arrays of `split`, whole on every device, inside a program or outside. Without "fsdp" nothing happens."""
  return jax.lax.with_sharding_constraint(tree, replicated(mesh)) if has_fsdp(mesh) else tree


def check_batch(name: str, batch_size: int, mesh: jax.sharding.Mesh, micro_batches: int = 1) -> None:
  """Refuses a batch that cannot be split evenly.

  Args:
    name: of the config key, for the message.
    batch_size: samples of a global batch.
    mesh: of the devices.
    micro_batches: into which each device's part is split as well.

  Raises:
    InputError: it does not divide; names the smallest batch that does.
  """
  parts = mesh.size * micro_batches
  if batch_size % parts:
    detail = f" x {micro_batches} micro-batches" if micro_batches > 1 else ""
    raise InputError(
        f"{name}={batch_size} does not divide over {mesh.size} devices{detail}; "
        f"use a multiple of {parts}"
    )


def put_batch(batch: Mapping[str, np.ndarray], sharding: jax.sharding.NamedSharding) -> dict[str, jax.Array]:
  """This process's rows [b, ...] of a batch -> global arrays [B, ...] over the mesh.

  64-bit ids become int32: jax computes in 32 bits, and ids count samples. On a CPU the arrays may share the memory of the
  batch, which must then not be written to (`data.loader` does not).
  """
  narrow = {key: value.astype(np.int32) if value.dtype == np.int64 else value for key, value in batch.items()}
  if sharding.is_fully_addressable:
    return jax.device_put(narrow, sharding)  # all arrays in one call: half the time
  return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in narrow.items()}


def gather_rows(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rows [b, ...] of all processes, in process order, [b * processes, ...] on every process; dtypes kept."""
  if jax.process_count() == 1:
    return dict(rows)
  return {key: _gather(np.ascontiguousarray(value)) for key, value in rows.items()}


def _gather(value: np.ndarray) -> np.ndarray:
  if value.dtype != np.int64:
    return np.asarray(multihost_utils.process_allgather(value, tiled=True))
  # The gather goes through jax arrays of 32 bits: send the two halves.
  halves = multihost_utils.process_allgather(value.view(np.int32).reshape(len(value), -1), tiled=True)
  return np.ascontiguousarray(halves).view(np.int64).reshape((-1,) + value.shape[1:])


def to_host(tree: Any) -> Any:
  """Whole (replicated) jax arrays -> numpy arrays on every process."""
  return jax.tree.map(np.asarray, jax.device_get(tree))
