"""The split on the devices gives the host's batches; its cuts are OpenCV's; it steps aside where it cannot serve."""

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest

from attr_jax import config as config_lib
from attr_jax import device_cache
from attr_jax import sharding
from attr_jax import train
from attr_jax import writers
from attr_jax.data import images
from attr_jax.data import ops
from attr_jax.data import pipeline
from attr_jax.errors import InputError
from attr_jax.nn import resize

import helpers

SPECS = {
    "five_position": pipeline.InputSpec(resize=(40, 32), size=(30, 28)),
    "max_distort": pipeline.InputSpec(resize=(40, 32), size=(44, 40), crop_sizes=(40, 31, 20), max_distort=1),
    "keep_ratio": pipeline.InputSpec(resize=(48, 24), size=(40, 20), keep_ratio=True),
    "random_square": pipeline.InputSpec(resize=(40, 32), size=(24, 24), crop="random_square", crop_sizes=(16, 32)),
    "none": pipeline.InputSpec(resize=(40, 32), size=(30, 28), crop="none"),
    "unmirrored": pipeline.InputSpec(resize=(40, 32), size=(30, 28), flip=False, masks=False),
}
COUNT, BATCH, SEED = 22, 8, 3  # 22 do not divide by 4 devices, and three batches reach into the second epoch


def smooth(rng, height, width):
  return cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def source():
  """Raw samples of everything that the cache knows, in different sizes."""
  rng, samples = np.random.default_rng(5), []
  for number in range(COUNT):
    image = smooth(rng, 50, 30 + number % 3)
    samples.append({
        "image": images.encode_jpeg(image),
        "label": rng.integers(0, 2, 5).astype(np.uint8),
        "known": rng.integers(0, 2, 5).astype(bool),
        "id": np.int64(100 + number),
        "person_mask": images.encode_png(image[..., 0].copy()),
        "region_mask": images.encode_png(rng.integers(0, 11, (25, 20)).astype(np.uint8)),
        "landmarks": rng.uniform(0, 30, (5, 2)).astype(np.float32),
    })
  return samples


def cached(source, spec, devices, *, start=0, **options):
  config = config_lib.default_config()
  config.data.cache, config.batch_size, config.seed = "device", BATCH, SEED
  mesh = sharding.make_mesh(jax.devices()[:devices])
  return device_cache.train_iterator(source, spec, config, mesh, start, **{"quiet": True} | options)


def boxes(rng, count, height, width):
  """Random ones, then the whole image, its four corners, and a single pixel."""
  sizes = np.stack([rng.integers(1, height + 1, count), rng.integers(1, width + 1, count)], axis=1)
  found = [(rng.integers(height - h + 1), rng.integers(width - w + 1), h, w) for h, w in sizes]
  h, w = height // 2, width - 3
  found += [(0, 0, height, width), (0, 0, h, w), (0, width - w, h, w), (height - h, 0, h, w), (height - h, width - w, h, w), (3, 4, 1, 1)]
  return np.array(found, np.int32)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("size", [(48, 40), (24, 20), (17, 61)], ids=str)  # larger, half of the whole, both ways
def test_cuts_are_those_of_opencv(size, products):
  rng = np.random.default_rng(0)
  box = boxes(rng, 10, 48, 40)
  image = np.stack([smooth(rng, 48, 40) for _ in box])
  classes = rng.integers(0, 11, image.shape[:3]).astype(np.uint8)
  mirrored = np.arange(len(box)) % 2 == 1
  tables = [ops.nearest_table(longest, scale) for longest, scale in zip((48, 40), size)]
  pixels = np.asarray(jax.jit(lambda *args: resize.cut(*args, size, products=products))(image, box, mirrored)).astype(int)
  regions = np.asarray(jax.jit(
      lambda *args: resize.cut(*args, size, nearest=tables, products=products))(classes[..., None], box, mirrored))[..., 0]
  for i, (top, left, height, width) in enumerate(box):
    cut = lambda whole, method: cv2.resize(whole[i, top:top + height, left:left + width], size[::-1], interpolation=method)
    turn = slice(None, None, -1 if mirrored[i] else 1)
    difference = np.abs(cut(image, cv2.INTER_LINEAR).astype(int)[:, turn] - pixels[i])
    assert difference.max() <= 1 and difference.mean() < 0.3, box[i]
    np.testing.assert_array_equal(regions[i], cut(classes, cv2.INTER_NEAREST_EXACT)[:, turn])


def test_nothing_outside_the_box_is_seen():
  image = np.full((1, 20, 20, 1), 255, np.uint8)
  image[0, 5:12, 6:11] = 100
  for products in (False, True):
    view = resize.cut(image, np.array([[5, 6, 7, 5]]), np.array([False]), (30, 30), products=products)
    assert (np.asarray(view) == 100).all()


