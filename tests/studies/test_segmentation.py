import json

import numpy as np
import pytest

import text
from studies import segmentation

TEXTS = [b'the cat sat on the mat', '猫 the'.encode()]


def rows_of(*specs, documents=TEXTS, splitter='whitespace(max_bytes=64)'):
  rows = segmentation.of_text([segmentation.cutter(spec) for spec in specs], documents, splitter)
  return {row['cut by']: row for row in rows}


def test_numbers_of_rules_by_hand():
  found = rows_of('fixed(size=1)', 'whitespace(max_bytes=64)')
  bytes_, words = found['fixed(size=1)'], found['whitespace(max_bytes=64)']
  size, cats = sum(map(len, TEXTS)), 8  # 'the ' twice, 'cat ', 'sat ', 'on ', 'mat', '猫 ', 'the'
  assert bytes_['bytes a piece'] == 1 and words['bytes a piece'] == size / cats
  assert words['types'] == 7 and words['pieces a word'] == 1 and words['words of several'] == 0
  assert bytes_['pieces a word'] == size / cats and bytes_['words of several'] == 1
  assert words['F1 with units / at random'].startswith('1.00 /') and words['one byte on / at random'].startswith('0.00')
  recalled = 6 / (size - 2)  # every byte but the first of the two documents is a boundary; six are of words
  assert bytes_['F1 with units / at random'].startswith(f'{2 * recalled / (1 + recalled):.2f}')


def test_a_tokenizer_and_a_run_are_cut_by_what_they_are(tmp_path):
  import training
  from configs import quickstart_pool
  from text import subwords, words

  tokenizer = subwords.train([b'the cat the cat the'] * 9, words.parse('whitespace(max_bytes=64)'), 262)
  (tmp_path / 'tokenizer.json').write_text(tokenizer.to_str())
  (tmp_path / 'text.txt').write_bytes(b'one two three')
  config = quickstart_pool.get_config()
  config.model.update({'d_model': (16, 16), 'd_intermediate': (16, 32), 'arch_layout': ('T1', ('T1',), 'T1')})
  config.model.attn_cfg = {'num_heads': (2, 2), 'rotary_emb_dim': (4, 4), 'window_size': (-1, -1)}
  config.update({'num_steps': 1, 'batch_size': 1, 'seq_len': 32})
  config.data.source = config.data.validation = f'files:{tmp_path}/text.txt@all'
  training.train(config, tmp_path / 'pool')
  found = rows_of(str(tmp_path / 'tokenizer.json'), str(tmp_path / 'pool'))
  assert found['tokenizer']['of'] == '262' and found['tokenizer']['bytes a piece'] > 1
  assert found['pool']['of'] == '–' and 3.5 < found['pool']['bytes a piece'] < 5.1


def test_languages_beside_utf_8():
  parts = {'eng': [b'aaaa', b'aa'], 'cmn': [b'bbbbbbbb', b'bb'], 'fra': [b'aaaa', b'aaaa']}
  utf8, twos = segmentation.of_languages([segmentation.cutter('fixed(size=2)')], parts)
  assert utf8['cut by'] == 'bytes' and utf8['parity'] == pytest.approx((1.5 + 1.5) / 2)
  assert utf8['premium'] == pytest.approx((10 / 6 + 8 / 6) / 2) and utf8['most'] == 'cmn 1.67'
  assert twos['premium'] == pytest.approx(utf8['premium'])


def test_the_page_and_its_data(tmp_path, monkeypatch, capsys):
  corpus = text.MemoryCorpus(TEXTS, name='two texts')
  monkeypatch.setattr(segmentation.text, 'open_corpus', lambda *_: corpus)
  golds = text.MemoryCorpus([text.gold.join([b'walk', b'ing']), text.gold.join([b'cat', b's'])], name='morphemes')
  monkeypatch.setattr(segmentation.text, 'open_gold', lambda *_: golds)
  segmentation.main(['fixed(size=4)', '--gold=morphemes', f'--out={tmp_path}/out'])
  page = (tmp_path / 'out' / 'segmentation.md').read_text()
  assert '0.67' in page and 'two texts' in page and page.strip() in capsys.readouterr().out
  tables = json.loads((tmp_path / 'out' / 'segmentation.json').read_text())['tables']
  assert [len(rows) for rows in tables.values()] == [1, 1]


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [(['nothing(size=3)'], 'nothing'), (['fixed(size=4)', '--words=x'], 'x'), (['hat', '--parity=nothing'], 'nothing')],
)
def test_bad_arguments_end_in_a_sentence(arguments, words):
  with pytest.raises((ValueError, OSError), match=words):
    segmentation.main(arguments)


def test_a_boundary_inside_counts_and_the_first_byte_does_not():
  starts = segmentation._begin(np.array([2, 5]), 5)
  assert starts.tolist() == [True, False, True, False, False]
