"""Claims: their runs load, learning rates are chosen on validation, verdicts follow the intervals, and the page is up to date."""

import dataclasses
import math
import pathlib
import sys

import numpy as np
import pytest
from scipy import stats

from helpers import REPOSITORY

from attr_jax.data.worlds import artwork_labels
from attr_jax.errors import InputError
from test_grid import record_of

sys.path.insert(0, str(REPOSITORY / "launch"))
import claims  # noqa: E402
import evidence  # noqa: E402
import evidence_picture  # noqa: E402
import results  # noqa: E402

OUT = pathlib.Path("runs/evidence")


def records_of(name, figures, val=lambda arm, rate: 1 / (1 + abs(rate - 2))):
  """Records of the cells that a claim asks for, with a measure and a validation figure of our own."""
  records = []
  while cells := evidence.missing(name, records, OUT):
    for cell in cells:
      rate = float(cell.variant.removeprefix("rate x "))
      records.append(record_of(cell, curves={"val": [0.1, val(cell.row, rate), None]}, views={"full": {"native": {
          "mAP": figures.get(cell.row, 0.5) + 0.01 * cell.seed, "flip_error": 0.5 - 0.001 * cell.seed}}}))
  return records


@pytest.mark.parametrize("name", [name for name, claim in evidence.CLAIMS.items() if not claim.grid])
def test_every_arm_loads_and_those_that_are_compared_have_one_budget(name):
  claim = evidence.CLAIMS[name]
  cells = evidence.missing(name, [], OUT)
  tuned = [arm for arm in claim.arms if not claim.arms[arm].tuned_as]
  assert len(cells) == len({cell.workdir for cell in cells}) == len(tuned) * len(evidence.RATES)
  budgets = {}
  for arm in claim.arms:
    config = evidence._cell(claim, name, arm, 1.0, 0, OUT).load()
    budgets[arm] = config.total_steps, config.total_epochs, config.batch_size, config.data.world_count
  for longer in (False, True):
    assert len({budget for arm, budget in budgets.items() if arm.startswith("longer: ") == longer}) <= 1
  for one in claim.comparisons:
    assert one.measure in claim.measures and {one.arm, one.than} <= claim.arms.keys() | claim.means.keys()
    assert len({budgets[arm] for arm in evidence._arms(claim, one)}) == 1
  for arm in claim.arms.values():
    assert not arm.tuned_as or arm.tuned_as in tuned


def test_first_rates_then_seeds_then_what_is_undecided():
  records = records_of("vac", {"ACf": 0.9, "+ flip": 0.5}, val=lambda arm, rate: 0.3 if rate == (0.5 if arm == "ACf" else 1) else 0.2)
  claim = evidence.CLAIMS["vac"]
  assert evidence.chosen_rate(claim, records, "ACf") == 0.5
  tried = {arm: {float(record.variant.removeprefix("rate x ")) for record in records if record.row == arm} for arm in claim.arms}
  assert tried["ACf"] == {0.25, 0.5, 1, 2} and tried["plain"] == {0.5, 1, 2}  # one further where the best was at an end
  assert {record.variant for record in records if record.row == "ACf" and record.seed} == {"rate x 0.5"}
  seeds = {arm: sorted(record.seed for record in records if record.row == arm and record.variant == evidence._variant(
      evidence.chosen_rate(claim, records, arm))) for arm in claim.arms}
  assert seeds["plain"] == [0, 1, 2]  # in no comparison
  assert seeds["ACfs"] == [0, 1, 2, 3, 4]  # equal to ACs in our figures
  assert evidence.missing("vac", records, OUT) == []


def test_rates_are_not_raised_for_ever():
  records = records_of("vac", {}, val=lambda arm, rate: 0.1 * rate)
  assert {record.variant for record in records if record.row == "plain" and not record.seed} == {f"rate x {rate}" for rate in (0.5, 1, 2, 4, 8)}


def test_verdicts_are_those_of_welch():
  records = records_of("vac", {"ACf": 0.9, "+ flip": 0.5, "ACs": 0.2, "+ scale": 0.5})
  claim = evidence.CLAIMS["vac"]
  judged = {(one.arm, one.measure): evidence.judge(claim, records, one) for one in claim.comparisons}
  assert judged["ACf", "mAP"].verdict == "holds" and judged["ACs", "mAP"].verdict.startswith("does not hold")
  assert judged["ACf", "flip error"].verdict == "not decided"
  a, b = [0.9 + 0.01 * i for i in range(5)], [0.5 + 0.01 * i for i in range(5)]
  low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
  one = judged["ACf", "mAP"]
  np.testing.assert_allclose((one.difference, one.low, one.high), (40.0, 100 * low, 100 * high), atol=1e-6)
  assert evidence.judge(claim, [], claim.comparisons[0]) is None


def test_less_is_meant_where_the_paper_says_less():
  claim = evidence.CLAIMS["vac"]
  follow = next(one for one in claim.comparisons if not one.more)
  records = [dataclasses.replace(record, views={"full": {"native": {
      "mAP": 0.5, "flip_error": (0.1 if record.row == "ACf" else 0.4) + 0.001 * record.seed}}}) for record in records_of("vac", {})]
  assert evidence.judge(claim, records, follow).verdict == "holds"


def test_tables_say_what_was_not_run(tmp_path):
  empty = evidence.table("vac", [])
  assert "| ACf | not run |" in empty and empty.count("not run") == len(evidence.CLAIMS["vac"].arms) + len(evidence.CLAIMS["vac"].comparisons)
  table = evidence.table("vac", records_of("vac", {"ACf": 0.9, "+ flip": 0.5}))
  assert "| ACf | 5 | x 2 | 92.0 ± 1.6 | - |" in table


