"""Pinned archives of package indices: found or downloaded with the index's own client, and verified.

Nothing is installed and nothing inside a package runs. `apt-get download` and `npm pack` only fetch a file. `pip
download` asks a source distribution for its metadata by running its setup script; here pip meets a build backend of
ours instead, which answers from the file PKG-INFO.
"""

import dataclasses
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from text import regular_file

CLIENTS = {'pip': 'pip', 'apt': 'apt-get', 'npm': 'npm'}
SECONDS = 3600  # of one download: 139 MB over a slow line

BACKEND = """
import os, pathlib, re

def get_requires_for_build_wheel(config_settings=None):
  return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
  text = pathlib.Path('PKG-INFO').read_text(encoding='utf-8', errors='replace')
  name, version = (re.search(rf'^{key}: *(\\S+)', text, re.M)[1] for key in ('Name', 'Version'))
  folder = f'{re.sub("[-_.]+", "_", name)}-{version}.dist-info'
  os.mkdir(os.path.join(metadata_directory, folder))
  with open(os.path.join(metadata_directory, folder, 'METADATA'), 'w') as file:
    file.write(f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')
  return folder

class Legacy: pass

__legacy__ = Legacy()
__legacy__.get_requires_for_build_wheel = get_requires_for_build_wheel
__legacy__.prepare_metadata_for_build_wheel = prepare_metadata_for_build_wheel
"""


@dataclasses.dataclass(frozen=True)
class Package:
  """One file of an index. kind: 'pip', 'apt' or 'npm'; size: bytes."""

  kind: str
  name: str
  version: str
  file: str
  sha256: str
  size: int

  def __str__(self) -> str:
    return f'{self.name} {self.version}'


@dataclasses.dataclass(frozen=True)
class Obtained:
  """A verified archive on disk; its version and SHA-256 are the pinned ones unless any version was allowed."""

  package: Package
  path: str
  version: str
  sha256: str

  def identity(self) -> dict[str, str]:
    """What the metadata of a corpus keeps of the archive."""
    kept = {'index': self.package.kind, 'name': self.package.name, 'version': self.version, 'sha256': self.sha256}
    return kept if self.sha256 == self.package.sha256 else {**kept, 'pinned_version': self.package.version}


def client(kind: str) -> list[str] | None:
  """The command of an index's client, None where the machine has none; pip may be a module of this Python only."""
  if path := shutil.which(CLIENTS[kind]):
    return [path]
  return [sys.executable, '-m', 'pip'] if kind == 'pip' and _has_pip() else None


def _has_pip() -> bool:
  return importlib.util.find_spec('pip') is not None


def find(package: Package, directories: Sequence[str], any_version: bool = False) -> Obtained | None:
  """The archive in the first of some directories that has it, its content verified.

  Raises:
    ValueError: a file of the right name has another content.
  """
  for directory in directories:
    for name in dict.fromkeys((package.file, unquote(package.file))):
      path = os.path.join(directory, name)
      if os.path.exists(path):
        return _verified(package, path)
    if any_version and os.path.isdir(directory):
      others = [name for name in sorted(os.listdir(directory)) if _version(package, name)]
      if others:
        return _unpinned(package, os.path.join(directory, others[-1]))
  return None


def download(package: Package, directory: str, *, any_version: bool, report: Callable[[str], None]) -> Obtained:
  """Fetches an archive into `directory` with the client of its index.

  Raises:
    ValueError: the index does not serve the version, or serves other bytes under its name.
    OSError: the client failed otherwise, or the directory cannot be written.
  """
  report(f'downloading {package} ({package.size / 1e6:.0f} MB) with {CLIENTS[package.kind]}')
  with tempfile.TemporaryDirectory() as scratch:
    if message := _run_client(package, package.version, scratch):
      if not any_version:
        raise ValueError(_unserved(package, message))
      report(f'{package} is not served, taking the version that the index has')
      if message := _run_client(package, None, scratch):
        raise OSError(f'{package.name}: {CLIENTS[package.kind]} gave no file at all ({message})')
    path = os.path.join(scratch, next(name for name in sorted(os.listdir(scratch)) if _version(package, name)))
    pinned = os.path.basename(path) in (package.file, unquote(package.file))
    obtained = _verified(package, path) if pinned else _unpinned(package, path)
    kept = os.path.join(directory, package.file if pinned else os.path.basename(path))
    try:
      os.makedirs(directory, exist_ok=True)
      shutil.copyfile(path, kept + '.part')
      os.replace(kept + '.part', kept)
    except OSError as error:
      raise OSError(f'{kept} cannot be written ({error.strerror}): make room, or choose another --out') from None
  if not pinned:
    report(f'{package.name}: took {obtained.version} (SHA-256 {obtained.sha256}) for the pinned {package.version}, '
           'so the text differs from the documented one')  # fmt: skip
  return dataclasses.replace(obtained, path=kept)


