"""What `prepare --check` says of a prepared folder, whole and damaged, and the calls that it refuses."""

import re

from array_record.python import array_record_data_source
from array_record.python import array_record_module
import cv2
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from attr_jax import check
from attr_jax import cli
from attr_jax.data import images
from attr_jax.data import registry
from attr_jax.data.builders import records
from attr_jax.data.prepare import prepare
from attr_jax.errors import InputError


def prepared(source, tmp_path, name="pa100k", **options):
  return prepare(name, source=source.folder, data_dir=tmp_path / "data",
                 **{"progress": False, "size": 64, "allow_deviations": True, **options})


def rewrite(folder, split, index, change):
  """Writes a split again with `change` done to the features of one record."""
  (path,) = folder.glob(f"*-{split}.array_record-*")
  source = array_record_data_source.ArrayRecordDataSource([str(path)])
  stored = [source[i] for i in range(len(source))]
  example = tf_example_pb2.Example.FromString(stored[index])
  change(example.features.feature)
  stored[index] = example.SerializeToString()
  writer = array_record_module.ArrayRecordWriter(str(path), records.WRITER_OPTIONS)
  for record in stored:
    writer.write(record)
  writer.close()


def call(capsys, *argv):
  with pytest.raises(SystemExit) as ended:
    cli.main(["prepare", *map(str, argv)])
  captured = capsys.readouterr()
  return ended.value.code, captured.out, captured.err


def examined(folder):
  return check.examine(check.find(folder), progress=False)


def paragraph(text, head):
  """What stands behind a head, on one line."""
  lines = text.split("\n\n")[0].splitlines()
  start = next(number for number, line in enumerate(lines) if line.startswith(f"{head:<12}"))
  rest = [lines[start][12:]]
  for line in lines[start + 1:]:
    if not line.startswith(" " * 12):
      break
    rest.append(line.strip())
  return " ".join(rest)


# What is there.


def test_what_is_said_of_a_whole_set(pa100k_source, tmp_path, capsys):
  source = pa100k_source()
  source.content["val_label"][:, 1] = 0
  source.save()
  (source.folder / "data" / "000003.jpg").write_bytes(b"<html>")
  folder = prepared(source, tmp_path, size=(64, 32), max_bad=0.2)
  status, out, err = call(capsys, f"--check={folder}")
  assert status == 0 and max(map(len, out.splitlines()[:-1])) <= 80 and "17/17" in err
  assert paragraph(out, "data set") == "pa100k, prepared as 64x32 (height x width), version 1.0.0"
  assert paragraph(out, "samples") == "5 train, 6 val, 6 test"
  size = sum(path.stat().st_size for path in folder.glob("*.array_record-*"))
  assert paragraph(out, "on disk") == f"{size / 1e6:.1f} MB in records"
  assert paragraph(out, "images") == "height 40 / 40 / 72, width 20 / 20 / 32 pixels (min / median / max)"
  assert paragraph(out, "besides") == "no masks, no landmarks"
  assert paragraph(out, "skipped").startswith("1 photos; first: 000003.jpg (")
  assert paragraph(out, "deviations") == "3 from what is published; first: train: 6 images, published 80000"
  assert paragraph(out, "faults") == "0 of 17 records"
  rows = out.split("\n\n")[1].splitlines()
  assert rows[0].split() == ["train", "val", "test"] and rows[1].split() == ["attribute", *["pos.", "%", "known", "%"] * 3]
  train = np.delete(source.content["train_label"], 2, axis=0)
  shares = [100 * train[:, 1].mean(), 0, 100 * source.content["test_label"][:, 1].mean()]
  assert rows[3].split() == ["Hat", f"{shares[0]:.2f}", "100.0", "0.00*", "100.0", f"{shares[2]:.2f}", "100.0"]
  assert rows[5] == "* labels without positives: 1 in val"
  sheet = cv2.imread(str(folder / "contact-sheet.png"))
  assert sheet.shape[1] > 1000 and str(folder / "contact-sheet.png") in out
  # All photos fit on it: the coloured ones leave their colours in all five rows.
  assert all((np.ptp(band.astype(int), axis=2) > 60).any() for band in np.array_split(sheet[62:], 5))


