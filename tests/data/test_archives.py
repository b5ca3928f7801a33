"""Photos read in the archive they were downloaded in, and archives that are not to be trusted."""

import io
import shutil
import stat
import tarfile
import threading
import zipfile

import pytest

from attr_jax.data import archives
from attr_jax.data import images
from attr_jax.data import registry
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError

from test_celeba import CelebaSource
from test_celebamask_hq import MaskSource
from test_coco import CocoSource
from test_coco_person import CocoSource as CocoPersonSource
from test_coco_person import pixels
from test_helen import HelenSource
from test_imet2019 import ImetSource


def samples(name, folder):
  dataset = registry.open_dataset(name, folder)
  found = [sample for split in dataset.info.splits for sample in dataset.source(split)]
  return [(sample["image"], sample["label"].tolist(), int(sample["id"])) for sample in found]


def prepared_twice(name, source, tmp_path, pack, **options):
  """The samples of a source before and after `pack` has replaced its folder by an archive."""
  options = {"source": source, "progress": False, "allow_deviations": True, "workers": 3, **options}
  prepare(name, data_dir=tmp_path / "plain", **options)
  pack()
  prepare(name, data_dir=tmp_path / "packed", **options)
  return samples(name, tmp_path / "plain"), samples(name, tmp_path / "packed")


def pack_zip(folder, archive, top=""):
  with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
    for path in sorted(folder.rglob("*")):
      file.write(path, f"{top}{path.relative_to(folder)}")
  shutil.rmtree(folder)


def pack_tar(folder, archive, top=".", mode="w"):
  with tarfile.open(archive, mode) as file:
    file.add(folder, top)
  shutil.rmtree(folder)


def zip_of(path, *entries, **options):
  """Writes a zip of (name or ZipInfo, bytes)."""
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as file:
    for name, data in entries:
      file.writestr(name, data)
  return path


# Data sets.


def test_celeba_in_a_zip_with_its_folder_inside(tmp_path, picture):
  source = CelebaSource(tmp_path / "celeba", picture)
  source.write()
  folder = source.folder / "Img" / "img_align_celeba"
  plain, packed = prepared_twice("celeba_aligned", source.folder, tmp_path,
                                 lambda: pack_zip(folder, folder.with_suffix(".zip"), "img_align_celeba/"))
  assert plain == packed and len(plain) == 8


@pytest.mark.parametrize("pack, suffix", [(pack_zip, ".zip"), (pack_tar, ".tar")])
def test_helen_and_celebamask_hq_whole_in_one_archive(tmp_path, picture, pack, suffix):
  """Lists, photos and masks, with the folder of the archive's name inside."""
  source = HelenSource(tmp_path / "helen", picture)
  source.prepare(tmp_path / "plain")
  pack(source.root, source.root.with_suffix(suffix), f"{source.root.name}/")
  prepare("helen", source=source.folder, data_dir=tmp_path / "packed", progress=False, allow_deviations=True)
  assert samples("helen", tmp_path / "plain" / "data") == samples("helen", tmp_path / "packed")
  source = MaskSource(tmp_path / "faces", picture)
  plain = source.prepare(tmp_path / "plain")
  pack(source.root, source.root.with_suffix(suffix), f"{source.root.name}/")
  packed = prepare("celebamask_hq", source=source.folder, data_dir=tmp_path / "packed", progress=False, allow_deviations=True, size=64)
  assert samples("celebamask_hq", tmp_path / "plain" / "data") == samples("celebamask_hq", tmp_path / "packed")
  regions = [[sample["region_mask"] for sample in registry.open_dataset("celebamask_hq", folder.parents[2]).source("train")]
             for folder in (plain, packed)]
  assert regions[0] == regions[1] and len(regions[0]) == 2


def test_a_damaged_list_in_an_archive(tmp_path, picture):
  source = HelenSource(tmp_path / "helen", picture)
  source.prepare(tmp_path / "plain")
  archive = source.root.with_suffix(".zip")
  pack_zip(source.root, archive, f"{source.root.name}/")
  with zipfile.ZipFile(archive) as file:
    start = file.getinfo(f"{source.root.name}/tuning.txt").header_offset
  data = bytearray(archive.read_bytes())
  data[start + 14:start + 18] = b"...."  # the check sum in front of the data is not read, the one in the table is
  archive.write_bytes(data)
  prepare("helen", source=source.folder, data_dir=tmp_path / "packed", progress=False, allow_deviations=True)
  data[start + 75:start + 80] = b"....."
  archive.write_bytes(data)
  with pytest.raises(InputError, match="tuning.txt: no text .damaged in SmithCVPR2013_dataset_resized.zip"):
    prepare("helen", source=source.folder, data_dir=tmp_path / "again", progress=False, allow_deviations=True)


