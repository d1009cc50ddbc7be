// From bytes to what is seen of them, so that every byte has a place: text as text, the rest as escapes.

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const segmenter = new Intl.Segmenter(undefined, { granularity: 'grapheme' });
const UNSEEN = /^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Default_Ignorable_Code_Point}]$/u;
const RTL = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
const KEYS = { 0x20: '␣', 0x0a: '↵', 0x0d: '␍', 0x09: '⇥', 0xfe: 'begin', 0xff: 'end of text' };

export const toBytes = (text) => encoder.encode(text);
export const toText = (bytes) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
export const fromCodes = (codes) => Uint8Array.from(codes, (code) => code.charCodeAt(0));

export function toCodes(bytes) {
  let codes = '';
  for (let at = 0; at < bytes.length; at += 4096) codes += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return codes;
}

export const hex = (byte) => byte.toString(16).toUpperCase().padStart(2, '0');

// What a model would write next, given as code points 0 to 255.
export function spelled(codes) {
  if (!codes) return 'end of the word';
  if (codes.length > 1) return `“${characters(fromCodes(codes)).map((c) => c.shown ?? hex(c.byte)).join('')}”`;
  const byte = codes.charCodeAt(0);
  return KEYS[byte] ?? (byte > 0x20 && byte < 0x7f ? codes : hex(byte));
}

// The first so many bytes without a part of a character at the end.
export function cutShort(bytes, most) {
  if (bytes.length <= most) return bytes;
  let end = most;
  while (end > 0 && (bytes[end] & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

// [{start, size, shown}], or {start, size: 1, byte} for a byte that is not UTF-8.
export function characters(bytes) {
  const found = [];
  for (let start = 0; start < bytes.length; ) {
    const byte = bytes[start];
    const size = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    try {
      const shown = byte < 0x80 ? String.fromCharCode(byte) : decoder.decode(bytes.subarray(start, start + size));
      if ([...shown].length !== 1) throw new RangeError();
      found.push({ start, size, shown });
      start += size;
    } catch {
      found.push({ start, size: 1, byte });
      start += 1;
    }
  }
  return found;
}

// What is drawn as one: [{start, end, text, isEscape, isRtl}].
export function clusters(bytes) {
  const found = [];
  let run = [];
  const flush = () => {
    let first = 0;
    for (const { segment } of segmenter.segment(run.map((c) => c.shown).join(''))) {
      const count = [...segment].length;
      add(found, segment, run.slice(first, first + count));
      first += count;
    }
    run = [];
  };
  for (const character of characters(bytes)) {
    if (character.shown !== undefined && (character.shown >= ' ' || character.shown === '\t')) {
      run.push(character);
      continue;
    }
    flush();
    add(found, character.shown ?? `\\x${hex(character.byte).toLowerCase()}`, [character]);
  }
  flush();
  return found;
}

function add(found, text, parts) {
  const start = parts[0].start;
  const end = parts.at(-1).start + parts.at(-1).size;
  let [shown, isEscape] = [text, parts[0].shown === undefined];
  if (text === '\n') [shown, isEscape] = ['↵\n', true];
  else if (text !== '\t' && UNSEEN.test(text)) {
    const code = text.codePointAt(0);
    isEscape = true;
    shown = code < 0x100 ? `\\x${hex(code).toLowerCase()}` : `‹U+${code.toString(16).toUpperCase()}›`;
  } else if (/^\p{M}/u.test(text)) shown = `◌${text}`; // a mark with nothing to stand on
  found.push({ start, end, text: shown, isEscape, isRtl: RTL.test(text) });
}
