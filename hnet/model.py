"""The byte language model around the hierarchy: embedding, stages, head, losses, decoding."""

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet import flops as flops_lib
from hnet import heads
from hnet import stage as stage_lib
from hnet.config import HNetConfig
from hnet.parts import Part
from hnet.parts.base import Predicted, Sizes
from hnet.parts.losses import TargetSchedule
from layers import contract, objectives, segments
from layers.capacity import FRESH
from layers.chunks import Level
from layers.contract import EVAL, ByteModel, Context, ModelOutput, next_byte_nll
from layers.linear import Linear, normal
from text import marks as marks_lib
from text.batch import Batch
from text.marks import Read


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Decoding state: what was read, for the marks of what comes next, the inputs', and the outermost stage's caches."""

  text: Read
  inputs: tuple
  stages: Any


class HNet(ByteModel):
  """H-Net (arXiv 2507.07955) with any number of stages; with one, an isotropic byte model."""

  def __init__(self, config: HNetConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.stored_dtypes: tuple[tuple[str, str], ...] = ()  # of an official file, for writing it back
    width = config.d_model[0]
    self.embeddings = nnx.Param(normal(1.0)(rngs.params(), (config.vocab_size, width)))
    self.inputs = nnx.List([part.build(Sizes(width, width), rngs=rngs) for part in config.inputs])
    self.backbone = stage_lib.make(config, 0, rngs=rngs)
    if not config.tie_embeddings:
      self.lm_head = Linear(width, config.num_symbols, kernel_init=normal(0.02), rngs=rngs)
    self.objectives = objectives.build(config.objectives, width, config.vocab_size, rngs=rngs)

  def __call__(self, batch: Batch, *, context: Context = EVAL, capacities: Sequence[int] | None = None) -> ModelOutput:
    """Bits, logits, boundaries and losses of a batch; see `layers.contract.ModelOutput`."""
    bytes_BxL = jnp.asarray(batch.bytes)
    missing = self.labels.keys() - batch.marks.keys()
    if missing and context.rng is not None:
      raise ValueError(objectives.missing_label(min(missing)))
    level = self._level(batch, self.labels.keys() - missing)
    capacities = contract.checked_capacities(capacities, self.num_stages - 1, level.length)
    if batch.bags is None:
      x_BxLxD = self._embed(bytes_BxL, (part(bytes_BxL, level.segment_ids_BxC) for part in self.inputs))
    else:
      x_BxLxD = jnp.mean(self._embed(batch.bags, ()), 2)
    x_BxLxD, decisions = self.backbone(x_BxLxD, level, capacities, context)
    logits = self._head(x_BxLxD)
    predicted = Predicted(logits, self._nll(logits, batch, decisions), batch.scored, bytes_BxL)
    aux_losses, stage_metrics = self._losses(decisions, heads.fold(predicted, self.config.stages[0].heads), context)
    found = self._at_bytes(decisions, level.segment_ids_BxC)
    return ModelOutput(
      nll=predicted.nll_BxL,
      logits=logits,
      segmentations=tuple(starts_BxL for starts_BxL, _ in found),
      boundary_probabilities=tuple(p_BxL for _, p_BxL in found),
      needed=tuple(d.segments.needed for d in decisions),
      aux_losses=aux_losses | objectives.losses(self.objectives, x_BxLxD, batch, self._vectors, context),
      stage_metrics=stage_metrics,
    )

  @property
  def superposes(self) -> bool:
    """What is added to the vectors of bytes is of single bytes."""
    return not self.config.inputs

  @property
  def marks(self) -> dict[str, str]:
    """Those that the parts of its stages read."""
    return dict(self.config.marks)

  @property
  def labels(self) -> dict[str, str]:
    """Those that losses alone read. A batch without them has no value of these losses; in training it is an error."""
    return dict(self.config.labels)

  @property
  def emits(self) -> tuple[str, ...]:
    """By the boundaries."""
    return tuple(stage.boundary.make.emits for stage in self.config.stages[:-1])

  @property
  def targets(self) -> dict[int, TargetSchedule]:
    """Of the ratio losses."""
    return {index: stage.target for index, stage in enumerate(self.config.stages) if stage.target}

  @property
  def borrowed(self) -> dict[str, Part]:
    """The parts that have parameters of another run, by their paths."""
    return {
      f'{_path(index)}.{part.kind}': part
      for index, stage in enumerate(self.config.stages)
      for part in stage.parts
      if part.borrows is not None
    }

  @property
  def promised(self) -> dict[int, float]:
    """By boundaries that were calibrated."""
    found = {index: stage.boundary.promises for index, stage in enumerate(self.config.stages[:-1])}
    return {index: size for index, size in found.items() if size is not None}

  def _level(self, batch: Batch, labels: Iterable[str] = ()) -> Level:
    batch = marks_lib.mark(batch, self.marks)
    marks = {'bytes': batch.bytes} | {name: batch.marks[name] for name in (*self.marks, *sorted(labels))}
    return Level.of_bytes(jnp.asarray(batch.segment_ids), jax.tree.map(jnp.asarray, marks))

  def _embed(self, bytes_: Array, more: Iterable[Array]) -> Array:
    rows = bytes_.astype(jnp.int32) if self.config.rows is None else jnp.asarray(self.config.rows)[bytes_]
    return sum(more, self.embeddings[rows]).astype(self.config.dtype)

  def _vectors(self, bytes_: Array) -> Array:
    """[..., D], without what `inputs` add."""
    return self._embed(bytes_, ())

  def _head(self, x: Array) -> Array:
    logits = x @ self.embeddings[...].T.astype(x.dtype) if self.config.tie_embeddings else self.lm_head(x)
    logits = logits if self.config.rows is None else logits[..., jnp.asarray(self.config.rows)]
    return logits.astype(jnp.float32)

  def _nll(self, logits_BxLxV: Array, batch: Batch, decisions: Sequence[stage_lib.Decision]) -> Array:
    """Nats of the scored bytes, [B, L]."""
    del decisions
    return next_byte_nll(logits_BxLxV, batch)

  def _at_bytes(self, decisions: Sequence[stage_lib.Decision], ids_BxL: Array) -> list[tuple[Array, Array]]:
    """Where the chunks of each stage start, and with what probability; a document's first byte begins one of every
    stage, with or without a vector inside for it. What emits at ends is said to start one byte behind, also where the
    slots are chunks of a stage that emits at starts. Of several heads, those of the first.
    """
    first_BxL, found = segments.starts(ids_BxL) & (ids_BxL > 0), []
    of_first = lambda values: values[:: self.config.stages[0].heads]
    for decision, stage in zip(decisions, self.config.stages, strict=False):
      outer, cut = decision.segments.outer, decision.cut
      found_B = outer.to_bytes(cut.emit), outer.to_bytes(jnp.where(outer.valid, cut.p, 0.0))
      starts_BxL, p_BxL = map(of_first, found_B)
      if stage.boundary.make.emits == 'ends':
        starts_BxL, p_BxL = _behind(starts_BxL, ids_BxL) | first_BxL, _behind(p_BxL, ids_BxL) + first_BxL
      elif stage.pool.make.reads == 'before':
        starts_BxL |= first_BxL
      found.append((starts_BxL, p_BxL))
    return found

  def _losses(self, decisions: Sequence[stage_lib.Decision], predicted: Predicted, context: Context) -> tuple:
    losses, metrics = {}, []
    for decision, stage in zip(decisions, self.config.stages, strict=False):
      drawn, slots = jnp.sum(decision.cut.emit), jnp.sum(decision.segments.outer.count_B)
      inner = decision.segments.inner
      of_stage = {
        'boundary_rate': drawn / jnp.maximum(slots, 1),
        'bytes_per_chunk': jnp.sum(decisions[0].segments.outer.count_B) / jnp.maximum(drawn, 1),
        'fill': jnp.mean(inner.count_B) / inner.segment_ids_BxC.shape[1],
      }
      if stage.limit is not None:
        of_stage['dropped_boundaries'] = decision.segments.dropped
      if stage.scratch is not None:
        of_stage['rows_per_chunk'] = jnp.sum(inner.count_B) / jnp.maximum(drawn, 1)
      of_stage |= {name: value for name, value in decision.cut.more.items() if value.ndim == 0}
      for part in stage.losses:
        if not part.marks.keys() <= decision.segments.outer.marks.keys():
          continue
        loss = part.loss()
        value = loss(decision.cut, decision.segments.outer, predicted, context)
        losses[loss.name] = losses.get(loss.name, 0.0) + value
        of_stage[f'{loss.name}_loss'] = jax.lax.stop_gradient(value)
      metrics.append({name: jnp.asarray(value, jnp.float32) for name, value in of_stage.items()})
    return losses, tuple(metrics)

  def init_cache(self, batch_size: int, max_bytes: int) -> Cache:
    """Decoding caches for `batch_size` rows of at most `max_bytes` bytes, prompt and BOS included."""
    inputs = tuple(part.init_cache(batch_size) for part in self.inputs)
    stages = self.backbone.init_cache(batch_size, max_bytes)
    return Cache(Read.nothing(self.marks, batch_size, max_bytes), inputs, stages)

  def prefill(self, batch: Batch, length_B: Array, cache: Cache) -> tuple[Array, Cache]:
    """Reads right-padded prompts into a fresh cache; logits [B, V] are for the byte after each row's last."""
    level, length_B = self._level(batch.up_to(length_B)), jnp.asarray(length_B)
    bytes_BxP = level.marks['bytes']
    x = self._embed(bytes_BxP, (part(bytes_BxP, level.segment_ids_BxC) for part in self.inputs))
    x, stages = self.backbone.prefill(x, self._prompts(x, level), cache.stages)
    inputs = tuple(part.after(bytes_BxP, length_B) for part in self.inputs)
    last = jnp.take_along_axis(x, (length_B - 1)[:, None, None], 1)[:, 0]
    return self._head(last), Cache(cache.text.prompts(bytes_BxP, length_B), inputs, stages)

  def _prompts(self, x_BxPxD: Array, level: Level) -> Level:
    """What `prefill` reads, from the vectors of its bytes and what is known of them."""
    del x_BxPxD
    return level

  def step(self, byte_B: Array, cache: Cache) -> tuple[Array, Cache]:
    """Reads one byte a row; logits [B, V] are for the next."""
    return self._step(byte_B, {}, cache)

  def _step(self, byte_B: Array, given: dict[str, Array], cache: Cache) -> tuple[Array, Cache]:
    """given: further marks of the byte, [B] each."""
    active_B = jnp.ones(byte_B.shape, bool)
    marks, text = cache.text.then(self.marks, byte_B)
    marks = {'bytes': byte_B} | given | {name: values_Bx1[:, 0] for name, values_Bx1 in marks.items()}
    steps = [part.step(byte_B, of_part) for part, of_part in zip(self.inputs, cache.inputs, strict=True)]
    x = self._embed(byte_B, (added for added, _ in steps))
    x, stages = self.backbone.step(x, marks, active_B, cache.stages)
    return self._head(x), Cache(text, tuple(of_part for _, of_part in steps), stages)

  def level_sizes(self, fresh: bool = False) -> tuple[float, ...]:
    """Bytes for a chunk of each level inside, as stated, or for a row where there are scratch rows, too; fresh: as they
    are before training.
    """
    cuts = self.config.stages[:-1]
    stated = tuple(itertools.pairwise((1.0, *self.config.bytes_per_chunk)))
    if not fresh:
      return tuple(inner / stage.rows(inner / outer) for stage, (outer, inner) in zip(cuts, stated, strict=True))
    slots = (
      min(FRESH, inner / outer) if stage.boundary.make.learned else inner / outer
      for stage, (outer, inner) in zip(cuts, stated, strict=True)
    )
    rows = (size / stage.rows(size) for stage, size in zip(cuts, slots, strict=True))
    return tuple(itertools.accumulate(rows, operator.mul))

  @property
  def num_stages(self) -> int:
    """Stages, the innermost included."""
    return len(self.config.stages)

  def stage_of(self, path: str) -> int:
    """Stage whose learning-rate multiplier the parameter at `path` takes: a pool's is that of the stage inside, and
    embedding and head go with stage 0.
    """
    parts = path.split('.')
    return parts.count('inner') + ('pool' in parts)

  def trains(self, path: str) -> bool:
    """Not what parts keep under `frozen`."""
    return '.frozen.' not in path

  def paper_lr_multipliers(self) -> tuple[float, ...]:
    """By the paper's eq. 11."""
    return paper_lr_multipliers(self.config)

  def decays(self, path: str, exempt: str = 'default') -> bool:
    """Whether weight decay applies to a parameter.

    'default' exempts norms, biases, A_log, D, dt_bias, thresholds; 'official' what the authors' helper exempts: names
    that end in .bias or contain .norm. (so Mamba's inner norm, but not the norms between blocks).
    """
    last = path.split('.')[-1]
    bias = last in ('bias', 'conv_bias')
    if exempt == 'official':
      return not (bias or '.mixer.norm.' in path)
    return not (bias or last in ('scale', 'A_log', 'D', 'dt_bias', 'threshold'))

  def flops_per_byte(self, length: int, bytes_per_chunk: Sequence[float] | None = None) -> dict[str, float]:
    """Forward FLOPs a byte by component for documents of `length` bytes; see `hnet.flops`."""
    return flops_lib.flops_per_byte(self.config, length, bytes_per_chunk)


