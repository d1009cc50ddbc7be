"""One training step as a pure function: (state, batch) -> (state, metrics)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

import byte_models
from layers.capacity import Capacities
from training import sharding, superposition
from training.config import Config
from training.optimizer import Optimizer
from training.state import TrainState, rebuild

# After this many skipped updates in a row a run has diverged: waiting longer only burns time.
MAX_SKIPPED_IN_A_ROW = 10

# The usual norm of a gradient: its memory, and how many good updates it needs before any can be called unusual.
NORM_DECAY, NORM_STEPS = 0.98, 20

# Metrics that are means, and the metric that counts what each is a mean of.
_COUNTS = {'bpb': 'text_bytes', 'eos_nats': 'ends', 'bytes_per_word': 'words'}


def make_step(
  settings: Config, abstract_model: Any, optimizer: Optimizer, mesh: jax.sharding.Mesh, capacities: Capacities
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Any], jax.Array]]:
  """The step, (state, batch) -> (state, metrics, needed), to be jitted with the state donated.

  capacities: static chunks per row of each inner level. needed: [levels] int32, those of the fullest row; where they do
  not fit the capacities, the state comes back as it was and the metrics say nothing.

  Loss: sum of nll over the global batch / its scored positions, over all micro-batches alike, plus each auxiliary
  loss (mean over micro-batches) times its weight. An update whose loss or gradient is not finite is left out and
  counted; the step counts. So is one whose gradient norm is above optimizer.skip_norm times the geometric mean of those
  before it, if that is not 0. Metrics are float32 scalars, as `read` takes them: loss; bpb (bits per text byte, EOS
  aside) and eos_nats (per EOS); gradient_norm before clipping; learning_rate; skipped, skipped_in_a_row; bytes
  (positions that are not padding); bytes_per_word (text bytes / words that begin at one) if the batch marks words;
  `<name>_loss` per auxiliary loss; and the model's own, as means over micro-batches, those of its stages as a tuple of
  mappings under 'stages'. Where there is nothing to take a mean of, it is 0 and its count says so: no step of a healthy
  run makes nan, so that JAX_DEBUG_NANS finds what is not healthy; so there is no bpb while bags of bytes are read
  (training/superposition.py). Raises ValueError for a model that does not read these, and in tracing for an auxiliary
  loss without a weight.
  """
  loss_weights, accumulate, bags = settings.loss_weights, settings.optimizer.accumulate, settings.superposition
  if bags.size > 1 and not abstract_model.superposes:
    raise ValueError(
      f'superposition.size {bags.size}: a model of family {abstract_model.config.family!r} reads single bytes; set it '
      'to 1, or train one of family hnet without inputs'
    )

  def objective(trained, params, micro, context, scored):
    model = rebuild(abstract_model, params | trained)
    if bags.size == 1:
      return by_byte(model, micro, context, scored)
    return jax.lax.cond(bags.at(context.progress), by_bag, by_byte, model, micro, context, scored)

  def by_byte(model, micro, context, scored):
    output = model(micro, context=context, capacities=capacities)
    return summed(output, jnp.sum(output.nll), scored, _count(micro, output.nll))

  def by_bag(model, micro, context, scored):
    length = micro.bytes.shape[1] // bags.size
    of_bags = superposition.in_bags(micro, bags.size)
    output = model(of_bags, context=context, capacities=tuple(min(length, capacity) for capacity in capacities))
    counts = _count(micro, jnp.zeros(micro.bytes.shape))
    counts = {name: value if name == 'bytes' else jnp.zeros_like(value) for name, value in counts.items()}
    stages = tuple(of | {'bytes_per_chunk': of['bytes_per_chunk'] * bags.size} for of in output.stage_metrics)
    output = dataclasses.replace(output, stage_metrics=stages)
    return summed(output, superposition.nats(output.logits, micro, bags.size), scored, counts)

  def summed(output, nats, scored, counts):
    unweighted = sorted(output.aux_losses.keys() - loss_weights.keys())
    if unweighted:
      raise ValueError(f'missing config key loss_weights.{unweighted[0]}: the model has an auxiliary loss of this name')
    penalty = sum(loss_weights[name] * value for name, value in output.aux_losses.items())
    means = {f'{name}_loss': value for name, value in output.aux_losses.items()}
    means |= {'stages': output.stage_metrics, **output.metrics}
    needed = jnp.array(output.needed, jnp.int32)
    return nats / scored + penalty / accumulate, (counts, jax.tree.map(jnp.float32, means), needed)

  def gradient(params, batch, rng, progress):
    """(loss, (sums over the batch, means over micro-batches, needed by any of them)), gradients."""
    scored = jnp.sum(batch.scored)
    if bags.size > 1:
      scored = jnp.where(bags.at(progress), jnp.sum(superposition.scored(batch, bags.size)), scored)
    scored = jnp.maximum(scored, 1).astype(jnp.float32)

    def one(micro, index):
      context = byte_models.Context(rng=jax.random.fold_in(rng, index), progress=progress)
      return jax.value_and_grad(objective, has_aux=True)(optimizer.moving(params), params, micro, context, scored)

    if accumulate == 1:
      return one(batch, 0)
    micros = split_rows(batch, accumulate, mesh)

    def add(total, item):
      (loss, found), gradients = one(*item)
      return jax.tree.map(jnp.add, total, (loss, gradients)), found

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, optimizer.moving(params)))
    (loss, gradients), (sums, means, needed) = jax.lax.scan(add, zeros, (micros, jnp.arange(accumulate)))
    total, mean = (lambda x: jnp.sum(x, 0)), (lambda x: jnp.mean(x, 0))
    return (loss, (jax.tree.map(total, sums), jax.tree.map(mean, means), jnp.max(needed, 0))), gradients

  def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any], jax.Array]:
    # A resumed run draws what an uninterrupted one draws.
    rng = jax.random.fold_in(jax.random.key(settings.seed), state.step)
    progress = state.step.astype(jnp.float32) / settings.num_steps
    (loss, (sums, means, needed)), gradients = gradient(state.params, batch, rng, progress)
    norm = optax.tree.norm(gradients)
    params, opt_state = optimizer.update(gradients, state.opt_state, state.params, state.step)
    averaged = _average(state, optimizer.moving(params), settings.optimizer.ema)

    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    log_norm, usual = _usual_norm(state, norm)
    if settings.optimizer.skip_norm:
      good &= norm <= settings.optimizer.skip_norm * usual
    fits = jnp.all(needed <= jnp.array(capacities, jnp.int32))
    old = (state.params, state.opt_state, state.ema, state.log_norm)
    params, opt_state, averaged, log_norm = jax.tree.map(
      lambda new, old: jnp.where(good & fits, new, old), (params, opt_state, averaged, log_norm), old
    )
    skipped_in_a_row = jnp.where(fits, jnp.where(good, 0, state.skipped_in_a_row + 1), state.skipped_in_a_row)
    skipped = state.skipped + (fits & ~good)
    metrics = {
      'loss': loss,
      'bpb': sums['text_nats'] / jnp.maximum(sums['text_bytes'], 1.0) / jnp.log(2.0),
      'eos_nats': sums['eos_nats'] / jnp.maximum(sums['ends'], 1.0),
      'gradient_norm': norm,
      'learning_rate': optimizer.schedule(state.step),
      'skipped': skipped.astype(jnp.float32),
      'skipped_in_a_row': skipped_in_a_row.astype(jnp.float32),
    } | {name: sums[name] for name in ('bytes', *_COUNTS.values()) if name in sums}
    if 'words' in sums:
      metrics['bytes_per_word'] = sums['text_bytes'] / jnp.maximum(sums['words'], 1.0)
    after = TrainState(state.step + fits, params, opt_state, averaged, skipped, skipped_in_a_row, log_norm)
    return after, metrics | means, needed

  return step


def read(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """A step's metrics as floats on the host: without the means of nothing, and without the counts that tell these."""
  values = jax.tree.map(float, jax.device_get(dict(metrics)))
  counts = {name: values.pop(count) for name, count in _COUNTS.items() if count in values}
  return {name: value for name, value in values.items() if counts.get(name) != 0}


