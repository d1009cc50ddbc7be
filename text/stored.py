"""Text that a command of ours has stored: prepared directories, and fetched corpora, gold ones among them."""

import dataclasses
import os
from collections.abc import Iterator

from text.corpus import Corpus, Group, Joined


def open_gold(name: str, split: str = 'test') -> Corpus:
  """Opens a fetched gold corpus, whose documents are units (`text.gold.units`), e.g. 'chinese_words'."""
  return FetchedCorpus(name, 'gold').open(split)


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A prepared directory. Of a corpus that is for evaluation alone, 'validation' is its only split, 'test'."""

  directory: str
  kind: str = 'text'
  division = 'own'

  def open(self, split: str) -> Corpus:
    from text import prepared

    if split == 'validation' and prepared.read_metadata(self.directory).get('evaluation_only'):
      split = 'test'
    return prepared.open_prepared(self.directory, split, self.kind)

  def groups(self) -> dict[str, list[Group]]:
    from text import prepared

    splits = prepared.read_metadata(self.directory)['splits']
    return {split: [_CorpusGroup(self.open(split))] for split in splits}


@dataclasses.dataclass(frozen=True)
class FetchedCorpus:
  """ROOT/NAME[/PART]/1.0.0, or all parts of NAME."""

  name: str
  kind: str = 'text'
  division = 'own'

  def open(self, split: str) -> Corpus:
    corpora = [part.open(split) for part in self._parts()]
    return corpora[0] if len(corpora) == 1 else Joined(corpora, f'corpus:{self.name} ({split})')

  def groups(self) -> dict[str, list[Group]]:
    merged: dict[str, list[Group]] = {}
    for part in self._parts():
      for split, groups in part.groups().items():
        merged.setdefault(split, []).extend(groups)
    return merged

  def _parts(self) -> list[Prepared]:
    from text import corpora

    corpus, parts = corpora.find(self.name)
    root = corpora.default_root()
    directories = [corpora.directory(root, corpus.name, part.name) for part in parts]
    for directory in directories:
      if not os.path.isdir(directory):
        raise FileNotFoundError(
          f"data source 'corpus:{self.name}' is not there ({directory} is missing): run `python -m text.corpora fetch "
          f'{self.name} --out={root}`, or set HNET_CORPORA to where it lies'
        )
    return [Prepared(directory, self.kind) for directory in directories]


@dataclasses.dataclass(frozen=True)
class _CorpusGroup:
  corpus: Corpus

  @property
  def key(self) -> str:
    return self.corpus.fingerprint

  def __iter__(self) -> Iterator[bytes]:
    return iter(self.corpus)
