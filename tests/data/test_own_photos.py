"""A folder of one's own photos: tables as spreadsheets write them, splits that stay, boxes, what is refused."""

import collections
import hashlib
import json

import cv2
import numpy as np
import pytest

from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import registry
from attr_jax.data.builders import own_photos
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

from helpers import REPOSITORY

NAMES = ("hat", "long sleeves", "Brille")
COUNT = 32
WORDS = {(1, True): "1", (0, True): "0", (0, False): ""}


def file_of(number):
  """Photos of four kinds in three folders, one of them the source folder itself."""
  folder, suffix = ("", "summer/", "winter 2024/day 1/")[number % 3], (".jpg", ".png", ".JPG", ".webp")[number % 4]
  return f"{folder}IMG_{number:04d}{suffix}"


def encode(image, name):
  if name.endswith(".webp"):
    return cv2.imencode(".webp", image[..., ::-1])[1].tobytes()
  return images.encode_png(image) if name.endswith(".png") else images.encode_jpeg(image, quality=95)


class OwnSource:
  """A folder of 32 photos. Change `lines` before `prepare`, which writes them as labels.csv."""

  def __init__(self, folder, picture):
    self.folder, self.picture = folder, picture
    rng = np.random.default_rng(4)
    self.known = rng.random((COUNT, len(NAMES))) < 0.8
    self.label = (rng.random((COUNT, len(NAMES))) < 0.5) & self.known
    self.files = [file_of(number) for number in range(COUNT)]
    self.cells = [",".join(WORDS[int(one), bool(two)] for one, two in zip(*rows)) for rows in zip(self.label, self.known)]
    self.lines = [f"image,{','.join(NAMES)}", *(f"{file},{cells}" for file, cells in zip(self.files, self.cells))]
    for number in range(COUNT):
      self.add(self.files[number], number, self.size(number))

  @staticmethod
  def size(number):
    return 40 + number, 70 - number

  def add(self, name, seed, size=(40, 50)):
    path = self.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(self.picture(seed, *size), name))

  def add_splits(self):
    """A column of splits: six tenths train, the rest in turn."""
    self.splits = [("train", "train", "train", "val", "test")[number % 5] for number in range(COUNT)]
    self.lines = [f"{self.lines[0]},split", *(f"{line},{split}" for line, split in zip(self.lines[1:], self.splits))]

  def add_boxes(self):
    """Two boxes per photo; the second one reaches out of it."""
    rows = [row for line in self.lines[1:] for row in (f"3,5,20,30.5,{line}", f"-4,10.5,25,500,{line}")]
    self.lines = [f"x,y,width,height,{self.lines[0]}", *rows]

  def write(self, data=None):
    (self.folder / "labels.csv").write_bytes("".join(f"{line}\n" for line in self.lines).encode() if data is None else data)

  def prepare(self, tmp_path, data=None, **options):
    self.write(data)
    return prepare("own_photos", source=self.folder, data_dir=tmp_path / "data", **{"progress": False, "size": 32, **options})


@pytest.fixture
def source(tmp_path, picture):
  return OwnSource(tmp_path / "photos", picture)


def dataset_of(tmp_path):
  return registry.open_dataset("own_photos", tmp_path / "data")


def samples_of(tmp_path):
  dataset = dataset_of(tmp_path)
  return {split: list(dataset.source(split)) for split in dataset.info.splits}


def expected_split(name):
  """The last digit of the first eight bytes of the SHA-256 of the path."""
  return {0: "val", 1: "test"}.get(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 10, "train")


def numbers_of(source, split_of):
  """Split -> numbers of its photos in the order of the table."""
  found = {split: [number for number in range(COUNT) if split_of(number) == split] for split in ("train", "val", "test")}
  assert all(found.values())
  return found


# The split.


def test_the_split_is_that_of_the_hash():
  names = [file_of(number) for number in range(3000)]
  splits = [own_photos.drawn_split(name) for name in names]
  assert splits == [expected_split(name) for name in names]
  shares = {split: count / 3000 for split, count in collections.Counter(splits).items()}
  assert shares == pytest.approx({"train": 0.8, "val": 0.1, "test": 0.1}, abs=0.02)


