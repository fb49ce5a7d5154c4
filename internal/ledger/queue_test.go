package ledger

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// page returns one page of a snapshot received at a time.
func page(hive string, inc, seq, page uint64, received time.Time) Snapshot {
	return Snapshot{Hive: hive, Inc: inc, Seq: seq, Page: page, Received: received, Every: 15 * time.Second, Payload: []byte{1}}
}

// begun expects pages of one snapshot, or none if seq is 0.
func begun(t *testing.T, q *queue, now time.Time, seq uint64, pages int) []Snapshot {
	t.Helper()
	got, _ := q.begin(now)
	if len(got) != pages {
		t.Fatalf("%d pages, want %d", len(got), pages)
	}
	for _, s := range got {
		if s.Seq != seq {
			t.Fatalf("seq %d, want %d", s.Seq, seq)
		}
	}
	return got
}

func TestQueueOnePutPerSecond(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.offer(page("a", 1, 1, 0, now))
	q.finish(begun(t, q, now, 1, 1)[0], stored, now)
	q.offer(page("a", 1, 2, 0, now))
	q.offer(page("b", 1, 1, 0, now))
	if s := begun(t, q, now, 1, 1)[0]; s.Hive != "b" {
		t.Fatalf("%s holds up another hive", s.Hive)
	}
	q.finish(page("b", 1, 1, 0, now), stored, now)
	q.offer(page("a", 1, 3, 0, now))
	if _, wait := q.begin(now.Add(400 * time.Millisecond)); wait != 600*time.Millisecond {
		t.Errorf("wait %v, want 600ms", wait)
	}
	q.finish(begun(t, q, now.Add(time.Second), 3, 1)[0], stored, now)
	if q.stats.Replaced != 1 || q.stats.Put != 3 {
		t.Errorf("%+v", q.stats)
	}
	begun(t, q, now.Add(2*time.Second), 0, 0)
	if len(q.hives) != 0 {
		t.Errorf("%d hives are remembered for nothing", len(q.hives))
	}
}

func TestQueuePagesOfOneSnapshotTogether(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.offer(page("a", 1, 1, 0, now))
	q.offer(page("a", 1, 1, 1, now))
	got := begun(t, q, now, 1, 2)
	// A page that comes while the others are in flight, or just after, does not wait for
	// the end of the second.
	q.offer(page("a", 1, 1, 2, now))
	begun(t, q, now, 0, 0)
	q.finish(got[0], stored, now)
	begun(t, q, now, 0, 0)
	q.finish(got[1], stored, now)
	got = begun(t, q, now, 1, 1)
	if got[0].Page != 2 {
		t.Errorf("page %d, want 2", got[0].Page)
	}
	q.finish(got[0], stored, now)
	// A newer snapshot waits, and replaces all pages of the previous one.
	q.offer(page("a", 1, 2, 0, now))
	q.offer(page("a", 1, 2, 1, now))
	q.offer(page("a", 1, 3, 1, now))
	q.offer(page("a", 1, 2, 2, now)) // late
	begun(t, q, now, 0, 0)
	got = begun(t, q, now.Add(time.Second), 3, 1)
	if got[0].Page != 1 || q.stats.Replaced != 3 {
		t.Errorf("page %d, %+v", got[0].Page, q.stats)
	}
}

func TestQueueAnotherIncarnation(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.offer(page("a", 5, 90, 0, now))
	q.offer(page("a", 6, 1, 0, now))
	q.offer(page("a", 4, 2, 0, now)) // a new incarnation: the queen has decided
	if got := begun(t, q, now, 2, 1); got[0].Inc != 4 {
		t.Errorf("inc %d, want 4", got[0].Inc)
	}
}

func TestQueueNeverPutsOld(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.offer(page("a", 1, 1, 0, now))
	q.offer(page("b", 1, 1, 0, now.Add(time.Second)))
	got := begun(t, q, now.Add(15*time.Second+time.Millisecond), 1, 1)
	if got[0].Hive != "b" || q.stats.Old != 1 {
		t.Errorf("%s, %+v", got[0].Hive, q.stats)
	}
	if len(q.hives) != 1 {
		t.Errorf("%d hives are remembered", len(q.hives))
	}
}

