"""Compiles the training step of any config for TPUs that are not here, and says whether it fits and how fast it could be.

  pip install 'attr_jax[tpu]'
  python launch/aot.py --config=configs/dahar.py --topology=v5e:4x4 --batch=64 --config.compute_dtype=bfloat16
  python launch/aot.py --config=configs/diaa.py --topology=v5p:2x2x1 --out=plan.json

Needs no TPU and no data: the compiler (libtpu) runs on any Linux machine with x86-64 cores, labels and images are counted as published. The
step is the one that `attr-jax train` runs: state donated, batch split over the chips, all arrays of the config's batches. Topologies are
v4:AxBxC, v5e:AxB, v5p:AxBxC and v6e:AxB, one process or many. Compiling Da-HAR takes four to eleven minutes, for one chip or 256.

Figures are per chip. Memory, floating-point operations, bytes and collectives are the compiler's. Step time and images/s are predicted from
them at the published rates of the chip (launch/tpu_chips.py): the larger of compute and memory time, and the communication that is waited for.
That is a limit: a real step takes longer. Operations and bytes of loops (config.accumulate_steps, decoders) count as if they ran once.

What does not fit is compiled again with smaller batches, three times at most: the first by a straight line from the size of the state to what was
needed, the next by the line through the last two. The batch that is named was compiled and fits; a somewhat larger one may.

Exit status: 0 it fits, 1 it does not, 2 a wrong call (one line says what).
"""

import argparse
from collections.abc import Callable, Iterator
import contextlib
import dataclasses
from importlib import metadata
import json
import math
import os
import pathlib
import re
import sys
import threading
import time

# Before jax is imported: no chip is looked for, and several compilers may run at a time. The last two are what libtpu asks of a TPU's host; without
# them it complains at length. What is compiled follows from --topology alone.
os.environ.update(JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1",
                  TPU_WORKER_HOSTNAMES="localhost", TPU_ACCELERATOR_TYPE="v5litepod-4")

import jax
import ml_collections

from attr_jax import abstract
from attr_jax import cli
from attr_jax import hlo
from attr_jax.errors import InputError
import tpu_chips

TRIES = 3  # smaller batches that are compiled where one does not fit
MARGIN = 0.97  # of the batch that a line says will fit
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class TooLarge:
  """What the compiler says of a program that the memory does not hold, in bytes; None where it does not say it."""

  needed: float | None
  capacity: float | None


def plan(config: ml_collections.ConfigDict, topology: str) -> dict[str, object]:
  """Everything about the step of `config`, whose `batch_size` is global, on a topology; ready for JSON.

  Raises:
    InputError: unknown topology, unusable config, or libtpu is missing.
  """
  kind, shape = abstract.parse_topology(topology)
  mesh = abstract.tpu_mesh(topology, config.fsdp)
  start = time.perf_counter()
  compiled, state = compile_step(config, mesh, tpu_chips.CHIPS[kind].hbm)
  result = {
      "topology": topology, "chips": mesh.size, "batch": config.batch_size, "batch_per_chip": config.batch_size // mesh.size,
      "images_per_chip": config.batch_size * (2 if config.data.second else 1) // mesh.size, "dtype": config.compute_dtype,
      "jax": jax.__version__, "libtpu": _version("libtpu"), "batch_norm": config.batch_norm.scope, "state_bytes": state,
      "hbm_bytes": tpu_chips.CHIPS[kind].hbm,
      "compile_seconds": time.perf_counter() - start, "fits": not isinstance(compiled, TooLarge),
  }
  if isinstance(compiled, TooLarge):
    return result | dataclasses.asdict(compiled) | {"fitting": find_batch(config, mesh, tpu_chips.CHIPS[kind].hbm, state, compiled)}
  return result | describe(compiled, kind, shape, result["images_per_chip"])


def compile_step(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, capacity: float) -> tuple[jax.stages.Compiled | TooLarge, int]:
  """(the compiled step, or why there is none; bytes of the state on each device). `capacity` is the memory of a device in bytes."""
  try:
    step, (state, batch, key) = abstract.train_step(config, mesh)
    lowered = step.lower(state, batch, key)
  except ValueError as error:  # of a model that does not take an option's value
    raise InputError(f"config.model or config.loss: {' '.join(str(error).split())[:300]}") from error
  held = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(state))
  arguments = held + sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in batch.values())
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if too_large := out_of_memory(str(error), arguments):
      return too_large, held
    raise
  # The compiler looks at temporaries alone.
  peak = memory_of(compiled)["peak"]
  return (compiled if peak <= capacity else TooLarge(peak, capacity)), held


