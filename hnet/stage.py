"""One stage of the hierarchy, which knows no published system: an encoder, a cut into chunks, a stage inside over the
chunks, and the way back to its own slots (hnet/parts).
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet import heads
from hnet.config import HNetConfig
from hnet.parts import Cut
from hnet.parts.unpools import spread
from layers.chunks import Level, Segments
from layers.contract import EVAL, Context
from layers.segments import starts
from layers.stack import Stack

Capacities = tuple[int | None, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decision:
  """What one stage decided on the slots of its level, segments.outer; cut.emit: where chunks start. With several heads
  (hnet/heads.py) each row is H rows side by side.
  """

  cut: Cut
  segments: Segments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StageCache:
  """Decoding state of a stage, part by part; `inner` is the cache of the stage inside."""

  encoder: Any
  boundary: Any
  pool: Any
  inner: Any
  unpool: Any
  decoder: Any
  scratch: Any = None


class Innermost(nnx.Module):
  """The main network: an isotropic stack over the chunks of the last stage (or over bytes, alone)."""

  def __init__(self, config: HNetConfig, index: int, *, rngs: nnx.Rngs):
    stage = config.stages[index]
    self.main = Stack(stage.main, output_deviation=stage.output_deviation, rngs=rngs)
    self.has_scratch = index > 0 and config.stages[index - 1].scratch is not None

  def __call__(self, x_BxCxD: Array, level: Level, capacities: Capacities, context: Context) -> tuple[Array, tuple]:
    """[B, C, D] -> [B, C, D], and no decision."""
    del capacities, context
    return self.main(x_BxCxD, level.segment_ids_BxC, keys_BxL=self._kept(level.marks)), ()

  def _kept(self, marks: dict[str, Array]) -> Array | None:
    """The slots that later ones see; None: all."""
    return ~marks['scratch'] if self.has_scratch else None

  def init_cache(self, batch_size: int, max_length: int) -> Any:
    """Empty caches for rows of at most `max_length` slots."""
    return self.main.init_cache(batch_size, max_length)

  def prefill(self, x_BxCxD: Array, level: Level, cache: Any) -> tuple[Array, Any]:
    """Parallel form from an empty cache; one document a row."""
    return self.main.prefill(x_BxCxD, level.count_B, cache, keys_BxL=self._kept(level.marks))

  def step(self, x_BxD: Array, marks: dict[str, Array], active_B: Array, cache: Any) -> tuple[Array, Any]:
    """One slot of the active rows."""
    return self.main.step(x_BxD, active_B, cache, keep_B=self._kept(marks))


class Stage(nnx.Module):
  """encoder -> boundary -> pool -> stage inside -> unpool and combine -> decoder."""

  def __init__(self, config: HNetConfig, index: int, *, rngs: nnx.Rngs):
    stage = config.stages[index]
    self.limit, self.heads = stage.limit, stage.heads
    stack = functools.partial(Stack, output_deviation=stage.output_deviation, rngs=rngs)
    self.encoder = stack(stage.encoder)
    self.boundary = heads.build(stage.boundary, stage.sizes, stage.heads, rngs=rngs)
    self.pool = stage.pool.build(stage.sizes, rngs=rngs)
    self.unpool = stage.unpool.build(stage.sizes, rngs=rngs)
    self.combine = stage.combine.build(stage.sizes, rngs=rngs)
    self.scratch = stage.scratch and stage.scratch.build(stage.sizes, rngs=rngs)
    self.inner = make(config, index + 1, rngs=rngs)
    self.decoder = stack(stage.decoder)

  def __call__(
    self, x_BxCxD: Array, level: Level, capacities: Capacities, context: Context
  ) -> tuple[Array, tuple[Decision, ...]]:
    """[B, C, D] -> ([B, C, D], what this stage and those inside decided). capacities: of each level inside, outermost
    first.
    """
    ids_BxC = level.segment_ids_BxC
    e_BxCxD, level = heads.fold((self.encoder(x_BxCxD, ids_BxC), level), self.heads)
    cut, segments = self._cut(e_BxCxD, level, context, capacities[0], self.limit)
    g_BxMxE = self.pool(e_BxCxD, cut, segments)
    z_BxMxE, inside = self.inner(g_BxMxE, segments.inner, capacities[1:], context)
    y_BxCxD, inject = self.combine(e_BxCxD, cut, functools.partial(self.unpool, z_BxMxE, cut, segments))
    return self.decoder(heads.unfold(y_BxCxD, self.heads), ids_BxC, inject), (Decision(cut, segments), *inside)

  def _cut(
    self,
    e_BxCxD: Array,
    level: Level,
    context: Context,
    capacity: int | None = None,
    limit: float | None = None,
  ) -> tuple[Cut, Segments]:
    """Where chunks start: where the boundary emits, but for what reads before a document's first slot, or a limit. The
    segments have scratch rows among the chunks, the cut has not.
    """
    cut = self.boundary(e_BxCxD, level, context)
    emit_BxC = cut.emit
    if self.pool.reads == 'before':
      emit_BxC &= ~starts(level.segment_ids_BxC)
    if self.scratch is not None:
      scratch_BxC = self.scratch(dataclasses.replace(cut, emit=emit_BxC), level)
      segments = level.marked(scratch=scratch_BxC).cut(emit_BxC | scratch_BxC, capacity)
      return dataclasses.replace(cut, emit=segments.starts_BxC & ~scratch_BxC), segments
    segments = level.cut(emit_BxC, capacity, limit and math.ceil(limit * level.length))
    return dataclasses.replace(cut, emit=segments.starts_BxC), segments

  def init_cache(self, batch_size: int, max_length: int) -> StageCache:
    """Empty caches for rows of at most `max_length` slots; the stage inside may see as many chunks."""
    rows = batch_size * self.heads
    return StageCache(
      self.encoder.init_cache(batch_size, max_length),
      self.boundary.init_cache(rows),
      self.pool.init_cache(rows),
      self.inner.init_cache(rows, max_length),
      self.unpool.init_cache(rows),
      self.decoder.init_cache(batch_size, max_length),
      self.scratch and self.scratch.init_cache(rows),
    )

  def prefill(self, x_BxCxD: Array, level: Level, cache: StageCache) -> tuple[Array, StageCache]:
    """Parallel form from an empty cache; one document a row."""
    count_B = level.count_B
    e, encoder = self.encoder.prefill(x_BxCxD, count_B, cache.encoder)
    e, level = heads.fold((e, level), self.heads)
    cut, segments = self._cut(e, level, EVAL)
    z, inner = self.inner.prefill(self.pool(e, cut, segments), segments.inner, cache.inner)
    y, inject = self.combine(e, cut, functools.partial(self.unpool, z, cut, segments))
    y, decoder = self.decoder.prefill(heads.unfold(y, self.heads), count_B, cache.decoder, inject)
    boundary, pool = self.boundary.after(e, cut, level), self.pool.after(e, cut, segments)
    unpool, scratch = self.unpool.after(z, cut, segments), self.scratch and self.scratch.after(cut, level)
    return y, StageCache(encoder, boundary, pool, inner, unpool, decoder, scratch)

  def step(self, x_BxD: Array, marks: dict[str, Array], active_B: Array, cache: StageCache) -> tuple[Array, StageCache]:
    """One slot of the active rows; the stage inside runs only if some row starts a chunk, or has a scratch row."""
    e, encoder = self.encoder.step(x_BxD, active_B, cache.encoder)
    decodes_B, (e, marks, active_B) = active_B, heads.fold((e, marks, active_B), self.heads)
    cut, boundary = self.boundary.step(e, marks, active_B, cache.boundary)
    g, starts_B, pool = self.pool.step(e, cut, active_B, cache.pool)
    cut = dataclasses.replace(cut, emit=starts_B, more={**cut.more, 'active': active_B})
    rows_B, scratch = starts_B, None
    if self.scratch is not None:
      scratch_B, scratch = self.scratch.step(cut, active_B, cache.scratch)
      rows_B, marks = starts_B | scratch_B, marks | {'scratch': scratch_B}
    z, inner = jax.lax.cond(
      jnp.any(rows_B),
      lambda g, inner: self.inner.step(g, marks, rows_B, inner),
      lambda g, inner: (jnp.zeros_like(g), inner),
      g,
      cache.inner,
    )
    u, unpool = self.unpool.step(z, dataclasses.replace(cut, emit=rows_B), cache.unpool)
    y, inject = self.combine(e, cut, functools.partial(spread, u))
    y, decoder = self.decoder.step(heads.unfold(y, self.heads), decodes_B, cache.decoder, inject)
    return y, StageCache(encoder, boundary, pool, inner, unpool, decoder, scratch)


def make(config: HNetConfig, index: int, *, rngs: nnx.Rngs) -> Stage | Innermost:
  """Stage `index` with everything inside it."""
  return (Innermost if config.stages[index].main else Stage)(config, index, rngs=rngs)
