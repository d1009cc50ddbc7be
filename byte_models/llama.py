"""A token-level Llama (arXiv 2407.21783): grouped heads, rotary positions, RMSNorm, SwiGLU; from Hugging Face and GGUF
files, whole or as the bare stack of blocks that another model builds on.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from byte_models import llama_weights
from layers import checks, weights
from layers.attention import AttentionCache
from layers.linear import Linear, normal
from layers.paths import flatten, rebuild
from layers.rotary import RotaryScaling
from layers.stack import Stack, StackConfig
from layers.weights import Part, linear


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
  """The keys of a Hugging Face config.json with their defaults, then ours: dtype of the activations, remat, scan."""

  vocab_size: int
  hidden_size: int
  intermediate_size: int
  num_hidden_layers: int
  num_attention_heads: int
  num_key_value_heads: int
  head_dim: int
  rms_norm_eps: float = 1e-6
  rope_theta: float = 10000.0
  rope_scaling: RotaryScaling | None = None
  tie_word_embeddings: bool = False
  max_position_embeddings: int = 2048  # rows of token_bits are no longer; a call may be
  bos_token_id: int | None = None
  eos_token_id: int | tuple[int, ...] | None = None
  dtype: str = 'float32'
  remat: bool = False
  scan: bool = False

  @property
  def stack(self) -> StackConfig:
    """The blocks with the norm behind them."""
    return StackConfig(
      layout=f'T{self.num_hidden_layers}',
      width=self.hidden_size,
      mlp_width=self.intermediate_size,
      num_heads=self.num_attention_heads,
      num_kv_heads=self.num_key_value_heads,
      head_size=self.head_dim,
      rotary_dim=self.head_dim,
      rotary_base=self.rope_theta,
      rotary_scaling=self.rope_scaling,
      window=-1,
      norm_epsilon=self.rms_norm_eps,
      remat=self.remat,
      scan=self.scan,
      dtype=self.dtype,
    )


_SIZES = ('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads')
# What must have this value, if it is there; the other keys of a config.json that say nothing about the calculation.
_FIXED = {
  'model_type': 'llama',
  'hidden_act': 'silu',
  'attention_bias': False,
  'mlp_bias': False,
  'attention_dropout': 0.0,
  'partial_rotary_factor': 1.0,
  'rope_interleaved': False,
  'quantization_config': None,
  'sliding_window': None,
}
_SILENT = (
  '_attn_implementation', '_flash_attn_2_enabled', '_name_or_path', 'architectures', 'dtype', 'initializer_range',
  'is_llama_config', 'pad_token_id', 'pretraining_tp', 'torch_dtype', 'transformers.js_config', 'transformers_version',
  'unsloth_fixed', 'use_cache',
)  # fmt: skip


def parse(values: Mapping[str, Any], **options: Any) -> LlamaConfig:
  """The configuration in a config.json; options: dtype, remat, scan.

  Raises ValueError for a missing or unknown key, and for a value that this code does not compute.
  """
  values = dict(values)
  rotary = values.pop('rope_parameters', None) or {}  # where transformers 5 keeps base and scaling
  if not isinstance(rotary, Mapping):
    raise ValueError(f'rope_parameters {rotary!r:.50} must be a mapping with rope_theta and rope_type.')
  rotary = dict(rotary)
  values |= {'rope_theta': rotary.pop('rope_theta')} if 'rope_theta' in rotary else {}
  values |= {'rope_scaling': rotary} if rotary else {}
  for key, supported in _FIXED.items():
    if (value := values.pop(key, supported)) != supported:
      raise ValueError(f'{key} is {value!r} and not {supported!r}: such a model is not computed here.')
  known = {field.name for field in dataclasses.fields(LlamaConfig)} - {'dtype', 'remat', 'scan'}
  values = {key: value for key, value in values.items() if key not in _SILENT}
  for key in values:
    if key not in known:
      raise ValueError(
        f'{key} {values[key]!r} is not a known key of a Llama: remove it from config.json if it is idle.'
      )
  for key in _SIZES:
    if key not in values:
      raise ValueError(f'{key} is missing: a Llama needs {", ".join(_SIZES)}.')
  for key in (*_SIZES, 'num_key_value_heads', 'head_dim'):
    value = values.setdefault(key, None)
    if (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= checks.MOST) and (
      key in _SIZES or value is not None
    ):
      raise ValueError(f'{key} {value!r:.50} must be a whole number of at least 1 (and at most {checks.MOST}).')
  checks.integer(values.get('max_position_embeddings', 1), 'max_position_embeddings', 1)
  checks.boolean(values.get('tie_word_embeddings', False), 'tie_word_embeddings')
  heads = values['num_attention_heads']
  shared = values['num_key_value_heads'] = values['num_key_value_heads'] or heads
  if heads % shared or (values['head_dim'] is None and values['hidden_size'] % heads):
    raise ValueError(
      f'num_attention_heads {heads} must be a multiple of num_key_value_heads ({shared}) and, without head_dim, divide '
      f'hidden_size ({values["hidden_size"]}).'
    )
  values['head_dim'] = values['head_dim'] or values['hidden_size'] // heads
  if values['head_dim'] % 2:
    raise ValueError(f'head_dim {values["head_dim"]} must be even: rotary positions turn pairs of channels.')
  for key in ('rms_norm_eps', 'rope_theta'):
    if key in values and (not isinstance(values[key], int | float) or not values[key] > 0):
      raise ValueError(f'{key} {values[key]!r} must be a number above 0.')
  if isinstance(values.get('eos_token_id'), list):
    values['eos_token_id'] = tuple(values['eos_token_id'])
  scaling = RotaryScaling.of_published(values.get('rope_scaling'))
  return LlamaConfig(**values | {'rope_scaling': scaling}, **options)


def to_dict(config: LlamaConfig) -> dict[str, Any]:
  """What a Hugging Face config.json says of the model."""
  values = dataclasses.asdict(config)
  for ours in ('dtype', 'remat', 'scan'):
    del values[ours]
  if config.rope_scaling:
    values['rope_scaling'] = config.rope_scaling.published()
  plain = {key: _FIXED[key] for key in ('model_type', 'hidden_act', 'attention_bias', 'mlp_bias')}
  return {'architectures': ['LlamaForCausalLM'], **plain, **values}


class Llama(nnx.Module):
  """A causal language model over tokens; one outside the vocabulary, even in padding, turns its row to nan."""

  def __init__(self, config: LlamaConfig, *, rngs: nnx.Rngs):
    self.config = config
    shape = (config.vocab_size, config.hidden_size)
    self.embeddings = nnx.Param(normal(0.02)(rngs.params(), shape))
    self.backbone = Stack(config.stack, output_deviation=0.02, rngs=rngs)
    if not config.tie_word_embeddings:
      self.lm_head = Linear(*reversed(shape), kernel_init=normal(0.02), rngs=rngs)

  def __call__(self, tokens_BxL: Array, segment_ids_BxL: Array) -> Array:
    """Tokens, packed by segment id (0 = padding) -> float32 logits [B, L, V] for the token after each."""
    return self._head(self.backbone(self._embed(tokens_BxL), jnp.asarray(segment_ids_BxL)))

  def init_cache(self, batch_size: int, max_tokens: int) -> tuple[AttentionCache, ...]:
    """An empty decoding cache for rows of at most `max_tokens` tokens; a longer row gets nan."""
    return self.backbone.init_cache(batch_size, max_tokens)

  def prefill(
    self, tokens_BxL: Array, length_B: Array, cache: tuple[AttentionCache, ...]
  ) -> tuple[Array, tuple[AttentionCache, ...]]:
    """Reads right-padded rows into a fresh cache; logits [B, V] are for the token after each row's last."""
    x_BxLxD, cache = self.backbone.prefill(self._embed(tokens_BxL), length_B, cache)
    return self._head(jnp.take_along_axis(x_BxLxD, (length_B - 1)[:, None, None], 1)[:, 0]), cache

  def step(self, token_B: Array, cache: tuple[AttentionCache, ...]) -> tuple[Array, tuple[AttentionCache, ...]]:
    """Reads one token a row; logits [B, V] are for the next."""
    x_BxD, cache = self.backbone.step(self._embed(token_B), jnp.ones(token_B.shape, bool), cache)
    return self._head(x_BxD), cache

  def _embed(self, tokens: Array) -> Array:
    table, tokens = self.embeddings[...], jnp.asarray(tokens)
    x = table.at[tokens].get(mode='fill', fill_value=jnp.nan, wrap_negative_indices=False)
    return x.astype(self.config.dtype)

  def _head(self, x: Array) -> Array:
    if self.config.tie_word_embeddings:
      return (x @ self.embeddings[...].T.astype(x.dtype)).astype(jnp.float32)
    return self.lm_head(x).astype(jnp.float32)


