"""Forward FLOPs per byte of a word model, with the layers' formulas."""

from collections.abc import Sequence

from byte_models.word_ar.config import WordARConfig
from layers import stack


def flops_per_byte(
  config: WordARConfig, length: int, bytes_per_chunk: Sequence[float] | None = None
) -> dict[str, float]:
  """Component -> forward FLOPs a byte, documents of `length` bytes.

  bytes_per_chunk: one number, the bytes of a word (None: what the configuration states), or two where words are spelled
  with units, the bytes of a unit before it. Local attention is counted for words of that size; that words differ adds
  to it. Units come at the rate that is given or that the configuration states, at least one a word; to look up the
  vector of one of many is no work, while that of a byte is counted as in the other families.
  Raises ValueError for another list.
  """
  sizes = config.bytes_per_chunk if bytes_per_chunk is None else tuple(bytes_per_chunk)
  if len(sizes) not in (1, 1 + (config.units != 'byte')) or min(sizes) < 1:
    raise ValueError(f'bytes_per_chunk {sizes}: a list with one number of at least 1, the bytes of a word.')
  size, vectors, width = sizes[-1], config.num_vectors, config.decoder.width
  words = 1 / size  # per byte
  units = max(config.units_per_byte if len(sizes) == 1 else 1 / sizes[0], words)
  slots, local = units + vectors * words, units * size + vectors
  outer = config.inputs * width // config.positions
  is_projected = outer != config.backbone.width or not config.encoder
  result = {
    'embeddings': 2.0 * config.vocab_size * width if config.units == 'byte' else 0.0,
    'encoder': stack.flops(config.encoder, slots, local) if config.encoder else 0.0,
    'projections': 4.0 * outer * config.backbone.width * config.positions * words * is_projected,
    'backbone': stack.flops(config.backbone, config.positions * words, config.positions * words * length),
    'decoder': stack.flops(config.decoder, slots, local),
    'lm_head': 2.0 * config.vocab_size * width * (units + (words if config.encoder else 0)),
  }
  return {name: value for name, value in result.items() if value}
