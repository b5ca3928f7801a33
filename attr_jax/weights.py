"""ResNet weights in and out: torchvision/timm layout, and this project's own names.

Read: `.safetensors`, `.npz`, and `.pth` in torch's zip format. Nothing in a file is
executed: the pickle inside a `.pth` may only build tensors, everything else is refused.

The layouts differ in names and axes alone (values are never touched; half
precision is widened to float32):

  torchvision                     this project, under the trunk's key (mostly "backbone")
  conv1.weight [O, I, h, w]       stem/conv/kernel [h, w, I, O]
  bn1.weight, .bias               stem/bn/scale, bias
  bn1.running_mean, .running_var  stem/bn/mean, var  (in batch_stats)
  layer1.0.conv2.weight           stage1/block0/conv2/kernel
  layer1.0.downsample.0, .1       stage1/block0/shortcut_conv, shortcut_bn
  fc.weight [L, C], fc.bias       classifier/kernel [C, L], bias  (beside the trunk, not in it)

timm's plain resnet18/34/50/101 use the same names. Its variants with deep stems or
average-pooled shortcuts (resnet50d, ...), with groups or with attention do not fit and
are refused. torch's `num_batches_tracked` counters have no counterpart: they are left
out when reading and written as 0.
"""

from collections.abc import Iterator, Mapping
import collections
import dataclasses
import io
import os
import pathlib
import pickle
import re
from typing import Any
import zipfile

from flax import traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from attr_jax import writers
from attr_jax.errors import InputError
from attr_jax.nn.resnet import DEPTHS, BottleneckBlock, ResNet

Tree = Mapping[str, Any]

_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6: pickled magic number
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_MAX_PICKLE_BYTES = 64 << 20  # names and shapes only; ResNet-101 needs 60 KB


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of every tensor of a file; names as in torchvision.

  Attributes:
    used: keys that were taken.
    missing: keys that the model has and the file lacks.
    left_over: keys of the file that the model has no place for.
    mismatched: keys in both with different shapes, mapped to (shape in file, shape in model).
  """

  used: tuple[str, ...]
  missing: tuple[str, ...]
  left_over: tuple[str, ...]
  mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def summary(report: Report) -> str:
  """The report in a few lines for people."""
  lines = [f"weights: {len(report.used)} tensors taken"]
  for title, keys in (("not in the file, kept as they were", report.missing), ("left over in the file", report.left_over)):
    if keys:
      lines.append(f"  {title}: {_shorten(keys)}")
  for key, (there, here) in report.mismatched.items():
    lines.append(f"  not taken: {key} is {list(there)} in the file, {list(here)} in the model")
  return "\n".join(lines)


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The named tensors of a `.safetensors`, `.npz` or zip-format `.pth` file.

  The format is told by the file's content. Wrappers ({"state_dict": ...}) and
  "module." prefixes are taken off, `num_batches_tracked` counters kept.

  Raises:
    InputError: missing, damaged, of another format, without tensors, or a pickle that wants to build anything
      but tensors.
  """
  path = pathlib.Path(path)
  try:
    with path.open("rb") as file:
      head = file.read(16)
  except OSError as error:
    raise InputError(f"{path}: cannot be read: {error.strerror}") from error
  if head.startswith(_LEGACY_TORCH):
    raise InputError(
        f"{path}: torch's old non-zip format is not read; load it once in torch and save it with "
        "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
    )
  try:
    if head.startswith(b"PK"):
      with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        tensors = _read_torch_zip(archive, pickles[0]) if pickles else _read_npz(path)
    elif head[8:9] == b"{":
      tensors = safetensors.numpy.load_file(path)
    else:
      raise InputError(f"{path}: neither .safetensors, .npz nor .pth")
  except InputError as error:
    raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
  except Exception as error:  # a damaged file can fail anywhere in three readers
    raise InputError(f"{path}: damaged or truncated ({type(error).__name__}: {error}); download it again") from error
  tensors = {re.sub(r"^(module\.)+", "", key): value for key, value in tensors.items()}
  if not tensors:
    raise InputError(f"{path}: holds no tensors")
  return tensors


