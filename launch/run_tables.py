"""The tables of docs/results.md: figures of single runs, read from their reports in docs/results."""

from collections.abc import Mapping
import functools
import json
import operator
from typing import NamedTuple

import page_parts
import results


class Column(NamedTuple):
  """`path`: keys of a report; what stands there is shown times `factor`."""

  title: str
  path: tuple[str, ...]
  factor: float = 100.0


class RunTable(NamedTuple):
  """`rows`: for people -> (file in docs/results, keys in it that lead to the report)."""

  head: str
  rows: Mapping[str, tuple[str, ...]]
  columns: tuple[Column, ...]


def _metrics(**titles: str) -> tuple[Column, ...]:
  """Columns of a report's metrics, metric=title."""
  return tuple(Column(title, ("metrics", name)) for name, title in titles.items())


_SHARE = {"mean_positive_share": "mean positive share"}
_SYSTEMS = {"ResNet, one threshold of val": "baseline", "ResNet + HOG, one threshold of val": "hog", "AttnCNN-RNN": "attncnn_rnn",
            "AttnCNN-RNN + HOG": "attncnn_rnn_hog"}
_SETS = {
    "the truth": ("baseline", "the truth"),
    "ResNet, one threshold": ("baseline", "one threshold"),
    "ResNet, a threshold per label": ("baseline", "a threshold per label"),
    "ResNet + HOG, one threshold": ("hog", "one threshold"),
    "ResNet + HOG, a threshold per label": ("hog", "a threshold per label"),
    **{f"{system}, decoder, {rule}": (key, f"decoder, {rule}")
       for system, key in (("AttnCNN-RNN", "attncnn_rnn"), ("AttnCNN-RNN + HOG", "attncnn_rnn_hog"))
       for rule in ("factor 2.5", "factor of val", "plain threshold")},
}
_REGIONS = ("background", "hair", "face skin", "eyes", "eyebrows", "mouth", "nose")

TABLES = {
    "quickstart": RunTable(
        "test, full view", {"tiny trunk, 10 epochs on 4,500 boxes": ("quickstart.json",)},
        _metrics(mAP="mAP", **_SHARE, mA="mA", F1="F1", **{"F1-C": "F1-C", "F1-O": "F1-O"})),
    "pa100k": RunTable(
        "test, 200 photos", {"tiny trunk, inverse-ratio loss, 20 epochs": ("pa100k-part.json",)},
        _metrics(mA="mA", mAP="mAP", **_SHARE, F1="F1")),
    "srn-diaa": RunTable(
        "test, full view", {"SRN, tiny trunk, 20 epochs on 4,500 boxes": ("srn-people.json",),
                            "DIAA, tiny trunk, 20 epochs on 4,500 boxes": ("diaa-people.json",)},
        _metrics(mAP="mAP", **_SHARE, mA="mA", F1="F1")),
    "vac": RunTable(
        "test, full view", {"flips as augmentation alone (row `ablation/r50_f`)": ("vac-baseline-people.json",),
                            "ACfs, both weights 1 as in the paper (row `ablation/r50_acfs`)": ("vac-acfs-people.json",)},
        _metrics(flip_error="flip error", scale_error="scale error", mAP="mAP", mA="mA")),
    "dahar": RunTable(
        "test, full view", {"tiny trunk, design A, 10 epochs on 4,500 boxes": ("dahar-people.json",)},
        _metrics(mask_IoU="mask IoU", mAP="mAP", **_SHARE, mA="mA", F1="F1")),
    "parser": RunTable(
        "100 test photos", {"an eighth of the channels, 1,500 steps": ("face-parser-faces.json",)},
        (*_metrics(**{f"region_IoU/{name}": name for name in _REGIONS}), *_metrics(region_mIoU="mean"))),
    "ssp": RunTable(
        "400 test faces", {"average pooling": ("face-basic-faces.json",), "SSP": ("face-ssp-faces.json",)},
        _metrics(mAP="mAP", classification_error="classification error", balanced_accuracy="balanced accuracy")),
    "artworks": RunTable(
        "test, six views", {name: ("artworks-systems.json", key) for name, key in _SYSTEMS.items()},
        (*_metrics(sample_F2="F2", sample_F1="F1", sample_P="P", sample_R="R", **{"micro_ROC-AUC": "micro ROC-AUC"}),
         Column("F2 of cultures", ("per_group", "culture", "sample_F2")), Column("F2 of tags", ("per_group", "tag", "sample_F2")))),
    "sets": RunTable(
        "sets", {name: ("artworks-sets.json", f"art_{key}", rule) for name, (key, rule) in _SETS.items()},
        (Column("F2", ("F2",)), Column("P", ("P",)), Column("R", ("R",)), Column("labels per picture", ("labels",), 1.0),
         Column("impossible pairs, %", ("impossible_pairs",)))),
}


def table(name: str) -> str:
  """Markdown of one of TABLES; KeyError where a file has no such figure."""
  shown = TABLES[name]
  lines = []
  for label, (file, *keys) in shown.rows.items():
    report = _at(json.loads((results.REPOSITORY / "docs" / "results" / file).read_text()), keys)
    lines.append((label, *(f"{column.factor * _at(report, column.path):.1f}" for column in shown.columns)))
  return page_parts.table((shown.head, *(column.title for column in shown.columns)), lines)


def _at(tree, keys):
  return functools.reduce(operator.getitem, keys, tree)
