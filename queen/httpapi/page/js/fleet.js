// The fleet at a glance: counts, memory, the last hours, hives, what happened.
import { ageEl, attr, h, keyed, klass, say, setAge, show } from './dom.js';
import { Charts } from './charts.js';
import { Feed } from './feed.js';
import { Filters } from './filters.js';
import { trouble } from './frame.js';
import { List, rowsOf } from './list.js';
import * as gpu from './gpu.js';
import * as parts from './parts.js';
import { amend, hiveLink, link as to, workerLink } from './route.js';
import { LIVES, STATES, both, clip, count, gib, gpuCounts, hiveNote, liveClass, liveWords, plural } from './text.js';

const FEW = 24; // so many hives are shown as cards
const CARDS = 200; // at most, where cards are asked for
const WORKERS = 8; // of a card

export class Fleet {
  title = 'Fleet';
  #params = new URLSearchParams();
  #as = '';
  #total = null;
  #list = null;
  #crowd = false; // too many workers to ask for all
  #turn = 0; // an answer to an older question is not shown

  constructor(link) {
    this.link = link;
    this.hero = new Hero();
    this.charts = new Charts(link, ['workers', 'work', 'vram', 'hives']);
    this.feed = new Feed(link);
    this.trouble = h('p', { class: 'trouble' });
    this.trouble.hidden = true;
    this.count = h('span', { class: 'aside' });
    this.filters = new Filters([
      { key: 'live', name: 'Verdict', words: LIVES },
      { key: 'zone', name: 'Zone', text: true },
      { key: 'sort', name: 'Sort', words: ['id', 'live', '-vram_free', 'vram_free', '-workers', '-cpu', '-age'], names: { '': 'By id', live: 'By verdict', '-vram_free': 'Most VRAM free', vram_free: 'Least VRAM free', '-workers': 'Most workers', '-cpu': 'Most CPU', '-age': 'Longest silent' } },
      { key: 'as', name: 'Show', words: ['cards', 'rows'], names: { '': 'Cards or rows', cards: 'Cards', rows: 'Rows' } },
    ]);
    this.cards = h('div', { class: 'cards' });
    this.note = h('p', { class: 'empty' });
    this.note.hidden = true;
    this.place = h('div', {}, this.cards);
    this.el = h('div', { class: 'fleet' },
      h('div', { class: 'wide' }, this.hero.el, this.charts.el,
        h('section', { class: 'hives' }, h('div', { class: 'bar-of' }, h('h2', {}, 'Hives ', this.count), this.filters.el), this.trouble, this.place, this.note)),
      this.feed.el);
  }

  async update(route) {
    this.#params = route.params;
    this.filters.set(route.params);
    const as = route.params.get('as') || '';
    if (as !== this.#as) { this.#as = as; this.#total = null; }
    if (this.#list) this.#list.clear();
    return this.refresh();
  }

  #ask = () => ({
    text: this.#params.get('text'), live: this.#params.get('live'), zone: this.#params.get('zone'),
    sort: this.#params.get('sort'),
  });

  #failed(err) { trouble(this.trouble, err); }

