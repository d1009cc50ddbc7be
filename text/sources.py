"""Where text comes from: a source is one string in a config, and a mixture is a list of (source, weight).

python_docs                      the documentation and library of this Python
files:GLOB[#field][,GLOB][@all]  text files, JSON lines, Parquet; each also .gz and .zst (text/files.py)
tfds:NAME[/CONFIG][:SPLIT][#f]   a TensorFlow Dataset (text/tfds_source.py)
prepared:DIR                     what `python -m text.prepare` wrote (text/prepared.py)
corpus:NAME[/PART]               what `python -m text.corpora fetch` wrote (text/corpora)
synthetic:markov(...)            text of known entropy (text/synthetic.py); also synthetic:words(...)
noise:NAME(...):SOURCE           another source with every document perturbed (text/noise.py)

A split of `files:` is by hash here; whether a run asks for one is decided in text/texts.py.
"""

import dataclasses
import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from text import noise as noise_lib
from text.corpus import Corpus, Group, MemoryCorpus
from text.files import Files
from text.noise import Noise
from text.python_docs import PythonDocs
from text.stored import FetchedCorpus, Prepared

MOST_NOISES = 20
SPLITS = ('train', 'validation', 'test')


class Source(Protocol):
  """What a source string names.

  division: who says which document is in which split: 'own', the source; 'hash', the hash of each document; 'none',
  nobody: every split is all of the text.
  """

  division: str

  def open(self, split: str) -> Corpus:
    """The documents of one split."""

  def groups(self) -> Sequence[Group] | Mapping[str, Sequence[Group]]:
    """All documents, for `text.prepare`; by split where the source has its own."""


def parse(source: str) -> Source:
  """The source that a string names; raises ValueError for an unknown form, before anything is read."""
  if not isinstance(source, str):
    raise ValueError(f'a data source is a string, got {source!r}')
  kind, _, rest = source.partition(':')
  if source == 'python_docs':
    return PythonDocs()
  if kind not in _KINDS or not rest:
    near = difflib.get_close_matches(kind, [*_KINDS, 'python_docs'], n=1)
    raise ValueError(
      f"data source '{source}' is not known{f' (did you mean {near[0]}?)' if near and near[0] != kind else ''}: use "
      f"'python_docs', or one of {', '.join(f'{known}:...' for known in _KINDS)}, e.g. 'files:books/*.txt'"
    )
  return _KINDS[kind](rest)


def open_corpus(source: str, split: str) -> Corpus:
  """Opens one split, 'train', 'validation' or 'test', of a source.

  Raises ValueError, or OSError for files, with one sentence: unknown source or split, nothing there, an unreadable or
  damaged file, an empty document, a split without documents.
  """
  if split not in SPLITS:
    raise ValueError(f"split '{split}' is not known: use {', '.join(map(repr, SPLITS))}")
  corpus = parse(source).open(split)
  if not len(corpus):
    raise ValueError(f"data source '{source}' has no document in its split '{split}': name another source or split")
  return corpus


def without_noise(source: str) -> str:
  """The text that a source perturbs, or itself; raises ValueError where it names none."""
  clean = source
  while clean.startswith('noise:'):
    _, separator, clean = clean.removeprefix('noise:').partition(':')
    if not separator:
      raise ValueError(f"data source '{source:.200}' names no text: write noise:NAME(...):SOURCE")
  return clean


def document_groups(source: str) -> Sequence[Group] | Mapping[str, Sequence[Group]]:
  """All documents of a source in parts that can be read on their own; by split where the source has its own splits."""
  return parse(source).groups()


@dataclasses.dataclass(frozen=True)
class _Noisy:
  spec: str

  @property
  def division(self) -> str:
    return parse(without_noise(f'noise:{self.spec}')).division

  def open(self, split: str) -> Corpus:
    noise, source = self._parsed()
    return _Perturbed(source.open(split), noise, self.spec, split)

  def groups(self) -> Sequence[Group] | Mapping[str, Sequence[Group]]:
    noise, source = self._parsed()
    groups = source.groups()
    noisy = lambda of_split: [_NoisyGroup(group, noise, f'{self.spec} {group.key}') for group in of_split]
    return {name: noisy(part) for name, part in groups.items()} if isinstance(groups, Mapping) else noisy(groups)

  def _parsed(self) -> tuple[Noise, Source]:
    without_noise(f'noise:{self.spec}')
    perturbation, _, inner = self.spec.partition(':')
    if inner.count('noise:') >= MOST_NOISES:
      raise ValueError(f"data source 'noise:{self.spec:.50}…' has more than {MOST_NOISES} noises, one upon the other")
    return noise_lib.parse(perturbation), parse(inner)


class _Perturbed(MemoryCorpus):
  """Documents with noise, which know what they were."""

  def __init__(self, clean: Corpus, noise: Noise, spec: str, split: str):
    self._original_lengths, self._original_digests = clean.original_lengths, []

    def documents() -> Iterator[bytes]:
      for number, document in enumerate(clean):
        self._original_digests.append(clean.original_digest(number))
        yield noise(document, noise_index(document))

    shown = f' ({split})' if clean.name.endswith(f' ({split})') else ''
    super().__init__(documents(), f'noise:{spec}{shown}', split, whole=clean.whole, side=clean.side, notes=clean.notes)

  @property
  def original_lengths(self) -> np.ndarray:
    return self._original_lengths

  def original_digest(self, document: int) -> bytes:
    return self._original_digests[document]


@dataclasses.dataclass(frozen=True)
class _NoisyGroup:
  group: Group
  noise: Noise
  key: str

  def __iter__(self) -> Iterator[bytes]:
    return (self.noise(document, noise_index(document)) for document in self.group)


def noise_index(document: bytes) -> int:
  """Seeds a document's noise by its content: equal in every order, split and mixture."""
  return int.from_bytes(hashlib.sha256(document).digest()[:8], 'big')


def _tfds(spec: str) -> Source:
  from text.tfds_source import Tfds

  return Tfds(spec)


def _synthetic(spec: str) -> Source:
  from text import synthetic

  return synthetic.parse(spec)


_KINDS = {
  'files': Files,
  'tfds': _tfds,
  'prepared': Prepared,
  'corpus': FetchedCorpus,
  'synthetic': _synthetic,
  'noise': _Noisy,
}
