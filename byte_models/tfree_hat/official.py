"""Published T-Free-HAT weights: safetensors under the authors' names, beside their config.json."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from byte_models import llama_weights
from byte_models.llama_weights import Part, linear
from byte_models.tfree_hat.config import CrossConfig, TFreeHATConfig
from byte_models.tfree_hat.model import TFreeHAT
from layers.paths import flatten, rebuild
from layers.stack import parse_layout

INDEX = 'model.safetensors.index.json'  # of weights in several files


def parts(config: TFreeHATConfig) -> Iterator[Part]:
  """Every published tensor and where it is in a model that keeps the unused ones."""
  width, main, pool = config.encoder.width, config.main.width, config.pool
  yield Part('encoder.embedding_layer.weight', (256, width), 'embeddings')
  yield from llama_weights.stack_parts(config.encoder, 'encoder.', 'encoder.')
  yield Part('encoder_connector.latent_query', (1, 1, main), 'connector.latent_1x1xD')
  theirs = 'encoder_connector.cross_attention_encoder_connector.'
  yield linear(f'{theirs}q_proj.weight', 'connector.query.kernel', pool.width_q, pool.inner)
  yield linear(f'{theirs}k_proj.weight', 'connector.key_value.kernel', pool.width_kv, pool.shared)
  yield linear(f'{theirs}v_proj.weight', 'connector.key_value.kernel', pool.width_kv, pool.shared)
  yield linear(f'{theirs}o_proj.weight', 'connector.out.kernel', pool.inner, pool.width_q)
  yield from _norms(pool, theirs, 'connector.query_norm.scale', 'connector.key_norm.scale')
  yield from llama_weights.stack_parts(config.main, 'backbone.', 'main.')
  yield Part('decoder_connector.first_word_embedding', (1, 1, main), 'first_1x1xD')
  guide = config.guide
  for layer in range(sum(count for _, count in parse_layout(config.decoder.layout))):
    theirs, used, unused = f'decoder.decoder_layers.{layer}.', f'decoder.guides.{layer}', f'decoder.unused.{layer}'
    guided = layer < config.guided_layers
    yield Part(f'{theirs}query_norm.weight', (guide.width_q,), f'{unused}.query_norm.scale')
    kv_norm = f'{used}.norm.scale' if guided else f'{unused}.kv_norm.scale'
    yield Part(f'{theirs}kv_norm.weight', (guide.width_kv,), kv_norm)
    if guided:
      theirs += 'cross_attention.'
      yield linear(f'{theirs}q_proj.weight', f'{unused}.query.kernel', guide.width_q, guide.inner)
      yield linear(f'{theirs}k_proj.weight', f'{unused}.key.kernel', guide.width_kv, guide.shared)
      yield linear(f'{theirs}v_proj.weight', f'{used}.values.kernel', guide.width_kv, guide.shared)
      yield linear(f'{theirs}o_proj.weight', f'{used}.out.kernel', guide.inner, guide.width_q)
      yield from _norms(guide, theirs, f'{unused}.norm_query.scale', f'{unused}.norm_key.scale')
  layer_name = 'decoder_layers.{}.llama_layer.'
  yield from llama_weights.stack_parts(config.decoder, 'decoder.', 'decoder.stack.', layer_name)
  yield Part('layer_norm.weight', (width,), 'norm.scale')
  yield linear('lm_head.weight', 'lm_head.kernel', width, 256)


def _norms(config: CrossConfig, theirs: str, query: str, key: str) -> Iterator[Part]:
  if config.qk_norm:
    full = config.qk_norm == 'full'
    yield Part(f'{theirs}norm_query.weight', (config.inner if full else config.head,), query)
    yield Part(f'{theirs}norm_key.weight', (config.shared if full else config.head,), key)


def from_pretrained(directory: str | os.PathLike, **overrides: Any) -> TFreeHAT:
  """Loads config.json and model.safetensors, whole or in parts with an index.

  overrides: keys of the `model` branch that config.json does not have, such as dtype='bfloat16', delivery='causal' or
  window_counts_self=True (the inference engine's reading of a window). Without them the model is the published one:
  delivery 'published', with the parameters that it never uses. Parameters become float32; the dtypes of the file are
  remembered for `save_pretrained`. Raises FileNotFoundError for a missing file and ValueError for a configuration or a
  tensor that does not fit.
  """
  directory = Path(directory)
  branch = _read_json(directory / 'config.json')
  try:
    config = TFreeHATConfig.from_dict({'delivery': 'published', 'keep_unused': True, **branch, **overrides})
  except ValueError as error:
    raise ValueError(f'{directory / "config.json"}: {error}') from None
  tensors = _read_tensors(directory)
  wanted = list(parts(config))
  llama_weights.check(wanted, tensors, directory)
  flat = llama_weights.gather((part for part in wanted if config.keep_unused or '.unused.' not in part.path), tensors)
  model = rebuild(
    jax.eval_shape(lambda: TFreeHAT(config, rngs=nnx.Rngs(0))),
    {path: jnp.asarray(value) for path, value in flat.items()},
  )
  model.stored_dtypes = tuple((part.name, str(tensors[part.name].dtype)) for part in wanted)
  return model


def save_pretrained(model: TFreeHAT, directory: str | os.PathLike) -> None:
  """Writes config.json and model.safetensors, as read or in float32; a file is replaced only by a whole one.

  What the published model never uses is zero (norms: one) where the model does not hold it. Raises ValueError for a
  model with another delivery than the published code's, or with another splitter.
  """
  config, directory = model.config, Path(directory)
  published = json.loads(config.published)
  if config.delivery != 'published':
    raise ValueError(
      f'delivery {config.delivery!r}: the published code would give other logits in characters of several bytes; train '
      "with delivery='published', or keep the model as a training checkpoint."
    )
  if config.words != f'hat(max_bytes={published.get("max_word_size", 100)})':
    raise ValueError(f"words '{config.words}': the published code splits by 'hat' only.")
  flat = {path: np.asarray(value) for path, value in flatten(model).items()}
  wanted = list(parts(config))
  for part in wanted:
    if part.path not in flat:
      shape = tuple(reversed(part.shape)) if part.transposed else part.shape
      flat[part.path] = np.full(shape, part.path.endswith('.scale'), np.float32)
  dtypes = dict(model.stored_dtypes)
  tensors = {
    name: value.astype(jnp.dtype(dtypes.get(name, 'float32')))
    for name, value in llama_weights.scatter(wanted, flat).items()
  }
  directory.mkdir(parents=True, exist_ok=True)
  for name, fill in (
    ('model.safetensors', lambda file: save_file(tensors, file, metadata={'format': 'pt'})),
    ('config.json', lambda file: file.write_text(json.dumps(published, indent=1))),
  ):
    partial = directory / f'{name}.partial'
    try:
      fill(partial)
      os.replace(partial, directory / name)
    finally:
      partial.unlink(missing_ok=True)


def _read_tensors(directory: Path) -> dict[str, np.ndarray]:
  index = directory / INDEX
  names = sorted(set(_read_json(index)['weight_map'].values())) if index.is_file() else ['model.safetensors']
  tensors: dict[str, np.ndarray] = {}
  for name in names:
    if not (directory / name).is_file():
      raise FileNotFoundError(
        f'{directory / name} is missing: published weights are config.json and model.safetensors.'
      )
    try:
      tensors |= load_file(directory / name)
    except SafetensorError as error:
      raise ValueError(f'{directory / name} is not a whole safetensors file: {error}.') from None
  return tensors


def _read_json(file: Path) -> dict[str, Any]:
  try:
    values = json.loads(file.read_bytes())
  except FileNotFoundError:
    raise FileNotFoundError(f'{file} is missing: published weights are config.json and model.safetensors.') from None
  except ValueError as error:
    raise ValueError(f'{file} is not JSON: {error}.') from None
  if not isinstance(values, dict):
    raise ValueError(f'{file} holds a {type(values).__name__} and not a mapping.')
  return values
