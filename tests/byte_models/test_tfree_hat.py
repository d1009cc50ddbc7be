"""T-Free-HAT: what its loss may know, how it decodes, what it costs, what it refuses."""

import codecs

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from byte_models import tfree_hat
from byte_models.tfree_hat.words import locate, unfinished
from evaluation.generation import generate
from layers.paths import flatten
from tests.byte_models.capacities import assert_same_where_chunks_fit
from tests.byte_models.tiny_tfree_hat import abstract, branch, build
from text import marks
from text.batch import Batch
from text.marks import mark

codecs.register_error('tests.tfree_hat', lambda error: ('?', error.end))
CHARACTERS = st.sampled_from(
  [b'\xc2', b'\xe0', b'\xe4\xbd', b'\xed', b'\xa0', b'\x80', b'\xf0\x9f', b'\xf4\x90', b'\xff']
)
BYTES = st.lists(st.one_of(CHARACTERS, st.binary(max_size=4), st.text(max_size=3).map(str.encode)), max_size=12)

waiting = jax.jit(unfinished)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(BYTES.map(lambda pieces: (b'a' + b''.join(pieces))[:32]))
def test_a_character_is_unfinished_as_long_as_a_decoder_waits(text):
  batch = Batch.of([text], 32)
  expected = [end - codecs.utf_8_decode(text[:end], 'tests.tfree_hat', False)[1] for end in range(1, len(text) + 1)]
  found = np.asarray(waiting(batch.bytes, batch.segment_ids))[0]
  np.testing.assert_array_equal(found[: len(text)], expected)
  assert not found[len(text) :].any()


def test_characters_do_not_go_on_in_another_document():
  bytes_BxL = np.frombuffer(b'\xe4\xbd\xa0\xe4\xbd\xa0', np.uint8)[None]
  np.testing.assert_array_equal(unfinished(bytes_BxL, np.array([[1, 1, 1, 1, 1, 1]])), [[1, 2, 0, 1, 2, 0]])
  np.testing.assert_array_equal(unfinished(bytes_BxL, np.array([[1, 2, 2, 2, 3, 0]])), [[1, 0, 0, 1, 0, 0]])


def test_a_vector_is_delivered_with_the_last_byte_of_the_first_character():
  batch = mark(Batch.of(['a\xa0b 你'.encode()]), {'words': 'hat'})
  words_of = jax.jit(locate, static_argnums=3)
  place = lambda delivery: list(np.asarray(words_of(*jax.tree.leaves(batch), delivery).delivered_BxL)[0])
  assert list(batch.marks['words'][0]) == [True, True, False, True, True, False, False, False]
  assert place('published') == [0, 1, 1, 2, 3, 3, 3, 3]
  assert place('causal') == [0, 0, 1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize('delivery', ['causal', 'published'])
def test_only_the_published_delivery_tells_a_byte_what_follows_it(delivery):
  """'a\\xa0b' and 'aµb' begin with the same two bytes, and the second byte begins a word in the first text only."""
  model = build(delivery=delivery)
  batch = mark(Batch.of(['xa\xa0b'.encode(), 'xaµb'.encode()]), model.marks)
  output = jax.device_get(jax.jit(lambda model, batch: model(batch))(model, batch))
  np.testing.assert_array_equal(batch.bytes[0, :3], batch.bytes[1, :3])
  np.testing.assert_array_equal(output.logits[0, :2], output.logits[1, :2])
  assert np.allclose(output.logits[0, 2], output.logits[1, 2], atol=1e-5) == (delivery == 'causal')


ALPHABET = [
  'a',
  'B',
  '1',
  ' ',
  '\n',
  '.',
  "'",
  '⁄',
  '\u202f',
  '\u0301',
  '\u200d',
  '🇩',
  '👩',
  '你',
  'ア',
  'ก',
  '\xad',
  'é',
]
PIECES = st.one_of(st.sampled_from(ALPHABET).map(str.encode), CHARACTERS, st.just(b'x' * 9))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(PIECES, min_size=1, max_size=24).map(b''.join), st.booleans(), st.sampled_from([1, 3, 8]))
def test_starts_found_byte_by_byte_are_those_of_the_whole_text(text, has_bos, limit):
  specs, text = {'words': f'hat(max_bytes={limit})'}, b'\xfe' * has_bos + text.rstrip(b'\xff') + b'.'
  batch = mark(Batch.of([text], 256), specs)
  undecided = np.asarray(waiting(batch.bytes, batch.segment_ids))[0]
  found, decided = np.zeros(len(text), bool), 0
  (kind,), state = marks.parse(specs).values(), np.zeros(2, np.int32)
  for length in range(1, len(text) + 1):
    starts = kind.of_last(text[:length], has_bos, 4, state)
    now = length - undecided[length - 1]
    assert length - decided <= 4
    found[decided:now] = starts[4 - (length - decided) : 4 - (length - now)]
    decided = now
  np.testing.assert_array_equal(found, batch.marks['words'][0, : len(text)])


