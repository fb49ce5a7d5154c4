//go:build e2e

package page

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// The real thing: hivebeat up --demo, and a worker of this machine that is killed.
func TestDemo(t *testing.T) {
	chromium(t) // first: without a browser the rest is a waste of time
	bin := rig.Hivebeat(t)
	port, web := rig.Port(t), rig.Port(t)
	up := rig.Start(t, "up", nil, bin, "up", "--demo", "--id", "here", "--port", fmt.Sprint(port), "--http", fmt.Sprintf("127.0.0.1:%d", web))
	up.Said("web page and HTTP API", moment)
	origin := fmt.Sprintf("http://127.0.0.1:%d", web)

	tab := open(t, origin, "/", 1440, 900, light, still)
	tab.allow = []string{"404", "ERR_", "503"} // a worker that is not known yet; connections that are refused after its end
	tab.shows("#sure", "Sure")
	tab.until(moment, "the demo's hives and this machine's", `document.querySelectorAll('.card').length === 5`)
	get[bool](tab, `window.stays = true`)

	worker := rig.Start(t, "worker", nil, bin, "worker", "--nats", fmt.Sprintf("nats://127.0.0.1:%d", port), "--hive", "here", "--id", "victim", "--model", "test/model", "--every", "1s")
	mine := `[...document.querySelectorAll('.card')].find(c => c.innerText.includes('here'))?.querySelector('li')`
	tab.until(moment, "the worker is in its card", mine+`?.innerText.includes('victim') && `+mine+`.classList.contains('alive')`)
	tab.until(moment, "that it joined is told", `[...document.querySelectorAll('.feed .event')].some(e => e.innerText.includes('here/victim') && e.innerText.includes('joined'))`)
	tab.shoot("alive")
	worker.Kill()
	began := time.Now()
	tab.until(moment, "it is lost without a reload", mine+`?.classList.contains('lost')`)
	t.Logf("lost on the page %s after SIGKILL", time.Since(began).Round(10*time.Millisecond))
	tab.until(moment, "that it was lost is told", `[...document.querySelectorAll('.feed .event.lost')].some(e => e.innerText.includes('here/victim'))`)
	tab.shows("#sentence", "worker")
	tab.shoot("lost")

	tab.goTo("#/workers?live=lost")
	tab.until(moment, "found by its verdict", `document.querySelector('.worker-rows .rows .row')?.innerText.includes('victim')`)
	tab.goTo("#/workers?text=VICTIM")
	tab.until(moment, "found by its name", `document.querySelector('.worker-rows')?.getAttribute('aria-rowcount') === '2'`)
	tab.goTo("#/workers?sort=-done")
	tab.until(moment, "all of them, sorted", `document.querySelectorAll('.worker-rows .rows .row:not(.waiting)').length >= 10`)
	tab.goTo("#/hives/here/workers/victim")
	tab.shows("h1", "lost")
	tab.shows(".heading .sentence", "its process ended")
	tab.until(moment, "its history", `document.querySelectorAll('.feed .event').length >= 2`)
	tab.shoot("worker")
	tab.goTo("#/hives/gpu-01")
	tab.until(moment, "a hive with its GPUs and workers", `document.querySelectorAll('.gpu').length === 2 && document.querySelectorAll('.worker-rows .rows .row').length === 3`)
	tab.goTo("#/events?kinds=lost")
	tab.until(moment, "events by kind", `document.querySelector('.events .event')?.innerText.includes('lost')`)
	tab.goTo("#/")
	tab.until(moment, "cards again", `document.querySelectorAll('.card').length === 5`)

	up.Interrupt()
	tab.shows("#sure", "Cut off")
	rig.Start(t, "up again", nil, bin, "up", "--demo", "--id", "here", "--port", fmt.Sprint(port), "--http", strings.TrimPrefix(origin, "http://"))
	tab.until(2*moment, "sure again, of another queen", `document.querySelector('#sure').textContent === 'Sure' && document.querySelectorAll('.card').length === 5`)
	if !get[bool](tab, `window.stays === true`) {
		t.Error("the page was loaded again")
	}
}
