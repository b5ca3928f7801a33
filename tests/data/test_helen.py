"""Helen's faces: merging eleven soft maps to seven classes, padding and its way to the batch, what is refused."""

import functools
import json

import numpy as np
import pytest

from attr_jax.data import images
from attr_jax.data import ops
from attr_jax.data import pipeline
from attr_jax.data import regions
from attr_jax.data import registry
from attr_jax.data.builders import helen
from attr_jax.data.builders import records
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

# Straight from the paper's list of classes and Smith's numbering of the files.
CLASSES = ("background", "hair", "face skin", "eyes", "eyebrows", "mouth", "nose")
SMITH = ("background", "face skin", "eyebrows", "eyebrows", "eyes", "eyes", "nose", "mouth", "mouth", "mouth", "hair")
LISTS = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}
# Stem -> (height, width): wide, high, of the prepared aspect, smaller than prepared.
PHOTOS = {"10_1": (300, 500), "9_1": (600, 300), "232194_1": (436, 356), "7_2": (100, 120), "8_1": (218, 178)}
SPLITS = {"train": ("10_1", "9_1", "232194_1"), "val": ("7_2",), "test": ("8_1",)}


def slow_merge(maps):
  """Pixel by pixel: the class of the largest map, the first class where several are equal."""
  result = np.zeros(maps.shape[1:], int)
  for row, column in np.ndindex(result.shape):
    best = [max(int(maps[k, row, column]) for k in range(11) if SMITH[k] == name) for name in CLASSES]
    result[row, column] = best.index(max(best))
  return result


def draw_maps(seed, height, width):
  """Eleven soft maps of smooth blobs; a tenth of the pixels belongs to nothing."""
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:height, :width]
  centres = rng.uniform(0, (height, width), (11, 2))
  maps = np.stack([255 * np.exp(-((rows - y)**2 + (columns - x)**2) / (height * width / 16)) for y, x in centres]).round().astype(np.uint8)
  maps[:, rng.random((height, width)) < 0.1] = 0
  return maps


@functools.cache
def drawn(stem):
  """(maps, the same as PNG files) of a photo; drawing and packing them takes most of a test's time."""
  maps = draw_maps(list(PHOTOS).index(stem), *PHOTOS[stem])
  return maps, [images.encode_png(values) for values in maps]


class HelenSource:
  """A folder of the resized edition; change `lists` before `prepare`, or its files, to break it."""

  def __init__(self, folder, picture):
    self.folder, self.root = folder, folder / "SmithCVPR2013_dataset_resized"
    self.lists = {split: [f"{number} , {stem}" for number, stem in enumerate(stems, 1)] for split, stems in SPLITS.items()}
    self.maps = {stem: drawn(stem)[0].copy() for stem in PHOTOS}
    for seed, (stem, size) in enumerate(PHOTOS.items()):
      self.write_photo(stem, picture(seed, *size))
      for index, data in enumerate(drawn(stem)[1]):
        self.label(stem, index).parent.mkdir(parents=True, exist_ok=True)
        self.label(stem, index).write_bytes(data)

  def write_photo(self, stem, image):
    path = self.root / "images" / f"{stem}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_jpeg(image, quality=95))

  def label(self, stem, index):
    return self.root / "labels" / stem / f"{stem}_lbl{index:02d}.png"

  def prepare(self, tmp_path, source=None, **options):
    for split, lines in self.lists.items():
      (self.root / LISTS[split]).write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return prepare("helen", source=source or self.folder, data_dir=tmp_path / "data",
                   **{"progress": False, "allow_deviations": True, **options})


@pytest.fixture
def source(tmp_path, picture):
  return HelenSource(tmp_path / "helen", picture)


def samples_of(tmp_path):
  dataset = registry.open_dataset("helen", tmp_path / "data")
  return {stem: pipeline.decode_sample(sample)
          for split, stems in SPLITS.items() for stem, sample in zip(stems, dataset.source(split), strict=True)}


def report_of(folder):
  return json.loads((folder / "report.json").read_text())


