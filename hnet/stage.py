"""One stage of the hierarchy: encoder, boundaries, chunks, an inner stage, and the way back to its own positions.

A stage runs in two parts around its inner stage, and each part is one function of static length on the capacity ladder
(layers/ladder.py): switches stand side by side and are never nested, which keeps compilation linear in the stages.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet import boundary as boundary_lib
from hnet.config import HNetConfig, StageConfig
from hnet.smoothing import ema_step
from kernels.chunk import chunk
from kernels.dechunk import dechunk
from layers import ladder
from layers.chunks import Level, pick
from layers.linear import Linear, zeros
from layers.stack import Stack

HIGHEST = jax.lax.Precision.HIGHEST


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routing:
  """What one stage decided, on the slots of its level: probability p, boundary b, and the level itself."""

  p_BxC: Array
  b_BxC: Array
  level: Level
  dropped: Array  # boundaries that a hard capacity dropped; 0 on a ladder that ends in 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StageCache:
  """Decoding state of a stage; `inner` is the next stage's cache, `value_BxD` the last smoothed chunk."""

  encoder: Any
  boundary: Any
  inner: Any
  value_BxD: Array
  decoder: Any


class Innermost(nnx.Module):
  """The main network: an isotropic stack over the chunks of the last stage (or over bytes, alone)."""

  def __init__(self, config: HNetConfig, index: int, *, rngs: nnx.Rngs):
    self.config, self.index = config, index
    stage = config.stages[index]
    self.main = Stack(stage.main, output_deviation=_deviation(stage), rngs=rngs)
    if _has_pad(stage):
      self.pad = nnx.Param(jnp.zeros(stage.width - stage.width_in, jnp.float32))

  def __call__(self, parent_BxCxD: Array, level: Level, bytes_BxL: Array) -> tuple[Array, tuple[Routing, ...]]:
    """Values of the level above -> (values of this level [B, C, d_in], no routing)."""
    del bytes_BxL
    rungs, rung_B = _rungs(self.config, self.index, level)
    rows, indices = {'parent': parent_BxCxD}, _slots(level)
    fn = functools.partial(_main_forward, self.config.stages[self.index])
    return ladder.on_ladder(fn, self.config.ladder, rungs, rung_B, _parts(self, 'pad', 'main'), rows, indices), ()

  def init_cache(self, batch_size: int, max_length: int) -> Any:
    """Empty caches for rows of at most `max_length` positions."""
    return self.main.init_cache(batch_size, max_length)

  def prefill(self, x_BxCxD: Array, level: Level, bytes_BxL: Array, cache: Any) -> tuple[Array, Any]:
    """Parallel form from an empty cache; one document a row."""
    del bytes_BxL
    stage = self.config.stages[self.index]
    x = _widen(stage, getattr(self, 'pad', None), _picked(x_BxCxD, level.picked_BxC))
    y, cache = self.main.prefill(x, level.count_B, cache)
    return _narrow(stage, y), cache

  def step(self, x_BxD: Array, byte_B: Array, active_B: Array, cache: Any) -> tuple[Array, Any]:
    """One position of the active rows."""
    del byte_B
    stage = self.config.stages[self.index]
    y, cache = self.main.step(_widen(stage, getattr(self, 'pad', None), x_BxD), active_B, cache)
    return _narrow(stage, y), cache


