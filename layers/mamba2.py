"""The Mamba-2 mixer, channel for channel as in the released H-Nets (mamba_ssm's Mamba2 with its defaults)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from kernels.ssd import ssd
from layers import partition
from layers import ssd as ssd_lib
from layers.linear import Linear, RMSNorm, matmul, normal
from layers.partition import SharedOut

HEAD_DIM = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MambaCache:
  """The last d_conv - 1 inputs of the convolution (oldest first) and the state-space state."""

  conv_BxTxC: Array
  state_BxHxPxN: Array


class Mamba2(SharedOut):
  """[z | x | B | C | dt] = in_proj(u); convolution and SiLU on (x, B, C); SSD; gated norm; out_proj."""

  def __init__(
    self, width: int, *, d_state: int, d_conv: int, expand: int, output_deviation: float, tile: int, rngs: nnx.Rngs
  ):
    self.d_inner, self.d_state, self.tile = expand * width, d_state, tile
    heads, channels = self.d_inner // HEAD_DIM, self.d_inner + 2 * d_state
    self.in_proj = Linear(width, self.d_inner + channels + heads, kernel_init=normal(0.02), rngs=rngs)
    # PyTorch's default for a depthwise convolution, U(+-1/sqrt(taps)), which the official initialisation keeps.
    uniform = lambda shape: jax.random.uniform(rngs.params(), shape, jnp.float32, -1.0, 1.0) * d_conv**-0.5
    self.conv_kernel = nnx.Param(uniform((d_conv, channels)))  # the last tap is the current position
    self.conv_bias = nnx.Param(uniform((channels,)))
    low, high = jnp.log(1e-3), jnp.log(0.1)
    dt = jnp.exp(jax.random.uniform(rngs.params(), (heads,), jnp.float32, low, high)).clip(1e-4)
    self.dt_bias = nnx.Param(dt + jnp.log(-jnp.expm1(-dt)))  # the inverse of softplus
    self.A_log = nnx.Param(jnp.log(jax.random.uniform(rngs.params(), (heads,), jnp.float32, 1.0, 16.0)))
    self.D = nnx.Param(jnp.ones((heads,), jnp.float32))
    self.norm = RMSNorm(self.d_inner)
    self.out_proj = Linear(self.d_inner, width, kernel_init=normal(output_deviation), rngs=rngs)

  # Products with column ranges of one kernel, and convolutions of channel ranges: splitting the activations instead
  # would cost a padded copy of each part in the backward pass.

  def _project(self, u: Array) -> tuple[Array, Array, Array, Array]:
    """Gate z, inputs of the convolution for x and for (B, C), and dt."""
    kernel, inner = self.in_proj.kernel[...].astype(u.dtype), self.d_inner
    z, x, bc, dt = jnp.split(kernel, [inner, 2 * inner, 2 * inner + 2 * self.d_state], axis=1)
    heads = inner // HEAD_DIM
    parts = ((z, heads), (x, heads), (bc, 1), (dt, heads))  # B and C serve all heads
    z, x, bc, dt = (matmul(u, partition.by_columns(part, units)) for part, units in parts)
    return z, x, bc, jax.nn.softplus(dt.astype(jnp.float32) + self.dt_bias[None, None])

  def _convolve(self, x_BxLxC: Array, bc_BxLxC: Array, segment_ids_BxL: Array) -> tuple[Array, Array, Array]:
    """x in heads, B and C after convolution and SiLU; taps stay inside documents."""
    (kernel_x, kernel_bc), (bias_x, bias_bc) = self._channels(self.conv_kernel), self._channels(self.conv_bias)
    x = _causal_convolution(x_BxLxC, kernel_x, bias_x, segment_ids_BxL)
    bc = _causal_convolution(bc_BxLxC, kernel_bc, bias_bc, segment_ids_BxL)
    return (x.reshape(*x.shape[:-1], -1, HEAD_DIM), *jnp.split(bc, 2, axis=-1))

  def _channels(self, parameter: nnx.Param) -> list[Array]:
    return jnp.split(parameter[...], [self.d_inner], axis=-1)

  def _finish(self, y: Array, x: Array, z: Array) -> Array:
    skip = jax.lax.broadcast_to_rank(self.D[:, None], x.ndim) * x.astype(jnp.float32)
    y = y + skip.astype(y.dtype)
    y = y.reshape(z.shape) * jax.nn.silu(z)
    return self.out_proj(self.norm(y, z.dtype))

  def __call__(self, u_BxLxD: Array, segment_ids_BxL: Array, positions_BxL: Array) -> Array:
    """Mixes along rows; taps and state never cross from one document into the next."""
    del positions_BxL
    z, x, bc, dt = self._project(u_BxLxD)
    x, b, c = self._convolve(x, bc, segment_ids_BxL)
    y, _ = ssd(x, dt, -jnp.exp(self.A_log[...]), b, c, segment_ids_BxL, self.tile)
    return self._finish(y, x, z)

  @property
  def shared_out(self) -> dict[str, int]:
    """What the mesh axis `tensor` divides among devices."""
    return {'heads': self.d_inner // HEAD_DIM}

  def init_cache(self, batch_size: int, max_length: int, dtype: jnp.dtype) -> MambaCache:
    """An empty cache; its size does not depend on `max_length`."""
    del max_length
    taps, channels = self.conv_kernel.shape[-2:]
    state = (batch_size, self.d_inner // HEAD_DIM, HEAD_DIM, self.d_state)
    return MambaCache(jnp.zeros((batch_size, taps - 1, channels), dtype), jnp.zeros(state, jnp.float32))

  def prefill(self, u_BxLxD: Array, length_B: Array, cache: MambaCache) -> tuple[Array, MambaCache]:
    """Parallel form over right-padded rows, from an empty cache."""
    z, x_in, bc_in, dt = self._project(u_BxLxD)
    index_1xL = jnp.arange(u_BxLxD.shape[1])[None]
    dt *= (index_1xL < length_B[:, None])[..., None]  # padding leaves the state as it is
    one_document = jnp.ones(u_BxLxD.shape[:2], jnp.int32)
    x, b, c = self._convolve(x_in, bc_in, one_document)
    y, state = ssd(x, dt, -jnp.exp(self.A_log[...]), b, c, one_document, self.tile)
    back = cache.conv_BxTxC.shape[1]
    wanted_BxT = length_B[:, None] - back + jnp.arange(back)[None]
    tail = jnp.take_along_axis(jnp.concatenate([x_in, bc_in], -1), jnp.maximum(wanted_BxT, 0)[..., None], axis=1)
    tail = jnp.where(wanted_BxT[..., None] >= 0, tail, 0).astype(cache.conv_BxTxC.dtype)
    return self._finish(y, x, z), MambaCache(tail, state)

  def step(self, u_BxD: Array, active_B: Array, cache: MambaCache) -> tuple[Array, MambaCache]:
    """One position for every active row; other rows keep their cache."""
    # One product: with a vector, taking the kernel apart would cost more than all else.
    ends = self.d_inner, 2 * self.d_inner + 2 * self.d_state
    z, inputs, dt = jnp.split(self.in_proj(u_BxD), ends, axis=-1)
    dt = jax.nn.softplus(dt.astype(jnp.float32) + self.dt_bias[None]) * active_B[:, None]
    past_BxTxC = jnp.concatenate([cache.conv_BxTxC, inputs[:, None].astype(cache.conv_BxTxC.dtype)], 1)
    total = self.conv_bias[None] + jnp.einsum('btc,tc->bc', past_BxTxC.astype(jnp.float32), self.conv_kernel[...])
    x, bc = jnp.split(jax.nn.silu(total).astype(u_BxD.dtype), [self.d_inner], axis=-1)
    x, (b, c) = x.reshape(x.shape[0], -1, HEAD_DIM), jnp.split(bc, 2, axis=-1)
    y, state = ssd_lib.ssd_step(cache.state_BxHxPxN, x, dt, -jnp.exp(self.A_log[...]), b, c)
    conv = jnp.where(active_B[:, None, None], past_BxTxC[:, 1:], cache.conv_BxTxC)
    return self._finish(y.astype(u_BxD.dtype), x, z), MambaCache(conv, state)


def _causal_convolution(x_BxLxC: Array, kernel_TxC: Array, bias_C: Array, segment_ids_BxL: Array) -> Array:
  taps = kernel_TxC.shape[0]
  kernel_Tx1x1xC = kernel_TxC[:, None, None]
  total = bias_C[None, None] + kernel_Tx1x1xC[taps - 1] * x_BxLxC
  for back in range(1, min(taps, x_BxLxC.shape[1])):
    shifted = jnp.pad(x_BxLxC[:, :-back], ((0, 0), (back, 0), (0, 0)))
    same = jnp.pad(segment_ids_BxL[:, :-back] == segment_ids_BxL[:, back:], ((0, 0), (back, 0)))
    total += kernel_Tx1x1xC[taps - 1 - back] * (shifted * same[..., None])
  return jax.nn.silu(total).astype(x_BxLxC.dtype)


def flops(positions: float, width: int, d_state: int, d_conv: int, expand: int) -> float:
  """Forward FLOPs on `positions` positions (H-Net paper, appendix B, the output projection with its true size)."""
  d_inner = expand * width
  heads = d_inner // HEAD_DIM
  projections = 2 * width * (2 * d_inner) + 2 * width * (2 * d_state + heads) + 2 * d_inner * width
  return positions * (projections + 2 * width * d_conv + 5 * width) + ssd_lib.flops(positions, d_inner, d_state)
