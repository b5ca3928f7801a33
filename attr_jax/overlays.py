"""Pictures of what a model looks at: its maps laid over the images. PNG files.

Attention per label, masks with their outline, and summed features after Wu et al.,
"Distraction-Aware Feature Learning for Human Attribute Recognition via Coarse-to-Fine
Attention Mechanism" (Da-HAR), AAAI 2020, Figures 4 and 5; regions of the face and the
strongest channels after Kalayeh et al., "Improving Facial Attribute Prediction using
Semantic Segmentation", CVPR 2017.

A sheet has one row per image: the image as it is, then its maps, each over the image in
grey. A map covers the whole image whatever its shape, because a network sees the whole
image, resized to its input. The sheet of channels is of one image, and its maps stand alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import matplotlib
from matplotlib import patheffects
import numpy as np

from attr_jax import pictures
from attr_jax.data import regions
from attr_jax.pictures import FONT, INK

# Plasma: uniform to the eye and of rising lightness, also for colour-blind readers. Unlike inferno and magma it
# has neither black nor white, so that no heat looks like the image; turbo is not uniform.
COLOURS = np.rint(255 * matplotlib.colormaps["plasma"](np.arange(256))[:, :3]).astype(np.uint8)
OPACITY = 0.7  # of the highest heat
FADED = 0.7  # share of white in a faded panel
# White with a dark edge stands out from every image and colour.
OUTLINE, OUTLINE_WIDTH = "white", 1.3
OUTLINE_EDGE = [patheffects.withStroke(linewidth=3.2, foreground=INK)]
TEXT = dict(fontsize=9.5, fontfamily=FONT)
# Region i has colour i; with more than seven, colour-blind readers would mistake some. The order suits
# `regions.FaceRegion`: background, hair and skin, which are large and touch, have the least alike.
REGION_COLOURS = np.array([[int(colour[i:i + 2], 16) for i in (1, 3, 5)] for colour in (
    pictures.BLUE, pictures.RED, pictures.YELLOW, pictures.SKY, pictures.PURPLE, pictures.GREEN, pictures.ORANGE)], np.uint8)
REGION_OPACITY = 0.6  # inside; at its border a region has its full colour

# All in pixels.
WIDEST = 1800  # sheet
HIGH, LOWEST = 256, 192  # equal heights of the images; one that is too wide at the lower is shrunk alone
NARROWEST = 112  # column; less holds no label name
GAP, LINE, LETTER = 12, 17, 7.5  # between panels; of text: height of a line, width of a letter
SWATCH, KEY_LINE = 18, 22  # of a legend of regions: width of a sample, height of a line
TILE, TILE_GAP, TILES_PER_ROW = 64, 4, 10  # of a channel: its longer side
NARROWEST_BLOCK = 280  # of channels; less holds no scale

ABSENT = ("–", "#777777", "rightly absent")
# Where no truth is known.
PREDICTED = {True: (*pictures.MARKS[True, True][:2], "present"), False: (*ABSENT[:2], "absent")}
_NOT_SPECIFIED = (*pictures.UNSPECIFIED[:2], "not specified")


class Panel(NamedTuple):
  """One cell of a sheet; without `heat` and `classes` the image alone, `image` None an empty cell."""

  image: np.ndarray | None
  heat: np.ndarray | None = None
  span: tuple[float, float] | None = None
  outlined: bool = False
  classes: np.ndarray | None = None
  caption: tuple[str, ...] = ()
  colour: str = INK
  faded: bool = False


class _Block(NamedTuple):
  """One column of a sheet of channels: what stands above, the tiles, and the values at the ends of their colours."""

  head: str
  tiles: np.ndarray
  scale: Sequence[str]


def blend(image: np.ndarray, heat: np.ndarray, span: tuple[float, float] | None = None) -> np.ndarray:
  """A map over an image: the higher the heat, the more of its colour and the less of the image.

  The map is scaled bilinearly with half-pixel centres, as networks resize, and averaged where it is the finer
  one. No heat leaves the image as it is, to the bit.

  Args:
    image: uint8 [H, W, 3], RGB.
    heat: [h, w] finite numbers.
    span: (low, high): what counts as no heat and as the highest; beyond is clipped. None takes the map's own
      minimum and maximum; a map of a single value, up to rounding, then has no heat.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: wrong shapes or types, or NaN or Inf in the map.
  """
  image, heat = np.asarray(image), np.asarray(heat, float)
  _check_image(image, "image")
  check_map(heat, "heat")
  heat = _resized(_normalised(heat, span), image.shape[:2])
  share = OPACITY * heat[..., None]
  colour = COLOURS[np.rint(255 * heat).astype(np.uint8)]
  return np.rint((1 - share) * image + share * colour).astype(np.uint8)


def paint(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Regions over an image: a tint of each region's colour, and the colour itself where the region ends.

  Each pixel takes the cell that its centre lies in, so that borders stay where they are and no class is made up
  between two.

  Args:
    image: uint8 [H, W, 3], RGB.
    classes: integers [h, w], indices of REGION_COLOURS; `regions.UNKNOWN` leaves the image as it is.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: wrong shapes or types, or a class without a colour.
  """
  image, classes = np.asarray(image), np.asarray(classes)
  _check_image(image, "image")
  _check_classes(classes, len(REGION_COLOURS), "classes")
  classes = _nearest(classes, image.shape[:2])
  known = classes != regions.UNKNOWN
  colour = REGION_COLOURS[np.where(known, classes, 0)]
  share = np.where(_borders(classes), 1, REGION_OPACITY) * known
  return np.rint((1 - share[..., None]) * image + share[..., None] * colour).astype(np.uint8)


