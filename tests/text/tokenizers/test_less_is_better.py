"""Less-is-Better: longest matches, how two ways are compared, and words that are found in text without spaces."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text.tokenizers import less_is_better
from text.tokenizers.less_is_better import LessIsBetter, Lexicon, greedy


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=30), st.sets(st.binary(min_size=2, max_size=4), max_size=20))
def test_tokens_are_the_longest_matches(word, tokens):
  found, rest = [], word
  while rest:
    found.append(max([rest[:1], *(token for token in tokens if rest.startswith(token))], key=len))
    rest = rest[len(found[-1]) :]
  assert greedy(word, tokens, 4) == found


def judged(entries, text, long, short):
  lexicon = Lexicon(entries, 12)
  lexicon.judge(text, 0, long, short)
  return lexicon._moves


def test_the_way_with_fewer_unknown_characters_then_chunks_then_ranks_wins():
  # 'abc' leaves 'd' unknown, 'ab' goes on with 'cd'
  assert judged(['ab', 'cd', 'abc'], 'abcd', 'abc', 'ab') == [('abc', 1), ('ab', -1)]
  # as many chunks: ranks 0 + 3 against 1 + 2, then the smaller sum
  assert judged(['ab', 'abc', 'cd', 'd'], 'abcd', 'abc', 'ab') == [('abc', 1), ('ab', -1)]
  assert judged(['abc', 'ab', 'd', 'cd'], 'abcd', 'abc', 'ab') == [('abc', -1)]
  # one chunk against two
  assert judged(['abc', 'ab', 'c'], 'abc', 'abc', 'ab') == [('abc', -1)]


def test_entries_move_by_a_share_of_their_rank_and_fall_off_the_end():
  lexicon = Lexicon([str(digit) for digit in range(10)], 12)
  lexicon._moves = [('8', -1), ('9', +1)]  # 8 - (1 + 1) = 6, 9 + (1 + 1) > 10
  lexicon.close()
  assert '9' not in lexicon.ranks and lexicon.ranks['8'] in (6, 7) and lexicon.ranks['0'] == 0


def test_an_entry_on_probation_is_forgotten_unless_it_is_rescued():
  lexicon = Lexicon(['a', 'b', 'c'], 12)
  lexicon.rescue('a')
  for _ in range(less_is_better.LIVES):
    lexicon.rescue('b')
    lexicon.close()
  assert list(lexicon.ranks) == ['a', 'b']


def test_words_without_spaces_are_found():
  rng = random.Random(0)
  words = [''.join(rng.choices('abdefgiklmnoprstu', k=rng.randint(3, 6))) for _ in range(40)]
  weights = [1 / (rank + 1) for rank in range(40)]
  lines = [rng.choices(words, weights, k=6) for _ in range(1500)]
  documents = [''.join(''.join(line) + '\n' for line in lines).encode()]
  tokenizer = LessIsBetter(less_is_better.train(documents, 320, 'lines', 12, 60, 0))
  assert len(tokenizer.vocabulary) == 320
  held_out = [rng.choices(words, weights, k=6) for _ in range(200)]
  hits = found = gold = 0
  for line in held_out:
    ends = set(np.cumsum(list(map(len, line))).tolist()[:-1])
    ours = set(np.cumsum(tokenizer.sizes[tokenizer.encode(''.join(line).encode())]).tolist()[:-1])
    hits, found, gold = hits + len(ends & ours), found + len(ours), gold + len(ends)
  assert 2 * hits / (found + gold) > 0.8


def test_a_text_that_is_too_short():
  with pytest.raises(ValueError, match='vocab_size=400: the text supports only'):
    less_is_better.train([b'ab ab'], 400, 'lines', 12, 2, 0)
