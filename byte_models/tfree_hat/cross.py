"""The two cross attentions of T-Free-HAT: a word's query to the word's bytes, and bytes to the vector of their word."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from byte_models.tfree_hat.config import CrossConfig
from byte_models.tfree_hat.words import Words
from layers.attention import repeated
from layers.linear import Linear, RMSNorm, normal
from layers.rotary import rotate

LOWEST = float(jnp.finfo(jnp.float32).min)  # below every score, and finite where it stands in a cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OpenWord:
  """What pooling has read of a word so far, float32: the largest score, the sum of exp(score − largest), and the values
  summed with the same weights.
  """

  top_BxH: Array
  weight_BxH: Array
  value_BxHxK: Array


class Pool(nnx.Module):
  """One latent query for all words, turned by the word's index; keys turned by the byte's index; no residual."""

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

  def queries(self, word_index: Array, dtype: jnp.dtype) -> Array:
    """The query of the words at these indices: [...] -> [..., H, K]."""
    q = self._heads(self.query(self.latent_1x1xD[0, 0].astype(dtype)), 'query_norm')
    return self._turned(jnp.broadcast_to(q, (*word_index.shape, *q.shape)), word_index)

  def keys_values(self, a: Array, byte_index: Array) -> tuple[Array, Array]:
    """Keys and values of bytes at these indices, for every query head: [..., H, K]."""
    key, value = jnp.split(self.key_value(a), 2, -1)
    k = self._turned(self._heads(key, 'key_norm'), byte_index)
    q_like = jax.ShapeDtypeStruct((self.config.num_heads, self.config.head), k.dtype)
    return repeated(k, q_like), repeated(value.reshape(k.shape), q_like)

  def _heads(self, x: Array, norm: str) -> Array:
    shape = (*x.shape[:-1], -1, self.config.head)
    if self.config.qk_norm == 'full':
      return getattr(self, norm)(x, x.dtype).reshape(shape)
    return getattr(self, norm)(x.reshape(shape), x.dtype) if self.config.qk_norm else x.reshape(shape)

  def _turned(self, x: Array, index: Array) -> Array:
    return rotate(x, index, self.config.head, self.config.rotary_base, self.config.rotary_scaling)

  def scores(self, q: Array, k: Array) -> Array:
    """Scaled products, float32: [..., H]."""
    return jnp.einsum('...k,...k->...', q, k, preferred_element_type=jnp.float32) * self.config.head**-0.5

  def mixed(self, a_BxLxD: Array, words: Words) -> Array:
    """Every word's values weighted by the softmax over its bytes: [B, S, H * K] in a's dtype.

    Sums go from bytes to slots by scatter, so that nothing is as large as words times bytes.
    """
    capacity, valid_BxLx1 = words.level.segment_ids_BxC.shape[1], words.valid_BxL[..., None]
    k_BxLxHxK, v_BxLxHxK = self.keys_values(a_BxLxD, words.byte_BxL)
    scores_BxLxH = self.scores(self.queries(words.word_BxL, a_BxLxD.dtype), k_BxLxHxK)
    rows_Bx1 = jnp.arange(a_BxLxD.shape[0])[:, None]
    slot_BxL = jnp.where(words.valid_BxL, words.slot_BxL, capacity)  # out of range: padding is dropped
    empty = jnp.full((a_BxLxD.shape[0], capacity, self.config.num_heads), -jnp.inf)
    top = empty.at[rows_Bx1, slot_BxL].max(jax.lax.stop_gradient(scores_BxLxH), mode='drop')
    own = lambda x: jnp.take_along_axis(x, words.slot_BxL[..., None], 1)
    weight_BxLxH = jnp.exp(jnp.where(valid_BxLx1, scores_BxLxH - own(top), -jnp.inf))
    total = jnp.zeros_like(empty).at[rows_Bx1, slot_BxL].add(weight_BxLxH, mode='drop')
    weight_BxLxH /= jnp.where(valid_BxLx1, own(total), 1.0)
    v_BxLxHxK = weight_BxLxH[..., None] * v_BxLxHxK.astype(jnp.float32)
    slots = jnp.zeros((*empty.shape, self.config.head), jnp.float32).at[rows_Bx1, slot_BxL].add(v_BxLxHxK, mode='drop')
    return slots.reshape(*empty.shape[:2], -1).astype(a_BxLxD.dtype)

  def begin(self, batch_size: int) -> OpenWord:
    """Words of which nothing was read."""
    shape = (batch_size, self.config.num_heads)
    return OpenWord(jnp.full(shape, LOWEST), jnp.zeros(shape), jnp.zeros((*shape, self.config.head)))

  def read(self, a_BxD: Array, byte_B: Array, word_B: Array, active_B: Array, word: OpenWord) -> OpenWord:
    """One more byte for the words of the active rows; byte and word by their indices in the document."""
    k, v = self.keys_values(a_BxD, byte_B)
    score = jnp.where(active_B[:, None], self.scores(self.queries(word_B, a_BxD.dtype), k), LOWEST)
    top = jnp.maximum(word.top_BxH, score)
    bound = jnp.where(top > LOWEST, top, 0.0)  # of a row that has read nothing
    old, new = jnp.exp(word.top_BxH - bound), jnp.exp(score - bound)
    value = word.value_BxHxK * old[..., None] + new[..., None] * v.astype(jnp.float32)
    return OpenWord(top, word.weight_BxH * old + new, value)

  def read_last(self, a_BxLxD: Array, words: Words, decided_BxL: Array) -> OpenWord:
    """The last word of every row, of which the decided bytes are read."""
    k, v = self.keys_values(a_BxLxD, words.byte_BxL)
    last_BxL = decided_BxL & (words.slot_BxL == words.level.count_B[:, None] - 1)
    scores = self.scores(self.queries(words.word_BxL, a_BxLxD.dtype), k)
    scores = jnp.where(last_BxL[..., None], scores, LOWEST)
    top = jnp.max(scores, 1)
    weight = jnp.exp(scores - jnp.where(top > LOWEST, top, 0.0)[:, None])
    value = jnp.einsum('blh,blhk->bhk', weight, v.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return OpenWord(top, jnp.sum(weight, 1), value)

  def finish(self, word: OpenWord, dtype: jnp.dtype) -> Array:
    """The vectors of words that have bytes: [B, D]."""
    weight = jnp.where(word.weight_BxH > 0, word.weight_BxH, 1.0)
    return self.out((word.value_BxHxK / weight[..., None]).reshape(weight.shape[0], -1).astype(dtype))


class Guide(nnx.Module):
  """What a decoder layer adds to a byte for its word's vector p: out(value(norm(p))).

  This is the whole cross attention. A byte sees one key, so its softmax is 1 and its query does not matter.
  """

  def __init__(self, config: CrossConfig, *, output_deviation: float, rngs: nnx.Rngs):
    self.config = config
    self.norm = RMSNorm(config.width_kv, config.norm_epsilon)
    self.values = Linear(config.width_kv, config.shared, kernel_init=normal(0.02), rngs=rngs)
    self.out = Linear(config.inner, config.width_q, kernel_init=normal(output_deviation), rngs=rngs)

  def __call__(self, p: Array) -> Array:
    """p [..., D of words] -> [..., D of bytes]."""
    v = self.values(self.norm(p, p.dtype))
    v = v.reshape(*v.shape[:-1], -1, self.config.head)
    q_like = jax.ShapeDtypeStruct((self.config.num_heads, self.config.head), v.dtype)
    return self.out(repeated(v, q_like).reshape(*p.shape[:-1], -1))


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
