"""An H-Net whose head predicts each byte together with whether a chunk ends with it, for a boundary that looks a byte
ahead (Bolmo, arXiv 2512.15586).

Symbols are a byte, + 256 where a chunk ends with it. What the boundary decides of a byte reads the next one, and what
is predicted behind it reads the decision; so decoding needs the decision with the byte, and a code of the text has to
pay for it. `nll` at t is

  - ln p(whether a chunk ends with byte t - 1 | byte t - 1, the symbols before) - ln p(byte t | the symbols before),

both from the head. Each decision that a prediction reads is paid for once, with the byte that it tells of: as the
symbols' own nats, - ln p(byte t, end t), summed over a document, but for the last decision of a row, which nothing
reads, and the first of a document, which is certain. So nats of a byte depend on no later byte, rows that repeat
symbols as context pay as others do, and the sum is that of a text and its chunks: an upper bound of the text's alone.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from hnet.model import Cache, HNet
from hnet.parts.base import ENDS
from hnet.stage import Decision
from layers.chunks import Level
from layers.contract import BYTES, EVAL, Context, ModelOutput
from text.batch import Batch

CONTINUES = 0x80  # a byte that begins no character


class FusedHNet(HNet):
  """One stage that cuts. A batch may have a mark ENDS, [B, L]: whether a chunk ends with each byte, as given."""

  symbols = 2 * BYTES

  @property
  def superposes(self) -> bool:
    """What decides on ends reads single bytes."""
    return False

  def __call__(self, batch: Batch, *, context: Context = EVAL, capacities: Sequence[int] | None = None) -> ModelOutput:
    """Without logits: those of the next byte depend on it, through a decision that was paid for by itself."""
    return dataclasses.replace(super().__call__(batch, context=context, capacities=capacities), logits=None)

  def symbol_logits(self, batch: Batch) -> Array:
    """[B, L, 512] float32, of the symbol behind each position, given its own."""
    return super().__call__(batch).logits

  def likeliest(self, batch: Batch, *, capacities: Sequence[int] | None = None) -> tuple[Array, Array, Array, tuple]:
    """By the likeliest symbols. Where the head would not say of the byte before what the boundary, which reads the byte
    in question, decided of it, the latter counts as not written, and what would be written as a byte within a word.
    """
    output = super().__call__(batch, capacities=capacities)
    bytes_BxL, scored_BxL = jnp.asarray(batch.bytes), jnp.asarray(batch.scored)
    before = lambda values_BxL: jnp.pad(values_BxL[:, :-1], ((0, 0), (1, 0)))
    without_BxL, with_BxL = _of_byte(output.logits, bytes_BxL)
    is_known_BxL = (before(with_BxL > without_BxL) == output.segmentations[0]) | ~before(scored_BxL)
    written_BxL = jnp.where(is_known_BxL, before(output.logits.argmax(-1)) % len(BYTES), CONTINUES)
    is_right_BxL = is_known_BxL & (written_BxL == bytes_BxL)
    return is_right_BxL, written_BxL, output.nll, output.needed

  def step(self, symbol_B: Array, cache: Cache) -> tuple[Array, Cache]:
    """Reads one symbol a row; logits [B, 512] are for the next."""
    symbol_B = symbol_B.astype(jnp.int32)
    return self._step((symbol_B % len(BYTES)).astype(jnp.uint8), {ENDS: symbol_B >= len(BYTES)}, cache)

  def _nll(self, logits_BxLxV: Array, batch: Batch, decisions: Sequence[Decision]) -> Array:
    logits_BxLxV, scored_BxL = logits_BxLxV.astype(jnp.float32), jnp.asarray(batch.scored)
    without_BxL, with_BxL = _of_byte(logits_BxLxV, jnp.asarray(batch.bytes))
    byte_BxL = jnp.logaddexp(without_BxL, with_BxL)
    total_BxL = jnp.pad(jax.nn.logsumexp(logits_BxLxV[:, :-1], -1), ((0, 0), (1, 0)))
    end_BxL = byte_BxL - jnp.where(decisions[0].cut.emit, with_BxL, without_BxL)
    end_before_BxL = jnp.pad(jnp.where(scored_BxL, end_BxL, 0.0)[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(scored_BxL, total_BxL - byte_BxL + end_before_BxL, 0.0)

  def _level(self, batch: Batch, labels: Sequence[str] = ()) -> Level:
    level = super()._level(batch, labels)
    return level.marked(**{ENDS: jnp.asarray(batch.marks[ENDS])}) if ENDS in batch.marks else level

  def _prompts(self, x_BxPxD: Array, level: Level) -> Level:
    """The boundary decides of all positions but the last, and of that the head."""
    if ENDS in level.marks:
      return level
    x_BxPxD, decisions = self.backbone(x_BxPxD, level, (None,), EVAL)
    without_BxP, with_BxP = _of_byte(self._head(x_BxPxD), level.marks['bytes'])
    is_last_BxP = jnp.arange(level.length)[None] == level.count_B[:, None] - 1
    return level.marked(**{ENDS: jnp.where(is_last_BxP, with_BxP > without_BxP, decisions[0].cut.emit)})


def _of_byte(logits_BxLxV: Array, bytes_BxL: Array) -> tuple[Array, Array]:
  """[B, L] each: from the logits before each byte, those of it without the end of a chunk and with it; 0 at first."""
  byte_BxNx1 = bytes_BxL[:, 1:, None].astype(jnp.int32)
  at = lambda index: jnp.take_along_axis(logits_BxLxV[:, :-1], index, -1)[..., 0]
  return tuple(jnp.pad(at(byte_BxNx1 + offset), ((0, 0), (1, 0))) for offset in (0, len(BYTES)))
