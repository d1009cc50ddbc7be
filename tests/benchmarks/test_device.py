"""The device check: on a CPU at tiny sizes it says what it found; whatever a check does, the others go on."""

import json
import pathlib
import subprocess
import sys
import time

import jax
import pytest

from benchmarks.device import __main__ as device
from benchmarks.device.checks import CHECKS, Check
from benchmarks.device.context import Context
from benchmarks.device.operations import chosen_is_fastest

ROOT = pathlib.Path(__file__).parents[2]
FAKE = """
import json, os, sys, time
print(json.dumps({'facts': {'device': 'fake', 'process': os.getpid()}}), flush=True)
for line in sys.stdin:
  request = json.loads(line)
  name = request['check']
  print(json.dumps({'row': {'what': 'a row', 'process': os.getpid(), 'known': sorted(request['known'])}}), flush=True)
  if name == 'aborts':
    print('some log', file=sys.stderr)
    print('F1129 Check failed: tiles > 0', file=sys.stderr)
    print('*** the end', file=sys.stderr, flush=True)
    os.abort()
  if name == 'hangs':
    time.sleep(100)
  if name.startswith('differs'):
    print(json.dumps({'row': {'what': 'values', 'agrees': False, 'difference': float('nan')}}), flush=True)
  if name == 'differs and hangs':
    time.sleep(100)
  if name in ('agrees', 'differs'):
    print(json.dumps({'row': {'what': 'gradients', 'agrees': True, 'difference': 1e-7}}), flush=True)
  print(json.dumps({'done': 'ValueError: no such kernel' if name == 'fails' else ''}), flush=True)
"""


@pytest.fixture
def run(tmp_path):
  """Runs checks of these names in the fake process; gives the report."""
  script = tmp_path / 'fake.py'
  script.write_text(FAKE)

  def run(*checks, seconds=60.0, command=(sys.executable, str(script))):
    report = device.Report(tmp_path / 'report.json', {'minutes': seconds / 60, 'tiny': True})
    checks = [Check(check, '', '', least=0) if isinstance(check, str) else check for check in checks]
    device.run(checks, report, command, time.monotonic() + seconds)
    return report

  return run


def statuses(report):
  return [entry['status'] for entry in json.loads(report.path.read_text())['checks']]


def processes(report):
  return [entry['rows'][0]['process'] for entry in report.content['checks']]


def test_checks_share_a_process_and_know_what_was_found_before_them(run):
  report = run('measures', 'agrees', 'differs')
  assert statuses(report) == ['measured', 'agrees', 'differs'] and not report.is_good()
  assert len({*processes(report)}) == 1
  assert report.content['checks'][2]['rows'][0]['known'] == ['agrees', 'measures']
  assert report.content['facts']['device'] == 'fake'
  assert json.loads(report.path.read_text())['checks'][2]['rows'][1]['difference'] is None  # JSON has no nan
  table = report.table().splitlines()
  assert '| differs | values | DIFFERS | difference nan |' in table and len(table) == 2 + 1 + 2 + 3 + 1
  assert run('measures', 'agrees').is_good()


def test_a_check_that_aborts_is_named_with_its_last_words_and_the_others_go_on(run):
  report = run('agrees', 'aborts', 'agrees')
  assert statuses(report) == ['agrees', 'crashed', 'agrees'] and not report.is_good()
  crashed = report.content['checks'][1]
  assert crashed['message'] == 'the process ended with signal 6: F1129 Check failed: tiles > 0'
  assert crashed['rows'][0]['what'] == 'a row'
  first, second, third = processes(report)
  assert first == second != third
  assert '| aborts |  | crashed | the process ended with signal 6: F1129 Check failed: tiles > 0 |' in report.table()


def test_a_check_that_fails_is_named_with_its_error(run):
  report = run('fails', 'agrees')
  assert statuses(report) == ['failed', 'agrees'] and not report.is_good()
  assert report.content['checks'][0]['message'] == 'ValueError: no such kernel'
  assert len({*processes(report)}) == 2  # what is left of it in memory is in no other's way


def test_a_check_that_hangs_is_stopped(run, monkeypatch):
  monkeypatch.setattr(device, 'LONGEST', 1.0)
  report = run('hangs', 'agrees')
  assert statuses(report) == ['stopped', 'agrees'] and not report.is_good()
  assert report.content['checks'][0]['message'] == 'ended after 1 s'


