import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation import compressed_bits_per_byte, corpora, first_bytes, markov_bits_per_byte
from text import MemoryCorpus, gold
from text.prepare import prepare

ROOT = Path(__file__).parents[2]
TRAIN = [f'Document {number} says: {"one two three " * (number % 7)}\n'.encode() for number in range(60)]
HELD_OUT = [f'Document {number} says: {"three two one " * (number % 5)}\n'.encode() for number in range(60, 70)]


@dataclasses.dataclass(frozen=True)
class Documents:
  documents: list[bytes]
  key: str

  def __iter__(self):
    return iter(self.documents)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('corpora')

  def make(name, kind='text', **splits):
    groups = {split: [Documents(documents, split)] for split, documents in splits.items()}
    metadata = {'kind': kind, 'licence': 'MIT | none'}
    prepare(groups, root / name / '1.0.0', source=name, splits=None, metadata=metadata)

  make('prose/plain', train=[*TRAIN, TRAIN[3]], validation=HELD_OUT, test=[b'never read'])
  make('prose/other', test=HELD_OUT)
  make('words', 'gold', train=[gold.join([b'ab', b'c'])], test=[gold.join(['中国'.encode(), b'd', b'e'])])
  return root


def test_text_is_described_by_what_a_model_has_to_beat(root):
  row = corpora.describe(root / 'prose/plain/1.0.0', 'prose/plain')
  counted = markov_bits_per_byte(TRAIN, HELD_OUT, corpora.ORDERS)
  best = min(counted, key=counted.get)
  assert row == {
    'source': 'prose/plain',
    'documents': 71,
    'bytes': sum(map(len, [*TRAIN, *HELD_OUT])) + 10,
    'unique': f'{71 / 72:.2%}',
    'held out': 'validation',
    **compressed_bits_per_byte(HELD_OUT),
    'Markov': f'{counted[best]:.3f} (order {best})',
    'licence': 'MIT | none',
  }


def test_text_without_training_text_has_no_markov_model(root):
  row = corpora.describe(root / 'prose/other/1.0.0', 'prose/other')
  assert (row['held out'], row['Markov'], row['xz -9']) == ('test', '–', compressed_bits_per_byte(HELD_OUT)['xz -9'])


def test_only_the_stated_amounts_are_read(root, monkeypatch):
  monkeypatch.setattr(corpora, 'HELD_OUT_MB', 100e-6)
  monkeypatch.setattr(corpora, 'MARKOV_MB', 1000e-6)
  row = corpora.describe(root / 'prose/plain/1.0.0', 'prose/plain')
  counted, scored = (first_bytes(MemoryCorpus(of), size)[0] for of, size in ((TRAIN, 1000), (HELD_OUT, 100)))
  assert row['gzip -9'] == compressed_bits_per_byte([b''.join(HELD_OUT)[:100]])['gzip -9']
  assert row['Markov'].startswith(f'{min(markov_bits_per_byte(counted, scored, corpora.ORDERS).values()):.3f} ')


def test_gold_counts_units(root):
  row = corpora.describe(root / 'words/1.0.0', 'words')
  assert row == {'gold': 'words', 'documents': 2, 'units': 5, 'bytes': 11, 'licence': 'MIT | none'}


@pytest.mark.parametrize(
  ('names', 'found'),
  [
    ([], ['prose/other', 'prose/plain', 'words']),
    (['prose'], ['prose/other', 'prose/plain']),
    (['words', 'prose/plain'], ['prose/plain', 'words']),
  ],
)
def test_names_choose_corpora_or_parts(root, names, found):
  assert corpora.find(root, names) == {name: root / name / '1.0.0' for name in found}


def test_what_is_not_there_is_named(root, tmp_path):
  with pytest.raises(ValueError, match="no corpus 'verse'"):
    corpora.find(root, ['verse'])
  with pytest.raises(OSError, match='no prepared corpus'):
    corpora.find(tmp_path)


def test_the_command_prints_its_tables(root):
  command = [sys.executable, '-m', 'evaluation.corpora', f'--root={root}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=True, encoding='utf-8')
  lines = done.stdout.splitlines()
  assert lines[0] == f'`python -m evaluation.corpora --root={root}`'
  assert '| words | 2 | 5 | 11 | MIT \\| none |' in lines
  header = lines.index('| source | documents | bytes | unique | held out | gzip -9 | xz -9 | Markov | licence |')
  assert lines[header + 1] == '| --- | ---: | ---: | --- | --- | ---: | ---: | --- | --- |'
  assert lines[header + 3].startswith('| prose/plain | 71 | ')
  done = subprocess.run([*command, 'verse'], cwd=ROOT, capture_output=True, timeout=300, encoding='utf-8')
  assert (done.returncode, done.stdout, done.stderr.count('\n')) == (1, '', 1) and "no corpus 'verse'" in done.stderr
