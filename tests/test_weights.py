"""Weights in and out: equality with torch, round trips, hostile and damaged files.

tests/golden/resnet_logits.json holds the logits of the torch model on weights drawn
from tensor names (`golden/torch_resnet.py`); UPDATE_GOLDEN=1 computes them anew (needs torch).
"""

import collections
import functools
import io
import json
import os
import pathlib
import pickle
import zipfile
import zlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from attr_jax import weights
from attr_jax.errors import InputError
from attr_jax.models import baseline
from golden import torch_resnet

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden" / "resnet_logits.json"
CASES = {18: (2, 97, 129, 3), 34: (1, 64, 64, 3), 50: (1, 224, 224, 3), 101: (1, 224, 224, 3)}
LABELS = 14


@functools.cache
def abstract(depth, labels=LABELS, width=None):
  model = baseline.Model(labels, depth=depth, width=width)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
  return shapes["params"], shapes["batch_stats"]


def drawn_state_dict(depth, labels=LABELS, width=None):
  """Torch-layout weights without torch: names and shapes from our own export."""
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract(depth, labels, width))
  return torch_resnet.make_state_dict({k: v.shape for k, v in weights.export_resnet(*zeros).items()})


def assert_trees_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


# Equality with torch.


def forward(depth, image, train=False):
  params, batch_stats, report = weights.import_resnet(drawn_state_dict(depth), *abstract(depth))
  assert not (report.missing or report.left_over or report.mismatched)
  model = baseline.Model(LABELS, depth=depth)
  apply = lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"])
  (logits, _), updated = apply({"params": params, "batch_stats": batch_stats}, image)
  return np.asarray(logits), updated["batch_stats"]


@pytest.mark.parametrize("depth", CASES)
def test_logits_equal_the_golden_ones_of_torch(depth):
  image = torch_resnet.make_image(CASES[depth])
  if os.environ.get("UPDATE_GOLDEN"):
    pytest.importorskip("torch")
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    golden[str(depth)] = torch_resnet.run(torch_resnet.build_with_weights(depth, LABELS), image).tolist()
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
  expected = np.array(json.loads(GOLDEN.read_text())[str(depth)])
  assert 0.1 < np.abs(expected).max() < 100  # neither dead nor exploding
  logits, _ = forward(depth, image)
  np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101])
def test_torch_names_and_logits_today(depth, tmp_path):
  """With torch at hand: its own file, its own forward pass."""
  torch = pytest.importorskip("torch")
  net = torch_resnet.build_with_weights(depth, LABELS)
  torch.save(net.state_dict(), tmp_path / "resnet.pth")
  state_dict = weights.load_state_dict(tmp_path / "resnet.pth")
  expected = drawn_state_dict(depth)
  assert set(state_dict) == set(expected)
  for key, value in expected.items():
    np.testing.assert_array_equal(state_dict[key], value)
  image = torch_resnet.make_image((1, 64, 96, 3), seed=1)
  logits, _ = forward(depth, image)
  np.testing.assert_allclose(logits, torch_resnet.run(net, image), atol=1e-4)


@pytest.mark.slow
def test_training_mode_equals_torch():
  pytest.importorskip("torch")
  net = torch_resnet.build_with_weights(18, LABELS)
  image = torch_resnet.make_image((4, 64, 64, 3), seed=2)
  expected = torch_resnet.run(net, image, train=True)
  logits, batch_stats = forward(18, image, train=True)
  np.testing.assert_allclose(logits, expected, atol=1e-3)
  before, after = drawn_state_dict(18), {k: v.numpy() for k, v in net.state_dict().items()}
  stem = batch_stats["backbone"]["stem"]["bn"]
  np.testing.assert_allclose(stem["mean"], after["bn1.running_mean"], atol=1e-5)
  # torch stores the unbiased variance of its 4 * 32 * 32 values, flax the biased one.
  count = 4 * 32 * 32
  new = (after["bn1.running_var"] - 0.9 * before["bn1.running_var"]) * (count - 1) / count
  np.testing.assert_allclose(stem["var"], 0.9 * before["bn1.running_var"] + new, rtol=1e-4)


# Import and export.


