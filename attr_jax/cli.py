"""`attr-jax COMMAND`. Status 0 on success, 2 for a wrong call or wrong data, 1 for a failed run."""

import argparse
import contextlib
import json
import logging
import os
import pathlib
import sys
import threading
from typing import Any

from attr_jax.data import worlds
from attr_jax.errors import InputError

_PREPARE_OPTIONS = ("name", "source", "data_dir", "size", "partition", "margin", "max_bad", "allow_deviations", "overwrite")
_EXPORT_OPTIONS = {"names": "safetensors", "batch": "onnx", "environment": "onnx"}  # option -> the format that has it
_PREEMPTED_STATUS = 143  # 128 + SIGTERM, what a scheduler expects of a job it stopped
# Seconds in which processes that fail alike can say so and leave together. Process 0 waits longer: without it jax ends the others.
_PATIENCE, _PATIENCE_OF_FIRST = 5.0, 10.0
# What errors of the runtime say where another process is gone, whatever their type: gloo on CPUs, the service that all report to.
_LOST = ("gloo", "connection closed by peer", "connection reset by peer", "coordination service", "coordinationservice", "heartbeat", "barrier",
         "deadline_exceeded", "unavailable:")


def main(argv: list[str] | None = None) -> None:
  """Parses the command line, runs the command, exits with its status."""
  argv = sys.argv[1:] if argv is None else argv
  args, rest = _parse(argv)
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
  if args.debug:
    sys.exit(args.run(args, rest))
  # Orbax logs a failed save once more from each of its threads, with tracebacks.
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  if sys.unraisablehook is sys.__unraisablehook__:
    sys.unraisablehook = _show_unraisable
  patience = _PATIENCE
  try:
    status = args.run(args, rest)
  except InputError as error:
    status = _fail(str(error), 2)
  except KeyboardInterrupt:
    status = _fail("interrupted", 130)
  except BrokenPipeError:  # `attr-jax predict ... | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    status = 0
  except Exception as error:
    status = _fail_of(error)
    patience = 0.0 if _has_lost_another(error) else _PATIENCE
  _leave(status, patience)