class Stage(nnx.Module):
  """encoder -> boundary -> pick -> inner -> smooth and expand -> combine -> decoder."""

  def __init__(self, config: HNetConfig, index: int, *, rngs: nnx.Rngs):
    self.config, self.index = config, index
    stage = config.stages[index]
    if _has_pad(stage):
      self.pad = nnx.Param(jnp.zeros(stage.width - stage.width_in, jnp.float32))
    self.encoder = Stack(stage.encoder, output_deviation=_deviation(stage), rngs=rngs)
    self.boundary = boundary_lib.make(stage.boundary, stage.width, rngs=rngs)
    if stage.combine == 'ste':
      # The weight starts at zero; the official code leaves the bias at PyTorch's default.
      limit = stage.width**-0.5
      uniform = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -limit, limit)
      self.residual = Linear(stage.width, stage.width, kernel_init=zeros, bias_init=uniform, rngs=rngs)
    self.inner = make(config, index + 1, rngs=rngs)
    self.decoder = Stack(stage.decoder, output_deviation=_deviation(stage), rngs=rngs)

  def __call__(self, parent_BxCxD: Array, level: Level, bytes_BxL: Array) -> tuple[Array, tuple[Routing, ...]]:
    """Values of the level above -> (values of this level [B, C, d_in], routing of this stage and of those inside)."""
    stage, config = self.config.stages[self.index], self.config
    rungs, rung_B = _rungs(config, self.index, level)
    # Level 0 is the only one where slots are bytes, and the only one whose boundary may read them.
    indices = {**_slots(level), 'bytes': bytes_BxL}
    if not self.index:
      del indices['picked']  # every slot is its own
    run = functools.partial(ladder.on_ladder, config=config.ladder, rungs=rungs, rung_B=rung_B)
    e_BxCxD, p_BxC = run(
      functools.partial(_enter, stage),
      parameters=_parts(self, 'pad', 'encoder', 'boundary'),
      rows={'parent': parent_BxCxD},
      indices=indices,
    )
    b_BxC = (p_BxC > 0.5) & level.valid
    kept_BxC = b_BxC & (jnp.cumsum(b_BxC, 1) <= _capacity(config, b_BxC.shape[1]))
    chunks = level.compact(kept_BxC)
    inner_BxCxD, routings = self.inner(e_BxCxD, chunks, bytes_BxL)
    out = run(
      functools.partial(_leave, stage),
      parameters=_parts(self, 'residual', 'decoder'),
      rows={'inner': inner_BxCxD, 'e': e_BxCxD, 'p': p_BxC},
      indices={
        'segment_ids': level.segment_ids,
        'b': kept_BxC,
        'chunk_segment_ids': chunks.segment_ids,
      },
    )
    return out, (Routing(p_BxC, kept_BxC, level, jnp.sum(b_BxC) - jnp.sum(kept_BxC)), *routings)

  def init_cache(self, batch_size: int, max_length: int) -> StageCache:
    """Empty caches for rows of at most `max_length` positions; an inner stage may see as many chunks as positions."""
    return StageCache(
      self.encoder.init_cache(batch_size, max_length),
      self.boundary.init_state(batch_size),
      self.inner.init_cache(batch_size, max_length),
      jnp.zeros((batch_size, self.config.stages[self.index].width), jnp.float32),
      self.decoder.init_cache(batch_size, max_length),
    )

  def prefill(self, x_BxCxD: Array, level: Level, bytes_BxL: Array, cache: StageCache) -> tuple[Array, StageCache]:
    """Parallel form from an empty cache; one document a row, no ladder (a prompt is read once)."""
    stage = self.config.stages[self.index]
    x = _widen(stage, getattr(self, 'pad', None), _picked(x_BxCxD, level.picked_BxC))
    e, encoder = self.encoder.prefill(x, level.count_B, cache.encoder)
    p = self.boundary(e, level.segment_ids, bytes_BxL)
    b = (p > 0.5) & level.valid
    chunks = level.compact(b)
    z, inner = self.inner.prefill(e, chunks, bytes_BxL, cache.inner)
    u = _expand(stage, z, p, b, chunks.segment_ids, level.segment_ids)
    last = z.astype(jnp.float32), jnp.maximum(chunks.count_B - 1, 0)
    if stage.unpool == 'ema':  # which stays what it is until the next chunk
      last = u, jnp.maximum(level.count_B - 1, 0)
    value = pick(last[0], last[1][:, None])[:, 0]
    y = _combine(stage, getattr(self, 'residual', None), u, e, p, b)
    y, decoder = self.decoder.prefill(y, level.count_B, cache.decoder)
    state = self.boundary.last_state(e, bytes_BxL, level.count_B)
    return _narrow(stage, y), StageCache(encoder, state, inner, value, decoder)

  def step(self, x_BxD: Array, byte_B: Array, active_B: Array, cache: StageCache) -> tuple[Array, StageCache]:
    """One position of the active rows; the inner stage runs only if some row starts a chunk."""
    stage = self.config.stages[self.index]
    e, encoder = self.encoder.step(_widen(stage, getattr(self, 'pad', None), x_BxD), active_B, cache.encoder)
    p_B, state = self.boundary.step(e, byte_B, active_B, cache.boundary)
    b_B = (p_B > 0.5) & active_B
    z, inner = jax.lax.cond(
      jnp.any(b_B),
      lambda e, inner: self.inner.step(e, byte_B, b_B, inner),
      lambda e, inner: (jnp.zeros_like(e), inner),
      e,
      cache.inner,
    )
    new = ema_step(z, p_B, cache.value_BxD) if stage.unpool == 'ema' else z.astype(jnp.float32)
    value = jnp.where(b_B[:, None], new, cache.value_BxD)
    u = jnp.where(b_B[:, None], value, 0.0) if stage.unpool == 'scatter' else value
    y = _combine(stage, getattr(self, 'residual', None), u, e, p_B, b_B)
    y, decoder = self.decoder.step(y, active_B, cache.decoder)
    return _narrow(stage, y), StageCache(encoder, state, inner, value, decoder)


def make(config: HNetConfig, index: int, *, rngs: nnx.Rngs) -> Stage | Innermost:
  """Stage `index` with everything inside it."""
  return (Innermost if config.stages[index].main else Stage)(config, index, rngs=rngs)


# The two halves of a stage at one rung: they close over static values only, and take arrays from `rows` and `indices`.


def _main_forward(stage: StageConfig, rung: int, parameters: dict, rows: dict, indices: dict) -> Array:
  x = _widen(stage, parameters.get('pad'), _picked(rows['parent'], indices['picked'], rung))
  y = parameters['main'](x, indices['segment_ids'][:, :rung])
  return ladder.pad_to(_narrow(stage, y), indices['picked'].shape[1])


