"""A recogniser without a network, and a server in a thread, for the tests of serve."""

import contextlib
import dataclasses
import http.client
import json
import pathlib
import struct
import threading
import time
import types
import zlib

import cv2
import numpy as np

from attr_jax import serve
from attr_jax.data import images as images_lib

SLOW, FAILING = 77, 66  # widths of photos that take SECONDS, that cannot be computed
SECONDS = 0.8


@dataclasses.dataclass(frozen=True)
class Recognition:
  scores: np.ndarray
  present: np.ndarray
  maps: dict
  out: dict


class Double:
  """Scores are the mean red, green and blue of a photo; its maps the photo itself in 5 x 3 cells, and that upside down."""

  label_names = ("red <b>", "green", "blue")
  thresholds = np.array([0.25, 0.5, 0.75])
  rule = "by hand"
  batch_size, chooses_sets = 8, False
  config = types.SimpleNamespace(model=types.SimpleNamespace(name="double"), input=types.SimpleNamespace(full_size=(10, 6)))

  def __init__(self):
    self.batches = []  # sizes

  def view(self, image):
    return image

  def recognize(self, images, explain=False):
    assert explain
    self.batches.append(len(images))
    if any(image.shape[1] == FAILING for image in images):
      raise RuntimeError("secret path /home/somebody")
    time.sleep(SECONDS if any(image.shape[1] == SLOW for image in images) else 0.01)
    scores = np.stack([image.reshape(-1, 3).mean(0) / 255 for image in images])
    maps = np.stack([cv2.resize(image, (3, 5), interpolation=cv2.INTER_AREA).astype(np.float32) for image in images])
    return Recognition(scores, scores >= self.thresholds, {"attention": maps, "heatmap": maps[:, ::-1]}, {})


@contextlib.contextmanager
def serving(recognizer, *, batch_size=8, **options):
  """The port of a server of `recognizer` in a thread."""
  batcher = serve.Batcher(recognizer.recognize, batch_size)
  serve.warm_up(batcher, recognizer.config)
  bound = serve.bind("127.0.0.1", 0)
  server = serve.Server(serve.create_app(recognizer, batcher, name="test", **options))
  thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
  port = bound.getsockname()[1]
  thread.start()
  while not server.started:
    time.sleep(0.01)
  try:
    yield port
  finally:
    server.should_exit = True
    thread.join(10)
    batcher.close()


def call(port, method="GET", path="/", body=None, headers=None):
  """(status, JSON or text, headers) of one request."""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
  try:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
      connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read().decode()
    kind = response.headers.get("content-type", "")
    return response.status, json.loads(text) if kind.startswith("application/json") else text, response.headers
  finally:
    connection.close()


def photo(rng, height=40, width=30):
  """uint8 [height, width, 3], smooth, of a colour of its own."""
  small = rng.integers(0, 256, (4, 3, 3), np.uint8) // 2 + rng.integers(0, 128, 3, np.uint8)
  return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def bad_files(folder: pathlib.Path, limit: int) -> list[tuple[pathlib.Path, int]]:
  """Ten files that are no photos, with the status of each."""
  rng = np.random.default_rng(5)
  jpeg, png = images_lib.encode_jpeg(photo(rng, 200, 150)), images_lib.encode_png(photo(rng, 200, 150))
  files = {
      "empty.jpg": (b"", 400),
      "text.jpg": (b"hello, world\n" * 50, 415),
      "page.png": (b"<!doctype html><title>no photo</title>", 415),
      "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", 415),
      "old.gif": (b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x00\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;", 415),
      "cut.jpg": (jpeg[: len(jpeg) // 2], 422),
      "cut.png": (png[: len(png) // 2], 422),
      "flipped.png": (png[:60] + bytes([png[60] ^ 255]) + png[61:], 422),
      "bomb.png": (bomb(60_000, 60_000), 413),
      "large.jpg": (jpeg + bytes(limit), 413),
  }
  for name, (data, _) in files.items():
    (folder / name).write_bytes(data)
  return [(folder / name, status) for name, (_, status) in files.items()]


def bomb(height, width):
  """A small PNG whose rows would take gigabytes; all its check sums are right."""
  def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

  packed = zlib.compress(bytes(10_000_000), 9)
  return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", packed)
          + chunk(b"IEND", b""))