def test_rare_and_frequent():
  record = dataclasses.replace(record_of(evidence.missing("diaa", [], OUT)[0]), per_attribute={
      "a": {"AP": 0.2, "positives": 1.0, "negatives": 99.0}, "b": {"AP": 0.4, "positives": 5.0, "negatives": 95.0},
      "c": {"AP": 0.9, "positives": 60.0, "negatives": 40.0}})
  measures = evidence.CLAIMS["diaa"].measures
  assert measures["rare (< 10 %)"](record) == pytest.approx(0.3) and measures["frequent (> 30 %)"](record) == 0.9
  assert math.isnan(measures["between"](record))
  undefined = dataclasses.replace(record, per_attribute={"a": {"AP": None, "positives": 0.0, "negatives": 99.0}})
  assert math.isnan(measures["rare (< 10 %)"](undefined))  # not left out in silence


def test_impossible_pairs_equal_a_slow_loop(monkeypatch, tmp_path):
  labels = artwork_labels.LABELS
  possible = artwork_labels.possible_pairs()
  names = list(reversed(labels))  # the data set's order is another one
  decision = np.random.default_rng(0).random((20, len(labels))) < 0.1
  (tmp_path / "predictions").mkdir()
  np.savez(tmp_path / "predictions" / "test-six_view.npz", decision=decision)
  config = type("Config", (), {"data": type("Data", (), {"test_split": "test"}), "evaluate": type("Evaluate", (), {"views": "six_view"})})
  monkeypatch.setattr(claims.run_folder, "read_start", lambda workdir: (config, type("Info", (), {"label_names": names})))
  pairs = wrong = 0
  for row in decision:
    found = [labels.index(names[i]) for i in np.flatnonzero(row)]
    for i, a in enumerate(found):
      for b in found[i + 1:]:
        pairs, wrong = pairs + 1, wrong + (not possible[a, b])
  measured = claims.impossible_pairs(tmp_path)
  assert measured["impossible_pairs"] == pytest.approx(wrong / pairs) and 0 < wrong < pairs
  assert measured["labels"] == pytest.approx(decision.sum(axis=1).mean())


def test_the_page_is_up_to_date(monkeypatch):
  monkeypatch.chdir(REPOSITORY)
  page = (REPOSITORY / "docs" / "evidence.md").read_text()
  assert evidence.updated(page, "evidence.md") == page
  assert all(f"<!-- evidence: {name} -->" in page for name in evidence.CLAIMS)


def test_rows_of_a_grid_are_compared_as_they_were_run(monkeypatch):
  monkeypatch.chdir(REPOSITORY)
  claim, records = evidence.CLAIMS["dahar_longer"], evidence.records_of("dahar_longer")
  values = {arm: [record.views["full"]["native"]["mAP"] for record in records if record.row == arm] for arm in claim.arms}
  assert {len(seeds) for seeds in values.values()} == {5}
  assert f"| baseline | 5 |  | {evidence.report_tables.percent(values['baseline'])} |" in evidence.table("dahar_longer", records)
  one = next(one for one in claim.comparisons if (one.arm, one.measure) == ("ignore_unspecified", "mAP") and one.than == "baseline")
  expected = 100 * (np.mean(values["ignore_unspecified"]) - np.mean(values["baseline"]))
  assert evidence.judge(claim, records, one).difference == pytest.approx(expected)
  with pytest.raises(SystemExit, match="2"):
    evidence.main(["--claim=dahar_longer"])


def test_a_stale_page_is_found(monkeypatch, tmp_path):
  monkeypatch.chdir(REPOSITORY)
  page = tmp_path / "page.md"
  page.write_text("before\n<!-- evidence: vac -->\n| old |\n<!-- end of evidence -->\nafter\n")
  with pytest.raises(SystemExit, match="are not those of"):
    evidence.main([f"--check={page}"])
  evidence.main([f"--update={page}"])
  evidence.main([f"--check={page}"])
  assert page.read_text().startswith("before\n<!-- evidence: vac -->\n| arm |") and page.read_text().endswith("-->\nafter\n")
  with pytest.raises(InputError, match="'sn' is no claim"):
    evidence.updated("<!-- evidence: sn -->\n<!-- end of evidence -->", "page.md")
  with pytest.raises(InputError, match="page.md: no .*end of evidence"):
    evidence.updated("<!-- evidence: vac -->\n| old |\n", "page.md")


def test_the_picture_turns_every_comparison_to_the_paper_s_side(monkeypatch, tmp_path):
  monkeypatch.setattr(evidence, "RECORDS", tmp_path)
  with pytest.raises(InputError, match="no comparison"):
    evidence_picture.draw({name: evidence.lines_of(name) for name in ("vac", "diaa")}, tmp_path / "all.png")
  results.write(tmp_path / "vac.jsonl", [
      dataclasses.replace(record, views={"full": {"native": {"mAP": 0.5, "flip_error": (0.1 if record.row == "ACf" else 0.5) + 0.01 * record.seed}}})
      for record in records_of("vac", {})])
  found = {line.says: line for line in evidence.lines_of("vac")}
  fewer = found["maps follow flips"]
  assert fewer.difference == pytest.approx(40) and 35 < fewer.low < 40 < fewer.high < 45 and fewer.verdict == "holds"
  evidence_picture.draw({"VAC": [fewer]}, tmp_path / "all.png")
  assert (tmp_path / "all.png").stat().st_size > 5000
