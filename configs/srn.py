"""SRN (Zhu et al., CVPR 2017) on WIDER-Attribute, stage by stage, and its tables.

  attr-jax train --config=configs/srn.py:stage=cls --workdir=runs/srn1 --config.weights=resnet101.safetensors
  attr-jax train --config=configs/srn.py:stage=att --workdir=runs/srn2 --config.weights=runs/srn1
  attr-jax train --config=configs/srn.py:stage=sr --workdir=runs/srn3 --config.weights=runs/srn2
  attr-jax train --config=configs/srn.py --workdir=runs/srn4 --config.weights=runs/srn3
  attr-jax train --config=configs/srn.py:wider/srn_train,stage=cls --workdir=runs/srn_train1 --config.weights=resnet101.safetensors

Options: a row of TABLES, `dataset` (wider_attribute, pa100k, rap, peta), `stage` (cls, att, sr, joint), `variant` (paper,
released), `world` (drawn people instead of photos), `small`, `tiny`.
"""

from attr_jax import config as config_lib

# The score of the stage "cls" would still mix in y_sr: the plain ResNet is the baseline model.
_RESNET = config_lib.plain_resnet()
# As in the paper; the best checkpoint is then chosen on images that were trained on.
_WITH_VAL = {"data.train_split": "train+val"}
_TRAIN_ONLY = {"data.train_split": "train"}
_RECALLED = "from memory, not checked against the paper; trained on train+val"
_RERUN = "trained by DIAA's authors (ECCV 2018), without val"

TABLES = {
    "wider": {
        "resnet101": config_lib.Row({"full": {"mAP": 85.0, "F1-C": 74.7, "F1-O": 80.4}}, {**_RESNET, **_WITH_VAL}, _RECALLED, "srn"),
        "srn": config_lib.Row({"full": {"mAP": 86.2, "F1-C": 75.9, "F1-O": 81.3}}, _WITH_VAL, _RECALLED, "srn"),
        "resnet101_train": config_lib.wider_row(
            {**_RESNET, **_TRAIN_ONLY}, 83.7, 94, 85, 69, 91, 80, 96, 83, 91, 78, 95, 82, 74, 89, 65, note=_RERUN),
        "srn_train": config_lib.wider_row(_TRAIN_ONLY, 85.1, 95, 87, 72, 92, 82, 95, 84, 92, 80, 96, 84, 76, 90, 66, note=_RERUN),
    },
    # Side results of DIAA's paper, from one secondary source.
    "peta": {
        "srn": config_lib.pedestrian_row(
            config_lib.dataset("peta", fixed_size=True), F1=83.25, note=f"{_RERUN}; from a secondary source"),
        "srn_weighted": config_lib.pedestrian_row(
            None, F1=84.92, note="SRN with DIAA's weighted focal loss (ECCV 2018, from a secondary source), which SRN does not have here"),
    },
}


def get_config(arg=None):
  options, row = config_lib.parse_row(
      arg, TABLES, dataset="", stage="joint", variant="paper", world=False, small=False, tiny=False)
  config = config_lib.default_config()
  # A row says itself what it trains on.
  config.data.train_split = "train" if options.small else "train+val"
  config.model.name, config.model.depth, config.model.variant = "srn", "101", options.variant
  config.loss.stage = options.stage
  config.batch_size = 96
  config.optimizer.learning_rate = 0.001
  config = config_lib.resolve(config, options, row, fixed_size=True)
  if (options.small or options.tiny) and config.model.name == "srn":  # a quarter, like the tiny trunk
    config.model.channels = 128
  return config
