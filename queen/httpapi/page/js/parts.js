// The parts that several views are made of: verdicts, counts, events.
import { h, ageEl, attr, klass, say, setAge, show } from './dom.js';
import { hiveLink, workerLink } from './route.js';
import { actionWords, clip, count, eventClass, eventWords, liveClass, percent } from './text.js';

export const shape = (name) => h('span', { class: `shape ${name}`, 'aria-hidden': 'true' });

// liveBadge is the shape and the word of a verdict.
export function liveBadge() {
  const el = h('span', { class: 'live' }, shape('left'), h('span', { class: 'word' }));
  el.hbShape = el.firstChild;
  el.hbWord = el.lastChild;
  return el;
}

export function setLive(el, live, fresh = true) {
  klass(el, `live ${liveClass(live)}`);
  klass(el.hbShape, `shape ${liveClass(live)}`);
  say(el.hbWord, clip(live || 'unknown', 32));
  attr(el, 'title', fresh ? null : 'Its facts are too old to be used');
}

// tally is the counts by verdict, each with its shape and word.
export function tally(href) {
  const el = h('p', { class: 'tally' });
  el.hbHref = href;
  return el;
}

export function setTally(el, counts, order) {
  const words = [...order, ...Object.keys(counts || {}).filter((k) => !order.includes(k)).sort()];
  const key = JSON.stringify([words, counts]);
  if (el.hbKey === key) return;
  el.hbKey = key;
  el.replaceChildren(...words.filter((w) => counts?.[w]).map((w) => {
    const name = liveClass(w);
    const inside = [el.hbHref?.state ? null : shape(name), h('b', { text: count(counts[w]) }), ` ${clip(w, 32)}`];
    const href = el.hbHref?.to(w);
    return href ? h('a', { class: `live ${el.hbHref.state ? 'state' : name}`, href }, inside) : h('span', { class: `live ${name}` }, inside);
  }));
}

// slots says how busy a worker is.
export const slots = (w) => (w.slots ? `${count(w.busy)}/${count(w.slots)}` : w.busy ? count(w.busy) : '');

// eventRow is one event: whom it happened to, what, why, and how long ago.
export function eventRow() {
  const el = h('li', { class: 'event' });
  el.hbShape = shape('note');
  el.hbWho = h('a', { class: 'name' });
  el.hbWhat = h('span', { class: 'what' });
  el.hbAge = ageEl();
  el.hbWhy = h('p', { class: 'why' });
  el.append(el.hbShape, h('div', { class: 'tale' }, h('p', {}, el.hbWho, ' ', el.hbWhat), el.hbWhy), el.hbAge);
  return el;
}

export function setEvent(el, e) {
  const d = e.data || {};
  const name = eventClass(d);
  klass(el, `event ${name}`);
  klass(el.hbShape, `shape ${name}`);
  say(el.hbWho, d.worker ? `${d.hive}/${d.worker}` : d.hive || 'the fabric');
  attr(el.hbWho, 'href', d.worker ? workerLink(d.hive, d.worker) : d.hive ? hiveLink(d.hive) : '#/events');
  say(el.hbWhat, eventWords(d));
  const why = [d.reason && clip(d.reason, 160), d.action && `to do: ${clip(actionWords(d.action), 80)}`, d.model && d.kind !== 'state' && clip(d.model, 80)].filter(Boolean).join(' · ');
  show(el.hbWhy, why !== '');
  say(el.hbWhy, why);
  attr(el.hbAge, 'title', `${new Date(e.time).toLocaleString('en-GB')}, by the clock of the queen that published it`);
  setAge(el.hbAge, e.hbAgo, e.hbAt);
}

// dated gives each event its age: by the queen's clock, at the time of the answer.
export function dated(events, status, at) {
  const now = Date.parse(status.as_of);
  for (const e of events) {
    e.hbAgo = Math.max(0, now - Date.parse(e.time)) || 0;
    e.hbAt = at;
  }
  return events;
}

export const share = (part, all) => `${percent(part, all)} %`;
