"""Losses on bytes beside the next one, each with a head of its own on the states that the logits are made of.

They train the same model, whose bits per byte are those of its own head.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from layers import checks
from layers.contract import Context
from layers.linear import Linear, RMSNorm, normal
from text import levels as levels_lib
from text.batch import Batch
from text.specification import arguments, canonical

Embed = Callable[[Array], Array]  # bytes -> the vectors that the model reads them as


class MultiByte(nnx.Module):
  """Several next bytes at once (Gloeckle et al. 2024, arXiv 2404.19737): head i predicts byte t + i at t.

  heads: bytes that are predicted, the model's own next one included. form: 'independent', one matrix for all
  (EvaByte); 'chained', head i reads the state of head i - 1 and the byte t + i - 1, as DeepSeek-V3 does. decay: weight
  of a head over the one before it. The loss is the sum over the heads, each a mean over the bytes that it predicts;
  none is of another document.
  """

  OPTIONS = {'heads': 4, 'form': 'independent', 'decay': 1.0}
  name = 'multi_byte'

  def __init__(self, width: int, vocabulary: int, *, rngs: nnx.Rngs, heads: int, form: str, decay: float):
    more = checks.integer(heads, 'multi_byte: heads', 2) - 1
    checks.one_of(form, ('independent', 'chained'), 'multi_byte: form')
    self.heads, self.decay = heads, checks.number(decay, 'multi_byte: decay')
    linear = lambda size, out: Linear(size, out, kernel_init=normal(0.02), rngs=rngs)
    if form == 'independent':
      self.out = linear(width, more * vocabulary)
      return
    self.embeddings = nnx.Param(normal(1.0)(rngs.params(), (vocabulary, width)))
    self.norms = nnx.List([RMSNorm(width) for _ in range(more)])
    self.joins = nnx.List([linear(2 * width, width) for _ in range(more)])
    self.outs = nnx.List([linear(width, vocabulary) for _ in range(more)])

  def __call__(self, states_BxLxD: Array, batch: Batch, embed: Embed, context: Context) -> Array:
    """A scalar."""
    del embed, context
    total = jnp.zeros(())
    for ahead, logits_BxLxV in enumerate(self.logits(states_BxLxD, batch), 2):
      target_BxL, has_BxL = shifted(batch, ahead)
      nll_BxL = -jnp.take_along_axis(jax.nn.log_softmax(logits_BxLxV), target_BxL[..., None], -1)[..., 0]
      mean = jnp.sum(jnp.where(has_BxL, nll_BxL, 0.0)) / jnp.maximum(jnp.sum(has_BxL), 1)
      total += self.decay ** (ahead - 2) * mean
    return total

  def logits(self, states_BxLxD: Array, batch: Batch) -> list[Array]:
    """[B, L, V] float32 of byte t + 2, t + 3, …; those of chained heads are given the bytes before."""
    if hasattr(self, 'out'):
      return jnp.split(self.out(states_BxLxD).astype(jnp.float32), self.heads - 1, -1)
    found, state = [], states_BxLxD
    for ahead, (norm, join, out) in enumerate(zip(self.norms, self.joins, self.outs, strict=True), 1):
      byte_BxL, _ = shifted(batch, ahead)
      embedded = self.embeddings[byte_BxL].astype(state.dtype)
      state = state + jax.nn.silu(join(jnp.concatenate([norm(state, state.dtype), embedded], -1)))
      found.append(out(state).astype(jnp.float32))
    return found


class Order(nnx.Module):
  """Token order prediction (arXiv 2508.19228) on bytes: which bytes come soon, the sooner the higher.

  The score of a byte that occurs next at a distance of d bytes behind the next one, d <= window, is (window - d) /
  temperature; the loss is the cross entropy of the softmax over these. At temperature 1, the paper's, 63 % of the mass
  is on the next byte; a larger one looks further.
  """

  OPTIONS = {'window': 8, 'temperature': 1.0}
  name = 'order'

  def __init__(self, width: int, vocabulary: int, *, rngs: nnx.Rngs, window: int, temperature: float):
    self.window = checks.integer(window, 'order: window', 0)
    self.temperature = checks.number(temperature, 'order: temperature')
    if self.temperature <= 0:
      raise ValueError(f'order: temperature={temperature} must be above 0.')
    self.out = Linear(width, vocabulary, kernel_init=normal(0.02), rngs=rngs)

  def __call__(self, states_BxLxD: Array, batch: Batch, embed: Embed, context: Context) -> Array:
    """A scalar: the mean over positions that a byte of their document follows."""
    del embed, context
    logits_BxLxV = self.out(states_BxLxD).astype(jnp.float32)
    distance_BxLxV = next_occurrence(batch, logits_BxLxV.shape[-1])
    soon_BxLxV = distance_BxLxV <= self.window
    score_BxLxV = jnp.where(soon_BxLxV, (self.window - distance_BxLxV) / self.temperature, -jnp.inf)
    has_BxL = jnp.any(soon_BxLxV, -1)
    wanted_BxLxV = jax.nn.softmax(jnp.where(has_BxL[..., None], score_BxLxV, 0.0), -1)
    nats_BxL = -jnp.sum(wanted_BxLxV * jax.nn.log_softmax(logits_BxLxV), -1)
    return jnp.sum(jnp.where(has_BxL, nats_BxL, 0.0)) / jnp.maximum(jnp.sum(has_BxL), 1)


class Levels(nnx.Module):
  """The level of the next byte, given that byte (AU-Net's lambda_level; lingua, apps/aunet/hierarchical.py).

  W norm([x_t ; v(byte t + 1)]), v the vectors that the model itself reads, has a class for each level: 0 and those of
  the rules one, two and three (text/levels.py); the loss is the cross entropy, a mean over positions that a byte of
  their document follows. x_t is what the model's own head reads, which is behind a norm here. published: the levels of
  the whole text, which the published code trains on; else those that the text up to the byte has.
  """

  OPTIONS = {'one': 'word1', 'two': '', 'three': '', 'published': False}
  name = 'levels'

  def __init__(self, width: int, vocabulary: int, *, rngs: nnx.Rngs, published: bool, **rules: str):
    del vocabulary
    (self.mark,), count = self.marks(published=published, **rules), len(levels_lib.check([*rules.values()]))
    self.norm = RMSNorm(2 * width)
    self.out = Linear(2 * width, 1 + count, kernel_init=normal(0.02), rngs=rngs)

  @staticmethod
  def marks(published: bool, **rules: str) -> dict[str, str]:
    """The levels, by the name that a boundary of these rules has for them."""
    spec = f'levels({",".join([*filter(None, rules.values()), *["published=true"] * published])})'
    return {spec: spec}

  def __call__(self, states_BxLxD: Array, batch: Batch, embed: Embed, context: Context) -> Array:
    """A scalar."""
    del context
    level_BxL, has_BxL = shifted(batch, 1, batch.marks[self.mark])
    log_p_BxLxV = jax.nn.log_softmax(self.logits(states_BxLxD, embed(shifted(batch, 1)[0])))
    nats_BxL = -jnp.take_along_axis(log_p_BxLxV, level_BxL[..., None], -1)[..., 0]
    return jnp.sum(jnp.where(has_BxL, nats_BxL, 0.0)) / jnp.maximum(jnp.sum(has_BxL), 1)

  def logits(self, states_BxLxD: Array, next_BxLxD: Array) -> Array:
    """[B, L, levels] float32 of the next byte's level; next: its vector."""
    both_BxLx2D = jnp.concatenate([states_BxLxD, next_BxLxD.astype(states_BxLxD.dtype)], -1)
    return self.out(self.norm(both_BxLx2D, states_BxLxD.dtype)).astype(jnp.float32)


KINDS: dict[str, Any] = {kind.name: kind for kind in (Levels, MultiByte, Order)}


@dataclasses.dataclass(frozen=True)
class Objective:
  """A parsed specification, such as 'multi_byte(heads=4)'."""

  kind: str
  options: tuple[tuple[str, Any], ...]

  @property
  def spec(self) -> str:
    """With all its options."""
    return canonical(self.kind, dict(self.options))

  @property
  def marks(self) -> dict[str, str]:
    """The labels that it is trained on, name -> specification (text.marks)."""
    make = KINDS[self.kind]
    return make.marks(**dict(self.options)) if hasattr(make, 'marks') else {}


def parse(specs: Any) -> tuple[Objective, ...]:
  """Of `model.objectives`, a list of specifications; ValueError with one sentence for what is not known."""
  if isinstance(specs, str) or not isinstance(specs, Sequence) or not all(isinstance(spec, str) for spec in specs):
    raise ValueError(f"objectives {specs!r:.80}: a list of specifications, such as ['multi_byte(heads=4)'].")
  options = {name: kind.OPTIONS for name, kind in KINDS.items()}
  found = [Objective(kind, tuple(given.items())) for kind, given in (arguments(s, 'objective', options) for s in specs)]
  if len({objective.kind for objective in found}) < len(found):
    raise ValueError(f'objectives {list(specs)!r:.80}: one of a kind.')
  for objective in found:
    jax.eval_shape(lambda one=objective: build([one], 8, 8, rngs=nnx.Rngs(0)))  # what is wrong with its options
  return tuple(found)


def build(objectives: Sequence[Objective], width: int, vocabulary: int, *, rngs: nnx.Rngs) -> nnx.List:
  """Their modules, for states of `width` channels."""
  return nnx.List([KINDS[one.kind](width, vocabulary, rngs=rngs, **dict(one.options)) for one in objectives])


def labels(objectives: Iterable[Objective]) -> dict[str, str]:
  """What a batch must have for them in training, name -> specification."""
  return {name: spec for one in objectives for name, spec in one.marks.items()}


def losses(objectives: nnx.List, states_BxLxD: Array, batch: Batch, embed: Embed, context: Context) -> dict[str, Array]:
  """Name -> loss, but for those whose labels a batch lacks, which in training is a ValueError."""
  found = {}
  for one in objectives:
    if not hasattr(one, 'mark') or one.mark in batch.marks:
      found[one.name] = one(states_BxLxD, batch, embed, context)
    elif context.rng is not None:
      raise ValueError(missing_label(one.mark))
  return found


def missing_label(name: str) -> str:
  """The sentence about a batch to be trained on."""
  return f"the batch lacks the label '{name}': in training mark it with model.marks | model.labels"


def shifted(batch: Batch, ahead: int, values_BxL: Array | None = None) -> tuple[Array, Array]:
  """(the byte, or another value, so many places behind each position, int32; whether it is of the same document):
  [B, L] each.
  """
  ids_BxL = jnp.asarray(batch.segment_ids)
  values_BxL = jnp.asarray(batch.bytes if values_BxL is None else values_BxL).astype(jnp.int32)
  later = lambda values_BxL: jnp.pad(values_BxL[:, ahead:], ((0, 0), (0, min(ahead, values_BxL.shape[1]))))
  return later(values_BxL), (later(ids_BxL) == ids_BxL) & (ids_BxL > 0)


def next_occurrence(batch: Batch, vocabulary: int) -> Array:
  """How far behind byte t + 1 each value occurs next in the document of t, 0 for that byte itself: [B, L, V] float32,
  infinite where it does not.
  """
  byte_BxL, has_BxL = shifted(batch, 1)

  def before(distance_BxV, at):
    byte_B, has_B = at
    distance_BxV = jnp.where(has_B[:, None], distance_BxV + 1, jnp.inf)
    is_next_BxV = (jnp.arange(vocabulary)[None] == byte_B[:, None]) & has_B[:, None]
    distance_BxV = jnp.where(is_next_BxV, 0.0, distance_BxV)
    return distance_BxV, distance_BxV

  far_BxV = jnp.full((byte_BxL.shape[0], vocabulary), jnp.inf)
  _, distance_LxBxV = jax.lax.scan(before, far_BxV, (byte_BxL.T, has_BxL.T), reverse=True)
  return distance_LxBxV.swapaxes(0, 1)
