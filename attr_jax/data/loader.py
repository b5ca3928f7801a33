"""From a grain graph of samples to batches: threads that draw straight into the memory of the batches, and reading ahead.

The graph says what sample number i is: which record, and how it is to be augmented. Its elements are functions that draw
the sample, into given arrays where there are any (`Draw`), so that a batch is never put together from copies.

The rule of the memory: a batch belongs to whoever holds one of its arrays, a view of it, or a device array that shares its
memory (jax keeps the numpy array that it was made from). Only when nothing refers to an array any more is its memory used
for a later batch. So a caller may keep what it likes; what it keeps costs memory, nothing else.
"""

import atexit
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import queue
import threading
from typing import Any, TypeVar
import weakref

import grain
import numpy as np

from attr_jax.data import ops

Batch = dict[str, np.ndarray]
# Draws one sample. Given arrays, it may leave its own in these (the very same objects are then in the sample), if they fit.
Draw = Callable[[Mapping[str, np.ndarray] | None], ops.Sample]
Item = TypeVar("Item")

# Smaller arrays (labels, ids) are made anew for each batch: cheap, and callers keep those of a whole split.
_LEAST_REUSED_BYTES = 1 << 16
_ALIGNMENT = 64  # bytes; with it jax on a CPU takes the memory as it is instead of a copy


class Batches(Sequence):
  """The batches of a data set, by number.

  `batches[i]` draws one in the calling thread and stacks its samples, plain and slow; `read` gives the same fast.

  Attributes:
    samples: Map-style data set of `Draw`s.
    size: Samples per batch b; batch i holds samples i * b to (i + 1) * b - 1, a rest is left out. Its arrays are [b, ...].
  """

  def __init__(self, samples: grain.MapDataset, size: int):
    self.samples, self.size = samples, size

  def __len__(self) -> int:
    return len(self.samples) // self.size

  def __getitem__(self, index: int) -> Batch:
    start = range(len(self))[index] * self.size
    drawn = [self.samples[number](None) for number in range(start, start + self.size)]
    return {key: np.stack([sample[key] for sample in drawn]) for key in drawn[0]}


def read(batches: Batches, start: int = 0, stop: int | None = None, *, num_threads: int = 2, ahead: int = 2) -> Iterator[Batch]:
  """Yields batches `start` to `stop` - 1 in order; they do not depend on the number of threads.

  Args:
    batches: What to read.
    start: First batch; those before it cost nothing.
    stop: End; None = that of `batches`.
    num_threads: Threads that draw samples, about the number of cores. They share the samples of a batch. 0 = none: the
      caller draws, and nothing is read ahead.
    ahead: How many batches the threads may be ahead of the caller, the one in the making among them.

  Yields:
    Dicts of arrays with leading axis `batches.size`. Arrays are the caller's to keep; see the rule of the memory above.

  Raises:
    ValueError: A sample differs from the first one read in keys, shapes or dtypes.
    Exception: What drawing a sample raised; of several in a batch that of the first one.
  """
  end = len(batches) if stop is None else min(stop, len(batches))
  work = _Work(batches, start, end, ahead)
  with _running([work.run] * num_threads, work.close):
    for _ in range(start, end):
      yield work.finished_batch(help_out=not num_threads)


def read_ahead(items: Iterator[Item], count: int = 2) -> Iterator[Item]:
  """Yields what `items` yields, which a thread of its own asks for `count` items ahead of the caller.

  An error of `items`, any Exception, reaches the caller in its turn. Once this is closed (or left by an error) `items` is not in use any
  more and can be closed, too.
  """
  room, ready, closed = threading.Semaphore(count), queue.SimpleQueue(), False

  def produce() -> None:
    try:
      while room.acquire() and not closed:
        ready.put((next(items), None))
    except BaseException as error:  # StopIteration is one of them
      ready.put((None, error))

  def stop() -> None:
    nonlocal closed
    closed = True
    room.release()

  with _running([produce], stop):
    while True:
      item, error = ready.get()
      if isinstance(error, StopIteration):
        return
      if error is not None:
        raise error
      room.release()
      yield item


@contextlib.contextmanager
def _running(targets: Sequence[Callable[[], None]], stop: Callable[[], None]) -> Iterator[None]:
  """Runs each target in a thread; at the end calls `stop`, which must make them return, and waits for them."""
  threads = [threading.Thread(target=target, daemon=True) for target in targets]

  def end() -> None:
    stop()
    for thread in threads:
      thread.join()

  # An iterator that nobody has closed must not have threads inside a decoder when the interpreter goes: that would abort.
  atexit.register(end)
  unregister = atexit.unregister  # by then the module may be gone
  for thread in threads:
    thread.start()
  try:
    yield
  finally:
    unregister(end)
    end()


@dataclasses.dataclass
class _Making:
  """A batch that is being drawn: its arrays (from the first sample on), samples that are missing, errors by place."""

  left: int
  arrays: Batch | None = None
  errors: dict[int, BaseException] = dataclasses.field(default_factory=dict)


