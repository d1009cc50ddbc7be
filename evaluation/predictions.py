"""What a model says of every byte of documents, each byte given all text before it, in one parallel pass."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import finite
from layers.capacity import Predictor, run_all
from text import Corpus, MemoryCorpus
from text.rows import evaluation_batches


class Predicted(NamedTuple):
  """Of a document of N bytes, [N + 1] each, the last of its end.

  is_right: 1 where greedy decoding of the text before writes what stands there. written: the symbol that it writes.
  nats: of a model of units all at a unit's last byte, 0 at its others; the first two are said at every byte of one.
  """

  document: bytes
  is_right: np.ndarray
  written: np.ndarray
  nats: np.ndarray

  @property
  def bits(self) -> np.ndarray:
    """Of the bytes of text, float64 [N]; they add up to those of `evaluation.evaluate`."""
    return self.nats[:-1].astype(np.float64) / math.log(2)


def predictions(model, corpus: Corpus, *, seq_len: int, batch_size: int) -> Iterator[Predicted]:
  """Of every document of a corpus, in order; rows as in `evaluation.evaluate`.

  Raises NotFiniteError, a ValueError that names the document, for a model whose nats are nan or infinite.
  """
  sizes = np.fromiter(map(len, model.symbols), np.int32) if 'units' in model.marks else None
  waiting: dict[int, list[np.ndarray]] = {}
  batches = evaluation_batches(corpus, marks=model.marks, seq_len=seq_len, batch_size=batch_size)
  predict = lambda rows, capacities: _predict(model, rows.batch, capacities)
  for rows, (is_right_BxL, written_BxL, nats_BxL) in run_all(predict, Predictor.of(model, seq_len), batches):
    finite.check(np.isfinite(nats_BxL)[rows.scored_BxL], corpus, rows.pieces)
    place_N, is_last_N, count_P = rows.bytes_of_units(sizes)
    of_bytes = lambda values_BxL, place_N=place_N: values_BxL.reshape(-1)[place_N]
    values = np.stack([of_bytes(is_right_BxL), of_bytes(written_BxL), of_bytes(nats_BxL) * is_last_N], 1)
    begin = 0
    for document, stop, count in zip(
      *(x.tolist() for x in (rows.pieces.document, rows.pieces.stop, count_P)), strict=True
    ):
      waiting.setdefault(document, []).append(values[begin : begin + count])
      begin += count
      if stop == corpus.lengths[document] + 2:
        yield Predicted(corpus[document], *np.concatenate(waiting.pop(document)).T)


def predict_all(model, documents: Sequence[bytes], *, seq_len: int, batch_size: int) -> list[Predicted]:
  """Of every document, in order; nothing of none."""
  if not documents:
    return []
  return list(predictions(model, MemoryCorpus(documents), seq_len=seq_len, batch_size=batch_size))


@functools.partial(jax.jit, static_argnums=2)
def _predict(model, batch, capacities):
  """([B, L] float32 each: 1 where greedy decoding writes what stands there, what it writes, and nats; needed)."""
  is_right_BxL, written_BxL, nats_BxL, needed = model.likeliest(batch, capacities=capacities)
  return (is_right_BxL.astype(jnp.float32), written_BxL.astype(jnp.float32), nats_BxL), needed
