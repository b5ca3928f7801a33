"""VAC: heatmaps that turn, shift and scale with the image.

Guo, Zheng, Fan, Yu, Wang, "Visual Attention Consistency under Image Transforms for Multi-Label
Image Classification", CVPR 2019. A ResNet with a linear classifier, trained on an image and on
transformed copies of it: all views are classified, and the class activation map of a copy, brought
back to the frame of the image, shall equal the map of the image. At evaluation it is the baseline.

The letters of `Model(transforms=...)` are those of the paper's rows: "" R50, "f" ACf, "s" ACs, "r" ACr,
"t" ACt, "fs" ACfs (four views). The same with its weight in `objective` at 0 is the row of plain
augmentation (R50+f and so on).

From the released program (github.com/hguosc/visual_attention_consistency), where the paper is silent or differs:
- In the map the classifier's weights are constants: consistency trains the trunk alone.
- The term is the mean of squares, not the printed sum of 2-norms (`objective(norm="slide")`).
- All large views make one batch and all small ones another: batch statistics belong to a scale,
  and the running ones are updated twice per step, the large scale first.
- Maps of two scales are compared on the grid that both divide, each value repeated; values are not
  rescaled. Original and flipped maps count alike in this term.
- The classifier starts as torch's Linear does, uniform within 1 / sqrt(C), weights and biases.

It has only f and s; the paper does not say how it rotates and translates. Here both are exact on the lattice
of the map, so that nothing is interpolated: quarter turns, one to three per sample, and shifts by whole cells along
an axis, zeros (the mean colour) moving in. How it made small copies depends on the version of its image
library; here bilinear with antialiasing.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from attr_jax import losses
from attr_jax.config import is_off
from attr_jax.errors import InputError
from attr_jax.nn.resnet import ResNet

TRANSFORMS = "fsrt"
FILTERS = ("bilinear", "nearest")
# norm -> form of `losses.attention_consistency`
NORMS = {"mse": "mse", "slide": "norm"}

_DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right
_PROBE = 512  # px; a multiple of the stride of every trunk


class Model(nn.Module):
  """Trunk `backbone`, linear `classifier`; with 14 labels 23,536,718 parameters at depth 50, 42,528,846 at 101.

  Attributes:
    num_labels: L.
    depth: 18, 34, 50, 101 or "tiny", see `ResNet`.
    width: of the trunk; None takes the one of the depth.
    dtype: of the computation; parameters, statistics, maps and logits are float32.
    transforms: the views beside the original in training, letters of TRANSFORMS: flip, scale, rotate, translate.
      With "fs" there is also the flip of the small copy.
    small_size: of the small copy, (height, width) in px or a share of the input's. 224 -> 192 on WIDER-Attribute and
      PA-100K is the default; MS-COCO has 288 -> 256.
    small_filter: how it is made, one of FILTERS; "bilinear" is with antialiasing.
    shift_cells: how far the translated view moves, in cells of the map.
    zero_init_last: start every residual block as the identity.
    bn_axis_name: mesh axis of the batch statistics inside shard_map, see `ResNet`.
  """

  num_labels: int
  depth: int | str = 50
  width: int | None = None
  dtype: Any = jnp.float32
  transforms: str | Sequence[str] = "fs"
  small_size: float | tuple[int, int] = 6 / 7
  small_filter: str = "bilinear"
  shift_cells: int = 1
  zero_init_last: bool = False
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(
      self, inputs: jax.Array, *, train: bool, keys: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scores of the labels, from the original view.

    Args:
      inputs: float [B, H, W, 3], normalised.
      train: make the other views, take and update batch statistics.
      keys: one random key per sample [B], for the views "r" and "t" in training.

    Returns:
      logits float32 [B, L] and, for the original view, the stages of `ResNet` with `features` float32 [B, C] and
      `heatmap` float32 [B, h, w, L] as in `nn.attention.classify`, but constant in the classifier's weights.
      In training also `logits_views` [V, B, L], the large views before the small ones and the original first;
      `heatmap_flip`, `heatmap_rotated`, `heatmap_translated` [B, h, w, L], `heatmap_small` and
      `heatmap_small_flip` [B, h', w', L], each in the frame of its own view; `quarter_turns` int32 [B], how often
      the rotated view was turned (counter-clockwise); `shift` int32 [B, 2], how many cells down and to the right
      the translated view was moved.

    Raises:
      InputError: an unknown option, images that an option does not fit, or keys missing.
    """
    if not set(self.transforms) <= set(TRANSFORMS):
      raise InputError(f"VAC transforms {self.transforms!r} are unknown; known: the letters {', '.join(TRANSFORMS)}")
    if self.small_filter not in FILTERS:
      raise InputError(f"VAC small_filter {self.small_filter!r} is unknown; known: {', '.join(FILTERS)}")
    trunk = ResNet(
        depth=self.depth,
        width=self.width,
        dtype=self.dtype,
        zero_init_last=self.zero_init_last,
        bn_axis_name=self.bn_axis_name,
        name="backbone",
    )
    passes, drawn = [{"heatmap": inputs}], {}
    if train:
      passes, drawn = self._views(inputs, keys, trunk)
    stages = [trunk(_interleave(views.values()), train) for views in passes]

    cells = [stage["stage4"].astype(jnp.float32) for stage in stages]
    bound = 1 / math.sqrt(cells[0].shape[-1])
    uniform = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)
    classifier = nn.Dense(self.num_labels, kernel_init=uniform, bias_init=uniform, name="classifier")
    features = [x.mean(axis=(1, 2)) for x in cells]
    logits = [classifier(x) for x in features]
    weights = jax.lax.stop_gradient(classifier.variables["params"]["kernel"])

    original = stages[0] | {"features": features[0]}
    out = {name: _deinterleave(x, len(passes[0]))[0] for name, x in original.items()}
    for views, x in zip(passes, cells):
      out |= zip(views, _deinterleave(jnp.dot(x, weights), len(views)))
    every = [view for views, x in zip(passes, logits) for view in _deinterleave(x, len(views))]
    if train:
      out |= {"logits_views": jnp.stack(every), **drawn}
    return every[0], out

  def _views(
      self, inputs: jax.Array, keys: jax.Array | None, trunk: ResNet
  ) -> tuple[list[dict[str, jax.Array]], dict[str, jax.Array]]:
    """The large views and the small ones, each by the name of its heatmap; and what was drawn."""
    _, height, width, _ = inputs.shape
    large, drawn = {"heatmap": inputs}, {}
    if set("rt") & set(self.transforms) and keys is None:
      raise InputError("VAC's rotated and translated views need `keys`, one random key per sample")
    if "f" in self.transforms:
      large["heatmap_flip"] = flip(inputs)
    if "r" in self.transforms:
      if height != width:
        raise InputError(f"VAC's rotated view needs square images, got {height}x{width}: set config.input.size")
      drawn["quarter_turns"] = draw_quarter_turns(keys)
      large["heatmap_rotated"] = rotate(inputs, drawn["quarter_turns"])
    if "t" in self.transforms:
      stride = _stride(trunk)
      if not 0 < self.shift_cells * stride < min(height, width):
        raise InputError(f"VAC shift_cells={self.shift_cells} of {stride} px does not fit images of {height}x{width}")
      drawn["shift"] = self.shift_cells * draw_directions(keys)
      large["heatmap_translated"] = translate(inputs, stride * drawn["shift"])
    passes = [large]
    if "s" in self.transforms:
      passes.append({"heatmap_small": shrink(inputs, self.small_size, self.small_filter)})
      if "f" in self.transforms:
        passes[1]["heatmap_small_flip"] = flip(passes[1]["heatmap_small"])
    return passes, drawn


