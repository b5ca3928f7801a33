"""iMet 2019: ids as text, rare labels, the authors' split, pictures of any shape, what is refused."""

import json

import cv2
import numpy as np
import pytest
from sklearn import model_selection
import tensorflow_datasets as tfds

from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import registry
from attr_jax.data.builders import imet2019
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

NAMES = ("culture::abruzzi", "culture::kievan rus'", "culture::american or european", "culture::old, of the north", "tag::men",
         "tag::women", "tag::flowers", "tag::birds", "tag::cups", "tag::swords", "tag::ships", "tag::bows, arrows", "no group",
         "tag::horses", "tag::sea")
DEAD, ONCE, TWICE = 3, 10, 12  # labels without image, with one, with two


class ImetSource:
  """A folder of 30 pictures in iMet's layout. Break `labels` or `rows`, then `prepare`, which writes them."""

  def __init__(self, folder, picture):
    self.folder, self.picture = folder, picture
    rng = np.random.default_rng(5)
    self.ids = sorted({*("%016x" % value for value in rng.integers(2**40, 2**63, 25)),
                       "000e4a6f3b1c9dpn", "0012", "168542ae0e96c", "10041eb49b297c0g", "3e05"})
    self.sets = [sorted({number % 3, 4 + number % 4, *((5, 8, 13) if number % 5 == 0 else ()), *((9, 11, 14) if number % 4 == 1 else ())})
                 for number in range(30)]
    self.sets[7] = [0, 2, 4, 5, 6, 7, 8, 9, 11, 14, 13]
    self.sets[3] += [ONCE]
    self.sets[20] += [TWICE]
    self.sets[21] += [TWICE]
    self.sizes = [(40 + 2 * number, 90 - number) for number in range(30)]
    self.sizes[5], self.sizes[6] = (40, 680), (680, 40)
    quoted = [f'"{name}"' if "," in name else name for name in NAMES]
    self.labels = ["attribute_id,attribute_name", *(f"{number},{name}" for number, name in enumerate(quoted))]
    self.rows = ["id,attribute_ids", *(f"{name},{' '.join(map(str, found))}" for name, found in zip(self.ids, self.sets))]
    (folder / "train").mkdir(parents=True)
    for number, (name, size) in enumerate(zip(self.ids, self.sizes)):
      (folder / "train" / f"{name}.png").write_bytes(images.encode_png(picture(number, *size)))

  def write(self, end="\n"):
    for name, lines in (("labels.csv", self.labels), ("train.csv", self.rows)):
      (self.folder / name).write_bytes("".join(f"{line}{end}" for line in lines).encode())

  def prepare(self, tmp_path, **options):
    self.write()
    return prepare("imet2019", source=self.folder, data_dir=tmp_path / "data",
                   **{"progress": False, "allow_deviations": True, "size": 40, **options})


@pytest.fixture
def source(tmp_path, picture):
  return ImetSource(tmp_path / "imet", picture)


def expected_splits(source):
  """Numbers of the pictures by split, with sklearn."""
  kept = [number for number, found in enumerate(source.sets) if ONCE not in found and TWICE not in found]
  rest, test = model_selection.train_test_split(kept, test_size=0.1, random_state=231)
  train, val = model_selection.train_test_split(rest, test_size=0.1 / 0.9, random_state=231)
  return {"train": sorted(train), "val": sorted(val), "test": sorted(test)}


def samples_of(tmp_path):
  dataset = registry.open_dataset("imet2019", tmp_path / "data")
  return [sample for split in ("train", "val", "test") for sample in dataset.source(split)]


# The split.


@pytest.mark.parametrize("count", [*range(3, 130), 1_000, 12_345, 109_200])
def test_the_split_is_that_of_sklearn(count):
  rest, test = model_selection.train_test_split(np.arange(count), test_size=0.1, random_state=231)
  train, val = model_selection.train_test_split(rest, test_size=0.1 / (0.8 + 0.1), random_state=231)
  splits = imet2019.split_rows(count)
  assert list(splits) == ["train", "val", "test"]
  for rows, expected in zip(splits.values(), (train, val, test)):
    np.testing.assert_array_equal(rows, np.sort(expected))


