// The events that the queen remembers, newest first.
import { attr, h, keyed, mark, say, show } from './dom.js';
import { newest } from './feed.js';
import { Filters } from './filters.js';
import { trouble } from './frame.js';
import { dated, eventRow, setEvent } from './parts.js';
import { KINDS, count } from './text.js';

const PAGE = 100;
const MOST = 2_000; // in the page at once

export class Events {
  title = 'Events';
  #params = new URLSearchParams();
  #events = [];
  #next = '';
  #stop = null;

  constructor(link) {
    this.link = link;
    this.count = h('span', { class: 'aside' });
    this.filters = new Filters([
      { key: 'kinds', name: 'Kind', words: KINDS }, { key: 'hive', name: 'Hive', text: true }, { key: 'worker', name: 'Worker', text: true },
    ]);
    this.trouble = h('p', { class: 'trouble' });
    this.list = h('ol', { class: 'events' });
    this.note = h('p', { class: 'empty' });
    this.more = h('button', { type: 'button', class: 'older', text: 'Older events', onclick: () => this.#older() });
    this.trouble.hidden = this.note.hidden = this.more.hidden = true;
    this.el = h('section', { class: 'all narrow' }, h('div', { class: 'bar-of' }, h('h1', {}, 'Events ', this.count), this.filters.el),
      this.trouble, h('div', { class: 'panel' }, this.list, this.note, this.more));
  }

  #ask(after) {
    const ask = { limit: PAGE, after };
    for (const k of ['kinds', 'hive', 'worker']) ask[k] = this.#params.get(k);
    return ask;
  }

  async update(route) {
    this.#params = route.params;
    this.filters.set(route.params);
    this.#events = [];
    this.#next = '';
    await this.#load('');
    return true;
  }

  async refresh() { return true; } // the stream keeps it up

  // again asks anew: the stream has a hole.
  again() { this.#load(''); }

  async #load(after) {
    this.#stop?.abort();
    const stop = this.#stop = new AbortController();
    try {
      const { answer, at } = await this.link.get('v1/events', this.#ask(after), stop.signal);
      this.#events = newest(this.#events, dated(answer.events || [], answer.status, at), MOST);
      this.#next = answer.next || '';
      trouble(this.trouble, null);
      this.#draw();
    } catch (err) {
      if (!stop.signal.aborted) trouble(this.trouble, err);
    }
  }

  async #older() {
    const before = this.#events.length;
    await this.#load(this.#next);
    this.list.children[before]?.querySelector('a')?.focus();
  }

  answer(a) {
    const kinds = this.#params.get('kinds')?.split(',').filter(Boolean) || [];
    const fit = (a.events || []).filter(({ data: d = {} }) => (!kinds.length || kinds.includes(d.kind))
      && (!this.#params.get('hive') || d.hive === this.#params.get('hive'))
      && (!this.#params.get('worker') || d.worker === this.#params.get('worker')));
    if (!fit.length) return;
    this.#events = newest(this.#events, dated(fit, a.status, mark()), MOST);
    this.#draw();
  }

  #draw() {
    keyed(this.list, this.#events, (e) => e.id, eventRow, setEvent);
    say(this.count, `newest ${count(this.#events.length)}`);
    show(this.note, !this.#events.length);
    const asked = ['kinds', 'hive', 'worker'].some((k) => this.#params.get(k));
    say(this.note, asked ? 'No event fits this search.' : 'The queen remembers no events.');
    show(this.more, !!this.#next && this.#events.length < MOST);
    attr(this.list, 'aria-label', 'Events, newest first');
  }

  close() { this.#stop?.abort(); }
}
