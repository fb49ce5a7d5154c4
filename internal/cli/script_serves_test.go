package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdReceive starts a receiver of webhooks. VAR is its URL. Each request adds a line to FILE:
// its id, whether it is signed, and the body.
func cmdReceive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: receive VAR FILE")
	}
	out, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, "%s %v %s\n", r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Signature") != "", body)
	}))
	ts.Setenv(args[0], srv.URL)
	ts.Defer(func() {
		srv.Close()
		_ = out.Close()
	})
}

// cmdServes waits until the content of URL matches RE; with ! the server must not answer.
func cmdServes(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || !neg && len(args) != 2 {
		ts.Fatalf("usage: serves URL RE, or ! serves URL")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	get := func() (string, error) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, args[0], nil)
		if err != nil {
			return "", err
		}
		w, err := client.Do(r)
		if err != nil {
			return "", err
		}
		defer w.Body.Close()
		b, err := io.ReadAll(w.Body)
		return string(b), err
	}
	if neg {
		if text, err := get(); err == nil {
			ts.Fatalf("%s answers: %s", args[0], text)
		}
		return
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	wait(ts, func() (bool, string) {
		text, err := get()
		return err == nil && re.MatchString(text), fmt.Sprintf("%s does not serve %q: %v\n%s", args[0], args[1], err, text)
	})
}
