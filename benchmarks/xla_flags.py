"""Which flags of XLA make a training step faster, one by one, on this machine.

  python benchmarks/xla_flags.py --out=docs/results/xla-flags-cpu.json
  python benchmarks/xla_flags.py --depth=101 --batch=128 --size=224 --dtype=bfloat16 --steps=10

Each flag gets a process of its own, which compiles the same step of the baseline and then takes turns with a process without
flags. A flag's figure is the default's time over its own, the median over turns. A second process without flags shows what
chance does: a flag wins where its median is above every turn of that one, and loses where it is below all of them; on a CPU in
wall time and in processor time, because others may use the same cores. A flag that this XLA does not know ends its process
and is listed as unknown. The loss of step 1 must be that of the default within 1 %.

Flags in XLA_FLAGS count for all processes. None of the flags here is set by attr_jax.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

FLAGS = {
    "cpu": (
        "--xla_cpu_multi_thread_eigen=false",
        "--xla_cpu_prefer_vector_width=512",
        "--xla_cpu_prefer_vector_width=128",
        "--xla_cpu_enable_fast_math=true",
        "--xla_cpu_enable_fast_min_max=true",
        "--xla_cpu_use_onednn=true",
        "--xla_cpu_use_xnnpack=true",
        "--xla_cpu_experimental_onednn_custom_call=true",
        "--xla_cpu_enable_concurrency_optimized_scheduler=false",
        "--xla_cpu_strict_dot_conv_math=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_ftz=true",
    ),
    "gpu": (
        "--xla_gpu_experimental_enable_conv_fusion=true",
        "--xla_gpu_force_conv_nhwc=true",
        "--xla_gpu_enable_latency_hiding_scheduler=true",
        "--xla_gpu_enable_command_buffer=",
        "--xla_gpu_graph_min_graph_size=1",
        "--xla_gpu_triton_gemm_any=false",
        "--xla_gpu_cudnn_gemm_fusion_level=1",
        "--xla_gpu_use_runtime_fusion=true",
        "--xla_gpu_autotune_level=3",
        "--xla_gpu_deterministic_ops=true",
    ),
}
AGAIN = "(no flag, again)"


def serve(options):
  """A child: compiles, says so, and does `steps` steps for every line that it is given."""
  import jax
  import numpy as np
  import timing

  from attr_jax import config as config_lib
  from attr_jax import models
  from attr_jax.models import baseline

  config = config_lib.default_config()
  config.model.depth, config.compute_dtype = options["depth"], options["dtype"]
  batch, size, labels = options["batch"], options["size"], 14
  config.batch_size, config.input.size = batch, (size, size)
  rng = np.random.default_rng(0)
  batches = [{
      "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
      "label": rng.integers(0, 2, (batch, labels)).astype(np.uint8),
      "known": np.ones((batch, labels), bool),
      "id": np.arange(batch),
  } for _ in range(4)]
  objective = functools.partial(baseline.objective, positive_ratio=np.full(labels, 0.3, np.float32))
  run, seconds, _ = timing.compiled_step(config, models.build(config.model, labels, config.compute_dtype), objective, batches)
  loss = float(run()[1]["loss"])
  print(json.dumps({"compile_seconds": seconds, "loss": loss, "machine": timing.machine()}), flush=True)
  for _ in sys.stdin:
    start, processor = time.perf_counter(), time.process_time()
    run(options["steps"])
    wall, processor = time.perf_counter() - start, time.process_time() - processor
    print(json.dumps([wall / options["steps"], processor / options["steps"]]), flush=True)


class Child:
  """A process with a flag of its own; `first` is what it said when it was ready, None where it died, and then `why`."""

  def __init__(self, flag, args):
    options = {key: getattr(args, key) for key in ("depth", "dtype", "batch", "size", "steps")}
    environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
    environment.setdefault("XLA_CLIENT_MEM_FRACTION", "0.4")  # two of them at once
    self.errors = tempfile.TemporaryFile("w+")  # not a pipe: nobody reads it while the child runs
    self.process = subprocess.Popen(
        [sys.executable, __file__, f"--child={json.dumps(options)}"],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
    line = self.process.stdout.readline()
    self.first = json.loads(line) if line else None
    self.why = None if line else self._reason()

  def _reason(self):
    status = self.process.wait()
    self.errors.seek(0)
    text = self.errors.read()
    if "Unknown flag" in text:
      return "unknown to this XLA"
    return f"ended with {status}: {(text.strip().splitlines() or [''])[-1][:100]}"

  def turn(self):
    """(wall, processor) seconds per step."""
    self.process.stdin.write("\n")
    self.process.stdin.flush()
    return json.loads(self.process.stdout.readline())

  def end(self):
    self.process.communicate()


def compare(flag, default, args):
  """A flag's row, ready for JSON."""
  child = Child(flag, args)
  if child.why:
    return {"why": child.why}
  row = child.first
  if abs(row["loss"] - default.first["loss"]) > 0.01 * abs(default.first["loss"]):
    child.end()
    return row | {"why": f"loss {row['loss']:.4f}, without flags {default.first['loss']:.4f}"}
  turns = [(default.turn(), child.turn()) for _ in range(args.repeats + 1)][1:]  # the first is a warm-up
  child.end()
  ratios = [[base[kind] / own[kind] for base, own in turns] for kind in (0, 1)]
  return row | {
      "step_seconds": [own[0] for _, own in turns],
      "processor_seconds": [own[1] for _, own in turns],
      "default_step_seconds": [base[0] for base, _ in turns],
      "ratios": ratios,  # wall, processor
      "ratio": statistics.median(ratios[0]),
      "processor_ratio": statistics.median(ratios[1]),
  }


