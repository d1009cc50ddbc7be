"""The state-space recurrence as a TPU kernel: tiles in the order of the row, with the states of all heads in VMEM.

Heads lie side by side on the lanes ([B, L, H P]) and states are [N, H P], so that what a tile reads from the states and
adds to them are wide products for a block of heads; only the mixing inside a tile is done head by head, with decays
made from dt on the spot. Blocks of heads are the innermost axis of the grid: B, C, their gradients and the scores of a
tile stay in VMEM while all heads pass. The gradient meets the tiles from the last to the first; for it the forward pass
writes the state that enters each tile, in the dtype of x: N / tile times the size of x.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from kernels.cost import Block, Call
from kernels.tpu import HIGHEST, run

F32 = jnp.float32
LANES = 128
MEMORY = 16 * 2**20  # the smallest scoped VMEM, that of v4 and v5e


@dataclasses.dataclass(frozen=True)
class Layout:
  """How rows are cut: `tile` positions by `heads` heads of `head_dim` lanes each."""

  tile: int
  heads: int
  head_dim: int

  @property
  def width(self) -> int:
    """Lanes of a block of heads."""
    return self.heads * self.head_dim

  def groups(self) -> list[tuple[slice, range]]:
    """Slices of at most 128 lanes, or of one head if it has more, and the heads that lie on them."""
    each = max(1, LANES // self.head_dim)
    groups = [range(first, min(first + each, self.heads)) for first in range(0, self.heads, each)]
    return [(slice(heads[0] * self.head_dim, (heads[-1] + 1) * self.head_dim), heads) for heads in groups]


def layout(heads: int, head_dim: int, tile: int) -> Layout:
  """Heads get a power of two or a multiple of 128 lanes, so that none lies across two groups of lanes."""
  lanes = -(-head_dim // LANES) * LANES if head_dim > LANES else 1 << (head_dim - 1).bit_length()
  return Layout(tile, min(heads, max(8, LANES // lanes)), lanes)


def ssd(
  x_BxLxHxP: Array,
  dt_BxLxH: Array,
  a_H: Array,
  b_BxLxN: Array,
  c_BxLxN: Array,
  segment_ids_BxL: Array,
  *,
  tile: int = LANES,
  interpret: Any = False,
) -> tuple[Array, Array]:
  """See `kernels.ssd.ssd`. On a TPU the tile is a multiple of 128. interpret: True or pltpu.InterpretParams."""
  batch, length, heads, head_dim = x_BxLxHxP.shape
  n, dtype = b_BxLxN.shape[-1], x_BxLxHxP.dtype
  at = layout(heads, head_dim, tile)
  pad_L, pad_H, pad_P = -length % tile, -heads % at.heads, at.head_dim - head_dim
  largest = describe(at, batch, length + pad_L, heads + pad_H, n, F32, 'ssd_gradient')
  # Beside the buffers a dozen arrays [Q, W] and [N, W] were alive in what the compiler made of it.
  needed = largest.vmem_bytes + 48 * (tile + n) * at.width
  if needed > MEMORY:
    raise ValueError(
      f'ssd: {heads} heads with states of {head_dim} x {n} need {needed / 2**20:.1f} MiB of VMEM, and the kernel has '
      f"{MEMORY >> 20}; write implementation='xla'."
    )
  padded = lambda v, *ends: jnp.pad(v, [(0, 0)] + [(0, end) for end in ends]) if any(ends) else v
  y, final = _scan(
    padded(x_BxLxHxP, pad_L, pad_H, pad_P).reshape(batch, length + pad_L, -1),
    padded(jnp.moveaxis(dt_BxLxH, 1, 2), pad_H, pad_L),
    jnp.pad(a_H, (0, pad_H))[:, None],
    padded(b_BxLxN.astype(dtype), pad_L, 0),
    padded(c_BxLxN.astype(dtype), pad_L, 0),
    _documents(segment_ids_BxL, tile),
    at,
    interpret,
  )
  y = y.reshape(batch, length + pad_L, heads + pad_H, at.head_dim)[:, :length, :heads, :head_dim]
  final = jnp.moveaxis(final.reshape(batch, n, heads + pad_H, at.head_dim), 1, 3)[:, :heads, :head_dim]
  return y, final


def _documents(segment_ids_BxL: Array, tile: int) -> Array:
  """Which document of its tile a position is in, [B, 1, L] int32: 0 is the one that reaches in from the tile before."""
  batch, length = segment_ids_BxL.shape
  starts = jnp.pad(segment_ids_BxL[:, 1:] != segment_ids_BxL[:, :-1], ((0, 0), (1, -length % tile)))
  return jnp.cumsum(starts.reshape(batch, -1, tile), -1, dtype=jnp.int32).reshape(batch, 1, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _scan(
  x_BxLxW: Array, dt_BxHxL: Array, a_Hx1: Array, b_BxLxN: Array, c_BxLxN: Array, document_Bx1xL: Array, at: Layout,
  interpret: Any,
) -> tuple[Array, Array]:  # fmt: skip
  """y [B, L, W] and the last states [B, N, W]; the W lanes hold all heads, and L is a multiple of the tile."""
  return _forward('ssd', x_BxLxW, dt_BxHxL, a_Hx1, b_BxLxN, c_BxLxN, document_Bx1xL, at, interpret)[0]


def _forward(name: str, x, dt, a, b, c, document, at: Layout, interpret: Any) -> tuple[tuple, tuple]:
  call = describe(at, *x.shape[:2], dt.shape[1], b.shape[-1], x.dtype, name)
  y, final, *states = run(call, functools.partial(_forward_kernel, at), x, dt, a, b, c, document, interpret=interpret)
  return (y, final), (x, dt, a, b, c, document, *states)


def _backward(at: Layout, interpret: Any, kept: tuple, gradients: tuple) -> tuple:
  x, dt, _, b, *_ = kept
  call = describe(at, *x.shape[:2], dt.shape[1], b.shape[-1], x.dtype, 'ssd_gradient')
  dx, ddt, da, db, dc = run(call, functools.partial(_backward_kernel, at), *kept, *gradients, interpret=interpret)
  return dx, ddt, jnp.sum(da, (0, 2))[:, None], db, dc, None


_scan.defvjp(functools.partial(_forward, 'ssd_saving'), _backward)


def describe(at: Layout, batch: int, length: int, heads: int, n: int, dtype: Any, name: str = 'ssd') -> Call:
  """Grid (row, tile, block of heads) and blocks of a call; length and heads are multiples of the layout's.

  name: 'ssd', 'ssd_saving' (which also writes the state that enters each tile, for the gradient) or 'ssd_gradient',
  which meets the tiles from the last to the first.
  """
  tiles, parts, width = length // at.tile, heads // at.heads, heads * at.head_dim
  backwards = name == 'ssd_gradient'
  tile = lambda g: tiles - 1 - g if backwards else g
  # The states at the end of the row: their index moves during the steps of one tile only, so that each moves once.
  at_end = lambda h, g: parts - 1 + (h - parts + 1) * (g == 0) if backwards else h * (g == tiles - 1)
  block = lambda shape, kind, blocks, index: Block(jax.ShapeDtypeStruct(shape, kind), blocks, index)
  x = block((batch, length, width), dtype, (None, at.tile, at.width), lambda r, g, h: (r, tile(g), h))
  dt = block((batch, heads, length), F32, (None, at.heads, at.tile), lambda r, g, h: (r, h, tile(g)))
  a = block((heads, 1), F32, (at.heads, 1), lambda r, g, h: (h, 0))
  b = block((batch, length, n), dtype, (None, at.tile, n), lambda r, g, h: (r, tile(g), 0))
  document = block((batch, 1, length), jnp.int32, (None, 1, at.tile), lambda r, g, h: (r, 0, tile(g)))
  entering = block((batch, tiles, n, width), dtype, (None, None, n, at.width), lambda r, g, h: (r, tile(g), 0, h))
  final = block((batch, n, width), F32, (None, n, at.width), lambda r, g, h: (r, 0, at_end(h, g)))
  da = block((batch, heads, at.tile), F32, (None, heads, at.tile), lambda r, g, h: (r, 0, 0))
  inputs, outputs = (x, dt, a, b, b, document), (x, final)
  carry, square, sums = ((parts, n, at.width), F32), ((at.tile, at.tile), F32), ((at.tile, n), F32)
  scratch = (carry, square)
  if name == 'ssd_saving':
    outputs += (entering,)
  elif backwards:
    inputs, outputs = (*inputs, entering, x, final), (x, dt, da, b, b)
    scratch += (square, sums, sums)
  positions = batch * length
  inside, outside = (2, 5) if backwards else (1, 2)  # products of each kind
  shared = 2 * positions * at.tile * n * (3 if backwards else 1)
  return Call(
    name=name,
    grid=(batch, tiles, parts),
    inputs=inputs,
    outputs=outputs,
    scratch=scratch,
    flops=shared + 2 * positions * width * (inside * at.tile + outside * n),
    transcendentals=positions * heads * at.tile,
  )


def _dot(left: Array, right: Array, contract: str = 'nn') -> Array:
  """A product in float32 of the matrices, each transposed where its letter is t."""
  axes = ((int(contract[0] == 'n'),), (int(contract[1] == 't'),))
  # Never the default in force: at the highest, the TPU compiler takes no bfloat16.
  precision = HIGHEST if left.dtype == F32 else jax.lax.Precision.DEFAULT
  return jax.lax.dot_general(left, right, (axes, ((), ())), precision=precision, preferred_element_type=F32)


def _iota(shape: tuple[int, int], axis: int) -> Array:
  return jax.lax.broadcasted_iota(jnp.int32, shape, axis)


def _sums(tile: int, *, backwards: bool) -> Array:
  """The matrix that makes prefix sums of rows, or sums of what is left."""
  row, column = _iota((tile, tile), 0), _iota((tile, tile), 1)
  return (row >= column if backwards else row <= column).astype(F32)


def _visible(document_1xQ: Array) -> Array:
  """float32 [Q, Q]: 1 where a position (row) sees another (column): not after it and of the same document."""
  shape = 2 * document_1xQ.shape[1:]
  of_column = jnp.broadcast_to(document_1xQ, shape).astype(F32)
  return jnp.where((_iota(shape, 0) >= _iota(shape, 1)) & (of_column == of_column.T), 1.0, 0.0)


def _decays(dt_HxQ: Array, a_Hx1: Array, document_1xQ: Array) -> tuple[Array, Array, Array, Array]:
  """log decays since the tile's start, decays from its start and to its end [H, Q], and over all of it [H, 1]."""
  log_HxQ = _dot(dt_HxQ * a_Hx1, _sums(dt_HxQ.shape[1], backwards=False))
  log_Hx1, document_1x1 = log_HxQ[:, -1:], document_1xQ[:, -1:]
  from_start = jnp.where(document_1xQ == 0, jnp.exp(log_HxQ), 0.0)
  to_end = jnp.where(document_1xQ == document_1x1, jnp.exp(log_Hx1 - log_HxQ), 0.0)
  return log_HxQ, from_start, to_end, jnp.where(document_1x1 == 0, jnp.exp(log_Hx1), 0.0)


