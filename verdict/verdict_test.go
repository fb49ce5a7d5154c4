package verdict

import (
	"testing"
	"time"
)

func TestDeadlinesOfSilence(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name         string
		every, quiet time.Duration
		late, lost   time.Duration
	}{
		{"worker", 30 * s, 0, 45 * s, 90 * s},
		{"hive", 15 * s, 0, 22*s + 500*time.Millisecond, 45 * s},
		{"fastest", 100 * time.Millisecond, 0, 150 * time.Millisecond, 300 * time.Millisecond},
		{"quiet longer than every", 30 * s, 600 * s, 615 * s, 660 * s},
		{"quiet shorter than every", 30 * s, 10 * s, 45 * s, 90 * s},
	} {
		if got := LateAfter(c.every, c.quiet); got != c.late {
			t.Errorf("%s: late after %s, want %s", c.name, got, c.late)
		}
		if got := LostAfter(c.every, c.quiet); got != c.lost {
			t.Errorf("%s: lost after %s, want %s", c.name, got, c.lost)
		}
	}
}

func TestMissed(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		age, every, quiet time.Duration
		want              uint64
	}{
		{0, 30 * s, 0, 0},
		{30 * s, 30 * s, 0, 0},
		{31 * s, 30 * s, 0, 1},
		{59 * s, 30 * s, 0, 1},
		{61 * s, 30 * s, 0, 2},
		{90 * s, 30 * s, 120 * s, 0},
		{121 * s, 30 * s, 120 * s, 1},
		{10 * s, 0, 0, 0},
	} {
		if got := Missed(c.age, c.every, c.quiet); got != c.want {
			t.Errorf("Missed(%s, %s, %s) = %d, want %d", c.age, c.every, c.quiet, got, c.want)
		}
	}
}
