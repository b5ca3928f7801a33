"""How fast a training step and a forward pass are, against the same network in PyTorch on the same machine.

  pip install torch
  python benchmarks/train_step.py --out=docs/results/train-step-cpu.json
  python benchmarks/train_step.py --gpu --out=docs/results/train-step-gpu.json

A step is bytes on the device -> normalised -> forward -> loss -> gradients -> SGD with momentum and weight decay, float32
parameters; ours is the compiled step of `attr_jax.steps` with its state donated. Both sides have the same weights, written into
`torch_nets.py`, and four batches of random bytes that take turns.

First the loss and the gradients of step 1 (forward: the logits) must equal those of PyTorch in float32, run eagerly: ours and
every rival's. A side that is beyond TOLERANCE is not timed. Then ours and one rival after the other take turns. The rivals:
  eager            channels last, cudnn.benchmark, fused SGD, gradients set to None
  compile          that, torch.compile
  reduce-overhead  that, with CUDA graphs (GPU)
  max-autotune     that, with tuned kernels (GPU; minutes of compilation)
The fastest of them counts; the ratio is its time over ours, the median over turns. On a CPU images per core-second come from
the processor time, which a shared machine disturbs less. `--scan=K` also shows ours with K steps per call; it does not count.

On two CPU cores torch.compile takes minutes per network, so that it must be asked for: --rivals=eager,compile --minutes=20.
What does not begin within `--minutes` is listed, not run. With JAX_COMPILATION_CACHE_DIR set a second run goes further, and
its compile seconds mean nothing. XLA's bytes on a GPU leave out what the libraries move that it calls.
"""

import argparse
import functools
import gc
import itertools
import math
import os
import statistics
import sys
import time

os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", "0.45")  # both sides must fit on a GPU
# Read when torch is imported: its threads otherwise go on spinning while ours have their turn.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing

from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps

# name -> our model, its options, what a training image moves through memory at least (bytes), see `floor`
NETWORKS = {
    "resnet50": ("baseline", {"depth": "50"}, 361e6),
    "resnet101": ("baseline", {"depth": "101"}, 539e6),
    "dahar": ("dahar", {"depth": "101"}, 644e6),
    "tiny": ("baseline", {"depth": "tiny"}, None),
}
RIVALS = {"eager": None, "compile": "default", "reduce-overhead": "reduce-overhead", "max-autotune": "max-autotune"}
BARS = {
    "cpu": {"train": 0.6, "forward": 1.0},
    "gpu": {"train": {"resnet50": 1.25, "resnet101": 1.25, "dahar": 1.3}, "forward": {}},
}
# Largest relative difference from the float32 reference, of the loss or logits and of all gradients together. Where rounding
# takes a value to the other side of a ReLU the gradient jumps: parameters moved by 1e-7 change the gradients of a ResNet-50 on 4
# images by 2e-3, and torch's own bf16 by 0.3 (see `first_variables`). The differences of the rivals are printed beside ours.
TOLERANCE = {"float32": (1e-4, 2e-2), "tf32": (1e-2, 0.2), "bfloat16": (1e-2, 0.5)}
LABELS, BATCHES = 14, 4


def make_config(network, dtype, batch, size):
  name, options, _ = NETWORKS[network]
  config = config_lib.default_config()
  config.model.name = name
  config.model.update(options)
  config.batch_size, config.input.size, config.compute_dtype = batch, (size, size), dtype
  config.optimizer.learning_rate, config.loss.unspecified = 0.003, "ignore"
  return config


def make_batches(batch, size):
  rng = np.random.default_rng(0)
  return [{
      "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
      "label": rng.integers(0, 2, (batch, LABELS)).astype(np.uint8),
      "known": rng.random((batch, LABELS)) < 0.8,
      "person_mask": np.where(rng.random((batch, size, size)) < 0.5, 255, 0).astype(np.uint8),
      "id": np.arange(batch),
  } for _ in range(BATCHES)]


