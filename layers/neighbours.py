"""Packages of this project stand side by side; a folder or file of the user's may hide one of them."""

import importlib.util
from pathlib import Path

_HOME = Path(__file__).parent.parent


def check(*names: str) -> None:
  """Raises ImportError, with one sentence, for a package that Python would take from another place than ours."""
  for name in names:
    found = importlib.util.find_spec(name)
    places = [] if found is None else [found.origin] if found.origin else list(found.submodule_search_locations or [])
    if not any(Path(place).parent.parent == _HOME for place in places):
      place = places[0] if places else 'nothing'
      raise ImportError(
        f'Python finds {place} in place of the package {name} in {_HOME}: give it another name, or start Python in '
        'another directory; after `pip install -e .` of an earlier version, install again'
      )
