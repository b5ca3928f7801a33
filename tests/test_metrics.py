"""Metrics against scikit-learn, slow loops, hand-worked cases and properties."""

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from attr_jax import metrics

NATIVE_COUNTS = (
    "labels_without_positives", "labels_without_negatives", "labels_without_known",
    "images_without_positives", "num_samples")


def random_split(seed=0, n=200, l=7, digits=None, unknown=0.15, empty_label=None, empty_images=0):
  rng = np.random.default_rng(seed)
  label = (rng.random((n, l)) < rng.uniform(0.1, 0.6, l)).astype(np.uint8)
  score = 1 / (1 + np.exp(-(1.5 * (label - 0.5) + rng.normal(size=(n, l)))))
  if digits is not None:
    score = score.round(digits)
  if empty_label is not None:
    label[:, empty_label] = 0
  if empty_images:
    label[rng.choice(n, empty_images, replace=False)] = 0
  return label, score, rng.random((n, l)) >= unknown


def same(a, b, **tolerance):
  np.testing.assert_allclose(a, b, **{"rtol": 1e-12, "atol": 1e-12, **tolerance})


# Slow loops, written for the tests, one number at a time.


def slow_ap_in_order(labels, envelope=False):
  """AP of labels already ranked, one cut after each sample."""
  precisions, hits = [], 0
  for rank, y in enumerate(labels, 1):
    hits += int(y)
    precisions.append(hits / rank)
  if not hits:
    return math.nan
  total = 0.0
  for i, y in enumerate(labels):
    if y:
      total += max(precisions[i:]) if envelope else precisions[i]
  return total / hits


def slow_ap_by_threshold(labels, scores, envelope=False):
  """AP over distinct thresholds."""
  points = []
  for t in sorted(set(scores), reverse=True):
    chosen = [y for y, s in zip(labels, scores) if s >= t]
    points.append((sum(chosen), sum(chosen) / len(chosen)))
  positives = int(sum(labels))
  if not positives:
    return math.nan
  total, before = 0.0, 0
  for i, (hits, precision) in enumerate(points):
    if envelope:
      precision = max(p for _, p in points[i:])
    total += (hits - before) * precision
    before = hits
  return total / positives


def ranked(labels, scores, how):
  """labels from the highest score to the lowest, ties as `how` says."""
  labels, scores = list(labels), np.asarray(scores)
  if how == "file":
    order = sorted(range(len(labels)), key=lambda i: -scores[i])  # Python's sort is stable
  elif how == "reversed":
    order = scores.argsort()[::-1]
  else:
    order = (-scores).argsort()
  return [labels[i] for i in order]


def slow_counts(label, decision):
  tp = fp = fn = tn = 0
  for y, p in zip(label, decision):
    tp += bool(y and p)
    fp += bool(p and not y)
    fn += bool(y and not p)
    tn += bool(not y and not p)
  return tp, fp, fn, tn


def div(a, b):
  """a / b as numpy does it."""
  return a / b if b else math.nan


def slow_top3(score, decision=None):
  """The three highest of each image, ties to the lower index, and passing `decision`."""
  chosen = np.zeros(score.shape, bool)
  for i, row in enumerate(score):
    for j in sorted(range(len(row)), key=lambda j: -row[j])[:3]:
      chosen[i, j] = decision is None or decision[i, j]
  return chosen


# Average precision.


