"""What runs wrote while they trained."""

import json
import pathlib
from typing import Any


def read(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl, in the order of steps; none where there is no such file.

  A last line that is not whole is left out: the run is writing it, or was killed as it did. Raises ValueError for
  another one.
  """
  path = workdir / 'metrics.jsonl'
  lines = path.read_bytes().splitlines() if path.exists() else []
  found = []
  for number, line in enumerate(lines, 1):
    try:
      values = json.loads(line)
      found.append(values | {'step': int(values['step'])})
    except (ValueError, KeyError, TypeError):
      if number < len(lines):
        raise ValueError(
          f'{path}: line {number} is no JSON object with a step: restore the file, or remove it'
        ) from None
  return found
