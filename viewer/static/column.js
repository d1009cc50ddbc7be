// One column: a model at a step, a rule or a tokenizer, with its cuts of the text.

import { toCodes } from './text.js';
import { cut, goOn, isStatic } from './data.js';
import { Picture } from './picture.js';
import { OPTIONS, byId, element, known, page, stepOf } from './page.js';
import { point } from './details.js';

export function columnOf(spec, index) {
  const { kind, steps } = known(spec.name);
  const column = { spec, kind, view: `/${index}`, tail: new Uint8Array(), result: null };
  column.heading = element('h2', { textContent: spec.name });
  column.legend = element('div', { className: 'legend bar' });
  column.message = element('p', { className: 'message' });
  column.message.setAttribute('role', 'status');
  column.text = element('div', { className: 'text', tabIndex: 0 });
  column.text.setAttribute('role', 'application');
  column.text.setAttribute('aria-label', `${spec.name}: arrow keys go from byte to byte, with Shift from cut to cut`);
  column.text.setAttribute('aria-describedby', 'details');
  column.picture = new Picture(column.text);
  const buttons = element('div', { className: 'bar' });
  if (kind === 'model' && !isStatic) {
    column.go = element('button', { textContent: 'Continue' });
    column.go.onclick = () => (column.stop ? column.stop.abort() : continueText(column));
    buttons.append(column.go);
  }
  const remove = element('button', { textContent: '×', title: `Remove ${spec.name}` });
  remove.setAttribute('aria-label', remove.title);
  remove.onclick = () => page.remove(spec);
  buttons.append(remove);
  const head = element('div', { className: 'bar' }, column.heading, buttons);
  column.element = element('article', {}, head, ...(steps.length > 1 ? [slider(column, steps)] : []), column.legend);
  column.element.append(column.message, column.text);
  column.text.onpointermove = column.text.onpointerdown = (event) => point(column.picture.byteAt(event.clientX, event.clientY));
  column.text.onfocus = () => point(Math.min(page.state.at ?? 0, column.picture.bytes.length));
  column.text.onkeydown = (event) => {
    const byte = column.picture.moved(event.key, event.shiftKey);
    if (byte === null || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    point(byte);
  };
  return column;
}

// A slider over checkpoints; what it stood at before is what boundaries are compared with.
function slider(column, steps) {
  const { spec } = column;
  const at = steps.indexOf(stepOf(spec));
  const range = element('input', { type: 'range', min: 0, max: steps.length - 1, value: at < 0 ? steps.length - 1 : at });
  range.setAttribute('aria-label', `Step of ${spec.name}`);
  const label = element('output', { className: 'step' });
  const since = element('select', { title: 'Boundaries that came and went since this step are marked' });
  since.setAttribute('aria-label', `Step that ${spec.name} is compared with`);
  since.append(new Option('no step', ''), ...steps.map((step) => new Option(step, step)));
  const tell = () => {
    label.textContent = `step ${stepOf(spec)}`;
    range.setAttribute('aria-valuetext', label.textContent);
    since.value = spec.from ?? '';
  };
  range.oninput = () => {
    spec.from = stepOf(spec);
    spec.step = steps[range.value];
    tell();
    column.tail = new Uint8Array();
    page.later();
  };
  since.onchange = () => {
    spec.from = since.value === '' ? null : Number(since.value);
    page.later();
  };
  tell();
  return element('div', { className: 'bar' }, label, range, element('label', {}, 'moved since ', since));
}

export async function update(column, text) {
  const token = (column.token = {});
  if (column.prompt && toCodes(column.prompt) !== toCodes(text)) {
    column.stop?.abort();
    column.tail = new Uint8Array();
    column.spec.continued = false;
  }
  column.prompt = text;
  const bytes = new Uint8Array([...text, ...column.tail]);
  const [step, from] = [stepOf(column.spec), column.spec.from];
  if (!column.stop) tell(column, column.kind === 'model' ? 'reading …' : '');
  try {
    const result = await cut(column.spec.name, step, bytes, column.view);
    const before = result && from !== null && from !== step ? await cut(column.spec.name, from, bytes, column.view) : null;
    if (column.token !== token || !result) return;
    column.result = result;
    if (!column.stop) tell(column, '');
    column.picture.show(bytes, result, before, text.length);
    legend(column, bytes, before);
    note();
    point(page.state.at);
    if (column.spec.continued && !column.stop && !column.tail.length) continueText(column);
  } catch (error) {
    if (column.token !== token) return;
    column.result = null;
    column.picture.show(bytes, null, null, text.length);
    column.legend.replaceChildren();
    tell(column, error.message, true);
  }
}

function tell(column, message, isError = false) {
  column.message.textContent = message;
  column.message.classList.toggle('error', isError);
}

function legend(column, bytes, before) {
  const { stages, bits } = column.result;
  const parts = stages.map(({ starts }, stage) => {
    const count = new Set([0, ...starts]).size;
    const inside = starts.filter((s) => column.picture.cells[s]?.cluster.start < s).length;
    const text = `${stages.length > 1 ? `stage ${stage}: ` : ''}${count} chunks of ${(bytes.length / count).toFixed(2)} bytes`;
    const then = before && new Set(before.stages[stage]?.starts ?? []);
    const gained = then && starts.filter((s) => !then.has(s)).length;
    const moved = then ? `, +${gained} −${then.size - (starts.length - gained)} since ${column.spec.from}` : '';
    const within = inside ? `, ${inside} inside a character` : '';
    return element('span', {}, element('i', { className: `stage${stage % 4}` }), text + within + moved);
  });
  if (!stages.length) parts.push('no stage cuts');
  if (bits && bytes.length) parts.push(`${(bits.reduce((a, b) => a + b, 0) / bytes.length).toFixed(3)} bits per byte`);
  column.legend.replaceChildren(...parts);
}

// What cannot be compared among the columns.
function note() {
  const models = page.shown.filter((column) => column.result?.bits);
  const alphabets = new Set(models.map((column) => JSON.stringify(column.result.alphabet)));
  byId('note').textContent = alphabets.size < 2 ? '' :
    'These models have different alphabets: ' +
    models.map(({ spec, result }) => `${spec.name} reads ${Object.values(result.alphabet).join(', ') || 'bytes'}`).join('; ') +
    '. The bits of a unit stand at its last byte, so those of single bytes cannot be compared; cuts and bits of the whole text can.';
}

async function continueText(column) {
  const stop = (column.stop = new AbortController());
  column.go.textContent = 'Stop';
  column.tail = new Uint8Array();
  column.spec.continued = true;
  const [prompt, step] = [column.prompt, stepOf(column.spec)];
  const options = Object.fromEntries(OPTIONS.map((id) => [id, byId(id).value]));
  const isCurrent = () => column.stop === stop && column.prompt === prompt && !stop.signal.aborted;
  page.remember();
  tell(column, 'writing …');
  try {
    for await (const piece of goOn(column.spec.name, step, prompt, options, stop.signal)) {
      if (!isCurrent()) break;
      column.tail = new Uint8Array([...column.tail, ...piece]);
      column.picture.show(new Uint8Array([...prompt, ...column.tail]), null, null, prompt.length);
    }
    tell(column, '');
  } catch (error) {
    if (error.name !== 'AbortError') tell(column, error.message, true);
    else tell(column, '');
    column.failed = error.name !== 'AbortError';
  }
  column.stop = null;
  column.go.textContent = 'Continue';
  if (column.prompt === prompt && !column.failed) update(column, prompt);
  column.failed = false;
}
