package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beatfabric/hivebeat"
)

// rec records the pulses of one Pulse. It is used within one bubble or under its lock.
type rec struct {
	mu    sync.Mutex
	at    []time.Time
	why   []Why
	err   error // what Send returns
	flush int
}

func (r *rec) config(every time.Duration) PulseConfig[Why] {
	return PulseConfig[Why]{
		Every:    every,
		Snapshot: func(why Why) (Why, error) { return why, nil },
		Send: func(why Why) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.at, r.why = append(r.at, time.Now()), append(r.why, why)
			return r.err
		},
		Flush: func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				return errors.New("no deadline")
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.flush++
			return nil
		},
	}
}

func (r *rec) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// all returns the reasons of all pulses so far.
func (r *rec) all() []Why {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.why)
}

func (r *rec) count(why Why) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.why {
		if w == why {
			n++
		}
	}
	return n
}

func newPulse[T any](t testing.TB, cfg PulseConfig[T]) *Pulse[T] {
	t.Helper()
	p, err := NewPulse(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start runs p until the end of the test.
func start[T any](t testing.TB, p *Pulse[T]) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := p.Stop(context.Background()); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// 200 senders for 10 virtual minutes: none is ever later than promised, and the jitter
// uses its whole range, so that they do not synchronise.
func TestPulseKeepsItsPromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const senders, every = 200, 30 * time.Second
		recs := make([]*rec, senders)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for i := range recs {
			recs[i] = &rec{}
			p := newPulse(t, recs[i].config(every))
			wg.Go(func() {
				if err := p.Run(ctx); err != nil {
					t.Errorf("Run: %v", err)
				}
				if st := p.Stats(); st.Late != 0 || st.Failed != 0 || st.Sent != uint64(len(recs[i].at)) {
					t.Errorf("stats %+v after %d pulses", st, len(recs[i].at))
				}
			})
		}
		begin := time.Now()
		wg.Wait()
		var n int
		var sum, least, most float64 = 0, math.Inf(1), 0
		for _, r := range recs {
			if first := r.at[0].Sub(begin); first != 0 {
				t.Errorf("the first pulse came after %s", first)
			}
			if last := r.why[len(r.why)-1]; last != WhyLast || r.flush != 1 {
				t.Errorf("the last pulse was due to %s, flushed %d times", last, r.flush)
			}
			for i := 1; i < len(r.at)-1; i++ { // the last one is cut short
				share := float64(r.at[i].Sub(r.at[i-1])) / float64(every)
				n, sum, least, most = n+1, sum+share, min(least, share), max(most, share)
			}
		}
		if least < jitterLow || most > jitterHigh {
			t.Errorf("intervals from %.3f to %.3f of the promise, want %.2f to %.2f", least, most, jitterLow, jitterHigh)
		}
		if least > 0.855 || most < 0.945 || math.Abs(sum/float64(n)-0.9) > 0.005 {
			t.Errorf("%d intervals from %.3f to %.3f, mean %.4f: not spread over 0.85 to 0.95", n, least, most, sum/float64(n))
		}
	})
}

// A caller requests every kind of pulse each millisecond for a minute.
func TestPulseHotCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rec{}
		p := newPulse(t, r.config(30*time.Second))
		start(t, p)
		synctest.Wait()
		const span = time.Minute
		for range span / ms {
			p.Ended()
			p.Changed()
			p.Touch()
			p.Call(0)
			p.Reconnected()
			time.Sleep(ms)
		}
		for why, most := range map[Why]int{WhyChanged: 5 + 60, WhyEnded: 20 + 2*60} {
			if n := r.count(why); n < most/2 || n > most {
				t.Errorf("%d sent in %s as somebody or something %s, want %d to %d", n, span, why, most/2, most)
			}
		}
		// Each kind has its own limit; together they stay at a few a second.
		if st := p.Stats(); st.Sent > 6*uint64(span/time.Second) {
			t.Errorf("%d pulses in %s", st.Sent, span)
		}
	})
}

// A change that is reported while a pulse is built or sent goes out with another pulse.
func TestPulseChangeDuringSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var value, sent atomic.Int64
		var p *Pulse[int64]
		p = newPulse(t, PulseConfig[int64]{
			Every:    time.Minute,
			Snapshot: func(Why) (int64, error) { return value.Load(), nil },
			Send: func(v int64) error {
				sent.Store(v)
				if value.CompareAndSwap(0, 1) {
					p.Changed()
				}
				return nil
			},
		})
		start(t, p)
		time.Sleep(time.Second)
		if got := sent.Load(); got != 1 {
			t.Errorf("a change during Send was never sent: the last was %d, want 1", got)
		}
	})
}

func TestPulseFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &rec{err: errors.New("cut off")}
		cfg := r.config(30 * time.Second)
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		p := newPulse(t, cfg)
		start(t, p)
		for range 600 { // a minute of changes that cannot be sent
			p.Changed()
			time.Sleep(100 * ms)
		}
		if st := p.Stats(); st.Sent != 0 || st.Failed < 60 || st.Failed > 71 {
			t.Errorf("a minute cut off: %+v, want a try every 0.85 to 0.95 s", st)
		}
		r.fail(nil)
		p.Reconnected()
		time.Sleep(backSpread)
		synctest.Wait()
		if st := p.Stats(); st.Sent != 1 || r.count(WhyStart) != int(st.Failed)+1 {
			t.Errorf("%s after the reconnect: %+v, due to %v; want the first pulse", backSpread, st, r.all())
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings, want 1:\n%s", n, log.String())
		}
		if n := strings.Count(log.String(), "level=INFO"); n != 1 {
			t.Errorf("%d infos, want 1:\n%s", n, log.String())
		}
	})
}

// A sender that is stopped for ten intervals sends one pulse when it resumes.
func TestPulsePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rec{}
		cfg := r.config(time.Second)
		var pause atomic.Int64
		cfg.Snapshot = func(why Why) (Why, error) {
			time.Sleep(time.Duration(pause.Load()))
			return why, nil
		}
		p := newPulse(t, cfg)
		start(t, p)
		time.Sleep(100 * ms)
		pause.Store(int64(10 * time.Second))
		time.Sleep(10 * time.Second) // within the pause
		pause.Store(0)
		synctest.Wait()
		if n := len(r.all()); n != 1 {
			t.Fatalf("%d pulses before the end of the pause, want the first one", n)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		// The pause ends 10.95 s in at the latest. The remaining 4.05 to 4.25 s hold
		// the late pulse, one due at once because the late one began so long ago, and 4
		// regular ones.
		if n := len(r.all()) - 1; n < 5 || n > 6 {
			t.Errorf("%d pulses in the 5 s around the end of a pause, with a promise of 1 s", n)
		}
		if st := p.Stats(); st.Late == 0 {
			t.Errorf("a broken promise was not counted: %+v", st)
		}
	})
}

func TestPulseNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rec{}
		p := newPulse(t, r.config(30*time.Second))
		if err := p.Now(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("Now before Run: %v", err)
		}
		start(t, p)
		synctest.Wait()
		begin := time.Now()
		for range 3 {
			if err := p.Now(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if n, took := r.count(WhyAsked), time.Since(begin); n != 3 || took != 2*askedPace {
			t.Errorf("3 × Now: %d pulses in %s, want 3 in %s", n, took, 2*askedPace)
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { _ = p.Now(t.Context()) })
		}
		wg.Wait()
		if n := r.count(WhyAsked); n > 5 {
			t.Errorf("50 × Now at once cost %d pulses", n-3)
		}
		broken := errors.New("broken")
		r.fail(broken)
		if err := p.Now(t.Context()); !errors.Is(err, broken) {
			t.Errorf("Now with a broken Send: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), ms)
		defer cancel()
		if err := p.Now(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Now with a short ctx: %v", err)
		}
		// A call that waits for the next attempt returns when Run ends.
		stopped := make(chan error)
		go func() { stopped <- p.Now(t.Context()) }()
		synctest.Wait()
		r.fail(nil)
		if err := p.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-stopped; !errors.Is(err, hivebeat.ErrStopped) {
			t.Errorf("Now at the end of Run: %v, want ErrStopped", err)
		}
		if err := p.Now(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("Now after Stop: %v", err)
		}
	})
}

func TestPulseLast(t *testing.T) {
	broken := errors.New("broken")
	t.Run("is tried until it works", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &rec{}
			p := newPulse(t, r.config(30*time.Second))
			go func() { _ = p.Run(context.Background()) }()
			synctest.Wait()
			r.fail(broken)
			time.AfterFunc(time.Second, func() { r.fail(nil) })
			begin := time.Now()
			if err := p.Stop(t.Context()); err != nil {
				t.Errorf("Stop: %v", err)
			}
			if took := time.Since(begin); took > 1100*ms || r.flush != 1 {
				t.Errorf("Stop took %s and flushed %d times", took, r.flush)
			}
		})
	})
	t.Run("does not hang, and says so", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &rec{}
			p := newPulse(t, r.config(30*time.Second))
			go func() { _ = p.Run(context.Background()) }()
			synctest.Wait()
			r.fail(broken)
			begin := time.Now()
			err := p.Stop(context.Background())
			if took := time.Since(begin); !errors.Is(err, broken) || took > 2*time.Second {
				t.Errorf("Stop while cut off: %v after %s, want %v within 2 s", err, took, broken)
			}
			if again := p.Stop(context.Background()); !errors.Is(again, broken) {
				t.Errorf("a second Stop: %v", again)
			}
		})
	})
	t.Run("ctx of Stop bounds it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &rec{}
			p := newPulse(t, r.config(30*time.Second))
			ended := make(chan error, 1)
			go func() { ended <- p.Run(context.Background()) }()
			synctest.Wait()
			r.fail(broken)
			ctx, cancel := context.WithTimeout(t.Context(), 300*ms)
			defer cancel()
			begin := time.Now()
			if err := p.Stop(ctx); err == nil {
				t.Error("Stop: no error")
			}
			<-ended
			if took := time.Since(begin); took > 400*ms {
				t.Errorf("Run ended %s after a Stop of 300 ms", took)
			}
		})
	})
	t.Run("nobody to tell", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := &rec{err: broken}
			p := newPulse(t, r.config(30*time.Second))
			go func() { _ = p.Run(context.Background()) }()
			synctest.Wait()
			begin := time.Now()
			if err := p.Stop(t.Context()); err != nil || time.Since(begin) > 0 {
				t.Errorf("Stop of one that was never heard: %v after %s", err, time.Since(begin))
			}
		})
	})
}

