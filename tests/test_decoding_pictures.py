"""Steps of a decoder and HOG on sheets: the right pixels in the right places, strokes along the edges, and the files of a run."""

import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import REPOSITORY

from attr_jax import cli
from attr_jax import decoding_pictures
from attr_jax import evaluate
from attr_jax import explain
from attr_jax import models
from attr_jax import overlays
from attr_jax import pictures
from attr_jax.data import info as info_lib
from attr_jax.nn import hog
from test_overlays import grey
from test_overlays import photos
from test_overlays import places
from test_overlays import read

NAMES = ["culture::french", "culture::italian, florence", "tag::men", "tag::trees", "tag::" + "x" * 60]


def steps(n=2, count=3):
  """Arguments of `step_sheet`: every image has the path 2, 0, 3, ..., of which 2 and 3 are true."""
  rng = np.random.default_rng(0)
  labels = np.tile(np.resize([2, 0, 3, 1, 4], count), (n, 1))
  label = np.zeros((n, len(NAMES)), np.uint8)
  label[:, [2, 3]] = 1
  return dict(attention=rng.dirichlet(np.ones(12), (n, count)).reshape(n, count, 4, 3), labels=labels,
              probability=np.sort(rng.random((n, count)))[:, ::-1], kept=np.tile(np.arange(count) < 2, (n, 1)), label=label,
              label_names=NAMES)


def heated(image, attention):
  return overlays.blend(grey(image), attention, (0, attention.max()))


def faded(image):
  return np.rint(255 * overlays.FADED + (1 - overlays.FADED) * image).astype(np.uint8)


def shown_text(sheet, text, colour):
  """Whether the text stands somewhere in the sheet in that colour."""
  figure = pictures.new_figure(3, 0.4, dpi=100)
  figure.text(10 / 300, 10 / 40, text, color=colour, **overlays.TEXT)
  figure.canvas.draw()
  image = np.asarray(figure.canvas.buffer_rgba())[..., :3]
  rows, columns = (np.flatnonzero((image < 255).any(axis=(axis, 2))) for axis in (1, 0))
  image = image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
  return image.shape[0] <= sheet.shape[0] and image.shape[1] <= sheet.shape[1] and (
      cv2.matchTemplate(sheet, image, cv2.TM_SQDIFF_NORMED).min() < 1e-3)


def test_step_sheet_shows_the_steps_in_order_and_dropped_ones_pale(tmp_path):
  images, case = photos((256, 128), (256, 90)), steps()
  decoding_pictures.step_sheet(images, **case, path=tmp_path / "new" / "p.png", title="Steps")
  sheet = read(tmp_path / "new" / "p.png")
  for n, image in enumerate(images):
    (top, left), = places(sheet, image)
    for t in range(3):
      full = heated(image, case["attention"][n, t])
      x = left + (t + 1) * (128 + overlays.GAP)
      there, elsewhere = (full, faded(full)) if case["kept"][n, t] else (faded(full), full)
      assert places(sheet, there) == [(top, x)] and not places(sheet, elsewhere)


def test_a_step_that_is_kept_looks_other_than_a_dropped_one(tmp_path):
  images, case = photos((256, 128)), steps(n=1)
  sheets = []
  for last in (False, True):
    case["kept"][0, 2] = last
    decoding_pictures.step_sheet(images, **case, path=tmp_path / "p.png")
    sheets.append(read(tmp_path / "p.png").astype(int))
  change = np.abs(sheets[1] - sheets[0]).sum(axis=2)
  (top, left), = places(sheets[0], images[0])
  x = left + 3 * (128 + overlays.GAP)
  assert (change[top:top + 256, x:x + 128] > 60).mean() > 0.9  # the step itself
  assert not change[:top + 256, :x].any()  # no other step
  # A dropped image comes closer to white in every pixel.
  assert (sheets[0][top:top + 256, x:x + 128] >= sheets[1][top:top + 256, x:x + 128]).all()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("true", [True, False])
def test_below_a_step_stand_its_label_and_what_came_of_it(kept, true, tmp_path):
  image, case = np.full((256, 160, 3), 40, np.uint8), steps(n=1)
  case["label"][0] = [0, true, 1, 1, 0]
  case["kept"][0] = [True, kept, False]
  case["labels"][0], case["probability"][0] = [2, 1, 3], [0.9, 0.734, 0.1]
  decoding_pictures.step_sheet([image], **case, path=tmp_path / "p.png")
  sheet = read(tmp_path / "p.png")
  (top, left), = places(sheet, image)
  below = sheet[top + 256:, left + 2 * (160 + overlays.GAP):][:, :160]
  mark, colour = {(True, True): ("✓", "#007A5A"), (True, False): ("✗", "#C0391B"), (False, True): ("○", "#B87700"),
                  (False, False): ("–", "#777777")}[kept, true]
  assert shown_text(below, f"{mark} 73 %", colour) and shown_text(below, "italian, florence", colour)
  assert not shown_text(below, "men", colour) and not shown_text(below, "culture::", colour)
  # The legend has the same colour; and the image tells how many labels of all true ones are in the set.
  rgb = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
  assert (np.abs(sheet[30:60].astype(int) - rgb).max(axis=2) < 25).sum() > 40
  assert shown_text(sheet[top + 256:, :200], f"{1 + (kept and true)} of {2 + true}", pictures.INK)


