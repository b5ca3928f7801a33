"""What is published of TPU chips, and what a step would take at these rates: a roofline. Nothing here is measured."""

from collections.abc import Sequence
import dataclasses
import math

from attr_jax import hlo

HOP = 1e-6  # seconds to the next chip: scaling-book, chapter 2, question 5


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip. Sources: the pages of Google Cloud on each kind ("TPU v5e" and so on) for `flops` and `bandwidth`; for `link` and
  `network` the table "TPU specs" of jax-ml.github.io/scaling-book/tpus, which rates links a tenth below Google's pages.

  Attributes:
    flops: per second, of matrix products in bfloat16; those of float32 run in the same units at jax's default precision.
    hbm: bytes that a program may take, as the compiler names them when one takes more; nominally 32, 16, 96 and 32 GB.
    bandwidth: of that memory, bytes/s.
    link: bytes/s to one neighbour, one way.
    network: bytes/s of its share of the host's network, between slices.
    per_host: chips of one host in a slice of several.
    ring: axes of this many chips are closed to rings (v5e, v6e), or 4: all axes are where each is a multiple of it (v4, v5p).
    slice: the most chips that are joined by links (of v5p the largest that can be asked for).
  """

  flops: float
  hbm: float
  bandwidth: float
  link: float
  network: float
  per_host: int
  ring: int
  slice: int


CHIPS = {
    "v4": Chip(275e12, 30.75 * 2**30, 1200e9, 45e9, 6.25e9, 4, 4, 4096),
    "v5e": Chip(197e12, 15.75 * 2**30, 819e9, 45e9, 3.125e9, 8, 16, 256),
    "v5p": Chip(459e12, 95.74 * 2**30, 2765e9, 90e9, 6.25e9, 4, 4, 6144),
    "v6e": Chip(918e12, 31.25 * 2**30, 1638e9, 90e9, 12.5e9, 8, 16, 256),
}


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Seconds of one step, and what they are made of.

  Attributes:
    compute: all floating-point operations at the chip's highest rate.
    memory: all bytes in and out of the program's kernels at the rate of the chip's memory.
    waiting: communication that other work waits for.
    beside: communication that may run beside other work.
    step: the larger of compute and memory, and `waiting`, and what of `beside` takes longer than the work.
  """

  compute: float
  memory: float
  waiting: float
  beside: float
  step: float


def rings(chip: Chip, shape: Sequence[int]) -> list[bool]:
  """Whether each axis of a slice is closed to a ring."""
  if chip.ring == 4:
    return [all(size % 4 == 0 for size in shape)] * len(shape)
  return [size == chip.ring for size in shape]


def rate(chip: Chip, shape: Sequence[int]) -> float:
  """Bytes/s that a chip sends in a collective over the whole slice: one way along each axis, both ways where it is a ring."""
  return sum(chip.link * (2 if ring else 1) for size, ring in zip(shape, rings(chip, shape)) if size > 1)


def latency(chip: Chip, shape: Sequence[int]) -> float:
  """Seconds of a very small all-reduce over the whole slice: along each axis to the farthest chip and back."""
  return 2 * HOP * sum(size // 2 if ring else size - 1 for size, ring in zip(shape, rings(chip, shape)))


def collective_seconds(chip: Chip, shape: Sequence[int], found: hlo.Collective) -> float:
  """Of all that `found` counts, over the whole slice or, for smaller groups, along a line of neighbours.

  In an all-reduce each chip sends 2 (n - 1) / n of the bytes (a reduce-scatter, then an all-gather), in the others (n - 1) / n.
  """
  n = found.group
  if n == 1:
    return 0.0
  where = shape if n == math.prod(shape) else (n,)
  sent = (2 if found.kind == "all-reduce" else 1) * (n - 1) / n * found.size
  return sent / rate(chip, where) + found.count * latency(chip, where) * (1 if found.kind == "all-reduce" else 0.5)


def predict(chip: Chip, shape: Sequence[int], flops: float, moved: float, collectives: Sequence[hlo.Collective]) -> Prediction:
  """The roofline of one step.

  Args:
    chip: of CHIPS.
    shape: of the slice, chips along each axis.
    flops: floating-point operations of a chip.
    moved: bytes in and out of its kernels.
    collectives: of the program.
  """
  compute, memory = flops / chip.flops, moved / chip.bandwidth
  waiting, beside = (sum(collective_seconds(chip, shape, one) for one in collectives if one.asynchronous is kind) for kind in (False, True))
  work = max(compute, memory)
  return Prediction(compute, memory, waiting, beside, work + waiting + max(0.0, beside - work))
