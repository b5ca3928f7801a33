"""Tables from runs: every cell against figures computed here, the files that come out, and that the pages' tables are what the records say.

The figures of the records are made up.
"""

import csv
import dataclasses
from html import parser
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import evaluate
from attr_jax import run_folder
from attr_jax import train
from attr_jax.data import info as info_lib
from attr_jax.errors import InputError
from helpers import REPOSITORY
from helpers import load

sys.path.insert(0, str(REPOSITORY / "launch"))
import export_table
import report
import report_page
import report_tables
import results
import run_tables
import systems

ROWS = ("baseline", "all")
MADE_UP = {  # row -> view -> mAP of each seed, fractions
    "baseline": {"five_crop": (0.701, 0.712, 0.699), "full": (0.7204, 0.7311, 0.7159)},
    "all": {"five_crop": (0.755, 0.760, 0.748), "full": (0.771, 0.769, 0.788)},
}
WIDE = ("mAP", "mA", "F1-C", "P-C", "R-C", "F1-O", "P-O", "R-O")
TABLES = [f"{path.stem}:{table}" for path in sorted((REPOSITORY / "configs").glob("*.py")) if "TABLES" in path.read_text()
          for table in results.load_tables(path.stem).TABLES]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def record(row="baseline", seed=0, table="dahar:table3", **changes):
  """A finished run that never was."""
  figures = {view: values[seed] for view, values in MADE_UP.get(row, MADE_UP["all"]).items()}
  return results.Record(**{
      "table": table, "row": row, "variant": "", "seed": seed,
      "command": f"attr-jax train --config=configs/dahar.py:table3/{row} --config.seed={seed}",
      "run": f"runs/{row}/seed{seed}", "commit": "0123456789abcdef", "started": f"2026-01-01T00:00:0{seed}+00:00", "devices": "1 x cpu",
      "model": "dahar, depth 101", "data": "wider_attribute", "split": "test", "samples": 3600, "step": 1200, "steps": 1400,
      "selected_on": "mAP on val", "average_precision": "interpolated",
      # Other figures under the run's own convention: the row compares under "srn".
      "views": {view: {"native": {"mAP": 0.1, "mean_positive_share": 0.243}, "srn": {"mAP": value}} for view, value in figures.items()},
      "per_attribute": {"Male": {"AP": 0.5, "AP_interpolated": 0.9, "positives": 40, "negatives": 60},
                        "Hat": {"AP": None, "AP_interpolated": None, "positives": 0, "negatives": 100}},
      "curves": {"step": [1, 700, 1400], "loss": [3.0, 1.5, None], "val_step": [700, 1400], "val": [0.6, 0.7 + 0.01 * seed]},
  } | changes)


def records():
  return [record(row, seed) for row in ROWS for seed in range(3)]


def wide_record(row="r50", seed=0, **figures):
  values = {metric: 0.6 + 0.01 * i + 0.02 * seed for i, metric in enumerate(WIDE)} | figures
  return record(row, seed, "vac:ablation", model="vac, depth 50", views={"full": {"native": {"mAP": 0.1}, "vac": values}})


def table_of(*runs):
  table, = report_tables.group(runs)
  return table


def cells(text, row):
  """The cells of a row's line in Markdown."""
  line, = [line for line in text.splitlines() if line.startswith(f"| `{row}` |")]
  return [cell.strip() for cell in line.strip("|").split("|")]


def missing_full(one):
  """The record without its mAP of the full view."""
  return dataclasses.replace(one, views={**one.views, "full": {**one.views["full"], "srn": {"mAP": None}}})


