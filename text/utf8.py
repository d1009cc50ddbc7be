"""UTF-8 as a machine that reads bytes: which may follow, and what is behind them (The Unicode Standard, table 3-7)."""

import functools

import numpy as np

START, ERROR = 0, 8  # between characters; behind a byte that no character has there
_ONE, _TWO, _THREE = 1, 2, 3  # bytes to come, any from 80 to BF
_RANGES = (
  # (state, first byte, last byte, state behind it)
  (START, 0x00, 0x7F, START),
  (START, 0xC2, 0xDF, _ONE),
  (START, 0xE0, 0xE0, 4),
  (START, 0xE1, 0xEC, _TWO),
  (START, 0xED, 0xED, 5),
  (START, 0xEE, 0xEF, _TWO),
  (START, 0xF0, 0xF0, 6),
  (START, 0xF1, 0xF3, _THREE),
  (START, 0xF4, 0xF4, 7),
  (_ONE, 0x80, 0xBF, START),
  (_TWO, 0x80, 0xBF, _ONE),
  (_THREE, 0x80, 0xBF, _TWO),
  (4, 0xA0, 0xBF, _ONE),  # no overlong forms
  (5, 0x80, 0x9F, _ONE),  # no surrogates
  (6, 0x90, 0xBF, _TWO),  # no overlong forms
  (7, 0x80, 0x8F, _TWO),  # nothing above 10FFFF
)


@functools.cache
def transitions() -> np.ndarray:
  """[state, byte] -> state, int8 [9, 256]; nothing leads out of ERROR."""
  table = np.full((ERROR + 1, 256), ERROR, np.int8)
  for state, first, last, behind in _RANGES:
    table[state, first : last + 1] = behind
  table.setflags(write=False)
  return table


def states(document: bytes, state: int = START) -> np.ndarray:
  """The state behind each byte, int8 [bytes]. A byte that has no place is read as if it began a character."""
  table, found = transitions().tolist(), []
  for byte in document:
    state = table[state][byte]
    if state == ERROR:
      state = table[START][byte]
    found.append(state)
  return np.array(found, np.int8)
