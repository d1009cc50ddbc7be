"""Text from a model, byte by byte: several prompts as one batch, each row on its own."""

import codecs
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import finite
from layers.stack import unstacked
from text import EOS, Batch, marks

MOST_BYTES = 2**30  # positions are int32, and room for all of them is made at the beginning
STEPS = 16  # symbols per dispatch: the host's share of a byte is small, and text still comes as one watches
_LENGTH_MULTIPLE = 128  # prompts of similar length share one compilation


def generate(
  model,
  prompts: Sequence[bytes],
  max_bytes: int,
  temperature: float = 1.0,
  top_p: float = 1.0,
  seed: int = 0,
  stop_at_eos: bool = True,
) -> list[bytes]:
  """The continuation of every prompt: at most `max_bytes` bytes each, without the prompt and without the EOS.

  A model over words goes on inside the prompt's last word; the ends of words that it draws, symbols for which its
  `is_text` is False, are not given out and do not count as bytes. A model of units draws units (its `symbols`); the
  last one is cut where it would go past `max_bytes`, so that the number of bytes does not depend on what spells them.
  A prompt may end inside what would be one unit if it went on: what is drawn follows its units as it stands.

  A BOS is put before each prompt (which may be empty). `temperature` 0 takes the likeliest symbol; `top_p` < 1 samples
  from the likeliest ones that together reach that probability, the one that crosses it included. What is too small for
  float32 is the limit: the likeliest symbol. Row r draws from a key made of (seed, r) alone, so what else is in the
  batch changes nothing. A row ends at its first EOS if `stop_at_eos`; otherwise EOS is a byte like the others, as a
  generated BOS always is.

  Raises ValueError if there is no prompt, a prompt is not bytes, max_bytes is outside [1, MOST_BYTES], temperature
  < 0, top_p is outside (0, 1], or the seed outside [0, 2³²); NotFiniteError, a ValueError, where the model gives nan or
  inf for a symbol that would be drawn, or -inf for all of them (-inf for some: these are never drawn).
  """
  pieces = zip(*stream(model, prompts, max_bytes, temperature, top_p, seed, stop_at_eos), strict=True)
  return [b''.join(row) for row in pieces]


def stream(
  model,
  prompts: Sequence[bytes],
  max_bytes: int,
  temperature: float = 1.0,
  top_p: float = 1.0,
  seed: int = 0,
  stop_at_eos: bool = True,
) -> Iterator[list[bytes]]:
  """`generate` while it happens: yields, a few bytes at a time, the list of what came new for every row.

  What was drawn before logits that are not finite is given before the error is raised.
  """
  check(prompts, max_bytes, temperature, top_p, seed)
  return _stream(model, prompts, max_bytes, temperature, top_p, seed, stop_at_eos)


def check(prompts: Sequence[bytes], max_bytes: int, temperature: float, top_p: float, seed: int) -> None:
  """Raises the ValueError of `generate`, without a model."""
  if not prompts:
    raise ValueError('there is no prompt: give at least one (it may be empty)')
  for prompt in prompts:
    if not isinstance(prompt, bytes):
      raise ValueError(f'prompts are bytes, got the {type(prompt).__name__} {prompt!r:.50}')
  if max_bytes < 1:
    raise ValueError(f'max_bytes must be at least 1, got {max_bytes}')
  if max_bytes > MOST_BYTES:
    raise ValueError(f'max_bytes must be at most {MOST_BYTES}, got {max_bytes}')
  if not 0 <= temperature < math.inf:
    raise ValueError(f'temperature must be a number ≥ 0 (0 is greedy), got {temperature}')
  if not 0 < top_p <= 1:
    raise ValueError(f'top_p must be above 0 and at most 1, got {top_p}')
  if not 0 <= seed < 2**32:
    raise ValueError(f'the seed must be between 0 and 2³² − 1, got {seed}')


def decode_utf8(pieces: Iterable[bytes]) -> Iterator[str]:
  """Bytes that come in pieces, as text: a character is given as soon as it is whole, the tail at the end.

  Every byte that cannot be part of a character gives U+FFFD (as `bytes.decode` counts them) and holds nothing up.
  """
  decoder = codecs.getincrementaldecoder('utf-8')('replace')
  for piece in pieces:
    yield decoder.decode(piece)
  yield decoder.decode(b'', final=True)