func TestPulseRunOnce(t *testing.T) {
	r := &rec{}
	p := newPulse(t, r.config(30*time.Second))
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("Stop before Run: %v", err)
	}
	if err := p.Run(t.Context()); !errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("Run after Stop: %v, want ErrStopped", err)
	}
	if len(r.at) != 0 {
		t.Errorf("stopped before it ran, and sent %v", r.why)
	}
	<-p.Done()

	p = newPulse(t, r.config(30*time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for tick := time.Tick(ms); len(ended) == 0 && p.Stats().Sent == 0; { // Run ends if it fails
		<-tick
	}
	if err := p.Run(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("a second Run: %v, want ErrRunning", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := p.Run(t.Context()); !errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("Run after Run: %v, want ErrStopped", err)
	}
}

// Every method, from many goroutines, in every order.
func TestPulseStress(t *testing.T) {
	t.Parallel()
	for range 50 {
		var sent atomic.Int64
		p := newPulse(t, PulseConfig[int]{
			Every:    hivebeat.MinEvery,
			Snapshot: func(Why) (int, error) { return 0, nil },
			Send: func(int) error {
				if sent.Add(1)%7 == 0 {
					return errors.New("now and then")
				}
				return nil
			},
			LastWait: 50 * ms,
		})
		var wg sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		for range 4 {
			wg.Go(func() { _ = p.Run(ctx) })
			wg.Go(func() {
				for range 100 {
					p.Changed()
					p.Touch()
					p.Call(ms)
					p.Reconnected()
					_ = p.Stats()
				}
				short, cancel := context.WithTimeout(ctx, ms)
				defer cancel()
				_ = p.Now(short)
			})
			wg.Go(func() { _ = p.Stop(ctx) })
		}
		wg.Wait()
		if ctx.Err() != nil {
			t.Fatal("it hangs")
		}
		<-p.Done()
		cancel()
	}
}

func TestPulseConfig(t *testing.T) {
	t.Parallel()
	good := (&rec{}).config(time.Second)
	for field, spoil := range map[string]func(*PulseConfig[Why]){
		"Every: 0s":    func(c *PulseConfig[Why]) { c.Every = 0 },
		"Every: 99ms":  func(c *PulseConfig[Why]) { c.Every = 99 * ms },
		"Every: 2h0m0": func(c *PulseConfig[Why]) { c.Every = 2 * time.Hour },
		"Snapshot":     func(c *PulseConfig[Why]) { c.Snapshot = nil },
		"Send":         func(c *PulseConfig[Why]) { c.Send = nil },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := NewPulse(cfg); err == nil || !strings.Contains(err.Error(), "PulseConfig."+field) {
			t.Errorf("error %v does not name %s", err, field)
		}
	}
}

func TestParseSpread(t *testing.T) {
	t.Parallel()
	const def = 500 * ms
	for in, want := range map[string]time.Duration{
		"": def, "0": 0, "1": ms, "250": 250 * ms, "007": 7 * ms, "999999999": 999999999 * ms,
	} {
		if got, err := ParseSpread([]byte(in), def); err != nil || got != want {
			t.Errorf("ParseSpread(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"-1", "+1", "1.5", " 1", "1\n", "0x10", "1e3", "1000000000", "\x00", "\xff\xff", "١", "500ms", strings.Repeat("9", 1<<20)} {
		got, err := ParseSpread([]byte(in), def)
		if !errors.Is(err, hivebeat.ErrRefused) {
			t.Errorf("ParseSpread(%.20q) = %s, %v; want it refused", in, got, err)
			continue
		}
		if len(err.Error()) > 300 {
			t.Errorf("the error repeats %d bytes of a hostile payload", len(err.Error()))
		}
	}
}

func ExampleWhy_String() {
	fmt.Println(WhyStart, WhyChanged, WhyLast, Why(0), Why(99))
	// Output: start changed last none none
}

func BenchmarkPulseChanged(b *testing.B) {
	p := newPulse(b, (&rec{}).config(time.Minute))
	start(b, p)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p.Changed()
		}
	})
}
