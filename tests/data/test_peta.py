"""PETA: a struct of numbers, names and partitions; the usual 35 labels and all 105; what is refused."""

import json

import numpy as np
import pytest
import scipy.io

from attr_jax.data import images
from attr_jax.data import published
from attr_jax.data import registry
from attr_jax.data.builders import peta
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

SELECTED = [
    "personalLess30", "personalLess45", "personalLess60", "personalLarger60", "carryingBackpack", "carryingOther", "lowerBodyCasual",
    "upperBodyCasual", "lowerBodyFormal", "upperBodyFormal", "accessoryHat", "upperBodyJacket", "lowerBodyJeans",
    "footwearLeatherShoes", "upperBodyLogo", "hairLong", "personalMale", "carryingMessengerBag", "accessoryMuffler",
    "accessoryNothing", "carryingNothing", "upperBodyPlaid", "carryingPlasticBags", "footwearSandals", "footwearShoes",
    "lowerBodyShorts", "upperBodyShortSleeve", "lowerBodyShortSkirt", "footwearSneaker", "upperBodyThinStripes",
    "accessorySunglasses", "lowerBodyTrousers", "upperBodyTshirt", "upperBodyOther", "upperBodyVNeck"]
COLOURS = ["Black", "Blue", "Brown", "Green", "Grey", "Orange", "Pink", "Purple", "Red", "White", "Yellow"]
EXTRAS = [
    "accessoryHeadphone", "personalLess15", "carryingBabyBuggy", "hairBald", "footwearBoots", "lowerBodyCapri", "carryingShoppingTro",
    "carryingUmbrella", "personalFemale", "carryingFolder", "accessoryHairBand", "lowerBodyHotPants", "accessoryKerchief",
    "lowerBodyLongSkirt", "upperBodyLongSleeve", "lowerBodyPlaid", "lowerBodyThinStripes", "carryingLuggageCase", "upperBodyNoSleeve",
    "hairShort", "footwearStocking", "upperBodySuit", "carryingSuitcase", "lowerBodySuits", "upperBodySweater",
    "upperBodyThickStripes"]
ATTRIBUTES = SELECTED + [f"{part}{colour}" for part in ("upperBody", "lowerBody", "hair", "footwear") for colour in COLOURS] + EXTRAS
COUNT = 12
SPLITS = {"train": 6, "val": 2, "test": 4}
PERSONS = [1, 1, 2, 3, 3, 3, 4, 5, 6, 6, 7, 8]


def cells(contents, shape=(-1, 1)):
  array = np.empty(len(contents), object)
  for index, content in enumerate(contents):
    array[index] = content
  return array.reshape(shape)


class PetaSource:
  """A PETA folder of twelve crops, in the fields, types and orientations of the file; change `fields` before `prepare` to break it."""

  def __init__(self, folder, picture):
    self.folder = folder
    rng = np.random.default_rng(8)
    (folder / "images").mkdir(parents=True)
    self.sizes = [(39 + 20 * number, 17 + 9 * number) for number in range(COUNT)]
    for number, size in enumerate(self.sizes):
      (folder / "images" / f"{number + 1:05d}.png").write_bytes(images.encode_png(picture(number, *size)))
    self.label = rng.integers(0, 2, (COUNT, len(ATTRIBUTES)))
    numbers = np.stack([np.arange(1, COUNT + 1), PERSONS, rng.integers(1, 11, COUNT), PERSONS], axis=1)
    self.partitions = [
        {split: part[:, None].astype(np.uint16) for split, part in zip(SPLITS, np.split(rng.permutation(COUNT) + 1, [6, 8]))}
        for _ in range(5)]
    self.fields = {
        "data": np.concatenate([numbers, self.label], axis=1).astype(np.uint16), "attribute": cells(ATTRIBUTES),
        "selected_attribute": np.arange(5, 40, dtype=np.uint8)[None], "partion_attribute": cells(self.partitions)}

  def expected(self, partition, split):
    """Rows of the images of a split, from 0."""
    return self.partitions[partition - 1][split].ravel().astype(int) - 1

  def write(self):
    scipy.io.savemat(self.folder / "PETA.mat", {"peta": self.fields})

  def prepare(self, tmp_path, name="peta", **options):
    self.write()
    return prepare(name, source=self.folder, data_dir=tmp_path / "data", **{"progress": False, "allow_deviations": True, **options})


