"""DIAA: architecture, losses, and the history of predictions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax import sharding
from attr_jax.models import diaa
from attr_jax.nn import resnet

LABELS = 5
SHAPE = (32, 48, 3)
RATIO = np.array([0.1, 0.3, 0.5, 0.7, 0.02], np.float32)


# Architecture.


def shapes(size=224, **options):
  """Shapes of the variables, of the logits and of `out`, without computing anything."""
  model = diaa.Model(**options)
  image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  (logits, out), variables = jax.eval_shape(
      lambda x: model.init_with_output(jax.random.key(0), x, train=False), image)
  return variables, logits, out


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("variant, labels, total, biases", [
    ("paper", 14, 108_012_706, 2 * 1_792), ("paper", 35, 108_163_381, 2 * 1_792),
    ("code", 14, 283_457_740, 3 * 2_816), ("code", 35, 283_699_870, 3 * 2_816),
])
def test_parameter_count(variant, labels, total, biases):
  params = shapes(num_labels=labels, variant=variant)[0]["params"]
  assert count(params) == total
  assert {group for groups in diaa.TRAINABLE.values() for group in groups} >= set(params)
  # With the biases that the released program has in front of batch norm its counts come out.
  released = {("paper", 14): 108_016_290, ("paper", 35): 108_166_965,
              ("code", 14): 283_466_188, ("code", 35): 283_708_318}
  assert total + biases == released[variant, labels]


def test_parts_of_a_head():
  """Without the 1,792 biases in front of batch norm: 512 in the trunk, 1,280 in the classifier."""
  params = shapes(num_labels=14)[0]["params"]
  for name, (trunk, confidence, classifier) in {
      "head0": (332_814, 14_350, 51_525_902), "head1": (594_958, 28_686, 12_990_734)}.items():
    part = lambda start: count([value for key, value in params[name].items() if key.startswith(start)])
    assert (part("attention"), part("confidence"), part("map") + part("classifier")) == (
        trunk - 512, confidence, classifier - 1_280)
  assert "bias" not in params["head0"]["map_conv2"] and "bias" not in params["head0"]["attention_conv0"]


def test_maps_of_both_variants_at_full_size():
  _, logits, out = shapes(num_labels=14, variant="code")
  assert (logits.shape, logits.dtype) == ((2, 14), jnp.float32)
  assert [out[f"attention_{i}"].shape for i in range(3)] == [(2, 14, 14, 14), (2, 14, 14, 14), (2, 7, 7, 14)]
  assert out["stage3_early"].shape == out["stage3"].shape == (2, 14, 14, 1024)
  assert out["logits_attention"].shape == (2, 3, 14)
  out = shapes(num_labels=14)[2]
  assert [out[f"attention_{i}"].shape for i in range(2)] == [(2, 14, 14, 14), (2, 7, 7, 14)]
  assert out["features"].shape == (2, 2048) and "stage3_early" not in out


@functools.cache
def tiny(variant="paper", dtype=jnp.float32):
  model = diaa.Model(LABELS, depth="tiny", dtype=dtype, variant=variant)
  x = jax.random.normal(jax.random.key(0), (8, *SHAPE))
  variables = jax.jit(lambda: model.init(jax.random.key(1), x, train=False))()
  return model, variables, x


@functools.cache
def outputs(variant="paper", dtype=jnp.float32, scale_attention=False):
  """logits, `out` and the intermediate results of the tiny model."""
  model, variables, x = tiny(variant, dtype)
  model = model.clone(scale_attention=scale_attention)
  apply = lambda v, x: model.apply(v, x, train=False, capture_intermediates=True, mutable=["intermediates"])
  (logits, out), kept = jax.jit(apply)(variables, x)
  return logits, out, kept["intermediates"]


@pytest.mark.parametrize("variant, heads, dtype", [
    ("paper", 2, jnp.float32), ("code", 3, jnp.bfloat16), pytest.param("code", 3, jnp.float32, marks=pytest.mark.slow),
    pytest.param("paper", 2, jnp.bfloat16, marks=pytest.mark.slow)])
def test_outputs(variant, heads, dtype):
  logits, out, _ = outputs(variant, dtype)
  assert (logits.shape, logits.dtype) == ((8, LABELS), jnp.float32)
  assert {"stem", "stage1", "stage2", "stage3", "stage4", "features"} <= set(out)
  assert out["stage4"].dtype == dtype
  for i in range(heads):
    attention, confidence = out[f"attention_{i}"], out[f"confidence_{i}"]
    assert attention.shape == confidence.shape == (8, *((2, 3) if i == heads - 1 else (4, 6)), LABELS)
    assert attention.dtype == confidence.dtype == jnp.float32
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, atol=1e-5)
    assert confidence.min() > 0 and confidence.max() < 1
  branches = np.concatenate([np.asarray(out["logits_primary"])[:, None], out["logits_attention"]], axis=1)
  assert branches.shape == (8, heads + 1, LABELS) and branches.dtype == np.float32
  np.testing.assert_allclose(logits, branches.mean(axis=1), atol=1e-5)
  assert branches.std(axis=1).min() > 0


@pytest.mark.parametrize("scales, total", [
    ((), 42_528_846),  # trunk and classifier
    (("stage3",), 42_528_846 + 51_873_066 - 1_792),
    (("stage4",), 42_528_846 + 13_614_378 - 1_792),
    (("stage3", "stage4"), 108_012_706),
])
def test_scales_choose_the_heads(scales, total):
  variables, logits, out = shapes(num_labels=14, scales=scales)
  assert count(variables["params"]) == total and logits.shape == (2, 14)
  assert out["logits_attention"].shape == (2, len(scales), 14)
  for i, scale in enumerate(scales):
    assert out[f"attention_{i}"].shape[1:3] == out[scale].shape[1:3]


def test_three_scales_with_the_widths_of_the_paper():
  """Jia et al. (2020) report 141.27 M parameters for their DIAA: ResNet-50, 54 labels, with biases in front of batch norm."""
  params = shapes(num_labels=54, depth=50, scales=diaa.SCALES)[0]["params"]
  assert round((count(params) + 3 * 1_792) / 1e6, 2) == 141.27


def test_without_heads_the_score_is_that_of_the_classifier():
  model, variables, x = tiny()
  params = {key: value for key, value in variables["params"].items() if not key.startswith("head")}
  stats = {"backbone": variables["batch_stats"]["backbone"]}
  apply = jax.jit(lambda x: model.clone(scales=()).apply({"params": params, "batch_stats": stats}, x, train=False))
  logits, out = apply(x)
  np.testing.assert_array_equal(logits, out["logits_primary"])
  np.testing.assert_allclose(logits, outputs()[1]["logits_primary"], atol=1e-5)


def test_unknown_scale_is_refused():
  with pytest.raises(ValueError, match="unknown scales stage5; known: stage3_early, stage3, stage4"):
    shapes(size=32, num_labels=3, depth="tiny", scales=("stage3", "stage5"))


def test_unknown_variant_is_refused():
  with pytest.raises(ValueError, match="known: paper, code"):
    shapes(size=32, num_labels=3, depth="tiny", variant="released")


def test_taps_are_outputs_of_the_trunk():
  _, variables, x = tiny("code")
  trunk = {key: value["backbone"] for key, value in variables.items()}
  expected = jax.jit(lambda v, x: resnet.ResNet(depth="tiny").apply(v, x, train=False))(trunk, x)
  out = outputs("code")[1]
  for name, value in expected.items():
    np.testing.assert_allclose(out[name], value, atol=1e-5)


@pytest.mark.parametrize("depth, block", [(101, 20), (50, 3), ("tiny", 1)])
def test_early_tap_is_three_blocks_before_the_end(depth, block):
  model = diaa.Model(3, depth=depth, variant="code")

  def same(x):
    (_, out), kept = model.init_with_output(
        jax.random.key(0), x, train=False, capture_intermediates=True, mutable=True)
    stage = kept["intermediates"]["backbone"]["stage3"]
    outputs = [stage[f"block{i}"]["__call__"][0] for i in range(sum(name.startswith("block") for name in stage))]
    # The arrays themselves, not equal ones.
    taps.append([[i + 1 for i, y in enumerate(outputs) if y is out[name]] for name in ("stage3_early", "stage3")])
    return x

  taps = []
  jax.eval_shape(same, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
  assert taps == [[[block], [resnet.DEPTHS[depth][1][2]]]]


def test_map_layer_equals_a_valid_convolution():
  params, kept = tiny()[1]["params"], outputs()[2]
  for name, (height, width) in {"head0": (4, 6), "head1": (2, 3)}.items():
    inner = kept[name]
    below = jax.nn.relu(inner["map_bn1"]["__call__"][0])
    assert below.shape[1:3] == (height, width)
    kernel = params[name]["map_conv2"]["kernel"].reshape(height, width, below.shape[-1], -1)
    expected = jax.lax.conv_general_dilated(
        below, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert expected.shape[1:3] == (1, 1)
    np.testing.assert_allclose(inner["map_conv2"]["__call__"][0], expected[:, 0, 0], rtol=1e-4, atol=1e-5)


def test_scale_attention_multiplies_what_is_classified():
  plain, scaled = outputs()[2], outputs(scale_attention=True)[2]
  for name, cells in {"head0": 24, "head1": 6}.items():
    before, after = (kept[name]["map_conv0"]["__call__"][0] for kept in (plain, scaled))
    np.testing.assert_allclose(after, cells * before, rtol=1e-4, atol=1e-6)


def test_new_layers_are_he_normal():
  params = tiny("code")[1]["params"]
  kernels = {"attention_conv1": 9 * 128, "map_conv1": 64, "map_conv2": 24 * 128}
  for name, fan_in in kernels.items():
    kernel = params["head0"][name]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_in), rtol=0.05)


# Losses.


def make_batch(size=6, heads=2, seed=0):
  rng = np.random.default_rng(seed)
  batch = {
      "label": rng.integers(0, 2, (size, LABELS)).astype(np.uint8),
      "known": rng.random((size, LABELS)) < 0.6,
      "id": np.arange(size, dtype=np.int32),
      "epoch": np.int32(7),
  }
  out = {
      "logits_primary": rng.normal(size=(size, LABELS)).astype(np.float32),
      "logits_attention": rng.normal(size=(size, heads, LABELS)).astype(np.float32),
  }
  return out, batch


def stored(history, num_examples, window=5):
  """The memory after `history`, {epoch: probabilities [N, L]}."""
  memory = diaa.init_memory(num_examples, LABELS, window)
  batch = {"id": np.arange(num_examples, dtype=np.int32)}
  for epoch, probability in history.items():
    memory = diaa.remember(memory, jnp.asarray(logit(probability)), batch, jnp.int32(epoch))
  return memory


def logit(probability):
  probability = np.asarray(probability, np.float64)
  return np.log(probability / (1 - probability)).astype(np.float32)


def draw(epochs, num_examples=6, seed=1):
  rng = np.random.default_rng(seed)
  return {epoch: rng.uniform(0.05, 0.95, (num_examples, LABELS)) for epoch in epochs}


def slow_weight(values):
  """1 + sqrt(v + v^2 / (n - 1)) of a list of probabilities."""
  if len(values) < 2:
    return 1.0
  mean = sum(values) / len(values)
  variance = sum((value - mean) ** 2 for value in values) / len(values)
  return 1 + (variance + variance**2 / (len(values) - 1)) ** 0.5


SLOW_CLASS_WEIGHTS = {
    "exp_neg_prior": lambda r: (np.exp(-r), np.exp(-r)),
    "deepmar_ratio": lambda r: (np.exp(1 - min(1, r / (1 - r))), np.exp(min(1, r / (1 - r)))),
    "neg_over_pos": lambda r: (max(1, (1 - r) / r),) * 2,
    "none": lambda r: (1.0, 1.0),
}


@pytest.mark.parametrize("class_weight", list(SLOW_CLASS_WEIGHTS))
@pytest.mark.parametrize("unspecified, reduction, stage", [
    ("negative", "sum_labels_mean_samples", "joint"), ("ignore", "sum_labels_mean_samples", "joint"),
    ("ignore", "mean", "heads"), ("negative", "mean", "backbone"),
])
def test_objective_equals_slow_code(class_weight, unspecified, reduction, stage):
  out, batch = make_batch()
  history = draw(range(2, 7))
  gamma = 2.0 if class_weight == "deepmar_ratio" else 0.5
  loss, parts = diaa.objective(
      None, out, batch, stored(history, 6), positive_ratio=RATIO, gamma=gamma, class_weight=class_weight,
      unspecified=unspecified, reduction=reduction, stage=stage)
  sums = {"primary": 0.0, "attention_0": 0.0, "attention_1": 0.0}
  for i, j in itertools.product(range(6), range(LABELS)):
    known = bool(batch["known"][i, j])
    if unspecified == "ignore" and not known:
      continue
    positive = known and batch["label"][i, j] == 1
    weights = SLOW_CLASS_WEIGHTS[class_weight](float(RATIO[j]))
    p = 1 / (1 + np.exp(-float(out["logits_primary"][i, j])))
    side = weights[0] * (1 - p)**gamma * np.log(p) if positive else weights[1] * p**gamma * np.log(1 - p)
    sums["primary"] -= side
    for head in range(2):
      p = 1 / (1 + np.exp(-float(out["logits_attention"][i, head, j])))
      weight = slow_weight([history[e][i, j] for e in range(2, 7)])
      sums[f"attention_{head}"] -= weight * np.log(p if positive else 1 - p)
  divisor = 6 if reduction == "sum_labels_mean_samples" else 6 * LABELS
  used = {"joint": set(sums), "backbone": {"primary"}, "heads": {"attention_0", "attention_1"}}[stage]
  assert set(parts) - {"attention_weight"} == used
  for name in used:
    np.testing.assert_allclose(parts[name], sums[name] / divisor, rtol=1e-4)
  np.testing.assert_allclose(loss, sum(sums[name] for name in used) / divisor, rtol=1e-4)
  assert loss.shape == () and loss.dtype == jnp.float32


def test_without_variance_weights_the_history_does_not_count():
  out, batch = make_batch()
  objective = functools.partial(diaa.objective, None, out, batch, positive_ratio=RATIO)
  memory = stored(draw(range(2, 7)), 6)
  plain, with_history = objective({})[1], objective(memory)[1]
  assert with_history["attention_0"] > plain["attention_0"]
  assert objective(memory, variance_weights=False)[1] == plain


def test_without_heads_the_primary_loss_is_all():
  out, batch = make_batch(heads=0)
  memory = stored(draw(range(2, 7)), 6)
  loss, parts = diaa.objective(None, out, batch, memory, positive_ratio=RATIO, gamma=0.0, class_weight="none")
  assert set(parts) == {"primary"} and loss == parts["primary"]
  z, y = out["logits_primary"].astype(np.float64), batch["label"] * batch["known"]
  np.testing.assert_allclose(loss, (np.log1p(np.exp(z)) - y * z).sum(axis=1).mean(), rtol=1e-5)
  with pytest.raises(ValueError, match="'heads' has nothing to train"):
    diaa.objective(None, out, batch, memory, positive_ratio=RATIO, stage="heads")


@pytest.mark.parametrize(
    "wrong", [{"class_weight": "exp"}, {"unspecified": "drop"}, {"reduction": "sum"}, {"stage": "all"}])
def test_unknown_names_are_refused_with_the_known_ones(wrong):
  out, batch = make_batch()
  with pytest.raises(ValueError, match="known: (exp_neg_prior|negative|sum_labels_mean_samples|backbone), "):
    diaa.objective(None, out, batch, {}, positive_ratio=RATIO, **wrong)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_loss_and_gradient_are_finite_for_huge_logits(size, gamma):
  out, batch = make_batch()
  out = {key: jnp.full(value.shape, size) for key, value in out.items()}
  memory = stored(draw(range(2, 7)), 6)
  loss = lambda out: diaa.objective(None, out, batch, memory, positive_ratio=RATIO, gamma=gamma)[0]
  value, gradient = jax.value_and_grad(loss)(out)
  assert np.isfinite(value) and value > 1e3
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_ignored_label_passes_no_gradient():
  out, batch = make_batch()
  memory = stored(draw(range(2, 7)), 6)
  loss = lambda out: diaa.objective(None, out, batch, memory, positive_ratio=RATIO, unspecified="ignore")[0]
  gradient = jax.grad(loss)(out)
  known = batch["known"]
  assert known.any() and not known.all()
  for g in (gradient["logits_primary"], *gradient["logits_attention"].swapaxes(0, 1)):
    assert (np.asarray(g)[~known] == 0).all() and (np.asarray(g)[known] != 0).all()


@pytest.mark.slow
def test_stage_changes_the_parameters_it_names():
  """Parameters outside TRAINABLE[stage] and the trunk below the heads get no gradient; those inside do."""
  model, variables, x = tiny("code")
  out, batch = make_batch(8, heads=3)

  @jax.jit
  def groups(cotangents):
    def branches(params):
      out = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])[0][1]
      return {key: out[key] for key in cotangents}
    gradient = jax.vjp(branches, variables["params"])[1](cotangents)[0]
    return {name: sum(jnp.abs(g).sum() for g in jax.tree.leaves(tree)) for name, tree in gradient.items()}

  for stage, trained in diaa.TRAINABLE.items():
    loss = lambda out: diaa.objective(None, out, batch, {}, positive_ratio=RATIO, stage=stage)[0]
    changed = {name for name, size in groups(jax.grad(loss)(out)).items() if size > 0}
    assert changed == set(trained) | {"backbone"}  # where "heads" trains, the optimiser holds it


# History.


@pytest.mark.parametrize("epochs", [2, 3, 5, 9])
def test_weights_equal_slow_code(epochs):
  """`epochs` stored epochs; with more than five the last five count."""
  history = draw(range(2, 2 + epochs))
  now = 2 + epochs
  batch = {"id": np.array([4, 0, 5], np.int32), "epoch": jnp.int32(now)}
  weight = diaa.attention_weights(stored(history, 6), batch, weight_from_epoch=0)
  used = range(max(2, now - 5), now)
  assert len(used) == min(epochs, 5)
  expected = [[slow_weight([history[e][i, j] for e in used]) for j in range(LABELS)] for i in batch["id"]]
  np.testing.assert_allclose(weight, expected, rtol=1e-5)
  assert weight.dtype == jnp.float32 and weight.min() > 1


def test_first_five_epochs_weigh_exactly_one():
  memory = diaa.init_memory(6, LABELS)
  history = draw(range(8))
  for epoch in range(8):
    out, batch = make_batch()
    batch["epoch"] = jnp.int32(epoch)
    weight = diaa.attention_weights(memory, batch)
    if epoch < 5:
      assert (weight == 1).all()
      parts = diaa.objective(None, out, batch, memory, positive_ratio=RATIO)[1]
      assert parts == diaa.objective(None, out, batch, {}, positive_ratio=RATIO)[1]
    else:  # epochs 0 and 1 were not stored: at epoch 5 there are three
      used = range(max(2, epoch - 5), epoch)
      expected = [[slow_weight([history[e][i, j] for e in used]) for j in range(LABELS)] for i in range(6)]
      np.testing.assert_allclose(weight, expected, rtol=1e-5)
    memory = diaa.remember(memory, jnp.asarray(logit(history[epoch])), batch, jnp.int32(epoch))


def test_ring_overwrites_the_oldest_epoch():
  history = draw(range(2, 9))
  memory = stored(history, 6)
  assert memory["probability"].shape == (6, 6, LABELS)
  assert sorted(memory["epoch"][:, 0].tolist()) == [3, 4, 5, 6, 7, 8]
  for row in range(6):
    np.testing.assert_allclose(memory["probability"][row], history[int(memory["epoch"][row, 0])], rtol=1e-5)


def test_weights_do_not_change_within_an_epoch():
  """What the present epoch stores, for a sample itself or for others, has no effect before the next one."""
  memory = stored(draw(range(2, 8)), 6)
  _, batch = make_batch()
  batch["epoch"] = jnp.int32(8)
  before = diaa.attention_weights(memory, batch)
  for ids in ([3, 1], [0, 5], [2, 4]):
    memory = diaa.remember(memory, jnp.full((2, LABELS), 9.0), {"id": np.array(ids, np.int32)}, jnp.int32(8))
    np.testing.assert_array_equal(diaa.attention_weights(memory, batch), before)
  assert (diaa.attention_weights(memory, batch | {"epoch": jnp.int32(9)}) != before).all()


def test_missing_entries_do_not_count():
  """A sample left out in some epochs is weighted by the others, and not at all by a single one or by stale ones."""
  history = draw(range(2, 7))
  memory = diaa.init_memory(3, LABELS)
  for epoch, ids in {2: [0, 1], 3: [0, 1, 2], 4: [0], 5: [0, 1], 6: [0]}.items():
    memory = diaa.remember(
        memory, jnp.asarray(logit(history[epoch][ids])), {"id": np.array(ids, np.int32)}, jnp.int32(epoch))
  weights = lambda epoch: np.asarray(diaa.attention_weights(
      memory, {"id": np.arange(4, dtype=np.int32), "epoch": jnp.int32(epoch)}))
  seen = {0: [2, 3, 4, 5, 6], 1: [2, 3, 5], 2: [3]}
  for i, epochs in seen.items():
    np.testing.assert_allclose(
        weights(7)[i], [slow_weight([history[e][i, j] for e in epochs]) for j in range(LABELS)], rtol=1e-5)
  assert (weights(7)[2:] == 1).all()  # one entry; an id outside the memory
  np.testing.assert_allclose(
      weights(8)[1], [slow_weight([history[e][1, j] for e in (3, 5)]) for j in range(LABELS)], rtol=1e-5)
  assert (weights(12) == 1).all()


def test_memory_is_untouched_before_epoch_two_and_by_unknown_ids():
  memory = diaa.init_memory(4, LABELS)
  for epoch, ids in ((0, [0, 1]), (1, [2, 3]), (3, [4, 100])):
    after = diaa.remember(memory, jnp.ones((2, LABELS)), {"id": np.array(ids, np.int32)}, jnp.int32(epoch))
    jax.tree.map(np.testing.assert_array_equal, after, memory)


def test_weights_and_memory_pass_no_gradient():
  memory = stored(draw(range(2, 7)), 6)
  _, batch = make_batch()
  total = lambda tree: sum(x.sum() for x in jax.tree.leaves(tree) if x.dtype == jnp.float32)
  gradient = jax.grad(lambda p: diaa.attention_weights(memory | {"probability": p}, batch).sum())(memory["probability"])
  assert (gradient == 0).all()
  gradient = jax.grad(lambda z: total(diaa.remember(memory, z, batch, jnp.int32(7))))(jnp.ones((6, LABELS)))
  assert (gradient == 0).all()


def run_epochs(order, num_examples=24, batch_size=8, epochs=9):
  """Memory and weights of every (epoch, id) when samples come as `order(epoch)` in one endless stream.

  Batches cross the ends of epochs when batch_size does not divide num_examples, as in training.
  """
  table = draw(range(epochs), num_examples)
  stream = [(epoch, i) for epoch in range(epochs) for i in order(epoch)]
  memory, weights = diaa.init_memory(num_examples, LABELS), {}

  @jax.jit
  def step(memory, logits, batch):
    return diaa.attention_weights(memory, batch), diaa.remember(memory, logits, batch, batch["epoch"])

  for start in range(0, len(stream), batch_size):
    rows = stream[start:start + batch_size]
    batch = {"id": np.array([i for _, i in rows], np.int32), "epoch": np.array([e for e, _ in rows], np.int32)}
    logits = np.stack([logit(table[e][i]) for e, i in rows])
    weight, memory = step(memory, logits, batch)
    for k, (epoch, i) in enumerate(rows):
      # Of a sample that comes twice in this batch the first prediction is not yet in the memory.
      used = [e for e in range(max(2, epoch - 5), epoch) if (e, i) not in rows] if epoch >= 5 else []
      weights[epoch, i] = np.asarray(weight[k])
      expected = [slow_weight([table[e][i, j] for e in used]) for j in range(LABELS)]
      np.testing.assert_allclose(weights[epoch, i], expected, rtol=1e-5)
  return memory, weights


@pytest.mark.parametrize("batch_size", [8, 18])
def test_shuffling_changes_nothing(batch_size):
  memory, weights = run_epochs(lambda epoch: range(24), batch_size=batch_size)
  shuffled = lambda epoch: np.random.default_rng(epoch).permutation(24).tolist()
  other_memory, other_weights = run_epochs(shuffled, batch_size=batch_size)
  jax.tree.map(np.testing.assert_array_equal, memory, other_memory)
  assert weights.keys() == other_weights.keys() and len(weights) == 9 * 24
  if batch_size == 8:  # batches are whole parts of epochs
    jax.tree.map(np.testing.assert_array_equal, weights, other_weights)


# The whole step.


@functools.cache
def make_step(variant="paper", history=True):
  model, _, _ = tiny(variant)

  def step(variables, memory, image, batch):
    def loss_fn(params):
      (logits, out), updated = model.apply({**variables, "params": params}, image, train=True, mutable=["batch_stats"])
      loss, parts = diaa.objective(logits, out, batch, memory, positive_ratio=RATIO)
      return loss, (logits, parts, updated)

    (loss, (logits, parts, updated)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
    if history:
      memory = diaa.remember(memory, logits, batch, batch["epoch"])
    return loss, parts, gradient, updated, memory

  return step


@functools.cache
def sharded_run(devices):
  _, variables, x = tiny()
  mesh = sharding.make_mesh(jax.devices()[:devices])
  keep, rows = sharding.replicated(mesh), sharding.over_batch(mesh)
  step = jax.jit(make_step(), in_shardings=(keep, keep, rows, rows), out_shardings=keep)
  _, batch = make_batch(8)
  batch |= {"id": np.array([7, 2, 9, 4, 0, 11, 5, 2], np.int32), "epoch": np.array([7] * 7 + [8], np.int32)}
  loss, parts, gradient, _, memory = step(variables, stored(draw(range(2, 7), 12), 12), np.asarray(x), batch)
  return jax.device_get((loss, parts, gradient["classifier"], gradient["head0"]["map_conv1"], memory))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_number_of_devices_does_not_matter(devices):
  if len(jax.devices()) < devices:
    pytest.skip(f"needs {devices} devices")
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, sharded_run(devices), sharded_run(1))
  memory = sharded_run(devices)[-1]
  assert memory["epoch"][7 % 6].tolist() == [7, -1, 7, -1, 7, 7, -1, 7, -1, 7, -1, 7]
  assert memory["epoch"][8 % 6].tolist() == [2, 2, 8] + [2] * 9
  assert sharded_run(devices)[1]["attention_weight"] > 1.01


def test_history_costs_next_to_nothing():
  """Lookup and update against the whole step, by XLA's count, for a model far smaller than any real one."""
  _, variables, x = tiny()
  _, batch = make_batch(8)
  batch["epoch"] = np.full(8, 7, np.int32)
  memory = diaa.init_memory(20_000, LABELS)
  flops = lambda history, memory: jax.jit(make_step(history=history)).lower(
      variables, memory, x, batch).cost_analysis()["flops"]
  without = flops(False, {})
  share = flops(True, memory) / without - 1
  assert 0 < share < 0.02
