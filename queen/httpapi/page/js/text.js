// What the page says in words and figures. Everything here is pure.

const GIB = 2 ** 30;
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const count = (n) => whole.format(n || 0);

// plural says "1 worker", "2 workers".
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;

// gib is a number of bytes in GiB, without the unit.
export function gib(bytes) {
  const g = (bytes || 0) / GIB;
  return g >= 1000 ? whole.format(g) : tenths.format(g);
}

export const percent = (part, all) => (all > 0 ? Math.round((100 * part) / all) : 0);

// age is a span in ms as an operator says it: 12s, 3m 20s, 2h 5m, 4d 3h.
export function age(ms) {
  if (!(ms >= 0)) return '';
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s}s`;
  const m = Math.floor(s / 60);
  if (m < 10) return s % 60 ? `${m}m ${s % 60}s` : `${m}m`;
  if (m < 60) return `${m}m`;
  const h = Math.floor(m / 60);
  if (h < 24) return m % 60 ? `${h}h ${m % 60}m` : `${h}h`;
  const d = Math.floor(h / 24);
  return h % 24 ? `${d}d ${h % 24}h` : `${d}d`;
}

// gpuName leaves out what all names share.
export const gpuName = (name) => (name || 'GPU').replace(/^NVIDIA /, '').replace(/^GeForce /, '');

// plain replaces what the browser does not show as a character in its place: controls,
// direction marks, characters of no width and those that are never drawn. They are those
// of internal/plaintext, but for spaces, which do no harm in HTML.
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]/gu;
export const plain = (s) => String(s ?? '').replace(UNPRINTABLE, (c) => (/[\t\n\r]/.test(c) ? ' ' : '\ufffd'));

// clip shortens text that another wrote, so that no view has to bear it whole.
export const clip = (s, n = 120) => (s.length > n ? `${s.slice(0, n - 1)}…` : s);

export const LIVES = ['alive', 'late', 'unverified', 'lost', 'left'];
export const STATES = ['starting', 'loading', 'ready', 'busy', 'degraded', 'draining', 'stopped', 'failed'];
export const KINDS = ['joined', 'state', 'stalled', 'looping', 'late', 'lost', 'recovered', 'left', 'restarted', 'unverified', 'conflict', 'gap', 'brake',
  'gpu-lost', 'gpu-failing', 'gpu-degraded', 'gpu-recovered', 'gpu-orphan', 'gpu-forgotten', 'forgotten', 'drained', 'undrained', 'silenced', 'unsilenced'];

// liveClass is the class of a verdict: a word that is not known counts as late.
export const liveClass = (live) => (LIVES.includes(live) ? live : 'late');

const CAUSES = {
  missed: 'not heard in time',
  silent: 'its process runs, but it is not heard',
  loads: 'not heard, but its process loads',
  exit: 'its process ended',
  oom: 'the kernel killed its process for want of memory',
  disconnect: 'its connection closed',
  hive: 'its hive was lost, and it did not answer',
  goodbye: 'said goodbye',
  oom: 'killed because memory ran out',
};
export const cause = (c) => (Object.hasOwn(CAUSES, c) ? CAUSES[c] : c || '');

// quiet says until when a worker is silent as it announced: empty where it is not, or
// if it was found late or lost in spite of that.
export function quiet(w) {
  const left = (w.quiet || 0) - w.age;
  if (left <= 0 || (w.live !== 'alive' && (w.live !== 'late' || w.cause))) return '';
  return `quiet until ${new Date(Date.now() + left).toTimeString().slice(0, 8)} (${age(left)} left)`;
}

const LIVE_WORDS = {
  alive: 'heard in time',
  late: 'not heard in time, but not given up',
  lost: 'concluded dead',
  left: 'said goodbye',
  unverified: 'known from memory, or held by the brake',
};
export const liveWords = (l) => (Object.hasOwn(LIVE_WORDS, l) ? LIVE_WORDS[l] : 'a verdict that this page does not know');

// gpuState is the state of a GPU. A hive that judges none sends none.
export const gpuState = (g) => g.state || (g.err ? 'unknown' : 'ok');
export const gpuUsable = (g) => ['ok', 'degraded'].includes(gpuState(g));

const ACTIONS = {
  reset: 'reset the GPU',
  reboot: 'reboot the machine',
  drain: 'drain peer-to-peer traffic, then reset the GPU',
  drain_reset: 'let the work end, then reset the GPU',
  replace: 'replace the GPU, then "hivebeat forget" it',
};
export const actionWords = (a) => (Object.hasOwn(ACTIONS, a) ? ACTIONS[a] : a || '');

// gpuWhy says what is wrong with one GPU.
export const gpuWhy = (g) => `GPU ${g.index || 0} ${gpuState(g)}${g.evidence || g.cause ? `: ${g.evidence || g.cause}` : ''}${g.action ? `; to do: ${actionWords(g.action)}` : ''}`;

const BAD_FIRST = ['failing', 'gone', 'unknown', 'degraded'];

// gpuNote says in few words which GPUs of a hive are not ok, worst first.
export function gpuNote(gpus) {
  const by = Map.groupBy((gpus || []).filter((g) => gpuState(g) !== 'ok'), gpuState);
  const words = [...BAD_FIRST, ...[...by.keys()].filter((k) => !BAD_FIRST.includes(k)).sort()];
  return words.filter((w) => by.has(w)).map((w) => {
    const of = by.get(w);
    const what = new Set(of.map((g) => g.action || (w === 'gone' ? '' : g.cause || '')));
    const [short] = what.size === 1 ? what : [''];
    return `${of.length === 1 ? `GPU ${of[0].index || 0}` : plural(of.length, 'GPU')} ${w}${short ? `: ${short}` : ''}`;
  }).join('; ');
}

// imposed says who drained or silenced something, why and for how long: empty if nobody did.
export function imposed(past, d, of) {
  if (!d) return '';
  const whole = d.of === of ? '' : { hive: ' with its hive', gpu: ' with its GPU' }[d.of] || '';
  return `${past}${whole} by ${d.by}${d.reason ? `: ${d.reason}` : ''}${d.left ? `, ${age(d.left)} left` : ''}`;
}

// both says whether something is drained, silenced, or both.
export const both = (x, of) => [imposed('drained', x.drained, of), imposed('silenced', x.silenced, of)].filter(Boolean).join('; ');

// hiveNote says in few words what is drained or silenced of a hive, and which GPUs are not ok.
export const hiveNote = (x) => [both(x, 'hive'), ...(x.gpus || []).filter((g) => x.drained_gpus?.[g.uuid]).map((g) => `GPU ${g.index || 0} ${imposed('drained', x.drained_gpus[g.uuid], 'gpu')}`),
  x.fresh ? gpuNote(x.gpus) : ''].filter(Boolean).join('; ');

// gpuCounts says how many GPUs are in which state, if not all are ok.
export function gpuCounts(states) {
  const words = ['ok', 'degraded', ...BAD_FIRST.slice(0, 3), ...Object.keys(states || {}).filter((k) => k !== 'ok' && !BAD_FIRST.includes(k)).sort()];
  const some = words.filter((w) => states?.[w]);
  return some.every((w) => w === 'ok') ? '' : some.map((w) => `${count(states[w])} ${clip(w, 32)}`).join(', ');
}

// health says how many are not well, or that all are.
export function health(summary) {
  const parts = [];
  const of = (word, counts) => {
    for (const live of ['lost', 'unverified', 'late']) {
      if (counts[live]) parts.push(`${plural(counts[live], word)} ${live}`);
    }
  };
  of('hive', summary.hives || {});
  of('worker', summary.workers || {});
  for (const state of ['failing', 'gone']) {
    if (summary.gpu_states?.[state]) parts.push(`${plural(summary.gpu_states[state], 'GPU')} ${state}`);
  }
  if (parts.length) return `${parts.join(', ')}.`;
  const hives = summary.hives?.alive || 0;
  const workers = summary.workers?.alive || 0;
  if (!hives && !workers) return 'No hive has been heard yet.';
  return `${hives === 1 ? 'The one hive' : `All ${count(hives)} hives`} and ${plural(workers, 'worker')} are alive.`;
}

// illness is the worst verdict that something of the fleet is under: empty if all
// that did not leave in order are alive.
export function illness(summary) {
  for (const live of ['lost', 'unverified', 'late']) {
    if (summary.hives?.[live] || summary.workers?.[live]) return live === 'unverified' ? 'late' : live;
  }
  return summary.gpu_states?.failing || summary.gpu_states?.gone ? 'late' : '';
}

// day writes a moment of Unix ms in the browser's time zone: 2026-11-26 09:30.
export function day(ms) {
  const t = new Date(ms);
  const two = (n) => String(n).padStart(2, '0');
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ${two(t.getHours())}:${two(t.getMinutes())}`;
}

