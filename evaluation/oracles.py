"""Three properties that every model has, measured: how far two computations of the same numbers lie apart.

Causality: later bytes change nothing before them. Streaming: step by step equals the parallel form, beside other rows
and alone. Isolation: a document among others equals one with padding behind it and one that is alone.
tests/test_contract.py holds every family to them on drawn text, benchmarks/device a model on the device at hand.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from layers.contract import ModelOutput
from layers.paths import path_name
from text import marks
from text.batch import Batch


@dataclasses.dataclass(frozen=True)
class Apart:
  """The largest differences, nan where one is not a number; boundaries: how many are drawn on one side alone."""

  logits: float = 0.0
  nats: float = 0.0
  probabilities: float = 0.0
  boundaries: int = 0

  def __or__(self, other: 'Apart') -> 'Apart':
    floats = (np.maximum(a, b) for a, b in zip(self._floats(), other._floats(), strict=True))  # keeps a nan
    return Apart(*map(float, floats), boundaries=self.boundaries + other.boundaries)

  def _floats(self) -> tuple[float, ...]:
    return self.logits, self.nats, self.probabilities


class Subject:
  """A model of bytes and its compiled forms. Rows have `length` bytes, of which the first `prompt` may be prompts."""

  is_bytewise = True

  def __init__(self, model: Any, length: int, prompt: int):
    self.model, self.length, self.prompt, self.num_steps = model, length, prompt, length - prompt
    self.forward = jax.jit(lambda model, batch: model(batch))
    self.decode = jax.jit(self._decode)

  def marked(self, batch: Batch) -> Batch:
    """The batch with the marks that the model reads."""
    return marks.mark(batch, self.model.marks)

  def __call__(self, batch: Batch) -> ModelOutput:
    """The parallel form, as numpy."""
    return jax.device_get(self.forward(self.model, self.marked(batch)))

  def _decode(self, model: Any, prompts: Batch, prompt_B: jax.Array, symbols_BxN: jax.Array) -> jax.Array:
    """Logits after the prompts and after each of the symbols behind them: [B, 1 + N, V]."""
    cache = model.init_cache(len(symbols_BxN), self.length)
    first, cache = model.prefill(prompts, prompt_B, cache)

    def step(cache, symbol_B):
      logits, cache = model.step(symbol_B, cache)
      return cache, logits

    _, rest = jax.lax.scan(step, cache, symbols_BxN.T)
    return jnp.concatenate([first[:, None], jnp.moveaxis(rest, 0, 1)], 1)

  def steps(self, batch: Batch, output: ModelOutput, prompts: Sequence[int]) -> list[tuple[np.ndarray, ...]]:
    """Of each row: the symbols behind its prompt, the bytes that their nats count to, the logits that steps must give.

    The latter are one set more than symbols, for what follows the last, where that is known.
    """
    places = [np.arange(n, n + self.num_steps) for n in prompts]
    return [(batch.bytes[r, at], at, output.logits[r, at[0] - 1 : at[-1] + 1]) for r, at in enumerate(places)]

  def prompts(self, batch: Batch, output: ModelOutput) -> Batch:
    """The rows that prompts are the beginnings of, with what the parallel form decided if they need it."""
    del output
    return batch

  def nats_of(self, symbol: np.ndarray, at: np.ndarray, log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(places, nats of the bytes there) of steps that read these symbols, whose nats count to the bytes `at`."""
    nats = np.zeros(self.length)
    np.add.at(nats, at, -log_p[np.arange(len(symbol)), symbol])
    return at, nats[at]


def informative(model: Any, seed: int = 0) -> Any:
  """The model with noise on every parameter: a fresh one has routers and residuals that do nothing yet."""
  rng = np.random.default_rng(seed)

  def shake(path, leaf):
    deviation = 0.1 if leaf.ndim < 2 or path_name(path).endswith(('bias', 'scale')) else leaf.shape[-2] ** -0.5
    return jnp.asarray(np.asarray(leaf) + np.float32(deviation) * rng.standard_normal(leaf.shape, np.float32))

  return jax.tree_util.tree_map_with_path(shake, model)


