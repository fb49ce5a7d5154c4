package cli

import (
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdFetch writes the answer of a URL to a file, and checks its status.
func cmdFetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: fetch FILE STATUS URL [HEADER]…")
	}
	q, err := http.NewRequest(http.MethodGet, args[2], nil)
	ts.Check(err)
	for _, h := range args[3:] {
		name, value, _ := strings.Cut(h, ": ")
		if q.Header.Set(name, value); name == "Host" {
			q.Host = value
		}
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	a, err := (&http.Client{Transport: tr, Timeout: patience}).Do(q)
	ts.Check(err)
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	ts.Check(err)
	if strconv.Itoa(a.StatusCode) != args[1] {
		ts.Fatalf("%s: %d, want %s:\n%s", args[2], a.StatusCode, args[1], b)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// cmdTaken takes an address, unless it is in use already.
func cmdTaken(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: taken HOST:PORT")
	}
	if ln, err := net.Listen("tcp", args[0]); err == nil {
		ts.Defer(func() { ln.Close() })
	}
}