@pytest.fixture
def source(tmp_path, picture):
  return PetaSource(tmp_path / "peta", picture)


def report_of(folder):
  return json.loads((folder / "report.json").read_text())


# What comes out.


@pytest.mark.parametrize("name, count, partition", [("peta", 35, 1), ("peta_all", 105, 1), ("peta", 35, 4)])
def test_labels_images_and_order(source, tmp_path, picture, name, count, partition):
  folder = source.prepare(tmp_path, name, partition=partition)
  assert folder == tmp_path / "data" / name / ("256x256" if partition == 1 else "256x256-partition4") / "1.0.0"
  dataset = registry.open_dataset(name, tmp_path / "data", partition=partition)
  assert dataset.info.label_names == tuple(ATTRIBUTES[:count]) and dataset.info.splits == SPLITS
  assert (dataset.info.resize, dataset.info.image_size) == ((256, 256), (224, 224))
  number = 0
  for split in SPLITS:
    for row, sample in zip(source.expected(partition, split), dataset.source(split), strict=True):
      np.testing.assert_array_equal(sample["label"], source.label[row, :count])
      assert sample["known"].all() and sample["id"] == number and sample["label"].dtype == np.uint8
      assert np.abs(images.decode_jpeg(sample["image"]).astype(float) - picture(row, *source.sizes[row])).mean() < 5  # as large as it was
      number += 1


def test_train_and_val_can_be_added(source, tmp_path):
  source.prepare(tmp_path)
  label, _, ids = registry.open_dataset("peta", tmp_path / "data").labels("train+val")
  rows = np.concatenate([source.expected(1, "train"), source.expected(1, "val")])
  np.testing.assert_array_equal(label, source.label[rows, :35])
  assert ids.tolist() == list(range(8))


def test_groups(source, tmp_path):
  for name, sizes in (("peta", [5, 5, 10, 6, 4, 5]), ("peta_all", [7, 21, 26, 23, 17, 11])):
    source.prepare(tmp_path, name)
    groups = registry.open_dataset(name, tmp_path / "data").info.label_groups
    assert list(groups) == ["person", "head", "upper body", "lower body", "shoes", "carried"]
    assert [len(names) for names in groups.values()] == sizes


def test_people_in_several_splits_are_told(source, tmp_path):
  people = {split: {PERSONS[row] for row in source.expected(1, split)} for split in SPLITS}
  remarks = report_of(source.prepare(tmp_path))["remarks"]
  assert remarks == ["12 images, in no split 0", f"people: {len(people['train'])} train, {len(people['val'])} val, "
                     f"{len(people['test'])} test; of those in test also in train: {len(people['test'] & people['train'])}"]


def test_the_published_counts_are_those_of_all_images():
  assert sum(peta._PUBLISHED.values()) == 19_000 and len(ATTRIBUTES) == 105


def test_names_and_shares_are_compared_where_the_counts_are_as_published(source, monkeypatch):
  source.write()
  monkeypatch.setattr(peta, "_PUBLISHED", {f"{split} images": count for split, count in SPLITS.items()})
  shares = source.label[:, :35].mean(axis=0)
  monkeypatch.setattr(published, "PETA_SHARES", tuple(shares))
  assert peta.Builder.read(source.folder).deviations == () == peta.AllBuilder.read(source.folder, 2).deviations
  monkeypatch.setattr(published, "PETA_SHARES", (shares[0] + 0.01, *shares[1:]))
  assert peta.Builder.read(source.folder).deviations == (
      f"positive share of personalLess30 in all images: {shares[0]:.4f}, published {shares[0] + 0.01:.4f}",)
  source.fields["selected_attribute"] = source.fields["selected_attribute"][:, ::-1]
  source.write()
  found = peta.Builder.read(source.folder).deviations
  assert found[0] == "label 0: 'upperBodyVNeck', published 'personalLess30'" and len(found) == 34  # the middle one stays