def test_the_split_is_the_published_one():
  """Rows, in order of their ids and without the dropped ones, that the lists of the authors name first."""
  splits = imet2019.split_rows(109_237 - 37)
  assert {split: len(rows) for split, rows in splits.items()} == {"train": 87_360, "val": 10_920, "test": 10_920}
  assert splits["test"][:8].tolist() == [1, 14, 23, 25, 31, 35, 37, 38]
  assert splits["val"][:4].tolist() == [7, 10, 28, 41]
  assert splits["train"][:9].tolist() == [0, 2, 3, 4, 5, 6, 8, 9, 11]


def test_images_with_rare_labels():
  label = np.zeros((9, 4), np.uint8)
  label[:3, 0] = label[2:4, 1] = label[4, 2] = 1  # three, two and one image; none of the last
  labels, found = imet2019.rare(label)
  assert labels.tolist() == [False, True, True, True]
  assert np.flatnonzero(found).tolist() == [2, 3, 4]


# What comes out.


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_is_prepared(source, tmp_path, end):
  source.write(end)
  folder = prepare("imet2019", source=source.folder, data_dir=tmp_path / "data", size=40, progress=False, allow_deviations=True)
  dataset = registry.open_dataset("imet2019", tmp_path / "data")
  splits = expected_splits(source)
  assert dataset.info.splits == {split: len(numbers) for split, numbers in splits.items()} == {"train": 21, "val": 3, "test": 3}
  assert dataset.info.label_names == NAMES
  assert dataset.info.label_groups == {"culture": NAMES[:4], "tag": NAMES[4:12] + NAMES[13:], "other": NAMES[12:13]}
  assert dataset.info.positive_ratio[DEAD] == dataset.info.positive_ratio[ONCE] == dataset.info.positive_ratio[TWICE] == 0
  assert (dataset.info.resize, dataset.info.image_size) == ((224, 224), (224, 224))
  numbers = [number for split in splits.values() for number in split]
  for place, (number, sample) in enumerate(zip(numbers, samples_of(tmp_path), strict=True)):
    assert sample["id"] == place and sample["id"].dtype == np.int64
    assert np.flatnonzero(sample["label"]).tolist() == sorted(set(source.sets[number])) and sample["known"].all()
    height, width = source.sizes[number]
    image = images.decode_jpeg(sample["image"])
    scale = min(1, 40 / min(height, width))
    assert min(image.shape[:2]) == 40 and image.shape[:2] == (round(height * scale), round(width * scale))
    small = cv2.resize(source.picture(number, height, width), image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(float) - small).mean() < 4
  report = json.loads((folder / "report.json").read_text())
  assert report["converted"] == {"png": 27} and not report["skipped"]
  assert report["remarks"] == ["3 images dropped, since they carry one of 3 labels with fewer than 3 images"]


def test_counts_are_refused_or_kept(source, tmp_path):
  report = json.loads((source.prepare(tmp_path) / "report.json").read_text())
  assert report["deviations"] == [
      "images: 30, published 109237", "images dropped: 3, published 37", "labels: 15, published 1103", "culture labels: 4, published 398",
      "tag labels: 10, published 705"]
  with pytest.raises(InputError, match="images: 30, published 109237"):
    source.prepare(tmp_path, allow_deviations=False, overwrite=True)


