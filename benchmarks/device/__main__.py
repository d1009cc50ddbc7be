"""What a GPU or a TPU computes and how fast, in minutes and without network (docs/devices.md).

  python -m benchmarks.device --minutes=6 --out=report.json
  python -m benchmarks.device --tiny                           # on a CPU, in seconds: that the program itself works

The checks stand in benchmarks/device/checks.py, the most valuable first. They run in a process of their own: one that
crashes or hangs is named, and the next begins in a new one. The report is written after every row. What does not fit
the minutes is named as skipped. Ends with code 0 if all that ran agrees, else 1.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.device.checks import CHECKS, Check
from evaluation import report as report_lib
from text import command_line

LONGEST = 200.0  # seconds of one check, so that one that hangs leaves time for the others
END = 5.0  # seconds that are kept for the end
WORKER = (sys.executable, '-m', 'benchmarks.device.worker')
GOOD = ('agrees', 'measured', 'skipped')


def main(arguments: list[str]) -> None:
  """Runs the checks, writes the report, prints the table."""
  parser = command_line.Parser(prog='python -m benchmarks.device', description=__doc__)
  parser.add_argument('--minutes', type=float, default=6.0, help='that it may take in all (%(default)s)')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('device_report.json'), help='(%(default)s)')
  parser.add_argument(
    '--only', nargs='+', default=None, metavar='CHECK', help='names, or beginnings of names, of checks'
  )
  parser.add_argument('--tiny', action='store_true', help='small sizes, kernels interpreted: for a CPU')
  flags = parser.parse_args(arguments)
  if not flags.minutes > 0:
    raise ValueError(f'--minutes={flags.minutes} must be above 0')
  checks = list(CHECKS)
  if flags.tiny:
    checks = [dataclasses.replace(check, least=0, fresh=False) for check in CHECKS if not check.again]
  chosen = [check for check in checks if flags.only is None or check.name.startswith(tuple(flags.only))]
  if not chosen:
    raise ValueError(
      f'--only={" ".join(flags.only)} names no check: they are {", ".join(check.name for check in checks)}'
    )
  report_lib.check_writable(flags.out, '--out')
  command = [*WORKER, '--tiny'] if flags.tiny else WORKER
  report = Report(flags.out, {'minutes': flags.minutes, 'tiny': flags.tiny})
  run(chosen, report, command, time.monotonic() + 60 * flags.minutes - END)
  if not report.content['facts']:
    raise ValueError(report.content['checks'][0]['message'])
  print(report.table())
  print(f'\n{report.summary()}; the report is {flags.out}')
  sys.exit(0 if report.is_good() else 1)


class Report:
  """What is known so far, on disk after every change."""

  def __init__(self, path: pathlib.Path, facts: dict[str, Any]):
    self.path, self.began = path, time.monotonic()
    self.content: dict[str, Any] = {**facts, 'facts': {}, 'checks': []}

  def begin(self, name: str) -> dict[str, Any]:
    """An entry for a check; `write` after changing it."""
    entry = {'name': name, 'status': 'running', 'seconds': 0.0, 'message': '', 'rows': []}
    self.content['checks'].append(entry)
    self.write()
    return entry

  def write(self) -> None:
    """Whole or not at all; a number that is none is null."""
    self.content['seconds'] = round(time.monotonic() - self.began, 1)
    report_lib.write_json(self.path, report_lib.as_json(self.content))

  @property
  def known(self) -> dict[str, dict[str, Any]]:
    """The first row of every check."""
    return {entry['name']: entry['rows'][0] for entry in self.content['checks'] if entry['rows']}

  def is_good(self) -> bool:
    """Whether something ran, and all that ran agrees."""
    checks = self.content['checks']
    agree = all(row.get('agrees', True) for entry in checks for row in entry['rows'])
    return agree and any(entry['rows'] for entry in checks) and all(entry['status'] in GOOD for entry in checks)

  def summary(self) -> str:
    """How many checks ended how."""
    statuses = [entry['status'] for entry in self.content['checks']]
    return ', '.join(f'{statuses.count(status)} {status}' for status in dict.fromkeys(statuses))

  def table(self) -> str:
    """Markdown: a line for every row, and for every check without one."""
    lines = []
    for entry in self.content['checks']:
      for row in entry['rows']:
        result = {True: 'agrees', False: 'DIFFERS', None: ''}[row.get('agrees')]
        figures = {key: value for key, value in row.items() if key not in ('what', 'agrees')}
        text = ', '.join(f'{key.replace("_", " ")} {_number(value)}' for key, value in figures.items())
        lines.append({'check': entry['name'], 'what': row['what'], 'result': result, 'figures': text})
      if not entry['rows'] or entry['status'] not in GOOD:
        lines.append({'check': entry['name'], 'what': '', 'result': entry['status'], 'figures': entry['message']})
    return report_lib.markdown(lines) if lines else ''


def _number(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)


class Worker:
  """A process that has the device."""

  def __init__(self, command: Sequence[str]):
    self.said = tempfile.TemporaryFile(mode='w+', errors='replace')  # noqa: SIM115 (open as long as the process)
    self.process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True, process_group=0
    )
    self.late = False

  def answers(self, request: dict[str, Any] | None, seconds: float):
    """What the process sends until it is done with the request (None: its first word), ends, or is ended for time."""
    timer = threading.Timer(max(seconds, 0.0), self._end_for_time)
    timer.start()
    try:
      if request is not None:
        self.process.stdin.write(json.dumps(request) + '\n')
        self.process.stdin.flush()
      for line in self.process.stdout:
        answer = json.loads(line)
        yield answer
        if 'row' not in answer:
          return
    except BrokenPipeError:
      pass
    finally:
      timer.cancel()

  def _end_for_time(self) -> None:
    self.late = True
    self.end()

  def end(self) -> None:
    """At once, with the compilers that it may have started."""
    if self.process.poll() is None:
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait()

  def last_words(self) -> str:
    """How the process ended, and the last line on its standard error that speaks of an error, or the last at all."""
    try:
      code = self.process.wait(timeout=END)
    except subprocess.TimeoutExpired:  # it has closed its output and hangs
      self.end()
      code = self.process.wait()
    self.said.seek(0)
    lines = [line.strip() for line in self.said if line.strip()]
    errors = [line for line in lines if 'rror' in line or 'atal' in line or 'heck failed' in line]
    how = f'signal {-code}' if code < 0 else f'code {code}'
    return f'the process ended with {how}: {(errors or lines or ["no message"])[-1][:300]}'


def run(checks: Sequence[Check], report: Report, command: Sequence[str], end: float) -> None:
  """Runs the checks in order until the time `end` (monotonic). What cannot run is in the report as skipped."""
  worker, why = None, ''
  try:
    for check in checks:
      left = end - time.monotonic()
      if not why and left < check.least:
        entry = report.begin(check.name)
        entry |= {'status': 'skipped', 'message': f'{max(left, 0):.0f} s were left, and it needs {check.least}'}
        report.write()
        continue
      if not why and (worker is None or check.fresh):
        worker, why = _start(worker, command, report, end)
      entry = report.begin(check.name)
      if why:
        entry |= {'status': 'skipped', 'message': why}
      elif not _ask(worker, check, entry, report, end):
        worker.end()
        worker = None
      report.write()
  finally:
    if worker is not None:
      worker.end()


def _start(worker: Worker | None, command: Sequence[str], report: Report, end: float) -> tuple[Worker | None, str]:
  """(a new process, '') or (None, why there is none)."""
  if worker is not None:
    worker.end()
  worker = Worker(command)
  for answer in worker.answers(None, end - time.monotonic()):
    if 'facts' in answer:
      report.content['facts'] = answer['facts']
      return worker, ''
    return None, answer['error']
  return None, 'there was no time left to start' if worker.late else worker.last_words()


def _ask(worker: Worker, check: Check, entry: dict[str, Any], report: Report, end: float) -> bool:
  """Fills the entry of one check; False if the process is not to be used again."""
  print(check.name, file=sys.stderr, flush=True)
  began = time.monotonic()
  limit = min(LONGEST, end - began)
  error = None
  for answer in worker.answers({'check': check.name, 'known': report.known}, limit):
    if 'row' in answer:
      entry['rows'].append(answer['row'])
      entry['seconds'] = round(time.monotonic() - began, 1)
      report.write()
    else:
      error = answer['done']
  entry['seconds'] = round(time.monotonic() - began, 1)
  if error is None:
    words = worker.last_words()
    status = 'skipped' if worker.late and limit < LONGEST else 'stopped' if worker.late else 'crashed'
    entry |= {'status': status, 'message': f'ended after {limit:.0f} s' if worker.late else words}
  elif error:
    entry |= {'status': 'failed', 'message': command_line.sentence(error)}
  else:
    agree = [row['agrees'] for row in entry['rows'] if 'agrees' in row]
    entry['status'] = 'measured' if not agree else 'agrees' if all(agree) else 'differs'
  return error == ''


if __name__ == '__main__':
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the worker is ended too
  command_line.run(main)
