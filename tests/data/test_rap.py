"""RAP v1 and v2: nested structs, partitions, unknown entries, what is refused; and that partitions live side by side."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from attr_jax import cli
from attr_jax import evaluate
from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import registry
from attr_jax.data.builders import mat_files
from attr_jax.data.builders import rap
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

AGES = ["AgeLess16", "Age17-30", "Age31-45"]
HEAD = ["hs-BaldHead", "hs-LongHair", "hs-BlackHair", "hs-Hat", "hs-Glasses"]
UPPER = ["ub-Shirt", "ub-Sweater", "ub-Vest", "ub-TShirt", "ub-Cotton", "ub-Jacket", "ub-SuitUp", "ub-Tight", "ub-ShortSleeve"]
LOWER = ["lb-LongTrousers", "lb-Skirt", "lb-ShortSkirt", "lb-Dress", "lb-Jeans", "lb-TightTrousers"]
ACTIONS = ["action-Calling", "action-Talking", "action-Gathering", "action-Holding"]
EVALUATED = {
    "rap": ["Female", *AGES, "BodyFat", "BodyNormal", "BodyThin", "Customer", "Clerk", *HEAD, "hs-Muffler", *UPPER, *LOWER,
            "shoes-Leather", "shoes-Sport", "shoes-Boots", "shoes-Cloth", "shoes-Casual",
            "attach-Backpack", "attach-SingleShoulderBag", "attach-HandBag", "attach-Box", "attach-PlasticBag", "attach-PaperBag",
            "attach-HandTrunk", "attach-Other", *ACTIONS, "action-Pusing", "action-Pulling", "action-CarrybyArm", "action-CarrybyHand"],
    "rap2": ["Femal", *AGES, "Age46-60", "BodyFat", "BodyNormal", "BodyThin", "Customer", "Employee", *HEAD, *UPPER, "ub-Others", *LOWER,
             "shoes-Leather", "shoes-Sports", "shoes-Boots", "shoes-Cloth", "shoes-Casual", "shoes-Other",
             "attachment-Backpack", "attachment-ShoulderBag", "attachment-HandBag", "attachment-Box", "attachment-PlasticBag",
             "attachment-PaperBag", "attachment-HandTrunk", "attachment-Other", *ACTIONS, "action-Pushing",
             "action-Pulling", "action-CarryingByArm", "action-CarryingByHand", "action-Other"],
}
# Version 2: rare attributes and colours lie between the evaluated columns, boxes in the camera's frame behind them.
COLUMNS = {"rap": list(range(51)),
           "rap2": [*range(5), *range(7, 10), 11, 12, *range(15, 20), *range(21, 31), 45, 47, 48, 50, 51, 52, 67, 68, 69, 70, 72, 73,
                    88, 89, 90, 92, 93, 94, 95, 97, 98, 100, 101, *range(105, 111)]}
WIDTH = {"rap": 92, "rap2": 152}
FIELDS = {"rap": {"images": "imagesname", "attributes": "attribute_eng", "label": "label", "partitions": "partion"},
          "rap2": {"images": "name", "attributes": "attribute", "label": "data", "partitions": "partition_attribute"}}
COUNTS = {"rap": {"train": 7, "test": 3}, "rap2": {"train": 5, "val": 2, "test": 3}}
COUNT = 10


def cells(contents, shape=(-1, 1)):
  array = np.empty(len(contents), object)
  for index, content in enumerate(contents):
    array[index] = content
  return array.reshape(shape)


class RapSource:
  """A RAP folder of ten crops, in the fields, types and orientations of the file; change `fields` before `prepare` to break it."""

  def __init__(self, folder, picture, name):
    self.folder, self.name = folder, name
    rng = np.random.default_rng(4)
    self.files = [f"CAM{number % 3:02d}_2014-03-18_{number}-{number + 9}_tarid{number}_frame{number}_line1.png" for number in range(COUNT)]
    self.sizes = [(300, 110), (90, 41)] + [(120 + 5 * number, 60) for number in range(COUNT - 2)]
    (folder / "RAP_dataset").mkdir(parents=True)
    for number, (file, size) in enumerate(zip(self.files, self.sizes)):
      (folder / "RAP_dataset" / file).write_bytes(images.encode_png(picture(number, *size)))
    attributes = [f"extra-{column}" for column in range(WIDTH[name])]
    self.label = rng.integers(0, 2, (COUNT, WIDTH[name]))
    for column, attribute in zip(COLUMNS[name], EVALUATED[name], strict=True):
      attributes[column] = attribute
    self.label[[2, 5], 0] = 2
    self.orders = [rng.permutation(COUNT) + 1 for _ in range(5)]
    bounds = np.cumsum(list(COUNTS[name].values()))[:-1]
    self.partitions = [{f"{split}_index": part[None].astype(np.uint16) for split, part in zip(COUNTS[name], np.split(order, bounds))}
                       for order in self.orders]
    if name == "rap":
      self.fields = {
          "partion": cells(self.partitions), "label": self.label.astype(np.int32), "attribute_chinese": cells(["性别"] * WIDTH[name]),
          "attribute_eng": cells(attributes), "position": rng.integers(0, 900, (COUNT, 16)).astype(np.int32),
          "imagesname": cells(self.files), "attribute_exp": cells(["Female"] * 51),
          "identity": np.arange(COUNT, dtype=np.int16)[:, None] - 1,
          "reid_partion": {"train_identity": np.ones((2, 1), np.int16), "test_identity": np.ones((2, 1), np.int16)}}
    else:
      self.label[:, 120:] = rng.integers(0, 900, (COUNT, 32))
      self.fields = {
          "name": cells(self.files), "data": self.label.astype(float), "attribute": cells(attributes),
          "selected_attribute": np.array([COLUMNS[name]], np.uint8) + np.uint8(1), "partition_attribute": cells(self.partitions, (1, 5)),
          "person_identity": np.ones((COUNT, 1), np.int16)}

  @property
  def path(self):
    return self.folder / "RAP_annotation" / "RAP_annotation.mat"

  def expected(self, partition, split):
    """Rows of the images of a split, from 0."""
    return self.partitions[partition - 1][f"{split}_index"].ravel().astype(int) - 1

  def write(self):
    self.path.parent.mkdir(exist_ok=True)
    scipy.io.savemat(self.path, {"RAP_annotation": self.fields})

  def prepare(self, tmp_path, **options):
    self.write()
    return prepare(self.name, source=self.folder, data_dir=tmp_path / "data", **{"progress": False, "allow_deviations": True, **options})


@pytest.fixture
def make(tmp_path, picture):
  return lambda name: RapSource(tmp_path / name, picture, name)


@pytest.fixture
def source(make):
  return make("rap")


@pytest.fixture(params=["rap", "rap2"])
def any_source(request, make):
  return make(request.param)


def report_of(folder):
  return json.loads((folder / "report.json").read_text())


def assert_is(dataset, source, partition):
  """Images, labels and order are those of a partition of the source."""
  assert dataset.info.splits == COUNTS[source.name]
  number = 0
  for split in COUNTS[source.name]:
    for row, sample in zip(source.expected(partition, split), dataset.source(split), strict=True):
      raw = source.label[row, COLUMNS[source.name]]
      np.testing.assert_array_equal(sample["label"], raw == 1)
      np.testing.assert_array_equal(sample["known"], raw != 2)
      assert (sample["label"].dtype, sample["known"].dtype, sample["id"]) == (np.uint8, np.bool_, number)
      height, width = source.sizes[row]
      image = images.decode_jpeg(sample["image"])
      assert image.shape[:2] == ((349, 128) if (height, width) == (600, 220) else (height, width))
      number += 1


# What comes out.


def test_what_both_versions_give(any_source, tmp_path):
  folder = any_source.prepare(tmp_path)
  assert folder == tmp_path / "data" / any_source.name / "256x128" / "1.0.0"
  dataset = registry.open_dataset(any_source.name, tmp_path / "data")
  assert dataset.info.label_names == tuple(EVALUATED[any_source.name])
  assert (dataset.info.resize, dataset.info.image_size) == ((256, 128), (224, 112))
  assert_is(dataset, any_source, 1)
  known = sum(sample["known"].sum() for split in COUNTS[any_source.name] for sample in dataset.source(split))
  assert known == COUNT * len(EVALUATED[any_source.name]) - 2
  train = any_source.label[any_source.expected(1, "train"), 0]
  assert dataset.info.positive_ratio[0] == pytest.approx((train == 1).sum() / (train != 2).sum())
  report = report_of(folder)
  assert report["remarks"] == ["10 images, in no split 0", f"unknown entries of all images: {dataset.info.label_names[0]} 2"]
  assert report["partition"] == 1 and report["converted"] == {"png": 10}


def test_images_are_those_of_the_labels(any_source, tmp_path, picture):
  any_source.prepare(tmp_path)
  dataset = registry.open_dataset(any_source.name, tmp_path / "data")
  for split in COUNTS[any_source.name]:
    for row, sample in zip(any_source.expected(1, split), dataset.source(split), strict=True):
      assert np.abs(images.decode_jpeg(sample["image"]).astype(float) - picture(row, *any_source.sizes[row])).mean() < 4


def test_large_crops_are_shrunk(source, tmp_path, picture):
  source.sizes[0] = (600, 220)
  (source.folder / "RAP_dataset" / source.files[0]).write_bytes(images.encode_png(picture(0, 600, 220)))
  assert report_of(source.prepare(tmp_path))["shrunk"] == 1
  assert_is(registry.open_dataset("rap", tmp_path / "data"), source, 1)


def test_groups(any_source, tmp_path):
  any_source.prepare(tmp_path)
  groups = registry.open_dataset(any_source.name, tmp_path / "data").info.label_groups
  assert list(groups) == ["person", "head", "upper body", "lower body", "shoes", "carried", "action"]
  assert [len(names) for names in groups.values()] == ([9, 6, 9, 6, 5, 8, 8] if any_source.name == "rap" else [10, 5, 10, 6, 6, 8, 9])
  assert groups["person"][0] in ("Female", "Femal") and groups["person"][-1] in ("Clerk", "Employee")


def as_columns(source):
  """Vectors the other way round, numbers of another type, one more cell around each thing."""
  fields = source.fields
  for name, values in fields.items():
    if isinstance(values, np.ndarray) and min(values.shape) == 1:
      fields[name] = values.T
  partitions = FIELDS[source.name]["partitions"]
  turned = [cells([{field: values.T.astype(np.float64) for field, values in partition.items()}]) for partition in source.partitions]
  fields[partitions] = cells([cells(turned)])
  label = FIELDS[source.name]["label"]
  fields[label] = fields[label].astype(np.uint16)
  attributes = FIELDS[source.name]["attributes"]
  fields[attributes] = cells([cells([name]) for name in fields[attributes].ravel()], (1, -1))
  source.fields = cells([fields])


def test_orientation_type_and_nesting_do_not_matter(any_source, tmp_path):
  as_columns(any_source)
  any_source.prepare(tmp_path, partition=3)
  assert_is(registry.open_dataset(any_source.name, tmp_path / "data", partition=3), any_source, 3)


def test_unsigned_indices_do_not_wrap_around():
  rows = mat_files.disjoint_rows({"a": np.arange(1, 256, dtype=np.uint8)[None]}, "x", 255)["a"]
  assert rows.dtype == np.int64 and rows.tolist() == list(range(255))
  with pytest.raises(InputError, match="x a row 0: expected the number of an image, 1 to 255, got 0"):
    mat_files.disjoint_rows({"a": np.zeros((1, 3), np.uint8)}, "x", 255)


# Partitions.


def test_partitions_live_side_by_side(source, tmp_path):
  folders = [source.prepare(tmp_path, partition=number) for number in (2, 5, 1)]
  assert [folder.parts[-2] for folder in folders] == ["256x128-partition2", "256x128-partition5", "256x128"]
  assert [report_of(folder)["partition"] for folder in folders] == [2, 5, 1]
  for number, folder in zip((2, 5, 1), folders):
    dataset = registry.open_dataset("rap", tmp_path / "data", partition=number)
    assert dataset.path == folder
    assert_is(dataset, source, number)
  assert registry.open_dataset("rap", tmp_path / "data").path == folders[2]
  assert registry.open_dataset("rap", tmp_path / "data", "256x128", 2).path == folders[0]
  assert not [path for path in (tmp_path / "data").iterdir() if path.name != "rap"]


def test_sizes_of_a_partition(source, tmp_path):
  source.prepare(tmp_path, size="64x32")
  source.prepare(tmp_path, size="64x32", partition=2)
  assert registry.open_dataset("rap", tmp_path / "data", partition=2).path.parts[-2] == "64x32-partition2"
  source.prepare(tmp_path, size=48, partition=2)
  with pytest.raises(InputError, match="rap is prepared as 48x48-partition2, 64x32-partition2; choose one with size"):
    registry.open_dataset("rap", tmp_path / "data", partition=2)
  assert registry.open_dataset("rap", tmp_path / "data").path.parts[-2] == "64x32"
  with pytest.raises(InputError, match="attr-jax prepare rap --source=DIR --data-dir=.* --size=48x48 --partition=3"):
    registry.open_dataset("rap", tmp_path / "data", 48, 3)
  with pytest.raises(InputError, match="not prepared; run: attr-jax prepare rap --source=DIR --data-dir=.*data$"):
    registry.open_dataset("rap", tmp_path / "other" / "data")


def test_a_partition_is_prepared_once(source, tmp_path, capsys):
  source.prepare(tmp_path, partition=2)
  source.prepare(tmp_path, partition=2, progress=True)
  assert "256x128-partition2/1.0.0: prepared already" in capsys.readouterr().err


def test_tensorflow_datasets_reads_a_partition(source, tmp_path):
  folder = source.prepare(tmp_path, partition=2)
  theirs = tfds.builder_from_directory(folder).as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()})
  for one, two in zip(theirs, registry.open_dataset("rap", tmp_path / "data", partition=2).source("test"), strict=True):
    assert one["image"] == two["image"]
    np.testing.assert_array_equal(one["known"], two["known"])


@pytest.mark.parametrize("name, partition, message", [
    ("rap", 6, "partition: rap has 1 to 5, got 6"), ("rap2", 0, "partition: rap2 has 1 to 5, got 0"),
    ("pa100k", 1, "partition: pa100k has one fixed split; those with a choice are peta, peta_all, rap, rap2"),
    ("nothing", 1, "unknown data set 'nothing'")])
def test_partitions_that_do_not_exist(tmp_path, name, partition, message):
  with pytest.raises(InputError, match=message):
    prepare(name, source=tmp_path, data_dir=tmp_path / "data", partition=partition)
  with pytest.raises(InputError, match=message):
    registry.open_dataset(name, tmp_path / "data", partition=partition)


def test_a_run_reads_the_partition_it_names(source, tmp_path, capsys):
  source.write()
  with pytest.raises(SystemExit) as status:
    cli.main(["prepare", "rap", f"--source={source.folder}", f"--data-dir={tmp_path / 'data'}", "--partition=2", "--allow-deviations"])
  assert status.value.code == 0 and "256x128-partition2" in capsys.readouterr().out
  baseline = pathlib.Path(cli.__file__).parent.parent / "configs" / "baseline.py"
  config = cli.load_config(f"{baseline}:dataset=rap", [f"--config.data.dir={tmp_path / 'data'}", "--config.data.partition=2"])
  dataset = evaluate.open_data(config)
  assert_is(dataset, source, 2)
  assert (config.data.train_split, config.data.val_split) == ("train", "")
  with pytest.raises(InputError, match="rap has train, test and sums"):
    dataset.source("val")
  spec = pipeline.InputSpec(resize=(64, 32), size=(56, 28), crop="none")
  batch = pipeline.train_dataset(dataset.source("train"), spec, batch_size=7, seed=0)[0]
  assert batch["image"].shape == (7, 56, 28, 3) and not batch["known"].all()


def test_runs_of_two_partitions_are_not_averaged():
  """Their test images have the same numbers."""
  table = {"id": np.arange(3), "label": np.eye(3, dtype=np.uint8), "known": np.ones((3, 3), bool), "logit": np.zeros((3, 3))}
  assert evaluate.average_predictions([table, table], "split 'test'")["logit"].tolist() == np.zeros((3, 3)).tolist()
  with pytest.raises(InputError, match="split 'test' holds other samples in some of the runs"):
    evaluate.average_predictions([table, table | {"label": table["label"][::-1]}], "split 'test'")


# Counts.


def test_the_published_counts_are_those_of_all_images():
  for version, total in ((rap._FIRST, 41_585), (rap._SECOND, 84_928)):
    assert sum(count for what, count in version.published.items() if "images" in what) == total


def test_shares_are_compared_where_the_counts_are_as_published(make, monkeypatch):
  source = make("rap")
  source.write()
  shares = (source.label[:, :51] == 1).mean(axis=0)
  counts = {"train images": 7, "test images": 3, "labels": 51}
  monkeypatch.setattr(rap, "_FIRST", dataclasses.replace(rap._FIRST, published=counts, shares=tuple(shares)))
  assert rap.Builder.read(source.folder).deviations == ()
  monkeypatch.setattr(rap, "_FIRST", dataclasses.replace(rap._FIRST, shares=(shares[0] + 0.2, *shares[1:])))  # as if 2 were a positive
  assert rap.Builder.read(source.folder).deviations == (
      f"positive share of Female in all images: {shares[0]:.4f}, published {shares[0] + 0.2:.4f}",)


def test_other_counts_are_refused_or_kept(any_source, tmp_path):
  expected = {"rap": ["train images: 7, published 33268", "test images: 3, published 8317"],
              "rap2": ["train images: 5, published 50957", "val images: 2, published 16986", "test images: 3, published 16985"]}
  with pytest.raises(InputError, match=expected[any_source.name][0]):
    any_source.prepare(tmp_path, allow_deviations=False)
  assert report_of(any_source.prepare(tmp_path))["deviations"] == expected[any_source.name]


def test_fewer_selected_attributes_and_images_in_no_split(make, tmp_path):
  source = make("rap2")
  source.fields["selected_attribute"] = np.array([[3], [1]], np.uint16)
  source.partitions[0]["train_index"] = source.partitions[0]["train_index"][:, 1:]
  source.fields["partition_attribute"] = cells(source.partitions, (1, 5))
  report = report_of(source.prepare(tmp_path))
  assert report["deviations"][-1] == "labels: 2, published 54" and report["remarks"][0] == "10 images, in no split 1"
  dataset = registry.open_dataset("rap2", tmp_path / "data")
  assert dataset.info.label_names == ("Age17-30", "Femal")
  np.testing.assert_array_equal(dataset.source("val")[0]["label"], source.label[source.expected(1, "val")[0], [2, 0]] == 1)


def test_columns_that_are_no_labels_may_hold_anything(source, tmp_path):
  source.fields["label"][:, 60:] = 9
  source.fields["attribute_eng"][60:, 0] = "same"
  source.prepare(tmp_path)


# What goes wrong.


def fails(source, tmp_path, message, **options):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path, **options)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def changed(values, place, value):
  values = np.array(values)
  values[place] = value
  return values


@pytest.mark.parametrize("field, place, value, message", [
    ("label", (4, 1), 7, r"RAP_annotation.(label|data) row 4 column 1: expected 0, 1 or 2, got 7"),
    ("label", (4, 1), -1, "row 4 column 1: expected 0, 1 or 2, got -1"),
    ("images", (3, 0), "../secret.png", r"RAP_annotation.(imagesname|name) row 3: '../secret.png' is not a path inside the data folder"),
    ("images", (3, 0), "/etc/secret.png", "row 3: '/etc/secret.png' is not a path inside"),
    ("images", (3, 0), "gone.png", "1 of 10 files that the annotations name are missing, first RAP_dataset/gone.png"),
    ("images", (3, 0), np.ones((1, 1)), "row 3: expected a text, got float64"),
    ("images", (3, 0), cells([]), "row 3: expected a text, got object"),
    ("attributes", (2, 0), "AgeLess16 ", r"attribute\w*: an empty name, or two of one name, in Fem\w+, AgeLess16, AgeLess16"),
    ("attributes", (2, 0), " ", "an empty name, or two of one name"),
])
def test_faults_of_an_entry(any_source, tmp_path, field, place, value, message):
  name = FIELDS[any_source.name][field]
  values = any_source.fields[name]
  any_source.fields[name] = values = values.copy()
  values[place] = value
  fails(any_source, tmp_path, message)


def test_an_image_that_comes_twice(any_source, tmp_path):
  any_source.fields[FIELDS[any_source.name]["images"]][6, 0] = any_source.files[1]
  fails(any_source, tmp_path, r"(imagesname|name) row 6: 'CAM01_.*_line1.png' is also row 1")


@pytest.mark.parametrize("field, value, message", [
    ("label", np.zeros((COUNT, 50), np.uint8), r"(label|data): expected 10 rows \(image names\) x (92|152) columns .* got .* \(10, 50\)"),
    ("label", np.zeros((9, 92), np.uint8), r"expected 10 rows .* got shape \(9, 92\)"),
    ("label", cells(["a", "b"]), "(label|data): expected numbers, got object"),
    ("label", np.full((COUNT, 1), "a"), "(label|data): expected numbers, got <U1"),
    ("images", np.zeros((COUNT, 1)), "(imagesname|name): expected an Nx1 cell array of texts, got float64"),
    ("images", cells(["a.png"] * 4, (2, 2)), r"expected an Nx1 cell array of texts, got object \(2, 2\)"),
    ("attributes", {"a": 1}, r"attribute\w*: expected an Nx1 cell array of texts, got \[\('a', 'O'\)\]"),
    ("partitions", np.ones((5, 1)), r"parti\w+: expected an Nx1 cell array of structs, got float64 \(5, 1\)"),
    ("partitions", cells([np.ones((1, 3))] * 5), r"parti\w+ partition 1: expected a 1x1 struct, got float64 \(1, 3\)"),
    ("partitions", cells([{"train": np.ones((1, 3))}] * 5), "partition 1: fields train_index, .*test_index are missing, found train"),
    ("partitions", cells([]), r"parti\w+: expected an Nx1 cell array of structs, got object \(0, 1\)"),
])
def test_faults_of_a_field(any_source, tmp_path, field, value, message):
  any_source.fields[FIELDS[any_source.name][field]] = value
  fails(any_source, tmp_path, message)


@pytest.mark.parametrize("split, value, message", [
    ("train", [[1, 2, 11]], "partition 2 train_index row 2: expected the number of an image, 1 to 10, got 11"),
    ("train", [[0, 2]], "partition 2 train_index row 0: expected the number of an image, 1 to 10, got 0"),
    ("test", [[1.5, 2]], "partition 2 test_index row 0: expected .* got 1.5"),
    ("test", [[np.nan, 2]], "partition 2 test_index row 0: expected .* got nan"),
    ("test", [[3, 5, 3]], "image .* is also in t"),
    ("test", np.zeros((0, 0)), r"partition 2 test_index: expected a list of numbers, got float64 \(0, 0\)"),
    ("test", np.ones((2, 2)), r"partition 2 test_index: expected a list of numbers, got float64 \(2, 2\)"),
    ("test", cells([1, 2]), "partition 2 test_index: expected a list of numbers, got object"),
])
def test_faults_of_a_partition(source, tmp_path, split, value, message):
  source.partitions[1][f"{split}_index"] = np.asarray(value)
  source.fields["partion"] = cells(source.partitions)
  fails(source, tmp_path, message, partition=2)


def test_only_the_partition_asked_for_is_read(source, tmp_path):
  source.fields["partion"][1, 0] = "broken"
  fails(source, tmp_path, "partion partition 2: expected a 1x1 struct", partition=2)
  source.prepare(tmp_path, partition=3)


def test_an_image_in_two_splits(source, tmp_path):
  first = source.partitions[0]
  first["test_index"] = changed(first["test_index"], (0, 1), first["train_index"][0, 2])
  number = first["train_index"][0, 2]
  fails(source, tmp_path, f"partition 1 test_index row 1: image {number} is also in train_index row 2")


def test_fewer_partitions_than_asked_for(any_source, tmp_path):
  any_source.fields[FIELDS[any_source.name]["partitions"]] = cells(any_source.partitions[:3])
  fails(any_source, tmp_path, r"RAP_annotation.parti\w+: expected at least 4 partitions, got 3", partition=4)


@pytest.mark.parametrize("value, message", [
    (np.zeros((1, 3)), "RAP_annotation selected_attribute row 0: expected the number of an attribute, 1 to 152, got 0"),
    (np.array([[1, 153]]), "selected_attribute row 1: expected .* 1 to 152, got 153"),
    (np.array([[9, 4, 9]]), "selected_attribute row 2: attribute 9 is also in selected_attribute row 0"),
])
def test_faults_of_the_selected_attributes(make, tmp_path, value, message):
  source = make("rap2")
  source.fields["selected_attribute"] = value
  fails(source, tmp_path, message)


def test_too_few_attributes(source, tmp_path):
  source.fields["attribute_eng"] = cells(EVALUATED["rap"][:50])
  fails(source, tmp_path, "RAP_annotation.attribute_eng: expected at least 51 names, got 50")


@pytest.mark.parametrize("field", ["images", "attributes", "label", "partitions"])
def test_a_missing_field(any_source, tmp_path, field):
  name = FIELDS[any_source.name][field]
  del any_source.fields[name]
  fails(any_source, tmp_path, f"RAP_annotation: fields {name} are missing, found ")


@pytest.mark.parametrize("name, other", [("rap", "rap2"), ("rap2", "rap")])
def test_the_other_version(make, tmp_path, name, other):
  source = make(name)
  source.name = other
  fails(source, tmp_path, f"RAP_annotation.mat: this is the data set {name}, not {other}")


def test_other_variables(source, tmp_path):
  source.path.parent.mkdir()
  scipy.io.savemat(source.path, {"annotation": source.fields})
  with pytest.raises(InputError, match="RAP_annotation.mat: variables RAP_annotation are missing, found annotation"):
    prepare("rap", source=source.folder, data_dir=tmp_path / "data", progress=False)
  source.fields = np.ones((2, 3))
  fails(source, tmp_path, r"RAP_annotation: expected a 1x1 struct, got float64 \(2, 3\)")


def test_files_missing_or_broken(source, tmp_path):
  source.write()
  whole = source.path.read_bytes()
  for content in (b"", b"not a mat file", whole[:len(whole) // 2], whole[:200]):
    source.path.write_bytes(content)
    with pytest.raises(InputError, match="RAP_annotation.mat: not a readable MAT file"):
      prepare("rap", source=source.folder, data_dir=tmp_path / "data", progress=False)
  source.path.unlink()
  with pytest.raises(InputError, match="RAP_annotation.mat: missing; --source must be the folder that holds RAP_annotation/"):
    prepare("rap", source=source.folder, data_dir=tmp_path / "data", progress=False)
  (source.folder / "RAP_dataset").rename(source.folder / "images")
  fails(source, tmp_path, "no image folder; expected RAP_dataset/ beside RAP_annotation/")
