"""SRN (Zhu et al., CVPR 2017) on WIDER-Attribute, stage by stage.

  attr-jax train --config=configs/srn.py:stage=cls --workdir=runs/srn1 --config.weights=resnet101.safetensors
  attr-jax train --config=configs/srn.py:stage=att --workdir=runs/srn2 --config.weights=runs/srn1
  attr-jax train --config=configs/srn.py:stage=sr --workdir=runs/srn3 --config.weights=runs/srn2
  attr-jax train --config=configs/srn.py --workdir=runs/srn4 --config.weights=runs/srn3

Options: `stage` (cls, att, sr, joint), `variant` (paper, released), `world` (drawn people instead of photos), `small`, `tiny`.
"""

from attr_jax import config as config_lib


def get_config(arg=None):
  options = config_lib.parse_arg(arg, stage="joint", variant="paper", world=False, small=False, tiny=False)
  config = config_lib.default_config()
  config.data.train_split = "train+val"  # as in the paper; the best checkpoint is then no choice on held-out data
  config.model.name, config.model.depth, config.model.variant = "srn", "101", options.variant
  config.loss.stage = options.stage
  config.batch_size = 96
  config.optimizer.learning_rate = 0.001
  config.schedule.name = "step"
  if options.small:
    config.data.train_split = "train"
  return config_lib.at_size(config, options)
