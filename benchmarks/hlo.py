"""Reads the text of a compiled program: what was fused with what, copies of activations, passes of batch norm."""

import collections
import dataclasses
import math
import re

_LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\(")
_ARRAY = re.compile(r"\(?(\w+)\[([\d,]*)\]")
_NORM = re.compile(r"(^|[/_])(\w*bn\d?|norm)/|BatchNorm")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program.

  Attributes:
    body: the computation that it stands in; a fusion has one of its own.
    name: unique in the program.
    operation: such as "reduce".
    dtype: of its (first) result, such as "bf16"; "" where that is no array.
    shape: of that result.
    calls: the computation that it calls, or "".
    layer: where in the model it comes from, such as "jit(step)/jvp(Model)/backbone/stem/conv/...", or "".
  """

  body: str
  name: str
  operation: str
  dtype: str
  shape: tuple[int, ...]
  calls: str
  layer: str


def instructions(text: str) -> list[Instruction]:
  """All of `compiled.as_text()`."""
  body, found = "", []
  for line in text.splitlines():
    if line.endswith("{") and not line.startswith(" "):
      body = line.removeprefix("ENTRY ").lstrip("%").split(" ")[0]
    elif match := _LINE.match(line):
      array = _ARRAY.match(match[2])
      calls, layer = re.search(r"calls=%?([\w.\-]+)", line), re.search(r'op_name="([^"]*)"', line)
      found.append(Instruction(
          body, match[1], match[3], array[1] if array else "", tuple(map(int, filter(None, array[2].split(",")))) if array else (),
          calls[1] if calls else "", layer[1] if layer else ""))
  return found


def of_norm(layer: str) -> bool:
  """Whether a layer is a batch norm."""
  return bool(_NORM.search(layer))


def moved_activations(found: list[Instruction], least: int) -> list[Instruction]:
  """Transposes and synchronous copies (changes of layout) of at least so many values, the images' own left out.

  Copies that run beside others, to faster memory and back, keep the layout and are not meant.
  """
  return [one for one in found if one.operation in ("transpose", "copy") and math.prod(one.shape) >= least and one.shape[-1] != 3]


def norm_passes(found: list[Instruction]) -> dict[str, int]:
  """How many fused operations take sums for batch norms, {"forward", "backward"}: each is a pass over an activation.

  Sums that the compiler takes in one pass count once, wherever it put them.
  """
  bodies = collections.defaultdict(set)
  for one in found:
    if one.operation == "reduce" and of_norm(one.layer):
      bodies["backward" if "transpose(" in one.layer else "forward"].add((one.body, one.layer.rsplit("/", 1)[0]))
  return {kind: len(bodies[kind]) for kind in ("forward", "backward")}
