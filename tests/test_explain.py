"""Equivariance errors against slow loops, what of the maps lies on the person, and which pictures of maps a model gets."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import load

from attr_jax import evaluate
from attr_jax import explain
from attr_jax import models
from attr_jax import sharding
from attr_jax.data import pipeline


def fresh_run(name, world_dir, **overrides):
  """An untrained run of a tiny config, and the records of its test split."""
  config = load(name, world_dir, **overrides)
  data = evaluate.open_data(config)
  model = models.build(config.model, len(data.info.label_names), config.compute_dtype)
  variables = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, *config.input.size, 3)), train=False))()
  run = evaluate.Run(config, data.info, variables["params"], variables["batch_stats"], 0, "last", model)
  return run, evaluate.open_source(config, data, "test")


@pytest.mark.slow
def test_equivariance_equals_a_slow_loop(world_dir):
  run, source = fresh_run("vac.py:tiny", world_dir)
  found = evaluate.equivariance(run, source, sharding.make_mesh())
  make_maps = explain.make_explain(run)
  spec = evaluate.input_spec(run.config)
  image = np.stack([pipeline.evaluation_view(raw, spec=spec, views="full")["image"] for raw in source])
  a, b = make_maps({"image": image})["heatmap"], make_maps({"image": image[:, :, ::-1]})["heatmap"][:, :, ::-1]
  apart = spread = 0
  for n in range(len(image)):
    apart += ((a[n] - b[n]) ** 2).sum(axis=(0, 1))
    spread += ((a[n] - a[n].mean(axis=(0, 1))) ** 2).sum(axis=(0, 1)) + ((b[n] - b[n].mean(axis=(0, 1))) ** 2).sum(axis=(0, 1))
  np.testing.assert_allclose(found["flip_error"], apart / spread, rtol=1e-4)
  assert set(found) == {"flip_error", "scale_error"} and np.isfinite(found["scale_error"]).all()


@pytest.mark.slow
def test_models_get_the_errors_that_they_can_have(world_dir):
  mesh = sharding.make_mesh()
  assert evaluate.equivariance(*fresh_run("person_segmenter.py:tiny", world_dir), mesh) == {}
  # The regulariser's kernel is as large as the map: no smaller images.
  assert set(evaluate.equivariance(*fresh_run(
      "srn.py:tiny", world_dir, **{"input.size": (56, 56), "input.full_size": (56, 56)}), mesh)) == {"flip_error"}


def test_maps_are_compared_with_the_person(world_dir):
  """Maps that are alike everywhere have as much of them on the person as the image has."""
  mesh = sharding.make_mesh()
  run, source = fresh_run("srn.py:tiny", world_dir, **{"input.size": (56, 56), "input.full_size": (56, 56)})
  found = evaluate.maps_inside(run, source, mesh)
  assert set(found) == {"person_area", "heatmap_inside", "attention_inside"}
  shown = ~np.isnan(found["person_area"])
  assert shown.any() and (0.1 < found["person_area"][shown]).all() and (found["person_area"][shown] < 0.9).all()
  alike = dataclasses.replace(run, params=jax.tree.map(jnp.zeros_like, run.params))  # its attention is a softmax of zeros
  same = evaluate.maps_inside(alike, source, mesh)
  np.testing.assert_allclose(same["attention_inside"], same["person_area"], rtol=1e-5)


@pytest.mark.parametrize("name, kinds", [
    pytest.param("dahar.py:tiny", {"attention", "heatmap", "views", "masks", "features"}, marks=pytest.mark.slow),
    ("srn.py:tiny", {"attention", "heatmap", "views", "features"}),
    pytest.param("diaa.py:tiny", {"attention_0", "attention_1", "features"}, marks=pytest.mark.slow),
    pytest.param("dahar.py:design=B,table3/self_mask,tiny", {"attention", "heatmap", "views", "masks", "features"}, marks=pytest.mark.slow),
])
def test_every_map_is_drawn(name, kinds, world_dir, tmp_path):
  run, source = fresh_run(name, world_dir)
  explain.draw({"run": run}, {"run": (source, evaluate.input_spec(run.config))}, tmp_path, "test", num_images=2)
  assert {path.name for path in tmp_path.iterdir()} == {f"test-{kind}.png" for kind in kinds}


@pytest.mark.slow
def test_masks_and_features_of_two_runs_stand_side_by_side(world_dir, tmp_path):
  run, source = fresh_run("dahar.py:tiny", world_dir)
  explain.draw({"with": run, "without": run}, dict.fromkeys(("with", "without"), (source, evaluate.input_spec(run.config))), tmp_path, "test", num_images=2)
  assert {path.name for path in tmp_path.iterdir()} == {"test-masks.png", "test-features.png"}
