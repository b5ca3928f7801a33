"""CelebA's two sets of images: all layouts in use, landmarks on their way, what is refused."""

import json

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import published
from attr_jax.data import registry
from attr_jax.data.builders import celeba
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

ATTRIBUTES = ("5_o_Clock_Shadow", "Bangs", "Male", "odd_one")
POINTS = [f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"]
PARTS = (0, 0, 1, 0, 2, 0, 2, 1)  # of photos 1, 2, ...
IMAGES = {"celeba": "img_celeba", "celeba_aligned": "img_align_celeba"}
LANDMARKS = {"celeba": "list_landmarks_celeba", "celeba_aligned": "list_landmarks_align_celeba"}
ORDER = [place for part in range(3) for place, found in enumerate(PARTS) if found == part]  # of the records


def name_of(place):
  return f"{place + 1:06d}.jpg"


class CelebaSource:
  """A CelebA folder of eight photos. Break `lists` (name -> lines), then `prepare`, which writes them."""

  def __init__(self, folder, picture):
    self.folder = folder
    rng = np.random.default_rng(11)
    self.attributes = rng.choice([-1, 1], (len(PARTS), len(ATTRIBUTES)))
    self.sizes = {"celeba": [(300 + 10 * place, 400 - 35 * place) for place in range(len(PARTS))],
                  "celeba_aligned": [(218, 178)] * len(PARTS)}
    self.points = {name: np.array([rng.integers(0, (width, height), (5, 2)) for height, width in sizes])
                   for name, sizes in self.sizes.items()}
    names = [name_of(place) for place in range(len(PARTS))]
    self.lists = {
        "Eval/list_eval_partition": [f"{name} {part}" for name, part in zip(names, PARTS)],
        "Anno/list_attr_celeba": [str(len(names)), " ".join(ATTRIBUTES), *(
            f"{name} {' '.join(f'{value:2d}' for value in row)}" for name, row in zip(names, self.attributes))],
        **{f"Anno/{LANDMARKS[kind]}": [str(len(names)), " ".join(POINTS), *(
            f"{name} {' '.join(map(str, row.ravel()))}" for name, row in zip(names, points))] for kind, points in self.points.items()}}
    for kind, sizes in self.sizes.items():
      for place, size in enumerate(sizes):
        self.path(kind, place).parent.mkdir(parents=True, exist_ok=True)
        self.path(kind, place).write_bytes(images.encode_jpeg(picture(place, *size), quality=95))

  def path(self, kind, place):
    return self.folder / "Img" / IMAGES[kind] / name_of(place)

  def write(self, end="\n"):
    for name, lines in self.lists.items():
      path = self.folder / f"{name}.txt"
      path.parent.mkdir(exist_ok=True)
      path.write_bytes("".join(f"{line}{end}" for line in lines).encode())

  def prepare(self, tmp_path, kind="celeba", **options):
    self.write()
    return prepare(kind, source=self.folder, data_dir=tmp_path / "data", **{"progress": False, "allow_deviations": True, **options})


@pytest.fixture
def source(tmp_path, picture):
  return CelebaSource(tmp_path / "celeba", picture)


def make_flat(source):
  """Everything in the source folder itself, as other libraries keep it."""
  source.write()
  for path in [*source.folder.glob("Img/*"), *source.folder.glob("Anno/*"), *source.folder.glob("Eval/*")]:
    path.rename(source.folder / path.name)


def make_kaggle(source):
  """CSV files with a header, folders of images inside folders of their name."""
  for name, lines in source.lists.items():
    rows = [line.split() for line in lines if not line.isdecimal()]
    header = ["image_id", "partition"] if "partition" in name else ["image_id", *rows.pop(0)]
    (source.folder / f"{name.split('/')[1]}.csv").write_text("".join(",".join(row) + "\n" for row in [header, *rows]))
  for name in IMAGES.values():
    (source.folder / name).mkdir()
    (source.folder / "Img" / name).rename(source.folder / name / name)


def keep(source):
  source.write()


def messy(source):
  """Carriage returns, a mark of byte order, more blanks, empty lines and no counts."""
  for name, lines in source.lists.items():
    path = source.folder / f"{name}.txt"
    path.parent.mkdir(exist_ok=True)
    lines = [line.replace(" ", "   ") + "  \t" for line in lines if not line.isdecimal()]
    path.write_bytes(b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in [*lines, "", " "]).encode())


