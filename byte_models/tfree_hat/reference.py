"""The model as a specification: one document, float64, loops, config.json and tensors as published.

Here the decoder's cross attention stands in full, with queries, keys and a softmax over the one key that a byte sees.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def forward(
  config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], byte_ids: Sequence[int], word_lengths: Sequence[int]
) -> dict[str, np.ndarray]:
  """Every intermediate by its published name: [L, D] for bytes, [S, D] for words; delivery 'published'."""
  weights = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
  encoder, decoder = config['encoder_config'], config['decoder_config']
  last = np.cumsum(word_lengths)
  words = [range(end - length, end) for end, length in zip(last, word_lengths, strict=True)]
  word_of = np.repeat(np.arange(len(words)), word_lengths)

  a = weights['encoder.embedding_layer.weight'][np.asarray(byte_ids)]
  for layer in range(encoder['num_hidden_layers']):
    a = _block(encoder, weights, f'encoder.layers.{layer}.', a, encoder['sliding_window'])

  cross = encoder['cross_attention_config']
  latent = weights['encoder_connector.latent_query'].reshape(1, -1)
  name = 'encoder_connector.cross_attention_encoder_connector.'
  pooled = [_cross(encoder, cross, weights, name, latent, [i], a[word], word) for i, word in enumerate(words)]
  g = np.concatenate(pooled)

  z = g
  for layer in range(config['backbone_config']['num_hidden_layers']):
    z = _block(config['backbone_config'], weights, f'backbone.layers.{layer}.', z, None)
  p = np.concatenate([weights['decoder_connector.first_word_embedding'].reshape(1, -1), z[:-1]])

  y, cross = a, decoder['cross_attention_config']
  for layer in range(decoder['num_hidden_layers']):
    name = f'decoder.decoder_layers.{layer}.'
    if layer == 0 or decoder['cross_attn_every_layer']:
      query = _rms(y, weights[f'{name}query_norm.weight'], decoder)
      key = _rms(p, weights[f'{name}kv_norm.weight'], decoder)
      one = lambda t, w, query=query, key=key, name=name: _cross(
        decoder, cross, weights, f'{name}cross_attention.', query[t : t + 1], [t], key[w : w + 1], [w]
      )
      y = y + np.concatenate([one(t, w) for t, w in enumerate(word_of)])
    y = _block(decoder, weights, f'{name}llama_layer.', y, decoder['sliding_window'])
  return {
    'encoder_output': a,
    'word_embeddings': g,
    'backbone_output': z,
    'predictive_word_embeddings': p,
    'decoder_output': y,
    'logits': _rms(y, weights['layer_norm.weight'], decoder) @ weights['lm_head.weight'].T,
  }


def _block(config, weights, name: str, x: np.ndarray, window: int | None) -> np.ndarray:
  """Pre-norm attention and SwiGLU; a window shows that many positions before the own."""
  project = lambda part, v: v @ weights[f'{name}{part}.weight'].T
  n = _rms(x, weights[f'{name}input_layernorm.weight'], config)
  q, k, v = (project(f'self_attn.{part}_proj', n) for part in 'qkv')
  heads, shared, index = config['num_attention_heads'], config['num_key_value_heads'], np.arange(len(x))
  q, k, v = _heads(config, config, weights, f'{name}self_attn.', q, k, v, heads, shared, index, index)
  ahead = index[:, None] - index
  visible = (ahead >= 0) & (ahead <= (len(x) if window is None else window))
  x = x + project('self_attn.o_proj', _attend(q, k, v, visible))
  n = _rms(x, weights[f'{name}post_attention_layernorm.weight'], config)
  gate = project('mlp.gate_proj', n)
  return x + project('mlp.down_proj', gate / (1 + np.exp(-gate)) * project('mlp.up_proj', n))


def _cross(outer, config, weights, name: str, query, query_index, key, key_index) -> np.ndarray:
  """Attention of all queries to all keys; rotary table of the layers around it."""
  q, k, v = (x @ weights[f'{name}{part}_proj.weight'].T for part, x in (('q', query), ('k', key), ('v', key)))
  heads, shared = config['num_attention_heads'], config['attention_num_kv_heads']
  q, k, v = _heads(outer, config, weights, name, q, k, v, heads, shared, query_index, key_index)
  return _attend(q, k, v, np.ones((len(q), len(k)), bool)) @ weights[f'{name}o_proj.weight'].T


def _heads(outer, config, weights, name, q, k, v, heads, shared, query_index, key_index):
  """[N, H, K] each: norms over all heads or over one, rotation, every shared head repeated for its query heads."""
  split = lambda x, count: x.reshape(len(x), count, -1)
  if config['key_query_norm'] and not config['key_query_norm_per_head']:
    q, k = _rms(q, weights[f'{name}norm_query.weight'], outer), _rms(k, weights[f'{name}norm_key.weight'], outer)
  q, k, v = split(q, heads), split(k, shared), split(v, shared)
  if config['key_query_norm'] and config['key_query_norm_per_head']:
    q, k = _rms(q, weights[f'{name}norm_query.weight'], outer), _rms(k, weights[f'{name}norm_key.weight'], outer)
  q, k = _rotate(q, query_index, outer), _rotate(k, key_index, outer)
  return q, np.repeat(k, heads // shared, 1), np.repeat(v, heads // shared, 1)


def _attend(q, k, v, visible) -> np.ndarray:
  out = np.zeros_like(q)
  for head in range(q.shape[1]):
    scores = np.where(visible, q[:, head] @ k[:, head].T / math.sqrt(q.shape[2]), -np.inf)
    scores = np.exp(scores - scores.max(1, keepdims=True))
    out[:, head] = scores / scores.sum(1, keepdims=True) @ v[:, head]
  return out.reshape(len(q), -1)


def _rms(x, scale, config) -> np.ndarray:
  return scale * x / np.sqrt(np.mean(x * x, -1, keepdims=True) + config['rms_norm_eps'])


def _rotate(x, index, config) -> np.ndarray:
  half = x.shape[-1] // 2
  scaling, result = config['rope_scaling'], np.array(x)
  for m in range(half):
    frequency = config['rope_theta'] ** (-m / half)
    if scaling is not None:
      waves = scaling['original_max_position_embeddings'] * frequency / (2 * math.pi)
      low, high = scaling['low_freq_factor'], scaling['high_freq_factor']
      kept = 0.0 if waves < low else 1.0 if waves > high else (waves - low) / (high - low)
      frequency = kept * frequency + (1 - kept) * frequency / scaling['factor']
    angle = np.asarray(index, np.float64)[:, None] * frequency
    result[..., m] = x[..., m] * np.cos(angle) - x[..., m + half] * np.sin(angle)
    result[..., m + half] = x[..., m + half] * np.cos(angle) + x[..., m] * np.sin(angle)
  return result