# The classes.


def test_classes_are_those_of_the_paper_in_its_order():
  assert regions.FACE_REGION_NAMES == CLASSES
  assert [int(region) for region in regions.FaceRegion] == list(range(7))
  assert sorted(index for indices in helen.MERGED.values() for index in indices) == list(range(11))
  assert regions.UNKNOWN == 255


@pytest.mark.parametrize("seed", range(3))
def test_merging_equals_slow_code(seed):
  maps = np.random.default_rng(seed).integers(0, 6, (11, 20, 30)).astype(np.uint8) * 51  # many are equal
  merged = helen.merge(maps)
  assert merged.dtype == np.uint8
  np.testing.assert_array_equal(merged, slow_merge(maps))


def test_merging_takes_the_maximum_and_not_the_sum():
  maps = np.zeros((11, 1, 3), np.uint8)
  maps[[7, 8, 9], 0, 0], maps[1, 0, 0] = (90, 80, 70), 100  # three weak parts of the mouth against skin
  maps[10, 0, 1], maps[1, 0, 1] = 127, 127  # a tie: hair comes before skin
  assert helen.merge(maps).tolist() == [[regions.FaceRegion.FACE_SKIN, regions.FaceRegion.HAIR, regions.FaceRegion.BACKGROUND]]


# What comes out.


@pytest.mark.parametrize("inner", [False, True])
def test_records_follow_the_lists(source, tmp_path, inner):
  folder = source.prepare(tmp_path, source=source.root if inner else None)
  assert folder == tmp_path / "data" / "helen" / "218x178" / "1.0.0"
  dataset = registry.open_dataset("helen", tmp_path / "data")
  info = dataset.info
  assert info.splits == {"train": 3, "val": 1, "test": 1} and info.label_names == () and info.label_groups == {}
  assert info.has_region_mask and not info.has_person_mask and not info.has_landmarks
  for number, sample in enumerate(samples_of(tmp_path).values()):
    assert set(sample) == {"image", "label", "known", "id", "region_mask"} and sample["id"] == number
    assert sample["label"].shape == sample["known"].shape == (0,)
    assert sample["region_mask"].shape == sample["image"].shape[:2] and sample["region_mask"].dtype == np.uint8
  report = report_of(folder)
  assert report["deviations"] == ["train: 3 photos, published 2000", "val: 1 photos, published 230", "test: 1 photos, published 100"]
  assert (report["padded"], report["shrunk"], report["copied"], report["skipped"]) == (3, 3, 1, [])


