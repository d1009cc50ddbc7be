"""The code of a page of docs, run."""

import ast
import pathlib
import re
from typing import Any

DOCS = pathlib.Path(__file__).parents[2] / 'docs'


def run(name: str) -> dict[str, Any]:
  """The names that the Python on a page defines, all its blocks one after the other."""
  names: dict[str, Any] = {}
  for block in _blocks(name):
    exec(compile(block, name, 'exec'), names)
  return names


def class_lines(source: str) -> dict[str, int]:
  """Lines of each class at the top of a source."""
  classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
  return {node.name: node.end_lineno - node.lineno + 1 for node in classes}


def python(name: str) -> str:
  """All Python on a page."""
  return '\n'.join(_blocks(name))


def _blocks(name: str) -> list[str]:
  return re.findall(r'```python\n(.*?)```', (DOCS / name).read_text(), re.DOTALL)