def _enter(stage: StageConfig, rung: int, parameters: dict, rows: dict, indices: dict) -> tuple[Array, Array]:
  segment_ids = indices['segment_ids'][:, :rung]
  x = _picked(rows['parent'], indices['picked'], rung) if 'picked' in indices else rows['parent']
  e = parameters['encoder'](_widen(stage, parameters.get('pad'), x), segment_ids)
  p = parameters['boundary'](e, segment_ids, indices['bytes'][:, :rung])
  capacity = indices['segment_ids'].shape[1]
  return ladder.pad_to(e, capacity), ladder.pad_to(p, capacity)


def _leave(stage: StageConfig, rung: int, parameters: dict, rows: dict, indices: dict) -> Array:
  cut = lambda v: v[:, :rung]
  segment_ids, b, e, p = cut(indices['segment_ids']), cut(indices['b']), cut(rows['e']), cut(rows['p'])
  inner, residual = cut(rows['inner']), parameters.get('residual')
  if (stage.unpool, stage.combine) == ('ema', 'ste'):  # as published: one pass over the chunks and one over positions
    r = residual(e.astype(jnp.float32), HIGHEST)
    y = dechunk(inner, p, b, segment_ids, jnp.where(b, p, 1 - p), r).astype(e.dtype)
  else:
    y = _combine(stage, residual, _expand(stage, inner, p, b, cut(indices['chunk_segment_ids']), segment_ids), e, p, b)
  y = _narrow(stage, parameters['decoder'](y, segment_ids))
  return ladder.pad_to(y, rows['e'].shape[1])


def _expand(stage: StageConfig, inner: Array, p: Array, b: Array, chunk_ids: Array, segment_ids: Array) -> Array:
  """Chunk values -> values at the stage's own positions, float32."""
  inner = inner.astype(jnp.float32)
  if stage.unpool == 'ema':
    return dechunk(inner, p, b, segment_ids)
  index = jnp.maximum(jnp.cumsum(b, 1) - 1, 0)
  # Under a hard capacity a position may have no chunk of its own document.
  own = jnp.take_along_axis(chunk_ids, index, 1) == segment_ids
  own &= b if stage.unpool == 'scatter' else True
  return jnp.where(own[..., None], pick(inner, index), 0.0)


def _combine(stage: StageConfig, residual: Linear | None, u: Array, e: Array, p: Array, b: Array) -> Array:
  """u * STE(confidence) + W_r e + bias, or u + e; float32 inside, the result in e's dtype."""
  if stage.combine == 'sum':
    return (u + e.astype(jnp.float32)).astype(e.dtype)
  confidence = jnp.where(b, p, 1 - p)
  through = 1.0 + (confidence - jax.lax.stop_gradient(confidence))  # exactly 1 forward, slope 1 backward
  return (u * through[..., None] + residual(e.astype(jnp.float32), HIGHEST)).astype(e.dtype)


def _widen(stage: StageConfig, pad: Array | None, x: Array) -> Array:
  """To the stage's width: a learned vector behind the channels, or zeros before them (SpaceByte)."""
  extra = (*x.shape[:-1], stage.width - stage.width_in)
  if not extra[-1]:
    return x
  if stage.widen == 'zeros':
    return jnp.concatenate([jnp.zeros(extra, x.dtype), x], -1)
  return jnp.concatenate([x, jnp.broadcast_to(pad[...].astype(x.dtype), extra)], -1)


def _narrow(stage: StageConfig, y: Array) -> Array:
  return y[..., -stage.width_in :] if stage.widen == 'zeros' else y[..., : stage.width_in]


def _has_pad(stage: StageConfig) -> bool:
  return stage.width > stage.width_in and stage.widen == 'learned'


def _deviation(stage: StageConfig) -> float:
  """Of output projections: 0.02 / sqrt(number of residual additions from the outside in)."""
  return 0.02 * stage.encoder_residuals**-0.5


def _slots(level: Level) -> dict[str, Array]:
  return {'picked': level.picked_BxC, 'segment_ids': level.segment_ids}


def _picked(parent_BxCxD: Array, picked_BxC: Array, capacity: int | None = None) -> Array:
  """Values of the level above at the slots that became this level's, in order; zero behind them."""
  return chunk(parent_BxCxD, picked_BxC, capacity or picked_BxC.shape[1]).values_BxMxD


def _parts(module: nnx.Module, *names: str) -> dict[str, Any]:
  return {name: getattr(module, name) for name in names if hasattr(module, name)}


def _capacity(config: HNetConfig, length: int) -> int:
  return config.ladder.rungs(length)[-1]


def _rungs(config: HNetConfig, index: int, level: Level) -> tuple[tuple[int, ...], Array]:
  """Stage 0 runs at full length; deeper stages on the ladder."""
  length = level.segment_ids.shape[1]
  rungs = (length,) if index == 0 else config.ladder.rungs(length)
  return rungs, ladder.rungs_of(rungs, level.count_B)
