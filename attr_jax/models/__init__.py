"""The models, by the name that configs use."""

from collections.abc import Mapping
import inspect
from types import ModuleType
from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from attr_jax.errors import InputError
from attr_jax.models import attncnn_rnn
from attr_jax.models import baseline
from attr_jax.models import dahar
from attr_jax.models import diaa
from attr_jax.models import face
from attr_jax.models import person_segmenter
from attr_jax.models import srn
from attr_jax.models import vac

MODELS: dict[str, ModuleType] = {
    "attncnn_rnn": attncnn_rnn,
    "baseline": baseline,
    "dahar": dahar,
    "diaa": diaa,
    "face": face,
    "person_segmenter": person_segmenter,
    "srn": srn,
    "vac": vac,
}


def build(options: Mapping[str, Any], num_labels: int, dtype: Any = "float32") -> nn.Module:
  """The model that `config.model` describes.

  Args:
    options: `name`, a key of MODELS; every other key is an argument of its `Model`.
      `depth` may be a string, as command lines give it ("50", "tiny").
    num_labels: L.
    dtype: of the computation ("float32", "bfloat16").

  Returns:
    The module, without parameters.

  Raises:
    InputError: an unknown name or option.
  """
  options = dict(options)
  name = options.pop("name")
  if name not in MODELS:
    raise InputError(f"config.model.name={name!r} is unknown; known: {', '.join(MODELS)}")
  model = MODELS[name].Model
  accepted = set(inspect.signature(model).parameters) - {"num_labels", "dtype", "parent", "name"}
  for key in options:
    if key not in accepted:
      raise InputError(f"config.model.{key} is unknown to model {name!r}; it takes: {', '.join(sorted(accepted))}")
  if str(options.get("depth")).isdigit():
    options["depth"] = int(options["depth"])
  return model(num_labels=num_labels, dtype=jnp.dtype(dtype), **options)


def initial_memory(name: str, num_train: int, num_labels: int) -> Any:
  """What the method `name` carries between steps, before the first, for a training split of num_train images; {} for most."""
  init = getattr(MODELS[name], "init_memory", None)
  return init(num_train, num_labels) if init else {}


def trainable_groups(name: str, loss: Mapping[str, Any]) -> tuple[str, ...] | None:
  """Top-level parameter groups that `config.loss.stage` trains; None: all of them."""
  groups = getattr(MODELS[name], "TRAINABLE", None)
  return groups.get(loss["stage"]) if groups and "stage" in loss else None
