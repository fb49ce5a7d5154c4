// Where the page is stands in the part of the URL after #, so that every view has
// a link, the back button works, and no server has to know the views.

// parse reads a hash into a view, the ids in its path and its parameters.
export function parse(hash) {
  const [path, query] = hash.replace(/^#\/?/, '').split('?', 2);
  const parts = path.split('/').filter(Boolean).map(plain);
  const params = new URLSearchParams(query || '');
  if (parts[0] === 'workers') return { view: 'workers', params };
  if (parts[0] === 'events') return { view: 'events', params };
  if (parts[0] === 'hives' && parts[3] !== undefined && parts[2] === 'workers') {
    return { view: 'worker', hive: parts[1], worker: parts[3], params };
  }
  if (parts[0] === 'hives' && parts[1] !== undefined) return { view: 'hive', hive: parts[1], params };
  return { view: 'fleet', params };
}

function plain(s) {
  try { return decodeURIComponent(s); } catch { return s; }
}

// link writes the hash of a path and its parameters; empty ones are left out.
export function link(path, params) {
  const q = new URLSearchParams();
  for (const [k, v] of params instanceof URLSearchParams ? params : Object.entries(params || {})) {
    if (v !== '' && v !== null && v !== undefined) q.set(k, v);
  }
  const s = q.toString().replaceAll('%2C', ',');
  return `#/${path}${s ? `?${s}` : ''}`;
}

export const hiveLink = (hive) => `#/hives/${encodeURIComponent(hive)}`;
export const workerLink = (hive, worker) => `${hiveLink(hive)}/workers/${encodeURIComponent(worker)}`;

// amend changes parameters of the present view. Typing replaces the entry of the
// history, so that back leaves the search instead of walking through its letters.
export function amend(changes, { replace = false } = {}) {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const q = new URLSearchParams(query || '');
  for (const [k, v] of Object.entries(changes)) {
    if (v === '' || v === null || v === undefined) q.delete(k);
    else q.set(k, v);
  }
  const hash = link(path, q);
  if (hash === (location.hash || '#/')) return;
  if (!replace) { location.hash = hash; return; }
  history.replaceState(null, '', hash);
  window.dispatchEvent(new HashChangeEvent('hashchange'));
}
