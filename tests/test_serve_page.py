"""The page in headless Chromium: what a visitor does and sees. Skipped where there is no Chromium."""

import base64
import pathlib

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from attr_jax import overlays
from attr_jax.data import images as images_lib
import chromium
import serving

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="Chromium is not here (apt-get install chromium)")

LIMIT = 300_000
# What lies over the photo, RGBA, as a data URL of a PNG.
OVERLAY = "document.getElementById('overlay').hidden ? '' : document.getElementById('overlay').toDataURL()"
ANSWERED = "document.querySelectorAll('.attribute').length"
STATES = "[...document.querySelectorAll('.thumb')].map(t => t.className.split(' ')[1])"


@pytest.fixture(scope="module")
def port():
  with serving.serving(serving.Double(), max_bytes=LIMIT, timeout=10.0) as port:
    yield port


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
  browser = chromium.Chromium(tmp_path_factory.mktemp("profile"))
  yield browser
  browser.close()


@pytest.fixture
def page(browser, port):
  """A fresh page; no error may be in its console but those of refused photos."""
  browser.look(1200, 800)
  browser.send("Page.navigate", url=f"http://127.0.0.1:{port}/")
  browser.wait("document.readyState == 'complete' && document.getElementById('about').textContent")
  browser.errors.clear()
  yield browser
  assert not [error for error in browser.errors if "responded with a status of 4" not in str(error)]


@pytest.fixture
def photo(tmp_path):
  """A PNG and its pixels."""
  image = serving.photo(np.random.default_rng(3), 60, 40)
  (tmp_path / "photo.png").write_bytes(images_lib.encode_png(image))
  return tmp_path / "photo.png", image


def overlay(page):
  """uint8 [h, w, 4] of what lies over the photo; None where nothing does."""
  url = page.evaluate(OVERLAY)
  if not url:
    return None
  return cv2.cvtColor(cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def check_overlay(page, heat):
  """What lies over the photo is what `overlays.blend` lays over an image, here a grey one."""
  shown = overlay(page).astype(float)
  grey = np.full((*shown.shape[:2], 3), 128, np.uint8)
  share = shown[..., 3:] / 255
  mixed = (1 - share) * grey + share * shown[..., :3]
  difference = np.abs(mixed - overlays.blend(grey, heat))
  assert difference.max() <= 5 and difference.mean() < 1  # maps in 255 steps, colours in 256


def test_a_photo_its_bars_and_a_map(page, photo, tmp_path):
  file, image = photo
  assert page.evaluate("document.getElementById('about').textContent") == "test · double · 3 attributes"
  page.choose("#file", [file])
  page.wait(f"{ANSWERED} == 3")
  expected = serving.Double().recognize([image], explain=True)
  order = np.argsort(-expected.scores[0])
  names = page.evaluate("[...document.querySelectorAll('.attribute .name')].map(e => e.textContent)")
  assert names == [serving.Double.label_names[i] for i in order]  # with <b> as text
  widths = page.evaluate("[...document.querySelectorAll('.fill')].map(e => e.getBoundingClientRect().width / e.parentElement.clientWidth)")
  np.testing.assert_allclose(widths, expected.scores[0][order], atol=0.02)
  ticks = page.evaluate("[...document.querySelectorAll('.tick')].map(e => parseFloat(e.style.left))")
  np.testing.assert_allclose(ticks, 100 * serving.Double.thresholds[order])
  marks = page.evaluate("[...document.querySelectorAll('.mark')].map(e => e.textContent)")
  assert marks == ["✓" if expected.present[0, i] else "" for i in order]

  assert overlay(page) is None
  for nth in (0, 2, 1):
    page.hover(".attribute", nth)
    page.wait(f"document.querySelectorAll('.attribute')[{nth}].classList.contains('shown')")
    check_overlay(page, expected.maps["attention"][0, ..., order[nth]])
  page.hover("h1")
  assert overlay(page) is None

  page.click("#maps label", 1)  # the other map; a click on an attribute keeps it
  page.click(".attribute", 0)
  page.hover("h1")
  check_overlay(page, expected.maps["heatmap"][0, ..., order[0]])
  page.screenshot(tmp_path / "page.png")
  assert cv2.imread(str(tmp_path / "page.png")).shape == (800, 1200, 3)
  page.press("Escape")
  assert overlay(page) is None


def test_by_keyboard_alone(page, photo):
  page.choose("#file", [photo[0]])
  page.wait(f"{ANSWERED} == 3")
  for _ in range(12):
    page.press("Tab")
    if page.evaluate("document.activeElement.className").startswith("attribute"):
      break
  first = overlay(page)
  page.press("ArrowDown")
  assert page.evaluate("[...document.querySelectorAll('.attribute')].indexOf(document.activeElement)") == 1
  assert (first != overlay(page)).any()
  label = page.evaluate("document.activeElement.getAttribute('aria-label')")
  assert "%" in label and "present" in label


def test_dropped_and_pasted(page, photo):
  page.drop("#empty", [photo[0]])
  page.wait(f"{ANSWERED} == 3")
  data = base64.b64encode(photo[0].read_bytes()).decode()
  page.evaluate(f"""(() => {{
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob('{data}'), c => c.charCodeAt(0))], 'pasted.png', {{type: 'image/png'}}));
    document.dispatchEvent(new ClipboardEvent('paste', {{clipboardData: data}}));
  }})()""")
  page.wait(f"{STATES}.join() == 'done,done'")
  assert page.evaluate("document.getElementById('title').textContent") == "pasted.png"


def test_error_stands_in_the_photos_place(page, photo, tmp_path):
  (bad, status), *_ = [(file, status) for file, status in serving.bad_files(tmp_path, LIMIT) if file.name == "cut.jpg"]
  page.choose("#file", [bad, photo[0]])
  page.wait(f"{STATES}.join() == 'failed,done'")
  assert "truncated" in page.evaluate("document.getElementById('error').textContent") and status == 422
  assert page.evaluate(ANSWERED) == 0 and not page.evaluate("document.getElementById('error').hidden")
  page.click(".thumb", 1)
  page.wait(f"{ANSWERED} == 3")
  assert page.evaluate("document.getElementById('error').hidden")


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
def test_nothing_is_wider_than_the_window(page, photo, width):
  page.look(width, 800, phone=width < 700)
  assert page.evaluate("document.documentElement.scrollWidth") <= width
  page.choose("#file", [photo[0]] * 30)
  page.wait(f"{STATES}.filter(s => s == 'done').length == 30")
  assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_200_photos_with_20_bad_ones(page, tmp_path):
  folder = pathlib.Path(tmp_path)
  files = []
  for seed in range(180):
    files.append(folder / f"{seed}.png")
    files[-1].write_bytes(images_lib.encode_png(serving.photo(np.random.default_rng(seed))))
  bad = [file for file, _ in serving.bad_files(folder, LIMIT)]
  for n, file in enumerate(bad * 2):
    files.insert(9 * n + 4, file)
  page.choose("#file", files)
  page.wait(f"!{STATES}.includes('waiting')", 120)
  states = page.evaluate(STATES)
  assert states == ["failed" if file in bad else "done" for file in files] and states.count("failed") == 20