TEXTS = ['xa\xa0b 你好 𝒳yz — ok. 🙂🙃 é', 'Привет, мир! 1234567890123 の  カタカナ\n', 'a' * 21 + '日本語' * 4]


@pytest.mark.parametrize('delivery', ['causal', 'published'])
def test_steps_equal_the_parallel_form_where_characters_are_whole(delivery):
  """'causal': everywhere. 'published': but for the bytes inside a character that begins a word."""
  model = build(delivery=delivery, window=6)
  batch = mark(Batch.of([text.encode()[:44] for text in TEXTS]), model.marks)
  length_B, prompt = batch.segment_ids.sum(1), 9
  parallel = np.asarray(jax.jit(lambda model, batch: model(batch).logits)(model, batch))
  cache = model.init_cache(len(TEXTS), 44)
  logits, cache = jax.jit(lambda m, b, n, c: m.prefill(b, n, c))(
    model, jax.tree.map(lambda rows: rows[:, :prompt], batch), np.full(3, prompt), cache
  )
  step = jax.jit(lambda model, byte_B, cache: model.step(byte_B, cache))
  begun = np.maximum.accumulate(np.where(batch.marks['words'], np.arange(44), 0), 1)
  inside = np.asarray(waiting(batch.bytes, batch.segment_ids)) > np.arange(44) - begun
  for index in range(prompt - 1, 44):
    rows = (index < length_B) & ~(inside[:, index] & (delivery == 'published'))
    np.testing.assert_allclose(np.asarray(logits)[rows], parallel[rows, index], atol=1e-4, err_msg=str(index))
    logits, cache = step(model, batch.bytes[:, min(index + 1, 43)], cache)
  assert inside.any()
  assert np.isnan(logits).all()  # the last was one more than the cache has room for


def test_decoding_goes_on_after_bytes_that_are_not_text():
  """Empty prompts, prompts of one word, and models that say nothing of UTF-8: every row gets its bytes, no more."""
  model = build(delivery='published', window=5)
  prompts = [b'', b'Word', b'\xff\xfe\xc2', 'ok 你'.encode()[:-1]]
  texts = generate(model, prompts, 37, temperature=1.0, stop_at_eos=False)
  assert [len(text) for text in texts] == [37] * 4
  with pytest.raises(UnicodeDecodeError):
    b''.join(texts).decode()


def test_a_batch_without_words_is_split_eagerly_and_refused_under_tracing():
  model = abstract(branch())
  batch = Batch.of([b'one two three'])
  np.testing.assert_array_equal(model.locate(batch).starts_BxC, mark(batch, model.marks).marks['words'])
  with pytest.raises(ValueError, match=r"lacks the mark 'words' \(hat\(max_bytes=8\)\) under jax.jit"):
    jax.eval_shape(lambda model, batch: model(batch), model, batch)


def test_capacities_that_just_fit_and_memory_settings_compute_the_same():
  model, low = build(), build(remat=True, scan_layers=True)
  batch = mark(Batch.of([b'one two three four five six', b'7 8 9 a b c d e f g h i j k']), model.marks)
  assert_same_where_chunks_fit(model, batch, other=low)


def test_xla_counts_the_same_flops_at_full_capacity():
  """With room for every byte a word is one byte; sums over bytes of a word are not in the formulas."""
  wide = lambda **more: {
    'hidden_size': 256,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'intermediate_size': 768,
    **more,
  }
  config = tfree_hat.parse(
    {
      'encoder_config': wide(cross_attention_config={'num_attention_heads': 8}),
      'backbone_config': wide(hidden_size=512, num_attention_heads=8, num_key_value_heads=2),
      'decoder_config': wide(cross_attention_config={'num_attention_heads': 4}),
    }
  )
  model = jax.eval_shape(lambda: tfree_hat.build(config, rngs=nnx.Rngs(0)))
  batch = Batch(np.zeros((1, 64), np.uint8), np.ones((1, 64), np.int32), {'words': np.ones((1, 64), bool)})
  cost = jax.jit(lambda model, batch: model(batch).logits).lower(model, batch).compile().cost_analysis()
  assert cost['flops'] / 64 == pytest.approx(sum(model.flops_per_byte(64, [1.0]).values()), rel=0.07)


