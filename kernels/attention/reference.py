"""The specification of `kernels.attention`: every query against every key."""

import jax
import jax.numpy as jnp
from jax import Array


def attention(
  q_BxLxHxK: Array,
  k_BxLxHxK: Array,
  v_BxLxHxK: Array,
  segment_ids_BxL: Array,
  window: int,
  *,
  causal: bool = True,
  keys_BxL: Array | None = None,
) -> Array:
  """See `kernels.attention.attention`; in float32."""
  q, k, v = (x.astype(jnp.float32) for x in (q_BxLxHxK, k_BxLxHxK, v_BxLxHxK))
  k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
  index_L = jnp.arange(q.shape[1])
  ahead_1xLxL = (index_L[:, None] - index_L[None])[None]
  keys_BxL = jnp.ones_like(segment_ids_BxL, bool) if keys_BxL is None else keys_BxL
  before_BxL = jnp.sum(keys_BxL[:, None] & (ahead_1xLxL > 0), -1)  # keys, of any document
  seen = segment_ids_BxL[:, :, None] == segment_ids_BxL[:, None]
  if causal:
    seen &= ahead_1xLxL >= 0
  if window >= 0:
    seen &= abs(before_BxL[:, :, None] - before_BxL[:, None]) <= window
  seen &= keys_BxL[:, None] | (ahead_1xLxL == 0)
  logits = jnp.einsum('bqhk,bshk->bhqs', q, k, precision='highest') / jnp.sqrt(q.shape[-1])
  weights = jax.nn.softmax(jnp.where(seen[:, None], logits, -jnp.inf), -1)
  return jnp.einsum('bhqs,bshk->bqhk', weights, v, precision='highest')
