"""Other tokens for the same text, drawn anew for every row of training: StochasTok and BPE-dropout.

StochasTok (Sims et al. 2025, arXiv:2506.01687) splits tokens of the canonical encoding in two, any two of the
vocabulary that spell them. BPE-dropout (Provilkov et al. 2020, arXiv:1910.13267) merges anew and leaves merges out; the
`tokenizers` library has it, but draws from a generator that cannot be seeded.
"""

import functools
import heapq
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from text import paths, units
from text.tokens import Tokens

Draw = Callable[[], float]  # uniform in [0, 1)
Merges = Mapping[tuple[bytes, bytes], int]


def draws(*key: int) -> Draw:
  """Numbers that depend on the key alone; from raw bits, since numpy keeps those equal between its versions."""
  bits = np.random.Philox(np.random.SeedSequence(key))
  return lambda: (int(bits.random_raw()) >> 11) * 2.0**-53


def stochastok(
  ids: Sequence[int], expansions: Callable[[int], Sequence[tuple[int, int]]], p: float, draw: Draw
) -> list:
  """Ids after floor(p * len(ids)) attempts: each takes a place of the sequence as it is then, and, if the token there
  has expansions, puts one of them in its stead; places and expansions are equally likely.
  """
  ids = list(ids)
  for _ in range(int(p * len(ids))):
    place = int(draw() * len(ids))
    if pairs := expansions(ids[place]):
      ids[place : place + 1] = pairs[int(draw() * len(pairs))]
  return ids


@functools.lru_cache(4)
def expansions(tokens: Tokens) -> Callable[[int], tuple[tuple[int, int], ...]]:
  """Token -> all pairs of tokens that spell it, whether or not the tokenizer ever merges them."""

  @functools.cache
  def of(index: int) -> tuple[tuple[int, int], ...]:
    spelled = tokens.table[index]
    halves = ((spelled[:cut], spelled[cut:]) for cut in range(1, len(spelled)))
    return tuple((left, right) for a, b in halves for left in tokens.ids.get(a, ()) for right in tokens.ids.get(b, ()))

  return of


def merged(text: bytes, merges: Merges, p: float, draw: Draw) -> list[bytes]:
  """The pieces of a stretch whose bytes are merged while there is a merge that is not left out. In every step each
  possible merge is left out with probability p, and the first of the rest by rank, then by place, is done.
  """
  pieces = [text[at : at + 1] for at in range(len(text))]
  before, after = [at - 1 for at in range(len(pieces))], [at + 1 for at in range(len(pieces))]
  waiting, passed = [], []

  def look(left: int) -> None:
    if left >= 0 and after[left] < len(pieces):
      pair = pieces[left], pieces[after[left]]
      if (rank := merges.get(pair)) is not None:
        heapq.heappush(waiting, (rank, left, *pair))

  for at in range(len(pieces)):
    look(at)
  while waiting:
    candidate = heapq.heappop(waiting)
    _, left, *pair = candidate
    right = after[left]
    if pieces[left] != pair[0] or right >= len(pieces) or pieces[right] != pair[1]:
      continue  # one of the two has been merged since
    if p and draw() < p:
      passed.append(candidate)
      continue
    pieces[left], pieces[right] = pair[0] + pair[1], b''
    after[left] = after[right]
    if after[left] < len(pieces):
      before[after[left]] = left
    for other in passed:
      heapq.heappush(waiting, other)
    passed = []
    look(before[left])
    look(left)
  return [piece for piece in pieces if piece]


@functools.lru_cache(4)
def merges(tokens: Tokens) -> Merges:
  """(left, right) -> rank, of a byte-level BPE. Raises ValueError for another tokenizer, and for one that cuts nothing
  before it merges: where no stretch ends, there is none that a row holds whole.
  """
  name = f"bpe_dropout of '{tokens.file}'"
  if tokens.tokenizer.pretokens(b'a b') is None:
    raise ValueError(f'{name}: it does not cut text before it merges, so rows would cut what is merged anew')
  model = json.loads(paths.of(tokens.tokenizer.path, name).read_bytes()).get('model', {})
  pairs = [tuple(pair.split(' ')) if isinstance(pair, str) else tuple(pair) for pair in model.get('merges', ())]
  found = {(units.unwritten(left), units.unwritten(right)): rank for rank, (left, right) in enumerate(pairs)}
  if model.get('type') != 'BPE' or any(left + right not in tokens.ids for left, right in found):
    raise ValueError(f'{name}: it is no byte-level BPE, which has merges to leave out: use stochastok')
  sample = b'The 3 cats, na\xc3\xafve in caf\xc3\xa9s, said: \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e!\n\n  def f(x):'
  read, ends = tokens(sample), tokens.tokenizer.pretokens(sample)
  stretches = (sample[begin:end] for begin, end in zip([0, *ends], ends, strict=False))
  undropped = [piece for stretch in stretches for piece in merged(stretch, found, 0.0, lambda: 0.0)]
  if undropped != [tokens.table[index] for index in read.ids_N.tolist()]:
    raise ValueError(
      f'{name}: it does more than to merge by rank, so that leaving merges out is not its own: use stochastok'
    )
  return found


def dropped(text: bytes, tokens: Tokens, p: float, draw: Draw) -> list[int]:
  """Ids of a stretch that the tokenizer merges by itself, by BPE-dropout."""
  return [tokens.ids[piece][0] for piece in merged(text, merges(tokens), p, draw)]