def test_even_attention_is_an_even_tint(tmp_path):
  image, case = np.full((256, 128, 3), 90, np.uint8), steps(n=1)
  case["attention"][0, 0] = 1 / 12
  decoding_pictures.step_sheet([image], **case, path=tmp_path / "p.png")
  sheet = read(tmp_path / "p.png")
  tint = overlays.blend(image, np.ones((1, 1)), (0, 1))
  assert not (tint == image).all(axis=2).any() and len(places(sheet, tint)) == 1


@pytest.mark.parametrize("shapes,count", [
    ([(30, 900), (900, 30), (90, 90)], 10), ([(3, 900), (900, 3), (256, 256)], 20), ([(64, 32)], 1), ([(64, 640)], 10),
], ids=["wide and tall", "extreme", "one step", "wide alone"])
def test_step_sheets_of_any_images_and_paths(shapes, count, tmp_path):
  images, case = photos(*shapes), steps(len(shapes), count)
  decoding_pictures.step_sheet(images, **case, path=tmp_path / "p.png", title="Steps")
  sheet = read(tmp_path / "p.png")
  assert shown_text(sheet[:160], f"step {min(count, 13)}", pictures.INK) and not shown_text(sheet[:160], "step 14", pictures.INK)


@pytest.mark.parametrize("changed,match", [
    ({"attention": np.zeros((1, 3, 4))}, r"1 images and 5 names, but attention \(1, 3, 4\)"),
    ({"attention": np.zeros((1, 2, 4, 3))}, r"attention \(1, 2, 4, 3\), labels \(1, 3\)"),
    ({"labels": np.zeros((2, 3), int)}, r"labels \(2, 3\)"),
    ({"kept": np.ones((1, 4), bool)}, r"kept \(1, 4\)"),
    ({"label": np.zeros((1, 4))}, r"1 images and 5 names, .* label \(1, 4\)"),
    ({"label_names": NAMES[:4]}, "1 images and 4 names"),
    ({"labels": np.array([[0, 5, 1]])}, r"labels: expected integers in 0..4, got int64 in 0..5"),
    ({"labels": np.array([[0, -1, 1]])}, r"in -1..1"),
    ({"labels": np.array([[0.0, 2, 1]])}, "labels: expected integers in 0..4, got float64"),
    ({"probability": np.array([[0.5, 73, 0]])}, "row 0, step 2: probability 73, expected 0..1"),
    ({"probability": np.array([[0.5, 0.1, np.nan]])}, "row 0, step 3: probability nan"),
    ({"attention": np.full((1, 3, 4, 3), np.inf)}, "row 0, step 1: the map holds NaN or Inf"),
    ({"images": []}, "no images"),
    ({"images": [np.zeros((4, 4, 3))]}, "image 0: expected uint8"),
])
def test_step_sheet_refuses(changed, match, tmp_path):
  with pytest.raises(ValueError, match=match):
    decoding_pictures.step_sheet(**{"images": photos((8, 4)), **steps(n=1), "path": tmp_path / "p.png", **changed})
  assert not list(tmp_path.iterdir())


def drawn_hog(images, histograms, tmp_path):
  """The pixels of each image's HOG, cut out of the sheet."""
  decoding_pictures.hog_sheet(images, histograms, tmp_path / "p.png", title="HOG")
  sheet = read(tmp_path / "p.png")
  pieces = []
  for image in images:
    (y, x), = places(sheet, image)
    high, wide = image.shape[:2]
    pieces.append(sheet[y:y + high, x + wide + overlays.GAP:][:, :wide])
  return pieces


def stroke_angle(drawing, cell=32):
  """Direction of the strokes in degrees of 0..180, from the columns to the rows: the main axis of the light in all cells."""
  row, column = (np.mgrid[:drawing.shape[0], :drawing.shape[1]] + 0.5) % cell - cell / 2
  light = drawing[..., 0].astype(float)
  return math.degrees(0.5 * math.atan2((2 * light * row * column).sum(), (light * (column**2 - row**2)).sum())) % 180


