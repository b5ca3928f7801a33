"""What a model looks at: its maps for a few images of a split, drawn over them.

The files are `pictures/<name>-attention*.png` and `-heatmap.png` (where each label is seen), `-masks.png` (self-masks,
the predicted and the true person; Wu et al., AAAI 2020, Figure 5) and `-features.png` (C4 and C5, summed over channels
and cut at their median; Figure 4), `-views.png` (one label's map on the image, its mirror image and a smaller copy;
Guo et al., CVPR 2019), `-regions.png` (the predicted and the true regions of a face), `-channels.png` (the strongest
channels of the last convolution; Kalayeh et al., CVPR 2017), `-steps.png` (where a decoder looks when it chooses each label;
Chen et al., AAAI 2018) and `-hog.png` (images beside their histograms of oriented gradients, where a model takes them).

All are of the whole image, also where a split is measured on several views of it.
"""

from collections.abc import Callable, Mapping, Sequence
import io
import pathlib
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from attr_jax import decoding_pictures
from attr_jax import metrics
from attr_jax import models
from attr_jax import overlays
from attr_jax import pictures
from attr_jax import sharding
from attr_jax import steps
from attr_jax.data import images as images_lib
from attr_jax.data import pipeline
from attr_jax.data import regions
from attr_jax.errors import InputError
from attr_jax.nn import hog

_FEATURES = {"stage3": "C4", "stage4": "C5"}

Maps = Mapping[str, np.ndarray]


def make_explain(run: Any) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
  """All that a model names, for a few images.

  Args:
    run: an `evaluate.Run`.

  Returns:
    A function of a batch, `image` uint8 [N, H, W, 3] and what else the model takes, that gives `logits` [N, L] and the
    model's `out`, on the host and with all floats as float32; compiled once per shape.
  """
  explain = jax.jit(steps.make_explain_step(run.model, run.config))
  # From the host to one device: the first process draws alone, so nothing may be computed on the whole mesh.
  variables = sharding.to_host(run.params), sharding.to_host(run.batch_stats)
  return lambda batch: {key: to_host(value) for key, value in explain(*variables, dict(batch)).items()}


def to_host(value: jax.Array) -> np.ndarray:
  """An array of any shape on the host, all floats as float32."""
  return np.asarray(value, np.float32 if jnp.issubdtype(value.dtype, jnp.floating) else value.dtype)


def small_size(run: Any) -> tuple[int, int]:
  """(height, width) in pixels of the smaller copies that a run's heatmaps are compared on: VAC's own, else 6/7 of the "full" view."""
  small = run.config.model.get("small_size", 6 / 7)
  return tuple(small) if isinstance(small, (tuple, list)) else tuple(round(side * small) for side in run.config.input.full_size)


