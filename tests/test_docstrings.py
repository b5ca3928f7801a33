"""Every public name of the package says what it is, which errors it raises, which shapes its arrays have and where it comes from.

Read from the source alone. Private are names with a leading underscore and what stands in them; `__call__` is public.
"""

import ast
from collections.abc import Iterator
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent / "attr_jax"
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))
MODELS = [file for file in FILES if file.startswith("models/") and file != "models/__init__.py"]
# Their functions take arrays, with or without saying so in an annotation; those of the others that take arrays say so.
UNANNOTATED = ("losses.py", "metrics.py")
OF_ARRAYS = [file for file in FILES if file in UNANNOTATED or file.startswith(("nn/", "models/"))]

# [B, H, W, C], [N], [..., L]; not [0, 1], which is a range.
SHAPE = re.compile(r"\[(\.\.\.|[A-Za-z])[^\]]*\]")
# "Guo et al. 2019", "Zhu, Li, Ouyang, Yu, Wang, ..., CVPR 2017"; a year behind a name with no full stop between.
SOURCE = re.compile(r"[A-Z]\w+(,| et al\.| and )[^.]*\b(19|20)\d\d\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def read(file: str) -> ast.Module:
  return ast.parse((ROOT / file).read_text())


def public(tree: ast.Module) -> Iterator[tuple[str, ast.AST, str]]:
  """(name, class or function, what its docstring and, of a special method, its class say) of all that is public."""
  for node in tree.body:
    if not isinstance(node, (Function, ast.ClassDef)) or node.name.startswith("_"):
      continue
    said = ast.get_docstring(node) or ""
    yield node.name, node, said
    for method in node.body if isinstance(node, ast.ClassDef) else ():
      if not isinstance(method, Function) or method.name.startswith("_") and not method.name.startswith("__"):
        continue
      own = ast.get_docstring(method) or ""
      yield f"{node.name}.{method.name}", method, f"{own}\n{said}" if method.name.startswith("__") or method.name == "setup" else own


def without_docstring(tree: ast.Module) -> list[str]:
  lacking = [] if ast.get_docstring(tree) else ["the module"]
  special = lambda name: name.split(".")[-1].startswith("__") and not name.endswith("__call__")  # what Python says they do
  return lacking + [name for name, node, _ in public(tree) if not special(name) and not ast.get_docstring(node)]


def results(tree: ast.Module) -> dict[str, str]:
  """Function or method -> the name of what it returns, by its annotation."""
  return {node.name: ast.unparse(node.returns).split(".")[-1] for node in ast.walk(tree) if isinstance(node, Function) and node.returns}


@functools.cache
def all_results() -> dict[str, str]:
  return {name: result for file in FILES for name, result in results(read(file)).items()}


def raised(node: ast.AST, makers: dict[str, str]) -> set[str]:
  """Names of the exceptions that stand behind `raise`; what was caught and is raised again has none."""
  names = set()
  for found in ast.walk(node):
    if not isinstance(found, ast.Raise) or not isinstance(found.exc, (ast.Call, ast.Name, ast.Attribute)):
      continue
    name = ast.unparse(found.exc.func if isinstance(found.exc, ast.Call) else found.exc).split(".")[-1]
    name = makers.get(name, name) if isinstance(found.exc, ast.Call) else name
    if not (isinstance(found.exc, ast.Name) and name.islower()):  # `raise error`
      names.add(name)
  return names


def silent_raises(tree: ast.Module, makers: dict[str, str]) -> list[str]:
  return [f"{name} raises {error}" for name, node, said in public(tree) if isinstance(node, Function)
          for error in sorted(raised(node, makers)) if not re.search(rf"\b{error}\b", said)]


def takes_arrays(node: Function, unannotated: bool) -> bool:
  arguments = [one for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if one.arg not in ("self", "cls")]
  return any("Array" in ast.unparse(one.annotation) or "ndarray" in ast.unparse(one.annotation) if one.annotation else unannotated
             for one in arguments)


def without_shape(tree: ast.Module, unannotated: bool) -> list[str]:
  return [name for name, node, said in public(tree)
          if isinstance(node, Function) and takes_arrays(node, unannotated) and not SHAPE.search(said)]


@pytest.mark.parametrize("file", FILES)
def test_every_public_name_has_a_docstring(file):
  assert not without_docstring(read(file))


@pytest.mark.parametrize("file", FILES)
def test_what_a_public_function_raises_is_in_its_docstring(file):
  assert not silent_raises(read(file), all_results())


@pytest.mark.parametrize("file", OF_ARRAYS)
def test_functions_of_arrays_show_their_shapes(file):
  assert not without_shape(read(file), file in UNANNOTATED)


@pytest.mark.parametrize("file", MODELS)
def test_a_model_names_its_paper(file):
  assert SOURCE.search(ast.get_docstring(read(file)).replace("\n", " "))


def test_every_loss_names_its_source():
  lacking = [name for name, _, said in public(read("losses.py")) if not SOURCE.search(said.replace("\n", " "))]
  assert not lacking


def test_the_checks_find_what_they_look_for():
  tree = ast.parse('''
def silent(x: jax.Array) -> int:
  """Of x in [0, 1]."""
  if x.size:
    raise made(x)
  raise errors.InputError("")

def made(x) -> ValueError:
  """Of x [B, L].

  Raises:
    ValueError: never.
  """
  try:
    raise ValueError
  except ValueError as error:
    raise error

def _private():
  raise KeyError

class Layer:
  def __init__(self):
    raise OSError

  def __call__(self, x: np.ndarray | None):
    pass

  def undocumented(self):
    pass
''')
  assert without_docstring(tree) == ["the module", "Layer", "Layer.__call__", "Layer.undocumented"]
  assert silent_raises(tree, results(tree)) == ["silent raises InputError", "silent raises ValueError", "Layer.__init__ raises OSError"]
  assert without_shape(tree, False) == ["silent", "Layer.__call__"]
  assert without_shape(tree, True) == ["silent", "Layer.__call__"]
  assert not SOURCE.search("Guo et al. say more. Since 2019")
  assert SOURCE.search("after Guo et al. 2019, Sec. 3")
