"""The GPU kernels: loops or XLA's form <-> the kernels, interpreted; lowering for cuda; compilation where it can be."""

import functools
import importlib.metadata
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from kernels import aot, cases, gpu, gpu_compiler, in_subprocess
from kernels.chunk import pallas_gpu as chunk_gpu
from kernels.chunk import positions, slots
from kernels.chunk import reference as chunk_reference
from kernels.chunk import xla as chunk_xla
from kernels.cost import pallas_calls
from kernels.dechunk import coefficients
from kernels.dechunk import pallas_gpu as dechunk_gpu
from kernels.dechunk import reference as dechunk_reference
from kernels.dechunk import xla as dechunk_xla
from kernels.route import pallas_gpu as route_gpu
from kernels.route import probability, route
from kernels.route import reference as route_reference
from kernels.route import xla as route_xla
from kernels.ssd import pallas_gpu as ssd_gpu
from kernels.ssd import reference as ssd_reference
from kernels.ssd import xla as ssd_xla
from tests.kernels import common
from tests.kernels.common import PATTERNS, ROWS, WIDTH, assert_close, drawn

TILE = 16  # of the recurrence
LENGTH = 70  # three tiles of dechunking, and tails everywhere
CAPACITIES = (LENGTH, 17)  # all, and one that overflows inside a tile


interpreted = lambda fn: functools.partial(fn, interpret=True)
FORMS = {
  'route': {'xla': route_xla.cosines, 'pallas_gpu': interpreted(route_gpu.cosines)},
  'chunk': {'xla': chunk_xla.chunk, 'pallas_gpu': interpreted(chunk_gpu.chunk)},
  'dechunk': {'xla': dechunk_xla.dechunk, 'pallas_gpu': interpreted(dechunk_gpu.dechunk)},
  'ssd': {'xla': ssd_xla.ssd, 'pallas_gpu': interpreted(ssd_gpu.ssd)},
}


def normal(seed, *shape, dtype='float32'):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


boundaries = functools.partial(common.boundaries, length=LENGTH)


@functools.cache
def pulled(operation, form):
  """A program: inputs that have gradients, others, the gradient that comes in -> (outputs, gradients)."""
  kernel = FORMS[operation][form]

  def fn(inputs, others):
    if operation == 'route':
      return probability(kernel(*inputs), *others)
    if operation == 'dechunk':
      z, p, selected, residual = inputs
      return kernel(z, *coefficients(p, *others, z.shape[1]), selected, residual)
    return kernel(*inputs, *others, *((TILE,) if operation == 'ssd' else ()))

  def run(inputs, others, weights):
    outputs, pull = jax.vjp(lambda *inputs: fn(inputs, others), *inputs)
    return outputs, pull(weights)

  return jax.jit(run)


def arguments(operation, pattern, seed, capacity=LENGTH, dtype='float32'):
  """(inputs, others, weights) of a program."""
  mask, ids, p = boundaries(pattern, seed)
  wide, weights = normal(seed, ROWS, LENGTH, WIDTH, dtype=dtype), normal(seed + 1, ROWS, LENGTH, WIDTH, dtype=dtype)
  if operation == 'route':
    return (wide, weights), (ids,), normal(2, ROWS, LENGTH)
  short = normal(seed + 2, ROWS, capacity, WIDTH, dtype=dtype)
  if operation == 'chunk':
    slot = slots(jnp.asarray(mask), capacity)
    return (wide,), (slot, positions(slot, capacity)), short
  if operation == 'dechunk':
    return (short, p, np.where(mask, p, 1 - p), wide), (mask, ids), weights
  heads, size, n = 3, 24, 5  # padded inside to 32 and 16
  x, y = (normal(seed + i, ROWS, LENGTH, heads, size, dtype=dtype) for i in (3, 4))
  b, c = (normal(seed + i, ROWS, LENGTH, n, dtype=dtype) for i in (5, 6))
  dt = np.random.default_rng(seed).random((ROWS, LENGTH, heads), np.float32)
  a = -np.arange(1, heads + 1, dtype=np.float32)
  return (x, dt, a, b, c), (ids,), (y, normal(7, ROWS, heads, size, n))


def assert_alike(operation, given, tolerance):
  got, want = (jax.tree.leaves(pulled(operation, form)(*given)) for form in ('pallas_gpu', 'xla'))
  for a, b in zip(got, want, strict=True):
    assert a.dtype == b.dtype
    assert_close(a, b, tolerance)


@settings(max_examples=8, deadline=None)
@given(drawn())
def test_routing_is_that_of_the_reference(pattern):
  (q, k), (ids,), weights = arguments('route', *pattern)
  p, _ = pulled('route', 'pallas_gpu')((q, k), (ids,), weights)
  assert_close(p, route_reference.route(np.asarray(q), np.asarray(k), ids), 1e-6)


