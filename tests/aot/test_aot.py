"""Compiling for TPUs that are not here: what is read from a program, the roofline, the batch that fits, wrong calls.

Real compilations need libtpu: `pytest -m aot tests/aot`, some minutes.
"""

import dataclasses
import importlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from attr_jax import abstract
from attr_jax import cli
from attr_jax import evaluate
from attr_jax import hlo
from attr_jax import sharding
from attr_jax import train
from attr_jax.data import pipeline
from attr_jax.data import published
from attr_jax.data import registry
from attr_jax.data.builders import celeba
from attr_jax.data.builders import celebamask_hq
from attr_jax.data.builders import coco_files
from attr_jax.data.builders import helen
from attr_jax.data.builders import imet2019
from attr_jax.data.builders import pa100k
from attr_jax.data.builders import peta
from attr_jax.data.builders import rap
from attr_jax.data.builders import wider_attribute
from attr_jax.errors import InputError
from helpers import REPOSITORY

GIB = 2**30
PROGRAM = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%started (p: bf16[64]) -> bf16[64] {
  %p = bf16[64]{0:T(128)(2,1)} parameter(0)
  ROOT %inner = bf16[64]{0} all-reduce(%p), channel_id=4, replica_groups=[1,16]<=[16], to_apply=%add
}

%ended (q: bf16[64]) -> bf16[64] {
  %q = bf16[64]{0} parameter(0)
  ROOT %again = bf16[64]{0} all-reduce(%q), channel_id=4, replica_groups=[1,16]<=[16], to_apply=%add
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %part = f32[8]{0} all-reduce(%state), channel_id=5, replica_groups=[4,4]<=[16], to_apply=%add, metadata={op_name="jit(step)/Model/bn1/reduce"}
}

%condition (state.1: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%state.1, %state.1), direction=LT
}

