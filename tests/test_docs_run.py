"""Every command that README, docs, launch and the heads of configs show is run: shrunk, in a folder as a reader has it.

A page is one test: its blocks from top to bottom, then what its sentences and tables mention. A command that needs what another one makes
(a run, a file) comes after it; what the page itself does not make is made as another page says, README first. What a reader brings along
(photos, downloads, ImageNet weights, prepared data) is laid out by `_Belongings`; it is small, and the networks that train here are tiny.
"""

import contextlib
import dataclasses
import glob
import importlib.util
import io
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time
import traceback

import cv2
import numpy as np
import pytest

from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax.data import prepare
from attr_jax.data import worlds
from attr_jax.errors import InputError
from helpers import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md")), *sorted(REPOSITORY.glob("launch/**/README.md")),
         *sorted(REPOSITORY.glob("configs/*.py"))]
PROGRAMS = ("attr-jax", "curl", "python", "python3", "pip", "pytest", "mpirun", "sbatch", "apt-get", "docker", "kubectl", "xpk", "export", "while",
            "launch/tpu_vm/tpu.sh")

# Commands that are not run here: how they begin (or what they contain), and where they are run instead.
NOT_RUN = {
    r"(python3 -m venv|pip |apt-get )": "installs packages: .ci/run does, in a fresh environment",
    r"pytest ": "these tests themselves: .ci/run",
    r"python -m benchmarks|python benchmarks/(?!artwork_sets)": "measures for minutes: tests/test_benchmarks.py, test_speed_benchmarks.py",
    r"python launch/evidence\.py --claim": "trains for hours: tests/test_evidence.py",
    r".*--slurm|sbatch ": "needs SLURM: tests/multiprocess/test_slurm.py",
    r".*--coordinator=": "one process of several: tests/multiprocess/test_processes.py",
    r"mpirun ": "needs Open MPI: tests/test_launch.py has its variables",
    r"(docker|kubectl|xpk|export|while|launch/tpu_vm/tpu\.sh) ": "needs Google's machines: tests/test_launch.py has a gcloud of its own",
    r"attr-jax export .*--names=torchvision|attr-jax import-weights trunk": "the tiny networks that train here are none of torchvision's: tests/test_export.py",
    r"attr-jax export .*--to=onnx": "makes an environment of a gigabyte: tests/test_export.py, marker onnx",
    r"attr-jax serve |curl ": "a server does not end: tests/test_serve.py",
}

# Packages that code of the pages needs and that are no dependency, even of the tests; where such code runs instead.
FOREIGN = {"torchvision": "tests/test_export.py, with torch", "onnxruntime": "tests/test_export.py, marker onnx"}

# Pages that another test works through.
RUN_ELSEWHERE = {"docs/adding.md": "its examples need a copy of the project, which tests/test_adding.py makes"}

# What stands for a reader's own choice, in the order in which it is put in. Sources and runs have the names that other commands use.
PLACEHOLDERS = [
    (r"\[([^]|]*?)( \|[^]]*)?\]", r"\1"),  # an option in brackets is given, the first of several
    (r"prepare NAME", "prepare pa100k"),
    (r"prepare (\w+) --source=DIR", r"prepare \1 --source=sources/\1"),
    (r"--check([= ])DIR", r"--check\1data/pa100k"),
    (r"synthesize (\w+) --out=DIR --count=N", r"synthesize \1 --out=synthesized/\1 --count=20"),
    (r"evaluate --workdir=RUN --convention=NAME", "evaluate --workdir=runs/quickstart --convention=srn"),
    (r"(predict|serve|export)( .*)? --workdir=RUN", r"\1\2 --workdir=runs/quickstart"),
    (r"annotate --workdir=RUN --dataset=NAME --name=<name>", "annotate --workdir=runs/segmenter --dataset=wider_attribute --name=seen"),
]

