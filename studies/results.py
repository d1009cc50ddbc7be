"""The long table of evaluations: one row a number, with what it is of and what it was measured on.

DIR/scores/*.json is what was scored, a file for each model, text and suite, written whole or not at all;
results.parquet and results.csv are made of them.
"""

import json
import os
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from layers import weights
from training.lock import Lock

VERSION = 1  # higher where the columns, or the files of scores, mean something else
SCORES, TABLE, CSV = 'scores', 'results.parquet', 'results.csv'
_VERSION = b'results_version'

# run: directory; condition: 'clean' or a noise; stage: of a metric of one stage; bytes: of text; extras: what else
# tells a number from others of its metric, JSON; config: the same for runs that differ in the seed alone. From seq_len
# on, what it was measured on: options of the suite, JSON; text: fingerprint of the corpus; weights: of the parameters;
# code: of the packages that compute a model and its score.
COLUMNS = pa.schema(
  [
    ('run', pa.string()),
    ('step', pa.int64()),
    ('seed', pa.int64()),
    ('source', pa.string()),
    ('split', pa.string()),
    ('condition', pa.string()),
    ('suite', pa.string()),
    ('metric', pa.string()),
    ('stage', pa.int64()),
    ('value', pa.float64()),
    ('bytes', pa.int64()),
    ('extras', pa.string()),
    ('config', pa.string()),
    ('seq_len', pa.int64()),
    ('max_bytes', pa.int64()),
    ('options', pa.string()),
    ('suite_version', pa.int64()),
    ('text', pa.string()),
    ('weights', pa.string()),
    ('code', pa.string()),
  ],
  metadata={_VERSION: str(VERSION).encode()},
)


def check(directory: pathlib.Path) -> None:
  """Raises ValueError where a directory holds a table of another version, or a file that is none."""
  if (path := directory / TABLE).exists():
    read(path)


def read(path: str | os.PathLike) -> pa.Table:
  """The table in a file, or in the directory that holds it. Raises FileNotFoundError, or ValueError for a file that is
  no such table, or one of another version.
  """
  path = pathlib.Path(path)
  path = path / TABLE if path.is_dir() else path
  if not path.is_file():
    raise FileNotFoundError(f'{path} is not there: make it with eval.py RUNS… --out={path.parent}')
  try:
    schema = pa.parquet.read_schema(path)
  except (pa.ArrowInvalid, OSError) as error:
    raise ValueError(f'{path} is no table of results ({str(error).splitlines()[0]:.200}): remove it') from None
  version = (schema.metadata or {}).get(_VERSION, b'none').decode(errors='replace')
  _check_version(path, version)
  return pa.parquet.read_table(path)


def rows(directory: pathlib.Path) -> list[dict[str, Any]]:
  """All that was scored there, in the order of the columns; raises ValueError for a file of another version."""
  found = []
  for path in (directory / SCORES).glob('*.json'):
    scored = weights.read_json(path)
    _check_version(path, str(scored.get('version', 'none')))
    found += [{**scored['of'], **row} for row in scored['rows']]
  names = ('run', 'step', 'source', 'condition', 'suite')
  return sorted(found, key=lambda row: [(row[name] is not None, row[name] or 0) for name in names])


def write(directory: pathlib.Path) -> pa.Table:
  """Makes the table anew of all that was scored. Whoever of several processes is last has all of it in."""
  lock = Lock(directory, lambda _: None, '.results.lock')
  lock.wait()
  try:
    table = pa.Table.from_pylist(rows(directory), COLUMNS)
    weights.replace(directory / TABLE, lambda partial: pa.parquet.write_table(table, partial))
    weights.replace(directory / CSV, lambda partial: pa.csv.write_csv(table, partial))
  finally:
    lock.release()
  return table


def as_json(value: Any) -> str:
  """For a column of text."""
  return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _check_version(path: pathlib.Path, version: str) -> None:
  if version != str(VERSION):
    raise ValueError(
      f'{path} holds results of version {version}, and this code reads version {VERSION}: name another directory with '
      '--out, or remove it'
    )
