"""Facial attributes helped by face parsing: SSP, SSG, the parser behind them and what they are compared with.

Kalayeh, Gong, Shah, "Improving Facial Attribute Prediction using Semantic Segmentation", CVPR 2017. A network that
labels every pixel of a face with one of seven regions is trained first and then frozen; its maps pool (SSP) or gate
(SSG) the features of a second network, which names the attributes. `Model(system=...)`:

- "parser": encoder of 8 convolutions, decoder that mirrors it, supervised at four scales (Table 1).
- "basic": the first 8 convolutions like the encoder, four more, global average pooling ("Avg. Pooling").
- "ssp": one feature vector per region; two classifiers shared by all regions, one names the attributes, the other
  weighs the regions of each attribute.
- "ssg": convolution 32 once per region, multiplied by its map; a sparse choice between the seven is learnt.
- "spp" (SPPNet*): basic with a spatial pyramid. "naive": basic on the image and the maps. "bbox": ssp on boxes around
  five landmarks in place of regions.
- "joint": basic and parser with one encoder, trained together on images of two data sets.

"SSP+SSG" is the mean of two runs. A parsing network lies in the parameter group `parser`, whatever the system, so
that a trained one is taken over by every later run.

Where the paper is silent or contradicts itself:
- The convolution before batch norm has no bias. Stride-1 transposed convolutions are plain ones.
- The outputs Deconv23 and Deconv33, which the text names and Table 1 lacks, are side outputs of 7 channels, like 43; they
  do not feed the next stage. The 7-channel outputs are plain logits: Table 1 lists batch norm and PReLU on them.
- A region's feature in SSP is the mean over the region, weighted by its map.
- SSG gates one layer, 32, the one at the size of Deconv33; its 1x1 convolution is linear. A map there has mean 1, not sum
  1: batch norm divides the factor out, but its epsilon would weigh against values as small as 1 / cells.
- SPPNet* has two levels, 1x1 and 2x2. The boxes of "bbox" have an area of 40^2 px at 218x178.
- In "joint" all images share the statistics of the encoder; both losses count alike.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attr_jax import losses
from attr_jax.data.regions import FaceRegion
from attr_jax.errors import InputError
from attr_jax.nn.attention import classify
from attr_jax.nn.attention import linear
from attr_jax.nn.norm import BatchNorm
from attr_jax.nn.resnet import Conv

SYSTEMS = ("basic", "ssp", "ssg", "spp", "naive", "bbox", "parser", "joint")
REGION_NORMALIZATIONS = ("mean", "gap")
PYRAMID_POOLINGS = ("max", "average")
# stage -> top-level parameters that train in it; the others are frozen. A frozen parser also keeps its statistics.
TRAINABLE = {
    "attributes": ("input_norm", "encoder", "trunk", "classifier", "recognition", "localisation"),
    "all": None,
}
SCALES = (1, 2, 3, 4)  # blocks with a parsing output, full size first; block k is at 1 / 2^(k - 1)

_SMALL = (FaceRegion.EYES, FaceRegion.EYEBROWS, FaceRegion.MOUTH, FaceRegion.NOSE)
_ASPECTS = (1.0, 0.5, 2.0)  # width by height of a landmark's boxes
_BOX_FRAME = (218, 178)  # (height, width) that `box_area` is measured on
_STRIDE = 16  # pixels per cell of the last map
_GATE_STRIDE = 4  # of the layer that SSG gates

he_normal = nn.initializers.he_normal()


class PRelu(nn.Module):
  """x where it is positive, else slope times x; one slope per channel, 0.25 at the start (He et al., ICCV 2015)."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x [..., C] -> the same shape and type."""
    slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],), jnp.float32)
    return jnp.where(x >= 0, x, slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,)) * x)


