"""eval.py and generate.py as a user starts them, on a model whose training is replaced by a constructor."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import byte_models
import hnet
from evaluation import (
  boundary_flips,
  boundary_scores,
  compressed_bits_per_byte,
  evaluate,
  generate,
  report,
  segment,
  show_chunks,
  unit_starts,
)
from text import MemoryCorpus, gold, open_corpus
from text.prepare import prepare

ROOT = Path(__file__).parents[2]
DOCUMENTS = [b'First | document.\n' * 5, 'Zweites, länger und mit 🙂.\n'.encode() * 3, b'\xff\xfe raw']
# A work directory is what training.load makes of it.
WITH_TWO_BYTE_MODEL = """
import json, runpy, sys, training
model = runpy.run_path('tests/evaluation/conftest.py')['TwoByteModel'](positional=True)
source = json.loads(sys.argv[1]) if sys.argv[1].startswith('[') else sys.argv[1]
validation = source if isinstance(source, str) else [name for name, _ in source]
config = {'seq_len': 32, 'batch_size': 4, 'data': {'source': source, 'validation': validation}, 'eval': {'seq_len': 0}}
training.load = lambda workdir, step: training.Loaded(model, config, 7)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@dataclasses.dataclass(frozen=True)
class Documents:
  documents: list[bytes]
  key: str = 'documents'

  def __iter__(self):
    return iter(self.documents)


@pytest.fixture
def source(tmp_path):
  for index, document in enumerate(DOCUMENTS):
    (tmp_path / f'{index}.txt').write_bytes(document)
  return f'files:{tmp_path}/*.txt@all'


def run(*arguments, **environment):
  command = [sys.executable, *map(str, arguments)]
  return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, env={**os.environ, **environment})


def test_eval_prints_a_table_with_documents_and_writes_json(source, tmp_path, two_byte_model):
  done = run('-c', WITH_TWO_BYTE_MODEL, source, 'eval.py', f'--workdir={tmp_path}')
  assert done.returncode == 0, done.stderr
  written = json.loads((tmp_path / 'eval.json').read_text())
  (scores,) = written['sources']
  expected = evaluate(two_byte_model(positional=True), MemoryCorpus(DOCUMENTS), seq_len=32, batch_size=4)
  assert scores['bits_per_byte'] == pytest.approx(expected.bits_per_byte, rel=1e-6)
  assert scores['bytes_per_chunk'] == list(expected.bytes_per_chunk)
  assert scores['text_bytes'] == sum(map(len, DOCUMENTS)) and written['step'] == 7 and scores['source'] == source
  assert [stage['size_cv'] for stage in scores['boundary_metrics']] == [m.size_cv for m in expected.boundary_metrics]
  flips = boundary_flips(two_byte_model(positional=True), MemoryCorpus(DOCUMENTS), seq_len=32, batch_size=4)
  assert [stage['bytes'] for stage in scores['flips']] == [stage.bytes for stage in flips]
  assert scores['boundary_words'] == 'hat(max_bytes=64)' and 0 < scores['boundary_metrics'][0]['words_1']['recall'] < 1
  assert scores['baselines'].items() >= compressed_bits_per_byte(DOCUMENTS).items()
  orders = [scores['baselines'][f'Markov model of order {order}'] for order in (1, 2, 3)]
  assert orders == sorted(orders, reverse=True)  # counted on the very text: the longer the context, the better
  shown = done.stdout.decode()
  chunks = show_chunks(DOCUMENTS[1], segment(two_byte_model(positional=True), DOCUMENTS)[1])
  for words in (
    f'{expected.bits_per_byte:.4f}',
    'gzip -9',
    'xz -9',
    'order 3',
    'stage 1',
    'on white space',
    chunks,
    'bytes 0 to 6 of 6',
  ):
    assert words in shown
  assert not list(tmp_path.glob('.*partial'))
  size = sum(map(len, DOCUMENTS))
  assert scores['overlap'] == {'documents': 3, 'of': 3, 'bytes': size, 'is_complete': True}
  assert scores['text'] == f'{source}: 3 documents, {size:,} bytes' and f'(step 7) on {scores["text"]}\n' in shown
  assert f'3 of 3 validation documents ({size} bytes) stand in the training text\n' in shown


def test_other_files_are_scored_whole_and_training_files_in_their_held_out_part(tmp_path):
  for folder in ('trained', 'other'):
    (tmp_path / folder).mkdir()
    for number in range(40):
      (tmp_path / folder / f'{number}.txt').write_text(f'{folder} text of number {number}. ' * 2)
  trained, other = (f'files:{tmp_path}/{folder}/*.txt' for folder in ('trained', 'other'))
  sources = (f'--source={trained}', f'--source={other}')
  options = ('--show_documents=0', '--markov_mb=0.001', f'--workdir={tmp_path}')
  done = run('-c', WITH_TWO_BYTE_MODEL, trained, 'eval.py', *options, *sources)
  assert done.returncode == 0, done.stderr
  held_out, whole = json.loads((tmp_path / 'eval.json').read_text())['sources']
  kept = open_corpus(trained, 'validation')
  assert held_out['documents'] == len(kept) < 40 and whole['documents'] == 40
  assert f'{trained} (validation): {len(kept)} of 40 documents, ' in done.stdout.decode()
  assert held_out['overlap']['documents'] == whole['overlap']['documents'] == 0
  assert 'stand in the training text' not in done.stdout.decode()


