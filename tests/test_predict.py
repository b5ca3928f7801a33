"""`attr-jax predict` and the recogniser in Python: scores, decisions and maps, what is read, what is printed, what is drawn."""

import csv
import io
import itertools
import json
import pathlib
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import helpers
from helpers import load

from attr_jax import answers
from attr_jax import evaluate
from attr_jax import explain
from attr_jax import metrics
from attr_jax import models
from attr_jax import photos as photos_lib
from attr_jax import predict
from attr_jax import run_folder
from attr_jax import sharding
from attr_jax import steps
from attr_jax import train
from attr_jax.data import images as images_lib
from attr_jax.errors import InputError

LABELS = 14


call = lambda capsys, *argv: helpers.call(capsys, "predict", *argv)


@pytest.fixture(scope="module")
def workdir(world_dir, tmp_path_factory):
  """A finished tiny run."""
  folder = tmp_path_factory.mktemp("runs") / "tiny"
  train.train_and_evaluate(helpers.tiny_config(world_dir), folder, quiet=True)
  return folder


@pytest.fixture(scope="module")
def recognizer(workdir):
  """Of six images at a time, which four devices make eight."""
  return predict.load_recognizer(workdir, batch_size=6)


@pytest.fixture(scope="module")
def people(workdir):
  """Images of the test split, and how many."""
  config, _ = run_folder.read_start(workdir)
  source = evaluate.open_source(config, evaluate.open_data(config), "test")
  return [images_lib.decode_jpeg(source[i]["image"]) for i in range(11)]


@pytest.fixture
def folder(tmp_path, people):
  """Photos in folders, beside what is none."""
  for name, image in zip(("b.jpg", "a.PNG", "in/c.jpg", "in/deep/a.jpeg", ".hidden.jpg"), people):
    path = tmp_path / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images_lib.encode_png(image) if name.endswith("PNG") else images_lib.encode_jpeg(image))
  (tmp_path / "photos" / "notes.txt").write_text("no photo")
  return tmp_path / "photos"


def names_of(photos):
  return [str(photo.file) for photo in photos]


# Scores, decisions, maps.


def test_scores_are_those_of_the_evaluation(workdir, recognizer, people):
  assert len(jax.devices()) == 4 and recognizer.batch_size == 8
  mesh = sharding.make_mesh()
  run = evaluate.load_run(workdir, mesh)
  source = evaluate.open_source(run.config, evaluate.open_data(run.config), "test")
  table = evaluate.predict_split(steps.compile_predict_step(steps.make_predict_step(run.model, run.config), mesh), run.params, run.batch_stats,
                                 source, run.config, mesh, views="full")
  scores = recognizer(people)
  assert scores.shape == (11, LABELS) and scores.dtype == np.float64
  np.testing.assert_allclose(scores, metrics.probabilities(table["logit"][:11]), atol=1e-5)
  assert recognizer([]).shape == (0, LABELS) and recognizer.recognize([], explain=True).present.shape == (0, LABELS)


def test_any_number_of_devices_gives_the_same(workdir, recognizer, people):
  one = sharding.make_mesh(jax.devices()[:1])
  alone = predict.make_recognizer(evaluate.load_run(workdir, one), one, batch_size=3)
  assert alone.batch_size == 3
  a, b = (each.recognize(people, explain=True) for each in (recognizer, alone))
  np.testing.assert_allclose(a.scores, b.scores, atol=1e-6)
  np.testing.assert_allclose(a.maps["heatmap"], b.maps["heatmap"], atol=1e-4)


def test_maps_are_those_of_the_explain_step(workdir, recognizer, people):
  found = recognizer.recognize(people, explain=True)
  run = evaluate.load_run(workdir, sharding.make_mesh())
  expected = explain.make_explain(run)({"image": np.stack([recognizer.view(image) for image in people])})
  assert found.maps.keys() == {"heatmap"} and found.maps["heatmap"].dtype == np.float32
  np.testing.assert_allclose(found.maps["heatmap"], expected["heatmap"], atol=1e-4)
  trunk = {"stem", *(f"stage{i}" for i in range(1, 5))}
  assert trunk <= expected.keys() and found.out.keys() == expected.keys() - {"logits", "heatmap"} - trunk
  for key, value in found.out.items():
    np.testing.assert_allclose(value, expected[key], atol=1e-3, err_msg=key)
  plain = recognizer.recognize(people)
  np.testing.assert_allclose(plain.scores, found.scores, atol=1e-6)
  assert plain.maps == {} and plain.out == {}
  np.testing.assert_array_equal(found.row(7).maps["heatmap"], found.maps["heatmap"][7:8])


