"""The contract of every model family: causality, streaming, isolation, capacities, and what training needs of a model.

A family joins by adding a `model` branch to FAMILIES. Shapes are fixed, so each model compiles once for each form, and
hypothesis draws bytes, documents and prompt lengths.

Most models predict bytes: `logits` are one set a byte. Word models predict symbols, the bytes and the ends of words,
and token models tokens: they have no `logits`, but `symbol_logits`. Their bits are those of a text's symbols, so later
bytes may not change them as long as the symbols are the same; what a step predicts is compared symbol by symbol, and
the nats of the steps byte by byte.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

import byte_models
from evaluation import oracles
from hnet import HNet
from hnet.parts import KINDS
from hnet.parts.base import ENDS
from hnet.parts.boundaries import Cosine, SpaceLike, at_last, by_rule
from hnet.parts.coding import CodingRate
from layers import segments
from layers.contract import Model
from layers.paths import flatten, rebuild
from tests.byte_models import tiny_blt, tiny_tfree_hat, tiny_token_lm, tiny_word_ar
from tests.hnet.tiny import ONE_STAGE, TWO_STAGE, branch
from text import BOS, EOS, marks
from text.batch import Batch

# Entropies of what is not trained: of so many nats by its noise
_LM = 'layout=T1,width=32,mlp_width=64,heads=2,rotary=8,window=6'
ENTROPY = {'boundary': f'entropy(threshold=3.1,{_LM},most=5)', 'pool': 'first', 'unpool': 'repeat'}
ENTROPY_TOO = {
  'boundary': f'entropy(mode=both,threshold=2.5,add=0.1,{_LM},kv_heads=1,ids=blt)',
  'pool': 'first',
  'unpool': 'repeat',
}
FAMILIES = {
  'aunet3': branch(TWO_STAGE, chunking='aunet3', num_kv_heads=1, rotary_base=500.0, post_norm='head'),
  'ended_in_stride': branch(
    TWO_STAGE,
    chunking=[
      {'boundary': 'stride(3)', 'pool': 'concat(3)', 'unpool': 'indexed(embedding)'},
      {'boundary': 'ended(hat)', 'pool': 'concat(2)', 'unpool': 'indexed'},
    ],
  ),
  'blt': tiny_blt.branch(),
  'bolmo_chunker': branch(ONE_STAGE, chunking='bolmo_chunker'),
  'blt_reduce': tiny_blt.branch(cross_attn_encoder=False, cross_attn_decoder=False, downsampling_by_pooling='avg,max'),
  'entropy': branch(TWO_STAGE, chunking=[ENTROPY, ENTROPY_TOO]),
  'hnet_one_stage': branch(ONE_STAGE),
  'hnet_two_stage': branch(TWO_STAGE),
  'hnet_sliding_windows': branch(['t1', ['T1'], 't1m1'], window=[5, 2]),
  'hnet_isotropic_T': branch(['T2'], tie_embeddings=True),
  'hnet_isotropic_m': branch(['m2'], scan_layers=True),
  'hnet_space_in_weighted': branch(TWO_STAGE, chunking=['hnet_weighted', 'hnet_space']),
  'hnet_heads': branch(TWO_STAGE, heads=2, chunking=['hnet', 'dynamic_pooling(2)']),
  'hnet_script_in_stride': branch(TWO_STAGE, chunking=['hnet_pool(2)', {'boundary': 'script_change'}]),
  'byteflow_in_policy': branch(
    TWO_STAGE,
    post_norm=False,
    chunking=['policy_router(2)', 'byteflow_threshold(3,0.9,unpool=indexed(bin,size=2),combine=sum)'],
  ),
  'scratchpad': branch(['m1', ['T2'], 't1'], [-1, 2], chunking='scratchpad(cosine,every(2))', ratio_targets=3),
  'sombrero': branch(TWO_STAGE, chunking=['sombrero', 'sombrero(pool=first,unpool=smoothed_repeat)']),
  'spacebyte': branch(['T1', ['T1'], 'T1'], [9, -1], chunking='spacebyte', post_norm=False),
  'hnet_blt_in_cosine': branch(
    TWO_STAGE, chunking=['hnet', 'blt(heads=2)'], inputs=('hash_ngrams(sizes=2+5,rows=50)',)
  ),
  'hnet_words': branch(
    ['T1', ['m1'], 'T2'],
    chunking={
      'boundary': 'mark(words,by=fixed(size=3))',
      'pool': 'latent(heads=4,qk_norm=head)',
      'unpool': 'cross(heads=2)',
    },
  ),
  'hnet_cosine_before': branch(
    ['m1', ['t1', ['m1'], 't1'], 'm1'],
    chunking=[{'pool': 'latent(heads=2)', 'unpool': 'cross(heads=4)'}, {'pool': 'latent(heads=8)'}],
  ),
  'magnet_around_labels': branch(
    TWO_STAGE, chunking=['magnet(scripts=latin+digit,target=3+4,others=latin)', 'dynamic_pooling_entropy']
  ),
  'tfree_hat': tiny_tfree_hat.branch(window=5, kv_heads=1, qk_norm='head'),
  'token_lm': tiny_token_lm.branch(),
  **tiny_word_ar.KINDS,
}

ALONE = (
  'hnet_two_stage',
  'tfree_hat',
  'token_lm',
  'hat',
  'megabyte',
)  # also decoded one row at a time: a program of its own
ROWS, LENGTH, PROMPT, SHORT = 4, 48, 24, 16
LOGITS, PROBABILITIES = 1e-4, 1e-5  # tolerances of float32 sums in another order
drawn = functools.partial(settings, deadline=None, derandomize=True)

PIECES = st.one_of(
  st.binary(min_size=1, max_size=16),
  st.text(st.characters(codec='utf-8'), min_size=1, max_size=6).map(str.encode),
  st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(1, 40)),
  st.sampled_from(
    [b'\xfeThe cat sat, ', 'naïve café — '.encode(), '日本語。'.encode(), '🙂🙃'.encode(), b'f(x):\n    y = 1\n']
  ),
)


def texts(length):
  """Bytes of a fixed length: prose, UTF-8 of any script, repeated and arbitrary bytes."""
  pieces = st.lists(PIECES, min_size=1, max_size=8).map(b''.join)
  return pieces.map(lambda piece: np.frombuffer((piece * length)[:length], np.uint8))


ROWS_OF_TEXT = st.lists(texts(LENGTH), min_size=ROWS, max_size=ROWS).map(np.stack)
# Lengths of the documents of a row; what they do not fill is padding, which may be all of it.
DOCUMENTS = st.lists(st.integers(1, LENGTH), max_size=5).map(
  lambda lengths: [n for n, total in zip(lengths, np.cumsum(lengths), strict=True) if total <= LENGTH]
)


segment_ids = functools.partial(oracles.segment_ids, length=LENGTH)
IDS = st.lists(DOCUMENTS, min_size=ROWS, max_size=ROWS).map(segment_ids)
BATCHES = st.builds(Batch, ROWS_OF_TEXT, IDS)
EXAMPLE = Batch(
  np.random.default_rng(1).integers(0, 256, (ROWS, LENGTH)).astype(np.uint8),
  segment_ids([[LENGTH], [20, 28], [], [11, 1, 7]]),
)
BEGINNING = Batch(EXAMPLE.bytes, np.where(np.arange(LENGTH) < LENGTH // 2, EXAMPLE.segment_ids, 0))


class Subject(oracles.Subject):
  """A model of a family, and how its symbols and their bits follow from its parallel form where they are no bytes."""

  def __init__(self, model_branch, is_decoded_alone=False):
    self.make = lambda: byte_models.build(byte_models.parse(model_branch), rngs=nnx.Rngs(0))
    super().__init__(oracles.informative(self.make()), LENGTH, PROMPT)
    self.copies = 1 if is_decoded_alone else ROWS
    self.is_bytewise = jax.eval_shape(self.forward, self.model, self.marked(BEGINNING)).logits is not None
    if not self.is_bytewise and model_branch['family'] == 'word_ar':
      self.num_steps = 2 * LENGTH  # every byte may end a word
    self.symbol_logits = jax.jit(lambda model, batch: model.symbol_logits(batch))

  @functools.cached_property
  def of_beginning(self):
    """(capacities that just hold the chunks of BEGINNING, the model compiled for them)."""
    needed = tuple(map(int, self.forward(self.model, self.marked(BEGINNING)).needed))
    return needed, jax.jit(lambda model, batch: model(batch, capacities=needed))

  def __call__(self, batch):
    """The parallel form; redraws a batch where rounding could decide a boundary."""
    output = super().__call__(batch)
    for p in output.boundary_probabilities:
      assume(not np.any(np.abs(p - 0.5) < 1e-4))
    return output

  def chunks(self, batch, output):
    """Of each level, the least and the most that its fullest row may have. What reads before its chunk has none at a
    document's start; what emits at ends has one there, but maybe none for the last chunk, which may not end.
    """
    pools = [stage.pool.make for stage in self.model.config.stages[:-1]] if isinstance(self.model, HNet) else []
    without = [any(pool.reads == 'before' for pool in pools[: n + 1]) for n in range(len(output.segmentations))]
    documents = batch.segment_ids.max(1)
    emits = self.model.emits or ('starts',) * len(without)
    most = [b.sum(1) - documents * n for b, n in zip(output.segmentations, without, strict=True)]
    if isinstance(self.model, HNet) and len(most) == 1 and self.model.config.stages[0].scratch:
      most[0] += self.scratch_rows(output.segmentations[0], batch.segment_ids)
    least = [count - documents * (kind == 'ends') for count, kind in zip(most, emits, strict=True)]
    several = isinstance(self.model, HNet) and self.model.config.stages[0].heads > 1  # the output has those of one
    return [(low.max(), LENGTH if several else high.max()) for low, high in zip(least, most, strict=True)]

  def scratch_rows(self, starts_BxL, ids_BxL):
    """Of `every(size)`, in each row."""
    size = dict(self.model.config.stages[0].scratch.options)['size']
    count = np.zeros(len(ids_BxL), int)
    for row, t in zip(*np.nonzero(ids_BxL), strict=True):
      last = max(s for s in range(t + 1) if starts_BxL[row, s])
      count[row] += t > last and (t - last) % size == 0
    return count

  def steps(self, batch, output, prompts):
    if self.is_bytewise:
      return super().steps(batch, output, prompts)
    of_byte, of_end = jax.device_get(self.symbol_logits(self.model, batch))
    result = []
    for r in range(ROWS):
      symbols = tiny_word_ar.symbols_of(self.model, batch.bytes[r], output.segmentations[0][r], prompts[r])
      symbol, at, is_byte = (np.array(column) for column in zip(*symbols, strict=True))
      logits = of_byte[r, at] if of_end is None else np.where(is_byte[:, None], of_byte[r, at], of_end[r, at])
      result.append((symbol, at + ~is_byte, logits))
    return result

  def nats(self, batch, output):
    """What nll must be, by another calculation; nan where that says nothing."""
    if self.is_bytewise:
      log_p = log_softmax(output.logits[:, :-1], -1)
      nats = -np.take_along_axis(log_p, batch.bytes[:, 1:, None].astype(int), -1)[..., 0]
      return np.where(batch.scored, np.pad(nats, ((0, 0), (1, 0))), 0.0)
    nats = np.full(batch.bytes.shape, np.nan)
    documents = [(row, ids == n) for row, ids in enumerate(batch.segment_ids) for n in range(1, ids.max() + 1)]
    documents = [(row, where) for row, where in documents if where.sum() <= LENGTH // 2]
    for row, where in documents[-1:]:  # one, not long: the loop is slow
      starts = output.segmentations[0][row, where]
      nats[row, where] = tiny_word_ar.naive_nats(self.model, batch.bytes[row, where], starts)
    return nats


class FusedSubject(Subject):
  """Symbols are a byte and whether a chunk ends with it, which the parallel form knows by the next byte; so the nats of
  that count to the byte behind.
  """

  def marked(self, batch):
    """With labels, without which nothing trains the boundary."""
    return marks.mark(batch, self.model.marks | self.model.labels)

  def ends(self, batch, output):
    """In the parallel form; False of the last byte of a document."""
    return np.pad((output.segmentations[0] & batch.scored)[:, 1:], ((0, 0), (0, 1)))

  def prompts(self, batch, output):
    return dataclasses.replace(batch, marks={**batch.marks, ENDS: self.ends(batch, output)})

  def steps(self, batch, output, prompts):
    symbols = batch.bytes + 256 * self.ends(batch, output)
    logits = jax.device_get(self.symbol_logits(self.model, batch))
    places = [np.arange(n, n + self.num_steps) for n in prompts]
    return [(symbols[r, at], at, logits[r, at[0] - 1 : at[-1] + 1]) for r, at in enumerate(places)]

  def nats_of(self, symbol, at, log_p):
    """Those of the first byte need more: what the head says of the prompt's last."""
    of_symbol = -log_p[np.arange(len(symbol)), symbol]
    of_byte = -np.logaddexp(*(log_p[np.arange(len(symbol)), symbol % 256 + end] for end in (0, 256)))
    return at[1:], of_byte[1:] + (of_symbol - of_byte)[:-1]

  def nats(self, batch, output):
    """What the code of a document's beginning with one more byte is longer, whose end is not told yet."""
    log_p = log_softmax(jax.device_get(self.symbol_logits(self.model, batch))[:, :-1], -1)
    symbols, nats = batch.bytes + 256 * self.ends(batch, output), np.zeros(batch.bytes.shape)
    for row, ids in enumerate(batch.segment_ids):
      for n in range(1, ids.max() + 1):
        at = np.flatnonzero(ids == n)[1:]
        known = np.cumsum([0.0, *-log_p[row, at - 1, symbols[row, at]]])[:-1]
        last = -np.logaddexp(*(log_p[row, at - 1, symbols[row, at] % 256 + end] for end in (0, 256)))
        nats[row, at] = np.diff(known + last, prepend=0)
    return nats


