"""The data sets by name, and reading what `prepare` has written."""

from collections.abc import Sequence
import dataclasses
import pathlib
import re

from array_record.python import array_record_data_source
import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from attr_jax.data import annotations
from attr_jax.data import info as info_lib
from attr_jax.data.builders import celeba
from attr_jax.data.builders import celebamask_hq
from attr_jax.data.builders import coco
from attr_jax.data.builders import coco_person
from attr_jax.data.builders import helen
from attr_jax.data.builders import imet2019
from attr_jax.data.builders import lfwa
from attr_jax.data.builders import own_photos
from attr_jax.data.builders import pa100k
from attr_jax.data.builders import peta
from attr_jax.data.builders import rap
from attr_jax.data.builders import wider_attribute
from attr_jax.errors import InputError

DATASETS: dict[str, type] = {
    "celeba": celeba.Builder,
    "celeba_aligned": celeba.AlignedBuilder,
    "celebamask_hq": celebamask_hq.Builder,
    "coco": coco.Builder,
    "coco_person": coco_person.Builder,
    "helen": helen.Builder,
    "imet2019": imet2019.Builder,
    "lfwa": lfwa.Builder,
    "own_photos": own_photos.Builder,
    "pa100k": pa100k.Builder,
    "peta": peta.Builder,
    "peta_all": peta.AllBuilder,
    "rap": rap.Builder,
    "rap2": rap.Builder2,
    "wider_attribute": wider_attribute.Builder,
}


class RecordSource(Sequence):
  """Random access to prepared records, images still encoded.

  `source[i]` is a dict: `image` JPEG bytes, `label` uint8 [L], `known` bool
  [L], `id` int64 scalar and, where the data set has them, `person_mask` and
  `region_mask` PNG bytes and `landmarks` float32 [5, 2]. With
  `annotation`, a key and files, that key is record i of those files. Safe to
  share between threads; pickles as lists of paths.
  """

  def __init__(self, paths: Sequence[str], annotation: tuple[str, Sequence[str]] | None = None):
    """`paths` are ArrayRecord files, read one after the other; `annotation` is of `annotations.paths`."""
    self._records = array_record_data_source.ArrayRecordDataSource(list(paths))
    self._key, files = annotation or ("", ())
    self._masks = array_record_data_source.ArrayRecordDataSource(list(files)) if files else None

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, object]:
    index = range(len(self))[index]
    sample = _parse(self._records[index])
    if self._masks is not None:
      sample[self._key] = self._masks[index]
    return sample


def _parse(record: bytes) -> dict[str, object]:
  """A serialised tf.Example as raw sample; the generic parser is several times slower. Arrays are read-only."""
  feature = tf_example_pb2.Example.FromString(record).features.feature
  sample = {
      "image": feature["image"].bytes_list.value[0],
      # By way of bytes: numpy would convert the numbers one by one.
      "label": np.frombuffer(bytes(feature["label"].int64_list.value), np.uint8),
      "known": np.frombuffer(bytes(feature["known"].int64_list.value), np.bool_),
      "id": np.int64(feature["id"].int64_list.value[0]),
  }
  for key in ("person_mask", "region_mask"):
    if key in feature:
      sample[key] = feature[key].bytes_list.value[0]
  if "landmarks" in feature:
    sample["landmarks"] = np.array(feature["landmarks"].float_list.value, np.float32).reshape(-1, 2)
  return sample