def test_other_counts_are_refused_or_kept(source, tmp_path):
  source.fields["selected_attribute"] = np.array([[92, 5]])  # personalFemale, personalLess30
  report = report_of(source.prepare(tmp_path))
  assert report["deviations"] == ["train images: 6, published 9500", "val images: 2, published 1900", "test images: 4, published 7600",
                                  "labels: 2, published 35"]
  dataset = registry.open_dataset("peta", tmp_path / "data")
  assert dataset.info.label_names == ("personalFemale", "personalLess30")
  np.testing.assert_array_equal(dataset.source("val")[0]["label"], source.label[source.expected(1, "val")[0], [87, 0]])
  fails(source, tmp_path / "new", "train images: 6, published 9500", allow_deviations=False)


def test_orientation_type_and_nesting_do_not_matter(source, tmp_path):
  source.fields = cells([{
      "data": source.fields["data"].astype(float), "attribute": cells([cells([name]) for name in ATTRIBUTES], (1, -1)),
      "selected_attribute": source.fields["selected_attribute"].T.astype(float),
      "partion_attribute": cells([cells([{split: values.T.astype(np.int32) for split, values in partition.items()}])
                                  for partition in source.partitions], (1, 5))}])
  source.prepare(tmp_path, partition=2)
  label, _, _ = registry.open_dataset("peta", tmp_path / "data", partition=2).labels("test")
  np.testing.assert_array_equal(label, source.label[source.expected(2, "test"), :35])


def test_images_go_by_their_number_not_their_row(source, tmp_path, picture):
  source.fields["data"] = source.fields["data"][::-1]
  source.prepare(tmp_path)
  row = source.expected(1, "val")[0]
  sample = registry.open_dataset("peta", tmp_path / "data").source("val")[0]
  np.testing.assert_array_equal(sample["label"], source.label[::-1][row, :35])
  place = COUNT - 1 - row
  assert np.abs(images.decode_jpeg(sample["image"]).astype(float) - picture(place, *source.sizes[place])).mean() < 5


# What goes wrong.


def fails(source, tmp_path, message, **options):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path, **options)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


@pytest.mark.parametrize("place, value, message", [
    ((3, 6), 7, "peta.data row 3 column 6: expected 0 or 1, got 7"),
    ((3, 6), 2, "peta.data row 3 column 6: expected 0 or 1, got 2"),
    ((3, 0), 2, "peta.data column 0 row 3: image 2 is also in column 0 row 1"),
    ((3, 0), 0, "peta.data column 0 row 3: expected the number of an image, 1 to 99999, got 0"),
    ((3, 0), 77, "1 of 12 files that the annotations name are missing, first images/00077.png"),
])
def test_faults_of_the_data(source, tmp_path, place, value, message):
  source.fields["data"][place] = value
  fails(source, tmp_path, message)


def test_labels_that_are_not_selected_are_not_looked_at(source, tmp_path):
  source.fields["data"][3, 60] = 7
  source.prepare(tmp_path)
  fails(source, tmp_path / "all", "peta.data row 3 column 60: expected 0 or 1, got 7", name="peta_all")


