"""Text being cut, as one types it, by models at their steps, rules for words and subword tokenizers.

  python -m viewer runs/a 'runs/b*'
  python -m viewer runs/a --text=poem.txt --export=page

RUNS are work directories of train.py, directories with official weights, or globs of them. docs/viewer.md says more.
"""

import errno
import pathlib
import socket

from text import command_line, paths, regular_file
from training import compilation_cache
from viewer import LOCAL, columns, export

WORDS = ('hat(max_bytes=64)', 'uax29(max_bytes=64)')


def main(arguments: list[str]) -> None:
  """The command."""
  parser = command_line.Parser(prog='python -m viewer', description=__doc__)
  parser.add_argument('runs', nargs='+', metavar='RUNS')
  parser.add_argument(
    '--words', action='append', metavar='SPEC', help=f'a rule of text.words; may be repeated ({", ".join(WORDS)})'
  )
  parser.add_argument(
    '--tokenizer', action='append', default=[], metavar='PATH', help='a tokenizer.json or directory; may be repeated'
  )
  parser.add_argument(
    '--text', action='append', default=[], metavar='FILE', help='to begin with, and to export; may be repeated'
  )
  parser.add_argument('--max_bytes', type=int, default=4096, help='most bytes of a text that are read (%(default)s)')
  parser.add_argument('--host', default=LOCAL[0], help='address to listen at (%(default)s: this machine only)')
  parser.add_argument('--port', type=int, default=8765, help='0: any that is free (%(default)s)')
  parser.add_argument('--export', metavar='DIR', help='write the page with these texts as files there, and end')
  flags = parser.parse_args(arguments)
  for name, least, most in (('max_bytes', 1, 2**20), ('port', 0, 2**16 - 1)):
    if not least <= (value := getattr(flags, name)) <= most:
      raise ValueError(f'--{name}={value} must be from {least} to {most}')
  samples = [_sample(file, flags.max_bytes) for file in flags.text] or export.SAMPLES
  out = None if flags.export is None else export.new_directory(flags.export)
  runs = columns.find_runs(flags.runs, command_line.tell)
  shelf = columns.Shelf([*runs, *columns.find_cutters(flags.words or WORDS, flags.tokenizer)])
  compilation_cache.enable()
  if out:
    export.write(out, shelf, samples)
    print(f'written: {out / "index.html"} (a page that any browser opens) and {out / "data.json"} (what it shows)')
    return
  try:
    import uvicorn

    from viewer import server
  except ImportError as error:
    raise ValueError(f'the viewer needs {error.name}: pip install -r requirements-viewer.txt') from None
  listening = _listen(flags.host, flags.port)
  app = server.app(shelf, samples, flags.max_bytes, flags.host)
  settings = {'log_level': 'warning', 'limit_concurrency': 200, 'timeout_graceful_shutdown': 1, 'lifespan': 'off'}
  try:
    uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listening])
  except KeyboardInterrupt:
    print()


def _listen(host: str, port: int) -> socket.socket:
  """A socket there, and where it is on stdout."""
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    listening = socket.create_server((host, port), family=family)
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      remedy = f'another program listens at port {port}: name another, or 0 for one that is free'
      raise OSError(f'--port={port}: {remedy}') from None
    raise OSError(f'--host={host} --port={port}: nothing can listen there ({error.strerror or error})') from None
  if host not in LOCAL:
    command_line.tell(f'--host={host}: whoever reaches this machine can read these models and use its device')
  shown = f'[{host}]' if ':' in host else host
  print(f'http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C ends it)', flush=True)
  return listening


def _sample(file: str, most: int) -> dict[str, str]:
  path = paths.of(file, '--text')
  regular_file.check(path, '--text')
  size = path.stat().st_size
  if size > most:
    raise ValueError(f"--text '{file}' has {size:,} bytes, at most {most:,} are shown: cut it, or raise --max_bytes")
  return {'name': pathlib.PurePath(file).name, 'bytes': path.read_bytes().decode('latin-1')}


if __name__ == '__main__':
  command_line.run(main)
