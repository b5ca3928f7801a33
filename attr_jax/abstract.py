"""The training step of any config as shapes alone, to be compiled for devices that are not here. Nothing is computed or read."""

import importlib.util
import os
import re
import types
from typing import Any

import jax
from jax.experimental import topologies
import ml_collections
import numpy as np

from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
from attr_jax.data import pipeline
from attr_jax.data import published
from attr_jax.data import regions
from attr_jax.data.worlds import artwork_labels
from attr_jax.errors import InputError
from attr_jax.models import face

Batch = dict[str, jax.ShapeDtypeStruct]

# Kind of TPU -> number of axes of its torus.
TPUS = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}


def train_step(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> tuple[Any, tuple[state_lib.TrainState, Batch, Any]]:
  """The step that `train_and_evaluate` compiles, and what it takes.

  Labels and training images are those that the data set's authors have published (`data.published.FACTS`), or of a drawn world: the
  data set need not be prepared. The positive ratios of labels are not known then; they are values, which no shape depends on.

  Args:
    config: of the run; its `batch_size` is global.
    mesh: of the devices.

  Returns:
    (step, (state, batch, key)): `step.lower(state, batch, key).compile()` compiles it.

  Raises:
    InputError: what `train_and_evaluate` refuses before it reads data; a data set of which nothing is published.
    ValueError: an unknown depth or such option of the model, which `train_and_evaluate` makes an InputError of.
  """
  config_lib.check(config)
  sharding.check_batch("config.batch_size", config.batch_size, mesh, config.accumulate_steps)
  facts = _facts(config)
  model = models.build(config.model, facts.labels, config.compute_dtype)
  ratios = types.SimpleNamespace(positive_ratio=(0.3,) * facts.labels, known_ratio=(1.0,) * facts.labels)
  objective = train.make_objective(config, ratios)
  schedule = optim.make_schedule(config, config_lib.total_steps(config, facts.train), facts.train)
  trainable = models.trainable_groups(config.model.name, config.loss)
  tx = optim.make_optimizer(config, schedule, trainable)
  memory = models.initial_memory(config.model.name, facts.train, facts.labels)
  state = state_lib.abstract_state(model, tx, (*config.input.size, 3), memory, mesh)
  step = steps.make_train_step(
      model, objective, tx, schedule, config, mesh,
      remember=getattr(models.MODELS[config.model.name], "remember", None), num_train=facts.train, trainable=trainable)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return steps.compile_train_step(step, mesh, state_lib.layout(state, mesh)), (state, batch(config, facts, mesh), key)


def batch(config: ml_collections.ConfigDict, facts: published.Facts, mesh: jax.sharding.Mesh) -> Batch:
  """Shapes of a training batch as the pipeline makes it (`docs/architecture.md`, "A sample"), split over the mesh.

  Args:
    config: of the run.
    facts: of its data set.
    mesh: of the devices.

  Returns:
    Name -> shape with first axis B = `config.batch_size` (twice that with `config.data.second`), dtype and sharding.
  """
  count = config.batch_size * (2 if config.data.second else 1)
  views = (pipeline.NUM_VIEWS,) if config.input.crop == "six_view" else ()
  shapes = {"image": (*views, *config.input.size, 3), "label": (facts.labels,), "known": (facts.labels,), "id": ()}
  if views:
    shapes["view_label"] = (*views, facts.labels)
  if config.data.second:
    shapes["region_mask"] = config.input.size  # and no more: what both data sets have
  elif config.input.masks:
    shapes["region_mask" if facts.region_mask else "person_mask"] = config.input.size
  if facts.landmarks and not config.data.second:
    shapes["landmarks"] = (5, 2)
  if config.data.annotation and config.model.name == "face":
    shapes["regions"] = (*face.grid(config.input.size, config.model.system), len(regions.FaceRegion))
  dtypes = {"known": np.bool_, "id": np.int32, "landmarks": np.float32}
  rows = sharding.over_batch(mesh)
  return {key: jax.ShapeDtypeStruct((count, *shape), dtypes.get(key, np.uint8), sharding=rows) for key, shape in shapes.items()}


def tpu_mesh(topology: str, fsdp: int = 1) -> jax.sharding.Mesh:
  """A mesh of TPU chips that are not here, one device for each; libtpu compiles for it.

  JAX_PLATFORMS=cpu and TPU_SKIP_MDS_QUERY=1 must be set before jax is imported, or jax looks for chips.

  Args:
    topology: kind and torus, such as "v5e:4x4" or "v5p:2x2x1".
    fsdp: how many chips parameters are split over, as in `sharding.make_mesh`.

  Raises:
    InputError: no such topology, a number that does not divide, or libtpu is missing.
  """
  kind, shape = parse_topology(topology)
  if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
    raise InputError("libtpu, the compiler for TPUs, is missing: pip install 'attr_jax[tpu]'")
  options = {"chip_config_name": "megacore"} if kind == "v4" else {}  # else its two cores are devices of their own
  if np.prod(shape) == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
  except RuntimeError as error:  # jax.errors.JaxRuntimeError is one
    raise InputError(f"topology {topology!r}: the compiler refuses it: {' '.join(str(error).split())[:300]}") from error
  if len(devices) != np.prod(shape):
    raise InputError(f"topology {topology!r}: the compiler gives {len(devices)} devices, expected {np.prod(shape)}")
  return sharding.make_mesh(devices, fsdp)


def parse_topology(topology: str) -> tuple[str, tuple[int, ...]]:
  """"v5e:4x4" -> ("v5e", (4, 4)): kind, and chips along each axis of the torus.

  Raises:
    InputError: not of that form, or an unknown kind.
  """
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", topology)
  kind, shape = (match[1], tuple(map(int, match[2].split("x")))) if match else ("", ())
  if kind not in TPUS or len(shape) != TPUS[kind] or 0 in shape:
    forms = ", ".join(f"{name}:{'x'.join('AB' if axes == 2 else 'ABC')}" for name, axes in TPUS.items())
    raise InputError(f"topology {topology!r} is unknown; there are {forms}, such as v5e:4x4 or v5p:2x2x1")
  return kind, shape


def _facts(config: ml_collections.ConfigDict) -> published.Facts:
  name = config.data.name
  if name not in published.FACTS:
    raise InputError(f"config.data.name={name!r}: its labels and images are not known; known are {', '.join(sorted(published.FACTS))}")
  facts = published.FACTS[name]
  if config.data.world:
    labels = len(artwork_labels.LABELS) if config.data.world == "artworks" else facts.labels
    # Fewer images in truth, since some are drawn for val and test.
    return published.Facts(labels, config.data.world_count, facts.region_mask, facts.landmarks)
  return facts
