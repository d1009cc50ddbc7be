"""One model for HAT, Word-Pooled and MegaByte: words in, a causal backbone over words, isolated local models per word.

* HAT (Neitemeier et al. 2025, arXiv:2501.10322): a bidirectional encoder pools a word into k = 1 vector, projected to
  the backbone's width; the projected output is the first position of the next word's causal decoder.
* Word-Pooled (Thawani et al. 2023, "Learn Your Tokens"): k = 4 vectors, each a backbone position, whose outputs are the
  first k positions of the next word's decoder; or the k vectors joined to one wide position. Blocks are pre-norm and
  rotary as everywhere here, not minGPT's.
* MegaByte (arXiv:2305.07185): a word is a patch of fixed size, pooled by concatenating its byte embeddings; a slice of
  the backbone's output and the embedding of the byte before go into each position of the local decoder.

What a word's decoder sees is the prediction for that word and the word's own beginning, nothing else. So the end of a
word is a symbol of its own, [W], and a text's bits are those of bytes and [W] together. The nats of a [W] count to the
byte behind it, the first of the next word: -log p([W]) - log p(byte). In front of EOS they count to EOS: that the text
ends is what these two say together, and the bits of the text stay those of the text as a prefix of something longer,
as in every other model here. [W] is certain, and neither predicted nor paid for, behind BOS and behind a word as long
as the cap; patches have none.

The first word of a document is predicted from BOS, a word of its own. A row that continues a document begins with an
unscored symbol: its first word has zeros in place of a prediction, and the rest of that word is scored from the part
of the word that the row has. The end of that word is paid for even if the whole word is as long as the cap, which the
row does not show.

Words may be spelled with characters or subwords instead of bytes (text/units.py): encoder and decoder then run over
these. The nats of a unit stand where the unit does, at its last byte, 0 at its others. A text's bits are those of the
units that the rule makes of it; where other units spell it, too, they are an upper bound on the bits of the text. Rows
that cut a document pay for every unit of it once (text/rows.py). A batch that is marked without its documents
(`text.words.mark_for`) is read as it stands: a unit of which any byte is scored is paid for whole.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from byte_models.word_ar import decoding
from byte_models.word_ar import flops as flops_lib
from byte_models.word_ar.config import WORD_END, WordARConfig
from byte_models.word_ar.decoding import WordCache
from byte_models.word_ar.layout import Symbols, Words, repeat, spelled
from layers import contract, segments
from layers.contract import EVAL, Context, ModelOutput
from layers.linear import Linear, normal
from layers.stack import Stack, StackConfig, height
from text import BOS, units
from text.batch import Batch


class WordAR(nnx.Module):
  """Autoregressive model over the words of `words`; k = `num_vectors` vectors a word."""

  def __init__(self, config: WordARConfig, *, rngs: nnx.Rngs):
    self.config = config
    width, inner = config.decoder.width, config.backbone.width
    self.embeddings = nnx.Param(normal(1.0)(rngs.params(), (config.vocab_size, width)))
    if config.encoder:
      # Vectors of their own, not rows of the byte embeddings, so that no byte can be taken for them.
      self.pooling = nnx.Param(normal(1.0)(rngs.params(), (config.num_vectors, width)))
      self.encoder = _stack(config.encoder, rngs)
    else:
      self.start = nnx.Param(normal(1.0)(rngs.params(), (width,)))  # in place of a byte before the first of a patch
    outer = config.inputs * width // config.positions
    if outer != inner or not config.encoder:
      self.widen = Linear(outer, inner, kernel_init=normal(outer**-0.5), rngs=rngs)
    self.backbone = _stack(config.backbone, rngs)
    if outer != inner or not config.encoder:
      self.narrow = Linear(inner, outer, kernel_init=normal(inner**-0.5), rngs=rngs)
    self.decoder = _stack(config.decoder, rngs)
    self.lm_head = Linear(width, config.vocab_size, kernel_init=normal(0.02), rngs=rngs)

  @property
  def words(self) -> str | None:
    """The splitter that fills `Batch.word_starts`; None for patches, which need none."""
    return self.config.words if self.config.encoder else None

  @property
  def units(self) -> str | None:
    """The units that fill `Batch.units`; None where words are spelled with bytes."""
    return None if self.config.units == 'byte' else self.config.units

  @property
  def unit_table(self) -> tuple[bytes, ...] | None:
    """The bytes of every symbol that `step` reads as text; None where symbols are bytes."""
    return None if self.config.units == 'byte' else units.parse(self.config.units).table

  @property
  def word_end(self) -> int | None:
    """The symbol that ends a word; None for patches."""
    return WORD_END if self.config.encoder else None

  def level_sizes(self, fresh: bool = False) -> tuple[float, ...]:
    """Bytes of a word, as stated, and before it those of a unit where words are not spelled with bytes."""
    del fresh
    units = (max(1.0, 1 / self.config.units_per_byte),) if self.units else ()
    return (*units, *self.config.bytes_per_chunk)

  def __call__(self, batch: Batch, *, context: Context = EVAL, capacities: Sequence[int] | None = None) -> ModelOutput:
    """Nats of every byte, see the module; no logits, since they are not one set a byte: `symbol_logits` has them.

    capacities: (words,), or (units, words) where words are spelled with units.
    """
    del context
    symbols, places = spelled(self.config, batch)
    nll_BxL, capacity = self._run(symbols, capacities, _nats)
    bytes_, count_B = jnp.sum(jnp.asarray(batch.segment_ids) > 0), jnp.sum(symbols.starts_BxL, 1)
    of_words = {
      'boundary_rate': jnp.sum(count_B) / jnp.maximum(bytes_, 1),
      'bytes_per_chunk': bytes_ / jnp.maximum(jnp.sum(count_B), 1),
      'fill': jnp.mean(count_B) / capacity,
    }
    metrics, needed = {}, (jnp.max(count_B),)
    if self.units:
      metrics['bytes_per_unit'] = bytes_ / jnp.maximum(jnp.sum(places.is_last_BxL), 1)
      needed = (jnp.max(jnp.sum(symbols.segment_ids_BxL > 0, 1)), *needed)
    return ModelOutput(
      nll=jnp.where(batch.scored, places.at_last(nll_BxL), 0.0),
      segmentations=(places.starts_BxL,),
      boundary_probabilities=(places.starts_BxL.astype(jnp.float32),),
      needed=needed,
      metrics=jax.tree.map(jnp.float32, metrics),
      stage_metrics=(jax.tree.map(jnp.float32, of_words),),
    )

  def symbol_logits(self, batch: Batch) -> tuple[Array, Array | None]:
    """(of the symbol, of the end): both [B, L, V] float32, at every byte those of the symbol that it is part of.

    The first are those that each symbol was predicted with, given that its word goes on or has begun. The second are
    for what follows it within its word: at the last symbol of a word, WORD_END is the target; None for patches.
    """
    symbols, places = spelled(self.config, batch)
    return jax.tree.map(places.spread, self._run(symbols, None, _logits)[0])

  def likeliest(self, batch: Batch) -> tuple[Array, Array, Array]:
    """(whether greedy decoding of the text before a symbol writes it, what it writes there, nats), each [B, L].

    Nobody tells that a word has ended: to write the first symbol of the next, decoding has to draw WORD_END before it;
    where it goes on with another symbol, that is what it writes. Inside a word it may write WORD_END itself. Both are
    said at every byte of a symbol. Nats are those of `__call__`.
    """
    symbols, places = spelled(self.config, batch)
    is_right_BxL, written_BxL, nats_BxL = self._run(symbols, None, _likeliest)[0]
    nats_BxL = jnp.where(batch.scored, places.at_last(nats_BxL), 0.0)
    return places.spread(is_right_BxL), places.spread(written_BxL), nats_BxL

  def _run(self, symbols: Symbols, capacities: Sequence[int] | None, read: Callable) -> tuple[Any, int]:
    """(what `read` makes of the hidden states, [B, U, ...]; words that a row has room for)."""
    capacities = contract.checked_capacities(capacities, len(self.level_sizes()), symbols.ids_BxL.shape[1])
    if self.units and capacities[0] is not None:
      symbols = symbols.first(capacities[0])
    capacity = capacities[-1] or symbols.ids_BxL.shape[1]
    words = Words.of(symbols.starts_BxL, symbols.segment_ids_BxL, self.config.num_vectors, capacity)
    x_BxUxD = self.embed(symbols.ids_BxL)
    z_BxNxD = self.backbone(self.encode(x_BxUxD, words), repeat(words.segment_ids_BxS, self.config.positions))
    vectors = words.from_previous(self.predictions(z_BxNxD))
    return read(self, words, symbols, *self.decode(x_BxUxD, vectors, words)), capacity

  def embed(self, symbols: Array) -> Array:
    """Symbols [...] -> [..., d] in the dtype of the activations."""
    return self.embeddings[symbols.astype(jnp.int32)].astype(self.config.dtype)

  def encode(self, x_BxLxD: Array, words: Words) -> Array:
    """Embedded symbols -> inputs of the backbone [B, N, D], `positions` for every word, N in all."""
    config = self.config
    batch, count = words.first_BxS.shape
    if config.encoder:
      pooling = jnp.tile(self.pooling[...].astype(x_BxLxD.dtype), (batch, count, 1))
      _, joined = words.unpack(self.encoder(words.pack(x_BxLxD, pooling), words.local_ids_BxC))
    else:
      joined = words.patches(x_BxLxD, config.longest)
    joined = joined.reshape(batch, count * config.positions, -1)
    return self.widen(joined) if hasattr(self, 'widen') else joined

  def predictions(self, z_BxNxD: Array) -> Array:
    """Outputs of the backbone -> the vectors that predict the next words: [B, S, inputs, d]."""
    y = self.narrow(z_BxNxD) if hasattr(self, 'narrow') else z_BxNxD
    return y.reshape(y.shape[0], y.shape[1] // self.config.positions, self.config.inputs, -1)

  def decode(self, x_BxLxD: Array, vectors_BxSxKxD: Array, words: Words) -> tuple[Array, Array | None]:
    """Hidden states (before, behind): before the first symbol of each word [B, S, d], behind each symbol [B, L, d].

    vectors: the prediction for each word. For patches: (before each byte [B, L, d], None).
    """
    if self.config.encoder:
      vectors = vectors_BxSxKxD.reshape(len(x_BxLxD), -1, x_BxLxD.shape[-1])
      behind, before = words.unpack(self.decoder(words.pack(x_BxLxD, vectors), words.local_ids_BxC))
      return before[:, self.config.num_vectors - 1 :: self.config.num_vectors], behind
    previous = jnp.pad(x_BxLxD[:, :-1], ((0, 0), (1, 0), (0, 0)))
    previous = jnp.where(words.starts_BxL[..., None], self.start[...].astype(x_BxLxD.dtype), previous)
    ids_BxL = jnp.where(words.is_byte_BxL, words.word_BxL + 1, 0)
    return self.decoder(previous + words.per_byte(vectors_BxSxKxD), ids_BxL), None

  def head(self, hidden: Array) -> Array:
    """Logits [..., V] float32 of hidden states [..., d]."""
    return self.lm_head(hidden).astype(jnp.float32)

  def init_cache(self, batch_size: int, max_bytes: int) -> WordCache:
    """Decoding caches for `batch_size` rows of at most `max_bytes` bytes: prompt and BOS, not ends of words."""
    return decoding.init_cache(self, batch_size, max_bytes)

  def prefill(
    self,
    bytes_BxP: Array,
    length_B: Array,
    cache: WordCache,
    word_starts_BxP: Array | None = None,
    units_BxP: Array | None = None,
  ) -> tuple[Array, WordCache]:
    """Reads right-padded prompts, bytes without ends of words, into a fresh cache; the last word stays open.

    word_starts_BxP, units_BxP: as in a Batch; left out, they are made here, which under tracing is a ValueError. Logits
    [B, V] are for the symbol behind each row's last unit. A prompt may end inside what would be one unit if it went on:
    it is taken as it stands.
    """
    bytes_BxP, length_B = jnp.asarray(bytes_BxP), jnp.asarray(length_B)
    index_1xP = jnp.arange(bytes_BxP.shape[1])[None]
    segment_ids_BxP = (index_1xP < length_B[:, None]).astype(jnp.int32)
    specials_BxP = (index_1xP == 0) & (bytes_BxP == BOS)  # a last byte of EOS's value is one like others
    prompts = Batch(bytes_BxP, segment_ids_BxP, word_starts_BxP, units_BxP, specials_BxP)
    return decoding.prefill(self, prompts, length_B, cache)

  def step(self, symbol_B: Array, cache: WordCache) -> tuple[Array, WordCache]:
    """Reads one symbol a row, a byte or unit or WORD_END; logits [B, V] are for the next.

    WORD_END ends a word that has begun; as the first symbol of a word it is a byte. Words that reach the cap end
    without it, as patches do.
    """
    return decoding.step(self, symbol_B, cache)

  def is_text(self, symbol_B: Array, cache: WordCache) -> Array:
    """[B] bool: whether `step` would read the symbol as part of the text and not as the end of a word."""
    return decoding.is_text(self, symbol_B, cache)

  @property
  def num_stages(self) -> int:
    """Two: the local models with embeddings and projections, and the backbone."""
    return 2

  def stage_of(self, path: str) -> int:
    """0 for the parameters of the local models, 1 for the backbone's."""
    return int(path.split('.')[0] == 'backbone')

  def lr_multipliers(self, spec: Sequence[float] | str | None = None) -> tuple[float, ...]:
    """One multiplier for the local models and one for the backbone: as given, or 1 for both (None)."""
    if spec is None:
      return (1.0, 1.0)
    if isinstance(spec, str) or len(spec) != 2 or min(spec) < 0:
      raise ValueError(
        f'optimizer.lr_multipliers {spec!r}: two non-negative numbers, for the local models and for the backbone.'
      )
    return tuple(float(value) for value in spec)

  def decays(self, path: str, exempt: str = 'default') -> bool:
    """Whether weight decay applies to a parameter: to all but the scales of norms, whatever `exempt` says."""
    del exempt
    return not path.endswith('scale')

  def flops_per_byte(self, length: int, bytes_per_chunk: Sequence[float] | None = None) -> dict[str, float]:
    """Forward FLOPs a byte by component for documents of `length` bytes; see `byte_models.word_ar.flops`."""
    return flops_lib.flops_per_byte(self.config, length, bytes_per_chunk)


