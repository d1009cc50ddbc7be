"""Text of known entropy: what a perfect model would score is known exactly, and for words also where they begin.

markov(order, states, p, q, dense, seed)   a Markov source over the characters 0, 1, 2, …
words(vocabulary, zipf, seed)              words of a Zipfian vocabulary, one after the other without spaces

Everything is drawn from raw bits with integer thresholds, so a specification is the same bytes on every machine, and
the probabilities of the source are exact multiples of 2⁻³². train, validation and test are different streams of one
source; validation and test have a twentieth of the documents of train.

Documents are independent. Those of markov have `length` bytes and begin in the stationary distribution; those of words
have `length` words. The end of a document is no part of the entropy: evaluation scores it apart from the bytes, and who
counts bytes (or words) knows it. A model that does not count pays a little, at each place where it believes in an end:
about 1 / length bits per byte (or word), next to nothing.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from text.corpus import Group, MemoryCorpus
from text.specification import arguments, canonical

SPLITS = ('train', 'validation', 'test')
_CHARACTERS = b'0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'
_LETTERS = b'abcdefghijklmnopqrstuvwxyz'
_WORD_LENGTHS = 5  # as many different ones
_BLOCK_SIZE = 2**23  # bytes or words that are drawn side by side, in at most _BLOCK documents
_BLOCK = 1024
_PARAMETERS = 3  # the stream of the source itself, beside one per split
_LIMITS = {
  'order': (1, 64),
  'states': (2, len(_CHARACTERS)),
  'vocabulary': (2, 100_000),
  'zipf': (0, 10),
  'p': (2**-16, 1),
  'q': (2**-16, 1),
  'seed': (0, 2**32 - 1),
  'documents': (1, 10**6),
  'length': (1, 2**20),
}
_DENSE_CONTEXTS = 2**20
_LARGEST = 2**30  # bytes or words of a split
_DEFAULTS = {
  'markov': {
    'order': 2,
    'states': 2,
    'p': None,
    'q': None,
    'dense': False,
    'seed': 0,
    'documents': 1000,
    'length': 8192,
  },
  'words': {'vocabulary': 1000, 'zipf': 1.0, 'seed': 0, 'documents': 1000, 'length': 1500},
}


def parse(spec: str) -> 'Synthetic':
  """The source that a string like 'markov(order=2,states=2,seed=0)' names.

  documents: of the split train. length: of each, in bytes (markov) or words (words). Raises ValueError for an unknown
  source or argument, a value out of range, p or q with other than two switching states, a dense source too large.
  """
  kind, values = arguments(spec, 'synthetic source', _DEFAULTS)
  for name, value in values.items():
    least, most = _LIMITS.get(name, (value, value))
    if value is not None and not least <= value <= most:
      raise ValueError(f"synthetic source '{spec}': {name}={value} must be from {least} to {most}")
  if values['documents'] * values['length'] > _LARGEST:
    raise ValueError(
      f"synthetic source '{spec}': documents={values['documents']} of length={values['length']} are too much "
      f'for memory: their product must be at most {_LARGEST}'
    )
  if kind == 'markov':
    if values['dense'] and values['states'] ** values['order'] > _DENSE_CONTEXTS:
      raise ValueError(
        f"synthetic source '{spec}': a dense source has states^order = {values['states']}^{values['order']} contexts, "
        f'at most {_DENSE_CONTEXTS} can be held: choose a lower order'
      )
    if values['states'] == 2 and not values['dense']:
      values.update({name: 0.8 if values[name] is None else values[name] for name in 'pq'})
    elif values['p'] is not None or values['q'] is not None:
      raise ValueError(f"synthetic source '{spec}': p and q are for the switching source of two states")
  return Synthetic(canonical(kind, values), kind, tuple(values.items()))


@dataclasses.dataclass(frozen=True)
class Synthetic:
  """A parsed specification. name: with all arguments, equal where the text is equal."""

  name: str
  kind: str
  arguments: tuple[tuple[str, int | float | bool | None], ...]
  division = 'own'

  def open(self, split: str) -> 'SyntheticCorpus':
    """All documents of one split, drawn now and kept in memory; raises ValueError for an unknown split."""
    if split not in SPLITS:
      raise ValueError(f"split '{split}' is not known: use {', '.join(SPLITS)}")
    documents = (document for group in self.groups()[split] for document in group)
    return SyntheticCorpus(documents, f'synthetic:{self.name} ({split})', split, self.process())

  def groups(self) -> dict[str, list[Group]]:
    """All documents in parts that can be drawn on their own, by split."""
    values = dict(self.arguments)
    total, size = values['documents'], max(1, min(_BLOCK, _BLOCK_SIZE // values['length']))
    count = {'train': total, 'validation': -(-total // 20), 'test': -(-total // 20)}
    return {
      split: [_Block(self, split, first, min(first + size, count[split])) for first in range(0, count[split], size)]
      for split in SPLITS
    }

  def process(self) -> 'Process':
    """The source itself."""
    return _process(self)


class Process(Protocol):
  """A stationary source of bytes.

  entropy_rate: bits per byte that no model can beat in the long run. unigram_entropy: bits per byte of a model that
  knows how frequent each byte is and nothing else.
  """

  entropy_rate: float
  unigram_entropy: float

  def draw(self, bits_DxL: np.ndarray) -> list[bytes]:
    """Documents from uint32 random numbers [documents, length]."""

  def bits(self, document: bytes) -> float:
    """−log2 of the probability that a document begins with these bytes; inf where it cannot."""


class SyntheticCorpus(MemoryCorpus):
  """Documents with their source.

  entropy_rate, unigram_entropy: of the source, bits per byte. bits_per_byte: −log2 of the probability of exactly these
  documents, per byte: what a perfect model scores here. word_starts(document): where words begin, only for words.
  """

  def __init__(self, documents: Iterator[bytes], name: str, split: str, process: Process):
    super().__init__(documents, name, split)
    self._process = process
    self.entropy_rate, self.unigram_entropy = process.entropy_rate, process.unigram_entropy
    if isinstance(process, Words):
      self.word_starts = process.word_starts

  def source_bits(self, document: bytes) -> float:
    """−log2 of the probability that a document of the source begins with these bytes."""
    return self._process.bits(document)

  @functools.cached_property
  def bits_per_byte(self) -> float:
    return sum(map(self.source_bits, self)) / int(self.lengths.sum())


@dataclasses.dataclass(frozen=True)
class _Block:
  """Documents [first, end) of a split."""

  source: Synthetic
  split: str
  first: int
  end: int

  @property
  def key(self) -> str:
    return f'synthetic:{self.source.name} {self.split} {self.first}-{self.end}'

  def __iter__(self) -> Iterator[bytes]:
    values = dict(self.source.arguments)
    count, length = self.end - self.first, values['length']
    bits = _random_bits(count * length, values['seed'], SPLITS.index(self.split), self.first)
    return iter(self.source.process().draw(bits.reshape(count, length)))


@functools.lru_cache(8)
def _process(source: Synthetic) -> Process:
  values = dict(source.arguments)
  if source.kind == 'words':
    return Words(values['vocabulary'], values['zipf'], values['seed'])
  states, order = values['states'], values['order']
  if values['p'] is not None:
    p, q = (round(values[name] * 2**32) for name in 'pq')
    weights = np.array([[2**32 - p, p], [q, 2**32 - q]])
  else:
    contexts = states**order if values['dense'] else states
    weights = _random_rows(contexts, states, values['seed'])
  return Markov(weights, order, values['dense'])


class Markov:
  """A Markov source of order k over S characters.

  switching (dense=false): X_n depends on X_{n−k} alone, through a matrix of S × S. For two states that is the source of
  Makkuva et al. 2024 (arXiv:2402.04161), on which Rajaraman et al. 2024 ("Toward a Theory of Tokenization in LLMs",
  arXiv:2404.08335) train: it goes from 0 to 1 with probability p and from 1 to 0 with probability q. Transformers on
  its characters stay at the unigram entropy where they switch often, p + q > 1; p = q = 0.8 here if not given: unigram
  entropy 1, entropy rate 0.722. For more states the rows of the matrix are drawn from the seed, uniformly among all
  distributions. It is k independent chains of order 1, interleaved, which the entropy does not tell from one.
  dense: each of the S^k contexts has a distribution of its own, drawn likewise.
  """

  def __init__(self, weights_CxS: np.ndarray, order: int, dense: bool):
    """weights_CxS: integers, each row adds up to 2³². Contexts are numbers of base S, the oldest character first."""
    self.states = weights_CxS.shape[1]
    self.order, self.dense = order, dense
    self.thresholds_CxS = np.cumsum(weights_CxS, -1).astype(np.uint64)
    self.transition_CxS = weights_CxS / 2**32
    pi_C = _stationary(self.transition_CxS)
    self.initial_C = np.diff(_thresholds(pi_C), prepend=0) / 2**32
    self.entropy_rate = float(pi_C @ _entropy(self.transition_CxS))
    self.unigram_entropy = float(_entropy(pi_C.reshape(-1, self.states).sum(0)))

  def draw(self, bits_DxL: np.ndarray) -> list[bytes]:
    bits_DxL = bits_DxL.astype(np.uint64)
    symbols_DxL = np.zeros(bits_DxL.shape, np.int64)
    k, length = min(self.order, bits_DxL.shape[1]), bits_DxL.shape[1]
    initial_C = _thresholds(self.initial_C)
    if self.dense:
      # One draw gives the whole first context, of which a shorter document has the beginning.
      context_D = np.searchsorted(initial_C, bits_DxL[:, 0], 'right')
      for at in range(k):
        symbols_DxL[:, at] = context_D // self.states ** (self.order - 1 - at) % self.states
    else:
      symbols_DxL[:, :k] = np.searchsorted(initial_C, bits_DxL[:, :k], 'right')
    for at in range(k, length):
      if not self.dense:
        context_D = symbols_DxL[:, at - k]
      symbols_DxL[:, at] = (bits_DxL[:, at, None] >= self.thresholds_CxS[context_D]).sum(-1)
      if self.dense:
        context_D = (context_D * self.states + symbols_DxL[:, at]) % len(self.thresholds_CxS)
    return [row.tobytes() for row in np.frombuffer(_CHARACTERS, np.uint8)[symbols_DxL]]

  def bits(self, document: bytes) -> float:
    symbol_of = np.full(256, -1)
    symbol_of[list(_CHARACTERS[: self.states])] = np.arange(self.states)
    symbols_L = symbol_of[np.frombuffer(document, np.uint8)]
    if (symbols_L < 0).any():
      return math.inf
    with np.errstate(divide='ignore'):
      if not self.dense:
        first, rest = self.initial_C[symbols_L[: self.order]], (symbols_L[: -self.order], symbols_L[self.order :])
        return -float(np.log2(first).sum() + np.log2(self.transition_CxS[rest]).sum())
      known = min(self.order, len(symbols_L))
      place_K = self.states ** np.arange(self.order - 1, -1, -1)
      context = int(symbols_L[:known] @ place_K[:known])
      first = self.initial_C[context : context + self.states ** (self.order - known)].sum()
      windows = np.lib.stride_tricks.sliding_window_view(symbols_L[:-1], self.order) if len(symbols_L) > known else []
      rest = self.transition_CxS[windows @ place_K, symbols_L[self.order :]] if len(windows) else np.ones(1)
      return -float(np.log2(first) + np.log2(rest).sum())


class Words:
  """Words drawn independently, the r-th most frequent with a probability proportional to r^−zipf.

  The words are random lower-case letters, of five lengths in a row, the least being what the vocabulary needs; a word's
  length says nothing about its frequency. None begins with another one, so a text is cut into words in one way, from
  left to right. The entropy rate is the entropy of a word divided by the mean length.
  """

  def __init__(self, vocabulary: int, zipf: float, seed: int):
    self.words = _prefix_free_words(vocabulary, seed)
    weights_V = np.rint(np.arange(1, vocabulary + 1) ** -float(zipf) * 2**24).astype(np.uint64) + np.uint64(1)
    totals_V = np.cumsum(weights_V)
    self.thresholds_V = (totals_V * 2**32) // totals_V[-1]  # below 2⁶⁴: 10⁵ words of at most 2²⁴ + 1
    self.probability_V = np.diff(self.thresholds_V, prepend=np.uint64(0)) / 2**32
    self.lengths = sorted(set(map(len, self.words)))
    mean_length = float(self.probability_V @ [len(word) for word in self.words])
    self.entropy_rate = float(_entropy(self.probability_V)) / mean_length
    count_A = np.zeros(256)
    for word, probability in zip(self.words, self.probability_V, strict=True):
      np.add.at(count_A, list(word), probability)
    self.unigram_entropy = float(_entropy(count_A / mean_length))
    self._prefix_probability: dict[bytes, float] = {}
    for word, probability in zip(self.words, self.probability_V.tolist(), strict=True):
      for size in range(1, len(word) + 1):
        self._prefix_probability[word[:size]] = self._prefix_probability.get(word[:size], 0.0) + probability
    self._bits = dict(zip(self.words, (-np.log2(self.probability_V)).tolist(), strict=True))

  def draw(self, bits_DxL: np.ndarray) -> list[bytes]:
    drawn_DxL = np.searchsorted(self.thresholds_V, bits_DxL.astype(np.uint64), 'right')
    return [b''.join([self.words[index] for index in row]) for row in drawn_DxL.tolist()]

  def split(self, text: bytes) -> tuple[list[bytes], bytes]:
    """The words of a text, and the beginning of a word that it may end in; ValueError where it is not of the source."""
    words, at = [], 0
    while at < len(text):
      word = next((text[at : at + size] for size in self.lengths if text[at : at + size] in self._bits), b'')
      if not word:
        if text[at:] in self._prefix_probability:
          break
        raise ValueError(f'the source has no word at byte {at} of the text, {text[at : at + 12]!r}')
      words.append(word)
      at += len(word)
    return words, text[at:]

  def word_starts(self, text: bytes) -> np.ndarray:
    """Where words begin, bool [bytes]; a text may end within a word. Raises ValueError for one not of the source."""
    starts = np.zeros(len(text), bool)
    words, rest = self.split(text)
    at = np.cumsum([0, *map(len, words)])
    starts[at if rest else at[:-1]] = True
    return starts

  def bits(self, document: bytes) -> float:
    try:
      words, rest = self.split(document)
    except ValueError:
      return math.inf
    return math.fsum(self._bits[word] for word in words) - (math.log2(self._prefix_probability[rest]) if rest else 0)


def _random_bits(count: int, *key: int) -> np.ndarray:
  """uint32 [count]; raw bits, which numpy keeps equal between its versions. Keys are of three numbers, all."""
  raw = np.random.Philox(np.random.SeedSequence(key)).random_raw(-(-count // 2))
  return raw.astype('<u8').view('<u4')[:count].astype(np.uint32)


def _random_rows(rows: int, states: int, seed: int) -> np.ndarray:
  """Distributions, uniform among all (Dirichlet(1)), none of their probabilities 0: int64 [rows, S], sums of 2³²."""
  bits = _random_bits(rows * (states - 1), seed, _PARAMETERS, 0).astype(np.uint64).reshape(rows, states - 1)
  cuts = np.sort((bits * (2**32 - states) >> 32).astype(np.int64), -1) + np.arange(1, states)
  return np.diff(cuts, prepend=0, append=2**32)


def _stationary(transition_CxS: np.ndarray) -> np.ndarray:
  """The stationary distribution of contexts, float64 [C]."""
  contexts, states = transition_CxS.shape
  if contexts == states:
    equations = transition_CxS.T - np.eye(states)
    equations[-1] = 1
    return np.linalg.solve(equations, np.eye(states)[-1])
  pi_C = np.full(contexts, 1 / contexts)
  for _ in range(100_000):
    following_C = (pi_C[:, None] * transition_CxS).reshape(states, -1).sum(0)  # the oldest character is forgotten
    change = np.abs(following_C - pi_C).sum()
    pi_C = following_C / following_C.sum()
    if change < 1e-15 * math.sqrt(contexts):
      return pi_C
  raise RuntimeError('this random source mixes too slowly to find its stationary distribution: choose another seed')


def _thresholds(probability: np.ndarray) -> np.ndarray:
  """Cumulative probabilities in units of 2⁻³², uint64; what is lost in rounding is the last one's."""
  thresholds = np.rint(np.cumsum(probability) * 2**32).astype(np.uint64)
  thresholds[-1] = 2**32
  return thresholds


def _entropy(probability: np.ndarray) -> np.ndarray:
  """Bits, along the last axis."""
  return -(probability * np.log2(np.where(probability > 0, probability, 1))).sum(-1)


def _prefix_free_words(count: int, seed: int) -> list[bytes]:
  shortest = math.ceil(math.log(2 * count, len(_LETTERS)))  # then at least half of the shortest ones stay free
  bits = iter(())
  words: dict[bytes, None] = {}
  beginnings: set[bytes] = set()
  batch = 0
  while len(words) < count:
    number = next(bits, None)
    if number is None:
      raw, batch = _random_bits(4 * count, seed, _PARAMETERS, 1 + batch), batch + 1
      bits = iter(raw.view(np.uint64).tolist())
      continue
    number, extra = divmod(number, _WORD_LENGTHS)
    letters = []
    for _ in range(shortest + extra):
      number, letter = divmod(number, len(_LETTERS))
      letters.append(_LETTERS[letter])
    word = bytes(letters)
    own = [word[:size] for size in range(1, len(word) + 1)]
    if word not in beginnings and not any(beginning in words for beginning in own):
      words[word] = None
      beginnings.update(own)
  return list(words)
