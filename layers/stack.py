"""The isotropic stack: runs of equal blocks, written in H-Net's layout grammar (`T1m4` = one T block, then four m).

m Mamba-2, M Mamba-2 and MLP, t attention, T attention and MLP. The residual stream is float32; a branch is added at the
next norm, and the stack ends in a norm, so that its accumulated residual stays inside.
"""

import copy
import dataclasses
import math
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from layers import attention, mamba2, mlp, partition, segments
from layers.attention import Attention, AttentionConfig
from layers.linear import RMSNorm
from layers.mamba2 import HEAD_DIM, Mamba2
from layers.mlp import SwiGLU
from layers.rotary import RotaryScaling

MOST_BLOCKS = 9_999  # of a stack; more is a mistake, or somebody's who wants the memory
Module = TypeVar('Module', bound=nnx.Module)

# (number of a block, the residual stream before it) -> what is added to the stream there, or None: the way in for what
# does not come through the layers, such as a cross attention or the vector of a word.
Inject = Callable[[int, Array], Array | None]


@dataclasses.dataclass(frozen=True)
class StackConfig:
  """One stage's sizes; the values are checked together, since a stack of m blocks needs no heads."""

  layout: str
  width: int
  mlp_width: int
  num_heads: int
  rotary_dim: int
  window: int
  d_state: int = 128
  d_conv: int = 4
  expand: int = 2
  tile: int = 64  # of the SSD's matrix form; changes speed, not results
  final_norm: bool = True
  num_kv_heads: int = 0  # these six as in AttentionConfig
  head_size: int = 0
  rotary_base: float = 10000.0
  rotary_scaling: RotaryScaling | None = None
  qk_norm: str = ''
  causal: bool = True
  norm_epsilon: float = 1e-5
  remat: bool = False
  scan: bool = False
  dtype: str = 'float32'

  def __post_init__(self):
    kinds = {kind for kind, _ in parse_layout(self.layout)}
    if kinds & set('mM') and (self.expand * self.width) % HEAD_DIM:
      raise ValueError(
        f'd_model {self.width} with layout {self.layout!r}: Mamba-2 needs expand * d_model '
        f'({self.expand * self.width}) to be a multiple of its head size {HEAD_DIM}.'
      )
    if kinds & set('MT') and self.mlp_width <= 0:
      raise ValueError(
        f'd_intermediate {self.mlp_width} with layout {self.layout!r}: blocks M and T have an MLP and need a positive '
        'd_intermediate; write m or t for blocks without one.'
      )
    if kinds & set('tT'):
      if self.num_heads <= 0 or (self.width % self.num_heads and not self.head_size):
        raise ValueError(f'num_heads {self.num_heads} does not divide d_model {self.width} (layout {self.layout!r}).')
      if self.num_kv_heads < 0 or (self.num_kv_heads and self.num_heads % self.num_kv_heads):
        raise ValueError(f'num_kv_heads {self.num_kv_heads} does not divide num_heads {self.num_heads}.')
      if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.attention.head:
        raise ValueError(
          f'rotary_emb_dim {self.rotary_dim} must be even and at most the head size {self.attention.head} (d_model '
          f'{self.width} / num_heads {self.num_heads}).'
        )
      if self.window < -1:
        raise ValueError(f'window_size {self.window} must be -1 (full attention) or at least 0.')

  @property
  def attention(self) -> AttentionConfig:
    """The sizes of the attention blocks."""
    names = {field.name for field in dataclasses.fields(AttentionConfig)}
    return AttentionConfig(**{name: getattr(self, name) for name in names})


class Backbone(NamedTuple):
  """The main network of a model: the path of its parameters, its stack, and what its MLP's width is a multiple of."""

  path: str
  stack: 'StackConfig'
  mlp_multiple: int = 8

  @property
  def mlp_width(self) -> int:
    """0 where no block has an MLP."""
    return self.stack.mlp_width if any(kind.isupper() for kind, _ in parse_layout(self.stack.layout)) else 0

  @property
  def multiple(self) -> int:
    """What its width must be a multiple of, for its heads; attention turns pairs of channels."""
    if any(kind in 'mM' for kind, _ in parse_layout(self.stack.layout)):
      return HEAD_DIM // math.gcd(HEAD_DIM, self.stack.expand)
    return 2 * self.stack.num_heads


