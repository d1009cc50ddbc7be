"""Several corpora in one stream of rows, each with its share; a single corpus is the mixture of one."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from text.batch import Batch
from text.corpus import Corpus
from text.packing import RowStream, permutation
from text.rows import training_batch
from text.sources import open_corpus

BLOCK = 4096  # rows in which every source has exactly its share
_COUNTED = ('documents', 'bytes', 'rows')


class Mixture:
  """Corpora with weights: their shares of the rows. Each has epochs of its own, in orders of its own.

  Rows being full, these are the shares of the positions: of bytes, of BOS and EOS, and of the symbol of context that a
  row may begin with. A corpus of short documents has a larger share of those symbols, so a smaller one of the bytes.

  Every BLOCK rows hold a fixed number of each corpus' rows, in an order drawn from the seed: row r of the mixture
  belongs to a row of a corpus that is found without looking at the rows before r.
  """

  def __init__(self, corpora: Sequence[Corpus], weights: Sequence[float] = (1.0,)):
    """Raises ValueError for weights that are negative, not finite, all zero, or too small to be drawn."""
    self.corpora = tuple(corpora)
    names = [corpus.name for corpus in self.corpora]
    self.counts = _counts(names, weights)

  def identity(self) -> list[dict[str, Any]]:
    """What a checkpoint keeps of the text: JSON data, an entry per corpus. order: which of the seed's its rows have."""
    counts = self.counts.tolist()
    entries = [corpus.identity() | {'rows': count} for corpus, count in zip(self.corpora, counts, strict=True)]
    return [entry | {'order': number} for number, entry in enumerate(entries)]


class MixedRows:
  """The stream of rows of a mixture, without end, with random access."""

  def __init__(self, mixture: Mixture, seq_len: int, seed: int):
    """Raises ValueError for a corpus without documents and seq_len < 2."""
    self._mixture, self._seq_len, self._seed = mixture, seq_len, seed
    # Each has orders of its own: texts of equal lengths, such as one and its noise, would otherwise run in step.
    self._streams = [
      RowStream(corpus.lengths, seq_len, seed, number=number) for number, corpus in enumerate(mixture.corpora)
    ]

  def batch(self, first: int, rows: int, marks: Mapping[str, str] | None = None) -> Batch:
    """Rows [first, first + rows) of the stream, with marks, name -> specification."""
    owners_B, own_rows_B = self.locate(np.arange(first, first + rows))
    places, parts = [], []
    for owner in np.unique(owners_B).tolist():
      places.append(np.flatnonzero(owners_B == owner))
      pieces = self._streams[owner].pieces(own_rows_B[places[-1]])
      corpus = self._mixture.corpora[owner]
      keys = [(self._seed, first + place) for place in places[-1].tolist()]
      parts.append(training_batch(corpus, pieces, len(places[-1]), self._seq_len, marks, keys))
    order_B = np.argsort(np.concatenate(places))
    return jax.tree.map(lambda *of_parts: np.concatenate(of_parts)[order_B], *parts)

  def locate(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(number of the corpus, row of its own stream) of each row."""
    if len(self._streams) == 1:
      return np.zeros_like(rows_B), rows_B
    owners_B, own_rows_B = np.empty_like(rows_B), np.empty_like(rows_B)
    for block in np.unique(rows_B // BLOCK).tolist():
      mine = rows_B // BLOCK == block
      owners, ranks = self._order(block)
      owners_B[mine] = owners[rows_B[mine] % BLOCK]
      own_rows_B[mine] = block * self._mixture.counts[owners_B[mine]] + ranks[rows_B[mine] % BLOCK]
    return owners_B, own_rows_B

  def _order(self, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of a block: its corpus, and how many rows of the same corpus come before it in the block."""
    owners = np.repeat(np.arange(len(self._streams)), self._mixture.counts)[permutation(BLOCK, self._seed, block)]
    ranks = np.empty_like(owners)
    for corpus, count in enumerate(self._mixture.counts.tolist()):
      ranks[owners == corpus] = np.arange(count)
    return owners, ranks


def parse_sources(source: Any) -> list[tuple[str, float]]:
  """[(source, weight), ...] from a config value: one source string, or a list of (source, weight).

  Raises ValueError with one sentence for anything else, for a source that stands there twice, and for bad weights.
  """
  if isinstance(source, str):
    return [(source, 1.0)]
  is_list = isinstance(source, Sequence) and source
  if not is_list or not all(
    isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2 and isinstance(item[0], str)
    for item in source
  ):
    raise ValueError(f'a data source is a string or a list of (source, weight), got {source!r}')
  names = [name for name, _ in source]
  if len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f"data source '{twice}' stands twice in the mixture: give it once, with the sum of the weights")
  _counts(names, [weight for _, weight in source])
  return [(name, float(weight)) for name, weight in source]


def open_mixture(source: Any, split: str = 'train') -> Mixture:
  """Opens the training text of a config: see `parse_sources` and `text.open_corpus`."""
  pairs = parse_sources(source)
  return Mixture([open_corpus(name, split) for name, _ in pairs], [weight for _, weight in pairs])


def differences(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[str]:
  """What differs between the texts that two identities tell of, one phrase each; none where they are equal."""
  if not isinstance(old, list) or not all(isinstance(entry, dict) for entry in old):
    return ['its record of the data is of another version of this code']
  if [_content(entry) for entry in old] == [_content(entry) for entry in new]:
    return []  # perhaps under other names: the same text in another place
  before, after = ({entry['name']: entry for entry in side} for side in (old, new))
  phrases = [f"'{name}' is no longer there" for name in before if name not in after]
  phrases += [f"'{name}' is new" for name in after if name not in before]
  for name in (name for name in before if name in after):
    changed = [key for key in (*_COUNTED, 'fingerprint') if before[name].get(key) != after[name].get(key)]
    counted = [key for key in _COUNTED if key in changed]
    if counted:
      told = (f'{before[name].get(key)} {key} then, {after[name][key]} now' for key in counted)
      phrases.append(f"'{name}' had {', '.join(told)}")
    elif changed:
      phrases.append(f"'{name}' has as many documents and bytes, but other ones")
  return phrases or ['the sources stand in another order']


def is_reordered(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> bool:
  """Whether a text of one identity gives its rows in another order than it did (all texts of a mixture had one)."""
  return any(before.get('order', 0) != after['order'] for before, after in zip(old, new, strict=True))


def _content(entry: dict[str, Any]) -> tuple:
  return entry.get('fingerprint'), entry.get('rows')


def _counts(names: Sequence[str], weights: Sequence[float]) -> np.ndarray:
  """Rows of each corpus in a block: by the largest remainders, so that they sum to BLOCK."""
  for name, weight in zip(names, weights, strict=True):
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < 1e300:
      raise ValueError(
        f"data source '{name}' has the weight {weight!r}: weights are finite numbers from 0 on, below 1e300"
      )
  total = sum(weights)
  if not total:
    raise ValueError(f'all weights of the data sources are 0 ({", ".join(names)}): give at least one a positive weight')
  exact = np.array(weights, np.float64) * BLOCK / total
  counts = np.floor(exact).astype(np.int64)
  counts[np.argsort(counts - exact, kind='stable')[: BLOCK - counts.sum()]] += 1
  for name, weight, count in zip(names, weights, counts.tolist(), strict=True):
    if not count:
      remedy = 'leave it out' if not weight else f'raise it to {total / BLOCK:.3g} or leave the source out'
      raise ValueError(
        f"data source '{name}' has the weight {weight!r} of {total:g} and would never be drawn: {remedy}"
      )
  return counts
