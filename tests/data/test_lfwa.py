"""LFWA: both forms of MAT files, names and indices, what is refused."""

import json

import h5py
import numpy as np
import pytest
import scipy.io

from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import registry
from attr_jax.data.builders import mat_files
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

ATTRIBUTES = ["5 o Clock Shadow", "Bangs", "Young"]
PEOPLE = ["Ann_Lee", "Ann_Lee", "Bo_Ås", "Cy", "Cy", "Cy"]
FILES = [f"{person}\\{person}_{PEOPLE[:row + 1].count(person):04d}.jpg" for row, person in enumerate(PEOPLE)]
LABEL = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 1]])
TRAIN, TEST = [2, 1, 5], [6, 3]  # numbers from 1; the fourth photo is in neither


def cells(texts, shape):
  array = np.empty(len(texts), object)
  array[:] = texts
  return array.reshape(shape)


def save_v5(path, content):
  scipy.io.savemat(path, content)


def save_v73(path, content):
  """As MATLAB does: HDF5 behind a header of 512 bytes, arrays transposed, cells as references to UTF-16 codes."""
  with h5py.File(path, "w", userblock_size=512) as file:
    for name, values in content.items():
      values = np.asarray(values)
      if values.dtype != object:
        stored = file.create_dataset(name, data=values.T.astype(np.float64))
        stored.attrs["MATLAB_class"] = np.bytes_("double")
        continue
      stored = file.create_dataset(name, values.T.shape, h5py.ref_dtype)
      stored.attrs["MATLAB_class"] = np.bytes_("cell")
      for place, text in np.ndenumerate(values.T):
        inner = file.create_dataset(f"#refs#/{name}{'_'.join(map(str, place))}", data=write_cell(text))
        inner.attrs["MATLAB_class"] = np.bytes_("char" if isinstance(text, str) else "double")
        if text == "":
          inner.attrs["MATLAB_empty"] = np.uint8(1)
        stored[place] = inner.ref
  with open(path, "r+b") as file:
    file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_cell(value):
  if value == "":
    return np.array([0, 0], np.uint64)
  return np.frombuffer(value.encode("utf-16-le"), "<u2")[:, None] if isinstance(value, str) else np.array([[float(value)]])


class LfwaSource:
  """An LFWA folder; change `labels` or `indices` before `prepare` to break it."""

  def __init__(self, folder, picture, save):
    self.folder, self.save = folder, save
    self.labels = {"AttrName": cells(ATTRIBUTES, (1, -1)), "name": cells(FILES, (-1, 1)), "label": LABEL.astype(float)}
    self.indices = {"indices_img_train": np.array([TRAIN], float).T, "indices_img_test": np.array([TEST], float),
                    "indices_identity_train": np.ones((3, 1)), "indices_identity_test": np.ones((2, 1))}
    for row, name in enumerate(FILES):
      path = folder / "lfw" / name.replace("\\", "/")
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(images.encode_jpeg(picture(row, 250, 250), quality=95))

  def prepare(self, tmp_path, **options):
    self.save(self.folder / "lfw_att_40.mat", self.labels)
    self.save(self.folder / "indices_train_test.mat", self.indices)
    return prepare("lfwa", source=self.folder, data_dir=tmp_path / "data", **{"progress": False, "allow_deviations": True, **options})


@pytest.fixture(params=[save_v5, save_v73])
def any_source(request, tmp_path, picture):
  return LfwaSource(tmp_path / "lfwa", picture, request.param)


@pytest.fixture
def source(tmp_path, picture):
  return LfwaSource(tmp_path / "lfwa", picture, save_v73)


def test_both_forms_give_the_same(any_source, tmp_path, picture):
  folder = any_source.prepare(tmp_path)
  assert folder == tmp_path / "data" / "lfwa" / "218x178" / "1.0.0"
  dataset = registry.open_dataset("lfwa", tmp_path / "data")
  assert dataset.info.label_names == ("5_o_Clock_Shadow", "Bangs", "Young")
  assert dataset.info.label_groups == {"person": ("Young",), "hair": ("Bangs",), "beard": ("5_o_Clock_Shadow",)}
  assert dataset.info.splits == {"train": 3, "test": 2} and not dataset.info.has_landmarks
  samples = [*dataset.source("train"), *dataset.source("test")]
  for number, (row, sample) in enumerate(zip([1, 0, 4, 5, 2], samples, strict=True)):
    assert set(sample) == {"image", "label", "known", "id"} and sample["id"] == number
    assert sample["label"].tolist() == LABEL[row].tolist() and sample["label"].dtype == np.uint8 and sample["known"].all()
    image = images.decode_jpeg(sample["image"])
    assert image.shape == (218, 218, 3)
    assert np.abs(image.mean(axis=(0, 1)) - picture(row, 250, 250).mean(axis=(0, 1))).max() < 2
  report = json.loads((folder / "report.json").read_text())
  assert report["remarks"] == ["6 images with attributes: 3 train, 2 test, in neither list 1"] and report["deviations"] == []