def test_what_does_not_fit_the_time_is_named_as_skipped(run):
  began = time.monotonic()
  report = run('agrees', 'hangs', 'agrees', Check('long', '', '', least=50), seconds=3.0)
  assert time.monotonic() - began < 30
  assert statuses(report) == ['agrees', 'skipped', 'skipped', 'skipped'] and report.is_good()
  assert [entry['message'].startswith('0 s were left') for entry in report.content['checks'][2:]] == [True, True]


def test_what_differs_counts_also_where_the_time_ends_the_check(run):
  report = run('differs and hangs', seconds=2.0)
  assert statuses(report) == ['skipped'] and not report.is_good()


def test_a_check_may_need_a_process_of_its_own(run):
  first, second = processes(run('agrees', Check('agrees', '', '', least=0, fresh=True)))
  assert first != second


def test_without_a_process_nothing_runs_and_the_reason_is_said(run):
  report = run('agrees', 'agrees', command=(sys.executable, '-c', 'raise SystemError("no driver")'))
  assert statuses(report) == ['skipped'] * 2 and not report.is_good()
  assert report.content['checks'][1]['message'] == 'the process ended with code 1: SystemError: no driver'


def test_a_machine_without_an_accelerator_is_one_sentence():
  with pytest.raises(ValueError, match='this machine has a cpu and no GPU or TPU that jax sees: use --tiny'):
    Context.here(tiny=False)


@pytest.mark.parametrize(
  ('arguments', 'sentence'),
  [
    (['--minutes=0'], r'--minutes=0\.0 must be above 0'),
    (['--only', 'nothing'], '--only=nothing names no check: they are route: agreement, '),
    (['--out=no/such/folder/report.json'], 'cannot be written: name another file with --out'),
  ],
)
def test_bad_flags_are_one_sentence(arguments, sentence):
  with pytest.raises((ValueError, OSError), match=sentence):
    device.main(arguments)


def test_the_choice_is_judged_by_its_time():
  row = chosen_is_fastest('forward', 'bfloat16', 'xla', {'xla': 2.0, 'pallas_gpu': 1.0})
  assert (row['chosen_is_fastest'], row['fastest'], row['times_as_fast']) == (False, 'pallas_gpu', 2.0)
  assert chosen_is_fastest('forward', 'bfloat16', 'xla', {'xla': 1.01, 'pallas_gpu': 1.0})['chosen_is_fastest']


def test_names_differ_and_every_check_is_there():
  assert len({check.name for check in CHECKS}) == len(CHECKS)
  assert all(callable(check.load()) for check in CHECKS)


MISSING = [
  'grain',
  'tensorflow_datasets',
  'array_record',
  'ml_collections',
  'pyarrow',
  'tokenizers',
  'hat_splitter',
  'unicode_segmentation_rs',
  'tensorboardX',
  'gguf',
  'torch',
]


def test_it_needs_no_package_that_a_bare_machine_lacks():
  program = f"""
import sys
sys.modules |= dict.fromkeys({MISSING})
from benchmarks.device import __main__, checks, worker
[check.load() for check in checks.CHECKS]
"""
  done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr[-2000:]


def test_on_a_cpu_every_check_runs_at_tiny_sizes(tmp_path, capfd, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  with pytest.raises(SystemExit) as end:
    device.main(['--tiny', f'--out={tmp_path / "report.json"}', '--minutes=9'])
  report = json.loads((tmp_path / 'report.json').read_text())
  assert end.value.code == 0, report
  assert [entry['name'] for entry in report['checks']] == [check.name for check in CHECKS if not check.again]
  assert {entry['status'] for entry in report['checks']} == {'agrees', 'measured'}
  rows = {entry['name']: entry['rows'] for entry in report['checks']}
  assert [row['what'] for row in rows['chunk: agreement']] == [
    f'{part}, float32, {name}' for name in ('xla', 'pallas_gpu') for part in ('values', 'gradients')
  ]
  assert {*rows['peaks'][0]} == {'what', 'bandwidth', 'flops', 'dispatch'}
  assert [row['what'].partition(',')[0] for row in rows['oracles']] == ['causality', 'streaming', 'isolation']
  step, memory = rows['hnet training']
  assert step['loss_after'] < step['loss'] and 2 < step['bytes_a_chunk_0'] < 12 and step['share_of_peak'] > 0
  assert memory['planned_mebibytes'] > 0
  assert rows['flat training'][0]['megaflops_a_byte'] == pytest.approx(step['megaflops_a_byte'], rel=0.1)
  assert rows['route: speed'][-1]['chosen'] == 'xla'
  facts = report['facts']
  assert facts['device'] == 'cpu' and facts['versions']['jax'] == jax.__version__ and facts['date']
  assert capfd.readouterr().out.count('| agrees |') == sum('agrees' in row for entry in rows.values() for row in entry)
