"""Cross attention between a level and its chunks: queries of chunks to slots, and slots to the vectors of their chunk.

L: slots of the level, D wide; S: chunks of a row, E wide; G: guided layers; N: of what is attended to.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from layers import checks
from layers.attention import repeated
from layers.chunks import Segments, pick
from layers.linear import Linear, RMSNorm, normal
from layers.rotary import RotaryScaling, rotate
from layers.segments import positions
from layers.stack import Inject

LOWEST = float(jnp.finfo(jnp.float32).min)  # below every score, and finite where it stands in a cache


@dataclasses.dataclass(frozen=True)
class CrossConfig:
  """Cross attention from queries of width_q to keys and values of width_kv; qk_norm as in AttentionConfig."""

  width_q: int
  width_kv: int
  num_heads: int
  num_kv_heads: int
  head: int
  qk_norm: str = ''
  norm_epsilon: float = 1e-5
  rotary_base: float = 10000.0
  rotary_scaling: RotaryScaling | None = None

  @staticmethod
  def of_heads(what: str, width_q: int, width_kv: int, heads: int, kv_heads: int, **more: float | str) -> 'CrossConfig':
    """Heads that share width_q; kv_heads: 0 = heads. ValueError, about `what`, for numbers that do not divide."""
    checks.integer(heads, f'{what}: heads', 1), checks.integer(kv_heads, f'{what}: kv_heads', 0)
    shared = kv_heads or heads
    if width_q % heads or width_q // heads % 2:
      raise ValueError(f'{what}: heads={heads} does not divide the {width_q} channels into heads of an even size.')
    if heads % shared:
      raise ValueError(f'{what}: kv_heads={kv_heads} does not divide heads={heads}.')
    for name, value in more.items():
      if isinstance(value, float) and not 0 < value < math.inf:
        raise ValueError(f'{what}: {name}={value} must be a positive number.')
    return CrossConfig(width_q, width_kv, heads, shared, width_q // heads, **more)

  @property
  def inner(self) -> int:
    """Width of all query heads together."""
    return self.num_heads * self.head

  @property
  def shared(self) -> int:
    """Width of all key heads together."""
    return self.num_kv_heads * self.head


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OpenChunk:
  """What pooling has read of a chunk so far, float32: the largest score, the sum of exp(score − largest), and the
  values summed with the same weights.
  """

  top_BxH: Array
  weight_BxH: Array
  value_BxHxK: Array


class LatentPool(nnx.Module):
  """One latent query for all chunks, turned by the chunk's index; keys turned by the slot's index; no residual.

  Both indices count from the beginning of the document (T-Free-HAT, arXiv 2603.15953, its encoder connector).
  """

  def __init__(self, config: CrossConfig, *, output_deviation: float, rngs: nnx.Rngs):
    self.config = config
    self.latent_1x1xD = nnx.Param(normal(1.0)(rngs.params(), (1, 1, config.width_q)))
    self.query = Linear(config.width_q, config.inner, kernel_init=normal(0.02), rngs=rngs)
    self.key_value = Linear(config.width_kv, 2 * config.shared, kernel_init=normal(0.02), rngs=rngs)
    self.out = Linear(config.inner, config.width_q, kernel_init=normal(output_deviation), rngs=rngs)
    if config.qk_norm:
      full = config.qk_norm == 'full'
      self.query_norm = RMSNorm(config.inner if full else config.head, config.norm_epsilon)
      self.key_norm = RMSNorm(config.shared if full else config.head, config.norm_epsilon)

  def _queries(self, chunk_index: Array, dtype: jnp.dtype) -> Array:
    """The query of the chunks at these indices: [...] -> [..., H, K]."""
    q = self._heads(self.query(self.latent_1x1xD[0, 0].astype(dtype)), 'query_norm')
    return self._turned(jnp.broadcast_to(q, (*chunk_index.shape, *q.shape)), chunk_index)

  def _keys_values(self, a: Array, slot_index: Array) -> tuple[Array, Array]:
    """Keys and values of slots at these indices, for every query head: [..., H, K]."""
    key, value = jnp.split(self.key_value(a), 2, -1)
    k = self._turned(self._heads(key, 'key_norm'), slot_index)
    q_like = jax.ShapeDtypeStruct((self.config.num_heads, self.config.head), k.dtype)
    return repeated(k, q_like), repeated(value.reshape(k.shape), q_like)

  def _heads(self, x: Array, norm: str) -> Array:
    shape = (*x.shape[:-1], -1, self.config.head)
    if self.config.qk_norm == 'full':
      return getattr(self, norm)(x, x.dtype).reshape(shape)
    return getattr(self, norm)(x.reshape(shape), x.dtype) if self.config.qk_norm else x.reshape(shape)

  def _turned(self, x: Array, index: Array) -> Array:
    return rotate(x, index, self.config.head, self.config.rotary_base, self.config.rotary_scaling)

  def _scores(self, q: Array, k: Array) -> Array:
    """Scaled products, float32: [..., H]."""
    return jnp.einsum('...k,...k->...', q, k, preferred_element_type=jnp.float32) * self.config.head**-0.5

  def pool(self, a_BxLxD: Array, reader_BxL: Array, segments: Segments) -> Array:
    """The vector of every chunk: its values weighted by the softmax over what it reads, [B, S, E] in a's dtype.

    reader: the chunk that reads each slot, S where none does. Sums go from slots to chunks by scatter, so that nothing
    is as large as chunks times slots.
    """
    rows, capacity = segments.inner.segment_ids_BxC.shape
    index_BxS = positions(segments.inner.segment_ids_BxC)
    chunk_BxL = jnp.take_along_axis(index_BxS, jnp.minimum(reader_BxL, capacity - 1), 1)
    k_BxLxHxK, v_BxLxHxK = self._keys_values(a_BxLxD, positions(segments.outer.segment_ids_BxC))
    scores_BxLxH = self._scores(self._queries(chunk_BxL, a_BxLxD.dtype), k_BxLxHxK)
    chunks = attend_in_chunks(scores_BxLxH, v_BxLxHxK, reader_BxL, capacity)
    return self.out(chunks.reshape(rows, capacity, -1).astype(a_BxLxD.dtype))

  def begin(self, batch_size: int) -> OpenChunk:
    """Chunks of which nothing was read."""
    shape = (batch_size, self.config.num_heads)
    return OpenChunk(jnp.full(shape, LOWEST), jnp.zeros(shape), jnp.zeros((*shape, self.config.head)))

  def begin_where(self, fresh_B: Array, chunk: OpenChunk) -> OpenChunk:
    """As `begin` in these rows."""
    keep = lambda new, old: jnp.where(fresh_B.reshape(-1, *(1,) * (old.ndim - 1)), new, old)
    return jax.tree.map(keep, self.begin(fresh_B.shape[0]), chunk)

  def read(self, a_BxD: Array, slot_B: Array, chunk_B: Array, active_B: Array, chunk: OpenChunk) -> OpenChunk:
    """One more slot for the open chunks of the active rows; slot and chunk by their indices in the document."""
    k, v = self._keys_values(a_BxD, slot_B)
    score = jnp.where(active_B[:, None], self._scores(self._queries(chunk_B, a_BxD.dtype), k), LOWEST)
    top = jnp.maximum(chunk.top_BxH, score)
    bound = jnp.where(top > LOWEST, top, 0.0)  # of a row that has read nothing
    old, new = jnp.exp(chunk.top_BxH - bound), jnp.exp(score - bound)
    value = chunk.value_BxHxK * old[..., None] + new[..., None] * v.astype(jnp.float32)
    return OpenChunk(top, chunk.weight_BxH * old + new, value)

  def read_all(self, a_BxLxD: Array, where_BxL: Array, chunk_B: Array) -> OpenChunk:
    """The open chunk of every row, one document each, of which the slots `where` are read; chunk: its index."""
    index_BxL = jnp.broadcast_to(jnp.arange(a_BxLxD.shape[1], dtype=jnp.int32), a_BxLxD.shape[:2])
    k, v = self._keys_values(a_BxLxD, index_BxL)
    scores = self._scores(self._queries(chunk_B[:, None], a_BxLxD.dtype), k)
    scores = jnp.where(where_BxL[..., None], scores, LOWEST)
    top = jnp.max(scores, 1)
    weight = jnp.exp(scores - jnp.where(top > LOWEST, top, 0.0)[:, None])
    value = jnp.einsum('blh,blhk->bhk', weight, v.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return OpenChunk(top, jnp.sum(weight, 1), value)

  def finish(self, chunk: OpenChunk, dtype: jnp.dtype) -> Array:
    """The vectors of chunks that have slots: [B, E]."""
    weight = jnp.where(chunk.weight_BxH > 0, chunk.weight_BxH, 1.0)
    return self.out((chunk.value_BxHxK / weight[..., None]).reshape(weight.shape[0], -1).astype(dtype))


class Guide(nnx.Module):
  """What a decoder layer adds to a slot for its chunk's vector p: out(value(norm(p))).

  This is the whole cross attention. A slot sees one key, so its softmax is 1 and its query does not matter.
  """

  def __init__(self, config: CrossConfig, *, output_deviation: float, rngs: nnx.Rngs):
    self.config = config
    self.norm = RMSNorm(config.width_kv, config.norm_epsilon)
    self.values = Linear(config.width_kv, config.shared, kernel_init=normal(0.02), rngs=rngs)
    self.out = Linear(config.inner, config.width_q, kernel_init=normal(output_deviation), rngs=rngs)

  def __call__(self, p: Array) -> Array:
    """p [..., E] -> [..., D]."""
    v = self.values(self.norm(p, p.dtype))
    v = v.reshape(*v.shape[:-1], -1, self.config.head)
    q_like = jax.ShapeDtypeStruct((self.config.num_heads, self.config.head), v.dtype)
    return self.out(repeated(v, q_like).reshape(*p.shape[:-1], -1))


class CrossAttention(nnx.Module):
  """Queries, keys and values of two streams, each behind a norm of its own, without positions (BLT, arXiv 2412.09871).

  The residual is the caller's. K: channels of a head, H: heads; every query head has its own key head or shares one.
  """

  def __init__(self, config: CrossConfig, *, output_deviation: float, rngs: nnx.Rngs):
    self.config = config
    self.query_norm = RMSNorm(config.width_q, config.norm_epsilon)
    self.key_norm = RMSNorm(config.width_kv, config.norm_epsilon)
    self.query = Linear(config.width_q, config.inner, kernel_init=normal(0.02), rngs=rngs)
    self.key_value = Linear(config.width_kv, 2 * config.shared, kernel_init=normal(0.02), rngs=rngs)
    self.out = Linear(config.inner, config.width_q, kernel_init=normal(output_deviation), rngs=rngs)

  def queries(self, x: Array, dtype: jnp.dtype) -> Array:
    """[..., Q] -> [..., H, K]."""
    q = self.query(self.query_norm(x, dtype))
    return q.reshape(*q.shape[:-1], self.config.num_heads, self.config.head)

  def keys_values(self, x: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    """[..., D] -> two of [..., H, K]."""
    like = jax.ShapeDtypeStruct((self.config.num_heads, self.config.head), dtype)
    parts = jnp.split(self.key_value(self.key_norm(x, dtype)), 2, -1)
    return tuple(repeated(part.reshape(*part.shape[:-1], -1, self.config.head), like) for part in parts)

  def project(self, mixed: Array, dtype: jnp.dtype) -> Array:
    """Values [..., H, K] as they were weighted -> [..., Q]."""
    return self.out(mixed.reshape(*mixed.shape[:-2], self.config.inner).astype(dtype))


def attend(q: Array, k: Array, v: Array, seen: Array) -> Array:
  """softmax(q k^T / sqrt(K)) v over what is seen, float32; 0 where nothing is.

  q [..., H, K], k and v [..., N, H, K], seen [..., N] bool -> [..., H, K].
  """
  scores = jnp.einsum('...hk,...nhk->...nh', q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
  weights = jax.nn.softmax(jnp.where(seen[..., None], scores, LOWEST), -2) * seen[..., None]
  return jnp.einsum('...nh,...nhk->...hk', weights.astype(v.dtype), v, preferred_element_type=jnp.float32)


def attend_in_chunks(scores_BxNxH: Array, v_BxNxHxK: Array, reader_BxN: Array, capacity: int) -> Array:
  """Of every chunk the values that it reads, weighted by the softmax of their scores, float32: [B, S, H, K]; 0 where it
  reads nothing.

  reader: the chunk that reads a value, S where none does. H may be several axes, and of the values broadcast. Sums go
  from values to chunks by scatter, so that nothing is as large as chunks times values.
  """
  rows, heads = scores_BxNxH.shape[0], scores_BxNxH.shape[2:]
  at = (jnp.arange(rows)[:, None], reader_BxN)  # out of range is dropped
  own = lambda x: x[at[0], jnp.minimum(reader_BxN, capacity - 1)]
  read = jax.lax.expand_dims(reader_BxN < capacity, range(2, scores_BxNxH.ndim))
  empty = jnp.full((rows, capacity, *heads), -jnp.inf)
  top = empty.at[at].max(jax.lax.stop_gradient(scores_BxNxH), mode='drop')
  weight = jnp.exp(jnp.where(read, scores_BxNxH - own(top), -jnp.inf))
  total = jnp.zeros_like(empty).at[at].add(weight, mode='drop')
  weight /= jnp.where(read, own(total), 1.0)
  weighted = weight[..., None] * v_BxNxHxK.astype(jnp.float32)
  return jnp.zeros((*empty.shape, v_BxNxHxK.shape[-1]), jnp.float32).at[at].add(weighted, mode='drop')


def cross_flops(config: CrossConfig, queries: float, keys: float, pairs: float) -> float:
  """Forward FLOPs of a CrossAttention, `pairs` of a query and a key."""
  of_queries = 4.0 * queries * config.width_q * config.inner
  return of_queries + 4.0 * keys * config.width_kv * config.shared + 4.0 * pairs * config.inner


def pool_flops(config: CrossConfig, slots: float, chunks: float) -> float:
  """Forward FLOPs of a LatentPool; sums over the slots of a chunk are not counted."""
  return 4.0 * slots * (config.width_kv * config.shared + config.inner) + 2.0 * chunks * config.inner * config.width_q


def guide_flops(config: CrossConfig, chunks: float) -> float:
  """Forward FLOPs of a Guide."""
  return 2.0 * chunks * (config.width_kv * config.shared + config.inner * config.width_q)


def guided(guides: Sequence[Guide], p: Array) -> Array:
  """What vectors of chunks add in every guided layer: [..., E] -> [..., G, D]."""
  return jnp.stack([guide(p) for guide in guides], -2)


def inject(added_xGxD: Array, index_BxL: Array | None = None) -> Inject:
  """What the first G layers of a stack add: those of a step's rows [B, G, D], or of chunks [B, S, G, D] at the chunk of
  each slot.
  """

  def add(layer: int, stream: Array) -> Array | None:
    del stream
    if layer >= added_xGxD.shape[-2]:
      return None
    of_layer = added_xGxD[..., layer, :]
    return of_layer if index_BxL is None else pick(of_layer, index_BxL)

  return add
