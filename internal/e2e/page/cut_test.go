//go:build e2e

package page

import (
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// The server stops. The page reports that at once, and recovers by itself.
func TestCutOffWhenTheServerStops(t *testing.T) {
	s := serve(t, 3, 3)
	tab := open(t, s.origin(), "/", 1440, 900, light, still)
	tab.allow = []string{"ERR_", "503"} // the browser reports failed connections by itself
	tab.until(moment, "cards are there", `document.querySelectorAll('.card').length === 3`)
	tab.shows("#sure", "Sure")
	get[bool](tab, `window.stays = true`)
	s.stop()
	began := time.Now()
	tab.shows("#sure", "Cut off")
	t.Logf("cut off %s after the server stopped", time.Since(began).Round(100*time.Millisecond))
	tab.until(moment, "what is shown is dimmed", `+getComputedStyle(document.querySelector('main')).opacity < 0.6`)
	tab.until(moment, "the title says so", `document.title.startsWith('✕ cut off')`)
	tab.until(moment, "it is said aloud", `document.querySelector('#cry').textContent.includes('Cut off')`)
	tab.until(moment, "its age counts", `parseInt(document.querySelector('#heard').textContent.match(/for (\d+)s/)?.[1]) >= 3`)
	tab.until(moment, "so do the ages below", `parseInt(document.querySelector('.card header .age').textContent) >= 3`)
	tab.shoot("cut")
	s.queen.judge("gpu-03", "nomic", hivebeat.Lost, hivebeat.CauseMissed, "while nobody looked")
	s.start()
	tab.shows("#sure", "Sure")
	tab.until(moment, "it is bright again", `getComputedStyle(document.querySelector('main')).opacity === '1'`)
	tab.until(moment, "what happened meanwhile is there", `document.querySelector('.card li.lost') && document.querySelector('.feed .event.lost')`)
	if !get[bool](tab, `window.stays === true`) {
		t.Error("the page was loaded again")
	}
}

// The connection goes dead silently. Data that was held up must not look new when it arrives.
func TestCutOffWhenNothingComes(t *testing.T) {
	s := serve(t, 3, 3)
	proxy := bustest.NewProxy(t, s.origin())
	origin := strings.Replace(proxy.URL(), "nats://", "http://", 1)
	tab := open(t, origin, "/", 1440, 900, dark, still)
	tab.allow = []string{"ERR_", "503"}
	tab.shows("#sure", "Sure")
	tab.until(moment, "cards are there", `document.querySelectorAll('.card').length === 3`)
	proxy.Stall()
	began := time.Now()
	tab.shows("#sure", "Cut off")
	t.Logf("cut off %s after the line went dead", time.Since(began).Round(100*time.Millisecond))
	s.queen.judge("gpu-03", "nomic", hivebeat.Lost, hivebeat.CauseMissed, "while nobody looked")
	// From here on, the page must know of the lost worker whenever it is sure.
	get[any](tab, `window.wrong = '', new MutationObserver(() => {
		if (document.querySelector('#sure').textContent === 'Sure' && document.querySelector('#sentence').textContent.startsWith('All')) window.wrong ||= document.querySelector('#sentence').textContent;
	}).observe(document.querySelector('#verdict'), {subtree: true, childList: true, characterData: true}) ?? null`)
	proxy.Resume()
	tab.shows("#sure", "Sure")
	tab.shows("#sentence", "1 worker lost")
	if wrong := get[string](tab, `window.wrong`); wrong != "" {
		t.Errorf("old as new: it was sure that %q", wrong)
	}
	tab.until(moment, "the card knows it", `document.querySelector('.card li.lost')`)
}

// The HTTP server is up, but its queen is not.
func TestQueenDoesNotAnswer(t *testing.T) {
	s := serve(t, 3, 3)
	tab := open(t, s.origin(), "/", 1440, 900, light)
	tab.allow = []string{"503"}
	tab.shows("#sure", "Sure")
	s.queen.refuse("this queen does not run")
	tab.shows("#sure", "Cut off")
	tab.shows("#sentence", "this queen does not run")
	s.queen.refuse("")
	tab.shows("#sure", "Sure")
}
