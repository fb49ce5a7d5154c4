package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/plaintext"
)

// ErrPending means that some Reader has not answered yet.
var ErrPending = errors.New("not read yet")

// leastUnread is how long a GPU may at least stay unread before it is unknown, and
// slowUnread how many times as long as the last reading took.
const (
	leastUnread = 45 * time.Second
	slowUnread  = 3
)

// Config configures a Fleet.
type Config struct {
	Sources  []string // names of all readers, as in Read and Fail
	Expected int      // how many GPUs the machine should have; 0: unknown
}

// OwnerOf says whose process a pid is. The worker's id is empty if it is unknown, or if
// the process never belonged to a worker.
type OwnerOf func(pid uint64) (owner Owner, worker string)

// Fleet holds all GPUs that a machine has, or had within KeepKnown, and concludes their
// states. It is pure: it has no clock, no lock and no I/O. Its inputs are Read, Fail,
// Incident, Host, Recall, Forget and, at the time of Next, Tick. Times never go
// backwards. Use New.
type Fleet struct {
	cfg     Config
	sources map[string]*source
	devices map[string]*device
	host    struct{ total, used uint64 } // memory of the machine, for GPUs that share it

	n       uint64
	moments []moment
	changes []Change
	orphans map[holder]*held
	notes   map[string]note // by worker
}

// source is the state of one Reader.
type source struct {
	name     string
	heard    bool  // it has answered or failed
	none     bool  // its last answer was ErrNone
	err      error // of the last call, if that failed
	partial  error // of the last reading
	procsErr error
	stray    string // evidence of the mentions that match no known GPU
	driver   string
	answered int // GPUs in the last reading
	present  int // GPUs on the PCI bus, if known
	took     time.Duration
}

// device is one GPU.
type device struct {
	key    string       // UUID, or bus or index if it has none
	gpu    hivebeat.GPU // facts as read last
	source *source      // nil: recalled, and not read yet
	read   time.Time    // when the facts were read
	heard  time.Time    // when a reading last covered it; zero: never
	seen   time.Time    // when it was last there
	memory memory

	faults  []Fault // of the last reading that covered it, worst first
	pending *pending
	stuck   *Fault // ends only by Forget
	missing string // why it is gone; empty: it is not
	clean   time.Time
	boots   uint64
	before  Fault // the fault before the last reboot

	verdict Fault
	since   time.Time
	known   bool // it was in some state that a reading showed: later changes are logged
	flaps   flaps
}

// New returns a Fleet that knows no GPU.
func New(cfg Config) *Fleet {
	f := &Fleet{
		cfg: cfg, sources: make(map[string]*source), devices: make(map[string]*device),
		orphans: make(map[holder]*held), notes: make(map[string]note),
	}
	for _, name := range cfg.Sources {
		f.source(name)
	}
	return f
}

func (f *Fleet) source(name string) *source {
	s := f.sources[name]
	if s == nil {
		s = &source{name: name}
		f.sources[name] = s
	}
	return s
}

// Read handles a reading. owner may be nil: then no process has a known owner.
func (f *Fleet) Read(now time.Time, name string, r Reading, owner OwnerOf) {
	s := f.source(name)
	s.heard, s.none, s.err, s.partial, s.procsErr = true, false, nil, r.Partial, r.ProcsErr
	s.took, s.present, s.stray = r.Took, r.Present, ""
	if r.Driver != "" {
		s.driver = plaintext.Clip(r.Driver, hivebeat.MaxHostText)
	}
	read := make(map[*device]bool, len(r.Devices))
	was := make(map[*device]uint64, len(r.Devices))
	for i := range r.Devices {
		if d := f.deviceOf(&r.Devices[i].GPU); d != nil && !read[d] {
			if d.gpu.UUID != "" {
				was[d] = d.gpu.Index
			}
			read[d] = true
			d.take(now, s, &r.Devices[i])
		}
	}
	s.answered = len(read)
	f.keepIndexes(s, read, was)
	f.mention(now, s, r.Mentions, read)
	for d := range read {
		d.settle(now)
	}
	for _, d := range f.devices {
		if d.source != s || read[d] {
			continue
		}
		if r.Partial != nil {
			d.gpu.Err = plaintext.Clip("not in the last reading: "+r.Partial.Error(), hivebeat.MaxHostText)
		} else if d.missing == "" {
			d.missing = s.lacks()
		}
	}
	f.attribute(now, read, &r, owner)
	f.judge(now)
}

// keepIndexes gives GPUs the index back that they had, while one is missing: a driver
// numbers those that it sees, and the number of the missing one would name another GPU.
func (f *Fleet) keepIndexes(s *source, read map[*device]bool, was map[*device]uint64) {
	whole := true
	for _, d := range f.devices {
		whole = whole && (read[d] || d.source != nil && d.source != s)
	}
	if whole {
		return
	}
	used := make(map[uint64]bool)
	for d, index := range was {
		d.gpu.Index, used[index] = index, true
	}
	for _, d := range f.sorted() {
		if _, known := was[d]; known || !read[d] {
			continue
		}
		for used[d.gpu.Index] {
			d.gpu.Index++
		}
		used[d.gpu.Index] = true
	}
}

