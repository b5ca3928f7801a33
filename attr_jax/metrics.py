"""Metrics of multi-label recognition: one code, named conventions.

Everything is numpy on the host, in float64, over a whole split. The arguments
are the same everywhere:

* `label`: [N, L], values 0 and 1 (any integer, float or bool type);
* `score`: [N, L], probabilities (a sigmoid's output); ranking metrics take any
  finite number. A model that answers with a label *set* passes 0/1 scores;
* `known`: [N, L] bool, False where the source gives no label (WIDER Attribute's
  0). `None` means that all is known. `label` is not looked at where unknown;
* `threshold`: a number or one per label [L]; a label is predicted where
  `score >= threshold`. It is compared in the type of `score`, as the numeric
  libraries do: 0.8 in float32 is not 0.8 in float64.

Results are fractions in [0, 1]. A label whose value is undefined (no positive
sample, say) has the value nan, is left out of means, and is counted under a name
of its own; where nothing is defined the mean is nan too. Wrong shapes, labels
other than 0 and 1, nan scores and empty input raise ValueError.

Published tables do not agree on these definitions. `evaluate_all(...,
convention=...)` reproduces what a given code base prints on the same arrays.
"""

from collections.abc import Callable
import dataclasses

import numpy as np
from scipy import stats

FLAVOURS = ("step", "interpolated", "sorted")


# Checks and counts.


def _check(label, score, known) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns label bool, score float32/float64, known bool, each [N, L]."""
  label, score = np.asarray(label), np.asarray(score)
  known = np.ones(label.shape, bool) if known is None else np.asarray(known)
  if label.ndim != 2:
    raise ValueError(f"label must be [N, L], got shape {label.shape}")
  for name, array in (("score", score), ("known", known)):
    if array.shape != label.shape:
      raise ValueError(f"{name} has shape {array.shape}, label has {label.shape}")
  if not label.size:
    raise ValueError(f"nothing to evaluate: label has shape {label.shape}")
  if not np.isin(known, (0, 1)).all():
    raise ValueError("known must hold only True and False")
  known = known.astype(bool)
  wrong = known & ~np.isin(label, (0, 1))
  if wrong.any():
    row, column = np.argwhere(wrong)[0]
    raise ValueError(
        f"label[{row}, {column}] is {label[row, column]}; known labels must be 0 or 1 "
        "(mark unspecified ones with known=False)")
  if score.dtype not in (np.float32, np.float64):
    score = score.astype(np.float64)
  if np.isnan(score).any():
    row, column = np.argwhere(np.isnan(score))[0]
    raise ValueError(f"score[{row}, {column}] is nan")
  return np.where(known, label, 0).astype(bool), score, known


def _threshold(threshold, score: np.ndarray) -> np.ndarray:
  """A threshold in the type of `score`, ready to be compared with [N, L]."""
  threshold = np.asarray(threshold, score.dtype)
  if threshold.ndim and threshold.shape != score.shape[1:]:
    raise ValueError(
        f"threshold must be a number or [{score.shape[1]}], got shape {threshold.shape}")
  if np.isnan(threshold).any():
    raise ValueError("threshold is nan")
  return threshold


def _decide(score: np.ndarray, threshold) -> np.ndarray:
  return score >= _threshold(threshold, score)


@dataclasses.dataclass(frozen=True)
class _Counts:
  """Cells per label, or over all labels, as float64."""
  tp: np.ndarray
  fp: np.ndarray
  fn: np.ndarray
  tn: np.ndarray

  @property
  def positive(self):
    return self.tp + self.fn

  @property
  def negative(self):
    return self.tn + self.fp

  @property
  def predicted(self):
    return self.tp + self.fp

  def pooled(self) -> "_Counts":
    return _Counts(*(np.sum(x) for x in (self.tp, self.fp, self.fn, self.tn)))


def _count(label, decision, known, axis=0) -> _Counts:
  cells = (label & decision, ~label & decision, label & ~decision, ~label & ~decision)
  return _Counts(*(np.sum(cell & known, axis=axis, dtype=np.float64) for cell in cells))


def _ratio(part, whole, empty=np.nan):
  """part / whole, and `empty` where whole is 0."""
  part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
  return np.where(whole > 0, part / np.where(whole > 0, whole, 1), empty)


def _mean(values) -> float:
  """Mean over the defined values; nan if there are none."""
  values = np.asarray(values)
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else float("nan")


def _f_beta(precision, recall, beta=1.0):
  """(1 + b^2) P R / (b^2 P + R), 0 where both are 0."""
  bottom = np.asarray(beta**2 * precision + recall, np.float64)
  top = (1 + beta**2) * np.asarray(precision * recall, np.float64)
  return np.where(bottom == 0, 0.0, top / np.where(bottom == 0, 1, bottom))


# Average precision.


def _order(score: np.ndarray, ties: str) -> np.ndarray:
  """Ranks one label's scores [n] from high to low; `ties` says who is first."""
  if ties == "file":  # the earlier sample first (MATLAB's sort)
    return np.argsort(-score, kind="stable")
  if ties == "negated":  # what numpy's unstable sort makes of it
    return np.argsort(-score)
  return np.argsort(score)[::-1]  # "reversed"


