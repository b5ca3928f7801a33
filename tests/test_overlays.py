"""Overlays against slow references, and sheets that show the right pixels in the right places."""

import cv2
import numpy as np
import pytest

from attr_jax import overlays
from attr_jax import pictures


def read(path):
  """RGB [H, W, 3]; fails if the file is not a PNG of sensible size that shows something."""
  assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
  image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
  height, width = image.shape[:2]
  assert 120 < height < 4000 and 300 < width <= overlays.WIDEST
  assert image.std() > 5
  assert [p.name for p in path.parent.iterdir()] == [path.name]  # no parts left behind
  return image


def places(sheet, image):
  """(row, column) of every exact copy of `image` in `sheet`, by comparing all positions at its corners first."""
  height, width = image.shape[:2]
  h, w = sheet.shape[0] - height + 1, sheet.shape[1] - width + 1
  same = np.ones((h, w), bool)
  for y, x in ((0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1), (height // 2, width // 2)):
    same &= (sheet[y:y + h, x:x + w] == image[y, x]).all(axis=2)
  return [(y, x) for y, x in np.argwhere(same) if (sheet[y:y + height, x:x + width] == image).all()]


def photos(*shapes):
  rng = np.random.default_rng(0)
  return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def grey(image):
  return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def written(text):
  """The pixels of a text of a sheet, without margins."""
  figure = pictures.new_figure(3, 0.4, dpi=100)
  figure.text(10 / 300, 10 / 40, text, color=pictures.INK, **overlays.TEXT)
  figure.canvas.draw()
  image = np.asarray(figure.canvas.buffer_rgba())[..., :3]
  rows, columns = (np.flatnonzero((image < 255).any(axis=(axis, 2))) for axis in (1, 0))
  return image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def reads(sheet, text):
  """Whether the text stands somewhere in the sheet."""
  return cv2.matchTemplate(sheet, written(text), cv2.TM_SQDIFF_NORMED).min() < 1e-3


def attention(n=3, labels=5):
  rng = np.random.default_rng(0)
  return dict(
      maps=rng.random((n, 14, 7, labels), np.float32), score=rng.random((n, labels)),
      label=rng.integers(0, 2, (n, labels)), known=rng.random((n, labels)) < 0.8,
      label_names=["Male", "Hat", "Skirt", "Stripe", "x" * 60][:labels])


def bilinear(heat, height, width):
  """Half-pixel centres, the border value beyond the outermost centres; one cell at a time."""
  result = np.zeros((height, width))
  for y in range(height):
    for x in range(width):
      v = np.clip((y + 0.5) * heat.shape[0] / height - 0.5, 0, heat.shape[0] - 1)
      u = np.clip((x + 0.5) * heat.shape[1] / width - 0.5, 0, heat.shape[1] - 1)
      i, j = int(v), int(u)
      below, right = min(i + 1, heat.shape[0] - 1), min(j + 1, heat.shape[1] - 1)
      upper = (1 - u + j) * heat[i, j] + (u - j) * heat[i, right]
      lower = (1 - u + j) * heat[below, j] + (u - j) * heat[below, right]
      result[y, x] = (1 - v + i) * upper + (v - i) * lower
  return result


@pytest.mark.parametrize("size", [(6, 4), (33, 17), (5, 20)])
def test_blend_is_that_of_a_slow_loop(size):
  image, = photos(size)
  heat = np.random.default_rng(1).normal(size=(5, 3))
  scaled = bilinear((heat - heat.min()) / (heat.max() - heat.min()), *size)
  expected = np.zeros((*size, 3))
  for y in range(size[0]):
    for x in range(size[1]):
      share = overlays.OPACITY * scaled[y, x]
      expected[y, x] = (1 - share) * image[y, x] + share * overlays.COLOURS[int(scaled[y, x] * 255 + 0.5)]
  result = overlays.blend(image, heat)
  assert result.dtype == np.uint8 and result.shape == image.shape
  # A heat between two colours may fall to either one.
  assert np.abs(result - expected).max() <= 3 and (np.abs(result - expected) <= 0.5001).mean() > 0.99


@pytest.mark.parametrize("heat", [
    np.zeros((14, 7)), np.full((7, 7), 1 / 49), np.full((3, 2), -4.0), np.ones((1, 1)),
    np.float32(0.1) + np.float32(1e-8) * np.arange(6, dtype=np.float32).reshape(2, 3),
], ids=["zero", "even attention", "negative", "one cell", "rounding"])
def test_a_map_without_contrast_leaves_the_image(heat):
  image, = photos((64, 32))
  np.testing.assert_array_equal(overlays.blend(image, heat), image)


def test_span_of_blend():
  image = np.full((4, 4, 3), 100, np.uint8)
  even = np.full((2, 2), 0.5)
  expected = np.rint(100 * (1 - 0.5 * overlays.OPACITY) + 0.5 * overlays.OPACITY * overlays.COLOURS[128])
  np.testing.assert_array_equal(overlays.blend(image, even, (0, 1)), np.broadcast_to(expected, (4, 4, 3)))
  # Beyond the span is as its ends; a span of no width has no heat.
  np.testing.assert_array_equal(overlays.blend(image, even + 3, (0, 1)), overlays.blend(image, even * 2, (0, 1)))
  np.testing.assert_array_equal(overlays.blend(image, -even, (0, 1)), image)
  np.testing.assert_array_equal(overlays.blend(image, even, (0, 0)), image)


@pytest.mark.parametrize("cells,size", [
    ((14, 7), (256, 128)), ((7, 14), (100, 300)), ((7, 7), (333, 90)), ((1, 5), (50, 60)),
])
def test_a_single_hot_cell_is_hottest_in_its_own_place(cells, size):
  image = np.full((*size, 3), 60, np.uint8)
  for cell in np.ndindex(*cells):
    heat = np.zeros(cells)
    heat[cell] = 1
    change = np.abs(overlays.blend(image, heat).astype(int) - image).sum(axis=2)
    for axis in (0, 1):
      hottest = np.argwhere(change == change.max())[:, axis]
      scale = size[axis] / cells[axis]
      assert cell[axis] * scale <= hottest.min() + 0.5 and hottest.max() + 0.5 <= (cell[axis] + 1) * scale
      if 0 < cell[axis] < cells[axis] - 1:  # at a border the whole rim is hot
        assert abs(hottest.mean() + 0.5 - (cell[axis] + 0.5) * scale) <= 1
      # Nothing changes farther away than the centres of the cells beside it.
      changed = np.argwhere(change)[:, axis]
      assert (cell[axis] - 0.5) * scale <= changed.min() + 0.5 and changed.max() + 0.5 <= (cell[axis] + 1.5) * scale


def test_a_finer_map_is_averaged():
  image = np.full((8, 4, 3), 60, np.uint8)
  board = np.zeros((64, 32))
  board[::8, ::8] = 1  # plain sampling would see all of them or none
  expected = overlays.blend(image, np.full((1, 1), 1 / 64), (0, 1))
  np.testing.assert_array_equal(overlays.blend(image, board, (0, 1)), expected)


@pytest.mark.parametrize("image,heat", [
    (np.zeros((4, 4, 3)), np.zeros((2, 2))),
    (np.zeros((4, 4), np.uint8), np.zeros((2, 2))),
    (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 1))),
    (np.zeros((4, 4, 3), np.uint8), np.zeros((0, 2))),
    (np.zeros((4, 4, 3), np.uint8), np.array([[0, np.inf]])),
    (np.zeros((4, 4, 3), np.uint8), np.array([[0, np.nan]])),
])
def test_blend_refuses(image, heat):
  with pytest.raises(ValueError, match="image: expected|heat"):
    overlays.blend(image, heat)


