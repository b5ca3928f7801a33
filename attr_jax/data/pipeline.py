"""From records to batches: the graph of samples, with grain; `loader` reads it.

Training batches are a function of (seed, step) alone: the whole chain up to the
augmentation is computed on global sample numbers, and only then a host takes
its part. So neither the number of hosts nor that of threads changes a pixel,
and a run resumes at any step by asking for that step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import sys
from typing import Any

import grain
import numpy as np

from attr_jax.data import annotations
from attr_jax.data import images
from attr_jax.data import loader
from attr_jax.data import ops
from attr_jax.data import regions
from attr_jax.errors import InputError

CROPS = ("five_position", "random_square", "six_view", "none")
# The mirrors of "ten_crop" are made on the device (`steps.make_predict_step`): here it is "five_crop".
VIEWS = ("full", "five_crop", "ten_crop", "six_view")
CROP_LABELS = ("group", "none", "all")

NUM_VIEWS = 6  # of "six_view": the whole image, and crops of it
# Crops of evaluation images are random, but the same in every run: Tang et al. (2019) drew new ones each time.
_VIEW_SEED = 231


@dataclasses.dataclass(frozen=True)
class InputSpec:
  """How a stored image becomes a model input; sizes are (height, width) in pixels.

  Attributes:
    resize: Size of the whole image before it is cropped (aspect not kept).
    size: Size of the model input in training and of each of five crops.
    crop: "five_position" (SRN, Da-HAR), "random_square" (DIAA's code), "six_view" (Tang et al. 2019: training samples
      have six views too, see `six_views`) or "none" (the whole image resized straight to `size`).
    crop_sizes: Candidate heights of "five_position"; None = 1, .875, .75, .66
      and .5 of the height of `resize`. For "random_square" the smallest and the
      largest side; None = half and 7/8 of that height. Unused by the others.
    max_distort: See `ops.crop_shapes`; None = height and width independent.
    keep_ratio: Crops keep the aspect of `resize` (pedestrians).
    flip: Mirror with probability 0.5 in training.
    scaled_decode: Images much larger than they are needed leave the decoder smaller (`images.decode_jpeg`), which takes a fifth off
      the time for photos of 1024x768. Off by default: `predict` gets pixels, not JPEGs, and could not do the same.
    masks: Decode and deliver masks; False leaves them out where no loss needs them.
    full_size: Size of the one view of evaluation "full"; None = `resize`.
      Models whose maps are fixed to the training size need `size` here.
    crop_labels: Labels of the crops among six training views: "group", those of the group that shows everywhere in an
      image (cultures, by their style), the poster's intent; "none", what its program did by mistake; "all".
    crop_group: [L], True for the labels of that group. Needed in training only.

  Raises:
    InputError: An unknown crop or crop_labels, or crop_sizes that do not fit into `resize`.
  """

  resize: tuple[int, int] = (256, 256)
  size: tuple[int, int] = (224, 224)
  crop: str = "five_position"
  crop_sizes: tuple[int, ...] | None = None
  max_distort: int | None = None
  keep_ratio: bool = False
  flip: bool = True
  scaled_decode: bool = False
  masks: bool = True
  full_size: tuple[int, int] | None = None
  crop_labels: str = "group"
  crop_group: tuple[bool, ...] | None = None

  def __post_init__(self):
    if self.crop not in CROPS:
      raise InputError(f"crop: expected one of {', '.join(CROPS)}, got {self.crop!r}")
    if self.crop_labels not in CROP_LABELS:
      raise InputError(f"crop_labels: expected one of {', '.join(CROP_LABELS)}, got {self.crop_labels!r}")
    if self.crop in ("none", "six_view"):
      return
    if self.crop == "random_square" and len(self.heights) != 2:
      raise InputError(f"crop_sizes: random_square takes the smallest and the largest side, got {self.crop_sizes}")
    limit = min(self.resize) if self.crop == "random_square" else self.resize[0]
    if not self.heights or min(self.heights) < 1 or max(self.heights) > limit:
      raise InputError(f"crop_sizes: expected sizes in 1..{limit} for resize {self.resize[0]}x{self.resize[1]}, got {self.heights}")

  @functools.cached_property
  def heights(self) -> tuple[int, ...]:
    """`crop_sizes` with its default filled in."""
    if self.crop_sizes is not None:
      return tuple(self.crop_sizes)
    height = self.resize[0]
    return (height // 2, height * 7 // 8) if self.crop == "random_square" else ops.default_crop_sizes(height)


def decode_sample(raw: dict[str, Any], masks: bool = True, at_least: tuple[int, int] = (0, 0)) -> ops.Sample:
  """Turns the encoded images of a record into arrays (see docs/architecture.md, "A sample").

  Args:
    raw: Element of a record source.
    masks: False leaves `person_mask` and `region_mask` out.
    at_least: As for `images.decode_jpeg`; masks keep their size.

  Returns:
    `image` uint8 [H, W, 3], masks uint8 [H, W], `regions` uint8 [h, w, R], `landmarks` moved with the image, and the rest of `raw`.

  Raises:
    ImageError: A damaged mask.
  """
  image = images.decode_jpeg(raw["image"], at_least)
  sample = {**raw, "image": image}
  if "landmarks" in raw and any(at_least):
    sample["landmarks"] = ops.resize_points(raw["landmarks"], images.jpeg_size(raw["image"]), image.shape[:2])
  for key in ("person_mask", "region_mask"):
    if key in raw and masks:
      sample[key] = images.decode_mask(raw[key])
    elif key in raw:
      del sample[key]
  if "regions" in raw:
    sample["regions"] = annotations.decode_regions(raw["regions"], len(regions.FaceRegion))
  return sample


def augment(raw: dict[str, Any], rng: np.random.Generator, *, spec: InputSpec) -> ops.Sample:
  """Decodes one record and draws its training view as `spec` says, [H, W, 3] or six of them; a function of `raw` and `rng` alone."""
  return _plan(0, rng, source=(raw,), spec=spec)(None)


def _plan(number: int, rng: np.random.Generator, *, source: Sequence[dict[str, Any]], spec: InputSpec) -> loader.Draw:
  """Takes from `rng` what sample `number` needs of it, and leaves reading and pixels for later: `rng` is only lent."""
  if spec.crop == "six_view":  # where to cut depends on labels and size
    sample = _six_training_views(_decode_for_training(source[number], spec), spec, rng)
    return lambda out: sample
  box, mirrored = draw_view(spec, rng)
  return lambda out: _training_view(source[number], spec, box, mirrored, out)


def _training_view(raw: dict[str, Any], spec: InputSpec, box: ops.Box, mirrored: bool, out: Mapping[str, np.ndarray] | None) -> ops.Sample:
  if spec.crop == "none":
    sample = ops.resize(_decode_for_training(raw, spec, spec.size), spec.size, out)
  else:
    sample = ops.resize(ops.crop(whole_sample(raw, spec), box), spec.size, out)
  return ops.flip(sample, out) if mirrored else sample


def _decode_for_training(raw: dict[str, Any], spec: InputSpec, size: tuple[int, int] = (0, 0)) -> ops.Sample:
  """Decoded; not much larger than `size`, which it is to be resized to, if that is given."""
  if "regions" in raw and spec.crop != "none":
    raise InputError("the regions of an annotation fit whole images only: set config.input.crop='none'")
  return decode_sample(raw, spec.masks, size if spec.scaled_decode else (0, 0))


def whole_sample(raw: dict[str, Any], spec: InputSpec) -> ops.Sample:
  """Decodes one record at the size that training views are cut from: `spec.resize`, or `spec.size` where nothing is cut.

  Raises:
    InputError: The record has regions of an annotation, and views are cut.
  """
  size = whole_size(spec)
  return ops.resize(_decode_for_training(raw, spec, size), size)


def whole_size(spec: InputSpec) -> tuple[int, int]:
  """(H, W) of `whole_sample`, in pixels."""
  return tuple(spec.size if spec.crop == "none" else spec.resize)


def draw_view(spec: InputSpec, rng: np.random.Generator) -> tuple[ops.Box, bool]:
  """The random part of a training view of one image: its box (top, left, height, width) in `whole_sample`; whether it is mirrored."""
  whole = whole_size(spec)
  if spec.crop == "none":
    box = (0, 0, *whole)
  elif spec.crop == "five_position":
    shapes = ops.crop_shapes(whole, spec.heights, max_distort=spec.max_distort, keep_ratio=spec.keep_ratio)
    box = ops.five_position_box(whole, shapes, rng)
  else:
    box = ops.random_square_box(whole, (min(spec.heights), max(spec.heights)), rng)
  return box, bool(spec.flip and rng.integers(2))


def six_views(sample: ops.Sample, spec: InputSpec, rng: np.random.Generator, *, crops: bool) -> list[ops.Sample]:
  """The whole image at `spec.size` and five random crops of that size (Tang et al. 2019).

  Args:
    sample: One image, without masks or points.
    spec: Crops are cut from the image at a shorter side of min(`spec.resize`) pixels.
    rng: Where they are cut.
    crops: False gives the whole image six times.

  Returns:
    Six samples, `image` uint8 [H, W, 3] each, the whole image first.

  Raises:
    InputError: The sample has masks or points, which belong to one view, or the crops do not fit.
  """
  if max(spec.size) > min(spec.resize):
    raise InputError(f"resize: six_view cuts {spec.size[0]}x{spec.size[1]} out of images whose shorter side is {min(spec.resize)}")
  more = [key for key in ("person_mask", "region_mask", "landmarks") if key in sample]
  if more:
    raise InputError(f"crop: six_view does not cut {', '.join(more)}; set config.input.masks=False")
  views = [ops.resize(sample, spec.size)] * (1 if crops else NUM_VIEWS)
  if crops:
    large = ops.short_side_resize(sample, min(spec.resize))
    views += [ops.random_crop(large, spec.size, rng) for _ in range(NUM_VIEWS - 1)]
  return views


def _six_training_views(sample: ops.Sample, spec: InputSpec, rng: np.random.Generator) -> ops.Sample:
  """`image` [6, H, W, 3], each view mirrored or not by itself, and `view_label` [6, L].

  An image without a label of the group is never cropped: its labels are of things that a crop may miss.
  """
  if spec.crop_group is None or len(spec.crop_group) != len(sample["label"]):
    raise ValueError(f"six_view needs crop_group for {len(sample['label'])} labels in training, got {spec.crop_group}")
  group = np.array(spec.crop_group)
  crops = bool((sample["label"][group] == 1).any())
  views = six_views(sample, spec, rng, crops=crops)
  if spec.flip:
    views = [ops.random_flip(view, rng) for view in views]
  keeps = {"group": group, "none": np.zeros_like(group), "all": np.ones_like(group)}[spec.crop_labels]
  cropped = np.arange(NUM_VIEWS)[:, None] >= (1 if crops else NUM_VIEWS)
  label = np.where(cropped & ~keeps, 0, sample["label"]).astype(np.uint8)
  return {**sample, "image": np.stack([view["image"] for view in views]), "view_label": label}


def evaluation_view(raw: dict[str, Any], *, spec: InputSpec, views: str, out: Mapping[str, np.ndarray] | None = None) -> ops.Sample:
  """Decodes one record for evaluation.

  Args:
    raw: Element of a record source.
    spec: Sizes.
    views: One of VIEWS; "ten_crop" has the views of "five_crop".
    out: As in `ops`.

  Returns:
    `image` uint8 [H, W, 3] for "full", [5, H, W, 3] for "five_crop" and "ten_crop", [6, H, W, 3] for "six_view", and the rest.

  Raises:
    InputError: Regions of an annotation in other views than "full", or six views as `six_views` refuses them.
  """
  size = (spec.full_size or spec.resize) if views == "full" else spec.resize
  # Six views are cut at a size that depends on the aspect of the image.
  sample = decode_sample(raw, spec.masks, size if spec.scaled_decode and views != "six_view" else (0, 0))
  if "regions" in sample and views != "full":
    raise InputError(f"the regions of an annotation fit whole images only, not the views {views!r}")
  if views == "full":
    return ops.resize(sample, size, out)
  if views == "six_view":
    rng = np.random.default_rng((_VIEW_SEED, int(sample["id"]) % 2**64))
    return {**sample, "image": np.stack([view["image"] for view in six_views(sample, spec, rng, crops=True)])}
  return ops.five_crop(ops.resize(sample, spec.resize), spec.size, out)


def steps_per_epoch(num_samples: int, batch_size: int) -> float:
  """Steps for one pass over the data, a fraction in general.

  Training reads one endless stream of shuffled epochs: a batch may hold the end
  of one epoch and the start of the next, and no sample is ever dropped.
  """
  return num_samples / batch_size


def _local_size(batch_size: int, process_index: int, process_count: int) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise InputError(f"batch_size: {batch_size} does not divide by the number of processes, {process_count}")
  if not 0 <= process_index < process_count:
    raise InputError(f"process_index: expected 0..{process_count - 1}, got {process_index}")
  return batch_size // process_count


class _HostPart(grain.MapDataset):
  """Of every `batch_size` samples the block of one host, so that hosts side by side give the batch."""

  def __init__(self, parent: grain.MapDataset, batch_size: int, process_index: int, process_count: int):
    super().__init__(parent)
    self._batch_size = batch_size
    self._local = _local_size(batch_size, process_index, process_count)
    self._start = process_index * self._local

  def __len__(self) -> int:
    return len(self._parent) // self._batch_size * self._local

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    step, place = divmod(index, self._local)
    return self._parent[step * self._batch_size + self._start + place]


class _Alternating(grain.MapDataset):
  """Two data sets in turn, the first one's samples at even places; what one of them lacks is unknown in it."""

  def __init__(self, first: grain.MapDataset, second: grain.MapDataset):
    super().__init__((first, second))

  def __len__(self) -> int:
    return min(2 * min(map(len, self.parents)), sys.maxsize)  # endless ones have the largest length there is

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    place, turn = divmod(index, 2)
    return self.parents[turn][place]


