"""Word models that spell words with characters or subwords: the three oracles per unit, what a unit costs, generation.

"Per unit": of texts that are cut into the same words and units up to a place, nothing before it differs; decoding reads
units; and a text's nats are those of the units that the rule makes of it.
"""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

import byte_models
from byte_models.word_ar import WORD_END
from byte_models.word_ar.layout import spelled
from evaluation import oracles
from evaluation.bits_per_byte import evaluate
from evaluation.generation import generate
from layers.paths import flatten, rebuild
from tests.byte_models import tiny_word_ar as tiny
from tests.byte_models.capacities import assert_same_where_chunks_fit
from tests.test_contract import BATCHES, LENGTH, ROWS, ROWS_OF_TEXT, SHORT, drawn, texts
from tests.text import tiny_subwords
from text import BOS, EOS, MemoryCorpus
from text.batch import Batch
from text.marks import mark

TOLERANCE = 1e-4
KINDS = ('char', 'subword')
SENTENCE = 'In 1914 the 3 towns, café and 日本, had 500 souls. ภาษา 🙂'.encode()


def branch(kind, file, **changes):
  """Word-Pooled with characters up to Thai (others as bytes), HAT with subwords; words of at most eight bytes."""
  if kind == 'char':
    changes = {'units': 'char(limit=0xe80)', 'num_vectors': 2, 'backbone': tiny.NARROW, **changes}
  else:
    changes = {'units': f'subword(file={file})', **changes}
  return tiny.branch(**changes)


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  return tiny_subwords.write(tmp_path_factory.mktemp('units') / 'subwords.json')


@pytest.fixture(scope='module')
def models(file):
  return functools.cache(lambda kind: tiny.build(branch(kind, file)))


@pytest.fixture(scope='module', params=KINDS)
def model(request, models):
  return models(request.param)


def marked(model, batch):
  """The batch with its units, and words where the model sees them begin: at raw bytes of the value WORD_END, too."""
  return tiny.with_starts(model, mark(batch, model.marks))


def of(*rows):
  """A batch of the shape that all tests share."""
  return Batch.of([*rows, *[b''] * (ROWS - len(rows))], LENGTH)


def run(model, batch):
  return jax.device_get(tiny.forward(model, marked(model, batch)))


def symbols_of(model, batch, row, first=0):
  """[(symbol, byte that it ends at or stands behind, whether it is a unit)] of a row that is one document."""
  symbols, used = [], int((batch.segment_ids[row] > 0).sum())
  for begin, end in tiny.words_of(batch.marks['words'][row, :used]):
    places = [t for t in range(max(begin, first), end) if batch.marks['units'][row, t] >= 0]
    symbols += [(int(batch.marks['units'][row, t]), t, True) for t in places]
    if end >= first and end < used and not tiny.is_certain(model, batch.bytes[row], begin, end):
      symbols.append((WORD_END, end - 1, False))
  return symbols


def naive_nats(model, batch, row):
  """Nats of one document at the last bytes of its units, word by word: no packing and no mask."""
  k, used = model.config.num_vectors, int((batch.segment_ids[row] > 0).sum())
  spans = tiny.words_of(batch.marks['words'][row, :used])
  places = [[t for t in range(*span) if batch.marks['units'][row, t] >= 0] for span in spans]
  embeddings = np.asarray(model.embeddings[...])
  embedded = [embeddings[batch.marks['units'][row, at]] for at in places]
  pooled = [tiny._apply(model.encoder, np.concatenate([model.pooling[...], x]))[:k] for x in embedded]
  z = tiny._apply(model.backbone, np.concatenate([model.widen(x) if hasattr(model, 'widen') else x for x in pooled]))
  vectors = (model.narrow(z) if hasattr(model, 'narrow') else z).reshape(len(spans), k, -1)
  vectors = np.concatenate([np.zeros_like(vectors[:1]), vectors[:-1]])
  nats, waiting = np.zeros(batch.bytes.shape[1]), 0.0
  for index, (at, span) in enumerate(zip(places, spans, strict=True)):
    hidden = tiny._apply(model.decoder, np.concatenate([vectors[index], embedded[index]]))[k - 1 :]
    log_p = log_softmax(model.head(hidden), -1)
    nats[at] = -log_p[np.arange(len(at)), batch.marks['units'][row, at]]
    nats[at[0]] += waiting
    waiting = 0.0 if tiny.is_certain(model, batch.bytes[row], *span) else -log_p[-1, WORD_END]
  nats[0] = 0.0
  return nats


