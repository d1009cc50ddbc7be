"""A Llama over tokens, in the loop of byte models: the tokens of a row in a buffer of static length, nats at bytes.

Tokens are those of the canonical encoding of documents (the mark `tokens` of text/marks.py); each stands at its last
byte, and so do its nats, 0 at its other bytes. A row pays for every token that begins at one of its scored bytes, once
and whole, and for no other (text/rows.py). A text's bits are those of its tokens; where other tokens spell it, too,
they are an upper bound on the bits of the text. BOS and EOS are tokens of their own.

The first token of a segment is context. Where it is no BOS, as in a batch that is marked without its documents, and has
scored bytes, it costs as much as one of equally likely tokens.

Training may draw other tokens for the same text (`labels`: what batches of training are marked with in place of
`marks`); evaluation and decoding know canonical ones alone. Decoding reads and draws tokens. A prompt is read as its
own canonical tokens, also where it ends inside what would be one token of the text that goes on: what is drawn then
follows the tokens that the prompt has.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from byte_models.llama import Llama
from byte_models.token_lm.config import TokenLMConfig
from kernels.chunk import chunk_index
from layers import contract, segments, stack
from layers.chunks import Level, Segments
from layers.contract import EVAL, ByteModel, Context, ModelOutput
from layers.linear import normal
from text import BOS, EOS, marks, tokens
from text.batch import Batch

TOKENS = 'units'  # the name of the mark: ids of what spells the text, each at its last byte


class TokenLM(ByteModel):
  """See the module. V: tokens of the model, M: tokens of a row."""

  emits = ('ends',)

  def __init__(self, config: TokenLMConfig, *, rngs: nnx.Rngs):
    self.config = config
    self.llama = Llama(config.llama, rngs=rngs)
    if not config.llama.tie_word_embeddings:  # as in the byte models: vectors of 0.02 drown in what blocks add to them
      self.llama.embeddings = nnx.Param(normal(1.0)(rngs.params(), self.llama.embeddings.shape))

  @property
  def marks(self) -> dict[str, str]:
    """The canonical tokens."""
    return {TOKENS: self.config.mark()}

  @property
  def labels(self) -> dict[str, str]:
    """In training other tokens of the same name, where the configuration asks for them."""
    config = self.config
    options = {'stochastok': config.stochastok, 'dropout': config.bpe_dropout}
    return {TOKENS: config.mark(**options)} if any(options.values()) else {}

  @property
  def symbols(self) -> tuple[bytes, ...]:
    """The bytes of every token; b'' of those that no text has."""
    config, table = self.config, list(tokens.parse(self.config.units).table)
    table += [b''] * (config.llama.vocab_size - len(table))
    table[config.bos], table[config.eos] = bytes([BOS]), bytes([EOS])
    return tuple(table)

  @property
  def alphabet(self) -> dict[str, str]:
    """The tokenizer, wherever its file lies."""
    return {'units': f'tokens(digest={tokens.file_of(self.config.units)[1]})'}

  def level_sizes(self, fresh: bool = False) -> tuple[float, ...]:
    """Bytes of a token, as stated."""
    del fresh
    return self.config.bytes_per_chunk

  def __call__(self, batch: Batch, *, context: Context = EVAL, capacities: Sequence[int] | None = None) -> ModelOutput:
    """Nats of every token at its last byte; no logits, since they are not one set a byte: `symbol_logits` has them."""
    del context
    batch, cut, logits_BxMxV = self._read(batch, capacities)
    starts_BxL = _starts(batch)
    bytes_, count_B = jnp.sum(cut.outer.count_B), jnp.sum(cut.starts_BxC, 1)
    of_tokens = {
      'boundary_rate': jnp.sum(count_B) / jnp.maximum(bytes_, 1),
      'bytes_per_chunk': bytes_ / jnp.maximum(jnp.sum(count_B), 1),
      'fill': jnp.mean(count_B) / logits_BxMxV.shape[1],
    }
    return ModelOutput(
      nll=_nats(batch, cut, logits_BxMxV),
      segmentations=(starts_BxL,),
      boundary_probabilities=(starts_BxL.astype(jnp.float32),),
      needed=(cut.needed,),
      stage_metrics=(jax.tree.map(jnp.float32, of_tokens),),
    )

  def symbol_logits(self, batch: Batch) -> tuple[Array, None]:
    """([B, L, V] float32: at every byte those that the token of which it is part was predicted with, None)."""
    _, cut, logits_BxMxV = self._read(batch, None)
    return _spread(cut, _before(cut, logits_BxMxV, 0.0)), None

  def likeliest(self, batch: Batch, *, capacities: Sequence[int] | None = None) -> tuple[Array, Array, Array, tuple]:
    """(whether greedy decoding of the tokens before writes this one, which it writes, nats: [B, L] each; needed).

    The first two are said at every byte of a token.
    """
    batch, cut, logits_BxMxV = self._read(batch, capacities)
    best_BxM = _before(cut, logits_BxMxV.argmax(-1), 0)
    is_right_BxL = _spread(cut, best_BxM == cut.inner.marks[TOKENS])
    return is_right_BxL, _spread(cut, best_BxM), _nats(batch, cut, logits_BxMxV), (cut.needed,)

  def _read(self, batch: Batch, capacities: Sequence[int] | None) -> tuple[Batch, Segments, Array]:
    """(the batch with its marks, where its tokens are, logits [B, M, V] for what follows each)."""
    batch = marks.mark(batch, self.marks)
    tokens_BxL, ids_BxL = jnp.asarray(batch.marks[TOKENS]), jnp.asarray(batch.segment_ids)
    (capacity,) = contract.checked_capacities(capacities, 1, ids_BxL.shape[1])
    level = Level.of_bytes(ids_BxL, {TOKENS: tokens_BxL})
    cut = level.cut((tokens_BxL >= 0) & level.valid, capacity)
    return batch, cut, self.llama(cut.inner.marks[TOKENS], cut.inner.segment_ids_BxC)

  def init_cache(self, batch_size: int, max_bytes: int) -> Any:
    """Decoding caches for rows of at most `max_bytes` bytes, and so of at most as many tokens."""
    return self.llama.init_cache(batch_size, max_bytes)

  def prefill(self, batch: Batch, length_B: Array, cache: Any) -> tuple[Array, Any]:
    """Reads the tokens of right-padded prompts into a fresh cache; logits [B, V] are for the token behind each.

    Where a batch was marked with what follows the prompts, the bytes behind the last token that ends inside are left
    out: they are part of the next. A prompt without a token is followed by one of equally likely tokens.
    """
    batch = marks.mark(batch.up_to(length_B), self.marks)
    tokens_BxL = jnp.asarray(batch.marks[TOKENS])
    level = Level.of_bytes(jnp.asarray(batch.segment_ids), {TOKENS: tokens_BxL})
    cut = level.cut((tokens_BxL >= 0) & level.valid)
    logits_BxV, cache = self.llama.prefill(cut.inner.marks[TOKENS], cut.inner.count_B, cache)
    return jnp.where(cut.inner.count_B[:, None] > 0, logits_BxV, 0.0), cache

  def step(self, symbol_B: Array, cache: Any) -> tuple[Array, Any]:
    """Reads one token a row; logits [B, V] are for the next."""
    return self.llama.step(symbol_B.astype(jnp.int32), cache)

  def decays(self, path: str, exempt: str = 'default') -> bool:
    """Whether weight decay applies to a parameter: to all but the scales of norms, whatever `exempt` says."""
    del exempt
    return not path.endswith('scale')

  def flops_per_byte(self, length: int, bytes_per_chunk: Sequence[float] | None = None) -> dict[str, float]:
    """Component -> forward FLOPs a byte, documents of `length` bytes; bytes_per_chunk: one number, bytes of a token.

    Embeddings and head by the formulas of the H-Net paper's appendix B, as in its comparison with a token model: to
    look up a vector counts as a product with the whole table, though it is none.
    """
    sizes = self.config.bytes_per_chunk if bytes_per_chunk is None else tuple(bytes_per_chunk)
    if len(sizes) != 1 or sizes[0] < 1:
      raise ValueError(f'bytes_per_chunk {sizes}: a list with one number of at least 1, the bytes of a token.')
    config, rate = self.config.llama, 1 / sizes[0]
    table = 2.0 * config.vocab_size * config.hidden_size * rate
    return {'embeddings': table, 'backbone': stack.flops(config.stack, rate, rate * length), 'lm_head': table}


def _before(cut: Segments, values_BxMx: Array, first: float) -> Array:
  """Values of the token before in the same document, `first` at a document's first."""
  is_first_BxM = segments.starts(cut.inner.segment_ids_BxC)
  is_first = is_first_BxM.reshape(*is_first_BxM.shape, *(1,) * (values_BxMx.ndim - 2))
  return jnp.where(is_first, first, jnp.roll(values_BxMx, 1, 1))


