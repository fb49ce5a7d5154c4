//go:build e2e

package nemesis

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// clusterFigures are the figures of a scene on three servers.
type clusterFigures struct {
	events, eventsElse   []time.Duration // from kills to events, if a common live server was reachable, and otherwise
	silence, silenceElse time.Duration   // the longest times without an answer
	outage               time.Duration   // the longest outage
	minority             int             // live processes reported as lost to a subscriber in a minority
}

// end waits until everything is published, stored and agreed on, and completes the row.
func (c *cluster) end() {
	c.Helper()
	c.told(patience + 3*max(*hiveEvery, *workerEvery))
	c.agree()
	var stored []hivebeat.Event
	// After a cut the servers elect leaders first, and queens try again after a pause: the
	// events that waited for JetStream come some seconds after the queens agree. A missing
	// one is what ends finds, so that this only waits.
	for end := time.Now().Add(2 * patience); len(c.untrue(c.stored())) > 0 && time.Now().Before(end); {
		c.wait(200 * time.Millisecond)
	}
	rig.Until(c.T, 2*patience, "the stream to hold every death", func() (bool, string) {
		stored = c.stored()
		for _, d := range c.kills {
			if !slices.ContainsFunc(stored, func(ev hivebeat.Event) bool {
				return ev.Data.Kind == hivebeat.KindLost && ev.Subject == d.subject
			}) {
				return false, d.subject + " is missing"
			}
		}
		return true, ""
	})
	c.wait(3 * time.Second / 2) // time for events that must not happen
	read := time.Now()
	stored = c.stored()
	c.wait(300 * time.Millisecond)
	c.judgeCluster(stored, read)
	c.dump("end")
	if dir := os.Getenv("NEMESIS_DUMP"); dir != "" {
		os.WriteFile(dir+"/stream", []byte(list(stored)), 0o600)
		os.WriteFile(dir+"/heard", []byte(c.timeline()), 0o600)
	}
	if c.Failed() {
		c.Logf("--- events stored:\n%s", list(stored))
	}
}

