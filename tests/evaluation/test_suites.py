"""The registry of suites, and its first entry against `evaluate`, which its own tests compare with a plain loop."""

import pytest

from evaluation import evaluate, suites
from text import MemoryCorpus

TEXT = [b'First | document.\n' * 5, 'Zweites, länger und mit 🙂.\n'.encode() * 3]


def test_rows_of_bits_per_byte_are_what_evaluate_found(two_byte_model):
  model, corpus = two_byte_model(positional=True), MemoryCorpus(TEXT)
  name, own = suites.parse('bits_per_byte(words=whitespace)')
  suite, options = suites.SUITES[name], suites.Options(32, 4, 150, own)
  rows = {(row.metric, row.stage, *row.extras.values()): row for row in suite.measure(model, {}, corpus, options)}
  found = evaluate(model, corpus, seq_len=32, batch_size=4, max_bytes=150, splitter='whitespace')
  assert rows['bits_per_byte', None].value == found.bits_per_byte and found.text_bytes == 150
  assert {row.bytes for row in rows.values()} == {150}
  for stage, metrics in enumerate(found.boundary_metrics):
    assert rows['bytes_per_chunk', stage].value == found.bytes_per_chunk[stage]
    assert rows['size_cv', stage].value == metrics.size_cv
    assert rows['words_1.f1', stage].value == metrics.words_1.f1
    for script in metrics.scripts:
      assert rows['scripts.inside', stage, script.script].value == script.inside
  assert rows['parameters', None].value == 256 * 256 * 2 + 256


@pytest.mark.parametrize('spec', ['nothing', 'bits_per_byte(nothing=1)', 'bits_per_byte(words='])
def test_what_is_no_suite_is_refused_in_one_sentence(spec):
  with pytest.raises(ValueError, match=r"suite '") as error:
    suites.parse(spec)
  assert '\n' not in str(error.value)


def test_every_suite_has_a_version_and_options_with_values():
  for name, suite in suites.SUITES.items():
    assert suite.version >= 1 and suite.headline and suites.parse(name) == (name, dict(suite.defaults))