class ConvNormPrelu(nn.Module):
  """3x3 convolution without bias (size kept), batch norm, PReLU; with a gate SSG's layer.

  Attributes:
    features: channels of the convolution.
    dtype: of the computation.
    bn_axis_name: see `Model`.
  """

  features: int
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, gate: jax.Array | None = None) -> jax.Array:
    """x [B, h, w, I], gate [B, h, w, R] or None -> [B, h, w, features] or [B, h, w, R * features], of `dtype`."""
    x = Conv(self.features, 3, padding=1, kernel_init=he_normal, dtype=self.dtype, name="conv")(x)
    if gate is not None:
      # Before batch norm, which the paper calls very important (Sec. 3.1.3).
      x = (x[..., None, :] * gate.astype(x.dtype)[..., None]).reshape(*x.shape[:3], -1)
    norm = BatchNorm(not train, dtype=self.dtype, axis_name=self.bn_axis_name, name="bn")
    return PRelu(name="prelu")(norm(x))


class Encoder(nn.Module):
  """The first eight convolutions, `conv11` to `conv42`: two per block, max pooling between blocks (Table 1).

  Attributes:
    width: channels of block 1; doubled per block.
    dtype: of the computation.
    bn_axis_name: see `Model`.
  """

  width: int = 64
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, gate: jax.Array | None = None) -> jax.Array:
    """Images to the features of block 4.

    Args:
      x: [B, H, W, I].
      train: take and update batch statistics.
      gate: [B, ceil(H / 4), ceil(W / 4), R], SSG's normalised maps: `conv32` is gated and, after its pooling, the 1x1
        convolution `merge` brings R times as many channels back to their number. None: nothing is gated.

    Returns:
      [B, ceil(H / 8), ceil(W / 8), 8 width] of `dtype`.
    """
    for block in SCALES:
      features = self.width * 2 ** (block - 1)
      for layer in (1, 2):
        gated = (block, layer) == (3, 2) and gate is not None
        conv = ConvNormPrelu(features, self.dtype, self.bn_axis_name, name=f"conv{block}{layer}")
        x = conv(x, train, gate if gated else None)
      if block < 4:
        x = max_pool(x)
      if block == 3 and gate is not None:
        x = nn.Dense(features, kernel_init=he_normal, dtype=self.dtype, name="merge")(x)
    return x


class Trunk(nn.Module):
  """The last four convolutions of an attribute network: `conv43`, `conv44`, max pooling, `conv51`, `conv52`."""

  width: int = 64
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """x [B, h, w, 8 width] of the encoder -> [B, ceil(h / 2), ceil(w / 2), 16 width] of `dtype`."""
    for block, layers in ((4, (3, 4)), (5, (1, 2))):
      if block == 5:
        x = max_pool(x)
      for layer in layers:
        x = ConvNormPrelu(self.width * 2 ** (block - 1), self.dtype, self.bn_axis_name, name=f"conv{block}{layer}")(x, train)
    return x


class Decoder(nn.Module):
  """The encoder mirrored, `deconv41` to `deconv12`, with a 7-channel output per block, `deconv43` to `deconv13` (Table 1)."""

  width: int = 64
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, size: tuple[int, int], train: bool) -> dict[str, jax.Array]:
    """Features of block 4 to the logits of the regions.

    Args:
      x: [B, ceil(H / 8), ceil(W / 8), 8 width] of the encoder.
      size: (H, W) of its images.
      train: take and update batch statistics.

    Returns:
      `parsing1` to `parsing4`, float32 [B, ceil(H / 2^(k - 1)), ceil(W / 2^(k - 1)), 7].
    """
    out = {}
    for block in reversed(SCALES):
      if block < 4:
        x = upsample(x, _grid(size, 2 ** (block - 1)))
      for layer in (1, 2):
        features = self.width * 2 ** (block - 1)
        x = ConvNormPrelu(features, self.dtype, self.bn_axis_name, name=f"deconv{block}{layer}")(x, train)
      head = nn.Conv(len(FaceRegion), (3, 3), padding=1, kernel_init=he_normal, name=f"deconv{block}3")
      out[f"parsing{block}"] = head(x.astype(jnp.float32))
    return out


class ParsingNet(nn.Module):
  """`encoder` and `decoder`; a model with a shared encoder calls the two parts itself."""

  width: int = 64
  dtype: Any = jnp.float32
  bn_axis_name: str | None = None

  def setup(self):
    """Makes the two parts."""
    self.encoder = Encoder(self.width, self.dtype, self.bn_axis_name)
    self.decoder = Decoder(self.width, self.dtype, self.bn_axis_name)

  def __call__(self, inputs: jax.Array, train: bool) -> dict[str, jax.Array]:
    """inputs [B, H, W, 3] -> the logits of `Decoder`."""
    return self.decoder(self.encoder(inputs, train), inputs.shape[1:3], train)


