package hivebeat_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/beatfabric/hivebeat"
)

// Notices encode and parse as in the vectors.
func TestNoticeVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/wire/v1/notices.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Payload, Refuse string
		Value                 struct {
			ID            string
			Inc, Believed uint64
		}
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) < 10 {
		t.Fatal(len(vectors), err)
	}
	for _, v := range vectors {
		n, ok := hivebeat.ParseNotice([]byte(v.Payload))
		switch want := (hivebeat.Notice{ID: v.Value.ID, Inc: v.Value.Inc, Believed: v.Value.Believed}); {
		case ok != (v.Refuse == ""):
			t.Errorf("%s: %q is a notice: %t", v.Name, v.Payload, ok)
		case ok && n != want:
			t.Errorf("%s: %+v", v.Name, n)
		case ok && string(n.Append(nil)) != v.Payload:
			t.Errorf("%s: is written as %q", v.Name, n.Append(nil))
		}
	}
}

// Requests to forget a GPU encode and parse as in the vectors.
func TestForgetVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/wire/v1/forget.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Payload, Refuse string
		Value                 struct{ GPU, Asker string }
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) < 10 {
		t.Fatal(len(vectors), err)
	}
	for _, v := range vectors {
		f, ok := hivebeat.ParseForget([]byte(v.Payload))
		switch want := (hivebeat.Forget{GPU: v.Value.GPU, Asker: v.Value.Asker}); {
		case ok != (v.Refuse == ""):
			t.Errorf("%s: %q is a request to forget: %t", v.Name, v.Payload, ok)
		case ok && f != want:
			t.Errorf("%s: %+v", v.Name, f)
		case ok && string(f.Append(nil)) != v.Payload:
			t.Errorf("%s: is written as %q", v.Name, f.Append(nil))
		}
		if _, notice := hivebeat.ParseNotice([]byte(v.Payload)); ok && notice {
			t.Errorf("%s: %q is a notice too", v.Name, v.Payload)
		}
	}
}

func TestNoticeText(t *testing.T) {
	for _, n := range []hivebeat.Notice{{ID: "w", Inc: 1, Believed: 1}, {ID: "w", Inc: 1, Believed: 2}} {
		text, hint := n.Text("worker")
		if !strings.Contains(text, "this worker") || hint == "" || (n.Inc == n.Believed) != strings.Contains(text, "under its id") {
			t.Errorf("%+v: %q, %q", n, text, hint)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add("refused w 1 2")
	f.Add("refused w 1 ")
	f.Fuzz(func(t *testing.T, payload string) {
		n, ok := hivebeat.ParseNotice([]byte(payload))
		if !ok {
			return
		}
		if again, ok := hivebeat.ParseNotice(n.Append(nil)); !ok || again != n {
			t.Errorf("%q is %+v, and then %+v", payload, n, again)
		}
	})
}
