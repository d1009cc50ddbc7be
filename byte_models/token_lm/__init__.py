"""A Llama over the tokens of documents, scored in bits of their bytes: the model that byte models are compared with."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from byte_models.token_lm.config import TokenLMConfig, complete
from byte_models.token_lm.model import TokenLM
from layers.stack import Backbone

__all__ = ['TokenLM', 'TokenLMConfig', 'backbone', 'build', 'complete', 'parse', 'resize']


def parse(branch: Mapping[str, Any]) -> TokenLMConfig:
  """The configuration of a `model` branch; ValueError or OSError with one sentence on what is wrong."""
  return TokenLMConfig.from_dict(branch)


def build(config: TokenLMConfig, *, rngs: nnx.Rngs) -> TokenLM:
  """A freshly initialised model."""
  return TokenLM(config, rngs=rngs)


def backbone(config: TokenLMConfig) -> Backbone:
  """The blocks of the Llama."""
  return Backbone('llama.backbone', config.llama.stack)


def resize(branch: dict[str, Any], depth: int, *, mlp_width: int | None = None) -> dict[str, Any]:
  """A `model` branch, changed in place: its Llama has so many layers."""
  sizes = {'num_hidden_layers': depth, 'intermediate_size': mlp_width}
  branch |= {key: size for key, size in sizes.items() if size is not None}
  return branch
