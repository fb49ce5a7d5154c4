package show

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
)

// Age renders a duration as people say it, in one unit: 12s, 119s, 3m, 5h, 9d.
func Age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return strconv.FormatInt(int64(max(0, d)/time.Second), 10) + "s"
	case d < 2*time.Hour:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	case d < 48*time.Hour:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	}
	return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
}

func age(m hivebeat.Millis) string { return Age(m.Duration()) }

const gib = 1 << 30

// GiB renders bytes in GiB with one decimal, which is omitted if it is zero.
func GiB(bytes uint64) string {
	return strings.TrimSuffix(strconv.FormatFloat(float64(bytes)/gib, 'f', 1, 64), ".0")
}

// usedOf renders 18.4/24 (GiB), or - if total is 0.
func usedOf(used, total uint64) string {
	if total == 0 {
		return "-"
	}
	return GiB(used) + "/" + GiB(total)
}

// ParseSize reads a size as people write it: 1048576, 1024KiB, 128MiB, 2GiB. The short
// forms mean the same: 2G and 2Gi are 2GiB. Decimal units such as GB are refused.
func ParseSize(text string) (bytes int64, err error) {
	digits, unit := text, int64(1)
	for i, suffixes := range [][]string{{"KiB", "Ki", "K"}, {"MiB", "Mi", "M"}, {"GiB", "Gi", "G"}} {
		for _, suffix := range suffixes {
			if s, ok := strings.CutSuffix(text, suffix); ok {
				digits, unit = strings.TrimSpace(s), 1<<(10*(i+1))
			}
		}
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size such as 64MiB, 20GiB or 20G", text)
	}
	return v * unit, nil
}

// size renders bytes in a suitable unit.
func size(bytes uint64) string {
	switch {
	case bytes >= gib:
		return GiB(bytes) + " GiB"
	case bytes >= 1<<20:
		return strconv.FormatUint(bytes>>20, 10) + " MiB"
	}
	return strconv.FormatUint(bytes>>10, 10) + " KiB"
}

// count renders n in digits grouped by thousands: 12,345.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Count renders n in digits grouped by thousands: 12,345.
func Count(n int) string { return count(uint64(max(0, n))) }

func percent(f float64) string { return fmt.Sprintf("%.0f%%", f) }

// Plural renders "1 hive" and "2,000 hives".
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(uint64(max(0, n))) + " " + noun + "s"
}
