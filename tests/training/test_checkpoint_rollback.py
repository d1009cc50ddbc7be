"""A run that diverged on a stretch of data, and goes on behind it."""

import json

import numpy as np
import pytest

import training
from tests.training import patched


@pytest.fixture
def bad_data(monkeypatch):
  patched.bad_data(monkeypatch.setattr)


def test_a_run_goes_back_and_passes_over_the_data_on_which_it_diverged(bad_data, make_config, tmp_path, capsys):
  config = make_config(**{'model.poison_byte': 1, 'checkpoint.rollbacks': 1, 'checkpoint.keep_latest': 1})
  values = training.train(config, tmp_path)
  said = capsys.readouterr().out
  assert 'up to step 17, had a non-finite loss' in said
  assert 'rollback 1 of 1: the run goes on from step 5 with the data behind that of step 17' in said
  assert f'{tmp_path} goes on from step 5 of 20' in said
  assert values['rollbacks'] == 1 and values['skipped'] == 0 and np.isfinite(values['loss'])
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == list(range(1, 21))
  assert [line['rollbacks'] for line in lines] == [0.0] * 5 + [1.0] * 15
  record = training.loop.checkpoint.read_record(tmp_path / 'checkpoints', 20)
  assert record['position']['start_row'] == 17 * 8 + 15 * 8 and record['position']['rollbacks'] == 1


def test_a_run_without_rollbacks_left_ends_and_a_key_says_how_many(bad_data, make_config, tmp_path):
  config = make_config(**{'model.poison_byte': 1})
  with pytest.raises(training.Diverged, match='up to step 17'):
    training.train(config, tmp_path)
  with pytest.raises(ValueError, match=r'config key checkpoint\.rollbacks must be 0 \(none\) or more, got -1'):
    training.train(make_config(**{'checkpoint.rollbacks': -1}), tmp_path / 'other')
  with pytest.raises(ValueError, match=r'config key optimizer\.skip_norm must be 0 \(none is skipped\) or above 1'):
    training.train(make_config(**{'optimizer.skip_norm': 0.5}), tmp_path / 'other')
