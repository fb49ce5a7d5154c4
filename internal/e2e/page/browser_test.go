//go:build e2e

package page

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// moment is how long a page may take for anything that does not wait. It is generous, because
// the machine may be busy.
const moment = 30 * time.Second

// chromium returns the path of the browser. Without one it skips the test.
// HIVEBEAT_CHROMIUM names another browser; "required" turns a missing one into an error.
func chromium(tb testing.TB) string {
	tb.Helper()
	want := os.Getenv("HIVEBEAT_CHROMIUM")
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if want != "" && want != "required" {
		names = []string{want}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if want != "" {
		tb.Fatalf("no browser: none of %s is there\nhint: apt-get install chromium", strings.Join(names, ", "))
	}
	tb.Skip("no browser, so the page is not looked at: apt-get install chromium, or set HIVEBEAT_CHROMIUM to its path")
	return ""
}

// tab is a page in its own browser. An error in the console or a request to another origin
// fails the test when it ends.
type tab struct {
	tb     testing.TB
	ctx    context.Context
	origin string

	mu       sync.Mutex
	console  []string
	strays   []string
	requests int
	allow    []string // parts of console messages that are allowed
}

// open starts a browser with the given window size and opens the page at path.
func open(tb testing.TB, origin, path string, width, height int64, media ...emulation.MediaFeature) *tab {
	tb.Helper()
	t := &tab{tb: tb, origin: origin}
	ctx, cancel := chromedp.NewContext(tb.Context(),
		chromedp.WithAllocatorOptions(chromedp.ExecPath(chromium(tb)), chromedp.NoSandbox, chromedp.Headless, chromedp.UserDataDir(tb.TempDir()),
			chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("enable-precise-memory-info", true), chromedp.Flag("hide-scrollbars", false)),
		chromedp.WithListener(t.listen))
	t.ctx = ctx
	tb.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !strings.Contains(err.Error(), "canceled") {
			tb.Logf("closing the browser: %v", err)
		}
		cancel()
		t.check()
	})
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height)); err != nil {
		tb.Fatalf("starting the browser: %v", err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		tb.Fatal(err)
	}
	var features []*emulation.MediaFeature
	for i := range media {
		features = append(features, &media[i])
	}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		tb.Fatal(err)
	}
	t.do(chromedp.Navigate(origin + path))
	return t
}

func (t *tab) listen(ev any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		if ev.Type == "error" || ev.Type == "warning" {
			t.console = append(t.console, fmt.Sprint(ev.Type, ": ", string(ev.Args[0].Value)))
		}
	case *runtime.EventExceptionThrown:
		text := ev.ExceptionDetails.Text
		if e := ev.ExceptionDetails.Exception; e != nil {
			text += " " + e.Description
		}
		t.console = append(t.console, text)
	case *log.EventEntryAdded:
		t.console = append(t.console, fmt.Sprint(ev.Entry.Level, ": ", ev.Entry.Text, " ", ev.Entry.URL))
	case *network.EventRequestWillBeSent:
		t.requests++
		u, err := url.Parse(ev.Request.URL)
		if err != nil || u.Scheme+"://"+u.Host != t.origin {
			t.strays = append(t.strays, ev.Request.URL)
		}
	}
}

// check fails the test if the page did something that it must never do.
func (t *tab) check() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, line := range t.console {
		if !slices.ContainsFunc(t.allow, func(s string) bool { return strings.Contains(line, s) }) {
			t.tb.Errorf("console: %s", line)
		}
	}
	for _, u := range t.strays {
		t.tb.Errorf("a request left the origin: %s", u)
	}
	if t.requests == 0 {
		t.tb.Error("no request was seen: the test does not watch what it should")
	}
}

// do runs actions, for at most moment.
func (t *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, moment)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.tb.Fatalf("in the browser: %v", err)
	}
}

// get evaluates a JavaScript expression.
func get[T any](t *tab, expression string) T {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, moment)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.tb.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until a JavaScript expression is true.
func (t *tab) until(most time.Duration, what, expression string) {
	t.tb.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, most)
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && ok {
			return
		}
		if err != nil && ctx.Err() == nil {
			t.tb.Fatalf("%s: %v", what, err)
		}
		select {
		case <-ctx.Done():
			t.shoot("failed")
			text, _ := chromedp.Run(t.ctx, chromedp.Evaluate[string]("document.title + '\\n' + document.body.innerText"))
			t.tb.Fatalf("not within %s: %s\nthe page shows:\n%.3000s", most, what, text)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// shows waits until the first element of a CSS selector contains a text.
func (t *tab) shows(css, text string) {
	t.tb.Helper()
	t.until(moment, fmt.Sprintf("%s shows %q", css, text), fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", css, text))
}

func (t *tab) keys(keys string) {
	t.tb.Helper()
	t.do(chromedp.KeyEvent(keys))
}

// goTo follows a link within the page.
func (t *tab) goTo(hash string) {
	t.tb.Helper()
	get[string](t, fmt.Sprintf("location.hash = %q", hash))
}

// shoot writes a screenshot of the visible part to the artefacts folder.
func (t *tab) shoot(name string) {
	t.tb.Helper()
	dir := os.Getenv("HIVEBEAT_ARTEFACTS")
	if dir == "" {
		dir = t.tb.TempDir()
	}
	dir = filepath.Join(dir, "page")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, moment)
	defer cancel()
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.tb.Errorf("screenshot %s: %v", name, err)
		return
	}
	file := filepath.Join(dir, strings.ReplaceAll(t.tb.Name(), "/", "-")+"-"+name+".png")
	if err := os.WriteFile(file, shot, 0o644); err != nil {
		t.tb.Error(err)
	}
	t.tb.Logf("screenshot: %s", file)
}
