// GPUs: their state, the parts of their memory, their MIG instances.
import { h, ageEl, attr, keyed, klass, say, setAge, show } from './dom.js';
import { actionWords, age, clip, gib, gpuName, gpuState, gpuUsable, gpuWhy } from './text.js';

const PARTS = ['ours', 'orphaned', 'foreign', 'unattributed', 'reserved', 'free'];
const ALWAYS = ['ours', 'foreign', 'free']; // the others are named only where there are any

// memoryParts are the shares of a GPU's or an instance's memory, which add up to its total.
export function memoryParts(g) {
  const p = { total: g.total || 0, ours: g.ours || 0, orphaned: g.orphaned || 0, unattributed: g.unattributed || 0, reserved: g.reserved || 0 };
  p.foreign = Math.max(0, (g.used || 0) - p.ours - p.orphaned - p.unattributed);
  p.free = Math.max(0, p.total - (g.used || 0) - p.reserved);
  return p;
}

// memoryOfFleet are those of a summary.
export const memoryOfFleet = (s) => memoryParts({
  total: s.vram_total, used: s.vram_used, ours: s.vram_ours, orphaned: s.vram_orphaned, unattributed: s.vram_unattributed, reserved: s.vram_reserved,
});

// memoryBar shows who holds a GPU's memory: as lengths with patterns, and in figures.
export function memoryBar({ words = true } = {}) {
  const el = h('div', { class: 'memory' });
  el.hbParts = PARTS.slice(0, -1).map((name) => h('span', { class: name }));
  el.hbBar = h('div', { class: 'bar', role: 'img' }, el.hbParts);
  el.append(el.hbBar);
  if (words) {
    el.hbWords = PARTS.map((name) => h('span', {}, h('i', { class: `swatch ${name}`, 'aria-hidden': 'true' }), `${name} `, h('b')));
    el.append(h('p', { class: 'amounts' }, el.hbWords, h('span', { class: 'unit', text: 'GiB' })));
  }
  return el;
}

export function setMemory(el, p) {
  el.hbParts.forEach((part, i) => {
    const width = `${p.total > 0 ? Math.min(100, (100 * p[PARTS[i]]) / p.total).toFixed(2) : 0}%`;
    if (part.style.width !== width) part.style.width = width;
    show(part, p[PARTS[i]] > 0);
  });
  const some = PARTS.filter((name) => p[name] > 0 || ALWAYS.includes(name));
  attr(el.hbBar, 'aria-label', `${some.map((name) => `${gib(p[name])} GiB ${name}`).join(', ')} of ${gib(p.total)} GiB`);
  attr(el.hbBar, 'title', el.hbBar.getAttribute('aria-label'));
  el.hbWords?.forEach((word, i) => {
    say(word.lastChild, gib(p[PARTS[i]]));
    show(word, some.includes(PARTS[i]));
  });
}

// miniBar is a bar without words, of a row. A GPU whose figures are old has an empty one.
export const miniBar = () => memoryBar({ words: false });
export function setMini(el, g) {
  if (gpuUsable(g)) {
    setMemory(el, memoryParts(g));
    klass(el, 'memory');
    return;
  }
  setMemory(el, memoryParts({}));
  klass(el, 'memory unknown');
  attr(el.hbBar, 'aria-label', clip(gpuWhy(g), 200));
  attr(el.hbBar, 'title', clip(gpuWhy(g), 200));
}

// gpuBar is one GPU: its name, how busy and warm it is, its memory, and what is wrong.
export function gpuBar() {
  const el = h('div', { class: 'gpu' });
  el.hbName = h('span', { class: 'name' });
  el.hbFacts = h('span', { class: 'facts' });
  el.hbWhy = h('p', { class: 'why' });
  el.hbDo = h('p', { class: 'muted' });
  el.hbErr = h('p', { class: 'trouble' });
  el.hbOld = h('p', { class: 'muted' }, h('span'), ageEl(), ' ago');
  el.hbMemory = memoryBar();
  el.hbInstances = h('ul', { class: 'instances' });
  el.append(h('p', { class: 'title' }, el.hbName, el.hbFacts), el.hbWhy, el.hbDo, el.hbMemory, el.hbInstances, el.hbErr, el.hbOld);
  return el;
}

// setGPU fills it. at is when the answer came.
export function setGPU(el, g, at, { all = false, fresh = true } = {}) {
  const state = gpuState(g);
  const usable = fresh && gpuUsable(g); // else its figures are old
  klass(el, `gpu ${usable ? '' : 'bad'}`.trim());
  say(el.hbName, `${g.index || 0} · ${clip(gpuName(g.name), 60)}`);
  attr(el.hbName, 'title', `${g.name || ''} ${g.uuid}`.trim());
  const facts = [];
  if (usable) {
    facts.push(`${g.util || 0} %`);
    if (g.temp) facts.push(`${g.temp} °C`);
    if (all && g.power) facts.push(`${Math.round(g.power / 1000)} W`);
  }
  if (g.unified) facts.push('shares the memory of the machine');
  say(el.hbFacts, facts.join(' · '));
  show(el.hbWhy, state !== 'ok');
  klass(el.hbWhy, `why ${['failing', 'gone'].includes(state) ? 'lost' : 'late'}`);
  say(el.hbWhy, state === 'ok' ? '' : clip(`${state}${all && g.since ? ` for ${age(g.since)}` : ''}${g.evidence || g.cause ? `: ${g.evidence || g.cause}` : ''}`, all ? 300 : 120));
  show(el.hbDo, !!g.action);
  say(el.hbDo, g.action ? `To do: ${clip(actionWords(g.action), 80)}` : '');
  show(el.hbMemory, usable && !!g.total);
  if (usable && g.total) setMemory(el.hbMemory, memoryParts(g));
  keyed(el.hbInstances, all && usable ? g.instances || [] : [], (m) => m.uuid, instance, setInstance);
  show(el.hbInstances, el.hbInstances.childElementCount > 0);
  const orphan = usable && g.orphaned && g.orphan_of ? `orphan of ${clip(g.orphan_of, 64)}: ${gib(g.orphaned)} GiB` : '';
  const err = g.err && g.err !== g.evidence ? clip(g.err, 200) : orphan || (usable && !g.total ? 'its memory is not known' : '');
  show(el.hbErr, err !== '');
  say(el.hbErr, err);
  show(el.hbOld, !usable && !!g.age);
  say(el.hbOld.firstChild, `${g.total ? `${gib(g.total)} GiB, ` : ''}last read `);
  setAge(el.hbOld.children[1], g.age || 0, at);
}

// instance is a MIG instance, on a line of its own.
function instance() {
  const el = h('li', {}, h('span', { class: 'name' }), miniBar(), h('span', { class: 'free' }));
  [el.hbName, el.hbBar, el.hbFree] = el.children;
  return el;
}

function setInstance(el, m) {
  const p = memoryParts(m);
  say(el.hbName, `MIG ${clip(m.profile || 'instance', 64)}`);
  attr(el.hbName, 'title', m.uuid);
  setMemory(el.hbBar, p);
  say(el.hbFree, `${gib(p.free)} of ${gib(p.total)} GiB free`);
}

// memoryOf adds up the GPUs of a hive whose figures are current.
export function memoryOf(gpus) {
  const sum = Object.fromEntries(['total', ...PARTS].map((name) => [name, 0]));
  for (const g of (gpus || []).filter(gpuUsable)) {
    for (const [name, bytes] of Object.entries(memoryParts(g))) sum[name] += bytes;
  }
  return sum;
}
