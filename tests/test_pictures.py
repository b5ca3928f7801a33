"""Pictures are written, are PNGs, show something, and put a bar where it belongs."""

import itertools

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


def shares(rows, columns, seed=0):
  return np.random.default_rng(seed).dirichlet(np.full(columns, 0.4), rows)


def drawn(monkeypatch, *args, **kwargs):
  """The figure of a table, instead of a file."""
  figures = []
  with monkeypatch.context() as patch:
    patch.setattr(pictures, "save", lambda figure, path: figures.append(figure))
    pictures.weight_table(*args, **kwargs, path=None)
  figures[0].canvas.draw()
  return figures[0]


def test_table_shows_its_weights_sorted_by_the_strongest_region(tmp_path, monkeypatch):
  weights = np.array([[0.1, 0.9, 0], [0.7, 0.1, 0.2], [0.25, 0.6, 0.15], [0.04, 0.96, 0], [0.8, 0, 0.2]])
  rows, columns = ["Bangs", "Goatee", "Wavy", "Bald", "Smiling"], ["mouth", "hair", "nose"]
  pictures.weight_table(weights, rows, columns, tmp_path / "new" / "p.png")
  image = read(tmp_path / "new" / "p.png").astype(int)
  order = [4, 1, 3, 0, 2]  # 80 and 70 for the mouth; 96, 90, 60 for the hair
  # The middle of each cell whose colour no other has. The colour bar has every colour too, but few pixels of each.
  middle = {}
  for y, row in enumerate(order):
    for x in range(3):
      colour = np.rint(255 * np.array(pictures.TABLE_COLOURS(weights[row, x])[:3]))
      at = np.argwhere((np.abs(image - colour) <= 1).all(axis=2))
      if (weights == weights[row, x]).sum() == 1:
        assert len(at) > 1000
        middle[y, x] = np.median(at, axis=0)
  assert len(middle) == 8
  for cell, other in itertools.combinations(middle, 2):
    step = np.subtract(other, cell) * (0.27, 0.85) * 110
    np.testing.assert_allclose(middle[other] - middle[cell], step, atol=3)
  axes, bar = drawn(monkeypatch, weights, rows, columns).axes
  assert [tick.get_text() for tick in axes.get_yticklabels()] == [rows[i] for i in order]
  assert [tick.get_text() for tick in axes.get_xticklabels()] == columns
  assert [tick.get_text() for tick in bar.get_yticklabels()] == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
  cells = {tuple(np.rint(text.get_position()[::-1]).astype(int)): text.get_text() for text in axes.texts}
  assert cells == {(y, x): f"{100 * weights[row, x]:.0f}" for y, row in enumerate(order) for x in range(3)}


def contrast(one, other):
  """After WCAG 2, of colours [..., 3] in 0..1: 1 for the same, 21 for black on white."""
  linear = lambda c: np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
  light, dark = np.sort([linear(np.asarray(c)) @ [0.2126, 0.7152, 0.0722] for c in (one, other)])[::-1]
  return (light + 0.05) / (dark + 0.05)


def test_every_weight_of_a_table_is_readable(monkeypatch):
  weight = np.linspace(0, 1, 79)
  figure = drawn(monkeypatch, np.stack([weight, 1 - weight], axis=1), [str(i) for i in range(79)], ["a", "b"])
  axes, image = figure.axes[0], np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
  for text in axes.texts:
    box = text.get_window_extent()
    x, y = int((box.x0 + box.x1) / 2), int(len(image) - (box.y0 + box.y1) / 2)
    cell = image[y - 12:y + 12, x - 30:x + 30]
    around, letters = cell[0, 0], matplotlib.colors.to_rgb(text.get_color())
    assert contrast(around, letters) > 3.5
    assert (np.abs(cell - letters).max(axis=2) < 0.1).any() and (cell[:, 0] == around).all()


@pytest.mark.parametrize("rows", [1, 2, 40, 80])
@pytest.mark.parametrize("columns", [1, 7, 16])
def test_texts_of_a_table_stay_apart(rows, columns, monkeypatch):
  names = [f"an attribute with a name that is far too long {i}" for i in range(rows)]
  heads = ["whole image", "left mouth 2:1", *["x" * 30] * columns][:columns]
  figure = drawn(monkeypatch, shares(rows, columns), names, heads, title="Region weights per attribute: a run")
  width, height = figure.canvas.get_width_height()
  axes, bar = figure.axes
  boxes = [text.get_window_extent() for text in (
      figure._suptitle, *axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), *bar.get_yticklabels())]
  low, high = (np.array([getattr(box, side) for box in boxes]) for side in ("min", "max"))
  assert low.min() >= 0 and (high <= (width, height)).all()
  # Two boxes meet where they share more than a pixel along both axes.
  shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
  assert ((shared > 1).all(axis=2).sum(axis=1) == 1).all()  # each with itself alone


def test_a_table_of_very_many_labels_shows_the_first(tmp_path, monkeypatch):
  case = shares(120, 7), [f"label {i}" for i in range(120)], list("abcdefg")
  pictures.weight_table(*case, tmp_path / "p.png")
  read(tmp_path / "p.png")
  figure = drawn(monkeypatch, *case)
  assert {tick.get_text() for tick in figure.axes[0].get_yticklabels()} == {f"label {i}" for i in range(80)}
  assert "the first 80 of 120 labels" in figure._suptitle.get_text()


@pytest.mark.parametrize("weights,match", [
    (np.full((2, 3), 0.5), r"2 rows and 2 columns, but weights \(2, 3\)"),
    (np.full(4, 0.5), "2 rows and 2 columns"),
    ([[0.5, 0.5], [np.nan, 1]], "row 'Bald', column 'hair': weight nan"),
    ([[0.5, np.inf], [0, 1]], "row 'Bangs', column 'nose': weight inf"),
    ([[0.5, 0.5], [1.5, -0.5]], "row 'Bald', column 'nose': weight -0.5"),
    ([[0.5, 0.5], [0.5, 0.4]], "row 'Bald': the weights sum to 0.9"),
])
def test_table_refuses(weights, match, tmp_path):
  with pytest.raises(ValueError, match=match):
    pictures.weight_table(weights, ["Bangs", "Bald"], ["hair", "nose"], tmp_path / "p.png")
  with pytest.raises(ValueError, match="0 rows"):
    pictures.weight_table(np.zeros((0, 2)), [], ["hair", "nose"], tmp_path / "p.png")
  assert not list(tmp_path.iterdir())


def test_settings_of_matplotlib_stay(tmp_path):
  before, backend = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
  label, score, known = split()
  pictures.roc_curves(label, score, known, NAMES, tmp_path / "p.png")
  pictures.training_curves(training(30), tmp_path / "p.png")
  pictures.weight_table(shares(3, 2), NAMES[:3], NAMES[3:], tmp_path / "p.png")
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