def import_resnet(state_dict: Mapping[str, np.ndarray], params: Tree, batch_stats: Tree) -> tuple[Tree, Tree, Report]:
  """Puts torchvision-layout weights into the ResNet trunk (and classifier) of a model's variables.

  The trunk is `params["backbone"]`, else the one subtree with `stem` and `stage2` to `stage4`, or `params` itself;
  the classifier is `params["classifier"]`. A tensor that does not fit (the 1000-way `fc` of ImageNet) leaves the
  model's own in place and is reported.

  Args:
    state_dict: as of `load_state_dict`.
    params: tree of arrays or ShapeDtypeStructs.
    batch_stats: likewise.

  Returns:
    Both trees with the same structure and dtypes, numpy arrays where taken from the file, and the report.

  Raises:
    InputError: a variant that is no plain ResNet, or no ResNet trunk in `params`.
  """
  _check_plain(state_dict)
  state_dict = _without_counters(state_dict)
  flat = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats})
  used, missing, mismatched = [], [], {}
  for key, path in _torch_names(flat, _find_trunk(params)):
    if key not in state_dict:
      missing.append(key)
      continue
    value = _from_torch(key, state_dict[key])
    here = flat[path]
    if value.shape != here.shape:
      mismatched[key] = (value.shape, tuple(here.shape))
      continue
    flat[path] = value.astype(here.dtype)
    used.append(key)
  left_over = sorted(set(state_dict) - set(used) - set(mismatched))
  tree = traverse_util.unflatten_dict(flat)
  report = Report(tuple(used), tuple(missing), tuple(left_over), mismatched)
  return tree["params"], tree["batch_stats"], report


def export_resnet(params: Tree, batch_stats: Tree) -> dict[str, np.ndarray]:
  """The trunk and the classifier of a model under torchvision's names; the exact inverse of `import_resnet`.

  Args:
    params: tree of arrays.
    batch_stats: likewise.

  Returns:
    Name -> array in torch's layout, kernels [O, I, h, w] and `fc.weight` [L, C].

  Raises:
    InputError: no ResNet trunk in `params`.
  """
  flat = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats})
  state_dict = {}
  for key, path in _torch_names(flat, _find_trunk(params)):
    state_dict[key] = _to_torch(key, np.asarray(flat[path]))
    if key.endswith("running_var"):
      state_dict[key.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
  return state_dict


def save_safetensors(path: str | os.PathLike, params: Tree, batch_stats: Tree, metadata: Mapping[str, str]) -> None:
  """Writes "params/backbone/stem/conv/kernel" and so on; whole or not at all.

  Args:
    path: written beside itself first, then renamed.
    params: tree of arrays.
    batch_stats: likewise, may be empty.
    metadata: strings kept in the file's header.

  Raises:
    InputError: the folder of `path` does not exist.
  """
  save_state_dict(path, traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats}, sep="/"), metadata)


def save_state_dict(path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
  """Writes named tensors, such as those of `export_resnet`; else as `save_safetensors`. InputError where the file's folder is missing."""
  tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}  # scalars stay scalars
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise InputError(f"{path}: its folder does not exist; create it first")
  with writers.whole(path) as partial:
    partial.write_bytes(safetensors.numpy.save(tensors, dict(metadata)))  # save_file makes it readable by its owner alone


