"""Predicted boundaries: what they decide, draw, and let gradients through, and which network a slot has."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf, expit

from hnet import parts
from hnet.parts import scripts as scripts_lib
from hnet.parts.predictors import relaxed
from layers.chunks import Level
from layers.contract import EVAL, Context
from tests.hnet.parts.common import IDS, LENGTH, ROWS, SIZES, STARTS, build, level_of
from tests.layers.common import random
from text.marks import SCRIPTS

E = random(ROWS, LENGTH, SIZES.width)
MARK = np.random.default_rng(5).choice([0, 0, 1, 3, 7, 16], IDS.shape).astype(np.int8)  # none, 3 scripts, digits


def mlp(network, e, activation='gelu'):
  """By its definition, float64."""
  hidden = e @ np.float64(network.hidden.kernel[...]) + np.float64(network.hidden.bias[...])
  hidden = np.maximum(hidden, 0) if activation == 'relu' else hidden * (1 + erf(hidden / 2**0.5)) / 2
  return hidden @ np.float64(network.out.kernel[..., 0]) + np.float64(network.out.bias[0])


def marked(mark=MARK):
  level = level_of(IDS)
  return dataclasses.replace(level, marks=level.marks | {'script': jnp.asarray(mark)})


@pytest.mark.parametrize('activation', ['gelu', 'relu'])
@pytest.mark.parametrize('kind', ['supervised', 'gumbel'])
def test_without_a_key_ends_are_where_the_probability_is_above_a_half(kind, activation):
  boundary = build('boundary', f'{kind}(inner=7,activation={activation})')
  cut = jax.jit(lambda e: boundary(e, level_of(IDS), EVAL))(E)
  logit = mlp(boundary.predictors[0], np.float64(E), activation)
  p = np.where(STARTS, 1, expit(logit)) * (IDS > 0)
  np.testing.assert_allclose(cut.p, p, atol=1e-6)
  np.testing.assert_allclose(cut.more['logit'], logit, atol=1e-5)
  np.testing.assert_array_equal(cut.emit, p > 0.5)
  soft = np.where(STARTS, 1, expit(logit / 0.5)) * (IDS > 0) if kind == 'gumbel' else p
  np.testing.assert_allclose(cut.soft, soft, atol=1e-6)


@pytest.mark.parametrize('kind', ['supervised', 'gumbel'])
def test_only_gumbel_lets_a_gradient_through_its_decision(kind):
  boundary = build('boundary', kind)
  total = lambda boundary, e: jnp.sum(boundary(e, level_of(IDS), EVAL).soft)
  gradient = jax.tree.leaves(jax.jit(jax.grad(total, (0, 1)))(boundary, E))
  assert all(np.any(leaf) == (kind == 'gumbel') for leaf in gradient)
  assert boundary.differentiable == (kind == 'gumbel') and not boundary.lookahead


def test_the_slope_of_a_draw_is_that_of_the_relaxed_bernoulli():
  rng = np.random.default_rng(0)
  logit, u = rng.normal(size=50).astype(np.float32), rng.random(50).astype(np.float32)
  s = expit((np.float64(logit) + np.log(np.float64(u)) - np.log1p(-np.float64(u))) / 0.3)
  np.testing.assert_allclose(relaxed(logit, u, 0.3), s, atol=1e-5)
  np.testing.assert_array_equal(relaxed(logit, u, 0.3) > 0.5, u > 1 - expit(logit))
  slope = jax.grad(lambda x: jnp.sum(relaxed(x, u, 0.3)))(logit)
  np.testing.assert_allclose(slope, s * (1 - s) / 0.3, atol=1e-4)
  assert np.isfinite(relaxed(jnp.zeros(2), jnp.array([0.0, 1.0]), 0.1)).all()


def test_draws_have_the_probability_follow_the_key_and_do_not_depend_on_room_for_chunks():
  boundary = build('boundary', 'gumbel')
  level = Level.of_bytes(jnp.ones((32, 64), jnp.int32), {})
  e = jnp.broadcast_to(random(1, 1, SIZES.width), (32, 64, SIZES.width))
  draw = jax.jit(lambda key, level: boundary(e[:, : level.valid.shape[1]], level, Context(rng=key)))
  cut = draw(jax.random.key(0), level)
  p, emit = float(cut.p[0, 1]), np.asarray(cut.emit)[:, 1:]
  assert abs(emit.mean() - p) < 4 * (p * (1 - p) / emit.size) ** 0.5 and 0.05 < p < 0.95
  np.testing.assert_array_equal(draw(jax.random.key(0), level).emit, cut.emit)
  assert np.any(draw(jax.random.key(1), level).emit != cut.emit)
  every_other = jnp.broadcast_to(jnp.arange(64) % 2 == 0, (32, 64))
  wide, narrow = (draw(jax.random.key(0), level.cut(every_other, capacity).inner) for capacity in (64, 40))
  np.testing.assert_array_equal(wide.emit[:, :40], narrow.emit)
  assert np.any(wide.emit[:, 1:32] != cut.emit[:, 2::2])  # another level draws others


def test_sampling_in_evaluation_draws_the_same_for_every_document():
  boundary = build('boundary', 'gumbel(evaluation=sample)')
  e = jnp.broadcast_to(random(1, 1, SIZES.width), (ROWS, LENGTH, SIZES.width))
  cut = jax.jit(lambda e: boundary(e, level_of(IDS), EVAL))(e)
  alone = jax.jit(lambda e: boundary(e, level_of(np.ones((1, LENGTH), np.int32)), EVAL))(e[:1])
  positions = np.arange(LENGTH)[None] - np.maximum.accumulate(np.where(STARTS, np.arange(LENGTH)[None], 0), 1)
  np.testing.assert_array_equal(cut.emit, np.asarray(alone.emit)[0][positions] & (IDS > 0))
  assert 0 < np.asarray(alone.emit)[0, 1:].sum() < LENGTH - 1 and len(np.unique(cut.soft)) > 5


def scripts_of(named, others, row, ids):
  """Of one row, slot by slot."""
  places, found = [name.upper() for name in named], []
  first = named.index(others) if others else 0
  for t in range(len(row)):
    if t == 0 or ids[t] != ids[t - 1]:
      last = first
    name = SCRIPTS[row[t] - 1] if row[t] else ''
    if name in places:
      last = places.index(name)
    elif name and name != 'DIGIT' and others:
      last = first
    found.append(last)
  return found


@pytest.mark.parametrize('others', ['', 'cyrillic'])
@pytest.mark.parametrize('kind', ['supervised', 'gumbel'])
def test_every_script_has_its_own_network(kind, others):
  named = ['latin', 'cyrillic']
  boundary = build('boundary', f'{kind}(inner=5,scripts=latin+cyrillic,others={others})')
  assert len(boundary.predictors) == 2
  cut = jax.jit(lambda e, level: boundary(e, level, EVAL))(E, marked())
  expected = np.stack([mlp(network, np.float64(E)) for network in boundary.predictors])
  script = np.stack([scripts_of(named, others, MARK[row], IDS[row]) for row in range(ROWS)])
  found = scripts_lib.of_slots('latin+cyrillic', others, {'script': jnp.asarray(MARK)}, jnp.asarray(IDS))
  np.testing.assert_array_equal(found, script)
  np.testing.assert_allclose(cut.more['logit'], np.take_along_axis(expected, script[None], 0)[0], atol=1e-5)
  assert (np.bincount(script[IDS > 0]) > 2).all()


def test_marks_are_read_only_where_there_are_scripts():
  of = lambda spec: parts.parse('boundary', spec).marks
  assert of('gumbel') == of('supervised') == {}
  assert of('gumbel(scripts=latin+greek)') == {'script': 'only_scripts(of=latin+greek)'}
  assert of('supervised(scripts=latin+greek,others=greek)') == {'script': 'script'}


def test_flops_count_every_network():
  of = functools.partial(parts.Part.flops, sizes=SIZES, slots=10.0, chunks=2.0)
  one = of(parts.parse('boundary', 'gumbel(inner=5)'))
  assert one == 2 * 10 * (SIZES.width * 5 + 5) == of(parts.parse('boundary', 'supervised(inner=5)'))
  assert of(parts.parse('boundary', 'gumbel(inner=5,scripts=latin+greek)')) == 2 * one


@pytest.mark.parametrize(
  'spec, sentence',
  [
    ('gumbel(0)', 'boundary gumbel: temperature=0.0 must be a finite number above 0'),
    ('gumbel(evaluation=greedy)', "evaluation 'greedy' is not one of threshold, sample"),
    ('gumbel(activation=tanh)', "boundary gumbel: activation 'tanh' is not one of gelu, relu"),
    ('supervised(inner=-1)', 'boundary supervised: inner -1 must be an integer of at least 0'),
    (
      'gumbel(scripts=latin+klingon)',
      "boundary gumbel: 'klingon' is no script that text is marked with: there are latin",
    ),
    ('gumbel(scripts=latin+latin)', "scripts='latin\\+latin' names one twice"),
    ('gumbel(scripts=latin,others=greek)', "others='greek' is not one of scripts='latin'"),
    ('supervised(others=greek)', "others='greek' is not one of scripts=''"),
  ],
)
def test_options_that_cannot_be_are_one_sentence(spec, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    parts.parse('boundary', spec).build(SIZES, rngs=nnx.Rngs(0))
  assert '\n' not in str(error.value)
