"""Numbers about the pieces of a text, whoever cut it: a tokenizer, a rule or a model. Entropies are in bits."""

import collections
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

ALPHA = 2.5  # of the Rényi efficiency (Zouhar et al. 2023, arXiv 2306.16842)


def cut(document: bytes, starts: np.ndarray) -> list[bytes]:
  """The pieces of a document; starts: bool [bytes], the first byte begins one in any case."""
  bounds = [0, *(np.flatnonzero(starts[1:]) + 1).tolist(), len(document)] if document else []
  return [document[begin:end] for begin, end in itertools.pairwise(bounds)]


def renyi_entropy(counts: Iterable[int], alpha: float = ALPHA) -> float:
  """log2 Σ p^α / (1 − α) of a distribution given by counts; α = 1: Shannon's."""
  counts = np.array([count for count in counts if count], np.float64)
  if not len(counts):
    raise ValueError('there is no piece to count')
  p = counts / counts.sum()
  return float(-(p * np.log2(p)).sum()) if alpha == 1 else float(np.log2((p**alpha).sum()) / (1 - alpha))


def efficiency(counts: Iterable[int], alpha: float = ALPHA, vocabulary: int | None = None) -> float | None:
  """Rényi entropy over log2 of the number of types that occur, or of a vocabulary's; with α = 1 the capacity that is
  used (arXiv 2601.09039). None where there is one type.
  """
  counts = list(counts)
  types = sum(map(bool, counts)) if vocabulary is None else vocabulary
  return renyi_entropy(counts, alpha) / math.log2(types) if types > 1 else None


def conditional_entropies(documents: Sequence[Sequence[Hashable]], most: int, orders: int = 3) -> list[float | None]:
  """Entropy of a piece given the 0, 1, … orders − 1 pieces before it in its document, by counts, over the first `most`
  pieces of all. Counts of few pieces give too little: compare texts of equally many. None: there is no such pair.
  """
  found, kept, left = [], [], most
  for document in documents:
    kept.append(document[:left])
    left -= len(kept[-1])
  for order in range(orders):
    joint, before = collections.Counter(), collections.Counter()
    for document in kept:
      for at in range(order, len(document)):
        past = tuple(document[at - order : at])
        joint[past, document[at]] += 1
        before[past] += 1
    found.append(renyi_entropy(joint.values(), 1) - renyi_entropy(before.values(), 1) if joint else None)
  return found


def fertility(words: Mapping[bytes, int], pieces: Mapping[bytes, int]) -> tuple[float, float]:
  """(pieces a word, share of words of several pieces) over the occurrences of words, each cut by itself."""
  total = sum(words.values())
  return (
    sum(count * pieces[word] for word, count in words.items()) / total,
    sum(count for word, count in words.items() if pieces[word] > 1) / total,
  )


def parity(sizes: Sequence[int], reference: Sequence[int]) -> tuple[float, float]:
  """(mean of the ratios over aligned texts, ratio of the totals): TokSuite's parity, and the premium of Petrov et al.
  (arXiv 2305.15425), of a language over another.
  """
  ratios = [size / other for size, other in zip(sizes, reference, strict=True)]
  return sum(ratios) / len(ratios), sum(sizes) / sum(reference)


def gini(values: Sequence[float]) -> float:
  """Gini coefficient: 0 where all are equal."""
  ordered = np.sort(np.asarray(values, np.float64))
  ranks = 2 * np.arange(1, len(ordered) + 1) - len(ordered) - 1
  return float((ranks * ordered).sum() / (len(ordered) * ordered.sum()))
