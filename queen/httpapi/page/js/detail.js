// One hive, one worker: all that is known, and its history.
import { ageEl, attr, h, keyed, say, setAge, show } from './dom.js';
import { Charts } from './charts.js';
import { Feed } from './feed.js';
import { hostLine, noGPU } from './fleet.js';
import { trouble } from './frame.js';
import * as gpu from './gpu.js';
import * as parts from './parts.js';
import { hiveLink } from './route.js';
import { LIVES, age, both, cause, clip, count, day, gib, gpuNote, gpuWhy, hiveNote, liveWords, plural, quiet } from './text.js';
import { workerList } from './workers.js';

// Facts is a list of names and values; what has no value is left out.
class Facts {
  constructor(title) {
    this.list = h('dl', { class: 'facts' });
    this.el = h('section', { class: 'panel' }, h('h2', { text: title }), this.list);
  }

  set(facts) {
    const some = facts.filter(([, v]) => v !== '' && v !== null && v !== undefined && v !== false);
    keyed(this.list, some, ([k]) => k, ([k]) => h('div', {}, h('dt', { text: clip(k, 64) }), h('dd')), (el, [, v]) => {
      const dd = el.lastChild;
      if (typeof v === 'object') {
        if (!dd.firstElementChild) dd.append(ageEl(), h('span'));
        setAge(dd.firstChild, v.age, v.at);
        say(dd.lastChild, v.words || '');
      } else say(dd, String(v));
    });
    show(this.el, some.length > 0);
  }
}

const SOURCES = { gpu: 'GPUs', procs: 'GPU processes', os: 'worker processes' };
const bytes = (n) => (n ? `${gib(n)} GiB` : '');
const disk = (free, total) => (total ? `${gib(free)} of ${gib(total)} GiB free` : '');
const began = (us) => (us ? day(us / 1000) : '');
const runs = (p) => [p.host && `host ${clip(p.host)}`, p.pid && `pid ${p.pid}`, p.conn && `connection ${clip(p.conn)}`, p.addr && `from ${clip(p.addr)}`].filter(Boolean).join(', ');
const conflict = (what, rival, believed, refused) => `two ${what} beat with this id: stop one, or give it another id${rival ? `. The refused one began ${began(rival)}` : ''}${refused ? ` (${runs(refused)}); the other one: ${runs(believed)}` : ''}`;

// Detail is what the pages of a hive and of a worker share.
class Detail {
  constructor(link, { crumbs, name, feed, kind }) {
    this.link = link;
    this.kind = kind;
    this.live = parts.liveBadge();
    this.sentence = h('p', { class: 'sentence' });
    this.trouble = h('p', { class: 'trouble' });
    this.trouble.hidden = true;
    this.feed = new Feed(link, { ...feed, title: 'History' });
    this.body = h('div', { class: 'wide' });
    this.el = h('div', { class: 'fleet detail' },
      h('div', { class: 'heading' }, h('nav', { class: 'crumbs', 'aria-label': 'Breadcrumbs' }, crumbs),
        h('h1', {}, h('span', { text: name }), this.live), this.sentence, this.trouble), this.body, this.feed.el);
  }

  // again has what was asked for once asked for anew: the stream has a hole.
  again() { this.feed.loaded = false; }

  update() { return this.refresh(); }

  async refresh() {
    this.feed.load().catch(() => { /* asked again next time */ });
    try {
      await this.load();
      trouble(this.trouble, null);
      return true;
    } catch (err) {
      if (err.name === 'AbortError') return false;
      if (err.code === 'not_found') {
        show(this.trouble, true);
        say(this.trouble, `The queen no longer knows this ${this.kind}. Below is its last known state.`);
      } else trouble(this.trouble, err);
      return false;
    }
  }

  // told says a verdict in a sentence whose age goes on.
  told(x, at, what) {
    const silence = quiet(x);
    const live = silence && x.live === 'late' ? 'quiet' : x.live;
    parts.setLive(this.live, live, x.fresh);
    if (!this.sentence.firstChild) this.sentence.append(h('span'), ageEl(), h('span'));
    const [before, old, after] = this.sentence.children;
    const word = clip(live || 'unknown', 32);
    say(before, `${word[0].toUpperCase()}${word.slice(1)} for ${age(silence ? x.age : x.since)}: ${silence || clip(cause(x.cause), 32) || liveWords(x.live)}. Last heard `);
    setAge(old, x.age, at);
    say(after, ` ago; it ${what}.${x.fresh ? '' : ' Its facts are too old to be used.'}`);
  }

  answer(a) { this.feed.answer(a); }
  close() {}
}

export class Hive extends Detail {
  #params = new URLSearchParams();