def first_variables(network):
  """(params, batch_stats) of a fresh network, numpy, its residual branches scaled to a fifth.

  As they start, the gradients of 1e-7 other parameters are 3 % other ones, in bf16 140 %: nothing could be compared.
  """
  config = make_config(network, "float32", 1, 64)
  model = models.build(config.model, LABELS)
  tx = optim.make_optimizer(config, optim.make_schedule(config, 1000, 1000))
  state = state_lib.create_state(model, tx, (64, 64, 3), {}, sharding.make_mesh(jax.devices()[:1]), seed=0)
  params, batch_stats = sharding.to_host((state.params, state.batch_stats))
  last = "bn2" if network == "tiny" else "bn3"
  damp = lambda path, x: x * np.float32(0.2) if [key.key for key in path[-2:]] == [last, "scale"] else x
  return jax.tree_util.tree_map_with_path(damp, params), batch_stats


def off(found, reference):
  """Relative difference of two lists of arrays, all values together."""
  square = lambda arrays: sum(float(np.square(x, dtype=np.float64).sum()) for x in arrays)
  return math.sqrt(square([a - b for a, b in zip(found, reference, strict=True)]) / square(reference))


def timed(function):
  """What it returns, and the seconds that it took."""
  start = time.perf_counter()
  return function(), time.perf_counter() - start


# Our side: (run, seconds of compilation, program, first()), where first() does step 1 and gives ([loss], gradients by torch's names)
# or ([logits], []).


def our_step(config, batches, variables, net, scan=0):
  import torch_nets

  name = config.model.name
  model = models.build(config.model, LABELS, config.compute_dtype)
  objective = functools.partial(models.MODELS[name].objective, positive_ratio=np.full(LABELS, 0.3, np.float32), **config.loss)
  mesh = sharding.make_mesh(jax.devices()[:1])
  run, seconds, program = timing.compiled_step(config, model, objective, batches, mesh=mesh, variables=variables, scan=scan)

  def first():
    state, scalars = run()
    # After one step the momentum is the gradient and its share of the weight decay.
    momentum = optax.tree_utils.tree_get(state.opt_state, "trace")
    decay = config.optimizer.weight_decay
    gradients = jax.tree.map(lambda m, p: np.asarray(m) - decay * p, momentum, variables[0])
    return [np.asarray(scalars["loss"])], torch_nets.torch_names(gradients, net)

  return run, seconds, program, first


def our_forward(config, batches, variables):
  model = models.build(config.model, LABELS, config.compute_dtype)
  mesh = sharding.make_mesh(jax.devices()[:1])
  step = steps.compile_predict_step(steps.make_predict_step(model, config), mesh)
  variables = jax.device_put(variables, sharding.replicated(mesh))
  images = [sharding.put_batch({"image": batch["image"]}, sharding.over_batch(mesh)) for batch in batches]
  program, seconds = timed(lambda: step.lower(*variables, images[0]).compile())

  def run(count=1):
    for i in range(count):
      rows = program(*variables, images[i % len(images)])
    return jax.block_until_ready(rows)

  return run, seconds, program, lambda: ([np.asarray(run()["logit"])], {})


# The other side, likewise.


def torch_run(kind, config, net, batches, mode):
  """A rival on a network of its own: (run, first), nothing compiled yet."""
  import torch
  import torch_nets

  device = torch_device()
  net = net.to(device, memory_format=torch.channels_last)
  bf16 = config.compute_dtype == "bfloat16"
  batches = [torch_nets.put_batch(batch, device) for batch in batches]
  optimizer = torch_nets.make_optimizer(net.train(kind == "train"), config.optimizer, fused=True)
  loss_of = torch_nets.LOSSES[type(net)]
  turn = 0

  def forward(batch):
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
      out = net(batch["image"])
      return loss_of(out, batch) if kind == "train" else out["logits"]

  if mode:
    forward = torch.compile(forward, mode=mode, dynamic=False)

  def run(count=1):
    nonlocal turn
    for _ in range(count):
      batch = batches[turn % len(batches)]
      turn += 1
      if mode == "reduce-overhead" or mode == "max-autotune":
        torch.compiler.cudagraph_mark_step_begin()
      if kind == "train":
        optimizer.zero_grad(set_to_none=True)
        result = forward(batch)
        result.backward()
        optimizer.step()
      else:
        with torch.inference_mode():
          result = forward(batch)
    if device == "cuda":
      torch.cuda.synchronize()
    return result

  def first():
    result = run().detach().float().cpu().numpy()
    gradients = {name: p.grad.cpu().numpy() for name, p in net.named_parameters()} if kind == "train" else {}
    return [result], gradients

  return run, first


