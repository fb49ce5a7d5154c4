package httpapi

import (
	"bufio"
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat/internal/plaintext/plaintexttest"
	"github.com/beatfabric/hivebeat/queen/api"
)

// hostile answers with hostile text wherever text may be.
type hostile struct{ refuses bool }

func (h hostile) Answer(context.Context, string, api.Request) api.Answer {
	a := new(api.Answer)
	plaintexttest.Fill(a)
	if !h.refuses {
		a.Error = nil
	}
	return *a
}

// What curl prints of the API makes a terminal do nothing, and decodes to the very text.
func TestTextIsOnlyText(t *testing.T) {
	evil := url.QueryEscape(plaintexttest.Evil)
	for what, h := range map[string]hostile{"answer": {}, "error": {refuses: true}} {
		_, base := serve(t, h, Config{Ready: func() []string { return []string{plaintexttest.Evil} }})
		for _, r := range verbRoutes() {
			if r.path == pathWatch && !h.refuses {
				continue // it does not end
			}
			path := strings.NewReplacer("{hive}", "h", "{worker}", "w").Replace(r.path)
			a := ask(t, r.method, base+path, "{}", "Content-Type: application/json")
			plaintexttest.CheckJSON(t, what+" of "+r.method+" "+path, a.body)
			a = ask(t, r.method, base+path+"?"+evil+"="+evil, "{}", "Content-Type: application/json")
			plaintexttest.CheckJSON(t, "a bad parameter of "+r.method+" "+path, a.body)
		}
		for _, path := range []string{"/readyz", "/v1/" + evil, "/" + evil} {
			plaintexttest.CheckJSON(t, what+" of "+path, ask(t, http.MethodGet, base+path, "").body)
		}
		plaintexttest.Printable(t, "of another method", ask(t, "PUT", base+"/v1/summary", "").body)
		plaintexttest.Printable(t, "of the login", ask(t, http.MethodGet, base+pathLogin+"?next="+evil, "").body)
	}

	_, base := serve(t, hostile{}, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, base+pathWatch, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	a, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	lines := bufio.NewReader(a.Body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		plaintexttest.Printable(t, "stream", line)
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			plaintexttest.CheckJSON(t, "stream", data)
			return
		}
	}
}
