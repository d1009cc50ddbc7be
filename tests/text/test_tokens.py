"""The mark `tokens`: those of the document wherever rows cut it, each paid for once; and what cannot be used."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.byte_models import tiny_token_lm
from tests.text import tiny_subwords
from text import BOS, EOS, Batch, MemoryCorpus, marks, pipeline, rows, tokens
from text.mixture import MixedRows, Mixture
from text.packing import training_plan

DOCUMENTS = [
  tiny_subwords.TEXT[:700],
  'the 🙂🙂🙃 日本語の文章 naïve'.encode() + b' \xff\xfe raw \xe6\x97',
  b'',
  b'the towns ' * 9,
]


@pytest.fixture(scope='module')
def found():
  return tokens.parse(tokens.in_file(tiny_token_lm.tokenizer(), ''))


def in_rows(documents, batches):
  """What rows pay for, document by document in order: the tokens that stand where it is scored."""
  paid = {number: [] for number in range(len(documents))}
  for batch, pieces in batches:
    done = [0] * len(batch.bytes)  # symbols of each row
    for row, document, start, stop, first in zip(*map(np.ndarray.tolist, pieces), strict=True):
      values = batch.marks['units'][row, done[row] : done[row] + stop - start]
      done[row] += stop - start
      assert (values[: first - start] != marks.PAID).all() and (values >= marks.PAID).all()
      paid[document] += [(at, int(values[at - start])) for at in range(first, stop) if values[at - start] >= 0]
  return {number: [index for _, index in sorted(of_document)] for number, of_document in paid.items()}


def canonical(found, documents):
  ids = lambda document: [*found.tokenizer.encode(document).tolist(), found.special(EOS)]
  return dict(enumerate(map(ids, documents)))


@pytest.mark.parametrize('seq_len, context', [(2, 1), (3, 1), (5, 4), (16, None), (64, 1), (64, 60), (2048, None)])
def test_rows_for_evaluation_pay_for_every_token_of_the_documents_once(found, seq_len, context):
  batches = rows.evaluation_batches(
    MemoryCorpus(DOCUMENTS), seq_len=seq_len, batch_size=3, marks={'units': found.name}, context=context
  )
  assert in_rows(DOCUMENTS, ((b.batch, b.pieces) for b in batches)) == canonical(found, DOCUMENTS)


@pytest.mark.parametrize('seq_len', [2, 7, 64, 512])
@pytest.mark.parametrize('options', ['', ',stochastok=0.5', ',dropout=0.5'])
def test_rows_for_training_pay_for_every_byte_once_whatever_is_drawn(found, seq_len, options):
  corpus, plan = MemoryCorpus(DOCUMENTS), None
  plan = training_plan(corpus.lengths, seq_len, 0, 0)
  pieces = plan.pieces(np.arange(len(plan)))
  spec = {'units': f'{found.name[:-1]}{options})'}
  keys = [(0, row) for row in range(len(plan))]
  batch = rows.training_batch(corpus, pieces, len(plan), seq_len, spec, keys)
  paid = in_rows(DOCUMENTS, [(batch, pieces)])
  table, expected = found.table, canonical(found, DOCUMENTS)
  for number, document in enumerate(DOCUMENTS):
    assert b''.join(table[index] for index in paid[number][:-1]) == document
  if options and seq_len > 64:
    assert sum(map(len, paid.values())) > 1.1 * sum(map(len, expected.values()))
  elif not options:
    assert paid == expected


def test_what_is_drawn_hangs_on_the_seed_and_the_row_alone(found):
  spec = {'units': f'{found.name[:-1]},stochastok=0.5)'}
  stream = lambda seed: MixedRows(Mixture([MemoryCorpus(DOCUMENTS)]), 64, seed)
  whole = stream(3).batch(0, 40, spec).marks['units']
  for first, count in ((0, 1), (7, 3), (11, 29)):
    np.testing.assert_array_equal(stream(3).batch(first, count, spec).marks['units'], whole[first : first + count])
  corpus = MemoryCorpus(DOCUMENTS)
  pieces = training_plan(corpus.lengths, 64, 0, 0).pieces(np.arange(4))
  of = lambda *keys: rows.training_batch(corpus, pieces, 4, 64, spec, [(*keys, row) for row in range(4)]).marks['units']
  np.testing.assert_array_equal(of(0), of(0))
  assert (of(0) != of(1)).any(1).all()


def test_documents_longer_than_a_stretch_are_cut_there_in_training_alone(found, monkeypatch):
  monkeypatch.setattr(rows, 'STRETCH', 100)
  document = DOCUMENTS[0]
  corpus = MemoryCorpus([document])
  plan = training_plan(corpus.lengths, 64, 0, 0)
  pieces = plan.pieces(np.arange(len(plan)))
  batch = rows.training_batch(corpus, pieces, len(plan), 64, {'units': found.name})
  stretches = [document[at : at + 100] for at in range(0, len(document), 100)]
  expected = [index for part in stretches for index in found.tokenizer.encode(part).tolist()]
  assert in_rows([document], [(batch, pieces)])[0] == [*expected, found.special(EOS)]


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
  documents=st.lists(tiny_subwords.WORDS, min_size=1, max_size=3), seq_len=st.integers(2, 20), context=st.booleans()
)
def test_rows_of_any_text_and_length_pay_for_every_token_once(found, documents, seq_len, context):
  batches = rows.evaluation_batches(
    MemoryCorpus(documents),
    seq_len=seq_len,
    batch_size=2,
    marks={'units': found.name},
    context=seq_len - 1 if context else 1,
  )
  assert in_rows(documents, ((b.batch, b.pieces) for b in batches)) == canonical(found, documents)


def test_bos_and_eos_are_tokens_of_their_own(found):
  batch = marks.mark(Batch.of([bytes([BOS]) + b'the' + bytes([EOS])]), {'units': f'{found.name[:-1]},bos=5,eos=7)'})
  assert [index for index in batch.marks['units'][0].tolist() if index >= 0] == [5, *found(b'the').ids_N, 7]


class Losing:
  """A tokenizer that leaves the last byte out."""

  vocabulary, digest, path = tuple(bytes([value]) for value in range(256)), 'aa', 'losing'

  def encode(self, document):
    return np.frombuffer(document[:-1], np.uint8).astype(np.int32)


def test_what_cannot_be_used_is_one_sentence(found, tmp_path):
  name = tokens.hold(Losing(), 'losing')
  for action, sentence in (
    (lambda: marks.parse({'units': 'tokens'}), ' names no tokenizer: '),
    (lambda: tokens.parse('tokens(file=nothing)'), "tokenizer 'nothing': there is no such file"),
    (lambda: tokens.parse(tokens.in_file(found.file, '123')), 'there is another tokenizer, with digest'),
    (lambda: marks.mark(Batch.of([b'abc']), {'units': name}), "those of 'losing' do not spell b'abc' byte for byte"),
    (
      lambda: pipeline(MemoryCorpus(DOCUMENTS), batch_size=1, seq_len=3, seed=0, marks={'units': found.name}),
      r'seq_len=3: .* has a token of \d+ bytes, .*: use longer rows',
    ),
  ):
    with pytest.raises((ValueError, OSError), match=sentence) as error:
      action()
    assert '\n' not in str(error.value)


def test_a_changed_file_is_read_anew_and_a_copy_is_whole(tmp_path):
  directory = tiny_token_lm.write(tmp_path / 'bpe')
  name = tokens.parse(tokens.in_file(directory, '')).name
  tokens.copy(directory, tmp_path / 'copy.json')
  assert tokens.parse(tokens.in_file(tmp_path / 'copy.json', tokens.file_of(name)[1]))
  tiny_token_lm.write(tmp_path / 'bpe', vocabulary=280)
  with pytest.raises(ValueError, match='there is another tokenizer'):
    tokens.parse(name)
  tokens.copy(directory / 'tokenizer.json', tmp_path / 'copy.json')
  assert len(json.loads((tmp_path / 'copy.json').read_text())['model']['vocab']) == 280
