"""What compiling costs: a restart with a warm compilation cache against a cold one, and every config at full size.

  python benchmarks/compilation.py --out=docs/results/compilation-cpu.json
  python benchmarks/compilation.py --configs=all                          minutes: all of configs/ with their defaults
  python benchmarks/compilation.py --configs=baseline,dahar --rounds=0

Draws a small data set of people, then runs `attr-jax train`, `evaluate` and `predict` as processes of their own (the quickstart
config at its full size of images and batches, but for two steps) with an empty cache folder, and again as it then is. Each
round starts from an empty folder. Seconds of compiling are those that jax reports for its backend (with the reading of the
cache), which the cache can save; tracing and lowering are listed beside them, and the seconds from the data to the end of the
first training step. The bar is a warm compile time of at most a fifth of the cold one. `--thresholds` compares
what is worth storing: programs that took as many seconds to compile (attr-jax has 0.1, and with 0 all are stored).

Of the configs the training step is compiled at the real batch size for the devices here, from shapes alone: nothing runs.
Memory is what XLA plans for the step; processor seconds of compiling are those of all its threads.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import numpy as np

from attr_jax import abstract
from attr_jax import cli
from attr_jax import evaluate
from attr_jax import sharding
from attr_jax.data import images
from attr_jax.data import worlds
import timing

BAR = 0.2
DEFAULT = 0.1
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
COMMANDS = ("train", "evaluate", "predict")
EVENTS = {
    "compile": "/jax/core/compile/backend_compile_duration",
    "trace": "/jax/core/compile/jaxpr_trace_duration",
    "lower": "/jax/core/compile/jaxpr_to_mlir_module_duration",
}


def command_child(argv, cache, threshold, results):
  """One command with its compile times; `threshold` None leaves what attr-jax sets."""
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
  seconds, counts = dict.fromkeys(EVENTS, 0.0), {"programs": 0, "stored_found": 0}

  def duration(event, value, **_):
    for name, known in EVENTS.items():
      seconds[name] += value if event == known else 0.0
    counts["programs"] += event == EVENTS["compile"]

  def happened(event, **_):
    counts["stored_found"] += event == "/jax/compilation_cache/cache_hits"

  jax.monitoring.register_event_duration_secs_listener(duration)
  jax.monitoring.register_event_listener(happened)
  start_jax = cli._start_jax

  def start():
    start_jax()
    if threshold is not None:
      jax.config.update("jax_persistent_cache_min_compile_time_secs", threshold)

  cli._start_jax = start
  begin, text = time.perf_counter(), io.StringIO()
  try:
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
      cli.main(argv)
  except SystemExit as ended:
    if ended.code:
      print(text.getvalue(), file=sys.stderr)
      raise
  results.put(seconds | counts | {"wall": time.perf_counter() - begin})


def in_child(function, *arguments):
  context = multiprocessing.get_context("spawn")
  results = context.SimpleQueue()
  process = context.Process(target=function, args=(*arguments, results))
  process.start()
  process.join()
  if process.exitcode:
    raise SystemExit(f"a child process ended with status {process.exitcode}")
  return results.get()


def commands(data_dir, workdir, picture):
  """The three commands of a run, as arguments."""
  config = f"--config={REPOSITORY / 'configs' / 'quickstart.py'}"
  options = {"data.dir": data_dir, "data.world_count": 400, "total_steps": 2, "total_epochs": 0.0, "evaluate.max_samples": 32}
  return {
      "train": ["train", config, f"--workdir={workdir}", "--quiet", *(f"--config.{key}={value}" for key, value in options.items())],
      "evaluate": ["evaluate", f"--workdir={workdir}", "--split=test"],
      "predict": ["predict", f"--workdir={workdir}", str(picture)],
  }


def first_step_seconds(workdir):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return next(row["seconds_to_first_step"] for row in rows if "seconds_to_first_step" in row)


def measure_restarts(args, folder):
  """threshold -> command -> cold and warm -> a list of figures, one for each round."""
  config = cli.load_config(str(REPOSITORY / "configs" / "quickstart.py"), [f"--config.data.dir={folder}", "--config.data.world_count=400"])
  data = config.data
  worlds.ensure(data.world, evaluate.data_folder(config), count=400, seed=data.world_seed, size=data.size, progress=False)
  picture = folder / "picture.jpg"
  picture.write_bytes(images.encode_jpeg(np.random.default_rng(0).integers(0, 256, (80, 48, 3), np.uint8)))
  found = {}
  for number in range(args.rounds):
    for threshold in args.thresholds:
      cache = folder / f"cache-{number}-{threshold}"
      for state in ("cold", "warm"):
        workdir = folder / f"run-{number}-{threshold}-{state}"
        for name, argv in commands(folder, workdir, picture).items():
          figures = in_child(command_child, argv, cache, None if threshold == DEFAULT else threshold)
          if name == "train":
            figures["to_first_step"] = first_step_seconds(workdir)
          print(f"{threshold} s: {name}, {state}: {figures['compile']:.2f} s of compiling, {figures['stored_found']} of "
                f"{figures['programs']} programs found", file=sys.stderr, flush=True)
          found.setdefault(str(threshold), {}).setdefault(name, {"cold": [], "warm": []})[state].append(figures)
      stored = [file.stat().st_size for file in cache.rglob("*") if file.is_file()]
      found[str(threshold)].setdefault("stored", []).append({"files": len(stored), "megabytes": sum(stored) / 2**20})
  return found


def compile_config(name):
  """Seconds to trace and lower, and to compile, the training step of a config file at its defaults; and its memory."""
  config = cli.load_config(str(REPOSITORY / "configs" / f"{name}.py"), [])
  step, arguments = abstract.train_step(config, sharding.make_mesh())
  start = time.perf_counter()
  lowered = step.lower(*arguments)
  middle, processor = time.perf_counter(), time.process_time()
  program = lowered.compile()
  return {
      "lower": middle - start, "compile": time.perf_counter() - middle,
      "processor": time.process_time() - processor, "batch": config.batch_size, "size": list(config.input.size),
      "megabytes": timing.bytes_of(program) / 2**20,
  }


def config_child(name, results):
  results.put(compile_config(name))


def measure(args):
  """All figures, ready for JSON."""
  with tempfile.TemporaryDirectory() as folder:
    restarts = measure_restarts(args, pathlib.Path(folder)) if args.rounds else {}
  configs = {}
  for name in args.configs:
    configs[name] = in_child(config_child, name)  # without any cache
    print(config_row(name, configs[name]), file=sys.stderr, flush=True)
  return {"command": " ".join(["python", *sys.argv]), "arguments": vars(args) | {"out": None}, **timing.machine(), "restarts": restarts,
          "ratios": {threshold: ratio(found) for threshold, found in restarts.items()}, "configs": configs, "bar": BAR}


def ratio(found):
  """Warm over cold seconds of compiling, of all commands of a round together: the median over rounds."""
  total = lambda state, number: sum(found[name][state][number]["compile"] for name in COMMANDS)
  return statistics.median(total("warm", i) / total("cold", i) for i in range(len(found["train"]["cold"])))


def config_row(name, found):
  return (f"{name:<18}{found['batch']:>6}{'x'.join(map(str, found['size'])):>10}{found['lower']:>9.1f}{found['compile']:>11.1f}"
          f"{found['processor']:>13.1f}{found['megabytes']:>9.0f}")


def table(result):
  """The result in lines of at most 80 columns."""
  lines = []
  middle = lambda figures, key: statistics.median(figure[key] for figure in figures)
  for threshold, found in result["restarts"].items():
    stored = found["stored"][0]
    lines.append(f"stored from {threshold} s of compiling on: {stored['files']} files, {stored['megabytes']:.1f} MB")
    lines.append(f"{'':<18}{'compile s':>10}{'trace s':>9}{'lower s':>9}{'programs':>9}{'found':>7}{'all s':>7}{'1st step':>9}")
    for name in COMMANDS:
      for state, figures in found[name].items():
        first = f"{middle(figures, 'to_first_step'):>9.2f}" if name == "train" else ""
        lines.append(f"{name + ', ' + state:<18}{middle(figures, 'compile'):>10.2f}{middle(figures, 'trace'):>9.2f}"
                     f"{middle(figures, 'lower'):>9.2f}{middle(figures, 'programs'):>9.0f}"
                     f"{middle(figures, 'stored_found'):>7.0f}{middle(figures, 'wall'):>7.1f}{first}")
    value = result["ratios"][threshold]
    lines.append(f"warm / cold compile time {value:.2f}, bar {result['bar']}: {'met' if value <= result['bar'] else 'missed'}")
  if result["configs"]:
    lines.append(f"{'training step of':<18}{'batch':>6}{'px':>10}{'lower s':>9}{'compile s':>11}{'processor s':>13}{'MB':>9}")
    lines += [config_row(name, found) for name, found in result["configs"].items()]
  return "\n".join([*lines, f"{result['device']}, load {result['load_average']:.1f} on {result['cores']} cores"])


def main():
  known = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--configs", default="", help="whose training step is compiled at full size: names, or all (default: none)")
  parser.add_argument("--rounds", type=int, default=2, help="cold and warm runs of the three commands; 0 for none")
  parser.add_argument("--thresholds", type=lambda text: tuple(map(float, text.split(","))), default=(DEFAULT,),
                      help="seconds of compiling from which programs are stored")
  args = timing.parse(parser)
  args.configs = known if args.configs == "all" else [name for name in args.configs.split(",") if name]
  if wrong := set(args.configs) - set(known):
    raise SystemExit(f"no config {', '.join(sorted(wrong))}; there are: {', '.join(known)}")
  timing.tell(measure(args), table, args.out)


if __name__ == "__main__":
  main()