def test_the_split_is_the_same_in_every_version():
  splits = [own_photos.drawn_split(f"IMG_{number}.jpg") for number in range(12)]
  assert splits == ["train", "test", *["train"] * 7, "val", "train", "train"]


def test_photos_that_are_added_move_no_other(source, tmp_path):
  source.prepare(tmp_path)
  before = {sample["image"]: split for split, samples in samples_of(tmp_path).items() for sample in samples}
  for number in range(60, 80):
    source.add(f"new/{number}.jpg", number)
    source.lines.insert(1 + number % 7, f"new/{number}.jpg,1,0,")
  source.prepare(tmp_path, overwrite=True)
  after = {sample["image"]: split for split, samples in samples_of(tmp_path).items() for sample in samples}
  assert len(before) == COUNT and len(after) == COUNT + 20 and before.items() <= after.items()


# What comes out.


def check(source, tmp_path, numbers):
  """All samples are those of the table, in its order within each split."""
  dataset, place = dataset_of(tmp_path), 0
  assert dataset.info.splits == {split: len(found) for split, found in numbers.items()}
  assert dataset.info.label_names == NAMES and dataset.info.label_groups == {"other": NAMES}
  for split, samples in samples_of(tmp_path).items():
    for number, sample in zip(numbers[split], samples, strict=True):
      assert set(sample) == {"image", "label", "known", "id"} and sample["id"] == place
      assert sample["label"].tolist() == source.label[number].tolist() and sample["known"].tolist() == source.known[number].tolist()
      image = images.decode_jpeg(sample["image"])
      small = cv2.resize(source.picture(number, *source.size(number)), image.shape[1::-1], interpolation=cv2.INTER_AREA)
      assert np.abs(image.astype(float) - small).mean() < 8
      place += 1


def test_thirty_photos_on_their_way_to_the_batch(source, tmp_path):
  folder = source.prepare(tmp_path)
  assert folder == tmp_path / "data" / "own_photos" / "32x32" / "1.0.0"
  numbers = numbers_of(source, lambda number: expected_split(source.files[number]))
  check(source, tmp_path, numbers)
  info = dataset_of(tmp_path).info
  train = numbers["train"]
  np.testing.assert_allclose(info.positive_ratio, source.label[train].sum(axis=0) / source.known[train].sum(axis=0))
  np.testing.assert_allclose(info.known_ratio, source.known[train].mean(axis=0))
  report = json.loads((folder / "report.json").read_text())
  assert report["converted"] == {"png": 8, "webp": 8} and report["deviations"] == [] and report["skipped"] == []

  dataset = dataset_of(tmp_path)
  spec = pipeline.InputSpec(resize=(32, 32), size=(28, 28), crop_sizes=(32, 28))
  batch = pipeline.train_dataset(dataset.source("train"), spec, batch_size=8, seed=0)[0]
  assert batch["image"].shape == (8, 28, 28, 3) and batch["label"].shape == batch["known"].shape == (8, 3)
  for label, known, id_ in zip(batch["label"], batch["known"], batch["id"]):
    assert label.tolist() == source.label[train[id_]].tolist() and known.tolist() == source.known[train[id_]].tolist()
  assert pipeline.eval_dataset(dataset.source("test"), spec, batch_size=4)[0]["id"][0] == len(train) + len(numbers["val"])


def test_the_table_may_say_the_split(source, tmp_path):
  source.add_splits()
  source.prepare(tmp_path)
  check(source, tmp_path, numbers_of(source, lambda number: source.splits[number]))


@pytest.mark.parametrize("left_out", ["val", "test"])
def test_a_given_split_may_be_empty(source, tmp_path, left_out):
  source.add_splits()
  source.lines = [line for line in source.lines if not line.endswith(f",{left_out}")]
  source.prepare(tmp_path)
  assert set(dataset_of(tmp_path).info.splits) == {"train", "val", "test"} - {left_out}