@dataclasses.dataclass(frozen=True)
class Dataset:
  """One prepared data set: its folder `path` and its facts `info`."""

  path: pathlib.Path
  info: info_lib.DatasetInfo

  def source(self, split: str, annotation: str = "") -> RecordSource:
    """Opens a split ("train", "val", "test") or several in a row ("train+val").

    Args:
      split: Name or sum of names.
      annotation: Name of predicted masks (`annotations.write`); every sample then
        has these as `person_mask`, not its own, or as `regions`. Their size may
        differ from the image's. "" = the masks of the data set, if any.

    Raises:
      InputError: An unknown or repeated split, its files are missing, or the
        annotation is missing or does not fit.
    """
    paths, names = [], self._names(split)
    for name in names:
      shards = sorted(self.path.glob(f"*-{name}.array_record-*-of-*"))
      if not shards or len(shards) != int(shards[0].name.rsplit("-", 1)[1]):
        raise InputError(f"{self.path}: record files of split {name!r} are missing; prepare the data set again with --overwrite")
      paths.extend(map(str, shards))
    counts = {name: self.info.splits[name] for name in names}
    return RecordSource(paths, annotations.paths(self.path, annotation, counts, dataset=self.info.name) if annotation else None)

  def labels(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (label uint8 [N, L], known bool [N, L], id int64 [N]) without touching images.

    Raises:
      InputError: An unknown or repeated split.
    """
    with np.load(self.path / "labels.npz", allow_pickle=False) as stored:
      return tuple(np.concatenate([stored[f"{name}_{key}"] for name in self._names(split)]) for key in ("label", "known", "id"))

  def _names(self, split: str) -> list[str]:
    names = split.split("+")
    if len(set(names)) < len(names) or not set(names) <= set(self.info.splits):
      raise InputError(f"split: {self.info.name} has {', '.join(self.info.splits)} and sums such as train+val, got {split!r}")
    return names


def builder_class(name: str) -> type:
  """Returns DATASETS[name].

  Raises:
    InputError: No such data set.
  """
  if name not in DATASETS:
    raise InputError(f"unknown data set {name!r}; there are {', '.join(sorted(DATASETS))}")
  return DATASETS[name]


def choose_partition(name: str, partition: int | None) -> int | None:
  """Which partition of a data set is meant.

  Args:
    name: Key of `DATASETS`.
    partition: Its number from 1, or None.

  Returns:
    The number (1 where none is given), or None for a data set that comes with one fixed split.

  Raises:
    InputError: No such data set or partition.
  """
  count = builder_class(name).PARTITIONS
  if count == 1:
    if partition is not None:
      several = ", ".join(key for key, builder in sorted(DATASETS.items()) if builder.PARTITIONS > 1)
      raise InputError(f"partition: {name} has one fixed split; those with a choice are {several}")
    return None
  partition = 1 if partition is None else partition
  if partition not in range(1, count + 1):
    raise InputError(f"partition: {name} has 1 to {count}, got {partition}")
  return partition


def version_folder(name: str, data_dir: str | pathlib.Path, size: tuple[int, int], partition: int | None = None,
                   margin: float = 0.0) -> pathlib.Path:
  """Folder of a prepared data set, such as `data/pa100k/256x128/1.0.0` or `data/rap/256x128-partition2/1.0.0`.

  Args:
    name: Key of `DATASETS`.
    data_dir: Folder that was given to `prepare`.
    size: (H, W) in pixels.
    partition: As in `info.form_suffix`.
    margin: Likewise.
  """
  return pathlib.Path(data_dir) / name / info_lib.folder_name(size, partition, margin) / info_lib.VERSION


def open_dataset(name: str, data_dir: str | pathlib.Path, size: int | str | tuple[int, int] | None = None,
                 partition: int | None = None, margin: float = 0.0) -> Dataset:
  """Opens a prepared data set.

  Args:
    name: Key of `DATASETS`.
    data_dir: Folder that was given to `prepare`.
    size: Prepared size ((H, W), "256x128", 256). None takes the only one that is
      there, or the default size of the data set among several.
    partition: Number from 1 of a partition, for a data set that has several; None = the first one.
    margin: What `prepare` left around each box, as a share of its sides.

  Raises:
    InputError: Not prepared (the message names the command), `size` is needed, or no such partition.
  """
  builder = builder_class(name)
  partition = choose_partition(name, partition)
  suffix = info_lib.form_suffix(partition, margin)
  if size is not None:
    folder = version_folder(name, data_dir, info_lib.as_size(size), partition, margin)
  else:
    found = sorted(path for path in pathlib.Path(data_dir).glob(f"{name}/*/{info_lib.VERSION}/info.json")
                   if re.fullmatch(rf"\d+x\d+{re.escape(suffix)}", path.parts[-3]))
    folder = version_folder(name, data_dir, builder.SIZE, partition, margin)
    if len(found) == 1:
      folder = found[0].parent
    elif found and folder / "info.json" not in found:
      raise InputError(f"{data_dir}: {name} is prepared as {', '.join(path.parts[-3] for path in found)}; choose one with size")
  if not (folder / "info.json").is_file():
    wish = "" if size is None else f" --size={info_lib.size_name(info_lib.as_size(size))}"
    wish += f" --margin={margin:g}" if margin else ""
    wish += f" --partition={partition}" if info_lib.form_suffix(partition) else ""
    raise InputError(f"{folder}: not prepared; run: attr-jax prepare {name} --source=DIR --data-dir={data_dir}{wish}")
  return Dataset(folder, info_lib.DatasetInfo.from_json((folder / "info.json").read_text(), where=str(folder / "info.json")))
