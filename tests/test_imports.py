"""Imports point one way (docs/architecture.md)."""

import ast
import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "attr_jax"
LEVELS = [
    {"errors"},
    {"config", "losses", "metrics", "hlo", "data", "nn", "photos", "load_stablehlo"},
    {"models"},
    {"optim", "sharding", "checkpoint", "writers", "weights", "pictures", "overlays", "decoding_pictures"},
    {"state", "steps", "device_cache", "program"},
    {"run_folder"},
    {"train", "evaluate", "predict", "answers", "serve", "annotate", "check", "explain", "export", "onnx_conversion", "abstract", "packed"},
    {"cli"},
]
LEVEL = {name: i for i, names in enumerate(LEVELS) for name in names}


def imported_parts(path: pathlib.Path) -> set[str]:
  """Parts of attr_jax that a file imports, as "models/baseline" or "losses"."""
  parts = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "attr_jax":
      inner = node.module.split(".")[1:]
      parts |= {"/".join([*inner, alias.name]) for alias in node.names} if len(inner) < 2 else {"/".join(inner)}
    elif isinstance(node, ast.Import):
      parts |= {"/".join(alias.name.split(".")[1:]) for alias in node.names if alias.name.startswith("attr_jax.")}
  return {part for part in parts if part and part.split("/")[0] in LEVEL}


def sources() -> list[pathlib.Path]:
  return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")]


def test_every_file_has_a_level():
  assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in sources()} <= LEVEL.keys()


def test_imports_point_down():
  wrong = []
  for path in sources():
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for part in imported_parts(path):
      if LEVEL[part.split("/")[0]] > LEVEL[own]:
        wrong.append(f"{path.relative_to(PACKAGE)} imports {part}")
  assert not wrong


def test_models_do_not_import_each_other():
  for path in PACKAGE.glob("models/*.py"):
    if path.name != "__init__.py":
      assert not [part for part in imported_parts(path) if part.startswith("models")], path


def test_data_has_no_jax():
  for path in PACKAGE.glob("data/**/*.py"):
    tree = ast.parse(path.read_text())
    names = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not [name for name in names if name.split(".")[0] in ("jax", "flax", "optax")], path


def test_only_checkpoint_imports_orbax():
  users = [path.name for path in PACKAGE.rglob("*.py") if "orbax.checkpoint import" in path.read_text()]
  assert users == ["checkpoint.py"]


def test_configs_import_only_the_config_helpers():
  for path in (PACKAGE.parent / "configs").glob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ImportFrom):
        allowed = node.module == "ml_collections" or (
            node.module == "attr_jax" and [alias.name for alias in node.names] == ["config"])
        assert allowed, (path, node.module)
      elif isinstance(node, ast.Import):
        assert [alias.name for alias in node.names] == ["ml_collections"], path


def test_package_import_is_light():
  code = "import sys, attr_jax; print(sorted({'jax', 'numpy', 'cv2', 'grain'} & set(sys.modules)))"
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
  assert result.stdout.strip() == "[]"