class Model(nn.Module):
  """`parser` and the attribute network: `encoder` (joint: the parser's), `trunk`, and `classifier` or `recognition` and `localisation`.

  Parameters with 40 labels: basic 23,613,800; parser 11,796,508, of which the encoder has 4,689,216; without their
  parser ssp 23,654,800, ssg 24,077,416, naive 23,617,852; bbox as ssp; spp 23,777,640; joint 30,721,092.

  Attributes:
    num_labels: L. Not used by "parser", which names no attributes.
    system: one of SYSTEMS.
    width: channels of block 1, 64 in the paper; all others in proportion.
    dtype: of the computation; parameters, statistics, maps and logits are float32.
    parser: False where the maps of "ssp" and "ssg" always come from outside (`regions`): no parser is made.
    region_normalization: of "ssp" and "bbox", see `region_features`.
    region_eps: added to the sum of a map before it divides ("ssp", "ssg", "bbox"), so that a region that is not there gives 0.
    pyramid_pooling: of "spp", one of PYRAMID_POOLINGS.
    box_area: of the boxes of "bbox", in pixels of a 218x178 image; images of other sizes stretch them.
    bn_axis_name: mesh axis of the batch statistics inside shard_map, see `ResNet`.
  """

  num_labels: int
  system: str = "ssp"
  width: int = 64
  dtype: Any = jnp.float32
  parser: bool = True
  region_normalization: str = "mean"
  region_eps: float = 1e-6
  pyramid_pooling: str = "max"
  box_area: float = 40.0**2
  bn_axis_name: str | None = None

  @nn.compact
  def __call__(
      self, inputs: jax.Array, *, train: bool, regions: jax.Array | None = None, landmarks: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Scores of the labels.

    Args:
      inputs: float [B, H, W, 3], normalised, of any size; below, h and w are sides rounded up: 218x178 has 109x89, 55x45,
        28x23 and 14x12 cells.
      train: take and update batch statistics. In "joint" a training batch alternates: images with attributes are its
        rows 0, 2, 4, ..., images with region masks the rows between.
      regions: the parser's maps, computed before, float [B, h, w, 7] in 0..1: `regions` of it for "ssp", `regions_fine`
        for "ssg". The parser does not run then. None: it runs, frozen.
      landmarks: float32 [B, 5, 2], x and y in pixels of the input, the centre of the first pixel 0. For "bbox".

    Returns:
      logits float32 [B, L], in "parser" [B, 0], in the rows of "joint" that have masks 0; and a dict:
      - Wherever a parser runs, float32: `region_probability` [B, H, W, 7], its maps at full size; `regions`
        [B, H/16, W/16, 7] and `regions_fine` [B, H/4, W/4, 7], see `region_maps`.
      - "parser" and "joint": `parsing1` to `parsing4`, float32 [B, H/2^(k-1), W/2^(k-1), 7], logits.
      - All but "parser": `features` [B, H/16, W/16, C] of `dtype`, the last convolution; C is 16 width.
      - "ssp" and "bbox" with R = 7 and 16, float32: `region_features` [B, R, C], `region_logits` [B, R, L],
        `region_weights` [B, R, L], sum 1 over R, and `attention` [B, H/16, W/16, L], the maps of the regions added up
        by these weights.
      - "basic", "ssg", "naive" and "joint": `heatmap` float32 [B, H/16, W/16, L], see `nn.attention.classify`.
      In training, `joint` has maps and logits of regions for the B/2 rows with masks and all else for the other B/2.

    Raises:
      InputError: an unknown option, maps or landmarks missing or of the wrong shape, an odd batch in joint training.
    """
    self._check_options()
    if self.system == "parser":
      parsing = self._parsing_net()(inputs, train)
      return jnp.zeros((inputs.shape[0], 0), jnp.float32), parsing | region_maps(parsing)
    if self.system == "joint":
      return self._joint(inputs, train)

    batch, *size, _ = inputs.shape
    out, x, gate = {}, inputs, None
    if self.system == "naive" or (self.system in ("ssp", "ssg") and self.parser and regions is None):
      # With running statistics and no gradient: once trained, nothing of the parser moves.
      out |= jax.lax.stop_gradient(region_maps(self._parsing_net()(inputs, False)))
    if self.system == "naive":
      x = jnp.concatenate([inputs, out["region_probability"].astype(inputs.dtype)], axis=-1)
      x = BatchNorm(not train, dtype=self.dtype, axis_name=self.bn_axis_name, name="input_norm")(x)
    elif self.system == "ssp":
      regions = self._given("regions", out.get("regions", regions), (batch, *_grid(size, _STRIDE), len(FaceRegion)))
    elif self.system == "ssg":
      regions = self._given("regions", out.get("regions_fine", regions), (batch, *_grid(size, _GATE_STRIDE), len(FaceRegion)))
      gate = normalize_gate(regions, self.region_eps)
    elif self.system == "bbox":
      regions = box_regions(self._given("landmarks", landmarks, (batch, 5, 2)), size, self.box_area)
    x = Encoder(self.width, self.dtype, self.bn_axis_name, name="encoder")(x, train, gate)
    out["features"] = self._trunk(x, train)
    logits, head = self._head(out["features"], regions)
    return logits, out | head

  def _joint(self, inputs: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Both tasks on one encoder; in training each on its half of the rows."""
    net = self._parsing_net()
    if train and inputs.shape[0] % 2:
      raise InputError(f"joint training takes an even batch, images of two data sets in turn; got {inputs.shape[0]}")
    x = net.encoder(inputs, train)
    of_attributes, of_regions = _alternate(x) if train else (x, x)
    parsing = net.decoder(of_regions, inputs.shape[1:3], train)
    out = parsing | region_maps(parsing) | {"features": self._trunk(of_attributes, train)}
    logits, head = self._head(out["features"])
    if train:
      logits = jnp.stack([logits, jnp.zeros_like(logits)], axis=1).reshape(-1, self.num_labels)
    return logits, out | head

  def _check_options(self) -> None:
    for option, known in (
        ("system", SYSTEMS), ("region_normalization", REGION_NORMALIZATIONS), ("pyramid_pooling", PYRAMID_POOLINGS)
    ):
      if getattr(self, option) not in known:
        raise InputError(f"face {option} {getattr(self, option)!r} is unknown; known: {', '.join(known)}")
    if not self.parser and self.system in ("naive", "parser", "joint"):
      raise InputError(f"face system {self.system!r} cannot do without its parser: set config.model.parser=True")

  def _parsing_net(self) -> ParsingNet:
    return ParsingNet(self.width, self.dtype, self.bn_axis_name, name="parser")

  def _trunk(self, x: jax.Array, train: bool) -> jax.Array:
    return Trunk(self.width, self.dtype, self.bn_axis_name, name="trunk")(x, train)

  def _given(self, name: str, value: jax.Array | None, shape: tuple[int, ...]) -> jax.Array:
    """What comes beside the images, float32 [shape]; zeros while parameters are made, which happens without it."""
    if value is None and self.is_initializing():
      return jnp.zeros(shape)
    if value is None or value.shape != shape:
      got = "none" if value is None else list(value.shape)
      raise InputError(f"face system {self.system!r} needs {name} of shape {list(shape)} for these images, got {got}")
    return value.astype(jnp.float32)

  def _head(self, cells: jax.Array, regions: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Logits [B, L] of the last map [B, h, w, C], and what leads to them; regions [B, h, w, R] for "ssp" and "bbox"."""
    if self.system in ("ssp", "bbox"):
      return self._classify_regions(cells, regions)
    if self.system == "spp":
      return linear(self.num_labels, "classifier")(pyramid(cells.astype(jnp.float32), self.pyramid_pooling)), {}
    head = classify(cells, self.num_labels)
    return head["logits"], {"heatmap": head["heatmap"]}

  def _classify_regions(self, cells: jax.Array, regions: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """SSP's head (Sec. 3.1.2)."""
    features = region_features(cells, regions, self.region_normalization, self.region_eps)
    recognition = linear(self.num_labels, "recognition")(features)
    weights = jax.nn.softmax(linear(self.num_labels, "localisation")(features), axis=1)
    out = {
        "region_features": features,
        "region_logits": recognition,
        "region_weights": weights,
        "attention": jnp.einsum("bhwr,brl->bhwl", regions, weights, precision="highest"),
    }
    return (weights * recognition).sum(axis=1), out


def grid(size: Sequence[int], system: str) -> tuple[int, int]:
  """(H, W) in cells of the maps that "ssp" or "ssg" takes from outside, of images of (H, W) pixels."""
  return _grid(size, _GATE_STRIDE if system == "ssg" else _STRIDE)


def _grid(size: Sequence[int], stride: int) -> tuple[int, int]:
  """(H, W) pixels -> cells of `stride` pixels, the last ones cut: halving and rounding up again and again gives the same."""
  return -(-size[0] // stride), -(-size[1] // stride)


def _alternate(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """[B, ...] -> its even and its odd rows, [B / 2, ...] each; by a reshape, so that a batch split over devices stays where it is."""
  pairs = x.reshape(x.shape[0] // 2, 2, *x.shape[1:])
  return pairs[:, 0], pairs[:, 1]


def _pad_to(x: jax.Array, multiple: int, fill: float) -> jax.Array:
  """[B, H, W, C] filled up below and to the right."""
  rows, columns = (-side % multiple for side in x.shape[1:3])
  return jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), constant_values=fill)


def max_pool(x: jax.Array) -> jax.Array:
  """2x2, stride 2, rounded up: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

  By strided reads: the gradient of XLA's window maximum took eight times as long on a CPU.
  """
  x = _pad_to(x, 2, -jnp.inf)
  rows = jnp.maximum(x[:, ::2], x[:, 1::2])
  return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def mean_pool(x: jax.Array, window: int) -> jax.Array:
  """The mean of each window, cut ones by what they have: float32 [B, H, W, C] -> [B, ceil(H / window), ceil(W / window), C]."""
  def window_sum(x: jax.Array) -> jax.Array:
    x = _pad_to(x, window, 0.0)
    return x.reshape(x.shape[0], x.shape[1] // window, window, -1, window, x.shape[3]).sum(axis=(2, 4))

  return window_sum(x) / window_sum(jnp.ones((1, *x.shape[1:3], 1)))


def upsample(x: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Every cell [B, h, w, C] as 2x2 cells, cut to size (H, W) below and to the right: the inverse of the poolings here."""
  return x.repeat(2, axis=1).repeat(2, axis=2)[:, : size[0], : size[1]]


def region_maps(parsing: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """The parser's logits as maps, softmax over the regions.

  Args:
    parsing: `parsing1`, `parsing2`, `parsing3`, see `Decoder`.

  Returns:
    float32 [B, h, w, 7] in 0..1 each: `region_probability`, the full size; `regions`, Deconv23 brought to the last map's size by
    `pool_regions` (SSP); `regions_fine`, Deconv33 (SSG; both Sec. 5).
  """
  probability = {block: jax.nn.softmax(parsing[f"parsing{block}"]) for block in (1, 2, 3)}
  return {
      "region_probability": probability[1],
      "regions": pool_regions(probability[2]),
      "regions_fine": probability[3],
  }


def pool_regions(probability: jax.Array) -> jax.Array:
  """float32 [B, h, w, 7] at an eighth of its size: the maximum of small regions, the mean of large ones (Sec. 5)."""
  maximum = max_pool(max_pool(max_pool(probability)))
  small = np.isin(np.arange(len(FaceRegion)), _SMALL).reshape(1, 1, 1, -1)
  return jnp.where(small, maximum, mean_pool(probability, 8))


def normalize_gate(regions: jax.Array, eps: float = 1e-6) -> jax.Array:
  """float32 [B, h, w, R], each map divided by its mean over space; `eps` is added to its sum. A map of zeros stays 0."""
  cells = regions.shape[1] * regions.shape[2]
  return cells * regions / (regions.sum(axis=(1, 2), keepdims=True) + eps)


def region_features(cells: jax.Array, regions: jax.Array, normalization: str = "mean", eps: float = 1e-6) -> jax.Array:
  """One feature vector per region: the cells added up, weighted by the region's map.

  Args:
    cells: [B, h, w, C].
    regions: float32 [B, h, w, R] in 0..1.
    normalization: what divides the sum, "mean" the sum of the map, "gap" the number of cells.
    eps: added to the sum of the map.

  Returns:
    float32 [B, R, C]. The paper does not say what divides (our choice: the mean).
  """
  total = jnp.einsum("bhwr,bhwc->brc", regions, cells.astype(jnp.float32), precision="highest")
  if normalization == "gap":
    return total / (cells.shape[1] * cells.shape[2])
  return total / (regions.sum(axis=(1, 2)) + eps)[..., None]


def box_regions(landmarks: jax.Array, size: Sequence[int], area: float) -> jax.Array:
  """Boxes of one area and three shapes around each landmark, and the whole image, as maps.

  Args:
    landmarks: float32 [B, 5, 2], x and y in pixels, the centre of the first pixel 0.
    size: (H, W) of the image.
    area: of a box in px on an image of 218x178; on others its sides are stretched like the image's.

  Returns:
    float32 [B, ceil(H / 16), ceil(W / 16), 16], the share of each cell that the box covers: for every landmark 1:1, 1:2
    and 2:1 (width to height), then the whole image. Boxes may reach out of the image.
  """
  aspect = np.array(_ASPECTS)
  heights, widths = np.sqrt(area / aspect) * size[0] / _BOX_FRAME[0], np.sqrt(area * aspect) * size[1] / _BOX_FRAME[1]
  # From the border of the image, where it begins, instead of the centre of its first pixel.
  rows = _covered(landmarks[..., 1] + 0.5, heights, size[0])
  columns = _covered(landmarks[..., 0] + 0.5, widths, size[1])
  boxes = jnp.einsum("bpah,bpaw->bhwpa", rows, columns, precision="highest")
  boxes = boxes.reshape(*boxes.shape[:3], -1)
  return jnp.concatenate([boxes, jnp.ones_like(boxes[..., :1])], axis=-1)


def _covered(centre: jax.Array, sides: np.ndarray, length: int) -> jax.Array:
  """Shares of the cells along an axis of `length` pixels within `sides` [A] around `centre` [B, P]: [B, P, A, cells]."""
  start = np.arange(0, length, _STRIDE, dtype=np.float32)
  end = np.minimum(start + _STRIDE, length)
  shape = (1, 1, 1, -1)
  half = (sides / 2).astype(np.float32).reshape(1, 1, -1, 1)
  centre = centre[..., None, None]
  overlap = jnp.minimum(centre + half, end.reshape(shape)) - jnp.maximum(centre - half, start.reshape(shape))
  return jnp.maximum(overlap, 0.0) / (end - start).reshape(shape)


def pyramid(x: jax.Array, pooling: str) -> jax.Array:
  """Two-level spatial pyramid: [B, h, w, C] pooled as a whole and in quarters, [B, 5 C] (our choice). Odd sides share the middle row."""
  pool = {"max": jnp.max, "average": jnp.mean}[pooling]
  rows, columns = ((slice(0, math.ceil(n / 2)), slice(n // 2, n)) for n in x.shape[1:3])
  bins = [x, *(x[:, r, c] for r in rows for c in columns)]
  return jnp.concatenate([pool(cells, axis=(1, 2)) for cells in bins], axis=-1)


def parsing_losses(parsing: Mapping[str, jax.Array], region_mask: jax.Array) -> dict[str, jax.Array]:
  """Softmax cross-entropy of each scale (deep supervision, Sec. 3.2), averaged over pixels that are known.

  Args:
    parsing: `parsing1` to `parsing4`, see `Decoder`.
    region_mask: uint8 [B, H, W], class of each pixel; what is no class, such as 255, is not known. A coarser scale is
      compared with the pixel in the middle of each cell.

  Returns:
    The same names, float32 scalars; 0 where nothing is known.

  Raises:
    InputError: the mask does not have the size of `parsing1`.
  """
  if region_mask.shape != parsing["parsing1"].shape[:3]:
    raise InputError(f"region masks have shape {list(region_mask.shape)}, the parser gives {list(parsing['parsing1'].shape[:3])}")
  parts = {}
  for block in SCALES:
    target = _middle_of_cells(region_mask, 2 ** (block - 1))
    # Pixels that are not known have a loss of 0.
    pixels = losses.softmax_cross_entropy(parsing[f"parsing{block}"], target)
    parts[f"parsing{block}"] = pixels.sum() / jnp.maximum((target < len(FaceRegion)).sum(), 1)
  return parts


def _middle_of_cells(x: jax.Array, stride: int) -> jax.Array:
  """[B, H, W] -> the middle pixel of cells of `stride`, [B, ceil(H / stride), ceil(W / stride)]; where a cell is cut short its last."""
  rows, columns = (np.minimum(np.arange(n) * stride + stride // 2, side - 1)
                   for n, side in zip(_grid(x.shape[1:], stride), x.shape[1:]))
  return x[:, rows][:, :, columns]


def pretrained(model: Mapping[str, Any], loss: Mapping[str, Any]) -> str:
  """The part that an earlier run has to give, since nothing here trains it; "" for none. Takes the config's sections."""
  del loss
  return "parser" if model["system"] in ("ssp", "ssg", "naive") and model.get("parser", True) else ""


def objective(
    logits: jax.Array,
    out: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    memory: Any,
    *,
    positive_ratio: jax.Array,
    loss: str = "bce",
    unspecified: str = "negative",
    reduction: str = "sum_labels_mean_samples",
    stage: str = "all",
    parsing_weight: float = 1.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross-entropy of the attributes, of the regions, or both.

  Args:
    logits: [B, L].
    out: of `Model`; `parsing1` to `parsing4` where a parser is trained.
    batch: as in `losses.classification_loss`, like the next four arguments; `region_mask` uint8 [B, H, W] where a parser is
      trained. In joint training rows 0, 2, ... count for the attributes, the others for the regions.
    memory: not used.
    positive_ratio: [L].
    loss: "bce"; "inverse_ratio" is the balanced loss of the paper's fine-tuning.
    unspecified: "negative" or "ignore".
    reduction: of the attributes.
    stage: a key of TRAINABLE: "attributes" where a frozen parser stands by, "all" where it learns.
    parsing_weight: of the regions against the attributes in "joint".

  Returns:
    The loss, a float32 scalar, and its terms: "classification" of an attribute network; "parsing" of a parser, the sum
    of "parsing1" to "parsing4" (not weighted).

  Raises:
    InputError: a stage that does not suit the system, or no region masks where they are needed or of the wrong size.
    ValueError: as `losses.classification_loss`.
  """
  del memory
  learns_regions = "parsing1" in out
  if stage not in TRAINABLE:
    raise InputError(f"face stage {stage!r} is unknown; known: {', '.join(TRAINABLE)}")
  if learns_regions and stage != "all":
    raise InputError(f"a parser is trained in the stage 'all', not {stage!r}: set config.loss.stage=all")
  if "regions" in out and not learns_regions and stage != "attributes":
    raise InputError(f"a frozen parser would decay in the stage {stage!r}: set config.loss.stage=attributes")
  if learns_regions and "region_mask" not in batch:
    raise InputError("a face parser needs region masks and the data has none (or config.input.masks is off)")

  batch = {name: batch[name] for name in ("label", "known", "region_mask") if name in batch}
  if learns_regions and 2 * out["parsing1"].shape[0] == logits.shape[0]:  # joint, in training
    logits, batch["label"], batch["known"] = (_alternate(x)[0] for x in (logits, batch["label"], batch["known"]))
    batch["region_mask"] = _alternate(batch["region_mask"])[1]
  parts = {}
  if logits.shape[1]:
    parts["classification"] = losses.classification_loss(
        logits, batch, positive_ratio=positive_ratio, loss=loss, unspecified=unspecified, reduction=reduction
    )
  if learns_regions:
    scales = parsing_losses(out, batch["region_mask"])
    parts |= {"parsing": sum(scales.values()), **scales}
  weights = {"classification": 1.0, "parsing": parsing_weight}
  return sum(weight * parts[name] for name, weight in weights.items() if name in parts), parts