  constructor(link, route) {
    const { hive } = route;
    super(link, {
      kind: 'hive', name: hive, crumbs: [h('a', { href: '#/', text: 'Fleet' }), ' / ', h('span', { text: hive })],
      feed: { params: { hive }, fits: (e) => e.data?.hive === hive, most: 60, href: `#/events?hive=${encodeURIComponent(hive)}` },
    });
    this.hive = hive;
    this.title = clip(hive, 64);
    this.gpus = h('div', { class: 'gpus' });
    this.none = h('p', { class: 'muted' });
    this.gpuPanel = h('section', { class: 'panel' }, h('h2', { text: 'GPUs' }), this.gpus, this.none);
    this.machine = new Facts('Machine');
    this.state = new Facts('Beating');
    this.stats = new Facts('Counters of the hive');
    this.labels = new Facts('Labels');
    this.charts = new Charts(link, ['work', 'vram', 'cpu', 'memory'], { hive, most: 6 });
    this.count = parts.tally();
    this.workers = workerList(link, () => ({ hive, sort: this.#params.get('sort') }), {
      label: `Workers of ${hive}`, empty: () => 'This hive has no worker.', failed: (e) => trouble(this.trouble, e),
    });
    this.body.append(this.gpuPanel, this.charts.el,
      h('section', {}, h('div', { class: 'bar-of' }, h('h2', {}, 'Workers '), this.count), this.workers.el),
      h('div', { class: 'columns' }, this.state.el, this.machine.el, this.stats.el, this.labels.el));
  }

  async update(route) {
    this.#params = route.params;
    this.workers.clear();
    return this.refresh();
  }

  async load() {
    this.charts.load();
    const [{ answer, at }] = await Promise.all([this.link.get(`v1/hives/${encodeURIComponent(this.hive)}`), this.workers.refresh()]);
    const x = answer.hives[0];
    this.told(x, at, `promises a snapshot every ${age(x.every)}`);
    keyed(this.gpus, x.gpus || [], (g) => g.uuid || g.index, gpu.gpuBar, (el, g) => gpu.setGPU(el, g, at, { all: true, fresh: x.fresh }));
    show(this.none, !(x.gpus || []).length);
    say(this.none, noGPU(x));
    parts.setTally(this.count, x.workers, LIVES);
    const host = x.host || {};
    this.state.set([
      ['operator', clip(hiveNote({ ...x, fresh: false }), 400)], ['zone', x.zone], ['running since', began(x.inc)], ['snapshot', count(x.seq)], ['warm', x.warm ? 'yes' : 'no: the absence of a worker is not evidence yet'],
      ['conflict', x.conflict ? conflict('hives', x.rival, x.believed, x.refused) : ''], ['goodbye', clip(x.bye || '', 256)], ['held VRAM', bytes(x.held)], ['free at one place', bytes(x.free_vram)],
      ['announced by loading workers', bytes(x.loading)], ['VRAM budget', bytes(x.vram_budget)], ['VRAM not known', bytes(x.vram_stale)], ['GPUs not ok', clip(gpuNote(x.gpus), 300)],
      ...Object.entries(x.collect || {}).map(([k, v]) => [`reads ${SOURCES[k] ?? k}`, clip(v, 256)]),
    ]);
    this.machine.set([
      ['name', clip(host.name || '', 256)], ['system', clip([host.os, host.arch].filter(Boolean).join(' '), 256)], ['load', hostLine(host)],
      ['load average', host.load1 ? host.load1.toFixed(2) : ''], ['up for', host.uptime ? age(host.uptime * 1000) : ''],
      ['kernel', clip(host.kernel || '', 256)], ['GPU driver', clip(host.driver || '', 256)], ['model cache', disk(host.cache_free, host.cache_total)], ['store', disk(host.store_free, host.store_total)],
    ]);
    const s = x.stats || {};
    this.stats.set([
      ['beats accepted', count(s.beats)], ['refused', s.refused && count(s.refused)], ['replayed or late', s.stale && count(s.stale)], ['lost on the wire', s.wire_lost && count(s.wire_lost)],
      ['falsely dead', s.false_dead && count(s.false_dead)], ['cut off', s.cut_off && count(s.cut_off)], ['paused', s.self_pause && age(s.self_pause)],
    ]);
    this.labels.set(Object.entries(x.labels || {}).map(([k, v]) => [k, clip(v, 128)]));
  }

  close() { this.workers.close(); this.charts.close(); }
}

export class Worker extends Detail {
  constructor(link, { hive, worker }) {
    super(link, {
      kind: 'worker', name: worker,
      crumbs: [h('a', { href: '#/', text: 'Fleet' }), ' / ', h('a', { href: hiveLink(hive), text: hive }), ' / ', h('span', { text: worker })],
      feed: { params: { hive, worker }, fits: (e) => e.data?.hive === hive && e.data?.worker === worker, most: 100, href: `#/events?hive=${encodeURIComponent(hive)}&worker=${encodeURIComponent(worker)}` },
    });
    Object.assign(this, { hive, worker, title: clip(worker, 64) });
    this.serves = new Facts('Serves');
    this.says = new Facts('Reported by the worker');
    this.judged = new Facts('Judged');
    this.process = new Facts('Reported by the system');
    this.labels = new Facts('Labels');
    this.body.append(h('div', { class: 'columns' }, this.serves.el, this.says.el, this.judged.el, this.process.el, this.labels.el));
  }

