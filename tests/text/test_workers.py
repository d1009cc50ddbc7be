"""Worker processes that fail or die, and what the training process says."""

import os
import signal

import numpy as np
import pytest

import text
from text import command_line


class Reader(text.Corpus):
  """Documents of 100 bytes, one of which does something else."""

  def __init__(self, what):
    self.name, self.fingerprint, self.lengths, self._what = 'drawn', 'drawn', np.full(20, 100), what

  def read(self, document, start, stop):
    if document == 7:
      {'dies': lambda: os.kill(os.getpid(), signal.SIGKILL), 'fails': lambda: int('x')}[self._what]()
    return bytes(stop - start)


def read_all(what, workers):
  for _ in zip(range(99), text.pipeline(Reader(what), batch_size=4, seq_len=64, seed=0, workers=workers), strict=False):
    pass


def test_a_worker_that_is_killed_is_reported_with_its_document():
  sentence = r"^a data worker ended before its time, when it had come to document 7 of 'drawn' \(.*exit code -9\)"
  with pytest.raises(OSError, match=sentence):
    read_all('dies', 2)


@pytest.mark.parametrize('workers', [0, 1])
def test_a_document_that_cannot_be_read_is_named(workers):
  with pytest.raises(ValueError, match=r"^document 7 of 'drawn' cannot be read: invalid literal for int") as raised:
    read_all('fails', workers)
  assert command_line.raised_by(raised.value) == 'text'
