"""The page in a headless Chromium: what is typed, pointed at, streamed, exported and linked to."""

import asyncio
import functools
import json
import shutil
import threading
import time

import pytest

from text import command_line
from viewer import columns, export, server

sync_api = pytest.importorskip('playwright.sync_api', reason='the page is tested where playwright is installed')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
if CHROMIUM is None:
  pytest.skip('the page is tested where there is a Chromium (apt-get install chromium)', allow_module_level=True)

MOST = 512
TEXTS = {'English': 'the cat sat on a mat', 'bytes': 'raw \xff\xfe bytes'}
SAMPLES = [{'name': name, 'bytes': text} for name, text in TEXTS.items()]


@pytest.fixture(scope='module')
def browser():
  with sync_api.sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
    yield chromium
    chromium.close()


@pytest.fixture(scope='module')
def served(directory, tmp_path_factory):
  """(address, shelf)."""
  import uvicorn

  from viewer.__main__ import _listen

  runs = shutil.copytree(directory, tmp_path_factory.mktemp('served') / 'runs')
  shelf = columns.Shelf(
    [*columns.find_runs([f'{runs}/*'], command_line.tell), *columns.find_cutters(['fixed(size=3)'], [])]
  )
  for column in ('trained', 'two_stages'):
    shelf.cut(column, None, b'')  # compiled before anybody waits
  running = uvicorn.Server(uvicorn.Config(server.app(shelf, SAMPLES, MOST), log_level='warning', lifespan='off'))
  with _listen('127.0.0.1', 0) as listening:
    thread = threading.Thread(target=functools.partial(asyncio.run, running.serve([listening])))
    thread.start()
    yield f'http://127.0.0.1:{listening.getsockname()[1]}/', shelf
    running.should_exit = True
    thread.join()


class View:
  """A page and what a person would look at."""

  def __init__(self, browser, address, **settings):
    self.page = browser.new_page(**settings)
    self.errors = []
    self.page.on('pageerror', lambda error: self.errors.append(str(error)))
    self.page.on('console', lambda message: message.type == 'error' and self.errors.append(message.text))
    self.page.goto(address)
    self.settle()

  def settle(self):
    """Waits until every column has answered."""
    until = time.monotonic() + 60
    answered = """() => {
      const columns = [...document.querySelectorAll('article')];
      const isDone = (c) => !/…/.test(c.querySelector('.message').textContent) && c.querySelector('.text svg');
      return columns.length > 0 && columns.every(isDone);
    }"""
    time.sleep(0.15)  # longer than the page waits for more to be typed
    while not self.page.evaluate(answered):
      assert time.monotonic() < until, self.page.inner_text('body')
      time.sleep(0.05)

  def data(self):
    with self.page.expect_download() as download:
      self.page.click('#json')
    return json.loads(download.value.path().read_bytes())['columns']

  def details(self):
    return self.page.locator('#details tbody tr').all_inner_texts()


@pytest.fixture
def view(browser, served):
  made = View(browser, served[0])
  yield made
  made.page.close()
  assert made.errors == []


def test_text_is_cut_as_it_is_typed_by_every_model_and_rule(view):
  assert [column['name'] for column in view.data()] == ['trained', 'two_stages', 'fixed(size=3)']
  view.page.fill('#text', '')
  view.page.type('#text', 'a bc d', delay=20)
  view.settle()
  trained, two_stages, fixed = view.data()
  assert bytes(trained['bytes']) == b'a bc d' and trained['step'] == 10
  assert trained['stages'][0]['starts'] == [1, 4] and fixed['stages'][0]['starts'] == [0, 3]
  assert len(two_stages['stages']) == 2 and len(two_stages['bits']) == 6
  assert '6 bytes' not in view.page.inner_text('#message')


def test_a_byte_is_told_when_it_is_pointed_at_and_by_keys(view):
  box = view.page.locator('article .text').first.bounding_box()
  view.page.mouse.move(box['x'] + 8, box['y'] + 20)
  rows = view.details()
  assert len(rows) == 3 and '0x74, t U+0074' in rows[0] and 'bits' in rows[0] and 'p 0.000' in rows[0]
  view.page.locator('article .text').nth(1).focus()
  for _ in range(3):
    view.page.keyboard.press('ArrowRight')
  rows = view.details()
  assert '0x20, ␣' in rows[0] and 'begins a chunk, p 1.000' in rows[0] and 'stage 1: ' in rows[1]
  view.page.keyboard.press('Shift+ArrowRight')
  assert '0x63, c' not in view.details()[0]
  view.page.keyboard.press('End')
  assert all('what follows' in row for row in view.details())


def test_every_view_has_a_link(view, browser, served):
  view.page.fill('#text', 'naïve & <b>')
  view.page.locator('article input[type=range]').fill('0')
  view.settle()
  view.page.locator('article .text').first.focus()
  view.page.keyboard.press('End')
  view.page.click('#link')
  again = View(browser, view.page.url)
  assert again.data() == view.data() and again.details() == view.details()
  assert again.data()[0]['step'] == 5 and 'since 10' in again.page.inner_text('article .legend >> nth=0')
  assert again.page.input_value('#text') == 'naïve & <b>'
  again.page.close()


def test_a_continuation_is_streamed_and_then_cut(view):
  view.page.fill('#max_bytes', '40')
  view.page.locator('article').nth(1).get_by_text('Continue').click()
  view.settle()
  _, written, _ = view.data()
  assert written['written_from'] == len(TEXTS['English']) and 20 < len(written['bytes']) <= 60
  assert len(written['bits']) == len(written['bytes'])
  assert view.page.locator('.continued').count() > 0
  view.page.type('#text', '!')
  view.settle()
  assert len(view.data()[1]['bytes']) == len(view.page.input_value('#text'))


