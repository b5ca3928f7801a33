"""Helpers for config files: defaults, typed arguments, rows of tables, durations, checks.

A config file (`configs/<paper>.py`) has `get_config(arg)` that starts from
`default_config()`, overrides what its paper says, and returns it. Every key
exists in the default, so a misspelt override is refused with a suggestion.

The tables of a paper stand in its config file as `TABLES`, table -> row -> `Row`.
`--config=configs/dahar.py:table3/all,small` applies in this order, what is later wins:
the paper's defaults, shaped by the options that describe the method (`variant`,
`stage`, `design`, `loss`); the overrides of the row; `dataset`; the size (`small`,
`world`, `tiny`); `--config.key=value`. The size changes the trunk, the images, the
data and the recipe, never the parts, the losses or the training split of a row.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from attr_jax.data.published import WIDER_ATTRIBUTES
from attr_jax.errors import InputError

_CHOICES = {
    "data.cache": ("", "device"),
    "input.crop": ("five_position", "random_square", "six_view", "none"),
    "input.crop_labels": ("group", "none", "all"),
    "optimizer.name": ("sgd", "adam", "adagrad", "lars", "lamb"),
    "optimizer.weight_decay_on": ("all", "kernels"),
    "schedule.name": ("constant", "step", "cosine", "plateau"),
    "batch_norm.scope": ("local", "group", "global"),
    "compute_dtype": ("float32", "bfloat16"),
    "evaluate.views": ("full", "five_crop", "ten_crop", "six_view"),
    "evaluate.threshold": ("fixed", "global", "prior", "per_class"),
}
# Keys that a resumed run may change: they do not alter what was trained so far.
_RESUMABLE = ("data.dir", "data.cache", "total_steps", "total_epochs", "total_examples", "log_every_steps",
              "steps_per_dispatch", "fsdp", "evaluate.", "checkpoint.", "input.threads", "tensorboard")

# Crops of whole pedestrians, measured by mA.
PEDESTRIANS = ("pa100k", "peta", "peta_all", "rap", "rap2")
# After DIAA's author: Adam, rate / 10 when validation has not improved for more than 8 epochs, two drops. He does not name
# the metric, the batch or the number of epochs.
_PETA_RECIPE = {
    "data.train_split": "train",
    "optimizer.name": "adam",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 5e-4,
    "schedule.name": "plateau",
    "schedule.patience": 8,
    "schedule.max_drops": 2,
    "total_epochs": 60.0,
}
# The first version has no validation part: the last checkpoint is kept.
_RAP_SPLITS = {"data.train_split": "train", "data.val_split": ""}


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a paper's table: what it prints, and how to run it.

  Attributes:
    paper: view ("full", "five_crop") -> metric -> the printed figure in percent, both under the names of `evaluation/*.json`.
    config: what the row changes in the config of its file, see `override`. None: quoted from a system that this file
      cannot train; `note` then says which.
    note: what one must know to read the figures.
    convention: of `attr_jax.metrics`, under which our figures compare.
    per_attribute: attribute -> printed AP in percent, full view; compares with `AP_interpolated` of the evaluation where
      the convention interpolates ("srn", "diaa"), else with `AP`. {} where only means are printed.
  """

  paper: Mapping[str, Mapping[str, float]]
  config: Mapping[str, Any] | None
  note: str = ""
  convention: str = "native"
  per_attribute: Mapping[str, float] = dataclasses.field(default_factory=dict)


def wider_row(config: Mapping[str, Any] | None, mean: float, *each: float, note: str = "") -> Row:
  """A row of AP in percent on WIDER-Attribute: its mean and, where printed, that of each of WIDER_ATTRIBUTES.

  SRN's evaluation program (Zhu et al. 2017), which interpolates and drops unspecified labels, is the one that its tables go back
  to. `config` and `note` as in `Row`.

  Raises:
    ValueError: some of the attributes' figures are missing.
  """
  per_attribute = dict(zip(WIDER_ATTRIBUTES, each, strict=True)) if each else {}
  return Row({"full": {"mAP": mean}}, config, note, "srn", per_attribute)


