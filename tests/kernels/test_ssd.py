"""The state-space recurrence: a loop in float64 <-> the reference <-> XLA's form <-> the TPU kernel, interpreted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from kernels.cost import array_bytes
from kernels.ssd import pallas_tpu, reference, ssd, xla

NAMES = ('x', 'dt', 'a', 'b', 'c')


def segments(kind, rows, length, rng):
  """Ids of documents by the name of a pattern."""
  starts = np.zeros((rows, length), bool)
  if kind == 'every position':
    starts[:] = True
  elif kind == 'one at the end':
    starts[:, -1] = True
  elif kind in ('several', 'padding'):
    starts[:] = rng.random((rows, length)) < 0.15
  ids = 1 + np.cumsum(starts, 1, dtype=np.int32)
  if kind == 'padding':
    ids[:, length - length // 3 :] = 0
  return ids


def inputs(rows, length, heads, size, n, *, kind='several', seed=0, longest=1.0):
  """(x, dt, a, b, c), segment ids, and weights of y and of the state for a scalar to take gradients of."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.standard_normal(shape, np.float32)
  dt = np.exp(rng.uniform(np.log(1e-3), np.log(longest), (rows, length, heads))).astype(np.float32)
  a = -np.exp(rng.uniform(np.log(0.5), np.log(16.0), heads)).astype(np.float32)
  arrays = (normal(rows, length, heads, size), dt, a, normal(rows, length, n), normal(rows, length, n))
  weights = normal(rows, length, heads, size), normal(rows, heads, size, n)
  return arrays, segments(kind, rows, length, rng), weights


FORMS = {
  'reference': lambda tile: reference.ssd,
  'xla': lambda tile: functools.partial(xla.ssd, tile=tile),
  'pallas_tpu': lambda tile: functools.partial(pallas_tpu.ssd, tile=tile, interpret=True),
  'poisoned': lambda tile: functools.partial(
    pallas_tpu.ssd, tile=tile, interpret=pltpu.InterpretParams(uninitialized_memory='nan')
  ),
}


@functools.cache
def program(form, tile):
  def scalar(arrays, ids, weights):
    y, state = FORMS[form](tile)(*arrays, ids)
    return jnp.sum(y * weights[0]) + jnp.sum(state * weights[1]), (y, state)

  return jax.jit(jax.value_and_grad(scalar, has_aux=True))


def results(form, arrays, ids, weights, tile=None):
  """y, the last state and the five gradients, by name."""
  with jax.default_matmul_precision('highest'):
    (_, values), gradients = program(form, tile)(arrays, ids, weights)
  return dict(zip(('y', 'state', *NAMES), (*values, *gradients), strict=True))


def assert_near(ours, expected, tolerance):
  for name, value in ours.items():
    value, wanted = (np.asarray(v, np.float32) for v in (value, expected[name]))
    assert np.isfinite(value).all(), name
    # A gradient may be zero, as that of A is where no state lives on: then it is a sum of numbers that cancel.
    np.testing.assert_allclose(value, wanted, atol=tolerance * max(5.0, np.abs(wanted).max()), err_msg=name)


def test_the_reference_is_the_recurrence():
  (x, dt, a, b, c), ids, _ = inputs(2, 23, 3, 4, 5, kind='padding')
  y, final = reference.ssd(*map(jnp.asarray, (x, dt, a, b, c)), ids)
  for row, head in np.ndindex(2, 3):
    state = np.zeros((4, 5))
    for t in range(23):
      if t and ids[row, t] != ids[row, t - 1]:
        state[:] = 0
      step = np.float64(dt[row, t, head])
      state = np.exp(step * a[head]) * state + step * np.outer(x[row, t, head], b[row, t])
      np.testing.assert_allclose(y[row, t, head], state @ c[row, t], atol=1e-5)
    np.testing.assert_allclose(final[row, head], state, atol=1e-5)


KINDS = ('none but the first', 'every position', 'one at the end', 'several', 'padding')


