"""The ratio loss by hand, its scopes and targets that move; the loss as a part of a stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hnet import parts
from hnet.parts import Cut
from hnet.parts.losses import Ratio, TargetSchedule, ratio_loss, ratio_loss_per_document
from layers.chunks import Level
from layers.contract import Context
from tests.layers.common import segment_ids


def by_hand(drawn, probability, target):
  return target / (target - 1) * ((1 - drawn) * (1 - probability) + (target - 1) * drawn * probability)


def case(seed=0):
  """Probabilities, boundaries and segment ids of rows with several documents and padding."""
  ids = segment_ids([9], [3, 4], [1, 1, 5], [2])
  rng = np.random.default_rng(seed)
  p = rng.uniform(0, 1, ids.shape).astype(np.float32)
  return p, p > 0.5, ids


@pytest.mark.parametrize('target', [1.5, 3, 6.0])
def test_one_at_the_target_and_more_beside_it(target):
  mask = np.ones((4, 60), bool)
  rate = lambda value: np.full((4, 60), value, np.float32)
  drawn = np.tile(np.arange(60) < 60 / target, (4, 1))
  np.testing.assert_allclose(ratio_loss(rate(1 / target), drawn, mask, target), 1.0, rtol=1e-6)
  everywhere, nowhere = (
    ratio_loss(rate(1.0), rate(1) > 0, mask, target),
    ratio_loss(rate(0.0), rate(0) > 0, mask, target),
  )
  np.testing.assert_allclose(everywhere, target, rtol=1e-6)
  np.testing.assert_allclose(nowhere, target / (target - 1), rtol=1e-6)


def test_padding_does_not_count():
  p, b, ids = case()
  real = ids > 0
  expected = by_hand(b[real].mean(), p[real].mean(), 3.0)
  np.testing.assert_allclose(ratio_loss(p, b, real, 3.0), expected, rtol=1e-6)
  garbage = np.where(real, p, np.nan).astype(np.float32)
  np.testing.assert_allclose(ratio_loss(garbage, b | ~real, real, 3.0), expected, rtol=1e-6)
  np.testing.assert_allclose(
    ratio_loss_per_document(garbage, b | ~real, ids, 3.0), ratio_loss_per_document(p, b, ids, 3.0)
  )


def test_each_document_has_its_own_rate():
  p, b, ids = case()
  losses = [
    by_hand(b[row][ids[row] == document].mean(), p[row][ids[row] == document].mean(), 3.0)
    for row in range(len(ids))
    for document in range(1, ids[row].max() + 1)
  ]
  np.testing.assert_allclose(ratio_loss_per_document(p, b, ids, 3.0), np.mean(losses), rtol=1e-6)


def test_one_document_a_batch_has_one_rate():
  p, b, _ = case()
  ids = np.ones(p[:1].shape, np.int32)
  ours, expected = ratio_loss_per_document(p[:1], b[:1], ids, 4.0), ratio_loss(p[:1], b[:1], ids > 0, 4.0)
  np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize('loss', [lambda *v: ratio_loss(*v[:2], v[2] > 0, v[3]), ratio_loss_per_document])
def test_only_padding_gives_a_finite_loss(loss):
  assert np.isfinite(loss(np.ones((2, 3), np.float32), np.zeros((2, 3), bool), np.zeros((2, 3), np.int32), 3.0))


def test_the_gradient_pulls_the_probabilities_and_not_the_drawn_boundaries():
  p, b, ids = case()
  gradient = jax.grad(lambda p: ratio_loss(p, (p > 0.5), ids > 0, 3.0))(p)
  # d/dG of N/(N-1) [(1-F)(1-G) + (N-1)FG] is N/(N-1) [N F - 1], spread over the real positions
  rate = b[ids > 0].mean()
  expected = np.where(ids > 0, 3 / 2 * (3 * rate - 1) / (ids > 0).sum(), 0)
  np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_targets_move_in_a_line_and_then_stay():
  schedule = TargetSchedule(2.0, 6.0, until=0.5)
  assert [float(schedule(jnp.float32(x))) for x in (0.0, 0.25, 0.5, 1.0)] == [2.0, 4.0, 6.0, 6.0]
  assert float(jax.jit(schedule)(0.125)) == 3.0
  assert TargetSchedule(5.0, 5.0)(0.3) == 5.0
  assert float(TargetSchedule(6.0, 2.0)(0.5)) == 4.0


def test_targets_may_be_held_before_they_move():
  schedule = TargetSchedule(5.0, 6.5, since=0.6)
  found = [float(schedule(jnp.float32(x))) for x in (0.0, 0.6, 0.60001, 0.8, 1.0)]
  np.testing.assert_allclose(found, [5.0, 5.0, 5.0, 5.75, 6.5], atol=1e-4)
  for since in (-0.1, 1.0, np.nan):
    with pytest.raises(ValueError, match='ratio_targets since .*: the ramp begins at 0 or later, and before until 1.0'):
      TargetSchedule(5.0, 6.5, since=since)


@pytest.mark.parametrize('values', [(1.0, 3.0), (3.0, 1.0), (0.0, 0.0), (-2.0, 3.0), (np.nan, 3.0), (3.0, np.inf)])
def test_a_target_of_one_or_less_is_refused(values):
  with pytest.raises(ValueError, match='ratio_targets .*must be above 1'):
    TargetSchedule(*values)


@pytest.mark.parametrize('until', [0.0, -1.0, 1.5, np.nan])
def test_a_ramp_ends_within_the_training(until):
  with pytest.raises(ValueError, match='ratio_targets until'):
    TargetSchedule(2.0, 3.0, until)


@pytest.mark.parametrize('target', [1, 0.5])
def test_the_losses_refuse_such_targets_too(target):
  p, b, ids = case()
  for call in (lambda: ratio_loss(p, b, ids > 0, target), lambda: ratio_loss_per_document(p, b, ids, target)):
    with pytest.raises(ValueError, match=f'ratio loss target {target}'):
      call()


def test_the_part_is_the_loss_of_its_scope_at_the_target_that_the_training_has_reached():
  """Its logits do not matter; padding and where it cuts do not count."""
  p, b, ids = case()
  cut, level = Cut(b, p, p * np.nan), Level.of_bytes(ids, {})
  of = lambda spec, progress=1.0: float(
    parts.parse('loss', spec).loss()(cut, level, None, Context(progress=jnp.float32(progress)))
  )
  assert of('ratio(3,scope=global)') == pytest.approx(float(ratio_loss(p, b, ids > 0, 3.0)))
  expected = float(ratio_loss_per_document(p, b, ids, 3.0))
  assert of('ratio(target=3,scope=per_document)') == pytest.approx(expected)
  for progress, target in ((0.0, 2.0), (0.25, 3.0), (0.5, 4.0), (1.0, 4.0)):
    moving = of('ratio(target=4,start=2,until=0.5,scope=global)', progress)
    assert moving == pytest.approx(float(ratio_loss(p, b, ids > 0, target)))
  held = float(ratio_loss(p, b, ids > 0, 3.0))
  assert of('ratio(target=4,start=2,since=0.5,scope=global)', 0.75) == pytest.approx(held)
  assert Ratio.name == 'ratio'


@pytest.mark.parametrize(
  'spec, sentence',
  [
    ('ratio(1,scope=global)', 'ratio_targets 1.0 -> 1.0: .* must be above 1'),
    ('ratio(3,start=0.5,scope=global)', 'ratio_targets 0.5 -> 3.0'),
    ('ratio(3,until=0,scope=global)', 'ratio_targets until 0.0'),
    ('ratio(3,scope=row)', "loss ratio: scope 'row' is not one of global, per_document"),
  ],
)
def test_options_of_the_part_that_cannot_be_are_one_sentence(spec, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    parts.parse('loss', spec).loss()
  assert '\n' not in str(error.value)