def torch_device():
  return "cuda" if jax.default_backend() == "gpu" else "cpu"


def exact_float32(exact):
  """Whether torch's float32 is float32, or TF32 on a GPU, as XLA's is by default."""
  import torch

  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not exact


def differences(found, reference):
  """{"value": of the loss or the logits, "gradient"}, relative."""
  gradients = sorted(reference[1])
  return {
      "value": off(found[0], reference[0]),
      "gradient": off([found[1][name] for name in gradients], [reference[1][name] for name in gradients]) if gradients else 0.0,
  }


def beyond(difference, dtype):
  """Why a side must not be timed, or None."""
  kind = "tf32" if dtype == "float32" and torch_device() == "cuda" else dtype
  value, gradient = TOLERANCE[kind]
  if difference["value"] <= value and difference["gradient"] <= gradient:
    return None
  return f"off by {difference['value']:.0e}, gradients by {difference['gradient']:.0e}; allowed {value:.0e} and {gradient:.0e}"


def measure_case(case, variables, args, deadline):
  """One row of tables: all systems of a (kind, network, dtype, batch), ready for JSON."""
  import torch
  import torch_nets
  from torch.utils import flop_counter

  kind, network, dtype, batch = case
  config, batches = make_config(network, dtype, batch, args.size), make_batches(batch, args.size)
  depth = config.model.depth
  rival_class = {"baseline": torch_nets.Baseline, "dahar": torch_nets.DaHAR}[config.model.name]
  make_net = lambda: torch_nets.copy_variables(rival_class(LABELS, int(depth) if depth.isdigit() else depth), *variables)

  exact_float32(True)
  counter = flop_counter.FlopCounterMode(display=False)  # of convolutions and matrix products, 2 per multiply-add
  with counter:
    reference = torch_run(kind, make_config(network, "float32", batch, args.size), make_net(), batches[:1], None)[1]()
  exact_float32(False)
  release()

  if kind == "train":
    run, seconds, program, first = our_step(config, batches, variables, make_net())
  else:
    run, seconds, program, first = our_forward(config, batches, variables)
  difference = differences(first(), reference)
  flops, moved = timing.counts_of(program)
  result = {
      "kind": kind, "network": network, "dtype": dtype, "batch": batch,
      "bar": bar(kind, network),
      "xla_gflop_per_image": flops / batch / 1e9,
      "gflop_per_image": counter.get_total_flops() / batch / 1e9,
      "xla_megabytes_per_image": moved / batch / 1e6,
      "floor_megabytes_per_image": floor(kind, network, dtype, args.size),
      "systems": {"ours": {"compile_seconds": seconds, "off": difference, "refused": beyond(difference, dtype),
                           "peak_gigabytes": timing.bytes_of(program) / 1e9}},
      "left_out": [],
  }
  if result["systems"]["ours"]["refused"]:
    return result
  if args.scan and kind == "train":
    looped, seconds, program, _ = our_step(config, batches, variables, make_net(), args.scan)
    row = {"compile_seconds": seconds, "off": None, "refused": None, "peak_gigabytes": timing.bytes_of(program) / 1e9}
    result["systems"][f"ours, {args.scan} a call"] = row | take_turns(run, looped, args, args.scan)
    del looped, program
  slowest = 0.0
  for name in args.rivals:
    if time.monotonic() + slowest > deadline:
      result["left_out"].append(name)
      continue
    row, seconds = timed(lambda: measure_rival(kind, config, make_net(), batches, name, run, reference, args))
    slowest = max(slowest, seconds)
    result["systems"][f"torch {name}"] = row
    torch.compiler.reset()
    release()
  rivals = {name: row for name, row in result["systems"].items() if name.startswith("torch") and "ratio" in row}
  if rivals:
    best = min(rivals, key=lambda name: statistics.median(rivals[name]["step_seconds"]))
    result |= {"best": best, "ratio": rivals[best]["ratio"], "processor_ratio": rivals[best]["processor_ratio"]}
  return result