@pytest.mark.parametrize("shape", [(2, 3, 4, 3, 8), (3, 7, 7, 5), (14, 7, 16), (1, 1, 3)])
def test_cut_at_median_is_that_of_a_slow_loop(shape):
  # Eighths, so that float32 sums are exact in any order, and ties are common.
  features = (np.random.default_rng(0).integers(-40, 80, shape) / 8).astype(np.float32)
  result = overlays.cut_at_median(features)
  assert result.shape == shape[:-1]
  for lead in np.ndindex(*shape[:-3]):
    total = [[sum(float(value) for value in cell) for cell in row] for row in features[lead]]
    ordered = sorted(value for row in total for value in row)
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    expected = [[value if value > median else 0.0 for value in row] for row in total]
    np.testing.assert_array_equal(result[lead], expected)
  assert not overlays.cut_at_median(np.full(shape, 3, np.float32)).any()


def test_attention_sheet_shows_images_and_maps_of_the_highest_scores(tmp_path):
  images, case = photos((256, 128), (256, 90)), attention(n=2)
  overlays.attention_sheet(images, **case, path=tmp_path / "new" / "p.png", most=3)
  sheet = read(tmp_path / "new" / "p.png")
  lefts = []
  for n, image in enumerate(images):
    (top, left), = places(sheet, image)
    lefts.append(left)
    # The same row, left to right, by falling score.
    best = sorted(range(5), key=lambda i: -case["score"][n, i])
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    found = [places(sheet, overlays.blend(grey, case["maps"][n, ..., i])) for i in best]
    assert [len(one) for one in found] == [1, 1, 1, 0, 0]
    assert [one[0][0] for one in found[:3]] == [top] * 3
    columns = [left, *(one[0][1] for one in found[:3])]
    assert len(set(np.diff(columns))) == 1 and columns[1] - left > image.shape[1]
  assert lefts[0] == lefts[1]


