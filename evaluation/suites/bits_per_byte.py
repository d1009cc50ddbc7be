"""Bits per byte of a text, sizes of chunks, and where in the text they begin (docs/metrics.md)."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from evaluation import bits_per_byte
from evaluation.boundary_metrics import BoundaryMetrics
from evaluation.suites.suite import Options, Row, Suite
from layers.capacity import Capacities
from text import Corpus, words

BOUNDARY_WORDS = 'hat(max_bytes=64)'


def measure(model: Any, config: Mapping[str, Any], corpus: Corpus, options: Options) -> Iterator[Row]:
  """Metrics are named as in `eval.json`, those inside another with a dot: whitespace_1.f1. seconds: compilation
  included; flops_per_byte: forward, in rows as in training, at the sizes of chunks that were reached.
  """
  words.parse(options.own['words'])
  used = _compiled(type(model), repr(model.config), *options.rows.values())
  result = bits_per_byte.evaluate(
    model, corpus, **options.rows, max_bytes=options.max_bytes, splitter=options.own['words'], used=used
  )
  row = functools.partial(Row, bytes=result.text_bytes)
  yield row('bits_per_byte', result.bits_per_byte)
  yield row('eos_bits', result.eos_bits)
  sizes = [size or float(result.text_bytes) for size in result.bytes_per_chunk]  # none begins: one chunk at most
  flops = model.flops_per_byte(config.get('seq_len', options.seq_len), sizes or None)
  yield row('flops_per_byte', float(sum(flops.values())))
  yield row('parameters', float(sum(leaf.size for leaf in jax.tree.leaves(model))))
  yield row('seconds', result.seconds)
  for stage, size in enumerate(result.bytes_per_chunk):
    yield row('bytes_per_chunk', size, stage)
  for stage, (at, behind) in enumerate(result.bits_at_chunks):
    yield row('bits_at_chunks', at, stage)
    yield row('bits_behind_chunks', behind, stage)
  for stage, metrics in enumerate(result.boundary_metrics):
    for name, value, extras in _numbers(metrics):
      yield row(name, value, stage, extras=extras)


@functools.cache
def _compiled(*kind) -> set[Capacities]:
  """For which capacities this process has compiled programs, for models of one config and rows of one shape."""
  del kind
  return set()


def _numbers(metrics: BoundaryMetrics) -> Iterator[tuple[str, float | None, dict[str, str]]]:
  """(name, value, extras) of one stage; its size of chunks, which counts documents' beginnings otherwise, too."""
  for name, value in dataclasses.asdict(metrics).items():
    if name == 'scripts':
      for of_script in value:
        script = of_script.pop('script')
        yield from ((f'scripts.{key}', number, {'script': script}) for key, number in of_script.items())
    elif isinstance(value, dict):
      yield from ((f'{name}.{key}', number, {}) for key, number in value.items())
    else:
      yield ('boundary_metrics.bytes_per_chunk' if name == 'bytes_per_chunk' else name), value, {}


SUITE = Suite(measure, bits_per_byte.SCORING, {'words': BOUNDARY_WORDS}, headline='bits_per_byte')
