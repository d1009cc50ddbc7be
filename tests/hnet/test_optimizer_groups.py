"""What the optimizer and the initialisation know of a parameter: its stage, its decay, its first values."""

import importlib
import math

import jax
import numpy as np
import pytest
from flax import nnx

import hnet
from hnet import official
from layers.paths import flatten
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch


def model_of(layout, **changes):
  config = hnet.parse(branch(layout, **changes))
  return jax.eval_shape(lambda: hnet.build(config, rngs=nnx.Rngs(0)))


@pytest.fixture(scope='module')
def two_stage():
  """An abstract model with a pad at both inner stages."""
  return model_of(TWO_STAGE, d_model=[32, 64, 128])


def test_a_stage_is_its_official_name(two_stage):
  """Everything of a stage goes with it: router, residual projection, and what widens for it, which is the pool's of the
  stage around it; embedding and head with stage 0.
  """
  for tensor in official.parts(two_stage.config):
    expected = min(tensor.name.split('.').count('main_network'), 2)
    assert two_stage.stage_of(tensor.path) == expected, tensor.name
  assert {path for path in flatten(two_stage) if 'pool' in path} == {'backbone.pool.pad', 'backbone.inner.pool.pad'}
  assert two_stage.num_stages == 3
  assert model_of(['T1']).stage_of('backbone.main.runs.0.norm1.scale') == 0


def test_decay_by_default_spares_norms_biases_and_the_ssm(two_stage):
  spared = {tensor.name for tensor in official.parts(two_stage.config) if not two_stage.decays(tensor.path, 'default')}
  rule = lambda name: name.split('.')[-1] in ('A_log', 'D', 'dt_bias', 'bias') or 'norm' in name.split('.')[-2]
  assert spared == {tensor.name for tensor in official.parts(two_stage.config) if rule(tensor.name)}
  assert two_stage.decays('embeddings') and not two_stage.decays('backbone.encoder.norm.scale')


def test_official_decay_is_that_of_the_authors_helper(two_stage):
  for tensor in official.parts(two_stage.config):
    exempt = tensor.name.endswith('.bias') or '.norm.' in tensor.name
    assert two_stage.decays(tensor.path, 'official') == (not exempt), tensor.name


@pytest.mark.parametrize(
  'name, expected',
  [
    ('hnet_1stage_l', (2.627, 0.876)),
    ('hnet_1stage_xl', (3.033, 0.876)),
    ('hnet_2stage_l', (2.627, 1.517, 0.715)),
    ('hnet_2stage_xl', (3.033, 1.430, 0.715)),
  ],
)
def test_learning_rates_of_the_paper(name, expected):
  config = hnet.parse(importlib.import_module(f'configs.{name}').get_config().model.to_dict())
  model = jax.eval_shape(lambda: hnet.build(config, rngs=nnx.Rngs(0)))
  assert model.lr_multipliers('paper') == pytest.approx(expected, abs=5e-4)


def test_rules_count_with_their_chunks():
  pool = model_of(ONE_STAGE, chunking='hnet_pool(4)')
  assert pool.lr_multipliers('paper') == pytest.approx((math.sqrt(4.6 * 2), math.sqrt(4.6 / 4)))
  mixed = model_of(TWO_STAGE, chunking=['hnet', 'hnet_pool(2)'], ratio_targets=[3.0, None])
  assert mixed.lr_multipliers('paper')[-1] == pytest.approx(math.sqrt(4.6 / 6))


def test_multipliers_are_given_or_one(two_stage):
  assert two_stage.lr_multipliers(None) == (1.0, 1.0, 1.0)
  assert two_stage.lr_multipliers([3, 1.7, 0.9]) == (3.0, 1.7, 0.9)
  for wrong in ([1.0], [1.0, 1.0, -1.0], 'eq11'):
    with pytest.raises(ValueError, match=r"lr_multipliers .*: 3 non-negative numbers, one a stage, or 'paper'"):
      two_stage.lr_multipliers(wrong)


def test_residual_additions_are_counted_from_the_outside_in():
  config = hnet.parse(importlib.import_module('configs.hnet_2stage_xl').get_config().model.to_dict())
  assert [stage.output_deviation for stage in config.stages] == [0.02 * n**-0.5 for n in (8, 20, 74)]


def test_initial_values_are_the_published_ones():
  sizes = {'d_model': [64, 128], 'd_intermediate': [256, 256]}
  config = hnet.parse(branch(['t2', ['T4'], 'm1t1'], **sizes))
  flat = {path: np.asarray(v) for path, v in flatten(hnet.build(config, rngs=nnx.Rngs(0))).items()}
  deviation = lambda path: np.std(flat[path])
  assert deviation('embeddings') == pytest.approx(1.0, rel=0.05)
  for path in (
    'lm_head.kernel',
    'backbone.encoder.runs.0.mixer.qkv.kernel',
    'backbone.inner.main.runs.0.mlp.fc1.kernel',
  ):
    assert deviation(path) == pytest.approx(0.02, rel=0.05), path
  # 4 additions outside, and 8 more inside
  for path, additions in (
    ('backbone.encoder.runs.0.mixer.out.kernel', 4),
    ('backbone.decoder.runs.0.mixer.out_proj.kernel', 4),
    ('backbone.inner.main.runs.0.mixer.out.kernel', 12),
    ('backbone.inner.main.runs.0.mlp.fc2.kernel', 12),
  ):
    assert deviation(path) == pytest.approx(0.02 / math.sqrt(additions), rel=0.05), path
  for name in ('query', 'key'):
    np.testing.assert_array_equal(flat[f'backbone.boundary.{name}.kernel'], np.eye(64))
  assert not flat['backbone.combine.residual.kernel'].any() and not flat['backbone.pool.pad'].any()
  bias = flat['backbone.combine.residual.bias']
  assert 0.1 < np.abs(bias).max() <= 64**-0.5
  for path, value in flat.items():
    if path.endswith('scale'):
      np.testing.assert_array_equal(value, 1)