def _stream(model, prompts, max_bytes, temperature, top_p, seed, stop_at_eos):
  rows, lengths = len(prompts), np.array([1 + len(prompt) for prompt in prompts], np.int32)
  # The last dispatch may run past max_bytes; its steps need a place too. A row that is done and runs further beside
  # others breaks nothing but itself.
  cache = model.init_cache(rows, _round_up(lengths.max() + max_bytes + STEPS))
  keys_B = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(rows))
  # The device takes what is below the smallest normal float32 for zero; the limit is the likeliest byte.
  float32 = np.finfo(np.float32)
  greedy, nucleus = min(temperature, top_p) < float32.tiny, np.float32(top_p) < 1
  batch = marks.mark(Batch.begun(prompts, _round_up(lengths.max())), model.marks)
  logits_BxV, cache = _prefill(model, batch, lengths, cache)
  table = model.symbols
  ends = {symbol for symbol, spelled in enumerate(table) if spelled == bytes([EOS])}
  if logits_BxV.shape[-1] > len(table):
    raise ValueError(f'the model predicts {logits_BxV.shape[-1]} symbols and says of {len(table)} what they spell')
  limits = jnp.float32(min(temperature, float(float32.max))), jnp.float32(top_p)
  model = jax.jit(unstacked)(model)

  def dispatch(start):
    nonlocal logits_BxV, cache
    logits_BxV, cache, *drawn = _continue(
      model, logits_BxV, cache, keys_B, start, *limits, greedy=greedy, nucleus=nucleus
    )
    return drawn

  done, given, ahead = np.zeros(rows, bool), np.zeros(rows, np.int64), None
  for start in itertools.count(0, STEPS):
    now = ahead or dispatch(start)
    # The next symbols are under way while the host reads these, where it is likely that somebody wants them.
    ahead = dispatch(start + STEPS) if start + STEPS < max_bytes else None
    drawn_KxB, is_text_KxB, is_finite_KxB = map(np.asarray, now)
    pieces, known_B = [], np.where(is_finite_KxB.all(0), STEPS, is_finite_KxB.argmin(0))  # steps before nan or inf
    for row, (drawn, is_text, known) in enumerate(zip(drawn_KxB.T, is_text_KxB.T, known_B, strict=True)):
      symbols = [] if done[row] else drawn[:known][is_text[:known]].tolist()
      if stop_at_eos and not ends.isdisjoint(symbols):
        symbols, done[row] = list(itertools.takewhile(lambda symbol: symbol not in ends, symbols)), True
      piece = b''.join(table[symbol] for symbol in symbols)
      piece = piece[: max_bytes - given[row]]
      given[row] += len(piece)
      done[row] |= given[row] == max_bytes
      pieces.append(piece)
    yield pieces
    if len(bad := np.flatnonzero(~done & (known_B < STEPS))):
      raise finite.NotFiniteError(
        f"the model's logits are not finite after {given[bad[0]]} bytes that continue prompt {bad[0]}, so there is no "
        f'next one: {finite.REMEDY}'
      )
    if done.all():
      return


def _round_up(length) -> int:
  return int(length) + -int(length) % _LENGTH_MULTIPLE


@functools.partial(jax.jit, donate_argnames='cache')
def _prefill(model, batch, lengths_B, cache):
  logits_BxV, cache = model.prefill(batch, lengths_B, cache)
  return logits_BxV.astype(jnp.float32), cache


@functools.partial(jax.jit, static_argnames=('greedy', 'nucleus'), donate_argnames=('logits_BxV', 'cache'))
def _continue(model, logits_BxV, cache, keys_B, start, temperature, top_p, *, greedy, nucleus):
  """Draws and takes in STEPS symbols: (next logits, cache, symbols [STEPS, B], which of them are text, and which were
  drawn from logits that leave a choice).
  """

  def one(carry, index):
    logits_BxV, cache = carry
    is_finite_B = jnp.isfinite(jnp.max(logits_BxV, -1))  # the largest is nan if any is
    if greedy:
      symbol_B = jnp.argmax(logits_BxV, -1)
    else:
      keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B, index)
      symbol_B = sample(keys, logits_BxV, temperature, top_p if nucleus else None)
    symbol_B = symbol_B.astype(jnp.uint8 if logits_BxV.shape[-1] <= 256 else jnp.int32)
    is_text_B = model.is_text(symbol_B, cache)
    logits_BxV, cache = model.step(symbol_B, cache)
    return (logits_BxV.astype(jnp.float32), cache), (symbol_B, is_text_B, is_finite_B)

  (logits_BxV, cache), drawn = jax.lax.scan(one, (logits_BxV, cache), start + jnp.arange(STEPS))
  return logits_BxV, cache, *drawn


def sample(keys_B, logits_BxV, temperature, top_p=None):
  """One symbol per row, int32 [B]; top_p None samples from all of them."""
  # Relative to the largest, so that a small temperature cannot overflow it.
  logits_BxV = (logits_BxV - jnp.max(logits_BxV, -1, keepdims=True)) / temperature
  if top_p is not None:
    logits_BxV = jnp.where(nucleus_mask(logits_BxV, top_p), logits_BxV, -jnp.inf)
  return jax.vmap(jax.random.categorical)(keys_B, logits_BxV).astype(jnp.int32)


def nucleus_mask(logits_BxV, top_p):
  """[B, V] bool: the likeliest symbols of each row, up to and including the one that crosses top_p."""
  order_BxV = jnp.argsort(-logits_BxV, -1)
  p_BxV = jnp.take_along_axis(jax.nn.softmax(logits_BxV, -1), order_BxV, -1)
  before_BxV = jnp.pad(jnp.cumsum(p_BxV, -1)[:, :-1], ((0, 0), (1, 0)))
  kept_BxV = (before_BxV < top_p).at[:, 0].set(True)
  return jnp.put_along_axis(jnp.zeros_like(kept_BxV), order_BxV, kept_BxV, -1, inplace=False)
