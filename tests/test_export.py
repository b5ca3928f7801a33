"""Exports: what is read back is the model, whatever the format; what differs is not kept."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors import safe_open

import helpers
from helpers import REPOSITORY
from helpers import load

from attr_jax import evaluate
from attr_jax import export
from attr_jax import metrics
from attr_jax import models
from attr_jax import optim
from attr_jax import program
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import state as state_lib
from attr_jax import steps
from attr_jax import train
from attr_jax import weights

SHARED = ("label_names", "label_groups", "thresholds", "preprocessing", "config", "step", "checkpoint", "data_licence", "weights_licence",
          "attr_jax", "citation")

call = lambda capsys, *argv: helpers.call(capsys, "export", *argv)


@pytest.fixture(scope="module")
def workdir(world_dir, tmp_path_factory):
  """A finished tiny run."""
  folder = tmp_path_factory.mktemp("runs") / "tiny"
  train.train_and_evaluate(helpers.tiny_config(world_dir), folder, quiet=True)
  return folder


def untrained(name, world_dir, **overrides):
  """A run of a method's tiny config as it starts, on drawn people, its zeros (biases, statistics) moved so that each has a say."""
  data = {"data.name": "wider_attribute", "data.world": "people", "data.world_count": 120}
  config = load(name, world_dir, **data, **overrides)
  info = evaluate.open_data(config).info
  mesh = sharding.make_mesh(jax.devices()[:1])
  model = models.build(config.model, len(info.label_names), config.compute_dtype)
  state = state_lib.create_state(model, optim.make_optimizer(config, lambda step: 0.0), (*config.input.size, 3), {}, mesh, seed=0)
  rng = np.random.default_rng(0)
  move = lambda x: np.asarray(x) + rng.uniform(0, 0.05, x.shape).astype(np.float32)
  return evaluate.Run(config, info, jax.tree.map(move, state.params), jax.tree.map(move, state.batch_stats), 0, "last", model)


def expected_of(run, images):
  """float64 [N, L] by the evaluation's own step."""
  rows = jax.jit(steps.make_predict_step(run.model, run.config))(run.params, run.batch_stats, {"image": images})
  return metrics.probabilities(np.asarray(rows["logit"]))


def check_metadata(told, run):
  assert set(SHARED) <= set(told)
  assert told["label_names"] == list(run.info.label_names) and set(told["thresholds"]["threshold"]) == set(run.info.label_names)
  assert told["preprocessing"]["size"] == list(run.config.input.full_size) and told["config"]["model"]["name"] == run.config.model.name
  assert told["weights_licence"] and told["citation"].startswith("@")


def read_text(values):
  """Headers of text: JSON where it is JSON."""
  def parse(value):
    try:
      return json.loads(value)
    except json.JSONDecodeError:
      return value

  return {key: parse(value) for key, value in values.items()}


# safetensors.


def test_safetensors_in_our_names(capsys, workdir, tmp_path):
  out = tmp_path / "m.safetensors"
  status, text, _ = call(capsys, f"--workdir={workdir}", "--to=safetensors", f"--out={out}")
  assert status == 0 and "equal bit by bit" in text and "(8 of split 'val')" in text
  assert max(float(figure) for figure in re.search(r"model: (\S+) on random images, (\S+) on real", text).groups()) < 1e-6
  run = evaluate.load_run(workdir, sharding.make_mesh(jax.devices()[:1]))
  params, batch_stats, told = weights.load_safetensors(out)
  jax.tree.map(np.testing.assert_array_equal, (params, batch_stats), sharding.to_host((run.params, run.batch_stats)))
  told = read_text(told)
  check_metadata(told, run)
  found = run_folder.read_thresholds(workdir, run.step, run.info.label_names)
  assert found and told["thresholds"]["threshold"] == found["threshold"] and told["thresholds"]["rule"] == found["rule"]
  assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_without_thresholds_it_is_a_half_and_said_so(workdir):
  run = evaluate.load_run(workdir, sharding.make_mesh(jax.devices()[:1]))
  thresholds = export.metadata(run, {})["thresholds"]
  assert set(thresholds["threshold"].values()) == {0.5} and "no thresholds" in thresholds["rule"]


def test_damaged_thresholds_are_one_line(capsys, workdir, tmp_path):
  file = workdir / "thresholds.json"
  written = file.read_text()
  try:
    for damage in ("{", "[]", '{"step": 1, "threshold": 3}'):
      file.write_text(damage)
      status, _, err = call(capsys, f"--workdir={workdir}", "--to=safetensors", f"--out={tmp_path / 'm.safetensors'}")
      assert status == 2 and err.count("\n") == 1 and "thresholds.json cannot be read" in err and not any(tmp_path.iterdir())
  finally:
    file.write_text(written)


