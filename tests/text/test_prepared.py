"""Reading a prepared directory: the bytes, and what is refused."""

import json
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text import prepared
from text.prepare import ByHash, prepare
from text.prepared import open_prepared

SIZES = [1, 2, 300, 65_400, 65_455, 65_511, 65_512, 65_513, 131_024, 200_000, 7, 1000, 65_536, 40_000]


class Documents:
  """A group of documents in memory."""

  def __init__(self, documents, key='documents'):
    self.key, self.documents = key, documents

  def __iter__(self):
    return iter(self.documents)


def random_documents(sizes, seed=0):
  generator = np.random.default_rng(seed)
  return [generator.bytes(size) for size in sizes]


DOCUMENTS = random_documents(SIZES)


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  directory = tmp_path_factory.mktemp('original') / 'some'
  prepare([Documents(DOCUMENTS)], directory, source='memory', splits=ByHash(0, 0), shard_bytes=150_000)
  return directory


@pytest.fixture
def directory(original, tmp_path):
  return shutil.copytree(original, tmp_path / 'copy')


@pytest.fixture(scope='module')
def corpus(original):
  return open_prepared(original, 'train')


def test_the_documents_come_back_in_order(corpus):
  assert list(corpus) == DOCUMENTS
  assert corpus.lengths.tolist() == SIZES and corpus.lengths.dtype == np.int64
  assert corpus[-1] == DOCUMENTS[-1]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_read_is_the_slice(corpus, data):
  document = data.draw(st.integers(0, len(SIZES) - 1))
  start = data.draw(st.integers(0, SIZES[document]))
  stop = data.draw(st.one_of(st.integers(start, SIZES[document]), st.just(min(start + 300, SIZES[document]))))
  assert corpus.read(document, start, stop) == DOCUMENTS[document][start:stop]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=5), st.integers(1, 300_000))
def test_documents_of_any_sizes_come_back(tmp_path_factory, sizes, shard_bytes):
  documents = random_documents([size + 3 for size in sizes])  # long enough that no two are equal
  directory = tmp_path_factory.mktemp('any')
  prepare([Documents(documents)], directory, source='x', name='x', splits=ByHash(0, 0), shard_bytes=shard_bytes)
  assert list(open_prepared(directory, 'train')) == documents


@pytest.mark.parametrize('place', [(0, 0, 2), (0, -1, 1), (0, 1, 0), (len(SIZES), 0, 0), (-len(SIZES) - 1, 0, 0)])
def test_a_place_that_is_not_there_is_an_index_error(corpus, place):
  with pytest.raises(IndexError):
    corpus.read(*place)


def test_a_corpus_pickles_as_its_path(corpus):
  pickled = pickle.dumps(corpus)
  assert len(pickled) < 1000
  copy = pickle.loads(pickled)
  assert list(copy) == DOCUMENTS and copy.identity() == corpus.identity()


def test_a_pickled_corpus_refuses_other_text_in_its_place(directory):
  pickled = pickle.dumps(open_prepared(directory, 'train'))
  shutil.rmtree(directory)
  prepare([Documents([b'other'])], directory, source='memory', splits=ByHash(0, 0))
  with pytest.raises(ValueError, match='prepared anew while it was in use'):
    pickle.loads(pickled)


def test_more_shards_than_are_kept_open_can_be_read(original, monkeypatch):
  monkeypatch.setattr(prepared, 'OPEN_SHARDS', 2)
  corpus = open_prepared(original, 'train')
  assert len(corpus._shards) > 3
  order = np.random.default_rng(0).permutation(len(SIZES)).tolist()
  assert [corpus[document] for document in order] == [DOCUMENTS[document] for document in order]
  assert len(corpus._buffers) == 2


def test_the_fingerprint_tells_text_and_split_but_not_shards_and_name(corpus, tmp_path):
  def fingerprint(documents, place, **settings):
    metadata = prepare([Documents(documents)], tmp_path / place, source='x', **settings)
    return open_prepared(tmp_path / place, next(iter(metadata['splits']))).fingerprint

  assert fingerprint(DOCUMENTS, 'other', splits=ByHash(0, 0)) == corpus.fingerprint
  assert fingerprint(DOCUMENTS[::-1], 'turned', splits=ByHash(0, 0)) != corpus.fingerprint
  assert fingerprint([b'a', b'bc'], 'a', splits=ByHash(0, 0)) != fingerprint([b'ab', b'c'], 'b', splits=ByHash(0, 0))
  everything = 1 - 1e-12
  as_test = prepare([Documents(DOCUMENTS)], tmp_path / 'test', source='x', splits=ByHash(0, everything))
  assert as_test['splits']['test']['documents'] == len(DOCUMENTS)
  assert as_test['splits']['test']['fingerprint'] != corpus.fingerprint


