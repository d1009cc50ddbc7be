"""What the parts of a stage take and give. Every published way to chunk is a choice of parts around one time model.

A stage has slots t, and an emission mask over them: after e_k the inner stage takes step k. It turns what Pool made of
chunk k into z_k, which is delivered to the slots [e_k, e_{k+1}). What Pool reads differs: `first` e_k alone (H-Net,
SpaceByte, AU-Net), `until` what follows the emission before up to e_k (dynamic-pooling, BLT), for boundaries that emit
at the last slot of what they find, `before` the slots [e_{k-1}, e_k). What stands before a document's first slot is
nothing, so with `before` that emission makes no chunk: the level inside begins with the second, and the slots up to it
get a vector of the unpool's. The first slot of a document always emits; with `until` it is a chunk by itself, the null
group of dynamic-pooling or the first patch of BLT.

A part is an `nnx.Module` with a class attribute OPTIONS, its options and their defaults, and is made as
`Part(sizes, rngs=…, **options)`. One that reads marks of bytes (text.marks) has a static method `marks(**options)`,
name -> specification, and finds them, beside 'bytes', in `level.marks` and in the marks of a step. Those that a loss
alone reads are labels, which may depend on later bytes; decoding has none. Each comes in two forms that agree: all
slots at once, and `step`, one slot of every row, between which `after` carries the state. Parts without a state have
none.

Parameters under an attribute `frozen` are not trained. They may come from another run: `borrows(**options)` is its work
directory, and `take(model, step, directory, **options)` gives path under the part -> array of the model that is loaded
from there when a training begins; it raises ValueError, in a sentence, for another model than the options say. A
boundary whose `chunk_size` is a promise, and no report, has an attribute is_calibrated = True.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from jax import Array

from layers.chunks import Level, Segments
from layers.contract import Context
from layers.stack import Inject

HIGHEST = jax.lax.Precision.HIGHEST  # of products whose rounding would move boundaries
ENDS = 'ends'  # the mark that gives a boundary with a lookahead its decisions: not 0 where a chunk ends with a byte


@staticmethod
def no_flops(sizes: 'Sizes', slots: float, chunks: float, **options: Any) -> float:
  """The FLOPs of a part that has none which count."""
  del sizes, slots, chunks, options
  return 0.0


class Sizes(NamedTuple):
  """Channels of the stage, D, and of the stage inside, E ≥ D; blocks of the stage's decoder (or main network)."""

  width: int
  inner: int
  blocks: int = 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cut:
  """Where the stage emits: emit bool; p float32, with what probability (for losses and reports); soft float32, what
  carries the gradient. [B, C] each, [B] in a step. more: what other parts need of this boundary beside, by name, as its
  `gives` lists; a scalar is a metric of the stage. In a step the stage adds 'active', [B] bool: the rows whose turn it
  is.
  """

  emit: Array
  p: Array
  soft: Array
  more: dict[str, Array] = dataclasses.field(default_factory=dict)


class Boundary(Protocol):
  """Decides where chunks start. lookahead: slots behind t that the decision at t reads. differentiable: whether `soft`
  carries a gradient; with a lookahead it may not, since that would tell the loss the next byte; then the head predicts
  with each byte what is decided of it (hnet/fused.py), which steps find under ENDS. learned: whether its
  rate can be pulled to a target. emits: 'starts', at the first slot of what it finds, or 'ends', at the last. gives:
  what it puts in `Cut.more`, if anything; an unpool or loss that works with such boundaries alone has it in `needs`.
  """

  OPTIONS: dict[str, Any]
  lookahead: int
  differentiable: bool
  learned: bool
  emits: str

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
  def flops(sizes: Sizes, slots: float, chunks: float, **options: Any) -> float:
    """Forward FLOPs on so many slots, in which so many chunks start; likewise of the other parts."""


