"""How fast trained networks answer, against PyTorch, and what Da-HAR's attention costs over its baseline.

  python benchmarks/predict.py --out=predict-cpu.json
  python benchmarks/predict.py --gpu --systems=resnet101,dahar --dtypes=bfloat16 --out=predict-gpu.json
  pip install torch                                        for the other side; --torch= (nothing) leaves it out

Images go in as bytes in numpy, probabilities come out as numpy, for one view, five crops, or ten views (five crops from the
host and their mirrors, which are made on the device), all in one program. Latency is that of a call that is waited for. In
the throughput calls follow each other, and the answer of two calls before is read. Images a second are source images: ten
views count as one.

Our sides are the network as it was trained (`plain`) and with batch norm folded into the convolutions (`folded`,
attr_jax.nn.folding). PyTorch's have the same weights, channels-last memory and inference_mode: `eager`, `fused` (batch norm
folded, bf16 weights in bf16) and `compiled` (that under torch.compile). All sides take turns. The ratio is the images a second
of our best side over those of PyTorch's best, the median over turns; systems that are not written in PyTorch have none.
"""

import argparse
import copy
import functools
import itertools
import os
import statistics
import sys
import time

# PyTorch's threads otherwise go on spinning while the other side has its turn.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# Of a GPU's memory; the rest is for PyTorch.
os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", "0.45")

import jax
import numpy as np

from attr_jax import config as config_lib
from attr_jax import metrics
from attr_jax import models
from attr_jax import sharding
from attr_jax import steps
from attr_jax.nn import folding
import timing

BAR = 1.0
PAPER_OVERHEAD = 1.08  # of Da-HAR over its baseline in Wu et al.: 24.04 ms against 22.28 ms, one image on a GTX 1080 Ti
OURS, RIVALS = ("plain", "folded"), ("eager", "fused", "compiled")
# system -> model, labels, (height, width), its class in torch_nets.py
SYSTEMS = {
    "resnet50": ({"name": "baseline", "depth": 50}, 14, (224, 224), "Baseline"),
    "resnet101": ({"name": "baseline", "depth": 101}, 14, (224, 224), "Baseline"),
    "dahar": ({"name": "dahar", "depth": 101}, 14, (224, 224), "DaHAR"),
    "attncnn": ({"name": "attncnn_rnn", "depth": 50}, 1103, (224, 224), None),
    "ssp": ({"name": "face", "system": "ssp"}, 40, (218, 178), None),
    "ssg": ({"name": "face", "system": "ssg"}, 40, (218, 178), None),
}
# (system, views, images, dtype): what two cores do in about two minutes
ON_CPU = [
    ("resnet50", 1, 1, "float32"), ("resnet50", 1, 8, "float32"), ("resnet50", 10, 1, "float32"), ("resnet50", 1, 1, "bfloat16"),
    ("resnet101", 1, 1, "float32"), ("dahar", 1, 1, "float32"), ("attncnn", 1, 1, "float32"), ("ssp", 1, 1, "float32"),
    ("ssg", 1, 1, "float32"),
]


@functools.lru_cache(maxsize=2)
def network(system):
  """Random float32 (params, batch_stats) in which signals keep their size, as numpy."""
  options, labels, size, _ = SYSTEMS[system]
  model = models.build(options, labels)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, *size, 3), np.float32), train=False))
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key.endswith("kernel"):
      fan_in = np.prod(leaf.shape[:-1])
      return (rng.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)).astype(np.float32)
    low, high = {"scale": (0.8, 1.2), "var": (0.8, 1.2), "slope": (0.2, 0.3)}.get(path[-1].key, (-0.1, 0.1))
    return rng.uniform(low, high, leaf.shape).astype(np.float32)

  drawn = jax.tree_util.tree_map_with_path(draw, shapes)
  return drawn["params"], drawn["batch_stats"]


def pictures(case):
  """Noise, several batches of it: uint8 [B, (5,) H, W, 3] each."""
  system, views, count, _ = case
  shape = (count, *(() if views == 1 else (5,)), *SYSTEMS[system][2], 3)
  rng = np.random.default_rng(1)
  return [rng.integers(0, 256, shape, np.uint8) for _ in range(4 if count < 64 else 2)]


