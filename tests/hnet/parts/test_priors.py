"""Losses of predicted boundaries against loops over documents, closed forms and enumeration."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from hnet import parts, systems
from hnet.parts import Cut
from hnet.parts.base import Predicted
from hnet.parts.priors import entropies, spikes
from layers.contract import EVAL
from tests.hnet.parts.common import EMIT, IDS, ROWS, STARTS, level_of
from tests.layers.common import random

COUNTED = (IDS > 0) & ~STARTS
MARK = np.where(IDS % 2 == 1, 1, 3).astype(np.int8)  # a document has one script
SOFT = np.random.default_rng(3).random(IDS.shape).astype(np.float32)
LOGIT = random(*IDS.shape, seed=4)


def level(mark=MARK):
  found = level_of(IDS)
  return dataclasses.replace(found, marks=found.marks | {'script': jnp.asarray(mark)})


def value_and_slopes(spec, at=None):
  """(the loss, its gradient at `soft`)."""
  loss, here = parts.parse('loss', spec).loss(), level() if at is None else at
  run = lambda soft: loss(Cut(jnp.asarray(EMIT), soft, soft), here, None, EVAL)
  return jax.device_get(jax.jit(jax.value_and_grad(run))(SOFT))


def groups(scope='document', mark=None):
  """[(script, slots of a group)]."""
  found = []
  for row in range(ROWS):
    ids = np.ones_like(IDS[row]) if scope == 'row' else IDS[row]
    for n in np.unique(ids[COUNTED[row]]):
      for script in (0, 1):
        here = COUNTED[row] & (ids == n) & (script == (0 if mark is None else (mark[row] == 3)))
        if here.any():
          found.append((script, row, np.flatnonzero(here)))
  return found


def harmonic(n):
  return sum(1 / k for k in range(1, n + 1))


@pytest.mark.parametrize('scope', ['document', 'row'])
def test_binomial_is_minus_the_log_probability_and_its_slope_has_harmonic_numbers(scope):
  found, slopes = value_and_slopes(f'binomial(4,scope={scope})')
  expected, of_slots, slots = 0.0, np.zeros(IDS.shape), COUNTED.sum()
  for _, row, at in groups(scope):
    emitted, size = int(EMIT[row, at].sum()), len(at)
    expected -= binom.logpmf(emitted, size, 0.25)
    of_slots[row, at] = (harmonic(emitted) - harmonic(size - emitted) - np.log(0.25 / 0.75)) / slots
  np.testing.assert_allclose(found, expected / slots, rtol=1e-5)
  np.testing.assert_allclose(slopes, of_slots, atol=1e-6)
  whole, of_whole = value_and_slopes(f'binomial(4,per_slot=false,scope={scope})')
  np.testing.assert_allclose(whole, expected / len(groups(scope)), rtol=1e-5)
  np.testing.assert_allclose(of_whole, of_slots * slots / len(groups(scope)), atol=1e-5)
  assert not slopes[STARTS | (IDS == 0)].any()


@pytest.mark.parametrize('over', ['scripts', 'groups'])
def test_binomial_has_a_target_for_each_script_and_weighs_scripts_alike(over):
  found, _ = value_and_slopes(f'binomial(4+2.5,scripts=latin+cyrillic,over={over})')
  totals, slots = np.zeros(2), np.zeros(2)
  for script, row, at in groups(mark=MARK):
    totals[script] -= binom.logpmf(int(EMIT[row, at].sum()), len(at), 1 / (4, 2.5)[script])
    slots[script] += len(at)
  expected = np.mean(totals / slots) if over == 'scripts' else totals.sum() / slots.sum()
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  alone, _ = value_and_slopes('binomial(4+2.5,scripts=latin+cyrillic)', level(np.ones_like(MARK)))
  np.testing.assert_allclose(alone, value_and_slopes('binomial(4)')[0], rtol=1e-6)  # a script that does not occur


@pytest.mark.parametrize('deviations', [0, 1, 3])
def test_hinge_is_the_distance_to_a_band(deviations):
  spec = f'hinge(0.5+0.2,0.1+0.05,{deviations},scripts=latin+cyrillic)'
  found, slopes = value_and_slopes(spec)
  expected, of_slots, slots, sides = 0.0, np.zeros(IDS.shape), COUNTED.sum(), set()
  for script, row, at in groups(mark=MARK):
    rate, most = EMIT[row, at].mean(), (0.5, 0.2)[script]
    least = most - deviations * (0.1, 0.05)[script]
    side = int(rate > most) - int(rate < least)
    expected += len(at) * (max(rate - most, 0) + max(least - rate, 0))
    of_slots[row, at], sides = side / slots, sides | {side}
  np.testing.assert_allclose(found, expected / slots, rtol=1e-5)
  np.testing.assert_allclose(slopes, of_slots, atol=1e-7)
  assert len(sides) > 1


def test_losses_of_nothing_are_0():
  nothing = level_of(np.zeros_like(IDS))
  nothing = dataclasses.replace(nothing, marks=nothing.marks | {'script': jnp.asarray(MARK)})
  for spec in ('binomial', 'hinge', 'binomial(per_slot=false,scripts=latin+greek)'):
    value, slopes = value_and_slopes(spec, nothing)
    assert value == 0 and not slopes.any()


def predicted():
  return Predicted(jnp.asarray(3 * random(*IDS.shape, 11, seed=6)), None, None)


def spikes_of(left, entropy):
  """Slot by slot."""
  found = np.zeros(IDS.shape, bool)
  for row in range(ROWS):
    for t in np.flatnonzero(COUNTED[row]):
      before = [s for s in range(t - left, t) if s >= 0 and COUNTED[row, s] and IDS[row, s] == IDS[row, t]]
      found[row, t] = all(entropy[row, t] > entropy[row, s] for s in before)
  return found


@pytest.mark.parametrize('left', [1, 2, 5, 100])
def test_spikes_of_entropy_are_above_those_before_them(left):
  log_p = np.float64(jax.nn.log_softmax(predicted().logits_BxLxV))
  entropy = -(np.exp(log_p) * log_p).sum(-1)
  ours = entropies(predicted().logits_BxLxV, level())
  np.testing.assert_allclose(ours, entropy, atol=1e-5)
  np.testing.assert_array_equal(np.asarray(spikes(ours, IDS, left)) & COUNTED, spikes_of(left, entropy))


@pytest.mark.parametrize('of', ['logit', 'probability'])
@pytest.mark.parametrize('labels', ['spikes', 'pieces,by=fixed(size=3)'])
def test_bce_is_the_cross_entropy_of_labels_with_one_sigmoid_or_two(of, labels):
  loss, mark = (
    parts.parse('loss', f'bce(labels={labels},of={of})').loss(),
    np.random.default_rng(8).random(IDS.shape) < 0.3,
  )
  here = level()
  here = dataclasses.replace(here, marks=here.marks | {'pieces': jnp.asarray(mark)})
  cut = lambda logit: Cut(jnp.asarray(EMIT), SOFT, SOFT, {'logit': logit})
  value, slopes = jax.jit(jax.value_and_grad(lambda logit: loss(cut(logit), here, predicted(), EVAL)))(LOGIT)
  label = spikes_of(2, np.asarray(entropies(predicted().logits_BxLxV, here))) if labels == 'spikes' else mark
  p, slots = expit(np.float64(LOGIT)), COUNTED.sum()
  q = p if of == 'logit' else expit(p)
  nats = -np.where(label, np.log(q), np.log1p(-q))
  slope = (q - label) * (1 if of == 'logit' else p * (1 - p)) / slots
  np.testing.assert_allclose(value, nats[COUNTED].sum() / slots, rtol=1e-5)
  np.testing.assert_allclose(slopes, np.where(COUNTED, slope, 0), atol=1e-6)


def test_two_sigmoids_find_no_end_that_is_no_likelier_than_0_62():
  """Why one sigmoid is the default: what is least for labels that are 1 with probability q."""
  p = np.linspace(0.001, 0.999, 999)
  least = lambda q, predicted: p[np.argmin(-(q * np.log(predicted) + (1 - q) * np.log(1 - predicted)))]
  for q in (0.2, 0.45, 0.6, 0.65, 0.7):
    assert abs(least(q, p) - q) < 0.002
    assert (least(q, expit(p)) > 0.5) == (q > 0.62)
  assert least(0.45, expit(p)) == 0.001


def test_targets_are_those_that_training_watches():
  of = lambda spec: parts.parse('loss', spec).loss()
  assert of('binomial(4)').target.end == of('binomial(4+4,scripts=latin+greek)').target.end == 4
  assert of('binomial(4+3,scripts=latin+greek)').target is None
  assert of('binomial(scripts=latin)').marks is not None


@pytest.mark.parametrize(
  'spec, sentence',
  [
    ('binomial(1)', "loss binomial: target='1' is slots of a chunk and must be above 1"),
    ('binomial(many)', "loss binomial: target='many' must be a number, or one for each script with \\+ between"),
    ('binomial(nan)', "target='nan' is slots of a chunk"),
    ('binomial(3+4)', "target='3\\+4' has 2 numbers for scripts='': one each"),
    ('binomial(3+4+5,scripts=latin+greek)', 'has 3 numbers'),
    ('binomial(scope=batch)', "loss binomial: scope 'batch' is not one of document, row"),
    ('binomial(over=rows)', "loss binomial: over 'rows' is not one of scripts, groups"),
    ('binomial(scripts=elvish)', "loss binomial: 'elvish' is no script"),
    ('hinge(0)', "loss hinge: rate='0' is emissions a slot and must be in \\(0, 1\\]"),
    ('hinge(0.1,0.06,2)', "rate='0.1' less 2 times sigma='0.06' must be from 0 to the rate itself"),
    ('hinge(0.1,-0.06)', 'must be from 0 to the rate itself'),
    (
      'bce(labels=pieces)',
      "loss bce\\(labels=pieces,by=\\): labels are 'spikes', or the name of a mark and `by` its rule",
    ),
    ('bce(by=fixed)', 'labels=spikes,by=fixed'),
    ('bce(spikes_left=0)', 'loss bce: spikes_left 0 must be an integer of at least 1'),
    ('bce(of=p)', "loss bce: of 'p' is not one of logit, probability"),
  ],
)
def test_options_that_cannot_be_are_one_sentence(spec, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    parts.parse('loss', spec).loss()
  assert '\n' not in str(error.value)


def test_bce_needs_a_boundary_with_a_logit():
  with pytest.raises(
    ValueError, match="loss bce.* needs 'logit' of its boundary, .*: use boundary .*gumbel or supervised"
  ):
    systems.parse({'boundary': 'cosine', 'losses': ['bce']})
  assert systems.parse({'boundary': 'gumbel', 'pool': 'mean', 'losses': ['bce', 'binomial']})