@pytest.mark.parametrize("pack, suffix", [(pack_zip, ".zip"), (pack_tar, ".tar")])
def test_imet_in_an_archive_without_a_folder_inside(tmp_path, picture, pack, suffix):
  source = ImetSource(tmp_path / "imet", picture)
  source.write()
  folder = source.folder / "train"
  plain, packed = prepared_twice("imet2019", source.folder, tmp_path, lambda: pack(folder, folder.with_suffix(suffix)), size=40)
  assert plain == packed and len(plain) == 27
  (source.folder / "train").mkdir()  # what is unpacked counts, even if it is not whole
  with pytest.raises(InputError, match=r"27 of 27 files .* are missing, first train/"):
    prepare("imet2019", source=source.folder, data_dir=tmp_path / "again", size=40, progress=False)


def test_wider_in_the_archive_of_its_page(wider_source, tmp_path):
  source = wider_source()
  image_folder, archive = source.folder / "Image", source.folder / "wider_attribute_image.tar"
  plain, packed = prepared_twice("wider_attribute", source.folder, tmp_path, lambda: pack_tar(image_folder, archive, "Image"), size=64)
  assert plain == packed and len(plain) == 36
  archive.rename(archive.with_suffix(".tgz"))
  with pytest.raises(InputError, match=r"wider_attribute_image.tgz: a compressed tar cannot be read in place.*\(gunzip .*\(tar -xzf "):
    prepare("wider_attribute", source=source.folder, data_dir=tmp_path / "again", progress=False)


def test_coco_in_its_archives(tmp_path, picture):
  source = CocoSource(tmp_path / "coco", picture, "2017")
  source.prepare(tmp_path)  # writes the annotation files too

  def pack():
    for name in ("train2017", "val2017"):
      pack_zip(source.folder / name, source.folder / f"{name}.zip", f"{name}/")

  plain, packed = prepared_twice("coco", source.folder, tmp_path, pack, size=64)
  assert plain == packed and len(plain) == 6


def test_panoptic_masks_in_an_archive_inside_the_annotations(tmp_path, picture):
  source = CocoPersonSource(tmp_path / "coco", picture, [("train", 1), ("val", 2)])
  for split, photo in (("train", 1), ("val", 2)):
    source.use_panoptic(split, {photo: [(70_001, 1, 0, [10, 10, 40, 50], pixels(12, 14, 48, 58))]})
  source.save()

  def pack():
    for path in (source.folder / "train2017", source.folder / "annotations" / "panoptic_train2017"):
      pack_zip(path, path.with_suffix(".zip"), f"{path.name}/")

  plain, packed = prepared_twice("coco_person", source.folder, tmp_path, pack, size=64)
  assert plain == packed and len(plain) == 2


def test_what_an_archive_lacks_or_has_damaged_is_named(pa100k_source, tmp_path):
  source = pa100k_source(count=12)
  folder, archive = source.folder / "data", source.folder / "data.zip"
  (folder / "000003.jpg").write_bytes(b"")
  names = sorted(path.name for path in folder.iterdir())
  content = {name: (folder / name).read_bytes() for name in names}
  shutil.rmtree(folder)
  options = {"source": source.folder, "size": 64, "progress": False, "allow_deviations": True}
  zip_of(archive, *((name, data) for name, data in content.items() if name != "000002.jpg"))
  with pytest.raises(InputError, match="1 of 36 files .* are missing, first data.zip/000002.jpg"):
    prepare("pa100k", data_dir=tmp_path / "data", **options)
  zip_of(archive, *content.items())
  with zipfile.ZipFile(archive) as file:
    start = file.getinfo("000005.jpg").header_offset
  packed = bytearray(archive.read_bytes())
  packed[start + 60] ^= 255
  archive.write_bytes(packed)
  with pytest.raises(InputError, match=r"000003.jpg \(empty file\); 000005.jpg \(damaged in data.zip\)"):
    prepare("pa100k", data_dir=tmp_path / "data", **options)
  assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
  prepare("pa100k", data_dir=tmp_path / "data", **{**options, "max_bad": 0.1})


