"""The person segmenter behind Da-HAR's mask targets (Wu et al., AAAI 2020): FPN on ResNet-50, P2, trained on COCO persons.

  attr-jax prepare coco_person --source=coco --data-dir=data
  attr-jax train --config=configs/person_segmenter.py --workdir=runs/segmenter --config.weights=resnet50.safetensors
  attr-jax annotate --workdir=runs/segmenter --dataset=wider_attribute --data-dir=data
  attr-jax train --config=configs/dahar.py:annotation=person_mask --workdir=runs/dahar --config.weights=resnet101.safetensors

Options: `dataset` (coco_person, or one with masks of its own), `world` (drawn people, who have exact masks), `small` (a
tiny trunk on small images, from scratch: minutes on a laptop), `tiny` (two steps, for tests).

The paper does not say how its segmenter was trained: rate, schedule and augmentation are those of Da-HAR itself.
"""

from attr_jax import config as config_lib


def get_config(arg=None):
  options = config_lib.parse_arg(arg, dataset="coco_person", world=False, small=False, tiny=False)
  config = config_lib.default_config()
  config.model.name, config.model.depth, config.model.channels = "person_segmenter", "50", 256
  for key in list(config.loss):  # one loss, nothing to choose
    del config.loss[key]
  config.data.name = options.dataset
  config.data.test_split = "val"  # COCO's test images have no annotations
  config.input.masks = True
  config.input.full_size = (256, 256)
  config.input.brightness = config.input.contrast = config.input.saturation = 0.2
  config.batch_size = 32
  config.optimizer.learning_rate = 0.003
  config.evaluate.select = "mask_IoU"
  if options.world or options.tiny:
    config.data.test_split = "test"
  config = config_lib.at_size(config, options)
  if options.small:
    config.optimizer.learning_rate = 0.05  # the loss is one mean, where attributes sum fourteen
  if options.small or options.tiny:
    config.model.channels = 64
  return config
