"""Published T-Free-HAT weights: safetensors under the authors' names, beside their config.json."""

import json
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

from byte_models import llama_weights
from byte_models.tfree_hat.config import TFreeHATConfig
from byte_models.tfree_hat.model import TFreeHAT
from layers import weights
from layers.cross import CrossConfig
from layers.paths import flatten, rebuild
from layers.stack import parse_layout
from layers.weights import Part, linear

CONFIG_KEYS = ('encoder_config', 'backbone_config', 'decoder_config')


def parts(config: TFreeHATConfig) -> Iterator[Part]:
  """Every published tensor and where it is in a model that keeps the unused ones."""
  width, main, pool = config.encoder.width, config.main.width, config.pool
  yield Part('encoder.embedding_layer.weight', (256, width), 'embeddings')
  yield from llama_weights.stack_parts(config.encoder, 'encoder.', 'encoder.')
  yield Part('encoder_connector.latent_query', (1, 1, main), 'connector.latent_1x1xD')
  theirs = 'encoder_connector.cross_attention_encoder_connector.'
  yield linear(f'{theirs}q_proj.weight', 'connector.query.kernel', pool.width_q, pool.inner)
  yield linear(f'{theirs}k_proj.weight', 'connector.key_value.kernel', pool.width_kv, pool.shared)
  yield linear(f'{theirs}v_proj.weight', 'connector.key_value.kernel', pool.width_kv, pool.shared)
  yield linear(f'{theirs}o_proj.weight', 'connector.out.kernel', pool.inner, pool.width_q)
  yield from _norms(pool, theirs, 'connector.query_norm.scale', 'connector.key_norm.scale')
  yield from llama_weights.stack_parts(config.main, 'backbone.', 'main.')
  yield Part('decoder_connector.first_word_embedding', (1, 1, main), 'first_1x1xD')
  guide = config.guide
  for layer in range(sum(count for _, count in parse_layout(config.decoder.layout))):
    theirs, used, unused = f'decoder.decoder_layers.{layer}.', f'decoder.guides.{layer}', f'decoder.unused.{layer}'
    guided = layer < config.guided_layers
    yield Part(f'{theirs}query_norm.weight', (guide.width_q,), f'{unused}.query_norm.scale')
    kv_norm = f'{used}.norm.scale' if guided else f'{unused}.kv_norm.scale'
    yield Part(f'{theirs}kv_norm.weight', (guide.width_kv,), kv_norm)
    if guided:
      theirs += 'cross_attention.'
      yield linear(f'{theirs}q_proj.weight', f'{unused}.query.kernel', guide.width_q, guide.inner)
      yield linear(f'{theirs}k_proj.weight', f'{unused}.key.kernel', guide.width_kv, guide.shared)
      yield linear(f'{theirs}v_proj.weight', f'{used}.values.kernel', guide.width_kv, guide.shared)
      yield linear(f'{theirs}o_proj.weight', f'{used}.out.kernel', guide.inner, guide.width_q)
      yield from _norms(guide, theirs, f'{unused}.norm_query.scale', f'{unused}.norm_key.scale')
  layer_name = 'decoder_layers.{}.llama_layer.'
  yield from llama_weights.stack_parts(config.decoder, 'decoder.', 'decoder.stack.', layer_name)
  yield Part('layer_norm.weight', (width,), 'norm.scale')
  yield linear('lm_head.weight', 'lm_head.kernel', width, 256)


def _norms(config: CrossConfig, theirs: str, query: str, key: str) -> Iterator[Part]:
  if config.qk_norm:
    full = config.qk_norm == 'full'
    yield Part(f'{theirs}norm_query.weight', (config.inner if full else config.head,), query)
    yield Part(f'{theirs}norm_key.weight', (config.shared if full else config.head,), key)


def overrides(config: TFreeHATConfig) -> dict[str, Any]:
  """Parameters that the published model has and never uses come along where a model has them."""
  return {'keep_unused': config.keep_unused}


def from_pretrained(directory: str | os.PathLike, **overrides: Any) -> TFreeHAT:
  """Loads config.json and model.safetensors, whole or in parts with an index.

  overrides: keys of the `model` branch, such as dtype='bfloat16', delivery='published' or window_counts_self=True (the
  inference engine's reading of a window). config.json may hold such keys too, for commands that take a directory alone.

  Delivery is 'causal' unless one of them says 'published'. The published model was trained with the latter, whose loss
  knows at a byte inside a word's first character what follows it (see `byte_models.tfree_hat.words`): its bits are no
  code length and compare with no other model's. 'causal' bits are those of a model that can decode, and count against
  the weights that such bytes come later than in their training; where every word begins with a character of one byte
  the two are the same. 'published' is for numbers of the published code, its generation, and writing the weights back.

  BOS and EOS stand for the ids that config.json gives to '<|begin_of_text|>' and to the end of a text (192 where it
  does not say), so documents are read as the model knows them. A text byte with the value of such an id is read as that
  symbol and predicted in its stead, at 254 or 255: 192 and 193 never occur in UTF-8, an id such as 1 does.

  Parameters become float32, with those that the model never uses unless keep_unused=False; the dtypes of the file are
  remembered for `save_pretrained`. Raises FileNotFoundError for a missing file and ValueError for a configuration or a
  tensor that does not fit.
  """
  parse = lambda values: TFreeHATConfig.from_dict({'keep_unused': True, **values, **overrides})
  directory, config, tensors = weights.read(directory, parse)
  wanted = list(parts(config))
  weights.check(wanted, tensors, directory)
  flat = weights.gather((part for part in wanted if config.keep_unused or '.unused.' not in part.path), tensors)
  model = rebuild(jax.eval_shape(lambda: TFreeHAT(config, rngs=nnx.Rngs(0))), flat)
  model.stored_dtypes = tuple((name, tensors[name].dtype) for name in sorted(tensors))
  return model


def save_pretrained(model: TFreeHAT, directory: str | os.PathLike) -> None:
  """Writes config.json and model.safetensors, as read or in float32; a file is replaced only by a whole one.

  What the published model never uses is zero (norms: one) where the model does not hold it. Raises ValueError for a
  model with another delivery than the published code's, or with another splitter.
  """
  config = model.config
  published = json.loads(config.published)
  if config.delivery != 'published':
    raise ValueError(
      f'delivery {config.delivery!r}: the published code would give other logits in characters of several bytes; train '
      "or load with delivery='published', or keep the model as a training checkpoint."
    )
  if config.words != f'hat(max_bytes={published.get("max_word_size", 100)})':
    raise ValueError(f"words '{config.words}': the published code splits by 'hat' only.")
  flat = dict(flatten(model))
  wanted = list(parts(config))
  for part in wanted:
    if part.path not in flat:
      flat[part.path] = part.ours(np.full(part.shape, part.path.endswith('.scale')))
  weights.write(directory, published, weights.scatter(wanted, flat, dict(model.stored_dtypes)))