def flip(x: jax.Array) -> jax.Array:
  """Images or maps [B, H, W, C] mirrored left to right."""
  return x[:, :, ::-1]


def shrink(image: jax.Array, size: float | tuple[int, int], method: str) -> jax.Array:
  """A smaller copy.

  Args:
    image: float [B, H, W, C].
    size: (h, w), or a share of (H, W).
    method: one of FILTERS.

  Returns:
    [B, h, w, C], of the type of image.

  Raises:
    InputError: the copy would be larger or empty.
  """
  batch, *full, channels = image.shape
  size = tuple(round(side * size) for side in full) if isinstance(size, (int, float)) else tuple(size)
  if len(size) != 2 or not all(0 < side <= limit for side, limit in zip(size, full)):
    raise InputError(f"VAC small_size {size} does not fit images of {full[0]}x{full[1]}: set config.model.small_size")
  small = jax.image.resize(image.astype(jnp.float32), (batch, *size, channels), method)
  return small.astype(image.dtype)


def rotate(x: jax.Array, quarter_turns: jax.Array) -> jax.Array:
  """Each sample turned counter-clockwise by its number of quarter turns.

  Args:
    x: [B, N, N, C], image or map.
    quarter_turns: int [B] in 0 to 3; 4 minus it turns back (4 is 0).

  Returns:
    As x.
  """
  half, quarter = (((quarter_turns & bit) > 0)[:, None, None, None] for bit in (2, 1))
  x = jnp.where(half, x[:, ::-1, ::-1], x)
  return jnp.where(quarter, jnp.rot90(x, axes=(1, 2)), x)