@pytest.mark.parametrize("name, has_fc", [("baseline.py:tiny", True), ("srn.py:tiny", False)])
def test_safetensors_in_torchvision_names(name, has_fc, world_dir, tmp_path):
  run = untrained(name, world_dir, **{"model.depth": "18"})
  done = export.to_safetensors(run, export.metadata(run, {}), tmp_path / "m.safetensors", "torchvision")
  assert max(done.differences.values()) < 1e-6
  state_dict = weights.load_state_dict(tmp_path / "m.safetensors")
  assert state_dict["bn1.num_batches_tracked"].dtype == np.int64 and state_dict["bn1.num_batches_tracked"].shape == ()
  assert ("fc.weight" in state_dict) == has_fc
  np.testing.assert_array_equal(state_dict["layer2.0.downsample.0.weight"],
                                run.params["backbone"]["stage2"]["block0"]["shortcut_conv"]["kernel"].transpose(3, 2, 0, 1))
  with safe_open(tmp_path / "m.safetensors", "numpy") as file:
    told = read_text(file.metadata())
  check_metadata(told, run)
  assert (told["depth"], told["width"], told["fc"]) == (18, 64, has_fc)


@pytest.mark.slow
def test_torch_takes_the_torchvision_names(world_dir, tmp_path):
  torch = pytest.importorskip("torch")
  from golden import torch_resnet
  from safetensors.torch import load_file

  run = untrained("baseline.py:tiny", world_dir, **{"model.depth": "18"})
  export.to_safetensors(run, export.metadata(run, {}), tmp_path / "m.safetensors", "torchvision")
  net = torch_resnet.build(18, len(run.info.label_names))
  net.load_state_dict(load_file(tmp_path / "m.safetensors"), strict=True)
  images = np.random.default_rng(0).integers(0, 256, (3, *run.config.input.full_size, 3), np.uint8)
  inputs = ((images / 255 - np.array(run.config.input.mean)) / np.array(run.config.input.std)).astype(np.float32)
  logits = torch_resnet.run(net, inputs)
  np.testing.assert_allclose(metrics.probabilities(np.asarray(logits)), expected_of(run, images), atol=1e-4)
  assert isinstance(net, torch.nn.Module)


@pytest.mark.parametrize("argv, words", [
    (["--to=safetensors", "--names=torchvision"], "no ResNet of depth 18, 34, 50, 101"),
    (["--to=stablehlo", "--names=ours"], "--names goes with --to=safetensors only"),
    (["--to=safetensors", "--batch=3"], "--batch goes with --to=onnx only"),
    (["--to=onnx", "--batch=0"], "--batch=0 is no number of images"),
])
def test_wrong_calls_are_one_line(capsys, workdir, tmp_path, argv, words):
  status, _, err = call(capsys, f"--workdir={workdir}", *argv, f"--out={tmp_path / 'm'}")
  assert status == 2 and words in err and len(err.strip().splitlines()) == 1
  assert not list(tmp_path.iterdir())
  if "--names=torchvision" in argv:
    status, _, err = call(capsys, f"--workdir={workdir}", *argv, f"--out={tmp_path / 'none' / 'm'}")
    assert status == 2 and "folder does not exist" in err


# StableHLO.


def run_loader(file, images, folder):
  """What the loader says in a process of its own, in which nothing of attr_jax can be imported."""
  shutil.copy(REPOSITORY / "attr_jax" / "load_stablehlo.py", folder / "load_stablehlo.py")
  np.save(folder / "images.npy", images)
  code = f"""if True:
    import sys
    sys.path.insert(0, {str(folder)!r})
    for name in ("attr_jax", "flax", "orbax", "ml_collections"):
      sys.modules[name] = None
    import load_stablehlo, numpy as np
    predict, metadata = load_stablehlo.load({str(file)!r})
    images = np.load({str(folder / "images.npy")!r})
    np.savez({str(folder / "answer.npz")!r}, labels=metadata["label_names"], **{{str(n): predict(images[:n]) for n in (1, 3, 8)}})
  """
  environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "XLA_FLAGS")}
  subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=folder, env=environ)
  with np.load(folder / "answer.npz") as answer:
    return dict(answer)