def measure_rival(kind, config, net, batches, name, run, reference, args):
  """A rival's row: its difference and, unless it is refused, its turns with ours."""
  import torch

  on_gpu = torch_device() == "cuda"
  held = torch.cuda.memory_allocated() if on_gpu else 0
  theirs, first = torch_run(kind, config, net, batches, RIVALS[name])
  try:
    found, seconds = timed(first)
  except Exception as error:  # torch.compile has many ways to fail: no compiler, no memory, no support
    return {"refused": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"}
  difference = differences(found, reference)
  row = {"compile_seconds": seconds if RIVALS[name] else 0.0, "off": difference, "refused": beyond(difference, config.compute_dtype),
         "peak_gigabytes": None}
  if row["refused"]:
    return row
  if on_gpu:
    theirs(3)
    torch.cuda.reset_peak_memory_stats()
    theirs()
    row["peak_gigabytes"] = (torch.cuda.max_memory_allocated() - held) / 1e9
  return row | take_turns(run, theirs, args)


def take_turns(run, other, args, scan=1):
  """Seconds per step of ours and of another program that does `scan` steps a call, and how many times as long the other takes."""
  pairs = [(run, scan), (other, 1)]
  # Both once, then as often as fills the window: a call that waits for the device each time would measure the waiting.
  fastest = min(timed(lambda: call(count))[1] / scan for call, count in pairs for _ in range(2))
  count = max(1, math.ceil(args.window / fastest / scan))
  runs = {"ours": lambda: run(count * scan), "other": lambda: other(count)}
  wall, processor = timing.take_turns(runs, args.repeats)
  per_step = lambda seconds: [s / (count * scan) for s in seconds]
  return {
      "steps_per_turn": count * scan,
      "step_seconds": per_step(wall["other"]),
      "processor_seconds": per_step(processor["other"]),
      "ours_step_seconds": per_step(wall["ours"]),
      "ours_processor_seconds": per_step(processor["ours"]),
      "ratio": timing.median_ratio(wall, "other", "ours"),
      "processor_ratio": timing.median_ratio(processor, "other", "ours"),
  }


def release():
  """Gives back what torch no longer needs."""
  import torch

  gc.collect()
  if torch_device() == "cuda":
    torch.cuda.empty_cache()


def bar(kind, network):
  value = BARS["gpu" if torch_device() == "cuda" else "cpu"][kind]
  return value.get(network) if isinstance(value, dict) else value


def floor(kind, network, dtype, size):
  """MB that a training image moves where only convolutions and batch norm touch memory: our count; None where there is none.

  Convolutions read ready tensors; batch norm takes one pass for its statistics and one to apply them together with ReLU or the
  sum of a block, backward one reduction and one pass, with ReLU's mask computed again. Weights are left out. At 224 px in bf16.
  """
  per_image = NETWORKS[network][2]
  if kind != "train" or per_image is None:
    return None
  return per_image / 1e6 * (size / 224) ** 2 * (2 if dtype == "float32" else 1)


def device_rates():
  """What the GPU can do, on random data: {dtype: FLOP/s of a product of 8192 x 8192 matrices}, B/s of a copy; None on a CPU."""
  if torch_device() != "cuda":
    return None

  def fastest(function, x):
    jax.block_until_ready(function(x))
    seconds = []
    for _ in range(5):
      start = time.perf_counter()
      y = [function(x) for _ in range(20)][-1]
      jax.block_until_ready(y)
      seconds.append((time.perf_counter() - start) / 20)
    return min(seconds)

  side = 8192
  product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
  rates = {"copy": 2 * 4 * 2**28 / fastest(copy, jax.random.normal(jax.random.key(0), 2**28))}
  for dtype in ("float32", "bfloat16"):
    rates[dtype] = 2 * side**3 / fastest(product, jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype)))
  return rates


