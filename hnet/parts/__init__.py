"""The parts of a stage by name: a new boundary, pool, unpool, combination or loss is one class and a line in KINDS."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from hnet.parts.base import AuxLoss, Boundary, Combine, Cut, Pool, Sizes, Spread, Unpool
from hnet.parts.boundaries import Cosine, Mark, SpaceLike, Stride
from hnet.parts.combines import STE, Sum, Through
from hnet.parts.indexed import Indexed
from hnet.parts.losses import Ratio
from hnet.parts.marked import Ended, Levels, Regex, RegexStart
from hnet.parts.pools import First, Latent
from hnet.parts.unpools import EMA, Cross, Repeat, Scatter
from text.specification import arguments, canonical

__all__ = [
  'KINDS', 'AuxLoss', 'Boundary', 'Combine', 'Cut', 'Part', 'Pool', 'Sizes', 'Spread', 'Unpool', 'parse',
]  # fmt: skip

KINDS: dict[str, dict[str, Any]] = {
  'boundary': {
    'cosine': Cosine,
    'ended': Ended,
    'levels': Levels,
    'mark': Mark,
    'regex': Regex,
    'regex_start': RegexStart,
    'space': SpaceLike,
    'stride': Stride,
  },
  'pool': {'first': First, 'latent': Latent},
  'unpool': {'cross': Cross, 'ema': EMA, 'indexed': Indexed, 'repeat': Repeat, 'scatter': Scatter},
  'combine': {'ste': STE, 'sum': Sum, 'through': Through},
  'loss': {'ratio': Ratio},
}


@dataclasses.dataclass(frozen=True)
class Part:
  """A parsed specification, such as 'stride(size=6)'. name: with all its options."""

  kind: str
  name: str
  make: Any
  options: tuple[tuple[str, Any], ...]

  @property
  def marks(self) -> dict[str, str]:
    """The marks that it reads, name -> specification (see `base`)."""
    return self.make.marks(**dict(self.options)) if hasattr(self.make, 'marks') else {}

  def build(self, sizes: Sizes, *, rngs: nnx.Rngs) -> Any:
    """The module of a boundary, pool, unpool or combination."""
    return self.make(sizes, rngs=rngs, **dict(self.options))

  def flops(self, sizes: Sizes, slots: float, chunks: float) -> float:
    """Forward FLOPs on so many slots and chunks."""
    return self.make.flops(sizes, slots, chunks, **dict(self.options))

  def loss(self) -> AuxLoss:
    """The loss, which has no parameters."""
    return self.make(**dict(self.options))


def parse(kind: str, spec: Any) -> Part:
  """The part of a kind that a specification names; ValueError with one sentence for an unknown one or option."""
  if not isinstance(spec, str):
    raise ValueError(f"{kind} {spec!r:.80} must be a specification such as '{next(iter(KINDS[kind]))}'.")
  classes: Mapping[str, Any] = KINDS[kind]
  name, options = arguments(spec, kind, {name: part.OPTIONS for name, part in classes.items()})
  return Part(kind, canonical(name, options).removesuffix('()'), classes[name], tuple(options.items()))