@settings(max_examples=8, deadline=None)
@given(drawn())
def test_compaction_is_that_of_the_reference(pattern):
  for capacity in CAPACITIES:
    inputs, others, weights = arguments('chunk', *pattern, capacity)
    values, _ = pulled('chunk', 'pallas_gpu')(inputs, others, weights)
    want = chunk_reference.chunk(np.asarray(inputs[0]), boundaries(*pattern)[0], capacity)[0]
    np.testing.assert_array_equal(values, want)


@settings(max_examples=8, deadline=None)
@given(drawn())
def test_dechunking_is_that_of_the_reference(pattern):
  for capacity in CAPACITIES:
    given = arguments('dechunk', *pattern, capacity)
    (z, p, _, residual), (mask, ids), _ = given
    y, _ = pulled('dechunk', 'pallas_gpu')(*given)
    assert_close(
      y, dechunk_reference.dechunk(np.asarray(z, np.float64), p, mask, ids, np.asarray(residual, np.float64)), 2e-6
    )


@settings(max_examples=8, deadline=None)
@given(drawn())
def test_the_recurrence_is_that_of_the_reference(pattern):
  given = arguments('ssd', *pattern)
  want = jax.jit(ssd_reference.ssd)(*given[0], *given[1])
  for a, b in zip(pulled('ssd', 'pallas_gpu')(*given)[0], want, strict=True):
    assert_close(a, b, 1e-5)


@pytest.mark.parametrize('operation', tuple(FORMS))
@settings(max_examples=5, deadline=None)
@given(drawn())
def test_gradients_are_those_of_xla(operation, pattern):
  for capacity in CAPACITIES if 'chunk' in operation else CAPACITIES[:1]:
    assert_alike(operation, arguments(operation, *pattern, capacity), 1e-5)


@pytest.mark.parametrize('operation', tuple(FORMS))
@pytest.mark.parametrize('pattern', PATTERNS)
def test_every_result_is_written_whatever_memory_held_before(operation, pattern):
  # The interpreter fills what a kernel has not written with nan, and assert_close takes numbers only.
  assert_alike(operation, arguments(operation, pattern, 0, 17), 1e-5)


@pytest.mark.parametrize('operation', tuple(FORMS))
def test_bfloat16_stays_near_xla(operation):
  assert_alike(operation, arguments(operation, 'padding', 2, 17, 'bfloat16'), 2e-2 if operation == 'ssd' else 2**-7)


def test_what_lies_behind_the_last_chunk_is_not_looked_at():
  (z, *rest), others, weights = arguments('dechunk', 'first only', 0)
  assert_alike('dechunk', ((z.at[:, 1:].set(jnp.nan), *rest), others, weights), 1e-5)


def test_vectors_of_no_length_are_orthogonal_to_all_and_have_finite_gradients():
  (q, k), others, weights = arguments('route', 'first only', 5)
  assert_alike('route', (tuple(v.at[:, 5:9].set(0) for v in (q, k)), others, weights), 1e-5)


def test_probabilities_at_their_limits_smooth_as_in_float64():
  (z, _, _, residual), (mask, ids), weights = arguments('dechunk', 'every byte', 6)
  p = np.where(np.arange(LENGTH) % 5 < 3, 1.0, 0.0).astype(np.float32) * np.ones((ROWS, 1), np.float32)
  y, _ = pulled('dechunk', 'pallas_gpu')((z, p, p, residual), (mask, ids), weights)
  assert_close(y, dechunk_reference.dechunk(np.asarray(z, np.float64), p, mask, ids, np.asarray(residual)), 2e-6)


def test_the_residual_may_be_missing():
  (z, p, selected, _), (mask, ids), _ = arguments('dechunk', 'padding', 3, 17)
  kernel = jax.jit(lambda z, scales, selected: dechunk_gpu.dechunk(z, *scales, selected, None, interpret=True))
  y = kernel(z, coefficients(p, mask, ids, 17), selected)
  assert_close(y, dechunk_reference.dechunk(np.asarray(z, np.float64), p, mask, ids), 2e-6)


def test_float32_products_in_three_parts_keep_float32_digits():
  # What TF32 keeps of a number: 10 bits behind the first, rounded.
  def tf32(v):
    return jnp.asarray(((np.asarray(v).view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32))

  a, b = normal(0, 64, 128), normal(1, 128, 64)
  exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
  (a_high, a_low), (b_high, b_low) = gpu.halves(a), gpu.halves(b)
  np.testing.assert_array_equal(tf32(a_high), a_high)
  np.testing.assert_array_equal(np.asarray(a_high) + np.asarray(a_low), a)
  three = sum(
    np.asarray(tf32(v), np.float64) @ tf32(w) for v, w in ((a_high, b_high), (a_high, b_low), (a_low, b_high))
  )
  assert_close(three, exact, 1e-6)
  assert np.abs(np.asarray(tf32(a), np.float64) @ tf32(b) - exact).max() > 1e-4 * np.abs(exact).max()
  assert_close(gpu.dot(a, b), exact, 1e-6)


GRADIENTS = [cases.Case(operation, 1536, dtype, True) for operation in tuple(FORMS) for dtype in cases.DTYPES]
on_each = pytest.mark.parametrize('case', GRADIENTS, ids=lambda case: f'{case.operation}-{case.dtype}')


@pytest.fixture
def gpu_in_force():
  """A mesh of one GPU, of which tracing knows the name."""
  device = AbstractDevice('NVIDIA H100 80GB HBM3', None, 'gpu')
  with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ('data',), (AxisType.Auto,), abstract_device=device)):
    yield


