"""One of two processes that save an array of random numbers, or restore it whole and in parts and write how many bytes they read.

  python restore_parts.py save|restore FOLDER COORDINATOR PROCESS_ID
"""

import json
import pathlib
import sys

from absl import flags
import jax
import numpy as np

from attr_jax import checkpoint
from attr_jax import sharding

SHAPE = (4096, 4096)


def bytes_read():
  """By this process, from files and sockets."""
  return int(pathlib.Path("/proc/self/io").read_text().split()[1])


def main():
  job, folder, coordinator, process = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
  flags.FLAGS.mark_as_parsed()
  sharding.initialize_distributed(coordinator, 2, process)
  mesh = sharding.make_mesh(fsdp=2)
  wheres = {"whole": sharding.replicated(mesh), "split": sharding.split(SHAPE, mesh)}
  values = np.random.default_rng(0).random(SHAPE, np.float32)
  found = {"bytes": values.nbytes}
  for name, where in wheres.items():
    checkpoints = checkpoint.Checkpoints(folder / "split")
    if job == "save" and name == "split":
      checkpoints.save(1, {"w": jax.device_put(values, where)}, None)
      checkpoints.wait()
    elif job == "restore":
      before = bytes_read()
      state = checkpoints.restore(1, {"w": jax.ShapeDtypeStruct(SHAPE, np.float32, sharding=where)})
      found[name] = bytes_read() - before
      for shard in state["w"].addressable_shards:
        np.testing.assert_array_equal(shard.data, values[shard.index])
    checkpoints.close()
  if job == "restore":
    (folder / f"{process}.json").write_text(json.dumps(found))


if __name__ == "__main__":
  main()
