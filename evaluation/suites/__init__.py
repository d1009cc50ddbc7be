"""Suites by name: what `eval.py RUNS… --suite=NAME` or `--suite='NAME(option=value)'` measures (docs/suites.md).

A new one is a file with a `SUITE` (suite.py says what that is) and a line in SUITES.
"""

from typing import Any

from evaluation.suites import (
  bits_per_byte,
  characters,
  domains,
  gold,
  known_entropy,
  legal_bytes,
  misspellings,
  parity,
  reading_times,
  robustness,
  utf8,
  words,
)
from evaluation.suites.suite import Options, Refused, Row, Suite
from text import specification

__all__ = ['SUITES', 'Options', 'Refused', 'Row', 'Suite', 'parse']

SUITES: dict[str, Suite] = {
  'bits_per_byte': bits_per_byte.SUITE,
  'characters': characters.SUITE,
  'domains': domains.SUITE,
  'gold': gold.SUITE,
  'known_entropy': known_entropy.SUITE,
  'legal_bytes': legal_bytes.SUITE,
  'misspellings': misspellings.SUITE,
  'parity': parity.SUITE,
  'reading_times': reading_times.SUITE,
  'robustness': robustness.SUITE,
  'utf8': utf8.SUITE,
  'words': words.SUITE,
}


def parse(spec: str) -> tuple[str, dict[str, Any]]:
  """(name, the suite's own options, all of them) of 'NAME' or 'NAME(option=value)'; raises ValueError with one sentence
  for what is none.
  """
  return specification.arguments(spec, 'suite', {name: suite.defaults for name, suite in SUITES.items()})
