"""Autoregressive models over words with isolated per-word local models: HAT, Word-Pooled, MegaByte."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from byte_models.word_ar.config import WORD_END, WordARConfig, complete
from byte_models.word_ar.model import WordAR
from layers.stack import Backbone

__all__ = ['WORD_END', 'WordAR', 'WordARConfig', 'backbone', 'build', 'complete', 'parse', 'resize']


def parse(branch: Mapping[str, Any]) -> WordARConfig:
  """The configuration of a `model` branch; ValueError with one sentence on what is wrong."""
  return WordARConfig.from_dict(branch)


def build(config: WordARConfig, *, rngs: nnx.Rngs) -> WordAR:
  """A freshly initialised model."""
  return WordAR(config, rngs=rngs)


def backbone(config: WordARConfig) -> Backbone:
  """The stack over words."""
  return Backbone('backbone', config.backbone)


def resize(
  branch: dict[str, Any], depth: int, *, width: int | None = None, mlp_width: int | None = None
) -> dict[str, Any]:
  """A `model` branch, changed in place: its backbone has so many blocks, with an MLP if it has one."""
  kind = 'T' if 'T' in branch['backbone']['arch_layout'] else 't'
  sizes = {'arch_layout': f'{kind}{depth}', 'd_model': width, 'd_intermediate': mlp_width}
  branch['backbone'] |= {key: size for key, size in sizes.items() if size is not None}
  return branch
