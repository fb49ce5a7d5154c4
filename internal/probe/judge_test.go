package probe_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/probe"
)

// heard is one step of a story: what was read, when, and what the judge must say.
type heard struct {
	at     int // s
	r      probe.Reading
	err    error
	state  hivebeat.State
	reason string
	probed int // s; -1: never
	next   int // s
}

func TestJudge(t *testing.T) {
	t.Parallel()
	ready := probe.Reading{State: hivebeat.Ready}
	unauthorized := fmt.Errorf("%w (401): no key", probe.ErrUnauthorized)
	page := fmt.Errorf("%w: GET /metrics: Sign in", probe.ErrAnswer)
	crash := &probe.StatusError{Code: 500, Line: "CUDA error"}
	reset := fmt.Errorf("read: connection reset by peer")
	none := probe.Reading{}
	for name, story := range map[string][]heard{
		"refused before and after": {
			{0, none, probe.ErrRefused, hivebeat.Starting, "refuses connections", -1, 5},
			{5, ready, nil, hivebeat.Ready, "", 5, 5},
			{10, none, probe.ErrRefused, hivebeat.Degraded, "refuses connections since 0s", 5, 5},
			{22, none, probe.ErrRefused, hivebeat.Degraded, "refuses connections since 12s", 5, 5},
			{300, none, probe.ErrRefused, hivebeat.Degraded, "refuses connections since 5m", 5, 5},
			{305, probe.Reading{State: hivebeat.Loading, Reason: "Loading model"}, nil, hivebeat.Loading, "Loading model", 305, 5},
			{310, ready, nil, hivebeat.Ready, "", 310, 5},
		},
		"one timeout, and three": {
			{0, ready, nil, hivebeat.Ready, "", 0, 5},
			{9, none, probe.ErrTimeout, hivebeat.Ready, "", 0, 1},
			{10, ready, nil, hivebeat.Ready, "", 10, 5},
			{15, none, probe.ErrTimeout, hivebeat.Ready, "", 10, 1},
			{20, none, reset, hivebeat.Ready, "", 10, 1},
			{27, none, probe.ErrTimeout, hivebeat.Degraded, "no answer for 17s", 10, 5},
			{36, none, probe.ErrTimeout, hivebeat.Degraded, "no answer for 26s", 10, 10},
			{50, none, probe.ErrTimeout, hivebeat.Degraded, "no answer for 40s", 10, 20},
			{74, none, reset, hivebeat.Degraded, "no answer for 64s: read: connection reset by peer", 10, 30},
			{108, none, probe.ErrTimeout, hivebeat.Degraded, "no answer for 98s", 10, 30},
			{140, ready, nil, hivebeat.Ready, "", 140, 5},
		},
		"silent from the start": {
			{4, none, probe.ErrTimeout, hivebeat.Starting, "", -1, 1},
			{13, none, probe.ErrTimeout, hivebeat.Starting, "", -1, 1},
			{22, none, probe.ErrTimeout, hivebeat.Degraded, "no answer for 18s", -1, 5},
		},
		"silent after a crash": {
			{0, ready, nil, hivebeat.Ready, "", 0, 5},
			{5, none, crash, hivebeat.Degraded, "500: CUDA error", 0, 5},
			{14, none, probe.ErrTimeout, hivebeat.Degraded, "500: CUDA error", 0, 1},
			{23, none, probe.ErrTimeout, hivebeat.Degraded, "500: CUDA error", 0, 1},
			{32, none, probe.ErrTimeout, hivebeat.Degraded, "no answer for 27s", 0, 10},
		},
		"what the engine says": {
			{0, probe.Reading{State: hivebeat.Busy, Busy: n(3)}, nil, hivebeat.Busy, "", 0, 5},
			{5, probe.Reading{State: hivebeat.Sleeping}, nil, hivebeat.Sleeping, "", 5, 5},
			{10, probe.Reading{State: hivebeat.Degraded, Reason: "state broken"}, nil, hivebeat.Degraded, "state broken", 10, 5},
			{15, none, probe.ErrBusy, hivebeat.Busy, "too many requests (429)", 10, 5},
			{20, none, unauthorized, hivebeat.Degraded, "credentials refused (401): no key", 10, 5},
			{25, none, page, hivebeat.Degraded, "not the answer of this engine: GET /metrics: Sign in", 10, 5},
			{30, none, context.Canceled, hivebeat.Degraded, "not the answer of this engine: GET /metrics: Sign in", 10, 5},
			{35, none, page, hivebeat.Degraded, "not the answer of this engine: GET /metrics: Sign in", 10, 10},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := probe.NewJudge(probe.JudgeConfig{})
			start := time.Unix(1_764_500_000, 0)
			at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
			for _, h := range story {
				got := j.Hear(at(h.at), h.r, h.err)
				probed := time.Time{}
				if h.probed >= 0 {
					probed = at(h.probed)
				}
				if got.State != h.state || got.Reason != h.reason || got.Probed != probed || got.Next != time.Duration(h.next)*time.Second {
					t.Fatalf("at %d s: %s %q, probed %v, next %s; want %s %q, %v, %d s",
						h.at, got.State, got.Reason, got.Probed, got.Next, h.state, h.reason, probed, h.next)
				}
			}
		})
	}
}

// TestLongLoad: an engine that refuses connections for twelve minutes starts all that time, and
// is ready within one interval.
func TestLongLoad(t *testing.T) {
	t.Parallel()
	j, now := probe.NewJudge(probe.JudgeConfig{}), time.Unix(0, 0)
	loaded := now.Add(12 * time.Minute)
	for {
		var err error
		if now.Before(loaded) {
			err = probe.ErrRefused
		}
		got := j.Hear(now, probe.Reading{State: hivebeat.Ready}, err)
		if err == nil {
			if got.State != hivebeat.Ready || now.Sub(loaded) > probe.DefaultEvery {
				t.Errorf("%s %s after the load, want ready within %s", got.State, now.Sub(loaded), probe.DefaultEvery)
			}
			return
		}
		if got.State != hivebeat.Starting || got.Reason != "refuses connections" || !got.Probed.IsZero() {
			t.Fatalf("after %s: %s %q, probed %v; want starting", now.Sub(time.Unix(0, 0)), got.State, got.Reason, got.Probed)
		}
		now = now.Add(got.Next)
	}
}

// TestMonotone: the counts of a restarted engine continue from the old ones.
func TestMonotone(t *testing.T) {
	t.Parallel()
	j := probe.NewJudge(probe.JudgeConfig{})
	for i, c := range []struct{ said, want *uint64 }{
		{nil, nil}, {n(0), n(0)}, {n(7), n(7)}, {nil, n(7)}, {n(9), n(9)}, {n(2), n(11)}, {nil, n(11)}, {n(2), n(11)}, {n(0), n(11)}, {n(1), n(12)},
	} {
		got := j.Hear(time.Unix(int64(i), 0), probe.Reading{Done: c.said, Tokens: c.said}, nil).Reading
		if fmt.Sprint(value(got.Done), value(got.Tokens)) != fmt.Sprint(value(c.want), value(c.want)) {
			t.Errorf("step %d: done %v, tokens %v, want %v", i, value(got.Done), value(got.Tokens), value(c.want))
		}
	}
}

func value(v *uint64) any {
	if v == nil {
		return "unknown"
	}
	return *v
}
