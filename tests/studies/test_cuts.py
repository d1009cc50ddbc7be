import itertools
from xml.etree import ElementTree

import numpy as np
import pytest

import training
from studies import cuts

SVG = '{http://www.w3.org/2000/svg}'


def starts(length, *at):
  found = np.zeros(length, bool)
  found[list(at)] = True
  return found


def drawn(*rows):
  return [list(group) for group in ElementTree.fromstring(cuts.picture(rows)).iter(f'{SVG}g')]


def test_chunks_are_boxes_side_by_side_and_deeper_stages_lines():
  text = '<b>你好</b>'.encode()
  ((name, *found),) = drawn(('a & b', text, (starts(len(text), 0, 3, 4, 9), starts(len(text), 0, 9))))
  assert name.text == 'a & b'
  boxes = [(float(box.get('x')), float(box.get('width'))) for box in found if box.tag == f'{SVG}rect']
  columns = [width / cuts.COLUMN for _, width in boxes]
  assert columns == pytest.approx([3, 2 / 3, 4 / 3 + 2, 4], abs=0.02)  # the first character is divided behind a byte
  assert all(x + w == pytest.approx(after, abs=0.2) for (x, w), (after, _) in itertools.pairwise(boxes))
  lines = [float(line.get('x1')) for line in found if line.tag == f'{SVG}line']
  assert lines == [boxes[0][0], boxes[3][0]]
  assert ''.join(letter.text for letter in found if letter.tag == f'{SVG}text') == text.decode()


def test_a_model_without_chunks_has_one_box_and_no_byte_is_lost():
  ((_, *found),) = drawn(('flat', b'a\n\xff\x1bz', ()))
  assert [box.tag for box in found].count(f'{SVG}rect') == 1
  assert ''.join(letter.text for letter in found if letter.tag == f'{SVG}text') == 'a↵\\xff\\x1bz'


def test_the_command_cuts_with_each_run(tmp_path, monkeypatch, capsys):
  from configs import quickstart_pool

  config = quickstart_pool.get_config()
  config.model.update({'d_model': (16, 16), 'd_intermediate': (16, 32), 'arch_layout': ('T1', ('T1',), 'T1')})
  config.model.attn_cfg = {'num_heads': (2, 2), 'rotary_emb_dim': (4, 4), 'window_size': (-1, -1)}
  config.update({'num_steps': 1, 'batch_size': 1, 'seq_len': 32})
  (tmp_path / 'text.txt').write_bytes(b'one two three')
  config.data.source = config.data.validation = f'files:{tmp_path}/text.txt@all'
  training.train(config, tmp_path / 'pool')
  cuts.main([str(tmp_path / 'pool'), '--text=abcdefghijkl', f'--out={tmp_path}/cuts.svg'])
  assert 'abcd|efghi|jkl' in capsys.readouterr().out and '<rect' in (tmp_path / 'cuts.svg').read_text()


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [(['a/x', 'b/x'], 'same name'), (['x', '--out=a.png'], '.svg'), (['x', '--text='], 'nothing to cut')],
)
def test_bad_arguments_are_refused_before_anything_is_loaded(monkeypatch, arguments, words):
  monkeypatch.setattr(cuts.training, 'load', None)
  with pytest.raises(ValueError, match=words):
    cuts.main(arguments)