def from_pretrained(directory: str | os.PathLike, **options: Any) -> Llama:
  """The model in a Hugging Face directory: config.json, and model.safetensors in one file or several with an index.

  options: dtype ('bfloat16'), remat, scan, for the computation; parameters become float32. Raises FileNotFoundError for
  a missing file, ValueError for weights or a configuration that do not fit.
  """
  return _build(*_read_directory(directory, options), directory)


def from_gguf(path: str | os.PathLike, **options: Any) -> Llama:
  """The model in a GGUF file, dequantised; see `gguf_file.read` for what is refused, `from_pretrained` for options."""
  return _build(*_read_gguf(path, options), path)


def read_backbone(source: str | os.PathLike, **options: Any) -> tuple[StackConfig, dict[str, Array]]:
  """Only the blocks of a directory or .gguf file: no embeddings, no head, no final norm.

  -> the configuration of a `layers.stack.Stack` and its flat float32 parameters ('runs.0.mixer.qkv.kernel', ...).
  """
  read = _read_gguf if os.fspath(source).endswith('.gguf') else _read_directory
  config, tensors = read(source, options)
  stack = dataclasses.replace(config.stack, final_norm=False)
  tensors.pop('model.norm.weight', None)
  return stack, llama_weights.read_stack(stack, tensors, 'model.', source)


