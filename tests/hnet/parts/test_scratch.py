"""Scratch rows against loops, the model without them, and what must be refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax

import hnet
from hnet import parts
from hnet.flops import flops_per_byte
from layers.chunks import pick
from layers.contract import EVAL
from layers.paths import flatten, rebuild
from tests.hnet.parts.common import EMIT, IDS, build, cut_of, level_of
from tests.hnet.tiny import branch
from tests.hnet.tiny import build as build_model
from tests.layers.common import random, segment_ids
from text.batch import Batch

LAYOUT = ['m1', ['T2'], 't1']
DOCUMENTS = segment_ids([40], [17, 20])
BATCH = Batch(np.random.default_rng(0).integers(0, 256, DOCUMENTS.shape).astype(np.uint8), DOCUMENTS)
ALL, NONE = 'every(1)', 'every(1000)'


@functools.cache
def model_of(rows, boundary='cosine', window=-1):
  """The same parameters with other scratch rows; None: the option is not used."""
  chunking = {'boundary': boundary, 'unpool': 'repeat', 'losses': []} | ({'scratch': rows} if rows else {})
  return build_model(LAYOUT, chunking=chunking, window=window)


@functools.cache
def inside_of(rows, boundary='cosine', window=-1):
  """(scratch [B, M], what the main network makes of each row, where it stands, what slots get of it) of the stage."""
  model = model_of(rows, boundary, window)

  def run(model, batch):
    stage, level = model.backbone, model._level(batch)
    e = stage.encoder(model.embeddings[batch.bytes], level.segment_ids_BxC)
    cut, segments = stage._cut(e, level, EVAL)
    z = stage.inner(stage.pool(e, cut, segments), segments.inner, (), EVAL)[0]
    u = stage.unpool(z, cut, segments, None, None)
    return segments.inner.marks.get('scratch', jnp.zeros(z.shape[:2], bool)), z, segments.slot_BxM, u, cut.emit

  return jax.device_get(jax.jit(run)(model, BATCH))


@pytest.mark.parametrize('size', [1, 2, 3, 100])
def test_every_so_many_slots_of_a_chunk_by_a_loop(size):
  found = build('scratch', f'every({size})')(cut_of(), level_of(IDS))
  for row, t in np.ndindex(IDS.shape):
    start = max([s for s in range(t + 1) if EMIT[row, s]], default=0)
    assert found[row, t] == (IDS[row, t] > 0 and not EMIT[row, t] and (t - start) % size == 0)


def test_entropy_of_the_early_exit_decides():
  logits = 3 * random(*IDS.shape, 256)
  cut = dataclasses.replace(cut_of(), more={'early': jnp.asarray(logits)})
  log_p = log_softmax(logits.astype(np.float64), -1)
  entropy = -np.sum(np.exp(log_p) * log_p, -1)
  found = build('scratch', 'entropy(3.0)')(cut, level_of(IDS))
  np.testing.assert_array_equal(found, (entropy > 3.0) & ~EMIT & (IDS > 0))
  assert 0 < np.sum(found) < np.sum(~EMIT & (IDS > 0))


@pytest.mark.parametrize('window', [-1, 2])
def test_without_scratch_rows_it_is_the_model_that_has_no_such_option(window):
  run = jax.jit(lambda model, batch: model(batch))
  expected, found = (jax.device_get(run(model_of(rows, window=window), BATCH)) for rows in (None, NONE))
  np.testing.assert_array_equal(found.logits, expected.logits)
  np.testing.assert_array_equal(found.needed, expected.needed)
  found.stage_metrics[0].pop('rows_per_chunk')
  jax.tree.map(np.testing.assert_array_equal, found.stage_metrics, expected.stage_metrics)


@pytest.mark.parametrize('window', [-1, 2])
@pytest.mark.parametrize('rows', [ALL, 'every(2)'])
def test_no_scratch_row_changes_what_is_made_of_a_chunk_nor_of_another_scratch_row(rows, window):
  scratch, z, slot, u, emit = inside_of(rows, window=window)
  _, base_z, base_slot, base_u, _ = inside_of(None, window=window)
  _, all_z, all_slot, _, _ = inside_of(ALL, window=window)
  assert scratch.any()
  for row in range(len(slot)):
    at = {s: z[row, m] for m, s in enumerate(slot[row]) if s < slot.shape[1] and not scratch[row, m]}
    base = {s: base_z[row, m] for m, s in enumerate(base_slot[row]) if s < slot.shape[1]}
    assert at.keys() == base.keys() == set(np.flatnonzero(emit[row]))
    for s in at:
      np.testing.assert_allclose(at[s], base[s], atol=2e-5)
    for m in np.flatnonzero(scratch[row]):
      np.testing.assert_allclose(z[row, m], all_z[row, list(all_slot[row]).index(slot[row, m])], atol=2e-5)
  np.testing.assert_allclose(u[emit], base_u[emit], atol=2e-5)


def test_a_slot_gets_the_last_row_at_or_before_it_in_its_document():
  _, z, slot, u, _ = inside_of('every(2)')
  for row, t in zip(*np.nonzero(DOCUMENTS), strict=True):
    m = max(m for m, s in enumerate(slot[row]) if s <= t)
    np.testing.assert_array_equal(u[row, t], z[row, m, : u.shape[-1]])


@pytest.mark.parametrize('window', [-1, 1])
def test_a_scratch_row_is_the_last_chunk_of_a_text_that_ends_there(window):
  """The main network over the chunks up to the row, and a chunk more at its slot."""
  model, (scratch, z, slot, _, emit) = model_of(ALL, window=window), inside_of(ALL, window=window)
  level = model._level(BATCH)
  e = jax.jit(model.backbone.encoder)(model.embeddings[BATCH.bytes], level.segment_ids_BxC)
  main = jax.jit(model.backbone.inner.main)
  for row, t in ((0, 9), (0, 31), (1, 15), (1, 30)):
    first = np.flatnonzero(DOCUMENTS[row] == DOCUMENTS[row, t])[0]
    before = [s for s in range(first, t) if emit[row, s]]
    index = np.resize([*before, t], 40)
    g = model.backbone.pool._widened(pick(e[row : row + 1], index[None]))
    expected = main(g, np.ones((1, 40), np.int32))[0, len(before)]
    np.testing.assert_allclose(z[row, list(slot[row]).index(t)], expected, atol=2e-5)
  assert scratch.any()


def test_what_a_slot_gets_depends_on_its_own_bytes_with_a_row_at_each_and_on_its_chunks_first_without():
  """By slopes with respect to the encoder's states."""

  def slopes(rows):
    model = model_of(rows, 'stride(4)')
    stage, level = model.backbone, level_of(np.ones((1, 12), np.int32))

    def u(e):
      cut, segments = stage._cut(e, level, EVAL)
      z = stage.inner(stage.pool(e, cut, segments), segments.inner, (), EVAL)[0]
      return jnp.sum(stage.unpool(z, cut, segments, None, None)[0] * random(12, 32, seed=1), -1)

    return np.abs(jax.jit(jax.jacobian(u))(random(1, 12, 32)))[:, 0].sum(-1) > 1e-6

  t, s = np.indices((12, 12))
  chunks = (s % 4 == 0) & (s <= t)
  np.testing.assert_array_equal(slopes(None), chunks)
  np.testing.assert_array_equal(slopes('every(2)'), chunks | ((s % 4 == 2) & (s == t - t % 2)))
  np.testing.assert_array_equal(slopes(ALL), chunks | (s == t))


