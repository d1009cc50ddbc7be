"""T-Free-HAT (arXiv 2603.15953): a word model over bytes around a pretrained backbone, with the published weights."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from byte_models.tfree_hat.config import TFreeHATConfig, complete
from byte_models.tfree_hat.model import TFreeHAT
from byte_models.tfree_hat.official import from_pretrained, save_pretrained
from layers.stack import Backbone

__all__ = [
  'TFreeHAT', 'TFreeHATConfig', 'backbone', 'build', 'complete', 'from_pretrained', 'parse', 'resize',
  'save_pretrained',
]  # fmt: skip


def parse(branch: Mapping[str, Any]) -> TFreeHATConfig:
  """The configuration of a `model` branch or of an official config.json."""
  return TFreeHATConfig.from_dict(branch)


def build(config: TFreeHATConfig, *, rngs: nnx.Rngs) -> TFreeHAT:
  """A freshly initialised model."""
  return TFreeHAT(config, rngs=rngs)


def backbone(config: TFreeHATConfig) -> Backbone:
  """The stack over words."""
  return Backbone('main', config.main)


def resize(branch: dict[str, Any], depth: int, *, mlp_width: int | None = None) -> dict[str, Any]:
  """A `model` branch, changed in place: its backbone has so many layers."""
  sizes = {'num_hidden_layers': depth, 'intermediate_size': mlp_width}
  branch['backbone_config'] |= {key: size for key, size in sizes.items() if size is not None}
  return branch