def test_stablehlo_runs_without_attr_jax(capsys, workdir, tmp_path):
  out = tmp_path / "m.npz"
  status, text, err = call(capsys, f"--workdir={workdir}", "--to=stablehlo", f"--out={out}")
  assert status == 0 and "program for cpu, cuda, tpu" in text, err
  run = evaluate.load_run(workdir, sharding.make_mesh(jax.devices()[:1]))
  images = np.random.default_rng(3).integers(0, 256, (8, *run.config.input.full_size, 3), np.uint8)
  folder = tmp_path / "elsewhere"
  folder.mkdir()
  answer = run_loader(out, images, folder)
  assert list(answer["labels"]) == list(run.info.label_names)
  expected = expected_of(run, images)
  for count in (1, 3, 8):
    np.testing.assert_allclose(answer[str(count)], expected[:count], atol=1e-5)
  with np.load(out) as file:
    told = json.loads(str(file["metadata"]))
    exported = jax.export.deserialize(bytearray(file["program"]))
  check_metadata(told, run)
  assert exported.platforms == ("cpu", "cuda", "tpu") and exported.nr_devices == 1  # there are four here
  assert len((REPOSITORY / "attr_jax" / "load_stablehlo.py").read_text().splitlines()) <= 20


METHODS = ["srn.py:tiny", "diaa.py:tiny", "dahar.py:tiny", "vac.py:tiny", "attncnn_rnn.py:system=attncnn_rnn_hog,tiny", "face.py:system=ssg,tiny"]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_as_stablehlo(name, world_dir, tmp_path):
  run = untrained(name, world_dir)
  done = export.to_stablehlo(run, export.metadata(run, {}), tmp_path / "m.npz")
  assert max(done.differences.values()) < 1e-5


def test_bfloat16_runs_are_exported_in_float32(world_dir):
  run = untrained("baseline.py:tiny", world_dir, compute_dtype="bfloat16")
  model, config = program.in_float32(run.config, len(run.info.label_names))
  assert config.compute_dtype == "float32" and run.config.compute_dtype == "bfloat16" and model.dtype == np.float32
  told = export.metadata(run, {})
  assert (told["compute_dtype"], told["trained_compute_dtype"]) == ("float32", "bfloat16")


def test_models_that_need_more_than_images_are_refused(world_dir):
  run = untrained("face.py:system=bbox,tiny", world_dir)
  with pytest.raises(export.InputError, match="needs landmarks"):
    export.reference(run)


# What differs is not kept.


@pytest.mark.parametrize("to", ["safetensors", "stablehlo"])
def test_a_spoiled_export_fails(to, capsys, workdir, tmp_path, monkeypatch):
  """One weight is changed on its way into the file."""
  def spoil(params):
    params = jax.tree.map(np.array, params)
    params["classifier"]["bias"][0] += 0.01
    return params

  if to == "safetensors":
    save = weights.save_safetensors
    monkeypatch.setattr(weights, "save_safetensors", lambda path, params, *rest: save(path, spoil(params), *rest))
  else:
    make = program.make
    monkeypatch.setattr(program, "make", lambda model, config, params, stats: make(model, config, spoil(params), stats))
  status, _, err = call(capsys, f"--workdir={workdir}", f"--to={to}", f"--out={tmp_path / 'm'}")
  assert status == 1 and "differ" in err and "nothing is kept" in err and len(err.strip().splitlines()) == 1
  assert not list(tmp_path.iterdir())


def test_nan_is_a_difference():
  with pytest.raises(export.ExportError, match="nan"):
    export._within_tolerance({"random": float("nan")})


def test_missing_flatbuffers_is_one_line(capsys, workdir, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "flatbuffers", None)
  status, _, err = call(capsys, f"--workdir={workdir}", "--to=stablehlo", f"--out={tmp_path / 'm'}")
  assert status == 2 and "pip install 'attr_jax[export]'" in err and len(err.strip().splitlines()) == 1


def test_real_images_without_the_data(workdir):
  run = evaluate.load_run(workdir, sharding.make_mesh(jax.devices()[:1]))
  run.config.data.dir = "/nowhere"
  images, where = export._real_images(run, (80, 48))
  assert images.shape == (8, 80, 48, 3) and images.dtype == np.uint8 and "scikit-learn" in where and images.std() > 20


# ONNX, in an environment of its own: ATTR_JAX_ONNX_ENVIRONMENT=DIR takes one that is there.


@pytest.fixture(scope="session")
def environment():
  folder = os.environ.get("ATTR_JAX_ONNX_ENVIRONMENT")
  folder = pathlib.Path(folder) if folder else None
  export.onnx_environment(folder)
  return folder


