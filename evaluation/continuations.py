"""How likely a model finds texts that continue others, and what it continues them with: what test harnesses ask.

Every text stands behind one BOS and without an end, and its bytes are those that are given, whatever the model's units
are. Rows are those of `evaluation.evaluate`: where a text is longer than a row, the next one repeats the last half of
it, and begins with no BOS of its own.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from evaluation.generation import stream
from evaluation.predictions import predict_all


def log_likelihoods(
  model, pairs: Sequence[tuple[bytes, bytes]], *, seq_len: int, batch_size: int
) -> list[tuple[float, bool]]:
  """(nats, at most 0 for a model of bytes; whether greedy decoding writes the continuation) of (context, continuation).

  A model of units has the likelihood of the units of the whole text over that of the units of the context: where one
  of the whole reaches over the end of the context, this ratio may exceed 1. It is greedy if all units that have bytes
  of the continuation are. Raises NotFiniteError, a ValueError.
  """
  contexts = dict.fromkeys(context for context, _ in pairs) if 'units' in model.marks else {}
  wholes = dict.fromkeys(context + continuation for context, continuation in pairs)
  texts = list({**wholes, **contexts})
  found = dict(zip(texts, predict_all(model, texts, seq_len=seq_len, batch_size=batch_size), strict=True))
  answers = []
  for context, continuation in pairs:
    whole, first = found[context + continuation], len(context)
    nats = (
      whole.nats[:-1].sum(dtype='float64') - found[context].nats[:-1].sum(dtype='float64')
      if contexts
      else (whole.nats[first:-1].sum(dtype='float64'))
    )
    answers.append((-float(nats), bool(whole.is_right[first:-1].all())))
  return answers


def whole_log_likelihoods(model, documents: Sequence[bytes], *, seq_len: int, batch_size: int) -> list[float]:
  """Nats of every document, each byte once: over their bytes the bits of `evaluation.evaluate`."""
  found = predict_all(model, documents, seq_len=seq_len, batch_size=batch_size)
  return [-float(of.nats[:-1].sum(dtype='float64')) for of in found]


@dataclasses.dataclass(frozen=True)
class Decoding:
  """until: what ends a text, and does not belong to it, beside the end of a document. max_bytes: of a text."""

  max_bytes: int
  until: tuple[bytes, ...] = ()
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int = 0


def continue_until(model, prompts: Sequence[bytes], decodings: Sequence[Decoding], batch_size: int) -> list[bytes]:
  """What the model writes behind each prompt, decoded as its `Decoding` says.

  Prompts of one decoding run together, batch_size at a time, those of like length first; no prompt is cut.
  """
  answers: dict[int, bytes] = {}
  for decoding in dict.fromkeys(decodings):
    of_decoding = [index for index, other in enumerate(decodings) if other == decoding]
    of_decoding.sort(key=lambda index: len(prompts[index]))
    for first in range(0, len(of_decoding), batch_size):
      chosen = of_decoding[first : first + batch_size]
      padded = [prompts[index] for index in chosen] + [b''] * (batch_size - len(chosen))  # one program for all
      answers |= zip(chosen, _continued(model, padded, len(chosen), decoding), strict=False)
  return [answers[index] for index in range(len(prompts))]


def _continued(model, prompts: list[bytes], wanted: int, decoding: Decoding) -> Iterator[bytes]:
  """The continuations of the first `wanted` prompts."""
  written = [b''] * wanted
  options = (decoding.temperature, decoding.top_p, decoding.seed)
  for pieces in stream(model, prompts, decoding.max_bytes, *options):
    written = [text + piece for text, piece in zip(written, pieces, strict=False)]
    if all(_cut(text, decoding.until) is not None for text in written):
      break
  return (text[: _cut(text, decoding.until)] for text in written)


def _cut(text: bytes, until: Sequence[bytes]) -> int | None:
  """Where the first of them begins; None: none does."""
  return min((at for end in until if (at := text.find(end)) >= 0), default=None)