def test_thresholds_are_those_of_validation_or_fixed(workdir, recognizer, people):
  run = evaluate.load_run(workdir, sharding.make_mesh())
  written = run_folder.read_thresholds(workdir, run.step, run.info.label_names)
  np.testing.assert_array_equal(recognizer.thresholds, [written["threshold"][name] for name in recognizer.label_names])
  assert recognizer.rule == written["rule"]
  found = recognizer.recognize(people)
  np.testing.assert_array_equal(found.present, found.scores >= recognizer.thresholds)
  fixed = predict.load_recognizer(workdir, thresholds="fixed")
  assert (fixed.thresholds == 0.5).all() and "0.5" in fixed.rule
  np.testing.assert_array_equal(fixed.recognize(people).present, fixed(people) >= 0.5)
  with pytest.raises(InputError, match="thresholds='best' is unknown"):
    predict.load_recognizer(workdir, thresholds="best")


def test_missing_thresholds_are_chosen_again_or_warned_of(workdir, recognizer, capsys, monkeypatch):
  file = workdir / "thresholds.json"
  written = file.read_text()
  try:
    file.unlink()
    again = predict.load_recognizer(workdir)
    np.testing.assert_array_equal(again.thresholds, recognizer.thresholds)
    assert json.loads(file.read_text()) == json.loads(written)
    assert "choosing them" in capsys.readouterr().err
    file.write_text(json.dumps(json.loads(written) | {"step": 1}))  # of another checkpoint
    old = file.read_text()
    predict.load_recognizer(workdir, checkpoint=str(json.loads(written)["step"]))
    assert file.read_text() == old and "choosing them" in capsys.readouterr().err  # only those of the best one are kept
    file.unlink()

    def no_data(*_, **__):
      raise InputError("the data are not here")

    monkeypatch.setattr(evaluate, "open_data", no_data)
    plain = predict.load_recognizer(workdir)
    assert (plain.thresholds == 0.5).all() and "0.5" in plain.rule and not file.exists()
    warning, = (line for line in capsys.readouterr().err.splitlines() if "warning" in line)
    assert "0.5" in warning and "the data are not here" in warning
    file.write_text("{")
    with pytest.raises(InputError, match="thresholds.json cannot be read"):
      predict.load_recognizer(workdir)
    file.write_text(json.dumps(json.loads(written) | {"threshold": {"Hat": 0.5}}))
    with pytest.raises(InputError, match="other labels"):
      predict.load_recognizer(workdir)
  finally:
    file.write_text(written)


def test_large_photos_are_shrunk_as_prepare_shrinks_them(recognizer):
  """A grating of one pixel is even grey to the network, not stripes."""
  photo = np.zeros((880, 520, 3), np.uint8)
  photo[:, ::2] = 255
  view = recognizer.view(photo)
  assert view.shape == (*recognizer.config.input.full_size, 3) and np.ptp(view.astype(int)) <= 2 and abs(int(view[0, 0, 0]) - 128) <= 1
  assert recognizer.view(view) is view
  with pytest.raises(ValueError, match=r"image 1: expected uint8 \[H, W, 3\], got float64"):
    recognizer([photo, photo / 255])


def fresh(config, info):
  """An untrained run."""
  model = models.build(config.model, len(info.label_names), config.compute_dtype)
  variables = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, *config.input.size, 3)), train=False))()
  return evaluate.Run(config, info, variables["params"], variables["batch_stats"], 0, "last", model)


@pytest.fixture
def info(config):
  return evaluate.open_data(config).info


def noise(count, seed=0):
  rng = np.random.default_rng(seed)
  return [np.kron(rng.integers(0, 256, (8, 6, 3)), np.ones((11, 9, 1))).astype(np.uint8) for _ in range(count)]