def test_eval_refuses_held_out_text_that_a_run_does_not_have(source, tmp_path):
  with_validation = WITH_TWO_BYTE_MODEL.replace("'validation': validation", "'validation': ''")
  done = run('-c', with_validation, source, 'eval.py', f'--workdir={tmp_path}')
  assert done.returncode == 1 and b"error: data.validation is '', the held-out part of each source" in done.stderr
  assert not (tmp_path / 'eval.json').exists()


def test_a_mixture_is_scored_source_by_source_with_limits_that_show(source, tmp_path):
  known = 'synthetic:words(vocabulary=20,documents=4,length=300)'
  sources = json.dumps([[source, 1], [known, 3]])
  limits = ('--markov_mb=0.0002', '--compress_mb=0.0001', '--show_documents=0', '--words=fixed(size=2)')
  done = run('-c', WITH_TWO_BYTE_MODEL, sources, 'eval.py', f'--workdir={tmp_path}', *limits)
  assert done.returncode == 0, done.stderr
  written = json.loads((tmp_path / 'eval.json').read_text())
  assert [scores['source'] for scores in written['sources']] == [source, known]
  first, second = (scores['baselines'] for scores in written['sources'])
  counted = ' (counted on the first 0.0001 MB of each of 2 training sources), on the first 0.0001 MB'
  assert f'Markov model of order 3{counted}' in first and 'gzip -9, on the first 0.0001 MB' in first
  corpus = open_corpus(known, 'validation')
  assert second['entropy rate of the source'] == pytest.approx(corpus.entropy_rate)
  assert second['the source itself on these bytes'] == pytest.approx(corpus.bits_per_byte)
  assert second['unigram entropy of the source'] == pytest.approx(corpus.unigram_entropy)
  names = [score['name'] for score in written['sources'][1]['boundaries']]
  assert names[:2] == ['every byte', 'stage 0'] and not written['sources'][0]['boundaries']
  assert 'entropy rate of the source' in done.stdout.decode()
  accuracy = {kind['kind']: kind['words'] for kind in written['sources'][1]['words']['accuracy']}
  assert accuracy['all'] == accuracy['often'] + accuracy['rare'] + accuracy['never'] > 0

  options = (f'--workdir={tmp_path}', f'--source={known}', '--split=test', '--max_bytes=100', '--show_documents=0')
  done = run('-c', WITH_TWO_BYTE_MODEL, sources, 'eval.py', *options)
  assert done.returncode == 0, done.stderr
  written = json.loads((tmp_path / 'eval.json').read_text())
  (scores,) = written['sources']
  exact = open_corpus(known, 'test').source_bits(open_corpus(known, 'test')[0][:100]) / 100
  assert written['split'] == 'test' and scores['text_bytes'] == 100
  assert scores['baselines']['the source itself on these bytes'] == pytest.approx(exact)


def test_gold_units_are_compared_with_the_chunks(source, tmp_path, two_byte_model):
  documents = [gold.join([b'ab', '中国'.encode(), b'c']), gold.join([b'chunk', b'ing'])]
  out = tmp_path / 'chinese_words' / '1.0.0'
  prepare({'test': [Documents(documents)]}, out, source='two', splits=None, metadata={'kind': 'gold'})
  options = (f'--workdir={tmp_path}', '--gold=chinese_words', '--show_documents=0')
  done = run('-c', WITH_TWO_BYTE_MODEL, source, 'eval.py', *options, HNET_CORPORA=str(tmp_path))
  assert done.returncode == 0, done.stderr
  (scores,) = json.loads((tmp_path / 'eval.json').read_text())['gold']
  segmented = [gold.units(document) for document in documents]
  expected = boundary_scores(
    two_byte_model(positional=True),
    [b''.join(units) for units in segmented],
    [unit_starts(units) for units in segmented],
    seq_len=32,
    batch_size=4,
  )
  assert scores['documents'] == 2 and scores['text_bytes'] == 17
  assert scores['boundaries'] == [report.values(score) for score in expected]
  done = run('-c', WITH_TWO_BYTE_MODEL, source, 'eval.py', *options, HNET_CORPORA=str(tmp_path / 'nowhere'))
  assert done.returncode == 1 and 'python -m text.corpora fetch chinese_words' in done.stderr.decode()