def _label_average_precision(label, score, known, ties="joint", envelope=False) -> float:
  """AP of one label [N], sum over cuts of precision times gain in recall.

  `ties` "joint" cuts only between distinct scores; every other kind cuts after
  each sample, in the order of `_order`. `envelope` makes the precision
  non-increasing over recall first (VOC 2010+). nan without positives.
  """
  if not label.any():
    return float("nan")
  # Unknown samples leave after the sort: an unstable one ranks ties by what is there.
  order = _order(score, "file" if ties == "joint" else ties)
  order = order[known[order]]
  cut = np.arange(len(order))
  if ties == "joint":
    ranked = score[order]
    cut = np.append(cut[:-1][ranked[1:] != ranked[:-1]], cut[-1])
  hits = np.cumsum(label[order])[cut]
  precision = hits / (cut + 1.0)
  if envelope:
    precision = np.maximum.accumulate(precision[::-1])[::-1]
  return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


def _average_precisions(label, score, known, **flavour) -> np.ndarray:
  return np.array([
      _label_average_precision(y, s, k, **flavour)
      for y, s, k in zip(label.T, score.T, known.T)])


def probabilities(logit: np.ndarray) -> np.ndarray:
  """Sigmoid of logits [...] of any shape: float64 [...], kept off 0 and 1 so that logits can be had back (cut at +-36, our choice)."""
  clipped = np.clip(logit.astype(np.float64), -36.0, 36.0)
  return 1 / (1 + np.exp(-clipped))


def average_precision(label, score, known=None, flavour: str = "step") -> np.ndarray | float:
  """Average precision of each label, unspecified samples left out.

  * "step": sum_n (R_n - R_{n-1}) P_n over the distinct scores, as scikit-learn's
    `average_precision_score`. Samples with one score enter together, so that
    their order in the file says nothing.
  * "interpolated": the same with the precision made monotone from the right,
    P_n := max_{m >= n} P_m (VOC 2010+; the WIDER figures of SRN, DIAA and Da-HAR
    are of this kind). Never below "step". Ties enter together here too; SRN's own
    program breaks them by file order, see the convention "srn".
  * "sorted": mean over the positives of the precision at their rank, ties ranked
    in file order (ASL, ML-GCN, mmpretrain). Equals "step" without ties.

  Args:
    label: [N, L], or [N] for one label.
    score: as label; any finite numbers, logits or probabilities.
    known: as label, bool, or None.
    flavour: one of FLAVOURS.

  Returns:
    float64 [L] (a float for [N]); nan where no known sample is positive.

  Raises:
    ValueError: unknown flavour, or arrays as the module's head forbids.
  """
  if flavour not in FLAVOURS:
    raise ValueError(f"unknown flavour {flavour!r}; known: {', '.join(FLAVOURS)}")
  single = np.ndim(label) == 1
  if single:
    label, score, known = (x if x is None else np.asarray(x)[..., None]
                           for x in (label, score, known))
  label, score, known = _check(label, score, known)
  ap = _average_precisions(
      label, score, known, ties="file" if flavour == "sorted" else "joint",
      envelope=flavour == "interpolated")
  return float(ap[0]) if single else ap


def mean_average_precision(label, score, known=None, flavour: str = "step") -> float:
  """mAP: mean of `average_precision` [L] over the labels that have a positive sample; ValueError as there."""
  return _mean(np.atleast_1d(average_precision(label, score, known, flavour)))


def roc_auc(label, score, known=None) -> np.ndarray:
  """Area under the ROC curve of each label, ties counted one half.

  The Mann-Whitney form (sum of the positives' ranks - P (P + 1) / 2) / (P N), of arrays [N, L].

  Returns:
    float64 [L]; nan for labels without a known positive or without a known negative.
  """
  label, score, known = _check(label, score, known)
  result = np.full(label.shape[1], np.nan)
  for i in range(label.shape[1]):
    y = label[known[:, i], i]
    positives = int(y.sum())
    negatives = y.size - positives
    if positives and negatives:
      ranks = stats.rankdata(score[known[:, i], i])
      result[i] = (ranks[y].sum() - positives * (positives + 1) / 2) / (positives * negatives)
  return result


# Metrics of decisions.


def _balanced(counts: _Counts) -> np.ndarray:
  return (_ratio(counts.tp, counts.positive) + _ratio(counts.tn, counts.negative)) / 2


def mean_accuracy(label, score, known=None, threshold=0.5) -> float:
  """mA of arrays [N, L]: mean over labels of (TP / P + TN / N) / 2 (Deng et al. 2014, PETA).

  Labels without a known positive or without a known negative are left out.
  """
  label, score, known = _check(label, score, known)
  return _mean(_balanced(_count(label, _decide(score, threshold), known)))


def balanced_accuracy(label, score, known=None, threshold=0.5) -> float:
  """Mean over labels of (TPR + TNR) / 2 of arrays [N, L], the name mA has in work on faces.

  The same number as `mean_accuracy` (Kalayeh et al. 2017 after Huang et al. 2016).
  """
  return mean_accuracy(label, score, known, threshold)


def classification_error(label, score, known=None, threshold=0.5) -> float:
  """Mean over labels of (FP + FN) / known samples of arrays [N, L], as tables on CelebA print it (Kalayeh et al. 2017)."""
  label, score, known = _check(label, score, known)
  counts = _count(label, _decide(score, threshold), known)
  return _mean(_ratio(counts.fp + counts.fn, known.sum(axis=0)))


def _instance_metrics(label, decision, known) -> dict[str, float]:
  counts = _count(label, decision, known, axis=1)
  some = counts.positive > 0
  accuracy = _ratio(counts.tp, counts.predicted + counts.fn)
  precision = _ratio(counts.tp, counts.predicted, empty=0.0)
  recall = _ratio(counts.tp, counts.positive)
  mean_precision, mean_recall = _mean(precision[some]), _mean(recall[some])
  return {
      "Acc": _mean(accuracy[some]),
      "Prec": mean_precision,
      "Rec": mean_recall,
      "F1": float(_f_beta(mean_precision, mean_recall)),
      "F1_instance_mean": _mean(_f_beta(precision, recall)[some]),
      "images_without_positives": int((~some).sum()),
  }


