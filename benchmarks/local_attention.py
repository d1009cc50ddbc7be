"""Local models on packed words against words padded to the longest: forward and backward, in one process.

  python -m benchmarks.local_attention
  python -m benchmarks.local_attention --seq_len=2048 --rows=2 --source=corpus:english_wiki

Both are the same encoder and decoder on the same words of real text, with k slots in front of each word. Packed: in the
row's buffer of byte_models.word_ar, at the smallest capacity that holds its words. Padded: [rows x words of the fullest
row, k + cap]. They are measured in turns; milliseconds are medians. The last column is the largest difference between
what they compute.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx
from rich.console import Console
from rich.table import Table

import byte_models
import text
from byte_models.word_ar.layout import Words, word_starts
from layers import capacity
from text.marks import mark
from text.packing import evaluation_rows, materialise

_SOURCE = flags.DEFINE_string('source', 'python_docs', 'Text whose words are used.')
_SEQ_LEN = flags.DEFINE_integer('seq_len', 256, 'Bytes of a row.')
_ROWS = flags.DEFINE_integer('rows', 8, 'Rows of a batch.')
_WIDTH = flags.DEFINE_integer('width', 128, 'Width of the local models, which have heads of 32.')
_VECTORS = flags.DEFINE_integer('vectors', 1, 'Vectors a word (k).')
_CAPS = flags.DEFINE_multi_integer('max_bytes', [16, 32, 64], 'Caps of a word, which padding pads to.')
_REPEATS = flags.DEFINE_integer('repeats', 10, 'Turns.')


def main(_: list[str]) -> None:
  """Prints the table."""
  table = Table('cap', 'bytes a word', 'slots packed', 'padded', 'ms packed', 'padded', 'ratio', 'difference')
  for cap in _CAPS.value:
    table.add_row(*measure(cap))
  Console(markup=False, highlight=False).print(table)


def measure(cap: int) -> tuple[str, ...]:
  """One row of the table: words of at most `cap` bytes."""
  model = _model(cap)
  corpus = text.open_corpus(_SOURCE.value, 'train')
  corpus = text.MemoryCorpus([corpus[index] for index in range(min(len(corpus), 200))])
  plan = evaluation_rows(corpus.lengths, _SEQ_LEN.value)
  pieces = plan.pieces(np.arange(min(len(plan), _ROWS.value)))
  batch = mark(materialise(corpus, pieces, _ROWS.value, _SEQ_LEN.value), model.marks)
  starts = word_starts(model.config, batch)
  count, k = int(starts.sum(1).max()), model.config.num_vectors
  words = Words.of(starts, jnp.asarray(batch.segment_ids), k, capacity.rung(_SEQ_LEN.value, count))
  x = jax.random.normal(jax.random.key(0), (*starts.shape, model.config.decoder.width))

  def packed(model, x):
    rows, slots = x.shape[0], words.first_BxS.shape[1] * k
    pooling = jnp.tile(model.pooling[...], (rows, slots // k, 1))
    buffer = words.pack(x, pooling)
    encoded = model.encoder(buffer, words.local_ids_BxC)
    # The decoder gets the pooled vectors of its own word: what they say does not matter to the time.
    vectors = words.unpack(encoded)[1]
    return words.unpack(model.decoder(words.pack(x, vectors), words.local_ids_BxC))[0]

  def padded(model, x):
    sizes = words.size_BxS[:, :count].reshape(-1)
    values = words.patches(x, cap)[:, :count].reshape(-1, cap, x.shape[-1])
    ids = (jnp.arange(k + cap)[None] < k + sizes[:, None]).astype(jnp.int32)
    pooling = jnp.broadcast_to(model.pooling[...], (len(values), k, x.shape[-1]))
    encoded = model.encoder(jnp.concatenate([pooling, values], 1), ids)
    decoded = model.decoder(jnp.concatenate([encoded[:, :k], values], 1), ids)[:, k:]
    return words.per_byte(decoded.reshape(len(x), count, cap, -1))

  forms = [jax.jit(jax.value_and_grad(lambda *a, form=form: jnp.sum(form(*a) ** 2))) for form in (packed, padded)]
  outputs = [np.asarray(jax.jit(form)(model, x))[np.asarray(words.is_byte_BxL)] for form in (packed, padded)]
  seconds = [[], []]
  for turn in range(_REPEATS.value + 1):
    for form, times in zip(forms, seconds, strict=True):
      began = time.perf_counter()
      jax.block_until_ready(form(model, x))
      times += [time.perf_counter() - began] if turn else []  # the first one compiles
  fast, slow = (1000 * statistics.median(times) for times in seconds)
  return (
    str(cap),
    f'{batch.segment_ids.astype(bool).sum() / int(starts.sum()):.2f}',
    f'{words.slot_BxC.size:,}',
    f'{_ROWS.value * count * (k + cap):,}',
    f'{fast:.1f}',
    f'{slow:.1f}',
    f'{slow / fast:.2f}',
    f'{np.abs(outputs[0] - outputs[1]).max():.1e}',
  )


def _model(cap: int):
  width = _WIDTH.value
  local = {'arch_layout': 'T2', 'd_model': width, 'd_intermediate': 3 * width, 'num_heads': max(width // 32, 1)}
  config = byte_models.parse(
    {
      'family': 'word_ar',
      'words': f'hat(max_bytes={cap})',
      'num_vectors': _VECTORS.value,
      'encoder': local,
      'backbone': local,
      'decoder': local,
    }
  )
  return jax.jit(lambda: byte_models.build(config, rngs=nnx.Rngs(0)))()


if __name__ == '__main__':
  app.run(main)