// eventClass is the shape and colour of an event.
export function eventClass(d) {
  switch (d.kind) {
    case 'joined': case 'recovered': case 'gpu-recovered': return 'alive';
    case 'lost': case 'gpu-lost': case 'gpu-failing': return 'lost';
    case 'late': case 'gap': case 'gpu-degraded': case 'gpu-orphan': return 'late';
    case 'left': return 'left';
    case 'unverified': return 'unverified';
    case 'conflict': return 'lost';
    case 'stalled': case 'looping': return d.to === d.kind ? 'late' : 'alive';
    case 'brake': return d.to === 'on' ? 'unverified' : 'alive';
    default: return 'note';
  }
}

// eventWords tells what happened, without the name of whom it happened to.
export function eventWords(d) {
  switch (d.kind) {
    case 'joined': return 'joined';
    case 'state': return d.to ? `says ${d.to}${d.from ? `, was ${d.from}` : ''}` : 'changed its state';
    case 'late': return 'is late';
    case 'lost': return d.cause ? `lost: ${cause(d.cause)}` : 'lost';
    case 'left': return 'left in order';
    case 'recovered': return `recovered${d.from ? `, was ${d.from}` : ''}`;
    case 'restarted': return 'restarted';
    case 'unverified': return 'unverified: the brake holds the verdict';
    case 'conflict': return 'conflict: two processes have this id; stop one, or rename it';
    case 'stalled': return d.to === 'stalled' ? 'stalled: busy, but makes no progress' : 'makes progress again';
    case 'looping': return d.to === 'looping' ? 'looping: it restarts repeatedly' : 'no longer looping';
    case 'gap': return `${plural(d.missing || 0, 'transition')} that can no longer be reported`;
    case 'brake': return `brake ${d.to === 'on' ? 'on' : 'off'}${d.zone ? ` in zone ${d.zone}` : ''}`;
    case 'gpu-lost': return `${gpuOf(d)} is gone`;
    case 'gpu-failing': return `${gpuOf(d)} is failing`;
    case 'gpu-degraded': return `${gpuOf(d)} is degraded`;
    case 'gpu-recovered': return `${gpuOf(d)} can be used again${d.from ? `, was ${d.from}` : ''}`;
    case 'gpu-orphan': return `${gpuOf(d)}: processes of ${d.owner || 'a worker'}, which has ended, still hold memory`;
    case 'gpu-forgotten': return `${gpuOf(d)} is forgotten${d.asker ? `, as ${d.asker} asked` : ''}`;
    case 'drained': return `${d.gpu ? `${gpuOf(d)} is ` : ''}drained${d.asker ? ` by ${d.asker}` : ''}${d.during_ms ? ` for ${age(d.during_ms)}` : ''}`;
    case 'forgotten': return `forgotten${d.asker ? `, as ${d.asker} asked` : ''}`;
    case 'silenced': return `silenced${d.asker ? ` by ${d.asker}` : ''}${d.during_ms ? ` for ${age(d.during_ms)}` : ''}`;
    case 'unsilenced': return `silenced no more${d.asker ? `, as ${d.asker} asked` : ''}`;
    case 'undrained': return `${d.gpu ? `${gpuOf(d)} is ` : ''}drained no more${d.asker ? `, as ${d.asker} asked` : ''}`;
    default: return d.kind || 'something happened';
  }
}

const gpuOf = (d) => `GPU ${d.gpu_index ?? d.gpu ?? ''}`.trim();

// grave says whether an event is worth saying aloud.
export const grave = (d) => ['lost', 'unverified', 'conflict', 'brake', 'stalled', 'looping', 'gpu-lost', 'gpu-failing'].includes(d.kind);
