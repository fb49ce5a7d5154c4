package liveness

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Unix(1_700_000_000, 0)

func at(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }

func TestDeadlinesAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Deadlines[int]
		m := map[int]time.Time{}
		now := t0
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k, when := rapid.IntRange(0, 9).Draw(t, "k"), now.Add(time.Duration(rapid.IntRange(-5, 30).Draw(t, "in"))*time.Second)
				d.Set(k, when)
				m[k] = when
			},
			"remove": func(t *rapid.T) {
				k := rapid.IntRange(0, 9).Draw(t, "k")
				d.Remove(k)
				delete(m, k)
			},
			"shift": func(t *rapid.T) {
				by := time.Duration(rapid.IntRange(0, 20).Draw(t, "by")) * time.Second
				d.Shift(by)
				for k := range m {
					m[k] = m[k].Add(by)
				}
			},
			"due": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "pass")) * time.Second)
				var last time.Time
				for k, when := range d.Due(now) {
					if !m[k].Equal(when) || when.After(now) || when.Before(last) {
						t.Fatalf("%d due at %s, now %s, after one at %s, want %s", k, when, now, last, m[k])
					}
					last = when
					delete(m, k)
				}
				for k, when := range m {
					if !when.After(now) {
						t.Fatalf("%d was due at %s and not told at %s", k, when, now)
					}
				}
			},
			"": func(t *rapid.T) {
				next, ok := d.Next()
				if ok != (len(m) > 0) || d.Len() != len(m) {
					t.Fatalf("next %t, length %d, want %d", ok, d.Len(), len(m))
				}
				for k, when := range m {
					if got, ok := d.At(k); !ok || !got.Equal(when) {
						t.Fatalf("deadline of %d is %s, want %s", k, got, when)
					}
					if next.After(when) {
						t.Fatalf("next is %s, but %d is due at %s", next, k, when)
					}
				}
			},
		})
	})
}

func TestDueMaySetANewDeadline(t *testing.T) {
	var d Deadlines[string]
	d.Set("a", at(1))
	d.Set("b", at(2))
	var got []string
	for k, when := range d.Due(at(5)) {
		got = append(got, k)
		if k == "a" && when.Equal(at(1)) {
			d.Set("a", at(3))
		}
	}
	if len(got) != 3 || got[0] != "a" || got[1] != "b" || got[2] != "a" || d.Len() != 0 {
		t.Errorf("got %q, %d left", got, d.Len())
	}
}

func TestExtendingDoesNotAllocate(t *testing.T) {
	var d Deadlines[int]
	for k := range 1000 {
		d.Set(k, at(k))
	}
	n := 0
	if a := testing.AllocsPerRun(1000, func() { n++; d.Set(n%1000, at(2000+n)) }); a != 0 {
		t.Errorf("%g allocations", a)
	}
}

func BenchmarkDeadlinesExtend(b *testing.B) {
	var d Deadlines[*int]
	keys := make([]*int, 10_000)
	for i := range keys {
		keys[i] = new(int)
		d.Set(keys[i], at(i))
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		d.Set(keys[n%len(keys)], t0.Add(time.Duration(20_000+n)*time.Second))
	}
}
