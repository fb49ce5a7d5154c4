// A list of any length of which only the rows in view are there: they are taken
// from the queen in windows (offset, limit) as the page scrolls.
import { h, attr, mark, show, say } from './dom.js';
import { count } from './text.js';

const MARGIN = 8; // rows made beyond the edges of the view
const AHEAD = 60; // rows asked for beyond them
const KEEP = 400; // rows kept beyond what was asked for last
const MOST = 1000; // a request's limit
const TALLEST = 12_000_000; // px: browsers misplace what is taller
const SORTED = 100_000; // rows that a queen can leave out of a list that is not in the order of ids

// List needs
//   load(offset, limit, signal, after) → {items, total, next, at}
//   row() → element with cells, fill(el, item, at), open(item)
//   columns: [{name, sort, cls}], label, empty(): words
// The sort of a column is turned by onsort(key).
export class List {
  #rows = new Map(); // index → item
  #nodes = new Map(); // index → element
  #spare = [];
  #total = 0;
  #known = false; // the total is exact
  #height = 36;
  #active = 0;
  #wanted = null; // the window being loaded
  #stop = null;
  #timer = 0;
  #frame = 0;
  #closed = false;

  constructor(opts) {
    this.opts = opts;
    this.head = h('div', { class: 'row head', role: 'row', 'aria-rowindex': '1' });
    this.body = h('div', { class: 'rows', role: 'rowgroup' });
    this.note = h('p', { class: 'empty' });
    this.more = h('p', { class: 'more' });
    this.grid = h('div', { class: `grid ${opts.name}`, role: 'grid', 'aria-label': opts.label },
      h('div', { role: 'rowgroup', class: 'headgroup' }, this.head), this.body);
    this.el = h('div', { class: 'list' }, this.grid, this.note, this.more);
    this.#columns();
    this.grid.addEventListener('keydown', (e) => this.#key(e));
    this.body.addEventListener('click', (e) => this.#click(e));
    this.body.addEventListener('focusin', (e) => this.#focused(e));
    this.onscroll = () => { this.#frame ||= requestAnimationFrame(() => { this.#frame = 0; this.draw(); }); };
    addEventListener('scroll', this.onscroll, { passive: true });
    addEventListener('resize', this.onscroll);
    this.note.hidden = this.more.hidden = true;
  }

  close() {
    this.#closed = true;
    removeEventListener('scroll', this.onscroll);
    removeEventListener('resize', this.onscroll);
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#stop?.abort();
  }

  get total() { return this.#total; }
  get exact() { return this.#known; }

  // clear forgets all rows: what is asked for next is another thing.
  clear() {
    this.#stop?.abort();
    this.#stop = this.#wanted = null;
    this.#rows.clear();
    this.#known = false;
    this.#active = 0;
    this.#total = 0;
    this.#columns();
  }

  // refresh asks anew for what is in view.
  refresh() { return this.#load(...this.#window()); }

  #columns() {
    const { columns, sort, onsort } = this.opts;
    const [now, down] = [sort().replace(/^-/, ''), sort().startsWith('-')];
    this.head.replaceChildren(...columns.map((c) => {
      const mine = c.sort && (c.sort === now || (now === '' && c.sort === 'id'));
      const cell = h('div', { role: 'columnheader', class: `cell ${c.cls}` });
      if (!c.sort) cell.append(c.name);
      else {
        cell.setAttribute('aria-sort', mine ? (down ? 'descending' : 'ascending') : 'none');
        cell.append(h('button', {
          type: 'button', text: c.name, title: `Sort by ${c.name.toLowerCase()}`,
          onclick: () => onsort(mine && !down ? `-${c.sort}` : c.sort),
        }));
      }
      return cell;
    }));
  }

  // #end is how many rows can be shown.
  #end() {
    const byID = ['', 'id'].includes(this.opts.sort().replace(/^-/, ''));
    return Math.min(this.#total, Math.floor(TALLEST / this.#height), byID ? Infinity : SORTED);
  }

  // #range is what is in view, as indexes of rows.
  #range() {
    const box = this.body.getBoundingClientRect();
    const top = this.#headHeight();
    const first = Math.floor((top - box.top) / this.#height);
    const last = Math.ceil((innerHeight - box.top) / this.#height);
    const end = this.#end();
    return [Math.max(0, Math.min(first, end - 1)), Math.max(0, Math.min(last, end))];
  }

  #headHeight() { return this.head.getBoundingClientRect().bottom > 0 ? Math.max(0, this.head.getBoundingClientRect().bottom) : 0; }

  #window() {
    if (!this.#total) return [0, Math.ceil(innerHeight / this.#height) + AHEAD];
    const [first, last] = this.#range();
    const offset = Math.max(0, first - AHEAD);
    return [offset, Math.min(MOST, last - offset + AHEAD)];
  }

  async #load(offset, limit) {
    if (this.#closed) return;
    this.#stop?.abort();
    const stop = this.#stop = new AbortController();
    this.#wanted = [offset, offset + limit];
    try {
      const got = await this.opts.load(offset, limit, stop.signal, '');
      // A page may come short, even empty, where few rows fit: a queen looks at 20,000
      // workers for it, and the rest is after its cursor.
      for (let i = 0; got.next && got.items.length < limit && i < 50 && !stop.signal.aborted; i++) {
        const rest = await this.opts.load(0, limit - got.items.length, stop.signal, got.next);
        got.items = got.items.concat(rest.items);
        got.next = rest.next;
      }
      if (stop.signal.aborted || this.#closed) return;
      this.#take(offset, limit, got);
    } catch (err) {
      if (stop.signal.aborted) return;
      throw err;
    } finally {
      if (this.#stop === stop) this.#stop = this.#wanted = null;
    }
  }

  #take(offset, limit, got) {
    const end = offset + got.items.length;
    if (got.total !== undefined && got.total !== null) [this.#total, this.#known] = [got.total, true];
    else if (!got.next) [this.#total, this.#known] = [end, true];
    else if (end >= this.#total) [this.#total, this.#known] = [end + limit, false];
    for (const i of this.#rows.keys()) {
      if (i < offset - KEEP || i >= offset + limit + KEEP || i >= this.#total) this.#rows.delete(i);
    }
    for (let i = 0; i < limit; i++) {
      if (i < got.items.length) this.#rows.set(offset + i, { item: got.items[i], at: got.at });
      else this.#rows.delete(offset + i);
    }
    this.draw();
    this.opts.loaded?.(this.#total, this.#known);
  }

  // draw puts the rows in view where they belong.
  draw() {
    if (this.#closed || !this.el.isConnected) return;
    const row = parseFloat(getComputedStyle(this.grid).getPropertyValue('--row-px')) || 36;
    this.#height = row;
    const end = this.#end();
    const height = `${end * row}px`;
    if (this.body.style.height !== height) this.body.style.height = height;
    attr(this.grid, 'aria-rowcount', this.#known ? this.#total + 1 : -1);
    const [first, last] = this.#range();
    const from = Math.max(0, first - MARGIN);
    const to = Math.min(end, last + MARGIN);
    this.#active = Math.max(0, Math.min(this.#active, end - 1));
    for (const [i, el] of this.#nodes) {
      // The row with the focus stays, or the focus would be lost.
      if ((i < from || i >= to) && !(i < end && el.contains(document.activeElement))) {
        this.#nodes.delete(i);
        el.remove();
        if (this.#spare.length < 60) this.#spare.push(el);
      }
    }
    let missing = false;
    for (let i = from; i < to; i++) {
      const got = this.#rows.get(i);
      if (!got && i >= first && i < last) missing = true;
      this.#place(i, got);
    }
    if (missing) this.#need(first, last);
    show(this.note, this.#known && this.#total === 0);
    show(this.grid, !(this.#known && this.#total === 0));
    if (!this.note.hidden) say(this.note, this.opts.empty());
    const cut = end < this.#total;
    show(this.more, cut);
    if (cut) say(this.more, `These are the first ${count(end)} of ${count(this.#total)}. Search or filter to see the others.`);
  }

  #place(i, got) {
    let el = this.#nodes.get(i);
    if (!el) {
      el = this.#spare.pop() || this.opts.row();
      this.#nodes.set(i, el);
      el.style.transform = `translateY(${i * this.#height}px)`;
      el.hbTop = i * this.#height;
      attr(el, 'aria-rowindex', i + 2);
      el.hbItem = null;
      this.body.append(el);
    } else if (el.hbTop !== i * this.#height) {
      el.style.transform = `translateY(${i * this.#height}px)`;
      el.hbTop = i * this.#height;
    }
    attr(el, 'tabindex', i === this.#active ? 0 : -1);
    el.classList.add('row');
    el.classList.toggle('waiting', !got);
    el.hbIndex = i;
    if (got && el.hbItem !== got) {
      el.hbItem = got;
      this.opts.fill(el, got.item, got.at);
    } else if (!got) el.hbItem = null;
  }

  #need(first, last) {
    if (this.#wanted && first >= this.#wanted[0] && last <= this.#wanted[1]) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#load(...this.#window()).catch((err) => this.opts.failed?.(err));
    }, 50);
  }

  #focused(e) {
    const el = e.target.closest('.row');
    if (!el || el.hbIndex === this.#active) return;
    const before = this.#nodes.get(this.#active);
    if (before) before.setAttribute('tabindex', -1);
    this.#active = el.hbIndex;
    el.setAttribute('tabindex', 0);
  }

  #click(e) {
    if (e.target.closest('a') || e.defaultPrevented || getSelection()?.toString()) return;
    const el = e.target.closest('.row');
    if (el?.hbItem) this.opts.open(el.hbItem.item);
  }

  #key(e) {
    if (e.altKey || e.ctrlKey || e.metaKey || !e.target.closest('.rows')) return;
    const page = Math.max(1, Math.floor((innerHeight - 160) / this.#height));
    const end = this.#end() - 1;
    const to = {
      ArrowDown: this.#active + 1, ArrowUp: this.#active - 1, PageDown: this.#active + page,
      PageUp: this.#active - page, Home: 0, End: end,
    }[e.key];
    if (to !== undefined) {
      e.preventDefault();
      this.#go(Math.max(0, Math.min(end, to)));
    } else if (e.key === 'Enter' && !e.target.closest('a')) {
      const el = this.#nodes.get(this.#active);
      if (el?.hbItem) this.opts.open(el.hbItem.item);
    }
  }

  #go(i) {
    this.#active = i;
    const top = this.body.getBoundingClientRect().top + scrollY + i * this.#height;
    const bar = this.#headHeight() + 4;
    if (top - scrollY < bar) scrollTo({ top: top - bar });
    else if (top + this.#height > scrollY + innerHeight - 8) scrollTo({ top: top + this.#height - innerHeight + 8 });
    this.draw();
    this.#nodes.get(i)?.focus({ preventScroll: true });
  }
}

// rowsOf is the load of a List over a path of the API whose answers have key.
export const rowsOf = (link, path, key, params) => async (offset, limit, signal, after) => {
  const ask = { ...params(), limit };
  if (after) ask.after = after;
  else if (offset) ask.offset = offset;
  const { answer, at } = await link.get(path, ask, signal);
  return { items: answer[key] || [], total: answer.total, next: answer.next, at: at || mark() };
};