def write_run(folder, one, finished=True):
  """What `results.read_run` needs, of a run that never was; its convention is native."""
  folder.mkdir(parents=True)
  config = cli.load_config(f"{REPOSITORY}/configs/quickstart.py:tiny", [f"--config.seed={one.seed}"])
  (folder / "config.json").write_text(config_lib.to_json(config))
  info = info_lib.DatasetInfo("people", "1.0.0", ("Male",), {"who": ("Male",)}, (0.5,), (1.0,), {"test": 3}, (8, 8), (8, 8), (0.5,) * 3,
                              (0.5,) * 3, "", "", False)
  (folder / "dataset.json").write_text(info.to_json())
  (folder / "environment.json").write_text(json.dumps(
      {"command": ["attr-jax", "train"], "commit": one.commit, "started": one.started, "devices": ["cpu:0"]}))
  (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "val/mAP": 0.5}\n')
  (folder / "evaluation").mkdir()
  (folder / "evaluation" / "test-full.json").write_text(json.dumps(
      {"num_samples": 3, "step": 2, "average_precision": "step", "metrics": {"mAP": 0.25}, "per_attribute": {}}))
  if finished:
    (folder / "DONE").write_text("now\n")


def test_cells_are_mean_sd_and_difference():
  text = report.markdown(table_of(*records()))
  printed = results.rows_of("dahar:table3")
  for row in ROWS:
    expected = [f"`{row}`"]
    for view in ("five_crop", "full"):
      values, paper = 100 * np.array(MADE_UP[row][view]), printed[row].paper[view]["mAP"]
      variance = sum((value - sum(values) / 3) ** 2 for value in values) / 2
      expected += [f"{paper:.1f}", f"{sum(values) / 3:.1f} ± {variance ** 0.5:.1f} (n=3)", f"{sum(values) / 3 - paper:+.1f}"]
    assert cells(text, row) == expected
  assert cells(text, "baseline") == ["`baseline`", "85.3", "70.4 ± 0.7 (n=3)", "-14.9", "86.2", "72.2 ± 0.8 (n=3)", "-14.0"]
  head = text[text.index("| row"):].splitlines()
  assert head[0] == "| row | mAP, five crops: paper | ours | difference | mAP, full view: paper | ours | difference |"
  assert [cells(line, line.split("`")[1])[0].strip("`") for line in head[2:9]] == list(printed)


def test_one_run_has_no_sd():
  assert cells(report.markdown(table_of(record())), "baseline")[1:4] == ["85.3", "70.1 (n=1)", "-15.2"]


def test_rows_without_runs():
  assert cells(report.markdown(table_of(*records())), "fusion") == ["`fusion`", "85.7", "not run", "-", "86.5", "not run", "-"]
  quoted = report.markdown(table_of(record("dahar", 0, "dahar:table1")))
  assert cells(quoted, "r_star_cnn") == ["`r_star_cnn`", "80.5", "quoted", "-"]
  assert r"- `r_star_cnn`: R\*CNN (ICCV 2015)" in quoted


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_a_missing_figure_is_said(absent):
  runs = records()
  runs[1] = dataclasses.replace(runs[1], views={**runs[1].views, "full": {"native": {}, "srn": {"mAP": absent}}})
  line = cells(report.markdown(table_of(*runs)), "baseline")
  assert line[2] == "70.4 ± 0.7 (n=3)"
  rest = 100 * np.array([MADE_UP["baseline"]["full"][seed] for seed in (0, 2)])
  assert line[5:] == [f"{rest.mean():.1f} ± {abs(rest[0] - rest[1]) / 2 ** 0.5:.1f} (n=2 of 3, missing: seed 1)", "-"]


def test_all_figures_missing():
  assert cells(report.markdown(table_of(*map(missing_full, records()[:3]))), "baseline")[5:] == ["missing (n=3)", "-"]
  view_absent = dataclasses.replace(record(), views={"full": record().views["full"]})
  assert cells(report.markdown(table_of(view_absent)), "baseline")[2:4] == ["missing (n=1)", "-"]


