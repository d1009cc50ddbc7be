"""Byte probabilities of a token model, exactly: sums over the cover encodings of a text (arXiv 2410.09303).

A *cover* of a text is a valid string of tokens (byte_models/canonical.py) whose bytes begin with the text and of which
all but the last token do not reach its end. Every text that goes on from it is written by tokens that begin with just
one of its covers, so P(text) is the sum of what the model gives to them, and what a next byte has is the share of those
covers that hold it. Tokens that no valid string has at a place count as probability that is lost ('exact'), or the last
token of a cover may be any ('fast': no successor has to be looked up, which is what takes time).

Covers that share all but their last token are one interval of the table of the vocabulary (text/prefixes.py) behind one
state of the model. A byte more therefore costs one step of the model: that of the tokens that end there, which is the
canonical encoding, and further ones only where a rule of the tokenizer looks ahead.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from byte_models.canonical import Canonical, Tokenizer
from layers.stack import unstacked
from text.prefixes import END, Prefixes, bins

_LENGTHS = 64  # prompts and caches have 2^k places, at least these, so that similar ones share one compilation


@dataclasses.dataclass(frozen=True, eq=False)
class TokenModel:
  """A model over tokens with the tokenizer that its tokens are of.

  model: as `byte_models.llama.Llama` (init_cache, prefill, step, config.vocab_size, config.max_position_embeddings).
  begin: the token before every text. end: those that end one, which text does not give. Raises ValueError where they do
  not fit together.
  """

  model: Any
  tokenizer: Tokenizer
  begin: int
  end: tuple[int, ...] = ()

  def __post_init__(self):
    vocabulary, size = self.tokenizer.vocabulary, self.model.config.vocab_size
    if len(vocabulary) > size:
      raise ValueError(
        f'the tokenizer has {len(vocabulary)} tokens and the model {size}, so it is not the one of these weights: '
        'bring the tokenizer that they were trained with'
      )
    for name, token in (('begin', self.begin), *(('end', token) for token in self.end)):
      if not isinstance(token, int) or not 0 <= token < size:
        raise ValueError(f'{name} {token!r}: give the id of a token, from 0 to {size - 1}')
    for token in self.end:
      if token < len(vocabulary) and vocabulary[token]:
        raise ValueError(f'end {token} spells {vocabulary[token]!r}, which texts have: give a special token')

  @functools.cached_property
  def table(self) -> Prefixes:
    """Of the tokens that a text or its end can have: special tokens and padding of the vocabulary are in no cover."""
    vocabulary = self.tokenizer.vocabulary
    return Prefixes([*vocabulary, *[b''] * (self.model.config.vocab_size - len(vocabulary))], self.end)

  @functools.cached_property
  def rules(self) -> Canonical:
    """Which strings of tokens there are."""
    return Canonical(self.tokenizer, self.table)

  @functools.cached_property
  def unstacked(self) -> Any:
    """The model, as it decodes fastest."""
    return jax.jit(unstacked)(self.model)


@dataclasses.dataclass(eq=False)
class _Tokens:
  """A valid string of tokens that ends at byte `end` of the text, and what the model says behind it once it is asked:
  weight, the log probability of the string; log_p [V] float64 of what follows; cache.
  """

  tokens: tuple[int, ...]
  end: int
  parent: '_Tokens | None' = None
  weight: float | None = None
  log_p: np.ndarray | None = None
  cache: Any = None
  depth: int = 0  # tokens that the cache holds
  token: int = -1


class Covers:
  """The covers of a text that grows byte by byte.

  prompt: any bytes; it may end inside a token. max_bytes: how many more may come. exact: as above. tokens: how many of
  the last tokens before the covers differ the model reads (None: all). Raises ValueError for a prompt of more
  tokens than the model has places for, one that no tokens cover, and a tokenizer that loses bytes.
  """

  def __init__(
    self, source: TokenModel, prompt: bytes = b'', max_bytes: int = 0, exact: bool = True, tokens: int | None = None
  ):
    self.source, self.exact = source, exact
    rules, most = source.rules, source.model.config.max_position_embeddings
    whole, start = rules.encode(prompt), rules.certain(prompt)
    self._text, self._live = b'', [_Tokens((), 0)]  # the text from a certain cut on; strings with covers
    known = rules.encode(prompt[start:])
    for byte in prompt[start:]:
      self._grow(byte, known)
    self._live = [found for found in self._live if found.end == len(self._text) or self._may_follow(found).any()]
    strings = [found.tokens for found in self._live]
    shared = next((i for i, each in enumerate(zip(*strings, strict=False)) if len({*each}) > 1), min(map(len, strings)))
    base = self._live[0]
    while len(base.tokens) > shared:
      base = base.parent
    before = [source.begin, *whole[: len(whole) - len(known)], *base.tokens]
    before = before if tokens is None else before[-max(tokens, 1) :]
    room = len(before) + len(self._text) - base.end + max_bytes  # a byte may be a token
    self._most = min(most, room)
    if len(before) > most:
      raise ValueError(
        f'the prompt has {len(before)} tokens and the model {most} places (max_position_embeddings): give a shorter one'
      )
    self._begin(base, before, max(_LENGTHS, 1 << (room - 1).bit_length()))

  def next_bytes(self) -> np.ndarray:
    """Probabilities of the 256 bytes and, at END, of the end of the text: [257] float64, their sum is 1."""
    parts = []
    for found in self._live:
      top, sums = self._bins(found)
      if found.end < len(self._text):
        sums[END] = 0.0  # these tokens end here: they are strings of their own
      parts.append((self._weight(found) + top, sums))
    top = max(weight for weight, _ in parts)
    if top == -math.inf:
      raise ValueError(f'the model gives probability 0 to all that may follow {self._text[-20:]!r}: use other weights')
    p = sum(np.exp(weight - top) * sums for weight, sums in parts)
    return p / p.sum()

  def advance(self, byte: int) -> None:
    """One more byte of the text. Raises ValueError where no tokens cover it."""
    self._grow(byte)
    self._forget()

  def log_probability(self) -> float:
    """Of the text, as the sum over its covers, over that of its beginning that all covers share."""
    return float(np.logaddexp.reduce([self._mass(found) for found in self._live]))

  def gain(self) -> float:
    """Nats by which the canonical encoding alone is dearer than all covers: ≥ 0."""
    encoding = self.source.rules.encode(self._text)
    (canonical,) = (found for found in self._live if found.tokens == encoding)
    return self.log_probability() - self._weight(canonical)

  def _grow(self, byte: int, known: tuple[int, ...] = ()) -> None:
    text, live, ended = self._text + bytes([byte]), [], []
    rules, table = self.source.rules, self.source.table
    for found in self._live:
      if not (node := table.at(text[found.end :])):
        continue
      for token in map(int, table.ids[node.lo : node.first]):
        tokens = (*found.tokens, token)
        if known[: len(tokens)] == tokens or rules.is_valid(tokens, text):
          ended.append(_Tokens(tokens, len(text), found, token=token))
      if node.first < node.hi:
        live.append(found)
    if not live + ended:
      raise ValueError(f'no tokens that the tokenizer writes cover {text[-20:]!r}: leave byte {byte} out')
    self._text, self._live = text, live + ended

  def _forget(self) -> None:
    """Leaves out the text before a certain cut, where all covers have the same tokens."""
    cut, first = self.source.rules.certain(self._text), self._live[0].tokens
    sizes = itertools.accumulate((len(self.source.tokenizer.vocabulary[token]) for token in first), initial=0)
    count = next((count for count, size in enumerate(sizes) if size == cut), None)
    if cut and count and all(found.tokens[:count] == first[:count] for found in self._live):
      self._text = self._text[cut:]
      for found in self._live:
        found.tokens, found.end = found.tokens[count:], found.end - cut

  def _may_follow(self, found: _Tokens) -> np.ndarray:
    """Which tokens of the node at the rest of the text count behind a string: bool."""
    node = self.source.table.at(self._text[found.end :])
    if self.exact:
      return self.source.rules.successors(found.tokens, node.lo, node.hi)
    return np.ones(node.hi - node.lo, bool)

  def _bins(self, found: _Tokens) -> tuple[float, np.ndarray]:
    """The bins of what may follow a string in the text; see `prefixes.bins`."""
    table = self.source.table
    node = table.at(self._text[found.end :])
    if not (may := self._may_follow(found)).any():
      return -math.inf, np.zeros(257)
    return bins(np.where(may, self._read(found)[table.ids[node.lo : node.hi]], -np.inf), node)

  def _mass(self, found: _Tokens) -> float:
    if found.end == len(self._text):
      return self._weight(found)
    top, sums = self._bins(found)
    mass = sums[:END].sum()
    return self._weight(found) + top + math.log(mass) if mass else -math.inf

  def _weight(self, found: _Tokens) -> float:
    if found.weight is None:
      found.weight = float(self._read(found.parent)[found.token]) + found.parent.weight
    return found.weight

  def _read(self, found: _Tokens) -> np.ndarray:
    """What the model says behind a string; the strings before it are read first."""
    waiting = [found]
    while waiting[-1].parent and waiting[-1].parent.log_p is None:
      waiting.append(waiting[-1].parent)
    for each in reversed(waiting):
      if each.log_p is None:
        self._weight(each)
        if each.parent.depth >= self._most:
          raise ValueError(f'the text has more tokens than there are places ({self._most}): give a larger max_bytes')
        logits, each.cache = _step(self.source.unstacked, jnp.array([each.token], jnp.int32), each.parent.cache)
        each.log_p, each.depth, each.parent = _log_p(logits), each.parent.depth + 1, None
    return found.log_p

  def _begin(self, base: _Tokens, before: list[int], places: int) -> None:
    tokens = np.zeros((1, places), np.int32)
    tokens[0, : len(before)] = before
    model, length = self.source.model, jnp.array([len(before)], jnp.int32)
    logits, base.cache = _prefill(model, tokens, length, model.init_cache(1, places))
    base.log_p, base.weight, base.depth, base.parent = _log_p(logits), 0.0, len(before), None


def _log_p(logits: Any) -> np.ndarray:
  found = np.asarray(logits, np.float64)[0]
  if np.isnan(found).any() or not np.isfinite(found.max()):
    raise ValueError('the logits of the model are not finite: weights or activations hold nan or inf')
  found -= found.max()
  return found - math.log(np.exp(found).sum())


_prefill = jax.jit(lambda model, tokens, length, cache: model.prefill(tokens, length, cache))
_step = jax.jit(lambda model, token, cache: model.step(token, cache))