def test_the_default_size(source, tmp_path):
  assert source.prepare(tmp_path, size=None) == tmp_path / "data" / "own_photos" / "256x256" / "1.0.0"
  info = dataset_of(tmp_path).info
  assert (info.resize, info.image_size) == ((256, 256), (224, 224))


def plain(lines):
  return "".join(f"{line}\n" for line in lines).encode()


def excel(lines):
  """Semicolons, a mark of byte order, carriage returns, backslashes, empty rows at the end."""
  lines = [line.replace(",", ";").replace("/", "\\") for line in lines]
  return b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in [*lines, ";;;", ";;;"]).encode()


def padded(lines):
  return "".join(f"{line.replace(',', ' , ')}  \n \n" for line in ["", *lines]).encode()


def quoted(lines):
  return "\n".join(", ".join(f'"{cell}"' for cell in line.split(",")) for line in lines).encode()


def old_mac(lines):
  return "\r".join(lines).encode()


def dotted(lines):
  return plain([lines[0], *(f"./{line}".replace("summer/", "summer//") for line in lines[1:])])


def other_order(lines):
  return plain(",".join([*line.split(",")[1:], line.split(",")[0]]) for line in lines)


@pytest.mark.parametrize("write", [excel, padded, quoted, old_mac, dotted, other_order])
def test_tables_as_programs_write_them(source, tmp_path, write):
  source.prepare(tmp_path, write(source.lines))
  check(source, tmp_path, numbers_of(source, lambda number: expected_split(source.files[number])))


def test_names_and_paths_in_any_script(source, tmp_path):
  source.add("Fotos/Müller (2).jpg", 50)
  source.lines[0] = "image,hat,Ärmel lang,眼镜"
  source.lines.append("Fotos\\Müller (2).jpg,1,1,1")
  source.prepare(tmp_path, excel(source.lines))
  info = dataset_of(tmp_path).info
  assert info.label_names == ("hat", "Ärmel lang", "眼镜") and sum(info.splits.values()) == COUNT + 1


# Boxes.


def test_a_row_is_a_person_where_there_are_boxes(source, tmp_path):
  source.add_boxes()
  folder = source.prepare(tmp_path)
  numbers = numbers_of(source, lambda number: expected_split(source.files[number]))
  assert dataset_of(tmp_path).info.label_names == NAMES
  for split, samples in samples_of(tmp_path).items():
    rows = [(number, box) for number in numbers[split] for box in (0, 1)]
    for (number, box), sample in zip(rows, samples, strict=True):
      assert sample["label"].tolist() == source.label[number].tolist()
      height, width = source.size(number)
      left, top, right, bottom = ((3, 5, 23, 36), (0, 10, 21, height))[box]
      image = images.decode_jpeg(sample["image"])
      crop = source.picture(number, height, width)[top:bottom, left:min(right, width)]
      crop = cv2.resize(crop, image.shape[1::-1], interpolation=cv2.INTER_AREA)
      assert np.abs(image.astype(float) - crop).mean() < 8
  assert json.loads((folder / "report.json").read_text())["clipped_boxes"] == COUNT


def test_a_box_beside_its_photo_is_dropped_and_told(source, tmp_path):
  source.add_boxes()
  source.lines[1] = source.lines[1].replace("3,5,20,30.5", "900,5,20,30.5")
  report = json.loads((source.prepare(tmp_path) / "report.json").read_text())
  assert report["dropped_boxes"] == 1 and sum(report["samples"].values()) == 2 * COUNT - 1


# What goes wrong.


def fails(source, tmp_path, message, data=None, **options):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path, data, **options)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