func TestQueueWhileJetStreamIsAway(t *testing.T) {
	q, now := newQueue(), time.Now()
	q.offer(page("a", 1, 1, 0, now))
	q.offer(page("b", 1, 1, 0, now))
	a := begun(t, q, now, 1, 1)[0]
	b := begun(t, q, now, 1, 1)[0]
	q.offer(page("b", 1, 2, 0, now))
	q.finish(a, failed, now)
	q.finish(b, failed, now)
	if q.stats.Failed != 2 || q.stats.Replaced != 1 || q.waiting() != 2 {
		t.Errorf("%+v, %d wait", q.stats, q.waiting())
	}
	pauses, probes := []time.Duration{}, 0
	for range 6 {
		got, wait := q.begin(now)
		if len(got) != 0 {
			t.Fatalf("%d pages in the pause", len(got))
		}
		pauses = append(pauses, wait)
		now = now.Add(wait)
		if got, _ = q.begin(now); len(got) != 1 {
			t.Fatalf("%d pages after the pause, want 1", len(got))
		}
		probes++
		if more, _ := q.begin(now); len(more) != 0 {
			t.Fatalf("%d more find out whether JetStream is back", len(more))
		}
		q.finish(got[0], failed, now)
	}
	if pauses[0] != 200*time.Millisecond || pauses[5] != time.Second {
		t.Errorf("pauses %v", pauses)
	}
	now = now.Add(time.Second)
	got, _ := q.begin(now)
	q.finish(got[0], stored, now)
	if got, _ = q.begin(now); len(got) != 1 {
		t.Errorf("%d pages at once when JetStream is back, want 1", len(got))
	}
	if q.stats.Failed != uint64(2+probes) {
		t.Errorf("%+v", q.stats)
	}
}

// In all cases: one snapshot per hive and second is begun, never an older one of the same
// incarnation after a newer one, and none that is too old. Every page is accounted for, and
// no state remains in the end.
func TestQueueProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q, now := newQueue(), time.Now()
		hives := []string{"a", "b", "c"}
		seq := map[string]uint64{}
		lastBegan := map[string]time.Time{}
		lastPut := map[string]Snapshot{}
		var under []Snapshot
		offered, done, again := uint64(0), uint64(0), uint64(0)
		begin := func() {
			pages, _ := q.begin(now)
			for i, s := range pages {
				if s.Hive != pages[0].Hive || !s.sameAs(pages[0]) {
					t.Fatalf("pages of two snapshots: %+v", pages)
				}
				if now.Sub(s.Received) > s.Every {
					t.Fatalf("begun %v after it was received", now.Sub(s.Received))
				}
				before, ok := lastPut[s.Hive]
				if ok && s.Seq < before.Seq {
					t.Fatalf("%d after %d", s.Seq, before.Seq)
				}
				if i == 0 && ok && !s.sameAs(before) && now.Sub(lastBegan[s.Hive]) < putPace {
					t.Fatalf("the next snapshot after %v", now.Sub(lastBegan[s.Hive]))
				}
				if !ok || !s.sameAs(before) {
					lastBegan[s.Hive] = now
				}
				lastPut[s.Hive] = s
			}
			under = append(under, pages...)
		}
		end := func(o outcome) {
			if len(under) == 0 {
				return
			}
			i := rapid.IntRange(0, len(under)-1).Draw(t, "which")
			before := q.stats.Replaced
			q.finish(under[i], o, now)
			if o == failed {
				again += 1 - (q.stats.Replaced - before)
				done += q.stats.Replaced - before
			} else {
				done++
			}
			under = append(under[:i], under[i+1:]...)
		}
		t.Repeat(map[string]func(*rapid.T){
			"offer": func(t *rapid.T) {
				h := rapid.SampledFrom(hives).Draw(t, "hive")
				if seq[h] == 0 || rapid.Bool().Draw(t, "next") {
					seq[h]++
				}
				offered++
				q.offer(page(h, 1, seq[h], rapid.Uint64Range(0, 2).Draw(t, "page"), now))
			},
			"begin":  func(*rapid.T) { begin() },
			"stored": func(*rapid.T) { end(stored) },
			"stale":  func(*rapid.T) { end(stale) },
			"failed": func(*rapid.T) { end(failed) },
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 8000).Draw(t, "ms")) * time.Millisecond)
			},
		})
		for i := 0; len(q.hives) > 0; i++ {
			if i > 1000 {
				t.Fatalf("it does not come to an end: %d hives", len(q.hives))
			}
			now = now.Add(2 * time.Second)
			begin()
			for len(under) > 0 {
				end(stored)
			}
		}
		st := q.stats
		if q.busy != 0 || st.Offered != offered || st.Put+st.Stale+st.Replaced+st.Old != offered {
			t.Fatalf("%d offered, %+v, %d busy", offered, st, q.busy)
		}
	})
}