def cut_at_median(features: np.ndarray) -> np.ndarray:
  """The features summed over the channels, 0 in all cells that are not above the map's own median.

  Args:
    features: [..., h, w, C], any real type.

  Returns:
    float64 [..., h, w]. With an even number of cells the median is the mean of the middle two.
  """
  total = np.asarray(features).sum(axis=-1, dtype=np.float64)
  return np.where(total > np.median(total, axis=(-2, -1), keepdims=True), total, 0)


def attention_sheet(
    images: Sequence[np.ndarray], maps: np.ndarray, score: np.ndarray, label: np.ndarray | None,
    known: np.ndarray | None, label_names: Sequence[str], path, threshold: float | np.ndarray = 0.5,
    most: int = 6, title: str = "Attention", decided: np.ndarray | None = None) -> None:
  """Each image with the maps of the labels that score highest for it, highest first.

  Above a map stand the label, its score in % and the marks of `pictures.contact_sheet`, or, where no truth is known,
  whether the label is predicted. Colours go from the lowest to the highest value of each map: they compare places, not labels.

  Args:
    images: N images uint8 [H, W, 3], RGB, of any sizes.
    maps: [N, h, w, L], finite.
    score: [N, L] probabilities.
    label: [N, L], 0 or 1; None where no truth is known.
    known: [N, L] bool or None.
    label_names: L names.
    path: the PNG file.
    threshold: a number or [L]: a label is predicted from it on.
    most: maps per image; 13 fit.
    title: of the sheet.
    decided: [N, L] bool, what is predicted, where another rule than the threshold says so.

  Raises:
    ValueError: shapes that do not belong together, too many columns, or NaN or Inf in a map (names row and
      label).
  """
  images = checked_images(images)
  maps, score = np.asarray(maps, float), np.asarray(score, float)
  blind = label is None
  label = np.zeros(score.shape, bool) if blind else np.asarray(label, bool)
  known = pictures.known_or_all(known, label)
  decided = score >= np.asarray(threshold) if decided is None else np.asarray(decided, bool)
  shape = len(images), len(label_names)
  if maps.ndim != 4 or not shape == (len(maps), maps.shape[3]) == score.shape == label.shape == known.shape == decided.shape:
    raise ValueError(f"{shape[0]} images and {shape[1]} names, but maps {maps.shape}, score {score.shape}, "
                     f"label {label.shape}, known {known.shape}")
  for n, of_image in enumerate(maps):
    for i, name in enumerate(label_names):
      check_map(of_image[..., i], f"row {n}, column {name!r}")
  rows = []
  for n, image in enumerate(images):
    row = [Panel(image)]
    for i in np.argsort(-score[n], kind="stable")[:most]:
      mark, colour, _ = pictures.MARKS.get((bool(decided[n, i]), bool(label[n, i])), ABSENT)
      if blind:
        mark, colour, _ = PREDICTED[bool(decided[n, i])]
      elif not known[n, i]:
        mark, colour, _ = _NOT_SPECIFIED
      caption = label_names[i], f"{mark} {100 * score[n, i]:.0f} %"
      row.append(Panel(image, maps[n, ..., i], caption=caption, colour=colour))
    rows.append(row)
  draw_sheet(rows, (), path, title, scale=("lowest", "highest value of each map"),
             marks=tuple(PREDICTED.values()) if blind else (*pictures.MARKS.values(), ABSENT, _NOT_SPECIFIED))


