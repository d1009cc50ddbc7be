"""How many boundaries change where a row begins one byte later: whether chunks are the text's or the window's."""

import dataclasses
import itertools

import numpy as np

from evaluation import finite
from evaluation.boundaries import find_boundaries
from evaluation.boundary_metrics import ratio
from layers.capacity import Predictor, run_all
from text import Corpus
from text.rows import Rows, evaluation_batches


@dataclasses.dataclass(frozen=True)
class Flips:
  """Of one stage. bytes: compared; flips: bytes at which a chunk begins in one of the two rows alone. per_boundary: of
  the boundaries that the row has which does not begin later; per_byte: of the bytes. None: a share of nothing.
  """

  per_boundary: float | None
  per_byte: float | None
  flips: int
  bytes: int


def boundary_flips(
  model, corpus: Corpus, *, seq_len: int, batch_size: int, context: int | None = None
) -> tuple[Flips, ...]:
  """Of every stage, outermost first: what changes where rows begin one byte later.

  Rows are those of `evaluate`. Each row that begins inside a document is run twice, as it is and without its first
  symbol, and the marks of the document that it continues are compared, also those that the row repeats as context. Not
  compared: the first symbol of either row, which begins a chunk by force, the second for a stage that emits at ends,
  since an emission is forced there, and the document's end. Documents that a row holds whole, and other rows, say
  nothing. So flips need two passes over the text.

  Raises ValueError for a model without stages, and for the arguments as `evaluate`; NotFiniteError, a ValueError, for a
  model whose boundary probabilities are nan.
  """
  if batch_size < 1:
    raise ValueError(f'batch_size must be at least 1, got {batch_size}')
  options = {'marks': model.marks, 'seq_len': seq_len, 'batch_size': batch_size, 'context': context}
  pairs = zip(*(evaluation_batches(corpus, **options, later=later) for later in (0, 1)), strict=True)
  run = lambda rows, capacities: find_boundaries(model, rows.batch, capacities)
  results = run_all(run, Predictor.of(model, seq_len), itertools.chain.from_iterable(pairs))
  counts = None  # of each stage: flips, boundaries, bytes
  for (rows, found), (later, found_later) in zip(results, results, strict=True):
    for of_rows, (_, is_finite_BxL) in ((rows, found), (later, found_later)):
      is_finite_BxL = np.broadcast_to(is_finite_BxL, of_rows.scored_BxL.shape)
      finite.check(is_finite_BxL[of_rows.scored_BxL], corpus, of_rows.pieces)
    stages = zip(found[0], found_later[0], strict=True)
    emits = itertools.chain(model.emits, itertools.repeat('starts'))  # of models that do not say it
    more = np.array([_compared(rows, *of_stage, kind) for of_stage, kind in zip(stages, emits, strict=False)])
    counts = more if counts is None else counts + more
  if not len(counts):
    raise ValueError('the model has no stage that chunks: there are no boundaries that could flip')
  return tuple(
    Flips(ratio(flips, boundaries), ratio(flips, size), flips, size) for flips, boundaries, size in counts.tolist()
  )


def _compared(rows: Rows, here_BxL: np.ndarray, later_BxL: np.ndarray, emits: str) -> tuple[int, int, int]:
  """(flips, boundaries, bytes) of the documents that rows continue."""
  is_text_BxL, _ = rows.batch.text_and_ends()
  compared_BxL = is_text_BxL & (rows.batch.segment_ids == 1)  # a row continues at most the first of its documents
  compared_BxL &= np.isin(np.arange(len(here_BxL)), rows.pieces.row[rows.pieces.start > 0])[:, None]
  compared_BxL[:, : 3 if emits == 'ends' else 2] = False
  flips_BxL = (here_BxL[:, 1:] != later_BxL[:, :-1]) & compared_BxL[:, 1:]
  return int(flips_BxL.sum()), int((here_BxL & compared_BxL).sum()), int(compared_BxL.sum())
