"""What every model is, takes and gives: `Model`, the traced context of a call, its output, and bits from logits."""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from text.batch import Batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
  """What a call may depend on besides parameters and batch; schedules, noise and dropout enter here and nowhere else.

  rng: a key, or None where nothing is drawn; progress: fraction of the training that is done, float32 in [0, 1].
  """

  rng: Array | None = None
  progress: Array | float = 1.0


EVAL = Context()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelOutput:
  """nll [B, L] float32: nats for bytes[b, t] given its document's prefix, 0 where not scored.

  logits [B, L, V] or None: for the byte that follows bytes[b, t]. segmentations and boundary_probabilities: per stage,
  outermost first, [B, L] in byte coordinates (where a chunk starts; 0 where the stage did not look). needed: int32
  scalars, chunks of the fullest row of each inner level; where one exceeds its capacity, the rest of the output is not
  valid, nor are those of deeper levels. aux_losses: unweighted scalars. metrics: float32 scalars; stage_metrics:
  likewise of each stage that cuts, outermost first.
  """

  nll: Array
  logits: Array | None = None
  segmentations: tuple[Array, ...] = ()
  boundary_probabilities: tuple[Array, ...] = ()
  needed: tuple[Array, ...] = ()
  aux_losses: dict[str, Array] = dataclasses.field(default_factory=dict)
  metrics: dict[str, Array] = dataclasses.field(default_factory=dict)
  stage_metrics: tuple[dict[str, Array], ...] = ()


@runtime_checkable
class Model(Protocol):
  """A byte model, an `nnx.Module`: all that evaluation, training and studies ask of one. `ByteModel` is it with the
  answers of a model that reads and predicts bytes and has no chunks.

  config: frozen, as the `parse` of its family made it, whose name is `config.family`.
  marks: what it reads of a batch beside bytes, name -> specification (text.marks).
  labels: likewise, what only its losses read, which may depend on later bytes, and marks that training has in another
  form than evaluation: batches to be trained on have them.
  symbols: the bytes of each symbol that `step` reads as text; [V] of them, EOS and BOS among the single bytes.
  word_end: the symbol that ends a word and is no text, or None.
  alphabet: what ids mean that do not mean themselves; parameters are of use to models with the same only.
  num_stages: groups of parameters with a learning rate of their own, outermost first.
  emits: of each of the output's segmentations, whether the stage inside takes its step at a chunk's first byte
  ('starts') or at its last ('ends').
  superposes: whether it reads bags of bytes (`Batch.bags`).
  targets: stage -> bytes (or chunks) a chunk that a loss pulls its boundary to, a function of the progress.
  promised: stage -> bytes (or chunks) a chunk that its boundary was calibrated for.
  borrowed: path -> what has parameters of another run there (`Borrower`).
  """

  config: Any
  marks: dict[str, str]
  labels: dict[str, str]
  symbols: tuple[bytes, ...]
  word_end: int | None
  alphabet: dict[str, Any]
  num_stages: int
  emits: tuple[str, ...]
  superposes: bool
  targets: dict[int, Callable[[float], Any]]
  promised: dict[int, float]
  borrowed: dict[str, 'Borrower']

  def __call__(self, batch: Batch, *, context: Context = EVAL, capacities: Sequence[int] | None = None) -> ModelOutput:
    """capacities: static chunks per row of each level inside, None for enough; see `checked_capacities`."""

  def likeliest(self, batch: Batch, *, capacities: Sequence[int] | None = None) -> tuple[Array, Array, Array, tuple]:
    """(whether greedy decoding of the text before a symbol writes it, what it writes there, nats: [B, L] each; needed,
    as in `ModelOutput`).
    """

  def init_cache(self, batch_size: int, max_bytes: int) -> Any:
    """Decoding caches, a pytree, for rows of at most max_bytes bytes, prompt and BOS included."""

  def prefill(self, batch: Batch, length_B: Array, cache: Any) -> tuple[Array, Any]:
    """(logits [B, V] for what follows, cache) after right-padded prompts of these lengths, into a fresh cache."""

  def step(self, symbol_B: Array, cache: Any) -> tuple[Array, Any]:
    """(logits [B, V] for what follows, cache) after one more symbol of every row."""

  def is_text(self, symbol_B: Array, cache: Any) -> Array:
    """[B] bool: whether `step` would read the symbol as part of the text."""

  def level_sizes(self, fresh: bool = False) -> tuple[float, ...]:
    """Bytes for a chunk of each level inside, as stated, outermost first; fresh: as they are before training."""

  def stage_of(self, path: str) -> int:
    """The group of the parameter at a path."""

  def lr_multipliers(self, spec: Sequence[float] | str | None = None) -> tuple[float, ...]:
    """One a group: as given, 1 everywhere (None), or those of its paper ('paper'). ValueError for others."""

  def trains(self, path: str) -> bool:
    """Whether a parameter is trained; others get no gradient and no moments."""

  def decays(self, path: str, exempt: str = 'default') -> bool:
    """Whether weight decay applies to a parameter; exempt: 'default' or 'official', who is spared."""

  def flops_per_byte(self, length: int, bytes_per_chunk: Sequence[float] | None = None) -> dict[str, float]:
    """Component -> forward FLOPs a byte, documents of `length` bytes; bytes_per_chunk: of each level (None: stated)."""


