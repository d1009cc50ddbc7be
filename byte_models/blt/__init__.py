"""BLT (arXiv 2412.09871): an H-Net of its own parts and stacks, with the published weights."""

from flax import nnx

from byte_models.blt.config import BLTConfig, complete, parse, resize
from byte_models.blt.official import from_pretrained, save_pretrained
from hnet.model import HNet
from layers.stack import Backbone

__all__ = [
  'BLTConfig', 'backbone', 'build', 'complete', 'from_pretrained', 'parse', 'resize', 'save_pretrained',
]  # fmt: skip


def build(config: BLTConfig, *, rngs: nnx.Rngs) -> HNet:
  """A freshly initialised model."""
  return HNet(config, rngs=rngs)


def backbone(config: BLTConfig) -> Backbone:
  """The stack over patches."""
  return Backbone('backbone.inner.main', config.stages[-1].main, config.mlp_multiple)
