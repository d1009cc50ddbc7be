"""Sources: which documents there are, on which side of the split, and the sentence for every bad input."""

import gzip
import hashlib
import itertools
import json
import os
import struct

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.opening import DOCUMENTS, both, content, jsonl, parquet, write, zstd
from text import MemoryCorpus, open_corpus, sources
from text.corpus import Joined

# --- Corpus


def test_a_corpus_gives_documents_and_parts_of_them():
  corpus = MemoryCorpus([b'abc', b'', b'\xfe\xff'])
  assert content(corpus) == [b'abc', b'', b'\xfe\xff'] and corpus[-1] == b'\xfe\xff'
  assert corpus.read(0, 1, 3) == b'bc'
  np.testing.assert_array_equal(corpus.lengths, [3, 0, 2])
  with pytest.raises(IndexError):
    corpus[3]


def test_the_fingerprint_tells_content_order_borders_and_split_apart_but_not_names():
  fingerprint = lambda documents, **kwargs: MemoryCorpus(documents, **kwargs).fingerprint
  variants = [[b'ab', b'c'], [b'a', b'bc'], [b'c', b'ab'], [b'abc'], [b'ab', b'd']]
  assert len({fingerprint(variant) for variant in variants}) == len(variants)
  assert fingerprint([b'a'], split='train') != fingerprint([b'a'], split='validation')
  assert fingerprint([b'a'], name='x') == fingerprint([b'a'], name='y')
  stored = b'train\n2\n' + struct.pack('<qq', 2, 1) + b'abc'  # the same on every machine
  assert fingerprint([b'ab', b'c'], split='train') == hashlib.sha256(stored).hexdigest()


# --- files


def test_each_file_is_one_document_and_each_is_on_one_side(tmp_path):
  for index, document in enumerate(DOCUMENTS):
    write(tmp_path / f'{index:03}.{("txt", "md", "py", "txt.gz")[index % 4]}', document)
  train, validation = both(f'files:{tmp_path}/*')
  assert sorted(content(train) + content(validation)) == sorted(DOCUMENTS)
  assert 1 <= len(validation) <= 35
  assert content(open_corpus(f'files:{tmp_path}/*@all', 'validation')) == DOCUMENTS


def test_the_split_does_not_depend_on_the_file_or_its_format(tmp_path):
  write(tmp_path / 'a.jsonl', jsonl(DOCUMENTS))
  write(tmp_path / 'b.jsonl.gz', jsonl(DOCUMENTS[::-1], 'body'))
  first, second = both(f'files:{tmp_path}/a.jsonl#text'), both(f'files:{tmp_path}/*.gz#body')
  for one, other in zip(first, second, strict=True):
    assert sorted(content(one)) == sorted(content(other))
  train, validation = both(f'files:{tmp_path}/a.jsonl#text,{tmp_path}/b.jsonl.gz#body')
  assert not set(content(train)) & set(content(validation))
  assert len(train) + len(validation) == 2 * len(DOCUMENTS)


def test_bytes_are_bytes_in_any_encoding(tmp_path):
  document = bytes(range(256))
  write(tmp_path / 'raw.txt', document)
  assert content(open_corpus(f'files:{tmp_path}/raw.txt@all', 'train')) == [document]


def test_json_lines_are_cut_at_line_feeds_alone_and_keep_every_character(tmp_path):
  texts = ['line\u2028separator\r\n', 'é🙂', 'half a pair \ud83d']
  write(tmp_path / 'a.jsonl', b'\r\n'.join(json.dumps({'text': t}).encode() for t in texts))
  write(tmp_path / 'b.jsonl', json.dumps({'text': texts[0]}, ensure_ascii=False).encode())
  corpus = open_corpus(f'files:{tmp_path}/*#text@all', 'train')
  assert content(corpus) == [t.encode('utf-8', 'surrogatepass') for t in [*texts, texts[0]]]


def test_double_star_goes_into_directories(tmp_path):
  (tmp_path / 'deep' / 'er').mkdir(parents=True)
  write(tmp_path / 'deep' / 'er' / 'a.txt', b'one')
  write(tmp_path / 'b.txt', b'two')
  assert content(open_corpus(f'files:{tmp_path}/**/*@all', 'train')) == [b'two', b'one']


