"""What the library trains: its files give the same ids here and there, and naive encoders agree."""

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.text.tiny_subwords import PIECES
from tests.text.tokenizers import naive
from text import tokenizers, units
from text.tokenizers import library, patterns, superbpe, training

SIZE = 340
SPECS = ['bpe', 'bpe(pattern=none)', 'char_bpe(length=6)', 'unigram', 'superbpe(first=0.9)']
DOCUMENTS = st.lists(
  st.one_of(PIECES, st.sampled_from([*(s.encode() for s in naive.SYLLABLES), b' ', b'. ', b'<s>'])), max_size=30
).map(b''.join)


@pytest.fixture(scope='module', params=SPECS)
def pair(request):
  """(of the library, ours) from one file."""
  file, content = training.train(request.param, naive.documents(0), SIZE, ['<s>'])
  assert file == 'tokenizer.json'
  library_ = Tokenizer.from_str(content)
  library_.encode_special_tokens = True
  return library_, tokenizers.Stock(content.encode())


@settings(max_examples=50, deadline=None, derandomize=True)
@given(DOCUMENTS)
def test_a_file_gives_the_same_ids_in_the_library(pair, document):
  theirs, ours = pair
  ids = ours.encode(document)
  assert ours.decode(ids) == document and ours.missing == () and len(ours.vocabulary) == SIZE
  text = document.decode('utf-8', 'ignore')
  assert theirs.encode(text).ids == ours.encode(text.encode()).tolist()
  assert theirs.decode(ours.encode(text.encode())) == text


def merges_of(tokenizer):
  return [tuple(map(units.unwritten, pair)) for pair in json.loads(tokenizer.to_str())['model']['merges']]


def merged(word, merges):
  tokens = [bytes([byte]) for byte in word]
  for pair in merges:
    tokens = naive.merge(tokens, pair)
  return tokens


@pytest.mark.parametrize('seed', range(3))
def test_superbpe_is_two_stages_one_after_the_other(seed):
  documents = [*naive.documents(seed), b'a: b: c: d, 1234 \xf0\x9f\x99\x82!!\n\n  x \xff the the the']
  first = library.bpe(documents, 310, patterns.PATTERNS['gpt4'])
  tokenizer = superbpe.train(documents, SIZE, 'gpt4', 310 / SIZE, 4)
  before, all_ = merges_of(first), merges_of(tokenizer)
  assert all_[: len(before)] == before
  ours, cut = tokenizers.Stock(tokenizer.to_str().encode()), patterns.cutter(superbpe.SECOND)
  for document in documents + naive.documents(seed + 100, 2):
    staged = [merged(word, before) for word in cut(document)]
    for pair in all_[len(before) :]:
      staged = [naive.merge(tokens, pair) for tokens in staged]
    assert [ours.vocabulary[index] for index in ours.encode(document)] == list(itertools.chain.from_iterable(staged))


def test_the_second_stage_of_superbpe_is_bpe_on_the_tokens_of_the_first():
  """Counted anew at every step, where no merge is left out."""
  documents = [document.decode().replace(':', '').encode() for document in naive.documents(5)]
  cut = patterns.cutter(superbpe.SECOND)
  tokenizer = superbpe.train(documents, SIZE, 'gpt4', 300 / SIZE, 99)
  first = library.bpe(documents, 300, patterns.PATTERNS['gpt4'])
  words = [merged(word, merges_of(first)) for document in documents for word in cut(document)]
  names, new = first.get_vocab(), []
  number = {units.unwritten(name): index for name, index in names.items()}
  for _ in range(SIZE - 300):
    counts = {}
    for tokens in words:
      for pair in itertools.pairwise(tokens):
        counts[pair] = counts.get(pair, 0) + 1
    best = min(counts, key=lambda pair: (-counts[pair], number[pair[0]], number[pair[1]]))
    new.append(best)
    number.setdefault(best[0] + best[1], len(number))
    words = [naive.merge(tokens, best) for tokens in words]
  assert merges_of(tokenizer)[len(merges_of(first)) :] == new


def test_superbpe_has_fewer_tokens_of_longer_text_within_its_limits():
  documents = [document.replace(b', ', b': ') for document in naive.documents(1)]
  counts = {}
  for words in (2, 4):
    found = tokenizers.Stock(superbpe.train(documents, 420, 'gpt4', 0.8, words).to_str().encode())
    tokens = [token for token in found.vocabulary if len(token.split()) > 1]
    assert tokens and all(len(token.split()) <= words and b': ' not in token for token in found.vocabulary)
    counts[words] = sum(len(found.encode(document)) for document in documents)
  bpe = tokenizers.Stock(library.bpe(documents, 420, patterns.PATTERNS['gpt4']).to_str().encode())
  assert counts[4] <= counts[2] < sum(len(bpe.encode(document)) for document in documents)


@pytest.mark.parametrize('length', [2, 3, 4])
def test_no_token_of_char_bpe_is_longer_than_asked(length):
  _, content = training.train(f'char_bpe(length={length})', naive.documents(2), 270)
  assert max(map(len, tokenizers.Stock(content.encode()).vocabulary)) == length


def test_unigram_takes_the_likeliest_tokens():
  _, content = training.train('unigram', naive.documents(3), SIZE)
  scores = {units.unwritten(name): score for name, score in json.loads(content)['model']['vocab']}
  ours = tokenizers.Stock(content.encode())
  for word in patterns.cutter(patterns.PATTERNS['gpt4'])(naive.documents(4)[0]):
    best = [0.0, *(-math.inf for _ in word)]
    for end in range(1, len(word) + 1):
      best[end] = max(best[start] + scores.get(word[start:end], -math.inf) for start in range(end))
    assert sum(scores[ours.vocabulary[index]] for index in ours.encode(word)) == pytest.approx(best[-1])