class TokenSubject(Subject):
  """Symbols are the tokens of the text, each at its last byte; a prompt that ends inside one does not have it."""

  def steps(self, batch, output, prompts):
    of_token, result = jax.device_get(self.symbol_logits(self.model, batch)[0]), []
    for r, prompt in enumerate(prompts):
      at = prompt + np.flatnonzero(batch.marks['units'][r, prompt:] >= 0)[: self.num_steps]
      result.append((batch.marks['units'][r, at], at, of_token[r, at]))
    return result

  def nats(self, batch, output):
    return tiny_token_lm.naive_nats(self.model, self.marked(batch))


class ScriptChange(SpaceLike):
  """A chunk where the script of the text changes: a rule that reads a mark, at any depth."""

  @staticmethod
  def marks():
    return {'script': 'script'}

  def __call__(self, e_BxCxD, level, context):
    script_BxC = level.marks['script']
    emit_BxC = (script_BxC != jnp.roll(script_BxC, 1, 1)) | segments.starts(level.segment_ids_BxC)
    return by_rule(emit_BxC & level.valid)

  def init_cache(self, batch_size):
    return jnp.full(batch_size, -1, jnp.int8)  # nothing seen yet

  def after(self, e_BxCxD, cut, level):
    return jnp.where(level.count_B > 0, at_last(level.marks['script'], level), -1).astype(jnp.int8)

  def step(self, e_BxD, marks, active_B, cache):
    return by_rule((marks['script'] != cache) & active_B), jnp.where(active_B, marks['script'], cache)


