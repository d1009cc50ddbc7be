"""Contestants in processes of their own that run in turns: nobody's threads or memory stand in another's way.

A contestant is a function that prepares once and returns `run() -> seconds`, with what it wants to say of itself. The
parent starts `python -m MODULE --contestant=NAME ...` for each, and lets them run one after the other, turn by turn.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# Both sides get huge pages: page faults on fresh buffers otherwise take up to a third of a step on a CPU.
ENVIRONMENT = {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1', 'PYTHONUNBUFFERED': '1'}


def serve(facts: Mapping[str, Any], run: Callable[[], float]) -> None:
  """The contestant's side: says what it is, then runs once for every line on standard input and prints the seconds."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # what libraries print is no answer
  print(json.dumps(facts), file=answers, flush=True)
  for _ in sys.stdin:
    print(json.dumps(run()), file=answers, flush=True)


def play(
  module: str, names: Sequence[str], arguments: Sequence[str], turns: int
) -> tuple[dict[str, dict[str, Any]], dict[str, list[float]]]:
  """({name: what it said of itself}, {name: seconds of every turn}); the first turn of each warms up and is left out.

  Raises RuntimeError if a contestant ends early; what it printed stands on standard error.
  """
  with contextlib.ExitStack() as stack:
    players, facts, seconds = {}, {}, {name: [] for name in names}
    for name in names:  # each prepares alone: it may measure what the machine can do at most
      players[name] = stack.enter_context(_contestant(module, name, arguments))
      facts[name] = _answer(name, players[name])
    for turn in range(turns + 1):
      for name, player in players.items():
        player.stdin.write('go\n')
        player.stdin.flush()
        seconds[name] += [_answer(name, player)] if turn else [_answer(name, player)][:0]
      print(f'turn {turn} of {turns}', file=sys.stderr)
  return facts, seconds


@contextlib.contextmanager
def _contestant(module: str, name: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen]:
  command = [sys.executable, '-m', module, f'--contestant={name}', *arguments]
  with subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
  ) as process:
    try:
      yield process
    finally:
      process.kill()


def _answer(name: str, process: subprocess.Popen) -> Any:
  line = process.stdout.readline()
  if not line:
    raise RuntimeError(f'{name} ended with code {process.wait()} before it was done')
  return json.loads(line)
