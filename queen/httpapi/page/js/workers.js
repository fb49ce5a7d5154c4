// All workers, searched, filtered and sorted by the queen.
import { ageEl, attr, h, say, setAge } from './dom.js';
import { Filters } from './filters.js';
import { trouble } from './frame.js';
import { List, rowsOf } from './list.js';
import * as parts from './parts.js';
import { amend, workerLink } from './route.js';
import { LIVES, STATES, both, clip, count, gib, quiet } from './text.js';

const COLUMNS = [
  { name: 'Verdict', sort: 'live', cls: 'c-live' }, { name: 'Worker', sort: 'id', cls: 'c-name' }, { name: 'Model', sort: 'model', cls: 'c-model' },
  { name: 'State', sort: 'state', cls: 'c-state' }, { name: 'Slots', sort: 'busy', cls: 'c-slots num' }, { name: 'Queue', sort: 'queue', cls: 'c-queue num' },
  { name: 'VRAM GiB', sort: 'vram', cls: 'c-vram num' }, { name: 'Done', sort: 'done', cls: 'c-done num' }, { name: 'Heard', sort: 'age', cls: 'c-age num' },
];

const KEYS = ['text', 'live', 'state', 'zone', 'model', 'selector', 'stalled', 'sort'];

// workerList is a List of workers: those of params, or of one hive.
export function workerList(link, params, { label, empty, loaded, failed }) {
  return new List({
    name: 'worker-rows', label, columns: COLUMNS, row, fill,
    open: (w) => { location.hash = workerLink(w.hive, w.worker); },
    sort: () => params().sort || '', onsort: (sort) => amend({ sort }),
    load: rowsOf(link, 'v1/workers', 'workers', params), empty, loaded, failed,
  });
}

function row() {
  const el = h('div', { role: 'row' });
  const cell = (cls, ...inside) => h('div', { role: 'gridcell', class: `cell ${cls}` }, inside);
  const c = el.hb = {
    live: parts.liveBadge(), hive: h('span', { class: 'of' }), name: h('span'), link: h('a', { tabindex: '-1' }), model: h('span'), state: h('span'),
    slots: h('span'), bar: h('span', { class: 'use', 'aria-hidden': 'true' }, h('i')), queue: h('span'), vram: h('span'), done: h('span'), age: ageEl(),
  };
  c.link.append(c.hive, c.name);
  el.append(cell('c-live', c.live), cell('c-name', c.link), cell('c-model', c.model), cell('c-state', c.state), cell('c-slots num', c.bar, c.slots),
    cell('c-queue num', c.queue), cell('c-vram num', c.vram), cell('c-done num', c.done), cell('c-age num', c.age));
  return el;
}

function fill(el, w, at) {
  const c = el.hb;
  const silence = quiet(w);
  parts.setLive(c.live, silence && w.live === 'late' ? 'quiet' : w.live, w.fresh);
  if (silence) attr(c.live, 'title', silence);
  el.classList.toggle('stale', !w.fresh);
  // What the dead said last of their work says nothing now.
  const gone = w.live === 'lost' || w.live === 'left';
  el.classList.toggle('gone', gone);
  say(c.hive, `${w.hive}/`);
  say(c.name, w.worker);
  attr(c.link, 'href', workerLink(w.hive, w.worker));
  say(c.model, clip(w.model || '', 120));
  attr(c.model, 'title', w.model || null);
  say(c.state, clip(w.state || '', 32) + (silence && `, ${silence}`) + (w.stalled ? ', stalled' : '') + (w.looping ? ', looping' : '') + (w.drained ? ', drained' : '') + (w.silenced ? ', silenced' : '') + (w.rival ? ', conflict' : ''));
  attr(c.state, 'title', both(w, 'worker') || null);
  say(c.slots, gone ? '–' : parts.slots(w));
  const use = `${w.slots ? Math.min(100, (100 * (w.busy || 0)) / w.slots).toFixed(0) : 0}%`;
  if (c.bar.firstChild.style.width !== use) c.bar.firstChild.style.width = use;
  c.bar.hidden = !w.slots || gone;
  say(c.queue, w.queue && !gone ? count(w.queue) : '–');
  say(c.vram, w.vram ? gib(w.vram) : '–');
  say(c.done, count(w.done));
  setAge(c.age, w.age, at);
}

export class Workers {
  title = 'Workers';
  #params = new URLSearchParams();

  constructor(link) {
    this.count = h('span', { class: 'aside' });
    this.trouble = h('p', { class: 'trouble' });
    this.trouble.hidden = true;
    this.filters = new Filters([
      { key: 'live', name: 'Verdict', words: LIVES }, { key: 'state', name: 'State', words: STATES },
      { key: 'model', name: 'Model', text: true, hint: '* is any text, ? one character' }, { key: 'zone', name: 'Zone', text: true }, { key: 'selector', name: 'Labels', text: true, hint: 'such as tier=prod,gpu in (a,b),!spot' },
      { key: 'stalled', name: 'Progress', words: ['true'], names: { true: 'Only stalled' } },
    ]);
    this.list = workerList(link, this.#ask, {
      label: 'Workers',
      empty: () => (KEYS.some((k) => k !== 'sort' && this.#params.get(k)) ? 'No worker fits this search.' : 'No worker has been heard yet. Start one with: hivebeat worker'),
      loaded: (total, exact) => say(this.count, `${exact ? '' : 'at least '}${count(total)}`),
      failed: (e) => trouble(this.trouble, e),
    });
    this.el = h('section', { class: 'all' }, h('div', { class: 'bar-of' }, h('h1', {}, 'Workers ', this.count), this.filters.el), this.trouble, this.list.el);
  }

  #ask = () => Object.fromEntries(KEYS.map((k) => [k, this.#params.get(k)]).filter(([, v]) => v));

  async update(route) {
    this.#params = route.params;
    this.filters.set(route.params);
    this.list.clear();
    return this.refresh();
  }

  async refresh() {
    try {
      await this.list.refresh();
      trouble(this.trouble, null);
      return true;
    } catch (err) {
      if (err.name !== 'AbortError') trouble(this.trouble, err);
      return false;
    }
  }

  answer() {}
  close() { this.list.close(); }
}
