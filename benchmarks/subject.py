"""What the H-Net benchmarks run on: a model, rows of real text, and what the machine can do at most."""

import time
from collections.abc import Callable

import numpy as np

# The configuration that the authors' code was timed with on a CPU: 4.0M parameters.
MODEL = {
  'arch_layout': ['m2', ['T4'], 'm2'],
  'd_model': [128, 256],
  'd_intermediate': [0, 768],
  'vocab_size': 256,
  'ssm_cfg': {'chunk_size': 256, 'd_conv': 4, 'd_state': 64, 'expand': 2},
  'attn_cfg': {'num_heads': [4, 4], 'rotary_emb_dim': [16, 32], 'window_size': [-1, -1]},
  'tie_embeddings': False,
}


def fresh_model(directory: str) -> str:
  """Saves a model of MODEL with random parameters there, as official weights."""
  import jax
  from flax import nnx

  import byte_models
  import hnet

  config = byte_models.parse({'family': 'hnet', **MODEL})
  hnet.save_pretrained(jax.jit(lambda: byte_models.build(config, rngs=nnx.Rngs(0)))(), directory)
  return directory


def compiled_step(model, batch, capacities=None):
  """(step, parameters, seconds to compile) of forward and backward.

  step(parameters, batch) -> ((mean nats of a byte, ModelOutput without logits), gradients). capacities: None for the
  smallest that hold the chunks of the batch.
  """
  import dataclasses

  import jax
  import jax.numpy as jnp

  from layers import capacity
  from layers.paths import flatten, rebuild

  flat = flatten(model)
  room = capacity.holding(model, [batch]) if capacities is None else capacities

  def loss(flat, batch):
    output = rebuild(model, flat)(batch, capacities=room)
    return jnp.sum(output.nll) / jnp.sum(batch.scored), dataclasses.replace(output, logits=None)

  began = time.perf_counter()
  step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(flat, batch).compile()
  return step, flat, time.perf_counter() - began


def documents(rows_BxL: np.ndarray):
  """A batch on the device whose rows are a document each."""
  import jax

  from text import Batch

  return jax.device_put(Batch(rows_BxL, np.ones(rows_BxL.shape, np.int32)))


def rows(source: str, count: int, length: int) -> np.ndarray:
  """[B, L] uint8: beginnings of held-out documents that are long enough, one a row.

  Raises ValueError where there are fewer.
  """
  import text

  corpus = text.open_corpus(source, 'validation')
  long = [index for index, size in enumerate(corpus.lengths) if size >= length][:count]
  if len(long) < count:
    raise ValueError(f'--source={source} has {len(long)} documents of {length} bytes: fewer rows are due')
  return np.stack([np.frombuffer(corpus.read(index, 0, length), np.uint8) for index in long])


def xla_peak() -> float:
  """FLOP/s of the machine's products as XLA computes them; see `peak`."""
  import jax
  import jax.numpy as jnp

  left, right = jnp.ones((4096, 256)), jnp.ones((256, 768))
  product = jax.jit(jnp.matmul)
  return peak(lambda: product(left, right).block_until_ready())


def copy_speed() -> float:
  """Bytes a second, read and written, of a product and a sum over arrays of 64 MB: the best of many within a second."""
  import jax
  import jax.numpy as jnp

  size = 2**24
  add, x, y = jax.jit(lambda x, y: 2 * x + y, donate_argnums=0), jnp.ones(size), jnp.ones(size)
  best, end = float('inf'), time.perf_counter() + 1.0
  while time.perf_counter() < end:
    began = time.perf_counter()
    x = add(x, y).block_until_ready()
    best = min(best, time.perf_counter() - began)
  return 3 * 4 * size / best


def peak(product: Callable[[], object]) -> float:
  """FLOP/s of a product of 4096 x 256 x 768 that the function computes: the best of many within a second."""
  best, end = float('inf'), time.perf_counter() + 1.0
  while time.perf_counter() < end:
    began = time.perf_counter()
    product()
    best = min(best, time.perf_counter() - began)
  return 2 * 4096 * 256 * 768 / best