class Borrower(Protocol):
  """A part of a model that has parameters of another run, which are not trained any more.

  name: for people. borrows: the work directory of that run, '' where none is given.
  """

  name: str
  borrows: str

  def take(self, found: Model, step: int | None, directory: Any) -> dict[str, Array]:
    """Path under the part -> array, of the model that was loaded from the directory at a step; ValueError, in a
    sentence, for another model than the part needs.
    """


BYTES = tuple(bytes([value]) for value in range(256))


class ByteModel(nnx.Module):
  """See `Model`. Families say what is different of theirs, and `config`, `__call__`, decoding and FLOPs."""

  symbols = BYTES
  word_end: int | None = None
  num_stages = 1
  emits: tuple[str, ...] = ()
  superposes = False

  @property
  def marks(self) -> dict[str, str]:
    """None."""
    return {}

  @property
  def labels(self) -> dict[str, str]:
    """None."""
    return {}

  @property
  def alphabet(self) -> dict[str, Any]:
    """Nothing: every byte is its own id."""
    return {}

  @property
  def targets(self) -> dict[int, Callable[[float], Any]]:
    """None."""
    return {}

  @property
  def promised(self) -> dict[int, float]:
    """None."""
    return {}

  @property
  def borrowed(self) -> dict[str, Borrower]:
    """None."""
    return {}

  def likeliest(self, batch: Batch, *, capacities: Sequence[int] | None = None) -> tuple[Array, Array, Array, tuple]:
    """By the logits."""
    output = self(batch, capacities=capacities)
    written_BxL = jnp.pad(output.logits.argmax(-1)[:, :-1], ((0, 0), (1, 0)))
    return written_BxL == jnp.asarray(batch.bytes), written_BxL, output.nll, output.needed

  def is_text(self, symbol_B: Array, cache: Any) -> Array:
    """All are."""
    del cache
    return jnp.ones(symbol_B.shape, bool)

  def level_sizes(self, fresh: bool = False) -> tuple[float, ...]:
    """There is no level inside."""
    del fresh
    return ()

  def stage_of(self, path: str) -> int:
    """The one."""
    del path
    return 0

  def trains(self, path: str) -> bool:
    """All are."""
    del path
    return True

  def paper_lr_multipliers(self) -> tuple[float, ...] | None:
    """Those that a paper has for this family; None: it has none."""
    return None

  def lr_multipliers(self, spec: Sequence[float] | str | None = None) -> tuple[float, ...]:
    """See `Model`."""
    if spec is None:
      return (1.0,) * self.num_stages
    paper = self.paper_lr_multipliers()
    if spec == 'paper' and paper:
      return paper
    if isinstance(spec, str) or len(spec) != self.num_stages or min(spec) < 0:
      raise ValueError(
        f'optimizer.lr_multipliers {spec!r}: {self.num_stages} non-negative numbers, one a stage'
        + (", or 'paper'." if paper else '.')
      )
    return tuple(float(value) for value in spec)


def checked_capacities(capacities: Sequence[int] | None, levels: int, length: int) -> tuple[int | None, ...]:
  """Static chunks per row of each inner level; None: as many as the level above has, which is always enough.

  Raises ValueError where they are not one for each level, rising inwards, or outside 1..length.
  """
  if capacities is None:
    return (None,) * levels
  try:
    outer = (length, *map(operator.index, capacities))
  except TypeError:  # no sequence, or not of integers
    outer = ()
  if len(outer) != levels + 1 or any(not 1 <= inner <= above for above, inner in itertools.pairwise(outer)):
    raise ValueError(
      f'capacities {capacities!r}: one for each of the {levels} levels inside, from 1 to that of the level above; rows '
      f'have {length} bytes.'
    )
  return outer[1:]


def next_byte_nll(logits_BxLxV: Array, batch: Batch) -> Array:
  """Nats of every scored byte, read from the logits of the position before it: [B, L] float32."""
  logits = logits_BxLxV[:, :-1].astype(jnp.float32)
  target = jnp.asarray(batch.bytes)[:, 1:, None].astype(jnp.int32)
  nll = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, target, -1)[..., 0]
  return jnp.where(batch.scored, jnp.pad(nll, ((0, 0), (1, 0))), 0.0)
