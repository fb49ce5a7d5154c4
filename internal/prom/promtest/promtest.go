// Package promtest checks collectors: their style, and their names against a golden
// list.
package promtest

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

var update = flag.Bool("update", false, "rewrite testdata/metrics.txt")

// Gather returns one line per metric family of the collectors, with type, name and
// labels, and the registry that holds them.
func Gather(t testing.TB, list ...prometheus.Collector) (names []string, reg *prometheus.Registry) {
	t.Helper()
	reg = prometheus.NewPedanticRegistry()
	for _, c := range list {
		if err := reg.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		var list []string
		for l := range labels {
			list = append(list, l)
		}
		slices.Sort(list)
		names = append(names, fmt.Sprintf("%s %s{%s}", strings.ToLower(f.GetType().String()), f.GetName(), strings.Join(list, ",")))
	}
	return names, reg
}

// Golden checks style and names: a changed name breaks the rules of operators.
func Golden(t *testing.T, list ...prometheus.Collector) {
	t.Helper()
	names, reg := Gather(t, list...)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	const golden = "testdata/metrics.txt"
	text := strings.Join(names, "\n") + "\n"
	if *update {
		if err := os.MkdirAll("testdata", 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("names have changed (go test -update rewrites them):\n%s", d)
	}
}

// Scrape returns the response of a handler.
func Scrape(t testing.TB, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}
