import re

import pytest

from hnet.parts.losses import TargetSchedule
from training import boundary_watch, description
from training import config as config_lib
from training.state import flatten

BRANCH = {
  'family': 'hnet',
  'arch_layout': ['m1', ['T1'], 'm1'],
  'd_model': [64, 64],
  'd_intermediate': [0, 128],
  'ssm_cfg': {'d_state': 16},
  'attn_cfg': {'num_heads': [2, 2], 'rotary_emb_dim': [16, 16], 'window_size': [31, -1]},
}


def watch(make_config, weight=0.03, **branch):
  config = make_config(num_steps=1000, loss_weights={'ratio': weight}, model=BRANCH | branch)
  settings = config_lib.parse(config)
  return boundary_watch.BoundaryWatch(settings, description.abstract_model(settings.model))


def told(watch, rates):
  """Every sentence of a run that has these rates, one a step."""
  return [said for step, rate in enumerate(rates, 1) for said in watch.look(step, [{'boundary_rate': rate}])]


def test_a_router_that_swings_and_settles_is_not_reported(make_config):
  swinging = [0.02] * 90 + [0.45] * 60 + [0.3] * 150 + [0.2, 0.15, 0.25] * 200
  assert told(watch(make_config, ratio_targets=[5.0]), swinging) == []


@pytest.mark.parametrize(
  ('rates', 'verdict', 'mean'),
  [
    ([0.001] * 500, 'has collapsed to 0', '0.001'),
    ([0.99] * 500, 'has collapsed to 1', '0.990'),
    ([0.5] * 500, 'does not move towards its target', '0.500'),
  ],
)
def test_a_rate_that_stays_away_is_reported_once_with_what_to_change(make_config, rates, verdict, mean):
  (said,) = told(watch(make_config, ratio_targets=[5.0]), rates)
  assert re.match(rf'step 300: the boundary rate of stage 0 {verdict}', said)
  assert f'(mean of 100 steps {mean}, target 0.200)' in said
  for key in ('loss_weights.ratio (0.03)', "pattern 'boundary'", 'optimizer.schedule.warmup 0.1 is 100 of 1000 steps'):
    assert key in said
  (said,) = told(watch(make_config, weight=0.0, ratio_targets=[5.0]), rates)
  assert 'loss_weights.ratio is 0, so nothing pulls it there' in said


def test_a_rate_on_its_way_is_left_alone_and_one_that_fails_again_is_reported_again(make_config):
  on_its_way = [0.9 - 0.001 * step for step in range(700)]
  assert told(watch(make_config, ratio_targets=[5.0]), on_its_way) == []
  again = [0.001] * 300 + [0.2] * 200 + [0.001] * 300
  assert len(told(watch(make_config, ratio_targets=[5.0]), again)) == 2


def test_a_target_that_moves_is_followed_and_a_rule_has_none(make_config):
  schedule = TargetSchedule(start=2.0, end=8.0)
  rates = [1 / float(schedule(step / 1000)) for step in range(1, 900)]
  assert told(watch(make_config, ratio_targets=[{'start': 2.0, 'end': 8.0}]), rates) == []
  assert told(watch(make_config, ratio_targets=[8.0]), [0.5] * 300)
  assert told(watch(make_config, chunking='hnet_space'), [0.0] * 500) == []


def test_the_advice_names_parameters_that_there_are(make_config):
  model = description.abstract_model(BRANCH)
  assert any(re.search('boundary', path) for path in flatten(model))


def test_a_calibrated_boundary_that_cuts_otherwise_is_reported_once(make_config):
  chunking = {'boundary': 'entropy(threshold=1,size=4.0)', 'pool': 'first', 'unpool': 'repeat'}
  made = lambda: watch(make_config, chunking=chunking)
  (said,) = told(made(), [0.2] * 350)
  assert said.startswith(
    'step 100: the chunks of stage 0 have 5.00 slots (mean of 100 steps) and its boundary states 4'
  )
  assert 'python -m studies.calibrate' in said
  for close in (1 / 4.3, 1 / 3.7):
    assert told(made(), [close] * 350) == []


def test_another_loss_is_named_where_it_pulls(make_config):
  config = make_config(
    loss_weights={'quantile': 1.0}, model=BRANCH | {'chunking': 'byteflow_threshold'}, num_steps=1000
  )
  settings = config_lib.parse(config)
  (said,) = told(boundary_watch.BoundaryWatch(settings, description.abstract_model(settings.model)), [0.5] * 500)
  assert 'raise the weight of the loss that pulls it (quantile), or the learning rate of the boundary' in said