def test_attention_sheet_writes_the_colours_of_the_marks(tmp_path):
  image = np.zeros((1, 256, 128, 3), np.uint8)
  marks = {"found": (1, 0.9, True), "alarm": (0, 0.9, True), "missed": (1, 0.1, True), "absent": (0, 0.1, True),
           "unknown": (1, 0.9, False)}
  for name, (label, score, known) in marks.items():
    overlays.attention_sheet(
        image, np.zeros((1, 2, 2, 1)), [[score]], [[label]], [[known]], ["WWWWWWWW"], tmp_path / "p.png")
    sheet = read(tmp_path / "p.png").astype(int)
    caption = sheet[86:, overlays.GAP + 128:][:40]  # below the legend, above the map
    colours = {"found": pictures.MARKS[True, True][1], "alarm": pictures.MARKS[True, False][1],
               "missed": pictures.MARKS[False, True][1], "grey": pictures.UNSPECIFIED[1]}
    count = {key: (np.abs(caption - [int(colour[i:i + 2], 16) for i in (1, 3, 5)]).max(axis=2) < 25).sum()
             for key, colour in colours.items()}
    assert max(count, key=count.get) == (name if name in count else "grey"), (name, count)
    assert max(count.values()) > 40


@pytest.mark.parametrize("shapes", [
    [(128, 64)], [(64, 32), (400, 100), (90, 90)], [(256, 256)] * 3, [(3, 900), (900, 3), (30, 20)],
], ids=["one", "unequal", "squares", "extreme"])
@pytest.mark.parametrize("labels", [1, 5])
def test_sheets_of_any_images(shapes, labels, tmp_path):
  images = photos(*shapes)
  case = attention(len(images), labels)
  overlays.attention_sheet(images, **case, path=tmp_path / "p.png", threshold=np.full(labels, 0.3))
  read(tmp_path / "p.png")
  masks = np.random.default_rng(0).random((len(images), 14, 7))
  overlays.mask_sheet(images, {f"mask {i}": masks for i in range(labels)}, tmp_path / "p.png")
  read(tmp_path / "p.png")
  overlays.feature_sheet(images, {"C4": masks[..., None], "C5, summed before": masks}, tmp_path / "p.png")
  read(tmp_path / "p.png")


