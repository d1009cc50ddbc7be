"""Sources: which documents there are, on which side of the split, and the sentence for every bad input."""

import gzip
import hashlib
import json
import os
import struct
import sys
import sysconfig

import numpy as np
import pytest

from text import open_corpus, sources

DOCUMENTS = [f'document {index} '.encode() * (index % 7 + 1) for index in range(300)]


def write(path, content: bytes):
  (gzip.open if path.suffix == '.gz' else open)(path, 'wb').write(content)
  return path


def jsonl(documents, field='text'):
  return b''.join(json.dumps({'id': 1, field: document.decode()}).encode() + b'\n' for document in documents)


def both(source):
  return [open_corpus(source, split) for split in sources.SPLITS]


def content(corpus):
  return [corpus[index] for index in range(len(corpus))]


# --- Corpus


def test_a_corpus_gives_documents_and_parts_of_them():
  corpus = sources.Corpus([b'abc', b'', b'\xfe\xff'])
  assert content(corpus) == [b'abc', b'', b'\xfe\xff'] and corpus[-1] == b'\xfe\xff'
  assert corpus.read(0, 1, 3) == b'bc'
  np.testing.assert_array_equal(corpus.lengths, [3, 0, 2])
  with pytest.raises(IndexError):
    corpus[3]


def test_the_fingerprint_tells_content_order_borders_and_split_apart_but_not_names():
  fingerprint = lambda documents, **kwargs: sources.Corpus(documents, **kwargs).fingerprint
  variants = [[b'ab', b'c'], [b'a', b'bc'], [b'c', b'ab'], [b'abc'], [b'ab', b'd']]
  assert len({fingerprint(variant) for variant in variants}) == len(variants)
  assert fingerprint([b'a'], split='train') != fingerprint([b'a'], split='validation')
  assert fingerprint([b'a'], name='x') == fingerprint([b'a'], name='y')
  stored = b'train\n2\n' + struct.pack('<qq', 2, 1) + b'abc'  # the same on every machine
  assert fingerprint([b'ab', b'c'], split='train') == hashlib.sha256(stored).hexdigest()


# --- python_docs


def test_python_docs_is_the_library_and_the_topics_split_without_overlap():
  train, validation = both('python_docs')
  assert not set(content(train)) & set(content(validation))
  assert min(train.lengths.min(), validation.lengths.min()) > 0
  share = validation.lengths.sum() / (train.lengths.sum() + validation.lengths.sum())
  assert 0.03 < share < 0.10
  documents = content(train) + content(validation)
  from pydoc_data.topics import topics

  assert {text.encode() for text in topics.values()} <= set(documents)
  with open(os.path.join(sysconfig.get_paths()['stdlib'], 'json', 'decoder.py'), 'rb') as file:
    assert file.read() in documents


def test_python_docs_is_the_same_each_time():
  assert open_corpus('python_docs', 'train').fingerprint == open_corpus('python_docs', 'train').fingerprint


@pytest.fixture
def library(tmp_path, monkeypatch):
  monkeypatch.setattr(sources.sysconfig, 'get_paths', lambda: {'stdlib': str(tmp_path)})
  for module in range(150):
    (tmp_path / f'package_{module}').mkdir()
    for part in range(2):
      write(tmp_path / f'package_{module}' / f'part_{part}.py', f'module {module}.'.encode())
  return tmp_path


def test_a_module_is_on_one_side_and_tests_tables_and_build_records_are_left_out(library):
  for folder in ('test', 'package_1/tests', 'package_1/idle_test', 'encodings', 'pydoc_data', 'site-packages'):
    (library / folder).mkdir()
    write(library / folder / 'left_out.py', b'LEFT OUT')
  write(library / '_sysconfigdata__linux.py', b'LEFT OUT')
  write(library / 'package_1' / '__init__.py', b'')
  modules = [{text for text in content(corpus) if text.startswith(b'module')} for corpus in both('python_docs')]
  assert len(modules[0] | modules[1]) == 150 and not modules[0] & modules[1] and all(modules)
  assert all(b'LEFT OUT' not in content(corpus) for corpus in both('python_docs'))


def test_topics_that_repeat_each_other_are_one_group():
  line = 'x' * 60
  topics = {'compound': f'{line}\nshort', 'if': line, 'while': 'y' * 60, 'for': f'{"y" * 60}\n{line}', 'del': 'short'}
  groups = sources._topic_groups(topics)
  assert len({groups[topic] for topic in ('compound', 'if', 'while', 'for')}) == 1
  assert groups['del'] == 'del'


def test_a_stripped_python_is_named_with_a_remedy(library, monkeypatch):
  monkeypatch.setitem(sys.modules, 'pydoc_data.topics', None)
  with pytest.raises(FileNotFoundError, match=r'pydoc_data\.topics.*files:GLOB'):
    open_corpus('python_docs', 'train')
  for path in list(library.rglob('*.py'))[50:]:
    path.unlink()
  with pytest.raises(FileNotFoundError, match=r'has only 50: .*files:GLOB'):
    open_corpus('python_docs', 'train')


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


def test_a_file_that_two_globs_name_is_read_once(tmp_path):
  write(tmp_path / 'a.txt', b'one')
  assert len(open_corpus(f'files:{tmp_path}/*.txt,{tmp_path}/a*@all', 'train')) == 1


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
    ('a.jsonl', b'{"text": "x"}\n\n', '*.jsonl#text', r'a\.jsonl:2 is not JSON'),
    ('a.jsonl', b'{"text": "\xff"}\n', '*.jsonl#text', r'a\.jsonl:1 is not JSON'),
    ('a.jsonl', b'[' * 100_000, '*.jsonl#text', r'a\.jsonl:1 is not JSON'),
    ('a.jsonl', b'{"text": 3}\n', '*.jsonl#text', r"a\.jsonl:1: field 'text' is int, not a string"),
    ('a.jsonl', b'{"text": ""}\n', '*.jsonl#text', r"a\.jsonl:1: field 'text' is a document of zero bytes"),
    ('a.jsonl', b'', '*.jsonl#text', r"a\.jsonl' has no line"),
    ('a.jsonl', b'{"text": "x"}\n', '*.jsonl', r"a\.jsonl' needs the field .*#field"),
    ('a.txt', b'x', '*.txt#text', r"names the field 'text', but '.*' matches no \.jsonl file"),
    ('a.txt', b'', '*.txt', r"a\.txt' is a document of zero bytes"),
    ('a.txt.gz', b'', '*.gz', r"a\.txt\.gz' is a document of zero bytes"),
    ('a.tar.gz', b'x', '*', r"a\.tar\.gz' is an archive"),
    ('a.txt', b'x', '*.txt', r"leaves no document for 'validation' \(it has 1 in all\): .*@all"),
    ('a.txt', b'x', '*.md', r"glob '.*\*\.md' matches no file"),
    ('a.txt', b'x', '', r"matches the directory '.*': write '.*/\*\.txt'"),
  ],
)
def test_bad_data_is_one_sentence_with_the_place(tmp_path, name, data, source, message):
  write(tmp_path / name, data)
  with pytest.raises((ValueError, OSError), match=message) as error:
    open_corpus(f'files:{tmp_path}/{source}', 'validation')
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


def test_unknown_sources_and_splits_are_refused():
  with pytest.raises(ValueError, match=r"data source 'c4' is not known: use 'python_docs' or 'files:GLOB'"):
    open_corpus('c4', 'train')
  with pytest.raises(ValueError, match=r"split 'test' is not known: use 'train' or 'validation'"):
    open_corpus('python_docs', 'test')