def test_a_decoder_decides_as_in_the_evaluation(world_dir, info):
  config = load("attncnn_rnn.py:system=attncnn_rnn,tiny", world_dir, **{"evaluate.threshold": "global"})
  run, mesh, images = fresh(config, info), sharding.make_mesh(), noise(10)
  plain = predict.make_recognizer(run, mesh, batch_size=4)
  views = np.stack([plain.view(image) for image in images])
  rows = jax.device_get(jax.jit(steps.make_predict_step(run.model, config))(run.params, run.batch_stats, {"image": views}))
  label = np.random.default_rng(1).integers(0, 2, rows["logit"].shape).astype(np.uint8)
  val = dict(rows) | {"label": label, "known": np.ones_like(label, bool)}
  chosen = evaluate.choose(config, info, rows, val)
  found = predict.make_recognizer(run, mesh, batch_size=4, calibration={"factor": chosen.threshold, "split": "val"}).recognize(images, explain=True)
  np.testing.assert_array_equal(found.present, chosen.decision)
  config.evaluate.threshold = "fixed"
  np.testing.assert_array_equal(plain.recognize(images).present, evaluate.choose(config, info, rows, None).decision)
  assert plain.chooses_sets and "decoder" in plain.rule and f"{config.decide.factor:g}" in plain.rule
  # The kept steps are the set.
  kept = np.zeros_like(found.present)
  for n, labels in enumerate(found.out["step_labels"]):
    kept[n, labels[found.out["step_kept"][n]]] = True
  np.testing.assert_array_equal(kept, found.present)


@pytest.mark.parametrize("name, maps, out", [
    ("srn.py:tiny", {"heatmap", "attention"}, {"confidence"}),
    ("diaa.py:tiny", {"attention_0", "attention_1"}, set()),
    ("dahar.py:tiny", {"heatmap", "attention"}, {"mask"}),
    ("face.py:celeba_aligned/ssp,tiny", {"attention"}, {"region_probability", "region_weights"}),
    ("face.py:system=parser,tiny", set(), {"region_probability"}),
    ("attncnn_rnn.py:system=attncnn_rnn,tiny", set(), {"step_attention", "step_labels", "step_kept"}),
])
def test_every_model_is_explained_and_drawn(name, maps, out, world_dir, info, tmp_path):
  """One pass, whatever the model has; pictures of two images differ."""
  config = load(name, world_dir)
  recognizer = predict.make_recognizer(fresh(config, info), sharding.make_mesh(), batch_size=4)
  images = noise(3)
  found = recognizer.recognize(images, explain=True)
  assert maps <= found.maps.keys() and out <= found.out.keys(), (found.maps.keys(), found.out.keys())
  assert all(value.shape[::3] == (3, found.scores.shape[1]) and value.dtype == np.float32 for value in found.maps.values())
  assert all(len(value) == 3 for value in found.out.values())
  np.testing.assert_allclose(found.scores, recognizer(images), atol=1e-5)
  for n in range(2):
    answer = predict.Answer(photos_lib.Photo(pathlib.Path(f"{n}.jpg")), found.row(n), images[n])
    answers.draw(recognizer, answer, tmp_path / f"{n}.png")
  a, b = (images_lib.decode_image((tmp_path / f"{n}.png").read_bytes()) for n in range(2))
  assert a.shape != b.shape or (a != b).any()


@pytest.mark.parametrize("options, missing", [("system=bbox,tiny", "landmarks"), ("annotation=x,system=ssp,tiny", "regions")])
def test_a_model_that_takes_more_than_photos_says_so(options, missing, world_dir, info):
  run = fresh(load(f"face.py:{options}", world_dir), info)
  with pytest.raises(InputError, match=f"needs {missing} .* photos alone do not have them"):
    predict._check_inputs(run, pathlib.Path("run"))


# What is read.