def report_of(folder):
  return json.loads((folder / "report.json").read_text())


def samples_of(tmp_path, kind="celeba"):
  dataset = registry.open_dataset(kind, tmp_path / "data")
  return [sample for split in ("train", "val", "test") for sample in dataset.source(split)]


# What comes out.


@pytest.mark.parametrize("layout", [keep, make_flat, make_kaggle, messy])
@pytest.mark.parametrize("kind", IMAGES)
def test_every_layout_gives_the_same(source, tmp_path, layout, kind):
  layout(source)
  folder = prepare(kind, source=source.folder, data_dir=tmp_path / "data", progress=False, allow_deviations=True)
  assert folder == tmp_path / "data" / kind / "218x178" / "1.0.0"
  dataset = registry.open_dataset(kind, tmp_path / "data")
  assert dataset.info.label_names == ATTRIBUTES and dataset.info.splits == {"train": 4, "val": 2, "test": 2}
  assert dataset.info.has_landmarks and not dataset.info.has_region_mask and not dataset.info.has_person_mask
  assert dataset.info.label_groups == {"person": ("Male",), "hair": ("Bangs",), "beard": ("5_o_Clock_Shadow",), "other": ("odd_one",)}
  samples = samples_of(tmp_path, kind)
  for number, (place, sample) in enumerate(zip(ORDER, samples, strict=True)):
    assert set(sample) == {"image", "label", "known", "id", "landmarks"} and sample["id"] == number
    assert sample["label"].tolist() == [int(value == 1) for value in source.attributes[place]] and sample["known"].all()
    height, width = source.sizes[kind][place]
    rows, columns = images.decode_jpeg(sample["image"]).shape[:2]
    assert (sample["landmarks"].shape, sample["landmarks"].dtype) == ((5, 2), np.float32)
    for (x, y), (x0, y0) in zip(sample["landmarks"], source.points[kind][place]):
      # The same share of the photo, counted from its edge: the centre of a pixel is half a pixel away.
      assert (x + 0.5) / columns == pytest.approx((x0 + 0.5) / width, abs=1e-5)
      assert (y + 0.5) / rows == pytest.approx((y0 + 0.5) / height, abs=1e-5)


def test_original_photos_are_shrunk_and_keep_their_aspect(source, tmp_path, picture):
  report = report_of(source.prepare(tmp_path))
  assert (report["shrunk"], report["copied"], report["padded"], report["landmarks_outside"]) == (7, 1, 0, 0)
  for place, sample in zip(ORDER, samples_of(tmp_path), strict=True):
    height, width = source.sizes["celeba"][place]
    image = images.decode_jpeg(sample["image"])
    scale = min(1, max(218 / height, 178 / width))
    assert image.shape[:2] == (round(height * scale), round(width * scale))
    small = cv2.resize(picture(place, height, width), image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(float) - small).mean() < 4


def test_cut_photos_stay_as_they_are(source, tmp_path):
  report = report_of(source.prepare(tmp_path, "celeba_aligned"))
  assert (report["copied"], report["shrunk"]) == (8, 0)
  for place, sample in zip(ORDER, samples_of(tmp_path, "celeba_aligned"), strict=True):
    assert sample["image"] == source.path("celeba_aligned", place).read_bytes()
    np.testing.assert_array_equal(sample["landmarks"], source.points["celeba_aligned"][place])


def draw_dots(points, height, width):
  """A soft dot on each point; their heights tell them apart."""
  rows, columns = np.mgrid[:height, :width]
  dots = [(1 - 0.1 * index) * np.exp(-((columns - x)**2 + (rows - y)**2) / 300) for index, (x, y) in enumerate(points)]
  return np.repeat(np.rint(255 * np.sum(dots, axis=0))[..., None], 3, axis=2).astype(np.uint8)


