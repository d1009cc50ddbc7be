"""Bits per byte on held-out documents: every byte of text is scored exactly once."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from evaluation import finite
from evaluation.boundary_metrics import SHIFTS, BoundaryMetrics, Tally
from layers.capacity import Capacities, Predictor, run_all
from text import Batch, Corpus, MemoryCorpus
from text.rows import evaluation_batches

SCORING = 1  # higher where the same model gets another score on the same text: such scores are not compared


@dataclasses.dataclass(frozen=True)
class Result:
  """What `evaluate` found.

  bits_per_byte: bits on the bytes of text / text_bytes; eos_bits: bits per end of a document, not in the former (None
  where no document ends). bytes_per_chunk: per stage, outermost first, scored bytes of text per chunk that begins at
  one of them (None where none does). documents: how many of the corpus, from its first on; last_document_cut: only the
  beginning of the last of them was scored, because of max_bytes. context: symbols that the row of a continued document
  repeats, unscored. seconds: wall time, compilation included. fingerprint: of the corpus (text.corpus.Corpus).
  bits_at_chunks: per stage, mean bits of the bytes where chunks begin, and of the bytes behind these (None: no byte).
  boundary_metrics: per stage (evaluation.boundary_metrics).
  """

  bits_per_byte: float
  text_bytes: int
  documents: int
  last_document_cut: bool
  eos_bits: float | None
  bytes_per_chunk: tuple[float | None, ...]
  seq_len: int
  context: int
  seconds: float
  fingerprint: str
  bits_at_chunks: tuple[tuple[float | None, float | None], ...] = ()
  boundary_metrics: tuple[BoundaryMetrics, ...] = ()

  @property
  def measured(self) -> dict[str, Any]:
    """What the bits were measured on, as JSON data: scores are compared only where all of it is equal."""
    names = ('fingerprint', 'text_bytes', 'seq_len', 'context')
    return {name: getattr(self, name) for name in names} | {'scoring': SCORING}


def evaluate(
  model,
  corpus: Corpus,
  *,
  seq_len: int,
  batch_size: int,
  max_bytes: int | None = None,
  context: int | None = None,
  progress: Callable[[int, int], None] | None = None,
  batch_sharding: NamedSharding | None = None,
  splitter: str | None = None,
  shifts: int = SHIFTS,
  used: set[Capacities] | None = None,
) -> Result:
  """Bits per byte of a model on a corpus, or on its first max_bytes bytes (None or 0: all of it).

  seq_len: symbols per row. Documents are packed in rows; where a row cuts one, the next row repeats the `context`
  symbols before the cut (None: seq_len // 2) without scoring them again. batch_size: rows per call of the model, the
  same in every call. progress(done, total): called with bytes of text after each batch. batch_sharding: how a batch's
  rows lie on a mesh; every host then passes the same corpus and gets the same result. splitter: of text.words, whose
  words the boundaries are compared with, too. shifts: of each document, that enrichment is compared with. used:
  capacities for which programs of models of this config and rows of this shape have been compiled; others are compiled
  where none has the room, and put into it. Nats are float32 on the device and added up in float64 on the host.

  Raises ValueError for a corpus without bytes, seq_len < 2, batch_size < 1, max_bytes < 0, a context outside
  1..seq_len − 1, an unknown splitter and shifts < 1; NotFiniteError, a ValueError that names the document, for a model
  whose bits are nan or infinite.
  """
  if batch_size < 1:
    raise ValueError(f'batch_size must be at least 1, got {batch_size}')
  began, fingerprint = time.perf_counter(), corpus.fingerprint
  corpus, last_document_cut = first_bytes(corpus, max_bytes)
  scorer = _scorer(NamedSharding(batch_sharding.mesh, PartitionSpec()) if batch_sharding else None)
  total, documents = int(corpus.lengths.sum()), len(corpus)
  nats = eos_nats = 0.0
  text_bytes, ends, chunks, around = 0, 0, np.zeros(0, np.int64), np.zeros(0)
  tally = Tally(corpus.lengths, model.emits, splitter=splitter, shifts=shifts)

  rows = evaluation_batches(
    corpus,
    marks=model.marks,
    seq_len=seq_len,
    batch_size=batch_size,
    context=context,
    last_is_cut=last_document_cut,
  )
  score = lambda of_rows, capacities: scorer(model, _place(of_rows.batch, batch_sharding), capacities)
  for of_rows, (nll_BxL, segmentations, more) in run_all(score, Predictor.of(model, seq_len, used=used), rows):
    probabilities, is_finite_BxL = more
    finite.check(is_finite_BxL[of_rows.scored_BxL], corpus, of_rows.pieces)
    text_BxL, eos_BxL = of_rows.batch.text_and_ends(of_rows.scored_BxL)
    nats += float(nll_BxL.sum(dtype=np.float64, where=text_BxL))
    eos_nats += float(nll_BxL.sum(dtype=np.float64, where=eos_BxL))
    text_bytes, ends = text_bytes + int(text_BxL.sum()), ends + int(eos_BxL.sum())
    found = np.array([(starts_BxL & text_BxL).sum() for starts_BxL in segmentations], np.int64)
    chunks = chunks + found if len(chunks) else found
    beside = np.array([_around(nll_BxL, starts_BxL, text_BxL, of_rows.batch.scored) for starts_BxL in segmentations])
    around = around + beside if len(around) else beside
    at_text = lambda values, text_BxL=text_BxL: tuple(values_BxL[text_BxL] for values_BxL in values)
    tally.add(*at_text((of_rows.batch.bytes, nll_BxL)), at_text(segmentations), at_text(probabilities))
    if progress:
      progress(text_bytes, total)
  if text_bytes != total:
    raise RuntimeError(f'{text_bytes} bytes of text were scored, the documents have {total}')
  return Result(
    bits_per_byte=nats / math.log(2) / text_bytes,
    text_bytes=text_bytes,
    documents=documents,
    last_document_cut=last_document_cut,
    eos_bits=eos_nats / math.log(2) / ends if ends else None,
    bytes_per_chunk=tuple(text_bytes / int(n) if n else None for n in chunks),
    seq_len=seq_len,
    context=seq_len // 2 if context is None else context,
    seconds=time.perf_counter() - began,
    fingerprint=fingerprint,
    bits_at_chunks=tuple(
      tuple(float(total / math.log(2) / count) if count else None for total, count in of_stage) for of_stage in around
    ),
    boundary_metrics=tally.metrics(),
  )


def first_bytes(corpus: Corpus, max_bytes: int | None) -> tuple[Corpus, bool]:
  """The corpus up to its first max_bytes bytes (None or 0: all of it), and whether its last document was cut for that.

  Raises ValueError for max_bytes < 0 and for a corpus without bytes.
  """
  ends_N = np.cumsum(corpus.lengths)
  if not len(ends_N) or not ends_N[-1]:
    raise ValueError(f'there is nothing to score: {corpus.name or "the corpus"} holds no byte')
  if max_bytes and max_bytes < 0:
    raise ValueError(f'max_bytes must be at least 1, or 0 for everything, got {max_bytes}')
  if not max_bytes or max_bytes >= ends_N[-1]:
    return corpus, False
  last = int(np.searchsorted(ends_N, max_bytes))
  length = max_bytes - (int(ends_N[last - 1]) if last else 0)
  documents = [corpus[document] for document in range(last)] + [corpus.read(last, 0, length)]
  return MemoryCorpus(documents, name=f'{corpus.name}, first {max_bytes} bytes'), length < int(corpus.lengths[last])


def _around(nll_BxL, starts_BxL, text_BxL, inside_BxL) -> list[tuple[float, int]]:
  """(nats, bytes) of the bytes of text where chunks begin, and of the bytes of text behind these.

  inside: not the first position of a segment, where a chunk begins in any case.
  """
  at_BxL = starts_BxL & text_BxL
  behind_BxL = np.zeros_like(at_BxL)
  behind_BxL[:, 1:] = (starts_BxL & inside_BxL)[:, :-1] & text_BxL[:, 1:]
  return [(nll_BxL.sum(dtype=np.float64, where=mask), int(mask.sum())) for mask in (at_BxL, behind_BxL)]


@functools.cache
def _scorer(outputs: NamedSharding | None):
  def score(model, batch: Batch, capacities: Capacities):
    output = model(batch, capacities=capacities)
    is_finite_BxL = finite.everywhere((output.nll, *output.boundary_probabilities))
    return (output.nll, output.segmentations, (output.boundary_probabilities, is_finite_BxL)), output.needed

  return jax.jit(score, static_argnums=2, out_shardings=outputs)


def _place(batch: Batch, sharding: NamedSharding | None) -> Batch:
  if sharding is None:
    return batch
  return jax.tree.map(lambda rows: jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__), batch)