def _spread(columns_RxH: Array, heads: range, head_dim: int) -> Array:
  """[R, lanes of the heads]: each head's column on all of its lanes."""
  shape = (columns_RxH.shape[0], len(heads) * head_dim)
  lane, out = _iota(shape, 1), jnp.broadcast_to(columns_RxH[:, heads[0] : heads[0] + 1], shape)
  for i, head in enumerate(heads[1:], 1):
    out = jnp.where(lane >= i * head_dim, columns_RxH[:, head : head + 1], out)
  return out


def _spread_all(at: Layout, columns_RxH: Array) -> Array:
  return jnp.concatenate([_spread(columns_RxH, heads, at.head_dim) for _, heads in at.groups()], 1)


def _only(x_QxG: Array, i: int, head_dim: int) -> Array:
  """The lanes of a group's head i, all others zero."""
  lane = _iota(x_QxG.shape, 1)
  return jnp.where((lane >= i * head_dim) & (lane < (i + 1) * head_dim), x_QxG, jnp.zeros_like(x_QxG))


def _per_head(at: Layout, wide_RxW: Array) -> Array:
  """[H, R]: sums over the lanes of each head."""
  lane, head = (_iota((at.heads, at.width), axis) for axis in (1, 0))
  mine = (lane >= head * at.head_dim) & (lane < (head + 1) * at.head_dim)
  return _dot(mine.astype(F32), wide_RxW, 'nt')


