"""A boundary that reads one slot behind its own, for a head that says of each byte whether a chunk ends with it
(hnet/fused.py).
"""

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts.base import ENDS, HIGHEST, Cut, Sizes
from hnet.parts.boundaries import Begins, by_rule
from kernels.route.xla import cosine
from layers import segments
from layers.chunks import Level
from layers.contract import Context
from layers.linear import Linear, identity

MARGIN = 1e-3  # of a cosine to 1, and of a log probability to 0
LEAST, MOST = 1 - 2 * math.exp(-MARGIN), 1 - MARGIN


class CosineAhead(Begins):
  """p_t = (1 - cos(W_q e_t, W_k e_{t+1})) / 2, a chunk ends where p > 1/2 (Bolmo, arXiv 2512.15586; bolmo-core,
  HNetBoundaryPredictor). Always float32.

  The first slot of a document always emits, the last has no next one and never does. What is decided tells of the next
  byte, so the head has to pay for it, and nothing but the decision goes on: `soft` is 0 or 1, without a gradient. The
  two maps learn from labels, by the loss `bce`. With the mark ENDS the decision is given; steps have no other.
  """

  OPTIONS = {}
  lookahead, differentiable, learned, emits = 1, False, True, 'ends'
  gives = ('logit', 'decided')

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
    self.query = Linear(sizes.width, sizes.width, kernel_init=identity, rngs=rngs)
    self.key = Linear(sizes.width, sizes.width, kernel_init=identity, rngs=rngs)

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """p is 1 at the first slot of a document and 0 at its last and in padding. more: 'logit', of what the two maps say,
    and 'decided', where they have two slots to look at.
    """
    del context
    ids_BxC, e_BxCxD = level.segment_ids_BxC, e_BxCxD.astype(jnp.float32)
    first_BxC = segments.starts(ids_BxC) & level.valid
    decided_BxC = jnp.pad(ids_BxC[:, 1:] == ids_BxC[:, :-1], ((0, 0), (0, 1))) & level.valid
    cosine_BxN = cosine(self.query(e_BxCxD[:, :-1], HIGHEST), self.key(e_BxCxD[:, 1:], HIGHEST))
    cosine_BxC = jnp.pad(jnp.clip(cosine_BxN, LEAST, MOST), ((0, 0), (0, 1)))
    more = {'logit': jnp.log1p(-cosine_BxC) - jnp.log1p(cosine_BxC), 'decided': decided_BxC}
    if ENDS in level.marks:
      cut = by_rule(((level.marks[ENDS] != 0) | first_BxC) & level.valid)
      return Cut(cut.emit, cut.p, cut.soft, more)
    p_BxC = jnp.where(first_BxC, 1.0, jnp.where(decided_BxC, 0.5 * (1.0 - cosine_BxC), 0.0))
    emit_BxC = p_BxC > 0.5
    return Cut(emit_BxC, p_BxC, emit_BxC.astype(jnp.float32), more)

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: Array) -> tuple[Cut, Array]:
    """One slot, with what the head said of it."""
    del e_BxD
    return by_rule(((marks[ENDS] != 0) | ~cache) & active_B), cache | active_B

  @staticmethod
  def chunk_size() -> None:
    """Learned."""

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float) -> float:
    """Two projections."""
    del chunks
    return 4.0 * slots * sizes.width**2
