"""AttnCNN-RNN: its decoder against loops in numpy and torch's LSTM, its gradients, its label sets."""

import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax.errors import InputError
from attr_jax.models import attncnn_rnn
from attr_jax.nn import decoding
from attr_jax.nn import hog

LABELS = 6
TINY = {"num_labels": LABELS, "depth": "tiny", "width": 4, "attention_size": 7, "hidden_size": 5, "num_steps": 4, "hog_cell": 16}
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def keys_for(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def tiny():
  model = attncnn_rnn.Model(**TINY, hog=True)
  pixels = jax.random.randint(jax.random.key(0), (3, 64, 48, 3), 0, 256).astype(jnp.uint8)
  inputs = pixels.astype(jnp.float32) / 127.5 - 1
  variables = jax.device_get(quick_jit(lambda: model.init(jax.random.key(1), inputs, train=False))())
  logits, out = quick_jit(lambda v: model.apply(v, inputs, train=False, pixels=pixels))(variables)
  return model, variables, inputs, pixels, logits, jax.device_get(out)


def parameter_counts(**options):
  model = attncnn_rnn.Model(1103, **options)
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
  return {name: sum(x.size for x in jax.tree.leaves(group)) for name, group in shapes["params"].items()}


def test_parameter_counts_are_those_of_the_program():
  backbone, lstm = 23_508_032, 4 * 512 * (1103 + 2048 + 1103 + 512) + 4 * 512
  decoder = (2 * (2048 * 512 + 512) + (2048 * 512 + 512) + (512 * 512 + 512) + 513 + (512 * 2048 + 2048) + lstm
             + (512 * 512 + 512) + (512 * 1103 + 1103))
  assert parameter_counts() == {"backbone": backbone, "classifier": 2048 * 1103 + 1103, "decoder": decoder}
  assert round(decoder / 1e6, 2) == 15.05
  assert parameter_counts(decoder=False) == {"backbone": backbone, "classifier": 2048 * 1103 + 1103}
  assert parameter_counts(decoder=False, hog=True)["classifier"] == (2048 + 10_368) * 1103 + 1103


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def slow_decoder(params, cells, preliminary):
  """One image, cell after cell: a function of the labels chosen so far that gives (logits, attention) of the next step."""
  weight = lambda name: np.asarray(params[f"{name}_kernel"], np.float64)
  linear = lambda name, x: x @ weight(name) + np.asarray(params[f"{name}_bias"], np.float64)
  cells = np.asarray(cells, np.float64).reshape(-1, cells.shape[-1])
  mean = sum(cells) / len(cells)

  def run(path):
    hidden, cell = linear("start_hidden", mean), linear("start_cell", mean)
    predicted, chosen = sigmoid(np.asarray(preliminary, np.float64)), np.zeros(LABELS)
    for label in (None, *path):
      if label is not None:
        chosen[label] = 1
      energy = np.array([linear("attend", np.maximum(linear("attend_cells", v) + linear("attend_hidden", hidden), 0))[0] for v in cells])
      attention = np.exp(energy) / np.exp(energy).sum()
      context = sigmoid(linear("gate", hidden)) * sum(a * v for a, v in zip(attention, cells))
      entering = np.concatenate([predicted, context, chosen])  # as the program has it: one input of K + C + K
      kernel = np.concatenate([weight(f"lstm_{part}") for part in ("predicted", "context", "chosen")])
      i, f, g, o = np.split(entering @ kernel + linear("lstm_hidden", hidden), 4)
      cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
      hidden = sigmoid(o) * np.tanh(cell)
      logits = linear("predict2", linear("predict1", hidden))
      predicted = sigmoid(logits)
    return logits, attention

  return run


def test_greedy_decoding_is_the_slow_one(tiny):
  model, variables, inputs, pixels, _, out = tiny
  model = model.clone(beam_width=1)
  logits, out = quick_jit(lambda v: model.apply(v, inputs, train=False, pixels=pixels))(variables)
  for image in range(len(inputs)):
    run = slow_decoder(variables["params"]["decoder"], out["stage4"][image], out["preliminary_logits"][image])
    path, every = [], []
    for t in range(model.num_steps):
      step_logits, attention = run(path)
      np.testing.assert_allclose(out["step_logits"][image, t], step_logits, rtol=1e-3, atol=1e-4)
      np.testing.assert_allclose(out["step_attention"][image, t].ravel(), attention, rtol=1e-3, atol=1e-5)
      path.append(max((k for k in range(LABELS) if k not in path), key=lambda k: step_logits[k]))
      np.testing.assert_allclose(out["step_probability"][image, t], sigmoid(step_logits[path[-1]]), rtol=1e-3)
      every.append(step_logits)
    assert out["step_labels"][image].tolist() == path
    np.testing.assert_allclose(logits[image], np.mean(every, axis=0), rtol=1e-3, atol=1e-4)


def test_beam_search_in_the_model_is_the_slow_one(tiny):
  model, variables, inputs, _, _, out = tiny
  for image in range(len(inputs)):
    run = slow_decoder(variables["params"]["decoder"], out["stage4"][image], out["preliminary_logits"][image])
    paths = [(0.0, ())]
    for _ in range(model.num_steps):
      grown = [(total + math.log(p), (*labels, k)) for total, labels in paths
               for k, p in enumerate(sigmoid(run(labels)[0])) if k not in labels]
      paths = sorted(grown, key=lambda path: -path[0])[: model.beam_width]
    np.testing.assert_allclose(out["beam_log_probability"][image].sum(-1), [total for total, _ in paths], rtol=1e-4, atol=1e-4)
    assert tuple(out["beam_labels"][image, 0].tolist()) == tuple(out["step_labels"][image].tolist()) == paths[0][1]
    np.testing.assert_allclose(np.log(out["step_probability"][image]), out["beam_log_probability"][image, 0], rtol=1e-3, atol=1e-4)


def test_attention_sums_to_one_and_the_guess_is_linear_in_features_and_hog(tiny):
  _, variables, inputs, pixels, _, out = tiny
  np.testing.assert_allclose(out["step_attention"].sum((-2, -1)), 1.0, rtol=1e-5)
  assert out["step_attention"].shape == (3, 4, *out["stage4"].shape[1:3])
  kernel, bias = (np.asarray(variables["params"]["classifier"][name], np.float64) for name in ("kernel", "bias"))
  given = np.concatenate([np.asarray(out["stage4"], np.float64).mean((1, 2)), np.asarray(hog.hog(pixels))], axis=1)
  np.testing.assert_allclose(out["preliminary_logits"], given @ kernel + bias, rtol=1e-3, atol=1e-4)


def test_49_cells_are_as_good_as_196(tiny):
  """The released program pools 7x7 cells adaptively to 14x14, which repeats each of them four times."""
  _, variables, _, _, _, out = tiny
  params = variables["params"]["decoder"]
  layers = {name.rpartition("_")[0]: {} for name in params}
  for name, value in params.items():
    layers[name.rpartition("_")[0]][name.rpartition("_")[2]] = jnp.asarray(value)
  cells = jnp.asarray(out["stage4"])
  repeated = cells.repeat(2, axis=1).repeat(2, axis=2)
  few, many = (decoding.greedy(*attncnn_rnn.make_step(layers, x, jnp.asarray(out["preliminary_logits"])), 4) for x in (cells, repeated))
  np.testing.assert_array_equal(few[0], many[0])
  np.testing.assert_allclose(few[1]["logits"], many[1]["logits"], rtol=1e-3, atol=1e-5)
  together = many[1]["attention"].reshape(4, 3, cells.shape[1], 2, cells.shape[2], 2).sum((3, 5))
  np.testing.assert_allclose(few[1]["attention"].reshape(together.shape), together, rtol=1e-3, atol=1e-6)


def test_lstm_is_that_of_torch(tiny):
  torch = pytest.importorskip("torch")
  _, variables, _, _, _, out = tiny
  params = variables["params"]["decoder"]
  run = slow_decoder(params, out["stage4"][0], out["preliminary_logits"][0])
  as_torch = lambda x: torch.tensor(np.array(x, np.float64))
  cell = torch.nn.LSTMCell(2 * LABELS + out["stage4"].shape[-1], TINY["hidden_size"]).double()
  kernel = np.concatenate([params[f"lstm_{part}_kernel"] for part in ("predicted", "context", "chosen")])
  cells = np.asarray(out["stage4"][0], np.float64).reshape(-1, out["stage4"].shape[-1])
  linear = lambda name, x: x @ np.asarray(params[f"{name}_kernel"], np.float64) + np.asarray(params[f"{name}_bias"], np.float64)
  mean = cells.mean(0)
  hidden, state = linear("start_hidden", mean), linear("start_cell", mean)
  _, attention = run(())
  context = sigmoid(linear("gate", hidden)) * (attention @ cells)
  entering = np.concatenate([sigmoid(np.asarray(out["preliminary_logits"][0], np.float64)), context, np.zeros(LABELS)])
  with torch.no_grad():
    cell.weight_ih.copy_(as_torch(kernel.T))
    cell.weight_hh.copy_(as_torch(params["lstm_hidden_kernel"].T))
    cell.bias_ih.copy_(as_torch(params["lstm_hidden_bias"]))
    cell.bias_hh.zero_()
    hidden, _ = cell(as_torch(entering[None]), (as_torch(hidden[None]), as_torch(state[None])))
  np.testing.assert_allclose(out["step_logits"][0, 0], linear("predict2", linear("predict1", hidden[0].numpy())), rtol=1e-3, atol=1e-4)


# Training.


@pytest.fixture(scope="module")
def training():
  model = attncnn_rnn.Model(**TINY)
  inputs = jax.random.normal(jax.random.key(2), (4, 48, 48, 3))
  variables = jax.device_get(quick_jit(lambda: model.init(jax.random.key(1), inputs, train=False))())
  label = jnp.asarray(np.random.default_rng(0).integers(0, 2, (4, LABELS)))
  batch = {"label": label, "known": jnp.ones_like(label, bool)}
  return model, variables, inputs, batch


@pytest.mark.slow
def test_training_chooses_greedily_and_drops_by_key(training):
  model, variables, inputs, _ = training
  still = model.clone(dropout=0.0, beam_width=1)
  run = quick_jit(lambda v, x, keys, model: model.apply(v, x, train=True, keys=keys, mutable=["batch_stats"])[0], static_argnums=3)
  apply = lambda model, keys=None: run(variables, inputs, keys, model)
  logits, out = apply(still)
  expected, expected_out = still.apply(variables, inputs, train=False)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)  # with frozen statistics nothing else changes
  np.testing.assert_array_equal(out["step_labels"], expected_out["step_labels"])
  one, again, other = (apply(model, keys_for(4, seed))[0] for seed in (0, 0, 1))
  np.testing.assert_array_equal(one, again)
  assert (np.abs(one - other).max(axis=1) > 1e-6).all()
  part = run(variables, inputs[1:3], keys_for(4)[1:3], model)[0]
  np.testing.assert_allclose(part, one[1:3], rtol=1e-4, atol=1e-6)  # a sample's draws are its own
  with pytest.raises(InputError, match="keys"):
    apply(model)


