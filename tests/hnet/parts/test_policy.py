"""The policy-gradient router: its estimator by enumeration of all draws, its losses, what it draws, what it is paid."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hnet import parts
from hnet.parts import Cut
from hnet.parts.base import Predicted
from hnet.parts.policy import centred, discounted, early_nats
from layers.chunks import Level
from layers.contract import EVAL, Context
from tests import devices
from tests.hnet.parts.common import EMIT, IDS, LENGTH, ROWS, SIZES, STARTS, build, cut_of, level_of
from tests.layers.common import random, segment_ids

FREE, SLOTS, TABLES = 6, 8, 2  # draws of a row, its slots (the first is given, the last has nothing behind it), rows
ACTIONS = np.array(list(itertools.product([False, True], repeat=FREE)))


def paid(rewards_BxC, logit_BxC, action_BxC, ids):
  """(cut, level, what was predicted) in which slot t earns `rewards`: the early exit knows nothing, ln 256."""
  known = (ids > 0) & (np.pad(ids[:, 1:], ((0, 0), (0, 1))) == ids)
  nll = jnp.pad(jnp.where(known, np.log(256.0) - rewards_BxC, 0.0)[:, :-1], ((0, 0), (1, 0)))
  scored = jnp.pad(jnp.asarray(known)[:, :-1], ((0, 0), (1, 0)))
  more = {'logit': logit_BxC, 'action': action_BxC, 'early': jnp.zeros((*ids.shape, 256))}
  level = Level.of_bytes(jnp.asarray(ids), {'bytes': jnp.zeros(ids.shape, jnp.uint8)})
  cut = Cut(action_BxC, jax.nn.sigmoid(logit_BxC), jax.nn.sigmoid(logit_BxC), more)
  return cut, level, Predicted(None, nll, scored, jnp.zeros(ids.shape, jnp.uint8))


def reinforce(spec, rewards_BxC, logit_BxC, action_BxC, ids):
  return parts.parse('loss', spec).loss()(*paid(rewards_BxC, logit_BxC, action_BxC, ids), EVAL)


@pytest.mark.parametrize('gamma, window', [(1.0, 0), (0.9, 0), (0.9, 3), (0.5, 1), (0.0, 8)])
def test_the_expectation_over_all_draws_is_the_exact_gradient(gamma, window):
  """Two rows, each with the 64 vectors of its six draws; any reward of a slot may hang on all draws up to it."""
  rng = np.random.default_rng(0)
  table = rng.standard_normal((TABLES, 2**FREE, FREE + 1))  # of slot t: only the draws up to t decide
  number = ACTIONS @ 2 ** np.arange(FREE)[::-1]
  rewards = np.stack([table[:, number >> (FREE - t) << (FREE - t), t] for t in range(FREE + 1)], -1)
  rewards = jnp.asarray(np.pad(rewards, ((0, 0), (0, 0), (0, 1))), jnp.float32)  # [row, draws, slot]
  logit = jnp.asarray(random(TABLES, SLOTS))
  actions = jnp.asarray(np.pad(ACTIONS, ((0, 0), (1, 1)), constant_values=True))
  log_p = lambda logit: jnp.sum(-jax.nn.softplus(jnp.where(ACTIONS, -1, 1) * logit[None, 1 : 1 + FREE]), -1)
  ids = np.ones((TABLES, SLOTS), np.int32)

  def drawn(i, j):
    """The estimate where the rows draw vectors i and j, times how probable that is."""
    gradient = jax.grad(
      lambda logit: reinforce(
        f'reinforce({gamma},{window})',
        jnp.stack([rewards[0, i], rewards[1, j]]),
        logit,
        actions[jnp.array([i, j])],
        ids,
      )
    )(logit)
    return jnp.exp(log_p(logit[0])[i] + log_p(logit[1])[j]) * gradient

  every = jnp.arange(len(ACTIONS))
  found = jnp.sum(jax.jit(jax.vmap(jax.vmap(drawn, (None, 0)), (0, None)))(every, every), (0, 1))

  def exact(row):
    """Of each draw, the derivative of what it is credited with, at fixed odds of the others."""
    last = lambda t: SLOTS if not window else t + window
    credit = jnp.stack(
      [sum(gamma ** (s - t) * rewards[row, :, s] for s in range(t, min(last(t), FREE + 1))) for t in range(1, FREE + 1)]
    )
    expected = lambda logit: credit @ jnp.exp(log_p(logit))
    return -jnp.diagonal(jax.jacobian(expected)(logit[row])[:, 1 : 1 + FREE])

  wanted = np.stack([exact(row) for row in range(TABLES)]) / (TABLES * (SLOTS - 1))
  np.testing.assert_allclose(found[:, 1 : 1 + FREE], wanted, atol=2e-6)
  assert not np.any(found[:, [0, -1]]) and np.abs(wanted).min() > 1e-5


def test_advantages_are_sums_over_a_window_of_the_own_document():
  reward = random(ROWS, LENGTH) * (IDS > 0)
  for gamma, window in [(0.9, 0), (0.9, 3), (1.0, 2), (0.5, LENGTH + 3), (0.0, 4)]:
    found = discounted(jnp.asarray(reward, jnp.float32), jnp.asarray(IDS), gamma, window)
    for row, t in np.ndindex(ROWS, LENGTH):
      own = [s for s in range(t, min(t + (window or LENGTH), LENGTH)) if IDS[row, s] == IDS[row, t]]
      expected = sum(gamma ** (s - t) * reward[row, s] for s in own)
      np.testing.assert_allclose(found[row, t], expected, atol=1e-6)
  np.testing.assert_array_equal(found, reward.astype(np.float32))  # γ = 0 leaves the own reward


def test_rewards_are_centred_on_the_other_rows_that_have_one_there():
  reward, known = random(4, 5), np.array([[1, 1, 1, 0, 0]] + 2 * [[1, 1, 0, 0, 1]] + [[1, 0, 0, 0, 1]], bool)
  found = centred(jnp.asarray(np.where(known, reward, np.nan)), jnp.asarray(known))
  for row, t in np.ndindex(4, 5):
    others = [reward[r, t] for r in range(4) if r != row and known[r, t]]
    expected = reward[row, t] - (np.mean(others) if others else 0) if known[row, t] else 0
    np.testing.assert_allclose(found[row, t], expected, atol=1e-6)


def test_an_equal_reward_for_all_moves_nothing():
  ids = np.ones((3, SLOTS), np.int32)
  logit, action = jnp.asarray(random(3, SLOTS)), jnp.asarray(random(3, SLOTS, seed=1) > 0)
  value = lambda logit: reinforce('reinforce', jnp.full((3, SLOTS), 1.7), logit, action, ids)
  gradient = jax.jit(jax.grad(value))(logit)
  np.testing.assert_allclose(gradient, np.zeros((3, SLOTS)), atol=1e-7)


def test_the_reward_is_the_early_exits_nats_less_the_models_and_passes_no_gradient():
  logits, early = random(ROWS, LENGTH, 256), random(ROWS, LENGTH, 256, seed=1)
  text = np.random.default_rng(0).integers(0, 256, IDS.shape).astype(np.uint8)
  known = (IDS > 0) & (np.pad(IDS[:, 1:], ((0, 0), (0, 1))) == IDS)
  cut, level, predicted = paid(jnp.zeros(IDS.shape), jnp.asarray(random(ROWS, LENGTH)), jnp.asarray(EMIT), IDS)
  predicted = predicted._replace(bytes_BxL=jnp.asarray(text))
  cut = dataclasses.replace(cut, more=cut.more | {'early': jnp.asarray(early)})
  log_p = early - np.log(np.exp(np.float64(early)).sum(-1, keepdims=True))
  nats = -np.take_along_axis(log_p[:, :-1], text[:, 1:, None].astype(int), -1)[..., 0]
  nats = np.where(known, np.pad(nats, ((0, 0), (0, 1))), 0)
  np.testing.assert_allclose(early_nats(cut, level, predicted), nats, atol=1e-5)
  of = lambda spec, cut=cut: parts.parse('loss', spec).loss()(cut, level, predicted, EVAL)
  assert float(of('early')) == pytest.approx(nats.sum() / known.sum(), rel=1e-5)
  with_early = lambda early: of('reinforce', dataclasses.replace(cut, more=cut.more | {'early': early}))
  assert not np.any(jax.grad(with_early)(jnp.asarray(early))) and logits.any()


def test_the_rate_loss_moves_all_logits_by_how_far_the_mean_probability_is_off():
  cut, level, _ = paid(jnp.zeros(IDS.shape), jnp.asarray(random(ROWS, LENGTH)), jnp.asarray(EMIT), IDS)
  drawn = (IDS > 0) & ~STARTS
  p = 1 / (1 + np.exp(-np.asarray(cut.more['logit'])))

  def value(logit, spec, progress=1.0):
    at = dataclasses.replace(cut, more=cut.more | {'logit': logit})
    return parts.parse('loss', spec).loss()(at, level, None, Context(progress=progress))

  for spec, progress, size in [('rate', 1.0, 5.0), ('rate(4,start=2,until=0.5)', 0.25, 3.0), ('rate(1.1)', 0.0, 1.1)]:
    gradient = jax.grad(value)(cut.more['logit'], spec, progress)
    np.testing.assert_allclose(gradient, drawn * (p[drawn].mean() - 1 / size) / drawn.sum(), atol=1e-7)


def test_training_draws_by_the_gate_and_alike_at_any_capacity_and_evaluation_takes_the_likelier():
  part, ids = build('boundary', 'bernoulli(2)'), np.ones((64, LENGTH), np.int32)
  e, level = random(64, LENGTH, SIZES.width), level_of(ids)
  draw = jax.jit(lambda key: part(e, level, Context(rng=key)))
  cuts = [draw(jax.random.key(seed)) for seed in range(100)]
  rates = np.mean([cut.emit for cut in cuts], 0)
  p = np.asarray(cuts[0].p)
  assert np.abs(rates - p).max() < 5 * 0.5 / 100**0.5 and rates[:, 0].min() == 1 and 0.2 < p[:, 1:].mean() < 0.8
  np.testing.assert_allclose(np.mean(rates - p), 0, atol=0.02)
  assert float(cuts[0].more['mean_probability']) == pytest.approx(p.mean(), rel=1e-5)
  assert float(cuts[0].more['likely_rate']) == pytest.approx((p > 0.5).mean(), rel=1e-5)
  np.testing.assert_array_equal(part(e, level, EVAL).emit, p > 0.5)

  every_other = jnp.asarray(ids * (np.arange(LENGTH) % 2 == 0) > 0)
  key = Context(rng=jax.random.key(3))
  inner = [part(e[:, :size], level.cut(every_other, size).inner, key).emit for size in (LENGTH // 2, LENGTH)]
  np.testing.assert_array_equal(inner[0], inner[1][:, : LENGTH // 2])
  outer = part(e, level, key).emit[:, 2::2] != part(e[:, ::2], level_of(ids[:, ::2]), key).emit[:, 1:]
  assert outer.any()  # levels of one context draw other numbers


def test_what_is_drawn_in_evaluation_hangs_on_position_and_byte_alone():
  part, text = build('boundary', 'bernoulli(3,draw=true)'), bytes(range(LENGTH)) * 2
  e = jnp.zeros((2, LENGTH, SIZES.width))
  cut = part(e, level_of(segment_ids([LENGTH], [LENGTH]), text), EVAL)
  np.testing.assert_array_equal(cut.emit[0], cut.emit[1])
  assert 1 < cut.emit[0].sum() < LENGTH


def test_a_gate_starts_at_its_rate():
  fresh = parts.parse('boundary', 'bernoulli(size=4)').build(SIZES, rngs=nnx.Rngs(0))
  p = fresh(random(8, LENGTH, SIZES.width), level_of(np.ones((8, LENGTH), np.int32)), EVAL).p[:, 1:]
  np.testing.assert_allclose(p, 0.25, atol=0.05)


def test_the_change_that_the_stage_inside_made_is_repeated():
  z, e = random(ROWS, LENGTH, SIZES.inner), random(ROWS, LENGTH, SIZES.width, seed=1)
  level, cut = level_of(IDS), dataclasses.replace(cut_of(), more={'state': jnp.asarray(e)})
  segments, residual = level.cut(cut.emit), random(ROWS, LENGTH, SIZES.width, seed=2)
  for narrow in ('first', 'last'):
    channels = z[..., : SIZES.width] if narrow == 'first' else z[..., -SIZES.width :]
    found = build('unpool', f'difference(narrow={narrow})')(z, cut, segments, None, residual)
    for row, t in zip(*np.nonzero(IDS), strict=True):
      start = max(s for s in range(t + 1) if EMIT[row, s])
      change = channels[row, EMIT[row, : t + 1].sum() - 1] - e[row, start]
      np.testing.assert_allclose(found[row, t], change + residual[row, t], atol=1e-6)


def test_a_gate_that_is_paid_at_one_position_learns_to_open_there():
  """A bandit: the byte behind slot 5 costs a nat less where a chunk starts at 5; nothing else matters."""
  slots, rows, place = 8, 16, 5
  gate = parts.parse('boundary', 'bernoulli(size=5)').build(parts.Sizes(slots, slots), rngs=nnx.Rngs(0))
  e = jnp.broadcast_to(jnp.eye(slots), (rows, slots, slots))
  ids = np.ones((rows, slots), np.int32)
  level, loss = level_of(ids), parts.parse('loss', 'reinforce(window=1)').loss()

  def value(gate, key):
    cut = gate(e, level, Context(rng=key))
    reward = jnp.zeros(ids.shape).at[:, place].set(cut.emit[:, place].astype(jnp.float32))
    _, _, predicted = paid(reward, cut.more['logit'], cut.emit, ids)
    return loss(
      dataclasses.replace(cut, more=cut.more | {'early': jnp.zeros((rows, slots, 256))}), level, predicted, EVAL
    )

  def update(gate, key):
    return jax.tree.map(lambda leaf, slope: leaf - 3.0 * slope, gate, jax.grad(value)(gate, key)), None

  keys = jax.random.split(jax.random.key(0), 300)
  gate, _ = jax.jit(functools.partial(jax.lax.scan, update))(gate, keys)
  p = np.asarray(gate(e, level, EVAL).p[0])
  assert p[place] > 0.9 and np.delete(p, [0, place]).max() < 0.7


@pytest.mark.parametrize(
  'kind, spec, sentence',
  [
    ('boundary', 'bernoulli(size=1)', 'boundary bernoulli: size=1.0 is slots of a chunk at first and must be above 1'),
    ('loss', 'reinforce(gamma=1.5)', 'loss reinforce: gamma=1.5 must be from 0 to 1'),
    ('loss', 'reinforce(window=-1)', 'loss reinforce: window -1 must be an integer of at least 0'),
    ('loss', 'rate(target=1)', 'loss rate: target 1.0 -> 1.0: a target is bytes per chunk and must be above 1'),
  ],
)
def test_options_that_cannot_be_are_one_sentence(kind, spec, sentence):
  part = parts.parse(kind, spec)
  with pytest.raises(ValueError, match=sentence) as error:
    part.loss() if kind == 'loss' else part.build(SIZES, rngs=nnx.Rngs(0))
  assert '\n' not in str(error.value)


MESH = """
import jax, numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
import byte_models, hnet
from evaluation.oracles import informative
from layers.contract import Context
from tests.hnet.tiny import branch
from text.batch import Batch

make = lambda: byte_models.parse(branch(['t1', ['t1'], 't1'], chunking='policy_router(2)', post_norm=False))
model = informative(byte_models.build(make(), rngs=nnx.Rngs(0)))
ids = np.tile(np.repeat([1, 2], [10, 6]), (4, 1)).astype(np.int32)
ids[1, 12:] = 0
batch = Batch(np.random.default_rng(0).integers(0, 256, ids.shape).astype(np.uint8), ids)

def losses(model, batch):
  output = model(batch, context=Context(rng=jax.random.key(0)))
  return sum(output.aux_losses.values()), (output.aux_losses, output.segmentations)

run = jax.jit(jax.grad(losses, has_aux=True))
alone = jax.device_get(run(model, batch))
with jax.set_mesh(jax.make_mesh((2,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))) as mesh:
  rows = jax.device_put(batch, NamedSharding(jax.sharding.get_mesh(), PartitionSpec('data')))
  found = jax.device_get(run(model, rows))
np.testing.assert_array_equal(alone[1][1][0], found[1][1][0])
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), alone, found)
"""


def test_rows_on_several_devices_are_compared_with_each_other_and_draw_what_they_draw_on_one():
  devices.run(MESH, 2)
