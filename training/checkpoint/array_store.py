"""Arrays of a checkpoint read straight from its files, and their checksums.

Orbax writes an item of a checkpoint as one Zarr array for each path in an OCDBT key-value store. TensorStore reads them
here: without the model, without devices, and without waiting for other processes. It does not notice every damage (a
chunk that is missing reads as zeros), hence the checksums.
"""

import concurrent.futures
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore

_BLOCK = 2**16  # elements whose checksum is computed at once: what stays in a processor's cache


class Unreadable(Exception):
  """An array, or the store that it is in, that cannot be read; the message is TensorStore's."""


class OtherArray(Exception):
  """An array that is not what the model has in its place."""


def names(item: pathlib.Path) -> list[str]:
  """Paths of the arrays in an item's directory."""
  keys = _result(lambda: tensorstore.KvStore.open(_store(item)).result().list())
  return sorted(key.decode().removesuffix('/.zarray') for key in keys if key.endswith(b'/.zarray'))


def read(item: pathlib.Path, path: str) -> np.ndarray:
  """One array, whole and on the host."""
  store = _open(item, path)
  return _result(store.read)


def claimed_bytes(item: pathlib.Path, path: str) -> int:
  """The size of an array by its metadata alone, which may be a lie."""
  store = _open(item, path)
  return math.prod(store.shape) * store.dtype.numpy_dtype.itemsize


def place(
  item: pathlib.Path, abstract: Mapping[str, Any], shardings: Mapping[str, Any], stored_paths: Mapping[str, str]
) -> dict[str, jax.Array]:
  """The arrays of `abstract` where `shardings` puts them; each process reads what its devices hold. stored_paths: what
  each is called in the item. Raises `OtherArray` for an array that has another shape or type.
  """

  def one(path: str) -> jax.Array:
    stored, wanted = _open(item, stored_paths[path]), abstract[path]
    if stored.shape != wanted.shape or stored.dtype.numpy_dtype != wanted.dtype:
      raise OtherArray(
        f'{path} is {_kind(stored.dtype.numpy_dtype, stored.shape)}, the model has {_kind(wanted.dtype, wanted.shape)}'
      )
    return jax.make_array_from_callback(wanted.shape, shardings[path], lambda index: _result(stored[index].read))

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    return dict(zip(abstract, pool.map(one, abstract), strict=True))


def checksums(flat: Mapping[str, jax.Array], plain: bool = False) -> dict[str, int]:
  """{path: checksum of all its bits} of arrays on devices, computed where they are; any change of one element changes
  its array's.

  An element's term is its bits, mixed with its position by the finalizer of MurmurHash3; the checksum is the sum of all
  terms mod 2**32, so that it is the same for any sharding. plain: the terms of earlier records, bits * (2 * position +
  1), by which 64 ones and 64 zeros are the same.
  """
  sums = {path: _device_checksum(x, plain) for path, x in flat.items()}
  return {path: int(value) for path, value in jax.device_get(sums).items()}


def host_checksum(x: np.ndarray, plain: bool = False) -> int:
  """The same for an array on the host."""
  bits = np.ascontiguousarray(x).reshape(-1).view(f'uint{8 * x.dtype.itemsize}')
  sum_of_terms = 0
  for start in range(0, bits.size, _BLOCK):
    block = bits[start : start + _BLOCK].astype(np.uint32)
    position = (np.arange(block.size, dtype=np.uint64) + np.uint64(start)).astype(np.uint32)
    sum_of_terms += int(np.sum(_terms(block, position, plain), dtype=np.uint64))
  return sum_of_terms % 2**32


def item_digest(plain_sums: Iterable[int]) -> int:
  """What earlier records hold for a whole item, from its arrays' plain checksums."""
  return sum(plain_sums) % 2**32


def _device_terms_sum(x, plain: bool) -> jax.Array:
  unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
  position, stride = jnp.zeros((), jnp.uint32), 1
  for axis in reversed(range(bits.ndim)):  # without flattening, which would gather a sharded array
    position = position + jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    stride *= bits.shape[axis]
  return jnp.sum(_terms(bits, position, plain), dtype=jnp.uint32)


_device_checksum = jax.jit(_device_terms_sum, static_argnums=1)


def _terms(bits, position, plain: bool):
  """One uint32 an element, of NumPy's or JAX's arrays, in wrapping arithmetic."""
  if plain:
    return bits * (np.uint32(2) * position + np.uint32(1))
  h = bits ^ (position * np.uint32(0x9E3779B1))
  h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
  h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
  return h ^ (h >> np.uint32(16))


def _open(item: pathlib.Path, path: str) -> tensorstore.TensorStore:
  return _result(lambda: tensorstore.open({'driver': 'zarr', 'kvstore': _store(item) | {'path': f'{path}/'}}))


def _result(start) -> Any:
  """What a TensorStore operation gives; it fails with many types, plain Exception among them."""
  try:
    return start().result()
  except MemoryError:
    raise
  except Exception as error:
    raise Unreadable(str(error)) from None


def _store(item: pathlib.Path) -> dict[str, Any]:
  return {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{item.absolute()}/'}}


def _kind(dtype: Any, shape: tuple[int, ...]) -> str:
  return f'{np.dtype(dtype).name}[{", ".join(map(str, shape))}]'
