"""Ten views: five crops from the host and their mirrors from the device, against one view at a time with `ops.flip`."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attr_jax import cli
from attr_jax import config as config_lib
from attr_jax import evaluate
from attr_jax import sharding
from attr_jax import steps
from attr_jax.data import images
from attr_jax.data import ops
from attr_jax.data import pipeline

LABELS, REGIONS = 3, 4


class Net(nn.Module):
  """A network to which left and right are not the same, with masks, regions, points and chosen labels."""

  @nn.compact
  def __call__(self, inputs, *, train, landmarks=None):
    del train
    y = nn.Conv(8, (5, 5), (2, 2), name="conv")(inputs)
    if landmarks is None:
      landmarks = jnp.zeros((len(inputs), 5, 2))
    points = nn.Dense(LABELS, name="points")(landmarks.reshape(len(inputs), -1) / 10)
    logits = nn.Dense(LABELS, name="logits")(nn.relu(y).reshape(len(inputs), -1)) + points
    return logits, {
        "mask": nn.sigmoid(y[..., 0]),
        "region_probability": nn.softmax(y[..., :REGIONS]),
        "step_labels": jnp.argsort(logits)[:, :2],
        "step_probability": jnp.sort(nn.sigmoid(logits))[:, :2],
    }


def make_config():
  config = config_lib.default_config()
  config.input.resize, config.input.size, config.input.full_size = (24, 20), (16, 12), (16, 12)
  config.input.crop_sizes, config.input.masks = None, True
  config.evaluate.batch_size = 4
  return config


def views_one_by_one(sample):
  """The ten views of a sample as a loop over slices: corners and centre, then each mirrored."""
  found = []
  for mirror in (False, True):
    for top, left in ops.five_offsets((24, 20), (16, 12)):
      view = ops.crop(ops.resize(sample, (24, 20)), (top, left, 16, 12))
      found.append(ops.flip(view) if mirror else view)
  return found


def record(number):
  rng = np.random.default_rng(number)
  smooth = rng.integers(0, 256, (5, 4, 3), np.uint8)
  return {
      "image": images.encode_jpeg(np.kron(smooth, np.ones((6, 6, 1), np.uint8))),
      "label": rng.integers(0, 2, LABELS).astype(np.uint8), "known": np.ones(LABELS, bool), "id": np.int64(number),
      "person_mask": images.encode_png(rng.integers(0, 2, (30, 24), np.uint8) * 255),
      "region_mask": images.encode_png(rng.integers(0, REGIONS, (30, 24), np.uint8)),
      "landmarks": rng.uniform(4, 20, (5, 2)).astype(np.float32),
  }


@pytest.fixture(scope="module")
def net():
  config, model = make_config(), Net()
  params = model.init(jax.random.key(0), jnp.zeros((1, 16, 12, 3)), train=False)["params"]
  return config, params, jax.jit(steps.make_predict_step(model, config))


def test_a_split_in_ten_views_is_the_mean_over_each_view_alone(net):
  config, params, predict = net
  source = [record(number) for number in range(6)]  # the second batch is filled up
  mesh = sharding.make_mesh()
  table = evaluate.predict_split(predict, params, {}, source, config, mesh, views="ten_crop")
  assert table["id"].tolist() == list(range(6)) and table["logit"].shape == (6, LABELS)
  five = evaluate.predict_split(predict, params, {}, source, config, mesh, views="five_crop")
  assert np.abs(five["logit"] - table["logit"]).max() > 1e-3  # the mirrors matter
  for i, raw in enumerate(source):
    rows = []
    for view in views_one_by_one(pipeline.decode_sample(raw)):
      batch = {key: np.ascontiguousarray(view[key])[None] for key in ("image", "person_mask", "region_mask", "landmarks")}
      rows.append(jax.device_get(predict(params, {}, batch)))
    np.testing.assert_allclose(table["logit"][i], np.mean([row["logit"][0] for row in rows], axis=0), rtol=1e-5, atol=1e-5)
    for key in ("mask_intersection", "mask_union", "region_confusion"):
      np.testing.assert_array_equal(table[key][i], np.sum([row[key][0] for row in rows], axis=0))
    np.testing.assert_array_equal(table["step_labels"][i], [row["step_labels"][0, 0] for row in rows])
    np.testing.assert_allclose(table["step_probability"][i], [row["step_probability"][0, 0] for row in rows], atol=1e-5)


def test_the_host_sends_five_views():
  config, source = make_config(), [record(number) for number in range(2)]
  spec = evaluate.input_spec(config)
  batches = [pipeline.eval_dataset(source, spec, views=views, batch_size=2)[0] for views in ("five_crop", "ten_crop")]
  assert batches[0]["image"].shape == (2, 5, 16, 12, 3)
  for key in batches[0]:
    np.testing.assert_array_equal(batches[0][key], batches[1][key])


def test_command_line_and_configs_take_ten_crops():
  assert cli._parse(["evaluate", "--workdir=x", "--views=ten_crop"])[0].views == "ten_crop"
  config = make_config()
  config.evaluate.views = "ten_crop"
  config_lib.check(config)
