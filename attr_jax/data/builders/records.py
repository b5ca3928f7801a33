"""What all builders share: photos with targets in, records in source order out.

A builder file only reads annotations. Cutting, shrinking and encoding happen
here in threads (the decoders release the GIL), with a bounded number of photos
in flight, and records go straight to ArrayRecord shards. The writer of
tensorflow_datasets is passed by because it holds a whole split in memory and
needs TensorFlow once that exceeds a gigabyte.
"""

from collections.abc import Callable, Iterable, Iterator
import collections
from concurrent import futures
import contextlib
import dataclasses
import errno
import fcntl
import math
import os
import pathlib
import shutil

from array_record.python import array_record_module
import cv2
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from attr_jax.data import archives
from attr_jax.data import images
from attr_jax.data import info as info_lib
from attr_jax.data import ops
from attr_jax.data import regions
from attr_jax.errors import InputError

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two exclusive
Border = tuple[int, int, int, int]  # pixels added at the top, bottom, left, right

SPLITS = ("train", "val", "test")
STATISTICS_SAMPLES = 2000
MAX_COORDINATE = 1e15  # pixels; finite numbers beyond it could add up to infinity
# One record per group = random access; JPEGs and PNGs do not compress any further.
WRITER_OPTIONS = "group_size:1,uncompressed"
_SHARD_RECORDS = 8192
_LISTED = 1000  # lines of one kind that a report keeps; the counts are always whole


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
  """One labelled sample of a photo.

  Attributes:
    label: uint8 [L], 1 = present.
    known: bool [L], False = unspecified in the source.
    box: (x, y, width, height) in pixels, or None for the whole photo.
    mask: Mask of the pixels that the box touches (`pixel_box`) or of those of
      them inside the photo; 255 = the person. Path of an 8-bit PNG, or a function
      that returns uint8 [h, w]; it is called once, in a worker thread, and may
      raise ImageError, which makes the photo unusable. None = no mask.
    region_mask: Function that returns uint8 [H, W], the class index of every pixel
      of the photo; called as `mask` is. None = no regions.
    landmarks: float32 [5, 2] (x, y) in pixels of the photo; see `attr_jax.data.ops`.
    pad: Give the sample the aspect of the prepared size by black borders, whose
      regions are `regions.UNKNOWN`. Otherwise it keeps its own aspect.
  """

  label: np.ndarray
  known: np.ndarray
  box: tuple[float, float, float, float] | None = None
  mask: pathlib.Path | Callable[[], np.ndarray] | None = None
  region_mask: Callable[[], np.ndarray] | None = None
  landmarks: np.ndarray | None = None
  pad: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Photo:
  """One image file.

  Attributes:
    name: As the source spells it.
    path: Of the image file, on disk or in an archive.
    targets: Its samples.
    size: (height, width) in pixels that boxes and masks refer to; a photo that
      decodes to another size is unusable. None = not stated by the source.
    files: Further files that masks given as functions are made from.
  """

  name: str
  path: archives.File
  targets: tuple[Target, ...]
  size: tuple[int, int] | None = None
  files: tuple[archives.File, ...] = ()


@dataclasses.dataclass(frozen=True)
class Annotations:
  """A whole source, read and checked: no pixel has been touched yet.

  Attributes:
    label_names: [L] in file order.
    splits: Split name -> photos in file order; empty splits are left out.
    deviations: Counts that differ from certain published ones, one line each.
    remarks: Other differences, for the report only.
  """

  label_names: tuple[str, ...]
  splits: dict[str, list[Photo]]
  deviations: tuple[str, ...] = ()
  remarks: tuple[str, ...] = ()

  def have(self, field: str) -> bool:
    """Whether the targets have `field` of `Target` (the reader makes sure: all or none)."""
    return any(getattr(target, field) is not None for photos in self.splits.values() for photo in photos for target in photo.targets)


