"""Bits per byte of every family equal a loop over documents and rows in plain Python, also where rows are tiny.

The loop knows nothing of plans: it lays the symbols of all documents end to end, cuts them as docs/data.md says, finds
words and units in whole documents, and adds up the nats of single rows.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import byte_models
from evaluation.bits_per_byte import _scorer, evaluate
from layers.contract import ByteModel
from tests.byte_models import tiny_word_ar
from tests.hnet.tiny import informative
from tests.test_contract import FAMILIES
from tests.text import tiny_subwords
from text import BOS, EOS, Batch, MemoryCorpus, tokens, units, words
from text.marks import PAID
from text.packing import training_plan
from text.rows import training_batch

BYTES = (
  'bolmo_chunker', 'hnet_one_stage', 'hnet_two_stage', 'hnet_isotropic_T', 'hnet_isotropic_m', 'spacebyte', 'tfree_hat',
)  # fmt: skip
WORDS = ('hat', 'word_pooled', 'megabyte', 'token_lm')
UNITS = {
  'word_pooled_char': ('char(limit=0x3000)', {'num_vectors': 2, 'backbone': tiny_word_ar.NARROW}),
  'hat_subword': (None, {}),
}
DOCUMENTS = [
  'In 1914 the 3 towns, naïve cafés and 日本語の本, sat'.encode(),
  b'',
  b'raw \xff\xfe\xc0\xff bytes \xe0\xb8',
  b'q',
]
ROWS = {2: 4, 11: 1, 64: 2}  # of a batch, by the length of a row; every document fits the longest


class Subject:
  """A model and what it reads, by a rule for whole documents."""

  def __init__(self, model):
    self.model = model
    self.words, self.units = (
      parse(spec) if (spec := model.marks.get(name)) else None
      for name, parse in (('words', words.parse), ('units', spelling))
    )

  def marks(self, document):
    """(symbols at which words begin, [(id, its symbols)]) of a document; symbol 0 is BOS."""
    found = [b'\xfe', *(self.words.words(document) if self.words else [document]), b'\xff']
    begin = np.cumsum([0, *map(len, found)]).tolist()
    spelled, at = [], 0
    for index in itertools.chain.from_iterable(map(self.units, found)) if self.units else ():
      spelled.append((index, range(at, at + len(self.units.table[index]))))
      at += len(self.units.table[index])
    return set(begin), spelled

  def naive(self, documents, seq_len, context):
    """(nats of the text, nats of ends, words that begin at a byte that is scored), row by row."""
    marks, symbols = list(map(self.marks, documents)), [[BOS, *document, EOS] for document in documents]
    nats = ends = begun = 0.0
    for row in naive_rows(documents, seq_len, context):
      bytes_L, ids_L, starts_L, units_L = (np.zeros(seq_len, kind) for kind in (np.uint8, np.int32, bool, np.int32))
      is_scored, is_special, units_L = np.zeros(seq_len, bool), np.zeros(seq_len, bool), units_L - 1
      for place, (number, symbol, scored) in enumerate(row):
        bytes_L[place], is_scored[place] = symbols[number][symbol], scored
        is_first = place == 0 or row[place - 1][0] != number
        ids_L[place] = (ids_L[place - 1] if place else 0) + is_first
        starts_L[place] = is_first or symbol in marks[number][0]
        is_special[place] = symbol in (0, len(documents[number]) + 1)
      for number in {number for number, _, _ in row}:
        mine = [(symbol, place) for place, (owner, symbol, _) in enumerate(row) if owner == number]
        scored_from = min((symbol for symbol, place in mine if row[place][2]), default=math.inf)
        for index, of_unit in marks[number][1]:
          paid = [place for symbol, place in mine if symbol in of_unit and of_unit[0] < scored_from <= symbol]
          units_L[paid] = PAID
          here = [
            place for symbol, place in mine if symbol in of_unit and (of_unit[0] >= scored_from or symbol < scored_from)
          ]
          if here:
            units_L[here[-1]] = index
      batch = self.batch(bytes_L, ids_L, starts_L, units_L, is_special)
      (nll, segmentations, _), _ = jax.device_get(_scorer(None)(self.model, batch, None))
      is_eos = np.array([scored and symbol == len(documents[number]) + 1 for number, symbol, scored in row], bool)
      is_eos = np.pad(is_eos, (0, seq_len - len(row)))
      nats += float(nll[0].sum(where=is_scored & ~is_eos, dtype=np.float64))
      ends += float(nll[0].sum(where=is_eos, dtype=np.float64))
      begun += (segmentations[0][0] & is_scored & ~is_eos).sum() if segmentations else 0
    return nats, ends, begun

  def batch(self, *row):
    """One row, and rows of padding."""
    rows = [np.stack([of_row, *[np.zeros_like(of_row)] * (ROWS[len(of_row)] - 1)]) for of_row in row]
    marks = {
      name: of_name for name, of_name in zip(('words', 'units'), rows[2:4], strict=True) if name in self.model.marks
    }
    return Batch(*rows[:2], marks, rows[4])


def spelling(spec):
  """text -> ids, with the `table` of their bytes."""
  if not spec.startswith('tokens'):
    return units.parse(spec)
  found = tokens.parse(spec.partition(',bos=')[0] + ')')
  spell = lambda text: found.tokenizer.encode(text).tolist()
  spell.table = found.table
  return spell


def naive_rows(documents, seq_len, context):
  """Rows of (document, symbol, whether it is scored)."""
  stream = [(number, symbol) for number, document in enumerate(documents) for symbol in range(len(document) + 2)]
  begin = done = 0
  while True:
    end = min(begin + seq_len, len(stream))
    row = [(*stream[at], at >= done and stream[at][1] > 0) for at in range(begin, end)]
    yield row[:-1] if stream[end - 1][1] == 0 else row  # a BOS alone scores nothing: it is in the next row
    if end == len(stream):
      return
    begin, done = max(end - context, end - stream[end][1]), end


@pytest.fixture(scope='module', params=[*BYTES, *WORDS, *UNITS])
def subject(request, tmp_path_factory):
  if request.param in UNITS:
    spelling, changes = UNITS[request.param]
    file = tiny_subwords.write(tmp_path_factory.mktemp('units') / 'subwords.json')
    branch = tiny_word_ar.branch(units=spelling or f'subword(file={file})', **changes)
  else:
    branch = FAMILIES[request.param]
  return Subject(informative(byte_models.build(byte_models.parse(branch), rngs=nnx.Rngs(0))))


def scores(subject, documents, seq_len, context=None):
  """(nats of the text, nats of ends, words or chunks of the text, the context) by `evaluate`."""
  found = evaluate(subject.model, MemoryCorpus(documents), seq_len=seq_len, batch_size=ROWS[seq_len], context=context)
  assert found.text_bytes == sum(map(len, documents))
  nats = found.bits_per_byte * math.log(2) * found.text_bytes, found.eos_bits * math.log(2) * len(documents)
  return *nats, found.text_bytes / found.bytes_per_chunk[0] if found.bytes_per_chunk else 0, found.context


@pytest.mark.parametrize('seq_len, contexts', [(2, [1]), (11, [None, 1, 10])])
def test_rows_of_any_length_and_context_equal_the_loop(subject, seq_len, contexts):
  for context in contexts:
    *found, context = scores(subject, DOCUMENTS, seq_len, context)
    assert found == pytest.approx(subject.naive(DOCUMENTS, seq_len, context), rel=1e-6)


def test_documents_in_one_row_equal_each_document_alone(subject):
  alone = [subject.naive([document], 64, 1) for document in DOCUMENTS]
  assert scores(subject, DOCUMENTS, 64)[:3] == pytest.approx(np.sum(alone, 0).tolist(), rel=1e-6)


def test_boundaries_of_every_family_are_measured(subject):
  spec = subject.words.name if subject.words else 'whitespace(max_bytes=64)'
  corpus = MemoryCorpus(DOCUMENTS)
  found = evaluate(subject.model, corpus, seq_len=64, batch_size=ROWS[64], splitter=spec).boundary_metrics
  assert len(found) == len(subject.model.emits)
  for stage in found:
    assert stage.enrichment > 0 and stage.enrichment_prev > 0 and math.isfinite(stage.enrichment_z)
    assert 0 <= stage.entropy_bits <= 1 and -1 < stage.f_minus_g < 1 <= stage.bytes_per_chunk
    if subject.words:
      assert stage.entropy_bits == stage.f_minus_g == 0
      # A raw byte of the value that ends words is a word of its own.
      assert stage.words_0.recall == 1 and stage.words_0.precision > 0.9 > stage.words_0.random_recall


def test_the_first_byte_of_a_corpus_is_scored_alone(subject):
  found = evaluate(subject.model, MemoryCorpus(DOCUMENTS), seq_len=2, batch_size=ROWS[2], max_bytes=1)
  assert (found.text_bytes, found.documents, found.last_document_cut) == (1, 1, True)
  nats, _, _ = subject.naive([DOCUMENTS[0][:1]], 2, 1)
  assert found.bits_per_byte == pytest.approx(nats / math.log(2), rel=1e-6)


def test_loss_and_gradient_of_tiny_rows_are_finite(subject):
  def loss(model, batch):
    output = model(batch)
    return jnp.sum(output.nll) / jnp.maximum(batch.scored.sum(), 1) + sum(output.aux_losses.values())

  value, corpus = jax.jit(jax.value_and_grad(loss)), MemoryCorpus(DOCUMENTS)

  def batch(seq_len, rows):
    pieces = training_plan(corpus.lengths, seq_len, 0, 0).pieces(np.array(rows, int))
    return training_batch(corpus, pieces, 4, seq_len, subject.model.marks)

  for rows in ([0, 1, 2], [9, 10, 11], []):  # and one of padding, and padding alone
    found, gradient = value(subject.model, batch(2, rows))
    assert np.isfinite(found) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
  for seq_len in (3, 5):  # what is shorter than a convolution or a character shows in the shapes
    jax.eval_shape(value, subject.model, batch(seq_len, [0]))


class OneNat(ByteModel):
  """Every unit costs one nat."""

  words = 'hat(max_bytes=64)'

  def __init__(self, spelling):
    self.scale, self.units = nnx.Param(jnp.ones(())), spelling

  @property
  def marks(self):
    return {'words': self.words, 'units': self.units}

  def __call__(self, batch, *, capacities=None):
    nll = jnp.where(batch.scored & (batch.marks['units'] >= 0), self.scale[...], 0)
    return byte_models.ModelOutput(nll, segmentations=(batch.marks['words'],))


@pytest.mark.parametrize('spelling', ['char(limit=0x3000)', 'subword'])
def test_units_that_rows_cut_are_paid_for_once(spelling, tmp_path):
  if spelling == 'subword':
    spelling = f'subword(file={tiny_subwords.write(tmp_path / "subwords.json")})'
  documents = [tiny_subwords.TEXT, tiny_subwords.TEXT[500:] + b' ' * 200, 'Слово ภาษาไทย '.encode() * 40]
  found = [words.parse(OneNat.words).words(document) for document in documents]
  expected = sum(len(units.parse(spelling)(word)) for of_document in found for word in of_document)
  for seq_len, context in ((2, None), (16, 15), (256, None), (256, 1), (512, None), (4096, None)):
    result = evaluate(OneNat(spelling), MemoryCorpus(documents), seq_len=seq_len, batch_size=8, context=context)
    assert round(result.bits_per_byte * math.log(2) * result.text_bytes, 6) == expected
    assert round(result.eos_bits * math.log(2), 6) == 1
    assert result.text_bytes / result.bytes_per_chunk[0] == sum(map(len, found))
