"""ResNet + global average pooling + linear: row 0 of every table.

  attr-jax train --config=configs/baseline.py:dataset=wider_attribute --workdir=runs/wider
  attr-jax train --config=configs/baseline.py:dataset=pa100k,small --workdir=runs/pa100k
  attr-jax train --config=configs/baseline.py:dataset=own_photos --workdir=runs/own --config.weights=resnet50.safetensors

Options: `dataset` (wider_attribute, pa100k, rap, peta, own_photos), `depth` (18, 34, 50, 101), `loss` (bce, inverse_ratio, exp_ratio,
mixed), `small` (a tiny trunk on small images, trained from scratch: minutes on a laptop), `tiny` (two steps, for tests).
Without `small`, give ImageNet weights: --config.weights=resnet50.safetensors.
"""

from attr_jax import config as config_lib


def get_config(arg=None):
  options = config_lib.parse_arg(arg, dataset="wider_attribute", depth="50", loss="", small=False, tiny=False)
  config = config_lib.default_config()
  config.model.depth = options.depth
  config.input.brightness = config.input.contrast = config.input.saturation = 0.2
  if options.dataset in config_lib.PEDESTRIANS:
    config_lib.override(config, config_lib.dataset(options.dataset, fixed_size=False))
    config.loss.loss = "inverse_ratio"  # mA counts both classes alike
  else:
    _people(config, options.dataset)
  if options.small:
    config_lib.small(config)
  if options.loss:
    config.loss.loss = options.loss
  return config_lib.tiny(config) if options.tiny else config


def _people(config, name):
  """WIDER-Attribute as SRN and Da-HAR train on it, and others alike; schedule after Da-HAR."""
  config.data.name = name
  config.batch_size = 32
  config.optimizer.learning_rate = 0.003
  config.loss.unspecified = "ignore"
