"""The head that predicts each byte with whether a chunk ends there: what it pays for, what decoding and accuracy make
of it, and what a boundary that looks ahead must not pass on. Causality, streaming, isolation: tests/test_contract.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import byte_models
from evaluation.bits_per_byte import evaluate
from evaluation.generation import generate
from hnet import HNet
from hnet.fused import CONTINUES, FusedHNet
from hnet.parts import KINDS
from hnet.parts.ahead import CosineAhead
from hnet.parts.base import ENDS
from layers.paths import flatten, rebuild
from tests.byte_models import tiny_blt
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch, build
from text import BOS, EOS, Batch, MemoryCorpus, marks

PARTS = {'boundary': 'cosine_ahead', 'unpool': 'repeat', 'combine': 'linear', 'losses': ['bce(pieces,by=regex)']}
LAYOUT = ['t1', ['T1'], 't1']
TEXT = b'\xfeThe cat sat, on 12 mats.\n'
SIZE, LENGTH = len(TEXT), 32
SYMBOLS = np.frombuffer(TEXT, np.uint8).astype(int)


@jax.jit
def parallel(model, batch):
  output = HNet.__call__(model, batch)
  ends_BxL = jnp.pad(output.segmentations[0][:, 1:] & batch.scored[:, 1:], ((0, 0), (0, 1)))
  return output.logits, output.nll, ends_BxL


def rows_of(rows):
  """One document each, in a shape that all tests share."""
  return Batch.of([*rows, *[b''] * (LENGTH - len(rows))], LENGTH)


def run(model, rows, ends=None):
  """(logits of symbols, nll, ends) of each row; ends, [rows, LENGTH]: as given."""
  batch = rows_of(rows)
  if ends is not None:
    batch = dataclasses.replace(batch, marks={ENDS: np.pad(ends, ((0, LENGTH - len(rows)), (0, 0)))})
  return (np.asarray(values)[: len(rows)] for values in parallel(model, batch))


@pytest.fixture(scope='module')
def model():
  return build(LAYOUT, chunking=PARTS)


def test_the_nats_of_all_bytes_that_may_come_are_a_code(model):
  """Kraft's inequality, of `nll` alone: what the boundary decides by the byte in question is paid for with it. If the
  decision is given, both ways together are certain.
  """
  at, code, both, count = 12, 0.0, 0.0, 0
  for first in range(0, 256, LENGTH):
    rows = [TEXT[:at] + bytes([value]) for value in range(first, first + LENGTH)]
    _, nll, ends = run(model, rows)
    code, count = code + np.exp(-nll[:, at]).sum(), count + ends[:, at - 1].sum()
    for end in (False, True):
      _, nll, _ = run(model, rows, np.where(np.arange(LENGTH) == at - 1, end, ends))
      both += np.exp(-nll[:, at]).sum()
  assert 0 < count < 256 and 0 < code < 1
  np.testing.assert_allclose(both, 1, rtol=1e-5)


def test_the_nats_of_a_document_are_those_of_its_symbols_but_for_the_end_of_the_last(model):
  logits, nll, ends = run(model, [TEXT, TEXT[:9]])
  log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
  for row, size in enumerate((SIZE, 9)):
    at = np.arange(1, size)
    joint = log_p[row, at - 1]
    of_symbols = -joint[np.arange(size - 1), SYMBOLS[at] + 256 * ends[row, at]]
    of_last = -np.logaddexp(*joint[-1, SYMBOLS[size - 1] :: 256])
    np.testing.assert_allclose(nll[row].sum(), of_symbols[:-1].sum() + of_last, rtol=1e-5)


def test_with_the_ends_given_symbols_depend_on_what_was_paid_for_and_nothing_behind(model):
  rng = np.random.default_rng(0)
  expected, _, ends = run(model, [TEXT])
  np.testing.assert_allclose(next(run(model, [TEXT], ends)), expected, atol=1e-5)
  lasts = range(SIZE - 1)
  others = [TEXT[: last + 1] + rng.integers(0, 254, SIZE - last - 1, np.uint8).tobytes() for last in lasts]
  ends_too = np.where(np.arange(LENGTH) > np.array(lasts)[:, None], rng.random((SIZE - 1, LENGTH)) < 0.5, ends)
  found, _, _ = run(model, others, ends_too)
  for last in lasts:
    np.testing.assert_allclose(found[last, : last + 1], expected[0, : last + 1], atol=1e-5)


class Leaking(CosineAhead):
  """Passes on how sure it is, as a boundary that looks back may."""

  def __call__(self, e_BxCxD, level, context):
    cut = super().__call__(e_BxCxD, level, context)
    return cut if ENDS in level.marks else dataclasses.replace(cut, soft=jax.lax.stop_gradient(cut.p))


@pytest.mark.parametrize('parts', [{'pool': 'weighted_first'}, {'unpool': 'ema'}])
def test_parts_that_read_scores_get_the_decision_alone_and_would_tell_the_next_byte_of_a_score(monkeypatch, parts):
  monkeypatch.setitem(KINDS['boundary'], 'leaking', Leaking)
  apart = []
  for boundary in ('cosine_ahead', 'leaking'):
    model = build(LAYOUT, chunking={**PARTS, **parts, 'boundary': boundary})
    logits, _, ends = run(model, [TEXT])
    apart.append(np.max(np.abs(logits - next(run(model, [TEXT], ends)))))
  assert apart[0] < 1e-5 and apart[1] > 1e-3


def test_the_language_model_trains_neither_map_of_the_boundary_and_labels_both():
  model = build(LAYOUT, chunking='bolmo_chunker')
  batch = marks.mark(Batch.of([TEXT]), model.labels)

  @jax.jit
  def gradients(model):
    output, pull = jax.vjp(lambda model: (lambda o: (o.nll.sum(), o.aux_losses['bce']))(model(batch)), model)
    del output
    return pull((1.0, 0.0))[0], pull((0.0, 1.0))[0]

  of_text, of_labels = map(flatten, gradients(model))
  maps = [path for path in of_text if '.boundary.' in path]
  assert len(maps) == 2 and all(np.any(of_labels[path]) for path in maps)
  assert [path for path, leaf in of_text.items() if not np.any(leaf)] == maps
  assert not np.any(of_labels['lm_head.kernel'])


@pytest.fixture(scope='module')
def prompts(model):
  """Of every beginning of TEXT: what the boundary and what the head says of its last byte, logits from `prefill`."""
  rows = [TEXT[:size] for size in range(1, SIZE + 1)]
  lengths = np.pad(np.arange(1, SIZE + 1), (0, LENGTH - SIZE), constant_values=1)
  prefill = jax.jit(lambda model, batch, lengths: model.prefill(batch, lengths, model.init_cache(LENGTH, LENGTH))[0])
  logits, _, ends = (values[0] for values in run(model, [TEXT]))
  pairs = logits[np.arange(SIZE - 1)[:, None], SYMBOLS[1:, None] + [0, 256]]
  says = np.array([ends[0], *(pairs[:, 1] > pairs[:, 0])])
  return ends[:SIZE], says, np.asarray(prefill(model, rows_of(rows), lengths))[:SIZE]


def test_the_boundary_decides_of_a_prompt_and_the_head_of_its_last_byte(model, prompts):
  ends, says, found = prompts
  decided = np.pad(np.where(np.eye(SIZE, dtype=bool), says, ends), ((0, 0), (0, LENGTH - SIZE)))
  expected, _, _ = run(model, [TEXT[:size] for size in range(1, SIZE + 1)], decided)
  np.testing.assert_allclose(found, expected[np.arange(SIZE), np.arange(SIZE)], atol=1e-5)
  assert 0 < np.sum(says != ends) < SIZE


def test_greedy_decoding_of_the_text_before_writes_what_it_is_said_to(model, prompts):
  ends, says, found = prompts
  is_right, written, _, _ = (np.asarray(values) for values in jax.jit(FusedHNet.likeliest)(model, rows_of([TEXT])))
  would, known = found.argmax(-1)[:-1] % 256, (says == ends)[:-1]
  known[0] = True  # BOS ends a chunk, whatever the head says
  np.testing.assert_array_equal(written[0, 1:SIZE], np.where(known, would, CONTINUES))
  np.testing.assert_array_equal(is_right[0, 1:SIZE], known & (would == SYMBOLS[1:]))


def test_generation_draws_symbols_and_gives_bytes(model):
  prompt = TEXT[1:8]
  symbols = [BOS, *prompt]
  logits, _, ends = (values[0].copy() for values in run(model, [bytes(symbols)]))
  ends[len(prompt)] = logits[len(prompt) - 1, prompt[-1] + 256] > logits[len(prompt) - 1, prompt[-1]]
  while len(symbols) < LENGTH:
    logits, _, _ = run(model, [bytes(symbols)], ends[None])
    drawn = int(logits[0, len(symbols) - 1].argmax())
    ends[len(symbols)] = drawn >= 256
    symbols.append(drawn % 256)
  found = generate(model, [prompt], LENGTH - 1 - len(prompt), temperature=0, stop_at_eos=False)
  assert found == [bytes(symbols[1 + len(prompt) :])] and 0 < sum(ends[len(prompt) :]) < LENGTH - len(prompt)


@pytest.mark.parametrize('end', [0, 256])
def test_an_end_of_the_document_is_one_whether_a_chunk_ends_there_or_not(model, end):
  logits, _, _ = run(model, [TEXT])
  flat = flatten(model)
  kernel = np.zeros(flat['lm_head.kernel'].shape, np.float32)
  kernel[:, EOS + end] = np.asarray(flat['lm_head.kernel'])[:, 7] * np.sign(logits[0, SIZE - 1, 7])
  certain = rebuild(model, {**flat, 'lm_head.kernel': jnp.asarray(kernel)})
  assert generate(certain, [TEXT[1:]], 5, temperature=0) == [b'']


def test_the_nats_of_a_byte_do_not_depend_on_where_its_row_ends(model):
  """So rows that repeat what came before pay once for what is decided where they are cut."""
  _, nll, _ = run(model, [TEXT[:size] for size in range(1, SIZE + 1)])
  for size in range(1, SIZE):
    np.testing.assert_allclose(nll[size - 1, :size], nll[-1, :size], atol=1e-5)
  whole = evaluate(model, MemoryCorpus([TEXT[1:]]), seq_len=LENGTH, batch_size=LENGTH)
  np.testing.assert_allclose(whole.bits_per_byte, nll[-1].sum() / np.log(2) / (SIZE - 1), rtol=1e-5)


@pytest.mark.parametrize(
  'layout, changes, message',
  [
    (TWO_STAGE, {}, 'reads 1 slots behind its own, .* 2 stages cut, write an arch_layout with one, such as'),
    (ONE_STAGE, {'tie_embeddings': True}, 'tie_embeddings: .* two rows for each byte: write False'),
    (ONE_STAGE, {'chunking': {**PARTS, 'losses': ['bce(ends,by=regex)']}}, "the mark 'ends' .* has a name of ours"),
    (ONE_STAGE, {'chunking': {'boundary': 'cosine_ahead'}}, 'gets no gradient .* name the losses'),
  ],
)
def test_what_the_head_cannot_tell_is_one_sentence(layout, changes, message):
  with pytest.raises(ValueError, match=message) as error:
    byte_models.parse(branch(layout, **{'chunking': PARTS, **changes}))
  assert '\n' not in str(error.value)


def test_blt_has_no_such_head():
  with pytest.raises(ValueError, match='cosine_ahead reads the slot behind its own, .* or the family hnet'):
    byte_models.parse(tiny_blt.branch(boundary='cosine_ahead', losses=('bce',)))