def instance_metrics(label, score, known=None, threshold=0.5) -> dict[str, float]:
  """Example-based metrics of Li et al. 2016 (RAP) of arrays [N, L], over an image's known labels.

  With y the true and p the predicted labels of an image: Acc = mean |y & p| / |y | p|,
  Prec = mean |y & p| / |p| (0 if p is empty), Rec = mean |y & p| / |y|,
  F1 = 2 Prec Rec / (Prec + Rec) *of the means*; F1_instance_mean is the mean of the
  images' own F1. Images without a known positive label, for which Rec is
  undefined, are left out of all five and counted in images_without_positives.
  """
  label, score, known = _check(label, score, known)
  return _instance_metrics(label, _decide(score, threshold), known)


def _label_metrics(label, decision, known) -> dict[str, float]:
  counts = _count(label, decision, known)
  some = counts.positive > 0
  precision = _ratio(counts.tp, counts.predicted, empty=0.0)
  recall = _ratio(counts.tp, counts.positive)
  mean_precision, mean_recall = _mean(precision[some]), _mean(recall[some])
  pooled = counts.pooled()
  pooled_precision = _ratio(pooled.tp, pooled.predicted, empty=0.0)
  pooled_recall = _ratio(pooled.tp, pooled.positive)
  return {
      "P-C": mean_precision,
      "R-C": mean_recall,
      "F1-C": float(_f_beta(mean_precision, mean_recall)),
      "F1-C_label_mean": _mean(_f_beta(precision, recall)[some]),
      "P-O": float(pooled_precision),
      "R-O": float(pooled_recall),
      "F1-O": float(_f_beta(pooled_precision, pooled_recall)),
  }


def label_metrics(label, score, known=None, threshold=0.5) -> dict[str, float]:
  """Precision, recall and F1 of arrays [N, L], per label (C) and over all known cells (O).

  P-C and R-C are means over the labels that have a known positive (a label that is
  never predicted has precision 0). F1-C = 2 P-C R-C / (P-C + R-C), and
  F1-C_label_mean is the mean of the labels' own F1; both are called "F1-C" in print.
  P-O, R-O, F1-O pool the cells of all labels.
  """
  label, score, known = _check(label, score, known)
  return _label_metrics(label, _decide(score, threshold), known)


def _top_k(score, known, k) -> np.ndarray:
  """Bool [N, L]: the k highest known scores of each image, ties to the lower index."""
  order = np.argsort(-np.where(known, score, -np.inf), axis=1, kind="stable")[:, :k]
  chosen = np.zeros(score.shape, bool)
  np.put_along_axis(chosen, order, True, axis=1)
  return chosen & known


def top_k_metrics(label, score, known=None, k: int = 3, threshold=None) -> dict[str, float]:
  """`label_metrics` of arrays [N, L] when each image gets the k highest of its known labels.

  With a threshold, of these only the ones with `score >= threshold` (the tables of
  ML-GCN and VAC on COCO); with None exactly k, whatever their scores (WARP,
  CNN-RNN). Ties go to the label with the lower index.

  Raises:
    ValueError: k below 1, or arrays as the module's head forbids.
  """
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}")
  label, score, known = _check(label, score, known)
  chosen = _top_k(score, known, k)
  if threshold is not None:
    chosen &= _decide(score, threshold)
  return _label_metrics(label, chosen, known)


def _f_beta_of(counts: _Counts, beta: float) -> np.ndarray:
  """(1 + b^2) TP / (b^2 P + predicted), 0 where that is 0 / 0."""
  return _ratio((1 + beta**2) * counts.tp, beta**2 * counts.positive + counts.predicted, empty=0.0)


def _sample_f_beta(label, decision, known, beta) -> float:
  return float(np.mean(_f_beta_of(_count(label, decision, known, axis=1), beta)))


def sample_f_beta(label, score, known=None, threshold=0.5, beta: float = 2.0) -> float:
  """Mean over images, of arrays [N, L], of (1 + b^2) TP / (b^2 P + predicted), 0 where that is 0 / 0.

  The score of the iMet challenge with b = 2; scikit-learn's `fbeta_score` with
  average="samples", zero_division=0. Every image counts, empty ones too.

  Raises:
    ValueError: beta is not positive, or arrays as the module's head forbids.
  """
  label, score, known = _check(label, score, known)
  if not beta > 0:
    raise ValueError(f"beta must be positive, got {beta}")
  return _sample_f_beta(label, _decide(score, threshold), known, beta)


def set_metrics(label, decision, known=None) -> dict[str, float]:
  """How well label sets are found: averaged over images, over labels, and over all entries.

  Args:
    label: [N, L], 0 or 1.
    decision: bool [N, L].
    known: [N, L] bool or None.

  Returns:
    sample_, macro_ and micro_ with P, R, F1 and F2 (0 where a value is 0 / 0, as scikit-learn with zero_division=0; macro:
    over labels with a positive), and `accuracy`, the share of right entries.

  Raises:
    ValueError: arrays as the module's head forbids.
  """
  label, decision, known = _check(label, np.asarray(decision, float), known)
  decision = decision.astype(bool)
  by_image, by_label = _count(label, decision, known, axis=1), _count(label, decision, known)
  some = by_label.positive > 0
  result = {}
  with np.errstate(divide="ignore", invalid="ignore"):
    for kind, counts, where in (("sample", by_image, slice(None)), ("macro", by_label, some), ("micro", by_label.pooled(), ())):
      values = {
          "P": _ratio(counts.tp, counts.predicted, empty=0.0),
          "R": _ratio(counts.tp, counts.positive, empty=0.0),
          **{f"F{beta}": _f_beta_of(counts, beta) for beta in (1, 2)},
      }
      result |= {f"{kind}_{name}": _mean(np.asarray(value)[where]) for name, value in values.items()}
    result["accuracy"] = float(_ratio((by_label.tp + by_label.tn).sum(), known.sum()))
  return result


