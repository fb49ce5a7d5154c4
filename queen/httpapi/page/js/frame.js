// The frame around every view: how sure the queen is, how old what is shown is,
// and what is said aloud.
import { attr, say, show, since } from './dom.js';
import { age, clip, count, eventWords, grave, health, illness, plain, plural } from './text.js';

const byID = (id) => document.getElementById(id);
const THEMES = [['', 'Auto', 'as the system'], ['light', 'Light', 'light'], ['dark', 'Dark', 'dark']];

export class Frame {
  #answer = null;
  #name = ''; // of the view
  #said = '';

  constructor(link) {
    this.link = link;
    link.addEventListener('state', () => this.draw());
    this.#theme();
    // What sticks below the verdict needs to know how tall it is.
    const box = byID('verdict');
    new ResizeObserver(() => document.documentElement.style.setProperty('--verdict', `${box.offsetHeight}px`)).observe(box);
  }

  // answer takes the newest word of the queen.
  answer(a) {
    this.#answer = { status: a.status, summary: a.summary || this.#answer?.summary };
    const aloud = (a.events || []).map((e) => e.data || {}).filter(grave);
    if (aloud.length > 3) this.#say(`${plural(aloud.length, 'event')}, the newest: ${told(aloud[0])}`);
    else if (aloud.length) this.#say(aloud.map(told).join('. '));
    this.draw();
  }

  // view says where the page is, for its title and the navigation.
  view(name, title) {
    this.#name = title;
    for (const a of document.querySelectorAll('nav a')) attr(a, 'aria-current', a.dataset.view === name ? 'page' : null);
    this.draw();
  }

  draw() {
    const { link } = this;
    const status = this.#answer?.status;
    const summary = this.#answer?.summary;
    const silent = link.heard ? since(link.heard) : 0;
    const brake = status?.brake || [];
    const unsure = status?.unsure || [];
    const waiting = !link.heard && !link.why && performance.now() < 4_000 && !link.signedOut;
    let sure = 'sure';
    if (waiting) sure = 'waiting';
    else if (link.cut) sure = 'cut';
    else if (unsure.length || brake.length || !status?.warm) sure = 'unsure';

    const box = byID('verdict');
    attr(box, 'data-sure', sure);
    const ill = summary && (sure === 'sure' || sure === 'unsure') ? illness(summary) : '';
    attr(box, 'data-health', ill || null);
    byID('health').className = `shape ${ill || 'alive'}`;
    show(byID('health'), !!ill);
    document.documentElement.classList.toggle('cut', sure === 'cut');
    byID('sure-shape').className = `shape ${{ sure: 'alive', unsure: 'late', cut: 'lost', waiting: 'unverified' }[sure]}`;
    say(byID('sure'), { sure: 'Sure', unsure: 'Unsure', cut: 'Cut off', waiting: 'Asking the queen' }[sure]);
    say(byID('sentence'), this.#sentence(sure, silent, summary, unsure, brake));
    attr(byID('sentence'), 'title', unsure.join('; '));
    const keeps = [];
    if (status && sure !== 'cut') {
      keeps.push(status.jetstream ? 'JetStream keeps events' : 'JetStream is away');
      if (brake.length) keeps.push(`brake on: ${brake.map((b) => `${b.zone ? `zone ${b.zone}` : 'hives without a zone'}, ${plural(b.held, 'hive')} held for ${age(b.since + silent)}`).join('; ')}`);
      else keeps.push('no brake');
    }
    say(byID('keeps'), keeps.join(' · '));
    byID('keeps').classList.toggle('bad', !!status && (!status.jetstream || brake.length > 0));
    say(byID('heard'), link.heard ? (sure === 'cut' ? `nothing heard for ${age(silent)}` : `heard ${age(silent)} ago`) : '');
    say(byID('queen'), status ? (/^queen/.test(status.queen) ? '' : 'queen ') + clip(status.queen, 24) : '');
    say(byID('as-of'), status ? clock(status.as_of) : '');
    attr(byID('as-of'), 'title', status ? `${status.as_of}, the queen's clock` : '');
    show(byID('login'), sure === 'cut' && link.signedOut);
    this.#title(sure, silent, summary);
    const cry = sure === 'cut' ? 'Cut off from the queen. What is shown is old.' : '';
    if (cry !== byID('cry').textContent) {
      if (!cry) this.#say('The queen is heard again.');
      say(byID('cry'), cry);
    }
  }

  #sentence(sure, silent, summary, unsure, brake) {
    if (sure === 'waiting') return 'No answer yet.';
    if (sure === 'cut') {
      if (this.link.signedOut) return 'The server wants you to sign in.';
      const old = this.link.heard ? `What you see is ${age(silent)} old.` : 'Nothing was heard yet.';
      return this.link.why ? `The queen does not answer: ${clip(this.link.why, 160)}. ${old}` : `The queen is not heard. ${old}`;
    }
    const parts = [summary ? health(summary) : ''];
    if (unsure.length) parts.unshift(`${clip(unsure.join('; '), 240)}.`);
    else if (sure === 'unsure' && !brake.length) parts.push('The queen began a moment ago and does not know all yet.');
    return parts.join(' ');
  }

  #title(sure, silent, summary) {
    let state = '';
    if (sure === 'cut') state = `✕ cut off ${age(silent)}`;
    else if (summary) {
      const lost = (summary.hives?.lost || 0) + (summary.workers?.lost || 0);
      state = lost ? `${count(lost)} lost` : `${count(summary.workers?.alive)} alive`;
      if (sure === 'unsure') state = `? ${state}`;
    }
    const title = [state, this.#name, 'hivebeat'].filter(Boolean).map(plain).join(' · ');
    if (document.title !== title) document.title = title;
  }

  #say(words) {
    if (words === this.#said) return;
    this.#said = words;
    say(byID('say'), words);
  }

  #theme() {
    const button = byID('theme');
    const now = () => document.documentElement.dataset.theme || '';
    const draw = () => {
      const [, name, words] = THEMES.find(([k]) => k === now());
      say(button, name);
      button.setAttribute('aria-label', `Colours: ${words}`);
      button.dataset.now = now();
    };
    button.addEventListener('click', () => {
      const next = THEMES[(THEMES.findIndex(([k]) => k === now()) + 1) % THEMES.length][0];
      if (next) document.documentElement.dataset.theme = next;
      else delete document.documentElement.dataset.theme;
      try {
        if (next) localStorage.setItem('hivebeat.theme', next);
        else localStorage.removeItem('hivebeat.theme');
      } catch { /* it lasts as long as the page, then */ }
      draw();
      document.dispatchEvent(new Event('hivebeat-theme'));
    });
    draw();
  }
}

const told = (d) => `${d.worker ? `worker ${d.worker} of ${d.hive}` : d.hive ? `hive ${d.hive}` : 'the fabric'} ${eventWords(d)}`;
const clock = (t) => new Date(t).toTimeString().slice(0, 8);

// Trouble is the line of a view that says that it could not be renewed.
export function trouble(el, err) {
  show(el, !!err);
  if (err) say(el, `Could not be renewed: ${clip(err.message || String(err), 200)}.`);
}
