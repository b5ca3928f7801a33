"""All comparisons of the claims in one picture: what the papers say lies to the right of the line."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import NamedTuple

from attr_jax import pictures
from attr_jax.errors import InputError
from claims import VERDICTS

_COLOURS = dict(zip(VERDICTS, (pictures.BLUE, pictures.RED, "#777777")))
_ROW, _HEAD = 0.27, 0.7  # inches: of a comparison, of a claim's title and axis
_AXIS, _LETTER = 3.3, 0.075  # inches


class Line(NamedTuple):
  """One comparison.

  Attributes:
    says: the paper's statement.
    measured: what was compared.
    difference: in points, positive where the paper is right.
    low: lower end of the 95 % interval.
    high: upper end.
    verdict: one of VERDICTS.
  """

  says: str
  measured: str
  difference: float
  low: float
  high: float
  verdict: str


def draw(claims: Mapping[str, Sequence[Line]], path: pathlib.Path) -> None:
  """Writes a PNG: a panel per claim (title -> comparisons), each with a scale of its own, and a row per comparison.

  Raises:
    InputError: there is none.
  """
  claims = {title: lines for title, lines in claims.items() if lines}
  if not claims:
    raise InputError("no comparison has two runs of both arms yet")
  left = 0.15 + _LETTER * max(len(line.says) for lines in claims.values() for line in lines)
  right = _LETTER * max(len(line.measured) for lines in claims.values() for line in lines)
  width = left + _AXIS + right
  heights = [_ROW * len(lines) + _HEAD for lines in claims.values()]
  whole = sum(heights) + 0.2
  figure = pictures.new_figure(width, whole)
  top = sum(heights)
  for (title, lines), height in zip(claims.items(), heights):
    top -= height
    axes = figure.add_axes((left / width, (top + 0.45) / whole, _AXIS / width, _ROW * len(lines) / whole))
    for at, line in enumerate(lines):
      colour = _COLOURS[line.verdict]
      axes.plot([line.low, line.high], [at, at], color=colour, linewidth=2, solid_capstyle="butt")
      axes.plot(line.difference, at, "o", color=colour, markersize=6)
      axes.annotate(line.measured, (1, at), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center",
                    fontsize=8.5, color="#555555")
    axes.axvline(0, color=pictures.INK, linewidth=1)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), [line.says for line in lines], fontsize=9)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", x=(0.1 - left) / _AXIS)
    axes.tick_params(axis="both", length=0, labelsize=9)
    pictures.plain(axes, "x")
  for i, (verdict, colour) in enumerate(_COLOURS.items()):
    figure.text((0.15 + 2.6 * i) / width, 0.06 / whole, f"● {verdict}", color=colour, fontsize=9.5)
  pictures.save(figure, path)
