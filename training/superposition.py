"""Token superposition (arXiv 2605.06546) on bytes: for the first part of a training, positions are bags of bytes.

A bag of s neighbouring bytes is read as the mean of their embeddings and predicts the bytes of the next bag, so that a
step over the same text costs a share 1 / s. Then training goes on byte by byte; evaluation always does.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from text.batch import Batch


def in_bags(batch: Batch, size: int) -> Batch:
  """The batch with L / size positions, each a bag, of the document of its first byte; rows of L bytes, which size
  divides. Marks are those of the first byte; bytes of another document count as the first byte.
  """
  shape = (batch.bytes.shape[0], -1, size)
  split = lambda values_BxL: jnp.asarray(values_BxL).reshape(shape)
  first = lambda values_BxL: split(values_BxL)[..., 0]
  bytes_BxNxS, ids_BxNxS = split(batch.bytes), split(batch.segment_ids)
  bags_BxNxS = jnp.where(ids_BxNxS == ids_BxNxS[..., :1], bytes_BxNxS, bytes_BxNxS[..., :1])
  return Batch(
    bags_BxNxS[..., 0],
    ids_BxNxS[..., 0],
    jax.tree.map(first, batch.marks),
    None if batch.specials is None else first(batch.specials),
    bags_BxNxS,
  )


def scored(batch: Batch, size: int) -> Array:
  """Which bytes the bag before predicts, those of its document: [B, L / size, size] bool."""
  ids_BxNxS = jnp.asarray(batch.segment_ids).reshape(batch.bytes.shape[0], -1, size)
  before_BxNx1 = jnp.pad(ids_BxNxS[:, :-1, :1], ((0, 0), (1, 0), (0, 0)))
  return (ids_BxNxS == before_BxNx1) & (ids_BxNxS > 0)


def nats(logits_BxNxV: Array, batch: Batch, size: int) -> Array:
  """The sum over the bytes that are scored, each predicted by the bag before its own: a scalar."""
  bytes_BxNxS = jnp.asarray(batch.bytes).reshape(batch.bytes.shape[0], -1, size).astype(jnp.int32)
  log_p_BxNxV = jax.nn.log_softmax(logits_BxNxV.astype(jnp.float32))[:, :-1]
  log_p_BxNxS = jnp.take_along_axis(log_p_BxNxV, bytes_BxNxS[:, 1:], -1)
  return -jnp.sum(jnp.where(scored(batch, size)[:, 1:], log_p_BxNxS, 0.0))


@dataclasses.dataclass(frozen=True)
class Superposition:
  """size: bytes of a bag, 1 = there are none; until: the share of the training that reads bags."""

  size: int = 1
  until: float = 0.3

  def at(self, progress: float | Array) -> bool | Array:
    """Whether training reads bags at this share of its steps."""
    return (self.size > 1) & (progress < self.until)
