// The page: what it shows is in its address, and every change of it goes through `page.state`.

import { cutShort, fromCodes, toBytes, toCodes, toText } from './text.js';
import { described, isStatic } from './data.js';
import { OPTIONS, WAIT, byId, known, page, say } from './page.js';
import { columnOf, relist, update } from './column.js';
import { json, png, save, svg } from './save.js';

const MOST_COLUMNS = 32; // of a link
let waiting;

// A sample's own bytes, which need not be UTF-8, until somebody types.
function wholeText() {
  const { sample } = page.state;
  return sample === null ? toBytes(byId('text').value) : fromCodes(page.about.samples[sample].bytes);
}

// --- the address: t text or s its number, c columns "step[<from][+]:name", at the byte, and options

function address() {
  const query = new URLSearchParams();
  const bytes = cutShort(wholeText(), page.about.most);
  const isText = toCodes(toBytes(toText(bytes))) === toCodes(bytes);
  if (isStatic || !isText) query.set('s', page.state.sample);
  else query.set('t', toText(bytes));
  for (const { name, step, from, continued } of page.state.columns) {
    query.append('c', `${step ?? ''}${from === null ? '' : `<${from}`}${continued ? '+' : ''}:${name}`);
  }
  if (page.state.at !== null) query.set('at', page.state.at);
  for (const id of OPTIONS) if (byId(id).value !== byId(id).defaultValue) query.set(id, byId(id).value);
  return `#${query}`;
}

function read(hash) {
  const query = new URLSearchParams(hash.slice(1));
  const number = (value) => (/^\d{1,15}$/.test(value ?? '') ? Number(value) : null);
  const columns = [];
  for (const given of query.getAll('c').slice(0, MOST_COLUMNS)) {
    const [, step, from, continued, name] = /^(\d*)(?:<(\d+))?(\+?):(.*)$/s.exec(given) ?? [];
    if (!known(name)) say(`The link asks for ${name ?? given}, which is not shown here.`, true);
    else columns.push({ name, step: number(step), from: number(from), continued: !!continued && !isStatic });
  }
  if (!columns.length) {
    const models = page.about.columns.filter((column) => column.kind === 'model');
    const rules = page.about.columns.filter((column) => column.kind !== 'model');
    for (const { name } of [...models.slice(0, 3), ...rules.slice(0, 1)]) {
      columns.push({ name, step: null, from: null, continued: false });
    }
  }
  for (const id of OPTIONS) if (query.has(id)) byId(id).value = query.get(id);
  const typed = isStatic ? null : query.get('t');
  const sample = typed === null ? Math.min(number(query.get('s')) ?? 0, page.about.samples.length - 1) : null;
  choose(sample, typed);
  page.state = { sample, at: number(query.get('at')), columns };
}

function choose(sample, typed) {
  byId('text').value = typed ?? toText(fromCodes(page.about.samples[sample].bytes));
  byId('samples').value = sample ?? '';
}

let remembering;
page.remember = () => {
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, '', address()), 250);
};

// --- columns

function build() {
  for (const column of page.shown) column.stop?.abort();
  page.shown = page.state.columns.map(columnOf);
  byId('columns').replaceChildren(...page.shown.map((column) => column.element));
  refresh();
}

page.remove = (spec) => {
  page.state.columns = page.state.columns.filter((other) => other !== spec);
  build();
};

page.later = () => {
  clearTimeout(waiting);
  waiting = setTimeout(refresh, WAIT);
};

// Runs that train meanwhile save checkpoints and remove others.
page.relist = async () => {
  page.about.columns = (await described().catch(() => page.about)).columns;
  page.shown.forEach(relist);
};

function refresh() {
  const whole = wholeText();
  const text = cutShort(whole, page.about.most);
  const [all, few] = [whole.length, text.length].map((count) => count.toLocaleString('en'));
  if (text.length < whole.length) say(`The text has ${all} bytes; the first ${few} are shown.`);
  else if (!byId('message').classList.contains('error')) say('');
  for (const column of page.shown) update(column, text);
  page.remember();
}

// --- start

async function start() {
  try {
    page.about = await described();
  } catch (error) {
    say(error.message, true);
    return;
  }
  if (!isStatic) byId('samples').add(new Option('your own', ''));
  page.about.samples.forEach(({ name }, index) => byId('samples').add(new Option(name, index)));
  byId('more').append(new Option('choose …', ''), ...page.about.columns.map(({ name }) => new Option(name, name)));
  byId('text').readOnly = isStatic;
  byId('writing').hidden = isStatic;
  byId('max_bytes').max = page.about.most_written;
  byId('text').oninput = () => {
    page.state.sample = null;
    byId('samples').value = '';
    say('');
    page.later();
  };
  byId('samples').onchange = () => {
    const { value } = byId('samples');
    page.state.sample = value === '' ? null : Number(value);
    if (value !== '') choose(page.state.sample);
    refresh();
  };
  byId('more').onchange = async () => {
    const name = byId('more').value;
    byId('more').value = '';
    if (!name) return;
    await page.relist();
    page.state.columns.push({ name, step: null, from: null, continued: false });
    build();
  };
  byId('link').onclick = async () => {
    history.replaceState(null, '', address());
    const copied = navigator.clipboard?.writeText(location.href) ?? Promise.reject();
    await copied.then(() => say('The link is copied.'), () => say(location.href));
  };
  byId('svg').onclick = () => save('cuts.svg', new Blob([svg().source], { type: 'image/svg+xml' }));
  byId('png').onclick = async () => save('cuts.png', await png());
  byId('json').onclick = () => save('cuts.json', new Blob([json()], { type: 'application/json' }));
  window.onhashchange = () => {
    read(location.hash);
    build();
  };
  const draw = () => page.shown.forEach(({ picture }) => picture.draw());
  window.onresize = draw;
  window.onfocus = page.relist;
  document.fonts.ready.then(draw);
  read(location.hash);
  build();
}

start();