# What is put behind a command so that it is small; the last of two values counts.
SHRINK = {
    r"attr-jax prepare (?!--check)(?!own_photos)": "--allow-deviations",  # fixtures have a handful of the published images
    # A sentence names another way to prepare what a block of the page prepares; both in one folder would be two sizes.
    r"attr-jax prepare .*--source=sources/": "--data-dir=mentioned",
    # What it makes has a real depth; the files to start from, which lie there, have that of the tiny networks.
    r"attr-jax import-weights ": "--out=imported.safetensors",
    r"python launch/grid\.py ": "--rows=all --seeds=1 --size=tiny",  # one run of two steps for 21 of an hour
    r"python launch/export_check\.py ": "--systems=SRN --formats=stablehlo",  # one of 22, and without the environment of a gigabyte
    r"python launch/aot\.py ": "--help",  # compiles for five minutes, with libtpu: tests/aot
}
# Values of a config. Those of the data stay: a drawn world of 9,000 people is there already, with the number of `DRAWN`.
SHRINK_CONFIG = {
    "total_steps": 2,
    "log_every_steps": 1,
    "batch_size": 8,  # two images on each of the four devices of the tests
    "evaluate.batch_size": 8,
    "evaluate.max_samples": 16,
    "model.depth": "tiny",  # and the widths that go with it
    "model.width": 4,
    "model.channels": 64,
    "model.fusion_channels": 32,
    "model.attention_channels": 64,
    "model.attention_size": 16,
    "model.hidden_size": 16,
}
DRAWN = {"people": 60, "faces": 40, "artworks": 120}


@dataclasses.dataclass(frozen=True)
class Shown:
  """A command as a page shows it, or a block of Python.

  Attributes:
    page: where it stands.
    line: from 1.
    text: without prompt and comment.
    mentioned: in a sentence or a table, not in a block.
    python: code.
  """

  page: pathlib.Path
  line: int
  text: str
  mentioned: bool = False
  python: bool = False

  @property
  def filled(self) -> str:
    """With values for its placeholders."""
    text = self.text
    for pattern, value in PLACEHOLDERS if text.startswith("attr-jax ") else ():
      text = re.sub(pattern, value, text)
    return text

  @property
  def runs_elsewhere(self) -> bool:
    if name_of(self.page) in RUN_ELSEWHERE:
      return True
    if self.python:
      return any(f"import {package}" in self.text for package in FOREIGN)
    return any(re.match(pattern, self.text) for pattern in NOT_RUN)

  @property
  def paths(self) -> set[str]:
    """All that may be a path in it: words, and values of options."""
    if self.python:
      return set(re.findall(r'"(runs/[^"]+)"', self.text))
    words = _words(self.filled)[1:]
    return {word.rpartition("=")[2] if word.startswith("-") else word for word in words}

  @property
  def makes(self) -> set[str]:
    """The run or the file that it leaves, as other commands name it."""
    if self.python or self.runs_elsewhere:
      return set()
    words = _words(self.filled)
    options = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    if words[1:2] == ["launch/grid.py"]:
      name = "-".join([options["--table"].replace(":", "-"), *([options["--world"]] if "--world" in options else [])])
      folder = options.get("--out", f"runs/grids/{name}")
      return {folder, f"{folder}/records.jsonl"}
    if "train" in words:
      return {options["--workdir"]}
    return {options["--out"]} if "--out" in options else set()


def name_of(page):
  return str(page.relative_to(REPOSITORY))


def _words(text):
  return shlex.split(text.replace("$(", "$ ("))


def shown(page: pathlib.Path) -> list[Shown]:
  """All commands of a page, those of blocks first; within both, from top to bottom."""
  text = page.read_text()
  if page.suffix == ".py":
    head = text.split('"""')[1]
    return [Shown(page, number, line.strip()) for number, line in enumerate(head.splitlines(), 1) if line.startswith("  attr-jax ")]
  found, sentences = [], []
  for line, language, lines in _parts(text):
    if language is None:
      sentences.append((line, "\n".join(lines)))
    elif language == "python":
      found.append(Shown(page, line, "\n".join(lines), python=True))
    else:
      found += [Shown(page, line + number, command) for number, command in _commands(lines, language)]
  for start, sentence in sentences:
    for match in re.finditer(r"(?<!`)`([^`]+)`(?!`)", sentence):
      command = " ".join(match[1].split())
      words = command.split()
      # Two words name a command (`attr-jax train`, `python launch/grid.py`), more are one.
      if words and words[0] in PROGRAMS and len(words) > (2 if re.match("attr-jax|python launch/", command) else 1) and "..." not in words:
        found.append(Shown(page, start + sentence[:match.start()].count("\n"), command, mentioned=True))
  return found


def _parts(text):
  """(first line, language of a block, "" where none is said, or None for sentences; lines) of a page."""
  parts, language = [(1, None, [])], None
  for number, line in enumerate(text.splitlines(), 1):
    if line.startswith("```"):
      language = line[3:].strip() if language is None else None
      parts.append((number + 1, language, []))
    elif language is None and (parts[-1][1] == "indented") != line.startswith("    "):
      parts.append((number, "indented" if line.startswith("    ") else None, [line]))
    else:
      parts[-1][2].append(line)
  return parts