@pytest.mark.parametrize("line, text, message", [
    (0, "file,hat,long sleeves,Brille", r"labels.csv line 1: no column image; expected image,<attribute>,..., got file,hat,"),
    (0, "image,hat,hat,Brille", r"labels.csv line 1: columns 2 and 3 are both named hat"),
    (0, "image,hat,,Brille", r"labels.csv line 1: column 3 has no name"),
    (0, "image,split,hat,x", r"labels.csv line 1: no column y; a box needs x, y, width, height, all four or none"),
    (3, "summer/IMG_0001.png,1,7,0", r"labels.csv line 4 long sleeves: expected 1, 0 or nothing \(unknown\), got '7'"),
    (3, "summer/IMG_0001.png,1,-1,0", r"labels.csv line 4 long sleeves: expected 1, 0 or nothing \(unknown\), got '-1'"),
    (3, "summer/IMG_0001.png,yes,1,0", r"labels.csv line 4 hat: .* got 'yes'"),
    (3, "summer/IMG_0001.png,1.0,1,0", r"labels.csv line 4 hat: .* got '1.0'"),
    (3, "summer/IMG_0001.png,1,0", r"labels.csv line 4: expected 4 values, as the header has, got 3"),
    (3, "summer/IMG_0001.png,1,0,1,", r"labels.csv line 4: expected 4 values, as the header has, got 5"),
    (3, ",1,0,1", r"labels.csv line 4 image: '' is not a path inside the data folder"),
    (3, "../secret.jpg,1,0,1", r"labels.csv line 4 image: '../secret.jpg' is not a path inside the data folder"),
    (3, "a\\..\\..\\secret.jpg,1,0,1", r"labels.csv line 4 image: 'a/../../secret.jpg' is not a path inside the data folder"),
    (3, "/etc/passwd,1,0,1", r"labels.csv line 4 image: '/etc/passwd' is not a path inside the data folder"),
    (3, "C:\\photos\\a.jpg,1,0,1", r"labels.csv line 4 image: 'C:\\\\photos\\\\a.jpg' is not a path inside the data folder"),
    (3, "\\\\server\\photos\\a.jpg,1,0,1", r"labels.csv line 4 image: .* is not a path inside the data folder"),
    (3, "IMG_0000.jpg,1,0,1", r"labels.csv line 4: IMG_0000.jpg has a row before, line 2"),
    (3, ".\\IMG_0000.jpg,1,0,1", r"labels.csv line 4: IMG_0000.jpg has a row before, line 2"),
    (3, 'IMG_0000.jpg,"1,0,1', r"labels.csv line 33: not CSV \(unexpected end of data\)"),
    (3, "summer/none.png,1,0,1", r"photos: 1 of 32 files that the annotations name are missing, first summer/none.png"),
    (3, "summer,1,0,1", r"photos: 1 of 32 files that the annotations name are missing, first summer"),
])
def test_faults_of_the_table(source, tmp_path, line, text, message):
  source.lines[line] = text
  fails(source, tmp_path, message)


@pytest.mark.parametrize("data, message", [
    (b"", r"labels.csv: empty; expected a header image,<attribute>,... and a row per photo"),
    (b"\xef\xbb\xbf\r\n;;\r\n", r"labels.csv: empty; expected a header"),
    (b"image,hat\n", r"labels.csv: no rows below the header; expected"),
    (b"image\na.jpg\n", r"labels.csv line 1: no attribute columns; expected image,<attribute>,..., got image"),
    (b"\n\nimage;split\na.jpg;train\n", r"labels.csv line 3: no attribute columns; .* got image,split"),
    (b"image\that\na.jpg\t1\n", r"labels.csv line 1: no column image"),
    ("image,hat\na.jpg,1\nMüller.jpg,1\n".encode("latin-1"), r"labels.csv line 3: not UTF-8; save the table as 'CSV UTF-8'"),
    ("image,hat\na.jpg,1\n".encode("utf-16"), r"labels.csv line 1: not UTF-8"),
])
def test_tables_that_are_none(source, tmp_path, data, message):
  fails(source, tmp_path, message, data)


