// What just happened: the newest events, kept up by the stream.
import { h, keyed, mark, show, say } from './dom.js';
import { dated, eventRow, setEvent } from './parts.js';

const MOST = 200;

// newest merges events by id, the newest first.
export function newest(old, more, most = MOST) {
  const byID = new Map(old.map((e) => [e.id, e]));
  for (const e of more) byID.set(e.id, e);
  return [...byID.values()].sort((a, b) => (b.stream_seq || 0) - (a.stream_seq || 0) || Date.parse(b.time) - Date.parse(a.time)).slice(0, most);
}

// Feed shows the newest events that fit its question.
export class Feed {
  #events = [];
  #missed = 0;
  loaded = false; // what was before the stream began is there

  constructor(link, { params = {}, fits = () => true, most = 40, title = 'Latest events', href = '#/events' } = {}) {
    this.link = link;
    this.opts = { params, fits, most };
    this.list = h('ol', { class: 'events', 'aria-label': title });
    this.note = h('p', { class: 'empty', text: 'The queen remembers no events.' });
    this.lost = h('p', { class: 'trouble' });
    this.el = h('section', { class: 'panel feed' },
      h('h2', {}, title, href ? h('a', { class: 'aside', href, text: 'all events' }) : null), this.lost, this.list, this.note);
    this.note.hidden = this.lost.hidden = true;
  }

  // load asks for what was, unless it is there.
  async load() {
    if (this.loaded) return;
    const { answer, at } = await this.link.get('v1/events', { ...this.opts.params, limit: this.opts.most });
    this.#events = newest(this.#events, dated(answer.events || [], answer.status, at), this.opts.most);
    this.loaded = true;
    this.draw();
  }

  // answer takes what the stream brought.
  answer(a) {
    if (a.missed) this.#missed += a.missed;
    const fit = (a.events || []).filter(this.opts.fits);
    if (fit.length) this.#events = newest(this.#events, dated(fit, a.status, mark()), this.opts.most);
    if (fit.length || a.missed) this.draw();
  }

  draw() {
    keyed(this.list, this.#events, (e) => e.id, eventRow, setEvent);
    show(this.note, this.loaded && !this.#events.length);
    show(this.lost, this.#missed > 0);
    if (this.#missed) say(this.lost, `${this.#missed} events were missed.`);
  }
}