def test_flops_count_scratch_rows_and_meet_a_flat_main_network_with_one_at_every_byte():
  parsed = lambda **changes: hnet.parse(branch(LAYOUT, **changes))
  of = lambda boundary, rows: parsed(chunking={'boundary': boundary, 'scratch': rows})
  flat = flops_per_byte(parsed(chunking='hnet_pool(1)'), 64)['main']
  for boundary in ('stride(1)', 'stride(5)', 'space'):
    assert flops_per_byte(of(boundary, ALL), 64)['main'] == pytest.approx(flat)
  cost = lambda rows: flops_per_byte(of('stride(5)', rows), 64)
  assert cost(NONE) == flops_per_byte(parsed(chunking='hnet_pool(5)'), 64)
  assert cost('every(2)')['main'] == flops_per_byte(parsed(chunking='hnet_pool(5)'), 64, [5 / 3])['main']
  knob = [cost(f'every({size})')['main'] for size in (1, 2, 3, 5)]
  assert knob == sorted(knob, reverse=True) and knob[-1] == cost(NONE)['main']


@pytest.mark.parametrize('size', [1, 2, 3, 4])
@pytest.mark.parametrize('slots', [1, 4, 5, 5.25])
def test_rows_a_chunk_are_those_of_chunks_of_one_size_or_two(size, slots):
  few, share = int(slots), slots - int(slots)
  count = lambda length: sum(offset % size == 0 for offset in range(1, length))
  expected = (1 - share) * count(few) + share * count(few + 1)
  assert parts.parse('scratch', f'every({size})').make.rows(slots, size=size) == expected


