"""Levels of bytes, and regular expressions, by what the text up to a byte says. AU-Net's own masks: tests/goldens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text import levels, pattern, words

RULES = ['word1'], ['word1', 'word2'], ['word1', 'word2', 'word4'], ['pretok'], ['punct'], ['pretok', 'word2@2-3']
PIECES = [
  'a',
  'Bc',
  ' ',
  '  ',
  '\t',
  '\n',
  '\r\n',
  '.',
  '((',
  '7',
  '12345',
  'é',
  '日本',
  '٣',
  '½',
  '\u3000',
  '\x1c',
  '🙂',
  'e\u0301',
]
BROKEN = [b'\xff', b'\xe6\x97', b'\x80', b'\xed\xa0\x80']
TEXTS = st.lists(st.sampled_from([*map(str.encode, PIECES), *BROKEN]) | st.binary(max_size=2), max_size=12).map(
  b''.join
)


@pytest.mark.parametrize('rules', RULES, ids='+'.join)
@settings(deadline=None, max_examples=150, derandomize=True)
@given(text=TEXTS)
def test_a_level_is_the_published_one_of_the_text_that_ends_there(rules, text):
  found = levels.levels(text, rules)
  for size in range(1, len(text) + 1):
    assert levels.levels(text[:size], rules, published=True)[-1] == found[size - 1]
  np.testing.assert_array_equal(found > 0, np.max([levels.levels(text, [rule]) for rule in rules], 0) > 0)


@pytest.mark.parametrize(
  ('rules', 'text', 'published', 'up_to_a_byte'),
  [
    (['word1'], 'f():\n  \n', '01001100', '01001000'),  # an end of line behind spaces, which are known too early
    (['word1', 'word2'], 'a  \n', '0200', '0100'),
    (['word1', 'word2'], 'ab cd ef  g h ', '00100200100102', '00100200100102'),
    (['word1'], 'é日 x', '0000010', '0000010'),
    (['word1'], '1234..\n\n', '10011010', '10011010'),
    (['pretok'], 'ab  cd', '101100', '101000'),
    (['punct'], '1234', '1100', '1000'),
  ],
)
def test_levels_of_examples(rules, text, published, up_to_a_byte):
  for expected, is_published in ((published, True), (up_to_a_byte, False)):
    found = levels.levels(text.encode(), rules, is_published)
    assert ''.join(map(str, found)) == expected


def test_bytes_of_no_character_are_letters_without_a_level():
  assert levels.levels(b'a\xff b\xe6\x97 ', ['word1', 'word2']).tolist() == [0, 0, 1, 0, 0, 0, 2]
  assert levels.levels(b'', ['word1']).shape == (0,)


WORDS = [
  b"don't ",
  b'3.14',
  b'1,2 ',
  b'A.',
  "x\u0301'".encode(),
  'א"'.encode(),
  '日本'.encode(),
  b' ',
  b'\n',
  b'\xe6\x97',
  b'aB',
]


@pytest.mark.parametrize('kind', ['hat', 'whitespace', 'uax29'])
@settings(deadline=None, max_examples=150, derandomize=True)
@given(
  pieces=st.lists(st.sampled_from(WORDS) | st.text(max_size=3).map(str.encode) | st.binary(max_size=2), max_size=8)
)
def test_a_word_has_ended_with_the_byte_that_closes_it_in_a_stream(kind, pieces):
  document, splitter = b''.join(pieces), words.Splitter(kind, kind, 2**16)
  stream = words.Stream(splitter)
  closes = [bool(stream.push(document[at : at + 1])) for at in range(len(document))]
  np.testing.assert_array_equal(words.ended(splitter, document), np.array(closes, bool))


STABLE = [
  (' ', 'end'),
  (r'\s+', 'start'),
  (r'\w+\s', 'end'),
  ('[,.;] ', 'end'),
  ('def |class ', 'end'),
  (r'\b\w', 'start'),
]
LEAKING = [
  (r'\s+', 'end'), (r'\w+', 'end'), (r'\w(?=\s)', 'end'), (r'[A-Z]\w+', 'start'), (r'\d{1,3}', 'end'), ('x$', 'end'),
  ('import(?= os)', 'end'),
]  # fmt: skip


@pytest.mark.parametrize(('regex', 'side'), STABLE)
def test_a_regex_that_the_text_up_to_a_byte_decides_has_no_leak(regex, side):
  assert pattern.leak(regex, side) == ''


@pytest.mark.parametrize(('regex', 'side'), LEAKING)
def test_a_regex_that_needs_later_bytes_is_found_with_an_example(regex, side):
  assert 'marked in' in pattern.leak(regex, side)


def test_matches_are_marked_at_whole_characters_within_lines():
  found = lambda regex, side, text: np.flatnonzero(pattern.matches(pattern.parse(regex), side, text)).tolist()
  assert found('é.', 'end', 'aéb日é日\né\n'.encode()) == [3, 11]
  assert found('日.', 'start', 'a日b'.encode()) == [3]
  assert found('.*', 'end', b'ab\ncd') == [1, 4] and found('x*', 'end', b'abc') == []
  assert found('.', 'end', b'a\xffb') == [0, 2]