def test_images_are_shown_at_equal_height_and_in_their_own_shape(tmp_path):
  images = [np.full((*shape, 3), colour, np.uint8) for shape, colour in (
      ((100, 50), (200, 0, 0)), ((512, 128), (0, 200, 0)), ((40, 40), (0, 0, 200)))]
  overlays.mask_sheet(images, {"empty": [None] * 3}, tmp_path / "p.png")
  sheet = read(tmp_path / "p.png")
  for image, width in zip(images, (128, 64, 256)):
    same = (sheet == image[0, 0]).all(axis=2)
    assert (same.any(axis=1).sum(), same.any(axis=0).sum(), same.sum()) == (256, width, 256 * width)


def test_mask_sheet_outlines_at_half_and_draws_flat_masks(tmp_path):
  image = np.full((256, 128, 3), 90, np.uint8)
  half = np.zeros((256, 128))
  half[:, 64:] = 1
  columns = {"half": [half], "flat": [np.full((14, 7), 0.5)], "zero": [np.zeros((4, 4))],
             "one": np.ones((1, 2, 2)), "none": [None], "bool": [half > 0]}
  overlays.mask_sheet([image], columns, tmp_path / "p.png")
  sheet = read(tmp_path / "p.png")
  top = places(sheet, image)[0][0]
  panels = [sheet[top:top + 256, 12 + i * 140:12 + i * 140 + 128] for i in range(7)]
  np.testing.assert_array_equal(panels[0], image)
  for i, value in ((2, 0.5), (3, 0), (4, 1)):
    np.testing.assert_array_equal(panels[i], overlays.blend(image, np.full((1, 1), value), (0, 1)))
  assert len(np.unique(panels[5])) == 1 and panels[5][0, 0, 0] > 220
  np.testing.assert_array_equal(panels[1], panels[6])
  # The outline is white, between the two halves and nowhere else.
  white = (panels[1] > 230).all(axis=2)
  assert set(np.flatnonzero(white.any(axis=0))) <= {63, 64} and white.any(axis=1).sum() > 250
  plain = overlays.blend(image, half, (0, 1))
  np.testing.assert_array_equal(panels[1][:, :60], plain[:, :60])
  np.testing.assert_array_equal(panels[1][:, 68:], plain[:, 68:])


def test_feature_sheet_shows_the_cut_sums(tmp_path):
  images, rng = photos((256, 128), (256, 100)), np.random.default_rng(0)
  columns = {"C4": rng.random((2, 14, 7, 6), np.float32), "C5": rng.random((2, 7, 4, 3), np.float32) - 2}
  overlays.feature_sheet(images, columns, tmp_path / "p.png")
  sheet = read(tmp_path / "p.png")
  for n, image in enumerate(images):
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    heat = overlays.cut_at_median(columns["C4"][n])
    assert len(places(sheet, image)) == len(places(sheet, overlays.blend(grey, heat, (0, heat.max())))) == 1
    assert len(places(sheet, grey)) == 1  # nothing above 0 is no heat


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(bad, tmp_path):
  images, case = photos((32, 16), (32, 16), (32, 16)), attention()
  case["score"][1, 3] = 0  # not even among those that are shown
  case["maps"][1, 2, 2, 3] = bad
  with pytest.raises(ValueError, match="row 1, column 'Stripe': the map holds NaN or Inf"):
    overlays.attention_sheet(images, **case, path=tmp_path / "p.png", most=2)
  masks = np.zeros((3, 4, 4))
  masks[2, 0, 0] = bad
  with pytest.raises(ValueError, match="row 2, column 'self-mask 1': the map holds NaN or Inf"):
    overlays.mask_sheet(images, {"true": np.zeros((3, 4, 4)), "self-mask 1": masks}, tmp_path / "p.png")
  with pytest.raises(ValueError, match="row 2, column 'C5': the map holds NaN or Inf"):
    overlays.feature_sheet(images, {"C5": masks[..., None]}, tmp_path / "p.png")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call,match", [
    (lambda images, path: overlays.attention_sheet(images, **attention(n=2), path=path), "1 images and 5 names"),
    (lambda images, path: overlays.attention_sheet([], **attention(n=1), path=path), "no images"),
    (lambda images, path: overlays.mask_sheet(images, {"a": [None, None]}, path), "'a': 2 maps for 1 images"),
    (lambda images, path: overlays.mask_sheet(images, {"a": [np.full((2, 2), 255)]}, path),
     "row 0, column 'a': values from 255"),
    (lambda images, path: overlays.mask_sheet(images, {"a": [np.zeros(4)]}, path), "row 0, column 'a': expected"),
    (lambda images, path: overlays.mask_sheet(images, {str(i): [None] for i in range(40)}, path),
     "41 columns do not fit"),
    (lambda images, path: overlays.feature_sheet(images, {"a": np.zeros((1, 2, 2, 2, 2))}, path),
     "row 0, column 'a': expected"),
    (lambda images, path: overlays.feature_sheet([image / 255 for image in images], {}, path), "image 0: expected"),
])
def test_wrong_calls(call, match, tmp_path):
  with pytest.raises(ValueError, match=match):
    call(photos((8, 4)), tmp_path / "p.png")