def test_round_trip_is_exact():
  state_dict = drawn_state_dict(50)
  params, batch_stats, _ = weights.import_resnet(state_dict, *abstract(50))
  again = weights.export_resnet(params, batch_stats)
  assert set(again) == set(state_dict)
  for key, value in state_dict.items():
    if not key.endswith("num_batches_tracked"):
      np.testing.assert_array_equal(again[key], value)


@pytest.mark.parametrize("depth", CASES)
def test_names_and_shapes_are_those_of_torchvision_and_timm(depth):
  """All tensors of their `state_dict`, counters included, with the thousand classes of ImageNet."""
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract(depth, labels=1000))
  found = sorted((name, list(value.shape)) for name, value in weights.export_resnet(*zeros).items())
  golden = json.loads((GOLDEN.parent / "resnet_names.json").read_text())["resnets"][str(depth)]
  assert {"tensors": len(found), "crc32": zlib.crc32(json.dumps(found).encode())} == golden


@pytest.mark.parametrize("counters", [True, False])  # torchvision's oldest files have none
@pytest.mark.parametrize("format", ["safetensors", "npz"])
@pytest.mark.parametrize("depth", CASES)
def test_import_weights_of_every_depth_is_exact(depth, format, counters, tmp_path):
  state_dict = drawn_state_dict(depth, labels=10, width=4)
  state_dict = {key: value for key, value in state_dict.items() if counters or not key.endswith("num_batches_tracked")}
  save = safetensors.numpy.save_file if format == "safetensors" else lambda tensors, path: np.savez(path, **tensors)
  save(state_dict, tmp_path / f"in.{format}")
  report = weights.convert(tmp_path / f"in.{format}", tmp_path / "out.safetensors")
  assert not (report.missing or report.left_over or report.mismatched)
  params, batch_stats, metadata = weights.load_safetensors(tmp_path / "out.safetensors")
  assert metadata["depth"] == str(depth)
  again = weights.export_resnet(params, batch_stats)
  for key in set(state_dict) | {key for key in again if not key.endswith("num_batches_tracked")}:
    if not key.endswith("num_batches_tracked"):
      np.testing.assert_array_equal(again[key], state_dict[key])


def test_thousand_classes_are_left_out_and_reported():
  params, batch_stats = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), abstract(18))
  new, _, report = weights.import_resnet(drawn_state_dict(18, labels=1000), params, batch_stats)
  assert_trees_equal(new["classifier"], params["classifier"])
  assert report.mismatched == {"fc.weight": ((512, 1000), (512, 14)), "fc.bias": ((1000,), (14,))}
  assert "conv1.weight" in report.used
  assert "[512, 1000] in the file" in weights.summary(report)


def test_report_names_what_is_missing_and_left_over():
  state_dict = drawn_state_dict(18)
  state_dict["aux.weight"] = state_dict.pop("fc.weight")
  params, _, report = weights.import_resnet(state_dict, *abstract(18))
  assert (report.missing, report.left_over) == (("fc.weight",), ("aux.weight",))
  assert isinstance(params["classifier"]["kernel"], jax.ShapeDtypeStruct)


def test_the_trunk_is_found_wherever_it_is():
  params, batch_stats = abstract("tiny")
  state_dict = drawn_state_dict("tiny")
  for wrap in (lambda x: x, lambda x: {"net": {"trunk": x}}):
    new, stats, report = weights.import_resnet(state_dict, wrap(params["backbone"]), wrap(batch_stats["backbone"]))
    assert set(report.left_over) == {"fc.weight", "fc.bias"}
    assert jax.tree.structure(new) == jax.tree.structure(wrap(params["backbone"]))
  with pytest.raises(InputError, match="found: none"):
    weights.import_resnet(state_dict, {"classifier": params["classifier"]}, {})
  with pytest.raises(InputError, match="found: a, b"):
    weights.import_resnet(state_dict, {"a": params["backbone"], "b": params["backbone"]}, {})