def dot_centres(image, points):
  """Centre of mass of what is bright around each point, and how bright it is there."""
  rows, columns = np.mgrid[:image.shape[0], :image.shape[1]]
  for x, y in points:
    near = np.where((np.hypot(columns - x, rows - y) < 18) & (image[..., 0] > 60), image[..., 0].astype(float), 0)
    yield (near * columns).sum() / near.sum(), (near * rows).sum() / near.sum(), near.max()


@pytest.mark.parametrize("crop", ["none", "five_position"])
def test_landmarks_stay_on_their_spots(source, tmp_path, crop):
  """From the original photo over prepared record, resize, crop and flip to the batch."""
  points = np.array([[150, 160], [260, 150], [205, 225], [160, 300], [255, 295]])
  for place in range(len(PARTS)):
    source.lists["Anno/list_landmarks_celeba"][2 + place] = f"{name_of(place)} {' '.join(map(str, points.ravel()))}"
    source.path("celeba", place).write_bytes(images.encode_jpeg(draw_dots(points, 460, 410), quality=98))
  source.prepare(tmp_path)
  spec = pipeline.InputSpec(resize=(240, 200), size=(218, 178), crop=crop, crop_sizes=(240, 230))
  records = registry.open_dataset("celeba", tmp_path / "data").source("train+val+test")
  orders = set()
  for step in range(4):
    batch = pipeline.train_dataset(records, spec, batch_size=4, seed=1)[step]
    assert batch["landmarks"].shape == (4, 5, 2) and batch["landmarks"].dtype == np.float32
    for image, found in zip(batch["image"], batch["landmarks"]):
      x, y, height = np.array(list(dot_centres(image, found))).T
      np.testing.assert_allclose(found, np.stack([x, y], axis=1), atol=0.5)
      assert found[0, 0] < found[1, 0] and found[3, 0] < found[4, 0]  # left stays left, as seen in the photo
      orders.add(height[0] > height[1])
      assert (height[0] > height[1]) == (height[3] > height[4])
  assert orders == {True, False}  # some are mirrored: there the dot on the left was the right eye's


def test_evaluation_views_have_landmarks(source, tmp_path):
  source.prepare(tmp_path, "celeba_aligned")
  records = registry.open_dataset("celeba_aligned", tmp_path / "data").source("test")
  spec = pipeline.InputSpec(resize=(218, 178), size=(200, 160))
  batch = pipeline.eval_dataset(records, spec, batch_size=4)[0]
  np.testing.assert_array_equal(batch["landmarks"][:2], source.points["celeba_aligned"][[4, 6]])
  assert batch["valid"].tolist() == [True, True, False, False] and not batch["landmarks"][2:].any()
  views = pipeline.eval_dataset(records, spec, views="five_crop", batch_size=2)[0]["landmarks"]
  assert views.shape == (2, 5, 5, 2)
  np.testing.assert_array_equal(views[:, 3], source.points["celeba_aligned"][[4, 6]] - [16, 16])


def test_tensorflow_datasets_can_read_it(source, tmp_path):
  theirs = tfds.builder_from_directory(source.prepare(tmp_path)).as_data_source("train")
  for one, two in zip(theirs, samples_of(tmp_path)):
    assert one["landmarks"].dtype == np.float32
    for key in ("landmarks", "label", "id"):
      np.testing.assert_array_equal(one[key], two[key])


def test_counts_are_refused_or_kept_and_people_told(source, tmp_path):
  source.lists["Anno/identity_CelebA"] = [f"{name_of(place)} {person}" for place, person in enumerate((7, 7, 7, 5, 1, 5, 2, 3))]
  report = report_of(source.prepare(tmp_path, progress=True))
  assert report["deviations"] == [
      "train: 4 images, published 162770", "val: 2 images, published 19867", "test: 2 images, published 19962"]
  assert report["remarks"] == ["people: 2 train, 2 val, 2 test; in more than one split: 1"]
  fails(source, tmp_path, "train: 4 images, published 162770", kind="celeba_aligned", allow_deviations=False)


