package check

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/prom"
	"github.com/beatfabric/hivebeat/internal/prom/promtest"
	"github.com/beatfabric/hivebeat/queen"
	queenmetrics "github.com/beatfabric/hivebeat/queen/metrics"
)

// reported is a queen with a fixed report.
type reported queen.Report

func (r reported) Report(context.Context, bool) (queen.Report, error) { return queen.Report(r), nil }

// Each state of GPUs fires its own alert, and memory only that of its owner.
func TestGPUAlerts(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		what string
		r    queen.Report
		want []string
	}{
		{"all is well", queen.Report{GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUOK: 8}}, nil},
		{"slower, but usable", queen.Report{GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUOK: 7, hivebeat.GPUDegraded: 1}}, nil},
		{"one needs a reset", queen.Report{GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUOK: 7, hivebeat.GPUFailing: 1}}, []string{"GPUFailing"}},
		{"two fell off the bus", queen.Report{GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUOK: 6, hivebeat.GPUGone: 2}}, []string{"GPUGone"}},
		{
			"the driver does not match its library", queen.Report{GPUStates: map[hivebeat.GPUState]int{hivebeat.GPUUnknown: 8}, Failing: map[string]int{"gpu": 1}, VRAMStale: 640 * gib},
			[]string{"CollectFailing", "GPUUnread"},
		},
		{"children of workers hold it all", queen.Report{VRAMTotal: 80 * gib, VRAMUsed: 75 * gib, VRAMOurs: 75 * gib}, nil},
		{"an engine outlived its worker", queen.Report{VRAMTotal: 80 * gib, VRAMUsed: 72 * gib, VRAMOrphaned: 72 * gib}, []string{"GPUOrphan"}},
		{"nobody can say whose it is", queen.Report{VRAMTotal: 80 * gib, VRAMUsed: 72 * gib, VRAMUnattributed: 72 * gib}, nil},
		{"a program that is no worker", queen.Report{VRAMTotal: 80 * gib, VRAMUsed: 72 * gib, VRAMForeign: 72 * gib}, []string{"ForeignVRAM"}},
		{"a little of that", queen.Report{VRAMTotal: 80 * gib, VRAMUsed: 2 * gib, VRAMForeign: 2 * gib}, nil},
	} {
		c.r.Connected, c.r.Status.Warm = true, true
		text := promtest.Scrape(t, must(prom.Handler(must(queenmetrics.New(reported(c.r), queenmetrics.Config{})))))
		s, now := newStore(t), time.Now()
		for i := range 8 {
			s.scrape(t, now.Add(-time.Duration(i)*15*time.Second), "hivebeat-queen", "queen:7833", text)
		}
		var fired []string
		for _, r := range rules(t) {
			if strings.HasPrefix(r.Expr, "absent") {
				continue
			}
			if len(s.query(t, r.Expr, now)) > 0 {
				fired = append(fired, strings.TrimPrefix(r.Alert, "Hivebeat"))
			}
		}
		if !slices.Equal(fired, c.want) {
			t.Errorf("%s: %v fire, want %v", c.what, fired, c.want)
		}
	}
}
