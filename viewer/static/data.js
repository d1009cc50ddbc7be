// Where cuts come from: the server, or what stands in the page itself.

import { fromCodes, toCodes } from './text.js';

const inside = document.getElementById('data');
const given = inside && JSON.parse(inside.textContent);
export const isStatic = given !== null;
const answers = new Map();
const MOST_KNOWN = 64;
const visit = crypto.randomUUID ? crypto.randomUUID() : String(Math.random());
let number = 0;

export async function described() {
  if (given) return given;
  return answered(await asked('columns.json'));
}

// What a column makes of bytes; null where a newer question about the same view has come meanwhile.
export async function cut(name, step, bytes, view) {
  const key = JSON.stringify([name, step, toCodes(bytes)]);
  if (answers.has(key)) return answers.get(key);
  const result = given ? stored(name, step, bytes) : await computed(name, step, bytes, view);
  if (result) answers.set(key, result);
  if (answers.size > MOST_KNOWN) answers.delete(answers.keys().next().value);
  return result;
}

function stored(name, step, bytes) {
  const codes = toCodes(bytes);
  const found = given.cuts.find((c) => c.column === name && c.step === step && given.samples[c.sample].bytes === codes);
  if (!found) throw new Error('this page holds its own texts only: choose one of them');
  return found.result;
}

async function computed(name, step, bytes, view) {
  const query = new URLSearchParams({ column: name, step: step ?? -1, view: visit + view, number: ++number });
  const response = await asked(`cut?${query}`, { method: 'POST', body: bytes, headers: RAW });
  return response.status === 409 ? null : answered(response);
}

// The bytes of a continuation as they come.
export async function* goOn(name, step, bytes, options, signal) {
  const query = new URLSearchParams({ column: name, step: step ?? -1, ...options });
  const response = await asked(`continue?${query}`, { method: 'POST', body: bytes, headers: RAW, signal });
  if (!response.ok) await answered(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ''; ; ) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? '')).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const found = JSON.parse(line);
      if (found.error) throw new Error(found.error);
      yield fromCodes(found.bytes);
    }
    if (done) return;
  }
}

const RAW = { 'content-type': 'application/octet-stream' };

async function asked(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('the server does not answer: has its command ended?');
  }
}

async function answered(response) {
  const values = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(values.error ?? `the server answers ${response.status}`);
  return values;
}