def _path(stage: int) -> str:
  """Of a stage's parameters."""
  return 'backbone' + '.inner' * stage


def _behind(values_BxL: Array, segment_ids_BxL: Array) -> Array:
  """Values of the byte before, 0 where a document begins."""
  same_BxL = (segment_ids_BxL[:, 1:] == segment_ids_BxL[:, :-1]) & (segment_ids_BxL[:, 1:] > 0)
  return jnp.pad(jnp.where(same_BxL, values_BxL[:, :-1], jnp.zeros((), values_BxL.dtype)), ((0, 0), (1, 0)))


def paper_lr_multipliers(config: HNetConfig, bytes_per_token: float = 4.6) -> tuple[float, ...]:
  """sqrt(N_gpt * prod_{i>=s} N_i / prod_i N_i * D_S / D_s), N_gpt = 4.6 bytes a GPT-2 token (H-Net, eq. 11).

  N_i are the targets; a rule counts with its stated bytes a chunk.
  """
  sizes = (1.0, *config.bytes_per_chunk)
  ratios = [
    stage.target.end if stage.target else sizes[index + 1] / sizes[index]
    for index, stage in enumerate(config.stages[:-1])
  ]
  widths = config.d_model
  return tuple(
    math.sqrt(bytes_per_token / math.prod(ratios[:s]) * widths[-1] / widths[s]) for s in range(len(config.stages))
  )
