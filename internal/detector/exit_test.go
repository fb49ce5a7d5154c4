package detector

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/beatfabric/hivebeat"
)

const (
	here     = "boot/4026531836" // the pid namespace of the fakes
	thisSelf = 99
)

// watching returns a bench whose registry asks for processes.
func watching(t testing.TB) *bench {
	b := newBench(t)
	b.WatchExits(here, thisSelf)
	return b
}

// asked returns the watches since the last call, as +worker/inc/pid.
func (b *bench) asked() []string {
	list := []string{}
	for _, w := range b.TakeWatches() {
		sign := "+"
		if w.Stop {
			sign = "-"
		}
		list = append(list, fmt.Sprintf("%s%s/%d/%d", sign, w.Worker, w.Inc%10, w.PID))
		if !w.Stop && !w.Known.Equal(b.now) {
			b.t.Errorf("%s known since %s, and heard at %s", w.Worker, w.Known, b.now)
		}
	}
	return list
}

// ends reports the end of the process of f.
func (b *bench) ends(f *fake) bool {
	return b.Exit(b.now, Exit{Process: Process{f.Worker, f.Inc, f.PID}, At: b.now.Add(-11 * time.Millisecond), Boot: b.boot()})
}

// boot returns the boot clock of the machine.
func (b *bench) boot() uint64 { return uint64(time.Hour.Milliseconds() + b.now.Sub(t0).Milliseconds()) }

// sendsNow lets f beat with its boot clock, as a live process does.
func (b *bench) sendsNow(f *fake) error {
	f.Boot = b.boot()
	return b.feed(f.Next(b.t))
}