def _run_client(package: Package, version: str | None, scratch: str) -> str:
  """'' once the file is in `scratch`, else the last words of the client."""
  base, name = client(package.kind), package.name
  environment = {**os.environ, 'LC_ALL': 'C'}
  if package.kind == 'apt':
    command = ['download', name if version is None else f'{name}={version}']
  elif package.kind == 'npm':
    command = ['pack', '--ignore-scripts', name if version is None else f'{name}@{version}']
  else:
    command = ['download', '--no-deps', '--dest', scratch]
    if package.file.endswith('.whl'):
      command += ['--only-binary', name]
    else:
      backend = os.path.join(scratch, 'backend')
      os.makedirs(os.path.join(backend, 'setuptools'), exist_ok=True)
      for file, text in (('__init__.py', ''), ('build_meta.py', BACKEND)):
        with open(os.path.join(backend, 'setuptools', file), 'w') as stream:
          stream.write(text)
      environment['PYTHONPATH'] = backend
      command += ['--no-binary', name, '--use-pep517', '--no-build-isolation']
    command.append(name if version is None else f'{name}=={version}')
  try:
    done = subprocess.run(
      [*base, *command], cwd=scratch, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
      errors='replace', timeout=SECONDS,
    )  # fmt: skip
  except subprocess.TimeoutExpired:
    raise OSError(f'{package}: {base[0]} did not finish in {SECONDS} s; try again, or bring the file '
                  f'{package.file} with --packages=DIR') from None  # fmt: skip
  if any(_version(package, file) for file in os.listdir(scratch)) and done.returncode == 0:
    return ''
  lines = [line.strip() for line in done.stderr.splitlines() if re.match(r'E:|ERROR|npm (ERR!|error)', line.strip())]
  return ' '.join(lines[:2]) or f'exit code {done.returncode}'


def _unserved(package: Package, message: str) -> str:
  """The sentence for a version that the index no longer serves."""
  found = _served(package, message)
  snapshot = f', for example from https://snapshot.debian.org/package/{package.name}/' if package.kind == 'apt' else ''
  return (
    f'{package} was not served by {CLIENTS[package.kind]} ({message})'
    + (f'; the index now has {found}' if found else '')
    + f': bring the file {package.file}{snapshot} with --packages=DIR, or take what the index has with --any_version'
    + ('; an old list of packages is renewed by `apt-get update`' if package.kind == 'apt' else '')
  )


def _served(package: Package, message: str) -> str:
  """The newest version that the index names, '' if it names none."""
  commands = {'apt': ['apt-cache', 'policy', package.name], 'npm': ['npm', 'view', package.name, 'version']}
  if package.kind == 'pip':
    versions = re.search(r'from versions: ([^)]*)\)', message)
    return versions[1].split(', ')[-1] if versions and versions[1] != 'none' else ''
  try:
    done = subprocess.run(commands[package.kind], capture_output=True, text=True, timeout=120,
                          env={**os.environ, 'LC_ALL': 'C'})  # fmt: skip
  except (OSError, subprocess.TimeoutExpired):
    return ''
  found = re.search(r'Candidate: (\S+)' if package.kind == 'apt' else r'^(\S+)$', done.stdout, re.M)
  return found[1] if found and found[1] != '(none)' else ''


def _version(package: Package, file: str) -> str:
  """The version in the name of any archive of a package, '' for other files."""
  name = re.sub(r'[-_.]+', '[-_.]+', re.escape(package.name).replace(r'\-', '-').replace(r'\.', '.'))
  pattern = {
    'apt': rf'{re.escape(package.name)}_([^_]+)_[a-z0-9]+\.deb',
    'npm': rf'{name}-(\d[^/]*)\.tgz',
    'pip': rf'{name}-(\d[^-]*)(?:-.+\.whl|\.tar\.gz)',
  }[package.kind]
  found = re.fullmatch(pattern, unquote(file))
  return found[1] if found else ''


def _verified(package: Package, path: str) -> Obtained:
  digest = _sha256(path)
  if digest != package.sha256:
    raise ValueError(
      f'{path} is not the archive of {package}: its SHA-256 is {digest} ({os.path.getsize(path)} bytes) and not '
      f'{package.sha256} ({package.size} bytes), so it is truncated, corrupt or changed; delete it and fetch again'
    )
  return Obtained(package, path, package.version, digest)


def _unpinned(package: Package, path: str) -> Obtained:
  return Obtained(package, path, _version(package, os.path.basename(path)), _sha256(path))


def _sha256(path: str) -> str:
  regular_file.check(path, 'package')
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