@on_each
def test_it_lowers_for_cuda_at_a_released_width(case, gpu_in_force):
  made = cases.program(case, 'pallas_gpu')
  text = jax.jit(made.fn).trace(*made.arguments).lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('xla.gpu.triton') >= {'ssd': 3}.get(case.operation, 2)


@on_each
def test_kernels_move_little_more_than_inputs_and_outputs_once(case, gpu_in_force):
  made = cases.program(case, 'pallas_gpu')
  moved = sum(call['bytes'] for call in pallas_calls(made.fn, *made.arguments))
  # The gradient of the recurrence keeps two states a tile and head.
  assert moved <= {'ssd': 3.0}.get(case.operation, 1.2) * made.least


@pytest.mark.parametrize('dtype', cases.DTYPES)
def test_no_two_programs_write_the_same_block(dtype):
  calls = [
    *(route_gpu.describe(2, 100, 96, dtype, name) for name in ('route', 'route_gradient')),
    *(chunk_gpu.describe(2, 100, 50, 96, dtype, name) for name in ('chunk', 'chunk_gradient')),
    *(dechunk_gpu.describe(2, 96, 50, 96, dtype, name) for name in ('dechunk_forward', 'dechunk_gradient')),
    *(ssd_gpu.describe(2, 128, 3, 16, 16, dtype, 64, name) for name in ('ssd_forward', 'ssd_states', 'ssd_gradient')),
  ]
  for call in calls:
    for block in call.outputs:
      steps = list(np.ndindex(*call.grid))
      assert len({tuple(map(int, block.index(*step))) for step in steps}) == len(steps), call.name


def test_more_state_than_a_program_holds_is_refused():
  zeros = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  arrays = zeros(1, 8, 2, 100), zeros(1, 8, 2), zeros(2), zeros(1, 8, 128), zeros(1, 8, 128), zeros(1, 8)
  with pytest.raises(
    ValueError, match=r"states of 128 x 128 \(100 x 128.* of float32 each.*write implementation='xla'"
  ):
    jax.eval_shape(ssd_gpu.ssd, *arrays)


def test_a_device_that_is_no_gpu_is_refused():
  (q, k), (ids,), _ = arguments('route', 'padding', 0)
  with pytest.raises(
    ValueError, match="route: implementation 'pallas_gpu' runs on gpu devices and no mesh is in force"
  ):
    route(q, k, ids, implementation='pallas_gpu')


def test_an_unknown_gpu_is_refused():
  with pytest.raises(ValueError, match=r"device 'b200': no kernels/b200.textproto describes it; write h100\."):
    gpu_compiler.devices('b200')


def test_a_missing_plugin_or_one_of_another_version_is_refused(monkeypatch):
  def versions(found):
    def version(name):
      if found is None:
        raise importlib.metadata.PackageNotFoundError(name)
      return found

    monkeypatch.setattr(importlib.metadata, 'version', version)

  versions(None)
  with pytest.raises(ValueError, match='jax-cuda12-plugin, which holds the GPU compiler, is not installed: install'):
    aot.mesh('h100')
  versions('0.1.0')
  with pytest.raises(ValueError, match=r'jax-cuda12-plugin 0\.1\.0 is installed beside jax .*: install'):
    aot.mesh('h100')
  versions(jax.__version__)
  assert gpu_compiler.problem() is None


@pytest.mark.parametrize(('version', 'by_the_library'), [((0, 10, 2), False), ((0, 11, 0), True), ((0, 12, 0), True)])
def test_since_jax_0_11_products_without_a_gpu_are_those_of_the_library(version, by_the_library, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--one=1')
  monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '3')
  monkeypatch.setattr(jax, '__version_info__', version)
  gpu_compiler.prepare()
  flags = os.environ['XLA_FLAGS'].split()
  assert flags[:2] == ['--one=1', '--xla_gpu_autotune_level=0']
  assert ('--xla_gpu_enable_triton_gemm=false' in flags) == by_the_library


@pytest.mark.skipif(gpu_compiler.problem() is not None, reason=f'{gpu_compiler.problem()}')
@pytest.mark.parametrize('operation', tuple(FORMS))
def test_it_compiles_for_an_h100(operation):
  ok, text = in_subprocess.compile_case('h100', cases.Case(operation, 1024, 'bfloat16', True))
  assert ok, text
