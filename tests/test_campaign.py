import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(('kinds', 'seed', 'faults'), [('1/0', 0, 8)])
def test_a_short_campaign_loses_nothing(kinds, seed, faults):
  command = [sys.executable, '-m', 'tests.campaign', f'--kinds={kinds}', f'--seed={seed}', f'--faults={faults}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
  assert 'steps lost beyond the last save: 0; divergences: 0; other problems: 0' in done.stdout