def test_unlike_runs_are_not_averaged():
  table = table_of(record(), record(seed=1, data="synthetic people"))
  assert cells(report.markdown(table), "baseline")[1:4] == ["85.3", "unlike runs", "-"]
  assert "> The runs of baseline differ in data and are not averaged." in report.markdown(table)
  assert "table3/baseline: runs differ, not averaged" in report.summary([table], [], pathlib.Path("out"))


def test_what_is_no_replication():
  assert report_tables.caveats(table_of(*records())) == []
  sentence, = report_tables.caveats(table_of(record(), record("all", data="synthetic people", model="dahar, depth tiny")))
  assert sentence == ("The differences from the paper are no replication: these runs have synthetic people instead of wider_attribute "
                      "(in all); dahar, depth tiny instead of dahar, depth 101 (in all).")


def test_many_metrics_stand_below_each_other():
  text = report.markdown(table_of(wide_record(), wide_record(seed=1)))
  paper = results.rows_of("vac:ablation")["r50"].paper["full"]
  lines = text[text.index("| `r50` |"):].splitlines()
  assert lines[0] == "| `r50` | paper | " + " | ".join(f"{paper[metric]:.1f}" for metric in WIDE) + " |"
  means = [61.0 + i for i in range(len(WIDE))]
  assert lines[1] == "|  | ours (n=2) | " + " | ".join(f"{mean:.1f} ± 1.4" for mean in means) + " |"
  assert lines[2] == "|  | difference | " + " | ".join(f"{mean - paper[metric]:+.1f}" for mean, metric in zip(means, WIDE)) + " |"
  assert lines[3].startswith("| `r50_t` | paper; ours: not run | 83.7 | 83.4 |")
  holed = report.markdown(table_of(wide_record(), wide_record(seed=1, mA=None)))
  assert "| ours (n=2) | 61.0 ± 1.4 | 61.0 (n=1 of 2, missing: seed 1) | 63.0 ± 1.4 |" in holed
  assert f"| difference | {61 - paper['mAP']:+.1f} | - | {63 - paper['F1-C']:+.1f} |" in holed


@pytest.mark.parametrize("name", TABLES)
def test_a_run_that_gives_what_the_paper_prints(name):
  """Every row of every table, at full size: no difference anywhere, nothing empty, no caveat."""
  file, _, of_file = name.partition(":")
  runs, rows = [], results.rows_of(name)
  for row, entry in rows.items():
    if entry.config is not None:
      config = cli.load_config(f"{REPOSITORY}/configs/{file}.py:{of_file}/{row}", [])
      views = {view: {"native": {}} | {entry.convention: {metric: figure / 100 for metric, figure in figures.items()}}
               for view, figures in entry.paper.items()}
      key = "AP_interpolated" if entry.convention in ("srn", "diaa") else "AP"
      runs.append(record(row, 0, name, views=views, data=run_folder.data_name(config), model=run_folder.model_name(config), per_attribute={
          attribute: {key: figure / 100, "positives": 1, "negatives": 1} for attribute, figure in entry.per_attribute.items()}))
  table = table_of(*runs)
  text = report.markdown(table)
  assert "no replication" not in text and "missing" not in text and "not run" not in text
  found = [cell for sheet in report_tables.sheets(table) for line in sheet.lines for cell in line if cell.kind == "difference"]
  printed = sum(sum(map(len, rows[one.row].paper.values())) + len(rows[one.row].per_attribute) for one in runs)
  assert [cell.text for cell in found if cell.text not in ("difference", "-")] == ["0.0"] * printed
  assert len(list(csv.DictReader(io.StringIO(report.csv_text(table))))) == sum(len(f) for row in rows.values() for f in row.paper.values())
  Page(report_page.page([table]))


def test_attributes_that_the_paper_prints():
  views = {"full": {"native": {"mAP": 0.1}, "srn": {"mAP": 0.8}}}
  text = report.markdown(table_of(record("dahar", 0, "dahar:table1", views=views), record("dahar", 1, "dahar:table1", views=views)))
  assert cells(text, "Male") == ["`Male`", "40.0", "97", "90.0 ± 0.0 (n=2)", "-7.0"]  # interpolated, as SRN's tables are
  assert cells(text, "Hat") == ["`Hat`", "0.0", "96", "missing (n=2)", "-"]


