"""Cross attention with queries between slots and the k vectors of a chunk (BLT, arXiv 2412.09871).

B: rows; C: slots, D wide; M: chunks of a row, E wide inside; Q: vectors of a chunk, D wide; H, K: heads and their
channels; N: slots that a pool keeps; W: chunks of a window.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import Cut, Sizes
from layers import checks
from layers.chunks import Segments, pick
from layers.cross import LOWEST, CrossAttention, CrossConfig, attend, attend_in_chunks, cross_flops
from layers.linear import Linear, normal
from layers.stack import Inject


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttendCache:
  """slot_B: slots so far; chunk_B: chunks closed; top_BxD: the largest of the open chunk, channel by channel. Keys and
  values of the last N slots, position p in p mod N, and the chunk of each, -1 for none.
  """

  slot_B: Array
  chunk_B: Array
  top_BxD: Array
  k_BxNxHxK: Array
  v_BxNxHxK: Array
  chunk_BxN: Array


class AttendPool(nnx.Module):
  """k vectors of a chunk attend to its slots; beside each other they are its vector inside (BLT's encoder).

  queries: k. init: 'max', the queries are a projection of the chunk's largest values, channel by channel, or 'learned',
  the same for all chunks. window: chunks whose slots it reads, its own and those before. longest: of these the last so
  many slots, which decoding keeps. doubled: the published code adds the queries twice, 2 x + attention(x). heads share
  the channels of the stage. The k vectors are projected only where they are not as wide as the stage inside.
  """

  OPTIONS = {
    'queries': 2, 'heads': 4, 'init': 'max', 'window': 1, 'longest': 1024, 'doubled': True, 'norm_epsilon': 1e-5,
  }  # fmt: skip
  reads = 'until'

  def __init__(
    self, sizes: Sizes, *, rngs: nnx.Rngs, queries: int, init: str, window: int, longest: int, doubled: bool,
    heads: int, norm_epsilon: float,
  ):  # fmt: skip
    for name, value in (('queries', queries), ('window', window), ('longest', longest)):
      checks.integer(value, f'pool attend: {name}', 1)
    checks.one_of(init, ('max', 'learned'), 'pool attend: init')
    self.queries, self.window, self.longest, self.factor = queries, window, longest, 1 + doubled
    if init == 'max':
      self.first = Linear(sizes.width, queries * sizes.width, kernel_init=normal(0.02), rngs=rngs)
    else:
      self.first_QxD = nnx.Param(normal(1.0)(rngs.params(), (queries, sizes.width)))
    self.attention = CrossAttention(self._config(sizes, heads, norm_epsilon), output_deviation=0.02, rngs=rngs)
    if queries * sizes.width != sizes.inner:
      self.widen = Linear(queries * sizes.width, sizes.inner, kernel_init=normal(0.02), rngs=rngs)

  @staticmethod
  def _config(sizes: Sizes, heads: int, norm_epsilon: float) -> CrossConfig:
    return CrossConfig.of_heads('pool attend', sizes.width, sizes.width, heads, 0, norm_epsilon=norm_epsilon)

  def _begin(self, top: Array) -> Array:
    """The queries of chunks: [..., D] -> [..., Q, D]."""
    shape = (*top.shape[:-1], self.queries, top.shape[-1])
    if hasattr(self, 'first'):
      return self.first(top).reshape(shape)
    return jnp.broadcast_to(self.first_QxD[...].astype(top.dtype), shape)

  def _finish(self, begin: Array, mixed: Array) -> Array:
    """[..., Q, D] and the weighted values [..., Q, H, K] -> [..., E]."""
    vectors = self.factor * begin + self.attention.project(mixed, begin.dtype)
    vectors = vectors.reshape(*vectors.shape[:-2], -1)
    return self.widen(vectors) if hasattr(self, 'widen') else vectors

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """By scatter from slots to the chunks of the window that they are in: W times the slots."""
    del cut
    capacity, dtype = segments.slot_BxM.shape[1], e_BxCxD.dtype
    begin_BxMxQxD = self._begin(largest(e_BxCxD, segments.closing_BxC, capacity))
    q_BxMxQxHxK = self.attention.queries(begin_BxMxQxD, dtype)
    reader_BxN = self._readers(segments)
    again = lambda x: jnp.repeat(x, self.window, 1)
    k_BxNxHxK, v_BxNxHxK = map(again, self.attention.keys_values(e_BxCxD, dtype))
    q_BxNxQxHxK = q_BxMxQxHxK[jnp.arange(len(e_BxCxD))[:, None], jnp.minimum(reader_BxN, capacity - 1)]
    scores_BxNxQxH = jnp.einsum('bnqhk,bnhk->bnqh', q_BxNxQxHxK, k_BxNxHxK, preferred_element_type=jnp.float32)
    scores_BxNxQxH *= self.attention.config.head**-0.5
    mixed = attend_in_chunks(scores_BxNxQxH, v_BxNxHxK[:, :, None], reader_BxN, capacity)
    return jnp.where(segments.inner.valid[..., None], self._finish(begin_BxMxQxD, mixed), 0)

  def _readers(self, segments: Segments) -> Array:
    """The chunks that read each slot: [B, C * W] int32, M for none."""
    capacity, length = segments.slot_BxM.shape[1], segments.outer.segment_ids_BxC.shape[1]
    reader_BxCxW = segments.closing_BxC[..., None] + jnp.arange(self.window, dtype=jnp.int32)[None, None]
    reader_BxN = jnp.minimum(reader_BxCxW.reshape(-1, length * self.window), capacity)
    at = lambda x_BxM: jnp.take_along_axis(jnp.pad(x_BxM, ((0, 0), (0, 1))), reader_BxN, 1)
    slot_1xN = jnp.repeat(jnp.arange(length), self.window)[None]
    ids_BxN = jnp.repeat(segments.outer.segment_ids_BxC, self.window, 1)
    reads_BxN = (at(segments.inner.segment_ids_BxC) == ids_BxN) & (ids_BxN > 0)
    reads_BxN &= at(segments.slot_BxM) - slot_1xN < self.longest
    return jnp.where(reads_BxN, reader_BxN, capacity)

  def init_cache(self, batch_size: int) -> AttendCache:
    """Nothing read."""
    config, zeros = self.attention.config, lambda: jnp.zeros(batch_size, jnp.int32)  # each its own, to be donated
    kept = lambda: jnp.zeros((batch_size, self.longest, config.num_heads, config.head))
    top, none = jnp.full((batch_size, config.width_kv), LOWEST), jnp.full((batch_size, self.longest), -1, jnp.int32)
    return AttendCache(zeros(), zeros(), top, kept(), kept(), none)

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> AttendCache:
    """The last slots, of whatever chunk."""
    del cut
    slots_Bx1, chunks_Bx1 = (x[:, None].astype(jnp.int32) for x in (segments.outer.count_B, segments.inner.count_B))
    last_Bx1 = slots_Bx1 - 1
    slot_BxN = last_Bx1 - (last_Bx1 - jnp.arange(self.longest)[None]) % self.longest  # the latest with each remainder
    at_BxN = jnp.maximum(slot_BxN, 0)
    k, v = (x.astype(jnp.float32) for x in self.attention.keys_values(pick(e_BxCxD, at_BxN), e_BxCxD.dtype))
    chunk_BxC = jnp.minimum(segments.closing_BxC, chunks_Bx1)
    chunk_BxN = jnp.where(slot_BxN >= 0, jnp.take_along_axis(chunk_BxC, at_BxN, 1, mode='clip'), -1)
    open_BxCx1 = (segments.outer.valid & (chunk_BxC == chunks_Bx1))[..., None]
    top_BxD = jnp.max(jnp.where(open_BxCx1, e_BxCxD.astype(jnp.float32), LOWEST), 1)
    return AttendCache(slots_Bx1[:, 0], chunks_Bx1[:, 0], top_BxD, k, v, chunk_BxN.astype(jnp.int32))

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: AttendCache) -> tuple[Array, Array, AttendCache]:
    """The slot is read, and its chunk is done where it is the last."""
    at = (jnp.arange(len(e_BxD)), jnp.where(active_B, cache.slot_B % self.longest, self.longest))
    put = lambda buffer, new: buffer.at[at].set(new.astype(buffer.dtype), mode='drop')
    k, v = self.attention.keys_values(e_BxD, e_BxD.dtype)
    k, v, chunk_BxN = put(cache.k_BxNxHxK, k), put(cache.v_BxNxHxK, v), put(cache.chunk_BxN, cache.chunk_B)
    top_BxD = jnp.where(active_B[:, None], jnp.maximum(cache.top_BxD, e_BxD.astype(jnp.float32)), cache.top_BxD)

    def close(_):
      begin_BxQxD = self._begin(top_BxD.astype(e_BxD.dtype))
      seen_Bx1xN = ((chunk_BxN >= 0) & (chunk_BxN > cache.chunk_B[:, None] - self.window))[:, None]
      q_BxQxHxK = self.attention.queries(begin_BxQxD, e_BxD.dtype).astype(jnp.float32)
      return self._finish(begin_BxQxD, attend(q_BxQxHxK, k[:, None], v[:, None], seen_Bx1xN))

    like = jax.eval_shape(close, 0)
    g_BxE = jax.lax.cond(jnp.any(cut.emit), close, lambda _: jnp.zeros(like.shape, like.dtype), 0)
    top_BxD = jnp.where(cut.emit[:, None], LOWEST, top_BxD)
    return g_BxE, cut.emit, AttendCache(cache.slot_B + active_B, cache.chunk_B + cut.emit, top_BxD, k, v, chunk_BxN)

  @classmethod
  def flops(
    cls, sizes: Sizes, slots: float, chunks: float, queries: int, init: str, window: int, heads: int,
    norm_epsilon: float, **options: int,
  ) -> float:  # fmt: skip
    """Attention, and the projections before and behind it."""
    del options
    config, width = cls._config(sizes, heads, norm_epsilon), queries * sizes.width
    projected = sizes.width * (init == 'max') + sizes.inner * (width != sizes.inner)
    return cross_flops(config, queries * chunks, slots, queries * window * slots) + 2.0 * chunks * width * projected


class AttendUnpool(nnx.Module):
  """A slot attends to the k vectors of its chunk, before the first `layers` blocks of the decoder (0: before all).

  queries: k, into which a chunk's vector is projected. window: chunks whose vectors it sees, its own and those before
  it in its document. doubled: the published code adds the slot's state twice, 2 x + attention(x). heads share the
  channels of the stage. A slot before its document's first chunk sees nothing, and gets 0.
  """

  OPTIONS = {'queries': 2, 'heads': 4, 'layers': 0, 'window': 1, 'doubled': True, 'norm_epsilon': 1e-5}
  injects = True

  def __init__(
    self, sizes: Sizes, *, rngs: nnx.Rngs, queries: int, heads: int, layers: int, window: int, doubled: bool,
    norm_epsilon: float,
  ):  # fmt: skip
    checks.integer(queries, 'unpool attend: queries', 1), checks.integer(window, 'unpool attend: window', 1)
    if checks.integer(layers, 'unpool attend: layers', 0) > sizes.blocks:
      raise ValueError(f'unpool attend: layers={layers}, but the decoder has {sizes.blocks} blocks.')
    self.queries, self.window, self.doubled = queries, window, doubled
    config = self._config(sizes, heads, norm_epsilon)
    self.vectors = Linear(sizes.inner, queries * sizes.width, kernel_init=normal(0.02), rngs=rngs)
    make = lambda: CrossAttention(config, output_deviation=0.02, rngs=rngs)
    self.attentions = nnx.List([make() for _ in range(layers or sizes.blocks)])

  @staticmethod
  def _config(sizes: Sizes, heads: int, norm_epsilon: float) -> CrossConfig:
    return CrossConfig.of_heads('unpool attend', sizes.width, sizes.width, heads, 0, norm_epsilon=norm_epsilon)

  def _vectors(self, z: Array) -> Array:
    """[..., E] -> [..., Q, D]."""
    return self.vectors(z).reshape(*z.shape[:-1], self.queries, -1)

  def _added(self, layer: int, stream: Array, k: Array, v: Array, seen: Array, dtype: jnp.dtype) -> Array:
    attention = self.attentions[layer]
    mixed = attend(attention.queries(stream, dtype), k.astype(dtype), v.astype(dtype), seen)
    added = attention.project(mixed, dtype).astype(jnp.float32)
    return stream + added if self.doubled else added

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Inject:
    """Keys and values go to the slots of their chunk, layer by layer."""
    del cut, scale, residual
    vectors_BxMxQxD, dtype, rows_Bx1x1 = self._vectors(z_BxMxE), z_BxMxE.dtype, jnp.arange(len(z_BxMxE))[:, None, None]
    index_BxCxW = segments.index_BxC[..., None] - jnp.arange(self.window)[None, None]
    at = rows_Bx1x1, jnp.maximum(index_BxCxW, 0)
    ids_BxCx1 = segments.outer.segment_ids_BxC[..., None]
    seen_BxCxW = (index_BxCxW >= 0) & (segments.inner.segment_ids_BxC[at] == ids_BxCx1)
    seen_BxCxN = jnp.repeat(seen_BxCxW, self.queries, 2)

    def add(layer: int, stream_BxCxD: Array) -> Array | None:
      if layer >= len(self.attentions):
        return None
      of_chunks = self.attentions[layer].keys_values(vectors_BxMxQxD, dtype)
      k, v = (x[at].reshape(*seen_BxCxN.shape, *x.shape[-2:]) for x in of_chunks)
      return self._added(layer, stream_BxCxD, k, v, seen_BxCxN, dtype)

    return add

  def init_cache(self, batch_size: int) -> tuple[Array, Array, Array]:
    """(chunks so far, keys, values of the last W of them, the latest first, in every layer)."""
    config = self.attentions[0].config
    shape = (batch_size, len(self.attentions), self.window * self.queries, config.num_heads, config.head)
    return jnp.zeros(batch_size, jnp.int32), jnp.zeros(shape), jnp.zeros(shape)

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> tuple[Array, Array, Array]:
    """Those of the last chunks."""
    del cut
    count_B = segments.inner.count_B.astype(jnp.int32)
    last_BxW = jnp.maximum(count_B[:, None] - 1 - jnp.arange(self.window)[None], 0)
    k_BxGxNxHxK, v_BxGxNxHxK = self._kept(pick(z_BxMxE, last_BxW))
    here = (jnp.arange(self.window * self.queries)[None] < count_B[:, None] * self.queries)[:, None, :, None, None]
    return count_B, jnp.where(here, k_BxGxNxHxK, 0), jnp.where(here, v_BxGxNxHxK, 0)

  def _kept(self, z_BxWxE: Array) -> tuple[Array, Array]:
    """Keys and values in every layer, float32: [B, G, W * Q, H, K]."""
    vectors_BxNxD = self._vectors(z_BxWxE).reshape(len(z_BxWxE), -1, self.attentions[0].config.width_kv)
    found = [attention.keys_values(vectors_BxNxD, z_BxWxE.dtype) for attention in self.attentions]
    return tuple(jnp.stack(of_layers, 1).astype(jnp.float32) for of_layers in zip(*found, strict=True))

  def step(self, z_BxE: Array, cut: Cut, cache: tuple) -> tuple[Inject, tuple[Array, Array, Array]]:
    """The same as before until a chunk starts."""
    count_B, k, v = cache

    def renew(kept):
      pairs = zip(self._kept(z_BxE[:, None]), kept, strict=True)
      rows = cut.emit[:, None, None, None, None]
      return tuple(jnp.where(rows, jnp.concatenate([new, old], 2)[:, :, : old.shape[2]], old) for new, old in pairs)

    k, v = jax.lax.cond(jnp.any(cut.emit), renew, lambda kept: kept, (k, v))
    count_B = count_B + cut.emit
    seen_BxN = jnp.arange(k.shape[2])[None] < count_B[:, None] * self.queries

    def add(layer: int, stream_BxD: Array) -> Array | None:
      if layer >= len(self.attentions):
        return None
      return self._added(layer, stream_BxD, k[:, layer], v[:, layer], seen_BxN, z_BxE.dtype)

    return add, (count_B, k, v)

  @classmethod
  def flops(
    cls, sizes: Sizes, slots: float, chunks: float, queries: int, heads: int, layers: int, window: int, doubled: bool,
    norm_epsilon: float,
  ) -> float:  # fmt: skip
    """A projection a chunk, and attention in every such layer."""
    del doubled
    config, count = cls._config(sizes, heads, norm_epsilon), layers or sizes.blocks
    of_layer = cross_flops(config, slots, queries * chunks, queries * window * slots)
    return 2.0 * chunks * sizes.inner * queries * sizes.width + count * of_layer


def largest(x_BxCxD: Array, chunk_BxC: Array, capacity: int) -> Array:
  """The largest value of every channel over the slots of each chunk, 0 for none: [B, M, D] in x's dtype.

  Where several slots have it they share its gradient evenly, as in PyTorch. chunk: of each slot, M for none.
  """
  at = (jnp.arange(len(x_BxCxD))[:, None], chunk_BxC)  # out of range is dropped
  own = lambda x: x[at[0], jnp.minimum(chunk_BxC, capacity - 1)]
  fixed_BxCxD = jax.lax.stop_gradient(x_BxCxD).astype(jnp.float32)
  empty = jnp.zeros((len(x_BxCxD), capacity, x_BxCxD.shape[-1]), jnp.float32)
  top = jnp.full_like(empty, -jnp.inf).at[at].max(fixed_BxCxD, mode='drop')
  is_top = (fixed_BxCxD == own(top)).astype(jnp.float32)
  share = is_top / jnp.maximum(own(empty.at[at].add(is_top, mode='drop')), 1.0)
  return empty.at[at].add(share * x_BxCxD.astype(jnp.float32), mode='drop').astype(x_BxCxD.dtype)
