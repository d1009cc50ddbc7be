"""Routing: loops in float64 <-> XLA's form <-> the TPU kernel, interpreted; values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.experimental.pallas import tpu as pltpu
from jax.test_util import check_grads

from kernels import tpu
from kernels.route import pallas_tpu, probability, reference, route, xla
from tests.kernels.common import LENGTH, PATTERNS, ROWS, WIDTH, assert_close, boundaries, drawn

FORMS = {
  'xla': xla.cosines,
  'pallas_tpu': functools.partial(pallas_tpu.cosines, interpret=True),
  'poisoned': functools.partial(pallas_tpu.cosines, interpret=pltpu.InterpretParams(uninitialized_memory='nan')),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
  monkeypatch.setattr(tpu, 'TILES', (16,))


def projections(seed, dtype='float32', rows=ROWS, length=LENGTH, width=WIDTH):
  draw = lambda seed: jnp.asarray(np.random.default_rng(seed).standard_normal((rows, length, width)), dtype)
  return draw(seed), draw(seed + 1)


@functools.cache
def program(form):
  def scalar(q, k, ids, weight):
    p = probability(FORMS[form](q, k), ids)
    return jnp.sum(p * weight), p

  return jax.jit(jax.value_and_grad(scalar, (0, 1), has_aux=True))


def weights():
  return np.random.default_rng(9).standard_normal((ROWS, LENGTH), np.float32)


@settings(max_examples=12, deadline=None)
@given(drawn())
def test_every_form_routes_as_the_reference_does(pattern):
  _, ids, _ = boundaries(*pattern)
  q, k = projections(pattern[1])
  p = reference.route(np.asarray(q), np.asarray(k), ids)
  for form in ('xla', 'pallas_tpu'):
    (_, got), _ = program(form)(q, k, ids, weights())
    assert_close(got, p, 1e-6)


@settings(max_examples=8, deadline=None)
@given(drawn())
def test_gradients_of_kernel_and_xla_agree(pattern):
  _, ids, _ = boundaries(*pattern)
  arrays = *projections(pattern[1]), ids, weights()
  for got, want in zip(program('pallas_tpu')(*arrays)[1], program('xla')(*arrays)[1], strict=True):
    assert_close(got, want, 1e-5)


def test_gradients_of_the_kernel_are_those_of_finite_differences():
  ids = boundaries('several documents', 1, 1, 18)[1]
  p = jax.jit(lambda q, k: probability(FORMS['pallas_tpu'](q, k), ids))
  check_grads(p, projections(2, rows=1, length=18, width=3), order=1, modes=['rev'], eps=1e-2, rtol=1e-2)


@pytest.mark.parametrize('pattern', PATTERNS)
def test_what_memory_held_before_never_reaches_a_result(pattern):
  _, ids, _ = boundaries(pattern)
  arrays = *projections(3), ids, weights()
  got, want = (jax.tree.leaves(program(form)(*arrays)) for form in ('poisoned', 'xla'))
  for a, b in zip(got, want, strict=True):
    assert_close(a, b, 1e-5)


def test_bfloat16_is_widened_before_any_arithmetic():
  _, ids, _ = boundaries('padding')
  q, k = projections(4, jnp.bfloat16)
  p = reference.route(np.asarray(q), np.asarray(k), ids)
  for form in ('xla', 'pallas_tpu'):
    (_, got), gradients = program(form)(q, k, ids, weights())
    assert_close(got, p, 1e-6)
    assert all(g.dtype == jnp.bfloat16 for g in gradients)


@pytest.mark.parametrize('form', ['xla', 'pallas_tpu'])
def test_vectors_of_no_length_are_orthogonal_to_all_and_have_finite_gradients(form):
  ids = np.ones((ROWS, LENGTH), np.int32)
  q, k = (v.at[:, 5:9].set(0) for v in projections(5))
  (_, got), gradients = program(form)(q, k, ids, weights())
  np.testing.assert_array_equal(got[:, 6:9], 0.5)  # no chunk begins there
  assert all(np.isfinite(g).all() for g in gradients)


def test_bad_input_is_one_sentence():
  q, k = projections(0)
  ids = np.ones((ROWS, LENGTH), np.int32)
  with pytest.raises(ValueError, match=r'route: q \(2, 50, 40\), k \(2, 49, 40\) and segment_ids'):
    route(q, k[:, 1:], ids)
  with pytest.raises(ValueError, match="route: implementation 'cuda' is none of xla, pallas_tpu, pallas_gpu"):
    route(q, k, ids, implementation='cuda')
  with pytest.raises(ValueError, match="'pallas_tpu' runs on tpu devices and no mesh is in force"):
    route(q, k, ids, implementation='pallas_tpu')
  with pytest.raises(ValueError, match="route: width 20000 is above 16384.*write implementation='xla'"):
    pallas_tpu.cosines(*(jnp.zeros((1, 2, 20000)),) * 2)
