"""Malformed downloads at the command line: status 2, one clear line, nothing half-written."""

import json
import re
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import scipy.io

from attr_jax import cli
from attr_jax.data import images

from test_celeba import CelebaSource
from test_coco import CocoSource
from test_helen import HelenSource
from test_helen import LISTS
from test_imet2019 import ImetSource
from test_own_photos import OwnSource

CASES = {}


def case(name, message):
  """Registers a function (source) that breaks what a builder reads; `message` is found in the one line on stderr."""
  def register(function):
    CASES[function.__name__] = name, message, function
    return function
  return register


def prepare(capsys, tmp_path, name, folder, *options):
  """(status, stderr) of the command line."""
  with pytest.raises(SystemExit) as ended:
    cli.main(["prepare", name, f"--source={folder}", f"--data-dir={tmp_path / 'data'}", "--allow-deviations", *options])
  return ended.value.code, capsys.readouterr().err


def lines_of(stderr):
  """What is said on stderr, without the progress bar."""
  lines = [line.strip() for line in re.split(r"[\r\n]+", stderr)]
  return [line for line in lines if line and not re.search(r"\d+%\|.*img", line)]


def png_of(height, width):
  """A small PNG whose header states this size; the pixels are not there."""
  whole = images.encode_png(np.zeros((1, 1, 3), np.uint8))
  header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + whole[24:29]
  return whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]


# MAT files.


@case("pa100k", r"annotation/annotation\.mat: not a readable MAT file")
def truncated_mat(source):
  path = source.folder / "annotation" / "annotation.mat"
  path.write_bytes(path.read_bytes()[:300])


@case("pa100k", r"annotation\.mat: not a readable MAT file")
def truncated_mat_of_version_7_3(source):
  path = source.folder / "annotation" / "annotation.mat"
  with h5py.File(path, "w", userblock_size=512) as file:
    file["attributes"] = np.zeros(2000)
  path.write_bytes(path.read_bytes()[:2000])


@case("pa100k", r"annotation\.mat: variables test_label are missing")
def missing_variable(source):
  del source.content["test_label"]
  source.save()


@case("pa100k", r"annotation\.mat train_label: expected numbers, got object")
def texts_as_labels(source):
  source.content["train_label"] = np.repeat(source.cells(list("010101")), 3, axis=1)
  source.save()


@case("pa100k", r"annotation\.mat train_label: expected 6 rows .* got shape \(6, 4\)")
def too_many_columns(source):
  source.content["train_label"] = np.zeros((6, 4), np.uint8)
  source.save()


@case("pa100k", r"annotation\.mat val_label row 2 column 1: expected 0 or 1, got 7")
def label_7(source):
  source.content["val_label"][2, 1] = 7
  source.save()


@case("pa100k", r"annotation\.mat train_images_name row 3: '\.\./\.\./secret\.jpg' is not a path inside")
def path_that_leaves_the_folder(source):
  source.content["train_images_name"][3, 0] = "../../secret.jpg"
  source.save()


@case("pa100k", r"annotation\.mat: variables attributes.* are missing")
def another_mat_file(source):
  scipy.io.savemat(source.folder / "annotation" / "annotation.mat", {"x": 1})


# JSON files.


@case("wider_attribute", r"wider_attribute_test\.json: not valid JSON")
def truncated_json(source):
  path = source.folder / "wider_attribute_test.json"
  path.write_bytes(path.read_bytes()[:-30])


@case("wider_attribute", r"wider_attribute_test\.json: not valid JSON")
def endless_nesting(source):
  (source.folder / "wider_attribute_test.json").write_text("[" * 200_000)


@case("wider_attribute", r"wider_attribute_trainval\.json images\[0\] \(.*\) targets\[1\] bbox: expected four finite numbers")
def box_of_a_number_too_large(source):
  source.trainval["images"][0]["targets"][1]["bbox"] = [1e308, 0, 1e308, 5]
  source.save()


@case("wider_attribute", r"wider_attribute_trainval\.json images\[0\] \(.*\) targets\[0\] bbox: expected four finite numbers")
def box_of_400_digits(source):
  source.trainval["images"][0]["targets"][0]["bbox"] = [0, 0, 10**400, 5]
  source.save()


