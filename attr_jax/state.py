"""The training state, and how it comes to be."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from attr_jax import sharding


# Initialisation runs once and is cheap: on CPU its compilation takes three times as long at full optimisation.
_QUICK_COMPILE = {"xla_backend_optimization_level": 0}


@flax.struct.dataclass
class TrainState:
  """Everything that a resumed run needs.

  Attributes:
    step: int32 scalar, updates done so far.
    params: float32 parameters.
    batch_stats: float32 running BN statistics.
    opt_state: optax state; also the averaged parameters and the plateau counters.
    memory: what the method carries between steps (DIAA's history), or {}.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  memory: Any


def abstract_state(model: Any, tx: optax.GradientTransformation, image_shape: tuple[int, ...],
                   memory: Any, mesh: jax.sharding.Mesh) -> TrainState:
  """Shapes, dtypes and shardings of the state, without computing anything; arguments as in `make_init`."""
  shapes = _shapes(model, tx, image_shape, memory)
  return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, layout(shapes, mesh))


def layout(state: TrainState, mesh: jax.sharding.Mesh) -> TrainState:
  """Where the arrays of a state are kept: parameters and what the optimiser holds of each as `sharding.split` says, the others whole.

  Args:
    state: arrays or their shapes.
    mesh: of `sharding.make_mesh`.

  Returns:
    A sharding for each array.
  """
  whole = lambda tree: jax.tree.map(lambda x: sharding.replicated(mesh), tree)
  split = lambda tree: jax.tree.map(lambda x: sharding.split(x.shape, mesh), tree)
  return TrainState(whole(state.step), split(state.params), whole(state.batch_stats), split(state.opt_state), whole(state.memory))


def create_state(model: Any, tx: optax.GradientTransformation, image_shape: tuple[int, ...],
                 memory: Any, mesh: jax.sharding.Mesh, seed: int) -> TrainState:
  """A fresh state, a function of `seed`, computed on the devices where it will live; the other arguments as in `make_init`."""
  return make_init(model, tx, image_shape, memory, mesh)(seed)


def make_init(model: Any, tx: optax.GradientTransformation, image_shape: tuple[int, ...],
              memory: Any, mesh: jax.sharding.Mesh) -> Callable[[int], TrainState]:
  """`create_state` as a function of the seed, compiled once for all of them.

  Args:
    model: Linen module.
    tx: the optimiser.
    image_shape: (H, W, 3) of the model's input.
    memory: of `models.initial_memory`.
    mesh: of the devices.
  """
  init = jax.jit(
      lambda rng: _initial_state(model, tx, image_shape, memory, rng),
      out_shardings=layout(_shapes(model, tx, image_shape, memory), mesh) if sharding.has_fsdp(mesh) else sharding.replicated(mesh),
      compiler_options=_QUICK_COMPILE if jax.default_backend() == "cpu" else None,
  )
  return lambda seed: init(jax.random.key(seed))


def with_variables(state: TrainState, tx: optax.GradientTransformation, params: Any, batch_stats: Any) -> TrainState:
  """The state with other starting weights (and an optimiser that starts from them).

  Args:
    state: whose devices and dtypes are kept.
    tx: the optimiser.
    params: tree of arrays of the same structure and shapes as the state's.
    batch_stats: likewise.
  """
  place = lambda new, old: jax.device_put(jnp.asarray(new, old.dtype), old.sharding)
  params = jax.tree.map(place, params, state.params)
  batch_stats = jax.tree.map(place, batch_stats, state.batch_stats)
  opt_state = jax.jit(tx.init, out_shardings=jax.tree.map(lambda x: x.sharding, state.opt_state))(params)
  return state.replace(params=params, batch_stats=batch_stats, opt_state=opt_state)


def _shapes(model: Any, tx: optax.GradientTransformation, image_shape: tuple[int, ...], memory: Any) -> TrainState:
  return jax.eval_shape(lambda: _initial_state(model, tx, image_shape, memory, jax.random.key(0)))


def _initial_state(model: Any, tx: optax.GradientTransformation, image_shape: tuple[int, ...],
                   memory: Any, rng: jax.Array) -> TrainState:
  variables = model.init(rng, jnp.zeros((1, *image_shape), jnp.float32), train=False)
  params = variables["params"]
  return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=variables.get("batch_stats", {}),
      opt_state=tx.init(params),
      memory=jax.tree.map(jnp.asarray, memory),
  )