def draw(runs: Mapping[str, Any], inputs: Mapping[str, tuple[Sequence[Mapping[str, Any]], pipeline.InputSpec]], folder: pathlib.Path,
         name: str, num_images: int = 6, threshold: float | Sequence[float] | None = None) -> None:
  """Draws the maps of images all over a split.

  Args:
    runs: column title -> `evaluate.Run`. The masks and features of several stand side by side; attention and
      the steps of a decoder are drawn for a single one.
    inputs: of each run the raw samples of the split, all in the same order (one may come with maps that another does not
      read), and how they come to the network; with `masks` the true person is drawn where the data have one.
    folder: of the pictures.
    name: how the files begin.
    num_images: rows of each picture, at most.
    threshold: what says that a label is there, see `evaluate.Chosen`: scores, or the factor of the model's own rule. None:
      0.5, or the factor in `config.decide`.
  """
  first, _ = next(iter(inputs.values()))
  numbers = np.linspace(0, len(first) - 1, min(num_images, len(first))).astype(int)
  shown = [images_lib.decode_jpeg(first[int(i)]["image"]) for i in numbers]
  views = {title: [pipeline.evaluation_view(source[int(i)], spec=spec, views="full") for i in numbers]
           for title, (source, spec) in inputs.items()}
  truth = {key: [sample[key] for sample in samples] for samples in views.values() for key in ("label", "known", "person_mask", "region_mask")
           if key in samples[0]}
  batches = {title: {key: np.stack([sample[key] for sample in samples]) for key in steps.INPUTS if key in samples[0]}
             for title, samples in views.items()}
  explains = {title: make_explain(run) for title, run in runs.items()}
  outs = {title: explain(batches[title]) for title, explain in explains.items()}

  if len(runs) == 1:
    (run,), (out,), (explain,), (batch,) = runs.values(), outs.values(), explains.values(), batches.values()
    label, known = np.stack(truth["label"]), np.stack(truth["known"])
    for key in label_maps(out):
      overlays.attention_sheet(shown, out[key], metrics.probabilities(out["logits"]), label, known, run.info.label_names,
                               folder / f"{name}-{key}.png", threshold=0.5 if threshold is None else threshold, title=f"{key}: {name}")
    steps_kept = getattr(models.MODELS[run.config.model.name], "steps_kept", None)
    if steps_kept and "step_attention" in out:
      options = {**run.config.get("decide", {}), **({} if threshold is None else {"factor": threshold})}
      decoding_pictures.step_sheet(
          shown, out["step_attention"], out["step_labels"], out["step_probability"], steps_kept(out, run.info, **options), label,
          run.info.label_names, folder / f"{name}-steps.png", title=f"Steps of the decoder: {name}")
    if "heatmap" in out:
      _draw_views(explain, batch, small_size(run), shown, run.info.label_names, folder / f"{name}-views.png", name)
  masks = _columns(outs, _masks)
  if masks:
    if "person_mask" in truth:
      masks["true person"] = [mask.astype(np.float32) / 255 for mask in truth["person_mask"]]
    overlays.mask_sheet(shown, masks, folder / f"{name}-masks.png", title=f"Masks: {name}")
  features = _columns(outs, _features)
  if features:
    overlays.feature_sheet(shown, features, folder / f"{name}-features.png",
                           title=f"Features, summed over channels, cut at the median: {name}")
  parsed = _columns(outs, lambda out: {"regions": out["region_probability"]} if "region_probability" in out else {})
  if parsed:
    if "region_mask" in truth:
      parsed["true regions"] = truth["region_mask"]
    overlays.region_sheet(shown, parsed, regions.FACE_REGION_NAMES, folder / f"{name}-regions.png", title=f"Regions: {name}")
  channels = {title if len(outs) > 1 else "last convolution": out["features"][0]
              for title, out in outs.items() if out.get("features", np.empty(0)).ndim == 4}
  if channels:
    overlays.channel_sheet(shown[0], channels, folder / f"{name}-channels.png", title=f"Strongest channels of the last convolution: {name}")
  described = [(batches[title]["image"], run.config.model.hog_cell) for title, run in runs.items() if run.config.model.get("hog")]
  if described:  # the same for all of them
    _draw_hog(*described[0], folder / f"{name}-hog.png", f"HOG: {name}")


def draw_photo(image: np.ndarray, score: np.ndarray, present: np.ndarray, maps: Maps, out: Maps, label_names: Sequence[str],
               path: pathlib.Path, *, most: int = 6, title: str = "") -> None:
  """One picture of what a model sees in one image whose truth nobody knows: all sheets that suit the model, one below the other.

  Args:
    image: uint8 [H, W, 3], RGB.
    score: [L] probabilities.
    present: bool [L].
    maps: [h, w, L] by name.
    out: what else the model names for this image, without an axis of images; of a decoder with `step_kept`, see `predict.Recognition`.
    label_names: L names.
    path: the PNG file.
    most: labels with the highest scores, whose maps and region weights are drawn; 13 fit.
    title: of the picture.
  """
  best = np.argsort(-score, kind="stable")[:most]
  names = [label_names[i] for i in best]
  out = {key: value[None] for key, value in out.items()}
  drawn = [_png(overlays.attention_sheet, [image], of_labels[None][..., best], score[None, best], None, None, names,
                decided=present[None, best], most=most, title=f"{title}: {key}") for key, of_labels in maps.items()]
  if masks := _masks(out):
    drawn.append(_png(overlays.mask_sheet, [image], masks, title=f"{title}: masks"))
  if "region_probability" in out:
    drawn.append(_png(overlays.region_sheet, [image], {"regions": out["region_probability"]}, regions.FACE_REGION_NAMES,
                      title=f"{title}: regions"))
  if "region_weights" in out:
    weights = out["region_weights"][0]
    drawn.append(_png(pictures.weight_table, weights.T[best], names, regions.names_of(len(weights)), title=f"{title}: region weights"))
  if {"step_kept", "step_attention"} <= out.keys():
    drawn.append(_png(decoding_pictures.step_sheet, [image], *(out[f"step_{key}"] for key in ("attention", "labels", "probability", "kept")),
                      None, label_names, title=f"{title}: steps of the decoder"))
  if not drawn:
    drawn.append(_png(overlays.draw_sheet, [[overlays.Panel(image)]], (), title=f"{title}: the model has no maps"))
  path.parent.mkdir(parents=True, exist_ok=True)
  width = max(one.shape[1] for one in drawn)
  whole = np.concatenate([np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in drawn])
  path.write_bytes(images_lib.encode_png(whole))


