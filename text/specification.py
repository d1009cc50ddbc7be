"""Strings that name a thing with its arguments, such as 'drop(rate=0.1,seed=1)' or 'hat(max_bytes=64)'.

A value that commas or spaces would break, such as the name of a file, stands in quotes as in JSON: 'file="a,b.json"'.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PART = re.compile(rf'\s*\w+\s*=\s*{_QUOTED.pattern}\s*(?=,|$)|[^,]+')


def arguments(spec: str, what: str, defaults: Mapping[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
  """'name(key=value,…)' as (name, every argument of it), each of the type of its default; defaults: by name.

  A default of None is a number that may be left out. Values without a key are those of the first arguments, in their
  order: 'stride(6)' is 'stride(size=6)'. Raises ValueError with a sentence about `what`.
  """
  match = re.fullmatch(r'\s*(\w+)\s*(?:\((.*)\))?\s*', spec)
  name = match.group(1) if match else spec
  if not match or name not in defaults:
    raise ValueError(f"{what} '{spec}' is not known: use one of {', '.join(defaults)}, e.g. '{next(iter(defaults))}'")
  values, given = dict(defaults[name]), [part for part in _PART.findall(match.group(2) or '') if part.strip()]
  keys = []
  for place, part in enumerate(given):
    key, separator, value = (side.strip() for side in part.partition('='))
    if not separator and place < len(values) and len(keys) == place:
      key, value = list(values)[place], key
    keys.append(key)
    if key not in values:
      raise ValueError(f"{what} '{spec}' has no argument '{key}': {name} takes {', '.join(values)}")
    if _QUOTED.fullmatch(value):
      value = _unquoted(value, f"{what} '{spec}': {key}")
    kind = float if defaults[name][key] is None else type(defaults[name][key])
    try:
      values[key] = {'true': True, 'false': False}[value.lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
      wanted = {bool: 'true or false', int: 'a whole number', float: 'a number'}[kind]
      raise ValueError(f"{what} '{spec}': {key}='{value}' is not {wanted}") from None
  if len(set(keys)) < len(keys):
    raise ValueError(f"{what} '{spec}' gives an argument twice: give it once")
  return name, values


def quoted(value: str) -> str:
  """A string as the value of an argument: in quotes only where it needs them."""
  is_plain = value == value.strip() and value.isprintable() and not value.startswith('"') and ',' not in value
  return value if is_plain else json.dumps(value)


def _unquoted(value: str, where: str) -> str:
  try:
    return json.loads(value)
  except ValueError as error:
    raise ValueError(f'{where} {value} cannot be read ({error}): write what stands in quotes as in JSON') from None


def canonical(name: str, values: Mapping[str, Any]) -> str:
  """The inverse of `arguments`, with every argument that has a value."""
  text = lambda value: quoted(value) if isinstance(value, str) else str(value).lower()
  given = (f'{key}={text(value)}' for key, value in values.items() if value is not None)
  return f'{name}({",".join(given)})'
