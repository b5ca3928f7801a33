"""The page's server: answers, batches, limits, faults; how it starts and ends."""

import base64
import concurrent.futures
import gc
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import psutil
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from attr_jax import cli
from attr_jax import overlays
from attr_jax import serve
from attr_jax.data import images as images_lib
from attr_jax.errors import InputError
import serving
from serving import call

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 300_000


@pytest.fixture
def double():
  return serving.Double()


@pytest.fixture
def port(double):
  with serving.serving(double, max_bytes=LIMIT, timeout=5.0) as port:
    double.batches.clear()  # the warm-up
    yield port


def png(width=30, seed=0, height=40):
  return images_lib.encode_png(serving.photo(np.random.default_rng(seed), height, width))


def unpacked(packed):
  """float [h, w, L] of what the server sent."""
  shape = packed["shape"]
  data = np.frombuffer(base64.b64decode(packed["data"]), np.uint8).reshape(shape)
  low, high = (np.asarray(packed[key])[:, None, None] for key in ("low", "high"))
  return (low + (high - low) * data / 255).transpose(1, 2, 0)


def check_answer(answer, image, recognizer):
  """The answer is the recogniser's own, its maps within half a step."""
  expected = recognizer.recognize([image], explain=True)
  assert [label["name"] for label in answer["labels"]] == list(recognizer.label_names)
  np.testing.assert_allclose([label["score"] for label in answer["labels"]], expected.scores[0], atol=1e-5)
  np.testing.assert_allclose([label["threshold"] for label in answer["labels"]], recognizer.thresholds)
  assert [label["present"] for label in answer["labels"]] == expected.present[0].tolist()
  assert answer["size"] == list(image.shape[:2])
  assert answer["maps"].keys() == expected.maps.keys()
  for name, heat in expected.maps.items():
    step = np.ptp(heat[0], axis=(0, 1)) / 255
    assert (np.abs(unpacked(answer["maps"][name]) - heat[0]) <= 0.5 * step + 1e-5).all()


@pytest.mark.parametrize("kind", [".png", ".jpg", ".webp", ".bmp"])
def test_answer_is_the_recognisers(port, double, kind):
  data = cv2.imencode(kind, serving.photo(np.random.default_rng(1), 33, 47))[1].tobytes()
  status, answer, _ = call(port, "POST", "/recognize", data)
  assert status == 200
  check_answer(answer, images_lib.decode_image(data), double)


def test_equal_values_and_bad_values():
  packed = serve.pack(np.full((2, 3, 4), 7.0))
  assert packed["shape"] == [4, 2, 3] and packed["low"] == packed["high"] == [7.0] * 4
  np.testing.assert_array_equal(unpacked(packed), np.full((2, 3, 4), 7.0))
  with pytest.raises(ValueError, match="NaN"):
    serve.pack(np.array([[[np.nan]]]))


def test_page_stands_alone(port):
  status, page, headers = call(port)
  assert status == 200 and headers["content-type"].startswith("text/html")
  assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page) and "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page)
  policy = headers["content-security-policy"]
  assert "default-src 'none'" in policy and "unsafe" not in policy and headers["x-content-type-options"] == "nosniff"
  assert "access-control-allow-origin" not in headers
  colours = base64.b64decode(re.search(r'PLASMA = bytes\("([^"]+)"\)', page)[1])
  np.testing.assert_array_equal(np.frombuffer(colours, np.uint8).reshape(256, 3), overlays.COLOURS)


def test_health_says_what_runs(port):
  status, health, _ = call(port, path="/health")
  assert status == 200 and health["status"] == "ok" and health["labels"] == 3 and health["max_bytes"] == LIMIT


@pytest.mark.parametrize("method, path, expected", [
    ("GET", "/../pyproject.toml", 404), ("GET", "/attr_jax/serve.py", 404), ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404), ("GET", "/docs", 404),
    ("GET", "/openapi.json", 404), ("GET", "/recognize", 405), ("PUT", "/recognize", 405), ("OPTIONS", "/recognize", 405), ("DELETE", "/", 405)])
def test_nothing_else_is_there(port, method, path, expected):
  status, answer, headers = call(port, method, path)
  assert status == expected and list(answer) == ["error"] and "access-control-allow-origin" not in headers


