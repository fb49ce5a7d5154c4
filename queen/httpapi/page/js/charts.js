// Numbers of the last hours, drawn by uPlot.
import { h, say } from './dom.js';
import { clip, count } from './text.js';

// What a chart shows: series with a name, a colour of the theme, and a dash, so
// that no line is told by its colour alone.
const line = (key, name, colour, dash, fill) => ({ key, name, colour, dash, fill });
export const CHARTS = {
  hives: { title: 'Hives', series: [line('hives_alive', 'alive', '--alive'), line('hives_late', 'late', '--late', [2, 3]), line('hives_down', 'lost', '--lost', [6, 4])] },
  workers: { title: 'Workers', series: [line('workers_alive', 'alive', '--alive'), line('workers_late', 'late', '--late', [2, 3]), line('workers_down', 'lost', '--lost', [6, 4])] },
  work: { title: 'Requests', series: [line('busy', 'busy', '--ours', null, true), line('queue', 'queued', '--foreign', [6, 4]), line('slots', 'slots', '--muted', [2, 3])] },
  vram: { title: 'VRAM, GiB', bytes: true, series: [line('vram_ours', 'ours', '--ours', null, true), line('vram_used', 'used', '--foreign', [6, 4]), line('vram_total', 'total', '--muted', [2, 3])] },
  cpu: { title: 'CPU, %', series: [line('cpu', 'used', '--ours', null, true)], most: 100 },
  memory: { title: 'Memory, GiB', bytes: true, series: [line('mem_used', 'used', '--ours', null, true)] },
};

// Steps of an axis: whole numbers, as most of what is counted is whole.
const STEPS = Array.from({ length: 12 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** i)).flat();

const RANGES = [['1h', 1], ['3h', 3], ['6h', 6], ['24h', 24]];

// Charts is a row of charts over one history, of the fleet or of a hive.
export class Charts {
  #plots = [];
  #data = null;
  #now = {}; // of the series that a summary has
  #asked = -Infinity;
  #closed = false;