def test_batches_without_a_validation_split(source, tmp_path):
  source.prepare(tmp_path, allow_deviations=False)
  dataset = registry.open_dataset("lfwa", tmp_path / "data")
  spec = pipeline.InputSpec(resize=(218, 178), size=(218, 178), crop="none")
  batch = pipeline.train_dataset(dataset.source("train"), spec, batch_size=3, seed=0)[0]
  assert batch["image"].shape == (3, 218, 178, 3)
  np.testing.assert_array_equal(batch["label"], LABEL[[1, 0, 4]][batch["id"]])
  with pytest.raises(InputError, match="lfwa has train, test and sums such as train.val, got 'val'"):
    dataset.source("val")


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


LABEL_FAULTS = [
    ("label", LABEL[:, :2].astype(float), r"label: expected 6 rows \(image names\) x 3 columns \(attributes\), got shape \(6, 2\)"),
    ("label", LABEL.T.astype(float), r"label: expected 6 rows .* got shape \(3, 6\)"),
    ("label", changed(LABEL.astype(float), (4, 1), -1), "label row 4 column 1: expected 0 or 1, got -1"),
    ("label", cells(["a", "b"], (1, 2)), "label: expected numbers, got object"),
    ("label", None, "lfw_att_40.mat: variables label are missing, found AttrName, name"),
    ("AttrName", cells(["Bangs", "Young", "Bangs"], (1, 3)), "AttrName: an empty name, or two of one name, in Bangs, Young, Bangs"),
    ("AttrName", cells(["Bangs", "", "Young"], (1, 3)), "AttrName row 1: expected a text"),
    ("AttrName", np.zeros((1, 3)), "AttrName: expected an Nx1 cell array of texts, got float64"),
    ("name", cells([*FILES[:5], FILES[0]], (-1, 1)), "name row 5: .*Ann_Lee_0001.jpg' is also row 0"),
    ("name", cells([*FILES[:5], r"..\..\secret.jpg"], (-1, 1)), r"name row 5: '../../secret.jpg' is not a path inside"),
    ("name", cells([*FILES[:5], r"Cy\Cy_0009.jpg"], (-1, 1)), "1 of 5 files .* missing, first lfw/Cy/Cy_0009.jpg"),
    ("name", cells([*FILES[:5], 5], (-1, 1)), "name row 5: expected a text, got "),
]


@pytest.mark.parametrize("name, value, message", LABEL_FAULTS)
def test_faults_of_the_attributes(any_source, tmp_path, name, value, message):
  if value is None:
    del any_source.labels[name]
  else:
    any_source.labels[name] = value
  fails(any_source, tmp_path, message)


@pytest.mark.parametrize("name, value, message", [
    ("indices_img_train", np.array([[1.0], [7], [2]]), "indices_img_train row 1: expected the number of an image, 1 to 6, got 7"),
    ("indices_img_train", np.array([[0.0, 1]]), "indices_img_train row 0: expected the number of an image, 1 to 6, got 0"),
    ("indices_img_test", np.array([[3.0, 4.5]]), "indices_img_test row 1: expected the number of an image, 1 to 6, got 4.5"),
    ("indices_img_test", np.array([[3.0, np.nan]]), "indices_img_test row 1: .* got nan"),
    ("indices_img_test", np.array([[4.0, 4]]), "indices_img_test row 1: image 4 is also in indices_img_test row 0"),
    ("indices_img_test", np.array([[3.0, 5]]), "indices_img_test row 1: image 5 is also in indices_img_train row 2"),
    ("indices_img_test", np.ones((2, 2)), r"indices_img_test: expected a list of numbers, got float64 \(2, 2\)"),
    ("indices_img_test", None, "indices_train_test.mat: variables indices_img_test are missing, found indices_i"),
])
def test_faults_of_the_indices(any_source, tmp_path, name, value, message):
  if value is None:
    del any_source.indices[name]
  else:
    any_source.indices[name] = value
  fails(any_source, tmp_path, message)


@pytest.mark.parametrize("file", ["lfw_att_40.mat", "indices_train_test.mat"])
def test_files_missing_or_broken(source, tmp_path, file):
  source.prepare(tmp_path)
  path = source.folder / file
  whole = path.read_bytes()
  for content in (b"", b"not a mat file", whole[:len(whole) // 2]):
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{file}: not a readable MAT file"):
      prepare("lfwa", source=source.folder, data_dir=tmp_path / "data", progress=False, overwrite=True)
  path.unlink()
  with pytest.raises(InputError, match=f"{file}: missing; --source must be the folder that holds lfw_att_40.mat, indices_train_test.mat"):
    prepare("lfwa", source=source.folder, data_dir=tmp_path / "data", progress=False, overwrite=True)


def test_what_is_no_array_is_refused(tmp_path):
  with h5py.File(tmp_path / "x.mat", "w") as file:
    file.create_group("label")
  with pytest.raises(InputError, match="x.mat: not a readable MAT file"):
    mat_files.load(tmp_path / "x.mat", ["label"])