def mask_sheet(
    images: Sequence[np.ndarray], columns: Mapping[str, Sequence[np.ndarray | None]], path,
    title: str = "Masks") -> None:
  """Each image with its masks, one named column for each kind, and the outline where a mask is 0.5.

  All masks share one scale from 0 to 1, so that a mask that learned nothing shows as one even tint.

  Args:
    images: N images uint8 [H, W, 3], RGB, of any sizes.
    columns: name -> N masks [h, w] in 0..1, of any sizes; None leaves a cell empty.
    path: the PNG file.
    title: of the sheet.

  Raises:
    ValueError: a wrong number of masks, too many columns, or a mask with NaN, Inf or values beyond 0..1 (names
      row and column).
  """
  images = checked_images(images)
  rows = [[Panel(image)] for image in images]
  for name, masks in columns.items():
    for n, mask in enumerate(_as_many(masks, images, name)):
      if mask is None:
        rows[n].append(Panel(None))
        continue
      mask = np.asarray(mask, float)
      check_map(mask, f"row {n}, column {name!r}")
      if mask.min() < 0 or mask.max() > 1:
        raise ValueError(f"row {n}, column {name!r}: values from {mask.min():g} to {mask.max():g}, expected 0..1")
      rows[n].append(Panel(images[n], mask, span=(0, 1), outlined=True))
  draw_sheet(rows, ("image", *columns), path, title, scale=("0", "1"), outlined=True)


def feature_sheet(
    images: Sequence[np.ndarray], columns: Mapping[str, np.ndarray], path,
    title: str = "Features summed over channels") -> None:
  """Each image with its features, summed and cut by `cut_at_median`: where a stage responds most.

  Colours go from 0 to the highest sum of each map; where it is cut, the image stands alone.

  Args:
    images: N images uint8 [H, W, 3], RGB, of any sizes.
    columns: name -> [N, h, w, C], or [N, h, w] where the channels are summed already.
    path: the PNG file.
    title: of the sheet.

  Raises:
    ValueError: wrong shapes, too many columns, or NaN or Inf (names row and column).
  """
  images = checked_images(images)
  rows = [[Panel(image)] for image in images]
  for name, features in columns.items():
    for n, feature in enumerate(_as_many(features, images, name)):
      feature = np.asarray(feature)
      total = feature.sum(axis=-1, dtype=np.float64) if feature.ndim == 3 else feature
      check_map(total, f"row {n}, column {name!r}")
      heat = cut_at_median(total[..., None])
      rows[n].append(Panel(images[n], heat, span=(0, heat.max())))
  draw_sheet(rows, ("image", *columns), path, title, scale=("up to the median", "highest sum of each map"))


def view_sheet(
    images: Sequence[np.ndarray], views: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    names: Sequence[str], path, title: str = "Views") -> None:
  """One label's map on several views of each image, such as mirrored and smaller ones: does it move along?

  After Guo et al., "Visual Attention Consistency under Image Transforms for Multi-Label Image Classification"
  (VAC), CVPR 2019. All maps of a row share one scale, so that their heights compare as well as their places.

  Args:
    images: N images uint8 [H, W, 3], RGB, of any sizes: the originals.
    views: name -> N pairs of the view, uint8 [H', W', 3], and its map [h, w]; shown at the size of the original.
    names: N labels, one for each row.
    path: the PNG file.
    title: of the sheet.

  Raises:
    ValueError: a wrong number of views, or NaN or Inf in a map (names row and column).
  """
  images = checked_images(images)
  rows = [[Panel(image, caption=(name,))] for image, name in zip(images, names, strict=True)]
  for name, pairs in views.items():
    for n, (view, heat) in enumerate(_as_many(pairs, images, name)):
      _check_image(view, f"row {n}, column {name!r}")
      check_map(np.asarray(heat), f"row {n}, column {name!r}")
  for n, row in enumerate(rows):
    pairs = [of_view[n] for of_view in views.values()]
    span = min(heat.min() for _, heat in pairs), max(heat.max() for _, heat in pairs)
    row += [Panel(view, np.asarray(heat, float), span, caption=("",)) for view, heat in pairs]
  draw_sheet(rows, ("image", *views), path, title, scale=("lowest", "highest value of the row"))


