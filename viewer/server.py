"""The page's server: what a column makes of a text, and how a model goes on, one at a time on the device."""

import collections
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from text.command_line import is_sentence, sentence
from viewer import LOCAL, STATIC
from viewer.columns import Cutter, Shelf

MOST_WRITTEN = 1024  # bytes of a continuation
VIEWS_KEPT = 1000  # whose newest request is known
POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src blob: data:; base-uri 'none'; "
  "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {'content-security-policy': POLICY, 'x-content-type-options': 'nosniff', 'cache-control': 'no-cache'}


class Refused(ValueError):
  """A request that is not answered; status: of HTTP."""

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status


def app(shelf: Shelf, samples: list[dict[str, str]], most: int, host: str = LOCAL[0]) -> Any:
  """The application. samples: name and bytes (as code points) of texts to begin with; most: bytes of a text.

  On a local address other names of this machine are refused, so that no page elsewhere gets here by a name of its own.
  """
  device, newest = anyio.Lock(), collections.OrderedDict()

  async def columns(request: Request) -> Response:
    del request
    found = await run_in_threadpool(shelf.describe)
    return JSONResponse({'columns': found, 'samples': samples, 'most': most, 'most_written': MOST_WRITTEN})

  async def cut(request: Request) -> Response:
    name, step = _column(request)
    view, number = request.query_params.get('view', '')[:64], _number(request, 'number', 0)
    newest[view] = max(number, newest.pop(view, 0))
    if len(newest) > VIEWS_KEPT:
      newest.popitem(last=False)
    document = await _body(request, most + MOST_WRITTEN)  # a text and what continues it
    if isinstance(shelf.column(name), Cutter):
      return JSONResponse(await run_in_threadpool(shelf.cut, name, step, document))
    async with device:
      if number < newest.get(view, 0) or await request.is_disconnected():
        raise Refused(409, 'a newer text has come')
      return JSONResponse(await run_in_threadpool(shelf.cut, name, step, document))

  async def go_on(request: Request) -> Response:
    name, step = _column(request)
    options = {
      'max_bytes': _number(request, 'max_bytes', 128),
      'temperature': _number(request, 'temperature', 1.0),
      'top_p': _number(request, 'top_p', 1.0),
      'seed': _number(request, 'seed', 0),
    }
    if options['max_bytes'] > MOST_WRITTEN:
      raise Refused(400, f'max_bytes={options["max_bytes"]} must be at most {MOST_WRITTEN}')
    pieces = shelf.stream(name, step, await _body(request, most), options)

    async def following() -> bytes | None:
      async with device:
        return await run_in_threadpool(next, pieces, None)

    first = await following()  # so that what is wrong from the beginning is an answer of its own

    async def lines() -> AsyncIterator[str]:
      piece = first
      try:
        while piece is not None:
          yield json.dumps({'bytes': piece.decode('latin-1')}) + '\n'
          piece = await following()
      except Exception as error:
        yield json.dumps({'error': _told(error)[1]}) + '\n'

    return StreamingResponse(lines(), media_type='application/x-ndjson')

  routes = [
    Route('/columns.json', _guarded(columns)),
    Route('/cut', _guarded(cut), methods=['POST']),
    Route('/continue', _guarded(go_on), methods=['POST']),
    Mount('/', StaticFiles(directory=STATIC, html=True)),
  ]
  made = Starlette(routes=routes)
  if host in LOCAL:
    made.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL), www_redirect=False)
  return _with_headers(made)


def _guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
  async def call(request: Request) -> Response:
    try:
      if request.headers.get('sec-fetch-site', 'none') not in ('none', 'same-origin'):
        raise Refused(403, 'a page of another site asks: open the viewer itself')
      return await endpoint(request)
    except ClientDisconnect:
      return Response(status_code=400)
    except Exception as error:
      status, message = _told(error)
      return JSONResponse({'error': message}, status)

  return call


def _told(error: Exception) -> tuple[int, str]:
  """(status, sentence) of an error; a bug is shown whole on the terminal alone."""
  if isinstance(error, Refused):
    return error.status, str(error)
  if is_sentence(error):
    return (404 if isinstance(error, OSError) else 400), sentence(error)
  traceback.print_exception(error)
  return 500, f'a bug of the viewer or the model ({type(error).__name__}): the terminal of the server shows where'


async def _body(request: Request, most: int) -> bytes:
  """The body, read no further than the limit."""
  body = bytearray()
  async for part in request.stream():
    body += part
    if len(body) > most:
      raise Refused(413, f'the text has more than {most:,} bytes: send a shorter one, or start with --max_bytes')
  return bytes(body)


def _column(request: Request) -> tuple[str, int | None]:
  step = _number(request, 'step', -1)
  return request.query_params.get('column', ''), None if step < 0 else step


def _number(request: Request, name: str, default: int | float) -> Any:
  given = request.query_params.get(name, default)
  try:
    value = type(default)(given)
  except (ValueError, OverflowError):
    raise Refused(400, f'{name}={given!r:.50} is not a number') from None
  if abs(value) > 2**53:
    raise Refused(400, f'{name}={given!r:.50} is too large')
  return value


def _with_headers(inner: ASGIApp) -> ASGIApp:
  headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

  async def call(scope: Scope, receive: Receive, send: Send) -> None:
    async def with_headers(message: Message) -> None:
      if message['type'] == 'http.response.start':
        message['headers'] = [*message.get('headers', ()), *headers]
      await send(message)

    await inner(scope, receive, with_headers)

  return call
