"""Parts of a page that a program writes: tables, between two markers."""

from collections.abc import Callable, Iterable, Sequence
import re

from attr_jax.errors import InputError


def rewritten(text: str, page: str, start: re.Pattern[str], end: str, body_of: Callable[[str], str]) -> str:
  """The text of a page whose marked parts are written anew.

  Args:
    text: of the page.
    page: its name, for errors.
    start: what a part begins with; its first group names the part.
    end: what it ends with.
    body_of: name of a part -> what stands between the two.

  Raises:
    InputError: a part without an end.
  """
  done, rest = "", text
  while match := start.search(rest):
    body, found, after = rest[match.end():].partition(end)
    if not found or start.search(body):
      raise InputError(f"{page}: no {end!r} after {match[0]!r}")
    done += rest[:match.end()] + body_of(match[1]) + end
    rest = after
  return done + rest


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
  """Markdown, cells as they are."""
  return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))
