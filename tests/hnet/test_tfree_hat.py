"""A stage of shared parts with the weights of a T-Free-HAT: the same logits, where every character is one byte."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import hnet
from hnet.stage import Stage
from layers.chunks import Level
from layers.contract import EVAL
from layers.paths import flatten, rebuild
from tests.byte_models import tiny_tfree_hat
from tests.hnet.tiny import branch
from tests.layers.common import segment_ids
from text.batch import Batch
from text.marks import mark

TEXT = b'One, two words: 12345678901 (of many)\n  and a_longer_one. That is it, then; no more'
IDS = segment_ids([40], [1, 2, 17, 20], [33], [5, 13, 1])  # some documents are one word
# T-Free-HAT's parameters by the module that holds them -> where a stage has them
PLACES = {
  'encoder': 'encoder',
  'connector': 'pool',
  'main': 'inner.main',
  'first_1x1xD': 'unpool.first_E',
  'decoder.guides': 'unpool.guides',
  'decoder.stack': 'decoder',
}


def stage_of(model):
  """The stage with the model's sizes and parameters."""
  config, guided = model.config, model.config.guided_layers
  pool = {
    'heads': config.pool.num_heads,
    'kv_heads': config.pool.num_kv_heads,
    'qk_norm': config.pool.qk_norm or 'none',
  }
  options = ','.join(f'{key}={value}' for key, value in {**pool, 'rotary_base': config.pool.rotary_base}.items())
  sizes = {'d_model': [config.encoder.width, config.main.width], 'attn_cfg': {'num_heads': 2, 'rotary_emb_dim': 8}}
  sizes['attn_cfg']['window_size'] = -1
  parts = {
    'boundary': 'mark(words)',
    'pool': f'latent({options})',
    'unpool': f'cross(heads={config.guide.num_heads},kv_heads={config.guide.num_kv_heads},layers={guided})',
  }
  parsed = hnet.parse(branch(['T2', ['T2'], 'T2'], chunking=parts, **sizes))
  outer, inner = parsed.stages  # rotary bases, shared heads and norms are not among H-Net's own keys
  outer = dataclasses.replace(outer, encoder=config.encoder, decoder=config.decoder)
  stages = outer, dataclasses.replace(inner, main=config.main)
  stage = jax.eval_shape(lambda: Stage(dataclasses.replace(parsed, stages=stages), 0, rngs=nnx.Rngs(0)))
  moved = {
    path.replace(ours, theirs, 1): leaf
    for path, leaf in flatten(model).items()
    for ours, theirs in PLACES.items()
    if path == ours or path.startswith(f'{ours}.')
  }
  moved['unpool.first_E'] = moved['unpool.first_E'].reshape(-1)
  return rebuild(stage, moved)


def marked(model, ids):
  text = np.frombuffer((TEXT * 4)[: ids.size], np.uint8).reshape(ids.shape)
  return mark(Batch(text, ids), model.marks)


def level_of(batch):
  return Level.of_bytes(jnp.asarray(batch.segment_ids), {'words': jnp.asarray(batch.marks['words'])})


MODELS = {
  'plain': {},
  'window': {'window': 5, 'kv_heads': 1, 'qk_norm': 'head', 'every_layer': False},
  'full': {'qk_norm': 'full', 'delivery': 'published'},
}


@pytest.mark.parametrize('kind', MODELS)
def test_logits_equal_those_of_tfree_hat_in_packed_documents(kind):
  model = tiny_tfree_hat.build(**MODELS[kind])
  batch, stage = marked(model, IDS), stage_of(model)

  @jax.jit
  def of_stage(model, stage, batch):
    y, (decision,) = stage(model.embed(batch.bytes), level_of(batch), (None,), EVAL)
    return model.by_byte(model.head(y)), decision.segments.needed

  expected = jax.jit(lambda model, batch: model(batch))(model, batch)
  logits, needed = of_stage(model, stage, batch)
  np.testing.assert_allclose(logits[IDS > 0], expected.logits[IDS > 0], atol=1e-5)
  chunks = expected.segmentations[0].sum(1) - IDS.max(1)  # the last word of a document has none
  assert needed == chunks.max() < expected.needed[0]
  assert np.std(expected.logits[IDS > 0]) > 0.3


def test_steps_of_the_stage_give_them_too():
  model = tiny_tfree_hat.build(window=5, kv_heads=1, qk_norm='head')
  batch, stage, prompts = marked(model, np.ones((3, 32), np.int32)), stage_of(model), np.array([1, 6, 17])
  expected = jax.jit(lambda model, batch: model(batch).logits)(model, batch)

  @jax.jit
  def prefill(stage, batch):
    ids = (jnp.arange(32)[None] < prompts[:, None]).astype(jnp.int32)
    level = level_of(dataclasses.replace(batch, segment_ids=ids))
    return stage.prefill(model.embed(batch.bytes), level, stage.init_cache(3, 32))[1]

  @jax.jit
  def step(stage, byte_B, word_B, cache):
    y, cache = stage.step(model.embed(byte_B), {'words': word_B}, jnp.ones(3, bool), cache)
    return model.by_byte(model.head(y)), cache

  cache = prefill(stage, batch)
  for count in range(32 - prompts.max()):
    at = np.arange(3), prompts + count
    logits, cache = step(stage, batch.bytes[at], batch.marks['words'][at], cache)
    np.testing.assert_allclose(logits, expected[at], atol=1e-5)