def test_known_shares_leave_unspecified_entries_out(wider_source, tmp_path):
  folder = prepared(wider_source(masks=True), tmp_path, "wider_attribute")
  found = examined(folder)
  text = check.describe(found)
  label, known, _ = registry.open_dataset("wider_attribute", tmp_path / "data").labels("train")
  assert known[:, 0].sum() < 18
  row = next(line for line in text.splitlines() if line.startswith("Male ")).split()
  assert row[1:3] == [f"{100 * (label & known)[:, 0].sum() / known[:, 0].sum():.2f}", f"{100 * known[:, 0].mean():.1f}"]
  assert paragraph(text, "besides") == "person masks"
  assert not (folder / "contact-sheet.png").exists()
  assert check.draw_samples(found, tmp_path / "new") == tmp_path / "new" / "contact-sheet.png"


def test_a_label_that_is_never_known_has_no_share(wider_source, tmp_path):
  source = wider_source()
  for image in source.trainval["images"]:
    for target in image["targets"]:
      target["attribute"][1] = 0
  source.save()
  text = check.describe(examined(prepared(source, tmp_path, "wider_attribute")))
  assert next(line for line in text.splitlines() if line.startswith("longHair ")).split()[1:5] == ["-*", "0.0", "-*", "0.0"]
  assert max(map(len, text.splitlines())) <= 80


def test_many_samples_are_drawn_from_all_splits(pa100k_source, tmp_path, monkeypatch):
  folder = prepared(pa100k_source(count=12), tmp_path)
  drawn = []
  whole = check._notes
  monkeypatch.setattr(check, "_notes", lambda names, sample, most: drawn.append(int(sample["id"])) or whole(names, sample, most))
  check.draw_samples(examined(folder))
  assert len(set(drawn)) == 24 and drawn[0] == 0 and drawn[-1] == 35 and drawn == sorted(drawn)


def test_notes_name_what_is_present_then_what_is_unknown():
  sample = {"label": np.array([1, 0, 1, 0, 1], np.uint8), "known": np.array([True, True, False, False, True])}
  notes = lambda most: [text for text, _ in check._notes("abcde", sample, most)]
  assert notes(4) == ["a", "e", "? c", "? d"]
  assert notes(3) == ["a", "e", "+2 more"]


# What is damaged.