def _show_unraisable(found: Any) -> None:
  """When a write of a checkpoint fails, orbax closes its event loop; each of the writes still under way then finds it closed."""
  if str(found.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(found)


def _fail_of(error: Exception) -> int:
  """Status of the errors that a run may end with; others are ours and show their kind."""
  name, text = type(error).__name__, " ".join(str(error).split())
  if name == "Preempted":
    return _fail(str(error), _PREEMPTED_STATUS)
  if name in ("NonFiniteError", "SaveError", "ExportError") or isinstance(error, OSError):
    return _fail(str(error), 1)
  if _has_lost_another(error):
    return _fail(f"another process of this run is gone ({text[:200]}); start all of them again: the same command goes on from the newest "
                 "checkpoint", 1)
  return _fail(f"{name}: {text[:500]} (run again with --debug for the traceback)", 1)


def _has_lost_another(error: Exception) -> bool:
  text = str(error).lower()
  return _is_one_of_several() and any(mark in text for mark in _LOST)


def _leave(status: int, patience: float) -> None:
  """Ends the process. One of several that failed alone must not wait for the others to end: they wait for it.

  Args:
    status: of the process.
    patience: seconds that others may take to fail as well, so that all leave together.
  """
  if status in (0, _PREEMPTED_STATUS) or not _is_one_of_several():
    sys.exit(status)
  import jax

  def together() -> None:
    with contextlib.suppress(Exception):
      jax.distributed.shutdown()

  seconds = _PATIENCE_OF_FIRST if jax.process_index() == 0 else patience
  if seconds:
    thread = threading.Thread(target=together, daemon=True)
    thread.start()
    thread.join(seconds)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _is_one_of_several() -> bool:
  jax = sys.modules.get("jax")
  return jax is not None and jax.distributed.is_initialized()


def _fail(message: str, status: int) -> int:
  print(f"attr-jax: {message}", file=sys.stderr, flush=True)
  return status


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(prog="attr-jax", description="Train, evaluate and use recognisers of visual attributes.")
  parser.set_defaults(debug=False)
  commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

  def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
    sub = commands.add_parser(name, help=text, description=text)
    sub.set_defaults(run=run)
    sub.add_argument("--debug", action="store_true", help="show tracebacks")
    return sub

  def processes(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, for several processes that no cluster starts")
    sub.add_argument("--num-processes", type=int, help="of the run, with --coordinator")
    sub.add_argument("--process-id", type=int, help="which of them this is, from 0, with --coordinator")

  sub = command("train", _train, "train a recogniser, or go on with a run that was cut")
  sub.add_argument("--config", required=True, help="configs/FILE.py[:options]; override with --config.KEY=VALUE")
  sub.add_argument("--workdir", required=True, type=pathlib.Path, help="folder of the run")
  sub.add_argument("--quiet", action="store_true")
  processes(sub)

  sub = command("evaluate", _evaluate, "measure a run on a split; several runs are averaged")
  sub.add_argument("--workdir", required=True, type=pathlib.Path, action="append")
  sub.add_argument("--split", default="test")
  sub.add_argument("--views", choices=("full", "five_crop", "ten_crop", "six_view"), help="of each image (default: those that the run was validated on)")
  sub.add_argument("--checkpoint", default="best", help="best, last or a step")
  sub.add_argument("--convention", default="native", help="whose rules the metrics follow")
  sub.add_argument("--data-dir", help="where the prepared data lie now")
  processes(sub)

  sub = command("predict", _predict, "name the attributes in photos")
  sub.add_argument("files", nargs="*", metavar="FILE", help="photo, folder of photos (with all folders below) or quoted pattern, such as 'in/*.jpg'")
  sub.add_argument("--workdir", required=True, type=pathlib.Path, help="folder of the run")
  sub.add_argument("--list", metavar="FILE", help="one FILE per line; - reads the standard input")
  sub.add_argument("--boxes", type=pathlib.Path, metavar="CSV",
                   help="people in scenes: columns file,x,y,width,height in pixels, files relative to the table")
  sub.add_argument("--threshold", choices=("calibrated", "0.5"), default="calibrated",
                   help="from which score on an attribute is present (default: its own, chosen on validation images)")
  form = sub.add_mutually_exclusive_group()
  form.add_argument("--json", action="store_true", help="one JSON object per photo")
  form.add_argument("--csv", action="store_true", help="one row per photo")
  sub.add_argument("--pictures", type=pathlib.Path, metavar="DIR", help="write each photo with what the model looks at")
  sub.add_argument("--top", type=int, metavar="N", help="attributes with the highest scores: in the table (default: 40, and all present "
                   "ones), on a picture (default: 6, at most 13)")
  sub.add_argument("--batch-size", type=int, default=8, metavar="N", help="photos computed at a time (default: 8)")
  sub.add_argument("--checkpoint", default="best", help="best, last or a step")

  sub = command("serve", _serve, "show a run as a local page: photos in, attributes and their maps out")
  sub.add_argument("--workdir", required=True, type=pathlib.Path)
  sub.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)")
  sub.add_argument("--port", default=8000, type=int, help="0 takes a free one (default: 8000)")
  sub.add_argument("--checkpoint", default="best", help="best, last or a step")
  sub.add_argument("--max-mb", default=20.0, type=float, help="largest image file, in MB (default: 20)")
  sub.add_argument("--timeout", default=30.0, type=float, help="seconds for sending an image, and again for its answer (default: 30)")
  sub.add_argument("--batch-size", default=8, type=int, help="images computed at a time (default: 8)")

  sub = command("prepare", _prepare, "turn an original download into what training reads")
  sub.add_argument("name", nargs="?", help="the data set, such as wider_attribute or pa100k")
  sub.add_argument("--source", type=pathlib.Path, help="folder of the download")
  sub.add_argument("--data-dir", type=pathlib.Path, help="where prepared data sets live (default: data)")
  sub.add_argument("--size", help="256, or 256x128 for height x width (default: the data set's own)")
  sub.add_argument("--partition", type=int, help="which of the splits of RAP and PETA, from 1 (default: the first)")
  sub.add_argument("--margin", type=float, help="cut this share of each box's sides around it too (default: 0)")
  sub.add_argument("--max-bad", type=float, help="share of unreadable images that is still accepted (default: 0.001)")
  sub.add_argument("--allow-deviations", action="store_true", help="go on where the source differs from what is published")
  sub.add_argument("--overwrite", action="store_true", help="prepare again what is there")
  sub.add_argument("--check", type=pathlib.Path, metavar="DIR", help="say what lies in a prepared folder instead")
  sub.add_argument("--out", type=pathlib.Path, help="folder for the contact sheet of --check (default: the prepared folder)")

  sub = command("annotate", _annotate, "write the masks that a run predicts beside a prepared data set")
  sub.add_argument("--workdir", required=True, type=pathlib.Path, help="run of a person_segmenter, dahar or face parser model")
  sub.add_argument("--dataset", required=True, help="the data set, such as wider_attribute")
  sub.add_argument("--data-dir", default="data", type=pathlib.Path)
  sub.add_argument("--size", help="prepared size, where there are several")
  sub.add_argument("--partition", type=int, help="which of the splits of RAP and PETA, from 1 (default: the first)")
  sub.add_argument("--margin", type=float, default=0.0, help="that the data set was prepared with (default: 0)")
  sub.add_argument("--maps", choices=("mask", "regions", "regions_fine"), help="which of the model's outputs (default: the first it has)")
  sub.add_argument("--name", help="of the annotation, for config.data.annotation (default: person_mask, or that of the output)")
  sub.add_argument("--checkpoint", default="best", help="best, last or a step")
  sub.add_argument("--overwrite", action="store_true", help="replace an annotation of that name")

  sub = command("synthesize", _synthesize, "draw a synthetic data set in the layout of a real one")
  sub.add_argument("world", choices=tuple(worlds.WORLDS))
  sub.add_argument("--out", required=True, type=pathlib.Path)
  sub.add_argument("--count", required=True, type=int, help="number of units: people counts boxes, faces photos, artworks pictures")
  sub.add_argument("--seed", type=int, default=0)

  sub = command("import-weights", _import_weights, "convert torchvision or timm ResNet weights")
  sub.add_argument("file", type=pathlib.Path, help=".safetensors, .npz or .pth (no code in it is run)")
  sub.add_argument("--out", required=True, type=pathlib.Path)

  sub = command("export", _export, "write a run as one file")
  sub.add_argument("--workdir", required=True, type=pathlib.Path)
  sub.add_argument("--to", required=True, choices=("safetensors", "stablehlo", "onnx"))
  sub.add_argument("--out", required=True, type=pathlib.Path)
  sub.add_argument("--checkpoint", default="best", help="best, last or a step")
  sub.add_argument("--names", choices=("ours", "torchvision"), help="of the tensors of safetensors (default: ours)")
  sub.add_argument("--batch", type=int, help="images that the ONNX model takes at a time (default: any number)")
  sub.add_argument("--environment", type=pathlib.Path, help="folder of the Python environment that converts to ONNX; made where it is missing")

  args, rest = parser.parse_known_args(argv)
  wrong = [arg for arg in rest if not (args.command == "train" and arg.startswith("--config."))]
  if wrong:
    parser.error(f"unknown argument {wrong[0]}")
  return args, rest


def load_config(path: str, overrides: list[str]) -> Any:
  """The config of `--config=PATH[:ARG]` with `--config.key=value` overrides applied.

  Raises:
    InputError: no such file, unknown key (with a suggestion) or wrong type.
  """
  from absl import flags
  from ml_collections import config_flags

  if not pathlib.Path(path.partition(":")[0]).is_file():
    raise InputError(f"config file {path.partition(':')[0]} does not exist")
  values, argv = flags.FlagValues(), ["attr-jax", f"--config={path}", *overrides]
  config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True, sys_argv=argv)
  try:
    values(argv)
    return values.config
  except InputError:
    raise
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise InputError(f"config: {' '.join(str(error).split())}") from error


