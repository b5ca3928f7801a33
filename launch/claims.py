"""What the papers claim, and the runs on drawn worlds (and a part of PA-100K) that look at each claim: read by `launch/evidence.py`."""

from collections.abc import Callable, Mapping
import dataclasses
import math
import pathlib

import numpy as np

from attr_jax import run_folder
from attr_jax.data.worlds import artwork_labels
import results

VERDICTS = ("holds", "does not hold: the opposite", "not decided")  # on a comparison
# Attributes that say something about the whole face; the others belong to a part of it.
_GLOBAL = ("Attractive", "Blurry", "Chubby", "Heavy_Makeup", "Male", "Oval_Face", "Pale_Skin", "Young")
_RARE, _FREQUENT = 0.1, 0.3  # share of positives
_PEOPLE = ("--config.data.world_count=4500", "--config.log_every_steps=50", "--config.evaluate.every_epochs=2",
           "--config.checkpoint.every_epochs=2")
# Half of the paper's sides: a run takes a minute or two.
_HALF = tuple(f"--config.input.{key}=(109,89)" for key in ("resize", "size", "full_size")) + ("--config.data.size=109x89",)
_ARTWORKS_LONGER = "--config.total_steps=750"  # three times the others
_PEOPLE_LONGER = ("--config.data.world_count=9000", "--config.total_epochs=20")  # twice the photos, twice as often, as in the grid
_ONE_THRESHOLD = ("--config.decide.rule=uniform", "--config.evaluate.threshold=global")  # of a path's probability, searched on validation
# Trained networks, where the papers have one of ImageNet.
_VAC_START, _DIAA_START, _DAHAR_START = (f"runs/evidence/{name}-start" for name in ("vac", "diaa", "dahar"))
_DIAA_HEADS = "runs/evidence/diaa-heads"  # the same with heads, trained alone for four epochs


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train.

  Attributes:
    config: argument of --config.
    overrides: "--config.key=value" beyond those of the claim.
    tuned_as: the arm whose learning rate is taken; "": it is tuned itself.
  """

  config: str
  overrides: tuple[str, ...] = ()
  tuned_as: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
  """`arm` is said to have more of `measure` than `than`, or less.

  Attributes:
    says: the paper's statement.
    arm: see above.
    than: see above.
    measure: one of the claim's.
    more: False: less.
  """

  says: str
  arm: str
  than: str
  measure: str
  more: bool = True


@dataclasses.dataclass(frozen=True)
class Claim:
  """What a paper says, and the runs that look at it.

  Attributes:
    title: for people.
    arms: name -> arm.
    overrides: the budget, where an arm has none of its own.
    measures: name -> figure of a record, a fraction; NaN where it has none.
    comparisons: what the paper says; none where runs are only reported.
    before: commands of attr-jax that the arms need, with what each leaves behind.
    stored: figures of a run's folder that its record cannot tell.
    means: name -> two arms whose probabilities are averaged, seed by seed.
    grid: records of `launch/grid.py`, whose rows are the arms, all with the config's own learning rate; "": trained here.
  """

  title: str
  arms: Mapping[str, Arm]
  overrides: tuple[str, ...]
  measures: Mapping[str, Callable[[results.Record], float]]
  comparisons: tuple[Comparison, ...] = ()
  before: tuple[tuple[str, str], ...] = ()
  stored: Callable[[pathlib.Path], Mapping[str, float]] | None = None
  means: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
  grid: str = ""


def metric(name: str, view: str = "") -> Callable[[results.Record], float]:
  """A metric of a view; "": of the first, where there is one."""
  return lambda record: _number((record.views[view] if view else next(iter(record.views.values())))["native"].get(name))


def mean_AP(names: Callable[[str, float], bool]) -> Callable[[results.Record], float]:
  """Mean AP of the attributes for which `names(attribute, share of positives in the test split)` is true."""
  def figure(record: results.Record) -> float:
    chosen = [row["AP"] for name, row in record.per_attribute.items()
              if names(name, row["positives"] / max(1, row["positives"] + row["negatives"]))]
    return float(np.mean([_number(value) for value in chosen])) if chosen else math.nan

  return figure


def stored(name: str) -> Callable[[results.Record], float]:
  return lambda record: _number(record.measures.get(name))


def _number(value: float | None) -> float:
  return math.nan if value is None else float(value)


def impossible_pairs(workdir: pathlib.Path) -> dict[str, float]:
  """Of the pairs of labels that a run finds in a picture, the share that the drawing never puts together, and the labels per picture."""
  config, info = run_folder.read_start(workdir)
  with np.load(workdir / "predictions" / f"{config.data.test_split}-{config.evaluate.views}.npz") as found:
    decision = found["decision"].astype(np.float64)
  own = [info.label_names.index(name) for name in artwork_labels.LABELS]
  possible = np.zeros((len(info.label_names),) * 2)
  possible[np.ix_(own, own)] = artwork_labels.possible_pairs()
  size = decision.sum(axis=1)
  together = (decision @ possible * decision).sum(axis=1)  # with each label and itself
  pairs = (size * (size - 1)).sum()
  return {"impossible_pairs": float(1 - (together - size).sum() / pairs) if pairs else math.nan, "labels": float(size.mean())}


_RARITY = {
    "rare (< 10 %)": mean_AP(lambda name, share: share < _RARE),
    "between": mean_AP(lambda name, share: _RARE <= share < _FREQUENT),
    "frequent (> 30 %)": mean_AP(lambda name, share: share >= _FREQUENT),
}


def _dahar(row: str, *overrides: str, tuned_as: str = "") -> Arm:
  return Arm(f"configs/dahar.py:table3/{row},world,small", overrides, tuned_as)


def _vac(row: str, *overrides: str, tuned_as: str = "") -> Arm:
  return Arm(f"configs/vac.py:ablation/{row},world,small", overrides, tuned_as)


def _diaa(row: str, *overrides: str) -> Arm:
  return Arm(f"configs/diaa.py:wider_ablation/{row},world,small", overrides)


def _started(config: str, epochs: int, rate: float, workdir: str, weights: str = "") -> tuple[str, str]:
  """Trains a network with seed 0 at the rate that suits it, for others to start from."""
  return (f"train --config=configs/{config},world,small {' '.join(_PEOPLE)} {weights}--config.total_epochs={epochs} "
          f"--config.optimizer.learning_rate={rate:g} --workdir={workdir}", f"{workdir}/DONE")


def _face(row: str, *overrides: str, annotation: str = "", tuned_as: str = "") -> Arm:
  return Arm(f"configs/face.py:celeba_aligned/{row},world,small" + (f",annotation={annotation}" if annotation else ""), overrides, tuned_as)


def _loose(row: str, tuned_as: str, annotation: str = "") -> Arm:
  return _face(row, "--config.data.world=faces_loose", annotation=annotation, tuned_as=tuned_as)


def _parsed(world: str, parser: str, *maps: str) -> tuple[tuple[str, str], ...]:
  """Trains a parser of a world's faces, and lets it write what SSP and SSG pool over."""
  data = f"data/{world}-4000-seed0"
  return ((f"train --config=configs/face.py:system=parser,world,small {' '.join(_HALF)} --config.total_steps=1200 --config.data.world={world} "
           f"--workdir={parser}", f"{parser}/DONE"),
          *((f"annotate --workdir={parser} --dataset=celeba_aligned --data-dir={data} --size=109x89 --maps={name}",
             f"{data}/celeba_aligned/**/annotations/{name}") for name in maps))


