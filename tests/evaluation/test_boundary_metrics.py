"""Boundary metrics against closed forms, naive loops over documents, and a model whose marks a rule gives."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.bits_per_byte import evaluate
from evaluation.boundary_metrics import Agreement, BoundaryMetrics, Tally, measure_boundaries
from evaluation.flips import boundary_flips
from layers.contract import ByteModel, ModelOutput
from text import MemoryCorpus
from text.packing import evaluation_rows


def mask(length, at):
  starts = np.zeros(length, bool)
  starts[list(at)] = True
  return starts


def random_case(rng, lengths, rate=0.25):
  documents = [rng.integers(32, 127, n, np.uint8).tobytes() for n in lengths]
  nats = [rng.gamma(1.0, size=n) for n in lengths]
  starts = [rng.random(n) < rate for n in lengths]
  return documents, nats, starts


# --- Enrichment


@pytest.mark.parametrize('emits', ['starts', 'ends'])
@pytest.mark.parametrize('kind', ['stride', 'random'])
def test_boundaries_that_know_nothing_are_enriched_by_nothing(kind, emits):
  rng = np.random.default_rng(0)
  documents, nats, starts = random_case(rng, [4000, 700, 2500, 1], 0.2)
  if kind == 'stride':
    starts = [np.arange(len(document)) % 5 == 0 for document in documents]
  found = measure_boundaries(documents, nats, starts, emits=emits)
  for value, z in ((found.enrichment, found.enrichment_z), (found.enrichment_prev, found.enrichment_prev_z)):
    assert abs(z) < 3 and value == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('emits', ['starts', 'ends'])
def test_boundaries_at_the_hardest_bytes_reach_the_maximum(emits):
  """Nats −log u of a grid of u: the mean of the top tenth over the mean of all is (1 + ln 10) / 1 in the limit."""
  rng, size = np.random.default_rng(0), 50_000
  nats = rng.permutation(-np.log((np.arange(size) + 0.5) / size))
  hard = nats >= np.quantile(nats, 0.9)
  behind = dict(starts=np.append(hard[1:], False), ends=hard)[emits]
  found = measure_boundaries([b'x' * size], [nats], [behind], emits=emits)
  assert found.enrichment == pytest.approx(1 + math.log(10), rel=2e-3) and found.enrichment_z > 50
  assert abs(found.enrichment_prev_z) < 4
  at = dict(starts=hard, ends=np.append(False, hard[:-1]))[emits]
  found = measure_boundaries([b'x' * size], [nats], [at], emits=emits)
  assert found.enrichment_prev == pytest.approx(1 + math.log(10), rel=2e-3) and found.enrichment_prev_z > 50


def test_enrichment_has_no_unit_and_draws_nothing_anew():
  documents, nats, starts = random_case(np.random.default_rng(1), [300, 40, 7])
  found = measure_boundaries(documents, nats, starts)
  bits = measure_boundaries(documents, [n / math.log(2) for n in nats], starts)
  assert dataclasses.astuple(bits)[:4] == pytest.approx(dataclasses.astuple(found)[:4], rel=1e-9)
  assert measure_boundaries(documents, nats, starts) == found
  other = measure_boundaries(documents, nats, starts, seed=1)
  assert other.enrichment == found.enrichment and other.enrichment_z != found.enrichment_z


@pytest.mark.parametrize('starts', [[True] * 6, [False] * 6])
def test_boundaries_everywhere_or_nowhere_have_no_z(starts):
  nats = np.array([1.0, 2, 3, 4, 5, 6])
  found = measure_boundaries([b'abcdef'], [nats], [np.array(starts)])
  assert found.enrichment_z is found.enrichment_prev_z is None
  assert found.enrichment == found.enrichment_prev == (1 if starts[0] else None)
  found = measure_boundaries([b'a', b''], [np.ones(1), np.ones(0)], [np.ones(1, bool), np.ones(0, bool)])
  assert found.enrichment is None and found.bytes_per_chunk == 1 and found.whitespace_0.f1 is None


def test_shifts_keep_the_rate_inside_each_document():
  """Easy documents that are cut often beside hard ones that are cut seldom: far from 1, but not from the shifts."""
  rng = np.random.default_rng(2)
  documents, nats, starts = [], [], []
  for scale, rate in ((0.1, 0.5), (3.0, 0.05)) * 20:
    d, n, s = random_case(rng, [400], rate)
    documents, nats, starts = [*documents, *d], [*nats, n[0] * scale], [*starts, *s]
  found = measure_boundaries(documents, nats, starts)
  assert found.enrichment < 0.5 and abs(found.enrichment_z) < 3


@pytest.mark.parametrize('stretch', [None, 16])
@pytest.mark.parametrize('emits', ['starts', 'ends'])
def test_z_is_that_of_all_rotations_of_every_document(emits, stretch, monkeypatch):
  if stretch:
    monkeypatch.setattr('evaluation.boundary_metrics.STRETCH', stretch)
  documents, nats, starts = random_case(np.random.default_rng(3), [60, 1, 25, 40])
  found = measure_boundaries(documents, nats, starts, emits=emits, shifts=40_000)
  for behind, z in ((1, found.enrichment_z), (0, found.enrichment_prev_z)):
    here = mean = variance = 0.0
    for n, b in zip(nats, starts, strict=True):
      all_values, all_emissions = (n[1:] if behind else n[:-1]), (b[1:] if emits == 'ends' else b[:-1])
      for at in range(0, len(all_values), stretch or 99):
        values, emission = (column[at : at + (stretch or 99)] for column in (all_values, all_emissions))
        rotations = [values[np.roll(emission, shift)].sum() for shift in range(len(values))]
        here, mean, variance = here + rotations[0], mean + np.mean(rotations), variance + np.var(rotations)
    assert z == pytest.approx((here - mean) / math.sqrt(variance), abs=0.02)


# --- Sizes, agreement


def test_sizes_of_a_stride_and_of_random_boundaries_vary_as_they_should():
  size = 1_000_000
  stride = measure_boundaries([b'x' * size], [np.ones(size)], [np.arange(size) % 5 == 0], shifts=1)
  assert (stride.bytes_per_chunk, stride.size_cv) == (5, 0) and stride.random_cv == pytest.approx(math.sqrt(0.8))
  for rate in (0.5, 0.2, 0.05):
    drawn = np.random.default_rng(0).random(size) < rate
    found = measure_boundaries([b'x' * size], [np.ones(size)], [drawn], shifts=1)
    assert found.size_cv == pytest.approx(math.sqrt(1 - rate), abs=0.02) == pytest.approx(found.random_cv, abs=0.02)


def test_a_documents_first_chunk_counts_and_none_goes_on_in_the_next():
  found = measure_boundaries([b'abcd', b'', b'ef', b'ghi'], *zip(*[(np.ones(n), mask(n, at)) for n, at in (
    (4, [3]), (0, []), (2, []), (3, [0, 2]))], strict=True))  # fmt: skip
  sizes = np.array([3, 1, 2, 2, 1])
  assert found.bytes_per_chunk == sizes.mean() and found.size_cv == pytest.approx(sizes.std() / sizes.mean())


def test_random_boundaries_agree_as_drawn_ones_do_on_average():
  rng = np.random.default_rng(0)
  lengths = [50, 9, 1, 30]
  documents = [rng.choice(np.frombuffer(b'ab \n', np.uint8), n).tobytes() for n in lengths]
  first = np.cumsum([0, *lengths])[:-1]
  inner = np.setdiff1d(np.arange(sum(lengths)), first)
  nats = [np.ones(n) for n in lengths]
  drawn, expected = [], None
  for _ in range(3000):
    starts = np.zeros(sum(lengths), bool)
    starts[rng.choice(inner, 20, replace=False)] = True
    found = measure_boundaries(documents, nats, np.split(starts, first[1:]), shifts=1)
    assert expected in (None, found.whitespace_1.random_f1)
    expected = found.whitespace_1.random_f1
    drawn.append([dataclasses.astuple(found.whitespace_0), dataclasses.astuple(found.whitespace_1)])
  for of_place in np.mean(drawn, 0):
    np.testing.assert_allclose(of_place[:3], of_place[3:], rtol=0.02)


def test_white_space_and_words_at_both_offsets_by_hand():
  text = b'It is.  No\nway'
  nats = np.ones(len(text))
  on = measure_boundaries([text], [nats], [mask(len(text), [2, 6, 7, 10])], splitter='whitespace(max_bytes=64)')
  assert dataclasses.astuple(on.whitespace_0)[:3] == (1, 1, 1)
  assert on.whitespace_0.random_precision == pytest.approx(4 / 13) == pytest.approx(on.whitespace_0.random_recall)
  assert dataclasses.astuple(on.whitespace_1)[:3] == dataclasses.astuple(on.words_0)[:3] == (0, 0, 0)
  first = measure_boundaries([text], [nats], [mask(len(text), [0, 3, 8, 9])], splitter='whitespace(max_bytes=64)')
  # Its words begin behind white space, at 3, 8 and 11; that at 0 is given.
  assert dataclasses.astuple(first.whitespace_1)[:3] == pytest.approx((2 / 3,) * 3)
  assert first.words_0 == first.whitespace_1 and dataclasses.astuple(first.words_1)[:2] == pytest.approx((1 / 3, 1 / 3))


# --- Characters


def test_boundaries_inside_characters_are_counted_by_script():
  text = 'aé中文Ж'.encode()  # a é é 中 中 中 文 文 文 Ж Ж
  starts = mask(len(text), [0, 1, 2, 3, 4, 8, 9])
  found = measure_boundaries([text], [np.ones(len(text))], [starts])
  assert found.inside_codepoint == 3 / 6 and found.random_inside_codepoint == 6 / 10
  of = {script.script: dataclasses.astuple(script)[1:] for script in found.scripts}
  assert of == {'latin': (2, 1 / 2, 1 / 3), 'cyrillic': (1, 0, 1 / 2), 'cjk': (3, 2 / 3, 4 / 6)}


@pytest.mark.parametrize(
  ('documents', 'inside'),
  [
    ([b'\x80\x80a'], []),  # continuation bytes of nothing
    (['é'.encode()[:1], 'é'.encode()[1:] + b'a'], []),  # of two documents
    (['한국'.encode()[:5]], [1, 2]),  # the second is not complete
    ([b'\xf0\x9f\x99\x82\x82'], [1, 2, 3]),
    ([b'\xed\xa0\x80'], []),  # a surrogate
    (['กา'.encode(), 'é'.encode()], [1, 2, 4, 5, 7]),
  ],
)
def test_only_a_byte_that_continues_a_character_is_inside_one(documents, inside):
  for at in range(len(b''.join(documents))):
    lengths = [len(document) for document in documents]
    starts = np.split(mask(sum(lengths), [at]), np.cumsum(lengths)[:-1])
    found = measure_boundaries(documents, [np.ones(n) for n in lengths], starts)
    assert found.inside_codepoint == (None if at in np.cumsum([0, *lengths]) else at in inside)


# --- All of it against a loop


def naive(documents, nats, starts, p, emits):
  """(fields of BoundaryMetrics that need no shifts) with plain loops."""
  after, prev, all_after, all_prev, sizes = [], [], [], [], []
  predicted = inside = size = hit = 0
  true, hits = [0, 0], [0, 0]
  entropy, decided, expected = [], [], []
  for document, n, b, of_p in zip(documents, nats, starts, p, strict=True):
    if not document:
      continue
    for e in range(len(document) - 1):
      all_after.append(n[e + 1])
      all_prev.append(n[e])
      if b[e + 1] if emits == 'ends' else b[e]:
        after.append(n[e + 1])
        prev.append(n[e])
    begins = [0, *(t for t in range(1, len(document)) if b[t]), len(document)]
    sizes += [end - begin for begin, end in itertools.pairwise(begins)]
    characters = document.decode('utf-8', 'surrogateescape')
    continues = [at > 0 for c in characters for at in range(len(c.encode('utf-8', 'surrogateescape')))]
    for t in range(1, len(document)):
      space = [document[t] in b' \t\n\v\f\r', document[t - 1] in b' \t\n\v\f\r' and document[t] not in b' \t\n\v\f\r']
      for offset in (0, 1):
        true[offset] += space[offset]
        hits[offset] += space[offset] and b[t]
      size, hit, predicted, inside = size + 1, hit + continues[t], predicted + b[t], inside + (b[t] and continues[t])
      entropy.append(sum(-q * math.log2(q) for q in (of_p[t], 1 - of_p[t]) if q > 0))
      decided.append(b[t])
      expected.append(of_p[t])
  share = lambda part, whole: part / whole if whole else None
  mean = lambda values: share(sum(values), len(values))
  return {
    'enrichment': np.mean(after) / np.mean(all_after) if after else None,
    'enrichment_prev': np.mean(prev) / np.mean(all_prev) if after else None,
    'bytes_per_chunk': np.mean(sizes),
    'size_cv': np.std(sizes) / np.mean(sizes),
    'whitespace_0': Agreement.of(hits[0], predicted, true[0], size),
    'whitespace_1': Agreement.of(hits[1], predicted, true[1], size),
    'inside_codepoint': share(inside, predicted),
    'random_inside_codepoint': share(hit, size),
    'entropy_bits': mean(entropy),
    'rate': mean(decided),
    'f_minus_g': None if not decided else mean(decided) - mean(expected),
  }


def check(found: BoundaryMetrics, expected):
  for name, value in expected.items():
    wanted = pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value
    assert getattr(found, name) == wanted, name


LETTERS = ['a', ' ', '\n', 'é', '中', '🙂', '\udc80', '\udcff']  # the last two are lone bytes
DOCUMENT = st.lists(st.sampled_from(LETTERS), max_size=25).map(lambda x: ''.join(x).encode('utf-8', 'surrogateescape'))


@settings(deadline=None, max_examples=100)
@given(
  st.lists(DOCUMENT, min_size=1, max_size=6).filter(any),
  st.integers(0, 2**31),
  st.sampled_from(['starts', 'ends']),
  st.integers(1, 40),
)
def test_counts_equal_a_loop_over_documents_whatever_comes_at_a_time(documents, seed, emits, step):
  rng = np.random.default_rng(seed)
  lengths = [len(document) for document in documents]
  nats = [rng.gamma(1.0, size=n) + 0.01 for n in lengths]
  p = [rng.choice([0.0, 0.3, 0.5, 0.9, 1.0], n) for n in lengths]
  starts = [of_document > 0.4 for of_document in p]
  found = measure_boundaries(documents, nats, starts, p, emits=emits)
  check(found, naive(documents, nats, starts, p, emits))
  tally, text = Tally(np.array(lengths), (emits,)), np.frombuffer(b''.join(documents), np.uint8)
  columns = [np.concatenate(column) for column in (nats, starts, p)]
  for at in range(0, len(text), step):
    n, b, of_p = (column[at : at + step] for column in columns)
    tally.add(text[at : at + step], n, (b,), (of_p,))
    tally._count()
  (again,) = tally.metrics()
  for name, value in dataclasses.asdict(found).items():
    other = dataclasses.asdict(again)[name]
    assert other == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), name


# --- Models


class Ruled(ByteModel):
  """Chunks where a byte is divisible by 5 (kind 'bytes'), or every 5 symbols of a row's documents ('positions')."""

  def __init__(self, kind, emits='starts'):
    self.emits = (emits,)
    self.kind, self.table = kind, nnx.Param(jnp.linspace(0.1, 3.0, 256))

  def __call__(self, batch, *, context=None, capacities=None):
    scored_BxL, bytes_BxL = jnp.asarray(batch.scored), jnp.asarray(batch.bytes, jnp.int32)
    index_1xL = jnp.arange(bytes_BxL.shape[1])[None]
    first_BxL = (jnp.asarray(batch.segment_ids) > 0) & ~scored_BxL
    position_BxL = index_1xL - jax.lax.cummax(jnp.where(first_BxL, index_1xL, 0), axis=1)
    number_BxL = {'bytes': bytes_BxL, 'positions': position_BxL}[self.kind]
    starts_BxL = ((number_BxL % 5 == 0) | first_BxL) & (jnp.asarray(batch.segment_ids) > 0)
    if self.emits == ('ends',):  # such a byte is the last of a chunk; the first of a segment is one by itself
      starts_BxL = jnp.pad(starts_BxL[:, :-1] & scored_BxL[:, 1:], ((0, 0), (1, 0))) | first_BxL
    p_BxL = jnp.where(starts_BxL, 0.75, 0.25)
    nll_BxL = jnp.where(scored_BxL, self.table[...][bytes_BxL], 0.0)
    return ModelOutput(nll_BxL, segmentations=(starts_BxL,), boundary_probabilities=(p_BxL,))


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any), st.sampled_from([16, 32]), st.integers(0, 99))
def test_documents_packed_in_rows_equal_a_loop_over_documents(lengths, seq_len, seed):
  rng = np.random.default_rng(seed)
  documents = [rng.choice(np.frombuffer('ab \né中\x05'.encode(), np.uint8), n).tobytes() for n in lengths]
  model = Ruled('bytes')
  (found,) = evaluate(model, MemoryCorpus(documents), seq_len=seq_len, batch_size=2).boundary_metrics
  values = [np.frombuffer(document, np.uint8) for document in documents]
  starts = [of_document % 5 == 0 for of_document in values]
  nats = [np.asarray(model.table[...], np.float64)[of_document] for of_document in values]
  p = [np.where(of_document, 0.75, 0.25) for of_document in starts]
  check(found, naive(documents, nats, starts, p, 'starts'))


