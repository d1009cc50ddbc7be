"""Shows that a run killed at random steps ends as if nothing had happened.

  python -m training.kill_test --config=configs/quickstart.py --workdir=DIR --kills=10 [--config.num_steps=60 …]

Trains the config twice: in DIR/whole without disturbance, and in DIR/killed, where it is sent SIGKILL `kills` times,
at random steps and at a random moment within them, and started again by the same command. The two must end with
bit-equal parameters, optimizer state and average, and the same losses at the same steps. Exit code 0 if they do.
Arguments that it does not know go to train.py; metrics are logged at every step.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np

from training import checkpoint
from training.checkpoint import array_store
from training.workdir import CHECKPOINTS, read_config

TRAIN = pathlib.Path(__file__).parent.parent / 'train.py'
TIMING = ('bytes_per_second', 'model_flops_utilization', 'data_wait')


def main() -> None:
  parser = argparse.ArgumentParser(description='Kill a training run at random steps and compare it with a whole one.')
  parser.add_argument('--workdir', required=True, type=pathlib.Path)
  parser.add_argument('--kills', type=int, default=10)
  parser.add_argument('--seed', type=int, default=0, help='of the steps at which the run is killed')
  options, forwarded = parser.parse_known_args()
  whole, killed = options.workdir / 'whole', options.workdir / 'killed'
  if whole.exists() or killed.exists():
    parser.error(f'{options.workdir} holds an earlier test: name a new directory')
  command = [sys.executable, str(TRAIN), *forwarded, '--config.log.every_steps=1']

  print(f'training without disturbance in {whole}', flush=True)
  subprocess.run([*command, f'--workdir={whole}'], check=True, stdout=subprocess.DEVNULL)
  num_steps = read_config(whole)['num_steps']
  chance = random.Random(options.seed)
  problems = kill_repeatedly([*command, f'--workdir={killed}'], killed, num_steps, options.kills, chance)
  problems += compare(whole, killed, num_steps)
  print(
    '\n'.join(problems) or f'bit-equal after {options.kills} kills: parameters, optimizer, losses of {num_steps} steps'
  )
  sys.exit(bool(problems))


def kill_repeatedly(
  command: list[str], workdir: pathlib.Path, num_steps: int, kills: int, chance: random.Random
) -> list[str]:
  """Runs a training command, kills it at `kills` random steps in rising order, then lets it end; what went wrong."""
  if not 0 < kills < num_steps:
    raise ValueError(f'kills must be between 1 and num_steps - 1 = {num_steps - 1}, got {kills}')
  problems = []
  for target in sorted(chance.sample(range(1, num_steps), kills)):
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
      for line in process.stdout:
        if line.startswith('step ') and int(line[5:].partition('/')[0]) >= target:
          time.sleep(chance.uniform(0, 0.1))  # within a step, a save, or the step after
          process.send_signal(signal.SIGKILL)
          break
    if process.returncode == -signal.SIGKILL:
      print(
        f'killed at {line.partition("  ")[0]}, checkpoints {checkpoint.all_steps(workdir / CHECKPOINTS)}', flush=True
      )
    else:
      problems.append(f'the run to be killed at step {target} ended by itself with code {process.returncode}')
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  return problems


def compare(whole: pathlib.Path, killed: pathlib.Path, step: int) -> list[str]:
  """How the last checkpoints and the metrics of two runs differ, [] if they do not."""
  problems = []
  first, second = (saved_arrays(workdir / CHECKPOINTS / str(step)) for workdir in (whole, killed))
  if first.keys() != second.keys():
    problems.append(f'other arrays: {sorted(first.keys() ^ second.keys())}')
  for path in sorted(first.keys() & second.keys()):
    if first[path].tobytes() != second[path].tobytes():
      worst = np.max(np.abs(first[path].astype(np.float64) - second[path].astype(np.float64)))
      problems.append(f'{path} differs by up to {worst:g}')
  first, second = (_metrics(workdir) for workdir in (whole, killed))
  if [line['step'] for line in first] != [line['step'] for line in second]:
    problems.append('metrics.jsonl of the killed run does not have each step once and in order')
  problems += [f'other metrics at step {a["step"]}: {a} {b}' for a, b in zip(first, second, strict=False) if a != b][:1]
  return problems


def saved_arrays(checkpoint_path: pathlib.Path) -> dict[str, np.ndarray]:
  """{item/path: array} of one checkpoint directory, on the host."""
  items = sorted(path.parent for path in checkpoint_path.glob('*/manifest.ocdbt'))
  return {f'{item.name}/{path}': array_store.read(item, path) for item in items for path in array_store.names(item)}


def _metrics(workdir: pathlib.Path) -> list[dict]:
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]


if __name__ == '__main__':
  main()