def test_convert_and_load_trunk(tmp_path):
  state_dict = drawn_state_dict(50, labels=10, width=8)
  safetensors.numpy.save_file(state_dict, tmp_path / "in.safetensors")
  report = weights.convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
  assert not (report.missing or report.left_over or report.mismatched)
  params, batch_stats, metadata = weights.load_safetensors(tmp_path / "out.safetensors")
  assert metadata == {"depth": "50", "width": "8", "source": "in.safetensors"}
  for name in ("in", "out"):
    new, stats, report = weights.load_trunk(tmp_path / f"{name}.safetensors", *abstract(50, width=8))
    assert set(report.mismatched) == {"fc.weight", "fc.bias"}
    assert_trees_equal(new["backbone"], params["backbone"])
    assert_trees_equal(stats, batch_stats)
  with pytest.raises(InputError, match="already"):
    weights.convert(tmp_path / "out.safetensors", tmp_path / "twice.safetensors")


def test_load_trunk_lists_the_rest_of_an_own_file(tmp_path):
  params, batch_stats = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), abstract("tiny"))
  params = {**params, "attention": {"kernel": np.ones(3, np.float32)}}
  weights.save_safetensors(tmp_path / "m.safetensors", params, batch_stats, {})
  new, _, report = weights.load_trunk(tmp_path / "m.safetensors", *abstract("tiny"))
  assert report.left_over == ("params/attention/kernel",)
  assert_trees_equal(new["classifier"], params["classifier"])


@pytest.mark.parametrize("there, here, width, match", [(18, 34, 8, "missing in the file"), (34, 18, 8, "unknown to the model"), (18, 18, 16, "in the file")])
def test_another_depth_or_width_is_refused(tmp_path, there, here, width, match):
  safetensors.numpy.save_file(drawn_state_dict(there, width=8), tmp_path / "w.safetensors")
  with pytest.raises(InputError, match=match):
    weights.load_trunk(tmp_path / "w.safetensors", *abstract(here, width=width))


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_depth_is_read_off_the_keys(depth):
  state_dict = dict.fromkeys(drawn_shapes(depth))
  assert weights.infer_depth(state_dict) == depth
  with pytest.raises(InputError, match="no ResNet of depth 18, 34, 50, 101"):
    weights.infer_depth({**state_dict, "layer3.99.conv1.weight": None})


def drawn_shapes(depth):
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract(depth, width=2))
  return weights.export_resnet(*zeros)


@pytest.mark.parametrize("change, match", [
    ({"conv1.0.weight": np.zeros((32, 3, 3, 3), np.float32)}, "deep stem"),
    ({"layer1.0.downsample.1.weight": np.zeros((8, 8, 1, 1), np.float32)}, "average-pooled"),
    ({"layer1.0.se.fc1.weight": np.zeros((8, 8, 1, 1), np.float32)}, "'se' inside its blocks"),
    ({"layer1.0.conv2.weight": np.zeros((8, 4, 3, 3), np.float32)}, "does not fit"),  # groups
    ({"bn1.weight": np.array(["x"])}, "needs floating-point"),
])
def test_variants_are_refused(tmp_path, change, match):
  np.savez(tmp_path / "w.npz", **{**drawn_state_dict(50, width=8), **change})
  with pytest.raises(InputError, match=match):
    weights.convert(tmp_path / "w.npz", tmp_path / "out.safetensors")
  assert not (tmp_path / "out.safetensors").exists()


def test_other_networks_are_refused(tmp_path):
  np.savez(tmp_path / "w.npz", **{"features.0.weight": np.zeros(3, np.float32)})
  with pytest.raises(InputError, match="'conv1.weight' is missing; its keys: features.0.weight"):
    weights.load_trunk(tmp_path / "w.npz", *abstract("tiny"))


def test_save_safetensors_keeps_bits_and_metadata(tmp_path):
  params = {"a": {"kernel": jnp.arange(6.0).reshape(2, 3).T, "half": np.array([1.5], ml_dtypes.bfloat16)}}
  weights.save_safetensors(tmp_path / "m.safetensors", params, {}, {"step": "3"})
  new, stats, metadata = weights.load_safetensors(tmp_path / "m.safetensors")
  assert (stats, metadata) == ({}, {"step": "3"})
  assert_trees_equal(new, params)
  assert new["a"]["half"].dtype == ml_dtypes.bfloat16
  assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_own_names_need_safetensors_and_a_folder(tmp_path):
  np.savez(tmp_path / "m.npz", **{"params/a": np.zeros(2, np.float32)})
  with pytest.raises(InputError, match="no .safetensors file"):
    weights.load_safetensors(tmp_path / "m.npz")
  np.savez(tmp_path / "m.npz", a=np.zeros(2, np.float32))
  with pytest.raises(InputError, match="holds no 'params/...'"):
    weights.load_safetensors(tmp_path / "m.npz")
  with pytest.raises(InputError, match="folder does not exist"):
    weights.save_safetensors(tmp_path / "none" / "m.safetensors", {"a": np.zeros(2)}, {}, {})


