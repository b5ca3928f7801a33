"""The benchmarks of inference, growth and compilation can say yes and no."""

import copy
import importlib
import runpy
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax import abstract
from attr_jax import evaluate
from attr_jax import hlo
from attr_jax import sharding
from attr_jax.data import pipeline
from attr_jax.data import published
from helpers import REPOSITORY


@pytest.fixture
def script(monkeypatch):
  folder = REPOSITORY / "benchmarks"
  monkeypatch.syspath_prepend(folder)
  yield importlib.import_module
  for path in folder.glob("[!_]*.py"):  # names such as `prepare` shall not be found by a later test; `__main__` is pytest's own
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("place", [1, 2], ids=["cpu", "gpu"])
def test_all_benchmarks_take_their_arguments(script, place, monkeypatch):
  """`python -m benchmarks` would otherwise tell of a wrong argument after minutes."""
  runs, written = runpy.run_path(str(REPOSITORY / "benchmarks" / "__main__.py"), run_name="benchmarks")["RUNS"], []
  monkeypatch.setattr(script("timing"), "tell", lambda result, table, out: written.append(out))
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu" if place == 2 else "cpu")
  for name, run in runs.items():
    if run[place] is not None:
      module = script(run[0].removesuffix(".py"))
      monkeypatch.setattr(module, "measure", lambda args: {"cases": []})
      monkeypatch.setattr(sys, "argv", [run[0], *run[place], f"--out={name}.json"])
      module.main()
  assert [path.stem for path in written] == [name for name, run in runs.items() if run[place] is not None]


@pytest.mark.parametrize("power, met", [(0.0, True), (1.0, True), (1.3, False), (2.0, False)])
def test_growth_judges_the_power_of_the_upper_sizes(script, power, met):
  growth = script("growth")
  sizes = growth.doubled(1000, 64_000)
  assert sizes == [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000]
  # What each call costs rules the small sizes.
  line = growth.judged({"seconds": {n: 0.01 + (n / 1000) ** power for n in sizes}, "megabytes": {n: float(n) for n in sizes}})
  assert line["time_slope"] == pytest.approx(power, abs=0.01) and line["met"] == (met, True)
  steep = growth.judged({"seconds": {n: n * 1e-9 for n in sizes}, "megabytes": {n: n**1.5 for n in sizes}})
  assert steep["met"] == (None, False)  # too short to judge, and too much memory
  machine = {"device": "x", "load_average": 0, "cores": 2}
  shown = growth.table({"lines": {"a/b": line, "c/d": steep}, "epochs": None, "bar": growth.BAR, **machine})
  assert ("OVER met" in shown) == (not met) and "- OVER" in shown and max(map(len, shown.splitlines())) <= 80


def test_a_compiled_program_is_read():
  def function(x):
    with jax.named_scope("bn1/"):
      total = x.sum((0, 1))
    return jnp.sort(x, axis=1).transpose(2, 1, 0), total

  found = hlo.instructions(jax.jit(function).lower(np.ones((32, 16, 8), np.float32)).compile().as_text())
  assert hlo.norm_passes(found) == {"forward": 1, "backward": 0}
  moved = hlo.moved_activations(found, 32 * 16 * 8)
  assert moved and {one.shape for one in moved} == {(8, 16, 32)} and not hlo.moved_activations(found, 32 * 16 * 8 + 1)
  assert {one.body for one in found} >= {one.calls for one in found if one.calls}


def test_memory_that_numpy_holds_is_seen(script):
  assert script("growth").traced_peak(lambda: np.ones(2**20, np.float32)) == pytest.approx(4, rel=0.1)


def test_compilation_compares_whole_rounds(script):
  compilation = script("compilation")
  figures = lambda *seconds: [{"compile": value} for value in seconds]
  found = {name: {"cold": figures(10, 20, 10), "warm": figures(1, 8, 2)} for name in compilation.COMMANDS}
  assert compilation.ratio(found) == pytest.approx(0.2)
  found["predict"]["warm"] = figures(4, 8, 5)
  assert compilation.ratio(found) == pytest.approx(0.3)