def split_rows(batch: Any, pieces: int, mesh: jax.sharding.Mesh) -> Any:
  """Rows [B, ...] as micro-batches [pieces, B / pieces, ...]: the m-th has the rows r with r % pieces = m.

  These are the same on every mesh, so that what is a mean over a micro-batch is, too; and since every device has as
  many rows of each, no row travels between devices.
  """
  spec = NamedSharding(mesh, PartitionSpec(None, *sharding.batch_spec(mesh)))

  def split(x):
    x = x.reshape(-1, pieces, *x.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(x, spec)

  return jax.tree.map(split, batch)


def _count(batch, nll_BxL) -> dict[str, jax.Array]:
  """Sums over a batch, apart for text bytes and ends of documents."""
  text_BxL, eos_BxL = batch.text_and_ends()
  starts_BxL = batch.marks.get('words')
  words = {} if starts_BxL is None else {'words': jnp.sum(starts_BxL & text_BxL, dtype=jnp.float32)}
  return words | {
    'text_nats': jnp.sum(nll_BxL * text_BxL),
    'text_bytes': jnp.sum(text_BxL, dtype=jnp.float32),
    'eos_nats': jnp.sum(nll_BxL * eos_BxL),
    'ends': jnp.sum(eos_BxL, dtype=jnp.float32),
    'bytes': jnp.sum(batch.segment_ids > 0, dtype=jnp.float32),
  }


def _usual_norm(state: TrainState, norm: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(running mean of log norms with this one, geometric mean of those before it; infinite while they are few).

  Of logarithms, because norms fall by powers of ten early in a run, and one outlier shall not hide the next. Updates
  that are left out are not in it.
  """
  good = (state.step - state.skipped).astype(jnp.float32)
  usual = jnp.exp(state.log_norm / (1.0 - NORM_DECAY ** jnp.maximum(good, 1.0)))
  log_norm = NORM_DECAY * state.log_norm + (1.0 - NORM_DECAY) * jnp.log(jnp.maximum(norm, 1e-30))
  return log_norm, jnp.where(good < NORM_STEPS, jnp.inf, usual)


def _average(state: TrainState, moving, decay: float):
  """Exponential moving average of the parameters; those that do not move are their own, and a rounding would drift. The
  decay ramps up as (1 + t) / (10 + t), as TensorFlow's does, so that a short run's average forgets its initial
  parameters.
  """
  if state.ema is None:
    return None
  t = (state.step - state.skipped).astype(jnp.float32)
  decay = jnp.minimum(decay, (1.0 + t) / (10.0 + t))
  mean = lambda average, new: decay * average + (1.0 - decay) * new
  return state.ema | {path: mean(state.ema[path], new) for path, new in moving.items()}
