// The view as a picture or as data.

import { GLYPH, SVG, set } from './picture.js';
import { element, page, stepOf, title } from './page.js';

export function save(name, blob) {
  const link = element('a', { download: name, href: URL.createObjectURL(blob) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function svg() {
  const made = document.createElementNS(SVG, 'svg');
  let [y, width] = [8, 0];
  for (const column of page.shown) {
    if (!column.picture.drawing) continue;
    const heading = made.appendChild(document.createElementNS(SVG, 'text'));
    heading.textContent = `${title(column.spec)}: ${[...column.legend.children].map((c) => c.textContent).join('; ')}`;
    set(heading, { x: 4, y: y + 14, fill: 'var(--dim)', 'font-size': 13 });
    const part = drawn(column.picture);
    part.group.setAttribute('transform', `translate(0 ${y + 20})`);
    made.append(part.group);
    y += 20 + part.height + 10;
    width = Math.max(width, part.width, 7 * heading.textContent.length);
  }
  const style = getComputedStyle(page.shown[0]?.text ?? document.body);
  set(made, { width, height: y, 'font-family': style.fontFamily, 'font-size': style.fontSize });
  const ground = document.createElementNS(SVG, 'rect');
  set(ground, { width, height: y, fill: 'var(--page)' });
  made.prepend(ground);
  const root = getComputedStyle(document.documentElement);
  for (const node of made.querySelectorAll('[fill], [stroke]')) {
    for (const name of ['fill', 'stroke']) {
      const variable = /^var\((.*)\)$/.exec(node.getAttribute(name) ?? ''); // other programs know none of a page's style
      if (variable) node.setAttribute(name, root.getPropertyValue(variable[1]).trim());
    }
  }
  return { source: new XMLSerializer().serializeToString(made), width, height: y };
}

// The drawing with its glyphs as SVG elements.
function drawn(picture) {
  const group = document.createElementNS(SVG, 'g');
  const under = picture.drawing.cloneNode(true);
  under.lastChild.remove(); // what is pointed at
  group.append(...under.childNodes);
  const style = getComputedStyle(picture.element);
  const context = document.createElement('canvas').getContext('2d');
  context.font = style.font;
  const { fontBoundingBoxAscent: ascent, fontBoundingBoxDescent: descent } = context.measureText('x');
  for (const [row, found] of picture.rows.entries()) {
    if (!found) continue;
    const shown = found.map((cluster) => cluster.text.replace(/\n$/, '')).join('');
    const isRtl = paragraphRunsLeft(picture.clusters, picture.clusters.indexOf(found[0]));
    const text = group.appendChild(document.createElementNS(SVG, 'text'));
    const x = isRtl ? Math.max(...found.map((c) => c.right)) : Math.min(...found.map((c) => c.left));
    const y = picture.top(row) + (GLYPH - ascent - descent) / 2 + ascent;
    set(text, { x, y, direction: isRtl ? 'rtl' : 'ltr', fill: 'var(--text)', 'xml:space': 'preserve' });
    text.textContent = shown;
  }
  return { group, width: picture.width, height: picture.height };
}

function paragraphRunsLeft(all, index) {
  while (index > 0 && !all[index - 1].text.endsWith('\n')) index--;
  for (; index < all.length && !all[index].text.endsWith('\n'); index++) {
    if (all[index].isRtl) return true;
    if (!all[index].isEscape && /\p{L}/u.test(all[index].text)) return false;
  }
  return false;
}

export async function png() {
  const { source, width, height } = svg();
  const url = URL.createObjectURL(new Blob([source], { type: 'image/svg+xml' }));
  const image = new Image();
  await new Promise((done, failed) => Object.assign(image, { onload: done, onerror: failed, src: url }));
  const scale = Math.min(2, 16_000 / height);
  const canvas = element('canvas', { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(url);
  return new Promise((done) => canvas.toBlob(done, 'image/png'));
}

export function json() {
  const found = page.shown.map(({ spec, picture: { bytes, continued }, result }) => {
    return { name: spec.name, step: stepOf(spec), bytes: [...bytes], written_from: continued, ...result };
  });
  return JSON.stringify({ link: location.href, columns: found });
}
