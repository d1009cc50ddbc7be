"""What surprisal adds to reading times: a planted effect against its closed form, and files that are not these."""

import math

import numpy as np
import pytest

from evaluation import suites
from evaluation.predictions import predict_all
from evaluation.suites import reading_times as lib

RNG = np.random.default_rng(0)
SPREAD, EFFECT = 0.1, 0.05  # of the logarithm of times: standard deviation, and its change with a bit


def planted(stories=5, words=400, effect=EFFECT):
  """Stories whose log times are linear in length, frequency and surprisal, with noise."""
  found, surprisals = [], []
  for _ in range(stories):
    size, frequency, surprisal = RNG.integers(1, 9, words), RNG.uniform(1, 1e6, words), RNG.gamma(4, 2, words)
    log_time = 5.5 + 0.02 * size - 0.01 * np.log(frequency) + effect * surprisal + RNG.normal(0, SPREAD, words)
    found.append(
      [lib.Word('x' * int(n), zone + 1, math.exp(t), f)
       for zone, (n, f, t) in enumerate(zip(size, frequency, log_time, strict=True))]
    )  # fmt: skip
    surprisals.append(surprisal)
  return found, surprisals


def test_a_planted_effect_adds_what_a_normal_variable_does_and_a_shuffled_one_nothing():
  stories, surprisals = planted()
  found = np.concatenate(lib.gain(stories, surprisals))
  assert len(found) == 5 * 399
  closed = 0.5 * math.log(1 + EFFECT**2 * 4 * 2**2 / SPREAD**2)  # half the log of the ratio of variances
  assert found.mean() == pytest.approx(closed, rel=0.15)
  shuffled = lib.gain(stories, [RNG.permutation(of) for of in surprisals])
  assert abs(np.concatenate(shuffled).mean()) < 0.01
  low, high = lib.interval(lib.gain(stories, surprisals), np.random.default_rng(0))
  assert low < found.mean() < high and high - low < 0.2


def test_the_fit_is_least_squares():
  x, y = RNG.normal(size=(50, 3)), RNG.normal(size=50)
  weights = np.linalg.solve(x.T @ x, x.T @ y)
  variance = np.mean((y - x @ weights) ** 2)
  expected = -0.5 * (np.log(2 * np.pi * variance) + (y - x @ weights) ** 2 / variance)
  assert lib._log_likelihood(x, y, x, y) == pytest.approx(expected)


@pytest.fixture
def directory(tmp_path):
  """Two stories in the formats of the corpus, one word without a time."""
  (tmp_path / 'naturalstories_RTS').mkdir()
  (tmp_path / 'freqs').mkdir()
  texts = {1: "If you 'were to journey", 2: 'A clear day, it was so nice'}
  rows = [(word, zone + 1, item) for item, text in texts.items() for zone, word in enumerate(text.split())]
  table = lambda names, lines: '\n'.join('\t'.join(map(str, line)) for line in [names, *lines]) + '\n'
  (tmp_path / 'naturalstories_RTS/all_stories.tok').write_text(table(('word', 'zone', 'item'), rows))
  times = [(*row, 80, 300 + 10 * place, 5) for place, row in enumerate(rows) if row[0] != 'day,']
  columns = ('word', 'zone', 'item', 'nItem', 'meanItemRT', 'sdItemRT')
  (tmp_path / 'naturalstories_RTS/processed_wordinfo.tsv').write_text(table(columns, reversed(times)))
  frequencies = [(f'{item}.{zone}.{part}', 1, word, 1000 + zone, 'NA')
                 for word, zone, item in rows for part in ('whole', 'word', '1')]  # fmt: skip
  (tmp_path / 'freqs/freqs-1.tsv').write_text(table(*[(frequencies[0]), frequencies[1:]]))
  return tmp_path


def test_files_of_the_corpus_are_read_and_surprisals_add_up(directory, two_byte_model):
  stories = lib.read(str(directory))
  assert ' '.join(word.text for word in stories[0]) == "If you 'were to journey"
  assert stories[1][2] == lib.Word('day,', 3, None, 1003.0) and stories[0][1].time == 310
  model = two_byte_model(positional=True)
  texts = [' '.join(word.text for word in story).encode() for story in stories]
  for story, found in zip(stories, predict_all(model, texts, seq_len=32, batch_size=2), strict=True):
    bits = lib.of_words(story, found.bits)
    assert len(bits) == len(story) and bits.sum() == pytest.approx(found.bits.sum())
    assert bits[0] == pytest.approx(found.bits[: len(story[0].text) + 1].sum())
  name, own = suites.parse(f'reading_times(directory={directory})')
  rows = {row.metric: row for row in suites.SUITES[name].measure(model, {}, None, suites.Options(32, 2, 0, own))}
  assert rows['delta_ll_low'].value <= rows['delta_ll'].value <= rows['delta_ll_high'].value
  assert rows['delta_ll'].extras == {'words': 4 + 5}


def test_other_files_are_refused_in_one_sentence(directory, tmp_path):
  with pytest.raises(ValueError, match='^reading_times: name a copy of the Natural Stories corpus'):
    lib.read('')
  (directory / 'naturalstories_RTS/all_stories.tok').write_text('word\tplace\nIf\t1\n')
  with pytest.raises(ValueError, match=r"all_stories.tok' has no column zone: its first line names word, zone, item"):
    lib.read(str(directory))
  (directory / 'freqs/freqs-1.tsv').unlink()
  with pytest.raises(FileNotFoundError, match=r'has no file freqs-1\*.tsv: name a copy of the repository'):
    lib.read(str(directory))
