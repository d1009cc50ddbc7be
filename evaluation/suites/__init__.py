"""Suites by name: what `eval.py RUNS… --suite=NAME` or `--suite='NAME(option=value)'` measures.

A new one is a file with a `SUITE` (suite.py says what that is) and a line in SUITES.
"""

from typing import Any

from evaluation.suites import bits_per_byte
from evaluation.suites.suite import Options, Refused, Row, Suite
from text import specification

__all__ = ['SUITES', 'Options', 'Refused', 'Row', 'Suite', 'parse']

SUITES: dict[str, Suite] = {
  'bits_per_byte': bits_per_byte.SUITE,
}


def parse(spec: str) -> tuple[str, dict[str, Any]]:
  """(name, the suite's own options, all of them) of 'NAME' or 'NAME(option=value)'; raises ValueError with one sentence
  for what is none.
  """
  return specification.arguments(spec, 'suite', {name: suite.defaults for name, suite in SUITES.items()})
