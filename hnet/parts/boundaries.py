"""Where chunks start: by the cosine of adjacent states, every so many slots, or at a mark or byte."""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import HIGHEST, Cut, Sizes, no_flops
from kernels.route import route
from kernels.route.xla import cosine
from layers import segments
from layers.chunks import Level
from layers.contract import Context
from layers.linear import Linear, identity

LONGEST_STRIDE = 2**31 - 1  # positions in a document are int32


class Cosine(nnx.Module):
  """Half of one minus the cosine of adjacent encoder states (H-Net, arXiv 2507.07955; dc.py RoutingModule).

  p_t = (1 - cos(W_q e_{t-1}, W_k e_t)) / 2, a chunk where p > 1/2. The paper's eq. 4 swaps the two projections;
  released weights follow this order. Always float32.
  """

  OPTIONS = {}
  lookahead, differentiable, learned, emits = 0, True, True, 'starts'

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    self.query = Linear(sizes.width, sizes.width, kernel_init=identity, rngs=rngs)
    self.key = Linear(sizes.width, sizes.width, kernel_init=identity, rngs=rngs)

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """p is 1 at the first slot of a document and 0 in padding."""
    del context
    e_BxCxD = e_BxCxD.astype(jnp.float32)
    p_BxC = route(self.query(e_BxCxD, HIGHEST), self.key(e_BxCxD, HIGHEST), level.segment_ids_BxC)
    return Cut((p_BxC > 0.5) & level.valid, p_BxC, p_BxC)

  def init_cache(self, batch_size: int) -> dict[str, Array]:
    """Nothing seen yet."""
    width = self.query.kernel.shape[0]
    return {'seen': jnp.zeros(batch_size, bool), 'last': jnp.zeros((batch_size, width), jnp.float32)}

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> dict[str, Array]:
    """The last slot's state."""
    del cut
    return {'seen': level.count_B > 0, 'last': at_last(e_BxCxD.astype(jnp.float32), level)}

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: dict) -> tuple[Cut, dict]:
    """One slot against the one before."""
    del marks
    e_BxD = e_BxD.astype(jnp.float32)
    cosine_B = cosine(self.query(cache['last'], HIGHEST), self.key(e_BxD, HIGHEST))
    p_B = jnp.where(cache['seen'], jnp.clip(0.5 * (1.0 - cosine_B), 0.0, 1.0), 1.0)
    new = {'seen': cache['seen'] | active_B, 'last': jnp.where(active_B[:, None], e_BxD, cache['last'])}
    return Cut((p_B > 0.5) & active_B, p_B, p_B), new

  @staticmethod
  def chunk_size() -> None:
    """Learned."""

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float) -> float:
    """Two projections."""
    del chunks
    return 4.0 * slots * sizes.width**2


class Begins(nnx.Module):
  """A boundary of which a step knows nothing but whether its document has begun."""

  def init_cache(self, batch_size: int) -> Array:
    """Nothing seen yet."""
    return jnp.zeros(batch_size, bool)

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> Array:
    """Whether a slot was seen."""
    del e_BxCxD, cut
    return level.count_B > 0


class _Rule(nnx.Module):
  """A boundary without parameters: p is 1 or 0."""

  OPTIONS = {}
  lookahead, differentiable, learned, emits = 0, False, False, 'starts'
  flops = no_flops


def by_rule(emit: Array) -> Cut:
  """Certain where it cuts, and without a gradient."""
  p = emit.astype(jnp.float32)
  return Cut(emit, p, p)


class Stride(_Rule):
  """A chunk every `size` slots of its document: H-Net (pool) of the paper's table 1."""

  OPTIONS = {'size': 6}

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, size: int):
    del sizes, rngs
    self.size = size

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """By the slot's position in its document."""
    del e_BxCxD, context
    return by_rule((segments.positions(level.segment_ids_BxC) % self.size == 0) & level.valid)

  def init_cache(self, batch_size: int) -> Array:
    """Position 0."""
    return jnp.zeros(batch_size, jnp.int32)

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> Array:
    """Slots so far."""
    del e_BxCxD, cut
    return level.count_B.astype(jnp.int32)

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: Array) -> tuple[Cut, Array]:
    """One slot."""
    del e_BxD, marks
    return by_rule((cache % self.size == 0) & active_B), cache + active_B

  @staticmethod
  def chunk_size(size: int) -> float:
    """The stride; ValueError for one that there cannot be."""
    if not 1 <= size <= LONGEST_STRIDE:
      raise ValueError(f'boundary stride({size!r:.50}): write stride(N) with N from 1 to {LONGEST_STRIDE}.')
    return float(size)


