import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text import infill, noise, sources

TEXT = st.text(max_size=40).map(str.encode)


@settings(deadline=None, max_examples=200)
@given(st.one_of(TEXT, st.binary(max_size=40)), st.integers(0, 2**64 - 1), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_document_comes_back_and_no_character_is_cut(document, index, suffix_first):
  got = noise.parse(f'infill(rate=1.0,suffix_first={suffix_first})')(document, index)
  assert infill.restored(got) == document
  if infill.is_free(document):
    assert len(got) == len(document) + 3 and got.startswith(infill.PREFIX)
    parts = re.split(b'[\xf8\xf9\xfa]', got)
    assert parts[0] == b'' and (suffix_first < 1 or parts[1] == b'')
    text = document.decode('utf-8', 'replace')
    if text.encode() == document:
      assert ''.join(sorted(''.join(part.decode() for part in parts))) == ''.join(sorted(text))
  else:
    assert got == document


def test_a_share_is_rearranged_and_a_share_of_these_begins_with_the_suffix():
  document = b'one two three four ' * 20
  got = [noise.parse('infill(rate=0.3,suffix_first=0.2)')(document, index) for index in range(2000)]
  changed = [one for one in got if one != document]
  assert len(changed) == pytest.approx(600, abs=70)
  assert sum(one.startswith(infill.PREFIX + infill.SUFFIX) for one in changed) == pytest.approx(120, abs=40)
  sizes = np.array([len(one.split(infill.MIDDLE)[1]) for one in changed if not one.startswith(b'\xf8\xf9')])
  assert sizes.mean() == pytest.approx(len(document) / 3, rel=0.1)  # of the part between two uniform cuts


def test_a_prompt_asks_for_what_the_text_has_between():
  left, middle, right = 'Größe '.encode(), b'of ', b'things'
  whole = infill.rearranged(left + middle + right, (len(left), len(left) + len(middle)))
  assert whole == infill.prompt(left, right) + middle


def test_control_bytes_in_a_document_are_refused_or_leave_it_as_it_is():
  with pytest.raises(ValueError, match='one of the bytes F8, F9 and FA'):
    infill.rearranged(b'a\xf9b', (1, 2))
  assert noise.parse('infill(rate=1.0)')(b'a\xf9b', 0) == b'a\xf9b'
  with pytest.raises(ValueError, match='suffix_first=1.5 must be from 0 to 1'):
    noise.parse('infill(suffix_first=1.5)')


def test_a_corpus_is_trained_on_so_and_validated_on_as_it_is(tmp_path):
  (tmp_path / 'a.txt').write_bytes(b'some text that is long enough')
  (document,) = sources.open_corpus(f'noise:infill(rate=1.0):files:{tmp_path}/*.txt@all', 'train')
  assert infill.restored(document) == b'some text that is long enough' != document
