"""The face parser and the attribute networks that use it."""

import functools
import importlib.util

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import REPOSITORY

from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import models
from attr_jax import optim
from attr_jax.data import ops
from attr_jax.data.regions import FACE_REGION_NAMES
from attr_jax.data.regions import UNKNOWN
from attr_jax.data.regions import FaceRegion
from attr_jax.errors import InputError
from attr_jax.models import face

LABELS = 5
RATIO = np.linspace(0.1, 0.7, LABELS).astype(np.float32)
REGIONS = len(FaceRegion)
SIZE = (37, 29)  # halves to 19x15, 10x8, 5x4, 3x2
HAVE_PARSER = ("ssp", "ssg", "naive", "parser", "joint")
# The quick level of XLA: most of the time of these tests is compilation.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def make_model(system, **options):
  return face.Model(LABELS, system, **({"width": 4} | options))


def make_images(count=4, size=SIZE, seed=0):
  return np.random.default_rng(seed).normal(size=(count, *size, 3)).astype(np.float32)


def make_landmarks(count=4, size=SIZE, seed=0):
  return (np.random.default_rng(seed).random((count, 5, 2)) * size[::-1]).astype(np.float32)


@functools.cache
def initial(model, size=SIZE):
  """On the host, with statistics and biases that are not those of the start, so that nothing is hidden by zeros and ones."""
  variables = quick_jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, *size, 3)), train=False))()
  rng = np.random.default_rng(1)
  stir = lambda x: np.asarray(x) + (0.2 * rng.random(x.shape).astype(np.float32) if x.ndim == 1 else 0)
  return jax.tree.map(stir, variables)


@functools.cache
def compiled(model, train=False):
  """(variables, images, maps and landmarks) -> (logits, out), in training with the new statistics."""
  if train:
    return quick_jit(lambda v, x, given: model.apply(v, x, train=True, mutable=["batch_stats"], **given))
  return quick_jit(lambda v, x, given: model.apply(v, x, train=False, **given))


def extras(system):
  return {"landmarks": make_landmarks()} if system == "bbox" else {}


def random_maps(shape, seed=0):
  """[B, h, w, 7] that sum to 1 over the regions."""
  return np.random.default_rng(seed).dirichlet(np.ones(REGIONS), shape).astype(np.float32)


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def shapes_of(model, size=(218, 178), batch=1, **given):
  return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.zeros((batch, *size, 3)), train=False, **given))


# Sizes.


@pytest.mark.parametrize("system", face.SYSTEMS)
def test_sizes_of_the_paper(system):
  model = face.Model(40, system, dtype=jnp.bfloat16)
  (logits, out), _ = shapes_of(model, batch=2)
  expected = {}
  if system in HAVE_PARSER:
    expected |= {"region_probability": (218, 178, 7), "regions": (14, 12, 7), "regions_fine": (55, 45, 7)}
  if system in ("parser", "joint"):
    expected |= {"parsing1": (218, 178, 7), "parsing2": (109, 89, 7), "parsing3": (55, 45, 7), "parsing4": (28, 23, 7)}
  if system != "parser":
    expected |= {"features": (14, 12, 1024)}
  if system in ("basic", "ssg", "naive", "joint"):
    expected |= {"heatmap": (14, 12, 40)}
  if system in ("ssp", "bbox"):
    count = 7 if system == "ssp" else 16
    expected |= {"region_features": (count, 1024), "region_logits": (count, 40), "region_weights": (count, 40), "attention": (14, 12, 40)}
  assert logits.shape == (2, 0 if system == "parser" else 40)
  assert {name: x.shape for name, x in out.items()} == {name: (2, *shape) for name, shape in expected.items()}
  assert {out[name].dtype for name in out if name != "features"} | {logits.dtype} == {jnp.dtype("float32")}
  assert system == "parser" or out["features"].dtype == jnp.bfloat16


@pytest.mark.parametrize("size, cells", [((16, 16), (1, 1)), ((109, 89), (7, 6)), ((7, 250), (1, 16))])
@pytest.mark.parametrize("system", ["ssp", "ssg", "bbox", "parser"])
def test_any_size(system, size, cells):
  (_, out), _ = shapes_of(make_model(system), size)
  if system == "parser":
    assert out["region_probability"].shape == (1, *size, 7) and out["regions"].shape == (1, *cells, 7)
  else:
    assert out["features"].shape == (1, *cells, 64)


