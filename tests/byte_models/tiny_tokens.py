"""Tokenizers and models over tokens that are small enough to look at every string of tokens."""

import dataclasses
import functools
import itertools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

BYTES = tuple(bytes([byte]) for byte in range(256))
# As GPT-2's: white space before a letter is cut otherwise than at the end, bytes that are no text apart from letters;
# digits in threes from the right, as newer ones.
_PIECES = re.compile(r' ?[^\W0-9_]+| ?[^\s\w]+|[0-9]{1,3}(?=(?:[0-9]{3})*(?![0-9]))|_|\s+(?!\S)|\s+')
SIZE = 288


@dataclasses.dataclass(frozen=True)
class Merges:
  """BPE by its definition: of all neighbours, the pair that was learnt first is merged, where it stands first.

  Ids: 0 begins, 1 ends, 2 is another special token, 3 to 258 the bytes, 259 byte a once more, then merges.
  """

  pairs: tuple[tuple[bytes, bytes], ...] = ()
  cuts: bool = False

  @functools.cached_property
  def vocabulary(self):
    merged = dict.fromkeys(a + b for a, b in self.pairs)
    return (b'', b'', b'', *BYTES, b'a', *merged)

  def pretokens(self, document):
    if not self.cuts:
      return None
    pieces = _PIECES.findall(document.decode('utf-8', 'surrogateescape'))
    return list(itertools.accumulate(len(piece.encode('utf-8', 'surrogateescape')) for piece in pieces))

  def encode(self, document):
    pieces = (document[lo:hi] for lo, hi in itertools.pairwise([0, *(self.pretokens(document) or [len(document)])]))
    return np.array([token for piece in pieces for token in self._written(piece)], np.int32)

  @functools.cached_property
  def _written(self):
    ids = {spelled: index for index, spelled in reversed([*enumerate(self.vocabulary)])}
    return functools.cache(lambda piece: [ids[token] for token in self._merged(piece)])

  def _merged(self, piece):
    parts = [bytes([byte]) for byte in piece]
    while found := [i for i, pair in enumerate(itertools.pairwise(parts)) if pair in self.pairs]:
      at = min(found, key=lambda i: (self.pairs.index((parts[i], parts[i + 1])), i))
      parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


class Longest(Merges):
  """The same vocabulary, from the left the longest token that fits: no merges, and other strings are valid."""

  def _merged(self, piece):
    tokens, at, found = set(self.vocabulary), 0, []
    while at < len(piece):
      found.append(max((token for token in tokens if piece.startswith(token, at)), key=len))
      at += len(found[-1])
    return found


class Single:
  """Every byte a token, whose id it is."""

  vocabulary = BYTES

  def pretokens(self, document):
    return None

  def encode(self, document):
    return np.frombuffer(document, np.uint8).astype(np.int32)


class TableModel(nnx.Module):
  """Logits from the last two tokens and their number; `naive` says the same in float64."""

  def __init__(self, seed=0, size=SIZE, scale=2.0, places=4096):
    random = np.random.default_rng(seed)
    table = lambda: nnx.Param(jnp.array(random.normal(size=(size, size)) * scale, jnp.float32))
    self.last, self.before = table(), table()
    self.config = types.SimpleNamespace(vocab_size=size, max_position_embeddings=places)

  def __call__(self, tokens_BxL, segment_ids_BxL):
    before = jnp.pad(self.before[...][tokens_BxL], ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return self.last[...][tokens_BxL] + before

  def init_cache(self, batch_size, max_tokens):
    return jnp.zeros(batch_size, jnp.int32)

  def prefill(self, tokens_BxL, length_B, cache):
    logits = jnp.take_along_axis(self(jnp.asarray(tokens_BxL), None), (length_B - 1)[:, None, None], 1)[:, 0]
    return logits, jnp.take_along_axis(jnp.asarray(tokens_BxL), (length_B - 1)[:, None], 1)[:, 0]

  def step(self, token_B, cache):
    return self.last[...][token_B] + self.before[...][cache], token_B


class Naive:
  """Sums over all strings of tokens, by the definitions alone."""

  def __init__(self, model, tokenizer, letters, begin=0, end=1):
    self.tokenizer, self.begin, self.end = tokenizer, begin, end
    self.last, self.before = (np.asarray(table[...], np.float64) for table in (model.last, model.before))
    self.ends = [b''.join(map(bytes, ends)) for n in range(3) for ends in itertools.product(letters, repeat=n)]
    self._valid, vocabulary = {}, [*enumerate(tokenizer.vocabulary)]
    self.starting = [[pair for pair in vocabulary if pair[1].startswith(byte)] for byte in BYTES]

  def p(self, tokens):
    """The probability of a string of tokens, the last of which may be the end."""
    return np.exp(self.log_p(tokens))

  def log_p(self, tokens):
    row, log_p = [self.begin, *tokens], 0.0
    for at, token in enumerate(tokens):
      logits = self.last[row[at]] + (self.before[row[at - 1]] if at else 0.0)
      log_p += logits[token] - np.log(np.exp(logits).sum())
    return log_p

  def spell(self, tokens):
    return b''.join(self.tokenizer.vocabulary[token] for token in tokens)

  def is_valid(self, tokens):
    """Whether the encoding of some text begins with them."""
    if tokens not in self._valid:
      encode, text = self.tokenizer.encode, self.spell(tokens)
      self._valid[tokens] = any(tuple(encode(text + more)[: len(tokens)].tolist()) == tokens for more in self.ends)
    return self._valid[tokens]

  def covers(self, text, before=()):
    """Every string of text tokens that reaches the end of the text with its last token, whatever the rules."""
    rest = text[len(self.spell(before)) :]
    for token, spelled in self.starting[rest[0]]:
      if rest.startswith(spelled) and spelled != rest:
        yield from self.covers(text, (*before, token))
      elif spelled.startswith(rest):
        yield *before, token

  def mass(self, text, exact=True):
    """P(text): every prefix of a cover is valid; but for the last token, where not `exact`."""
    if not text:
      return 1.0
    checked = lambda tokens: [tokens[:n] for n in range(1, len(tokens) + exact)]
    return sum(self.p(tokens) for tokens in self.covers(text) if all(map(self.is_valid, checked(tokens))))

  def next_bytes(self, text, exact=True):
    """[257], normalised."""
    found = [self.mass(text + byte, exact) for byte in BYTES]
    end = self.p((*map(int, self.tokenizer.encode(text)), self.end))
    return np.array([*found, end]) / (sum(found) + end)


def llama(size=SIZE, seed=0, end=1):
  """A small random Llama, whose logits are not all alike."""
  from byte_models import llama as family

  config = family.LlamaConfig(size, 32, 48, 2, 4, 2, 8, bos_token_id=0, eos_token_id=end, max_position_embeddings=256)
  model = jax.jit(lambda: family.Llama(config, rngs=nnx.Rngs(seed)))()
  return jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, model)
