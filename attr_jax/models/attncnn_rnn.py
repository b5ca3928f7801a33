"""AttnCNN-RNN and HOG: artworks, labelled one label after the other in no given order.

Tang, Chen, Zhao, "Fine-grained visual attribute recognition of artworks" (Stanford CS231n project, 2019), after Chen,
Chen, Yeh, Wang, "Order-Free RNN with Visual Attention for Multi-Label Classification", AAAI 2018. Four systems:

  ResNet50            `decoder=False`             a linear classifier on pooled features
  ResNet50+HOG        `decoder=False, hog=True`   the same on pooled features and the HOG of the view
  AttnCNN-RNN                                     an LSTM with attention, which starts from that classifier's guess
  AttnCNN-RNN+HOG     `hog=True`                  the same, with the HOG in that guess

At each of ten steps the decoder looks at the cells of the last stage, names a probability for every label, and chooses the
most probable one that it has not chosen yet; its own choice goes into the next step, in training too, and the target of
every step is the whole label set. So no order of labels is ever needed.

Where the poster is silent, as in the released program (github.com/tsy935/CS231N_CZT): the encoder is a frozen ResNet-50 of
ImageNet; the guess has no loss of its own (Chen et al. have one, `preliminary_weight`); the layers start as torch's Linear
and LSTMCell do, the two of the prediction uniform in +-0.1.
Unlike there: batch statistics of a frozen encoder stay (its program lets them drift); the encoder runs once per image,
not twice; 7x7 cells are attended instead of 14x14, each of which it repeats four times, which gives the same context;
the beam search keeps every beam's own history (its program mixes them) and takes all images at once.
"""

from collections.abc import Mapping
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax import losses
from attr_jax.data import info as info_lib
from attr_jax.errors import InputError
from attr_jax.nn import decoding
from attr_jax.nn import hog as hog_lib
from attr_jax.nn.resnet import ResNet

# Top-level parameter groups that each stage trains; None: all.
TRAINABLE = {"heads": ("classifier", "decoder"), "all": None}
# How the probability of a path is compared: with class-specific thresholds (Tang et al.) or with one number (Chen et al.);
# and the factors or numbers that a search on validation images tries.
RULES = {
    "class": tuple(i / 4 for i in range(1, 41)),
    "uniform": tuple(i / 100 for i in range(1, 100)),
}


