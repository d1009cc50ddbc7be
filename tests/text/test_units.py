"""Units of words: they spell every word, equal their libraries' own, and stand in batches where they end."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

import text
from tests.text.tiny_subwords import TEXT, WORDS, write
from text import marks, units

WRITTEN = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLITTERS = ('hat(max_bytes=8)', 'whitespace(max_bytes=8)', 'fixed(size=3)')


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  return write(tmp_path_factory.mktemp('units') / 'subwords.json')


@pytest.fixture(scope='module', params=['byte', 'char', 'char(limit=0x110000)', 'subword'])
def spelling(request, file):
  return units.parse(f'subword(file={file})' if request.param == 'subword' else request.param)


def naive_characters(word, limit):
  """Ids by trying every start and size."""
  ids, at = [], 0
  while at < len(word):
    for size in (2, 3, 4):
      try:
        (character,) = word[at : at + size].decode()
      except (ValueError, UnicodeDecodeError):
        continue
      if len(character.encode()) == size and ord(character) < limit:
        ids.append(256 + ord(character) - 128)
        at += size
        break
    else:
      ids.append(word[at])
      at += 1
  return tuple(ids)


@given(word=WORDS)
def test_units_laid_end_to_end_are_the_word(spelling, word):
  ids = spelling(word)
  assert b''.join(spelling.table[index] for index in ids) == word
  assert [len(spelling.table[index]) for index in ids] == spelling.sizes[list(ids)].tolist()
  for byte in {*word} & {0xC0, 0xC1, *range(0xF5, 0x100)}:
    assert ids.count(byte) == word.count(byte)


def test_the_first_ids_are_the_bytes(spelling):
  assert spelling.table[:256] == tuple(bytes([value]) for value in range(256))
  assert spelling(b'') == () and spelling(b'\xfe') == (254,)
  assert len(set(spelling.table)) == len(spelling.table)


@pytest.mark.parametrize('limit', [0x80, 0x100, 0x3000, 0x110000])
@settings(deadline=None)  # the largest table is made in the first call
@given(word=WORDS)
def test_characters_are_those_below_the_limit(limit, word):
  spelling = units.parse(f'char(limit={limit})')
  assert spelling(word) == naive_characters(word, limit) and len(spelling.table) == 128 + limit


@given(word=WORDS)
def test_subwords_are_those_of_the_library(file, word):
  spelling, theirs = units.parse(f'subword(file={file})'), Tokenizer.from_file(str(file))
  readable = word.decode('utf-8', 'replace')
  expected = theirs.encode(readable).tokens
  ours = [spelling.table[index] for index in spelling(readable.encode())]
  assert [units.written(unit) for unit in ours] == expected
  vocabulary = theirs.get_vocab()
  assert [index for index in spelling(readable.encode()) if index > 255] == [
    vocabulary[token] for token in expected if len(token) > 1
  ]


def test_the_alphabet_is_that_of_the_library():
  assert sorted(units.alphabet()) == sorted(pre_tokenizers.ByteLevel.alphabet())
  everything = ''.join(map(chr, range(0x800))) + '日🙂'
  assert WRITTEN.pre_tokenize_str(everything)[0][0] == units.written(everything.encode())


def test_another_numbering_of_bytes_and_special_tokens_do_not_matter(file, tmp_path):
  """As in files of other programs: special tokens first, a pre-tokenizer that cuts, words taken whole."""
  theirs = Tokenizer(models.BPE(ignore_merges=True))
  theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
  special = ['<|end▁of▁text|>', '<s>']
  theirs.train_from_iterator(
    [TEXT.decode()],
    trainers.BpeTrainer(
      vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    ),
  )
  theirs.save(str(tmp_path / 'theirs.json'))
  spelling = units.parse(f'subword(file={tmp_path / "theirs.json"})')
  assert (
    len(spelling.table) == 400 - 1 and b'<s>' in spelling.table
  )  # of what is not spelled with bytes nothing is left
  for word in (b'the towns', b'<|end|>', '日本語'.encode(), b'<s>'):
    assert b''.join(spelling.table[index] for index in spelling(word)) == word
  assert len(spelling('日本語'.encode())) < 9


def test_what_a_file_enables_beside_its_merges_changes_no_unit(file, tmp_path):
  theirs = Tokenizer.from_file(str(file))
  theirs.enable_truncation(2)
  theirs.enable_padding(length=50, pad_id=0, pad_token='!')
  theirs.add_special_tokens(['the', 'cat'])
  theirs.add_tokens([AddedToken(' sat', lstrip=True, rstrip=True)])
  theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(True)])
  theirs.save(str(tmp_path / 'theirs.json'))
  ours, same = units.parse(f'subword(file={file})'), units.parse(f'subword(file={tmp_path / "theirs.json"})')
  for word in (b'the towns cat sat  the', b' sat', 'ภาษาไทย'.encode(), b'\xff the'):
    assert [same.table[index] for index in same(word)] == [ours.table[index] for index in ours(word)]


ROWS = st.lists(st.lists(WORDS.filter(len).map(lambda word: word[:24]), min_size=1, max_size=3), min_size=1, max_size=3)


@given(rows=ROWS, splitter=st.sampled_from(SPLITTERS), begins=st.booleans())
def test_units_stand_at_their_last_bytes_and_never_reach_over_the_end_of_a_word(spelling, rows, splitter, begins):
  rows = [[b'\xfe' + part + b'\xff' for part in row] if begins else row for row in rows]
  length = max(sum(map(len, row)) for row in rows) + 2
  bytes_BxL, segment_ids_BxL = np.zeros((len(rows), length), np.uint8), np.zeros((len(rows), length), np.int32)
  for index, row in enumerate(rows):
    joined = b''.join(row)
    bytes_BxL[index, : len(joined)] = np.frombuffer(joined, np.uint8)
    segment_ids_BxL[index, : len(joined)] = np.repeat(np.arange(len(row)) + 1, [len(part) for part in row])
  specs = {'words': splitter, 'units': spelling.name}
  found = marks.mark(text.Batch(bytes_BxL, segment_ids_BxL), specs).marks
  assert found['units'].dtype == np.int32
  expected = np.full(segment_ids_BxL.shape, -1, np.int32)
  for index, row in enumerate(rows):
    used = sum(map(len, row))
    borders = [*np.flatnonzero(found['words'][index, :used]).tolist(), used]
    for start, end in itertools.pairwise(borders):
      at = start - 1
      for unit in spelling(bytes_BxL[index, start:end].tobytes()):
        at += len(spelling.table[unit])
        expected[index, at] = unit
  np.testing.assert_array_equal(found['units'], expected)


@pytest.mark.parametrize(
  ('spec', 'sentence'),
  [
    ('letter', "units 'letter' is not known: use one of byte, char, subword"),
    ('byte(limit=3)', "has no argument 'limit'"),
    ('char(limit=127)', 'limit=127 must be from 128 to 0x110000'),
    ('char(limit=0x110001)', 'limit=0x110001 must be from 128 to 0x110000'),
    ('char(limit=many)', "limit='many' is not a whole number"),
    ('subword', 'names no file: write subword'),
  ],
)
def test_what_is_not_known_is_one_sentence(spec, sentence):
  with pytest.raises(ValueError, match=sentence):
    units.parse(spec)


DAMAGES = {
  'no JSON': (lambda content: content[:-40], 'is damaged or no tokenizer.json'),
  'no tokenizer': (lambda content: '{"vocabulary": []}', 'is damaged or no tokenizer.json'),
  'no text': (lambda content: b'\xff\xfe', 'is damaged or no tokenizer.json'),
  'words of another kind': (lambda content: cutting_at_spaces(content), 'is not a byte-level BPE'),
  'no merges': (lambda content: of_model(models.WordLevel({'a': 0}, unk_token='a')), 'is not a byte-level BPE'),
  'bytes missing': (lambda content: of_model(models.BPE({'a': 0, 'b': 1}, [])), 'is not a byte-level BPE'),
  'other letters': (lambda content: of_model(models.BPE(alphabet_and('▁'), [])), 'is not a byte-level BPE'),
  'a normalizer': (lambda content: with_normalizer(content), 'has a normalizer'),
  'dropout': (lambda content: of_model(models.BPE(alphabet_and(), [], dropout=0.5)), 'has dropout 0.5'),
  'a suffix': (
    lambda content: of_model(models.BPE(alphabet_and(), [], end_of_word_suffix='</w>')), "end_of_word_suffix '</w>'"
  ),
}  # fmt: skip


def alphabet_and(*more):
  return {token: index for index, token in enumerate([*units.alphabet(), *more])}


def of_model(model):
  tokenizer = Tokenizer(model)
  tokenizer.pre_tokenizer = WRITTEN
  return tokenizer.to_str()


def cutting_at_spaces(content):
  return json.dumps({**json.loads(content), 'pre_tokenizer': {'type': 'Whitespace'}})


def with_normalizer(content):
  tokenizer = Tokenizer.from_str(content)
  tokenizer.normalizer = normalizers.NFC()
  return tokenizer.to_str()


@pytest.mark.parametrize('name', DAMAGES)
def test_a_file_that_does_not_say_what_spells_a_word_is_one_sentence(name, file, tmp_path):
  damage, sentence = DAMAGES[name]
  content, path = damage(file.read_text()), tmp_path / 'damaged.json'
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(ValueError, match=sentence) as error:
    units.parse(f'subword(file={path})')
  assert 'damaged.json' in str(error.value)


@given(st.text(st.characters(exclude_characters='\0'), min_size=1).filter(str.strip), st.from_regex(r'\A[0-9a-f]*\Z'))
def test_any_file_and_its_digest_come_back_from_a_specification(file, digest):
  assert units.file_of(units.in_file(file, digest)) == (file, digest)
  assert units.file_of('byte') is units.file_of('char(limit=0x80)') is None


@pytest.mark.parametrize('name', ['a,b.json', 'a = (b).json', ' a.json', 'a"b".json', '日本,語.json'])
def test_a_file_may_have_any_name(name, file, tmp_path):
  (tmp_path / name).write_bytes(file.read_bytes())
  found = units.parse(units.in_file(tmp_path / name, ''))
  assert units.parse(found.name).table == found.table and units.file_of(found.name)[0] == str(tmp_path / name)


@pytest.mark.parametrize('spec', ['subword(file="a\\q.json")', 'subword(file="a.json,digest=0)', 'subword(file="a"b)'])
def test_quotes_that_do_not_close_are_a_sentence(spec):
  with pytest.raises((ValueError, OSError), match=r'cannot be read|there is no file|has no argument'):
    units.parse(spec)


def test_a_file_that_is_missing_or_another_is_one_sentence(file, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"there is no file 'nothing\.json' \(working directory .*text\.subwords"):
    units.parse('subword(file=nothing.json)')
  with pytest.raises(OSError, match=r'cannot be read \(Is a directory\)'):
    units.parse(f'subword(file={tmp_path})')
  name = units.parse(f'subword(file={file})').name
  assert units.parse(name).name == name
  copy = tmp_path / 'copy.json'
  copy.write_text(file.read_text() + '\n')
  with pytest.raises(ValueError, match='is another file, with digest .*: bring back the one that the model has'):
    units.parse(name.replace(str(file), str(copy)))