@pytest.mark.parametrize("field, value, message", [
    ("data", np.zeros((COUNT, 105)), r"peta.data: expected 12 rows .* x 109 columns .* got shape \(12, 105\)"),
    ("data", cells(["a"] * 4), "peta.data: expected numbers, got object"),
    ("data", np.zeros((0, 109)), r"peta.data column 0: expected a list of numbers, got float64 \(0,\)"),
    ("attribute", np.zeros((105, 1)), "peta.attribute: expected an Nx1 cell array of texts, got float64"),
    ("attribute", cells([*ATTRIBUTES[:-1], 5]), "peta.attribute row 104: expected a text, got int64"),
    ("attribute", cells([ATTRIBUTES[1], *ATTRIBUTES[1:]]), "peta.attribute: an empty name, or two of one name, in personalLess45, "),
    ("selected_attribute", np.array([[4, 5]]), "peta selected_attribute row 0: expected the number of an attribute, 5 to 109, got 4"),
    ("selected_attribute", np.array([[5, 110]]), "peta selected_attribute row 1: .* 5 to 109, got 110"),
    ("selected_attribute", np.array([[5, 9, 5]]), "peta selected_attribute row 2: attribute 5 is also in selected_attribute row 0"),
    ("selected_attribute", cells(["5"]), "peta selected_attribute: expected a list of numbers, got object"),
    ("partion_attribute", np.ones((5, 1)), "peta.partion_attribute: expected an Nx1 cell array of structs, got float64"),
])
def test_faults_of_a_field(source, tmp_path, field, value, message):
  source.fields[field] = value
  fails(source, tmp_path, message)


@pytest.mark.parametrize("split, value, message", [
    ("train", [[13], [2]], "partition 1 train row 0: expected the number of an image, 1 to 12, got 13"),
    ("val", [[1], [0]], "partition 1 val row 1: expected the number of an image, 1 to 12, got 0"),
    ("val", [[0.5]], "partition 1 val row 0: expected .* got 0.5"),
    ("val", cells(["a"]), "partition 1 val: expected a list of numbers, got object"),
    ("test", None, "partition 1: fields test are missing, found train, val"),
])
def test_faults_of_a_partition(source, tmp_path, split, value, message):
  source.partitions[0][split] = np.asarray(value)
  if value is None:
    del source.partitions[0][split]
  source.fields["partion_attribute"] = cells(source.partitions)
  fails(source, tmp_path, f"PETA.mat peta.partion_attribute {message}")


def test_an_image_in_two_splits(source, tmp_path):
  first = source.partitions[0]
  first["val"][1] = number = first["train"][4, 0]
  fails(source, tmp_path, f"partition 1 val row 1: image {number} is also in train row 4")


def test_fewer_partitions_than_asked_for(source, tmp_path):
  source.fields["partion_attribute"] = cells(source.partitions[:2])
  fails(source, tmp_path, "peta.partion_attribute: expected at least 5 partitions, got 2", partition=5)


@pytest.mark.parametrize("field", ["data", "attribute", "selected_attribute", "partion_attribute"])
def test_a_missing_field(source, tmp_path, field):
  del source.fields[field]
  fails(source, tmp_path, f"PETA.mat peta: fields {field} are missing, found ")


def test_files_missing_or_broken(source, tmp_path):
  source.write()
  path = source.folder / "PETA.mat"
  whole = path.read_bytes()
  for content in (b"", b"not a mat file", whole[:len(whole) // 2], whole[:200]):
    path.write_bytes(content)
    with pytest.raises(InputError, match="PETA.mat: not a readable MAT file"):
      prepare("peta", source=source.folder, data_dir=tmp_path / "data", progress=False)
  scipy.io.savemat(path, {"PETA": source.fields})
  with pytest.raises(InputError, match="PETA.mat: variables peta are missing, found PETA"):
    prepare("peta", source=source.folder, data_dir=tmp_path / "data", progress=False)
  path.unlink()
  with pytest.raises(InputError, match="PETA.mat: missing; --source must be the folder that holds PETA.mat and images/"):
    prepare("peta", source=source.folder, data_dir=tmp_path / "data", progress=False)
  (source.folder / "images").rename(source.folder / "PETA_dataset")
  fails(source, tmp_path, "no image folder; expected images/ beside PETA.mat")