  async refresh() {
    this.charts.load();
    this.feed.load().catch(() => { /* asked again next time */ });
    try {
      if (this.#rows()) await this.#asRows();
      else await this.#asCards();
      trouble(this.trouble, null);
      return true;
    } catch (err) {
      if (err.name !== 'AbortError') this.#failed(err);
      return false;
    }
  }

  #rows() { return this.#as ? this.#as === 'rows' : this.#total !== null && this.#total > FEW; }

  async #asRows() {
    if (!this.#list) {
      this.#list = new List({
        name: 'hive-rows', label: 'Hives', columns: HIVE_COLUMNS, row: hiveRow, fill: fillHive,
        open: (hive) => { location.hash = hiveLink(hive.hive); },
        sort: () => this.#params.get('sort') || '', onsort: (sort) => amend({ sort }),
        load: rowsOf(this.link, 'v1/hives', 'hives', this.#ask),
        empty: () => this.#empty(), failed: (e) => this.#failed(e),
        loaded: (total, exact) => {
          this.#count(total, exact);
          if (exact && !this.#as && total <= FEW) this.#total = total;
        },
      });
      this.place.replaceChildren(this.#list.el);
      this.note.hidden = true;
    }
    await this.#list.refresh();
    if (!this.#rows()) await this.#asCards();
  }

  async #asCards() {
    if (this.#list) { this.#list.close(); this.#list = null; }
    if (this.cards.parentElement !== this.place) this.place.replaceChildren(this.cards);
    const most = this.#as === 'cards' ? CARDS : FEW;
    const turn = ++this.#turn;
    const hives = await this.link.get('v1/hives', { ...this.#ask(), limit: most });
    if (turn !== this.#turn) return;
    const shown = hives.answer.hives || [];
    this.#total = hives.answer.total ?? (hives.answer.next ? shown.length + 1 : shown.length);
    if (this.#rows()) { await this.#asRows(); return; }
    this.#count(this.#total, hives.answer.total !== undefined || !hives.answer.next);
    const workers = await this.#workersOf(shown);
    if (turn !== this.#turn) return;
    const of = Map.groupBy(workers.flatMap(({ answer, at }) => (answer.workers || []).map((w) => ({ w, at }))), ({ w }) => w.hive);
    for (const hive of shown) hive.hbWorkers = of.get(hive.hive) || [];
    keyed(this.cards, shown, (x) => x.hive, card, (el, x) => fillCard(el, x, hives.at));
    show(this.note, !shown.length || this.#total > shown.length);
    say(this.note, shown.length ? `These are the first ${count(shown.length)} of ${count(this.#total)}: show them as rows to see all.` : this.#empty());
  }

  // #workersOf asks for all workers at once where they are few, else for those of
  // each hive that is shown.
  async #workersOf(shown) {
    if (!this.#crowd) {
      const all = await this.link.get('v1/workers', { limit: 1000 });
      if (!all.answer.next) return [all];
      this.#crowd = true;
    }
    if (shown.length > FEW) return [];
    return Promise.all(shown.map((x) => this.link.get(`v1/hives/${encodeURIComponent(x.hive)}/workers`, { limit: 50 })));
  }

  #empty() {
    const asked = ['text', 'live', 'zone'].some((k) => this.#params.get(k));
    return asked ? 'No hive fits this search.' : 'No hive has been heard yet. Start one with: hivebeat hive';
  }

  #count(total, exact) { say(this.count, `${exact ? '' : 'at least '}${count(total)}`); }

  answer(a) {
    if (a.summary) {
      this.hero.set(a.summary);
      this.charts.now(a.summary);
    }
    this.feed.answer(a);
  }

  // again has what was asked for once asked for anew: the stream has a hole.
  again() { this.feed.loaded = false; }

  close() { this.#list?.close(); this.charts.close(); }
}

// Hero is the three panels that can be read from across a room.
class Hero {
  constructor() {
    const panel = (name, ...inside) => {
      const big = h('b');
      const rest = h('span');
      const el = h('section', { class: `panel big ${name.toLowerCase()}`, 'aria-label': name }, h('h2', { text: name }), h('p', { class: 'figure' }, big, rest), inside);
      return { el, big, rest };
    };
    this.hiveTally = parts.tally({ to: (live) => to('', { live }) });
    this.workerTally = parts.tally({ to: (live) => to('workers', { live }) });
    this.stateTally = parts.tally({ state: true, to: (state) => to('workers', { live: 'alive', state }) });
    this.memory = gpu.memoryBar();
    this.gpuStates = h('p', { class: 'muted' });
    this.unknown = h('p', { class: 'trouble' });
    this.hives = panel('Hives', this.hiveTally);
    this.workers = panel('Workers', this.workerTally, this.stateTally);
    this.vram = panel('VRAM', this.memory, this.gpuStates, this.unknown);
    this.el = h('div', { class: 'hero' }, this.hives.el, this.workers.el, this.vram.el);
  }

  set(s) {
    const sum = (counts) => Object.entries(counts || {}).reduce((n, [k, v]) => (k === 'left' ? n : n + v), 0);
    for (const [panel, counts] of [[this.hives, s.hives], [this.workers, s.workers]]) {
      const alive = counts?.alive || 0;
      const missing = sum(counts) - alive; // who left in order is not
      say(panel.big, count(alive));
      say(panel.rest, missing ? `alive, ${count(missing)} missing` : 'alive');
      attr(panel.rest, 'title', missing ? 'Missing: late, unverified or lost; not those that left in order' : null);
    }
    parts.setTally(this.hiveTally, s.hives, LIVES);
    parts.setTally(this.workerTally, s.workers, LIVES);
    parts.setTally(this.stateTally, s.states, STATES);
    const none = !s.vram_total;
    const known = gpu.memoryOfFleet(s);
    const stale = s.vram_stale || 0;
    const old = Object.values(s.gpu_states || {}).reduce((a, b) => a + b, 0) - (s.gpus || 0);
    say(this.vram.big, none ? (old > 0 || stale ? 'not known' : 'no GPU') : gib(known.free));
    say(this.vram.rest, none ? (old > 0 || stale ? '' : 'reported') : `GiB free of ${gib(s.vram_total)} on ${plural(s.gpus, 'GPU')}`);
    show(this.memory, !none);
    gpu.setMemory(this.memory, known);
    const counts = gpuCounts(s.gpu_states);
    show(this.gpuStates, counts !== '');
    say(this.gpuStates, counts && `GPUs: ${counts}`);
    show(this.unknown, stale > 0);
    say(this.unknown, `${gib(stale)} GiB${old > 0 ? ` of ${plural(old, 'GPU')}` : ''} not known`);
  }
}

const HIVE_COLUMNS = [
  { name: 'Verdict', sort: 'live', cls: 'c-live' }, { name: 'Hive', sort: 'id', cls: 'c-name' }, { name: 'Zone', cls: 'c-zone' },
  { name: 'VRAM of each GPU', cls: 'c-bars' }, { name: 'Free GiB', sort: 'vram_free', cls: 'c-free num' },
  { name: 'Workers', sort: 'workers', cls: 'c-workers' }, { name: 'CPU', sort: 'cpu', cls: 'c-cpu num' }, { name: 'Heard', sort: 'age', cls: 'c-age num' },
];

function hiveRow() {
  const el = h('div', { role: 'row' });
  const cell = (cls, ...inside) => h('div', { role: 'gridcell', class: `cell ${cls}` }, inside);
  el.hb = {
    live: parts.liveBadge(), name: h('a', { tabindex: '-1' }), note: h('span', { class: 'of' }), zone: h('span'), bars: h('div', { class: 'mini' }),
    free: h('span'), workers: parts.tally(), cpu: h('span'), age: ageEl(),
  };
  const { live, name, note, zone, bars, free, workers, cpu, age } = el.hb;
  el.append(cell('c-live', live), cell('c-name', name, ' ', note), cell('c-zone', zone), cell('c-bars', bars), cell('c-free num', free),
    cell('c-workers', workers), cell('c-cpu num', cpu), cell('c-age num', age));
  return el;
}

function fillHive(el, x, at) {
  const c = el.hb;
  parts.setLive(c.live, x.live, x.fresh);
  el.classList.toggle('stale', !x.fresh);
  say(c.name, x.hive);
  attr(c.name, 'href', hiveLink(x.hive));
  const note = clip(hiveNote(x), 160);
  say(c.note, note);
  attr(c.note, 'title', note || null);
  say(c.zone, clip(x.zone || '', 40));
  const gpus = x.gpus || [];
  keyed(c.bars, gpus.slice(0, 8), (g) => g.uuid || g.index, gpu.miniBar, gpu.setMini);
  const sum = gpu.memoryOf(gpus);
  say(c.free, !x.fresh ? '' : sum.total ? `${gib(sum.free)} of ${gib(sum.total)}` : gpus.length ? 'not known' : 'no GPU');
  parts.setTally(c.workers, x.workers, LIVES);
  say(c.cpu, !x.fresh || x.host?.cpu === undefined ? '' : `${Math.round(x.host.cpu)} %`);
  setAge(c.age, x.age, at);
}

function card() {
  const el = h('article', { class: 'panel card' });
  const hb = el.hb = {
    live: parts.liveBadge(), name: h('a'), zone: h('span', { class: 'zone' }), age: ageEl(), gpus: h('div', { class: 'gpus' }),
    none: h('p', { class: 'muted' }), host: h('p', { class: 'muted host' }), workers: h('ul', { class: 'workers' }), rest: h('a', { class: 'rest' }),
  };
  el.append(h('header', {}, h('h3', {}, hb.name), hb.live, hb.zone, hb.age), hb.gpus, hb.none, hb.workers, hb.rest, hb.host);
  return el;
}

function fillCard(el, x, at) {
  const c = el.hb;
  klass(el, `panel card ${liveClass(x.live)}${x.fresh ? '' : ' stale'}`);
  parts.setLive(c.live, x.live, x.fresh);
  say(c.name, x.hive);
  attr(c.name, 'href', hiveLink(x.hive));
  say(c.zone, [x.zone && `zone ${clip(x.zone, 30)}`, x.drained && 'drained', x.silenced && 'silenced'].filter(Boolean).join(' · '));
  attr(c.zone, 'title', both(x, 'hive') || null);
  setAge(c.age, x.age, at);
  attr(c.age, 'title', `heard last; ${liveWords(x.live)}`);
  keyed(c.gpus, (x.gpus || []).slice(0, 16), (g) => g.uuid || g.index, gpu.gpuBar, (b, g) => gpu.setGPU(b, g, at, { fresh: x.fresh }));
  show(c.none, !(x.gpus || []).length);
  say(c.none, noGPU(x));
  say(c.host, x.fresh ? hostLine(x.host) : ''); // what it was before it fell silent is none of now
  show(c.host, !!c.host.textContent);
  const order = ({ w }) => (w.live === 'left' ? 2 : w.live === 'alive' ? 1 : 0);
  const workers = [...x.hbWorkers].sort((a, b) => order(a) - order(b) || (a.w.worker < b.w.worker ? -1 : 1));
  keyed(c.workers, workers.slice(0, WORKERS), ({ w }) => w.worker, cardWorker, (li, { w, at: then }) => fillCardWorker(li, w, then));
  const all = Object.values(x.workers || {}).reduce((a, b) => a + b, 0);
  const hidden = Math.max(all, workers.length) - Math.min(workers.length, WORKERS);
  show(c.rest, hidden > 0 || !all);
  attr(c.rest, 'href', hiveLink(x.hive));
  say(c.rest, hidden > 0 ? `${plural(hidden, 'more worker')}` : 'no worker');
}

// noGPU says why a hive shows no GPU: there is none, or it could not be looked at.
export function noGPU(x) {
  const said = x.collect?.gpu;
  return said && said !== 'ok' && said !== 'none' ? `GPUs could not be read: ${clip(said, 160)}` : 'no GPU';
}

export function hostLine(host) {
  const out = [];
  if (host?.cpus) out.push(`CPU ${Math.round(host.cpu || 0)} % of ${host.cpus}`);
  if (host?.mem_total) out.push(`memory ${gib(host.mem_used)} of ${gib(host.mem_total)} GiB`);
  return out.join(' · ');
}

function cardWorker() {
  const li = h('li');
  const c = li.hb = { shape: parts.shape('left'), name: h('a'), model: h('span', { class: 'model' }), word: h('span', { class: 'word' }), slots: h('span', { class: 'slots' }), age: ageEl() };
  li.append(c.shape, h('span', { class: 'id' }, c.name), c.word, c.slots, c.age, c.model);
  return li;
}

function fillCardWorker(li, w, at) {
  const c = li.hb;
  klass(li, liveClass(w.live));
  klass(c.shape, `shape ${liveClass(w.live)}`);
  say(c.name, w.worker);
  attr(c.name, 'href', workerLink(w.hive, w.worker));
  say(c.model, clip(w.model || '', 80));
  attr(c.model, 'title', w.model);
  // The word of the verdict, unless it is well: then its own.
  say(c.word, clip(w.live === 'alive' ? (w.rival ? 'conflict' : w.stalled ? 'stalled' : w.looping ? 'looping' : w.state || 'alive') : w.live, 24));
  say(c.slots, w.live === 'alive' ? parts.slots(w) : '');
  attr(c.slots, 'title', w.slots ? `${w.busy || 0} of ${w.slots} slots in use, ${w.queue || 0} waiting` : null);
  setAge(c.age, w.age, at);
}
