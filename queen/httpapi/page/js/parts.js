// The parts that several views are made of: verdicts, memory bars, events.
import { h, ageEl, attr, klass, say, setAge, show } from './dom.js';
import { hiveLink, workerLink } from './route.js';
import { clip, count, eventClass, eventWords, gib, gpuName, liveClass, percent } from './text.js';

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

// memoryBar shows how much of a GPU's memory is held by workers, by others, and
// free: as lengths with patterns, and in figures.
export function memoryBar({ words = true } = {}) {
  const el = h('div', { class: 'memory' });
  el.hbOurs = h('span', { class: 'ours' });
  el.hbForeign = h('span', { class: 'foreign' });
  el.hbBar = h('div', { class: 'bar', role: 'img' }, el.hbOurs, el.hbForeign);
  el.append(el.hbBar);
  if (words) {
    el.hbWords = ['ours', 'foreign', 'free'].map((name) => h('span', {}, h('i', { class: `swatch ${name}`, 'aria-hidden': 'true' }), `${name} `, h('b')));
    el.append(h('p', { class: 'amounts' }, el.hbWords, h('span', { class: 'unit', text: 'GiB' })));
  }
  return el;
}

export function setMemory(el, total, used, ours) {
  const foreign = Math.max(0, used - ours);
  const free = Math.max(0, total - used);
  const width = (part) => `${total > 0 ? Math.min(100, (100 * part) / total).toFixed(2) : 0}%`;
  if (el.hbOurs.style.width !== width(ours)) el.hbOurs.style.width = width(ours);
  if (el.hbForeign.style.width !== width(foreign)) el.hbForeign.style.width = width(foreign);
  attr(el.hbBar, 'aria-label', `${gib(ours)} GiB ours, ${gib(foreign)} GiB foreign, ${gib(free)} GiB free of ${gib(total)} GiB`);
  attr(el.hbBar, 'title', el.hbBar.getAttribute('aria-label'));
  if (el.hbWords) [ours, foreign, free].forEach((n, i) => say(el.hbWords[i].lastChild, gib(n)));
}

// gpuBar is one GPU: its name, how busy and warm it is, and its memory.
export function gpuBar() {
  const el = h('div', { class: 'gpu' });
  el.hbName = h('span', { class: 'name' });
  el.hbFacts = h('span', { class: 'facts' });
  el.hbErr = h('p', { class: 'trouble' });
  el.hbMemory = memoryBar();
  el.append(h('p', { class: 'title' }, el.hbName, el.hbFacts), el.hbMemory, el.hbErr);
  return el;
}

export function setGPU(el, g, { power = false } = {}) {
  say(el.hbName, `${g.index || 0} · ${clip(gpuName(g.name), 60)}`);
  attr(el.hbName, 'title', `${g.name || ''} ${g.uuid}`.trim());
  const facts = [`${g.util || 0} %`];
  if (g.temp) facts.push(`${g.temp} °C`);
  if (power && g.power) facts.push(`${Math.round(g.power / 1000)} W`);
  say(el.hbFacts, facts.join(' · '));
  show(el.hbMemory, !!g.total);
  if (g.total) setMemory(el.hbMemory, g.total, g.used || 0, g.ours || 0);
  show(el.hbErr, !!g.err || !g.total);
  say(el.hbErr, g.err ? clip(g.err, 200) : 'its memory is not known');
}

// memoryOf adds up the GPUs of a hive.
export function memoryOf(gpus) {
  const sum = { total: 0, used: 0, ours: 0 };
  for (const g of gpus || []) {
    sum.total += g.total || 0;
    sum.used += g.used || 0;
    sum.ours += g.ours || 0;
  }
  return sum;
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
  const why = [d.reason && clip(d.reason, 160), d.model && d.kind !== 'state' && clip(d.model, 80)].filter(Boolean).join(' · ');
  show(el.hbWhy, why !== '');
  say(el.hbWhy, why);
  attr(el.hbAge, 'title', `${new Date(e.time).toLocaleString('en-GB')}, by the clock of the queen that told it`);
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
