"""What code inside `jax.shard_map` needs where jax does not see by itself that values differ between devices."""

from typing import Any

import jax
from jax import lax


def vary_like(tree: Any, like: Any) -> Any:
  """Arrays that are equal on all devices, as arrays of each device's own; gradients of them are summed over the devices.

  Start values of a loop need it, and what a function with gradients of its own takes. Outside shard_map nothing changes.

  Args:
    tree: arrays.
    like: arrays; those of `tree` then differ along all axes of the mesh along which one of these does.
  """
  axes = frozenset().union(*map(_varying, jax.tree.leaves(like)))
  missing = lambda x: tuple(axes - _varying(x))
  return jax.tree.map(lambda x: lax.pcast(x, missing(x), to="varying") if missing(x) else x, tree)


def _varying(x: jax.Array) -> frozenset[str]:
  """Axes along which an array differs; where jax says so changes between its versions."""
  kind = jax.typeof(x)
  return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