def parse_layout(layout: str) -> tuple[tuple[str, int], ...]:
  """`'T1m4'` -> `(('T', 1), ('m', 4))`; raises ValueError on anything that the grammar does not cover."""
  if not isinstance(layout, str) or not re.fullmatch(r'([mMtT][1-9]\d*)+', layout):
    raise ValueError(
      f'arch_layout {layout!r}: a stack is written as letters m, M, t or T, each followed by a count, such as "T1m4".'
    )
  runs = re.findall(r'([mMtT])(\d+)', layout)
  if len(runs) > MOST_BLOCKS or any(len(count) > 6 for _, count in runs) or sum(int(n) for _, n in runs) > MOST_BLOCKS:
    raise ValueError(f'arch_layout {layout!r:.50}: a stack has at most {MOST_BLOCKS} blocks.')
  return tuple((kind, int(count)) for kind, count in runs)


def height(layout: str) -> int:
  """Number of residual additions: one for each mixer and one for each MLP."""
  return sum(count * (2 if kind.isupper() else 1) for kind, count in parse_layout(layout))


class Block(nnx.Module):
  """Norm and mixer, then norm and MLP for upper-case kinds."""

  def __init__(self, kind: str, config: StackConfig, *, output_deviation: float, rngs: nnx.Rngs):
    self.norm1 = RMSNorm(config.width, config.norm_epsilon)
    if kind in 'mM':
      self.mixer = Mamba2(
        config.width,
        d_state=config.d_state,
        d_conv=config.d_conv,
        expand=config.expand,
        output_deviation=output_deviation,
        tile=config.tile,
        rngs=rngs,
      )
    else:
      self.mixer = Attention(config.attention, output_deviation=output_deviation, rngs=rngs)
    if kind.isupper():
      self.norm2 = RMSNorm(config.width, config.norm_epsilon)
      self.mlp = SwiGLU(config.width, config.mlp_width, output_deviation=output_deviation, rngs=rngs)

  def apply(self, mix, branch: Array, residual: Array) -> tuple[Array, Array, object]:
    """The block around `mix(mixer, x) -> (y, extra)`: the same lines for training, prefill and step."""
    residual = residual + branch
    branch, extra = mix(self.mixer, self.norm1(residual, branch.dtype))
    if hasattr(self, 'mlp'):
      residual = residual + branch
      branch = self.mlp(self.norm2(residual, branch.dtype))
    return branch, residual, extra


