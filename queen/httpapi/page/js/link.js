// The line to the queen: one stream of changes for the frame, requests for what is
// in view, and the knowledge of how old all of it is.
import { mark, since } from './dom.js';

const SILENCE = 12_000; // without an answer for so long, the page is cut off
const QUIET = 6_500; // the queen says something every 5 s: after this, ask
const LAG = 3_000; // an answer that waited for so long on its way is no news
const PATIENCE = 8_000; // for one request

// Refusal is an answer that says why there is none, or that none came.
export class Refusal extends Error {
  constructor(code, message) { super(message); this.code = code; }
}

// Link tells of an "answer" for each that the stream brought, of a "state" when
// cut or why changed.
export class Link extends EventTarget {
  cut = true;
  why = ''; // why it is cut off, in words; empty is silence
  signedOut = false;
  heard = null; // when the last answer came, as a mark; null before the first
  #cursor = '';
  #stream = null;
  #probing = false;
  #broken = false;

  start() {
    this.#follow();
    setInterval(() => this.#watch(), 500);
    // What a browser held back while the page was hidden may be old.
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && this.heard && since(this.heard) > QUIET) this.#again();
    });
    window.addEventListener('online', () => this.#again());
    window.addEventListener('offline', () => this.#probe());
  }

  // get asks for path and returns the answer and when it was asked for: an age in
  // it may have grown since then, and is never younger.
  async get(path, params, signal) {
    const at = mark();
    const limit = AbortSignal.timeout(PATIENCE);
    let res;
    try {
      res = await fetch(this.#url(path, params), {
        headers: { Accept: 'application/json' }, cache: 'no-store', credentials: 'same-origin',
        signal: signal ? AbortSignal.any([signal, limit]) : limit,
      });
    } catch (err) {
      if (signal?.aborted) throw err;
      throw new Refusal('network', 'no answer from the server');
    }
    return { answer: await this.#body(res, signal), at };
  }

  async #body(res, signal) {
    if (res.status === 401 || res.status === 403) {
      this.signedOut = true;
      throw new Refusal('signed_out', 'the server requires you to sign in');
    }
    let answer;
    try {
      answer = await res.json();
    } catch (err) {
      if (signal?.aborted) throw err;
      throw new Refusal('network', `the server answered ${res.status} with something that cannot be read`);
    }
    if (answer.error) throw new Refusal(answer.error.code, answer.error.message);
    if (!res.ok || !answer.status) throw new Refusal('network', `the server answered ${res.status}`);
    this.signedOut = false;
    return answer;
  }

  #url(path, params) {
    const q = new URLSearchParams();
    for (const [k, v] of Object.entries(params || {})) {
      if (v !== '' && v !== null && v !== undefined) q.set(k, v);
    }
    const s = q.toString();
    return s ? `${path}?${s}` : path;
  }

  // #tell hands an answer on before the page may say that it is sure: what it says
  // then is of this answer.
  #tell(answer, at) {
    this.dispatchEvent(new CustomEvent('answer', { detail: answer }));
    if (!this.heard || since(at) < since(this.heard)) this.heard = at;
    this.#broken = false;
    this.#settle('');
  }

  #settle(why) {
    const cut = this.#broken || !this.heard || since(this.heard) > SILENCE;
    if (cut === this.cut && why === this.why) return;
    this.cut = cut;
    this.why = why;
    this.dispatchEvent(new Event('state'));
  }

  #watch() {
    if (!this.#broken) this.#settle('');
    if (this.heard && since(this.heard) > QUIET) this.#probe();
  }

  // #probe asks when the stream says nothing: if that fails too, the page knows
  // at once that it is cut off.
  async #probe() {
    if (this.#probing) return;
    this.#probing = true;
    try {
      const { answer, at } = await this.get('v1/summary');
      this.#tell(answer, at);
    } catch (err) {
      this.#fail(err);
    } finally {
      this.#probing = false;
    }
  }

  #fail(err) {
    this.#broken = true;
    this.#settle(err instanceof Refusal && err.code !== 'network' ? err.message : '');
  }

  #again() { this.#stream?.abort(); }

  // #follow reads the stream for ever, and begins it anew when it ends. Where it was
  // given up on purpose #read returns; otherwise it throws.
  async #follow() {
    for (let failed = 0; ; ) {
      const began = mark();
      try {
        await this.#read();
        failed = 0;
      } catch {
        failed = since(began) > 5_000 ? 1 : failed + 1;
        // A queen that has no stream to give may answer all the same.
        await this.#probe();
      }
      await new Promise((ok) => setTimeout(ok, Math.min(3_000, 200 * 2 ** failed)));
    }
  }

  async #read() {
    const stop = new AbortController();
    this.#stream = stop;
    let silent = setTimeout(() => stop.abort(), SILENCE);
    try {
      const res = await fetch(this.#url('v1/watch', { only: 'summary,events', after: this.#cursor }), {
        headers: { Accept: 'text/event-stream' }, cache: 'no-store', credentials: 'same-origin', signal: stop.signal,
      });
      if (!res.ok) {
        // A cursor that is refused is not asked for again.
        this.#cursor = '';
        await this.#body(res, stop.signal);
      }
      const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
      let skew = null;
      const parser = new Parser((data, id) => {
        clearTimeout(silent);
        silent = setTimeout(() => stop.abort(), SILENCE);
        const answer = JSON.parse(data);
        if (answer.error) { this.#fail(new Refusal(answer.error.code, answer.error.message)); return; }
        // Of a browser that was stopped, what waited in the pipe comes as if it
        // were new. The queen's own clock tells; a new stream heals it.
        const off = Date.now() - Date.parse(answer.status.as_of);
        if (skew === null || off < skew) skew = off;
        if (off - skew > LAG) { stop.abort(); return; }
        this.#cursor = id || answer.next || '';
        this.#tell(answer, mark());
      });
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parser.take(value);
        if (stop.signal.aborted) break;
      }
      throw new Refusal('network', 'the stream ended');
    } catch (err) {
      if (!stop.signal.aborted) throw err; // else it was given up on purpose
    } finally {
      clearTimeout(silent);
      stop.abort();
    }
  }

}

// Parser takes a stream of server-sent events apart.
export class Parser {
  #rest = '';
  #data = [];
  #id = '';
  constructor(each) { this.each = each; }

  take(text) {
    const lines = (this.#rest + text).split(/\r?\n/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === '') {
      if (this.#data.length) this.each(this.#data.join('\n'), this.#id);
      this.#data = [];
      return;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'data') this.#data.push(value);
    else if (field === 'id') this.#id = value;
  }
}
