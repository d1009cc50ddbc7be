import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from evaluation.bits_per_byte import evaluate, first_bytes
from evaluation.finite import NotFiniteError
from evaluation.segmentation import segment
from layers.contract import ByteModel
from text import MemoryCorpus
from text.packing import evaluation_rows


def random_documents(seed, *lengths):
  random = np.random.default_rng(seed)
  documents = [random.integers(0, 256, length, np.uint8) for length in lengths]
  for document in documents:  # the values of BOS and EOS inside raw text are text
    document[random.random(len(document)) < 0.2] = 255
    document[random.random(len(document)) < 0.1] = 254
  return [document.tobytes() for document in documents]


def nats(model, symbols, position):
  logits = model.naive_logits(symbols[:position])
  return np.log(np.sum(np.exp(logits - logits.max()))) + logits.max() - logits[symbols[position]]


def naive(model, documents):
  """(bits per byte, bits per EOS), each document whole."""
  text = ends = 0.0
  for document in documents:
    symbols = [254, *document, 255]
    text += sum(nats(model, symbols, i) for i in range(1, len(symbols) - 1))
    ends += nats(model, symbols, len(symbols) - 1)
  return text / math.log(2) / sum(map(len, documents)), ends / math.log(2) / len(documents)


def test_bits_equal_the_naive_loop_over_whole_documents(two_byte_model):
  model = two_byte_model(positional=True)
  documents = random_documents(0, 5, 1, 40, 62, 30)
  result = evaluate(model, MemoryCorpus(documents), seq_len=256, batch_size=2)  # nothing is cut; one row is padding
  bits_per_byte, eos_bits = naive(model, documents)
  assert result.bits_per_byte == pytest.approx(bits_per_byte, rel=1e-6)
  assert result.eos_bits == pytest.approx(eos_bits, rel=1e-6)
  assert (result.text_bytes, result.documents, result.last_document_cut) == (138, 5, False)
  assert (result.seq_len, result.context) == (256, 128) and result.seconds > 0


def test_bits_at_chunks_equal_the_naive_loop_whatever_the_cuts(two_byte_model):
  model = two_byte_model(positional=False)
  documents = random_documents(0, 5, 1, 40, 62, 30)
  at, behind = ([], []), ([], [])
  for document in documents:
    symbols = [254, *document, 255]
    bits = [math.nan, *(nats(model, symbols, i) / math.log(2) for i in range(1, len(symbols) - 1))]
    for stage, divisor in enumerate((5, 25)):
      begins = [i for i in range(1, len(bits)) if symbols[i] % divisor == 0]
      at[stage].extend(bits[i] for i in begins)
      behind[stage].extend(bits[i + 1] for i in begins if i + 1 < len(bits))
  for seq_len in (256, 16):
    found = evaluate(model, MemoryCorpus(documents), seq_len=seq_len, batch_size=2).bits_at_chunks
    for stage in (0, 1):
      assert found[stage] == pytest.approx((np.mean(at[stage]), np.mean(behind[stage])), rel=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=8), st.sampled_from([None, 2, 5, 15]), st.integers(0, 9))
def test_bits_of_a_short_memory_do_not_depend_on_the_cuts(two_byte_model, lengths, context, seed):
  model = two_byte_model(positional=False)  # it remembers two bytes, and a context is at least as long
  documents = random_documents(seed, *lengths)
  result = evaluate(model, MemoryCorpus(documents), seq_len=16, batch_size=3, context=context)
  bits_per_byte, eos_bits = naive(model, documents)
  assert result.bits_per_byte == pytest.approx(bits_per_byte, rel=1e-6)
  assert result.eos_bits == pytest.approx(eos_bits, rel=1e-6)
  assert result.text_bytes == sum(lengths)