@settings(max_examples=15, deadline=None)
@given(
  kind=st.sampled_from(KINDS),
  # rows, length, heads, head size, states, tile
  sizes=st.sampled_from([(2, 37, 3, 5, 7, 8), (1, 7, 1, 1, 1, 16), (1, 40, 9, 16, 3, 16)]),
  seed=st.integers(0, 99),
)
def test_xla_and_the_tpu_kernel_equal_the_reference(kind, sizes, seed):
  arguments, tile = inputs(*sizes[:-1], kind=kind, seed=seed), sizes[-1]
  expected = results('reference', *arguments)
  for form in ('xla', 'pallas_tpu'):
    assert_near(results(form, *arguments, tile), expected, 3e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_heads_of_the_released_models_in_several_blocks_and_tiles(kind):
  arguments = inputs(1, 40, 16, 64, 16, kind=kind)
  assert_near(results('pallas_tpu', *arguments, 16), results('reference', *arguments), 3e-6)


@pytest.mark.parametrize('form', ['xla', 'pallas_tpu'])
def test_bfloat16_stays_near_the_reference(form):
  (x, dt, a, b, c), ids, weights = inputs(2, 50, 8, 16, 16)
  low = lambda v: jnp.asarray(v, jnp.bfloat16)
  arrays = low(x), dt, a, low(b), low(c)
  ours = results(form, arrays, ids, weights, 16)
  dtypes = [ours[name].dtype for name in ('y', 'state', *NAMES)]
  assert dtypes == [jnp.bfloat16, jnp.float32, jnp.bfloat16, jnp.float32, jnp.float32, jnp.bfloat16, jnp.bfloat16]
  assert_near(ours, results('reference', arrays, ids, weights), 0.02)


@pytest.mark.parametrize('form', ['xla', 'pallas_tpu'])
def test_states_that_vanish_at_once_do_not_overflow(form):
  arguments = inputs(2, 37, 3, 5, 7, longest=20.0)
  # Decays inside a tile are differences of a prefix sum, which reaches thousands here.
  assert_near(results(form, *arguments, 37), results('reference', *arguments), 1e-3)


def test_the_tpu_kernel_reads_no_memory_that_it_has_not_written():
  arguments = inputs(1, 21, 8, 16, 8)
  assert_near(results('poisoned', *arguments, 8), results('reference', *arguments), 3e-6)


SHAPES = [(heads, dtype) for heads in (32, 48, 64) for dtype in (jnp.float32, jnp.bfloat16)]


@pytest.mark.parametrize(('heads', 'dtype'), SHAPES)
def test_it_lowers_for_a_tpu_at_the_released_widths(heads, dtype):
  shape = lambda *shape, dtype=dtype: jax.ShapeDtypeStruct(shape, dtype)
  f32, length = jnp.float32, 8192
  arrays = (
    shape(1, length, heads, 64), shape(1, length, heads, dtype=f32), shape(heads, dtype=f32),
    shape(1, length, 128), shape(1, length, 128),
  )  # fmt: skip
  ids = shape(1, length, dtype=jnp.int32)
  run = lambda arrays, ids: sum(jnp.sum(v.astype(f32)) for v in pallas_tpu.ssd(*arrays, ids))
  lowered = jax.jit(jax.value_and_grad(run)).trace(arrays, ids).lower(lowering_platforms=('tpu',))
  assert lowered.as_text().count('tpu_custom_call') == 2


def test_products_of_bfloat16_stay_so_where_the_highest_precision_is_the_default():
  x, b = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((1, 256, 8, 64), (1, 256, 128)))
  dt, a = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 256, 8), (8,)))
  run = lambda x, dt, a, b, c: jnp.sum(pallas_tpu.ssd(x, dt, a, b, c, jnp.ones((1, 256), jnp.int32))[1])

  def traced(precision):
    with jax.default_matmul_precision(precision):
      return str(jax.make_jaxpr(jax.grad(lambda *arrays: run(*arrays), (0, 1, 2, 3, 4)))(x, dt, a, b, b))

  assert traced('highest') == traced('default')  # at the highest, the TPU compiler refuses it


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_every_array_moves_once_and_no_decays_are_kept(dtype):
  at = pallas_tpu.layout(64, 64, 128)
  describe = functools.partial(pallas_tpu.describe, at, 2, 8192, 64, 128, dtype)
  for name in ('ssd', 'ssd_saving', 'ssd_gradient'):
    call = describe(name)
    arrays = [block.array for block in (*call.inputs, *call.outputs)]
    rates = array_bytes(call.inputs[2].array) * (2 * 8192 // 128 - 1)  # 256 bytes that come anew with every tile
    assert call.hbm_bytes == array_bytes(arrays) + rates
    assert max(map(array_bytes, arrays)) == array_bytes(call.inputs[0].array)


def test_shapes_that_do_not_agree_are_refused():
  (x, dt, a, b, c), ids, _ = inputs(2, 8, 3, 4, 5)
  with pytest.raises(ValueError, match=r'they are \(2, 8, 3, 4\), .* and 64\.'):
    ssd(x, dt[..., :2], a, b, c, ids)
  with pytest.raises(ValueError, match='the tile at least 1; .* and 0'):
    ssd(x, dt, a, b, c, ids, 0)


def test_more_state_than_a_core_holds_is_refused():
  shape = lambda *shape: jnp.zeros(shape)
  arrays = shape(1, 8, 256, 64), shape(1, 8, 256), shape(256), shape(1, 8, 128), shape(1, 8, 128)
  with pytest.raises(ValueError, match=r"256 heads with states of 64 x 128 need .* write implementation='xla'"):
    pallas_tpu.ssd(*arrays, jnp.ones((1, 8), jnp.int32))


def test_without_a_mesh_the_public_function_runs_xla():
  (x, dt, a, b, c), ids, _ = inputs(2, 8, 3, 4, 5)
  for ours, wanted in zip(ssd(x, dt, a, b, c, ids, 4), xla.ssd(x, dt, a, b, c, ids, 4), strict=True):
    np.testing.assert_array_equal(ours, wanted)
  with pytest.raises(ValueError, match='pallas_tpu'):
    ssd(x, dt, a, b, c, ids, implementation='pallas_tpu')
