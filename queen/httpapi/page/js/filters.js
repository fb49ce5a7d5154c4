// The choices above a list.
import { h, show } from './dom.js';
import { amend } from './route.js';
import { clip } from './text.js';

// Filters are the choices of a view, each kept in the URL.
export class Filters {
  #inputs = [];
  constructor(specs) {
    this.el = h('div', { class: 'filters' }, specs.map((s) => {
      const input = s.text
        ? h('input', { type: 'text', size: '9', maxlength: '256', autocomplete: 'off', spellcheck: 'false', placeholder: s.name, title: s.hint || null })
        : h('select', {}, ['', ...s.words.filter((w) => w !== 'id')].map((w) => h('option', { value: w, text: s.names?.[w] ?? (w || `Any ${s.name.toLowerCase()}`) })));
      let timer = 0;
      input.addEventListener(s.text ? 'input' : 'change', () => {
        clearTimeout(timer);
        timer = setTimeout(() => amend({ [s.key]: input.value.trim() }, { replace: !!s.text }), s.text ? 250 : 0);
      });
      this.#inputs.push([s.key, input]);
      return h('label', {}, h('span', { class: 'unseen', text: s.name }), input);
    }), h('button', { type: 'button', class: 'clear', text: 'Clear', onclick: () => amend(Object.fromEntries([...specs.map((s) => [s.key, '']), ['text', '']])) }));
    this.clear = this.el.lastChild;
  }

  set(params) {
    for (const [key, input] of this.#inputs) {
      const v = params.get(key) || '';
      if (input.tagName === 'SELECT' && ![...input.options].some((o) => o.value === v)) input.append(h('option', { value: v, text: clip(v, 40) }));
      if (input.value !== v && document.activeElement !== input) input.value = v;
    }
    show(this.clear, [...this.#inputs.map(([k]) => k), 'text'].some((k) => params.get(k)));
  }
}
