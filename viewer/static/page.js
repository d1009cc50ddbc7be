// What all parts of the page share.

export const byId = (id) => document.getElementById(id);
export const OPTIONS = ['max_bytes', 'temperature', 'seed'];
export const WAIT = 60; // ms of no typing before a text is sent

// about: columns.json. state: {sample, at, columns: [{name, step, from, continued}]}; step null is the newest, from the
// step that boundaries are compared with or null. shown: of each of these columns its elements and results.
export const page = { about: null, state: null, shown: [] };

export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const known = (name) => page.about.columns.find((column) => column.name === name);
export const stepOf = ({ name, step }) => step ?? known(name).steps.at(-1) ?? null;
export const title = (column) => (stepOf(column) === null ? column.name : `${column.name} at step ${stepOf(column)}`);

export function say(message, isError = false) {
  byId('message').textContent = message;
  byId('message').classList.toggle('error', isError);
}
