"""README and docs: every command parses, every link and file named exists."""

import pathlib
import re
import shlex

import pytest

from attr_jax import cli

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
RUN_ELSEWHERE = REPOSITORY / "docs" / "adding.md"  # its config is an example: tests/test_adding.py puts it in place


def commands():
  """Every `attr-jax ...` of README, docs and the heads of config files that has all its arguments."""
  found = set()
  for page in [*PAGES, *sorted((REPOSITORY / "configs").glob("*.py"))]:
    if page == RUN_ELSEWHERE:
      continue
    for line in page.read_text().splitlines():
      match = re.search(r"attr-jax ((?:train|evaluate|predict|prepare|annotate|synthesize|serve|export|import-weights) [^`#|]*)", line)
      if match:
        found.add(re.sub(r"\[.*", "", match[1]).replace("--count=N", "--count=5").strip())
  return sorted(found)


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
  argv = shlex.split(command)
  args, rest = cli._parse(argv)
  if args.command == "train":
    cli.load_config(str(REPOSITORY / args.config), rest)


def test_there_are_commands():
  assert len(commands()) >= 8


def grids():
  """Every `python launch/grid.py ...` that names a table."""
  pages = [*PAGES, REPOSITORY / "launch" / "README.md", REPOSITORY / "launch" / "slurm" / "README.md"]
  lines = [line for page in pages if page != RUN_ELSEWHERE for line in page.read_text().splitlines()]
  return sorted({match[1].strip() for line in lines if (match := re.search(r"python launch/grid\.py (--table=[^`#]*)", line))})


@pytest.mark.parametrize("command", grids())
def test_grids_can_be_run(command, monkeypatch, tmp_path, capsys):
  monkeypatch.syspath_prepend(REPOSITORY / "launch")
  import grid

  argv = [part for part in shlex.split(command) if not part.startswith("--slurm")]
  grid.main([*argv, f"--out={tmp_path}", "--print"])
  assert capsys.readouterr().out.count("attr-jax train") >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page):
  text = page.read_text()
  for target in re.findall(r"\]\(([^)#:]+)\)", text):
    assert (page.parent / target).exists(), target
  for name in re.findall(r"`((?:attr_jax|tests|configs|docs)/[\w/.]+\.(?:py|md))`", text):
    assert (REPOSITORY / name).exists(), name


@pytest.mark.parametrize("config", ["quickstart.py:tiny", "baseline.py:tiny", "baseline.py:dataset=pa100k,tiny",
                                    "baseline.py:dataset=pa100k,small", "baseline.py:depth=101,loss=exp_ratio",
                                    "srn.py", "srn.py:world,small", "diaa.py", "diaa.py:variant=code,world,small", "dahar.py", "dahar.py:world,small"])
def test_every_config_loads_and_passes_its_checks(config):
  from attr_jax import config as config_lib
  from attr_jax import evaluate

  loaded = cli.load_config(f"{REPOSITORY}/configs/{config}", [])
  config_lib.check(loaded)
  evaluate.input_spec(loaded)
