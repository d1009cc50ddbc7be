"""Which errors are sentences for a user, and which are bugs to be seen whole."""

import importlib.util
import json

import numpy as np
import pytest

import text
from text import command_line


def of_a_config(tmp_path):
  file = tmp_path / 'experiment.py'
  file.write_text('raise ValueError("num_steps must be at least 1")')
  spec = importlib.util.spec_from_file_location('config_file', file)
  spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize(
  ('call', 'is_sentence'),
  [
    (lambda _: text.Batch.of([]), True),
    (of_a_config, True),
    (lambda path: (path / 'none').read_bytes(), True),
    (lambda _: json.loads('x'), False),
    (lambda _: np.stack([]), False),
    (lambda _: {}['key'], False),
  ],
)
def test_a_value_error_is_a_sentence_unless_a_library_raised_it(call, is_sentence, tmp_path):
  with pytest.raises((ValueError, OSError, KeyError)) as raised:
    call(tmp_path)
  assert command_line.is_sentence(raised.value) == is_sentence