// lacks describes a reading that lacks a GPU.
func (s *source) lacks() string {
	text := fmt.Sprintf("missing from a good reading of %s, which has %s", s.name, count(s.answered, "GPU"))
	if s.present > 0 {
		text += fmt.Sprintf("; the PCI bus has %d", s.present)
	}
	return text
}

func count(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

// Fail handles a failed call of a Reader. ErrNone means that it has nothing to read.
func (f *Fleet) Fail(now time.Time, name string, err error) {
	s := f.source(name)
	s.heard, s.none, s.err, s.procsErr = true, errors.Is(err, ErrNone), err, err
	s.partial, s.stray, s.answered = nil, "", 0
	f.judge(now)
}

// Host sets the memory of the machine in bytes. GPUs that share it have these figures.
func (f *Fleet) Host(total, used uint64) {
	f.host.total, f.host.used = small(total), small(used)
}

// Tick handles the passage of time.
func (f *Fleet) Tick(now time.Time) { f.judge(now) }

// keyOf returns what identifies a GPU over time.
func keyOf(g *hivebeat.GPU) string {
	switch {
	case g.UUID != "":
		return plaintext.Clip(g.UUID, hivebeat.MaxGPUID)
	case g.Bus != "":
		return plaintext.Clip(g.Bus, hivebeat.MaxGPUID)
	}
	return fmt.Sprintf("#%d", g.Index)
}

// deviceOf returns the device of g, and adds it if it is new. It returns nil if there are
// too many: a GPU that is not there makes room for one that is.
func (f *Fleet) deviceOf(g *hivebeat.GPU) *device {
	key := keyOf(g)
	if d := f.devices[key]; d != nil {
		return d
	}
	if len(f.devices) >= hivebeat.MaxGPUs {
		var oldest *device
		for _, d := range f.devices {
			if d.missing != "" && (oldest == nil || d.seen.Before(oldest.seen)) {
				oldest = d
			}
		}
		if oldest == nil {
			return nil
		}
		delete(f.devices, oldest.key)
	}
	d := &device{key: key}
	f.devices[key] = d
	return d
}

// take takes over what a reading says of a GPU.
func (d *device) take(now time.Time, s *source, r *Device) {
	was := d.gpu
	d.source, d.seen, d.missing = s, now, ""
	d.faults = slices.Clone(r.Faults)
	err := plaintext.Clip(r.Err, hivebeat.MaxHostText)
	if err != "" && was.Total > 0 { // what it could not read stays as it was, and ages
		d.gpu.Err = err
	} else {
		d.gpu = onWire(r.GPU)
		d.gpu.Err, d.read = err, now
	}
	if d.gpu.Name == "" {
		d.gpu.Name = was.Name
	}
	if d.gpu.Bus == "" {
		d.gpu.Bus = was.Bus
	}
	if d.gpu.Total == 0 && !d.gpu.Unified {
		d.gpu.Total = was.Total
	}
	if err == "" {
		d.heard = now
	}
}

// mention adds what messages of the driver say of GPUs to their faults.
func (f *Fleet) mention(now time.Time, s *source, list []Mention, read map[*device]bool) {
	var stray []string
	named := make(map[*device]bool)
	for _, m := range list {
		d := f.find(s, m, read)
		if d == nil {
			stray = append(stray, m.Fault.Evidence)
			continue
		}
		if !read[d] && !named[d] {
			d.faults, d.seen = nil, now
		}
		named[d] = true
		d.faults = append(d.faults, m.Fault)
	}
	s.stray = strings.Join(stray, "; ")
}

// find returns the GPU that m names, or nil if none is known. A recalled GPU that was not
// read yet counts. A mention without an address and an index is of a GPU that is missing from
// the reading, if just one is.
func (f *Fleet) find(s *source, m Mention, read map[*device]bool) *device {
	bus := NormalBus(m.Bus)
	var absent []*device
	for _, d := range f.devices {
		if !read[d] && d.missing == "" && (d.source == nil || d.source == s) {
			absent = append(absent, d)
		}
		switch {
		case d.source != nil && d.source != s:
		case bus != "":
			if NormalBus(d.gpu.Bus) == bus {
				return d
			}
		case m.Index >= 0 && d.missing == "" && d.gpu.Index == uint64(m.Index):
			return d
		}
	}
	if bus == "" && m.Index < 0 && len(absent) == 1 {
		return absent[0]
	}
	return nil
}

// onWire returns g as the wire can carry it, without the conclusions.
func onWire(g hivebeat.GPU) hivebeat.GPU {
	g.UUID, g.Name, g.Bus = plaintext.Clip(g.UUID, hivebeat.MaxGPUID), plaintext.Clip(g.Name, hivebeat.MaxHostText), plaintext.Clip(g.Bus, hivebeat.MaxGPUID)
	g.Index, g.Total, g.Used, g.Reserved = small(g.Index), small(g.Total), small(g.Used), small(g.Reserved)
	g.Ours, g.Orphaned, g.Unattributed = small(g.Ours), small(g.Orphaned), small(g.Unattributed)
	g.OrphanOf = plaintext.Clip(g.OrphanOf, hivebeat.MaxID)
	g.Util, g.Power = min(g.Util, 100), small(g.Power)
	g.Temp = min(max(g.Temp, -hivebeat.MaxInt), hivebeat.MaxInt)
	g.State, g.Cause, g.Evidence, g.Action, g.Since, g.Boots, g.Age = "", "", "", "", 0, 0, 0
	g.Instances = slices.Clone(g.Instances[:min(len(g.Instances), hivebeat.MaxInstances)])
	for i := range g.Instances {
		n := &g.Instances[i]
		n.UUID, n.Profile = plaintext.Clip(n.UUID, hivebeat.MaxGPUID), plaintext.Clip(n.Profile, hivebeat.MaxGPUID)
		n.GI, n.CI, n.Total, n.Used, n.Reserved = small(n.GI), small(n.CI), small(n.Total), small(n.Used), small(n.Reserved)
		n.Ours, n.Orphaned, n.Unattributed = small(n.Ours), small(n.Orphaned), small(n.Unattributed)
	}
	return g
}

// small returns n, limited to the largest integer on the wire.
func small(n uint64) uint64 { return min(n, hivebeat.MaxInt) }

// sum returns a + b, limited in the same way.
func sum(a, b uint64) uint64 { return small(small(a) + small(b)) }

// sorted returns all devices by index.
func (f *Fleet) sorted() []*device {
	list := make([]*device, 0, len(f.devices))
	for _, d := range f.devices {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *device) int {
		return cmp.Or(cmp.Compare(a.gpu.Index, b.gpu.Index), cmp.Compare(a.key, b.key))
	})
	return list
}