@pytest.fixture(scope='module', params=FAMILIES)
def subject(request):
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(KINDS['boundary'], 'script_change', ScriptChange)
    made = {'bolmo_chunker': FusedSubject, 'token_lm': TokenSubject}.get(request.param, Subject)
    yield made(FAMILIES[request.param], request.param in ALONE)


def assert_together(apart):
  assert max(apart.logits, apart.nats) <= LOGITS and apart.probabilities <= PROBABILITIES, apart
  assert not np.isnan(dataclasses.astuple(apart)).any() and apart.boundaries == 0, apart


LATER_BYTES = {'batch': BATCHES, 'other': ROWS_OF_TEXT, 'last': st.integers(0, LENGTH - 2)}


@drawn(max_examples=25)
@given(**LATER_BYTES)
def test_causality_later_bytes_change_nothing_before_them(subject, batch, other, last):
  assert_together(oracles.causality(subject, batch, other, last))


class MostProbable(Cosine):
  """Chunks at the eight most probable slots of a row: which these are, no prefix of the row can know."""

  def __call__(self, e_BxCxD, level, context):
    cut = super().__call__(e_BxCxD, level, context)
    least_Bx1 = jax.lax.top_k(cut.p, 8)[0][:, -1:]
    return dataclasses.replace(cut, emit=(cut.p >= least_Bx1) & level.valid)


