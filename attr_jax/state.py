"""The training state, and how it comes to be."""

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
  """Shapes, dtypes and shardings of the state, without computing anything."""
  shapes = jax.eval_shape(lambda: _initial_state(model, tx, image_shape, memory, jax.random.key(0)))
  keep = sharding.replicated(mesh)
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=keep), shapes)


def create_state(model: Any, tx: optax.GradientTransformation, image_shape: tuple[int, ...],
                 memory: Any, mesh: jax.sharding.Mesh, seed: int) -> TrainState:
  """A fresh state, computed on the devices where it will live."""
  init = jax.jit(
      lambda rng: _initial_state(model, tx, image_shape, memory, rng),
      out_shardings=sharding.replicated(mesh),
      compiler_options=_QUICK_COMPILE if jax.default_backend() == "cpu" else None,
  )
  return init(jax.random.key(seed))


def with_variables(state: TrainState, tx: optax.GradientTransformation, params: Any, batch_stats: Any) -> TrainState:
  """The state with other starting weights (and an optimiser that starts from them)."""
  place = lambda new, old: jax.device_put(jnp.asarray(new, old.dtype), old.sharding)
  params = jax.tree.map(place, params, state.params)
  batch_stats = jax.tree.map(place, batch_stats, state.batch_stats)
  opt_state = jax.tree.map(place, tx.init(params), state.opt_state)
  return state.replace(params=params, batch_stats=batch_stats, opt_state=opt_state)


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
