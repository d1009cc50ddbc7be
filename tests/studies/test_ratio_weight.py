"""The study of the ratio loss's weight, on the smallest runs that there can be."""

import shutil

import pytest

from configs import quickstart
from studies import compare, ratio_weight, trainings
from training import train as run

TEXT = [b'The cat sat on the mat. ' * 4, b'A dog lay by the door of the house. ' * 3]


def test_runs_of_several_weights_end_in_one_table_with_targets_and_sizes(tmp_path, monkeypatch, capsys):
  for index, document in enumerate(TEXT):
    (tmp_path / f'{index}.txt').write_bytes(document)

  def train(training):
    workdir = training.workdir
    calls.append((training.config, workdir.name, training.flags))
    if workdir.exists():
      return
    if workdir.name == '1':  # as if it had come to the same
      shutil.copytree(tmp_path / 'study' / '0.03', workdir)
      return
    tiny = quickstart.get_config()
    tiny.model.update({'arch_layout': ('t1', ('t1',), 't1'), 'd_model': (16, 16), 'd_intermediate': (0, 0)})
    tiny.model.attn_cfg = {'num_heads': 1, 'rotary_emb_dim': 8, 'window_size': -1}
    tiny.data.source = tiny.data.validation = f'files:{tmp_path}/*.txt@all'
    tiny.update({'num_steps': 1, 'batch_size': 2, 'seq_len': 32})
    run(tiny, workdir)

  calls = []
  monkeypatch.setattr(trainings, 'run_all', lambda found: list(map(train, found)))
  command = [f'--workdir={tmp_path}/study', '--weights', '0.03', '1', '--', '--config.model.ratio_targets=(4.0,)']
  ratio_weight.main(command)
  page = (tmp_path / 'study' / 'ratio_weight.md').read_text()
  passed = ['--config.model.ratio_targets=(4.0,)', '--config.loss_weights.ratio=']
  assert [call[1:] for call in calls] == [(weight, (passed[0], passed[1] + weight)) for weight in ('0.03', '1')]
  assert {config for config, *_ in calls} == {'configs/quickstart.py'}
  lines = page.splitlines()
  assert 'weight | stage | target | size | of the target | bits per byte' in page
  for weight in ('0.03', '1'):
    (row,) = [line for line in lines if line.startswith(f'| {weight} | 0 | 4.000 | ')]
    score = compare.score(tmp_path / 'study' / weight, compare.WORDS)
    assert f'| {score["bits_per_byte"]:.3f} |' in row and f'| {score["bytes_per_chunk"][0]:.3f} |' in row
  assert page in capsys.readouterr().out
  monkeypatch.setattr(compare.training, 'load', None)  # what is scored is kept
  ratio_weight.main(command)
  assert (tmp_path / 'study' / 'ratio_weight.md').read_text() == page


def test_sizes_of_inner_stages_are_chunks_and_none_is_infinite():
  score = {'bits_per_byte': 1.0, 'bytes_per_chunk': [3.0, 12.0, None]}
  found = ratio_weight.rows({0.3: score}, [None, 2.0, 3.0])
  assert [(row['stage'], row['size'], row['of the target']) for row in found] == [(1, 4.0, '200%'), (2, '∞', '–')]


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--weights', '0.1', '0.1'], '--weights 0.1 0.1: give numbers of 0 or more that differ'),
    (['--weights', '-1'], '--weights -1.0: give numbers'),
    (['--weights', 'inf'], '--weights inf: give numbers'),
    (['--config=configs/nothing.py'], 'there is no such file'),
    (['--config=configs/quickstart_pool.py'], 'its model has no ratio loss, so no weight of it changes anything'),
    (['--', '--config.model.ratio_targets=1'], 'ratio_targets .* must be above 1'),
  ],
)
def test_bad_arguments_are_refused_before_anything_trains(tmp_path, monkeypatch, arguments, words):
  monkeypatch.setattr(trainings, 'run_all', None)
  with pytest.raises((ValueError, OSError), match=words) as error:
    ratio_weight.main([f'--workdir={tmp_path}', *arguments])
  assert '\n' not in str(error.value)