def _filled(draw: loader.Draw, num_labels: int) -> loader.Draw:
  return lambda out: _fill(draw(out), num_labels)


def _fill(sample: ops.Sample, num_labels: int) -> ops.Sample:
  """What two data sets share, with unknown labels or regions in place of those that the sample lacks."""
  filled = {key: sample[key] for key in ("image", "id")}
  named = len(sample["label"]) == num_labels
  filled["label"] = sample["label"] if named else np.zeros(num_labels, np.uint8)
  filled["known"] = sample["known"] if named else np.zeros(num_labels, bool)
  filled["region_mask"] = sample.get("region_mask", np.full(sample["image"].shape[:2], regions.UNKNOWN, np.uint8))
  return filled


def _training_stream(source: Sequence[dict[str, Any]], spec: InputSpec, seed: int) -> grain.MapDataset:
  """Endless shuffled epochs of samples to be augmented, as `loader.Draw`s."""
  if not len(source):
    raise InputError("training split: no samples")
  # A graph of numbers: grain keeps statistics of what it reads itself, which costs more than to parse a record.
  return _random_stream(len(source), functools.partial(_plan, source=source, spec=spec), seed)


def _random_stream(count: int, draw: Callable[[int, np.random.Generator], Any], seed: int) -> grain.MapDataset:
  """Endless shuffled epochs of `draw(number, rng)` over 0..count-1; order and random numbers depend on seed and count alone."""
  return grain.MapDataset.range(count).seed(seed).shuffle().repeat().random_map(draw)