def pedestrian_row(config: Mapping[str, Any] | None, mA: float | None = None, Acc: float | None = None,
                   Prec: float | None = None, Rec: float | None = None, F1: float | None = None, *, note: str = "",
                   convention: str = "native") -> Row:
  """A row of the metrics of RAP and PETA in percent; None where nothing is printed. "native" takes F1 of the averaged Prec and Rec.

  `config`, `note` and `convention` as in `Row`.
  """
  figures = {"mA": mA, "Acc": Acc, "Prec": Prec, "Rec": Rec, "F1": F1}
  return Row({"full": {name: figure for name, figure in figures.items() if figure is not None}}, config, note, convention)


def default_config() -> ml_collections.ConfigDict:
  """Every key a run knows, with its default."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.batch_size = 32  # global, over all devices and hosts
  # How long to train. The first one set of *_steps, *_examples, *_epochs counts.
  config.total_steps = config_dict.placeholder(int)
  config.total_examples = config_dict.placeholder(int)
  config.total_epochs = 24.0
  config.accumulate_steps = 1  # micro-batches per update; BN sees one micro-batch
  # Updates that the device does in one go. More than one saves the start of programs that take about as long as their work: small
  # batches on a GPU. XLA runs them several times slower on a CPU.
  config.steps_per_dispatch = 1
  # Devices over which parameters and optimiser state are split; 1: each has all of them. Losses are the same.
  config.fsdp = 1
  config.compute_dtype = "float32"  # parameters, statistics and losses stay float32
  config.batch_norm = ml_collections.ConfigDict()
  # Whose images share statistics: those of a device ("local", which needs no communication in the layers), of `group_size`
  # neighbouring devices ("group") or all of the batch ("global": the same run on any number of devices).
  config.batch_norm.scope = "local"
  config.batch_norm.group_size = 1
  # Weights to start from: a ResNet file (of import-weights, .safetensors, .npz, .pth) or the folder of an earlier run.
  config.weights = ""
  config.log_every_steps = 20
  config.tensorboard = False

  config.data = ml_collections.ConfigDict()
  config.data.name = "wider_attribute"
  config.data.second = ""  # a data set that a method learns from beside it: joint face parsing
  config.data.dir = "data"
  config.data.size = config_dict.placeholder(str)  # prepared size, "256" or "256x128"; None: the only one there
  config.data.partition = config_dict.placeholder(int)  # of a data set with several splits (RAP, PETA), from 1; None: the first
  config.data.margin = 0.0  # what `prepare --margin` left around each box
  config.data.train_split = "train"
  config.data.val_split = "val"  # "" trains without validation
  config.data.test_split = "test"  # "" ends without a test
  config.data.annotation = ""  # name of what `attr-jax annotate` wrote beside the prepared data: its masks replace the data set's own
  config.data.cache = ""  # "device": keep the training split on the devices as uint8 where it fits, and cut the views there
  # Draw and prepare a synthetic world when the prepared data are missing: "", "people" (also "people_alone",
  # "people_crowded"), "faces" (also "faces_loose") or "artworks".
  config.data.world = ""
  config.data.world_count = 0
  config.data.world_seed = 0

  config.input = ml_collections.ConfigDict()
  config.input.resize = (256, 256)  # height, width before cropping
  config.input.size = (224, 224)  # height, width of the network's input
  config.input.full_size = (224, 224)  # height, width of the "full" evaluation view
  config.input.crop = "five_position"
  config.input.crop_sizes = (256, 224, 192, 168, 128)  # heights; widths in proportion to `resize`
  config.input.max_distort = config_dict.placeholder(int)  # None: height and width drawn independently
  config.input.crop_group = ""  # six_view: images with a label of this group are cropped; the group's name in the data set
  config.input.crop_labels = "group"  # six_view: what labels its crops keep, those of the group, "none" or "all"
  config.input.keep_ratio = False  # True: crops keep the aspect of `resize` (pedestrians)
  config.input.flip = True
  config.input.scaled_decode = False  # True: JPEGs much larger than needed are decoded at a smaller scale
  config.input.masks = False  # True for models that learn from masks
  config.input.brightness = 0.0
  config.input.contrast = 0.0
  config.input.saturation = 0.0
  config.input.hue = 0.0
  config.input.mean = (0.485, 0.456, 0.406)  # of ImageNet, as its checkpoints expect
  config.input.std = (0.229, 0.224, 0.225)
  config.input.threads = 2

  config.model = ml_collections.ConfigDict()
  config.model.name = "baseline"
  config.model.depth = "50"

  config.loss = ml_collections.ConfigDict()
  config.loss.loss = "bce"
  config.loss.unspecified = "negative"  # or "ignore": no loss on unspecified labels
  config.loss.reduction = "sum_labels_mean_samples"

  config.optimizer = ml_collections.ConfigDict()
  config.optimizer.name = "sgd"
  config.optimizer.learning_rate = 0.001
  config.optimizer.momentum = 0.9
  config.optimizer.nesterov = False
  config.optimizer.weight_decay = 5e-4
  config.optimizer.weight_decay_on = "all"  # the torch rule; or "kernels": neither BN nor biases (large batches)
  config.optimizer.clip_norm = 0.0  # 0: off
  config.optimizer.ema_decay = 0.0  # 0: off; else evaluation and predictions use the average

  config.schedule = ml_collections.ConfigDict()
  config.schedule.name = "step"
  config.schedule.factor = 0.1
  config.schedule.at_epochs = (12.0, 20.0)  # step: where the rate is multiplied by factor
  config.schedule.warmup_epochs = 0.0
  config.schedule.patience = 10  # plateau: evaluations without improvement before a drop
  config.schedule.max_drops = 3

  config.evaluate = ml_collections.ConfigDict()
  config.evaluate.every_epochs = 1.0
  config.evaluate.views = "full"
  config.evaluate.batch_size = 64
  # Above it a label counts as there: "fixed" (of the metrics' convention), or searched on val for the highest F2 averaged over
  # images: "global", "prior" (in proportion to a power of the label's share) or "per_class".
  config.evaluate.threshold = "fixed"
  config.evaluate.select = "mAP"  # the validation metric that picks the best checkpoint
  config.evaluate.max_samples = 0  # 0: the whole split

  config.checkpoint = ml_collections.ConfigDict()
  config.checkpoint.every_epochs = 1.0
  config.checkpoint.every_steps = config_dict.placeholder(int)  # counts before every_epochs
  return config


def parse_arg(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
  """Typed options of `--config=file.py:depth=101,fast`.

  Args:
    arg: what stands behind the colon; None or "" gives the defaults.
    **defaults: name -> default; its type is the option's type. A bare name is True.

  Returns:
    Name -> value, for all of `defaults`.

  Raises:
    InputError: unknown option or a value of the wrong type.
  """
  options = ml_collections.ConfigDict(defaults)
  for part in filter(None, (arg or "").split(",")):
    name, has_value, text = part.partition("=")
    if name not in defaults:
      raise InputError(f"config option {name!r} is unknown; there are: {', '.join(defaults) or 'none'}")
    kind = type(defaults[name])
    if not has_value:
      if kind is not bool:
        raise InputError(f"config option {name!r} needs a value: {name}=...")
      options[name] = True
      continue
    try:
      options[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
      raise InputError(f"config option {name}={text!r} is not a {kind.__name__}") from None
  return options


def parse_row(arg: str | None, tables: Mapping[str, Mapping[str, Row]],
              **defaults: Any) -> tuple[ml_collections.ConfigDict, Row | None]:
  """Options as `parse_arg` gives them, and the row that `--config=file.py:table3/all,small` names, anywhere among them.

  Args:
    arg: what stands behind the colon.
    tables: the file's `TABLES`.
    **defaults: as for `parse_arg`.

  Returns:
    The options, and the row or None.

  Raises:
    InputError: as `parse_arg`; no such row, two rows, or a quoted one.
  """
  parts = (arg or "").split(",")
  names = [part for part in parts if "/" in part and "=" not in part]
  options = parse_arg(",".join(part for part in parts if part not in names), **defaults)
  if not names:
    return options, None
  if len(names) > 1:
    raise InputError(f"config rows {' and '.join(names)}: a run is one row")
  table, _, name = names[0].partition("/")
  if table not in tables:
    raise InputError(f"config table {table!r} is unknown; there are: {', '.join(tables) or 'none'}")
  if name not in tables[table]:
    raise InputError(f"config row {name!r} is unknown; {table} has: {', '.join(tables[table])}")
  row = tables[table][name]
  if row.config is None:
    raise InputError(f"config row {names[0]} cannot be run: it is quoted from {row.note}")
  return options, row


def choice(option: str, name: str, known: Mapping[str, Any]) -> Any:
  """known[name], where `option` of the config argument has the value `name`.

  Raises:
    InputError: no such value.
  """
  if name not in known:
    raise InputError(f"config option {option}={name!r} is unknown; known: {', '.join(known)}")
  return known[name]


def override(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
  """Sets keys in place.

  Args:
    config: what to change.
    values: dotted key -> value; a mapping replaces a whole section, so that a row can put another model in its place.

  Raises:
    InputError: a key that the config does not have.
  """
  for path, value in values.items():
    *sections, name = path.split(".")
    section = _get(config, ".".join(sections)) if sections else config
    if name not in section:
      raise InputError(f"config.{path} cannot be set: there is no such key")
    section[name] = ml_collections.ConfigDict(value) if isinstance(value, Mapping) else value


def plain_resnet() -> dict[str, Any]:
  """Overrides that put ResNet-101 with one classifier and plain cross-entropy in the place of a paper's model and losses."""
  default = default_config()
  return {"model": default.model.to_dict() | {"depth": "101"}, "loss": default.loss.to_dict()}