def test_a_model_that_does_not_say_where_it_emits_has_no_enrichment(two_byte_model):
  result = evaluate(two_byte_model(positional=True), MemoryCorpus([b'some text']), seq_len=8, batch_size=1)
  assert [stage.enrichment for stage in result.boundary_metrics] == [None, None]
  assert [stage.entropy_bits for stage in result.boundary_metrics] == [None, None]
  assert result.boundary_metrics[0].bytes_per_chunk > 1


class TwoStages(ByteModel):
  """Stage 0 at even bytes; stage 1 looks at these alone, and takes those divisible by 4."""

  def __init__(self, emits):
    self.scale, self.emits = nnx.Param(jnp.ones(())), emits

  def __call__(self, batch, *, context=None, capacities=None):
    bytes_BxL, ids_BxL = jnp.asarray(batch.bytes, jnp.int32), jnp.asarray(batch.segment_ids)
    first_BxL = (ids_BxL > 0) & ~jnp.asarray(batch.scored)
    found = []
    for stage, kind in enumerate(self.emits):
      looks_BxL = (bytes_BxL % 2 == 0) | (stage == 0)
      emits_BxL = (bytes_BxL % (2, 4)[stage] == 0) | first_BxL
      p_BxL = jnp.where(looks_BxL, jnp.where(emits_BxL, 0.8, 0.3), 0.0)
      if kind == 'ends':
        emits_BxL, p_BxL = (jnp.roll(x, 1, 1) for x in (emits_BxL, p_BxL))
      found.append((emits_BxL, p_BxL))
    nll_BxL = jnp.where(jnp.asarray(batch.scored), self.scale[...], 0.0)
    return ModelOutput(nll_BxL, None, tuple(b for b, _ in found), tuple(p for _, p in found))


