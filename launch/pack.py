"""Trains the runs of several folders, which a grid has prepared, as one program; `--choose` only prints which of them should.

  python launch/pack.py FOLDER FOLDER ...
"""

import json
import pathlib
import sys

from attr_jax import cli
from attr_jax.errors import InputError
import grid


def main(arguments: list[str]) -> None:
  folders = [argument for argument in arguments if argument != "--choose"]
  cells = [grid.read_cell(pathlib.Path(folder)) for folder in folders]
  cli._start_jax()
  from attr_jax import packed

  configs = [cell.load() for cell in cells]
  if "--choose" in arguments:
    print(json.dumps(packed.choose(configs)))
  else:
    packed.train_pack(configs, [cell.workdir for cell in cells])


if __name__ == "__main__":
  try:
    main(sys.argv[1:])
  except InputError as error:
    print(f"pack: {error}", file=sys.stderr)
    sys.exit(2)
