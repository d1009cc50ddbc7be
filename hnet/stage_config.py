"""What one stage of an H-Net is made of."""

import dataclasses

from hnet.parts import Part, Sizes
from hnet.parts.losses import TargetSchedule
from layers.stack import StackConfig


@dataclasses.dataclass(frozen=True)
class StageConfig:
  """One stage, sizes resolved. `main` is set for the innermost stage, all else but output_deviation for the others.

  limit: the most chunks of a row as a share of its bytes, beyond which they are dropped; None: none is.
  output_deviation: of the initial output projections. heads: that cut the stage, each for itself (hnet/heads.py).
  """

  sizes: Sizes
  output_deviation: float
  main: StackConfig | None = None
  encoder: StackConfig | None = None
  decoder: StackConfig | None = None
  boundary: Part | None = None
  pool: Part | None = None
  unpool: Part | None = None
  combine: Part | None = None
  losses: tuple[Part, ...] = ()
  scratch: Part | None = None
  limit: float | None = None
  heads: int = 1

  @property
  def parts(self) -> tuple[Part, ...]:
    """Those that it has, but for losses."""
    return tuple(filter(None, (self.boundary, self.pool, self.unpool, self.combine, self.scratch)))

  def rows(self, slots: float) -> float:
    """Steps of the stage inside for a chunk of so many slots: one, and those of scratch rows."""
    return 1.0 + (self.scratch.make.rows(slots, **dict(self.scratch.options)) if self.scratch else 0.0)

  @property
  def target(self) -> TargetSchedule | None:
    """Bytes (or chunks) per chunk that a loss pulls to, if one does."""
    targets = (getattr(loss.loss(), 'target', None) for loss in self.losses)
    return next((target for target in targets if target is not None), None)
