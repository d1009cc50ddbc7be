import pickle
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text import noise

PAIRS = [(b'teh', b'the'), (b'hte', b'the'), (b'recieve', b'receive'), ('naïeve'.encode(), 'naïve'.encode())]
SPECS = [
  'antspeak',
  'drop',
  'random_case',
  'repeat',
  'upper_case',
  'permute_in_words',
  'replace_in_words',
  'delete_in_words',
  'misspell',
]
DOCUMENTS = st.one_of(
  st.binary(max_size=60),
  st.text(max_size=40).map(str.encode),
  st.text('the aß\u4e2d\N{GRINNING FACE}\u0130 ', max_size=40).map(str.encode),
  st.tuples(st.text(max_size=10).map(str.encode), st.binary(max_size=4), st.text(max_size=10).map(str.encode)).map(
    b''.join
  ),
)
ENGLISH = 'The quick brown fox jumps over the lazy dog, and no one will receive it.\n' * 200


def make(spec):
  return noise.parse(spec, pairs=PAIRS if spec.startswith('misspell') else None)


def noisy(spec, text=ENGLISH, index=0):
  return make(spec)(text.encode(), index).decode()


@pytest.mark.parametrize('spec', SPECS)
@settings(deadline=None, max_examples=60)
@given(DOCUMENTS, st.integers(0, 2**64 - 1))
def test_any_bytes_stay_a_document_and_depend_on_seed_and_index_alone(spec, document, index):
  perturb = make(spec)
  got = perturb(document, index)
  assert isinstance(got, bytes) and bool(got) == bool(document)
  assert got == pickle.loads(pickle.dumps(perturb))(document, index)


@pytest.mark.parametrize('spec', SPECS)
@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([b'\xff', b'\x80', b'\xe2\x82', b'the ', 'ß中'.encode()]), max_size=12))
def test_invalid_bytes_are_kept_in_order(spec, pieces):
  document = b''.join(pieces)
  invalid = [ord(c) & 0xFF for c in document.decode('utf-8', 'surrogateescape') if 0xDC80 <= ord(c) <= 0xDCFF]
  # As bytes: where what stood between two of them is gone, they may spell a character together.
  assert is_subsequence(invalid, make(spec)(document, 3))


@pytest.mark.parametrize('spec', SPECS)
def test_a_document_without_a_character_of_utf8_is_unchanged(spec):
  assert make(spec)(b'\xff\xfe\x80\xff', 1) == b'\xff\xfe\x80\xff'


@pytest.mark.parametrize('spec', [spec for spec in SPECS if spec not in ('antspeak', 'upper_case')])
def test_seeds_and_indices_give_different_noise(spec):
  separator = ',' if spec.endswith(')') else '('
  assert noisy(spec) == noisy(spec)
  assert len({noisy(spec), noisy(spec, index=1), noisy(f'{spec}{separator}seed=1)')}) == 3


@pytest.mark.parametrize(
  ('text', 'expected'),
  [('ab c', 'A B   C'), ('é', 'É'), ('aß', 'A S S'), ('中a', '中 A'), ('', '')],
)
def test_antspeak_is_upper_case_joined_by_spaces(text, expected):
  assert noisy('antspeak', text) == expected == ' '.join(text.upper())


def test_upper_case_is_that_of_unicode():
  assert noisy('upper_case', 'straße ǆ ﬁ 中') == 'STRASSE Ǆ FI 中'


def is_subsequence(short, long):
  rest = iter(long)
  return all(character in rest for character in short)


def test_drop_removes_a_tenth_anywhere():
  got = noisy('drop')
  assert is_subsequence(got, ENGLISH) and len(got) == pytest.approx(0.9 * len(ENGLISH), rel=0.01)
  assert got.count(' ') == pytest.approx(0.9 * ENGLISH.count(' '), rel=0.03)
  assert noisy('drop(rate=0)') == ENGLISH
  assert noisy('drop(rate=1)', 'all of it') == 'all of it'  # a document does not vanish


def test_random_case_changes_half_of_the_letters():
  got = noisy('random_case')
  assert got.lower() == ENGLISH.lower()
  letters = [character for character in got if character.isalpha()]
  assert sum(map(str.isupper, letters)) == pytest.approx(len(letters) / 2, rel=0.03)


