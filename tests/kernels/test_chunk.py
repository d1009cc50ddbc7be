"""Compaction: plain loops <-> XLA's form <-> the TPU kernel, interpreted; all exactly equal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.experimental.pallas import tpu as pltpu

from kernels import tpu
from kernels.chunk import chunk, chunk_index, pallas_tpu, positions, reference, slots, xla
from tests.kernels.common import LENGTH, PATTERNS, ROWS, WIDTH, boundaries, drawn
from tests.layers.common import equations

CAPACITIES = (LENGTH, 17, 1)  # all, one that overflows inside a tile, and the least
FORMS = {
  'xla': xla.chunk,
  'pallas_tpu': functools.partial(pallas_tpu.chunk, interpret=True),
  'poisoned': functools.partial(pallas_tpu.chunk, interpret=pltpu.InterpretParams(uninitialized_memory='nan')),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
  monkeypatch.setattr(tpu, 'TILES', (16,))


@functools.cache
def program(form, capacity):
  def run(x, mask, gradient):
    slot = slots(mask, capacity)
    position = positions(slot, capacity)
    values, pull = jax.vjp(lambda x: FORMS[form](x, slot, position), x)
    return values, position, pull(gradient)[0]

  return jax.jit(run)


def rows_of(seed, length, dtype='float32'):
  return jnp.asarray(np.random.default_rng(seed).standard_normal((ROWS, length, WIDTH)), dtype)


def check(form, capacity, pattern, dtype='float32'):
  mask, _, _ = boundaries(*pattern)
  x, gradient = rows_of(pattern[1], LENGTH, dtype), rows_of(1, capacity, dtype)
  values, position, count = reference.chunk(np.asarray(x), mask, capacity)
  got_values, got_position, dx = program(form, capacity)(x, mask, gradient)
  np.testing.assert_array_equal(got_position, position)
  np.testing.assert_array_equal(got_values, values)
  scattered = np.zeros(x.shape, np.float32)
  for b in range(ROWS):
    scattered[b, position[b, : count[b]]] = gradient[b, : count[b]]
  np.testing.assert_array_equal(np.asarray(dx, np.float32), scattered)
  assert dx.dtype == got_values.dtype == x.dtype


@settings(max_examples=12, deadline=None)
@given(drawn())
def test_every_form_compacts_and_scatters_back_as_plain_loops_do(pattern):
  for form in ('xla', 'pallas_tpu'):
    for capacity in CAPACITIES:
      check(form, capacity, pattern)


@pytest.mark.parametrize('pattern', PATTERNS)
def test_what_memory_held_before_never_reaches_a_result(pattern):
  check('poisoned', 17, (pattern, 0))


def test_bfloat16_rows_are_moved_unchanged():
  check('xla', 17, ('drawn', 1), jnp.bfloat16)
  check('pallas_tpu', 17, ('drawn', 1), jnp.bfloat16)


def test_the_public_function_counts_what_it_kept():
  mask, _, _ = boundaries('every byte')
  mask[1, 5:] = False
  got = jax.jit(chunk, static_argnums=2)(rows_of(0, LENGTH), mask, 17)
  np.testing.assert_array_equal(got.count_B, [17, 5])
  np.testing.assert_array_equal(got.position_BxM[1], [*range(5), *[LENGTH] * 12])
  np.testing.assert_array_equal(chunk_index(mask), np.cumsum(mask, 1) - 1)


def test_nothing_is_sorted():
  mask, _, _ = boundaries('drawn')
  names = {
    name for name, _ in equations(jax.make_jaxpr(lambda x: chunk(x, mask, 17).values_BxMxD)(rows_of(0, LENGTH)).jaxpr)
  }
  assert 'cumsum' in names and 'sort' not in names


def test_bad_input_is_one_sentence():
  mask, _, _ = boundaries('drawn')
  with pytest.raises(ValueError, match='chunk: capacity 0 keeps nothing'):
    chunk(rows_of(0, LENGTH), mask, 0)
  with pytest.raises(ValueError, match=r'chunk: mask \(2, 50\) must cover the rows of x \(2, 49, 40\)'):
    chunk(rows_of(0, LENGTH - 1), mask, 4)
  with pytest.raises(ValueError, match="chunk: width 20000 is above 16384.*write implementation='xla'"):
    pallas_tpu.chunk(jnp.zeros((1, 2, 20000)), jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2), jnp.int32))