@dataclasses.dataclass
class Report:
  """What happened to the source on its way; becomes report.json.

  Attributes:
    skipped: Of each unusable photo `file`, `reason` and its number of `samples`.
    clipped_boxes: Samples whose box reached out of the photo.
    clipped: One line for each of the first thousand of them.
    dropped_boxes: Samples whose box covers no pixel.
    dropped: One line for each of the first thousand of them.
    converted: Oddity of a file (`images.ImageHeader`) -> number of photos.
    shrunk: Samples made smaller.
    copied: Samples whose file was kept byte by byte.
    padded: Samples with a border.
    landmarks_outside: Samples with a landmark outside their image.
    photos: Split -> number of photos.
  """

  skipped: list[dict[str, object]] = dataclasses.field(default_factory=list)
  clipped_boxes: int = 0
  clipped: list[str] = dataclasses.field(default_factory=list)
  dropped_boxes: int = 0
  dropped: list[str] = dataclasses.field(default_factory=list)
  converted: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  shrunk: int = 0
  copied: int = 0
  padded: int = 0
  landmarks_outside: int = 0  # samples with a landmark outside their image: are list and images of one kind?
  photos: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class _Cut:
  """One finished sample, or `image` None where its box is empty."""

  target: Target
  image: bytes | None = None
  others: dict[str, object] = dataclasses.field(default_factory=dict)  # masks as PNG and landmarks, by their names in a sample
  clipped: bool = False
  shrunk: bool = False
  copied: bool = False
  padded: bool = False
  landmarks_outside: bool = False
  moments: np.ndarray | None = None  # float64 [2, 3]: means and mean squares of the channels


def pixel_box(box: tuple[float, float, float, float]) -> Box:
  """Pixels that a box (x, y, width, height) in pixels touches, as (left, top, right, bottom), the last two exclusive."""
  x, y, width, height = box
  return math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height)


def clip_box(box: Box, height: int, width: int) -> Box:
  """The part of a box inside a photo of `height` x `width` pixels; right <= left or bottom <= top where there is none."""
  return max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)


def widen(box: tuple[float, float, float, float], margin: float) -> tuple[float, float, float, float]:
  """(x, y, width, height) with a margin on each side, a share of the width or height."""
  x, y, width, height = box
  return x - margin * width, y - margin * height, (1 + 2 * margin) * width, (1 + 2 * margin) * height


def _contains(box: Box, points: np.ndarray) -> bool:
  """Whether all points [N, 2] (x, y; the centre of the first pixel is 0) lie on pixels of a box."""
  return bool((np.rint(points) >= box[:2]).all() and (np.rint(points) < box[2:]).all())


def shrunk_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
  """Smallest (height, width) of the same aspect that covers `size`; never larger than the image."""
  scale = max(size[0] / height, size[1] / width)
  if scale >= 1:
    return height, width
  return max(size[0], round(height * scale)), max(size[1], round(width * scale))


def fitted_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
  """Largest (height, width) of the same aspect that fits into `size`; never larger than the image."""
  scale = min(size[0] / height, size[1] / width, 1.0)
  return max(1, round(height * scale)), max(1, round(width * scale))