@pytest.mark.parametrize("name", ["five_position", "keep_ratio", "random_square", "none"])
def test_a_view_is_cut_and_then_mirrored_by_one_row_of_random_numbers(source, name):
  """`draw_view` and the crops of `ops`, each with the same generator."""
  spec = SPECS[name]
  for seed in range(12):
    sample, rng = pipeline.whole_sample(source[seed], spec), np.random.default_rng(seed)
    if name == "random_square":
      sample = helpers.random_square_crop(sample, (16, 32), spec.size, rng)
    elif name != "none":
      shapes = ops.crop_shapes(spec.resize, spec.heights, keep_ratio=spec.keep_ratio)
      sample = helpers.five_position_crop(sample, shapes, spec.size, rng)
    expected = ops.random_flip(sample, rng)
    found = pipeline.augment(source[seed], np.random.default_rng(seed), spec=spec)
    for key, value in expected.items():
      np.testing.assert_array_equal(found[key], value)


@pytest.mark.parametrize("name, devices", [
    ("five_position", 1), ("max_distort", 2), ("keep_ratio", 4), ("random_square", 4), ("none", 2), ("unmirrored", 4)])
def test_batches_are_the_hosts(source, name, devices):
  spec = SPECS[name]
  host = pipeline.train_dataset(source, spec, batch_size=BATCH, seed=SEED)
  rows = sharding.over_batch(sharding.make_mesh(jax.devices()[:devices]))
  device = cached(source, spec, devices)
  for step in range(4):
    put, found = sharding.put_batch(host[step], rows), next(device)
    assert {key: (x.shape, x.dtype) for key, x in found.items()} == {key: (x.shape, x.dtype) for key, x in put.items()}
    assert all(value.sharding == rows for value in found.values())
    for key, value in put.items():
      one, two = np.asarray(value).astype(np.float64), np.asarray(found[key]).astype(np.float64)
      if key in ("image", "person_mask"):
        assert np.abs(one - two).max() <= 1 and np.abs(one - two).mean() < 0.3, key
      elif key == "landmarks":
        np.testing.assert_allclose(two, one, atol=1e-4)
      else:
        np.testing.assert_array_equal(two, one, key)
      if name == "none" and key != "landmarks":  # nothing is resized
        np.testing.assert_array_equal(two, one, key)


def test_mask_keys_follow_the_spec(source):
  assert set(next(cached(source, SPECS["unmirrored"], 1))) == {"image", "label", "known", "id", "landmarks"}


def test_a_later_start_gives_the_same_batches(source):
  whole, later = cached(source, SPECS["five_position"], 2), cached(source, SPECS["five_position"], 2, start=5)
  for _ in range(5):
    next(whole)
  jax.tree.map(np.testing.assert_array_equal, next(whole), next(later))


@pytest.mark.parametrize("devices", [1, 4])
def test_samples_are_split_over_the_devices(source, devices, monkeypatch):
  monkeypatch.setattr(device_cache, "_PIECE_BYTES", 4 * 40 * 32 * 5)  # pieces of a few samples, the last one smaller
  mesh = sharding.make_mesh(jax.devices()[:devices])
  spec = SPECS["five_position"]
  samples = device_cache.upload(source, spec, mesh, quiet=True)
  each = -(-COUNT // devices)
  for shard in samples["image"].addressable_shards:
    assert shard.data.shape == (each, 40, 3 * 32)
    first = shard.index[0].indices(each * devices)[0]
    assert shard.device == mesh.devices[first // each]
    for row, raw in enumerate(source[first:first + each]):
      expected = ops.resize(pipeline.decode_sample(raw), (40, 32))["image"]
      np.testing.assert_array_equal(np.asarray(shard.data[row]).reshape(40, 32, 3), expected)
  assert samples["image"].dtype == np.uint8 and len(samples["image"].addressable_shards) == devices


def test_only_places_are_gathered_from_all_devices(source):
  """The samples must not travel as a whole: the compiled program gathers int32 places and sums batches."""
  mesh, spec = sharding.make_mesh(), SPECS["five_position"]
  samples = device_cache.upload(source, spec, mesh, quiet=True)
  draws = jax.device_put(np.zeros((BATCH, 6), np.int32) + np.array([[0, 0, 0, 9, 9, 0]], np.int32), sharding.over_batch(mesh))
  text = device_cache.compile_view(spec, mesh).lower(samples, draws).compile().as_text()
  gathered = re.findall(r"= \(?(\w+\[[\d,]*\]).* all-gather(?:-start)?\(", text)
  assert gathered and set(gathered) == {f"s32[{BATCH}]"}
  assert "reduce-scatter" in text and "all-to-all" not in text


@pytest.mark.parametrize("change, words", [
    ({"second": []}, "config.data.second"),
    ({"spec": dataclasses.replace(SPECS["none"], crop="six_view", masks=False)}, "six_view"),
    ({"more": {"regions": b""}}, "samples hold regions"),
    ({"free": 1e-6}, r"22 samples as uint8 need 0\.00 GB on each of 2 devices, 0\.00 GB may be used"),
])
def test_what_does_not_fit_comes_from_the_host(source, change, words, capsys, monkeypatch):
  if "free" in change:
    monkeypatch.setattr(device_cache, "free_gigabytes", lambda mesh: change["free"])
  changed = [{**raw, **change.get("more", {})} for raw in source]
  options = {"second": change["second"]} if "second" in change else {}
  assert cached(changed, change.get("spec", SPECS["none"]), 2, quiet=False, **options) is None
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 1 and re.search(rf"^cache      off: .*{words}.*; images come from the host$", lines[0])


def test_it_says_what_it_needs(source, capsys):
  assert cached(source, SPECS["unmirrored"], 4, quiet=False) is not None
  captured = capsys.readouterr()
  assert re.fullmatch(r"cache      22 samples as uint8 need 0\.00 GB on each of 4 devices, [\d.]+ GB may be used; .*\n", captured.out)
  assert "22/22" in captured.err


def test_free_memory_is_that_of_the_fullest_device(monkeypatch):
  @dataclasses.dataclass
  class Device:
    limit: float

    def memory_stats(self):
      return {"bytes_limit": self.limit, "bytes_in_use": 1e9} if self.limit else None

  class Mesh:
    local_devices = [Device(9e9), Device(5e9), Device(7e9)]

  assert device_cache.free_gigabytes(Mesh) == pytest.approx(4)
  Mesh.local_devices = [Device(0), Device(0)]
  monkeypatch.setattr(device_cache.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 6e9}))
  assert device_cache.free_gigabytes(Mesh) == pytest.approx(3)


