"""The capacity ladder: the same result and gradients as full capacity at every fill, from a flat switch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from layers.ladder import LadderConfig, on_ladder, pad_to, rung_index
from tests.layers.common import equations, jit, random

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
    rung = rung_index(lengths, count_B)
    outputs = on_ladder(toy, config, lengths, rung, inputs['parameters'], inputs['rows'], {'valid': valid})
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
  'groups': LadderConfig(LADDER.fractions, row_budget=0.3),
  'groups_keep_residuals': LadderConfig(LADDER.fractions, keep_residuals=True, row_budget=0.3),
}


def assert_equal(ours, expected):
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_fill_equals_full_capacity(variant):
  full = jit(value_and_gradients(LADDER, (LENGTH,)))
  ladder = jit(value_and_gradients(VARIANTS[variant]))
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


def test_the_smallest_rung_that_holds_the_fullest_row_runs():
  index = lambda *counts: int(rung_index((8, 16, 20), jnp.array(counts)))
  assert [index(0, 8), index(9, 3), index(16, 16), index(17, 0), index(20, 20)] == [0, 1, 1, 2, 2]
  assert index(99, 0) == 2  # a hard capacity


@pytest.mark.parametrize('fractions', [(), (0.5, 0.25), (0.5, 0.5), (0.0, 1.0), (-0.5, 1.0), (0.5, 1.5)])
def test_fractions_that_do_not_rise_to_one_are_refused(fractions):
  with pytest.raises(ValueError, match=r'ladder\.fractions .* must increase within \(0, 1\]'):
    LadderConfig(fractions)


@pytest.mark.parametrize('budget', [0.0, -1.0, 1.5])
def test_a_row_budget_is_a_fraction(budget):
  with pytest.raises(ValueError, match=r'ladder\.row_budget .* must lie in \(0, 1\]'):
    LadderConfig(row_budget=budget)


def program(variant):
  return list(equations(jax.make_jaxpr(value_and_gradients(VARIANTS[variant]))(INPUTS, jnp.array([3, 2, 1, 0])).jaxpr))


@pytest.mark.parametrize('variant', VARIANTS)
def test_one_switch_forward_and_one_backward_never_nested(variant):
  assert [depth for name, depth in program(variant) if name == 'cond'] == [0, 0]


def test_kept_residuals_save_the_second_run():
  count = lambda variant: sum(name == 'tanh' for name, _ in program(variant))
  assert count('recompute') == 2 * len(LADDER.rungs(LENGTH))
  assert count('keep_residuals') == len(LADDER.rungs(LENGTH))


@pytest.mark.parametrize('budget, sizes', [(1.0, [4, 4, 4]), (0.5, [4, 2, 2]), (0.45, [4, 2, 1]), (0.01, [1, 1, 1])])
def test_rungs_above_the_budget_run_groups_of_rows(budget, sizes):
  seen = []

  def spy(rung, parameters, rows, indices):
    seen.append((rung, rows['x'].shape[0]))
    return toy(rung, parameters, rows, indices)

  config = LadderConfig((0.4, 0.8, 1.0), row_budget=budget)
  call = functools.partial(on_ladder, spy, config, config.rungs(LENGTH))
  jax.eval_shape(call, jnp.int32(0), INPUTS['parameters'], INPUTS['rows'], {'valid': jnp.ones((ROWS, LENGTH), bool)})
  assert sorted(set(seen)) == sorted(zip((8, 16, 20), sizes, strict=True))