def test_statistics_move_only_when_asked(training):
  model, variables, inputs, _ = training
  for frozen in (True, False):
    _, updated = model.clone(frozen_statistics=frozen, decoder=False).apply(variables, inputs, train=True, mutable=["batch_stats"])
    moved = jax.tree.map(lambda new, old: bool(np.abs(new - old).max() > 0), updated["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(moved)) is not frozen and any(jax.tree.leaves(moved)) is not frozen


def slow_loss(step_logits, label, ratio, cap=10.0):
  total = 0.0
  for t in range(step_logits.shape[1]):
    for b in range(len(label)):
      for k in range(LABELS):
        p = sigmoid(float(step_logits[b, t, k]))
        weight = min(cap, (1 - ratio[k]) / ratio[k]) if ratio[k] else 1.0
        total -= weight * math.log(p) if label[b, k] else math.log(1 - p)
  return total / step_logits[..., 0].size / LABELS


def test_objective_is_the_mean_over_steps_of_the_whole_set(training):
  model, variables, inputs, batch = training
  logits, out = model.apply(variables, inputs, train=False)
  ratio = np.array([0.0, 0.02, 0.3, 0.5, 0.9, 1.0], np.float32)
  loss, parts = attncnn_rnn.objective(logits, out, batch, {}, positive_ratio=ratio)
  expected = slow_loss(np.asarray(out["step_logits"]), np.asarray(batch["label"]), ratio)
  assert float(loss) == pytest.approx(expected, rel=1e-4) and float(parts["classification"]) == pytest.approx(expected, rel=1e-4)
  preliminary = slow_loss(np.asarray(out["preliminary_logits"])[:, None], np.asarray(batch["label"]), ratio)
  both, parts = attncnn_rnn.objective(logits, out, batch, {}, positive_ratio=ratio, preliminary_weight=2.0)
  assert float(parts["preliminary"]) == pytest.approx(preliminary, rel=1e-4)
  assert float(both) == pytest.approx(expected + 2 * preliminary, rel=1e-4)
  with pytest.raises(InputError, match="stage"):
    attncnn_rnn.objective(logits, out, batch, {}, positive_ratio=ratio, stage="some")


def test_all_of_the_decoder_and_the_classifier_learn(training):
  """The guess has no loss of its own: its gradient comes through the decoder. The labels chosen pass none, their rows do."""
  model, variables, inputs, batch = training

  def loss(params):
    (logits, out), _ = model.apply({**variables, "params": params}, inputs, train=True, keys=keys_for(4), mutable=["batch_stats"])
    return attncnn_rnn.objective(logits, out, batch, {}, positive_ratio=np.full(LABELS, 0.3, np.float32))[0]

  gradients = quick_jit(jax.grad(loss))(variables["params"])
  for path, gradient in jax.tree_util.tree_leaves_with_path({name: gradients[name] for name in ("classifier", "decoder")}):
    if path[-1].key != "attend_bias":  # a softmax does not see what is added to all of its inputs
      assert float(np.abs(gradient).max()) > 0, path


def test_bfloat16_stays_close(training):
  model, variables, inputs, _ = training
  model = model.clone(decoder=True, dtype=jnp.bfloat16, beam_width=1)
  logits, out = model.apply(variables, inputs, train=False)
  expected, _ = model.clone(dtype=jnp.float32).apply(variables, inputs, train=False)
  assert logits.dtype == out["step_attention"].dtype == jnp.float32
  np.testing.assert_allclose(logits, expected, atol=0.03)


# Label sets.


def test_decide_is_the_union_of_the_views_and_never_an_unseen_label():
  info = types.SimpleNamespace(positive_ratio=(0.2, 0.1, 0.05, 0.0))
  out = {"step_labels": np.array([[[0, 1, 3], [2, 3, 1]]], np.int32), "step_probability": np.array([[[0.9, 0.6, 0.5], [0.8, 0.7, 0.01]]])}
  # view 1: P = .9, sqrt(.54) = .73, (.27)^(1/3) = .65 against 0, sqrt(.5 * .25) = .35, 0: all pass, 3 was never seen;
  # view 2: 2, 3 (never seen; its threshold is 0 and stays 0), then 1 too.
  assert attncnn_rnn.decide(None, out, info).tolist() == [[True, True, True, False]]
  assert attncnn_rnn.decide(None, out, info, rule="uniform", factor=0.75).tolist() == [[True, False, True, False]]
  assert attncnn_rnn.decide(None, {"heatmap": 0}, info) is None
  one_view = {key: value[:, 0] for key, value in out.items()}
  assert attncnn_rnn.decide(None, one_view, info, factor=30.0).tolist() == [[True, False, False, False]]
  with pytest.raises(InputError, match="rule"):
    attncnn_rnn.decide(None, out, info, rule="some")
  with pytest.raises(InputError, match="stop"):
    attncnn_rnn.decide(None, out, info, stop="some")


def test_bad_inputs_are_named(training):
  model, variables, inputs, _ = training
  with pytest.raises(InputError, match="pixels"):
    model.clone(hog=True, decoder=False).apply(variables, inputs, train=False)
  with pytest.raises(ValueError, match="too small for a block"):
    jax.eval_shape(lambda x: model.clone(hog=True).init(jax.random.key(0), x, train=False), jnp.zeros((1, 32, 32, 3)))
  with pytest.raises(ValueError, match="no label is chosen twice"):
    jax.eval_shape(lambda x: model.clone(num_steps=LABELS + 1).init(jax.random.key(0), x, train=False), inputs)
