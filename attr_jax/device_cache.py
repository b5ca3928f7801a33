"""The training split on the devices: uploaded once as uint8, each view cut there.

For data sets that fit (`config.data.cache = "device"`). The host decodes every record once, at the size that views are
cut from, and afterwards only draws places, boxes and mirrorings, the very numbers that `pipeline.train_dataset` would
draw; so a run is the same with and without the cache but for rounding in the bilinear resize, and can change between
the two when it is resumed.

The samples are split over the devices of the mesh, N / n on each. A device picks what it has of a batch, and a sum over
devices (of bytes, all but one of them 0) brings each sample to the device that trains on it. So a device reads and sends
a whole global batch; what the devices hold stays where it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
import functools
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import ml_collections
import numpy as np
import psutil
import tqdm

from attr_jax import sharding
from attr_jax.data import ops
from attr_jax.data import pipeline
from attr_jax.nn import resize

# Of a device's free memory the cache takes at most this share; the rest is for the step, whose need nobody knows before.
SHARE = 0.5
_PIECE_BYTES = 2**26  # of an upload
_MASKS = ("person_mask", "region_mask")

Batch = dict[str, jax.Array]


def train_iterator(source: Sequence[dict[str, Any]], spec: pipeline.InputSpec, config: ml_collections.ConfigDict,
                   mesh: jax.sharding.Mesh, start_step: int = 0, *, second: Any = None,
                   quiet: bool = False) -> Iterator[Batch] | None:
  """Fills the cache and iterates over training batches from global step `start_step` on.

  Args:
    source: Raw records (`registry.RecordSource`).
    spec: How they become inputs.
    config: The run's (`data.cache`, `batch_size`, `seed`, `input.threads`).
    mesh: Where the samples are kept and the batches are made.
    start_step: First step; the batches equal those of a run that never stopped.
    second: Samples of a second data set, which the cache does not do.
    quiet: Print nothing.

  Returns:
    Endless batches on the devices, split over the mesh: what `sharding.put_batch` makes of the batches of
    `pipeline.train_dataset`. None where `fill` gives none.

  Raises:
    InputError: The batch does not divide by the number of processes.
  """
  samples = fill(source, spec, config, mesh, second=second, quiet=quiet)
  if samples is None:
    return None
  return cut_batches(samples, compile_view(spec, mesh), mesh, draw_views(len(source), spec, config, start_step))


def draw_views(count: int, spec: pipeline.InputSpec, config: ml_collections.ConfigDict, start_step: int) -> Iterator[dict[str, np.ndarray]]:
  """Batches of `pipeline.view_dataset` from a step on: this process's part of the places, boxes and mirrorings of `count` samples.

  Args:
    count: Samples of the split.
    spec: As in `train_iterator`.
    config: The run's (`batch_size`, `seed`).
    start_step: First step.

  Returns:
    Endless dicts of `view` int32 [B / processes, 6].

  Raises:
    InputError: The batch does not divide by the number of processes.
  """
  views = pipeline.view_dataset(count, spec, batch_size=config.batch_size, seed=config.seed,
                                process_index=jax.process_index(), process_count=jax.process_count())
  return pipeline.train_iterator(views, start_step, num_threads=1)  # drawing is Python work, which threads do not share


def fill(source: Sequence[dict[str, Any]], spec: pipeline.InputSpec, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, *,
         second: Any = None, quiet: bool = False) -> Batch | None:
  """`upload`, arguments as in `train_iterator`. None where no cache is asked for, or where it cannot be; one line then says why.

  It may take half (SHARE, our choice) of the memory that is free on the fullest device.
  """
  if config.data.cache != "device":
    return None
  say = functools.partial(_say, quiet or jax.process_index() > 0)
  unfit = _unsupported(source, spec, second)
  if unfit:
    say(f"cache      off: {unfit}; images come from the host")
    return None
  example = _stored(pipeline.whole_sample(source[0], spec))
  rows = -(-len(source) // mesh.size)
  need, room = rows * sum(value.nbytes for value in example.values()) / 1e9, SHARE * free_gigabytes(mesh)
  wanted = f"{len(source):,} samples as uint8 need {need:.2f} GB on each of {mesh.size} devices"
  if need > room:
    say(f"cache      off: {wanted}, {room:.2f} GB may be used; images come from the host")
    return None
  say(f"cache      {wanted}, {room:.2f} GB may be used; views are cut on the device")
  return upload(source, spec, mesh, threads=config.input.threads, quiet=quiet)


def upload(source: Sequence[dict[str, Any]], spec: pipeline.InputSpec, mesh: jax.sharding.Mesh, *, threads: int = 2,
           quiet: bool = False) -> Batch:
  """Decodes every record once and puts it on its device; each process those of its own devices.

  Args:
    source: N raw records.
    spec: Size of the whole images, `pipeline.whole_size`, and whether masks are kept.
    mesh: n devices.
    threads: Threads that decode.
    quiet: Show no progress.

  Returns:
    Arrays over the mesh with first axis n * ceil(N / n), in the order of the source, then zeros: `image` uint8 [., H, 3 W]
    (a pixel's colours side by side, as in [H, W, 3], but no axis of length 3, which a TPU would pad to 128), `label`,
    `known` uint8, `id` int32, and `person_mask`, `region_mask`, `landmarks` where there are any.
  """
  where, rows = sharding.over_batch(mesh), -(-len(source) // mesh.size)
  example = _stored(pipeline.whole_sample(source[0], spec))
  step = max(1, _PIECE_BYTES // sum(value.nbytes for value in example.values()))
  spans = {}
  for device, (span,) in where.addressable_devices_indices_map((rows * mesh.size,)).items():
    first, stop, _ = span.indices(rows * mesh.size)
    spans[device] = range(first, min(stop, len(source)))
  parts: dict[str, list[jax.Array]] = {key: [] for key in example}
  quiet = quiet or jax.process_index() > 0
  with (futures.ThreadPoolExecutor(max(1, threads)) as pool,
        tqdm.tqdm(total=sum(map(len, spans.values())), desc="cache", unit="image", ncols=80, disable=quiet) as bar):
    for device, span in spans.items():
      part = {key: jnp.zeros((rows, *value.shape), value.dtype, device=device) for key, value in example.items()}
      for first in range(0, len(span), step):
        piece = _decode(source, spec, span[first:first + step], example, pool)
        part = _insert(part, jax.device_put(piece, device), first)
        bar.update(len(piece["id"]))
      for key, value in part.items():
        parts[key].append(value)
  return {key: jax.make_array_from_single_device_arrays((rows * mesh.size, *example[key].shape), where, arrays)
          for key, arrays in parts.items()}


def compile_view(spec: pipeline.InputSpec, mesh: jax.sharding.Mesh) -> Any:
  """The program `view(samples, draws) -> batch` under jit.

  `samples` are of `upload`, `draws` int32 [B, 6] of `pipeline.view_dataset`, split over the mesh like `batch`: `image`
  uint8 [B, h, w, 3] and what else the samples hold, as `sharding.put_batch` would put it.
  """
  whole, products = pipeline.whole_size(spec), mesh.devices.flat[0].platform == "tpu"
  tables = tuple(ops.nearest_table(longest, size) for longest, size in zip(whole, spec.size))

  def view(samples: Batch, draws: jax.Array) -> Batch:
    place, box, mirrored = draws[:, 0], draws[:, 1:5], draws[:, 5] == 1
    batch = {key: _take(value, place, mesh.axis_names) for key, value in samples.items()}
    batch["known"] = batch["known"] == 1
    batch["image"] = batch["image"].reshape(-1, *whole, 3)
    for key in ("image", *_MASKS):
      if key in batch:
        planes = batch[key].reshape(*batch[key].shape[:3], -1)
        nearest = tables if key == "region_mask" else None
        result = resize.cut(planes, box, mirrored, spec.size, nearest=nearest, products=products)
        batch[key] = result.reshape(*result.shape[:3], *batch[key].shape[3:])
    if "landmarks" in batch:
      points = resize.move_points(batch["landmarks"], box, mirrored, spec.size)
      order = jnp.where(mirrored[:, None], np.array([ops.MIRRORED_LANDMARKS]), np.arange(5)[None])
      batch["landmarks"] = jnp.take_along_axis(points, order[:, :, None], axis=1)
    return batch

  rows = sharding.over_batch(mesh)
  split = jax.shard_map(view, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec)
  return jax.jit(split, in_shardings=rows, out_shardings=rows)


def cut_batches(samples: Batch, view: Any, mesh: jax.sharding.Mesh, draws: Iterator[dict[str, np.ndarray]]) -> Iterator[Batch]:
  """The batches of `view`, a program of `compile_view`, for this process's rows of `draws`, batches of `pipeline.view_dataset`.

  Args:
    samples: of `upload`.
    view: of `compile_view`.
    mesh: that both are on.
    draws: `view` int32 [B / processes, 6] each.

  Returns:
    Batches on the devices, as long as `draws` gives any; their arrays are [B, ...].
  """
  rows = sharding.over_batch(mesh)
  for drawn in draws:
    yield view(samples, sharding.put_batch(drawn, rows)["view"])


def _take(rows: jax.Array, place: jax.Array, axes: tuple[str, ...]) -> jax.Array:
  """Of the samples [N, ...] split over the axes those at `place` int32 [b], this device's part of the batch; inside shard_map."""
  if jax.lax.axis_size(axes) == 1:
    return rows[place]
  wanted = jax.lax.all_gather(place, axes, tiled=True)
  here = wanted - len(rows) * jax.lax.axis_index(axes)
  own = ((here >= 0) & (here < len(rows))).reshape(-1, *[1] * (rows.ndim - 1))
  found = jnp.where(own, rows[jnp.clip(here, 0, len(rows) - 1)], 0)
  return jax.lax.psum_scatter(found, axes, tiled=True)


def _unsupported(source: Sequence[dict[str, Any]], spec: pipeline.InputSpec, second: Any) -> str:
  """Why these samples cannot be cached, or ""."""
  if second is not None:
    return "a second data set (config.data.second) is not cached"
  if spec.crop == "six_view":
    return "config.input.crop='six_view' is not cut on the device"
  if not len(source):
    return "there are no samples"
  known = {"image", "label", "known", "id", "landmarks", *_MASKS}
  others = ", ".join(key for key in source[0] if key not in known)
  return f"samples hold {others}, which is not cached" if others else ""


def _stored(sample: ops.Sample) -> dict[str, np.ndarray]:
  """A whole sample as the cache keeps it: no axis of colours, no bool and no 64-bit numbers."""
  image = sample["image"]
  return {
      **{key: np.asarray(value) for key, value in sample.items()},
      "image": image.reshape(image.shape[0], -1),
      "known": sample["known"].astype(np.uint8),
      "id": np.int32(sample["id"]),
  }


def _decode(source: Sequence[dict[str, Any]], spec: pipeline.InputSpec, places: Sequence[int],
            example: Mapping[str, np.ndarray], pool: futures.Executor) -> dict[str, np.ndarray]:
  """The samples at `places`, stacked."""
  piece = {key: np.empty((len(places), *value.shape), value.dtype) for key, value in example.items()}

  def write(row: int) -> None:
    for key, value in _stored(pipeline.whole_sample(source[places[row]], spec)).items():
      piece[key][row] = value

  list(pool.map(write, range(len(places))))
  return piece


@functools.partial(jax.jit, donate_argnums=0)
def _insert(part: Batch, piece: Batch, first: jax.Array) -> Batch:
  """A piece of samples in its place among those of a device, without a copy of these."""
  return jax.tree.map(lambda rows, new: jax.lax.dynamic_update_slice_in_dim(rows, new, first, axis=0), part, piece)


def free_gigabytes(mesh: jax.sharding.Mesh) -> float:
  """Free memory of the fullest device in GB (10^9 bytes), the same figure on every process; devices of a CPU share what is available."""
  def free(device: jax.Device) -> float:
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
      return stats["bytes_limit"] - stats["bytes_in_use"]
    return psutil.virtual_memory().available / len(mesh.local_devices)

  fewest = np.float32(min(map(free, mesh.local_devices)) / 1e9)
  if jax.process_count() > 1:
    fewest = multihost_utils.process_allgather(fewest).min()
  return float(fewest)


def _say(quiet: bool, text: str) -> None:
  if not quiet:
    print(text, flush=True)
