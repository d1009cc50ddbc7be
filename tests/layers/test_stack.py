"""The isotropic stack: layout grammar, checks of sizes, and equal results however it is run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers import stack
from layers.stack import Block, Stack, StackConfig, height, parse_layout
from tests.layers.common import random, segment_ids

SIZES = {'width': 32, 'mlp_width': 48, 'num_heads': 2, 'rotary_dim': 8, 'window': 4, 'd_state': 8, 'tile': 8}


def config(layout, **changes):
  return StackConfig(layout, **{**SIZES, **changes})


@pytest.mark.parametrize(
  'layout, parts',
  [
    ('T22', (('T', 22),)),
    ('T1m4', (('T', 1), ('m', 4))),
    ('m4T1', (('m', 4), ('T', 1))),
    ('M2t3m10', (('M', 2), ('t', 3), ('m', 10))),
  ],
)
def test_layouts_are_runs_of_letters_and_counts(layout, parts):
  assert parse_layout(layout) == parts


@pytest.mark.parametrize(
  'layout', ['', 'T', '4T', 'T0', 'T-1', 'x3', 'T2 m1', 'm4,T1', 'T1m', 'T2\n', 'm٣', ['T2'], None, 4]
)
def test_anything_else_is_no_layout(layout):
  with pytest.raises(ValueError, match='arch_layout .*: a stack is written as letters m, M, t or T'):
    parse_layout(layout)


def test_height_counts_residual_additions():
  assert (height('m4'), height('T22'), height('T1m4'), height('M2t3')) == (4, 44, 6, 7)


@pytest.mark.parametrize(
  'layout, changes, message',
  [
    ('m1', {'width': 48}, 'd_model 48 .* multiple of its head size 64'),
    ('M1', {'mlp_width': 0}, 'd_intermediate 0 .* need a positive'),
    ('T1', {'num_heads': 3}, 'num_heads 3 does not divide d_model 32'),
    ('t1', {'num_heads': 0}, 'num_heads 0 does not divide d_model 32'),
    ('t1', {'rotary_dim': 18}, 'rotary_emb_dim 18 must be even and at most the head size 16'),
    ('t1', {'rotary_dim': 7}, 'rotary_emb_dim 7 must be even'),
    ('t1', {'window': -2}, r'window_size -2 must be -1 \(full attention\) or at least 0'),
  ],
)
def test_sizes_that_do_not_fit_are_named(layout, changes, message):
  with pytest.raises(ValueError, match=message):
    config(layout, **changes)


def test_only_the_blocks_of_the_layout_are_checked():
  config('m1', num_heads=3, rotary_dim=99, mlp_width=0)
  config('t1', width=48, num_heads=3, mlp_width=0)


def run(module, x, ids):
  value = lambda module, x: jnp.sum(jnp.sin(module(x, ids)))
  return jax.jit(lambda module, x: (module(x, ids), jax.grad(value, (0, 1))(module, x)))(module, x)


@pytest.fixture(scope='module')
def reference():
  """A stack of attention and Mamba-2, unrolled, with its output and gradients."""
  module = Stack(config('T2m2'), output_deviation=0.2, rngs=nnx.Rngs(0))
  x, ids = random(2, 10, 32), segment_ids([10], [4, 4])
  return module, x, ids, run(module, x, ids)


@pytest.mark.parametrize('changes', [{'scan': True}, {'remat': True}])
def test_scanned_and_recomputed_equal_unrolled(reference, changes):
  module, x, ids, (expected, gradients) = reference
  other = jax.tree.unflatten(
    jax.tree.structure(
      jax.eval_shape(lambda: Stack(config('T2m2', **changes), output_deviation=0.2, rngs=nnx.Rngs(0)))
    ),
    jax.tree.leaves(module),
  )
  values, other_gradients = run(other, x, ids)
  np.testing.assert_allclose(values, expected, atol=1e-5)
  for a, b in zip(jax.tree.leaves(other_gradients), jax.tree.leaves(gradients), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


def test_the_stack_ends_in_a_norm_or_in_the_residual_stream(reference):
  _, x, ids, (normed, _) = reference
  np.testing.assert_allclose(np.mean(np.square(normed), -1), 1.0, atol=1e-3)
  open_end = Stack(config('T1', final_norm=False), output_deviation=0.0, rngs=nnx.Rngs(0))
  assert not hasattr(open_end, 'norm')
  np.testing.assert_allclose(jax.jit(open_end)(x, ids), x, atol=1e-6)  # branches that add nothing


def test_the_residual_stream_is_float32_around_bfloat16_branches():
  """Branches below bfloat16's resolution of the stream add up."""
  block = Block('t', config('t1', dtype='bfloat16'), output_deviation=0.0, rngs=nnx.Rngs(0))
  mixed = []

  def mix(mixer, x):
    mixed.append(x.dtype)
    return jnp.full_like(x, 1e-3), None

  branch, residual = jnp.ones((1, 1, 32), jnp.bfloat16), jnp.zeros((1, 1, 32), jnp.float32)
  for _ in range(8):
    branch, residual, _ = block.apply(mix, branch, residual)
  assert set(mixed) == {branch.dtype} == {jnp.dtype(jnp.bfloat16)} and residual.dtype == jnp.float32
  np.testing.assert_allclose(residual + branch, 1.008, atol=1e-4)


def test_a_run_is_taken_apart_into_its_blocks(reference):
  module = reference[0]
  blocks = stack.unstack(module.runs[0])
  assert len(blocks) == 2
  for index, block in enumerate(blocks):
    np.testing.assert_array_equal(block.mixer.qkv.kernel[...], module.runs[0].mixer.qkv.kernel[...][index])


def test_taken_apart_for_decoding_every_block_has_its_own_parameters_and_computes_the_same(reference):
  module, x, *_ = reference
  separate = jax.jit(stack.unstacked)({'inner': module})['inner']
  assert sum(leaf.size for leaf in jax.tree.leaves(separate)) == sum(leaf.size for leaf in jax.tree.leaves(module))
  assert [len(run) for run in separate.runs] == [2, 2] and module.runs[0].mixer.qkv.kernel[...].shape[0] == 2
  step = jax.jit(lambda module, x: module.step(x, jnp.ones(len(x), bool), module.init_cache(len(x), 4)))
  for found, expected in zip(*(jax.tree.leaves(step(one, x[:, 0])) for one in (separate, module)), strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_flops_add_up_and_windows_bound_the_span():
  flops = lambda layout, length=100, **changes: stack.flops(config(layout, **changes), 1.0, length)
  assert flops('T3') == pytest.approx(3 * flops('T1'))
  assert flops('T1m2') == pytest.approx(flops('T1') + 2 * flops('m1'))
  assert flops('T1') - flops('t1') == 6 * 32 * 48 + 5 * 48
  assert flops('t1', window=4) == flops('t1', window=-1, length=5) < flops('t1', window=-1)
