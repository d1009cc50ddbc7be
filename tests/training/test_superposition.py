"""Bags of bytes in the first part of a training, against plain loops and what their size 1 must be."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import training
from tests.hnet.tiny import ONE_STAGE, branch, build
from text.batch import Batch
from training import superposition
from training.trainer import Trainer

ROWS, LENGTH = 2, 24


def rows(sizes):
  ids = np.zeros((ROWS, LENGTH), np.int32)
  filled = np.repeat(np.arange(len(sizes)) + 1, sizes)[:LENGTH]
  ids[:, : len(filled)] = filled
  return Batch(np.random.default_rng(0).integers(0, 256, ids.shape).astype(np.uint8), ids)


BATCHES = st.lists(st.integers(1, 11), min_size=1, max_size=4).map(rows)
drawn = settings(deadline=None, derandomize=True, max_examples=30)


@drawn
@given(BATCHES, st.sampled_from([2, 3, 4]))
def test_a_bag_predicts_the_bytes_of_its_document_in_the_next(batch, size):
  bags = superposition.in_bags(batch, size)
  logits = np.random.default_rng(1).normal(size=(ROWS, LENGTH // size, 256))
  log_p, total, count = np.asarray(jax.nn.log_softmax(jnp.asarray(logits))), 0.0, 0
  for row in range(ROWS):
    for bag in range(LENGTH // size):
      ids, values = (x[row, bag * size : (bag + 1) * size] for x in (batch.segment_ids, batch.bytes))
      expected = [value if id_ == ids[0] else values[0] for id_, value in zip(ids, values, strict=True)]
      np.testing.assert_array_equal(bags.bags[row, bag], expected)
      assert (bags.bytes[row, bag], bags.segment_ids[row, bag]) == (values[0], ids[0])
      for place in range((bag + 1) * size, min((bag + 2) * size, LENGTH)):
        if batch.segment_ids[row, place] == ids[0] > 0:
          total, count = total - log_p[row, bag, batch.bytes[row, place]], count + 1
  assert int(superposition.scored(batch, size).sum()) == count
  np.testing.assert_allclose(superposition.nats(jnp.asarray(logits), batch, size), total, rtol=1e-5)


def test_a_uniform_model_has_ln_256_and_the_order_in_a_bag_does_not_matter():
  batch, size = rows([LENGTH]), 4
  logits = jnp.zeros((ROWS, LENGTH // size, 256))
  scored = superposition.scored(batch, size).sum()
  np.testing.assert_allclose(superposition.nats(logits, batch, size) / scored, np.log(256), rtol=1e-6)
  turned = Batch(batch.bytes.reshape(ROWS, -1, size)[..., ::-1].reshape(ROWS, LENGTH), batch.segment_ids)
  logits = jax.random.normal(jax.random.key(0), logits.shape)
  equal = (superposition.nats(logits, each, size) for each in (batch, turned))
  np.testing.assert_allclose(*equal, rtol=1e-6)


def test_bags_of_one_byte_are_the_plain_model():
  batch, model = rows([10, 9]), build(ONE_STAGE)
  run = jax.jit(lambda m, b: (m(b).logits, m(b).nll))
  (plain, nll), (bags, _) = (run(model, b) for b in (batch, superposition.in_bags(batch, 1)))
  np.testing.assert_array_equal(plain, bags)
  scored = batch.scored.sum()
  assert int(superposition.scored(batch, 1).sum()) == scored
  np.testing.assert_allclose(superposition.nats(bags, batch, 1), nll.sum(), rtol=1e-5)


@pytest.fixture
def config(make_config):
  return make_config(num_steps=6, seq_len=64) | {
    'superposition': {'size': 4, 'until': 0.5},
    'model': branch(ONE_STAGE),
    'loss_weights': {'ratio': 0.03},
    'log': {'every_steps': 1},
    'checkpoint': {'every_steps': 2, 'keep_latest': 9, 'keep_best': 0},
  }


def test_a_run_reads_bags_and_then_bytes_and_goes_on_bit_for_bit(config, tmp_path):
  config['optimizer']['accumulate'] = 2
  training.train(config, tmp_path)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert ['bpb' in line for line in lines] == [False] * 3 + [True] * 3
  first, last = lines[0], lines[-1]
  assert first['flops_per_byte'] < last['flops_per_byte'] / 2
  assert all(np.isfinite(line['loss']) for line in lines) and first['bytes_per_chunk_0'] >= 4  # a bag at least
  whole = training.load(tmp_path).model
  for step in (4, 6):
    shutil.rmtree(tmp_path / 'checkpoints' / str(step))
  training.train(config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, training.load(tmp_path).model, whole)


def test_what_does_not_fit_is_one_sentence(config, make_config):
  with pytest.raises(ValueError, match='size 5 does not divide seq_len 64'):
    Trainer.of(config | {'superposition': {'size': 5}})
  trainer = Trainer.of(make_config(seq_len=64) | {'superposition': {'size': 2}})
  with pytest.raises(ValueError, match="size 2: a model of family 'tiny' reads single bytes"):
    trainer.lower(trainer.abstract_state(), trainer.abstract_batch(), ())
