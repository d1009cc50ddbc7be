"""The command that trains subwords: the same file every time, units within words, and what it refuses."""

import os
import subprocess
import sys

import pytest

from tests.text.tiny_subwords import TEXT
from text import subwords, units, words


@pytest.fixture
def source(tmp_path):
  (tmp_path / 'text.txt').write_bytes(TEXT + b'\xc0\xc0\xc0 \xff\xfe\xff\xfe')
  return f'files:{tmp_path}/text.txt@all'


def run(source, out, *more):
  subwords.main([f'--source={source}', f'--out={out}', '--vocabulary=300', *more])
  return out.read_bytes()


def test_the_same_text_gives_the_same_file_whatever_the_process(source, tmp_path, capsys):
  first = run(source, tmp_path / 'first.json')
  assert '300 units' in capsys.readouterr().out
  command = [sys.executable, '-m', 'text.subwords', f'--source={source}', f'--out={tmp_path}/again.json']
  environment = {**os.environ, 'PYTHONHASHSEED': '7', 'RAYON_NUM_THREADS': '1'}
  subprocess.run([*command, '--vocabulary=300'], check=True, env=environment, capture_output=True)
  assert (tmp_path / 'again.json').read_bytes() == first
  assert sorted(path.name for path in tmp_path.iterdir()) == ['again.json', 'first.json', 'text.txt']


def test_units_are_parts_of_words_and_hold_no_byte_that_utf8_never_has(source, tmp_path):
  run(source, tmp_path / 'subwords.json', '--words=whitespace(max_bytes=64)')
  table = units.parse(f'subword(file={tmp_path / "subwords.json"})').table
  split = words.parse('whitespace(max_bytes=64)')
  found = {document[start:end] for document in [TEXT] for start, end in spans(split(document).tolist())}
  assert len(table) == 300 and all(any(unit in word for word in found) for unit in table[256:])
  assert any(len(unit) > 3 for unit in table)


def spans(ends):
  return list(zip([0, *ends[:-1]], ends, strict=True))


def test_a_file_that_is_there_stays(source, tmp_path):
  out = tmp_path / 'kept.json'
  out.write_text('precious')
  with pytest.raises(FileExistsError, match=r'kept\.json. is there already and stays as it is'):
    run(source, out)
  assert out.read_text() == 'precious'


@pytest.mark.parametrize(
  ('flags', 'error', 'sentence'),
  [
    (['--out=x.json'], ValueError, '--source and --out are needed'),
    (['--source=python_docs', '--out=nowhere/x.json'], FileNotFoundError, "there is no directory 'nowhere'"),
    (['--source=python_docs', '--out=x.json', '--words=bpe'], ValueError, "splitter 'bpe' is not known"),
    (['--source=letters', '--out=x.json'], ValueError, "data source 'letters' is not known"),
    (['--size=3'], ValueError, 'unrecognized arguments: --size=3'),
  ],
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_written(flags, error, sentence, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(error, match=sentence):
    subwords.main(flags)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('vocabulary', 'sentence'), [(256, 'at least 257'), (5000, 'have only [0-9]+ units that occur')]
)
def test_more_units_than_the_words_have_and_none_but_bytes_are_refused(vocabulary, sentence, source, tmp_path):
  with pytest.raises(ValueError, match=sentence):
    run(source, tmp_path / 'x.json', f'--vocabulary={vocabulary}')
