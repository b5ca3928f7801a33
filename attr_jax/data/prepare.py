"""From an original download to a prepared data set, all or nothing."""

import contextlib
import json
import os
import pathlib
import sys

from absl import logging
import numpy as np
import tqdm

from attr_jax.data import info as info_lib
from attr_jax.data import registry
from attr_jax.data.builders import records
from attr_jax.errors import InputError

FILES = ("dataset_info.json", "features.json", "info.json", "labels.npz", "report.json")  # beside the records
_LISTED = 5  # deviations in an error


def prepare(name: str, *, source: str | pathlib.Path, data_dir: str | pathlib.Path, size: int | str | tuple[int, int] | None = None,
            max_bad: float = 0.001, workers: int | None = None, progress: bool = True, overwrite: bool = False,
            allow_deviations: bool = False, partition: int | None = None, margin: float = 0.0) -> pathlib.Path:
  """Reads an original download, checks it and writes ArrayRecord.

  Images are cut to their box (and a margin) once, shrunk (never enlarged) so that they still
  cover `size`, and stored as JPEG. Records keep the order of the source; the
  same source gives the same records. The result appears by one rename at the
  very end: whatever happens before, nothing half-written is taken for prepared.

  Args:
    name: Key of `registry.DATASETS`.
    source: Folder of the original download.
    data_dir: Where prepared data sets live.
    size: (H, W), "256x128" or one number for both; None = default of the data set.
    max_bad: Largest share of unreadable photos that is tolerated (they are
      skipped and listed); more stops with the list.
    workers: Threads; None = all cores this process may use.
    progress: Show a bar and say what is done, on stderr.
    overwrite: Replace a prepared data set instead of returning it.
    allow_deviations: Go on where counts, names or shares of labels differ from
      the published ones, as in a cut copy; the differences are kept in report.json.
    partition: Number from 1, for a data set that comes with several splits; None = the first.
    margin: What to cut around each box, as a share of its width on the left and right and of its height above and below;
      0..1. Less where the photo ends. In masks of a person it counts as background.

  Returns:
    The folder with the records, info.json, report.json and labels.npz.

  Raises:
    InputError: Unknown name or partition, a number out of range, unusable source,
      too many unreadable photos, a margin where no sample has a box, differences from
      what is published that are not allowed, or a folder that is there but not whole.
  """
  builder_class = registry.builder_class(name)
  partition = registry.choose_partition(name, partition)
  size = builder_class.SIZE if size is None else info_lib.as_size(size)
  if not 0 <= max_bad <= 1:
    raise InputError(f"max_bad: expected a share in 0..1, got {max_bad}")
  if not 0 <= margin <= 1:
    raise InputError(f"margin: expected a share of the box in 0..1, got {margin}")
  if workers is not None and workers < 1:
    raise InputError(f"workers: expected at least 1, got {workers}")
  target = registry.version_folder(name, data_dir, size, partition, margin)
  say = (lambda text: print(text, file=sys.stderr)) if progress else (lambda text: None)
  if target.exists() and not overwrite:
    lacking = [file for file in FILES if not (target / file).is_file()]
    if not lacking:
      say(f"{target}: prepared already (--overwrite replaces it)")
      return target
    raise InputError(f"{target}: exists but lacks {', '.join(lacking)}; use --overwrite")

  incomplete = pathlib.Path(data_dir) / f".incomplete-{name}-{info_lib.folder_name(size, partition, margin)}"
  with records.temporary_folder(incomplete, f"preparing {name} at this size") as temporary, _quiet():
    with contextlib.ExitStack() as stack:
      bar = None
      builder = builder_class(
          source=source, size=size, partition=partition, margin=margin, max_bad=max_bad, data_dir=temporary,
          workers=workers or usable_cores(), advance=lambda count: bar.update(count))
      if margin and not builder.annotations.have("box"):
        raise InputError(f"margin: no sample of {source} has a box; whole images have nothing around them")
      if not allow_deviations:
        _refuse(builder.annotations.deviations, source)
      total = sum(len(photo.targets) for photos in builder.annotations.splits.values() for photo in photos)
      bar = stack.enter_context(tqdm.tqdm(total=total, desc=name, unit="img", ncols=80, disable=not progress, file=sys.stderr))
      builder.download_and_prepare(download_dir=temporary / "downloads")
    written = registry.version_folder(name, temporary, size, partition, margin)
    info = _dataset_info(builder)
    (written / "info.json").write_text(info.to_json())
    (written / "report.json").write_text(json.dumps(_report(builder, source, size, partition, margin), indent=2, ensure_ascii=False) + "\n")
    arrays = {f"{split}_{key}": value for split, columns in builder.labels.items() for key, value in columns.items()}
    np.savez_compressed(written / "labels.npz", **arrays)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
      target.rename(temporary / "replaced")
    written.rename(target)
  _say_summary(say, target, builder)
  return target