@pytest.mark.parametrize(
  'name, data, source, message',
  [
    ('a.jsonl', b'{"text": "x"}\n{"body": "x"}\n', '*.jsonl#text', r"a\.jsonl:2 has no field 'text' \(it has: body\)"),
    ('a.jsonl', b'{"text": "x"}\n["text"]\n', '*.jsonl#text', r"a\.jsonl:2 has no field 'text' \(it has: list\)"),
    ('a.jsonl', b'{"text": "x"}\n{"text": \n', '*.jsonl#text', r'a\.jsonl:2 is not JSON'),
    ('a.jsonl', b'{"text": "\xff"}\n', '*.jsonl#text', r'a\.jsonl:1 is not JSON'),
    ('a.jsonl', b'[' * 100_000, '*.jsonl#text', r'a\.jsonl:1 is not JSON'),
    ('a.jsonl', b'{"text": "x"}\n\0\0\0{"text": "y"}\n', '*.jsonl#text', r'a\.jsonl:2 has NUL bytes'),
    (
      'a.jsonl',
      '{"text": "x"}\n'.encode('utf-16'),
      '*.jsonl#text',
      r'a\.jsonl:1 is in UTF-16: write the file in UTF-8',
    ),
    ('a.json', b'[{"text": "x"}, {"text": "y"}]', '*#text', r"a\.json:1 begins one JSON array, .*jq -c '\.\[\]' "),
    ('a.jsonl', b'{"text": "x", "id": 1' + b'0' * 9000 + b'}\n', '*#text', r'a\.jsonl:1 is not JSON'),
    ('a.jsonl', b'["id", "x"]\n["id", "y"]\n', '*#text', r"a\.jsonl:1 has no field 'text' \(it has: list\)"),
    ('a.json', b'\xef\xbb\xbf[\n {"text": "x"}\n]\n', '*#text', r'a\.json:1 begins one JSON array'),
    ('a.json', b'{\n  "text": "x"\n}\n', '*.json#text', r'a\.json:1 begins one JSON object over several lines'),
    ('a.ndjson', b'{"text": "x"}\n', '*.ndjson', r"a\.ndjson' needs the field .*#field"),
    ('a.jsonl', b'{"text": null}\n', '*.jsonl#text', r"a\.jsonl:1: field 'text' is empty \(null\): name another"),
    ('a.jsonl', b'{"meta": {"a": "x"}}\n', '*.jsonl#meta.text', r"a\.jsonl:1 has no field 'meta\.text'"),
    (
      'a.jsonl',
      b'{"text": "x"}\n',
      '*.jsonl#text,{}/a.jsonl#id',
      r"is named with the fields 'id' and 'text': name one",
    ),
    ('a.jsonl', b'{"text": 3}\n', '*.jsonl#text', r"a\.jsonl:1: field 'text' is int, not a string"),
    ('a.jsonl', b'{"text": ""}\n', '*.jsonl#text', r"a\.jsonl': document 1 is a document of zero bytes"),
    ('a.jsonl', b'', '*.jsonl#text', r'has no document: none of its 1 files holds a record'),
    ('a.jsonl', b'\n \r\n', '*.jsonl#text', r'has no document: none of its 1 files holds a record'),
    ('a.jsonl', b'{"text": "x"}\n', '*.jsonl', r"a\.jsonl' needs the field .*#field"),
    ('a.txt', b'x', '*.txt#text', r"names the field 'text', but '.*' matches no file of \.jsonl, \.ndjson, "),
    ('a.txt', b'', '*.txt', r"a\.txt': document 1 is a document of zero bytes"),
    ('a.txt.gz', b'', '*.gz', r"a\.txt\.gz': document 1 is a document of zero bytes"),
    ('a.tar.gz', b'x', '*', r"a\.tar\.gz' is an archive"),
    ('a.txt', b'x', '*.txt', r"leaves no document for 'validation' \(it has 1 in all\): .*@all"),
    ('a.txt', b'x', '*.md', r"glob '.*\*\.md' matches no file"),
    ('a.txt', b'x', '', r"matches the directory '.*': write '.*/\*\.txt'"),
  ],
)
def test_bad_data_is_one_sentence_with_the_place(tmp_path, name, data, source, message):
  write(tmp_path / name, data)
  with pytest.raises((ValueError, OSError), match=message) as error:
    open_corpus(f'files:{tmp_path}/{source.format(tmp_path)}', 'validation')
  assert '\n' not in str(error.value)


def test_a_directory_among_files_is_not_left_out_silently(tmp_path):
  (tmp_path / 'more').mkdir()
  write(tmp_path / 'a.txt', b'x')
  with pytest.raises(IsADirectoryError, match=r"matches the directory '.*/more': write '.*/more/\*\.txt'"):
    open_corpus(f'files:{tmp_path}/*', 'train')


@pytest.mark.parametrize(
  'data',
  [b'not gzip', gzip.compress(b'x' * 1000, mtime=0)[:-9], gzip.compress(bytes(range(100, 199)), mtime=0)[:60]],
  ids=['not gzip', 'cut at its end', 'cut within its data'],
)
@pytest.mark.parametrize('name', ['a.txt.gz', 'a.jsonl.GZ'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, data, name):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(OSError, match=rf"{name}' cannot be read \(.*\)"):
    open_corpus(f'files:{tmp_path}/*{"#text" if "jsonl" in name else ""}', 'train')


def test_a_dangling_link_is_named(tmp_path):
  (tmp_path / 'a.txt').symlink_to(tmp_path / 'gone')
  with pytest.raises(OSError, match=r"a\.txt' cannot be read \(No such file or directory\)"):
    open_corpus(f'files:{tmp_path}/*', 'train')


# --- Parquet and Zstandard


@pytest.mark.parametrize(
  'kind',
  [
    pyarrow.string(),
    pyarrow.large_string(),
    pyarrow.string_view(),
    pyarrow.binary(),
    pyarrow.large_binary(),
    pyarrow.binary_view(),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    pyarrow.dictionary(pyarrow.int16(), pyarrow.large_string()),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.binary()),
  ],
  ids=str,
)
def test_a_parquet_column_gives_the_documents(tmp_path, kind):
  is_dictionary = pyarrow.types.is_dictionary(kind)
  column = pyarrow.array(DOCUMENTS, pyarrow.binary()).cast(kind.value_type if is_dictionary else kind)
  column = column.dictionary_encode().cast(kind) if is_dictionary else column
  parquet(tmp_path / 'a.parquet', {'body': column, 'id': list(range(len(DOCUMENTS)))}, row_group_size=70)
  assert content(open_corpus(f'files:{tmp_path}/*.parquet#body@all', 'train')) == DOCUMENTS
  packed = gzip.compress((tmp_path / 'a.parquet').read_bytes())
  (tmp_path / 'b.parquet.gz').write_bytes(packed)
  assert content(open_corpus(f'files:{tmp_path}/b*#body@all', 'train')) == DOCUMENTS


