"""Does the number of processes change what is learned? One training, by 1, 2 and 4 processes of this machine.

  python -m studies.processes --workdir=DIR [--processes 1 2 4] [--config=configs/quickstart.py --config.num_steps=20 …]

Prints the losses by number of processes, and the largest relative difference to the first. Each process has one CPU
device; the other arguments go to train.py. Without --config: the quickstart on rows of 64 bytes, 20 steps.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys

from text import command_line, paths

TRAIN = pathlib.Path(__file__).parent.parent / 'train.py'
SMALL = [
  f'config={TRAIN.parent}/configs/quickstart.py',
  'config.num_steps=20',
  'config.seq_len=64',
  'config.eval.max_bytes=5000',
]


def main(arguments: list[str]) -> None:
  """Trains with each number of processes and prints the table."""
  parser = command_line.Parser(description=__doc__)
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--processes', type=int, nargs='+', default=[1, 2, 4])
  options, forwarded = parser.parse_known_args(arguments)
  workdir = paths.of(options.workdir, '--workdir', text=True).absolute()
  if workdir.exists():
    raise ValueError(f'{workdir} is there already: name a new --workdir')
  forwarded = forwarded or [f'--{flag}' for flag in SMALL]
  runs = {number: train(workdir / str(number), number, forwarded) for number in options.processes}
  first = runs[options.processes[0]]
  print('| step | ' + ' | '.join(f'{number} process' + 'es' * (number > 1) for number in runs) + ' |')
  print('|---' * (len(runs) + 1) + '|')
  for index in sorted({*range(0, len(first), max(len(first) // 5, 1)), len(first) - 1}):
    print(f'| {first[index]["step"]} | ' + ' | '.join(f'{run[index]["loss"]:.7f}' for run in runs.values()) + ' |')
  print('| validation | ' + ' | '.join(f'{run[-1]["validation_bpb"]:.7f}' for run in runs.values()) + ' |')
  differences = (max(abs(a['loss'] / b['loss'] - 1) for a, b in zip(run, first, strict=True)) for run in runs.values())
  print('| largest difference | ' + ' | '.join(f'{difference:.1e}' for difference in differences) + ' |')


def train(workdir: pathlib.Path, number: int, flags: list[str]) -> list[dict]:
  """The metrics of every step of a training by that many processes. Raises OSError if it failed, ValueError
  for a loss or a score that is not finite.
  """
  with socket.create_server(('', 0)) as free:
    address = f'localhost:{free.getsockname()[1]}'
  command = [sys.executable, str(TRAIN), *flags, '--config.log.every_steps=1', f'--workdir={workdir}']
  command += [f'--coordinator_address={address}', f'--num_processes={number}']
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=1'}
  started = [
    subprocess.Popen([*command, f'--process_id={process}'], env=environment, stdout=subprocess.DEVNULL)
    for process in range(number)
  ]
  if any([process.wait() for process in started]):
    raise OSError(f'the training by {number} processes failed, see above')
  metrics = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  if any(step['loss'] is None for step in metrics) or 'validation_bpb' not in metrics[-1]:
    raise ValueError(f'a loss or score by {number} processes is not finite, see above: lower the learning rate')
  return metrics


if __name__ == '__main__':
  command_line.run(main)