def test_the_default_size_keeps_the_original(tmp_path, picture):
  """Shorter side 300; one picture 17 times as wide as high, one as narrow as any."""
  folder = tmp_path / "imet"
  (folder / "train").mkdir(parents=True)
  sizes = [(300, 5_310), (7_531, 300), *((300, 300 + 10 * number) for number in range(8))]
  for number, size in enumerate(sizes):
    (folder / "train" / f"{number:016x}.png").write_bytes(images.encode_png(picture(number, *size)))
  (folder / "labels.csv").write_text("attribute_id,attribute_name\n0,culture::one\n1,tag::other\n")
  (folder / "train.csv").write_text("id,attribute_ids\n" + "".join(f"{number:016x},0 1\n" for number in range(10)))
  path = prepare("imet2019", source=folder, data_dir=tmp_path / "data", progress=False, allow_deviations=True)
  assert path == tmp_path / "data" / "imet2019" / "300x300" / "1.0.0"
  numbers = [number for rows in imet2019.split_rows(10).values() for number in rows]
  dataset = registry.open_dataset("imet2019", tmp_path / "data")
  for number, sample in zip(numbers, samples_of(tmp_path), strict=True):
    assert images.decode_jpeg(sample["image"]).shape[:2] == sizes[number]
  spec = pipeline.InputSpec(resize=(224, 224), size=(224, 224), crop="none")
  assert pipeline.train_dataset(dataset.source("train+val+test"), spec, batch_size=10, seed=1)[0]["image"].shape == (10, 224, 224, 3)


def test_pictures_with_alpha_are_laid_over_white(source, tmp_path):
  number = expected_splits(source)["train"][0]
  rgb = source.picture(number, 40, 60)
  alpha = np.zeros(rgb.shape[:2], np.uint8)
  alpha[:, 20:] = 255
  cv2.imwrite(str(source.folder / "train" / f"{source.ids[number]}.png"), np.dstack([rgb[..., ::-1], alpha]))
  report = json.loads((source.prepare(tmp_path) / "report.json").read_text())
  assert report["converted"] == {"png": 27, "rgb+alpha": 1}
  image = images.decode_jpeg(samples_of(tmp_path)[0]["image"])
  assert image[:, :10].min() > 245 and np.abs(image[:, 30:].astype(float) - rgb[:, 30:]).mean() < 4


def test_tensorflow_datasets_can_read_it(source, tmp_path):
  theirs = tfds.builder_from_directory(source.prepare(tmp_path)).as_data_source("test")
  for one, two in zip(theirs, samples_of(tmp_path)[-3:], strict=True):
    for key in ("label", "id"):
      np.testing.assert_array_equal(one[key], two[key])


def test_other_columns_empty_lines_and_a_byte_order_mark_do_not_matter(source, tmp_path):
  source.prepare(tmp_path)
  before = [(sample["image"], sample["label"].tolist()) for sample in samples_of(tmp_path)]
  source.rows = ["\ufeffsize,attribute_ids,id", *(f"9,{row.split(',')[1]},{row.split(',')[0]}" for row in source.rows[1:]), "", ""]
  source.prepare(tmp_path, overwrite=True)
  assert before == [(sample["image"], sample["label"].tolist()) for sample in samples_of(tmp_path)]


def test_a_label_twice_in_a_row_counts_once(source, tmp_path):
  source.rows[1 + 3] += f" {ONCE} {ONCE}"  # so it still has one image
  report = json.loads((source.prepare(tmp_path) / "report.json").read_text())
  assert report["remarks"][0].startswith("3 images dropped")


# What goes wrong.


def fails(source, tmp_path, message):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert not [path for path in (tmp_path / "data" / "imet2019").rglob("*") if path.is_file()]


