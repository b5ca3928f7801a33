"""Pictures of how labels are chosen one after the other, and of the shapes that go into the first guess. PNG files.

Where a decoder looks when it chooses each label, after Chen et al., "Order-Free RNN with Visual Attention for Multi-Label
Classification", AAAI 2018; an image beside its histograms of oriented gradients (HOG), after Dalal and Triggs, "Histograms
of Oriented Gradients for Human Detection", CVPR 2005.
"""

from collections.abc import Sequence
import math

import cv2
import numpy as np

from attr_jax import overlays
from attr_jax import pictures

MOST_STEPS = 13  # columns that a sheet holds beside the image
# (kept, true) -> mark, colour, name in the legend; marks and colours are those of all sheets.
MARKS = {
    (True, True): pictures.MARKS[True, True],
    (True, False): pictures.MARKS[True, False],
    (False, True): (*pictures.MARKS[False, True][:2], "dropped, but true"),
    (False, False): (*overlays.ABSENT[:2], "rightly dropped"),
}
# kept -> the same, where no truth is known
CHOSEN = {True: (*pictures.MARKS[True, True][:2], "chosen"), False: (*overlays.ABSENT[:2], "dropped")}

HIGH = 288  # pixels, of an image beside its HOG
STROKE = 0.92  # length of the longest stroke, as a share of the shorter side of a cell
FINER = 4  # strokes are drawn so many times larger, then averaged: lines of any width without steps


def step_sheet(
    images: Sequence[np.ndarray], attention: np.ndarray, labels: np.ndarray, probability: np.ndarray, kept: np.ndarray,
    label: np.ndarray | None, label_names: Sequence[str], path, title: str = "") -> None:
  """Each image with the steps of its decoder: where it looks, the label that it chooses there, and how sure it is.

  Below a step stand the mark of `MARKS`, the probability in % and the label without its group ("tag::" and the like); a
  step whose label is dropped from the set is pale. Below the image stands how many of its true labels are found, or, where no
  truth is known, how many are chosen. Colours go from 0 to the highest value of each step, so that an even attention shows as an even tint. Of more than 13 steps the
  first 13 are drawn.

  Args:
    images: N images uint8 [H, W, 3], RGB, of any sizes.
    attention: [N, T, h, w], finite.
    labels: integers [N, T], the label chosen at each step.
    probability: [N, T] in 0..1, of that label at that step.
    kept: bool [N, T], whether it belongs to the set.
    label: uint8 [N, L], 1 for what is true; None where no truth is known.
    label_names: L names.
    path: the PNG file.
    title: of the sheet.

  Raises:
    ValueError: no images, shapes that do not belong together, labels that are no integers below L, or a probability
      that is not in 0..1 or attention that is not finite (names row and step).
  """
  images = overlays.checked_images(images)
  attention, probability = np.asarray(attention, float), np.asarray(probability, float)
  labels, kept, blind = np.asarray(labels), np.asarray(kept, bool), label is None
  label = np.zeros((len(images), len(label_names)), bool) if blind else np.asarray(label, bool)
  _check_steps(len(images), attention, labels, probability, kept, label, len(label_names))
  steps = labels.shape[1]
  if steps > MOST_STEPS:
    title += f", the first {MOST_STEPS} of {steps} steps"
  rows = []
  for n, image in enumerate(images):
    found = label[n, labels[n, kept[n]]].sum()
    caption = (f"{kept[n].sum()} labels", "chosen") if blind else (f"{found} of {label[n].sum()}", "true labels found")
    row = [overlays.Panel(image, caption=caption)]
    for t in range(min(steps, MOST_STEPS)):
      mark, colour, _ = CHOSEN[bool(kept[n, t])] if blind else MARKS[bool(kept[n, t]), bool(label[n, labels[n, t]])]
      name = label_names[labels[n, t]].rsplit("::", 1)[-1]
      row.append(overlays.Panel(
          image, attention[n, t], span=(0, attention[n, t].max()), caption=(f"{mark} {100 * probability[n, t]:.0f} %", name),
          colour=colour, faded=not kept[n, t]))
    rows.append(row)
  heads = ["image", *(f"step {t + 1}" for t in range(len(rows[0]) - 1))]
  overlays.draw_sheet(rows, heads, path, title, scale=("0", "highest attention of each step"), marks=tuple((CHOSEN if blind else MARKS).values()),
                      captions_below=True)