def our_sides(case):
  """side -> (start, finish): `start(image)` sends a batch off, `finish` of its result gives probabilities [B, L]."""
  system, views, _, dtype = case
  options, labels, _, _ = SYSTEMS[system]
  config = config_lib.default_config()
  config.compute_dtype = dtype
  step = steps.make_predict_step(models.build(options, labels, dtype), config)
  mesh = sharding.make_mesh(jax.devices()[:1])
  rows = sharding.over_batch(mesh)

  def put(image):
    more = {"mirror": np.ones(len(image), bool)} if views == 10 else {}
    return sharding.put_batch({"image": image, **more}, rows)

  trained = jax.device_put(network(system), sharding.replicated(mesh))
  plan = folding.find(step, *trained, put(pictures(case)[0]))
  folded = jax.jit(functools.partial(folding.fold, plan))(*trained)

  def side(function, variables):
    program = steps.compile_predict_step(function, mesh)
    return lambda image: program(*variables, put(image)), lambda rows: metrics.probabilities(np.asarray(rows["logit"]))

  return {"plain": side(step, trained), "folded": side(folding.without_norms(plan, step), folded)}


def fuse(net, dtype):
  """Batch norm folded into the convolutions of a torch network, in place, and their weights in `dtype`."""
  import torch
  from torch.nn.utils import fusion

  for module in list(net.modules()):
    for name, child in list(module.named_children()):
      if isinstance(child, torch.nn.BatchNorm2d):
        layer = name.replace("bn", "conv")
        setattr(module, layer, fusion.fuse_conv_bn_eval(getattr(module, layer), child).to(dtype))
        setattr(module, name, torch.nn.Identity())
  return net


def torch_sides(case, names, compile_mode):
  """The same of PyTorch; {} for a system that is not written in it."""
  system, views, _, dtype = case
  options, labels, _, rival = SYSTEMS[system]
  if rival is None or not names:
    return {}
  try:
    import torch
  except ImportError as error:
    raise SystemExit("the other side of this benchmark needs PyTorch: pip install torch (or --torch= to leave it out)") from error
  import torch_nets

  device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  if (device.type == "cuda") != (jax.default_backend() == "gpu"):
    raise SystemExit(f"PyTorch would run on {device.type} and jax on {jax.default_backend()}: no comparison")
  torch.backends.cudnn.benchmark = True
  low = getattr(torch, dtype)
  net = torch_nets.copy_variables(getattr(torch_nets, rival)(labels, options["depth"]), *network(system)).eval()
  net = net.to(device, memory_format=torch.channels_last)
  nets = {"eager": net}
  if set(names) & {"fused", "compiled"}:
    nets["fused"] = fuse(copy.deepcopy(net), low).to(memory_format=torch.channels_last)

  def predict(net, image):
    if views == 10:
      image = torch.cat([image, image.flip(-2)], 1)
    logits = net(image.reshape(-1, *image.shape[-3:]))["logits"]
    return torch.sigmoid(logits.float().reshape(len(image), -1, logits.shape[-1]).mean(1))

  def side(name):
    call = functools.partial(predict, nets["fused" if name == "compiled" else name])
    if name == "compiled":
      call = torch.compile(call, mode=compile_mode, dynamic=False)

    def start(image):
      image = torch.from_numpy(image)
      if device.type == "cuda":
        image = image.pin_memory().to(device, non_blocking=True)
      with torch.inference_mode(), torch.autocast(device.type, low, enabled=dtype != "float32"):
        return call(image).clone()  # a CUDA graph writes its next answer into the same place

    return start, lambda answer: answer.cpu().numpy()

  return {name: side(name) for name in names}


