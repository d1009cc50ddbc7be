"""Tiny word models of every kind, a naive loop over their words, and the symbols that decoding reads."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.special import log_softmax

import byte_models
from byte_models.word_ar import WORD_END
from byte_models.word_ar.layout import word_starts
from evaluation.generation import generate
from evaluation.oracles import informative
from text import BOS, EOS, marks
from text.batch import Batch

CAP = 8


def branch(**changes):
  """A `model` branch of a HAT with words of at most eight bytes, width 32 and 64 in the backbone."""
  stack = {'arch_layout': 'T1', 'd_model': 32, 'd_intermediate': 48, 'num_heads': 2}
  return {
    'family': 'word_ar',
    'words': f'hat(max_bytes={CAP})',
    'encoder': stack,
    'backbone': {**stack, 'd_model': 64},
    'decoder': stack,
    **changes,
  }


NARROW = branch()['encoder']
KINDS = {
  'hat': branch(),
  'word_pooled': branch(num_vectors=4, words='whitespace(max_bytes=8)', backbone=NARROW),
  'word_pooled_wide': branch(num_vectors=2, concatenate_vectors=True, decoder={**NARROW, 'arch_layout': 't2'}),
  'megabyte': branch(encoder=None, words='fixed(size=4)'),
}


def build(values):
  """An informative model of a branch."""
  config = byte_models.parse(values)
  return informative(byte_models.build(config, rngs=nnx.Rngs(0)))


def words_of(starts):
  """[(begin, end)] of one document's words."""
  begin = np.flatnonzero(starts).tolist()
  return list(zip(begin, [*begin[1:], len(starts)], strict=True))


def is_certain(model, document, begin, end):
  """Whether the end of the word [begin, end) needs no symbol."""
  return end - begin == model.config.longest or (begin == 0 and end == 1 and document[0] == BOS)


_run = jax.jit(lambda stack, x: stack(x, jnp.ones(x.shape[:2], jnp.int32)))


def _apply(stack, x_LxD):
  return np.asarray(_run(stack, x_LxD[None]))[0]


def naive_nats(model, document, starts):
  """Nats of every byte of one document (uint8 array), one word after the other: no packing and no mask."""
  config, words = model.config, words_of(starts)
  k, width = config.num_vectors, config.decoder.width
  embeddings = np.asarray(model.embeddings[...])
  embed = lambda span: embeddings[document[span[0] : span[1]].astype(int)]
  inputs = []
  for span in words:
    x = embed(span)
    if config.encoder:
      joined = _apply(model.encoder, np.concatenate([model.pooling[...], x]))[:k].reshape(config.positions, -1)
    else:
      joined = np.pad(x, ((0, config.longest - len(x)), (0, 0))).reshape(1, -1)
    inputs.append(model.widen(joined) if hasattr(model, 'widen') else joined)
  outputs = _apply(model.backbone, np.concatenate(inputs)).reshape(len(words), config.positions, -1)
  outputs = model.narrow(outputs) if hasattr(model, 'narrow') else outputs
  nothing = np.zeros((1, config.inputs, width), np.float32)  # is before the first word
  vectors = np.concatenate([nothing, outputs.reshape(len(words), -1, width)[:-1]])

  nats, waiting = np.zeros(len(document)), 0.0
  for index, (begin, end) in enumerate(words):
    x = embed((begin, end))
    if config.encoder:
      hidden = _apply(model.decoder, np.concatenate([vectors[index], x]))[k - 1 :]
    else:
      hidden = _apply(model.decoder, np.concatenate([model.start[...][None], x])[:-1] + vectors[index, : len(x)])
    log_p = log_softmax(model.head(hidden), -1)
    nats[begin:end] = -log_p[np.arange(end - begin), document[begin:end]]
    nats[begin] += waiting
    waiting = 0.0 if not config.encoder or is_certain(model, document, begin, end) else -log_p[-1, WORD_END]
  nats[0] = 0.0
  return nats


def symbols_of(model, document, starts, first):
  """[(symbol, position of the byte, or of the byte that it stands behind if it is an end)] from byte `first` on."""
  symbols = []
  for begin, end in words_of(starts):
    symbols += [(int(document[t]), t, True) for t in range(max(begin, first), end)]
    if end >= first and end < len(document) and model.word_end and not is_certain(model, document, begin, end):
      symbols.append((WORD_END, end - 1, False))
  return symbols


forward = jax.jit(lambda model, batch: model(batch))
symbol_logits = jax.jit(lambda model, batch: model.symbol_logits(batch))


likeliest = jax.jit(lambda model, batch: model.likeliest(batch))


def with_starts(model, batch):
  """The batch with words where the model sees them begin: at raw bytes of the value WORD_END, too."""
  return dataclasses.replace(batch, marks=batch.marks | {'words': np.asarray(word_starts(model.config, batch))})


def check_likeliest(model, text):
  """`likeliest` says what `generate` writes after each beginning of a text, and takes a word that follows an end that
  it would not have written for wrong.
  """
  batch, length = marks.mark(Batch.of([bytes([BOS]) + text + bytes([EOS])], 64), model.marks), len(text) + 2
  batch = with_starts(model, batch)
  is_right, written, nats = (x[0, :length] for x in jax.device_get(likeliest(model, batch)))
  of_symbol, of_end = jax.device_get(symbol_logits(model, batch))
  np.testing.assert_array_equal(nats, np.asarray(forward(model, batch).nll)[0, :length])
  prefixes = [text[:size] for size in range(length - 1)]
  generated = generate(model, prefixes, 1, temperature=0.0, stop_at_eos=False)
  symbols = batch.marks.get('units', batch.bytes)[0]
  table = model.symbols
  certain = {end for begin, end in words_of(batch.marks['words'][0, :length]) if is_certain(model, symbols, begin, end)}
  found = collections.Counter()
  ends = [-1, *np.flatnonzero(symbols[:length] >= 0).tolist()] if 'units' in batch.marks else range(-1, length)
  for begin, end in zip([end + 1 for end in ends[1:]], ends[2:], strict=False):  # of the symbols behind BOS
    starts = batch.marks['words'][0, begin]
    ended = of_end is None or not starts or begin in certain or of_end[0, begin - 1].argmax() == WORD_END
    best = int(of_symbol[0, begin].argmax() if ended else of_end[0, begin - 1].argmax())
    assert set(written[begin : end + 1]) == {best}
    assert set(is_right[begin : end + 1]) == {ended and best == symbols[end]}
    if starts or best != model.word_end:
      assert table[best][:1] == generated[begin - 1]
    found[bool(starts), bool(ended), bool(is_right[begin])] += 1
  return found


@functools.partial(jax.jit, static_argnames='max_bytes')
def decode(model, prompts, prompt_B, symbols_BxN, max_bytes):
  """Logits after the prompts and after each symbol behind them: [B, 1 + N, V]."""
  cache = model.init_cache(len(symbols_BxN), max_bytes)
  first, cache = model.prefill(prompts, prompt_B, cache)

  def step(cache, symbol_B):
    logits, cache = model.step(symbol_B, cache)
    return cache, logits

  _, rest = jax.lax.scan(step, cache, symbols_BxN.T)
  return jnp.concatenate([first[:, None], jnp.moveaxis(rest, 0, 1)], 1)
