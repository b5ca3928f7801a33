"""Trains models one after the other, as one process or as one of several, and writes down which samples it saw.

  python train_models.py JOB.json PROCESS_ID

JOB: `coordinator` ("" for one process), `count`, `out`, and `runs`, name -> [config file and options, overrides].
Each run's folder is OUT/<name>; OUT/<name>-<id>.json holds a hash of every row of every batch of this process.
"""

import hashlib
import json
import pathlib
import sys

from absl import flags
import jax

from attr_jax import cli
from attr_jax import sharding
from attr_jax import train

put_batch = sharding.put_batch


def hashes(batch):
  """One for each row, over all that it holds."""
  rows = [hashlib.sha256() for _ in batch["id"]]
  for key in sorted(batch):
    for row, value in zip(rows, batch[key], strict=True):
      row.update(f"{key} {value.dtype} {value.shape}".encode() + value.tobytes())
  return [row.hexdigest() for row in rows]


def main():
  job, process = json.loads(pathlib.Path(sys.argv[1]).read_text()), int(sys.argv[2])
  flags.FLAGS.mark_as_parsed()
  if job["coordinator"]:
    jax.config.update("jax_share_binary_between_hosts", True)  # one of them compiles
    sharding.initialize_distributed(job["coordinator"], job["count"], process)
  out = pathlib.Path(job["out"])
  for name, (config, overrides) in job["runs"].items():
    config = cli.load_config(config, [])
    config.update_from_flattened_dict(overrides)
    seen = []

    def put_and_note(batch, where):
      seen.append(hashes(batch))
      return put_batch(batch, where)

    sharding.put_batch = put_and_note
    train.train_and_evaluate(config, out / name, quiet=True)
    (out / f"{name}-{process}.json").write_text(json.dumps(seen[:config.total_steps]))  # the loop reads ahead


if __name__ == "__main__":
  main()