def test_costs_and_groups_follow_words():
  model = abstract(branch())
  base, longer = model.flops_per_byte(64, [2.0]), model.flops_per_byte(64, [4.0])
  assert {key for key in base if base[key] != longer[key]} == {'pool', 'main', 'guides'}
  assert model.flops_per_byte(64) == model.flops_per_byte(64, [5.0])
  assert {path.split('.')[0] for path in flatten(model) if model.stage_of(path)} == {'main'}
  assert (model.lr_multipliers(None), model.lr_multipliers('paper')) == ((1.0, 1.0), (1.0, 0.1))
  for wrong in ([1.0], [1.0, -1.0], 'eq11'):
    with pytest.raises(ValueError, match='lr_multipliers'):
      model.lr_multipliers(wrong)
  with pytest.raises(ValueError, match='bytes_per_chunk'):
    model.flops_per_byte(64, [2.0, 3.0])
  spared = {path for path in flatten(model) if not model.decays(path)}
  assert spared == {path for path in flatten(model) if path.endswith('scale')}


def test_norms_of_the_published_7b_are_counted():
  from configs import tfree_hat_8b

  model = abstract(tfree_hat_8b.get_config('norms').model.to_dict())
  assert sum(leaf.size for leaf in flatten(model).values()) == 7_192_507_136
  with pytest.raises(ValueError, match="takes no argument or 'norms'"):
    tfree_hat_8b.get_config('norm')


def changed(path, value):
  result = branch()
  *outer, last = path.split('.')
  inner = result
  for key in outer:
    inner = inner[key]
  inner[last] = value
  return result


@pytest.mark.parametrize(
  'path, value, message',
  [
    ('colour', 1, 'unknown config key model.colour'),
    ('encoder_config.colour', 1, 'unknown config key model.encoder_config.colour'),
    ('encoder_config', None, 'encoder_config is missing'),
    ('encoder_config.hidden_size', None, 'encoder_config.hidden_size is missing'),
    ('encoder_config.num_attention_heads', 3, 'num_attention_heads 3 does not divide hidden_size 16'),
    ('encoder_config.sliding_window', 0, 'sliding_window 0 must be an integer of at least 1'),
    ('encoder_config.cross_attention_config', None, 'cross_attention_config is missing'),
    (
      'encoder_config.cross_attention_config.num_attention_heads',
      2,
      'rotary table of the layers around it has 8; 4 heads fit',
    ),
    ('encoder_config.cross_attention_config.attention_num_kv_heads', 3, 'attention_num_kv_heads 3 does not divide'),
    ('encoder_config.cross_attention_config.hidden_size', 16, 'hidden_size 16 is not 32'),
    ('encoder_config.rope_scaling', {'rope_type': 'yarn'}, 'rope_scaling'),
    ('encoder_config.hidden_act', 'gelu', "hidden_act 'gelu': only 'silu' is supported"),
    ('decoder_config.hidden_size', 32, 'decoder_config.hidden_size 32 is not 16'),
    ('decoder_config.vocab_size', 300, 'vocab_size 300'),
    ('backbone_config.num_key_value_heads', 3, r'backbone_config\.num_key_value_heads 3 does not divide .* 4'),
    ('max_word_size', 0, 'max_word_size 0 must be an integer of at least 1'),
    ('words', 'tiktoken', "'tiktoken' is not known"),
    ('words', 'uax29', 'looks at the character after a word'),
    ('delivery', 'late', "delivery 'late' is not one of causal, published"),
    ('eos_token_id', 300, 'eos_token_id 300'),
    ('special_token_dict', ['a'], 'special_token_dict'),
    ('bytes_per_word', 0.5, 'a word has at least one byte'),
    ('fixed_capacity', [0.5], 'unknown config key model.fixed_capacity'),
    ('dtype', 'float64', "dtype 'float64' is not one of float32, bfloat16"),
    ('scan_layers', 1, 'scan_layers 1 must be True or False'),
  ],
)
def test_what_does_not_fit_is_named(path, value, message):
  with pytest.raises(ValueError, match=message):
    tfree_hat.parse(changed(path, value))
