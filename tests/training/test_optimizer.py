import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import tiny
from training import config as config_lib
from training import description, state
from training.optimizer import make_optimizer, make_schedule, parameter_groups


def rates(num_steps=100, **changes):
  settings = config_lib.Schedule(**{'name': 'wsd', 'warmup': 0.1, 'decay': 0.2, 'final': 0.0} | changes)
  schedule = make_schedule(2.0, settings, num_steps)
  return np.array([schedule(t) for t in range(num_steps)])


def test_wsd_warms_up_linearly_stays_and_decays_as_one_minus_the_root():
  lr = rates()
  np.testing.assert_allclose(lr[:10], 2.0 * np.arange(1, 11) / 10, rtol=1e-6)
  np.testing.assert_allclose(lr[10:81], 2.0)
  np.testing.assert_allclose(lr[80:], 2.0 * (1 - np.sqrt(np.arange(20) / 20)), rtol=1e-5)


def test_cosine_ends_at_its_final_fraction_and_constant_stays():
  lr = rates(name='cosine', final=0.1)
  assert (
    lr[10] == pytest.approx(2.0) and lr[55] == pytest.approx(1.1, abs=1e-3) and lr[-1] == pytest.approx(0.2, abs=1e-2)
  )
  np.testing.assert_allclose(rates(name='constant')[9:], 2.0)


@pytest.mark.parametrize('name', ['wsd', 'cosine', 'constant'])
def test_schedules_without_warm_up_begin_at_the_peak(name):
  assert rates(name=name, warmup=0.0)[0] == 2.0


def test_without_decay_wsd_is_constant():
  np.testing.assert_allclose(rates(decay=0.0)[9:], 2.0)


def settings(**changes) -> config_lib.Optimizer:
  schedule = config_lib.Schedule('constant', 0.0, 0.0, 0.0)
  values = dict(weight_decay=0.5, decay_exempt='default', betas=(0.9, 0.95), eps=1e-8, clip_norm=0.0)
  values |= dict(lr_multipliers=(2.0, 0.5), accumulate=1, ema=0.0)
  return config_lib.Optimizer(name='adamw', learning_rate=0.1, schedule=schedule, **values | changes)


FROZEN = {'inner': config_lib.Group(r'^inner\.', multiplier=0.1, frozen_steps=3)}


def test_a_group_stands_still_decay_included_and_then_moves_at_its_multiple():
  model = description.abstract_model({'family': 'tiny'})
  start = {path: jnp.ones(leaf.shape) for path, leaf in state.flatten(model).items()}
  gradients = jax.tree.map(jnp.ones_like, start)
  runs = []
  for groups in ({}, FROZEN):
    chosen = settings(groups=groups)
    optimizer = make_optimizer(chosen, 10, *parameter_groups(model, list(start), chosen))
    params, opt_state, seen = start, jax.jit(optimizer.init)(start), []
    update = jax.jit(optimizer.update)
    for step in range(5):
      params, opt_state = update(gradients, opt_state, params, jnp.int32(step))
      seen.append(params)
    runs.append(seen)
  free, frozen = runs
  for path, before in start.items():
    if not path.startswith('inner.'):
      for a, b in zip(free, frozen, strict=True):
        np.testing.assert_array_equal(a[path], b[path])
      continue
    for params in frozen[:3]:
      np.testing.assert_array_equal(params[path], before)
    # rate x multiplier of the stage x multiplier of the group x (Adam's sign of the gradient + decay)
    step = 0.1 * 0.5 * 0.1 * (1.0 + (0.0 if path.endswith('.bias') else 0.5))
    np.testing.assert_allclose(frozen[3][path], before - step, rtol=1e-5, err_msg=path)
    assert np.all(frozen[4][path] < frozen[3][path])


