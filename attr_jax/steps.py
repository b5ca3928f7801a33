"""The pure train and predict steps, and the one place where they are compiled."""

from collections.abc import Callable, Mapping, Sequence
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from attr_jax import optim
from attr_jax import sharding
from attr_jax.data import ops
from attr_jax.errors import InputError
from attr_jax.nn import heatmaps
from attr_jax.nn import masks
from attr_jax.nn import preprocess
from attr_jax.state import TrainState

Batch = Mapping[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]

# What a model may take: the image, and the others where the batch has them.
INPUTS = ("image", "regions", "landmarks")
# Folded into a sample's key for the model's own draws: beyond the counters that the colour jitter uses up.
_MODEL_KEYS = 1 << 16


def make_train_step(
    model: Any,
    objective: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh | None = None,
    *,
    remember: Callable[..., Any] | None = None,
    num_train: int = 0,
    trainable: Sequence[str] | None = None,
) -> TrainStep:
  """Builds `train_step(state, batch, rng) -> (state, scalars)`.

  The step is pure. BN statistics are those of each device's rows (`config.batch_norm.scope` "local", as under pmap), of
  the rows of `config.batch_norm.group_size` neighbouring devices ("group") or of the whole batch ("global", and without a
  mesh); the running ones are the mean over devices. Only "local" needs no communication for each layer. `rng` is the run's
  key: the step folds its own number in.

  Args:
    model: Linen module of the contract in docs/architecture.md; one that takes `keys` gets one per sample.
    objective: `(logits, out, batch, memory) -> (loss, parts)`, weights bound.
    tx: the optimiser.
    schedule: learning rate of an update count, for the log.
    config: the run's config (`input`, `accumulate_steps`, `batch_norm`).
    mesh: of the devices; None: one device.
    remember: `(memory, logits, batch, epoch) -> memory` of models that carry something
      between steps. Their batches also hold `epoch` int32 [B]: a batch may span two epochs.
    num_train: samples of the training split, for `epoch`.
    trainable: top-level parameter groups that change; None: all. The optimiser leaves the others alone.

  Returns:
    A function of `batch` {image uint8 [B, H, W, 3], label, known, id} whose `scalars` are loss, its parts, grad_norm and
    learning_rate, all float32. Images may be [B, V, H, W, 3] with `view_label` [B, V, L]: each view counts as a sample.

  Raises:
    InputError: a method that remembers its samples on images of several views.
  """
  if remember and config.input.crop == "six_view":
    raise InputError(f"config.model.name={config.model.name!r} keeps a history per image: config.input.crop='six_view' is not for it")
  scope = config.batch_norm.scope if mesh is not None and mesh.size > 1 else "global"
  if scope == "group":
    model = model.clone(bn_axis_name=sharding.GROUP_AXIS)
  draws = takes(model, "keys")

  def loss_fn(params: Any, batch_stats: Any, memory: Any, batch: Batch) -> tuple[jax.Array, Any]:
    if trainable is not None:  # so that nothing is computed for the others
      params = {name: group if name in trainable else jax.lax.stop_gradient(group) for name, group in params.items()}
    batch = _views_as_rows(batch)
    image = _augment(batch, config)
    inputs = _normalize(image, config)
    extras = _extras(model, batch, _pixels(image))
    keys = {"keys": jax.vmap(jax.random.fold_in, (0, None))(batch["jitter_key"], _MODEL_KEYS)} if draws else {}
    (logits, out), updated = model.apply(
        {"params": params, "batch_stats": batch_stats}, inputs, train=True, mutable=["batch_stats"], **keys, **extras
    )
    loss, parts = objective(logits, out, batch, memory)
    new_stats = updated["batch_stats"]
    if scope != "global":
      # The mean must be taken before the gradient: under shard_map gradients of
      # replicated parameters arrive already summed over devices.
      loss, parts = jax.lax.pmean((loss, parts), sharding.GROUP_AXES)
      # Within a group they are equal already.
      new_stats = jax.lax.pmean(new_stats, sharding.GROUPS_AXIS if scope == "group" else sharding.GROUP_AXES)
    return loss, (parts, new_stats, logits)

  def gradients(params: Any, batch_stats: Any, memory: Any, batch: Batch) -> tuple[Any, Any, Any, Any]:
    """(gradients, batch_stats, scalars, logits) of a batch, in micro-batches where asked."""
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    count = config.accumulate_steps

    def one(carry: tuple[Any, Any], micro: Batch) -> tuple[tuple[Any, Any], Any]:
      total, stats = carry
      (loss, (parts, stats, logits)), grads = grad_fn(params, stats, memory, micro)
      total = jax.tree.map(lambda t, g: t + g / count, total, grads)
      return (total, stats), ({"loss": loss, **parts}, logits)

    zeros = jax.tree.map(jnp.zeros_like, params)
    if count == 1:
      (grads, stats), (scalars, logits) = one((zeros, batch_stats), batch)
      return grads, stats, scalars, logits
    micro_batches = jax.tree.map(functools.partial(_split, count), dict(batch))
    (grads, stats), (scalars, logits) = jax.lax.scan(one, (zeros, batch_stats), micro_batches)
    logits = logits.swapaxes(0, 1).reshape(-1, logits.shape[-1])  # rows as before `_split`
    return grads, stats, jax.tree.map(jnp.mean, scalars), logits

  if scope != "global":
    whole, rows = jax.P(), jax.P(sharding.GROUP_AXES)
    groups = sharding.in_groups(mesh, config.batch_norm.group_size if scope == "group" else 1)
    gradients = jax.shard_map(
        gradients, mesh=groups, in_specs=(whole, whole, whole, rows), out_specs=(whole, whole, whole, rows)
    )

  def train_step(state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
    step_rng = jax.random.fold_in(rng, state.step)
    size = batch["image"].shape[0]
    batch = dict(batch, jitter_key=preprocess.sample_keys(step_rng, size))
    if remember:
      batch["epoch"] = (state.step * size + jnp.arange(size)) // num_train
    # With "fsdp" the parameters are fetched here, once per step. Of the gradients each device gets the parts that it updates.
    params = sharding.gather_split(state.params, mesh)
    grads, batch_stats, scalars, logits = gradients(params, state.batch_stats, state.memory, batch)
    grads = sharding.keep_split(grads, mesh)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    scalars |= {
        "grad_norm": optax.global_norm(grads),
        "learning_rate": schedule(state.step) * optim.plateau_scale(state.opt_state),
    }
    new_state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    if remember:
      new_state = new_state.replace(memory=remember(state.memory, logits, batch, batch["epoch"]))
    return new_state, scalars

  return train_step


def make_several_steps(train_step: TrainStep) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Builds `several_steps(state, batches, rng) -> (state, scalars)`: the steps over a tuple of batches as one program.

  With small batches starting a program takes as long as running it. Results are those of single steps; `scalars` have a
  first axis of steps.
  """
  def several_steps(state: TrainState, batches: Sequence[Batch], rng: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *batches)
    return jax.lax.scan(lambda state, batch: train_step(state, batch, rng), state, stacked)

  return several_steps


def make_predict_step(model: Any, config: ml_collections.ConfigDict) -> Callable[..., dict[str, jax.Array]]:
  """Builds `predict_step(params, batch_stats, batch) -> rows`.

  `batch` holds `image` uint8 [B, H, W, 3], or [B, V, H, W, 3] for V views, and may hold `person_mask` or `region_mask`
  uint8 of the same [B, (V,) H, W], and for one view what else the model takes. `rows` holds `logit` float32 [B, L], the mean
  over the views. Where the model chooses labels, `step_labels` int32 and `step_probability` float32 [B, V, T], see
  `models.attncnn_rnn`. Where the batch has a mask and the model predicts one, `mask_intersection` and `mask_union` int32 [B], pixels
  counted over the views, and `region_confusion` int32 [B, R, R], pixels of true (first) and predicted region. Where the model
  weighs regions for each label, `region_weights` float32 [B, R, L]. Where a batch of several views has `mirror` (its values do
  not count), there are twice as many: all views, then their mirrors, which are made here ("ten_crop" of five).
  """
  def predict_step(params: Any, batch_stats: Any, batch: Batch) -> dict[str, jax.Array]:
    batch = _with_mirrors(batch) if "mirror" in batch else batch
    image = batch["image"]
    count, views = image.shape[0], image.shape[1] if image.ndim == 5 else 1
    pixels = image.reshape(-1, *image.shape[-3:])
    inputs = _normalize(pixels, config)
    variables = {"params": params, "batch_stats": batch_stats}
    extras = _extras(model, batch, pixels)
    extras = {key: value.reshape(-1, *value.shape[-2 if key == "landmarks" else -3:]) for key, value in extras.items()}
    logits, out = model.apply(variables, inputs, train=False, **extras)
    rows = {"logit": logits.astype(jnp.float32).reshape(count, views, logits.shape[-1]).mean(axis=1)}
    if "person_mask" in batch and "mask" in out:
      person = batch["person_mask"].reshape(-1, *image.shape[-3:-1])
      overlap = [pixels.reshape(count, views).sum(axis=1) for pixels in masks.mask_overlap(out["mask"], person)]
      rows |= {"mask_intersection": overlap[0], "mask_union": overlap[1]}
    if "region_mask" in batch and "region_probability" in out:
      region = batch["region_mask"].reshape(-1, *image.shape[-3:-1])
      confusion = masks.region_confusion(out["region_probability"], region)
      rows["region_confusion"] = confusion.reshape(count, views, *confusion.shape[1:]).sum(axis=1)
    if "step_labels" in out:
      rows |= {key: out[key].reshape(count, views, -1) for key in ("step_labels", "step_probability")}
    if "region_weights" in out and views == 1:
      rows["region_weights"] = out["region_weights"].astype(jnp.float32)
    return rows

  return predict_step


def make_explain_step(model: Any, config: ml_collections.ConfigDict) -> Callable[..., dict[str, jax.Array]]:
  """Builds `explain_step(params, batch_stats, batch) -> out`: `image` uint8 [B, H, W, 3], and what else the model takes, to
  `logits` and all that the model names."""
  def explain_step(params: Any, batch_stats: Any, batch: Batch) -> dict[str, jax.Array]:
    variables = {"params": params, "batch_stats": batch_stats}
    extras = _extras(model, batch, batch["image"])
    logits, out = model.apply(variables, _normalize(batch["image"], config), train=False, **extras)
    return {"logits": logits, **out}

  return explain_step


def make_equivariance_step(model: Any, config: ml_collections.ConfigDict, small: tuple[int, int] | None) -> Callable[..., Any]:
  """Builds `equivariance_step(params, batch_stats, batch) -> {"flip": sums, "scale": sums}`, see `nn.heatmaps`.

  Args:
    model: one with `heatmap` in its outputs.
    config: the run's config.
    small: (h, w) of the smaller copies; None for models that take one size only, which then have no "scale".

  Returns:
    A function of `batch` {image uint8 [B, H, W, 3], valid bool [B], and what else the model takes}; sums are numerator and
    denominator [L].
  """
  def equivariance_step(params: Any, batch_stats: Any, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
    variables = {"params": params, "batch_stats": batch_stats}
    extras = _extras(model, batch, batch["image"])
    heatmap = lambda image, extras: model.apply(variables, image, train=False, **extras)[1]["heatmap"]
    image = _normalize(batch["image"], config)
    original, valid = heatmap(image, extras), batch["valid"]
    mirrored = heatmap(image[:, :, ::-1], {key: value[:, :, ::-1] for key, value in extras.items() if key != "landmarks"})
    sums = {"flip": heatmaps.flip_error_sums(original, mirrored, valid)}
    if small:
      shrunk = jax.image.resize(image, (image.shape[0], *small, 3), "bilinear")
      sums["scale"] = heatmaps.scale_error_sums(original, heatmap(shrunk, extras), valid)
    return sums

  return equivariance_step


def make_inside_step(model: Any, config: ml_collections.ConfigDict) -> Callable[..., dict[str, Any]]:
  """Builds `inside_step(params, batch_stats, batch) -> {"heatmap" and "attention", those that the model has, "area": sums}`, see
  `nn.heatmaps.inside_sums`.

  `batch` holds image uint8 [B, H, W, 3], person_mask uint8 [B, H, W], label, known, valid, and what else the model takes. "area" is of
  maps that are alike everywhere.
  """
  def inside_step(params: Any, batch_stats: Any, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
    variables = {"params": params, "batch_stats": batch_stats}
    extras = _extras(model, batch, batch["image"])
    out = model.apply(variables, _normalize(batch["image"], config), train=False, **extras)[1]
    maps = {key: out[key] for key in ("heatmap", "attention") if key in out}
    maps["area"] = jnp.ones_like(next(iter(maps.values())))
    shown = (batch["label"] == 1) & batch["known"] & batch["valid"][:, None]
    return {key: heatmaps.inside_sums(value, batch["person_mask"], shown) for key, value in maps.items()}

  return inside_step


def compile_train_step(train_step: TrainStep, mesh: jax.sharding.Mesh, layout: TrainState | None = None) -> TrainStep:
  """`train_step` under jit: batch split over the mesh, state donated and kept as `layout` (`state.layout`) says; None: whole everywhere."""
  keep, rows = sharding.replicated(mesh), sharding.over_batch(mesh)
  layout = keep if layout is None else layout
  return jax.jit(train_step, donate_argnums=0, in_shardings=(layout, rows, keep), out_shardings=(layout, keep))


def compile_predict_step(predict_step: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
  """A predict or explain step under jit: the batch split over the mesh, the answer whole on every device."""
  keep, rows = sharding.replicated(mesh), sharding.over_batch(mesh)
  options = _forward_options() if mesh.devices.flat[0].platform == "cpu" else None
  return jax.jit(predict_step, in_shardings=(keep, keep, rows), out_shardings=keep, compiler_options=options)


@functools.cache
def _forward_options() -> dict[str, str] | None:
  """How XLA:CPU compiles forward passes; None where it does not know the option.

  Left alone, it repeats in each residual block the additions of all blocks before, up to 22 times in stage 3 of a ResNet-101. As
  library calls they are computed once, and that network is 1.3 times as fast (docs/performance.md). Training steps,
  whose backward pass needs the sums anyway, gain nothing.
  """
  kinds = ("INDIVIDUAL_DOT", "INDIVIDUAL_CONVOLUTION", "ELTWISE")  # the first two are the default
  options = {"xla_cpu_experimental_ynn_fusion_type": ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in kinds)}
  try:
    jax.jit(lambda x: x + 1, compiler_options=options).lower(jnp.float32(0)).compile()
  except jax.errors.JaxRuntimeError:
    return None
  return options


def flops_per_image(model: Any, state: TrainState, batch: Batch) -> float:
  """Floating-point operations of one forward pass, by XLA's own count, nan where it has none.

  Args:
    model: Linen module.
    state: its arrays or their shapes.
    batch: of one sample, `image` [1, H, W, 3] and what else the model takes.
  """
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state.params, state.batch_stats))
  inputs = {key: jax.ShapeDtypeStruct(batch[key].shape, jnp.float32) for key in INPUTS if key in batch}
  forward = lambda params, stats, x: model.apply(
      {"params": params, "batch_stats": stats}, x["image"], train=False, **_extras(model, x, x["image"]))
  lowered = jax.jit(forward).lower(*shapes, inputs)
  return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def takes(model: Any, name: str) -> bool:
  """Whether the model's `__call__` has such an argument."""
  return name in inspect.signature(type(model).__call__).parameters


def _extras(model: Any, batch: Batch, pixels: jax.Array) -> dict[str, jax.Array]:
  """What the model takes beside the normalised image; `pixels` are those before; `regions` uint8 [B, h, w, R] as float in 0..1."""
  given = batch | {"pixels": pixels}
  extras = {key: given[key] for key in (*INPUTS[1:], "pixels") if key in given and takes(model, key)}
  return extras | {key: value.astype(jnp.float32) / 255 for key, value in extras.items() if key == "regions"}


def _with_mirrors(batch: Batch) -> Batch:
  """Views [B, V, ...] -> [B, 2 V, ...]: all of them, then each mirrored with its masks and landmarks (`data.ops.flip`)."""
  mirrored = {"image": batch["image"][..., ::-1, :]}
  mirrored |= {key: batch[key][..., ::-1] for key in ("person_mask", "region_mask") if key in batch}
  if "landmarks" in batch:
    points = batch["landmarks"][..., jnp.array(ops.MIRRORED_LANDMARKS), :]
    mirrored["landmarks"] = jnp.stack([batch["image"].shape[-2] - 1 - points[..., 0], points[..., 1]], axis=-1)
  return dict(batch) | {key: jnp.concatenate([batch[key], value], axis=1) for key, value in mirrored.items()}


def _pixels(image: jax.Array) -> jax.Array:
  """The augmented images, uint8 or float in 0..1, as uint8."""
  return image if image.dtype == jnp.uint8 else jnp.round(255 * image).astype(jnp.uint8)


def _views_as_rows(batch: Batch) -> Batch:
  """Images [B, V, H, W, 3] as B V samples with keys of their own, the views of an image side by side."""
  if batch["image"].ndim == 4:
    return batch
  count = batch["image"].shape[1]
  rows = {key: jnp.repeat(value, count, axis=0) for key, value in batch.items() if key not in ("image", "view_label", "jitter_key")}
  keys = jax.vmap(lambda key: preprocess.sample_keys(key, count))(batch["jitter_key"])
  joined = lambda x: x.reshape(-1, *x.shape[2:])
  return rows | {"image": joined(batch["image"]), "label": joined(batch["view_label"]), "jitter_key": keys.reshape(-1)}


def _augment(batch: Batch, config: ml_collections.ConfigDict) -> jax.Array:
  """uint8 images -> colour-jittered ones, float32 in 0..1; uint8 where nothing is jittered."""
  strengths = {name: config.input[name] for name in ("brightness", "contrast", "saturation", "hue")}
  if not any(strengths.values()):
    return batch["image"]
  return preprocess.color_jitter(batch["image"].astype(jnp.float32) / 255, batch["jitter_key"], **strengths)


def _normalize(image: jax.Array, config: ml_collections.ConfigDict) -> jax.Array:
  dtype = jnp.dtype(config.compute_dtype)
  return preprocess.normalize(image, config.input.mean, config.input.std, dtype)


def _split(count: int, rows: jax.Array) -> jax.Array:
  """[B, ...] -> [count, B / count, ...], each micro-batch spread over all devices' rows."""
  return rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]).swapaxes(0, 1)
