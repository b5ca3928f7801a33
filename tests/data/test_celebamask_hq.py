"""CelebAMask-HQ: painting overlapping parts, splits over the mapping, masks half as large as photos, what is refused."""

import functools
import json

import cv2
import numpy as np
import pytest

from attr_jax.data import images
from attr_jax.data import pipeline
from attr_jax.data import regions
from attr_jax.data import registry
from attr_jax.data.builders import celebamask_hq
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

ATTRIBUTES = ("5_o_Clock_Shadow", "Bangs", "Male", "odd_one")
# The authors' order of painting, and what each part is in the seven classes.
ORDER = ("skin nose:nose eye_g:background l_eye:eyes r_eye:eyes l_brow:eyebrows r_brow:eyebrows l_ear:background r_ear:background "
         "mouth:mouth u_lip:mouth l_lip:mouth hair:hair hat:background ear_r:background neck_l:background neck:background cloth:background")
CLASS_OF = {part: name or "face skin" for part, _, name in (word.partition(":") for word in ORDER.split())}
# k -> (photo of CelebA, its part: 0 train, 1 val, 2 test, parts that are seen)
PHOTOS = {
    0: ("119614.jpg", 0, ("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip", "hair", "neck")),
    1: ("099095.jpg", 1, ("skin", "eye_g", "r_eye", "nose", "hair", "hat", "cloth")),
    2: ("200122.jpg", 2, tuple(CLASS_OF)),
    1999: ("000007.jpg", 0, ("skin",)),
    2000: ("182638.jpg", 2, ("hair", "l_ear", "ear_r", "neck_l")),
}
IDS = (0, 1999, 1, 2, 2000)  # in the order of the records


@functools.cache
def drawn(part, index):
  """(mask, the same as PNG) of a part: an ellipse, not the same in any two photos; many overlap."""
  rng = np.random.default_rng([list(CLASS_OF).index(part), index])
  mask = np.zeros((512, 512), np.uint8)
  centre, axes = rng.integers(120, 400, 2).tolist(), rng.integers(60, 200, 2).tolist()
  cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
  return mask, images.encode_png(mask)


@functools.cache
def encoded(picture, seed):
  return images.encode_jpeg(picture(seed, 1024, 1024))