def search_thresholds(label, score, known=None, *, kind: str = "global", prior=None) -> np.ndarray:
  """Thresholds of the highest F2, to be searched on validation images; the grid is 0, 0.01, ... 1.

  Args:
    label: [N, L], 0 or 1.
    score: [N, L], probabilities.
    known: [N, L] bool or None.
    kind: "global": one threshold t, by F2 averaged over images. "prior": t clip(r, 0.01, 1)^0.05 likewise, r the share of
      positives. Both from the released program of Tang et al. 2019. "per_class": each label's own, by the label's F2;
      the global one where a label has no positives.
    prior: [L], r in [0, 1], for "prior".

  Returns:
    float64 [L]; of several best thresholds the lowest.

  Raises:
    ValueError: an unknown kind, "prior" without a prior, or arrays as the module's head forbids.
  """
  label, score, known = _check(label, score, known)
  shape = {"global": 1.0, "prior": None if prior is None else np.clip(prior, 0.01, 1.0) ** 0.05, "per_class": 1.0}
  if kind not in shape or shape[kind] is None:
    raise ValueError(f"unknown kind {kind!r} of thresholds, or no prior; known: {', '.join(shape)}")
  grid = np.arange(101) / 100
  by_image = [_sample_f_beta(label, score >= t * shape[kind], known, beta=2.0) for t in grid]
  best = np.full(label.shape[1], grid[int(np.argmax(by_image))]) * shape[kind]
  if kind != "per_class":
    return best
  counts = [_count(label, score >= t, known) for t in grid]
  with np.errstate(divide="ignore", invalid="ignore"):
    by_label = np.stack([_f_beta_of(c, beta=2.0) for c in counts])
  return np.where(counts[0].positive > 0, grid[by_label.argmax(axis=0)], best)


FEWEST = 10  # samples with and without a label, for a threshold of its own


def highest_F1_thresholds(label, score, known=None, fewest: int = FEWEST) -> np.ndarray:
  """Each label's threshold of its highest F1, to be searched on validation images (our choice).

  Args:
    label: [N, L], 0 or 1.
    score: [N, L], probabilities.
    known: [N, L] bool or None.
    fewest: a label that fewer known samples have, or fewer lack, gets 0.5. The search would follow chance there, and where nothing
      is learnt F1 is highest if all samples are called positive.

  Returns:
    float64 [L], halfway between two scores, so that what computes them a little differently decides alike; of several best
    thresholds the highest.

  Raises:
    ValueError: arrays as the module's head forbids.
  """
  label, score, known = _check(label, score, known)
  return np.array([_highest_F1_threshold(label[seen, i], score[seen, i], fewest) for i, seen in enumerate(known.T)])


def _highest_F1_threshold(label: np.ndarray, score: np.ndarray, fewest: int) -> float:
  positive = np.count_nonzero(label)
  if min(positive, label.size - positive) < fewest:
    return 0.5
  order = np.argsort(-score, kind="stable")
  label, score = label[order], score[order]
  f1 = 2 * np.cumsum(label) / (np.arange(1, label.size + 1) + positive)
  f1[:-1][score[:-1] == score[1:]] = 0.0  # equal scores are found together
  best = int(np.argmax(f1))
  return float(score[best] + (score[best + 1] if best + 1 < score.size else 0.0)) / 2


def micro_roc_auc(label, score, known=None) -> float:
  """Area under the ROC curve of all entries of [N, L] together, nan without positives or negatives."""
  label, score, known = _check(label, score, known)
  return float(roc_auc(label[known][:, None], score[known][:, None])[0])


def per_attribute(label, score, known=None, threshold=0.5, decision=None) -> dict[str, np.ndarray]:
  """Every metric of the single labels; `decision` bool [N, L] in place of the comparison with `threshold`.

  Returns:
    A dict of arrays [L]: AP, AP_interpolated, accuracy, balanced_accuracy,
    precision, recall, F1, ROC-AUC (float64, nan where undefined; precision is 0 for
    a label that is never predicted) and positives, negatives, unspecified (int64).

  Raises:
    ValueError: arrays as the module's head forbids.
  """
  label, score, known = _check(label, score, known)
  counts = _count(label, _decide(score, threshold) if decision is None else np.asarray(decision, bool), known)
  some = counts.positive > 0
  precision = np.where(some, _ratio(counts.tp, counts.predicted, empty=0.0), np.nan)
  recall = _ratio(counts.tp, counts.positive)
  return {
      "AP": _average_precisions(label, score, known),
      "AP_interpolated": _average_precisions(label, score, known, envelope=True),
      "accuracy": _ratio(counts.tp + counts.tn, known.sum(axis=0)),
      "balanced_accuracy": _balanced(counts),
      "precision": precision,
      "recall": recall,
      "F1": _f_beta(precision, recall),
      "ROC-AUC": roc_auc(label, score, known),
      "positives": counts.positive.astype(np.int64),
      "negatives": counts.negative.astype(np.int64),
      "unspecified": (~known).sum(axis=0),
  }


