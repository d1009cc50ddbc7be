"""Words: the published rule, any bytes, the cap, prefixes that never change, marks in batches."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
from hat_splitter import HATSplitter
from hypothesis import given, settings
from hypothesis import strategies as st
from unicode_segmentation_rs import split_word_bounds

import text
from text import marks, words

KINDS = ['hat', 'whitespace', 'uax29', 'fixed']
PIECES = [
  *'aBcZß1 .,\'"_-:;+$ªא한クあ漢ภा€\u0301\u00ad\u200d\u2044\u202f\xa0\u3000\u2003\u0085\t\n',
  *('  ', '\r\n', '\r', '12345678901234567890', 'camelCase', "don't", '3.14', '1\u20442', ' \u202fa', '.\u0301b'),
  *('ภาษาไทย', '你好，', '안녕 ', 'नमस्ते', 'שלום"א', 'カタカナ', '👍🏽', '👩\u200d👩\u200d👧', '🇩🇪🇫🇷', '🇬', 'x' * 12),
]
CHARACTERS = st.lists(st.sampled_from(PIECES), max_size=9).map(''.join)
BROKEN = [
  b'\xff',
  b'\xfe',
  b'\xe2\x82',
  b'\xf0\x9f\x98',
  b'\xc3',
  b'\x80',
  b'\xed\xa0\x80',
  b'\xe0',
  b'\xf4\x90',
  b'\0',
]
BYTES = st.lists(
  st.one_of(st.sampled_from([piece.encode() for piece in PIECES]), st.sampled_from(BROKEN)), max_size=9
).map(b''.join)
MANY = settings(max_examples=150, deadline=None)


def splitter(kind, limit=64) -> words.Splitter:
  return words.parse(f'{kind}({"size" if kind == "fixed" else "max_bytes"}={limit})')


def cut(document: bytes, ends) -> list[bytes]:
  return [document[start:end] for start, end in itertools.pairwise([0, *ends])]


@pytest.mark.parametrize(
  'whole',
  [
    'Hello,| world!',
    'a|  |b',
    'a|\t|\n|\n|\r\n|b',
    'a|\xa0|b|\u3000|c',
    '    |return| x|+|1',
    '0123456789',
    '3.|14| 1,|000',
    "don'|t",
    'this|Is|Camel| HTTPServer| XMLHttp|Request',
    'snake_|case',
    '你|好|吗，',
    '漢|字|ひ|ら|カタカナ',
    '안녕| 세상| Привет| мир| नमस्ते',
    'ภ|า|ษ|า',
    '👩\u200d👩\u200d👧|👍🏽|🇩🇪|🇫🇷',
    'https://|a.|b/|c?|d|=|e',
  ],
)
def test_hat_splits_as_published(whole):
  document = whole.replace('|', '').encode()
  assert cut(document, splitter('hat')(document)) == [word.encode() for word in whole.split('|')]


@MANY
@given(CHARACTERS, st.integers(1, 20))
def test_hat_is_its_library_but_where_that_looks_ahead(characters, limit):
  for strange in '\u2044\u202f\xa0\t':
    characters = characters.replace(strange, '')
  document = characters.encode()
  assert cut(document, splitter('hat', limit)(document)) == HATSplitter().split_with_limit(characters, limit)


def test_hat_differs_where_its_library_takes_a_word_back():
  split = HATSplitter().split
  for characters, known, later in (('1\u20442', 2, ['1', '\u2044', '2']), (' \u202fa', 2, [' ', '\u202fa'])):
    assert split(characters[:known]) == [*characters[:known]] and split(characters) == [characters]
    assert cut(characters, words.hat(characters)) == later


@pytest.mark.parametrize(
  'whole',
  [
    "can't| |stop|,| |3.14| |e.g",
    'a_b| |שלום"א|"| ',
    '🇩🇪|🇫🇷|🇬',
    'x\u0301\u200d👩\u200d👧|\r\n|\n|  |カナ|漢|字',
    '.|a|:| |b',
  ],
)
def test_uax29_follows_the_standard(whole):
  document = whole.replace('|', '').encode()
  assert cut(document, splitter('uax29')(document)) == [word.encode() for word in whole.split('|')]


@MANY
@given(st.lists(st.sampled_from('ªא漢字क्\u0301\u200d👩🇩👍カ1\n€'), max_size=12).map(''.join))
def test_uax29_is_the_first_step_of_hat_where_that_shows(characters):
  np.testing.assert_array_equal(words.uax29(characters), words.hat(characters))
  assert cut(characters, words.uax29(characters)) == split_word_bounds(characters)


@MANY
@given(CHARACTERS)
def test_whitespace_ends_words_behind_white_space(characters):
  is_white = [c.isspace() for c in characters]
  expected = [i for i in range(1, len(characters)) if is_white[i - 1] and not is_white[i]] + [len(characters)]
  assert words.whitespace(characters).tolist() == expected * bool(characters)


def test_information_separators_are_no_white_space():
  assert words.whitespace('a\x1cb\x1f c').tolist() == [5, 6]


@pytest.mark.parametrize('kind', KINDS)
@MANY
@given(document=st.one_of(BYTES, st.binary(max_size=40)), limit=st.integers(1, 20))
def test_words_lose_nothing_and_keep_the_cap(kind, document, limit):
  ends = splitter(kind, limit)(document)
  assert ends.dtype == np.int64 and b''.join(cut(document, ends)) == document
  sizes = np.diff(ends, prepend=0)
  assert (sizes > 0).all() and (sizes <= limit).all() and len(ends) >= len(document) / limit


@MANY
@given(document=BYTES, limit=st.integers(4, 12))
def test_the_cap_cuts_between_characters(document, limit):
  for kind in ('hat', 'whitespace', 'uax29'):
    ends = splitter(kind, limit)(document)
    assert all(not _is_within_character(document, end) for end in ends[:-1])


def _is_within_character(document, place):
  """Whether a character of UTF-8 lies around `place`."""
  for start, end in itertools.product(range(max(place - 3, 0), place), range(place + 1, place + 4)):
    try:
      if len(document[start:end].decode()) == 1 and end <= len(document):
        return True
    except UnicodeDecodeError:
      pass
  return False


@pytest.mark.parametrize(
  'document, expected',
  [
    (b'caf\xe9 au', [b'caf\xe9', b' au']),
    (b'\xff\xfe\xe2\x82\n\xc3', [b'\xff\xfe\xe2\x82', b'\n\xc3']),
    (b'a\xe2\x82', [b'a\xe2\x82']),
    (b'\xe2', [b'\xe2']),
    (b'', []),
  ],
)
def test_bytes_outside_utf8_are_letters_and_unfinished_ones_stay_in_the_last_word(document, expected):
  assert cut(document, splitter('hat')(document)) == expected


# --- streaming


@pytest.mark.parametrize('kind', ['hat', 'whitespace', 'fixed'])
@MANY
@given(document=BYTES, limit=st.integers(1, 16))
def test_all_words_of_a_prefix_but_the_last_are_those_of_the_text(kind, document, limit):
  split = splitter(kind, limit)
  assert split.causal
  ends = split(document).tolist()
  for stop in range(len(document) + 1):
    known = split(document[:stop])[:-1].tolist()
    assert known == ends[: len(known)]
    if not _unfinished(document[:stop]):  # a character that is there begins a word now or never
      assert known == [end for end in ends if end < stop]


def _unfinished(document):
  return any(document[len(document) - size :] and _begins(document[len(document) - size :]) for size in (1, 2, 3))


def _begins(part):
  """Whether bytes could be the beginning of one character."""
  sizes = {0xC: 2, 0xD: 2, 0xE: 3, 0xF: 4}
  return len(part) < sizes.get(part[0] >> 4, 1) and all(byte >> 6 == 2 for byte in part[1:])


@MANY
@given(document=BYTES, limit=st.integers(1, 64))
def test_uax29_keeps_its_words_but_the_last_and_the_parts_of_finished_ones(document, limit):
  split = splitter('uax29', limit)
  whole, ends = split.uncapped(document)[0].tolist(), split(document).tolist()
  for stop in range(len(document) + 1):
    finished = split.uncapped(document[:stop])[0][:-1].tolist()
    assert finished == whole[: len(finished)]
    known = [end for end in split(document[:stop]).tolist() if finished and end <= finished[-1]]
    assert known == ends[: len(known)]
  assert not split.causal  # "don't": whether ' begins a word is known with the character after it


@MANY
@given(document=BYTES)
def test_uax29_below_the_cap_keeps_all_words_but_the_last(document):
  split = splitter('uax29', 200)
  ends = split(document).tolist()
  for stop in range(len(document) + 1):
    known = split(document[:stop])[:-1].tolist()
    assert known == ends[: len(known)]


@pytest.mark.parametrize('kind', KINDS)
@MANY
@given(document=BYTES, limit=st.integers(1, 20), data=st.data())
def test_a_stream_closes_the_words_of_the_whole_text(kind, document, limit, data):
  split = splitter(kind, limit)
  stream, closed, rest = words.Stream(split), [], document
  while rest:
    size = data.draw(st.integers(1, 4))
    closed += stream.push(rest[:size])
    rest = rest[size:]
    assert b''.join(closed) + stream.open == document[: len(document) - len(rest)]
  expected = cut(document, split(document))
  assert closed == expected[: len(closed)]
  if kind != 'uax29':
    assert closed == expected[:-1]
  assert closed + stream.close() == expected == split.words(document)
  assert stream.close() == [] and stream.open == b''


def test_a_stream_knows_a_word_as_soon_as_the_next_one_begins():
  stream = words.Stream(splitter('hat', 8))
  assert [stream.push(bytes([byte])) for byte in 'ab €2'.encode()] == [[], [], [b'ab'], [], [], [], [b' \xe2\x82\xac']]
  assert stream.open == b'2' and stream.push(b'3456789') == [] and stream.push(b'0') == [b'23456789']


@MANY
@given(document=BYTES)
def test_splitting_anew_from_a_word_gives_the_same_words(document):
  for kind in ('whitespace', 'uax29'):
    split = splitter(kind, 200)
    ends = split(document)
    for index, end in enumerate(ends):
      np.testing.assert_array_equal(end + split(document[end:]), ends[index + 1 :])


def test_splitting_anew_differs_behind_a_full_stop_with_a_mark_and_within_a_long_word():
  assert cut('a.\u0301b', words.hat('a.\u0301b')) == ['a.', '\u0301b']
  assert cut('\u0301b', words.hat('\u0301b')) == ['\u0301', 'b']
  assert cut(b'   b', splitter('hat', 2)(b'   b')) == [b'  ', b' ', b'b']
  assert cut(b' b', splitter('hat', 2)(b' b')) == [b' b']


# --- specifications


@pytest.mark.parametrize(
  'spec, sentence',
  [
    ('bpe', "splitter 'bpe' is not known: use one of hat, whitespace, uax29, fixed, e.g. 'hat'"),
    ('hat(max_bytes=0)', "splitter 'hat(max_bytes=0)': max_bytes=0 must be at least 1, words have bytes"),
    ('fixed(size=0)', "splitter 'fixed(size=0)': size=0 must be at least 1, words have bytes"),
    ('fixed(max_bytes=8)', "splitter 'fixed(max_bytes=8)' has no argument 'max_bytes': fixed takes size"),
    ('hat(max_bytes=x)', "splitter 'hat(max_bytes=x)': max_bytes='x' is not a whole number"),
  ],
)
def test_a_splitter_that_cannot_be_is_refused_in_a_sentence(spec, sentence):
  with pytest.raises(ValueError) as error:
    words.parse(spec)
  assert str(error.value) == sentence


def test_a_specification_names_all_arguments():
  assert [words.parse(kind).name for kind in KINDS] == [
    'hat(max_bytes=64)',
    'whitespace(max_bytes=64)',
    'uax29(max_bytes=64)',
    'fixed(size=8)',
  ]
  assert pickle.loads(pickle.dumps(words.parse('hat'))) == words.parse('hat( max_bytes = 64 )')


# --- batches


@pytest.mark.parametrize('kind', KINDS)
@MANY
@given(rows=st.lists(st.lists(st.tuples(BYTES, st.booleans(), st.booleans()), max_size=3), min_size=1, max_size=3))
def test_marks_equal_a_loop_over_segments(kind, rows):
  rows = [[b'\xfe' * bos + part + b'\xff' * eos for part, bos, eos in row if part or bos or eos] for row in rows]
  length = 3 + max(sum(map(len, row)) for row in rows)
  bytes_BxL, segment_ids_BxL = np.zeros((len(rows), length), np.uint8), np.zeros((len(rows), length), np.int32)
  expected = np.zeros((len(rows), length), bool)
  for index, row in enumerate(rows):
    at = 0
    for number, segment in enumerate(row):
      place = slice(at, at + len(segment))
      bytes_BxL[index, place], segment_ids_BxL[index, place] = np.frombuffer(segment, np.uint8), number + 1
      parts = []
      if segment[:1] == b'\xfe':
        parts, segment = [segment[:1]], segment[1:]
      last = [segment[-1:]] if segment[-1:] == b'\xff' else []
      segment = segment[: len(segment) - len(last)]
      for word in [*parts, *cut(segment, splitter(kind, 8)(segment)), *last]:
        expected[index, at] = True
        at += len(word)
  batch = marks.mark(text.Batch(bytes_BxL, segment_ids_BxL), {'words': splitter(kind, 8).name})
  np.testing.assert_array_equal(batch.marks['words'], expected)
  assert batch.marks['words'].dtype == bool and batch.bytes is bytes_BxL and batch.segment_ids is segment_ids_BxL


def test_the_values_of_bos_and_eos_in_text_that_a_row_cuts_are_marked_as_text():
  rows = text.Batch.of([b'\xfeab\xff', b'ab\xff'])
  for specials, expected in (([[0], []], [[0, 1], [0]]), ([[], [2]], [[0], [0, 2]])):
    is_special = np.zeros(rows.bytes.shape, bool)
    for row, places in enumerate(specials):
      is_special[row, places] = True
    starts = marks.mark(dataclasses.replace(rows, specials=is_special), {'words': 'whitespace'}).marks['words']
    assert [np.flatnonzero(row).tolist() for row in starts] == expected