class _Work:
  """What the threads share: which sample is next, and the batches in the making, oldest first."""

  def __init__(self, batches: Batches, start: int, end: int, ahead: int):
    self._samples, self._size = batches.samples, batches.size
    self._next, self._end = start * batches.size, end * batches.size  # numbers of samples
    self._oldest, self._ahead = start, ahead
    self._making: dict[int, _Making] = {}
    self._memory = _Memory(batches.size, ahead)
    self._changed = threading.Condition(threading.Lock())
    self._closed = False

  def run(self) -> None:
    """What a thread does until everything is drawn or `close`."""
    while (number := self._take()) is not None:
      self._draw(number)

  def finished_batch(self, help_out: bool) -> Batch:
    """The oldest batch; waits for it, or draws it where there are no threads."""
    if help_out:
      for _ in range(self._size):
        self._draw(self._take())
    with self._changed:
      self._changed.wait_for(lambda: self._closed or self._oldest in self._making and not self._making[self._oldest].left)
      if self._closed:  # the program ends while another thread waits here
        raise RuntimeError("the batches are closed")
      made = self._making.pop(self._oldest)
      self._oldest += 1
      self._changed.notify_all()
    if made.errors:
      raise made.errors[min(made.errors)]
    return made.arrays

  def close(self) -> None:
    with self._changed:
      self._closed = True
      self._changed.notify_all()

  def _take(self) -> int | None:
    """The number of the next sample, once its batch may be begun; None when there is nothing more to do."""
    with self._changed:
      while not self._closed and self._next < self._end:
        step = self._next // self._size
        if step < self._oldest + self._ahead:
          self._making.setdefault(step, _Making(self._size))
          self._next += 1
          return self._next - 1
        self._changed.wait()
      return None

  def _draw(self, number: int) -> None:
    step, place = divmod(number, self._size)
    making = self._making[step]  # stays until all its samples are drawn
    try:
      draw = self._samples[number]
      self._memory.learn(draw)
      with self._changed:
        if making.arrays is None:
          making.arrays = self._memory.new_batch()
      self._memory.store(draw, making.arrays, place, number)
    except BaseException as error:  # the caller's to see, whatever it is
      making.errors[place] = error
    with self._changed:
      making.left -= 1
      if not making.left:
        self._changed.notify_all()


class _Memory:
  """Makes the arrays of batches, in memory that is used again when nothing refers to it."""

  def __init__(self, size: int, kept: int):
    self._size, self._kept = size, kept
    self._learning = threading.Lock()
    self._like: dict[str, np.ndarray] = {}
    self._free: dict[str, queue.SimpleQueue] = {}

  def learn(self, draw: Draw) -> None:
    """Draws a sample, the first time, to see what samples look like."""
    if self._like:
      return
    with self._learning:
      if not self._like:
        like = {key: np.asarray(value) for key, value in draw(None).items()}
        self._free = {key: queue.SimpleQueue() for key, value in like.items() if value.nbytes * self._size >= _LEAST_REUSED_BYTES}
        self._like = like

  def new_batch(self) -> Batch:
    """Arrays with anything in them."""
    return {key: self._reused(key, value) if key in self._free else np.empty((self._size, *value.shape), value.dtype)
            for key, value in self._like.items()}

  def store(self, draw: Draw, arrays: Batch, place: int, number: int) -> None:
    """Draws a sample into its place."""
    out = {key: arrays[key][place] for key in self._free}
    sample = draw(out)
    if sample.keys() != self._like.keys():
      raise ValueError(f"sample {number} has {', '.join(sorted(sample))}; the first one read has {', '.join(sorted(self._like))}")
    for key, value in sample.items():
      if value is out.get(key):
        continue
      value, like = np.asarray(value), self._like[key]
      if value.shape != like.shape or value.dtype != like.dtype:
        raise ValueError(f"sample {number}: {key} is {value.dtype} {list(value.shape)}; of the first one read it is "
                         f"{like.dtype} {list(like.shape)}")
      arrays[key][place] = value

  def _reused(self, key: str, like: np.ndarray) -> np.ndarray:
    free = self._free[key]
    try:
      block = free.get_nowait()
    except queue.Empty:
      block = _aligned_block(like.nbytes * self._size)
    # The base of every view of this array is the array itself, not the block: numpy looks through arrays only. So it
    # lives as long as any of them.
    array = np.frombuffer(block, like.dtype)
    weakref.finalize(array, _give_back, free, block, self._kept).atexit = False
    return array.reshape(self._size, *like.shape)


def _aligned_block(size: int) -> memoryview:
  memory = np.empty(size + _ALIGNMENT, np.uint8)
  offset = -memory.ctypes.data % _ALIGNMENT
  return memoryview(memory)[offset:offset + size]


def _give_back(free: queue.SimpleQueue, block: Any, kept: int) -> None:
  if free.qsize() < kept:  # the rest, of a caller that has kept many batches for a while, goes
    free.put(block)
