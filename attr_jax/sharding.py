"""Mesh, shardings, distributed start-up, and the way back to the host."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from attr_jax.errors import InputError

DATA_AXIS, FSDP_AXIS = "data", "fsdp"
# The same devices in rows: those of one row share BN statistics.
GROUPS_AXIS, GROUP_AXIS = GROUP_AXES = ("groups", "group")
# Values; to fetch a smaller array from other devices takes longer than it saves memory.
_LEAST_SPLIT = 4096


def initialize_distributed(coordinator: str, num_processes: int, process_id: int) -> None:
  """Joins a run of several processes; must come before any other jax call.

  Args:
    coordinator: "host:port" of process 0.
    num_processes: how many processes there are.
    process_id: which one this is, from 0.
  """
  jax.distributed.initialize(coordinator, num_processes, process_id)


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
  """The devices of a mesh in its order, as groups of `size` neighbours.

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

  Arrays without such an axis and small ones are whole on every device, and so are all without "fsdp".
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
  """Raises InputError when a batch cannot be split evenly over the devices."""
  parts = mesh.size * micro_batches
  if batch_size % parts:
    detail = f" x {micro_batches} micro-batches" if micro_batches > 1 else ""
    raise InputError(
        f"{name}={batch_size} does not divide over {mesh.size} devices{detail}; "
        f"use a multiple of {parts}"
    )


def put_batch(batch: Mapping[str, np.ndarray], sharding: jax.sharding.NamedSharding) -> dict[str, jax.Array]:
  """This process's rows of a batch -> global arrays over the mesh.

  64-bit ids become int32: jax computes in 32 bits, and ids count samples. On a CPU the arrays may share the memory of the
  batch, which must then not be written to (`data.loader` does not).
  """
  narrow = {key: value.astype(np.int32) if value.dtype == np.int64 else value for key, value in batch.items()}
  if sharding.is_fully_addressable:
    return jax.device_put(narrow, sharding)  # all arrays in one call: half the time
  return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in narrow.items()}


def gather_rows(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rows of all processes, in process order, on every process; dtypes kept."""
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
