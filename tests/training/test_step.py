import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import byte_models
import text
from text.marks import mark
from training import config as config_lib
from training import description, sharding, state
from training.optimizer import make_optimizer, parameter_groups
from training.step import NORM_DECAY, NORM_STEPS, make_step, read

WORDS = {'words': 'whitespace'}


def take_steps(config, batch, num_steps, start=lambda state: state):
  """[(state, metrics)] after each of `num_steps` steps on the same batch; start: changes the first state."""
  settings = config_lib.parse(config)
  model = description.abstract_model(settings.model)
  groups = parameter_groups(model, list(state.flatten(model)), settings.optimizer)
  optimizer = make_optimizer(settings.optimizer, settings.num_steps, *groups)

  def create():
    params = state.flatten(byte_models.build(byte_models.parse(settings.model), rngs=nnx.Rngs(0)))
    return state.create(params, optimizer.init, ema=settings.optimizer.ema > 0)

  mesh = sharding.make_mesh(settings)
  step = jax.jit(make_step(settings, model, optimizer, mesh, ()))
  taken = []
  with jax.set_mesh(mesh):
    train_state = start(jax.jit(create)())
    with jax.transfer_guard('disallow'):
      for _ in range(num_steps):
        train_state, metrics, _ = step(train_state, sharding.put_batch(batch, mesh))
        taken.append((train_state, read(metrics)))
  return taken


def first_step(config, batch):
  return take_steps(config, batch, 1)[0]


def ragged_batch() -> text.Batch:
  """8 rows of very different lengths, so that a mean of row or micro-batch means is not the mean over positions."""
  return text.Batch.of([bytes([text.BOS]) + b'abc de' * n + bytes([text.EOS]) for n in range(1, 9)])


@pytest.mark.parametrize('accumulate', [2, 8])
def test_accumulated_micro_batches_equal_the_whole_batch(make_config, accumulate):
  changes = {'model.dropout': 0.0, 'loss_weights.ratio': 0.0}
  whole, expected = first_step(make_config(**changes), ragged_batch())
  parts, found = first_step(make_config(**changes, **{'optimizer.accumulate': accumulate}), ragged_batch())
  for name in ('loss', 'bpb', 'eos_nats', 'gradient_norm', 'bytes'):
    assert found[name] == pytest.approx(expected[name], rel=1e-6), name
  # Adam's moments are the gradient; its first update is only the gradient's sign.
  moments = [state.flatten(each.opt_state) for each in (whole, parts)]
  for path in moments[0]:
    np.testing.assert_allclose(moments[1][path], moments[0][path], rtol=1e-4, atol=1e-9, err_msg=path)


def test_the_loss_is_nats_per_scored_position_plus_weighted_auxiliary_losses(make_config):
  _, plain = first_step(make_config(**{'model.dropout': 0.0, 'loss_weights.ratio': 0.0}), ragged_batch())
  _, heavy = first_step(make_config(**{'model.dropout': 0.0, 'loss_weights.ratio': 3.0}), ragged_batch())
  assert heavy['loss'] - plain['loss'] == pytest.approx(3.0 * plain['ratio_loss'], rel=1e-4)
  batch = ragged_batch()
  scored, ends = np.sum(batch.scored), np.sum(batch.ends)
  assert plain['bytes'] == np.sum(batch.segment_ids > 0)
  nats = plain['bpb'] * np.log(2) * (scored - ends) + plain['eos_nats'] * ends
  assert nats / scored == pytest.approx(plain['loss'], rel=1e-5)


def test_means_of_nothing_are_left_out(make_config):
  words_of = make_config(**{'model.words': 'whitespace'})
  _, metrics = first_step(words_of, mark(text.Batch.of([b'abcdef'] * 8), WORDS))
  assert 'eos_nats' not in metrics and 'bytes_per_word' not in metrics and metrics['bpb'] > 0
  _, metrics = first_step(words_of, mark(text.Batch.of([bytes([text.BOS, text.EOS])] * 8), WORDS))
  assert 'bpb' not in metrics and 'bytes_per_word' not in metrics and metrics['eos_nats'] > 0
  assert not metrics.keys() & {'text_bytes', 'ends', 'words'}


def test_no_metric_of_a_healthy_step_is_made_of_nan_or_inf(make_config):
  config = make_config(**{'model.words': 'whitespace', 'optimizer.skip_norm': 10.0, 'optimizer.ema': 0.9})
  batch = mark(text.Batch.of([b'abc', bytes([text.BOS, text.EOS]), b'', b'', b'', b'', b'', b'']), WORDS)
  with jax.debug_nans(True), jax.debug_infs(True):
    take_steps(config, batch, 2)


