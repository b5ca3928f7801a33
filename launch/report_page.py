"""The report of `launch/report.py` as one HTML file that needs nothing else: tables, curves, bars, attention pictures."""

import base64
from collections.abc import Mapping, Sequence
import html
import io
import itertools
import pathlib
import re

import cv2
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from attr_jax import pictures
import report_tables
import results

PICTURES = ("attention", "heatmap", "masks", "steps", "region-weights")  # in the names of pictures that show where a model looks
PICTURES_PER_ROW = 2
_MOST_WIDTH = 1100  # pixels of an embedded picture
_PANELS = 4  # rows of bars side by side
_DASHES = ("-", "--", ":")

_STYLE = """
:root { --ink: #222; --grey: #767676; --line: #ddd; --pale: #f5f6f8; --blue: #0072B2; --warm: #fff6e0; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 32px 64px; color: var(--ink); background: white;
       font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 44px 0 8px; padding-top: 16px; border-top: 2px solid var(--ink); }
h3 { font-size: 16px; margin: 26px 0 8px; }
nav a { display: inline-block; margin: 0 18px 4px 0; }
a { color: var(--blue); }
.count, .legend { color: var(--grey); }
.caveat { background: var(--warm); border-left: 4px solid #E69F00; padding: 8px 14px; margin: 10px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 4px 0; }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; }
th { font-weight: 600; border-bottom: 1px solid var(--ink); white-space: normal; vertical-align: bottom; }
th.group { text-align: center; border-bottom: 1px solid var(--line); }
th:first-child, td.row, td.name { text-align: left; }
td.row { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; }
tr.first td { border-top: 1px solid var(--line); }
td.begins, th.begins { border-left: 1px solid var(--line); padding-left: 16px; }
td.ours { font-weight: 600; }
td[title] { text-decoration: underline dotted #aaa; text-underline-offset: 4px; cursor: help; }
td.difference { color: var(--blue); }
td.absent { color: var(--grey); font-style: italic; }
details { margin: 14px 0; background: var(--pale); border-radius: 6px; padding: 8px 14px; }
summary { cursor: pointer; font-weight: 600; }
details td, details th { text-align: left; font-size: 13px; padding: 3px 8px; }
details td.number { text-align: right; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; white-space: normal; }
ul { padding-left: 20px; }
li { margin: 2px 0; }
img { max-width: 100%; height: auto; display: block; margin: 8px 0; }
figure { margin: 18px 0; }
figcaption { color: var(--grey); font-size: 13px; }
"""


