//go:build e2e

package page

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext/plaintexttest"
	"github.com/beatfabric/hivebeat/queen/api"
)

func TestCards(t *testing.T) {
	s := serve(t, 3, 3)
	tab := open(t, s.origin(), "/", 1440, 900, light)
	tab.until(moment, "three cards with three workers each", `document.querySelectorAll('.card').length === 3 && document.querySelectorAll('.card li').length === 9`)
	tab.shows("#sure", "Sure")
	tab.shows("#sentence", "All 3 hives and 9 workers are alive.")
	tab.shows(".hero .hives .figure", "3")
	tab.shows(".card .gpu", "RTX 4090")
	tab.until(moment, "the title says how many are alive", `document.title === '9 alive · Fleet · hivebeat'`)
	tab.until(moment, "a bar says its amounts in words", `/GiB ours, .* GiB foreign, .* GiB free of 24.0 GiB/.test(document.querySelector('.card .bar').getAttribute('aria-label'))`)
	get[bool](tab, `window.stays = true`)

	s.queen.judge("gpu-01", "whisper", hivebeat.Lost, hivebeat.CauseExit, "its process 1001 ended")
	tab.until(moment, "the worker is lost in its card", `[...document.querySelectorAll('.card li.lost')].some(li => li.innerText.includes('whisper') && li.innerText.includes('lost'))`)
	tab.shows(".feed .event", "lost: its process ended")
	tab.shows("#sentence", "1 worker lost")
	tab.until(moment, "the title says so", `document.title.startsWith('1 lost')`)
	tab.until(moment, "it is said aloud", `document.querySelector('#say').textContent.includes('worker whisper of gpu-01 lost')`)
	s.queen.judge("gpu-01", "whisper", hivebeat.Alive, "", "heard again")
	tab.until(moment, "it is alive again", `!document.querySelector('.card li.lost')`)
	tab.shows("#sentence", "All 3 hives")
	if !get[bool](tab, `window.stays === true`) {
		t.Error("the page was loaded again")
	}
}

// Ages keep counting between two answers, and never jump back without one.
func TestAgesCount(t *testing.T) {
	s := serve(t, 3, 3)
	s.queen.judge("gpu-02", "bge-m3", hivebeat.Lost, hivebeat.CauseMissed, "")
	tab := open(t, s.origin(), "/#/hives/gpu-02/workers/bge-m3", 1000, 800, light)
	tab.shows(".heading", "lost")
	age := `parseInt(document.querySelector('.heading .age').textContent)`
	first := get[int](tab, age)
	tab.until(moment, "the age counts on", age+` >= `+string(rune('0'+min(9, first+3))))
}

