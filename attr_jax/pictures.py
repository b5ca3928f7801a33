"""Pictures of a run: curves, bars, contact sheets, ROC, confusion, tables of weights. PNG files.

They are drawn on a figure of their own with the Agg canvas; pyplot, its backend
and the settings of a notebook are not touched. Shares are printed in %.
"""

from collections.abc import Sequence
import pathlib
import textwrap

import cv2
import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from attr_jax import metrics
from attr_jax import writers

# Okabe and Ito's palette, distinct for colour-blind readers as well.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8C8C8C"
SKY, PURPLE, YELLOW, INK, PALE = "#56B4E9", "#CC79A7", "#F0E442", "#222222", "#DDDDDD"
LINES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
# What stands first among the validation metrics; at most as many as LINES.
HEADLINE_METRICS = ("mAP", "mA", "F1", "F1-C", "F1-O", "sample_F2", "ROC-AUC")
MOST_BARS = 80
TABLE_COLOURS = matplotlib.colormaps["Blues"]  # light where most weights lie; INK is readable up to two thirds
FONT = "DejaVu Sans"  # ships with matplotlib and has the ticks and crosses


def new_figure(width: float, height: float, dpi: int = 110) -> Figure:
  """A white figure of width x height inches at `dpi` pixels per inch, on the Agg canvas."""
  figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
  FigureCanvasAgg(figure)
  return figure


def save(figure: Figure, path) -> None:
  """Writes the figure to the PNG file `path`, whole or not at all, and the folders above it; into `path` itself where that is a binary stream."""
  if hasattr(path, "write"):
    figure.savefig(path, format="png", pil_kwargs={"compress_level": 1})
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  with writers.whole(path) as partial:
    figure.savefig(partial, format="png", pil_kwargs={"compress_level": 4})


def plain(axes, grid: str) -> None:
  """No frame, and lines of a grid behind what is drawn: "x", "y" or "both"."""
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(axis=grid, color="#E3E3E3", linewidth=0.8)
  axes.set_axisbelow(True)


def shorten(name: str, most: int) -> str:
  """The name in at most `most` letters (9 or more): cuts the middle, because long names often differ at the end."""
  return name if len(name) <= most else name[:most - 9] + "…" + name[-8:]


def wrapped(name: str, most: int) -> str:
  """The name on one or two lines of at most `most` letters."""
  first, *rest = textwrap.wrap(name, most) or [""]
  return "\n".join([first, shorten(" ".join(rest), most)] if rest else [first])


