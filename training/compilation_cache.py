"""Compiled programs kept on disk between runs, so that the second start of a configuration takes seconds."""

import hashlib
import os
import pathlib
import platform

import jax

from text import paths

VARIABLE = 'JAX_COMPILATION_CACHE_DIR'


def enable() -> None:
  """Lets JAX keep what it compiles in ~/.cache/hnet-jax; set JAX_COMPILATION_CACHE_DIR to another place, or to nothing
  for none.

  A directory for each kind of processor: what was compiled for one may not run on another that shares the home.
  Where there is no home, or the directory cannot be made or written in, nothing is kept.
  """
  if VARIABLE in os.environ:
    if not os.environ[VARIABLE]:
      jax.config.update('jax_enable_compilation_cache', False)
    elif os.environ[VARIABLE].startswith('~'):  # which JAX takes for the name of a directory
      jax.config.update('jax_compilation_cache_dir', paths.expanded(os.environ[VARIABLE], VARIABLE))
    return
  caches, home = os.environ.get('XDG_CACHE_HOME', ''), paths.home()
  if not os.path.isabs(caches):  # the XDG specification has such a one ignored
    if home is None:
      return
    caches = home / '.cache'
  directory = pathlib.Path(caches, 'hnet-jax', 'compiled', _processor())
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  if not os.access(directory, os.W_OK):
    return
  jax.config.update('jax_compilation_cache_dir', str(directory))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)


def _processor() -> str:
  """A name for this kind of processor, by what it can do."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = [platform.processor()]
  kind = sorted({line for line in lines if line.startswith(('model name', 'flags', 'Features', 'CPU part'))} or lines)
  return f'{platform.machine()}-{hashlib.sha256(chr(10).join(kind).encode()).hexdigest()[:12]}'
