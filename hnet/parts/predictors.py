"""Boundaries that a small network predicts at the last slot of each chunk, trained by a straight-through gradient
(dynamic-pooling, MAGNET, FLEXITOKENS) or by labels alone.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hnet.parts import scripts as scripts_lib
from hnet.parts.base import HIGHEST, Cut, Sizes
from hnet.parts.boundaries import at_last
from layers import checks, segments
from layers.chunks import Level
from layers.contract import Context
from layers.linear import Linear, normal, zeros

ACTIVATIONS = {'gelu': functools.partial(jax.nn.gelu, approximate=False), 'relu': jax.nn.relu}
CLOSEST = float(jnp.finfo(jnp.float32).eps)  # of a uniform number to 0 and 1, as in torch.distributions


class MLP(nnx.Module):
  """width -> inner -> 1 (hourglass.py BoundaryPredictor)."""

  def __init__(self, width: int, inner: int, *, rngs: nnx.Rngs):
    self.hidden = Linear(width, inner, kernel_init=normal(0.02), bias_init=zeros, rngs=rngs)
    self.out = Linear(inner, 1, kernel_init=normal(0.02), bias_init=zeros, rngs=rngs)

  def __call__(self, e: Array, activation: str) -> Array:
    """[..., D] -> [...] float32."""
    h = self.hidden(e.astype(jnp.float32), HIGHEST)
    return self.out(ACTIVATIONS[activation](h), HIGHEST)[..., 0]


class Supervised(nnx.Module):
  """p = sigmoid(MLP(e)), an end where p > 1/2 (dynamic-pooling with 'unigram' or 'entropy'). Always float32.

  No gradient goes through the decision: the network learns from labels, by the loss `bce`. inner: its hidden width, 0 =
  4 times that of the stage. scripts, 'latin+cyrillic': a network for each, see `scripts`.
  """

  OPTIONS = {'inner': 0, 'activation': 'gelu', 'scripts': '', 'others': ''}
  lookahead, differentiable, learned, emits = 0, False, True, 'ends'
  gives = ('logit',)

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, inner: int, activation: str, scripts: str, others: str):
    where = f'boundary {type(self).__name__.lower()}'
    checks.one_of(activation, tuple(ACTIVATIONS), f'{where}: activation')
    inner = checks.integer(inner, f'{where}: inner', 0) or 4 * sizes.width
    count = scripts_lib.check(scripts, others, where)
    self.activation, self.scripts, self.others = activation, scripts, others
    self.predictors = nnx.List([MLP(sizes.width, inner, rngs=rngs) for _ in range(count)])

  @staticmethod
  def marks(scripts: str, others: str, **options: float | str) -> dict[str, str]:
    """The script, where it matters."""
    del options
    return scripts_lib.marks(scripts, others)

  def __call__(self, e_BxCxD: Array, level: Level, context: Context) -> Cut:
    """p is 1 at the first slot of a document, which always emits, and 0 in padding. more: 'logit'."""
    logit_BxC = self._logit(e_BxCxD, self._script(level))
    position_BxC = segments.positions(level.segment_ids_BxC)
    return self._cut(logit_BxC, self._uniform(level, position_BxC, context), position_BxC == 0, level.valid)

  def _script(self, level: Level) -> Array:
    return scripts_lib.of_slots(self.scripts, self.others, level.marks, level.segment_ids_BxC)

  def _logit(self, e: Array, script: Array) -> Array:
    logits = jnp.stack([predictor(e, self.activation) for predictor in self.predictors], -1)
    return jnp.take_along_axis(logits, script[..., None], -1)[..., 0]

  def _uniform(self, level: Level, position_BxC: Array, context: Context) -> Array | None:
    """Nothing is drawn."""
    del level, position_BxC, context

  def _cut(self, logit: Array, uniform: Array | None, is_first: Array, valid: Array) -> Cut:
    del uniform
    p = jnp.where(is_first, 1.0, jax.nn.sigmoid(logit)) * valid
    return Cut(p > 0.5, p, jax.lax.stop_gradient(p), {'logit': logit})

  def init_cache(self, batch_size: int) -> dict[str, Array]:
    """Slots so far, and the script of the last."""
    first = jnp.full(batch_size, scripts_lib.first(self.scripts, self.others), jnp.int32)
    return {'slots': jnp.zeros(batch_size, jnp.int32), 'script': first}

  def after(self, e_BxCxD: Array, cut: Cut, level: Level) -> dict[str, Array]:
    """Of each row."""
    del e_BxCxD, cut
    last_B, fresh = at_last(self._script(level), level), self.init_cache(len(level.count_B))
    return {
      'slots': level.count_B.astype(jnp.int32),
      'script': jnp.where(level.count_B > 0, last_B, fresh['script']),
    }

  def step(self, e_BxD: Array, marks: dict[str, Array], active_B: Array, cache: dict) -> tuple[Cut, dict]:
    """One slot."""
    script_B = scripts_lib.of_step(self.scripts, self.others, marks, cache['script'])
    uniform_B = self._fixed(cache['slots'])
    cut = self._cut(self._logit(e_BxD, script_B), uniform_B, cache['slots'] == 0, active_B)
    new = {'slots': cache['slots'] + active_B, 'script': jnp.where(active_B, script_B, cache['script'])}
    return cut, new

  def _fixed(self, position: Array) -> Array | None:
    """What is drawn where no key is given."""
    del position

  @staticmethod
  def chunk_size(**options: float | str) -> None:
    """Learned."""

  @staticmethod
  def flops(sizes: Sizes, slots: float, chunks: float, inner: int, scripts: str, **options: float | str) -> float:
    """Two projections a slot, of every network, since all of them are computed."""
    del chunks, options
    return len(scripts.split('+')) * 2.0 * slots * (inner or 4 * sizes.width) * (sizes.width + 1)


class Gumbel(Supervised):
  """A relaxed Bernoulli: s = sigmoid((MLP(e) + ln u - ln(1 - u)) / temperature), an end where s > 1/2, with the slope
  of s (straight through). `soft` is s, `p` the probability sigmoid(MLP(e)).

  In training u is uniform, from context.rng. evaluation: 'threshold' ends a chunk where p > 1/2; 'sample' draws there,
  too, as the published code does, with one sequence of numbers for every document, so that steps, packed and padded
  rows draw the same. A network that is not decided yet has few p above 1/2: pulled to 5 bytes a chunk, one of 220 steps
  has 6 where it samples and 37 at the threshold. inner, scripts: see `Supervised`.
  """

  OPTIONS = {'temperature': 0.5, 'evaluation': 'threshold', **Supervised.OPTIONS}
  differentiable = True

  def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs, temperature: float, evaluation: str, **options: int | str):
    super().__init__(sizes, rngs=rngs, **options)
    if not 0 < temperature < math.inf:
      raise ValueError(f'boundary gumbel: temperature={temperature} must be a finite number above 0.')
    checks.one_of(evaluation, ('threshold', 'sample'), 'boundary gumbel: evaluation')
    self.temperature, self.evaluation = temperature, evaluation

  def _uniform(self, level: Level, position_BxC: Array, context: Context) -> Array | None:
    if context.rng is None:
      return self._fixed(position_BxC)
    # By bytes, so that a level's capacity does not change what is drawn, and with another key for every level.
    key = jax.random.fold_in(context.rng, jnp.sum(level.count_B))
    uniform_BxL = jax.random.uniform(key, (len(level.count_B), level.length))
    return jnp.take_along_axis(uniform_BxL, jnp.minimum(level.byte_BxC, level.length - 1), 1)

  def _fixed(self, position: Array) -> Array | None:
    if self.evaluation == 'threshold':
      return None
    draw = lambda place: jax.random.uniform(jax.random.fold_in(jax.random.key(0), place))
    return jax.vmap(draw)(position.reshape(-1)).reshape(position.shape)

  def _cut(self, logit: Array, uniform: Array | None, is_first: Array, valid: Array) -> Cut:
    s = jnp.where(is_first, 1.0, relaxed(logit, uniform, self.temperature)) * valid
    p = jnp.where(is_first, 1.0, jax.nn.sigmoid(logit)) * valid
    return Cut(s > 0.5, p, s, {'logit': logit})


def relaxed(logit: Array, uniform: Array | None, temperature: float) -> Array:
  """sigmoid((logit + ln u - ln(1 - u)) / temperature), u within [CLOSEST, 1 - CLOSEST]; None: u = 1/2."""
  if uniform is not None:
    uniform = jnp.clip(uniform, CLOSEST, 1.0 - CLOSEST)
    logit = logit + jnp.log(uniform) - jnp.log1p(-uniform)
  return jax.nn.sigmoid(logit / temperature)