def test_variants_are_rows_of_their_own():
  variants = [record("all", seed, variant="no masks") for seed in range(3)]
  table = table_of(*variants, *records())
  text = report.markdown(table)
  lines = [line for line in text.splitlines() if line.startswith("| `all")]
  assert [line.split("`")[1] for line in lines] == ["all", "all, no masks"]
  assert lines[0].split("|")[2:] == lines[1].split("|")[2:]
  assert table.count() == "2 of 7 rows, 9 runs"
  lines = csv.DictReader(io.StringIO(report.csv_text(table)))
  assert [line["variant"] for line in lines if line["row"] == "all"] == [""] * 6 + ["no masks"] * 6
  # Without its plain form the row is not run.
  assert cells(report.markdown(table_of(*variants)), "all")[2] == "not run"


def test_runs_outside_of_tables_and_measures():
  one = record("quick<start>|", 0, "", views={"full": {"native": {"mAP": 0.622, "mA": 0.7}}}, measures={"flip_error": 0.478})
  two = dataclasses.replace(one, seed=1, started="2026-01-02", measures={"flip_error": None})
  text = report.markdown(table_of(one, two))
  assert "| `quick<start>/` | 62.2 ± 0.0 (n=2) | 70.0 ± 0.0 (n=2) |" in text
  assert "| `quick<start>/` | 0.478 (n=1 of 2, missing: seed 1) |" in text


def test_where_figures_come_from():
  text = report.markdown(table_of(*records()))
  lines = [line for line in text.splitlines() if line.startswith("- Runs of")]
  assert lines[0] == ("- Runs of all rows: step 1,200 of 1,400, chosen by mAP on val; split test of wider_attribute, 3,600 images, "
                      "mean positive share 24.3; model dahar, depth 101; convention srn; interpolated; commit 0123456789ab, 1 x cpu, "
                      "2026-01-01.")
  assert lines[1] == ("- Runs of `baseline`: seeds 0, 1, 2; `runs/baseline/seed0, runs/baseline/seed1, runs/baseline/seed2`; "
                      "`attr-jax train --config=configs/dahar.py:table3/baseline --config.seed=0`.")


def test_a_choice_on_training_images_is_said():
  facts = lambda one: report_tables.provenance(table_of(one))[1][one.row]["checkpoint"]
  assert facts(record("ignore_unspecified")) == "step 1,200 of 1,400, chosen by mAP on val"
  assert facts(record("train_val")) == "step 1,200 of 1,400, chosen by mAP on val, which is trained on"
  assert facts(wide_record()).endswith("mAP on val, which is trained on")


def test_csv_reads_back():
  runs = [missing_full(one) if one.seed == 1 else one for one in records()]
  lines = list(csv.DictReader(io.StringIO(report.csv_text(table_of(*runs)))))
  assert tuple(lines[0]) == report.CSV_FIELDS
  assert len(lines) == 2 * 3 * 2 + 5 * 2  # rows x seeds x views, rows without runs x views
  found = {(line["row"], line["view"], line["seed"]): line for line in lines}
  for row in ROWS:
    for view, values in MADE_UP[row].items():
      for seed, value in enumerate(values):
        ours = found[row, view, str(seed)]["ours"]
        assert ours == "" if (view, seed) == ("full", 1) else float(ours) == pytest.approx(100 * value, abs=1e-6)
  one = found["all", "full", "2"]
  assert one | {"ours": ""} == {
      "table": "dahar:table3", "row": "all", "variant": "", "view": "full", "metric": "mAP", "convention": "srn", "seed": "2",
      "paper": "87.1", "ours": "", "run": "runs/all/seed2", "step": "1200", "steps": "1400", "selected_on": "mAP on val",
      "average_precision": "interpolated",
      "data": "wider_attribute", "model": "dahar, depth 101", "commit": "0123456789abcdef", "started": "2026-01-01T00:00:02+00:00"}
  assert found["fusion", "full", ""]["paper"] == "86.5" and found["fusion", "full", ""]["ours"] == ""


