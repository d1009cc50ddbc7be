"""The code of a page of docs, run."""

import pathlib
import re
from typing import Any

DOCS = pathlib.Path(__file__).parents[2] / 'docs'


def run(name: str) -> dict[str, Any]:
  """The names that the Python on a page defines, all its blocks one after the other."""
  names: dict[str, Any] = {}
  for block in re.findall(r'```python\n(.*?)```', (DOCS / name).read_text(), re.DOTALL):
    exec(compile(block, name, 'exec'), names)
  return names
