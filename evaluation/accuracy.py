"""Whole words right: a measure that compares models of bytes, words and units on the same words, by one rule for all.

A word is right if greedy decoding, given all text before it, writes it and then ends it (next-word accuracy, as in HAT,
arXiv:2501.10322, and "Learn Your Tokens", arXiv:2310.11628). It is not told that the word before has ended: a model of
bytes has to find the first byte likelier than any with which that word would go on, and a model that ends words with a
symbol of its own has to draw that first. All of this is read off one pass over the text, since decoding goes wrong at
the first symbol that is not the likeliest:

* every symbol of the word is the likeliest one given the text before it, ends of words included;
* behind it, greedy decoding writes what stands there (the next byte of the text, or the end of the document), or else
  something else that ends the word, too: the end of the document, or a byte with which another word begins. One pass
  does not say what would follow a byte that is not the text's own. So the splitter is asked about the word before, the
  word, and that byte; if it only begins a character, it counts as a letter, as bytes that are not UTF-8 do there. A
  model's own end of a word ends one where it does not end one in the model's own words.

So a model that puts all mass on the true next byte has every word right, in any script and with any splitter.

What decoding by sampling gets right on average is the probability of the word's symbols, again with the end of the word
before, where that is a symbol, and without its own. Words are told apart by how often the training text has them.

In a model that spells words with units of several bytes, symbols are units. One that reaches over the end of a word is
part of both words, and its probability counts to the word of its last byte.
"""

import codecs
import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evaluation.predictions import predictions
from text import EOS, Corpus, words

RARE = 10  # fewer occurrences than this in the training text


@dataclasses.dataclass(frozen=True)
class WordAccuracy:
  """kind: 'all', 'often', 'rare' or 'never' (seen in training). greedy: share of words that are right. sampled: mean
  probability of a word's symbols. None: no such word.
  """

  kind: str
  words: int
  greedy: float | None
  sampled: float | None


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
  batch_size: as for `evaluation.evaluate`. Raises ValueError for an unknown splitter or a corpus without words;
  NotFiniteError, a ValueError that names the document, for a model whose logits are nan or infinite.
  """
  split = words.parse(splitter)
  kinds: dict[str, list[tuple[bool, float]]] = {'often': [], 'rare': [], 'never': []}
  for document, is_right, written, nats in predictions(model, corpus, seq_len=seq_len, batch_size=batch_size):
    wrong = np.concatenate([[0], np.cumsum(is_right == 0)])
    nats = np.concatenate([[0.0], np.cumsum(nats, dtype=np.float64)])
    before = start = 0
    for end in split(document).tolist():
      word = document[start:end]
      right = wrong[end] == wrong[start]
      right = right and (is_right[end] or _ends(document[before:end], int(written[end]), split, model))
      times = seen.get(word, 0)
      kind = 'never' if not times else 'rare' if times < RARE else 'often'
      kinds[kind].append((bool(right), math.exp(nats[start] - nats[end])))
      before, start = start, end
  found = {'all': [item for items in kinds.values() for item in items], **kinds}
  if not found['all']:
    raise ValueError(f'there are no words to score: {corpus.name or "the corpus"} holds no byte')
  return [_summary(kind, items) for kind, items in found.items()]


def _words(document: bytes, ends: np.ndarray) -> list[bytes]:
  ends = ends.tolist()
  return [document[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _ends(text: bytes, symbol: int, split: words.Splitter, model) -> bool:
  """Whether a text's last word ends where a model writes a symbol behind it that is not the one that stands there."""
  if symbol in (EOS, model.word_end):
    return True
  more = model.symbols[symbol]
  if not codecs.utf_8_decode(more, 'replace', False)[1]:  # not one whole character
    more = words.LETTER.encode()
  return len(text) in split(text + more)


def _summary(kind: str, items: Sequence[tuple[bool, float]]) -> WordAccuracy:
  if not items:
    return WordAccuracy(kind, 0, None, None)
  greedy, sampled = np.mean(items, 0).tolist()
  return WordAccuracy(kind, len(items), greedy, sampled)
