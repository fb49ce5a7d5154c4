package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdFetch waits until what URL serves matches RE; with ! it must not answer.
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || !neg && len(args) != 2 {
		ts.Fatalf("usage: fetch URL RE, or ! fetch URL")
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