@case("wider_attribute", r"files that the annotations name are missing, first Image/train/x{5}")
def name_too_long_for_a_file(source):
  source.trainval["images"][0]["file_name"] = f"train/{'x' * 5000}.jpg"
  source.save()


@case("coco", r"instances_train2017\.json images\[1\] id: 30 is the id of an earlier photo")
def duplicated_id(source):
  source.train["images"][1]["id"] = 30


@case("coco", r"instances_val2017\.json annotations\[1\]: category_id 7000 is not the id of any")
def unknown_category(source):
  source.val["annotations"][1]["category_id"] = 7000


@case("coco", r"instances_train2017\.json annotations\[2\] image_id: expected an integer, got '9'")
def number_as_text(source):
  source.train["annotations"][2]["image_id"] = "9"


# Tables and lists.


@case("imet2019", r"train\.csv line 1: no column attribute_ids")
def missing_column(source):
  source.rows[0] = "id,labels"


@case("imet2019", r"labels\.csv line 1: no column attribute_id.* got nothing")
def empty_csv(source):
  source.labels = []


@case("imet2019", r"train\.csv line 4: image \w+ has a row before, line 3")
def duplicated_row(source):
  source.rows[3] = source.rows[2]


@case("imet2019", r"train\.csv line 4: '\.\./a\.png' is not a path inside")
def id_that_leaves_the_folder(source):
  source.rows[3] = "../a,1"


@case("own_photos", r"labels\.csv line 3 hat: expected 1, 0 or nothing \(unknown\), got '7'")
def value_7(source):
  source.lines[2] = f"{source.files[1]},7,0,1"


@case("own_photos", r"labels\.csv line 3: expected 4 values, as the header has, got 2")
def row_too_short(source):
  source.lines[2] = f"{source.files[1]},1"


@case("own_photos", r"labels\.csv line 2 image: 'C:/photos/a\.jpg' is not a path inside")
def absolute_path(source):
  source.lines[1] = "C:/photos/a.jpg,1,0,1"


@case("celeba_aligned", r"list_attr_celeba\.txt line 4 Bangs: expected 1 or -1, got 7")
def attribute_7(source):
  fields = source.lists["Anno/list_attr_celeba"][3].split()
  source.lists["Anno/list_attr_celeba"][3] = " ".join([*fields[:2], "7", *fields[3:]])


@case("celeba_aligned", r"list_landmarks_align_celeba\.txt line 3: expected 10 values after 000001\.jpg, got 9")
def landmark_missing(source):
  lines = source.lists["Anno/list_landmarks_align_celeba"]
  lines[2] = lines[2].rpartition(" ")[0]


@case("celeba_aligned", r"list_attr_celeba\.txt line 1: says inf rows, there are 8")
def count_of_5000_digits(source):
  source.lists["Anno/list_attr_celeba"][0] = "9" * 5000


@case("celeba_aligned", r"list_eval_partition\.txt: no text")
def bytes_that_are_no_text(source):
  source.write()
  (source.folder / "Eval" / "list_eval_partition.txt").write_bytes(b"\xff\xfe\x00\x81" * 20)
  del source.lists["Eval/list_eval_partition"]


@case("helen", r"tuning\.txt line 1: 10_1 is also in .*exemplars\.txt line 1")
def photo_in_two_splits(source):
  source.lists["val"] = ["1 , 10_1"]


# Images.


@case("imet2019", r"27 photos of imet2019 are unreadable.* 000e4a6f3b1c9dpn\.png \(50000x50000 pixels, more than the limit of 1")
def image_of_50000_x_50000(source):
  (source.folder / "train" / "000e4a6f3b1c9dpn.png").write_bytes(png_of(50_000, 50_000))


@case("imet2019", r"27 photos of imet2019 are unreadable.* 0012\.png \(not a JPEG, PNG, WebP or BMP image\)")
def bytes_that_are_no_image(source):
  (source.folder / "train" / "0012.png").write_bytes(bytes(range(256)))


