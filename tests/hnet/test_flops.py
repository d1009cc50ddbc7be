"""FLOPs a byte against the paper's Table 2 and against XLA's own count."""

import importlib

import jax
import numpy as np
import pytest
from flax import nnx

import hnet
from hnet.flops import flops_per_byte
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch
from text.batch import Batch

LENGTH = 8192


def large(layout, window, d_inner=1536, **changes):
  """A baseline of the paper at its large scale (XL: inner width 2048)."""
  widths = [1024] if len(layout) == 1 else [1024, d_inner]
  sizes = {'arch_layout': layout, 'd_model': widths, 'd_intermediate': [None] * len(widths)}
  return {**sizes, 'attn_cfg': {'num_heads': 16, 'rotary_emb_dim': 32, 'window_size': window}, **changes}


SPACEBYTE = {'chunking': 'spacebyte', 'post_norm': False}
TABLE_2 = {
  'hnet_1stage_l': 0.43,
  'hnet_1stage_xl': 0.72,
  'hnet_2stage_l': 0.43,
  'hnet_2stage_xl': 0.69,
}
BASELINES = {
  'MambaByte': (large(['m28'], -1), 0.42),
  'LlamaByte (Global)': (large(['T16'], -1), 0.95),
  'H-Net (pool)': (large(['m4', ['T28'], 'm4'], [1023, -1], chunking='hnet_pool'), 0.42),
  'H-Net (space)': (large(['m4', ['T28'], 'm4'], [1023, -1], chunking='hnet_space'), 0.42),
  'SpaceByte++': (large(['m4', ['T28'], 'm4'], [1023, -1], **SPACEBYTE), 0.42),
  'SpaceByte++ XL': (large(['m4', ['T31'], 'm4'], [1023, -1], 2048, **SPACEBYTE), 0.72),
}


@pytest.mark.parametrize('name', TABLE_2)
def test_released_models_meet_the_paper_at_the_chunk_sizes_it_reports(name):
  config = hnet.parse(importlib.import_module(f'configs.{name}').get_config().model.to_dict())
  reported = {'hnet_1stage_l': 4.8, 'hnet_1stage_xl': 4.7, 'hnet_2stage_l': 7.0, 'hnet_2stage_xl': 6.9}
  assert config.bytes_per_chunk[-1] == reported[name]
  assert sum(flops_per_byte(config, LENGTH).values()) == pytest.approx(TABLE_2[name] * 1e9, rel=0.03)


@pytest.mark.parametrize('name', BASELINES)
def test_baselines_meet_the_paper(name):
  values, expected = BASELINES[name]
  assert sum(flops_per_byte(hnet.parse(values), LENGTH).values()) == pytest.approx(expected * 1e9, rel=0.03)


@pytest.mark.parametrize('layout', [['T2'], ['m2'], ONE_STAGE, TWO_STAGE])
def test_xla_counts_the_same_on_an_unrolled_forward_at_full_capacity(layout):
  """With room for every byte a chunk is one byte. XLA does not count lookups, and masked blocks differ."""
  stages = 1 if len(layout) == 1 else 2 if len(layout[1]) == 1 else 3
  sizes = {'d_model': [256] * stages, 'd_intermediate': [1024] * stages, 'ssm_cfg': {'d_state': 64}}
  config = hnet.parse(branch(layout, **sizes))
  model = jax.eval_shape(lambda: hnet.build(config, rngs=nnx.Rngs(0)))
  batch = Batch(np.zeros((1, 64), np.uint8), np.ones((1, 64), np.int32))
  cost = jax.jit(lambda model, batch: model(batch).logits).lower(model, batch).compile().cost_analysis()
  analytic = flops_per_byte(config, 64, [1.0] * (stages - 1))
  assert cost['flops'] / 64 == pytest.approx(sum(analytic.values()), rel=0.07)


def test_components_scale_with_the_chunks_of_their_stage():
  config = hnet.parse(branch(TWO_STAGE))
  base, fewer = flops_per_byte(config, 64, [2.0, 4.0]), flops_per_byte(config, 64, [2.0, 8.0])
  assert {key for key in base if base[key] != fewer[key]} == {'main'}
  assert fewer['main'] < base['main'] / 2  # fewer chunks, and fewer keys for each
  assert set(base) == {
    'embeddings', 'encoder_0', 'decoder_0', 'chunking_0', 'encoder_1', 'decoder_1', 'chunking_1', 'main', 'lm_head'
  }  # fmt: skip
  assert flops_per_byte(config, 64) == flops_per_byte(config, 64, config.bytes_per_chunk)
  assert (base['chunking_0'], base['chunking_1']) == (6 * 32**2, 6 * 32**2 / 2)  # router, and the residual's projection


@pytest.mark.parametrize(
  'chunking, projections', [('hnet', 3), ('hnet_pool', 1), ('hnet_space', 1), ('spacebyte', 0), ({'combine': 'sum'}, 2)]
)
def test_parts_cost_their_projections(chunking, projections):
  found = flops_per_byte(hnet.parse(branch(ONE_STAGE, chunking=chunking)), 64)
  assert found['chunking_0'] == projections * 2 * 32**2


@pytest.mark.parametrize('sizes', [[], [2.0], [2.0, 4.0, 8.0], [0.5, 4.0]])
def test_chunk_sizes_are_one_for_each_stage(sizes):
  with pytest.raises(ValueError, match='bytes_per_chunk .* for each of 2 stages'):
    flops_per_byte(hnet.parse(branch(TWO_STAGE)), 64, sizes)