def apart(angle, other):
  """Of two directions, in degrees of 0..90."""
  return abs((angle - other + 90) % 180 - 90)


def grating(angle, height=288, width=288):
  """Waves whose grey changes along `angle`, in degrees from the columns to the rows."""
  row, column = np.mgrid[:height, :width]
  wave = np.sin((column * math.cos(math.radians(angle)) + row * math.sin(math.radians(angle))) * 2 * math.pi / 24)
  return np.repeat(np.rint(127 + 100 * wave).astype(np.uint8)[..., None], 3, axis=2)


def test_strokes_run_along_the_edges(tmp_path):
  angles = [11.25 + 22.5 * i for i in range(8)]  # of the gradients: the middles of the bins
  stripes = [np.where(grating(angle) > 127, 220, 30).astype(np.uint8) for angle in (90, 0)]
  images = np.stack([*map(grating, angles), *stripes])
  *waves, horizontal, vertical = drawn_hog(images, hog.cell_histograms(images, cell_size=(32, 32)), tmp_path)
  for angle, piece in zip(angles, waves):
    assert apart(stroke_angle(piece), angle + 90) < 1
  # These gradients begin a bin, whose middle lies 11.25 degrees further on.
  assert apart(stroke_angle(horizontal), 0) < 12 and apart(stroke_angle(vertical), 90) < 12
  for piece, along in ((horizontal, 1), (vertical, 0)):
    spread = np.ptp(np.argwhere(piece[:32, :32, 0] > 100), axis=0)  # of one cell: longer along the stripes than across
    assert spread[along] > 2 * spread[1 - along]


def test_strokes_are_brighter_the_more_there_is_and_stay_in_their_cell(tmp_path):
  images = photos((288, 384), (288, 192))
  histograms = [np.zeros((9, 12, 8)), np.zeros((9, 6, 8))]
  histograms[0][2, 3, 4], histograms[0][5, 7, 4], histograms[0][5, 8, 4] = 40, 10, 0.4
  wide, tall = drawn_hog(images, histograms, tmp_path)
  assert not tall.any()  # nothing is nothing, also where it is the highest
  assert (wide[..., 0] == wide[..., 1]).all() and (wide[..., 0] == wide[..., 2]).all()
  peaks = [int(wide[32 * row:32 * row + 32, 32 * column:32 * column + 32].max()) for row, column in ((2, 3), (5, 7), (5, 8))]
  assert peaks[0] > 240 and 100 < peaks[1] < 140 and 0 < peaks[2] < 40
  lit = {(int(y) // 32, int(x) // 32) for y, x in np.argwhere(wide[..., 0])}
  assert lit == {(2, 3), (5, 7), (5, 8)}


def test_hog_sheets_of_any_images(tmp_path):
  images = photos((96, 900), (900, 96), (40, 40), (288, 1), (900, 20), (64, 48))
  decoding_pictures.hog_sheet(images, [np.random.default_rng(0).random((3, 5, 9))] * 6, tmp_path / "p.png")
  read(tmp_path / "p.png")


@pytest.mark.parametrize("histograms,match", [
    (np.zeros((2, 3, 3, 8)), "1 images, but 2 histograms"),
    (np.zeros((1, 3, 8)), r"image 0: expected histograms \[cells_h, cells_w, orientations\], got \[3, 8\]"),
    (np.zeros((1, 0, 3, 8)), r"image 0: expected histograms"),
    (np.full((1, 3, 3, 8), -1.0), "image 0: its histograms hold negative values, NaN or Inf"),
    (np.full((1, 3, 3, 8), np.nan), "image 0: its histograms hold"),
])
def test_hog_sheet_refuses(histograms, match, tmp_path):
  with pytest.raises(ValueError, match=match):
    decoding_pictures.hog_sheet(photos((8, 4)), histograms, tmp_path / "p.png")
  with pytest.raises(ValueError, match="no images"):
    decoding_pictures.hog_sheet([], histograms, tmp_path / "p.png")
  assert not list(tmp_path.iterdir())


# The pictures of a run.


class Decoder:
  """Stands for a model: one path for all images, without a network."""

  labels = [3, 0, 7, 11, 5]
  probability = [0.9, 0.2, 0.3, 0.05, 0.99]

  def __call__(self, inputs, *, train):
    raise NotImplementedError

  def apply(self, variables, inputs, *, train):
    count = len(inputs)
    attention = jax.nn.softmax(jnp.arange(5 * 4, dtype=jnp.float32).reshape(5, 4)).reshape(5, 2, 2)
    path = {"step_labels": jnp.array(self.labels), "step_probability": jnp.array(self.probability), "step_attention": attention}
    return jnp.zeros((count, 12), jnp.bfloat16), {key: jnp.stack([value] * count) for key, value in path.items()}


def artwork_run(system, model=None):
  """A run of six views with weights by chance, or another model in its place, and raw samples of three shapes."""
  config = cli.load_config(f"{REPOSITORY}/configs/attncnn_rnn.py:system={system},tiny", [])
  names = tuple(f"culture::{i}" for i in range(6)) + tuple(f"tag::{i}" for i in range(6))
  info = info_lib.DatasetInfo("imet2019", "1.0.0", names, {"culture": names[:6], "tag": names[6:]}, (0.1,) * 12, (1.0,) * 12,
                              {"test": 3}, (224, 224), (300, 300), (0.5,) * 3, (0.2,) * 3, "", "", False)
  variables = {"params": {}, "batch_stats": {}}
  if model is None:
    model = models.build(config.model, len(names), config.compute_dtype)
    image = jnp.zeros((1, *config.input.size, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), image, train=False))()
  jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in photos((60, 200), (90, 60), (60, 60))]
  label = np.eye(12, dtype=np.uint8)[:3]
  source = [{"image": jpeg, "label": label[i], "known": np.ones(12, bool), "id": np.int64(i)} for i, jpeg in enumerate(jpegs)]
  return evaluate.Run(config, info, variables["params"], variables["batch_stats"], 0, "last", model), source