def turn(side, images, calls):
  """(seconds of each call that is waited for, seconds per call of a row of them, probabilities of the first)."""
  start, finish = side
  latency = []
  for i in range(calls):
    begin = time.perf_counter()
    answer = finish(start(images[i % len(images)]))
    latency.append(time.perf_counter() - begin)
    first = answer if i == 0 else first
  begin, answers = time.perf_counter(), []
  for i in range(calls):
    answers.append(start(images[i % len(images)]))
    if i > 1:
      answers[i - 2] = finish(answers[i - 2])
  for i in range(max(0, calls - 2), calls):
    answers[i] = finish(answers[i])
  return latency, (time.perf_counter() - begin) / calls, first


def take_turns(sides, images, args):
  """side -> its figures. `sides` gives functions; `images` the batches of each side."""
  found, calls = {}, {}
  for name, side in sides.items():
    begin = time.perf_counter()
    first = turn(side, images[name], 1)[2]  # compiles
    found[name] = {"seconds_to_first_answers": time.perf_counter() - begin, "first": first, "latency": [], "seconds": []}
    seconds = turn(side, images[name], 1)[1]
    calls[name] = int(min(500, max(1, np.ceil(args.window / seconds))))
  names = list(sides)
  for number in range(args.turns):
    for name in names[number % len(names):] + names[:number % len(names)]:  # so that none always follows the same one
      latency, seconds, _ = turn(sides[name], images[name], calls[name])
      found[name]["latency"] += latency
      found[name]["seconds"].append(seconds)
  return found


def largest_difference(found):
  """Between the probabilities of any side and those of the first."""
  return max(float(np.abs(figures.pop("first") - first).max())
             for first in [next(iter(found.values()))["first"]] for figures in found.values())