func TestSearchAndLinks(t *testing.T) {
	s := serve(t, 50, 8)
	tab := open(t, s.origin(), "/", 1440, 900, light)
	tab.until(moment, "fifty hives are rows", `document.querySelector('.hive-rows')?.getAttribute('aria-rowcount') === '51'`)

	tab.keys("/")
	tab.until(moment, "/ goes to the search", `document.activeElement.id === 'search'`)
	tab.keys("gpu-07")
	tab.until(moment, "one hive fits, as a card", `document.querySelectorAll('.card').length === 1 && document.querySelector('.card').innerText.includes('gpu-07')`)
	tab.until(moment, "the search is in the URL", `location.hash === '#/?text=gpu-07'`)
	tab.keys(kb.Escape)
	tab.until(moment, "Esc clears it", `location.hash === '#/' && document.querySelector('.hive-rows')`)
	tab.keys(kb.Escape)
	tab.until(moment, "Esc leaves it", `document.activeElement.id !== 'search'`)

	// A link contains everything: view, search, filter, order.
	tab.goTo("#/workers?text=whisper&live=alive&sort=-done")
	tab.until(moment, "the workers that fit", `document.querySelectorAll('.worker-rows .rows .row:not(.waiting)').length > 5`)
	if v := get[string](tab, `[document.querySelector('#search').value, document.querySelector('.filters select').value, document.querySelector('[aria-sort=descending]').innerText].join('|')`); v != "whisper|alive|Done" {
		t.Errorf("the view shows %s", v)
	}
	if !get[bool](tab, `[...document.querySelectorAll('.worker-rows .rows .row')].every(r => r.innerText.includes('whisper'))`) {
		t.Error("rows that do not fit are shown")
	}
	done := `[...document.querySelectorAll('.worker-rows .rows .row:not(.waiting)')].sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex')).map(r => +r.querySelector('.c-done').innerText.replaceAll(',', ''))`
	if !get[bool](tab, `(d => d.every((v, i) => i === 0 || d[i-1] >= v))(`+done+`)`) {
		t.Errorf("not sorted by done: %v", get[[]int](tab, done))
	}
	get[any](tab, `document.querySelector('.c-name button').click()`)
	tab.until(moment, "a click on a column sorts", `location.hash.includes('sort=id') && document.querySelector('.c-name').getAttribute('aria-sort') === 'ascending'`)
	get[any](tab, `history.back()`)
	tab.until(moment, "back is the order before", `location.hash.includes('sort=-done') && document.querySelector('.c-done').getAttribute('aria-sort') === 'descending'`)

	// The rows of the previous order are removed once the new ones have arrived.
	tab.until(moment, "its rows are there", `document.querySelectorAll('.worker-rows .rows .row.waiting').length === 0 && (d => d.length > 5 && d.every((v, i) => i === 0 || d[i-1] >= v))(`+done+`)`)

	// With the keyboard only: into the table, down, open, and back.
	// The order is by work done, and may change while the keys are pressed.
	at := `document.activeElement.getAttribute('aria-rowindex')`
	for tries := 0; ; tries++ {
		get[any](tab, `document.querySelector('.rows .row[tabindex="0"]').focus()`)
		before := get[string](tab, at)
		tab.keys(kb.ArrowDown + kb.ArrowDown)
		if after := get[string](tab, at); before == "2" && after == "4" {
			break
		} else if tries == 20 {
			t.Fatalf("arrows move from row %s to row %s", before, after)
		}
		get[any](tab, `document.querySelector('.rows .row[aria-rowindex="2"]').focus()`)
	}
	name := get[string](tab, `document.activeElement.querySelector('a').innerText`)
	tab.keys(kb.Enter)
	tab.until(moment, "Enter opens the worker", `location.hash.includes('/workers/')`)
	_, worker, _ := strings.Cut(name, "/")
	tab.shows("h1", worker)
	tab.until(moment, "the title names it", `document.title.includes(`+"`"+worker+"`"+`)`)
	tab.keys(kb.Escape)
	tab.until(moment, "Esc goes up to its hive", `/^#\/hives\/[^/]+$/.test(location.hash)`)
	tab.until(moment, "its workers are there", `document.querySelectorAll('.worker-rows .rows .row').length === 8`)

	tab.goTo("#/workers?text=nobody-has-this")
	tab.shows(".empty", "No worker fits this search.")
	tab.goTo("#/hives/nobody")
	tab.allow = append(tab.allow, "404")
	tab.shows(".trouble", "no longer knows this hive")
}

func TestUnsure(t *testing.T) {
	s := serve(t, 3, 3)
	tab := open(t, s.origin(), "/", 1440, 900, light, still)
	tab.shows("#sure", "Sure")
	s.queen.change(func() {
		s.queen.unsure = []string{"gpu-09 was never heard"}
		s.queen.brake = []api.BrakeInfo{{Zone: "b", Held: 12, Since: 34000}}
		s.queen.away = true
	})
	tab.shows("#sure", "Unsure")
	tab.shows("#sentence", "gpu-09 was never heard")
	tab.shows("#keeps", "JetStream is away")
	tab.shows("#keeps", "brake on: zone b, 12 hives held for 3")
	tab.shoot("unsure")
	s.queen.change(func() { s.queen.unsure, s.queen.brake, s.queen.away = nil, nil, false })
	tab.shows("#sure", "Sure")
}