ENTRY %main (x: f32[100]) -> f32[100] {
  %x = f32[100]{0} parameter(0)
  %both = (f32[100]{0:T(128)}, /*index=1*/bf16[2,3]{1,0:T(8,128)(2,1)S(1)}) all-reduce(%x, %x), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}}, to_apply=%add
  %gather-start = (f32[10]{0}, f32[160]{0}) all-gather-start(%x), channel_id=2, replica_groups=[1,16]<=[16], dimensions={0}
  %gather-done = f32[160]{0} all-gather-done(%gather-start)
  %scatter = f32[10]{0} reduce-scatter(%x), channel_id=3, replica_groups=[1,16]<=[16], to_apply=%add
  %async-collective-start = (bf16[64]{0}, u32[]) fusion(%x), kind=kCustom, calls=%started
  %async-collective-done = bf16[64]{0} fusion(%async-collective-start), kind=kCustom, calls=%ended
  %loop = (s32[], f32[8]{0}) while(%x), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %last = f32[100]{0} get-tuple-element(%both), index=0
}
"""


@pytest.fixture
def script(monkeypatch):
  folder = REPOSITORY / "launch"
  monkeypatch.syspath_prepend(folder)
  for name in ("JAX_PLATFORMS", "TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD", "TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE"):
    monkeypatch.setenv(name, os.environ.get(name, "1"))  # which `aot` sets; gone after the test
  yield importlib.import_module
  for path in folder.glob("*.py"):
    sys.modules.pop(path.stem, None)


def test_collectives_of_a_program():
  found = hlo.collectives_of(hlo.instructions(PROGRAM), 16)
  rows = {(one.kind, one.asynchronous, one.group): (one.count, one.size, one.largest, one.norms) for one in found}
  assert rows == {
      ("all-reduce", False, 16): (1, 412, 412, 0),  # a tuple of 400 and 12 bytes
      ("all-gather", True, 16): (1, 640, 640, 0),  # what comes out, once
      ("reduce-scatter", False, 16): (1, 640, 640, 0),  # what goes in
      ("all-reduce", True, 16): (1, 128, 128, 0),  # its start and its end are one
      ("all-reduce", False, 4): (3, 96, 32, 3),  # as often as the loop runs
  }
  assert [one.size for one in found] == sorted((one.size for one in found), reverse=True)
  assert hlo.loops(hlo.instructions(PROGRAM)) == [3]


def test_collectives_of_a_compiled_program():
  mesh = sharding.make_mesh()

  def part(x):
    total = jax.lax.psum(x, "data")
    return jax.lax.fori_loop(0, 3, lambda _, y: jax.lax.pmean(jnp.sin(jax.lax.pcast(y, "data", to="varying")), "data"), total)

  function = jax.jit(jax.shard_map(part, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P()))
  text = function.lower(jax.ShapeDtypeStruct((4, 32), jnp.float32, sharding=sharding.over_batch(mesh))).compile().as_text()
  found = hlo.collectives_of(hlo.instructions(text), mesh.size)
  assert sum(one.count for one in found) == 4 and {one.kind for one in found} == {"all-reduce"}
  assert sum(one.size for one in found) == 4 * 128 and {one.group for one in found} == {4}


@pytest.mark.parametrize("kind, shape, rate, hops", [
    ("v5e", (4, 4), 90e9, 12), ("v5e", (16, 16), 180e9, 32), ("v5e", (8, 16), 135e9, 30), ("v6e", (2, 4), 180e9, 8), ("v6e", (16, 16), 360e9, 32),
    ("v5p", (2, 2, 1), 180e9, 4), ("v5p", (2, 2, 2), 270e9, 6), ("v5p", (4, 4, 4), 540e9, 12), ("v4", (2, 4, 4), 135e9, 14), ("v5e", (1, 1), 0, 0),
])
def test_links_of_a_slice(script, kind, shape, rate, hops):
  chips = script("tpu_chips")
  assert chips.rate(chips.CHIPS[kind], shape) == pytest.approx(rate)
  assert chips.latency(chips.CHIPS[kind], shape) == pytest.approx(hops * 1e-6)


def collective(**values):
  return hlo.Collective(**{"kind": "all-reduce", "asynchronous": False, "group": 16, "count": 1, "size": 0, "largest": 0, "norms": 0} | values)


def test_roofline(script):
  chips = script("tpu_chips")
  chip = chips.CHIPS["v5e"]
  found = chips.predict(chip, (4, 4), 197e9, 8.19e9, [collective(size=96_000_000, count=2)])
  assert (found.compute, found.memory) == (pytest.approx(1e-3), pytest.approx(10e-3))
  # 2 x 15/16 of the bytes at 90 GB/s, and twelve hops for each of the two.
  assert found.waiting == pytest.approx(2e-3 + 24e-6) and found.step == pytest.approx(12.024e-3)
  beside = chips.predict(chip, (4, 4), 1e9, 8.19e9, [collective(size=96_000_000, asynchronous=True)])
  assert beside.waiting == 0 and beside.step == pytest.approx(10e-3)
  slow = chips.predict(chip, (4, 4), 1e9, 8.19e8, [collective(size=96_000_000, asynchronous=True)])
  assert slow.step == pytest.approx(2e-3 + 12e-6)  # longer than the work
  # A group of two neighbours has one link between them; a gather sends half of what an all-reduce does.
  assert chips.collective_seconds(chip, (4, 4), collective(group=2, size=45_000_000)) == pytest.approx(1e-3 + 2e-6)
  assert chips.collective_seconds(chip, (4, 4), collective(kind="all-gather", group=2, size=45_000_000)) == pytest.approx(0.5e-3 + 1e-6)
  assert chips.collective_seconds(chip, (1, 1), collective(group=1, size=45_000_000)) == 0


def fake_compiler(script, needed, capacity, tried):
  """An `attempt` that needs `needed(images)` bytes."""
  aot = script("aot")

  def attempt(images):
    tried.append(images)
    return aot.TooLarge(needed(images), capacity) if needed(images) > capacity else None

  return attempt, lambda images: aot.TooLarge(needed(images), capacity)


@pytest.mark.parametrize("needed", [lambda n: 1 + 0.1 * n, lambda n: 4 + 0.1 * n, lambda n: 1 + 0.1 * n**0.9, lambda n: 1 + 0.02 * n**1.3])
def test_a_batch_that_fits_is_found_soon_and_is_large(script, needed):
  tried = []
  attempt, failed = fake_compiler(script, needed, 16.0, tried)
  images = script("aot").smaller_batch(attempt, 1000, 1.0, failed(1000), 4)
  largest = max(n for n in range(4, 1000, 4) if needed(n) <= 16)
  assert images == tried[-1] and images % 4 == 0 and len(tried) <= 3 and 0.5 * largest < images <= largest


def test_a_batch_that_fits_without_figures_and_none_at_all(script):
  aot, tried = script("aot"), []
  unknown = aot.TooLarge(None, None)
  attempt = lambda images: tried.append(images) or (None if images <= 30 else unknown)
  assert aot.smaller_batch(attempt, 100, 1.0, unknown, 1) == 25 and tried == [50, 25]
  tried.clear()
  attempt, failed = fake_compiler(script, lambda n: 20 + n, 16.0, tried)  # the state alone is too large
  assert aot.smaller_batch(attempt, 64, 20.0, failed(64), 1) is None and len(tried) <= 3
  attempt, failed = fake_compiler(script, lambda n: 1 + n, 16.0, tried)
  assert aot.smaller_batch(attempt, 64, 1.0, failed(64), 32) is None  # no multiple of 32 is small enough


def test_errors_of_memory_are_told_from_others(script):
  aot = script("aot")
  message = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 34.50G of 15.75G hbm. Exceeded"
  assert aot.out_of_memory(message, 2 * GIB) == aot.TooLarge(34.5 * GIB, 15.75 * GIB)
  message = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (1.16T) exceeds available HBM (95.74G)."
  assert aot.out_of_memory(message, 2 * GIB) == aot.TooLarge(1.16 * 1024 * GIB + 2 * GIB, 95.74 * GIB)
  assert aot.out_of_memory("RESOURCE_EXHAUSTED: memory: something else", 0) == aot.TooLarge(None, None)
  assert aot.out_of_memory("INTERNAL: the compiler fell over", 0) is None


def written(aot, **values):
  """A result as `aot` makes it."""
  chips = 16
  prediction = {"compute": 0.02, "memory": 0.05, "waiting": 0.002, "beside": 0.0, "step": 0.052,
                "images_per_second_per_chip": 1230.7, "images_per_second": 19692.3}
  return {
      "config": "configs/dahar.py --config.compute_dtype=bfloat16", "topology": "v5e:4x4", "chips": chips, "batch": 1024, "batch_per_chip": 64,
      "images_per_chip": 64, "dtype": "bfloat16", "jax": "0.10.2", "libtpu": "0.0.42.1", "batch_norm": "local", "state_bytes": 4 * 10**8,
      "hbm_bytes": 15.75 * GIB, "compile_seconds": 321.0, "fits": True,
      "memory": {"arguments": 4 * 10**8, "donated": 4 * 10**8, "temporaries": 5 * GIB, "peak": 5 * GIB + 4 * 10**8},
      "flops": 3.9e12, "bytes": 4.1e10, "collectives": [dataclasses.asdict(collective(count=1194, size=105_000_000, largest=84_000_000))],
      "loops": [], "predicted": prediction, **values}


def test_the_table_is_narrow_and_says_all(script):
  aot = script("aot")
  shown = aot.table(written(aot))
  assert max(map(len, shown.splitlines())) <= 80
  for words in ("16 chips, 64 images each, 1,024 in all", "5.37 GiB   of 15.75 GiB: fits", "105.000", "synchronous", "52.00 ms    memory-bound",
                "1,231       per chip, 19,692 in all", "60.9 GFLOP per image"):
    assert words in shown
  assert "2 loops count as if run once" in aot.table(written(aot, loops=[3, None]))
  too_large = {"fits": False, "needed": 40 * GIB, "capacity": 15.75 * GIB}
  fitting = {"batch_per_chip": 1234, "batch": 1234 * 16, "memory": {"peak": 15 * GIB}}
  shown = aot.table(written(aot, **too_large, fitting=fitting))
  assert "40.00 GiB of 15.75 GiB" in shown and "1,234 images per chip, 19,744 in all, peak 15.00 GiB" in shown and "predicted" not in shown
  assert max(map(len, shown.splitlines())) <= 80
  assert "no batch found that fits, in 3 tries" in aot.table(written(aot, **too_large | {"needed": None, "capacity": None}, fitting=None))


@pytest.mark.parametrize("argv, words", [
    (["--config=configs/none.py", "--topology=v5e:4x4"], "config file configs/none.py does not exist"),
    (["--config=configs/dahar.py", "--topology=v5e:4x4", "--config.modle.depth=50"], "modle"),
    (["--config=configs/dahar.py", "--topology=v5e:4x4", "--config.optimizer.name=sdg"], "allowed: sgd"),
    (["--config=configs/dahar.py", "--topology=v9:4x4"], "there are v4:AxBxC, v5e:AxB"),
    (["--config=configs/dahar.py", "--topology=v5p:4x4"], "'v5p:4x4' is unknown"),
    (["--config=configs/dahar.py", "--topology=v5e"], "'v5e' is unknown"),
    (["--config=configs/dahar.py", "--topology=v5e:4x4", "--batch=0"], "--batch=0 must be at least 1"),
    (["--config=configs/dahar.py", "--topology=v5e:4x4", "--config.batch_size=40"], "config.batch_size=40 does not divide over 16 devices"),
    (["--config=configs/dahar.py", "--topology=v5e:4x4", "--batch=3", "--config.accumulate_steps=2"], "2 micro-batches"),
    (["--config=configs/dahar.py", "--topology=v5e:2x2", "--config.data.name=own_photos"], "'own_photos'"),
    (["--config=configs/dahar.py", "--topology=v5e:4x4", "--out=nowhere/a.json"], "there is no folder nowhere"),
    (["--config=configs/diaa.py", "--topology=v5e:4x4", "--config.model.variant=new"], "config.model"),
])
def test_wrong_calls_end_with_one_line(script, monkeypatch, capsys, argv, words):
  aot = script("aot")
  # Of the right size; so libtpu is not asked.
  monkeypatch.setattr(abstract, "tpu_mesh", lambda topology, fsdp: FakeMesh(abstract.parse_topology(topology)[1]))
  monkeypatch.chdir(REPOSITORY)
  monkeypatch.setattr(sys, "argv", ["aot.py", *argv])
  with pytest.raises(SystemExit) as ended:
    aot.main()
  lines = [line for line in capsys.readouterr().err.splitlines() if "this takes minutes" not in line]
  assert ended.value.code == 2 and len(lines) == 1 and words in lines[0]


class FakeMesh:

  def __init__(self, shape):
    self.size = 1
    for side in shape:
      self.size *= side


def test_without_libtpu_one_line_says_so(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
  with pytest.raises(InputError, match=r"pip install 'attr_jax\[tpu\]'"):
    abstract.tpu_mesh("v5e:2x2")


CONFIGS = ["attncnn_rnn.py:tiny", "attncnn_rnn.py:system=hog,tiny", "baseline.py:tiny", "dahar.py:tiny", "dahar.py:dataset=pa100k,tiny", "diaa.py:tiny",
           "face.py:tiny", "face.py:system=parser,tiny", "face.py:system=joint,tiny", "face.py:system=bbox,tiny", "face.py:system=ssg,annotation=regions_fine,tiny",
           "person_segmenter.py:tiny", "quickstart.py:tiny", "srn.py:tiny", "vac.py:tiny"]


@pytest.mark.aot
@pytest.mark.parametrize("name", CONFIGS)
def test_the_step_of_every_config_takes_its_abstract_batch(name):
  config = cli.load_config(f"{REPOSITORY}/configs/{name}", [])
  step, (state, batch, key) = abstract.train_step(config, sharding.make_mesh())
  after, scalars = jax.eval_shape(step, state, batch, key)
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(after) == shapes(state) and scalars["loss"].shape == ()


def test_what_a_batch_holds():
  mesh = sharding.make_mesh()
  shapes = lambda name, *overrides: {
      key: value.shape for key, value in abstract.train_step(cli.load_config(f"{REPOSITORY}/configs/{name}", list(overrides)), mesh)[1][1].items()}
  usual = {"label": (8, 14), "known": (8, 14), "id": (8,)}
  assert shapes("dahar.py:tiny") == {"image": (8, 32, 32, 3), **usual, "person_mask": (8, 32, 32)}
  assert shapes("srn.py:tiny") == {"image": (8, 32, 32, 3), **usual}
  # As many as the drawn artworks have.
  labels = {"label": (8, 60), "known": (8, 60), "id": (8,)}
  assert shapes("attncnn_rnn.py:tiny") == {"image": (8, 6, 32, 32, 3), "view_label": (8, 6, 60), **labels}
  joint = shapes("face.py:system=joint,tiny")
  assert set(joint) == {"image", "label", "known", "id", "region_mask"} and joint["label"] == (16, 40) and joint["region_mask"] == (16, 32, 26)
  assert shapes("face.py:system=parser,tiny")["region_mask"] == (8, 32, 26) and shapes("face.py:system=bbox,tiny")["landmarks"] == (8, 5, 2)
  assert shapes("face.py:system=ssp,annotation=regions,tiny")["regions"] == (8, 2, 2, 7)
  assert shapes("face.py:system=ssg,annotation=regions_fine,tiny")["regions"] == (8, 8, 7, 7)


OF_OTHER_WORLDS = ["attncnn_rnn.py:tiny", "face.py:system=joint,tiny", "face.py:system=bbox,tiny", "face.py:system=parser,tiny"]


@pytest.mark.parametrize("name", ["srn.py:tiny", "dahar.py:tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in OF_OTHER_WORLDS)])
def test_an_abstract_batch_is_like_those_of_the_pipeline(name, world_dir):
  people = {"data.size": "88x52"} if name in ("srn.py:tiny", "dahar.py:tiny") else {}
  config = cli.load_config(f"{REPOSITORY}/configs/{name}", [f"--config.data.dir={world_dir}"])
  config.update_from_flattened_dict(people)
  train._prepare_world(config, quiet=True)
  data = evaluate.open_data(config)
  batches = pipeline.train_dataset(
      evaluate.open_source(config, data, "train"), evaluate.input_spec(config, data.info), batch_size=config.batch_size, seed=0, process_index=0,
      process_count=1, second=evaluate.open_second(config, "train"))
  described = lambda batch: {key: (value.shape, jax.dtypes.canonicalize_dtype(value.dtype)) for key, value in batch.items()}
  _, (_, planned, _) = abstract.train_step(config, sharding.make_mesh())
  assert described(train.without_extras(batches[0])) == described(planned)


def test_published_counts_are_those_that_prepare_compares_with():
  facts = {name: found.train for name, found in published.FACTS.items()}
  assert facts["celeba"] == facts["celeba_aligned"] == celeba._PUBLISHED["train"] and facts["celebamask_hq"] == celebamask_hq._PUBLISHED["train"]
  assert facts["coco"] == coco_files._PHOTOS["train2014"] and facts["coco_person"] == coco_files._PHOTOS["train2017"]
  assert facts["helen"] == helen._SPLITS["train"][1] and facts["pa100k"] == pa100k._IMAGES["train"]
  assert facts["imet2019"] == len(imet2019.split_rows(imet2019._PUBLISHED["images"] - imet2019._PUBLISHED["images dropped"])["train"])
  assert [facts["rap"], facts["rap2"]] == [version.published["train images"] for version in (rap._FIRST, rap._SECOND)]
  assert facts["peta"] == facts["peta_all"] == peta._PUBLISHED["train images"] and facts["wider_attribute"] == wider_attribute._BOXES["train+val"]
  assert set(published.FACTS) == set(registry.DATASETS) - {"own_photos"}
  labels = {name: found.labels for name, found in published.FACTS.items()}
  assert labels["imet2019"] == imet2019._PUBLISHED["labels"] and labels["pa100k"] == len(published.PA100K_ATTRIBUTES)
  assert labels["peta"] == len(published.PETA_ATTRIBUTES) and labels["rap"] == len(published.RAP_SHARES) and labels["coco"] == len(published.COCO_SHARES)
  assert labels["celeba"] == labels["lfwa"] == len(published.CELEBA_ATTRIBUTES) and labels["wider_attribute"] == len(published.WIDER_ATTRIBUTES)


def program(scaling, **values):
  return scaling.Program(**{"kind": "v5e", "work": 0.05, "images": 64, "scope": "local", "chips": 16,
                            "collectives": (collective(size=90_000_000, count=2),)} | values)


def test_scaling_of_a_step(script):
  scaling, chips = script("scaling"), script("tpu_chips")
  chip = chips.CHIPS["v5e"]
  full = scaling.predict(chip, 256, 0.05, program(scaling))
  # 2 x 255/256 of 90 MB at 180 GB/s, twice 32 hops, and the slowest of 256 chips.
  assert full.sending == pytest.approx(2 * 255 / 256 * 0.09 / 180) and full.latency == pytest.approx(64e-6)
  assert full.step == pytest.approx(0.05 * (1 + 0.01 * (2 * 5.545177) ** 0.5) + full.sending + full.latency, rel=1e-6)
  assert full.efficiency == pytest.approx(0.05 / full.step)
  # Four slices: each chip's 256th part goes over the hosts' network too.
  joined = scaling.predict(chip, 1024, 0.05, program(scaling))
  assert joined.sending == pytest.approx(full.sending + 2 * 3 / 4 * 90e6 / 256 / 3.125e9)
  assert joined.latency == pytest.approx(2 * (32e-6 + scaling.NETWORK_LATENCY))
  # Groups of four neighbours do not care how many chips there are.
  small = collective(group=4, count=100, size=1000)
  groups = [scaling.predict(chip, n, 0.05, program(scaling, collectives=(small,))) for n in (8, 1024)]
  assert groups[0].latency == groups[1].latency == pytest.approx(100 * 6e-6) and groups[0].sending == pytest.approx(groups[1].sending)
  beside = scaling.predict(chip, 256, 0.05, program(scaling, collectives=(collective(size=90_000_000, count=2, asynchronous=True),)))
  assert beside.step == pytest.approx(full.step - full.sending - full.latency)


def test_scaling_reads_results_and_refuses_others(script, tmp_path, monkeypatch, capsys):
  scaling, aot = script("scaling"), script("aot")
  (tmp_path / "a.json").write_text(json.dumps(written(aot)))
  (tmp_path / "b.json").write_text(json.dumps(written(aot, topology="v6e:1x1", chips=1, collectives=[])))
  monkeypatch.setattr(sys, "argv", ["scaling.py", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
  scaling.main()
  lines = capsys.readouterr().out.splitlines()
  assert [line[:3] for line in lines] == ["   ", *["v5e"] * 4, *["v6e"] * 4] and max(map(len, lines)) <= 80 and "local" in lines[0]
  (tmp_path / "b.json").write_text("{}")
  with pytest.raises(SystemExit) as ended:
    scaling.main()
  assert ended.value.code == 2 and "b.json: not the JSON" in capsys.readouterr().err


def shown_in_docs():
  """The blocks of docs/scaling.md that are the output of a command, by that command."""
  blocks = (REPOSITORY / "docs" / "scaling.md").read_text().split("```")[1::2]
  return {block.splitlines()[1].removeprefix("$ python launch/"): block.splitlines()[2:] for block in blocks if "$ python launch/" in block}


def test_the_tables_of_the_docs_are_those_of_the_results(script, monkeypatch):
  aot, scaling = script("aot"), script("scaling")
  shown = shown_in_docs()
  assert len(shown) >= 5
  for command, lines in shown.items():
    name, *arguments = command.split()
    if name == "aot.py":
      out = next(argument for argument in arguments if argument.startswith("--out=")).removeprefix("--out=")
      result = json.loads((REPOSITORY / out).read_text())
      assert result["command"] == f"python launch/{command}" and aot.table(result).splitlines() == lines
    else:
      assert scaling.table([scaling.read(REPOSITORY / path) for path in arguments]).splitlines() == lines


def compile_for(topology, tmp_path, *options):
  """(result, text, errors, status) of the command, in a process of its own: here are four virtual CPU devices."""
  pytest.importorskip("libtpu")
  out = tmp_path / "plan.json"
  environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
  command = [sys.executable, REPOSITORY / "launch" / "aot.py", f"--topology={topology}", f"--out={out}", *options]
  done = subprocess.run(command, env=environment, capture_output=True, text=True)
  return json.loads(out.read_text()) if out.exists() else None, done.stdout, done.stderr, done.returncode


TINY = f"--config={REPOSITORY}/configs/dahar.py:tiny"


@pytest.mark.aot
@pytest.mark.parametrize("topology, chips", [("v4:2x2x1", 4), ("v5e:1x1", 1), ("v5e:16x16", 256), ("v5p:2x2x1", 4), ("v6e:2x4", 8)])
def test_a_step_is_compiled_for_every_kind(tmp_path, topology, chips):
  result, text, errors, status = compile_for(topology, tmp_path, TINY, "--batch=2", "--config.compute_dtype=bfloat16")
  assert status == 0 and result["chips"] == chips and result["fits"], errors
  memory = result["memory"]
  assert memory["donated"] >= 0.98 * result["state_bytes"] and memory["peak"] >= memory["arguments"] + memory["temporaries"]
  assert result["flops"] > 0 and result["bytes"] > 0 and result["predicted"]["step"] > 0 and f"{chips} chips, 2 images each" in text
  # Statistics of each chip: all that is communicated are gradients, running statistics and scalars at the end.
  assert all(one["group"] == chips and one["norms"] == 0 for one in result["collectives"]) and (chips == 1 or result["collectives"])
  assert sum(one["count"] for one in result["collectives"]) <= 5
  assert "Traceback" not in errors


@pytest.mark.aot
def test_scopes_of_batch_norm_differ_in_what_they_communicate(tmp_path):
  found = {}
  for scope in ("local", "group", "global"):
    result, _, errors, status = compile_for("v5e:2x4", tmp_path, TINY, "--batch=2", f"--config.batch_norm.scope={scope}", "--config.batch_norm.group_size=2")
    assert status == 0, errors
    found[scope] = result["collectives"]
  counts = {scope: sum(one["count"] for one in rows) for scope, rows in found.items()}
  assert counts["group"] > 10 * counts["local"] and counts["global"] > 10 * counts["local"]
  assert {one["group"] for one in found["group"]} >= {2} and {one["group"] for one in found["global"]} == {8}


@pytest.mark.aot
def test_what_does_not_fit_is_said_with_a_batch_that_does(tmp_path):
  result, text, errors, status = compile_for("v5e:1x1", tmp_path, TINY, "--batch=2000000")
  assert status == 1 and not result["fits"] and "does not fit" in text and "Traceback" not in errors
  fitting = result["fitting"]["batch_per_chip"]
  assert 0 < fitting < 2_000_000
  again, _, errors, status = compile_for("v5e:1x1", tmp_path, TINY, f"--batch={fitting}")
  assert status == 0 and again["fits"] and again["memory"]["peak"] == result["fitting"]["memory"]["peak"], errors