def measure(args):
  """All cases that fit into the time, ready for JSON."""
  deadline = time.monotonic() + 60 * args.minutes
  try:
    import torch
  except ImportError:
    raise SystemExit("train_step.py compares with PyTorch, which is not here: pip install torch") from None

  if torch_device() == "cuda" and not torch.cuda.is_available():
    raise SystemExit("train_step.py: jax has a GPU, torch has none; install a torch with CUDA")
  torch.backends.cudnn.benchmark = True
  variables, cases, left_out, longest = {}, [], [], 0.0
  rates = device_rates()
  for batch, dtype, network, kind in itertools.product(args.batch, args.dtype, args.network, args.kind):
    case = (kind, network, dtype, batch)
    if time.monotonic() + longest > deadline:
      left_out.append(case)
      continue
    if network not in variables:
      variables[network] = first_variables(network)
    result, seconds = timed(lambda: measure_case(case, variables[network], args, deadline))
    print(table_of_case(result, rates), flush=True)
    cases.append(result)
    longest = max(longest, seconds)
  return {
      "command": " ".join(["python", *sys.argv]),
      "arguments": vars(args) | {"out": None},
      **timing.machine(),
      "torch": torch.__version__,
      "xla_flags": os.environ.get("XLA_FLAGS", ""),
      "rates": rates,
      "cases": cases,
      "left_out": left_out,
  }


def table_of_case(result, rates):
  """A case in a few lines of at most 80 columns."""
  batch, on_cpu = result["batch"], rates is None
  last = "per core-s" if on_cpu else "peak GB"
  lines = [f"{result['network']}, {result['kind']}, {result['dtype']}, batch {batch}",
           f"  {'system':<22} {'ms/step':>8} {'images/s':>9} {last:>10} {'compile s':>9} {'ratio':>6}"]
  timed_rows = [row for row in result["systems"].values() if "step_seconds" in row]
  ours = result["systems"]["ours"]
  if timed_rows:
    lines.append(_line("ours", ours, [s for row in timed_rows for s in row["ours_step_seconds"]],
                       [s for row in timed_rows for s in row["ours_processor_seconds"]], batch, on_cpu))
  for name, row in result["systems"].items():
    if row.get("refused"):
      lines.append(f"  {name}: {row['refused']}"[:80])
    elif "step_seconds" in row:
      lines.append(_line(name, row, row["step_seconds"], row["processor_seconds"], batch, on_cpu))
  lines.append("  step 1, from float32: " + "; ".join(
      f"{name.removeprefix('torch ')} {row['off']['value']:.0e} {row['off']['gradient']:.0e}"
      for name, row in result["systems"].items() if row.get("off")))
  facts = (f"  {result['gflop_per_image']:.1f} GFLOP/image; XLA counts {result['xla_gflop_per_image']:.1f}, "
           f"{result['xla_megabytes_per_image']:.0f} MB, peak {ours['peak_gigabytes']:.2f} GB")
  lines.append(facts)
  if rates and timed_rows:
    seconds = statistics.median(timed_rows[0]["ours_step_seconds"]) / batch
    share = f"MFU {result['gflop_per_image'] * 1e9 / seconds / rates[result['dtype']]:.0%}"
    if result["floor_megabytes_per_image"]:
      share += f", {result['floor_megabytes_per_image'] * 1e6 / rates['copy'] / seconds:.0%} of the memory floor"
    lines.append(f"  {share} ({rates[result['dtype']] / 1e12:.0f} TFLOP/s, {rates['copy'] / 1e12:.2f} TB/s measured)")
  if "ratio" in result:
    verdict = "" if result["bar"] is None else f"; bar {result['bar']}: {'met' if result['ratio'] >= result['bar'] else 'missed'}"
    processor = f", {result['processor_ratio']:.2f} x in processor time" if on_cpu else ""
    lines.append(f"  {result['ratio']:.2f} x the best ({result['best']}){processor}{verdict}")
  if result["left_out"]:
    lines.append(f"  no time left for {', '.join(result['left_out'])}")
  return "\n".join(lines)


