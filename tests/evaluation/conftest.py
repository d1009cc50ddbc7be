"""A model whose numbers a naive loop can compute: logits from the last two bytes and the position in the segment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers.contract import ByteModel, ModelOutput


class TwoByteModel(ByteModel):
  """After byte b_t: last[b_t] + before[b_{t−1}] (nothing at the first position) + cos(position · frequency)."""

  num_stages = 2
  config = None

  def __init__(self, *, positional: bool, end_bias: float = 0.0, seed: int = 0):
    random = np.random.default_rng(seed)
    self.last = nnx.Param(jnp.array(random.normal(size=(256, 256)) * 2, jnp.float32).at[:, 255].add(end_bias))
    self.before = nnx.Param(jnp.array(random.normal(size=(256, 256)), jnp.float32))
    self.frequency = nnx.Param(jnp.array(random.uniform(0.1, 1, 256) if positional else np.zeros(256), jnp.float32))

  def logits(self, byte, previous, has_previous, position):
    before = jnp.where(has_previous[..., None], self.before[...][previous], 0.0)
    angle = position[..., None] * jax.lax.broadcast_to_rank(self.frequency[...], before.ndim)
    return self.last[...][byte] + before + jnp.cos(angle)

  def __call__(self, batch, *, context=None, capacities=None):
    byte_BxL, segment_BxL = jnp.asarray(batch.bytes, jnp.int32), jnp.asarray(batch.segment_ids)
    scored_BxL = jnp.asarray(batch.scored)
    index_1xL = jnp.arange(byte_BxL.shape[1])[None]
    position_BxL = index_1xL - jax.lax.cummax(jnp.where(scored_BxL, 0, index_1xL), axis=1)
    logits_BxLxV = self.logits(byte_BxL, jnp.roll(byte_BxL, 1, 1), scored_BxL, position_BxL)
    log_p_BxLxV = jax.nn.log_softmax(jnp.roll(logits_BxLxV, 1, 1))
    nll_BxL = -jnp.take_along_axis(log_p_BxLxV, byte_BxL[..., None], -1)[..., 0]
    starts_BxL = (segment_BxL > 0) & ~scored_BxL
    real_BxL = segment_BxL > 0
    stages = tuple(starts_BxL | (real_BxL & (byte_BxL % divisor == 0)) for divisor in (5, 25))
    return ModelOutput(jnp.where(scored_BxL, nll_BxL, 0.0), logits_BxLxV, stages, ())

  def flops_per_byte(self, length, bytes_per_chunk=None):
    return {'table': 2.0 * 256}

  def init_cache(self, batch_size, max_bytes):
    return {'bytes': jnp.zeros((batch_size, max_bytes), jnp.uint8), 'length': jnp.zeros(batch_size, jnp.int32)}

  def prefill(self, batch, lengths_B, cache):
    bytes_BxP = jnp.asarray(batch.bytes)
    cache = {'bytes': cache['bytes'].at[:, : bytes_BxP.shape[1]].set(bytes_BxP), 'length': jnp.asarray(lengths_B)}
    return self._after(cache), cache

  def step(self, byte_B, cache):
    rows = jnp.arange(len(byte_B))
    cache = {'bytes': cache['bytes'].at[rows, cache['length']].set(byte_B), 'length': cache['length'] + 1}
    return self._after(cache), cache

  def _after(self, cache):
    rows, length = jnp.arange(len(cache['length'])), cache['length']
    byte, previous = cache['bytes'][rows, length - 1], cache['bytes'][rows, jnp.maximum(length - 2, 0)]
    return self.logits(byte.astype(jnp.int32), previous.astype(jnp.int32), length > 1, length - 1)

  def naive_logits(self, symbols) -> np.ndarray:
    """What the model says after the last of these symbols, float64 [256]."""
    logits = np.array(self.last[...], np.float64)[symbols[-1]]
    if len(symbols) > 1:
      logits = logits + np.array(self.before[...], np.float64)[symbols[-2]]
    return logits + np.cos((len(symbols) - 1) * np.array(self.frequency[...], np.float64))


@pytest.fixture(scope='session')
def two_byte_model():
  return TwoByteModel
