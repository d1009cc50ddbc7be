"""SpaceByte: where it cuts, and the way to the global blocks and back, with gradients."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hnet import parts, systems
from hnet.parts import Sizes
from layers.chunks import Level
from layers.contract import EVAL
from tests.goldens.chunkers.difference import Difference, absolute, config, relative, tensors

PARTS = ('boundary', 'pool', 'unpool', 'combine')


def knows(config: dict[str, Any]) -> bool:
  """By the name of its configuration, or the table of its masks."""
  return 'SpaceByteConfig' in config or 'table_prev_cur' in config


def check(folder: pathlib.Path) -> dict[str, Difference]:
  """See the module."""
  found = config(folder)
  return _parts(folder, found['SpaceByteConfig']) if 'SpaceByteConfig' in found else _masks(folder, found['BOS'])


def _masks(folder: pathlib.Path, bos: int) -> dict[str, Difference]:
  """A document begins with every BOS. The first byte of a text without one emits here; there, if it is space-like."""
  (io,) = tensors(folder, 'io')
  pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing='ij'), -1).reshape(-1, 2)
  ours = _emit(pairs.astype(np.uint8), bos)
  result = {'table_prev_cur': absolute(ours[:, 1].reshape(256, 256), io['table_prev_cur'], 0.0)}
  behind_a_letter = np.stack([np.full(256, ord('a')), np.arange(256)], 1).astype(np.uint8)
  result['table_first'] = absolute(_emit(behind_a_letter, bos)[:, 1], io['table_first'], 0.0)
  names = sorted(key.removesuffix('.tokens') for key in io if key.endswith('.tokens'))
  longest = max(len(io[f'{name}.tokens']) for name in names)
  rows = np.stack([np.pad(io[f'{name}.tokens'], (0, longest - len(io[f'{name}.tokens']))) for name in names])
  for name, ours in zip(names, _emit(rows, bos), strict=True):
    expected = io[f'{name}.mask'].astype(bool)
    expected[0] = True
    result[f'{name}.mask'] = absolute(ours[: len(expected)], expected, 0.0)
  return result


def _emit(bytes_BxL: np.ndarray, bos: int) -> np.ndarray:
  ids_BxL = 1 + np.cumsum(bytes_BxL == bos, 1) - (bytes_BxL[:, :1] == bos)
  boundary = parts.parse('boundary', 'space').build(Sizes(1, 1), rngs=nnx.Rngs(0))
  level = Level.of_bytes(jnp.asarray(ids_BxL, jnp.int32), {'bytes': jnp.asarray(bytes_BxL)})
  return np.asarray(boundary(None, level, EVAL).emit)


def _parts(folder: pathlib.Path, sizes: dict[str, Any]) -> dict[str, Difference]:
  """Their local and global blocks stay theirs: what they give goes into our parts, and the gradients of what our parts
  give come back.
  """
  theirs, io, gradients = tensors(folder, 'model', 'io', 'grads')
  chosen = systems.parse('spacebyte')
  of = Sizes(sizes['d_local'], sizes['d_model'])
  boundary, pool, unpool, combine = (chosen[kind].build(of, rngs=nnx.Rngs(0)) for kind in PARTS)
  tokens, capacity = io['tokens'].astype(np.uint8), io['global_in'].shape[1]
  level = Level.of_bytes(jnp.ones(tokens.shape, jnp.int32), {'bytes': jnp.asarray(tokens)})
  cut = boundary(None, level, EVAL)
  segments = level.cut(cut.emit, capacity, capacity)  # chunks beyond the global context are dropped
  cut_ = dataclasses.replace(cut, emit=segments.starts_BxC)
  used = np.asarray(segments.inner.valid)
  places = theirs.get('global_position_encoding', np.zeros(io['global_in'].shape[1:], np.float32))[:capacity]

  def forward(h_local1, places, global_out):
    global_in = pool(h_local1, cut_, segments) + places[None] * used[..., None]
    return global_in, combine(h_local1, cut_, functools.partial(unpool, global_out, cut_, segments))[0]

  (global_in, merged), back = jax.vjp(forward, io['h_local1'], places, io['global_out'])
  slots = used[..., None]
  of_e, of_places, of_out = back((gradients['act.global_in'] * slots, gradients['act.h_merged']))
  result = {
    'boundary_mask': absolute(cut.emit, io['boundary_mask'], 0.0),
    'global_T': absolute(np.minimum(cut.emit.sum(1), capacity), np.minimum(io['global_T'], capacity), 0.0),
    'global_ts': absolute(segments.slot_BxM * used, io['global_ts'] * used, 0.0),
    'global_in': absolute(global_in * slots, io['global_in'] * slots),
    'h_merged': absolute(merged, io['h_merged']),
    'gradient of h_local1': relative(of_e, gradients['act.h_local1']),
    'gradient of global_out': relative(of_out, gradients['act.global_out']),
  }
  if 'global_position_encoding' in gradients:
    theirs_of_places = gradients['global_position_encoding'][:capacity]
    result['gradient of global_position_encoding'] = relative(of_places, theirs_of_places)
  return result
