"""Six views per image: the whole and five crops, and what each of them is labelled with (Tang et al. 2019)."""

import cv2
import numpy as np
import pytest

from attr_jax.data import images
from attr_jax.data import ops
from attr_jax.data import pipeline
from attr_jax.errors import InputError

GROUP = (True, True, False, False)  # two cultures, two tags


def spec(**options):
  values = {"resize": (60, 60), "size": (40, 40), "full_size": (40, 40), "crop": "six_view", "crop_group": GROUP, "flip": False}
  return pipeline.InputSpec(**{**values, **options})


def coded(rows, columns):
  """An image whose red tells the row and whose green the column, so that every crop tells where it comes from."""
  image = np.zeros((rows, columns, 3), np.uint8)
  image[..., 0], image[..., 1] = np.arange(rows)[:, None], np.arange(columns)[None]
  return image


def record(label, rows=60, columns=200, id=5):
  return {"image": coded(rows, columns), "label": np.array(label, np.uint8), "known": np.ones(4, bool), "id": np.int64(id)}


@pytest.fixture(autouse=True)
def plain_images(monkeypatch):
  """Records hold arrays in place of JPEGs: a code in pixels does not survive JPEG."""
  monkeypatch.setattr(images, "decode_jpeg", lambda data, at_least: data)


def test_views_are_the_whole_image_and_crops_of_it_at_its_own_scale():
  sample = pipeline.augment(record([1, 0, 1, 0]), np.random.default_rng(0), spec=spec())
  assert sample["image"].shape == (6, 40, 40, 3) and sample["image"].dtype == np.uint8
  np.testing.assert_array_equal(sample["image"][0], cv2.resize(coded(60, 200), (40, 40)))
  corners = set()
  for view in sample["image"][1:]:
    top, left = int(view[0, 0, 0]), int(view[0, 0, 1])
    np.testing.assert_array_equal(view, coded(60, 200)[top:top + 40, left:left + 40])
    corners.add((top, left))
  assert len(corners) == 5


def test_crops_reach_every_place():
  rng, tops, lefts = np.random.default_rng(1), set(), set()
  for _ in range(300):
    view = ops.random_crop({"image": coded(43, 45)}, (40, 40), rng)["image"]
    tops.add(int(view[0, 0, 0]))
    lefts.add(int(view[0, 0, 1]))
  assert tops == {0, 1, 2, 3} and lefts == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("rows, columns", [(120, 240), (30, 31), (60, 1020), (1020, 60)])
def test_the_shorter_side_is_brought_to_size_and_the_aspect_stays(rows, columns):
  resized = ops.short_side_resize({"image": np.zeros((rows, columns, 3), np.uint8)}, 60)["image"]
  assert min(resized.shape[:2]) == 60
  assert resized.shape[0] / resized.shape[1] == pytest.approx(rows / columns, rel=0.02)


@pytest.mark.parametrize("rule, of_crops", [("group", [1, 0, 0, 0]), ("none", [0, 0, 0, 0]), ("all", [1, 0, 1, 1])])
def test_the_three_rules_of_labels(rule, of_crops):
  label = [1, 0, 1, 1]
  sample = pipeline.augment(record(label), np.random.default_rng(0), spec=spec(crop_labels=rule))
  assert sample["view_label"].dtype == np.uint8 and sample["label"].tolist() == label
  assert sample["view_label"].tolist() == [label] + [of_crops] * 5


@pytest.mark.parametrize("rule", pipeline.CROP_LABELS)
def test_an_image_without_a_culture_is_never_cropped(rule):
  sample = pipeline.augment(record([0, 0, 1, 0]), np.random.default_rng(0), spec=spec(crop_labels=rule))
  assert sample["view_label"].tolist() == [[0, 0, 1, 0]] * 6
  assert (sample["image"] == sample["image"][:1]).all()


def test_views_are_mirrored_one_by_one():
  sample = pipeline.augment(record([0, 0, 1, 0]), np.random.default_rng(0), spec=spec(flip=True))
  whole = cv2.resize(coded(60, 200), (40, 40))
  mirrored = [np.array_equal(view, whole[:, ::-1]) for view in sample["image"]]
  plain = [np.array_equal(view, whole) for view in sample["image"]]
  assert all(a != b for a, b in zip(mirrored, plain)) and any(mirrored) and any(plain)


def test_evaluation_crops_are_the_same_in_every_run_and_differ_between_images():
  view = lambda id: pipeline.evaluation_view(record([0, 0, 1, 0], id=id), spec=spec(crop_group=None, flip=True), views="six_view")["image"]
  np.testing.assert_array_equal(view(5), view(5))
  np.testing.assert_array_equal(view(5)[0], cv2.resize(coded(60, 200), (40, 40)))
  assert not np.array_equal(view(5)[1:], view(6)[1:]) and not np.array_equal(view(5)[1:], view(-5)[1:])
  top, left = view(5)[1, 0, 0, :2]
  np.testing.assert_array_equal(view(5)[1], coded(60, 200)[top:top + 40, left:left + 40])


def test_batches_hold_views_and_do_not_depend_on_hosts():
  source = [record([i % 2, 0, 1, 0], id=i) for i in range(8)]
  whole = pipeline.train_dataset(source, spec(flip=True), batch_size=4, seed=3)[1]
  assert whole["image"].shape == (4, 6, 40, 40, 3) and whole["view_label"].shape == (4, 6, 4) and whole["label"].shape == (4, 4)
  parts = [pipeline.train_dataset(source, spec(flip=True), batch_size=4, seed=3, process_index=i, process_count=2)[1] for i in range(2)]
  for key in ("image", "view_label", "id"):
    np.testing.assert_array_equal(whole[key], np.concatenate([part[key] for part in parts]))
  padded = pipeline.eval_dataset(source[:3], spec(), views="six_view", batch_size=4)[0]
  assert padded["image"].shape == (4, 6, 40, 40, 3) and padded["valid"].tolist() == [True] * 3 + [False]


def test_what_does_not_fit_is_named():
  with pytest.raises(InputError, match="shorter side is 30"):
    pipeline.evaluation_view(record([0, 0, 1, 0]), spec=spec(resize=(30, 90)), views="six_view")
  with pytest.raises(InputError, match="crop_labels"):
    spec(crop_labels="some")
  with pytest.raises(InputError, match="landmarks"):
    pipeline.augment({**record([1, 0, 0, 0]), "landmarks": np.zeros((5, 2), np.float32)}, np.random.default_rng(0), spec=spec())
  with pytest.raises(ValueError, match="crop_group"):
    pipeline.augment(record([1, 0, 0, 0]), np.random.default_rng(0), spec=spec(crop_group=None))