def region_sheet(
    images: Sequence[np.ndarray], columns: Mapping[str, Sequence[np.ndarray]], names: Sequence[str], path,
    title: str = "Regions") -> None:
  """Each image with its regions, one named column for each kind, such as predicted and true ones.

  Args:
    images: N images uint8 [H, W, 3], RGB, of any sizes.
    columns: name -> N maps of any sizes: integers [h, w], indices of `names` or `regions.UNKNOWN`, which stays
      grey; or floats [h, w, R], of which each cell shows the highest region, the first of equals.
    names: R names of regions, at most as many as REGION_COLOURS.
    path: the PNG file.
    title: of the sheet.

  Raises:
    ValueError: no or too many names, a wrong number of maps, too many columns, or a map of a wrong shape or type,
      with a class without a name, or with NaN or Inf (names row and column).
  """
  images = checked_images(images)
  if not 0 < len(names) <= len(REGION_COLOURS):
    raise ValueError(f"{len(names)} names of regions, expected 1 to {len(REGION_COLOURS)}")
  rows = [[Panel(image)] for image in images]
  for name, maps in columns.items():
    for n, values in enumerate(_as_many(maps, images, name)):
      classes = _classes(np.asarray(values), len(names), f"row {n}, column {name!r}")
      rows[n].append(Panel(images[n], classes=classes))
  swatches = list(enumerate(names))
  if any((panel.classes == regions.UNKNOWN).any() for row in rows for panel in row[1:]):
    swatches.append((regions.UNKNOWN, "unknown"))
  draw_sheet(rows, ("image", *columns), path, title, swatches=swatches)


def channel_sheet(
    image: np.ndarray, columns: Mapping[str, np.ndarray], path, count: int = 50,
    title: str = "Strongest channels") -> None:
  """The channels of one image that respond most, one named block for each kind of features, strongest first.

  A channel is as strong as its mean over the map. Each block has colours from the lowest to the highest value that it
  shows: they compare the channels of a block, not the blocks.

  Args:
    image: uint8 [H, W, 3], RGB.
    columns: name -> [h, w, C], any real type.
    path: the PNG file.
    count: channels per block; all, where there are fewer.
    title: of the sheet.

  Raises:
    ValueError: wrong shapes, no or too many columns, a count below 1, or NaN or Inf (names column and channel).
  """
  image = np.asarray(image)
  _check_image(image, "image")
  if not columns or count < 1:
    raise ValueError(f"{len(columns)} columns, count {count}: expected at least one of each")
  scale = HIGH / max(image.shape[:2])
  image = pictures.resized(image, (max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))))
  # To the right of the image, as wide as they may be if they share the sheet evenly.
  left = GAP + image.shape[1] + 2 * GAP
  widest = (WIDEST + GAP - left) // len(columns) - 2 * GAP
  if widest < NARROWEST_BLOCK:
    raise ValueError(f"{len(columns)} columns do not fit in {WIDEST} pixels")
  blocks = []
  for name, features in columns.items():
    features = np.asarray(features, float)
    chosen = _strongest(features, count, f"column {name!r}")
    share = f": {len(chosen)} of {features.shape[2]} channels"
    blocks.append(_Block(pictures.shorten(name, int(NARROWEST_BLOCK / LETTER) - len(share)) + share,
                         _tiles(chosen, widest), [f"{value:.3g}" for value in (chosen.min(), chosen.max())]))
  top = 38 + LINE + 24
  lefts = left + np.cumsum([0] + [max(NARROWEST_BLOCK, block.tiles.shape[1]) + 2 * GAP for block in blocks])
  height = top + max(len(image), *(len(block.tiles) for block in blocks)) + GAP
  sheet, axes = page(sheet_width(lefts[-1] - GAP, title), height, title)
  sheet[top:top + len(image), GAP:GAP + image.shape[1]] = image
  for x, block in zip(lefts, blocks):
    axes.text(x, 38 + 12, block.head, color=INK, va="baseline", **TEXT)
    _draw_scale(sheet, axes, x, 38 + LINE, block.scale, COLOURS[::2])
    sheet[top:top + len(block.tiles), x:x + block.tiles.shape[1]] = block.tiles
  save_page(sheet, axes, path)


def _check_image(image: np.ndarray, what: str) -> None:
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
    raise ValueError(f"{what}: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")