def test_generate_continues_one_prompt_or_several(source, tmp_path, two_byte_model):
  prompts = ['caf\u00e9 ', '', 'a\nb']
  expected = generate(two_byte_model(positional=True), [prompt.encode() for prompt in prompts], 30, temperature=0)
  texts = [continuation.decode('utf-8', 'replace') for continuation in expected]
  options = (source, 'generate.py', f'--workdir={tmp_path}', '--max_bytes=30', '--temperature=0', '--show_chunks')
  one = run('-c', WITH_TWO_BYTE_MODEL, *options, f'--prompt={prompts[0]}')
  assert one.returncode == 0, one.stderr
  whole = (prompts[0].encode() + expected[0]).decode('utf-8', 'replace')
  assert one.stdout.decode().startswith(f'{whole}\n--- chunks\n')
  several = run('-c', WITH_TWO_BYTE_MODEL, *options, *(f'--prompt={prompt}' for prompt in prompts))
  assert several.returncode == 0, several.stderr
  headers = ['--- café ', '--- ', '--- a↵\nb']
  written = ''.join(f'{header}\n{text}\n' for header, text in zip(headers, texts, strict=True))
  assert several.stdout.decode().startswith(f'{written}--- chunks\n')


def test_official_weights_work_in_place_of_a_work_directory(source, tmp_path):
  branch = {
    'family': 'hnet',
    'arch_layout': ['T1'],
    'd_model': [32],
    'd_intermediate': [32],
    'ssm_cfg': {'chunk_size': 16, 'd_conv': 4, 'd_state': 16, 'expand': 2},
    'attn_cfg': {'num_heads': [2], 'rotary_emb_dim': [16], 'window_size': [-1]},
  }
  model = byte_models.build(byte_models.parse(branch), rngs=nnx.Rngs(0))
  weights, output = tmp_path / 'weights', tmp_path / 'scores.json'
  hnet.save_pretrained(model, weights)
  official = f'--workdir={weights}'
  done = run('eval.py', official, f'--source={source}', '--seq_len=64', f'--output={output}')
  assert done.returncode == 0, done.stderr
  written = json.loads(output.read_text())
  (scores,) = written['sources']
  expected = evaluate(model, MemoryCorpus(DOCUMENTS), seq_len=64, batch_size=1)
  assert scores['bits_per_byte'] == pytest.approx(expected.bits_per_byte, rel=1e-5)
  assert written['step'] is None and set(scores['baselines']) == {'gzip -9', 'xz -9'}
  assert not (weights / 'eval.json').exists()

  done = run('generate.py', official, '--prompt=ab', '--max_bytes=8', '--temperature=0')
  assert done.returncode == 0, done.stderr
  assert done.stdout.decode() == f'ab{generate(model, [b"ab"], 8, temperature=0)[0].decode("utf-8", "replace")}\n'

  leaves = load_file(weights / 'model.safetensors')
  save_file({name: np.full_like(leaf, np.nan) for name, leaf in leaves.items()}, weights / 'model.safetensors')
  done = run('generate.py', official, '--prompt=ab', '--max_bytes=8')
  assert (done.returncode, done.stdout) == (1, b'ab\n')
  assert "the model's logits are not finite after 0 bytes" in done.stderr.decode()

  for option, word in (('--seq_len=64', '--source is missing'), ('--step=3', 'step 3 does not apply')):
    done = run('eval.py', official, option)
    assert (done.returncode, done.stdout) == (1, b'') and word in done.stderr.decode()


@pytest.mark.parametrize(
  ('command', 'word'),
  [
    (['eval.py'], '--workdir is missing'),
    (['eval.py', '--workdir=/nowhere'], '/nowhere'),
    (['eval.py', '/nowhere/*', '--gold=a'], '--gold is for one model, named with --workdir'),
    (['eval.py', '--workdir=/nowhere', '--noise=drop'], '--noise is for several models'),
    (['-m', 'evaluation.harness', '--workdir=/nowhere'], '--tasks is missing'),
    (['generate.py', '--workdir=/nowhere', '--prompt=a'], '/nowhere'),
    (['generate.py', '--workdir=/nowhere', '--prompt=a', '--top_p=2'], 'top_p'),
  ],
)
def test_bad_input_ends_in_one_sentence(command, word):
  done = run(*command)
  message = done.stderr.decode()
  assert (done.returncode, done.stdout) == (1, b'')
  assert word in message and message.count('\n') == 1


def test_a_file_that_cannot_be_written_is_refused_before_scoring(source, tmp_path):
  output = tmp_path / 'no' / 'scores.json'
  done = run('-c', WITH_TWO_BYTE_MODEL, source, 'eval.py', f'--workdir={tmp_path}', f'--output={output}')
  assert done.returncode == 1 and f'{output} cannot be written' in done.stderr.decode()
