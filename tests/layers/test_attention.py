"""Block-causal attention against a masked softmax, rotary embedding, and the decoding cache."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from kernels.attention.xla import attention as self_attention
from layers.attention import Attention, AttentionConfig, flops
from layers.rotary import RotaryScaling, frequencies, rotate
from layers.segments import positions
from tests.layers.common import random, segment_ids


def masked_softmax(q, k, v, ids, window, causal=True):
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  k, v = (np.repeat(x, q.shape[2] // x.shape[2], 2) for x in (k, v))
  index = np.arange(q.shape[1])
  back = index[:, None] - index
  visible = ((back >= 0) | (not causal)) & ((window < 0) | (abs(back) <= window)) & (ids[:, :, None] == ids[:, None, :])
  logits = np.einsum('bqhk,bshk->bhqs', q, k) * q.shape[-1] ** -0.5
  weights = np.where(visible[:, None], np.exp(logits), 0)
  return np.einsum('bhqs,bshk->bqhk', weights / weights.sum(-1, keepdims=True), v)


def check(length, window, ids, heads=2, block=128):
  q, k, v = random(3, len(ids), length, heads, 4)
  ours = jax.jit(lambda q, k, v, ids: self_attention(q, k, v, ids, window, block=block))(q, k, v, ids)
  np.testing.assert_allclose(ours, masked_softmax(q, k, v, ids, window), atol=2e-6)


@pytest.mark.parametrize('window', [0, 1, 5, -1])
@pytest.mark.parametrize('length', [1, 7, 8, 9, 23])
def test_blocks_equal_a_masked_softmax(length, window):
  ids = segment_ids([length], [length // 2, length - length // 2], [length // 3, length // 2])
  check(length, window, ids, block=8)


@pytest.mark.parametrize('causal', [True, False])
@pytest.mark.parametrize('kv_heads', [1, 2, 6])
@pytest.mark.parametrize('window', [0, 5, 30, -1])
def test_shared_heads_and_both_directions_equal_a_masked_softmax(window, kv_heads, causal):
  ids = segment_ids([23], [11, 12], [7, 11])
  q, (k, v) = random(3, 23, 6, 4), random(2, 3, 23, kv_heads, 4)
  ours = jax.jit(lambda q, k, v, ids: self_attention(q, k, v, ids, window, causal=causal, block=8))(q, k, v, ids)
  np.testing.assert_allclose(ours, masked_softmax(q, k, v, ids, window, causal), atol=2e-6)


@pytest.mark.parametrize('length, window', [(127, -1), (128, 5), (129, -1), (129, 127), (300, 128), (300, -1)])
def test_blocks_of_the_default_size_equal_a_masked_softmax(length, window):
  check(length, window, segment_ids([length], [130, length - 130] if length > 130 else [length]))


@pytest.mark.parametrize('window', [200, -1])
def test_more_than_sixteen_blocks_grow_instead(window):
  check(16 * 128 + 40, window, segment_ids([1000, 1088]), heads=1)


def test_gradients_equal_those_of_one_block():
  q, k, v = random(3, 2, 20, 2, 4)
  ids = segment_ids([20], [9, 6])
  gradient = lambda block: jax.jit(jax.grad(lambda qkv: jnp.sum(jnp.sin(self_attention(*qkv, ids, 6, block=block)))))(
    (q, k, v)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(8), gradient(20))


@pytest.mark.parametrize('window', [0, 3, -1])
def test_a_window_shows_that_many_keys_before_the_own(window):
  q, k = random(2, 1, 16, 1, 4)
  ids = np.ones((1, 16), np.int32)
  first = lambda v: self_attention(q, k, v, ids, window, block=8)[0, :, 0, 0]
  seen = jax.jit(jax.jacobian(first))(random(1, 16, 1, 4))
  count = np.count_nonzero(np.asarray(seen)[:, 0, :, 0, 0], axis=1)
  np.testing.assert_array_equal(count, np.arange(1, 17) if window < 0 else np.minimum(np.arange(1, 17), window + 1))


def test_rotary_turns_pairs_of_halves():
  x = random(1, 6, 2, 8)
  position = np.array([[0, 1, 2, 5, 100, 2000]])
  y = np.asarray(rotate(x, position, 4))
  for i in range(2):  # pairs (i, i + 2), angle position * 10000^(-2i/4)
    angle = position[..., None] * 10000.0 ** (-2 * i / 4)
    turned = (x[..., i] + 1j * x[..., i + 2]) * np.exp(1j * angle)
    np.testing.assert_allclose(y[..., i], turned.real, atol=1e-3)
    np.testing.assert_allclose(y[..., i + 2], turned.imag, atol=1e-3)
  np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
  np.testing.assert_array_equal(y[:, 0], x[:, 0])
  np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
  np.testing.assert_array_equal(rotate(x, position, 0), x)


def test_rotary_products_depend_on_the_distance_only():
  q, k = random(2, 1, 1, 1, 8)
  product = lambda m, n: float(jnp.sum(rotate(q, jnp.array([[m]]), 8) * rotate(k, jnp.array([[n]]), 8)))
  for distance in (0, 1, 7):
    np.testing.assert_allclose([product(n + distance, n) for n in (1, 50, 300)], product(distance, 0), atol=1e-4)


def test_llama_scaling_slows_long_waves_and_keeps_short_ones():
  scaling = RotaryScaling(8.0, 1.0, 4.0, 8192)  # the values of Llama 3.1
  plain, scaled = (np.asarray(frequencies(128, 5e5, kind), np.float64) for kind in (None, scaling))
  for before, after in zip(plain, scaled, strict=True):
    wave = 2 * np.pi / before
    blend = (8192 / wave - 1.0) / (4.0 - 1.0)
    middle = (1 - blend) * before / 8.0 + blend * before
    expected = before if wave < 8192 / 4.0 else before / 8.0 if wave > 8192 / 1.0 else middle
    np.testing.assert_allclose(after, expected, rtol=1e-6)
  assert {*np.round(plain / scaled, 3)} > {1.0, 8.0}


@pytest.mark.parametrize(
  ('values', 'sentence'),
  [
    ({'rope_type': 'yarn'}, r"here.rope_scaling {'rope_type': 'yarn'}: supported are none and llama3 with factor, low"),
    ('llama3', "here.rope_scaling 'llama3': supported"),
    ({'type': 'llama3', 'factor': 8.0}, 'supported are none and llama3 with factor, low_freq_factor, high_freq_factor'),
    (
      {**RotaryScaling(8.0, 1.0, 4.0, 8192).published(), 'factor': '8'},
      "here.rope_scaling.factor '8' must be a number",
    ),
  ],
)
def test_published_scaling_is_read_or_refused_in_one_sentence(values, sentence):
  scaling = RotaryScaling(8.0, 1.0, 4.0, 8192)
  assert RotaryScaling.of_published(scaling.published()) == scaling
  assert RotaryScaling.of_published(None) is RotaryScaling.of_published({'rope_type': 'default'}) is None
  with pytest.raises(ValueError, match=sentence):
    RotaryScaling.of_published(values, 'here.rope_scaling')


FORMS = {
  'full': AttentionConfig(16, 2, 4),
  'window': AttentionConfig(16, 2, 4, 3),
  'wide window': AttentionConfig(16, 2, 4, 30),
  'shared heads': AttentionConfig(16, 4, 4, num_kv_heads=2, head_size=6, rotary_base=100.0, qk_norm='head'),
  'scaled': AttentionConfig(
    16, 4, 4, 3, num_kv_heads=1, rotary_scaling=RotaryScaling(4.0, 1.0, 4.0, 8), qk_norm='full'
  ),
}


@pytest.fixture(scope='module', params=FORMS)
def attention(request):
  module = Attention(FORMS[request.param], output_deviation=0.3, rngs=nnx.Rngs(0))
  module.qkv.kernel = nnx.Param(random(*module.qkv.kernel.shape))
  return module


def test_norms_of_queries_and_keys_are_over_a_head_or_over_all():
  x = random(2, 5, 4, 6)
  for form, axes in (('head', -1), ('full', (-2, -1))):
    module = Attention(AttentionConfig(16, 4, 4, head_size=6, qk_norm=form), output_deviation=0.3, rngs=nnx.Rngs(0))
    scale = random(*module.query_norm.scale.shape)
    module.query_norm.scale = nnx.Param(scale)
    normed = x / np.sqrt(np.mean(x**2, axes, keepdims=True) + 1e-5) * scale.reshape(-1, 6)
    np.testing.assert_allclose(module._normed(module.query_norm, x), normed, rtol=1e-5)


def test_documents_of_a_row_do_not_see_each_other(attention):
  x = random(1, 14, 16)
  ids = segment_ids([6, 5, 3])
  call = jax.jit(lambda x, ids: attention(x, ids, positions(ids)))
  packed = call(x, ids)
  changed = call(np.where(ids[..., None] == 2, 7.0, x).astype(np.float32), ids)
  np.testing.assert_array_equal(packed[:, :6], changed[:, :6])
  np.testing.assert_array_equal(packed[:, 11:], changed[:, 11:])
  alone = call(np.pad(x[:, 6:11], ((0, 0), (0, 9), (0, 0))), segment_ids([5, 9]))
  np.testing.assert_allclose(packed[:, 6:11], alone[:, :5], atol=1e-5)


def test_prefill_and_steps_equal_the_parallel_form(attention):
  x, prompt = random(3, 12, 16), np.array([1, 4, 7])
  ids = np.ones((3, 12), np.int32)
  expected = jax.jit(attention)(x, ids, positions(ids))
  y, cache = jax.jit(attention.prefill)(x[:, :7], prompt, attention.init_cache(3, 12, jnp.float32))
  step = jax.jit(attention.step)
  for row, length in enumerate(prompt):
    np.testing.assert_allclose(y[row, :length], expected[row, :length], atol=1e-5)
  for index in range(5):
    rows = np.arange(3), prompt + index
    y, cache = step(x[rows], np.ones(3, bool), cache)
    np.testing.assert_allclose(y, expected[rows], atol=1e-5)


def test_what_is_not_kept_sees_what_is_and_itself_in_all_forms(attention):
  x, prompt = random(3, 12, 16), np.array([1, 4, 7])
  ids = np.ones((3, 12), np.int32)
  keys = np.random.default_rng(0).random((3, 12)) < 0.5
  expected = jax.jit(attention)(x, ids, positions(ids, keys), keys)
  for row in range(3):  # a row of what is kept, and of it and one other
    for last in (None, *np.flatnonzero(~keys[row])):
      left = [t for t in range(12) if t == last or (keys[row, t] and (last is None or t < last))]
      alone = jax.jit(attention)(np.resize(x[row, left], (1, 12, 16)), ids[:1], positions(ids[:1]))[0, : len(left)]
      rows = slice(None) if last is None else -1
      np.testing.assert_allclose(expected[row, left][rows], alone[rows], atol=1e-5)
  y, cache = jax.jit(attention.prefill)(x[:, :7], prompt, attention.init_cache(3, 12, jnp.float32), keys[:, :7])
  step = jax.jit(attention.step)
  for row, length in enumerate(prompt):
    np.testing.assert_allclose(y[row, :length], expected[row, :length], atol=1e-5)
  for index in range(5):
    rows = np.arange(3), prompt + index
    y, cache = step(x[rows], np.ones(3, bool), cache, keys[rows])
    np.testing.assert_allclose(y, expected[rows], atol=1e-5)
  _, after = step(x[:, 0], np.array([True, False, True]), cache, np.array([False, False, True]))
  assert list(after.length_B - cache.length_B) == [0, 0, 1]


def test_a_row_that_does_not_act_keeps_its_cache(attention):
  _, cache = jax.jit(attention.prefill)(random(3, 5, 16), np.array([5, 2, 3]), attention.init_cache(3, 9, jnp.float32))
  _, after = jax.jit(attention.step)(random(3, 16), np.array([True, False, True]), cache)
  jax.tree.map(lambda old, new: np.testing.assert_array_equal(old[1], new[1]), cache, after)
  assert list(after.length_B) == [6, 2, 4]


@pytest.mark.parametrize('window', [-1, 3])
def test_positions_that_are_taken_back_leave_no_trace(window):
  module = Attention(AttentionConfig(16, 2, 8, window), output_deviation=0.3, rngs=nnx.Rngs(0))
  x, ids, active = random(2, 10, 16), np.ones((2, 10), np.int32), np.ones(2, bool)
  expected = jax.jit(module)(x, ids, positions(ids))
  y, cache = jax.jit(module.prefill)(x[:, :6], np.array([6, 5]), module.init_cache(2, 12, jnp.float32, undo=2))
  step, wrong = jax.jit(module.step), random(2, 16, seed=1)
  _, cache = step(wrong, active, cache)
  _, cache = step(wrong, np.array([True, False]), cache)
  cache = dataclasses.replace(cache, length_B=cache.length_B - np.array([2, 1]))
  for index in range(3):
    rows = np.arange(2), np.array([6, 5]) + index
    y, cache = step(x[rows], active, cache)
    np.testing.assert_allclose(y, expected[rows], atol=1e-5)


def test_a_window_bounds_the_cache():
  module = Attention(AttentionConfig(16, 2, 4, 3), output_deviation=0.3, rngs=nnx.Rngs(0))
  assert module.init_cache(2, 100, jnp.bfloat16).k_BxCxHxK.shape == (2, 4, 2, 8)
  assert module.init_cache(2, 2, jnp.bfloat16).v_BxCxHxK.shape == (2, 2, 2, 8)


def test_flops_follow_the_paper():
  # 10 positions, width 8, two heads, each seeing 5 keys: QKV 6d^2, logits 2nd, softmax 3hn, values 2nd, out 2d^2
  assert flops(AttentionConfig(8, 2, 4), 10, 5) == 10 * (6 * 64 + 2 * 5 * 8 + 3 * 2 * 5 + 2 * 5 * 8 + 2 * 64)


@pytest.mark.parametrize('window', [-1, 9])
def test_a_past_that_its_cache_cannot_hold_gives_nan_and_no_wrong_answer(window):
  """A cache of 4 positions: the fifth is refused, whereas a cache as long as the window is a ring."""
  module = Attention(AttentionConfig(8, 2, 2, window), output_deviation=1.0, rngs=nnx.Rngs(0))
  active, step = jnp.ones(1, bool), jax.jit(module.step)
  for slots, finite in ((4, False), (10, window >= 0)):
    cache = module.init_cache(1, slots, jnp.float32)
    for _ in range(slots + 1):
      y, cache = step(jnp.ones((1, 8)), active, cache)
    assert np.isfinite(y).all() == finite