def intersection_over_union(
    prediction, target, num_classes: int | None = None) -> tuple[np.ndarray, float]:
  """Intersection over union, pooled over all pixels of all images.

  Args:
    prediction: integer class maps of any shape; or one mask (bool, or float in
      [0, 1]) of any shape.
    target: as prediction.
    num_classes: K, for class maps; None for masks.

  Returns:
    (iou [K], mean). A class that neither map holds is nan and left out of the mean.
    For masks K = 1 and iou = sum min(p, t) / sum max(p, t), the plain IoU of bool masks.

  Raises:
    ValueError: shapes differ, or values outside [0, K) or [0, 1].
  """
  prediction, target = np.asarray(prediction), np.asarray(target)
  if prediction.shape != target.shape:
    raise ValueError(f"prediction has shape {prediction.shape}, target has {target.shape}")
  if num_classes is None:
    masks = prediction.astype(np.float64), target.astype(np.float64)
    if not all(((mask >= 0) & (mask <= 1)).all() for mask in masks):
      raise ValueError("masks must lie in [0, 1]; give num_classes for class maps")
    iou = _ratio([np.minimum(*masks).sum()], [np.maximum(*masks).sum()])
    return iou, _mean(iou)
  for name, classes in (("prediction", prediction), ("target", target)):
    if not np.issubdtype(classes.dtype, np.integer):
      raise ValueError(f"{name} must hold integers when num_classes is given, got {classes.dtype}")
    if classes.size and not (0 <= classes.min() and classes.max() < num_classes):
      raise ValueError(f"{name} has classes outside [0, {num_classes})")
  pairs = target.ravel().astype(np.int64) * num_classes + prediction.ravel()
  confusion = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
  hits = np.diag(confusion)
  iou = _ratio(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)
  return iou, _mean(iou)


def overlap_metrics(intersection, union) -> dict[str, float]:
  """Figures of binary masks from the pixels of each image.

  Args:
    intersection: [N] pixels that prediction and target share.
    union: [N] pixels that either holds.

  Returns:
    `mask_IoU`, pooled over all pixels, and `mask_IoU_per_image`, the mean over images; an image where both masks are
    empty is left out, nan if there is no other.
  """
  intersection, union = np.asarray(intersection, np.float64), np.asarray(union, np.float64)
  return {
      "mask_IoU": float(_ratio(intersection.sum(), union.sum())),
      "mask_IoU_per_image": _mean(_ratio(intersection, union)),
  }


def region_metrics(confusion, names) -> dict[str, float]:
  """Figures of a parsing from the pixels of all images.

  Args:
    confusion: int [R, R] or [N, R, R], pixels of true (rows) and predicted (columns) region; images are added up.
    names: of the R regions.

  Returns:
    `region_IoU/<name>` of each, nan for a region that is neither there nor predicted, and `region_mIoU`, the mean of the others.
  """
  confusion = np.asarray(confusion, np.float64).reshape(-1, len(names), len(names)).sum(axis=0)
  hit = np.diagonal(confusion)
  iou = _ratio(hit, confusion.sum(axis=0) + confusion.sum(axis=1) - hit)
  return {"region_mIoU": _mean(iou)} | {f"region_IoU/{name}": float(value) for name, value in zip(names, iou)}


# Conventions. Each takes label, score, known, decision as `_check` and the
# convention's threshold rule leave them (label False where unknown), and returns
# what the code base prints. 0 / 0 is nan in here, with numpy's warning silenced.


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
  return {prefix + name: value for name, value in values.items()}


def _native(label, score, known, decision) -> dict[str, float]:
  """The project's own definitions: see the public functions above."""
  counts = _count(label, decision, known)
  ma = _mean(_balanced(counts))
  return {
      "mAP": _mean(_average_precisions(label, score, known)),
      "mAP_interpolated": _mean(_average_precisions(label, score, known, envelope=True)),
      "mA": ma,
      **_instance_metrics(label, decision, known),
      **_label_metrics(label, decision, known),
      **_prefixed("top3_", _label_metrics(label, _top_k(score, known, 3) & decision, known)),
      **_prefixed("top3_exact_", _label_metrics(label, _top_k(score, known, 3), known)),
      "balanced_accuracy": ma,
      "classification_error": _mean(_ratio(counts.fp + counts.fn, known.sum(axis=0))),
      **{key: value for key, value in set_metrics(label, decision, known).items() if key.startswith("sample_")},
      "ROC-AUC": _mean(roc_auc(label, score, known)),
      "mean_positive_share": _mean(_ratio(counts.positive, known.sum(axis=0))),
      "labels_without_positives": int((counts.positive == 0).sum()),
      "labels_without_negatives": int((counts.negative == 0).sum()),
      "labels_without_known": int((~known.any(axis=0)).sum()),
  }


def _pedestrian(label, decision, known) -> dict[str, float]:
  """mA and the instance metrics with 1e-20 in every denominator.

  A label without positives so scores half its TNR, an image without positives 0.
  """
  eps = 1e-20
  label_counts = _count(label, decision, known)
  ma = np.mean((label_counts.tp / (label_counts.positive + eps)
                + label_counts.tn / (label_counts.negative + eps)) / 2)
  counts = _count(label, decision, known, axis=1)
  accuracy = counts.tp / (counts.predicted + counts.fn + eps)
  precision = counts.tp / (counts.predicted + eps)
  recall = counts.tp / (counts.positive + eps)
  mean_precision, mean_recall = precision.mean(), recall.mean()
  return {
      "mA": ma,
      "Acc": accuracy.mean(),
      "Prec": mean_precision,
      "Rec": mean_recall,
      "F1": 2 * mean_precision * mean_recall / (mean_precision + mean_recall + eps),
      "F1_instance_mean": np.mean(2 * precision * recall / (precision + recall + eps)),
  }


