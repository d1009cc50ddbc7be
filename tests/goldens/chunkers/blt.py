"""BLT, whole: activations, logits, loss and the gradients of all parameters.

The published code knows nothing of documents but in its self-attention, whose documents end with EOS: its patches,
n-grams and cross attention reach over them. So the parts are put together here as `hnet.stage.Stage` does, on rows that
are one document to the cut; and the model itself runs on the rows whose patches begin and end with documents.
"""

import copy
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import byte_models
from byte_models.blt import official
from hnet.model import HNet
from hnet.parts import Cut
from hnet.parts.attend import AttendPool, AttendUnpool, largest
from hnet.parts.inputs import OFFSET
from hnet.stage import Stage
from layers import weights
from layers.chunks import Level, Segments
from layers.paths import flatten
from tests.goldens.chunkers.difference import Difference, absolute, config, relative, tensors
from text.batch import BOS, EOS, Batch


def knows(found: dict[str, Any]) -> bool:
  """By the class."""
  return found.get('model_class', '').endswith('ByteLatentTransformer')


def check(folder: pathlib.Path) -> dict[str, Difference]:
  """See the module."""
  args = config(folder)['args']
  io, grads = tensors(folder, 'io', 'grads')
  model = byte_models.from_pretrained(folder, boundary='mark_end', hash_across_documents=True)
  tokens_BxL, targets_BxL = (jnp.asarray(io[name], jnp.int32) for name in ('tokens', 'targets'))
  ends_BxL = ends_of(io['patch_lengths'], tokens_BxL.shape[1])
  eos = args['eos_id']
  documents_BxL = 1 + behind(io['tokens'] == eos)
  is_global = args.get('attn_bias_type') == 'block_causal'
  documents_BxP = 1 + behind((io['global_tokens'] == eos) & is_global)

  def loss_of(model: HNet) -> tuple[Array, dict[str, Array]]:
    found = forward(model, tokens_BxL, ends_BxL, documents_BxL, documents_BxP)
    log_p = jax.nn.log_softmax(found['logits'], -1)
    return -jnp.mean(jnp.take_along_axis(log_p, targets_BxL[..., None], -1)), found

  (loss, found), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(model)
  found = jax.device_get(found) | {'loss': loss}
  is_closed_BxP = np.arange(documents_BxP.shape[1]) < ends_BxL.sum(1)[:, None]
  result = {}
  for name in sorted(io.keys() & found.keys()):
    theirs, ours = io[name], found[name]
    if name in PATCHES or name.startswith(
      'glob.'
    ):  # nothing reads those that are open at the end of a row, and here they are not made
      of_patches = lambda x: x.reshape(*x.shape[:1], -1, PATCHES.get(name, 1) * x.shape[-1])  # noqa: B023
      ours = of_patches(ours)[:, : is_closed_BxP.shape[1]][is_closed_BxP]
      theirs = of_patches(theirs)[is_closed_BxP]
    tolerance = 0.0 if theirs.dtype == np.int64 else max(2e-5, 2e-6 * np.abs(theirs).max())
    result[name] = absolute(ours, theirs, tolerance)
  wanted = list(official.parts(model.config))
  of_parameters = weights.scatter(wanted, flatten(gradient))
  for part in wanted:
    result[f'grad {part.name}'] = relative(of_parameters[part.name], grads[part.name])
  return result | whole(model, io, ends_BxL, documents_BxL)


# Tensors of patches -> 2 where the patch's vectors are rows of their own
PATCHES = {
  'enc.patch_proj.in': 1, 'enc.patch_proj': 1, 'enc.cross0.in': 2, 'enc.cross0': 2, 'patch_vectors': 2, 'global_in': 1,
  'global_out': 1, 'dec.patch_proj': 1,
}  # fmt: skip


def ends_of(lengths_BxP: np.ndarray, length: int) -> np.ndarray:
  """Where a patch has its last byte: [B, L] bool."""
  return np.stack([np.isin(np.arange(1, length + 1), np.cumsum(lengths)) for lengths in lengths_BxP])


def behind(marks_BxL: np.ndarray) -> np.ndarray:
  """How many of these stand before each."""
  return np.cumsum(marks_BxL, 1) - marks_BxL


