"""Runs a StableHLO file of `attr-jax export`, without attr_jax: copy this. `pip install jax flatbuffers` (jax.export reads with it)."""

import json

import jax
from jax import export
import numpy as np


def load(path):
  """(predict, metadata): `predict(images)` takes uint8 RGB [N, H, W, 3] of metadata["preprocessing"]["size"], gives float32 [N, labels]."""
  with np.load(path) as file:
    arrays = dict(file)
  metadata = json.loads(str(arrays.pop("metadata")))
  program = jax.jit(export.deserialize(bytearray(arrays.pop("program"))).call)
  weights = jax.device_put(arrays)
  return lambda images: np.asarray(program(weights, images)), metadata
