"""The byte decoder: blocks over bytes, and before each of them what its word's vector adds."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from byte_models.tfree_hat.config import TFreeHATConfig
from byte_models.tfree_hat.cross import Guide, Unused
from layers import segments
from layers.attention import Attention, AttentionCache
from layers.stack import Stack, height, unstack

UNDO = 3  # positions that a late decision about a character may take back


class Decoder(nnx.Module):
  """A stack whose first layers (or all) are guided; not scanned, it is short."""

  def __init__(self, config: TFreeHATConfig, *, rngs: nnx.Rngs):
    self.config = config.decoder
    deviation = 0.02 * height(self.config.layout) ** -0.5
    self.stack = Stack(self.config, output_deviation=deviation, rngs=rngs)
    make = lambda: Guide(config.guide, output_deviation=deviation, rngs=rngs)
    self.guides = nnx.List([make() for _ in range(config.guided_layers)])
    if config.keep_unused:
      count = height(self.config.layout) // 2
      self.unused = nnx.List(
        [Unused(config.guide, guided=layer < config.guided_layers, rngs=rngs) for layer in range(count)]
      )

  def __call__(self, a_BxLxD: Array, guide: Callable[[int], Array], segment_ids_BxL: Array) -> Array:
    """a, and guide(layer) [B, L, D] for every guided layer, -> [B, L, D]."""
    positions_BxL = segments.positions(segment_ids_BxL)
    mix = lambda mixer, x, cache: (mixer(x, segment_ids_BxL, positions_BxL), None)
    return self._through(a_BxLxD, guide, self._no_caches(), mix, remat=self.config.remat)[0]

  def init_cache(self, batch_size: int, max_length: int) -> tuple[AttentionCache, ...]:
    """One cache a block, whose last UNDO positions can be taken back."""
    dtype = jnp.dtype(self.config.dtype)
    return tuple(block.mixer.init_cache(batch_size, max_length, dtype, UNDO) for block in self._blocks())

  def prefill(
    self, a_BxLxD: Array, guide: Callable[[int], Array], length_B: Array, cache: tuple
  ) -> tuple[Array, tuple]:
    """Parallel form over right-padded rows, from an empty cache."""
    return self._through(a_BxLxD, guide, cache, lambda mixer, x, old: mixer.prefill(x, length_B, old))

  def step(self, a_BxD: Array, guide: Callable[[int], Array], active_B: Array, cache: tuple) -> tuple[Array, tuple]:
    """One position for the active rows."""
    return self._through(a_BxD, guide, cache, lambda mixer, x, old: mixer.step(x, active_B, old))

  def _blocks(self) -> list[Any]:
    return [block for run in self.stack.runs for block in unstack(run)]

  def _no_caches(self) -> tuple[None, ...]:
    return (None,) * (height(self.config.layout) // 2)

  def _through(
    self,
    x: Array,
    guide: Callable[[int], Array],
    caches: tuple,
    mix: Callable[[Attention, Array, Any], tuple[Array, Any]],
    remat: bool = False,
  ) -> tuple[Array, tuple]:
    apply = lambda block, branch, residual, cache: block.apply(lambda m, y: mix(m, y, cache), branch, residual)
    apply = jax.checkpoint(apply) if remat else apply
    branch, residual, new = x, jnp.zeros(x.shape, jnp.float32), []
    for layer, (block, cache) in enumerate(zip(self._blocks(), caches, strict=True)):
      if layer < len(self.guides):
        residual = residual + guide(layer)
      branch, residual, kept = apply(block, branch, residual, cache)
      new.append(kept)
    return (branch + residual).astype(x.dtype), tuple(new)
