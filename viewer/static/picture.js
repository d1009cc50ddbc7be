// One text drawn with its cuts: glyphs laid out by the browser, and behind them a drawing measured from these.

import { clusters } from './text.js';

export const SVG = 'http://www.w3.org/2000/svg';
export const GLYPH = 28; // px, the height of a line's glyphs with what is behind them
const STRIP = 6;
const BARS = 18;
export const MOST_BITS = 16; // at which a bar has its full height
const ABOVE = 9;
const DASHED = { class: 'inside', 'stroke-dasharray': '3 2' };

const box = (x, y, w, h) => `M${x.toFixed(1)} ${y.toFixed(1)}h${w.toFixed(1)}v${h.toFixed(1)}h${(-w).toFixed(1)}z`;
const line = (x, top, bottom) => `M${x.toFixed(1)} ${top.toFixed(1)}V${bottom.toFixed(1)}`;

export function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
}

export class Picture {
  // element: takes the text; it is the one that can be focused and pointed at.
  constructor(element) {
    this.element = element;
    this.bytes = new Uint8Array();
    this.continued = 0;
    this.result = this.before = null;
    this.at = null;
    this.cells = [];
    this.rows = [];
  }

  // continued: the byte from which on a model wrote it. before: an earlier result for the same bytes, or null.
  show(bytes, result, before, continued = bytes.length) {
    Object.assign(this, { bytes, result, before, continued });
    this.clusters = clusters(bytes);
    this.element.replaceChildren();
    this.drawing = this.element.appendChild(document.createElementNS(SVG, 'svg'));
    this.drawing.setAttribute('aria-hidden', 'true');
    let span = null;
    for (const cluster of this.clusters) {
      const name = `${cluster.isEscape ? 'escape ' : ''}${cluster.start >= continued ? 'continued' : ''}`;
      if (span?.className !== name) {
        span = this.element.appendChild(document.createElement('span'));
        span.className = name;
        span.append('');
      }
      cluster.node = span.firstChild;
      cluster.from = cluster.node.length;
      cluster.node.appendData(cluster.text);
    }
    this.draw();
  }

  get lineHeight() {
    const { stages = [], bits = null } = this.result ?? {};
    return ABOVE + GLYPH + STRIP * Math.max(stages.length - 1, 0) + (bits ? BARS + 4 : 0) + 3;
  }

  draw() {
    if (!this.drawing || !this.element.isConnected) return;
    const height = this.lineHeight;
    this.element.style.lineHeight = `${height}px`;
    this.element.style.minHeight = `${height}px`;
    this.element.style.setProperty('--up', `${ABOVE + GLYPH / 2 - height / 2}px`);
    this.measure(height);
    this.drawing.replaceChildren();
    set(this.drawing, { width: this.width, height: this.height });
    if (this.result) this.drawResult();
    this.here = this.path('', { fill: 'none', stroke: 'var(--here)', 'stroke-width': 1.5 });
    this.point(this.at);
  }

  // Of every cluster its rectangle, row and direction; of every byte its cell, {row, left, right, isRtl}.
  measure(height) {
    const frame = this.element.getBoundingClientRect();
    const { clientLeft, clientTop } = this.element;
    this.width = this.element.clientWidth;
    this.height = this.element.clientHeight;
    const padding = parseFloat(getComputedStyle(this.element).paddingTop);
    const range = document.createRange();
    this.rows = [];
    for (const cluster of this.clusters) {
      range.setStart(cluster.node, cluster.from);
      range.setEnd(cluster.node, cluster.from + cluster.text.replace(/\n$/, '').length);
      const rects = [...range.getClientRects()];
      const rect = rects.find((found) => found.width) ?? rects[0] ?? frame;
      const y = (rect.top + rect.bottom) / 2 - frame.top - clientTop - padding;
      cluster.row = Math.max(Math.floor(y / height), 0);
      cluster.left = rect.left - frame.left - clientLeft;
      cluster.right = cluster.left + Math.max(rect.width, 2);
      (this.rows[cluster.row] ??= []).push(cluster);
    }
    this.cells = [];
    for (const [index, cluster] of this.clusters.entries()) {
      const isRtl = this.runsLeft(index);
      const share = (cluster.right - cluster.left) / (cluster.end - cluster.start);
      for (let byte = cluster.start; byte < cluster.end; byte++) {
        const offset = (byte - cluster.start) * share;
        const left = isRtl ? cluster.right - offset - share : cluster.left + offset;
        this.cells[byte] = { row: cluster.row, left, right: left + share, isRtl, cluster };
      }
    }
    this.top = (row) => padding + row * height + ABOVE;
  }

