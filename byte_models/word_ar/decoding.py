"""Symbol by symbol: a word is decoded by the local decoder until it ends, then encoded and given to the backbone.

Rows end their words at different steps. What a word's end costs (encoder, backbone, the new prediction's slots) runs
only when some row of the batch ends one; rows that do not are skipped by writes that are dropped.
"""

import dataclasses

import jax
from jax import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WordCache:
  """backbone: caches over all words that ended. decoder: over the slots of the open word. vectors_BxKxD: its
  prediction. word_BxP, size_B: its symbols so far, and how many; bytes_B: how many bytes these have.
  """

  backbone: tuple
  decoder: tuple
  vectors_BxKxD: Array
  word_BxP: Array
  size_B: Array
  bytes_B: Array
