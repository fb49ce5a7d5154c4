package discover

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/engines"
	"github.com/beatfabric/hivebeat/internal/probe"
	"github.com/beatfabric/hivebeat/verdict"
)

// Finding describes one process or port, for people.
type Finding struct {
	ID      string     // of the worker that beats for it; empty: none does
	Kind    probe.Kind // empty: unknown
	PID     uint64     // 0: unknown
	URL     string
	Command string
	Beats   bool   // it is an engine, and this process beats for it
	Trouble bool   // it is one, or should be, and no worker beats for it
	What    string // the finding, and the reason
	Do      string // what helps, if something does
}

// Subject names what a finding is about.
func (f *Finding) Subject() string {
	switch {
	case f.ID != "":
		return f.ID
	case f.PID != 0:
		return fmt.Sprintf("%s (pid %d)", cmp.Or(f.Command, string(f.Kind)), f.PID)
	}
	return f.URL
}

// Waits between two requests to a port that did not answer as an engine. One that refuses, or
// says that it loads, is asked at each look.
const (
	askAgain  = time.Minute
	askSeldom = 10 * time.Minute
	askRarely = 2 * time.Hour // a port that is only an engine's default
)

// plan decides what to beat for. It is pure, and has no lock.
type plan struct {
	ns      string // of this process, as in a beat
	host    string // the name of this machine
	entries map[key]*entry
	others  map[string]*other
	static  []Finding // of the last scan, known without asking
	parents map[uint64]uint64
}

// entry is a candidate and its state.
type entry struct {
	Candidate
	there  bool // in the last scan
	asking bool
	found  *probe.Found
	err    error
	next   time.Time     // when to ask
	wait   time.Duration // the last wait
	id     string        // of the worker, once found
	runs   bool          // this process beats for it
	why    string        // found, but left out
	spec   *engines.Spec // what runs
}

// other is a worker that another process beats for.
type other struct {
	worker, ns, host string
	pid              uint64
	endpoint         string
	until            time.Time // when it is lost
}

func newPlan(ns, host string) *plan {
	return &plan{ns: ns, host: host, entries: map[key]*entry{}, others: map[string]*other{}}
}

// look takes a scan, and returns the candidates to ask now.
func (p *plan) look(now time.Time, s *Scan) (ask []Candidate) {
	list, findings := Candidates(s)
	p.static, p.parents = findings, s.Parents
	for _, e := range p.entries {
		e.there = false
	}
	for i := range list {
		c := &list[i]
		e := p.entries[c.key]
		if e == nil {
			e = &entry{next: now}
			p.entries[c.key] = e
		}
		if e.there = true; e.found == nil {
			e.Candidate = *c
		} else {
			e.PIDs = c.PIDs
		}
		if e.found == nil && !e.asking && !now.Before(e.next) {
			e.asking = true
			ask = append(ask, e.Candidate)
		}
	}
	for k, e := range p.entries {
		// An engine that runs is dropped when its process has ended, and not because a scan
		// misses it: so it is lost, and did not leave. Without a process the scan decides.
		if !e.there && !e.asking && (!e.runs || k.pid == 0) {
			delete(p.entries, k)
		}
	}
	slices.SortFunc(ask, func(a, b Candidate) int { return cmp.Or(cmp.Compare(a.pid, b.pid), cmp.Compare(a.port, b.port)) })
	return ask
}

// asked takes the answer of a candidate.
func (p *plan) asked(now time.Time, k key, found probe.Found, err error) {
	e := p.entries[k]
	if e == nil {
		return
	}
	e.asking, e.err = false, err
	if err == nil {
		e.found, e.id = &found, e.Candidate.id(found.Kind)
		return
	}
	var status *probe.StatusError
	if errors.Is(err, probe.ErrRefused) || errors.As(err, &status) && e.Kind != "" {
		e.next, e.wait = now, 0 // it loads, or is about to listen
		return
	}
	least, most := askAgain, askSeldom
	if e.Kind == "" {
		least, most = askSeldom, askRarely
	}
	e.wait = min(max(2*e.wait, least), most)
	e.next = now.Add(e.wait)
}

// ended says that an engine's process has ended.
func (p *plan) ended(id string) {
	for k, e := range p.entries {
		if e.id == id && e.runs {
			delete(p.entries, k)
		}
	}
}

// heard takes a beat that another process sent.
func (p *plan) heard(now time.Time, b *hivebeat.Beat) {
	if b.State.Goodbye() || b.Exit != "" {
		delete(p.others, b.Worker)
		return
	}
	if b.Model == "" && b.Probed == 0 { // it says nothing about the engine, such as one that only follows the process
		delete(p.others, b.Worker)
		return
	}
	p.others[b.Worker] = &other{
		worker: b.Worker, ns: b.NS, host: b.Host, pid: b.PID, endpoint: b.Endpoint,
		until: now.Add(verdict.LostAfter(b.Every.Duration(), b.Quiet.Duration())),
	}
}