  // Whether a cluster stands in text that runs to the left: by its script, or else by what stands beside it.
  runsLeft(index) {
    const cluster = this.clusters[index];
    if (cluster.isRtl || /\p{L}/u.test(cluster.text)) return cluster.isRtl;
    const [before, behind] = [this.clusters[index - 1], this.clusters[index + 1]];
    if (behind?.row === cluster.row) return behind.left < cluster.left;
    return before?.row === cluster.row && before.left > cluster.left;
  }

  drawResult() {
    const { stages, bits } = this.result;
    for (const [stage, { starts }] of stages.entries()) {
      const paths = ['', ''];
      for (const [index, start] of [0, ...starts.filter((s) => s > 0)].entries()) {
        const end = [0, ...starts.filter((s) => s > 0)][index + 1] ?? this.bytes.length;
        paths[index % 2] += this.chunk(start, end, stage);
      }
      paths.forEach((d, odd) => this.path(d, { fill: `var(--stage${stage % 4}${odd ? 'b' : 'a'})` }));
    }
    if (bits) this.path(this.bars(bits, stages.length), { fill: 'var(--bits)' });
    for (const [stage, { starts }] of stages.entries()) {
      const marks = { whole: '', inside: '' };
      for (const start of starts) {
        const cell = this.cells[start];
        if (cell) marks[start === cell.cluster.start ? 'whole' : 'inside'] += this.edge(cell, start, stage);
      }
      const stroke = `var(--edge${stage % 4})`;
      this.path(marks.whole, { fill: 'none', stroke, 'stroke-width': 1.5 + stage });
      // A boundary inside what is drawn as one character.
      this.path(marks.inside, { fill: 'none', stroke: 'var(--inside)', 'stroke-width': 2 + stage, ...DASHED });
    }
    if (this.before) this.drawMoves();
  }

  // The rows of one chunk: behind the glyphs for the outermost stage, as a strip below them for others.
  chunk(start, end, stage) {
    let d = '';
    const y = (row) => this.top(row) + (stage ? GLYPH + STRIP * (stage - 1) + 1 : 0);
    for (let byte = start; byte < end; byte++) {
      const cell = this.cells[byte];
      let { left, right } = cell;
      for (let next; (next = this.cells[byte + 1]) && byte + 1 < end && next.row === cell.row; byte++) {
        if (Math.abs(next.left - right) < 0.6) right = next.right;
        else if (Math.abs(next.right - left) < 0.6) left = next.left;
        else break;
      }
      d += box(left, y(cell.row), right - left, stage ? STRIP - 1 : GLYPH);
    }
    return d;
  }

  bars(bits, stages) {
    const foot = GLYPH + STRIP * Math.max(stages - 1, 0) + BARS + 2;
    return bits
      .map((value, byte) => {
        const { left, right, row } = this.cells[byte];
        const height = Math.max((Math.min(value, MOST_BITS) / MOST_BITS) * BARS, 0.5);
        const gap = right - left > 5 ? 1 : 0.3;
        return box(left + gap, this.top(row) + foot - height, right - left - 2 * gap, height);
      })
      .join('');
  }

