"""The Mamba-2 mixer: documents kept apart, decoding equal to the parallel form, initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers.mamba2 import Mamba2
from tests.layers.common import random, segment_ids

WIDTH = 32


@pytest.fixture(scope='module')
def mixer():
  module = Mamba2(WIDTH, d_state=8, d_conv=4, expand=2, output_deviation=0.2, tile=8, rngs=nnx.Rngs(0))
  module.in_proj.kernel = nnx.Param(5 * module.in_proj.kernel[...])
  module.A_log = nnx.Param(jnp.zeros_like(module.A_log[...]))  # long memory, so that a leak would show
  return module


def test_taps_and_state_stay_inside_documents(mixer):
  x, ids = random(1, 14, WIDTH), segment_ids([6, 2, 5, 1])
  call = jax.jit(lambda x, ids: mixer(x, ids, None))
  packed = call(x, ids)
  for document, (first, last) in enumerate(((0, 6), (6, 8), (8, 13), (13, 14)), 1):
    changed = call(np.where(ids[..., None] == document, x, 3.0).astype(np.float32), ids)
    np.testing.assert_array_equal(packed[:, first:last], changed[:, first:last])
    alone = np.zeros_like(x)
    alone[:, : last - first] = x[:, first:last]
    output = call(alone, (np.arange(14) < last - first)[None].astype(np.int32))
    np.testing.assert_allclose(packed[:, first:last], output[:, : last - first], atol=1e-5)


def test_outputs_see_the_past_and_the_present_only(mixer):
  x, ids = random(1, 10, WIDTH), np.ones((1, 10), np.int32)
  reach = jax.jit(jax.grad(lambda x, t: mixer(x, ids, None)[0, t].sum()))
  for t in (0, 4, 9):
    seen = np.abs(np.asarray(reach(x, t)))[0].sum(-1) > 0
    np.testing.assert_array_equal(seen, np.arange(10) <= t)


def test_prefill_and_steps_equal_the_parallel_form(mixer):
  """Prompts shorter than the convolution, and padding after them that holds something."""
  prompt = np.array([1, 2, 3, 7, 9])
  x = random(5, 15, WIDTH)
  expected = jax.jit(lambda x: mixer(x, np.ones((5, 15), np.int32), None))(x)
  y, cache = jax.jit(mixer.prefill)(x[:, :9], prompt, mixer.init_cache(5, 15, jnp.float32))
  step = jax.jit(mixer.step)
  for row, length in enumerate(prompt):
    np.testing.assert_allclose(y[row, :length], expected[row, :length], atol=1e-5)
  for index in range(6):
    rows = np.arange(5), prompt + index
    y, cache = step(x[rows], np.ones(5, bool), cache)
    np.testing.assert_allclose(y, expected[rows], atol=1e-5)


def test_a_row_that_does_not_act_keeps_its_cache(mixer):
  _, cache = jax.jit(mixer.prefill)(random(3, 5, WIDTH), np.array([5, 2, 3]), mixer.init_cache(3, 9, jnp.float32))
  _, after = jax.jit(mixer.step)(random(3, WIDTH), np.array([True, False, True]), cache)
  jax.tree.map(lambda old, new: np.testing.assert_array_equal(old[1], new[1]), cache, after)
  assert not np.allclose(cache.state_BxHxPxN[0], after.state_BxHxPxN[0])


def test_initial_values_are_those_of_the_published_mixer():
  module = Mamba2(256, d_state=8, d_conv=4, expand=2, output_deviation=0.2, tile=8, rngs=nnx.Rngs(0))
  a, dt = np.exp(module.A_log[...]), np.log1p(np.exp(module.dt_bias[...]))
  assert a.shape == (8,) and (a >= 1).all() and (a <= 16).all()
  assert (dt >= 0.99e-3).all() and (dt <= 0.101).all()
  np.testing.assert_array_equal(module.D[...], 1)
  np.testing.assert_array_equal(module.norm.scale[...], 1)
  assert module.in_proj.kernel.shape == (256, 2 * 512 + 2 * 8 + 8)
  assert module.conv_kernel.shape == (4, 512 + 16) and np.abs(module.conv_kernel[...]).max() <= 0.5
  assert 0.45 < np.abs(module.conv_bias[...]).max() <= 0.5
  np.testing.assert_allclose(np.std(module.out_proj.kernel[...]), 0.2, rtol=0.02)
