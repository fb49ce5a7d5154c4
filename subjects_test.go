package hivebeat_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
)

func TestSubjects(t *testing.T) {
	bare, err := hivebeat.NewSubjects("")
	if err != nil {
		t.Fatal(err)
	}
	acme, err := hivebeat.NewSubjects("acme")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ got, want string }{
		{bare.Workers("gpu-01"), "hive.gpu-01.workers"},
		{acme.Workers("gpu-01"), "acme.hive.gpu-01.workers"},
		{acme.Worker("gpu-01", "w"), "acme.hive.gpu-01.workers.w"},
		{bare.WorkersPinned("gpu-01"), "hive.gpu-01.workers.*"},
		{bare.WorkerRollcall("gpu-01"), "hive.gpu-01.rollcall"},
		{bare.Hives(), "queen.hives"},
		{acme.Hive("gpu-01"), "acme.queen.hives.gpu-01"},
		{bare.HiveRollcall(), "queen.rollcall"},
		{bare.HiveRollcallOf("h"), "queen.rollcall.h"},
		{bare.Peers(), "queen.peers"},
		{bare.Event("h", "w", hivebeat.KindLost), "queen.events.h.w.lost"},
		{bare.Event("h", "", hivebeat.KindLost), "queen.events.h.lost"},
		{acme.EventLog("", "", hivebeat.KindBrake), "acme.queen.log.brake"},
		{bare.LiveEvent("h", "w", hivebeat.KindLost), "queen.events.!live.worker.h.w.lost"},
		{acme.LiveEvent("h", "", hivebeat.KindLeft), "acme.queen.events.!live.hive.h.left"},
		{acme.Events(), "acme.queen.events.>"},
		{acme.API("hives"), "acme.queen.api.hives"},
		{acme.Ask("", "hives", ""), acme.API("hives")},
		{acme.Ask("", "hives", "q1"), "acme.queen.api.hives.q1"},
		{acme.Ask("ann", "hold", ""), "acme.queen.as.ann.hold"},
		{bare.Ask("ann", "hold", "q1"), "queen.as.ann.hold.q1"},
		{bare.Bucket(hivebeat.BucketHives), "queen_hives"},
		{acme.Stream(hivebeat.StreamEvents), "acme_QUEEN_EVENTS"},
		{acme.Prefix(), "acme"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	s, _ := hivebeat.NewSubjects("acme")
	for _, subject := range []string{
		"", "hive.h.workers", "acme.hive.h", "acme.hive.h.workers.", "acme.hive.h.workers.a.b", "acme.hive..workers", "acme.hive.h.workersx",
		"acme.hive.a.b.workers", "acme.hive.h.workers.*", "acme.queen.hives", "other.hive.h.workers",
	} {
		if h, w, err := s.ParseWorkers(subject); !errors.Is(err, hivebeat.ErrSubject) {
			t.Errorf("ParseWorkers(%q) = %q, %q, %v; want ErrSubject", subject, h, w, err)
		}
	}
	for _, subject := range []string{"", "queen.hives", "acme.queen.hive", "acme.queen.hives.", "acme.queen.hives.a.b", "acme.queen.hivesx", "acme.queen.hives.>"} {
		if h, err := s.ParseHives(subject); !errors.Is(err, hivebeat.ErrSubject) {
			t.Errorf("ParseHives(%q) = %q, %v; want ErrSubject", subject, h, err)
		}
	}
}

// The subjects of queries are as in the vectors.
func TestSubjectVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/wire/v1/subjects.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Prefix, Subject, Refuse string
		Value                         struct{ Asker, Verb, Queen string }
	}
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		s, err := hivebeat.NewSubjects(v.Prefix)
		if err != nil {
			t.Fatal(err)
		}
		asker, verb, queen, err := s.ParseAPI(v.Subject)
		switch want := map[string]error{"id": hivebeat.ErrID, "subject": hivebeat.ErrSubject}[v.Refuse]; {
		case !errors.Is(err, want) || err == nil && v.Refuse != "":
			t.Errorf("%s: %s: %v, want %q", v.Name, v.Subject, err, v.Refuse)
		case err == nil && (asker != v.Value.Asker || verb != v.Value.Verb || queen != v.Value.Queen):
			t.Errorf("%s: %s: %q %q %q", v.Name, v.Subject, asker, verb, queen)
		case err == nil && s.Ask(asker, verb, queen) != v.Subject:
			t.Errorf("%s: %s is built as %s", v.Name, v.Subject, s.Ask(asker, verb, queen))
		}
	}
	if len(vectors) < 20 {
		t.Errorf("%d vectors", len(vectors))
	}
}

// The subjects of stored and unstored events are as in the vectors.
func TestEventVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/wire/v1/events.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Subject string
		Event         json.RawMessage
	}
	if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) < 3 {
		t.Fatal(len(vectors), err)
	}
	var s hivebeat.Subjects
	for _, v := range vectors {
		var ev hivebeat.Event
		var want bytes.Buffer
		if err := json.Unmarshal(v.Event, &ev); err != nil {
			t.Fatal(err)
		}
		if err := json.Compact(&want, v.Event); err != nil {
			t.Fatal(err)
		}
		if got, err := ev.Encode(); err != nil || string(got) != want.String() {
			t.Errorf("%s: %v\n%s\n%s", v.Name, err, got, want.String())
		}
		at := s.Event(ev.Data.Hive, ev.Data.Worker, ev.Data.Kind)
		if ev.IsLive() {
			at = s.LiveEvent(ev.Data.Hive, ev.Data.Worker, ev.Data.Kind)
		}
		if at != v.Subject {
			t.Errorf("%s: at %s, want %s", v.Name, at, v.Subject)
		}
	}
}

