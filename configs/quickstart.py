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
  config.data.size = "88x52"
  config.model.depth = "tiny"
  config.batch_size = 32
  config.total_epochs = 10.0

  # People are tall: 80x48 shows heads as large as 80x80 would, for 60 % of the work.
  config.input.resize = (88, 52)
  config.input.size = (80, 48)
  config.input.full_size = (80, 48)
  config.input.crop_sizes = (88, 84, 80)
  config.input.brightness = config.input.contrast = config.input.saturation = 0.2

  config.loss.unspecified = "ignore"
  config.optimizer.name = "adam"
  config.optimizer.learning_rate = 0.002
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 10.0
  config.optimizer.ema_decay = 0.99
  config.schedule.name = "cosine"
  config.schedule.warmup_epochs = 0.5
  config.evaluate.every_epochs = 2.0
  if options.tiny:
    config = config_lib.tiny(config)
    config.data.world_count = 120
  return config