def test_a_group_without_parameters_and_a_parameter_in_two_groups_are_refused():
  model = description.abstract_model({'family': 'tiny'})
  paths = list(state.flatten(model))
  with pytest.raises(ValueError, match=r"optimizer\.groups\.main\.pattern '\^main' matches no parameter of the model"):
    parameter_groups(model, paths, settings(groups={'main': config_lib.Group('^main')}))
  with pytest.raises(
    ValueError, match=r'parameter inner\.0\.bias is in two groups: optimizer\.groups\.inner and biases'
  ):
    parameter_groups(model, paths, settings(groups=FROZEN | {'biases': config_lib.Group('bias$')}))


def test_what_is_not_trained_has_no_moments_and_stays_whatever_the_decay(monkeypatch):
  monkeypatch.setattr(tiny.Tiny, 'trains', lambda self, path: not path.startswith('inner.'))
  model = description.abstract_model({'family': 'tiny'})
  start = {path: jnp.ones(leaf.shape) for path, leaf in state.flatten(model).items()}
  optimizer = make_optimizer(settings(), 10, *parameter_groups(model, list(start), settings()))
  opt_state = optimizer.init(start)
  assert not [path for path in state.flatten(opt_state) if 'inner.' in path]
  gradients = jax.tree.map(jnp.ones_like, optimizer.moving(start))
  params, _ = optimizer.update(gradients, opt_state, start, jnp.int32(0))
  assert params.keys() == start.keys()
  for path, before in start.items():
    assert np.array_equal(params[path], before) == path.startswith('inner.'), path
  with pytest.raises(ValueError, match='matches no parameter of the model'):
    parameter_groups(model, list(start), settings(groups=FROZEN))


def updated(optimizer_settings, gradient):
  """(parameters before, parameters after one update), flat, for equal gradients everywhere."""
  model = description.abstract_model({'family': 'tiny'})
  params = {path: jnp.ones(leaf.shape) for path, leaf in state.flatten(model).items()}
  optimizer = make_optimizer(optimizer_settings, 10, *parameter_groups(model, list(params), optimizer_settings))
  gradients = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
  return params, optimizer.update(gradients, optimizer.init(params), params, jnp.int32(0))[0]


def test_multipliers_scale_the_whole_update_of_their_stage_and_decay_spares_its_group():
  before, after = updated(settings(), gradient=0.0)
  for path in before:  # without a gradient only the decay moves a parameter: by rate x multiplier x decay
    multiplier = 0.5 if path.startswith('inner.') else 2.0
    decay = 0.0 if path.endswith('.bias') else 0.5
    np.testing.assert_allclose(after[path], 1.0 - 0.1 * multiplier * decay, rtol=1e-6, err_msg=path)


def test_the_official_exemptions_are_another_group():
  _, after = updated(settings(decay_exempt='official'), gradient=0.0)
  np.testing.assert_allclose(after['head.bias'], 1.0 - 0.1 * 2.0 * 0.5, rtol=1e-6)


def test_the_first_update_of_adam_is_the_sign_of_the_gradient_whatever_the_clipping():
  for clip_norm in (0.0, 1.0):
    before, after = updated(settings(weight_decay=0.0, clip_norm=clip_norm), gradient=-3.0)
    np.testing.assert_allclose(after['head.kernel'] - before['head.kernel'], 0.2, rtol=1e-4)


def test_multipliers_must_be_one_per_stage():
  model = description.abstract_model({'family': 'tiny'})
  with pytest.raises(ValueError, match=r'optimizer\.lr_multipliers \(1\.0,\) gives 1 numbers, the model has 2 stages'):
    parameter_groups(model, ['head.bias'], settings(lr_multipliers=(1.0,)))


def test_every_parameter_of_the_tiny_family_has_a_group():
  model = description.abstract_model({'family': 'tiny'})
  decays, multipliers, _ = parameter_groups(model, list(state.flatten(model)), settings(lr_multipliers='paper'))
  assert decays.keys() == multipliers.keys() == state.flatten(model).keys()
  assert set(multipliers.values()) == {2.0, 0.5} and dataclasses.asdict(tiny.TinyConfig())['family'] == 'tiny'