def test_text_is_shown_as_text(view):
  hostile = '<script>document.title = "no"</script><img src=x onerror="document.title = 1">\x1b[0m\u202e‍'
  view.page.fill('#text', hostile)
  view.settle()
  shown = view.page.locator('article .text').first.inner_text()
  assert hostile[:40] in shown and '\\x1b[0m‹U+202E›' in shown
  assert view.page.title() == 'Text being cut' and view.page.locator('#columns script, #columns img').count() == 0


def test_a_megabyte_that_is_pasted_is_cut_short_and_says_so(view):
  view.page.evaluate('() => { document.getElementById("text").value = "日本 ".repeat(80) + "x ".repeat(500_000); }')
  view.page.type('#text', 'x')
  view.settle()
  assert 'The text has 1,000,561 bytes; the first 511 are shown.' in view.page.inner_text('#message')
  assert all(len(column['bytes']) == MOST - 1 for column in view.data()) and len(view.page.url) < 8000


def test_bytes_that_are_not_utf_8_are_read_as_they_are(view):
  view.page.select_option('#samples', label='bytes')
  view.settle()
  assert bytes(view.data()[0]['bytes']) == TEXTS['bytes'].encode('latin-1')
  assert view.page.locator('article .text').first.inner_text() == 'raw \\xff\\xfe bytes'


def test_boundaries_inside_a_character_and_right_to_left(view):
  view.page.fill('#text', 'אבג日e\u0301')  # a boundary every three bytes: inside a letter, and before a combining mark
  view.settle()
  rule = view.page.locator('article').nth(2)
  assert '1 inside a character' in rule.locator('.legend').inner_text()
  assert rule.locator('path.inside').get_attribute('d').count('M') == 1
  rule.locator('.text').focus()
  x = []
  for _ in range(5):
    x.append(rule.locator('svg path').last.bounding_box()['x'])
    view.page.keyboard.press('ArrowLeft')
  assert x == sorted(x, reverse=True) and len(set(x)) == 5
  assert '2 of 2 of ' in view.details()[0] or '1 of 2 of ' in view.details()[0]


def test_a_checkpoint_that_vanishes_is_a_message(view, served):
  workdir = served[1].columns['trained'].directory
  served[1]._models.clear()  # what was loaded is still shown
  hidden = (workdir / 'checkpoints' / '5').rename(workdir / 'hidden')
  try:
    view.page.fill('#text', 'something new')
    view.settle()
    view.page.locator('article input[type=range]').fill('0')
    view.settle()
    message = view.page.locator('article .message.error').inner_text()
    assert message.startswith('there is no checkpoint of step 5') and 'Traceback' not in message
    view.page.wait_for_selector('article input[type=range]', state='detached')  # one step is left
  finally:
    hidden.rename(workdir / 'checkpoints' / '5')
    view.errors.clear()  # the browser notes the answer 404


def test_pictures_are_whole_and_need_no_style_of_the_page(view):
  view.page.fill('#text', 'שלום עולם, hello: var(--page)')
  view.settle()
  for kind, start in {'svg': b'<svg xmlns="http://www.w3.org/2000/svg"', 'png': b'\x89PNG'}.items():
    with view.page.expect_download() as download:
      view.page.click(f'#{kind}')
    content = download.value.path().read_bytes()
    assert content.startswith(start) and content.count(b'var(') == (3 if kind == 'svg' else 0)  # those of the text


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_phone_has_nothing_cut_off_in_either_scheme(browser, served, scheme):
  made = View(browser, served[0], viewport={'width': 360, 'height': 740}, color_scheme=scheme)
  made.page.fill('#text', 'x' * 200 + ' 日本語 שלום')
  made.settle()
  width = '() => [document.documentElement.scrollWidth, innerWidth]'
  assert len(set(made.page.evaluate(width))) == 1
  ground = made.page.evaluate('() => getComputedStyle(document.body).backgroundColor')
  assert (ground == 'rgb(255, 255, 255)') == (scheme == 'light')
  made.page.close()
  assert made.errors == []


def test_models_of_different_alphabets_say_what_cannot_be_compared(view):
  view.page.route('**/cut?column=two_stages*', functools.partial(_with_alphabet, {'units': 'char(limit=0x3000)'}))
  view.page.fill('#text', 'other text')
  view.settle()
  note = view.page.inner_text('#note')
  assert 'trained reads bytes; two_stages reads char(limit=0x3000)' in note and 'cannot be compared' in note


def _with_alphabet(alphabet, route):
  answer = route.fetch()
  route.fulfill(response=answer, json=answer.json() | {'alphabet': alphabet})


def test_the_exported_page_needs_no_server(browser, served, tmp_path):
  runs = [served[1].columns['trained']]
  export.write(tmp_path / 'page', columns.Shelf([*runs, *columns.find_cutters(['fixed(size=3)'], [])]), SAMPLES)
  made = View(browser, (tmp_path / 'page' / 'index.html').as_uri())
  made.page.select_option('#samples', label='bytes')
  made.page.locator('article input[type=range]').fill('0')
  made.settle()
  trained, fixed = made.data()
  assert trained['step'] == 5 and fixed['stages'][0]['starts'] == [0, 3, 6, 9]
  assert made.page.get_by_text('Continue').count() == 1 and not made.page.is_visible('#writing')
  assert made.errors == []
  made.page.close()