def border(height: int, width: int, size: tuple[int, int]) -> Border:
  """Pixels to add on each side so that an image of `height` x `width` has the aspect of `size` (H, W) and stays in the middle."""
  down = max(0, -(-width * size[0] // size[1]) - height)
  right = max(0, -(-height * size[1] // size[0]) - width)
  return down // 2, down - down // 2, right // 2, right - right // 2


def _shrink(image: np.ndarray, size: tuple[int, int], interpolation: int = cv2.INTER_AREA) -> np.ndarray:
  if image.shape[:2] == size:
    return image
  return cv2.resize(image, size[::-1], interpolation=interpolation)


def _add_border(image: np.ndarray, sides: Border, value: int = 0) -> np.ndarray:
  return cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=[value] * 3) if any(sides) else image


def read_mask(path: archives.File) -> np.ndarray:
  """Reads an 8-bit grey PNG as uint8 [H, W].

  Raises:
    ImageError: No usable image; begins with the file's name.
    OSError: Unreadable.
  """
  data = path.read_bytes()
  try:
    images.read_header(data)
    return images.decode_mask(data)
  except images.ImageError as error:
    raise images.ImageError(f"{path.name}: {error}") from None


def _cut_mask(source: pathlib.Path | Callable[[], np.ndarray], box: Box, area: Box) -> np.ndarray:
  """The part of a target's mask that belongs to its crop, 0 around the box; the mask covers all pixels of the box or those inside the photo."""
  mask = source() if callable(source) else read_mask(source)
  inside = max(box[0], area[0]), max(box[1], area[1]), min(box[2], area[2]), min(box[3], area[3])
  left, top, right, bottom = (inside[i] - box[i % 2] for i in range(4))
  if mask.shape == (box[3] - box[1], box[2] - box[0]):
    mask = mask[top:bottom, left:right]
  elif mask.shape != (bottom - top, right - left):
    name = "mask" if callable(source) else f"mask {source.name}"
    raise images.ImageError(
        f"{name} is {mask.shape[1]}x{mask.shape[0]}, its box covers {box[2] - box[0]}x{box[3] - box[1]} pixels")
  return _add_border(mask, (inside[1] - area[1], area[3] - inside[3], inside[0] - area[0], area[2] - inside[2]))


def _cut_regions(source: Callable[[], np.ndarray], shape: tuple[int, int], area: Box) -> np.ndarray:
  """The part of a photo's region mask that belongs to a crop."""
  mask = source()
  if mask.shape != shape:
    raise images.ImageError(f"its regions are {mask.shape[1]}x{mask.shape[0]}, the photo {shape[1]}x{shape[0]} pixels")
  left, top, right, bottom = area
  return mask[top:bottom, left:right]


def _others(target: Target, shape: tuple[int, int], box: Box, area: Box, small: tuple[int, int], sides: Border) -> dict[str, object]:
  """What comes with an image, moved as the image is: the `area` cut from a photo of `shape`, shrunk to `small`, a border on its `sides`.

  Returns:
    By the names in a sample: masks as PNG, landmarks as float32 [5, 2].
  """
  others = {}
  if target.mask is not None:
    mask = _shrink(_cut_mask(target.mask, box, area), small)
    others["person_mask"] = images.encode_png(_add_border(mask, sides))
  if target.region_mask is not None:
    mask = _shrink(_cut_regions(target.region_mask, shape, area), small, cv2.INTER_NEAREST_EXACT)
    others["region_mask"] = images.encode_png(_add_border(mask, sides, regions.UNKNOWN))
  if target.landmarks is not None:
    left, top, right, bottom = area
    points = ops.resize_points(target.landmarks - np.array([left, top], np.float32), (bottom - top, right - left), small)
    others["landmarks"] = points + np.array([sides[2], sides[0]], np.float32)
  return others


def _cut(image: np.ndarray, data: bytes, plain: bool, target: Target, size: tuple[int, int], margin: float, with_moments: bool) -> _Cut:
  """Makes one sample from a decoded photo; `data` are its file's bytes, `plain` = they may be kept."""
  rows, columns = image.shape[:2]
  box = (0, 0, columns, rows) if target.box is None else pixel_box(target.box)
  inside = clip_box(box, rows, columns)
  if inside[2] <= inside[0] or inside[3] <= inside[1] or (target.box is not None and min(target.box[2:]) <= 0):
    return _Cut(target)
  left, top, right, bottom = area = clip_box(pixel_box(widen(target.box, margin)), rows, columns) if target.box is not None else inside
  crop = image[top:bottom, left:right]
  small = (fitted_size if target.pad else shrunk_size)(*crop.shape[:2], size)
  sides = border(*small, size) if target.pad else (0, 0, 0, 0)
  copied = plain and target.box is None and small == (rows, columns) and not any(sides)
  crop = _shrink(crop, small)
  moments = None
  if with_moments:
    mean, deviation = (value[:, 0] / 255 for value in cv2.meanStdDev(crop))
    moments = np.stack([mean, mean**2 + deviation**2])
  return _Cut(
      target,
      image=data if copied else images.encode_jpeg(_add_border(crop, sides)),
      others=_others(target, (rows, columns), box, area, small, sides),
      clipped=box != inside,
      shrunk=small != (bottom - top, right - left),
      copied=copied,
      padded=any(sides),
      landmarks_outside=target.landmarks is not None and not _contains(area, target.landmarks),
      moments=moments,
  )


def _cut_photo(photo: Photo, size: tuple[int, int], margin: float, with_moments: bool) -> tuple[str | None, tuple[str, ...], list[_Cut]]:
  """Decodes a photo once and cuts all its targets.

  Returns:
    (reason or None, oddities of the file, samples). With a reason there are no samples.
  """
  if not photo.targets:
    return None, (), []
  try:
    data = photo.path.read_bytes()
    header = images.read_header(data)
    image = images.decode_image(data, where=photo.name)
    if photo.size not in (None, image.shape[:2]):
      raise images.ImageError(f"{image.shape[1]}x{image.shape[0]} pixels, its annotation says {photo.size[1]}x{photo.size[0]}")
    plain = not header.oddities
    return None, header.oddities, [_cut(image, data, plain, target, size, margin, with_moments) for target in photo.targets]
  except images.ImageError as error:
    return str(error).removeprefix(f"{photo.name}: "), (), []
  except OSError as error:
    return error.strerror or str(error), (), []


def _ordered_map(function: Callable, items: Iterable, workers: int) -> Iterator:
  """Like `map` in threads, in order, with at most 4 x workers results in memory."""
  executor = futures.ThreadPoolExecutor(workers)
  waiting = collections.deque()
  try:
    for item in items:
      waiting.append(executor.submit(function, item))
      if len(waiting) >= 4 * workers:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    executor.shutdown(cancel_futures=True)


class _TfdsInfo(tfds.core.DatasetInfo):
  """Their info without a search for a copy in the cloud, which leaves a folder in /tmp each time."""

  def initialize_from_bucket(self) -> None:
    pass


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A tensorflow_datasets builder over `Annotations`; subclasses implement `read`.

  Subclasses set `name`, `LICENCE`, `CITATION`, `DESCRIPTION`, `GROUPS` (group
  -> label names), `SIZE` (default prepared (H, W)), `RESIZE` and `IMAGE_SIZE`
  (default (H, W) for training). One whose source is split in several ways sets
  their number, `PARTITIONS`, and its `read` takes (source, partition), counted from 1.

  Attributes:
    annotations: What was read from the source.
    report: Filled while records are written.
    labels: Split -> dict of `label` [N, L], `known` [N, L], `id` [N]; filled alike.
    moments: float64 [2, 3], mean and mean square of R, G, B in 0..1 of training images.
  """

  VERSION = tfds.core.Version(info_lib.VERSION)
  PARTITIONS = 1

  @staticmethod
  def read(source: pathlib.Path) -> Annotations:
    """Reads and checks the annotations of a source.

    Raises:
      InputError: The source is not as it should be.
      NotImplementedError: A subclass does not say how.
    """
    raise NotImplementedError

  def __init__(self, *, source: str | pathlib.Path, size: tuple[int, int], partition: int | None = None, margin: float = 0.0,
               max_bad: float = 0.001, workers: int = 2, advance: Callable[[int], object] = lambda count: None, **kwargs):
    """Reads the annotations.

    Args:
      source: Folder of the original download.
      size: (H, W) that a prepared image still covers after shrinking.
      partition: Number from 1; None where there is one fixed split.
      margin: Share of a box's sides that is cut around it too, as far as the photo goes.
      max_bad: Share of unreadable photos from which on nothing is written.
      workers: Threads.
      advance: Called with a number of samples that are done.
      **kwargs: `data_dir` and others of tensorflow_datasets.

    Raises:
      InputError: The source does not look as it should.
    """
    source = pathlib.Path(source)
    if not source.is_dir():
      raise InputError(f"{source}: no such folder; --source must be the folder that holds the files of {self.name}")
    self.annotations = self.read(source) if partition is None else self.read(source, partition)
    _check_files(source, self.annotations)
    self._size, self._margin, self._max_bad, self._workers, self._advance = size, margin, max_bad, workers, advance
    self.report = Report()
    self.labels = {}
    self.moments = np.zeros((2, 3))
    super().__init__(config=tfds.core.BuilderConfig(name=info_lib.folder_name(size, partition, margin)), file_format="array_record", **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    count = len(self.annotations.label_names)
    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "label": tfds.features.Tensor(shape=(count,), dtype=np.uint8),
        "known": tfds.features.Tensor(shape=(count,), dtype=np.bool_),
        "id": tfds.features.Scalar(dtype=np.int64),
    }
    for key, field in (("person_mask", "mask"), ("region_mask", "region_mask")):
      if self.annotations.have(field):
        features[key] = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
    if self.annotations.have("landmarks"):
      features["landmarks"] = tfds.features.Tensor(shape=(5, 2), dtype=np.float32)
    return _TfdsInfo(
        builder=self, description=self.DESCRIPTION, features=tfds.features.FeaturesDict(features), citation=self.CITATION,
        license=self.LICENCE, disable_shuffling=True)

  def _log_download_bytes(self) -> None:
    """Nothing is downloaded; the parent prints two lines here."""

  _log_download_done = _log_download_bytes

  def _split_generators(self, dl_manager):
    del dl_manager  # the source is already on disk
    return {split: self._generate_examples(split) for split in self.annotations.splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
    """Yields (id, example) in source order and keeps the report, labels and moments up to date."""
    photos = self.annotations.splits[split]
    total = sum(len(photos) for photos in self.annotations.splits.values())
    # A few hundred photos more or less do not move a mean: every k-th is enough.
    stride = max(1, sum(len(photo.targets) for photo in photos) // STATISTICS_SAMPLES)
    self.report.photos[split] = len(photos)
    label, known, ids, moments = [], [], [], []
    offset = sum(len(columns["id"]) for columns in self.labels.values())

    def cut(indexed):
      index, photo = indexed
      return photo, *_cut_photo(photo, self._size, self._margin, split == "train" and index % stride == 0)

    for photo, reason, oddities, cuts in _ordered_map(cut, enumerate(photos), self._workers):
      if reason is not None:
        self.report.skipped.append({"file": photo.name, "reason": reason, "samples": len(photo.targets)})
        self._stop_if_too_bad(total, enough=10)
      self.report.converted.update(oddities)
      for number, result in enumerate(cuts):
        where = f"{photo.name} target {number}"
        if result.image is None:
          _note(self.report.dropped, f"{where}: box {list(result.target.box)} covers no pixel")
          self.report.dropped_boxes += 1
          continue
        if result.clipped:
          _note(self.report.clipped, f"{where}: box {list(result.target.box)}")
          self.report.clipped_boxes += 1
        self.report.shrunk += result.shrunk
        self.report.copied += result.copied
        self.report.padded += result.padded
        self.report.landmarks_outside += result.landmarks_outside
        if result.moments is not None:
          moments.append(result.moments)
        example = {"image": result.image, "label": result.target.label, "known": result.target.known, "id": offset + len(ids),
                   **result.others}
        label.append(result.target.label)
        known.append(result.target.known)
        ids.append(example["id"])
        yield example["id"], example
      self._advance(len(photo.targets))
    self._stop_if_too_bad(total, enough=1)
    if not ids:
      raise InputError(f"{self.name}: no usable sample in split {split!r} ({len(photos)} photos)")
    self.labels[split] = {"label": np.stack(label), "known": np.stack(known), "id": np.asarray(ids, np.int64)}
    if split == "train":
      self.moments = np.mean(moments, axis=0)

  def _stop_if_too_bad(self, total: int, enough: int) -> None:
    """Raises once too many photos are unreadable, but not before `enough` of them can be named."""
    skipped = self.report.skipped
    if len(skipped) > self._max_bad * total and len(skipped) >= enough:
      listed = "; ".join(f"{item['file']} ({item['reason']})" for item in skipped[:10])
      raise InputError(
          f"{len(skipped)} or more of {total} photos of {self.name} are unreadable, --max-bad allows {self._max_bad:g} of them: {listed}")

  def _generate_splits(self, dl_manager, download_config):
    """Writes each split in order; returns its facts for dataset_info.json."""
    del download_config
    facts = []
    for split, examples in self._split_generators(dl_manager).items():
      template = self._get_filename_template(split)
      lengths, size = _write_shards((_serialize(example) for _, example in examples), template)
      facts.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    return facts


def _serialize(example: dict[str, object]) -> bytes:
  """A tf.Example with images as bytes, floats as floats and all other arrays as integers.

  The serialiser of tensorflow_datasets writes the same, but holds up the threads that cut for four times as long.
  """
  message = tf_example_pb2.Example()
  feature = message.features.feature
  for key, value in sorted(example.items()):
    if isinstance(value, bytes):
      feature[key].bytes_list.value.append(value)
    elif np.asarray(value).dtype.kind == "f":
      feature[key].float_list.value.extend(np.ravel(value).tolist())
    else:
      feature[key].int64_list.value.extend(np.ravel(value).astype(np.int64).tolist())
  return message.SerializeToString(deterministic=True)


def _write_shards(records: Iterable[bytes], template) -> tuple[list[int], int]:
  """Writes records to numbered shards; returns their lengths and the number of bytes.

  The names hold the number of shards, which is known only at the end, so the
  files are renamed then.
  """
  folder = pathlib.Path(template.data_dir)
  lengths, size, writer = [], 0, None
  for record in records:
    if writer is None or lengths[-1] == _SHARD_RECORDS:
      if writer is not None:
        writer.close()
      writer = array_record_module.ArrayRecordWriter(str(folder / f"shard-{len(lengths)}"), WRITER_OPTIONS)
      lengths.append(0)
    writer.write(record)
    lengths[-1] += 1
    size += len(record)
  writer.close()
  for index in range(len(lengths)):
    (folder / f"shard-{index}").rename(template.sharded_filepath(shard_index=index, num_shards=len(lengths)))
  return lengths, size


def _note(lines: list[str], line: str) -> None:
  if len(lines) < _LISTED:
    lines.append(line)


def _is_file(path: archives.File) -> bool:
  try:
    return path.is_file()
  except OSError as error:
    if error.errno != errno.ENAMETOOLONG:
      raise
    return False


def _check_files(source: pathlib.Path, annotations: Annotations) -> None:
  """Raises InputError where image or mask files are missing, before any work is done."""
  missing, count = [], 0
  for photos in annotations.splits.values():
    for photo in photos:
      for path in (photo.path, *photo.files, *(target.mask for target in photo.targets if isinstance(target.mask, pathlib.Path))):
        count += 1
        if not _is_file(path):
          missing.append(str(path).removeprefix(f"{source}/"))
  if missing:
    raise InputError(f"{source}: {len(missing)} of {count} files that the annotations name are missing, first {', '.join(missing[:5])}")


@contextlib.contextmanager
def temporary_folder(folder: pathlib.Path, busy: str) -> Iterator[pathlib.Path]:
  """An empty folder that is gone afterwards; left-overs of a killed run in it are removed first.

  The lock on the folder ends with its process, so that a left-over can be told
  from a run that is still at work.

  Args:
    folder: Its path; what is finished is renamed out of it, so it lies beside the target.
    busy: End of the error message where another process holds it.

  Raises:
    InputError: Another process holds the folder.
  """
  folder.mkdir(parents=True, exist_ok=True)
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(f"{folder}: another process is {busy}") from None
    except OSError:
      pass  # some network file systems have no locks
    for left_over in folder.iterdir():
      shutil.rmtree(left_over)
    try:
      yield folder
    finally:
      shutil.rmtree(folder, ignore_errors=True)
  finally:
    os.close(descriptor)


def check_relative(name: object, where: str) -> pathlib.PurePosixPath:
  """Returns a file name of an annotation as a path that stays inside its folder.

  Args:
    name: As it stands there.
    where: File and place of it, for the error message.

  Raises:
    InputError: No text, empty, absolute, or it climbs out with "..".
  """
  path = archives.inside(name) if isinstance(name, str) else None
  if path is None:
    raise InputError(f"{where}: {name!r} is not a path inside the data folder; expected a relative one without '..'")
  return path


def relative_paths(names: Iterable[str], where: str) -> list[pathlib.PurePosixPath]:
  """Checks the file names of a list.

  Args:
    names: One per row.
    where: Of the list, for error messages.

  Returns:
    A path for each name.

  Raises:
    InputError: A name that leaves its folder (`check_relative`) or comes twice.
  """
  rows = {}
  for row, name in enumerate(names):
    path = check_relative(name, f"{where} row {row}")
    if path in rows:
      raise InputError(f"{where} row {row}: {name!r} is also row {rows[path]}")
    rows[path] = row
  return list(rows)


def check_label_names(names: tuple[str, ...], where: str) -> None:
  """Refuses a label without a name, or with that of another one; `where` is named in the error.

  Raises:
    InputError: There is such a label.
  """
  for row, name in enumerate(names):
    if not name or name in names[:row]:
      raise InputError(f"{where}: an empty name, or two of one name, in {', '.join(names)}")


def groups_by_start(groups: dict[str, tuple[str, ...]], names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
  """Groups of labels whose names say it themselves.

  Args:
    groups: Group -> how the names of its labels start.
    names: All labels.

  Returns:
    Group -> its labels, in file order; a group may be empty and a label in none (`select_groups` makes it whole).
  """
  return {group: tuple(name for name in names if name.startswith(starts)) for group, starts in groups.items()}


def select_groups(groups: dict[str, tuple[str, ...]], names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
  """Keeps of `groups` the labels that exist, in file order; the rest forms group "other".

  Spelling is compared without case and punctuation, since copies differ in it.

  Args:
    groups: Group -> names of labels.
    names: All labels, as the source spells them.

  Returns:
    Group -> its labels as the source spells them; groups without any are left out.
  """
  def key(name):
    return "".join(filter(str.isalnum, name.casefold()))

  group_of = {key(name): group for group, members in groups.items() for name in members}
  selected = {group: [] for group in [*groups, "other"]}
  for name in names:
    selected[group_of.get(key(name), "other")].append(name)
  return {group: tuple(members) for group, members in selected.items() if members}