def _commands(lines, language):
  """(number of the line from 0, command) of a block: behind a prompt where there is one, else what begins with a program."""
  joined, found = "", []
  for number, line in enumerate(lines):
    joined += re.sub(r"\s+# .*", "", line.strip())
    if joined.endswith("\\"):
      joined = joined[:-1]
      continue
    found += [(number, part.removeprefix(".venv/bin/")) for part in joined.split(" && ") if part]
    joined = ""
  if any(command.startswith("$ ") for _, command in found):
    found = [(number, command[2:]) for number, command in found if command.startswith("$ ")]
  known = [(number, command) for number, command in found if command.split()[0] in PROGRAMS]
  assert language != "bash" or known == found, f"what is {sorted(set(found) - set(known))}? See PROGRAMS"
  return known


EVERYTHING = {page: shown(page) for page in PAGES}


def in_order(commands: list[Shown]) -> list[Shown]:
  """As they stand, but what makes something comes before what needs it."""
  left, ordered = list(commands), []
  while left:
    later = [{path for other in left if other is not one for path in other.makes - one.makes} for one in left]
    ready = next((one for one, paths in zip(left, later) if not one.paths & paths), left[0])
    left.remove(ready)
    ordered.append(ready)
  return ordered


# What a reader has.


class _Belongings:
  """Downloads in their own layouts, drawn worlds, prepared data, weights; made once, linked or copied into the folder of each page."""

  def __init__(self, folder):
    self.folder = folder
    self._sources()
    for world, count in DRAWN.items():
      worlds.synthesize(world, folder / "drawn" / world, count=count, seed=0, progress=False)
    sources = {name: folder / "sources" / name for name in ("pa100k", "coco", "coco_person", "own_photos")}
    sources |= {name: folder / "drawn" / world for world in DRAWN for name in worlds.WORLDS[world]}
    for name, source in sources.items():
      prepare.prepare(name, source=source, data_dir=folder / "data", progress=False, allow_deviations=True)
    self._weights()

  def _sources(self):
    """Small downloads in the true formats, written by the tests of the readers."""
    fixtures = _load("data/conftest.py")
    for name in ("pa100k", "wider_attribute"):
      (self.folder / "sources" / name).mkdir(parents=True)
    fixtures.WiderSource(self.folder / "sources" / "wider_attribute")
    fixtures.Pa100kSource(self.folder / "sources" / "pa100k", 8)
    picture = fixtures.smooth_image
    make = {
        "celeba": ("celeba", lambda module, folder: module.CelebaSource(folder, picture)),
        "celeba_aligned": ("celeba", lambda module, folder: module.CelebaSource(folder, picture)),
        "celebamask_hq": ("celebamask_hq", lambda module, folder: module.MaskSource(folder, picture)),
        "helen": ("helen", lambda module, folder: module.HelenSource(folder, picture)),
        "lfwa": ("lfwa", lambda module, folder: module.LfwaSource(folder, picture, module.save_v73)),
        "coco": ("coco", lambda module, folder: module.CocoSource(folder, picture, "2014")),
        "imet2019": ("imet2019", lambda module, folder: module.ImetSource(folder, picture)),
        "rap": ("rap", lambda module, folder: module.RapSource(folder, picture, "rap")),
        "rap2": ("rap", lambda module, folder: module.RapSource(folder, picture, "rap2")),
        "peta": ("peta", lambda module, folder: module.PetaSource(folder, picture)),
        "peta_all": ("peta", lambda module, folder: module.PetaSource(folder, picture)),
        "own_photos": ("own_photos", lambda module, folder: module.OwnSource(folder, picture)),
    }
    for name, (module, source) in make.items():
      _write(source(_load(f"data/test_{module}.py"), self.folder / "sources" / name), self.folder / "written")
    self._coco_people(_load("data/test_coco_person.py"), picture)
    cv2.imwrite(str(self.folder / "photo.jpg"), picture(1, 300, 200))

  def _coco_people(self, module, picture):
    source = module.CocoSource(self.folder / "sources" / "coco_person", picture, [("train", 9), ("train", 4), ("val", 11), ("val", 12)])
    for split, photo in (("train", 9), ("train", 4), ("train", 4), ("val", 11), ("val", 12)):
      source.add(split, photo, [module.rectangle(10, 20, 60, 100)], [10, 20, 50, 80])
    source.save()

  def _weights(self):
    """The files of ImageNet: those to import hold a narrow ResNet-50, those to start from the trunk that trains here."""
    import jax

    from attr_jax import models
    from attr_jax import weights

    def variables(**options):
      """Of the right shapes and small; nothing is computed."""
      model = models.MODELS["baseline"].Model(num_labels=10, **options)
      shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32), train=False))
      rng = np.random.default_rng(0)
      return jax.tree.map(lambda leaf: rng.uniform(0.01, 0.1, leaf.shape).astype(np.float32), shapes)

    narrow, tiny = variables(depth=50, width=4), variables(depth="tiny")
    narrow, torch = weights.export_resnet(narrow["params"], narrow["batch_stats"]), _load("test_weights.py")
    for depth in (18, 34, 50, 101):
      _write_pth(torch, self.folder / f"resnet{depth}.pth", narrow)
      weights.save_safetensors(self.folder / f"resnet{depth}.safetensors", tiny["params"], tiny["batch_stats"], {})

  def lay_out(self, folder, without):
    """Fills the new folder of a page, prepared data but for the data sets `without`."""
    folder.mkdir()
    for name in ("configs", "launch", "benchmarks"):
      (folder / name).symlink_to(REPOSITORY / name)
    shutil.copy(REPOSITORY / "README.md", folder)
    shutil.copytree(REPOSITORY / "docs", folder / "docs")
    (folder / "sources").symlink_to(self.folder / "sources")
    for name, source in {"pa100k": "pa100k", "coco": "coco_person", "photos": "own_photos"}.items():
      (folder / name).symlink_to(self.folder / "sources" / source)
    for name in ("photo.jpg", "new.jpg"):
      shutil.copy(self.folder / "photo.jpg", folder / name)
    (folder / "more").mkdir()
    shutil.copy(self.folder / "photo.jpg", folder / "more" / "second.jpg")
    (folder / "people.csv").write_text("file,x,y,width,height\nphoto.jpg,10,20,80,150\nphoto.jpg,100,20,60,150\n")
    for path in self.folder.glob("resnet*"):
      (folder / path.name).symlink_to(path)
    shutil.copytree(self.folder / "data", folder / "data", ignore=lambda _, names: without & set(names))
    for name in ("people-9000-seed0", "people-120-seed0", "faces-4000-seed0", "artworks-4000-seed0"):
      (folder / "data" / name).mkdir()
      (folder / "data" / name / "source").symlink_to(self.folder / "drawn" / name.split("-")[0])


