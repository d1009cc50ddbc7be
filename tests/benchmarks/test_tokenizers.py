"""The table of tokenizers: a row each, with the library beside those that it opens."""

from benchmarks import tokenizers as benchmark
from tests.text.tokenizers import naive
from text.tokenizers import training


def test_the_library_stands_beside_what_it_opens(tmp_path):
  documents = naive.documents(0)
  for kind in ('bpe', 'picky'):
    file, content = training.train(kind, documents, 330)
    (tmp_path / kind).mkdir()
    (tmp_path / kind / file).write_text(content)
  table = benchmark.table([str(tmp_path / kind) for kind in ('bpe', 'picky')], documents, 1)
  kinds, ids, bytes_per_token, library = (list(table.columns[column].cells) for column in (1, 2, 3, 6))
  assert kinds == ['bpe', 'picky'] and ids == ['330', '330'] and all(1 < float(cell) < 9 for cell in bytes_per_token)
  assert float(library[0]) > 0 and library[1] == '—'