class MostAdded(CodingRate):
  """ByteFlow as it was published: the eight slots of a window that add most to the coding rate."""

  def __call__(self, e_BxCxD, level, context):
    cut = super().__call__(e_BxCxD, level, context)
    p = jnp.where(level.valid, cut.p, 0.0)
    return dataclasses.replace(cut, emit=(p >= jax.lax.top_k(p, 8)[0][:, -1:]) & level.valid)


@pytest.mark.parametrize('boundary', [MostProbable, MostAdded])
def test_causality_fails_for_a_boundary_that_chooses_among_the_whole_row(monkeypatch, boundary):
  monkeypatch.setitem(KINDS['boundary'], 'most', boundary)
  subject = Subject(branch(['t1', ['t1'], 't1'], chunking={'boundary': 'most', 'losses': ()}))

  @drawn(max_examples=25, phases=[Phase.generate], report_multiple_bugs=False)
  @given(**LATER_BYTES)
  def no_boundary_changes(batch, other, last):
    assert oracles.causality(subject, batch, other, last).boundaries == 0, 'boundaries'

  with pytest.raises(AssertionError, match='boundaries'):
    no_boundary_changes()


@drawn(max_examples=12)
@given(
  bytes_BxL=ROWS_OF_TEXT,
  prompts=st.lists(st.integers(1, PROMPT), min_size=ROWS, max_size=ROWS),
  begins=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
  row=st.integers(0, ROWS - 1),
)
def test_streaming_equals_the_parallel_form_in_a_batch_and_alone(subject, bytes_BxL, prompts, begins, row):
  bytes_BxL = np.where((np.arange(LENGTH) == 0) & np.array(begins)[:, None], BOS, bytes_BxL).astype(np.uint8)
  if subject.model.marks:  # what decoding takes for a byte in the text would be the document's end
    assume(not np.any(bytes_BxL[:, -1] == EOS))
  assert_together(oracles.streaming(subject, bytes_BxL, prompts, row, subject.copies))


