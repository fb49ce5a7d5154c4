package whatif

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/detector"
	"github.com/beatfabric/hivebeat/internal/wire"
)

// falseDeathsOf sends a number of beats of one worker to the real detector, over a bus that
// loses some. It returns how often the worker was lost.
func falseDeathsOf(t *testing.T, s Settings, beats int) (deaths float64) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	reg, g := detector.New("h"), newGaps(r, s.Every)
	reg.Start(epoch)
	b := hivebeat.Beat{V: 1, Hive: "h", Worker: "w", Facts: hivebeat.Facts{Inc: 1, Every: hivebeat.MillisOf(s.Every), State: hivebeat.Ready}}
	for range beats {
		g.draw()
		b.Seq++
		if r.Float64() < s.Loss {
			continue
		}
		at := g.now.Add(s.delay(r))
		reg.Detect(at)
		msg, err := wire.EncodeBeat(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reg.Receive(at, msg, ""); err != nil {
			t.Fatal(err)
		}
		for _, step := range reg.TakeSteps() {
			if step.Kind == hivebeat.KindLost {
				deaths++
			}
		}
	}
	return deaths
}

// TestFalseDeathsAsTheDetectorHasThem compares the formula with the detector.
func TestFalseDeathsAsTheDetectorHasThem(t *testing.T) {
	beats := 100_000.0
	if testing.Short() {
		beats = 20_000
	}
	for _, loss := range []float64{0.1, 0.3, 0.6} {
		for _, jitter := range []time.Duration{0, time.Second, 8 * time.Second} {
			t.Run(fmt.Sprint(loss, " ", jitter), func(t *testing.T) {
				t.Parallel()
				s := Settings{Loss: loss, Jitter: jitter, Delay: 100 * time.Millisecond}.WithDefaults()
				month := float64(Month) / (0.9 * float64(s.Every))
				want := Ask(s).Workers.PerMonth * beats / month
				got := falseDeathsOf(t, s, int(beats))
				if math.Abs(got-want) > 0.05*want+5*math.Sqrt(want) {
					t.Errorf("%.0f deaths in %d beats, the formula says %.0f", got, int(beats), want)
				}
			})
		}
	}
}

func TestWhatIf(t *testing.T) {
	for _, c := range []struct {
		name     string
		s        Settings
		survives int
		least    float64 // false deaths of one worker in a month
		most     float64
		p50, max time.Duration
	}{
		{"a good network", Settings{}, 2, 0, 0, 76 * time.Second, 90 * time.Second},
		{"a bad one", Settings{Loss: 0.05}, 2, 11, 12, 77 * time.Second, 5 * time.Minute},
		{"one loss a death", Settings{Loss: 0.01, Misses: 1.7}, 0, 900, 970, 37 * time.Second, 2 * time.Minute},
		{"ten promises", Settings{Loss: 0.05, Misses: 10}, 9, 1e-10, 1e-8, 290 * time.Second, 8 * time.Minute},
		{"a second", Settings{Every: time.Second, HiveEvery: time.Second}, 2, 0, 0, 2600 * time.Millisecond, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Ask(c.s).Workers
			if a.Survives != c.survives || a.PerMonth < c.least || a.PerMonth > c.most {
				t.Errorf("survives %d losses, %g false deaths a month; want %d, %g to %g", a.Survives, a.PerMonth, c.survives, c.least, c.most)
			}
			d := a.Detection
			if d.P50 < c.p50*9/10 || d.P50 > c.p50*11/10 || d.P99 < d.P50 || d.Max < d.P99 || d.Max > c.max {
				t.Errorf("detection %+v, want p50 about %v, max at most %v", d, c.p50, c.max)
			}
		})
	}
	if a, b := Ask(Settings{Loss: 0.1}), Ask(Settings{Loss: 0.1}); a != b {
		t.Errorf("the same question, another answer: %+v and %+v", a, b)
	}
}

func TestOften(t *testing.T) {
	for rate, want := range map[float64]string{0: "never", 11.36: "11.4 a month", 0.25: "one in 4 months", 1.0 / 120: "one in 10 years", 1e-12: "practically never"} {
		if got := Often(rate); got != want {
			t.Errorf("%g: %q, want %q", rate, got, want)
		}
	}
}
