"""Python's own documentation as text: what it is, and how it is split without overlap."""

import os
import sys
import sysconfig

import pytest

from tests.text.opening import both, content, write
from text import open_corpus, python_docs


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
  monkeypatch.setattr(python_docs.sysconfig, 'get_paths', lambda: {'stdlib': str(tmp_path)})
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


def test_a_document_that_mostly_repeats_training_text_is_training_text(library):
  held_out, trained = (
    next(path for path in sorted(library.iterdir()) if python_docs._is_validation(path.name) == is_validation)
    for is_validation in (True, False)
  )
  lines = [f'this is line {number} of a module\n'.encode() for number in range(9)]
  write(trained / 'some.py', b''.join(lines))
  write(held_out / 'part_0.py', b''.join(lines[:4]) + b'and other text of its own\n' * 4)
  write(held_out / 'part_1.py', b''.join(lines[:2]) + b'and other text of its own\n' * 9)
  write(held_out / 'part_2.py', b'short lines\n' * 9)
  write(trained / 'part_2.py', b'short lines\n' * 9 + b'and more\n')
  train, validation = map(content, both('python_docs'))
  sides = [[(held_out / f'part_{part}.py').read_bytes() in side for part in range(3)] for side in (train, validation)]
  assert sides == [[True, False, False], [False, True, True]]


def test_the_held_out_part_of_python_docs_repeats_little_of_the_training_text():
  train, validation = map(content, both('python_docs'))
  there = {line for document in train for line in document.split(b'\n') if len(line) >= 20}
  for document in validation:
    repeated = sum(len(line) + 1 for line in document.split(b'\n') if line in there)
    assert repeated < len(document) / 3
  share = sum(map(len, validation)) / (sum(map(len, validation)) + sum(map(len, train)))
  assert 0.05 < share < 0.07


def test_topics_that_repeat_each_other_are_one_group():
  line = 'x' * 60
  topics = {'compound': f'{line}\nshort', 'if': line, 'while': 'y' * 60, 'for': f'{"y" * 60}\n{line}', 'del': 'short'}
  groups = python_docs._topic_groups(topics)
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