@pytest.mark.parametrize('outer', ['starts', 'ends'])
@pytest.mark.parametrize('inner', ['starts', 'ends'])
def test_a_stage_inside_is_measured_on_the_slots_that_it_has(outer, inner):
  document = bytes(np.random.default_rng(0).integers(0, 100, 400, np.uint8) * 2 + 1 - np.arange(400) % 2)
  result = evaluate(TwoStages((outer, inner)), MemoryCorpus([document]), seq_len=512, batch_size=1)
  values = np.frombuffer(document, np.uint8)[: -1 if 'ends' in (outer, inner) else None]
  slots = values[1 if inner == 'starts' else 0 :]
  slots = slots[slots % 2 == 0]
  expected = np.mean(slots % 4 == 0)
  found = result.boundary_metrics[1]
  assert found.rate == pytest.approx(expected, abs=0.01)
  assert found.f_minus_g == pytest.approx(expected * 0.2 - (1 - expected) * 0.3, abs=0.01)


# --- Flips


@pytest.mark.parametrize('emits', ['starts', 'ends'])
def test_marks_of_a_rule_over_bytes_do_not_flip_and_those_over_positions_all_do(emits):
  documents = [np.random.default_rng(0).integers(0, 250, n, np.uint8).tobytes() for n in (200, 3, 77, 8)]
  corpus = MemoryCorpus(documents)
  (still,) = boundary_flips(Ruled('bytes', emits), corpus, seq_len=33, batch_size=2)
  assert still.per_boundary == still.per_byte == 0 and still.bytes > 100
  (found,) = boundary_flips(Ruled('positions', emits), corpus, seq_len=33, batch_size=2)
  # Of 5 bytes one has a mark in the one row, and another one in the other.
  assert found.per_byte == pytest.approx(2 / 5, abs=0.05) and found.per_boundary == pytest.approx(2, abs=0.3)
  plan, later = evaluation_rows(corpus.lengths, 33), int(emits == 'ends')
  flips = boundaries = compared = 0
  for _, document, start, stop, _ in zip(*plan.pieces(np.arange(len(plan))), strict=True):
    for symbol in range(start + 2 + later, min(stop, len(documents[document]) + 1)) if start else ():
      marks = [(symbol - begin - later) % 5 == 0 for begin in (start, start + 1)]
      flips, boundaries, compared = flips + (marks[0] != marks[1]), boundaries + marks[0], compared + 1
  assert (found.bytes, found.flips) == (compared, flips) and found.per_boundary == flips / boundaries