def verdict(row, chance):
  """Of a row against the one of no flag again: "wins", "loses" or "" within what chance does."""
  kinds = (0, 1) if row["machine"]["backend"] == "cpu" else (0,)
  medians = [statistics.median(row["ratios"][kind]) for kind in kinds]
  if all(median > max(chance["ratios"][kind]) for kind, median in zip(kinds, medians)):
    return "wins"
  return "loses" if all(median < min(chance["ratios"][kind]) for kind, median in zip(kinds, medians)) else ""


def measure(args):
  """The rows of all flags that fit into the time, ready for JSON."""
  deadline, longest = time.monotonic() + 60 * args.minutes, 0.0
  default = Child("", args)
  if default.why:
    raise SystemExit(f"xla_flags.py: the step without flags {default.why}")
  backend = default.first["machine"]["backend"]
  flags = args.flag or FLAGS["cpu" if backend == "cpu" else "gpu"]
  rows, left_out = {}, []
  for flag in (AGAIN, *flags):
    start = time.monotonic()
    if start + longest > deadline:
      left_out.append(flag)
      continue
    rows[flag] = compare("" if flag == AGAIN else flag, default, args)
    longest = max(longest, time.monotonic() - start)
    print(line(flag, rows[flag], rows[AGAIN]), flush=True)
  default.end()
  return {
      "command": " ".join(["python", *sys.argv]),
      "arguments": vars(args) | {"out": None},
      **default.first["machine"],
      "xla_flags": os.environ.get("XLA_FLAGS", ""),
      "default_compile_seconds": default.first["compile_seconds"],
      "flags": rows,
      "winners": [flag for flag, row in rows.items() if "ratio" in row and flag != AGAIN and verdict(row, rows[AGAIN]) == "wins"],
      "left_out": left_out,
  }


def line(flag, row, chance):
  name = flag.removeprefix("--xla_")
  if row.get("why"):
    return f"{name[:48]:<48} {row['why']}"[:80]
  return (f"{name[:48]:<48} {row['ratio']:>6.3f} {row['processor_ratio']:>6.3f} {row['compile_seconds']:>9.1f} "
          f"{verdict(row, chance)}").rstrip()


def table(result):
  """The end of what `measure` has printed flag by flag."""
  lines = [f"{flag} did not fit into the time" for flag in result["left_out"]]
  lines.append("faster than chance: " + (" ".join(result["winners"]) or "none"))
  lines.append(f"{result['device']}, load {result['load_average']:.1f} on {result['cores']} cores, jax {result['jax']}")
  return "\n".join(lines)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--depth", default="18", help="of the ResNet: 18, 34, 50, 101 or tiny")
  parser.add_argument("--size", type=int, default=96, help="side of the images in px")
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument("--steps", type=int, default=1, help="of each turn")
  parser.add_argument("--repeats", type=int, default=5, help="turns that count")
  parser.add_argument("--flag", action="append", help="try this one instead of the list; may be given several times")
  parser.add_argument("--minutes", type=float, default=6, help="no flag begins after them")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
  parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    serve(args.child)
    return
  del args.child
  print(f"{'flag':<48} {'ratio':>6} {'proc.':>6} {'compile s':>9}")
  result = measure(args)
  print(table(result))
  if args.out:
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  main()
