import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.bits_per_byte import evaluate
from evaluation.boundaries import _random, _score, boundary_scores, unit_starts
from evaluation.finite import NotFiniteError
from evaluation.segmentation import segment
from text import MemoryCorpus


def mask(length, at):
  starts = np.zeros(length, bool)
  starts[list(at)] = True
  return starts


def naive(chunks, units):
  """(precision, recall, f1, unit recall, unit f1) from per-document starts, with sets of spans."""
  counts = np.zeros(6)
  for chunk, unit in zip(chunks, units, strict=True):
    if not len(chunk):
      continue
    chunk, unit = ({0, *np.flatnonzero(starts).tolist()} for starts in (chunk, unit))
    spans = [set(itertools.pairwise([*sorted(starts), 'end'])) for starts in (chunk, unit)]
    counts += [len(chunk & unit) - 1, len(chunk) - 1, len(unit) - 1, len(spans[0] & spans[1]), len(chunk), len(unit)]
  hits, predicted, true, exact, chunks, units = counts
  ratio = lambda a, b: a / b if b else None
  return [
    ratio(hits, predicted),
    ratio(hits, true),
    ratio(2 * hits, predicted + true),
    exact / units,
    2 * exact / (chunks + units),
  ]


def values(score):
  return [score.precision, score.recall, score.f1, score.unit_recall, score.unit_f1]


PAIR = st.integers(0, 12).flatmap(
  lambda n: st.tuples(*(st.lists(st.booleans(), min_size=n, max_size=n) for _ in range(2)))
)


@settings(deadline=None, max_examples=200)
@given(st.lists(PAIR, min_size=1, max_size=5).filter(lambda pairs: any(chunk for chunk, _ in pairs)))
def test_scores_equal_sets_of_spans(pairs):
  chunks, units = ([np.array(side, bool) for side in column] for column in zip(*pairs, strict=True))
  first = [at for at, side in zip(np.cumsum([0, *map(len, chunks)])[:-1], chunks, strict=True) if len(side)]
  joined = [np.concatenate(side) for side in (chunks, units)]
  for side in joined:
    side[first] = True
  got = _score('x', *joined, np.array(first))
  assert values(got) == [share if share is None else pytest.approx(share) for share in naive(chunks, units)]
  assert got.bytes_per_chunk == len(joined[0]) / joined[0].sum()


def test_boundaries_of_nan_are_refused_with_the_document(two_byte_model):
  class Broken(two_byte_model):
    def __call__(self, batch, *, context=None, capacities=None):
      is_bad = jnp.asarray(batch.bytes) == 7
      return dataclasses.replace(super().__call__(batch), boundary_probabilities=(jnp.where(is_bad, jnp.nan, 0.5),))

  documents = [b'good', b'', b'two words\x07']
  model, starts = Broken(positional=False), [np.ones(len(document), bool) for document in documents]
  assert len(boundary_scores(model, documents[:1], starts[:1], seq_len=8, batch_size=2)) == 5
  for score in (boundary_scores, evaluate):
    texts = (documents, starts) if score is boundary_scores else (MemoryCorpus(documents),)
    with pytest.raises(NotFiniteError, match=r'not finite at byte 9 of document 2 of the text: .* another checkpoint'):
      score(model, *texts, seq_len=8, batch_size=2)
  with pytest.raises(NotFiniteError, match=r'boundary probabilities are not finite at byte 9 of text 2: '):
    segment(model, documents)
  assert len(segment(model, documents[:2])) == 2