def test_most_columns_fit(tmp_path):
  case = attention(n=1, labels=1)
  many = {key: np.repeat(np.asarray(value), 14, axis=-1) for key, value in case.items() if key != "label_names"}
  overlays.attention_sheet(photos((64, 64)), **many, label_names=[f"a rather long label {i}" for i in range(14)],
                           path=tmp_path / "p.png", most=13)
  assert read(tmp_path / "p.png").shape[1] > 1700


def test_a_long_title_fits(tmp_path):
  overlays.mask_sheet(photos((64, 32)), {"a": [None]}, tmp_path / "p.png", title="Masks of the runs with and without " * 2)
  title = read(tmp_path / "p.png")[:34]
  assert (title[:, :-10] < 100).any(axis=(0, 2))[-150:].any() and (title[:, -10:] == 255).all()


def test_views_share_the_scale_of_their_row(tmp_path):
  image, = photos((64, 64))
  low, high = np.zeros((4, 4)), np.ones((4, 4))
  low[0, 0] = 1e-3  # alone it would be stretched to the full scale
  overlays.view_sheet([image], {"a": [(image, low)], "b": [(image[::2, ::2], high)]}, ["Hat"], tmp_path / "views.png")
  sheet = read(tmp_path / "views.png")
  grey = overlays.blend(np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2), high, (0, 1))
  assert grey.shape == image.shape and sheet.shape[1] > 3 * 64
  with pytest.raises(ValueError, match="row 0, column 'a'"):
    overlays.view_sheet([image], {"a": [(image, low * np.nan)]}, ["Hat"], tmp_path / "bad.png")
  with pytest.raises(ValueError, match="1 maps|2 maps"):
    overlays.view_sheet([image, image], {"a": [(image, low)]}, ["Hat", "Hat"], tmp_path / "bad.png")


REGIONS = ["background", "hair", "face skin", "eyes", "eyebrows", "mouth", "nose"]


@pytest.mark.parametrize("cells,size", [((14, 7), (64, 31)), ((5, 9), (5, 9)), ((40, 30), (17, 50)), ((1, 1), (3, 2))])
def test_paint_is_that_of_a_slow_loop(cells, size):
  rng = np.random.default_rng(0)
  image, classes = photos(size)[0], rng.choice([0, 1, 2, 6, 255], cells).astype(np.uint8)
  # The cell in which the centre of a pixel lies; exact, because a centre between two cells must not depend on rounding.
  region = lambda y, x: classes[(2 * y + 1) * cells[0] // (2 * size[0]), (2 * x + 1) * cells[1] // (2 * size[1])]
  result = overlays.paint(image, classes)
  assert result.dtype == np.uint8 and result.shape == image.shape
  for y, x in np.ndindex(size):
    own = region(y, x)
    beside = [region(v, u) for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
              if 0 <= v < size[0] and 0 <= u < size[1]]
    if own == 255:
      np.testing.assert_array_equal(result[y, x], image[y, x])
    elif any(other != own for other in beside):
      np.testing.assert_array_equal(result[y, x], overlays.REGION_COLOURS[own])
    else:
      tint = 0.6 * overlays.REGION_COLOURS[own] + 0.4 * image[y, x]
      assert np.abs(result[y, x] - tint).max() <= 0.5001


@pytest.mark.parametrize("image,classes,match", [
    (np.zeros((4, 4, 3)), np.zeros((2, 2), int), "image: expected"),
    (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2)), "classes: expected"),
    (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 0), int), "classes: expected"),
    (np.zeros((4, 4, 3), np.uint8), np.full((2, 2), 7), "classes: class 7"),
])
def test_paint_refuses(image, classes, match):
  with pytest.raises(ValueError, match=match):
    overlays.paint(image, classes)


