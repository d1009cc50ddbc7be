// The byte that is pointed at, in every column.

import { characters, hex, spelled } from './text.js';
import { byId, element, page, title } from './page.js';

export function point(byte) {
  const { shown, state } = page;
  if (byte !== null && byte !== state.at) {
    state.at = byte;
    page.remember();
  }
  for (const { picture } of shown) picture.point(state.at);
  const rows = state.at === null ? [] : shown.filter(({ result }) => result).map((column) => detail(column, state.at));
  const names = ['', 'byte', 'cut', 'surprisal', 'likeliest'];
  const head = names.map((name) => element('th', { scope: 'col', textContent: name }));
  const table = element('table', {}, element('thead', {}, element('tr', {}, ...head)), element('tbody', {}, ...rows));
  byId('details').replaceChildren(...(rows.length ? [table] : []));
}

function detail({ spec, kind, picture, result }, pointed) {
  const at = Math.min(pointed, picture.bytes.length);
  const byte = picture.bytes[at];
  const stages = result.stages.map(({ starts, p }, stage) => {
    const name = result.stages.length > 1 ? `stage ${stage}: ` : '';
    const begins = starts.includes(at) ? (kind === 'model' ? 'begins a chunk' : 'begins a part') : 'inside';
    return `${name}${begins}${p && byte !== undefined ? `, p ${p[at].toFixed(3)}` : ''}`;
  });
  const likeliest = (result.likeliest?.[at] ?? []).flatMap(([codes, p]) => {
    const behind = p === null ? ' (greedy; this model tells no p)' : ` ${p.toFixed(3)}  `;
    return [element('b', { textContent: spelled(codes) }), behind];
  });
  return element(
    'tr', {},
    element('th', { scope: 'row', textContent: title(spec) }),
    element('td', {}, ...(byte === undefined ? ['what follows'] : named(picture, at))),
    element('td', { textContent: byte === undefined ? '' : stages.join('; ') }),
    element('td', { textContent: result.bits && byte !== undefined ? `${result.bits[at].toFixed(2)} bits` : '' }),
    element('td', {}, ...likeliest),
  );
}

function named(picture, at) {
  const { cluster } = picture.cells[at];
  const inside = characters(picture.bytes.subarray(cluster.start, cluster.end));
  const character = inside.findLast((c) => cluster.start + c.start <= at);
  const value = `0x${hex(picture.bytes[at])}`;
  if (character.byte !== undefined) return [`${value}, not UTF-8`];
  const code = `U+${character.shown.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
  const part = character.size > 1 ? `${at - cluster.start - character.start + 1} of ${character.size} of ` : '';
  return [`${value}, ${part}`, element('b', { textContent: cluster.text.trim() || '␣' }), ` ${code}`];
}
