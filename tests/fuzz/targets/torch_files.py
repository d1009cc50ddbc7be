"""Torch files for the converter; needs torch."""

import io
import os
import pathlib
import pickle
import random
import shutil
import subprocess
import zipfile

import torch
from safetensors.numpy import load_file

from hnet import convert
from layers import weights
from tests.fuzz import mutation
from tests.fuzz.running import Target
from tests.goldens import GOLDENS


class _Call:
  """Pickles as a call."""

  def __init__(self, function, *arguments):
    self._call = function, arguments

  def __reduce__(self):
    return self._call


def _prepare(seeds: pathlib.Path) -> None:
  seeds.mkdir(exist_ok=True)
  shutil.copy(GOLDENS / 'hnet' / 'stage1_basic' / weights.CONFIG, seeds)
  state = {
    name: torch.from_numpy(value)
    for name, value in load_file(GOLDENS / 'hnet' / 'stage1_basic' / weights.WEIGHTS).items()
  }
  torch.save(state, seeds / 'model.pt')
  convert.convert(seeds / weights.CONFIG, seeds / 'model.pt', seeds / 'out')
  small = {'a': torch.ones(3), 'b': torch.zeros(2, 2, dtype=torch.bfloat16)}
  torch.save(small, seeds / 'small.pt')
  torch.save(small, seeds / 'old.pt', _use_new_zipfile_serialization=False)


def _make(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  shutil.copy(seeds / weights.CONFIG, case)
  data = (seeds / rng.choice(('model.pt', 'small.pt', 'small.pt', 'old.pt'))).read_bytes()
  if rng.random() < 0.5:
    data = mutation.damage(rng, data, head=rng.choice((0, 400)))
  else:
    call = rng.choice(
      (
        _Call(os.system, 'touch /tmp/fuzz-was-here'),
        _Call(eval, '1 + 1'),
        _Call(exec, 'import this'),
        _Call(open, '/tmp/fuzz-was-here', 'w'),
        _Call(subprocess.Popen, ['true']),
        _Call(bytearray, 10**11),
        _Call(torch.zeros, 10**11),
      )
    )
    bomb = rng.choice(
      (
        lambda: pickle.dumps(call, 2),
        lambda: pickle.dumps({'a': call}, 2),
        lambda: pickle.dumps(rng.choice(mutation.STRINGS), 2),
        lambda: b'\x80\x02' + b'(' * 10**5 + b'.',
        lambda: b'\x80\x02' + b']' * 10**5 + b'a' * 10**5 + b'.',
      )
    )()
    if rng.random() < 0.2:
      bomb = mutation.damage(rng, bomb)
    data = bomb if rng.random() < 0.2 else _with_pickle(seeds / 'small.pt', bomb)
  (case / 'model.pt').write_bytes(data)


def _with_pickle(path: pathlib.Path, content: bytes) -> bytes:
  """A torch file whose pickle is another one."""
  target = io.BytesIO()
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, 'w') as new:
    for name in old.namelist():
      new.writestr(name, content if name.endswith('data.pkl') else old.read(name))
  return target.getvalue()


def _run(case: pathlib.Path) -> None:
  convert.convert(case / weights.CONFIG, case / 'model.pt', case / 'out')


TARGETS = (Target('torch', _prepare, _make, _run),)