// decide returns the engines to beat for, by id.
func (p *plan) decide(now time.Time) (want []*entry) {
	for id, o := range p.others {
		_, lives := p.parents[o.pid]
		if !now.Before(o.until) || p.parents != nil && o.ns == p.ns && o.ns != "" && !lives {
			delete(p.others, id)
		}
	}
	var all []*entry
	for _, e := range p.entries {
		if e.found != nil {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *entry) int { // those that run keep their id
		return cmp.Or(b2i(b.runs)-b2i(a.runs), cmp.Compare(a.pid, b.pid), cmp.Compare(a.port, b.port))
	})
	taken := map[string]*entry{}
	reached := map[string]*entry{}
	for _, e := range all {
		e.why, e.runs = "", false
		switch other := p.sameAs(e); {
		case other != "":
			e.why = other
		case reached[e.URL] != nil:
			e.why = "left out: it is the engine " + reached[e.URL].id
		case taken[e.id] != nil:
			e.why = fmt.Sprintf("left out: the engine at %s has the id %s already", taken[e.id].URL, e.id)
		}
		if e.why != "" {
			e.spec = nil
			continue
		}
		taken[e.id], reached[e.URL], e.runs = e, e, true
		want = append(want, e)
	}
	return want
}

// sameAs says which other worker reports this engine already, or is empty.
func (p *plan) sameAs(e *entry) string {
	ids := make([]string, 0, len(p.others))
	for id := range p.others {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	boot, _, _ := strings.Cut(p.ns, "/")
	for _, id := range ids {
		o := p.others[id]
		switch {
		case o.pid != 0 && o.ns == p.ns && o.ns != "" && slices.Contains(e.PIDs, o.pid),
			o.pid != 0 && e.NS != "" && o.ns == boot+"/"+e.NS && o.pid == e.Inner:
			return fmt.Sprintf("left out: worker %s beats for its process already", id)
		case p.sameEndpoint(o, e):
			return fmt.Sprintf("left out: worker %s beats for %s already", id, o.endpoint)
		}
	}
	return ""
}

// reasons says why engines are left out, by id.
func (p *plan) reasons() map[string]string {
	why := make(map[string]string)
	for _, e := range p.entries {
		if e.why != "" && e.id != "" {
			why[e.id] = strings.TrimPrefix(e.why, "left out: ")
		}
	}
	return why
}

// sameEndpoint reports whether the endpoint of another worker is that of e. A loopback address is
// that of the machine or container where the worker runs; it says which by its host name.
func (p *plan) sameEndpoint(o *other, e *entry) bool {
	u, err := url.Parse(o.endpoint)
	if err != nil || u.Hostname() == "" {
		return false
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	name := u.Hostname()
	addr, notAddr := netip.ParseAddr(name)
	own, _ := url.Parse(e.URL)
	here := isLoopback(own.Hostname())
	public, inner := own.Port() == port, port == strconv.Itoa(int(e.port))
	if name == "localhost" || notAddr == nil && (addr.IsLoopback() || addr.IsUnspecified()) {
		return here && public && o.host == p.host || e.Host != "" && o.host == e.Host && inner
	}
	return public && (name == own.Hostname() || here && name == p.host) ||
		inner && e.Host != "" && (name == e.Host || o.host == e.Host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// findings describes each process and port.
func (p *plan) findings() (list []Finding) {
	for _, e := range p.entries {
		f := Finding{Kind: e.Kind, PID: e.pid, URL: e.URL}
		switch {
		case e.found != nil && e.runs:
			f.ID, f.Kind, f.Beats = e.id, e.found.Kind, true
			f.What = fmt.Sprintf("%s at %s: %s; %s", e.found.Kind, e.URL, e.Why, e.found.Evidence)
			if e.pid == 0 {
				f.What, f.Do = f.What+"; its process is unknown, so its end is seen by its silence only", deniedDo
			}
		case e.found != nil:
			f.Kind = e.found.Kind
			f.What = fmt.Sprintf("%s at %s: %s", e.found.Kind, e.URL, cmp.Or(e.why, "found"))
		case e.err == nil:
			continue // asked for the first time
		case e.Kind == "": // a guess that was wrong
			f.What = fmt.Sprintf("no engine at %s: %v (%s)", e.URL, e.err, e.Why)
		default:
			f.Trouble = true
			f.What = fmt.Sprintf("%s does not answer as an engine yet: %v (%s)", e.URL, e.err, e.Why)
			if errors.Is(e.err, probe.ErrUnauthorized) {
				f.Do = "it wants credentials: start \"hivebeat sidecar\" with probe.token_file for it"
			}
		}
		list = append(list, f)
	}
	list = append(list, p.static...)
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(b2i(b.Beats)-b2i(a.Beats), cmp.Compare(a.ID, b.ID), cmp.Compare(a.PID, b.PID), cmp.Compare(a.URL, b.URL))
	})
	return list
}
