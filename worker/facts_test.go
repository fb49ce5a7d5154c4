package worker

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
)

// offline returns a worker that never runs; it has no connection.
func offline(t testing.TB, cfg Config) *Worker {
	t.Helper()
	if cfg.Hive == "" {
		cfg.Hive, cfg.ID = "gpu-01", "llama"
	}
	w, err := New(&nats.Conn{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func labels(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint("k", i)] = "v"
	}
	return m
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spoil func(*Config)
		names string // the field that the error must name
		is    error
	}{
		"no hive":         {func(c *Config) { c.Hive = "" }, "Config.Hive", hivebeat.ErrID},
		"a bad hive":      {func(c *Config) { c.Hive = "gpu.01" }, `Config.Hive: invalid id: hive "gpu.01"`, hivebeat.ErrID},
		"no id":           {func(c *Config) { c.ID = "" }, "Config.ID", hivebeat.ErrID},
		"a wild id":       {func(c *Config) { c.ID = "*" }, "Config.ID", hivebeat.ErrID},
		"a long id":       {func(c *Config) { c.ID = strings.Repeat("x", 65) }, "Config.ID", hivebeat.ErrID},
		"a bad prefix":    {func(c *Config) { c.Prefix = "a b" }, "Config.Prefix", hivebeat.ErrID},
		"too often":       {func(c *Config) { c.Every = 99 * time.Millisecond }, "Config.Every", nil},
		"backwards":       {func(c *Config) { c.Every = -time.Second }, "Config.Every", nil},
		"too rarely":      {func(c *Config) { c.Every = time.Hour + 1 }, "Config.Every", nil},
		"gone already":    {func(c *Config) { c.State = hivebeat.Stopped }, "Config.State", ErrInvalid},
		"a long state":    {func(c *Config) { c.State = hivebeat.State(strings.Repeat("x", 33)) }, "Config.State", ErrInvalid},
		"a long model":    {func(c *Config) { c.Model = strings.Repeat("x", 257) }, "Config.Model", ErrInvalid},
		"no UTF-8":        {func(c *Config) { c.Endpoint = "\xff" }, "Config.Endpoint", ErrInvalid},
		"many GPUs":       {func(c *Config) { c.GPUs = make([]string, 65) }, "Config.GPUs", ErrInvalid},
		"a long GPU":      {func(c *Config) { c.GPUs = []string{strings.Repeat("x", 65)} }, "Config.GPUs", ErrInvalid},
		"many labels":     {func(c *Config) { c.Labels = labels(33) }, "Config.Labels", ErrInvalid},
		"a long label":    {func(c *Config) { c.Labels = map[string]string{"k": strings.Repeat("x", 129)} }, "Config.Labels", ErrInvalid},
		"a long key":      {func(c *Config) { c.Labels = map[string]string{strings.Repeat("x", 64): ""} }, "Config.Labels", ErrInvalid},
		"too much memory": {func(c *Config) { c.Need = hivebeat.MaxInt + 1 }, "Config.Need", ErrInvalid},
		"too many slots":  {func(c *Config) { c.Slots = hivebeat.MaxInt + 1 }, "Config.Slots", ErrInvalid},
	} {
		cfg := Config{Hive: "gpu-01", ID: "llama"}
		tc.spoil(&cfg)
		_, err := New(&nats.Conn{}, cfg)
		if err == nil || !strings.Contains(err.Error(), tc.names) || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%s: error %v, want one that names %s and is %v", name, err, tc.names, tc.is)
		}
	}
	if _, err := New(nil, Config{Hive: "gpu-01", ID: "llama"}); err == nil {
		t.Error("New without a connection: no error")
	}
}

func TestIncarnationsIncrease(t *testing.T) {
	t.Parallel()
	before := uint64(time.Now().UnixMicro())
	last := uint64(0)
	for range 1000 {
		inc := newInc(time.Now())
		if inc <= last || inc < before {
			t.Fatalf("incarnation %d after %d, begun at %d", inc, last, before)
		}
		last = inc
	}
	if inc := newInc(time.UnixMicro(1)); inc <= last { // the clock was set back
		t.Errorf("incarnation %d after %d", inc, last)
	}
}

