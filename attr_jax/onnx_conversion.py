"""Converts a safetensors export to ONNX and runs it: `attr-jax export --to=onnx` starts this in an environment of its own.

  python -m attr_jax.onnx_conversion MODEL.safetensors CHECK.npz OUT.onnx [BATCH]

Needs jax2onnx, onnx and onnxruntime (`export.ONNX_REQUIREMENTS`). CHECK.npz holds `random_image`, `real_image` uint8
[N, H, W, 3] and the model's `random_probability`, `real_probability` [N, L]. The last line on stdout is a JSON object of the
largest differences under onnxruntime; what they mean is left to the caller. Without BATCH, or with 0, the batch is free.
"""

from collections.abc import Mapping, Sequence
from importlib import metadata as installed
import json
import pathlib
import sys
from typing import Any

import jax
import jax2onnx
import numpy as np
import onnx
import onnxruntime

from attr_jax import config as config_lib
from attr_jax import program as program_lib
from attr_jax import weights


_VERSION = installed.version("jax2onnx")


def main(argv: Sequence[str]) -> None:
  """Converts, checks, prints; ends with one line on stderr where it cannot."""
  source, check, out, batch = *map(pathlib.Path, argv[:3]), int(argv[3]) if len(argv) > 3 else 0
  params, batch_stats, metadata = weights.load_safetensors(source)
  try:
    proto = convert(params, batch_stats, metadata, batch)
  except Exception as error:  # whatever a converter raises where it lacks an operation
    sys.exit(f"jax2onnx {_VERSION} cannot convert {metadata['model']}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
  onnx.save(proto, out)
  with np.load(check) as file:
    print(json.dumps(differences(out, dict(file), batch)))


def convert(params: Any, batch_stats: Any, metadata: Mapping[str, str], batch: int) -> onnx.ModelProto:
  """The model `image` uint8 [N, H, W, 3] -> `probability` float32 [N, L], batch norm folded, `metadata` in its metadata_props.

  Args:
    params: float32 parameters.
    batch_stats: float32 BN statistics.
    metadata: of the safetensors export.
    batch: N; 0: any.
  """
  config = config_lib.from_json(metadata["config"])
  model, config = program_lib.in_float32(config, len(json.loads(metadata["label_names"])))
  arrays, program = program_lib.make(model, config, params, batch_stats)
  count = batch or jax.export.symbolic_shape("N")[0]
  image = jax.ShapeDtypeStruct((count, *config.input.full_size, 3), np.uint8)
  proto = jax2onnx.to_onnx(lambda image: program(arrays, image), [image], model_name="attr_jax", input_names=["image"], output_names=["probability"])
  onnx.helper.set_model_props(proto, {**metadata, "batch": str(batch or "any"), "jax2onnx": _VERSION})
  onnx.checker.check_model(proto, full_check=True)
  return proto


def differences(path: pathlib.Path, check: Mapping[str, np.ndarray], batch: int) -> dict[str, float]:
  """{"random", "real"}: the largest difference to the model's probabilities, all at once and one, or `batch`, at a time."""
  session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
  found = {}
  for kind in ("random", "real"):
    images, expected = check[f"{kind}_image"], check[f"{kind}_probability"]
    sizes = (batch,) if batch else (len(images), 1)
    found[kind] = max(float(np.abs(_run(session, images, size) - expected).max()) for size in sizes)
  return found


def _run(session: onnxruntime.InferenceSession, images: np.ndarray, size: int) -> np.ndarray:
  """Probabilities of all images, `size` at a time; the last ones are filled up with black."""
  filled = np.concatenate([images, np.zeros((-len(images) % size, *images.shape[1:]), np.uint8)])
  rows = [session.run(["probability"], {"image": filled[i:i + size]})[0] for i in range(0, len(filled), size)]
  return np.concatenate(rows)[:len(images)].astype(np.float64)


if __name__ == "__main__":
  main(sys.argv[1:])