@drawn(max_examples=10)
@given(batch=BATCHES, other=ROWS_OF_TEXT, last=st.integers(0, LENGTH - 2))
def test_causality_later_bytes_change_no_unit_before_them(model, batch, other, last):
  changed = Batch(np.where(np.arange(LENGTH) <= last, batch.bytes, other), batch.segment_ids)
  one, two = marked(model, batch), marked(model, changed)
  same = np.logical_and.accumulate(
    (one.marks['words'] == two.marks['words']) & (one.marks['units'] == two.marks['units']), 1
  )
  same &= np.arange(LENGTH) <= last
  ours, theirs = (jax.device_get(tiny.forward(model, batch)) for batch in (one, two))
  np.testing.assert_allclose(ours.nll[same], theirs.nll[same], atol=TOLERANCE, rtol=0)


@functools.partial(jax.jit, static_argnames='max_bytes')
def decode(model, prompts, prompt_B, symbols_BxN, max_bytes):
  """Logits after the prompts and after each symbol behind them: [B, 1 + N, V]."""
  cache = model.init_cache(len(symbols_BxN), max_bytes)
  first, cache = model.prefill(prompts, prompt_B, cache)
  _, rest = jax.lax.scan(lambda cache, symbol_B: model.step(symbol_B, cache)[::-1], cache, symbols_BxN.T)
  return jnp.concatenate([first[:, None], jnp.moveaxis(rest, 0, 1)], 1)


@drawn(max_examples=8)
@given(
  bytes_BxL=ROWS_OF_TEXT,
  prompts=st.lists(st.integers(0, LENGTH - 1), min_size=ROWS, max_size=ROWS),
  begins=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
  row=st.integers(0, ROWS - 1),
)
def test_streaming_reads_the_units_that_the_parallel_form_reads(model, bytes_BxL, prompts, begins, row):
  bytes_BxL = np.where((np.arange(LENGTH) == 0) & np.array(begins)[:, None], BOS, bytes_BxL).astype(np.uint8)
  bytes_BxL[:, -1] %= EOS  # what decoding takes for a byte would be the end of the document
  batch = marked(model, Batch(bytes_BxL, np.ones_like(bytes_BxL, np.int32)))
  output, logits = jax.device_get((tiny.forward(model, batch), tiny.symbol_logits(model, batch)))
  ends = [np.flatnonzero(batch.marks['units'][r] >= 0) + 1 for r in range(ROWS)]
  lengths = np.array([ends[r][min(n, len(ends[r]) - 1)] for r, n in enumerate(prompts)])  # of a few whole units
  symbols = [symbols_of(model, batch, r, lengths[r]) for r in range(ROWS)]
  inputs = np.zeros((ROWS, 2 * LENGTH), np.int32)
  for r in range(ROWS):
    inputs[r, : len(symbols[r])] = [symbol for symbol, _, _ in symbols[r]]
  is_prompt = np.arange(LENGTH) < lengths[:, None]
  parts = (
    batch.bytes * is_prompt,
    is_prompt.astype(np.int32),
    {
      'words': batch.marks['words'] & is_prompt,
      'units': np.where(is_prompt, batch.marks['units'], -1),
    },
  )
  arguments = Batch(*parts), lengths, inputs
  found = np.asarray(decode(model, *arguments, max_bytes=4 * LENGTH))
  for r in range(ROWS):
    nats = np.zeros(LENGTH)
    behind = np.append(ends[r][1:], 0)[np.searchsorted(ends[r], np.arange(1, LENGTH + 1))] - 1  # the next unit's end
    for step, (symbol, place, is_unit) in enumerate(symbols[r]):
      np.testing.assert_allclose(found[r, step], logits[not is_unit][r, place], atol=TOLERANCE, rtol=0)
      nats[place if is_unit else behind[place]] -= log_softmax(found[r, step])[symbol]
    np.testing.assert_allclose(nats[lengths[r] :], output.nll[r, lengths[r] :], atol=TOLERANCE, rtol=0)
  one = jax.tree.map(lambda rows: rows[row : row + 1], arguments)
  alone, count = np.asarray(decode(model, *one, max_bytes=4 * LENGTH)), len(symbols[row])
  np.testing.assert_allclose(alone[0, :count], found[row, :count], atol=TOLERANCE, rtol=0)


