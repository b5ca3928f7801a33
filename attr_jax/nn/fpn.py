"""Feature Pyramid Network: the stages of a trunk brought to one number of channels, each seeing the deeper ones.

Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks for Object Detection", CVPR 2017.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

# Level -> the stage of `ResNet` that it stands on.
STAGE_OF = {"P2": "stage1", "P3": "stage2", "P4": "stage3", "P5": "stage4"}


class FPN(nn.Module):
  """1x1 lateral connections, nearest upsampling and addition from the top down, a 3x3 convolution per level asked for.

  All convolutions have biases and no batch norm (Sec. 3); He initialisation (our choice). P2 with 256 channels on
  ResNet-50: 1,574,144 parameters.

  Attributes:
    channels: of every level, 256 in the paper.
    levels: which to return, of "P2" to "P5"; a level that is not asked for gets no 3x3 convolution.
    dtype: of the computation.
  """

  channels: int = 256
  levels: tuple[str, ...] = tuple(STAGE_OF)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, stages: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Feature maps to pyramid levels.

    Args:
      stages: "stage1" to "stage4", [B, h, w, C] each, as `ResNet` gives them.

    Returns:
      level -> [B, h, w, channels] of `dtype`, at the size of its stage.

    Raises:
      ValueError: an unknown level.
    """
    if unknown := set(self.levels) - set(STAGE_OF):
      raise ValueError(f"FPN has no level {', '.join(sorted(unknown))}; there are: {', '.join(STAGE_OF)}")
    init = nn.initializers.he_normal()
    top_down, out = None, {}
    for level in reversed(STAGE_OF):
      lateral = nn.Dense(self.channels, kernel_init=init, dtype=self.dtype, name=f"lateral_{level}")
      x = lateral(stages[STAGE_OF[level]].astype(self.dtype))
      if top_down is not None:
        x += jax.image.resize(top_down, x.shape, "nearest")
      top_down = x
      if level in self.levels:
        smooth = nn.Conv(self.channels, (3, 3), padding=1, kernel_init=init, dtype=self.dtype, name=f"smooth_{level}")
        out[level] = smooth(x)
    return out
