"""The machine of UTF-8 against Python's own decoder."""

import codecs
import functools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from text import utf8

TABLE = utf8.transitions().tolist()
PIECES = [
  b'a',
  b'\x80',
  b'\xbf',
  b'\xc0',
  b'\xc2',
  b'\xe0',
  b'\xa0',
  b'\x9f',
  b'\xed',
  b'\xf0',
  b'\x8f',
  b'\x90',
  b'\xf4',
]
PIECES += [b'\xff', 'é'.encode(), '中'.encode(), '🙂'.encode()]


def state(document):
  return functools.reduce(lambda at, byte: TABLE[at][byte], document, utf8.START)


def decodes(document, final):
  try:
    codecs.utf_8_decode(document, 'strict', final)
  except UnicodeDecodeError:
    return False
  return True


def test_every_character_is_legal_and_their_numbers_are_those_of_the_standard():
  for code in range(0x110000):
    if not 0xD800 <= code < 0xE000:
      assert state(chr(code).encode()) == utf8.START
  ways = np.zeros((utf8.ERROR + 1, utf8.ERROR + 1), int)  # bytes that lead from one state to another
  for at in range(utf8.ERROR + 1):
    np.add.at(ways[at], TABLE[at], 1)
  inside = ways.copy()
  inside[:, [utf8.START, utf8.ERROR]] = 0
  power = np.eye(utf8.ERROR + 1, dtype=int)
  for length, count in ((1, 128), (2, 1920), (3, 61440), (4, 1048576), (5, 0)):
    assert (power @ ways)[utf8.START, utf8.START] == count, length
    power = power @ inside


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=6).map(b''.join), st.binary(max_size=6)))
def test_the_machine_agrees_with_the_decoder(document):
  assert (state(document) == utf8.START) == decodes(document, final=True)
  assert (state(document) != utf8.ERROR) == decodes(document, final=False)
  if state(document) != utf8.ERROR:
    assert utf8.states(document).tolist() == [state(document[: at + 1]) for at in range(len(document))]


def test_a_byte_without_a_place_begins_a_character_if_it_can():
  assert utf8.states(b'\xe4a').tolist()[-1] == utf8.START
  assert utf8.states(b'\xe4\xc3').tolist()[-1] == state(b'\xc3')
  assert utf8.states(b'a\x80b').tolist() == [utf8.START, utf8.ERROR, utf8.START]