def test_repeat_adds_one_to_four_copies_to_a_fifth():
  text = 'abcdefghij' * 2000
  got = noisy('repeat', text)
  runs, at = [], 0
  for character in text:
    end = at
    while end < len(got) and got[end] == character:
      end += 1
    runs.append(end - at)
    at = end
  assert at == len(got)
  counts = np.bincount(runs, minlength=6)
  assert counts[0] == 0 and len(counts) == 6
  np.testing.assert_allclose(counts[1:] / len(text), [0.8, 0.05, 0.05, 0.05, 0.05], atol=0.006)


@pytest.mark.parametrize('spec', ['permute_in_words', 'replace_in_words', 'delete_in_words'])
def test_word_noise_leaves_white_space_where_it_is(spec):
  text = 'one two\tthree\n\nvier  fünf 六六六六 a ' * 60
  got = noisy(spec, text)
  assert got != text
  whites = lambda string: [character for character in string if character.isspace()]
  assert whites(got) == whites(text)
  if spec == 'permute_in_words':
    assert [sorted(word) for word in got.split()] == [sorted(word) for word in text.split()]


@pytest.mark.parametrize('size', [2, 5, 40])
@pytest.mark.parametrize(('rate', 'share'), [(0.1, 0.098), (0.2, 0.182)])
def test_permuting_moves_about_its_rate_of_the_characters_of_words(size, rate, share):
  words = [''.join(chr(0x4E00 + (start + i) % 20_000) for i in range(size)) for start in range(0, 40_000, size)]
  got = noisy(f'permute_in_words(rate={rate})', ' '.join(words)).split(' ')
  moved = [a != b for new, word in zip(got, words, strict=True) for a, b in zip(new, word, strict=True)]
  assert np.mean(moved) == pytest.approx(share, abs=0.01)


def test_replacing_draws_from_the_document():
  text = 'ACGT' * 5000
  got = noisy('replace_in_words', text)
  changed = np.mean([a != b for a, b in zip(got, text, strict=True)])
  assert set(got) == set('ACGT') and changed == pytest.approx(0.075, abs=0.01)


def test_deleting_takes_a_tenth_of_the_words_characters():
  letters = len(''.join(ENGLISH.split()))
  got = noisy('delete_in_words')
  assert is_subsequence(got, ENGLISH)
  assert len(''.join(got.split())) == pytest.approx(0.9 * letters, rel=0.01)


def test_misspellings_are_real_ones_with_the_case_of_the_word():
  got = noisy('misspell(rate=1)', 'The the THE then naïve receive x')
  words = got.split()
  assert words[0] in ('Teh', 'Hte') and words[1] in ('teh', 'hte') and words[2] in ('TEH', 'HTE')
  assert words[3:] == ['then', 'naïeve', 'recieve', 'x']
  assert noisy('misspell(rate=0)') == ENGLISH
  changed = sum(a != b for a, b in zip(noisy('misspell(rate=0.3)').split(), ENGLISH.split(), strict=True))
  assert changed == pytest.approx(0.3 * 600, abs=40)


def test_names_hold_every_argument():
  parsed = noise.parse('drop( seed=3 )')
  assert (parsed.name, parsed.seed) == ('drop(rate=0.1,seed=3)', 3)
  assert parsed == noise.parse(parsed.name) and parsed != noise.parse('drop')
  assert hash(parsed) == hash(noise.parse(parsed.name))


def test_all_of_unicode_survives():
  text = ''.join(chr(c) for c in range(0x3000) if unicodedata.category(chr(c)) != 'Cs')
  for spec in SPECS:
    noisy(spec, text)


@pytest.mark.parametrize(
  ('spec', 'word'),
  [
    ('blur', 'use one of antspeak'),
    ('', 'not known'),
    ('drop(0.1', 'not known'),
    ('drop(0.1,1,2)', "no argument '2'"),
    ('drop(share=0.1)', 'drop takes rate, seed'),
    ('antspeak(rate=0.1)', 'antspeak takes seed'),
    ('drop(rate=some)', 'not a number'),
    ('drop(rate=2)', 'from 0 to 1'),
    ('drop(rate=nan)', 'from 0 to 1'),
    ('drop(seed=1.5)', 'not a whole number'),
    ('drop(seed=-1)', 'at least 0'),
    ('repeat(most=0)', 'at least 1'),
    ('drop(rate=0.1,rate=0.2)', 'twice'),
  ],
)
def test_a_bad_specification_is_refused_in_one_sentence(spec, word):
  with pytest.raises(ValueError, match=word):
    noise.parse(spec)


def test_pairs_that_are_none_are_refused():
  with pytest.raises(ValueError, match='3 units'):
    noise.parse('misspell', pairs=[(b'a', b'b', b'c')])