def forward(
  model: HNet, tokens_BxL: Array, ends_BxL: np.ndarray, documents_BxL: np.ndarray, documents_BxP: np.ndarray
) -> dict[str, Array]:
  """The parts in the order of a stage, and what the published code's hooks saw."""
  stage, taps = model.backbone, {}
  x = model.embeddings[tokens_BxL]
  for part in model.inputs:
    before_BxL = jnp.broadcast_to(jnp.arange(tokens_BxL.shape[1]), tokens_BxL.shape)
    x += part.of_ids(tokens_BxL, before_BxL)
    taps['hash_ids'] = jnp.moveaxis(part.chosen(tokens_BxL, before_BxL), -1, 0)

  def watched(name: str, inject: Any = None) -> Any:
    """Notes what goes into every block, and what cross attention makes of it first."""

    def note(layer: int, stream: Array) -> Array | None:
      added = None if inject is None else inject(layer, stream)
      if layer:
        taps[f'{name}.layer{layer - 1}'] = stream
      if added is not None:
        taps.update({f'{name}.cross{layer}.in': stream, f'{name}.cross{layer}': added})
      taps[f'{name}.layer{layer}.in'] = stream if added is None else stream + added
      return added

    return note

  e = stage.encoder(x, documents_BxL, watched('enc'))
  segments = Level.of_bytes(jnp.ones_like(tokens_BxL), {}).cut(jnp.asarray(ends_BxL))
  cut = Cut(segments.starts_BxC, segments.starts_BxC * 1.0, segments.starts_BxC * 1.0)
  g = stage.pool(e, cut, segments)
  ids_BxM = jnp.pad(documents_BxP, ((0, 0), (0, max(g.shape[1] - documents_BxP.shape[1], 0))))[:, : g.shape[1]]
  z = stage.inner.main(g, jnp.where(segments.inner.valid, ids_BxM, 0), watched('glob'))
  y, inject = stage.combine(e, cut, functools.partial(stage.unpool, z, cut, segments))
  y = stage.decoder(y, documents_BxL, watched('dec', inject))
  taps['global_in'] = g
  if isinstance(stage.pool, AttendPool) and isinstance(stage.unpool, AttendUnpool):
    taps |= _of_cross(stage, e, z, segments, g)
  return taps | {
    'patch_ids': jnp.where(segments.closing_BxC < g.shape[1], segments.closing_BxC, segments.inner.count_B[:, None]),
    'decoder_patch_ids': segments.index_BxC,
    'encoder_bytes': e,
    f'enc.layer{len(stage.encoder.init_cache(1, 1)) - 1}': e,
    f'glob.layer{len(stage.inner.main.init_cache(1, 1)) - 1}': z,
    'global_out': z,
    'dec.norm': y,
    'logits': model.lm_head(y),
  }


def _of_cross(stage: Stage, e: Array, z: Array, segments: Segments, g: Array) -> dict[str, Array]:
  """What cross attention sees and makes of patches."""
  pooled = largest(e, segments.closing_BxC, g.shape[1])
  begin = stage.pool.first(pooled).reshape(len(e), -1, pooled.shape[-1])
  if hasattr(stage.pool, 'widen'):
    wide = copy.copy(stage.pool)
    del wide.widen
    g = wide(e, None, segments)
  vectors = g.reshape(len(e), -1, pooled.shape[-1])
  return {
    'enc.patch_proj.in': pooled,
    'enc.patch_proj': stage.pool.first(pooled),
    'enc.cross0.in': begin,
    'enc.cross0': vectors - begin,
    'patch_vectors': vectors,
    'dec.patch_proj': stage.unpool.vectors(z),
  }


def whole(
  model: HNet, io: dict[str, np.ndarray], ends_BxL: np.ndarray, documents_BxL: np.ndarray
) -> dict[str, Difference]:
  """The model as it is used, on rows whose documents are made of whole patches and begin with one of one byte."""
  first_BxL = np.diff(documents_BxL, axis=1, prepend=0) > 0
  before_BxL = np.pad(ends_BxL[:, :-1], ((0, 0), (1, 0)), constant_values=True)
  rows = np.flatnonzero((~first_BxL | (ends_BxL & before_BxL)).all(1) & (io['tokens'] >= 1).all(1))
  rows = [row for row in rows if not np.isin(io['tokens'][row], (3, OFFSET + BOS, OFFSET + EOS)).any()]
  if not rows:
    return {}
  tokens = io['tokens'][rows]
  symbols = np.where(tokens >= OFFSET, tokens - OFFSET, np.where(tokens == 1, BOS, EOS)).astype(np.uint8)
  batch = Batch(symbols, documents_BxL[rows].astype(np.int32), marks={'last': ends_BxL[rows]})
  output = jax.jit(lambda model: model(batch))(model)
  theirs = io['logits'][rows][..., list(model.config.rows)]
  tolerance = max(2e-5, 2e-6 * np.abs(theirs).max())
  starts_BxL = np.pad(ends_BxL[rows][:, :-1], ((0, 0), (1, 0)), constant_values=True)
  return {
    'logits of the model': absolute(output.logits, theirs, tolerance),
    'starts of patches': absolute(output.segmentations[0], starts_BxL, 0.0),
  }