def _line(name, row, wall, processor, batch, on_cpu):
  median = statistics.median(wall)
  peak = row["peak_gigabytes"]
  last = f"{batch / statistics.median(processor):>10.2f}" if on_cpu else f"{peak:>10.2f}"
  ratio = f"{row['ratio']:>6.2f}" if "ratio" in row else ""
  return f"  {name:<22} {1e3 * median:>8.1f} {batch / median:>9.1f} {last} {row['compile_seconds']:>9.1f} {ratio}".rstrip()


def table(result):
  """The end of what `measure` has printed case by case."""
  lines = [f"{result['device']}, {result['cores']} cores, load {result['load_average']:.1f}, jax {result['jax']}, torch {result['torch']}"]
  lines += [f"no time left for {', '.join(map(str, case))}" for case in result["left_out"]]
  return "\n".join(lines)


def words(known):
  """The type of an option that takes several of `known`, by commas."""
  def parse(text):
    wrong = [word for word in text.split(",") if word not in known]
    if wrong:
      raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not one of {', '.join(known)}")
    return text.split(",")

  return parse


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--gpu", action="store_true", help="the sizes for one large GPU; else those for two CPU cores")
  parser.add_argument("--network", type=words(NETWORKS), help=f"some of {', '.join(NETWORKS)}, by commas")
  parser.add_argument("--kind", type=words(("train", "forward")), help="train, forward or both")
  parser.add_argument("--batch", type=lambda text: [int(word) for word in text.split(",")], help="batch sizes, by commas")
  parser.add_argument("--dtype", type=words(("float32", "bfloat16")), help="float32, bfloat16 or both")
  parser.add_argument("--rivals", type=words(RIVALS), help=f"some of {', '.join(RIVALS)}, by commas")
  parser.add_argument("--size", type=int, default=224, help="side of the images in px, a multiple of 32")
  parser.add_argument("--scan", type=int, help="also ours with that many steps per call")
  parser.add_argument("--window", type=float, help="seconds of a turn at least")
  parser.add_argument("--repeats", type=int, help="turns that count")
  parser.add_argument("--minutes", type=float, default=5.5, help="nothing new begins after them")
  args = timing.parse(parser)
  if args.size % 32:
    parser.error(f"--size={args.size} is not a multiple of 32")
  if args.gpu and jax.default_backend() != "gpu":
    parser.error(f"--gpu needs a GPU that jax sees; here it sees {jax.devices()[0].device_kind}")
  usual = {"network": ["resnet50", "dahar"], "kind": ["train", "forward"], "batch": [4], "dtype": ["float32"],
           "rivals": ["eager"], "scan": 0, "window": 0.0, "repeats": 3}
  if args.gpu:
    usual |= {"network": ["resnet101", "dahar", "resnet50"], "kind": ["train"], "batch": [128, 32, 256], "dtype": ["bfloat16", "float32"],
              "rivals": list(RIVALS), "scan": 4, "window": 1.0, "repeats": 5}
  for key, value in usual.items():
    if getattr(args, key) is None:
      setattr(args, key, value)
  result = measure(args)
  timing.tell(result, table, args.out)
  if any(row.get("refused") and row.get("off") for case in result["cases"] for row in case["systems"].values()):
    raise SystemExit("train_step.py: a side computes something else, see above")


if __name__ == "__main__":
  main()
