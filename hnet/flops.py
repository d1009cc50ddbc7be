"""Forward FLOPs per byte of an H-Net, by the formulas of the paper's appendix B but for two sizes that it has smaller:
Mamba-2's output projection and the gate of an MLP (docs/performance.md).
"""

from collections.abc import Sequence

from hnet.config import HNetConfig
from hnet.parts import Sizes
from layers import stack


def flops_per_byte(config: HNetConfig, length: int, bytes_per_chunk: Sequence[float] | None = None) -> dict[str, float]:
  """Component -> forward FLOPs a byte, documents of `length` bytes.

  bytes_per_chunk: bytes of text for one chunk of each stage, outermost first (None: those that the configuration
  states). What is inside several heads runs once for each. Scratch rows count as chunks and as keys, since what a mask
  hides is computed. Raises ValueError if there are not as many as stages that choose chunks.
  """
  sizes = config.bytes_per_chunk if bytes_per_chunk is None else tuple(bytes_per_chunk)
  if len(sizes) != len(config.stages) - 1 or any(size < 1 for size in sizes):
    raise ValueError(f'bytes_per_chunk {sizes}: one number, at least 1, for each of {len(config.stages) - 1} stages.')
  width = config.d_model[0]
  result = {'embeddings': 2.0 * config.vocab_size * width}
  if config.inputs:
    result['inputs'] = sum(part.flops(Sizes(width, width), 1.0, 1.0) for part in config.inputs)
  rate = size = 1.0  # slots a byte, bytes a slot
  heads = 1
  for index, stage in enumerate(config.stages):
    of = lambda part, rate=rate, heads=heads: heads * stack.flops(part, rate, length * rate)
    if stage.main:
      result['main'] = of(stage.main)
    else:
      result[f'encoder_{index}'] = of(stage.encoder)
      result[f'decoder_{index}'] = of(stage.decoder)
      parts = filter(None, (stage.boundary, stage.pool, stage.unpool, stage.combine, stage.scratch))
      chunks = stage.rows(sizes[index] / size) / sizes[index]
      heads *= stage.heads
      result[f'chunking_{index}'] = heads * sum(part.flops(stage.sizes, rate, chunks) for part in parts)
      rate, size = chunks, sizes[index]
  result['lm_head'] = 2.0 * config.num_symbols * width
  return result
