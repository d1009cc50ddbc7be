"""Text from token models byte by byte, from prompts that may end anywhere, and from several with tokens of their own.

  python -m evaluation.exact_bytes --weights=A.gguf --weights=B --prompt='The quick bro'

Each --weights is a .gguf file, or a Hugging Face directory with tokenizer.json beside its weights. Bytes have the
probabilities of byte_models/covers.py, which do not depend on where tokens end; of several models, their mean
(--shares: a weighted one). --fast leaves out what takes most of the time: to ask the tokenizer which tokens may follow.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from byte_models import token_bits
from byte_models.covers import Covers, TokenModel
from evaluation import generation
from text.prefixes import END


class Ensemble:
  """Models that read the same text, each with its own tokens: as `Covers`, with the mean of what they say.

  shares: of the models, positive; None: alike. Raises ValueError as `Covers`, and for other shares.
  """

  def __init__(
    self,
    sources: Sequence[TokenModel],
    prompt: bytes = b'',
    max_bytes: int = 0,
    exact: bool = True,
    shares: Sequence[float] | None = None,
  ):
    shares = [1.0] * len(sources) if shares is None else shares
    if not sources or len(shares) != len(sources) or min(shares) <= 0:
      raise ValueError(f'shares {shares!r}: give one positive number for each of {len(sources)} models, at least one')
    self._shares = np.array(shares) / sum(shares)
    self._covers = [Covers(source, prompt, max_bytes, exact) for source in sources]

  def next_bytes(self) -> np.ndarray:
    """[257] float64: the 256 bytes and, at END, the end of the text."""
    return self._shares @ [covers.next_bytes() for covers in self._covers]

  def advance(self, byte: int) -> None:
    """One more byte of the text."""
    for covers in self._covers:
      covers.advance(byte)


def stream(
  sources: Sequence[TokenModel],
  prompt: bytes,
  max_bytes: int,
  temperature: float = 1.0,
  top_p: float = 1.0,
  seed: int = 0,
  exact: bool = True,
  shares: Sequence[float] | None = None,
) -> Iterator[bytes]:
  """The bytes that continue a prompt, up to the end of the text, drawn as `evaluation.generation.generate` draws them.

  Raises ValueError as that and as `Ensemble`.
  """
  generation.check([prompt], max_bytes, temperature, top_p, seed)
  ensemble = Ensemble(sources, prompt, max_bytes, exact, shares)
  return _stream(ensemble, max_bytes, temperature, top_p, jax.random.key(seed))


def nats(sources: Sequence[TokenModel], document: bytes, exact: bool = True) -> np.ndarray:
  """Of every byte of a document and of its end, given those before: [N + 1] float64.

  Each is relative to what may follow, so that their sum is a little below that of a whole text (`Covers.gain`), where
  what the model gives to tokens that cannot follow is lost.
  """
  ensemble, found = Ensemble(sources, b'', len(document), exact), []
  for at, byte in enumerate((*document, END)):
    with np.errstate(divide='ignore'):
      found.append(-np.log(ensemble.next_bytes()[byte]))
    if at < len(document):
      ensemble.advance(byte)
  return np.array(found)


def _stream(ensemble, max_bytes, temperature, top_p, key):
  for index in range(max_bytes):
    p = ensemble.next_bytes()
    if temperature < np.finfo(np.float32).tiny:
      symbol = int(p.argmax())
    else:
      with np.errstate(divide='ignore'):
        logits = jnp.asarray(np.log(p)[None], jnp.float32)
      keys = jax.random.fold_in(key, index)[None]
      symbol = int(generation.sample(keys, logits, temperature, top_p if top_p < 1 else None)[0])
    if symbol == END:
      return
    yield bytes([symbol])
    if index + 1 < max_bytes:
      ensemble.advance(symbol)


def main(arguments: Sequence[str]) -> None:
  """The command; ValueError or OSError with one sentence for what cannot be used."""
  parser = argparse.ArgumentParser(prog='python -m evaluation.exact_bytes', description=__doc__.splitlines()[0])
  parser.add_argument('--weights', required=True, action='append', help='a model; repeat it for several')
  parser.add_argument('--shares', type=float, nargs='+', help='of the models in the mean; default: alike')
  parser.add_argument('--prompt', required=True, help='text to continue')
  parser.add_argument('--max_bytes', type=int, default=256)
  parser.add_argument('--temperature', type=float, default=1.0, help='0: always the likeliest byte')
  parser.add_argument('--top_p', type=float, default=1.0)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--fast', action='store_true', help='do not ask which tokens may follow')
  flags = parser.parse_args(arguments)
  sources, prompt = [token_bits.source(*token_bits.load(weights)) for weights in flags.weights], flags.prompt
  drawn = (flags.max_bytes, flags.temperature, flags.top_p, flags.seed)
  for shown in generation.decode_utf8(stream(sources, os.fsencode(prompt), *drawn, not flags.fast, flags.shares)):
    print(shown, end='', flush=True)
  print()


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')
