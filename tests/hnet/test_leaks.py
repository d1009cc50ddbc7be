"""What may not decide a boundary or stand in a chunk, and that the oracle of causality finds it.

A boundary that counts, sorts or limits over its whole row is known to no prefix of it; a pool that reads an open chunk
to its end tells every slot of the chunk what comes.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import byte_models
from evaluation import oracles
from hnet.parts import KINDS
from hnet.parts.boundaries import Cosine
from hnet.parts.pools import First
from layers import segments
from tests.hnet.tiny import branch
from text.batch import Batch

ROWS, LENGTH = 4, 32


class Chosen(Cosine):
  """The cosine's probabilities, and an emission that needs all of a row."""

  def __call__(self, e_BxCxD, level, context):
    cut = super().__call__(e_BxCxD, level, context)
    emit_BxC = self.choose(cut.p) | segments.starts(level.segment_ids_BxC)
    return dataclasses.replace(cut, emit=emit_BxC & level.valid)


class TopK(Chosen):
  """The eight most probable slots (ByteFlow as published does so)."""

  def choose(self, p_BxC):
    return p_BxC >= jax.lax.top_k(p_BxC, 8)[0][:, -1:]


class Quantile(Chosen):
  """The upper quarter of a row."""

  def choose(self, p_BxC):
    return p_BxC >= jnp.quantile(p_BxC, 0.75, axis=1, keepdims=True)


class Bounded(Chosen):
  """p > 1/2, but of more than six the most probable."""

  def choose(self, p_BxC):
    return (p_BxC > 0.5) & (p_BxC >= jax.lax.top_k(p_BxC, 6)[0][:, -1:])


class WholeChunk(First):
  """A softmax over the slots of a chunk by the sum of their channels, put where the chunk starts."""

  def __call__(self, e_BxCxD, cut, segments):
    capacity = segments.slot_BxM.shape[1]
    inside_BxMxC = segments.index_BxC[:, None] == jnp.arange(capacity)[None, :, None]
    scores_BxMxC = jnp.where(inside_BxMxC, jnp.sum(e_BxCxD, -1)[:, None], -1e9)
    pooled_BxMxD = jnp.einsum('bmc,bcd->bmd', jax.nn.softmax(scores_BxMxC, -1), e_BxCxD)
    return self._widened(jnp.where(segments.inner.valid[..., None], pooled_BxMxD, 0))


def worst(chunking):
  """The largest differences that later bytes make before them, in rows whose probable slots they change in number."""
  config = byte_models.parse(branch(['t1', ['t1'], 't1'], chunking=chunking))
  subject = oracles.Subject(oracles.informative(byte_models.build(config, rngs=nnx.Rngs(0))), LENGTH, LENGTH // 2)
  rng, ids, found = np.random.default_rng(0), np.ones((ROWS, LENGTH), np.int32), oracles.Apart()
  for last in (7, 15, 20, 27):
    ours, theirs = rng.integers(0, 256, (2, ROWS, LENGTH)).astype(np.uint8)
    theirs = np.where(np.arange(LENGTH) <= last, ours, theirs)
    probable = [subject(Batch(data, ids)).boundary_probabilities[0] > 0.5 for data in (ours, theirs)]
    assert np.any(probable[0].sum(1) != probable[1].sum(1))
    found |= oracles.causality(subject, Batch(ours, ids), theirs, last)
  assert subject.forward._cache_size() == 1
  return found


def test_a_causal_boundary_and_pool_change_nothing():
  found = worst({'boundary': 'cosine'})
  assert found.boundaries == 0 and max(found.logits, found.probabilities) < 1e-4


@pytest.mark.parametrize('boundary', [TopK, Quantile, Bounded])
def test_a_boundary_that_chooses_among_its_whole_row_is_found_by_its_mask(boundary, monkeypatch):
  name = {'TopK': 'top_k', 'Quantile': 'quantile', 'Bounded': 'bounded'}[boundary.__name__]
  monkeypatch.setitem(KINDS['boundary'], name, boundary)
  found = worst({'boundary': name})
  assert found.boundaries > 0 and found.probabilities < 1e-4  # its probabilities say nothing of it


def test_a_pool_over_the_whole_open_chunk_is_found_by_the_logits(monkeypatch):
  monkeypatch.setitem(KINDS['pool'], 'whole_chunk', WholeChunk)
  found = worst({'pool': 'whole_chunk'})
  assert found.boundaries == 0 and found.logits > 1e-2
