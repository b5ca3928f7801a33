"""Bytes that a training step moves per image on a TPU, by the compiler's own count; no TPU is needed.

  pip install 'attr_jax[tpu]'
  python benchmarks/tpu_bytes.py --out=docs/results/tpu-bytes-v5e.json

Compiles the real training step (uint8 images, normalisation, forward, loss, backward, SGD, donated state) for one chip. The
count is that of operands and results of all fused operations; floor B is what plain convolutions with fused elementwise
work between them must move (361 MB for ResNet-50, 539 MB for ResNet-101). Also counted: the passes over activations that take the
sums of batch norms, and transposes or changes of layout of whole activations. Takes two to four minutes on two cores.
"""

import argparse
import json
import os
import pathlib
import sys
import time

FLOOR_B = {50: 361e6, 101: 539e6}  # bytes per training image of 224 px in bfloat16
BAR = 1.1


def measure(depth=50, batch=128, topology="v5e:1x1", size=224):
  """FLOPs, bytes and memory of the compiled step, ready for JSON."""
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  import jax
  import timing

  from attr_jax import abstract
  from attr_jax import config as config_lib
  from attr_jax import hlo

  config = config_lib.default_config()
  config.model.depth, config.compute_dtype, config.batch_size = str(depth), "bfloat16", batch
  config.input.size = (size, size)
  mesh = abstract.tpu_mesh(topology)
  step, arguments = abstract.train_step(config, mesh)
  start = time.perf_counter()
  compiled = step.lower(*arguments).compile()
  memory, per_device = compiled.memory_analysis(), batch / mesh.size
  found, smallest = hlo.instructions(compiled.as_text()), batch * (size // 32)**2 * 512
  state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arguments[0]))
  flops, moved = (count / per_device for count in timing.counts_of(compiled))
  return {
      "command": " ".join(["python", *sys.argv]), "topology": topology, "depth": depth, "batch": batch, "size": size, "dtype": "bfloat16",
      "jax": jax.__version__, "compile_seconds": time.perf_counter() - start,
      "gflop_per_image": flops / 1e9, "megabytes_per_image": moved / 1e6,
      "floor_b_megabytes": FLOOR_B[depth] / 1e6 if depth in FLOOR_B else None, "ratio": moved / FLOOR_B[depth] if depth in FLOOR_B else None,
      "peak_gigabytes": timing.bytes_of(compiled) / 1e9,
      "donated_megabytes": memory.alias_size_in_bytes / 1e6, "state_megabytes": state / 1e6,
      "norm_passes": hlo.norm_passes(found),
      "moved_activations": [f"{one.operation} {list(one.shape)} {one.layer}" for one in hlo.moved_activations(found, smallest)],
      "bar": BAR,
  }


def table(result):
  lines = [f"{'ResNet-' + str(result['depth']):<12}{result['topology']:<10} batch {result['batch']}, bfloat16",
           f"  GFLOP per image    {result['gflop_per_image']:8.1f}",
           f"  MB per image       {result['megabytes_per_image']:8.0f}",
           f"  peak GB            {result['peak_gigabytes']:8.2f}",
           f"  donated            {result['donated_megabytes']:8.0f} of {result['state_megabytes']:.0f} MB of state",
           f"  passes for sums     {result['norm_passes']['forward']:7} forward, {result['norm_passes']['backward']} backward",
           f"  copied activations  {len(result['moved_activations']):7}",
           f"  compiled in        {result['compile_seconds']:8.0f} s"]
  if result["ratio"]:
    verdict = "met" if result["ratio"] <= result["bar"] else "missed"
    lines.append(f"  of floor B         {result['ratio']:8.2f}  ({result['floor_b_megabytes']:.0f} MB), bar {result['bar']}: {verdict}")
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--depth", type=int, default=50)
  parser.add_argument("--batch", type=int, default=128, help="images on all chips")
  parser.add_argument("--topology", default="v5e:1x1")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
  args = parser.parse_args()
  result = measure(args.depth, args.batch, args.topology)
  print(table(result))
  if args.out:
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  main()
