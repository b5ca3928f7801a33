"""The examples of docs/adding.md, put into a copy of the project as the page says, train and prepare."""

import os
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from helpers import REPOSITORY

PAGE = (REPOSITORY / "docs" / "adding.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def block(path):
  """The example that names its file in the first line."""
  found, = [text for text in BLOCKS if text.startswith(f"# {path}\n")]
  return found


def insert(path, line, after):
  """A line of the page, put behind another one of a file."""
  assert any(line in text.splitlines() for text in BLOCKS), line
  text = path.read_text()
  assert text.count(f"{after}\n") == 1, after
  path.write_text(text.replace(f"{after}\n", f"{after}\n{line}\n"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
  """The project with the model, the loss and the data set of the page."""
  folder = tmp_path_factory.mktemp("copy")
  for name in ("attr_jax", "configs", "launch"):
    shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
  for path in ("attr_jax/models/csra.py", "configs/csra.py", "attr_jax/data/builders/listed.py"):
    (folder / path).write_text(block(path))
  models, registry, losses = (folder / "attr_jax" / name for name in ("models/__init__.py", "data/registry.py", "losses.py"))
  insert(models, "from attr_jax.models import csra", "from attr_jax.models import baseline")
  insert(models, '    "csra": csra,', '    "baseline": baseline,')
  insert(registry, "from attr_jax.data.builders import listed", "from attr_jax.data.builders import lfwa")
  insert(registry, '    "listed": listed.Builder,', '    "lfwa": lfwa.Builder,')
  insert(losses, '    "root_ratio": root_ratio_weights,', '    "mixed": mixed_weights,')
  text = losses.read_text()
  losses.write_text(text.replace("# The loss of an attribute model, by name.", block("attr_jax/losses.py") + "\n\n# The loss of an attribute model, by name."))
  return folder


def run(copy, *args, program=("-m", "attr_jax")):
  """`attr-jax ARGS` of the copy."""
  done = subprocess.run([sys.executable, *program, *map(str, args)], cwd=copy, capture_output=True, text=True,
                        env=os.environ | {"PYTHONPATH": str(copy)})
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def test_model_row_and_loss_train(copy, world_dir):
  out = run(copy, "train", "--config=configs/csra.py:share/half,tiny", "--workdir=run", f"--config.data.dir={world_dir}", "--config.data.size=88x52",
            "--config.loss.loss=root_ratio")
  assert "mAP" in out
  assert list((copy / "run" / "pictures").glob("*heatmap.png"))
  assert '"share": 0.5' in (copy / "run" / "config.json").read_text()


def test_its_table_is_a_grid(copy):
  command, = re.findall(r"python (launch/grid\.py) (--table=csra:share [^`]*)`", PAGE)
  out = run(copy, *command[1].split(), "--print", program=(command[0],))
  assert out.count("attr-jax train") == 9 and all(f"share/{row}" in out for row in ("none", "tenth", "half"))


def test_data_set_is_prepared(copy, tmp_path):
  rng = np.random.default_rng(0)
  lines = ["hat glasses"]
  for i, split in enumerate(("train", "train", "val", "test")):
    cv2.imwrite(str(tmp_path / f"{i}.jpg"), rng.integers(0, 256, (40, 30, 3), np.uint8))
    lines.append(f"{i}.jpg {split} {i % 2} 1")
  (tmp_path / "labels.txt").write_text("\n".join(lines))
  run(copy, "prepare", "listed", f"--source={tmp_path}", f"--data-dir={tmp_path / 'data'}", "--size=32")
  out = run(copy, "prepare", f"--check={tmp_path / 'data' / 'listed'}")
  assert "hat" in out and "glasses" in out
