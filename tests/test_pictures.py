"""Pictures are written, are PNGs, show something, and put a bar where it belongs."""

import cv2
import matplotlib
import numpy as np
import pytest

from attr_jax import pictures

NAMES = ["Male", "LongHair", "Sunglasses", "Hat", "x" * 80]


def read(path):
  """RGB [H, W, 3]; fails if the file is not a PNG that shows something."""
  assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
  image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
  height, width = image.shape[:2]
  assert 150 < height < 4000 and 300 < width < 4000
  assert image.std() > 5
  assert [p.name for p in path.parent.iterdir()] == [path.name]  # no parts left behind
  return image


def split(n=60, l=5, seed=0):
  rng = np.random.default_rng(seed)
  label = (rng.random((n, l)) < 0.4).astype(np.uint8)
  score = np.clip(0.5 + 0.3 * (label - 0.5) + rng.normal(size=(n, l)) * 0.2, 0, 1)
  return label, score, rng.random((n, l)) < 0.9


def training(n):
  return [{"step": 10 * i, "epoch": i / 5, "loss": 5 / (i + 1), "learning_rate": 1e-3 * 0.1 ** (i // 50),
           "images_per_second": 100.0} for i in range(n)]


def evaluation(n):
  return [{"step": 50 * i, "val/mAP": 0.5 + 0.01 * i, "val/mA": 0.6, "val/loss": 3.0,
           "val/num_samples": 100, "val/F1": float("nan")} for i in range(n)]


@pytest.mark.parametrize("records", [
    training(150) + evaluation(8),
    training(150),
    training(1),
    training(1) + evaluation(1),
    evaluation(3),
    [{"step": 0, "loss": float("nan"), "learning_rate": 0.0}],
    [{"step": 5, "loss": None}],
    [],
], ids=["both", "no evaluation", "one point", "one of each", "only evaluations", "nan", "none", "empty"])
def test_training_curves(records, tmp_path):
  pictures.training_curves(records, tmp_path / "new" / "curves.png")
  read(tmp_path / "new" / "curves.png")


def test_bars_are_as_long_as_their_values(tmp_path):
  path = tmp_path / "bars.png"
  ap = [0.5, 1.0, 0.25, 0.75, np.nan]
  pictures.attribute_bars(NAMES, ap, np.full(5, 0.1), path, order="file")
  image = read(path)
  sky = np.array([int(pictures.SKY[i:i + 2], 16) for i in (1, 3, 5)])
  blue = (np.abs(image.astype(int) - sky).max(axis=2) < 3)
  # One run of rows for the legend and one for every bar, from the top.
  rows = np.flatnonzero(blue.any(axis=1))
  runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)[1:]
  assert len(runs) == 4
  columns = [np.flatnonzero(blue[run].any(axis=0)) for run in runs]
  assert len({c.min() for c in columns}) == 1
  lengths = np.array([c.max() - c.min() for c in columns])
  np.testing.assert_allclose(lengths / lengths[1], [0.5, 1, 0.25, 0.75], atol=0.01)


@pytest.mark.parametrize("count", [1, 14, 40, 120])
@pytest.mark.parametrize("order", ["sorted", "file"])
def test_attribute_bars_of_many_labels(count, order, tmp_path):
  rng = np.random.default_rng(0)
  ap = rng.random(count)
  ap[0] = np.nan  # with one label: nothing is defined
  pictures.attribute_bars(
      [f"label number {i}" for i in range(count)], ap, rng.random(count), tmp_path / "p.png", order=order)
  read(tmp_path / "p.png")


def test_roc_curves_and_confusion_bars(tmp_path):
  label, score, known = split()
  label[:, 0], label[:, 1], known[:, 2] = 0, 1, False
  for i, draw in enumerate((pictures.roc_curves, pictures.confusion_bars)):
    for j, k in enumerate((known, None, np.zeros_like(known))):
      path = tmp_path / f"{i}{j}" / "p.png"
      draw(label, score, k, NAMES, path)
      read(path)