def test_names_and_shares_are_compared_where_the_counts_are_as_published(source, tmp_path, monkeypatch):
  source.write()
  names = celeba.Builder.read(source.folder).label_names
  monkeypatch.setattr(celeba, "_PUBLISHED", {"train": 4, "val": 2, "test": 2})
  monkeypatch.setattr(published, "CELEBA_ATTRIBUTES", names)
  shares = (source.attributes == 1).mean(axis=0)
  monkeypatch.setattr(published, "CELEBA_SHARES", (*shares[:-1], shares[-1] + 0.0002))
  assert celeba.Builder.read(source.folder).deviations == (
      f"positive share of {names[-1]} in all photos: {shares[-1]:.4f}, published {shares[-1] + 0.0002:.4f}",)
  monkeypatch.setattr(published, "CELEBA_SHARES", tuple(shares))
  assert celeba.Builder.read(source.folder).deviations == ()
  monkeypatch.setattr(published, "CELEBA_ATTRIBUTES", (names[1], names[0], *names[2:]))
  assert celeba.Builder.read(source.folder).deviations == (
      f"label 0: {names[0]!r}, published {names[1]!r}", f"label 1: {names[1]!r}, published {names[0]!r}")


def test_the_published_counts_are_those_of_all_photos():
  assert sum(celeba._PUBLISHED.values()) == 202_599


def test_landmarks_that_do_not_belong_to_the_images_are_told(source, tmp_path, capsys):
  source.lists["Anno/list_landmarks_celeba"][2] = f"{name_of(0)} 5 5 9 9 400 9 1 1 2 2"  # the photo is 400 wide
  assert report_of(source.prepare(tmp_path, progress=True))["landmarks_outside"] == 1
  assert "samples with landmarks outside their image: 1 (kept)" in capsys.readouterr().err


def test_the_order_is_that_of_the_partition(source, tmp_path):
  source.lists["Eval/list_eval_partition"].reverse()
  source.prepare(tmp_path)
  labels = [sample["label"].tolist() for sample in samples_of(tmp_path)]
  order = [place for part in range(3) for place in reversed(range(len(PARTS))) if PARTS[place] == part]
  assert labels == (source.attributes[order] == 1).astype(int).tolist()


def test_an_empty_split_is_left_out(source, tmp_path):
  source.lists["Eval/list_eval_partition"] = [line.removesuffix(" 1") + " 0" if line.endswith(" 1") else line
                                              for line in source.lists["Eval/list_eval_partition"]]
  source.prepare(tmp_path)
  assert registry.open_dataset("celeba", tmp_path / "data").info.splits == {"train": 6, "test": 2}


# What goes wrong.


def fails(source, tmp_path, message, kind="celeba", **options):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path, kind, **options)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert not [path for path in (tmp_path / "data" / kind).rglob("*") if path.is_file()]


ATTR, PART, MARK = "Anno/list_attr_celeba", "Eval/list_eval_partition", "Anno/list_landmarks_celeba"