@pytest.fixture
def calls(monkeypatch):
  """Arguments of the calls of `step_sheet` and `hog_sheet`, which draw as ever."""
  calls = {"step_sheet": [], "hog_sheet": []}
  for name, found in calls.items():
    sheet = getattr(decoding_pictures, name)
    monkeypatch.setattr(decoding_pictures, name, lambda *args, sheet=sheet, found=found, **options: (
        found.append(args), sheet(*args, **options)))
  return calls


def test_a_decoder_with_hog_has_both_pictures(calls, tmp_path):
  run, source = artwork_run("attncnn_rnn_hog", Decoder())
  spec = evaluate.input_spec(run.config)
  explain.draw({"run": run}, {"run": (source, spec)}, tmp_path, "test-six_view")
  assert {path.name for path in tmp_path.iterdir()} == {"test-six_view-steps.png", "test-six_view-hog.png"}
  (shown, _, labels, probability, kept, label, *_), = calls["step_sheet"]
  assert [image.shape[:2] for image in shown] == [(60, 200), (90, 60), (60, 60)]
  assert np.issubdtype(labels.dtype, np.integer) and labels.tolist() == [Decoder.labels] * 3
  np.testing.assert_array_equal(label, np.eye(12)[:3])
  # Against 2.5 times a share of positives of 0.1: means of .9, .42, .38 and .23, after which nothing comes back.
  assert np.asarray(kept).tolist() == [[True, True, True, False, False]] * 3
  # What is kept is the label set that is measured.
  path = {"step_labels": labels, "step_probability": probability}
  decided = np.asarray(models.MODELS["attncnn_rnn"].decide(None, path, run.info, **run.config.decide))
  assert [np.flatnonzero(row).tolist() for row in decided] == [[0, 3, 7]] * 3
  (seen, histograms, _), = calls["hog_sheet"]
  rows, columns = (side // run.config.model.hog_cell for side in spec.full_size)
  assert seen.shape == (3, rows * run.config.model.hog_cell, columns * run.config.model.hog_cell, 3)
  assert histograms.shape == (3, rows, columns, 8)

  explain.draw({"run": run}, {"run": (source, spec)}, tmp_path, "strict", threshold=4.0)  # a factor that was searched goes before the config's
  assert np.asarray(calls["step_sheet"][1][4]).tolist() == [[True, True, False, False, False]] * 3


def test_several_runs_have_no_steps(calls, tmp_path):
  run, source = artwork_run("attncnn_rnn", Decoder())
  explain.draw({"one": run, "other": run}, dict.fromkeys(("one", "other"), (source, evaluate.input_spec(run.config))), tmp_path, "test")
  assert calls == {"step_sheet": [], "hog_sheet": []} and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("system,kinds", [
    ("attncnn_rnn_hog", {"steps", "hog", "features"}), ("hog", {"hog", "features"}), ("baseline", {"heatmap", "views", "features"})])
def test_pictures_of_the_systems(system, kinds, tmp_path):
  run, source = artwork_run(system)
  threshold = [0.1] * 12 if system == "baseline" else None  # one per label, as a search gives them
  explain.draw({"run": run}, {"run": (source, evaluate.input_spec(run.config))}, tmp_path, "test", threshold=threshold)
  assert {path.name for path in tmp_path.iterdir()} == {f"test-{kind}.png" for kind in kinds}
