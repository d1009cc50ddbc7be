"""The oracles see what they are there to see: small models with one fault each, against one without."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evaluation import oracles
from layers.contract import ModelOutput, next_byte_nll
from text.batch import Batch

ROWS, LENGTH, PROMPT = 3, 12, 6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Model:
  """Logits are the byte itself, and a chunk starts at every even one; `fault` says what else they are made of."""

  fault: str = dataclasses.field(default='', metadata={'static': True})

  marks: typing.ClassVar = {}

  def logits(self, bytes_):
    logits = jax.nn.one_hot(bytes_, 256)
    return logits * jnp.nan if self.fault == 'nan' else logits

  def __call__(self, batch):
    bytes_ = jnp.asarray(batch.bytes)
    logits, starts = self.logits(bytes_), bytes_ % 2 == 0
    p = jnp.where(starts, 0.9, 0.1)
    if self.fault == 'sees the next byte':
      logits = logits.at[:, :-1].add(0.01 * logits[:, 1:])
    if self.fault == 'cuts by the next byte':
      starts = jnp.pad(starts[:, 1:], ((0, 0), (0, 1)))
    if self.fault == 'is surer of the next byte':
      p = p.at[:, :-1].add(0.01 * p[:, 1:])
    if self.fault == 'sees the document before':
      logits = logits + 0.01 * jnp.cumsum(bytes_, 1)[..., None]
    if self.fault == 'sees other rows':
      logits = logits + 0.01 * bytes_.sum(0, keepdims=True)[..., None]
    nll = jnp.asarray(next_byte_nll(logits, batch))
    if self.fault == 'has nats of its own':
      nll = nll + 0.01 * jnp.pad(bytes_[:, 1:], ((0, 0), (0, 1)))
    return ModelOutput(nll, logits, (starts,), (p,))

  def init_cache(self, rows, length):
    return jnp.zeros(rows)

  def prefill(self, batch, lengths, cache):
    last = jnp.take_along_axis(jnp.asarray(batch.bytes), lengths[:, None] - 1, 1)[:, 0]
    return self.logits(last), cache

  def step(self, byte, cache):
    logits = self.logits(byte)
    if self.fault == 'forgets in steps':
      logits = logits.at[:, 3].add(1.0)
    if self.fault == 'mixes rows in steps':
      logits = logits + 0.01 * jnp.sum(byte)
    return logits, cache


@functools.cache
def measured(fault):
  """(causality, streaming, isolation) of a model."""
  subject = oracles.Subject(Model(fault), LENGTH, PROMPT)
  rng = np.random.default_rng(0)
  rows = lambda: rng.integers(0, 250, (ROWS, LENGTH)).astype(np.uint8)
  batch = Batch(rows(), oracles.segment_ids([[12], [5, 4], []], LENGTH))
  documents = [row[:size] for row, size in zip(rows(), (4, 3, 5), strict=True)]
  return (
    oracles.causality(subject, batch, rows(), 6),
    oracles.streaming(subject, rows(), (1, 3, 6), 1, ROWS),
    oracles.isolation(subject, documents, (2, 0, 1), batch),
  )


def test_a_model_of_the_byte_alone_has_all_three_properties():
  for apart in measured(''):
    assert max(dataclasses.astuple(apart)) < 1e-5, apart


@pytest.mark.parametrize(
  ('fault', 'oracle', 'field'),
  [
    ('sees the next byte', 0, 'logits'),
    ('has nats of its own', 0, 'nats'),
    ('is surer of the next byte', 0, 'probabilities'),
    ('cuts by the next byte', 0, 'boundaries'),
    ('forgets in steps', 1, 'logits'),
    ('forgets in steps', 1, 'nats'),
    ('mixes rows in steps', 1, 'logits'),
    ('sees the document before', 2, 'logits'),
    ('sees other rows', 2, 'logits'),
  ],
)
def test_a_fault_is_seen(fault, oracle, field):
  assert getattr(measured(fault)[oracle], field) > 1e-3


def test_what_is_no_number_is_seen():
  assert all(np.isnan(apart.logits) for apart in measured('nan'))
