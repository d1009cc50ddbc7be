"""How well the chunks of a model agree with units that are known: words, morphemes, the words of a synthetic source."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from evaluation import finite
from evaluation.boundary_metrics import behind, ratio
from layers.capacity import Capacities, Predictor, run_all
from text import Batch, MemoryCorpus
from text.rows import evaluation_batches


@dataclasses.dataclass(frozen=True)
class BoundaryScore:
  """Agreement of predicted with true boundaries, which are the first bytes of chunks and of units.

  The first byte of a document begins a chunk and a unit by definition and is never counted. precision, recall, f1: of
  the others, over all documents together. unit_recall: the share of units that are a chunk exactly, that is with both
  ends and none inside; unit_f1: the harmonic mean of that and the share of chunks that are a unit. bytes_per_chunk,
  bytes_per_unit: the rates of both. precision_1, recall_1, f1_1: of the boundaries with the bytes behind the first ones
  of units, where a chunk begins that waits for a unit's first byte; those in the document, of units that do not begin
  it. None: a share of nothing.
  """

  name: str
  precision: float | None
  recall: float | None
  f1: float | None
  unit_recall: float
  unit_f1: float
  bytes_per_chunk: float
  bytes_per_unit: float
  precision_1: float | None = None
  recall_1: float | None = None
  f1_1: float | None = None


def boundary_scores(
  model, documents: Sequence[bytes], starts: Sequence[np.ndarray], *, seq_len: int, batch_size: int
) -> list[BoundaryScore]:
  """Scores of a boundary at 'every byte', then of each stage, outermost first, each followed by random boundaries.

  starts: per document where its units begin, bool [bytes]; in text of several bytes per character a boundary is at the
  first byte of one, and a chunk that begins at another byte is wrong. seq_len, batch_size: as for `evaluate`, and rows
  are made in the same way, so any length of document goes. 'random like stage s' is what boundaries at random
  bytes with the rate of that stage get in expectation (f1: the ratio of expectations, their number being fixed).

  Raises ValueError for documents without bytes, starts of another length, and a model without stages; NotFiniteError,
  a ValueError, for a model whose boundary probabilities are nan.
  """
  if not sum(map(len, documents)):
    raise ValueError('there are no boundaries to score: the documents hold no byte')
  if [len(document) for document in documents] != [len(of_document) for of_document in starts]:
    raise ValueError('every document needs its unit starts, one truth value per byte')
  lengths = list(map(len, documents))
  true_T = np.concatenate([np.asarray(of_document, bool) for of_document in starts])
  scores = [compared('every byte', lengths, np.ones_like(true_T), true_T)[0]]
  for stage, chunk_T in enumerate(chunk_starts(model, documents, seq_len=seq_len, batch_size=batch_size)):
    scores += compared(f'stage {stage}', lengths, chunk_T, true_T)
  if len(scores) == 1:
    raise ValueError('the model has no stage that chunks: there are no boundaries to score')
  return scores


def compared(name: str, lengths: Sequence[int], chunk_T: np.ndarray, true_T: np.ndarray) -> tuple[BoundaryScore, ...]:
  """Scores of where chunks begin against where units do, in documents of these lengths laid end to end, [T] bool each,
  and of random boundaries at the same rate; the first byte of a document begins one of both, whatever is given.
  """
  first_N = np.cumsum([0, *lengths])[:-1][np.asarray(lengths) > 0]
  chunk_T, true_T = (np.array(starts_T, bool) for starts_T in (chunk_T, true_T))
  chunk_T[first_N] = true_T[first_N] = True
  return _score(name, chunk_T, true_T, first_N), _random(f'random like {name}', chunk_T, true_T, first_N)


def unit_starts(units: Sequence[bytes]) -> np.ndarray:
  """Where units begin in their concatenation, bool [bytes]; for the documents of a gold corpus."""
  starts = np.zeros(sum(map(len, units)), bool)
  starts[np.cumsum([0, *map(len, units)])[:-1]] = True
  return starts


def _score(name: str, chunk_T, true_T, first_N) -> BoundaryScore:
  """From where chunks and units begin in all documents laid end to end."""
  chunks, units, documents = int(chunk_T.sum()), int(true_T.sum()), len(first_N)
  both = chunk_T & true_T
  # A unit is a chunk if the next start of either kind after a common start is common too, or the end of all.
  common = both[np.flatnonzero(chunk_T | true_T)]
  exact = int((common & np.append(common[1:], True)).sum())
  hits = int(both.sum()) - documents
  behind_T = _behind(true_T, first_N)
  at_1 = int((chunk_T & behind_T).sum()), int(behind_T.sum())
  return _from_counts(name, hits, chunks - documents, units - documents, exact, documents, len(true_T), at_1)


def _random(name: str, chunk_T, true_T, first_N) -> BoundaryScore:
  """Expected counts where every byte but the first of a document begins a chunk with the same probability."""
  documents, size = len(first_N), len(true_T)
  inner = size - documents
  rate = (int(chunk_T.sum()) - documents) / inner if inner else 0.0
  begin = np.flatnonzero(true_T)
  length = np.diff(begin, append=size)
  given = np.isin(begin, first_N)  # a unit that begins a document; its end is given where the next one does too
  drawn = (~given).astype(int) + ~np.append(given[1:], True)
  exact = float((rate**drawn * (1 - rate) ** (length - 1)).sum())
  true, true_1 = len(begin) - documents, int(_behind(true_T, first_N).sum())
  return _from_counts(name, rate * true, rate * inner, true, exact, documents, size, (rate * true_1, true_1))


def _behind(true_T, first_N) -> np.ndarray:
  """[T] bool: the bytes behind those where units begin, documents apart; their first bytes are no such beginning."""
  begin_T = true_T.copy()
  begin_T[first_N] = False
  behind_T = behind(begin_T)
  behind_T[first_N] = False
  return behind_T


def _from_counts(name, hits, predicted, true, exact, documents, size, at_1) -> BoundaryScore:
  """at_1: hits, and places that may be hit, one byte behind the beginnings of units."""
  chunks, units = predicted + documents, true + documents
  return BoundaryScore(
    name=name,
    precision=ratio(hits, predicted),
    recall=ratio(hits, true),
    f1=ratio(2 * hits, predicted + true),
    unit_recall=exact / units,
    unit_f1=2 * exact / (chunks + units),
    bytes_per_chunk=size / chunks,
    bytes_per_unit=size / units,
    precision_1=ratio(at_1[0], predicted),
    recall_1=ratio(*at_1),
    f1_1=ratio(2 * at_1[0], predicted + at_1[1]),
  )


def chunk_starts(model, documents: Sequence[bytes], *, seq_len: int, batch_size: int) -> list[np.ndarray]:
  """Where chunks begin in all documents laid end to end, one bool [T] per stage; arguments as of `boundary_scores`."""
  corpus, found = MemoryCorpus(documents), []
  batches = evaluation_batches(corpus, marks=model.marks, seq_len=seq_len, batch_size=batch_size)
  run = lambda rows, capacities: find_boundaries(model, rows.batch, capacities)
  for rows, (stages, is_finite_BxL) in run_all(run, Predictor.of(model, seq_len), batches):
    finite.check(np.broadcast_to(is_finite_BxL, rows.scored_BxL.shape)[rows.scored_BxL], corpus, rows.pieces)
    is_text_BxL, _ = rows.batch.text_and_ends(rows.scored_BxL)
    found.append(tuple(stage_BxL[is_text_BxL] for stage_BxL in stages))
  return [np.concatenate(of_stage) for of_stage in zip(*found, strict=True)]


@functools.partial(jax.jit, static_argnums=2)
def find_boundaries(model, batch: Batch, capacities: Capacities) -> tuple[tuple[tuple[jax.Array, ...], Any], Any]:
  """((segmentations, where all probabilities are finite), needed) of a batch; for `layers.capacity.run_all`."""
  output = model(batch, capacities=capacities)
  return (output.segmentations, finite.everywhere(output.boundary_probabilities)), output.needed