// The strict parser accepts every beat, whatever New and Update accept and a Facts
// function returns.
func TestBeatsAreAlwaysValid(t *testing.T) {
	t.Parallel()
	text := func(most int) *rapid.Generator[string] {
		return rapid.Custom(func(t *rapid.T) string {
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				return ""
			case 1:
				return strings.Repeat("x", most)
			case 2:
				return string(rapid.SliceOfN(rapid.Byte(), 0, most+2).Draw(t, "bytes"))
			}
			return rapid.StringN(0, most, -1).Draw(t, "text")
		})
	}
	number := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, hivebeat.MaxInt, hivebeat.MaxInt + 1, math.MaxUint64}))
	facts := rapid.Custom(func(t *rapid.T) Facts {
		return Facts{
			Model: text(hivebeat.MaxModel).Draw(t, "model"), Endpoint: text(hivebeat.MaxEndpoint).Draw(t, "endpoint"),
			GPUs:   rapid.SliceOfN(text(hivebeat.MaxGPUID), 0, hivebeat.MaxGPUs+1).Draw(t, "gpus"),
			Labels: rapid.MapOfN(text(hivebeat.MaxLabelKey), text(hivebeat.MaxLabelVal), 0, hivebeat.MaxLabels+1).Draw(t, "labels"),
			Data:   rapid.SliceOfN(rapid.Byte(), 0, hivebeat.MaxData+1).Draw(t, "data"),
			Slots:  number.Draw(t, "slots"), Need: number.Draw(t, "need"), VRAM: number.Draw(t, "vram"), Busy: number.Draw(t, "busy"),
			Queue: number.Draw(t, "queue"), Done: number.Draw(t, "done"),
		}
	})
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		w, err := New(&nats.Conn{}, Config{Hive: strings.Repeat("h", 64), ID: strings.Repeat("w", 64)})
		if err != nil {
			t.Fatal(err)
		}
		if read := facts.Draw(t, "read"); rapid.Bool().Draw(t, "with a Facts function") {
			w.cfg.Facts = func() Facts { return read }
		}
		if f := facts.Draw(t, "facts"); w.Update(func(old *Facts) { *old = f }) == nil {
			accepted++
		}
		state := hivebeat.State(text(hivebeat.MaxState).Draw(t, "state"))
		_ = w.SetState(state, text(4*hivebeat.MaxReason).Draw(t, "reason"))
		w.quiet = time.Now().Add(hivebeat.MaxQuiet)
		for _, why := range []bus.Why{bus.WhyStart, bus.WhyLast} {
			b, err := w.snapshot(why)
			if err != nil {
				t.Fatal(err)
			}
			b.Conn = strings.Repeat("c", hivebeat.MaxConn)
			b.NS = strings.Repeat("n", hivebeat.MaxConn)
			b.Host = strings.Repeat("h", hivebeat.MaxHostText)
			payload, err := bus.Encode(&b)
			if err != nil {
				t.Fatal(err)
			}
			var got hivebeat.Beat
			if err := bus.Decode(payload, &got); err != nil {
				t.Fatalf("%s: the parser refuses %d bytes of %+v: %v", why, len(payload), b, err)
			}
		}
	})
	if accepted == 0 {
		t.Error("no facts were accepted: this test shows nothing")
	}
}

