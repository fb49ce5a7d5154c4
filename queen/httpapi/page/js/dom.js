// Building and changing the page. What comes from the fleet is hostile text: it
// becomes text nodes and attributes that run nothing, never markup, and only what is
// printable of it.
import { age, plain } from './text.js';

// Attributes that the page reads back keep every character.
const shown = (name, value) => (name === 'href' || name === 'value' ? String(value) : plain(value));

// h makes an element. Of props, class and text are what they say, functions under
// on… are listeners, and all others are attributes; null and false leave one out.
export function h(tag, props, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (v === null || v === undefined || v === false) continue;
    if (k === 'class') el.className = v;
    else if (k === 'text') el.textContent = plain(v);
    else if (typeof v === 'function') el.addEventListener(k.slice(2), v);
    else el.setAttribute(k, v === true ? '' : shown(k, v));
  }
  const there = children.flat().filter((c) => c !== null && c !== undefined && c !== false);
  el.append(...there.map((c) => (c instanceof Node ? c : plain(c))));
  return el;
}

// say sets the text of an element, and touches the page only if it is another.
export function say(el, words) {
  const text = plain(words);
  if (el.textContent !== text) el.textContent = text;
}

// attr sets an attribute, or takes it away; it touches the page only if it must.
export function attr(el, name, value) {
  if (value === null || value === undefined || value === false) {
    if (el.hasAttribute(name)) el.removeAttribute(name);
  } else if (el.getAttribute(name) !== shown(name, value)) el.setAttribute(name, shown(name, value));
}

export const show = (el, on) => { if (el.hidden === on) el.hidden = !on; };

// klass sets the whole class of an element.
export function klass(el, name) { if (el.className !== name) el.className = name; }

// keyed makes the children of parent those of items, in their order: children are
// kept, made and removed by key, and only what moved is moved.
export function keyed(parent, items, key, make, fill) {
  const old = parent.hbKeyed || new Map();
  const now = new Map();
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    if (now.has(k)) continue;
    let el = old.get(k);
    if (el) old.delete(k);
    else el = make(item);
    fill(el, item);
    now.set(k, el);
    if (el === at) at = at.nextElementSibling;
    else parent.insertBefore(el, at);
  }
  for (const el of old.values()) el.remove();
  parent.hbKeyed = now;
}

// mark is a moment by both clocks of the browser. The steady one may stand still
// while the machine sleeps, the other may be set: of both, the longer span counts,
// so that nothing is shown younger than it is.
export const mark = () => ({ steady: performance.now(), wall: Date.now() });
export const since = (m) => Math.max(0, performance.now() - m.steady, Date.now() - m.wall);

// ageEl makes an element whose age goes on counting.
export const ageEl = (name = '') => h('span', { class: `age ${name}` });

// setAge says how old something was, and when that was so.
export function setAge(el, ms, at) {
  el.hbAge = ms;
  el.hbAt = at;
  say(el, age(ms + since(at)));
}

const ageing = document.getElementsByClassName('age');

// tickAges lets every age on the page go on.
export function tickAges() {
  for (const el of ageing) if (el.hbAt) say(el, age(el.hbAge + since(el.hbAt)));
}