def _start_jax() -> None:
  """What must be set before the first jax call of a command."""
  import jax
  from absl import flags

  flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which nobody parses here
  cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(pathlib.Path.home() / ".cache" / "attr_jax" / "xla")
  jax.config.update("jax_compilation_cache_dir", cache)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _join(args: argparse.Namespace, *, quiet: bool) -> None:
  """Joins the other processes of the run and says so."""
  from attr_jax import sharding

  started = sharding.initialize_distributed(args.coordinator, args.num_processes, args.process_id)
  if started and not quiet:
    print(f"attr-jax: {started}", file=sys.stderr, flush=True)


def _train(args: argparse.Namespace, rest: list[str]) -> int:
  config = load_config(args.config, rest)
  _start_jax()
  from attr_jax import train

  _join(args, quiet=args.quiet)
  train.train_and_evaluate(config, args.workdir, quiet=args.quiet)
  return 0


def _evaluate(args: argparse.Namespace, rest: list[str]) -> int:
  del rest
  _start_jax()
  import jax

  from attr_jax import evaluate
  from attr_jax import run_folder

  _join(args, quiet=False)
  report = evaluate.evaluate_runs(args.workdir, split=args.split, views=args.views, checkpoint=args.checkpoint,
                                  convention=args.convention, data_dir=args.data_dir)
  if jax.process_index() == 0:
    print(run_folder.metrics_table(report))
  return 0


