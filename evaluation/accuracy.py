"""Whole words right: a measure that compares models of bytes, words and tokens on the same words.

A word counts as right when every byte of it is the likeliest one given all text before it, and after its last byte the
likeliest symbol ends it: a byte that begins another word, the end of the document, or the model's own end-of-word
symbol (HAT, arXiv:2501.10322; "Learn Your Tokens", arXiv:2310.11628). That is next-word accuracy of greedy decoding,
found in one pass: decoding goes wrong at the first byte that is not the likeliest. What decoding by sampling gets right
on average is the probability of the word's bytes (whether it ends there is left out, since only some models have one
symbol for it). Words are told apart by how often the training text has them.

In a model that spells words with units of several bytes, every unit has to be the likeliest. Where words are counted by
another splitter than the model's, a unit that reaches over a word's end makes all words wrong that it has a part in, if
it is not the likeliest, and does not end them; its probability counts to the word of its last byte.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from text import EOS, Corpus, words
from text.packing import evaluation_rows, materialise, scoring

RARE = 10  # fewer occurrences than this in the training text


@dataclasses.dataclass(frozen=True)
class WordAccuracy:
  """kind: 'all', 'often', 'rare' or 'never' (seen in training). greedy: share of words that are right. sampled: mean
  probability of a word's bytes. nan: no such word.
  """

  kind: str
  words: int
  greedy: float
  sampled: float


def word_counts(documents: Iterable[bytes], splitter: str) -> collections.Counter[bytes]:
  """How often each word occurs; the splitter is one of `text.words`. Raises ValueError for an unknown one."""
  split, counts = words.parse(splitter), collections.Counter()
  for document in documents:
    counts.update(_words(document, split(document)))
  return counts


def word_accuracy(
  model, corpus: Corpus, *, splitter: str, seen: Mapping[bytes, int], seq_len: int, batch_size: int
) -> list[WordAccuracy]:
  """Accuracy over all words of a corpus, then over those seen often, rarely (under RARE times) and never.

  splitter: how words are cut for counting, 'hat(max_bytes=64)', the same for every model that is compared; a model with
  words of its own is best asked about those. seen: `word_counts` of the training text with the same splitter. seq_len,
  batch_size: as for `evaluation.evaluate`. Raises ValueError for an unknown splitter or a corpus without words.
  """
  split = words.parse(splitter)
  kinds: dict[str, list[tuple[bool, float]]] = {'often': [], 'rare': [], 'never': []}
  for document, is_right, behind, nats in _predictions(model, corpus, seq_len, batch_size):
    wrong = np.concatenate([[0], np.cumsum(is_right[:-1] == 0)])
    nats = np.concatenate([[0.0], np.cumsum(nats[:-1])])
    start = 0
    for end in split(document).tolist():
      word = document[start:end]
      right = wrong[end] == wrong[start] and _ends(word, int(behind[end]), split, model)
      times = seen.get(word, 0)
      kind = 'never' if not times else 'rare' if times < RARE else 'often'
      kinds[kind].append((right, math.exp(nats[start] - nats[end])))
      start = end
  found = {'all': [item for items in kinds.values() for item in items], **kinds}
  if not found['all']:
    raise ValueError(f'there are no words to score: {corpus.name or "the corpus"} holds no byte')
  return [_summary(kind, items) for kind, items in found.items()]


def _words(document: bytes, ends: np.ndarray) -> list[bytes]:
  ends = ends.tolist()
  return [document[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _ends(word: bytes, symbol: int, split: words.Splitter, model) -> bool:
  """Whether a symbol behind a word ends it; -1: a unit goes on there."""
  if symbol < 0 or symbol in (EOS, getattr(model, 'word_end', None)):
    return symbol >= 0
  table = getattr(model, 'unit_table', None)
  return int(split(word + (table[symbol] if table else bytes([symbol])))[0]) == len(word)


def _summary(kind: str, items: Sequence[tuple[bool, float]]) -> WordAccuracy:
  if not items:
    return WordAccuracy(kind, 0, math.nan, math.nan)
  greedy, sampled = np.mean(items, 0).tolist()
  return WordAccuracy(kind, len(items), greedy, sampled)


def _predictions(model, corpus: Corpus, seq_len: int, batch_size: int):
  """Of each document: its bytes, and for each of them and for EOS whether it is the likeliest, the likeliest symbol
  behind the byte before (another one only where words have an end of their own), and the nats of the byte.
  """
  plan = evaluation_rows(corpus.lengths, seq_len)
  waiting: dict[int, list[np.ndarray]] = {}
  for start in range(0, len(plan), batch_size):
    pieces = plan.pieces(np.arange(start, min(start + batch_size, len(plan))))
    batch = words.mark_for(materialise(corpus, pieces, batch_size, seq_len), model)
    scored_BxL, _ = scoring(corpus, pieces, batch_size, seq_len)
    # Scored positions in reading order are the pieces' scored parts one after the other.
    values = np.stack([np.asarray(part)[scored_BxL] for part in jax.device_get(_predict(model, batch))], 1)
    begin = 0
    for document, first, stop in zip(
      *(x.tolist() for x in (pieces.document, pieces.first_scored, pieces.stop)), strict=True
    ):
      waiting.setdefault(document, []).append(values[begin : begin + stop - first])
      begin += stop - first
      if stop == corpus.lengths[document] + 2:
        yield corpus[document], *np.concatenate(waiting.pop(document)).T


@jax.jit
def _predict(model, batch):
  """[B, L] float32 each: 1 where the likeliest byte stands, the likeliest symbol behind the byte before, nats."""
  previous = lambda x: jnp.pad(x[:, :-1], ((0, 0), (1, 0), *((0, 0),) * (x.ndim - 2)))
  if hasattr(model, 'likeliest'):
    is_right, behind, nats = model.likeliest(batch)
    return is_right.astype(jnp.float32), previous(behind).astype(jnp.float32), nats
  logits, byte_BxL = previous(model(batch).logits), jnp.asarray(batch.bytes).astype(int)
  nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), byte_BxL[..., None], -1)[..., 0]
  best_BxL = logits.argmax(-1)
  return (best_BxL == byte_BxL).astype(jnp.float32), best_BxL.astype(jnp.float32), nats