@pytest.mark.parametrize("name, line, text, message", [
    (ATTR, 2, "000001.jpg 1 -1 1", r"attr_celeba.txt line 3: expected 4 values after 000001.jpg, got 3"),
    (ATTR, 2, "000001.jpg 1 -1 1 1 1", r"attr_celeba.txt line 3: expected 4 values after 000001.jpg, got 5"),
    (ATTR, 3, "000002.jpg 1 -1 0 1", r"attr_celeba.txt line 4 Male: expected 1 or -1, got 0"),
    (ATTR, 3, "000002.jpg 1 -1 yes 1", r"attr_celeba.txt line 4: expected 1 or -1; .*'yes'"),
    (ATTR, 3, "000002.jpg 1 -1 nan 1", r"attr_celeba.txt line 4 Male: expected 1 or -1, got nan"),
    (ATTR, 3, "000001.jpg 1 -1 1 1", r"attr_celeba.txt line 4: 000001.jpg has a row before, line 3"),
    (ATTR, 3, "000099.jpg 1 -1 1 1", r"partition.txt line 2: 000002.jpg has no row in .*list_attr_celeba.txt"),
    (ATTR, 1, "Male Bangs Young", r"attr_celeba.txt line 3: expected 3 values after 000001.jpg, got 4"),
    (ATTR, 1, "Male Bangs Male Young", r"attr_celeba.txt line 2: a column without a name, or two of one name"),
    (ATTR, 1, "", r"attr_celeba.txt: no line of attribute names before the rows"),
    (ATTR, 0, "9", r"attr_celeba.txt line 1: says 9 rows, there are 8; take the whole list, or remove"),
    (PART, 2, "000003.jpg 3", r"partition.txt line 3 value 1: expected 0, 1 or 2, got 3"),
    (PART, 2, "000003.jpg train", r"partition.txt line 3: expected 0, 1 or 2; .*'train'"),
    (PART, 2, "000003.jpg", r"partition.txt line 3: expected 1 values after 000003.jpg, got 0"),
    (PART, 2, "000002.jpg 0", r"partition.txt line 3: 000002.jpg has a row before, line 2"),
    (PART, 2, "", r"attr_celeba.txt line 5: 000003.jpg has no row in .*list_eval_partition.txt"),
    (PART, 2, "../000003.jpg 0", r"partition.txt line 3: ../000003.jpg has no row in .*list_attr_celeba.txt"),
    (MARK, 4, "000003.jpg 1 2 3 4 5 6 7 8 9", r"landmarks_celeba.txt line 5: expected 10 values after 000003.jpg, got 9"),
    (MARK, 4, "000003.jpg 1 2 3 4 5 6 7 8 9 x", r"landmarks_celeba.txt line 5: expected a coordinate in pixels; .*'x'"),
    (MARK, 4, "000003.jpg 1 2 3 4 5 6 7 8 9 inf", r"line 5 rightmouth_y: expected a coordinate in pixels, got inf"),
    (MARK, 4, "000033.jpg 1 2 3 4 5 6 7 8 9 10", r"partition.txt line 3: 000003.jpg has no row in .*list_landmarks_celeba.txt"),
    (MARK, 1, "lefteye_x lefteye_y", r"landmarks_celeba.txt: expected 10 names of columns, got 2: lefteye_x lefteye_y"),
])
def test_faults_of_the_lists(source, tmp_path, name, line, text, message):
  source.lists[name][line] = text
  fails(source, tmp_path, message)


def test_names_stay_inside_the_folder(source, tmp_path):
  for name, lines in source.lists.items():
    source.lists[name] = [line.replace("000003.jpg", "../000003.jpg") for line in lines]
  fails(source, tmp_path, r"list_eval_partition.txt line 3: '../000003.jpg' is not a path inside the data folder")


@pytest.mark.parametrize("name", [ATTR, PART, MARK])
def test_missing_and_foreign_lists(source, tmp_path, name):
  stem = name.split("/")[1]
  source.write()
  (source.folder / f"{name}.txt").write_bytes(b"\xff\xfe\x00binary")
  with pytest.raises(InputError, match=f"{stem}.txt: no text"):
    prepare("celeba", source=source.folder, data_dir=tmp_path / "data", progress=False)
  del source.lists[name]
  (source.folder / f"{name}.txt").unlink()
  fails(source, tmp_path, f"a list is missing; expected {name}.txt, {stem}.txt, {name}.csv or {stem}.csv")


def test_missing_images(source, tmp_path):
  source.path("celeba", 4).unlink()
  fails(source, tmp_path, "1 of 8 files that the annotations name are missing, first Img/img_celeba/000005.jpg")
  (source.folder / "Img" / "img_celeba").rename(source.folder / "gone")
  fails(source, tmp_path, "no image folder; expected Img/img_celeba/ or img_celeba/")


def test_a_cut_photo_of_another_size(source, tmp_path, picture):
  source.path("celeba_aligned", 1).write_bytes(images.encode_jpeg(picture(1, 178, 178)))
  with pytest.raises(InputError, match="000002.jpg .178x178 pixels, its annotation says 178x218"):
    source.prepare(tmp_path, "celeba_aligned")
