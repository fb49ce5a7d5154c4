//go:build e2e

package page

import (
	"testing"

	"github.com/chromedp/cdproto/emulation"

	"github.com/beatfabric/hivebeat"
)

var (
	light = emulation.MediaFeature{Name: "prefers-color-scheme", Value: "light"}
	dark  = emulation.MediaFeature{Name: "prefers-color-scheme", Value: "dark"}
	still = emulation.MediaFeature{Name: "prefers-reduced-motion", Value: "reduce"}
)

// trouble makes some things go wrong.
func (q *fakeQueen) trouble() {
	w := func(hive, k int) (string, string) {
		h := q.hives[hive%len(q.hives)]
		return h.Hive, h.workers[k%len(h.workers)].Worker
	}
	hive, worker := w(1, 2)
	q.judge(hive, worker, hivebeat.Late, "", "not heard for 46 s, promised every 30 s")
	hive, worker = w(0, 1)
	q.judge(hive, worker, hivebeat.Lost, hivebeat.CauseExit, "its process 1001 ended without a goodbye")
	hive, worker = w(2, 0)
	q.judge(hive, worker, hivebeat.Left, hivebeat.CauseGoodbye, "")
}

// TestScreens takes pictures of the views, for people to look at. It fails only for errors in
// the console.
func TestScreens(t *testing.T) {
	for _, c := range []struct {
		name           string
		hives, workers int
		width, height  int64
		media          emulation.MediaFeature
		paths          []string
	}{
		{"fleet-light", 6, 4, 1440, 900, light, []string{"/"}},
		{"small-light", 3, 3, 1440, 900, light, []string{"/", "/#/hives/gpu-01", "/#/hives/gpu-01/workers/whisper", "/#/events", "/#/workers"}},
		{"small-dark", 3, 3, 1440, 900, dark, []string{"/", "/#/hives/gpu-01"}},
		{"fifty-light", 50, 8, 1440, 900, light, []string{"/", "/#/workers?sort=-live"}},
		{"phone", 3, 3, 390, 844, light, []string{"/", "/#/workers", "/#/hives/gpu-02", "/#/hives/gpu-01/workers/whisper"}},
		{"large-dark", 10000, 20, 1920, 1080, dark, []string{"/", "/#/workers"}},
		{"large-phone", 10000, 20, 390, 844, dark, []string{"/", "/#/workers"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, c.hives, c.workers)
			tab := open(t, s.origin(), "/", c.width, c.height, c.media, still)
			tab.shows("#sure", "Sure")
			s.queen.trouble()
			for i, p := range c.paths {
				tab.goTo("#" + p[min(len(p), 2):])
				tab.until(moment, "the view is filled", `document.querySelector('.card, .row:not(.head):not(.waiting), .event, dl div')`)
				tab.until(moment, "charts are drawn or not there", `!document.querySelector('.history') || document.querySelector('.history canvas') || document.querySelector('.history .empty:not([hidden])')`)
				tab.until(moment, "what happened is shown", `!document.querySelector('.feed') || document.querySelector('.feed .event')`)
				tab.until(moment, "what went wrong is shown", `document.querySelector('.card li.lost, .rows .live.lost, .event.lost, .event.late, h1 .lost')`)
				tab.until(moment, "nothing is waited for", `!document.querySelector('.row.waiting')`)
				tab.until(moment, "counts say what is missing, and legends the same", `!document.querySelector('.hero') || document.querySelector('.hero .workers .figure').innerText.includes('alive, 2 missing') &&
					(!document.querySelector('.history canvas') || ['late 1', 'lost 1'].every(s => document.querySelector('.history .chart .keys').textContent.includes(s)))`)
				tab.shoot(string(rune('a' + i)))
			}
		})
	}
}