class Page(parser.HTMLParser):
  """Tags with their attributes, and all text; elements must nest."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.text, self.open = [], "", []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ("meta", "img", "wbr"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data

  def of(self, name):
    return [attributes for tag, attributes in self.tags if tag == name]


def test_page_needs_nothing_else_and_says_where_cells_come_from(tmp_path):
  evil = '<script src="http://x.example/a.js">&'
  runs = [*records(), wide_record(), record(evil, 0, "", command=evil, views={"full": {"native": {"mAP": 0.5}}})]
  assert report.run([str(write(tmp_path / "r.jsonl", runs)), f"--out={tmp_path}/out"]) == 0
  text = (tmp_path / "out" / "report.html").read_text()
  page = Page(text)
  assert not page.of("script") and not page.of("link") and "@import" not in text and "url(" not in text
  links = [attributes[key] for _, attributes in page.tags for key in ("src", "href", "srcset") if key in attributes]
  assert links and all(link.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) for link in links)
  images = page.of("img")
  assert len(images) == 6 and all(image["alt"] and image["src"].startswith("data:") for image in images)
  assert evil in page.text and evil not in text
  assert "70.4 ± 0.7 (n=3)" in page.text and "not run" in page.text and "no replication" not in page.text
  title = next(cell["title"] for cell in page.of("td") if "title" in cell and "five crops" in cell["title"])
  assert title.splitlines() == ["mAP, five crops, convention srn", "seed 0: 70.1, step 1,200 of 1,400, runs/baseline/seed0",
                                "seed 1: 71.2, step 1,200 of 1,400, runs/baseline/seed1",
                                "seed 2: 69.9, step 1,200 of 1,400, runs/baseline/seed2",
                                "checkpoint chosen by mAP on val", "interpolated"]
  assert len(page.of("details")) == 3
  assert {path.name for path in (tmp_path / "out").iterdir()} == {
      "report.html", "dahar-table3.md", "dahar-table3.csv", "vac-ablation.md", "vac-ablation.csv", "runs.md", "runs.csv"}


def test_curves_are_drawn_for_each_run_and_their_mean():
  axes = report_page.curves(table_of(*records())).axes[1]
  lines = axes.get_lines()
  assert len(lines) == 2 * (3 + 1)
  np.testing.assert_allclose([lines[i].get_ydata() for i in range(4)], [[60, 70], [60, 71], [60, 72], [60, 71]])
  longer = record(seed=1, curves={**record().curves, "val_step": [500, 1000, 2000], "val": [0.5, 0.7, 0.7]})
  mean = report_page.curves(table_of(record(), longer)).axes[1].get_lines()[2]
  np.testing.assert_allclose(mean.get_xdata(), [700, 1000, 1400])
  np.testing.assert_allclose(mean.get_ydata(), [(60 + 58) / 2, (60 + 10 * 3 / 7 + 70) / 2, 70])
  assert report_page.curves(table_of(record(curves={}))) is None


def test_bars_have_mean_sd_and_chance():
  runs = [record(seed=seed, per_attribute={"Male": {"AP": 0.1, "AP_interpolated": value, "positives": 30, "negatives": 70}})
          for seed, value in enumerate((0.80, 0.90, 0.85))]
  axes = report_page.bars(table_of(*runs)).axes[0]
  bar, = axes.patches
  assert bar.get_width() == pytest.approx(85)
  whisker = axes.collections[0].get_segments()[0]
  np.testing.assert_allclose(whisker[:, 0], [80, 90])
  assert any(list(line.get_xdata()) == [pytest.approx(30)] and line.get_marker() == "D" for line in axes.get_lines())
  assert report_page.bars(table_of(record(per_attribute={}))) is None


def write(path, runs):
  results.write(path, runs)
  return path


def test_stale_tables_are_found_and_mended(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(results, "REPOSITORY", tmp_path)
  (tmp_path / "configs").mkdir()
  for file in (REPOSITORY / "configs").glob("*.py"):
    shutil.copy(file, tmp_path / "configs")
  write(tmp_path / "docs" / "results" / "grids" / "demo.jsonl", records())
  page, plain = tmp_path / "page.md", tmp_path / "plain.md"
  plain.write_text("# Nothing generated\n")
  marker = "<!-- table: docs/results/grids/demo.jsonl -->"
  page.write_text(f"# Before\n\n{marker}\nold\n<!-- end of table -->\n\nafter\n\n{marker}<!-- end of table -->\n")
  assert report.run(["--check", str(page), str(plain)]) == 1
  assert str(page) in (out := capsys.readouterr().out) and str(plain) not in out
  assert "old" in page.read_text()
  assert report.run(["--update", str(page), str(plain)]) == 0
  text = page.read_text()
  assert text.startswith(f"# Before\n\n{marker}\n\n| row |") and "\nold\n" not in text and "\n\nafter\n\n" in text
  assert text.count("70.4 ± 0.7 (n=3)") == 2
  assert plain.read_text() == "# Nothing generated\n"
  assert report.run(["--check", str(page), str(plain)]) == 0
  page.write_text(text.replace("70.4", "80.4", 1))
  assert report.run(["--check", str(page)]) == 1
  page.write_text(text)
  write(tmp_path / "docs" / "results" / "grids" / "demo.jsonl", records()[:-1])
  assert report.run(["--check", str(page)]) == 1


def test_wrong_markers(tmp_path):
  page = tmp_path / "page.md"
  missing = "docs/results/grids/none.jsonl"
  for text, message in ((f"<!-- table: {missing} -->\n<!-- end of table -->", f"page.md: {missing} does not exist"),
                        ("<!-- table: a.jsonl -->\n", "no '<!-- end of table -->'"),
                        ("<!-- runs: none --><!-- end of table -->", "page.md: no table is called 'runs: none'; there are: systems, exports, runs: "),
                        ("<!-- table: a.jsonl --><!-- table: b.jsonl --><!-- end of table -->", "no '<!-- end of table -->'")):
    page.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
      report.run(["--check", str(page)])
  with pytest.raises(InputError, match="nowhere.md does not exist"):
    report.run(["--check", str(tmp_path / "nowhere.md")])


def test_pages_of_the_repository_are_fresh():
  assert report.update(PAGES, check=True) == []


def test_each_table_of_single_runs_is_shown():
  text = (REPOSITORY / "docs" / "results.md").read_text()
  for name in run_tables.TABLES:
    assert text.count(f"<!-- runs: {name} -->") == 1


def test_figures_of_single_runs_are_those_of_the_reports(tmp_path, monkeypatch):
  monkeypatch.setattr(results, "REPOSITORY", tmp_path)
  (tmp_path / "docs" / "results").mkdir(parents=True)
  metrics = {"flip_error": 0.4776, "scale_error": 1.141, "mAP": 0.6, "mA": 0.7}
  for file, mAP in (("vac-baseline-people.json", 0.68), ("vac-acfs-people.json", 0.605)):
    (tmp_path / "docs" / "results" / file).write_text(json.dumps({"metrics": metrics | {"mAP": mAP}}))
  head, _, plain, both = run_tables.table("vac").splitlines()
  assert head == "| test, full view | flip error | scale error | mAP | mA |"
  assert plain.endswith(" | 47.8 | 114.1 | 68.0 | 70.0 |") and both.endswith(" | 47.8 | 114.1 | 60.5 | 70.0 |")


@pytest.mark.parametrize("entry, cell", [
    (None, "not run"), ({"refused": "no landmarks"}, "no"), ({"random_difference": 4e-8, "real_difference": 1.4e-6}, "1e-6")])
def test_cells_of_exports(tmp_path, monkeypatch, entry, cell):
  monkeypatch.setattr(results, "REPOSITORY", tmp_path)
  file = tmp_path / export_table.FILE
  file.parent.mkdir(parents=True)
  file.write_text(json.dumps({"systems": {"SRN": {} if entry is None else {"onnx": entry}}}))
  assert export_table.table().splitlines()[-1] == f"| SRN | not run | {cell} |"


def test_folders(tmp_path, capsys):
  grid = tmp_path / "grid"
  write_run(grid / "one", record("one", 0, ""))
  write_run(grid / "deep" / "er" / "one", record("one", 0, "", started="2026-02-02"))
  write_run(grid / "two", record("two", 1, ""), finished=False)
  (grid / "three").mkdir()
  (grid / "three" / "cell.json").write_text('{"table": "dahar:table3", "row": "all", "seed": 0, "command": ""}')
  write(grid / "records.jsonl", [dataclasses.replace(results.read_run(grid / "one"), measures={"flip_error": 0.5}), record("all", 0)])
  found, unfinished = report.collect([grid, grid / "one"])
  assert {path.name for path in unfinished} == {"two", "three"}
  # The run that is a record and a folder comes once; folders of one name are told apart.
  assert {(one.row, one.seed) for one in found} == {(str(grid / "one"), 0), ("all", 0), (str(grid / "deep" / "er" / "one"), 0)}
  assert {one.row: one.measures for one in found}[str(grid / "one")] == {"flip_error": 0.5}
  assert report.run([str(grid), f"--out={tmp_path}/out"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[:2] == ["dahar:table3                  1 of 7 rows, 1 run", "runs outside of tables        2 runs"]
  assert [line.split("/")[-1] for line in lines if line.startswith("not finished: ")] == ["three", "two"]
  assert max(map(len, lines)) <= 80
  assert report.run([str(grid), "--table=dahar:table2", f"--out={tmp_path}/only"]) == 0
  assert {path.name for path in (tmp_path / "only").iterdir()} == {"report.html", "dahar-table2.md", "dahar-table2.csv"}


def test_bad_input_is_one_line(tmp_path):
  (tmp_path / "empty").mkdir()
  (tmp_path / "empty.jsonl").write_text("")
  (tmp_path / "torn.jsonl").write_text(json.dumps(dataclasses.asdict(record())) + '\n{"table": "dahar')
  (tmp_path / "other.jsonl").write_text('{"step": 1}\n')
  (tmp_path / "notes.txt").write_text("")
  write_run(tmp_path / "damaged", record())
  (tmp_path / "damaged" / "environment.json").write_text('{"command"')
  write_run(tmp_path / "open", record(), finished=False)
  cases = {
      "nowhere": "nowhere does not exist",
      "empty": "empty holds neither a run nor records.jsonl",
      "empty.jsonl": "empty.jsonl holds no record",
      "torn.jsonl": "torn.jsonl, line 2: not the record of a run",
      "other.jsonl": "other.jsonl, line 1: not the record of a run",
      "notes.txt": "notes.txt is neither a folder nor a .jsonl file of records",
      "damaged": "damaged: damaged run (JSONDecodeError",
      "open": "no finished run in",
      str(write(tmp_path / "two.jsonl", [record(), record(run="elsewhere", started="2027")])): "dahar:table3/baseline seed 0 has two runs",
      str(write(tmp_path / "row.jsonl", [record("nope")])): "runs/nope/seed0: dahar:table3 has no row 'nope' that can be run",
      str(write(tmp_path / "table.jsonl", [record(table="dahar:table9")])): "has no table 'table9'",
      str(write(tmp_path / "quoted.jsonl", [record("rcnn", table="dahar:table1")])): "dahar:table1 has no row 'rcnn' that can be run",
  }
  for name, message in cases.items():
    with pytest.raises(InputError, match=re.escape(message)) as caught:
      report.run([str(tmp_path / name), f"--out={tmp_path}/out"])
    assert "\n" not in str(caught.value)
  assert not (tmp_path / "out").exists()


def test_exit_status_of_the_script(tmp_path):
  command = [sys.executable, str(REPOSITORY / "launch" / "report.py"), str(tmp_path / "nowhere")]
  ended = subprocess.run(command, capture_output=True, text=True)
  assert (ended.returncode, ended.stdout) == (2, "")
  assert ended.stderr == f"report: {tmp_path}/nowhere does not exist\n"


@pytest.mark.slow
def test_from_training_to_the_report(world_dir, tmp_path):
  workdir = tmp_path / "grid" / "all" / "seed0"
  # Tested on the training people: among the few others some labels have no positives, and SRN's mAP is not defined.
  config = load("dahar.py:table3/all,tiny", world_dir, **{"data.test_split": "train", "total_steps": 4, "log_every_steps": 1})
  workdir.mkdir(parents=True)
  (workdir / "cell.json").write_text(json.dumps({"table": "dahar:table3", "row": "all", "seed": 0, "command": "attr-jax train"}))
  train.train_and_evaluate(config, workdir, quiet=True)
  with pytest.raises(InputError, match="no finished run"):  # five crops have not been measured yet
    report.run([str(tmp_path / "grid"), f"--out={tmp_path}/out"])
  evaluate.evaluate_runs([workdir], split="train", views="five_crop", progress=False)
  assert report.run([str(tmp_path / "grid"), f"--out={tmp_path}/out"]) == 0
  found = json.loads((workdir / "evaluation" / "train-full.json").read_text())
  with np.load(workdir / "predictions" / "train-full.npz") as predictions:
    under_srn = evaluate.measure(dict(predictions), tuple(found["per_attribute"]), "srn")["metrics"]["mAP"]
  assert under_srn != pytest.approx(found["metrics"]["mAP"], abs=1e-4)
  line = cells((tmp_path / "out" / "dahar-table3.md").read_text(), "all")
  assert line[5] == f"{100 * under_srn:.1f} (n=1)" and line[6] == f"{100 * under_srn - 87.1:+.1f}"
  page = Page((tmp_path / "out" / "report.html").read_text())
  assert "no replication" in page.text and "synthetic people instead of wider_attribute" in page.text
  assert [image["alt"] for image in page.of("img")][2:] == ["all, seed 0: train-full-attention", "all, seed 0: train-full-heatmap"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not here")
def test_chromium_shows_the_page(tmp_path):
  import cv2

  report.run([str(write(tmp_path / "r.jsonl", [*records(), wide_record()])), f"--out={tmp_path}/out"])
  picture = tmp_path / "page.png"
  subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
                  f"--screenshot={picture}", "--window-size=1280,2000", f"file://{tmp_path}/out/report.html"],
                 check=True, capture_output=True, timeout=120)
  image = cv2.imread(str(picture))
  assert image.shape == (2000, 1280, 3)
  # Text and figures all the way down, margins that nothing runs into.
  ink = (image < 128).any(axis=2)
  assert all(part.mean() > 0.002 for part in np.split(ink[:1600], 8))
  assert not ink[:, :28].any()


@pytest.mark.parametrize("one", systems.SYSTEMS, ids=lambda one: one.name)
def test_systems_of_the_readme_load_and_have_a_figure(one):
  config_lib.check(cli.load_config(f"{REPOSITORY}/configs/{one.config}", []))
  assert 0 < systems._figure(one) < 1
  assert f"docs/results/{one.file.partition('#')[0]})" in systems.table()