def test_folders_patterns_and_lists(folder, tmp_path, monkeypatch):
  below = [folder / name for name in ("a.PNG", "b.jpg", "in/c.jpg", "in/deep/a.jpeg")]
  assert names_of(photos_lib.find([str(folder)])) == list(map(str, below)) == list(map(str, sorted(below)))
  assert names_of(photos_lib.find([f"{folder}/*.jpg"])) == [f"{folder}/b.jpg"]
  assert names_of(photos_lib.find([f"{folder}/**/*.jp*g"])) == [f"{folder}/b.jpg", f"{folder}/in/c.jpg", f"{folder}/in/deep/a.jpeg"]
  assert names_of(photos_lib.find([f"{folder}/i*"])) == list(map(str, below[2:]))
  odd = folder / "x[1].jpg"
  odd.write_bytes((folder / "b.jpg").read_bytes())
  assert names_of(photos_lib.find([str(odd)])) == [str(odd)]
  (tmp_path / "empty").mkdir()
  for name, fault in ((tmp_path / "empty", "no image in this folder"), (f"{folder}/*.gif", "no file has such a name")):
    photo, = photos_lib.find([str(name)])
    assert fault in photo.fault
  (tmp_path / "list.txt").write_bytes(b"a.jpg\r\n\n b c.jpg\n" + "ä.jpg".encode() + b"\n")
  expected = ["a.jpg", " b c.jpg", "ä.jpg"]
  assert list(photos_lib.listed(str(tmp_path / "list.txt"))) == expected
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "list.txt").read_bytes())))
  assert list(photos_lib.listed("-")) == expected


def test_boxes_are_cut_as_numpy_slices(tmp_path):
  scene = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
  (tmp_path / "scenes").mkdir()
  (tmp_path / "scenes" / "s.png").write_bytes(images_lib.encode_png(scene))
  table = tmp_path / "boxes.csv"
  table.write_text("\ufeffx,y,width,height,name,file\n10,20,30,25,a,scenes/s.png\n-5,50,20.5,40,b,scenes/s.png\n\n"
                   "1,2,three,4,c,scenes/s.png\n1,2,0,4,d,scenes/s.png\n200,2,5,4,e,scenes/s.png\n1,2,3\n0,0,9,9,f,scenes/none.png\n"
                   "90.5,0,9.5,3,g,scenes/s.png\n")
  found = list(photos_lib.read(photos_lib.boxed(table), lambda image: image.copy()))
  expected = {0: scene[20:45, 10:40], 1: scene[50:60, :16], 7: scene[:3, 90:]}
  for n, (photo, image) in enumerate(found):
    if n in expected:
      np.testing.assert_array_equal(image, expected[n])
      assert not photo.fault and photo.box
    else:
      assert image is None
  faults = {n: f"{photo}: {photo.fault}" for n, (photo, image) in enumerate(found) if image is None}
  for n, (line, words) in {2: (5, "width: expected a number"), 3: (6, "above 0"), 4: (7, "outside of the image, which is 100x60"),
                           5: (8, "expected 6 values"), 6: (9, "No such file")}.items():
    assert faults[n].startswith(f"{table} line {line}") and words in faults[n]
  # With a margin as `prepare` cuts it.
  (_, wide), *_ = photos_lib.read(photos_lib.boxed(table), lambda image: image.copy(), margin=0.1)
  np.testing.assert_array_equal(wide, scene[17:48, 7:43])
  own = tmp_path / "labels.csv"  # of `prepare own_photos`
  own.write_text("image;Hat;x;y;width;height\nscenes\\s.png;1;10;20;30;25\n")
  (photo, image), = photos_lib.read(photos_lib.boxed(own), lambda image: image.copy())
  np.testing.assert_array_equal(image, expected[0])
  for text, words in (("file,x,y\n", "line 1: expected the columns"), ("", "got nothing"), ('file,x,y,width,height\n"a,1,2,3,4\n', "not CSV")):
    table.write_text(text)
    with pytest.raises(InputError, match=words):
      list(photos_lib.boxed(table))


def test_answers_come_while_names_are_still_found(recognizer, folder):
  """Memory does not grow with the number of photos: of endlessly many names few are asked for."""
  asked = itertools.count()

  def endless():
    for _ in asked:
      yield photos_lib.Photo(folder / "b.jpg")

  answered = predict.predict_files(recognizer, endless(), threads=2)
  first = list(itertools.islice(answered, 40))
  answered.close()
  assert len(first) == 40 and next(asked) <= 40 + 4 * 4 * recognizer.batch_size
  assert all(answer.shown is None and not answer.recognition.maps for answer in first)


# The command.