# Reading .pth.


class _Global:
  """Pickles as a reference to module.name, with no need for torch."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class _Storage:

  def __init__(self, kind, key, count):
    self.pid = ("storage", _Global("torch", kind), key, "cpu", count)


class _Call:

  def __init__(self, function, *args):
    self.function, self.args = function, args


class _Pickler(pickle._Pickler):  # the Python one: its dispatch can be extended

  def persistent_id(self, value):
    return value.pid if isinstance(value, _Storage) else None

  def save(self, value, *args, **kwargs):
    if isinstance(value, _Global):
      self.write(f"c{value.module}\n{value.name}\n".encode())
    elif isinstance(value, _Call):
      self.save(value.function)
      self.save(value.args)
      self.write(b"R")
    else:
      super().save(value, *args, **kwargs)


REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")


def tensor(kind, key, count, offset, size, stride):
  return _Call(REBUILD, _Storage(kind, key, count), offset, size, stride, False, _Call(_Global("collections", "OrderedDict")))


def write_pth(path, value, storages, compression=zipfile.ZIP_STORED):
  buffer = io.BytesIO()
  _Pickler(buffer, protocol=2).dump(value)
  with zipfile.ZipFile(path, "w", compression) as archive:
    archive.writestr("archive/data.pkl", buffer.getvalue())
    for key, data in storages.items():
      archive.writestr(f"archive/data/{key}", data)
  return path


def test_pth_types_strides_wrappers_and_prefixes(tmp_path):
  floats = np.arange(12, dtype=np.float32)
  value = {"epoch": 3, "model": {
      "module.a": tensor("FloatStorage", "0", 12, 2, (2, 3), (1, 3)),
      "module.b": tensor("BFloat16Storage", "1", 2, 0, (2,), (1,)),
      "c": tensor("HalfStorage", "2", 2, 0, (2,), (1,)),
      "d.num_batches_tracked": tensor("LongStorage", "3", 1, 0, (), ()),
      "e": tensor("FloatStorage", "0", 12, 0, (0, 4), (4, 1)),
      "p": _Call(_Global("torch._utils", "_rebuild_parameter"), tensor("FloatStorage", "0", 12, 0, (2,), (1,)), True, ()),
      "note": "text",
  }}
  storages = {
      "0": floats.tobytes(), "1": np.array([1.5, -2], ml_dtypes.bfloat16).tobytes(),
      "2": np.array([0.25, 3], np.float16).tobytes(), "3": np.array([7], np.int64).tobytes(),
  }
  loaded = weights.load_state_dict(write_pth(tmp_path / "w.pth", value, storages))
  assert set(loaded) == {"a", "b", "c", "d.num_batches_tracked", "e", "p"}
  np.testing.assert_array_equal(loaded["a"], [[2, 5, 8], [3, 6, 9]])
  np.testing.assert_array_equal(loaded["b"].astype(np.float32), [1.5, -2])
  np.testing.assert_array_equal(loaded["c"], np.array([0.25, 3], np.float16))
  assert (loaded["d.num_batches_tracked"].shape, loaded["d.num_batches_tracked"].item()) == ((), 7)
  assert loaded["e"].shape == (0, 4)
  np.testing.assert_array_equal(loaded["p"], [0, 1])


def test_pth_of_torch_itself(tmp_path):
  torch = pytest.importorskip("torch")
  base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
  state = collections.OrderedDict(
      a=base.t(), b=base[1:, ::2], c=torch.tensor([1.5, -2]).bfloat16(), d=torch.tensor(3), e=base.half(),
      f=torch.nn.Parameter(base[0]), g=torch.tensor([True, False]))
  torch.save({"state_dict": state, "epoch": 1}, tmp_path / "w.pth")
  loaded = weights.load_state_dict(tmp_path / "w.pth")
  assert set(loaded) == set(state)
  for key, value in state.items():
    np.testing.assert_array_equal(loaded[key].astype(np.float32), value.detach().float().numpy())
  torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
  with pytest.raises(InputError, match="old non-zip format.*safetensors"):
    weights.load_state_dict(tmp_path / "old.pth")
  torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
  with pytest.raises(InputError, match="torch.nn.modules.linear.Linear"):
    weights.load_state_dict(tmp_path / "module.pth")


@pytest.mark.parametrize("module, name", [
    ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("subprocess", "Popen"),
    ("numpy.core.multiarray", "_reconstruct"), ("torch._utils", "_rebuild_tensor_v3"), ("torch", "load"),
    ("collections", "namedtuple"), ("functools", "partial"),
])
def test_code_in_a_pth_is_refused(tmp_path, module, name):
  mark = tmp_path / "ran"
  value = {"a": _Call(_Global(module, name), f"touch {mark}")}
  with pytest.raises(InputError, match=f"wants to build {module}.{name}"):
    weights.load_state_dict(write_pth(tmp_path / "w.pth", value, {}))
  assert not mark.exists()


@pytest.mark.parametrize("offset, size, stride", [
    (0, (5,), (1,)), (4, (1,), (1,)), (-1, (2,), (1,)), (0, (2,), (4,)), (0, (2,), (-1,)), (0, (1 << 40,), (0,)),
    (0, (2, 2), (1,)), (0, (-1,), (1,)),
])
def test_tensors_out_of_their_storage_are_refused(tmp_path, offset, size, stride):
  value = {"a": tensor("FloatStorage", "0", 4, offset, size, stride)}
  with pytest.raises(InputError, match="w.pth"):
    weights.load_state_dict(write_pth(tmp_path / "w.pth", value, {"0": bytes(16)}))


@pytest.mark.parametrize("storages, compression", [({"0": bytes(15)}, zipfile.ZIP_STORED), ({}, zipfile.ZIP_STORED), ({"0": bytes(16)}, zipfile.ZIP_DEFLATED)])
def test_short_missing_or_compressed_storage_is_refused(tmp_path, storages, compression):
  value = {"a": tensor("FloatStorage", "0", 4, 0, (4,), (1,))}
  with pytest.raises(InputError, match="w.pth"):
    weights.load_state_dict(write_pth(tmp_path / "w.pth", value, storages, compression))


@pytest.mark.parametrize("value", [3, ["a"], {}, {"a": 1}, {"state_dict": {}}])
def test_pickles_without_tensors_are_refused(tmp_path, value):
  with pytest.raises(InputError, match="w.pth"):
    weights.load_state_dict(write_pth(tmp_path / "w.pth", value, {}))


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x02}q\x00.", b"PK\x03\x04 no zip", b"\x10\0\0\0\0\0\0\0{\"a\": broken    ", b"\xff" * 7 + b"\x7f{}", os.urandom(300)])
def test_garbage_is_refused(tmp_path, content):
  path = tmp_path / "w.safetensors"
  path.write_bytes(content)
  with pytest.raises(InputError, match="w.safetensors"):
    weights.load_state_dict(path)


@pytest.mark.parametrize("format", ["safetensors", "npz", "pth"])
def test_truncated_files_are_refused(tmp_path, format):
  path = tmp_path / f"w.{format}"
  array = np.arange(4, dtype=np.float32)
  if format == "safetensors":
    safetensors.numpy.save_file({"a": array}, path)
  elif format == "npz":
    np.savez(path, a=array)
  else:
    write_pth(path, {"a": tensor("FloatStorage", "0", 4, 0, (4,), (1,))}, {"0": array.tobytes()})
  np.testing.assert_array_equal(weights.load_state_dict(path)["a"], array)
  whole = path.read_bytes()
  for size in range(0, len(whole), 7):
    path.write_bytes(whole[:size])
    with pytest.raises(InputError):
      weights.load_state_dict(path)


def test_npz_with_objects_and_missing_files_are_refused(tmp_path):
  np.savez(tmp_path / "w.npz", a=np.array([{}], dtype=object))
  with pytest.raises(InputError, match="w.npz"):
    weights.load_state_dict(tmp_path / "w.npz")
  with pytest.raises(InputError, match="cannot be read"):
    weights.load_state_dict(tmp_path / "none.npz")
  with pytest.raises(InputError, match="cannot be read"):
    weights.load_state_dict(tmp_path)
