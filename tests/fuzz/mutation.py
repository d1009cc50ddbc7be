"""Hostile variants of valid input: bytes, JSON values and the text that spells them."""

import json
import random
import re
import struct
from typing import Any

DEEP = 100_000  # brackets; Python's own limit is about a thousand
EXTREMES = (
  0,
  1,
  -1,
  2,
  255,
  256,
  2**15,
  2**31 - 1,
  2**31,
  2**32 - 1,
  10**12,
  2**60,
  2**62,
  2**63 - 1,
  2**63,
  2**64 - 1,
)
_MARK = '@deep@'

STRINGS = (
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '\udcff',
  '\u202e',
  '\x1b[2J\x1b]0;x\x07',
  '\r\n',
  'é' * 300,
  'x' * 100_000,
  '../../etc/passwd',
  '/etc/passwd',
  '/dev/zero',
  '~',
  '*' * 50,
  '%s%n',
  '${HOME}',
  'nan',
  'inf',
  '-1',
  '9' * 5000,
  '1e400',
  '0x10',
  '1_0',
  'T1',
  'm' * 99,
  'None',
  'True',
  'float64',
  'bfloat16',
  '__class__',
  'os.system',
  '(' * 3000,
  '[' * 500 + ']' * 500,
  '-' * 3000 + '1',
  'a|' * 500,
  '(a+)+$',
)


def number(rng: random.Random) -> Any:
  """A number that somebody did not think of, or a small one."""
  extremes = (*EXTREMES, -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e30, 1e308, float('nan'), float('inf'))
  return rng.choice((rng.randint(-3, 20), rng.choice(extremes)))


def leaf(rng: random.Random) -> Any:
  """Any value."""
  kind = rng.randrange(9)
  if kind < 4:
    return number(rng)
  if kind < 6:
    return rng.choice(STRINGS)
  return rng.choice(
    (None, True, False, [], {}, [[]], [None], {'': None}, [1, 2, 3], {'a': {'b': 1}}, nested(rng), _MARK)
  )


def nested(rng: random.Random) -> Any:
  """A list in lists."""
  value: Any = rng.choice(('m1', 'T1', [], 1))
  for _ in range(rng.choice((2, 10, 100, 250))):  # one may come to stand in another: JSON itself ends at a thousand
    value = ['m1', value, 'm1'] if rng.random() < 0.5 else [value]
  return value


def places(value: Any, path: tuple = ()) -> list[tuple]:
  """Paths of everything inside a JSON value."""
  items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
  found = [path] if path else []
  for key, item in items:
    found += places(item, (*path, key))
  return found


def at(value: Any, path: tuple) -> Any:
  """What stands at a path."""
  for key in path:
    value = value[key]
  return value


def edit(rng: random.Random, value: Any, most: int = 3) -> Any:
  """A JSON value with up to `most` changes somewhere inside: another value, a missing, surplus or renamed key."""
  value = json.loads(json.dumps(value))
  for _ in range(rng.randint(1, most)):
    paths = places(value)
    if not paths:
      return leaf(rng)
    path = rng.choice(paths)
    branch, key = at(value, path[:-1]), path[-1]
    old, kind = branch[key], rng.randrange(10)
    if kind < 4 and isinstance(old, int | float) and not isinstance(old, bool):
      branch[key] = number(rng)
    elif kind < 5 and isinstance(old, str) and (found := re.findall(r'\d+', old)):
      branch[key] = old.replace(rng.choice(found), str(number(rng)), 1)
    elif kind < 6:
      branch[key] = leaf(rng)
    elif kind == 6:
      del branch[key]
    elif kind == 7:
      branch[key] = rng.choice(([old], {'a': old}, str(old), [old] * 3))
    elif kind == 8:
      branch[key] = json.loads(json.dumps(at(value, rng.choice(paths[:1] + paths[-1:]))))
    elif isinstance(branch, dict):
      branch[rng.choice((*map(str, branch), *STRINGS[:8], 'x'))] = leaf(rng)
    else:
      branch.insert(rng.randrange(len(branch) + 1), leaf(rng))
  return value


def json_bytes(rng: random.Random, value: Any) -> bytes:
  """A JSON value as text, now and then not as JSON has it: repeated keys, no end, deep brackets, other encodings."""
  text = json.dumps(value)
  brackets = rng.choice((('[', ']'), ('{"a":', '}')))
  text = text.replace(f'"{_MARK}"', brackets[0] * DEEP + ('1' + brackets[1] * DEEP if rng.random() < 0.5 else ''))
  kind = rng.randrange(30)
  if kind == 0:
    text = text.replace('{', '{"a": 1, "a": 2, ', 1)
  elif kind == 1:
    text = text.replace(': ', ': ' + '9' * 6000, 1)
  elif kind == 2:
    return text.encode(rng.choice(('utf-16', 'utf-32', 'utf-8-sig')))
  elif kind == 3:
    return damage(rng, text.encode())
  return text.encode('utf-8', 'surrogatepass')


def damage(rng: random.Random, data: bytes, most: int = 4, head: int = 0) -> bytes:
  """Bytes with up to `most` changes; where head > 0 half of them in the first `head` bytes."""
  data = bytearray(data)
  for _ in range(rng.randint(1, most)):
    size = min(len(data), head) if head and rng.random() < 0.5 else len(data)
    place, kind = rng.randrange(size + 1), rng.randrange(10)
    if kind == 0 and size:
      data[min(place, size - 1)] ^= 1 << rng.randrange(8)
    elif kind == 1:
      data[place : place + 1] = bytes([rng.randrange(256)])
    elif kind == 2:
      del data[place:]
    elif kind == 3:
      del data[place : place + rng.choice((1, 2, 8, 100))]
    elif kind == 4:
      data[place:place] = rng.randbytes(rng.choice((1, 4, 8, 300)))
    elif kind == 5:
      other = rng.randrange(len(data) + 1)
      data[place : place + 64] = data[other : other + rng.choice((8, 64, 500))]
    elif kind < 9:
      form = rng.choice('<>') + rng.choice('IQ')
      packed = struct.pack(form, rng.choice(EXTREMES) % 2 ** (8 * struct.calcsize(form)))
      place -= place % rng.choice((1, 4, 8))
      data[place : place + len(packed)] = packed
    else:
      digits = [index for index, byte in enumerate(data[:4096]) if 48 <= byte <= 57]
      if digits:
        index = rng.choice(digits)
        data[index : index + 1] = str(number(rng)).encode()
  return bytes(data)