def train_dataset(source: Sequence[dict[str, Any]], spec: InputSpec, *, batch_size: int, seed: int, process_index: int = 0,
                  process_count: int = 1, second: Sequence[dict[str, Any]] | None = None) -> loader.Batches:
  """Endless training batches; element i is the local part of global batch i.

  Args:
    source: Random access to raw samples (`registry.RecordSource`).
    spec: Sizes and augmentation.
    batch_size: Global batch size B.
    seed: Decides order and augmentation, 0..2**32-1.
    process_index: This host h; it gets samples h * B / n ... of each batch.
    process_count: Number of hosts n; B must be a multiple.
    second: Samples of another data set, for training on two at once: a batch then holds 2 B samples, those of
      `source` at even places and as many of these at odd ones, with `region_mask`. Unknown is what one of the two
      lacks: labels (`known` False), regions (255).

  Returns:
    Batches by number, dicts of arrays with leading axis B / n: `image` uint8
    [B / n, H, W, 3], `label`, `known`, `id` and what else the samples hold. With "six_view" images are
    [B / n, 6, H, W, 3] and `view_label` uint8 [B / n, 6, L] is what each view shows.

  Raises:
    InputError: B does not divide by n, or a source is empty.
  """
  dataset = _training_stream(source, spec, seed)
  if second is not None:
    batch_size *= 2
    fill = functools.partial(_filled, num_labels=len(source[0]["label"]))
    # An order of its own: with the same one the two would always meet in the same pairs, were they of equal length.
    dataset = _Alternating(dataset.map(fill), _training_stream(second, spec, (seed + 1) % 2**32).map(fill))
  local = _local_size(batch_size, process_index, process_count)
  return loader.Batches(_HostPart(dataset, batch_size, process_index, process_count), local)


