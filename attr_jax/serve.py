"""A recogniser as a small page of this machine: photos in, attributes and their maps out. Keeps nothing of a photo.

A request goes through these stations, and each of them refuses with a status and one line of JSON, `{"error": ...}`:
its body is read, counted and timed; the photo is decoded in a thread, so that a bad one spoils no batch; one thread
computes what waits together. docs/serve.md has the statuses.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
import concurrent.futures
import contextlib
import functools
import hashlib
import importlib.resources
import ipaddress
import logging
import pathlib
import queue
import re
import signal
import socket
import sys
import threading
import time
from typing import Any, NamedTuple

import numpy as np

from attr_jax import predict
from attr_jax.data import images as images_lib
from attr_jax.errors import InputError

try:
  import fastapi
  from fastapi.responses import HTMLResponse
  from fastapi.responses import JSONResponse
  from starlette.exceptions import HTTPException
  from starlette.requests import ClientDisconnect
  import uvicorn
  from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as error:
  raise InputError(f"serve needs {error.name}: pip install 'attr_jax[serve]'") from None

MAX_PIXELS = 50_000_000  # of a photo: what phones take; 150 MB of memory
MOST_INSIDE = 64  # requests at a time, from the first byte of the body to the answer
HEAD_SECONDS = 10.0  # that a connection has for its first request to begin
_DECODERS = 2  # threads
_GATHER = 0.005  # seconds that the first photo of a batch waits for others
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_ANY_ADDRESS = ("", "0.0.0.0", "::")
_SIGTERM_STATUS = 143

_log = logging.getLogger(__name__)


class Refused(Exception):
  """A request that gets no attributes: the status and the line that it gets instead."""

  def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
    super().__init__(message)
    self.status, self.headers = status, dict(headers or {})

  def response(self) -> JSONResponse:
    """The line as {"error": ...}, with the status."""
    return JSONResponse({"error": str(self)}, self.status, self.headers)


class Row(NamedTuple):
  """One image's part of a `predict.Recognition`: [L], [L], name -> [h, w, L]."""

  scores: np.ndarray
  present: np.ndarray
  maps: dict[str, np.ndarray]


class Batcher:
  """One thread that computes whatever waits, up to `batch_size` images at a time.

  A photo that nobody waits for any more is left out. Where a batch fails, its images are computed one by one, so that
  only the one at fault fails.

  Args:
    recognize: `predict.Recognizer.recognize`.
    batch_size: images at a time.
  """

  def __init__(self, recognize: Callable[..., Any], batch_size: int):
    self._recognize, self._batch_size = recognize, batch_size
    self._waiting: queue.SimpleQueue = queue.SimpleQueue()
    self._thread = threading.Thread(target=self._run, name="recognize", daemon=True)
    self._thread.start()

  def submit(self, image: np.ndarray) -> concurrent.futures.Future:
    """The future `Row` of an image, uint8 [H, W, 3]."""
    future: concurrent.futures.Future = concurrent.futures.Future()
    self._waiting.put((image, future))
    return future

  def close(self, seconds: float = 5.0) -> None:
    """Ends the thread after the batch that it computes now."""
    self._waiting.put(None)
    self._thread.join(seconds)

  def _run(self) -> None:
    while (batch := self._gather()) is not None:
      self._compute([(image, future) for image, future in batch if future.set_running_or_notify_cancel()])
      del batch  # the photos of the last batch must not stay until the next

  def _gather(self) -> list | None:
    if (first := self._waiting.get()) is None:
      return None
    batch, end = [first], time.monotonic() + _GATHER
    while len(batch) < self._batch_size:
      try:
        item = self._waiting.get(timeout=max(0.0, end - time.monotonic()))
      except queue.Empty:
        break
      if item is None:
        self._waiting.put(None)  # for the next call
        break
      batch.append(item)
    return batch

  def _compute(self, batch: Sequence) -> None:
    if not batch:
      return
    try:
      found = self._recognize([image for image, _ in batch], explain=True)
      rows = [Row(found.scores[n], found.present[n], {name: value[n] for name, value in found.maps.items()}) for n in range(len(batch))]
    except Exception as error:
      if len(batch) == 1:
        batch[0][1].set_exception(error)
        return
      for one in batch:
        self._compute([one])
      return
    for (_, future), row in zip(batch, rows, strict=True):
      future.set_result(row)


