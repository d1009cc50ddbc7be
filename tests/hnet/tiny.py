"""Tiny H-Nets: configuration branches, and models whose routers and residuals already do something."""

from flax import nnx

import hnet
from evaluation.oracles import informative

ONE_STAGE = ['m1', ['T1'], 'm1']
TWO_STAGE = ['t1', ['m1', ['T1'], 't1'], 'm1']  # both kinds of block outside and inside


def attention(window=-1):
  """attn_cfg of two heads that all stages share."""
  return {'num_heads': 2, 'rotary_emb_dim': 8, 'window_size': window}


def branch(layout, window=-1, **changes):
  """A `model` branch: width 32, and 64 in the innermost of several stages."""
  stages = 1 if len(layout) == 1 else 2 if len(layout[1]) == 1 else 3
  return {
    'family': 'hnet',
    'arch_layout': layout,
    'd_model': [32] * max(stages - 1, 1) + [64] * (stages > 1),
    'd_intermediate': [64] * stages,
    'ssm_cfg': {'d_state': 8},
    'attn_cfg': attention(window),
    'ssd_tile': 16,
    **changes,
  }


def build(layout, **changes):
  """An informative model of `branch`."""
  config = hnet.parse(branch(layout, **changes))
  return informative(hnet.build(config, rngs=nnx.Rngs(0)))