// GPUs returns all known GPUs by index, as a snapshot carries them. The caller owns the
// list.
func (f *Fleet) GPUs(now time.Time) []hivebeat.GPU {
	list := make([]hivebeat.GPU, 0, len(f.devices))
	for _, d := range f.sorted() {
		g := d.gpu
		f.fill(d, &g)
		v := &d.verdict
		g.State, g.Cause, g.Evidence, g.Action = v.State, v.Cause, v.Evidence, v.Action
		g.Since, g.Age = hivebeat.MillisOf(now.Sub(d.since)), hivebeat.MillisOf(now.Sub(d.read))
		if v.State.Bad() {
			g.Boots = d.boots
		}
		list = append(list, g)
	}
	return list
}

// Driver returns the version of the driver, or those of several drivers.
func (f *Fleet) Driver() string {
	var list []string
	for _, name := range f.cfg.Sources {
		if s := f.source(name); s.driver != "" && !slices.Contains(list, s.driver) {
			list = append(list, s.driver)
		}
	}
	return plaintext.Clip(strings.Join(list, ", "), hivebeat.MaxHostText)
}

// Collect returns nil if every known GPU answers, ErrNone if there never was one,
// ErrPending while some Reader has not answered, and otherwise why some GPU does not
// answer.
func (f *Fleet) Collect() error {
	var why []string
	answer, none, pending := 0, true, false
	for _, name := range f.cfg.Sources {
		s := f.source(name)
		answer += s.answered
		pending = pending || !s.heard
		none = none && s.none
		switch {
		case s.none:
		case s.err != nil:
			why = append(why, s.err.Error())
		case s.partial != nil:
			why = append(why, s.partial.Error())
		case s.stray != "":
			why = append(why, s.stray)
		}
		if s.err == nil && s.heard && s.answered < s.present {
			why = append(why, fmt.Sprintf("%s answers for %d of the %s on the PCI bus", s.name, s.answered, count(s.present, "GPU")))
		}
	}
	if none && len(f.devices) > 0 {
		why = append(why, fmt.Sprintf("no driver answers for the %s that this machine had", count(len(f.devices), "GPU")))
	}
	if !pending && answer < f.cfg.Expected {
		why = append(why, fmt.Sprintf("%d of %s answer", answer, count(f.cfg.Expected, "expected GPU")))
	}
	if !pending || len(why) > 0 {
		for _, d := range f.sorted() {
			if v := &d.verdict; !v.State.Usable() {
				why = append(why, fmt.Sprintf("GPU %d (%s) is %s: %s", d.gpu.Index, d.key, v.State, v.Evidence))
			}
		}
	}
	switch {
	case len(why) > 0:
		return errors.New(strings.Join(why, "; "))
	case pending:
		return ErrPending
	case len(f.devices) == 0:
		return ErrNone
	}
	return nil
}

// Procs returns nil if the processes that hold memory are known, ErrNone if no Reader
// reports processes, and otherwise why they are not.
func (f *Fleet) Procs() error {
	read, pending := false, false
	for _, name := range f.cfg.Sources {
		s := f.source(name)
		switch {
		case !s.heard:
			pending = true
		case errors.Is(s.procsErr, ErrNone):
		case s.procsErr != nil:
			return s.procsErr
		default:
			read = read || s.answered > 0
		}
	}
	switch {
	case read:
		return nil
	case pending:
		return ErrPending
	}
	return ErrNone
}
