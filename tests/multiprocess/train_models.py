"""Trains models one after the other, as one process or as one of several, and writes down what it saw.

  python train_models.py JOB.json PROCESS_ID

JOB: `coordinator` ("" for one process), `count`, `out`, `steps`, and `runs`, name -> [config file and options, overrides].
OUT/<name>-<id>.json holds a hash of every row of every batch of this process, and the scalars of every step. The parts are put
together as `train.train_and_evaluate` does it, without what else it writes and measures. With JAX_ENABLE_X64=1 all that is
float32 in them is float64.
"""

import hashlib
import json
import pathlib
import sys

from absl import flags
import jax
import jax.numpy as jnp

if jax.config.jax_enable_x64:
  jnp.float32 = jnp.float64  # before flax and the models take it for parameters, statistics and losses

from attr_jax import cli
from attr_jax import evaluate
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
from attr_jax.data import pipeline


def hashes(batch):
  """One for each row, over all that it holds."""
  rows = [hashlib.sha256() for _ in batch["id"]]
  for key in sorted(batch):
    for row, value in zip(rows, batch[key], strict=True):
      row.update(f"{key} {value.dtype} {value.shape}".encode() + value.tobytes())
  return [row.hexdigest() for row in rows]


def run(config, count):
  """{"rows": hashes of `count` batches, "scalars": of as many steps}."""
  mesh = sharding.make_mesh()
  train._prepare_world(config, quiet=True)
  data = evaluate.open_data(config)
  source, second = evaluate.open_source(config, data, "train"), evaluate.open_second(config, "train")
  labels, method = len(data.info.label_names), models.MODELS[config.model.name]
  model = models.build(config.model, labels, config.compute_dtype)
  schedule = optim.make_schedule(config, count, len(source))
  trainable = models.trainable_groups(config.model.name, config.loss)
  tx = optim.make_optimizer(config, schedule, trainable)
  memory = models.initial_memory(config.model.name, len(source), labels)
  state = state_lib.create_state(model, tx, (*config.input.size, 3), memory, mesh, config.seed)
  step = steps.compile_train_step(steps.make_train_step(
      model, train.make_objective(config, data.info), tx, schedule, config, mesh,
      remember=getattr(method, "remember", None), num_train=len(source), trainable=trainable), mesh)
  batches = pipeline.train_dataset(
      source, evaluate.input_spec(config, data.info), batch_size=config.batch_size, seed=config.seed,
      process_index=jax.process_index(), process_count=jax.process_count(), second=second)
  found = {"rows": [], "scalars": []}
  for number in range(count):
    batch = train.without_extras(batches[number])
    found["rows"].append(hashes(batch))
    state, scalars = step(state, sharding.put_batch(batch, sharding.over_batch(mesh)), jax.random.key(config.seed))
    found["scalars"].append({key: float(value) for key, value in scalars.items()})
  return found


def main():
  job, process = json.loads(pathlib.Path(sys.argv[1]).read_text()), int(sys.argv[2])
  flags.FLAGS.mark_as_parsed()
  if job["coordinator"]:
    sharding.initialize_distributed(job["coordinator"], job["count"], process)
  for name, (config, overrides) in job["runs"].items():
    config = cli.load_config(config, [])
    config.update_from_flattened_dict(overrides)
    (pathlib.Path(job["out"]) / f"{name}-{process}.json").write_text(json.dumps(run(config, job["steps"])))


if __name__ == "__main__":
  main()