def nearest(mask, size):
  """Of every new pixel the old one under its centre."""
  places = [np.floor((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, mask.shape)]
  return mask[np.ix_(*places)]


# Prepared (height, width) and the part of it that shows the photo: top, left, height, width.
GEOMETRY = {"10_1": ((218, 178), (55, 0, 107, 178)), "9_1": ((218, 178), (0, 34, 218, 109)), "232194_1": ((218, 178), (0, 0, 218, 178)),
            "7_2": ((147, 120), (23, 0, 100, 120)), "8_1": ((218, 178), (0, 0, 218, 178))}


def test_photos_are_padded_and_not_stretched(source, tmp_path, picture):
  source.prepare(tmp_path)
  samples = samples_of(tmp_path)
  for seed, (stem, (size, (top, left, height, width))) in enumerate(GEOMETRY.items()):
    image, mask = samples[stem]["image"], samples[stem]["region_mask"]
    assert image.shape[:2] == size, stem
    old_height, old_width = PHOTOS[stem]
    assert abs(height / old_height - width / old_width) < 0.005  # one scale for both
    assert size[0] / size[1] == pytest.approx(218 / 178, abs=0.01)
    inside = np.zeros(size, bool)
    inside[top:top + height, left:left + width] = True
    assert (mask[~inside] == 255).all() and mask[inside].max() <= 6
    assert image[~inside].size == 0 or image[~inside].mean() < 8  # black, but for what JPEG smears
    expected = slow_merge(np.stack([nearest(values, (height, width)) for values in source.maps[stem]]))
    assert (mask[inside].reshape(height, width) != expected).mean() < 0.005  # where a centre falls between two pixels
    photo = ops.resize({"image": picture(seed, old_height, old_width)}, (height, width))["image"].astype(float)
    shown = image[inside].reshape(height, width, 3)
    assert np.abs(shown[4:-4, 4:-4] - photo[4:-4, 4:-4]).mean() < 6


@pytest.mark.parametrize("height, width, size, fitted, border", [
    (300, 500, (218, 178), (107, 178), (55, 56, 0, 0)),
    (600, 300, (218, 178), (218, 109), (0, 0, 34, 35)),
    (50, 40, (218, 178), (50, 40), (0, 0, 0, 1)),
    (1, 500, (218, 178), (1, 178), (108, 109, 0, 0)),
    (64, 64, (64, 64), (64, 64), (0, 0, 0, 0)),
])
def test_sizes_by_hand(height, width, size, fitted, border):
  assert records.fitted_size(height, width, size) == fitted
  assert records.border(*fitted, size) == border


def test_every_shrunk_photo_gets_exactly_the_prepared_size():
  rng = np.random.default_rng(0)
  for height, width, *size in rng.integers(8, 700, (2000, 4)).tolist():
    rows, columns = records.fitted_size(height, width, size)
    top, bottom, left, right = records.border(rows, columns, size)
    padded = rows + top + bottom, columns + left + right
    if height >= size[0] or width >= size[1]:
      assert padded == tuple(size)
    assert min(top + bottom, left + right) == 0 and rows <= height and columns <= width


def test_the_padding_is_not_in_the_mean(source, tmp_path):
  for stem, size in PHOTOS.items():
    source.write_photo(stem, np.full((*size, 3), 200, np.uint8))
  source.prepare(tmp_path)
  info = registry.open_dataset("helen", tmp_path / "data").info
  np.testing.assert_allclose(info.mean, 200 / 255, atol=0.01)
  np.testing.assert_allclose(info.std, 0, atol=0.01)


@pytest.mark.parametrize("crop", ["none", "five_position"])
def test_regions_stay_on_their_pixels_up_to_the_batch(source, tmp_path, crop):
  """Photos in which every class has a colour of its own: mask and image must still agree after resize, crop and flip."""
  colours = np.array([(0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 0), (0, 255, 255), (255, 0, 255), (255, 255, 255)], np.uint8)
  for stem, size in PHOTOS.items():
    classes = np.array([[row * 4 // size[0] + column * 4 // size[1] for column in range(size[1])] for row in range(size[0])])
    source.write_photo(stem, colours[classes])
    for index, name in enumerate(SMITH):
      soft = np.where(classes == CLASSES.index(name), 200, 20).astype(np.uint8)
      source.label(stem, index).write_bytes(images.encode_png(soft))
  source.prepare(tmp_path)
  spec = pipeline.InputSpec(resize=(240, 200), size=(218, 178), crop=crop, crop_sizes=(240, 220))
  dataset = registry.open_dataset("helen", tmp_path / "data").source("train+val+test")
  batch = pipeline.train_dataset(dataset, spec, batch_size=20, seed=0)[0]
  for image, mask in zip(batch["image"], batch["region_mask"]):
    assert set(np.unique(mask)) <= {*range(7), 255}
    known = mask != 255
    nearest_colour = np.abs(image[known][:, None].astype(int) - colours).sum(axis=2).argmin(axis=1)
    assert (nearest_colour == mask[known]).mean() > 0.95  # all but the edges between classes
    assert (known == (image.max(axis=2) > 100)).mean() > 0.97
  top_left = [mask[mask != 255][0] for mask in batch["region_mask"]]
  assert 0 in top_left and 3 in top_left  # some are mirrored


def test_nothing_is_known_of_what_fills_an_evaluation_batch(source, tmp_path):
  source.prepare(tmp_path)
  dataset = registry.open_dataset("helen", tmp_path / "data").source("test")
  batch = pipeline.eval_dataset(dataset, pipeline.InputSpec(resize=(218, 178)), batch_size=3)[0]
  assert batch["valid"].tolist() == [True, False, False]
  assert (batch["region_mask"][1:] == 255).all() and (batch["region_mask"][0] != 255).all()


def test_masks_can_be_left_out(source, tmp_path):
  source.prepare(tmp_path)
  raw = registry.open_dataset("helen", tmp_path / "data").source("train")[0]
  assert "region_mask" not in pipeline.decode_sample(raw, masks=False)


# What goes wrong.


def fails(source, tmp_path, message, **options):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path, **options)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


@pytest.mark.parametrize("split, line, text, message", [
    ("train", 1, "9_1", r"exemplars.txt line 2: expected 'number , name of a photo', got '9_1'"),
    ("train", 1, "2 , 9_1 , x", r"exemplars.txt line 2: expected 'number , name of a photo'"),
    ("train", 1, "two , 9_1", r"exemplars.txt line 2: expected 'number , name of a photo', got 'two , 9_1'"),
    ("train", 1, "2 , ", r"exemplars.txt line 2: '' is not a path inside"),
    ("train", 1, "2 , ../9_1", r"exemplars.txt line 2: '../9_1' is not a path inside"),
    ("train", 1, "2 , images/9_1", r"line 2: expected the name of a photo without folder and suffix, got 'images/9_1'"),
    ("train", 1, "2 , 10_1", r"exemplars.txt line 2: 10_1 is also in .*exemplars.txt line 1"),
    ("test", 0, "1 , 7_2", r"testing.txt line 1: 7_2 is also in .*tuning.txt line 1"),
    ("val", 0, "1 , 99_1", r"12 of 60 files .* missing, first SmithCVPR2013_dataset_resized/images/99_1.jpg"),
])
def test_faults_of_the_lists(source, tmp_path, split, line, text, message):
  source.lists[split][line] = text
  fails(source, tmp_path, message)


def test_files_missing_or_foreign(source, tmp_path):
  source.label("9_1", 4).unlink()
  fails(source, tmp_path, "1 of 60 files .* missing, first SmithCVPR2013_dataset_resized/labels/9_1/9_1_lbl04.png")
  del source.lists["val"]
  (source.root / "tuning.txt").write_bytes(b"\xff\xfe")
  fails(source, tmp_path, "tuning.txt: no text")
  (source.root / "tuning.txt").unlink()
  fails(source, tmp_path, "tuning.txt: missing; --source must be the folder that holds it, images/ and labels/")


def test_other_counts_are_refused(source, tmp_path):
  fails(source, tmp_path, "train: 3 photos, published 2000", allow_deviations=False)


def resized_map(source):
  source.label("9_1", 4).write_bytes(images.encode_png(np.zeros((30, 20), np.uint8)))


def resized_photo(source):
  source.write_photo("9_1", np.zeros((60, 40, 3), np.uint8))


def cut_map(source):
  source.label("9_1", 4).write_bytes(source.label("9_1", 4).read_bytes()[:-20])


def text_map(source):
  source.label("9_1", 0).write_text("<html>")


@pytest.mark.parametrize("spoil, reason", [
    (resized_map, "9_1_lbl04.png and 9_1_lbl00.png differ in size, 20x30 and 300x600"),
    (resized_photo, "its regions are 300x600, the photo 40x60 pixels"),
    (cut_map, "9_1_lbl04.png: truncated PNG"),
    (text_map, "9_1_lbl00.png: text (HTML or XML) instead of an image"),
])
def test_a_photo_that_does_not_fit_its_maps_is_skipped(source, tmp_path, spoil, reason):
  spoil(source)
  (skipped,) = report_of(source.prepare(tmp_path, max_bad=0.5))["skipped"]
  assert skipped["file"] == "images/9_1.jpg" and skipped["reason"].startswith(reason)
  assert registry.open_dataset("helen", tmp_path / "data").info.splits["train"] == 2