  constructor(link, names, { hive = '', hours = 3, most = 24 } = {}) {
    this.link = link;
    this.hive = hive;
    this.hours = hours;
    this.note = h('p', { class: 'empty' });
    this.note.hidden = true;
    const ranges = h('div', { class: 'choice', role: 'group', 'aria-label': 'Hours shown' }, RANGES.filter(([, n]) => n <= most).map(([name, n]) => h('button', {
      type: 'button', text: name, 'aria-pressed': String(n === hours),
      onclick: (e) => {
        this.hours = n;
        for (const b of ranges.children) b.setAttribute('aria-pressed', String(b === e.currentTarget));
        this.load(true);
      },
    })));
    this.row = h('div', { class: 'charts' }, names.map((n) => this.#chart(CHARTS[n])));
    this.el = h('section', { class: 'panel history' }, h('h2', {}, 'The last hours', ranges), this.note, this.row);
    this.resized = new ResizeObserver(() => { for (const p of this.#plots) this.#size(p); });
    this.resized.observe(this.row);
    this.recolour = () => this.#draw(true);
    this.dark = matchMedia('(prefers-color-scheme: dark)');
    this.dark.addEventListener('change', this.recolour);
    document.addEventListener('hivebeat-theme', this.recolour);
  }

  close() {
    this.#closed = true;
    this.resized.disconnect();
    this.dark.removeEventListener('change', this.recolour);
    document.removeEventListener('hivebeat-theme', this.recolour);
    for (const p of this.#plots) p.plot?.destroy();
    this.#plots = [];
  }

  #chart(spec) {
    const names = spec.series.map((s) => h('span', { class: `key ${s.dash ? (s.dash[0] > 4 ? 'dashed' : 'dotted') : 'solid'} c${s.colour.slice(2)}` }, `${s.name} `, h('b')));
    const box = h('div', { class: 'plot', role: 'img', 'aria-label': spec.title }); // more is said once it is drawn
    this.#plots.push({ spec, box, names, plot: null });
    return h('figure', { class: 'chart' }, h('figcaption', {}, h('span', { class: 'name', text: spec.title }), h('span', { class: 'keys' }, names)), box);
  }

  // load asks for the history, at most once in 15 s unless it must.
  async load(must = false) {
    if (!must && performance.now() - this.#asked < 15_000) return;
    this.#asked = performance.now();
    let answer;
    try {
      ({ answer } = await this.link.get('v1/history', { hive: this.hive, since: this.hours * 3_600_000 }));
    } catch (err) {
      // What is drawn stays; without any, the panel says why.
      if (!this.#data && !this.#closed) this.#none(`No history: ${clip(err.message, 160)}.`);
      return;
    }
    if (this.#closed) return;
    this.#data = answer.history || null;
    const few = !this.#data || !Object.values(this.#data.series || {}).some((c) => c.some((v) => v !== null));
    if (few) { this.#none('There is no history yet: it starts to fill after a minute.'); return; }
    this.note.hidden = true;
    this.row.hidden = false;
    this.#draw(false);
  }

  // now takes what the queen counts at this moment: a legend says no other number than
  // the rest of the page.
  now(s) {
    const { hives = {}, workers = {} } = s;
    this.#now = {
      hives_alive: hives.alive || 0, hives_late: (hives.late || 0) + (hives.unverified || 0), hives_down: hives.lost || 0,
      workers_alive: workers.alive || 0, workers_late: workers.late || 0, workers_down: workers.lost || 0,
      vram_ours: s.vram_ours, vram_used: s.vram_used, vram_total: s.vram_total,
    };
    this.#legends();
  }

  #legends() {
    if (!this.#data || this.#closed || this.row.hidden) return;
    for (const p of this.#plots) {
      for (const [i, s] of p.spec.series.entries()) {
        const v = this.#now[s.key] ?? (this.#data.series[s.key] || []).at(-1);
        say(p.names[i].lastChild, v === null || v === undefined ? '–' : few(p.spec.bytes ? v / 2 ** 30 : v));
      }
      p.box.setAttribute('aria-label', `${p.spec.title}, last ${this.hours} hours. Now ${p.names.map((n) => n.textContent).join(', ')}.`);
    }
  }

  #none(why) {
    this.note.hidden = false;
    this.row.hidden = true;
    say(this.note, why);
  }

  #columns(spec) {
    const { end, step, series } = this.#data;
    const n = Math.max(0, ...spec.series.map((s) => series[s.key]?.length || 0));
    const x = Array.from({ length: n }, (_, i) => (end - (n - 1 - i) * step) / 1000);
    return [x, ...spec.series.map((s) => {
      const c = series[s.key] || [];
      const pad = Array(n - c.length).fill(null);
      return pad.concat(spec.bytes ? c.map((v) => (v === null ? null : v / 2 ** 30)) : c);
    })];
  }

  #draw(anew) {
    if (!this.#data || this.#closed || this.row.hidden) return;
    for (const p of this.#plots) {
      const data = this.#columns(p.spec);
      if (anew) { p.plot?.destroy(); p.plot = null; }
      if (!p.plot) p.plot = this.#plot(p, data);
      else p.plot.setData(data);
      p.plot.setScale('x', this.#span(data));
    }
    this.#legends();
  }

  // #span is what the time axis shows: the hours asked for, or as much of them as is
  // known, but ten minutes.
  #span([x, ...columns]) {
    const max = this.#data.end / 1000;
    const first = x[x.findIndex((_, i) => columns.some((c) => c[i] !== null))] ?? max;
    return { min: Math.min(Math.max(max - this.hours * 3600, first - this.#data.step / 1000), max - 600), max };
  }

  #plot({ spec, box }, data) {
    const colour = (name) => {
      const probe = h('i', { class: `c${name.slice(2)}` });
      box.append(probe);
      const c = getComputedStyle(probe).color;
      probe.remove();
      return c;
    };
    const axis = {
      stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false },
      font: '11px Inter, system-ui, sans-serif', gap: 4,
    };
    return new uPlot({
      width: Math.max(160, box.clientWidth), height: box.clientHeight || 120, padding: [6, 16, 0, 0], // half a label of the time beside the last
      legend: { show: false }, cursor: { show: false }, select: { show: false },
      scales: { y: { range: (u, min, max) => [0, spec.most || Math.max(1, (max || 0) * 1.1)] } },
      axes: [
        { ...axis, size: 20, space: 60, values: (u, t) => t.map((s) => new Date(s * 1000).toTimeString().slice(0, 5)) },
        { ...axis, size: 44, space: 28, incrs: STEPS, values: (u, t) => t.map((v) => short(v)) },
      ],
      series: [{}, ...spec.series.map((s) => ({
        stroke: colour(s.colour), width: 1.75, dash: s.dash || undefined,
        points: { show: (u, i) => u.data[i].filter((v) => v !== null).length === 1, size: 6, width: 0, fill: colour(s.colour) }, // the first makes no line
        fill: s.fill ? faint(colour(s.colour)) : undefined,
      }))],
    }, data, box);
  }

  #size({ plot, box }) {
    if (plot && box.clientWidth && (plot.width !== box.clientWidth || plot.height !== box.clientHeight)) {
      plot.setSize({ width: box.clientWidth, height: box.clientHeight });
    }
  }
}

const faint = (rgb) => rgb.replace(/^rgb\((.*)\)$/, (_, c) => `rgba(${c.split(/[ ,]+/).join(', ')}, 0.14)`);

// few writes a number of a legend, which has little room.
const few = (v) => (v >= 1_000 ? short(v) : v >= 100 || Number.isInteger(v) ? count(v) : v.toFixed(1));

// short writes a number of an axis in few letters.
export function short(v) {
  for (const [n, unit] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (v >= n) return `${+(v / n).toFixed(1)}${unit}`;
  }
  return String(+v.toFixed(2));
}
