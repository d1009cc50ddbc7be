// The view as a picture or as data.

import { set } from './picture.js';
import { element, page, stepOf, title } from './page.js';

export function save(name, blob) {
  const link = element('a', { download: name, href: URL.createObjectURL(blob) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function svg() {
  const made = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  let [y, width] = [8, 0];
  for (const column of page.shown) {
    if (!column.picture.drawing) continue;
    const heading = made.appendChild(document.createElementNS(made.namespaceURI, 'text'));
    heading.textContent = `${title(column.spec)}: ${[...column.legend.children].map((c) => c.textContent).join('; ')}`;
    set(heading, { x: 4, y: y + 14, fill: 'var(--dim)', 'font-size': 13 });
    const part = column.picture.svg();
    part.group.setAttribute('transform', `translate(0 ${y + 20})`);
    made.append(part.group);
    y += 20 + part.height + 10;
    width = Math.max(width, part.width, 7 * heading.textContent.length);
  }
  const style = getComputedStyle(page.shown[0]?.text ?? document.body);
  set(made, { width, height: y, 'font-family': style.fontFamily, 'font-size': style.fontSize });
  const ground = document.createElementNS(made.namespaceURI, 'rect');
  set(ground, { width, height: y, fill: 'var(--page)' });
  made.prepend(ground);
  const root = getComputedStyle(document.documentElement);
  const source = new XMLSerializer().serializeToString(made);
  // Other programs know no variables of a page's style.
  const plain = source.replace(/var\((--\w+)\)/g, (_, name) => root.getPropertyValue(name).trim());
  return { source: plain, width, height: y };
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