@pytest.mark.parametrize('frames', [1, 3])
def test_zstandard_files_are_read_whole(tmp_path, frames):
  zstd(tmp_path / 'a.jsonl.zst', jsonl(DOCUMENTS), frames)
  zstd(tmp_path / 'b.txt.zst', b'text ' * 1000, frames)
  assert content(open_corpus(f'files:{tmp_path}/*#text@all', 'train')) == [*DOCUMENTS, b'text ' * 1000]


@pytest.mark.parametrize(
  'columns, field, message',
  [
    ({'body': ['x']}, 'text', r"a\.parquet' has no column 'text' \(it has: body\): name another column"),
    ({'text': [1]}, 'text', r"a\.parquet': column 'text' is int64, not text"),
    ({'text': ['x', None]}, 'text', r"a\.parquet': column 'text' is empty \(null\) in row 2"),
    ({'text': ['x', '']}, 'text', r"a\.parquet': document 2 is a document of zero bytes"),
  ],
)
def test_a_column_without_text_is_refused(tmp_path, columns, field, message):
  parquet(tmp_path / 'a.parquet', columns)
  with pytest.raises(ValueError, match=message):
    open_corpus(f'files:{tmp_path}/*.parquet#{field}', 'train')


def test_damaged_parquet_and_zstandard_files_are_named(tmp_path):
  good = parquet(tmp_path / 'good.parquet', {'text': [d.decode() for d in DOCUMENTS]}).read_bytes()
  (tmp_path / 'a.parquet').write_bytes(good[: len(good) // 2])
  with pytest.raises((ValueError, OSError), match=r'a\.parquet'):
    open_corpus(f'files:{tmp_path}/a.parquet#text', 'train')
  packed = zstd(tmp_path / 'good.txt.zst', os.urandom(5000)).read_bytes()
  for name, data in (('cut.txt.zst', packed[:-100]), ('other.txt.zst', b'no zstandard at all')):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(OSError, match=rf"{name}' cannot be read \(.*\)"):
      open_corpus(f'files:{tmp_path}/{name}', 'train')


# --- Noise, joined corpora, unknown sources


def test_noise_before_a_source_changes_its_documents_and_depends_on_nothing_else(tmp_path):
  for index, document in enumerate(DOCUMENTS):
    write(tmp_path / f'{index:03}.txt', document)
  noisy = open_corpus(f'noise:drop(rate=0.2):files:{tmp_path}/*@all', 'train')
  again = open_corpus(f'noise:drop(rate=0.2):files:{tmp_path}/1*@all', 'train')
  assert content(noisy) != DOCUMENTS and len(noisy) == len(DOCUMENTS)
  assert content(again) == content(noisy)[100:200]
  groups = sources.document_groups(f'noise:drop(rate=0.2):files:{tmp_path}/*')
  assert [document for group in groups for document in group] == content(noisy)
  with pytest.raises(ValueError, match=r"'noise:drop\(\)' names no text: write noise:NAME"):
    open_corpus('noise:drop()', 'train')


@given(st.lists(st.lists(st.binary(max_size=4), min_size=1, max_size=4), min_size=1, max_size=4))
def test_joined_corpora_are_one_after_the_other(parts):
  joined = Joined([MemoryCorpus(part) for part in parts], 'all')
  assert content(joined) == list(itertools.chain(*parts)) and joined[-1] == parts[-1][-1]


def test_unknown_sources_and_splits_are_refused():
  with pytest.raises(ValueError, match=r"data source 'c4' is not known: use 'python_docs', or one of files:"):
    open_corpus('c4', 'train')
  with pytest.raises(ValueError, match=r"data source 'file:x' is not known \(did you mean files\?\)"):
    open_corpus('file:x', 'train')
  with pytest.raises(ValueError, match=r"split 'dev' is not known: use 'train', 'validation', 'test'"):
    open_corpus('python_docs', 'dev')
  for source in ('python_docs', 'files:*.txt'):
    with pytest.raises(ValueError, match=r'has no test split'):
      open_corpus(source, 'test')