@drawn(max_examples=12)
@given(
  documents=st.lists(texts(LENGTH), min_size=3, max_size=3),
  lengths=st.tuples(st.integers(1, SHORT), st.integers(1, SHORT)),
  place=st.permutations(range(3)),
  rest=BATCHES,
)
def test_isolation_packed_equals_padded_equals_alone(subject, documents, lengths, place, rest):
  documents = [document[:length] for document, length in zip(documents, (*lengths, SHORT), strict=True)]
  assert_together(oracles.isolation(subject, documents, place, rest))


@drawn(max_examples=10)
@given(batch=BATCHES)
def test_nll_is_that_of_the_logits_before_each_scored_byte_or_of_a_naive_loop_over_words(subject, batch):
  output = jax.device_get(subject.forward(subject.model, subject.marked(batch)))
  expected = subject.nats(batch, output)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(output))  # of rows without text, too
  is_known = ~np.isnan(expected)
  assert output.nll.dtype == np.float32
  np.testing.assert_array_equal(output.nll[~np.asarray(batch.scored)], 0)
  np.testing.assert_allclose(output.nll[is_known], expected[is_known], atol=1e-5 if subject.is_bytewise else LOGITS)
  starts = np.diff(batch.segment_ids, axis=1, prepend=0) * (batch.segment_ids > 0) > 0
  for b, p in zip(output.segmentations, output.boundary_probabilities, strict=True):
    assert b.dtype == bool and p.dtype == np.float32 and b.shape == p.shape == batch.bytes.shape
    assert not b[batch.segment_ids == 0].any() and b[starts].all()