def decode(data: bytes) -> np.ndarray:
  """uint8 [H, W, 3] of a photo that somebody sent.

  Raises:
    Refused: 400 empty, 415 none of the formats, whatever its name says, 413 too many pixels, 422 damaged.
  """
  if not data:
    raise Refused(400, "empty request; send the bytes of one image")
  if images_lib.format_of(data) is None:
    raise Refused(415, "not a JPEG, PNG, WebP or BMP image")
  try:
    header = images_lib.read_header(data, max_pixels=sys.maxsize)
    if header.height * header.width > MAX_PIXELS:
      raise Refused(413, f"{header.width} x {header.height} pixels, more than the limit of {MAX_PIXELS:,}")
    return images_lib.decode_image(data, where="photo", max_pixels=MAX_PIXELS)
  except images_lib.ImageError as error:
    raise Refused(422, str(error)) from None


def pack(heat: np.ndarray) -> dict[str, Any]:
  """The maps of an image as JSON: each label's in 255 steps from its lowest to its highest value.

  Args:
    heat: float [h, w, L], finite.

  Returns:
    {"shape": [L, h, w], "low": L numbers, "high": L numbers, "data": base64 of uint8 [L, h, w]}; a value is
    low + (high - low) * data / 255, off by half a step at most.

  Raises:
    ValueError: NaN or Inf.
  """
  heat = np.asarray(heat, np.float64).transpose(2, 0, 1)
  if not np.isfinite(heat).all():
    raise ValueError("a map holds NaN or Inf")
  low, high = heat.min(axis=(1, 2)), heat.max(axis=(1, 2))
  span = np.where(high > low, high - low, 1)
  steps = np.rint(255 * (heat - low[:, None, None]) / span[:, None, None]).astype(np.uint8)
  return {"shape": list(heat.shape), "low": low.tolist(), "high": high.tolist(), "data": base64.b64encode(steps.tobytes()).decode()}


def _answer(recognizer: Any, size: Sequence[int], row: Row) -> dict[str, Any]:
  if not np.isfinite(row.scores).all():
    raise ValueError("a score is NaN or Inf")
  asked = not recognizer.chooses_sets
  labels = [{"name": name, "score": round(float(score), 6), "threshold": float(threshold) if asked and np.isfinite(threshold) else None,
             "present": bool(present)}
            for name, score, threshold, present in zip(recognizer.label_names, row.scores, recognizer.thresholds, row.present, strict=True)]
  return {"labels": labels, "size": list(size), "maps": {name: pack(value) for name, value in row.maps.items()}}


def create_app(recognizer: Any, batcher: Batcher, *, name: str, host: str = "127.0.0.1", max_bytes: int = 20_000_000,
               timeout: float = 30.0, most_inside: int = MOST_INSIDE) -> Callable[..., Awaitable[None]]:
  """The ASGI application: GET / is the page, GET /health says what runs, POST /recognize takes the bytes of an image.

  Args:
    recognizer: a `predict.Recognizer`.
    batcher: of its `recognize`.
    name: of the run, as the page shows it.
    host: that the server is bound to; says which Host headers are taken.
    max_bytes: of an image file.
    timeout: seconds for sending an image, and again for its answer.
    most_inside: requests at a time; another one is told to come again.

  Returns:
    The application; what is `Refused` inside is answered with its status, nothing is raised.
  """
  page = (importlib.resources.files("attr_jax") / "serve.html").read_text(encoding="utf-8")
  pool = concurrent.futures.ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
  inside = 0
  app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

  @app.exception_handler(HTTPException)
  async def no_such_page(request: fastapi.Request, error: HTTPException) -> JSONResponse:
    del request
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)

  @app.get("/")
  async def index() -> HTMLResponse:
    return HTMLResponse(page)

  @app.get("/health")
  async def health() -> JSONResponse:
    return JSONResponse({"status": "ok", "run": name, "model": recognizer.config.model.name, "labels": len(recognizer.label_names),
                         "rule": recognizer.rule, "max_bytes": max_bytes, "max_pixels": MAX_PIXELS})

  @app.post("/recognize")
  async def recognize(request: fastapi.Request) -> fastapi.Response:
    nonlocal inside
    try:
      stated = _stated_bytes(request, max_bytes)
      if inside >= most_inside:
        # What is stated is read and dropped; of a body without an end only the connection's is the end.
        raise Refused(503, "too many photos at a time; try again", {"Retry-After": "1"} | ({} if stated is not None else _CLOSE))
      inside += 1
      try:
        work = compute(await _read(request, max_bytes, timeout))
        return JSONResponse(await _unless_gone(request, work, timeout))
      finally:
        inside -= 1
    except Refused as refused:
      return refused.response()
    except ClientDisconnect:
      return fastapi.Response(status_code=499)  # nobody reads it
    except Exception as error:
      _log.error("%s: %s", type(error).__name__, " ".join(str(error).split())[:500])
      return Refused(500, "the recogniser failed; the terminal that it runs in says why").response()

  async def compute(data: bytes) -> dict[str, Any]:
    # Photos wait as files, later as what the network takes: the pixels of a few at a time are in memory.
    size, view = await asyncio.get_running_loop().run_in_executor(pool, seen, data)
    return _answer(recognizer, size, await asyncio.wrap_future(batcher.submit(view)))

  def seen(data: bytes) -> tuple[tuple[int, int], np.ndarray]:
    image = decode(data)
    return image.shape[:2], recognizer.view(image)

  return functools.partial(_guarded, app, _host_check(host), _headers(page))