def _stack(config: StackConfig, rngs: nnx.Rngs) -> Stack:
  """A stack whose output projections are scaled by its own depth: each has a residual stream of its own."""
  return Stack(config, output_deviation=0.02 * height(config.layout) ** -0.5, rngs=rngs)


def _nats(model: WordAR, words: Words, symbols: Symbols, before: Array, behind: Array | None) -> Array:
  """Nats of every symbol, with those of the end of the word before it: [B, L]."""
  ids_BxL, starts_BxL = symbols.ids_BxL, words.starts_BxL
  if behind is None:
    return _cross_entropy(model.head(before), ids_BxL)
  next_BxL = jnp.where(_next(starts_BxL), WORD_END, _next(ids_BxL))
  behind_BxL = _previous(_cross_entropy(model.head(behind), next_BxL))
  first_BxS = jnp.take_along_axis(ids_BxL, words.first_BxS, 1, mode='clip')
  before_BxS = _cross_entropy(model.head(before), first_BxS)
  before_BxL = jnp.take_along_axis(before_BxS, words.word_BxL, 1, mode='clip')
  first_BxL = segments.starts(symbols.segment_ids_BxL)
  is_certain_BxL = _previous(symbols.is_ended_BxL)
  end_BxL = jnp.where(is_certain_BxL | first_BxL, 0.0, behind_BxL)  # no word ends before a document's first unit
  return jnp.where(starts_BxL, before_BxL + end_BxL, behind_BxL)


