package page

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// standIn is as much of a browser as gpu.js needs: elements with text, attributes and
// children. Text that is written as markup would show as such.
const standIn = `
class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.attrs = {}; this.style = {}; this.className = ''; this.hidden = false; this.words = ''; }
  append(...kids) { for (const k of kids) { if (typeof k === 'string') { const t = new Element('#text'); t.words = k; this.children.push(t); } else this.children.push(k); if (typeof k !== 'string') k.parent = this; } }
  setAttribute(k, v) { this.attrs[k] = v; }
  getAttribute(k) { return this.attrs[k] ?? null; }
  hasAttribute(k) { return k in this.attrs; }
  removeAttribute(k) { delete this.attrs[k]; }
  addEventListener() {}
  insertBefore(el, at) { const i = at ? this.children.indexOf(at) : this.children.length; this.children.splice(i, 0, el); el.parent = this; }
  remove() { this.parent.children.splice(this.parent.children.indexOf(this), 1); }
  get firstChild() { return this.children[0] ?? null; }
  get lastChild() { return this.children.at(-1) ?? null; }
  get firstElementChild() { return this.children.find((c) => c.tag !== '#text') ?? null; }
  get nextElementSibling() { const all = this.parent.children; return all[all.indexOf(this) + 1] ?? null; }
  get childElementCount() { return this.children.length; }
  get textContent() { return this.words + this.children.filter((c) => !c.hidden).map((c) => c.textContent).join(''); }
  set textContent(s) { this.children = []; this.words = s; }
}
globalThis.Node = Element;
globalThis.document = { createElement: (tag) => new Element(tag), getElementsByClassName: () => [] };
Map.groupBy ??= (list, key) => list.reduce((m, x) => m.set(key(x), [...(m.get(key(x)) ?? []), x]), new Map());
`

