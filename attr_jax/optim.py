"""Optimisers by the torch rule, LARS and LAMB for large batches, schedules, plateau and parameter averaging, as optax chains.

The torch rule: weight decay is added to the gradient and so enters the
momentum; the learning rate multiplies the momentum buffer's output.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from attr_jax.config import epochs_to_steps
from attr_jax.config import is_off

# Their rates follow from the size of a layer's update, weight decay included: LARS (You et al., arXiv:1708.03888) and LAMB
# (You et al., ICLR 2020).
_DECAY_WITHIN = ("lars", "lamb")


class PlateauState(NamedTuple):
  """Counters of the plateau rule, all scalars."""

  scale: jax.Array  # what the learning rate is multiplied by
  best: jax.Array  # best validation value so far
  waited: jax.Array  # evaluations since then
  drops: jax.Array


class AverageState(NamedTuple):
  """Exponential moving average of the parameters."""

  average: Any


def make_schedule(config: ml_collections.ConfigDict, total_steps: int, num_train: int) -> optax.Schedule:
  """Learning rate as a function of the update count (plateau scales it further).

  step: times `factor` from each of `at_epochs` on. cosine: to zero at the last
  step. Both after a linear warm-up from zero over `warmup_epochs`.

  Args:
    config: the run's (`schedule`, `optimizer.learning_rate`, `batch_size`).
    total_steps: updates of the run.
    num_train: samples of the training split, to make steps of epochs.

  Returns:
    A function of the number of updates done.
  """
  peak, schedule = config.optimizer.learning_rate, config.schedule
  to_steps = lambda epochs: epochs_to_steps(epochs, num_train, config.batch_size)
  warmup = to_steps(schedule.warmup_epochs)
  if schedule.name == "cosine":
    main = optax.cosine_decay_schedule(peak, max(1, total_steps - warmup))
  elif schedule.name == "step":
    # Boundaries count from the start of training; join_schedules restarts at the warm-up's end.
    boundaries = {to_steps(epoch) - warmup: schedule.factor for epoch in schedule.at_epochs}
    main = lambda count: _times_factors(peak, boundaries, count)
  else:
    main = optax.constant_schedule(peak)
  if not warmup:
    return main
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def _times_factors(rate: float, boundaries: Mapping[int, float], count: jax.Array) -> jax.Array:
  """`optax.piecewise_constant_schedule`, which looks at the factors' values: here they may be traced."""
  for boundary, factor in boundaries.items():
    rate = jnp.where(count >= boundary, factor * jnp.asarray(rate, jnp.float32), rate)
  return rate


def make_optimizer(config: ml_collections.ConfigDict, schedule: optax.Schedule,
                   trainable: Sequence[str] | None = None) -> optax.GradientTransformation:
  """Clipping, weight decay, SGD/Adam/AdaGrad/LARS/LAMB, plateau, freezing and averaging in one chain.

  Args:
    config: the run's (`optimizer`, `schedule.name`).
    schedule: of `make_schedule`.
    trainable: top-level parameter groups that change; None is all.
  """
  options = config.optimizer
  mask = _is_kernel if options.weight_decay_on == "kernels" else None
  parts = []
  if not is_off(options.clip_norm):
    parts.append(optax.clip_by_global_norm(options.clip_norm))
  if not is_off(options.weight_decay) and options.name not in _DECAY_WITHIN:
    parts.append(optax.add_decayed_weights(options.weight_decay, mask))
  parts.append(_update_rule(options, schedule, mask))
  if config.schedule.name == "plateau":
    parts.append(_scale_by_plateau())
  if trainable is not None:
    parts.append(_freeze_others(tuple(trainable)))
  if not is_off(options.ema_decay):
    parts.append(_average_parameters(options.ema_decay))
  return optax.chain(*parts)


