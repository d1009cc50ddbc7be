"""A tiny BLT: grouped heads, k vectors that are not as wide as the global model, n-grams."""


def branch(**changes):
  """A `model` branch."""
  return {
    'family': 'blt',
    'dim_global': 40,
    'dim_local_encoder': 24,
    'dim_local_decoder': 24,
    'n_layers_global': 1,
    'n_layers_local_encoder': 1,
    'n_layers_local_decoder': 2,
    'n_heads_global': 4,
    'n_heads_local_encoder': 2,
    'n_heads_local_decoder': 2,
    'n_kv_heads_global': 2,
    'multiple_of': 16,
    'rope_theta': 500000.0,
    'local_attention_window_len': 6,
    'cross_attn_k': 2,
    'cross_attn_nheads': 3,
    'cross_attn_all_layers_decoder': True,
    'encoder_hash_byte_group_size': [3, 4, 6],
    'encoder_hash_byte_group_vocab': 53,
    'encoder_hash_byte_group_nb_functions': 2,
    **changes,
  }
