"""The source `python_docs`: the text that every complete Python carries, so that a first run needs no download."""

import dataclasses
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from text.corpus import MemoryCorpus
from text.splitting import is_chosen

VALIDATION = 0.06  # of the top-level modules and topics
REPEATED = 1 / 3  # of a document, in lines of at least LINE bytes: a near-duplicate of those that have the lines
LINE = 20
# A few modules hold most bytes, so the share of bytes depends on the salt. With this one, code and topics each give
# 5.5 to 7 % of their bytes to validation in CPython 3.10 to 3.13, and with many kinds of modules (os, random, xml).
SALT = 188
# Tests and translation tables are not prose or programs; pydoc_data holds the topics again.
NOT_LIBRARY = {'site-packages', 'dist-packages', '__pycache__', 'test', 'tests', 'idle_test', 'encodings', 'pydoc_data'}
REMEDY = "use a complete CPython, or your own text with data.source='files:GLOB'"


@dataclasses.dataclass(frozen=True)
class PythonDocs:
  """The language reference topics (pydoc) and the standard library's .py files of this Python, split by topic or
  top-level module; but a document of which much stands in training text, line by line, is training text as well.
  """

  division = 'own'

  def open(self, split: str) -> MemoryCorpus:
    """The documents of one split; raises FileNotFoundError for a Python without them, ValueError for 'test'."""
    if split == 'test':
      raise ValueError("data source 'python_docs' has no test split: use 'validation'")
    both = _labelled()
    documents = [document for is_validation, document in both if is_validation == (split == 'validation')]
    return MemoryCorpus(documents, f'python_docs ({split})', split, whole=len(both))

  def groups(self) -> list['PythonDocs']:
    return [self]

  @property
  def key(self) -> str:
    return f'python_docs of {sysconfig.get_python_version()} at {sysconfig.get_paths()["stdlib"]}'

  def __iter__(self) -> Iterator[bytes]:
    return (document for _, document in _labelled())


def _labelled() -> list[tuple[bool, bytes]]:
  """(whether it is for validation, document) of all."""
  labelled = list(_by_group())
  repeated = _repeated(
    *([document for side, document in labelled if side == is_validation] for is_validation in (True, False))
  )
  return [(is_validation and document not in repeated, document) for is_validation, document in labelled]


def _repeated(documents: list[bytes], others: list[bytes]) -> set[bytes]:
  """Those documents of which a share of REPEATED or more stands, in lines of LINE bytes or more, in other documents."""
  lines = {line for document in documents for line in document.split(b'\n') if len(line) >= LINE}
  there = {line for other in others for line in lines.intersection(other.split(b'\n'))}
  share = lambda document: sum(len(line) + 1 for line in document.split(b'\n') if line in there) / len(document)
  return {document for document in documents if share(document) >= REPEATED}


def _by_group() -> Iterator[tuple[bool, bytes]]:
  library = Path(sysconfig.get_paths()['stdlib'])
  files = []
  for folder, subfolders, names in os.walk(library):
    subfolders[:] = [name for name in subfolders if name not in NOT_LIBRARY]
    files += [Path(folder, name).relative_to(library) for name in names if name.endswith('.py')]
  files = sorted((path for path in files if not _is_build_record(path)), key=Path.as_posix)
  if len(files) < 100:
    raise FileNotFoundError(
      f'python_docs needs the standard library as .py files, but {library} has only {len(files)}: {REMEDY}'
    )
  try:
    from pydoc_data.topics import topics
  except ImportError:
    topics = {}
  if not topics:
    raise FileNotFoundError(f'python_docs needs the module pydoc_data.topics, which this Python lacks: {REMEDY}')
  groups = _topic_groups(topics)
  for topic in sorted(topics):
    yield _is_validation(f'topic {groups[topic]}'), topics[topic].encode('utf-8')
  for path in files:
    try:
      document = (library / path).read_bytes()
    except OSError as error:
      raise OSError(f"python_docs: '{library / path}' cannot be read ({error.strerror}): {REMEDY}") from error
    if document:  # an __init__.py without content is no document
      yield _is_validation(path.parts[0].removesuffix('.py')), document


def _is_validation(group: str) -> bool:
  return is_chosen(f'{SALT}/{group}'.encode(), VALIDATION)


def _is_build_record(path: Path) -> bool:
  """Files written when this Python was built (config-3.x-PLATFORM/, _sysconfigdata_*): they differ by machine."""
  return path.parts[0].startswith(('config-', '_sysconfigdata'))


def _topic_groups(topics: dict[str, str]) -> dict[str, str]:
  """Topic -> first name of its group: topics that share a long line are one group, on one side of the split.

  'if' is also a section of 'compound': split by their names, a half of the validation topics stood in training.
  """
  group = {topic: topic for topic in topics}
  owner: dict[str, str] = {}
  for topic in sorted(topics):
    for line in topics[topic].split('\n'):
      if len(line) > 50:  # a sentence, not 'See also:'
        first, second = sorted((group[owner.setdefault(line, topic)], group[topic]))
        if first != second:
          group = {name: first if root == second else root for name, root in group.items()}
  return group