def view_dataset(num_samples: int, spec: InputSpec, *, batch_size: int, seed: int, process_index: int = 0,
                 process_count: int = 1) -> loader.Batches:
  """What `train_dataset` draws at random, without the samples: for images that are on a device already.

  Args:
    num_samples: Length of the source.
    spec: As for `train_dataset`; its crop is not "six_view".
    batch_size: Likewise, as all that follow.
    seed: The same seed gives the same samples and views.
    process_index: This host.
    process_count: Number of hosts n.

  Returns:
    Batches by number, dicts of `view` int32 [B / n, 6]: place in the source, top, left, height and width of the box in the
    `whole_sample`, and 1 where the view is mirrored.

  Raises:
    InputError: B does not divide by n.
  """
  def plan(place: int, rng: np.random.Generator) -> loader.Draw:
    box, mirrored = draw_view(spec, rng)
    view = np.array((place, *box, mirrored), np.int32)
    return lambda out: {"view": view}

  local = _local_size(batch_size, process_index, process_count)
  return loader.Batches(_HostPart(_random_stream(num_samples, plan, seed), batch_size, process_index, process_count), local)


def train_iterator(dataset: loader.Batches, start_step: int = 0, num_threads: int = 2) -> Iterator[loader.Batch]:
  """Iterates from global step `start_step` on, decoding in threads ahead of the caller.

  Args:
    dataset: From `train_dataset`.
    start_step: First step; the batches equal those of a run that never stopped.
    num_threads: Threads; about the number of cores. 0 = none, no reading ahead.

  Returns:
    `loader.read`'s iterator, with `close()`.
  """
  return loader.read(dataset, start_step, num_threads=num_threads)


