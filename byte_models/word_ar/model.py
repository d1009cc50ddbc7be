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
(`text.marks.mark`) is read as it stands: a unit of which any byte is scored is paid for whole.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from byte_models.word_ar import flops as flops_lib
from byte_models.word_ar import scores
from byte_models.word_ar.config import WORD_END, WordARConfig
from byte_models.word_ar.decoding import WordCache
from byte_models.word_ar.layout import Symbols, Words, repeat, spelled
from layers import contract
from layers.contract import BYTES, EVAL, ByteModel, Context, ModelOutput
from layers.linear import Linear, normal
from layers.stack import Stack, StackConfig, height
from text import BOS, units
from text.batch import Batch


class WordAR(ByteModel):
  """Autoregressive model over the words of `words`; k = `num_vectors` vectors a word."""

  emits = ('ends',)

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
  def marks(self) -> dict[str, str]:
    """See `layers.contract.Model`."""
    return self.config.marks

  @property
  def symbols(self) -> tuple[bytes, ...]:
    """Those of the units; the end of a word, where it is read as text, is its byte."""
    return BYTES if self.config.units == 'byte' else units.parse(self.config.units).table

  @property
  def alphabet(self) -> dict[str, str]:
    """The units, wherever their file lies."""
    if self.config.units == 'byte':
      return {}
    file = units.file_of(self.config.units)
    return {'units': f'subword(digest={file[1]})' if file else self.config.units}

  @property
  def word_end(self) -> int | None:
    """The symbol that ends a word; None for patches."""
    return WORD_END if self.config.encoder else None

  def level_sizes(self, fresh: bool = False) -> tuple[float, ...]:
    """Bytes of a word, as stated, and before it those of a unit where words are not spelled with bytes."""
    del fresh
    units = (max(1.0, 1 / self.config.units_per_byte),) if 'units' in self.marks else ()
    return (*units, *self.config.bytes_per_chunk)

  def __call__(self, batch: Batch, *, context: Context = EVAL, capacities: Sequence[int] | None = None) -> ModelOutput:
    """Nats of every byte, see the module; no logits, since they are not one set a byte: `symbol_logits` has them.

    capacities: (words,), or (units, words) where words are spelled with units.
    """
    del context
    symbols, places = spelled(self.config, batch)
    nll_BxL, capacity = self._run(symbols, capacities, scores.nats)
    bytes_, count_B = jnp.sum(jnp.asarray(batch.segment_ids) > 0), jnp.sum(symbols.starts_BxL, 1)
    of_words = {
      'boundary_rate': jnp.sum(count_B) / jnp.maximum(bytes_, 1),
      'bytes_per_chunk': bytes_ / jnp.maximum(jnp.sum(count_B), 1),
      'fill': jnp.mean(count_B) / capacity,
    }
    metrics = {}
    if 'units' in self.marks:
      metrics['bytes_per_unit'] = bytes_ / jnp.maximum(jnp.sum(places.is_last_BxL), 1)
    return ModelOutput(
      nll=jnp.where(batch.scored, places.at_last(nll_BxL), 0.0),
      segmentations=(places.starts_BxL,),
      boundary_probabilities=(places.starts_BxL.astype(jnp.float32),),
      needed=self._needed(symbols),
      metrics=jax.tree.map(jnp.float32, metrics),
      stage_metrics=(jax.tree.map(jnp.float32, of_words),),
    )

  def _needed(self, symbols: Symbols) -> tuple[Array, ...]:
    words = jnp.max(jnp.sum(symbols.starts_BxL, 1))
    return (jnp.max(jnp.sum(symbols.segment_ids_BxL > 0, 1)), words) if 'units' in self.marks else (words,)

  def symbol_logits(self, batch: Batch) -> tuple[Array, Array | None]:
    """(of the symbol, of the end): both [B, L, V] float32, at every byte those of the symbol that it is part of.

    The first are those that each symbol was predicted with, given that its word goes on or has begun. The second are
    for what follows it within its word: at the last symbol of a word, WORD_END is the target; None for patches.
    """
    symbols, places = spelled(self.config, batch)
    return jax.tree.map(places.spread, self._run(symbols, None, scores.logits)[0])

  def likeliest(self, batch: Batch, *, capacities: Sequence[int] | None = None) -> tuple[Array, Array, Array, tuple]:
    """(whether greedy decoding of the text before a symbol writes it, what it writes there, nats: [B, L]; needed).

    Nobody tells that a word has ended: to write the first symbol of the next, decoding has to draw WORD_END before it;
    where it goes on with another symbol, that is what it writes. Inside a word it may write WORD_END itself. Both are
    said at every byte of a symbol. Nats are those of `__call__`.
    """
    symbols, places = spelled(self.config, batch)
    is_right_BxL, written_BxL, nats_BxL = self._run(symbols, capacities, scores.likeliest)[0]
    nats_BxL = jnp.where(batch.scored, places.at_last(nats_BxL), 0.0)
    return places.spread(is_right_BxL), places.spread(written_BxL), nats_BxL, self._needed(symbols)

  def _run(self, symbols: Symbols, capacities: Sequence[int] | None, read: Callable) -> tuple[Any, int]:
    """(what `read` makes of the logits before words and behind symbols; words that a row has room for)."""
    capacities = contract.checked_capacities(capacities, len(self.level_sizes()), symbols.ids_BxL.shape[1])
    if 'units' in self.marks and capacities[0] is not None:
      symbols = symbols.first(capacities[0])
    capacity = capacities[-1] or symbols.ids_BxL.shape[1]
    words = Words.of(symbols.starts_BxL, symbols.segment_ids_BxL, self.config.num_vectors, capacity)
    x_BxUxD = self.embed(symbols.ids_BxL)
    z_BxNxD = self.backbone(self.encode(x_BxUxD, words), repeat(words.segment_ids_BxS, self.config.positions))
    vectors = words.from_previous(self.predictions(z_BxNxD))
    before, behind = self.decode(x_BxUxD, vectors, words)
    return read(words, symbols, self.head(before), None if behind is None else self.head(behind)), capacity

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
    config = self.config
    return WordCache(
      backbone=self.backbone.init_cache(batch_size, config.positions * max_bytes),
      decoder=self.decoder.init_cache(batch_size, config.num_vectors + config.longest),
      vectors_BxKxD=jnp.zeros((batch_size, config.inputs, config.decoder.width), config.dtype),
      word_BxP=jnp.zeros((batch_size, config.longest), jnp.uint8 if config.units == 'byte' else jnp.int32),
      size_B=jnp.zeros(batch_size, jnp.int32),
      bytes_B=jnp.zeros(batch_size, jnp.int32),
    )

  def prefill(self, batch: Batch, length_B: Array, cache: WordCache) -> tuple[Array, WordCache]:
    """Reads right-padded prompts, bytes without ends of words, into a fresh cache; the last word stays open.

    Logits [B, V] are for the symbol behind each row's last unit. A prompt may end inside what would be one unit if it
    went on: it is taken as it stands.
    """
    batch, length_B, config = batch.up_to(length_B), jnp.asarray(length_B), self.config
    (symbols, places), index_1xP = spelled(config, batch), jnp.arange(batch.bytes.shape[1])[None]
    words = Words.of(symbols.starts_BxL, symbols.segment_ids_BxL, config.num_vectors, index_1xP.shape[1])
    count_B = jnp.sum(symbols.starts_BxL, 1)
    last_Bx1 = jnp.maximum(count_B - 1, 0)[:, None]
    size_B = jnp.take_along_axis(words.size_BxS, last_Bx1, 1)[:, 0]
    bytes_B = length_B - jnp.max(jnp.where(places.starts_BxL, index_1xP, 0), 1)
    is_bos_B = (length_B == 1) & (symbols.ids_BxL[:, 0] == BOS)
    has_ended_B = (bytes_B == config.longest) | is_bos_B
    ended_B = count_B - 1 + has_ended_B
    size_B, bytes_B = (jnp.where(has_ended_B, 0, count_B) for count_B in (size_B, bytes_B))

    g = self.encode(self.embed(symbols.ids_BxL), words)
    z, backbone = self.backbone.prefill(g, ended_B * config.positions, cache.backbone)
    index = (ended_B - 1)[:, None] * config.positions + jnp.arange(config.positions)[None]
    z = jnp.take_along_axis(z, jnp.maximum(index, 0)[..., None], 1)
    vectors = jnp.where((ended_B > 0)[:, None, None], self.predictions(z)[:, 0], 0)

    first_Bx1 = jnp.take_along_axis(words.first_BxS, last_Bx1, 1)
    offset_1xP = jnp.arange(config.longest)[None]
    word_BxP = jnp.take_along_axis(symbols.ids_BxL, first_Bx1 + offset_1xP, 1, mode='clip')
    word_BxP = jnp.where(offset_1xP < size_B[:, None], word_BxP, 0)
    x = jnp.concatenate([self._opening(vectors), self._behind(word_BxP, offset_1xP + 1, vectors)], 1)
    slots_B = self._num_opening + size_B
    h, decoder = self.decoder.prefill(x[:, : config.num_vectors + config.longest], slots_B, cache.decoder)
    h = jnp.take_along_axis(h, (slots_B - 1)[:, None, None], 1)[:, 0]
    return self.head(h), WordCache(backbone, decoder, vectors, word_BxP, size_B, bytes_B)

  def step(self, symbol_B: Array, cache: WordCache) -> tuple[Array, WordCache]:
    """Reads one symbol a row, a byte or unit or WORD_END; logits [B, V] are for the next.

    WORD_END ends a word that has begun; as the first symbol of a word it is a byte. Words that reach the cap end
    without it, as patches do.
    """
    config = self.config
    is_text_B = self.is_text(symbol_B, cache)
    place_B = jnp.where(is_text_B, cache.size_B, config.longest)
    rows_B, read_B = jnp.arange(len(place_B)), symbol_B.astype(cache.word_BxP.dtype)
    word_BxP = cache.word_BxP.at[rows_B, place_B].set(read_B, mode='drop')
    size_B = cache.size_B + is_text_B
    width_B = 1 if config.units == 'byte' else jnp.asarray(units.parse(config.units).sizes)[read_B]
    bytes_B = cache.bytes_B + is_text_B * width_B
    ends_B = ~is_text_B | (bytes_B >= config.longest)  # a unit that is drawn may reach over the cap
    x = self._behind(symbol_B[:, None], size_B[:, None], cache.vectors_BxKxD)[:, 0]
    h, decoder = self.decoder.step(x, ~ends_B, cache.decoder)
    cache = WordCache(cache.backbone, decoder, cache.vectors_BxKxD, word_BxP, size_B, bytes_B)
    h, cache = jax.lax.cond(
      jnp.any(ends_B), lambda h, cache: self._end_word(ends_B, h, cache), lambda h, cache: (h, cache), h, cache
    )
    return self.head(h), cache

  def is_text(self, symbol_B: Array, cache: WordCache) -> Array:
    """[B] bool: whether `step` would read the symbol as part of the text and not as the end of a word."""
    if not self.config.encoder:
      return jnp.ones(symbol_B.shape, bool)
    return (symbol_B != WORD_END) | (cache.size_B == 0)

  def _end_word(self, ends_B: Array, h_BxD: Array, cache: WordCache) -> tuple[Array, WordCache]:
    """Gives the word of the rows that end one to the backbone and opens the next; (h with theirs, cache)."""
    config = self.config
    offset_1xP = jnp.arange(config.longest)[None]
    is_symbol_BxP = offset_1xP < cache.size_B[:, None]
    starts_BxP = is_symbol_BxP & (offset_1xP == 0)
    word = Words.of(starts_BxP, is_symbol_BxP.astype(jnp.int32), config.num_vectors, 1)
    g_BxNxD, z, backbone = self.encode(self.embed(cache.word_BxP), word), [], cache.backbone
    for position in range(config.positions):
      z_BxD, backbone = self.backbone.step(g_BxNxD[:, position], ends_B, backbone)
      z.append(z_BxD)
    new_BxKxD = self.predictions(jnp.stack(z, 1))[:, 0]
    vectors = jnp.where(ends_B[:, None, None], new_BxKxD, cache.vectors_BxKxD)
    # The open word's keys lie at the beginning of its cache, as long as the longest word: forgetting is a count.
    decoder = tuple(dataclasses.replace(c, length_B=jnp.where(ends_B, 0, c.length_B)) for c in cache.decoder)
    opening_BxNxD = self._opening(vectors)
    for slot in range(self._num_opening):
      new_BxD, decoder = self.decoder.step(opening_BxNxD[:, slot], ends_B, decoder)
    size_B, bytes_B = (jnp.where(ends_B, 0, count_B) for count_B in (cache.size_B, cache.bytes_B))
    h_BxD = jnp.where(ends_B[:, None], new_BxD, h_BxD)
    return h_BxD, WordCache(backbone, decoder, vectors, cache.word_BxP, size_B, bytes_B)

  @property
  def _num_opening(self) -> int:
    return self.config.num_vectors or 1

  def _opening(self, vectors_BxKxD: Array) -> Array:
    """Inputs of the decoder before the first symbol of a word: [B, k, d], or [B, 1, d] for patches."""
    if self.config.encoder:
      return vectors_BxKxD
    return vectors_BxKxD[:, :1] + self.start[None, None].astype(vectors_BxKxD.dtype)

  def _behind(self, symbols_BxN: Array, size_BxN: Array, vectors_BxKxD: Array) -> Array:
    """Inputs of the decoder behind symbols that are the size-th of their word, from 1: [B, N, d]."""
    x = self.embed(symbols_BxN)
    if self.config.encoder:
      return x
    index = jnp.broadcast_to(size_BxN, symbols_BxN.shape)[..., None]
    return x + jnp.take_along_axis(vectors_BxKxD, index, 1, mode='clip')

  @property
  def num_stages(self) -> int:
    """Two: the local models with embeddings and projections, and the backbone."""
    return 2

  def stage_of(self, path: str) -> int:
    """0 for the parameters of the local models, 1 for the backbone's."""
    return int(path.split('.')[0] == 'backbone')

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
