"""Which documents a run trains on and which it validates on: what `data.source` and `data.validation` of a config mean.

A source that says itself what is held out (python_docs, prepared:, corpus:, synthetic:, tfds: without a split) is
trained on and validated on as it says. `tfds:NAME:SPLIT` and `files:...@all` are taken whole. The documents of other
`files:` are divided by hash only where training and validation name the same files, also behind `noise:`, by whatever
glob; files that are trained on alone, or validated on alone, are all used.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from text import sources
from text.command_line import sentence
from text.corpus import Corpus
from text.files import WHOLE, Files
from text.mixture import Mixture, parse_sources
from text.overlap import overlap


@dataclasses.dataclass(frozen=True)
class Texts:
  """training: sources with weights; validation: sources, each scored apart. holds_out: validation is the held-out part
  of each training source, since the config names no other.

  What is opened here raises ValueError or OSError with one sentence: see `text.open_corpus`.
  """

  training: tuple[tuple[str, float], ...]
  validation: tuple[str, ...]
  holds_out: bool
  _files: dict[str, set] = dataclasses.field(default_factory=dict, repr=False, compare=False)

  @classmethod
  def of(cls, source: Any, validation: Any = '') -> 'Texts':
    """From values of a config; without a source, of a model that was trained elsewhere.

    Raises ValueError, which begins with the key, for what is no source, mixture or list of sources; nothing is opened.
    """
    try:
      training = tuple(parse_sources(source)) if source else ()
    except ValueError as error:
      raise ValueError(f'data.source: {error}') from None
    named = [] if validation in ('', None) else [validation] if isinstance(validation, str) else validation
    is_list = isinstance(named, Sequence) and all(isinstance(name, str) and name for name in named)
    if not is_list or len(set(named)) < len(named):
      raise ValueError(f"data.validation must be '', a source of text or a list of different ones, got {validation!r}")
    return cls(training, tuple(named) or tuple(name for name, _ in training), not named)

  def check(self) -> None:
    """Raises ValueError where the held-out part of a source is asked for that has none; nothing is opened."""
    for name in self.validation if self.holds_out else ():
      if _clean(name).division == 'none':
        why = 'takes all of its documents' if name.endswith(WHOLE) else 'names one split and no other'
        raise ValueError(
          f"data.validation is '', the held-out part of each source, but '{name}' has none, since it {why}: name the "
          'text to validate on, in data.validation or as --source of eval.py'
        )

  def open_training(self) -> Mixture:
    """The documents that are trained on."""
    corpora = [self._open(name, self._is_divided(name), 'train') for name, _ in self.training]
    return Mixture(corpora, [weight for _, weight in self.training])

  def open_validation(self) -> dict[str, Corpus]:
    """Source -> the documents of it that are validated on."""
    self.check()
    return {name: self.open(name) for name in self.validation}

  def open(self, source: str, split: str = 'validation') -> Corpus:
    """A split of any source: of files that the run trains on in part, that split of them; of other files all."""
    divided = [name for name, _ in self.training if self._is_divided(name)]
    return self._open(source, any(self._share(source, name) for name in divided), split)

  def _is_divided(self, trained_on: str) -> bool:
    return _clean(trained_on).division == 'hash' and any(self._share(trained_on, name) for name in self.validation)

  def _open(self, source: str, is_divided: bool, split: str) -> Corpus:
    takes_all = _clean(source).division == 'hash' and not is_divided
    return sources.open_corpus(f'{source}{WHOLE}' if takes_all else source, split)

  def _share(self, one: str, other: str) -> bool:
    """Whether two sources are, but for noise, files of which some are the same."""
    first, second = _clean(one), _clean(other)
    if not isinstance(first, Files) or not isinstance(second, Files):
      return False
    specs = [source.spec.removesuffix(WHOLE) for source in (first, second)]
    return specs[0] == specs[1] or not self._files_of(specs[0]).isdisjoint(self._files_of(specs[1]))

  def _files_of(self, spec: str) -> set[tuple]:
    """What tells the files of a glob, and their fields, from others; none where they cannot be read any more."""
    if spec not in self._files:
      try:
        self._files[spec] = {(group.identity, group.field) for group in Files(spec).groups()}
      except (OSError, ValueError):  # whoever opens them says so
        self._files[spec] = set()
    return self._files[spec]


def _clean(source: str) -> sources.Source:
  return sources.parse(sources.without_noise(source))


def described(training: Mixture, validation: Mapping[str, Corpus], max_bytes: int = 0) -> Iterator[str]:
  """Lines for people at the start of a run: what it trains on and validates on, and what both have in common.

  max_bytes: of each text that is validated on, 0 = all.
  """
  for verb, most, corpora in (('trains', 0, training.corpora), ('validates', max_bytes, validation.values())):
    for corpus in corpora:
      yield sentence(f'{verb} on {corpus.title(most)}')
      yield from (f'  {note}' for note in corpus.notes)
  for corpus in validation.values():
    yield from (sentence(f'{corpus.name}: {said}') for said in overlap(corpus, training.corpora).sentences())