def test_room_is_for_rows_of_both_kinds():
  model = hnet.build(hnet.parse(branch(LAYOUT, chunking='scratchpad(stride(5),every(2))')), rngs=nnx.Rngs(0))
  assert model.level_sizes() == model.level_sizes(fresh=True) == (5 / 3,)
  output = jax.jit(lambda model, batch: model(batch))(model, BATCH)
  assert output.stage_metrics[0]['bytes_per_chunk'] == pytest.approx(77 / 16)  # chunks of 8 x 5, 3 x 5 and 2, 4 x 5
  assert output.stage_metrics[0]['rows_per_chunk'] == pytest.approx(46 / 16) and output.needed[0] == 24


def test_parameters_do_not_hang_on_the_choice_of_rows():
  base = flatten(model_of(None))
  for rows in (ALL, 'every(2)'):
    other = flatten(rebuild(model_of(rows), base))
    assert other.keys() == base.keys()


@pytest.mark.parametrize(
  'changes, sentence',
  [
    ({'chunking': {'scratch': 'every(2)', 'unpool': 'ema'}}, 'unpool ema.* carries what one row gives on to the slots'),
    (
      {'chunking': {'boundary': 'sigmoid', 'scratch': 'every(2)', 'unpool': 'smoothed_repeat', 'losses': []}},
      'unpool smoothed_repeat.*use unpool cross or difference or repeat or scatter, or no scratch rows',
    ),
    (
      {'chunking': {'scratch': 'every(2)', 'pool': 'latent(heads=2)'}},
      'pool latent.* has no vector of a slot where no chunk starts, .*use pool first or smoothed_first',
    ),
    ({'chunking': {'scratch': 'entropy'}}, "scratch entropy.* needs 'early' of its boundary, .*use boundary bernoulli"),
    ({'chunking': {'scratch': 'every(0)'}}, 'scratch every: size 0 must be an integer of at least 1'),
    ({'chunking': {'scratch': 'some'}}, "scratch 'some' is not known: use one of entropy, every"),
    (
      {'chunking': {'boundary': 'bernoulli', 'losses': [], 'scratch': 'entropy(share=2.0)'}},
      'scratch entropy: share=2.0 of the slots must be from 0 to 1',
    ),
    (
      {'chunking': 'scratchpad', 'arch_layout': ['m1', ['T1m1'], 'm1']},
      "scratch every.* of stage 0: Mamba-2 in the main network 'T1m1' would pass scratch rows on to those behind them",
    ),
    ({'chunking': 'scratchpad', 'fixed_capacity': [0.5]}, 'with fixed_capacity 0.5 scratch rows would take the room'),
    (
      {**branch(['m1', ['t1', ['T1'], 't1'], 'm1']), 'chunking': 'scratchpad'},
      'scratch every.* of stage 0 needs the main network inside, and stage 1 cuts again: give it to that one',
    ),
    ({'chunking': {'boundary': 'mark(scratch)'}}, r"the mark 'scratch' \(fixed\(size=8\)\) has a name of ours"),
  ],
)
def test_what_does_not_go_with_scratch_rows_is_one_sentence(changes, sentence):
  with pytest.raises(ValueError, match=sentence) as error:
    hnet.parse({**branch(LAYOUT), **changes})
  assert '\n' not in str(error.value)


def test_the_stage_that_cuts_last_may_have_them():
  chunking = ['hnet_pool(2)', 'scratchpad(stride(2),every(1))']
  config = hnet.parse(branch(['m1', ['t1', ['T1'], 't1'], 'm1'], chunking=chunking))
  assert hnet.build(config, rngs=nnx.Rngs(0)).level_sizes() == (2.0, 2.0)
  assert [stage.scratch and stage.scratch.name for stage in config.stages] == [None, 'every(size=1)', None]