@pytest.mark.parametrize('context', [None, 1, 7, 15])
def test_a_continued_document_sees_its_context_and_no_more(two_byte_model, context):
  model = two_byte_model(positional=True)
  documents = random_documents(1, 50, 3, 100, 14, 15, 16, 1)
  corpus = MemoryCorpus(documents)
  result = evaluate(model, corpus, seq_len=16, batch_size=4, context=context)
  plan = evaluation_rows(corpus.lengths, 16, context)
  text = ends = 0.0
  for _, document, start, stop, first_scored in zip(*plan.pieces(np.arange(len(plan))), strict=True):
    symbols = [254, *documents[document], 255]
    for i in range(first_scored, stop):
      assert i - start >= min(i, result.context)
      scored = nats(model, symbols[start:], i - start)
      text, ends = (text, ends + scored) if i == len(symbols) - 1 else (text + scored, ends)
  assert result.bits_per_byte == pytest.approx(text / math.log(2) / sum(map(len, documents)), rel=1e-6)
  assert result.eos_bits == pytest.approx(ends / math.log(2) / len(documents), rel=1e-6)


def test_bytes_per_chunk_counts_text_once(two_byte_model):
  documents = random_documents(2, 70, 9, 33)
  result = evaluate(two_byte_model(positional=False), MemoryCorpus(documents), seq_len=16, batch_size=2)
  values = np.frombuffer(b''.join(documents), np.uint8)
  assert result.bytes_per_chunk == (112 / np.sum(values % 5 == 0), 112 / np.sum(values % 25 == 0))
  result = evaluate(two_byte_model(positional=False), MemoryCorpus([b'\x01\x02']), seq_len=16, batch_size=2)
  assert result.bytes_per_chunk == (None, None)


@pytest.mark.parametrize(
  ('max_bytes', 'expected', 'cut'),
  [
    (None, [b'one', b'three', b'four'], False),
    (0, [b'one', b'three', b'four'], False),
    (12, [b'one', b'three', b'four'], False),
    (11, [b'one', b'three', b'fou'], True),
    (8, [b'one', b'three'], False),
    (4, [b'one', b't'], True),
    (3, [b'one'], False),
    (1, [b'o'], True),
  ],
)
def test_max_bytes_takes_the_beginning_of_the_corpus(two_byte_model, max_bytes, expected, cut):
  model, corpus = two_byte_model(positional=True), MemoryCorpus([b'one', b'three', b'four'])
  chosen, was_cut = first_bytes(corpus, max_bytes)
  assert [chosen[i] for i in range(len(chosen))] == expected and was_cut == cut
  result = evaluate(model, corpus, seq_len=64, batch_size=2, max_bytes=max_bytes)
  assert (result.text_bytes, result.documents, result.last_document_cut) == (
    sum(map(len, expected)),
    len(expected),
    cut,
  )
  whole = expected[:-1] if cut else expected
  assert result.bits_per_byte == pytest.approx(naive(model, expected)[0], rel=1e-6)
  assert result.eos_bits == (pytest.approx(naive(model, whole)[1], rel=1e-6) if whole else None)


@pytest.mark.parametrize('length', range(1, 40))
def test_a_document_cut_anywhere_has_no_end(two_byte_model, length):
  model = two_byte_model(positional=False)
  document = random_documents(length, 60)[0]
  result = evaluate(model, MemoryCorpus([document]), seq_len=8, batch_size=2, max_bytes=length)
  assert result.bits_per_byte == pytest.approx(naive(model, [document[:length]])[0], rel=1e-6)
  assert result.eos_bits is None


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_bits_that_are_not_finite_are_refused_with_the_place(two_byte_model, value):
  class Broken(two_byte_model):
    def __call__(self, batch, *, context=None, capacities=None):
      output, bytes_BxL = super().__call__(batch), jnp.asarray(batch.bytes)
      return dataclasses.replace(output, nll=jnp.where((bytes_BxL == self.number) & batch.scored, value, output.nll))

  documents = [b'a' * 40, b'b' * 10 + b'\x07', b'', b'\x07']
  for number, place in ((7, 'byte 10 of document 1'), (255, 'the end of document 0')):
    model = Broken(positional=False)
    model.number = number
    with pytest.raises(NotFiniteError, match=rf"^the model's output is not finite at {place} of 'four': its weights"):
      evaluate(model, MemoryCorpus(documents, 'four'), seq_len=16, batch_size=2)
  result = evaluate(model, MemoryCorpus(documents, 'four'), seq_len=16, batch_size=2, max_bytes=3)  # no end, no nan
  assert result.text_bytes == 3 and result.eos_bits is None