def _evaluation_draw(number: int, source: Sequence[dict[str, Any]], view: Callable[..., ops.Sample]) -> loader.Draw:
  """Sample `number` in source order; beyond the end an invalid one, to fill up the last batch."""
  def draw(out: Mapping[str, np.ndarray] | None) -> ops.Sample:
    if number < len(source):
      return {**view(source[number], out=out), "valid": np.bool_(True)}
    # It cannot leak into a metric: nothing is known about it, its regions are unknown too, and no sample has id -1.
    padding = {key: np.full_like(value, regions.UNKNOWN if key == "region_mask" else 0) for key, value in view(source[0]).items()}
    return {**padding, "id": np.int64(-1), "valid": np.bool_(False)}

  return draw


def eval_dataset(source: Sequence[dict[str, Any]], spec: InputSpec, *, views: str = "full", batch_size: int, process_index: int = 0,
                 process_count: int = 1) -> loader.Batches:
  """Evaluation batches in source order, the same number, ceil(N / B), on every host.

  Args:
    source: Random access to raw samples.
    spec: Sizes.
    views: "full" (whole image, `spec.full_size`), "five_crop" (corners and centre, `spec.size`, of the image at
      `spec.resize`), "ten_crop" (the same five, whose mirrors follow on the device) or "six_view" (`six_views`; an image's crops
      are the same in every run).
    batch_size: Global batch size B in samples.
    process_index: This host.
    process_count: Number of hosts; B must be a multiple.

  Returns:
    Batches by number, dicts of arrays; `image` uint8 [b, H, W, 3] or
    [b, V, H, W, 3] with b = B / process_count; `valid` bool [b] is False for
    padding, whose `id` is -1 and whose `known` is all False. Every sample
    appears once over all hosts.

  Raises:
    InputError: Unknown views, or B does not divide by the number of hosts.
  """
  if views not in VIEWS:
    raise InputError(f"views: expected one of {', '.join(VIEWS)}, got {views!r}")
  view = functools.partial(evaluation_view, spec=spec, views=views)
  local = _local_size(batch_size, process_index, process_count)
  numbers = grain.MapDataset.range(-(-len(source) // batch_size) * batch_size)
  samples = numbers.map(functools.partial(_evaluation_draw, source=source, view=view))
  return loader.Batches(_HostPart(samples, batch_size, process_index, process_count), local)


def eval_iterator(dataset: loader.Batches, num_threads: int = 2, *, max_batches: int | None = None) -> Iterator[loader.Batch]:
  """Iterates once over `dataset` (`eval_dataset`) or its first `max_batches`, decoded in threads ahead of the caller; has `close()`."""
  return loader.read(dataset, stop=max_batches, num_threads=num_threads)
