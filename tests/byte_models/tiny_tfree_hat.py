"""Tiny T-Free-HATs: configuration branches, and models that already do something."""

import jax
from flax import nnx

from byte_models import tfree_hat
from evaluation.oracles import informative

SCALING = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 32,
}


def branch(*, window=-1, kv_heads=2, qk_norm='', every_layer=True, scaling=None, **changes):
  """A `model` branch: widths 16 and 32, heads of size 8, words of at most 8 bytes."""
  norms = {'key_query_norm': bool(qk_norm), 'key_query_norm_per_head': qk_norm == 'head'}

  def layers(width, heads, **more):
    sizes = {'hidden_size': width, 'num_hidden_layers': 2, 'num_attention_heads': heads, 'intermediate_size': 2 * width}
    rotary = {'rope_theta': 100.0, 'rope_scaling': scaling}
    return {**sizes, **rotary, **norms, 'num_key_value_heads': kv_heads, 'rms_norm_eps': 1e-5, **more}

  def cross(heads):
    return {'num_attention_heads': heads, 'attention_num_kv_heads': kv_heads, **norms}

  local = {'sliding_window': None if window < 0 else window}
  return {
    'family': 'tfree_hat',
    'encoder_config': layers(16, 2, cross_attention_config=cross(4), **local),
    'backbone_config': layers(32, 4),
    'decoder_config': layers(16, 2, cross_attention_config=cross(2), cross_attn_every_layer=every_layer, **local),
    'max_word_size': 8,
    **changes,
  }


def build(**changes):
  """An informative model of `branch`."""
  config = tfree_hat.parse(branch(**changes))
  return informative(tfree_hat.build(config, rngs=nnx.Rngs(0)))


def abstract(model_branch):
  """The shapes of a model."""
  return jax.eval_shape(lambda: tfree_hat.build(tfree_hat.parse(model_branch), rngs=nnx.Rngs(0)))