def test_faults_have_their_status_and_one_line(port, double, tmp_path):
  for file, expected in serving.bad_files(tmp_path, LIMIT):
    status, answer, _ = call(port, "POST", "/recognize", file.read_bytes())
    assert (status, list(answer)) == (expected, ["error"]), file.name
    assert answer["error"] and len(answer["error"].splitlines()) == 1 and "Traceback" not in answer["error"]
  assert not double.batches  # none of them was computed
  assert call(port, "POST", "/recognize", png())[0] == 200


def test_declared_size_is_refused_before_anything_is_sent(port):
  with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
    client.sendall(f"POST /recognize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**12}\r\n\r\n".encode())
    assert b"413" in client.recv(4096).split(b"\r\n")[0]


def test_undeclared_size_is_counted(port):
  """A body without an end is read up to the limit and no further."""
  with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
    client.sendall(b"POST /recognize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent, answer = 0, b""
    client.settimeout(0.01)
    while not answer and sent < 50 * LIMIT:
      try:
        client.sendall(b"4000\r\n" + bytes(0x4000) + b"\r\n")
        sent += 0x4000
        answer = client.recv(4096)
      except TimeoutError:
        continue
  assert b"413" in answer.split(b"\r\n")[0] and sent <= LIMIT + 40 * 0x4000


def test_recogniser_that_fails_is_one_line_and_spoils_no_neighbour(port, caplog):
  seeds = range(6)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    failing = pool.submit(call, port, "POST", "/recognize", png(serving.FAILING))
    good = list(pool.map(lambda seed: call(port, "POST", "/recognize", png(seed=seed)), seeds))
  status, answer, _ = failing.result()
  assert status == 500 and "secret" not in json.dumps(answer)
  assert [status for status, _, _ in good] == [200] * len(seeds)
  assert "RuntimeError: secret path" in caplog.text and "Traceback" not in caplog.text


def test_photos_that_come_together_are_computed_together(port, double):
  photos = [png(seed=seed) for seed in range(20)]
  with concurrent.futures.ThreadPoolExecutor(20) as pool:
    answers = list(pool.map(lambda data: call(port, "POST", "/recognize", data), photos))
  assert sum(double.batches) == 20 and len(double.batches) <= 10 and max(double.batches) <= 8
  other = serving.Double()
  for data, (status, answer, _) in zip(photos, answers):
    assert status == 200
    check_answer(answer, images_lib.decode_image(data), other)


def test_batcher_goes_on_after_what_fails_and_ends():
  double = serving.Double()
  batcher = serve.Batcher(double.recognize, 4)
  images = [np.zeros((4, width, 3), np.uint8) for width in (5, serving.FAILING, 6, 7)]
  futures = [batcher.submit(image) for image in images]
  assert isinstance(futures[1].exception(5), RuntimeError)
  assert [futures[i].result(5).scores.shape for i in (0, 2, 3)] == [(3,)] * 3
  batcher.close()
  assert not batcher._thread.is_alive()


def test_slow_answer_times_out_and_others_are_answered():
  double = serving.Double()
  with serving.serving(double, timeout=serving.SECONDS / 2) as port, concurrent.futures.ThreadPoolExecutor(8) as pool:
    slow = pool.submit(call, port, "POST", "/recognize", png(serving.SLOW))
    time.sleep(0.6 * serving.SECONDS)
    others = list(pool.map(lambda seed: call(port, "POST", "/recognize", png(seed=seed)), range(4)))
    assert slow.result()[0] == 504 and "no answer within" in slow.result()[1]["error"]
    assert [status for status, _, _ in others] == [200] * 4


def test_slow_upload_times_out_and_others_are_answered():
  with serving.serving(serving.Double(), timeout=0.5) as port:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
      client.sendall(b"POST /recognize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
      assert call(port, "POST", "/recognize", png())[0] == 200
      answer = client.recv(4096)
      assert b"408" in answer.split(b"\r\n")[0] and b"did not arrive" in answer
      assert client.recv(4096) == b""  # and the connection is closed


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 127.0."])
def test_connection_that_asks_nothing_is_ended(monkeypatch, sent):
  monkeypatch.setattr(serve, "HEAD_SECONDS", 1.0)
  with serving.serving(serving.Double()) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as client:
    client.sendall(sent)
    started = time.monotonic()
    assert client.recv(100) == b"" and 0.5 < time.monotonic() - started < 4
    assert call(port)[0] == 200


def test_connection_that_asked_outlives_the_limit_for_asking(monkeypatch):
  monkeypatch.setattr(serve, "HEAD_SECONDS", 0.6 * serving.SECONDS)
  with serving.serving(serving.Double()) as port:
    status, _, _ = call(port, "POST", "/recognize", png(serving.SLOW))
    assert status == 200


def test_full_house_says_come_again_and_recovers():
  with serving.serving(serving.Double(), timeout=5.0, most_inside=3) as port, concurrent.futures.ThreadPoolExecutor(8) as pool:
    inside = [pool.submit(call, port, "POST", "/recognize", png(serving.SLOW)) for _ in range(3)]
    time.sleep(0.3)
    status, answer, headers = call(port, "POST", "/recognize", png())
    assert status == 503 and headers["retry-after"] == "1" and "again" in answer["error"]
    assert call(port, path="/health")[0] == 200
    assert [future.result()[0] for future in inside] == [200] * 3
    assert call(port, "POST", "/recognize", png())[0] == 200


def test_client_that_goes_away_is_not_computed():
  double = serving.Double()
  with serving.serving(double, timeout=5.0, batch_size=1, most_inside=3) as port, concurrent.futures.ThreadPoolExecutor(2) as pool:
    double.batches.clear()
    slow = pool.submit(call, port, "POST", "/recognize", png(serving.SLOW))
    time.sleep(0.2)
    for data in (png(), png()[:50]):  # in the queue; in the middle of its body
      client = socket.create_connection(("127.0.0.1", port))
      client.sendall(f"POST /recognize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(png())}\r\n\r\n".encode() + data)
      time.sleep(0.1)
      client.close()
    assert slow.result()[0] == 200
    assert call(port, "POST", "/recognize", png())[0] == 200
    assert double.batches == [1, 1]  # the slow one and the last
    with concurrent.futures.ThreadPoolExecutor(3) as three:  # their places are free again
      assert [status for status, _, _ in three.map(lambda _: call(port, "POST", "/recognize", png()), range(3))] == [200] * 3


@pytest.mark.parametrize("host, expected", [
    ("localhost", 200), ("localhost:8000", 200), ("127.0.0.1:1", 200), ("[::1]:8000", 200), ("LOCALHOST", 200), ("evil.example", 403),
    ("evil.example:8000", 403), ("localhost.evil.example", 403), ("10.0.0.1", 403), ("localhost@evil.example", 403), ("", 403)])
def test_foreign_hosts_are_refused(port, host, expected):
  for method, path, body in (("GET", "/health", None), ("POST", "/recognize", png())):
    status, answer, _ = call(port, method, path, body, {"Host": host})
    assert status == expected and (expected == 200) == ("error" not in answer)


def test_other_sites_are_refused(port):
  own = {"Origin": f"http://127.0.0.1:{port}", "Host": f"127.0.0.1:{port}"}
  assert call(port, "POST", "/recognize", png(), own)[0] == 200
  for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}"):
    assert call(port, "POST", "/recognize", png(), own | {"Origin": origin})[0] == 403


def test_names_of_a_server_for_others():
  everywhere, one = serve._host_check("0.0.0.0"), serve._host_check("Photos.example")
  assert everywhere("192.168.1.5:8000") and everywhere("[fe80::1]:8000") and everywhere(socket.gethostname()) and not everywhere("evil.example")
  assert one("photos.example:80") and one("localhost") and not one("192.168.1.5")


def test_200_photos_with_20_bad_ones(port, double, tmp_path):
  """One after the other, over one connection where the server leaves it open."""
  bad = serving.bad_files(tmp_path, LIMIT) * 2
  queue = [(png(seed=seed, width=200 + seed, height=300), 200) for seed in range(180)]
  for n, (file, status) in enumerate(bad):
    queue.insert(10 * n + 3, (file.read_bytes(), status))
  assert len(queue) == 200
  process, memory = psutil.Process(), []
  for data, expected in queue:
    status, answer, _ = call(port, "POST", "/recognize", data)
    assert status == expected, answer
    memory.append(process.memory_info().rss)
  gc.collect()
  assert call(port, path="/health")[0] == 200 and sum(double.batches) == 180
  assert memory[-1] - memory[60] < 20e6, [round(value / 1e6) for value in memory[::20]]  # 140 photos as pixels would be 35 MB more


def test_connection_is_used_again(port):
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
  for expected, data in [(200, png()), (415, b"text"), (400, b""), (200, png())]:
    connection.request("POST", "/recognize", data)
    response = connection.getresponse()
    assert response.status == expected
    response.read()
    assert connection.sock is not None
  connection.close()


# How it starts and ends


def test_wrong_numbers_are_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(signal, "signal", lambda *_: None)
  for options, words in [({"max_mb": 0.0}, "max-mb"), ({"timeout": float("nan")}, "timeout"), ({"batch_size": 0}, "batch-size"),
                         ({"port": 70000}, "70000"), ({"host": "nowhere.invalid"}, "nowhere.invalid")]:
    with pytest.raises(InputError, match=words):
      serve.serve(tmp_path, **{"port": 0} | options)


def run_command(*argv, python="from attr_jax import cli; cli.main()"):
  return subprocess.Popen([sys.executable, "-c", python, "serve", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"})


def test_port_in_use_is_one_line(tmp_path):
  with socket.create_server(("127.0.0.1", 0)) as taken:
    process = run_command(f"--workdir={tmp_path}", f"--port={taken.getsockname()[1]}")
    out, err = process.communicate(timeout=120)
  assert process.returncode == 2 and "in use" in err and "--port" in err and len(err.strip().splitlines()) == 1 and not out


def test_missing_extra_is_one_line(tmp_path):
  process = run_command(f"--workdir={tmp_path}", python="import sys; sys.modules['fastapi'] = None; from attr_jax import cli; cli.main()")
  _, err = process.communicate(timeout=120)
  assert process.returncode == 2 and "pip install 'attr_jax[serve]'" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("sent, expected", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it(tmp_path, sent, expected):
  """With the recogniser's double: what loading a run does with signals is another matter."""
  # As in a terminal: what a shell starts in the background ignores SIGINT.
  python = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from attr_jax import cli, predict; import serving; predict.load_recognizer = lambda *_, **__: serving.Double(); cli.main()")
  process = run_command(f"--workdir={tmp_path}", "--port=0", python=python)
  line = process.stdout.readline()
  port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
  assert call(port, "POST", "/recognize", png())[0] == 200
  idle = socket.create_connection(("127.0.0.1", port))  # somebody who holds a connection does not hold the server
  process.send_signal(sent)
  out, err = process.communicate(timeout=120)
  idle.close()
  assert process.returncode == expected, err
  assert not out and "Traceback" not in err and len(err.strip().splitlines()) <= 1


def test_a_run_is_served_as_it_recognises(world_dir, tmp_path):
  """The command with a trained run: scores, decisions and maps are those of `predict`."""
  from attr_jax import predict
  from attr_jax import train

  config = cli.load_config(f"{REPOSITORY}/configs/quickstart.py:tiny", [f"--config.data.dir={world_dir}"])
  workdir = tmp_path / "tiny"
  train.train_and_evaluate(config, workdir, quiet=True)
  process = run_command(f"--workdir={workdir}", "--port=0", "--batch-size=4")
  try:
    line = process.stdout.readline()
    assert line.startswith("attr-jax: tiny on http://127.0.0.1:"), process.stderr.read()
    port = int(re.search(r":(\d+)/", line)[1])
    recognizer = predict.load_recognizer(workdir, batch_size=4)
    sizes = [(80, 48), (300, 200), (41, 90), (1000, 31), (5, 7)]
    photos = [images_lib.encode_png(serving.photo(np.random.default_rng(n), *size)) for n, size in enumerate(sizes)]
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
      answers = list(pool.map(lambda data: call(port, "POST", "/recognize", data), photos))
    for data, (status, answer, _) in zip(photos, answers):
      assert status == 200 and answer["maps"].keys() == {"heatmap"}
      check_answer(answer, images_lib.decode_image(data), recognizer)
    health = call(port, path="/health")[1]
    assert health["run"] == "tiny" and health["model"] == "baseline" and health["rule"] == recognizer.rule
  finally:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
  assert process.returncode == 143