def test_colours_of_regions_differ():
  colours = overlays.REGION_COLOURS.astype(int)
  apart = np.abs(colours[:, None] - colours).sum(axis=2) + 999 * np.eye(len(colours), dtype=int)
  assert len(colours) == len(REGIONS) and apart.min() > 60
  assert (colours.max(axis=1) - colours.min(axis=1)).min() > 60  # none is mistaken for unknown


def test_region_sheet_paints_masks_and_the_highest_probability(tmp_path):
  images, rng = photos((256, 128), (256, 90)), np.random.default_rng(0)
  true = [rng.choice([0, 3, 6, 255], (28, 23)).astype(np.uint8), rng.integers(0, 7, (256, 90))]
  probability = rng.dirichlet(np.ones(7), (2, 14, 12)).astype(np.float32)
  overlays.region_sheet(images, {"predicted": probability, "true": true}, REGIONS, tmp_path / "p.png")
  sheet = read(tmp_path / "p.png")
  for n, image in enumerate(images):
    panels = [image, overlays.paint(grey(image), probability[n].argmax(axis=2)), overlays.paint(grey(image), true[n])]
    (top, left), = places(sheet, image)
    assert [places(sheet, panel) for panel in panels] == [[(top, left + i * (128 + overlays.GAP))] for i in range(3)]


def test_a_region_has_its_colour_and_the_unknown_stays_grey(tmp_path):
  image = np.full((256, 128, 3), (200, 40, 90), np.uint8)
  classes = np.full((8, 4), 255, np.uint8)
  classes[2:4], classes[4:6, :2], classes[4:6, 2:] = 0, 4, 6
  # The same classes as probabilities; the unknown cells tie, and show the first region.
  overlays.region_sheet([image], {"classes": [classes], "values": [np.eye(256)[classes][..., :7]]}, REGIONS,
                        tmp_path / "p.png")
  sheet = read(tmp_path / "p.png")
  (top, left), = places(sheet, image)
  panels = [sheet[top:top + 256, left + i * 140:left + i * 140 + 128] for i in range(3)]
  level = grey(image)[0, 0]
  assert (panels[1][:64] == level).all() and (panels[1][192:] == level).all()
  for region, rows, columns in ((0, (64, 128), (0, 128)), (4, (128, 192), (0, 64)), (6, (128, 192), (64, 128))):
    inside = np.s_[rows[0] + 1:rows[1] - 1, columns[0] + 1:columns[1] - 1]
    tint = 0.6 * overlays.REGION_COLOURS[region] + 0.4 * level
    assert np.abs(panels[1][inside] - tint).max() <= 0.5001
    assert (panels[1][[rows[0], rows[1] - 1], columns[0]:columns[1]] == overlays.REGION_COLOURS[region]).all()
  np.testing.assert_array_equal(panels[2][130:190], panels[1][130:190])
  tint = 0.6 * overlays.REGION_COLOURS[0] + 0.4 * level
  assert np.abs(panels[2][:126] - tint).max() <= 0.5001


