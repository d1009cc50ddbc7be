"""Token models: bits of bytes as a hand computation finds them, published weights, decoding, FLOPs, bad input."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file
from scipy.special import log_softmax
from tokenizers import Tokenizer, models

import byte_models
import training
from byte_models import llama, token_bits
from evaluation import bits_per_byte, generate, word_accuracy, word_counts
from evaluation.oracles import informative
from layers.paths import flatten
from tests.byte_models import tiny_token_lm
from tests.goldens import GOLDENS
from tests.text import tiny_subwords
from text import BOS, EOS, MemoryCorpus, tokens

PROBED = ' The cat, and 1234 x_y\t CAT’s\n(naïve);日本語の文章🙂🙃'  # what every tokenizer must be able to write
CHARACTERS = ''.join(dict.fromkeys(f'{PROBED}abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'))[:61]
DOCUMENT = '日本語の文章, naïve 🙂🙃 the towns'.encode() + b' \xff\xfe\xe6\x97 the\xf0\x9f\x99 cat'


@pytest.fixture(scope='module')
def model():
  return informative(byte_models.build(byte_models.parse(tiny_token_lm.branch()), rngs=nnx.Rngs(0)))


@pytest.fixture(scope='module')
def found():
  return tokens.parse(tokens.in_file(tiny_token_lm.tokenizer(), ''))


def evaluated(model, documents, seq_len=128, **options):
  return bits_per_byte.evaluate(model, MemoryCorpus(documents), seq_len=seq_len, batch_size=2, **options)


def test_bits_per_byte_are_nats_of_all_tokens_over_raw_bytes(model, found):
  """The public mistakes would count otherwise: U+FFFD of bytes that are no text, special tokens as text."""
  ids = found.tokenizer.encode(DOCUMENT).tolist()
  row = np.array([found.special(BOS), *ids, found.special(EOS)])
  logits = np.asarray(model.llama(row[None], jnp.ones((1, len(row)), jnp.int32))[0], np.float64)
  nats = -log_softmax(logits, -1)[np.arange(len(row) - 1), row[1:]]
  result = evaluated(model, [DOCUMENT])
  assert result.text_bytes == len(DOCUMENT) == sum(len(found.table[index]) for index in ids)
  assert result.bits_per_byte == pytest.approx(nats[:-1].sum() / math.log(2) / len(DOCUMENT), rel=1e-5)
  assert result.eos_bits == pytest.approx(nats[-1] / math.log(2), rel=1e-5)
  assert result.bytes_per_chunk[0] == len(DOCUMENT) / len(ids)
  decoded = sum(len(found.table[index].decode('utf-8', 'replace').encode()) for index in ids)
  assert decoded > len(DOCUMENT)  # what a harness has that asks a tokenizer for the text of single tokens


@pytest.mark.parametrize('seq_len', [2, 9, 40, 256])
def test_every_token_is_paid_for_once_whatever_the_rows_are(found, seq_len):
  """All tokens being equally likely, the text costs so many times the same."""
  model = byte_models.build(byte_models.parse(tiny_token_lm.branch(tie_word_embeddings=True)), rngs=nnx.Rngs(0))
  model = jax.tree.map(jnp.zeros_like, model)
  documents = [tiny_subwords.TEXT[:300], DOCUMENT, b'']
  result, count = evaluated(model, documents, seq_len), sum(len(found(document).ids_N) for document in documents)
  assert result.bits_per_byte * result.text_bytes == pytest.approx(count * math.log2(300), rel=1e-6)
  assert result.bytes_per_chunk[0] == pytest.approx(result.text_bytes / count)


@pytest.fixture(scope='module')
def golden(tmp_path_factory):
  """A directory as published: Hugging Face's golden Llama, of which each token is a character, with a tokenizer."""
  directory = tmp_path_factory.mktemp('llama') / 'weights'
  shutil.copytree(GOLDENS / 'llama', directory)
  vocabulary = {character: index for index, character in enumerate(CHARACTERS)}
  Tokenizer(models.BPE(vocabulary, [])).save(str(directory / 'tokenizer.json'))
  return directory


def test_published_weights_have_the_nats_of_token_bits(golden):
  model = training.load(golden).model
  ids = load_file(GOLDENS / 'llama' / 'io.safetensors')['tokens'][0].tolist()
  text = ''.join(CHARACTERS[index] for index in ids[1:]).encode()
  nats = token_bits.nats(llama.from_pretrained(golden), [1, *ids[1:]])
  result = evaluated(model, [text], 256)
  assert result.bits_per_byte == pytest.approx(nats.sum() / math.log(2) / len(text), rel=1e-5)
  assert (model.config.bos, model.config.eos, model.config.llama.vocab_size) == (1, 2, 61)
  assert model.symbols[1] == bytes([BOS]) and model.symbols[2] == bytes([EOS]) and len(model.symbols) == 61
  same = byte_models.from_pretrained(golden, dtype='bfloat16', scan_layers=False)
  assert same.config.llama.dtype == 'bfloat16'
  jax.tree.map(np.testing.assert_array_equal, flatten(same), flatten(model))


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    (lambda d: (d / 'tokenizer.json').unlink(), 'there is no tokenizer.json in this directory'),
    (lambda d: (d / 'tokenizer.json').write_text('{'), 'is damaged'),
    (lambda d: shutil.copy(tiny_token_lm.tokenizer() / 'tokenizer.json', d), 'vocab_size 61: the tokenizer .* has 300'),
  ],
)
def test_weights_without_their_tokenizer_are_one_sentence(golden, tmp_path, change, sentence):
  directory = shutil.copytree(golden, tmp_path / 'weights')
  change(directory)
  with pytest.raises((ValueError, OSError), match=sentence) as error:
    training.load(directory)
  assert '\n' not in str(error.value)