def test_one_compilation_serves_every_batch_and_every_model_of_a_kind(two_byte_model, monkeypatch):
  shapes = []
  call = two_byte_model.__call__
  monkeypatch.setattr(
    two_byte_model, '__call__', lambda self, batch, **more: shapes.append(batch.bytes.shape) or call(self, batch)
  )
  for seed in range(3):
    evaluate(
      two_byte_model(positional=True, seed=seed),
      MemoryCorpus(random_documents(seed, 100 + seed)),
      seq_len=11,
      batch_size=5,
    )
  assert shapes == [(5, 11)]


def test_sums_keep_what_float32_would_lose(two_byte_model):
  model = two_byte_model(positional=False)
  for parameter in (model.last, model.before):
    parameter[...] = jnp.zeros((256, 256))
  result = evaluate(model, MemoryCorpus([bytes(50_000)]), seq_len=1024, batch_size=8, context=2)
  assert result.bits_per_byte == pytest.approx(8, rel=2e-7)


def test_rows_laid_over_a_mesh_give_the_same_result(two_byte_model):
  model, corpus = two_byte_model(positional=True), MemoryCorpus(random_documents(5, 100, 7, 40))
  mesh = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,))
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  sharded = evaluate(model, corpus, seq_len=16, batch_size=4, batch_sharding=sharding)
  alone = evaluate(model, corpus, seq_len=16, batch_size=4)
  assert sharded.bits_per_byte == pytest.approx(alone.bits_per_byte, rel=1e-7)


def test_progress_counts_bytes_up_to_the_total(two_byte_model):
  calls = []
  documents = random_documents(0, 100, 20)
  evaluate(
    two_byte_model(positional=False),
    MemoryCorpus(documents),
    seq_len=16,
    batch_size=2,
    progress=lambda *call: calls.append(call),
  )
  assert len(calls) > 2 and calls[-1] == (120, 120) and calls == sorted(calls)


@pytest.mark.parametrize(
  ('change', 'word'),
  [
    ({'seq_len': 1}, 'seq_len'),
    ({'batch_size': 0}, 'batch_size'),
    ({'max_bytes': -1}, 'max_bytes'),
    ({'context': 0}, 'context'),
    ({'context': 8}, 'context'),
    ({'corpus': MemoryCorpus([])}, 'no byte'),
    ({'corpus': MemoryCorpus([b''])}, 'no byte'),
  ],
)
def test_bad_input_is_refused_before_the_model_runs(change, word):
  with pytest.raises(ValueError, match=word):
    evaluate(ByteModel(), **{'corpus': MemoryCorpus([b'text']), 'seq_len': 8, 'batch_size': 1, **change})


@pytest.mark.parametrize('devices', [0, 1])
def test_a_model_that_needs_words_gets_them(two_byte_model, devices):
  class WordModel(two_byte_model):
    @property
    def marks(self):
      return {'words': 'whitespace(max_bytes=4)'}

    def __call__(self, batch, *, context=None, capacities=None):
      return dataclasses.replace(super().__call__(batch), segmentations=(batch.marks['words'],))

  sharding = NamedSharding(jax.make_mesh((1,), ('data',), (AxisType.Auto,)), PartitionSpec('data')) if devices else None
  documents = [b'ab cdefgh i', b'', b'j  k\n']
  model = WordModel(positional=False)
  result = evaluate(model, MemoryCorpus(documents), seq_len=64, batch_size=2, batch_sharding=sharding)
  assert result.bytes_per_chunk == (16 / 6,)  # ab_ cdef gh_ i, j__ k_
  assert result.bits_per_byte == pytest.approx(naive(model, documents)[0], rel=1e-6)
  ((starts,),) = segment(model, documents[:1])
  assert np.flatnonzero(starts).tolist() == [0, 3, 7, 10]
