"""What a byte's vector is made of beside its own row of the table."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from hnet.parts.base import Sizes
from layers import checks
from layers.linear import zeros
from layers.segments import positions
from text.batch import BOS, EOS

OFFSET = 4  # of byte ids in BLT; 0 stands before a text, 1 is BOS, 2 EOS
VOCABULARY = 260  # of BLT: 256 bytes behind BOE 0, BOS 1, EOS 2, BPE 3
# The row of each of our symbols in its tables. 254 and 255 stand for BOS and EOS, so the rows of the bytes 254 and 255,
# which no UTF-8 text has, are of no use here, nor are those of BOE and BPE.
ROWS = (*range(OFFSET, OFFSET + BOS), 1, 2)
# Bases of the polynomials, one a function (bytelatent/model/blt.py, rolling_polynomial_hash)
PRIMES = (
  1000000007, 5915587277, 1500450271, 3267000013, 5754853343, 4093082899, 9576890767, 3628273133, 2860486313,
  5463458053, 3367900313,
)  # fmt: skip
LONGEST = 64  # bytes of an n-gram: more is a mistake
DIGITS, BASE = 8, 256  # of a 64-bit number


class HashNgrams(nnx.Module):
  """The sum of rows that hashes of the last n bytes choose, one a size n and a function (BLT, arXiv 2412.09871).

  Of the ids w_0 (oldest) … w_{n-1}, the id of the byte itself, the row is (sum_i w_i P^i) mod V, where the sum wraps as
  an int64 does: power 0 is the oldest's. Ids are byte + 4, 1 for BOS, 2 for EOS, 0 before a text. Tables begin at 0.

  sizes: of the n-grams, such as '3-8' or '3+5+8'. functions: for each. rows: V. across: windows reach into the document
  before, as in the published code; a row of one document is the same without.
  """

  OPTIONS = {'sizes': '3-8', 'functions': 1, 'rows': 4096, 'across': False}

  def __init__(self, sizes_: Sizes, *, rngs: nnx.Rngs, sizes: str, functions: int, rows: int, across: bool):
    self.sizes, self.across = ngram_sizes(sizes), across
    if checks.integer(functions, 'input hash_ngrams: functions', 1) > len(PRIMES):
      raise ValueError(f'input hash_ngrams: functions={functions}, but there are {len(PRIMES)} bases.')
    self.functions, self.rows = functions, checks.integer(rows, 'input hash_ngrams: rows', 1)
    shape = functions * len(self.sizes), rows, sizes_.width
    self.tables_TxVxD = nnx.Param(zeros(None, shape))

  def __call__(self, bytes_BxL: Array, segment_ids_BxL: Array) -> Array:
    """[B, L, D] float32."""
    ids_BxL = ids_of(bytes_BxL)
    index_BxL = jnp.broadcast_to(jnp.arange(ids_BxL.shape[1]), ids_BxL.shape)
    return self.of_ids(ids_BxL, index_BxL if self.across else positions(segment_ids_BxL))

  def of_ids(self, ids_BxL: Array, before_BxL: Array) -> Array:
    """[B, L, D] of ids, of which each may look at so many before it."""
    return self._summed(self.chosen(ids_BxL, before_BxL))

  def chosen(self, ids_BxL: Array, before_BxL: Array) -> Array:
    """The rows of the T tables: [B, L, T] int32."""
    most, length = self.sizes[-1], ids_BxL.shape[1]
    padded = jnp.pad(ids_BxL, ((0, 0), (most - 1, 0)))
    earlier = lambda back: padded[:, most - 1 - back : most - 1 - back + length]
    return self._chosen([jnp.where(before_BxL >= back, earlier(back), 0) for back in range(most)])

  def _chosen(self, window: list[Array]) -> Array:
    """Of ids [...], the latest first: [..., T]."""
    tables = [(PRIMES[function], size) for function in range(self.functions) for size in self.sizes]
    return jnp.stack([hashed(window[size - 1 :: -1], base, self.rows) for base, size in tables], -1)

  def _summed(self, rows_xT: Array) -> Array:
    count, _, width = self.tables_TxVxD.shape
    first_xT = jax.lax.broadcast_to_rank(jnp.arange(count, dtype=jnp.int32) * self.rows, rows_xT.ndim)
    return jnp.sum(self.tables_TxVxD[...].reshape(-1, width)[rows_xT + first_xT], -2)

  def init_cache(self, batch_size: int) -> Array:
    """Nothing stands before a text: [B, n - 1] int32, the latest last."""
    return jnp.zeros((batch_size, self.sizes[-1] - 1), jnp.int32)

  def after(self, bytes_BxL: Array, length_B: Array) -> Array:
    """The last ids of rows of one document."""
    back = self.sizes[-1] - 1
    padded = jnp.pad(ids_of(bytes_BxL), ((0, 0), (back, 0)))
    return jnp.take_along_axis(padded, length_B[:, None] + jnp.arange(back)[None], 1)

  def step(self, byte_B: Array, cache: Array) -> tuple[Array, Array]:
    """([B, D] float32, the last ids)."""
    ids_BxN = jnp.concatenate([cache, ids_of(byte_B)[:, None]], 1)
    rows_BxT = self._chosen([ids_BxN[:, -1 - back] for back in range(ids_BxN.shape[1])])
    return self._summed(rows_BxT), ids_BxN[:, 1:]

  @staticmethod
  def flops(sizes_: Sizes, slots: float, chunks: float, sizes: str, functions: int, rows: int, across: bool) -> float:
    """The sum; rows are looked up."""
    del chunks, rows, across
    return slots * functions * len(ngram_sizes(sizes)) * sizes_.width


def ngram_sizes(sizes: str) -> tuple[int, ...]:
  """'3-5+8' as (3, 4, 5, 8), rising; ValueError with one sentence."""
  found = []
  for part in sizes.split('+'):
    match = re.fullmatch(r'\s*(\d{1,3})\s*(?:-\s*(\d{1,3})\s*)?', part)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    found += range(first, last + 1) if 1 <= first <= last <= LONGEST else [0]
  if 0 in found or sorted(set(found)) != found:
    raise ValueError(
      f"input hash_ngrams: sizes '{sizes:.50}' must be rising numbers of bytes from 1 to {LONGEST}, such as 3-8 or "
      '3+5+8.'
    )
  return tuple(found)


def ids_of(bytes_: Array) -> Array:
  """BLT's ids of bytes, int32."""
  ids = bytes_.astype(jnp.int32) + OFFSET
  return jnp.where(bytes_ == BOS, 1, jnp.where(bytes_ == EOS, 2, ids))


def hashed(ids: list[Array], base: int, rows: int) -> Array:
  """(sum_i ids[i] base^i, which wraps as an int64 does) mod rows, not negative: int32, shaped as each of the ids.

  In digits of 8 bits, so that it is exact without 64-bit numbers: a sum of LONGEST products of an id (9 bits) and a
  digit has 23 bits, and a remainder (24 bits) and a digit 32.
  """
  powers = [pow(base, power, 2**64) for power in range(len(ids))]
  digits, carry = [], jnp.zeros(ids[0].shape, jnp.uint32)
  for place in range(DIGITS):
    of_place = [np.uint32(power >> (8 * place) & (BASE - 1)) for power in powers]
    carry = sum((w.astype(jnp.uint32) * digit for w, digit in zip(ids, of_place, strict=True)), carry)
    digits.append(carry % BASE)
    carry = carry // BASE
  rest = jnp.zeros_like(carry)
  for digit in reversed(digits):
    rest = (rest * BASE + digit) % np.uint32(rows)
  negative = digits[-1] >= BASE // 2  # of an int64: 2^64 less
  return jnp.where(negative, (rest + np.uint32(rows - 2**64 % rows)) % np.uint32(rows), rest).astype(jnp.int32)
