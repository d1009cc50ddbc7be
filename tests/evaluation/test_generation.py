import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import generation
from evaluation.finite import NotFiniteError
from evaluation.generation import decode_utf8, generate, nucleus_mask, sample, stream
from layers.contract import ByteModel

PROMPTS = [b'', b'abc', b'\xfe\xff\x00', bytes(range(200)), b'x' * 127, b'y' * 128]


def naive_greedy(model, prompt, max_bytes, stop_at_eos):
  symbols = [254, *prompt]
  for _ in range(max_bytes):
    best = int(np.argmax(model.naive_logits(symbols)))
    if stop_at_eos and best == 255:
      break
    symbols.append(best)
  return bytes(symbols[1 + len(prompt) :])


@pytest.mark.parametrize('max_bytes', [1, 16, 37])
@pytest.mark.parametrize('stop_at_eos', [True, False])
def test_greedy_is_the_argmax_loop(two_byte_model, max_bytes, stop_at_eos):
  model = two_byte_model(positional=True, end_bias=3.0)
  got = generate(model, PROMPTS, max_bytes, temperature=0.0, stop_at_eos=stop_at_eos)
  expected = [naive_greedy(model, prompt, max_bytes, stop_at_eos) for prompt in PROMPTS]
  assert got == expected
  if max_bytes == 37:  # the case means something: some rows stop early, others go on or pass an EOS
    assert any(len(row) < max_bytes for row in expected) if stop_at_eos else any(b'\xff' in row for row in expected)


def test_a_row_does_not_depend_on_the_others(two_byte_model):
  model = two_byte_model(positional=True, end_bias=2.0)
  batch = generate(model, PROMPTS, 40, temperature=1.3, top_p=0.9, seed=7)
  for row, prompt in enumerate(PROMPTS):
    others = [b'other' * (i + 1) for i in range(row)]
    assert generate(model, [*others, prompt], 40, temperature=1.3, top_p=0.9, seed=7)[row] == batch[row]


def test_the_seed_fixes_the_text_and_rows_differ(two_byte_model):
  model = two_byte_model(positional=False)
  first = generate(model, [b'a', b'a'], 50, seed=1, stop_at_eos=False)
  assert first == generate(model, [b'a', b'a'], 50, seed=1, stop_at_eos=False)
  assert first != generate(model, [b'a', b'a'], 50, seed=2, stop_at_eos=False)
  assert first[0] != first[1]


def test_stopping_is_a_cut_at_the_first_eos(two_byte_model):
  model = two_byte_model(positional=True, end_bias=6.0)
  stopped = generate(model, PROMPTS, 60, seed=3)
  for ended, whole in zip(stopped, generate(model, PROMPTS, 60, seed=3, stop_at_eos=False), strict=True):
    assert len(whole) == 60 and ended == whole.split(b'\xff')[0]
  assert len({len(row) for row in stopped}) > 2


def test_the_stream_adds_up_and_ends_with_the_last_row(two_byte_model):
  model = two_byte_model(positional=False, end_bias=100.0)
  assert list(stream(model, [b'a', b'b'], 1000)) == [[b'', b'']]
  model = two_byte_model(positional=False)
  pieces = list(stream(model, [b'a', b'bc'], 50, seed=5, stop_at_eos=False))
  assert len(pieces) > 2
  assert [b''.join(row) for row in zip(*pieces, strict=True)] == generate(
    model, [b'a', b'bc'], 50, seed=5, stop_at_eos=False
  )


@pytest.mark.parametrize(
  ('max_bytes', 'pieces', 'dispatches'),
  [(16, 1, [0]), (17, 1, [0, 16]), (40, 1, [0, 16]), (40, 2, [0, 16, 32]), (40, 3, [0, 16, 32])],
)
def test_one_dispatch_is_under_way_while_another_is_read_and_none_past_the_last(
  two_byte_model, monkeypatch, max_bytes, pieces, dispatches
):
  model, starts, real = two_byte_model(positional=False), [], generation._continue
  watched = lambda model, logits, cache, keys, start, *more, **how: (
    starts.append(start) or real(model, logits, cache, keys, start, *more, **how)
  )
  monkeypatch.setattr(generation, '_continue', watched)
  text = stream(model, [b'a', b'bc'], max_bytes, stop_at_eos=False)
  for _ in range(pieces):
    next(text)
  assert starts == dispatches