@pytest.mark.parametrize("digits", [None, 1, 0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_step_is_scikit_learns(seed, digits):
  label, score, known = random_split(seed, digits=digits)
  expected = [
      sk.average_precision_score(label[known[:, i], i], score[known[:, i], i])
      for i in range(label.shape[1])]
  same(metrics.average_precision(label, score, known), expected)
  same(metrics.mean_average_precision(label, score, known), np.mean(expected))


@pytest.mark.parametrize("digits", [None, 1])
def test_flavours_are_the_slow_loops(digits):
  label, score, known = random_split(3, n=60, digits=digits)
  for flavour in metrics.FLAVOURS:
    result = metrics.average_precision(label, score, known, flavour)
    assert result.dtype == np.float64 and result.shape == (7,)
    for i in range(7):
      y, s = label[known[:, i], i], score[known[:, i], i]
      if flavour == "sorted":
        expected = slow_ap_in_order(ranked(y, s, "file"))
      else:
        expected = slow_ap_by_threshold(y, s, envelope=flavour == "interpolated")
      same(result[i], expected)
      same(metrics.average_precision(label[:, i], score[:, i], known[:, i], flavour), expected)


def test_average_precision_by_hand():
  # Ranks 1..5 hold 1 0 1 0 0 (0.9 is the best): (1/1 + 2/3) / 2.
  label, score = [1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.1]
  same(metrics.average_precision(label, score), 5 / 6)
  # 0 1 1: (1/2 + 2/3) / 2, and made monotone 2/3.
  assert metrics.average_precision([0, 1, 1], [3, 2, 1]) == pytest.approx(7 / 12)
  assert metrics.average_precision([0, 1, 1], [3, 2, 1], flavour="interpolated") == pytest.approx(2 / 3)
  # All tied: the share of positives, whatever the order; "sorted" believes the order.
  for y in ([1, 0, 0, 0], [0, 0, 0, 1]):
    assert metrics.average_precision(y, [0.5] * 4) == 0.25
  assert metrics.average_precision([1, 0, 0, 0], [0.5] * 4, flavour="sorted") == 1
  assert metrics.average_precision([0, 0, 0, 1], [0.5] * 4, flavour="sorted") == 0.25


def test_unspecified_samples_are_dropped_not_negative():
  label, score = np.array([[1], [0], [1]]), np.array([[0.3], [0.9], [0.8]])
  known = np.array([[True], [False], [True]])
  assert metrics.average_precision(label, score, known)[0] == 1
  assert metrics.average_precision(label, score)[0] < 1
  label[1, 0] = 77  # never looked at
  assert metrics.average_precision(label, score, known)[0] == 1


@pytest.mark.parametrize("seed", range(5))
def test_interpolated_is_never_below_step(seed):
  label, score, known = random_split(seed, digits=1)
  step = metrics.average_precision(label, score, known)
  assert (metrics.average_precision(label, score, known, "interpolated") >= step - 1e-15).all()


def test_without_ties_sorted_is_step_and_any_monotone_map_keeps_all():
  label, score, known = random_split(4)
  logit = np.log(score / (1 - score))
  for flavour in metrics.FLAVOURS:
    same(metrics.average_precision(label, score, known, flavour),
         metrics.average_precision(label, logit, known, flavour))
  same(metrics.average_precision(label, score, known, "sorted"),
       metrics.average_precision(label, score, known, "step"))


def test_sorted_depends_on_the_order_of_the_file_step_does_not():
  label, score, known = random_split(5, digits=1)
  shuffle = np.random.default_rng(0).permutation(len(label))
  arrays = label, score, known
  shuffled = [x[shuffle] for x in arrays]
  for flavour in ("step", "interpolated"):
    same(metrics.average_precision(*arrays, flavour), metrics.average_precision(*shuffled, flavour))
  assert (metrics.mean_average_precision(*arrays, "sorted")
          != metrics.mean_average_precision(*shuffled, "sorted"))


def test_roc_auc_is_scikit_learns():
  label, score, known = random_split(6, digits=1)
  expected = [sk.roc_auc_score(label[known[:, i], i], score[known[:, i], i]) for i in range(7)]
  same(metrics.roc_auc(label, score, known), expected)
  assert np.isnan(metrics.roc_auc([[1], [1]], [[0.1], [0.2]])[0])


# Native decisions.


def test_decision_metrics_by_hand():
  #        a  b  c
  label = [[1, 0, 1],
           [0, 0, 1],
           [1, 1, 0],
           [0, 0, 0]]
  score = [[.9, .6, .2],
           [.1, .2, .5],
           [.4, .7, .1],
           [.3, .1, .8]]
  # Decisions:  1 1 0 / 0 0 1 (0.5 counts) / 0 1 0 / 0 0 1.
  assert metrics.mean_accuracy(label, score) == pytest.approx(
      ((1 / 2 + 2 / 2) / 2 + (1 / 1 + 2 / 3) / 2 + (1 / 2 + 1 / 2) / 2) / 3)
  assert metrics.balanced_accuracy(label, score) == metrics.mean_accuracy(label, score)
  assert metrics.classification_error(label, score) == pytest.approx((1 + 1 + 2) / 12)
  instance = metrics.instance_metrics(label, score)
  # Images: |y&p| 1 1 1, |y|p| 3 1 2, |p| 2 1 1, |y| 2 1 2; the fourth has no positive.
  assert instance["Acc"] == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)
  assert instance["Prec"] == pytest.approx((1 / 2 + 1 + 1) / 3)
  assert instance["Rec"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
  p, r = 5 / 6, 2 / 3
  assert instance["F1"] == pytest.approx(2 * p * r / (p + r))
  assert instance["F1_instance_mean"] == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
  assert instance["images_without_positives"] == 1
  labels = metrics.label_metrics(label, score)
  assert labels["P-C"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
  assert labels["R-C"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
  assert labels["F1-C"] == pytest.approx(2 / 3)
  assert labels["F1-C_label_mean"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)
  assert labels["P-O"] == labels["R-O"] == labels["F1-O"] == pytest.approx(3 / 5)
  # F2 of the images: 5 TP / (4 P + predicted) = 5/10, 5/5, 5/9, 0/1.
  assert metrics.sample_f_beta(label, score) == pytest.approx((1 / 2 + 1 + 5 / 9 + 0) / 4)


def test_instance_and_label_metrics_are_the_slow_loops():
  label, score, known = random_split(7, empty_label=2, empty_images=20)
  decision = score >= 0.5
  accuracy, precision, recall, f1 = [], [], [], []
  skipped = 0
  for y, p, k in zip(label, decision, known):
    tp, fp, fn, _ = slow_counts(y[k], p[k])
    if tp + fn == 0:
      skipped += 1
      continue
    accuracy.append(tp / (tp + fp + fn))
    precision.append(tp / (tp + fp) if tp + fp else 0.0)
    recall.append(tp / (tp + fn))
    f1.append(2 * tp / (2 * tp + fp + fn))
  result = metrics.instance_metrics(label, score, known)
  assert result["images_without_positives"] == skipped >= 20
  p, r = np.mean(precision), np.mean(recall)
  same([result[k] for k in ("Acc", "Prec", "Rec", "F1", "F1_instance_mean")],
       [np.mean(accuracy), p, r, 2 * p * r / (p + r), np.mean(f1)])

  columns = [slow_counts(label[known[:, i], i], decision[known[:, i], i]) for i in range(7)]
  some = [c for c in columns if c[0] + c[2]]
  assert len(some) == 6
  p = np.mean([tp / (tp + fp) if tp + fp else 0.0 for tp, fp, _, _ in some])
  r = np.mean([tp / (tp + fn) for tp, _, fn, _ in some])
  tp, fp, fn, _ = np.sum(columns, axis=0)
  result = metrics.label_metrics(label, score, known)
  same([result[k] for k in ("P-C", "R-C", "F1-C", "F1-C_label_mean", "P-O", "R-O", "F1-O")],
       [p, r, 2 * p * r / (p + r), np.mean([2 * a / (2 * a + b + c) for a, b, c, _ in some]),
        tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)])
  same(metrics.mean_accuracy(label, score, known),
       np.mean([(a / (a + c) + d / (d + b)) / 2 for a, b, c, d in some]))


def test_label_and_sample_metrics_are_scikit_learns():
  label, score, _ = random_split(8, empty_images=30)
  decision = score >= 0.5
  result = metrics.evaluate_all(label, score)
  for name, average in (("C", "macro"), ("O", "micro")):
    p, r, f1, _ = sk.precision_recall_fscore_support(label, decision, average=average, zero_division=0)
    same([result[f"P-{name}"], result[f"R-{name}"]], [p, r])
    same(result["F1-O" if name == "O" else "F1-C_label_mean"], f1)
  for beta in (1, 2, 0.5):
    same(metrics.sample_f_beta(label, score, beta=beta),
         sk.fbeta_score(label, decision, beta=beta, average="samples", zero_division=0))
  same([result["sample_F1"], result["sample_F2"]],
       [metrics.sample_f_beta(label, score, beta=b) for b in (1, 2)])
  same(result["balanced_accuracy"], np.mean(
      [sk.balanced_accuracy_score(label[:, i], decision[:, i]) for i in range(7)]))
  same(result["classification_error"], np.mean(label != decision))


def test_top_k_by_hand_and_against_the_loop():
  label, score = [[1, 1, 0, 0, 1]], [[.9, .2, .4, .8, .3]]
  # The three highest are 0, 3, 2, of which 0 and 3 pass one half.
  exact = metrics.top_k_metrics(label, score)
  assert (exact["P-O"], exact["R-O"]) == pytest.approx((1 / 3, 1 / 3))
  passing = metrics.top_k_metrics(label, score, threshold=0.5)
  assert (passing["P-O"], passing["R-O"]) == pytest.approx((1 / 2, 1 / 3))
  # An unspecified label takes no place: without label 3 the three are 0, 2, 4.
  known = [[True, True, True, False, True]]
  assert metrics.top_k_metrics(label, score, known)["P-O"] == pytest.approx(2 / 3)

  label, score, _ = random_split(9, digits=1)
  for threshold in (None, 0.5):
    chosen = slow_top3(score, None if threshold is None else score >= threshold)
    expected = metrics.label_metrics(label, chosen)  # decisions are valid scores
    assert metrics.top_k_metrics(label, score, threshold=threshold) == expected
  every = metrics.top_k_metrics(label, score, k=99)
  assert every["R-O"] == 1 and every["P-O"] == pytest.approx(label.mean())


def test_thresholds_per_label_and_in_the_type_of_the_scores():
  label, score, known = random_split(10)
  thresholds = np.linspace(0.2, 0.8, 7)
  by_hand = metrics.evaluate_all(
      label, score, known=known, decision=score >= thresholds)
  assert metrics.evaluate_all(label, score, known=known, threshold=thresholds) == by_hand
  same(metrics.mean_accuracy(label, score, known, thresholds), by_hand["mA"])
  # float32(0.8) is above 0.8: with a strict rule it must not pass.
  score = np.full((2, 1), 0.8, np.float32)
  assert metrics.evaluate_all([[1], [0]], score, convention="asl")["R-C"] == 0
  assert metrics.label_metrics([[1], [0]], score, threshold=0.8)["R-C"] == 1


def test_perfect_scores_give_one_and_wrong_ones_zero():
  label, _, known = random_split(11, empty_images=10)
  result = metrics.evaluate_all(label, label.astype(float), known=known)
  ones = [v for k, v in result.items()
          if not k.startswith(("top3", "sample", "mean_", "classification")) and k not in NATIVE_COUNTS]
  assert ones == [1.0] * len(ones) and len(ones) > 10
  assert result["classification_error"] == 0
  wrong = metrics.evaluate_all(label, 1.0 - label, known=known)
  assert wrong["mA"] == wrong["Acc"] == wrong["F1"] == wrong["F1-O"] == wrong["ROC-AUC"] == 0
  assert wrong["classification_error"] == 1


@pytest.mark.parametrize("digits", [None, 1])
def test_native_does_not_depend_on_the_order_of_the_samples(digits):
  label, score, known = random_split(12, digits=digits, empty_label=1)
  shuffle = np.random.default_rng(0).permutation(len(label))
  a = metrics.evaluate_all(label, score, known=known)
  b = metrics.evaluate_all(label[shuffle], score[shuffle], known=known[shuffle])
  assert a.keys() == b.keys()
  for name in a:
    assert a[name] == pytest.approx(b[name], abs=1e-13), name


def test_native_ignores_what_unknown_cells_hold():
  label, score, known = random_split(13)
  rng = np.random.default_rng(1)
  label2 = np.where(known, label, rng.integers(0, 2, label.shape))
  score2 = np.where(known, score, rng.random(score.shape))
  assert (metrics.evaluate_all(label, score, known=known)
          == metrics.evaluate_all(label2, score2, known=known))


def test_undefined_labels_are_left_out_and_counted():
  label, score, known = random_split(14)
  label[:, 0] = 0
  label[:, 1] = 1
  known[:, 2] = False
  result = metrics.evaluate_all(label, score, known=known)
  assert result["labels_without_positives"] == 2
  assert result["labels_without_negatives"] == 2
  assert result["labels_without_known"] == 1
  assert result["num_samples"] == 200
  rest = metrics.evaluate_all(label[:, 3:], score[:, 3:], known=known[:, 3:])
  same([result["mA"], result["ROC-AUC"]], [rest["mA"], rest["ROC-AUC"]])
  some = metrics.evaluate_all(label[:, [1, 3, 4, 5, 6]], score[:, [1, 3, 4, 5, 6]],
                              known=known[:, [1, 3, 4, 5, 6]])
  for name in ("mAP", "mAP_interpolated", "P-C", "R-C", "F1-C", "F1-C_label_mean"):
    same(result[name], some[name])
  assert all(np.isfinite(v) for v in result.values())
  single = metrics.per_attribute(label, score, known)
  assert np.isnan(single["AP"]).tolist() == [True, False, True] + [False] * 4
  assert single["unspecified"][2] == 200 and single["positives"][2] == 0


def test_nothing_defined_is_nan_with_its_count():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    result = metrics.evaluate_all(np.zeros((3, 2)), np.zeros((3, 2)), known=np.zeros((3, 2), bool))
  assert result["labels_without_positives"] == 2 and result["labels_without_known"] == 2
  assert result["images_without_positives"] == 3
  for name in ("mAP", "mA", "Acc", "F1", "F1-C", "R-O", "ROC-AUC", "mean_positive_share"):
    assert math.isnan(result[name]), name


def test_per_attribute():
  label, score, known = random_split(15, empty_label=3)
  result = metrics.per_attribute(label, score, known)
  assert set(result) == {
      "AP", "AP_interpolated", "accuracy", "balanced_accuracy", "precision", "recall", "F1",
      "ROC-AUC", "positives", "negatives", "unspecified"}
  assert all(v.shape == (7,) for v in result.values())
  np.testing.assert_array_equal(
      result["positives"] + result["negatives"] + result["unspecified"], len(label))
  overall = metrics.evaluate_all(label, score, known=known)
  for name, key in (("AP", "mAP"), ("AP_interpolated", "mAP_interpolated"), ("precision", "P-C"),
                    ("recall", "R-C"), ("F1", "F1-C_label_mean"), ("ROC-AUC", "ROC-AUC"),
                    ("balanced_accuracy", "mA")):
    same(np.nanmean(result[name]), overall[key])
  same(1 - result["accuracy"].mean(), overall["classification_error"])


# Conventions, each against a loop that follows the code base's description.


def slow_pedestrian(label, decision, known, mean_of_f1):
  """mA and instance metrics where 0 / 0 is 0; unknown cells are skipped."""
  ma = 0.0
  for i in range(label.shape[1]):
    tp, fp, fn, tn = slow_counts(label[known[:, i], i], decision[known[:, i], i])
    ma += ((tp / (tp + fn) if tp + fn else 0) + (tn / (tn + fp) if tn + fp else 0)) / 2
  acc = prec = rec = f1 = 0.0
  for y, p, k in zip(label, decision, known):
    tp, fp, fn, _ = slow_counts(y[k], p[k])
    acc += tp / (tp + fp + fn) if tp + fp + fn else 0
    prec += tp / (tp + fp) if tp + fp else 0
    rec += tp / (tp + fn) if tp + fn else 0
    f1 += 2 * tp / (2 * tp + fp + fn) if tp else 0
  n, l = label.shape
  acc, prec, rec, f1 = acc / n, prec / n, rec / n, f1 / n
  return {"mA": ma / l, "Acc": acc, "Prec": prec, "Rec": rec,
          "F1": f1 if mean_of_f1 else div(2 * prec * rec, prec + rec)}


def columns_of(label, decision):
  return [slow_counts(label[:, i], decision[:, i]) for i in range(label.shape[1])]


def slow_rethinking(label, score, known):
  label, decision = label * known, score > 0.5
  result = slow_pedestrian(label, decision, np.ones_like(known), mean_of_f1=False)
  columns = columns_of(label, decision)
  ap = [sk.average_precision_score(label[:, i], score[:, i]) if label[:, i].any() else 0.0
        for i in range(label.shape[1])]
  p = [tp / max(tp + fp, 1) for tp, fp, _, _ in columns]
  r = [div(tp, tp + fn) for tp, _, fn, _ in columns]
  f1 = [math.nan if math.isnan(b) else div(2 * a * b, a + b) if a + b else 0 for a, b in zip(p, r)]
  tp, fp, fn, _ = np.sum(columns, axis=0)
  po, ro, pc, rc = tp / (tp + fp), tp / (tp + fn), np.mean(p), np.mean(r)
  return {**result, "mAP": np.mean(ap), "P-C": pc, "R-C": rc, "F1-C": 2 * pc * rc / (pc + rc),
          "F1-C_label_mean": np.mean(f1), "P-O": po, "R-O": ro, "F1-O": 2 * po * ro / (po + ro)}


def slow_strong_baseline(label, score, known):
  return slow_pedestrian(label * known, score > 0.5, np.ones_like(known), mean_of_f1=True)


def slow_dangweili(label, score, known):
  label, decision = label * known, score >= 0.5
  ma = np.mean([(div(tp, tp + fn) + div(tn, tn + fp)) / 2
                for tp, fp, fn, tn in columns_of(label, decision)])
  acc = prec = rec = images = 0
  for y, p in zip(label, decision):
    tp, fp, fn, _ = slow_counts(y, p)
    if tp + fn:
      images += 1
      acc += tp / (tp + fp + fn)
      prec += tp / (tp + fp) if tp + fp else 0
      rec += tp / (tp + fn)
  acc, prec, rec = acc / images, prec / images, rec / images
  return {"mA": ma, "Acc": acc, "Prec": prec, "Rec": rec, "F1": 2 * prec * rec / (prec + rec)}


def slow_vac(label, score, known):
  ap = []
  for i in range(label.shape[1]):
    y = label[known[:, i], i]
    ap.append(sk.average_precision_score(y, score[known[:, i], i]) if y.any() else 0.0)
  label, decision = label * known, score > 0.5
  macro = sk.precision_recall_fscore_support(label, decision, average="macro", zero_division=0)
  micro = sk.precision_recall_fscore_support(
      label.ravel(), decision.ravel(), average="binary", zero_division=0)
  instance = slow_pedestrian(label, decision, np.ones_like(known), mean_of_f1=False)
  instance["mA"] = np.mean([(div(tp, tp + fn) + div(tn, tn + fp)) / 2
                            for tp, fp, fn, tn in columns_of(label, decision)])
  return {**instance, "mAP": np.mean(ap),
          **dict(zip(("P-C", "R-C", "F1-C"), macro)), **dict(zip(("P-O", "R-O", "F1-O"), micro))}


def slow_srn(label, score, known):
  ap = [slow_ap_in_order(ranked(label[known[:, i], i], score[known[:, i], i], "file"), True)
        for i in range(label.shape[1])]
  label, decision, eps = label * known, score > 0.5, 2.0**-52

  def prf(tp, fp, fn):
    p, r = (tp + eps) / (tp + fp + eps), (tp + eps) / (tp + fn + eps) + eps
    return p, r, 2 * p * r / (p + r)

  columns = columns_of(label, decision)
  p, r, f1 = np.mean([prf(*c[:3]) for c in columns], axis=0)
  po, ro, fo = prf(*np.sum(columns, axis=0)[:3])
  return {"mAP": np.mean(ap), "P-C": p, "R-C": r, "F1-C": f1, "P-O": po, "R-O": ro, "F1-O": fo}


def slow_diaa(label, score, known):
  result = []
  for i in range(label.shape[1]):
    coded = ranked(np.where(known[:, i], label[:, i].astype(int), -1), score[:, i], "reversed")
    result.append(slow_ap_in_order([y for y in coded if y >= 0], True))  # dropped once sorted
  return {"mAP": np.mean(result)}


def slow_query2labels(label, score, known):
  label = label * known
  return {"mAP": np.mean([
      slow_ap_in_order(ranked(label[:, i], score[:, i], "negated"), True)
      for i in range(label.shape[1])])}


def slow_asl(label, score, known, threshold=0.8):
  label, decision = label * known, score > threshold
  ap = []
  for i in range(label.shape[1]):
    hits = total = 0
    for rank, y in enumerate(ranked(label[:, i], score[:, i], "reversed"), 1):
      hits += int(y)
      total += hits / rank if y else 0
    ap.append(total / (hits + 1e-8))
  columns = columns_of(label, decision)
  p = [tp / (tp + fp) if tp else 0 for tp, fp, _, _ in columns]
  r = [tp / (tp + fn) if tp else 0 for tp, _, fn, _ in columns]
  f1 = [2 * a * b / (a + b) if a else 0 for a, b in zip(p, r)]
  tp, fp, fn, _ = np.sum(columns, axis=0)
  po, ro = div(tp, tp + fp), div(tp, tp + fn)
  return {"mAP": np.mean(ap), "P-C": np.mean(p), "R-C": np.mean(r), "F1-C": np.mean(f1),
          "P-O": po, "R-O": ro, "F1-O": 2 * po * ro / (po + ro)}


def slow_mlgcn(label, score, known):
  label, decision = label * known, score >= 0.5
  result = {"mAP": np.mean([
      slow_ap_in_order(ranked(label[:, i], score[:, i], "file")) for i in range(label.shape[1])])}
  for prefix, chosen in (("", decision), ("top3_", slow_top3(score, decision))):
    columns = columns_of(label, chosen)
    correct = [c[0] for c in columns]
    predicted = [max(c[0] + c[1], 1) for c in columns]  # before the pooling
    positive = [c[0] + c[2] for c in columns]
    po, ro = sum(correct) / sum(predicted), sum(correct) / sum(positive)
    pc = np.mean([a / b for a, b in zip(correct, predicted)])
    rc = np.mean([div(a, b) for a, b in zip(correct, positive)])
    result |= {prefix + "P-C": pc, prefix + "R-C": rc, prefix + "F1-C": 2 * pc * rc / (pc + rc),
               prefix + "P-O": po, prefix + "R-O": ro, prefix + "F1-O": 2 * po * ro / (po + ro)}
  return result


def slow_mmpretrain(label, score, known):
  ap = []
  for i in range(label.shape[1]):
    y = label[known[:, i], i]
    ap.append(slow_ap_in_order(ranked(y, score[known[:, i], i], "file")) if y.any() else 0.0)
  result = {"mAP": np.mean(ap)}
  for prefix, chosen in (("", score >= 0.5), ("top3_exact_", slow_top3(score))):
    for suffix, average in (("C", "macro"), ("O", "micro")):
      values = sk.precision_recall_fscore_support(
          label * known, chosen & known, average=average, zero_division=0)
      result |= {f"{prefix}{m}-{suffix}": v for m, v in zip(("P", "R", "F1"), values)}
  return result


def slow_paddleclas(label, score, known):
  decision = score > 0.5
  result = slow_pedestrian(label, decision, known, mean_of_f1=False)
  everywhere = label * known
  ap = [slow_ap_in_order(ranked(everywhere[:, i], score[:, i], "reversed"))
        for i in range(label.shape[1]) if everywhere[:, i].any()]
  columns = [slow_counts(label[known[:, i], i], decision[known[:, i], i])
             for i in range(label.shape[1])]
  recall = np.mean([tp / (tp + fn) if tp + fn else 0 for tp, _, fn, _ in columns])
  f1 = []
  for tp, fp, _, _ in columns:
    p = tp / (tp + fp) if tp + fp else 0
    f1.append(2 * p * recall / (p + recall))
  return {**result, "mAP": np.mean(ap), "F1-C_label_mean": np.mean(f1), "R-C": recall,
          "label_negative_recall": np.mean([tn / (tn + fp) for _, fp, _, tn in columns])}


def slow_orderless_rnn(label, score, known):
  label, decision = label * known, score >= 0.5
  p, r, _, _ = sk.precision_recall_fscore_support(label, decision, average="macro", zero_division=0)
  micro = sk.precision_recall_fscore_support(label, decision, average="micro", zero_division=0)
  return {"P-C": p, "R-C": r, "F1-C": 2 * p * r / (p + r),
          **dict(zip(("P-O", "R-O", "F1-O"), micro))}


SLOW = {
    "rethinking": slow_rethinking, "strong_baseline": slow_strong_baseline,
    "dangweili": slow_dangweili, "vac": slow_vac, "srn": slow_srn, "diaa": slow_diaa,
    "query2labels": slow_query2labels, "asl": slow_asl,
    "ml_decoder": lambda *a: slow_asl(*a, threshold=0.75), "mlgcn_top3": slow_mlgcn,
    "mmpretrain": slow_mmpretrain, "paddleclas": slow_paddleclas,
    "orderless_rnn": slow_orderless_rnn,
}
CASES = {
    "plain": {"unknown": 0.0},
    "ties": {"digits": 1},
    "coarse": {"digits": 0},
    "empty images": {"empty_images": 30},
    "label without positives": {"empty_label": 4},
}


def test_every_convention_has_its_loop():
  assert set(SLOW) | {"native"} == set(metrics.CONVENTIONS)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("convention", SLOW)
def test_convention_is_its_loop(convention, case):
  label, score, known = random_split(16, **CASES[case])
  label[0] = 0  # an image without labels
  score[:, 6] = np.minimum(score[:, 6], 0.4)  # a label that is never predicted
  expected = SLOW[convention](label, score, known)
  result = metrics.evaluate_all(label, score, known=known, convention=convention)
  assert result.pop("num_samples") == len(label)
  assert result.keys() == expected.keys()
  for name in expected:
    same(result[name], expected[name], err_msg=name)


def test_one_label_without_positives_poisons_some():
  label, score, _ = random_split(17, empty_label=0)
  mean = {c: metrics.evaluate_all(label, score, convention=c) for c in metrics.CONVENTIONS}
  for convention in ("srn", "diaa", "query2labels", "mlgcn_top3"):
    assert math.isnan(mean[convention]["mAP"]), convention
  for convention in ("rethinking", "vac", "asl", "mmpretrain"):  # 0 and counted
    assert mean[convention]["mAP"] == pytest.approx(mean["native"]["mAP"] * 6 / 7), convention
  assert mean["paddleclas"]["mAP"] == pytest.approx(mean["native"]["mAP"])  # skipped
  assert math.isnan(mean["dangweili"]["mA"]) and math.isnan(mean["vac"]["mA"])
  # Rethinking counts half the TNR.
  tnr = np.mean(score[:, 0] <= 0.5)
  assert mean["rethinking"]["mA"] == pytest.approx((6 * mean["native"]["mA"] + tnr / 2) / 7)


def test_the_two_f1_are_two_quantities():
  label, score, _ = random_split(18, empty_images=30)
  mean = {c: metrics.evaluate_all(label, score, convention=c)
          for c in ("native", "rethinking", "strong_baseline", "dangweili")}
  rethinking, strong, dangweili = mean["rethinking"], mean["strong_baseline"], mean["dangweili"]
  for name in ("mA", "Acc", "Prec", "Rec"):
    assert rethinking[name] == strong[name]
  assert strong["F1"] != pytest.approx(rethinking["F1"], abs=1e-3)
  # Dropping empty images rescales every mean of the instance metrics.
  share = np.mean(label.any(axis=1))
  for name in ("Acc", "Prec", "Rec"):
    assert dangweili[name] == pytest.approx(rethinking[name] / share)
  assert strong["F1"] == pytest.approx(mean["native"]["F1_instance_mean"] * share)


def test_on_clean_data_the_conventions_agree():
  label, score, _ = random_split(19)
  label[:, 0] |= ~label.any(axis=1)
  mean = {c: metrics.evaluate_all(label, score, convention=c)
          for c in metrics.CONVENTIONS if c not in ("asl", "ml_decoder")}
  native = mean.pop("native")
  for convention, values in mean.items():
    flavour = "mAP_interpolated" if convention in ("srn", "diaa", "query2labels") else "mAP"
    if "mAP" in values:
      same(values["mAP"], native[flavour])
    for name in ("mA", "Acc", "Prec", "Rec", "P-O", "R-O", "F1-O", "P-C", "R-C"):
      if name in values:
        same(values[name], native[name])
    if convention in ("vac", "srn", "mmpretrain"):
      same(values["F1-C"], native["F1-C_label_mean"])
  same(mean["mlgcn_top3"]["top3_F1-O"], native["top3_F1-O"])
  same(mean["mmpretrain"]["top3_exact_F1-O"], native["top3_exact_F1-O"])


def test_threshold_rules():
  label, score = np.array([[1], [0]]), np.array([[0.5], [0.5]])
  recall = {c: metrics.evaluate_all(label, score, convention=c).get("R-O")
            for c in metrics.CONVENTIONS}
  for convention in ("native", "mlgcn_top3", "mmpretrain", "orderless_rnn"):
    assert recall[convention] == 1, convention
  for convention in ("rethinking", "vac", "asl"):
    assert recall[convention] == 0, convention
  # What a user gives wins over the convention's own.
  assert metrics.evaluate_all(label, score, threshold=0.4, convention="asl")["R-O"] == 1


def test_unspecified_is_dropped_or_negative():
  label, score = np.array([[1], [1], [0]]), np.array([[0.8], [0.9], [0.1]])
  known = np.array([[True], [False], [True]])
  def recall(convention):
    result = metrics.evaluate_all(label, score, known=known, convention=convention)
    return result["mAP"], result["P-O"]
  assert recall("native") == recall("mmpretrain") == (1, 1)
  assert recall("vac") == pytest.approx((1, 1 / 2))
  assert recall("srn") == pytest.approx((1, 1 / 2))
  assert recall("rethinking") == pytest.approx((1 / 2, 1 / 2))


# Intersection over union.


def test_intersection_over_union():
  prediction = np.array([[0, 0, 1], [1, 1, 2]], np.uint8)
  target = np.array([[0, 1, 1], [1, 1, 0]], np.uint8)
  iou, mean = metrics.intersection_over_union(prediction, target, 4)
  np.testing.assert_allclose(iou, [1 / 3, 3 / 4, 0, np.nan])
  assert mean == pytest.approx((1 / 3 + 3 / 4 + 0) / 3)  # class 3 is nowhere
  masks = metrics.intersection_over_union(prediction == 1, target == 1)
  assert masks[0].shape == (1,) and masks[1] == pytest.approx(3 / 4)
  soft = metrics.intersection_over_union(np.array([0.5, 1.0]), np.array([1.0, 0.5]))
  assert soft[1] == pytest.approx(1 / 2)
  assert math.isnan(metrics.intersection_over_union(np.zeros(3, bool), np.zeros(3, bool))[1])
  rng = np.random.default_rng(0)
  p, t = rng.integers(0, 5, (2, 3, 20, 20))
  expected = sk.jaccard_score(t.ravel(), p.ravel(), average=None)
  same(metrics.intersection_over_union(p, t, 5)[0], expected)


@pytest.mark.parametrize("prediction, target, classes", [
    (np.zeros((2, 2), int), np.zeros((2, 3), int), 2),
    (np.array([0, 2]), np.array([0, 1]), 2),
    (np.array([0, -1]), np.array([0, 1]), 2),
    (np.array([0.0, 1.0]), np.array([0, 1]), 2),
    (np.array([0.0, 1.5]), np.array([0.0, 1.0]), None),
])
def test_intersection_over_union_refuses(prediction, target, classes):
  with pytest.raises(ValueError):
    metrics.intersection_over_union(prediction, target, classes)


# Wrong calls.


@pytest.mark.parametrize("change, message", [
    ({"label": np.zeros((4, 2))}, "shape"),
    ({"label": np.zeros(3)}, r"\[N, L\]"),
    ({"label": np.full((3, 2), -1)}, "0 or 1"),
    ({"label": np.full((3, 2), 2)}, "0 or 1"),
    ({"label": np.full((3, 2), 0.5)}, "0 or 1"),
    ({"label": np.full((3, 2), np.nan)}, "0 or 1"),
    ({"score": np.full((3, 2), np.nan)}, "nan"),
    ({"score": np.full((3, 2), 1.5)}, "probabilities"),
    ({"score": np.full((3, 2), -0.1)}, "probabilities"),
    ({"known": np.ones((2, 2), bool)}, "known has shape"),
    ({"known": np.full((3, 2), -1)}, "known must"),
    ({"threshold": np.ones(3)}, "threshold"),
    ({"threshold": np.nan}, "threshold"),
    ({"decision": np.ones((3, 1), bool)}, "decision"),
    ({"decision": np.ones((3, 2), bool), "threshold": 0.5}, "not both"),
    ({"convention": "coco"}, "native, rethinking, strong_baseline"),
    ({"label": np.zeros((0, 2)), "score": np.zeros((0, 2))}, "nothing to evaluate"),
])
def test_evaluate_all_refuses(change, message):
  arguments = {"label": np.eye(3, 2), "score": np.full((3, 2), 0.5), **change}
  with pytest.raises(ValueError, match=message):
    metrics.evaluate_all(arguments.pop("label"), arguments.pop("score"), **arguments)


def test_other_wrong_calls():
  label, score = np.eye(3, 2), np.full((3, 2), 0.5)
  with pytest.raises(ValueError, match="step, interpolated, sorted"):
    metrics.average_precision(label, score, flavour="voc")
  with pytest.raises(ValueError, match="at least 1"):
    metrics.top_k_metrics(label, score, k=0)
  with pytest.raises(ValueError, match="beta"):
    metrics.sample_f_beta(label, score, beta=0)


def test_input_types_do_not_matter():
  label, score, known = random_split(20, digits=2)
  score = score.astype(np.float32)
  expected = metrics.evaluate_all(label, score, known=known)
  for kind in (bool, np.int8, np.float32):
    assert metrics.evaluate_all(label.astype(kind), score, known=known.astype(np.uint8)) == expected
  assert metrics.evaluate_all(label.tolist(), score, known=known.tolist()) == expected
  before = label.copy(), score.copy(), known.copy()
  for convention in metrics.CONVENTIONS:
    metrics.evaluate_all(label, score, known=known, convention=convention)
  for a, b in zip(before, (label, score, known)):
    np.testing.assert_array_equal(a, b)


# Label sets and searched thresholds.


def some_sets(seed=0, images=40, labels=7):
  rng = np.random.default_rng(seed)
  label = (rng.random((images, labels)) < 0.3).astype(np.uint8)
  label[:, 0] = 0  # a label that nobody has
  score = np.clip(0.5 * label + rng.random(label.shape) * 0.6, 0, 1)
  decision = score > 0.45
  decision[3] = False  # an image without any label found
  return label, score, decision


def test_set_metrics_are_scikit_learns():
  label, _, decision = some_sets()
  found = metrics.set_metrics(label, decision)
  some = label.any(axis=0)
  for kind, average, columns in (("sample", "samples", slice(None)), ("macro", "macro", some), ("micro", "micro", slice(None))):
    pair = label[:, columns], decision[:, columns]
    options = {"average": average, "zero_division": 0}
    assert found[f"{kind}_P"] == pytest.approx(sk.precision_score(*pair, **options), abs=1e-12)
    assert found[f"{kind}_R"] == pytest.approx(sk.recall_score(*pair, **options), abs=1e-12)
    for beta in (1, 2):
      assert found[f"{kind}_F{beta}"] == pytest.approx(sk.fbeta_score(*pair, beta=beta, **options), abs=1e-12)
  assert found["accuracy"] == pytest.approx((label == decision).mean())
  every = metrics.evaluate_all(label, decision.astype(float), decision=decision)
  assert every["sample_P"] == found["sample_P"] and every["sample_F2"] == found["sample_F2"]


def test_set_metrics_leave_out_what_is_not_known():
  label, _, decision = some_sets()
  known = np.random.default_rng(1).random(label.shape) < 0.7
  whole = metrics.set_metrics(label, decision, known)
  hidden = metrics.set_metrics(np.where(known, label, 1 - label), np.where(known, decision, ~decision), known)
  assert whole == hidden


def test_searched_thresholds_are_the_best_of_the_grid():
  label, score, _ = some_sets(4)
  prior = label.mean(axis=0)
  grid = np.arange(101) / 100
  f2 = lambda limit: sk.fbeta_score(label, score >= limit, beta=2, average="samples", zero_division=0)
  found = metrics.search_thresholds(label, score)
  assert (found == found[0]).all() and found[0] == grid[int(np.argmax([f2(t) for t in grid]))]
  shape = np.clip(prior, 0.01, 1) ** 0.05
  by_prior = metrics.search_thresholds(label, score, kind="prior", prior=prior)
  assert f2(by_prior) == max(f2(t * shape) for t in grid) and len(set(by_prior.tolist())) > 1
  each = metrics.search_thresholds(label, score, kind="per_class")
  assert each[0] == found[0]  # no positives to search with
  for k in range(1, label.shape[1]):
    of_label = [sk.fbeta_score(label[:, k], score[:, k] >= t, beta=2, zero_division=0) for t in grid]
    assert each[k] == grid[int(np.argmax(of_label))]
  for wrong in ({"kind": "some"}, {"kind": "prior"}):
    with pytest.raises(ValueError, match="unknown kind"):
      metrics.search_thresholds(label, score, **wrong)


@pytest.mark.parametrize("digits", [None, 1])  # with equal scores, too
def test_thresholds_of_the_highest_F1(digits):
  label, score, known = random_split(digits=digits, empty_label=2)
  label[:, 3] = 0
  label[np.flatnonzero(known[:, 3])[:9], 3] = 1  # one too few
  label[:, 4] = 1
  found = metrics.highest_F1_thresholds(label, score, known)
  assert found[2] == found[3] == found[4] == 0.5
  for k in (0, 1, 5, 6):
    l, s = label[known[:, k], k], score[known[:, k], k]
    f1 = {t: sk.f1_score(l, s >= t) for t in np.unique(s)}
    highest = max(t for t in f1 if f1[t] == pytest.approx(max(f1.values())))
    np.testing.assert_array_equal(s >= found[k], s >= highest)
    assert found[k] not in s  # a score that is computed a little differently stays on its side
  assert metrics.highest_F1_thresholds(label, score, known, fewest=9)[3] != 0.5


def test_micro_roc_auc_is_scikit_learns():
  label, score, _ = some_sets(2)
  assert metrics.micro_roc_auc(label, score) == pytest.approx(sk.roc_auc_score(label.ravel(), score.ravel()))
  known = np.random.default_rng(1).random(label.shape) < 0.7
  assert metrics.micro_roc_auc(label, score, known) == pytest.approx(sk.roc_auc_score(label[known], score[known]))


def test_decisions_take_the_place_of_the_threshold_per_attribute():
  label, score, decision = some_sets()
  by_threshold, by_decision = metrics.per_attribute(label, score, threshold=0.45), metrics.per_attribute(label, score, decision=score >= 0.45)
  for name, column in by_threshold.items():
    np.testing.assert_array_equal(column, by_decision[name])
  assert not np.array_equal(metrics.per_attribute(label, score, decision=decision)["recall"], metrics.per_attribute(label, score)["recall"])