def test_a_byte_255_before_a_cut_is_text_and_no_end(make_config):
  config, rows = make_config(**{'loss_weights.ratio': 0.0}), text.Batch.of([b'abc\xff', b'\xfe\xff\xff'] * 4)
  cut = dataclasses.replace(rows, specials=np.zeros(rows.bytes.shape, bool))
  _, metrics = first_step(config, cut)
  assert 'eos_nats' not in metrics and metrics['bpb'] * np.log(2) == pytest.approx(metrics['loss'], rel=1e-6)
  ended = cut.specials.copy()
  ended[0, 3] = True
  _, with_one = first_step(config, dataclasses.replace(rows, specials=ended))
  scored = np.sum(rows.scored)
  assert with_one['loss'] == metrics['loss'] and with_one['bpb'] != metrics['bpb']
  nats = with_one['bpb'] * np.log(2) * (scored - 1) + with_one['eos_nats']
  assert nats / scored == pytest.approx(metrics['loss'], rel=1e-6)


@pytest.mark.parametrize('accumulate', [1, 4])
def test_marked_words_are_counted_over_all_micro_batches(make_config, accumulate):
  batch = mark(ragged_batch(), WORDS)
  _, metrics = first_step(make_config(**{'model.words': 'whitespace', 'optimizer.accumulate': accumulate}), batch)
  texts = [b'abc de' * n for n in range(1, 9)]
  assert metrics['bytes_per_word'] == pytest.approx(sum(map(len, texts)) / sum(len(t.split()) for t in texts))
  assert 'bytes_per_word' not in first_step(make_config(), ragged_batch())[1]


def test_an_auxiliary_loss_without_a_weight_is_named(make_config):
  with pytest.raises(ValueError, match=r'missing config key loss_weights\.ratio'):
    first_step(make_config(loss_weights={'other': 1.0}), ragged_batch())


def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(make_config):
  config = make_config(**{'model.poison': (0.05, 0.15), 'optimizer.ema': 0.9})  # steps 1 and 2 of 20
  (good, _), _, (bad, metrics), (again, good_metrics) = take_steps(config, ragged_batch(), 4)
  assert (int(bad.step), int(bad.skipped), int(bad.skipped_in_a_row)) == (3, 2, 2)
  assert np.isnan(metrics['loss']) and metrics['skipped'] == 2
  kept = [(each.params, each.opt_state, each.ema) for each in (good, bad)]
  jax.tree.map(np.testing.assert_array_equal, *kept)
  assert (int(again.skipped), int(again.skipped_in_a_row)) == (2, 0) and np.isfinite(good_metrics['loss'])


def after(step, usual):
  """A state `step` updates later, whose gradients had norms of which `usual` is the geometric mean."""
  log_norm = jnp.float32(np.log(usual) * (1 - NORM_DECAY**step))
  return lambda state: dataclasses.replace(state, step=jnp.int32(step), log_norm=log_norm)


def test_a_step_whose_gradient_explodes_is_left_out_once_it_is_known_what_is_usual(make_config):
  config = make_config(**{'optimizer.skip_norm': 10.0})
  norm = first_step(config, ragged_batch())[1]['gradient_norm']
  for step, factor, left_out in ((NORM_STEPS, 11.0, True), (NORM_STEPS, 9.0, False), (NORM_STEPS - 1, 11.0, False)):
    start = after(step, norm / factor)
    ((found, metrics),) = take_steps(config, ragged_batch(), 1, start)
    assert metrics['skipped'] == int(found.skipped_in_a_row) == left_out
    assert (found.log_norm == start(found).log_norm) == left_out and int(found.step) == step + 1
    moments = state.flatten(found.opt_state)
    assert all(np.any(value) != left_out for path, value in moments.items() if 'bias' in path)


def test_the_usual_norm_is_the_geometric_mean_of_the_good_ones(make_config):
  taken = take_steps(make_config(**{'model.poison': (0.05, 0.15)}), ragged_batch(), 5)
  norms = [metrics['gradient_norm'] for state, metrics in taken if not int(state.skipped_in_a_row)]
  weights = NORM_DECAY ** np.arange(len(norms))[::-1]
  expected = np.average(np.log(norms), weights=weights)
  found = taken[-1][0].log_norm / (1 - NORM_DECAY ** len(norms))
  assert len(norms) == 3 and found == pytest.approx(expected, rel=1e-5)


def test_the_average_follows_the_parameters(make_config):
  (once, _), (twice, _) = take_steps(make_config(**{'optimizer.ema': 0.999}), ragged_batch(), 2)
  expected = jax.tree.map(lambda average, new: (2 / 11) * average + (9 / 11) * new, once.ema, twice.params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), twice.ema, expected)