def _forward_kernel(at, x_ref, dt_ref, a_ref, b_ref, c_ref, document_ref, y_ref, final_ref, *rest):
  *states_ref, carry_ref, scores_ref = rest
  tile, part, dtype = pl.program_id(1), pl.program_id(2), x_ref.dtype
  b, c, document = b_ref[...], c_ref[...], document_ref[...]

  @pl.when(tile == 0)
  def _():
    carry_ref[part] = jnp.zeros(carry_ref.shape[1:], F32)

  @pl.when(part == 0)
  def _():
    scores_ref[...] = _dot(c, b, 'nt') * _visible(document)

  dt = dt_ref[...]
  log, from_start, to_end, survives = _decays(dt, a_ref[...], document)
  log_T, from_start_T, weight_T, survives_T = log.T, from_start.T, (to_end * dt).T, survives.T
  carry = carry_ref[part]
  for ref in states_ref:
    ref[...] = carry.astype(dtype)
  carried = _dot(c, carry.astype(dtype))
  for lanes, heads in at.groups():
    x = x_ref[:, lanes]
    y = carried[:, lanes] * _spread(from_start_T, heads, at.head_dim)
    for i, head in enumerate(heads):
      # No decay exceeds one; what the scores mask could overflow here.
      decay = jnp.exp(jnp.minimum(log_T[:, head : head + 1] - log[head : head + 1], 0.0))
      mixing = (scores_ref[...] * decay * dt[head : head + 1]).astype(dtype)
      y += _dot(mixing, _only(x, i, at.head_dim))
    y_ref[:, lanes] = y.astype(dtype)
    weighted = (x.astype(F32) * _spread(weight_T, heads, at.head_dim)).astype(dtype)
    new = carry[:, lanes] * _spread(survives_T, heads, at.head_dim) + _dot(b, weighted, 'tn')
    carry_ref[part, :, lanes] = new

  @pl.when(tile == pl.num_programs(1) - 1)
  def _():
    final_ref[...] = carry_ref[part]


