"""The byte decoder: blocks over bytes, and before each of them what its word's vector adds."""

from collections.abc import Callable

from flax import nnx
from jax import Array

from byte_models.tfree_hat.config import TFreeHATConfig
from byte_models.tfree_hat.cross import Guide, Unused
from layers.attention import AttentionCache
from layers.stack import Inject, Stack, height

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
    return self.stack(a_BxLxD, segment_ids_BxL, self._inject(guide))

  def init_cache(self, batch_size: int, max_length: int) -> tuple[AttentionCache, ...]:
    """One cache a block, whose last UNDO positions can be taken back."""
    return self.stack.init_cache(batch_size, max_length, undo=UNDO)

  def prefill(
    self, a_BxLxD: Array, guide: Callable[[int], Array], length_B: Array, cache: tuple
  ) -> tuple[Array, tuple]:
    """Parallel form over right-padded rows, from an empty cache."""
    return self.stack.prefill(a_BxLxD, length_B, cache, self._inject(guide))

  def step(self, a_BxD: Array, guide: Callable[[int], Array], active_B: Array, cache: tuple) -> tuple[Array, tuple]:
    """One position for the active rows."""
    return self.stack.step(a_BxD, active_B, cache, self._inject(guide))

  def _inject(self, guide: Callable[[int], Array]) -> Inject:
    return lambda layer, stream: guide(layer) if layer < len(self.guides) else None