def load_safetensors(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
  """(params, batch_stats, metadata) of a file of `save_safetensors`.

  Raises:
    InputError: missing, damaged, or without "params/" names.
  """
  flat = load_state_dict(path)
  if not _is_own(flat):
    raise InputError(f"{path}: holds no 'params/...' names; convert it with `attr-jax import-weights`")
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      metadata = file.metadata() or {}
  except safetensors.SafetensorError as error:
    raise InputError(f"{path}: is no .safetensors file") from error
  tree = traverse_util.unflatten_dict(flat, sep="/")
  return tree["params"], tree.get("batch_stats", {}), metadata


def load_trunk(path: str | os.PathLike, params: Tree, batch_stats: Tree) -> tuple[Tree, Tree, Report]:
  """Starts a model from a file: our own names or torchvision's, by content.

  As `import_resnet`, but every tensor of the trunk must be there and fit.

  Args:
    path: as for `load_state_dict`.
    params: as for `import_resnet`.
    batch_stats: likewise.

  Raises:
    InputError: as `load_state_dict` and `import_resnet`; a file of another depth or width.
  """
  state_dict = load_state_dict(path)
  others: tuple[str, ...] = ()
  if _is_own(state_dict):
    flat = {tuple(name.split("/")): value for name, value in state_dict.items()}
    own = traverse_util.unflatten_dict(flat)
    names = list(_torch_names(flat, _find_trunk(own["params"])))
    taken = {path for _, path in names}
    others = tuple("/".join(path) for path in flat if path not in taken)
    state_dict = {key: _to_torch(key, flat[path]) for key, path in names}
  try:
    params, batch_stats, report = import_resnet(state_dict, params, batch_stats)
    _check_trunk(report, state_dict)
  except InputError as error:
    raise InputError(f"{path}: {error}") from error
  return params, batch_stats, dataclasses.replace(report, left_over=report.left_over + others)


def convert(path: str | os.PathLike, out: str | os.PathLike) -> Report:
  """Reads a torchvision-layout file and writes it under our own names (`attr-jax import-weights`).

  The trunk goes under "backbone", `fc` under "classifier"; the metadata holds `depth`, `width` and `source` (the
  file's name). Depth and width are read off the keys and shapes.

  Args:
    path: as for `load_state_dict`.
    out: the .safetensors file.

  Raises:
    InputError: as `load_trunk`; not one of the depths of `ResNet`; already in our names.
  """
  path = pathlib.Path(path)
  state_dict = load_state_dict(path)
  if _is_own(state_dict):
    raise InputError(f"{path}: is already in this project's names; use it as it is")
  try:
    _check_plain(state_dict)
    depth, width = infer_depth(state_dict), state_dict["conv1.weight"].shape[0]
    params, batch_stats = _template(depth, width, state_dict)
    params, batch_stats, report = import_resnet(state_dict, params, batch_stats)
    _check_trunk(report, state_dict)
  except InputError as error:
    raise InputError(f"{path}: {error}") from error
  save_safetensors(out, params, batch_stats, {"depth": str(depth), "width": str(width), "source": path.name})
  return report


def infer_depth(state_dict: Mapping[str, np.ndarray]) -> int:
  """18, 34, 50 or 101, from the blocks that the keys of a torchvision layout name; the arrays are not looked at.

  Raises:
    InputError: no such ResNet.
  """
  stages = collections.defaultdict(set)
  for key in state_dict:
    if match := re.match(r"layer(\d+)\.(\d+)\.", key):
      stages[int(match[1])].add(int(match[2]))
  blocks = tuple(len(stages[i]) for i in sorted(stages))
  bottleneck = "layer1.0.conv3.weight" in state_dict
  for depth, (block, num_blocks, stem) in DEPTHS.items():
    if stem == "imagenet" and num_blocks == blocks and (block is BottleneckBlock) == bottleneck:
      return depth
  kind = "bottleneck" if bottleneck else "basic"
  known = [depth for depth, row in DEPTHS.items() if row[2] == "imagenet"]
  raise InputError(f"{kind} blocks {list(blocks)} are no ResNet of depth {', '.join(map(str, known))}")


# Names and axes.

_CONV_NAMES = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}
_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _torch_names(flat: Mapping[tuple[str, ...], Any], trunk: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
  """(torchvision key, path in flat) of every tensor of the trunk and of the classifier."""
  for path in flat:
    inner = path[1:]
    if inner[: len(trunk)] == trunk and (key := _torch_name(inner[len(trunk) :])):
      yield key, path
    elif inner in (("classifier", "kernel"), ("classifier", "bias")):
      yield f"fc.{_LEAF_NAMES[inner[1]]}", path


def _torch_name(path: tuple[str, ...]) -> str | None:
  """("stage1", "block0", "bn2", "scale") -> "layer1.0.bn2.weight"; None for what is no part of a trunk."""
  *modules, layer, leaf = path if len(path) >= 2 else ("", "")
  if leaf not in _LEAF_NAMES:
    return None
  leaf = _LEAF_NAMES[leaf]
  if modules == ["stem"]:
    return f"{layer}1.{leaf}"
  name = "/".join(modules)
  if match := re.fullmatch(r"stage(\d)/block(\d+)", name):
    return f"layer{match[1]}.{match[2]}.{_CONV_NAMES.get(layer, layer)}.{leaf}"
  return None


def _from_torch(key: str, value: np.ndarray) -> np.ndarray:
  if value.ndim == 4:
    return value.transpose(2, 3, 1, 0)
  return value.T if key == "fc.weight" else value


def _to_torch(key: str, value: np.ndarray) -> np.ndarray:
  if value.ndim == 4:
    value = value.transpose(3, 2, 0, 1)
  return np.ascontiguousarray(value.T if key == "fc.weight" else value)


def _find_trunk(params: Tree) -> tuple[str, ...]:
  """The path of the ResNet in a model's parameters."""
  parts = {"stem", "stage2", "stage3", "stage4"}  # stage 1 of "tiny" has no parameters
  found = []

  def search(tree: Any, path: tuple[str, ...]) -> None:
    if isinstance(tree, Mapping):
      if parts <= set(tree):
        found.append(path)
      for key, inner in tree.items():
        search(inner, (*path, key))

  search(params, ())
  if ("backbone",) in found:
    return ("backbone",)
  if len(found) != 1:
    names = ", ".join("/".join(path) for path in found) or "none"
    raise InputError(f"the model needs one ResNet trunk, or one called 'backbone'; found: {names}")
  return found[0]


def _template(depth: int, width: int, state_dict: Mapping[str, np.ndarray]) -> tuple[Tree, Tree]:
  """Shapes of a trunk, and of a classifier where the file has one."""
  model = ResNet(depth, width)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
  params = {"backbone": shapes["params"]}
  names = {"kernel": "fc.weight", "bias": "fc.bias"}
  classifier = {
      name: jax.ShapeDtypeStruct(_from_torch(key, state_dict[key]).shape, jnp.float32)
      for name, key in names.items()
      if key in state_dict
  }
  if classifier:
    params["classifier"] = classifier
  return params, {"backbone": shapes["batch_stats"]}


# Checks.


def _is_own(names: Mapping[str, Any]) -> bool:
  return any(name.startswith("params/") for name in names)


def _without_counters(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {key: value for key, value in state_dict.items() if not key.endswith("num_batches_tracked")}


def _check_plain(state_dict: Mapping[str, np.ndarray]) -> None:
  """Refuses what looks like a ResNet but computes something else."""
  if "conv1.0.weight" in state_dict:
    raise InputError("has a deep stem (resnet*c, *d, *s, *t of timm); only the plain ResNet fits, such as timm's resnet50")
  if "conv1.weight" not in state_dict:
    raise InputError(f"is no torchvision-layout ResNet: 'conv1.weight' is missing; its keys: {_shorten(list(state_dict))}")
  for key, value in state_dict.items():
    if key.endswith("downsample.1.weight") and value.ndim == 4:
      raise InputError("has average-pooled shortcuts (a resnet*d of timm); only the plain ResNet fits")
    if match := re.match(r"layer\d+\.\d+\.(?!conv\d\.|bn\d\.|downsample\.[01]\.)(\w+)", key):
      raise InputError(f"has {match[1]!r} inside its blocks ({key}): not the plain ResNet")
    if value.dtype.kind not in "fiu" and value.dtype != ml_dtypes.bfloat16:
      raise InputError(f"{key} is of type {value.dtype}; needs floating-point numbers")


def _check_trunk(report: Report, state_dict: Mapping[str, np.ndarray]) -> None:
  """Refuses a file whose trunk is not the model's."""
  in_trunk = lambda key: re.match(r"(conv1|bn1|layer\d+)\.", key)
  wrong = [key for key in report.mismatched if in_trunk(key)]
  if wrong:
    there, here = report.mismatched[wrong[0]]
    raise InputError(
        f"does not fit the model's trunk: {wrong[0]} is {list(there)} in the file, {list(here)} in the model "
        f"({len(wrong)} such tensors); another depth, width or variant?"
    )
  for keys, where in ((report.missing, "missing in the file"), (report.left_over, "unknown to the model")):
    wrong = [key for key in keys if in_trunk(key)]
    if wrong:
      raise InputError(f"does not fit the model's trunk: {_shorten(wrong)} {where}; another depth?")


def _shorten(keys: Any, count: int = 4) -> str:
  more = f" and {len(keys) - count} more" if len(keys) > count else ""
  return ", ".join(list(keys)[:count]) + more


# Readers.


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(path, allow_pickle=False) as file:
    return {key: file[key] for key in file.files}


class _StorageType(str):
  """What a pickle gets for `torch.FloatStorage`: the name of a numpy dtype."""

  __slots__ = ()


_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class _TensorUnpickler(pickle.Unpickler):
  """Builds numpy arrays from the data.pkl of a torch archive, and nothing else."""

  def __init__(self, archive: zipfile.ZipFile, pickle_name: str):
    info = archive.getinfo(pickle_name)
    if info.file_size > _MAX_PICKLE_BYTES:
      raise InputError(f"its index is {info.file_size} bytes long: no state dict")
    super().__init__(io.BytesIO(archive.read(info)))
    self._archive = archive
    self._folder = pickle_name.removesuffix("data.pkl")

  def find_class(self, module: str, name: str) -> Any:
    if module == "torch" and name in _STORAGES:
      return _StorageType(_STORAGES[name])
    # Fresh lambdas, so that a pickle which sets attributes on them changes nothing here.
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return lambda storage, offset, size, stride, *unused: _strided(storage, offset, size, stride)
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
      return lambda tensor, *unused: tensor
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    raise InputError(
        f"wants to build {module}.{name}: only tensors are read; in torch, save model.state_dict() alone, "
        "best with safetensors.torch.save_file"
    )

  def persistent_load(self, pid: Any) -> np.ndarray:
    kind, storage, key, _, count = pid
    if kind != "storage" or not isinstance(storage, _StorageType):
      raise InputError(f"holds an unknown kind of storage {kind!r}")
    dtype = np.dtype(ml_dtypes.bfloat16 if storage == "bfloat16" else str(storage))
    info = self._archive.getinfo(f"{self._folder}data/{key}")
    # torch stores uncompressed; this bounds memory by the size of the file.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < count * dtype.itemsize:
      raise InputError(f"storage {key} is compressed or too short for its {count} numbers")
    return np.frombuffer(self._archive.read(info), dtype, count)


def _strided(storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
  """The tensor at `offset` of a flat storage, copied; strides count elements."""
  if len(size) != len(stride) or offset < 0 or min((*size, *stride), default=0) < 0:
    raise InputError(f"holds a tensor of impossible size {size} or stride {stride}")
  count = int(np.prod(size, dtype=object))
  last = offset + sum((n - 1) * step for n, step in zip(size, stride))
  # A tensor larger than its storage repeats values, which no state dict does.
  if count and (last >= storage.size or count > storage.size):
    raise InputError(f"holds a tensor of size {size} that reaches out of its storage")
  if not count:
    return np.zeros(size, storage.dtype)
  steps = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()


def _read_torch_zip(archive: zipfile.ZipFile, pickle_name: str) -> dict[str, np.ndarray]:
  order = pickle_name.removesuffix("data.pkl") + "byteorder"
  if order in archive.namelist() and archive.open(order).read(16) != b"little":
    raise InputError("was written by a big-endian machine; re-save it as safetensors")
  value = _TensorUnpickler(archive, pickle_name).load()
  for wrapper in _WRAPPERS:
    if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping):
      value = value[wrapper]
  if not isinstance(value, Mapping):
    raise InputError(f"holds a {type(value).__name__}, not a state dict")
  return {key: tensor for key, tensor in value.items() if isinstance(key, str) and isinstance(tensor, np.ndarray)}
