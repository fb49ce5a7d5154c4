package detector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

// loads advances the time. The hive reads the process of f every 10 s, which has read
// and taken that many bytes more each time.
func (b *bench) loads(f *fake, g *Reading, d time.Duration, read, rss uint64) *bench {
	g.Process = Process{f.Worker, f.Inc, f.PID}
	for range d / (10 * second) {
		b.after(10 * second)
		g.Read, g.RSS = g.Read+read, g.RSS+rss
		b.Progress(b.now, []Reading{*g})
	}
	return b
}

// A silent worker whose process loads stays late meanwhile. It is lost once the load
// has stopped for its deadline.
func TestLoadingIsNotSilence(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name      string
		quiet     time.Duration
		load      time.Duration
		read, rss uint64 // per 10 s
		late      bool   // all the time
	}{
		{"5 minutes without a word, it reads", 0, 5 * time.Minute, 800 * mib, 0, true},
		{"5 minutes without a word, its memory grows", 0, 5 * time.Minute, 0, 200 * mib, true},
		{"slowly", 0, 5 * time.Minute, 4 * mib, 0, true},
		{"12 minutes, 10 of them announced", hivebeat.MaxQuiet, 12 * time.Minute, 800 * mib, 0, true},
		{"an hour", 0, time.Hour, 800 * mib, 100 * mib, true},
		{"it idles", 0, 5 * time.Minute, 4096, 4096, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f := watching(t), newFake("w")
			f.State, f.Quiet = hivebeat.Loading, hivebeat.MillisOf(c.quiet)
			b.mustFeed(f.Next(t))
			g := Reading{RSS: 100 * mib}
			b.loads(f, &g, c.load, c.read, c.rss)
			r, _ := b.record("w")
			if !c.late {
				if r.Live != hivebeat.Lost || r.Cause != hivebeat.CauseSilent {
					t.Fatalf("%s, cause %s, want lost, cause silent", r.Live, r.Cause)
				}
				return
			}
			if r.Live != hivebeat.Late || r.Cause != hivebeat.CauseLoads {
				t.Fatalf("%s, cause %s, want late, cause loads", r.Live, r.Cause)
			}
			b.told()
			b.loads(f, &g, 80*second, 0, 0)
			if r, _ := b.record("w"); r.Live != hivebeat.Late {
				t.Fatalf("%s 80 s after it stopped, want late", r.Live)
			}
			b.loads(f, &g, 20*second, 0, 0)
			if diff := cmp.Diff([]string{"lost:late>lost(silent)"}, b.told()); diff != "" {
				t.Errorf("after it stopped (-want +got):\n%s", diff)
			}
		})
	}
}

// Only the worker's own process makes progress, while it is watched. Bytes that it read
// before the silence do not count.
func TestWhoseProgressItIs(t *testing.T) {
	b, f := watching(t), newFake("w")
	b.mustFeed(f.Next(t))
	other := Reading{Process: Process{f.Worker, f.Inc, f.PID + 1}}
	for range 9 {
		b.after(10 * second)
		other.Read += 1 << 30
		b.Progress(b.now, []Reading{other, {Process: Process{"nobody", 1, 2}, Read: other.Read}, {Process: Process{Worker: f.Worker}}})
	}
	if r, _ := b.record("w"); r.Live != hivebeat.Lost {
		t.Errorf("%s by the progress of another process, want lost", r.Live)
	}

	b, f = watching(t), newFake("w")
	b.mustFeed(f.Next(t))
	g := Reading{}
	b.loads(f, &g, 40*second, 1<<30, 1<<30).loads(f, &g, 50*second, 0, 0)
	if r, _ := b.record("w"); r.Live != hivebeat.Lost {
		t.Errorf("%s by what it did before it was late, want lost", r.Live)
	}

	b, f = watching(t), newFake("w")
	b.mustFeed(f.Next(t))
	g = Reading{}
	b.loads(f, &g, 2*time.Minute, 1<<30, 0)
	b.mustFeed(f.Next(t))
	if r, _ := b.record("w"); r.Live != hivebeat.Alive || r.Cause != "" || b.stats.FalseDead != 0 {
		t.Errorf("%s, cause %s when it is heard again", r.Live, r.Cause)
	}
}
