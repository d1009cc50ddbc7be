// One column: a model at a step, a rule or a tokenizer, with its cuts of the text.

import { toCodes } from './text.js';
import { cut, goOn, isStatic } from './data.js';
import { MOST_BITS, Picture } from './picture.js';
import { OPTIONS, byId, element, known, page, stepOf } from './page.js';
import { point } from './details.js';

export function columnOf(spec, index) {
  const { kind } = known(spec.name);
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
  column.steps = element('div', {});
  column.element = element('article', {}, head, column.steps, column.legend, column.message, column.text);
  relist(column);
  column.text.onpointermove = column.text.onpointerdown = (event) => {
    const byte = column.picture.byteAt(event.clientX, event.clientY);
    if (byte !== page.state.at) point(byte);
  };
  column.text.onfocus = () => point(Math.min(page.state.at ?? 0, column.picture.bytes.length));
  column.text.onkeydown = (event) => {
    const byte = column.picture.moved(event.key, event.shiftKey);
    if (byte === null || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    point(byte);
  };
  return column;
}

// The checkpoints that there are now.
export function relist(column) {
  const { steps } = known(column.spec.name);
  if (column.listed === String(steps)) return;
  column.listed = String(steps);
  column.steps.replaceChildren(...(steps.length > 1 ? [slider(column, steps)] : []));
}

// A slider over checkpoints; what it stood at before is what boundaries are compared with.
function slider(column, steps) {
  const { spec } = column;
  const at = steps.indexOf(stepOf(spec));
  const last = steps.length - 1;
  const range = element('input', { type: 'range', min: 0, max: last, value: at < 0 ? last : at });
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
    forget(column);
    page.later();
  };
  since.onchange = () => {
    spec.from = since.value === '' ? null : Number(since.value);
    page.later();
  };
  tell();
  return element('div', { className: 'bar' }, label, range, element('label', {}, 'moved since ', since));
}

// What was written is no longer shown, and no more is.
function forget(column) {
  column.stop?.abort();
  column.stop = null;
  column.tail = new Uint8Array();
  column.spec.continued = false;
  if (column.go) column.go.textContent = 'Continue';
}

export async function update(column, text) {
  const token = (column.token = {});
  if (column.prompt && toCodes(column.prompt) !== toCodes(text)) {
    forget(column);
  }
  column.prompt = text;
  const bytes = new Uint8Array([...text, ...column.tail]);
  const [step, from] = [stepOf(column.spec), column.spec.from];
  if (!column.stop) tell(column, column.kind === 'model' ? 'reading …' : '');
  try {
    const result = await cut(column.spec.name, step, bytes, column.view);
    if (column.token !== token || !result) return;
    const isCompared = from !== null && from !== step;
    const before = isCompared ? await cut(column.spec.name, from, bytes, `${column.view}<`) : null;
    if (column.token !== token) return;
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
    page.relist(); // a checkpoint may have gone
  }
}

function tell(column, message, isError = false) {
  column.message.textContent = message;
  column.message.classList.toggle('error', isError);
}

function legend(column, bytes, before) {
  const { stages, bits } = column.result;
  const parts = stages.map(({ starts }, stage) => {
    const count = bytes.length && new Set([0, ...starts]).size;
    const inside = starts.filter((s) => column.picture.cells[s]?.cluster.start < s).length;
    const size = count ? ` of ${(bytes.length / count).toFixed(2)} bytes` : '';
    const text = `${stages.length > 1 ? `stage ${stage}: ` : ''}${count} chunks${size}`;
    const then = before && new Set(before.stages[stage]?.starts ?? []);
    const gained = then && starts.filter((s) => !then.has(s)).length;
    const lost = then && then.size - (starts.length - gained);
    const moved = then ? `; since ${column.spec.from} ▼ ${gained} came, ▽ ${lost} went` : '';
    const within = inside ? `, ${inside} inside a character` : '';
    return element('span', {}, element('i', { className: `stage${stage % 4}` }), text + within + moved);
  });
  if (!stages.length) parts.push(element('span', { textContent: 'no stage that cuts' }));
  if (bits && bytes.length) {
    const mean = bits.reduce((sum, value) => sum + value, 0) / bytes.length;
    const about = { textContent: `${mean.toFixed(3)} bits per byte`, title: `bars: up to ${MOST_BITS} bits` };
    parts.push(element('span', about));
  }
  column.legend.replaceChildren(...parts);
}

// What cannot be compared among the columns.
function note() {
  const models = page.shown.filter((column) => column.result?.bits);
  const alphabets = new Set(models.map((column) => JSON.stringify(column.result.alphabet)));
  const read = ({ spec, result }) => `${spec.name} reads ${Object.values(result.alphabet).join(', ') || 'bytes'}`;
  const sentence = `These models have different alphabets: ${models.map(read).join('; ')}. The bits of a unit `;
  const rest = 'stand at its last byte, so those of single bytes cannot be compared; cuts and bits of the whole text can.';
  byId('note').textContent = alphabets.size < 2 ? '' : sentence + rest;
}

async function continueText(column) {
  const stop = (column.stop = new AbortController());
  column.go.textContent = 'Stop';
  column.tail = new Uint8Array();
  column.spec.continued = true;
  const [prompt, step] = [column.prompt, stepOf(column.spec)];
  const options = Object.fromEntries(OPTIONS.map((id) => [id, byId(id).value]));
  let failure = '';
  page.remember();
  tell(column, 'writing …');
  try {
    for await (const piece of goOn(column.spec.name, step, prompt, options, stop.signal)) {
      if (stop.signal.aborted) break;
      column.tail = new Uint8Array([...column.tail, ...piece]);
      column.picture.show(new Uint8Array([...prompt, ...column.tail]), null, null, prompt.length);
    }
  } catch (error) {
    if (!stop.signal.aborted) failure = error.message;
  }
  if (column.stop !== stop) return; // the text or the step is another by now
  column.stop = null;
  column.go.textContent = 'Continue';
  column.spec.continued &&= !stop.signal.aborted && !failure;
  await update(column, prompt);
  if (failure) tell(column, failure, true);
}