  // One inside a character leaves its upper half to be read.
  edge(cell, byte, stage) {
    const [top, isInside] = [this.top(cell.row), byte > cell.cluster.start];
    const foot = top + GLYPH + STRIP * stage - 1 + (isInside ? BARS / 2 : 0);
    return line(cell.isRtl ? cell.right : cell.left, isInside ? top + GLYPH / 2 : top, foot);
  }

  // Triangles above: filled where a boundary is new since the step before, hollow where one is gone.
  drawMoves() {
    for (const [stage, { starts }] of this.result.stages.entries()) {
      const [now, then] = [new Set(starts), new Set(this.before.stages[stage]?.starts ?? [])];
      const triangle = (byte) => {
        const cell = this.cells[byte];
        const x = cell.isRtl ? cell.right : cell.left;
        return `M${(x - 4).toFixed(1)} ${this.top(cell.row) - 8}h8l-4 7z`;
      };
      const only = (some, others) => [...some].filter((byte) => !others.has(byte) && this.cells[byte]);
      const stroke = `var(--edge${stage % 4})`;
      this.path(only(now, then).map(triangle).join(''), { fill: stroke, stroke, class: 'gained' });
      this.path(only(then, now).map(triangle).join(''), { fill: 'var(--page)', stroke, class: 'lost' });
    }
  }

  path(d, attributes) {
    const path = this.drawing.appendChild(document.createElementNS(SVG, 'path'));
    set(path, { d, ...attributes });
    return path;
  }

  // Marks a byte; one behind the last stands for what follows.
  point(byte) {
    this.at = byte;
    if (!this.here) return;
    const cell = this.cells[byte];
    const last = this.cells.at(-1);
    let d = '';
    if (byte !== null && cell) d = box(cell.left - 1, this.top(cell.row) - 1, cell.right - cell.left + 2, GLYPH + 1);
    else if (byte !== null && last) {
      d = line(last.isRtl ? last.left : last.right, this.top(last.row), this.top(last.row) + GLYPH);
    }
    this.here.setAttribute('d', d);
  }

  // The byte at a place of the window; behind the last one, their number.
  byteAt(x, y) {
    const frame = this.element.getBoundingClientRect();
    const row = Math.floor((y - frame.top - this.top(0) + ABOVE) / this.lineHeight);
    return this.nearest(Math.min(Math.max(row, 0), this.rows.length - 1), x - frame.left - this.element.clientLeft);
  }

  nearest(row, x) {
    if (!this.bytes.length) return 0;
    let [best, distance] = [null, Infinity];
    for (const cluster of this.rows[row] ?? []) {
      for (let byte = cluster.start; byte < cluster.end; byte++) {
        const { left, right } = this.cells[byte];
        const away = x < left ? left - x : x > right ? x - right : 0;
        if (away < distance) [best, distance] = [byte, away];
      }
    }
    return best === this.bytes.length - 1 && distance > 8 ? this.bytes.length : best;
  }

  // Where a key leads from the byte that is pointed at; null for a key that leads nowhere.
  moved(key, isShift) {
    const [count, at] = [this.bytes.length, Math.min(this.at ?? 0, this.bytes.length)];
    const cell = this.cells[at] ?? this.cells[at - 1];
    if (!cell) return null;
    const forward = { ArrowRight: cell.isRtl ? -1 : 1, ArrowLeft: cell.isRtl ? 1 : -1 }[key];
    if (forward && isShift) {
      const starts = this.result?.stages.flatMap((stage) => stage.starts).sort((a, b) => a - b) ?? [];
      return (forward > 0 ? starts.find((s) => s > at) : starts.findLast((s) => s < at)) ?? (forward > 0 ? count : 0);
    }
    if (forward) return Math.min(Math.max(at + forward, 0), count);
    if (key === 'Home') return 0;
    if (key === 'End') return count;
    const row = cell.row + { ArrowUp: -1, ArrowDown: 1 }[key];
    return this.rows[row] ? this.nearest(row, (cell.left + cell.right) / 2) : null;
  }
}