def measure_case(case, args):
  """A line of the table, and our sides, which may be measured again."""
  images, sides, failed = pictures(case), our_sides(case), {}
  rivals = torch_sides(case, args.torch, args.compile_mode)
  if "compiled" in rivals:
    try:
      turn(rivals["compiled"], images, 1)
    except Exception as error:  # of any kind: a compiler is missing, an operator is not known to it
      failed["compiled"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
      del rivals["compiled"]
  found = take_turns(sides | rivals, dict.fromkeys(sides | rivals, images), args)
  difference = largest_difference(found)
  limit = 1e-3 if case[3] == "float32" else 0.1
  if not difference <= limit:
    raise SystemExit(f"{case}: the sides do not compute the same; probabilities differ by {difference:.2g}")
  median = lambda name: statistics.median(found[name]["seconds"])
  ours, rival = min(OURS, key=median), min(rivals, key=median, default=None)
  seconds = {name: figures["seconds"] for name, figures in found.items()}
  line = {
      "system": case[0], "views": case[1], "batch": case[2], "dtype": case[3], "sides": found, "failed": failed,
      "ours": ours, "rival": rival,
      "largest_difference": difference, "folding": timing.median_ratio(seconds, "plain", "folded"),
      "ratio": timing.median_ratio(seconds, rival, ours) if rival else None,
  }
  return line, sides


def overhead(kept, args):
  """How many times as long Da-HAR takes as its baseline, for one image: waited for, each at its best."""
  base, full = kept["resnet101"], kept["dahar"]
  sides = {f"{system} {name}": side for system, named in (("baseline", base), ("full", full)) for name, side in named.items()}
  images = dict.fromkeys(sides, pictures(("dahar", 1, 1, "float32")))
  found = take_turns(sides, images, args)
  for figures in found.values():
    del figures["first"]
  best = {system: min((name for name in sides if name.startswith(system)), key=lambda name: statistics.median(found[name]["latency"]))
          for system in ("baseline", "full")}
  medians = {name: statistics.median(found[name]["latency"]) for name in sides}
  return {"latency": {name: figures["latency"] for name, figures in found.items()}, "best": best,
          "ratio": medians[best["full"]] / medians[best["baseline"]], "paper": PAPER_OVERHEAD}


def cases(args):
  if not args.gpu:
    wanted = lambda case: case[0] in args.systems and case[1] in args.views and case[2] in args.batches and case[3] in args.dtypes
    return [case for case in ON_CPU if wanted(case)]
  product = itertools.product(args.systems, args.dtypes, args.views, args.batches)
  return [(system, views, batch, dtype) for system, dtype, views, batch in product]


def measure(args):
  """All lines and what they were measured on, ready for JSON."""
  chosen = cases(args)
  if not chosen:
    raise SystemExit("no case is left; without --gpu there are: " + ", ".join("/".join(map(str, case)) for case in ON_CPU))
  lines, kept, over = [], {}, {}
  for case in chosen:
    line, sides = measure_case(case, args)
    lines.append(line)
    print(row(line), file=sys.stderr, flush=True)
    if case[1:3] == (1, 1):
      kept.setdefault(case[3], {})[case[0]] = sides
  for dtype, named in kept.items():
    if {"resnet101", "dahar"} <= named.keys():
      over[dtype] = overhead(named, args)
  return {"command": " ".join(["python", *sys.argv]), "arguments": vars(args) | {"out": None}, **timing.machine(),
          "torch": torch_version(args), "lines": lines, "overhead": over, "bar": BAR}


def torch_version(args):
  if not args.torch:
    return None
  import torch

  return torch.__version__


def row(line):
  figures = line["sides"][line["ours"]]
  latency = 1e3 * np.array(figures["latency"])
  rate = line["batch"] / statistics.median(figures["seconds"])
  ratio = f"{line['ratio']:>6.2f} {line['rival']}" if line["rival"] else f"{'-':>6}"
  return (f"{line['system']:<10}{line['views']:>5}{line['batch']:>6} {line['dtype']:<9}{rate:>9.1f}{np.median(latency):>9.2f}"
          f"{np.percentile(latency, 95):>8.2f}{line['folding']:>8.2f}{ratio}")


def table(result):
  """The result in lines of at most 80 columns."""
  lines = [f"{'system':<10}{'views':>5}{'batch':>6} {'dtype':<9}{'images/s':>9}{'ms':>9}{'ms p95':>8}{'folding':>8}{'ratio':>6} torch's"]
  lines += [row(line) for line in result["lines"]]
  rated = [line["ratio"] for line in result["lines"] if line["ratio"]]
  if rated:
    missed = sum(ratio < result["bar"] for ratio in rated)
    lines.append(f"ratio: ours over PyTorch {result['torch']}, bar {result['bar']}: "
                 f"{'met' if not missed else f'missed in {missed} of {len(rated)}'}")
  for line in result["lines"]:
    lines += [f"{line['system']}: torch {name} failed: {reason}"[:80] for name, reason in line["failed"].items()]
  for dtype, found in result["overhead"].items():
    lines.append(f"Da-HAR / baseline, one image, {dtype}: {found['ratio']:.2f} (paper {found['paper']})")
  return "\n".join([*lines, f"{result['device']}, load {result['load_average']:.1f} on {result['cores']} cores"])


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  names = lambda text: tuple(filter(None, text.split(",")))
  numbers = lambda text: tuple(int(number) for number in names(text))
  parser.add_argument("--gpu", action="store_true", help="all that the next four say; otherwise what of it is in a short list")
  parser.add_argument("--systems", type=names, default=tuple(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
  parser.add_argument("--views", type=numbers, default=(1, 5, 10))
  parser.add_argument("--batches", type=numbers, default=(1, 8, 64, 256), help="source images")
  parser.add_argument("--dtypes", type=names, default=("float32", "bfloat16"))
  parser.add_argument("--torch", type=names, help=f"of {','.join(RIVALS)} (default: all; on a CPU without the last)")
  parser.add_argument("--compile-mode", default="default", help="of torch.compile, such as max-autotune")
  parser.add_argument("--turns", type=int, default=4)
  parser.add_argument("--window", type=float, help="seconds of each turn (default: 1; on a CPU 0.3)")
  args = timing.parse(parser)
  args.torch = (RIVALS if args.gpu else RIVALS[:2]) if args.torch is None else args.torch
  args.window = args.window or (1.0 if args.gpu else 0.3)
  timing.tell(measure(args), table, args.out)


if __name__ == "__main__":
  main()