var id = rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`)

// Every subject that is built parses back, and ids equal to words of the grammar cause
// no confusion.
func TestParseWhatIsBuilt(t *testing.T) {
	any := rapid.OneOf(id, rapid.SampledFrom([]string{"hive", "workers", "queen", "hives", "rollcall", "log", "api", "as"}))
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.OneOf(rapid.Just(""), any).Draw(t, "prefix")
		hive, worker := any.Draw(t, "hive"), any.Draw(t, "worker")
		s, err := hivebeat.NewSubjects(prefix)
		if err != nil {
			t.Fatal(err)
		}
		if h, w, err := s.ParseWorkers(s.Workers(hive)); h != hive || w != "" || err != nil {
			t.Fatalf("Workers: %q %q %v", h, w, err)
		}
		if h, w, err := s.ParseWorkers(s.Worker(hive, worker)); h != hive || w != worker || err != nil {
			t.Fatalf("Worker: %q %q %v", h, w, err)
		}
		if h, err := s.ParseHives(s.Hive(hive)); h != hive || err != nil {
			t.Fatalf("Hive: %q %v", h, err)
		}
		if h, err := s.ParseHives(s.Hives()); h != "" || err != nil {
			t.Fatalf("Hives: %q %v", h, err)
		}
		asker, verb, queen := hive, worker, any.Draw(t, "queen")
		for subject, want := range map[string][3]string{
			s.API(verb): {"", verb, ""}, s.Ask("", verb, ""): {"", verb, ""}, s.Ask("", verb, queen): {"", verb, queen},
			s.Ask(asker, verb, ""): {asker, verb, ""}, s.Ask(asker, verb, queen): {asker, verb, queen},
		} {
			if a, v, q, err := s.ParseAPI(subject); [3]string{a, v, q} != want || err != nil {
				t.Fatalf("%s: %q %q %q %v", subject, a, v, q, err)
			}
		}
	})
}

func TestCheckID(t *testing.T) {
	for _, good := range []string{"a", "gpu-01", "A_b-9", strings.Repeat("x", 64)} {
		if err := hivebeat.CheckID("hive", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a.b", "a b", "*", ">", "gpu/1", "größe", strings.Repeat("x", 65), "a\x00"} {
		err := hivebeat.CheckID("hive", bad)
		if !errors.Is(err, hivebeat.ErrID) {
			t.Errorf("%q: %v, want ErrID", bad, err)
		}
	}
	if err := hivebeat.CheckID("worker", "10.0.0.1"); !strings.Contains(err.Error(), `worker "10.0.0.1"`) {
		t.Errorf("%q does not name the offending text", err)
	}
	if _, err := hivebeat.NewSubjects("a.b"); !errors.Is(err, hivebeat.ErrID) {
		t.Errorf("a prefix of two tokens: %v, want ErrID", err)
	}
	for _, answers := range []string{"_INBOX", "_R_", "_GR_"} {
		if _, err := hivebeat.NewSubjects(answers); !errors.Is(err, hivebeat.ErrID) {
			t.Errorf("prefix %s, below which answers go: %v, want ErrID", answers, err)
		}
	}
}

func TestEvent(t *testing.T) {
	s, _ := hivebeat.NewSubjects("acme")
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.FixedZone("", 3600))
	e := s.NewEvent(hivebeat.WorkerEventID("h", 7, "w", 9, hivebeat.KindLost, 3), now, hivebeat.EventData{Hive: "h", Worker: "w", Kind: hivebeat.KindLost, N: 3})
	if e.ID != "h.7.w.3" || e.Type != "hivebeat.worker.lost.v1" || e.Subject != "h/w" || e.Source != "/hivebeat/acme" || e.Time.Location() != time.UTC {
		t.Errorf("worker's event: %+v", e)
	}
	if got := hivebeat.WorkerEventID("h", 7, "w", 9, hivebeat.KindJoined, 1); got != "h.w.9.joined" {
		t.Errorf("joined: %s: a restart of the hive would join it again", got)
	}
	if e := s.NewEvent(hivebeat.HiveEventID("h", 4), now, hivebeat.EventData{Hive: "h", Kind: hivebeat.KindLeft}); e.Type != "hivebeat.hive.left.v1" || e.Subject != "h" || e.ID != "h.4" {
		t.Errorf("hive's event: %+v", e)
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct { // ready and busy are the same to the fabric, and nothing else is
		a, b hivebeat.State
		want bool
	}{{hivebeat.Ready, hivebeat.Busy, true}, {hivebeat.Ready, hivebeat.Draining, false}, {"x", "x", true}} {
		if got := c.a.SameAs(c.b); got != c.want {
			t.Errorf("%s is the same as %s: %t, want %t", c.a, c.b, got, c.want)
		}
	}
	for _, s := range hivebeat.States() {
		if !s.Known() || s.Goodbye() != (s == hivebeat.Stopped || s == hivebeat.Failed) {
			t.Errorf("%s: known %v, goodbye %v", s, s.Known(), s.Goodbye())
		}
	}
	err := error(&hivebeat.Refusal{Reason: hivebeat.RefusedLimit, Key: "model", Detail: "too long"})
	if !errors.Is(err, hivebeat.ErrRefused) || hivebeat.ReasonOf(err) != hivebeat.RefusedLimit || err.Error() != "refused: limit: model: too long" {
		t.Errorf("refusal: %v", err)
	}
}
