"""A small recogniser of people's attributes, trained from scratch on drawn street scenes.

  attr-jax train --config=configs/quickstart.py --workdir=runs/quickstart
"""

from attr_jax import config as config_lib


def get_config(arg=None):
  """Options: `tiny` takes two steps, for tests."""
  options = config_lib.parse_arg(arg, tiny=False)
  config = config_lib.default_config()
  config.data.world = "people"
  config.data.world_count = 9000
  config.data.size = "64"
  config.model.depth = "tiny"
  config.batch_size = 64
  config.total_epochs = 8.0

  # 64x64 boxes, cropped as in SRN's augmentation, at a quarter of its sizes.
  config.input.resize = (72, 72)
  config.input.size = (64, 64)
  config.input.full_size = (64, 64)
  config.input.crop_sizes = (72, 68, 64, 56)
  config.input.brightness = config.input.contrast = config.input.saturation = 0.2

  config.loss.unspecified = "ignore"
  config.optimizer.learning_rate = 0.02
  config.optimizer.clip_norm = 10.0
  config.schedule.name = "cosine"
  config.schedule.warmup_epochs = 0.5
  config.evaluate.every_epochs = 1.0
  if options.tiny:
    config = config_lib.tiny(config)
    config.data.world_count = 120
  return config
