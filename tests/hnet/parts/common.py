"""What tests of parts share: sizes, documents, parts whose parameters do something, chunks as lists."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hnet import parts
from hnet.parts import Cut, Sizes
from layers.chunks import Level
from layers.paths import flatten, rebuild
from tests.layers.common import random, segment_ids

SIZES = Sizes(8, 12, blocks=2)
IDS = segment_ids([12], [5, 4], [1, 3, 8], [2])
ROWS, LENGTH = IDS.shape
STARTS = np.diff(IDS, axis=1, prepend=0) * (IDS > 0) > 0
EMIT = (STARTS | (np.random.default_rng(0).random(IDS.shape) < 0.4)) & (IDS > 0)


def build(kind, spec):
  """The part, with parameters that do something."""
  part = parts.parse(kind, spec).build(SIZES, rngs=nnx.Rngs(0))
  shaken = {
    path: leaf + 0.3 * random(*leaf.shape, seed=index) for index, (path, leaf) in enumerate(flatten(part).items())
  }
  return rebuild(part, shaken)


def level_of(ids, text=None):
  """Bytes of documents; the text of all rows one after the other, or zeros."""
  data = np.zeros(ids.shape, np.uint8) if text is None else np.frombuffer(text, np.uint8).reshape(ids.shape)
  return Level.of_bytes(jnp.asarray(ids), {'bytes': jnp.asarray(data)})


def cut_of(emit=EMIT, p=None):
  """A cut with probabilities that agree with its emissions."""
  drawn = np.random.default_rng(1).random(emit.shape, np.float32)
  p = jnp.asarray(np.where(emit, 1 + drawn, drawn) / 2 if p is None else p, jnp.float32)
  return Cut(jnp.asarray(emit), p, p)


def chunks_of(emit, ids, limit=None):
  """Of each row: where its chunks start, and of each slot its chunk, -1 where it has none of its document."""
  result = []
  for row in range(len(ids)):
    starts = [t for t in range(ids.shape[1]) if emit[row, t]][:limit]
    last = [sum(start <= t for start in starts) - 1 for t in range(ids.shape[1])]
    own = [k if ids[row, t] and k >= 0 and ids[row, starts[k]] == ids[row, t] else -1 for t, k in enumerate(last)]
    result.append((starts, own))
  return result
