"""Weights: official directories of three kinds, and GGUF."""

import json
import pathlib
import random
import shutil
import struct

import gguf
import numpy as np
from safetensors.numpy import load_file

import training
from byte_models import gguf_file, llama
from layers import weights
from tests.fuzz import mutation
from tests.fuzz.running import Target
from tests.goldens import GOLDENS

_SHARD = 'model-00001-of-00001.safetensors'


def _prepare_official(source: str, run):
  def prepare(seeds: pathlib.Path) -> None:
    seeds.mkdir(exist_ok=True)
    for name in (weights.CONFIG, weights.WEIGHTS):
      shutil.copy(GOLDENS / source / name, seeds / name)
    run(seeds)

  return prepare


def _make_official(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  config, stored = (seeds / weights.CONFIG).read_bytes(), (seeds / weights.WEIGHTS).read_bytes()
  kind = rng.randrange(10)
  if kind < 4:
    config = mutation.json_bytes(rng, mutation.edit(rng, json.loads(config)))
  elif kind == 4:
    config = mutation.damage(rng, config)
  elif kind < 8:
    stored = _safetensors(rng, stored)
  elif kind == 8:
    size = 8 + int.from_bytes(stored[:8], 'little')
    stored = mutation.damage(rng, stored, head=rng.choice((16, size, size)))
  else:
    places = {name: _SHARD for name in load_file(seeds / weights.WEIGHTS)}
    index = {'metadata': {'total_size': len(stored)}, 'weight_map': places}
    (case / weights.INDEX).write_bytes(mutation.json_bytes(rng, mutation.edit(rng, index)))
    (case / _SHARD).write_bytes(stored)
  (case / weights.CONFIG).write_bytes(config)
  if kind != 9 or rng.random() < 0.1:
    (case / weights.WEIGHTS).write_bytes(stored)


def _safetensors(rng: random.Random, stored: bytes) -> bytes:
  """The file with another header of the right length, or of one that is claimed."""
  size = int.from_bytes(stored[:8], 'little')
  header, data = json.loads(stored[8 : 8 + size]), stored[8 + size :]
  for _ in range(rng.randint(1, 3)):
    name, entry = rng.choice(
      [(name, entry) for name, entry in header.items() if isinstance(entry, dict) and 'shape' in entry]
    )
    kind = rng.randrange(7)
    if kind == 0:
      entry['shape'] = [mutation.number(rng) for _ in range(rng.randint(0, 4))]
    elif kind == 1:
      entry['dtype'] = rng.choice(
        ('F64', 'I64', 'U8', 'BOOL', 'F8_E4M3', 'BF16', 'F16', 'C64', 'F4', *mutation.STRINGS[:5])
      )
    elif kind == 2:
      entry['data_offsets'] = [mutation.number(rng), mutation.number(rng)]
    elif kind == 3:
      header[rng.choice(mutation.STRINGS)] = header.pop(name)
    elif kind == 4:  # of another type with as many bytes
      entry['shape'], entry['dtype'] = rng.choice(
        ((entry['shape'][::-1], entry['dtype']), ([*entry['shape'], 1], entry['dtype']), ([*entry['shape'], 2], 'F16'))
      )
    elif kind == 5:
      header['__metadata__'] = mutation.edit(rng, {'format': 'pt', 'a': 'b'})
    else:
      return _spelled(rng, mutation.edit(rng, header), data)
  return _spelled(rng, header, data)


def _spelled(rng: random.Random, header, data: bytes) -> bytes:
  text = mutation.json_bytes(rng, header)
  size = len(text) if rng.random() < 0.9 else rng.choice(mutation.EXTREMES) % 2**64
  return struct.pack('<Q', size) + text + data


def _run_official(case: pathlib.Path) -> None:
  training.load(case)


def _run_llama(case: pathlib.Path) -> None:
  if (case / weights.CONFIG).stat().st_size % 2:
    llama.read_backbone(case)
  else:
    llama.from_pretrained(case)


# --- GGUF

_SIZES = {
  'embedding_length': 64,
  'feed_forward_length': 96,
  'block_count': 2,
  'context_length': 128,
  'attention.head_count': 4,
}
_SIZES |= {'attention.head_count_kv': 2, 'rope.dimension_count': 16}


def _prepare_gguf(seeds: pathlib.Path) -> None:
  seeds.mkdir(exist_ok=True)
  for kind in ('F32', 'Q8_0'):
    if not (seeds / f'{kind}.gguf').exists():
      _write_gguf(seeds / f'{kind}.gguf', gguf.GGMLQuantizationType[kind])
    llama.from_gguf(seeds / f'{kind}.gguf')
  gguf_file.tokenizer(seeds / 'F32.gguf')


def _write_gguf(path: pathlib.Path, kind) -> None:
  writer = gguf.GGUFWriter(path, 'llama')
  for key, value in _SIZES.items():
    writer.add_uint32(f'llama.{key}', value)
  writer.add_float32('llama.attention.layer_norm_rms_epsilon', 1e-5)
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre('gpt-2')
  writer.add_token_list(['a', 'b', 'c', 'ab', 'd', 'e', 'f'])
  writer.add_token_merges(['a b'])
  rng = np.random.default_rng(0)
  shapes = {'attn_norm': (64,), 'ffn_norm': (64,), 'attn_q': (64, 64), 'attn_k': (32, 64), 'attn_v': (32, 64)}
  shapes |= {'attn_output': (64, 64), 'ffn_gate': (96, 64), 'ffn_up': (96, 64), 'ffn_down': (64, 96)}
  named = {f'blk.{layer}.{name}.weight': shape for layer in range(2) for name, shape in shapes.items()}
  for name, shape in ({'token_embd.weight': (7, 64), 'output_norm.weight': (64,)} | named).items():
    value = rng.standard_normal(shape, np.float32)
    if value.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
      writer.add_tensor(name, value)
    else:
      writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def _make_gguf(rng: random.Random, seeds: pathlib.Path, case: pathlib.Path) -> None:
  data = rng.choice(sorted(seeds.iterdir())).read_bytes()
  kind = rng.randrange(6)
  if kind == 0:  # counts
    data = (
      data[:8]
      + struct.pack('<QQ', rng.choice((3, *mutation.EXTREMES)) % 2**64, rng.choice((11, *mutation.EXTREMES)) % 2**64)
      + data[24:]
    )
  elif kind == 1:  # an array that claims to be long, of any type and of arrays
    pair = struct.pack('<Q', 1) + b'x' + struct.pack('<I', 9)
    for _ in range(rng.choice((0, 1, 2, 400, 4000))):
      pair += struct.pack('<IQ', 9, rng.choice((1, 1, 2)))
    pair += struct.pack('<IQ', rng.randrange(13), rng.choice((5, *mutation.EXTREMES)) % 2**64) + rng.randbytes(
      rng.choice((0, 4, 64))
    )
    data = data[:16] + struct.pack('<Q', 12) + pair + data[24:] * rng.randrange(2)
  elif kind == 2:  # a known value becomes another one
    key = f'llama.{rng.choice(tuple(_SIZES))}'.encode()
    place = data.index(key) + len(key) + 4
    data = data[:place] + struct.pack('<I', rng.choice(mutation.EXTREMES) % 2**32) + data[place + 4 :]
  else:
    data = mutation.damage(rng, data, head=rng.choice((64, 600, 2500)))
  (case / 'model.gguf').write_bytes(data)


def _run_gguf(case: pathlib.Path) -> None:
  gguf_file.tokenizer(case / 'model.gguf')
  llama.from_gguf(case / 'model.gguf')


TARGETS = (
  Target('hnet', _prepare_official('hnet/stage1_basic', _run_official), _make_official, _run_official),
  Target('tfree_hat', _prepare_official('tfree_hat/plain', _run_official), _make_official, _run_official),
  Target('llama', _prepare_official('llama', _run_llama), _make_official, _run_llama),
  Target('gguf', _prepare_gguf, _make_gguf, _run_gguf),
)