_CLOSE = {"Connection": "close"}


def _stated_bytes(request: fastapi.Request, max_bytes: int) -> int | None:
  stated = request.headers.get("content-length")
  if stated is None:
    return None
  if int(stated) > max_bytes:  # h11 has seen to it that it is a number
    raise _too_large(max_bytes)
  return int(stated)


def _too_large(max_bytes: int) -> Refused:
  return Refused(413, f"more than the limit of {max_bytes / 1e6:g} MB", _CLOSE)


async def _read(request: fastapi.Request, max_bytes: int, seconds: float) -> bytes:
  """The body; no more of it is read than the limit and one piece of the socket."""
  body = bytearray()
  try:
    async with asyncio.timeout(seconds):
      async for piece in request.stream():
        if len(body) + len(piece) > max_bytes:
          raise _too_large(max_bytes)
        body += piece
  except TimeoutError:
    raise Refused(408, f"the photo did not arrive within {seconds:g} s", _CLOSE) from None
  return bytes(body)


async def _unless_gone(request: fastapi.Request, work: Any, seconds: float) -> Any:
  """What `work` gives; cancels it where the time is over or nobody waits any more.

  Raises:
    Refused: 504, the time is over.
    ClientDisconnect: the client is gone.
  """
  working = asyncio.ensure_future(work)
  leaving = asyncio.ensure_future(request.receive())  # after the body there comes nothing but the end of the connection
  try:
    await asyncio.wait({working, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
      return working.result()
    if leaving.done():
      raise ClientDisconnect()
    raise Refused(504, f"no answer within {seconds:g} s")
  finally:
    for task in (working, leaving):
      task.cancel()


def _host_check(host: str) -> Callable[[str], bool]:
  """Whether a Host header is one of this server's, so that no foreign name can be pointed at it (DNS rebinding)."""
  names = {*_LOCAL, f"[{host}]" if ":" in host else host.lower()}
  if host in _ANY_ADDRESS:
    names.add(socket.gethostname().lower())

  def check(header: str) -> bool:
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d+)?", header.lower())
    if match is None:
      return False
    if match[1] in names:
      return True
    if host not in _ANY_ADDRESS:
      return False
    with contextlib.suppress(ValueError):  # an address is no name that could be pointed elsewhere
      return bool(ipaddress.ip_address(match[1].strip("[]")))
    return False

  return check


def _headers(page: str) -> list[tuple[bytes, bytes]]:
  """What every answer says to a browser: run the page's own script and style alone, fetch from here alone, keep nothing."""
  def allowed(tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
    return f"'sha256-{base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()}'"

  policy = (f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; img-src 'self' blob: data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
  return [(b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
          (b"cross-origin-resource-policy", b"same-origin"), (b"cache-control", b"no-store")]


async def _guarded(app: Any, is_ours: Callable[[str], bool], added: list[tuple[bytes, bytes]], scope: Any, receive: Any, send: Any) -> None:
  """Refuses foreign hosts and what other sites send, before anything else looks at a request; adds `added` to each answer."""
  async def send_with_headers(message: Any) -> None:
    if message["type"] == "http.response.start":
      message = message | {"headers": [*message["headers"], *added]}
    await send(message)

  if scope["type"] == "http":
    headers = [(key, value.decode("latin1")) for key, value in scope["headers"]]
    hosts, origins = ([value for key, value in headers if key == wanted] for wanted in (b"host", b"origin"))
    if len(hosts) != 1 or not is_ours(hosts[0]):
      app = Refused(403, "this server does not go by that host name", _CLOSE).response()
    elif any(origin.partition("://")[2] != hosts[0] for origin in origins):
      app = Refused(403, "requests from other sites are refused", _CLOSE).response()
  await app(scope, receive, send_with_headers)


class _Connection(H11Protocol):
  """Ends where no whole head of a request has come in time; uvicorn by itself waits for ever."""

  def connection_made(self, transport: asyncio.Transport) -> None:
    super().connection_made(transport)
    self.loop.call_later(HEAD_SECONDS, self._end_unused)

  def _end_unused(self) -> None:
    if self.cycle is None:  # nothing has been asked
      self.transport.close()


class Server(uvicorn.Server):
  """Says where it is as soon as it takes connections."""

  def __init__(self, app: Any, url: str = ""):
    super().__init__(uvicorn.Config(
        app, interface="asgi3", http=_Connection, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False, server_header=False,
        timeout_graceful_shutdown=3))
    self._url = url

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    """Starts as uvicorn does, then prints the line."""
    await super().startup(sockets)
    if self._url:
      print(self._url, flush=True)


def bind(host: str, port: int) -> socket.socket:
  """A socket at an address that is free; takes no connections yet.

  Raises:
    InputError: the port is in use or not allowed, or no such host.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    found = socket.socket(family, kind, protocol)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(address)
    return found
  except OSError as error:
    raise InputError(f"serve: {host}:{port}: {error.strerror}; choose another --host or --port") from None


def warm_up(batcher: Batcher, config: Any) -> None:
  """Has everything compiled, in the thread that will use it."""
  batcher.submit(np.zeros((*config.input.full_size, 3), np.uint8)).result()


def serve(workdir: str | pathlib.Path, *, host: str = "127.0.0.1", port: int = 8000, checkpoint: str = "best", max_mb: float = 20.0,
          timeout: float = 30.0, batch_size: int = 8) -> None:
  """Serves the page of a run until Ctrl-C or SIGTERM.

  Args:
    workdir: the run's folder.
    host: address to listen at; others than this machine's own open the page to whoever reaches it.
    port: 0 takes a free one.
    checkpoint: "best", "last" or a step.
    max_mb: largest image file, in 10^6 bytes.
    timeout: seconds for sending an image, and again for its answer.
    batch_size: images computed at a time.

  Raises:
    InputError: not a run's folder, a run that names no attributes, a port in use, a number out of range.
    KeyboardInterrupt, SystemExit: how it ends; SystemExit has status 143.
  """
  for key, value in (("max-mb", max_mb), ("timeout", timeout), ("batch-size", batch_size)):
    if not 0 < value < float("inf"):
      raise InputError(f"serve: --{key} must be positive, got {value:g}")
  if not 0 <= port < 65_536:
    raise InputError(f"serve: --port must be 0 to 65535, got {port}")
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(_SIGTERM_STATUS))
  with bind(host, port) as bound:
    recognizer = predict.load_recognizer(workdir, checkpoint=checkpoint, batch_size=batch_size)
    if not recognizer.label_names:
      raise InputError(f"serve: {workdir} names no attributes")
    batcher = Batcher(recognizer.recognize, recognizer.batch_size)
    try:
      warm_up(batcher, recognizer.config)
      name = pathlib.Path(workdir).resolve().name
      app = create_app(recognizer, batcher, name=name, host=host, max_bytes=round(1e6 * max_mb), timeout=timeout)
      shown = "localhost" if host in _ANY_ADDRESS else f"[{host}]" if ":" in host else host
      reach = "" if host in ("localhost", "127.0.0.1", "::1") else "; open to whoever reaches this machine"
      Server(app, f"attr-jax: {name} on http://{shown}:{bound.getsockname()[1]}/ (Ctrl-C ends it{reach})").run(sockets=[bound])
    finally:
      batcher.close()