def _update_rule(options: ml_collections.ConfigDict, schedule: optax.Schedule, mask: Any) -> optax.GradientTransformation:
  if options.name == "sgd":
    return optax.sgd(schedule, None if is_off(options.momentum) else options.momentum, options.nesterov)
  if options.name == "adam":
    return optax.adam(schedule)
  if options.name == "lars":
    # As in MLPerf: norms of BN scales and of biases are no measure of a step, so their rate is the plain one.
    return optax.lars(schedule, options.weight_decay, True if mask is None else mask, trust_ratio_mask=_is_kernel,
                      momentum=options.momentum, nesterov=options.nesterov)
  if options.name == "lamb":
    return optax.lamb(schedule, weight_decay=options.weight_decay, mask=mask)
  # Kalayeh et al. 2017 start the accumulator at zero, as torch does.
  return optax.adagrad(schedule, initial_accumulator_value=0.0, eps=1e-10)


def _is_kernel(params: Any) -> Any:
  """True for kernels; False for BN scale and bias and all other biases."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _freeze_others(trainable: tuple[str, ...]) -> optax.GradientTransformation:
  """Zero updates outside the named groups, whatever weight decay and momentum say."""
  def update(updates: Any, params: Any = None) -> Any:
    del params
    return {name: group if name in trainable else jax.tree.map(jnp.zeros_like, group) for name, group in updates.items()}

  return optax.stateless(update)


def _scale_by_plateau() -> optax.GradientTransformation:
  def init(params: Any) -> PlateauState:
    del params
    return PlateauState(jnp.ones(()), jnp.full((), -jnp.inf), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

  def update(updates: Any, state: PlateauState, params: Any = None) -> tuple[Any, PlateauState]:
    del params
    return jax.tree.map(lambda u: u * state.scale, updates), state

  return optax.GradientTransformation(init, update)


def _average_parameters(decay: float) -> optax.GradientTransformation:
  """Must be the last of the chain: it averages params + updates."""
  def init(params: Any) -> AverageState:
    # A copy: the state is donated, and one buffer must not be donated twice.
    return AverageState(jax.tree.map(jnp.copy, params))

  def update(updates: Any, state: AverageState, params: Any) -> tuple[Any, AverageState]:
    new = optax.apply_updates(params, updates)
    return updates, AverageState(optax.incremental_update(new, state.average, 1 - decay))

  return optax.GradientTransformation(init, update)


def observe_validation(opt_state: Any, value: float, *, factor: float, patience: int, max_drops: int) -> Any:
  """The optimiser state after a validation result (higher is better).

  The learning rate is multiplied by `factor` when the value has not improved
  for more than `patience` evaluations, at most `max_drops` times. Without a
  plateau schedule nothing changes.

  Args:
    opt_state: of the optimiser of `make_optimizer`.
    value: the validation metric.
    factor: in 0..1.
    patience: in evaluations.
    max_drops: 0 leaves the rate as it is.
  """
  def step(state: PlateauState) -> PlateauState:
    scale, best, waited, drops = (np.asarray(x) for x in state)
    if value > best:
      best, waited = np.float32(value), 0
    else:
      waited = waited + 1
      if waited > patience and drops < max_drops:
        scale, waited, drops = scale * np.float32(factor), 0, drops + 1
    new = PlateauState(scale, best, waited, drops)
    return jax.tree.map(lambda n, old: jax.device_put(jnp.asarray(n, old.dtype), old.sharding), new, state)

  is_plateau = lambda x: isinstance(x, PlateauState)
  return jax.tree.map(lambda x: step(x) if is_plateau(x) else x, opt_state, is_leaf=is_plateau)


def plateau_scale(opt_state: Any) -> Any:
  """What the plateau rule multiplies the scheduled learning rate by; 1 without one."""
  found = _find(opt_state, PlateauState)
  return found.scale if found else 1.0


def evaluation_params(params: Any, opt_state: Any) -> Any:
  """The averaged parameters where averaging is on, else the parameters."""
  found = _find(opt_state, AverageState)
  return found.average if found else params


def _find(opt_state: Any, kind: type) -> Any:
  is_kind = lambda x: isinstance(x, kind)
  return next((x for x in jax.tree.leaves(opt_state, is_leaf=is_kind) if is_kind(x)), None)
