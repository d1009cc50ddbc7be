"""T-Free-HAT (arXiv 2603.15953): a word model over bytes around a pretrained backbone, with the published weights."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from byte_models.tfree_hat.config import TFreeHATConfig, complete
from byte_models.tfree_hat.model import TFreeHAT
from byte_models.tfree_hat.official import from_pretrained, save_pretrained

__all__ = ['TFreeHAT', 'TFreeHATConfig', 'build', 'complete', 'from_pretrained', 'parse', 'save_pretrained']


def parse(branch: Mapping[str, Any]) -> TFreeHATConfig:
  """The configuration of a `model` branch or of an official config.json."""
  return TFreeHATConfig.from_dict(branch)


def build(config: TFreeHATConfig, *, rngs: nnx.Rngs) -> TFreeHAT:
  """A freshly initialised model."""
  return TFreeHAT(config, rngs=rngs)
