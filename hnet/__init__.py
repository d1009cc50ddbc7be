"""H-Net: hierarchical byte models with learned (or rule-based) chunks. arXiv 2507.07955."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from hnet.config import HNetConfig, complete, resize
from hnet.fused import FusedHNet
from hnet.model import HNet
from hnet.official import from_pretrained, save_pretrained
from layers.stack import Backbone

__all__ = [
  'HNet', 'HNetConfig', 'backbone', 'build', 'complete', 'from_pretrained', 'parse', 'resize', 'save_pretrained',
]  # fmt: skip


def parse(branch: Mapping[str, Any]) -> HNetConfig:
  """The configuration of a `model` branch or of an official config.json."""
  return HNetConfig.from_dict(branch)


def build(config: HNetConfig, *, rngs: nnx.Rngs) -> HNet:
  """A freshly initialised model."""
  return (FusedHNet if config.is_fused else HNet)(config, rngs=rngs)


def backbone(config: HNetConfig) -> Backbone:
  """The main network, inside all stages."""
  path = 'backbone' + '.inner' * (len(config.stages) - 1) + '.main'
  return Backbone(path, config.stages[-1].main, config.mlp_multiple)