def _refuse(deviations: tuple[str, ...], source: str | pathlib.Path) -> None:
  """Raises InputError where there are any, with the first of them."""
  if deviations:
    more = f"; and {len(deviations) - _LISTED} more" if len(deviations) > _LISTED else ""
    raise InputError(f"{source}: not as published in {len(deviations)} {'place' if len(deviations) == 1 else 'places'}: "
                     f"{'; '.join(deviations[:_LISTED])}{more}; to go on all the same: --allow-deviations")


def usable_cores() -> int:
  """How many cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _quiet():
  """Keeps tensorflow_datasets from printing its own lines."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)


def _dataset_info(builder) -> info_lib.DatasetInfo:
  """Collects the facts once all records are written."""
  train = builder.labels.get("train")
  if train is None:
    raise InputError(f"{builder.name}: the source has no training samples")
  known = train["known"].sum(axis=0)
  positives = ((train["label"] == 1) & train["known"]).sum(axis=0)
  mean, mean_square = builder.moments
  names = builder.annotations.label_names
  return info_lib.DatasetInfo(
      name=builder.name,
      version=info_lib.VERSION,
      label_names=names,
      label_groups=records.select_groups(builder.GROUPS, names),
      positive_ratio=tuple(float(value) for value in positives / np.maximum(known, 1)),
      known_ratio=tuple(float(value) for value in known / len(train["id"])),
      splits={split: len(columns["id"]) for split, columns in builder.labels.items()},
      image_size=builder.IMAGE_SIZE,
      resize=builder.RESIZE,
      mean=tuple(float(value) for value in mean),
      std=tuple(float(value) for value in np.sqrt(mean_square - mean**2)),
      licence=builder.LICENCE,
      citation=builder.CITATION,
      has_person_mask=builder.annotations.have("mask"),
      has_region_mask=builder.annotations.have("region_mask"),
      has_landmarks=builder.annotations.have("landmarks"),
  )


def _report(builder, source: str | pathlib.Path, size: tuple[int, int], partition: int | None, margin: float) -> dict[str, object]:
  return {
      "name": builder.name,
      "version": info_lib.VERSION,
      "size": list(size),
      "partition": partition,
      "margin": margin,
      "source": str(source),
      "samples": {split: len(columns["id"]) for split, columns in builder.labels.items()},
      "deviations": list(builder.annotations.deviations),
      "remarks": list(builder.annotations.remarks),
      **vars(builder.report),
  }


def _say_summary(say, target: pathlib.Path, builder) -> None:
  report = builder.report
  counts = ", ".join(f"{len(columns['id'])} {split}" for split, columns in builder.labels.items())
  say(f"{builder.name}: {counts}")
  if report.skipped or report.clipped_boxes or report.dropped_boxes or report.converted:
    converted = ", ".join(f"{count} {kind}" for kind, count in sorted(report.converted.items())) or "none"
    say(f"  photos skipped: {len(report.skipped)}; boxes clipped: {report.clipped_boxes}, dropped: {report.dropped_boxes}; "
        f"converted: {converted} (see report.json)")
  if report.landmarks_outside:
    say(f"  samples with landmarks outside their image: {report.landmarks_outside} (kept)")