def test_random_boundaries_score_what_is_expected_of_them():
  rng = np.random.default_rng(0)
  lengths = [40, 3, 25, 1]
  units = [mask(n, rng.choice(n, max(n // 4, 1), replace=False)) for n in lengths]
  first = np.cumsum([0, *lengths])[:-1]
  joined = np.concatenate(units)
  chunk = np.zeros_like(joined)
  inner = np.setdiff1d(np.arange(len(joined)), first)
  chunk[rng.choice(inner, 20, replace=False)] = True
  chunk[first] = joined[first] = True
  expected = _random('x', chunk, joined, first)
  hits = exact = 0
  for _ in range(20_000):
    drawn = rng.random(len(joined)) < 20 / len(inner)
    drawn[first] = True
    bounds = np.append(np.flatnonzero(joined), len(joined))
    marks = np.append(drawn, True)
    hits += int((drawn & joined).sum()) - len(first)
    inside = np.cumsum(np.append(0, drawn))
    exact += int((marks[bounds[:-1]] & marks[bounds[1:]] & (inside[bounds[1:]] - inside[bounds[:-1]] == 1)).sum())
  true = int(joined.sum()) - len(first)
  assert expected.recall == pytest.approx(20 / len(inner)) == pytest.approx(hits / 20_000 / true, rel=0.02)
  assert expected.precision == pytest.approx(true / len(inner))
  assert expected.f1 == pytest.approx(2 * hits / 20_000 / (true + 20), rel=0.02)
  assert expected.unit_recall == pytest.approx(exact / 20_000 / (true + len(first)), rel=0.03)


@pytest.mark.parametrize(('seq_len', 'batch_size'), [(512, 2), (16, 3)])
def test_the_chunks_are_the_models_and_rows_do_not_matter(two_byte_model, seq_len, batch_size):
  model, rng = two_byte_model(positional=False), np.random.default_rng(1)
  documents = [rng.integers(0, 256, n, np.uint8).tobytes() for n in (70, 1, 0, 33, 200)]
  units = [rng.random(len(document)) < 0.3 for document in documents]
  scores = boundary_scores(model, documents, units, seq_len=seq_len, batch_size=batch_size)
  names = ['every byte', 'stage 0', 'random like stage 0', 'stage 1', 'random like stage 1']
  assert [score.name for score in scores] == names
  of_documents = segment(model, documents)
  for stage in (0, 1):
    expected = naive([stages[stage] for stages in of_documents], units)
    np.testing.assert_allclose(values(scores[1 + 2 * stage]), expected, atol=1e-12)
    assert scores[2 + 2 * stage].bytes_per_chunk == pytest.approx(scores[1 + 2 * stage].bytes_per_chunk)
  everywhere = naive([np.ones(len(document), bool) for document in documents], units)
  np.testing.assert_allclose(values(scores[0]), everywhere, atol=1e-12)
  assert scores[0].recall == scores[0].bytes_per_chunk == 1


def test_a_perfect_model_scores_one(two_byte_model):
  model = two_byte_model(positional=False)
  documents = [bytes([7, 5, 7, 7, 25, 8, 10]), bytes([0, 1, 2])]
  units = [mask(7, (0, 1, 4, 6)), mask(3, (0,))]
  score = boundary_scores(model, documents, units, seq_len=32, batch_size=1)[1]
  assert values(score) == [1] * 5 and score.bytes_per_chunk == score.bytes_per_unit == 2


def test_boundaries_one_byte_on_by_hand_and_as_random_ones_are_expected_to():
  # ab|c|def|g and h|ij: one byte on are the d of "c|d" (a unit of its own, too), the e, and the j; behind g is no byte.
  true, chunk = mask(10, (0, 2, 3, 6, 7, 8)), mask(10, (0, 3, 4, 7, 9))
  score = _score('x', chunk, true, np.array([0, 7]))
  assert (score.precision_1, score.recall_1, score.f1_1) == (1, 1, 1) and score.precision == 1 / 3
  expected = _random('x', chunk, true, np.array([0, 7]))
  assert (expected.precision_1, expected.recall_1) == pytest.approx((3 / 8, 3 / 8))


def test_units_begin_at_their_first_bytes():
  units = ['中国'.encode(), b'a', 'é'.encode()]
  assert np.flatnonzero(unit_starts(units)).tolist() == [0, 6, 7] and len(unit_starts(units)) == 9


def test_what_cannot_be_scored_is_refused(two_byte_model):
  with pytest.raises(ValueError, match='no byte'):
    boundary_scores(None, [b''], [np.zeros(0, bool)], seq_len=8, batch_size=1)
  with pytest.raises(ValueError, match='one truth value per byte'):
    boundary_scores(None, [b'ab'], [np.zeros(3, bool)], seq_len=8, batch_size=1)
