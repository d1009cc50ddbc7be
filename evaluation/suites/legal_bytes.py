"""How much probability a model puts on bytes that UTF-8 allows, given true text: smooth, and without samples."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import finite
from evaluation.bits_per_byte import SCORING, first_bytes
from evaluation.suites.suite import Options, Refused, Row, Suite
from layers.capacity import Capacities, Predictor, run_all
from layers.contract import BYTES
from text import EOS, Batch, Corpus, marks, utf8
from text.rows import Rows, evaluation_batches


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """mass: mean probability of what may stand at a byte, given the true text before it; illegal_bits: mean of −log2 of
  it, the bits that a model pays for illegal bytes. Of all bytes; of those that begin a character (place: first), where
  the end of the document is legal, too; and of those that continue one (place: inside).
  """
  del config
  check_has_logits(model, options)
  scored, is_cut = first_bytes(corpus, options.max_bytes)
  batches = evaluation_batches(scored, marks=model.marks, last_is_cut=is_cut, **options.rows)
  with_states = ((rows, _states_before(rows, scored)) for rows in batches)
  run = lambda item, capacities: _mass(model, item[0].batch, item[1], capacities)
  counts_2, masses_2, bits_2 = np.zeros(2), np.zeros(2), np.zeros(2)
  for (rows, before_BxL), mass_BxL in run_all(run, Predictor.of(model, options.seq_len), with_states):
    finite.check(np.isfinite(mass_BxL)[rows.scored_BxL], scored, rows.pieces)
    text_BxL, _ = rows.batch.text_and_ends(rows.scored_BxL)
    mass_T = np.clip(mass_BxL[text_BxL].astype(np.float64), np.finfo(np.float32).tiny, 1)
    is_inside_T = ~np.isin(before_BxL[text_BxL], (utf8.START, utf8.ERROR))
    add = lambda values_T, is_inside_T=is_inside_T: np.bincount(is_inside_T, values_T, 2)
    counts_2, masses_2, bits_2 = counts_2 + add(None), masses_2 + add(mass_T), bits_2 - add(np.log2(mass_T))
  sums = zip(('first', 'inside'), counts_2, masses_2, bits_2, strict=True)
  for place, count, mass, bits in (('all', counts_2.sum(), masses_2.sum(), bits_2.sum()), *sums):
    row = functools.partial(Row, bytes=int(count), extras={'place': place})
    yield row('mass', float(mass / count) if count else None)
    yield row('illegal_bits', float(bits / count) if count else None)


def check_has_logits(model: Any, options: Options) -> None:
  """Raises Refused for a model that does not predict bytes one by one."""
  batch = marks.mark(Batch.begun([b''], options.seq_len), model.marks)
  logits = jax.eval_shape(lambda model, batch: model(batch).logits, model, batch)
  if logits is None or logits.shape[-1] != len(BYTES):
    raise Refused('it predicts units, or words and their ends, and states no probabilities of single bytes')


def legal() -> np.ndarray:
  """[state, byte]: whether it may follow; between characters also EOS, the end of the document."""
  table = utf8.transitions() != utf8.ERROR
  table[utf8.START, EOS] = True
  table[utf8.ERROR] = table[utf8.START]
  return table


def _states_before(rows: Rows, corpus: Corpus) -> np.ndarray:
  """The state in front of each position, int8 [B, L]; START where a row or a document begins."""
  behind_BxL, pieces, row_before, at = np.zeros(rows.batch.bytes.shape, np.int8), rows.pieces, -1, 0
  columns = (pieces.row, pieces.document, pieces.start, pieces.stop)
  for row, document, start, stop in zip(*(column.tolist() for column in columns), strict=True):
    at = at if row == row_before else 0
    begin, end = max(start - 1, 0), min(stop - 1, int(corpus.lengths[document]))  # symbol s is byte s − 1
    read = max(begin - 3, 0)  # a character that goes on here has begun by then
    found = utf8.states(corpus.read(document, read, end))[begin - read :]
    first = at + (start == 0)
    behind_BxL[row, first : first + len(found)] = found
    row_before, at = row, at + stop - start
  return np.pad(behind_BxL[:, :-1], ((0, 0), (1, 0)))


@functools.partial(jax.jit, static_argnums=3)
def _mass(model: Any, batch: Batch, before_BxL: np.ndarray, capacities: Capacities) -> tuple[Any, Any]:
  """(probability of what may stand at each position, [B, L] float32; needed)."""
  output = model(batch, capacities=capacities)
  logits_BxLxV = jnp.roll(output.logits.astype(jnp.float32), 1, 1)
  legal_BxLxV = jnp.asarray(legal())[before_BxL.astype(jnp.int32)]
  lse = lambda where: jax.nn.logsumexp(logits_BxLxV, -1, where=where)
  return jnp.exp(lse(legal_BxLxV) - lse(None)), output.needed


SUITE = Suite(measure, SCORING, headline='mass')
