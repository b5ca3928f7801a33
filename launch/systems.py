"""The table of the systems in the README: what each is, the command that trains it small, and what a run of that printed, read from its file."""

import json
import math
import pathlib
from typing import NamedTuple

import page_parts
import results

_NAMES = {"sample_F2": "F2", "region_mIoU": "IoU of regions", "mask_IoU": "IoU of masks"}  # others are called as they are


class System(NamedTuple):
  """A row.

  Attributes:
    name: for people.
    paper: author and year.
    config: argument of --config.
    file: report of a run in docs/results, with "#key" where a file holds several.
    metric: of it.
    on: what it was measured on.
  """

  name: str
  paper: str
  config: str
  file: str
  metric: str
  on: str


SYSTEMS = (
    System("ResNet-18 to 101 with BCE, inverse-ratio, exp-ratio or mixed loss", "row 0 of all", "baseline.py:dataset=pa100k,small",
           "pa100k-part.json", "mA", "200 of PA-100K's photos"),
    System("SRN, as printed and as released, four stages", "Zhu 2017", "srn.py:world,small", "srn-people.json", "mAP", "drawn people"),
    System("DIAA, as printed and as released, three stages, prediction history", "Sarafianos 2018", "diaa.py:world,small",
           "diaa-people.json", "mAP", "drawn people"),
    System("Da-HAR, designs A and B, each part on its own flag", "Wu 2020", "dahar.py:world,small", "dahar-people.json", "mAP",
           "drawn people, 128x72"),
    System("its person segmenter", "Wu 2020", "person_segmenter.py:world,small", "segmenter-people.json", "mask_IoU",
           "drawn people"),
    System("VAC: flip, scale, rotation, translation", "Guo 2019", "vac.py:ablation/r50_acfs,world,small", "vac-acfs-people.json", "mAP",
           "drawn people"),
    System("face parser", "Kalayeh 2017", "face.py:system=parser,world,small", "face-parser-faces.json", "region_mIoU", "drawn faces"),
    System("Basic, SSP, SSG, SPPNet*, Naive, BBox, joint training", "Kalayeh 2017", "face.py:system=ssp,world,small,annotation=regions",
           "face-ssp-faces.json", "mAP", "drawn faces, SSP"),
    System("AttnCNN-RNN and ResNet50, each with HOG too, six views, beam search; the decoder after Chen et al. 2018", "Tang 2019",
           "attncnn_rnn.py:system=attncnn_rnn,world,small", "artworks-systems.json#attncnn_rnn", "sample_F2", "drawn artworks"),
)


def table() -> str:
  """Markdown."""
  lines = []
  for one in SYSTEMS:
    file = one.file.partition("#")[0]
    figure = f"{_NAMES.get(one.metric, one.metric)} [{100 * _figure(one):.1f}](docs/results/{file}), {one.on}"
    lines.append((one.name, one.paper, f"`{one.config}`", figure))
  return page_parts.table(("system", "paper", "config, in `configs/`", "one run of it"), lines)


def _figure(one: System) -> float:
  file, _, key = one.file.partition("#")
  report = json.loads((results.REPOSITORY / "docs" / "results" / file).read_text())
  return float((report[key] if key else report)["metrics"].get(one.metric, math.nan))