@drawn(max_examples=10)
@given(
  documents=st.lists(texts(LENGTH), min_size=3, max_size=3),
  lengths=st.tuples(st.integers(1, SHORT), st.integers(1, SHORT)),
  place=st.permutations(range(3)),
  rest=BATCHES,
)
def test_isolation_packed_equals_padded_equals_alone(model, documents, lengths, place, rest):
  documents = [document[:length] for document, length in zip(documents, (*lengths, SHORT), strict=True)]
  apart = oracles.isolation(functools.partial(run, model), documents, place, rest)
  assert apart.nats <= TOLERANCE and apart.probabilities == apart.boundaries == 0, apart


def test_nll_is_that_of_a_naive_loop_over_words_and_stands_at_the_last_bytes_of_units(models):
  model = models('subword')
  row = b'\xfethe ca\xc0ts, ' + 'café ภา'.encode() + b' 0123456789012'
  batch = marked(model, of(row, row[2:]))
  output = run(model, batch)
  for index in range(2):
    np.testing.assert_allclose(output.nll[index], naive_nats(model, batch, index), atol=TOLERANCE, rtol=0)
  assert np.all((output.nll > 0) == ((batch.marks['units'] >= 0) & batch.scored))
  np.testing.assert_array_equal(output.segmentations[0], batch.marks['words'])
  assert output.metrics['bytes_per_unit'] == pytest.approx((2 * len(row) - 2) / (batch.marks['units'] >= 0).sum())


def test_units_that_are_bytes_are_bytes(file):
  """With a limit of 128 no character is a unit: the other code path computes the same."""
  of_bytes = tiny.build(branch('char', file, units='byte'))
  config = byte_models.parse(branch('char', file, units='char(limit=128)'))
  of_units = rebuild(jax.eval_shape(lambda: byte_models.build(config, rngs=nnx.Rngs(0))), flatten(of_bytes))
  batch = of(b'\xfe' + SENTENCE[:46] + b'\xff', SENTENCE[20:64], b'\xfe\xc0\xc0ab\xc0')
  ours, expected = run(of_units, batch), run(of_bytes, batch)
  np.testing.assert_allclose(ours.nll, expected.nll, atol=1e-5)
  np.testing.assert_array_equal(ours.segmentations[0], expected.segmentations[0])


def test_a_row_that_begins_inside_a_unit_pays_for_all_of_it(models):
  """So cutting documents into more rows, which repeats units, gives no text for less."""
  model = models('char')
  batch = marked(model, of(b'\xfe' + SENTENCE[:40], 'éa'.encode()))  # the first position is context
  logits, nll = tiny.symbol_logits(model, batch)[0], run(model, batch).nll
  unit = 256 + ord('é') - 128
  assert batch.marks['units'][1, :3].tolist() == [-1, unit, ord('a')]
  assert nll[1, 0] == 0 and nll[1, 1] == pytest.approx(-float(jax.nn.log_softmax(logits[1, 1])[unit]), 1e-4)


def test_bits_per_byte_are_those_of_the_units(models):
  model, document = models('char'), SENTENCE[20:60]
  result = evaluate(model, MemoryCorpus([document]), seq_len=LENGTH, batch_size=ROWS)
  nll = run(model, of(bytes([BOS]) + document + bytes([EOS]))).nll[0]
  assert result.bits_per_byte == pytest.approx(nll[: 1 + len(document)].sum() / np.log(2) / len(document), 1e-4)
  assert result.text_bytes == len(document)


def test_capacities_that_just_fit_give_the_same_values_and_gradients(model):
  """Of units, and of words that they spell."""
  output = assert_same_where_chunks_fit(model, marked(model, of(b'\xfethe the ' + 'café, ภา'.encode(), b'\xfea')))
  units, words_ = output.needed
  assert words_ == output.segmentations[0].sum(1).max() < units <= 24
  assert output.stage_metrics[0]['fill'] == pytest.approx(output.segmentations[0].sum(1).mean() / words_)