@drawn(max_examples=6)
@given(batch=BATCHES)
@example(BEGINNING)
@example(EXAMPLE)
def test_capacities_that_hold_the_chunks_change_nothing_and_others_say_so(subject, batch):
  expected = subject(batch)
  bounds = subject.chunks(batch, expected)
  assert all(low <= n <= high for n, (low, high) in zip(expected.needed, bounds, strict=True))
  capacities, forward = subject.of_beginning
  if not capacities:
    return
  found = jax.device_get(forward(subject.model, subject.marked(batch)))
  fits = [count <= capacity for count, capacity in zip(expected.needed, capacities, strict=True)]
  known = fits.index(False) + 1 if False in fits else len(fits)  # behind the first level that overflows, none is
  assert found.needed[:known] == expected.needed[:known]
  assert np.isfinite(found.nll).all()
  if all(fits):
    assert_together(oracles.apart(found, expected))
    all_metrics = [(output.metrics, *output.stage_metrics) for output in (found, expected)]
    for ours, theirs in zip(*all_metrics, strict=True):
      for name in ours.keys() - {'fill'}:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=2e-6, err_msg=name)
  assert all(fits) or batch is not BEGINNING
  assert not all(fits) or batch is not EXAMPLE


def test_capacities_that_cannot_be_are_one_sentence(subject):
  batch = subject.marked(BEGINNING)
  levels = len(subject.of_beginning[0])
  wrong = [(8,) * (levels + 1), 8, [LENGTH + 1] * levels or 'none', [0] * levels or ['x'], [8.0] * levels or (None,)]
  for capacities in [*wrong, *([(8, 9)] if levels == 2 else [])]:
    with pytest.raises(ValueError, match=f'capacities .*: one for each of the {levels} levels inside, from 1') as error:
      jax.eval_shape(lambda model, given=capacities: model(batch, capacities=given), subject.model)
    assert '\n' not in str(error.value) and f'rows have {LENGTH} bytes' in str(error.value)


def test_the_drawn_models_have_something_to_say(subject):
  batch = subject.marked(EXAMPLE)
  output = subject.forward(subject.model, batch)
  logits = output.logits if subject.is_bytewise else subject.symbol_logits(subject.model, batch)[0]
  assert 0.3 < float(logits.std()) < 10
  for b in output.segmentations:
    assert 0.05 < float(b.mean()) < 0.9


def test_every_array_is_a_float32_parameter_and_has_a_gradient(subject):
  batch = subject.marked(EXAMPLE)

  def loss(model):
    output = model(batch)
    return jnp.sum(output.nll) / batch.scored.sum() + 0.03 * sum(output.aux_losses.values())

  gradient = flatten(jax.device_get(jax.jit(jax.grad(loss))(subject.model)))
  assert {leaf.dtype for leaf in flatten(subject.model).values()} == {jnp.dtype('float32')}
  assert all(np.isfinite(leaf).all() for leaf in gradient.values())
  assert [path for path, leaf in gradient.items() if np.any(leaf) != subject.model.trains(path)] == []


def test_models_of_one_configuration_share_one_compiled_program(subject):
  again = jax.eval_shape(subject.make)
  assert jax.tree.structure(again) == jax.tree.structure(subject.model)
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(again))
  other = rebuild(again, {path: 2 * leaf for path, leaf in flatten(subject.model).items()})
  batch = subject.marked(EXAMPLE)
  subject.forward(subject.model, batch)
  programs = subject.forward._cache_size()
  subject.forward(other, batch)
  assert subject.forward._cache_size() == programs


def test_parameters_and_costs_are_described(subject):
  model = subject.model
  assert isinstance(model, Model) and byte_models.backbone(model.config).path
  assert len(model.lr_multipliers(None)) == model.num_stages
  for path in flatten(model):
    assert 0 <= model.stage_of(path) < model.num_stages
    assert all(isinstance(model.decays(path, exempt), bool) for exempt in ('default', 'official'))
  costs = model.flops_per_byte(LENGTH, None)
  assert min(costs.values()) >= 0 and sum(costs.values()) > 0


def test_an_unknown_family_is_named():
  with pytest.raises(ValueError, match=r"model\.family 'nonsense' is not known; families: .*hnet"):
    byte_models.parse({'family': 'nonsense'})