def shard_of(directory):
  return sorted(directory.glob('*.array_record-*'))[1]


def test_a_missing_shard_is_named(directory):
  path = shard_of(directory)
  path.unlink()
  with pytest.raises(FileNotFoundError, match=f"{path.name}' is missing: prepare again"):
    open_prepared(directory, 'train')


def test_a_truncated_shard_is_named_with_its_sizes(directory):
  path = shard_of(directory)
  size = path.stat().st_size
  with open(path, 'r+b') as file:
    file.truncate(size - 1)
  with pytest.raises(OSError, match=f"{path.name}' has {size - 1} bytes, not {size}: prepare again"):
    open_prepared(directory, 'train')


@pytest.mark.parametrize('pattern', ['*-00001-of-*', 'offsets-train.npy'])
def test_one_changed_bit_is_found_and_the_checksum_is_named(directory, pattern):
  (path,) = directory.glob(pattern)
  damaged = bytearray(path.read_bytes())
  damaged[-1] ^= 1
  path.write_bytes(damaged)
  with pytest.raises(OSError, match=f"{path.name}' has SHA-256 [0-9a-f]{{64}}, not [0-9a-f]{{64}}: prepare again"):
    open_prepared(directory, 'train')


def test_checksums_of_a_large_split_are_left_to_verify(directory, monkeypatch):
  damaged = bytearray(shard_of(directory).read_bytes())
  damaged[-1] ^= 1
  shard_of(directory).write_bytes(damaged)
  monkeypatch.setattr(prepared, 'VERIFIED_BYTES', 1000)
  open_prepared(directory, 'train')
  with pytest.raises(OSError, match='has SHA-256'):
    prepared.verify(directory)


def test_an_index_that_ends_early_is_named(directory):
  path = directory / 'lengths-train.npy'
  path.write_bytes(path.read_bytes()[:-8])
  with pytest.raises((OSError, ValueError), match='lengths-train.npy'):
    open_prepared(directory, 'train')


def test_a_split_that_is_not_there_is_answered_with_those_that_are(directory):
  with pytest.raises(ValueError, match="has no split 'test': it has 'train'"):
    open_prepared(directory, 'test')


def test_a_directory_that_is_not_prepared_is_told_from_one_that_is_not_finished(tmp_path):
  with pytest.raises(FileNotFoundError, match='is not a prepared directory .* make one with'):
    open_prepared(tmp_path, 'train')
  (tmp_path / '.partial').mkdir()
  with pytest.raises(FileNotFoundError, match='was not finished: type its command again'):
    open_prepared(tmp_path, 'train')


def test_gold_data_is_not_read_as_text(tmp_path):
  prepare([Documents([b'a\x1fb'])], tmp_path, source='x', name='x', splits=ByHash(0, 0), metadata={'kind': 'gold'})
  with pytest.raises(ValueError, match="of kind 'gold', not 'text': read it with text.gold"):
    open_prepared(tmp_path, 'train')
  assert list(open_prepared(tmp_path, 'train', kind='gold')) == [b'a\x1fb']


@pytest.mark.parametrize(
  ('damage', 'sentence'),
  [
    (lambda text: text[:-5], 'is not JSON'),
    (lambda text: text.replace('"format": 1', '"format": 2'), 'does not have "format": 1'),
    (lambda text: text.replace('"source": "memory"', '"source": "elsewhere"'), 'does not fit its own SHA-256'),
    (lambda text: json.dumps([text]), 'does not have "format": 1'),
  ],
)
def test_damaged_metadata_are_refused(directory, damage, sentence):
  path = directory / 'corpus.json'
  path.write_text(damage(path.read_text()))
  with pytest.raises(ValueError, match=sentence):
    open_prepared(directory, 'train')
