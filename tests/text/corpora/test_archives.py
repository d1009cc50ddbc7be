"""Reading inside archives: the same as other programs read, nothing written, damage told."""

import io
import os
import shutil
import subprocess
import tarfile

import pytest

from text.corpora.archives import Archive, nested_members

FILES = {'a/one.txt': b'1' * 3000, 'a/two.txt': bytes(range(256)) * 50, 'b/three.c': b'int x;\n', 'b/empty.txt': b''}


@pytest.mark.parametrize('kind', ['wheel', 'tarball', 'debian'])
def test_every_kind_of_archive_gives_its_files_in_order(kind, request):
  archive = Archive(request.getfixturevalue(kind)(FILES))
  assert dict(archive.members('.*')) == FILES
  assert list(archive.members(r'a/.*\.txt')) == list(FILES.items())[:2]
  assert archive.read(r'b/three\.c') == b'int x;\n'


@pytest.mark.skipif(shutil.which('dpkg-deb') is None, reason='needs dpkg-deb')
def test_a_package_that_dpkg_built_is_read_as_dpkg_reads_it(tmp_path):
  root = tmp_path / 'root'
  (root / 'DEBIAN').mkdir(parents=True)
  (root / 'DEBIAN/control').write_text(
    'Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@a>\nDescription: a\n'
  )
  for name, content in FILES.items():
    (root / 'usr' / name).parent.mkdir(parents=True, exist_ok=True)
    (root / 'usr' / name).write_bytes(content)
  package = tmp_path / 'a.deb'
  subprocess.run(['dpkg-deb', '-Zxz', '--root-owner-group', '-b', root, package], check=True, capture_output=True)
  listed = subprocess.run(['dpkg-deb', '--fsys-tarfile', package], check=True, capture_output=True).stdout
  with tarfile.open(fileobj=io.BytesIO(listed)) as archive:
    expected = {m.name.removeprefix('./'): archive.extractfile(m).read() for m in archive if m.isfile()}
  assert dict(Archive(str(package)).members('.*')) == expected == {f'usr/{n}': c for n, c in FILES.items()}


def test_a_tar_inside_an_archive_is_read(debian):
  with io.BytesIO() as buffer:
    with tarfile.open(fileobj=buffer, mode='w:xz') as inner:
      member = tarfile.TarInfo('linux/x.c')
      member.size = 3
      inner.addfile(member, io.BytesIO(b'abc'))
    archive = Archive(debian({'usr/src/linux.tar.xz': buffer.getvalue()}))
  assert list(nested_members(archive.read(r'usr/src/.*\.tar\.xz'), r'.*\.c')) == [('linux/x.c', b'abc')]


@pytest.mark.parametrize('kind', ['wheel', 'tarball', 'debian'])
def test_names_that_lead_elsewhere_write_nothing(kind, request, tmp_path):
  archive = Archive(request.getfixturevalue(kind)({'../../escaped.txt': b'x', '/tmp/escaped.txt': b'x', 'a/b': b'y'}))
  before = sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path.parent))
  assert dict(archive.members(r'a/.*')) == {'a/b': b'y'}
  assert len(list(archive.members('.*'))) >= 1
  assert (sorted(os.listdir(tmp_path)), sorted(os.listdir(tmp_path.parent))) == before


def test_links_are_not_files(tmp_path):
  with tarfile.open(tmp_path / 'a.tgz', 'w:gz') as archive:
    link = tarfile.TarInfo('a/link.txt')
    link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
    archive.addfile(link)
  assert list(Archive(str(tmp_path / 'a.tgz')).members('.*')) == []


@pytest.mark.parametrize('kind', ['wheel', 'tarball', 'debian'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_a_truncated_archive_is_told(kind, share, request):
  path = request.getfixturevalue(kind)({'a': os.urandom(100_000), 'b': os.urandom(100_000)})
  with open(path, 'r+b') as file:
    file.truncate(int(os.path.getsize(path) * share))
  with pytest.raises(ValueError, match=f'{os.path.basename(path)} is a damaged archive'):
    list(Archive(path).members('.*'))


def test_what_is_no_archive_and_an_unknown_compression_are_told(tmp_path, debian):
  (tmp_path / 'page.tgz').write_bytes(b'<html>not found</html>')
  with pytest.raises(ValueError, match=r'page\.tgz is a damaged archive'):
    list(Archive(str(tmp_path / 'page.tgz')).members('.*'))
  with pytest.raises(ValueError, match=r'data\.tar\.zst is compressed in a way'):
    list(Archive(debian({'a': b''}, data='data.tar.zst')).members('.*'))


def test_a_file_that_is_not_there_is_told(tarball):
  with pytest.raises(ValueError, match='has no file'):
    Archive(tarball(FILES)).read('c/.*')
