//go:build e2e

package page

import (
	"os"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/beatfabric/hivebeat"
)

// heap returns the memory of the page in MiB, after a garbage collection.
func (t *tab) heap() (script, rest float64) {
	t.tb.Helper()
	if _, err := chromedp.Call(t.ctx, heapprofiler.CollectGarbage, cdp.Empty{}); err != nil {
		t.tb.Fatal(err)
	}
	u, err := chromedp.Call(t.ctx, runtime.GetHeapUsage, cdp.Empty{})
	if err != nil {
		t.tb.Fatal(err)
	}
	return u.UsedSize / (1 << 20), (u.EmbedderHeapUsedSize + u.BackingStorageSize) / (1 << 20)
}

// paints returns the times of the first paint and of the largest one, in ms.
const paints = `new Promise(ok => new PerformanceObserver(l => ok([performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1, l.getEntries().at(-1).startTime].map(Math.round))).observe({type: 'largest-contentful-paint', buffered: true}))`

// 10,000 hives and 200,000 workers: only the visible rows exist, and every part of the list
// can be reached. HIVEBEAT_PAGE_SOAK=10m keeps it running and logs memory.
func TestLarge(t *testing.T) {
	s := serve(t, 10_000, 20)
	tab := open(t, s.origin(), "/", 1920, 1080, dark)
	tab.until(moment, "hives are rows", `document.querySelectorAll('.hive-rows .rows .row:not(.waiting)').length > 10`)
	t.Logf("first and largest paint: %v ms", get[[]int](tab, paints))
	tab.shows(".hero .workers .figure", "200,000")
	script, rest := tab.heap()
	t.Logf("fleet: heap %.1f MiB, beside it %.1f MiB, %d elements", script, rest, get[int](tab, `document.getElementsByTagName('*').length`))

	tab.goTo("#/workers")
	tab.until(moment, "all workers are known", `document.querySelector('.worker-rows')?.getAttribute('aria-rowcount') === '200001'`)
	get[any](tab, `document.querySelector('.rows .row[tabindex="0"]').focus()`)
	tab.keys(kb.End)
	tab.until(moment, "End goes to the last worker", `document.activeElement.getAttribute('aria-rowindex') === '200001' && document.activeElement.innerText.includes('gpu-10000/')`)
	tab.keys(kb.Home)
	tab.until(moment, "Home to the first", `document.activeElement.getAttribute('aria-rowindex') === '2' && document.activeElement.innerText.includes('gpu-00001/')`)

	// Scrolls through a part of the list like a mouse wheel, and records the time between frames.
	frames := get[[]float64](tab, `new Promise(done => {
		const gaps = []; let last = performance.now(), most = 0;
		const step = now => {
			gaps.push(now - last); last = now;
			most = Math.max(most, document.querySelectorAll('.rows .row').length);
			scrollBy(0, 240);
			if (gaps.length < 200) requestAnimationFrame(step);
			else { gaps.sort((a, b) => a - b); done([gaps[100], gaps[190], gaps.at(-1), most]); }
		};
		requestAnimationFrame(step);
	})`)
	t.Logf("scrolling 48,000 px: frames p50 %.0f ms, p95 %.0f ms, max %.0f ms", frames[0], frames[1], frames[2])
	if frames[3] > 150 {
		t.Errorf("%.0f rows were there at once", frames[3])
	}
	tab.until(moment, "what is in view is filled", `[...document.querySelectorAll('.rows .row')].filter(r => { const b = r.getBoundingClientRect(); return b.bottom > 200 && b.top < innerHeight }).every(r => !r.classList.contains('waiting'))`)

	// A visible worker dies: its row says so, and no other row is rebuilt.
	tab.keys(kb.Home)
	tab.until(moment, "at the top", `scrollY < 400 && document.querySelector('.row[aria-rowindex="3"]')?.innerText.includes('whisper')`)
	get[any](tab, `window.row = document.querySelector('.row[aria-rowindex="3"]'), null`)
	s.queen.judge("gpu-00001", "whisper", hivebeat.Lost, hivebeat.CauseExit, "")
	tab.until(moment, "its row says lost", `window.row.isConnected && window.row.innerText.includes('lost')`)

	// A queen skips at most 100,000 rows of a sorted list: the page shows where the list ends.
	tab.goTo("#/workers?sort=-done")
	tab.until(moment, "sorted", `document.querySelector('.c-done[aria-sort=descending]') && document.querySelector('.rows .row:not(.waiting)')`)
	tab.until(moment, "the end is told", `document.querySelector('.more').innerText.includes('first 100,000 of 200,000')`)
	get[any](tab, `document.querySelector('.rows .row[tabindex="0"]').focus()`)
	tab.keys(kb.End)
	tab.until(moment, "End goes to the last of them", `document.activeElement.getAttribute('aria-rowindex') === '100001' && !document.activeElement.classList.contains('waiting')`)

	soak, _ := time.ParseDuration(os.Getenv("HIVEBEAT_PAGE_SOAK"))
	for end := time.Now().Add(soak); time.Now().Before(end); {
		<-time.After(min(time.Minute, time.Until(end))) // memory that grows shows with time
		tab.goTo([]string{"#/workers", "#/"}[int(time.Until(end)/time.Minute)%2])
		script, rest = tab.heap()
		t.Logf("%s: heap %.1f MiB, beside it %.1f MiB", soak-time.Until(end).Round(time.Second), script, rest)
	}
	script, rest = tab.heap()
	t.Logf("workers: heap %.1f MiB, beside it %.1f MiB, %d elements", script, rest, get[int](tab, `document.getElementsByTagName('*').length`))
	if script+rest > 150 {
		t.Errorf("the page holds %.0f MiB", script+rest)
	}
}