class StrideEnd(Stride):
  """A chunk ends every `size` slots of its document: Hourglass (arXiv 2110.13711), which shifts by size - 1 and then
  takes groups of `size`; the first has the document's first slot alone.
  """

  emits = 'ends'

  @staticmethod
  def chunk_size(size: int) -> float:
    """The stride; ValueError for one that there cannot be."""
    if not 1 <= size <= LONGEST_STRIDE:
      raise ValueError(f'boundary stride_end({size!r:.50}): write stride_end(N) with N from 1 to {LONGEST_STRIDE}.')
    return float(size)


class SpaceLike(_Rule):
  """A chunk at every space-like byte that does not follow another one (SpaceByte, arXiv 2404.14408; H-Net (space))."""

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    del sizes, rngs

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """By the byte where a slot starts."""
    del e_BxCxD, context
    space_BxC = space_like(level.marks['bytes'])
    after_space_BxC = jnp.pad(space_BxC[:, :-1], ((0, 0), (1, 0)))
    return by_rule(((space_BxC & ~after_space_BxC) | segments.starts(level.segment_ids_BxC)) & level.valid)

  def init_cache(self, batch_size: int) -> dict[str, Array]:
    """Nothing seen yet."""
    return {'seen': jnp.zeros(batch_size, bool), 'space': jnp.zeros(batch_size, bool)}

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> dict[str, Array]:
    """Whether the last slot was space-like."""
    del e_BxCxD, cut
    return {'seen': level.count_B > 0, 'space': space_like(at_last(level.marks['bytes'], level))}

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: dict) -> tuple[Cut, dict]:
    """One slot."""
    del e_BxD
    space_B = space_like(marks['bytes'])
    emit_B = ((space_B & ~cache['space']) | ~cache['seen']) & active_B
    new = {'seen': cache['seen'] | active_B, 'space': jnp.where(active_B, space_B, cache['space'])}
    return by_rule(emit_B), new

  @staticmethod
  def chunk_size() -> float:
    """6.0 bytes, as the paper reports."""
    return 6.0


class SpaceEnd(SpaceLike):
  """A chunk ends with every such byte, and with a document's first (BLT's patching mode 'space').

  Published, an EOS also ends one behind a space; nothing reads that.
  """

  emits = 'ends'


class Mark(Begins, _Rule):
  """A chunk at every slot whose byte has a mark that is not 0, such as where words begin.

  name: what the model calls the mark. by: its rule (text/marks), one that looks at no later byte, since the mark
  would tell it to the loss; T-Free-HAT's late decisions about words are in byte_models/tfree_hat.
  """

  OPTIONS = {'name': 'words', 'by': 'fixed(size=8)'}

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, name: str, by: str):
    del sizes, rngs, by
    self.name = name

  @staticmethod
  def marks(name: str, by: str) -> dict[str, str]:
    """The one."""
    return {name: by}

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """By the byte where a slot starts."""
    del e_BxCxD, context
    return by_rule((self._is_at(level.marks[self.name]) | segments.starts(level.segment_ids_BxC)) & level.valid)

  def _is_at(self, values: Array) -> Array:
    return values.astype(bool)

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: Array) -> tuple[Cut, Array]:
    """One slot."""
    del e_BxD
    return by_rule((self._is_at(marks[self.name]) | ~cache) & active_B), cache | active_B

  @staticmethod
  def chunk_size(name: str, by: str) -> None:
    """The text decides."""


class MarkEnd(Mark):
  """A chunk ends with every slot whose byte has such a mark, and with a document's first."""

  OPTIONS = {'name': 'last', 'by': 'fixed(size=8)'}
  emits = 'ends'


def space_like(byte: Array) -> Array:
  """Neither an ASCII letter or digit nor a UTF-8 continuation byte (spacebyte.py); leading bytes are space-like."""
  between = lambda low, high: (byte >= low) & (byte <= high)
  word = between(ord('0'), ord('9')) | between(ord('A'), ord('Z')) | between(ord('a'), ord('z'))
  return ~(word | between(0x80, 0xBF))


def at_last(values_BxCx: Array, level: Level) -> Array:
  """Values at each row's last slot: [B, ...]."""
  index_B = jnp.maximum(level.count_B - 1, 0)
  return jnp.take_along_axis(values_BxCx, index_B.reshape(-1, *(1,) * (values_BxCx.ndim - 1)), 1)[:, 0]