def _nats(batch: Batch, cut: Segments, logits_BxMxV: Array) -> Array:
  """Of every token at its last byte, where that is scored: [B, L] float32."""
  next_BxMx1 = jnp.roll(cut.inner.marks[TOKENS], -1, 1)[..., None]
  chosen_BxM = jnp.take_along_axis(logits_BxMxV, next_BxMx1, -1)[..., 0]
  nats_BxM = jax.nn.logsumexp(logits_BxMxV, -1) - chosen_BxM
  return jnp.where(batch.scored, cut.inner.to_bytes(_before(cut, nats_BxM, math.log(logits_BxMxV.shape[-1]))), 0.0)


def _starts(batch: Batch) -> Array:
  """Where tokens begin, and segments: [B, L] bool."""
  tokens_BxL, ids_BxL = jnp.asarray(batch.marks[TOKENS]), jnp.asarray(batch.segment_ids)
  is_paid_BxL = tokens_BxL == marks.PAID
  before_BxL = jnp.pad(((tokens_BxL >= 0) | is_paid_BxL)[:, :-1], ((0, 0), (1, 0)))
  return (segments.starts(ids_BxL) | (before_BxL & ~is_paid_BxL)) & (ids_BxL > 0)


def _spread(cut: Segments, values_BxMx: Array) -> Array:
  """Values of tokens, each at every byte of its own: [B, L, ...]."""
  index_BxL = chunk_index(cut.starts_BxC) + 1 - cut.starts_BxC
  index = index_BxL.reshape(*index_BxL.shape, *(1,) * (values_BxMx.ndim - 2))
  return jnp.take_along_axis(values_BxMx, index, 1, mode='clip')