func TestWhatIsWatched(t *testing.T) {
	type do = func(*bench, *fake)
	beat := func(change func(*fake)) do {
		return func(b *bench, f *fake) {
			change(f)
			b.mustFeed(f.Next(b.t))
		}
	}
	same := beat(func(*fake) {})
	for _, c := range []struct {
		name string
		do   []do
		want []string
	}{
		{"from the first beat", []do{same}, []string{"+w/0/4711"}},
		{"once", []do{same, same, beat(func(f *fake) { f.Model = "other" })}, []string{"+w/0/4711"}},
		{"another namespace", []do{beat(func(f *fake) { f.NS = "boot/1" })}, []string{}},
		{"no namespace", []do{beat(func(f *fake) { f.NS = "" })}, []string{}},
		{"no process", []do{beat(func(f *fake) { f.PID = 0 })}, []string{}},
		{"the hive's own process", []do{beat(func(f *fake) { f.PID = thisSelf })}, []string{}},
		{"a goodbye that is all", []do{beat(func(f *fake) { f.State = hivebeat.Stopped })}, []string{}},
		{"until its goodbye", []do{same, beat(func(f *fake) { f.State = hivebeat.Stopped })}, []string{"+w/0/4711", "-w/0/4711"}},
		{"a restart", []do{same, beat(func(f *fake) { f.Inc, f.PID = f.Inc+1, 4712 })}, []string{"+w/0/4711", "-w/0/4711", "+w/1/4712"}},
		{"a restart in one process", []do{same, beat(func(f *fake) { f.Inc++ })}, []string{"+w/0/4711", "-w/0/4711", "+w/1/4711"}},
		{"a restart elsewhere", []do{same, beat(func(f *fake) { f.Inc, f.NS = f.Inc+1, "boot/1" })}, []string{"+w/0/4711", "-w/0/4711"}},
		{"another process goes on", []do{same, beat(func(f *fake) { f.PID = 4712 })}, []string{"+w/0/4711", "-w/0/4711", "+w/0/4712"}},
		{"not again once it ended", []do{same, func(b *bench, f *fake) {
			b.ends(f)
			b.after(time.Millisecond)
		}, beat(func(f *fake) { f.Model, f.Boot = "other", hivebeat.MaxInt }), same}, []string{"+w/0/4711"}},
		{"but another one that it names then", []do{same, func(b *bench, f *fake) {
			b.ends(f)
			b.after(time.Millisecond)
		}, beat(func(f *fake) { f.PID, f.Boot = 4712, hivebeat.MaxInt })}, []string{"+w/0/4711", "+w/0/4712"}},
		{"until it is forgotten", []do{same, func(b *bench, _ *fake) { b.after(90 * second).after(hivebeat.KeepGone) }}, []string{"+w/0/4711", "-w/0/4711"}},
		{"not when it is lost by silence", []do{same, func(b *bench, _ *fake) { b.after(90 * second) }}, []string{"+w/0/4711"}},
		{"refused beats say nothing", []do{same, func(b *bench, f *fake) {
			old := *f
			old.Inc, old.PID = old.Inc-1, 4712
			_ = b.feed(old.Next(b.t))
			stale := *f
			stale.PID = 4712
			_ = b.feed(stale.Bytes(b.t))
		}}, []string{"+w/0/4711"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f, got := watching(t), newFake("w"), []string{}
			for _, do := range c.do {
				do(b, f)
				got = append(got, b.asked()...)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNothingIsWatchedUnasked(t *testing.T) {
	b, f := newBench(t), newFake("w")
	f.NS = ""
	b.mustFeed(f.Next(t))
	f.NS = here
	b.mustFeed(f.Next(t))
	if got := b.asked(); len(got) != 0 {
		t.Errorf("asked for %q", got)
	}
	if b.ends(f) {
		t.Error("the end of a process that nobody watches is news")
	}
}

func TestExit(t *testing.T) {
	type do = func(*bench, *fake)
	beat := func(b *bench, f *fake) { b.mustFeed(f.Next(b.t)) }
	now := func(b *bench, f *fake) {
		if err := b.sendsNow(f); err != nil {
			b.t.Fatal(err)
		}
	}
	refused := func(b *bench, err error) {
		if hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			b.t.Errorf("a beat from before its end: %v, want it stale", err)
		}
	}
	late := func(b *bench, f *fake) { refused(b, b.feed(f.Next(b.t))) } // with the clock of the previous beat
	ends := func(b *bench, f *fake) { b.ends(f) }
	pass := func(d time.Duration) do { return func(b *bench, _ *fake) { b.after(d) } }
	goodbye := func(b *bench, f *fake) {
		f.State = hivebeat.Stopped
		b.mustFeed(f.Next(b.t))
	}
	restart := func(b *bench, f *fake) {
		f.Inc, f.Seq, f.PID = f.Inc+1, 0, f.PID+1
		b.mustFeed(f.Next(b.t))
	}
	const joined, exit = "joined:>alive", "lost:alive>lost(exit)"
	for _, c := range []struct {
		name string
		do   []do
		want []string
		live hivebeat.Live
	}{
		{"its process ends", []do{beat, pass(second), ends}, []string{joined, exit}, hivebeat.Lost},
		{"it ends once", []do{beat, ends, ends}, []string{joined, exit}, hivebeat.Lost},
		{"it ends while late", []do{beat, pass(50 * second), ends}, []string{joined, "late:alive>late(missed)", "lost:late>lost(exit)"}, hivebeat.Lost},
		{"it ends once it is lost", []do{beat, pass(90 * second), ends}, []string{joined, "late:alive>late(missed)", "lost:late>lost(silent)"}, hivebeat.Lost},
		{"it ends during a silence that it announced", []do{
			func(b *bench, f *fake) {
				f.State, f.Quiet = hivebeat.Loading, hivebeat.MillisOf(5*time.Minute)
				beat(b, f)
			},
			pass(2 * time.Minute), ends,
		}, []string{joined, exit}, hivebeat.Lost},
		{"it said goodbye", []do{beat, goodbye, ends}, []string{joined, "left:alive>left(goodbye)"}, hivebeat.Left},
		{"its goodbye is heard late", []do{beat, ends, goodbye}, []string{joined, exit, "left:lost>left(goodbye)"}, hivebeat.Left},
		{"its goodbye is heard very late", []do{beat, ends, pass(10 * second), goodbye}, []string{joined, exit, "left:lost>left(goodbye)"}, hivebeat.Left},
		{"the process of its last life ends", []do{beat, func(b *bench, f *fake) {
			old := *f
			restart(b, f)
			b.ends(&old)
		}}, []string{joined, "restarted:alive>alive"}, hivebeat.Alive},
		{"a process that it had before ends", []do{beat, func(b *bench, f *fake) {
			old := *f
			f.PID++
			beat(b, f)
			b.ends(&old)
		}}, []string{joined}, hivebeat.Alive},
		{"it begins anew after its end", []do{beat, ends, restart, pass(30 * second)}, []string{joined, exit, "restarted:lost>alive"}, hivebeat.Alive},
		{"its last beat is heard after its end", []do{now, ends, late, pass(8 * time.Minute), late}, []string{joined, exit}, hivebeat.Lost},
		{"without a boot clock it stays dead", []do{beat, ends, pass(5 * time.Minute), late}, []string{joined, exit}, hivebeat.Lost},
		{"a boot clock of another machine proves nothing", []do{now, ends, pass(second), func(b *bench, f *fake) {
			f.NS = "other/4026531836"
			refused(b, b.sendsNow(f))
		}}, []string{joined, exit}, hivebeat.Lost},
		{"its last beat is heard, and it ended once it was lost", []do{
			now, pass(90 * second), ends, late,
		}, []string{joined, "late:alive>late(missed)", "lost:late>lost(silent)"}, hivebeat.Lost},
		{"it lives on in another process", []do{now, ends, pass(time.Millisecond), now}, []string{joined, exit, "recovered:lost>alive"}, hivebeat.Alive},
		{"which is in a container", []do{now, ends, pass(second), func(b *bench, f *fake) {
			f.NS = "boot/7"
			now(b, f)
		}}, []string{joined, exit, "recovered:lost>alive"}, hivebeat.Alive},
		{"and then dies in silence, as its process is not trusted any more", []do{now, ends, pass(second), now, ends, now, ends, pass(90 * second)}, []string{
			joined, exit, "recovered:lost>alive", "late:alive>late(missed)", "lost:late>lost(missed)",
		}, hivebeat.Lost},
		{"and names the other process, which ends too", []do{now, ends, pass(second), func(b *bench, f *fake) { f.PID++; now(b, f) }, ends, late}, []string{
			joined, exit, "recovered:lost>alive", exit,
		}, hivebeat.Lost},
		{"its place is taken by one that ends, long after", []do{now, ends, func(b *bench, f *fake) {
			old := *f
			restart(b, f)
			b.after(20 * second)
			b.ends(f)
			b.after(5 * time.Minute)                             // longer than any message was ever in flight
			old.Boot += uint64((5 * time.Minute).Milliseconds()) // by its clock it was sent now
			late(b, &old)
		}}, []string{joined, exit, "restarted:lost>alive", exit}, hivebeat.Lost},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, f := watching(t), newFake("w")
			for _, do := range c.do {
				do(b, f)
			}
			if diff := cmp.Diff(c.want, b.told()); diff != "" {
				t.Errorf("transitions (-want +got):\n%s", diff)
			}
			if r, ok := b.record("w"); !ok || r.Live != c.live {
				t.Errorf("record %+v, want %s", r, c.live)
			}
		})
	}
}

func TestExitSaysWhatWasSeen(t *testing.T) {
	b, f := watching(t), newFake("w")
	f.Reason = "all is well"
	b.mustFeed(f.Next(t)).told()
	b.after(3 * second)
	if !b.ends(f) {
		t.Error("no news")
	}
	s := b.TakeSteps()
	if len(s) != 1 || s[0].Reason != "process 4711 ended" || s[0].Detect != 11*time.Millisecond || s[0].Transition.Detect != 11 || s[0].Age != 3*second || s[0].Seq != f.Seq || s[0].Inc != f.Inc {
		t.Errorf("steps %+v", s)
	}
	b.after(2 * second)
	if err := b.sendsNow(f); err != nil {
		t.Fatal(err)
	}
	if s := b.TakeSteps(); len(s) != 1 || s[0].Margin != 2*second || s[0].CutOff {
		t.Errorf("steps %+v, want one with a margin of 2 s", s)
	}
	if b.stats.FalseDead != 1 || b.stats.CutOff != 0 {
		t.Errorf("stats %+v, want one falsely dead", b.stats)
	}
	if diff := cmp.Diff(map[hivebeat.Cause]uint64{hivebeat.CauseExit: 1}, b.Lost()); diff != "" {
		t.Errorf("lost (-want +got):\n%s", diff)
	}

	g := newFake("reused")
	b.mustFeed(g.Next(t)).told()
	b.Exit(b.now, Exit{Process: Process{g.Worker, g.Inc, g.PID}, At: b.now, Reused: true})
	if s := b.TakeSteps(); len(s) != 1 || s[0].Reason != "process 4711 ended: a process that started later has its id" {
		t.Errorf("steps %+v", s)
	}
}

// Data about an ended process is kept no longer than the worker's record.
func TestTheDeadOfAnExitAreForgottenToo(t *testing.T) {
	b, f := watching(t), newFake("w")
	b.mustFeed(f.Next(t)).asked()
	b.ends(f)
	b.after(second / 2)
	_ = b.feed(f.Next(t)) // its last messages do not change that
	b.after(hivebeat.KeepGone - second)
	if _, ok := b.record("w"); !ok {
		t.Error("gone before 10 minutes")
	}
	b.after(second)
	asked := b.asked()
	if r, ok := b.record("w"); ok || b.deadlines.Len() != 0 || len(asked) != 0 {
		t.Errorf("after 10 minutes it is there: %t, %+v; %d deadlines, %d asked", ok, r, b.deadlines.Len(), len(asked))
	}
	// It does not come back afterwards either, unless it lives on.
	for range 2 {
		if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale || b.Len() != 0 {
			t.Errorf("heard from before its end: %v, and %d records", err, b.Len())
		}
	}
	b.told()
	if err := b.sendsNow(f); err != nil {
		t.Fatal(err)
	}
	if got := b.told(); !slices.Equal(got, []string{"recovered:lost>alive"}) {
		t.Errorf("told %q", got)
	}
}

// A registry that takes over knows about an end what the hive's record says.
func TestTheEndOfASeed(t *testing.T) {
	for name, ended := range map[string]bool{"known": true, "unknown": false} {
		b, f := watching(t), newFake("w")
		if err := b.sendsNow(f); err != nil {
			t.Fatal(err)
		}
		b.ends(f)
		r, _ := b.record("w")
		if r.Ended != b.boot() {
			t.Fatalf("%s: the record says %d, want %d", name, r.Ended, b.boot())
		}
		if !ended {
			r.Ended = 0
		}
		q := newBench(t)
		q.now = b.now
		q.Seed(q.now, Seed{Worker: "w", Live: r.Live, Cause: r.Cause, Facts: r.Facts, Heard: q.now, Ended: r.Ended})
		if err := q.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedStale {
			t.Errorf("%s: a beat from before its end: %v", name, err)
		}
		if facts := f.Facts; q.Elsewhere(q.now, "w", facts) {
			t.Errorf("%s: one who knows of no end heard it, and that is believed", name)
		}
		q.after(second)
		if err := q.sendsNow(f); (err == nil) != ended {
			t.Errorf("%s: a beat from after its end: %v", name, err)
		}
		if r, _ := q.record("w"); (r.Live == hivebeat.Alive) != ended || r.Ended != 0 {
			t.Errorf("%s: record %+v", name, r)
		}
	}
}

// An announced silence is capped by the wire and ends by itself, and its end is noticed
// in time.
func TestQuietIsCappedAndEnds(t *testing.T) {
	b, f := newBench(t), newFake("w")
	f.State, f.Quiet = hivebeat.Loading, hivebeat.MillisOf(hivebeat.MaxQuiet)+1
	if err := b.feed(f.Next(t)); hivebeat.ReasonOf(err) != hivebeat.RefusedLimit {
		t.Errorf("a silence of more than %s: %v", hivebeat.MaxQuiet, err)
	}
	f.Quiet--
	b.mustFeed(f.Next(t))
	for _, c := range []struct {
		pass time.Duration
		want []string
	}{
		{hivebeat.MaxQuiet + every/2 - 1, []string{"joined:>alive"}},
		{1, []string{"late:alive>late(missed)"}},
		{every + every/2 - 1, []string{}},
		{1, []string{"lost:late>lost(missed)"}},
	} {
		if diff := cmp.Diff(c.want, b.after(c.pass).told()); diff != "" {
			t.Errorf("%s later (-want +got):\n%s", c.pass, diff)
		}
	}
}

// The end of a process affects only its own workers.
func TestExitIsOneWorkersOnly(t *testing.T) {
	b := watching(t)
	var list []*fake
	for i := range 20 {
		f := newFake(fmt.Sprint("w", i))
		f.PID = uint64(5000 + i/2) // two workers in each process
		list = append(list, f)
		b.mustFeed(f.Next(t))
	}
	b.told()
	b.ends(list[4])
	if got := b.told(); !slices.Equal(got, []string{"lost:alive>lost(exit)"}) {
		t.Errorf("told %q", got)
	}
	if r, _ := b.record("w5"); r.Live != hivebeat.Alive {
		t.Errorf("its neighbour in the same process is %s before its own end was told", r.Live)
	}
}

// A worker whose process runs is lost by silence as usual, but it is not dead: the
// cause says so, and its return disproves nothing.
func TestSilentIsNotDead(t *testing.T) {
	for _, c := range []struct {
		name    string
		watched bool
		cause   hivebeat.Cause
		score   uint64
	}{{"its process is watched", true, hivebeat.CauseSilent, 0}, {"nobody sees its process", false, hivebeat.CauseMissed, 1}} {
		t.Run(c.name, func(t *testing.T) {
			b, f := watching(t), newFake("w")
			b.mustFeed(f.Next(t))
			if !c.watched {
				b.Unwatched(Process{f.Worker, f.Inc, f.PID})
			}
			b.after(45 * second).TakeSteps()
			b.after(45 * second)
			s := b.TakeSteps()
			if len(s) != 1 || s[0].Kind != hivebeat.KindLost || s[0].Cause != c.cause || c.watched != (s[0].Reason == "process 4711 runs, no beat for 90.0s") {
				t.Fatalf("steps %+v, want lost, cause %s", s, c.cause)
			}
			b.after(5 * second).mustFeed(f.Next(t))
			back := ""
			if c.watched {
				back = "(silent)"
			}
			if diff := cmp.Diff([]string{"recovered:lost>alive" + back}, b.told()); diff != "" {
				t.Errorf("transitions (-want +got):\n%s", diff)
			}
			if r, _ := b.record("w"); r.Cause != "" || r.Live != hivebeat.Alive {
				t.Errorf("record %+v", r)
			}
			if b.stats.FalseDead+b.stats.CutOff != c.score || b.Score().Margins.N != c.score {
				t.Errorf("scored %+v, want %d", b.stats, c.score)
			}
		})
	}
}