def test_the_limit_of_every_sampling_option_is_the_likeliest_byte(two_byte_model):
  model = two_byte_model(positional=True)
  greedy = generate(model, PROMPTS, 20, temperature=0)
  limits = [(1e-6, 1.0), (1.2e-38, 1.0), (1e-38, 0.5), (1e-45, 1.0), (1e-300, 1.0)]
  limits += [(1.0, 1e-6), (1.0, 1.2e-38), (1.0, 1e-39), (1.0, 1e-45), (1e300, 5e-324), (1e-45, 1e-45)]
  for temperature, top_p in limits:
    assert generate(model, PROMPTS, 20, temperature=temperature, top_p=top_p) == greedy, (temperature, top_p)


def test_the_other_limits_leave_nothing_out(two_byte_model):
  model = two_byte_model(positional=True)
  plain = generate(model, PROMPTS, 20, seed=3)
  for top_p in (1 - 1e-16, 1 - 1e-9):
    assert generate(model, PROMPTS, 20, seed=3, top_p=top_p) == plain
  hot = [generate(model, [b'a'], 400, temperature=t, stop_at_eos=False)[0] for t in (1e30, 3.5e38, 1e300)]
  assert all(len(set(row)) > 150 for row in hot)  # of 256, all as likely


class Broken(ByteModel):
  """Another model, whose logits behind a byte `at` are `logits`."""

  def __init__(self, inner, at, logits):
    self.inner, self.at, self.logits = inner, at, nnx.Param(jnp.array(logits, jnp.float32))

  def init_cache(self, batch_size, max_bytes):
    return self.inner.init_cache(batch_size, max_bytes)

  def prefill(self, batch, lengths_B, cache):
    last = jnp.take_along_axis(jnp.asarray(batch.bytes), jnp.asarray(lengths_B)[:, None] - 1, 1)[:, 0]
    return self._broken(last, *self.inner.prefill(batch, lengths_B, cache))

  def step(self, byte_B, cache):
    return self._broken(byte_B, *self.inner.step(byte_B, cache))

  def _broken(self, byte_B, logits_BxV, cache):
    return jnp.where((byte_B == self.at)[:, None], self.logits[...], logits_BxV), cache


NOT_FINITE = {
  'all are nan': np.full(256, np.nan),
  'one is nan': np.where(np.arange(256) == 7, np.nan, 0.0),
  'one is inf': np.where(np.arange(256) == 7, np.inf, 0.0),
  'none is possible': np.full(256, -np.inf),
}


@pytest.mark.parametrize('case', NOT_FINITE)
def test_logits_that_leave_no_choice_end_the_text_with_a_sentence(two_byte_model, case):
  inner = two_byte_model(positional=True)
  whole = generate(inner, PROMPTS, 60, temperature=0, stop_at_eos=False)
  model = Broken(inner, whole[1][40], NOT_FINITE[case])
  good = min(row.index(model.at) + 1 if model.at in row else 60 for row in whole)
  bad = [row for row in range(len(whole)) if model.at in whole[row][: good + generation.STEPS]]
  assert 1 < good <= 41
  pieces, text = [b''] * len(PROMPTS), stream(model, PROMPTS, 60, temperature=0, stop_at_eos=False)
  with pytest.raises(
    NotFiniteError, match=r'not finite after \d+ bytes that continue prompt \d+, so .*: its weights'
  ) as error:
    for new in text:
      pieces = [piece + more for piece, more in zip(pieces, new, strict=True)]
  after, row = map(int, re.findall(r'\d+', str(error.value))[:2])
  assert row in bad and len(pieces[row]) == after and pieces[row][-1] == model.at
  for piece, expected in zip(pieces, whole, strict=True):
    assert expected.startswith(piece) and model.at not in piece[:-1]
  with pytest.raises(NotFiniteError, match='after 0 bytes that continue prompt 1,'):
    generate(model, [b'', b'x' + bytes([model.at])], 4, seed=1, top_p=0.5)