def page(tables: Sequence[report_tables.Table]) -> str:
  """The whole file."""
  links = "".join(f'<a href="#{_escaped(table.file)}">{_escaped(table.title)}</a>' for table in tables)
  body = "\n".join(_section(table) for table in tables)
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>attr_jax: runs beside the papers</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Runs beside the papers</h1>
<p class="legend">{_escaped(report_tables.LEGEND)} Hold the pointer over a figure to see the runs that it comes from; below each table
they are listed.</p>
<nav>{links}</nav>
{body}
</body>
</html>
"""


def curves(table: report_tables.Table) -> Figure | None:
  """Loss and validation metric over the steps: a thin line for each run, a thick one for the mean of a row; None without any."""
  panels = {"loss": ("step", "loss"), "val": ("val_step", "val")}
  shown = {name: keys for name, keys in panels.items()
           if any(record.curves.get(keys[1]) for runs in table.runs.values() for record in runs)}
  if not shown:
    return None
  figure = pictures.new_figure(11, 3.9)
  for axes, (panel, keys) in zip(figure.subplots(1, len(shown), sharex=True, squeeze=False)[0], shown.items()):
    scale = 100 if panel == "val" else 1
    for (row, runs), (dash, colour) in zip(table.runs.items(), itertools.cycle(itertools.product(_DASHES, pictures.LINES))):
      name = pictures.shorten(row, 28)
      lines = [np.array([record.curves[keys[0]], record.curves[keys[1]]], float) for record in runs if record.curves.get(keys[1])]
      if lines:
        # A curve of one point would not be seen.
        mark = dict(marker="o", markersize=4) if any(line.shape[1] == 1 for line in lines) else {}
        style, averaged = dict(color=colour, linestyle=dash, **mark), not report_tables.unlike(runs)
        for i, line in enumerate(lines if len(lines) > 1 or not averaged else ()):
          axes.plot(line[0], scale * line[1], linewidth=0.8, alpha=0.45, label=None if i or averaged else f"{name}, no mean", **style)
        if averaged:
          axes.plot(*_mean_curve(lines, scale), linewidth=2, label=name, **style)
    axes.set_xlabel("step")
    axes.set_title("training loss" if panel == "loss" else f"validation, % ({_selected_on(table)})", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    pictures.plain(axes, "both")
  handles = axes.get_legend_handles_labels()
  columns = min(4, len(handles[0]))
  figure.legend(*handles, loc="lower center", ncols=columns, frameon=False, fontsize=9)
  figure.tight_layout(rect=(0, 0.03 + 0.055 * -(-len(handles[0]) // columns), 1, 1))
  return figure


def bars(table: report_tables.Table) -> Figure | None:
  """AP of each attribute, a panel for each row: mean over seeds, standard deviation, chance, the first row's mean; None without any."""
  rows = {row: runs for row, runs in table.runs.items() if any(record.per_attribute for record in runs) and not report_tables.unlike(runs)}
  if not rows:
    return None
  names = list(dict.fromkeys(name for runs in rows.values() for record in runs for name in record.per_attribute))
  title = "Average precision of each attribute"
  if len(names) > pictures.MOST_BARS:
    title += f", the first {pictures.MOST_BARS} of {len(names)}"
    names = names[:pictures.MOST_BARS]
  deep = -(-len(rows) // _PANELS)
  columns = -(-len(rows) // deep)
  # In inches: the names of the attributes, the panels, and what stands above and below them.
  figure = pictures.new_figure(max(6.5, 1.6 + 2.35 * columns), deep * (0.24 * len(names) + 0.75) + 0.7)
  grid = figure.subplots(deep, columns, sharex=True, sharey=True, squeeze=False).ravel()
  y, first = np.arange(len(names)), None
  for axes, (row, runs) in zip(grid, rows.items()):
    key = report_tables.attribute_key(report_tables.convention(table, row))
    each = [[record.per_attribute.get(name, {}) for record in runs] for name in names]
    values = [[report_tables.finite(one.get(key)) for one in of_name] for of_name in each]
    known = [[100 * value for value in of_name if value is not None] for of_name in values]
    mean = np.array([np.mean(one) if one else np.nan for one in known])
    spread = np.array([np.std(one, ddof=1) if len(one) > 1 else 0.0 for one in known])
    chance = np.array([_mean(report_tables.chances(of_name)) for of_name in each])
    axes.barh(y, np.nan_to_num(mean), height=0.66, color=pictures.SKY, label="mean over seeds")
    if (at := spread > 0).any():
      axes.errorbar(mean[at], y[at], xerr=spread[at], fmt="none", ecolor=pictures.INK, elinewidth=1, capsize=2.5,
                    label="standard deviation")
    axes.plot(100 * chance, y, linestyle="", marker="D", markersize=4, color=pictures.INK, clip_on=False, label="chance")
    if first is None:
      first = row, mean
    else:
      axes.plot(first[1], y, linestyle="", marker="|", markersize=11, markeredgewidth=1.8, color=pictures.RED,
                label=f"the mean of {pictures.shorten(first[0], 24)}")
    for place, of_name in zip(y, values):
      if None in of_name:
        text = "no positives" if chance[place] == 0 else f"missing in {of_name.count(None)} of {len(of_name)}"
        axes.text(98, place, text, ha="right", va="center_baseline", color=pictures.GREY, style="italic", fontsize=8)
    axes.set_title(f"{pictures.shorten(row, 24)} (n={len(runs)})", fontsize=10)
    axes.set_xlim(0, 100)
    axes.tick_params(labelbottom=True, labelsize=9)
    pictures.plain(axes, "x")
  for axes in grid[len(rows):]:
    axes.set_axis_off()
  grid[0].set_yticks(y, [pictures.shorten(name, 22) for name in names])
  grid[0].set_ylim(len(names) - 0.4, -0.6)
  for axes in grid:
    axes.tick_params(axis="y", labelsize=9)
  handles = {text: handle for axes in grid for handle, text in zip(*axes.get_legend_handles_labels())}
  high = figure.get_figheight()
  figure.suptitle(f"{title} (%)", y=1 - 0.1 / high, va="top", fontsize=12, fontweight="bold")
  figure.legend(handles.values(), handles, loc="lower center", ncols=4, frameon=False, fontsize=9)
  figure.tight_layout(rect=(0, 0.35 / high, 1, 1))
  return figure


def attention(record: results.Record) -> list[pathlib.Path]:
  """Pictures of where the model looks, one of each kind, if the run's folder is still there; of the full view where there is one."""
  there = sorted(pathlib.Path(record.run).glob("pictures/*.png"), key=lambda path: ("-full-" not in path.name, path.name))
  of_kind = ([path for path in there if kind in path.stem] for kind in PICTURES)
  return [paths[0] for paths in of_kind if paths][:PICTURES_PER_ROW]


def _section(table: report_tables.Table) -> str:
  parts = [f'<section id="{_escaped(table.file)}">', f"<h2>{_escaped(table.title)}</h2>", f'<p class="count">{_escaped(table.count())}</p>']
  parts += [f'<p class="caveat">{_escaped(sentence)}</p>' for sentence in report_tables.caveats(table)]
  parts += [_sheet(sheet) for sheet in report_tables.sheets(table)]
  if notes := report_tables.notes(table):
    listed = "".join(f"<li><code>{_escaped(row)}</code>: {_escaped(note)}</li>" for row, note in notes.items())
    parts.append(f"<h3>Notes of the rows</h3><ul>{listed}</ul>")
  parts.append(_provenance(table))
  for figure, alt in ((curves(table), "loss and validation metric over the steps"), (bars(table), "average precision of each attribute")):
    if figure:
      parts.append(f"<figure>{_image(_png(figure), f'{table.title}: {alt}')}</figure>")
  for row, runs in table.runs.items():
    found = next(((record, paths) for record in runs if (paths := attention(record))), None)
    for path in found[1] if found else ():
      if image := _downscaled(path):
        caption = f"{row}, seed {found[0].seed}: {path.stem}"
        parts.append(f"<figure>{_image(image, caption)}<figcaption>{_escaped(caption)}</figcaption></figure>")
  return "\n".join([*parts, "</section>"])


def _sheet(sheet: report_tables.Sheet) -> str:
  begins = [bool(group) and name == "paper" for group, name in sheet.head]
  groups = [(group, len(list(members))) for group, members in itertools.groupby(group for group, _ in sheet.head)]
  lines = []
  if any(group for group, _ in groups):
    lines.append([_tag("th", group, css="group" + " begins" * bool(group), colspan=span) for group, span in groups])
  lines.append([_tag("th", name, css="begins" * first) for first, (_, name) in zip(begins, sheet.head)])
  head = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
  body = []
  for line in sheet.lines:
    cells = "".join(_tag("td", cell.text, css=cell.kind + " begins" * first, title=cell.source) for first, cell in zip(begins, line))
    body.append(f"<tr{' class=first' * (line[0].kind == 'row')}>{cells}</tr>")
  return (f"<h3>{_escaped(sheet.caption)}</h3>" if sheet.caption else "") + _html_table(head, "".join(body))


def _html_table(head: str, body: str) -> str:
  return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _tag(name: str, text: object, css: str = "", **attributes: object) -> str:
  """An element around the text; attributes that are empty are left out. A long name in a head may break behind "_" and "/"."""
  inside = re.sub("(?<=[_/])", "<wbr>", _escaped(text)) if name == "th" else _escaped(text)
  set_ = {key: value for key, value in ({"class": css} | attributes).items() if value}
  return f"<{name}" + "".join(f' {key}="{_escaped(value)}"' for key, value in set_.items()) + f">{inside}</{name}>"


def _provenance(table: report_tables.Table) -> str:
  """Facts of each row, and a line for each run with its figures."""
  common, each = report_tables.provenance(table)
  if not each:
    return ""
  items = ([("all rows", common)] if common else []) + list(each.items())
  listed = "".join(f"<li><b>{_escaped(row)}</b>: {_facts(facts)}</li>" for row, facts in items)
  columns = [(view, metric) for view, metrics in report_tables.paper_metrics(table).items() for metric in metrics]
  several = len({view for view, _ in columns}) > 1
  named = [metric + f", {report_tables.spoken(view)}" * several for view, metric in columns]
  head = ["row", "seed", *named, "step", "chosen by", "commit", "folder"]
  lines = []
  for row, runs in table.runs.items():
    values = [report_tables.figures_of(table, row, view, metric) for view, metric in columns]
    for i, record in enumerate(runs):
      figures = [_tag("td", report_tables.percent(of_metric[i:i + 1]) if of_metric else "-", css="number") for of_metric in values]
      rest = (f"{record.step:,} of {record.steps:,}", record.selected_on, record.commit[:12] or "unknown", record.run)
      lines.append("".join(["<tr>", _tag("td", row), _tag("td", record.seed), *figures, *(_tag("td", text) for text in rest), "</tr>"]))
  runs = _html_table("<tr>" + "".join(_tag("th", name) for name in head) + "</tr>", "".join(lines))
  return f"<details><summary>Where the figures come from: {_escaped(table.count())}</summary><ul>{listed}</ul>{runs}</details>"


def _facts(facts: Mapping[str, str]) -> str:
  """Without the folders, which the table below has."""
  return "; ".join(f"<code>{_escaped(text)}</code>" if key == "command" else _escaped(text) for key, text in facts.items() if key != "run")


def _selected_on(table: report_tables.Table) -> str:
  """ "mAP on val", of all runs that have a curve. """
  return ", ".join(dict.fromkeys(record.selected_on for runs in table.runs.values() for record in runs if record.curves.get("val")))


def _mean(values: Sequence[float | None]) -> float:
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if known else np.nan


def _mean_curve(lines: Sequence[np.ndarray], scale: float) -> tuple[np.ndarray, np.ndarray]:
  """Of [2, n] each: over the steps of all of them, as far as every one reaches; in between they are straight."""
  steps = np.unique(np.concatenate([line[0] for line in lines]))
  steps = steps[(steps >= max(line[0, 0] for line in lines)) & (steps <= min(line[0, -1] for line in lines))]
  return steps, scale * np.mean([np.interp(steps, *line) for line in lines], axis=0)


def _png(figure: Figure) -> bytes:
  file = io.BytesIO()
  figure.savefig(file, format="png")
  return file.getvalue()


def _downscaled(path: pathlib.Path) -> bytes | None:
  """The picture as JPEG, for photos are large as PNG, and at most _MOST_WIDTH wide; None where it cannot be read."""
  image = cv2.imread(str(path))
  if image is None:
    return None
  height, width = image.shape[:2]
  if width > _MOST_WIDTH:
    image = pictures.resized(image, (_MOST_WIDTH, round(height * _MOST_WIDTH / width)))
  return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _image(data: bytes, alt: str) -> str:
  kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
  return f'<img alt="{_escaped(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _escaped(text: object) -> str:
  return html.escape(str(text), quote=True)
