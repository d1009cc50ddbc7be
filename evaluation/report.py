"""What `eval.py` prints and writes."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from evaluation.bits_per_byte import Result


def table(model: str, result: Result, baselines: Mapping[str, float]) -> Table:
  """The scores for a terminal: the model and the baselines in bits per byte, then what else was measured."""
  grid = Table()
  grid.add_column('')
  grid.add_column('bits per byte', justify='right')
  for name, bits in {model: result.bits_per_byte, **baselines}.items():
    grid.add_row(name, f'{bits:.4f}')
  grid.add_section()
  for stage, size in enumerate(result.bytes_per_chunk):
    grid.add_row(f'bytes per chunk, stage {stage}', f'{size:.2f}')
  grid.add_row('bits per end of document', f'{result.eos_bits:.2f}')
  grid.add_row('bytes of text', f'{result.text_bytes:,}')
  grid.add_row('documents' + (' (the last one in part)' if result.last_document_cut else ''), f'{result.documents:,}')
  grid.add_row('bytes per row / repeated as context', f'{result.seq_len:,} / {result.context:,}')
  grid.add_row('seconds', f'{result.seconds:.1f}')
  return grid


def as_json(result: Result, **more: Any) -> dict[str, Any]:
  """The result's fields and `more` as JSON data; what is not a finite number (no chunk, no end of document) is null."""
  return _finite({**dataclasses.asdict(result), **more})


def check_writable(path: pathlib.Path) -> None:
  """Raises OSError if a file cannot be written there, before hours are spent on its content."""
  if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
    raise OSError(f'{path} cannot be written: name another file with --output')


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes a file whole or not at all; raises OSError."""
  partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
  try:
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + '\n', encoding='utf-8')
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value