class MaskSource:
  """A folder of five photos. Break `lists` (file -> lines) before `prepare`, which writes them, or the files."""

  def __init__(self, folder, picture):
    self.folder, self.root = folder, folder / "CelebAMask-HQ"
    self.attributes = np.random.default_rng(2).choice([-1, 1], (len(PHOTOS), len(ATTRIBUTES)))
    self.lists = {
        "CelebAMask-HQ-attribute-anno.txt": [str(len(PHOTOS)), " ".join(ATTRIBUTES) + " ", *(
            f"{index}.jpg  {' '.join(map(str, row))}" for index, row in zip(PHOTOS, self.attributes))],
        "CelebA-HQ-to-CelebA-mapping.txt": ["idx     orig_idx     orig_file", *(
            f"{index}       {int(file[:6]) - 1}       {file}" for index, (file, *_) in PHOTOS.items())],
        "list_eval_partition.txt": [f"{file} {part}" for file, part, _ in sorted(PHOTOS.values())] + ["202599.jpg 2"],
    }
    (self.root / "CelebA-HQ-img").mkdir(parents=True)
    for index, (*_, parts) in PHOTOS.items():
      self.photo(index).write_bytes(encoded(picture, index))
      for part in parts:
        self.mask(index, part).parent.mkdir(parents=True, exist_ok=True)
        self.mask(index, part).write_bytes(drawn(part, index)[1])

  def photo(self, index):
    return self.root / "CelebA-HQ-img" / f"{index}.jpg"

  def mask(self, index, part):
    return self.root / "CelebAMask-HQ-mask-anno" / str(index // 2000) / f"{index:05d}_{part}.png"

  def prepare(self, tmp_path, source=None, end="\n", **options):
    for name, lines in self.lists.items():
      (self.root / name).write_bytes("".join(f"{line}{end}" for line in lines).encode())
    return prepare("celebamask_hq", source=source or self.folder, data_dir=tmp_path / "data",
                   **{"progress": False, "allow_deviations": True, "size": 64, **options})


@pytest.fixture
def source(tmp_path, picture):
  return MaskSource(tmp_path / "faces", picture)


def samples_of(tmp_path):
  dataset = registry.open_dataset("celebamask_hq", tmp_path / "data")
  raw = [sample for split in ("train", "val", "test") for sample in dataset.source(split)]
  return dict(zip(IDS, map(pipeline.decode_sample, raw), strict=True))


def expected_regions(index):
  """At 512 x 512, the last part first: a pixel belongs to the first of these that covers it."""
  result = np.full((512, 512), -1)
  for part in reversed(CLASS_OF):
    if part in PHOTOS[index][2]:
      result[(result < 0) & (drawn(part, index)[0] > 0)] = regions.FACE_REGION_NAMES.index(CLASS_OF[part])
  return np.maximum(result, 0)


# The classes.


def test_parts_and_their_order():
  assert list(celebamask_hq.MERGED) == list(CLASS_OF) and len(CLASS_OF) == 18
  assert {part: regions.FACE_REGION_NAMES[region] for part, region in celebamask_hq.MERGED.items()} == CLASS_OF
  assert sum(celebamask_hq._PUBLISHED.values()) == 30_000


@pytest.mark.parametrize("under, over, seen", [
    ("skin", "nose", "nose"), ("skin", "eye_g", "background"), ("eye_g", "l_eye", "eyes"), ("r_eye", "hair", "hair"),
    ("hair", "hat", "background"),
    ("mouth", "l_lip", "mouth"), ("skin", "neck", "background"), ("neck", "cloth", "background"), ("l_brow", "hair", "hair")])
def test_the_later_part_is_seen_where_two_overlap(under, over, seen):
  masks = {over: np.array([[0, 255, 1]], np.uint8), under: np.array([[255, 255, 0]], np.uint8)}
  names = [regions.FACE_REGION_NAMES[region] for region in celebamask_hq.paint(masks)[0]]
  assert names == [CLASS_OF[under], seen, CLASS_OF[over]]


# What comes out.


@pytest.mark.parametrize("inner, end", [(False, "\n"), (True, "\r\n")])
def test_records_follow_mapping_and_partition(source, tmp_path, inner, end):
  folder = source.prepare(tmp_path, source=source.root if inner else None, end=end)
  info = registry.open_dataset("celebamask_hq", tmp_path / "data").info
  assert info.splits == {"train": 2, "val": 1, "test": 2} and info.label_names == ATTRIBUTES
  assert info.label_groups == {"person": ("Male",), "hair": ("Bangs",), "beard": ("5_o_Clock_Shadow",), "other": ("odd_one",)}
  assert info.has_region_mask and not info.has_person_mask and not info.has_landmarks
  for number, (index, sample) in enumerate(samples_of(tmp_path).items()):
    assert set(sample) == {"image", "label", "known", "id", "region_mask"} and sample["id"] == number
    attributes = source.attributes[list(PHOTOS).index(index)]
    assert sample["label"].tolist() == [int(value == 1) for value in attributes] and sample["known"].all()
  report = json.loads((folder / "report.json").read_text())
  assert report["deviations"] == ["train: 2 photos, published 24183", "val: 1 photos, published 2993", "test: 2 photos, published 2824"]
  assert (report["shrunk"], report["padded"], report["remarks"]) == (5, 0, [])


def test_masks_lie_on_their_photos(source, tmp_path, picture):
  source.prepare(tmp_path)
  for index, sample in samples_of(tmp_path).items():
    assert sample["image"].shape == (64, 64, 3) and sample["region_mask"].shape == (64, 64)
    # 16 pixels of a photo are 8 of a mask: each new one lies on a corner of four.
    fine = expected_regions(index)
    around = [fine[row::8, column::8] for row in (3, 4) for column in (3, 4)]
    assert np.any([sample["region_mask"] == found for found in around], axis=0).all()
    small = cv2.resize(picture(index, 1024, 1024), (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(sample["image"].astype(float) - small).mean() < 4


def test_at_full_size_a_pixel_of_the_mask_is_four_of_the_photo(source, tmp_path):
  source.prepare(tmp_path, size=1024)
  samples = samples_of(tmp_path)
  for index in (0, 2):
    for row, column in np.ndindex(2, 2):
      np.testing.assert_array_equal(samples[index]["region_mask"][row::2, column::2], expected_regions(index))


def test_the_default_size_is_padded_as_helen_is(source, tmp_path):
  folder = source.prepare(tmp_path, size=None)
  assert folder == tmp_path / "data" / "celebamask_hq" / "218x178" / "1.0.0"
  for sample in samples_of(tmp_path).values():
    assert sample["image"].shape == (218, 178, 3)
    mask = sample["region_mask"]
    assert (mask[:20] == 255).all() and (mask[-20:] == 255).all() and mask[20:-20].max() <= 6
    assert sample["image"][:16].max() < 12 and sample["image"][20:-20].mean() > 30


def test_the_partition_may_lie_with_celeba(source, tmp_path):
  lines = source.lists.pop("list_eval_partition.txt")
  (source.folder / "Eval").mkdir()
  (source.folder / "Eval" / "list_eval_partition.txt").write_text("\n".join(lines))
  source.prepare(tmp_path)
  assert registry.open_dataset("celebamask_hq", tmp_path / "data").info.splits == {"train": 2, "val": 1, "test": 2}


def test_the_order_is_that_of_the_mapping(source, tmp_path):
  header, *rows = source.lists["CelebA-HQ-to-CelebA-mapping.txt"]
  source.lists["CelebA-HQ-to-CelebA-mapping.txt"] = [header, *reversed(rows)]
  source.prepare(tmp_path)
  labels = [sample["label"].tolist() for sample in samples_of(tmp_path).values()]
  places = [list(PHOTOS).index(index) for index in (1999, 0, 1, 2000, 2)]
  assert labels == (source.attributes[places] == 1).astype(int).tolist()


def test_masks_stored_in_colour_are_the_same(source, tmp_path):
  source.prepare(tmp_path)
  before = samples_of(tmp_path)
  for part in PHOTOS[0][2]:
    source.mask(0, part).write_bytes(images.encode_png(np.repeat(drawn(part, 0)[0][..., None], 3, axis=2)))
  source.prepare(tmp_path, overwrite=True)
  np.testing.assert_array_equal(samples_of(tmp_path)[0]["region_mask"], before[0]["region_mask"])


def test_other_files_between_the_masks_are_told(source, tmp_path):
  for name in ("0/Thumbs.db", "0/00000_background.png", "0/02000_skin.png"):
    (source.root / "CelebAMask-HQ-mask-anno" / name).write_bytes(b"")
  report = json.loads((source.prepare(tmp_path) / "report.json").read_text())
  assert report["remarks"] == [
      "files in CelebAMask-HQ-mask-anno that were left out: 3, first 0/00000_background.png, 0/02000_skin.png, 0/Thumbs.db"]


# What goes wrong.


def fails(source, tmp_path, message, **options):
  with pytest.raises(InputError, match=message) as caught:
    source.prepare(tmp_path, **options)
  assert "\n" not in str(caught.value) and str(source.folder) in str(caught.value)
  assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


ATTR, MAP, PART = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition.txt"


@pytest.mark.parametrize("name, line, text, message", [
    (ATTR, 2, "0.jpg  1 -1 1", r"attribute-anno.txt line 3: expected 4 values after 0.jpg, got 3"),
    (ATTR, 2, "0.jpg  1 -1 0 1", r"attribute-anno.txt line 3 Male: expected 1 or -1, got 0"),
    (ATTR, 0, "30000", r"attribute-anno.txt line 1: says 30000 rows, there are 5; take the whole list"),
    (ATTR, 3, "7.jpg  1 -1 1 1", r"attribute-anno.txt line 4: 7.jpg has no row in .*mapping.txt"),
    (MAP, 0, "0 119613 119614.jpg", r"mapping.txt line 1: expected idx orig_idx orig_file, got 0 119613 119614.jpg"),
    (MAP, 1, "0 119614.jpg", r"mapping.txt line 2: expected two numbers and the name of a photo, got '0 119614.jpg'"),
    (MAP, 1, "../0 1 000002.jpg", r"mapping.txt line 2: expected two numbers and the name"),
    (MAP, 2, "0 99094 099095.jpg", r"mapping.txt line 3: idx 0 has a row before, .*mapping.txt line 2"),
    (MAP, 2, "1 99094 99095.jpg", r"mapping.txt line 3: 99095.jpg has no row in CelebA's list_eval_partition"),
    (PART, 0, "000007.jpg 3", r"partition.txt line 1 value 1: expected 0, 1 or 2, got 3"),
])
def test_faults_of_the_lists(source, tmp_path, name, line, text, message):
  source.lists[name][line] = text
  fails(source, tmp_path, message)


def test_lists_that_do_not_name_the_same_photos(source, tmp_path):
  source.lists[MAP].append("5 4 000005.jpg")
  source.lists[PART].append("000005.jpg 0")
  fails(source, tmp_path, r"mapping.txt line 7: 5.jpg has no row in .*attribute-anno.txt")
  source.lists[ATTR].append("5.jpg 1 1 1 1")
  source.lists[ATTR][0] = "6"
  fails(source, tmp_path, r"mapping.txt line 7: 5.jpg has no mask 00005_<part>.png in .*CelebAMask-HQ-mask-anno/0")
  source.mask(5, "skin").write_bytes(drawn("skin", 5)[1])
  fails(source, tmp_path, r"1 of 6 files that the annotations name are missing, first CelebAMask-HQ/CelebA-HQ-img/5.jpg")


def test_missing_files_and_folders(source, tmp_path):
  del source.lists[PART]
  fails(source, tmp_path, "list_eval_partition.txt: missing; it says the splits and comes with CelebA, not with this download")
  (source.root / "CelebAMask-HQ-mask-anno").rename(source.folder / "gone")
  fails(source, tmp_path, "CelebAMask-HQ-mask-anno: missing; --source must be the folder that holds it, or CelebAMask-HQ/")


def test_an_empty_mapping(source, tmp_path):
  source.lists[MAP] = []
  fails(source, tmp_path, "mapping.txt line 1: expected idx orig_idx orig_file, got nothing")


def test_other_counts_are_refused(source, tmp_path):
  fails(source, tmp_path, "train: 2 photos, published 24183", allow_deviations=False)


def small_mask(source):
  source.mask(0, "hair").write_bytes(images.encode_png(np.zeros((256, 300), np.uint8)))


def cut_mask(source):
  source.mask(0, "hair").write_bytes(drawn("hair", 0)[1][:-20])


def small_photo(source):
  source.photo(0).write_bytes(images.encode_jpeg(np.zeros((512, 512, 3), np.uint8)))


@pytest.mark.parametrize("spoil, reason", [
    (small_mask, "00000_hair.png is 300x256 pixels, not 512x512"),
    (cut_mask, "00000_hair.png: truncated PNG"),
    (small_photo, "512x512 pixels, its annotation says 1024x1024"),
])
def test_a_photo_that_does_not_fit_its_masks_is_skipped(source, tmp_path, spoil, reason):
  spoil(source)
  (skipped,) = json.loads((source.prepare(tmp_path, max_bad=0.5) / "report.json").read_text())["skipped"]
  assert skipped["file"] == "CelebA-HQ-img/0.jpg" and skipped["reason"].startswith(reason)
  assert registry.open_dataset("celebamask_hq", tmp_path / "data").info.splits["train"] == 1
