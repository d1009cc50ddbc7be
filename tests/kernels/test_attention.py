"""Attention: the reference <-> XLA's form <-> the libraries' kernels, interpreted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import attention, pallas_gpu, pallas_tpu, reference, xla

FORMS = {
  'reference': reference.attention,
  'xla': functools.partial(xla.attention, block=16),
  'xla_looped': functools.partial(xla.attention, block=xla.LOOPED + 1),
  'pallas_tpu': functools.partial(pallas_tpu.attention, interpret=True),
  'pallas_gpu': functools.partial(pallas_gpu.attention, interpret=True),
}


def inputs(rows, length, heads, shared, size, *, share=0.05, padding=0, seed=0):
  """(q, k, v), segment ids of which a share begins anew, and weights for a scalar to take gradients of."""
  rng = np.random.default_rng(seed)
  normal = lambda heads: rng.standard_normal((rows, length, heads, size), np.float32)
  ids = 1 + np.cumsum(rng.random((rows, length)) < share, 1, dtype=np.int32)
  ids[:, length - padding :] = 0
  return (normal(heads), normal(shared), normal(shared)), ids, normal(heads)


@functools.cache
def program(form, window, causal):
  def scalar(arrays, ids, weight, more):
    y = FORMS[form](*arrays, ids, window, causal=causal, **more)
    return jnp.sum(y * weight), y

  return jax.jit(jax.value_and_grad(scalar, has_aux=True))


def results(form, arrays, ids, weight, window, causal, **more):
  """y and the gradients of q, k and v."""
  with jax.default_matmul_precision('highest'):
    (_, y), gradients = program(form, window, causal)(arrays, ids, weight, more)
  return (y, *gradients)


def assert_equal_the_reference(forms, arguments, window, causal, tolerance=2e-6, **more):
  expected = results('reference', *arguments, window, causal, **more)
  for form in forms:
    for name, ours, wanted in zip('yqkv', results(form, *arguments, window, causal, **more), expected, strict=True):
      ours, wanted = np.asarray(ours, np.float32), np.asarray(wanted, np.float32)
      np.testing.assert_allclose(ours, wanted, atol=tolerance * max(1, np.abs(wanted).max()), err_msg=f'{form} {name}')


@settings(max_examples=8, deadline=None)
@given(
  # shared heads, window, causal
  kind=st.sampled_from([(2, 7, True), (4, -1, False)]),
  share=st.sampled_from([0.0, 0.05, 1.0]),
  padding=st.integers(0, 20),
  seed=st.integers(0, 99),
)
def test_splash_attention_and_xla_equal_the_reference(kind, share, padding, seed):
  shared, window, causal = kind
  arguments = inputs(2, 39, 4, shared, 8, share=share, padding=padding, seed=seed)
  assert_equal_the_reference(('xla', 'pallas_tpu'), arguments, window, causal)


def test_several_blocks_with_a_window_on_both_sides():
  arguments = inputs(1, 300, 2, 2, 24, share=0.01, padding=30)
  assert_equal_the_reference(('xla', 'pallas_tpu'), arguments, 130, False)


@pytest.mark.parametrize(('window', 'causal'), [(-1, True), (100, True), (100, False)])
def test_long_blocks_are_loops_with_a_rest(window, causal):
  length = 2 * 2 * xla.LOOPED + xla.LOOPED + 40  # two blocks of two turns, one of one turn, and the rest
  assert_equal_the_reference(['xla_looped'], inputs(1, length, 2, 1, 8, padding=30), window, causal)


@pytest.mark.parametrize('window', [-1, 0, 3])
def test_positions_that_are_no_keys_are_seen_by_themselves_alone(window):
  arguments = inputs(3, 39, 4, 2, 8, padding=7)
  keys = np.random.default_rng(1).random((3, 39)) < np.array([[0.3], [0.0], [0.9]])
  assert_equal_the_reference(['xla'], arguments, window, True, keys_BxL=keys)
  (q, k, v), ids, _ = arguments
  y, k = np.asarray(attention(*arguments[0], ids, window, keys_BxL=keys)), np.repeat(k, 2, 2)
  for row, t in np.ndindex(ids.shape):
    back = [s for s in range(t) if keys[row, s] and ids[row, s] == ids[row, t]]
    seen = [*(back if window < 0 else back[len(back) - min(window, len(back)) :]), t]
    logits = np.einsum('hk,shk->hs', q[row, t], k[row, seen]) * 8**-0.5
    weights = np.exp(logits - logits.max(1, keepdims=True))
    expected = np.einsum('hs,shk->hk', weights / weights.sum(1, keepdims=True), np.repeat(v, 2, 2)[row, seen])
    np.testing.assert_allclose(y[row, t], expected, atol=1e-5)


def test_what_all_may_see_is_what_they_see_without_a_choice_of_keys():
  (q, k, v), ids, _ = inputs(2, 39, 2, 2, 8)
  for window in (-1, 5):
    expected = attention(q, k, v, ids, window)
    np.testing.assert_allclose(attention(q, k, v, ids, window, keys_BxL=np.ones_like(ids, bool)), expected, atol=1e-6)


def test_keys_in_long_blocks_are_loops_too():
  length = 2 * xla.LOOPED + 40
  keys = np.random.default_rng(1).random((1, length)) < 0.5
  assert_equal_the_reference(['xla_looped'], inputs(1, length, 2, 1, 8, padding=30), 20, True, keys_BxL=keys)


def test_memory_grows_with_the_length_alone():
  def temporaries(rows, length):
    x = jax.ShapeDtypeStruct((rows, length, 2, 8), jnp.float32)
    ids = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    program = jax.jit(jax.grad(lambda x, ids: jnp.sum(jnp.sin(xla.attention(x, x, x, ids, -1)))))
    return program.lower(x, ids).compile().memory_analysis().temp_size_in_bytes

  most = 32 * xla.LOOPED  # blocks of two turns
  assert temporaries(1, 2 * most) < 1.5 * temporaries(2, most)  # twice, if blocks were met whole


@pytest.mark.parametrize('causal', [True, False])
def test_the_gpu_kernel_equals_the_reference(causal):
  assert_equal_the_reference(['pallas_gpu'], inputs(2, 39, 4, 2, 16, padding=5), -1, causal)


@pytest.mark.parametrize('form', ['xla', 'pallas_tpu', 'pallas_gpu'])
def test_bfloat16_stays_near_the_reference(form):
  arrays, ids, weight = inputs(1, 39, 2, 2, 16)
  arrays = tuple(jnp.asarray(v, jnp.bfloat16) for v in arrays)
  assert {v.dtype for v in results(form, arrays, ids, weight, -1, True)} == {jnp.dtype(jnp.bfloat16)}
  assert_equal_the_reference([form], (arrays, ids, weight), -1, True, 0.02)


@pytest.mark.parametrize(('size', 'window'), [(64, -1), (96, 1023), (128, 1023)])
def test_it_lowers_for_a_tpu_at_the_released_sizes(size, window):
  array = jax.ShapeDtypeStruct((1, 8192, 16, size), jnp.bfloat16)
  ids = jax.ShapeDtypeStruct((1, 8192), jnp.int32)
  run = lambda arrays, ids: jnp.sum(pallas_tpu.attention(*arrays, ids, window).astype(jnp.float32))
  lowered = jax.jit(jax.grad(run)).trace((array,) * 3, ids).lower(lowering_platforms=('tpu',))
  assert lowered.as_text().count('tpu_custom_call') == 3


def test_wrong_shapes_and_what_a_kernel_cannot_do_are_refused():
  (q, k, v), ids, _ = inputs(1, 20, 4, 2, 8)
  with pytest.raises(ValueError, match=r'k \(1, 20, 2, 8\), v \(1, 19, 2, 8\) .* G a divisor of H'):
    attention(q, k, v[:, 1:], ids, -1)
  with pytest.raises(ValueError, match=r"no window, and one of 7 .* implementation='xla'"):
    pallas_gpu.attention(q, k, v, ids, 7)
  with pytest.raises(ValueError, match='pallas_tpu'):
    attention(q, k, v, ids, -1, implementation='pallas_tpu')
  with pytest.raises(ValueError, match=r'keys \(1, 19\) must be \[B, L\] = \(1, 20\), and attention causal'):
    attention(q, k, v, ids, -1, keys_BxL=np.ones((1, 19), bool))
  with pytest.raises(ValueError, match='attention causal; it is not'):
    attention(q, k, v, ids, -1, causal=False, keys_BxL=np.ones((1, 20), bool))


def test_without_a_mesh_the_public_function_runs_xla():
  (q, k, v), ids, _ = inputs(1, 20, 4, 2, 8)
  np.testing.assert_array_equal(attention(q, k, v, ids, 3), xla.attention(q, k, v, ids, 3))