// timeline lists when each subscriber heard what, among the starts and ends of spells.
func (c *cluster) timeline() string {
	type line struct {
		at   time.Time
		text string
	}
	var all []line
	for _, h := range slices.Concat(c.ears.events(), c.ears.unstored()) {
		all = append(all, line{h.at, fmt.Sprintf("subscriber %d: %-10s %-10s cause=%s via=%s live=%v id=%s provisional=%s", h.by+1, h.Data.Kind, h.Subject, h.Data.Cause, h.Data.Via, h.IsLive(), h.ID, h.Provisional)})
	}
	for subject, of := range c.truth.all() {
		for _, sp := range of {
			all = append(all, line{sp.from, fmt.Sprintf("%s is away, dead: %v", subject, sp.dead)})
			if !sp.to.IsZero() {
				all = append(all, line{sp.to, subject + " is back"})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, l := range all {
		fmt.Fprintf(&b, "%s %s\n", l.at.UTC().Format("15:04:05.000"), l.text)
	}
	return b.String()
}

// dump writes the output of every process so far to the folder NEMESIS_DUMP.
func (c *cluster) dump(when string) {
	dir := os.Getenv("NEMESIS_DUMP")
	if dir == "" {
		return
	}
	write := func(name string, p *rig.Proc) {
		file := filepath.Join(dir, strings.NewReplacer("/", "-", " ", "-").Replace(name+"."+when))
		if err := os.WriteFile(file, []byte(p.Output()), 0o600); err != nil {
			c.Error(err)
		}
	}
	for name, p := range c.procs {
		write(name, p)
	}
	for _, n := range c.servers {
		write(n.NATS.Name, n.Proc)
	}
}

func (c *cluster) judgeCluster(stored []hivebeat.Event, read time.Time) {
	c.Helper()
	all, copies := c.ears.events(), c.ears.unstored()
	c.deaf = true // a subscriber misses events while its server is away; the stream does not
	c.accounts(all, stored, read)
	c.ends(stored)
	c.verdicts(all, copies)
	c.times(all, copies)
	c.answers()
	c.copies(copies, stored)
	if late := c.late.longest(); late > 200*time.Millisecond {
		c.note = append(c.note, "the test itself did not run for "+show(late))
	}
}

// ends compares the last verdict on each process in the stream with the truth: if they differ,
// an event is missing.
func (c *cluster) ends(stored []hivebeat.Event) {
	c.Helper()
	for _, what := range c.untrue(stored) {
		c.row.eventsLost++
		c.Error(what)
	}
}

// untrue returns the processes of which the stream's last word is not the truth.
func (c *cluster) untrue(stored []hivebeat.Event) (list []string) {
	last := map[string]hivebeat.Kind{}
	for _, ev := range stored {
		switch ev.Data.Kind {
		case hivebeat.KindJoined, hivebeat.KindRestarted, hivebeat.KindRecovered, hivebeat.KindLost, hivebeat.KindLeft, hivebeat.KindUnverified:
			last[ev.Subject] = ev.Data.Kind
		}
	}
	for subject := range c.procs {
		lost := last[subject] == hivebeat.KindLost || last[subject] == hivebeat.KindLeft || last[subject] == hivebeat.KindUnverified
		if !strings.HasPrefix(subject, "queen ") && lost != c.gone(subject) {
			list = append(list, fmt.Sprintf("the stream's last word on %s is %q, and it is dead: %v", subject, last[subject], c.gone(subject)))
		}
	}
	return list
}

// verdicts checks every verdict that was received against the truth. Live copies count too.
// A verdict is about the time when it was first heard, by any subscriber: the same event may
// be stored only when JetStream is back and its queen has noticed that.
func (c *cluster) verdicts(all, copies []heard) {
	c.Helper()
	c.row.told = map[string]int{}
	told := slices.Concat(all, copies)
	slices.SortStableFunc(told, func(a, b heard) int { return a.at.Compare(b.at) })
	first, counted, own := map[string]time.Time{}, map[string]bool{}, map[string]bool{}
	for _, h := range told {
		id := cmp.Or(h.Provisional, h.ID)
		if h.Data.Kind != hivebeat.KindLost || counted[id] {
			continue
		}
		if _, known := first[id]; !known {
			first[id] = h.at
		}
		sp, ok := c.truth.of(h.Subject, first[id])
		if c.minorityHeard(h) {
			if !sp.dead && !own[id] {
				own[id] = true
				c.row.cluster.minority++
			}
			continue
		}
		counted[id] = true
		c.row.told[string(h.Data.Cause)]++
		switch {
		case !ok:
			c.row.falseDead++
			c.Errorf("LOST THOUGH ALIVE: %s was told lost (%s, age %d ms, via %s: %s) %s, and was alive and reachable",
				h.Subject, h.Data.Cause, h.Data.AgeMS, h.Data.Via, h.Data.Reason, c.since(first[id]))
		case !sp.dead:
			c.row.cutOff++
		}
	}
	for _, of := range c.truth.all() {
		if of[len(of)-1].dead {
			c.row.deaths++
		}
	}
}

// since describes a time relative to the outages.
func (c *cluster) since(at time.Time) string {
	var all []string
	for _, o := range c.outages {
		if !at.Before(o.from) {
			all = append(all, fmt.Sprintf("%s after %s went", show(at.Sub(o.from)), o.server))
		}
	}
	return cmp.Or(strings.Join(all, ", "), "before any outage")
}

// minorityHeard reports whether a subscriber received h from a server that was cut off from
// the others. Such an event is the minority's own view.
func (c *cluster) minorityHeard(h heard) bool {
	for _, o := range c.outages {
		if o.apart && c.servers[h.by].NATS.Name == o.server && o.overlaps(h.at, h.at) {
			return true
		}
	}
	return false
}

// A bound compares durations with a limit, and keeps the one that came closest to it or
// exceeded it most.
type bound struct {
	over  time.Duration // by how much the worst one exceeds the limit
	worst string
}

func (b *bound) add(took, most time.Duration, format string, args ...any) {
	if over := took - most; b.worst == "" || over > b.over {
		b.over, b.worst = over, fmt.Sprintf(format, args...)
	}
}

func (c *cluster) holds(b *bound) {
	c.Helper()
	if b.worst != "" {
		c.wanted(b.over <= c.late.longest(), "%s", b.worst)
	}
}

// times measures from each kill to its first event at a subscriber: the stored event, or a
// live copy.
func (c *cluster) times(all, copies []heard) {
	c.Helper()
	f, near, far := c.row.cluster, new(bound), new(bound)
	for _, d := range c.kills {
		took, cause, common := time.Duration(-1), hivebeat.Cause(""), c.hearsOf(d)
		for _, h := range slices.Concat(all, copies) {
			if h.Data.Kind != hivebeat.KindLost || h.Subject != d.subject || h.at.Before(d.at) || len(common) > 0 && !common[h.by] {
				continue
			}
			if t := h.at.Sub(d.at); took < 0 || t < took {
				took, cause = t, h.Data.Cause
			}
		}
		outage := c.outageIn(d.at, d.at.Add(mostLate))
		c.Logf("%s killed → event, %s: %s; at a common server: %v; outage: %s", d.subject, cause, show(took), len(common) > 0, some(outage))
		switch {
		case took < 0:
			c.Errorf("%s is gone and no subscriber heard of it", d.subject)
		case len(common) > 0:
			f.events = append(f.events, took)
			near.add(took, mostLate, "from the kill of %s to its event %s, although its hive, a queen and a subscriber had a common server", d.subject, show(took))
		default:
			f.eventsElse = append(f.eventsElse, took)
			far.add(took, mostLate+outage, "from the kill of %s to its event %s, in an outage of %s", d.subject, show(took), show(outage))
		}
	}
	c.holds(near)
	c.holds(far)
	for _, o := range c.outages {
		f.outage = max(f.outage, o.to.Sub(o.from))
	}
}

// hearsOf returns the subscribers that have a common live server with the hive and a queen
// for as long as the event may take.
func (c *cluster) hearsOf(d *death) map[int]bool {
	ears := map[int]bool{}
	for by, ear := range d.ears {
		for _, queen := range d.queens {
			until := d.at.Add(mostLate)
			if c.common(d.hive, ear, d.at, until) && c.common(queen, ear, d.at, until) {
				ears[by] = true
			}
		}
	}
	return ears
}

// answers measures the longest times without an answer.
func (c *cluster) answers() {
	c.Helper()
	f, near, far := c.row.cluster, new(bound), new(bound)
	for i, a := range c.askers {
		for _, w := range a.waited() {
			took := w.to.Sub(w.from)
			if c.common(w.server, w.server, w.from, w.to) {
				f.silence = max(f.silence, took)
				near.add(took, mostSilent, "asker %d had no answer for %s, %s, although %s was there", i+1, show(took), c.since(w.from), w.server)
				continue
			}
			outage := c.outageIn(w.from, w.to)
			f.silenceElse = max(f.silenceElse, took)
			far.add(took, mostSilent+outage, "asker %d had no answer for %s, in an outage of %s", i+1, show(took), show(outage))
		}
	}
	c.holds(near)
	c.holds(far)
}

// copies compares the live copies with the stream.
func (c *cluster) copies(copies []heard, stored []hivebeat.Event) {
	c.Helper()
	ids := map[string]bool{}
	for _, ev := range stored {
		ids[ev.ID], ids[ev.Provisional] = true, true
	}
	heard, never := map[string]bool{}, 0
	for _, h := range copies {
		if !heard[h.ID] && !ids[h.ID] {
			never++
			c.Logf("a copy that was never stored: %s of %s, %s, %s", h.Data.Kind, h.Subject, h.ID, h.Data.Reason)
		}
		heard[h.ID] = true
	}
	if n := c.row.cluster.minority; n > 0 {
		c.note = append(c.note, fmt.Sprintf("the minority's own subscriber was told of %d living that they are lost", n))
	}
	if n := c.twice(); n > 0 {
		c.note = append(c.note, fmt.Sprintf("%d deaths were told twice to a subscriber that drops known ids", n))
	}
	if len(heard) > 0 {
		c.note = append(c.note, fmt.Sprintf("%d events also went out before they were stored", len(heard)))
	}
	if never > 0 {
		c.note = append(c.note, fmt.Sprintf("%d of those were taken back before", never))
	}
}

// twice counts the deaths that a subscriber receives again, after it drops every message with
// a known id or provisional id.
func (c *cluster) twice() (n int) {
	all := slices.Concat(c.ears.events(), c.ears.unstored())
	slices.SortStableFunc(all, func(a, b heard) int { return a.at.Compare(b.at) })
	type key struct {
		by int
		of string
	}
	known, told := map[key]bool{}, map[key]string{}
	for _, h := range all {
		id, provisional := key{h.by, h.ID}, key{h.by, cmp.Or(h.Provisional, h.ID)}
		seen := known[id] || known[provisional]
		known[id], known[provisional] = true, true
		switch who := (key{h.by, fmt.Sprint(h.Subject, " ", h.Data.Inc)}); {
		case seen:
		case h.Data.Kind == hivebeat.KindLost:
			// If a queen reported it first, the hive may report the true cause when it is back.
			if before := told[who]; before != "" && (before == h.Data.Via || h.Data.Via != hivebeat.ViaHive) {
				n++
				c.Logf("subscriber %d hears once more that %s is lost: %s, %s", h.by+1, h.Subject, h.ID, h.Data.Reason)
			}
			told[who] = h.Data.Via
		case h.Data.Kind == hivebeat.KindRecovered:
			delete(told, who)
		}
	}
	return n
}

// printCluster writes the table of the scenes on three servers.
func (t *table) printCluster(w *os.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nThree servers, three replicas (hives promise every %s, workers every %s)\n\n", *hiveEvery, *workerEvery)
	fmt.Fprintln(&b, "| scene | lost though alive | lost while cut off | events lost / doubled | longest without an answer: common server, otherwise | kill to event: common server p50 / max, otherwise max | longest outage | |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|---|")
	for _, r := range t.rows {
		f := r.cluster
		if f == nil {
			f = new(clusterFigures)
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d / %d | %s, %s | %s, %s | %s | %s |\n", r.name, r.falseDead, r.cutOff, r.eventsLost, r.doubled,
			some(f.silence), some(f.silenceElse), few(f.events), most(f.eventsElse), some(f.outage), strings.Join(append([]string{r.verdict}, r.note...), "; "))
	}
	fmt.Fprintln(&b)
	for _, r := range t.rows {
		fmt.Fprintf(&b, "* **%s** (%.0f s) %s. Expected: %s. %s\n", r.name, r.took.Seconds(), r.fault, r.expect, cmp.Or(r.verdict, "?"))
	}
	fmt.Fprintln(w, b.String())
}

func some(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return show(d)
}

func few(d []time.Duration) string {
	if len(d) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s / %s (%d)", show(quantile(d, 50)), show(quantile(d, 100)), len(d))
}

func most(d []time.Duration) string {
	if len(d) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%d)", show(quantile(d, 100)), len(d))
}