def test_parameters_of_the_paper():
  """The counts of the layers with a bias in every convolution, less those that a batch norm follows."""
  trees = {system: shapes_of(face.Model(40, system))[1]["params"] for system in face.SYSTEMS}
  widths = [64, 64, 128, 128, 256, 256, 512, 512]
  biases = {"encoder": sum(widths), "trunk": 2 * 512 + 2 * 1024, "decoder": sum(widths)}
  basic = trees["basic"]
  assert count(basic) == 23_613_800 == 23_618_792 - biases["encoder"] - biases["trunk"]
  parser = trees["parser"]["parser"]
  assert count(parser["encoder"]) == 4_689_216 and round((4_689_216 + biases["encoder"]) / 1e6, 2) == 4.69
  side_outputs = 9 * 7 * (512 + 256 + 128) + 3 * 7
  assert count(parser) == 11_796_508
  assert round((count(parser) - side_outputs + biases["encoder"] + biases["decoder"]) / 1e6, 2) == 11.74
  attributes = lambda system: count(trees[system]) - count(trees[system].get("parser", {}))
  ours = {"ssp": 23_654_800, "bbox": 23_654_800, "ssg": 24_077_416, "naive": 23_617_852, "spp": 23_777_640}
  assert {system: attributes(system) for system in ours} == ours
  with_biases = {system: round((ours[system] + biases["encoder"] + biases["trunk"]) / 1e6, 2) for system in ("ssp", "ssg")}
  assert with_biases == {"ssp": 23.66, "ssg": 24.08}
  assert count(trees["joint"]) == 30_721_092 == count(parser) + count(basic) - count(basic["encoder"])


def test_the_parser_has_one_place():
  """So that the weights of one run are found by every other."""
  flat = lambda tree: {path: x.shape for path, x in traverse_util.flatten_dict(tree).items()}
  trees = {system: shapes_of(make_model(system))[1] for system in face.SYSTEMS}
  for collection in ("params", "batch_stats"):
    expected = flat({"parser": trees["parser"][collection]["parser"]})
    for system, tree in trees.items():
      found = flat({name: group for name, group in tree[collection].items() if name == "parser"})
      assert found == (expected if system in HAVE_PARSER else {}), system
  groups = lambda system: set(trees[system]["params"])
  assert groups("ssp") == {"parser", "encoder", "trunk", "recognition", "localisation"}
  assert groups("joint") == {"parser", "trunk", "classifier"}
  trained = set(face.TRAINABLE["attributes"])
  assert trained == set.union(*(groups(system) for system in face.SYSTEMS)) - {"parser"}


@pytest.mark.parametrize("system, cells", [("ssp", (14, 12)), ("ssg", (55, 45))])
def test_no_parser_is_made_where_maps_come_from_outside(system, cells):
  assert "parser" not in shapes_of(make_model(system, parser=False))[1]["params"]
  given = shapes_of(make_model(system), regions=jnp.zeros((1, *cells, 7)))
  assert "parser" not in given[1]["params"] and "regions" not in given[0][1]


# Layers.


