"""All benchmarks of speed, one after the other: prints their tables and keeps their figures.

  python -m benchmarks --out=DIR          on a CPU, under 20 minutes
  python -m benchmarks --gpu --out=DIR    on one GPU, under 9 minutes; nothing is downloaded

Each runs in a process of its own, so that none is disturbed by what another has left in memory. One that fails, or for which no
time was left, is told at the end. The figures land in DIR (default: docs/results), a JSON file for each.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).resolve().parent
MINUTES = {"cpu": 20, "gpu": 9}
# Name of the result -> (script, arguments on a CPU or None, arguments on a GPU or None).
RUNS = {
    "train-step": ("train_step.py", [], ["--gpu", "--minutes=4"]),
    "input-pipeline": ("input_pipeline.py", ["--turns=3", "--seconds=1", "--memory-seconds=20"], None),
    "prepare": ("prepare.py", ["--count=2000", "--repeats=3"], None),
    "device-cache": ("device_cache.py", ["--depth=18", "--size=112", "--batch=8", "--repeats=9"],
                     ["--depth=50", "--size=224", "--batch=256", "--dtype=bfloat16", "--count=10000", "--steps=40", "--threads=16"]),
    "predict": ("predict.py", [], ["--gpu", "--systems=resnet101,dahar", "--views=1,10", "--batches=1,64", "--dtypes=bfloat16"]),
    "attention": ("attention.py", [], ["--batch=64", "--dtype=bfloat16", "--repeats=9"]),
    "growth": ("growth.py", ["--turns=2"], None),
    "saving": ("saving.py", [], ["--depth=101", "--size=224", "--batch=128", "--dtype=bfloat16"]),
    "compilation": ("compilation.py", ["--rounds=1"], None),
    "packed": ("packed.py", ["--trials=4", "--repeats=2", "--seconds=0.3"], ["--gpu"]),
    "step-trace": ("step_trace.py", [], ["--batch=128", "--dtype=bfloat16", "--steps=20"]),
}


def run(name, script, arguments, out, limit):
  """Runs one script for at most `limit` seconds, its table straight to the terminal; returns (what came of it, seconds)."""
  print(f"\n== {name}: python benchmarks/{script} {' '.join(arguments)}", flush=True)
  start = time.monotonic()
  try:
    status = subprocess.call([sys.executable, f"benchmarks/{script}", *arguments, f"--out={out}"], cwd=FOLDER.parent, timeout=limit)
    told = f"failed with status {status}" if status else "done"
  except subprocess.TimeoutExpired:
    told = "stopped: no time left"
  return told, time.monotonic() - start


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--gpu", action="store_true", help="the sizes of a GPU")
  parser.add_argument("--only", help=f"of {','.join(RUNS)}")
  parser.add_argument("--minutes", type=float, help=f"after which nothing goes on (default: {MINUTES['cpu']}, on a GPU {MINUTES['gpu']})")
  parser.add_argument("--out", type=pathlib.Path, default=FOLDER.parent / "docs" / "results", help="folder of the JSON files")
  args = parser.parse_args()
  names = args.only.split(",") if args.only else list(RUNS)
  if unknown := set(names) - set(RUNS):
    parser.error(f"unknown: {', '.join(sorted(unknown))}")
  args.out.mkdir(parents=True, exist_ok=True)
  kind, results = "gpu" if args.gpu else "cpu", {}
  deadline = time.monotonic() + 60 * (args.minutes or MINUTES[kind])
  for name in names:
    script, *arguments = RUNS[name]
    chosen = arguments[args.gpu]
    if chosen is not None:
      out = os.path.relpath(args.out / f"{name}-{kind}.json", FOLDER.parent)
      results[name] = run(name, script, chosen, out, max(1.0, deadline - time.monotonic()))
  print(f"\n{'benchmark':<20}{'seconds':>9}  result")
  for name, (told, seconds) in results.items():
    print(f"{name:<20}{seconds:>9.0f}  {told}")
  sys.exit(any(told != "done" for told, _ in results.values()))


if __name__ == "__main__":
  main()
