"""What every model takes and gives: the traced context of a call, its output, and bits from logits."""

import dataclasses
import itertools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
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
