"""Autoregressive models over words with isolated per-word local models: HAT, Word-Pooled, MegaByte."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from byte_models.word_ar.config import WORD_END, WordARConfig, complete
from byte_models.word_ar.model import WordAR

__all__ = ['WORD_END', 'WordAR', 'WordARConfig', 'build', 'complete', 'parse']


def parse(branch: Mapping[str, Any]) -> WordARConfig:
  """The configuration of a `model` branch; ValueError with one sentence on what is wrong."""
  return WordARConfig.from_dict(branch)


def build(config: WordARConfig, *, rngs: nnx.Rngs) -> WordAR:
  """A freshly initialised model."""
  return WordAR(config, rngs=rngs)