// The largest facts that check accepts fit a beat, and use it well.
func TestFactsRoom(t *testing.T) {
	t.Parallel()
	f := Facts{
		Model: strings.Repeat("m", hivebeat.MaxModel), Endpoint: strings.Repeat("e", hivebeat.MaxEndpoint),
		Data: make([]byte, hivebeat.MaxData), Labels: map[string]string{},
	}
	for i := range hivebeat.MaxLabels {
		f.Labels[fmt.Sprintf("%063d", i)] = strings.Repeat("v", hivebeat.MaxLabelVal)
	}
	if err := f.check(); err == nil || !strings.HasPrefix(err.Error(), "Facts:") {
		t.Errorf("all labels, texts and data at their limit: %v, want an error on Facts", err)
	}
	for len(f.Labels) > 24 {
		for k := range f.Labels {
			delete(f.Labels, k)
			break
		}
	}
	if err := f.check(); err != nil {
		t.Errorf("24 labels at their limit, texts and data as well: %v", err)
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	w := offline(t, Config{})
	for in, want := range map[string]string{
		"":                             "",
		"fine":                         "fine",
		strings.Repeat("x", 256):       strings.Repeat("x", 256),
		strings.Repeat("x", 257):       strings.Repeat("x", 253) + "…",
		strings.Repeat("x", 1<<20):     strings.Repeat("x", 253) + "…",
		strings.Repeat("ü", 200):       strings.Repeat("ü", 126) + "…",
		"bad \xff byte":                "bad ? byte",
		strings.Repeat("\xff", 300):    "?",
		strings.Repeat("x", 255) + "…": strings.Repeat("x", 255) + "?",
	} {
		got := w.clip(in)
		if got != want {
			t.Errorf("clip(%.20q… of %d bytes) = %q, want %q", in, len(in), got, want)
		}
		if len(got) > hivebeat.MaxReason || !utf8.ValidString(got) {
			t.Errorf("clip(%.20q…) = %q: %d bytes, valid %v", in, got, len(got), utf8.ValidString(got))
		}
	}
	if n := w.Stats().Clipped; n != 6 {
		t.Errorf("%d reasons were counted as clipped, want 6", n)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	w := offline(t, Config{Model: "m", Labels: map[string]string{"zone": "a"}})

	t.Run("what is invalid changes nothing", func(t *testing.T) {
		err := w.Update(func(f *Facts) {
			f.Busy = 7
			f.Model = strings.Repeat("x", 300)
			f.Labels["zone"] = "spoilt"
		})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "worker: Update: Model") {
			t.Errorf("error %v does not name the field", err)
		}
		if f := w.current(); f.Busy != 0 || f.Model != "m" || f.Labels["zone"] != "a" {
			t.Errorf("refused, and yet: %+v", f)
		}
		if n := w.Stats().Refused; n != 1 {
			t.Errorf("refused %d, want 1", n)
		}
	})
	t.Run("what the program keeps is its own", func(t *testing.T) {
		mine, data := map[string]string{"zone": "b"}, []byte("abc")
		var kept *Facts
		if err := w.Update(func(f *Facts) { f.Labels, f.Data, kept = mine, data, f }); err != nil {
			t.Fatal(err)
		}
		mine["zone"], data[0], kept.Model = "c", 'X', "other"
		if f := w.current(); f.Labels["zone"] != "b" || string(f.Data) != "abc" || f.Model != "m" {
			t.Errorf("written to from outside: %+v", f)
		}
	})
	t.Run("an Update within an Update ends", func(t *testing.T) {
		err := w.Update(func(f *Facts) {
			f.Queue++
			if err := w.Update(func(f *Facts) { f.Queue++ }); err != nil {
				t.Error(err)
			}
		})
		if !errors.Is(err, ErrContended) {
			t.Errorf("error %v, want ErrContended", err)
		}
	})
	t.Run("a panic is the caller's, and spoils nothing", func(t *testing.T) {
		func() {
			defer func() { _ = recover() }()
			_ = w.Update(func(f *Facts) { f.Model = "gone"; panic("mine") })
		}()
		if err := w.Update(func(f *Facts) { f.Endpoint = "http://a" }); err != nil {
			t.Fatal(err)
		}
		if f := w.current(); f.Model != "m" || f.Endpoint != "http://a" {
			t.Errorf("after a panic: %+v", f)
		}
	})
}

// No concurrent change is lost.
func TestUpdateConcurrently(t *testing.T) {
	t.Parallel()
	w := offline(t, Config{})
	const goroutines, each = 16, 500
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range each {
				if err := w.Update(func(f *Facts) { f.Done++ }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if f := w.current(); f.Done != goroutines*each {
		t.Errorf("done %d, want %d", f.Done, goroutines*each)
	}
}

// One seq is used per interval while nothing can be sent, however many attempts there
// are.
func TestDraw(t *testing.T) {
	t.Parallel()
	w := offline(t, Config{Every: 30 * time.Second})
	now := time.Now()
	w.draw(now)
	if w.sent = true; w.seq != 1 {
		t.Fatalf("the first seq is %d", w.seq)
	}
	for range 300 { // 5 minutes cut off, with an attempt each second
		now = now.Add(time.Second)
		w.draw(now)
	}
	if w.seq < 11 || w.seq > 13 {
		t.Errorf("after 5 minutes at 30 s seq is %d, want about 12", w.seq)
	}
	last := w.seq
	w.sent = true
	w.draw(now)
	if w.seq != last+1 {
		t.Errorf("the beat after one that was sent has seq %d, want %d", w.seq, last+1)
	}
}

func TestSetState(t *testing.T) {
	t.Parallel()
	w := offline(t, Config{})
	for _, s := range []hivebeat.State{"", hivebeat.Stopped, hivebeat.Failed, "\xff", hivebeat.State(strings.Repeat("x", 33))} {
		if err := w.SetState(s, ""); !errors.Is(err, ErrInvalid) {
			t.Errorf("SetState(%q): %v, want ErrInvalid", s, err)
		}
	}
	if w.state != hivebeat.Ready || w.Stats().Refused != 5 {
		t.Errorf("after 5 bad states: state %s, refused %d", w.state, w.Stats().Refused)
	}
	if err := w.SetState("dreaming", "a word of its own"); err != nil {
		t.Errorf("an unknown state: %v", err)
	}
	if err := w.Stop(t.Context()); err != nil {
		t.Errorf("Stop before Run: %v", err)
	}
	if err := w.SetState(hivebeat.Ready, ""); !errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("SetState after Stop: %v, want ErrStopped", err)
	}
	if err := w.Quiet(t.Context(), time.Minute); !errors.Is(err, hivebeat.ErrStopped) {
		t.Errorf("Quiet after Stop: %v, want ErrStopped", err)
	}
}