def _load(path):
  """A file of the tests as a module under a name of its own (there are two `conftest`)."""
  path = REPOSITORY / "tests" / path
  spec = importlib.util.spec_from_file_location(f"docs_run_{path.parent.name}_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module
  spec.loader.exec_module(module)
  return module


def _write(source, scratch):
  """Writes the annotation files of a source; some do so only when they prepare."""
  if hasattr(source, "write"):
    source.write()
  else:
    source.prepare(scratch, size=32)


def _write_pth(torch, path, arrays):
  """What torch.save writes of a state dict, without torch."""
  kinds = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}
  arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
  value = {name: torch.tensor(kinds[array.dtype], name, array.size, 0, array.shape, tuple(step // array.itemsize for step in array.strides))
           for name, array in arrays.items()}
  torch.write_pth(path, value, {name: array.tobytes() for name, array in arrays.items()})


@pytest.fixture(scope="session")
def belongings(tmp_path_factory):
  return _Belongings(tmp_path_factory.mktemp("belongings"))


def names_of(page: pathlib.Path) -> dict:
  """What the code of a page takes for granted."""
  if page.name == "README.md":
    return {"image": np.zeros((90, 50, 3), np.uint8)}
  if page.name == "packed.md":
    return {"configs": [cli.load_config("configs/quickstart.py:tiny", [f"--config.seed={seed}"]) for seed in (0, 1)],
            "workdirs": [pathlib.Path("runs/packed0"), pathlib.Path("runs/packed1")]}
  return {}


# Running.


def shrunk(command: str) -> str:
  """The command as it is run here."""
  ends = [end for pattern, end in SHRINK.items() if re.match(pattern, command)]
  words = _words(command)
  if "train" in words:
    behind = words[words.index("train") + 1:]
    path = next(word.split("=", 1)[1] for word in behind if word.startswith("--config="))
    config = config_lib.flatten(cli.load_config(path, [word for word in behind if word.startswith("--config.")]))
    for key, small in SHRINK_CONFIG.items():
      if key in config and (not isinstance(config[key], int) or isinstance(small, str) or config[key] > small or config[key] == 0):
        ends.append(f"--config.{key}={small}")
  return " ".join([command, *ends])


def run(command: str) -> tuple[int, str]:
  """Runs a command in the current folder; (status, what it said)."""
  if command.startswith("attr-jax ") and not re.search(r"[|<>;$]", command):
    words = [path for word in _words(command)[1:] for path in (sorted(glob.glob(word)) if "*" in word else [word])]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
      try:
        cli.main(words)
        status = 0
      except SystemExit as ended:
        status = ended.code or 0
    return status, said.getvalue()
  # As in a reader's shell, with `attr-jax` and `python` of this environment; the four devices are those of the tests alone.
  programs = pathlib.Path("programs")
  programs.mkdir(exist_ok=True)
  for name, start in (("attr-jax", "-m attr_jax"), ("python", "")):
    (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
    (programs / name).chmod(0o755)
  environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | {
      "PATH": f"{programs.resolve()}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
  done = subprocess.run(["bash", "-c", command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800)
  return done.returncode, done.stdout


def run_python(code: str, names: dict) -> tuple[int, str]:
  try:
    exec(compile(code, "block", "exec"), names)
  except Exception:
    return 1, traceback.format_exc()
  return 0, ""


def maker_of(path: str) -> Shown | None:
  return next((one for commands in EVERYTHING.values() for one in commands if path in one.makes), None)


class _Reader:
  """Works through a page in the current folder and notes what fails."""

  def __init__(self, page):
    self.page, self.done, self.faults = page, set(), []
    self.names = names_of(page)  # blocks of code go on from one another

  def follow(self, one: Shown):
    """Runs a command, after those that make what it needs."""
    self.done.add(one)
    for path in sorted(one.paths - one.makes):
      maker = None if pathlib.Path(path).exists() else maker_of(path)
      if maker is not None and maker not in self.done:
        self.follow(maker)
      elif maker is None and path.startswith("runs/") and not pathlib.Path(path).exists():
        self._note(one, f"no page makes {path}")
        return
    start, command = time.perf_counter(), "code"
    if one.python:
      status, said = run_python(one.text, self.names)
    else:
      try:
        command = shrunk(one.filled)
      except InputError as error:  # a config file or a key that is not there
        self._note(one, str(error))
        return
      status, said = run(command)
    print(f"{time.perf_counter() - start:6.1f} s  {command}", flush=True)  # for `pytest -s`
    if status != 0:
      self._note(one, f"run as: {command}", f"status {status}", *[line for line in re.split(r"[\r\n]+", said) if line.strip()][-6:])

  def _note(self, one, *lines):
    self.faults.append("\n    ".join([f"{name_of(one.page)}:{one.line}: {one.text}", *lines]))


def to_run(page: pathlib.Path) -> list[Shown]:
  blocks = in_order([one for one in EVERYTHING[page] if not one.mentioned and not one.runs_elsewhere])
  return blocks + in_order([one for one in EVERYTHING[page] if one.mentioned and not one.runs_elsewhere])


@pytest.mark.docs
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=name_of)
def test_every_command_of_a_page_runs(page, belongings, tmp_path, monkeypatch):
  folder = tmp_path / "reader"
  prepared = {match[1] for one in to_run(page) if not one.mentioned and (match := re.match(r"attr-jax prepare (\w+) ", one.text))}
  belongings.lay_out(folder, prepared)
  monkeypatch.chdir(folder)
  reader = _Reader(page)
  for one in to_run(page):
    if one not in reader.done:
      reader.follow(one)
  assert not reader.faults, "\n\n" + "\n\n".join(reader.faults)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_is_overlooked(page):
  """Whatever looks like a call with options is one of those that are run, or that NOT_RUN explains."""
  calls = re.findall(r"(?:attr-jax [a-z-]+|python (?:launch|benchmarks)/\w+\.py) [^`\n#]*?--[\w-]+", page.read_text().split('"""')[1]
                     if page.suffix == ".py" else page.read_text())
  assert not [call for call in calls if not any(call in one.text for one in EVERYTHING[page])]


def test_tests_that_are_named_exist():
  named = {word for commands in EVERYTHING.values() for one in commands if one.text.startswith("pytest ")
           for word in one.text.split() if word.startswith("tests/")}
  assert named and not [path for path in named if not (REPOSITORY / path).exists()]