def _series(records: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
  """(steps, values) of the records that hold a finite value under `key`."""
  pairs = [(r["step"], r[key]) for r in records
           if isinstance(r.get(key), (int, float)) and np.isfinite(r[key])]
  steps, values = zip(*pairs) if pairs else ((), ())
  return np.asarray(steps, float), np.asarray(values, float)


def _smooth(values: np.ndarray) -> np.ndarray:
  """Centred mean over about a twentieth of the curve, one-sided at its ends."""
  n, reach = np.arange(len(values)), max(1, len(values) // 40)
  first, last = np.maximum(n - reach, 0), np.minimum(n + reach + 1, len(values))
  total = np.append(0.0, np.cumsum(values))
  return (total[last] - total[first]) / (last - first)


def training_curves(records: Sequence[dict], path, title: str = "Training") -> None:
  """Loss, validation metrics and learning rate over the steps.

  Args:
    records: the lines of metrics.jsonl: {"step", "loss", "learning_rate", ...} of
      training and {"step", "val/mAP", "val/loss", ...} of evaluations, in any
      order. Of the metrics the first six are drawn, headline ones first.
    path: the PNG file.
    title: of the figure.
  """
  records = sorted((r for r in records if "step" in r), key=lambda r: r["step"])
  names = sorted({key for r in records for key in r if "/" in key})
  evaluated = [key for key in names if not key.endswith("/loss")
               and all(0 <= value <= 1 for value in _series(records, key)[1])
               and len(_series(records, key)[1])]
  metric = lambda key: key.split("/", 1)[1]
  rank = lambda key: (HEADLINE_METRICS.index(metric(key)) if metric(key) in HEADLINE_METRICS
                      else len(HEADLINE_METRICS), key)
  # An evaluation has dozens of metrics; without a headline one the first are drawn.
  evaluated = sorted(evaluated, key=rank)
  headline = [key for key in evaluated if metric(key) in HEADLINE_METRICS]
  evaluated = (headline or evaluated)[:len(LINES)]
  rates = _series(records, "learning_rate")

  panels = ["loss"] + ["metrics"] * bool(evaluated) + ["rate"] * bool(len(rates[0]))
  shares = {"loss": 3.0, "metrics": 3.0, "rate": 1.1}
  figure = new_figure(11, 1.0 + sum(shares[p] for p in panels) * 0.95)
  grid = figure.subplots(
      len(panels), 1, sharex=True, squeeze=False,
      gridspec_kw={"height_ratios": [shares[p] for p in panels]})[:, 0]
  axes = dict(zip(panels, grid))

  steps, values = _series(records, "loss")
  many = len(steps) > 20
  if len(steps):
    axes["loss"].plot(steps, values, color=BLUE, alpha=0.3 if many else 1, linewidth=1,
                      marker=None if many else "o", markersize=4,
                      label="training" + " (each record)" * many)
  if many:
    axes["loss"].plot(steps, _smooth(values), color=BLUE, linewidth=2, label="training, smoothed")
  for key, color in zip([n for n in names if n.endswith("/loss")], (RED, GREEN, PURPLE)):
    at, losses = _series(records, key)
    if len(at):
      axes["loss"].plot(at, losses, color=color, marker="o", markersize=4, linewidth=1.2,
                        label=key.split("/")[0])
  axes["loss"].set_ylabel("loss")

  for key, color in zip(evaluated, LINES):
    at, values = _series(records, key)
    axes["metrics"].plot(at, 100 * values, color=color, marker="o", markersize=4, linewidth=1.5,
                         label=f"{key}\nlast {100 * values[-1]:.1f}, best {100 * values.max():.1f}")
  if evaluated:
    axes["metrics"].set_ylabel("metric (%)")
  if len(rates[0]):
    axes["rate"].plot(*rates, color=INK, linewidth=1.2,
                      marker="o" if len(rates[0]) == 1 else None, markersize=4)
    axes["rate"].set_ylabel("learning\nrate")
    if rates[1].min() > 0 and 2 < len(np.unique(rates[1])) <= 12:  # a staircase of divisions
      axes["rate"].set_yscale("log")
  for name, one in axes.items():
    plain(one, "both")
    handles = one.get_legend_handles_labels()[0]
    if handles and name != "rate":
      one.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9,
                 borderaxespad=0)
    elif not handles and name == "loss":
      one.text(0.5, 0.5, "no training records", transform=one.transAxes, ha="center", color=GREY)
  grid[-1].set_xlabel("step")
  grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
  figure.suptitle(title, fontsize=13, fontweight="bold")
  figure.align_ylabels(grid)
  figure.tight_layout()
  save(figure, path)


def _bar_height(count: int) -> float:
  return 0.27 * count + 1.7


def attribute_bars(
    label_names: Sequence[str], average_precision, positive_share, path,
    title: str = "Average precision per attribute", order: str = "sorted") -> None:
  """Horizontal bars of AP, with the share of positives, which is what chance gives.

  Args:
    label_names: L names.
    average_precision: [L] in [0, 1]; nan where the label has no positives.
    positive_share: [L] in [0, 1].
    path: the PNG file.
    title: of the figure.
    order: "sorted", best first, undefined ones last; or "file".
      Of more than 80 labels the 40 best and the 40 worst are drawn.

  Raises:
    ValueError: lengths that differ, or an unknown order.
  """
  ap, share = np.asarray(average_precision, float), np.asarray(positive_share, float)
  if not len(label_names) == len(ap) == len(share):
    raise ValueError(f"{len(label_names)} names, {len(ap)} values, {len(share)} shares")
  if order not in ("sorted", "file"):
    raise ValueError(f"unknown order {order!r}; known: sorted, file")
  by_value = np.argsort(np.where(np.isnan(ap), np.inf, -ap), kind="stable")
  rows = by_value if order == "sorted" else np.arange(len(ap))
  if len(rows) > MOST_BARS:
    defined = by_value[:np.isfinite(ap).sum()]
    chosen = {*defined[:MOST_BARS // 2], *defined[-MOST_BARS // 2:]}
    title += f"\n{MOST_BARS // 2} best and {MOST_BARS // 2} worst of {len(rows)}"
    rows = np.array([row for row in rows if row in chosen])
  figure = new_figure(9, _bar_height(len(rows)))
  axes = figure.subplots()
  y = np.arange(len(rows))
  bars = axes.barh(y, np.nan_to_num(100 * ap[rows]), height=0.68, color=SKY,
                   label="average precision")
  handles = [bars, *axes.plot(
      100 * share[rows], y, linestyle="", marker="D", markersize=5, color=INK, clip_on=False,
      label="positive share (chance level)")]
  for at, row in zip(y, rows):
    if np.isnan(ap[row]):
      axes.text(1.4, at, "no positives", va="center_baseline", color=GREY, style="italic",
                fontsize=9)
    else:
      axes.text(100.8, at, f"{100 * ap[row]:.1f}", va="center_baseline", fontsize=9)
  defined = ap[np.isfinite(ap)]
  if defined.size:
    mean = 100 * defined.mean()
    handles.append(axes.axvline(
        mean, color=RED, linewidth=1.5, linestyle="--",
        label=f"mean {mean:.1f} over {defined.size} of {len(ap)} labels"))
  axes.set_yticks(y, [shorten(label_names[row], 36) for row in rows], fontsize=9)
  axes.set_ylim(len(rows) - 0.4, -0.6)
  axes.set_xlim(0, 100)
  axes.set_xlabel("%")
  axes.set_title(title, fontsize=13, fontweight="bold", pad=30)
  axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False,
              fontsize=9, borderaxespad=0.3)
  plain(axes, "x")
  figure.tight_layout()
  save(figure, path)


def confusion_bars(
    label, score, known, label_names: Sequence[str], path, threshold=0.5,
    title: str = "Decisions per attribute") -> None:
  """One bar per label: shares of TP, FN, FP, TN among its known samples.

  Args:
    label: [N, L], 0 or 1.
    score: [N, L] probabilities; positive from `threshold` on.
    known: [N, L] bool or None.
    label_names: L names.
    path: the PNG file.
    threshold: a number or [L].
    title: of the figure.
  """
  label, known = np.asarray(label, bool), known_or_all(known, label)
  decision = np.asarray(score) >= np.asarray(threshold)
  parts = (
      ("found (TP)", GREEN, label & decision), ("missed (FN)", ORANGE, label & ~decision),
      ("false alarm (FP)", RED, ~label & decision),
      ("rightly absent (TN)", PALE, ~label & ~decision))
  total = known.sum(axis=0)
  shown = len(label_names)
  if shown > MOST_BARS:
    title += f"\nthe first {MOST_BARS} of {shown} labels"
    shown = MOST_BARS
  figure = new_figure(9, _bar_height(shown))
  axes = figure.subplots()
  y, left = np.arange(shown), np.zeros(shown)
  for name, color, cells in parts:
    width = 100 * ((cells & known).sum(axis=0) / np.maximum(total, 1))[:shown]
    axes.barh(y, width, left=left, height=0.72, color=color, label=name)
    for at in np.flatnonzero(width >= 6):
      axes.text(left[at] + width[at] / 2, at, f"{width[at]:.0f}", ha="center", va="center_baseline",
                fontsize=8, color=INK if color in (PALE, ORANGE) else "white")
    left += width
  for at in np.flatnonzero(total[:shown] == 0):
    axes.text(1, at, "never specified", va="center_baseline", color=GREY, style="italic",
              fontsize=9)
  axes.set_yticks(y, [shorten(name, 36) for name in label_names[:shown]], fontsize=9)
  axes.set_ylim(shown - 0.4, -0.6)
  axes.set_xlim(0, 100)
  axes.set_xlabel("% of the samples with a known label")
  axes.set_title(title, fontsize=13, fontweight="bold", pad=30)
  axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=9,
              borderaxespad=0.3)
  plain(axes, "x")
  figure.tight_layout()
  save(figure, path)


def _check_weights(weights: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
  if weights.shape != (len(rows), len(columns)) or not weights.size:
    raise ValueError(f"{len(rows)} rows and {len(columns)} columns, but weights {weights.shape}")
  for i, j in np.argwhere(~(np.isfinite(weights) & (weights >= 0))):
    raise ValueError(f"row {rows[i]!r}, column {columns[j]!r}: weight {weights[i, j]:g}, expected 0..1")
  for i in np.flatnonzero(np.abs(weights.sum(axis=1) - 1) > 0.01):  # what bfloat16 rounds stays below
    raise ValueError(f"row {rows[i]!r}: the weights sum to {weights[i].sum():g}, expected 1")


def weight_table(
    weights, rows: Sequence[str], columns: Sequence[str], path, title: str = "Region weights per attribute") -> None:
  """How much each region counts for each attribute, in %: one row per attribute, one column per region.

  Rows with the same strongest region stand together, in the order of the columns, the highest weight first.
  After Kalayeh et al., "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017.

  Args:
    weights: [L, R] in [0, 1], rows sum to one.
    rows: L names of attributes. Of more than 80 the first 80 are drawn.
    columns: R names of regions.
    path: the PNG file.
    title: of the figure.

  Raises:
    ValueError: shapes that do not belong together, a weight that is negative, NaN or Inf (names row and column), or
      a row that does not sum to one (names it).
  """
  weights = np.asarray(weights, float)
  _check_weights(weights, rows, columns)
  if len(rows) > MOST_BARS:
    title += f"\nthe first {MOST_BARS} of {len(rows)} labels"
    weights = weights[:MOST_BARS]
  strongest = weights.argmax(axis=1)
  order = np.lexsort((-weights.max(axis=1), strongest))
  weights, strongest = weights[order], strongest[order]
  names, heads = [shorten(rows[i], 36) for i in order], [wrapped(name, 11) for name in columns]

  # All in inches, so that cells have one size however many there are.
  table = 0.85 * len(heads), 0.27 * len(names)
  bar = np.clip(table[1], 1.6, 4)
  above = 0.25 + 0.25 * (title.count("\n") + 1) + 0.17 * max(name.count("\n") + 1 for name in heads)
  left = 0.2 + 0.085 * max(map(len, names))
  width = max(left + table[0] + 1.1, 0.12 * max(map(len, title.splitlines())))
  height = above + max(table[1], bar) + 0.2
  figure = new_figure(width, height)
  below_heads = lambda x, wide, high: figure.add_axes(
      (x / width, 1 - (above + high) / height, wide / width, high / height))
  axes = below_heads(left, *table)
  image = axes.imshow(100 * weights, cmap=TABLE_COLOURS, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
  for (y, x), weight in np.ndenumerate(weights):
    axes.text(x, y, f"{100 * weight:.0f}", ha="center", va="center_baseline", fontsize=9,
              color="white" if weight > 0.66 else INK)
  axes.hlines(np.flatnonzero(np.diff(strongest)) + 0.5, -0.5, len(heads) - 0.5, color=INK, linewidth=1)
  axes.set_yticks(range(len(names)), names, fontsize=9)
  axes.set_xticks(range(len(heads)), heads, fontsize=9)
  axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
  axes.spines[:].set_visible(False)
  figure.colorbar(image, cax=below_heads(left + table[0] + 0.25, 0.15, bar), ticks=range(0, 101, 20), format="%d %%")
  figure.suptitle(title, y=1 - 0.12 / height, fontsize=13, fontweight="bold")
  save(figure, path)


def known_or_all(known, label) -> np.ndarray:
  """bool [N, L], the shape of `label`: what is specified; `known` None means all of it."""
  return np.ones(np.shape(label), bool) if known is None else np.asarray(known, bool)


def _roc(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """False and true positive rates over the distinct scores, from (0, 0) to (1, 1)."""
  order = np.argsort(-score)
  ranked, hit = score[order], label[order]
  cut = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
  true, false = np.cumsum(hit)[cut], np.cumsum(~hit)[cut]
  return np.append(0, false / false[-1]), np.append(0, true / true[-1])


def roc_curves(
    label, score, known, label_names: Sequence[str], path, title: str = "ROC curves") -> None:
  """The ROC curve of each label and their mean, with the areas in the legend.

  Labels without positives or without negatives have no curve and are listed.

  Args:
    label: [N, L], 0 or 1.
    score: [N, L], any finite numbers.
    known: [N, L] bool or None.
    label_names: L names.
    path: the PNG file.
    title: of the figure.

  Raises:
    ValueError: arrays as `metrics.roc_auc` refuses them.
  """
  label, score, known = np.asarray(label, bool), np.asarray(score), known_or_all(known, label)
  area = metrics.roc_auc(label, score, known)
  drawn = np.argsort(-np.nan_to_num(area, nan=-1), kind="stable")[:np.isfinite(area).sum()]
  columns = max(1, -(-min(len(drawn), MOST_BARS) // 22))
  width = 6.4 + 2.6 * columns
  figure = new_figure(width, 6.6)
  axes = figure.add_axes((0.7 / width, 0.09, 5.5 / width, 5.5 / 6.6))
  axes.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle=":")
  at, mean = np.linspace(0, 1, 201), np.zeros(201)
  for place, i in enumerate(drawn):
    false, true = _roc(label[known[:, i], i], score[known[:, i], i])
    mean += np.interp(at, false, true) / len(drawn)
    # Labels of one colour differ in the kind of line.
    name = f"{100 * area[i]:.1f}  {shorten(label_names[i], 22)}"
    axes.plot(100 * false, 100 * true, color=LINES[place % 6], linewidth=1.1, alpha=0.8,
              linestyle=("-", "--", ":", "-.")[place // 6 % 4],
              label=name if place < MOST_BARS else None)
  if len(drawn):
    mean[0] = 0
    axes.plot(100 * at, 100 * mean, color="black", linewidth=2.5,
              label=f"{100 * area[drawn].mean():.1f}  mean of {len(drawn)}")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), ncols=columns, frameon=False,
                fontsize=9, title="area under the curve (%)", alignment="left", borderaxespad=0)
  missing = [shorten(label_names[i], 22) for i in np.flatnonzero(np.isnan(area))]
  if missing:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    axes.text(98, 2, "no curve: " + ", ".join(missing[:3]) + more, ha="right", color=GREY,
              fontsize=9)
  axes.set(xlim=(0, 100), ylim=(0, 101), xlabel="false positive rate (%)",
           ylabel="true positive rate (%)")
  axes.set_title(title, fontsize=13, fontweight="bold")
  plain(axes, "both")
  save(figure, path)


MARKS = {  # (decided, true) -> mark, colour, name in the legend
    (True, True): ("✓", "#007A5A", "found"),
    (True, False): ("✗", "#C0391B", "false alarm"),
    (False, True): ("○", "#B87700", "missed"),
}
UNSPECIFIED = ("?", "#777777", "predicted, not specified")


def _notes(label, known, score, names, threshold, most: int) -> list[tuple[str, str, str, str]]:
  """(mark, colour, name, percent) of one image: what is predicted or true.

  The surest `most` ones are kept; sure is how far a score lies from the threshold.
  """
  rows = []
  for i, name in enumerate(names):
    decided = bool(score[i] >= threshold[i])
    if known[i] and (decided or label[i]):
      mark, color, _ = MARKS[decided, bool(label[i])]
    elif not known[i] and decided:
      mark, color, _ = UNSPECIFIED
    else:
      continue
    rows.append((abs(score[i] - threshold[i]), mark, color, name, f"{100 * score[i]:.0f}"))
  marks = [m for m, _, _ in (*MARKS.values(), UNSPECIFIED)]
  kept = sorted(rows, key=lambda row: -row[0])
  if len(kept) > most:
    kept = kept[:most - 1]
  kept.sort(key=lambda row: (marks.index(row[1]), -row[0]))
  notes = [row[1:] for row in kept]
  if len(rows) > len(kept):
    notes.append(("", "#777777", f"+{len(rows) - len(kept)} more", ""))
  return notes or [("", "#777777", "none predicted, none true", "")]


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """The image uint8 [H, W, 3] as [height, width, 3] for size = (width, height) in pixels, without aliasing."""
  shrinks = size[0] < image.shape[1] or size[1] < image.shape[0]
  return cv2.resize(np.ascontiguousarray(image), size,
                    interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def mark_legend(axes, x: float, y: float, marks: Sequence[tuple[str, str, str]]) -> None:
  """Writes (mark, colour, name) side by side from (x, y) on; the axes' units are the figure's pixels."""
  for mark, color, name in marks:
    text = axes.text(x, y, f"{mark} {name}", color=color, fontsize=9.5, fontfamily=FONT, va="top")
    x = text.get_window_extent().x1 + 22


def contact_sheet(
    images, label, known, score, label_names: Sequence[str], path, threshold=0.5,
    columns: int = 4, title: str = "Predictions") -> None:
  """A grid of images, each with what the model found, missed and made up.

  Green ticks are found labels, red crosses false alarms, orange rings missed ones,
  grey question marks predictions that nobody labelled; the number is the score in
  %. Rightly absent labels are not listed. An image that has more than ten such
  labels shows those farthest from the threshold, and how many others there are.

  Args:
    images: N images uint8 [H, W, 3], RGB, of any sizes.
    label: [N, L], 0 or 1.
    known: [N, L] bool or None.
    score: [N, L] probabilities.
    label_names: L names.
    path: the PNG file.
    threshold: a number or [L].
    columns: images side by side.
    title: of the sheet.

  Raises:
    ValueError: no images, or numbers of images, labels and scores that differ.
  """
  label, score, known = np.asarray(label), np.asarray(score, float), known_or_all(known, label)
  if not len(images) == len(label) == len(score) == len(known) or not len(images):
    raise ValueError(f"{len(images)} images, {len(label)} labels, {len(score)} scores")
  threshold = np.broadcast_to(threshold, (len(label_names),))
  # All in pixels: an image takes at most 180 x 200, its notes stand to the right.
  high, text, gap, head, line = 200, 240, 14, 62, 20
  scales = [min(180 / image.shape[1], high / image.shape[0]) for image in images]
  wide = max(round(scale * image.shape[1]) for scale, image in zip(scales, images))
  columns = min(columns, len(images))
  rows = -(-len(images) // columns)
  width, height = columns * (wide + text + gap) + gap, rows * (high + gap) + gap + head
  sheet = np.full((height, width, 3), 255, np.uint8)
  figure = new_figure(width / 100, height / 100, dpi=100)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, width), ylim=(height, 0))
  axes.axis("off")
  for n, (image, scale) in enumerate(zip(images, scales)):
    row, column = divmod(n, columns)
    x, y = gap + column * (wide + text + gap), head + gap + row * (high + gap)
    size = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
    sheet[y:y + size[1], x:x + size[0]] = resized(image, size)
    x += size[0] + 8
    for i, (mark, color, name, percent) in enumerate(
        _notes(label[n], known[n], score[n], label_names, threshold, most=high // line)):
      style = dict(color=color, fontsize=9.5, fontfamily=FONT, va="top")
      axes.text(x, y + i * line, mark, **style)
      # A figure space is as wide as a digit.
      note = f"{percent:\u2007>2}  {shorten(name, 24)}" if percent else name
      axes.text(x + 17 * bool(mark), y + i * line, note, **style)
  figure.figimage(sheet, origin="upper", zorder=-1)  # pixel by pixel, below the notes
  axes.text(gap, 10, title, fontsize=13, fontweight="bold", fontfamily=FONT, va="top", color=INK)
  mark_legend(axes, gap, 40, (*MARKS.values(), UNSPECIFIED))
  save(figure, path)
