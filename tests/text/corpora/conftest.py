"""Tiny archives in the formats of the package indices, made by other code than ours."""

import io
import lzma
import subprocess
import tarfile
import zipfile

import pytest


def tar(files: dict[str, bytes], mode: str = 'w') -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode=mode) as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return buffer.getvalue()


@pytest.fixture
def wheel(tmp_path):
  def make(files: dict[str, bytes], name: str = 'a-1-py3-none-any.whl') -> str:
    with zipfile.ZipFile(tmp_path / name, 'w', zipfile.ZIP_DEFLATED) as archive:
      for file, content in files.items():
        archive.writestr(file, content)
    return str(tmp_path / name)

  return make


@pytest.fixture
def tarball(tmp_path):
  def make(files: dict[str, bytes], name: str = 'a-1.tgz') -> str:
    (tmp_path / name).write_bytes(tar(files, 'w:gz'))
    return str(tmp_path / name)

  return make


@pytest.fixture
def debian(tmp_path):
  """By the program `ar`; data.tar.xz as Debian 12 has it."""

  def make(files: dict[str, bytes], name: str = 'a_1_all.deb', data: str = 'data.tar.xz') -> str:
    folder = tmp_path / f'{name}.members'
    folder.mkdir()
    (folder / 'debian-binary').write_bytes(b'2.0\n')
    (folder / 'control.tar.xz').write_bytes(lzma.compress(tar({'./control': b'Package: a\n '})))
    content = tar({f'./{file}': content for file, content in files.items()})
    (folder / data).write_bytes(lzma.compress(content) if data.endswith('.xz') else content)
    command = ['ar', 'rc', str(tmp_path / name), 'debian-binary', 'control.tar.xz', data]
    subprocess.run(command, cwd=folder, check=True)
    return str(tmp_path / name)

  return make