def check_map(heat: np.ndarray, what: str) -> None:
  """Raises ValueError, which begins with `what`, unless it is a map [h, w] of finite numbers."""
  if heat.ndim != 2 or not heat.size:
    raise ValueError(f"{what}: expected a map [h, w], got {list(heat.shape)}")
  if not np.isfinite(heat).all():
    raise ValueError(f"{what}: the map holds NaN or Inf")


def checked_images(images: Sequence[np.ndarray]) -> list[np.ndarray]:
  """The images as arrays; raises ValueError if there are none, or one is not uint8 [H, W, 3]."""
  images = [np.asarray(image) for image in images]
  if not images:
    raise ValueError("no images")
  for n, image in enumerate(images):
    _check_image(image, f"image {n}")
  return images


def _as_many(maps: Sequence, images: Sequence, name: str) -> Sequence:
  if len(maps) != len(images):
    raise ValueError(f"column {name!r}: {len(maps)} maps for {len(images)} images")
  return maps


def _check_classes(classes: np.ndarray, count: int, what: str) -> None:
  if classes.ndim != 2 or classes.dtype.kind not in "iu" or not classes.size:
    raise ValueError(f"{what}: expected integers [h, w] or floats [h, w, {count}], got {classes.dtype} "
                     f"{list(classes.shape)}")
  wrong = classes[((classes < 0) | (classes >= count)) & (classes != regions.UNKNOWN)]
  if wrong.size:
    raise ValueError(f"{what}: class {wrong[0]}, expected 0..{count - 1} or {regions.UNKNOWN}")


def _classes(values: np.ndarray, count: int, what: str) -> np.ndarray:
  """Integers [h, w] of one map of `region_sheet`, of either kind."""
  if values.ndim == 3 and values.dtype.kind not in "biu" and values.shape[2] == count and values.size:
    if not np.isfinite(values).all():
      raise ValueError(f"{what}: the map holds NaN or Inf")
    return values.argmax(axis=2)
  _check_classes(values, count, what)
  return values


def _strongest(features: np.ndarray, count: int, what: str) -> np.ndarray:
  """[h, w, C] -> [at most count, h, w], highest mean first."""
  if features.ndim != 3 or not features.size:
    raise ValueError(f"{what}: expected features [h, w, C], got {list(features.shape)}")
  bad = ~np.isfinite(features).all(axis=(0, 1))
  if bad.any():
    raise ValueError(f"{what}, channel {bad.argmax()}: the map holds NaN or Inf")
  order = np.argsort(-features.mean(axis=(0, 1)), kind="stable")[:count]
  return np.moveaxis(features[..., order], -1, 0)


def _normalised(heat: np.ndarray, span: tuple[float, float] | None) -> np.ndarray:
  """`heat` in 0..1; see `blend`."""
  low, high = (heat.min(), heat.max()) if span is None else span
  if high - low <= 1e-6 * max(abs(low), abs(high)):  # float32 rounding must not look like a pattern
    return np.zeros_like(heat)
  return np.clip((heat - low) / (high - low), 0, 1)