def test_other_caches_are_refused():
  config = config_lib.default_config()
  config.data.cache = "disk"
  with pytest.raises(InputError, match="config.data.cache='disk'; allowed: empty, device"):
    config_lib.check(config)
  config.data.cache = "device"
  config_lib.check(config)
  assert not config_lib.differences(config_lib.default_config(), config)  # a run may change it when it is resumed


def losses(workdir):
  return [line["loss"] for line in writers.read_jsonl(workdir / "metrics.jsonl") if "loss" in line]


@pytest.mark.slow
def test_a_run_with_the_cache_is_the_same_run(config, tmp_path):
  config.total_steps, config.data.val_split, config.data.test_split = 4, "", ""
  for cache in ("", "device"):
    config.data.cache = cache
    train.train_and_evaluate(config, tmp_path / f"cache-{cache}", quiet=True)
  with_cache = writers.read_jsonl(tmp_path / "cache-device" / "metrics.jsonl")
  assert [line["compiled_train_steps"] for line in with_cache if "compiled_train_steps" in line] == [1]
  host, device = losses(tmp_path / "cache-"), losses(tmp_path / "cache-device")
  assert len(host) == 4 and host != device  # the rounding shows that the two ways were taken
  np.testing.assert_allclose(device, host, rtol=2e-3)


@pytest.mark.multiprocess
def test_two_processes_share_the_samples(world_dir, tmp_path):
  """Each decodes those of its own two devices; the losses are those of one process with four."""
  def start(name, devices, *more):
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHONPATH": str(helpers.REPOSITORY)}
    command = [sys.executable, "-m", "attr_jax", "train", f"--config={helpers.REPOSITORY}/configs/quickstart.py:tiny",
               f"--workdir={tmp_path / name}", f"--config.data.dir={world_dir}", "--config.data.cache=device",
               "--config.total_steps=4", "--config.data.test_split=", *more]
    with open(tmp_path / f"{name}.log", "a") as log:
      return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"--coordinator=127.0.0.1:{probe.getsockname()[1]}"
  processes = [start("one", 4)] + [start("two", 2, address, "--num-processes=2", f"--process-id={i}") for i in range(2)]
  for name, process in zip(("one", "two", "two"), processes):
    assert process.wait(300) == 0, (tmp_path / f"{name}.log").read_text()[-3000:]
    assert "views are cut on the device" in (tmp_path / f"{name}.log").read_text()
  np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)


@pytest.mark.slow
def test_the_benchmark_measures_what_its_table_says(tmp_path):
  command = [sys.executable, helpers.REPOSITORY / "benchmarks" / "device_cache.py", "--depth=tiny", "--size=28", "--batch=4", "--count=12",
             "--steps=1", "--repeats=1", f"--out={tmp_path / 'out.json'}"]
  result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(helpers.REPOSITORY)})
  assert result.returncode == 0, result.stderr
  found = json.loads((tmp_path / "out.json").read_text())
  assert found["cache_bytes"] == 12 * (32 * 32 * 3 + 2 * 14 + 4) and found["compiled_steps"] == 1
  assert found["ratio"] == pytest.approx(found["step_seconds"]["synthetic"][0] / found["step_seconds"]["cache"][0])
  assert f"bar 0.98: {'met' if found['ratio'] >= 0.98 else 'missed'}" in result.stdout
  assert max(map(len, result.stdout.splitlines())) <= 80