class Scratch(Protocol):
  """Decides at which further slots the stage inside takes a step that later ones do not see (see `scratch`)."""

  OPTIONS: dict[str, Any]

  def __call__(self, cut: Cut, level: Level) -> Array:
    """[B, C] bool: never where a chunk starts, nor in padding."""

  def init_cache(self, batch_size: int) -> Any: ...

  def after(self, cut: Cut, level: Level) -> Any: ...

  def step(self, cut: Cut, active_B: Array, cache: Any) -> tuple[Array, Any]: ...

  @staticmethod
  def rows(slots: float, **options: Any) -> float:
    """In a chunk of so many slots."""


class Pool(Protocol):
  """Makes a vector of every chunk, and widens it."""

  OPTIONS: dict[str, Any]
  reads: str  # 'first', 'until' or 'before'

  def __call__(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Array:
    """[B, M, E], zero behind the last chunk."""

  def init_cache(self, batch_size: int) -> Any: ...

  def after(self, e_BxCxD: Array, cut: Cut, segments: Segments) -> Any: ...

  def step(self, e_BxD: Array, cut: Cut, active_B: Array, cache: Any) -> tuple[Array, Array, Any]:
    """([B, E], in which rows a chunk starts here, cache); what the other rows get is not looked at. They are those that
    emit, but for the first slot of a document where the pool reads what stands before.
    """


class Unpool(Protocol):
  """Delivers the inner stage's outputs to slots, and narrows them. injects: whether it does so in the decoder's blocks:
  it then gives an Inject in place of u.
  """

  OPTIONS: dict[str, Any]
  injects: bool

  def __call__(
    self, z_BxMxE: Array, cut: Cut, segments: Segments, scale: Array | None, residual: Array | None
  ) -> Array | Inject:
    """u_t · scale_t + residual_t, float32 or in the residual's dtype: [B, C, D]. scale: float32 [B, C], taken as 1 with
    slope 1 (straight through); None: 1. residual: float32 [B, C, D]; None: 0.
    """

  def init_cache(self, batch_size: int) -> Any: ...

  def after(self, z_BxMxE: Array, cut: Cut, segments: Segments) -> Any: ...

  def step(self, z_BxE: Array, cut: Cut, cache: Any) -> tuple[Array | Inject, Any]:
    """(u [B, D] float32 of one slot, cache); z counts in rows where a chunk starts, which are those that emit."""


# (scale, residual) -> u · STE(scale) + residual at every slot; (None, None) -> an Inject, of an unpool that gives one
Spread = Callable[[Array | None, Array | None], Array | Inject]


class Combine(Protocol):
  """Joins what comes back from inside with the encoder's states: the decoder's input. It has no state, so that the same
  call serves a step. injects: whether it passes on what an unpool injects.
  """

  OPTIONS: dict[str, Any]
  injects: bool

  def __call__(self, e: Array, cut: Cut, spread: Spread) -> tuple[Array, Inject | None]:
    """([..., D] in the dtype of e, what enters the decoder's blocks)."""


class Predicted(NamedTuple):
  """What the head said. logits [B, L, V] float32; nll [B, L] float32: nats of each byte, which stand at the byte, 0
  where not scored; scored [B, L] bool; bytes [B, L] uint8, what was read.
  """

  logits_BxLxV: Array
  nll_BxL: Array
  scored_BxL: Array
  bytes_BxL: Array | None = None


class Input(Protocol):
  """Adds to the vector of a byte, before the outermost stage."""

  OPTIONS: dict[str, Any]

  def __call__(self, bytes_BxL: Array, segment_ids_BxL: Array) -> Array:
    """[B, L, D] float32, by this byte and those before it in its document."""

  def init_cache(self, batch_size: int) -> Any: ...

  def after(self, bytes_BxL: Array, length_B: Array) -> Any:
    """The cache behind right-padded rows of one document."""

  def step(self, byte_B: Array, cache: Any) -> tuple[Array, Any]:
    """([B, D] float32, cache) of one byte of every row."""


class AuxLoss(Protocol):
  """A loss beside the language model's, computed when the head has run. name: of its weight in `loss_weights`."""

  OPTIONS: dict[str, Any]
  name: str

  def __call__(self, cut: Cut, level: Level, predicted: Predicted, context: Context) -> Array:
    """A scalar, unweighted."""
