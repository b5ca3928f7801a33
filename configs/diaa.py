"""DIAA (Sarafianos et al., ECCV 2018) on WIDER-Attribute: trained on train, selected on val; and its tables.

  attr-jax train --config=configs/diaa.py:stage=backbone --workdir=runs/diaa1 --config.weights=resnet101.safetensors
  attr-jax train --config=configs/diaa.py:stage=heads --workdir=runs/diaa2 --config.weights=runs/diaa1 --config.total_epochs=4
  attr-jax train --config=configs/diaa.py --workdir=runs/diaa3 --config.weights=runs/diaa2
  attr-jax train --config=configs/diaa.py:wider_ablation/one_scale --workdir=runs/one_scale --config.weights=runs/diaa1

Options: a row of TABLES, `dataset` (wider_attribute, pa100k, rap, peta), `stage` (backbone, heads, joint), `variant` (paper,
code), `world` (drawn people instead of photos), `small`, `tiny`. Images are cropped as in SRN; the released program crops
squares: --config.input.crop=random_square --config.input.crop_sizes="(128, 224)".
"""

from attr_jax import config as config_lib

_THREE_SCALES = ("stage3_early", "stage3", "stage4")
_NO_HEADS = {"model.scales": ()}
_BACKBONE = {**_NO_HEADS, "loss.class_weight": "none", "loss.gamma": 0.0}
_ONE_SCALE = {"model.scales": ("stage3",)}
_PETA = config_lib.dataset("peta", fixed_size=True)
_LADDER = "from one secondary source, not checked against the paper"

TABLES = {
    "wider": {
        "rcnn": config_lib.wider_row(None, 80.0, 94, 81, 60, 91, 76, 94, 78, 89, 68, 96, 80, 72, 87, 55, note="R-CNN (ICCV 2015)"),
        "r_star_cnn": config_lib.wider_row(
            None, 80.5, 94, 82, 62, 91, 76, 95, 79, 89, 68, 96, 80, 73, 87, 56, note="R*CNN (ICCV 2015)"),
        "dhc": config_lib.wider_row(None, 81.3, 94, 82, 64, 92, 78, 95, 80, 90, 69, 96, 81, 76, 88, 55, note="DHC (ECCV 2016)"),
        "vespa": config_lib.wider_row(None, 82.4, note="VeSPA (BMVC 2017)"),
        "cam": config_lib.wider_row(None, 82.9, 95, 85, 71, 94, 78, 96, 81, 89, 75, 96, 81, 73, 88, 60, note="CAM (PRL 2017)"),
        "resnet101": config_lib.wider_row(_BACKBONE, 83.7, 94, 85, 69, 91, 80, 96, 83, 91, 78, 95, 82, 74, 89, 65),
        "srn": config_lib.wider_row(None, 85.1, 95, 87, 72, 92, 82, 95, 84, 92, 80, 96, 84, 76, 90, 66,
                                    note="SRN (CVPR 2017) without val, which is configs/srn.py:wider/srn_train"),
        "diaa": config_lib.wider_row({}, 86.4, 96, 88, 74, 93, 83, 96, 85, 93, 81, 96, 85, 78, 90, 68,
                                     note="the printed AP have a mean of 86.14"),
    },
    # Each row is the one before it and one part more. On which scale the first head stands is not known: here on C4.
    "wider_ablation": {
        "backbone": config_lib.wider_row(_BACKBONE, 83.7, note=_LADDER),
        "weighted_focal": config_lib.wider_row(_NO_HEADS, 84.4, note=_LADDER),
        "one_scale": config_lib.wider_row({**_ONE_SCALE, "loss.variance_weights": False}, 85.0, note=f"{_LADDER}; head on C4"),
        "variance_weights": config_lib.wider_row(_ONE_SCALE, 85.7, note=f"{_LADDER}; head on C4"),
        "two_scales": config_lib.wider_row({}, 86.4, note=_LADDER),
    },
    "peta": {
        "resnet101": config_lib.pedestrian_row({**_PETA, **_BACKBONE}, 82.67, 76.63, 85.13, 84.46, 84.79),
        "diaa": config_lib.pedestrian_row(_PETA, 84.59, 78.56, 86.79, 86.12, 86.46),
        # They report 141.27 M parameters with 54 labels, those of this row: the scales of the released program, the widths of the paper.
        "resnet50": config_lib.pedestrian_row(
            {**_PETA, "model.depth": "50", "model.scales": _THREE_SCALES}, 84.35, 78.69, 87.27, 85.51, 86.09,
            note="re-implemented by Jia et al. (2020); scales from their number of parameters, recipe as in the other rows",
            convention="strong_baseline"),
        "deepmar": config_lib.pedestrian_row(None, 82.89, 75.07, 83.68, 83.14, 83.41, note="DeepMAR (ACPR 2015)"),
        "vespa": config_lib.pedestrian_row(None, F1=85.49, note="VeSPA (BMVC 2017)"),
        "srn": config_lib.pedestrian_row(None, F1=83.25, note="SRN (CVPR 2017) by DIAA's authors, which is configs/srn.py:peta/srn"),
        "srn_weighted": config_lib.pedestrian_row(
            None, F1=84.92, note="SRN with the weighted focal loss, from a secondary source; SRN does not have that loss here"),
        "densenet121": config_lib.pedestrian_row(None, F1=84.7, note="DIAA on DenseNet-121, a trunk that is not here; secondary source"),
    },
}


def get_config(arg=None):
  options, row = config_lib.parse_row(
      arg, TABLES, dataset="", stage="joint", variant="paper", world=False, small=False, tiny=False)
  config = config_lib.default_config()
  paper = options.variant == "paper"
  config.model.name, config.model.depth, config.model.variant = "diaa", "101", options.variant
  config.model.scales = _THREE_SCALES[1:] if paper else _THREE_SCALES
  del config.loss.loss  # the weighted focal loss and the variance-weighted one are the method
  config.loss.stage = options.stage
  config.loss.gamma = 0.5 if paper else 2.0
  config.loss.class_weight = "exp_neg_prior" if paper else "deepmar_ratio"
  config.loss.variance_weights = True
  config.batch_size = 32
  config.optimizer.learning_rate = 0.001
  return config_lib.resolve(config, options, row, fixed_size=True)