def test_full_size_batches_have_the_shapes_of_the_pipeline(config):
  config.input.masks = True
  source = evaluate.open_source(config, evaluate.open_data(config), "train")
  real = pipeline.train_dataset(source, evaluate.input_spec(config), batch_size=config.batch_size, seed=0)[0]
  shapes = abstract.batch(config, published.FACTS[config.data.name], sharding.make_mesh())
  assert {key: value.shape for key, value in shapes.items()} == {key: value.shape for key, value in real.items()}
  assert all(value.dtype == real[key].dtype for key, value in shapes.items() if key != "id")


def test_predictions_of_both_sides_are_compared(script, monkeypatch):
  """Sides that do not compute the same are no comparison."""
  predict = script("predict")
  args = types.SimpleNamespace(torch=("eager", "fused"), compile_mode="default", window=0.0, turns=2)
  side = lambda value: (lambda image: np.full((len(image), 3), value), lambda answer: answer)
  monkeypatch.setattr(predict, "our_sides", lambda case: {"plain": side(0.5), "folded": side(0.5)})
  monkeypatch.setattr(predict, "torch_sides", lambda *_: {"eager": side(0.5), "fused": side(0.4999)})
  line, _ = predict.measure_case(("resnet50", 1, 2, "float32"), args)
  assert line["largest_difference"] == pytest.approx(1e-4) and line["rival"] in ("eager", "fused") and line["ratio"] > 0
  assert len(predict.row(line)) <= 80 and len(line["sides"]["plain"]["seconds"]) == 2
  monkeypatch.setattr(predict, "torch_sides", lambda *_: {"eager": side(0.6)})
  with pytest.raises(SystemExit, match="do not compute the same"):
    predict.measure_case(("resnet50", 1, 2, "float32"), args)


@pytest.mark.parametrize("ratio, verdict", [(21.0, "met"), (19.0, "missed")])
def test_attention_compares_maps_that_are_the_same(script, ratio, verdict):
  """All sides run at a tiny size; the verdict follows the usual rival, and other maps are no comparison."""
  attention = script("attention")
  args = types.SimpleNamespace(depth="tiny", size=32, batch=4, labels=3, dtype="float32", repeats=1, out=None)
  if verdict == "met":
    result = attention.measure(args)
    assert max(result["largest_difference"].values()) < 1e-3 and all(value > 0 for value in result["ratio"].values())
    with pytest.raises(SystemExit, match="do not compute the same maps"):
      maps = np.ones((1, 2, 2, 1))
      attention.check({"ours": {"heatmap": maps}, "gradcam": [maps[..., 0]], "shared": maps[..., 0][None], "gradient": [maps[..., 0]]}, args)
  rates = {name: 1.0 for name in ("ours", *attention.RIVALS)}
  ratios = dict.fromkeys(attention.RIVALS, 1.0) | {"gradient": ratio}
  shown = attention.table({"images_per_second": rates, "ratio": ratios, "processor_ratio": ratios, "arguments": vars(args), "bar": attention.BAR,
                           "device": "1 x cpu", "load_average": 0.0, "cores": 2})
  assert f"backward each: {verdict}" in shown and max(map(len, shown.splitlines())) <= 80


def test_a_fused_torch_network_is_the_network(script):
  torch = pytest.importorskip("torch")
  predict, torch_nets = script("predict"), script("torch_nets")
  torch.manual_seed(0)
  net = torch_nets.DaHAR(3, "tiny").eval()
  for name, tensor in net.state_dict().items():
    if "running" in name:
      tensor.uniform_(0.5, 1.5)
  fused = predict.fuse(copy.deepcopy(net), torch.float32)
  assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
  image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
  with torch.inference_mode():
    torch.testing.assert_close(fused(image)["logits"], net(image)["logits"], rtol=1e-4, atol=1e-4)