@pytest.mark.parametrize("size", [(8, 6), (5, 7), (1, 1), (2, 3)])
def test_max_pool_rounds_up(size):
  x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
  rows, columns = (-(-n // 2) for n in size)
  expected = np.stack([[x[:, 2 * i:2 * i + 2, 2 * j:2 * j + 2].max(axis=(1, 2)) for j in range(columns)] for i in range(rows)])
  pooled = quick_jit(face.max_pool)(x)
  np.testing.assert_array_equal(pooled, np.moveaxis(expected, 2, 0))
  gradient = quick_jit(jax.grad(lambda x: face.max_pool(x).sum()))(x)
  np.testing.assert_array_equal(gradient, np.isin(x, expected))
  assert face.max_pool(-jnp.ones((1, *size, 1), jnp.bfloat16)).max() == -1


@pytest.mark.parametrize("size, window", [((109, 89), 8), ((5, 9), 2), ((3, 3), 8)])
def test_mean_pool_divides_by_the_cells_there_are(size, window):
  x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
  pooled = np.asarray(quick_jit(face.mean_pool, static_argnums=1)(x, window))
  assert pooled.shape == (2, -(-size[0] // window), -(-size[1] // window), 3)
  for i in range(pooled.shape[1]):
    for j in range(pooled.shape[2]):
      part = x[:, window * i:window * (i + 1), window * j:window * (j + 1)]
      np.testing.assert_allclose(pooled[:, i, j], part.sum(axis=(1, 2)) / (part.shape[1] * part.shape[2]), atol=1e-6)


def test_upsampling_repeats_and_cuts():
  x = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
  np.testing.assert_array_equal(face.upsample(jnp.asarray(x), (3, 5))[0, :, :, 0], [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]])
  for size in ((5, 8), (1, 1), (4, 3)):  # a cell and what it was made of stand at one place
    cells = np.random.default_rng(0).normal(size=(1, *face._grid(size, 2), 1)).astype(np.float32)
    np.testing.assert_array_equal(quick_jit(lambda x: face.max_pool(face.upsample(x, size)))(cells), cells)


def test_prelu_has_a_slope_per_channel():
  x = np.array([[-2.0, -2.0], [0.0, 3.0]], np.float32)
  layer = face.PRelu()
  variables = layer.init(jax.random.key(0), x)
  np.testing.assert_array_equal(variables["params"]["slope"], [0.25, 0.25])
  np.testing.assert_array_equal(layer.apply({"params": {"slope": jnp.array([0.5, -1.0])}}, x), [[-1.0, 2.0], [0.0, 3.0]])


def test_pooled_maps():
  maps = random_maps((2, 19, 15))
  pooled, mean = (np.asarray(x) for x in quick_jit(lambda x: (face.pool_regions(x), face.mean_pool(x, 8)))(maps))
  small = [FaceRegion.EYES, FaceRegion.EYEBROWS, FaceRegion.MOUTH, FaceRegion.NOSE]
  large = [FaceRegion.BACKGROUND, FaceRegion.HAIR, FaceRegion.FACE_SKIN]
  assert pooled.shape == (2, 3, 2, 7) and (pooled >= mean).all()
  np.testing.assert_array_equal(pooled[..., large], mean[..., large])
  for i in range(3):
    for j in range(2):
      np.testing.assert_array_equal(pooled[:, i, j][:, small], maps[:, 8 * i:8 * i + 8, 8 * j:8 * j + 8].max(axis=(1, 2))[:, small])


# SSP.


def test_weights_of_the_regions_sum_to_one():
  for system in ("ssp", "bbox"):
    model = make_model(system)
    logits, out = compiled(model)(initial(model), make_images(), extras(system))
    weights = np.asarray(out["region_weights"])
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert weights.min() >= 0 and weights.std() > 1e-4
    np.testing.assert_allclose((weights * out["region_logits"]).sum(axis=1), logits, rtol=1e-4, atol=1e-5)


def test_regions_everywhere_are_global_average_pooling():
  """For every normalisation; also with a single region, whose weight is 1."""
  for normalization in face.REGION_NORMALIZATIONS:
    model = make_model("ssp", parser=False, region_normalization=normalization)
    variables = initial(model)
    logits, out = compiled(model)(variables, make_images(), {"regions": np.ones((4, 3, 2, 7), np.float32)})
    mean = np.asarray(out["features"]).mean(axis=(1, 2))
    recognition = variables["params"]["recognition"]
    np.testing.assert_allclose(logits, mean @ recognition["kernel"] + recognition["bias"].reshape(1, -1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["attention"], 1, rtol=1e-5)
    one = face.region_features(out["features"], jnp.ones((4, 3, 2, 1)), normalization)
    np.testing.assert_allclose(one[:, 0], mean, rtol=1e-5)


def test_region_features_equal_a_slow_loop():
  rng = np.random.default_rng(0)
  cells, maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), random_maps((2, 3, 4))
  total = np.zeros((2, REGIONS, 5))
  for b, i, j in np.ndindex(2, 3, 4):
    total[b] += maps[b, i, j][:, None] * cells[b, i, j][None]
  actual = {name: face.region_features(jnp.asarray(cells), jnp.asarray(maps), name) for name in face.REGION_NORMALIZATIONS}
  np.testing.assert_allclose(actual["gap"], total / 12, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(actual["mean"], total / maps.sum(axis=(1, 2))[..., None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("system, cells", [("ssp", (3, 2)), ("ssg", (10, 8))])
def test_regions_that_are_not_there(system, cells):
  """No map at all, and one empty map among others: finite values and gradients, no feature of an empty region."""
  model = make_model(system, parser=False)
  variables = initial(model)
  batch = {"label": np.ones((2, LABELS), np.uint8), "known": np.ones((2, LABELS), bool)}
  maps = np.zeros((2, *cells, 7), np.float32)
  maps[1] = random_maps(cells)
  maps[1, ..., FaceRegion.HAIR] = 0

  @quick_jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def value_and_grad(params, maps):
    (logits, out), _ = model.apply(dict(variables, params=params), make_images(2), train=True, regions=maps, mutable=["batch_stats"])
    return face.objective(logits, out, batch, {}, positive_ratio=RATIO)[0], out

  (loss, out), grads = value_and_grad(variables["params"], jnp.asarray(maps))
  assert np.isfinite(loss) and all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
  if system == "ssp":
    assert not np.any(out["region_features"][0]) and not np.any(out["region_features"][1, FaceRegion.HAIR])
    assert np.any(out["region_features"][1, FaceRegion.EYES])


def test_attention_is_made_of_the_maps():
  model = make_model("ssp")
  _, out = compiled(model)(initial(model), make_images(), {})
  expected = np.einsum("bhwr,brl->bhwl", out["regions"], out["region_weights"])
  np.testing.assert_allclose(out["attention"], expected, rtol=1e-5)
  assert out["attention"].shape == (4, 3, 2, LABELS)


def mirror_kernels(variables):
  """Kernels alike from left to right."""
  return jax.tree.map(lambda k: (k + k[:, ::-1]) / 2 if k.ndim == 4 else k, variables)


@pytest.mark.parametrize("system", ["ssp", "ssg", "bbox", "parser"])
def test_mirrored_faces_have_mirrored_maps_and_the_same_attributes(system):
  """Exactly so with kernels that are alike from left to right, and a width that every pooling divides."""
  size, model = (22, 48), make_model(system)
  variables = initial(model, size)
  image, landmarks = make_images(2, size), make_landmarks(2, size)
  run = quick_jit(lambda v, x, points: model.apply(v, x, train=False, landmarks=points))
  blank = np.zeros((*size, 3))
  swapped = np.stack([ops.flip({"image": blank, "landmarks": points})["landmarks"] for points in landmarks])
  symmetric = mirror_kernels(variables)
  logits, out = run(symmetric, image, landmarks)
  mirrored_logits, mirrored = run(symmetric, image[:, :, ::-1], swapped)
  np.testing.assert_allclose(logits, mirrored_logits, rtol=1e-4, atol=1e-4)
  for name in {"attention", "regions", "regions_fine", "region_probability", "parsing1", "parsing4"} & out.keys():
    np.testing.assert_allclose(out[name], np.asarray(mirrored[name])[:, :, ::-1], rtol=1e-3, atol=1e-4, err_msg=name)
  name = "parsing1" if system == "parser" else "features"
  other = run(variables, image[:, :, ::-1], swapped)[1][name]
  assert np.abs(run(variables, image, landmarks)[1][name] - np.asarray(other)[:, :, ::-1]).max() > 0.01  # not for lack of structure


# SSG.


def test_gates_have_mean_one():
  maps = random_maps((2, 5, 4))
  maps[0, ..., 1] = 0
  gate = np.asarray(face.normalize_gate(jnp.asarray(maps)))
  expected = maps / maps.sum(axis=(1, 2), keepdims=True, where=maps > 0, initial=1e-30)
  np.testing.assert_allclose(gate / 20, expected, rtol=1e-5)
  assert not gate[0, ..., 1].any()


def test_equal_gates_and_one_copy_are_the_plain_block():
  plain, x = face.Encoder(4), make_images()
  variables = initial(make_model("basic"))
  plain_variables = {name: variables[name]["encoder"] for name in ("params", "batch_stats")}
  gated = jax.tree.map(lambda x: x, plain_variables)  # copies the dicts
  for collection, layer in (("params", "bn"), ("params", "prelu"), ("batch_stats", "bn")):
    of_conv = gated[collection]["conv32"]
    of_conv[layer] = jax.tree.map(lambda x: np.tile(x, REGIONS), of_conv[layer])
  pick = np.zeros((REGIONS, 16, 16), np.float32)
  pick[3] = np.eye(16)
  gated["params"]["merge"] = {"kernel": pick.reshape(-1, 16), "bias": np.zeros(16, np.float32)}
  gate = face.normalize_gate(jnp.full((4, 10, 8, REGIONS), 0.3))
  for train in (False, True):
    run = quick_jit(lambda v, *args: plain.apply(v, x, train, *args, mutable=["batch_stats"]))
    np.testing.assert_allclose(run(gated, gate)[0], run(plain_variables)[0], rtol=1e-4, atol=1e-5)


def test_gating_separates_the_regions():
  """What a mask blots out does not come through its copy: with one region the rest of the image is not seen at all."""
  encoder = face.Encoder(4)
  x = jnp.asarray(make_images(1, (32, 32)))
  gate = np.zeros((1, 8, 8, REGIONS), np.float32)
  gate[:, :, :2] = 1  # 8 px on the left; a cell there depends on what is within 10 px of it
  gate = face.normalize_gate(jnp.asarray(gate))
  variables = quick_jit(lambda: encoder.init(jax.random.key(0), x, False, gate))()
  gradient = quick_jit(jax.grad(lambda x: encoder.apply(variables, x, False, gate).sum()))(x)
  seen = np.abs(gradient).sum(axis=(0, 1, 3))
  assert (seen[:8] > 0).all() and not seen[24:].any()


# The frozen parser.


@pytest.mark.parametrize("system, name", [("ssp", "regions"), ("ssg", "regions_fine")])
def test_maps_from_outside_do_what_the_parser_does(system, name):
  model, outside = make_model(system), make_model(system, parser=False)
  variables, image = initial(model), make_images()
  without = {collection: {key: group for key, group in tree.items() if key != "parser"} for collection, tree in variables.items()}
  logits, out = compiled(model)(variables, image, {})
  given = {"regions": out[name]}
  np.testing.assert_allclose(compiled(model)(variables, image, given)[0], logits, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(compiled(outside)(without, image, given)[0], logits, rtol=1e-4, atol=1e-5)
  (trained, _), updated = compiled(model, True)(variables, image, {})
  (expected, _), outside_updated = compiled(outside, True)(without, image, given)
  np.testing.assert_allclose(trained, expected, rtol=1e-3, atol=1e-4)
  del updated["batch_stats"]["parser"]
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), updated["batch_stats"], outside_updated["batch_stats"])


@pytest.mark.parametrize("system", [
    "ssp", pytest.param("ssg", marks=pytest.mark.slow), pytest.param("naive", marks=pytest.mark.slow)])
def test_nothing_of_the_parser_moves(system):
  """Neither by gradient nor by weight decay nor by batch statistics; all else does."""
  config = load(f"system={system},tiny")
  model = models.build(config.model, LABELS)
  tx = optim.make_optimizer(config, lambda step: 0.1, models.trainable_groups("face", config.loss))
  variables, rng = initial(model), np.random.default_rng(0)
  batch = {"label": rng.integers(0, 2, (4, LABELS)), "known": np.ones((4, LABELS), bool)}

  def loss(params):
    (logits, out), updated = model.apply(dict(variables, params=params), make_images(), train=True, mutable=["batch_stats"])
    return face.objective(logits, out, batch, {}, positive_ratio=RATIO, **config.loss)[0], updated["batch_stats"]

  @quick_jit
  def step(params):
    grads, batch_stats = jax.grad(loss, has_aux=True)(params)
    updates, _ = tx.update(grads, tx.init(params), params)
    return grads, optax.apply_updates(params, updates), batch_stats

  params, stats = variables["params"], variables["batch_stats"]
  grads, new_params, new_stats = step(params)
  for before, after in ((jax.tree.map(np.zeros_like, params), grads), (params, new_params), (stats, new_stats)):
    for group in after:
      same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before[group]), jax.tree.leaves(after[group]))]
      assert all(same) if group == "parser" else not any(same), group


# What it is compared with.


@pytest.mark.parametrize("system", ["basic", "ssg", "naive", "joint"])
def test_mean_heatmap_plus_bias_is_the_logits(system):
  model = make_model(system)
  variables = initial(model)
  logits, out = compiled(model)(variables, make_images(), {})
  bias = variables["params"]["classifier"]["bias"]
  np.testing.assert_allclose(out["heatmap"].mean(axis=(1, 2)) + bias.reshape(1, -1), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (3, 5), (1, 1)])
def test_pyramid(size):
  x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
  for pooling, pool in (("max", np.max), ("average", np.mean)):
    expected = [pool(x, axis=(1, 2))]
    for i in range(2):
      for j in range(2):
        top, left = i * size[0] // 2, j * size[1] // 2
        bottom, right = -(-(i + 1) * size[0] // 2), -(-(j + 1) * size[1] // 2)
        expected.append(pool(x[:, top:bottom, left:right], axis=(1, 2)))
    np.testing.assert_allclose(face.pyramid(jnp.asarray(x), pooling), np.concatenate(expected, axis=1), rtol=1e-5)


def test_naive_sees_the_image_and_the_maps():
  model = make_model("naive")
  variables, image = initial(model), make_images()
  (_, out), updated = compiled(model, True)(variables, image, {})
  channels = np.concatenate([image, out["region_probability"]], axis=-1)
  expected = 0.9 * variables["batch_stats"]["input_norm"]["mean"] + 0.1 * channels.mean(axis=(0, 1, 2))
  np.testing.assert_allclose(updated["batch_stats"]["input_norm"]["mean"], expected, rtol=1e-4, atol=1e-5)
  assert variables["params"]["encoder"]["conv11"]["conv"]["kernel"].shape == (3, 3, 10, 4)


@pytest.mark.parametrize("size", [(218, 178), (109, 89), (40, 50)])
def test_boxes_equal_a_finer_raster(size):
  """Counts points in the boxes, 64 per pixel."""
  fine, rng = 8, np.random.default_rng(0)
  landmarks = (rng.random((2, 5, 2)) * size[::-1]).astype(np.float32)
  landmarks[0, 0], landmarks[0, 1] = (0, 0), (size[1] + 300, 5)  # reaching out of the image, and quite outside
  actual = np.asarray(face.box_regions(jnp.asarray(landmarks), size, 1600.0))
  cells = [-(-n // 16) for n in size]
  assert actual.shape == (2, *cells, 16) and (actual[..., 15] == 1).all() and not actual[0, ..., 3:6].any()
  y, x = ((np.arange(n * fine) + 0.5) / fine for n in size)  # 0 is the border of the first pixel
  place = (np.floor(y / 16)[:, None] * cells[1] + np.floor(x / 16)[None]).astype(int)
  inside_cell = np.bincount(place.ravel(), minlength=cells[0] * cells[1])
  for b in range(2):
    for p in range(5):
      for a, (wide, high) in enumerate(((40, 40), (800**0.5, 3200**0.5), (3200**0.5, 800**0.5))):
        half = wide * size[1] / 178 / 2, high * size[0] / 218 / 2
        centre = landmarks[b, p] + 0.5
        inside = (np.abs(y - centre[1]) < half[1])[:, None] & (np.abs(x - centre[0]) < half[0])[None]
        share = np.bincount(place.ravel(), inside.ravel(), cells[0] * cells[1]) / inside_cell
        np.testing.assert_allclose(actual[b, ..., 3 * p + a], share.reshape(cells), atol=0.02)


# Parser and joint training.


def make_parsing(count=2, size=(13, 11), seed=0):
  """Logits of the four scales and a mask with unknown pixels."""
  rng = np.random.default_rng(seed)
  logits = {f"parsing{k}": rng.normal(0, 3, (count, -(-size[0] // 2 ** (k - 1)), -(-size[1] // 2 ** (k - 1)), 7)).astype(np.float32)
            for k in face.SCALES}
  mask = rng.integers(0, 7, (count, *size)).astype(np.uint8)
  mask[rng.random(mask.shape) < 0.3] = UNKNOWN
  return logits, mask


def slow_parsing_losses(logits, mask):
  losses = {}
  for k in face.SCALES:
    of_scale, stride = logits[f"parsing{k}"].astype(np.float64), 2 ** (k - 1)
    values = []
    for b, i, j in np.ndindex(of_scale.shape[:3]):
      target = mask[b, min(stride * i + stride // 2, mask.shape[1] - 1), min(stride * j + stride // 2, mask.shape[2] - 1)]
      if target != UNKNOWN:
        values.append(np.log(np.exp(of_scale[b, i, j]).sum()) - of_scale[b, i, j, target])
    losses[f"parsing{k}"] = np.mean(values)
  return losses


def test_deep_supervision_equals_a_slow_loop():
  logits, mask = make_parsing()
  objective = quick_jit(functools.partial(face.objective, memory={}, positive_ratio=np.zeros(0)))
  value, parts = objective(jnp.zeros((2, 0)), logits, {"region_mask": mask})
  expected = slow_parsing_losses(logits, mask)
  assert parts.keys() == {"parsing", *expected}
  for name in expected:
    np.testing.assert_allclose(parts[name], expected[name], rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(value, sum(expected.values()), rtol=1e-5)
  assert value == parts["parsing"]


def test_targets_stand_where_the_cells_are():
  """A mask made of blocks of 8 px is the same at every scale; 13 px are cut short there as in the network."""
  coarse = np.random.default_rng(0).integers(0, 7, (1, 2, 2)).astype(np.uint8)
  mask = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :13, :11]
  for stride in (1, 2, 4, 8):
    expected = coarse.repeat(8 // stride, axis=1).repeat(8 // stride, axis=2)
    rows, columns = face._grid((13, 11), stride)
    np.testing.assert_array_equal(face._middle_of_cells(jnp.asarray(mask), stride), expected[:, :rows, :columns])


def joint_batch(count=4, seed=0):
  rng = np.random.default_rng(seed)
  return {
      "label": rng.integers(0, 2, (count, LABELS)).astype(np.uint8),
      "known": rng.random((count, LABELS)) < 0.7,
      "region_mask": rng.integers(0, 7, (count, *SIZE)).astype(np.uint8),
  }


def test_joint_takes_each_row_for_its_task():
  model = make_model("joint")
  variables, image, batch = initial(model), make_images(), joint_batch()
  (logits, out), _ = compiled(model, True)(variables, image, {})
  assert logits.shape == (4, LABELS) and not logits[1::2].any() and np.all(logits[::2])
  assert out["parsing1"].shape[0] == out["heatmap"].shape[0] == out["regions"].shape[0] == 2
  options = {"positive_ratio": RATIO, "parsing_weight": 0.5, "unspecified": "ignore"}
  value, parts = face.objective(logits, out, batch, {}, **options)
  halves = {"label": batch["label"][::2], "known": batch["known"][::2]}
  attributes, _ = face.objective(logits[::2], {}, halves, {}, positive_ratio=RATIO, unspecified="ignore")
  expected = slow_parsing_losses({k: np.asarray(out[k]) for k in out if k[:-1] == "parsing"}, batch["region_mask"][1::2])
  np.testing.assert_allclose(parts["classification"], attributes, rtol=1e-5)
  np.testing.assert_allclose(parts["parsing"], sum(expected.values()), rtol=1e-5)
  np.testing.assert_allclose(value, attributes + 0.5 * parts["parsing"], rtol=1e-5)
  # What the other rows hold is nothing to either loss.
  other = jax.tree.map(np.copy, batch)
  other["label"][1::2], other["known"][1::2], other["region_mask"][::2] = 1 - other["label"][1::2], False, UNKNOWN
  assert face.objective(logits, out, other, {}, **options)[0] == value


def test_joint_is_basic_and_parser_on_one_encoder():
  joint, basic, parser = (make_model(system) for system in ("joint", "basic", "parser"))
  variables, image = initial(joint), make_images()
  logits, out = compiled(joint)(variables, image, {})
  rearranged = {name: dict(tree, encoder=tree["parser"]["encoder"]) for name, tree in variables.items()}
  np.testing.assert_allclose(logits, compiled(basic)(rearranged, image, {})[0], rtol=1e-4, atol=1e-5)
  _, expected = compiled(parser)(variables, image, {})
  for name in expected:
    np.testing.assert_allclose(out[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
  # In training the encoder's statistics are those of all rows.
  _, updated = compiled(joint, True)(variables, image, {})
  _, of_all = compiled(parser, True)(variables, image, {})
  encoder = lambda tree: tree["batch_stats"]["parser"]["encoder"]
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), encoder(updated), encoder(of_all))


@pytest.mark.slow
def test_both_losses_of_joint_reach_the_encoder_and_neither_the_other_head():
  model = make_model("joint")
  variables, image, batch = initial(model), make_images(), joint_batch()

  def parts(params):
    (logits, out), _ = model.apply(dict(variables, params=params), image, train=True, mutable=["batch_stats"])
    _, parts = face.objective(logits, out, batch, {}, positive_ratio=RATIO)
    return parts["classification"], parts["parsing"]

  of_attributes, of_regions = quick_jit(jax.jacrev(parts))(variables["params"])

  def reached(grads):
    groups = grads["parser"] | {name: grads[name] for name in ("trunk", "classifier")}
    touched = {name: {bool(np.any(x)) for x in jax.tree.leaves(tree)} for name, tree in groups.items()}
    assert all(len(every) == 1 for every in touched.values())
    return {name for name, every in touched.items() if every == {True}}

  assert reached(of_attributes) == {"encoder", "trunk", "classifier"}
  assert reached(of_regions) == {"encoder", "decoder"}


# The objective.


def test_attributes_are_summed_and_averaged_over_samples():
  rng = np.random.default_rng(0)
  logits, label = rng.normal(size=(6, LABELS)).astype(np.float32), rng.integers(0, 2, (6, LABELS))
  known = rng.random((6, LABELS)) < 0.7
  probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
  for loss, positive, negative in (("bce", 1.0, 1.0), ("inverse_ratio", 0.5 / RATIO, 0.5 / (1 - RATIO))):
    cells = -np.where(label == 1, np.log(probability) * positive, np.log(1 - probability) * negative)
    value, parts = face.objective(jnp.asarray(logits), {}, {"label": label, "known": known}, {}, positive_ratio=RATIO, loss=loss,
                                  unspecified="ignore")
    np.testing.assert_allclose(value, (cells * known).sum() / 6, rtol=1e-5)
    assert parts == {"classification": value}


def test_nothing_known_is_no_loss():
  logits, mask = make_parsing()
  batch = {"label": jnp.ones((2, LABELS)), "known": jnp.zeros((2, LABELS), bool), "region_mask": jnp.full(mask.shape, UNKNOWN)}

  def loss(attributes, parsing):
    return face.objective(attributes, parsing, batch, {}, positive_ratio=RATIO, unspecified="ignore")

  (value, parts), grads = quick_jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(jnp.ones((2, LABELS)), logits)
  assert value == 0 and all(part == 0 for part in parts.values())
  assert not any(np.any(x) for x in jax.tree.leaves(grads))


def test_finite_for_huge_logits():
  parsing, mask = make_parsing()
  huge = lambda x: jnp.where(x > 0, 1e4, -1e4)
  parsing, attributes = jax.tree.map(huge, parsing), huge(jnp.asarray(make_images()[:2, 0, :LABELS, 0]))
  batch = {"label": jnp.ones((2, LABELS)), "known": jnp.ones((2, LABELS), bool), "region_mask": jnp.asarray(mask)}
  loss = lambda attributes, parsing: face.objective(attributes, parsing, batch, {}, positive_ratio=RATIO)[0]
  value, grads = quick_jit(jax.value_and_grad(loss, (0, 1)))(attributes, parsing)
  maps = quick_jit(face.region_maps)(parsing)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, grads, maps)))


@pytest.mark.slow
@pytest.mark.parametrize("system", face.SYSTEMS)
def test_bfloat16_is_near_float32(system):
  exact, rough = make_model(system), make_model(system, dtype=jnp.bfloat16)
  variables, image, given = initial(exact), make_images(), extras(system)
  results = [compiled(model)(variables, image, given) for model in (exact, rough)]
  names = {"logits"} | {"region_probability", "regions", "attention", "heatmap"} & results[0][1].keys()
  for name in names:
    a, b = (np.asarray(dict(out, logits=logits)[name]) for logits, out in results)
    assert a.dtype == b.dtype == np.float32
    assert np.linalg.norm(a - b) <= 0.03 * np.linalg.norm(a), name


# Refusals.


@pytest.mark.parametrize("system, options, given, words", [
    ("sspp", {}, {}, "system 'sspp' is unknown; known: basic"),
    ("ssp", {"region_normalization": "sum"}, {}, "region_normalization 'sum' is unknown"),
    ("spp", {"pyramid_pooling": "min"}, {}, "pyramid_pooling 'min' is unknown"),
    ("naive", {"parser": False}, {}, "cannot do without its parser"),
    ("joint", {"parser": False}, {}, "cannot do without its parser"),
    ("ssp", {"parser": False}, {}, "needs regions of shape .* got none"),
    ("ssp", {}, {"regions": (4, 10, 8, 7)}, r"needs regions of shape \[4, 3, 2, 7\] for these images, got \[4, 10, 8, 7\]"),
    ("ssg", {}, {"regions": (4, 3, 2, 7)}, r"needs regions of shape \[4, 10, 8, 7\]"),
    ("bbox", {}, {}, "needs landmarks of shape .* got none"),
    ("bbox", {}, {"landmarks": (4, 5, 3)}, r"needs landmarks of shape \[4, 5, 2\]"),
])
def test_wrong_calls(system, options, given, words):
  model, given = make_model(system, **options), {name: jnp.zeros(shape) for name, shape in given.items()}
  # Without variables: the call is refused before any is read.
  with pytest.raises(InputError, match=words):
    jax.eval_shape(lambda: model.apply({}, jnp.zeros((4, *SIZE, 3)), train=False, **given))


def test_joint_training_needs_pairs():
  model = make_model("joint")
  with pytest.raises(InputError, match="even batch"):
    compiled(model, True)(initial(model), make_images(3), {})


def test_objective_refuses_what_does_not_fit():
  parsing, mask = make_parsing()
  call = functools.partial(face.objective, jnp.zeros((2, 0)), memory={}, positive_ratio=np.zeros(0))
  with pytest.raises(InputError, match="needs region masks"):
    call(parsing, {})
  with pytest.raises(InputError, match="region masks have shape"):
    call(parsing, {"region_mask": mask[:, :-1]})
  with pytest.raises(InputError, match="config.loss.stage=all"):
    call(parsing, {"region_mask": mask}, stage="attributes")
  with pytest.raises(InputError, match="stage 'heads' is unknown"):
    call(parsing, {"region_mask": mask}, stage="heads")
  with pytest.raises(InputError, match="would decay.*config.loss.stage=attributes"):
    call({"regions": 0}, {}, stage="all")


# The config.


def load(options="", *overrides):
  return cli.load_config(f"{REPOSITORY}/configs/face.py:{options}", list(overrides))


def tables():
  spec = importlib.util.spec_from_file_location("face_config", REPOSITORY / "configs" / "face.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.TABLES


RUNNABLE = [f"{table}/{name}" for table, rows in tables().items() for name, row in rows.items() if row.config is not None]


@pytest.mark.parametrize("path", RUNNABLE)
def test_rows_are_what_they_say_at_every_size(path):
  table, name = path.split("/")
  system = {"avg_pooling": "basic", "sppnet": "spp"}.get(name.removesuffix("_balanced"), name.removesuffix("_balanced"))
  data = {"celeba_original": "celeba", "parsing": "helen" if system == "parser" else "celeba_aligned"}.get(table, table)
  for size in ("", "small", "world,small", "tiny"):
    config = load(f"{path},{size}")
    config_lib.check(config)
    drawn = "helen" if system == "parser" else "celeba_aligned"
    assert (config.model.system, config.data.name) == (system, drawn if config.data.world else data)
    assert (config.loss.loss == "inverse_ratio") == name.endswith("_balanced")
  (logits, out), _ = shapes_of(models.build(config.model, 40, config.compute_dtype), config.input.size)
  batch = {"label": jnp.zeros(logits.shape, jnp.uint8), "known": jnp.ones(logits.shape, bool)}
  if config.input.masks:
    batch["region_mask"] = jnp.zeros((1, *config.input.size), jnp.uint8)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), out)
  value, _ = face.objective(jnp.zeros(logits.shape), zeros, batch, {}, positive_ratio=np.full(40, 0.3), **config.loss)
  uniform = 4 * np.log(REGIONS) if config.input.masks else 0  # nothing is known yet of regions and attributes
  np.testing.assert_allclose(value, uniform + logits.shape[1] * np.log(2) * (0.5 / 0.7 if name.endswith("_balanced") else 1), rtol=1e-5)


def test_the_recipe():
  for path, total, rate in (("celeba_aligned/ssp", 40_000, 0.001), ("celeba_aligned/ssp_balanced", 10_000, 0.0001),
                            ("parsing/parser", 75_000, 0.001), ("parsing/joint", 75_000, 0.001)):
    config = load(path)
    assert (config.total_steps, config.optimizer.learning_rate, config.batch_size) == (total, rate, 32)
    assert (config.optimizer.name, config.optimizer.weight_decay, config.schedule.name) == ("adagrad", 5e-4, "constant")
    assert (config.input.size, config.input.crop, config.input.flip) == ((218, 178), "none", True)
  assert load("parsing/joint").data.second == "helen" and not load().data.second


def test_options_of_the_config():
  assert (load().model.system, load("system=parser").data.name) == ("ssp", "helen")
  assert load("celeba_aligned/ssp,dataset=lfwa").data.val_split == ""
  config = load("celeba_original/ssg,annotation=regions")
  assert (config.data.annotation, config.model.parser) == ("regions", False)
  config = load("celeba_original/ssg,world,small")
  assert (config.data.name, config.data.world, config.data.size, config.model.width) == ("celeba_aligned", "faces", "218x178", 8)
  with pytest.raises(InputError, match="cannot be run: it is quoted from the mean of two runs: .attr-jax evaluate"):
    load("celeba_aligned/ssp_ssg")


def test_tables_name_the_regions_as_the_data_do():
  for row in tables()["parsing"].values():
    figures = dict(row.paper["full"])
    mean = figures.pop("region_mIoU")
    assert list(figures) == [f"region_IoU/{name}" for name in FACE_REGION_NAMES]
    assert abs(np.mean(list(figures.values())) - mean) < 0.01


@pytest.mark.parametrize("model, part", [
    ({"system": "ssp", "parser": True}, "parser"), ({"system": "ssg"}, "parser"), ({"system": "naive"}, "parser"),
    ({"system": "ssp", "parser": False}, ""), ({"system": "basic", "parser": True}, ""), ({"system": "joint"}, ""),
])
def test_a_parser_that_nobody_trains_must_come_from_elsewhere(model, part):
  assert face.pretrained(model, {}) == part