def _artwork(row: str, *overrides: str, tuned_as: str = "") -> Arm:
  return Arm(f"configs/attncnn_rnn.py:test/{row},world,small", overrides, tuned_as)


def _pa100k(file: str, *overrides: str) -> Arm:
  return Arm(f"configs/{file}.py:dataset=pa100k,small", overrides)


CLAIMS = {
    "diaa": Claim(
        "DIAA (Sarafianos et al. 2018): weights and attention for rare attributes, at two scales",
        {"BCE": _diaa("backbone"),
         "+ weighted focal": _diaa("weighted_focal"),
         "+ one scale": _diaa("one_scale"),
         "+ variance": _diaa("variance_weights"),
         "+ two scales": _diaa("two_scales"),
         **{f"started: {name}": _diaa(row, f"--config.weights={_DIAA_START}")
            for name, row in (("BCE", "backbone"), ("+ weighted focal", "weighted_focal"), ("+ two scales", "two_scales"))},
         "started with heads: + two scales": _diaa("two_scales", f"--config.weights={_DIAA_HEADS}")},
        (*_PEOPLE, "--config.total_epochs=12"),
        {"mAP": metric("mAP"), **_RARITY},
        (Comparison("the weighted focal loss helps", "+ weighted focal", "BCE", "mAP"),
         Comparison("the weighted focal loss helps rare attributes", "+ weighted focal", "BCE", "rare (< 10 %)"),
         Comparison("attention at one scale helps", "+ one scale", "+ weighted focal", "mAP"),
         Comparison("weighting by variance helps", "+ variance", "+ one scale", "mAP"),
         Comparison("weighting by variance helps rare attributes", "+ variance", "+ one scale", "rare (< 10 %)"),
         Comparison("two scales beat one", "+ two scales", "+ variance", "mAP"),
         # Tried because none of these holds.
         Comparison("the loss helps rare attributes, from a trained network", "started: + weighted focal", "started: BCE", "rare (< 10 %)"),
         Comparison("the attention helps, from a trained network", "started: + two scales", "started: + weighted focal", "mAP"),
         Comparison("the attention helps, its heads trained alone first", "started with heads: + two scales", "started: + weighted focal", "mAP"),
         Comparison("all parts help rare attributes, from a trained network", "started: + two scales", "started: BCE", "rare (< 10 %)"),
         Comparison("all parts help, from a trained network", "started: + two scales", "started: BCE", "mAP")),
        before=(_started("diaa.py:wider_ablation/backbone", 12, 0.04, _DIAA_START),
                _started("diaa.py:wider_ablation/two_scales,stage=heads", 4, 0.04, _DIAA_HEADS, f"--config.weights={_DIAA_START} "))),
    "dahar": Claim(
        "Da-HAR (Wu et al. 2020): masks against distraction",
        {"baseline": _dahar("baseline"), "fusion": _dahar("fusion"), "self-mask": _dahar("self_mask"),
         "masked attention": _dahar("masked_attention"), "all": _dahar("all"), "all, ignore unspecified": _dahar("ignore_unspecified"),
         "all, no supervision": _dahar("ignore_unspecified", "--config.loss.mask_weight=0"),
         "alone: baseline": _dahar("baseline", "--config.data.world=people_alone", tuned_as="baseline"),
         "alone: all": _dahar("ignore_unspecified", "--config.data.world=people_alone", tuned_as="all, ignore unspecified"),
         "crowded: baseline": _dahar("baseline", "--config.data.world=people_crowded", tuned_as="baseline"),
         "crowded: all": _dahar("ignore_unspecified", "--config.data.world=people_crowded", tuned_as="all, ignore unspecified"),
         **{f"{kind}: {name}": _dahar(row, *overrides)
            for kind, overrides in (("started", (f"--config.weights={_DAHAR_START}",)), ("longer", _PEOPLE_LONGER))
            for name, row in (("baseline", "baseline"), ("all", "ignore_unspecified"))}},
        (*_PEOPLE, "--config.total_epochs=10"),
        {"mAP": metric("mAP"), "attention inside": metric("attention_inside"), "heatmap inside": metric("heatmap_inside"),
         "mask IoU": metric("mask_IoU"), "person's area": metric("person_area")},
        (Comparison("feature fusion helps", "fusion", "baseline", "mAP"),
         Comparison("self-masks help", "self-mask", "baseline", "mAP"),
         Comparison("masked attention helps", "masked attention", "baseline", "mAP"),
         Comparison("all three beat the baseline", "all", "baseline", "mAP"),
         Comparison("ignoring unspecified labels helps", "all, ignore unspecified", "all", "mAP"),
         Comparison("masks draw the attention to the person", "all, ignore unspecified", "baseline", "attention inside"),
         Comparison("supervision of the mask helps", "all, ignore unspecified", "all, no supervision", "mAP"),
         Comparison("supervision draws the attention to the person", "all, ignore unspecified", "all, no supervision", "attention inside"),
         Comparison("the gain stays in a crowd", "crowded: all", "crowded: baseline", "mAP"),
         Comparison("the gain stays where nobody distracts", "alone: all", "alone: baseline", "mAP"),
         # Tried because the parts do not help.
         Comparison("everything beats the baseline, from a trained network", "started: all", "started: baseline", "mAP"),
         Comparison("everything beats the baseline, four times as long", "longer: all", "longer: baseline", "mAP")),
        before=(_started("dahar.py:table3/baseline", 10, 0.08, _DAHAR_START),)),
    "dahar_longer": Claim(
        "Da-HAR (Wu et al. 2020), four times as long, all rows at one rate",
        {row: _dahar(row) for row in ("baseline", "fusion", "self_mask", "masked_attention", "all", "ignore_unspecified")}, (),
        {name: metric(key, "full") for name, key in (("mAP", "mAP"), ("attention inside", "attention_inside"), ("mask IoU", "mask_IoU"))},
        (Comparison("feature fusion helps", "fusion", "baseline", "mAP"),
         Comparison("self-masks help", "self_mask", "baseline", "mAP"),
         Comparison("masked attention helps", "masked_attention", "baseline", "mAP"),
         Comparison("all three beat the baseline", "all", "baseline", "mAP"),
         Comparison("ignoring unspecified labels helps", "ignore_unspecified", "all", "mAP"),
         Comparison("everything beats the baseline", "ignore_unspecified", "baseline", "mAP"),
         Comparison("masks draw the attention to the person", "ignore_unspecified", "baseline", "attention inside")),
        grid="docs/results/grids/dahar-table3-people.jsonl"),
    "vac": Claim(
        "VAC (Guo et al. 2019): consistent attention instead of augmentation alone",
        {"plain": _vac("r50"), "+ flip": _vac("r50_f"), "+ scale": _vac("r50_s"), "ACf": _vac("r50_acf"), "ACs": _vac("r50_acs"),
         "ACfs": _vac("r50_acfs"), "ACf, weight 0.1": _vac("r50_acf", "--config.loss.flip_weight=0.1", tuned_as="ACf"),
         "started: + flip": _vac("r50_f", f"--config.weights={_VAC_START}"), "started: ACf": _vac("r50_acf", f"--config.weights={_VAC_START}")},
        (*_PEOPLE, "--config.total_epochs=10"),
        {"mAP": metric("mAP"), "mA": metric("mA"), "flip error": metric("flip_error"), "scale error": metric("scale_error")},
        (Comparison("consistency under flips beats flips as augmentation", "ACf", "+ flip", "mAP"),
         Comparison("consistency under scaling beats scaling as augmentation", "ACs", "+ scale", "mAP"),
         Comparison("both together are best: above ACf", "ACfs", "ACf", "mAP"),
         Comparison("both together are best: above ACs", "ACfs", "ACs", "mAP"),
         Comparison("maps follow flips", "ACf", "+ flip", "flip error", more=False),
         Comparison("maps follow scaling", "ACs", "+ scale", "scale error", more=False),
         # Tried because the first four do not hold.
         Comparison("flips, with a tenth of the paper's weight", "ACf, weight 0.1", "+ flip", "mAP"),
         Comparison("flips, from a trained network, as in the paper", "started: ACf", "started: + flip", "mAP")),
        before=(_started("vac.py:ablation/r50", 10, 0.08, _VAC_START),)),
    "faces": Claim(
        "SSP and SSG (Kalayeh et al. 2017): regions of the face for local attributes",
        {"average pooling": _face("avg_pooling"), "SPPNet*": _face("sppnet"), "naive": _face("naive", "--config.weights=runs/evidence/parser"),
         "boxes": _face("bbox"), "SSG": _face("ssg", annotation="regions_fine"),
         "SSP": _face("ssp", annotation="regions"),
         "loose: average pooling": _loose("avg_pooling", "average pooling"), "loose: SPPNet*": _loose("sppnet", "SPPNet*"),
         "loose: boxes": _loose("bbox", "boxes"), "loose: SSP": _loose("ssp", "SSP", "regions")},
        (*_HALF, "--config.total_steps=600", "--config.batch_size=16", "--config.log_every_steps=50", "--config.evaluate.every_epochs=1"),
        {"mAP": metric("mAP"), "local": mean_AP(lambda name, share: name not in _GLOBAL), "global": mean_AP(lambda name, share: name in _GLOBAL),
         "balanced accuracy": metric("balanced_accuracy")},
        (Comparison("SSP beats average pooling for local attributes", "SSP", "average pooling", "local"),
         Comparison("SSG beats average pooling for local attributes", "SSG", "average pooling", "local"),
         Comparison("SSP beats average pooling", "SSP", "average pooling", "mAP"),
         Comparison("SSP beats a fixed pyramid of cells", "SSP", "SPPNet*", "mAP"),
         Comparison("SSP beats pooling over true boxes", "SSP", "boxes", "mAP"),
         Comparison("SSP beats parsing as further channels", "SSP", "naive", "mAP"),
         Comparison("both together beat SSP", "SSP + SSG", "SSP", "mAP"),
         # Tried because cells and boxes are better: faces that do not all lie alike.
         Comparison("SSP beats average pooling for local attributes of loose faces", "loose: SSP", "loose: average pooling", "local"),
         Comparison("SSP beats a fixed pyramid of cells on loose faces", "loose: SSP", "loose: SPPNet*", "mAP"),
         Comparison("SSP beats pooling over true boxes on loose faces", "loose: SSP", "loose: boxes", "mAP")),
        before=(*_parsed("faces", "runs/evidence/parser", "regions", "regions_fine"),
                *_parsed("faces_loose", "runs/evidence/parser-loose", "regions")),
        means={"SSP + SSG": ("SSP", "SSG")}),
    "artworks": Claim(
        "AttnCNN-RNN with HOG (Tang et al. 2019): label after label, and texture",
        {"ResNet": _artwork("baseline"), "ResNet + HOG": _artwork("hog"), "AttnCNN-RNN": _artwork("attncnn_rnn"),
         "AttnCNN-RNN + HOG": _artwork("attncnn_rnn_hog"),
         "longer: ResNet": _artwork("baseline", _ARTWORKS_LONGER, tuned_as="ResNet"),
         "longer: AttnCNN-RNN": _artwork("attncnn_rnn", _ARTWORKS_LONGER, tuned_as="AttnCNN-RNN"),
         "longer: AttnCNN-RNN, one threshold": _artwork("attncnn_rnn", _ARTWORKS_LONGER, *_ONE_THRESHOLD, tuned_as="AttnCNN-RNN")},
        ("--config.data.world_count=2000", "--config.total_steps=250", "--config.log_every_steps=50", "--config.evaluate.every_epochs=2"),
        {"F2": metric("sample_F2"), "impossible pairs": stored("impossible_pairs"), "mAP": metric("mAP")},
        (Comparison("the decoder raises F2", "AttnCNN-RNN", "ResNet", "F2"),
         Comparison("the decoder learns which labels go together", "AttnCNN-RNN", "ResNet", "impossible pairs", more=False),
         Comparison("HOG adds to ResNet", "ResNet + HOG", "ResNet", "F2"),
         Comparison("HOG adds to the decoder", "AttnCNN-RNN + HOG", "AttnCNN-RNN", "F2"),
         # Tried because the first two do not hold.
         Comparison("the decoder raises F2, given three times as long", "longer: AttnCNN-RNN", "longer: ResNet", "F2"),
         Comparison("the decoder raises F2, likewise, with one threshold as ResNet has", "longer: AttnCNN-RNN, one threshold", "longer: ResNet", "F2"),
         Comparison("the decoder then learns which labels go together", "longer: AttnCNN-RNN, one threshold", "longer: ResNet",
                    "impossible pairs", more=False)),
        stored=impossible_pairs),
    "pa100k": Claim(
        "1,200 real photos of PA-100K, from scratch",
        {"ResNet": _pa100k("baseline"), "DIAA": _pa100k("diaa"),
         "VAC": _pa100k("vac", "--config.input.resize=(64,32)", "--config.input.size=(56,28)", "--config.input.full_size=(56,28)"),
         "Da-HAR": _pa100k("dahar", "--config.loss.loss=inverse_ratio")},
        ("--config.data.size=64x32", "--config.log_every_steps=50", "--config.evaluate.every_epochs=2", "--config.total_epochs=20"),
        {"mA": metric("mA"), "mAP": metric("mAP"), "F1": metric("F1")},
        before=(("prepare pa100k --source=pa100k --data-dir=data --size=64x32 --allow-deviations", "data/pa100k/64x32"),)),
}