def dataset(name: str, *, fixed_size: bool) -> dict[str, Any]:
  """Overrides that put a data set in the place of a paper's own.

  PA-100K and RAP are taken at height = 2 x width (Wu et al. 2020 for RAP), PETA at 224x224 with a recipe of its own
  (Sarafianos et al. 2018). PETA, PA-100K and RAP select checkpoints by mA; RAP's first version has nothing to select on.

  Args:
    name: as in `config.data.name`.
    fixed_size: the model has kernels as large as its maps, so the full view has the size of the training crops.

  Returns:
    Dotted key -> value, for `override`.
  """
  tall = name in ("pa100k", "rap", "rap2")
  resize, size = ((256, 128), (224, 112)) if tall else ((256, 256), (224, 224))
  values = {
      "data.name": name,
      "data.val_split": "val",
      "input.resize": resize,
      "input.size": size,
      "input.full_size": size if fixed_size else resize,
      "input.keep_ratio": tall,
      "evaluate.select": "mA" if name in PEDESTRIANS else "mAP",
  }
  return values | {"peta": _PETA_RECIPE, "peta_all": _PETA_RECIPE, "rap": _RAP_SPLITS}.get(name, {})


def resolve(config: ml_collections.ConfigDict, options: ml_collections.ConfigDict, row: Row | None, *,
            fixed_size: bool = False) -> ml_collections.ConfigDict:
  """A paper's config as its argument asks: the row, then `options.dataset` unless it is "", then the size (`at_size`).

  Args:
    config: the paper's.
    options: `dataset`, `small`, `world`, `tiny`.
    row: of `parse_row`.
    fixed_size: see `dataset`.

  Returns:
    The same config, changed in place.

  Raises:
    InputError: as `override`.
  """
  if row:
    override(config, row.config)
  if options.dataset:
    override(config, dataset(options.dataset, fixed_size=fixed_size))
  return at_size(config, options)