@pytest.mark.parametrize("text, message", [
    ("3,5,,30", r"labels.csv line 2 width: expected a number of pixels such as 12 or 12.5, got ''"),
    ("3,5,nan,30", r"labels.csv line 2 width: expected a number of pixels such as 12 or 12.5, got 'nan'"),
    ("3,five,20,30", r"labels.csv line 2 y: expected a number of pixels such as 12 or 12.5, got 'five'"),
    ("3,5,0,30", r"labels.csv line 2: a box needs a width and a height above 0, got 0 and 30"),
    ("3,5,20,-30", r"labels.csv line 2: a box needs a width and a height above 0, got 20 and -30"),
    ("-4,10.5,25.0,500", r"labels.csv line 3: IMG_0000.jpg has a row with this box before, line 2"),
])
def test_faults_of_the_boxes(source, tmp_path, text, message):
  source.add_boxes()
  source.lines[1] = source.lines[1].replace("3,5,20,30.5", text)
  fails(source, tmp_path, message)


def test_faults_of_a_given_split(source, tmp_path):
  source.add_splits()
  lines = list(source.lines)
  source.lines[4] = lines[4].replace(",val", ",valid")
  fails(source, tmp_path, r"labels.csv line 5 split: expected train, val or test, got 'valid'")
  source.lines = [line.replace(",train", ",val") for line in lines]
  fails(source, tmp_path, "labels.csv: column split has no row of train, so there is nothing to train on")
  source.lines = lines
  source.add_boxes()
  source.lines[2] = source.lines[2].replace(",train", ",test")
  fails(source, tmp_path, "labels.csv line 3 split: IMG_0000.jpg is in train by line 2; all people of a photo belong to one split")


@pytest.mark.parametrize("left_out, message", [
    (("val",), r"\d+ photos are too few to split them 8:1:1 by their paths, none came to val; add photos .44 more"),
    (("train", "test"), r"none came to train and test; .* or a column split of train, val and test"),
])
def test_too_few_photos_for_a_split(source, tmp_path, left_out, message):
  source.lines = [source.lines[0], *(line for line in source.lines[1:] if expected_split(line.split(",")[0]) not in left_out)]
  fails(source, tmp_path, message)


def test_enough_is_enough():
  assert 0.9**own_photos._ENOUGH < 0.01 < 0.9**(own_photos._ENOUGH - 1)


def test_missing_table_and_folder(source, tmp_path):
  with pytest.raises(InputError, match="labels.csv: missing; --source must be the folder that holds labels.csv and the photos"):
    prepare("own_photos", source=source.folder, data_dir=tmp_path / "data", progress=False)
  with pytest.raises(InputError, match="no such folder; --source must be the folder that holds the files of own_photos"):
    prepare("own_photos", source=tmp_path / "nowhere", data_dir=tmp_path / "data", progress=False)


def test_all_missing_photos_are_counted(source, tmp_path):
  for number in range(1, 20):
    (source.folder / source.files[number]).unlink()
  fails(source, tmp_path, "photos: 19 of 32 files .* missing, first .*, .*, .*, .*, ")


def test_what_is_no_photo_is_skipped_or_stops(source, tmp_path):
  number = next(number for number in range(COUNT) if expected_split(source.files[number]) == "train")
  (source.folder / source.files[number]).write_text("<html>")
  with pytest.raises(InputError, match="1 or more of 32 photos of own_photos are unreadable, --max-bad allows 0.001"):
    source.prepare(tmp_path)
  folder = source.prepare(tmp_path, max_bad=0.1)
  (skipped,) = json.loads((folder / "report.json").read_text())["skipped"]
  assert skipped == {"file": source.files[number], "reason": "text (HTML or XML) instead of an image", "samples": 1}


# Training.


@pytest.mark.slow
@pytest.mark.parametrize("boxes", [False, True])
def test_the_baseline_trains_on_it(source, tmp_path, boxes):
  from attr_jax import cli
  from attr_jax import train

  if boxes:
    source.add_boxes()
  source.prepare(tmp_path)
  config = cli.load_config(f"{REPOSITORY}/configs/baseline.py:dataset=own_photos,tiny", [f"--config.data.dir={tmp_path / 'data'}"])
  report = train.train_and_evaluate(config, tmp_path / "run", quiet=True)
  assert set(report["per_attribute"]) == set(NAMES)
  assert report["num_samples"] == dataset_of(tmp_path).info.splits["test"]
  assert "that of your photos" in (tmp_path / "run" / "model_card.md").read_text()