class Stack(nnx.Module):
  """Runs of equal blocks; the parameters of a run are stacked along a leading axis, whether or not it is scanned."""

  def __init__(self, config: StackConfig, *, output_deviation: float, rngs: nnx.Rngs):
    self.config = config
    runs = []
    for kind, count in parse_layout(config.layout):
      make = lambda key, kind=kind: Block(kind, config, output_deviation=output_deviation, rngs=nnx.Rngs(params=key))
      runs.append(jax.vmap(make)(jax.random.split(rngs.params(), count)))
    self.runs = nnx.List(runs)
    if config.final_norm:
      self.norm = RMSNorm(config.width, config.norm_epsilon)

  def _finish(self, branch: Array, residual: Array) -> Array:
    total = branch + residual
    return self.norm(total, branch.dtype) if self.config.final_norm else total.astype(branch.dtype)

  def __call__(
    self, x_BxLxD: Array, segment_ids_BxL: Array, inject: Inject | None = None, keys_BxL: Array | None = None
  ) -> Array:
    """x [B, L, D], documents by segment id -> [B, L, D] in x's dtype. With `inject` a run is never scanned.

    keys: the positions that others see, bool, of a stack of attention alone; the rest sees them and itself, and passes
    nothing on. Positions count keys.
    """
    positions_BxL = segments.positions(segment_ids_BxL, keys_BxL)

    def apply(block: Block, branch: Array, residual: Array) -> tuple[Array, Array]:
      mix = lambda mixer, x: (mixer(x, segment_ids_BxL, positions_BxL, *_given(keys_BxL)), None)
      branch, residual, _ = block.apply(mix, partition.by_rows(branch), partition.by_rows(residual))
      return branch, residual

    if self.config.remat:
      apply = jax.checkpoint(apply)
    carry, layer = (x_BxLxD, jnp.zeros(x_BxLxD.shape, jnp.float32)), 0
    for run in self.runs:
      if self.config.scan and inject is None:
        carry, _ = jax.lax.scan(lambda carry, block: (apply(block, *carry), None), carry, run)
      else:
        for block in unstack(run):
          carry = apply(block, *_injected(inject, layer, *carry))
          layer += 1
    return self._finish(*carry)

  def init_cache(self, batch_size: int, max_length: int, **options: int) -> tuple:
    """One cache for every block, in order; not stacked, so that each is updated in place. options: of the mixers'."""
    dtype, blocks = jnp.dtype(self.config.dtype), self._blocks()
    return tuple(block.mixer.init_cache(batch_size, max_length, dtype, **options) for block in blocks)

  def prefill(
    self, x_BxLxD: Array, length_B: Array, cache: tuple, inject: Inject | None = None, keys_BxL: Array | None = None
  ) -> tuple[Array, tuple]:
    """Parallel form over right-padded rows, one document each, from an empty cache."""
    mix = lambda mixer, x, old: mixer.prefill(x, length_B, old, *_given(keys_BxL))
    return self._with_cache(x_BxLxD, cache, mix, inject)

  def step(
    self, x_BxD: Array, active_B: Array, cache: tuple, inject: Inject | None = None, keep_B: Array | None = None
  ) -> tuple[Array, tuple]:
    """One position for the active rows. keep: whether later ones see it, as `keys` above."""
    mix = lambda mixer, x, old: mixer.step(x, active_B, old, *_given(keep_B))
    return self._with_cache(x_BxD, cache, mix, inject)

  def _with_cache(self, x: Array, cache: tuple, mix, inject: Inject | None) -> tuple[Array, tuple]:
    branch, residual, new = x, jnp.zeros(x.shape, jnp.float32), []
    for layer, (block, old) in enumerate(zip(self._blocks(), cache, strict=True)):
      branch, residual = _injected(inject, layer, branch, residual)
      branch, residual, kept = block.apply(lambda mixer, y, old=old: mix(mixer, y, old), branch, residual)
      new.append(kept)
    return self._finish(branch, residual), tuple(new)

  def _blocks(self) -> list[Block]:
    return [block for run in self.runs for block in unstack(run)]


def _given(keys: Array | None) -> tuple[Array, ...]:
  """An argument for the mixers that know it, which are those of attention."""
  return () if keys is None else (keys,)


def _injected(inject: Inject | None, layer: int, branch: Array, residual: Array) -> tuple[Array, Array]:
  added = None if inject is None else inject(layer, branch + residual)
  return (branch, residual) if added is None else (branch, residual + added)


def unstack(run: Block | nnx.List) -> list[Block]:
  """The blocks of a run. `lax.split` has a concatenation as its gradient; indexing would add n padded copies."""
  if isinstance(run, nnx.List):  # of a model that `unstacked` made
    return list(run)
  leaves, structure = jax.tree.flatten(run)
  count = leaves[0].shape[0]
  parts = [jax.lax.split(leaf, (1,) * count) for leaf in leaves]
  return [jax.tree.unflatten(structure, [part[i].squeeze(0) for part in parts]) for i in range(count)]


def unstacked(model: Module) -> Module:
  """The model with the blocks of every stack as parameters of their own: for decoding, where taking the stacks apart
  at every step reads and writes all parameters once more. A copy: its paths are not those of checkpoints.
  """

  def in_blocks(module):
    if not isinstance(module, Stack):
      return module
    module = copy.copy(module)
    module.runs = nnx.List([nnx.List(unstack(run)) for run in module.runs])
    return module

  return jax.tree.map(in_blocks, model, is_leaf=lambda module: isinstance(module, Stack))


def flops(config: StackConfig, positions: float, length: float) -> float:
  """Forward FLOPs of the stack on `positions` positions in documents of `length` positions."""
  total = 0.0
  span = length if config.window < 0 else min(length, config.window + 1)
  for kind, count in parse_layout(config.layout):
    if kind in 'mM':
      total += count * mamba2.flops(positions, config.width, config.d_state, config.d_conv, config.expand)
    else:
      total += count * attention.flops(config.attention, positions, span)
    if kind.isupper():
      total += count * mlp.flops(positions, config.width, config.mlp_width)
  return total
