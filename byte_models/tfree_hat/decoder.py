"""The byte decoder: blocks over bytes, and what their words' vectors add before each of them."""

from flax import nnx

from byte_models.tfree_hat.config import TFreeHATConfig
from layers.cross import CrossConfig, Guide
from layers.linear import Linear, RMSNorm, normal
from layers.stack import Stack, height


class Decoder(nnx.Module):
  """A stack whose first layers (or all) are guided; not scanned, it is short."""

  def __init__(self, config: TFreeHATConfig, *, rngs: nnx.Rngs):
    deviation = 0.02 * height(config.decoder.layout) ** -0.5
    self.stack = Stack(config.decoder, output_deviation=deviation, rngs=rngs)
    make = lambda: Guide(config.guide, output_deviation=deviation, rngs=rngs)
    self.guides = nnx.List([make() for _ in range(config.guided_layers)])
    if config.keep_unused:
      count = height(config.decoder.layout) // 2
      self.unused = nnx.List(
        [Unused(config.guide, guided=layer < config.guided_layers, rngs=rngs) for layer in range(count)]
      )


class Unused(nnx.Module):
  """What a published decoder layer holds and nothing depends on: its gradient is zero.

  With one key, queries and keys make no difference; a layer without cross attention keeps its norms all the same.
  """

  def __init__(self, config: CrossConfig, *, guided: bool, rngs: nnx.Rngs):
    self.query_norm = RMSNorm(config.width_q, config.norm_epsilon)
    if not guided:
      self.kv_norm = RMSNorm(config.width_kv, config.norm_epsilon)
      return
    self.query = Linear(config.width_q, config.inner, kernel_init=normal(0.02), rngs=rngs)
    self.key = Linear(config.width_kv, config.shared, kernel_init=normal(0.02), rngs=rngs)
    if config.qk_norm:
      full = config.qk_norm == 'full'
      self.norm_query = RMSNorm(config.inner if full else config.head, config.norm_epsilon)
      self.norm_key = RMSNorm(config.shared if full else config.head, config.norm_epsilon)