@case("helen", r"photos of helen are unreadable.* images/10_1\.jpg \(10_1_lbl03\.png: .*pixels, more than the limit")
def mask_of_50000_x_50000(source):
  (source.root / "labels" / "10_1" / "10_1_lbl03.png").write_bytes(png_of(50_000, 50_000))


# Archives.


def pack(source, *entries):
  """Puts entries in the place of the folder of pictures."""
  (source.folder / "train").rename(source.folder / "unpacked")
  with zipfile.ZipFile(source.folder / "train.zip", "w", zipfile.ZIP_DEFLATED) as file:
    for name, data in entries:
      file.writestr(name, data)


@case("imet2019", r"train\.zip: entry '0\.png' unpacks .* bytes, more than 200 times as many: a bomb")
def zip_bomb(source):
  pack(source, ("0.png", bytes(50_000_001)))


@case("imet2019", r"train\.zip: entry '\.\./\.\./0\.png' leaves its folder")
def zip_that_leaves_its_folder(source):
  pack(source, ("../../0.png", b"x"))


@case("imet2019", r"train\.zip: not a readable zip archive")
def truncated_zip(source):
  pack(source, ("0.png", bytes(1000)))
  path = source.folder / "train.zip"
  path.write_bytes(path.read_bytes()[:-20])


@case("imet2019", r"train\.tgz: a compressed tar cannot be read in place")
def compressed_tar(source):
  (source.folder / "train").rename(source.folder / "unpacked")
  (source.folder / "train.tgz").write_bytes(b"\x1f\x8b\x08")


def write(source, name):
  """Writes the annotation files of a source once they are broken."""
  if name == "coco":
    for split in ("train", "val"):
      (source.folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(getattr(source, split)))
  elif name == "helen":
    for split, file in LISTS.items():
      (source.root / file).write_text("".join(f"{line}\n" for line in source.lists[split]))
  elif hasattr(source, "write"):
    source.write()


@pytest.mark.parametrize("fault", CASES)
def test_malformed_input_is_one_line(capsys, tmp_path, picture, request, fault):
  name, message, break_it = CASES[fault]
  folder = tmp_path / name
  sources = {
      "pa100k": lambda: request.getfixturevalue("pa100k_source")(),
      "wider_attribute": lambda: request.getfixturevalue("wider_source")(),
      "coco": lambda: CocoSource(folder, picture, "2017"),
      "imet2019": lambda: ImetSource(folder, picture),
      "own_photos": lambda: OwnSource(folder, picture),
      "celeba_aligned": lambda: CelebaSource(folder, picture),
      "helen": lambda: HelenSource(folder, picture),
  }
  source = sources[name]()
  break_it(source)
  write(source, name)
  before = sorted(path for path in source.folder.rglob("*"))
  status, stderr = prepare(capsys, tmp_path, name, source.folder, "--size=40")
  assert status == 2, stderr
  line, = lines_of(stderr)
  assert line.startswith("attr-jax: ") and re.search(message, line), line
  assert "Traceback" not in stderr and "Error" not in line
  assert not list((tmp_path / "data").rglob("*"))
  assert sorted(path for path in source.folder.rglob("*")) == before


def test_there_are_enough_of_them():
  assert len(CASES) >= 20 and len({name for name, *_ in CASES.values()}) >= 5


def test_a_source_that_is_whole_is_prepared(capsys, tmp_path, picture):
  """The cases fail by what they break, not by the command."""
  source = ImetSource(tmp_path / "imet2019", picture)
  source.write()
  status, stderr = prepare(capsys, tmp_path, "imet2019", source.folder, "--size=40")
  assert status == 0, stderr


def test_a_huge_image_is_skipped_where_it_is_allowed(capsys, tmp_path, picture):
  source = ImetSource(tmp_path / "imet2019", picture)
  image_of_50000_x_50000(source)
  source.write()
  status, stderr = prepare(capsys, tmp_path, "imet2019", source.folder, "--size=40", "--max-bad=0.2")
  assert status == 0, stderr
  report, = (tmp_path / "data").rglob("report.json")
  skipped, = json.loads(report.read_text())["skipped"]
  assert skipped["file"] == "000e4a6f3b1c9dpn.png" and "limit" in skipped["reason"]