def at_size(config: ml_collections.ConfigDict, options: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A paper's config as it is, or made smaller in place, by the options that its file shares with the others (sizes: our choice).

  `options.small`: `small`. `options.world`: 9,000 drawn people in place of
  WIDER-Attribute. `options.tiny`: `tiny`, on 120 drawn people.
  """
  if options.small:
    config = small(config)
  if options.world:
    config = _on_drawn_people(config, 9000)
  return _on_drawn_people(tiny(config), 120) if options.tiny else config


def small(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The same config, with a tiny trunk on images a quarter as large, from scratch: minutes on a laptop (our choice)."""
  config.model.depth = "tiny"
  for key in ("resize", "size", "crop_sizes"):
    config.input[key] = tuple(side // 4 for side in config.input[key])
  config.input.crop_sizes = config.input.crop_sizes[:3]  # the smaller ones show too little
  config.input.full_size = config.input.size  # a small trunk from scratch knows one scale only
  config.batch_size = 32
  config.total_epochs = 20.0
  config.optimizer.learning_rate = 0.002 if config.optimizer.name == "adam" else 0.01
  config.optimizer.clip_norm = 10.0
  config.schedule.name = "cosine"
  config.schedule.warmup_epochs = 1.0
  return config


def _on_drawn_people(config: ml_collections.ConfigDict, count: int) -> ml_collections.ConfigDict:
  """Trains on drawn people in place of WIDER-Attribute, prepared at the size that the input needs."""
  config.data.name, config.data.world, config.data.world_count = "wider_attribute", "people", count
  config.data.size = "x".join(map(str, config.input.resize))
  return config


def tiny(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The same config, shrunk so that it takes two steps on a CPU in seconds."""
  config.batch_size = 8
  config.accumulate_steps = min(config.accumulate_steps, 2)
  config.total_steps = 2
  config.log_every_steps = 1
  config.model.depth = "tiny"
  config.evaluate.batch_size = 8
  config.evaluate.max_samples = 16
  scale = 32 / config.input.size[0]
  for key in ("resize", "size", "full_size"):
    config.input[key] = tuple(max(8, round(v * scale)) for v in config.input[key])
  config.input.crop_sizes = tuple(max(8, round(v * scale)) for v in config.input.crop_sizes)
  return config


def total_steps(config: Mapping[str, Any], num_train: int) -> int:
  """Number of updates for `num_train` samples: the first one set of total_steps, total_examples (rounded up), total_epochs (rounded)."""
  if config.total_steps is not None:
    return config.total_steps
  if config.total_examples is not None:
    return -(-config.total_examples // config.batch_size)
  return max(1, round(config.total_epochs * num_train / config.batch_size))


def epochs_to_steps(epochs: float, num_train: int, batch_size: int) -> int:
  """Updates in that many epochs of `num_train` samples, `batch_size` in each, at least 1 (0 epochs is 0)."""
  return max(1, round(epochs * num_train / batch_size)) if epochs > 0 else 0


def check(config: ml_collections.ConfigDict) -> None:
  """Refuses values that no run can use.

  Raises:
    InputError: names the key and what it may be.
  """
  for key, allowed in _CHOICES.items():
    value = _get(config, key)
    if value not in allowed:
      raise InputError(f"config.{key}={value!r}; allowed: {', '.join(name or 'empty' for name in allowed)}")
  for key in ("batch_size", "accumulate_steps", "steps_per_dispatch", "fsdp", "log_every_steps", "evaluate.batch_size"):
    if _get(config, key) < 1:
      raise InputError(f"config.{key}={_get(config, key)} must be at least 1")
  for key in ("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.clip_norm"):
    if _get(config, key) < 0:
      raise InputError(f"config.{key}={_get(config, key)} must not be negative")
  if config.batch_size % config.accumulate_steps:
    raise InputError(f"config.batch_size={config.batch_size} does not divide by accumulate_steps={config.accumulate_steps}")
  if config.data.second and config.accumulate_steps > 1:
    raise InputError("config.accumulate_steps must be 1 with config.data.second: a micro-batch would hold one data set alone")
  if config.schedule.name == "plateau" and not config.data.val_split:
    raise InputError("config.schedule.name='plateau' needs config.data.val_split")


def is_off(value: float | None) -> bool:
  """Whether a weight, decay or norm is None or zero, so that the program does without it.

  One that is traced (`attr_jax.packed`: another value in each trial of one program) is not off.
  """
  return value is None or isinstance(value, (int, float)) and value == 0


def to_json(config: ml_collections.ConfigDict) -> str:
  """The resolved config, as `config.json` of a run."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ml_collections.ConfigDict:
  """The config of a run's `config.json`; lists become tuples again. ValueError where the text is no JSON."""
  return ml_collections.ConfigDict(_lists_to_tuples(json.loads(text)))


def differences(old: ml_collections.ConfigDict, new: ml_collections.ConfigDict) -> list[str]:
  """Lines "key: old -> new" for what a resumed run must not change."""
  flat_old, flat_new = flatten(old), flatten(from_json(to_json(new)))
  keys = sorted(flat_old.keys() | flat_new.keys())
  return [
      f"{key}: {flat_old.get(key)} -> {flat_new.get(key)}"
      for key in keys
      if flat_old.get(key) != flat_new.get(key) and not key.startswith(_RESUMABLE)
  ]


def _get(config: ml_collections.ConfigDict, key: str) -> Any:
  for part in key.split("."):
    config = config[part]
  return config


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Dotted key -> value, of all sections."""
  return _flatten(config.to_dict())


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def _lists_to_tuples(value: Any) -> Any:
  if isinstance(value, list):
    return tuple(map(_lists_to_tuples, value))
  if isinstance(value, dict):
    return {k: _lists_to_tuples(v) for k, v in value.items()}
  return value
