"""What the parts of a stage take and give. Every published way to chunk is a choice of parts around one time model.

A stage has slots t, and an emission mask over them: a chunk starts at e_k. The inner stage turns what Pool made of
chunk k into z_k, which is delivered to the slots [e_k, e_{k+1}). What Pool reads differs: `first` e_k alone (H-Net,
SpaceByte), `until` what follows the chunk before up to e_k, `before` the chunk before.

A part is an `nnx.Module` with a class attribute OPTIONS, its options and their defaults, and is made as
`Part(sizes, rngs=…, **options)`. One that reads marks of bytes (text.marks) has a static method `marks(**options)`,
name -> specification, and finds them, beside 'bytes', in `level.marks` and in the marks of a step. Each comes in two
forms that agree: all slots at once, and `step`, one slot of every row, between which `after` carries the state. Parts
without a state have none.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from jax import Array

from layers.chunks import Level, Segments
from layers.contract import Context

HIGHEST = jax.lax.Precision.HIGHEST  # of products whose rounding would move boundaries


class Sizes(NamedTuple):
  """Channels of the stage, D, and of the stage inside, E ≥ D."""

  width: int
  inner: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cut:
  """Where chunks start: emit bool; p float32, with what probability (for losses and reports); soft float32, what
  carries the gradient. [B, C] each, [B] in a step.
  """

  emit: Array
  p: Array
  soft: Array


class Boundary(Protocol):
  """Decides where chunks start. lookahead: slots behind t that the decision at t reads. differentiable: whether `soft`
  carries a gradient; with a lookahead it may not, since that would tell the loss the next byte. learned: whether its
  rate can be pulled to a target.
  """

  OPTIONS: dict[str, Any]
  lookahead: int
  differentiable: bool
  learned: bool

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """The first slot of a document always emits; padding never does."""

  def init_cache(self, batch_size: int) -> Any: ...

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> Any:
    """The cache behind each row's last slot, for rows of one document."""

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: Any) -> tuple[Cut, Any]:
    """One slot of the active rows, with its marks [B]; the others emit nothing."""

  @staticmethod
  def chunk_size(**options: Any) -> float | None:
    """Slots of a chunk by the rule; None where it is learned or the text decides. ValueError for bad options."""

  @staticmethod
  def flops(sizes: Sizes) -> float:
    """Forward FLOPs a slot."""


class Pool(Protocol):
  """Makes a vector of every chunk, and widens it."""

  OPTIONS: dict[str, Any]
  reads: str  # 'first', 'until' or 'before'

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """[B, M, E], zero behind the last chunk."""

  def init_cache(self, batch_size: int) -> Any: ...

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Any: ...

  def step(self, e_BxD: Array, cut: Cut, cache: Any) -> tuple[Array, Any]:
    """[B, E], of the chunk that starts here; what rows that emit nothing get is not looked at."""


class Unpool(Protocol):
  """Delivers the inner stage's outputs to slots, and narrows them."""

  OPTIONS: dict[str, Any]

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, level: Level, scale: Array | None, residual: Array | None
  ) -> Array:
    """u_t · scale_t + residual_t, float32 or in the residual's dtype: [B, C, D]. scale: float32 [B, C], taken as 1 with
    slope 1 (straight through); None: 1. residual: float32 [B, C, D]; None: 0.
    """

  def init_cache(self, batch_size: int) -> Any: ...

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments, level: Level) -> Any: ...

  def step(self, z_BxE: Array, cut: Cut, cache: Any) -> tuple[Array, Any]:
    """(u [B, D] float32 of one slot, cache); z counts in rows that emit."""


# (scale, residual) -> u · STE(scale) + residual at every slot
Spread = Callable[[Array | None, Array | None], Array]


class Combine(Protocol):
  """Joins what comes back from inside with the encoder's states: the decoder's input. It has no state, so that the same
  call serves a step.
  """

  OPTIONS: dict[str, Any]

  def __call__(self, e: Array, cut: Cut, spread: Spread) -> Array:
    """[..., D] in the dtype of e."""

  @staticmethod
  def flops(sizes: Sizes) -> float: ...


class AuxLoss(Protocol):
  """A loss beside the language model's, computed when the head has run. name: of its weight in `loss_weights`."""

  OPTIONS: dict[str, Any]
  name: str

  def __call__(self, cut: Cut, level: Level, logits_BxLxV: Array, context: Context) -> Array:
    """A scalar, unweighted."""