func TestNothingThere(t *testing.T) {
	s := serve(t, 0, 0)
	tab := open(t, s.origin(), "/", 1440, 900, dark, still)
	tab.shows("#sentence", "No hive has been heard yet.")
	tab.shows(".hives .empty", "hivebeat hive")
	tab.shoot("fleet")
	tab.goTo("#/workers")
	tab.shows(".all .empty", "No worker has been heard yet.")
	tab.goTo("#/events")
	tab.shows(".all .empty", "The queen remembers no events")
}

// Texts of workers may be hostile: what is printable of them is shown literally, and does
// nothing.
func TestHostileText(t *testing.T) {
	const evil = `<img src=/nothing.png onerror="window.hurt=1"><script>window.hurt=2</script>"'&lt;` + plaintexttest.Evil
	s := serve(t, 3, 3)
	s.queen.change(func() {
		h := s.queen.byID["gpu-01"]
		h.Zone, h.Labels = evil, map[string]string{evil: evil}
		h.Host.Name, h.GPUs[0].Name, h.GPUs[0].Err, h.Bye = evil, evil, evil, evil
		h.GPUs[0].State, h.GPUs[0].Evidence, h.GPUs[0].Action, h.Host.Driver = hivebeat.GPUState(evil), evil, evil, evil
		h.Collect = map[string]string{"gpu": evil}
		w := h.workers[0]
		w.Model, w.State, w.Reason, w.Endpoint, w.Zone = evil, evil, evil, `javascript:window.hurt=3`, evil
		w.Labels = map[string]string{evil: evil, "__proto__": evil, "constructor": evil}
		w.Conn, w.GPUs, w.On, w.Fault, w.MemoryConflict = evil, []string{evil}, []string{evil}, evil, evil
		w.GPUFault = &api.GPUFault{GPU: evil, State: hivebeat.GPUState(evil), Evidence: evil, Action: evil}
		w.Live, w.Cause = hivebeat.Live(evil), hivebeat.Cause(evil)
		s.queen.tell(time.Now(), w, hivebeat.EventData{Kind: hivebeat.Kind(evil), From: evil, To: evil, Cause: hivebeat.Cause(evil), Reason: evil})
		s.queen.unsure = []string{evil}
	})
	worker := s.queen.byID["gpu-01"].workers[0].Worker
	tab := open(t, s.origin(), "/", 1440, 900, light)
	for _, hash := range []string{"#/", "#/workers", "#/hives/gpu-01", "#/hives/gpu-01/workers/" + worker, "#/events", "#/?as=rows"} {
		tab.goTo(hash)
		tab.until(moment, hash+" shows the text as it is", `document.querySelector('main').innerText.includes('<img src=/nothing.png')`)
		if n := get[int](tab, `document.querySelectorAll('img, body script, iframe, object').length + (window.hurt || 0)`); n != 0 {
			t.Errorf("%s: the text became markup", hash)
		}
		// Everything on the page, and in its tooltips and names for people who cannot see.
		plaintexttest.Check(t, hash, strings.Join(get[[]string](tab, `[document.title, document.body.innerText,
			...[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).filter(a => a.name !== 'href' && a.name !== 'value').map(a => a.value)]`), "\n"))
		if bad := get[[]string](tab, `[...document.querySelectorAll('a')].map(a => a.href).filter(h => !h.startsWith(location.origin))`); len(bad) > 0 {
			t.Errorf("%s: links that lead elsewhere: %v", hash, bad)
		}
	}
}