def test_bad_files_are_named_and_the_rest_is_answered(capsys, workdir, folder, tmp_path):
  whole = (folder / "b.jpg").read_bytes()
  bad = {"truncated.jpg": whole[:200], "empty.jpg": b"", "text.jpg": b"<html></html>", "noise.png": b"abc"}
  for name, data in bad.items():
    (tmp_path / name).write_bytes(data)
  files = [folder / "b.jpg", *(tmp_path / name for name in bad), tmp_path / "missing.jpg", folder / "in"]
  status, out, err = call(capsys, f"--workdir={workdir}", "--json", *files)
  found = [json.loads(line) for line in out.splitlines()]
  assert status == 2 and [pathlib.Path(answer["file"]).name for answer in found] == ["b.jpg", "c.jpg", "a.jpeg"]
  assert len(err.splitlines()) == 5 and all(name in err for name in (*bad, "missing.jpg"))
  for words in ("truncated.jpg: truncated JPEG", "empty.jpg: empty file", "text.jpg: text (HTML", "missing.jpg: No such file"):
    assert words in err


def test_json_and_csv_say_what_python_does(capsys, workdir, recognizer, folder, people, tmp_path):
  images = [images_lib.decode_image(path.read_bytes()) for path in (folder / "a.PNG", folder / "b.jpg")]
  expected = recognizer.recognize(images)
  files = folder / "a.PNG", folder / "b.jpg"
  status, out, err = call(capsys, f"--workdir={workdir}", "--json", *files)
  lines = [json.loads(line) for line in out.splitlines()]
  assert status == 0 and not err and [line["file"] for line in lines] == list(map(str, files))
  present = [[name for name, there in zip(recognizer.label_names, row) if there] for row in expected.present]
  for n, line in enumerate(lines):
    assert list(line) == ["file", "scores", "present", "thresholds"]
    np.testing.assert_allclose(list(line["scores"].values()), expected.scores[n], atol=1e-5)
    assert line["present"] == present[n] and list(line["thresholds"].values()) == recognizer.thresholds.tolist()
  status, out, _ = call(capsys, f"--workdir={workdir}", "--csv", *files)
  rows = list(csv.DictReader(io.StringIO(out)))
  assert list(rows[0]) == ["file", *recognizer.label_names, "present"]
  for n, row in enumerate(rows):
    np.testing.assert_allclose([float(row[name]) for name in recognizer.label_names], expected.scores[n], atol=1e-5)
    assert row["present"].split(";") == (present[n] or [""])
  status, out, _ = call(capsys, f"--workdir={workdir}", "--json", "--threshold=0.5", files[0])
  line = json.loads(out)
  assert line["present"] == [name for name, score in line["scores"].items() if score >= 0.5] and set(line["thresholds"].values()) == {0.5}

  scene = np.concatenate([images[1], images[1][:, ::-1]], axis=1)
  (tmp_path / "scene.png").write_bytes(images_lib.encode_png(scene))
  height, width = images[1].shape[:2]
  (tmp_path / "boxes.csv").write_text(f"file,x,y,width,height\nscene.png,0,0,{width},{height}\nscene.png,a,0,1,1\nscene.png,{width},0,{width},{height}\n")
  status, out, err = call(capsys, f"--workdir={workdir}", "--json", f"--boxes={tmp_path / 'boxes.csv'}")
  crops = recognizer([images[1], images[1][:, ::-1]])
  lines = [json.loads(line) for line in out.splitlines()]
  assert status == 2 and "boxes.csv line 3: x: expected a number" in err and [line["box"] for line in lines] == [
      [0, 0, width, height], [width, 0, width, height]]
  np.testing.assert_allclose([list(line["scores"].values()) for line in lines], crops, atol=1e-5)
  status, out, _ = call(capsys, f"--workdir={workdir}", "--csv", f"--boxes={tmp_path / 'boxes.csv'}")
  assert [row["box"] for row in csv.DictReader(io.StringIO(out))] == [f"0 0 {width} {height}", f"{width} 0 {width} {height}"]