@pytest.mark.parametrize("width", [64, 700], ids=["two lines", "one line"])
def test_legend_of_regions(width, tmp_path):
  known, unknown = np.zeros((1, 4, 4), np.uint8), np.full((1, 4, 4), 255, np.uint8)
  for columns in ({"a": known}, {"a": known, "b": unknown}):
    overlays.region_sheet(photos((200, width)), columns, REGIONS, tmp_path / "p.png")
    sheet = read(tmp_path / "p.png")[:110]
    for i, name in enumerate([*REGIONS, "unknown"][:7 + len(columns) - 1]):
      # A swatch with the colour as its rim and the tint inside, and the name right beside it.
      swatch = np.full((12, 18, 3), 150)
      if name != "unknown":
        swatch[:] = overlays.REGION_COLOURS[i]
        swatch[1:-1, 1:-1] = np.rint(0.6 * overlays.REGION_COLOURS[i] + 0.4 * 150)
      (y, x), = places(sheet, swatch)
      assert reads(sheet[y - 4:y + 18, x + 20:x + 122], name)
      assert (sheet[y - 1:y + 13, x - 3:x] == 255).all()  # the name before it ends before
    assert reads(sheet, "unknown") == (len(columns) == 2)


@pytest.mark.parametrize("column,match", [
    ([np.zeros((4, 4), np.uint8), np.full((4, 4), 7, np.uint8)], "row 1, column 'true': class 7, expected 0..6 or 255"),
    ([np.zeros((4, 4), int), np.full((4, 4), -1)], "row 1, column 'true': class -1"),
    ([np.zeros((4, 4), int), np.zeros((4, 4))], r"row 1, column 'true': expected integers \[h, w\] or floats \[h, w, 7\]"),
    ([np.zeros((4, 4), int), np.zeros((4, 4, 6))], r"row 1, column 'true': .* got float64 \[4, 4, 6\]"),
    ([np.zeros((4, 4), int), np.zeros((4, 4, 7), np.uint8)], "row 1, column 'true': expected"),
    ([np.zeros((4, 4), int), np.zeros((0, 4), int)], "row 1, column 'true': expected"),
    ([np.zeros((4, 4, 7)), np.full((4, 4, 7), np.nan)], "row 1, column 'true': the map holds NaN or Inf"),
    ([np.full((4, 4, 7), np.inf), np.zeros((4, 4, 7))], "row 0, column 'true': the map holds NaN or Inf"),
    ([np.zeros((4, 4), int)], "'true': 1 maps for 2 images"),
])
def test_region_sheet_refuses(column, match, tmp_path):
  with pytest.raises(ValueError, match=match):
    overlays.region_sheet(photos((8, 4), (8, 4)), {"true": column}, REGIONS, tmp_path / "p.png")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [0, 8])
def test_region_sheet_has_seven_colours(count, tmp_path):
  with pytest.raises(ValueError, match=f"{count} names of regions, expected 1 to 7"):
    overlays.region_sheet(photos((8, 4)), {}, ["a"] * count, tmp_path / "p.png")


def features_of_strength(strength, h=3, w=2):
  """[h, w, C] float32 with the given means, of different patterns."""
  noise = np.random.default_rng(0).random((h, w, len(strength)))
  return (noise - noise.mean(axis=(0, 1)) + strength).astype(np.float32)


def tile(features, channel, span, scale):
  heat = (features[..., channel].astype(float) - span[0]) / (span[1] - span[0])
  return np.kron(overlays.COLOURS[np.rint(255 * heat).astype(int)], np.ones((scale, scale, 1), np.uint8))