@pytest.mark.parametrize("line, text, message", [
    (0, "id,labels", r"train.csv line 1: no column attribute_ids; expected id,attribute_ids, got id,labels"),
    (0, "name,attribute_ids", r"train.csv line 1: no column id; expected"),
    (4, "0123456789abcdef,4 15", r"train.csv line 5: attribute id '15' is not in labels.csv, which has 0 to 14"),
    (4, "0123456789abcdef,-1", r"train.csv line 5: attribute id '-1' is not in labels.csv"),
    (4, "0123456789abcdef,4;5", r"train.csv line 5: attribute id '4;5' is not in labels.csv"),
    (4, "0123456789abcdef,04", r"train.csv line 5: attribute id '04' is not in labels.csv"),
    (4, "0123456789abcdef,", r"train.csv line 5: image 0123456789abcdef has no attribute_ids"),
    (4, "0123456789abcdef", r"train.csv line 5: expected 2 values, got 1"),
    (4, "0123456789abcdef,1,2", r"train.csv line 5: expected 2 values, got 3"),
    (4, ",1 2", r"train.csv line 5: an empty id"),
    (4, "../0123456789abcdef,4", r"train.csv line 5: '../0123456789abcdef.png' is not a path inside the data folder"),
    (4, "/etc/picture,4", r"train.csv line 5: '/etc/picture.png' is not a path inside the data folder"),
    (4, '"0123,4', r"train.csv: not a CSV text"),
    (5, "ffff,4", r"1 of 27 files that the annotations name are missing, first train/ffff.png"),
])
def test_faults_of_the_images_list(source, tmp_path, line, text, message):
  source.rows[line] = text
  fails(source, tmp_path, message)


@pytest.mark.parametrize("line, text, message", [
    (0, "attribute_id,name", r"labels.csv line 1: no column attribute_name; expected attribute_id,attribute_name, got attribute_id,name"),
    (3, "7,culture::x", r"labels.csv line 4: expected attribute_id 2, got '7'; ids count the rows from 0"),
    (3, "1,culture::x", r"labels.csv line 4: expected attribute_id 2, got '1'"),
    (3, "two,culture::x", r"labels.csv line 4: expected attribute_id 2, got 'two'"),
    (3, "2,", r"labels.csv line 4: a label without a name"),
    (3, "2,tag::men", r"labels.csv line 6: 'tag::men' has an id before, 2"),
])
def test_faults_of_the_labels_list(source, tmp_path, line, text, message):
  source.labels[line] = text
  fails(source, tmp_path, message)


def test_an_image_with_two_rows(source, tmp_path):
  source.rows.append(source.rows[2])
  fails(source, tmp_path, f"train.csv line 32: image {source.ids[1]} has a row before, line 3")


def test_lists_without_rows(source, tmp_path):
  rows, source.rows = source.rows, source.rows[:1]
  fails(source, tmp_path, "train.csv: no rows, so there is nothing to train on")
  source.rows = rows[:3]
  fails(source, tmp_path, "train.csv: 0 images are left of 2")
  source.labels = source.labels[:1]
  fails(source, tmp_path, "labels.csv: no labels")
  source.labels = []
  fails(source, tmp_path, "labels.csv line 1: no column attribute_id; .* got nothing")


@pytest.mark.parametrize("name", ["labels.csv", "train.csv"])
def test_missing_and_foreign_lists(source, tmp_path, name):
  source.write()
  (source.folder / name).write_bytes(b"\xff\xfe\x00binary")
  with pytest.raises(InputError, match=f"{name}: not a CSV text"):
    prepare("imet2019", source=source.folder, data_dir=tmp_path / "data", progress=False)
  (source.folder / name).unlink()
  with pytest.raises(InputError, match=f"{name}: missing; --source must be the folder that holds labels.csv, train.csv and train/"):
    prepare("imet2019", source=source.folder, data_dir=tmp_path / "data", progress=False)


def test_missing_images(source, tmp_path):
  (source.folder / "train").rename(source.folder / "pictures")
  fails(source, tmp_path, "no image folder; expected train/ or train.zip beside labels.csv and train.csv")


def test_damaged_images_are_skipped_or_stop(source, tmp_path):
  number = expected_splits(source)["train"][4]
  path = source.folder / "train" / f"{source.ids[number]}.png"
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(InputError, match=f"1 or more of 27 photos of imet2019 are unreadable.*{source.ids[number]}.png .truncated PNG"):
    source.prepare(tmp_path)
  folder = source.prepare(tmp_path, max_bad=0.1)
  assert json.loads((folder / "report.json").read_text())["samples"] == {"train": 20, "val": 3, "test": 3}
