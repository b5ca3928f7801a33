"""DIAA (Sarafianos et al., ECCV 2018) on WIDER-Attribute: trained on train, selected on val.

  attr-jax train --config=configs/diaa.py:stage=backbone --workdir=runs/diaa1 --config.weights=resnet101.safetensors
  attr-jax train --config=configs/diaa.py:stage=heads --workdir=runs/diaa2 --config.weights=runs/diaa1 --config.total_epochs=4
  attr-jax train --config=configs/diaa.py --workdir=runs/diaa3 --config.weights=runs/diaa2

Options: `stage` (backbone, heads, joint), `variant` (paper, code), `world` (drawn people instead of photos), `small`, `tiny`.
"""

from attr_jax import config as config_lib


def get_config(arg=None):
  options = config_lib.parse_arg(arg, stage="joint", variant="paper", world=False, small=False, tiny=False)
  config = config_lib.default_config()
  config.model.name, config.model.depth, config.model.variant = "diaa", "101", options.variant
  del config.loss.loss  # the weighted focal loss and the variance-weighted one are the method
  config.loss.stage = options.stage
  config.loss.gamma = 0.5 if options.variant == "paper" else 2.0
  config.loss.class_weight = "exp_neg_prior" if options.variant == "paper" else "deepmar_ratio"
  config.batch_size = 32
  config.optimizer.learning_rate = 0.001
  return config_lib.at_size(config, options)
