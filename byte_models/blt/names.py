"""What a published BLT is called in transformers and in the authors' layout."""

from collections.abc import Mapping
from typing import Any

# A name of transformers -> that of the authors
_THEIRS = {
  'embed_tokens': 'tok_embeddings',
  'input_layernorm': 'attention_norm',
  'post_attention_layernorm': 'ffn_norm',
  'self_attn.': 'attention.',
  'q_proj': 'wq', 'k_proj': 'wk', 'v_proj': 'wv', 'o_proj': 'wo',
  'mlp.gate_proj': 'feed_forward.w1', 'mlp.down_proj': 'feed_forward.w2', 'mlp.up_proj': 'feed_forward.w3',
  'q_norm': 'cross_attn_norm_q', 'k_norm': 'cross_attn_norm_kv',
}  # fmt: skip


def named(name: str, head: str) -> str:
  """A tensor of transformers by the authors' name; head: that of the output's linear map."""
  for ours, theirs in {**_THEIRS, 'lm_head': head}.items():
    name = name.replace(ours, theirs)
  return name


def rope(where: str, sizes: Mapping[str, Any], default: float) -> Any:
  """The base of rotary positions in a config of transformers; ValueError, about `where`, for scaled ones."""
  of_rope = sizes.get('rope_parameters') or {}
  kind = of_rope.get('rope_type', 'default')
  if kind != 'default':
    raise ValueError(f'{where}.rope_parameters {kind!r} is not supported: rotary positions are not scaled.')
  return of_rope.get('rope_theta', sizes.get('rope_theta', default))
