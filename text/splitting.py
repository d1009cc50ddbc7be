"""Which side of a split a document is on, decided by a hash: the same on every machine and in every order."""

import hashlib


def is_chosen(key: bytes, share: float) -> bool:
  """True for about `share` of all keys."""
  return int.from_bytes(hashlib.sha256(key).digest()[:8], 'big') < share * 2**64