def test_what_is_impossible_is_not_drawn_and_a_row_that_is_done_may_break(two_byte_model):
  inner = two_byte_model(positional=True)
  impossible = np.where(np.arange(256) % 2, -np.inf, 0.0)
  model = Broken(inner, 97, impossible)
  for options in ({}, {'top_p': 0.3}, {'temperature': 1e300}, {'temperature': 1e-45}):
    (row,) = generate(model, [b'a' * 5], 1, seed=2, stop_at_eos=False, **options)
    assert row[0] % 2 == 0
  first = generate(inner, [b'b'], 1, temperature=0, stop_at_eos=False)[0][0]
  model = Broken(inner, first, NOT_FINITE['all are nan'])
  assert generate(model, [b'b'], 1, temperature=0, stop_at_eos=False) == [bytes([first])]


nucleus = jax.jit(nucleus_mask)


@settings(deadline=None)
@given(
  st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12),
  st.floats(0.001, 1.0) | st.sampled_from([1e-39, 1e-30]),
)
def test_the_nucleus_is_the_smallest_likeliest_set_that_reaches_top_p(logits, top_p):
  logits = np.array(logits, np.float32)
  kept = np.asarray(nucleus(logits[None], top_p))[0]
  p = np.exp(logits.astype(np.float64) - logits.max())
  p /= p.sum()
  assert kept.any() and (kept.all() or p[kept].min() >= p[~kept].max())
  assert p[kept].sum() >= top_p - 1e-5  # it reaches top_p,
  assert p[kept].sum() - p[kept].min() < top_p + 1e-5  # and would not without its least likely member


def test_samples_follow_the_distribution():
  logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
  keys = jax.random.split(jax.random.key(0), 20_000)
  rows = jnp.broadcast_to(logits, (len(keys), 4))
  for temperature, top_p, expected in [
    (1.0, None, [0.5, 0.3, 0.15, 0.05]),
    (0.5, None, np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
    (1.0, 0.6, [0.625, 0.375, 0, 0]),
    (1.0, 0.4, [1, 0, 0, 0]),
  ]:
    drawn = collections.Counter(np.array(sample(keys, rows, temperature, top_p)).tolist())
    np.testing.assert_allclose([drawn[i] / len(keys) for i in range(4)], expected, atol=0.015)


@pytest.mark.parametrize(
  ('change', 'word'),
  [
    ({'prompts': []}, 'no prompt'),
    ({'prompts': ['text']}, 'prompts are bytes'),
    ({'max_bytes': 0}, 'max_bytes'),
    ({'temperature': -0.1}, 'temperature'),
    ({'temperature': float('nan')}, 'temperature'),
    ({'temperature': float('inf')}, 'temperature'),
    ({'top_p': 0.0}, 'top_p'),
    ({'top_p': 1.1}, 'top_p'),
    ({'top_p': float('nan')}, 'top_p'),
    ({'seed': -1}, 'seed'),
    ({'seed': 2**32}, 'seed'),
  ],
)
def test_bad_input_is_refused_before_anything_runs(change, word):
  for function in (generate, stream):
    with pytest.raises(ValueError, match=word):
      function(None, **{'prompts': [b'a'], 'max_bytes': 4, **change})


def test_the_largest_seed_works(two_byte_model):
  assert len(generate(two_byte_model(positional=False), [b'a'], 3, seed=2**32 - 1, stop_at_eos=False)[0]) == 3


BYTES = st.one_of(
  st.binary(max_size=40), st.text(max_size=20).map(str.encode), st.text('aé€🙂').map(lambda s: s.encode()[1:-1])
)


@settings(deadline=None)
@given(BYTES, st.integers(1, 5))
def test_streamed_text_is_the_decoded_whole(data, size):
  pieces = [data[i : i + size] for i in range(0, len(data), size)]
  assert ''.join(decode_utf8(pieces)) == data.decode('utf-8', 'replace')


def test_every_character_is_shown_when_its_last_byte_comes():
  text = 'ab🙂cdef é end'
  shown, seen = '', b''
  for byte, new in zip(text.encode(), decode_utf8(bytes([b]) for b in text.encode()), strict=False):
    shown, seen = shown + new, seen + bytes([byte])
    assert shown == seen.decode('utf-8', 'ignore')
  assert shown == text


def test_invalid_bytes_and_a_cut_tail_hold_nothing_up():
  assert list(decode_utf8([b'\xff', b'a', b'\xf0\x9f', b'b', b'\xe2\x82'])) == ['�', 'a', '', '�b', '', '�']