def test_roc_passes_through_the_points_of_a_small_case():
  label, score = np.array([True, False, True, False]), np.array([0.9, 0.7, 0.7, 0.1])
  false, true = pictures._roc(label, score)
  np.testing.assert_allclose(false, [0, 0, 0.5, 1])
  np.testing.assert_allclose(true, [0, 0.5, 1, 1])


def test_contact_sheet(tmp_path):
  label, score, known = split(7)
  images = np.random.default_rng(0).integers(0, 255, (7, 64, 32, 3), np.uint8)
  pictures.contact_sheet(images, label, known, score, NAMES, tmp_path / "p.png", columns=3)
  small = read(tmp_path / "p.png")
  # Images of any size, all unknown, thresholds per label, fewer images than columns.
  several = [np.zeros((500, 80, 3), np.uint8), np.full((3, 900, 3), 128, np.uint8)]
  pictures.contact_sheet(
      several, label[:2], np.zeros((2, 5), bool), score[:2], NAMES, tmp_path / "p.png",
      threshold=np.full(5, 0.3), columns=8)
  assert read(tmp_path / "p.png").shape[0] < small.shape[0]


def test_contact_sheet_shows_the_images_in_their_colours(tmp_path):
  images = np.zeros((1, 50, 50, 3), np.uint8)
  images[..., 0] = 200  # red, so a swap of channels would show
  pictures.contact_sheet(
      images, [[1]], None, [[0.9]], ["a"], tmp_path / "p.png")
  image = read(tmp_path / "p.png")
  exact = (image == [200, 0, 0]).all(axis=2)
  rows, columns = np.flatnonzero(exact.any(axis=1)), np.flatnonzero(exact.any(axis=0))
  assert len(columns) == 180 and len(rows) == 180 and exact.sum() == 180**2
  # The note beside it, in the green of a found label.
  beside = image[rows[0]:rows[0] + 25, columns[-1] + 1:].astype(int)
  assert (np.abs(beside - [0, 0x7A, 0x5A]).max(axis=2) < 40).sum() > 20


def test_notes_of_an_image():
  names = ["found", "alarm", "missed", "absent", "unknown", "unknown too"]
  label, known = np.array([1, 0, 1, 0, 0, 0]), np.array([1, 1, 1, 1, 0, 0], bool)
  score = np.array([0.9, 0.8, 0.2, 0.1, 0.7, 0.3])
  notes = pictures._notes(label, known, score, names, np.full(6, 0.5), most=10)
  assert [(mark, name, percent) for mark, _, name, percent in notes] == [
      ("✓", "found", "90"), ("✗", "alarm", "80"), ("○", "missed", "20"), ("?", "unknown", "70")]
  # The surest are kept, and the others counted.
  notes = pictures._notes(label, known, score, names, np.full(6, 0.5), most=3)
  assert [name for _, _, name, _ in notes] == ["found", "alarm", "+2 more"]
  none = pictures._notes(label[3:4], known[3:4], score[3:4], names[3:4], [0.5], most=3)
  assert [name for _, _, name, _ in none] == ["none predicted, none true"]


def test_settings_of_matplotlib_stay(tmp_path):
  before, backend = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
  label, score, known = split()
  pictures.roc_curves(label, score, known, NAMES, tmp_path / "p.png")
  pictures.training_curves(training(30), tmp_path / "p.png")
  assert dict(matplotlib.rcParams) == before
  assert matplotlib.get_backend(auto_select=False) == backend


@pytest.mark.parametrize("call", [
    lambda path: pictures.attribute_bars(["a"], [0.1, 0.2], [0.1, 0.2], path),
    lambda path: pictures.attribute_bars(["a"], [0.1], [0.1], path, order="best"),
    lambda path: pictures.contact_sheet(np.zeros((2, 4, 4, 3), np.uint8), [[1]], None, [[1.0]], ["a"], path),
])
def test_wrong_calls(call, tmp_path):
  with pytest.raises(ValueError):
    call(tmp_path / "p.png")