def _png(draw: Callable[..., None], *args: Any, **options: Any) -> np.ndarray:
  """What a function that writes a PNG draws, uint8 [H, W, 3]."""
  stream = io.BytesIO()
  draw(*args, path=stream, **options)
  return images_lib.decode_image(stream.getvalue())


def _draw_hog(images: np.ndarray, cell: int, path: pathlib.Path, title: str) -> None:
  """Of images as the network sees them; what lies beyond the last whole cell has no HOG and is not shown."""
  height, width = (side // cell * cell for side in images.shape[1:3])
  histograms = hog.cell_histograms(images, cell_size=(cell, cell))
  decoding_pictures.hog_sheet(images[:, :height, :width], np.asarray(histograms), path, title=title)


def _draw_views(explain: Callable[[Maps], Maps], batch: Maps, small: tuple[int, int], shown: Sequence[np.ndarray],
                label_names: Sequence[str], path: pathlib.Path, name: str) -> None:
  """The heatmap of each image's highest label on three views; the maps stand as the model gives them."""
  shrunk = np.stack([cv2.resize(one, small[::-1], interpolation=cv2.INTER_AREA) for one in batch["image"]])
  mirrored = {key: batch[key][:, :, ::-1] for key in ("image", "regions") if key in batch}
  inputs = {"original": {}, "mirrored": mirrored, f"smaller, {small[0]}x{small[1]}": {"image": shrunk}}
  views = {}
  for title, changed in inputs.items():
    try:
      out = explain({**batch, **changed})
    except InputError:  # kernels as large as the maps take one size only
      continue
    if title == "original":
      best = out["logits"].argmax(axis=1)
    # As the sheet shows them: of the aspect of the stored image.
    seen = [one[:, ::-1] if title == "mirrored" else one for one in shown]
    views[title] = [(np.ascontiguousarray(one), out["heatmap"][n, ..., label]) for n, (one, label) in enumerate(zip(seen, best))]
  overlays.view_sheet(shown, views, [label_names[label] for label in best], path, title=f"Heatmaps of views: {name}")


def label_maps(out: Maps) -> list[str]:
  """Keys of the maps with one channel per label."""
  labels = out["logits"].shape[1]
  return [key for key, value in out.items() if labels and (key.startswith("attention") or key == "heatmap")
          and value.ndim == 4 and value.shape[3] == labels]


def _masks(out: Maps) -> dict[str, np.ndarray]:
  """[N, h, w] each; a self-mask with a value per element is shown as its mean over channels."""
  columns = {key.replace("self_mask", "self-mask "): value.mean(axis=-1)
             for key, value in out.items() if key.startswith("self_mask")}
  return columns | ({"person mask": out["mask"]} if "mask" in out else {})


def _features(out: Maps) -> dict[str, np.ndarray]:
  return {title: out[key] for key, title in _FEATURES.items() if key in out}


def _columns(outs: Mapping[str, Maps], columns_of: Any) -> dict[str, Any]:
  """The columns of all runs; with several, their titles tell the run."""
  several = len(outs) > 1
  return {f"{title}: {key}" if several else key: value
          for title, out in outs.items() for key, value in columns_of(out).items()}
