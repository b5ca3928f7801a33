"""Reads the text of a compiled program: what was fused with what, copies of activations, passes of batch norm, collectives."""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import math
import re

_LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"\(?(\w+)\[([\d,]*)\]")
_NORM = re.compile(r"(^|[/_])(\w*bn\d?|norm)/|BatchNorm")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|\w+_computations?)=(?:%?([\w.\-]+)|\{([^}]*)\})")
_BITS = re.compile(r"[a-z]+(\d+)")

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program.

  Attributes:
    body: the computation that it stands in; a fusion has one of its own.
    name: unique in the program.
    operation: such as "reduce".
    dtype: of its (first) result, such as "bf16"; "" where that is no array.
    shape: of that result.
    size: of all its results, in bytes, without padding.
    calls: the computation that it calls, or "".
    layer: where in the model it comes from, such as "jit(step)/jvp(Model)/backbone/stem/conv/...", or "".
    rest: the line behind the operation: operands and attributes.
  """

  body: str
  name: str
  operation: str
  dtype: str
  shape: tuple[int, ...]
  size: int
  calls: str
  layer: str
  rest: str


@dataclasses.dataclass(frozen=True)
class Collective:
  """Communication that one step has, alike ones together.

  Attributes:
    kind: of COLLECTIVES.
    asynchronous: whether it starts at one place and is waited for at another, so that other work may go on between.
    group: how many devices take part in each.
    count: how many there are in a step.
    size: bytes of all of them: what each device has at the end of an all-reduce, all-gather or permutation, and at the beginning of
      a reduce-scatter or all-to-all.
    largest: bytes of the largest one.
    norms: how many of them stand in batch norms by the compiler's notes. One that it has put together from several counts by its first.
  """

  kind: str
  asynchronous: bool
  group: int
  count: int
  size: int
  largest: int
  norms: int


def instructions(text: str) -> list[Instruction]:
  """All instructions of `compiled.as_text()`, in its order."""
  body, found = "", []
  for line in text.splitlines():
    if line.endswith("{") and not line.startswith(" "):
      body = line.removeprefix("ENTRY ").lstrip("%").split(" ")[0]
    elif match := _LINE.match(line):
      array, rest = _ARRAY.match(match[2]), match[4]
      calls, layer = re.search(r"calls=%?([\w.\-]+)", rest), re.search(r'op_name="([^"]*)"', rest)
      found.append(Instruction(
          body, match[1], match[3], array[1] if array else "", _dimensions(array[2]) if array else (), _bytes(match[2]),
          calls[1] if calls else "", layer[1] if layer else "", rest))
  return found


def of_norm(layer: str) -> bool:
  """Whether a layer is a batch norm."""
  return bool(_NORM.search(layer))


def moved_activations(found: Sequence[Instruction], least: int) -> list[Instruction]:
  """Transposes and synchronous copies (changes of layout) of at least `least` values, the images' own ([..., 3]) left out.

  Copies that run beside others, to faster memory and back, keep the layout and are not meant.
  """
  return [one for one in found if one.operation in ("transpose", "copy") and math.prod(one.shape) >= least and one.shape[-1] != 3]


def norm_passes(found: Sequence[Instruction]) -> dict[str, int]:
  """How many fused operations take sums for batch norms, {"forward", "backward"}: each is a pass over an activation.

  Sums that the compiler takes in one pass count once, wherever it put them.
  """
  bodies = collections.defaultdict(set)
  for one in found:
    if one.operation == "reduce" and of_norm(one.layer):
      bodies["backward" if "transpose(" in one.layer else "forward"].add((one.body, one.layer.rsplit("/", 1)[0]))
  return {kind: len(bodies[kind]) for kind in ("forward", "backward")}


def collectives_of(found: Sequence[Instruction], num_devices: int) -> list[Collective]:
  """The communication of one run of a program, the largest first.

  Those in a loop count as often as it runs, where the compiler knows that (else once; `loops` tells). Asynchronous ones are pairs of
  `-start` and `-done`, or stand in a computation that is started and waited for.

  Args:
    found: all instructions of the program.
    num_devices: that it was compiled for; the group of a collective that names none.
  """
  times = _times(found)
  started = {one.calls for one in found if one.operation == "async-start" or one.name.startswith("async-collective-start")}
  ended = {one.calls for one in found if one.name.startswith("async-collective-done")}
  results = {_operand(one.rest): one.size for one in found if one.operation.endswith("-done")}
  kinds = collections.defaultdict(list)
  for one in found:
    kind = one.operation.removesuffix("-start")
    if kind not in COLLECTIVES or one.body in ended:  # both ends of a fusion may hold a copy
      continue
    group, pair = _group(one.rest, num_devices), one.operation != kind
    size = results.get(one.name, one.size) if pair else one.size
    size *= group if kind == "reduce-scatter" else 1
    kinds[kind, pair or one.body in started, group].append((times.get(one.body, 1), size, of_norm(one.layer)))
  rows = [Collective(*key, sum(n for n, _, _ in all_), sum(n * size for n, size, _ in all_), max(size for _, size, _ in all_),
                     sum(n for n, _, norm in all_ if norm)) for key, all_ in kinds.items()]
  return sorted(rows, key=lambda row: -row.size)


def loops(found: Sequence[Instruction]) -> list[int | None]:
  """How often each loop of a program runs, None where the compiler does not know it."""
  return [_trips(one) for one in found if one.operation == "while"]


def _dimensions(text: str) -> tuple[int, ...]:
  return tuple(map(int, filter(None, text.split(","))))


def _bytes(result: str) -> int:
  """Of an array or a tuple of arrays, "(f32[2,3]{1,0}, bf16[])"; what has no size (tokens, contexts) counts nothing."""
  sizes = ((math.prod(_dimensions(shape)), 8 if dtype == "pred" else int((_BITS.match(dtype) or (0, 0))[1]))
           for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", result))
  return sum(-(-count * bits // 8) for count, bits in sizes)


def _operand(rest: str) -> str:
  """The name of an instruction's first operand, before which its type may stand."""
  match = re.search(r"%([\w.\-]+)", rest) or re.match(r"([\w.\-]+)", rest)
  return match[1] if match else ""


def _group(rest: str, num_devices: int) -> int:
  """Devices in each group of "replica_groups=[2,8]<=[16]" or "{{0,1},{2,3}}"; all where there is no list."""
  if match := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
    return int(match[1])
  match = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
  return len(match[1].split(",")) if match else num_devices


def _trips(loop: Instruction) -> int | None:
  match = re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.rest)
  return int(match[1]) if match else None


def _callers(found: Sequence[Instruction]) -> dict[str, list[Instruction]]:
  """Computation -> what calls it."""
  callers = collections.defaultdict(list)
  for one in found:
    for name, names in _CALLED.findall(one.rest):
      for called in [name] if name else names.split(", "):
        callers[called.lstrip("%")].append(one)
  return callers


def _times(found: Sequence[Instruction]) -> Mapping[str, int]:
  """Computation -> how often it runs in one run of the program, where it is called."""
  callers, times = _callers(found), {}

  def count(body: str) -> int:
    if body not in times:
      loops_and_calls = callers.get(body, ())
      times[body] = sum(count(one.body) * (_trips(one) or 1 if one.operation == "while" else 1) for one in loops_and_calls) or 1
    return times[body]

  for body in {one.body for one in found}:
    count(body)
  return times