def save_pretrained(model: Llama, directory: str | os.PathLike, dtype: str = 'float32') -> None:
  """Writes config.json and model.safetensors with Hugging Face's names; a file is replaced only by a whole one."""
  parts = _parts(model.config)
  tensors = weights.scatter(parts, flatten(model), {part.name: dtype for part in parts})
  weights.write(directory, to_dict(model.config) | {'torch_dtype': dtype}, tensors)


def _parts(config: LlamaConfig) -> list[Part]:
  shape = (config.vocab_size, config.hidden_size)
  parts = [Part('model.embed_tokens.weight', shape, 'embeddings')]
  parts += llama_weights.stack_parts(config.stack, 'model.', 'backbone.')
  head = [] if config.tie_word_embeddings else [linear('lm_head.weight', 'lm_head.kernel', *reversed(shape))]
  return parts + head


def _build(config: LlamaConfig, tensors: dict[str, Any], where: str | os.PathLike) -> Llama:
  if config.tie_word_embeddings:  # some files hold the same matrix twice
    tensors = weights.without_tied(tensors, 'lm_head.weight', 'model.embed_tokens.weight', where)
  parts = _parts(config)
  weights.check(parts, tensors, where)
  return rebuild(jax.eval_shape(lambda: Llama(config, rngs=nnx.Rngs(0))), weights.gather(parts, tensors))


def _read_gguf(path: str | os.PathLike, options: dict[str, Any]) -> tuple[LlamaConfig, dict[str, Any]]:
  from byte_models import gguf_file  # needs optional libraries

  values, tensors = gguf_file.read(path)
  return parse(values, **options), tensors


def _read_directory(directory: str | os.PathLike, options: dict[str, Any]) -> tuple[LlamaConfig, dict[str, Any]]:
  _, config, tensors = weights.read(directory, lambda values: parse(values, **options))
  # old files keep the rotary frequencies, which follow from the configuration
  return config, {name: tensor for name, tensor in tensors.items() if not name.endswith('.rotary_emb.inv_freq')}