def segment_ids(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
  """[B, length] int32 from the document lengths of every row."""
  ids = np.zeros((len(rows), length), np.int32)
  for row, lengths in enumerate(rows):
    ids[row, : sum(lengths)] = np.repeat(np.arange(len(lengths)) + 1, lengths)
  return ids


def apart(ours: ModelOutput, theirs: ModelOutput, where: Any = np.s_[:], there: Any = None, cut: Any = None) -> Apart:
  """Of two outputs at `where` of the first and `there` of the second; their cuts at `cut` of both, if given."""
  there = where if there is None else there
  logits = 0.0 if ours.logits is None else _largest(ours.logits[where], theirs.logits[there])
  nats = _largest(ours.nll[where], theirs.nll[there])
  where, there = (where, there) if cut is None else (cut, cut)
  probabilities = zip(ours.boundary_probabilities, theirs.boundary_probabilities, strict=True)
  boundaries = zip(ours.segmentations, theirs.segmentations, strict=True)
  return Apart(
    logits,
    nats,
    float(np.max([0.0, *(_largest(p[where], other[there]) for p, other in probabilities)])),
    sum(int(np.sum(b[where] != other[there])) for b, other in boundaries),
  )


def _largest(ours: np.ndarray, theirs: np.ndarray) -> float:
  return float(np.max(np.abs(ours.astype(np.float32) - theirs), initial=0.0))


def causality(subject: Subject, batch: Batch, other_BxL: np.ndarray, last: int) -> Apart:
  """Of the positions up to `last`, where other bytes stand behind it."""
  length = batch.bytes.shape[1]
  changed = np.where(np.arange(length) <= last, batch.bytes, other_BxL)
  ours, theirs = subject(batch), subject(Batch(changed, batch.segment_ids))
  before = np.broadcast_to(np.arange(length) <= last, batch.bytes.shape)
  if not subject.is_bytewise:  # bits are those of a text's symbols, which later bytes may cut into others
    same = np.logical_and.accumulate(ours.segmentations[0] == theirs.segmentations[0], 1)
    before = before & same & np.pad(same[:, 1:], ((0, 0), (0, 1)))  # whether one ends shows where the next begins
  known = last - max((kind.lookahead for kind in marks.parse(subject.model.marks).values()), default=0)
  return apart(ours, theirs, before, cut=np.s_[:, : max(known + 1, 0)])


def streaming(subject: Subject, bytes_BxL: np.ndarray, prompts: Sequence[int], row: int, copies: int) -> Apart:
  """Of the steps behind prompts of these lengths; then `row` once more, in a batch of nothing but `copies` of it."""
  batch = subject.marked(Batch(bytes_BxL, np.ones_like(bytes_BxL, np.int32)))
  output = subject(batch)
  steps = subject.steps(batch, output, prompts)
  dtype = np.uint8 if steps[0][-1].shape[-1] <= 256 else np.int32
  symbols = np.zeros((len(steps), subject.num_steps), dtype)
  for r, (symbol, _, _) in enumerate(steps):
    symbols[r, : len(symbol)] = symbol
  beginnings = jax.tree.map(lambda rows: rows[:, : subject.prompt], subject.prompts(batch, output))
  arguments = beginnings, np.array(prompts), symbols
  streamed = np.asarray(subject.decode(subject.model, *arguments))
  found = Apart()
  for r, (symbol, at, expected) in enumerate(steps):
    logits = streamed[r, : len(expected)]
    log_p = np.asarray(jax.nn.log_softmax(logits))
    places, nats = subject.nats_of(symbol, at, log_p)
    found |= Apart(_largest(logits, expected), _largest(nats, output.nll[r, places]))
  alone = np.asarray(subject.decode(subject.model, *jax.tree.map(lambda rows: rows[[row] * copies], arguments)))
  count = len(steps[row][-1])
  return found | Apart(_largest(alone[0, :count], streamed[row, :count]))


def isolation(
  subject: Callable[[Batch], ModelOutput], documents: Sequence[np.ndarray], place: Sequence[int], rest: Batch
) -> Apart:
  """Of documents in one row, in the order `place`, in a row each, and the last one alone. rest: the other rows."""
  length = rest.bytes.shape[1]
  in_place = [documents[index] for index in place]
  packed_bytes, packed_ids = rest.bytes.copy(), rest.segment_ids.copy()
  joined = np.concatenate(in_place)
  packed_bytes[0, : len(joined)] = joined
  packed_ids[:1] = segment_ids([[len(document) for document in in_place]], length)
  packed = subject(Batch(packed_bytes, packed_ids))

  padded_bytes, padded_ids = rest.bytes.copy(), rest.segment_ids.copy()
  for row, document in enumerate(documents):
    padded_bytes[row, : len(document)] = document
  padded_ids[: len(documents)] = segment_ids([[len(document)] for document in documents], length)
  padded = subject(Batch(padded_bytes, padded_ids))

  found, begin = Apart(), 0
  for row in place:
    size = len(documents[row])
    found |= apart(packed, padded, np.s_[0, begin : begin + size], np.s_[row, :size])
    begin += size
  last, size = len(documents) - 1, len(documents[-1])
  alone = subject(Batch(documents[-1][None], np.ones((1, size), np.int32)))
  return found | apart(alone, padded, np.s_[0], np.s_[last, :size])