def hog_sheet(images: Sequence[np.ndarray], histograms: Sequence[np.ndarray], path, title: str = "") -> None:
  """Each image beside its HOG: in every cell one stroke per orientation, along the edges, brighter the more there are.

  A stroke stands for a bin and has the direction of its middle, at right angles to the gradient. Its brightness and width
  go with the square root of the bin's value over the highest one of the image, so that weak edges are seen as well.

  Args:
    images: N images uint8 [H, W, 3], RGB, of any sizes; what the cells cover of them.
    histograms: N of [cells_h, cells_w, orientations], not negative, see `nn.hog.cell_histograms`.
    path: the PNG file.
    title: of the sheet.

  Raises:
    ValueError: no images, another number of histograms, or one of a wrong shape, negative, NaN or Inf (names the image).
  """
  images = overlays.checked_images(images)
  histograms = [np.asarray(one, float) for one in histograms]
  if len(histograms) != len(images):
    raise ValueError(f"{len(images)} images, but {len(histograms)} histograms")
  for n, one in enumerate(histograms):
    if one.ndim != 3 or not one.size:
      raise ValueError(f"image {n}: expected histograms [cells_h, cells_w, orientations], got {list(one.shape)}")
    if not (np.isfinite(one) & (one >= 0)).all():
      raise ValueError(f"image {n}: its histograms hold negative values, NaN or Inf")
  widest = (overlays.WIDEST - overlays.GAP) // 2 - overlays.GAP
  sizes = [_fitted(image, widest) for image in images]
  places = _flow([2 * width + 2 * overlays.GAP for width, _ in sizes], [height for _, height in sizes])
  top = 38 + overlays.LINE + 4
  right = max(x + 2 * size[0] + overlays.GAP for (x, _), size in zip(places, sizes))
  bottom = max(y + size[1] for (_, y), size in zip(places, sizes))
  sheet, axes = overlays.page(overlays.sheet_width(right + overlays.GAP, title), top + bottom + overlays.GAP, title)
  axes.text(overlays.GAP, 38 + 12, "strokes run along the edges, each in the middle of its range of orientations", color=pictures.INK,
            va="baseline", **overlays.TEXT)
  for image, one, (width, height), (x, y) in zip(images, histograms, sizes, places):
    pair = pictures.resized(image, (width, height)), _strokes(one, (width, height))
    for place, drawn in zip((x, x + width + overlays.GAP), pair):
      sheet[top + y:top + y + height, place:place + width] = drawn
  overlays.save_page(sheet, axes, path)


def _check_steps(count: int, attention: np.ndarray, labels: np.ndarray, probability: np.ndarray, kept: np.ndarray, label: np.ndarray,
                 num_labels: int) -> None:
  if attention.ndim != 4 or not labels.shape == probability.shape == kept.shape == attention.shape[:2] or not (
      len(labels) == count and labels.size and label.shape == (count, num_labels)):
    raise ValueError(f"{count} images and {num_labels} names, but attention {attention.shape}, labels {labels.shape}, "
                     f"probability {probability.shape}, kept {kept.shape}, label {label.shape}")
  if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= num_labels:
    raise ValueError(f"labels: expected integers in 0..{num_labels - 1}, got {labels.dtype} in {labels.min()}..{labels.max()}")
  for n, t in np.ndindex(labels.shape):
    overlays.check_map(attention[n, t], f"row {n}, step {t + 1}")
    if not 0 <= probability[n, t] <= 1:
      raise ValueError(f"row {n}, step {t + 1}: probability {probability[n, t]:g}, expected 0..1")


def _fitted(image: np.ndarray, widest: int) -> tuple[int, int]:
  """(width, height) of an image on a sheet: HIGH pixels high, less where it would be too wide."""
  scale = min(HIGH / image.shape[0], widest / image.shape[1])
  return max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))


def _flow(widths: Sequence[int], heights: Sequence[int]) -> list[tuple[int, int]]:
  """(x, y) of blocks one after the other, in as many lines as they need."""
  places, x, y, high = [], overlays.GAP, 0, 0
  for width, height in zip(widths, heights):
    if x > overlays.GAP and x + width > overlays.WIDEST:
      x, y, high = overlays.GAP, y + high + overlays.GAP, 0
    places.append((x, y))
    x, high = x + width + overlays.GAP, max(high, height)
  return places


def _strokes(histograms: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """The HOG [cells_h, cells_w, orientations] as light strokes on black, uint8 [height, width, 3] for size = (width, height)."""
  rows, columns, bins = histograms.shape
  width, height = size[0] * FINER, size[1] * FINER
  cell = np.array([width / columns, height / rows])
  strength = np.sqrt(histograms / max(histograms.max(), 1e-12))
  canvas = np.zeros((height, width), np.uint8)
  for place in np.argsort(strength, axis=None, kind="stable"):  # the strongest come last and lie on top
    row, column, i = np.unravel_index(place, strength.shape)
    value = strength[row, column, i]
    angle = math.pi * (i + 0.5) / bins  # of the gradient, from the columns to the rows; the edge lies across it
    reach = 0.5 * STROKE * cell.min() * np.array([-math.sin(angle), math.cos(angle)])
    middle = (np.array([column, row]) + 0.5) * cell
    ends = [tuple(int(x) for x in np.rint(middle + sign * reach)) for sign in (-1, 1)]
    cv2.line(canvas, *ends, color=round(255 * value), thickness=max(1, round(2 * FINER * value)))
  return cv2.cvtColor(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