def test_what_has_no_boundaries_that_could_flip_is_refused_or_empty(two_byte_model):
  class Flat(ByteModel):
    def __init__(self):
      self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, batch, *, context=None, capacities=None):
      return ModelOutput(jnp.where(batch.scored, self.scale[...], 0.0))

  with pytest.raises(ValueError, match='^the model has no stage that chunks: there are no boundaries that could flip$'):
    boundary_flips(Flat(), MemoryCorpus([b'long enough text']), seq_len=8, batch_size=1)
  assert evaluate(Flat(), MemoryCorpus([b'text']), seq_len=8, batch_size=1).boundary_metrics == ()
  (none,) = boundary_flips(Ruled('bytes'), MemoryCorpus([b'abc', b'd']), seq_len=16, batch_size=1)
  assert none.per_boundary is none.per_byte is None and none.bytes == 0


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'documents': [b'']}, 'hold no byte'),
    ({'nats': [np.ones(3)]}, 'every document needs its nats, one a byte'),
    ({'starts': [np.ones(1, bool)]}, 'every document needs its starts'),
    ({'probabilities': []}, 'every document needs its probabilities'),
    ({'emits': 'middles'}, "emits at 'middles': it has to be 'starts' or 'ends'"),
    ({'shifts': 0}, 'shifts must be at least 1, got 0'),
    ({'splitter': 'words'}, 'words'),
  ],
)
def test_bad_input_is_one_sentence(change, said):
  given_ = {'documents': [b'ab'], 'nats': [np.ones(2)], 'starts': [np.ones(2, bool)]} | change
  with pytest.raises(ValueError, match=said):
    measure_boundaries(given_.pop('documents'), given_.pop('nats'), given_.pop('starts'), **given_)


def test_documents_that_do_not_come_whole_are_an_error():
  tally = Tally(np.array([3, 2]), ('starts',))
  tally.add(np.zeros(4, np.uint8), np.ones(4), (np.ones(4, bool),), ())
  with pytest.raises(RuntimeError, match='1 documents are not complete, 1 bytes'):
    tally.metrics()
