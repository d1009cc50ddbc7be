"""What is particular to models over words: how ends count, what a word's models see, raw bytes, the cap, generation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import byte_models
from byte_models.word_ar import WORD_END
from byte_models.word_ar.layout import Words, permute, word_starts
from evaluation.generation import generate
from layers.paths import flatten, rebuild
from tests.byte_models import tiny_word_ar as tiny
from tests.byte_models.capacities import assert_same_where_chunks_fit
from tests.layers.common import random, segment_ids
from text import BOS, EOS
from text.batch import Batch
from text.marks import mark

SENTENCE = 'In 1914 the 3 towns, café and 日本, had 500 souls.'.encode()


@pytest.fixture(scope='module')
def hat():
  return tiny.build(tiny.KINDS['hat'])


def batch_of(model, *rows, length=64):
  return mark(Batch.of(list(rows), length), model.marks)


def by_hand(model, row, starts):
  """A batch of one row with the given word starts."""
  batch = Batch.of([row], 64)
  starts_BxL = np.zeros((1, 64), bool)
  starts_BxL[0, list(starts)] = True
  return Batch(batch.bytes, batch.segment_ids, {'words': starts_BxL})


def test_the_end_of_a_word_counts_to_the_byte_behind_it_and_to_eos_at_the_end_of_the_text(hat):
  text = b'a cat sat'
  row = bytes([BOS]) + text + bytes([EOS])
  batch = batch_of(hat, row)
  assert np.flatnonzero(batch.marks['words'][0]).tolist() == [0, 1, 2, 6, 10]  # BOS, 'a', ' cat', ' sat', EOS
  nll = np.asarray(tiny.forward(hat, batch).nll)[0]
  of_byte, of_end = (np.asarray(jax.nn.log_softmax(x))[0] for x in tiny.symbol_logits(hat, batch))
  byte = lambda t: -of_byte[t, row[t]]
  end = lambda t: -of_end[t, WORD_END]
  assert nll[1] == pytest.approx(byte(1), abs=1e-5)  # behind BOS nothing has to be said
  for first in (2, 6, 10):
    assert nll[first] == pytest.approx(end(first - 1) + byte(first), abs=1e-5)
  for inside in (3, 4, 5, 7, 8, 9):
    assert nll[inside] == pytest.approx(byte(inside), abs=1e-5)
  # The bits of the text are the same whether it ends there or goes on.
  longer = np.asarray(tiny.forward(hat, batch_of(hat, row[:-1] + b' on the mat')).nll)[0]
  np.testing.assert_allclose(nll[: 1 + len(text)], longer[: 1 + len(text)], atol=1e-5)


def test_symbols_of_a_word_are_a_distribution_over_all_that_can_follow(hat):
  """Probabilities of all words of one byte, and of the bytes that begin a longer one, add up to one."""
  rows = [bytes([BOS]) + b'to' + bytes([byte]) for byte in range(256) if byte != WORD_END]
  batch = Batch.of([*rows, bytes([BOS]) + b'to'], 64)
  starts = np.zeros((256, 64), bool)
  starts[:, :2] = True
  inside = np.asarray(tiny.forward(hat, Batch(batch.bytes, batch.segment_ids, {'words': starts})).nll)[:255, 3]
  starts[:, 3] = True
  begins = np.asarray(tiny.forward(hat, Batch(batch.bytes, batch.segment_ids, {'words': starts})).nll)[:255, 3]
  raw = by_hand(hat, bytes([BOS]) + b'to' + bytes([WORD_END]), [0, 1])
  raw = float(tiny.forward(hat, raw).nll[0, 3])
  assert np.exp(-inside).sum() + np.exp(-begins).sum() + np.exp(-raw) == pytest.approx(1, abs=1e-4)


def test_a_raw_byte_of_the_value_that_ends_words_begins_a_word_and_is_scored(hat):
  row = bytes([BOS]) + b'ab' + bytes([WORD_END, WORD_END]) + b'cd' + bytes([WORD_END])
  output = tiny.forward(hat, by_hand(hat, row, [0, 1]))
  assert np.flatnonzero(output.segmentations[0][0]).tolist() == [0, 1, 3, 4, 7]
  assert np.all(np.asarray(output.nll)[0, 1 : len(row)] > 0)


def test_a_word_above_the_cap_is_cut_there_and_its_end_costs_nothing(hat):
  row = bytes([BOS]) + b'x' * 20
  batch = by_hand(hat, row, [0, 1])
  output = tiny.forward(hat, batch)
  assert np.flatnonzero(output.segmentations[0][0]).tolist() == [0, 1, 9, 17]
  of_byte = np.asarray(jax.nn.log_softmax(tiny.symbol_logits(hat, batch)[0]))[0]
  np.testing.assert_allclose(output.nll[0, 1:21], -of_byte[1:21, ord('x')], atol=1e-5)


def test_no_byte_can_be_taken_for_a_pooling_vector():
  """The public code gives its vectors the numbers c0..c0+k-1 of units (defect 1 of Word-Pooled)."""
  model = tiny.build(tiny.KINDS['word_pooled'])
  assert model.pooling.shape == (4, 32) and model.embeddings.shape == (256, 32)
  batch = batch_of(model, b'\xfeabc')
  starts = word_starts(model.config, batch)

  def encoded(model):
    words = Words.of(starts, jnp.asarray(batch.segment_ids), 4, 8)
    return jnp.sum(model.encode(model.embed(batch.bytes), words)[0, 4:8] * random(4, 32))  # of the word 'abc'

  gradient = jax.jit(jax.grad(encoded))(model).embeddings[...]
  assert np.flatnonzero(np.abs(gradient).sum(1)).tolist() == [*b'abc']


@pytest.mark.parametrize('kind', ['hat', 'word_pooled'])
def test_a_word_is_encoded_from_its_own_bytes_and_no_padding(kind):
  """The public code lets units attend to padding, one place too many, and changes its mask (defect 2)."""
  model = tiny.build(tiny.KINDS[kind])
  k, positions = model.config.num_vectors, model.config.positions
  row = b'\xfesome words of one row'
  batch = batch_of(model, row, length=48)
  spans = tiny.words_of(batch.marks['words'][0, : len(row)])
  given = [np.array(part) for part in (batch.bytes, batch.segment_ids, batch.marks['words'])]

  @jax.jit
  def encode(bytes_BxL, segment_ids_BxL, starts_BxL):
    words = Words.of(starts_BxL, segment_ids_BxL, k, starts_BxL.shape[1])
    return model.encode(model.embed(bytes_BxL), words)[0]

  packed = encode(*given)[: len(spans) * positions]
  for part, before in zip((batch.bytes, batch.segment_ids, batch.marks['words']), given, strict=True):
    np.testing.assert_array_equal(part, before)
  other_padding = np.where(given[1] > 0, given[0], 77).astype(np.uint8)
  np.testing.assert_array_equal(encode(other_padding, *given[1:])[: len(spans) * positions], packed)
  for index, (begin, end) in enumerate(spans):
    word = np.frombuffer(row[begin:end], np.uint8)[None]
    alone = encode(word, np.ones_like(word, np.int32), np.arange(end - begin)[None] == 0)[:positions]
    np.testing.assert_allclose(packed[index * positions : (index + 1) * positions], alone, atol=1e-5)


@pytest.mark.parametrize('kind', ['word_pooled', 'megabyte'])
def test_every_byte_of_a_sentence_with_letters_and_digits_is_in_one_word_and_scored(kind):
  """The public data set drops every token with a letter (defect 3)."""
  model = tiny.build(tiny.KINDS[kind])
  row = bytes([BOS]) + SENTENCE + bytes([EOS])
  output = tiny.forward(model, batch_of(model, row))
  assert np.all(np.asarray(output.nll)[0, 1 : len(row)] > 0) and not np.any(output.nll[0, len(row) :])
  words = [row[begin:end] for begin, end in tiny.words_of(np.asarray(output.segmentations[0])[0, : len(row)])]
  assert b''.join(words) == row and max(map(len, words)) <= model.config.longest


def test_vectors_of_a_word_are_positions_of_the_backbone_or_one_wide_position():
  pooled, wide = (tiny.build(tiny.KINDS[kind]) for kind in ('word_pooled', 'word_pooled_wide'))
  assert (pooled.config.positions, wide.config.positions) == (4, 1)
  assert not hasattr(pooled, 'widen') and not hasattr(wide, 'widen')
  caches = [m.init_cache(2, 10).backbone[0].k_BxCxHxK.shape[1] for m in (pooled, wide)]
  assert caches == [40, 10]


def test_patches_restart_behind_bos_and_eos_does_not_cut_them():
  model = tiny.build(tiny.KINDS['megabyte'])
  ids = segment_ids([12, 7, 3], [10, 12])
  bytes_BxL = np.full(ids.shape, 97, np.uint8)
  bytes_BxL[0, [0, 12]] = bytes_BxL[1, 10] = BOS
  bytes_BxL[0, 11] = EOS
  starts = word_starts(model.config, Batch(bytes_BxL, ids))
  assert np.flatnonzero(starts[0]).tolist() == [0, 1, 5, 9, 12, 13, 17, 19]
  assert np.flatnonzero(starts[1]).tolist() == [0, 4, 8, 10, 11, 15, 19]
  assert model.marks == {} and model.word_end is None


@pytest.mark.parametrize('kind', ['hat', 'megabyte'])
def test_capacities_that_just_fit_give_the_same_values_and_gradients(kind):
  model = tiny.build(tiny.KINDS[kind])
  output = assert_same_where_chunks_fit(model, batch_of(model, b'\xfe' + SENTENCE, b'\xfeother words'))
  count, (metrics,) = output.segmentations[0].sum(1), output.stage_metrics
  assert metrics['fill'] == pytest.approx(count.mean() / count.max())
  assert metrics['bytes_per_chunk'] == pytest.approx((len(SENTENCE) + 13) / count.sum())
  assert metrics['boundary_rate'] == pytest.approx(count.sum() / (len(SENTENCE) + 13))


def test_places_in_the_buffer_are_a_permutation_with_a_gradient_that_gathers():
  ids = segment_ids([9, 5], [11], [0, 14])
  starts = np.random.default_rng(0).random(ids.shape) < 0.4
  starts = (starts | (np.diff(ids, axis=1, prepend=0) != 0)) & (ids > 0)
  words = jax.device_get(jax.jit(Words.of, static_argnums=(2, 3))(starts, ids, 3, 8))
  assert words.slot_BxC.shape == (3, 14 + 3 * 8)
  for row in range(3):
    assert sorted(words.slot_BxC[row].tolist()) == list(range(38))
    expected = []  # a naive buffer: three vectors, then the word's bytes
    for index, (begin, end) in enumerate(tiny.words_of(starts[row, : (ids[row] > 0).sum()])):
      expected += [(14 + 3 * index + j, index + 1) for j in range(3)] + [(t, index + 1) for t in range(begin, end)]
      assert (words.first_BxS[row, index], words.size_BxS[row, index]) == (begin, end - begin)
    sources, local_ids = zip(*expected, strict=True)
    assert words.source_BxC[row, : len(expected)].tolist() == list(sources)
    assert words.local_ids_BxC[row].tolist() == [*local_ids, *[0] * (38 - len(expected))]
  x, g = random(3, 38, 2), random(3, 38, 2, seed=1)
  there = jax.jit(lambda x: permute(x, words.source_BxC, words.slot_BxC))
  back = jax.jit(lambda y: permute(y, words.slot_BxC, words.source_BxC))
  np.testing.assert_array_equal(back(there(x)), x)
  gradient = jax.jit(jax.grad(lambda x: jnp.vdot(there(x), g)))(x)
  np.testing.assert_allclose(np.vdot(there(x), g), np.vdot(x, gradient), rtol=1e-5)


def test_words_that_are_missing_are_an_error_under_tracing_and_made_eagerly(hat):
  batch = Batch.of([b'\xfe' + SENTENCE], 64)
  with pytest.raises(ValueError, match=r"lacks the mark 'words' \(hat.*under jax.jit"):
    jax.eval_shape(hat, batch)
  made = word_starts(hat.config, batch)
  np.testing.assert_array_equal(made, batch_of(hat, b'\xfe' + SENTENCE).marks['words'])


@pytest.mark.parametrize('kind', ['hat', 'megabyte'])
def test_bfloat16_computes_nearly_the_same_and_decodes(kind):
  values = tiny.KINDS[kind]
  full = tiny.build(values)
  config = byte_models.parse({**values, 'dtype': 'bfloat16', 'remat': True, 'scan_layers': True})
  low = rebuild(jax.eval_shape(lambda: byte_models.build(config, rngs=nnx.Rngs(0))), flatten(full))
  batch = batch_of(full, b'\xfe' + SENTENCE)
  ours, expected = (np.asarray(jax.jit(lambda m, b: m(b).nll)(m, batch)) for m in (low, full))
  assert np.abs(ours - expected).max() < 0.2

  def decode(model, batch):
    _, cache = model.prefill(batch, jnp.array([9]), model.init_cache(1, 80))
    return model.step(batch.bytes[:, 9], cache)[0]

  assert jax.eval_shape(decode, low, batch).dtype == jnp.float32


def talkative(model):
  """The model with logits for a few symbols only, so that words end often and all kinds of bytes come."""
  kernel = model.lm_head.kernel[...]
  symbols = np.array([*b'ab ,\n', 0xC3, 0xA9, WORD_END])
  return rebuild(
    model, flatten(model) | {'lm_head.kernel': jnp.zeros_like(kernel).at[:, symbols].set(kernel[:, symbols])}
  )


def naive_greedy(model, prompt, count):
  """The likeliest continuation, from the parallel form alone."""
  row = bytes([BOS]) + prompt
  starts = {int(t) for t in np.flatnonzero(batch_of(model, row).marks['words'][0])} if model.marks else set()
  size, has_ended = len(row) - max(starts, default=0), False
  while len(row) < 1 + len(prompt) + count:
    fresh = has_ended or size == model.config.longest or row == bytes([BOS])
    batch = by_hand(model, row + b'?', {*starts, len(row)} if fresh else starts)
    of_byte, of_end = tiny.symbol_logits(model, batch)
    best = int(np.argmax(of_byte[0, len(row)] if fresh or of_end is None else of_end[0, len(row) - 1]))
    if not fresh and best == model.word_end:
      has_ended = True
      continue
    if fresh:
      starts, size, has_ended = {*starts, len(row)}, 0, False
    row, size = row + bytes([best]), size + 1
  return row[1 + len(prompt) :]


@pytest.mark.parametrize('kind', ['hat', 'megabyte'])
def test_generation_is_a_naive_loop_that_goes_on_inside_the_last_word_and_likeliest_says_what_it_writes(kind):
  model = talkative(tiny.build(tiny.KINDS[kind]))
  prompts = [b'', b'some wo', b'caf\xc3', b'x' * 8]
  found = generate(model, prompts, 12, temperature=0.0)
  assert found == [naive_greedy(model, prompt, 12) for prompt in prompts]
  assert all(len(row) == 12 for row in found)
  written = b''.join(found)  # what it goes on with, so that much of it is the likeliest
  for text in (written[:24], SENTENCE[:14] + written[24:34], b'\xfe\xff ab, \xc0a\xff caf\xc3\xa9 \xc3,ab \xff'):
    tiny.check_likeliest(model, text.ljust(24)[:24])
  sampled = generate(model, prompts, 20, seed=3)
  assert generate(model, [b'other', b'', b'words', prompts[3]], 20, seed=3)[3] == sampled[3]