def _all_known(known) -> np.ndarray:
  """For code bases that take unspecified labels for negative ones."""
  return np.ones_like(known)


def _rethinking(label, score, known, decision) -> dict[str, float]:
  """Jia et al. 2021, Rethinking_of_PAR: pedestrian_metrics.py and ml_metrics.py.

  Unspecified is negative. mAP counts a label without positives as 0 (scikit-learn);
  R-C and both F1-C are nan with such a label. F1 of the averaged Prec and Rec.
  """
  known = _all_known(known)
  result = _pedestrian(label, decision, known)
  del result["F1_instance_mean"]
  counts = _count(label, decision, known)
  pooled = counts.pooled()
  precision = counts.tp / np.maximum(counts.predicted, 1)
  recall = counts.tp / counts.positive
  p_c, r_c = precision.mean(), recall.mean()
  p_o, r_o = pooled.tp / pooled.predicted, pooled.tp / pooled.positive
  # Without a hit both are 0; where the label has no positives recall is nan and stays.
  f1 = np.where(counts.tp > 0, 2 * precision * recall / (precision + recall), recall)
  return {
      **result,
      "mAP": np.mean(np.nan_to_num(_average_precisions(label, score, known))),
      "P-C": p_c, "R-C": r_c, "F1-C": 2 * p_c * r_c / (p_c + r_c),
      "F1-C_label_mean": f1.mean(),
      "P-O": p_o, "R-O": r_o, "F1-O": 2 * p_o * r_o / (p_o + r_o),
  }


def _strong_baseline(label, score, known, decision) -> dict[str, float]:
  """Jia et al. 2020, Strong_Baseline; also VTB and most of OpenPAR.

  As "rethinking", but F1 is the mean of the images' F1. No AP, no C/O metrics.
  """
  del score
  result = _pedestrian(label, decision, _all_known(known))
  result["F1"] = result.pop("F1_instance_mean")
  return result


def _dangweili(label, score, known, decision) -> dict[str, float]:
  """Li, pedestrian-attribute-recognition-pytorch: baseline/utils/evaluate.py.

  logit >= 0. Unspecified is negative. mA is nan as soon as one label lacks positives
  or negatives; images without positives leave all means of the instance metrics.
  """
  del score
  known = _all_known(known)
  counts = _count(label, decision, known)
  result = _instance_metrics(label, decision, known)
  precision, recall = np.float64(result["Prec"]), np.float64(result["Rec"])
  return {
      "mA": np.mean((counts.tp / counts.positive + counts.tn / counts.negative) / 2),
      "Acc": result["Acc"], "Prec": precision, "Rec": recall,
      "F1": 2 * precision * recall / (precision + recall),
  }


def _vac(label, score, known, decision) -> dict[str, float]:
  """Guo et al. 2019, visual_attention_consistency: test.py.

  AP drops unspecified samples and counts a label without positives as 0; everything
  else takes unspecified for negative. F1-C is the mean of the labels' F1. Where the
  program divides by zero and stops (mA with a label without positives) the value is nan.
  """
  everywhere = _all_known(known)
  counts = _count(label, decision, everywhere)
  pooled = counts.pooled()
  instance = _pedestrian(label, decision, everywhere)
  ap = _average_precisions(label, score, known)
  ap[known.any(axis=0) & np.isnan(ap)] = 0
  return {
      "mAP": ap.mean(),
      "mA": np.mean(counts.tp / counts.positive / 2 + counts.tn / counts.negative / 2),
      "P-C": np.mean(_ratio(counts.tp, counts.predicted, empty=0.0)),
      "R-C": np.mean(_ratio(counts.tp, counts.positive, empty=0.0)),
      "F1-C": np.mean(_ratio(2 * counts.tp, counts.predicted + counts.positive, empty=0.0)),
      "P-O": _ratio(pooled.tp, pooled.predicted, empty=0.0),
      "R-O": _ratio(pooled.tp, pooled.positive, empty=0.0),
      "F1-O": _ratio(2 * pooled.tp, pooled.predicted + pooled.positive, empty=0.0),
      "Acc": instance["Acc"], "Prec": instance["Prec"], "Rec": instance["Rec"],
      "F1": 2 * instance["Prec"] * instance["Rec"] / (instance["Prec"] + instance["Rec"]),
  }


def _matlab_precision_recall_f1(counts: _Counts):
  """eps on every count (a label never predicted: precision 1), and beside the recall."""
  eps = np.finfo(np.float64).eps
  precision = (counts.tp + eps) / (counts.predicted + eps)
  recall = (counts.tp + eps) / (counts.positive + eps) + eps
  return precision, recall, 2 * precision * recall / (precision + recall)


def _srn(label, score, known, decision) -> dict[str, float]:
  """Zhu et al. 2017, SRN_multilabel: evaluate.m and its tools.

  mAP is interpolated, drops unspecified samples, breaks ties by file order, and is
  nan as soon as one label has no positives. For the others unspecified is negative;
  F1-C is the mean of the labels' F1.
  """
  p, r, f1 = _matlab_precision_recall_f1(_count(label, decision, _all_known(known)))
  pooled = _count(label, decision, _all_known(known)).pooled()
  p_o, r_o, f1_o = _matlab_precision_recall_f1(pooled)
  return {
      "mAP": np.mean(_average_precisions(label, score, known, ties="file", envelope=True)),
      "P-C": p.mean(), "R-C": r.mean(), "F1-C": f1.mean(),
      "P-O": p_o, "R-O": r_o, "F1-O": f1_o,
  }