// Names for people who cannot see, and colours that stay as they were chosen.
func TestNamesAndColours(t *testing.T) {
	s := serve(t, 3, 3)
	tab := open(t, s.origin(), "/", 1440, 900, light)
	for _, hash := range []string{"#/", "#/?as=rows", "#/workers", "#/events", "#/hives/gpu-01", "#/hives/gpu-01/workers/flux"} {
		tab.goTo(hash)
		tab.until(moment, hash, `document.querySelector('.card, .row:not(.head), .event, dl div')`)
		if bad := get[[]string](tab, `[...document.querySelectorAll('a, button, input, select, [role=img], [role=grid]')].filter(e => !e.closest('[hidden]') && !(e.innerText?.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML.slice(0, 120))`); len(bad) > 0 {
			t.Errorf("%s: without a name: %q", hash, bad)
		}
		if n := get[int](tab, `document.querySelectorAll('[id]').length - new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size`); n != 0 {
			t.Errorf("%s: %d ids stand twice", hash, n)
		}
		if w := get[int](tab, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); w > 0 {
			t.Errorf("%s: %d px wider than the window", hash, w)
		}
	}
	ground := `getComputedStyle(document.documentElement).backgroundColor`
	was := get[string](tab, ground)
	get[any](tab, `document.querySelector('#theme').click()`)
	get[any](tab, `document.querySelector('#theme').click()`)
	now := get[string](tab, ground)
	if now == was || get[string](tab, `document.querySelector('#theme').innerText`) != "Dark" {
		t.Errorf("dark is %s, light was %s", now, was)
	}
	get[any](tab, `location.reload()`)
	tab.until(moment, "the choice is kept", "document.body && "+ground+" === '"+now+"' && document.querySelector('#theme')?.innerText === 'Dark'")
}

func TestPhone(t *testing.T) {
	s := serve(t, 50, 8)
	tab := open(t, s.origin(), "/", 360, 740, dark, still)
	for _, hash := range []string{"#/", "#/?as=cards", "#/workers", "#/events", "#/hives/gpu-05", "#/hives/gpu-01/workers/flux"} {
		tab.goTo(hash)
		tab.until(moment, hash, `document.querySelector('.card, .row:not(.head):not(.waiting), .event, dl div')`)
		if w := get[int](tab, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); w > 0 {
			t.Errorf("%s: %d px wider than a phone", hash, w)
		}
	}
}

// Cards show the workers of each hive, no matter how many other hives there are.
func TestCardsOfAFewAmongMany(t *testing.T) {
	s := serve(t, 400, 5)
	s.queen.judge("gpu-399", s.queen.byID["gpu-399"].workers[3].Worker, hivebeat.Late, "", "")
	tab := open(t, s.origin(), "/#/?text=gpu-39", 1440, 900, light)
	tab.until(moment, "cards with their workers", `document.querySelectorAll('.card').length === 10 && document.querySelectorAll('.card li').length === 50`)
	tab.until(moment, "the late one stands first", `[...document.querySelectorAll('.card')].at(-1).querySelector('li').classList.contains('late')`)
}

// If the server has no stream left, the page polls instead.
func TestNoStreamLeft(t *testing.T) {
	s := serve(t, 3, 3)
	s.config.MaxStreams = 1
	s.stop()
	s.start()
	first := open(t, s.origin(), "/", 800, 600, light)
	first.shows("#sure", "Sure")
	second := open(t, s.origin(), "/", 800, 600, light)
	second.allow = []string{"503"}
	second.shows("#sure", "Sure")
	s.queen.judge("gpu-01", "whisper", hivebeat.Lost, hivebeat.CauseExit, "")
	second.shows("#sentence", "1 worker lost")
	second.until(moment, "its card too", `document.querySelector('.card li.lost')`)
}

// If a token is required, the page appears after a login, and reports a token that is no longer valid.
func TestToken(t *testing.T) {
	s := serve(t, 3, 3)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("a-token-of-this-test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.config.TokenFile = file
	s.stop()
	s.start()
	tab := open(t, s.origin(), "/", 1000, 700, light)
	tab.allow = []string{"401", "Password forms should"}
	tab.until(moment, "the login", `document.activeElement?.id === 'token'`) // keys go to what has the focus
	tab.keys("a-token-of-this-test" + kb.Enter)
	tab.until(moment, "the page after it", `document.querySelectorAll('.card').length === 3`)
	tab.shows("#sure", "Sure")
	if err := os.WriteFile(file, []byte("another-token-of-this-test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tab.shows("#sure", "Cut off")
	tab.shows("#sentence", "sign in")
	tab.shows("#login", "Sign in")
}
