"""Decoding: bytes one at a time, while every row ends its words where the splitter finds them.

The splitter is a library of the host. A step hands it each row's text by a callback (`text.marks.Read`) and gets back
which of the last bytes begin words; everything else runs on the device, so that `step` works under jit and scan like
that of any model.

Whether a byte begins a word is decided with the last byte of its character (or when the character breaks off), up to
three bytes later. Then the open word is pooled, the backbone makes one step, and the decoder goes on with the new
vector. Under delivery 'published' the decoder also reads the character's earlier bytes again, with the new vector, so
that its cache is the one that the parallel form would have; the logits that had been given for them stay given.
"""

import dataclasses
from typing import Any

import jax
from jax import Array

from layers.cross import OpenChunk
from text.marks import Read

UNDO = 3  # positions that a late decision about a character may take back
RECENT = UNDO + 1  # positions that one byte may decide about: its own and those that waited


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """State of every row after its last byte. N: bytes a row may have; G: guided layers.

  text: what was read, for the splitter. decided_B: bytes of which it is known whether they begin a word.
  recent_BxRxD: encoder outputs of the last bytes. word_B: index of the open word; pooled: what is decided of it.
  guide_BxGxD: what the decoder's layers add.
  """

  encoder: Any
  decoder: Any
  main: Any
  text: Read
  decided_B: Array
  recent_BxRxD: Array
  word_B: Array
  pooled: OpenChunk
  guide_BxGxD: Array