  async load() {
    const { answer, at } = await this.link.get(`v1/hives/${encodeURIComponent(this.hive)}/workers/${encodeURIComponent(this.worker)}`);
    const w = answer.workers[0];
    this.told(w, at, `promises a beat every ${age(w.every)}`);
    this.serves.set([
      ['model', clip(w.model || '', 256)], ['endpoint', clip(w.endpoint || '', 512)], ['slots', w.slots ? `${count(w.busy)} of ${count(w.slots)} in use` : ''],
      ['held slots', w.held && count(w.held)], ['queue', count(w.queue)], ['done', count(w.done)], ['progress', w.stalled ? 'stalled: busy, but makes none' : ''],
      ['pace', [w.rate && `${w.rate} requests a second`, w.tps && `${w.tps} tokens a second`].filter(Boolean).join(', ')],
      ['KV cache', w.kv === undefined ? (w.kv_cap ? `${count(w.kv_cap)} tokens` : '') : `${Math.round(w.kv * 100)} %${w.kv_cap ? ` of ${count(w.kv_cap)} tokens` : ''} in use`],
      ['context', w.ctx && `${count(w.ctx)} tokens`], ['engine', clip(`${w.engine || ''} ${w.ver || ''}`.trim(), 130)], ['engine asked', w.probed ? { age: w.age + w.probed, at, words: ' ago' } : ''],
      ['adapters', w.lora ? clip([...(w.lora.on || []), ...(w.lora.wait || []).map((n) => `${n} (requests wait)`)].join(', '), 512) : ''],
      ['on disk', clip((w.cold || []).join(', '), 1024)],
    ]);
    this.says.set([
      ['state', clip(w.state || '', 32)], ['reason', clip(w.reason || '', 256)], ['process ended with', clip(w.exit || '', 64)], ['VRAM', bytes(w.vram)], ['silence announced', w.quiet && age(w.quiet)], ['running since', began(w.inc)], ['restarts in the last hour', w.restarts && `${count(w.restarts)}${w.looping ? ', looping' : ''}`], ['process', w.pid], ['host', clip(w.host || '', 256)], ['connection', clip(w.conn || '', 128)],
      ['GPUs', (w.gpus || []).map((g) => clip(g, 64)).join(', ')], ['VRAM once loaded', bytes(w.need)], ['opaque data', w.data ? `${count(Math.floor(w.data.length * 0.75))} bytes` : ''],
    ]);
    this.judged.set([
      ['conflict', w.rival ? conflict('processes', w.rival, w, w.rival_at) : ''], ['operator', clip(both(w, 'worker'), 400)], ['its GPU', w.gpu_fault ? clip(gpuWhy(w.gpu_fault), 400) : ''], ['memory', clip(w.memory_conflict || '', 256)], ['by', w.via === 'queen' ? 'the queen: its hive is lost' : 'its hive'], ['verdict', `${w.live}${w.cause ? `: ${cause(w.cause)}` : ''}`], ['since', { age: w.since, at }], ['last heard', { age: w.age, at, words: ' ago' }],
      ['beats missed', w.missed && count(w.missed)], ['beat', count(w.seq)], ['transitions', count(w.n)], ['zone', w.zone],
    ]);
    const os = w.os || {};
    this.process.set([['memory', os.rss ? `${bytes(os.rss)}${os.mem_max ? ` of ${bytes(os.mem_max)} allowed` : ''}` : ''], ['killed for memory', os.oom && plural(os.oom, 'time')],
      ['last fault', clip(w.fault || '', 256)], ['holds memory on', (w.on || []).map((g) => clip(g, 64)).join(', ')],
      ['processes', os.procs && count(os.procs)], ['threads', os.threads && count(os.threads)], ['open files', os.files && count(os.files)], ['read', bytes(os.read)], ['CPU', os.cpu ? `${os.cpu.toFixed(0)} % of one` : ''], ['VRAM', bytes(os.vram)], ['up for', os.up && age(os.up)]]);
    this.labels.set(Object.entries(w.labels || {}).map(([k, v]) => [k, clip(v, 128)]));
  }
}