# Reading.


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_threads_share_an_archive(tmp_path, suffix):
  folder = tmp_path / "photos"
  (folder / "a b").mkdir(parents=True)
  content = {f"a b/{number}.bin": bytes([number]) * (number * 997) for number in range(40)}
  for name, data in content.items():
    (folder / name).write_bytes(data)
  (pack_zip if suffix == ".zip" else pack_tar)(folder, tmp_path / f"photos{suffix}")
  root = archives.folder(folder)
  wrong = []

  def read_all():
    wrong.extend(name for name, data in content.items() if (root / name).read_bytes() != data)

  threads = [threading.Thread(target=read_all) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong
  assert (root / "a b").is_dir() and not (root / "a").is_dir() and (root / "a b" / "3.bin").is_file()
  assert (root / "a b" / "3.bin").name == "3.bin" and str(root / "x") == f"{folder}{suffix}/x"
  with pytest.raises(OSError, match=f"not in photos{suffix}"):
    (root / "x").read_bytes()


def test_an_entry_that_is_larger_than_it_says(tmp_path):
  path = zip_of(tmp_path / "x.zip", ("a.jpg", bytes(100_000)))
  data = bytearray(path.read_bytes())
  at = data.index(b"PK\1\2")
  data[at + 24:at + 28] = (1000).to_bytes(4, "little")
  path.write_bytes(data)
  with pytest.raises(images.ImageError, match="damaged in x.zip"):
    (archives.folder(tmp_path / "x") / "a.jpg").read_bytes()


def test_a_folder_and_a_missing_one_stay_paths(tmp_path):
  assert archives.folder(tmp_path) == tmp_path
  assert archives.folder(tmp_path / "nothing") == tmp_path / "nothing"


# What is refused.


def zip_entry(name, mode=0):
  info = zipfile.ZipInfo(name)
  info.external_attr = mode << 16
  info.compress_type = zipfile.ZIP_DEFLATED
  return info


@pytest.mark.parametrize("entry, data, message", [
    ("../a.jpg", b"", r"entry '../a.jpg' leaves its folder"),
    ("x/../../a.jpg", b"", "leaves its folder"),
    ("/etc/a.jpg", b"", "entry '/etc/a.jpg' leaves its folder"),
    ("..\\a.jpg", b"", "leaves its folder"),
    ("../", b"", "leaves its folder"),
    (zip_entry("a.jpg", stat.S_IFLNK | 0o777), b"/etc/passwd", "entry 'a.jpg' is a link"),
    (zip_entry("a.jpg", stat.S_IFIFO), b"", "special kind"),
    ("a.jpg", bytes(archives.BOMB_BYTES + 1), "entry 'a.jpg' unpacks .* to 50,000,001 bytes, more than 200 times as many"),
])
def test_zips_that_are_refused(tmp_path, entry, data, message):
  zip_of(tmp_path / "train.zip", ("b.jpg", b"x"), (entry, data))
  with pytest.raises(InputError, match=f"train.zip: .*{message}") as caught:
    archives.folder(tmp_path / "train")
  assert "\n" not in str(caught.value)


def test_zips_with_stated_sizes_passwords_and_methods(tmp_path):
  path = zip_of(tmp_path / "x.zip", ("a.jpg", b"abc"))
  whole = path.read_bytes()
  at = whole.index(b"PK\1\2")

  def changed(offset, value, length):
    path.write_bytes(whole[:at + offset] + value.to_bytes(length, "little") + whole[at + offset + length:])
    with pytest.raises(InputError) as caught:
      archives.folder(tmp_path / "x")
    return str(caught.value)

  assert "entry 'a.jpg' has 200,000,001 bytes, more than the limit of 200,000,000" in changed(24, archives.MAX_BYTES + 1, 4)
  assert "entry 'a.jpg' is encrypted" in changed(8, 1, 2)
  assert "is packed by method 9" in changed(10, 9, 2)
  zip_of(path, ("a.jpg", b""), ("./a.jpg", b""))
  with pytest.raises(InputError, match="entry 'a.jpg' comes twice"):
    archives.folder(tmp_path / "x")
  for content in (b"<html>", whole[:-10], b""):
    path.write_bytes(content)
    with pytest.raises(InputError, match="x.zip: not a readable zip archive"):
      archives.folder(tmp_path / "x")


@pytest.mark.parametrize("name, kind, message", [
    ("../a.jpg", tarfile.REGTYPE, "leaves its folder"),
    ("/a.jpg", tarfile.REGTYPE, "leaves its folder"),
    ("a.jpg", tarfile.SYMTYPE, "entry 'a.jpg' is a link"),
    ("a.jpg", tarfile.LNKTYPE, "is a link"),
    ("a.jpg", tarfile.CHRTYPE, "special kind"),
])
def test_tars_that_are_refused(tmp_path, name, kind, message):
  info = tarfile.TarInfo(name)
  info.type, info.linkname = kind, "/etc/passwd"
  with tarfile.open(tmp_path / "x.tar", "w") as file:
    file.addfile(info)
  with pytest.raises(InputError, match=f"x.tar: .*{message}"):
    archives.folder(tmp_path / "x")


def test_tars_that_are_damaged_or_compressed(tmp_path):
  path = tmp_path / "x.tar"
  with tarfile.open(path, "w") as file:
    info = tarfile.TarInfo("a.jpg")
    info.size = 5000
    file.addfile(info, io.BytesIO(bytes(5000)))
  whole = path.read_bytes()
  path.write_bytes(whole[:3000])
  with pytest.raises(InputError, match="x.tar: (truncated at entry 'a.jpg'|not a readable tar)"):
    archives.folder(tmp_path / "x")
  path.write_bytes(b"\x1f\x8b" + whole)
  with pytest.raises(InputError, match="x.tar: not a readable tar"):
    archives.folder(tmp_path / "x")
  path.rename(tmp_path / "x.tar.gz")
  with pytest.raises(InputError, match="x.tar.gz: a compressed tar"):
    archives.folder(tmp_path / "x")
