"""Whether chunks begin where text is hard to predict, how even they are, and where in the text they begin.

All of it is of the bytes of text of a corpus, document by document, and comes from the pass that measures bits per
byte: nothing is run twice, and what stands at a byte is what the row that scores it says. docs/metrics.md has what each
number is, what it is compared with, and in what way it goes wrong.

A document's first byte begins a chunk by definition: it opens the first chunk, and is no boundary. In the shapes, T are
the bytes of several documents laid end to end, D the documents, S the stretches in which they are shifted, R the
shifts.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from text import marks, words

SHIFTS = 200
GROUP, DOCUMENTS = 2**20, 2**12  # bytes that wait, and whole documents that are then counted at a time
STRETCH = 2**16  # bytes; longer documents are shifted in stretches of this
WHITESPACE = b' \t\n\v\f\r'


@dataclasses.dataclass(frozen=True)
class Agreement:
  """Of the boundaries with places in the text: precision, recall and their harmonic mean, over all documents together.

  random_*: what as many boundaries at random bytes get in expectation (f1: the ratio of expectations). None: a share of
  nothing.
  """

  precision: float | None
  recall: float | None
  f1: float | None
  random_precision: float | None
  random_recall: float | None
  random_f1: float | None

  @classmethod
  def of(cls, hits: int, predicted: int, true: int, size: int) -> 'Agreement':
    """hits: of `predicted` boundaries at some of `size` bytes, those at one of the `true` places among them."""
    expected = predicted * true / size if size else 0.0
    return cls(
      ratio(hits, predicted),
      ratio(hits, true),
      ratio(2 * hits, predicted + true),
      ratio(expected, predicted),
      ratio(expected, true),
      ratio(2 * expected, predicted + true),
    )


@dataclasses.dataclass(frozen=True)
class InScript:
  """Boundaries at characters of one script (text.marks.SCRIPTS, or 'other'): how many; the share of them that are
  inside a character (None: there are none); the share of the script's bytes that are, so what random boundaries get.
  """

  script: str
  boundaries: int
  inside: float | None
  random: float


@dataclasses.dataclass(frozen=True)
class BoundaryMetrics:
  """Of one stage. None: there is nothing to measure it on.

  enrichment: mean nats of the bytes behind an emission / mean nats of all bytes that have one before them in their
  document, where the emission is the byte at which the stage inside takes its step (`Model.emits`): the first of a
  chunk, or the last of the one before. enrichment_prev: the same of the bytes at these emissions, over all that have
  one behind them. *_z: the distance from the mean of the same with the emissions of every document shifted in a circle
  (of a longer one those of every STRETCH bytes), in standard deviations of that.
  bytes_per_chunk, size_cv: mean size of chunks, and standard deviation / mean; a document's first chunk counts, from
  its first byte of text. random_cv: of chunks that begin at random bytes, at this rate.
  whitespace_0: boundaries at bytes of ASCII white space; whitespace_1: at bytes behind one that are none themselves.
  words_0, words_1: at first bytes of words, and at the bytes behind these.
  inside_codepoint: share of the boundaries at a byte inside a character of UTF-8, in all and by script (those of which
  the text has characters of several bytes); random_inside_codepoint: the share of the bytes.
  entropy_bits: mean entropy of the boundary's probability; rate, f_minus_g: mean of the decisions, F, and F less the
  mean of the probabilities, G. These three are over the slots that the stage looks at: bytes, or chunks of the stage
  outside.
  """

  enrichment: float | None
  enrichment_z: float | None
  enrichment_prev: float | None
  enrichment_prev_z: float | None
  bytes_per_chunk: float
  size_cv: float
  random_cv: float
  whitespace_0: Agreement
  whitespace_1: Agreement
  words_0: Agreement | None
  words_1: Agreement | None
  inside_codepoint: float | None
  random_inside_codepoint: float | None
  scripts: tuple[InScript, ...]
  entropy_bits: float | None
  rate: float | None
  f_minus_g: float | None

  def scalars(self) -> dict[str, float | None]:
    """What a training run writes of a stage, by name."""
    names = ('enrichment', 'enrichment_z', 'enrichment_prev', 'enrichment_prev_z', 'size_cv')
    names += ('inside_codepoint', 'entropy_bits', 'f_minus_g')
    agreement = {'on_whitespace_f1': self.whitespace_0.f1, 'behind_whitespace_f1': self.whitespace_1.f1}
    return {name: getattr(self, name) for name in names} | agreement


def measure_boundaries(
  documents: Sequence[bytes],
  nats: Sequence[np.ndarray],
  starts: Sequence[np.ndarray],
  probabilities: Sequence[np.ndarray] | None = None,
  *,
  emits: str = 'starts',
  splitter: str | None = None,
  shifts: int = SHIFTS,
  seed: int = 0,
) -> BoundaryMetrics:
  """The metrics of one stage from arrays, for a notebook; `evaluate` has those of a model.

  nats, starts, probabilities: per document [bytes] each, float, bool (where chunks begin) and float; of a stage over
  bytes. emits: as in `Model.emits`. The rest: see `Tally`. Raises ValueError, with one sentence, for documents without
  bytes, arrays of other lengths, and as `Tally`.
  """
  if not sum(map(len, documents)):
    raise ValueError('there are no boundaries to measure: the documents hold no byte')
  columns = {'nats': nats, 'starts': starts} | ({} if probabilities is None else {'probabilities': probabilities})
  for name, column in columns.items():
    if [len(values) for values in column] != list(map(len, documents)):
      raise ValueError(f'every document needs its {name}, one a byte')
  tally = Tally(np.array(list(map(len, documents))), (emits,), splitter=splitter, shifts=shifts, seed=seed)
  joined = {name: np.concatenate([np.asarray(values) for values in column]) for name, column in columns.items()}
  tally.add(
    np.frombuffer(b''.join(documents), np.uint8),
    joined['nats'],
    (joined['starts'].astype(bool),),
    (joined['probabilities'],) if probabilities is not None else (),
  )
  return tally.metrics()[0]


class Tally:
  """Counts what the metrics need while a corpus is read, in memory for one document or GROUP bytes of them."""

  def __init__(
    self,
    lengths_N: np.ndarray,
    emits: Sequence[str],
    *,
    splitter: str | None = None,
    shifts: int = SHIFTS,
    seed: int = 0,
  ):
    """lengths: bytes of every document that will come, in order. emits: of each stage, 'starts' or 'ends', as in
    `Model.emits`; a model that does not say it gets no enrichment. splitter: of text.words, whose words the boundaries
    are compared with. shifts: of each document, drawn from the seed; the same whatever the batches are.

    Raises ValueError for no shifts, an unknown splitter, and emissions of another kind.
    """
    if shifts < 1:
      raise ValueError(
        f'shifts must be at least 1, got {shifts}: enrichment is compared with boundaries that are shifted'
      )
    if unknown := set(emits) - {'starts', 'ends'}:
      raise ValueError(f"a stage emits at '{unknown.pop()}': it has to be 'starts' or 'ends'")
    self._lengths = np.asarray(lengths_N, np.int64)
    self._lengths = self._lengths[self._lengths > 0]
    self._emits, self._shifts = tuple(emits), shifts
    self._splitter = None if splitter is None else words.parse(splitter)
    self._random = np.random.default_rng(seed)
    self._waiting: list[tuple] = []
    self._held = 0  # bytes that wait
    self._text = _OfText()
    self._stages: list[_OfStage] | None = None

  def add(
    self,
    bytes_N: np.ndarray,
    nats_N: np.ndarray,
    starts: Sequence[np.ndarray],
    probabilities: Sequence[np.ndarray],
  ) -> None:
    """The next bytes of text of the corpus, with their nats and of every stage, outermost first, whether a chunk begins
    there and with what probability (of no stage, where that is not known).
    """
    if self._stages is None:
      emits = self._emits if len(self._emits) == len(starts) else (None,) * len(starts)
      self._stages = [_OfStage(of_stage, np.zeros(self._shifts, complex)) for of_stage in emits]
    if not self._stages:
      return
    known = probabilities if len(probabilities) == len(starts) else ()
    self._waiting.append((bytes_N, nats_N, *starts, *known))
    self._held += len(bytes_N)
    if self._held >= GROUP and self._held >= self._lengths[0]:
      self._count()

  def metrics(self) -> tuple[BoundaryMetrics, ...]:
    """Of every stage, when all documents have come; () for a model without. Raises RuntimeError where bytes lack."""
    if not self._stages:
      return ()
    if self._held:
      self._count()
    if len(self._lengths) or self._held:
      raise RuntimeError(f'{len(self._lengths)} documents are not complete, {self._held} bytes of them have come')
    return tuple(stage.metrics(self._text) for stage in self._stages)

  def _count(self) -> None:
    """Counts the documents of which all bytes wait."""
    columns = [np.concatenate(column) for column in zip(*self._waiting, strict=True)]
    ends_D = np.cumsum(self._lengths[: self._held])  # no more than these can be complete
    complete = int(np.searchsorted(ends_D, self._held, 'right'))
    done = 0
    for first in range(0, complete, DOCUMENTS):
      lengths_D = self._lengths[first : min(first + DOCUMENTS, complete)]
      until = done + int(lengths_D.sum())
      self._count_documents([column[done:until] for column in columns], lengths_D)
      done = until
    self._lengths, self._held = self._lengths[complete:], self._held - done
    self._waiting = [tuple(column[done:] for column in columns)]

  def _count_documents(self, columns: Sequence[np.ndarray], lengths_D: np.ndarray) -> None:
    bytes_T, nats_T, *rest = columns
    nats_T = np.asarray(nats_T, np.float64)
    group = _Group.of(bytes_T, nats_T, lengths_D, self._splitter, self._random, self._shifts)
    self._text.add(group)
    starts, probabilities = rest[: len(self._stages)], rest[len(self._stages) :]
    for index, stage in enumerate(self._stages):
      p_T = np.asarray(probabilities[index], np.float64) if probabilities else None
      slots_T = group.inner_T
      if index:
        slots_T = slots_T & _slots(starts[index - 1], self._stages[index - 1].emits, stage.emits, group.has_next_T)
      stage.add(group, starts[index], p_T, slots_T)


@dataclasses.dataclass
class _Group:
  """Whole documents laid end to end, and what all stages need to know of them."""

  inner_T: np.ndarray  # all bytes but the first of each document
  has_next_T: np.ndarray  # all but the last
  pair_T: np.ndarray  # complex: nats of the byte behind, and of the byte
  begin_S: np.ndarray  # of stretches, which have all bytes with another behind them
  sizes_S: np.ndarray
  shift_SxR: np.ndarray
  places: Mapping[str, np.ndarray]  # name -> [T] bool, which boundaries are compared with; none a first byte
  inside_T: np.ndarray  # of a character, but its first byte
  script_T: np.ndarray

  @classmethod
  def of(cls, bytes_T, nats_T, lengths_D, splitter: words.Splitter | None, random, shifts: int) -> '_Group':
    inner_T = np.ones(len(bytes_T), bool)
    inner_T[np.cumsum(lengths_D) - lengths_D] = False
    is_space_T = np.isin(bytes_T, np.frombuffer(WHITESPACE, np.uint8))
    places = {
      'whitespace_0': is_space_T & inner_T,
      'whitespace_1': behind(is_space_T) & ~is_space_T & inner_T,
    }
    if splitter is not None:
      begins_T = np.zeros(len(bytes_T), bool)
      ends = np.cumsum(lengths_D)
      for begin, end in zip((ends - lengths_D).tolist(), ends.tolist(), strict=True):
        begins_T[begin + splitter(bytes_T[begin:end].tobytes())[:-1]] = True
      places |= {'words_0': begins_T, 'words_1': behind(begins_T) & inner_T}
    begin_S, sizes_S = _stretches(lengths_D)
    shift_SxR = (random.random((len(sizes_S), shifts)) * sizes_S[:, None]).astype(np.int64)
    pair_T = np.append(nats_T[1:], 0.0) + 1j * nats_T
    characters = _characters(bytes_T, inner_T)
    return cls(inner_T, _before(inner_T), pair_T, begin_S, sizes_S, shift_SxR, places, *characters)


class _OfText:
  """Counts that are of the text alone."""

  def __init__(self):
    self.bytes = self.inner = self.inside = 0
    self.pairs, self.nats = 0, 0j  # of bytes that have another behind them: nats of that, and of the byte
    self.places: dict[str, int] = {}
    self.in_script, self.inside_script = (np.zeros(1 + len(marks.SCRIPTS), np.int64) for _ in range(2))

  def add(self, group: _Group) -> None:
    self.bytes += len(group.inner_T)
    self.inner += int(group.inner_T.sum())
    self.inside += int(group.inside_T.sum())
    self.pairs += int(group.has_next_T.sum())
    self.nats += group.pair_T.sum(where=group.has_next_T)
    for name, place_T in group.places.items():
      self.places[name] = self.places.get(name, 0) + int(place_T.sum())
    self.in_script += _by_script(group.script_T)
    self.inside_script += _by_script(group.script_T[group.inside_T])


@dataclasses.dataclass
class _OfStage:
  """Counts of one stage."""

  emits: str | None
  shifted_R: np.ndarray  # complex, as `nats`, at the shifted emissions
  emissions: int = 0
  nats: complex = 0j  # behind the emissions, and at them
  boundaries: int = 0
  chunks: int = 0
  squares: int = 0  # of the sizes of chunks
  hits: dict[str, int] = dataclasses.field(default_factory=dict)
  by_script: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((2, 1 + len(marks.SCRIPTS)), np.int64))
  slots: int = 0
  drawn: int = 0
  expected: float = 0.0
  entropy: float = 0.0

  def add(self, group: _Group, starts_T: np.ndarray, p_T: np.ndarray | None, slots_T: np.ndarray) -> None:
    boundary_T = starts_T & group.inner_T
    begin_K = np.flatnonzero(starts_T | ~group.inner_T)
    sizes_K = np.diff(begin_K, append=len(starts_T))
    self.chunks += len(sizes_K)
    self.squares += int((sizes_K**2).sum())
    self.boundaries += int(boundary_T.sum())
    for name, place_T in group.places.items():
      self.hits[name] = self.hits.get(name, 0) + int((boundary_T & place_T).sum())
    self.by_script += [_by_script(group.script_T[boundary_T & mask_T]) for mask_T in (True, group.inside_T)]
    if self.emits is not None:
      self._enrich(group, starts_T)
    if p_T is not None:
      p_N = p_T[slots_T]
      self.slots += len(p_N)
      self.drawn += int(starts_T[slots_T].sum())
      self.expected += float(p_N.sum())
      self.entropy += float(_entropy(p_N).sum())

  def _enrich(self, group: _Group, starts_T: np.ndarray) -> None:
    # Emissions at a document's last byte are no pair, nor is the first byte of text behind its BOS.
    emission_T = _before(starts_T) if self.emits == 'ends' else starts_T
    emission_T = emission_T & group.has_next_T
    self.emissions += int(emission_T.sum())
    self.nats += group.pair_T.sum(where=emission_T)
    self.shifted_R += _at_shifted(emission_T, group)

  def metrics(self, text: _OfText) -> BoundaryMetrics:
    after, after_z = self._enrichment(text, np.real)
    prev, prev_z = self._enrichment(text, np.imag)
    mean = text.bytes / self.chunks
    agreement = {
      name: Agreement.of(hits, self.boundaries, text.places[name], text.inner) for name, hits in self.hits.items()
    }
    names = ('other', *(name.lower() for name in marks.SCRIPTS))
    scripts = tuple(
      InScript(name, int(at), ratio(int(inside), int(at)), int(bytes_inside) / int(size))
      for name, at, inside, size, bytes_inside in zip(
        names, *self.by_script, text.in_script, text.inside_script, strict=True
      )
      if bytes_inside
    )
    return BoundaryMetrics(
      enrichment=after,
      enrichment_z=after_z,
      enrichment_prev=prev,
      enrichment_prev_z=prev_z,
      bytes_per_chunk=mean,
      size_cv=math.sqrt(max(self.squares / self.chunks - mean**2, 0.0)) / mean,
      random_cv=math.sqrt(1 - 1 / mean),
      whitespace_0=agreement['whitespace_0'],
      whitespace_1=agreement['whitespace_1'],
      words_0=agreement.get('words_0'),
      words_1=agreement.get('words_1'),
      inside_codepoint=ratio(int(self.by_script[1].sum()), self.boundaries),
      random_inside_codepoint=ratio(text.inside, text.inner),
      scripts=scripts,
      entropy_bits=ratio(self.entropy, self.slots),
      rate=ratio(self.drawn, self.slots),
      f_minus_g=ratio(self.drawn - self.expected, self.slots),
    )

  def _enrichment(self, text: _OfText, side: Callable) -> tuple[float | None, float | None]:
    """(enrichment, its z-score) of one side of the pairs."""
    if not self.emissions or not side(text.nats):
      return None, None
    mean = side(text.nats) / text.pairs
    found, shifted_R = (side(nats) / self.emissions / mean for nats in (self.nats, self.shifted_R))
    deviation = shifted_R.std()
    # Where every byte emits or nats are all equal, what is left of the deviation is rounding.
    is_none = deviation < 1e-9 * shifted_R.mean()
    return float(found), None if is_none else float((found - shifted_R.mean()) / deviation)


def _stretches(lengths_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(begin_S, sizes_S) of the stretches in which documents that lie end to end are shifted."""
  sizes_D = lengths_D - 1  # a last byte has none behind it
  count_D = -(-sizes_D // STRETCH)
  document_S = np.repeat(np.arange(len(lengths_D)), count_D)
  skipped_S = (np.arange(len(document_S)) - (np.cumsum(count_D) - count_D)[document_S]) * STRETCH
  begin_D = np.cumsum(lengths_D) - lengths_D
  return begin_D[document_S] + skipped_S, np.minimum(sizes_D[document_S] - skipped_S, STRETCH)


def _at_shifted(emission_T: np.ndarray, group: _Group) -> np.ndarray:
  """[R] complex: the sum of the pairs at the emissions when those of every stretch are shifted in a circle.

  A product of Fourier transforms has the sums at all shifts; several times faster than to add up 200 of them.
  """
  total_R = np.zeros(group.shift_SxR.shape[1], complex)
  length_S = _smooth(2 * group.sizes_S)  # what a shift carries over the end of a stretch goes on with its beginning
  for length in np.unique(length_S).tolist():
    of_length = np.flatnonzero(length_S == length)
    for some in np.array_split(of_length, -(-len(of_length) * length // (2 * STRETCH))):
      index_1xN, size_Sx1 = np.arange(length)[None], group.sizes_S[some, None]
      at_SxN = group.begin_S[some, None] + index_1xN % size_Sx1
      emissions_SxN = np.fft.fft(emission_T[at_SxN] & (index_1xN < size_Sx1))
      sums_SxN = np.fft.ifft(np.fft.fft(group.pair_T[at_SxN]) * emissions_SxN.conj())
      total_R += np.take_along_axis(sums_SxN, group.shift_SxR[some], 1).sum(0)
  return total_R


def _smooth(sizes_S: np.ndarray) -> np.ndarray:
  """The next numbers k · 2ⁿ with k ≤ 16: few lengths, and such that transforms are fast."""
  step_S = 2 ** np.maximum(np.ceil(np.log2(sizes_S)).astype(np.int64) - 4, 0)
  return -(-sizes_S // step_S) * step_S


def ratio(part: float, whole: float) -> float | None:
  """A share; None: of nothing."""
  return part / whole if whole else None


def behind(mask_T: np.ndarray) -> np.ndarray:
  """[T] bool: the bytes behind those of a mask, also those of the next document."""
  return np.append(False, mask_T[:-1])


def _before(mask_T: np.ndarray) -> np.ndarray:
  """[T] bool: the bytes before those of a mask, also those of the document before."""
  return np.append(mask_T[1:], False)


def _slots(starts_T: np.ndarray, outer: str | None, inner: str | None, has_next_T: np.ndarray) -> np.ndarray:
  """Where a stage's marks of the slots stand that the stage outside makes: at the emission, or one byte on for a stage
  that emits at ends itself.
  """
  if outer == inner:
    return starts_T
  return _before(starts_T) & has_next_T if outer == 'ends' else behind(starts_T)


def _characters(bytes_T: np.ndarray, inner_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """[T] each: whether a byte continues a character of UTF-8 that is valid, and the script of its character."""
  codes_C, sizes_C = marks.characters(bytes_T.tobytes())
  inside_T = np.ones(len(bytes_T), bool)
  inside_T[np.cumsum(sizes_C) - sizes_C] = False
  script_T = np.repeat(marks.scripts()[codes_C], sizes_C)
  # What two documents make a character of together is none.
  character_T = np.repeat(np.arange(len(codes_C)), sizes_C)
  is_none_T = np.isin(character_T, character_T[inside_T & ~inner_T])
  return inside_T & ~is_none_T, np.where(is_none_T, 0, script_T)


def _by_script(script_N: np.ndarray) -> np.ndarray:
  return np.bincount(script_N, minlength=1 + len(marks.SCRIPTS))


def _entropy(p_N: np.ndarray) -> np.ndarray:
  """In bits, of a coin that shows heads with probability p."""
  inside_N = (p_N > 0) & (p_N < 1)
  p_N = np.where(inside_N, p_N, 0.5)
  return np.where(inside_N, -(p_N * np.log2(p_N) + (1 - p_N) * np.log2(1 - p_N)), 0.0)
