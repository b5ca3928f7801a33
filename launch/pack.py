"""Trains the runs of several folders, which a grid has prepared, together: `python launch/pack.py FOLDER FOLDER ...`."""

import pathlib
import sys

from attr_jax import cli
from attr_jax.errors import InputError
import grid


def main() -> None:
  cells = [grid.read_cell(pathlib.Path(folder)) for folder in sys.argv[1:]]
  cli._start_jax()
  from attr_jax import packed

  packed.train_pack([cell.load() for cell in cells], [cell.workdir for cell in cells])


if __name__ == "__main__":
  try:
    main()
  except InputError as error:
    print(f"pack: {error}", file=sys.stderr)
    sys.exit(2)
