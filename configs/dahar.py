"""Da-HAR (Wu et al., AAAI 2020) on WIDER-Attribute.

  attr-jax train --config=configs/dahar.py --workdir=runs/dahar --config.weights=resnet101.safetensors
  attr-jax train --config=configs/dahar.py:world,small --workdir=runs/dahar_small

Options: `design` (A, B), `masks` (True: the mask of the target person supervises the side branch; the drawn people have them),
`loss` (bce, inverse_ratio, mixed: the o, w, m rows of Table 2), `world` (drawn people instead of photos), `small`, `tiny`.
The parts of Table 3: --config.model.fusion, --config.model.self_mask, --config.model.masked_attention.
"""

from attr_jax import config as config_lib


def get_config(arg=None):
  options = config_lib.parse_arg(arg, design="A", masks=False, loss="bce", world=False, small=False, tiny=False)
  config = config_lib.default_config()
  config.model.name, config.model.depth, config.model.design = "dahar", "101", options.design
  config.model.fusion = config.model.self_mask = config.model.masked_attention = True
  config.input.full_size = (256, 256)
  config.input.brightness = config.input.contrast = config.input.saturation = 0.2
  config.input.masks = options.masks or options.world or options.tiny
  config.loss.loss = options.loss
  config.loss.unspecified = "ignore"
  config.loss.mask_weight = 1.0 if config.input.masks else 0.0
  config.batch_size = 32
  config.optimizer.learning_rate = 0.003
  return config_lib.at_size(config, options)
