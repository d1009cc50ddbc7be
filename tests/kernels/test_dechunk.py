"""Dechunking: loops in float64 <-> XLA's form <-> the TPU kernel, interpreted; values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.experimental.pallas import tpu as pltpu

from kernels import tpu
from kernels.dechunk import coefficients, dechunk, pallas_tpu, reference, xla
from tests.kernels.common import LENGTH, PATTERNS, ROWS, WIDTH, assert_close, boundaries, drawn

CAPACITIES = (LENGTH, 17)  # all, and one that overflows inside a tile
FORMS = {
  'xla': xla.dechunk,
  'pallas_tpu': functools.partial(pallas_tpu.dechunk, interpret=True),
  'poisoned': functools.partial(pallas_tpu.dechunk, interpret=pltpu.InterpretParams(uninitialized_memory='nan')),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
  monkeypatch.setattr(tpu, 'TILES', (16,))


@functools.cache
def program(form, with_residual=True):
  def scalar(z, p, selected, residual, mask, ids, weight):
    scales = coefficients(p, mask, ids, z.shape[1])
    y = FORMS[form](z, *scales, selected, residual if with_residual else None)
    return jnp.sum(y * weight), y

  return jax.jit(jax.value_and_grad(scalar, (0, 1, 2, 3), has_aux=True))


def inputs(pattern, capacity, dtype='float32'):
  """Arguments of a program: (z, p, selected, residual, mask, segment_ids, weight)."""
  mask, ids, p = boundaries(*pattern)
  rng = np.random.default_rng(pattern[1])
  normal = lambda length: jnp.asarray(rng.standard_normal((ROWS, length, WIDTH)), dtype)
  weight = rng.standard_normal((ROWS, LENGTH, WIDTH)).astype(np.float32)
  return normal(capacity), p, np.where(mask, p, 1 - p), normal(LENGTH), mask, ids, weight


def specified(z, p, selected, residual, mask, ids, weight):
  del selected, weight
  return reference.dechunk(np.asarray(z, np.float64), p, mask, ids, np.asarray(residual, np.float64))


@settings(max_examples=12, deadline=None)
@given(drawn())
def test_every_form_gives_what_the_reference_does(pattern):
  for capacity in CAPACITIES:
    arrays = inputs(pattern, capacity)
    for form in ('xla', 'pallas_tpu'):
      assert_close(program(form)(*arrays)[0][1], specified(*arrays), 1e-6)


@settings(max_examples=10, deadline=None)
@given(drawn())
def test_gradients_of_kernel_and_xla_agree(pattern):
  for capacity in CAPACITIES:
    arrays = inputs(pattern, capacity)
    for got, want in zip(program('pallas_tpu')(*arrays)[1], program('xla')(*arrays)[1], strict=True):
      assert_close(got, want, 1e-5)


@pytest.mark.parametrize('form', ['xla', 'pallas_tpu'])
def test_gradients_are_those_of_finite_differences_of_the_reference(form):
  arrays = inputs(('several documents', 4), 17)
  dz, dp, dselected, dresidual = program(form)(*arrays)[1]
  z, p, _, residual, mask, ids, weight = arrays
  rng = np.random.default_rng(0)
  loss = lambda z, p, residual: np.sum(reference.dechunk(z, p, mask, ids, residual) * weight)
  wide = [np.asarray(v, np.float64) for v in (z, p, residual)]
  for index, gradient in ((0, dz), (1, dp), (2, dresidual)):
    direction = rng.standard_normal(wide[index].shape)
    if index == 1:
      direction *= (p > 0.51) & (p < 0.99)  # inside the clip, and where chunks start
    moved = lambda step, index=index, direction=direction: loss(
      *(v + step * direction if i == index else v for i, v in enumerate(wide))
    )
    np.testing.assert_allclose(np.sum(gradient * direction), (moved(1e-5) - moved(-1e-5)) / 2e-5, rtol=1e-4)
  # The straight-through slope: the gradient of y's own part, had it been multiplied by `selected`.
  own = reference.dechunk(wide[0], p, mask, ids)
  assert_close(dselected, np.sum(own * weight, -1), 1e-5)


@pytest.mark.parametrize('pattern', PATTERNS)
def test_what_memory_held_before_never_reaches_a_result(pattern):
  arrays = inputs((pattern, 0), 17)
  got, want = program('poisoned')(*arrays), program('xla')(*arrays)
  for a, b in zip(jax.tree.leaves(got[1]), jax.tree.leaves(want[1]), strict=True):
    assert_close(a, b, 1e-5)
  assert_close(got[0][1], want[0][1], 1e-5)


@pytest.mark.parametrize('form', ['xla', 'pallas_tpu'])
def test_what_lies_behind_the_last_chunk_is_not_looked_at(form):
  arrays = inputs(('first only', 0), 17)
  z = arrays[0].at[:, 1:].set(jnp.nan)
  (_, got), (dz, *_) = program(form)(z, *arrays[1:])
  assert_close(got, specified(arrays[0], *arrays[1:]), 1e-6)
  assert not np.asarray(dz[:, 1:]).any()


@pytest.mark.parametrize('form', ['xla', 'pallas_tpu'])
def test_bfloat16_is_rounded_once_at_the_end(form):
  arrays = inputs(('drawn', 2), 17, jnp.bfloat16)
  (_, y), gradients = program(form)(*arrays)
  assert y.dtype == jnp.bfloat16
  assert_close(y, specified(*arrays), 2**-8)
  assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32, jnp.bfloat16]


@pytest.mark.parametrize('form', ['xla', 'pallas_tpu'])
def test_the_residual_may_be_missing(form):
  arrays = inputs(('drawn', 3), 17)
  (_, y), _ = program(form, with_residual=False)(*arrays)
  z, p, _, _, mask, ids, _ = arrays
  assert_close(y, reference.dechunk(np.asarray(z, np.float64), p, mask, ids), 1e-6)


def test_the_public_function_takes_no_confidence_and_no_residual():
  z, p, selected, residual, mask, ids, _ = inputs(('drawn', 3), 17)
  both = jax.jit(lambda *arrays: (dechunk(*arrays[:4]), dechunk(*arrays)))
  np.testing.assert_allclose(*both(z, p, mask, ids, selected, 0 * residual))


def test_bad_input_is_one_sentence():
  z, p, selected, residual, mask, ids, _ = inputs(('drawn', 3), 17)
  with pytest.raises(ValueError, match=r'dechunk: z \(2, 17, 40\) needs p, mask.*\(2, 49\)'):
    dechunk(z, p, mask[:, 1:], ids)
  with pytest.raises(ValueError, match=r'residual of \[B, L, D\].*\(2, 49, 40\)'):
    dechunk(z, p, mask, ids, selected, residual[:, 1:])