// node runs a script in which the modules of the page can be imported, and returns its output.
func node(t *testing.T, script string) string {
	t.Helper()
	bin, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node")
	}
	dir := t.TempDir()
	for name, js := range ours(t, ".js") {
		to := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(to, []byte(js), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"package.json": `{"type":"module"}`, "standin.js": standIn, "test.js": "import './standin.js';\n" + script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), bin, filepath.Join(dir, "test.js"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func checkLines(t *testing.T, got, want string) {
	t.Helper()
	g, w := strings.Split(strings.TrimSpace(got), "\n"), strings.Split(strings.TrimSpace(want), "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			t.Errorf("line %d: got  %s\n        want %s", i+1, a, b)
		}
	}
}

// The words of the page about GPUs: notes, counts and events.
func TestWordsAboutGPUs(t *testing.T) {
	got := node(t, `
import { eventWords, gpuCounts, gpuNote, health, illness } from './text.js';
const say = (x) => console.log(x === '' ? '(nothing)' : x);
say(gpuNote([{ index: 0 }, { index: 1, state: 'ok' }]));
say(gpuNote([{ index: 0, state: 'degraded', cause: 'throttle' }, { index: 3, state: 'failing', cause: 'xid', action: 'reset' }, { index: 2, state: 'gone', cause: 'missing' }]));
say(gpuNote([1, 2, 3].map((index) => ({ index, state: 'failing', action: 'reboot' }))));
say(gpuNote([{ index: 5, err: 'not in the last reading' }, { index: 6, state: 'melting' }]));
say(gpuCounts({ ok: 8 }));
say(gpuCounts({ ok: 6, failing: 1, degraded: 1, melting: 2 }));
say(health({ hives: { alive: 2 }, workers: { alive: 3 }, gpu_states: { ok: 8 } }));
say(health({ hives: { alive: 2, lost: 1 }, workers: { alive: 3 }, gpu_states: { gone: 1, failing: 2 } }));
say(illness({ hives: { alive: 2 }, gpu_states: { ok: 1, gone: 1 } }));
for (const d of [
  { kind: 'gpu-lost' }, { kind: 'gpu-failing' }, { kind: 'gpu-degraded' }, { kind: 'gpu-recovered', from: 'failing' },
  { kind: 'gpu-orphan', owner: 'llama' }, { kind: 'gpu-forgotten', asker: 'ann' },
]) say(eventWords({ ...d, gpu: 'GPU-a', gpu_index: 0 }));
say(eventWords({ kind: 'gpu-lost', gpu: 'GPU-a' }));
`)
	checkLines(t, got, `
(nothing)
GPU 3 failing: reset; GPU 2 gone; GPU 0 degraded: throttle
3 GPUs failing: reboot
GPU 5 unknown; GPU 6 melting
(nothing)
6 ok, 1 degraded, 1 failing, 2 melting
All 2 hives and 3 workers are alive.
1 hive lost, 2 GPUs failing, 1 GPU gone.
late
GPU 0 is gone
GPU 0 is failing
GPU 0 is degraded
GPU 0 can be used again, was failing
GPU 0: processes of llama, which has ended, still hold memory
GPU 0 is forgotten, as ann asked
GPU GPU-a is gone
`)
}

// The words of the page about what is drained.
func TestWordsAboutDrains(t *testing.T) {
	got := node(t, `
import { both, eventWords, hiveNote, imposed } from './text.js';
const say = (x) => console.log(x === '' ? '(nothing)' : x);
const d = { of: 'hive', by: 'ann', reason: 'kernel update', left: 7200000 };
say(imposed('drained', undefined, 'hive'));
say(imposed('drained', d, 'hive'));
say(both({ drained: d, silenced: { of: 'worker', by: 'bob' } }, 'worker'));
say(eventWords({ kind: 'silenced', asker: 'ann', during_ms: 7200000 }));
say(eventWords({ kind: 'forgotten', asker: 'ann' }));
say(hiveNote({ fresh: true, drained: d, gpus: [{ index: 3, uuid: 'GPU-a', state: 'failing' }], drained_gpus: { 'GPU-a': { of: 'gpu', by: 'bob' } } }));
say(hiveNote({ fresh: true, gpus: [{ index: 3, uuid: 'GPU-a' }] }));
say(eventWords({ kind: 'drained', asker: 'ann', during_ms: 7200000 }));
say(eventWords({ kind: 'undrained', asker: 'ann', gpu: 'GPU-a', gpu_index: 3 }));
`)
	checkLines(t, got, `
(nothing)
drained by ann: kernel update, 2h left
drained with its hive by ann: kernel update, 2h left; silenced by bob
silenced by ann for 2h
forgotten, as ann asked
drained by ann: kernel update, 2h left; GPU 3 drained by bob; GPU 3 failing
(nothing)
drained by ann for 2h
GPU 3 is drained no more, as ann asked
`)
}

// A GPU shows the parts of its memory, and none of a GPU whose figures are old.
func TestGPUOnThePage(t *testing.T) {
	got := node(t, `
import { gpuBar, setGPU, memoryOf } from './gpu.js';
const G = 2 ** 30;
const at = { steady: performance.now(), wall: Date.now() };
const show = (g, opts) => { const el = gpuBar(); setGPU(el, g, at, opts); console.log([...el.children].filter((c) => !c.hidden).map((c) => c.textContent).filter(Boolean).join(' | ')); return el; };
const h100 = { uuid: 'GPU-a', index: 3, name: 'NVIDIA H100', total: 80 * G, used: 70 * G, ours: 60 * G, util: 50, temp: 61, power: 500000, age: 4000 };
show(h100, { all: true });
show({ ...h100, ours: 0, orphaned: 60 * G, unattributed: 2 * G, reserved: G, state: 'degraded', cause: 'throttle', evidence: 'too hot' });
show({ ...h100, state: 'failing', cause: 'xid', evidence: 'XID 79', action: 'reboot', since: 720000 }, { all: true });
show({ ...h100, state: 'gone', cause: 'missing', age: 840000 });
show({ ...h100, err: 'it hangs', age: 95000 });
show(h100, { fresh: false });
show({ uuid: 'GPU-b', name: 'NVIDIA GB10', unified: true });
const mig = show({ ...h100, mig: true, used: 3 * G, ours: 3 * G, instances: [{ uuid: 'MIG-a', profile: '1g.10gb', total: 10 * G, used: 3 * G, ours: 3 * G }, { uuid: 'MIG-b', profile: '4g.40gb', total: 40 * G }] }, { all: true });
setGPU(mig, { ...h100, state: 'failing' }, at, { all: true });
console.log(mig.hbInstances.children.length, mig.hbMemory.hidden);
const evil = '<img src=x onerror=alert(1)>\u202e\u001b[2J';
const el = show({ uuid: evil, name: evil, state: evil, evidence: evil, action: evil, err: evil + 1, total: G, instances: [{ uuid: evil, profile: evil }] }, { all: true });
const sum = memoryOf([h100, { ...h100, state: 'gone' }]);
console.log(sum.total / G, sum.free / G, sum.foreign / G);
`)
	checkLines(t, got, `
3 · H10050 % · 61 °C · 500 W | ours 60.0foreign 10.0free 10.0GiB
3 · H10050 % · 61 °C | degraded: too hot | ours 0.0orphaned 60.0foreign 8.0unattributed 2.0reserved 1.0free 9.0GiB
3 · H100 | failing for 12m: XID 79 | To do: reboot the machine | 80.0 GiB, last read 4s ago
3 · H100 | gone: missing | 80.0 GiB, last read 14m ago
3 · H100 | unknown | it hangs | 80.0 GiB, last read 1m 35s ago
3 · H100 | 80.0 GiB, last read 4s ago
0 · GB100 % · shares the memory of the machine | its memory is not known
3 · H10050 % · 61 °C · 500 W | ours 3.0foreign 0.0free 77.0GiB | MIG 1g.10gb7.0 of 10.0 GiB freeMIG 4g.40gb40.0 of 40.0 GiB free
0 true
0 · <img src=x onerror=alert(1)>��[2J | <img src=x onerror=alert(1)>��[2J: <img src=x onerror=alert(1)>��[2J | To do: <img src=x onerror=alert(1)>��[2J | <img src=x onerror=alert(1)>��[2J1
80 10 10
`)
}
