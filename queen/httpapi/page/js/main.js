// Wires the page: the line, the frame, and the view that the URL names.
import { Events } from './events.js';
import { Fleet } from './fleet.js';
import { Frame } from './frame.js';
import { Hive, Worker } from './detail.js';
import { Link } from './link.js';
import { Workers } from './workers.js';
import { mark, since, tickAges } from './dom.js';
import { amend, hiveLink, parse } from './route.js';

const EVERY = 5_000; // what is in view is asked for at least so often
const SOON = 300; // after something happened, but not more often than
const LATER = 2_000; // after numbers changed
const OLD = 12_000; // a view that was not renewed for so long is dimmed

const VIEWS = { fleet: Fleet, workers: Workers, hive: Hive, worker: Worker, events: Events };

const link = new Link();
const frame = new Frame(link);
const main = document.getElementById('main');
const search = document.getElementById('search');

let view = null;
let key = '';
let summary = null; // the newest answer with one, for a view that comes later
let asked = mark();
let renewed = mark(); // of what is in view
let took = 0;
let due = Infinity; // how old what is in view may grow, in ms
let busy = false;

function show(first = false) {
  const route = parse(location.hash);
  const now = [route.view, route.hive, route.worker].join('\n');
  if (now !== key) {
    key = now;
    view?.close();
    renewed = mark();
    view = new VIEWS[route.view](link, route);
    main.replaceChildren(view.el);
    scrollTo(0, 0);
    if (summary) view.answer(summary);
    if (!first && document.activeElement !== search) main.focus({ preventScroll: true });
  }
  if (document.activeElement !== search) search.value = route.params.get('text') || '';
  frame.view(route.view === 'hive' || route.view === 'worker' ? 'fleet' : route.view, view.title);
  asked = mark();
  renew(view.update(route), asked);
}

// renew notes when what is in view was true, if all of it came.
async function renew(loaded, at) {
  const of = view;
  if (await loaded && of === view) {
    renewed = at;
    main.classList.remove('old');
  }
}

// refresh asks anew for what is in view. A queen that is slow is asked less often.
async function refresh() {
  if (busy || document.hidden || link.cut) return;
  busy = true;
  due = Infinity;
  asked = mark();
  try {
    await renew(view.refresh(), asked);
  } finally {
    took = since(asked);
    busy = false;
  }
}

function tick() {
  tickAges();
  frame.draw();
  main.classList.toggle('old', since(renewed) > OLD);
  const old = since(asked);
  if (old > Math.min(EVERY, Math.max(due, 4 * took))) refresh();
}

link.addEventListener('answer', ({ detail: a }) => {
  frame.answer(a);
  if (a.summary) summary = { status: a.status, summary: a.summary };
  view?.answer(a);
  if (a.resync) view?.again?.();
  due = Math.min(due, a.events?.length || a.gone?.length || a.resync ? SOON : LATER);
});
let wasCut = true;
link.addEventListener('state', () => {
  if (wasCut && !link.cut) { view?.again?.(); refresh(); }
  wasCut = link.cut;
});

addEventListener('hashchange', () => show());
document.addEventListener('visibilitychange', () => { if (!document.hidden) tick(); });
setInterval(tick, 250);

let typing = 0;
search.addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(searchFor, 200);
});
document.getElementById('search-form').addEventListener('submit', (e) => { e.preventDefault(); clearTimeout(typing); searchFor(); });

// A search stays in a list of hives or workers; from elsewhere it goes to the workers.
function searchFor() {
  const text = search.value.trim();
  if (['fleet', 'workers'].includes(parse(location.hash).view)) amend({ text }, { replace: true });
  else if (text) location.hash = `#/workers?text=${encodeURIComponent(text)}`;
}

// The / that leads to the search is not part of it, however long it is held.
let slash = false;
document.addEventListener('keyup', () => { slash = false; });
search.addEventListener('beforeinput', (e) => { if (slash && /^\/+$/.test(e.data || '')) e.preventDefault(); });

document.addEventListener('keydown', (e) => {
  if (e.altKey || e.ctrlKey || e.metaKey || e.isComposing) return;
  const typingNow = e.target.closest?.('input, select, textarea');
  if (e.key === '/' && !typingNow) {
    e.preventDefault();
    slash = true;
    search.focus();
    search.select();
  } else if (e.key === 'Escape') {
    if (typingNow === search) {
      clearTimeout(typing);
      if (search.value) { search.value = ''; searchFor(); } else search.blur();
    } else if (typingNow) typingNow.blur();
    else {
      const { view: at, hive } = parse(location.hash);
      if (at === 'worker') location.hash = hiveLink(hive);
      else if (at === 'hive') location.hash = '#/';
    }
  }
});

show(true);
link.start();
