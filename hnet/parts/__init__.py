"""The parts of a model by name: a new boundary, pool, unpool, combination, loss or input is a class and a line here."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax import Array

from hnet.parts.ahead import CosineAhead
from hnet.parts.attend import AttendPool, AttendUnpool
from hnet.parts.base import AuxLoss, Boundary, Combine, Cut, Input, Pool, Scratch, Sizes, Spread, Unpool
from hnet.parts.boundaries import Cosine, Mark, MarkEnd, SpaceEnd, SpaceLike, Stride, StrideEnd
from hnet.parts.coding import CodingRate, Quantile
from hnet.parts.combines import STE, LinearSum, Sum, Through
from hnet.parts.concat import Concat
from hnet.parts.entropy import Entropy, StoredEntropy
from hnet.parts.indexed import Indexed
from hnet.parts.inputs import HashNgrams
from hnet.parts.losses import Ratio
from hnet.parts.marked import Ended, Levels, Regex, RegexStart
from hnet.parts.mean import Mean
from hnet.parts.policy import Bernoulli, Difference, Early, Rate, Reinforce
from hnet.parts.pools import First, Latent
from hnet.parts.predictors import Gumbel, Supervised
from hnet.parts.priors import BCE, Binomial, Hinge
from hnet.parts.reduce import Reduce
from hnet.parts.scratch import Every, HighEntropy
from hnet.parts.sombrero import ConfidenceAligned, Sigmoid, SmoothedFirst, SmoothedRepeat
from hnet.parts.unpools import EMA, Cross, Repeat, Scatter
from hnet.parts.weighted import Decayed, WeightedFirst
from text.specification import arguments, canonical

__all__ = [
  'KINDS', 'AuxLoss', 'Boundary', 'Combine', 'Cut', 'Input', 'Part', 'Pool', 'Scratch', 'Sizes', 'Spread', 'Unpool',
  'parse',
]  # fmt: skip

KINDS: dict[str, dict[str, Any]] = {
  'boundary': {
    'bernoulli': Bernoulli,
    'coding_rate': CodingRate,
    'cosine': Cosine,
    'cosine_ahead': CosineAhead,
    'ended': Ended,
    'entropy': Entropy,
    'gumbel': Gumbel,
    'levels': Levels,
    'mark': Mark,
    'mark_end': MarkEnd,
    'regex': Regex,
    'regex_start': RegexStart,
    'sigmoid': Sigmoid,
    'space': SpaceLike,
    'space_end': SpaceEnd,
    'stored_entropy': StoredEntropy,
    'stride': Stride,
    'stride_end': StrideEnd,
    'supervised': Supervised,
  },
  'input': {'hash_ngrams': HashNgrams},
  'pool': {
    'attend': AttendPool,
    'concat': Concat,
    'first': First,
    'latent': Latent,
    'mean': Mean,
    'reduce': Reduce,
    'smoothed_first': SmoothedFirst,
    'weighted_first': WeightedFirst,
  },
  'unpool': {
    'attend': AttendUnpool,
    'cross': Cross,
    'decayed': Decayed,
    'difference': Difference,
    'ema': EMA,
    'indexed': Indexed,
    'repeat': Repeat,
    'scatter': Scatter,
    'smoothed_repeat': SmoothedRepeat,
  },
  'combine': {'linear': LinearSum, 'ste': STE, 'sum': Sum, 'through': Through},
  'scratch': {'entropy': HighEntropy, 'every': Every},
  'loss': {
    'bce': BCE,
    'binomial': Binomial,
    'cab': ConfidenceAligned,
    'early': Early,
    'hinge': Hinge,
    'quantile': Quantile,
    'rate': Rate,
    'ratio': Ratio,
    'reinforce': Reinforce,
  },
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

  @property
  def borrows(self) -> str | None:
    """The work directory that its parameters under `frozen` come from, '' where none is given; None: it has none."""
    return self.make.borrows(**dict(self.options)) if hasattr(self.make, 'borrows') else None

  @property
  def promises(self) -> float | None:
    """Slots a chunk that a boundary was calibrated for, which training compares with what it comes to."""
    return self.make.chunk_size(**dict(self.options)) if hasattr(self.make, 'is_calibrated') else None

  def take(self, found: Any, step: int | None, directory: Any) -> dict[str, Array]:
    """Path under the part -> array of what it borrows; see `base`."""
    return self.make.take(found, step, directory, **dict(self.options))

  def build(self, sizes: Sizes, *, rngs: nnx.Rngs) -> Any:
    """The module of any but a loss."""
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
