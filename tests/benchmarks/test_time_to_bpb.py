import sys

import text
from benchmarks import time_to_bpb


def test_a_limit_is_passed_once_after_the_bytes_of_its_step(tmp_path):
  program = tmp_path / 'train.py'
  program.write_text(
    'import json, pathlib, sys\n'
    "workdir = pathlib.Path(sys.argv[1].partition('=')[2])\n"
    'workdir.mkdir()\n'
    "(workdir / 'config.json').write_text(json.dumps({'model': {}, 'batch_size': 2, 'seq_len': 50}))\n"
    "for step, bits in (10, 5.0), (20, 2.5), (30, 2.6):\n  print(f'step {step}/99: validation bpb {bits} x')\n"
  )
  reached, last = time_to_bpb.race([sys.executable, str(program)], {'gzip -9': 3.0, 'xz -9': 2.0}, 60)
  assert list(reached) == ['gzip -9'] and reached['gzip -9'][1] == 20 * 2 * 50 and last == 2.6


def test_the_table_says_what_was_not_reached(monkeypatch, capsys):
  corpus = text.MemoryCorpus([b'an apple and a pear ' * 20], 'fruit', 'validation')
  monkeypatch.setattr(text, 'open_corpus', lambda source, split: corpus)
  commands = []
  monkeypatch.setattr(
    time_to_bpb, 'race', lambda command, limits, seconds: commands.append(command) or ({'gzip -9': (61.2, 10**6)}, 2.5)
  )
  time_to_bpb.main(['--corpora', 'fruit', '--models', 'hat', '--max_minutes=2', '--', '--config.seed=3'])
  rows = capsys.readouterr().out.splitlines()[2:]
  assert [row.split('|')[4:] for row in rows] == [[' 61 ', ' 1.00 ', ' 2.500 ', ''], [' – ', ' – ', ' 2.500 ', '']]
  assert commands[0][-1] == '--config.seed=3' and time_to_bpb.RECIPE[0] in commands[0]
