"""The capacity ladder: the same result and gradients as full capacity at every fill, from a flat switch."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers import ladder, partition
from layers.ladder import LadderConfig, on_ladder, pad_to, rungs_of
from tests.layers.common import equations, random

LENGTH, ROWS, WIDTH = 20, 4, 3


def toy(rung, parameters, rows, indices):
  """A causal function of padded rows: what lies behind the count changes nothing before it."""
  mask = indices['valid'][:, :rung, None]
  x = jnp.where(mask, rows['x'][:, :rung], 0.0)
  y = jnp.tanh(jnp.cumsum(x @ parameters['w'], 1)) + rows['bias'][:, None]
  return pad_to(jnp.where(mask, y, 0.0), indices['valid'].shape[1]), jnp.sum(y * mask, 1)


def value_and_gradients(config, rungs=None):
  """(outputs, gradients) of the toy as a compiled function of counts [B]."""

  def loss(inputs, count_B):
    valid = jnp.arange(LENGTH) < count_B[:, None]
    lengths = config.rungs(LENGTH) if rungs is None else rungs
    rung_B = rungs_of(lengths, count_B)
    outputs = on_ladder(toy, config, lengths, rung_B, inputs['parameters'], inputs['rows'], {'valid': valid})
    weight = jnp.cos(jnp.arange(outputs[0].size).reshape(outputs[0].shape))
    return jnp.sum(outputs[0] * weight) + jnp.sum(jnp.sin(outputs[1])), outputs

  return jax.value_and_grad(loss, has_aux=True)


INPUTS = {
  'parameters': {'w': random(WIDTH, WIDTH)},
  'rows': {'x': random(ROWS, LENGTH, WIDTH, seed=1), 'bias': random(ROWS, WIDTH, seed=2)},
}
LADDER = LadderConfig((0.2, 0.5, 1.0))
VARIANTS = {
  'recompute': LADDER,
  'keep_residuals': LadderConfig(LADDER.fractions, keep_residuals=True),
  'groups': LadderConfig(LADDER.fractions, row_groups=2),
  'groups_keep_residuals': LadderConfig(LADDER.fractions, keep_residuals=True, row_groups=2),
}


def assert_equal(ours, expected):
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_fill_equals_full_capacity(variant):
  full = jax.jit(value_and_gradients(LADDER, (LENGTH,)))
  ladder = jax.jit(value_and_gradients(VARIANTS[variant]))
  for count in range(LENGTH + 1):
    count_B = np.array([count, count // 2, 0, max(count - 1, 0)])
    assert_equal(ladder(INPUTS, count_B), full(INPUTS, count_B))


def test_rungs_are_multiples_of_eight_within_the_length():
  assert LadderConfig((0.125, 0.1875, 0.25, 0.375, 0.5, 1.0)).rungs(512) == (64, 96, 128, 192, 256, 512)
  assert LADDER.rungs(LENGTH) == (8, 16, 20)
  assert LADDER.rungs(5) == (5,)
  assert LADDER.rungs(1) == (1,)
  assert LadderConfig((0.25, 0.5)).rungs(100) == (32, 56)
  assert LadderConfig((1.0,)).rungs(100) == (100,)
  assert LadderConfig((0.25,)).rungs(1) == (1,)


def test_the_rung_of_a_row_is_the_smallest_that_holds_it():
  assert rungs_of((8, 16, 20), jnp.array([0, 8, 9, 16, 17, 20])).tolist() == [0, 0, 1, 1, 2, 2]
  assert rungs_of((8, 16, 20), jnp.array([99])).tolist() == [2]  # a hard capacity


def runs(count_B, row_groups):
  """(rung of each row as it ran, fill) of a ladder of 8, 16 and 20."""
  config, rungs, rung_B = LadderConfig(row_groups=row_groups), (8, 16, 20), rungs_of((8, 16, 20), jnp.array(count_B))
  tell = lambda rung, parameters, rows, indices: rows['x'] + rung

  @jax.jit
  def run(rung_B, count_B):
    told = on_ladder(tell, config, rungs, rung_B, {}, {'x': jnp.zeros(len(count_B))}, {})
    return told, ladder.fill(config, rungs, rung_B, count_B)

  told, fill = run(rung_B, np.array(count_B))
  return told.tolist(), float(fill)


def test_all_rows_run_at_the_rung_of_the_fullest():
  assert runs([3, 20, 9, 4], 1) == ([20] * 4, pytest.approx(36 / 80))


def test_groups_of_like_rows_run_at_rungs_of_their_own():
  assert runs([3, 20, 9, 4], 2) == ([8, 20, 20, 8], pytest.approx(36 / 56))
  assert runs([3, 20, 9, 4], 4) == ([8, 20, 16, 8], pytest.approx(36 / 52))
  assert runs([3, 20, 9], 3) == ([8, 20, 16], pytest.approx(32 / 44))


def test_as_many_groups_as_divide_the_rows():
  assert runs([3, 20, 9, 4], 6) == runs([3, 20, 9, 4], 2)
  assert runs([3, 20, 9], 2) == runs([3, 20, 9], 1)


@settings(max_examples=25, deadline=None)
@given(
  count_B=st.lists(st.integers(0, 20), min_size=1, max_size=12),
  groups=st.integers(1, 6),
  devices=st.sampled_from([1, 2, 4]),
)
def test_a_deck_gives_back_what_it_dealt(count_B, groups, devices):
  count_B = np.array(count_B * devices)
  of_device = np.repeat(np.arange(devices), len(count_B) // devices)

  @jax.jit
  def deal(count_B, of_device):
    deck = ladder._Deck(groups, count_B)
    dealt = deck.deal(count_B)
    return dealt, deck.gather(dealt), deck.deal(of_device)

  with mock.patch.object(partition, 'row_shards', lambda rows: devices):
    dealt, gathered, places = jax.device_get(deal(count_B, of_device))
  np.testing.assert_array_equal(gathered, count_B)
  assert sorted(dealt.ravel()) == sorted(count_B)
  for group in places:  # a device finds its own rows in every group
    np.testing.assert_array_equal(group, np.repeat(np.arange(devices), group.size // devices))


@pytest.mark.parametrize('fractions', [(), (0.5, 0.25), (0.5, 0.5), (0.0, 1.0), (-0.5, 1.0), (0.5, 1.5)])
def test_fractions_that_do_not_rise_to_one_are_refused(fractions):
  with pytest.raises(ValueError, match=r'ladder\.fractions .* must increase within \(0, 1\]'):
    LadderConfig(fractions)


@pytest.mark.parametrize('groups', [0, -1, 1.5, True])
def test_rows_are_dealt_to_a_whole_number_of_groups(groups):
  with pytest.raises(ValueError, match=r'ladder\.row_groups'):
    LadderConfig.from_dict({'row_groups': groups})


def program(variant):
  return list(equations(jax.make_jaxpr(value_and_gradients(VARIANTS[variant]))(INPUTS, jnp.array([3, 2, 1, 0])).jaxpr))


@pytest.mark.parametrize('variant', VARIANTS)
def test_one_switch_forward_and_one_backward_never_nested(variant):
  assert [depth for name, depth in program(variant) if name == 'cond'] == [0, 0]


def test_kept_residuals_save_the_second_run():
  count = lambda variant: sum(name == 'tanh' for name, _ in program(variant))
  assert count('recompute') == 2 * len(LADDER.rungs(LENGTH))
  assert count('keep_residuals') == len(LADDER.rungs(LENGTH))