def _logits(model: WordAR, words: Words, symbols: Symbols, before: Array, behind: Array | None) -> tuple:
  """(of every symbol, of what follows it within its word or None): [B, L, V]."""
  del symbols
  if behind is None:
    return model.head(before), None
  before, behind = model.head(before), model.head(behind)
  index_BxLx1 = words.word_BxL[..., None]
  of_first = jnp.take_along_axis(before, index_BxLx1, 1, mode='clip')
  return jnp.where(words.starts_BxL[..., None], of_first, _previous(behind)), behind


def _likeliest(model: WordAR, words: Words, symbols: Symbols, before: Array, behind: Array | None) -> tuple:
  """What `WordAR.likeliest` says, of symbols: [B, L] each."""
  of_symbol, of_end = _logits(model, words, symbols, before, behind)
  best_BxL, goes_on_BxL = of_symbol.argmax(-1), jnp.zeros(symbols.ids_BxL.shape, bool)
  if of_end is not None:
    next_BxL = of_end.argmax(-1)
    goes_on_BxL = words.starts_BxL & _previous((next_BxL != WORD_END) & ~symbols.is_ended_BxL)
    best_BxL = jnp.where(goes_on_BxL, _previous(next_BxL), best_BxL)
  is_right_BxL = (best_BxL == symbols.ids_BxL) & ~goes_on_BxL
  return is_right_BxL, best_BxL, _nats(model, words, symbols, before, behind)


def _cross_entropy(logits: Array, targets: Array) -> Array:
  chosen = jnp.take_along_axis(logits, targets[..., None].astype(jnp.int32), -1)[..., 0]
  return jax.nn.logsumexp(logits, -1) - chosen


def _next(values_BxL: Array) -> Array:
  return jnp.roll(values_BxL, -1, 1)


def _previous(values_BxLx: Array) -> Array:
  return jnp.roll(values_BxLx, 1, 1)