def _shrunk(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """The mean along each axis that is longer than `size` (H, W)."""
  height, width = size
  return cv2.resize(heat, (min(width, heat.shape[1]), min(height, heat.shape[0])), interpolation=cv2.INTER_AREA)


def _resized(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """[h, w] -> [H, W]: the mean where it shrinks, then bilinear where it grows."""
  return cv2.resize(_shrunk(heat, size), size[::-1], interpolation=cv2.INTER_LINEAR)


def _nearest(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """[h, w] -> [H, W]: the cell that the centre of a pixel lies in."""
  rows, columns = ((2 * np.arange(pixels) + 1) * of_cells // (2 * pixels) for pixels, of_cells in zip(size, cells.shape))
  return cells[np.ix_(rows, columns)]


def _borders(classes: np.ndarray) -> np.ndarray:
  """bool [H, W]: pixels above, below or beside another class."""
  down, right = classes[1:] != classes[:-1], classes[:, 1:] != classes[:, :-1]
  border = np.zeros(classes.shape, bool)
  border[1:] |= down
  border[:-1] |= down
  border[:, 1:] |= right
  border[:, :-1] |= right
  return border


def _tiles(maps: np.ndarray, widest: int) -> np.ndarray:
  """uint8 [H, W, 3], W at most `widest`: maps [n, h, w] in rows of TILES_PER_ROW, in colours of one scale."""
  n, h, w = maps.shape
  scale = min(TILE / max(h, w), ((widest + TILE_GAP) // TILES_PER_ROW - TILE_GAP) / w)
  if scale > 1:
    scale = int(scale)  # cells of equal size
  size = max(1, int(scale * h)), max(1, int(scale * w))
  down, right = size[0] + TILE_GAP, size[1] + TILE_GAP
  rows, columns = -(-n // TILES_PER_ROW), min(n, TILES_PER_ROW)
  sheet = np.full((rows * down - TILE_GAP, columns * right - TILE_GAP, 3), 255, np.uint8)
  for i, heat in enumerate(_normalised(maps, None)):
    y, x = down * (i // TILES_PER_ROW), right * (i % TILES_PER_ROW)
    sheet[y:y + size[0], x:x + size[1]] = COLOURS[np.rint(255 * _nearest(_shrunk(heat, size), size)).astype(int)]
  return sheet


def _sizes(images: Sequence[np.ndarray], columns: int) -> list[tuple[int, int]]:
  """(width, height) of each image on a sheet: of equal height, but for those that are too wide for a column."""
  most = (WIDEST - GAP) // columns - GAP
  if most < NARROWEST:
    raise ValueError(f"{columns} columns do not fit in {WIDEST} pixels")
  high = max(LOWEST, min(HIGH, *(most * image.shape[0] / image.shape[1] for image in images)))
  sizes = []
  for image in images:
    scale = min(high / image.shape[0], most / image.shape[1])
    sizes.append((max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))))
  return sizes


def sheet_width(content: int, title: str) -> int:
  """Of a sheet: however narrow the content is, legend and title must fit."""
  return min(WIDEST, max(content, 560, 12 * len(title) + 2 * GAP))


def page(width: int, height: int, title: str) -> tuple:
  """A white sheet uint8 [height, width, 3], and axes in its pixels, with the title, for what is drawn over it."""
  figure = pictures.new_figure(width / 100, height / 100, dpi=100)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, width), ylim=(height, 0))
  axes.axis("off")
  axes.text(GAP, 10, title, fontsize=13, fontweight="bold", fontfamily=FONT, va="top", color=INK)
  return np.full((height, width, 3), 255, np.uint8), axes


def save_page(sheet: np.ndarray, axes, path) -> None:
  """Writes what `page` gave, the sheet below what the axes hold."""
  axes.figure.figimage(sheet, origin="upper", zorder=-1)  # pixel by pixel, below text and outlines
  pictures.save(axes.figure, path)


def draw_sheet(
    rows: Sequence[Sequence[Panel]], heads: Sequence[str], path, title: str, *, scale: tuple[str, str] | None = None,
    swatches: Sequence[tuple[int, str]] = (), marks: Sequence[tuple[str, str, str]] = (), outlined: bool = False,
    captions_below: bool = False) -> None:
  """Rows of panels of one size each, pixel by pixel, with text above.

  Args:
    rows: the first panel of each holds the image that gives the row its size.
    heads: names of the columns, or none.
    path: the PNG file.
    title: of the sheet.
    scale: what the ends of the colour bar mean; None where no panel has heat.
    swatches: (class, name) of the legend of regions.
    marks: (mark, colour, name) of the legend.
    outlined: explain the outline in the legend.
    captions_below: captions stand below their panels.
  """
  sizes = _sizes([row[0].image for row in rows], len(rows[0]))
  wide = max(NARROWEST, *(width for width, _ in sizes))
  lefts = GAP + (wide + GAP) * np.arange(len(rows[0]))
  letters = int(wide / LETTER)
  heads = [pictures.wrapped(name, letters) for name in heads]
  lines = LINE * max(len(panel.caption) for row in rows for panel in row)
  width = sheet_width(lefts[-1] + wide + GAP, title)
  key = 38 + 24 * bool(marks)
  legend = _legend(swatches, width)
  top = (key + 26 * bool(scale) + max((y + KEY_LINE + 4 for _, y, _, _ in legend), default=0)
         + LINE * max((name.count("\n") + 1 for name in heads), default=0))
  tops = top + np.cumsum([0] + [lines + height + GAP for _, height in sizes])

  sheet, axes = page(width, tops[-1], title)
  pictures.mark_legend(axes, GAP, 38, marks)
  if scale:
    x = _draw_scale(sheet, axes, GAP, key, scale, blend(np.full((1, 128, 3), 150, np.uint8), np.arange(128)[None])[0])
    if outlined:
      _draw_outline_key(axes, x + 28, key)
  for x, y, region, name in legend:
    sheet[key + y:key + y + 12, x:x + SWATCH] = _swatch(region)
    axes.text(x + SWATCH + 6, key + y + 11, name, color=INK, **TEXT)
  for x, name in zip(lefts, heads):
    axes.text(x, top - 7, name, color=INK, va="baseline", linespacing=1.1, **TEXT)
  for row, size, y in zip(rows, sizes, tops + (0 if captions_below else lines)):
    for x, panel in zip(lefts, row):
      for i, text in enumerate(panel.caption):
        # On the baseline: the tops of "Hat" and "cap" differ.
        at = y + size[1] + LINE * (i + 1) - 2 if captions_below else y - 7 - LINE * (len(panel.caption) - 1 - i)
        axes.text(x, at, pictures.shorten(text, letters), color=panel.colour, va="baseline", **TEXT)
      sheet[y:y + size[1], x:x + size[0]] = _drawn(panel, size)
      if panel.outlined:
        _outline(axes, x, y, _resized(panel.heat, size[::-1]))
  save_page(sheet, axes, path)


def _drawn(panel: Panel, size: tuple[int, int]) -> np.ndarray:
  """uint8 [height, width, 3] of a panel, size = (width, height)."""
  if panel.image is None:
    return np.full((size[1], size[0], 3), 240, np.uint8)
  image = pictures.resized(panel.image, size)
  if panel.heat is not None or panel.classes is not None:
    # In grey, so that every colour is that of the map and not of a dress.
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    image = blend(grey, panel.heat, panel.span) if panel.classes is None else paint(grey, panel.classes)
  return np.rint(255 * FADED + (1 - FADED) * image).astype(np.uint8) if panel.faded else image


def _outline(axes, x: int, y: int, mask: np.ndarray) -> None:
  """The 0.5 contour of a mask [H, W] whose first pixel lies at (x, y); a mask on one side of 0.5 has none."""
  height, width = mask.shape
  if mask.min() < 0.5 < mask.max() and height > 1 and width > 1:
    lines = axes.contour(np.arange(width) + x + 0.5, np.arange(height) + y + 0.5, mask, levels=[0.5],
                         colors=OUTLINE, linewidths=OUTLINE_WIDTH)
    lines.set_path_effects(OUTLINE_EDGE)


def _draw_scale(sheet: np.ndarray, axes, x: int, y: int, scale: Sequence[str], colours: np.ndarray) -> int:
  """The colour bar, uint8 [128, 3], between the meanings of its ends; returns where it ends."""
  text = axes.text(x, y + 12, scale[0], color=INK, **TEXT)
  x = int(text.get_window_extent().x1) + 8
  sheet[y + 1:y + 13, x:x + len(colours)] = colours
  text = axes.text(x + len(colours) + 8, y + 12, scale[1], color=INK, **TEXT)
  return int(text.get_window_extent().x1)


def _draw_outline_key(axes, x: int, y: int) -> None:
  axes.plot([x, x + 24], [y + 7, y + 7], color=OUTLINE, linewidth=OUTLINE_WIDTH, path_effects=OUTLINE_EDGE)
  axes.text(x + 32, y + 12, "0.5", color=INK, **TEXT)


def _legend(swatches: Sequence[tuple[int, str]], width: int) -> list[tuple[int, int, int, str]]:
  """(x, y, class, name) in equal columns, as many as a sheet of this width holds; y counts from the legend's top."""
  if not swatches:
    return []
  swatches = [(region, pictures.shorten(name, 24)) for region, name in swatches]
  wide = SWATCH + 6 + int(LETTER * max(len(name) for _, name in swatches)) + 2 * GAP
  columns = (width - GAP) // wide
  return [(GAP + i % columns * wide, 1 + i // columns * KEY_LINE, *swatch) for i, swatch in enumerate(swatches)]


def _swatch(region: int) -> np.ndarray:
  """uint8 [12, SWATCH, 3]: a region on grey, with its border."""
  classes = np.pad(np.full((12, SWATCH), region, np.uint8), 1, constant_values=regions.UNKNOWN)
  return paint(np.full((*classes.shape, 3), 150, np.uint8), classes)[1:-1, 1:-1]