def test_decoding_reads_and_draws_tokens(model, found):
  prompts = [b'the to', b'', 'naïve 日'.encode()]
  written = generate(model, prompts, 12, temperature=0.0, stop_at_eos=False)
  for prompt, text in zip(prompts, written, strict=True):
    row, drawn = [found.special(BOS), *found(prompt).ids_N.tolist()], b''
    while len(drawn) < 12:
      logits = tiny_token_lm.logits(model.llama, np.array(row + [0] * (48 - len(row))))[len(row) - 1]
      row.append(int(logits.argmax()))
      drawn += found.table[row[-1]]
    assert drawn[:12] == text


def test_words_are_right_that_greedy_decoding_of_tokens_writes(model, found):
  documents = [tiny_subwords.TEXT[:200], DOCUMENT]
  counts = word_counts(documents, 'hat(max_bytes=64)')
  options = {'splitter': 'hat(max_bytes=64)', 'seen': counts, 'batch_size': 2}
  long, short = (word_accuracy(model, MemoryCorpus(documents), seq_len=n, **options) for n in (512, 500))
  assert long[0].words == sum(counts.values()) and long == short
  uniform = jax.tree.map(jnp.zeros_like, model)
  uniform.llama.lm_head.kernel = nnx.Param(jnp.zeros_like(model.llama.lm_head.kernel[...]))
  assert word_accuracy(uniform, MemoryCorpus(documents), seq_len=512, **options)[0].greedy == 0


def test_flops_are_those_of_the_token_models_in_the_h_net_paper():
  """Its table 2: GPT-2's 50,257 tokens of 4.6 bytes, 1,792 of them in a row; both of the product with the table."""
  sizes = lambda width: {'hidden_size': width, 'intermediate_size': 8 * width // 3, 'num_hidden_layers': 24}
  for width, published in ((1536, 0.42e9), (2048, 0.69e9)):
    branch = tiny_token_lm.branch(**sizes(width), num_attention_heads=16, num_key_value_heads=16, vocab_size=50257)
    model = jax.eval_shape(lambda b=branch: byte_models.build(byte_models.parse(b), rngs=nnx.Rngs(0)))
    costs = model.flops_per_byte(round(1792 * 4.6), [4.6])
    assert sum(costs.values()) == pytest.approx(published, rel=0.03)
    assert costs['embeddings'] == costs['lm_head'] == 2 * 50257 * width / 4.6


def test_training_has_other_tokens_and_evaluation_its_own():
  of = lambda **options: byte_models.build(byte_models.parse(tiny_token_lm.branch(**options)), rngs=nnx.Rngs(0))
  plain, stochastic, dropping = of(), of(stochastok=0.1), of(bpe_dropout=0.1)
  assert plain.labels == {} and plain.marks == stochastic.marks == dropping.marks
  assert ',stochastok=0.1,' in stochastic.labels['units'] and ',dropout=0.1)' in dropping.labels['units']
  assert plain.alphabet == stochastic.alphabet


@pytest.mark.parametrize(
  ('change', 'sentence'),
  [
    ({'units': None}, r'model\.units is missing; a token model needs units, hidden_size'),
    ({'hidden_size': None}, r'model\.hidden_size is missing'),
    ({'units': 5}, r'model\.units 5 must be a tokenizer'),
    ({'units': 'char'}, r"model\.units: tokens 'char' is not known: use one of tokens"),
    ({'units': 'tokens(file=nowhere)'}, "tokenizer 'nowhere': there is no such file"),
    ({'vocab_size': 100}, 'vocab_size 100: the tokenizer .* with its BOS and EOS has 300 tokens'),
    ({'bos_token_id': -1}, 'bos_token_id -1 must be an integer of at least 0'),
    ({'stochastok': 1.5}, 'stochastok 1.5 must be from 0 to 1'),
    ({'stochastok': 0.1, 'bpe_dropout': 0.1}, 'choose one of them'),
    ({'bytes_per_chunk': (0.5,)}, 'bytes_per_chunk 0.5: a token has at least 1 byte'),
    ({'num_attention_heads': 5}, 'num_attention_heads 5 must be a multiple'),
    ({'colour': 1}, r'unknown config key model\.colour'),
  ],
)
def test_configurations_that_cannot_be_are_one_sentence(change, sentence):
  with pytest.raises((ValueError, OSError), match=sentence) as error:
    byte_models.parse(tiny_token_lm.branch() | change)
  assert '\n' not in str(error.value)
