"""Picky BPE and BoundlessBPE against trainers and encoders that count and replay everything."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.tiny_subwords import PIECES
from tests.text.tokenizers import naive
from text.tokenizers import boundless, library, patterns, picky, rules

CUT = patterns.cutter(patterns.PATTERNS['gpt4'])
SEEDS, SIZE = range(4), 370


def tokens_of(tokenizer, document):
  return [tokenizer.vocabulary[index] for index in tokenizer.encode(document)]


def case(kind, seed, size=SIZE, threshold=0.7):
  documents = naive.documents(seed)
  if kind == 'picky':
    found = picky.train(documents, size, 'gpt4', threshold)
    return documents, found, picky.Picky(found)
  found = boundless.train(documents, size, 'gpt4', threshold, True)
  return documents, found, boundless.Boundless(found)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('kind', ['picky', 'boundlessbpe'])
def test_the_trainer_is_the_naive_one_and_replay_gives_its_segmentation(kind, seed):
  documents, found, tokenizer = case(kind, seed)
  is_boundless = kind == 'boundlessbpe'
  texts = [CUT(document) for document in documents]
  events, vocabulary, segmented = naive.train(texts, SIZE, 0.7, to_bytes=is_boundless, superwords=is_boundless)
  assert [tuple(event) for event in rules.read(found['events'])] == events
  assert list(tokenizer.vocabulary) == [*rules.BYTES, *vocabulary] and len(tokenizer.vocabulary) == SIZE
  assert [tokens_of(tokenizer, document) for document in documents] == segmented


def test_all_kinds_of_events_happen():
  kinds = [
    {event[0] for event in case(kind, seed)[1]['events']} for kind in ('picky', 'boundlessbpe') for seed in SEEDS
  ]
  assert set.union(*kinds[: len(SEEDS)]) == {'merge', 'split'}
  assert set.union(*kinds[len(SEEDS) :]) == {'merge', 'split', 'super'}


@pytest.fixture(scope='module', params=['picky', 'boundlessbpe'])
def trained(request):
  return case(request.param, 3)


WORDS = st.lists(
  st.one_of(PIECES, st.sampled_from([s.encode() for s in naive.SYLLABLES]), st.sampled_from([b' ', b' ', b'. '])),
  max_size=30,
).map(b''.join)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(WORDS)
def test_the_encoder_is_the_replay_of_events_on_any_bytes(trained, document):
  _, found, tokenizer = trained
  ids = tokenizer.encode(document)
  assert tokenizer.decode(ids) == document
  assert [tokenizer.vocabulary[index] for index in ids] == naive.replay(rules.read(found['events']), CUT(document))
  reached = {0}
  for index in ids:
    reached.add(max(reached) + len(tokenizer.vocabulary[index]))
  assert set(tokenizer.pretokens(document).tolist()) <= reached


@pytest.mark.parametrize('seed', SEEDS)
def test_without_removal_and_superwords_both_are_the_librarys_bpe(seed):
  documents = naive.documents(seed)
  merges = json.loads(library.bpe(documents, SIZE, patterns.PATTERNS['gpt4']).to_str())['model']['merges']
  for found in (
    picky.train(documents, SIZE, 'gpt4', 1.1),
    boundless.train(documents, SIZE, 'gpt4', 1.1, False),
  ):
    assert [event[1:] for event in found['events']] == merges


@pytest.mark.parametrize('seed', SEEDS)
def test_superwords_need_no_more_tokens_than_bpe(seed):
  documents = naive.documents(seed)
  counts = []
  for superwords in (False, True):
    tokenizer = boundless.Boundless(boundless.train(documents, SIZE, 'gpt4', 1.1, superwords))
    counts.append(sum(len(tokenizer.encode(document)) for document in documents))
  assert counts[1] < counts[0]


JOINING = [' a', ' the', '_x', "don't", ' e\u0301', '日本']
APART = ['a', ' 1', 'é', '\u0301ab', 'a-b', '  ', ' \n']


@pytest.mark.parametrize('word', [*JOINING, *APART])
def test_which_pretokens_join_others(word):
  assert boundless.joins(word.encode()) == (word in JOINING) and not boundless.joins(b'\xff')


@pytest.mark.parametrize('kind', ['picky', 'boundlessbpe'])
def test_a_vocabulary_larger_than_the_text_supports(kind):
  with pytest.raises(ValueError, match=r'vocab_size=5000: the text supports only \d+ tokens: ask for fewer'):
    case(kind, 0, size=5000)
