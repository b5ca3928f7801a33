"""Synthetic street scenes in the original layout of WIDER-Attribute.

    Image/<split>/<scene>/*.jpg        photos; scene folders such as "0--Parade"
    Mask/<split>/<scene>/*_<i>.png     one mask per target
    wider_attribute_trainval.json      splits train and val
    wider_attribute_test.json          split test

The JSON files hold `attribute_id_map`, `scene_id_map` and `images`, a list of
`{"file_name", "scene_id", "targets"}`; a target is `{"attribute": [14 of 1, -1,
0], "bbox": [x, y, width, height], "mask": file}` with `mask` relative to the
data set's folder. A reader of the real layout, which has no masks, finds
everything else where it expects it.

A mask is an 8-bit grey PNG: 255 where a pixel shows this person (clothes and
hat included, bags, signs and whatever stands in front excluded), else 0. It
covers the pixels that the box touches: columns floor(x) to ceil(x + width),
rows floor(y) to ceil(y + height), end exclusive. Boxes lie inside their photo.
"""

import contextlib
import dataclasses
import json
import pathlib

import cv2
import numpy as np
import simplejpeg
import tqdm

from attr_jax.data.worlds import common
from attr_jax.data.worlds import people_scene
from attr_jax.data.worlds.people_look import SCENES

ATTRIBUTES = people_scene.ATTRIBUTES
SPLITS = ("train", "val", "test")
_MIN_PER_PROCESS = 300  # boxes; below, starting a process costs more than it saves


@dataclasses.dataclass(frozen=True)
class Crowd:
  """How close people stand: what distracts a recogniser of one of them.

  Attributes:
    sizes: shares of photos with 1, 2, ... annotated people.
    bystanders: fewer than so many more are drawn, who may be hidden.
    spread: room between neighbours, 1 as usual.
  """

  sizes: tuple[float, ...]
  bystanders: int
  spread: float


CROWDS = {
    "usual": Crowd((0.10, 0.22, 0.26, 0.22, 0.13, 0.07), 3, 1.0),
    "alone": Crowd((1.0,), 1, 1.0),
    "crowded": Crowd((0.0, 0.0, 0.0, 0.2, 0.4, 0.4), 3, 0.5),
}


def split_counts(count: int) -> dict[str, int]:
  """Boxes per split: half for training, a tenth for validation, the rest for test."""
  train, val = (count + 1) // 2, count // 10
  return {"train": train, "val": val, "test": count - train - val}


def synthesize(out: pathlib.Path, *, count: int, seed: int = 0, crowd: str = "usual", workers: int | None = None,
               progress: bool = True) -> dict:
  """Draws a data set with exactly `count` person boxes into the folder `out`.

  The bytes are a function of (count, seed, crowd) alone. Scenes of a split are drawn
  from (seed, split, number of the scene), so the number of `workers`
  (processes; default: one per core where the work is worth it) changes nothing.
  `out` appears whole or not at all.

  Args:
    out: A folder that is missing or empty.
    count: At least 1.
    seed: At least 0.
    crowd: A key of CROWDS.
    workers: Processes.
    progress: Show a bar.

  Returns:
    Counts: images, boxes, and boxes per split.

  Raises:
    InputError: count, seed or workers out of range; `out` is not empty.
  """
  out = pathlib.Path(out)
  common.check_call(out, count=count, seed=seed, workers=workers)
  boxes = split_counts(count)
  jobs = [(crowd, seed, split, number, wanted)
          for split in SPLITS for number, wanted in enumerate(_plan(CROWDS[crowd], seed, split, boxes[split]))]
  workers = workers or common.default_workers(count, _MIN_PER_PROCESS)
  with common.whole_folder(out) as root:
    _make_folders(root)
    images = {split: [] for split in SPLITS}
    with contextlib.closing(common.draw_all(_draw_job, root, jobs, workers)) as entries:
      with tqdm.tqdm(total=count, desc="people", unit="box", ncols=80, disable=not progress) as bar:
        for (_, _, split, _, wanted), entry in zip(jobs, entries):
          images[split].append(entry)
          bar.update(wanted)
    _write_json(root / "wider_attribute_trainval.json", images["train"] + images["val"])
    _write_json(root / "wider_attribute_test.json", images["test"])
  return {"images": len(jobs), "boxes": count, **boxes}


def _plan(crowd: Crowd, seed: int, split: str, boxes: int) -> list[int]:
  """How many people to annotate in each scene of a split; sums to `boxes`."""
  rng = np.random.default_rng([seed, SPLITS.index(split)])
  plan = []
  while boxes > 0:
    plan.append(min(boxes, 1 + int(rng.choice(len(crowd.sizes), p=crowd.sizes))))
    boxes -= plan[-1]
  return plan


def _folder(kind: int) -> str:
  return f"{kind}--{SCENES[kind].name}"


def _make_folders(root: pathlib.Path):
  for top in ("Image", "Mask"):
    for split in SPLITS:
      for kind in range(len(SCENES)):
        (root / top / split / _folder(kind)).mkdir(parents=True)


def _draw_job(root: pathlib.Path, crowd: str, seed: int, split: str, number: int, wanted: int) -> dict:
  """Draws one scene with `wanted` targets, writes its files, returns its JSON entry."""
  rng = np.random.default_rng([seed, SPLITS.index(split), number])
  share = np.array([kind.share for kind in SCENES])
  kind = int(rng.choice(len(share), p=share / share.sum()))
  spread, bystanders = CROWDS[crowd].spread, CROWDS[crowd].bystanders
  while len((scene := people_scene.draw_scene(rng, SCENES[kind], wanted, spread, bystanders)).targets) < wanted:
    spread += 0.5  # too many hidden: once more with more room
  stem = f"{split}/{_folder(kind)}/{kind}_{SCENES[kind].name}_{number:06d}"
  jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(scene.image), quality=int(rng.integers(72, 93)), colorsubsampling="420")
  (root / "Image" / f"{stem}.jpg").write_bytes(jpeg)
  targets = []
  for index, target in enumerate(scene.targets[:wanted]):
    mask = f"Mask/{stem}_{index}.png"
    _, png = cv2.imencode(".png", target.mask)
    (root / mask).write_bytes(png.tobytes())
    targets.append({"attribute": target.attribute, "bbox": target.bbox, "mask": mask})
  return {"file_name": f"{stem}.jpg", "scene_id": kind, "targets": targets}


def _write_json(path: pathlib.Path, images: list):
  path.write_text(json.dumps({
    "attribute_id_map": {str(i): name for i, name in enumerate(ATTRIBUTES)},
    "scene_id_map": {str(i): kind.name for i, kind in enumerate(SCENES)},
    "images": images}))