def test_the_table_fits_a_terminal(capsys, workdir, recognizer, folder, monkeypatch):
  monkeypatch.chdir(folder)
  status, out, _ = call(capsys, f"--workdir={workdir}", "b.jpg", "--top=20")
  lines = out.splitlines()
  assert status == 0 and max(map(len, lines)) <= 80 and recognizer.rule in lines[0] and "threshold" in lines[1] and "b.jpg" in lines
  rows = [line for line in lines if line.endswith("%")]
  score, = recognizer([images_lib.decode_image(pathlib.Path("b.jpg").read_bytes())])
  order = np.argsort(-score)
  assert [row[4:].split()[0] for row in rows] == [recognizer.label_names[i] for i in order]
  assert [row[2] == "x" for row in rows] == (score >= recognizer.thresholds)[order].tolist()
  status, out, _ = call(capsys, f"--workdir={workdir}", "b.jpg", "--top=3")
  assert len([line for line in out.splitlines() if line.endswith("%")]) == 3 and "and 11 with lower scores" in out


def test_pictures_have_names_of_their_own_and_show_the_maps(capsys, workdir, folder, tmp_path):
  (folder / "in" / "b.jpg").write_bytes((folder / "b.jpg").read_bytes())
  status, out, _ = call(capsys, f"--workdir={workdir}", "--json", folder / "b.jpg", folder / "in", f"--pictures={tmp_path / 'pictures'}", "--top=3")
  written = [pathlib.Path(json.loads(line)["picture"]) for line in out.splitlines()]
  assert status == 0 and [path.name for path in written] == ["b.png", "b-2.png", "c.png", "a.png"]
  assert set(written) == set((tmp_path / "pictures").iterdir())
  shown = [cv2.imread(str(path)) for path in written]
  np.testing.assert_array_equal(shown[0], shown[1])
  assert shown[0].shape != shown[2].shape or (shown[0] != shown[2]).any()


def test_maps_of_attributes_differ_on_a_picture(tmp_path, monkeypatch):
  """The sheet gets the maps of the highest scores in their order, and what is present without any truth."""
  rows = []
  monkeypatch.setattr(explain.overlays, "draw_sheet", lambda found, *_, **options: rows.append((found, options)))
  monkeypatch.setattr(explain, "_png", lambda draw, *args, **options: draw(*args, path=None, **options) or np.full((9, 9, 3), 255, np.uint8))
  maps = np.random.default_rng(0).random((4, 3, 5)).astype(np.float32)
  explain.draw_photo(np.zeros((8, 6, 3), np.uint8), np.array([0.1, 0.9, 0.5, 0.2, 0.7]), np.array([1, 1, 0, 0, 0], bool), {"heatmap": maps}, {},
                     "abcde", tmp_path / "new" / "p.png", most=3)
  ((_, *panels),), options = rows[0]
  assert [panel.caption for panel in panels] == [("b", "✓ 90 %"), ("e", "– 70 %"), ("c", "– 50 %")]
  for panel, label in zip(panels, (1, 4, 2)):
    np.testing.assert_array_equal(panel.heat, maps[..., label])
  assert [name for _, _, name in options["marks"]] == ["present", "absent"] and (tmp_path / "new" / "p.png").exists()


@pytest.mark.parametrize("argv, words", [
    ([], "no photo is named"),
    (["a.jpg", "--top=0"], "--top=0: expected 1 or more"),
    (["a.jpg", "--batch-size=0"], "--batch-size=0: expected 1 or more"),
    (["--list=nowhere.txt"], "nowhere.txt: No such file"),
    (["--boxes=nowhere.csv"], "nowhere.csv: No such file"),
])
def test_wrong_calls_are_one_line(capsys, workdir, argv, words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  status, _, err = call(capsys, f"--workdir={workdir}", *argv)
  assert status == 2 and words in err and len(err.strip().splitlines()) == 1, err


def test_a_list_on_the_standard_input(capsys, workdir, folder, monkeypatch):
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{folder}/b.jpg\n{folder}/in\n".encode())))
  status, out, _ = call(capsys, f"--workdir={workdir}", "--json", "--list=-")
  assert status == 0 and [pathlib.Path(json.loads(line)["file"]).name for line in out.splitlines()] == ["b.jpg", "c.jpg", "a.jpeg"]
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
  status, _, err = call(capsys, f"--workdir={workdir}", "--list=-")
  assert status == 2 and "no photo is named: the list is empty" in err