def _backward_kernel(at, *refs):
  x_ref, dt_ref, a_ref, b_ref, c_ref, document_ref, states_ref, dy_ref, dfinal_ref, *refs = refs
  dx_ref, ddt_ref, da_ref, db_ref, dc_ref, carry_ref, scores_ref, dscores_ref, db_sum_ref, dc_sum_ref = refs
  step, part, dtype = pl.program_id(1), pl.program_id(2), x_ref.dtype
  b, c, document = b_ref[...], c_ref[...], document_ref[...]
  mine = pl.ds(pl.multiple_of(part * at.heads, at.heads), at.heads)

  @pl.when(step == 0)
  def _():
    carry_ref[part] = dfinal_ref[...]
    da_ref[mine] = jnp.zeros((at.heads, at.tile), F32)

  @pl.when(part == 0)
  def _():
    scores_ref[...] = _dot(c, b, 'nt') * _visible(document)
    for ref in (dscores_ref, db_sum_ref, dc_sum_ref):
      ref[...] = jnp.zeros(ref.shape, F32)

  dt, a = dt_ref[...], a_ref[...]
  log, from_start, to_end, survives = _decays(dt, a, document)
  weight = to_end * dt
  log_T, from_start_T, weight_T = log.T, from_start.T, weight.T
  carry, state = carry_ref[part], states_ref[...]
  low = carry.astype(dtype)
  carried, returned = _dot(c, state), _dot(b, low)  # [Q, W]: what y and the gradient of x have from outside the tile
  column_sums, row_sums_T = jnp.zeros(dt.shape, F32), jnp.zeros(log_T.shape, F32)
  head_of_row, head_of_column = _iota(dt.shape, 0), _iota(log_T.shape, 1)
  dy_decayed, x_weighted = [], []
  for lanes, heads in at.groups():
    x, dy = x_ref[:, lanes], dy_ref[:, lanes]
    weights = _spread(weight_T, heads, at.head_dim)
    dx = returned[:, lanes] * weights
    for i, head in enumerate(heads):
      dt_1xQ, dy_head = dt[head : head + 1], _only(dy, i, at.head_dim)
      decay = jnp.exp(jnp.minimum(log_T[:, head : head + 1] - log[head : head + 1], 0.0))
      scores = scores_ref[...]
      dx += _dot((scores * decay * dt_1xQ).astype(dtype), dy_head, 'tn')
      dmixing = _dot(dy_head, x, 'nt') * decay
      dscores_ref[...] += dmixing * dt_1xQ
      product = dmixing * scores
      column_sums = jnp.where(head_of_row == head, jnp.sum(product, 0, keepdims=True), column_sums)
      row_sums_T = jnp.where(head_of_column == head, jnp.sum(product * dt_1xQ, 1, keepdims=True), row_sums_T)
    dx_ref[:, lanes] = dx.astype(dtype)
    x_weighted.append((x.astype(F32) * weights).astype(dtype))
    dy_decayed.append((dy.astype(F32) * _spread(from_start_T, heads, at.head_dim)).astype(dtype))
  x_weighted, dy_decayed = (jnp.concatenate(v, 1) for v in (x_weighted, dy_decayed))
  dc_sum_ref[...] += _dot(dy_decayed, state, 'nt')
  db_sum_ref[...] += _dot(x_weighted, low, 'nt')
  carry_ref[part] = carry * _spread_all(at, survives.T) + _dot(c, dy_decayed, 'tn')

  # The log decays: those inside the tile, from its start, to its end and over all of it.
  to_state = _per_head(at, x_ref[...].astype(F32) * returned)
  over = _per_head(at, jnp.sum(state.astype(F32) * carry, 0, keepdims=True))
  dlog = row_sums_T.T - dt * column_sums - weight * to_state
  dlog += from_start * _per_head(at, dy_ref[...].astype(F32) * carried)
  at_end = survives * over + jnp.sum(weight * to_state, 1, keepdims=True)
  dlog += jnp.where(_iota(dt.shape, 1) == at.tile - 1, at_end, 0.0)
  drate = _dot(dlog, _sums(at.tile, backwards=True))  # of dt A at every position
  ddt_ref[...] = column_sums + to_end * to_state + drate * a
  da_ref[mine] += drate * dt

  @pl.when(part == pl.num_programs(2) - 1)
  def _():
    dscores = (dscores_ref[...] * _visible(document)).astype(dtype)
    dc_ref[...] = (dc_sum_ref[...] + _dot(dscores, b)).astype(dc_ref.dtype)
    db_ref[...] = (db_sum_ref[...] + _dot(dscores, c, 'tn')).astype(db_ref.dtype)
