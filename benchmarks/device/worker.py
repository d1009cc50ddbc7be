"""The process that touches the device: a check's name on a line of standard input, its rows as lines on the output."""

import dataclasses
import json
import os
import sys
from typing import Any

import jax

from benchmarks.device import context as context_lib
from benchmarks.device.checks import CHECKS


def main(tiny: bool) -> None:
  """Says where it is, then runs what it is asked to: {'check', 'known'} in, {'row'} … and {'done': error or ''} out."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # what libraries print is no answer
  send = lambda answer: print(json.dumps(answer), file=answers, flush=True)
  see_a_cpu_too()
  try:
    context = context_lib.Context.here(tiny)
  except (ValueError, RuntimeError) as error:  # jax has no error type of its own for a device that does not start
    send({'error': str(error)})
    return
  send({'facts': context_lib.facts(context)})
  checks = {check.name: check for check in CHECKS}
  for line in sys.stdin:
    request = json.loads(line)
    send({'done': run(checks[request['check']], dataclasses.replace(context, known=request['known']), send)})


def run(check: Any, context: context_lib.Context, send: Any) -> str:
  """Sends the rows of one check as they come; what went wrong, or ''."""
  try:
    for row in check.load()(context=context):
      send({'row': row})
  except Exception as error:  # of the compiler, the driver, the kernel: the others go on
    return f'{type(error).__name__}: {error}'
  return ''


def see_a_cpu_too() -> None:
  """The CPU computes what the device is compared with, also where JAX_PLATFORMS names the device alone."""
  platforms = jax.config.jax_platforms
  if platforms and 'cpu' not in platforms.split(','):
    jax.config.update('jax_platforms', f'{platforms},cpu')


if __name__ == '__main__':
  main('--tiny' in sys.argv[1:])
