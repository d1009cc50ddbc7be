"""Stored entropies: found by what a document holds, whatever else is there."""

import numpy as np
import pytest

from text import entropies

DOCUMENTS = [b'', b'a', b'ab', b'abc', b'b', b'\xff\x00', b'abd' * 50, b'a']


def test_every_document_and_every_beginning_is_found(tmp_path):
  rng = np.random.default_rng(0)
  values = {content: rng.random(len(content) + 2, np.float32) for content in DOCUMENTS}
  written = entropies.write(tmp_path / 'e', [(content, values[content]) for content in DOCUMENTS], {'step': 3})
  assert written == (7, sum(map(len, values.values())))
  found = entropies.Entropies(tmp_path / 'e')
  assert found.about == {'step': 3}
  for content in DOCUMENTS:
    np.testing.assert_array_equal(found.of(content), values[content])
  np.testing.assert_array_equal(found.of(b'abda'), values[b'abd' * 50][:6])
  for content in (b'c', b'abcd', b'abda!', b'\x00', b'\xff\xff'):
    with pytest.raises(ValueError, match=f'has no entropies of a document of {len(content)} bytes'):
      found.of(content)


def test_what_is_no_such_directory_is_one_sentence(tmp_path):
  with pytest.raises(FileNotFoundError, match='holds no entropies .config.json is missing.'):
    entropies.Entropies(tmp_path)
  entropies.write(tmp_path / 'e', [(b'abc', np.zeros(5))], {})
  np.save(tmp_path / 'e' / 'text.npy', np.zeros(2, np.uint8))
  with pytest.raises(ValueError, match='is damaged: its arrays have lengths that do not fit'):
    entropies.Entropies(tmp_path / 'e')
  np.save(tmp_path / 'e' / 'text.npy', np.zeros(3, np.float64))
  with pytest.raises(ValueError, match='is damaged: text.npy is no list of uint8'):
    entropies.Entropies(tmp_path / 'e')
