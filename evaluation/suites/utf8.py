"""How much of what a model writes is UTF-8 (as in arXiv:2606.14122; the partial credits are ours)."""

import codecs
from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.generation import generate
from evaluation.suites.suite import Options, Row, Suite
from text import Corpus


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """Of samples behind nothing (prompt: none) and behind beginnings of documents (prompt: text):

  strict: share that is UTF-8. truncated: share that is, but for a last character that is cut off. complete: share of
  bytes in whole characters. The text of a sample is it without its prompt, which ends between characters.
  """
  del config
  own = options.own
  if own['samples'] < 1 or own['prompt'] < 1:
    raise ValueError('utf8: samples and prompt must be at least 1')
  chosen = [index * len(corpus) // own['samples'] for index in range(own['samples'])]
  sizes = [min(own['prompt'], int(corpus.lengths[index])) for index in chosen]
  heads = [
    corpus.read(index, 0, size).decode('utf-8', 'ignore').encode() for index, size in zip(chosen, sizes, strict=True)
  ]
  for prompt, prompts in (('none', [b''] * own['samples']), ('text', heads)):
    samples = generate(model, prompts, own['max_bytes'], own['temperature'], own['top_p'], own['seed'])
    size = sum(map(len, samples))
    values = {
      'strict': sum(map(_is_valid, samples)) / len(samples),
      'truncated': sum(_is_valid(sample, final=False) for sample in samples) / len(samples),
      'complete': sum(len(sample.decode('utf-8', 'ignore').encode()) for sample in samples) / size if size else None,
    }
    for metric, value in values.items():
      yield Row(metric, value, bytes=size, extras={'prompt': prompt, 'samples': len(samples)})


def _is_valid(sample: bytes, final: bool = True) -> bool:
  """Whether it is UTF-8; not final: whether more bytes could make it that."""
  try:
    codecs.utf_8_decode(sample, 'strict', final)
  except UnicodeDecodeError:
    return False
  return True


SUITE = Suite(
  measure,
  1,
  {'samples': 16, 'max_bytes': 256, 'prompt': 64, 'temperature': 1.0, 'top_p': 1.0, 'seed': 0},
  headline='strict',
)