def cut_image(feature):
  data = feature["image"].bytes_list.value[0]
  feature["image"].bytes_list.value[0] = data[:len(data) // 2]


def other_label(feature):
  feature["label"].int64_list.value[2] ^= 1


def no_label(feature):
  del feature["label"]


def cut_mask(feature):
  feature["person_mask"].bytes_list.value[0] = feature["person_mask"].bytes_list.value[0][:-20]


def small_mask(feature):
  feature["person_mask"].bytes_list.value[0] = images.encode_png(np.zeros((3, 4), np.uint8))


def no_mask(feature):
  del feature["person_mask"]


@pytest.mark.parametrize("change, reason", [
    (cut_image, "truncated"), (other_label, "label differs from labels.npz"), (no_label, "label differs"),
    (cut_mask, "person_mask: truncated PNG"), (small_mask, r"person_mask: 3x4, its image is \d+x\d+"), (no_mask, "lacks person_mask"),
])
def test_a_damaged_record_is_counted_and_named(wider_source, tmp_path, capsys, change, reason):
  folder = prepared(wider_source(masks=True), tmp_path, "wider_attribute")
  assert examined(folder).faults == []
  rewrite(folder, "val", 5, change)
  found = examined(folder)
  (fault,) = found.faults
  assert re.match(f"val record 5: .*{reason}", fault), fault
  assert found.readable["val"].tolist() == [index != 5 for index in range(9)]
  status, out, _ = call(capsys, f"--check={folder}")
  assert status == 2 and paragraph(out, "faults").startswith("1 of 36 records; first: val record 5: ")
  assert (folder / "contact-sheet.png").is_file()


def test_bytes_that_changed_on_disk(pa100k_source, tmp_path):
  """Every record of the damaged block is named, and those of other files are still read."""
  folder = prepared(pa100k_source(), tmp_path)
  (path,) = folder.glob("*-val.array_record-*")
  data = bytearray(path.read_bytes())
  data[data.index(b"\xff\xd8\xff") + 200] ^= 0xFF
  path.write_bytes(data)
  found = examined(folder)
  assert found.faults and all(fault.startswith("val record ") for fault in found.faults)
  assert found.readable["train"].all() and found.readable["test"].all()


def test_a_set_that_cannot_be_examined(pa100k_source, tmp_path):
  folder = prepared(pa100k_source(), tmp_path)
  (path,) = folder.glob("*-val.array_record-*")
  data = path.read_bytes()

  def fails(message):
    with pytest.raises(InputError, match=message) as caught:
      examined(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)

  path.write_bytes(b"no records")
  fails("split 'val' cannot be opened")
  path.unlink()
  fails("record files of split 'val' are missing")
  path.write_bytes(data)
  with np.load(folder / "labels.npz") as stored:
    arrays = dict(stored)
  np.savez_compressed(folder / "labels.npz", **arrays | {f"val_{key}": arrays[f"val_{key}"][1:] for key in ("label", "known", "id")})
  fails("6 records and 5 labels of split 'val'")
  (folder / "report.json").write_text("{")
  fails("report.json: not valid JSON")
  (folder / "report.json").unlink()
  fails("lacks report.json; prepare the data set again with --overwrite")


def test_nothing_to_draw(pa100k_source, tmp_path):
  folder = prepared(pa100k_source(count=1), tmp_path)
  for split in ("train", "val", "test"):
    rewrite(folder, split, 0, cut_image)
  found = examined(folder)
  assert len(found.faults) == 3 and paragraph(check.describe(found), "images") == "none"
  with pytest.raises(InputError, match="no record can be read"):
    check.draw_samples(found)


# Where it is looked for.


def test_parents_will_do_where_one_set_lies_below(pa100k_source, tmp_path):
  source = pa100k_source()
  folder = prepared(source, tmp_path)
  (folder / "annotations" / "masks").mkdir(parents=True)
  (folder / "annotations" / "masks" / "info.json").write_text("{}")
  (tmp_path / "data" / ".incomplete-pa100k-9x9" / "new").mkdir(parents=True)
  (tmp_path / "data" / ".incomplete-pa100k-9x9" / "new" / "features.json").write_text("{}")
  for place in (folder, *list(folder.parents)[:3]):
    assert check.find(place).path == folder
  prepared(source, tmp_path, size=32)
  with pytest.raises(InputError, match=r"pa100k: 2 prepared data sets; choose one: 32x32/1.0.0, 64x64/1.0.0$"):
    check.find(tmp_path / "data" / "pa100k")
  assert check.find(tmp_path / "data" / "pa100k" / "32x32").path.parent.name == "32x32"
  for place in (source.folder, tmp_path / "nowhere"):
    with pytest.raises(InputError, match="no prepared data set here or up to three folders below"):
      check.find(place)


@pytest.mark.parametrize("argv, message", [
    (["pa100k", "--check=x"], "--check goes with --out only, not with NAME"),
    (["--check=x", "--source=y", "--max-bad=0", "--allow-deviations"], "not with --source, --max-bad, --allow-deviations"),
    (["--check=x", "--data-dir=y", "--size=64", "--partition=1", "--overwrite"], "with --data-dir, --size, --partition, --overwrite"),
    (["pa100k", "--source=x", "--out=y"], "--out goes with --check only"),
    ([], "NAME and --source missing"), (["pa100k"], "--source missing"), (["--source=x"], "NAME missing"),
    (["--check=nowhere"], "nowhere: no prepared data set"),
])
def test_wrong_calls_are_one_line(capsys, tmp_path, monkeypatch, argv, message):
  monkeypatch.chdir(tmp_path)
  status, out, err = call(capsys, *argv)
  assert status == 2 and not out and len(err.splitlines()) == 1 and message in err


def test_zero_bad_photos_are_as_given(pa100k_source, tmp_path, capsys):
  """--max-bad=0 is no default."""
  source = pa100k_source(count=400)
  (source.folder / "data" / "000001.jpg").write_bytes(b"")
  argv = ["pa100k", f"--source={source.folder}", f"--data-dir={tmp_path / 'data'}", "--size=16", "--allow-deviations"]
  status, _, err = call(capsys, *argv, "--max-bad=0")
  assert status == 2 and "--max-bad allows 0 of them" in err
  status, _, _ = call(capsys, *argv)
  assert status == 0