def translate(x: jax.Array, offset: jax.Array) -> jax.Array:
  """Each sample moved by its offset, zeros moving in.

  Args:
    x: [B, H, W, C], image or map.
    offset: int [B, 2], pixels or cells down and to the right.
  """
  moved = jax.vmap(lambda x, offset: jnp.roll(x, offset, axis=(0, 1)))(x, offset)
  return jnp.where(covered(offset, x.shape[1:3])[..., None], moved, jnp.zeros((), x.dtype))


def covered(offset: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Where something is left after `translate`: offset int [B, 2], size (h, w) -> bool [B, h, w]."""
  rows, columns = (jnp.arange(n)[None] - offset[:, axis, None] for axis, n in enumerate(size))
  inside = [(0 <= source) & (source < n) for source, n in zip((rows, columns), size)]
  return inside[0][:, :, None] & inside[1][:, None]


def draw_quarter_turns(keys: jax.Array) -> jax.Array:
  """Random keys [B] -> int32 [B], 1, 2 or 3, equally likely (our choice)."""
  return jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 0), (), 1, 4))(keys)


def draw_directions(keys: jax.Array) -> jax.Array:
  """Random keys [B] -> int32 [B, 2], one cell up, down, left or right, equally likely (our choice)."""
  chosen = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, len(_DIRECTIONS)))(keys)
  return jnp.asarray(_DIRECTIONS, jnp.int32)[chosen]


def _stride(trunk: ResNet) -> int:
  """Pixels per cell of the map. Only shapes are computed."""
  # Input size by map size is the stride where it divides the input; so the input is chosen.
  image = jax.ShapeDtypeStruct((1, _PROBE, _PROBE, 3), jnp.float32)
  free = trunk.clone(parent=None, name=None)
  out, _ = jax.eval_shape(lambda x: free.init_with_output(jax.random.key(0), x, False), image)
  return _PROBE // out["stage4"].shape[1]


def _interleave(views: Sequence[jax.Array]) -> jax.Array:
  """V arrays [B, ...] -> [B V, ...], the views of a sample side by side.

  One view after the other would be the same to batch norm, but a batch that is split over devices would have to move.
  """
  stacked = jnp.stack(tuple(views), axis=1)
  return stacked.reshape(-1, *stacked.shape[2:])


def _deinterleave(x: jax.Array, count: int) -> list[jax.Array]:
  """Undoes `_interleave`."""
  x = x.reshape(-1, count, *x.shape[1:])
  return [x[:, i] for i in range(count)]


def consistency(out: Mapping[str, jax.Array], form: str = "mse") -> dict[str, jax.Array]:
  """How far the maps of the views in `out` are from those of the original, averaged over samples and labels.

  Args:
    out: of `Model`, its heatmaps [B, h, w, L].
    form: of `losses.attention_consistency`.

  Returns:
    float32 scalars under the transforms' names, as many as there are: "flip", of both scales together; "scale", the
    mean of the original's and the flip's; "rotate"; "translate", over the cells that both views have.
  """
  def compare(a: jax.Array, b: jax.Array, where: jax.Array | None = None) -> jax.Array:
    return losses.reduce_loss(losses.attention_consistency(a, b, form=form, where=where), reduction="mean")

  def compare_scales(a: jax.Array, b: jax.Array) -> jax.Array:
    return losses.reduce_loss(losses.scale_consistency(a, b, form=form), reduction="mean")

  original, terms = out["heatmap"], {}
  if "heatmap_flip" in out:
    terms["flip"] = compare(original, flip(out["heatmap_flip"]))
  if "heatmap_small" in out:
    terms["scale"] = compare_scales(original, out["heatmap_small"])
  if "heatmap_small_flip" in out:
    terms["flip"] += compare(out["heatmap_small"], flip(out["heatmap_small_flip"]))
    terms["scale"] = (terms["scale"] + compare_scales(out["heatmap_flip"], out["heatmap_small_flip"])) / 2
  if "heatmap_rotated" in out:
    terms["rotate"] = compare(original, rotate(out["heatmap_rotated"], 4 - out["quarter_turns"]))
  if "heatmap_translated" in out:
    back = -out["shift"]
    moved_back = translate(out["heatmap_translated"], back)
    terms["translate"] = compare(original, moved_back, covered(back, original.shape[1:3]))
  return terms


def objective(
    logits: jax.Array,
    out: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    memory: Any,
    *,
    positive_ratio: jax.Array,
    loss: str = "exp_ratio",
    unspecified: str = "negative",
    reduction: str = "sum_labels_mean_samples",
    flip_weight: float = 1.0,
    scale_weight: float = 1.0,
    rotate_weight: float = 1.0,
    translate_weight: float = 1.0,
    norm: str = "mse",
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross-entropy of all views plus the weighted consistency of their maps.

  Args:
    logits: [B, L]; used where `out` has no other views (evaluation).
    out: of `Model`.
    batch: as in `losses.classification_loss`, like the next four arguments.
    memory: not used.
    positive_ratio: [L].
    loss: the class weighting, "exp_ratio" in the paper.
    unspecified: the released program counts unspecified labels as "negative".
    reduction: of the classification. It is summed over labels while consistency is averaged over them: the weights
      belong to that convention.
    flip_weight: 1 on WIDER-Attribute, 0.6 on MS-COCO. Like the other weights, 0 leaves the view as augmentation;
      its consistency is still reported.
    scale_weight: 1 on WIDER-Attribute, 0.8 on MS-COCO.
    rotate_weight: not published.
    translate_weight: not published.
    norm: "mse" (the released program) or "slide", the formula as printed: the 2-norm of the difference over the
      number of cells.

  Returns:
    The loss, a float32 scalar, and {"classification", and the terms of `consistency`}, not weighted.

  Raises:
    InputError: an unknown norm.
    ValueError: as `losses.classification_loss`.
  """
  del memory
  if norm not in NORMS:
    raise InputError(f"VAC norm {norm!r} is unknown; known: {', '.join(NORMS)}")

  def classification(logits: jax.Array) -> jax.Array:
    return losses.classification_loss(
        logits, batch, positive_ratio=positive_ratio, loss=loss, unspecified=unspecified, reduction=reduction
    )

  value = jax.vmap(classification)(out.get("logits_views", logits[None])).mean()
  terms = consistency(out, NORMS[norm])
  weights = {"flip": flip_weight, "scale": scale_weight, "rotate": rotate_weight, "translate": translate_weight}
  total = value + sum(weights[name] * term for name, term in terms.items() if not is_off(weights[name]))
  return total, {"classification": value, **terms}
