"""Maps of where a network looks for each attribute: all of an image by one forward pass, against a backward pass per attribute.

  python benchmarks/attention.py --out=docs/results/attention-cpu.json

Ours is the program behind `attr-jax predict --pictures`: scores and class activation maps of all attributes of a ResNet with global average
pooling, batch norm folded (here with the trunk's stages among its outputs, which predict leaves out). The rivals have the same weights, images and compiler options:

- gradient: for each attribute a forward pass and a backward one, of its logit with respect to the image. The usual way; the bar is 20.
- shared: the same gradients from one forward pass (`jax.vjp`), then a backward one per attribute.
- gradcam: for each attribute a forward pass and the gradient with respect to the last convolution's output (Selvaraju et al., ICCV
  2017). For this network these maps are ours times a constant, which is checked. With one forward pass for all of them they would cost
  what ours cost.

All are compiled first and then take turns. The ratio is images a second of ours over those of a rival, the median over turns.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import sharding
from attr_jax import steps
from attr_jax.nn import folding
from attr_jax.nn import preprocess
import timing

BAR = 20.0
RIVALS = {"gradient": "forward + backward each", "shared": "one forward, backward each", "gradcam": "Grad-CAM, forward + backward each"}


def make_programs(args):
  """name -> a function that computes the maps of all attributes of the batch and waits for them: [B, h, w, L], rivals L of [B, h, w]."""
  config = config_lib.default_config()
  config.compute_dtype = args.dtype
  model = models.build({"name": "baseline", "depth": args.depth}, args.labels, args.dtype)
  mesh = sharding.make_mesh()
  sharding.check_batch("--batch", args.batch, mesh)
  rows = sharding.over_batch(mesh)
  image = np.random.default_rng(0).integers(0, 256, (args.batch, args.size, args.size, 3), np.uint8)
  batch = sharding.put_batch({"image": image}, rows)
  variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, args.size, args.size, 3)), train=False))(jax.random.key(0))
  explain = steps.make_explain_step(model, config)
  plan = folding.find(explain, variables["params"], variables["batch_stats"], batch)
  weights = jax.jit(functools.partial(folding.fold, plan), out_shardings=sharding.replicated(mesh))(
      variables["params"], variables["batch_stats"])

  def forward(params, batch_stats, inputs):
    return model.apply({"params": params, "batch_stats": batch_stats}, inputs, train=False)

  def normalized(batch):
    return preprocess.normalize(batch["image"], config.input.mean, config.input.std, jnp.dtype(args.dtype))

  def gradient(params, batch_stats, batch):
    """Of the logit that `batch["chosen"]` [B, L] has a 1 for."""
    logit = lambda inputs: (forward(params, batch_stats, inputs)[0] * batch["chosen"]).sum()
    return jnp.abs(jax.grad(logit)(normalized(batch))).max(axis=-1)

  def shared(params, batch_stats, batch):
    _, backward = jax.vjp(lambda inputs: forward(params, batch_stats, inputs)[0], normalized(batch))
    chosen = jnp.broadcast_to(jnp.eye(args.labels)[:, None], (args.labels, args.batch, args.labels))
    return jax.lax.map(lambda one: jnp.abs(backward(one)[0]).max(axis=-1), chosen)

  def gradcam(params, batch_stats, batch):
    cells = forward(params, batch_stats, normalized(batch))[1]["stage4"].astype(jnp.float32)
    head = params["classifier"]
    logit = lambda cells: ((cells.mean(axis=(1, 2)) @ head["kernel"] + head["bias"][None]) * batch["chosen"]).sum()
    importance = jax.grad(logit)(cells).mean(axis=(1, 2), keepdims=True)
    return (importance * cells).sum(axis=-1)

  def compiled(step):
    return functools.partial(steps.compile_predict_step(folding.without_norms(plan, step), mesh), *weights)

  chosen = [sharding.put_batch({"chosen": np.tile(np.eye(args.labels, dtype=np.float32)[i], (args.batch, 1))}, rows) for i in range(args.labels)]
  each = lambda program: lambda: jax.block_until_ready([program(batch | one) for one in chosen])
  ours, all_shared = compiled(explain), compiled(shared)
  return {
      "ours": lambda: jax.block_until_ready(ours(batch)),
      "gradient": each(compiled(gradient)),
      "shared": lambda: jax.block_until_ready(all_shared(batch)),
      "gradcam": each(compiled(gradcam)),
  }


def check(found, args):
  """Raises SystemExit unless the sides compute the same maps where they should; returns the largest differences, of the largest value."""
  maps = np.asarray(found["ours"]["heatmap"], np.float64)
  cells = maps.shape[1] * maps.shape[2]
  apart = lambda a, b: float(np.abs(a - b).max() / np.abs(b).max())
  differences = {
      "gradcam": apart(cells * np.stack([np.asarray(one, np.float64) for one in found["gradcam"]], axis=-1), maps),
      "shared": apart(np.asarray(found["shared"], np.float64), np.stack([np.asarray(one, np.float64) for one in found["gradient"]])),
  }
  limit = 1e-3 if args.dtype == "float32" else 0.1
  if not max(differences.values()) <= limit:
    raise SystemExit(f"the sides do not compute the same maps: {differences}")
  return differences


def measure(args):
  """The times of all sides and what they were measured on, ready for JSON."""
  programs, compiling = make_programs(args), {}
  found = {}
  for name, program in programs.items():
    start = time.perf_counter()
    found[name] = program()
    compiling[name] = time.perf_counter() - start
  differences = check(found, args)
  wall, processor = timing.take_turns(programs, args.repeats)
  return {
      "arguments": vars(args) | {"out": None}, **timing.machine(), "seconds_to_first_maps": compiling, "seconds": wall,
      "processor_seconds": processor,
      "images_per_second": {name: args.batch / statistics.median(seconds) for name, seconds in wall.items()},
      "ratio": {name: timing.median_ratio(wall, name, "ours") for name in RIVALS},
      "processor_ratio": {name: timing.median_ratio(processor, name, "ours") for name in RIVALS}, "largest_difference": differences, "bar": BAR,
  }


def table(result):
  """The result in lines of at most 80 columns."""
  rate, arguments = result["images_per_second"], result["arguments"]
  lines = [f"{'maps of ' + str(arguments['labels']) + ' attributes':<40}{'images/s':>10}{'ours over it':>14}{'in core time':>14}",
           f"{'ours: all by one forward pass':<40}{rate['ours']:>10.3g}"]
  lines += [f"{text:<40}{rate[name]:>10.3g}{result['ratio'][name]:>14.1f}{result['processor_ratio'][name]:>14.1f}" for name, text in RIVALS.items()]
  verdict = "met" if result["ratio"]["gradient"] >= result["bar"] else "missed"
  lines.append(f"bar {result['bar']:g} over forward + backward each: {verdict}")
  lines.append(f"ResNet-{arguments['depth']}, {arguments['size']} px, batch {arguments['batch']}, {arguments['dtype']}; {result['device']}, "
               f"load {result['load_average']:.1f} on {result['cores']} cores")
  return "\n".join(lines)


def main():
  timing.main(__doc__, measure, table, batch=1, labels=26, repeats=3)


if __name__ == "__main__":
  main()
