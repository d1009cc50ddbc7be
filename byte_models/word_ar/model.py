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
unscored symbol: its first word has zeros in place of a prediction, and the rest of that word is scored from the
word's own beginning alone.
"""

import functools
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
from byte_models.word_ar.layout import Words, repeat, word_starts
from layers import ladder, segments
from layers.contract import EVAL, Context, ModelOutput
from layers.linear import Linear, normal
from layers.stack import Stack, StackConfig, height
from text import BOS
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
  def word_end(self) -> int | None:
    """The symbol that ends a word; None for patches."""
    return WORD_END if self.config.encoder else None

  def __call__(self, batch: Batch, *, context: Context = EVAL) -> ModelOutput:
    """Nats of every byte, see the module; no logits, since they are not one set a byte: `symbol_logits` has them."""
    del context
    starts_BxL = word_starts(self.config, batch)
    nll_BxL, fill = self._on_ladder(batch, starts_BxL, _nats)
    bytes_, words = jnp.sum(jnp.asarray(batch.segment_ids) > 0), jnp.sum(starts_BxL)
    metrics = {
      'boundary_rate_0': words / jnp.maximum(bytes_, 1),
      'bytes_per_chunk_0': bytes_ / jnp.maximum(words, 1),
      'ladder_fill_1': fill,
    }
    return ModelOutput(
      nll=jnp.where(batch.scored, nll_BxL, 0.0),
      segmentations=(starts_BxL,),
      boundary_probabilities=(starts_BxL.astype(jnp.float32),),
      metrics={name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()},
    )

  def symbol_logits(self, batch: Batch) -> tuple[Array, Array | None]:
    """(of the byte, of the end): both [B, L, V] float32.

    The first are those that each byte was predicted with, given that its word goes on or has begun. The second are for
    the symbol behind a byte within its word: at the last byte of a word, WORD_END is the target; None for patches.
    """
    return self._on_ladder(batch, word_starts(self.config, batch), _logits)[0]

  def _on_ladder(self, batch: Batch, starts_BxL: Array, read: Callable) -> tuple[Any, Array]:
    """(what `read` makes of the smallest rung that holds the fullest row, mean words / rung)."""
    bytes_BxL, segment_ids_BxL = jnp.asarray(batch.bytes), jnp.asarray(batch.segment_ids)
    count_B, rungs = jnp.sum(starts_BxL, 1), self.config.ladder.rungs(bytes_BxL.shape[1])
    rung = ladder.rung_index(rungs, count_B)
    rows, indices = {'x': self.embed(bytes_BxL)}, {'bytes': bytes_BxL, 'starts': starts_BxL, 'ids': segment_ids_BxL}
    run = functools.partial(_at_rung, read)
    values = ladder.on_ladder(run, self.config.ladder, rungs, rung, self, rows, indices)
    return values, jnp.mean(count_B) / jnp.array(rungs)[rung]

  def embed(self, bytes_: Array) -> Array:
    """Bytes [...] -> [..., d] in the dtype of the activations."""
    return self.embeddings[bytes_.astype(jnp.int32)].astype(self.config.dtype)

  def encode(self, x_BxLxD: Array, words: Words) -> Array:
    """Byte embeddings -> inputs of the backbone [B, N, D], `positions` for every word, N in all."""
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
    """Hidden states (before, behind): before the first byte of each word [B, S, d] and behind each byte [B, L, d].

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
    self, bytes_BxP: Array, length_B: Array, cache: WordCache, word_starts_BxP: Array | None = None
  ) -> tuple[Array, WordCache]:
    """Reads right-padded prompts, bytes without ends of words, into a fresh cache; the last word stays open.

    word_starts_BxP: as in a Batch; left out, they are made here, which under tracing is a ValueError. Logits [B, V] are
    for the symbol behind each row's last byte.
    """
    return decoding.prefill(self, bytes_BxP, length_B, cache, word_starts_BxP)

  def step(self, symbol_B: Array, cache: WordCache) -> tuple[Array, WordCache]:
    """Reads one symbol a row, a byte or WORD_END; logits [B, V] are for the next.

    WORD_END ends a word that has begun; as the first symbol of a word it is a byte. Words as long as the cap end
    without it, as patches do.
    """
    return decoding.step(self, symbol_B, cache)

  def is_text(self, symbol_B: Array, cache: WordCache) -> Array:
    """[B] bool: whether `step` would read the symbol as a byte and not as the end of a word."""
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
      raise ValueError(f'lr_multipliers {spec!r}: two non-negative numbers, for the local models and for the backbone.')
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


def _at_rung(read: Callable, rung: int, model: WordAR, rows: dict, indices: dict) -> Any:
  """The model for at most `rung` words a row; what `read` makes of its hidden states."""
  x_BxLxD, config = rows['x'], model.config
  words = Words.of(indices['starts'], indices['ids'], config.num_vectors, rung)
  ids_BxN = repeat(words.segment_ids_BxS, config.positions)
  z_BxNxD = model.backbone(model.encode(x_BxLxD, words), ids_BxN)
  vectors = words.from_previous(model.predictions(z_BxNxD))
  return read(model, words, indices, *model.decode(x_BxLxD, vectors, words))


def _nats(model: WordAR, words: Words, indices: dict, before: Array, behind: Array | None) -> Array:
  """Nats of every byte, with those of the end of the word before it: [B, L]."""
  bytes_BxL, starts_BxL = indices['bytes'], words.starts_BxL
  if behind is None:
    return _cross_entropy(model.head(before), bytes_BxL)
  next_BxL = jnp.where(_next(starts_BxL), WORD_END, _next(bytes_BxL))
  behind_BxL = _previous(_cross_entropy(model.head(behind), next_BxL))
  first_BxS = jnp.take_along_axis(bytes_BxL, words.first_BxS, 1, mode='clip')
  before_BxS = _cross_entropy(model.head(before), first_BxS)
  before_BxL = jnp.take_along_axis(before_BxS, words.word_BxL, 1, mode='clip')
  is_full_BxL = segments.positions(words.word_BxL) == model.config.longest - 1
  is_bos_BxL = segments.starts(indices['ids']) & (bytes_BxL == BOS)
  end_BxL = jnp.where(_previous(is_full_BxL | is_bos_BxL), 0.0, behind_BxL)
  return jnp.where(starts_BxL, before_BxL + end_BxL, behind_BxL)


def _logits(model: WordAR, words: Words, indices: dict, before: Array, behind: Array | None) -> tuple:
  """What `WordAR.symbol_logits` returns."""
  del indices
  if behind is None:
    return model.head(before), None
  before, behind = model.head(before), model.head(behind)
  index_BxLx1 = words.word_BxL[..., None]
  of_first = jnp.take_along_axis(before, index_BxLx1, 1, mode='clip')
  return jnp.where(words.starts_BxL[..., None], of_first, _previous(behind)), behind


def _cross_entropy(logits: Array, targets: Array) -> Array:
  chosen = jnp.take_along_axis(logits, targets[..., None].astype(jnp.int32), -1)[..., 0]
  return jax.nn.logsumexp(logits, -1) - chosen


def _next(values_BxL: Array) -> Array:
  return jnp.roll(values_BxL, -1, 1)


def _previous(values_BxLx: Array) -> Array:
  return jnp.roll(values_BxLx, 1, 1)
