"""The table of docs/export.md: how far each system's files are from the system, read from the file of `export_check.py`."""

from collections.abc import Mapping
import json
from typing import Any

import page_parts
import results

FILE = "docs/results/export-check.json"
_FORMATS = {"stablehlo": "StableHLO", "onnx": "ONNX"}


def table() -> str:
  """Markdown; the larger of the two differences, on random images and on cuts of photos."""
  found = json.loads((results.REPOSITORY / FILE).read_text())["systems"]
  lines = [(name, *(_cell(formats.get(kind)) for kind in _FORMATS)) for name, formats in found.items()]
  return page_parts.table(("system", *_FORMATS.values()), lines)


def _cell(entry: Mapping[str, Any] | None) -> str:
  if entry is None:
    return "not run"
  if "refused" in entry:
    return "no"
  return f"{max(entry['random_difference'], entry['real_difference']):.0e}".replace("e-0", "e-")