def test_units_that_are_missing_are_an_error_under_tracing_and_made_eagerly(models):
  model = models('subword')
  batch = mark(of(b'\xfe' + SENTENCE[:40], b'a'), {'words': model.config.words})
  with pytest.raises(ValueError, match=r"lacks the mark 'units' \(subword.*under jax\.jit"):
    jax.eval_shape(model, batch)
  made = spelled(model.config, batch), spelled(model.config, mark(batch, model.marks))
  jax.tree.map(np.testing.assert_array_equal, *made)


def talkative(model, **changes):
  """The model with logits for a few symbols only: bytes, units of several bytes, and the end of a word."""
  config = dataclasses.replace(model.config, **changes)
  model = rebuild(jax.eval_shape(lambda: byte_models.build(config, rngs=nnx.Rngs(0))), flatten(model))
  kernel, table = model.lm_head.kernel[...], model.symbols
  symbols = np.array([*b'ab ,\n\xc3', table.index(b'the'), table.index(b' c'), WORD_END])
  return rebuild(
    model, flatten(model) | {'lm_head.kernel': jnp.zeros_like(kernel).at[:, symbols].set(kernel[:, symbols])}
  )


def naive_greedy(model, prompt, count):
  """The likeliest continuation, from the parallel form alone."""
  row = marked(model, Batch.of([bytes([BOS]) + prompt], LENGTH))
  text, starts, placed = bytes([BOS]) + prompt, row.marks['words'].copy(), row.marks['units'].copy()
  begin, has_ended = int(np.flatnonzero(starts[0])[-1]), len(prompt) == 0
  while len(text) < 1 + len(prompt) + count:
    at = len(text)
    fresh = has_ended or at - begin >= model.config.longest
    starts[0, at], placed[0, at] = fresh, 0
    of_symbol, of_end = tiny.symbol_logits(model, Batch(*_row(text + b'?'), {'words': starts, 'units': placed}))
    best = int(np.argmax(of_symbol[0, at] if fresh else of_end[0, at - 1]))
    if not fresh and best == WORD_END:
      has_ended = True
      continue
    begin, has_ended = (at if fresh else begin), False
    text += model.symbols[best]
    placed[0, at], placed[0, len(text) - 1] = -1, best
  return text[1 + len(prompt) :][:count]


def _row(text):
  batch = Batch.of([text], LENGTH)
  return batch.bytes, batch.segment_ids


def test_generation_is_a_naive_loop_over_units_and_goes_on_inside_the_last_word(models):
  # What is drawn may reach over the cap, which the parallel form cannot read: here no word gets that far.
  model = talkative(models('subword'), words='hat(max_bytes=32)', longest=32)
  prompts = [b'', b'some the', b'caf\xc3', b'x' * 8]
  found = generate(model, prompts, 14, temperature=0.0)
  assert found == [naive_greedy(model, prompt, 14) for prompt in prompts]
  assert any(b'the' in row for row in found)
  seen = tiny.check_likeliest(model, b''.join(found)[:24]) + tiny.check_likeliest(model, SENTENCE[4:28])
  assert sum(seen[case] for case in seen if case[2]) > 5
  sampled = generate(model, prompts, 20, seed=3)
  assert {len(row) for row in sampled} == {20}  # the last unit is cut where it would go past the limit
  assert [row[:7] for row in sampled] == generate(model, prompts, 7, seed=3)


def test_the_quickstart_in_characters_and_subwords(file):
  module = importlib.import_module('configs.quickstart_word_pooled')
  assert module.get_config().model.units == 'byte'
  of_characters, of_subwords = (
    byte_models.parse(module.get_config(arg).model.to_dict()) for arg in ('char', f'subword={file}')
  )
  assert of_characters.units == 'char(limit=0x250)' and of_characters.vocab_size == 256 + 0x250 - 128
  assert of_subwords.units.startswith(f'subword(file={file},digest=') and of_subwords.vocab_size == 360
  with pytest.raises(ValueError, match="has no variant 'words': use none, char or subword=FILE"):
    module.get_config('words')