class Model(nn.Module):
  """Trunk `backbone`, linear `classifier`, `decoder`; with 1,103 labels 23.5 + 2.3 + 15.1 million parameters.

  Attributes:
    num_labels: L.
    depth: 18, 34, 50, 101 or "tiny", see `ResNet`.
    width: of the trunk; None takes the one of the depth.
    dtype: of the computation; parameters, statistics, softmax, cell state and logits are float32.
    decoder: False: the classifier alone.
    hog: the classifier sees the histogram of oriented gradients too, 10,368 values of a 224x224 view.
    hog_cell: height and width of its cells in pixels; blocks are 3x3 cells.
    frozen_statistics: batch norm of the trunk always takes its running statistics, as a frozen trunk should.
    num_steps: T, labels that the decoder chooses.
    beam_width: of the search, outside training. 1 is greedy.
    attention_size: of the layer that scores the cells.
    hidden_size: of the LSTM.
    dropout: share of values dropped before each of the two layers of the prediction, in [0, 1).
    zero_init_last: start every residual block as the identity.
    bn_axis_name: mesh axis of the batch statistics inside shard_map, see `ResNet`.
  """

  num_labels: int
  depth: int | str = 50
  width: int | None = None
  dtype: Any = jnp.float32
  decoder: bool = True
  hog: bool = False
  hog_cell: int = 16
  frozen_statistics: bool = True
  num_steps: int = 10
  beam_width: int = 5
  attention_size: int = 512
  hidden_size: int = 512
  dropout: float = 0.5
  zero_init_last: bool = False
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(
      self, inputs: jax.Array, *, train: bool, pixels: jax.Array | None = None, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scores of the labels and, of a decoder, the labels that it chooses.

    Args:
      inputs: float [B, H, W, 3], normalised.
      train: drop out; take and update batch statistics unless they are frozen; choose greedily.
      pixels: the same images before they were normalised, uint8 [B, H, W, 3]; for `hog`.
      keys: one random key per sample [B], for the decoder in training.

    Returns:
      logits float32 [B, L], and the stages of `ResNet` with `features` float32 [B, C], the mean of the cells. Without
      decoder and HOG also `heatmap` float32 [B, h, w, L], the class activation map. With one, logits are the mean over steps and
      float32 `preliminary_logits` [B, L] what it starts from, `step_logits` [B, T, L], `step_labels` int32 [B, T] the label
      chosen at each step, `step_probability` [B, T] its probability there, `step_attention` [B, T, h, w], which sums to
      1 over (h, w). Outside training these follow the best path of the beam search, whose paths are `beam_labels` int32
      [B, beam_width, T], best first, and `beam_log_probability` [B, beam_width, T].

    Raises:
      InputError: pixels or keys are missing.
      ValueError: images are too small for a block of HOG, or there are fewer labels than steps.
    """
    trunk = ResNet(depth=self.depth, width=self.width, dtype=self.dtype, zero_init_last=self.zero_init_last,
                   bn_axis_name=self.bn_axis_name, name="backbone")
    out = trunk(inputs, train and not self.frozen_statistics)
    cells = out["stage4"]
    features = cells.astype(jnp.float32).mean(axis=(1, 2))
    given = features
    if self.hog:
      given = jnp.concatenate([features, self._hog(inputs, pixels)], axis=-1)
    classifier = nn.Dense(self.num_labels, kernel_init=_uniform(given.shape[-1]), bias_init=_uniform(given.shape[-1]), name="classifier")
    logits = classifier(given)
    out |= {"features": features}
    if not self.decoder:
      if not self.hog:  # what the HOG says has no place
        out["heatmap"] = jnp.dot(cells.astype(jnp.float32), classifier.variables["params"]["kernel"])
      return logits, out

    if train and self.dropout and keys is None:
      raise InputError("the decoder of AttnCNN-RNN needs `keys`, one random key per sample, in training")
    layers = Layers(self.num_labels, cells.shape[-1], self.attention_size, self.hidden_size, name="decoder")()
    dropout = (keys, self.dropout) if train and self.dropout else None
    step, start = make_step(layers, cells, logits, self.dtype, dropout)
    if train:
      labels, steps = decoding.greedy(step, start, self.num_steps)
    else:
      beams, log_probability = decoding.beam_search(step, start, self.num_steps, self.beam_width)
      labels = beams[:, 0]
      steps = decoding.replay(step, start, labels)
      out |= {"beam_labels": beams, "beam_log_probability": log_probability}
    step_logits = steps["logits"].swapaxes(0, 1)
    probability = jax.nn.sigmoid(jnp.take_along_axis(step_logits, labels[..., None], axis=-1)[..., 0])
    attention = steps["attention"].swapaxes(0, 1).reshape(*labels.shape, *cells.shape[1:3])
    out |= {"preliminary_logits": logits, "step_logits": step_logits, "step_labels": labels,
            "step_probability": probability, "step_attention": attention}
    return step_logits.mean(axis=1), out

  def _hog(self, inputs: jax.Array, pixels: jax.Array | None) -> jax.Array:
    """float32 [B, D]."""
    if pixels is None and not self.is_initializing():  # there only the shape counts
      raise InputError("AttnCNN-RNN with hog=True needs `pixels`, the images as they are before normalisation")
    cell_size = (self.hog_cell, self.hog_cell)
    return hog_lib.hog(jnp.zeros(inputs.shape, jnp.uint8) if pixels is None else pixels, cell_size=cell_size)


def _uniform(fan_in: int) -> nn.initializers.Initializer:
  """torch's Linear: weights and biases within 1 / sqrt(fan_in)."""
  return _within(1 / math.sqrt(fan_in))


def _within(bound: float) -> nn.initializers.Initializer:
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Layers(nn.Module):
  """The decoder's parameters, {layer: {"kernel", "bias"}}; what is done with them is `make_step`.

  The input of the LSTM has three parts, each with a kernel of its own: the labels of the step before as probabilities
  (`lstm_predicted`), the gated context (`lstm_context`) and the labels chosen so far (`lstm_chosen`). Its gates are in the
  order input, forget, cell, output.
  """

  num_labels: int
  cell_size: int
  attention_size: int
  hidden_size: int

  @nn.compact
  def __call__(self) -> dict[str, dict[str, jax.Array]]:
    """float32 kernels [inputs, outputs] and biases [outputs]."""
    cell, hidden, labels, attention = self.cell_size, self.hidden_size, self.num_labels, self.attention_size
    lstm = _within(1 / math.sqrt(hidden))
    small = _within(0.1)
    return {
        "start_hidden": self._layer("start_hidden", cell, hidden),
        "start_cell": self._layer("start_cell", cell, hidden),
        "attend_cells": self._layer("attend_cells", cell, attention),
        "attend_hidden": self._layer("attend_hidden", hidden, attention),
        "attend": self._layer("attend", attention, 1),
        "gate": self._layer("gate", hidden, cell),
        "lstm_predicted": self._layer("lstm_predicted", labels, 4 * hidden, lstm, bias=None),
        "lstm_context": self._layer("lstm_context", cell, 4 * hidden, lstm, bias=None),
        "lstm_chosen": self._layer("lstm_chosen", labels, 4 * hidden, lstm, bias=None),
        "lstm_hidden": self._layer("lstm_hidden", hidden, 4 * hidden, lstm, bias=lstm),
        "predict1": self._layer("predict1", hidden, hidden, small, bias=nn.initializers.zeros),
        "predict2": self._layer("predict2", hidden, labels, small, bias=nn.initializers.zeros),
    }

  def _layer(self, name, rows, columns, init=None, bias=...):
    init = init or _uniform(rows)
    layer = {"kernel": self.param(f"{name}_kernel", init, (rows, columns))}
    if bias is not None:
      layer["bias"] = self.param(f"{name}_bias", init if bias is ... else bias, (columns,))
    return layer


def make_step(
    layers: Mapping[str, Mapping[str, jax.Array]], cells: jax.Array, preliminary_logits: jax.Array, dtype: Any = jnp.float32,
    dropout: tuple[jax.Array, float] | None = None,
) -> tuple[decoding.Step, dict[str, jax.Array]]:
  """The decoder over given images, as `nn.decoding` wants it.

  Args:
    layers: of `Layers`.
    cells: [B, h, w, C], the last stage of the trunk.
    preliminary_logits: float32 [B, L].
    dtype: of the matrix products.
    dropout: keys [B] and the share of values that is dropped; None: nothing is.

  Returns:
    step: gives `logits` [B, W, L] and `attention` [B, W, h w], float32.
    state: for one beam. `chosen` is the part of the LSTM's gates that the labels chosen so far bring: a row of a
      kernel is added per label, in place of a product with as many columns as there are labels.
  """
  batch, _, _, channels = cells.shape
  cells = cells.reshape(batch, -1, channels)
  mean = cells.astype(jnp.float32).mean(axis=1, keepdims=True)
  dot = lambda x, layer: _dot(x, layers[layer], dtype)
  projected = dot(cells, "attend_cells")[:, None]  # once per image: [B, 1, h w, A]

  def step(state: dict[str, jax.Array], label: jax.Array) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    hidden = state["hidden"]
    row = jnp.asarray(layers["lstm_chosen"]["kernel"])[jnp.maximum(label, 0)]
    chosen = state["chosen"] + jnp.where(label[..., None] >= 0, row, 0.0)
    energy = dot(nn.relu(projected + dot(hidden, "attend_hidden")[:, :, None]), "attend")[..., 0]
    attention = jax.nn.softmax(energy, axis=-1)
    context = jnp.einsum("bwn,bnc->bwc", attention.astype(dtype), cells.astype(dtype), preferred_element_type=jnp.float32)
    context = jax.nn.sigmoid(dot(hidden, "gate")) * context
    gates = dot(state["predicted"], "lstm_predicted") + dot(context, "lstm_context") + chosen + dot(hidden, "lstm_hidden")
    enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * state["cell"] + jax.nn.sigmoid(enter) * jnp.tanh(new)
    hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
    logits = dot(_dropped(hidden, state["time"], 0, dropout), "predict1")
    logits = dot(_dropped(logits, state["time"], 1, dropout), "predict2")
    state = {"hidden": hidden, "cell": cell, "chosen": chosen, "predicted": jax.nn.sigmoid(logits), "time": state["time"] + 1}
    return state, {"logits": logits, "attention": attention}

  state = {
      "hidden": dot(mean, "start_hidden"),
      "cell": dot(mean, "start_cell"),
      "chosen": jnp.zeros((batch, 1, layers["lstm_chosen"]["kernel"].shape[1])),
      "predicted": jax.nn.sigmoid(preliminary_logits)[:, None],
      "time": jnp.zeros((batch, 1), jnp.int32),
  }
  return step, state


def _dot(x: jax.Array, layer: Mapping[str, jax.Array], dtype: Any) -> jax.Array:
  """x [..., I] times a layer, float32 [..., O]."""
  y = jnp.dot(x.astype(dtype), layer["kernel"].astype(dtype), preferred_element_type=jnp.float32)
  return y + layer["bias"].reshape((1,) * (y.ndim - 1) + (-1,)) if "bias" in layer else y


def _dropped(x: jax.Array, time: jax.Array, place: int, dropout: tuple[jax.Array, float] | None) -> jax.Array:
  """Drops values of x [B, 1, D], by each sample's key, its step and the place in the step."""
  if dropout is None:
    return x
  keys, rate = dropout
  keys = jax.vmap(jax.random.fold_in)(keys, 2 * time[:, 0] + place)
  keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
  return jnp.where(keep, x / (1 - rate), 0.0)


def decide(
    logits: jax.Array, out: Mapping[str, jax.Array], info: info_lib.DatasetInfo, *, rule: str = "class", factor: float = 2.5,
    stop: str = "first_failure",
) -> jax.Array | None:
  """The label set of each image: the union of what its views' paths keep.

  Args:
    logits: not used.
    out: of the model outside training, `step_labels` int [N, T] or, of V views, [N, V, T], and `step_probability` likewise.
    info: of the data set that the model was trained on; labels that it never saw there are in no set.
    rule: "class": path probability against `decoding.path_threshold`; "uniform": against the number `factor`.
    factor: 2.5 in the released program.
    stop: see `decoding.kept`.

  Returns:
    bool [N, L]; None for a model without a decoder.

  Raises:
    InputError: an unknown rule or stop.
  """
  del logits
  if "step_labels" not in out:
    return None
  keep = steps_kept(out, info, rule=rule, factor=factor, stop=stop)
  labels, keep = (x.reshape(x.shape[0], -1, x.shape[-1]) for x in (jnp.asarray(out["step_labels"]), keep))
  return decoding.label_set(labels, keep, len(info.positive_ratio))


def steps_kept(
    out: Mapping[str, jax.Array], info: info_lib.DatasetInfo, *, rule: str = "class", factor: float = 2.5,
    stop: str = "first_failure",
) -> jax.Array:
  """Which steps of a path give their label to the set; the arguments are those of `decide`.

  Args:
    out: `step_labels` int and `step_probability` [..., T].
    info: see `decide`.
    rule: see `decide`.
    factor: see `decide`.
    stop: see `decide`.

  Returns:
    bool [..., T].

  Raises:
    InputError: an unknown rule or stop.
  """
  if rule not in RULES:
    raise InputError(f"config.decide.rule={rule!r} is unknown; known: {', '.join(RULES)}")
  if stop not in decoding.STOPS:
    raise InputError(f"config.decide.stop={stop!r} is unknown; known: {', '.join(decoding.STOPS)}")
  labels, prior = jnp.asarray(out["step_labels"]), jnp.asarray(info.positive_ratio, jnp.float32)
  threshold = decoding.path_threshold(labels, prior, factor) if rule == "class" else factor
  keep = decoding.kept(decoding.path_probability(out["step_probability"]), threshold, stop)
  return keep & (prior[labels] > 0)


def pretrained(model: Mapping[str, Any], loss: Mapping[str, Any]) -> str:
  """The part that other weights have to give, since nothing here trains it; "" for none. Takes the config's sections."""
  del model
  return "backbone" if loss["stage"] == "heads" else ""


def objective(
    logits: jax.Array,
    out: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    memory: Any,
    *,
    positive_ratio: jax.Array,
    loss: str = "capped_positive",
    unspecified: str = "negative",
    reduction: str = "mean",
    preliminary_weight: float = 0.0,
    stage: str = "heads",
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross-entropy of the whole label set, averaged over the decoder's steps.

  Args:
    logits: [B, L]; used without a decoder.
    out: of `Model`.
    batch: as in `losses.classification_loss`, like the next four arguments.
    memory: not used.
    positive_ratio: [L].
    loss: the class weighting; "capped_positive" in the released program of Tang et al., "bce" in Chen et al.
    unspecified: iMet has no unspecified labels.
    reduction: "mean" over labels too, as in that program.
    preliminary_weight: of the loss of what the decoder starts from: 0 in Tang et al., 1 in Chen et al.
    stage: what is trained, a key of TRAINABLE; does not change the loss.

  Returns:
    The loss, a float32 scalar, and {"classification", with a decoder also "preliminary"}, not weighted.

  Raises:
    InputError: an unknown stage.
    ValueError: as `losses.classification_loss`.
  """
  del memory
  if stage not in TRAINABLE:
    raise InputError(f"config.loss.stage={stage!r} is unknown; known: {', '.join(TRAINABLE)}")

  def loss_of(logits: jax.Array) -> jax.Array:
    return losses.classification_loss(
        logits, batch, positive_ratio=positive_ratio, loss=loss, unspecified=unspecified, reduction=reduction)

  if "step_logits" not in out:
    value = loss_of(logits)
    return value, {"classification": value}
  classification = jax.vmap(loss_of, in_axes=1)(out["step_logits"]).mean()
  preliminary = loss_of(out["preliminary_logits"])
  return classification + preliminary_weight * preliminary, {"classification": classification, "preliminary": preliminary}