@pytest.mark.onnx
def test_onnx_under_onnxruntime(capsys, workdir, tmp_path, environment):
  options = [f"--environment={environment}"] if environment else []
  out = tmp_path / "m.onnx"
  status, text, err = call(capsys, f"--workdir={workdir}", "--to=onnx", f"--out={out}", *options)
  assert status == 0 and float(re.search(r"model: (\S+) on random", text)[1]) < 1e-5, err
  run = evaluate.load_run(workdir, sharding.make_mesh(jax.devices()[:1]))
  images = np.random.default_rng(3).integers(0, 256, (8, *run.config.input.full_size, 3), np.uint8)
  np.save(tmp_path / "images.npy", images)
  code = f"""if True:
    import json, numpy as np, onnxruntime
    session = onnxruntime.InferenceSession({str(out)!r})
    images = np.load({str(tmp_path / "images.npy")!r})
    told = session.get_modelmeta().custom_metadata_map
    np.savez({str(tmp_path / "answer.npz")!r}, told=json.dumps(told), **{{str(n): session.run(None, {{"image": images[:n]}})[0] for n in (1, 3, 8)}})
  """
  subprocess.run([export.onnx_environment(environment), "-c", code], check=True)
  with np.load(tmp_path / "answer.npz") as answer:
    check_metadata(read_text(json.loads(str(answer["told"]))), run)
    for count in (1, 3, 8):
      np.testing.assert_allclose(answer[str(count)], expected_of(run, images)[:count], atol=1e-5)


@pytest.mark.onnx
@pytest.mark.parametrize("batch", [0, 3])
def test_onnx_of_a_decoder_with_hog(world_dir, tmp_path, environment, batch):
  run = untrained("attncnn_rnn.py:system=attncnn_rnn_hog,tiny", world_dir)
  done = export.to_onnx(run, export.metadata(run, {}), tmp_path / "m.onnx", batch=batch, environment=environment)
  assert max(done.differences.values()) < 1e-5 and (str(batch) if batch else "any number") in done.text


@pytest.mark.onnx
def test_a_spoiled_onnx_model_fails(capsys, workdir, tmp_path, environment, monkeypatch):
  save = weights.save_safetensors
  worse = lambda params: {**params, "classifier": {**params["classifier"], "bias": params["classifier"]["bias"] + np.float32(0.01)}}
  monkeypatch.setattr(weights, "save_safetensors", lambda path, params, *rest: save(path, worse(params), *rest))
  options = [f"--environment={environment}"] if environment else []
  status, _, err = call(capsys, f"--workdir={workdir}", "--to=onnx", f"--out={tmp_path / 'm.onnx'}", *options)
  assert status == 1 and "differs from the model" in err and len(err.strip().splitlines()) == 1
  assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
  (tmp_path / "precious.txt").write_text("x")
  with pytest.raises(export.InputError, match="no Python environment"):
    export.onnx_environment(tmp_path)
  assert (tmp_path / "precious.txt").read_text() == "x"


def test_a_conversion_that_fails_is_one_line(capsys, workdir, tmp_path, monkeypatch):
  python = tmp_path / "python"
  python.write_text("#!/bin/sh\necho 'a warning' >&2\necho 'jax2onnx 0.17.1 cannot convert baseline: no such operation' >&2\nexit 1\n")
  python.chmod(0o755)
  monkeypatch.setattr(export, "onnx_environment", lambda folder: python)
  (tmp_path / "out").mkdir()
  status, _, err = call(capsys, f"--workdir={workdir}", "--to=onnx", f"--out={tmp_path / 'out' / 'm.onnx'}")
  assert status == 1 and "no ONNX model: jax2onnx 0.17.1 cannot convert baseline" in err and len(err.strip().splitlines()) == 1
  assert not list((tmp_path / "out").iterdir())


def test_onnx_with_relative_paths(capsys, workdir, tmp_path, monkeypatch):
  """The conversion, here a stand-in, runs in another folder."""
  python = tmp_path / "python"
  python.write_text("#!/bin/sh\necho model > \"$5\"\necho '{\"random\": 1e-7, \"real\": 2e-7}'\n")
  python.chmod(0o755)
  monkeypatch.setattr(export, "onnx_environment", lambda folder: folder)
  monkeypatch.chdir(tmp_path)
  status, text, err = call(capsys, f"--workdir={workdir}", "--to=onnx", "--out=m.onnx", "--environment=python", "--batch=4")
  assert status == 0 and "4 images in m.onnx" in text and "2e-07 on real" in text, err
  assert (tmp_path / "m.onnx").read_text() == "model\n"


def test_an_environment_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(export.sys, "executable", "/bin/false")
  with pytest.raises(export.ExportError, match="cannot be made"):
    export.onnx_environment(tmp_path / "new")


def test_the_page_shows_the_loader_as_it_is():
  assert (REPOSITORY / "attr_jax" / "load_stablehlo.py").read_text() in (REPOSITORY / "docs" / "export.md").read_text()