def _diaa(label, score, known, decision) -> dict[str, float]:
  """Sarafianos et al. 2018, imbalanced_learning: the test path of evaluation.py.

  SRN's mAP with ties as numpy's sort, read backwards, leaves them.
  """
  del decision
  return {"mAP": np.mean(
      _average_precisions(label, score, known, ties="reversed", envelope=True))}


def _query2labels(label, score, known, decision) -> dict[str, float]:
  """Liu et al. 2021, query2labels: voc_mAP.

  Interpolated, unspecified is negative, nan as soon as one label has no positives.
  """
  del decision
  return {"mAP": np.mean(_average_precisions(
      label, score, _all_known(known), ties="negated", envelope=True))}


def _asl(label, score, known, decision) -> dict[str, float]:
  """Ridnik et al. 2021, ASL: validate.py; ML-Decoder has the same metrics.

  p > 0.8 (ML-Decoder 0.75). AP in sorted order, divided by P + 1e-8, 0 without
  positives. F1-C is the mean of the labels' F1. Unspecified is negative.
  """
  known = _all_known(known)
  counts = _count(label, decision, known)
  pooled = counts.pooled()
  ap = np.nan_to_num(_average_precisions(label, score, known, ties="reversed"))
  p_o, r_o = pooled.tp / pooled.predicted, pooled.tp / pooled.positive
  return {
      "mAP": np.mean(ap * counts.positive / (counts.positive + 1e-8)),
      "P-C": np.mean(_ratio(counts.tp, counts.predicted, empty=0.0)),
      "R-C": np.mean(_ratio(counts.tp, counts.positive, empty=0.0)),
      "F1-C": np.mean(_ratio(2 * counts.tp, counts.predicted + counts.positive, empty=0.0)),
      "P-O": p_o, "R-O": r_o, "F1-O": 2 * p_o * r_o / (p_o + r_o),
  }


def _mlgcn_overall(counts: _Counts) -> dict[str, float]:
  """C/O metrics of ML-GCN. A label never predicted adds 1 to the pool of P-O as well."""
  predicted = np.maximum(counts.predicted, 1)
  p_o = counts.tp.sum() / predicted.sum()
  r_o = counts.tp.sum() / counts.positive.sum()
  p_c, r_c = np.mean(counts.tp / predicted), np.mean(counts.tp / counts.positive)
  return {
      "P-C": p_c, "R-C": r_c, "F1-C": 2 * p_c * r_c / (p_c + r_c),
      "P-O": p_o, "R-O": r_o, "F1-O": 2 * p_o * r_o / (p_o + r_o),
  }


def _mlgcn_top3(label, score, known, decision) -> dict[str, float]:
  """Chen et al. 2019, ML-GCN: util.py, AveragePrecisionMeter.

  logit >= 0. The top3_ values are of the three highest labels that also pass.
  Unspecified is negative. F1-C of the averaged P-C and R-C. R-C is nan with a label
  without positives, and so is mAP, for which the program stops. Ties follow the file
  and the lower index here; torch's sort and topk promise no order.
  """
  known = _all_known(known)
  top = _top_k(score, known, 3) & decision
  return {
      "mAP": np.mean(_average_precisions(label, score, known, ties="file")),
      **_mlgcn_overall(_count(label, decision, known)),
      **_prefixed("top3_", _mlgcn_overall(_count(label, top, known))),
  }


def _mmpretrain_overall(counts: _Counts) -> dict[str, float]:
  def scores(tp, predicted, positive):
    precision, recall = tp / np.maximum(predicted, 1), tp / np.maximum(positive, 1)
    # Its float32 eps bounds the sum of two percentages.
    floor = np.finfo(np.float32).eps / 100
    return precision, recall, 2 * precision * recall / np.maximum(precision + recall, floor)

  pooled = counts.pooled()
  return {
      **dict(zip(("P-C", "R-C", "F1-C"),
                 map(np.mean, scores(counts.tp, counts.predicted, counts.positive)))),
      **dict(zip(("P-O", "R-O", "F1-O"),
                 scores(pooled.tp, pooled.predicted, pooled.positive))),
  }


def _mmpretrain(label, score, known, decision) -> dict[str, float]:
  """mmpretrain: AveragePrecision, MultiLabelMetric (macro as C, micro as O).

  p >= 0.5; its topk=3 picks three labels before the unspecified ones are dropped.
  AP in sorted order, unspecified dropped, 0 without positives. F1-C is the mean of
  the labels' F1. Ties follow the file here; torch's sort promises no order.
  """
  ap = np.nan_to_num(_average_precisions(label, score, known, ties="file"))
  top = _top_k(score, _all_known(known), 3)
  return {
      "mAP": ap.mean(),
      **_mmpretrain_overall(_count(label, decision, known)),
      **_prefixed("top3_exact_", _mmpretrain_overall(_count(label, top, known))),
  }