def out_of_memory(message: str, arguments: float) -> TooLarge | None:
  """What a compiler's error says of memory; None for other errors. `arguments` are bytes that it does not count in with temporaries."""
  if "RESOURCE_EXHAUSTED" not in message or not re.search("memory|hbm", message, re.IGNORECASE):
    return None
  number = r"([\d.]+)([KMGT]?)"
  match = re.search(rf"temporaries \({number}\) exceeds available HBM \({number}\)|Used {number} of {number}", message)
  if not match:
    return TooLarge(None, None)
  needed, unit, capacity, capacity_unit = (part for part in match.groups() if part is not None)
  return TooLarge(float(needed) * _UNITS[unit] + (arguments if "temporaries (" in match[0] else 0.0), float(capacity) * _UNITS[capacity_unit])


def find_batch(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, capacity: float, state: int, failed: TooLarge) -> dict[str, object] | None:
  """A smaller batch that fits, with its `describe`d memory; None where none was found."""
  config, found = ml_collections.ConfigDict(config), {}

  def attempt(images: int) -> TooLarge | None:
    config.batch_size = images * mesh.size
    say(f"does not fit; trying {images} images per chip")
    compiled, _ = compile_step(config, mesh, capacity)
    if isinstance(compiled, TooLarge):
      return compiled
    found.update(batch_per_chip=images, batch=config.batch_size, memory=memory_of(compiled))
    return None

  smaller_batch(attempt, config.batch_size // mesh.size, state, failed, config.accumulate_steps)
  return found or None


def smaller_batch(attempt: Callable[[int], TooLarge | None], images: int, state: float, failed: TooLarge, multiple: int) -> int | None:
  """The first batch that `attempt` accepts, at most TRIES asked.

  Args:
    attempt: compiles a number of images per chip; None if they fit.
    images: the number that did not.
    state: bytes that no batch makes smaller.
    failed: what `images` needed.
    multiple: of which the number has to be one.
  """
  points = [(0, state)]
  for _ in range(TRIES):
    points.append((images, failed.needed))
    images = min(_on_line(points[-2:], failed.capacity), images - 1) // multiple * multiple
    if images < 1:
      return None
    failed = attempt(images)
    if failed is None:
      return images
  return None


def _on_line(points: list[tuple[int, float | None]], capacity: float | None) -> int:
  """Images at which the line through two points reaches the capacity, less the margin; half of the last ones where nothing is known."""
  (images_a, bytes_a), (images_b, bytes_b) = points
  if capacity is None or bytes_a is None or bytes_b is None or (bytes_b - bytes_a) * (images_b - images_a) <= 0:
    return images_b // 2
  return int(MARGIN * (images_b + (capacity - bytes_b) * (images_b - images_a) / (bytes_b - bytes_a)))


def describe(compiled: jax.stages.Compiled, kind: str, shape: tuple[int, ...], images: int) -> dict[str, object]:
  """What the compiler says of a program, and what that predicts; `images` are those of a chip."""
  found, costs = hlo.instructions(compiled.as_text()), compiled.cost_analysis()
  collectives = hlo.collectives_of(found, math.prod(shape))
  prediction = tpu_chips.predict(tpu_chips.CHIPS[kind], shape, costs["flops"], costs["bytes accessed"], collectives)
  return {
      "memory": memory_of(compiled), "flops": costs["flops"], "bytes": costs["bytes accessed"],
      "collectives": [dataclasses.asdict(one) for one in collectives], "loops": hlo.loops(found),
      "predicted": dataclasses.asdict(prediction) | {"images_per_second_per_chip": images / prediction.step,
                                                     "images_per_second": images * math.prod(shape) / prediction.step},
  }


def memory_of(compiled: jax.stages.Compiled) -> dict[str, int]:
  """Bytes of a chip: arguments, results that take the place of arguments, temporaries, and all at once at the most."""
  plan = compiled.memory_analysis()
  return {
      "arguments": plan.argument_size_in_bytes, "donated": plan.alias_size_in_bytes, "temporaries": plan.temp_size_in_bytes,
      "peak": plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes + plan.temp_size_in_bytes,
  }


def table(result: dict[str, object]) -> str:
  """The result in lines of at most 80 columns."""
  gib = lambda count: f"{count / 2**30:10.2f} GiB"
  name = f"{result['config']} on {result['topology']}"
  lines = [name if len(name) <= 80 else f"...{name[-77:]}",
           f"{result['chips']} chips, {result['batch_per_chip']:,} images each, {result['batch']:,} in all, {result['dtype']}"]
  if not result["fits"]:
    needed = f"{gib(result['needed'])} of {result['capacity'] / 2**30:.2f} GiB" if result["needed"] else "    more than there is"
    lines.append(f"  does not fit    {needed} that a program may use")
    fitting = result["fitting"]
    lines.append(f"  fits            {fitting['batch_per_chip']:>10,} images per chip, {fitting['batch']:,} in all, "
                 f"peak {fitting['memory']['peak'] / 2**30:.2f} GiB" if fitting else
                 f"  no batch found that fits, in {TRIES} tries; the state takes {result['state_bytes'] / 2**30:.2f} GiB")
    return "\n".join([*lines, _versions(result)])
  memory, images, predicted = result["memory"], result["images_per_chip"], result["predicted"]
  lines += [
      f"  arguments       {gib(memory['arguments'])}   {memory['donated'] / 2**30:.2f} of them donated",
      f"  temporaries     {gib(memory['temporaries'])}",
      f"  peak            {gib(memory['peak'])}   of {result['hbm_bytes'] / 2**30:.2f} GiB: fits",
      f"  operations      {result['flops'] / 1e9:10,.1f} GFLOP {result['flops'] / images / 1e9:10.1f} GFLOP per image",
      f"  bytes           {result['bytes'] / 1e9:10,.1f} GB    {result['bytes'] / images / 1e6:10.0f} MB per image",
  ]
  if result["collectives"]:
    lines.append(f"  {'collective':<20}{'count':>6}{'MB':>10}{'largest':>10}{'devices':>9}  how")
  for one in result["collectives"]:
    lines.append(f"  {one['kind']:<20}{one['count']:>6}{one['size'] / 1e6:>10.3f}{one['largest'] / 1e6:>10.3f}{one['group']:>9}"
                 f"  {'asynchronous' if one['asynchronous'] else 'synchronous'}")
  if result["loops"]:
    lines.append(f"  {len(result['loops'])} loops count as if run once: operations, bytes and time are too low")
  seconds = lambda key: f"{1e3 * predicted[key]:10.2f} ms"
  limit = "compute" if predicted["compute"] > predicted["memory"] else "memory"
  return "\n".join([
      *lines,
      "predicted from the chip's published rates, nothing measured:",
      f"  compute         {seconds('compute')}",
      f"  memory          {seconds('memory')}",
      f"  communication   {seconds('waiting')}    {1e3 * predicted['beside']:.2f} ms more beside other work",
      f"  step            {seconds('step')}    {limit}-bound",
      f"  images/s        {predicted['images_per_second_per_chip']:10,.0f}       per chip, {predicted['images_per_second']:,.0f} in all",
      _versions(result),
  ])


def _versions(result: dict[str, object]) -> str:
  return f"compiled in {result['compile_seconds']:.0f} s by libtpu {result['libtpu']}, jax {result['jax']}"


def _version(package: str) -> str:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:  # TPU_LIBRARY_PATH
    return "unknown"


def say(text: str) -> None:
  print(f"aot: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def clock(text: str, every: float = 15.0) -> Iterator[None]:
  """Says every so many seconds that it is still working, and for how long."""
  start, done = time.perf_counter(), threading.Event()

  def tell() -> None:
    while not done.wait(every):
      say(f"{text}: {time.perf_counter() - start:.0f} s")

  thread = threading.Thread(target=tell, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(prog="aot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--config", required=True, help="configs/FILE.py[:options]; override with --config.KEY=VALUE")
  parser.add_argument("--topology", required=True, help="such as v5e:4x4")
  parser.add_argument("--batch", type=int, help="images per chip (default: config.batch_size, which is global, over the chips)")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
  args, rest = parser.parse_known_args(argv)
  if wrong := [arg for arg in rest if not arg.startswith("--config.")]:
    parser.error(f"unknown argument {wrong[0]}")
  return args, rest


def run(argv: list[str]) -> int:
  """Reads the command line, prints the table, writes the JSON; returns the exit status."""
  args, rest = parse(argv)
  config = cli.load_config(args.config, rest)
  kind, shape = abstract.parse_topology(args.topology)
  if args.batch is not None:
    if args.batch < 1:
      raise InputError(f"--batch={args.batch} must be at least 1")
    config.batch_size = args.batch * math.prod(shape)
  if args.out and not args.out.parent.is_dir():
    raise InputError(f"--out={args.out}: there is no folder {args.out.parent}")
  say(f"compiling for {math.prod(shape)} x {kind}, {config.batch_size:,} images in all; this takes minutes")
  with clock("still compiling"):
    result = plan(config, args.topology)
  result = {"command": " ".join(["python", "launch/aot.py", *argv]), "config": " ".join([args.config, *rest]), **result}
  print(table(result))
  if args.out:
    args.out.write_text(json.dumps(result, indent=2) + "\n")
  return 0 if result["fits"] else 1


def main() -> None:
  try:
    status = run(sys.argv[1:])
  except InputError as error:
    say(str(error))
    status = 2
  sys.exit(status)


if __name__ == "__main__":
  main()
