"""GGUF files: written here with the gguf library in llama.cpp's order, and read back as the model that they hold."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from byte_models import gguf_file, llama, token_bits
from layers.paths import flatten
from text.tokenizers import spelling

gguf = pytest.importorskip('gguf', reason='reads GGUF: pip install -r requirements-gguf.txt')

CONFIG = llama.parse(
  {
    'vocab_size': 7,
    'hidden_size': 64,
    'intermediate_size': 96,
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'rope_theta': 5e5,
    'rms_norm_eps': 1e-5,
    'tie_word_embeddings': True,
    'max_position_embeddings': 128,
  }
)
NAMES = {
  'input_layernorm': 'attn_norm', 'post_attention_layernorm': 'ffn_norm', 'q_proj': 'attn_q', 'k_proj': 'attn_k',
  'v_proj': 'attn_v', 'o_proj': 'attn_output', 'gate_proj': 'ffn_gate', 'up_proj': 'ffn_up', 'down_proj': 'ffn_down',
}  # fmt: skip


@pytest.fixture(scope='module')
def model():
  return llama.Llama(CONFIG, rngs=nnx.Rngs(0))


@pytest.fixture(scope='module')
def tensors(model, tmp_path_factory):
  """The model under llama.cpp's names, query and key channels in neighbouring pairs, one row after the other."""
  directory = tmp_path_factory.mktemp('model')
  llama.save_pretrained(model, directory)
  named = {}
  for name, value in load_file(directory / 'model.safetensors').items():
    parts = name.split('.')
    if parts[1] != 'layers':
      named[{'embed_tokens': 'token_embd', 'norm': 'output_norm'}[parts[1]] + '.weight'] = value
      continue
    if parts[-2] in ('q_proj', 'k_proj'):
      size, rows = CONFIG.head_dim, value.copy()
      for head in range(len(value) // size):
        for i in range(size // 2):
          value[head * size + 2 * i] = rows[head * size + i]
          value[head * size + 2 * i + 1] = rows[head * size + i + size // 2]
    named[f'blk.{parts[2]}.{NAMES[parts[-2]]}.weight'] = value
  return named


@pytest.fixture
def write(tensors, tmp_path):
  def write(kind='F32', architecture='llama', extra=None, scaling=None, **metadata):
    """A file with matrices of one quantisation; metadata: keys after 'llama.' to add or change."""
    path = tmp_path / 'model.gguf'
    writer = gguf.GGUFWriter(path, architecture)
    values = {'embedding_length': 64, 'feed_forward_length': 96, 'block_count': 2, 'context_length': 128}
    values |= {'attention.head_count': 4, 'attention.head_count_kv': 2, 'rope.dimension_count': 16} | metadata
    for key, value in values.items():
      add = writer.add_string if isinstance(value, str) else writer.add_uint32
      add(f'{architecture}.{key}', value)
    writer.add_float32(f'{architecture}.attention.layer_norm_rms_epsilon', 1e-5)
    writer.add_float32(f'{architecture}.rope.freq_base', 5e5)
    kind = gguf.GGMLQuantizationType[kind]
    for name, value in tensors.items():
      if value.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, value)
      else:
        writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
    for name, (value, raw_kind) in (extra or {}).items():
      writer.add_tensor(name, value, raw_dtype=raw_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

  return write


def test_nats_that_are_not_finite_are_refused(model):
  assert np.isfinite(token_bits.nats(model, [1, 2, 3])).all()
  with pytest.raises(ValueError, match=r'^lead\.txt: token \d has nan nats, so weights or activations hold nan'):
    token_bits.nats(model, [1, 2, 7], name='lead.txt')  # outside the vocabulary


def test_a_file_in_float32_is_the_model_itself(write, model):
  found = llama.from_gguf(write())
  assert found.config == CONFIG
  for path, value in flatten(model).items():
    np.testing.assert_array_equal(flatten(found)[path], value, err_msg=path)
  stack, flat = llama.read_backbone(write())
  assert not stack.final_norm and flat.keys() == {
    path[9:] for path in flatten(model) if path.startswith('backbone.runs')
  }


def test_channels_in_the_order_of_the_file_are_another_model(write, model, monkeypatch):
  tokens = np.arange(24)[None] % 7
  logits = jax.jit(lambda m: m(tokens, jnp.ones_like(tokens)))
  np.testing.assert_allclose(logits(llama.from_gguf(write())), logits(model), atol=1e-5)
  monkeypatch.setattr(gguf_file, '_half_split', lambda weight, heads: weight)
  assert np.abs(logits(llama.from_gguf(write())) - logits(model)).max() > 1e-3


@pytest.mark.parametrize(('kind', 'error'), [('F16', 1e-3), ('BF16', 8e-3), ('Q8_0', 1e-2), ('Q4_1', 0.1)])
def test_quantised_weights_are_close(write, model, kind, error):
  found = flatten(llama.from_gguf(write(kind)))
  for path, value in flatten(model).items():
    assert found[path].dtype == np.float32
    assert np.abs(found[path] - value).max() <= error * np.abs(value).max(), path


@pytest.mark.parametrize('factor', [8.0, 32.0])
def test_the_scaling_of_llama_3_is_known_by_its_divisors(write, factor):
  divisors = []  # the rule in llama.cpp's converter, by wavelength
  for i in range(8):
    wave = 2 * math.pi * 5e5 ** (2 * i / 16)
    smooth = (8192 / wave - 1) / 3
    blend = 1 / ((1 - smooth) / factor + smooth)
    divisors.append(1.0 if wave < 8192 / 4 else factor if wave > 8192 else blend)
  assert len(set(divisors)) > 2
  put = lambda values: {'rope_freqs.weight': (np.array(values, np.float32), None)}
  scaling = llama.from_gguf(write(extra=put(divisors))).config.rope_scaling
  assert (scaling.factor, scaling.original_max_positions) == (factor, 8192)
  with pytest.raises(ValueError, match='in a way that is not that of Llama 3.1 or 3.2'):
    llama.from_gguf(write(extra=put([3.0] * 8)))


def test_files_that_cannot_be_used_are_refused(write, tmp_path):
  with pytest.raises(FileNotFoundError, match=r'nowhere\.gguf is missing'):
    llama.from_gguf(tmp_path / 'nowhere.gguf')
  (tmp_path / 'text.gguf').write_text('no model, but quite a long text')
  whole = write().read_bytes()
  for content in (b'', b'no model, but quite a long text', whole[:100], whole[: len(whole) // 2]):
    (tmp_path / 'bad.gguf').write_bytes(content)
    with pytest.raises(ValueError, match=r'bad\.gguf is not a whole GGUF file'):
      llama.from_gguf(tmp_path / 'bad.gguf')
  kind = gguf.GGMLQuantizationType.Q8_K
  _, size = gguf.GGML_QUANT_SIZES[kind]
  for options, sentence in (
    ({'architecture': 'qwen2'}, "of architecture 'qwen2': only llama is read"),
    ({'attention.head_count_kv': 4}, r'k_proj\.weight has shape'),
    ({'expert_count': 8}, r'llama\.expert_count 8: only 0 is supported'),
    ({'rope.scaling.type': 'yarn'}, r"llama\.rope\.scaling\.type 'yarn': only 'none' is supported"),
    ({'rope.dimension_count': 8}, r'llama\.rope\.dimension_count 8: only 16 is supported'),
    ({'attention.head_count': 0}, r'llama\.attention\.head_count 0 must be an integer of at least 1'),
    ({'attention.head_count_kv': 0}, r'llama\.attention\.head_count_kv 0 must be an integer of at least 1'),
    ({'block_count': 'two'}, r"llama\.block_count 'two' must be an integer"),
    ({'block_count': 3}, r'lacks tensor model\.layers\.2\.'),
    ({'extra': {'blk.0.attn_q.bias': (np.zeros(64, np.float32), None)}}, r'the surplus tensor \S+\.q_proj\.bias'),
    ({'extra': {'odd.weight': (np.zeros((1, size), np.uint8), kind)}}, r'odd\.weight is quantised as Q8_K, which'),
  ):
    with pytest.raises(ValueError, match=sentence):
      llama.from_gguf(write(**options))


def write_tokenizer(path, model='gpt2', pre='smollm', surplus=()):
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_tokenizer_model(model)
  writer.add_tokenizer_pre(pre)
  letters = sorted(set('abcdéĠ12Ã©<|>'))
  writer.add_token_list([*letters, 'ab', 'Ġab', '12', 'Ã©', '<|a|>'])
  writer.add_token_types([gguf.TokenType.NORMAL] * (len(letters) + 4) + [gguf.TokenType.CONTROL])
  writer.add_token_merges(['a b', 'Ġ ab', '1 2', 'Ã ©', *surplus])
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  return path


def test_the_tokenizer_in_a_file(tmp_path):
  pytest.importorskip('tokenizers')
  tokens = lambda text, pre: gguf_file.tokenizer(write_tokenizer(tmp_path / 'a.gguf', pre=pre)).encode(text).tokens
  # bytes become letters, merges apply inside GPT-2's words; SmolLM2 keeps digits apart; special names are plain text
  assert tokens('ab abé12', 'gpt-2') == ['ab', 'Ġab', 'Ã©', '12']
  assert tokens('ab abé12', 'smollm') == ['ab', 'Ġab', 'Ã©', '1', '2']
  assert tokens('<|a|>', 'smollm') == ['<', '|', 'a', '|', '>']
  found = gguf_file.tokenizer(tmp_path / 'a.gguf')
  assert found.decode(found.encode('ab é12ab').ids) == 'ab é12ab'
  spell = spelling.Speller(found)
  assert spell('ab é12ab<|a|>') == found.encode('ab é12ab<|a|>').ids
  assert spell.spellings(found.token_to_id('<|a|>')) == [] != spell.spellings(found.token_to_id('ab'))
  with pytest.raises(ValueError, match="has no token for 'f' and leaves it out"):
    spell('abf')
  for wrong in ({'model': 'llama'}, {'pre': 'qwen2'}):
    with pytest.raises(ValueError, match='only byte-level BPE'):
      gguf_file.tokenizer(write_tokenizer(tmp_path / 'b.gguf', **wrong))
  for surplus in ('a z', 'a', 'a b c'):
    with pytest.raises(ValueError, match='has merges that do not fit its tokens'):
      gguf_file.tokenizer(write_tokenizer(tmp_path / 'b.gguf', surplus=[surplus]))
  content = (tmp_path / 'a.gguf').read_bytes()
  (tmp_path / 'b.gguf').write_bytes(content.replace('Ġab'.encode(), b'\xc4\xc4ab'))
  with pytest.raises(ValueError, match=r'metadata tokenizer\.ggml\.tokens that are not UTF-8'):
    gguf_file.tokenizer(tmp_path / 'b.gguf')
