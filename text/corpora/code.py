"""Source code, a file is a document, byte for byte."""

from collections import Counter
from collections.abc import Iterator, Sequence

from text.corpora.archives import Archive, nested_members


def linux(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """The .c files of the kernel."""
  content = archives[0].read(r'usr/src/linux-source-[^/]*\.tar\.xz')
  return _not_empty(nested_members(content, r'[^/]+/.*\.c'), dropped)


def sympy(archives: Sequence[Archive], dropped: Counter) -> Iterator[bytes]:
  """The .py files of SymPy, its tests included."""
  return _not_empty(archives[0].members(r'sympy/.*\.py'), dropped)


def _not_empty(files: Iterator[tuple[str, bytes]], dropped: Counter) -> Iterator[bytes]:
  for _, content in files:
    if content.strip():
      yield content
    else:
      dropped['empty files'] += 1