def _paddleclas(label, score, known, decision) -> dict[str, float]:
  """PaddleClas: get_attr_metrics with AttrMeter, and MultiLabelMAP (integral).

  Unspecified is dropped, but negative in mAP. mAP skips labels without positives
  (0 if there are no others) and is that of an evaluation in one batch.
  F1-C_label_mean is its label_f1, which takes the *mean* recall for every label's.
  Its evaluation passes logits where it compares with 0.5; for those figures give
  threshold = 1 / (1 + exp(-0.5)).
  """
  eps = 1e-20
  result = _pedestrian(label, decision, known)
  del result["F1_instance_mean"]
  counts = _count(label, decision, known)
  precision = counts.tp / (counts.predicted + eps)
  recall = np.mean(counts.tp / (counts.positive + eps))
  ap = _average_precisions(label, score, _all_known(known), ties="reversed")
  return {
      **result,
      "mAP": _mean(ap) if label.any() else 0.0,
      "F1-C_label_mean": np.mean(2 * precision * recall / (precision + recall + eps)),
      "R-C": recall,
      "label_negative_recall": np.mean(counts.tn / (counts.negative + eps)),
  }


def _orderless_rnn(label, score, known, decision) -> dict[str, float]:
  """Yazici et al. 2020, orderless-rnn-classification: train_bce.py.

  p >= 0.5. Unspecified is negative, undefined values are 0 (scikit-learn's macro and
  micro averages), F1-C of the averaged P-C and R-C. No AP.
  """
  del score
  counts = _count(label, decision, _all_known(known))
  pooled = counts.pooled()
  p_c = np.mean(_ratio(counts.tp, counts.predicted, empty=0.0))
  r_c = np.mean(_ratio(counts.tp, counts.positive, empty=0.0))
  return {
      "P-C": p_c, "R-C": r_c, "F1-C": 2 * p_c * r_c / (p_c + r_c),
      "P-O": _ratio(pooled.tp, pooled.predicted, empty=0.0),
      "R-O": _ratio(pooled.tp, pooled.positive, empty=0.0),
      "F1-O": _ratio(2 * pooled.tp, pooled.predicted + pooled.positive, empty=0.0),
  }


@dataclasses.dataclass(frozen=True)
class Convention:
  """How a code base decides (`score` against `threshold`) and what it prints."""
  metrics: Callable[..., dict[str, float]]
  threshold: float = 0.5
  strict: bool = True  # score > threshold, else score >= threshold


CONVENTIONS = {
    "native": Convention(_native, strict=False),
    "rethinking": Convention(_rethinking),
    "strong_baseline": Convention(_strong_baseline),
    "dangweili": Convention(_dangweili, strict=False),
    "vac": Convention(_vac),
    "srn": Convention(_srn),
    "diaa": Convention(_diaa),
    "asl": Convention(_asl, threshold=0.8),
    "ml_decoder": Convention(_asl, threshold=0.75),
    "mlgcn_top3": Convention(_mlgcn_top3, strict=False),
    "mmpretrain": Convention(_mmpretrain, strict=False),
    "query2labels": Convention(_query2labels),
    "paddleclas": Convention(_paddleclas),
    "orderless_rnn": Convention(_orderless_rnn, strict=False),
}


def evaluate_all(
    label, score, *, known=None, threshold=None, convention: str = "native",
    decision=None) -> dict[str, float]:
  """Every metric of a split, as `convention` defines it.

  "native" gives mAP, mAP_interpolated, mA, Acc, Prec, Rec, F1, F1_instance_mean, P-C,
  R-C, F1-C, F1-C_label_mean, P-O, R-O, F1-O, the last seven also with top3_ (the
  three highest that pass the threshold) and top3_exact_ (exactly three),
  balanced_accuracy, classification_error, sample_ with P, R, F1 and F2, ROC-AUC,
  mean_positive_share, and the counts labels_without_positives,
  labels_without_negatives, labels_without_known, images_without_positives and
  num_samples. It does not depend on the order of the samples.

  Every other convention gives what that code base prints, no more, under the same
  names, e.g. F1 is the mean of the images' F1 in "strong_baseline". Its threshold
  rule, eps and treatment of unspecified labels, ties, and empty labels and images
  are the code base's. Sums run in float64 also where it uses float32. Where its
  program would stop with a division by zero the value is nan.

  Args:
    label: [N, L], 0 or 1.
    score: [N, L], probabilities.
    known: [N, L] bool or None.
    threshold: a number, one per label [L], or None for the convention's own: 0.5,
      but 0.8 for "asl" and 0.75 for "ml_decoder".
    convention: a key of CONVENTIONS.
    decision: [N, L] bool in place of the comparison with `threshold`, for models
      that choose a label set by themselves.

  Returns:
    Names to fractions in [0, 1], and counts.

  Raises:
    ValueError: unknown convention, scores outside [0, 1], both threshold and
      decision, or arrays as the module's head forbids.
  """
  if convention not in CONVENTIONS:
    raise ValueError(f"unknown convention {convention!r}; known: {', '.join(CONVENTIONS)}")
  rule = CONVENTIONS[convention]
  label, score, known = _check(label, score, known)
  if score.min() < 0 or score.max() > 1:
    raise ValueError(
        f"scores lie in [{score.min():.4g}, {score.max():.4g}]; give probabilities "
        "(the sigmoid of the logits)")
  if decision is None:
    limit = _threshold(rule.threshold if threshold is None else threshold, score)
    decision = score > limit if rule.strict else score >= limit
  elif threshold is not None:
    raise ValueError("give threshold or decision, not both")
  else:
    decision = np.asarray(decision)
    if decision.shape != label.shape:
      raise ValueError(f"decision has shape {decision.shape}, label has {label.shape}")
    decision = decision.astype(bool)
  with np.errstate(divide="ignore", invalid="ignore"):
    result = rule.metrics(label, score, known, decision)
  return {
      **{name: value if isinstance(value, int) else float(value)
         for name, value in result.items()},
      "num_samples": len(label),
  }
