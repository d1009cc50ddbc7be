"""PathPiece against all ways to spell a word, and the estimate by which its vocabulary shrinks."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.text.tokenizers import naive
from text.tokenizers import less_is_better, library, pathpiece, patterns

TOKENS = st.sets(st.text('abc', min_size=2, max_size=5).map(str.encode), max_size=12)
WORDS = st.text('abc', min_size=1, max_size=12).map(str.encode)


def all_ways(word, tokens, length):
  if not word:
    yield []
  for end in range(1, min(len(word), length) + 1):
    if end == 1 or word[:end] in tokens:
      for rest in all_ways(word[end:], tokens, length):
        yield [word[:end], *rest]


def encode(word, tokens, length=16):
  return pathpiece.spelled(word, pathpiece.shortest(word, tokens, length)[1])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(WORDS, TOKENS, st.sampled_from([3, 16]))
def test_it_is_the_best_of_all_ways(word, tokens, length):
  ways = list(all_ways(word, tokens, length))
  fewest = min(map(len, ways))
  best = max((way for way in ways if len(way) == fewest), key=lambda way: [len(token) for token in way[::-1]])
  assert encode(word, tokens, length) == best
  assert fewest <= len(less_is_better.greedy(word, tokens, length))
  for token in tokens:
    assert len(encode(word, tokens - {token}, length)) >= fewest


def test_it_needs_no_more_tokens_than_the_bpe_of_its_vocabulary():
  documents = naive.documents(0)
  settings = pathpiece.train(documents, 340, 'gpt4', 16, 'bpe', 0)
  bpe = library.bpe(documents, 340, patterns.PATTERNS['gpt4'], 16)
  ours = pathpiece.PathPiece(settings)
  assert set(ours.vocabulary[256:]) == set(library.tokens(bpe))
  for document in naive.documents(1):
    assert len(ours.encode(document)) <= len(bpe.encode(document.decode()).ids)


def test_the_increase_of_a_word_is_mostly_the_true_one():
  """It is an estimate: below the truth where the token returns on the way around it, above where one way serves two."""
  rng, equal, cases = random.Random(0), 0, 0
  for _ in range(150):
    tokens = {''.join(rng.choices('abc', k=rng.randint(2, 4))).encode() for _ in range(10)}
    word = ''.join(rng.choices('abc', k=10)).encode()
    fewest = len(encode(word, tokens))
    costs = pathpiece.increases({word: 3}, tokens, 16)
    for token in tokens:
      truth = 3 * (len(encode(word, tokens - {token})) - fewest)
      if token in encode(word, tokens):
        cases, equal = cases + 1, equal + (costs[token] == truth)
  assert cases > 300 and equal > 0.8 * cases


@pytest.mark.parametrize('start', pathpiece.START)
def test_the_vocabulary_shrinks_to_its_size(start):
  documents = naive.documents(2)
  counts = []
  for size in (370, 335, 300):
    tokenizer = pathpiece.PathPiece(pathpiece.train(documents, size, 'gpt4', 8, start, 380))
    assert len(tokenizer.vocabulary) == size and max(map(len, tokenizer.vocabulary)) <= 8
    counts.append(sum(len(tokenizer.encode(document)) for document in documents))
  assert counts == sorted(counts)


@pytest.mark.parametrize(
  ('arguments', 'sentence'),
  [
    ((1, 'bpe', 0), 'length=1 must be at least 2'),
    ((16, 'words', 0), "start='words' is not known: use one of bpe, ngrams"),
    ((16, 'bpe', 300), 'start_size=300 is below vocab_size=340'),
    ((16, 'ngrams', 0), 'needs a start_size above vocab_size'),
    ((16, 'ngrams', 99999), 'vocab_size=99999: the text supports only'),
  ],
)
def test_arguments_that_do_not_fit(arguments, sentence):
  with pytest.raises(ValueError, match=sentence):
    pathpiece.train(naive.documents(0), 340, 'gpt4', *arguments)