def _predict(args: argparse.Namespace, rest: list[str]) -> int:
  del rest
  if not args.files and args.list is None and args.boxes is None:
    raise InputError("predict: no photo is named; give files, folders, patterns, --list or --boxes")
  for option in ("top", "batch_size"):
    if getattr(args, option) is not None and getattr(args, option) < 1:
      raise InputError(f"predict: {_as_typed(option)}={getattr(args, option)}: expected 1 or more")
  _start_jax()
  from attr_jax import answers

  return answers.write(args.workdir, args.files, list_file=args.list, boxes=args.boxes, checkpoint=args.checkpoint,
                       thresholds="fixed" if args.threshold == "0.5" else args.threshold, batch_size=args.batch_size,
                       form="json" if args.json else "csv" if args.csv else "table", pictures=args.pictures, top=args.top)


def _serve(args: argparse.Namespace, rest: list[str]) -> int:
  del rest
  _start_jax()
  from attr_jax import serve

  serve.serve(args.workdir, host=args.host, port=args.port, checkpoint=args.checkpoint, max_mb=args.max_mb, timeout=args.timeout,
              batch_size=args.batch_size)
  return 0


def _prepare(args: argparse.Namespace, rest: list[str]) -> int:
  del rest
  # By identity: --max-bad=0 is equal to False but given.
  given = {key: value for key in _PREPARE_OPTIONS if (value := getattr(args, key)) is not None and value is not False}
  if args.check is not None:
    if given:
      raise InputError(f"prepare: --check goes with --out only, not with {', '.join(map(_as_typed, given))}")
    return _check(args.check, args.out)
  if args.out is not None:
    raise InputError("prepare: --out goes with --check only")
  missing = [key for key in ("name", "source") if key not in given]
  if missing:
    raise InputError(f"prepare: {' and '.join(map(_as_typed, missing))} missing; give both, or --check=DIR")
  from attr_jax.data import prepare

  folder = prepare.prepare(**{"data_dir": pathlib.Path("data"), **given})
  for deviation in json.loads((folder / "report.json").read_text())["deviations"]:
    print(f"warning: {deviation}", file=sys.stderr)
  print(f"prepared in {folder}")
  return 0


def _as_typed(key: str) -> str:
  return "NAME" if key == "name" else f"--{key.replace('_', '-')}"


def _check(folder: pathlib.Path, out: pathlib.Path | None) -> int:
  from attr_jax import check

  found = check.examine(check.find(folder))
  print(check.describe(found))
  print(f"samples are drawn in {check.draw_samples(found, out)}")
  return 2 if found.faults else 0


def _annotate(args: argparse.Namespace, rest: list[str]) -> int:
  del rest
  _start_jax()
  from attr_jax import annotate

  folder, figures = annotate.annotate(args.workdir, args.dataset, args.data_dir, size=args.size, partition=args.partition,
                                      margin=args.margin, maps=args.maps, name=args.name, checkpoint=args.checkpoint, overwrite=args.overwrite)
  print(f"masks in {folder}")
  for split, metrics in figures.items():
    shown = ", ".join(f"{key} {100 * metrics[key]:.1f}" for key in ("mask_IoU", "region_mIoU") if key in metrics)
    print(f"against the data set's own masks, {split}: {shown}")
  return 0


def _synthesize(args: argparse.Namespace, rest: list[str]) -> int:
  del rest
  counts = worlds.synthesize(args.world, args.out, count=args.count, seed=args.seed)
  print(f"drawn in {args.out}: {counts}")
  return 0


def _import_weights(args: argparse.Namespace, rest: list[str]) -> int:
  del rest
  from attr_jax import weights

  print(weights.summary(weights.convert(args.file, args.out)))
  return 0


def _export(args: argparse.Namespace, rest: list[str]) -> int:
  del rest
  options = {key: value for key in _EXPORT_OPTIONS if (value := getattr(args, key)) is not None}
  for key in options:
    if _EXPORT_OPTIONS[key] != args.to:
      raise InputError(f"export: --{key} goes with --to={_EXPORT_OPTIONS[key]} only")
  if options.get("batch", 1) < 1:
    raise InputError(f"export: --batch={args.batch} is no number of images")
  _start_jax()
  from attr_jax import export

  done = export.export_run(args.workdir, args.to, args.out, args.checkpoint, **options)
  print(done.text)
  if done.differences:
    print(f"largest difference to the model: {done.differences['random']:.2g} on random images, {done.differences['real']:.2g} on real ones ({done.real})")
  return 0