def test_channel_sheet_shows_the_strongest_in_order(tmp_path):
  image, = photos((256, 128))
  strength = np.random.default_rng(1).permutation(30) / 10
  features = features_of_strength(strength)
  columns = {"SSP": features, "global pooling": features[::-1, ::-1, ::-1] / 100}
  overlays.channel_sheet(image, columns, tmp_path / "new" / "p.png", count=13)
  sheet = read(tmp_path / "new" / "p.png")
  (top, left), = places(sheet, image)
  assert left == overlays.GAP
  corners = []
  for one, order in zip(columns.values(), (np.argsort(-strength), np.argsort(-strength[::-1]))):
    shown = one[..., order[:13]]
    # 3 x 2 cells of 21 pixels each fill a tile of 64.
    found = [places(sheet, tile(one, channel, (shown.min(), shown.max()), 21)) for channel in order[:13]]
    assert [len(copies) for copies in found] == [1] * 13
    y, x = found[0][0]
    # Ten in a row, in order.
    assert [copies[0] for copies in found] == [(y + i // 10 * (63 + 4), x + i % 10 * (42 + 4)) for i in range(13)]
    assert y == top
    corners.append(x)
    assert (sheet[y + 67:y + 67 + 63, x + 3 * 46:x + 10 * 46 - 4] == 255).all()  # no fourteenth
    head = sheet[:top, x - 2:x + 300]
    assert reads(head, f"{shown.min():.3g}") and reads(head, f"{shown.max():.3g}")
  assert left + 128 < corners[0] and corners[0] + 10 * 46 < corners[1]
  assert reads(sheet[:top, corners[0] - 2:corners[1]], "SSP: 13 of 30 channels")
  assert reads(sheet[:top, corners[1] - 2:], "global pooling: 13 of 30 channels")


def test_channels_of_finer_maps_are_averaged_and_few_channels_all_shown(tmp_path):
  board = np.zeros((256, 256, 3))
  board[::2, ::2] = 1, 2, 3
  overlays.channel_sheet(photos((30, 90))[0], {"fine": board, "flat": np.full((1, 1, 1), -2.0)}, tmp_path / "p.png")
  sheet = read(tmp_path / "p.png")
  even = lambda size, heat: np.full((size, size, 3), overlays.COLOURS[round(255 * heat)], np.uint8)
  for value in (1, 2, 3):  # a quarter of the cells has it; colours go from 0 to 3
    assert places(sheet, even(52, value / 4 / 3))
  assert places(sheet, even(64, 0))
  assert reads(sheet, "fine: 3 of 3 channels") and reads(sheet, "flat: 1 of 1 channels") and reads(sheet, "-2")


@pytest.mark.parametrize("shape", [(218, 178), (3, 900), (900, 3), (1, 1)])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_channel_sheets_of_any_images(shape, columns, tmp_path):
  rng = np.random.default_rng(0)
  maps = [rng.normal(size=size) for size in ((14, 12, 60), (1, 300, 4), (109, 89, 11), (7, 7, 1), (2, 3, 200))]
  overlays.channel_sheet(photos(shape)[0], {f"a rather long name of run {i}": maps[i] for i in range(columns)},
                         tmp_path / "p.png")
  read(tmp_path / "p.png")


@pytest.mark.parametrize("columns,options,match", [
    ({"SSP": np.zeros((4, 4, 3)), "GAP": np.zeros((4, 4))}, {}, r"column 'GAP': expected features \[h, w, C\], got \[4, 4\]"),
    ({"SSP": np.zeros((4, 4, 0))}, {}, "column 'SSP': expected features"),
    ({"SSP": np.zeros((1, 4, 4, 3))}, {}, "column 'SSP': expected features"),
    ({"SSP": np.where(np.arange(3) == 1, np.nan, np.zeros((4, 4, 3)))}, {"count": 1}, "column 'SSP', channel 1: the map holds NaN"),
    ({"SSP": np.where(np.arange(3) == 2, -np.inf, np.zeros((4, 4, 3)))}, {"count": 1}, "column 'SSP', channel 2: the map holds NaN"),
    ({"SSP": np.zeros((4, 4, 3))}, {"count": 0}, "count 0"),
    ({}, {}, "0 columns"),
    ({str(i): np.zeros((4, 4, 3)) for i in range(7)}, {}, "7 columns do not fit in 1800 pixels"),
])
def test_channel_sheet_refuses(columns, options, match, tmp_path):
  with pytest.raises(ValueError, match=match):
    overlays.channel_sheet(photos((8, 4))[0], columns, tmp_path / "p.png", **options)
  with pytest.raises(ValueError, match="image: expected"):
    overlays.channel_sheet(photos((8, 4))[0] / 255, columns, tmp_path / "p.png", **options)
  assert not list(tmp_path.iterdir())
