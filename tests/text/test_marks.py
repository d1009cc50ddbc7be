"""Marks: what a model asks for it gets, in batches, in rows of documents and while it decodes."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import text
from tests.text import tiny_subwords
from text import BOS, EOS, Batch, MemoryCorpus, marks
from text.packing import RowStream
from text.rows import evaluation_batches, training_batch

BYTES = st.one_of(st.binary(max_size=12), st.text(max_size=12).map(str.encode))


class Vowels(marks.Kind):
  """How many vowels stand in the last three bytes: a kind as one would add it."""

  DTYPE, EMPTY, BACK = np.uint8, 9, 2

  def of(self, content):
    is_vowel = np.isin(np.frombuffer(b'..' + content, np.uint8), [*b'aeiou']).astype(np.uint8)
    return is_vowel[2:] + is_vowel[1:-1] + is_vowel[:-2]


@pytest.fixture
def vowels(monkeypatch):
  monkeypatch.setitem(marks.KINDS, 'vowels', Vowels)
  return {'sounds': 'vowels'}


def test_a_batch_gets_the_marks_that_it_lacks():
  batch = Batch.of(['\xfea né 日'.encode('latin-1', 'ignore')])
  assert marks.mark(batch, {}) is batch
  found = marks.mark(jax.tree.map(jax.numpy.asarray, batch), {'words': 'hat', 'units': 'char'})
  assert isinstance(found.marks['units'], np.ndarray) and (found.marks['units'] >= 0).any()
  assert found.bytes is not batch.bytes and marks.mark(found, {'words': 'whitespace'}) is found
  more = marks.mark(found, {'words': 'hat', 'script': 'script'})
  assert more.marks['words'] is found.marks['words'] and more.marks['script'].dtype == np.int8
  on_device = marks.mark(jax.tree.map(jax.numpy.asarray, Batch.of([b'\xfeab cd\xff', b'x'])), {'w': 'hat'})
  assert np.flatnonzero(on_device.marks['w'][0]).tolist() == [0, 1, 3, 6]


@pytest.mark.parametrize(
  ('specs', 'sentence'),
  [
    ({'words': 'bpe'}, "mark 'words': 'bpe' is not known: use one of hat, .*script"),
    ({'words': 8}, "mark 'words': '8' is not known"),
    ({'words': 'hat(max_bytes=0)'}, "splitter 'hat.*must be at least 1"),
    ({'words': 'hat', 'units': 'char(limit=1)'}, 'limit=1 must be from 128'),
    ({'units': 'char'}, "mark 'char': units are parts of words, so name a splitter as the mark 'words', too"),
    ({'words': 'script', 'units': 'char'}, 'name a splitter'),
    ({'script': 'script(size=3)'}, "mark 'script.*has no argument 'size'"),
    ({'levels': 'levels(word0)'}, "level 'word0' is not known: write wordG, such as word1 or word2, pretok or punct"),
    ({'levels': 'levels(word1,three=punct)'}, "levels 'word1', '', 'punct': name the first, and none behind one"),
    ({'ended': 'ended(fixed)'}, "mark 'ended.fixed.': by is one of hat, whitespace, uax29"),
    ({'r': 'regex(()'}, r"regex '\(': missing \), unterminated subpattern at position 0"),
    ({'r': 'regex(pattern=a,at=middle)'}, 'at is one of end, start'),
  ],
)
def test_what_is_not_known_is_one_sentence(specs, sentence):
  for use in (marks.parse, lambda specs: text.pipeline(CORPUS, batch_size=2, seq_len=32, seed=0, marks=specs)):
    with pytest.raises(ValueError, match=sentence) as error:
      use(specs)
    assert '\n' not in str(error.value)


def test_missing_marks_are_an_error_under_tracing():
  batch = marks.mark(Batch.of([b'\xfeab']), {'words': 'hat'})
  for specs, lacking in (({'words': 'hat', 'u': 'script'}, 'u'), ({'words': 'hat', 'units': 'char'}, 'units')):
    with pytest.raises(ValueError, match=rf"lacks the mark '{lacking}' .*text\.marks\.mark\(batch, model\.marks\)"):
      jax.jit(lambda batch, specs=specs: marks.mark(batch, specs).bytes)(batch)


CORPUS = MemoryCorpus([f'Some words, {index} of them; more… Ещё слово 日本'.encode() for index in range(20)])


def test_the_pipeline_marks_in_processes_as_in_a_thread(tmp_path):
  subwords = f'subword(file={tiny_subwords.write(tmp_path / "subwords.json")})'
  stream = RowStream(CORPUS.lengths, 32, 0)
  asked = {'words': 'hat(max_bytes=4)', 'script': 'script'}, {'words': 'hat', 'units': subwords}
  for specs, workers in itertools.product(asked, (0, 2)):
    batches = text.pipeline(CORPUS, batch_size=2, seq_len=32, seed=0, workers=workers, marks=specs)
    for first, batch in enumerate(itertools.islice(batches, 6)):
      expected = training_batch(CORPUS, stream.pieces(np.arange(2 * first, 2 * first + 2)), 2, 32, specs)
      assert batch.marks.keys() == specs.keys()
      jax.tree.map(np.testing.assert_array_equal, batch.marks, expected.marks)
    batches.close()
  assert next(text.pipeline(CORPUS, batch_size=2, seq_len=32, seed=0)).marks == {}


def test_marks_that_follow_from_bytes_are_those_of_the_document_wherever_rows_cut_it(vowels):
  specs = vowels | {'script': 'script', 'levels': 'levels(word1,word2)', 'ended': 'ended(uax29)', 'r': 'regex(" ")'}
  whole = {
    name: [np.concatenate([[kind.EMPTY], kind.of(document), [kind.EMPTY]]) for document in CORPUS]
    for name, kind in marks.parse(specs).items()
  }
  stream = RowStream(CORPUS.lengths, 24, 0)
  pieces = stream.pieces(np.arange(30))
  evaluated = next(evaluation_batches(CORPUS, marks=specs, seq_len=24, batch_size=30))
  for of_pieces, batch in (pieces, training_batch(CORPUS, pieces, 30, 24, specs)), (evaluated.pieces, evaluated.batch):
    for name, kind in marks.parse(specs).items():
      at = [0] * 30
      for row, document, start, stop, _ in zip(*map(np.ndarray.tolist, of_pieces), strict=True):
        found = batch.marks[name][row, at[row] : at[row] + stop - start]
        np.testing.assert_array_equal(found, whole[name][document][start:stop])
        at[row] += stop - start
      assert all((batch.marks[name][row, used:] == kind.EMPTY).all() for row, used in enumerate(at))


def test_scripts_are_those_of_characters_that_have_ended():
  of = lambda content: [marks.SCRIPTS[place - 1] if place else '' for place in marks.Script().of(content).tolist()]
  assert of('aж 日'.encode()) == ['LATIN', 'LATIN', 'CYRILLIC', '', '', '', 'CJK']
  assert of(b'a\xe6\x97\xffb\xff') == ['LATIN', 'LATIN', 'LATIN', 'LATIN', 'LATIN', 'LATIN']
  assert of(b'a\xff\xff\xff\xff') == ['LATIN'] * 4 + ['']


RULES = {'one': 'levels(word1,word3)', 'two': 'levels(pretok,punct,word2@2-3)', 'hat': 'ended(hat)'}
PIECES = st.lists(
  st.sampled_from([' ', '  ', '\n', 'a', 'Bc.', "don't", '12345', ', ', '日本', 'é', ' \t\n', '(']),
  min_size=1,
  max_size=40,
).map(lambda pieces: (''.join(pieces) * 30).encode()[:900])


@pytest.mark.parametrize(
  'spec', [*RULES.values(), 'levels', 'ended(whitespace)', 'ended(uax29)', 'regex(pattern=" a")']
)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(document=PIECES, start=st.integers(0, 901), size=st.integers(1, 40))
def test_rules_that_begin_anew_somewhere_are_those_of_the_document_in_any_piece_of_it(spec, document, start, size):
  kind = marks.parse({'mark': spec})['mark']
  whole = np.concatenate([[kind.EMPTY], kind.of(document), [kind.EMPTY]])
  start, stop = min(start, len(document)), min(start + size, len(document) + 2)
  found = kind.of_piece(marks.Document(document), start, stop, start)
  np.testing.assert_array_equal(found, whole[start:stop])


def with_bos(content, has_bos):
  return bytes([BOS]) * has_bos + content.rstrip(bytes([EOS])) + b'.'


@settings(deadline=None, max_examples=60)
@given(
  texts=st.lists(st.tuples(BYTES, st.booleans()), min_size=2, max_size=2),
  prompt=st.integers(0, 2),
  count=st.integers(1, 3),
)
def test_marks_that_look_ahead_of_nothing_are_the_same_byte_by_byte(texts, prompt, count):
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(marks.KINDS, 'vowels', Vowels)
    specs = (
      {'sounds': 'vowels', 'script': 'script', 'r': 'regex(pattern=" ")', 'ended': 'ended(uax29)'}
      | RULES
      | ({'patches': 'fixed(size=3)'} if count == 1 else {})
    )
    rows = [with_bos(*part) for part in texts]
    batch = marks.mark(Batch.of(rows, 64), specs)
    read = marks.Read.nothing(specs, 2, 64)
    lengths = np.array([min(prompt, len(row)) for row in rows])
    read = read.prompts(batch.bytes[:, : lengths.max()], lengths) if prompt else read
    for at in range(prompt, max(map(len, rows))):
      found, read = read.then(specs, batch.bytes[:, at], count)
      for (name, values), row in itertools.product(found.items(), range(2)):
        if at < len(rows[row]):
          expected = batch.marks[name][row, max(at + 1 - count, 0) : at + 1]
          np.testing.assert_array_equal(np.asarray(values)[row, -len(expected) :], expected, name)


def test_decoding_marks_under_scan(vowels):
  row = np.frombuffer(b'\xfea word of text', np.uint8)
  read = marks.Read.nothing(vowels, 1, 16)

  @jax.jit
  def run(read, row):
    return jax.lax.scan(lambda read, byte: read.then(vowels, byte[None])[::-1], read, row)[1]

  found = run(read, row)['sounds'][:, 0, 0]
  np.testing.assert_array_equal(found, marks.mark(Batch.of([row.tobytes()]), vowels).marks['sounds'][0])


def test_units_are_not_known_while_their_word_goes_on():
  kind = marks.parse({'words': 'hat', 'units': 'char'})['units']
  with pytest.raises(ValueError, match="mark 'char.*: which unit ends at a byte is not known while its word goes on"):
    kind.of_last(b'ab', False, 1, np.zeros(2, np.int32))
